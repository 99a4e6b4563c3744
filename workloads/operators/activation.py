"""Elementwise operators: what every one of them answers, and the Gaussian rules of the two families.

For `x ~ N(m, s^2)` each element is on its own, so four numbers say all:

    E f,   Var f,   S = E f',   a_k = E[f(m + s z) He_k(z)]      z ~ N(0, 1)                    (1)

Sums of ramps (`PiecewiseLinear`) have them in closed form; smooth functions (`Smooth`) by Gauss-Hermite quadrature,
which is poor at kinks: a function that has some names them, and is integrated piece by piece.
"""

from abc import abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from itertools import pairwise
from typing import ClassVar, TypeAlias

import numpy as np
from scipy.special import ndtr

from workloads.operators.base import Array, GaussianStep, LocalMap, Operator, Shape, Slopes

N_NODES = 24
REACH = 8.0
"""Standard deviations that the integration by pieces covers on each side; the mass beyond is 1e-15."""
FAR = 40.0
"""A ramp this many standard deviations away does not move: the normal density there is below 1e-340."""
Coefficient: TypeAlias = float | Array
"""A number, or an array that broadcasts against values `(*shape, B)`."""


class Elementwise(Operator):
    """An operator that maps every element by the same function of one number."""

    __slots__ = ()

    @abstractmethod
    def value(self, x: Array) -> Array:
        """Return f(x), in the precision of `x`."""

    @abstractmethod
    def slope(self, x: Array) -> Array:
        """Return f'(x), in the precision of `x`; at a kink, the slope on its left."""

    @abstractmethod
    def moments(self, mean: Array, variance: Array) -> tuple[Array, Array, Array]:
        """Return `E f`, `Var f` and `E f'` for Gaussian elements; a variance of 0 is allowed."""

    @abstractmethod
    def hermite_coefficients(self, mean: Array, variance: Array, n_terms: int) -> Array:
        """Return a_0 ... a_{n_terms} of (1), float64 `(n_terms + 1, *shape, B)`: `Cov = sum_k a_k a_k' r^k / k!` (Mehler)."""

    def out_shape(self, *in_shapes: Shape) -> Shape:
        return in_shapes[0]

    def forward(self, *inputs: Array) -> Array:
        return self.value(inputs[0])

    def linearize(self, inputs: tuple[Array, ...], output: Array) -> LocalMap:
        return Slopes(self.slope(inputs[0]))

    def over_gaussian(self, means: tuple[Array, ...], variances: tuple[Array, ...], tangents: tuple[Array, ...]) -> GaussianStep:
        """Return the moments of every element from its mean and marginal variance; the tangents are not needed."""
        mean, variance, gain = self.moments(means[0], variances[0])
        return GaussianStep(mean=mean, variance=variance, gain=Slopes(gain))


@dataclass(frozen=True, slots=True, eq=False)
class Ramps:
    """The function `f(x) = offset + slope x + sum_m weights_m relu(x - thresholds_m)`."""

    offset: Coefficient
    slope: Coefficient
    weights: tuple[Coefficient, ...]
    thresholds: tuple[float, ...]


@dataclass(frozen=True, slots=True, eq=False)
class _Hinge:
    """One ramp, turned so that it is off at the mean: `h = relu(side (x - t))`; its moments for x ~ N(m, s^2)."""

    weight: Coefficient
    side: Array
    distance: Array
    chance: Array
    first: Array
    second: Array


class PiecewiseLinear(Elementwise):
    """A continuous function of straight pieces, as a sum of ramps.

    About its mean, `f(x) = f(m) + B (x - m) + sum_m w_m h_m(x)` with hinges that are off at m. With `a = |m - t| / s`,
    `P(h > 0) = Phi(-a)`, `E h = s (phi(a) - a Phi(-a))`, `E h^2 = s^2 ((1 + a^2) Phi(-a) - a phi(a))`, `Cov(x, h) = s^2 side Phi(-a)`;
    hinges of opposite sides are never on together, and for two of one side `E h h' = E h'^2 + |t - t'| E h'`, h' the farther one.
    Everything scales with s, so nothing cancels far from the kinks.
    """

    __slots__ = ()

    @abstractmethod
    def ramps(self) -> Ramps:
        """Return the function as a sum of ramps."""

    def slope(self, x: Array) -> Array:
        r = self.ramps()
        total = np.zeros_like(x) + _like(r.slope, x)
        for w, t in zip(r.weights, r.thresholds):
            total += _like(w, x) * (x > t).astype(x.dtype)
        return total

    def moments(self, mean: Array, variance: Array) -> tuple[Array, Array, Array]:
        std = np.sqrt(variance)
        hinges = _hinges(self.ramps(), mean, std)
        slope = self.slope(mean)
        turned = sum((h.weight * h.side * h.chance for h in hinges), np.zeros_like(mean))
        spread = slope * (slope + 2 * turned) * variance
        for i, h in enumerate(hinges):
            spread += h.weight * h.weight * (h.second - h.first**2)
            for other in hinges[:i]:
                spread += 2 * h.weight * other.weight * _covariance(h, other)
        shifted = self.value(mean) + sum((h.weight * h.first for h in hinges), np.zeros_like(mean))
        return shifted, np.maximum(spread, 0), slope + turned

    def hermite_coefficients(self, mean: Array, variance: Array, n_terms: int) -> Array:
        """Return a_0 = E f, a_1 = s E f', and beyond `a_k = sum_m w_m s phi(z_m) He_{k-2}(z_m)`, `z_m = (t_m - m) / s`."""
        mean, variance = mean.astype(np.float64), variance.astype(np.float64)
        std = np.sqrt(variance)
        first, _, gain = self.moments(mean, variance)
        terms = np.zeros((n_terms + 1, *mean.shape))
        terms[: 2] = np.stack([first, std * gain])[: n_terms + 1]
        r = self.ramps()
        for w, t in zip(r.weights, r.thresholds):
            z = _standardized(t - mean, std)
            for k, he in enumerate(_hermite(z, n_terms - 2)):
                terms[k + 2] += _like(w, mean) * std * _density(z) * he
        return terms


