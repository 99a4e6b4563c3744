"""The one door to Numba: `nogil`, cached on disk where that is safe and possible.

Numba's cache does not notice edits in another file, so only a kernel that calls no jitted function of another
file may be cached (`cache=True`, the default here); pass `cache=False` for the others.
"""

import warnings
from collections.abc import Callable
from typing import Any, TypeVar, cast

import numba

F = TypeVar("F", bound=Callable[..., Any])
_told: list[str] = []


def _tell_once(reason: str) -> None:
    if not _told:
        _told.append(reason)
        warnings.warn(f"compiled kernels are not kept on disk ({reason}); every start compiles anew. "
                      "Set NUMBA_CACHE_DIR to a writable folder.", RuntimeWarning, stacklevel=4)


def jit(*, cache: bool = True, fastmath: bool = False, inline: str = "never") -> Callable[[F], F]:
    """Return a decorator that compiles a kernel on first call and releases the GIL while it runs."""

    def decorate(function: F) -> F:
        options: dict[str, Any] = {"nogil": True, "fastmath": fastmath, "inline": inline}
        if not cache:
            return cast(F, numba.njit(**options)(function))
        try:
            return cast(F, numba.njit(cache=True, **options)(function))
        except RuntimeError as error:  # no writable place for the cache
            _tell_once(str(error).split("\n")[0])
            return cast(F, numba.njit(**options)(function))

    return decorate
