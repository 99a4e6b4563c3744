"""Counter-based random streams: every element is a pure function of (seed, site, trial, index).

Words come from Philox4x32-10 (Salmon, Moraes, Dror, Shaw, "Parallel random numbers: as easy as 1, 2, 3", SC 2011):

    key     = seed, 64 bits
    counter = (block 64 bits, trial 32 bits, site 32 bits)

Element i lies in group g = i // 64 at r = i % 64; its block is 16 g + r % 16 and its word of that block r // 16, so 16 blocks side
by side fill 64 elements with contiguous stores. Neither the size of an array, nor where a fill starts, nor the order of fills matters.
Normals use fused multiply-adds and the correctly rounded square root only, so their bits do not depend on the vector width.
"""

# mypy: allow-untyped-defs
import hashlib
from collections.abc import Callable
from typing import Any

import numpy as np
from llvmlite import ir
from numba import extending, types
from numpy.typing import NDArray

from devices.base.jit import jit

GROUP = 64  # elements a group; a fill starts at a multiple of it

U32, U64, F32, I32 = np.uint32, np.uint64, np.float32, np.int32


def _intrinsic(function: Callable[..., Any]) -> Any:
    """Numba's decorator, with the type it has for callers: without `typingctx`."""
    return extending.intrinsic(function)


@_intrinsic
def _float_of_bits(typingctx, x):
    def codegen(context, builder, signature, args):
        return builder.bitcast(args[0], ir.FloatType())

    return types.float32(types.uint32), codegen


@_intrinsic
def _bits_of_float(typingctx, x):
    def codegen(context, builder, signature, args):
        return builder.bitcast(args[0], ir.IntType(32))

    return types.uint32(types.float32), codegen


@_intrinsic
def _signed(typingctx, x):
    def codegen(context, builder, signature, args):
        return args[0]

    return types.int32(types.uint32), codegen


@_intrinsic
def _fma(typingctx, a, b, c):
    """a b + c with one rounding. Explicit, so that no compiler may choose."""

    def codegen(context, builder, signature, args):
        return builder.fma(*args)

    return types.float32(types.float32, types.float32, types.float32), codegen


@jit(inline="always")
def _philox(c0, c1, c2, c3, k0, k1):
    """Philox4x32-10 on words held in the low halves of 64-bit lanes; the high halves are rubbish and never looked at.

    A round is two 32x32 -> 64 bit products, crossed and keyed; the key grows by the Weyl constants of the golden ratio
    and of sqrt 3 - 1. The 64-bit lanes spare the shuffles that narrowing each product would cost.
    """
    low = U64(0xFFFFFFFF)
    for r in range(10):
        p0 = U64(0xD2511F53) * (c0 & low)
        p1 = U64(0xCD9E8D57) * (c2 & low)
        c0 = (p1 >> U64(32)) ^ c1 ^ U64(U32(k0 + U32(r) * U32(0x9E3779B9)))
        c2 = (p0 >> U64(32)) ^ c3 ^ U64(U32(k1 + U32(r) * U32(0xBB67AE85)))
        c1, c3 = p1, p0
    return U32(c0), U32(c1), U32(c2), U32(c3)


@jit(inline="always")
def _minus_two_log(w):
    """-2 ln((w + 1/2) / 2^32) for a 32-bit word, in [0, 45.75]; the Cephes polynomial of ln on [sqrt 1/2, sqrt 2)."""
    b = _bits_of_float(F32(w) + F32(0.5))
    k = U32(b - U32(0x3F3504F3))
    e = F32(_signed(k) >> I32(23)) - F32(32.0)
    z = _float_of_bits(U32((k & U32(0x007FFFFF)) + U32(0x3F3504F3))) - F32(1.0)
    p = _fma(F32(7.0376836292e-2), z, F32(-1.1514610310e-1))
    p = _fma(p, z, F32(1.1676998740e-1))
    p = _fma(p, z, F32(-1.2420140846e-1))
    p = _fma(p, z, F32(1.4249322787e-1))
    p = _fma(p, z, F32(-1.6668057665e-1))
    p = _fma(p, z, F32(2.0000714765e-1))
    p = _fma(p, z, F32(-2.4999993993e-1))
    p = _fma(p, z, F32(3.3333331174e-1))
    p = _fma(p, z, F32(-0.5))
    return F32(-2.0) * _fma(e, F32(0.69314718056), _fma(p, z * z, z))