class Smooth(Elementwise):
    """A function whose moments are found by quadrature: Gauss-Hermite, or Gauss-Legendre between its kinks.

    `kinks` are the points where the function or one of its first two derivatives jumps.
    """

    __slots__ = ()
    kinks: ClassVar[tuple[float, ...]] = ()

    def moments(self, mean: Array, variance: Array) -> tuple[Array, Array, Array]:
        std, centre = np.sqrt(variance), self.value(mean)
        first, second, gain = np.zeros_like(mean), np.zeros_like(mean), np.zeros_like(mean)
        for z, weight in _nodes(mean, std, self.kinks):
            x = mean + z * std
            change = self.value(x) - centre
            first += weight * change
            second += weight * change**2
            gain += weight * self.slope(x)
        return centre + first, np.maximum(second - first**2, 0), gain

    def hermite_coefficients(self, mean: Array, variance: Array, n_terms: int) -> Array:
        mean = mean.astype(np.float64)
        std, centre = np.sqrt(variance.astype(np.float64)), self.value(mean)
        terms = np.zeros((n_terms + 1, *mean.shape))
        for z, weight in _nodes(mean, std, self.kinks):
            change = weight * (self.value(mean + z * std) - centre)
            for k, he in enumerate(_hermite(z, n_terms)):
                terms[k] += change * he
        terms[0] += centre
        return terms


def _nodes(mean: Array, std: Array, kinks: tuple[float, ...]) -> Iterator[tuple[Array, Array]]:
    """Yield nodes and weights of `E g(z) = sum w g(z)`, broadcasting against `mean`."""
    if not kinks:
        x, w = _rule("hermite")
        yield from zip(x.astype(mean.dtype), w.astype(mean.dtype))
        return
    ends = np.full_like(mean, REACH)
    inner = [_standardized(k - mean, std).clip(-REACH, REACH).astype(mean.dtype) for k in kinks]
    edges = [-ends, *inner, ends]
    places, weights = (a.astype(mean.dtype) for a in _rule("legendre"))
    for low, high in pairwise(edges):
        for place, weight in zip(places, weights):
            z = low + (high - low) * place
            yield z, (high - low) * weight * _density(z)


@lru_cache
def _rule(kind: str) -> tuple[Array, Array]:
    """Return nodes and weights for the normal density, or for the interval from 0 to 1."""
    if kind == "hermite":
        x, w = np.polynomial.hermite_e.hermegauss(N_NODES)
        return x, w / w.sum()
    x, w = np.polynomial.legendre.leggauss(N_NODES)
    return (x + 1) / 2, w / 2


def _hermite(z: Array, degree: int) -> list[Array]:
    """Return the probabilists' Hermite polynomials of degree 0 to `degree` at z; none for a negative degree."""
    polynomials = [np.ones_like(z), z]
    for n in range(1, degree):
        polynomials.append(z * polynomials[n] - n * polynomials[n - 1])
    return polynomials[: max(degree + 1, 0)]


def _hinges(ramps: Ramps, mean: Array, std: Array) -> list[_Hinge]:
    return [_hinge(_like(w, mean), mean - t, std) for w, t in zip(ramps.weights, ramps.thresholds)]


def _hinge(weight: Coefficient, above: Array, std: Array) -> _Hinge:
    """Return the hinge of a ramp whose threshold lies `above` below the mean."""
    distance = np.abs(above)
    a = _standardized(distance, std)
    chance = np.where(std > 0, ndtr(-a), np.zeros_like(a))
    density = _density(a)
    return _Hinge(
        weight=weight,
        side=np.where(above > 0, -np.ones_like(a), np.ones_like(a)),
        distance=distance,
        chance=chance,
        first=std * np.maximum(density - a * chance, 0),
        second=std**2 * np.maximum((1 + a**2) * chance - a * density, 0),
    )


def _covariance(one: _Hinge, other: _Hinge) -> Array:
    farther = one.distance >= other.distance
    second, first = np.where(farther, one.second, other.second), np.where(farther, one.first, other.first)
    together = np.where(one.side == other.side, second + np.abs(one.distance - other.distance) * first, np.zeros_like(first))
    return together - one.first * other.first


def _standardized(distance: Array, std: Array) -> Array:
    """Return distance / std, held within what the normal density can tell from 0."""
    limit = FAR * std
    return np.where(std > 0, np.clip(distance, -limit, limit) / np.where(std > 0, std, np.ones_like(std)), FAR * np.sign(distance))


def _density(z: Array) -> Array:
    return np.exp(-0.5 * z * z) / np.sqrt(2 * np.pi).astype(z.dtype)


def _like(coefficient: Coefficient, x: Array) -> Coefficient:
    """Return a coefficient in the precision of x."""
    return coefficient.astype(x.dtype) if isinstance(coefficient, np.ndarray) else coefficient
