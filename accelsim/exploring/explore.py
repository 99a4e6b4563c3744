"""explore(): Optuna asks which specs to try, our sweep answers, and a journal on disk lets a killed search go on.

Trials are asked for and told in batches of a fixed size, each by a sampler seeded with the search's seed and the batch's number: the
search is the same whatever computes it, and however often it was interrupted.
"""

import json
import os
import time
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Executor
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, get_args

from accelsim._version import __version__
from accelsim.accelerator import Accelerator
from accelsim.exploring.aims import PRICED, Aim, Limit, aims_of, limits_of
from accelsim.exploring.trial import POWER_SHARE, Scales, answered
from accelsim.placement import place
from accelsim.report.explore_report import ExploreReport, ExploreTrial
from accelsim.report.files import check_inside
from accelsim.report.search_folder import COMMAND, EXPLORE, JOURNAL, write_found
from accelsim.report.sweep_point import SweepPoint
from accelsim.sweeping.axes import OF_RUN, Axis, axes_of
from accelsim.sweeping.pool import Pool
from accelsim.sweeping.runs import checked_options, runnable
from accelsim.sweeping.sweep import N_CALIBRATION, sweep
from devices.base.errors import AccelsimError, RunFolderError, SpecError
from devices.base.toml_codec import shown
from workloads.network import Network, digest_of
from workloads.samples import Samples

if TYPE_CHECKING:
    import optuna

Sampler = Literal["tpe", "nsga2", "random"]
Progress = Callable[[int, int], None]
"""Called with trials known and trials to come, after each batch."""
TRIALS, STUDY = "trials", "accelsim"
OWN = (TRIALS, EXPLORE, COMMAND, "table.csv", "report.html", f"{JOURNAL}.lock")
"""What a search whose journal was removed has left."""
LEAST_SHARE = 0.05
MAX_TRIALS = 100_000
_G_USED = "mapping.g_used_siemens"
_GIVEN = ("timed", "scales", POWER_SHARE, "options")


def explore(
    network: Network,
    accelerator: Accelerator,
    samples: Samples,
    *,
    space: Mapping[str, Any],
    seed: int,
    objectives: Sequence[str] = ("error", "power"),
    constraints: Sequence[str] = (),
    n_trials: int = 100,
    batch: int = 8,
    sampler: Sampler = "tpe",
    scales: Scales = "layer",
    options: Mapping[str, Any] | None = None,
    calibration: Samples | None = None,
    out: str | Path | None = None,
    executor: Executor | None = None,
    workers: int | None = None,
    progress: Progress | None = None,
) -> ExploreReport:
    """Search fields of a spec for the designs that no other beats; needs the extra `explore`.

    Parameters
    ----------
    space
        Paths as in `--set`, each with a range (`Span`) or a list of choices.
    objectives, constraints
        Among error, accuracy, power, energy, latency, throughput and area, the last four of a spec with a [chip]; constraints are texts:
        "accuracy >= 0.9", "area <= 20 mm2".
    scales
        What shares a conductance: they are not searched but follow from the closed form of `optimize` within a share of the largest read
        power, which is searched where power or energy counts. `given` takes those of the spec, or of `space`.
    batch
        Trials that are asked for at a time; as many can be computed side by side.
    sampler
        `tpe`, `nsga2` or `random` of Optuna.
    options
        Of `predict`, or of `evaluate` where the chip counts.
    out
        Folder of the journal, which Optuna and optuna-dashboard read, and of the answers. The same search goes on there.
    executor, workers
        As for `sweep`.

    Raises SpecError for what cannot be asked, RunFolderError where `out` holds another search.
    """
    started = time.perf_counter()
    study = _Search(
        network, accelerator, samples, space=space, seed=seed, objectives=objectives, constraints=constraints, n_trials=n_trials,
        batch=batch, sampler=sampler, scales=scales, options=dict(options or {}), calibration=calibration, out=out,
    )  # fmt: skip
    pool = Pool(workers) if executor is None and workers is not None else None
    stopped_by: Literal["end", "interrupt"] = "end"
    try:
        study.run(executor if pool is None else pool.executor, workers, progress, started=started)
    except KeyboardInterrupt:
        stopped_by = "interrupt"
    finally:
        if pool is not None:
            pool.close(at_once=True)
    report = study.report(stopped_by, time.perf_counter() - started)
    if study.folder is not None and stopped_by == "interrupt":
        write_found(study.folder, report)
    return report


