"""Read noise: what one read sees differs from what is stored, freshly at every read."""

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from devices.base.errors import SpecError
from devices.law import MAX_ERROR_REL, ReadLaw, Scope, Values


def _checked_rel(value: float) -> None:
    if not 0.0 <= value <= MAX_ERROR_REL:
        raise SpecError(
            f"need 0 <= error_rel, got {value:g}; it is a standard deviation over a conductance, e.g. 0.005, and at most {MAX_ERROR_REL:g}"
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class StateIndependentReadNoise(ReadLaw):
    """The same noise at every state: std = error_rel * g_max."""

    kind: ClassVar[str] = "state_independent"
    cause: ClassVar[str] = "read_noise"
    scope: ClassVar[Scope] = "read"
    error_rel: float

    def __post_init__(self) -> None:
        _checked_rel(self.error_rel)

    def variance_siemens2(self, stored_siemens: Values, g_max_siemens: float) -> Values:
        return np.full_like(stored_siemens, (self.error_rel * g_max_siemens) ** 2)


@dataclass(frozen=True, slots=True, kw_only=True)
class ProportionalReadNoise(ReadLaw):
    """Noise proportional to the stored conductance: std = error_rel * G."""

    kind: ClassVar[str] = "proportional"
    cause: ClassVar[str] = "read_noise"
    scope: ClassVar[Scope] = "read"
    error_rel: float

    def __post_init__(self) -> None:
        _checked_rel(self.error_rel)

    def variance_siemens2(self, stored_siemens: Values, g_max_siemens: float) -> Values:
        return (self.error_rel * stored_siemens) ** 2


READ_LAWS: dict[str, type[ReadLaw]] = {law.kind: law for law in (StateIndependentReadNoise, ProportionalReadNoise)}
