"""Causes in any combination: random specs, each predicted and sampled."""

import random
from collections.abc import Callable

import pytest

from accelsim.prediction.predict import predict
from accelsim.sampling.monte_carlo import monte_carlo
from tests.digits import digits_plan, digits_samples

Settings = list[str]


def _dac(choose: random.Random) -> Settings:
    kind, bits = choose.choice(["uniform", "sign_magnitude"]), choose.choice([4, 6, 8])
    serial = [f"drive.slice_bits={choose.choice([1, 2, 3])}"] if choose.random() < 0.5 else []
    return [f"drive.dac.kind={kind}", f"drive.dac.n_bits={bits}", *serial]


def _adc(choose: random.Random) -> Settings:
    if choose.random() < 0.3:
        return ["sense.adc.kind=sar", "sense.adc.mismatch_rel=0.03", "sense.adc.n_bits=7"]
    kind, bits, rule = choose.choice(["uniform", "sign_magnitude"]), choose.choice([5, 6, 8]), choose.choice(["max", "mse", "full"])
    return [f"sense.adc.kind={kind}", f"sense.adc.n_bits={bits}", f"sense.adc.range={rule}"]


def _drift(choose: random.Random) -> Settings:
    law = "cell.drift={kind='power_law',nu_mean=0.03,nu_std=0.01,t0_s=20,t_s=3600}"
    return [law, "mapping.drift_compensation=true"] if choose.random() < 0.7 else [law]


PARTS: tuple[Callable[[random.Random], Settings], ...] = (
    lambda _: ["mapping.encoding=offset"],
    lambda choose: [choose.choice(["mapping.slice_bits=[2,2,2]", "mapping.slice_bits=[3,3]", "mapping.levels=32"])],
    lambda choose: [f"mapping.scale={choose.choice(['column', 'network', 'layer'])}"],
    lambda choose: [f"mapping.array.n_rows={choose.choice([8, 16, 30])}"],
    _dac,
    _adc,
    lambda choose: [f"cell.read_noise.kind={choose.choice(['state_independent', 'proportional'])}", "cell.read_noise.error_rel=0.01"],
    lambda _: ["cell.device_to_device.kind=proportional", "cell.device_to_device.error_rel=0.05"],
    lambda _: ["cell.write_verify.window_rel=0.01", "cell.write_verify.max_writes=4"],
    _drift,
    lambda _: ["mapping.array.word_ohm=100", "mapping.array.bit_ohm=100"],
    lambda _: ["mapping.bias=device"],
    lambda _: ["cell.g_min_siemens=1e-6"],
    lambda _: ["mapping.precompensate=true"],
    lambda choose: [choose.choice([
        "cell.conduction={kind='sinh',v0_v=0.2,measured_at_v=0.2,limit_v=0.3}",
        "cell.conduction={kind='polynomial',coefficients=[0.0,4.0],limit_v=0.2}",
    ])],
    lambda _: ["cell.drift={kind='relaxation',shift_siemens=-2e-8,spread_siemens=1e-7,widening_siemens=1e-8,t_s=3600}"],
    lambda _: ["sense.adc={kind='uniform',n_bits=7,range='max',range_per='tile'}", "mapping.array.n_rows=12"],
    lambda _: ["cell.stuck={kind='stuck_at',low_p=0.001,high_p=0.0003,low_siemens=0.0,high_siemens=25e-6}"],
)
QUICK, ALL = range(8), range(8, 60)


@pytest.mark.parametrize("seed", [*QUICK, *(pytest.param(seed, marks=pytest.mark.slow) for seed in ALL)])
def test_a_random_spec_is_predicted_as_it_is_sampled(seed: int) -> None:
    """Within the prediction's own estimate and Monte-Carlo's interval; causes add up; power agrees."""
    choose = random.Random(seed)
    settings = [setting for part in choose.sample(PARTS, choose.randint(2, 6)) for setting in part(choose)]
    network, error_rel = choose.choice(["mlp", "cnn", "resnet", "maxpool"]), choose.choice([0.005, 0.02])
    if "mapping.encoding=offset" in settings:  # a precompensated cell needs its pair, and the spec says so
        settings = [setting for setting in settings if "precompensate" not in setting]
    plan = digits_plan(network, *settings, error_rel=error_rel)
    images = digits_samples()[100:116]
    report = predict(plan, images, seed=seed)
    trials = monte_carlo(plan, images, seed=seed + 1, rel_error=0.04, max_trials=1500)
    met = trials.agreement_with(report)
    half = 0.5 * (met.ratio_ci[1] - met.ratio_ci[0])
    told = f"{network} {error_rel} {settings}: {met.ratio:.3f} +- {half:.3f}, own estimate {report.rel_error_estimate:.3f}"
    assert abs(met.ratio - 1.0) < report.rel_error_estimate + 1.5 * half + 0.01, told
    assert sum(report.by_cause.values()) == pytest.approx(report.mse), told
    assert sum(report.by_layer.values()) == pytest.approx(report.mse), told
    faults = any("stuck" in setting for setting in settings)  # sixteen chips with a few cells stuck high differ in power
    assert report.read_power_w == pytest.approx(trials.read_power_w, rel=0.3 if faults else 0.06), told
