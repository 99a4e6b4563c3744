"""Mutants of `.npz` files: what the arrays hold, their headers, the archive, and bytes."""

import io
import struct
import zipfile
from random import Random

import numpy as np

from validation.fuzz.mutation import NAMES, mutated_bytes

DTYPES = (
    "<f4", "<f8", "<f2", ">f4", "<i4", "|u1", "|b1", "<c8", "|O", "<U3", "|S5", "<M8[s]", "|V8", [("a", "<f4")], "<f4 ", "f4,f4", "<f16",
)  # fmt: skip
SHAPES = (
    "(2, 3)", "(0,)", "()", "(-1, 4)", "(1000000000, 1000000)", "(2,) * 3", "(True, 4)", "(2.0, 3)", "((2, 3))", "[2, 3]", "None",
    "(" + "1, " * 70 + ")", "(9" + "9" * 60 + ",)", "(0, 99999999999)", "(4294967296, 4294967296)", "(-2, -3)",
)  # fmt: skip


def mutant_npz(choose: Random, shape: tuple[int, ...]) -> bytes:
    """Return a damaged archive of samples of a shape, at times a sound one."""
    how = choose.random()
    if how < 0.3:
        return _archive(choose, _arrays(choose, shape))
    if how < 0.65:
        return _archive(choose, _headers(choose, shape))
    sound = _archive(Random(0), {"x.npy": _npy(_images(choose, shape)), "y.npy": _npy(np.arange(3))})
    return mutated_bytes(choose, sound) if how < 0.85 else _patched(choose, sound)


def _images(choose: Random, shape: tuple[int, ...], n: int = 3) -> np.ndarray:
    return np.random.default_rng(choose.randrange(2**32)).normal(size=(n, *shape)).astype(np.float32)


def sound_npz(choose: Random, shape: tuple[int, ...], *, n: int = 3) -> bytes:
    """Return samples and labels without fault."""
    out = io.BytesIO()
    np.savez(out, x=_images(choose, shape, n), y=np.arange(n) % 2)
    return out.getvalue()


def _npy(array: np.ndarray) -> bytes:
    out = io.BytesIO()
    np.lib.format.write_array(out, array, allow_pickle=True)
    return out.getvalue()


def _arrays(choose: Random, shape: tuple[int, ...]) -> dict[str, bytes]:
    """Return members of another kind, shape or content."""
    x = _images(choose, shape)
    flat = x.reshape(-1)
    with np.errstate(all="ignore"):
        changed = (
            x, x.astype(np.float64), x.astype(np.float16), x * np.float32(1e30), x * np.float32(1e-40), x.astype(np.int8), x > 0,
            x.astype(complex), x.astype(str), x.astype(object), x[:0], x[:1], x.T, x[0], flat, flat[0], np.asfortranarray(x),
            x.astype(">f4"),
            np.where(x > 1, np.nan, x), np.where(x > 1, np.inf, x), np.zeros_like(x), np.full_like(x, 3e38), x[..., None],
            np.repeat(x, 400, axis=0), x.astype([("a", "f4")]), np.array("x"), x.astype(np.longdouble), x.view(np.uint32),
        )  # fmt: skip
        labels = (
            np.arange(3), np.arange(3) - 5, np.array([0, 1, 2**40]), np.full(3, 2**63, np.uint64), np.zeros(3), np.zeros((3, 1), int),
            np.array(["a", "b", "c"]), np.arange(4), np.array([True, False, True]), np.array([None] * 3), np.zeros(0, int),
        )  # fmt: skip
    members = {"x.npy": _npy(choose.choice(changed))}
    if choose.random() < 0.7:
        members["y.npy"] = _npy(choose.choice(labels))
    if choose.random() < 0.15:
        members[choose.choice(("X.npy", "x", "z.npy", "../x.npy", "x.npy.npy", *NAMES))] = members["x.npy"]
    if choose.random() < 0.1:
        members.pop("x.npy")
    return members


def _headers(choose: Random, shape: tuple[int, ...]) -> dict[str, bytes]:
    """Return members whose headers are written by hand."""
    dtype = repr(choose.choice(DTYPES)) if choose.random() < 0.6 else "'<f4'"
    full = str((3, *shape)) if choose.random() < 0.4 else choose.choice(SHAPES)
    order = choose.choice(("False", "False", "True", "2", "None"))
    text = f"{{'descr': {dtype}, 'fortran_order': {order}, 'shape': {full}, }}"
    how = choose.randrange(8)
    if how == 0:
        deep = ("[" * 3000, "-" * 50_000 + "1", "{" * 90 + "}" * 90, "1" * 6000, "b'" * 200)
        text = choose.choice(("", "{", "{'descr': __import__('os')}", "\x00", *deep))
    elif how == 1:
        text = text.replace(choose.choice(("descr", "shape", "fortran_order")), choose.choice(("descr", "other", "")))
    elif how == 2:
        text += "#" * choose.choice((100, 60_000))
    raw = text.encode("latin-1")
    version = choose.choice(((1, 0), (1, 0), (1, 0), (2, 0), (3, 0), (9, 9)))
    length = len(raw) if choose.random() < 0.9 else choose.choice((0, 65_535, 2**31 - 1))
    size = struct.pack("<H", length % 65_536) if version == (1, 0) else struct.pack("<I", length)
    body = _images(choose, shape).tobytes() if choose.random() < 0.8 else choose.randbytes(64)
    magic = b"\x93NUMPY" if choose.random() < 0.95 else choose.randbytes(6)
    return {"x.npy": magic + bytes(version) + size + raw + body}


def _archive(choose: Random, members: dict[str, bytes]) -> bytes:
    out = io.BytesIO()
    methods = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA)
    with zipfile.ZipFile(out, "w", choose.choice((0, 0, *methods))) as archive:
        for name, raw in members.items():
            info = zipfile.ZipInfo(name or "empty")
            info.compress_type = archive.compression
            if choose.random() < 0.05:
                info.external_attr = 0o120777 << 16  # says it is a link
            archive.writestr(info, raw)
            if choose.random() < 0.03:
                archive.writestr(info, raw)  # the same name again
    return out.getvalue()


def _patched(choose: Random, raw: bytes) -> bytes:
    """Return an archive with fields of its directory changed: sizes, checksums, flags, methods, offsets; or one within another."""
    how = choose.randrange(6)
    if how == 0:
        return _archive(choose, {"x.npy": raw})
    if how == 1:
        return raw + raw
    made = bytearray(raw)
    central = choose.random() < 0.6
    at = made.find(b"PK\x01\x02" if central else b"PK\x03\x04", 0)
    places = ((4, 2), (6, 2), (8, 2), (10, 2), (16, 4), (20, 4), (24, 4), (28, 2), (30, 2), (32, 2), (42, 4))
    place, width = choose.choice(places)
    values = (0, 1, 2, 8, 9, 12, 14, 93, 255, 2**16 - 1, 2**31, 2**32 - 1, 0x0801)
    made[at + place : at + place + width] = (choose.choice(values) % 2 ** (8 * width)).to_bytes(width, "little")
    return bytes(made)
