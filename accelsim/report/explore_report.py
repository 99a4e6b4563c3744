"""The answer of a search: its trials, and the front of those that no other beats."""

import html
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Literal

import numpy as np

from accelsim.report.base import Report, columns_table, text_table
from accelsim.report.origin import Provenance
from accelsim.report.sweep_point import value_text
from accelsim.report.sweep_report import first_line

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from accelsim.accelerator import Accelerator
    from accelsim.design import Design

MAX_SHOWN = 20
_UNITS = {"power": "power_w", "energy": "energy_j", "latency": "latency_s", "area": "area_m2"}


def unit_name(objective: str) -> str:
    """Return a name for an objective that ends with its unit."""
    return _UNITS.get(objective, objective)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class ExploreTrial:
    """One trial: its fields' values, its objectives, and whether it meets the constraints.

    `status` is `done` or `failed` (see `error`); `design_toml` are the conductances the closed form chose, empty where they were given.
    """

    number: int
    values: dict[str, Any]
    status: str
    objectives: dict[str, float]
    feasible: bool
    design_toml: str
    error: str

    def record(self) -> dict[str, Any]:
        """Return one flat record."""
        values = {path: str(v) if isinstance(v, list | dict) else v for path, v in self.values.items()}
        head = {"trial": self.number, **values, **self.objectives, "feasible": self.feasible, "status": self.status}
        return head | ({"error": self.error} if self.error else {})


