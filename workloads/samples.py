"""Input samples from an `.npz` file, read as untrusted input: headers and sizes first, then the numbers."""

import tokenize
import zipfile
import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from devices.base.errors import SamplesError, no_file, told_of
from workloads.network import digest_of
from workloads.operators.base import Shape

MAX_BYTES = 8 * 2**30
"""The largest array that is read: 8 GiB."""
HEADER_BYTES = 2**16
"""An `.npy` header is longer only in damaged or hostile files."""
MAX_EXPANSION = 1100
"""Deflate packs at most 1032 bytes into one; a member that declares more is hostile."""
DAMAGED = (
    ValueError, KeyError, TypeError, SyntaxError, tokenize.TokenError, EOFError, RuntimeError, zipfile.BadZipFile, zlib.error, OSError,
)  # fmt: skip
"""What zipfile and numpy raise for a member that is no array."""
LARGEST_X = 1e15
"""The largest magnitude of an input: sums of its squares stay far within float32."""
Selection: TypeAlias = slice | Sequence[int] | NDArray


@dataclass(frozen=True, slots=True, eq=False)
class Samples:
    """Images and, when known, their labels.

    Parameters
    ----------
    x
        float32 `(N, *shape)`, read-only.
    y
        Labels, int64 `(N,)`, read-only, or None.
    digest
        sha256 over x and y, hex.
    notes
        What the reader changed and a user may want to know.
    """

    x: NDArray[np.float32]
    y: NDArray[np.int64] | None
    digest: str
    notes: tuple[str, ...] = ()

    def __len__(self) -> int:
        return len(self.x)

    def __getitem__(self, which: Selection) -> "Samples":
        """Return the samples of a slice, of indices, or of a mask; labels go along."""
        if isinstance(which, int | np.integer):
            raise SamplesError(f"samples[{which}] is one image without its batch; write samples[{which}:{which + 1}]")
        chosen = which if isinstance(which, slice) else np.asarray(which)
        if not isinstance(chosen, slice) and (chosen.ndim != 1 or chosen.dtype.kind not in "iub"):
            raise SamplesError(f"need a slice, a list of indices or a mask, got an array of {chosen.dtype} {chosen.shape}")
        try:
            x = self.x[chosen]
        except IndexError as error:
            raise SamplesError(f"no such samples among {len(self)}: {error}") from error
        if len(x) == 0:
            raise SamplesError(f"the selection {which!r} of {len(self)} samples is empty")
        return samples_of(x, None if self.y is None else self.y[chosen], notes=self.notes)

    @property
    def shape(self) -> Shape:
        """Shape of one sample."""
        return self.x.shape[1:]


def samples_of(x: NDArray, y: NDArray | None = None, *, input_shape: Shape | None = None, notes: tuple[str, ...] = ()) -> Samples:
    """Return checked samples from arrays; see `load_samples`."""
    x, cast = _float32(x)
    _check_x(x, input_shape)
    labels = None if y is None else labels_of(y, len(x))
    x = _read_only(np.ascontiguousarray(x))
    return Samples(x, labels, digest_of(x) if labels is None else digest_of(x, labels), notes + cast)


def load_samples(path: str | Path, *, input_shape: Shape | None = None) -> Samples:
    """Return the samples in an `.npz` file with `x` `(N, *shape)` and, optionally, labels `y` `(N,)`.

    Parameters
    ----------
    path
        The file; object arrays and declared sizes that the file cannot hold are refused before anything is read.
    input_shape
        Shape of one sample the network needs; another one is refused.

    Raises
    ------
    SamplesError
        The file is missing or damaged, or its numbers are of the wrong kind, shape or content.
    """
    arrays = read_arrays(path)
    with told_of(Path(path)):
        return samples_of(arrays["x"], arrays.get("y"), input_shape=input_shape)


def read_arrays(path: str | Path) -> dict[str, NDArray]:
    """Return `x` and, when it is there, `y` as stored in an `.npz` file, read-only; SamplesError when it is missing or damaged."""
    path = Path(path)
    if not path.is_file():
        raise SamplesError(no_file("samples", path, lever="give the path of an .npz file with x and, where known, y"))
    return _read_npz(path, _read_members)


def read_named(path: Path, names: Sequence[str], *, most_bytes: int) -> dict[str, NDArray]:
    """Return arrays of an `.npz` file by their names, each of at most so many bytes; SamplesError as for samples."""

    def members(archive: zipfile.ZipFile, name: str) -> dict[str, NDArray]:
        infos = {info.filename.removesuffix(".npy"): info for info in archive.infolist()}
        missing = [key for key in names if key not in infos]
        if missing:
            raise SamplesError(f"{name} has no {', '.join(missing)}")
        for key in names:
            _check_member(archive, infos[key], label=f"{key} in {name}", most_bytes=most_bytes)
        return {key: _read_array(archive, infos[key], label=f"{key} in {name}") for key in names}

    return _read_npz(path, members)


def _read_npz(path: Path, read: Callable[[zipfile.ZipFile, str], dict[str, NDArray]]) -> dict[str, NDArray]:
    try:
        with zipfile.ZipFile(path) as archive:
            arrays = read(archive, path.name)
    except (zipfile.BadZipFile, NotImplementedError, EOFError) as error:
        raise SamplesError(f"{path.name} is not an .npz file, or is damaged; write it by numpy.savez(path, x=x, y=y)") from error
    except OSError as error:
        raise SamplesError(f"{path.name} cannot be read: {error.strerror or error}") from error
    for array in arrays.values():
        array.flags.writeable = False
    return arrays


