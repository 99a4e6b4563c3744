"""Fast convolutions, their adjoints and the moments of their weight gradients; lanes innermost.

Activations are C-contiguous arrays (C, H, W, L). The L lanes are images, or outputs times images, and are treated alike: all
arithmetic is vertical. A convolution, its adjoint and a fully connected layer (H = W = 1) are one operation, the gather product

    y[o, run] = clamp(sum_k w[k, o] x[offset_k + run] + bias[o], low, high),                                        (1)

with no bias and no bounds unless they are asked for; a run is a stretch of contiguous elements of a row. Borders are regions
with fewer taps, so nothing is padded. The register tiles are emitted as LLVM vector IR through Numba intrinsics: they need no
compiler and no BLAS, and they are compiled once per element type, not per network. One call uses one thread and holds no lock;
callers thread over trials.
"""

# mypy: allow-untyped-defs
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import lru_cache
from itertools import product
from typing import Any, NamedTuple

import numba
import numpy as np
from llvmlite import binding, ir
from numba import extending, types
from numba.core import cgutils
from numpy.typing import NDArray

from devices.base.jit import jit

Array = NDArray[Any]
Bounds = tuple[float, float]
FREE: Bounds = (-math.inf, math.inf)

I1, I32, I64, F64 = ir.IntType(1), ir.IntType(32), ir.IntType(64), ir.DoubleType()


def _vector_bytes() -> int:
    """Widest vector register of the CPU that Numba compiles for: 64 bytes with AVX-512, 32 with AVX2, else 16."""
    told = numba.config.CPU_FEATURES  # type: ignore[attr-defined]
    if told is None:
        names = {name for name, has in binding.get_host_cpu_features().items() if has}
    else:
        names = {feature[1:] for feature in told.split(",") if feature.startswith("+")}
    return 64 if "avx512f" in names else 32 if {"avx2", "fma"} <= names else 16


VECTOR_BYTES = _vector_bytes()
_WIDE = VECTOR_BYTES == 64  # 32 vector registers; else count on 16
_NC = 8 if _WIDE else 4  # channels of the product's tile ...
_NV = 3 if _WIDE else 2  # ... and its vectors
_NV4 = 6 if _WIDE else 2  # vectors of the tiles of four and of one channel
_SIX = 6 if _WIDE else 4  # so many channels in all have a tile of their own, of four vectors
_NO = 4  # outputs of the gradient's tile ...
_NJ = 6 if _WIDE else 2  # ... and its taps
_BLOCK = 64  # positions whose deltas stay in L1 while all taps pass
_SLAB_BYTES = 192  # lanes of one position and plane that are worked on at a time ...
_SLAB_LANES_BYTES = 320  # ... when a position has more than this, ...
_SLAB_PLANES = 8  # ... in this many planes or more, ...
_SLAB_INPUT_BYTES = 1 << 22  # ... in an input larger than this
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
    n_positions: int
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
    """A gather product in numbers. A region is k_start, n_k, n_i, x_i, y_i, n_j, x_j, y_j, y_start, run."""

    regions: NDArray[np.int64]
    x_offsets: NDArray[np.int64]  # of element k, all regions one behind the other
    w_offsets: NDArray[np.int64]  # row of the weight matrix of element k
    rows: NDArray[np.int64]  # region, i, and the rows of x that it needs; in the order of the rows of y


def _rows(segments: list[tuple[_Segment, _Segment]]) -> NDArray[np.int64]:
    """Tabulate `_Plan.rows`."""
    found = []
    for q, (rows, _) in enumerate(segments):
        last = max((h for _, h in rows.taps), default=-1)
        found += [(rows.out_start + i * rows.out_step, q, i, last + i * rows.source_step + 1) for i in range(rows.n_positions)]
    return np.array(sorted(found), np.int64).reshape(-1, 4)[:, 1:].copy()


def _slab_step(shape: tuple[int, ...], lanes: int) -> int:
    """Elements between the planes of a slab: a multiple of 4 KiB and seven lines of 64 bytes, so that planes use other cache sets."""
    size = shape[1] * shape[2] * lanes
    return size + (7 * 16 - size) % 1024


def _region(rows: _Segment, columns: _Segment, *, in_width: int, out_width: int, lanes: int, slab_lanes: int) -> list[int]:
    """n_i, x_i, y_i, n_j, x_j, y_j, y_start, run; columns make runs, and rows longer ones, where source and result are contiguous."""
    n_i, x_i, y_i = rows.n_positions, rows.source_step * in_width * slab_lanes, rows.out_step * out_width * lanes
    n_j, x_j, y_j, run = columns.n_positions, columns.source_step * slab_lanes, columns.out_step * lanes, slab_lanes
    if lanes == slab_lanes and (x_j == y_j == run or n_j == 1):
        run, n_j = run * n_j, 1
        if x_i == y_i == run or n_i == 1:
            run, n_i = run * n_i, 1
    return [n_i, x_i, y_i, n_j, x_j, y_j, (rows.out_start * out_width + columns.out_start) * lanes, run]