class _Search:
    """A search: its question, Optuna's study, and what its trials answered."""

    def __init__(
        self, network: Network, accelerator: Accelerator, samples: Samples, *, space: Mapping[str, Any], seed: int,
        objectives: Sequence[str], constraints: Sequence[str], n_trials: int, batch: int, sampler: Sampler, scales: Scales,
        options: dict[str, Any], calibration: Samples | None, out: str | Path | None,
    ) -> None:  # fmt: skip
        _check(n_trials, batch, sampler, scales)
        self.network, self.accelerator, self.samples, self.seed = network, accelerator, samples, seed
        self.aims, self.limits = aims_of(objectives), limits_of(constraints)
        self.n_trials, self.batch, self.sampler, self.options = n_trials, batch, sampler, options
        self.calibration = samples[: min(N_CALIBRATION, len(samples))] if calibration is None else calibration
        self.timed = any(aim.timed for aim in self._counted())
        checked_options(runnable("evaluate" if self.timed else "predict"), options)
        self.notes: list[str] = []
        self.scales: Scales = self._closed_form(scales)
        self.axes = self._axes(space)
        self.folder = None if out is None else Path(out)
        self.answers: dict[int, SweepPoint] = {}
        self.n_computed = 0
        self.study = self._study()

    def _counted(self) -> list[Aim]:
        return [*self.aims, *(limit.aim for limit in self.limits)]

    def _closed_form(self, scales: Scales) -> Scales:
        """Return what the closed form moves: nothing where it cannot weigh the cells."""
        plan = place(self.network, self.accelerator, calibration=self.calibration)
        if scales != "given" and plan.has_faults:
            self.notes.append("conductances are as given: the closed form cannot weigh stuck cells or wrong bits")
            return "given"
        return scales

    def _axes(self, space: Mapping[str, Any]) -> tuple[Axis, ...]:
        try:
            axes = axes_of(space, self.accelerator, options=())
        except SpecError as error:
            raise SpecError(f"space: {str(error).removeprefix('axes: ')}") from None
        if self.scales == "given":
            return axes
        for axis in axes:
            if axis.full_path.endswith(_G_USED):
                raise SpecError(
                    f"space: {axis.path}: conductances follow from the closed form (scales = {self.scales}); leave it out, or set "
                    'scales = "given" to search them'
                )
        if any(aim.name in PRICED for aim in self._counted()):
            share = Axis(path=OF_RUN + POWER_SHARE, full_path=OF_RUN + POWER_SHARE, low=LEAST_SHARE, high=1.0)
            return (*axes, share)
        return axes

    def _study(self) -> "optuna.Study":
        optuna = _optuna()
        storage: Any = None
        if self.folder is not None:
            _prepare(self.folder)
            _end_at_a_line(self.folder / JOURNAL)
        directions = [aim.direction for aim in self.aims]
        with self._reading():
            if self.folder is not None:
                backend = optuna.storages.journal.JournalFileBackend(str(self.folder / JOURNAL))
                storage = optuna.storages.JournalStorage(backend)
            study = optuna.create_study(
                study_name=STUDY, storage=storage, directions=directions, load_if_exists=True, sampler=self._sampled(0)
            )
            known = dict(study.user_attrs)
        question = self._question()
        if known.get("question", question) != question:
            raise RunFolderError(f"out: {self.folder} holds another search (other network, spec, space, aims or seed); give another name")
        if "question" not in known:
            study.set_user_attr("question", question)
            study.set_metric_names([aim.name for aim in self.aims])
        return study

    @contextmanager
    def _reading(self) -> Iterator[None]:
        """Turn what Optuna, or what reads its answers, makes of a damaged journal into one message."""
        try:
            yield
        except (LookupError, ValueError, TypeError, AttributeError, AssertionError, RuntimeError) as error:
            if self.folder is None or isinstance(error, AccelsimError):
                raise
            said = f"{type(error).__name__}: {error}".splitlines()[0][:120]
            raise RunFolderError(
                f"out: {self.folder / JOURNAL} is damaged ({said}); remove it, and the same search computes only what {TRIALS} lacks"
            ) from error

    def _question(self) -> str:
        axes = json.dumps([[a.full_path, list(a.values), str((a.low, a.high)), a.scale] for a in self.axes], sort_keys=True)
        aims = json.dumps([[aim.name for aim in self.aims], [limit.text for limit in self.limits], self.scales, self.options, self.sampler])
        parts = self.network.digest, self.accelerator.digest, self.samples.digest, self.calibration.digest
        return digest_of("accelsim explore", __version__, *parts, axes, aims, str(self.seed), str(self.batch))

    def _sampled(self, n_batch: int) -> "optuna.samplers.BaseSampler":
        """Return the sampler of a batch."""
        optuna = _optuna()
        seed = int(digest_of(str(self.seed), str(n_batch))[:8], 16)
        if self.sampler == "random":
            return optuna.samplers.RandomSampler(seed=seed)  # type: ignore[no-any-return]
        if self.sampler == "nsga2":
            return optuna.samplers.NSGAIISampler(seed=seed, population_size=max(16, self.batch))  # type: ignore[no-any-return]
        return optuna.samplers.TPESampler(seed=seed, multivariate=True, constant_liar=True)  # type: ignore[no-any-return]

    def run(self, executor: Executor | None, workers: int | None, progress: Progress | None, *, started: float) -> None:
        """Ask for, compute and tell trials, batch by batch, until there are as many as wanted."""
        n_batch = 0
        while n_batch * self.batch < self.n_trials:
            size = min(self.batch, self.n_trials - n_batch * self.batch)
            with self._reading():
                numbers = self._asked(n_batch, size)
            self._answer(numbers, executor, workers)
            n_batch += 1
            if self.folder is not None:
                write_found(self.folder, self.report("end", time.perf_counter() - started))
            if progress is not None:
                progress(n_batch * self.batch if size == self.batch else self.n_trials, self.n_trials)

    def _asked(self, n_batch: int, size: int) -> list[int]:
        """Return the numbers of a batch's trials: those of before, where it was asked for wholly, or new ones."""
        optuna = _optuna()
        found = [t for t in self.study.get_trials(deepcopy=False) if t.user_attrs.get("batch") == n_batch]
        if len(found) >= size:
            return [t.number for t in found[:size]]
        for trial in self.study.get_trials(deepcopy=False):  # killed while it asked: what is half asked for is asked for again
            if trial.state == optuna.trial.TrialState.RUNNING and ("batch" not in trial.user_attrs or trial in found):
                self.study.tell(trial.number, state=optuna.trial.TrialState.FAIL)
        if any(t.state == optuna.trial.TrialState.COMPLETE for t in found):  # a shorter last batch grows
            kept = [t.number for t in found]
            return kept + self._ask(n_batch, size - len(kept))
        return self._ask(n_batch, size)

    def _ask(self, n_batch: int, size: int) -> list[int]:
        self.study.sampler = self._sampled(n_batch)
        asked = [self.study.ask(fixed_distributions=self._distributions()) for _ in range(size)]
        for trial in asked:
            trial.set_user_attr("batch", n_batch)
        return [trial.number for trial in asked]

    def _distributions(self) -> dict[str, Any]:
        return {axis.path: _distribution(axis) for axis in self.axes}

    def _values(self, params: Mapping[str, Any]) -> dict[str, Any]:
        return {axis.path: json.loads(params[axis.path]) if _is_written(axis) else params[axis.path] for axis in self.axes}

    def _answer(self, numbers: Sequence[int], executor: Executor | None, workers: int | None) -> None:
        with self._reading():
            trials = {t.number: t for t in self.study.get_trials(deepcopy=False)}
            points = [self._values(trials[number].params) for number in numbers]
        options: dict[str, Any] = {"timed": self.timed, "scales": self.scales, "options": self.options}
        if not any(axis.path == OF_RUN + POWER_SHARE for axis in self.axes):
            options[POWER_SHARE] = 1.0
        report = sweep(
            self.network, self.accelerator, self.samples, seed=self.seed, points=points, run=answered, options=options,
            calibration=self.calibration, out=None if self.folder is None else self.folder / TRIALS, executor=executor, workers=workers,
        )  # fmt: skip
        if report.stopped_by == "interrupt":
            raise KeyboardInterrupt
        self.n_computed += report.n_computed
        for number, point in zip(numbers, report.points):
            self.answers[number] = point
            with self._reading():
                self._tell(number, point)

    def _tell(self, number: int, point: SweepPoint) -> None:
        optuna = _optuna()
        trial = next(t for t in self.study.get_trials(deepcopy=False) if t.number == number)
        if trial.state.is_finished():
            return
        live = optuna.trial.Trial(self.study, trial._trial_id)
        values = _objectives(point, self.aims)
        if values is None:
            live.set_user_attr("error", point.error or "the answer lacks an objective")
            self.study.tell(number, state=optuna.trial.TrialState.FAIL)
            return
        for limit, missed in zip(self.limits, _missed(point, self.limits)):
            live.set_constraint(limit.text, missed)
        self.study.tell(number, list(values.values()))

    def report(self, stopped_by: Literal["end", "interrupt"], elapsed_s: float) -> ExploreReport:
        """Return what is known."""
        from accelsim.sweeping.sweep import _inputs, _provenance

        trials = tuple(self._trial(i, point) for i, (_, point) in enumerate(sorted(self.answers.items())))
        provenance = _provenance(_inputs(self.network, self.samples, self.calibration, "predict", {}), self.accelerator, self.seed)
        return ExploreReport(
            provenance=replace(provenance, warnings=(*provenance.warnings, *self.notes)),
            objectives={aim.name: aim.direction for aim in self.aims}, constraints=tuple(limit.text for limit in self.limits),
            space={axis.path: axis.shown_values() for axis in self.axes}, scales=self.scales, sampler=self.sampler, trials=trials,
            n_computed=self.n_computed, n_reused=len(trials) - self.n_computed, stopped_by=stopped_by, notes=tuple(self.notes),
            elapsed_s=elapsed_s,
        )  # fmt: skip

    def _trial(self, number: int, point: SweepPoint) -> ExploreTrial:
        values = _objectives(point, self.aims)
        return ExploreTrial(
            number=number, values=point.values, status="failed" if values is None else "done", objectives=values or {},
            feasible=values is not None and all(v <= 0.0 for v in _missed(point, self.limits)),
            design_toml=str(point.answer.get("design") or ""), error=point.error or ("" if values else "the answer lacks an objective"),
        )  # fmt: skip


