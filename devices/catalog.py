"""Presets as data with sources in `devices/data`: accelerators, and in folders of their own memories and FPGA pipelines."""

from difflib import get_close_matches
from functools import cache
from importlib.resources import files

from devices.base.errors import SpecError
from devices.base.toml_codec import shown

ACCELERATOR = "data"
MEMORY = "data/memory"
FPGA = "data/fpga"


@cache
def names(folder: str = ACCELERATOR) -> tuple[str, ...]:
    """Return the names of all presets of a folder, sorted."""
    found = (entry.name for entry in files("devices").joinpath(folder).iterdir())
    return tuple(sorted(name.removesuffix(".toml") for name in found if name.endswith(".toml")))


def text(name: str, *, folder: str = ACCELERATOR) -> str:
    """Return the TOML of a preset; SpecError with the nearest name when there is none."""
    if name not in names(folder):
        raise SpecError(unknown(name, folder=folder))
    return files("devices").joinpath(folder, f"{name}.toml").read_text(encoding="utf-8")


def summary(name: str, *, folder: str = ACCELERATOR) -> str:
    """Return the sentence that opens a preset's file."""
    return text(name, folder=folder).splitlines()[0].removeprefix("#").strip()


def describe(name: str, *, folder: str = ACCELERATOR) -> str:
    """Return a preset as it stands in its file: values, sources and comments."""
    return text(name, folder=folder).rstrip("\n")


def unknown(name: str, *, folder: str = ACCELERATOR) -> str:
    """Return the message for a name that no preset has."""
    if folder == ACCELERATOR and name in names(FPGA):
        return f"{name} is a pipeline on an FPGA, which `simulate` takes; `accelsim devices {name}` prints it"
    near = get_close_matches(name[:64], names(folder), n=1)
    return f"unknown preset {shown(name)}{f'; nearest: {near[0]}' if near else ''}; presets: {', '.join(names(folder))}"
