"""Stuck cells, write and verify, 1/f noise, cells that differ: their moments, the loops they stand for, and whole predictions."""

import numpy as np
import pytest
from scipy.special import ndtr

from accelsim.accelerator import Accelerator
from accelsim.prediction.predict import predict
from accelsim.sampling.monte_carlo import monte_carlo
from accelsim.sampling.programmings import Programmer
from devices.base.errors import SpecError
from devices.drift import PiecewiseDrift
from devices.law import CellChain
from devices.low_frequency_noise import OneOverF, PiecewiseOneOverF
from devices.piecewise import LogThenPolynomial
from devices.programming import ProportionalError, StateIndependentError
from devices.stuck import StuckAt
from devices.write_verify import VerifiedError
from devices.writing import WriteVerify
from tests.digits import digits_plan, digits_samples
from validation.contract import CellLawContract
from validation.statistics import z_of_means

G_MAX = 25e-6
PCM = OneOverF(q_scale=0.0088, q_exponent=0.65, q_cap=0.2, over_siemens=25e-6, t_read_s=250e-9, t_s=86400.0)


def verified(error: float, window: float, writes: int, *, clip: bool = True) -> VerifiedError:
    return VerifiedError(
        single=StateIndependentError(error_rel=error, clip=clip), writing=WriteVerify(window_rel=window, max_writes=writes)
    )


class TestStuckAt(CellLawContract):
    laws = (
        StuckAt(low_p=0.01, high_p=0.01, low_siemens=0.0, high_siemens=25e-6),
        StuckAt(low_p=0.3, high_p=0.0, low_siemens=1e-6, high_siemens=25e-6),
    )
    field_name = "stuck"


class TestOneOverF(CellLawContract):
    laws = (PCM, OneOverF(q_scale=0.01, q_exponent=0.0, q_cap=1.0, over_siemens=25e-6, t_read_s=1e-6, t_s=10.0))
    field_name = "low_frequency_noise"


class TestVerifiedError(CellLawContract):
    laws = (verified(0.05, 0.03, 5), verified(0.05, 0.02, 1), verified(0.2, 0.05, 3, clip=False), verified(0.03, 0.2, 4))
    registered = False


def test_as_many_cells_are_stuck_as_were_asked_for() -> None:
    """Another simulator, asked for 1 % and 1 %, makes 0.02 % and 1.98 % of its cells stuck."""
    law = StuckAt(low_p=0.01, high_p=0.01, low_siemens=0.0, high_siemens=25e-6)
    n = 1_000_000
    stored = law.sample(np.full(n, 10e-6), G_MAX, normals=np.random.default_rng(1).standard_normal(n))
    for value, p in ((0.0, 0.01), (25e-6, 0.01)):
        assert np.mean(stored == value) == pytest.approx(p, abs=4 * np.sqrt(p / n))
    assert np.mean(stored == 10e-6) == pytest.approx(0.98, abs=1e-3)


def test_more_faults_are_the_same_ones_and_others() -> None:
    z = np.random.default_rng(2).standard_normal(100_000)
    few, many = (
        StuckAt(low_p=p, high_p=2 * p, low_siemens=0.0, high_siemens=25e-6).sample(np.full(z.size, 10e-6), G_MAX, normals=z)
        for p in (0.001, 0.01)
    )
    assert np.all(many[few != 10e-6] == few[few != 10e-6])
    events = StuckAt(low_p=0.1, high_p=0.2, low_siemens=0.0, high_siemens=25e-6).events(np.ones((3, 4)))
    assert events.p.shape == (2, 3, 4)
    np.testing.assert_array_equal(events.value_siemens[1], 25e-6)


@pytest.mark.parametrize("target", [0.0, 0.5e-6, 10e-6])
@pytest.mark.parametrize(("error", "window", "writes"), [(0.04, 0.03, 4), (0.04, 0.01, 20), (0.04, 0.06, 2)])
def test_write_and_verify_is_the_loop_it_stands_for(target: float, error: float, window: float, writes: int) -> None:
    """Half a million cells written one after the other, as a controller does."""
    rng, n = np.random.default_rng(3), 500_000
    e, count, open_ = np.zeros(n), np.zeros(n), np.ones(n, bool)
    for _ in range(writes):
        e[open_] = error * G_MAX * rng.standard_normal(int(open_.sum()))
        count[open_] += 1
        open_ &= np.abs(e) > window * G_MAX
    stored = np.maximum(target + e, 0.0)
    law = verified(error, window, writes)
    moments = law.moments(np.full(1, target), G_MAX)
    assert abs(z_of_means(moments.mean_siemens, stored[None])[0]) < 4
    assert abs(z_of_means(moments.variance_siemens2, (stored[None] - moments.mean_siemens) ** 2)[0]) < 4
    assert abs(z_of_means(law.mean_writes(np.full(1, target), G_MAX), count[None])[0]) < 4
    once = law.single.moments(np.full(1, target), G_MAX)
    assert abs(z_of_means(once.variance_siemens2, (stored[None] - moments.mean_siemens) ** 2)[0]) > 10, "the negative control"


