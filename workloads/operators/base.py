"""What every operator answers, whatever walks the graph.

Values are arrays of shape `(*shape, lanes)`: the shape of one sample, then the lanes. A point has one lane an image (B of them);
what is pushed or pulled through a map may carry R x B lanes, lane = r * B + b, so R tangents or R outputs travel together.

    forward       y = f(x)
    linearize     the map J of   f(x + t) = f(x) + J t + ...,             pushed forward (J t) or pulled back (J' d)
    over_gaussian the map S and the mean, for x ~ N(mean, variance):      f(x) = E f + S t + r,   S = E f',   E r t = 0   (Bussgang, Stein)

An operator knows nothing of noise; the predictors walk the graph and ask.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from devices.base.jit import jit

Array: TypeAlias = NDArray[Any]
Shape: TypeAlias = tuple[int, ...]


class LocalMap(ABC):
    """A linear map from an operator's inputs to its output, that can be applied both ways."""

    @abstractmethod
    def push(self, tangents: tuple[Array | None, ...]) -> Array:
        """Return `J t`, shape `(*out_shape, R*B)`; `None` stands for a zero tangent of that input."""

    @abstractmethod
    def pull(self, delta: Array) -> tuple[Array | None, ...]:
        """Return `J' d`, one array `(*in_shape, R*B)` for each input, `None` where the input has no influence."""


@dataclass(frozen=True, slots=True, kw_only=True)
class GaussianStep:
    """An operator's answer to a Gaussian input: the mean and variance of its output, and the gain map S."""

    mean: Array
    variance: Array
    gain: LocalMap
    exact: bool = False
    """True where the operator is linear, so that there is no residual to carry."""


class Operator(ABC):
    """One step of a network, without its place in it."""

    __slots__ = ()

    @property
    def kind(self) -> str:
        """The operator's name in messages and tables."""
        return type(self).__name__

    @abstractmethod
    def out_shape(self, *in_shapes: Shape) -> Shape:
        """Return the shape of one sample of the output, from those of the inputs."""

    @abstractmethod
    def forward(self, *inputs: Array) -> Array:
        """Return the output, `(*out_shape, B)`, for inputs `(*in_shape, B)`; inputs are left as they are."""

    @abstractmethod
    def linearize(self, inputs: tuple[Array, ...], output: Array) -> LocalMap:
        """Return the first-order map at a point; `output` is `forward(*inputs)`."""

    def over_gaussian(self, means: tuple[Array, ...], variances: tuple[Array, ...], tangents: tuple[Array, ...]) -> GaussianStep:
        """Return mean, variance and gain over Gaussian inputs of these means, marginal variances and K joint tangent samples.

        The rule of last resort, for operators without a closed form: the gain is the map at the mean, and the tangents,
        taken with both signs, are the samples over which mean and variance are averaged.
        """
        output = self.forward(*means)
        gain = self.linearize(means, output)
        samples = [self.forward(*(repeat_lanes(m, t) + sign * t for m, t in zip(means, tangents))) for sign in (1.0, -1.0)]
        split = [split_lanes(s, output.shape[-1]) for s in samples]
        mean = 0.5 * (split[0].mean(axis=-2) + split[1].mean(axis=-2))
        deviation = [(s - mean[..., None, :]) ** 2 for s in split]
        variance = 0.5 * (deviation[0].mean(axis=-2) + deviation[1].mean(axis=-2))
        return GaussianStep(mean=mean, variance=variance, gain=gain)


