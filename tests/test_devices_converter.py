"""Converters: their moments are those of samples and of numerical integration, their ranges what the rules say."""

import numpy as np
import pytest
from scipy import integrate, stats

from devices.base.errors import SpecError
from devices.converter import PlacedConverter, RampConverter, SarConverter, SignMagnitudeConverter, UniformConverter, range_from
from validation.statistics import z_of_means

SPREADS = [1e-3, 0.03, 0.3, 0.7, 0.99, 1.01, 3.0, 30.0, 100.0]
CODES = [(-7, 7), (0, 15), (-127, 127)]


def integrated(converter: PlacedConverter, mean: float, std: float) -> tuple[float, float, float]:
    """Return mean, variance and gain by adding up the probability of each code: the definition, code by code."""
    edges = np.concatenate([[-np.inf], (np.arange(converter.low_code, converter.high_code) + 0.5) * converter.step, [np.inf]])
    values = converter.step * np.arange(converter.low_code, converter.high_code + 1)
    upper = stats.norm.sf(edges, mean, std)
    lower = stats.norm.cdf(edges, mean, std)
    p = np.where(edges[:-1] > mean, upper[:-1] - upper[1:], lower[1:] - lower[:-1])
    first = float(np.sum(p * (values - mean)))
    density = stats.norm.pdf(edges, mean, std)
    weighted = values * (density[:-1] - density[1:])  # E Q (z - m) = sum q s^2 (phi(a) - phi(b))
    return mean + first, float(np.sum(p * (values - mean - first) ** 2)), float(np.sum(weighted))


@pytest.mark.parametrize("codes", CODES)
@pytest.mark.parametrize("spread", SPREADS)
def test_moments_are_those_of_the_definition(codes: tuple[int, int], spread: float) -> None:
    converter = PlacedConverter(step=0.2, low_code=codes[0], high_code=codes[1])
    for where in (-0.5, 0.0, 0.21, 0.5, 0.77, 0.99, 1.3):
        mean = converter.step * (codes[0] + where * (codes[1] - codes[0]))
        found = converter.moments(np.array([mean]), np.array([(0.2 * spread) ** 2]))
        expected = integrated(converter, mean, 0.2 * spread)
        np.testing.assert_allclose(np.array(found)[:, 0], expected, rtol=1e-7, atol=3e-8)


def test_moments_are_those_of_a_million_samples() -> None:
    converter = PlacedConverter(step=0.5, low_code=-7, high_code=7)
    z = np.random.default_rng(20_261_124).standard_normal(1_000_000)
    for mean, std in ((0.1, 0.2), (3.2, 0.9), (1.2, 0.05), (-2.0, 2.0)):
        signal = mean + std * z
        values = converter.value(signal)
        expected, variance, gain = (float(part[0]) for part in converter.moments(np.array([mean]), np.array([std**2])))
        assert abs(z_of_means(np.array([expected]), values[None])[0]) < 4
        assert abs(z_of_means(np.array([variance]), (values[None] - expected) ** 2)[0]) < 4
        assert abs(z_of_means(np.array([gain]), (values * z / std)[None])[0]) < 4


def test_a_twelfth_of_a_squared_step_is_wrong_for_integer_sums() -> None:
    """The negative control: integers on a grid of steps are converted without any error, and with little noise nearly so."""
    converter = PlacedConverter(step=1.0, low_code=0, high_code=255)
    sums = np.arange(0.0, 200.0)
    mean, variance, gain = converter.moments(sums, np.zeros(200))
    np.testing.assert_array_equal(mean, sums)
    np.testing.assert_array_equal(variance, 0.0)
    np.testing.assert_array_equal(gain, 1.0)
    _, variance, _ = converter.moments(sums, np.full(200, 0.05**2))
    assert variance.max() < 1e-3 / 12.0


def test_values_are_the_nearest_codes_and_keep_their_precision() -> None:
    converter = UniformConverter(n_bits=4).placed(-2.1, 2.1)
    signal = np.random.default_rng(1).uniform(-3.0, 3.0, (7, 11, 5))
    codes = 0.3 * np.arange(-7, 8)
    nearest = codes[np.abs(signal[..., None] - codes).argmin(axis=-1)]
    np.testing.assert_allclose(converter.value(signal), nearest, atol=1e-12)
    single = converter.value(signal.astype(np.float32))
    assert single.dtype == np.float32
    np.testing.assert_allclose(single, nearest, atol=1e-6)
    np.testing.assert_array_equal(converter.slope(np.array([-2.3, -2.2, 0.0, 2.2, 2.3])), [0, 1, 1, 1, 0])


def test_codes_of_each_kind() -> None:
    assert UniformConverter(n_bits=8).codes(signed=True) == (-127, 127)
    assert RampConverter(n_bits=8).codes(signed=False) == (0, 255)
    assert SignMagnitudeConverter(n_bits=8).codes(signed=False) == (0, 127)
    with pytest.raises(SpecError, match="2 bits"):
        UniformConverter(n_bits=1).codes(signed=True)


