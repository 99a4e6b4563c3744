"""What every operator must keep: adjoint maps, slopes that are derivatives, Gaussian moments that are those of samples."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from validation.statistics import z_of_means
from workloads.operators.base import Array, LocalMap, Operator, Shape

N_IMAGES = 3
N_TANGENTS = 4
N_SAMPLES = 100_000
Z_LIMIT = 4.5
FLOAT64_ROUNDING = 1e-10
"""Sums of at most a few thousand float64 terms of order 1 lose less than this."""


@dataclass(frozen=True, slots=True, eq=False)
class Subject:
    """An operator and the sample shapes it is tried on.

    `bias_rel` is what its Gaussian rule is known to be off by, in standard deviations of an output (its square for variances);
    None where the rule is only first order, and is not compared with samples.
    """

    operator: Operator
    shapes: tuple[Shape, ...]
    bias_rel: float | None = 0.0


class OperatorContract:
    """Subclass, and set `subjects`."""

    subjects: ClassVar[tuple[Subject, ...]]
    seed: ClassVar[int] = 20_261_124

    def test_the_output_has_the_announced_shape_and_inputs_are_left_alone(self) -> None:
        for subject in self.subjects:
            inputs = self._values(subject, N_IMAGES)
            kept = [x.copy() for x in inputs]
            y = subject.operator.forward(*inputs)
            assert y.shape == (*subject.operator.out_shape(*subject.shapes), N_IMAGES), subject.operator.kind
            for x, before in zip(inputs, kept):
                np.testing.assert_array_equal(x, before)

    def test_pushing_and_pulling_are_adjoint(self) -> None:
        for subject in self.subjects:
            inputs = self._values(subject, N_IMAGES)
            self._check_adjoint(subject, subject.operator.linearize(inputs, subject.operator.forward(*inputs)))

    def test_the_gain_over_a_gaussian_is_adjoint_too(self) -> None:
        for subject in self.subjects:
            inputs, tangents = self._values(subject, N_IMAGES), self._values(subject, N_TANGENTS * N_IMAGES)
            variances = tuple((t.reshape(*t.shape[:-1], N_TANGENTS, N_IMAGES) ** 2).mean(axis=-2) for t in tangents)
            self._check_adjoint(subject, subject.operator.over_gaussian(inputs, variances, tangents).gain)

    def test_the_push_is_the_finite_difference(self) -> None:
        """Central differences of step h are off by h^2 f'''/6, and by 1e-16/h from rounding: 1e-9 at h = 1e-5."""
        h = 1e-5
        for subject in self.subjects:
            operator, inputs, tangents = subject.operator, self._values(subject, N_IMAGES), self._values(subject, N_IMAGES, 1)
            pushed = operator.linearize(inputs, operator.forward(*inputs)).push(tangents)
            ahead, behind = (operator.forward(*(x + s * h * t for x, t in zip(inputs, tangents))) for s in (1.0, -1.0))
            np.testing.assert_allclose(pushed, (ahead - behind) / (2 * h), rtol=1e-6, atol=1e-6, err_msg=operator.kind)

    def test_gaussian_moments_and_gain_are_those_of_samples(self) -> None:
        """`E f`, `Var f`, and Stein's `E f t = S Cov(x, t)` for a random direction t of the joint input."""
        for subject in self.subjects:
            if subject.bias_rel is not None:
                self._check_gaussian(subject, subject.bias_rel)

    def _check_gaussian(self, subject: Subject, bias_rel: float) -> None:
        rng = np.random.default_rng(self.seed)
        sizes = [int(np.prod(s)) for s in subject.shapes]
        n = sum(sizes)
        factor = 0.6 * (rng.normal(size=(n, n)) + rng.normal(size=(1, n))) / np.sqrt(n)
        means = self._split(rng.normal(size=(n, 1)), subject.shapes, sizes)
        tangents = self._split(factor * np.sqrt(n), subject.shapes, sizes)  # mean over the n of them is exactly factor factor'
        variances = tuple((t**2).mean(axis=-1, keepdims=True) for t in tangents)
        step = subject.operator.over_gaussian(means, variances, tangents)
        z = rng.standard_normal((n, N_SAMPLES))
        y = subject.operator.forward(*(m + t for m, t in zip(means, self._split(factor @ z, subject.shapes, sizes))))
        direction = rng.normal(size=n)
        direction /= np.linalg.norm(direction)
        gain = step.gain.push(self._split((factor @ direction)[:, None], subject.shapes, sizes))
        std = y.std(axis=-1)
        self._check_mean(step.mean[..., 0], y, bias_rel * std, f"{subject.operator.kind}: mean")
        deviation = y - step.mean
        self._check_mean(step.variance[..., 0], deviation**2, bias_rel * std**2, f"{subject.operator.kind}: variance")
        self._check_mean(gain[..., 0], deviation * (direction @ z), bias_rel * std, f"{subject.operator.kind}: gain")

    @staticmethod
    def _check_mean(expected: Array, samples: Array, allowed: Array, what: str) -> None:
        difference = expected - samples.mean(axis=-1)
        error = samples.std(axis=-1) / np.sqrt(samples.shape[-1])
        over = np.abs(difference) - allowed - Z_LIMIT * error - 1e-12
        assert over.max() <= 0.0, f"{what} is off by z = {np.abs(z_of_means(expected, samples)).max():.1f}"

    def _check_adjoint(self, subject: Subject, step: LocalMap) -> None:
        lanes = N_TANGENTS * N_IMAGES
        tangents = self._values(subject, lanes, 2)
        pushed = step.push(tangents)
        delta = np.random.default_rng(self.seed + 3).normal(size=pushed.shape)
        ahead = (pushed * delta).reshape(-1, lanes).sum(axis=0)
        parts = [(t * p).reshape(-1, lanes).sum(axis=0) for t, p in zip(tangents, step.pull(delta)) if p is not None]
        np.testing.assert_allclose(ahead, sum(parts), rtol=FLOAT64_ROUNDING, atol=FLOAT64_ROUNDING, err_msg=subject.operator.kind)

    def _values(self, subject: Subject, lanes: int, stream: int = 0) -> tuple[Array, ...]:
        rng = np.random.default_rng(self.seed + stream)
        return tuple(1.5 * rng.normal(size=(*s, lanes)) for s in subject.shapes)

    @staticmethod
    def _split(values: Array, shapes: Sequence[Shape], sizes: Sequence[int]) -> tuple[Array, ...]:
        parts = np.split(values, np.cumsum(sizes)[:-1])
        return tuple(np.ascontiguousarray(p).reshape(*s, values.shape[-1]) for p, s in zip(parts, shapes))
