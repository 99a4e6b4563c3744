"""Keeping a training on disk, so that one that was killed goes on where it stopped."""

import io
from pathlib import Path
from typing import Any

import numpy as np
import torch

from accelsim.report.files import write_whole
from accelsim.training.trainer import Trainer
from devices.base.errors import RunFolderError

NUMBERS = ("step", "multiplier", "loss", "accuracy", "held_accuracy", "started", "history")
RATES = ("theta", "group", "first", "second")


def save_checkpoint(path: Path, trainer: Trainer, *, key: str) -> None:
    """Write all that training needs under a temporary name and rename: a kill leaves the old file or the new one."""
    rates = {name: torch.from_numpy(np.ascontiguousarray(getattr(trainer.rates, name))) for name in RATES}
    state = {
        "key": key, "network": trainer.network.state_dict(), "optimizer": trainer.optimizer.state_dict(),
        "numbers": {name: getattr(trainer, name) for name in NUMBERS}, "rates": rates, "n_rate_steps": trainer.rates.n_steps,
    }  # fmt: skip
    file = io.BytesIO()
    torch.save(state, file)
    write_whole(path, file.getvalue())


def read_checkpoint(path: Path) -> dict[str, Any]:
    """Return what a checkpoint holds; RunFolderError for a file that is none. Code in it is never run."""
    try:
        state = torch.load(path, weights_only=True)
        if not {"key", "network", "optimizer", "numbers", "rates", "n_rate_steps"} <= set(state):
            raise ValueError("parts are missing")
    except Exception as error:
        raise RunFolderError(f"{path} is not a checkpoint of a training ({str(error).splitlines()[0][:100]}); remove it") from error
    return dict(state)


def load_checkpoint(path: Path, trainer: Trainer, *, key: str) -> None:
    """Let a trainer go on from a checkpoint, if it is there; RunFolderError when it is of another recipe, data or seed."""
    if not path.exists():
        return
    state = read_checkpoint(path)
    if state["key"] != key:
        raise RunFolderError(f"{path} belongs to another recipe, seed or other data; give another --out, or remove it")
    trainer.network.load_state_dict(state["network"])
    trainer.optimizer.load_state_dict(state["optimizer"])
    for name in NUMBERS:
        setattr(trainer, name, state["numbers"][name])
    for name in RATES:
        setattr(trainer.rates, name, state["rates"][name].numpy())
    trainer.rates.n_steps = state["n_rate_steps"]