class LinearOperator(Operator):
    """An operator whose output is a linear map of its inputs plus a constant; subclasses give the map and its transpose."""

    __slots__ = ()

    @abstractmethod
    def linear(self, tangents: tuple[Array | None, ...]) -> Array:
        """Return the map without its constant, for any number of lanes."""

    @abstractmethod
    def transpose(self, delta: Array, in_shapes: tuple[Shape, ...]) -> tuple[Array | None, ...]:
        """Return the transposed map of `delta`."""

    def forward(self, *inputs: Array) -> Array:
        return self.linear(inputs)

    def linearize(self, inputs: tuple[Array, ...], output: Array) -> LocalMap:
        return _Linear(self, tuple(x.shape[:-1] for x in inputs))

    def over_gaussian(self, means: tuple[Array, ...], variances: tuple[Array, ...], tangents: tuple[Array, ...]) -> GaussianStep:
        """Return the exact mean and gain; the marginal variance is that of the mapped tangent samples."""
        mean = self.forward(*means)
        pushed = split_lanes(self.linear(tangents), mean.shape[-1])
        return GaussianStep(mean=mean, variance=(pushed**2).mean(axis=-2), gain=self.linearize(means, mean), exact=True)


@dataclass(frozen=True, slots=True, eq=False)
class _Linear(LocalMap):
    operator: LinearOperator
    in_shapes: tuple[Shape, ...]

    def push(self, tangents: tuple[Array | None, ...]) -> Array:
        return self.operator.linear(tangents)

    def pull(self, delta: Array) -> tuple[Array | None, ...]:
        return self.operator.transpose(delta, self.in_shapes)


@dataclass(frozen=True, slots=True, eq=False)
class Slopes(LocalMap):
    """The map of an elementwise operator: one slope an element and image."""

    slopes: Array

    def push(self, tangents: tuple[Array | None, ...]) -> Array:
        (tangent,) = tangents
        if tangent is None:
            raise ValueError("an elementwise map needs its one tangent")
        return times_lanes(tangent, self.slopes)

    def pull(self, delta: Array) -> tuple[Array | None, ...]:
        return (times_lanes(delta, self.slopes),)

    def pull_in_place(self, delta: Array) -> tuple[Array | None, ...]:
        """Return what `pull` returns, in the memory of `delta`."""
        return (times_lanes(delta, self.slopes, out=delta),)


@dataclass(frozen=True, slots=True, eq=False)
class Jacobian(LocalMap):
    """A map given by its two directions, as functions."""

    forwards: Callable[[tuple[Array | None, ...]], Array]
    backwards: Callable[[Array], tuple[Array | None, ...]]

    def push(self, tangents: tuple[Array | None, ...]) -> Array:
        return self.forwards(tangents)

    def pull(self, delta: Array) -> tuple[Array | None, ...]:
        return self.backwards(delta)


def split_lanes(values: Array, n_images: int) -> Array:
    """Return a view `(*shape, R, B)` of an array `(*shape, R*B)`."""
    return values.reshape(*values.shape[:-1], -1, n_images)


def join_lanes(values: Array) -> Array:
    """Return a view `(*shape, R*B)` of an array `(*shape, R, B)`."""
    return values.reshape(*values.shape[:-2], -1)


def times_lanes(values: Array, factors: Array, out: Array | None = None) -> Array:
    """Return `values` (`R*B` lanes) times `factors` (`B` lanes, broadcast over R), in `out` if it is given (it may be `values`)."""
    n_images = factors.shape[-1]
    plain = values.flags.c_contiguous and factors.flags.c_contiguous and values.dtype == factors.dtype
    if not plain or values.shape[:-1] != factors.shape[:-1]:
        return np.multiply(values, join_lanes(np.broadcast_to(
            factors[..., None, :], (*values.shape[:-1], values.shape[-1] // n_images, n_images))), out=out)  # fmt: skip
    if out is None:
        out = np.empty_like(values)
    split = (-1, values.shape[-1] // n_images, n_images)
    _times_lanes(values.reshape(split), out.reshape(split), factors.reshape(-1, n_images))
    return out


@jit()
def _times_lanes(values: Array, out: Array, factors: Array) -> None:
    """out[k, r, b] = values[k, r, b] factors[k, b]."""
    for k in range(values.shape[0]):
        for r in range(values.shape[1]):
            for b in range(values.shape[2]):
                out[k, r, b] = values[k, r, b] * factors[k, b]


def repeat_lanes(values: Array, like: Array) -> Array:
    """Return `values` (`B` lanes) repeated to the `R*B` lanes of `like`."""
    return np.tile(values, like.shape[-1] // values.shape[-1])
