"""Activations of straight pieces: ReLU and its kin."""

from dataclasses import dataclass

import numpy as np

from devices.base.errors import UnsupportedMethodError
from workloads.operators.activation import PiecewiseLinear, Ramps
from workloads.operators.base import Array, LocalMap, Operator, Shape


@dataclass(frozen=True, slots=True, eq=False)
class Relu(PiecewiseLinear):
    """`max(x, 0)`."""

    def ramps(self) -> Ramps:
        return Ramps(0.0, 0.0, (1.0,), (0.0,))

    def value(self, x: Array) -> Array:
        return np.maximum(x, 0)


@dataclass(frozen=True, slots=True, eq=False)
class LeakyRelu(PiecewiseLinear):
    """`x` above 0, `alpha x` below."""

    alpha: float

    def ramps(self) -> Ramps:
        return Ramps(0.0, self.alpha, (1.0 - self.alpha,), (0.0,))

    def value(self, x: Array) -> Array:
        return np.where(x > 0, x, self.alpha * x)


@dataclass(frozen=True, slots=True, eq=False)
class PRelu(PiecewiseLinear):
    """`x` above 0, `slopes x` below; the slopes broadcast against one sample."""

    slopes: Array

    def ramps(self) -> Ramps:
        below = self.slopes[..., None]
        return Ramps(0.0, below, (1.0 - below,), (0.0,))

    def value(self, x: Array) -> Array:
        return np.where(x > 0, x, self.slopes[..., None].astype(x.dtype) * x)


@dataclass(frozen=True, slots=True, eq=False)
class Clip(PiecewiseLinear):
    """`min(max(x, low), high)`; either bound may be absent."""

    low: float | None = None
    high: float | None = None

    @property
    def kind(self) -> str:
        return "ReLU6" if (self.low, self.high) == (0.0, 6.0) else "Clip"

    def ramps(self) -> Ramps:
        offset = 0.0 if self.low is None else self.low
        rises = () if self.low is None else (self.low,)
        falls = () if self.high is None else (self.high,)
        weights = (1.0,) * len(rises) + (-1.0,) * len(falls)
        return Ramps(offset, 1.0 if self.low is None else 0.0, weights, rises + falls)

    def value(self, x: Array) -> Array:
        return np.clip(x, self.low, self.high)


@dataclass(frozen=True, slots=True, eq=False)
class HardSigmoid(PiecewiseLinear):
    """`alpha x + beta`, held within 0 and 1; alpha is positive."""

    alpha: float = 0.2
    beta: float = 0.5

    def ramps(self) -> Ramps:
        return Ramps(0.0, 0.0, (self.alpha, -self.alpha), (-self.beta / self.alpha, (1.0 - self.beta) / self.alpha))

    def value(self, x: Array) -> Array:
        return np.clip(self.alpha * x + self.beta, 0, 1)


@dataclass(frozen=True, slots=True, eq=False)
class Abs(PiecewiseLinear):
    """`|x|`."""

    def ramps(self) -> Ramps:
        return Ramps(0.0, -1.0, (2.0,), (0.0,))

    def value(self, x: Array) -> Array:
        return np.abs(x)


@dataclass(frozen=True, slots=True, eq=False)
class Above(Operator):
    """1 above a threshold, 0 below: a comparison with a number. It has no slope to predict with."""

    threshold: float

    @property
    def kind(self) -> str:
        return "Greater"

    def out_shape(self, *in_shapes: Shape) -> Shape:
        return in_shapes[0]

    def forward(self, *inputs: Array) -> Array:
        return (inputs[0] > self.threshold).astype(inputs[0].dtype)

    def linearize(self, inputs: tuple[Array, ...], output: Array) -> LocalMap:
        raise UnsupportedMethodError("Greater: a comparison jumps, and has no slope; Monte-Carlo alone can tell what errors do to it")
