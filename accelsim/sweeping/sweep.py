"""sweep(): one question at many points; only what is not known yet is computed."""

import json
import pickle
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import Executor, ProcessPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

from accelsim._version import __version__
from accelsim.accelerator import Accelerator
from accelsim.placement import check_samples
from accelsim.report.origin import Provenance
from accelsim.report.sweep_folder import POINTS, Known, PointStore, SweepQuestion, prepare, report_of, write_question, write_table
from accelsim.report.sweep_report import SweepReport
from accelsim.sweeping.axes import OF_RUN, Axis, Layout, Values, assignment, axes_of, laid_out, listed
from accelsim.sweeping.execute import Done, run_here, run_on
from accelsim.sweeping.pool import Pool
from accelsim.sweeping.runs import RESUMABLE, Run, Runnable, checked_options, option_record, runnable
from accelsim.sweeping.worker import Inputs, Task, hold, let_go
from devices.base.errors import RunFolderError, SamplesError, SpecError
from workloads.network import Network, digest_of
from workloads.samples import Samples

N_CALIBRATION = 64
"""Samples that a sweep calibrates on when it is given none for it."""
MAX_WORKERS = 4096
Progress = Callable[[int, int, int, float], None]
"""Called with points computed, points to compute, points reused, and the seconds that are left."""


def sweep(
    network: Network,
    accelerator: Accelerator,
    samples: Samples | None = None,
    *,
    seed: int,
    axes: Mapping[str, Any] | None = None,
    points: Sequence[Mapping[str, Any]] | None = None,
    design: Layout = "grid",
    n_points: int | None = None,
    run: Run = "predict",
    options: Mapping[str, Any] | None = None,
    calibration: Samples | None = None,
    out: str | Path | None = None,
    executor: Executor | None = None,
    workers: int | None = None,
    shard: tuple[int, int] | None = None,
    progress: Progress | None = None,
) -> SweepReport:
    """Answer one question at many points, and keep each answer where the same point finds it again.

    Parameters
    ----------
    axes
        Paths as in `--set`, with a list of values or a range (`Span`, or a table of its fields); `run.NAME` is an option of the run.
    points
        Instead of axes: a list of tables that give the same fields values.
    design, n_points
        `grid`: every combination. `random`, `sobol`: `n_points` in the ranges; a longer sequence begins with the shorter.
    run, options
        `predict`, `monte_carlo`, `simulate`, `evaluate`, `optimize`, or a function of plan, samples, `seed=` and options that returns
        a report or numbers by name.
    calibration
        Samples that fix each layer's input range; by default the first 64 of `samples`.
    out
        Folder of the answers. A point's file is named by a digest of spec, network, samples, seed, version, run and options: a sweep
        that is repeated, continued or widened computes only what is missing there.
    executor, workers
        Anything of `concurrent.futures`' interface; `workers` alone starts as many processes (spawned), with an executor it says how
        many workers that has. With neither, points are computed here, one by one. Each point is computed on one thread.
    shard
        `(i, n)`: compute only every n-th point, from the i-th on (1 to n); for jobs that share `out`.

    All points have the same seed, so they are compared on common random numbers; answers are the same bits whatever computes them. A
    point that fails is recorded with its error. Ctrl-C gives the report of what is known (`stopped_by="interrupt"`). Raises SpecError
    for what cannot be asked, RunFolderError for a folder that cannot be written.
    """
    started = time.perf_counter()
    what = runnable(run)
    settings = checked_options(what, options or {})
    _check_workers(executor, workers, run)
    inputs = _inputs(network, samples, calibration, run, settings)
    varied, every = _points(accelerator, what, axes=axes, points=points, design=design, n_points=n_points, seed=seed)
    which = _shard(shard, len(every))
    folder = None if out is None else Path(out)
    if folder is not None:
        prepare(folder)
    tasks = _tasks(accelerator, every, what=what, inputs=inputs, seed=seed)
    question = SweepQuestion(
        provenance=_provenance(inputs, accelerator, seed), run=what.name, axes=varied,
        options={name: option_record(name, value) for name, value in settings.items()},
        layout=design if points is None else "list", keys=tuple(task.key for task in tasks), values=tuple(every),
    )  # fmt: skip
    if folder is not None:
        write_question(folder, question)
    work = Work([tasks[i] for i in which], PointStore(folder), progress=progress)
    stopped_by = _computed(work, inputs, executor=executor, workers=workers, folder=folder)
    report = report_of(
        work.noted(question), work.known, which=which, n_computed=sum(tasks[i].key in work.now for i in which), stopped_by=stopped_by,
        elapsed_s=time.perf_counter() - started,
    )  # fmt: skip
    if folder is not None and shard is None:
        write_table(folder, report)
    return report


