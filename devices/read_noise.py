"""Read noise: what one read sees differs from what is stored, freshly at every read."""

from dataclasses import dataclass, replace
from typing import ClassVar, Self

import numpy as np

from devices.law import ReadLaw, Scope, Values, check_error_rel


@dataclass(frozen=True, slots=True, kw_only=True)
class StateIndependentReadNoise(ReadLaw):
    """The same noise at every state: std = error_rel * g_max."""

    kind: ClassVar[str] = "state_independent"
    cause: ClassVar[str] = "read_noise"
    scope: ClassVar[Scope] = "read"
    error_rel: float

    def __post_init__(self) -> None:
        check_error_rel(self.error_rel)

    def scaled(self, factor: float) -> Self:
        return replace(self, error_rel=factor * self.error_rel)

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
        check_error_rel(self.error_rel)

    def scaled(self, factor: float) -> Self:
        return replace(self, error_rel=factor * self.error_rel)

    def variance_siemens2(self, stored_siemens: Values, g_max_siemens: float) -> Values:
        return (self.error_rel * stored_siemens) ** 2


READ_LAWS: dict[str, type[ReadLaw]] = {law.kind: law for law in (StateIndependentReadNoise, ProportionalReadNoise)}
