"""K joint samples of a network's error, with the Gaussian mean and gain of every operator along their way.

A sample T_k is what one programming does to a value, `x_k = mu + T_k`. A matrix layer adds a draw of its kernel's errors, shared
over positions as in hardware; a nonlinear operator is replaced by mean, gain and remainder,

    f(mu + T_k) = E f + S T_k + R_k,      S = E f'                                                       (1)

with E f and S those of a Gaussian of the marginal variance v that the samples have. Beside T goes the part of it that stems from
remainders; what is left of T is linear in fresh errors. Images of a chunk share the K draws, but each
turns them by random signs of its rows and columns, `E_oj -> s_o E_oj s_j`: the law of E is the same, a product costs the same, and
the samples of different images are uncorrelated, so that an average over images is sharper.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

import numpy as np

from accelsim.lower import ArraySite
from accelsim.placement import PlacedLayer, Plan
from accelsim.response.passes import Linearization, MatrixMap, after_a_matrix, ancestors
from accelsim.response.target import mean_weights
from accelsim.response.weights import Weights
from accelsim.sampling.programmings import SKETCH_TRIAL, Programmer, reads_of
from devices.base.stream import normals, rademacher, site_id
from workloads.network import INPUT, Network, NodeIndex
from workloads.operators.activation import Elementwise
from workloads.operators.base import Array, GaussianStep, LinearOperator, LocalMap, join_lanes
from workloads.operators.matrix import MatrixOperator


@dataclass(slots=True, kw_only=True)
class State:
    """A value: mean and marginal variance `(*shape, B)`, samples of its error `(K, *shape, B)`, and of that what stems from remainders.

    None stands for zero.
    """

    mean: Array
    variance: Array | None = None
    tangents: Array | None = None
    left: Array | None = None

    def linear(self, k: int) -> Array | None:
        """Return what is linear in sample k."""
        if self.tangents is None or self.left is None:
            return None if self.tangents is None else self.tangents[k]
        return self.tangents[k] - self.left[k]


@dataclass(slots=True, kw_only=True, eq=False)
class Trace:
    """What the forward pass leaves for the backward one.

    Parameters
    ----------
    point
        Means, and the gain of every operator.
    output
        The network's output.
    mixes
        By matrix layer, `(*in_shape, B)`: the sum of its input's samples with random signs.
    read_variances
        By matrix layer with read noise, its variance `(*shape, B)`.
    """

    point: Linearization
    output: State
    mixes: dict[NodeIndex, Array] = field(default_factory=dict)
    read_variances: dict[NodeIndex, Array] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Moments:
    """Moments of a matrix layer's stored numbers, float32: weights, and where there are any, device biases and read noise."""

    mean: Array
    variance: Array
    bias: Array | None
    bias_variance: Array | None
    read_variance: Array | None


def moments_of(plan: Plan, view: Weights | None = None) -> dict[NodeIndex, Moments]:
    """Return the moments of every matrix layer; `view` are the mean weights, where they are at hand."""
    view = view or mean_weights(plan)
    return {
        layer.node: Moments(
            mean=view.weights[layer.node],
            variance=_single(layer.site.moments().variance),
            bias=view.biases.get(layer.node),
            bias_variance=None if layer.bias_site is None else _single(layer.bias_site.moments().variance),
            read_variance=_read_variance(layer.site),
        )
        for layer in plan.layers
    }


