"""The answer of a training, read from its folder: accuracy over draws of wrong bits, energy, and each layer's error rate."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from accelsim.report.base import Report
from accelsim.report.files import check_inside, read_json
from accelsim.report.origin import Provenance
from devices.base.errors import RunFolderError
from devices.base.quantity import percent
from devices.base.toml_codec import read_text

if TYPE_CHECKING:
    from matplotlib.axes import Axes

RECIPE, REPORT = "recipe.toml", "report.json"
MAX_RECIPE_BYTES = 256 * 1024


@dataclass(frozen=True, slots=True, kw_only=True, eq=False, repr=False)
class TrainingReport(Report):
    """What a training found.

    Parameters
    ----------
    accuracy, accuracy_half_width, accuracy_std, accuracy_right
        Over draws of wrong bits: mean, half-width of its interval, spread from draw to draw; and without a wrong bit.
    energy_rel, energy_reference
        Energy of the reads, and what 1 is.
    layers
        By layer: weights, share of the bits read, and error rate and energy of each bit.
    history
        By epoch: loss, accuracy, energy and whatever else the training noted.
    """

    kind: ClassVar[str] = "train"
    provenance: Provenance
    method: str
    law: str
    energy_rel: float
    energy_reference: str
    accuracy: float
    accuracy_half_width: float
    accuracy_std: float
    accuracy_right: float
    n_draws: int
    n_test_images: int
    n_steps: int
    layers: tuple[dict[str, Any], ...]
    history: tuple[dict[str, float], ...] = field(default=())

    def numbers(self) -> dict[str, Any]:
        names = [name for name in self.__dataclass_fields__ if name not in ("provenance", "layers", "history")]
        return {name: getattr(self, name) for name in names} | {"layers": list(self.layers), "history": list(self.history)}

    def rows(self) -> list[tuple[str, str]]:
        return [
            ("network", self.provenance.network),
            ("method", f"{self.method}, {self.n_steps} steps"),
            ("accuracy", f"{percent(self.accuracy)} +- {percent(self.accuracy_half_width)} over {self.n_draws} draws of wrong bits, "
                         f"{self.n_test_images} images each"),
            ("from draw to draw", percent(self.accuracy_std)),
            ("without a wrong bit", percent(self.accuracy_right)),
            ("energy of the reads", f"{self.energy_rel:.4f}, where 1 is: {self.energy_reference}"),
        ]  # fmt: skip

    def to_dicts(self) -> list[dict[str, Any]]:
        """Return one flat record a layer; error rate and energy are those of its bits, from the first to the last."""
        return [
            {"layer": row["layer"], "n_weights": row["n_weights"], "share_of_reads": row["share_of_reads"],
             **_by_bit("error_rate_p", row["error_rates_p"]), **_by_bit("energy_rel", row["energies_rel"])}
            for row in self.layers
        ]  # fmt: skip

    def arrays(self) -> dict[str, np.ndarray]:
        return {}

    def plot(self, ax: "Axes | None" = None) -> "Axes":
        """Draw accuracy and energy over the steps of the training."""
        from accelsim.plot.training import plot_history

        heading = f"{percent(self.accuracy)} with an energy of {self.energy_rel:.3g}"
        return plot_history(self.history, heading=heading, note=f"{self.provenance.network}, {self.method}", ax=ax)


def _by_bit(name: str, values: list[float]) -> dict[str, float]:
    if len(set(values)) == 1:
        return {name: values[0]}
    return {f"{name}_bit{j}": value for j, value in enumerate(values)}


def is_training(folder: Path) -> bool:
    """Whether a folder is one that `accelsim train` has finished."""
    return all((folder / name).is_file() for name in (RECIPE, REPORT)) and not (folder / "manifest.json").exists()


def read_training(folder: Path) -> TrainingReport:
    """Return the report of a training's folder; RunFolderError names what is not as it must be."""
    check_inside(folder / REPORT)
    check_inside(folder / RECIPE)
    found = read_json(folder / REPORT)
    if found.get("kind") != "train":
        raise RunFolderError(f"{REPORT}: need kind train; written by another version?")
    recipe = read_text(folder / RECIPE, max_bytes=MAX_RECIPE_BYTES)
    network = found.get("network")
    name = network.get("name") if isinstance(network, Mapping) else None
    return TrainingReport(
        provenance=Provenance(
            seed=_number(found, "seed", int), network=name if isinstance(name, str) else "the network", network_digest="",
            spec_digest=_text(found, "recipe_digest"), spec_toml=recipe, samples_digest="", output="", reference="",
            version=_text(found, "version"),
        ),
        method=_text(found, "method"), law=_text(found, "law"), energy_reference=_text(found, "energy_reference"),
        **{name: _number(found, name, float) for name in _FLOATS}, **{name: _number(found, name, int) for name in _COUNTS},
        layers=tuple(_layer(row) for row in _rows(found, "layers")),
        history=tuple({key: float(v) for key, v in row.items() if _is_number(v)} for row in _rows(found, "history")),
    )  # fmt: skip


_FLOATS = ("energy_rel", "accuracy", "accuracy_half_width", "accuracy_std", "accuracy_right")
_COUNTS = ("n_draws", "n_test_images", "n_steps")


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and abs(value) < 1e300


def _number(found: Mapping[str, Any], name: str, kind: type) -> Any:
    value = found.get(name)
    if value is None and kind is float:
        return math.nan
    if not _is_number(value) or (kind is int and not isinstance(value, int)):
        raise RunFolderError(f"{REPORT}: {name}: need a number")
    return kind(value)


def _text(found: Mapping[str, Any], name: str) -> str:
    value = found.get(name)
    if not isinstance(value, str):
        raise RunFolderError(f"{REPORT}: {name}: need a text")
    return value


def _rows(found: Mapping[str, Any], name: str) -> list[dict[str, Any]]:
    rows = found.get(name)
    if not isinstance(rows, list) or not all(isinstance(row, dict) for row in rows):
        raise RunFolderError(f"{REPORT}: {name}: need a list of tables")
    return rows


def _layer(row: Mapping[str, Any]) -> dict[str, Any]:
    layer: dict[str, Any] = {"layer": _text(row, "layer"), "n_weights": _number(row, "n_weights", int)}
    layer["share_of_reads"] = _number(row, "share_of_reads", float)
    for name in ("error_rates_p", "energies_rel"):
        values = row.get(name)
        if not isinstance(values, list) or not values or not all(map(_is_number, values)):
            raise RunFolderError(f"{REPORT}: layers: {name}: need a list of numbers")
        layer[name] = [float(value) for value in values]
    return layer
