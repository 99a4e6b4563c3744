"""Every table that README and documentation claim: what it says, how it is made, judged, and compared with the one that is kept."""

import subprocess
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any

from validation import chips, ecc, joint, memory, specs
from validation.moved import Rule
from validation.networks import EXTERNAL, DataMissingError
from validation.tables import AGREEMENT, CLOSURES, DEEP, QUICK, Row, Study, agreement_table, judged, read_rows, resumed_table, write_rows
from workloads.zoo import embedded_names

Tell = Callable[[str], None]
Judge = Callable[[list[Row]], Mapping[str, Any]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Order:
    """What is asked of a table: its folder, networks (empty: all), if the quick version will do, where networks in training are."""

    out: Path
    networks: tuple[str, ...] = ()
    quick: bool = False
    work: Path = Path(".memory_training")


@dataclass(frozen=True, slots=True, kw_only=True)
class Table:
    """One table.

    Parameters
    ----------
    says
        What it claims.
    make
        Makes it into the folder of an order, going on where it was interrupted, and returns its rows.
    rule
        How it is compared.
    judge
        Returns what is beyond its bars, by name; None for data that is only read.
    is_speed
        Whether it is of times, which are other on another machine; left out unless asked for.
    """

    says: str
    make: Callable[[Order, Tell], list[Row]]
    rule: Rule
    judge: Judge | None = None
    is_speed: bool = False


TRAINED = ("fashion_mnist", "cifar10_jpeg")
"""Data sets that `memory_training` is of, in place of networks."""
RATIO = Rule(key=("cell", "method"), value="ratio", low="ci_low", high="ci_high", words=("used", "valid"))


def _studies(studies: tuple[Study, ...], name: str, methods: tuple[str, ...]) -> Callable[[Order, Tell], list[Row]]:
    def make(order: Order, tell: Tell) -> list[Row]:
        asked = QUICK if order.quick else studies
        if order.networks:
            asked = tuple(study for study in asked if study.network in order.networks)
        return resumed_table(order.out / f"{name}.csv", agreement_table, tell=tell, studies=asked, methods=methods)

    return make


def _specs(order: Order, tell: Tell) -> list[Row]:
    networks = order.networks or (specs.NETWORKS[:1] if order.quick else specs.NETWORKS)
    return resumed_table(order.out / "specs.csv", specs.spec_table, tell=tell, n_rows=1, networks=networks)


def _memory(order: Order, tell: Tell) -> list[Row]:
    options: dict[str, Any] = {"networks": order.networks or memory.NETWORKS}
    if order.quick:
        options = {"networks": order.networks or memory.NETWORKS[:1], "rates": (1e-6, 1e-4), "n_images": 16}
    return resumed_table(order.out / "memory.csv", memory.memory_table, tell=tell, n_rows=1, **options)


def _joint(order: Order, tell: Tell) -> list[Row]:
    options: dict[str, Any] = {"networks": order.networks or joint.NETWORKS}
    if order.quick:
        options = {"networks": order.networks or joint.NETWORKS[-1:], "budgets_rel": joint.BUDGETS_REL[1:2], "most_images": 8}
    return resumed_table(order.out / "joint.csv", joint.joint_table, tell=tell, n_rows=1, **options)


def _ecc(order: Order, tell: Tell) -> list[Row]:
    n_sampled = 50_000 if order.quick else ecc.N_SAMPLED
    return resumed_table(order.out / "ecc.csv", ecc.ecc_table, tell=tell, n_rows=1, n_sampled=n_sampled)


def _chips(order: Order, tell: Tell) -> list[Row]:
    networks = order.networks or (chips.NETWORKS[:1] if order.quick else chips.NETWORKS)
    return resumed_table(order.out / "chips.csv", chips.chip_table, tell=tell, n_rows=1, networks=networks)


def _memory_training(order: Order, tell: Tell) -> list[Row]:
    """Train, test and sum up; networks in training are kept, and gone on with."""
    try:
        import torch  # noqa: F401
    except ImportError:
        raise DataMissingError("PyTorch is not installed; it comes with the extra `train`: pip install 'accelsim[train]'") from None
    from validation import memory_training as study

    studies = tuple(s for s in (study.QUICK if order.quick else study.STUDIES) if not order.networks or s.data in order.networks)
    place = order.out / "memory_training_cells.csv"
    found = study.summary(resumed_table(place, study.training_table, tell=tell, n_rows=1, studies=studies, work=order.work))
    write_rows(order.out / "memory_training.csv", found)
    return found


def _judged_training(rows: list[Row]) -> dict[str, Any]:
    """Return the data sets on which the published factor is not reached."""
    from validation import memory_training as study

    return {"beyond_bar": [name for name, of in study.judged(rows).items() if not of["reached"]]}


def _not_valid(rows: list[Row]) -> dict[str, Any]:
    return {"not_valid": [row["cell"] for row in rows if str(row["valid"]) != "True"]}


def _published(name: str) -> Callable[[Order, Tell], list[Row]]:
    """Return what makes a table of published numbers beside ours."""

    def make(order: Order, tell: Tell) -> list[Row]:
        module = import_module(f"validation.{name}")
        rows = [{column: _rounded(row[column]) for column in module.COLUMNS} for row in getattr(module, f"{name}_table")()]
        write_rows(order.out / f"{name}.csv", rows)
        for row in rows:
            tell("  ".join(value for value in row.values() if value))
        return rows

    return make


def _rounded(value: float | str) -> str:
    return f"{value:.6g}" if isinstance(value, float) else str(value)


def _benchmark(name: str) -> Callable[[Order, Tell], list[Row]]:
    """Return what makes a table of `python -m benchmarks`, in a process of its own, which has one thread."""

    def make(order: Order, tell: Tell) -> list[Row]:
        if not (Path(__file__).parents[1] / "benchmarks").is_dir():
            raise DataMissingError(f"{name}: benchmarks are in the source, not in the installed package; run in a checkout")
        command = [sys.executable, "-m", "benchmarks", name, *order.networks, "--out", str(order.out)]
        done = subprocess.run(command, cwd=Path(__file__).parents[1], text=True, capture_output=True, check=False)
        tell((done.stdout or done.stderr).strip())
        if done.returncode or not (order.out / f"{name}.csv").exists():
            raise DataMissingError(f"{name}: `{' '.join(command[1:])}` made no table")
        return read_rows(order.out / f"{name}.csv")

    return make


def _speed(name: str, says: str, key: tuple[str, ...]) -> Table:
    return Table(
        says=says, make=_benchmark(name), rule=Rule(key=key, numbers=("*",), tolerance_rel=0.5), is_speed=True
    )


TABLES: dict[str, Table] = {
    "agreement": Table(
        says="predicted over sampled MSE, four networks, clipped and not, four noise levels, each method",
        make=_studies(AGREEMENT, "agreement", CLOSURES), rule=RATIO, judge=judged,
    ),
    "deep": Table(
        says="the same for deep networks and many outputs", make=_studies(DEEP, "deep", ("sketched", "corrected")),
        rule=RATIO, judge=judged,
    ),
    "specs": Table(
        says="predicted over sampled MSE for converters, slices, wires and cells of many kinds", make=_specs,
        rule=Rule(key=("cell", "spec"), value="ratio", low="ci_low", high="ci_high", words=("used", "valid")), judge=specs.judged,
    ),
    "joint": Table(
        says="conductances and memory energy under one budget, against either alone", make=_joint,
        rule=Rule(key=("cell",), value="mse", low="ci_low", high="ci_high"), judge=joint.judged,
    ),
    "memory": Table(
        says="predicted over sampled MSE of networks in memories that err", make=_memory,
        rule=Rule(key=("cell",), value="ratio", se_rel="se_rel", words=("within", "valid")), judge=memory.judged,
    ),
    "ecc": Table(
        says="where codes pay under each law of memory: closed forms, roots, decoded words and scans", make=_ecc,
        rule=Rule(key=("cell",), words=("pays",), numbers=("*",), tolerance_rel=0.01), judge=ecc.judged,
    ),
    "chips": Table(
        says="accuracy, causes and power of the presets of whole chips", make=_chips, judge=_not_valid,
        rule=Rule(key=("cell",), words=("used", "valid"), numbers=("mse_rel", "read_power_w"), tolerance_rel=0.02),
    ),
    "memory_training": Table(
        says="what training for unreliable memory saves, beside what is published", make=_memory_training, judge=_judged_training,
        rule=Rule(key=("data", "method", "n_domains"), numbers=("*",), tolerance_rel=0.05),
    ),
    "mnsim": Table(
        says="latency, energy and area beside MNSIM 2.0's own", make=_published("mnsim"),
        rule=Rule(key=("network", "quantity", "buffers"), numbers=("mnsim", "ours")),
    ),
    "neurosim": Table(
        says="energy of reading ResNet-18 beside NeuroSim's", make=_published("neurosim"),
        rule=Rule(key=("layer",), numbers=("neurosim_uj", "by_data_rel", "drivers_rel")),
    ),
    "pipecnn": Table(
        says="times of FPGA pipelines beside PipeCNN's published log", make=_published("pipecnn"),
        rule=Rule(key=("platform", "vec_size", "lanes", "network", "what"), numbers=("measured_ms", "predicted_ms")),
    ),
    "accuracy": Table(
        says="predicted accuracy beside Monte-Carlo's on 1,000 images", make=_benchmark("accuracy"),
        rule=Rule(key=("network", "cells", "error_rel"), words=("within",), numbers=("predicted",), tolerance_rel=5e-3),
    ),
    "headline": _speed("headline", "CPU time to know an MSE to 2 %", ("network", "cells", "way")),
    "sweep": _speed("sweep", "10,000 designs by the closed form", ("network", "cells")),
    "trials": _speed("trials", "a Monte-Carlo trial beside PyTorch's and a bound", ("network", "cells")),
    "factor": _speed("factor", "plain trials that a controlled one replaces", ("network", "cells", "error_rel")),
    "growth": _speed("growth", "time and memory over the size of the network", ("method", "size", "value")),
    "wires": _speed("wires", "currents with line resistance beside sparse solvers", ("size", "way")),
    "sobol": _speed("sobol", "quasi-random numbers and the control variate", ("network", "error_rel")),
    "timing": _speed("timing", "engines of time on ResNet-50", ("what", "of")),
    "sweeps": _speed("sweeps", "sweeps on every executor: bits, throughput, efficiency", ("way",)),
    "dask": _speed("dask", "what a sweep costs on Dask, over its number of points", ("settings", "points")),
    "training": _speed("training", "a step of training for unreliable memory beside a step of SGD", ("layers", "method")),
}  # fmt: skip


def networks_of(name: str) -> tuple[str, ...]:
    """Return the networks that a table may be limited to."""
    known = {"agreement": tuple(s.network for s in AGREEMENT), "deep": tuple(s.network for s in DEEP), "memory_training": TRAINED}
    return known.get(name, (*embedded_names(), *EXTERNAL))


def spent_s(rows: list[Row]) -> float | None:
    """Return the CPU time that a table says it took, of each prediction and each cell's Monte-Carlo run; None where it says none."""
    if not rows or "cpu_s" not in rows[0] or "cell" not in rows[0]:
        return None
    runs = {row["cell"]: float(row.get("mc_cpu_s") or 0.0) for row in rows}
    return sum(float(row["cpu_s"]) for row in rows) + sum(runs.values())
