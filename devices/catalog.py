"""Presets: complete specs of accelerators, as data with sources, in `devices/data/*.toml`."""

from difflib import get_close_matches
from functools import cache
from importlib.resources import files

from devices.base.errors import SpecError
from devices.base.toml_codec import shown


@cache
def names() -> tuple[str, ...]:
    """Return the names of all presets, sorted."""
    found = (entry.name for entry in files("devices").joinpath("data").iterdir())
    return tuple(sorted(name.removesuffix(".toml") for name in found if name.endswith(".toml")))


def text(name: str) -> str:
    """Return the TOML of a preset; SpecError with the nearest name when there is none."""
    if name not in names():
        raise SpecError(unknown(name))
    return files("devices").joinpath("data", f"{name}.toml").read_text(encoding="utf-8")


def summary(name: str) -> str:
    """Return the sentence that opens a preset's file."""
    return text(name).splitlines()[0].removeprefix("#").strip()


def describe(name: str) -> str:
    """Return a preset as it stands in its file: values, sources and comments."""
    return text(name).rstrip("\n")


def unknown(name: str) -> str:
    """Return the message for a name that no preset has."""
    near = get_close_matches(name[:64], names(), n=1)
    return f"unknown preset {shown(name)}{f'; nearest: {near[0]}' if near else ''}; presets: {', '.join(names())}"
