"""Keeping trials on disk, so that an interrupted run goes on where it stopped."""

import os
import tempfile
from collections.abc import Mapping
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from accelsim.sampling.record import Record, no_trials
from devices.base.errors import AccelsimError, RunFolderError
from workloads.samples import read_named

MAX_ARRAY_BYTES = 2**28
"""Of 33 million trials."""
LARGEST = 1e100
"""Squares and sums of squares of what is read stay finite."""
NOT_ALWAYS = ("controls", "powers", "n_correct", "bases")
"""NaN in trials that do not have it."""
FIELDS = ("losses", "controls", "powers", "n_correct", "correct_by_image", "bases", "weights")


def save_trials(path: str | Path, record: Record, *, key: str) -> None:
    """Write the trials under a temporary name and rename: a kill leaves the old file or the new one, never half of one."""
    target = Path(path)
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        handle, temporary = tempfile.mkstemp(dir=target.parent, prefix=".trials-", suffix=".npz")
        with os.fdopen(handle, "wb") as file:
            np.savez(file, key=np.array(key), **{name: getattr(record, name) for name in FIELDS})
        os.replace(temporary, target)
    except OSError as error:
        raise RunFolderError(f"cannot write the checkpoint {target}: {error.strerror}; give a writable path") from error


def load_trials(path: str | Path, *, key: str, n_images: int) -> Record:
    """Return the trials of an earlier run of the very same question, or none when there is no file yet.

    Raises RunFolderError for a file that is not a checkpoint, or is one of another plan, seed or samples.
    """
    target = Path(path)
    if not target.exists():
        return no_trials(n_images)
    try:
        stored = read_named(target, ("key", *FIELDS), most_bytes=MAX_ARRAY_BYTES)
        found = str(stored["key"]) if stored["key"].dtype.kind == "U" and stored["key"].shape == () else ""
    except AccelsimError as error:
        raise RunFolderError(f"{target} is not a checkpoint of trials ({error}); remove it or give another path") from error
    if found != key:
        raise RunFolderError(f"{target} belongs to another plan, seed, reference or other samples; remove it or give another path")
    wrong = _wrong(stored, n_images)
    if wrong:
        raise RunFolderError(f"{target} is damaged ({wrong}); remove it or give another path")
    return Record(**{name: stored[name].copy() for name in FIELDS})


def _wrong(stored: Mapping[str, NDArray], n_images: int) -> str:
    """Return what no trials can have left, or nothing."""
    n = stored["losses"].shape
    for name in FIELDS:
        array, shape = stored[name], (n_images,) if name == "correct_by_image" else n
        if array.dtype != np.float64 or len(n) != 1 or array.shape != shape:
            return f"{name}: {array.dtype} {array.shape}, need float64 {shape}"
        known = array[~np.isnan(array)] if name in NOT_ALWAYS else array
        low = -LARGEST if name == "powers" else 0.0
        if not bool(np.all((known >= low) & (known <= LARGEST))):
            return f"{name}: numbers that no trial gives"
    return ""