@lru_cache(maxsize=256)
def _plan(geometry: ConvGeometry, lanes: int, slab_lanes: int, *, adjoint: bool) -> _Plan:
    """Tabulate the regions and gather offsets of one group of a convolution, or of its adjoint."""
    segments = _adjoint_segments if adjoint else _forward_segments
    wide, narrow = (geometry.out_shape, geometry.in_shape) if adjoint else (geometry.in_shape, geometry.out_shape)
    step = wide[1] * wide[2] * lanes if slab_lanes == lanes else _slab_step(wide, slab_lanes)
    channel = np.arange(wide[0] // geometry.groups, dtype=np.int64)[:, None]
    regions, x_offsets, w_offsets, start = [], [], [], 0
    tiles = list(product(segments(geometry, 0), segments(geometry, 1)))
    for rows, columns in tiles:
        pairs = [(a * geometry.kernel[1] + b, h * wide[2] + w) for a, h in rows.taps for b, w in columns.taps]
        taps = np.array(pairs, np.int64).reshape(-1, 2)
        w_offsets.append((channel * math.prod(geometry.kernel) + taps[:, 0]).ravel())
        x_offsets.append((channel * step + taps[:, 1] * slab_lanes).ravel())
        region = _region(rows, columns, in_width=wide[2], out_width=narrow[2], lanes=lanes, slab_lanes=slab_lanes)
        regions.append([start, w_offsets[-1].size, *region])
        start += w_offsets[-1].size
    return _Plan(np.array(regions, np.int64), np.concatenate(x_offsets), np.concatenate(w_offsets), _rows(tiles))


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
        first = ir.Constant(ir.VectorType(I32, self.width), [0] * self.width)
        return self.builder.shuffle_vector(one, ir.Constant(vector, ir.Undefined), first)

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

    def clamp(self, value, low, high):
        """Hold within bounds; what is not a number stays so."""
        b = self.builder
        value = b.select(b.fcmp_ordered("<", value, low), low, value)
        return b.select(b.fcmp_ordered(">", value, high), high, value)

    def total(self, vector):
        """Sum of lanes, by halves."""
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
    def tile(typingctx, x, x_start, x_offsets, w, w_start, w_offsets, k_start, n_k, y, y_start, y_step, bias, b_start, low, high, live, n):
        i = types.int64
        signature = types.void(x, i, x_offsets, w, i, w_offsets, i, i, y, i, i, bias, i, x.dtype, x.dtype, i, i)

        def codegen(context, builder, signature, args):
            px, x0, xk, pw, w0, wk, k0, count, py, y0, step, pb, b0, low, high, n_live, lanes = _pointers(context, builder, signature, args)
            e = _Emitter(context, builder, x)
            mask = e.mask(lanes) if masked else None
            px, xk, pw, wk, py, pb = e.at(px, x0), e.at(xk, k0), e.at(pw, w0), e.at(wk, k0), e.at(py, y0), e.at(pb, b0)
            low, high = e.splat(low), e.splat(high)

            def body(k, sums):
                xs = e.at(px, builder.load(e.at(xk, k)))
                ws = e.at(pw, builder.mul(builder.load(e.at(wk, k)), I64(n_channels)))
                vectors = [e.load(e.at(xs, v * e.width), mask) for v in range(n_vectors)]
                weights = [e.splat(builder.load(e.at(ws, c))) for c in range(n_channels)]
                return [e.fma(weights[s // n_vectors], vectors[s % n_vectors], sums[s]) for s in range(len(sums))]

            sums = e.loop(count, [e.zero] * (n_channels * n_vectors), body)
            for c in range(n_channels):
                with builder.if_then(builder.icmp_signed("<", I64(c), n_live)):
                    added = e.splat(builder.load(e.at(pb, c)))
                    for v in range(n_vectors):
                        value = e.clamp(builder.fadd(sums[c * n_vectors + v], added), low, high)
                        e.store(value, e.at(py, v * e.width), mask)
                py = e.at(py, step)
            return context.get_dummy_value()

        return signature, codegen

    return tile


_tile_main = _product_tile(_NC, _NV, masked=False)
_tile_main_edge = _product_tile(_NC, 1, masked=True)
_tile_six = _product_tile(6, 4, masked=False)
_tile_six_edge = _product_tile(6, 1, masked=True)
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
def _tile_size(n_channels, c):
    """Channels of the tile that begins with channel c."""
    left = n_channels - c
    return 1 if left == 1 else 4 if left <= 4 else 6 if n_channels <= _SIX else _NC


@jit()
def _chunk_vectors(n_channels):
    """Vectors of the widest tiles for that many channels."""
    return _NV4 if n_channels <= 4 else 4 if n_channels <= _SIX else _NV


@jit()
def _pack_weights(w, groups, n_channels, n_outer, n_inner, g_step, c_step, outer_step, packed):
    """Lay weights out by tiles of channels: within a tile (n_outer, n_inner, tile), zero where no channel is."""
    n_k, at = n_outer * n_inner, 0
    for g in range(groups):
        c = 0
        while c < n_channels:
            tile = _tile_size(n_channels, c)
            live = min(tile, n_channels - c)
            for outer in range(n_outer):
                start, to = g * g_step + c * c_step + outer * outer_step, at + outer * n_inner * tile
                if live == _NC:  # of a length that the compiler knows
                    for inner in range(n_inner):
                        for t in range(_NC):
                            packed[to + inner * _NC + t] = w[start + t * c_step + inner]
                    continue
                for inner in range(n_inner):
                    for t in range(live):
                        packed[to + inner * tile + t] = w[start + t * c_step + inner]
                    for t in range(live, tile):
                        packed[to + inner * tile + t] = 0.0
            at += tile * n_k
            c += tile


@jit()
def _all_channels(x, x_start, x_offsets, w, w_start, w_offsets, k_start, n_k, y, y_start, y_step, bias, b_start, low, high,
                  n_channels, n_rows, n):
    """Equation (1) for all channels of one chunk: of `n` lanes of the widest tile exactly, else in masked vectors."""
    width = VECTOR_BYTES // x.itemsize
    wide = n == width * _chunk_vectors(n_channels)
    c = 0
    while c < n_channels:
        left, tile = n_channels - c, _tile_size(n_channels, c)
        ws, ys, b = w_start + c * n_rows, y_start + c * y_step, b_start + c
        if wide and tile == 6:
            _tile_six(x, x_start, x_offsets, w, ws, w_offsets, k_start, n_k, y, ys, y_step, bias, b, low, high, left, 0)
        elif wide and left > 4:
            _tile_main(x, x_start, x_offsets, w, ws, w_offsets, k_start, n_k, y, ys, y_step, bias, b, low, high, left, 0)
        elif wide and left > 1 and n_channels <= 4:
            _tile_four(x, x_start, x_offsets, w, ws, w_offsets, k_start, n_k, y, ys, y_step, bias, b, low, high, left, 0)
        elif wide and n_channels == 1:
            _tile_one(x, x_start, x_offsets, w, ws, w_offsets, k_start, n_k, y, ys, y_step, bias, b, low, high, left, 0)
        else:
            for v in range(0, n, width):
                if tile == 6:
                    _tile_six_edge(x, x_start + v, x_offsets, w, ws, w_offsets, k_start, n_k, y, ys + v, y_step,
                                   bias, b, low, high, left, n - v)
                elif left > 4:
                    _tile_main_edge(x, x_start + v, x_offsets, w, ws, w_offsets, k_start, n_k, y, ys + v, y_step,
                                    bias, b, low, high, left, n - v)
                elif left > 1:
                    _tile_four_edge(x, x_start + v, x_offsets, w, ws, w_offsets, k_start, n_k, y, ys + v, y_step,
                                    bias, b, low, high, left, n - v)
                else:
                    _tile_one_edge(x, x_start + v, x_offsets, w, ws, w_offsets, k_start, n_k, y, ys + v, y_step,
                                    bias, b, low, high, left, n - v)
        c += tile


@jit()
def _one_run(x, x_start, x_offsets, w, w_start, w_offsets, k_start, n_k, y, y_start, y_step, bias, b_start, low, high,
             n_channels, n_rows, n):
    """Equation (1) for one run, in chunks, so that a patch of x stays in L1 while all channels pass."""
    if n_k == 0:  # positions that no tap reaches
        for c in range(n_channels):
            y[y_start + c * y_step : y_start + c * y_step + n] = min(max(bias[b_start + c], low), high)
        return
    width = VECTOR_BYTES // x.itemsize
    chunk = width * _chunk_vectors(n_channels)
    at = 0
    while at < n:
        size = chunk
        if n - at < chunk:
            if n < chunk or n - at <= width:
                size = min(width, n - at)
            else:
                at = n - chunk  # overlap: what is stored twice is the same
        _all_channels(x, x_start + at, x_offsets, w, w_start, w_offsets, k_start, n_k, y, y_start + at, y_step, bias, b_start, low, high,
                      n_channels, n_rows, size)
        at += size


@jit()
def _product(x, x_step, w, w_step, y, y_start, y_step, bias, low, high, regions, x_offsets, w_offsets, groups, n_channels, n_rows, n_most):
    """Equation (1) for all groups, regions and runs, a run being cut at `n_most`."""
    for g in range(groups):
        for q in range(regions.shape[0]):
            k_start, n_k, n_i, x_i, y_i, n_j, x_j, y_j, y_0, n = regions[q]
            for i in range(n_i):
                for j in range(n_j):
                    xs, ys = g * x_step + i * x_i + j * x_j, y_start + g * n_channels * y_step + y_0 + i * y_i + j * y_j
                    _one_run(x, xs, x_offsets, w, g * w_step, w_offsets, k_start, n_k, y, ys, y_step, bias, g * n_channels, low, high,
                             n_channels, n_rows, min(n, n_most))


@_intrinsic
def _move(typingctx, source, at, target, to):
    """Copy one vector."""
    signature = types.void(source, types.int64, target, types.int64)

    def codegen(context, builder, signature, args):
        ps, at, pt, to = _pointers(context, builder, signature, args)
        e = _Emitter(context, builder, source)
        e.store(e.load(e.at(ps, at)), e.at(pt, to))
        return context.get_dummy_value()

    return signature, codegen


@_intrinsic
def _largest_tile(typingctx, x, x_start, offsets, n_taps, y, y_start, n):
    """y[lane] = the largest of x[offset_t + lane] over taps, for the first `n` lanes of one vector; what is not a number wins."""
    i = types.int64
    signature = types.void(x, i, offsets, i, y, i, i)

    def codegen(context, builder, signature, args):
        px, x0, po, count, py, y0, lanes = _pointers(context, builder, signature, args)
        e = _Emitter(context, builder, x)
        mask, px = e.mask(lanes), e.at(px, x0)

        def body(t, largest):
            value, (held,) = e.load(e.at(px, builder.load(e.at(po, t))), mask), largest
            keep = builder.or_(builder.fcmp_ordered(">=", held, value), builder.fcmp_unordered("uno", held, held))
            return [builder.select(keep, held, value)]

        first = e.load(e.at(px, builder.load(po)), mask)
        e.store(e.loop(count, [first], body)[0], e.at(py, y0), mask)
        return context.get_dummy_value()

    return signature, codegen


@jit()
def largest_in_windows(x, height, wide, out_h, out_w, kernel_h, kernel_w, stride_h, stride_w, step_h, step_w, top, left, lanes, y):
    """Fill flat `y` (C, out_h, out_w, lanes) with the largest of flat `x` (C, height, wide, lanes) over windows; padding never wins."""
    width = VECTOR_BYTES // x.itemsize
    offsets = np.empty(kernel_h * kernel_w, np.int64)
    for i in range(out_h):
        for j in range(out_w):
            n = 0
            for a in range(kernel_h):
                for b in range(kernel_w):
                    h, v = i * stride_h + a * step_h - top, j * stride_w + b * step_w - left
                    if 0 <= h < height and 0 <= v < wide:
                        offsets[n] = (h * wide + v) * lanes
                        n += 1
            for c in range(y.size // (out_h * out_w * lanes)):
                to = ((c * out_h + i) * out_w + j) * lanes
                if n == 0:
                    y[to : to + lanes] = -np.inf
                    continue
                for at in range(0, lanes, width):
                    _largest_tile(x, c * height * wide * lanes + at, offsets, n, y, to + at, lanes - at)


@jit()
def _copy_slab(x, n_planes, n_positions, p_start, p_stop, lanes, start, n, slab, slab_lanes, slab_step):
    """Copy lanes start ... start + n - 1 of some positions to where planes lie `slab_step` apart."""
    width = VECTOR_BYTES // x.itemsize
    for c in range(n_planes):
        for p in range(p_start, p_stop):
            at, to = (c * n_positions + p) * lanes + start, c * slab_step + p * slab_lanes
            if n < width:
                for v in range(n):
                    slab[to + v] = x[at + v]
            else:
                for v in range(0, n, width):
                    last = min(v, n - width)
                    _move(x, at + last, slab, to + last)


@jit()
def _product_by_slabs(x, shape, slab, slab_lanes, slab_step, w, w_step, y, y_step, bias, low, high, regions, x_offsets, w_offsets, rows,
                      groups, n_channels, n_rows):
    """Equation (1) for many lanes, some at a time, row by row: what a row needs is copied just before it, so that it is still in L2
    when the row below needs it too; and planes do not share their cache sets."""
    n_planes, height, wide, lanes = shape
    x_step = n_planes // groups * slab_step
    for start in range(0, lanes, slab_lanes):
        n = min(slab_lanes, lanes - start)
        copied = 0
        for e in range(rows.shape[0]):
            q, i, needed = rows[e]
            if needed > copied:
                _copy_slab(x, n_planes, height * wide, copied * wide, needed * wide, lanes, start, n, slab, slab_lanes, slab_step)
                copied = needed
            k_start, n_k, _, x_i, y_i, n_j, x_j, y_j, y_0, _ = regions[q]
            for g in range(groups):
                for j in range(n_j):
                    xs, ys = g * x_step + i * x_i + j * x_j, start + g * n_channels * y_step + y_0 + i * y_i + j * y_j
                    _one_run(slab, xs, x_offsets, w, g * w_step, w_offsets, k_start, n_k, y, ys, y_step, bias, g * n_channels, low, high,
                             n_channels, n_rows, n)


def _check_array(name: str, array: Array, shape: tuple[int, ...], *, dtype: Any = None, has_lanes: bool = True) -> Array:
    """`array`, C-contiguous; ValueError unless it has this shape (before the lanes) and type."""
    good = array.dtype in (np.float32, np.float64) if dtype is None else array.dtype == dtype
    if not good or array.ndim != len(shape) + has_lanes or array.shape[: len(shape)] != shape:
        kind, lanes = dtype or "float32 or float64", ", then lanes" if has_lanes else ""
        raise ValueError(f"{name} must be a {kind} array of shape {shape}{lanes}; got {array.dtype} {array.shape}")
    return np.ascontiguousarray(array)


def _slab_lanes(shape: tuple[int, ...], itemsize: int) -> int:
    """Lanes to work on at a time: all, unless rows of that many would leave L2 before the row below needs them."""
    planes, height, wide, lanes = shape
    large = planes >= _SLAB_PLANES and math.prod(shape) * itemsize >= _SLAB_INPUT_BYTES
    return _SLAB_BYTES // itemsize if large and lanes * itemsize > _SLAB_LANES_BYTES and height * wide > 1 else lanes


_Packing = tuple[int, int, int, int, int, int, int]


def _packing(geometry: ConvGeometry, *, adjoint: bool) -> tuple[_Packing, int]:
    """What `_pack_weights` needs to know, and the elements of a group of the packed weights."""
    (n_out, c, *_), n_taps, groups = geometry.weight_shape, math.prod(geometry.kernel), geometry.groups
    o = n_out // groups
    n_channels = c if adjoint else o
    rest = n_channels % _NC
    padded = rest if rest <= 1 else 4 if rest <= 4 else 6 if n_channels <= _SIX else _NC
    step = (n_channels - rest + padded) * (o if adjoint else c) * n_taps
    if adjoint:
        return (groups, n_channels, o, n_taps, o * c * n_taps, n_taps, c * n_taps), step
    return (groups, n_channels, 1, c * n_taps, o * c * n_taps, c * n_taps, 0), step


def _packed(weights: Array, geometry: ConvGeometry, *, adjoint: bool) -> tuple[Array, int]:
    """The weights as tiles, for the channels that the product yields, and the elements of a group."""
    how, step = _packing(geometry, adjoint=adjoint)
    packed = np.empty(geometry.groups * step, weights.dtype)
    _pack_weights(weights.reshape(-1), *how, packed)
    return packed, step


def _run(
    x: Array, weights: Array, geometry: ConvGeometry, out: Array | None, *, adjoint: bool, bias: Array | None = None, bounds: Bounds = FREE
) -> Array:
    """The gather product of `x` with the weights, or with their transpose."""
    lanes, groups = x.shape[3], geometry.groups
    shape = (*(geometry.in_shape if adjoint else geometry.out_shape), lanes)
    if out is None:
        out = np.empty(shape, x.dtype)
    elif out.shape != shape or out.dtype != x.dtype or not out.flags.c_contiguous:
        raise ValueError(f"out must be C-contiguous {x.dtype} of shape {shape}, got {out.dtype} {out.shape}")
    if lanes == 0:
        return out
    packed, w_step = _packed(weights, geometry, adjoint=adjoint)
    n_channels, n_k = shape[0] // groups, x.shape[0] // groups * math.prod(geometry.kernel)
    slab_lanes = _slab_lanes(x.shape, x.itemsize)
    plan = _plan(geometry, lanes, slab_lanes, adjoint=adjoint)
    flat, y, y_step = x.reshape(-1), out.reshape(-1), math.prod(shape[1:])
    added = np.zeros(shape[0], x.dtype) if bias is None else _check_array("bias", bias, shape[:1], dtype=x.dtype, has_lanes=False)
    tables = added, x.dtype.type(bounds[0]), x.dtype.type(bounds[1]), plan.regions, plan.x_offsets, plan.w_offsets
    if slab_lanes == lanes:
        _product(flat, x.size // groups, packed, w_step, y, 0, y_step, *tables, groups, n_channels, n_k, x.size + out.size)
    else:
        step = _slab_step(x.shape, slab_lanes)
        slab = np.empty(x.shape[0] * step, x.dtype)
        _product_by_slabs(flat, x.shape, slab, slab_lanes, step, packed, w_step, y, y_step, *tables, plan.rows, groups, n_channels, n_k)
    return out


def conv(
    x: Array, weights: Array, geometry: ConvGeometry, out: Array | None = None, *, bias: Array | None = None, bounds: Bounds = FREE
) -> Array:
    """Convolve (cross-correlate) x (C, H, W, L) with weights (O, C/g, kh, kw) to (O, oh, ow, L).

    y[o, i, j] = sum_{c, a, b} w[o, c, a, b] x[c, i sh + a dh - top, j sw + b dw - left], plus `bias[o]`, held within `bounds`.
    """
    x = _check_array("x", x, geometry.in_shape)
    weights = _check_array("weights", weights, geometry.weight_shape, dtype=x.dtype, has_lanes=False)
    return _run(x, weights, geometry, out, adjoint=False, bias=bias, bounds=bounds)


@jit()
def _packed_product(x, x_step, w, groups, n_channels, n_outer, n_inner, g_step, c_step, outer_step, packed, w_step, y, y_step,
                    bias, low, high, regions, x_offsets, w_offsets, n_rows, n_most):
    """Pack the weights, then equation (1): one call."""
    _pack_weights(w, groups, n_channels, n_outer, n_inner, g_step, c_step, outer_step, packed)
    _product(x, x_step, packed, w_step, y, 0, y_step, bias, low, high, regions, x_offsets, w_offsets, groups, n_channels, n_rows, n_most)


class PreparedConv:
    """`conv` for one geometry and number of lanes in float32, with all that it looks up on the way looked up before.

    The caller answers for contiguous float32 arrays of the right sizes: nothing is checked.
    """

    __slots__ = ("n_packed", "packing", "tables", "w_step", "x_step", "y_step")

    def __init__(self, geometry: ConvGeometry, lanes: int) -> None:
        plan = _plan(geometry, lanes, lanes, adjoint=False)
        self.packing, self.w_step = _packing(geometry, adjoint=False)
        self.n_packed = geometry.groups * self.w_step
        self.x_step = math.prod(geometry.in_shape) * lanes // geometry.groups
        self.y_step = math.prod(geometry.out_shape[1:]) * lanes
        n_most = (math.prod(geometry.in_shape) + math.prod(geometry.out_shape)) * lanes
        self.tables: tuple[Any, ...] = (plan.regions, plan.x_offsets, plan.w_offsets, geometry.n_rows, n_most)

    def __call__(self, x: Array, weights: Array, bias: Array, y: Array, packed: Array, bounds: tuple[np.float32, np.float32]) -> None:
        """Fill `y` from `x` and `weights`, all flat; `packed` has room for `n_packed` elements."""
        low, high = bounds
        _packed_product(x, self.x_step, weights, *self.packing, packed, self.w_step, y, self.y_step, bias, low, high, *self.tables)


def prepared(geometry: ConvGeometry, lanes: int) -> PreparedConv | None:
    """Return the prepared convolution; None where `conv` would work on some lanes at a time."""
    shape = (*geometry.in_shape, lanes)
    return PreparedConv(geometry, lanes) if _slab_lanes(shape, 4) == lanes else None


def conv_transposed(delta: Array, weights: Array, geometry: ConvGeometry, out: Array | None = None) -> Array:
    """Apply the adjoint of `conv` in x to delta (O, oh, ow, L): the gradient (C, H, W, L), or a transposed convolution's forward.

    <conv(x, w), delta> = <x, conv_transposed(delta, w)>. Each of the sh sw phases of the input is a gather product with its own taps.
    """
    delta = _check_array("delta", delta, geometry.out_shape)
    weights = _check_array("weights", weights, geometry.weight_shape, dtype=delta.dtype, has_lanes=False)
    return _run(delta, weights, geometry, out, adjoint=True)


# Gradients with respect to the weights


class _GradientPlan(NamedTuple):
    """Where the taps of a weight gradient lie in a padded copy (C/g, Hp, Wp, width) of the input."""

    bases: NDArray[np.int64]  # of tap j; the last is repeated up to a multiple of _NJ
    offsets: NDArray[np.int64]  # of output position p
    sizes: tuple[int, ...]  # C/g, H, W, Hp, Wp, top, left


@lru_cache(maxsize=256)
def _gradient_plan(geometry: ConvGeometry, width: int) -> _GradientPlan:
    """Tabulate base_j and offset_p of the gradient tile."""
    (c, kh, kw), (_, height, wide), (_, oh, ow) = geometry.weight_shape[1:], geometry.in_shape, geometry.out_shape
    top, left, bottom, right = geometry.pads
    padded_h, padded_w = height + top + bottom, wide + left + right
    channel, a, b = np.meshgrid(np.arange(c), np.arange(kh), np.arange(kw), indexing="ij")
    bases = ((channel * padded_h + a * geometry.dilation[0]) * padded_w + b * geometry.dilation[1]).ravel() * width
    i, j = np.meshgrid(np.arange(oh), np.arange(ow), indexing="ij")
    offsets = (i * geometry.stride[0] * padded_w + j * geometry.stride[1]).ravel() * width
    sizes = (c, height, wide, padded_h, padded_w, top, left)
    return _GradientPlan(np.pad(bases, (0, -bases.size % _NJ), mode="edge").astype(np.int64), offsets.astype(np.int64), sizes)


@jit()
def _pack(source, start, stride, n_vectors, lane, n_lanes, n, target, to):
    """Copy `n` lanes from `lane` modulo `n_lanes` on, for `n_vectors` positions, to consecutive vectors with zeros behind them."""
    width = VECTOR_BYTES // source.itemsize
    lane %= n_lanes
    if n == width and lane + n <= n_lanes:
        for p in range(n_vectors):
            _move(source, start + p * stride + lane, target, to + p * width)
        return
    for p in range(n_vectors):
        for v in range(width):
            target[to + p * width + v] = source[start + p * stride + (lane + v) % n_lanes] if v < n else 0.0


@jit()
def _pack_input(x, channel, n_lanes, lane, n, packed, start, sizes):
    """Copy one vector of lanes of a group's channels into the padded copy, whose border is zero already."""
    width = VECTOR_BYTES // x.itemsize
    n_channels, height, wide, padded_h, padded_w, top, left = sizes
    for c in range(n_channels):
        for h in range(height):
            to = start + ((c * padded_h + h + top) * padded_w + left) * width
            _pack(x, ((channel + c) * height + h) * wide * n_lanes, n_lanes, wide, lane, n_lanes, n, packed, to)


@jit()
def _pack_deltas(delta, o, n_o, n_p, n_lanes, lane, r_lanes, n_r, n, packed):
    """Copy one vector of lanes of `n_o` outputs, for `n_r` strides of `r_lanes`, to (n_r, _NO, n_p, width)."""
    width = VECTOR_BYTES // delta.itemsize
    for t in range(n_o):
        for p in range(0, n_p, _BLOCK):  # the strides of a block share its pages
            for r in range(n_r):
                to = ((r * _NO + t) * n_p + p) * width
                _pack(delta, ((o + t) * n_p + p) * n_lanes, n_lanes, min(_BLOCK, n_p - p), lane + r * r_lanes, n_lanes, n, packed, to)


@jit()
def _tile_gradients(deltas, inputs, x_step, bases, offsets, j_start, n_j, n_o, n_r, g):
    """Fill g (n_r, _NO, n_j, width) with the gradients of `n_o` outputs and of taps from `j_start` on, a block of positions at a time."""
    width = VECTOR_BYTES // deltas.itemsize
    n_p = offsets.size
    g[: n_r * _NO * n_j * width] = 0.0
    for p in range(0, n_p, _BLOCK):
        n_block = min(_BLOCK, n_p - p)
        for r in range(n_r):
            x = inputs[r * x_step :]
            for j in range(0, n_j, _NJ):
                d_start, g_start = (r * _NO * n_p + p) * width, (r * _NO * n_j + j) * width
                if n_o == 1:
                    _gradient_one(deltas, d_start, n_p * width, x, bases, j_start + j, offsets, p, n_block, g, g_start, n_j * width)
                else:
                    _gradient_four(deltas, d_start, n_p * width, x, bases, j_start + j, offsets, p, n_block, g, g_start, n_j * width)


@jit()
def _weigh(factors, n_j, o, n_o, j_start, n_live, n_rows, coefficient):
    """Copy the factors of a (_NO, n_j) tile, and 0 where no weight is."""
    coefficient[: _NO * n_j] = 0.0
    for t in range(n_o):
        at = (o + t) * n_rows + j_start
        coefficient[t * n_j : t * n_j + n_live] = factors[at : at + n_live]


@jit()
def _add_moments(g, n_j, n_r, r_start, b_start, n, r_lanes, variance, directions, o, n_o, j_start, n_live, n_rows, coefficient, vector,
                 power, lane_power, covariance, sketch):
    """Add what the gradients g (n_r, _NO, n_j, width) of one tile give to each requested moment."""
    step = _NO * n_j * (VECTOR_BYTES // g.itemsize)
    for t in range(n_o):
        _power_tile(g, t * step // _NO, step, n_r, power, (o + t) * n_rows + j_start, n_live)
    _weigh(variance, n_j, o, n_o, j_start, n_live, n_rows, coefficient)
    for r in range(n_r):
        for q in range(0 if covariance.size else r, r + 1):
            _dot_square(coefficient, g, r * step, q * step, _NO * n_j, vector)
            if covariance.size:
                for v in range(n):
                    covariance[r, q, b_start + v] += vector[v]
            if q == r:
                for v in range(n):
                    lane_power[(r_start + r) * r_lanes + b_start + v] += vector[v]
    for s in range(directions.shape[0]):
        _weigh(directions[s], n_j, o, n_o, j_start, n_live, n_rows, coefficient)
        for r in range(n_r):
            _dot_linear(coefficient, g, r * step, 0, _NO * n_j, vector)
            for v in range(n):
                sketch[s, (r_start + r) * r_lanes + b_start + v] += vector[v]


@jit()
def _gradients(delta, n_lanes, x, x_lanes, bases, offsets, sizes, groups, group_outputs, n_rows, o_first, o_last, r_lanes, n_r_most,
               deltas, inputs, g, tile_j, variance, directions, coefficient, vector, power, lane_power, covariance, sketch, gradient):
    """Walk over groups, vectors of lanes and tiles of weights; lanes r * r_lanes + b of up to `n_r_most` strides r go together.

    Gradients are kept in `gradient` where it has room, else only their moments are added to the others.
    """
    width, n_p = VECTOR_BYTES // x.itemsize, offsets.size
    shared = x_lanes == r_lanes
    x_step = 0 if shared else sizes[0] * sizes[3] * sizes[4] * width
    for group in range(max(0, o_first // group_outputs), groups):
        o_start, o_stop = max(o_first, group * group_outputs), min(o_last, (group + 1) * group_outputs)
        if o_start >= o_stop:
            break
        for b in range(0, r_lanes, width):
            n = min(width, r_lanes - b)
            for r_start in range(0, n_lanes // r_lanes, n_r_most):
                n_r, lane = min(n_r_most, n_lanes // r_lanes - r_start), r_start * r_lanes + b
                if not shared or r_start == 0:
                    for r in range(1 if shared else n_r):
                        _pack_input(x, group * sizes[0], x_lanes, lane + r * r_lanes, n, inputs, r * x_step, sizes)
                for o in range(o_start, o_stop, _NO):
                    n_o = min(_NO, o_stop - o)
                    if n_o > 1 and n_o < _NO:
                        deltas[:] = 0.0
                    _pack_deltas(delta, o, n_o, n_p, n_lanes, lane, r_lanes, n_r, n, deltas)
                    for j in range(0, bases.size, tile_j):
                        n_j, n_live = min(tile_j, bases.size - j), min(tile_j, n_rows - j)
                        _tile_gradients(deltas, inputs, x_step, bases, offsets, j, n_j, n_o, n_r, g)
                        if gradient.size:
                            for t in range(n_o):
                                for k in range(n_live):
                                    for r in range(n_r):
                                        for v in range(n):
                                            at = ((r * _NO + t) * n_j + k) * width + v
                                            gradient[(o + t - o_first) * n_rows + j + k, lane + r * r_lanes + v] = g[at]
                        else:
                            _add_moments(g, n_j, n_r, r_start, b, n, r_lanes, variance, directions, o, n_o, j, n_live, n_rows,
                                         coefficient, vector, power, lane_power, covariance, sketch)


@dataclass(frozen=True, slots=True, eq=False)
class GradientMoments:
    """Second moments of the per-lane weight gradient g[o, j, lane], lane = r B + b, under weight variances V.

    power
        sum_lane g^2, shape of the weights.
    lane_power
        sum_oj V g^2, (R B,).
    covariance
        sum_oj V g[r, b] g[r', b], (R, R, B), or None.
    sketch
        sum_oj e_s g, (S, R B), or None: the linear response to each of S errors e_s.
    """

    power: NDArray[np.float64]
    lane_power: NDArray[np.float64]
    covariance: NDArray[np.float64] | None = None
    sketch: NDArray[np.float64] | None = None

    def with_power(self, power: NDArray[np.float64]) -> "GradientMoments":
        """Return the same moments with another `power`."""
        return replace(self, power=power)


def _check_gradient(delta: Array, x: Array, geometry: ConvGeometry, n_images: int | None) -> tuple[Array, Array, int]:
    """Both arrays, contiguous, and B; ValueError unless B divides the lanes of both, and those of x are B or all."""
    delta = _check_array("delta", delta, geometry.out_shape)
    x = _check_array("x", x, geometry.in_shape, dtype=delta.dtype)
    n_images = n_images or x.shape[3]
    if not n_images or delta.shape[3] % n_images or x.shape[3] not in (n_images, delta.shape[3]):
        raise ValueError(f"need lanes of x {n_images} (images) or those of delta, a multiple; got {x.shape[3]} and {delta.shape[3]}")
    return delta, x, n_images


def _walk(delta: Array, x: Array, geometry: ConvGeometry, n_images: int, *, rows: tuple[int, int], variance: Array | None = None,
          directions: Array | None = None, covariance: bool = False, keep: bool = False) -> tuple[Array, ...]:
    """Run `_gradients` with fresh workspaces; returns power, lane_power, covariance, sketch, gradient, those not asked for empty."""
    n_lanes, dtype, width = delta.shape[3], x.dtype, VECTOR_BYTES // x.itemsize
    plan = _gradient_plan(geometry, width)
    r_lanes = n_images if covariance or (n_images % width == 0 and x.shape[3] == n_images) else n_lanes
    n_r = n_lanes // r_lanes if covariance else min(4, n_lanes // r_lanes)
    tile_j = max(1, _BUFFER_BYTES // (n_r * _NO * VECTOR_BYTES * _NJ)) * _NJ
    tile_j = min(tile_j, plan.bases.size)
    c, _, _, padded_h, padded_w, _, _ = plan.sizes
    n_inputs = 1 if x.shape[3] == r_lanes else n_r
    n_o, n_s = rows[1] - rows[0], 0 if directions is None else len(directions)
    power, lane_power = np.zeros(math.prod(geometry.weight_shape)), np.zeros(n_lanes)
    cov = np.zeros((n_r, n_r, n_images) if covariance else (0, 0, 0))
    sketch = np.zeros((n_s, n_lanes))
    gradient = np.empty((n_o * geometry.n_rows, n_lanes) if keep else (0, 0), dtype)
    _gradients(
        delta.reshape(-1), n_lanes, x.reshape(-1), x.shape[3], *plan, geometry.groups, geometry.n_out // geometry.groups, geometry.n_rows,
        *rows, r_lanes, n_r, np.empty(n_r * _NO * geometry.n_positions * width, dtype),
        np.zeros(n_inputs * c * padded_h * padded_w * width, dtype), np.empty(n_r * _NO * tile_j * width, dtype), tile_j,
        np.empty(0, dtype) if variance is None else np.ascontiguousarray(variance, dtype).reshape(-1),
        np.empty((0, 0), dtype) if directions is None else np.ascontiguousarray(directions.reshape(n_s, -1), dtype),
        np.empty(_NO * tile_j, dtype), np.empty(width, dtype), power, lane_power, cov, sketch, gradient,
    )
    return power, lane_power, cov, sketch, gradient


def conv_weight_gradient(delta: Array, x: Array, geometry: ConvGeometry, rows: slice | None = None) -> Array:
    """Gradient of each lane with respect to the weights of output features `rows`, (n_o, C/g, kh, kw, L).

    g[o, c, a, b, lane] = sum_ij delta[o, i, j, lane] x[c, i sh + a dh - top, j sw + b dw - left, lane mod B], B the lanes of x
    """
    delta, x, n_images = _check_gradient(delta, x, geometry, None)
    start, stop, step = (rows or slice(None)).indices(geometry.n_out)
    if step != 1:
        raise ValueError(f"rows must be contiguous, got {rows}")
    if stop <= start:
        return np.empty((0, *geometry.weight_shape[1:], delta.shape[3]), x.dtype)
    gradient = _walk(delta, x, geometry, n_images, rows=(start, stop), keep=True)[-1]
    return gradient.reshape(stop - start, *geometry.weight_shape[1:], delta.shape[3])


def weight_gradient_moments(delta: Array, x: Array, geometry: ConvGeometry, variance: Array, *, covariance: bool = False,
                            directions: Array | None = None, n_images: int | None = None) -> GradientMoments:
    """Second moments of the per-lane weight gradients, which are never all in memory.

    Parameters
    ----------
    delta
        (O, oh, ow, R B): lane r B + b is output (or probe) r of image b.
    x
        (C, H, W, B), or (C, H, W, R B) together with `n_images` = B.
    variance
        V, shape of the weights, not negative.
    covariance
        Ask for the (R, R, B) covariance of outputs.
    directions
        (S, O C/g kh kw): ask for the response to S errors of the weights.
    """
    delta, x, n_images = _check_gradient(delta, x, geometry, n_images)
    if variance.shape != geometry.weight_shape or variance.min() < 0:
        raise ValueError(f"variance must have shape {geometry.weight_shape} and no negative entry, got {variance.shape}")
    if directions is not None and directions.reshape(len(directions), -1).shape[1] != variance.size:
        raise ValueError(f"directions must have shape (S, {variance.size}), got {directions.shape}")
    if geometry.n_positions == 1 and (x.shape[3] == n_images or not covariance):
        return _moments_of_one_position(delta, x, geometry, variance, covariance=covariance, directions=directions)
    power, lane_power, cov, sketch, _ = _walk(delta, x, geometry, n_images, rows=(0, geometry.n_out), variance=variance,
                                              directions=directions, covariance=covariance)
    if covariance:
        lower = np.tril(np.ones(cov.shape[:2], bool), -1)
        cov += np.where(lower[:, :, None], cov, 0.0).swapaxes(0, 1)
    return GradientMoments(power.reshape(variance.shape), lane_power, cov if covariance else None, None if directions is None else sketch)


def _only_patch(x: Array, geometry: ConvGeometry) -> Array:
    """The inputs (groups, rows, lanes) of the one output position."""
    top, left, bottom, right = geometry.pads
    x = np.pad(x, ((0, 0), (top, bottom), (left, right), (0, 0))) if any(geometry.pads) else x
    (kh, kw), (dh, dw) = geometry.kernel, geometry.dilation
    return x[:, : (kh - 1) * dh + 1 : dh, : (kw - 1) * dw + 1 : dw].reshape(geometry.groups, geometry.n_rows, -1)


def _moments_of_one_position(delta: Array, x: Array, geometry: ConvGeometry, variance: Array, *, covariance: bool,
                             directions: Array | None) -> GradientMoments:
    """Use g[o, j] = d[o] x[j]: moments factor, sum_oj V d_o^2 x_j^2 = sum_o d_o^2 (V x^2)_o, and so on."""
    n_x = x.shape[3]
    d = delta.reshape(geometry.n_out, -1, n_x)
    scaled = d * conv(x * x, np.ascontiguousarray(variance, x.dtype), geometry).reshape(-1, 1, n_x)
    lane_power = (d * scaled).sum(axis=0, dtype=np.float64).ravel()
    cov = np.stack([(d[:, r, None] * scaled).sum(axis=0, dtype=np.float64) for r in range(d.shape[1])]) if covariance else None
    sketch = None
    if directions is not None:
        weights = (np.ascontiguousarray(e.reshape(variance.shape), x.dtype) for e in directions)
        draws = [(d * conv(x, w, geometry).reshape(-1, 1, n_x)).sum(axis=0, dtype=np.float64).ravel() for w in weights]
        sketch = np.reshape(draws, (len(directions), delta.shape[3]))
    return GradientMoments(_power_of_one_position((d * d).sum(axis=1), x, geometry), lane_power, cov, sketch)


def _power_of_one_position(squares: Array, x: Array, geometry: ConvGeometry) -> NDArray[np.float64]:
    """Product (squares)(x^2)' over images, by group: a gather product whose lanes are the taps."""
    patch = _only_patch(x, geometry)
    parts = []
    for group, of_group in zip(patch * patch, squares.reshape(geometry.groups, -1, x.shape[3], 1, 1)):
        product = ConvGeometry(in_shape=(x.shape[3], 1, 1), n_out=len(of_group))
        parts.append(conv(np.ascontiguousarray(group.T).reshape(x.shape[3], 1, 1, -1), of_group, product))
    return np.concatenate(parts).astype(np.float64).reshape(geometry.weight_shape)


def fresh_read_power(delta: Array, x: Array, geometry: ConvGeometry, variance: Array) -> NDArray[np.float64]:
    """Power (R B,) of noise drawn afresh at each output position: sum_op delta[o, p, r B + b]^2 (V * x^2)[o, p, b], * the convolution."""
    delta, x, n_images = _check_gradient(delta, x, geometry, None)
    noise = conv(x * x, np.ascontiguousarray(variance, x.dtype), geometry).reshape(-1, n_images)
    return _weighted_squares(delta.reshape(len(noise), -1, n_images), noise).ravel()


@jit()
def _weighted_squares(delta, noise):
    """total[r, b] = sum_k delta[k, r, b]^2 noise[k, b]."""
    total = np.zeros(delta.shape[1:], np.float64)
    for k in range(delta.shape[0]):
        for r in range(delta.shape[1]):
            for b in range(delta.shape[2]):
                d = delta[k, r, b]
                total[r, b] += d * d * noise[k, b]
    return total
