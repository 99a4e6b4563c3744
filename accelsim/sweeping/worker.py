"""What happens where a point is computed: in this process, in a spawned one, or on another machine.

The network and the samples are the same for all points. A task names them by a key; a worker that does not hold them says so, and is
sent them with a task, once. What placing does not need the accelerator for is done once a worker, too. Tasks come in blocks.
"""

import os
import pickle
import platform
import time
import traceback
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from accelsim.accelerator import Accelerator
from accelsim.placement import Calibrated, calibrated
from accelsim.report.sweep_folder import Known
from accelsim.sweeping.blocks import BLOCK_S
from accelsim.sweeping.memory import keep_freed_memory
from accelsim.sweeping.runs import Run, answer_of
from devices.base.errors import AccelsimError
from workloads.network import Network
from workloads.samples import Samples

HELD = 2
"""Sweeps whose inputs a worker keeps; older ones go."""


class Inputs:
    """What all points of a sweep share, and what can be computed of it once."""

    def __init__(
        self, network: Network, samples: Samples | None, calibration: Samples | None, run: Run, options: Mapping[str, Any]
    ) -> None:
        self.network, self.samples, self.calibration, self.run, self.options = network, samples, calibration, run, options

    @cached_property
    def placer(self) -> Calibrated:
        """The network, calibrated."""
        return calibrated(self.network, self.calibration)

    def packed(self) -> bytes:
        """Return the inputs as bytes to send."""
        parts = self.network, self.samples, self.calibration, self.run, dict(self.options)
        return pickle.dumps(parts, protocol=pickle.HIGHEST_PROTOCOL)


_held: dict[str, Inputs] = {}


def hold(key: str, inputs: Inputs) -> None:
    """Keep the inputs of a sweep in this process."""
    _held.pop(key, None)
    _held[key] = inputs
    while len(_held) > HELD:
        _held.pop(next(iter(_held)))


def let_go(key: str) -> None:
    """Forget the inputs of a sweep."""
    _held.pop(key, None)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Task:
    """One point to compute; `options` are those of the run that the point itself sets."""

    key: str
    inputs_key: str
    accelerator: Accelerator
    seed: int
    options: Mapping[str, Any]
    checkpoint: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Reply:
    """What a worker sends back: which one it is, and what it knows now of the first points of a block; None where it lacks the inputs."""

    worker: str
    known: tuple[Known, ...] | None


def compute(block: Sequence[Task], packed: bytes | None) -> Reply:
    """Compute points until a block's time is over, at least one; errors are answers, too. `packed` are the inputs, where they lack."""
    worker = f"{platform.node()} {os.getpid()}"
    inputs = _held.get(block[0].inputs_key)
    if inputs is None:
        if packed is None:
            return Reply(worker=worker, known=None)
        keep_freed_memory()
        inputs = Inputs(*pickle.loads(packed))  # it comes from the sweep that started this worker
        hold(block[0].inputs_key, inputs)
    ends = time.perf_counter() + BLOCK_S
    known = [computed(block[0], inputs)]
    for task in block[1:]:
        if time.perf_counter() >= ends:
            break
        known.append(computed(task, inputs))
    return Reply(worker=worker, known=tuple(known))


def computed(task: Task, inputs: Inputs) -> Known:
    """Compute one point from inputs that are at hand."""
    started = time.perf_counter()
    answer: dict[str, Any] = {}
    error, fault = "", ""
    try:
        plan = inputs.placer.place(task.accelerator)
        options = {**inputs.options, **task.options}
        answer = answer_of(inputs.run, plan, inputs.samples, seed=task.seed, options=options, checkpoint=task.checkpoint)
    except AccelsimError as refusal:
        error, fault = str(refusal), "refused"
    except MemoryError as lack:
        error, fault = f"not enough memory ({lack or 'no more is given'}); fewer workers or fewer samples take less", "broke"
    except Exception as bug:  # noqa: BLE001  one point's failure is a record, not the end of the others
        error, fault = f"{type(bug).__name__}: {bug}\n{traceback.format_exc(limit=-4)}", "broke"
    if task.checkpoint is not None and fault != "broke":
        Path(task.checkpoint).unlink(missing_ok=True)
    return Known(key=task.key, answer=answer, error=error, fault=fault, elapsed_s=time.perf_counter() - started)  # type: ignore[arg-type]
