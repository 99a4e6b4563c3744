"""Time of the engines: one image of ResNet-50 by each, and a sweep of designs through the recurrence.

Bars: `des` with the default token under 1.5 s and 200,000 events, `recurrence` under 50 ms, 1,000 designs under 2 minutes on two cores.
The network is the one inside the onnx package (its weights never matter here), on PUMA with a product of 16 reads of 128 ns.
"""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx

from accelsim.accelerator import Accelerator
from accelsim.placement import Plan, place
from accelsim.timing.bound import bound
from accelsim.timing.copies import Copies
from accelsim.timing.des import simulate_events
from accelsim.timing.mapping import map_in_time
from accelsim.timing.recurrence import recurrence
from accelsim.timing.simulate import simulate
from benchmarks.clock import cpu_seconds, interleaved
from validation.tables import Row
from workloads.onnx_reader import load_onnx

TOPOLOGIES = Path(onnx.__file__).parent / "backend" / "test" / "data" / "light"
N_DESIGNS, SEED, N_TURNS = 1000, 5, 3
BARS_S = {"recurrence": 0.05, "des": 1.5, "sweep": 240.0}
"""CPU seconds; a sweep may keep two cores busy for two minutes."""


def resnet50() -> Plan:
    """Return ResNet-50 placed on PUMA."""
    network = load_onnx(TOPOLOGIES / "light_resnet50.onnx", fold_limit_bytes=2**30)
    return place(network, Accelerator.preset("puma"), calibration=None)


def rows() -> Iterator[Row]:
    """Yield the CPU time of each engine, then of the sweep."""
    plan, one = resnet50(), np.zeros(1, np.int64)
    choices: tuple[Copies, ...] = ("given", "balanced")
    for copies in choices:
        timed = map_in_time(plan, copies=copies)
        graph = timed.graph
        events = simulate_events(graph, one).n_events
        works = {
            "mapping": lambda copies=copies: map_in_time(plan, copies=copies),
            "bound": lambda graph=graph: bound(graph),
            "recurrence": lambda graph=graph: recurrence(graph, one),
            "des": lambda graph=graph: simulate_events(graph, one),
            "whole report": lambda copies=copies: simulate(plan, copies=copies, images=1),
        }
        for what, seconds in interleaved(works, n=N_TURNS).items():
            yield _row(what, f"copies {copies}, {graph.n_tokens:,} tokens", seconds, events if what == "des" else 0)
    yield _row("sweep", f"{N_DESIGNS} designs", cpu_seconds(lambda: sweep(plan)), 0)


def _row(what: str, of: str, seconds: float, events: int) -> Row:
    row: Row = {"what": what, "of": of, "cpu_s": f"{seconds:.3g}", "bar_s": BARS_S.get(what, "")}
    return row | {"events": events or "", "events_bar": 200_000 if events else ""}


def sweep(plan: Plan) -> list[tuple[float, float]]:
    """Return latency and energy of designs with random copies of each layer, ADC rates and links: each mapped and simulated anew."""
    rng = np.random.default_rng(SEED)
    found = []
    for _ in range(N_DESIGNS):
        copies = {layer.name: int(2 ** rng.integers(0, 5)) for layer in plan.layers}
        columns, bus = int(rng.choice([32, 64, 128])), int(rng.choice([256, 384, 512]))
        spec = plan.accelerator.with_set(f"chip.columns_per_adc={columns}", f"chip.bus_bits={bus}", "chip.n_tiles=none")
        report = simulate(replace(plan, accelerator=spec), copies=copies, images=1)
        found.append((report.latency_s, report.energy_j))
    return found
