"""Normalizations whose statistics come from the sample itself, and softmax; batch normalization is an `Affine`."""

from dataclasses import dataclass

import numpy as np
from scipy.special import log_softmax, softmax

from workloads.operators.base import Array, Jacobian, LocalMap, Operator, Shape, join_lanes, split_lanes
from workloads.operators.reshape import one_tangent


@dataclass(frozen=True, slots=True, eq=False)
class Softmax(Operator):
    """`exp x / sum exp x` over sample axes."""

    axes: tuple[int, ...]

    def out_shape(self, *in_shapes: Shape) -> Shape:
        return in_shapes[0]

    def forward(self, *inputs: Array) -> Array:
        return softmax(inputs[0], axis=self.axes)

    def linearize(self, inputs: tuple[Array, ...], output: Array) -> LocalMap:
        """The map is symmetric: `y (t - sum y t)`."""
        y = output[..., None, :]

        def apply(values: Array) -> Array:
            t = split_lanes(values, output.shape[-1])
            return join_lanes(y * (t - (y * t).sum(axis=self.axes, keepdims=True)))

        return Jacobian(lambda tangents: apply(one_tangent(tangents)), lambda delta: (apply(delta),))


@dataclass(frozen=True, slots=True, eq=False)
class LogSoftmax(Operator):
    """`x - log sum exp x` over sample axes."""

    axes: tuple[int, ...]

    def out_shape(self, *in_shapes: Shape) -> Shape:
        return in_shapes[0]

    def forward(self, *inputs: Array) -> Array:
        return log_softmax(inputs[0], axis=self.axes)

    def linearize(self, inputs: tuple[Array, ...], output: Array) -> LocalMap:
        y = np.exp(output)[..., None, :]

        def push(tangents: tuple[Array | None, ...]) -> Array:
            t = split_lanes(one_tangent(tangents), output.shape[-1])
            return join_lanes(t - (y * t).sum(axis=self.axes, keepdims=True))

        def pull(delta: Array) -> tuple[Array | None, ...]:
            d = split_lanes(delta, output.shape[-1])
            return (join_lanes(d - y * d.sum(axis=self.axes, keepdims=True)),)

        return Jacobian(push, pull)


@dataclass(frozen=True, slots=True, eq=False)
class Standardize(Operator):
    """`scale (x - mean) / sqrt(variance + epsilon) + shift`, mean and variance over sample axes: instance and layer norm."""

    axes: tuple[int, ...]
    epsilon: float
    scale: Array | None = None
    shift: Array | None = None
    label: str = "LayerNormalization"

    @property
    def kind(self) -> str:
        return self.label

    def out_shape(self, *in_shapes: Shape) -> Shape:
        return in_shapes[0]

    def forward(self, *inputs: Array) -> Array:
        y, _ = self._standard(inputs[0])
        scaled = self._scaled(y)
        return scaled if self.shift is None else scaled + self.shift[..., None].astype(y.dtype)

    def linearize(self, inputs: tuple[Array, ...], output: Array) -> LocalMap:
        """Without the scale the map is symmetric: `(t - mean t - y mean(y t)) / std`."""
        y, std = (a[..., None, :] for a in self._standard(inputs[0]))
        n_images = output.shape[-1]

        def centre(t: Array) -> Array:
            return (t - t.mean(axis=self.axes, keepdims=True) - y * (y * t).mean(axis=self.axes, keepdims=True)) / std

        def push(tangents: tuple[Array | None, ...]) -> Array:
            return self._scaled(join_lanes(centre(split_lanes(one_tangent(tangents), n_images))))

        def pull(delta: Array) -> tuple[Array | None, ...]:
            return (join_lanes(centre(split_lanes(self._scaled(delta), n_images))),)

        return Jacobian(push, pull)

    def _standard(self, x: Array) -> tuple[Array, Array]:
        """Return the standardized values and the standard deviation."""
        centred = x - x.mean(axis=self.axes, keepdims=True)
        std = np.sqrt((centred**2).mean(axis=self.axes, keepdims=True) + np.asarray(self.epsilon, dtype=x.dtype))
        return centred / std, std

    def _scaled(self, y: Array) -> Array:
        return y if self.scale is None else y * self.scale[..., None].astype(y.dtype)


@dataclass(frozen=True, slots=True, eq=False)
class LRN(Operator):
    """Local response normalization across channels: `x (bias + alpha / size * sum x^2)^-beta`, the sum over `size` neighbours."""

    size: int
    alpha: float
    beta: float
    bias: float

    def out_shape(self, *in_shapes: Shape) -> Shape:
        return in_shapes[0]

    def forward(self, *inputs: Array) -> Array:
        (x,) = inputs
        return x * self._base(x) ** -self.beta

    def linearize(self, inputs: tuple[Array, ...], output: Array) -> LocalMap:
        """With `s` the base: `dy = s^-beta t - 2 alpha beta / size * x s^(-beta-1) sum x t`."""
        x, base, n_images = inputs[0][..., None, :], self._base(inputs[0])[..., None, :], output.shape[-1]
        direct, cross = base**-self.beta, 2 * self.alpha * self.beta / self.size * x * base ** (-self.beta - 1)

        def push(tangents: tuple[Array | None, ...]) -> Array:
            t = split_lanes(one_tangent(tangents), n_images)
            return join_lanes(direct * t - cross * self._neighbours(x * t))

        def pull(delta: Array) -> tuple[Array | None, ...]:
            d = split_lanes(delta, n_images)
            return (join_lanes(direct * d - x * self._neighbours(cross * d, transposed=True)),)

        return Jacobian(push, pull)

    def _base(self, x: Array) -> Array:
        return self.bias + self.alpha / self.size * self._neighbours(x**2)

    def _neighbours(self, x: Array, *, transposed: bool = False) -> Array:
        """Return sums over channels `c - floor((size-1)/2) ... c + ceil((size-1)/2)`, or the transposed sums."""
        before, after = (self.size - 1) // 2, self.size // 2
        if transposed:
            before, after = after, before
        padded = np.zeros((before + len(x) + after, *x.shape[1:]), dtype=x.dtype)
        padded[before : before + len(x)] = x
        total = padded[: len(x)].copy()
        for k in range(1, self.size):
            total += padded[k : k + len(x)]
        return total
