"""Programming errors: rectified Gaussian moments against quadrature, precompensation, and chains of laws."""

import numpy as np
import pytest
from scipy.integrate import quad
from scipy.special import ndtr

from devices.base.errors import SpecError
from devices.law import CellChain
from devices.programming import ProportionalError, StateIndependentError, clipped_moments
from validation.statistics import z_of_means

G_MAX = 25e-6


def density(z: float) -> float:
    return float(np.exp(-0.5 * z * z) / np.sqrt(2.0 * np.pi))


def by_quadrature(a: float) -> tuple[float, float]:
    """Return mean and variance of max(a + z, 0); the variance from what clipping changes, so that nothing cancels.

    a > 0: max(a + z, 0) = a + z + h with h = max(-a - z, 0):  E = a + E h,  Var = 1 + E h^2 - (E h)^2 + 2 E z h.
    """
    if a > 0.0:
        low = -a - 12.0
        first, second, cross = (
            quad(lambda z, f=f: f(z) * density(z), low, -a, epsabs=0.0, epsrel=1e-12)[0]
            for f in (lambda z: -a - z, lambda z: (a + z) ** 2, lambda z: z * (-a - z))
        )
        return a + first, 1.0 + second - first**2 + 2.0 * cross
    high = -a + 12.0
    first, second = (quad(lambda z, n=n: (a + z) ** n * density(z), -a, high, epsabs=0.0, epsrel=1e-12)[0] for n in (1, 2))
    return first, second - first**2


@pytest.mark.parametrize("a", [0.0, 1e-9, 1e-3, 0.1, 0.5, 1.0, 2.0, 3.0, 5.0, 8.0, 12.0, 20.0, 30.0, 40.0])
def test_clipped_moments_are_those_of_quadrature_at_every_target_there_is(a: float) -> None:
    """Targets are at least 0; the mean and the variance hold ten digits."""
    mean, variance = clipped_moments(np.array([a]), np.ones(1))
    expected_mean, expected_variance = by_quadrature(a)
    assert mean[0] == pytest.approx(expected_mean, rel=1e-10)
    assert variance[0] == pytest.approx(expected_variance, rel=1e-10)


@pytest.mark.parametrize("a", [-0.5, -1.0, -3.0, -5.0, -8.0, -12.0, -20.0, -30.0])
def test_clipped_moments_far_below_zero_are_tiny_and_never_negative(a: float) -> None:
    """No target is there; the two terms of (1) cancel, and what is left is right to 1e-15 of s (1e-16 a phi lost)."""
    mean, variance = clipped_moments(np.array([a]), np.ones(1))
    expected_mean, expected_variance = by_quadrature(a)
    assert mean[0] == pytest.approx(expected_mean, abs=1e-15)
    assert variance[0] == pytest.approx(expected_variance, abs=1e-15)
    assert variance[0] >= 0.0


def test_a_cell_at_zero_has_the_published_moments() -> None:
    mean, variance = clipped_moments(np.zeros(1), np.full(1, 3.0))
    assert mean[0] == pytest.approx(3.0 / np.sqrt(2.0 * np.pi), rel=1e-14)
    assert variance[0] == pytest.approx(9.0 * (0.5 - 0.5 / np.pi), rel=1e-14)
    assert variance[0] / 9.0 == pytest.approx(0.3408, abs=5e-5)


def test_without_deviation_the_target_is_stored() -> None:
    mean, variance = clipped_moments(np.array([0.0, 1e-6]), np.zeros(2))
    np.testing.assert_array_equal(mean, [0.0, 1e-6])
    np.testing.assert_array_equal(variance, 0.0)


@pytest.mark.parametrize("error_rel", [1e-6, 0.002, 0.01, 0.1, 0.3, 1.0])
def test_precompensation_leaves_no_bias_of_a_pair(error_rel: float) -> None:
    law = StateIndependentError(error_rel=error_rel)
    wanted = G_MAX * np.concatenate([[0.0], np.geomspace(1e-9, 1.0, 60)])
    asked = law.precompensated(wanted, G_MAX)
    assert np.all(asked >= 0.0)
    assert asked[0] == 0.0
    mean = law.moments(asked, G_MAX).mean_siemens
    np.testing.assert_allclose(mean - mean[0], wanted, rtol=0.0, atol=1e-13 * G_MAX)
    raw = law.moments(wanted, G_MAX).mean_siemens
    lost = np.abs(raw - raw[0] - wanted).max()
    assert lost > 0.3 * min(error_rel, 1.0) * G_MAX, "without it there is a bias of up to s / sqrt(2 pi)"


