"""What `python -m benchmarks` prints and keeps: one table a word."""

import argparse
import os
from collections.abc import Callable
from pathlib import Path

from benchmarks import (
    accuracy,
    bound,
    dask_cost,
    factor,
    growth,
    headline,
    normals,
    sobol,
    sweep,
    sweeps,
    timing,
    torch_peer,
    training,
    trials,
    wires,
)
from benchmarks.tables import shown_table, updated
from validation.networks import DataMissingError
from validation.tables import Row

Options = argparse.Namespace
EMBEDDED = ("fashion_cnn", "fashion_resnet")


def run(arguments: list[str]) -> None:
    """Make the tables that are asked for; with none, normals and the ways to an MSE for the embedded or given networks."""
    options = _parser().parse_args(arguments)
    words, options.networks = _sorted(options.what)
    if torch_peer.torch is None:
        print("PyTorch is not installed: its columns are left out (extra `train`).\n")
    print(f"load average {os.getloadavg()[0]:.2f} on {os.cpu_count()} CPUs")
    for word in words or ["normals"]:
        TABLES[word](options)
    if not words:
        for name in options.networks or EMBEDDED:
            _each(name, lambda name: _print(_questions(name, options)))


def _sorted(what: list[str]) -> tuple[list[str], tuple[str, ...]]:
    """Return the tables, and what they are made for; `dask` is a table, and an executor behind `sweeps`."""
    words: list[str] = []
    others: list[str] = []
    for word in what:
        is_table = word in TABLES and not ("sweeps" in words and word in sweeps.WAYS)
        (words if is_table else others).append(word)
    return words, tuple(others)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks",
        description="Speed and accuracy beside the peers', measured in one run: one thread, CPU time, in turns, medians.",
        epilog="Tables: " + "; ".join(f"{word}: {(make.__doc__ or '').rstrip('.')}" for word, make in TABLES.items()),
    )
    parser.add_argument("what", nargs="*", metavar="TABLE | NETWORK", help="tables to make, and networks (or executors) for them")
    parser.add_argument("--images", type=int, default=64, help="images a question is asked for (64)")
    parser.add_argument("--error-rel", type=float, default=0.003, help="programming error over the largest conductance (0.003)")
    parser.add_argument("--out", type=Path, default=Path("docs/tables"), help="folder of the tables (docs/tables)")
    return parser


def _normals(options: Options) -> None:
    """Time of a standard normal."""
    normals.report()


def _wires(options: Options) -> None:
    """Currents of an array with line resistance beside SciPy's sparse solvers."""
    for size in wires.SIZES:
        _keep(options.out / "wires.csv", list(wires.rows(size)), key=("size", "way"))
    _keep(options.out / "wires_iterations.csv", wires.iterations(), key=("size",))


def _trials(options: Options) -> None:
    """A Monte-Carlo trial of a whole network beside PyTorch's, and beside a computed bound."""
    machine = bound.measured()
    print(f"\nbound: {1e9 * machine.normal_s:.2f} ns a normal, {machine.peak_per_s / 1e9:.0f} GFLOP/s")
    for name in options.networks or trials.NETWORKS:
        _each(name, lambda name: _keep(options.out / "trials.csv", trials.rows(name, n_images=options.images, machine=machine)))


def _threads(options: Options) -> None:
    """Wall time of trials with two threads beside one; means something on an idle machine only."""
    for name in options.networks or trials.NETWORKS:
        _each(name, lambda name: _keep(options.out / "threads.csv", [trials.threads_row(name, n_images=options.images)], key=("network",)))


def _headline(options: Options) -> None:
    """CPU time to know an MSE to 2 %: predictions, our Monte-Carlo, PyTorch's."""
    table: list[Row] = []
    for name in options.networks or headline.NETWORKS:
        _each(name, lambda name: table.extend(_keep(options.out / "headline.csv", _questions(name, options))))
    _print(headline.brief(table))


