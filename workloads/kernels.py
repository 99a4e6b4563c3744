"""Fast convolutions, their adjoints and the moments of their weight gradients; lanes innermost.

Activations are C-contiguous arrays (C, H, W, L). The L lanes are images, or outputs times images, and are treated alike: all
arithmetic is vertical. A convolution, its adjoint and a fully connected layer (H = W = 1) are one operation, the gather product

    y[o, run] = sum_k w[k, o] x[offset_k + run],                                                                    (1)

where a run is a stretch of contiguous elements of a row. Borders are regions with fewer taps, so nothing is padded or copied.
The register tiles are emitted as LLVM vector IR through Numba intrinsics: they need no compiler and no BLAS, and they are
compiled once per element type, not per network. One call uses one thread and holds no lock; callers thread over trials.
"""

# mypy: allow-untyped-defs
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, NamedTuple

import numba
import numpy as np
from llvmlite import binding, ir
from numba import extending, types
from numba.core import cgutils
from numpy.typing import NDArray

from devices.base.jit import jit

Array = NDArray[Any]

I1, I32, I64, F64 = ir.IntType(1), ir.IntType(32), ir.IntType(64), ir.DoubleType()


def _vector_bytes() -> int:
    """Widest vector register of the CPU that Numba compiles for: 64 bytes with AVX-512, 32 with AVX2, else 16."""
    told = numba.config.CPU_FEATURES  # type: ignore[attr-defined]
    names = {name for name, has in binding.get_host_cpu_features().items() if has} if told is None else {f[1:] for f in told.split(",") if f[:1] == "+"}
    return 64 if "avx512f" in names else 32 if {"avx2", "fma"} <= names else 16


VECTOR_BYTES = _vector_bytes()
_WIDE = VECTOR_BYTES == 64  # 32 vector registers; else count on 16
_NC = 8 if _WIDE else 4  # channels of the product's tile ...
_NV = 3 if _WIDE else 2  # ... and its vectors
_NV4 = 6 if _WIDE else 2  # vectors of the tiles of four and of one channel
import os
_LB = int(os.environ.get('LB','1000000'))
_NO = 4  # outputs of the gradient's tile ...
_NJ = 6 if _WIDE else 2  # ... and its taps
_BLOCK = 64  # positions whose deltas stay in L1 while all taps pass
_BUFFER_BYTES = 1 << 17  # gradients held at a time, in L2


# Geometry


@dataclass(frozen=True, slots=True, kw_only=True)
class ConvGeometry:
    """Shape of a convolution; a fully connected layer has in_shape (C, 1, 1) and kernel (1, 1).

    Parameters
    ----------
    in_shape
        (C, H, W).
    n_out
        Output features O.
    kernel, stride, dilation
        (vertical, horizontal).
    pads
        (top, left, bottom, right) zeros.
    groups
        Divides both C and O.
    """

    in_shape: tuple[int, int, int]
    n_out: int
    kernel: tuple[int, int] = (1, 1)
    stride: tuple[int, int] = (1, 1)
    dilation: tuple[int, int] = (1, 1)
    pads: tuple[int, int, int, int] = (0, 0, 0, 0)
    groups: int = 1

    def __post_init__(self) -> None:
        positive = (*self.in_shape, self.n_out, *self.kernel, *self.stride, *self.dilation, self.groups)
        if min(positive) < 1 or min(self.pads) < 0:
            raise ValueError(f"need positive sizes and pads of at least 0, got {self}")
        if self.in_shape[0] % self.groups or self.n_out % self.groups:
            raise ValueError(f"groups must divide channels and outputs, got {self.groups} groups for {self.in_shape[0]} -> {self.n_out}")
        if min(self.out_shape) < 1:
            raise ValueError(f"the dilated kernel exceeds the padded input: {self}")

    @property
    def out_shape(self) -> tuple[int, int, int]:
        """(O, oh, ow)."""
        size = [
            (self.in_shape[1 + i] + self.pads[i] + self.pads[2 + i] - self.dilation[i] * (self.kernel[i] - 1) - 1) // self.stride[i] + 1
            for i in (0, 1)
        ]
        return self.n_out, size[0], size[1]

    @property
    def weight_shape(self) -> tuple[int, int, int, int]:
        """(O, C / groups, kh, kw)."""
        return self.n_out, self.in_shape[0] // self.groups, *self.kernel

    @property
    def n_rows(self) -> int:
        """Weights of one output feature: C / groups kh kw."""
        return math.prod(self.weight_shape[1:])

    @property
    def n_positions(self) -> int:
        """Output positions oh ow."""
        return self.out_shape[1] * self.out_shape[2]

    @property
    def n_macs(self) -> int:
        """Multiply-accumulates of one image, those with padding zeros included."""
        return self.n_out * self.n_rows * self.n_positions


