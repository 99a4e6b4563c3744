"""All laws of what becomes of stored conductances with time, by kind."""

from typing import TypeAlias

from devices.drift import DRIFT_LAWS, PowerLaw
from devices.relaxation import LogarithmicRelaxation
from devices.retention import RetentionTable

Ageing: TypeAlias = PowerLaw | LogarithmicRelaxation | RetentionTable
AGEING_LAWS: dict[str, type[Ageing]] = {
    **DRIFT_LAWS, LogarithmicRelaxation.kind: LogarithmicRelaxation, RetentionTable.kind: RetentionTable,
}  # fmt: skip
