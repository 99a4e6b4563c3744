"""Convolutions, adjoints and gradient moments against plain einsums over patches in float64."""

from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from workloads import kernels
from workloads.kernels import (
    ConvGeometry,
    conv,
    conv_transposed,
    conv_weight_gradient,
    fresh_read_power,
    weight_gradient_moments,
)
from workloads.operators.base import times_lanes

TOLERANCE = {np.float32: 1e-5, np.float64: 1e-12}  # of the largest entry: a few hundred roundings of 2^-24 or 2^-53
TYPES = pytest.mark.parametrize("dtype", [np.float32, np.float64])
LANES = (1, 3, 8, 16, 17, 64, 100)


def random_geometries(n, seed):
    """Geometries that fit, of all kinds in turn: strides, dilations, uneven pads, groups, depthwise, 1x1 images."""
    rng = np.random.default_rng(seed)
    pair = lambda values: tuple(int(v) for v in rng.choice(values, 2))  # noqa: E731
    found = []
    while len(found) < n:
        groups, depthwise = int(rng.choice([1, 1, 2, 3])), rng.random() < 0.15
        channels = groups if depthwise else groups * int(rng.integers(1, 4))
        n_out = groups if depthwise else int(np.ceil(rng.integers(1, 20) / groups)) * groups
        size = (1, 1) if rng.random() < 0.1 else pair(range(1, 10))
        shape = {"kernel": pair([1, 2, 3, 5]), "stride": pair([1, 2, 3]), "dilation": pair([1, 2])}
        pads = pair(range(3)) + pair(range(3))
        try:
            found.append(ConvGeometry(in_shape=(channels, *size), n_out=n_out, pads=pads, groups=groups, **shape))
        except ValueError:
            continue
    return found


def patches(x, g):
    """The input under every tap, (C, kh, kw, oh, ow, L)."""
    top, left, bottom, right = g.pads
    x = np.pad(x.astype(np.float64), ((0, 0), (top, bottom), (left, right), (0, 0)))
    out = np.empty((x.shape[0], *g.kernel, *g.out_shape[1:], x.shape[3]))
    for a in range(g.kernel[0]):
        for b in range(g.kernel[1]):
            rows = a * g.dilation[0] + g.stride[0] * np.arange(g.out_shape[1])
            columns = b * g.dilation[1] + g.stride[1] * np.arange(g.out_shape[2])
            out[:, a, b] = x[:, rows[:, None], columns]
    return out


def plain_conv(x, w, g):
    p = patches(x, g)
    p, w = p.reshape(g.groups, -1, *p.shape[1:]), w.astype(np.float64).reshape(g.groups, -1, *g.weight_shape[1:])
    return np.einsum("gocab,gcabijl->goijl", w, p).reshape(*g.out_shape, x.shape[3])