class Work:
    """What a sweep has to do: the points that are not known, and what became of them."""

    def __init__(self, tasks: Sequence[Task | Known], store: PointStore, *, progress: Progress | None) -> None:
        self.store, self.progress = store, progress
        self.known: dict[str, Known] = {}
        self.now: set[str] = set()
        self.damaged: list[str] = []
        unique = {task.key: task for task in tasks}
        self.to_do = {key: task for key, task in unique.items() if not self._is_known(key)}
        self.n_reused, self.n_to_do = len(self.known), len(self.to_do)
        self.started = time.perf_counter()

    def _is_known(self, key: str) -> bool:
        """Take what is stored of a point; a damaged file counts as none, and is noted."""
        try:
            found = self.store.get(key)
        except RunFolderError:
            self.damaged.append(key)
            return False
        if found is None or not found.is_final:
            return False
        self.known[key] = found
        return True

    def tasks(self) -> list[Task]:
        """Return the tasks to compute, after noting those that are refused before they are computed."""
        for one in [one for one in self.to_do.values() if isinstance(one, Known)]:
            self.done(one)
        return [one for one in self.to_do.values() if isinstance(one, Task)]

    def done(self, known: Known) -> None:
        """Keep an answer, and tell how far the sweep is."""
        self.store.put(known)
        self.known[known.key] = known
        self.now.add(known.key)
        if self.progress is not None:
            n = len(self.now)
            left_s = (time.perf_counter() - self.started) / n * (self.n_to_do - n)
            self.progress(n, self.n_to_do, self.n_reused, left_s)

    def noted(self, question: SweepQuestion) -> SweepQuestion:
        """Return the question with a warning of files that were damaged."""
        if not self.damaged:
            return question
        names = ", ".join(f"{key[:12]}..." for key in self.damaged[:4])
        note = f"{len(self.damaged)} damaged point files were computed again: {names}"
        provenance = replace(question.provenance, warnings=(*question.provenance.warnings, note))
        return replace(question, provenance=provenance)


def _computed(
    work: Work, inputs: Inputs, *, executor: Executor | None, workers: int | None, folder: Path | None
) -> Literal["end", "interrupt"]:
    """Compute what is missing, here or on an executor, and return what ended it."""
    inputs_key = next((task.inputs_key for task in work.to_do.values() if isinstance(task, Task)), "")
    hold(inputs_key, inputs)
    try:
        tasks = work.tasks()
        if executor is None and inputs.run in RESUMABLE and folder is not None:
            tasks = [replace(task, checkpoint=str(folder / POINTS / f"{task.key}.trials.npz")) for task in tasks]
        if executor is not None:
            run_on(executor, tasks, inputs, work.done, n_workers=workers)
        elif workers is None or not tasks:
            run_here(tasks, inputs, work.done)
        else:
            _run_on_own(tasks, inputs, work.done, n_workers=min(workers, len(tasks)))
    except KeyboardInterrupt:
        return "interrupt"
    finally:
        let_go(inputs_key)
    return "end"


def _run_on_own(tasks: list[Task], inputs: Inputs, done: Done, *, n_workers: int) -> None:
    pool = Pool(n_workers)
    try:
        run_on(pool.executor, tasks, inputs, done, n_workers=n_workers, pool=pool)
    except BaseException:
        pool.close(at_once=True)
        raise
    pool.close(at_once=False)


# the question


def _inputs(network: Network, samples: Samples | None, calibration: Samples | None, run: Run, settings: dict[str, Any]) -> Inputs:
    if samples is None:
        if run != "simulate" and isinstance(run, str):
            raise SamplesError(f"run: {run} needs samples; only simulate goes without")
    else:
        check_samples(network, samples)
        calibration = samples[: min(N_CALIBRATION, len(samples))] if calibration is None else calibration
    if calibration is not None:
        check_samples(network, calibration)
    return Inputs(network, samples, calibration, run, settings)