def test_verifying_has_its_limits() -> None:
    """A window that nothing misses changes nothing; one write is not verified; the cost is that of the writes."""
    g = np.array([0.0, 1e-6, 20e-6])
    wide, single = verified(0.02, 1.0, 10), StateIndependentError(error_rel=0.02)
    np.testing.assert_allclose(wide.moments(g, G_MAX).variance_siemens2, single.moments(g, G_MAX).variance_siemens2, rtol=1e-9)
    np.testing.assert_allclose(verified(0.02, 0.01, 1).moments(g, G_MAX).mean_siemens, single.moments(g, G_MAX).mean_siemens, rtol=1e-9)
    z = np.random.default_rng(4).standard_normal(1000)
    np.testing.assert_allclose(wide.sample(np.full(1000, 20e-6), G_MAX, normals=z), single.sample(np.full(1000, 20e-6), G_MAX, normals=z))
    p = 1.0 - 2.0 * ndtr(-0.5)
    assert verified(0.02, 0.01, 7).mean_writes(g, G_MAX)[0] == pytest.approx((1 - (1 - p) ** 7) / p)
    writing = WriteVerify(window_rel=0.01, max_writes=7, energy_per_write_j=2e-12, time_per_write_s=1e-7)
    assert writing.cost("program", writes=3.0).energy_j == pytest.approx(6e-12)
    assert writing.cost("program", writes=3.0).time_s == pytest.approx(3e-7)
    with pytest.raises(ValueError, match="program"):
        writing.cost("read")
    with pytest.raises(SpecError, match="write_verify"):
        Accelerator.preset("memse", set=("cell.programming=none", "cell.write_verify.window_rel=0.01", "cell.write_verify.max_writes=3"))


def test_noise_grows_with_the_logarithm_of_time() -> None:
    """Published numbers of phase-change memory at the top of the range: Q 0.0088, after a day sqrt(ln(86400 s / 500 ns)) = 5.09."""
    assert PCM.relative_std(np.full(1, 25e-6))[0] == pytest.approx(0.0088 * np.sqrt(np.log(86400.0 / 500e-9)), rel=1e-6)
    assert PCM.relative_std(np.zeros(1))[0] == pytest.approx(0.2 * np.sqrt(np.log(86400.0 / 500e-9)), rel=1e-6)
    young = OneOverF(q_scale=0.0088, q_exponent=0.65, q_cap=0.2, over_siemens=25e-6, t_read_s=250e-9)
    assert young.relative_std(np.full(1, 25e-6))[0] == 0.0


def test_every_law_of_a_chain_counts() -> None:
    """Different cells, written with errors, that drift and wander, some of them stuck: moments against samples."""
    laws = (StateIndependentError(error_rel=0.03, clip=False), ProportionalError(error_rel=0.05), PCM, TestStuckAt.laws[0])
    targets = G_MAX * np.array([0.0, 0.02, 0.3, 1.0])
    rng = np.random.default_rng(5)
    shape = (4, 300_000)
    stored = CellChain(laws).sample(
        np.repeat(targets[:, None], shape[1], axis=1), G_MAX, normals=tuple(rng.standard_normal(shape) for _ in laws)
    )
    found = CellChain(laws).moments(targets, G_MAX)
    assert np.abs(z_of_means(found.mean_siemens, stored)).max() < 4
    assert np.abs(z_of_means(found.variance_siemens2, (stored - found.mean_siemens[:, None]) ** 2)).max() < 4
    for left_out in range(4):
        fewer = CellChain(tuple(law for i, law in enumerate(laws) if i != left_out)).moments(targets, G_MAX)
        off = z_of_means(fewer.variance_siemens2, (stored - found.mean_siemens[:, None]) ** 2)
        assert np.abs(off).max() > 8, f"the negative control: without {laws[left_out]}"


