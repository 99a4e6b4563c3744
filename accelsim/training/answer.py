"""What a training answers: accuracy over draws, energy under the recipe's law, and each layer's error rate; as text, JSON and a folder."""

import csv
import io
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from accelsim.report.base import clean, columns_table
from accelsim.report.files import write_whole
from accelsim.training.data import Data, normalized
from accelsim.training.export import onnx_model, profile_toml
from accelsim.training.recipe import Recipe, recipe_toml
from accelsim.training.run import share_of_bits
from accelsim.training.tested import Tested, tested
from accelsim.training.trainer import Trainer
from devices.base.errors import RunFolderError

CHECKPOINT, REPORT = "checkpoint.pt", "report.json"
N_SAMPLES = 1000


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Answer:
    """A training at its end, and its test."""

    trainer: Trainer
    tested: Tested

    @property
    def recipe(self) -> Recipe:
        """The recipe that was trained."""
        return self.trainer.recipe

    def layers(self) -> list[dict[str, Any]]:
        """Return a row a layer: weights, share of the bits read, error rate and energy of each bit."""
        trainer, share = self.trainer, share_of_bits(self.trainer.network, self.recipe).sum(axis=1)
        p = trainer.rates.p
        energy = self.recipe.law.energy_rel(p)
        return [
            {"layer": layer.name, "n_weights": layer.n_weights, "share_of_reads": float(share[i]), "error_rates_p": p[i].tolist(),
             "energies_rel": energy[i].tolist()}
            for i, layer in enumerate(trainer.network.stored)
        ]  # fmt: skip

    def record(self) -> dict[str, Any]:
        """Return everything as plain values."""
        trainer = self.trainer
        return {
            "recipe_digest": self.recipe.digest,
            "method": self.recipe.method.kind, "law": self.recipe.law.kind, "energy_reference": self.recipe.law.energy_reference,
            "energy_rel": trainer.rates.energy_rel,
            "accuracy": self.tested.mean, "accuracy_half_width": self.tested.half_width, "accuracy_std": self.tested.std,
            "accuracy_right": self.tested.accuracy_right, "n_draws": int(self.tested.accuracy.size), "n_test_images": self.tested.n_images,
            "accuracy_by_draw": self.tested.accuracy.tolist(), "loss": trainer.loss, "n_steps": trainer.step, "layers": self.layers(),
            "history": trainer.history,
        }  # fmt: skip

    def __str__(self) -> str:
        rows = [
            [r["layer"], f"{r['n_weights']:,}", f"{100 * r['share_of_reads']:.2f} %", _few(r["error_rates_p"]), _few(r["energies_rel"])]
            for r in self.layers()
        ]
        test, energy = self.tested, self.trainer.rates.energy_rel
        draws = "reads" if self.recipe.faults.scope == "read" else "chips"
        return "\n".join(
            [
                columns_table(["layer", "weights", "of reads", "error rate", "energy of a bit"], rows), "",
                f"energy of the reads {energy:.4f}, {1.0 / energy:.2f} times less than 1: {self.recipe.law.energy_reference}",
                f"accuracy {100 * test.mean:.2f} +- {100 * test.half_width:.2f} % over {test.accuracy.size} {draws} of {test.n_images} "
                f"images (from one to another {100 * test.std:.2f}), {100 * test.accuracy_right:.2f} % without a wrong bit",
            ]
        )  # fmt: skip


def _few(values: list[float]) -> str:
    return f"{values[0]:.3g}" if len(set(values)) == 1 else " ".join(f"{v:.2g}" for v in values)


def test_of(trainer: Trainer, data: Data) -> Tested:
    """Return the accuracy on the test images by the recipe: its number of draws, at the rates that training ended with."""
    recipe = trainer.recipe
    n_draws = recipe.evaluation.n_draws
    return tested(trainer.network, data.test, p=trainer.rates.p, mean=recipe.mean, std=recipe.std, n_draws=n_draws, seed=trainer.seed)


def check_folder(folder: Path) -> None:
    """Refuse a folder that holds a finished training, or things of others."""
    if (folder / REPORT).exists():
        raise RunFolderError(f"--out: {folder} holds a finished training; give another name, or remove it first")
    if folder.exists() and not folder.is_dir():
        raise RunFolderError(f"--out: {folder} is a file; give the name of a folder")
    others = sorted(path.name for path in folder.iterdir()) if folder.is_dir() else []
    if others and CHECKPOINT not in others:
        raise RunFolderError(f"--out: {folder} holds other things ({others[0]}); give a name that is not taken")


def write_folder(folder: Path, answer: Answer, data: Data, *, name: str, record: Mapping[str, Any]) -> None:
    """Write recipe, network, profile, test images and report; the report last, which says that all is there."""
    trainer, recipe = answer.trainer, answer.recipe
    write_whole(folder / "recipe.toml", recipe_toml(recipe).encode())
    write_whole(folder / "network.onnx", onnx_model(trainer.network, name=name).SerializeToString(deterministic=True))
    write_whole(folder / "profile.toml", profile_toml(recipe, trainer.rates, trainer.network, name=name).encode())
    write_whole(folder / "test.npz", _samples(data, recipe))
    write_whole(folder / "history.csv", _csv(trainer.history).encode())
    write_whole(folder / REPORT, (json.dumps(clean(dict(record)), indent=2, allow_nan=False) + "\n").encode())


def _samples(data: Data, recipe: Recipe) -> bytes:
    """Return the first test images as the network takes them, and their labels, as an .npz."""
    file = io.BytesIO()
    np.savez(file, x=normalized(data.test.x[:N_SAMPLES], mean=recipe.mean, std=recipe.std), y=data.test.y[:N_SAMPLES])
    return file.getvalue()


def _csv(rows: list[dict[str, float]]) -> str:
    file = io.StringIO()
    writer = csv.DictWriter(file, fieldnames=list(rows[0]) if rows else ["step"], lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return file.getvalue()