def _read_members(archive: zipfile.ZipFile, name: str) -> dict[str, NDArray]:
    """Return `x` and, when it is there, `y`; every header is checked first."""
    members = {info.filename.removesuffix(".npy"): info for info in archive.infolist()}
    if "x" not in members:
        held = ", ".join(sorted(members)[:8]) or "nothing"
        raise SamplesError(f"{name} holds {held}; need an array named x (and y for labels): numpy.savez(path, x=x, y=y)")
    wanted = {key: members[key] for key in ("x", "y") if key in members}
    for key, info in wanted.items():
        _check_member(archive, info, label=f"{key} in {name}")
    return {key: _read_array(archive, info, label=f"{key} in {name}") for key, info in wanted.items()}


def _check_member(archive: zipfile.ZipFile, info: zipfile.ZipInfo, *, label: str, most_bytes: int | None = None) -> None:
    """Compare what the array's header declares with what the archive holds, before any of it is read."""
    try:
        with archive.open(info) as member:
            version = np.lib.format.read_magic(member)
            read = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}[version]
            shape, _, dtype = read(member, max_header_size=HEADER_BYTES)
            header = member.tell()
    except (*DAMAGED, MemoryError) as error:  # numpy parses the header as Python, whose parser ends so when nested too deeply
        raise SamplesError(f"{label} is not a numpy array, or is damaged; write it by numpy.savez(path, x=x, y=y)") from error
    if dtype.hasobject:
        raise SamplesError(f"{label} is an array of Python objects, which is never read; convert it to float32")
    declared, stored = prod(shape) * dtype.itemsize, info.file_size - header
    packed = _stored_bytes(archive, info)
    if min(shape, default=0) < 0 or declared != stored or info.file_size > MAX_EXPANSION * packed:
        shown = f"{stored} are stored" if declared != stored else f"{packed} bytes are there to unpack"
        raise SamplesError(f"{label} declares {dtype} {shape}, {declared:.3g} bytes, but {shown}; the file is damaged")
    limit = MAX_BYTES if most_bytes is None else most_bytes
    if declared > limit:
        raise SamplesError(f"{label} has {declared:.3g} bytes; at most {limit} are read; split the file")


def _stored_bytes(archive: zipfile.ZipFile, info: zipfile.ZipInfo) -> int:
    """Return how many bytes of the file a member can have: what it declares, and no more than there are."""
    assert archive.fp is not None
    return min(info.compress_size, archive.fp.seek(0, 2) - info.header_offset)


def _read_array(archive: zipfile.ZipFile, info: zipfile.ZipInfo, *, label: str) -> NDArray:
    try:
        with archive.open(info) as member:
            return np.lib.format.read_array(member, allow_pickle=False, max_header_size=HEADER_BYTES)
    except DAMAGED as error:
        raise SamplesError(f"{label} is truncated or damaged; write the file again") from error


def _float32(x: NDArray) -> tuple[NDArray[np.float32], tuple[str, ...]]:
    if x.dtype == np.float32:
        return x, ()
    if x.dtype.kind == "f":
        with np.errstate(over="ignore"):
            return x.astype(np.float32), (f"x was converted from {x.dtype} to float32",)
    if x.dtype.kind in "iub":
        raise SamplesError(
            f"x is of {x.dtype}; normalize it as in training, ((x / 255 - mean) / std).astype('float32') for example, and save again"
        )
    raise SamplesError(f"x is of {x.dtype}; need float32")


def _check_x(x: NDArray[np.float32], input_shape: Shape | None) -> None:
    if x.ndim < 2 or 0 in x.shape:
        raise SamplesError(f"x has shape {x.shape}; need (N, *shape) with N of at least 1" + ("" if x.ndim > 1 else ", the batch first"))
    if input_shape is not None and x.shape[1:] != tuple(input_shape):
        hint = "; the channels come first" if sorted(x.shape[1:]) == sorted(input_shape) else ""
        raise SamplesError(f"x has samples of shape {x.shape[1:]}, the network needs {tuple(input_shape)}{hint}")
    finite = np.isfinite(x)
    if not finite.all():
        first = tuple(int(i) for i in np.unravel_index(np.argmin(finite), x.shape))
        raise SamplesError(f"x has {x.size - np.count_nonzero(finite)} values that are NaN or infinite, the first at {first}")
    largest = float(np.abs(x).max())
    if largest > LARGEST_X:
        raise SamplesError(f"x has a value of magnitude {largest:.3g}; need at most {LARGEST_X:g}; normalize the samples as in training")


def labels_of(y: NDArray, n: int) -> NDArray[np.int64]:
    """Return labels as int64, read-only; SamplesError unless they are integers, one a sample."""
    if y.dtype.kind not in "iu":
        raise SamplesError(f"y is of {y.dtype}; need integer labels, one a sample")
    if y.shape != (n,):
        raise SamplesError(f"y has shape {y.shape}; need ({n},), one label a sample of x")
    if y.dtype == np.uint64 and n and y.max() > np.iinfo(np.int64).max:
        raise SamplesError(f"y has the label {y.max()}; labels are at most 2^63 - 1")
    return _read_only(np.ascontiguousarray(y.astype(np.int64)))


def _read_only(array: NDArray) -> NDArray:
    """Return the array, or a copy where somebody could still write it, as read-only."""
    if array.flags.writeable:
        array = array.copy()
        array.flags.writeable = False
    return array
