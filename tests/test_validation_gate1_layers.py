"""Gate 1: each layer kind maps the mean and covariance of a correlated Gaussian input to those of brute-force samples.

Every test compares mean, covariance (Frobenius), trace and sum of all elements by z-scores at fixed seeds, 5e4 samples here and
1e6 with `-m slow`. The input is a Gaussian vector that is put into `_Image` as the value of node 0.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import pytest
from scipy.optimize import brentq
from scipy.special import erf, expit
from scipy.stats import norm

from accelsim.accelerator import Accelerator
from accelsim.placement import place
from accelsim.prediction import covariance as full
from accelsim.prediction.covariance import _Image, _Moments
from validation.oracles import CellOracle, average_pool, convolve, max_pool
from validation.statistics import MomentsAgreement, moments_agreement
from workloads.kernels import ConvGeometry
from workloads.network import INPUT, Network, Node
from workloads.operators.base import Array, Operator, Shape
from workloads.operators.matrix import Conv, ConvTranspose, MatrixOperator
from workloads.operators.merge import Add, Concat
from workloads.operators.piecewise import Clip, LeakyRelu, Relu
from workloads.operators.pooling import AveragePool, MaxPool, Window
from workloads.operators.reshape import Reshape
from workloads.operators.smooth import Gelu, Sigmoid, Tanh
from workloads.samples import samples_of

N_BATCHES = 20
N_CI, N_SLOW = 50_000, 1_000_000
Z_LIMIT = 4.5
"""About 150 z-scores at fixed seeds, the largest over a mean's elements among them."""
G_MAX = 25e-6
RANDOM = np.random.default_rng(17)


@dataclass(frozen=True, eq=False, kw_only=True)
class Case:
    """Operators on a Gaussian value of node 0 (each reads the nodes in `wiring`, which count from 0), and how to sample the last."""

    name: str
    in_shape: Shape
    operators: tuple[Operator, ...]
    sample: Callable[[Array, np.random.Generator], Array]
    wiring: tuple[tuple[int, ...], ...] = ((0,),)
    settings: tuple[str, ...] = ()
    spread: float = 1.0


@dataclass(frozen=True, eq=False)
class Gaussian:
    """A mean `(n,)` and a factor `(n, n)` of a covariance."""

    mean: Array
    factor: Array

    def draw(self, n: int, rng: np.random.Generator) -> Array:
        return (self.mean[:, None] + self.factor @ rng.standard_normal((len(self.mean), n))).T


def correlated(n: int, spread: float) -> Gaussian:
    """Elements of deviation about `spread` that share half of their variance."""
    rng = np.random.default_rng(n)
    factor = rng.normal(size=(n, n)) / np.sqrt(n) + rng.normal(size=(1, n)) / np.sqrt(n)
    return Gaussian(rng.normal(size=n), spread * factor / np.sqrt(2.0))


def predicted(case: Case) -> tuple[Array, Array]:
    """Return mean and covariance of the last operator's value, by the predictor's own steps."""
    source = correlated(int(np.prod(case.in_shape)), case.spread)
    nodes = [Node(name="source", operator=Reshape(case.in_shape), inputs=(INPUT,), shape=case.in_shape)]
    for i, (operator, inputs) in enumerate(zip(case.operators, case.wiring)):
        shape = operator.out_shape(*(nodes[j].shape for j in inputs))
        nodes.append(Node(name=f"node{i + 1}", operator=operator, inputs=inputs, shape=shape))
    graph = Network(name=case.name, digest="", input_shape=case.in_shape, nodes=tuple(nodes), output=len(nodes) - 1)
    image = _Image(graph, moments_of(graph, case))
    image.means[0] = source.mean.reshape(*case.in_shape, 1)
    image.blocks[0, 0] = source.factor @ source.factor.T
    for i in range(1, len(nodes)):
        image._add(i, nodes[i])
    return image.means[graph.output].ravel(), image.blocks[graph.output, graph.output]


def moments_of(graph: Network, case: Case) -> dict[int, _Moments]:
    if not any(isinstance(operator, MatrixOperator) for operator in case.operators):
        return {}
    accelerator = Accelerator.preset("memse", set=case.settings)
    calibration = samples_of(np.ones((1, *case.in_shape), np.float32))
    return {layer.node: _Moments.of(layer) for layer in place(graph, accelerator, calibration=calibration).layers}


def batches(case: Case, n_samples: int, seed: int = 1) -> Iterator[Array]:
    """Yield samples `(n_out, n)` of the case, in independent batches."""
    source = correlated(int(np.prod(case.in_shape)), case.spread)
    rng = np.random.default_rng(seed)
    for _ in range(N_BATCHES):
        n_left, parts = n_samples // N_BATCHES, []
        while n_left:
            n = min(n_left, 5_000)
            x = source.draw(n, rng).reshape(n, *case.in_shape)
            parts.append(case.sample(x, rng).reshape(n, -1).T)
            n_left -= n
        yield np.concatenate(parts, axis=1)


