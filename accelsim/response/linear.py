"""The linear response of the outputs to errors in the weights: the coefficients from which every first-order answer is made.

With g_oj = dy/dW_oj, a vector over outputs, and V_oj = Var W_oj,

    Cov_out = sum_oj V_oj g_oj g_oj'                                            (1)
    MSE     = mean |E y - y*|^2 / n_out + sum_oj V_oj S_oj,   S_oj = mean over images of |g_oj|^2 / n_out      (2)

In a convolution the same noisy weight acts at every position, so g sums over positions first and is squared then. Noise that is
fresh at each read is independent by position: squared first, then summed.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np

from accelsim.lower import ArraySite
from accelsim.placement import PlacedLayer, Plan
from accelsim.response.passes import Linearization, linearize, pull, push
from accelsim.response.probes import combinations, every_output, probe_variance
from accelsim.response.target import mean_weights
from accelsim.response.weights import StoredVariances, Weights
from workloads.kernels import GradientMoments
from workloads.network import Network, NodeIndex, from_lanes, to_lanes
from workloads.operators.base import Array
from workloads.samples import Samples

MAX_COVARIANCE_OUTPUTS = 32
LANES_WANTED = 160
MAX_LANE_BYTES = 2**30
"""Most memory for the gradients of a chunk of images."""


@dataclass(slots=True, kw_only=True, eq=False)
class LayerResponse:
    """What one layer's errors do to the outputs.

    Parameters
    ----------
    power
        S of (2), float64, in the shape of the weights.
    bias_power
        The same for a bias that is stored in devices, `(n_columns,)`.
    programming_by_output, read_by_output, converter_by_output
        Variance of each output, averaged over images, `(n_out,)` (one entry with probes).
    inputs_by_output, sums_by_output
        The same by what values in memories read as: the layer's inputs, and the sums of its row blocks.
    input_power, sum_power
        Squared gradient of each value of its inputs and of its sums, averaged over images, over n_out; None where they are not stored.
    row_activity
        Squared input of each weight's row, summed over positions and averaged over images, in the shape of the weights.
    """

    power: Array
    bias_power: Array
    programming_by_output: Array
    read_by_output: Array
    converter_by_output: Array
    row_activity: Array
    inputs_by_output: Array
    sums_by_output: Array
    input_power: Array | None = None
    sum_power: Array | None = None

    @property
    def programming(self) -> float:
        """MSE by programming errors of this layer."""
        return float(self.programming_by_output.mean())

    @property
    def converters(self) -> float:
        """MSE by what this layer's converters leave at random; the rest of their error is bias."""
        return float(self.converter_by_output.mean())

    @property
    def variance_by_output(self) -> Array:
        """Variance of each output by all causes."""
        by_cells = self.programming_by_output + self.read_by_output + self.converter_by_output
        return by_cells + self.inputs_by_output + self.sums_by_output

    @property
    def read_noise(self) -> float:
        """MSE by read noise of this layer."""
        return float(self.read_by_output.mean())


@dataclass(slots=True, kw_only=True, eq=False)
class Response:
    """The linear response of a plan on samples.

    Parameters
    ----------
    layers
        By layer name, in order.
    mean_output
        Outputs `(N, n_out)` of the network of mean weights.
    variance_by_image
        Variance summed over outputs, over n_out, `(N,)`.
    covariance
        Output covariance by image `(N, n_out, n_out)`, None where there are too many outputs.
    draws
        `(n_draws, N, n_out)`: first-order output errors `J e` of the weight errors that were given; None without any.
    n_probes
        0 when every output was carried; otherwise the number of random combinations an image, beside those of `errors`.
    variance_se
        Standard error of the total variance, from the probes; 0 when exact.
    """

    layers: dict[str, LayerResponse]
    mean_output: Array
    variance_by_image: Array
    covariance: Array | None
    draws: Array | None
    n_probes: int = 0
    variance_se: float = 0.0

    @property
    def variance(self) -> float:
        """Variance part of the MSE, all layers and causes."""
        return float(self.variance_by_image.mean())

    def chip_sd(self, reference: Array) -> float | None:
        """Return the standard deviation over chips of the MSE against `reference` `(N, n_out)`.

        To first order a chip's output error is q + d, d ~ N(0, C) jointly over all N n_out outputs, and with K = C / (N n_out)
        sd^2 = 2 tr K^2 + 4 q' K q / (N n_out); both traces come from the draws d_s, of which distinct pairs are unbiased:
        tr C^2 = E (d_s . d_t)^2. The draws must be of independent programmings' errors about their mean.
        """
        if self.draws is None or len(self.draws) < 2:
            return None
        flat = self.draws.reshape(len(self.draws), -1)
        q = (self.mean_output - reference).ravel()
        gram = flat @ flat.T
        n = len(flat)
        trace = (np.sum(gram**2) - np.sum(np.diag(gram) ** 2)) / (n * (n - 1))
        along = float(np.mean((flat @ q) ** 2))
        return float(np.sqrt(2.0 * trace + 4.0 * along)) / q.size


