"""Samples are read once their headers are believed, and every other file is one clear error."""

import io
import tracemalloc
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from devices.base.errors import SamplesError
from workloads.samples import Samples, load_samples, samples_of

SHAPE = (1, 4, 5)


def some(n: int = 6) -> np.ndarray:
    return np.random.default_rng(0).normal(size=(n, *SHAPE)).astype(np.float32)


def saved(folder: Path, **arrays: Any) -> Path:
    np.savez(folder / "data.npz", **arrays)
    return folder / "data.npz"


def header(shape: tuple[int, ...], *, dtype: str = "<f4") -> bytes:
    """Return the start of an .npy file that declares this shape."""
    held = io.BytesIO()
    np.lib.format.write_array_header_1_0(held, {"descr": dtype, "fortran_order": False, "shape": shape})
    return held.getvalue()


def zipped(folder: Path, **members: bytes) -> Path:
    path = folder / "data.npz"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in members.items():
            archive.writestr(f"{name}.npy", content)
    return path


@pytest.mark.parametrize("write", [np.savez, np.savez_compressed])
def test_images_and_labels_are_read(write: Any, tmp_path: Path) -> None:
    write(tmp_path / "data.npz", x=some(), y=np.arange(6, dtype=np.uint8), z=np.array(["other"], dtype=object))
    data = load_samples(tmp_path / "data.npz", input_shape=SHAPE)
    np.testing.assert_array_equal(data.x, some())
    assert data.y is not None
    assert (data.y.dtype, data.y.tolist()) == (np.int64, list(range(6)))
    assert (len(data), data.shape, data.notes) == (6, SHAPE, ())


def test_labels_are_optional(tmp_path: Path) -> None:
    assert load_samples(saved(tmp_path, x=some())).y is None


def test_fortran_order_is_read_too(tmp_path: Path) -> None:
    np.testing.assert_array_equal(load_samples(saved(tmp_path, x=np.asfortranarray(some()))).x, some())


def test_arrays_are_read_only(tmp_path: Path) -> None:
    x = some()
    for data in (load_samples(saved(tmp_path, x=x, y=np.arange(6))), samples_of(x), samples_of(x)[:3]):
        with pytest.raises(ValueError, match="read-only"):
            data.x[0] = 0
    x[0] = 5.0
    assert x.flags.writeable


def test_samples_of_an_array_do_not_follow_its_later_changes() -> None:
    x = some()
    data = samples_of(x)
    x[:] = 0
    np.testing.assert_array_equal(data.x, some())


@pytest.mark.parametrize(
    ("which", "kept"),
    [(slice(None, 4), [0, 1, 2, 3]), (slice(4, 320), [4, 5]), ([5, 0], [5, 0]), (np.array([1, 1]), [1, 1]),
     (np.array([True, False, False, True, False, False]), [0, 3])],
)
def test_selections_take_labels_along(which: Any, kept: list[int]) -> None:
    data = samples_of(some(), np.arange(6))[which]
    np.testing.assert_array_equal(data.x, some()[kept])
    assert data.y is not None
    assert data.y.tolist() == kept
    assert not data.x.flags.writeable


@pytest.mark.parametrize("which", [slice(6, 9), [], [6], 3, np.array([[0]]), np.array([0.5])])
def test_selections_of_nothing_are_errors(which: Any) -> None:
    with pytest.raises(SamplesError):
        samples_of(some())[which]


def test_the_digest_is_of_the_numbers(tmp_path: Path) -> None:
    data = load_samples(saved(tmp_path, x=some(), y=np.arange(6)))
    assert samples_of(some(), np.arange(6)).digest == data.digest
    assert data[:6].digest == data.digest
    moved, relabelled = samples_of(some() + 1, np.arange(6)), samples_of(some(), np.zeros(6, int))
    others: list[Samples] = [data[:5], data[::-1], samples_of(some()), relabelled, moved]
    assert len({data.digest, *(o.digest for o in others)}) == 6


