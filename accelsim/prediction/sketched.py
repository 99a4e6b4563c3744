"""Statistical linearization with sampled remainders: the MSE at any noise, for the price of a few adjoints.

At every operator `f(mu + T) = E f + S T + R`, with the mean and the gain of a Gaussian (`tangents.py`). With A_l the gains from there to
the outputs, a programming's error d_k of the outputs is what is linear in fresh errors and what is not,

    d_k = L_k + R_k,    L_k = sum_l A_l E_l (mu + T_k),    R_k = sum_l A_l R_lk                             (1)

exactly. The errors E_l of a layer do not depend on its input, so the second moment of L is known for *any* law of T,

    E L L' = sum_oj V_oj [ g g' + E g(T) g(T)' ],    g with input mu, g(T) with input T                       (2)

and what is left is small and sampled, with L as control variate:

    E d d' = E L L' + mean_k (d_k d_k' - L_k L_k'),      E d = mean_k R_k                                     (3)

Gaussian is only the choice of E f and S. Nothing is taken for granted of R, neither that it is uncorrelated with L nor from layer to
layer, as closures do (2 % and 3 % of the MSE of `fashion_resnet` at a relative MSE of 0.2); nor that pre-activations are Gaussian.
In (2) the mean over k is that of a random +-combination of the samples: unbiased, and its scatter a tenth of that of (3). The control has
the weight one, or that of least scatter where the outputs hardly follow the linear response (converters that round errors away).
"""

from dataclasses import dataclass
from functools import partial

import numpy as np

from accelsim.placement import Plan
from accelsim.prediction.tangents import Forward, Trace
from accelsim.response.linear import images_at_a_time
from accelsim.response.passes import pull
from accelsim.response.probes import N_ERRORS, combinations, every_output, probe_variance
from workloads.network import Network, NodeIndex, from_lanes, to_lanes
from workloads.operators.base import Array, split_lanes
from workloads.operators.matrix import MatrixOperator
from workloads.samples import Samples

N_TANGENTS = 12
MAX_COVARIANCE_OUTPUTS = 32
MAX_BYTES = 2**30
"""What a chunk of images may keep on its way forward."""
SAMPLES_ALIVE = 5
"""Sets of samples of the largest map at a time: totals and remainders, before and after an operator, and a skip's."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class SketchedResult:
    """Moments of the outputs, and what each sample says of them.

    Parameters
    ----------
    mean_output
        `(N, n_out)`.
    variance_by_image
        Over n_out, `(N,)`.
    variance_by_output
        `(n_out,)`; None with probes.
    covariance
        Of the outputs by image, `(N, n_out, n_out)`; None where there are too many.
    mse
        Mean squared error against what was wanted.
    by_sample
        Each sample's share of it, chunk by chunk of images that share draws: `(n_chunks, K)`, its mean over K counts.
    probe_variance
        Variance of the MSE that random probes add.
    samples
        Outputs `(K, images, n_out)`, float32, chunk by chunk; none where covariances are not known.
    """

    mean_output: Array
    variance_by_image: Array
    variance_by_output: Array | None
    covariance: Array | None
    mse: float
    by_sample: Array
    probe_variance: float
    samples: tuple[Array, ...]

    @property
    def mse_se(self) -> float:
        """Standard error of the MSE, from the scatter of the samples; chunks are independent."""
        n_samples = self.by_sample.shape[1]
        return float(np.sqrt(self.by_sample.var(axis=1, ddof=1).sum() / n_samples + self.probe_variance))

    @property
    def n_samples(self) -> int:
        """Samples an image."""
        return int(self.by_sample.shape[1])

    @property
    def degrees_of_freedom(self) -> int:
        """Of the standard error's estimate."""
        n_chunks, n_samples = self.by_sample.shape
        return n_chunks * (n_samples - 1)


def sketch(
    plan: Plan, graph: Network, samples: Samples, wanted: Array, *, seed: int, n_probes: int = 0, n_tangents: int = N_TANGENTS
) -> SketchedResult:
    """Return mean and variance of every output, and the MSE against `wanted` `(N, n_out)`, from `n_tangents` samples an image."""
    worker = _Worker(plan, graph, seed=seed, n_probes=n_probes, n_tangents=n_tangents)
    size = min(chunk_size(len(samples)), worker.images_at_a_time())
    for number, start in enumerate(range(0, len(samples), size)):
        chosen = slice(start, start + size)
        worker.add(to_lanes(samples.x[chosen]), wanted[chosen], number)
    return worker.result()


def tangents_that_fit(graph: Network) -> int:
    """Return how many samples of one image fit in memory."""
    return MAX_BYTES // (SAMPLES_ALIVE * 4 * max(int(np.prod(node.shape)) for node in graph.nodes))


