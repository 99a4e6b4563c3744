"""Reductions over sample axes: mean, sum, maximum. Global pooling is a reduction over the spatial axes."""

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
from workloads.operators.reshape import one_tangent
from workloads.operators.tournament import tournament


def reduced_shape(shape: Shape, axes: tuple[int, ...], keepdims: bool) -> Shape:
    """Return the shape after a reduction over `axes` (not negative)."""
    if keepdims:
        return tuple(1 if i in axes else n for i, n in enumerate(shape))
    return tuple(n for i, n in enumerate(shape) if i not in axes)


def _expanded(values: Array, shape: Shape, axes: tuple[int, ...]) -> Array:
    """Return reduced values with the reduced axes back, of length 1."""
    return values.reshape(*reduced_shape(shape, axes, True), values.shape[-1])


@dataclass(frozen=True, slots=True, eq=False)
class ReduceSum(LinearOperator):
    """The sum over sample axes."""

    axes: tuple[int, ...]
    keepdims: bool = True

    def out_shape(self, *in_shapes: Shape) -> Shape:
        return reduced_shape(in_shapes[0], self.axes, self.keepdims)

    def linear(self, tangents: tuple[Array | None, ...]) -> Array:
        return one_tangent(tangents).sum(axis=self.axes, keepdims=self.keepdims)

    def transpose(self, delta: Array, in_shapes: tuple[Shape, ...]) -> tuple[Array | None, ...]:
        (shape,) = in_shapes
        return (np.broadcast_to(_expanded(delta, shape, self.axes), (*shape, delta.shape[-1])).copy(),)


@dataclass(frozen=True, slots=True, eq=False)
class ReduceMean(LinearOperator):
    """The mean over sample axes."""

    axes: tuple[int, ...]
    keepdims: bool = True

    def out_shape(self, *in_shapes: Shape) -> Shape:
        return reduced_shape(in_shapes[0], self.axes, self.keepdims)

    def linear(self, tangents: tuple[Array | None, ...]) -> Array:
        return one_tangent(tangents).mean(axis=self.axes, keepdims=self.keepdims)

    def transpose(self, delta: Array, in_shapes: tuple[Shape, ...]) -> tuple[Array | None, ...]:
        (shape,) = in_shapes
        n = int(np.prod([shape[i] for i in self.axes]))
        return (np.broadcast_to(_expanded(delta, shape, self.axes) / n, (*shape, delta.shape[-1])).copy(),)


@dataclass(frozen=True, slots=True, eq=False)
class ReduceMax(Operator):
    """The largest value over sample axes."""

    axes: tuple[int, ...]
    keepdims: bool = True

    def out_shape(self, *in_shapes: Shape) -> Shape:
        return reduced_shape(in_shapes[0], self.axes, self.keepdims)

    def forward(self, *inputs: Array) -> Array:
        return inputs[0].max(axis=self.axes, keepdims=self.keepdims)

    def linearize(self, inputs: tuple[Array, ...], output: Array) -> LocalMap:
        """Select the first largest value."""
        places = self._places(inputs[0])
        winner = places.argmax(axis=0)
        chosen = np.arange(len(places)).reshape(-1, *(1,) * winner.ndim) == winner
        return self._weighing(chosen, inputs[0].shape[:-1])

    def over_gaussian(self, means: tuple[Array, ...], variances: tuple[Array, ...], tangents: tuple[Array, ...]) -> GaussianStep:
        """Return Clark's moments of the maximum; the gain weighs the places by their chance to win."""
        mean, variance, gains = tournament(*(self._places(x[0]) for x in (means, variances, tangents)))
        in_shape = means[0].shape[:-1]
        shape = (*self.out_shape(in_shape), -1)
        gain = self._weighing(gains, in_shape)
        return GaussianStep(mean=mean.reshape(shape), variance=variance.reshape(shape), gain=gain)

    def _places(self, x: Array) -> Array:
        """Return the values with all reduced axes first, as one: `(n, *rest, lanes)`."""
        rest = [i for i in range(x.ndim) if i not in self.axes]
        moved = x.transpose(*self.axes, *rest)
        return moved.reshape(-1, *(x.shape[i] for i in rest))

    def _weighing(self, weights: Array, in_shape: Shape) -> LocalMap:
        """Return the map that sums the places by their weights `(n, *rest, B)`."""
        n_images, rest = weights.shape[-1], [i for i in range(len(in_shape)) if i not in self.axes]
        order = (*self.axes, *rest, len(in_shape))

        def push(tangents: tuple[Array | None, ...]) -> Array:
            places = split_lanes(self._places(one_tangent(tangents)), n_images)
            total = (places * weights[..., None, :]).sum(axis=0)
            return total.reshape(*self.out_shape(in_shape), -1)

        def pull(delta: Array) -> tuple[Array | None, ...]:
            spread = np.broadcast_to(delta.reshape(*weights.shape[1:-1], -1), (*weights.shape[:-1], delta.shape[-1]))
            moved = times_lanes(spread, weights).reshape(*(in_shape[i] for i in order[:-1]), -1)
            return (np.ascontiguousarray(moved.transpose(np.argsort(order))),)

        return Jacobian(push, pull)