@dataclass(slots=True, kw_only=True, eq=False)
class _Tally:
    """Sums for one layer over image chunks."""

    power: Array
    bias_power: Array
    programming: Array
    read: Array
    converters: Array
    activity: Array
    inputs: Array
    sums: Array
    input_power: Array
    sum_power: Array


def respond(
    plan: Plan,
    graph: Network,
    samples: Samples,
    *,
    seed: int,
    n_probes: int = 0,
    errors: Sequence[Weights] = (),
    view: Weights | None = None,
) -> Response:
    """Return the linear response at the mean weights (or at `view`); every output exactly, or `n_probes` combinations an image.

    `errors` are weight errors whose own first-order output errors are wanted too (`Response.draws`); they sharpen probes.
    """
    worker = _Worker(plan, graph, seed=seed, n_probes=n_probes, errors=errors, view=view or mean_weights(plan))
    size = images_at_a_time(graph, worker.n_carried)
    for start in range(0, len(samples), size):
        worker.add(to_lanes(samples.x[start : start + size]))
    return worker.result(len(samples))


def images_at_a_time(graph: Network, n_carried: int) -> int:
    """Return the images of a chunk: whole vectors of lanes, unless their gradients at the largest map would take too much memory."""
    wanted = max(16, LANES_WANTED // n_carried // 16 * 16)
    return max(1, min(wanted, MAX_LANE_BYTES // (n_carried * bytes_per_lane(graph))))


def bytes_per_lane(graph: Network) -> int:
    """Return the memory of one lane of the backward pass: gradients at both ends of an operator, and one that waits for a sum."""
    return 3 * 4 * max(int(np.prod(node.shape)) for node in graph.nodes)


class _Worker:
    """Adds up the response over chunks of images."""

    def __init__(self, plan: Plan, graph: Network, *, seed: int, n_probes: int, errors: Sequence[Weights], view: Weights) -> None:
        self.plan, self.graph, self.seed, self.n_probes, self.view = plan, graph, seed, n_probes, view
        self.n_out = int(np.prod(graph.nodes[graph.output].shape))
        self.n_draws = len(errors)
        self.n_known = min(self.n_draws, self.n_out) if n_probes else 0
        self.n_carried = self.n_known + n_probes or self.n_out
        self.covariance = n_probes == 0 and self.n_out <= MAX_COVARIANCE_OUTPUTS
        self.layers: dict[NodeIndex, PlacedLayer] = plan.layer_of_node()
        self.variances = {node: layer.site.moments().variance.astype(np.float32) for node, layer in self.layers.items()}
        self.bias_variances = {n: _bias_variance(layer.bias_site) for n, layer in self.layers.items()}
        self.read_variances = {n: _read_variance(layer.site) for n, layer in self.layers.items()}
        self.pushed: Sequence[Weights] = errors if n_probes else ()
        pulled = () if n_probes else errors
        self.errors = {n: _stacked([e.weights[n] for e in pulled]) for n in self.layers} if pulled else {}
        self.bias_errors = {n: _stacked([e.biases[n] for e in pulled]) for n in pulled[0].biases} if pulled else {}
        self.tallies = {n: self._tally(layer) for n, layer in self.layers.items()}
        self.outputs: list[Array] = []
        self.by_image: list[Array] = []
        self.spread: list[Array] = []
        self.covariances: list[Array] = []
        self.drawn: list[Array] = []
        self.n_seen = 0

    def _tally(self, layer: PlacedLayer) -> _Tally:
        n = layer.operator.n_columns
        return _Tally(
            power=np.zeros(layer.operator.weights.shape),
            bias_power=np.zeros(n),
            programming=np.zeros(self.n_carried),
            read=np.zeros(self.n_carried),
            converters=np.zeros(self.n_carried),
            activity=np.zeros(()),
            inputs=np.zeros(self.n_carried),
            sums=np.zeros(self.n_carried),
            input_power=np.zeros(()),
            sum_power=np.zeros(()),
        )

    def add(self, images: Array) -> None:
        """Add a chunk of images `(*input_shape, B)`."""
        point = linearize(self.graph, images, self.view)
        n_images = images.shape[-1]
        self.lane_power = np.zeros(self.n_carried * n_images)
        self.chunk_covariance = np.zeros((self.n_carried, self.n_carried, n_images)) if self.covariance else None
        self.chunk_draws = np.zeros((self.n_draws, self.n_carried * n_images)) if self.errors else None
        if self.pushed:
            self.drawn.append(np.stack([self._flat(push(point, e.weights, e.biases)) for e in self.pushed]))
        pull(point, self._seeds(n_images), partial(self._visit, point))
        self.outputs.append(self._flat(point.output))
        lanes = self.lane_power.reshape(self.n_carried, n_images)
        self.by_image.append(lanes.sum(axis=0) / self.n_out)
        self.spread.append(probe_variance(lanes, self.n_probes, self.n_out))
        if self.chunk_covariance is not None:
            self.covariances.append(np.moveaxis(self.chunk_covariance, -1, 0))
        if self.chunk_draws is not None:
            self.drawn.append(self.chunk_draws.reshape(self.n_draws, self.n_carried, n_images).transpose(0, 2, 1))
        self.n_seen += n_images

    def _flat(self, output: Array) -> Array:
        return from_lanes(output).reshape(output.shape[-1], -1).astype(np.float64)

    def _seeds(self, n_images: int) -> Array:
        """Return what is pulled back, `(*out_shape, R*B)`."""
        if self.n_probes:
            known = self.drawn[-1] if self.pushed else np.zeros((0, n_images, self.n_out))
            seeds = combinations(known, n_images, self.n_out, n_probes=self.n_probes, seed=self.seed, trial=self.n_seen)
        else:
            seeds = every_output(self.n_out, n_images)
        return seeds.reshape(*self.graph.nodes[self.graph.output].shape, -1)

    def _visit(self, point: Linearization, i: NodeIndex, delta: Array, x: Array) -> None:
        operator, tally = self.layers[i].operator, self.tallies[i]
        seen = point.error_drive(i)
        moments = operator.gradient_moments(delta, seen, self.variances[i], covariance=self.covariance, directions=self.errors.get(i))
        tally.power += moments.power
        path = self.view.paths.get(i)
        active = operator.row_activity(x) if path is None else path.activity(x)
        tally.activity = tally.activity + _distinct(active) * x.shape[-1]
        self._share(tally.programming, moments.lane_power)
        self._joint(moments)
        if self.bias_variances[i] is not None:
            self._add_bias(tally, delta, self.bias_variances[i], self.bias_errors.get(i), x.shape[-1])
        if (variances := self.read_variances[i]) is not None:
            spread = operator.multiply(variances, x * x) if path is None else path.read_spread(variances, x)
            self._add_fresh(tally.read, delta, spread)
        if i in point.rests:
            self._add_fresh(tally.converters, delta, point.rests[i])
        if i in self.view.buffers:
            self._add_stored(point, i, delta, x.shape[-1])

    def _add_stored(self, point: Linearization, i: NodeIndex, delta: Array, n_images: int) -> None:
        """Add what memories of layer i's values do: independent from value to value."""
        tally, buffers, variances = self.tallies[i], self.view.buffers[i], point.stored.get(i, StoredVariances())
        if buffers.inputs is not None:
            (at_inputs,) = point.maps[i].pull(delta)
            assert at_inputs is not None  # a layer's map has its one input
            tally.input_power = tally.input_power + _squares(at_inputs)
            if variances.inputs is not None:
                self._add_fresh(tally.inputs, at_inputs, variances.inputs)
        if buffers.sums is not None:
            tally.sum_power = tally.sum_power + _squares(delta)
            if variances.sums is not None:
                self._add_fresh(tally.sums, delta, variances.sums)

    def _add_fresh(self, by_output: Array, delta: Array, spread: Array) -> None:
        """Add errors that are independent from position to position, of variance `spread` `(*shape, B)`."""
        flat, spread = delta.reshape(-1, self.n_carried, spread.shape[-1]), spread.reshape(-1, spread.shape[-1])
        fresh = np.einsum("frb,fb->rb", flat * flat, spread)
        if self.chunk_covariance is not None:
            self.chunk_covariance += np.einsum("frb,fsb->rsb", flat * spread[:, None, :], flat)
        self._share(by_output, fresh.ravel().astype(np.float64))

    def _share(self, by_output: Array, lane_power: Array) -> None:
        by_output += lane_power.reshape(self.n_carried, -1).sum(axis=1)
        self.lane_power += lane_power

    def _joint(self, moments: GradientMoments) -> None:
        if self.chunk_covariance is not None and moments.covariance is not None:
            self.chunk_covariance += moments.covariance
        if self.chunk_draws is not None and moments.sketch is not None:
            self.chunk_draws += moments.sketch

    def _add_bias(self, tally: _Tally, delta: Array, variance: Array | None, errors: Array | None, n_images: int) -> None:
        gradient = delta.reshape(delta.shape[0], -1, delta.shape[-1]).sum(axis=1).astype(np.float64)
        assert variance is not None  # the caller has looked
        tally.bias_power += (gradient**2).sum(axis=1)
        self._share(tally.programming, variance @ gradient**2)
        if self.chunk_draws is not None and errors is not None:
            self.chunk_draws += errors @ gradient
        if self.chunk_covariance is not None:
            split = gradient.reshape(len(gradient), -1, n_images)
            self.chunk_covariance += np.einsum("o,orb,osb->rsb", variance, split, split)

    def result(self, n_images: int) -> Response:
        """Return the response, normalized over images and outputs."""
        per = n_images * self.n_out
        to_output = per / self.n_carried if self.n_probes else n_images
        layers = {
            self.layers[n].name: LayerResponse(
                power=np.divide(t.power, per, out=t.power),
                bias_power=t.bias_power / per,
                programming_by_output=t.programming / to_output,
                read_by_output=t.read / to_output,
                converter_by_output=t.converters / to_output,
                inputs_by_output=t.inputs / to_output,
                sums_by_output=t.sums / to_output,
                input_power=t.input_power / per if t.input_power.ndim else None,
                sum_power=t.sum_power / per if t.sum_power.ndim else None,
                row_activity=np.broadcast_to(t.activity / n_images, t.power.shape),
            )
            for n, t in self.tallies.items()
        }
        return Response(
            layers=layers,
            mean_output=np.concatenate(self.outputs),
            variance_by_image=np.concatenate(self.by_image),
            covariance=np.concatenate(self.covariances) if self.covariances else None,
            draws=np.concatenate(self.drawn, axis=1) if self.drawn else None,
            n_probes=self.n_probes,
            variance_se=float(np.sqrt(np.concatenate(self.spread).sum())) / n_images,
        )


def _distinct(values: Array) -> Array:
    """Return one entry along each axis that is only broadcast."""
    return values[tuple(slice(0, 1) if step == 0 else slice(None) for step in values.strides)]


def _squares(delta: Array) -> Array:
    """Return squares summed over lanes."""
    return np.einsum("...l,...l->...", delta, delta).astype(np.float64)


def _stacked(errors: Sequence[Array]) -> Array:
    return np.stack([e.ravel() for e in errors])


def _bias_variance(site: ArraySite | None) -> Array | None:
    return None if site is None else site.moments().variance


def _read_variance(site: ArraySite) -> Array | None:
    variance = site.read_variance()
    return None if variance is None else variance.astype(np.float32)
