"""Drift: folded exponents against quadrature, chains with clipped cells against samples, compensation, and whole predictions."""

import numpy as np
import pytest
from scipy.integrate import quad

from accelsim.accelerator import Accelerator
from accelsim.optimizer.optimize import optimize
from accelsim.placement import Plan, place
from accelsim.prediction.predict import predict
from accelsim.sampling.monte_carlo import monte_carlo
from devices.base.errors import SpecError
from devices.drift import LogarithmicDrift, PowerLawDrift
from devices.law import CellChain
from devices.programming import StateIndependentError
from validation.statistics import z_of_means
from workloads.samples import Samples
from workloads.zoo import load_embedded_network, load_embedded_samples

G_MAX = 25e-6
DAY = 86400.0


@pytest.mark.parametrize(("mean", "std"), [(0.05, 0.01), (0.02, 0.02), (0.0, 0.03), (0.1, 0.045)])
@pytest.mark.parametrize("t_s", [60.0, DAY, 3e8])
def test_the_moments_of_a_folded_exponent_are_those_of_quadrature(mean: float, std: float, t_s: float) -> None:
    law = PowerLawDrift(nu_mean=mean, nu_std=std, t0_s=20.0, t_s=t_s)
    log_time = np.log((t_s + 20.0) / 20.0)

    def moment(k: int) -> float:
        def weighed(z: float) -> float:
            return float(np.exp(-k * log_time * abs(mean + std * z) - 0.5 * z * z) / np.sqrt(2.0 * np.pi))

        return sum(quad(weighed, a, b, epsabs=0.0, epsrel=1e-11)[0] for a, b in ((-12.0, -mean / std), (-mean / std, 12.0)))

    first, second = law.factors(np.ones(1))
    assert first[0] == pytest.approx(moment(1), rel=1e-9)
    assert second[0] == pytest.approx(moment(2), rel=1e-9)


def test_a_certain_exponent_is_the_power_law_itself() -> None:
    law = PowerLawDrift(nu_mean=0.05, t0_s=20.0, t_s=DAY)
    moments = law.moments(np.array([G_MAX]), G_MAX)
    assert moments.mean_siemens[0] == pytest.approx(G_MAX * ((DAY + 20.0) / 20.0) ** -0.05, rel=1e-12)
    assert moments.variance_siemens2[0] < 1e-12 * G_MAX**2


@pytest.mark.parametrize("drift", [
    PowerLawDrift(nu_mean=0.06, nu_std=0.02, t0_s=20.0, t_s=DAY),
    LogarithmicDrift(over_siemens=G_MAX, mean_slope=-0.0155, mean_offset=0.0244, mean_low=0.049, mean_high=0.1, std_slope=-0.0125,
                     std_offset=-0.0059, std_low=0.008, std_high=0.045, t0_s=20.0, t_s=DAY),
])  # fmt: skip
def test_a_chain_of_clipped_cells_and_drift_has_the_moments_of_its_samples(drift: PowerLawDrift) -> None:
    """From zero, where half of the cells are clipped, to the top: z below 4.5 of 36 numbers; without clipping (the control) it fails."""
    chain = CellChain((StateIndependentError(error_rel=0.03), drift))
    targets = G_MAX * np.array([0.0, 0.01, 0.03, 0.1, 0.2, 0.3, 0.5, 0.8, 1.0])
    shape = (len(targets), 200_000)
    random = np.random.default_rng(2)
    normals = random.standard_normal(shape), random.standard_normal(shape)
    stored = chain.sample(np.repeat(targets[:, None], shape[1], axis=1), G_MAX, normals=normals)
    moments = chain.moments(targets, G_MAX)
    assert np.abs(z_of_means(moments.mean_siemens, stored)).max() < 4.5
    assert np.abs(z_of_means(moments.variance_siemens2, (stored - moments.mean_siemens[:, None]) ** 2)).max() < 4.5
    wrong = CellChain((StateIndependentError(error_rel=0.03, clip=False), drift)).moments(targets, G_MAX)
    assert np.abs(z_of_means(wrong.mean_siemens, stored)).max() > 50


def planned(*assignments: str, preset: str = "pcm_nandakumar") -> tuple[Plan, Samples]:
    samples = load_embedded_samples("fashion_cnn")[:32]
    return place(load_embedded_network("fashion_cnn"), Accelerator.preset(preset, set=assignments), calibration=samples), samples


@pytest.mark.parametrize("compensated", [False, True])
def test_prediction_and_monte_carlo_agree_a_day_after_programming(compensated: bool) -> None:
    plan, samples = planned("cell.drift.t_s=1 day", f"mapping.drift_compensation={str(compensated).lower()}")
    predicted = predict(plan, samples, seed=1)
    trials = monte_carlo(plan, samples, seed=2, rel_error=0.03, max_trials=3_000)
    assert predicted.valid
    assert abs(predicted.mse / trials.mse - 1.0) < 0.05 + 0.03
    assert set(predicted.by_cause) == {"programming", "drift", "interaction"}
    assert sum(predicted.by_cause.values()) == pytest.approx(predicted.mse)
    assert any("86.4 ks after programming" in line or "day" in line for line in predicted.meaning)


def test_compensation_gives_back_what_was_lost_on_average() -> None:
    """The sum of a layer's conductances, read: as programmed; and most of the error of a day's drift is gone."""
    errors = []
    for compensated in ("false", "true"):
        plan, samples = planned("cell.drift.t_s=1 day", "cell.programming=none", f"mapping.drift_compensation={compensated}")
        report = predict(plan, samples, seed=1)
        errors.append(report.mse)
        assert report.by_cause["drift"] == pytest.approx(report.mse, rel=0.05)
        site = plan.layers[0].site
        mean, _ = site.stored()
        left = sum(part.sum() for part in mean) / sum(part.sum() for part in site.targets())
        ratio = site.read_scale_siemens / site.scale_siemens
        np.testing.assert_allclose(ratio, left if compensated == "true" else 1.0)
    assert errors[1] < 0.2 * errors[0]


def test_no_time_is_no_drift() -> None:
    plan, samples = planned()
    without, _ = planned("cell.drift=none")
    assert predict(plan, samples, seed=1).mse == pytest.approx(predict(without, samples, seed=1).mse, rel=1e-6)


def test_a_spec_holds_drift_and_gives_it_back() -> None:
    chip = Accelerator.preset("pcm_nandakumar", set=("cell.drift.t_s=1 h", "mapping.drift_compensation=true"))
    again = Accelerator.from_text(chip.to_toml())
    assert again.cell.drift == chip.cell.drift
    assert again.cell.drift.t_s == 3600.0  # type: ignore[union-attr]
    assert again.mapping.drift_compensation


def test_faulty_drift_is_told() -> None:
    with pytest.raises(SpecError, match=r"cell\.drift\.t_s: -1\.0: need t_s >= 0|t_s"):
        Accelerator.preset("pcm_nandakumar", set=("cell.drift.t_s=-1",))
    with pytest.raises(SpecError, match=r"mean_low: 0\.2: need at most mean_high, 0\.1"):
        Accelerator.preset("pcm_nandakumar", set=("cell.drift.mean_low=0.2",))


def test_optimize_looks_drifted_cells_up_in_a_table() -> None:
    plan, samples = planned("cell.drift={kind='power_law', nu_mean=0.05, t0_s=20, t_s=3600}", preset="memse")
    report = optimize(plan, samples, seed=1, power_budget_w=1.0, mc_max_trials=0)
    assert report.feasible
    assert any("no closed form" in note for note in report.notes)
