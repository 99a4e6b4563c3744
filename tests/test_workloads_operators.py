"""Every operator keeps the contract of `workloads.operators.base`, and the Gaussian rules agree with sampling."""

from dataclasses import dataclass
from math import factorial

import numpy as np
import pytest
from scipy.integrate import quad
from scipy.sparse import csr_array

from workloads.operators.activation import Elementwise
from workloads.operators.base import Array, LinearOperator, Operator, Shape, join_lanes, split_lanes
from workloads.operators.merge import Add, Affine, Concat, Mul
from workloads.operators.normalization import LRN, LogSoftmax, Softmax, Standardize
from workloads.operators.piecewise import Abs, Clip, HardSigmoid, LeakyRelu, PRelu, Relu
from workloads.operators.pooling import AveragePool, MaxPool, Window
from workloads.operators.reduce import ReduceMax, ReduceMean, ReduceSum
from workloads.operators.reshape import Gather, Pad, Reshape, Slice, Transpose
from workloads.operators.resize import Resize
from workloads.operators.smooth import Elu, Erf, Exp, Gelu, HardSwish, Mish, Sigmoid, SiLU, Softplus, Softsign, Tanh
from workloads.operators.tournament import tournament

N_IMAGES, N_TANGENTS = 3, 4
FLOAT64_ROUNDING = 1e-10
"""Sums of at most a few thousand float64 terms of order 1 lose less than this."""


@dataclass(frozen=True, eq=False)
class Case:
    """An operator and the sample shapes it is tried on."""

    name: str
    operator: Operator
    shapes: tuple[Shape, ...]

    def inputs(self, rng: np.random.Generator, *, lanes: int = N_IMAGES) -> tuple[Array, ...]:
        return tuple(rng.normal(size=(*s, lanes)) * 1.5 for s in self.shapes)


def window(
    size: tuple[int, int], kernel: tuple[int, int], *, out: tuple[int, int],
    stride: tuple[int, int] = (1, 1), dilation: tuple[int, int] = (1, 1), pads: tuple[int, int, int, int] = (0, 0, 0, 0),
) -> Window:
    return Window(in_size=size, out_size=out, kernel=kernel, stride=stride, dilation=dilation, pads=pads)