def test_ranges_follow_their_rules() -> None:
    signal = np.random.default_rng(2).standard_normal(100_000)
    top = float(np.abs(signal).max())

    def of(rule: str, **more: float) -> float:
        return range_from(signal, UniformConverter(n_bits=6, range=rule, **more), worst_case=30.0, lattice=0.25)[1]  # type: ignore[arg-type]

    assert of("max") == top
    assert of("percentile", percentile=95.0) == pytest.approx(1.96, abs=0.02)
    assert of("full") == 30.0
    assert of("fixed", full_scale=2.5) == 2.5
    assert of("granular") == 31 * 0.25 * 4  # 30 needs 120 lattice steps; 31 codes of 4 hold them
    assert range_from(np.abs(signal), UniformConverter(n_bits=6), worst_case=1.0)[0] == 0.0
    with pytest.raises(SpecError, match="integer sums"):
        range_from(signal, UniformConverter(n_bits=6, range="granular"), worst_case=1.0)


@pytest.mark.parametrize(("n_bits", "step"), [(4, 0.3352), (6, 0.1041), (8, 0.0308)])
def test_the_range_of_least_error_is_the_published_one_of_a_gaussian(n_bits: int, step: float) -> None:
    """Optimal uniform steps of 2^n levels (Max, IRE Trans. Inf. Theory 1960; Hui and Neuhoff 2001); ours has one level less, with zero."""
    signal = stats.norm.ppf((np.arange(200_000) + 0.5) / 200_000)
    _, high = range_from(signal, UniformConverter(n_bits=n_bits, range="mse"), worst_case=10.0)
    assert high / (2 ** (n_bits - 1) - 1) == pytest.approx(step, rel=0.07 if n_bits == 4 else 0.03)

    def error(end: float) -> float:
        return float(np.mean((UniformConverter(n_bits=n_bits).placed(-end, end).value(signal) - signal) ** 2))

    assert error(high) <= min(error(high * f) for f in (0.8, 0.9, 0.95, 1.05, 1.1, 1.2)) * 1.001
    assert error(high) < 0.9 * error(float(signal.max()))


def test_successive_approximation_without_mismatch_is_even() -> None:
    signal = np.random.default_rng(3).uniform(-1.2, 1.2, 1000)
    even = UniformConverter(n_bits=6).placed(-1.0, 1.0).value(signal)
    np.testing.assert_allclose(SarConverter(n_bits=6, mismatch_rel=0.0).placed(-1.0, 1.0).value(signal), even, atol=1e-12)


def test_successive_approximation_is_the_greedy_search_of_its_weights() -> None:
    """Brute force: bit after bit from the top, kept while the sum stays below; mismatch so large that codes are missing."""
    spec = SarConverter(n_bits=5, mismatch_rel=0.4, seed=4)
    converter = spec.placed(0.0, 31.0)
    from devices.base.stream import normals, site_id

    z = normals(np.empty(5, np.float32), seed=4, site=site_id("converter", "sar", 0), trial=0).astype(np.float64)
    weights = 2.0 ** np.arange(5) + 0.4 * np.sqrt(2.0 ** np.arange(5)) * z
    weights *= 31.0 / weights.sum()
    for x in np.random.default_rng(5).uniform(0.0, 32.0, 2000):
        code, held = 0, 0.0
        for bit in range(4, -1, -1):
            if x + 0.5 >= held + weights[bit]:
                code, held = code | 1 << bit, held + weights[bit]
        assert converter.value(np.array([x]))[0] == code


def test_moments_of_uneven_thresholds_are_those_of_samples() -> None:
    converter = SarConverter(n_bits=6, mismatch_rel=0.1, seed=1).placed(-3.1, 3.1)
    z = np.random.default_rng(6).standard_normal(400_000)
    for mean, std in ((0.1, 0.05), (1.5, 0.3)):
        values = converter.value(mean + std * z)
        expected, variance, gain = (float(part[0]) for part in converter.moments(np.array([mean]), np.array([std**2])))
        assert abs(z_of_means(np.array([expected]), values[None])[0]) < 4
        assert abs(z_of_means(np.array([variance]), (values[None] - expected) ** 2)[0]) < 4
        assert abs(z_of_means(np.array([gain]), (values * z / std)[None])[0]) < 4
    even = UniformConverter(n_bits=6).placed(-3.1, 3.1)
    apart = [float(c.moments(np.array([1.5]), np.array([0.0025]))[0][0]) for c in (even, converter)]
    assert abs(apart[0] - apart[1]) > 1e-3


def test_the_middle_code_misses_by_what_the_capacitors_do() -> None:
    """At the major carry one capacitor of 2^(n-1) units stands against all the others: DNL variance of (2^n - 1) units' variances."""
    n_bits, mismatch = 8, 0.01
    jumps = []
    for seed in range(400):
        t = SarConverter(n_bits=n_bits, mismatch_rel=mismatch, seed=seed).placed(0.0, 255.0).thresholds
        assert t is not None
        jumps.append(t[127] - t[126] - 1.0)
    expected = mismatch * np.sqrt(2.0**n_bits - 1.0)
    assert np.std(jumps) == pytest.approx(expected, rel=4 / np.sqrt(2 * 400))


def test_gaussian_integrals_agree_with_quadrature() -> None:
    """An oracle apart from the codes: scipy's quadrature of the density times the staircase."""
    converter = PlacedConverter(step=1.0, low_code=-3, high_code=3)
    points = np.arange(-3, 3) + 0.5
    mean, std = 0.3, 0.6

    def weighted(x: float) -> float:
        return float(converter.value(np.array([x]))[0]) * float(stats.norm.pdf(x, mean, std))

    value = integrate.quad(weighted, -6, 6, points=points, limit=400)[0]
    assert float(converter.moments(np.array([mean]), np.array([std**2]))[0][0]) == pytest.approx(value, abs=1e-9)
