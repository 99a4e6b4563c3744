"""Smooth activations: value, slope and kinks; their Gaussian moments come from quadrature."""

from dataclasses import dataclass
from math import pi, sqrt
from typing import ClassVar, Literal

import numpy as np
from scipy.special import erf, expit, ndtr

from workloads.operators.activation import Smooth
from workloads.operators.base import Array


@dataclass(frozen=True, slots=True, eq=False)
class Sigmoid(Smooth):
    """`1 / (1 + exp(-x))`."""

    def value(self, x: Array) -> Array:
        return expit(x)

    def slope(self, x: Array) -> Array:
        y = expit(x)
        return y * (1 - y)


@dataclass(frozen=True, slots=True, eq=False)
class Tanh(Smooth):
    """`tanh x`."""

    def value(self, x: Array) -> Array:
        return np.tanh(x)

    def slope(self, x: Array) -> Array:
        return 1 - np.tanh(x) ** 2


@dataclass(frozen=True, slots=True, eq=False)
class Softplus(Smooth):
    """`log(1 + exp x)`."""

    def value(self, x: Array) -> Array:
        return np.logaddexp(x, np.zeros_like(x))

    def slope(self, x: Array) -> Array:
        return expit(x)


@dataclass(frozen=True, slots=True, eq=False)
class Softsign(Smooth):
    """`x / (1 + |x|)`."""

    kinks: ClassVar[tuple[float, ...]] = (0.0,)

    def value(self, x: Array) -> Array:
        return x / (1 + np.abs(x))

    def slope(self, x: Array) -> Array:
        return 1 / (1 + np.abs(x)) ** 2


@dataclass(frozen=True, slots=True, eq=False)
class SiLU(Smooth):
    """`x sigmoid(alpha x)`, also called Swish."""

    alpha: float = 1.0

    def value(self, x: Array) -> Array:
        return x * expit(self.alpha * x)

    def slope(self, x: Array) -> Array:
        y = expit(self.alpha * x)
        return y * (1 + self.alpha * x * (1 - y))


@dataclass(frozen=True, slots=True, eq=False)
class HardSwish(Smooth):
    """`x min(max(x / 6 + 1/2, 0), 1)`."""

    kinks: ClassVar[tuple[float, ...]] = (-3.0, 3.0)

    def value(self, x: Array) -> Array:
        return x * np.clip(x / 6 + 0.5, 0, 1)

    def slope(self, x: Array) -> Array:
        inside = (x > -3) & (x <= 3)
        return np.where(inside, x / 3 + 0.5, (x > 3).astype(x.dtype))


@dataclass(frozen=True, slots=True, eq=False)
class Mish(Smooth):
    """`x tanh(log(1 + exp x))`."""

    def value(self, x: Array) -> Array:
        return x * np.tanh(np.logaddexp(x, np.zeros_like(x)))

    def slope(self, x: Array) -> Array:
        y = np.tanh(np.logaddexp(x, np.zeros_like(x)))
        return y + x * (1 - y**2) * expit(x)


@dataclass(frozen=True, slots=True, eq=False)
class Gelu(Smooth):
    """`x Phi(x)`, or its tanh approximation (Hendrycks and Gimpel, arXiv:1606.08415)."""

    approximate: Literal["none", "tanh"] = "none"

    def value(self, x: Array) -> Array:
        if self.approximate == "none":
            return x * ndtr(x)
        return 0.5 * x * (1 + np.tanh(self._inner(x)))

    def slope(self, x: Array) -> Array:
        if self.approximate == "none":
            return ndtr(x) + x * np.exp(-0.5 * x * x) / sqrt(2 * pi)
        t = np.tanh(self._inner(x))
        return 0.5 * (1 + t) + 0.5 * x * (1 - t**2) * sqrt(2 / pi) * (1 + 3 * 0.044715 * x**2)

    def _inner(self, x: Array) -> Array:
        return sqrt(2 / pi) * (x + 0.044715 * x**3)


@dataclass(frozen=True, slots=True, eq=False)
class Elu(Smooth):
    """`scale x` above 0, `scale alpha (exp x - 1)` below; scale is 1 but for SELU."""

    kinks: ClassVar[tuple[float, ...]] = (0.0,)
    alpha: float = 1.0
    scale: float = 1.0

    @property
    def kind(self) -> str:
        return "Elu" if self.scale == 1.0 else "Selu"

    def value(self, x: Array) -> Array:
        return self.scale * np.where(x > 0, x, self.alpha * np.expm1(np.minimum(x, 0)))

    def slope(self, x: Array) -> Array:
        return self.scale * np.where(x > 0, np.ones_like(x), self.alpha * np.exp(np.minimum(x, 0)))


@dataclass(frozen=True, slots=True, eq=False)
class Erf(Smooth):
    """The error function."""

    def value(self, x: Array) -> Array:
        return erf(x)

    def slope(self, x: Array) -> Array:
        return 2 / sqrt(pi) * np.exp(-x * x)


@dataclass(frozen=True, slots=True, eq=False)
class Exp(Smooth):
    """`exp x`."""

    def value(self, x: Array) -> Array:
        return np.exp(x)

    def slope(self, x: Array) -> Array:
        return np.exp(x)


@dataclass(frozen=True, slots=True, eq=False)
class Log(Smooth):
    """The natural logarithm of what is above 0; of anything else, that of the smallest normal number."""

    kinks: ClassVar[tuple[float, ...]] = (0.0,)

    def value(self, x: Array) -> Array:
        return np.log(np.maximum(x, _tiny(x)))

    def slope(self, x: Array) -> Array:
        return np.where(x > 0, 1 / np.maximum(x, _tiny(x)), np.zeros_like(x))


@dataclass(frozen=True, slots=True, eq=False)
class Power(Smooth):
    """`x^exponent`: square roots, inverses and their like. With a broken exponent, what is below 0 counts as 0."""

    exponent: float
    label: str = "Pow"

    @property
    def kind(self) -> str:
        return self.label

    @property
    def kinks(self) -> tuple[float, ...]:  # type: ignore[override]
        return () if self.exponent == int(self.exponent) and self.exponent > 0 else (0.0,)

    def value(self, x: Array) -> Array:
        with np.errstate(divide="ignore", over="ignore"):
            return np.power(self._base(x), np.asarray(self.exponent, x.dtype))

    def slope(self, x: Array) -> Array:
        with np.errstate(divide="ignore", over="ignore"):
            slope = self.exponent * np.power(self._base(x), np.asarray(self.exponent - 1, x.dtype))
        return slope if self.exponent == int(self.exponent) else np.where(x > 0, slope, np.zeros_like(x))

    def _base(self, x: Array) -> Array:
        return x if self.exponent == int(self.exponent) else np.maximum(x, 0)


def _tiny(x: Array) -> Array:
    return np.asarray(np.finfo(x.dtype).tiny, x.dtype)
