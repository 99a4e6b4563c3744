"""What a sweep can run at each point, and what of its answer is kept."""

import hashlib
import inspect
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, TypeAlias

from accelsim.design import Design
from accelsim.placement import Plan
from accelsim.report.base import Report, clean
from devices.base.errors import SpecError
from devices.base.toml_codec import nearest_text, shown
from workloads.samples import Samples

Function: TypeAlias = Callable[..., Report | Mapping[str, Any]]
"""Takes a plan and samples, `seed=` and options; returns a report, or numbers by name."""
Run: TypeAlias = str | Function
GIVEN = ("plan", "samples", "seed", "threads", "progress", "checkpoint")
"""Arguments that the sweep itself gives; the others are options."""
RESUMABLE = ("monte_carlo", "optimize")
_TIMES = ("elapsed_s", "cpu_s")
_HEAD = ("schema", "kind", "version", "seed", "network", "spec_digest")


def _predict() -> tuple[Function, ...]:
    from accelsim.prediction.predict import predict

    return (predict,)


def _monte_carlo() -> tuple[Function, ...]:
    from accelsim.sampling.monte_carlo import monte_carlo

    return (monte_carlo,)


def _simulate() -> tuple[Function, ...]:
    from accelsim.timing.simulate import simulate

    return (simulate,)


def _evaluate() -> tuple[Function, ...]:
    from accelsim.timing.evaluate import evaluate

    return (evaluate, *_predict(), *_simulate())


def _optimize() -> tuple[Function, ...]:
    from accelsim.optimizer.optimize import optimize

    return (optimize,)


RUNS: Mapping[str, Callable[[], tuple[Function, ...]]] = {
    "predict": _predict, "monte_carlo": _monte_carlo, "simulate": _simulate, "evaluate": _evaluate, "optimize": _optimize,
}  # fmt: skip
"""By name: what is called, and the functions whose arguments are its options."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Runnable:
    """What is run, checked: its name, the names of its options, and what identifies it."""

    run: Run
    name: str
    options: tuple[str, ...]
    identity: str


def runnable(run: Run) -> Runnable:
    """Return a checked run; SpecError for a name that there is none of, or what is no function."""
    if isinstance(run, str):
        if run not in RUNS:
            raise SpecError(f"run: {shown(run)}: need {' | '.join(RUNS)}, or a function{nearest_text(run, tuple(RUNS))}")
        names = {name for function in RUNS[run]() for name in _parameters(function)}
        return Runnable(run=run, name=run, options=tuple(sorted(names - {*GIVEN, "options"})), identity=run)
    if not callable(run):
        raise SpecError(f"run: {shown(run)}: need {' | '.join(RUNS)}, or a function of a plan and samples")
    name = f"{getattr(run, '__module__', '?')}.{getattr(run, '__qualname__', type(run).__qualname__)}"
    options = tuple(n for n in _parameters(run) if n not in GIVEN)
    return Runnable(run=run, name=name, options=options, identity=f"{name} {_source_digest(run)}")


def _parameters(function: Function) -> tuple[str, ...]:
    return tuple(inspect.signature(function).parameters)


def _source_digest(function: Function) -> str:
    """Return a digest of a function's source, so that one that was edited is run again."""
    try:
        return hashlib.sha256(inspect.getsource(function).encode()).hexdigest()
    except (OSError, TypeError):
        raise SpecError("run: a function without readable source; define it in a file, so that a sweep knows when it changed") from None


def checked_options(runnable: Runnable, options: Mapping[str, Any]) -> dict[str, Any]:
    """Return the options of a run; SpecError for one that it does not take, or that no file could hold."""
    for name, value in options.items():
        if name in GIVEN:
            raise SpecError(f"options: {name}: the sweep gives this itself; leave it out")
        if name not in runnable.options:
            raise SpecError(f"options: {name}: {runnable.name} takes no such option{nearest_text(name, runnable.options)}")
        option_record(name, value)
    return dict(options)


def option_record(name: str, value: Any) -> Any:
    """Return what stands for an option in a record and in a digest."""
    if isinstance(value, Samples | Design):
        return f"{type(value).__name__} {value.digest}"
    try:
        json.dumps(value, allow_nan=False)
    except (TypeError, ValueError):
        raise SpecError(f"options: {name}: {shown(value)}: need numbers, texts, lists and tables of them, Samples or a Design") from None
    return list(value) if isinstance(value, tuple) else value


def answer_of(
    run: Run, plan: Plan, samples: Samples | None, *, seed: int, options: Mapping[str, Any], checkpoint: str | None
) -> dict[str, Any]:
    """Run at one point and return its answer without what differs from run to run (times)."""
    given: dict[str, Any] = {"seed": seed, **options}
    if isinstance(run, str):
        function = RUNS[run]()[0]
        if run in RESUMABLE:
            given |= {"threads": 1, "checkpoint": checkpoint}
        found = function(plan, samples=samples, **given)
    else:
        found = run(plan, samples, **given)
    _refuse_partial(found)
    if isinstance(found, Report):
        return _without_times({name: value for name, value in found.to_json_dict().items() if name not in _HEAD})
    if not isinstance(found, Mapping):
        raise SpecError(f"run: the function returned {type(found).__name__}; need a report, or a table of numbers by name")
    plain: dict[str, Any] = clean(dict(found))
    json.dumps(plain)  # TypeError for what a file cannot hold
    return plain


def _refuse_partial(found: object) -> None:
    """Pass on an interrupt that a run has turned into a partial answer."""
    if getattr(found, "stopped_by", "") == "interrupt" or getattr(getattr(found, "mc", None), "stopped_by", "") == "interrupt":
        raise KeyboardInterrupt


def _without_times(answer: Mapping[str, Any]) -> dict[str, Any]:
    return {
        name: _without_times(value) if isinstance(value, Mapping) else value for name, value in answer.items() if name not in _TIMES
    }