def test_a_proportional_error_precompensates_by_its_mean_gain() -> None:
    law = ProportionalError(error_rel=0.6)
    wanted = G_MAX * np.linspace(0.0, 1.0, 7)
    mean = law.moments(law.precompensated(wanted, G_MAX), G_MAX).mean_siemens
    np.testing.assert_allclose(mean, wanted, rtol=1e-13)


def test_a_proportional_error_leaves_a_cell_at_zero_alone() -> None:
    moments = ProportionalError(error_rel=0.3).moments(np.zeros(2), G_MAX)
    np.testing.assert_array_equal(moments.mean_siemens, 0.0)
    np.testing.assert_array_equal(moments.variance_siemens2, 0.0)


LAWS = (StateIndependentError(error_rel=0.05), ProportionalError(error_rel=0.1))
CHAINS = {"write_then_vary": LAWS, "unclipped": tuple(type(law)(error_rel=law.error_rel, clip=False) for law in LAWS)}


@pytest.mark.parametrize("laws", CHAINS.values(), ids=CHAINS)
def test_the_moments_of_a_chain_are_those_of_samples(laws: tuple) -> None:  # type: ignore[type-arg]
    """Targets of six deviations and more, where the stored value of the first law is Gaussian."""
    targets, chain, rng = G_MAX * np.array([0.3, 0.5, 1.0]), CellChain(laws), np.random.default_rng(8)
    wide = np.repeat(targets[:, None], 200_000, axis=1)
    stored = chain.sample(wide, G_MAX, normals=tuple(rng.standard_normal(wide.shape) for _ in laws))
    moments = chain.moments(targets, G_MAX)
    assert np.abs(z_of_means(moments.mean_siemens, stored)).max() < 4
    squares = (stored - moments.mean_siemens[:, None]) ** 2
    assert np.abs(z_of_means(moments.variance_siemens2, squares)).max() < 4
    alone = sum(law.moments(targets, G_MAX).variance_siemens2 for law in laws[:1])
    assert np.abs(z_of_means(alone, squares)).max() > 10, "the negative control: the first law on its own"


def test_a_chain_of_clipped_cells_is_averaged_over_what_the_first_law_stores() -> None:
    """At zero, where half of the first law's values are clipped: within 1 %, though quadrature crosses the kink.

    With a Gaussian in the place of the first law's values the variance would be 21 % low (the negative control).
    """
    laws = (StateIndependentError(error_rel=0.1), StateIndependentError(error_rel=0.05))
    rng, zeros = np.random.default_rng(9), np.zeros((1, 400_000))
    stored = CellChain(laws).sample(zeros, G_MAX, normals=(rng.standard_normal(zeros.shape), rng.standard_normal(zeros.shape)))
    found = CellChain(laws).moments(np.zeros(1), G_MAX)
    assert found.mean_siemens[0] / stored.mean() == pytest.approx(1.0, abs=0.01)
    assert found.variance_siemens2[0] / stored.var() == pytest.approx(1.0, abs=0.01)
    gaussian = laws[1].moments_after(laws[0].moments(np.zeros(1), G_MAX), G_MAX, asked_siemens=np.zeros(1))
    assert -0.25 < gaussian.variance_siemens2[0] / stored.var() - 1.0 < -0.15


def test_no_law_at_all_stores_what_is_asked() -> None:
    moments = CellChain(()).moments(np.array([1e-6]), G_MAX)
    assert moments.mean_siemens[0] == 1e-6
    assert moments.variance_siemens2[0] == 0.0


def test_clipping_at_the_target_zero_halves_the_draws() -> None:
    stored = StateIndependentError(error_rel=0.1).sample(np.zeros(4), G_MAX, normals=np.array([-2.0, -0.1, 0.1, 2.0]))
    np.testing.assert_allclose(stored, G_MAX * np.array([0.0, 0.0, 0.01, 0.2]))
    assert ndtr(0.0) == 0.5


@pytest.mark.parametrize("law", [StateIndependentError, ProportionalError])
@pytest.mark.parametrize("error_rel", [-0.01, np.inf, np.nan])
def test_an_error_that_is_none_is_refused_with_its_value(law: type, error_rel: float) -> None:
    with pytest.raises(SpecError, match="need 0 <= error_rel, got"):
        law(error_rel=error_rel)
