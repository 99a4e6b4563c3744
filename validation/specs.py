"""Specs that mix causes, each predicted and sampled: the table that says how well one algebra holds together."""

import time
from collections.abc import Iterator, Sequence

from accelsim.accelerator import Accelerator
from accelsim.placement import place
from accelsim.prediction.predict import predict
from accelsim.report.records import INTERACTION
from accelsim.sampling.monte_carlo import monte_carlo
from validation.networks import network_and_samples
from validation.tables import SEED, Row

BAR, BELOW = 0.03, 0.1
"""How close a prediction must come, where the relative MSE is below the second number."""
NETWORKS = ("fashion_cnn", "resnet8_cifar10")
N_IMAGES, REL_ERROR, MAX_TRIALS = 32, 0.02, 3_000

_DAC8, _DAC6 = (("drive.dac.kind=uniform", f"drive.dac.n_bits={bits}") for bits in (8, 6))
_ADC8, _ADC6 = (("sense.adc.kind=uniform", f"sense.adc.n_bits={bits}") for bits in (8, 6))
_PERCENTILE = ("sense.adc.range=percentile", "sense.adc.percentile=99.99")
_ROWS = ("mapping.array.n_rows=128", "mapping.array.n_columns=128")
_WIRES = ("mapping.array.word_ohm=2", "mapping.array.bit_ohm=2")
_READ = ("cell.read_noise.kind=state_independent", "cell.read_noise.error_rel=0.003")
_STUCK = (
    "cell.stuck.kind=stuck_at", "cell.stuck.low_p=0.0005", "cell.stuck.high_p=0.00005", "cell.stuck.low_siemens=0",
    "cell.stuck.high_siemens=25e-6",
)  # fmt: skip
_APART = ("cell.device_to_device.kind=state_independent", "cell.device_to_device.error_rel=0.003")
_SINH = ("cell.conduction.kind=sinh", "cell.conduction.v0_v=0.25", "cell.conduction.measured_at_v=0.2")
_ERROR = ("cell.error_rel=0.004",)

SPECS: dict[str, tuple[str, tuple[str, ...]]] = {
    "clipped": ("memse", _ERROR),
    "unclipped": ("memse", (*_ERROR, "cell.clip=false")),
    "proportional": ("memse", ("cell.programming.kind=proportional", "cell.error_rel=0.04")),
    "precompensated, 64 levels": ("memse", (*_ERROR, "mapping.precompensate=true", "mapping.levels=64")),
    "offset": ("memse", (*_ERROR, "mapping.encoding=offset", "cell.error_rel=0.002")),
    "slices 2 2 2 2": ("memse", (*_ERROR, "mapping.slice_bits=[2,2,2,2]")),
    "offset, slices 4 4": ("memse", ("cell.error_rel=0.003", "mapping.encoding=offset", "mapping.slice_bits=[4,4]")),
    "read noise": ("memse", (*_ERROR, *_READ)),
    "read noise, dac 8, adc 8": ("memse", (*_ERROR, *_READ, *_DAC8, *_ADC8)),
    "dac 6": ("memse", (*_ERROR, *_DAC6)),
    "adc 6": ("memse", (*_ERROR, *_ADC6)),
    "adc 8 percentile, 128 rows": ("memse", (*_ERROR, *_ADC8, *_PERCENTILE, *_ROWS)),
    "dac 8, adc 8, 128 rows, slices 4 4": ("memse", (*_ERROR, *_DAC8, *_ADC8, *_ROWS, "mapping.slice_bits=[4,4]")),
    "input slices of 4 bits, adc 8": ("memse", (*_ERROR, *_DAC8, "drive.slice_bits=4", *_ADC8)),
    "sar with mismatch": (
        "memse", (*_ERROR, "sense.adc.kind=sar", "sense.adc.n_bits=8", "sense.adc.mismatch_rel=0.02"),
    ),
    "wires": ("memse", (*_ERROR, *_ROWS, *_WIRES)),
    "wires, adc 8": ("memse", (*_ERROR, *_ROWS, *_WIRES, *_ADC8)),
    "device to device, written and verified": (
        "memse", ("cell.error_rel=0.01", *_APART, "cell.write_verify.window_rel=0.004", "cell.write_verify.max_writes=5"),
    ),
    "stuck cells": ("memse", (*_ERROR, *_STUCK)),
    "stuck cells, adc 8": ("memse", (*_ERROR, *_STUCK, *_ADC8)),
    "phase change, a day, compensated": ("pcm_chip", ("cell.drift.t_s=1 day",)),
    "wan, scaled by column": ("rram_wan_b", ("mapping.scale=column", *_DAC8, *_ADC8)),
    "non-linear cells, sinh": ("memse", (*_ERROR, *_SINH)),
    "non-linear cells, sinh, dac 8, adc 8, wires": ("memse", (*_ERROR, *_SINH, *_DAC8, *_ADC8, *_ROWS, *_WIRES)),
    "non-linear cells by state, dac 8, adc 8": ("rram_milo_iv", (*_DAC8, *_ADC8)),
    "prime": ("prime", ()),
    "sonos": ("sonos", ()),
}  # fmt: skip
"""By name: a preset, and what is set."""


