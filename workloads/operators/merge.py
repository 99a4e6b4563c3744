"""Operators that join values: sums, products, concatenation, and sums and products with constants."""

from dataclasses import dataclass

import numpy as np

from workloads.operators.base import (
    Array,
    GaussianStep,
    Jacobian,
    LinearOperator,
    LocalMap,
    Operator,
    Shape,
    split_lanes,
    times_lanes,
)


def unbroadcast(delta: Array, shape: Shape) -> Array:
    """Return `delta` summed over the sample axes along which `shape` was broadcast: the transpose of broadcasting."""
    extra = delta.ndim - 1 - len(shape)
    summed = delta.sum(axis=tuple(range(extra))) if extra else delta
    axes = tuple(i for i, n in enumerate(shape) if n == 1 and summed.shape[i] != 1)
    return summed.sum(axis=axes, keepdims=True) if axes else summed


@dataclass(frozen=True, slots=True, eq=False)
class Add(LinearOperator):
    """Sum of values, each with its sign; samples of equal rank broadcast."""

    signs: tuple[float, ...] = (1.0, 1.0)

    @property
    def kind(self) -> str:
        return "Sub" if min(self.signs) < 0 else "Add"

    def out_shape(self, *in_shapes: Shape) -> Shape:
        return np.broadcast_shapes(*in_shapes)

    def linear(self, tangents: tuple[Array | None, ...]) -> Array:
        """Sum what is given; where an absent tangent alone had the full shape, the sum has the smaller shape, and broadcasts."""
        total: Array | None = None
        for sign, t in zip(self.signs, tangents):
            if t is None:
                continue
            if total is None:
                total = t if sign == 1.0 else sign * t
            else:
                total = total + t if sign == 1.0 else total + sign * t
        if total is None:
            raise ValueError("a sum needs at least one tangent")
        return total

    def linearize(self, inputs: tuple[Array, ...], output: Array) -> LocalMap:
        shapes, full = tuple(x.shape[:-1] for x in inputs), output.shape[:-1]

        def push(tangents: tuple[Array | None, ...]) -> Array:
            total = self.linear(tangents)
            return np.broadcast_to(total, (*full, total.shape[-1]))

        return Jacobian(push, lambda delta: self.transpose(delta, shapes))

    def transpose(self, delta: Array, in_shapes: tuple[Shape, ...]) -> tuple[Array | None, ...]:
        summed = [unbroadcast(delta, shape) for shape in in_shapes]
        return tuple(d if sign == 1.0 else sign * d for sign, d in zip(self.signs, summed))


@dataclass(frozen=True, slots=True, eq=False)
class Mul(Operator):
    """Product of two values; samples of equal rank broadcast."""

    def out_shape(self, *in_shapes: Shape) -> Shape:
        return np.broadcast_shapes(*in_shapes)

    def forward(self, *inputs: Array) -> Array:
        return inputs[0] * inputs[1]

    def linearize(self, inputs: tuple[Array, ...], output: Array) -> LocalMap:
        x, y = inputs

        def push(tangents: tuple[Array | None, ...]) -> Array:
            parts = [_times(t, factor) for t, factor in zip(tangents, (y, x)) if t is not None]
            if not parts:
                raise ValueError("a product needs at least one tangent")
            return parts[0] if len(parts) == 1 else parts[0] + parts[1]

        def pull(delta: Array) -> tuple[Array | None, ...]:
            return unbroadcast(_times(delta, y), x.shape[:-1]), unbroadcast(_times(delta, x), y.shape[:-1])

        return Jacobian(push, pull)

    def over_gaussian(self, means: tuple[Array, ...], variances: tuple[Array, ...], tangents: tuple[Array, ...]) -> GaussianStep:
        """Return the exact moments of a product of two Gaussians; their covariance c is that of the tangent samples.

        `E xy = mx my + c`, `Var xy = mx^2 vy + my^2 vx + 2 mx my c + vx vy + c^2`, gain `(my, mx)`.
        """
        (mx, my), (vx, vy) = means, variances
        covariance = (split_lanes(tangents[0], mx.shape[-1]) * split_lanes(tangents[1], my.shape[-1])).mean(axis=-2)
        bound = np.sqrt(vx * vy)
        c = np.clip(covariance, -bound, bound)
        mean = mx * my + c
        variance = np.maximum(mx**2 * vy + my**2 * vx + 2 * mx * my * c, 0) + vx * vy + c**2
        return GaussianStep(mean=mean, variance=variance, gain=self.linearize(means, mean))


def _times(values: Array, factors: Array) -> Array:
    """Return `values` (R*B lanes) times `factors` (B lanes); sample shapes broadcast."""
    if values.shape[:-1] == factors.shape[:-1]:
        return times_lanes(values, factors)
    product = split_lanes(values, factors.shape[-1]) * factors[..., None, :]
    return product.reshape(*product.shape[:-2], -1)


@dataclass(frozen=True, slots=True, eq=False)
class Affine(LinearOperator):
    """`scale x + shift` with constants that broadcast against one sample."""

    scale: Array | None = None
    shift: Array | None = None

    def out_shape(self, *in_shapes: Shape) -> Shape:
        return np.broadcast_shapes(in_shapes[0], *(c.shape for c in (self.scale, self.shift) if c is not None))

    def linear(self, tangents: tuple[Array | None, ...]) -> Array:
        (tangent,) = tangents
        if tangent is None:
            raise ValueError("an affine map needs its one tangent")
        y = tangent if self.scale is None else tangent * self.scale[..., None].astype(tangent.dtype)
        return np.broadcast_to(y, (*self.out_shape(tangent.shape[:-1]), y.shape[-1]))

    def forward(self, *inputs: Array) -> Array:
        y = self.linear(inputs)
        return y if self.shift is None else y + self.shift[..., None].astype(y.dtype)

    def transpose(self, delta: Array, in_shapes: tuple[Shape, ...]) -> tuple[Array | None, ...]:
        scaled = delta if self.scale is None else delta * self.scale[..., None].astype(delta.dtype)
        return (unbroadcast(scaled, in_shapes[0]),)


@dataclass(frozen=True, slots=True, eq=False)
class Concat(LinearOperator):
    """Values laid one after another along `axis` of the sample; `sizes` are their lengths along it."""

    axis: int
    sizes: tuple[int, ...]

    def out_shape(self, *in_shapes: Shape) -> Shape:
        shape = list(in_shapes[0])
        shape[self.axis] = sum(self.sizes)
        return tuple(shape)

    def linear(self, tangents: tuple[Array | None, ...]) -> Array:
        given = next((t for t in tangents if t is not None), None)
        if given is None:
            raise ValueError("a concatenation needs at least one tangent")
        return np.concatenate([self._zeros(given, n) if t is None else t for t, n in zip(tangents, self.sizes)], axis=self.axis)

    def transpose(self, delta: Array, in_shapes: tuple[Shape, ...]) -> tuple[Array | None, ...]:
        return tuple(np.split(delta, np.cumsum(self.sizes)[:-1], axis=self.axis))

    def _zeros(self, like: Array, size: int) -> Array:
        shape = list(like.shape)
        shape[self.axis] = size
        return np.zeros(shape, dtype=like.dtype)