RANDOM = np.random.default_rng(5)
RAMPS: list[Elementwise] = [
    Relu(), LeakyRelu(0.1), LeakyRelu(-0.3), Clip(0.0, 6.0), Clip(-1.0, 0.5), Clip(None, 0.3), Clip(-0.2, None), HardSigmoid(), Abs(),
]
SMOOTH: list[Elementwise] = [
    Sigmoid(), Tanh(), Softplus(), Softsign(), SiLU(), SiLU(0.5), HardSwish(), Mish(), Gelu(), Gelu("tanh"), Elu(), Elu(0.4),
    Elu(1.67326319, 1.05070102), Erf(), Exp(),
]
POOLS = {
    "2x2": window((6, 6), (2, 2), out=(3, 3), stride=(2, 2)),
    "overlapping": window((7, 6), (3, 3), out=(4, 3), stride=(2, 2), pads=(1, 1, 1, 1)),
    "rounded_up": window((6, 5), (3, 2), out=(3, 3), stride=(2, 2)),
    "dilated": window((7, 8), (3, 2), out=(3, 6), dilation=(2, 2)),
    "lopsided": window((5, 5), (3, 3), out=(3, 3), stride=(2, 2), pads=(0, 0, 1, 1)),
}
INTERPOLATION = csr_array(np.array([[1.0, 0.0], [0.7, 0.3], [0.2, 0.8]]))
CASES = [
    *(Case(f"{op.kind}_{i}", op, ((3, 4),)) for i, op in enumerate(RAMPS + SMOOTH)),
    Case("PRelu", PRelu(RANDOM.random((3, 1))), ((3, 4),)),
    *(Case(f"MaxPool_{k}", MaxPool(w), ((2, *w.in_size),)) for k, w in POOLS.items()),
    *(Case(f"AveragePool_{k}_{p}", AveragePool(w, include_pad=p), ((2, *w.in_size),)) for k, w in POOLS.items() for p in (False, True)),
    Case("MaxPool_1d", MaxPool(window((1, 7), (1, 3), out=(1, 3), stride=(1, 2)), spatial=1), ((2, 7),)),
    Case("AveragePool_1d", AveragePool(window((1, 7), (1, 3), out=(1, 3), stride=(1, 2)), spatial=1), ((2, 7),)),
    Case("Add", Add(), ((3, 4), (3, 4))),
    Case("Add_three", Add((1.0, 1.0, 1.0)), ((3, 4), (3, 1), (1, 4))),
    Case("Sub_broadcast", Add((1.0, -1.0)), ((3, 4), (3, 1))),
    Case("Mul", Mul(), ((3, 4), (3, 4))),
    Case("Mul_broadcast", Mul(), ((3, 2, 4), (1, 2, 4))),
    Case("Mul_grow_both", Mul(), ((3, 1), (1, 4))),
    Case("Affine", Affine(RANDOM.normal(size=(3, 1)), RANDOM.normal(size=(4,))), ((3, 4),)),
    Case("Affine_grows", Affine(RANDOM.normal(size=(3, 4))), ((1, 4),)),
    Case("Affine_shift", Affine(None, RANDOM.normal(size=(3, 4))), ((3, 1),)),
    Case("Concat", Concat(1, (4, 2, 1)), ((3, 4), (3, 2), (3, 1))),
    Case("Reshape", Reshape((2, 6)), ((3, 4),)),
    Case("Transpose", Transpose((2, 0, 1)), ((2, 3, 4),)),
    Case("Slice", Slice((slice(None), slice(1, None, 2))), ((3, 5),)),
    Case("Slice_backwards", Slice((slice(None, None, -1), slice(0, 3))), ((3, 5),)),
    Case("Gather_repeats", Gather(1, np.array([2, 0, 0, 1])), ((3, 4),)),
    Case("Gather_scalar", Gather(0, np.array(1)), ((3, 4),)),
    Case("Gather_table", Gather(1, np.array([[0, 3], [1, 1]])), ((3, 4),)),
    Case("Pad", Pad(((1, 0), (2, 1)), 0.5), ((3, 4),)),
    Case("Pad_crops", Pad(((0, -1), (-1, 2))), ((3, 4),)),
    Case("Resize", Resize((None, INTERPOLATION, INTERPOLATION)), ((2, 2, 2),)),
    Case("ReduceSum", ReduceSum((0, 2)), ((2, 3, 4),)),
    Case("ReduceSum_drops", ReduceSum((1,), keepdims=False), ((2, 3, 4),)),
    Case("ReduceMean", ReduceMean((1, 2)), ((2, 3, 4),)),
    Case("ReduceMax", ReduceMax((1, 2)), ((2, 3, 4),)),
    Case("ReduceMax_drops", ReduceMax((0, 2), keepdims=False), ((2, 3, 4),)),
    Case("ReduceMax_channels", ReduceMax((0,)), ((5, 3),)),
    Case("Softmax", Softmax((0,)), ((4, 3),)),
    Case("Softmax_two_axes", Softmax((0, 1)), ((4, 3),)),
    Case("LogSoftmax", LogSoftmax((1,)), ((4, 3),)),
    Case("LayerNorm", Standardize((0, 1), 1e-3, RANDOM.normal(size=(3, 4)), RANDOM.normal(size=(3, 4))), ((3, 4),)),
    Case("InstanceNorm", Standardize((1,), 1e-3, RANDOM.normal(size=(3, 1)), None), ((3, 4),)),
    Case("LRN_odd", LRN(3, 0.2, 0.75, 1.0), ((5, 2),)),
    Case("LRN_even", LRN(4, 0.2, 0.5, 2.0), ((6, 2),)),
]
each_case = pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
each_ramp = pytest.mark.parametrize("operator", RAMPS, ids=lambda op: op.kind)
each_activation = pytest.mark.parametrize("operator", RAMPS + SMOOTH, ids=lambda op: op.kind)


@each_case
def test_the_output_has_the_announced_shape_and_the_input_is_left_alone(case: Case) -> None:
    inputs = case.inputs(np.random.default_rng(0))
    before = [x.copy() for x in inputs]
    y = case.operator.forward(*inputs)
    assert y.shape == (*case.operator.out_shape(*case.shapes), N_IMAGES)
    for x, kept in zip(inputs, before):
        np.testing.assert_array_equal(x, kept)