def _sweep(options: Options) -> None:
    """10,000 designs by the closed form beside as many Monte-Carlo runs."""
    for name in options.networks or sweep.NETWORKS:
        _each(name, lambda name: _keep(options.out / "sweep.csv", _both(lambda clip: sweep.row(
            name, n_images=options.images, error_rel=options.error_rel, clip=clip))))  # fmt: skip


def _sweeps(options: Options) -> None:
    """A sweep of 1,000 predictions of fashion_cnn on every or the named executors: bits, throughput, efficiency, a kill."""
    for row in sweeps.rows(options.networks):
        _keep(options.out / "sweeps.csv", [row], key=("way",))


def _dask(options: Options) -> None:
    """What Dask adds to a sweep: start, background, tasks; efficiency over the number of points."""
    for row in dask_cost.rows():
        _keep(options.out / "dask.csv", [row], key=("settings", "points"))


def _accuracy(options: Options) -> None:
    """Predicted accuracy beside Monte-Carlo's, 1,000 images, over noise."""
    for name in options.networks or accuracy.NETWORKS:
        _each(name, lambda name: _keep(options.out / "accuracy.csv", accuracy.rows(name)))


def _factor(options: Options) -> None:
    """Plain trials that one controlled trial replaces, over noise, with a picture."""
    table: list[Row] = []
    for name in options.networks or factor.NETWORKS:
        _each(name, lambda name: table.extend(_keep(options.out / "factor.csv", factor.rows(name, n_images=options.images))))
    factor.save(table, options.out.parent / "pictures" / "factor.png")


def _sobol(options: Options) -> None:
    """Quasi-random numbers in the leading directions, with and without the control variate."""
    _keep(options.out / "sobol.csv", sobol.rows(n_images=options.images), key=("network", "error_rel"))


def _growth(options: Options) -> None:
    """Time and memory of the predictors over the size of the network, with a picture."""
    table = _keep(options.out / "growth.csv", growth.rows(), key=("method", "size", "value"))
    growth.save(table, options.out.parent / "pictures" / "growth.png")


def _timing(options: Options) -> None:
    """Engines of time on ResNet-50, and a sweep of 1,000 designs."""
    _keep(options.out / "timing.csv", list(timing.rows()), key=("what", "of"))


def _training(options: Options) -> None:
    """A step of training for unreliable memory beside a step of SGD; needs PyTorch."""
    if torch_peer.torch is None:
        print("\ntraining: left out: needs the extra `train`")
        return
    _keep(options.out / "training.csv", list(training.rows()), key=("layers", "method"))


TABLES: dict[str, Callable[[Options], None]] = {
    "normals": _normals,
    "trials": _trials,
    "threads": _threads,
    "headline": _headline,
    "sweep": _sweep,
    "sweeps": _sweeps,
    "dask": _dask,
    "accuracy": _accuracy,
    "factor": _factor,
    "sobol": _sobol,
    "growth": _growth,
    "wires": _wires,
    "timing": _timing,
    "training": _training,
}


def _each(name: str, make: Callable[[str], object]) -> None:
    """Make what concerns one network, or say which data is missing."""
    try:
        make(name)
    except (DataMissingError, NotImplementedError) as error:
        print(f"\n{name}: left out: {error}")


def _questions(name: str, options: Options) -> list[Row]:
    return [
        row
        for clip in (True, False)
        for row in headline.rows(name, n_images=options.images, error_rel=options.error_rel, clip=clip)
    ]


def _both(make: Callable[[bool], Row]) -> list[Row]:
    return [make(clip) for clip in (True, False)]


def _keep(path: Path, rows: list[Row], *, key: tuple[str, ...] = ("network", "cells")) -> list[Row]:
    """Print the rows, and put them into their table."""
    _print(rows)
    updated(path, rows, key=key)
    return rows


def _print(rows: list[Row]) -> None:
    print("\n" + shown_table(rows), flush=True)
