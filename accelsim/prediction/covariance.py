"""Full covariance: mean and joint covariance of all live values, layer by layer; the golden reference for small maps.

Exact for Gaussian inputs: matrix layers (a kernel's noise is shared by all positions it serves), linear maps, ramps by the
bivariate integral, smooth activations by Mehler's series. Cross covariances to every live value go along by Stein's lemma, so
that skips and concatenations of any nesting meet with their covariance. Max-pooling is Clark's pairwise approximation.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np

from accelsim.placement import PlacedLayer, Plan
from accelsim.prediction.bivariate import relu_covariance
from accelsim.prediction.taps import tap_indices
from accelsim.response.passes import ancestors
from devices.base.errors import UnsupportedMethodError
from workloads.network import INPUT, Network, Node, NodeIndex
from workloads.operators.activation import Elementwise, PiecewiseLinear
from workloads.operators.base import Array, LinearOperator
from workloads.operators.matrix import MatrixOperator
from workloads.samples import Samples

N_MEHLER = 12
MAX_ELEMENTS = 12_000


def full_covariance(plan: Plan, graph: Network, samples: Samples) -> tuple[Array, Array]:
    """Return means `(N, n_out)` and covariances `(N, n_out, n_out)` of the outputs."""
    largest = max(math.prod(node.shape) for node in graph.nodes)
    if largest > MAX_ELEMENTS:
        raise UnsupportedMethodError(
            f"method covariance keeps {largest}^2 numbers for {plan.network.name} ({8 * largest**2 / 2**30:.1f} GiB); use sketched"
        )
    if any(layer.site.read_law is not None for layer in plan.layers):
        raise UnsupportedMethodError("method covariance has no rule for read noise; use adjoint, sketched or corrected")
    if any(layer.path is not None for layer in plan.layers):
        raise UnsupportedMethodError("method covariance has no rule for converters; use adjoint, sketched or corrected")
    if any(layer.buffers is not None for layer in plan.layers):
        raise UnsupportedMethodError("method covariance has no rule for values in memory; use adjoint, sketched or corrected")
    moments = {layer.node: _Moments.of(layer) for layer in plan.layers}
    found = [_Image(graph, moments).run(x) for x in samples.x.astype(np.float64)]
    return np.stack([mean for mean, _ in found]), np.stack([matrix for _, matrix in found])


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class _Moments:
    mean: Array
    variance: Array
    bias: Array | None
    bias_variance: Array | None

    @classmethod
    def of(cls, layer: PlacedLayer) -> "_Moments":
        weights = layer.site.moments()
        stored = None if layer.bias_site is None else layer.bias_site.moments()
        bias = layer.operator.bias if stored is None else stored.mean
        return cls(
            mean=weights.mean,
            variance=weights.variance,
            bias=None if bias is None else np.asarray(bias, np.float64),
            bias_variance=None if stored is None else stored.variance,
        )


@dataclass(slots=True, eq=False)
class _Image:
    """The joint Gaussian of one image's live values: means by node, covariances by pair of nodes (absent: exact)."""

    graph: Network
    moments: Mapping[NodeIndex, _Moments]
    means: dict[NodeIndex, Array] = field(default_factory=dict)
    blocks: dict[tuple[NodeIndex, NodeIndex], Array] = field(default_factory=dict)

    def run(self, image: Array) -> tuple[Array, Array]:
        """Return mean and covariance of the output for one image."""
        graph, needed, last = self.graph, ancestors(self.graph), self.graph.last_use()
        self.means[INPUT] = image[..., None]
        for i, node in enumerate(graph.nodes[: graph.output + 1]):
            if i not in needed:
                continue
            self._add(i, node)
            for j in set(node.inputs):
                if j != INPUT and j != graph.output and last[j] == i:
                    self._drop(j)
        n = math.prod(graph.nodes[graph.output].shape)
        return self.means[graph.output].ravel(), self.blocks.get((graph.output, graph.output), np.zeros((n, n)))

    def _drop(self, j: NodeIndex) -> None:
        del self.means[j]
        for pair in [p for p in self.blocks if j in p]:
            del self.blocks[pair]

    def _noisy(self) -> list[NodeIndex]:
        return [a for a, b in self.blocks if a == b]

    def _shape(self, i: NodeIndex) -> tuple[int, ...]:
        return self.graph.input_shape if i == INPUT else self.graph.nodes[i].shape

    def _add(self, i: NodeIndex, node: Node) -> None:
        inputs = tuple(self.means[j] for j in node.inputs)
        if isinstance(node.operator, MatrixOperator):
            self._add_matrix(i, node, node.operator, inputs[0])
        elif not any((j, j) in self.blocks for j in node.inputs):
            self.means[i] = node.operator.forward(*inputs)
        elif isinstance(node.operator, LinearOperator):
            self.means[i] = node.operator.forward(*inputs)
            self._link(i, node, node.operator.linearize(inputs, self.means[i]).push)
        elif isinstance(node.operator, Elementwise):
            self._add_elementwise(i, node, node.operator)
        else:
            self._add_by_factor(i, node)

    def _link(self, i: NodeIndex, node: Node, linear) -> None:  # type: ignore[no-untyped-def]
        """Set the covariances of node i with all live values, and with itself, through a linear map of its inputs."""
        live = self._noisy()
        for b in live:
            self._set(i, b, self._mapped(node, linear, b))
        inner = {j: self.blocks.get((j, i)) for j in node.inputs}
        n = math.prod(node.shape)
        columns = tuple(None if (c := inner[j]) is None else c.reshape(*self._shape(j), n) for j in node.inputs)
        if any(c is not None for c in columns):
            own = linear(columns).reshape(n, n)
            self.blocks[i, i] = 0.5 * (own + own.T)

    def _mapped(self, node: Node, linear, b: NodeIndex) -> Array:  # type: ignore[no-untyped-def]
        n_b = math.prod(self._shape(b))
        columns = []
        for j in node.inputs:
            block = self.blocks.get((j, b))
            columns.append(None if block is None else np.ascontiguousarray(block).reshape(*self._shape(j), n_b))
        if all(c is None for c in columns):
            return np.zeros((math.prod(node.shape), n_b))
        return linear(tuple(columns)).reshape(math.prod(node.shape), n_b)

    def _set(self, i: NodeIndex, b: NodeIndex, block: Array) -> None:
        self.blocks[i, b] = block
        self.blocks[b, i] = block.T

    def _add_matrix(self, i: NodeIndex, node: Node, operator: MatrixOperator, x: Array) -> None:
        m = self.moments[i]
        bias = np.zeros(operator.n_columns) if m.bias is None else m.bias
        self.means[i] = operator.multiply(m.mean, x) + bias.reshape(-1, *(1,) * (len(self._shape(i)) - 1), 1)
        source = node.inputs[0]
        block = self.blocks.get((source, source))
        flat = x.reshape(-1)
        second = np.outer(flat, flat) if block is None else np.outer(flat, flat) + block
        noise = kernel_noise(operator, m.variance, second)
        if m.bias_variance is not None:
            p = noise.shape[-1]
            noise = noise + m.bias_variance[:, None, None] * np.ones((p, p))
        self._link(i, node, lambda t: operator.multiply(m.mean, t[0]))
        o, p = noise.shape[0], noise.shape[1]
        own = self.blocks.setdefault((i, i), np.zeros((o * p, o * p))).reshape(o, p, o, p)
        own[np.arange(o), :, np.arange(o), :] += noise

    def _add_elementwise(self, i: NodeIndex, node: Node, operator: Elementwise) -> None:
        source = node.inputs[0]
        covariance = self.blocks[source, source]
        mean, variance = self.means[source], np.diag(covariance).reshape(self.means[source].shape)
        new_mean, new_variance, gain = operator.moments(mean, np.maximum(variance, 0.0))
        self.means[i] = new_mean
        slopes = gain.reshape(-1)
        for b in self._noisy():
            self._set(i, b, slopes[:, None] * self.blocks[source, b])
        if isinstance(operator, PiecewiseLinear):
            own = _ramp_covariance(operator, mean.reshape(-1), covariance, mean.shape)
        else:
            own = _mehler_covariance(operator, mean, variance, covariance)
        np.fill_diagonal(own, new_variance.reshape(-1))
        self.blocks[i, i] = own

    def _add_by_factor(self, i: NodeIndex, node: Node) -> None:
        """Any other operator, by its own Gaussian rule: a factor of the joint covariance stands in for tangent samples."""
        sizes = [math.prod(self._shape(j)) for j in node.inputs]
        joint = np.block(
            [
                [self.blocks.get((a, b), np.zeros((sizes[m], sizes[k]))) for k, b in enumerate(node.inputs)]
                for m, a in enumerate(node.inputs)
            ]
        )
        values, vectors = np.linalg.eigh(joint)
        factor = vectors * np.sqrt(np.maximum(values, 0.0) * len(values))
        parts = np.split(factor, np.cumsum(sizes)[:-1])
        tangents = tuple(t.reshape(*self._shape(j), -1) for t, j in zip(parts, node.inputs))
        variances = tuple((t**2).mean(axis=-1, keepdims=True) for t in tangents)
        step = node.operator.over_gaussian(tuple(self.means[j] for j in node.inputs), variances, tangents)
        self.means[i] = step.mean
        self._link(i, node, step.gain.push)
        own = self.blocks[i, i]
        np.fill_diagonal(own, step.variance.reshape(-1))


