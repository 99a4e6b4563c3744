"""The verbs that ask many questions: sweep, collect, explore."""

import argparse
import time
from collections.abc import Iterator
from concurrent.futures import Executor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from accelsim.accelerator import Accelerator
from accelsim.cli_answers import FINE, INTERRUPTED, NO, answer, check_out
from accelsim.cli_inputs import load_network, samples_for, seed_of
from accelsim.cli_terminal import Line, say
from accelsim.report.sweep_report import SweepReport
from accelsim.sweeping.sweep_file import OF_SEARCH, SweepFile, read_sweep_file
from devices import catalog
from devices.base.errors import AccelsimError, RunFolderError, SpecError
from devices.base.toml_codec import shown
from workloads.network import Network
from workloads.samples import Samples


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Asked:
    """What a file and the options beside it ask."""

    file: SweepFile
    network: Network
    accelerator: Accelerator
    samples: Samples | None
    calibration: Samples | None
    seed: int
    out: str | None


def asked_of(options: argparse.Namespace, file: SweepFile, *, needs_samples: bool) -> Asked:
    """Return network, spec and samples of a sweep or search."""
    network = load_network(file.network, input_shape=None)
    accelerator = _accelerator(options, file)
    options.seed = file.seed if options.seed is None else options.seed
    samples, calibration = None, None
    if needs_samples or file.inputs is not None:
        samples, calibration = samples_for(file.network, network, inputs=file.inputs, calibration=file.calibration, flag="inputs")
    out = options.out if options.out is not None else file.out
    return Asked(
        file=file, network=network, accelerator=accelerator, samples=samples, calibration=calibration, seed=seed_of(options), out=out
    )


def _accelerator(options: argparse.Namespace, file: SweepFile) -> Accelerator:
    """Return the described accelerator; a spec that is not there is told with the file that names it."""
    if file.spec not in catalog.names() and not Path(file.spec).is_file():
        is_name = "/" not in file.spec and not Path(file.spec).suffix and not Path(file.spec).exists()
        missing = catalog.unknown(file.spec) if is_name else f"{shown(file.spec)}: no such file"
        raise SpecError(f"{options.file}: spec: {missing}; need a preset, or the path of a spec beside this file")
    return Accelerator.from_toml(file.spec, set=(*file.set, *options.set))


def sweep_verb(options: argparse.Namespace) -> int:
    """Answer `accelsim sweep FILE`."""
    from accelsim.sweeping.sweep import sweep

    file = read_sweep_file(options.file)
    asked = asked_of(options, file, needs_samples=file.asked.get("run", "predict") != "simulate")
    if options.shard is not None and asked.out is None:
        raise SpecError("--shard: jobs of an array meet in a folder; give --out, or `out` in the file")
    progress = SweepProgress("sweep")
    with executor_of(options) as (executor, workers):
        report = sweep(
            asked.network, asked.accelerator, asked.samples, seed=asked.seed, calibration=asked.calibration, out=asked.out,
            executor=executor, workers=workers, shard=options.shard, progress=progress, **file.asked,
        )  # fmt: skip
    progress.close()
    _keep_command(options, asked)
    return _finished(options, report, asked.out)


def _keep_command(options: argparse.Namespace, asked: Asked) -> None:
    """Write the command into the folder, for its page."""
    from accelsim.report.search_folder import write_command

    if asked.out is not None:
        write_command(Path(asked.out), options.command_line)


def _finished(options: argparse.Namespace, report: SweepReport, out: str | None) -> int:
    for line in report.provenance.warnings:
        say(f"note: {line}")
    say(f"{report.counts}" + (f"; {out} has them, `accelsim collect {out}` the table" if out is not None else "; --out keeps them"))
    answer(options, text=str(report), record=report.to_json_dict())
    if report.stopped_by == "interrupt":
        say("accelsim: interrupted; the same command goes on where it stopped" if out is not None else "accelsim: interrupted")
        return INTERRUPTED
    return NO if report.failed else FINE


def collect_verb(options: argparse.Namespace) -> int:
    """Answer `accelsim collect DIR`."""
    from accelsim.report.run_folder import save_report
    from accelsim.report.sweep_folder import collected, write_table

    check_out(options)

    for flag in ("table", "plot"):
        path = getattr(options, flag)
        if path is not None and Path(path).exists():
            raise RunFolderError(f"--{flag}: {path} is there already; give another name, or remove it first")
    report = collected(Path(options.folder))
    if options.table is not None:
        _write_table(report, Path(options.table))
    if options.plot is not None:
        _draw(report, options)
    if options.out is not None:
        save_report(report, options.out, command=options.command_line, figure=bool(report.done))
    try:
        write_table(Path(options.folder), report)
    except RunFolderError as error:  # somebody else's folder, or a full disk: the answer is there all the same
        say(f"note: the folder's table.csv is as it was: {error}")
    answer(options, text=str(report), record=report.to_json_dict())
    if report.missing:
        say(f"{len(report.missing)} of {len(report.points)} points are missing: run the sweep again, which computes only these")
    return NO if report.missing or report.failed else FINE