def agreement(case: Case, n_samples: int) -> MomentsAgreement:
    return moments_agreement(*predicted(case), batches(case, n_samples))


# Matrix layers


def matrix_case(name: str, operator: MatrixOperator, in_shape: Shape, cells: CellOracle, *settings: str, device_bias: bool = False) -> Case:
    """A layer of weights, sampled with the naive convolution and pairs drawn from the definition."""
    spec = (
        f"cell.programming.error_rel={cells.error_rel}", f"cell.programming.clip={str(cells.clip).lower()}",
        f"mapping.g_used_siemens={cells.g_used_siemens}", f"mapping.scale={'column' if cells.per_column else 'layer'}",
        f"mapping.bias={'device' if device_bias else 'digital'}", *settings,
    )  # fmt: skip

    def sample(x: Array, rng: np.random.Generator) -> Array:
        weights, bias = operator.weights.astype(np.float64), operator.bias
        largest = np.abs(weights.reshape(len(weights), -1)).max(axis=1)
        if device_bias and bias is not None:
            largest = np.maximum(largest, np.abs(bias))
        drawn = cells.draw(weights, len(x), rng=rng, w_max=largest)
        y = multiplied(operator, x, drawn)
        if bias is None:
            return y
        added = cells.draw(bias, len(x), rng=rng, w_max=largest) if device_bias else np.broadcast_to(bias, (len(x), len(bias)))
        return y + added[:, :, None, None]

    return Case(name=name, in_shape=in_shape, operators=(operator,), sample=sample, settings=spec)


def multiplied(operator: MatrixOperator, x: Array, drawn: Array) -> Array:
    """Return `(n, O, oh, ow)` by the naive convolution; a transposed one is a convolution of the input spread out with zeros."""
    if isinstance(operator, Conv):
        g = operator.geometry
        wide = x.reshape(len(x), *g.in_shape)
        return convolve(wide, drawn.reshape(len(x), *g.weight_shape), stride=g.stride, dilation=g.dilation, pads=g.pads, groups=g.groups)
    assert isinstance(operator, ConvTranspose)
    g = operator.geometry  # stride 2, kernel 2: spread with one zero between, one around, kernels flipped
    spread = np.zeros((len(x), g.out_shape[0], 2 * g.out_shape[1] + 1, 2 * g.out_shape[2] + 1))
    spread[:, :, 1::2, 1::2] = x
    return convolve(spread, drawn[:, :, :, ::-1, ::-1], groups=g.groups)


def layer(*, bias: bool = True, spatial: int = 2, **geometry: object) -> Conv:
    shape = ConvGeometry(**geometry)  # type: ignore[arg-type]
    return Conv(0.4 * RANDOM.normal(size=shape.weight_shape), 0.5 * RANDOM.normal(size=shape.n_out) if bias else None, shape, spatial)


def cells(error_rel: float = 0.1, *, clip: bool = False, used: float = 0.8, per_column: bool = False) -> CellOracle:
    return CellOracle(g_max_siemens=G_MAX, g_used_siemens=used * G_MAX, error_rel=error_rel, clip=clip, per_column=per_column)


def uneven(conv: Conv) -> Conv:
    """Columns of very different largest weights, so that a factor of their own matters."""
    factors = np.geomspace(0.2, 2.0, conv.n_columns).reshape(-1, 1, 1, 1)
    return Conv(conv.weights * factors, conv.bias, conv.geometry, conv.spatial)