def plain_gradient(d, x, g):
    p = patches(np.tile(x, d.shape[3] // x.shape[3]), g)
    p, d = p.reshape(g.groups, -1, *p.shape[1:]), d.astype(np.float64).reshape(g.groups, -1, *d.shape[1:])
    return np.einsum("goijl,gcabijl->gocabl", d, p).reshape(*g.weight_shape, d.shape[-1])


def arrays(g, lanes, dtype, *, n_outputs=1, seed=0):
    rng = np.random.default_rng(seed)
    draw = lambda *shape: rng.standard_normal(shape).astype(dtype)  # noqa: E731
    return draw(*g.in_shape, lanes), draw(*g.weight_shape), draw(*g.out_shape, n_outputs * lanes)


def assert_close(got, want, dtype, slack=1.0):
    assert got.shape == want.shape
    scale = np.abs(want).max() if want.size else 0.0
    assert np.abs(got - want).max(initial=0.0) <= slack * TOLERANCE[dtype] * max(scale, 1e-30)


@TYPES
@pytest.mark.parametrize("lanes", LANES)
def test_conv_is_the_sum_over_patches(lanes, dtype):
    for g in random_geometries(25, seed=lanes):
        x, w, _ = arrays(g, lanes, dtype)
        assert_close(conv(x, w, g), plain_conv(x, w, g), dtype)


@TYPES
@pytest.mark.parametrize("lanes", LANES)
def test_conv_transposed_is_the_adjoint_of_conv(lanes, dtype):
    for g in random_geometries(25, seed=100 + lanes):
        x, w, d = arrays(g, lanes, dtype)
        back = conv_transposed(d, w, g)
        left = np.einsum("oijl,oijl->l", plain_conv(x, w, g), d.astype(np.float64))
        right = np.einsum("chwl,chwl->l", x.astype(np.float64), back.astype(np.float64))
        # each lane's difference is bounded by |x| times the error of `back`
        scale = np.linalg.norm(x.reshape(-1, lanes), axis=0) * np.linalg.norm(back.reshape(-1, lanes).astype(np.float64), axis=0)
        assert np.all(np.abs(left - right) <= TOLERANCE[dtype] * np.maximum(scale, 1e-30))


@pytest.mark.parametrize("lanes", [1, 8, 17])
def test_conv_transposed_is_the_transpose_entry_by_entry(lanes):
    for g in random_geometries(10, seed=200 + lanes):
        _, w, d = arrays(g, lanes, np.float64)
        size = int(np.prod(g.in_shape))
        matrix = plain_conv(np.eye(size).reshape(*g.in_shape, size), w, g).reshape(-1, size)
        want = (matrix.T @ d.reshape(-1, lanes)).reshape(*g.in_shape, lanes)
        assert_close(conv_transposed(d, w, g), want, np.float64)


@TYPES
@pytest.mark.parametrize("n_out", range(1, 20))
def test_a_fully_connected_layer_is_a_matrix_product_for_every_number_of_outputs(n_out, dtype):
    g = ConvGeometry(in_shape=(37, 1, 1), n_out=n_out)
    for lanes in (1, 5, 16, 33, 64, 97, 200):
        x, w, _ = arrays(g, lanes, dtype)
        want = w.reshape(n_out, 37).astype(np.float64) @ x.reshape(37, lanes)
        assert_close(conv(x, w, g).reshape(n_out, lanes), want, dtype)


@TYPES
@pytest.mark.parametrize("lanes", [24, 49, 100])
def test_many_lanes_in_slabs_give_the_same(lanes, dtype, monkeypatch):
    geometries = random_geometries(15, seed=600 + lanes)
    given = [arrays(g, lanes, dtype) for g in geometries]
    at_once = [(conv(x, w, g), conv_transposed(d, w, g)) for g, (x, w, d) in zip(geometries, given)]
    for name in ("_SLAB_LANES_BYTES", "_SLAB_PLANES", "_SLAB_INPUT_BYTES"):
        monkeypatch.setattr(kernels, name, 0)
    for g, (x, w, d), (y, back) in zip(geometries, given, at_once):
        assert np.array_equal(conv(x, w, g), y)
        assert np.array_equal(conv_transposed(d, w, g), back)


def test_a_large_plane_of_many_lanes_takes_the_slabs_and_is_right():
    g = ConvGeometry(in_shape=(16, 17, 16), n_out=5, kernel=(3, 3), pads=(1, 1, 1, 1), stride=(2, 1))
    x, w, _ = arrays(g, 310, np.float32)
    assert kernels._slab_lanes(x.shape, x.itemsize) < 310
    assert_close(conv(x, w, g)[..., -40:], plain_conv(x[..., -40:], w, g), np.float32)


def test_results_go_into_the_array_given_and_stay_inside_it():
    g = ConvGeometry(in_shape=(3, 5, 6), n_out=7, kernel=(3, 3), pads=(1, 0, 1, 2), stride=(1, 2))
    x, w, _ = arrays(g, 21, np.float32)
    size = int(np.prod(g.out_shape)) * 21
    guarded = np.full(size + 200, 7.0, np.float32)
    out = guarded[100:-100].reshape(*g.out_shape, 21)
    assert conv(x, w, g, out) is out
    assert np.array_equal(out, conv(x, w, g))
    assert np.all(guarded[:100] == 7)
    assert np.all(guarded[-100:] == 7)


def test_threads_compute_the_same_bits():
    g = ConvGeometry(in_shape=(6, 9, 8), n_out=10, kernel=(3, 3), pads=(1, 1, 1, 1))
    given = [arrays(g, 32, np.float32, seed=seed) for seed in range(8)]

    def both(arguments):
        x, w, d = arguments
        return conv(x, w, g), weight_gradient_moments(d, x, g, w * w).power

    alone = [both(a) for a in given]
    with ThreadPoolExecutor(2) as pool:
        together = list(pool.map(both, given))
    assert all(np.array_equal(p, q) for a, b in zip(alone, together) for p, q in zip(a, b))


def test_no_lanes_give_no_lanes():
    g = ConvGeometry(in_shape=(2, 4, 4), n_out=3, kernel=(3, 3))
    x, w, _ = arrays(g, 0, np.float32)
    assert conv(x, w, g).shape == (3, 2, 2, 0)


def test_arguments_are_left_as_they_were():
    g = ConvGeometry(in_shape=(3, 5, 6), n_out=4, kernel=(3, 3), pads=(1, 1, 1, 1))
    x, w, d = arrays(g, 16, np.float32)
    before = x.copy(), w.copy(), d.copy()
    conv(x, w, g), conv_transposed(d, w, g), weight_gradient_moments(d, x, g, w * w, covariance=True), fresh_read_power(d, x, g, w * w)
    assert all(np.array_equal(a, b) for a, b in zip(before, (x, w, d)))


@TYPES
@pytest.mark.parametrize("images", [1, 3, 8, 16, 17, 32])
def test_weight_gradients_are_those_of_every_lane(images, dtype):
    rng = np.random.default_rng(images)
    for g in random_geometries(12, seed=300 + images):
        x, _, d = arrays(g, images, dtype, n_outputs=int(rng.integers(1, 7)))
        want = plain_gradient(d, x, g)
        assert_close(conv_weight_gradient(d, x, g), want, dtype)
        start, stop = sorted(int(v) for v in rng.integers(0, g.n_out + 1, 2))
        got = conv_weight_gradient(d, x, g, slice(start, stop))
        assert got.shape == want[start:stop].shape
        assert np.abs(got - want[start:stop]).max(initial=0.0) <= TOLERANCE[dtype] * np.abs(want).max()


def plain_moments(gradient, variance, errors, n_images):
    weighted = (np.sqrt(variance)[..., None] * gradient).reshape(variance.size, -1, n_images)
    return {
        "power": (gradient**2).sum(-1),
        "lane_power": (weighted**2).sum(0).ravel(),
        "covariance": np.einsum("krb,ksb->rsb", weighted, weighted),
        "sketch": errors @ gradient.reshape(variance.size, -1),
    }


@TYPES
@pytest.mark.parametrize("covariance", [False, True])
@pytest.mark.parametrize("images", [1, 3, 16, 17, 32])
def test_moments_are_those_of_the_explicit_gradient(images, covariance, dtype):
    rng = np.random.default_rng(images)
    shapes = [*random_geometries(8, seed=400 + images), ConvGeometry(in_shape=(12, 1, 1), n_out=5)]
    for g in shapes:
        n_outputs, all_lanes = int(rng.integers(1, 7)), rng.random() < 0.3
        x, _, d = arrays(g, images, dtype, n_outputs=n_outputs)
        x = rng.standard_normal((*g.in_shape, n_outputs * images)).astype(dtype) if all_lanes else x
        variance, errors = rng.random(g.weight_shape), rng.standard_normal((3, int(np.prod(g.weight_shape)))).astype(np.float32)
        want = plain_moments(plain_gradient(d, x, g), variance, errors, images)
        got = weight_gradient_moments(d, x, g, variance, covariance=covariance, directions=errors, n_images=images)
        for name in ("power", "lane_power", "sketch", *(("covariance",) if covariance else ())):
            assert getattr(got, name).dtype == np.float64
            assert_close(getattr(got, name), want[name], dtype, slack=4)
        assert (got.covariance is None) == (not covariance)
        assert weight_gradient_moments(d, x, g, variance, n_images=images).sketch is None


def test_moments_of_a_larger_layer_pass_over_several_blocks_of_positions_and_taps(monkeypatch):
    monkeypatch.setattr(kernels, "_BUFFER_BYTES", 1 << 14)
    g = ConvGeometry(in_shape=(8, 19, 17), n_out=10, kernel=(3, 3), pads=(1, 1, 1, 1), groups=2)
    x, _, d = arrays(g, 16, np.float32, n_outputs=3)
    variance = np.random.default_rng(0).random(g.weight_shape)
    want = plain_moments(plain_gradient(d, x, g), variance, np.ones((1, variance.size)), 16)
    got = weight_gradient_moments(d, x, g, variance, covariance=True, directions=np.ones((1, variance.size), np.float32))
    for name, value in want.items():
        assert_close(getattr(got, name), value, np.float32, slack=4)


def test_a_wrong_variance_would_be_noticed():
    g = ConvGeometry(in_shape=(4, 6, 6), n_out=5, kernel=(3, 3), pads=(1, 1, 1, 1))
    x, w, d = arrays(g, 16, np.float32)
    want = plain_moments(plain_gradient(d, x, g), w * w, np.ones((1, w.size)), 16)["lane_power"]
    with pytest.raises(AssertionError):
        assert_close(weight_gradient_moments(d, x, g, np.float32(1.001) * w * w).lane_power, want, np.float32, slack=4)


def test_the_covariance_has_the_lane_powers_on_its_diagonal():
    g = ConvGeometry(in_shape=(4, 6, 6), n_out=5, kernel=(3, 3), pads=(1, 1, 1, 1))
    x, w, d = arrays(g, 20, np.float32, n_outputs=4)
    moments = weight_gradient_moments(d, x, g, w * w, covariance=True)
    assert np.array_equal(np.einsum("rrb->rb", moments.covariance).ravel(), moments.lane_power)
    assert np.array_equal(moments.covariance, moments.covariance.swapaxes(0, 1))


@TYPES
def test_fresh_read_noise_adds_over_positions(dtype):
    for g in random_geometries(12, seed=500):
        x, _, d = arrays(g, 12, dtype, n_outputs=3)
        variance = np.random.default_rng(1).random(g.weight_shape)
        noise = np.tile(plain_conv(x.astype(np.float64) ** 2, variance, g), 3)
        want = (d.astype(np.float64) ** 2 * noise).sum(axis=(0, 1, 2))
        assert_close(fresh_read_power(d, x, g, variance), want, dtype, slack=4)


def test_a_geometry_knows_its_shapes():
    g = ConvGeometry(in_shape=(6, 10, 9), n_out=8, kernel=(3, 2), stride=(2, 1), dilation=(1, 2), pads=(1, 0, 0, 1), groups=2)
    assert g.out_shape == (8, 5, 8)
    assert g.weight_shape == (8, 3, 3, 2)
    assert g.n_rows == 18
    assert g.n_positions == 40
    assert g.n_macs == 8 * 18 * 40


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"groups": 4}, "groups must divide"),
        ({"kernel": (9, 9)}, "exceeds the padded input"),
        ({"stride": (0, 1)}, "positive sizes"),
        ({"pads": (0, -1, 0, 0)}, "positive sizes"),
    ],
)
def test_an_impossible_geometry_is_refused(change, said):
    with pytest.raises(ValueError, match=said):
        ConvGeometry(**{"in_shape": (6, 4, 4), "n_out": 6} | change)