def _write_table(report: SweepReport, path: Path) -> None:
    if path.suffix not in (".csv", ".parquet"):
        raise SpecError(f"--table: {path}: need a name that ends in .csv or .parquet")
    try:
        report.to_csv(path) if path.suffix == ".csv" else report.to_parquet(path)
    except ImportError as error:
        raise AccelsimError(f"--table: {error}") from None


def _draw(report: SweepReport, options: argparse.Namespace) -> None:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7.0, 4.2), layout="constrained")
    report.plot(figure.subplots(), column=options.column, over=tuple(options.over) if options.over else None)
    try:
        figure.savefig(options.plot, dpi=150)
    except (OSError, ValueError) as error:
        raise RunFolderError(f"--plot: cannot write {options.plot}: {error}; give a name that ends in .png, in a writable place") from error


def explore_verb(options: argparse.Namespace) -> int:
    """Answer `accelsim explore FILE`."""
    from accelsim.exploring.explore import explore

    file = read_sweep_file(options.file, known=OF_SEARCH)
    given = dict(file.asked)
    if "space" not in given:
        raise SpecError(f"{options.file}: space: missing; need a table [space] of paths with ranges or choices")
    if options.trials is not None:
        given["n_trials"] = options.trials
    asked = asked_of(options, file, needs_samples=True)
    assert asked.samples is not None
    line = Line()
    with executor_of(options) as (executor, workers):
        report = explore(
            asked.network, asked.accelerator, asked.samples, seed=asked.seed, calibration=asked.calibration, out=asked.out,
            executor=executor, workers=workers, progress=lambda n, of: line.tell(f"explore: {n} of {of} trials"), **given,
        )  # fmt: skip
    line.close()
    _keep_command(options, asked)
    for text in report.provenance.warnings:
        say(f"note: {text}")
    if asked.out is not None:
        say(f"note: `optuna-dashboard {asked.out}/journal.log` shows the study")
    answer(options, text=str(report), record=report.to_json_dict())
    if report.stopped_by == "interrupt":
        say("accelsim: interrupted" + ("; the same command goes on where it stopped" if asked.out is not None else ""))
        return INTERRUPTED
    return FINE if report.front else NO


@contextmanager
def executor_of(options: argparse.Namespace) -> Iterator[tuple[Executor | None, int | None]]:
    """Give the executor of a Dask cluster and its number of workers, or the number of processes to start."""
    if options.cluster is None:
        yield None, options.workers
        return
    if options.workers is not None:
        raise SpecError("--workers: a cluster has the workers it has; leave it out beside --cluster")
    try:
        from distributed import Client
    except ImportError:
        raise AccelsimError("--cluster needs Dask: pip install 'accelsim[cluster]'") from None
    try:
        client = Client(options.cluster, timeout="10s")
    except (OSError, ValueError, TimeoutError) as error:
        why = " ".join(str(error).split()) or type(error).__name__
        raise AccelsimError(f"--cluster: no scheduler answers at {options.cluster} ({why}); start one with `dask scheduler`") from None
    with client:
        n_workers = sum(client.nthreads().values())
        say(f"note: {n_workers} threads of {len(client.nthreads())} workers at {options.cluster}")
        yield client.get_executor(), max(n_workers, 1)


class SweepProgress:
    """Tells how many points are done, and about how long the others will take."""

    def __init__(self, label: str) -> None:
        self.line = Line()
        self.label = label
        self.started_s = time.monotonic()

    def __call__(self, n: int, n_to_do: int, n_reused: int, left_s: float) -> None:
        """Take news of a sweep: points computed, points to compute, points reused, seconds left."""
        reused = f", {n_reused} reused" if n_reused else ""
        left = f", about {duration(left_s)} left" if n < n_to_do else f" in {duration(time.monotonic() - self.started_s)}"
        self.line.tell(f"{self.label}: {n} of {n_to_do} computed{reused}{left}")

    def close(self) -> None:
        """End the line, if one is open."""
        self.line.close()


def duration(seconds: float) -> str:
    """Return a time as people say it."""
    if seconds < 90.0:
        return f"{seconds:.0f} s"
    return f"{seconds / 60.0:.0f} min" if seconds < 5400.0 else f"{seconds / 3600.0:.1f} h"