def _check(n_trials: int, batch: int, sampler: str, scales: str) -> None:
    for name, value, most in (("n_trials", n_trials, MAX_TRIALS), ("batch", batch, 4096)):
        if not isinstance(value, int) or isinstance(value, bool) or not 1 <= value <= most:
            raise SpecError(f"{name}: {shown(value)}: need a whole number from 1 to {most}")
    if sampler not in get_args(Sampler):
        raise SpecError(f"sampler: {shown(sampler)}: need {' | '.join(get_args(Sampler))}")
    if scales not in get_args(Scales):
        raise SpecError(f"scales: {shown(scales)}: need {' | '.join(get_args(Scales))}")


def _prepare(folder: Path) -> None:
    if folder.exists() and not folder.is_dir():
        raise RunFolderError(f"out: {folder} is a file; give the name of a folder, a new one or one of an earlier search")
    try:
        check_inside(folder / JOURNAL)
    except RunFolderError as error:
        raise RunFolderError(f"out: {folder}: {error}") from None
    if (folder / JOURNAL).exists() and not (folder / JOURNAL).is_file():
        raise RunFolderError(f"out: {folder}: {JOURNAL} is not a regular file; remove it, and only what is missing is computed")
    if folder.is_dir() and not (folder / JOURNAL).exists() and any(one.name not in OWN for one in folder.iterdir()):
        raise RunFolderError(f"out: {folder} is a folder with other things in it, not of a search; give another name")
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise RunFolderError(f"out: cannot make the search's folder {folder}: {error.strerror or error}; give a writable place") from error