class Forward:
    """Carries means and samples through a network, chunk by chunk of images."""

    def __init__(self, plan: Plan, graph: Network, *, seed: int, n_tangents: int) -> None:
        self.graph, self.seed, self.n_tangents = graph, seed, n_tangents
        self.layers: Mapping[NodeIndex, PlacedLayer] = plan.layer_of_node()
        self.view = mean_weights(plan)
        self.moments = moments_of(plan, self.view)
        through = [layer for layer in plan.layers if layer.path is not None or layer.site.is_sparse or layer.buffers is not None]
        self.cells = {layer.node: Programmer(replace(plan, layers=(layer,)), seed=seed) for layer in through}

    def run(self, images: Array, chunk: int) -> Trace:
        """Return the trace of a chunk of images `(*input_shape, B)`."""
        graph = self.graph
        needed, noisy, last = ancestors(graph), after_a_matrix(graph), graph.last_use()
        states: dict[NodeIndex, State] = {INPUT: State(mean=images)}
        maps: dict[NodeIndex, LocalMap] = {}
        inputs: dict[NodeIndex, Array] = {}
        point = Linearization(graph=graph, output=images, maps=maps, matrix_inputs=inputs, noisy=noisy)
        trace = Trace(point=point, output=states[INPUT])
        for i, node in enumerate(graph.nodes[: graph.output + 1]):
            if i not in needed:
                continue
            arriving = [states[j] for j in node.inputs]
            if isinstance(node.operator, MatrixOperator):
                maps[i] = MatrixMap(node.operator, self.moments[i].mean, arriving[0].mean.size // arriving[0].mean.shape[-1])
                inputs[i] = arriving[0].mean
                states[i] = self._through_matrix(i, arriving[0], trace, chunk)
            elif i not in noisy:
                states[i] = State(mean=node.operator.forward(*(s.mean for s in arriving)))
            elif isinstance(node.operator, LinearOperator):
                states[i], maps[i] = self._through_linear(node.operator, arriving)
            else:
                states[i], maps[i] = self._through_operator(i, arriving)
            for j in node.inputs:
                if j not in (INPUT, graph.output) and last[j] == i:
                    states.pop(j, None)
        trace.output = states[graph.output]
        trace.point = Linearization(graph=graph, output=trace.output.mean, maps=maps, matrix_inputs=inputs, noisy=noisy)
        return trace

    def _through_matrix(self, i: NodeIndex, x: State, trace: Trace, chunk: int) -> State:
        """Return the samples behind a matrix layer."""
        return self._through_cells(i, x, trace, chunk) if i in self.cells else self._through_weights(i, x, trace, chunk)

    def _through_cells(self, i: NodeIndex, x: State, trace: Trace, chunk: int) -> State:
        """Every sample meets a programming of its own and all converters; linear in it is what would happen without them.

            y_k = ADC(W_k DAC(mu + T_k)),   linear: M T_k + (W_k - M) (mu + T_k)
        """
        operator, m, cells = self.layers[i].operator, self.moments[i], self.cells[i]
        mean = self.view.product(i, operator, x.mean)
        second = x.mean**2 if x.variance is None else x.mean**2 + x.variance
        variance = operator.multiply(m.variance, second)
        tangents = np.empty((self.n_tangents, *mean.shape), np.float32)
        left = np.empty_like(tangents)
        for k in range(self.n_tangents):
            number = SKETCH_TRIAL + chunk * self.n_tangents + k
            draw = cells.draw(number)
            at = x.mean if x.tangents is None else x.mean + x.tangents[k]
            reads = reads_of(self.layers[i].site, draw, seed=self.seed, trial=number)
            total = draw.view.product(i, operator, at, **reads)
            linear = operator.multiply(draw.view.weights[i] - m.mean, at)
            if m.bias is not None:
                linear += (draw.view.biases[i] - m.bias).reshape(-1, *(1,) * (linear.ndim - 1))
            if (before := x.linear(k)) is not None:
                pushed = operator.multiply(m.mean, before)
                linear += pushed
                variance += np.multiply(pushed, pushed, out=pushed) / self.n_tangents
            np.subtract(total, mean, out=tangents[k])
            np.subtract(tangents[k], linear, out=left[k])
        if x.tangents is not None:
            trace.mixes[i] = self._mixed(x.tangents, site_id(self.layers[i].name, "mix"), chunk)
        return State(mean=mean, variance=variance, tangents=tangents, left=left)

    def _through_weights(self, i: NodeIndex, x: State, trace: Trace, chunk: int) -> State:
        """`T <- M T + E (mu + T)` and `v <- mean_k (M T)^2 + sum_j V_j (mu^2 + v)`."""
        operator, m, name = self.layers[i].operator, self.moments[i], self.layers[i].name
        mean = self.view.product(i, operator, x.mean)
        second = x.mean**2 if x.variance is None else x.mean**2 + x.variance
        variance = operator.multiply(m.variance, second)
        columns = self._signs(mean, site_id(name, "columns"), chunk)
        tangents = self._kernel_noise(i, x, columns, chunk)
        if x.tangents is not None:
            trace.mixes[i] = self._mixed(x.tangents, site_id(name, "mix"), chunk)
            spread = np.zeros_like(mean)
            for k, tangent in enumerate(x.tangents):
                pushed = operator.multiply(m.mean, tangent)
                tangents[k] += pushed
                spread += np.multiply(pushed, pushed, out=pushed)
            variance += spread / self.n_tangents
        if m.bias_variance is not None:
            column = m.bias_variance.reshape(-1, *(1,) * (mean.ndim - 1))
            z = self._normals((self.n_tangents, *column.shape), site_id(name, "sketch bias"), chunk)
            tangents += z * np.sqrt(column) * columns
            variance += column
        if m.read_variance is not None:
            trace.read_variances[i] = fresh = operator.multiply(m.read_variance, second)
            tangents += np.sqrt(fresh) * self._normals(tangents.shape, site_id(name, "read sketch"), chunk)
            variance += fresh
        left = None if x.left is None else np.stack([operator.multiply(m.mean, part) for part in x.left])
        return State(mean=mean, variance=variance, tangents=tangents, left=left)

    def _kernel_noise(self, i: NodeIndex, x: State, columns: Array, chunk: int) -> Array:
        """Return `s_o sum_j E_oj s_j x_j`, `(K, *out_shape, B)`: a draw E of each sample, the signs s of each image."""
        operator, name, std = self.layers[i].operator, self.layers[i].name, np.sqrt(self.moments[i].variance)
        rows = self._signs(x.mean, site_id(name, "rows"), chunk)
        mean = x.mean * rows
        out = np.empty((self.n_tangents, *columns.shape[:1], *self.graph.nodes[i].shape[1:], columns.shape[-1]), np.float32)
        at = mean.copy()
        for k, errors in enumerate(self._normals((self.n_tangents, *std.shape), site_id(name, "sketch"), chunk) * std):
            if x.tangents is not None:
                np.add(np.multiply(x.tangents[k], rows, out=at), mean, out=at)
            np.multiply(operator.multiply(errors, at), columns, out=out[k])
        return out

    def _through_linear(self, operator: LinearOperator, arriving: list[State]) -> tuple[State, LocalMap]:
        means = tuple(s.mean for s in arriving)
        mean = operator.forward(*means)
        gain = operator.linearize(means, mean)
        tangents = self._pushed(gain, [s.tangents for s in arriving], mean)
        left = self._pushed(gain, [s.left for s in arriving], mean) if any(s.left is not None for s in arriving) else None
        variance = np.einsum("k...,k...->...", tangents, tangents) / self.n_tangents
        return State(mean=mean, variance=variance, tangents=tangents, left=left), gain

    def _pushed(self, gain: LocalMap, samples: list[Array | None], like: Array) -> Array:
        out = np.empty((self.n_tangents, *like.shape), np.float32)
        for k in range(self.n_tangents):
            out[k] = gain.push(tuple(None if s is None else s[k] for s in samples))
        return out

    def _through_operator(self, i: NodeIndex, arriving: list[State]) -> tuple[State, LocalMap]:
        """Return the samples of (1) and the gain: what is linear passes the gain, everything else is left."""
        operator = self.graph.nodes[i].operator
        full = [self._filled(s) for s in arriving]
        means, variances, samples = (tuple(part) for part in zip(*full))
        beside = () if isinstance(operator, Elementwise) else tuple(_lanes(t) for t in samples)
        step: GaussianStep = operator.over_gaussian(means, variances, beside)
        tangents = np.empty((self.n_tangents, *step.mean.shape), np.float32)
        left = np.empty_like(tangents)
        for k in range(self.n_tangents):
            np.subtract(operator.forward(*(m + t[k] for m, t in zip(means, samples))), step.mean, out=tangents[k])
            np.subtract(tangents[k], step.gain.push(tuple(s.linear(k) for s in arriving)), out=left[k])
        return State(mean=step.mean, variance=step.variance, tangents=tangents, left=left), step.gain

    def _filled(self, state: State) -> tuple[Array, Array, Array]:
        if state.variance is not None and state.tangents is not None:
            return state.mean, state.variance, state.tangents
        return state.mean, np.zeros_like(state.mean), np.zeros((self.n_tangents, *state.mean.shape), np.float32)

    def _normals(self, shape: tuple[int, ...], site: int, chunk: int) -> Array:
        return normals(np.empty(shape, np.float32), seed=self.seed, site=site, trial=chunk)

    def _signs(self, like: Array, site: int, chunk: int) -> Array:
        """Return a sign for each feature and image of `(features, *rest, B)`, `(features, 1..., B)`."""
        signs = rademacher(np.empty((len(like), like.shape[-1]), np.float32), seed=self.seed, site=site, trial=chunk)
        return signs.reshape(len(like), *(1,) * (like.ndim - 2), -1)

    def _mixed(self, tangents: Array, site: int, chunk: int) -> Array:
        """Return `K^-1/2 sum_k +-T_k`, `(*shape, B)`; the signs are those of the image."""
        signs = rademacher(np.empty((self.n_tangents, tangents.shape[-1]), np.float32), seed=self.seed, site=site, trial=chunk)
        return np.einsum("k...b,kb->...b", tangents, signs / np.sqrt(np.float32(self.n_tangents)))


def _lanes(samples: Array) -> Array:
    """Return `(*shape, K*B)` of samples `(K, *shape, B)`."""
    return join_lanes(np.ascontiguousarray(np.moveaxis(samples, 0, -2)))


def _single(values: Array) -> Array:
    return np.ascontiguousarray(values, np.float32)


def _read_variance(site: ArraySite) -> Array | None:
    variance = site.read_variance()
    return None if variance is None else _single(variance)
