"""Random streams: known answers, the law of the draws, and independence of size, start, order and thread."""

import math
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from scipy import stats

from devices.base import stream

N = 1 << 20
Z_MAX = 5.0  # two-sided 6e-7; fixed seeds, so a pass stays a pass


def draw(*, seed=11, site=22, trial=33, n=N, start=0):
    return stream.normals(np.empty(n, np.float32), seed=seed, site=site, trial=trial, start=start).astype(np.float64)


def correlation_z(a, b):
    """z-score of the sample correlation of two standard normal arrays, from E[(ab)^2] = 1."""
    return float(np.mean(a * b) * math.sqrt(a.size))


@pytest.mark.parametrize(
    ("block", "trial", "site", "seed", "answer"),
    [
        (0, 0, 0, 0, (0x6627E8D5, 0xE169C58D, 0xBC57AC4C, 0x9B00DBD8)),
        (0xFFFFFFFFFFFFFFFF, 0xFFFFFFFF, 0xFFFFFFFF, 0xFFFFFFFFFFFFFFFF, (0x408F276D, 0x41C83B0E, 0xA20BC7C6, 0x6D5451FD)),
        (0x85A308D3243F6A88, 0x13198A2E, 0x03707344, 0x299F31D0A4093822, (0xD16CFE09, 0x94FDCCEB, 0x5001E420, 0x24126EA1)),
    ],
)
def test_words_are_the_known_answers_of_random123(block, trial, site, seed, answer):
    out, k0, k1 = np.empty(64, np.uint32), np.uint32(seed & 0xFFFFFFFF), np.uint32(seed >> 32)
    group = np.uint64(block // 16)  # beyond what `start` reaches: the kernel itself is asked
    stream._fill_words(out, group, k0, k1, np.uint32(trial), np.uint32(site))
    assert tuple(int(w) for w in out.reshape(4, 16)[:, block % 16]) == answer


def test_words_of_the_second_group_come_from_blocks_sixteen_to_thirty_one():
    whole = stream.words(np.empty(128, np.uint32), seed=5, site=6, trial=7)
    again = stream.words(np.empty(64, np.uint32), seed=5, site=6, trial=7, start=64)
    assert np.array_equal(whole[64:], again)
    assert np.unique(whole).size == 128


@pytest.mark.parametrize("fill", [stream.normals, stream.uniforms, stream.rademacher, stream.words])
@pytest.mark.parametrize(("start", "n"), [(0, 1), (0, 63), (64, 65), (640, 1000), (4096, 904)])
def test_a_part_equals_the_same_part_of_the_whole(fill, start, n):
    dtype = np.uint32 if fill is stream.words else np.float32
    names = {"seed": 2**63 + 9, "site": 2**31 + 1, "trial": 3}
    whole = fill(np.empty(5000, dtype), **names)
    part = fill(np.empty(n, dtype), start=start, **names)
    assert np.array_equal(part, whole[start : start + n])


def test_an_array_of_any_shape_is_filled_in_c_order():
    square = stream.normals(np.empty((7, 5, 9), np.float32), seed=1, site=2, trial=3)
    assert np.array_equal(square.ravel(), stream.normals(np.empty(315, np.float32), seed=1, site=2, trial=3))


def test_an_empty_array_stays_empty():
    assert stream.normals(np.empty(0, np.float32), seed=1, site=2, trial=3).size == 0


def test_starts_beyond_the_32_bit_block_index_do_not_wrap():
    near = draw(n=64, start=0)
    far = draw(n=64, start=4 * 2**32)  # block 2^32: the high counter word is 1
    assert abs(correlation_z(near, far)) < Z_MAX
    assert not np.any(near == far)


def test_threads_draw_the_same_bits():
    alone = [draw(trial=t, n=100_000) for t in range(8)]
    with ThreadPoolExecutor(2) as pool:
        together = list(pool.map(lambda t: draw(trial=t, n=100_000), range(8)))
    assert all(np.array_equal(a, b) for a, b in zip(alone, together))


def test_moments_are_those_of_the_standard_normal():
    z = draw()
    # Var of the sample mean of z^k is (E z^2k - (E z^k)^2) / N
    for power, mean, variance in ((1, 0, 1), (2, 1, 2), (3, 0, 15), (4, 3, 96), (6, 15, 10170)):
        assert abs(np.mean(z**power) - mean) / math.sqrt(variance / N) < Z_MAX, power


@pytest.mark.parametrize("quarter", range(4))
def test_each_of_the_four_words_gives_normals(quarter):
    z = draw().reshape(-1, 4, 16)[:, quarter].ravel()
    assert stats.kstest(z, "norm").pvalue > 1e-4


def test_tails_have_the_right_weight():
    z = np.abs(np.concatenate([draw(trial=t) for t in range(16)]))
    for bound in (3.0, 4.0, 5.0):
        expected = z.size * math.erfc(bound / math.sqrt(2))
        assert abs(np.count_nonzero(z > bound) - expected) / math.sqrt(expected) < Z_MAX, bound
    assert 4.9 < z.max() < 6.8


def test_the_radius_reaches_the_smallest_word_and_stays_finite():
    a = np.array([0, 1, 2**31, 2**32 - 1, 2**32 - 200, 12345], np.uint32)
    log = stream._minus_two_log
    got = np.array([log(w) for w in a], np.float64)
    exact = -2.0 * np.log((a.astype(np.float64) + 0.5) / 2.0**32)
    assert got[0] == pytest.approx(2 * 33 * math.log(2), rel=1e-6)
    assert np.all(got >= 0)
    assert np.allclose(got, exact, rtol=3e-6, atol=1.2e-7)  # atol: float32 spacing below 1


def test_sine_and_cosine_are_right_to_float32():
    w = np.linspace(0, 2**32 - 1, 20001).astype(np.uint32)
    got = np.array([stream._sine_cosine(v) for v in w], np.float64)
    angle = w.view(np.int32).astype(np.float64) * (math.pi / 2**31)
    # 2 s c and 1 - 2 s^2 have up to four times the half angle's errors, themselves up to four unit roundoffs 2^-24
    assert np.abs(got[:, 0] - np.sin(angle)).max() < 2**-20
    assert np.abs(got[:, 1] - np.cos(angle)).max() < 2**-20


@pytest.mark.parametrize("lag", [1, 2, 3, 4, 15, 16, 17, 32, 48, 64, 128, 1024, N // 2])
def test_elements_at_a_lag_are_uncorrelated(lag):
    z = draw()
    assert abs(correlation_z(z[:-lag], z[lag:])) < Z_MAX
    square = (z * z - 1) / math.sqrt(2)
    assert abs(correlation_z(square[:-lag], square[lag:])) < Z_MAX


NEIGHBOURS = [{"trial": 34}, {"trial": 32}, {"site": 23}, {"site": 22 ^ 1 << 31}]
NEIGHBOURS += [{"seed": 12}, {"seed": 11 + 2**32}, {"site": 33, "trial": 22}]


@pytest.mark.parametrize("other", NEIGHBOURS)
def test_streams_of_other_names_are_uncorrelated(other):
    assert abs(correlation_z(draw(), draw(**other))) < Z_MAX


def test_a_slightly_correlated_stream_fails_the_same_test():
    a, b = draw(), draw(trial=34)
    mixed = 0.01 * a + math.sqrt(1 - 1e-4) * b  # correlation 0.01: z about 10
    assert abs(correlation_z(a, mixed)) > Z_MAX


def test_a_stream_with_wide_tails_fails_the_moments():
    z = draw() * (1 + 0.005)
    assert abs(np.mean(z**2) - 1) / math.sqrt(2 / N) > Z_MAX


def test_uniforms_are_uniform_and_never_zero_or_one():
    u = stream.uniforms(np.empty(1 << 22, np.float32), seed=1, site=2, trial=3)
    assert 0 < u.min() < 1e-5
    assert 1 - 1e-5 < u.max() < 1
    assert stats.kstest(u[:N].astype(np.float64), "uniform").pvalue > 1e-4
    assert float(stream._open_unit(np.uint32(0))) == 2.0**-24
    assert float(stream._open_unit(np.uint32(2**32 - 1))) == 1 - 2.0**-24


def test_rademacher_signs_are_fair_and_independent_across_trials():
    a, b = (stream.rademacher(np.empty(N, np.float32), seed=1, site=2, trial=t) for t in (0, 1))
    assert set(np.unique(a)) == {-1.0, 1.0}
    assert abs(a.sum(dtype=np.float64)) / math.sqrt(N) < Z_MAX
    assert abs(correlation_z(a.astype(np.float64), b)) < Z_MAX


def test_site_ids_are_the_same_in_every_process():
    code = "from devices.base.stream import site_id; print(site_id('features.0', 'programming', 2))"
    ids = {int(subprocess.run([sys.executable, "-c", code], capture_output=True, check=True, text=True).stdout) for _ in range(2)}
    assert ids == {stream.site_id("features.0", "programming", 2)} == {GOLDEN_SITE}


GOLDEN_SITE = 539541213  # blake2b of "10:features.011:programming1:2", 4 bytes, little-endian; hashlib


def test_site_ids_keep_names_apart():
    ids = {stream.site_id(layer, kind, slot) for layer in ("a", "ab", "b") for kind in ("b", "bc", "read") for slot in (0, 1, 11)}
    assert len(ids) == 27
    assert stream.site_id("a1", "b", 1) != stream.site_id("a", "1b", 1)
    assert stream.site_id("a", "b", 11) != stream.site_id("a", "b1", 1)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"start": 32}, "multiple of 64"),
        ({"start": -64}, "start"),
        ({"seed": -1}, "seed"),
        ({"seed": 2**64}, "seed"),
        ({"trial": 2**32}, "trial"),
        ({"trial": -1}, "trial"),
        ({"site": 2**32}, "site"),
    ],
)
def test_names_out_of_range_are_refused(change, said):
    with pytest.raises(ValueError, match=said):
        stream.normals(np.empty(8, np.float32), **{"seed": 1, "site": 2, "trial": 3, "start": 0} | change)


@pytest.mark.parametrize("out", [np.empty(8), np.empty((4, 4), np.float32).T[1:], np.empty(16, np.float32)[::2]])
def test_arrays_of_another_type_or_order_are_refused(out):
    with pytest.raises(ValueError, match="C-contiguous float32"):
        stream.normals(out, seed=1, site=2, trial=3)
