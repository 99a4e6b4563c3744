"""The pictures of the documentation's gallery, each drawn by the command that stands beside it there."""

import contextlib
import io
import os
import shlex
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

WIDTH = 1050


@dataclass(frozen=True, slots=True, kw_only=True)
class Picture:
    """One picture: what it shows, the commands that draw it, the file that it is then in, and a file that the commands read."""

    shows: str
    commands: tuple[str, ...]
    made: str
    file: str = ""
    text: str = ""


PREDICT = "accelsim predict fashion_cnn --seed 7 --set cell.error_rel=0.005 --out predicted"
SIMULATE = "accelsim simulate fashion_resnet --spec isaac --out simulated"
GRID = """\
schema = 1
network = "fashion_cnn"
spec = "memse"
seed = 7
[axes]
cell.programming.error_rel = [0.002, 0.005, 0.01]
mapping.g_used_siemens = { low = "5 uS", high = "25 uS", n = 9 }
[options]
method = "adjoint"
"""
PICTURES: dict[str, Picture] = {
    "error": Picture(
        shows="Where the error comes from: each cause and each layer alone.", commands=(PREDICT,), made="predicted/figure.png",
    ),
    "chips": Picture(
        shows="How chips differ: the squared error of each that was sampled, with the mean and its interval.",
        commands=("accelsim validate fashion_cnn --seed 7 --set cell.error_rel=0.005 --rel-error 0.02 --out validated",),
        made="validated/trials/figure.png",
    ),
    "pareto": Picture(
        shows="What power buys: the best design at each power, the chosen one, and the best common scale.",
        commands=(
            'accelsim optimize fashion_cnn --seed 7 --set cell.error_rel=0.005 --power-budget "8 uW" --max-trials 200 --out optimized',
        ),
        made="optimized/figure.png",
    ),
    "evaluation": Picture(
        shows="Error, energy and work by layer, of one chip.",
        commands=("accelsim evaluate fashion_resnet --spec isaac --seed 7 --out evaluated",), made="evaluated/figure.png",
    ),
    "explained": Picture(
        shows="How the error grows from layer to layer, where one layer's cells err much.",
        commands=("accelsim explain fashion_cnn --seed 7 --set cell.error_rel=0.002 layers.conv2.cell.error_rel=0.2 --out explained",),
        made="explained/figure.png",
    ),
    "stages": Picture(
        shows="What the stages of a chip do: serve, wait for room, wait to begin.", commands=(SIMULATE,), made="simulated/figure.png",
    ),
    "gantt": Picture(shows="When stages work.", commands=(SIMULATE,), made="simulated/figure_gantt.png"),
    "power": Picture(shows="Power over time.", commands=(SIMULATE,), made="simulated/figure_power.png"),
    "energy": Picture(shows="Energy of an image, by component.", commands=(SIMULATE,), made="simulated/figure_energy.png"),
    "layers": Picture(shows="Energy of an image, by layer.", commands=(SIMULATE,), made="simulated/figure_layers.png"),
    "roofline": Picture(
        shows="Each layer under the roofs of arrays and buses.", commands=(SIMULATE,), made="simulated/figure_roofline.png",
    ),
    "sweep": Picture(
        shows="An answer over two fields of a spec, as lines; where the second has many values, as a map.",
        commands=("accelsim sweep grid.toml --out swept", "accelsim collect swept --plot sweep.png"),
        made="sweep.png", file="grid.toml", text=GRID,
    ),
    "cell": Picture(
        shows="What a cell does to what is asked of it, now and after a day.",
        commands=("accelsim devices pcm_nandakumar --plot cell.png",), made="cell.png",
    ),
    "memory": Picture(
        shows="What a memory's errors save: energy over error rate.",
        commands=("accelsim memory sram_14nm --plot memory.png",), made="memory.png",
    ),
    "protection": Picture(
        shows="When a code pays: its energy over that of a bare memory with as many wrong bits, under each law.",
        commands=("accelsim memory --ecc secded --plot protection.png",), made="protection.png",
    ),
}  # fmt: skip


def draw(folder: Path) -> Iterator[Path]:
    """Draw every picture into `folder` by its commands, in a folder of their own that is removed, and yield the files."""
    folder = folder.resolve()
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as place, contextlib.chdir(place):
        for name, picture in PICTURES.items():
            if picture.file:
                Path(picture.file).write_text(picture.text, encoding="utf-8")
            for command in picture.commands:
                if not Path(picture.made).exists():
                    _run(command)
            yield _shrunk(Path(picture.made), folder / f"{name}.png")


def _run(command: str) -> None:
    """Run a command line of ours in this process."""
    from accelsim.cli import main

    told = io.StringIO()
    with contextlib.redirect_stdout(told), contextlib.redirect_stderr(told):
        code = main(shlex.split(command)[1:])
    if code:
        raise RuntimeError(f"`{command}` ended with {code}: {told.getvalue()[-500:]}")


def _shrunk(made: Path, out: Path) -> Path:
    """Write a picture with few colours and without metadata: a fifth of the bytes."""
    from PIL import Image  # comes with matplotlib

    picture = Image.open(made).convert("RGB")
    scale = min(1.0, WIDTH / picture.width)
    size = (round(picture.width * scale), round(picture.height * scale))
    temporary = out.with_suffix(".tmp.png")
    picture.resize(size, Image.Resampling.LANCZOS).quantize(64).save(temporary, optimize=True)
    os.replace(temporary, out)
    return out


def page() -> str:
    """Return the gallery as reStructuredText."""
    head = "Gallery\n=======\n\nEvery picture with the command that draws it; ``python -m validation gallery`` draws them all anew.\n"
    return head + "".join(_entry(name, picture) for name, picture in PICTURES.items())


def _indented(text: str) -> str:
    return "".join(f"   {line}\n" for line in text.splitlines())


def _entry(name: str, picture: Picture) -> str:
    commands = "\n".join(f"   {command}" for command in picture.commands)
    where = f"``{picture.made}``" if "/" in picture.made else "the picture itself"
    alt = picture.shows.rstrip(".")
    lines = (
        f"\n.. _picture-{name}:\n",
        f"{name.capitalize()}\n{'-' * len(name)}\n",
        f"{picture.shows} It is {where}.\n",
        *([f".. code-block:: toml\n   :caption: {picture.file}\n\n{_indented(picture.text)}"] if picture.file else []),
        f".. code-block:: sh\n\n{commands}\n",
        f".. image:: pictures/{name}.png\n   :alt: {alt}\n   :width: 100%\n",
    )
    return "\n".join(lines)
