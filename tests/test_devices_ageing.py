"""Relaxation of CMO/HfOx and retention of SONOS: against the published numbers, by time, in chains and in networks."""

from dataclasses import replace

import numpy as np
import pytest

from accelsim.accelerator import Accelerator
from accelsim.placement import place
from accelsim.prediction.predict import predict
from accelsim.sampling.monte_carlo import monte_carlo
from devices.base.errors import SpecError
from devices.law import CellChain
from devices.relaxation import LogarithmicRelaxation
from devices.retention import RetentionTable
from tests.digits import digits_network, digits_samples
from validation.statistics import z_of_means

DAY, HOUR = 86_400.0, 3600.0
NANO_AMPERE = 17.857142857142858e-9


def relaxation(t_s: float = HOUR) -> LogarithmicRelaxation:
    law = Accelerator.preset("rram_cmo_hfox_relaxed").cell.drift
    assert isinstance(law, LogarithmicRelaxation)
    return replace(law, t_s=t_s)


def retention(t_s: float = DAY) -> RetentionTable:
    law = Accelerator.preset("sonos_retention").cell.drift
    assert isinstance(law, RetentionTable)
    return replace(law, t_s=t_s)


@pytest.mark.parametrize("t_s", [1.0, HOUR, 3.15e8])
def test_relaxation_has_the_published_mean_and_spread(t_s: float) -> None:
    """-0.08900206 ln t and 0.04201137 ln t + 0.41183342 uS, away from the limits."""
    moments = relaxation(t_s).moments(np.full(1, 50e-6), 88.2e-6)
    assert moments.mean_siemens[0] == pytest.approx(50e-6 - 0.08900206e-6 * np.log(t_s), rel=1e-12)
    assert moments.variance_siemens2[0] == pytest.approx((0.04201137 * np.log(t_s) + 0.41183342) ** 2 * 1e-12, rel=1e-9)


def test_relaxed_cells_stay_within_their_range() -> None:
    """At the bottom half of the cells would leave it: their mean is the published one plus what the limit holds back."""
    law = relaxation()
    normals = np.random.default_rng(1).standard_normal((2, 100_000))
    stored = law.sample(np.repeat([[9e-6], [88.2e-6]], 100_000, axis=1), 88.2e-6, normals=normals)
    assert stored.min() >= 9e-6
    assert stored.max() <= 88.2e-6
    assert law.moments(np.full(1, 9e-6), 88.2e-6).mean_siemens[0] > 9e-6 + law.mean_shift_siemens


def test_an_hour_of_1_f_noise_is_the_published_one() -> None:
    """0.0277316483 log10(G) sqrt(ln((t + 1 us) / 2 us)) uS."""
    law = Accelerator.preset("rram_cmo_hfox_relaxed").cell.low_frequency_noise
    assert law is not None
    variance = law.moments(np.full(1, 50e-6), 88.2e-6).variance_siemens2[0]
    assert np.sqrt(variance) * 1e6 == pytest.approx(0.0277316483 * np.log10(50.0) * np.sqrt(np.log((HOUR + 1e-6) / 2e-6)), rel=1e-12)


SHIFTS = {1: (-3.82, -24.85), 2: (-3.00, -28.90), 3: (-2.84, -32.75), 4: (-2.21, -35.40), 5: (-2.38, -37.86)}
"""Mean change in nA at 200 and 800 nA, by the polynomials as CrossSim evaluates them, day by day."""
SPREADS = {0: (19.88665, 176.3115), 1: (25.59102, 186.85544), 2: (28.72753, 193.56834), 3: (31.04318, 198.90332),
           4: (33.76214, 204.77023), 5: (34.57909, 207.34309)}  # fmt: skip


@pytest.mark.parametrize("day", range(6))
def test_retention_has_the_published_mean_and_spread(day: int) -> None:
    """Spreads are those of where a cell has got to, not of where it was asked to be."""
    current = np.array([200.0, 800.0])
    mean, std = (part / NANO_AMPERE for part in retention(day * DAY).mean_and_std(current * NANO_AMPERE))
    shift = np.array(SHIFTS.get(day, (0.0, 0.0)))
    np.testing.assert_allclose(mean - current, shift, atol=0.006)
    top, knee = SPREADS[day]
    np.testing.assert_allclose(std, top * (1.0 - np.exp(-(current + shift) / knee)), rtol=1e-4)


def test_no_time_is_the_day_of_programming() -> None:
    targets = np.linspace(0.0, 28.57e-6, 9)
    at_first = Accelerator.preset("sonos").cell.programming
    assert at_first is not None
    expected, found = (law.moments(targets, 28.571428571428573e-6) for law in (at_first, retention(0.0)))
    np.testing.assert_allclose(found.mean_siemens, expected.mean_siemens, rtol=1e-7)
    np.testing.assert_allclose(found.variance_siemens2, expected.variance_siemens2, rtol=1e-6)


def test_between_days_coefficients_are_on_straight_lines() -> None:
    current = np.array([500.0]) * NANO_AMPERE
    at, before, after = (retention(t * DAY).mean_and_std(current)[0] for t in (2.25, 2.0, 3.0))
    np.testing.assert_allclose(at, 0.75 * before + 0.25 * after, rtol=1e-12)


def test_a_chain_with_relaxation_has_the_moments_of_its_samples() -> None:
    """Programming, relaxation and 1/f noise; without relaxation (the control) it fails."""
    cell = Accelerator.preset("rram_cmo_hfox_relaxed").cell
    assert cell.programming is not None and cell.low_frequency_noise is not None  # noqa: PT018
    targets = np.linspace(9e-6, 88.2e-6, 6)
    random = np.random.default_rng(3)
    laws = (cell.programming, relaxation(), cell.low_frequency_noise)
    drawn = tuple(random.standard_normal((6, 200_000)) for _ in laws)
    stored = CellChain(laws).sample(np.repeat(targets[:, None], 200_000, axis=1), 88.2e-6, normals=drawn)
    found, control = (CellChain(chain).moments(targets, 88.2e-6) for chain in (laws, (laws[0], laws[2])))
    assert np.abs(z_of_means(found.mean_siemens, stored)).max() < 4.5
    assert np.abs(z_of_means(found.variance_siemens2, (stored - found.mean_siemens[:, None]) ** 2)).max() < 4.5
    assert np.abs(z_of_means(control.mean_siemens, stored)).max() > 50.0


@pytest.mark.parametrize("preset", ["rram_cmo_hfox_relaxed", "sonos_retention"])
def test_predictions_agree_with_monte_carlo(preset: str) -> None:
    plan = place(digits_network("cnn"), Accelerator.preset(preset), calibration=digits_samples()[:64])
    images = digits_samples()[100:116]
    report, trials = predict(plan, images, seed=5, tol_rel=0.03), monte_carlo(plan, images, seed=6, rel_error=0.03, max_trials=4000)
    assert trials.agreement_with(report).agrees
    assert report.by_cause["drift"] > 0.5 * report.mse
    young = place(digits_network("cnn"), Accelerator.preset(preset, set=("cell.drift.t_s=0",)), calibration=digits_samples()[:64])
    assert abs(predict(young, images, seed=5).mse / trials.mse - 1.0) > 0.1, "the negative control: no time has passed"


def test_times_that_were_not_measured_are_refused() -> None:
    with pytest.raises(SpecError, match="when it was measured"):
        retention(6 * DAY)
    with pytest.raises(SpecError, match="at least 1 s"):
        relaxation(0.5)
    with pytest.raises(SpecError, match="each at a time of its own"):
        replace(retention(), points=())
