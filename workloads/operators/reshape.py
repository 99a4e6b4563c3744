"""Operators that move values without changing them: reshape, transpose, slice, gather, pad."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from workloads.operators.base import Array, LinearOperator, Shape


def one_tangent(tangents: tuple[Array | None, ...]) -> Array:
    """Return the only tangent of an operator with one input."""
    (tangent,) = tangents
    if tangent is None:
        raise ValueError("an operator with one input needs its tangent")
    return tangent


@dataclass(frozen=True, slots=True, eq=False)
class Reshape(LinearOperator):
    """The same values, in order, in another shape of the sample; also Flatten, Squeeze and Unsqueeze."""

    shape: Shape

    def out_shape(self, *in_shapes: Shape) -> Shape:
        return self.shape

    def linear(self, tangents: tuple[Array | None, ...]) -> Array:
        tangent = one_tangent(tangents)
        return tangent.reshape(*self.shape, tangent.shape[-1])

    def transpose(self, delta: Array, in_shapes: tuple[Shape, ...]) -> tuple[Array | None, ...]:
        return (delta.reshape(*in_shapes[0], delta.shape[-1]),)


@dataclass(frozen=True, slots=True, eq=False)
class Transpose(LinearOperator):
    """Sample axes in another order: output axis i is input axis `order[i]`."""

    order: tuple[int, ...]

    def out_shape(self, *in_shapes: Shape) -> Shape:
        return tuple(in_shapes[0][i] for i in self.order)

    def linear(self, tangents: tuple[Array | None, ...]) -> Array:
        return np.ascontiguousarray(one_tangent(tangents).transpose(*self.order, len(self.order)))

    def transpose(self, delta: Array, in_shapes: tuple[Shape, ...]) -> tuple[Array | None, ...]:
        back = np.argsort(self.order).tolist()
        return (np.ascontiguousarray(delta.transpose(*back, len(back))),)


@dataclass(frozen=True, slots=True, eq=False)
class Slice(LinearOperator):
    """A part of the sample, one slice an axis."""

    slices: tuple[slice, ...]

    def out_shape(self, *in_shapes: Shape) -> Shape:
        return tuple(len(range(n)[s]) for n, s in zip(in_shapes[0], self.slices))

    def linear(self, tangents: tuple[Array | None, ...]) -> Array:
        return np.ascontiguousarray(one_tangent(tangents)[self.slices])

    def transpose(self, delta: Array, in_shapes: tuple[Shape, ...]) -> tuple[Array | None, ...]:
        full = np.zeros((*in_shapes[0], delta.shape[-1]), dtype=delta.dtype)
        full[self.slices] = delta
        return (full,)


@dataclass(frozen=True, slots=True, eq=False)
class Gather(LinearOperator):
    """Entries `indices` (any shape, not negative) along `axis` of the sample; repeats are allowed."""

    axis: int
    indices: NDArray[np.int64]

    def out_shape(self, *in_shapes: Shape) -> Shape:
        shape = in_shapes[0]
        return (*shape[: self.axis], *self.indices.shape, *shape[self.axis + 1 :])

    def linear(self, tangents: tuple[Array | None, ...]) -> Array:
        return np.take(one_tangent(tangents), self.indices, axis=self.axis)

    def transpose(self, delta: Array, in_shapes: tuple[Shape, ...]) -> tuple[Array | None, ...]:
        (shape,) = in_shapes
        full = np.zeros((shape[self.axis], *shape[: self.axis], *shape[self.axis + 1 :], delta.shape[-1]), dtype=delta.dtype)
        flat = delta.reshape(*shape[: self.axis], -1, *shape[self.axis + 1 :], delta.shape[-1])
        np.add.at(full, self.indices.ravel(), np.moveaxis(flat, self.axis, 0))
        return (np.moveaxis(full, 0, self.axis),)


@dataclass(frozen=True, slots=True, eq=False)
class Pad(LinearOperator):
    """A constant around the sample; a negative width crops. `widths` has (before, after) for every axis."""

    widths: tuple[tuple[int, int], ...]
    constant: float = 0.0

    def out_shape(self, *in_shapes: Shape) -> Shape:
        return tuple(n + before + after for n, (before, after) in zip(in_shapes[0], self.widths))

    def forward(self, *inputs: Array) -> Array:
        return self._filled(inputs[0], self.constant)

    def linear(self, tangents: tuple[Array | None, ...]) -> Array:
        return self._filled(one_tangent(tangents), 0.0)

    def transpose(self, delta: Array, in_shapes: tuple[Shape, ...]) -> tuple[Array | None, ...]:
        x = np.zeros((*in_shapes[0], delta.shape[-1]), dtype=delta.dtype)
        inside, outside = self._overlap(in_shapes[0])
        x[inside] = delta[outside]
        return (x,)

    def _filled(self, x: Array, constant: float) -> Array:
        shape = x.shape[:-1]
        y = np.full((*self.out_shape(shape), x.shape[-1]), constant, dtype=x.dtype)
        inside, outside = self._overlap(shape)
        y[outside] = x[inside]
        return y

    def _overlap(self, shape: Shape) -> tuple[tuple[slice, ...], tuple[slice, ...]]:
        """Return where the kept values are in the input and in the output."""
        inside = tuple(slice(max(0, -b), n - max(0, -a)) for n, (b, a) in zip(shape, self.widths))
        outside = tuple(slice(max(0, b), n + b + a - max(0, a)) for n, (b, a) in zip(shape, self.widths))
        return inside, outside