@dataclass(frozen=True, slots=True, kw_only=True, eq=False, repr=False)
class ExploreReport(Report):
    """What a search found.

    Parameters
    ----------
    objectives
        By name: `minimize` or `maximize`.
    scales
        What shares a conductance that the closed form chose; `given` where the spec's were taken.
    n_computed, n_reused
        Trials computed now, and before.
    """

    kind: ClassVar[str] = "explore"
    provenance: Provenance
    objectives: dict[str, str]
    constraints: tuple[str, ...]
    space: dict[str, Any]
    scales: str
    sampler: str
    trials: tuple[ExploreTrial, ...]
    n_computed: int
    n_reused: int
    stopped_by: Literal["end", "interrupt"]
    notes: tuple[str, ...]
    elapsed_s: float

    @property
    def feasible(self) -> tuple[ExploreTrial, ...]:
        """The trials that meet all constraints."""
        return tuple(trial for trial in self.trials if trial.status == "done" and trial.feasible)

    @property
    def front(self) -> tuple[ExploreTrial, ...]:
        """The feasible trials that no other feasible one beats, by the first objective, best first."""
        found = self.feasible
        if not found:
            return ()
        costs = self._costs(found)
        beaten = [bool(np.any(np.all(costs <= row, axis=1) & np.any(costs < row, axis=1))) for row in costs]
        first = [i for i, row in enumerate(costs) if not beaten[i] and not np.any(np.all(costs[:i] == row, axis=1))]
        return tuple(found[i] for i in sorted(first, key=lambda i: costs[i, 0]))

    def _costs(self, trials: tuple[ExploreTrial, ...]) -> np.ndarray:
        """Return objectives as numbers of which less is better, `(n_trials, n_objectives)`."""
        signs = {name: -1.0 if direction == "maximize" else 1.0 for name, direction in self.objectives.items()}
        return np.array([[sign * trial.objectives[name] for name, sign in signs.items()] for trial in trials])

    def accelerator(self, trial: ExploreTrial) -> "Accelerator":
        """Return the accelerator of a trial; place it with `design(trial)`."""
        from accelsim.accelerator import Accelerator
        from accelsim.sweeping.axes import OF_RUN, assignment

        settings = [assignment(path, value) for path, value in trial.values.items() if not path.startswith(OF_RUN)]
        return Accelerator.from_text(self.provenance.spec_toml, origin="the search's spec", set=settings)

    def design(self, trial: ExploreTrial) -> "Design | None":
        """Return the conductances that the closed form chose for a trial."""
        from accelsim.design import Design

        return Design.from_text(trial.design_toml) if trial.design_toml else None

    def numbers(self) -> dict[str, Any]:
        return {
            "objectives": self.objectives, "constraints": list(self.constraints), "space": self.space, "scales": self.scales,
            "sampler": self.sampler, "n_trials": len(self.trials), "n_computed": self.n_computed, "n_reused": self.n_reused,
            "front": [trial.number for trial in self.front], "trials": self.to_dicts(), "stopped_by": self.stopped_by,
            "notes": list(self.notes), "elapsed_s": self.elapsed_s,
        }  # fmt: skip

    def rows(self) -> list[tuple[str, str]]:
        aims = ", ".join(f"{direction} {name}" for name, direction in self.objectives.items())
        failed = [trial for trial in self.trials if trial.status == "failed"]
        how = "as given" if self.scales == "given" else f"per {self.scales}, by the closed form"
        return [
            ("network", self.provenance.network),
            ("search", aims + (f", where {' and '.join(self.constraints)}" if self.constraints else "")),
            ("over", ", ".join(self.space)),
            ("conductances", how),
            (
                "trials",
                f"{len(self.trials)} by {self.sampler}: {self.n_computed} computed, {self.n_reused} reused, {len(self.feasible)} feasible"
                + (f", {len(failed)} failed" if failed else "") + ("; INTERRUPTED" if self.stopped_by == "interrupt" else ""),
            ),
            ("front", f"{len(self.front)} trials that no other beats" if self.front else "NO trial meets the constraints"),
            *(("failed", f"trial {trial.number}: {first_line(trial.error)}") for trial in failed[:3]),
            *(("note", note) for note in self.notes),
        ]  # fmt: skip

    def to_dicts(self) -> list[dict[str, Any]]:
        """Return one flat record a trial."""
        on = {trial.number for trial in self.front}
        return [trial.record() | {"front": trial.number in on} for trial in self.trials]

    def arrays(self) -> dict[str, np.ndarray]:
        return {}

    def plot(self, ax: "Axes | None" = None) -> "Axes":
        """Draw the trials and the front over the first two objectives; with one objective, the best so far."""
        from accelsim.plot.explore import plot_best, plot_front

        names = list(self.objectives)
        if len(names) == 1:
            name = names[0]
            found = [(t.number, t.objectives[name]) for t in self.feasible]
            return plot_best(found, name=unit_name(name), largest=self.objectives[name] == "maximize", note=self._note(), ax=ax)
        x, y = (names[1], names[0])
        done = [(t.objectives[x], t.objectives[y], t.feasible) for t in self.trials if t.status == "done"]
        front = sorted((t.objectives[x], t.objectives[y]) for t in self.front)
        return plot_front(
            done, front, x_name=unit_name(x), y_name=unit_name(y), n_objectives=len(names), note=self._note(), ax=ax
        )

    def _note(self) -> str:
        where = f", {' and '.join(self.constraints)}" if self.constraints else ""
        return f"{self.provenance.network}, {len(self.trials)} trials by {self.sampler}{where}"

    def _table(self) -> tuple[list[str], list[list[str]]]:
        header = ["trial", *self.space, *self.objectives]
        rows = []
        for trial in self.front[:MAX_SHOWN]:
            values = [value_text(path, trial.values.get(path)) for path in self.space]
            rows.append([str(trial.number), *values, *(value_text(unit_name(n), trial.objectives[n]) for n in self.objectives)])
        return header, rows

    def __str__(self) -> str:
        header, rows = self._table()
        return text_table(self.rows()) + (f"\n\n{columns_table(header, rows)}" if rows else "")

    def _repr_html_(self) -> str:
        header, rows = self._table()
        head = "".join(f"<th>{html.escape(name)}</th>" for name in header)
        body = "".join("<tr>" + "".join(f"<td style='text-align:right'>{html.escape(c)}</td>" for c in row) + "</tr>" for row in rows)
        return f"{Report._repr_html_(self)}<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"

    __repr__ = __str__