@jit(inline="always")
def _sine_cosine(w):
    """sin and cos of 2 pi w / 2^32, through the half angle h = pi x / 2, x in [-1, 1): 2 sin h cos h, 1 - 2 sin^2 h."""
    x = F32(_signed(w)) * F32(4.656612873077393e-10)
    y = x * x
    s = _fma(F32(-3.5988432e-6), y, F32(1.6044118e-4))
    s = _fma(s, y, F32(-4.6817541e-3))
    s = _fma(s, y, F32(7.9692626e-2))
    s = _fma(s, y, F32(-6.4596410e-1))
    s = _fma(s, y, F32(1.5707963))
    s = s * x
    c = _fma(F32(4.7108748e-7), y, F32(-2.5202042e-5))
    c = _fma(c, y, F32(9.1926027e-4))
    c = _fma(c, y, F32(-2.0863481e-2))
    c = _fma(c, y, F32(2.5366951e-1))
    c = _fma(c, y, F32(-1.2337006))
    c = _fma(c, y, F32(1.0))
    d = s + s
    return d * c, _fma(-d, s, F32(1.0))


@jit(inline="always")
def _box_muller(a, b):
    """Two standard normals of two words: r cos, r sin with r = sqrt(-2 ln u)."""
    r = np.sqrt(_minus_two_log(a))
    s, c = _sine_cosine(b)
    return r * c, r * s


@jit(inline="always")
def _open_unit(w):
    """(23 bits + 1/2) / 2^23: exact in float32, never 0 or 1."""
    return _fma(F32(_signed(U32(w >> U32(9)))), F32(2.0**-23), F32(2.0**-24))


@jit(inline="always")
def _sign(w):
    """+1 or -1 from the top bit."""
    return _float_of_bits(U32((w & U32(0x80000000)) | U32(0x3F800000)))


