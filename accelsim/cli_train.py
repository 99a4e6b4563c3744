"""What `accelsim train` does: a recipe and data to a network, its memory profile, and how well both do. PyTorch is imported here only."""

import argparse
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from accelsim.cli_answers import FINE, answer, head
from accelsim.cli_inputs import seed_of
from accelsim.cli_terminal import REPORT_EVERY_S, say
from devices.base.errors import AccelsimError

if TYPE_CHECKING:
    from accelsim.training.run import Progress

REDRAW_EVERY_S = 0.2


def train(options: argparse.Namespace) -> int:
    """Train by a recipe; go on from the checkpoint in `--out`, if one is there."""
    from accelsim.training.data import load_data
    from accelsim.training.recipe import load_recipe

    recipe = load_recipe(options.recipe)
    _require_torch()
    from accelsim.report.search_folder import write_command
    from accelsim.training import answer as answers
    from accelsim.training.checkpoint import read_checkpoint
    from accelsim.training.run import train as run

    out = None if options.out is None else Path(options.out)
    if out is not None:
        answers.check_folder(out)
    data = load_data(options.data, options.test)
    start = None if options.start is None else read_checkpoint(Path(options.start) / answers.CHECKPOINT)["network"]
    _use_threads(options.threads)
    if out is not None and options.seed is None and (out / answers.CHECKPOINT).exists():
        options.seed = int(read_checkpoint(out / answers.CHECKPOINT)["key"].split()[-1])
        say(f"note: going on with seed {options.seed} from {out / answers.CHECKPOINT}")
    progress = TrainingProgress()
    kept = None if out is None else out / answers.CHECKPOINT
    try:
        trainer = run(recipe, data, seed=seed_of(options), start=start, checkpoint=kept, progress=progress)
    except KeyboardInterrupt:
        if kept is not None and kept.exists():
            say(f"\nnote: the same command goes on from {kept}")
        raise
    progress.close()
    found = answers.Answer(trainer=trainer, tested=answers.test_of(trainer, data))
    name = Path(options.recipe).stem
    record: dict[str, Any] = head(options, name=name) | {"seed": trainer.seed} | found.record()
    if out is not None:
        write_command(out, options.command_line)
        answers.write_folder(out, found, data, name=name, record=record)
    answer(options, text=f"{found}\n\n{_after(out)}", record=record)
    return FINE


def _after(out: Path | None) -> str:
    if out is None:
        return "--out DIR keeps the network (ONNX), its memory profile, and a checkpoint"
    network, profile, images = (out / name for name in ("network.onnx", "profile.toml", "test.npz"))
    of = f"{network} --spec {profile} --inputs {images}"
    return f"written to {out}; check it with\n  accelsim validate {of}\nand see what it takes with\n  accelsim evaluate {of}"


def _require_torch() -> None:
    try:
        import torch  # noqa: F401
    except ImportError:
        raise AccelsimError("training needs PyTorch, which is not installed: pip install 'accelsim[train]'") from None


def _use_threads(n: int | None) -> None:
    """Set PyTorch's threads; one unless told, so that sums are always taken in one order."""
    import torch

    torch.set_num_threads(n or 1)


class TrainingProgress:
    """Tells how far training is: one line that is renewed on a terminal, a line now and then elsewhere."""

    def __init__(self) -> None:
        self.is_terminal = sys.stderr.isatty()
        self.last_s = time.monotonic()
        self.is_open = False

    def __call__(self, news: "Progress") -> None:
        """Take news of training."""
        now = time.monotonic()
        if now - self.last_s < (REDRAW_EVERY_S if self.is_terminal else REPORT_EVERY_S):
            return
        self.last_s = now
        text = (
            f"step {news.step} of {news.n_steps}: loss {news.loss:.3f}, accuracy {100 * news.accuracy:.1f} %, "
            f"energy {news.energy_rel:.3f}, {_time(news.left_s)} left"
        )
        if self.is_terminal:
            print(f"\r{text:<90}", end="", file=sys.stderr, flush=True)
            self.is_open = True
        else:
            say(text)

    def close(self) -> None:
        """End the line, if one is open."""
        if self.is_open:
            print(file=sys.stderr, flush=True)
            self.is_open = False


def _time(seconds: float) -> str:
    if seconds < 90.0:
        return f"{seconds:.0f} s"
    return f"{seconds / 60.0:.0f} min" if seconds < 5400.0 else f"{seconds / 3600.0:.1f} h"