def matrix_cases() -> list[Case]:
    strided = layer(in_shape=(2, 5, 5), n_out=3, kernel=(3, 3), stride=(2, 2), pads=(1, 1, 1, 1))
    lopsided = layer(in_shape=(2, 4, 5), n_out=2, kernel=(3, 2), stride=(2, 1), pads=(2, 0, 0, 1))
    grouped = layer(in_shape=(4, 4, 4), n_out=4, kernel=(3, 3), pads=(1, 1, 1, 1), groups=2, bias=False)
    dilated = layer(in_shape=(2, 5, 5), n_out=2, kernel=(2, 2), dilation=(2, 2))
    depthwise = layer(in_shape=(3, 4, 4), n_out=3, kernel=(2, 2), groups=3)
    geometry = ConvGeometry(in_shape=(4, 4, 4), n_out=2, kernel=(2, 2), stride=(2, 2), groups=2)
    transposed = ConvTranspose(0.4 * RANDOM.normal(size=(4, 1, 2, 2)), 0.5 * RANDOM.normal(size=4), geometry)
    linear = layer(in_shape=(9, 1, 1), n_out=5, spatial=0)
    return [
        matrix_case("linear", linear, (9,), cells()),
        matrix_case("linear_clipped", linear, (9,), cells(clip=True)),
        matrix_case("linear_device_bias", linear, (9,), cells(clip=True), device_bias=True),
        matrix_case("conv_strided_padded", strided, (2, 5, 5), cells()),
        matrix_case("conv_lopsided", lopsided, (2, 4, 5), cells()),
        matrix_case("conv_device_bias", strided, (2, 5, 5), cells(), device_bias=True),
        matrix_case("conv_per_column", uneven(strided), (2, 5, 5), cells(per_column=True)),
        matrix_case("conv_grouped", grouped, (4, 4, 4), cells()),
        matrix_case("conv_depthwise", depthwise, (3, 4, 4), cells()),
        matrix_case("conv_dilated", dilated, (2, 5, 5), cells()),
        matrix_case("conv_clipped", strided, (2, 5, 5), cells(0.2, clip=True)),
        matrix_case("conv_clipped_per_column_device_bias", uneven(strided), (2, 5, 5), cells(clip=True, per_column=True), device_bias=True),
        matrix_case("conv_transposed", transposed, (2, 2, 2), cells(clip=True)),
    ]


# Everything else


def pointwise(name: str, operator: Operator, function: Callable[[Array], Array], spread: float = 1.0) -> Case:
    return Case(name=name, in_shape=(12,), operators=(operator,), sample=lambda x, rng: function(x), spread=spread)


