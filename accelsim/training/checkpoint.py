"""Keeping a training on disk, so that one that was killed goes on where it stopped."""

import io
import math
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import torch

from accelsim.report.files import check_inside, write_whole
from accelsim.training.trainer import Trainer
from devices.base.errors import RunFolderError

NUMBERS = ("step", "multiplier", "loss", "accuracy", "held_accuracy", "started", "history")
RATES = ("theta", "group", "first", "second")
PARTS = ("key", "network", "optimizer", "numbers", "rates", "n_rate_steps")
MOMENTS = ("step", "exp_avg", "exp_avg_sq", "momentum_buffer")
"""What Adam keeps of a parameter, and, last, what gradient descent with momentum does."""


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
        check_inside(path)
        _check_size(path)
        state = torch.load(path, weights_only=True)
        if not isinstance(state, dict) or not set(PARTS) <= set(state):
            raise ValueError("parts are missing")
        if not isinstance(state["key"], str) or not state["key"].rpartition(" ")[2].isdecimal():
            raise ValueError("its key is no key")
    except Exception as error:
        said = (str(error).splitlines() or [type(error).__name__])[0][:100]
        raise RunFolderError(f"{path} is not a checkpoint of a training ({said}); remove it") from error
    return dict(state)


def _check_size(path: Path) -> None:
    """Refuse an archive that unpacks into more than it is: PyTorch packs nothing."""
    with zipfile.ZipFile(path) as archive:
        if sum(info.file_size for info in archive.infolist()) > path.stat().st_size:
            raise ValueError("it unpacks into more than there is")


def load_checkpoint(path: Path, trainer: Trainer, *, key: str) -> None:
    """Let a trainer go on from a checkpoint, if it is there.

    Raises RunFolderError when it is of another recipe, data or seed, or holds what this training cannot have made.
    """
    if not path.exists():
        return
    state = read_checkpoint(path)
    if state["key"] != key:
        raise RunFolderError(f"{path} belongs to another recipe, seed or other data; give another --out, or remove it")
    try:
        _check_numbers(state["numbers"], trainer)
        check_weights(state["network"], trainer.network)
        _check_rates(state["rates"], state["n_rate_steps"], trainer)
        _check_optimizer(state["optimizer"], trainer)
        trainer.network.load_state_dict(state["network"])
        trainer.optimizer.load_state_dict(state["optimizer"])
    except (ValueError, TypeError, KeyError, RuntimeError) as error:
        said = (str(error).splitlines() or [""])[0][:200]
        raise RunFolderError(f"{path} is damaged ({said}); remove it and train again") from error
    for name in NUMBERS:
        setattr(trainer, name, state["numbers"][name])
    for name in RATES:
        setattr(trainer.rates, name, state["rates"][name].numpy())
    trainer.rates.n_steps = state["n_rate_steps"]


def _need(holds: bool, what: str) -> None:
    if not holds:
        raise ValueError(what)


def _is_like(found: object, like: torch.Tensor, *, shape: torch.Size | None = None) -> bool:
    """Whether something is a plain tensor of the kind and shape of another, without NaN."""
    if not isinstance(found, torch.Tensor) or found.layout != torch.strided or found.dtype != like.dtype:
        return False
    return found.shape == (like.shape if shape is None else shape) and bool(torch.isfinite(found).all())


def check_weights(state: object, network: torch.nn.Module) -> None:
    """Raise ValueError unless a state is one of this network: the same names, kinds and shapes, all finite."""
    own = network.state_dict()
    _need(isinstance(state, dict), "network: no table")
    assert isinstance(state, dict)
    odd = [name for name in {*own, *state} if name not in own or name not in state or not _is_like(state[name], own[name])]
    _need(not odd, f"network: {', '.join(sorted(map(str, odd))[:3])[:120]}: not as this network has it")


def _check_numbers(numbers: object, trainer: Trainer) -> None:
    _need(isinstance(numbers, dict) and set(numbers) == set(NUMBERS), "numbers: not those of a training")
    assert isinstance(numbers, dict)
    for name in NUMBERS:
        _need(type(numbers[name]) is type(getattr(trainer, name)), f"{name}: {type(numbers[name]).__name__}: of another kind")
    _need(0 <= numbers["step"] < 2**53, f"step: {numbers['step']}")
    _need(math.isfinite(numbers["multiplier"]) and numbers["multiplier"] >= 0.0, f"multiplier: {numbers['multiplier']}")
    for row in numbers["history"]:
        sound = isinstance(row, dict) and all(isinstance(k, str) and type(v) in (int, float) for k, v in row.items())
        _need(sound and set(row) == set(numbers["history"][0]), "history: rows that are not alike")


def _check_rates(rates: object, n_steps: object, trainer: Trainer) -> None:
    _need(isinstance(rates, dict) and set(rates) == set(RATES), "rates: not those of a training")
    assert isinstance(rates, dict)
    group, theta = torch.from_numpy(np.ascontiguousarray(trainer.rates.group)), torch.from_numpy(trainer.rates.theta)
    size = rates["theta"].shape if isinstance(rates["theta"], torch.Tensor) else torch.Size([0])
    _need(len(size) == 1 and 1 <= size[0] <= group.numel(), "rates: theta: not one for each group")
    _need(all(_is_like(rates[name], theta, shape=size) for name in ("theta", "first", "second")), "rates: of another kind or size")
    _need(_is_like(rates["group"], group), "rates: group: of another kind or shape")
    _need(int(rates["group"].min()) >= 0 and int(rates["group"].max()) < size[0], "rates: group: no such group")
    _need(type(n_steps) is int and 0 <= n_steps < 2**53, f"n_rate_steps: {str(n_steps)[:40]}")


def _check_optimizer(state: object, trainer: Trainer) -> None:
    own = trainer.optimizer.state_dict()
    _need(isinstance(state, dict) and set(state) == {"state", "param_groups"}, "optimizer: not one's state")
    assert isinstance(state, dict)
    groups = state["param_groups"]
    _need(isinstance(groups, list) and len(groups) == len(own["param_groups"]), "optimizer: other groups of parameters")
    _need(all(_is_group(group, like) for group, like in zip(groups, own["param_groups"])), "optimizer: set otherwise")
    parameters = [p for group in trainer.optimizer.param_groups for p in group["params"]]
    _need(isinstance(state["state"], dict), "optimizer: no table of parameters")
    for at, held in state["state"].items():
        _need(type(at) is int and 0 <= at < len(parameters) and isinstance(held, dict), f"optimizer: {str(at)[:40]}: no such parameter")
        for name, value in held.items():
            alone = name == "step" and isinstance(value, torch.Tensor) and value.shape == () and _is_like(value, value)
            _need(name in MOMENTS and (alone or _is_like(value, parameters[at])), f"optimizer: {str(name)[:40]} of parameter {at}")
        whole = MOMENTS[-1:] if "momentum_buffer" in held else MOMENTS[:-1]
        _need(set(held) == set(whole), f"optimizer: parameter {at}: parts are missing")


def _is_group(group: object, like: dict[str, Any]) -> bool:
    """Whether settings of an optimizer are its own but for the rate, which goes with the steps."""
    if not isinstance(group, dict) or set(group) != set(like):
        return False
    rate = group["lr"]
    return type(rate) is float and 0.0 <= rate < math.inf and all(group[name] == like[name] for name in like if name != "lr")
