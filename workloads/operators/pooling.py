"""Pooling over windows of the last two (or one) sample axes."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from workloads.operators.base import (
    Array,
    GaussianStep,
    LinearOperator,
    LocalMap,
    Operator,
    Shape,
    times_lanes,
)
from workloads.operators.reshape import one_tangent
from workloads.operators.tournament import tournament

Pair = tuple[int, int]


@dataclass(frozen=True, slots=True, kw_only=True)
class Window:
    """Where the windows of a pooling lie: two axes each, the first of length 1 when the values have one dimension.

    `pads` are top, left, bottom, right; windows may reach beyond them (rounding up), onto more padding.
    """

    in_size: Pair
    out_size: Pair
    kernel: Pair
    stride: Pair
    dilation: Pair = (1, 1)
    pads: tuple[int, int, int, int] = (0, 0, 0, 0)

    @property
    def padded_size(self) -> Pair:
        """The size that holds every window."""
        reach = [(o - 1) * s + d * (k - 1) + 1 for o, s, d, k in zip(self.out_size, self.stride, self.dilation, self.kernel)]
        extent = [n + self.pads[i] + self.pads[i + 2] for i, n in enumerate(self.in_size)]
        return max(reach[0], extent[0]), max(reach[1], extent[1])

    def taps(self) -> Iterator[tuple[slice, slice]]:
        """Yield, for each place in the window, where in the padded input its values are."""
        for a in range(self.kernel[0]):
            for b in range(self.kernel[1]):
                yield self._steps(0, a), self._steps(1, b)

    def _steps(self, axis: int, place: int) -> slice:
        start = place * self.dilation[axis]
        return slice(start, start + (self.out_size[axis] - 1) * self.stride[axis] + 1, self.stride[axis])

    def pad(self, x: Array, fill: float) -> Array:
        """Return `(C, H, W, lanes)` with `fill` around it; `x` itself when nothing is around."""
        if self.padded_size == self.in_size:
            return x
        padded = np.full((x.shape[0], *self.padded_size, x.shape[-1]), fill, dtype=x.dtype)
        padded[self._inside()] = x
        return padded

    def crop(self, padded: Array) -> Array:
        """Return the part of a padded array that is the input: the transpose of `pad`."""
        return padded if self.padded_size == self.in_size else np.ascontiguousarray(padded[self._inside()])

    def _inside(self) -> tuple[slice, slice, slice]:
        top, left = self.pads[0], self.pads[1]
        return slice(None), slice(top, top + self.in_size[0]), slice(left, left + self.in_size[1])

    def wide(self, x: Array) -> Array:
        """Return an input with two window axes, `(C, H, W, lanes)`."""
        return x.reshape(x.shape[0], *self.in_size, x.shape[-1])

    def counts(self, *, include_pad: bool) -> Array:
        """Return how many places of each window count, `(1, *out_size, 1)`: the input's, or the declared padding's too."""
        held: Array = self.pad(np.ones((1, *self.in_size, 1)), 0.0)
        if include_pad:
            held[:, : self.in_size[0] + self.pads[0] + self.pads[2], : self.in_size[1] + self.pads[1] + self.pads[3]] = 1.0
        return np.maximum(sum(held[:, rows, columns] for rows, columns in self.taps()), 1.0)


@dataclass(frozen=True, slots=True, eq=False)
class WindowWeights(LocalMap):
    """A linear map that weighs the places of each window: one array `(C, *out_size, B)` a place."""

    window: Window
    weights: tuple[Array, ...]
    in_shape: Shape
    out_shape: Shape

    def push(self, tangents: tuple[Array | None, ...]) -> Array:
        padded = self.window.pad(self.window.wide(one_tangent(tangents)), 0.0)
        total = np.zeros((padded.shape[0], *self.window.out_size, padded.shape[-1]), dtype=padded.dtype)
        for (rows, columns), weight in zip(self.window.taps(), self.weights):
            total += times_lanes(np.ascontiguousarray(padded[:, rows, columns]), weight)
        return total.reshape(*self.out_shape, -1)

    def pull(self, delta: Array) -> tuple[Array | None, ...]:
        wide = delta.reshape(self.in_shape[0], *self.window.out_size, delta.shape[-1])
        padded = np.zeros((wide.shape[0], *self.window.padded_size, delta.shape[-1]), dtype=delta.dtype)
        for (rows, columns), weight in zip(self.window.taps(), self.weights):
            padded[:, rows, columns] += times_lanes(wide, weight)
        return (self.window.crop(padded).reshape(*self.in_shape, -1),)


@dataclass(frozen=True, slots=True, eq=False)
class MaxPool(Operator):
    """The largest value of each window; padding never wins."""

    window: Window
    spatial: int = 2

    def out_shape(self, *in_shapes: Shape) -> Shape:
        return (in_shapes[0][0], *self.window.out_size[2 - self.spatial :])

    def forward(self, *inputs: Array) -> Array:
        padded = self.window.pad(self.window.wide(inputs[0]), -np.inf)
        places = self.window.taps()
        rows, columns = next(places)
        largest = padded[:, rows, columns].copy()
        for rows, columns in places:
            np.maximum(largest, padded[:, rows, columns], out=largest)
        return largest.reshape(*self.out_shape(inputs[0].shape[:-1]), -1)

    def linearize(self, inputs: tuple[Array, ...], output: Array) -> LocalMap:
        """Select the first largest value of each window."""
        padded = self.window.pad(self.window.wide(inputs[0]), -np.inf)
        largest = output.reshape(padded.shape[0], *self.window.out_size, -1)
        open_, weights = np.ones(largest.shape, dtype=bool), []
        for rows, columns in self.window.taps():
            wins = open_ & (padded[:, rows, columns] == largest)
            open_ &= ~wins
            weights.append(wins)
        return self._weighing(tuple(weights), inputs[0].shape[:-1])

    def over_gaussian(self, means: tuple[Array, ...], variances: tuple[Array, ...], tangents: tuple[Array, ...]) -> GaussianStep:
        """Return Clark's moments of each window's maximum; the gain weighs its places by their chance to win."""
        mean, variance, gains = tournament(
            self._places(means[0], -np.inf), self._places(variances[0], 0.0), self._places(tangents[0], 0.0)
        )
        in_shape = means[0].shape[:-1]
        shape = (*self.out_shape(in_shape), -1)
        gain = self._weighing(tuple(gains), in_shape)
        return GaussianStep(mean=mean.reshape(shape), variance=variance.reshape(shape), gain=gain)

    def _weighing(self, weights: tuple[Array, ...], in_shape: Shape) -> LocalMap:
        return WindowWeights(self.window, weights, in_shape, self.out_shape(in_shape))

    def _places(self, x: Array, fill: float) -> Array:
        padded = self.window.pad(self.window.wide(x), fill)
        return np.stack([padded[:, rows, columns] for rows, columns in self.window.taps()])


@dataclass(frozen=True, slots=True, eq=False)
class AveragePool(LinearOperator):
    """The average of each window, over the input's places only or over the declared padding too."""

    window: Window
    spatial: int = 2
    include_pad: bool = False

    def out_shape(self, *in_shapes: Shape) -> Shape:
        return (in_shapes[0][0], *self.window.out_size[2 - self.spatial :])

    def linear(self, tangents: tuple[Array | None, ...]) -> Array:
        tangent = one_tangent(tangents)
        padded = self.window.pad(self.window.wide(tangent), 0.0)
        total = np.zeros((padded.shape[0], *self.window.out_size, padded.shape[-1]), dtype=padded.dtype)
        for rows, columns in self.window.taps():
            total += padded[:, rows, columns]
        total /= self._counts(total)
        return total.reshape(*self.out_shape(tangent.shape[:-1]), -1)

    def transpose(self, delta: Array, in_shapes: tuple[Shape, ...]) -> tuple[Array | None, ...]:
        (in_shape,) = in_shapes
        wide = delta.reshape(in_shape[0], *self.window.out_size, delta.shape[-1])
        share = wide / self._counts(wide)
        padded = np.zeros((in_shape[0], *self.window.padded_size, delta.shape[-1]), dtype=delta.dtype)
        for rows, columns in self.window.taps():
            padded[:, rows, columns] += share
        return (self.window.crop(padded).reshape(*in_shape, -1),)

    def _counts(self, like: Array) -> Array:
        return self.window.counts(include_pad=self.include_pad).astype(like.dtype)