def spec_table(*, networks: Sequence[str] = NETWORKS, done: tuple[str, ...] = ()) -> Iterator[Row]:
    """Yield one row a spec and network: predicted over sampled MSE, and what the prediction says of itself."""
    for name in networks:
        wanted = {spec: how for spec, how in SPECS.items() if f"{name} {spec}" not in done}
        if not wanted:
            continue
        network, samples = network_and_samples(name, 64 + N_IMAGES)
        calibration, images = samples[:64], samples[64:]
        for spec, (preset, settings) in wanted.items():
            plan = place(network, Accelerator.preset(preset, set=settings), calibration=calibration)
            started = time.process_time()
            report = predict(plan, images, seed=SEED + 1, tol_rel=BAR)
            spent = time.process_time() - started
            trials = monte_carlo(plan, images, seed=SEED, rel_error=REL_ERROR, max_trials=MAX_TRIALS)
            met = trials.agreement_with(report)
            causes = sorted((c for c in report.by_cause if c != INTERACTION), key=lambda c: -report.by_cause[c])
            yield {
                "cell": f"{name} {spec}",
                "network": name,
                "spec": spec,
                "mse_rel": f"{trials.mse_rel:.4g}",
                "used": report.method,
                "ratio": f"{met.ratio:.4f}",
                "ci_low": f"{met.ratio_ci[0]:.4f}",
                "ci_high": f"{met.ratio_ci[1]:.4f}",
                "own_estimate": f"{report.rel_error_estimate:.4f}",
                "valid": report.valid,
                "causes": ", ".join(f"{c} {report.by_cause[c] / report.mse:.2g}" for c in causes),
                "n_trials": trials.n_trials,
                "cpu_s": f"{spent:.1f}",
                "mc_cpu_s": f"{trials.cpu_s:.1f}",
            }


def judged(rows: list[Row]) -> dict[str, list[str]]:
    """Return the cells further off than the bar and Monte-Carlo's interval, those of them that called themselves valid, and the alarms."""
    beyond, wrong, alarms = [], [], []
    for row in rows:
        error, half = abs(float(row["ratio"]) - 1.0), 0.5 * (float(row["ci_high"]) - float(row["ci_low"]))
        off, valid = error > BAR + half, str(row["valid"]) == "True"
        if off and float(row["mse_rel"]) < BELOW:
            beyond.append(str(row["cell"]))
        if off and valid:
            wrong.append(str(row["cell"]))
        if not valid:
            alarms.append(str(row["cell"]))
    return {"beyond_bar": beyond, "wrongly_valid": wrong, "not_valid": alarms}
