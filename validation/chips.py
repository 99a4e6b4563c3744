"""Presets of whole chips on the embedded networks: accuracy, error by cause, and read power of each, in one table."""

import time
from collections.abc import Iterator

from accelsim.accelerator import Accelerator
from accelsim.placement import place
from accelsim.prediction.predict import predict
from accelsim.report.records import INTERACTION
from validation.networks import network_and_samples
from validation.tables import SEED, Row

CHIPS = ("isaac", "puma", "prime", "mnsim_default", "neurram", "sonos", "sonos_retention", "pcm_chip")
NETWORKS = ("fashion_cnn", "fashion_resnet")
N_IMAGES, TOL_REL = 64, 0.05


def chip_table(*, networks: tuple[str, ...] = NETWORKS, done: tuple[str, ...] = ()) -> Iterator[Row]:
    """Yield one row a chip and network."""
    for name in networks:
        wanted = [chip for chip in CHIPS if f"{name} {chip}" not in done]
        if not wanted:
            continue
        network, samples = network_and_samples(name, 64 + N_IMAGES)
        for chip in wanted:
            started = time.process_time()
            plan = place(network, Accelerator.preset(chip), calibration=samples[:64])
            report = predict(plan, samples[64:], seed=SEED, tol_rel=TOL_REL)
            causes = sorted((c for c in report.by_cause if c != INTERACTION), key=lambda c: -report.by_cause[c])
            yield {
                "cell": f"{name} {chip}",
                "network": name,
                "chip": chip,
                "accuracy_clean": _percent(report.accuracy_clean),
                "accuracy_quantized": _percent(report.accuracy_quantized),
                "accuracy_predicted": _percent(report.accuracy_predicted),
                "mse_rel": f"{report.mse_rel:.3g}",
                "causes": ", ".join(f"{c} {report.by_cause[c] / report.mse:.2g}" for c in causes),
                "read_power_w": f"{report.read_power_w:.3g}",
                "used": report.method,
                "own_estimate": f"{report.rel_error_estimate:.3f}",
                "valid": report.valid,
                "cpu_s": f"{time.process_time() - started:.1f}",
            }


def _percent(share: float | None) -> str:
    return "-" if share is None else f"{100.0 * share:.1f} %"