@pytest.mark.parametrize("kind", [np.float16, np.float64])
def test_other_floats_are_converted_and_noted(kind: type, tmp_path: Path) -> None:
    data = load_samples(saved(tmp_path, x=some().astype(kind)))
    assert data.x.dtype == np.float32
    assert data.notes == (f"x was converted from {np.dtype(kind)} to float32",)


@pytest.mark.parametrize("kind", [np.uint8, np.int64, bool])
def test_integers_are_refused_with_a_hint(kind: type, tmp_path: Path) -> None:
    with pytest.raises(SamplesError, match="normalize"):
        load_samples(saved(tmp_path, x=np.ones((2, *SHAPE), kind)))


@pytest.mark.parametrize("x", [np.array(["a", "b"]), np.ones((2, 3), complex)])
def test_what_is_no_number_is_refused(x: np.ndarray, tmp_path: Path) -> None:
    with pytest.raises(SamplesError, match="need float32"):
        load_samples(saved(tmp_path, x=x))


def test_object_arrays_are_never_read(tmp_path: Path) -> None:
    with pytest.raises(SamplesError, match="Python objects"):
        load_samples(saved(tmp_path, x=np.array([{}, {}], dtype=object)))
    with pytest.raises(SamplesError, match=r"y in data\.npz is an array of Python objects"):
        load_samples(saved(tmp_path, x=some(), y=np.array([1, None], dtype=object)))


@pytest.mark.parametrize("x", [np.empty((0, *SHAPE), np.float32), np.empty((2, 0), np.float32), np.float32(1.0), np.ones(4, np.float32)])
def test_an_empty_or_flat_batch_is_refused(x: np.ndarray, tmp_path: Path) -> None:
    with pytest.raises(SamplesError, match=r"need \(N, \*shape\)"):
        load_samples(saved(tmp_path, x=x))


def test_values_that_are_not_finite_are_counted_and_placed(tmp_path: Path) -> None:
    x = some()
    x[2, 0, 3, 1], x[4, 0, 0, 0] = np.nan, np.inf
    with pytest.raises(SamplesError, match=r"2 values that are NaN or infinite, the first at \(2, 0, 3, 1\)"):
        load_samples(saved(tmp_path, x=x))
    with pytest.raises(SamplesError, match="infinite"):
        load_samples(saved(tmp_path, x=np.full((1, 2), 1e300)))


def test_another_shape_names_both(tmp_path: Path) -> None:
    path = saved(tmp_path, x=some())
    with pytest.raises(SamplesError, match=r"\(1, 4, 5\), the network needs \(3, 32, 32\)"):
        load_samples(path, input_shape=(3, 32, 32))
    with pytest.raises(SamplesError, match="channels come first"):
        load_samples(path, input_shape=(5, 4, 1))


@pytest.mark.parametrize("y", [np.arange(5), np.arange(7), np.zeros((6, 1), int), np.array(3)])
def test_one_label_a_sample_is_needed(y: np.ndarray, tmp_path: Path) -> None:
    with pytest.raises(SamplesError, match=r"need \(6,\)"):
        load_samples(saved(tmp_path, x=some(), y=y))


@pytest.mark.parametrize("y", [np.ones(6), np.ones(6, bool), np.array(["a"] * 6)])
def test_labels_are_integers(y: np.ndarray, tmp_path: Path) -> None:
    with pytest.raises(SamplesError, match="integer labels"):
        load_samples(saved(tmp_path, x=some(), y=y))


def test_labels_beyond_int64_are_refused(tmp_path: Path) -> None:
    with pytest.raises(SamplesError, match=r"2\^63"):
        load_samples(saved(tmp_path, x=some(1), y=np.array([2**63], np.uint64)))


def test_a_file_without_x_says_what_it_holds(tmp_path: Path) -> None:
    with pytest.raises(SamplesError, match="holds images, labels; need an array named x"):
        load_samples(saved(tmp_path, images=some(), labels=np.arange(6)))


def test_a_missing_file_or_a_folder_is_one_error(tmp_path: Path) -> None:
    with pytest.raises(SamplesError, match="no samples file"):
        load_samples(tmp_path / "absent.npz")
    with pytest.raises(SamplesError, match="folder"):
        load_samples(tmp_path)