@each_case
def test_float32_stays_float32_and_float64_stays_float64(case: Case) -> None:
    for dtype in (np.float32, np.float64):
        inputs = tuple(x.astype(dtype) for x in case.inputs(np.random.default_rng(0)))
        y = case.operator.forward(*inputs)
        step = case.operator.linearize(inputs, y)
        assert y.dtype == dtype
        assert step.push(inputs).dtype == dtype
        assert all(x is None or x.dtype == dtype for x in step.pull(y))
        tangents = tuple(np.concatenate([x] * 2, axis=-1) for x in inputs)
        moments = case.operator.over_gaussian(inputs, tuple(np.abs(x) for x in inputs), tangents)
        assert moments.mean.dtype == moments.variance.dtype == dtype
        assert moments.gain.push(inputs).dtype == dtype


@each_case
def test_each_image_is_on_its_own(case: Case) -> None:
    inputs = case.inputs(np.random.default_rng(0))
    together = case.operator.forward(*inputs)
    for b in range(N_IMAGES):
        alone = case.operator.forward(*(np.ascontiguousarray(x[..., b : b + 1]) for x in inputs))
        np.testing.assert_allclose(alone[..., 0], together[..., b], rtol=1e-12, atol=1e-12)


def assert_adjoint(step, case: Case, rng: np.random.Generator) -> None:  # type: ignore[no-untyped-def]
    lanes = N_TANGENTS * N_IMAGES
    tangents = case.inputs(rng, lanes=lanes)
    pushed = step.push(tangents)
    delta = rng.normal(size=(*case.operator.out_shape(*case.shapes), lanes))
    assert pushed.shape == delta.shape
    pulled = step.pull(delta)
    assert [None if p is None else p.shape for p in pulled] == [t.shape for t in tangents]
    ahead = (pushed * delta).reshape(-1, lanes).sum(axis=0)
    back = sum((t * p).reshape(-1, lanes).sum(axis=0) for t, p in zip(tangents, pulled))
    np.testing.assert_allclose(ahead, back, rtol=FLOAT64_ROUNDING, atol=FLOAT64_ROUNDING)


@each_case
def test_pushing_and_pulling_are_adjoint(case: Case) -> None:
    rng = np.random.default_rng(1)
    inputs = case.inputs(rng)
    assert_adjoint(case.operator.linearize(inputs, case.operator.forward(*inputs)), case, rng)


@each_case
def test_the_gain_over_a_gaussian_is_adjoint_too(case: Case) -> None:
    rng = np.random.default_rng(2)
    inputs, tangents = case.inputs(rng), case.inputs(rng, lanes=N_TANGENTS * N_IMAGES)
    variances = tuple((split_lanes(t, N_IMAGES) ** 2).mean(axis=-2) for t in tangents)
    step = case.operator.over_gaussian(inputs, variances, tangents)
    assert step.mean.shape == step.variance.shape == (*case.operator.out_shape(*case.shapes), N_IMAGES)
    assert np.all(step.variance >= 0)
    assert_adjoint(step.gain, case, rng)