@jit()
def _fill_words(out, group, k0, k1, trial, site):
    """Raw words of whole groups; `out.size` is a multiple of 64."""
    for g in range(out.size // 64):
        block, o = U64(U64(group) + U64(g)) << U64(4), g * 64
        for i in range(16):
            a, b, c, d = _philox(block + U64(i), block >> U64(32), U64(trial), U64(site), k0, k1)
            out[o + i] = U32(a)
            out[o + 16 + i] = U32(b)
            out[o + 32 + i] = U32(c)
            out[o + 48 + i] = U32(d)


@jit()
def _fill_normals(out, group, k0, k1, trial, site):
    """Standard normals of whole groups; `out.size` is a multiple of 64."""
    for g in range(out.size // 64):
        block, o = U64(U64(group) + U64(g)) << U64(4), g * 64
        for i in range(16):
            a, b, c, d = _philox(block + U64(i), block >> U64(32), U64(trial), U64(site), k0, k1)
            out[o + i] = _float_of_bits(a)
            out[o + 16 + i] = _float_of_bits(b)
            out[o + 32 + i] = _float_of_bits(c)
            out[o + 48 + i] = _float_of_bits(d)
        for i in range(16):  # a loop of its own: float32 lanes are half as wide as the words' 64 bits
            a, b = _bits_of_float(out[o + i]), _bits_of_float(out[o + 16 + i])
            c, d = _bits_of_float(out[o + 32 + i]), _bits_of_float(out[o + 48 + i])
            out[o + i], out[o + 16 + i] = _box_muller(a, b)
            out[o + 32 + i], out[o + 48 + i] = _box_muller(c, d)


@jit()
def _fill_normals_of_sites(out, starts, k0, k1, trial, sites):
    """Elements 0, 1, ... of each site's normals, site after site."""
    last = np.empty(64, F32)
    for s in range(sites.size):
        begin, n = starts[s], starts[s + 1] - starts[s]
        n_whole = n // 64 * 64
        _fill_normals(out[begin : begin + n_whole], 0, k0, k1, trial, sites[s])
        if n_whole < n:
            _fill_normals(last, n_whole // 64, k0, k1, trial, sites[s])
            out[begin + n_whole : begin + n] = last[: n - n_whole]


@jit()
def _fill_uniforms(out, group, k0, k1, trial, site):
    """Uniforms of whole groups; `out.size` is a multiple of 64."""
    for g in range(out.size // 64):
        block, o = U64(U64(group) + U64(g)) << U64(4), g * 64
        for i in range(16):
            a, b, c, d = _philox(block + U64(i), block >> U64(32), U64(trial), U64(site), k0, k1)
            out[o + i] = _open_unit(a)
            out[o + 16 + i] = _open_unit(b)
            out[o + 32 + i] = _open_unit(c)
            out[o + 48 + i] = _open_unit(d)


@jit()
def _fill_signs(out, group, k0, k1, trial, site):
    """Signs of whole groups; `out.size` is a multiple of 64."""
    for g in range(out.size // 64):
        block, o = U64(U64(group) + U64(g)) << U64(4), g * 64
        for i in range(16):
            a, b, c, d = _philox(block + U64(i), block >> U64(32), U64(trial), U64(site), k0, k1)
            out[o + i] = _sign(a)
            out[o + 16 + i] = _sign(b)
            out[o + 32 + i] = _sign(c)
            out[o + 48 + i] = _sign(d)


def _check(name: str, value: int, n_bits: int) -> int:
    value = int(value)
    if not 0 <= value < 1 << n_bits:
        raise ValueError(f"need 0 <= {name} < 2**{n_bits}, got {value}")
    return value


def _fill(kernel: Any, out: NDArray[Any], *, dtype: type, seed: int, site: int, trial: int, start: int) -> None:
    """Run `kernel` over the whole groups of `out`, then over one more group for what is left of it."""
    if out.dtype != dtype or not out.flags.c_contiguous:
        raise ValueError(f"need a C-contiguous {np.dtype(dtype).name} array, got {out.dtype.name} with strides {out.strides}")
    if start % GROUP:
        raise ValueError(f"start must be a multiple of {GROUP}, got {start}")
    seed, group = _check("seed", seed, 64), _check("start", start, 63) // GROUP
    rest = (U32(seed & 0xFFFFFFFF), U32(seed >> 32), U32(_check("trial", trial, 32)), U32(_check("site", site, 32)))
    flat = out.reshape(-1)
    n_whole = flat.size // GROUP * GROUP
    if n_whole:
        kernel(flat[:n_whole], group, *rest)
    if n_whole < flat.size:
        last: NDArray[Any] = np.empty(GROUP, dtype)
        kernel(last, group + n_whole // GROUP, *rest)
        flat[n_whole:] = last[: flat.size - n_whole]


def site_id(layer: str, kind: str, slot: int = 0) -> int:
    """Name a site of randomness by 32 bits: the same in every process and version.

    The BLAKE2b hash of the two names, each behind its length, and the slot. Two of n sites coincide with probability
    about n^2 / 2^33, so whoever makes the sites of a network checks that they differ.
    """
    parts = [layer.encode(), kind.encode(), str(int(slot)).encode()]
    text = b"".join(b"%d:%b" % (len(part), part) for part in parts)
    return int.from_bytes(hashlib.blake2b(text, digest_size=4).digest(), "little")


def words(out: NDArray[np.uint32], *, seed: int, site: int, trial: int, start: int = 0) -> NDArray[np.uint32]:
    """Fill `out` (any shape, C-contiguous) with elements start, start + 1, ... of the stream's 32-bit words."""
    _fill(_fill_words, out, dtype=U32, seed=seed, site=site, trial=trial, start=start)
    return out


def normals(out: NDArray[np.float32], *, seed: int, site: int, trial: int, start: int = 0) -> NDArray[np.float32]:
    """Fill `out` with standard normals by Box and Muller's transform, |z| <= 6.77.

    Raises ValueError unless `start` is a multiple of 64, 0 <= seed < 2^64, and trial and site fit 32 bits.
    """
    _fill(_fill_normals, out, dtype=F32, seed=seed, site=site, trial=trial, start=start)
    return out


def normals_of_sites(n: NDArray[np.int64], *, seed: int, sites: NDArray[np.uint32], trial: int) -> NDArray[np.float32]:
    """Return the first `n[s]` standard normals of each site `sites[s]`, one behind the other: what `normals` gives for each."""
    starts = np.concatenate([np.zeros(1, np.int64), np.cumsum(n)])
    seed, trial = _check("seed", seed, 64), _check("trial", trial, 32)
    out: NDArray[np.float32] = np.empty(int(starts[-1]), F32)
    _fill_normals_of_sites(out, starts, U32(seed & 0xFFFFFFFF), U32(seed >> 32), U32(trial), sites)
    return out


def uniforms(out: NDArray[np.float32], *, seed: int, site: int, trial: int, start: int = 0) -> NDArray[np.float32]:
    """Fill `out` with uniforms on the grid (k + 1/2) / 2^23: for events rarer than about 1e-5 compare `words` instead."""
    _fill(_fill_uniforms, out, dtype=F32, seed=seed, site=site, trial=trial, start=start)
    return out


def rademacher(out: NDArray[np.float32], *, seed: int, site: int, trial: int, start: int = 0) -> NDArray[np.float32]:
    """Fill `out` with +1 and -1, equally likely."""
    _fill(_fill_signs, out, dtype=F32, seed=seed, site=site, trial=trial, start=start)
    return out