@pytest.mark.parametrize("content", [b"", b"text", b"PK\x03\x04 and no more", b"\x93NUMPY\x01\x00"])
def test_what_is_no_archive_is_one_error(content: bytes, tmp_path: Path) -> None:
    (tmp_path / "data.npz").write_bytes(content)
    with pytest.raises(SamplesError, match=r"not an \.npz file"):
        load_samples(tmp_path / "data.npz")


def test_a_declared_600_gigabytes_are_refused_without_memory(tmp_path: Path) -> None:
    path = zipped(tmp_path, x=header((150_000_000_000,)) + b"\0" * 64)
    tracemalloc.start()
    with pytest.raises(SamplesError, match=r"declares float32 \(150000000000,\), 6e\+11 bytes, but 64 are stored"):
        load_samples(path)
    assert tracemalloc.get_traced_memory()[1] < 2**20
    tracemalloc.stop()


def test_an_archive_that_lies_about_its_sizes_is_refused_without_memory(tmp_path: Path) -> None:
    """The central directory says 4 GB, in agreement with the header; the file has a few hundred bytes."""
    path = zipped(tmp_path, x=header((1_000_000_000,)) + b"\0" * 64)
    with zipfile.ZipFile(path) as archive:
        (info,) = archive.infolist()
    raw, true_size, false_size = path.read_bytes(), info.file_size, info.file_size - 64 + 4_000_000_000
    path.write_bytes(raw.replace(true_size.to_bytes(4, "little"), false_size.to_bytes(4, "little")))
    tracemalloc.start()
    with pytest.raises(SamplesError, match="bytes are there to unpack"):
        load_samples(path)
    assert tracemalloc.get_traced_memory()[1] < 2**20
    tracemalloc.stop()


def test_an_array_above_the_limit_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("workloads.samples.MAX_BYTES", 100)
    with pytest.raises(SamplesError, match="at most 100 are read"):
        load_samples(saved(tmp_path, x=some()))


@pytest.mark.parametrize(
    "member",
    [b"", b"\x93NUMPY", b"\x93NUMPY\x09\x00" + b"\0" * 40, b"no array at all", header((2, 3))[:-20],
     header((2, 3)).replace(b"shape", b"shade"), header((2, 3)).replace(b"<f4", b"<q9")],
)
def test_a_damaged_header_is_one_error(member: bytes, tmp_path: Path) -> None:
    with pytest.raises(SamplesError, match=r"x in data\.npz"):
        load_samples(zipped(tmp_path, x=member))


def test_negative_sizes_are_refused(tmp_path: Path) -> None:
    with pytest.raises(SamplesError):
        load_samples(zipped(tmp_path, x=header((-2, -3)) + b"\0" * 24))


def test_damaged_bytes_are_an_error_of_ours_or_samples(tmp_path: Path) -> None:
    """Flip bits all through a file; the archive's checksum finds what the header does not."""
    np.savez_compressed(tmp_path / "data.npz", x=some(), y=np.arange(6))
    raw = (tmp_path / "data.npz").read_bytes()
    rng = np.random.default_rng(0)
    for at in rng.integers(0, len(raw), size=400):
        changed = bytearray(raw)
        changed[at] ^= 1 << int(rng.integers(8))
        (tmp_path / "damaged.npz").write_bytes(changed)
        try:
            load_samples(tmp_path / "damaged.npz")
        except SamplesError as error:
            assert str(error)  # noqa: PT017 (either outcome is right)


def test_a_truncated_file_is_one_error(tmp_path: Path) -> None:
    raw = saved(tmp_path, x=some()).read_bytes()
    for share in (0.2, 0.5, 0.9):
        (tmp_path / "cut.npz").write_bytes(raw[: int(share * len(raw))])
        with pytest.raises(SamplesError):
            load_samples(tmp_path / "cut.npz")


def test_inputs_whose_squares_overflow_are_refused() -> None:
    with pytest.raises(SamplesError, match=r"magnitude 1e\+20; need at most 1e\+15"):
        samples_of(np.full((1, 2), -1e20, np.float32))
    samples_of(np.full((1, 2), 1e14, np.float32))