def _end_at_a_line(journal: Path) -> None:
    """Cut off a line that a kill left half written; Optuna would add to it, and then read neither."""
    if journal.is_file():
        content = journal.read_bytes()
        whole = content.rfind(b"\n") + 1
        if whole < len(content):
            os.truncate(journal, whole)


def _is_written(axis: Axis) -> bool:
    """Whether the choices of an axis are written as text for Optuna, which knows no lists and tables."""
    return any(isinstance(value, list | dict) for value in axis.values)


def _distribution(axis: Axis) -> Any:
    optuna = _optuna()
    if axis.values:
        return optuna.distributions.CategoricalDistribution([json.dumps(v) if _is_written(axis) else v for v in axis.values])
    if axis.is_int:
        return optuna.distributions.IntDistribution(int(axis.low), int(axis.high), log=axis.scale == "log")
    return optuna.distributions.FloatDistribution(axis.low, axis.high, log=axis.scale == "log")


def _objectives(point: SweepPoint, aims: Sequence[Aim]) -> dict[str, float] | None:
    values = {aim.name: aim.of(point.answer) for aim in aims}
    found = {name: value for name, value in values.items() if value is not None}
    return found if len(found) == len(aims) else None


def _missed(point: SweepPoint, limits: Sequence[Limit]) -> list[float]:
    """Return by how much each constraint is missed; 1 where the answer does not say."""
    values = [limit.aim.of(point.answer) for limit in limits]
    return [1.0 if value is None else limit.violation(value) for limit, value in zip(limits, values)]


def _optuna() -> Any:
    try:
        import optuna
    except ImportError:
        raise AccelsimError("explore needs Optuna: pip install 'accelsim[explore]'") from None
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    warnings.filterwarnings("ignore", category=optuna.exceptions.ExperimentalWarning)
    return optuna