class _Segment(NamedTuple):
    """Positions of one axis that see the same taps: `out_start + m out_step` reads `source + m source_step` for each (tap, source)."""

    out_start: int
    out_step: int
    count: int
    source_step: int
    taps: tuple[tuple[int, int], ...]


def _cut(positions: list[int], sources: Callable[[int], tuple[tuple[int, int], ...]], source_step: int) -> Iterator[_Segment]:
    """Cut a progression of positions where the set of taps changes."""
    step = positions[1] - positions[0] if len(positions) > 1 else 1
    start = 0
    for i in range(1, len(positions) + 1):
        first = sources(positions[start])
        if i == len(positions) or [t for t, _ in sources(positions[i])] != [t for t, _ in first]:
            yield _Segment(positions[start], step, i - start, source_step, first)
            start = i


def _forward_segments(geometry: ConvGeometry, axis: int) -> list[_Segment]:
    """Segments of the output axis: position i reads h = i stride + a dilation - pad, 0 <= h < H."""
    size, n_out = geometry.in_shape[1 + axis], geometry.out_shape[1 + axis]
    stride, dilation, pad, n_taps = geometry.stride[axis], geometry.dilation[axis], geometry.pads[axis], geometry.kernel[axis]

    def sources(i: int) -> tuple[tuple[int, int], ...]:
        reads = ((a, i * stride + a * dilation - pad) for a in range(n_taps))
        return tuple((a, h) for a, h in reads if 0 <= h < size)

    return list(_cut(list(range(n_out)), sources, stride))


def _adjoint_segments(geometry: ConvGeometry, axis: int) -> list[_Segment]:
    """Segments of the input axis, phase by phase: h receives from i = (h + pad - a dilation) / stride where that is whole, 0 <= i < oh."""
    size, n_out = geometry.in_shape[1 + axis], geometry.out_shape[1 + axis]
    stride, dilation, pad, n_taps = geometry.stride[axis], geometry.dilation[axis], geometry.pads[axis], geometry.kernel[axis]

    def sources(h: int) -> tuple[tuple[int, int], ...]:
        reads = ((a, divmod(h + pad - a * dilation, stride)) for a in range(n_taps))
        return tuple((a, i) for a, (i, rest) in reads if rest == 0 and 0 <= i < n_out)

    phases = (list(range(phase, size, stride)) for phase in range(min(stride, size)))
    return [segment for positions in phases for segment in _cut(positions, sources, 1)]


class _Plan(NamedTuple):
    """A gather product in numbers. A region is k_start, n_k, n_i, x_i, y_i, n_j, x_j, y_j, x_start, y_start, run."""

    regions: NDArray[np.int64]
    x_offsets: NDArray[np.int64]  # of element k, all regions one behind the other
    w_offsets: NDArray[np.int64]  # row of the weight matrix of element k


