"""Read noise: what one read sees differs from what is stored, freshly at every read."""

from dataclasses import dataclass, field, replace
from typing import ClassVar, Self

import numpy as np

from devices.base.toml_codec import about, check_types, raise_faults
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


@dataclass(frozen=True, slots=True, kw_only=True)
class SaturatingReadNoise(ReadLaw):
    """Noise that levels off with the state: std = top (1 - exp(-G / knee)), as published for SONOS memory (Agrawal et al., IEDM 2022)."""

    kind: ClassVar[str] = "saturating"
    cause: ClassVar[str] = "read_noise"
    scope: ClassVar[Scope] = "read"
    top_siemens: float = field(metadata=about("Standard deviation far above the knee.", at_least=0.0))
    knee_siemens: float = field(metadata=about("Conductance over which it rises.", above=0.0))

    def __post_init__(self) -> None:
        raise_faults(check_types(self))

    def scaled(self, factor: float) -> Self:
        return replace(self, top_siemens=factor * self.top_siemens)

    def variance_siemens2(self, stored_siemens: Values, g_max_siemens: float) -> Values:
        knee = np.asarray(-1.0 / self.knee_siemens, np.result_type(stored_siemens))
        return (self.top_siemens * np.expm1(knee * np.abs(stored_siemens))) ** 2

    def mean_variance_siemens2(self, mean_siemens: Values, variance_siemens2: Values, g_max_siemens: float) -> Values:
        """Return E v(G) for Gaussian stored values, by quadrature."""
        nodes, weights = np.polynomial.hermite_e.hermegauss(N_NODES)
        std, total = np.sqrt(variance_siemens2), np.zeros_like(mean_siemens)
        for node, weight in zip(nodes, weights / weights.sum()):
            total += weight * self.variance_siemens2(np.maximum(mean_siemens + node * std, 0.0), g_max_siemens)
        return total


N_NODES = 16
READ_LAWS: dict[str, type[ReadLaw]] = {law.kind: law for law in (StateIndependentReadNoise, ProportionalReadNoise, SaturatingReadNoise)}
