"""Whether the packages beside this one are ours: their names are common, and another `devices` would be imported in their place."""

import re
import sys
from importlib.abc import InspectLoader
from importlib.util import find_spec

SIBLINGS = ("devices", "workloads", "validation")
_CONSTANT = re.compile(r'^ACCELSIM_SIBLING = "([^"]*)"$', re.MULTILINE)


def check_siblings(version: str) -> None:
    """Raise ImportError, naming the file that is in the way, unless every sibling says it belongs to this version.

    Nothing is imported: the source is found and read.
    """
    for name in SIBLINGS:
        found, where = _declared(name)
        if found != version:
            raise ImportError(_message(name, where, found=found, version=version))


def _declared(name: str) -> tuple[str | None, str]:
    """Return the version that a package declares, None without one, and where the package is."""
    loaded = sys.modules.get(name)
    if loaded is not None:
        return getattr(loaded, "ACCELSIM_SIBLING", None), str(getattr(loaded, "__file__", None) or "this session")
    spec = find_spec(name)
    if spec is None:
        return None, ""
    folders = list(spec.submodule_search_locations or ())
    where = spec.origin or (folders[0] if folders else name)
    source = _source(spec.loader, name)
    match = _CONSTANT.search(source)
    return (match[1] if match else None), where


def _source(loader: object, name: str) -> str:
    if not isinstance(loader, InspectLoader):  # a folder without __init__.py has no source
        return ""
    try:
        return loader.get_source(name) or ""
    except (ImportError, OSError, SyntaxError, UnicodeDecodeError):
        return ""


def _message(name: str, where: str, *, found: str | None, version: str) -> str:
    if not where:
        return f"the package {name!r}, which comes with accelsim {version}, is missing; install accelsim again"
    if found is None:
        return (
            f"{where} is another package {name!r} and hides the one of accelsim {version}; "
            "rename or remove it, or start Python in another folder"
        )
    return f"{where} is of accelsim {found}, but accelsim {version} is running; install accelsim again"