def _region(rows: _Segment, columns: _Segment, *, in_width: int, out_width: int, lanes: int) -> list[int]:
    """n_i, x_i, y_i, n_j, x_j, y_j, x_start, y_start, run; with columns merged into runs, and rows into longer ones, where contiguous."""
    n_i, x_i, y_i = rows.count, rows.source_step * in_width * lanes, rows.out_step * out_width * lanes
    n_j, x_j, y_j, run = columns.count, columns.source_step * lanes, columns.out_step * lanes, lanes
    if (x_j == y_j == run and lanes < _LB) or n_j == 1:
        run, n_j = run * n_j, 1
    if n_j == 1 and lanes < _LB and (x_i == y_i == run or n_i == 1):
        run, n_i = run * n_i, 1
    return [n_i, x_i, y_i, n_j, x_j, y_j, 0, (rows.out_start * out_width + columns.out_start) * lanes, run]


@lru_cache(maxsize=256)
def _plan(geometry: ConvGeometry, lanes: int, *, adjoint: bool) -> _Plan:
    """Tabulate the regions and gather offsets of one group of a convolution, or of its adjoint."""
    segments = _adjoint_segments if adjoint else _forward_segments
    wide, narrow = (geometry.out_shape, geometry.in_shape) if adjoint else (geometry.in_shape, geometry.out_shape)
    channel = np.arange(wide[0] // geometry.groups, dtype=np.int64)[:, None]
    regions, x_offsets, w_offsets, start = [], [], [], 0
    for rows in segments(geometry, 0):
        for columns in segments(geometry, 1):
            pairs = [(a * geometry.kernel[1] + b, h * wide[2] + w) for a, h in rows.taps for b, w in columns.taps]
            taps = np.array(pairs, np.int64).reshape(-1, 2)
            w_offsets.append((channel * math.prod(geometry.kernel) + taps[:, 0]).ravel())
            x_offsets.append((channel * (wide[1] * wide[2]) + taps[:, 1]).ravel() * lanes)
            regions.append([start, w_offsets[-1].size, *_region(rows, columns, in_width=wide[2], out_width=narrow[2], lanes=lanes)])
            start += w_offsets[-1].size
    return _Plan(np.array(regions, np.int64), np.concatenate(x_offsets), np.concatenate(w_offsets))


# Register tiles


def _intrinsic(function: Callable[..., Any]) -> Any:
    """Numba's decorator, with the type it has for callers: without `typingctx`."""
    return extending.intrinsic(function)


class _Emitter:
    """Vectors of one element type in a function under construction."""

    def __init__(self, context, builder, array_type) -> None:
        self.context, self.builder = context, builder
        self.element = ir.FloatType() if array_type.dtype == types.float32 else ir.DoubleType()
        self.width = VECTOR_BYTES // (4 if array_type.dtype == types.float32 else 8)
        self.vector = ir.VectorType(self.element, self.width)
        self.zero = ir.Constant(self.vector, [0.0] * self.width)

    def at(self, pointer, *steps):
        """Pointer to the element that many steps on."""
        for step in steps:
            pointer = self.builder.gep(pointer, [I64(step) if isinstance(step, int) else step])
        return pointer

    def mask(self, n):
        """Lanes 0 ... n - 1."""
        counts = ir.VectorType(I64, self.width)
        lanes = ir.Constant(counts, list(range(self.width)))
        return self.builder.icmp_signed("<", lanes, self.splat(n, counts))

    def splat(self, scalar, vector=None):
        vector = vector or self.vector
        one = self.builder.insert_element(ir.Constant(vector, ir.Undefined), scalar, I32(0))
        return self.builder.shuffle_vector(one, ir.Constant(vector, ir.Undefined), ir.Constant(ir.VectorType(I32, self.width), [0] * self.width))

    def call(self, name, result, args):
        """Call the LLVM intrinsic of that name for our vector; a pointer's suffix names its target up to LLVM 14."""
        suffix = f"v{self.width}f{32 if self.element != F64 else 64}"
        if name.startswith("llvm.masked"):
            suffix += ".p0" if binding.llvm_version_info[0] > 14 else f".p0{suffix}"
        kind = ir.FunctionType(result, [a.type for a in args])
        return self.builder.call(cgutils.get_or_insert_function(self.builder.module, kind, f"{name}.{suffix}"), args)

    def load(self, pointer, mask=None):
        pointer = self.builder.bitcast(pointer, self.vector.as_pointer())
        if mask is None:
            return self.builder.load(pointer, align=4)
        return self.call("llvm.masked.load", self.vector, [pointer, I32(4), mask, self.zero])

    def store(self, value, pointer, mask=None):
        pointer = self.builder.bitcast(pointer, self.vector.as_pointer())
        if mask is None:
            self.builder.store(value, pointer, align=4)
        else:
            self.call("llvm.masked.store", ir.VoidType(), [value, pointer, I32(4), mask])

    def fma(self, a, b, c):
        return self.call("llvm.fma", self.vector, [a, b, c])

    def total(self, vector):
        """Sum of the lanes, by halves."""
        while vector.type.count > 1:
            half = vector.type.count // 2
            pick = [ir.Constant(ir.VectorType(I32, half), list(range(start, start + half))) for start in (0, half)]
            vector = self.builder.fadd(*(self.builder.shuffle_vector(vector, vector, p) for p in pick))
        return self.builder.extract_element(vector, I32(0))

    def loop(self, n, carried, body):
        """Run `body(k, carried) -> carried` for k = 0 ... n - 1, n at least 1; returns what was carried."""
        before, top = self.builder.block, self.builder.append_basic_block("tile.loop")
        self.builder.branch(top)
        self.builder.position_at_end(top)
        k = self.builder.phi(I64)
        k.add_incoming(I64(0), before)
        held = [self.builder.phi(value.type) for value in carried]
        new = body(k, held)
        bottom, after = self.builder.block, self.builder.append_basic_block("tile.end")
        k_next = self.builder.add(k, I64(1))
        for phi, at_first, at_next in zip((k, *held), (None, *carried), (k_next, *new)):
            if at_first is not None:
                phi.add_incoming(at_first, before)
            phi.add_incoming(at_next, bottom)
        self.builder.cbranch(self.builder.icmp_signed("<", k_next, n), top, after)
        self.builder.position_at_end(after)
        return new


def _pointers(context, builder, signature, args) -> list[Any]:
    """Data pointers of array arguments, other arguments as they are."""
    return [
        context.make_array(kind)(context, builder, value).data if isinstance(kind, types.Array) else value
        for kind, value in zip(signature.args, args)
    ]


def _product_tile(n_channels: int, n_vectors: int, *, masked: bool):
    """Make the tile of (1): `n_channels` outputs times `n_vectors` vectors, of which `live` channels (and `n` lanes) are stored."""

    @_intrinsic
    def tile(typingctx, x, x_start, x_offsets, w, w_start, w_offsets, k_start, n_k, y, y_start, y_step, live, n):
        i = types.int64
        signature = types.void(x, i, x_offsets, w, i, w_offsets, i, i, y, i, i, i, i)

        def codegen(context, builder, signature, args):
            px, x0, xk, pw, w0, wk, k0, count, py, y0, step, n_live, lanes = _pointers(context, builder, signature, args)
            e = _Emitter(context, builder, x)
            mask = e.mask(lanes) if masked else None
            px, xk, pw, wk, py = e.at(px, x0), e.at(xk, k0), e.at(pw, w0), e.at(wk, k0), e.at(py, y0)

            def body(k, sums):
                xs = e.at(px, builder.load(e.at(xk, k)))
                ws = e.at(pw, builder.mul(builder.load(e.at(wk, k)), I64(n_channels)))
                vectors = [e.load(e.at(xs, v * e.width), mask) for v in range(n_vectors)]
                weights = [e.splat(builder.load(e.at(ws, c))) for c in range(n_channels)]
                return [e.fma(weights[s // n_vectors], vectors[s % n_vectors], sums[s]) for s in range(len(sums))]

            sums = e.loop(count, [e.zero] * (n_channels * n_vectors), body)
            for c in range(n_channels):
                with builder.if_then(builder.icmp_signed("<", I64(c), n_live)):
                    for v in range(n_vectors):
                        e.store(sums[c * n_vectors + v], e.at(py, v * e.width), mask)
                py = e.at(py, step)
            return context.get_dummy_value()

        return signature, codegen

    return tile


_tile_main = _product_tile(_NC, _NV, masked=False)
_tile_main_edge = _product_tile(_NC, 1, masked=True)
_tile_four = _product_tile(4, _NV4, masked=False)
_tile_four_edge = _product_tile(4, 1, masked=True)
_tile_one = _product_tile(1, _NV4, masked=False)
_tile_one_edge = _product_tile(1, 1, masked=True)


def _gradient_tile(n_outputs: int):
    """Make the tile g[o, j] += sum_p delta[o, p] x[base_j + offset_p]: `n_outputs` outputs times _NJ taps, one vector of lanes."""

    @_intrinsic
    def tile(typingctx, delta, d_start, d_step, x, bases, j_start, x_offsets, p_start, n_p, g, g_start, g_step):
        i = types.int64
        signature = types.void(delta, i, i, x, bases, i, x_offsets, i, i, g, i, i)

        def codegen(context, builder, signature, args):
            pd, d0, step, px, pb, j0, xp, p0, count, pg, g0, g_rows = _pointers(context, builder, signature, args)
            e = _Emitter(context, builder, x)
            deltas = [e.at(pd, d0, builder.mul(step, I64(o))) for o in range(n_outputs)]
            taps = [e.at(px, builder.load(e.at(pb, j0, j))) for j in range(_NJ)]
            xp = e.at(xp, p0)

            def body(p, sums):
                d_at, x_at = builder.mul(p, I64(e.width)), builder.load(e.at(xp, p))
                ds = [e.load(e.at(d, d_at)) for d in deltas]
                new: list[Any] = [None] * len(sums)
                for j, tap in enumerate(taps):
                    value = e.load(e.at(tap, x_at))
                    for o in range(n_outputs):
                        new[o * _NJ + j] = e.fma(ds[o], value, sums[o * _NJ + j])
                return new

            sums = e.loop(count, [e.zero] * (n_outputs * _NJ), body)
            for s, value in enumerate(sums):
                at = e.at(pg, g0, builder.mul(g_rows, I64(s // _NJ)), s % _NJ * e.width)
                e.store(builder.fadd(e.load(at), value), at)
            return context.get_dummy_value()

        return signature, codegen

    return tile


_gradient_four = _gradient_tile(_NO)
_gradient_one = _gradient_tile(1)


def _dot_tile(*, square: bool):
    """Make out[:] = sum_k c_k a[k, :] b[k, :] (or without b), k a multiple of 4."""

    @_intrinsic
    def tile(typingctx, c, a, a_start, b_start, n_k, out):
        i = types.int64
        signature = types.void(c, a, i, i, i, out)

        def codegen(context, builder, signature, args):
            pc, pa, a0, b0, count, po = _pointers(context, builder, signature, args)
            e = _Emitter(context, builder, a)
            first, second = e.at(pa, a0), e.at(pa, b0)

            def body(k, sums):
                k4 = builder.mul(k, I64(4))
                new = []
                for u in range(4):
                    at = builder.mul(builder.add(k4, I64(u)), I64(e.width))
                    value, weight = e.load(e.at(first, at)), e.splat(builder.load(e.at(pc, k4, u)))
                    value = builder.fmul(value, e.load(e.at(second, at))) if square else value
                    new.append(e.fma(weight, value, sums[u]))
                return new

            s = e.loop(builder.sdiv(count, I64(4)), [e.zero] * 4, body)
            e.store(builder.fadd(builder.fadd(s[0], s[1]), builder.fadd(s[2], s[3])), po)
            return context.get_dummy_value()

        return signature, codegen

    return tile


_dot_square = _dot_tile(square=True)
_dot_linear = _dot_tile(square=False)


@_intrinsic
def _power_tile(typingctx, g, g_start, g_step, n_g, power, p_start, n_k):
    """power[k] += sum_r sum_lanes g[r, k, :]^2, for k below n_k; r steps by `g_step`."""
    i = types.int64
    signature = types.void(g, i, i, i, power, i, i)

    def codegen(context, builder, signature, args):
        pg, g0, step, n_r, pp, p0, count = _pointers(context, builder, signature, args)
        e = _Emitter(context, builder, g)
        pg, pp = e.at(pg, g0), e.at(pp, p0)

        def outer(k, _):
            base = e.at(pg, builder.mul(k, I64(e.width)))

            def inner(r, sums):
                value = e.load(e.at(base, builder.mul(r, step)))
                return [e.fma(value, value, sums[0])]

            total = e.total(e.loop(n_r, [e.zero], inner)[0])
            at = e.at(pp, k)
            total = builder.fpext(total, F64) if e.element != F64 else total
            builder.store(builder.fadd(builder.load(at), total), at)
            return []

        e.loop(count, [], outer)
        return context.get_dummy_value()

    return signature, codegen


# The product and its adjoint


@jit()
def _pack_weights(w, groups, n_channels, n_k, packed):
    """Lay (groups, n_channels, n_k) weights out by tiles of _NC, 4 or 1 channels: within a tile (n_k, tile), zero where no channel is."""
    at = 0
    for g in range(groups):
        c = 0
        while c < n_channels:
            left = n_channels - c
            tile = 1 if left == 1 else 4 if left <= 4 else _NC
            for t in range(tile):
                for k in range(n_k):
                    packed[at + k * tile + t] = w[(g * n_channels + c + t) * n_k + k] if t < left else 0.0
            at += tile * n_k
            c += tile


@jit()
def _product(x, x_offsets, w, w_offsets, w_step, n_channels, n_k, regions, y, groups, x_step, y_step):
    """Equation (1) for all groups, regions, runs and channels; a patch of x stays in L1 while all channels pass."""
    width = VECTOR_BYTES // x.itemsize
    for g in range(groups):
        for q in range(regions.shape[0]):
            k0, count, n_i, x_i, y_i, n_j, x_j, y_j, x_0, y_0, n = regions[q]
            for b0 in range(0, n, _LB):
                b1 = min(n, b0 + _LB)
                for i in range(n_i):
                    for j in range(n_j):
                        xo = g * x_step + x_0 + i * x_i + j * x_j
                        yo = g * n_channels * y_step + y_0 + i * y_i + j * y_j
                        if count == 0:
                            for c in range(n_channels):
                                y[yo + c * y_step + b0: yo + c * y_step + b1] = 0.0
                            continue
                        chunk = width * (_NV4 if n_channels <= 4 else _NV)
                        at = b0
                        while at < b1:
                            edge = b1 - b0 < chunk or b1 - at <= width
                            if not edge and b1 - at < chunk:
                                at = b1 - chunk  # overlap: what is stored twice is the same
                            lanes = min(width, b1 - at)
                            wo = g * w_step
                            c = 0
                            while c < n_channels:
                                left = n_channels - c
                                if left == 1:
                                    if edge or chunk != width * _NV4:
                                        for v in range(0, lanes if edge else chunk, width):
                                            _tile_one_edge(x, xo + at + v, x_offsets, w, wo, w_offsets, k0, count, y, yo + at + v + c * y_step, y_step, 1, lanes)
                                    else:
                                        _tile_one(x, xo + at, x_offsets, w, wo, w_offsets, k0, count, y, yo + at + c * y_step, y_step, 1, 0)
                                    wo += n_k
                                    c += 1
                                elif left <= 4:
                                    if edge or chunk != width * _NV4:
                                        for v in range(0, lanes if edge else chunk, width):
                                            _tile_four_edge(x, xo + at + v, x_offsets, w, wo, w_offsets, k0, count, y, yo + at + v + c * y_step, y_step, left, lanes)
                                    else:
                                        _tile_four(x, xo + at, x_offsets, w, wo, w_offsets, k0, count, y, yo + at + c * y_step, y_step, left, 0)
                                    wo += 4 * n_k
                                    c += 4
                                else:
                                    if edge:
                                        _tile_main_edge(x, xo + at, x_offsets, w, wo, w_offsets, k0, count, y, yo + at + c * y_step, y_step, left, lanes)
                                    else:
                                        _tile_main(x, xo + at, x_offsets, w, wo, w_offsets, k0, count, y, yo + at + c * y_step, y_step, left, 0)
                                    wo += _NC * n_k
                                    c += _NC
                            at += lanes if edge else chunk


def _check_array(name: str, array: Array, shape: tuple[int, ...], dtype: Any = None) -> Array:
    """`array`, C-contiguous; ValueError unless it has this shape (before the lanes) and type."""
    if array.shape[: len(shape)] != shape or array.dtype not in (np.float32, np.float64) or dtype not in (None, array.dtype):
        raise ValueError(f"{name} must be a {dtype or 'float32 or float64'} array of shape {shape} (and lanes), got {array.dtype} {array.shape}")
    return np.ascontiguousarray(array)


def _run(x: Array, matrix: Array, geometry: ConvGeometry, shape: tuple[int, int, int], out: Array | None, *, adjoint: bool) -> Array:
    """The gather product of `x` with a (groups, channels, k) matrix, into an array of `shape` and lanes."""
    lanes = x.shape[3]
    if out is None:
        out = np.empty((*shape, lanes), x.dtype)
    elif out.shape != (*shape, lanes) or out.dtype != x.dtype or not out.flags.c_contiguous:
        raise ValueError(f"out must be C-contiguous {x.dtype} of shape {(*shape, lanes)}, got {out.dtype} {out.shape}")
    if lanes == 0:
        return out
    groups, n_channels, n_k = matrix.shape
    rest = n_channels % _NC
    w_step = (n_channels - rest + (rest if rest <= 1 else 4 if rest <= 4 else _NC)) * n_k
    packed = np.empty(groups * w_step, x.dtype)
    _pack_weights(matrix.reshape(-1), groups, n_channels, n_k, packed)
    plan = _plan(geometry, lanes, adjoint=adjoint)
    _product(x.reshape(-1), plan.x_offsets, packed, plan.w_offsets, w_step, n_channels, n_k, plan.regions, out.reshape(-1),
             groups, x.size // groups, math.prod(shape[1:]) * lanes)
    return out


def conv(x: Array, weights: Array, geometry: ConvGeometry, out: Array | None = None) -> Array:
    """Convolve (cross-correlate) x (C, H, W, L) with weights (O, C/g, kh, kw) to (O, oh, ow, L).

    y[o, i, j] = sum_{c, a, b} w[o, c, a, b] x[c, i sh + a dh - top, j sw + b dw - left]
    """
    x = _check_array("x", x, geometry.in_shape)
    weights = _check_array("weights", weights, geometry.weight_shape, x.dtype)
    matrix = weights.reshape(geometry.groups, -1, geometry.n_rows)
    return _run(x, matrix, geometry, geometry.out_shape, out, adjoint=False)


def conv_transposed(delta: Array, weights: Array, geometry: ConvGeometry, out: Array | None = None) -> Array:
    """Apply the adjoint of `conv` in x to delta (O, oh, ow, L): the gradient (C, H, W, L), or a transposed convolution's forward.

    <conv(x, w), delta> = <x, conv_transposed(delta, w)>. Each of the sh sw phases of the input is a gather product with its own taps.
    """
    delta = _check_array("delta", delta, geometry.out_shape)
    weights = _check_array("weights", weights, geometry.weight_shape, delta.dtype)
    n_taps, groups, per_group = math.prod(geometry.kernel), geometry.groups, geometry.weight_shape[1]
    matrix = weights.reshape(groups, -1, per_group, n_taps).transpose(0, 2, 1, 3)
    matrix = np.ascontiguousarray(matrix).reshape(groups, per_group, -1)
    return _run(delta, matrix, geometry, geometry.in_shape, out, adjoint=True)