def test_arrays_of_another_shape_or_type_are_refused():
    g = ConvGeometry(in_shape=(2, 4, 4), n_out=3, kernel=(3, 3))
    x, w, d = arrays(g, 8, np.float32)
    for bad in (x[:1], x.astype(np.int64), x[..., 0]):
        with pytest.raises(ValueError, match="x must be"):
            conv(bad, w, g)
    with pytest.raises(ValueError, match="weights must be"):
        conv(x, w.astype(np.float64), g)
    with pytest.raises(ValueError, match="delta must be"):
        conv_transposed(d[:, :1], w, g)
    with pytest.raises(ValueError, match="out must be"):
        conv(x, w, g, np.empty((3, 2, 2, 9), np.float32))
    with pytest.raises(ValueError, match="lanes of x"):
        conv_weight_gradient(np.concatenate([d, d[..., :1]], axis=-1), x, g)
    with pytest.raises(ValueError, match="negative entry"):
        weight_gradient_moments(d, x, g, -np.ones(g.weight_shape))
    with pytest.raises(ValueError, match="directions"):
        weight_gradient_moments(d, x, g, w * w, directions=np.ones((2, 5), np.float32))


def test_factors_of_images_multiply_every_output_of_theirs():
    values = np.random.default_rng(0).standard_normal((3, 4, 6)).astype(np.float32)
    factors = np.random.default_rng(1).standard_normal((3, 4, 2)).astype(np.float32)
    want = (values.reshape(3, 4, 3, 2) * factors[:, :, None]).reshape(3, 4, 6)
    np.testing.assert_array_equal(times_lanes(values, factors), want)
    np.testing.assert_array_equal(times_lanes(values[:, ::2], factors[:, ::2]), want[:, ::2])
    np.testing.assert_array_equal(times_lanes(values, factors[:, :1]), (values.reshape(3, 4, 3, 2) * factors[:, :1, None]).reshape(3, 4, 6))
    assert times_lanes(values, factors, out=values) is values
    np.testing.assert_array_equal(values, want)