@each_case
def test_the_push_is_the_finite_difference(case: Case) -> None:
    """Central differences of step h are off by h^2 f'''/6, and by 1e-16/h from rounding: 1e-9 at h = 1e-5."""
    rng, h = np.random.default_rng(3), 1e-5
    inputs, tangents = case.inputs(rng), case.inputs(rng)
    pushed = case.operator.linearize(inputs, case.operator.forward(*inputs)).push(tangents)
    ahead, behind = (case.operator.forward(*(x + s * h * t for x, t in zip(inputs, tangents))) for s in (1, -1))
    np.testing.assert_allclose(pushed, (ahead - behind) / (2 * h), rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("case", [c for c in CASES if len(c.shapes) > 1], ids=lambda case: case.name)
def test_an_absent_tangent_counts_as_zero(case: Case) -> None:
    rng = np.random.default_rng(4)
    inputs, tangents = case.inputs(rng), case.inputs(rng)
    step = case.operator.linearize(inputs, case.operator.forward(*inputs))
    for i in range(len(inputs)):
        some = tuple(t if j == i else None for j, t in enumerate(tangents))
        zeros = tuple(t if j == i else np.zeros_like(t) for j, t in enumerate(tangents))
        np.testing.assert_allclose(step.push(some), step.push(zeros))


@pytest.mark.parametrize("case", [c for c in CASES if isinstance(c.operator, LinearOperator)], ids=lambda case: case.name)
def test_a_linear_operator_gives_the_exact_gaussian_mean(case: Case) -> None:
    rng = np.random.default_rng(5)
    inputs, tangents = case.inputs(rng), case.inputs(rng, lanes=N_TANGENTS * N_IMAGES)
    step = case.operator.over_gaussian(inputs, tuple(np.ones_like(x) for x in inputs), tangents)
    np.testing.assert_allclose(step.mean, case.operator.forward(*inputs))
    assert step.exact


def integral(function, mean: float, std: float, kinks: tuple[float, ...]) -> float:  # type: ignore[no-untyped-def]
    """Return E g(mean + std z, z) by adaptive quadrature between the kinks."""
    points = sorted({max(-9.0, min(9.0, (k - mean) / std)) for k in kinks} | {0.0})

    def weighted(z: float) -> float:
        return function(mean + std * z, z) * np.exp(-0.5 * z * z) / np.sqrt(2 * np.pi)

    return quad(weighted, -9, 9, points=points, limit=200, epsabs=1e-11)[0]


MEANS_AND_STDS = [(0.0, 1.0), (0.7, 0.2), (-1.4, 0.9), (2.5, 1.5), (-3.0, 0.4), (5.9, 0.5)]
KINKS = (-3.0, -2.5, -1.0, -0.2, 0.0, 0.3, 0.5, 2.5, 3.0, 6.0)


@each_activation
@pytest.mark.parametrize(("mean", "std"), MEANS_AND_STDS)
def test_gaussian_moments_agree_with_adaptive_quadrature(operator: Elementwise, mean: float, std: float) -> None:
    """Ramps are exact; 24 Gauss-Hermite nodes hold 1e-4 of the spread for what is smooth on the scale of s."""

    def value(x: float) -> float:
        return float(operator.value(np.array([x]))[0])

    m, v, gain = (float(a[0, 0]) for a in operator.moments(np.full((1, 1), mean), np.full((1, 1), std**2)))
    expected = integral(lambda x, z: value(x), mean, std, KINKS)
    spread = integral(lambda x, z: (value(x) - expected) ** 2, mean, std, KINKS)
    slope = integral(lambda x, z: value(x) * z, mean, std, KINKS) / std
    tolerance = 1e-8 if operator in RAMPS else 2e-3
    scale = max(np.sqrt(spread), 1e-3 * std)
    assert m == pytest.approx(expected, abs=tolerance * scale)
    assert v == pytest.approx(spread, abs=tolerance * scale**2)
    assert gain == pytest.approx(slope, abs=tolerance * scale / std * 3)


@each_activation
def test_hermite_coefficients_are_the_integrals_they_stand_for(operator: Elementwise) -> None:
    mean, std = 0.4, 0.8

    def value(x: float) -> float:
        return float(operator.value(np.array([x]))[0])

    found = operator.hermite_coefficients(np.full((1, 1), mean, np.float32), np.full((1, 1), std**2, np.float32), 5)
    assert found.shape == (6, 1, 1)
    assert found.dtype == np.float64
    for k, coefficient in enumerate(found[:, 0, 0]):
        he = np.polynomial.hermite_e.HermiteE.basis(k)
        expected = integral(lambda x, z, he=he: value(x) * he(z), mean, std, KINKS)
        assert coefficient == pytest.approx(expected, abs=3e-3 * np.sqrt(factorial(k)))


@each_activation
def test_mehlers_series_sums_to_the_variance(operator: Elementwise) -> None:
    mean, variance = np.linspace(-2, 2, 9)[:, None], np.full((9, 1), 0.25)
    terms = operator.hermite_coefficients(mean, variance, 14)
    series = sum(terms[k] ** 2 / factorial(k) for k in range(1, 15))
    _, spread, _ = operator.moments(mean, variance)
    np.testing.assert_allclose(series, spread, atol=0.01 * spread.max())
    assert np.all(series <= spread * (1 + 1e-3) + 1e-12)


@each_activation
def test_without_variance_the_moments_are_the_function_itself(operator: Elementwise) -> None:
    x = np.array([[-7.0, -3.0, -1.0, 0.0, 0.3], [0.5, 1.0, 3.0, 6.0, 8.0]])
    mean, variance, gain = operator.moments(x, np.zeros_like(x))
    np.testing.assert_allclose(mean, operator.value(x), atol=1e-12)
    np.testing.assert_array_equal(variance, 0)
    away = np.all(np.abs(x[..., None] - np.array(KINKS)) > 1e-9, axis=-1)
    np.testing.assert_allclose(gain[away], operator.slope(x)[away], rtol=1e-6)
    assert np.all(np.isfinite(operator.hermite_coefficients(x, np.zeros_like(x), 6)))


@each_ramp
def test_moments_hold_their_digits_in_float32_far_from_the_kinks(operator: Elementwise) -> None:
    mean, variance = np.full((1, 1), 1000.0, np.float32), np.full((1, 1), 1e-4, np.float32)
    _, found, gain = operator.moments(mean, variance)
    slope = float(operator.slope(np.full((1, 1), 1000.0))[0, 0])
    assert float(gain[0, 0]) == pytest.approx(slope)
    assert float(found[0, 0]) == pytest.approx(slope**2 * 1e-4, rel=1e-5)


def test_prelu_moments_follow_each_channels_slope() -> None:
    slopes = np.array([[0.0], [0.25], [1.0]])
    mean, variance = np.full((3, 1, 1), -0.3), np.full((3, 1, 1), 0.5)
    found = PRelu(slopes).moments(mean, variance)
    for c, alpha in enumerate((0.0, 0.25, 1.0)):
        expected = LeakyRelu(alpha).moments(mean[c], variance[c])
        np.testing.assert_allclose([a[c] for a in found], expected)


def z_scores(found: Array, samples: Array) -> Array:
    """Return the distance of means from sample means (last axis), in standard errors."""
    return (found - samples.mean(axis=-1)) / (samples.std(axis=-1) / np.sqrt(samples.shape[-1]) + 1e-12)


@each_ramp
def test_ramp_moments_agree_with_sampling(operator: Elementwise) -> None:
    """24 z-scores at a fixed seed: the largest of as many normal numbers exceeds 4.5 once in 6000."""
    rng = np.random.default_rng(7)
    mean, variance = rng.normal(size=(12, 1)) * 2, rng.random((12, 1)) * 2
    z = rng.normal(size=(12, 200_000))
    y = operator.value(mean + np.sqrt(variance) * z)
    m, v, _ = operator.moments(mean, variance)
    assert np.abs(z_scores(m[:, 0], y)).max() < 4.5
    assert np.abs(z_scores(v[:, 0], (y - m) ** 2)).max() < 4.5


def test_z_scores_find_the_moments_of_a_hard_step() -> None:
    """The negative control: a ReLU that forgets the spread (mean max(m, 0), variance s^2 where m > 0) must fail."""
    rng = np.random.default_rng(7)
    mean, variance = rng.normal(size=(12, 1)), np.full((12, 1), 1.0)
    y = Relu().value(mean + rng.normal(size=(12, 200_000)))
    assert np.abs(z_scores(np.maximum(mean, 0)[:, 0], y)).max() > 10
    assert np.abs(z_scores(np.where(mean > 0, variance, 0)[:, 0], (y - y.mean(axis=1, keepdims=True)) ** 2)).max() > 10


def test_relu_residual_is_uncorrelated_with_the_tangent() -> None:
    """`f = E f + S t + r` with E r t = 0 is what the gain means."""
    rng = np.random.default_rng(8)
    mean, std, z = 0.3, 0.7, rng.normal(size=400_000)
    m, _, gain = (a[0, 0] for a in Relu().moments(np.full((1, 1), mean), np.full((1, 1), std**2)))
    residual = Relu().value(mean + std * z) - m - gain * std * z
    assert abs((residual * z).mean()) < 4.5 * (residual * z).std() / np.sqrt(len(z))


def correlated(rng: np.random.Generator, n: int, n_images: int) -> tuple[Array, Array]:
    """Return means `(n, B)` and mixing matrices `(n, n, B)` of Gaussian vectors with a common part."""
    return rng.normal(size=(n, n_images)), 0.5 * rng.normal(size=(n, n, n_images)) + 0.4 * rng.normal(size=(1, n, n_images))


def test_the_maximum_of_two_gaussians_is_exact() -> None:
    rng = np.random.default_rng(9)
    mean, mix = correlated(rng, 2, 6)
    tangents = np.einsum("ijb,jkb->ikb", mix, rng.normal(size=(2, 200_000, 6)))
    variance = (mix**2).sum(axis=1)
    m, v, gains = tournament(mean, variance, tangents.reshape(2, -1))
    samples = np.moveaxis((mean[:, None] + tangents).max(axis=0), 0, -1)
    assert np.abs(z_scores(m, samples)).max() < 4.5
    assert np.abs(z_scores(v, (samples - m[:, None]) ** 2)).max() < 4.5
    wins = np.moveaxis((mean[0] + tangents[0] > mean[1] + tangents[1]).astype(float), 0, -1)
    assert np.abs(z_scores(gains[0], wins)).max() < 4.5
    np.testing.assert_allclose(gains.sum(axis=0), 1)


def test_the_maximum_of_nine_gaussians_is_close() -> None:
    """Winners are not Gaussian: the mean is off by at most 0.05 standard deviations, the variance 2 % to 8 % low (a known error)."""
    rng = np.random.default_rng(10)
    mean, mix = correlated(rng, 9, 40)
    tangents = np.einsum("ijb,jkb->ikb", mix, rng.normal(size=(9, 20_000, 40)))
    m, v, gains = tournament(mean, (mix**2).sum(axis=1), tangents.reshape(9, -1))
    samples = (mean[:, None] + tangents).max(axis=0)
    assert np.abs(m - samples.mean(axis=0)).max() < 0.06 * samples.std(axis=0).max()
    assert 0.90 < v.mean() / samples.var(axis=0).mean() < 1.0
    wins = (mean[:, None] + tangents == samples).mean(axis=1)
    assert np.abs(gains - wins).mean() < 0.05


def test_a_tournament_without_spread_selects() -> None:
    mean = np.array([[1.0], [3.0], [-np.inf], [2.0], [3.0]])
    m, v, gains = tournament(mean, np.zeros_like(mean), np.zeros((5, 4)))
    assert (m.item(), v.item()) == (3.0, 0.0)
    assert sorted(gains[:, 0].tolist()) == [0.0, 0.0, 0.0, 0.0, 1.0]


def test_padding_never_wins_a_max_pool() -> None:
    w = POOLS["lopsided"]
    x = np.full((1, 5, 5, 2), -9.0)
    tangents = np.random.default_rng(0).normal(size=(1, 5, 5, 8))
    step = MaxPool(w).over_gaussian((x,), (np.ones_like(x),), (tangents,))
    assert np.all(np.isfinite(step.mean))
    assert np.all(MaxPool(w).forward(x) == -9)
    ones = step.gain.push((np.ones_like(x),))
    np.testing.assert_allclose(ones, 1)


def test_max_pool_over_a_narrow_gaussian_is_the_pool_itself() -> None:
    rng = np.random.default_rng(11)
    x, tangents = rng.normal(size=(2, 6, 6, 3)), 1e-6 * rng.normal(size=(2, 6, 6, 12))
    pool = MaxPool(POOLS["2x2"])
    step = pool.over_gaussian((x,), (np.full_like(x, 1e-12),), (tangents,))
    y = pool.forward(x)
    np.testing.assert_allclose(step.mean, y, atol=1e-5)
    probe = rng.normal(size=(2, 6, 6, 3))
    np.testing.assert_allclose(step.gain.push((probe,)), pool.linearize((x,), y).push((probe,)), atol=1e-6)


def test_the_product_of_two_gaussians_is_exact() -> None:
    """With c from 2e5 tangents; both means non-zero, correlation 0.6."""
    rng = np.random.default_rng(12)
    n, mx, my = 200_000, 0.8, -0.5
    t1 = 0.7 * rng.normal(size=n)
    t2 = 0.6 * t1 + 0.5 * rng.normal(size=n)
    inputs = (np.full((1, 1), mx), np.full((1, 1), my))
    tangents = (t1[None], t2[None])
    variances = (np.full((1, 1), 0.49), np.full((1, 1), 0.36 * 0.49 + 0.25))
    step = Mul().over_gaussian(inputs, variances, tangents)
    y = (mx + t1) * (my + t2)
    assert np.abs(z_scores(step.mean[0], y[None])).max() < 4.5
    assert np.abs(z_scores(step.variance[0], (y[None] - y.mean()) ** 2)).max() < 4.5


def test_a_square_is_a_product_with_itself() -> None:
    m, v = np.full((1, 1), 1.5), np.full((1, 1), 0.3)
    t = np.sqrt(0.3) * np.array([[1.0, -1.0]])
    step = Mul().over_gaussian((m, m), (v, v), (t, t))
    assert step.mean.item() == pytest.approx(1.5**2 + 0.3)
    assert step.variance.item() == pytest.approx(4 * 1.5**2 * 0.3 + 2 * 0.3**2)


def test_lanes_are_outputs_times_images() -> None:
    """Lane r B + b meets the slope of image b."""
    x = np.array([[-1.0, 2.0]])
    step = Relu().linearize((x,), Relu().forward(x))
    tangents = np.array([[1.0, 10.0, 100.0, 1000.0]])
    np.testing.assert_array_equal(step.push((tangents,)), [[0.0, 10.0, 0.0, 1000.0]])
    assert join_lanes(split_lanes(tangents, 2)).shape == tangents.shape