SETTINGS = {
    "stuck": (
        "cell.stuck.kind=stuck_at", "cell.stuck.low_p=0.01", "cell.stuck.high_p=0.005", "cell.stuck.low_siemens=0",
        "cell.stuck.high_siemens=25e-6",
    ),
    "verified": ("cell.write_verify.window_rel=0.01", "cell.write_verify.max_writes=3"),
    "device_to_device": ("cell.device_to_device.kind=state_independent", "cell.device_to_device.error_rel=0.02"),
    "one_over_f": (
        "cell.low_frequency_noise.kind=one_over_f", "cell.low_frequency_noise.q_scale=0.0088", "cell.low_frequency_noise.q_exponent=0.65",
        "cell.low_frequency_noise.q_cap=0.2", "cell.low_frequency_noise.over_siemens=25e-6",
        "cell.low_frequency_noise.t_read_s=250e-9", "cell.low_frequency_noise.t_s=86400",
    ),
}  # fmt: skip


@pytest.mark.parametrize("settings", SETTINGS.values(), ids=SETTINGS)
def test_predictions_agree_with_monte_carlo(settings: tuple[str, ...]) -> None:
    plan, images = digits_plan("cnn", *settings, error_rel=0.02), digits_samples()[100:116]
    report = predict(plan, images, seed=5, tol_rel=0.04)
    trials = monte_carlo(plan, images, seed=6, rel_error=0.03, max_trials=8000)
    assert trials.agreement_with(report).agrees, (report.reason, trials.agreement_with(report))
    assert sum(report.by_cause.values()) == pytest.approx(report.mse)
    without = predict(digits_plan("cnn", error_rel=0.02), images, seed=5)
    assert abs(trials.mse / without.mse - 1.0) > 0.1, "the negative control: the law left out"


def test_adding_a_law_does_not_change_the_draws_of_others() -> None:
    plain = digits_plan("cnn", error_rel=0.02)
    stuck = digits_plan("cnn", *SETTINGS["stuck"], error_rel=0.02)
    draws = [Programmer(plan, seed=3).draw(0).cells for plan in (plain, stuck)]
    a, b = (np.concatenate([part.ravel() for cells in draw.values() for part in cells]) for draw in draws)
    same = a == b
    assert 0.9 < same.mean() < 1.0
    assert set(np.unique(b[~same])) <= {np.float32(0.0), np.float32(25e-6)}


def test_published_fits_in_two_pieces() -> None:
    """The Hermes chip's drift and noise, read off their formulas by hand: below the knee, and above it."""
    cell = Accelerator.preset("pcm_hermes_1dev").cell
    drift, noise = cell.drift, cell.low_frequency_noise
    assert isinstance(drift, PiecewiseDrift)
    assert isinstance(noise, PiecewiseOneOverF)
    states = 10.35e-6 * np.array([0.05, 0.5])
    mean, std = drift.exponent(states)
    expected = [-0.0387 * np.log(0.05) - 0.0182, -0.0436 * 0.25 - 0.0126 * 0.5 + 0.0736]
    np.testing.assert_allclose(mean, expected, rtol=1e-12)
    np.testing.assert_allclose(std, [-0.0120 * np.log(0.05) - 0.0023, -0.0165 * 0.25 + 0.0116 * 0.5 + 0.0104], rtol=1e-12)
    q = [-0.0078 * np.log(0.05) + 0.0038, 0.0664 * 0.125 - 0.1352 * 0.25 + 0.0768 * 0.5 + 0.0088]
    np.testing.assert_allclose(noise.q(states), q, rtol=1e-12)
    assert drift.exponent(np.zeros(1))[0][0] == 0.13, "held at its limit"
    with pytest.raises(SpecError, match="low"):
        LogThenPolynomial(knee=0.1, slope=1.0, offset=0.0, low=1.0, high=0.5, coefficients=(0.0,))


class TestPiecewiseOneOverF(CellLawContract):
    laws = (
        PiecewiseOneOverF(
            over_siemens=25e-6, t_read_s=1e-6, t_s=100.0,
            by_state=LogThenPolynomial(knee=0.2, slope=-0.01, offset=0.004, low=0.01, high=0.04, coefficients=(0.02, -0.01)),
        ),
    )  # fmt: skip
    field_name = "low_frequency_noise"


class TestPiecewiseDrift(CellLawContract):
    laws = (
        PiecewiseDrift(
            over_siemens=25e-6, t0_s=200.0, t_s=86400.0,
            mean=LogThenPolynomial(knee=0.1, slope=0.0, offset=0.08, low=0.0, high=0.13, coefficients=(0.082, -0.02)),
            std=LogThenPolynomial(knee=0.3, slope=0.0, offset=0.01, low=0.01, high=0.04, coefficients=(0.01,)),
        ),
    )  # fmt: skip
    field_name = "drift"
