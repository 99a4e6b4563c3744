"""1/f noise: a conductance wanders slowly, by so much until a given time after programming.

    G(t) = G (1 + Q(g) sqrt(ln((t + t_r) / (2 t_r))) z),   Q(g) = min(scale (g / over)^-exponent, cap),   z ~ N(0, 1)     (1)

with g the state that was asked for, t_r the time one read takes (noise faster than that averages out), z the same for all reads of an
inference. Published for phase-change memory (Nandakumar et al., ICECS 2019).
"""

from abc import abstractmethod
from dataclasses import dataclass, field
from typing import ClassVar, Literal

import numpy as np

from devices.base.toml_codec import about, check_types, raise_faults
from devices.law import CellLaw, CellMoments, Scope, Values
from devices.piecewise import LogThenPolynomial

SMALLEST_STATE = 1e-9
"""Over the range: what the power of a state is taken of at least; the cap holds long before."""


class SlowNoise(CellLaw):
    """Noise (1), in proportion to the stored conductance, with a Q that a subclass gives."""

    __slots__ = ()
    cause: ClassVar[str] = "low_frequency_noise"
    scope: ClassVar[Scope] = "inference"
    t_read_s: float
    t_s: float

    @abstractmethod
    def q(self, asked_siemens: Values) -> Values:
        """Return Q of each state."""

    @property
    def log_time(self) -> float:
        """ln((t + t_r) / (2 t_r)), or 0 before there is any noise."""
        return max(float(np.log((self.t_s + self.t_read_s) / (2.0 * self.t_read_s))), 0.0)

    def relative_std(self, asked_siemens: Values) -> Values:
        """Return the standard deviation over the stored conductance."""
        return self.q(asked_siemens) * np.sqrt(self.log_time)

    def moments(self, target_siemens: Values, g_max_siemens: float) -> CellMoments:
        before = CellMoments(mean_siemens=target_siemens, variance_siemens2=np.zeros_like(target_siemens))
        return self.moments_after(before, g_max_siemens, asked_siemens=target_siemens)

    def moments_after(self, before: CellMoments, g_max_siemens: float, *, asked_siemens: Values) -> CellMoments:
        """Return the moments: exact, z being independent of what is stored."""
        relative = self.relative_std(asked_siemens) ** 2
        variance = before.variance_siemens2 + relative * (before.variance_siemens2 + before.mean_siemens**2)
        return CellMoments(mean_siemens=before.mean_siemens, variance_siemens2=variance)

    def sample(self, target_siemens: Values, g_max_siemens: float, *, normals: Values) -> Values:
        return self.sample_after(target_siemens, g_max_siemens, asked_siemens=target_siemens, normals=normals)

    def sample_after(self, stored_siemens: Values, g_max_siemens: float, *, asked_siemens: Values, normals: Values) -> Values:
        kind = normals.dtype
        return np.asarray(stored_siemens, kind) * (1 + self.relative_std(asked_siemens).astype(kind) * normals)

    def precompensated(self, target_siemens: Values, g_max_siemens: float) -> Values:
        """Return the target: the mean does not move."""
        return target_siemens

    def scales_with(self) -> Literal["state"]:
        return "state"


_T_READ = about("Time that one read takes.", above=0.0)
_T = about("Time since programming.", at_least=0.0)


@dataclass(frozen=True, slots=True, kw_only=True)
class OneOverF(SlowNoise):
    """Q falls as a power of the state, up to a cap."""

    kind: ClassVar[str] = "one_over_f"
    q_scale: float = field(metadata=about("Q of a state at `over_siemens`.", at_least=0.0))
    q_exponent: float = field(metadata=about("How fast Q falls with the state.", at_least=0.0))
    q_cap: float = field(metadata=about("Largest Q.", at_least=0.0))
    over_siemens: float = field(metadata=about("Conductance that the state is over.", above=0.0))
    t_read_s: float = field(metadata=_T_READ)
    t_s: float = field(default=0.0, metadata=_T)

    def __post_init__(self) -> None:
        raise_faults(check_types(self))

    def q(self, asked_siemens: Values) -> Values:
        state = np.maximum(np.asarray(asked_siemens, np.float64) / self.over_siemens, SMALLEST_STATE)
        return np.minimum(self.q_scale * state**-self.q_exponent, self.q_cap)


@dataclass(frozen=True, slots=True, kw_only=True)
class PiecewiseOneOverF(SlowNoise):
    """Q is a function of the state in two pieces."""

    kind: ClassVar[str] = "one_over_f_piecewise"
    over_siemens: float = field(metadata=about("Conductance that the state is over.", above=0.0))
    by_state: LogThenPolynomial = field(metadata=about("Q by state."))
    t_read_s: float = field(metadata=_T_READ)
    t_s: float = field(default=0.0, metadata=_T)

    def __post_init__(self) -> None:
        raise_faults(check_types(self))

    def q(self, asked_siemens: Values) -> Values:
        return self.by_state.at(np.asarray(asked_siemens, np.float64) / self.over_siemens)


@dataclass(frozen=True, slots=True, kw_only=True)
class LogarithmicOneOverF(SlowNoise):
    """Noise that rises with the logarithm of the state: Q g = scale log10(g / over), none below `over`, as in aihwkit's `reram.py`."""

    kind: ClassVar[str] = "one_over_f_logarithmic"
    scale_siemens: float = field(metadata=about("What each decade of the state adds.", at_least=0.0))
    over_siemens: float = field(metadata=about("Conductance that the logarithm's argument is over.", above=0.0))
    t_read_s: float = field(metadata=_T_READ)
    t_s: float = field(default=0.0, metadata=_T)

    def __post_init__(self) -> None:
        raise_faults(check_types(self))

    def q(self, asked_siemens: Values) -> Values:
        asked = np.maximum(np.asarray(asked_siemens, np.float64), self.over_siemens)
        return self.scale_siemens * np.log10(asked / self.over_siemens) / asked


LOW_FREQUENCY_LAWS: dict[str, type[SlowNoise]] = {law.kind: law for law in (OneOverF, PiecewiseOneOverF, LogarithmicOneOverF)}