def kernel_noise(operator: MatrixOperator, variance: Array, second: Array) -> Array:
    """Return `(n_columns, P, P)`: sum_j V_oj E[x_pj x_p'j], the covariance that a column's noisy kernel, shared by its positions, makes.

    `second` is `E[x x']` of the flat input.
    """
    groups, taps = tap_indices(operator)
    padded = np.pad(second, ((0, 1), (0, 1)))  # index -1 is the padding: zero
    n_columns, n_positions = operator.n_columns, taps.shape[-1]
    out = np.zeros((n_columns, n_positions, n_positions))
    per_group = n_columns // groups
    v = variance.reshape(groups, per_group, -1)
    for g in range(groups):
        for start in range(0, taps.shape[1], 32):
            index = taps[g, start : start + 32]
            gathered = padded[index[:, :, None], index[:, None, :]]
            out[g * per_group : (g + 1) * per_group] += np.tensordot(v[g, :, start : start + 32], gathered, axes=1)
    return out


def _ramp_covariance(operator: PiecewiseLinear, mean: Array, covariance: Array, shape: tuple[int, ...]) -> Array:
    """Return Cov(f(x_i), f(x_j)) for `f = offset + slope x + sum_m w_m relu(x - t_m)`, exactly."""
    ramps = operator.ramps()
    std = np.sqrt(np.maximum(np.diag(covariance), 0.0))

    def flat(value: float | Array) -> Array:
        return np.broadcast_to(np.asarray(value, np.float64), shape).reshape(-1)

    slope = flat(ramps.slope)
    total = np.outer(slope, slope) * covariance
    hinges = [(flat(w), mean - t) for w, t in zip(ramps.weights, ramps.thresholds)]
    for w, at in hinges:
        chance = _chance(at, std)
        cross = slope[:, None] * covariance * (w * chance)[None, :]
        total += cross + cross.T
        for other_w, other_at in hinges:
            total += np.outer(w, other_w) * relu_covariance(at, std, covariance, other_at, std)
    return total


def _chance(mean: Array, std: Array) -> Array:
    from scipy.special import ndtr

    safe = np.where(std > 0, std, 1.0)
    return np.where(std > 0, ndtr(mean / safe), (mean > 0).astype(np.float64))


def _mehler_covariance(operator: Elementwise, mean: Array, variance: Array, covariance: Array) -> Array:
    """Return `sum_k a_k a_k' r^k / k!` with the Hermite coefficients a_k of each element."""
    terms = operator.hermite_coefficients(mean, np.maximum(variance, 0.0), N_MEHLER).reshape(N_MEHLER + 1, -1)
    std = np.sqrt(np.maximum(np.diag(covariance), 0.0))
    safe = np.where(std > 0, std, 1.0)
    r = np.clip(covariance / np.outer(safe, safe), -1.0, 1.0)
    total, power, factorial = np.zeros_like(covariance), np.ones_like(covariance), 1.0
    for k in range(1, N_MEHLER + 1):
        power, factorial = power * r, factorial * k
        total += np.outer(terms[k], terms[k]) * power / factorial
    return total