def _points(
    accelerator: Accelerator, what: Runnable, *, axes: Mapping[str, Any] | None, points: Sequence[Mapping[str, Any]] | None,
    design: Layout, n_points: int | None, seed: int,
) -> tuple[dict[str, Any], list[Values]]:  # fmt: skip
    """Return what a record says of the axes, and the points."""
    if (axes is None) == (points is None):
        raise SpecError("axes: need axes or points, and not both")
    if points is not None:
        if n_points is not None:
            raise SpecError(f"n_points: {n_points}: a list has as many points as it lists; leave it out")
        every = listed(points, accelerator, options=what.options)
        return {path: _distinct(point[path] for point in every) for path in every[0]}, every
    assert axes is not None
    made: tuple[Axis, ...] = axes_of(axes, accelerator, options=what.options)
    every = list(laid_out(made, layout=design, n_points=n_points, seed=seed))
    return {axis.path: list(axis.grid()) if design == "grid" else axis.shown_values() for axis in made}, every


def _distinct(values: Iterable[Any]) -> list[Any]:
    found: list[Any] = []
    for value in values:
        if value not in found:
            found.append(value)
    return found


def _shard(shard: tuple[int, int] | None, n_points: int) -> range:
    if shard is None:
        return range(n_points)
    i, n = shard
    if not 1 <= i <= n:
        raise SpecError(f"shard: {i}/{n}: need 1/{n} to {n}/{n}; number the jobs of an array from 1")
    return range(i - 1, n_points, n)


def _check_workers(executor: Executor | None, workers: int | None, run: Run) -> None:
    if workers is not None and (not isinstance(workers, int) or isinstance(workers, bool) or not 1 <= workers <= MAX_WORKERS):
        raise SpecError(f"workers: {workers}: need a whole number from 1 to {MAX_WORKERS}")
    if isinstance(run, str) or not (isinstance(executor, ProcessPoolExecutor) or (executor is None and workers is not None)):
        return
    try:
        pickle.dumps(run)
    except (pickle.PicklingError, AttributeError, TypeError) as error:
        raise SpecError(f"run: the function cannot be sent to other processes ({error}); define it at the top of a module") from None


def _tasks(accelerator: Accelerator, every: Sequence[Values], *, what: Runnable, inputs: Inputs, seed: int) -> list[Task | Known]:
    """Return a task for each point, or the error of one whose spec breaks a rule."""
    settings = json.dumps({name: option_record(name, value) for name, value in inputs.options.items()}, sort_keys=True)
    digests = ["" if samples is None else samples.digest for samples in (inputs.samples, inputs.calibration)]
    base = digest_of("accelsim sweep", __version__, what.identity, settings, inputs.network.digest, *digests, str(seed))
    inputs_key = digest_of(base, accelerator.digest)
    return [_task(accelerator, values, base=base, inputs_key=inputs_key, seed=seed) for values in every]


def _task(accelerator: Accelerator, values: Values, *, base: str, inputs_key: str, seed: int) -> Task | Known:
    options = {path.removeprefix(OF_RUN): value for path, value in values.items() if path.startswith(OF_RUN)}
    of_run = json.dumps(options, sort_keys=True)
    try:
        settings = [assignment(path, value) for path, value in values.items() if not path.startswith(OF_RUN)]
        changed = accelerator.with_set(*settings) if settings else accelerator
    except SpecError as error:
        key = digest_of(base, "refused", accelerator.digest, json.dumps(values, sort_keys=True))
        return Known(key=key, answer={}, error=str(error), fault="refused")
    key = digest_of(base, changed.digest, of_run)
    return Task(key=key, inputs_key=inputs_key, accelerator=changed, seed=seed, options=options)


def _provenance(inputs: Inputs, accelerator: Accelerator, seed: int) -> Provenance:
    network, samples = inputs.network, inputs.samples
    return Provenance(
        seed=seed, network=network.name, network_digest=network.digest, spec_digest=accelerator.digest, spec_toml=accelerator.to_toml(),
        samples_digest="" if samples is None else samples.digest, output="", reference="",
        warnings=(*network.notes, *(() if samples is None else samples.notes)),
    )  # fmt: skip
