"""Sketched covariance: Gaussian closure in memory linear in the network.

Forwards go a mean, a marginal variance and K joint samples T of the error. A matrix layer adds one kernel-noise draw a sample,
shared over positions as in hardware; an activation is replaced by its mean, its Stein gain S and a residual

    f(mu + T_k) = E f + S T_k + R_k,         S = E f'                                                   (1)

which keeps its spatial correlation and is permuted over k, since it is uncorrelated with T but not independent of it.
Backwards go all outputs, A: each activation adds (1/K) sum_k (A R_k)(A R_k)', each matrix layer

    sum_oj V_oj [ g g' + (1/K) sum_k g(T_k) g(T_k)' ],    g with input mu, g(T_k) with input T_k          (2)

For speed the sums over k are taken over a few random +-combinations K^-1/2 sum_k +-T_k, which is unbiased.
The Gaussian closure is the limit: pre-activations are sums of products, and not exactly Gaussian.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np

from accelsim.lower import ArraySite
from accelsim.placement import PlacedLayer, Plan
from accelsim.prediction.contraction import lane_products
from accelsim.response.passes import Linearization, MatrixMap, after_a_matrix, ancestors, matrix_forward, pull
from accelsim.response.target import mean_weights
from devices.base.stream import normals, rademacher, site_id
from workloads.network import INPUT, Network, NodeIndex, from_lanes, to_lanes
from workloads.operators.base import Array, LocalMap, join_lanes, repeat_lanes, split_lanes
from workloads.operators.matrix import MatrixOperator
from workloads.samples import Samples

N_TANGENTS = 48
N_MIXES = 2
N_RESIDUAL_MIXES = 4
MAX_EXACT_OUTPUTS = 64
MAX_COVARIANCE_OUTPUTS = 32


@dataclass(slots=True, kw_only=True)
class State:
    """A Gaussian value: mean and marginal variance `(*shape, B)`, joint samples of its error `(*shape, K*B)`; None where exact."""

    mean: Array
    variance: Array | None = None
    tangents: Array | None = None


@dataclass(slots=True, kw_only=True, eq=False)
class Sketch:
    """What the forward pass leaves for the backward one."""

    point: Linearization
    mixes: dict[NodeIndex, Array] = field(default_factory=dict)
    residuals: dict[NodeIndex, Array] = field(default_factory=dict)
    input_variances: dict[NodeIndex, Array] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class SketchedResult:
    """Mean outputs `(N, n_out)`, variance over n_out by image `(N,)`, output covariance by image or None, and a standard error."""

    mean_output: Array
    variance_by_image: Array
    variance_by_output: Array | None
    covariance: Array | None
    variance_se: float


def sketch(plan: Plan, graph: Network, samples: Samples, *, seed: int, n_probes: int = 0, n_tangents: int = N_TANGENTS) -> SketchedResult:
    """Return the mean and variance of every output under the Gaussian closure."""
    worker = _Worker(plan, graph, seed=seed, n_probes=n_probes, n_tangents=n_tangents)
    size = chunk_size(len(samples))
    for number, start in enumerate(range(0, len(samples), size)):
        worker.add(to_lanes(samples.x[start : start + size]), number)
    return worker.result()


def chunk_size(n_images: int) -> int:
    """Return how many images share their draws: at most 16, and so few that there are four chunks to compare."""
    return max(1, min(16, n_images // 4))


class _Worker:
    def __init__(self, plan: Plan, graph: Network, *, seed: int, n_probes: int, n_tangents: int) -> None:
        self.graph, self.seed, self.n_probes, self.n_tangents = graph, seed, n_probes, n_tangents
        self.n_out = int(np.prod(graph.nodes[graph.output].shape))
        self.n_carried = n_probes or self.n_out
        self.want_covariance = n_probes == 0 and self.n_out <= MAX_COVARIANCE_OUTPUTS
        self.layers: Mapping[NodeIndex, PlacedLayer] = plan.layer_of_node()
        self.view = mean_weights(plan)
        self.variances = {n: layer.site.moments().variance.astype(np.float32) for n, layer in self.layers.items()}
        self.bias_variances = {n: _bias_variance(layer.bias_site) for n, layer in self.layers.items()}
        self.read_variances = {n: _read_variance(layer.site) for n, layer in self.layers.items()}
        self.outputs: list[Array] = []
        self.by_lane: list[Array] = []
        self.replicates: list[Array] = []
        self.covariances: list[Array] = []

    # forwards

    def forwards(self, images: Array, chunk: int) -> Sketch:
        """Carry mean, variance and samples to the output, leaving gains, mixed samples and mixed residuals."""
        graph = self.graph
        needed, noisy, last = ancestors(graph), after_a_matrix(graph), graph.last_use()
        states: dict[NodeIndex, State] = {INPUT: State(mean=images)}
        maps: dict[NodeIndex, LocalMap] = {}
        inputs_of: dict[NodeIndex, Array] = {}
        sketch_ = Sketch(point=Linearization(graph=graph, output=images, maps=maps, matrix_inputs=inputs_of, noisy=noisy))
        for i, node in enumerate(graph.nodes[: graph.output + 1]):
            if i not in needed:
                continue
            arriving = [states[j] for j in node.inputs]
            if isinstance(node.operator, MatrixOperator):
                maps[i] = MatrixMap(node.operator, self.view.weights[i])
                inputs_of[i] = arriving[0].mean
                states[i] = self._through_matrix(i, arriving[0], sketch_, chunk)
            elif i not in noisy:
                states[i] = State(mean=node.operator.forward(*(s.mean for s in arriving)))
            else:
                states[i] = self._through_operator(i, arriving, sketch_, maps, chunk)
            for j in node.inputs:
                if j not in (INPUT, graph.output) and last[j] == i:
                    states.pop(j, None)
        sketch_.point = Linearization(graph=graph, output=states[graph.output].mean, maps=maps, matrix_inputs=inputs_of, noisy=noisy)
        return sketch_

    def _through_matrix(self, i: NodeIndex, x: State, sketch_: Sketch, chunk: int) -> State:
        layer, weights = self.layers[i], self.view.weights[i]
        operator, n_images = layer.operator, x.mean.shape[-1]
        mean = matrix_forward(operator, weights, x.mean, self.view.biases.get(i))
        second = x.mean**2 if x.variance is None else x.mean**2 + x.variance
        fresh = operator.multiply(self.variances[i], second)
        tangents = None
        if x.tangents is not None:
            sketch_.mixes[i] = self._mixed(x.tangents, n_images, N_MIXES, site_id(layer.name, "mix"), chunk)
            tangents = operator.multiply(weights, x.tangents)
        variance = fresh if tangents is None else fresh + (split_lanes(tangents, n_images) ** 2).mean(axis=-2)
        tangents = self._with_kernel_noise(i, x, tangents, n_images, chunk)
        read = self.read_variances[i]
        if read is not None:
            spread = operator.multiply(read, second)
            sketch_.input_variances[i] = spread
            variance = variance + spread
            tangents += repeat_lanes(np.sqrt(spread), tangents) * self._normals(tangents.shape, site_id(layer.name, "read sketch"), chunk)
        if self.bias_variances[i] is not None:
            variance = variance + self.bias_variances[i].reshape(-1, *(1,) * (variance.ndim - 1)).astype(np.float32)  # type: ignore[union-attr]
        return State(mean=mean, variance=variance, tangents=tangents)

    def _with_kernel_noise(self, i: NodeIndex, x: State, tangents: Array | None, n_images: int, chunk: int) -> Array:
        layer, k_total = self.layers[i], self.n_tangents
        operator, std = layer.operator, np.sqrt(self.variances[i])
        noise = self._normals((k_total, *std.shape), site_id(layer.name, "sketch"), chunk)
        shape = self.graph.nodes[i].shape
        out = np.empty((*shape, k_total, n_images), np.float32)
        inputs = None if x.tangents is None else split_lanes(x.tangents, n_images)
        for k in range(k_total):
            at = x.mean if inputs is None else x.mean + inputs[..., k, :]
            out[..., k, :] = operator.multiply(noise[k] * std, np.ascontiguousarray(at))
        if (bias_variances := self.bias_variances[i]) is not None:
            z = self._normals((len(std), k_total), site_id(layer.name, "sketch bias"), chunk)
            out += (z * np.sqrt(bias_variances)[:, None].astype(np.float32)).reshape(len(std), *(1,) * (out.ndim - 3), k_total, 1)
        joined = join_lanes(out)
        return joined if tangents is None else joined + tangents

    def _through_operator(self, i: NodeIndex, arriving: list[State], sketch_: Sketch, maps: dict[NodeIndex, LocalMap], chunk: int) -> State:
        operator = self.graph.nodes[i].operator
        n_images = arriving[0].mean.shape[-1]
        full = [self._filled(s, n_images) for s in arriving]
        means, variances, tangents = (tuple(part) for part in zip(*full))
        step = operator.over_gaussian(means, variances, tangents)
        maps[i] = step.gain
        pushed = step.gain.push(tangents)
        if not step.exact:
            moved = operator.forward(*(repeat_lanes(m, t) + t for m, t in zip(means, tangents)))
            residual = moved - repeat_lanes(step.mean, moved) - pushed
            name = self.graph.nodes[i].name
            sketch_.residuals[i] = self._mixed(residual, n_images, N_RESIDUAL_MIXES, site_id(name, "residual"), chunk)
            pushed = pushed + self._permuted(residual, n_images, site_id(name, "permute"), chunk)
        return State(mean=step.mean, variance=step.variance, tangents=pushed)

    def _filled(self, state: State, n_images: int) -> tuple[Array, Array, Array]:
        if state.variance is not None and state.tangents is not None:
            return state.mean, state.variance, state.tangents
        return state.mean, np.zeros_like(state.mean), np.zeros((*state.mean.shape[:-1], self.n_tangents * n_images), np.float32)

    def _normals(self, shape: tuple[int, ...], site: int, chunk: int) -> Array:
        return normals(np.empty(shape, np.float32), seed=self.seed, site=site, trial=chunk)

    def _mixed(self, tangents: Array, n_images: int, n_mixes: int, site: int, chunk: int) -> Array:
        """Return `(*shape, n_mixes*B)` combinations `K^-1/2 sum_k +-T_k`, with signs of their own for each image."""
        signs = np.empty((n_mixes, self.n_tangents, n_images), np.float32)
        rademacher(signs, seed=self.seed, site=site, trial=chunk)
        mixed = np.einsum("fkb,mkb->fmb", split_lanes(tangents, n_images).reshape(-1, self.n_tangents, n_images), signs)
        return (mixed / np.sqrt(np.float32(self.n_tangents))).reshape(*tangents.shape[:-1], n_mixes * n_images)

    def _permuted(self, residual: Array, n_images: int, site: int, chunk: int) -> Array:
        order = np.argsort(self._normals((self.n_tangents,), site, chunk))
        return join_lanes(np.ascontiguousarray(split_lanes(residual, n_images)[..., order, :]))

    # backwards

    def add(self, images: Array, chunk: int) -> None:
        """Add a chunk of images `(*input_shape, B)`."""
        n_images = images.shape[-1]
        sketch_ = self.forwards(images, chunk)
        shape = self.graph.nodes[self.graph.output].shape
        seeds = np.zeros((self.n_out, self.n_carried, n_images), np.float32)
        if self.n_probes:
            rademacher(seeds, seed=self.seed, site=site_id("", "probe"), trial=chunk)
        else:
            seeds[np.arange(self.n_out), np.arange(self.n_out)] = 1.0
        self.lane_power = np.zeros((self.n_carried, n_images))
        self.mix_power = np.zeros((N_MIXES, self.n_carried, n_images))
        self.residual_power = np.zeros((N_RESIDUAL_MIXES, self.n_carried, n_images))
        self.chunk_covariance = np.zeros((self.n_carried, self.n_carried, n_images)) if self.want_covariance else None

        def visit(i: NodeIndex, delta: Array, x: Array) -> None:
            self._at_matrix(i, delta, x, sketch_)

        def passed(i: NodeIndex, delta: Array, _: Array) -> None:
            if i in sketch_.residuals:
                self._at_operator(delta, sketch_.residuals[i], n_images)

        pull(sketch_.point, seeds.reshape(*shape, -1), visit, passed=passed)
        self.outputs.append(from_lanes(sketch_.point.output).reshape(n_images, -1).astype(np.float64))
        self.by_lane.append(self.lane_power + self.mix_power.mean(axis=0) + self.residual_power.mean(axis=0))
        groups = [self.mix_power.sum(axis=1), self.residual_power.sum(axis=1)]
        self.replicates.append(sum(g.var(axis=0, ddof=1) / len(g) for g in groups))  # type: ignore[arg-type]
        if self.chunk_covariance is not None:
            self.covariances.append(np.moveaxis(self.chunk_covariance, -1, 0))

    def _at_matrix(self, i: NodeIndex, delta: Array, x: Array, sketch_: Sketch) -> None:
        operator, n_images = self.layers[i].operator, x.shape[-1]
        self._gather(operator, delta, x, self.variances[i], self.lane_power, 1.0)
        if i in sketch_.mixes:
            mixes = split_lanes(sketch_.mixes[i], n_images)
            for m in range(N_MIXES):
                self._gather(operator, delta, np.ascontiguousarray(mixes[..., m, :]), self.variances[i], self.mix_power[m], 1.0 / N_MIXES)
        split = split_lanes(delta, n_images)
        if i in sketch_.input_variances:
            spread = sketch_.input_variances[i].reshape(-1, n_images)
            flat = split.reshape(-1, *split.shape[-2:])
            self.lane_power += np.einsum("frb,fb->rb", flat * flat, spread)
            if self.chunk_covariance is not None:
                self.chunk_covariance += np.einsum("frb,fsb->rsb", flat * spread[:, None, :], flat)
        if (bias_variances := self.bias_variances[i]) is not None:
            gradient = split.reshape(len(split), -1, *split.shape[-2:]).sum(axis=1)
            self.lane_power += np.einsum("o,orb->rb", bias_variances, gradient.astype(np.float64) ** 2)
            if self.chunk_covariance is not None:
                self.chunk_covariance += np.einsum("o,orb,osb->rsb", bias_variances, gradient, gradient)

    def _gather(self, operator: MatrixOperator, delta: Array, x: Array, variance: Array, power: Array, share: float) -> None:
        moments = operator.gradient_moments(delta, x, variance, covariance=self.want_covariance)
        power += moments.lane_power.reshape(power.shape)
        if self.chunk_covariance is not None and moments.covariance is not None:
            self.chunk_covariance += share * moments.covariance

    def _at_operator(self, delta: Array, residuals: Array, n_images: int) -> None:
        a = split_lanes(delta, n_images).reshape(-1, self.n_carried, n_images)
        r = split_lanes(residuals, n_images).reshape(-1, N_RESIDUAL_MIXES, n_images)
        products = lane_products(np.ascontiguousarray(r), np.ascontiguousarray(a)).astype(np.float64)
        self.residual_power += products**2
        if self.chunk_covariance is not None:
            self.chunk_covariance += np.einsum("mrb,msb->rsb", products, products) / N_RESIDUAL_MIXES

    def result(self) -> SketchedResult:
        """Return means and variances over all images added."""
        lanes = np.concatenate(self.by_lane, axis=1)
        n_images = lanes.shape[1]
        by_image = lanes.sum(axis=0) / self.n_out / (self.n_probes or 1)
        variance = np.concatenate(self.replicates).sum() / (self.n_out * (self.n_probes or 1)) ** 2
        if self.n_probes:
            variance += (lanes.var(axis=0, ddof=1) / self.n_probes).sum() / self.n_out**2
        return SketchedResult(
            mean_output=np.concatenate(self.outputs),
            variance_by_image=by_image,
            variance_by_output=None if self.n_probes else lanes.mean(axis=1),
            covariance=np.concatenate(self.covariances) if self.covariances else None,
            variance_se=float(np.sqrt(variance)) / n_images,
        )


def _bias_variance(site: ArraySite | None) -> Array | None:
    return None if site is None else site.moments().variance


def _read_variance(site: ArraySite) -> Array | None:
    variance = site.read_variance()
    return None if variance is None else variance.astype(np.float32)
