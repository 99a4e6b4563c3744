"""IDX files of unsigned bytes, as MNIST and its kin come: two zeros, the type, the rank, big-endian sizes, then the values; gzip or not."""

import gzip
import zlib
from math import prod
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from devices.base.errors import SamplesError, no_file

IDX_UINT8 = 0x08
MAX_IDX_BYTES = 2**30


def read_idx(path: Path) -> NDArray[np.uint8]:
    """Return the array in an IDX file; SamplesError when it is missing, damaged or of another type."""
    if not path.is_file():
        raise SamplesError(no_file("IDX", path, lever="give the folder that has train- and t10k-images and -labels"))
    raw = _content(path)
    if len(raw) < 4 or raw[:3] != bytes((0, 0, IDX_UINT8)):
        raise SamplesError(f"{path.name} starts with {raw[:3].hex() or 'nothing'}, need 000008 (IDX of unsigned bytes)")
    rank = raw[3]
    if len(raw) < 4 + 4 * rank:
        raise SamplesError(f"{path.name} ends within its header; it is damaged")
    shape = np.frombuffer(raw, dtype=">u4", count=rank, offset=4).tolist()
    if prod(shape) != len(raw) - 4 - 4 * rank:
        raise SamplesError(f"{path.name} says it holds {' x '.join(map(str, shape))} bytes, but {len(raw) - 4 - 4 * rank} follow")
    return np.frombuffer(raw, dtype=np.uint8, offset=4 + 4 * rank).reshape(shape)


def _content(path: Path) -> bytes:
    """Return what is in the file, unpacked, of at most MAX_IDX_BYTES."""
    try:
        with path.open("rb") as plain:
            packed = plain.read(2) == b"\x1f\x8b"
        with gzip.open(path) if packed else path.open("rb") as file:
            raw = file.read(MAX_IDX_BYTES + 1)
    except (OSError, EOFError, zlib.error) as error:
        raise SamplesError(f"{path.name} cannot be read: {error}") from error
    if len(raw) > MAX_IDX_BYTES:
        raise SamplesError(f"{path.name} holds more than {MAX_IDX_BYTES} bytes; give an .npz file of fewer images")
    return raw
