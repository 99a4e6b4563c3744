"""Whether quasi-random numbers in the leading directions save trials: the measurement that decided against them.

Leading directions are those in weight space along which the outputs of all images move most: right singular vectors of the
Jacobian, weights in units of their error. Along them the normals come from a scrambled Sobol sequence, across them they stay random.
What the control variate knows exactly, the linear response, is just what such a sequence integrates well.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from scipy.stats import norm, qmc

from accelsim import Plan, Samples
from accelsim.response.linear import respond
from accelsim.response.passes import Linearization, linearize, pull, push
from accelsim.response.target import mean_weights, reference_outputs
from accelsim.response.weights import Weights
from accelsim.sampling.estimate import ControlMean, adjusted_losses
from benchmarks.samplers import SEED, placed
from validation.tables import Row
from workloads.kernels import conv_weight_gradient
from workloads.network import from_lanes, to_lanes
from workloads.operators.base import Array
from workloads.operators.matrix import Conv

NETWORK, LEVELS = "fashion_cnn", (0.001, 0.003, 0.01)
N_DIRECTIONS, N_TRIALS, N_REPEATS = 8, 128, 24


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Sampled:
    """Losses and controls of one run `(N_TRIALS,)`."""

    losses: Array
    controls: Array


def rows(*, n_images: int) -> list[Row]:
    """Return, by noise, how much less the mean of `N_TRIALS` scatters than with plain trials."""
    return [_row(error_rel, n_images=n_images) for error_rel in LEVELS]


def _row(error_rel: float, *, n_images: int) -> Row:
    plan, samples = placed(NETWORK, n_images, error_rel=error_rel, clip=False)
    trials = _Trials(plan, samples)
    runs = {sobol: [trials.run(repeat, sobol=sobol) for repeat in range(N_REPEATS)] for sobol in (False, True)}

    def variance(sobol: bool, mean: Callable[[Sampled], float]) -> float:
        return float(np.var([mean(run) for run in runs[sobol]], ddof=1))

    def controlled(run: Sampled) -> float:
        return float(adjusted_losses(run.losses, run.controls, trials.known)[0].mean())

    plain = variance(False, lambda run: float(run.losses.mean()))
    return {
        "network": NETWORK,
        "error_rel": f"{error_rel:g}",
        "share_of_leading": f"{trials.share:.2f}",
        "sobol": f"{plain / variance(True, lambda run: float(run.losses.mean())):.3g}",
        "control": f"{plain / variance(False, controlled):.3g}",
        "control_and_sobol": f"{plain / variance(True, controlled):.3g}",
    }


class _Trials:
    """Trials of unclipped cells, whose weight errors are Gaussian: `sqrt(V) z`."""

    def __init__(self, plan: Plan, samples: Samples) -> None:
        self.graph, self.mean = plan.graph, mean_weights(plan)
        self.images = to_lanes(samples.x)
        self.wanted = reference_outputs(plan, plan.graph, samples, "float")
        self.std = {layer.node: np.sqrt(layer.site.moments().variance).astype(np.float32) for layer in plan.layers}
        response = respond(plan, plan.graph, samples, seed=SEED)
        self.known = ControlMean(mean=float(np.mean((response.mean_output - self.wanted) ** 2)) + response.variance)
        self.point = linearize(self.graph, self.images, self.mean)
        self.directions, self.share = _leading(self.point, self.std)

    def run(self, repeat: int, *, sobol: bool) -> Sampled:
        """Return one run, its normals renewed with `repeat`."""
        random = np.random.default_rng((SEED, repeat))
        sequence = qmc.Sobol(N_DIRECTIONS, rng=np.random.default_rng((SEED, repeat, 1)))
        along = norm.ppf(sequence.random(N_TRIALS)).astype(np.float32)
        losses, controls = np.empty(N_TRIALS), np.empty(N_TRIALS)
        for t in range(N_TRIALS):
            z: Array = random.standard_normal(self.directions.shape[1:], dtype=np.float32)
            if sobol:
                z += (along[t] - self.directions @ z) @ self.directions
            losses[t], controls[t] = self._loss_and_control(z)
        return Sampled(losses=losses, controls=controls)

    def _loss_and_control(self, z: Array) -> tuple[float, float]:
        errors, start = {}, 0
        for node, std in self.std.items():
            errors[node] = std * z[start : start + std.size].reshape(std.shape)
            start += std.size
        noisy = Weights(weights={n: self.mean.weights[n] + e for n, e in errors.items()}, biases={})
        point = linearize(self.graph, self.images, noisy)
        linear = from_lanes(self.point.output) + from_lanes(push(self.point, errors, {}))
        return (float(np.mean((from_lanes(point.output) - self.wanted) ** 2)), float(np.mean((linear - self.wanted) ** 2)))


def _leading(point: Linearization, std: dict[int, Array]) -> tuple[Array, float]:
    """Return the leading directions `(N_DIRECTIONS, n_weights)`, orthonormal, and their share of the outputs' variance."""
    n_out, n_images = point.output.shape[0], point.output.shape[-1]
    seeds = np.zeros((n_out, n_out, n_images), np.float32)
    seeds[np.arange(n_out), np.arange(n_out)] = 1.0
    found: dict[int, Array] = {}

    def keep(node: int, delta: Array, x: Array) -> None:
        operator = point.graph.nodes[node].operator
        assert isinstance(operator, Conv)  # this network has no other matrices
        g = operator.geometry
        wide_delta, wide_x = delta.reshape(*g.out_shape, -1), x.reshape(*g.in_shape, -1)
        found[node] = conv_weight_gradient(wide_delta, wide_x, g).reshape(operator.weights.size, -1)

    pull(point, seeds.reshape(n_out, -1), keep)
    jacobian = np.concatenate([(found[n] * s.reshape(-1, 1)).T for n, s in std.items()], axis=1)  # (n_out B, n_weights)
    values, vectors = np.linalg.eigh(jacobian @ jacobian.T)
    leading = vectors[:, -N_DIRECTIONS:].T @ jacobian / np.sqrt(values[-N_DIRECTIONS:, None])
    return leading, float(values[-N_DIRECTIONS:].sum() / values.sum())
