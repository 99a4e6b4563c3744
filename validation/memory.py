"""Predicted against sampled MSE of networks in memories that err: stored weights, and crossbars whose values are in memories.

Errors are against the network of words without faults. The bar is 3 % and two standard errors, of both. Rare faults of weights are drawn by
importance in trials: plain ones would take millions.
"""

import time
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from accelsim.accelerator import Accelerator
from accelsim.placement import place
from accelsim.prediction.predict import predict
from accelsim.sampling.monte_carlo import monte_carlo
from validation.networks import network_and_samples
from validation.tables import SEED, Row

NETWORKS = ("fashion_cnn", "digit_cnn")
RATES_P = (1e-6, 1e-5, 1e-4, 1e-3, 1e-2)
VALUE_RATES_P, LASTING_RATES_P = (1e-5, 1e-4, 1e-3), (1e-4, 1e-2)
BITS = (4, 8)
N_IMAGES = 32
BAR = 0.03


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """One cell of the table: what is in memory, bits of its numbers, error rate."""

    network: str
    what: str
    n_bits: int
    error_rate_p: float

    @property
    def name(self) -> str:
        """Its name in the table."""
        return f"{self.network} {self.what} {self.n_bits} {self.error_rate_p:g}"

    @property
    def assignments(self) -> tuple[str, ...]:
        """What is set in the preset."""
        if self.what in ("weights", "lasting"):
            kind = "persistent" if self.what == "lasting" else "transient"
            memory = ("use=exponential_published", f"error_rate_p={self.error_rate_p}", f"word.n_bits={self.n_bits}", f"faults.kind={kind}")
            return ("cell.programming=none", *(f"memory.weights.{one}" for one in memory))
        values = [f"memory.{part}.{one}" for part in ("activations", "partial_sums") for one in ("use=exponential_published",)]
        rates = [f"memory.{part}.error_rate_p={self.error_rate_p}" for part in ("activations", "partial_sums")]
        return ("cell.error_rel=0.005", "mapping.array.n_rows=64", *values, *rates, f"memory.activations.word.n_bits={self.n_bits}",
                "memory.partial_sums.word.n_bits=12")  # fmt: skip


def cases(networks: tuple[str, ...] = NETWORKS, rates: tuple[float, ...] = RATES_P) -> Iterator[Case]:
    """Yield the cells: weights of 4 and 8 bits, of 8 with faults that last, crossbars with activations of 8 bits and partial sums of 12."""
    for network in networks:
        yield from (Case(network=network, what="weights", n_bits=n, error_rate_p=p) for n in BITS for p in rates)
        yield from (Case(network=network, what="lasting", n_bits=8, error_rate_p=p) for p in LASTING_RATES_P if p in rates)
        yield from (Case(network=network, what="values", n_bits=8, error_rate_p=p) for p in VALUE_RATES_P if p in rates)


def memory_table(
    *, networks: tuple[str, ...] = NETWORKS, rates: tuple[float, ...] = RATES_P, n_images: int = N_IMAGES, rel_error: float = 0.03,
    done: tuple[str, ...] = (),
) -> Iterator[Row]:  # fmt: skip
    """Yield a row a cell; cells in `done` are skipped."""
    for case in cases(networks, rates):
        if case.name not in done:
            yield _row(case, n_images, rel_error)


def _row(case: Case, n_images: int, rel_error: float) -> Row:
    network, samples = network_and_samples(case.network, n_images)
    plan = place(network, Accelerator.preset("memse", set=case.assignments), calibration=samples)
    started = time.process_time()
    report = predict(plan, samples, seed=SEED + 1, reference="quantized")
    spent = time.process_time() - started
    trials = monte_carlo(plan, samples, seed=SEED, rel_error=rel_error, max_trials=8_000, reference="quantized")
    error = float(np.hypot(report.mse_se, trials.mse_se)) / trials.mse
    by_cause = {name: value / report.mse for name, value in report.by_cause.items() if name.startswith("memory")}
    return {
        "cell": case.name,
        "network": case.network,
        "what": case.what,
        "n_bits": case.n_bits,
        "error_rate_p": f"{case.error_rate_p:g}",
        "mse_rel": f"{trials.mse_rel:.3g}",
        "method": report.method,
        "ratio": f"{report.mse / trials.mse:.4f}",
        "se_rel": f"{error:.4f}",
        "within": abs(report.mse / trials.mse - 1.0) <= BAR + 2.0 * error,
        "own_estimate": f"{report.rel_error_estimate:.4f}",
        "valid": report.valid,
        "share_of_memory": f"{sum(by_cause.values()):.3f}",
        "n_trials": trials.n_trials,
        "n_effective": "" if trials.n_effective is None else f"{trials.n_effective:.0f}",
        "importance": "importance" in trials.control_variate,
        "chip_sd_ratio": f"{report.mse_chip_sd / trials.mse_chip_sd:.2f}" if case.what == "lasting" and report.mse_chip_sd else "",
        "cpu_s": f"{spent:.1f}",
        "mc_cpu_s": f"{trials.cpu_s:.1f}",
    }


def judged(rows: list[Row]) -> dict[str, list[str]]:
    """Return the cells beyond the bar, those whose prediction is wrongly called valid, and how many each method answered."""
    beyond = [str(row["cell"]) for row in rows if str(row["within"]) != "True"]
    wrong = [
        str(row["cell"])
        for row in rows
        if str(row["valid"]) == "True" and abs(float(row["ratio"]) - 1.0) > 0.05 + 2.0 * float(row["se_rel"])
    ]
    methods = sorted({str(row["method"]) for row in rows})
    answered = [f"{name} {sum(row['method'] == name for row in rows)} of {len(rows)}" for name in methods]
    return {"beyond_bar": beyond, "wrongly_valid": wrong, "answered_by": answered}