def squares(size: int) -> Window:
    return Window(in_size=(size, size), out_size=(size // 2, size // 2), kernel=(2, 2), stride=(2, 2))


EXACT = [
    Case(name="average_pool", in_shape=(2, 4, 4), operators=(AveragePool(squares(4)),), sample=lambda x, rng: average_pool(x, 2)),
    pointwise("relu", Relu(), lambda x: np.maximum(x, 0.0)),
    pointwise("relu_far_from_the_kink", Relu(), lambda x: np.maximum(x, 0.0), spread=0.3),
    pointwise("leaky_relu", LeakyRelu(0.1), lambda x: np.where(x > 0.0, x, 0.1 * x)),
    pointwise("clip", Clip(-1.0, 0.5), lambda x: np.clip(x, -1.0, 0.5)),
    pointwise("relu6", Clip(0.0, 6.0), lambda x: np.clip(x, 0.0, 6.0), spread=4.0),
    pointwise("tanh", Tanh(), np.tanh),
    pointwise("sigmoid", Sigmoid(), expit, spread=2.0),
    pointwise("gelu", Gelu(), lambda x: 0.5 * x * (1.0 + erf(x / np.sqrt(2.0)))),
    Case(
        name="skip_over_relu", in_shape=(12,), operators=(Relu(), Add()), wiring=((0,), (1, 0)),
        sample=lambda x, rng: x + np.maximum(x, 0.0),
    ),
    Case(
        name="nested_skips", in_shape=(12,), operators=(Relu(), Add(), Add((1.0, -1.0))), wiring=((0,), (1, 0), (2, 1)),
        sample=lambda x, rng: x,  # (x + relu x) - relu x
    ),
    Case(
        name="concat_of_both", in_shape=(6,), operators=(Relu(), Concat(0, (6, 6))), wiring=((0,), (0, 1)),
        sample=lambda x, rng: np.concatenate([x, np.maximum(x, 0.0)], axis=1),
    ),
    *matrix_cases(),
]
each_exact = pytest.mark.parametrize("case", EXACT, ids=lambda case: case.name)


@each_exact
def test_mean_and_covariance_are_those_of_samples(case: Case) -> None:
    found = agreement(case, N_CI)
    assert found.worst < Z_LIMIT, found


@pytest.mark.slow
@each_exact
def test_mean_and_covariance_are_those_of_a_million_samples(case: Case) -> None:
    found = agreement(case, N_SLOW)
    assert found.worst < Z_LIMIT, found


def test_precompensated_cells_are_without_bias() -> None:
    """The oracle finds each target by bracketing `E max(g + s z, 0) = wanted + s / sqrt(2 pi)`."""
    operator, noise = layer(in_shape=(6, 1, 1), n_out=3, spatial=0, bias=False), 0.1 * G_MAX
    scale = 0.8 * G_MAX / np.abs(operator.weights).max()

    def target(wanted: float) -> float:
        def excess(g: float) -> float:
            return g * norm.cdf(g / noise) + noise * norm.pdf(g / noise) - noise / np.sqrt(2 * np.pi) - wanted

        return brentq(excess, 0.0, wanted + noise) if wanted > 0.0 else 0.0

    asked = {s: np.vectorize(target)(np.maximum(s * operator.weights, 0.0) * scale) for s in (1.0, -1.0)}

    def sample(x: Array, rng: np.random.Generator) -> Array:
        plus, minus = (np.maximum(asked[s] + noise * rng.standard_normal((len(x), *asked[s].shape)), 0.0) for s in (1.0, -1.0))
        return np.einsum("noj,nj->no", ((plus - minus) / scale)[..., 0, 0], x)

    settings = ("cell.programming.error_rel=0.1", f"mapping.g_used_siemens={0.8 * G_MAX}", "mapping.precompensate=true")
    case = Case(name="precompensated", in_shape=(6,), operators=(operator,), sample=sample, settings=settings)
    assert agreement(case, N_CI).worst < Z_LIMIT


CLARK = Case(name="max_pool", in_shape=(2, 4, 4), operators=(MaxPool(squares(4)),), sample=lambda x, rng: max_pool(x, 2))


def check_clark(n_samples: int) -> None:
    """Clark's tournament over four takes each winner as Gaussian, and its covariances from gains alone.

    Measured with 2e5 samples: mean within noise, trace +0.01 %, sum of all elements +0.4 %, Frobenius distance 1.0 % of the norm.
    """
    found = agreement(CLARK, n_samples)
    assert abs(found.trace_rel) < 0.01, found
    assert abs(found.total_rel) < 0.01, found
    assert found.frobenius_rel < 0.03, found


def test_max_pooling_is_clarks_approximation() -> None:
    check_clark(N_CI)


@pytest.mark.slow
def test_max_pooling_is_clarks_approximation_with_a_million_samples() -> None:
    check_clark(N_SLOW)


def test_a_small_noisy_value_is_added_to_a_larger_exact_one() -> None:
    """Broadcasting: each of the four sums of a row has the whole variance of the row's one noisy value."""
    shapes: tuple[Shape, ...] = ((3, 4), (3, 1))
    nodes = [Node(name=f"source{i}", operator=Reshape(s), inputs=(INPUT,), shape=s) for i, s in enumerate(shapes)]
    nodes.append(Node(name="sum", operator=Add(), inputs=(0, 1), shape=(3, 4)))
    image = _Image(Network(name="sum", digest="", input_shape=(3, 4), nodes=tuple(nodes), output=2), {})
    image.means |= {0: np.zeros((3, 4, 1)), 1: np.ones((3, 1, 1))}
    image.blocks[1, 1] = np.diag([1.0, 2.0, 3.0])
    image._add(2, nodes[2])
    np.testing.assert_allclose(image.blocks[2, 2], np.kron(np.diag([1.0, 2.0, 3.0]), np.ones((4, 4))))


# Negative controls


def named(name: str) -> Case:
    return next(case for case in EXACT if case.name == name)


def test_kernel_noise_that_is_independent_by_position_is_found_out(monkeypatch: pytest.MonkeyPatch) -> None:
    right = full.kernel_noise

    def independent(operator: MatrixOperator, variance: Array, second: Array) -> Array:
        noise = right(operator, variance, second)
        return noise * np.eye(noise.shape[-1])

    monkeypatch.setattr(full, "kernel_noise", independent)
    found = agreement(named("conv_strided_padded"), N_CI)
    assert found.frobenius > 10
    assert abs(found.trace) < Z_LIMIT, "each element's own variance does not show the mistake"


def test_theory_without_clipping_is_found_out_on_clipped_devices() -> None:
    right = named("conv_clipped")
    wrong = Case(
        name="unclipped", in_shape=right.in_shape, operators=right.operators, sample=right.sample,
        settings=(*right.settings, "cell.programming.clip=false"),
    )  # fmt: skip
    found = agreement(wrong, N_CI)
    assert abs(found.mean) > 10
    assert abs(found.trace) > 10


def test_a_hard_step_as_relu_gain_is_found_out(monkeypatch: pytest.MonkeyPatch) -> None:
    def hard(operator: Operator, mean: Array, covariance: Array, shape: Shape) -> Array:
        on = (mean > 0.0).astype(np.float64)
        return covariance * np.outer(on, on)

    monkeypatch.setattr(full, "_ramp_covariance", hard)
    found = agreement(named("relu"), N_CI)
    assert found.frobenius > 10
    assert found.frobenius_rel > 0.1


def test_independent_skips_are_found_out(monkeypatch: pytest.MonkeyPatch) -> None:
    right = _Image._add

    def apart(self: _Image, i: int, node: Node) -> None:
        if isinstance(node.operator, Add):
            for pair in (node.inputs, node.inputs[::-1]):
                self.blocks.pop(pair, None)
        right(self, i, node)

    monkeypatch.setattr(_Image, "_add", apart)
    found = agreement(named("skip_over_relu"), N_CI)
    assert found.trace > 10
    assert found.trace_rel < -0.2