def chunk_size(n_images: int) -> int:
    """Return how many images share their draws: at most 16, and so few that there are four chunks to compare."""
    return max(1, min(16, n_images // 4))


@dataclass(slots=True, kw_only=True, eq=False)
class _Tally:
    """Sums over a chunk: E L L' by lane `(R, B)`, and its covariances `(R, R, B)` or None."""

    linear: Array
    covariance: Array | None


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class _Chunk:
    """What a chunk of images says: means `(B, n_out)`, variances over n_out `(B,)` and by lane `(R, B)`, and so on."""

    mean: Array
    by_image: "_Split"
    by_output: "_Split | None"
    covariance: "_Split | None"
    bias2: Array
    totals: Array
    linears: Array
    crossed: Array
    probe_variance: Array
    samples: Array | None


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class _Split:
    """A second moment about the mean: of the samples, of what is linear in them, and the latter as it is known."""

    sampled: Array
    linear: Array
    known: Array

    def combined(self, weight: float) -> Array:
        """Return (3) with a weight of the control."""
        return self.sampled + weight * (self.known - self.linear)


class _Worker:
    """Adds up second moments over chunks of images."""

    def __init__(self, plan: Plan, graph: Network, *, seed: int, n_probes: int, n_tangents: int) -> None:
        if n_tangents < 2:
            raise ValueError(f"n_tangents: need at least 2, got {n_tangents}")
        self.graph, self.seed, self.n_probes, self.n_tangents = graph, seed, n_probes, n_tangents
        self.n_out = int(np.prod(graph.nodes[graph.output].shape))
        self.n_carried = n_probes + min(n_tangents, N_ERRORS, self.n_out) if n_probes else self.n_out
        self.with_covariance = n_probes == 0 and self.n_out <= MAX_COVARIANCE_OUTPUTS
        self.image_bytes = 4 * plan.activation_elements() + SAMPLES_ALIVE * 4 * n_tangents * max(int(np.prod(n.shape)) for n in graph.nodes)
        self.forward = Forward(plan, graph, seed=seed, n_tangents=n_tangents)
        self.chunks: list[_Chunk] = []

    def images_at_a_time(self) -> int:
        """Return how many images fit."""
        return max(1, min(images_at_a_time(self.graph, self.n_carried), MAX_BYTES // self.image_bytes))

    def add(self, images: Array, wanted: Array, chunk: int) -> None:
        """Add a chunk of images `(*input_shape, B)`."""
        n_images = images.shape[-1]
        trace = self.forward.run(images, chunk)
        total, left = (self._flat(part, n_images) for part in (trace.output.tangents, trace.output.left))
        linear = total - left
        if self.n_probes:
            known = linear[:N_ERRORS].swapaxes(1, 2)
            seeds = combinations(known, n_images, self.n_out, n_probes=self.n_probes, seed=self.seed, trial=chunk)
        else:
            seeds = every_output(self.n_out, n_images)
        tally = _Tally(
            linear=np.zeros((self.n_carried, n_images)),
            covariance=np.zeros((self.n_carried, self.n_carried, n_images)) if self.with_covariance else None,
        )
        pull(trace.point, seeds.reshape(*self.graph.nodes[self.graph.output].shape, -1), partial(self._at_matrix, trace, tally))
        point = from_lanes(trace.point.output).reshape(n_images, -1).astype(np.float64)
        self.chunks.append(self._moments(point, total, left, tally, wanted))

    def _flat(self, samples: Array | None, n_images: int) -> Array:
        """Return samples of the outputs, `(K, n_out, B)`."""
        if samples is None:
            return np.zeros((self.n_tangents, self.n_out, n_images))
        return samples.reshape(self.n_tangents, self.n_out, n_images).astype(np.float64)

    def _moments(self, point: Array, total: Array, left: Array, tally: _Tally, wanted: Array) -> _Chunk:
        """Return (2) and (3) together."""
        linear, shift = total - left, left.mean(axis=0)
        both, straight = (total**2).mean(axis=0) - shift**2, (linear**2).mean(axis=0)
        mean = point + shift.T
        covariance = None
        if tally.covariance is not None:
            pairs = [np.einsum("krb,ksb->brs", part, part) / self.n_tangents for part in (total, linear)]
            of_mean = np.einsum("rb,sb->brs", shift, shift)
            covariance = _Split(sampled=pairs[0] - of_mean, linear=pairs[1], known=np.moveaxis(tally.covariance, -1, 0))
        return _Chunk(
            mean=mean,
            by_image=_Split(
                sampled=both.sum(axis=0) / self.n_out,
                linear=straight.sum(axis=0) / self.n_out,
                known=tally.linear.sum(axis=0) / self.n_out,
            ),
            by_output=None
            if self.n_probes
            else _Split(sampled=both.sum(axis=1), linear=straight.sum(axis=1), known=tally.linear.sum(axis=1)),
            covariance=covariance,
            bias2=np.mean((mean - wanted) ** 2, axis=1),
            totals=(total**2).sum(axis=(1, 2)) / self.n_out,
            linears=(linear**2).sum(axis=(1, 2)) / self.n_out,
            crossed=2.0 * np.einsum("kob,bo->k", left, point - wanted) / self.n_out,
            probe_variance=probe_variance(tally.linear, self.n_probes, self.n_out),
            samples=None if covariance is None else (point + total.swapaxes(1, 2)).astype(np.float32),
        )

    def _at_matrix(self, trace: Trace, tally: _Tally, i: NodeIndex, delta: Array, x: Array) -> None:
        """Add (2) of a matrix layer."""
        operator, m = self.forward.layers[i].operator, self.forward.moments[i]
        self._gather(operator, delta, x, m.variance, tally)
        if i in trace.mixes:
            self._gather(operator, delta, trace.mixes[i], m.variance, tally)
        split = split_lanes(delta, x.shape[-1])
        if i in trace.read_variances:
            flat = split.reshape(-1, *split.shape[-2:])
            self._add_diagonal(tally, flat, trace.read_variances[i].reshape(-1, x.shape[-1]))
        if m.bias_variance is not None:
            gradient = split.reshape(len(split), -1, *split.shape[-2:]).sum(axis=1)
            self._add_diagonal(tally, gradient, np.repeat(m.bias_variance[:, None], x.shape[-1], axis=1))

    def _gather(self, operator: MatrixOperator, delta: Array, x: Array, variance: Array, tally: _Tally) -> None:
        moments = operator.gradient_moments(delta, x, variance, covariance=self.with_covariance)
        tally.linear += moments.lane_power.reshape(self.n_carried, -1)
        if tally.covariance is not None and moments.covariance is not None:
            tally.covariance += moments.covariance

    def _add_diagonal(self, tally: _Tally, gradient: Array, variance: Array) -> None:
        """Add `sum_f v_fb g_frb g_fsb` for independent errors f."""
        tally.linear += np.einsum("frb,fb->rb", gradient.astype(np.float64) ** 2, variance)
        if tally.covariance is not None:
            tally.covariance += np.einsum("frb,fsb->rsb", gradient * variance[:, None, :], gradient)

    def _control_weight(self) -> float:
        """Return what the linear part counts as a control: all, unless the samples clearly do better with less.

        Where converters round errors away, outputs do not follow the linear response at all. The weight of least variance is their
        regression; it is taken where it halves the scatter, so that nothing is chosen by chance.
        """
        totals, linears = (np.stack(part) for part in zip(*((c.totals + c.crossed, c.linears) for c in self.chunks)))
        about = [part - part.mean(axis=1, keepdims=True) for part in (totals, linears)]
        spread = float(np.sum(about[1] ** 2))
        if not spread > 0.0:
            return 1.0
        weight = float(np.clip(np.sum(about[0] * about[1]) / spread, 0.0, 1.0))
        scatter = [float(np.sum((about[0] - w * about[1]) ** 2)) for w in (weight, 1.0)]
        return weight if scatter[0] < 0.5 * scatter[1] else 1.0

    def result(self) -> SketchedResult:
        """Return means and variances over all images added."""
        weight = self._control_weight()
        by_image = np.concatenate([c.by_image.combined(weight) for c in self.chunks])
        n_images = len(by_image)
        covariances = [c.covariance.combined(weight) for c in self.chunks if c.covariance is not None]
        by_output = [c.by_output.combined(weight) for c in self.chunks if c.by_output is not None]
        return SketchedResult(
            mean_output=np.concatenate([c.mean for c in self.chunks]),
            variance_by_image=by_image,
            variance_by_output=np.sum(by_output, axis=0) / n_images if by_output else None,
            covariance=np.concatenate(covariances) if covariances else None,
            mse=float((np.concatenate([c.bias2 for c in self.chunks]) + by_image).mean()),
            by_sample=np.stack([c.totals - weight * c.linears + c.crossed for c in self.chunks]) / n_images,
            probe_variance=weight**2 * float(np.concatenate([c.probe_variance for c in self.chunks]).sum()) / n_images**2,
            samples=tuple(c.samples for c in self.chunks if c.samples is not None),
        )
