"""A fitted function of a cell's state in two pieces: a logarithm held within limits below a knee, a polynomial above it."""

from dataclasses import dataclass, field

import numpy as np

from devices.base.errors import SpecError
from devices.base.toml_codec import about, check_types, raise_faults
from devices.law import Values

SMALLEST_STATE = 1e-9
"""Over the range: what the logarithm of a state is taken of at least; the limits hold long before."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LogThenPolynomial:
    """`clip(slope ln x + offset, low, high)` for x below the knee, `sum_k c_k x^k` from there on; never below zero."""

    knee: float = field(metadata=about("State from which on the polynomial holds.", at_least=0.0))
    slope: float = field(metadata=about("Of the logarithm."))
    offset: float = field(metadata=about("Of the logarithm."))
    low: float = field(metadata=about("Least value below the knee.", at_least=0.0))
    high: float = field(metadata=about("Greatest value below the knee.", at_least=0.0))
    coefficients: tuple[float, ...] = field(metadata=about("c_0, c_1, ... of the polynomial."))

    def __post_init__(self) -> None:
        raise_faults(check_types(self))
        if self.low > self.high or not self.coefficients:
            raise SpecError(f"low, high: {self.low:g}, {self.high:g}: need low <= high, and at least one of the coefficients")

    def at(self, states: Values) -> Values:
        """Return the function of states over the range."""
        x = np.maximum(np.asarray(states, np.float64), SMALLEST_STATE)
        below = np.clip(self.slope * np.log(x) + self.offset, self.low, self.high)
        above = np.polynomial.polynomial.polyval(x, np.asarray(self.coefficients))
        return np.maximum(np.where(x < self.knee, below, above), 0.0)
