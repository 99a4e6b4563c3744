"""Keeping trials on disk, so that an interrupted run goes on where it stopped."""

import os
import tempfile
import zipfile
from pathlib import Path

import numpy as np

from accelsim.sampling.record import Record, no_trials
from devices.base.errors import RunFolderError

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
        with np.load(target, allow_pickle=False) as stored:
            found = str(stored["key"])
            fields = {name: stored[name].astype(np.float64) for name in FIELDS}
    except (OSError, ValueError, KeyError, zipfile.BadZipFile) as error:
        raise RunFolderError(f"{target} is not a checkpoint of trials ({error}); remove it or give another path") from error
    if found != key:
        raise RunFolderError(f"{target} belongs to another plan, seed, reference or other samples; remove it or give another path")
    return Record(**fields)
