"""How ONNX's operators on shapes become ours: the batch axis stays where it is."""

from collections.abc import Callable
from dataclasses import replace
from math import prod

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_array

from devices.base.errors import NetworkError
from workloads.onnx_graph import Call, GraphBuilder, Moved, Tensor, Value
from workloads.onnx_shapes import BATCH, BatchSize, Fold, shape_vector, slices_of
from workloads.operators.base import Shape
from workloads.operators.merge import Affine
from workloads.operators.reshape import Gather, Pad, Reshape, Slice, Transpose
from workloads.operators.resize import Resize

MAX_TAPS = 2**22
"""Entries of an interpolation matrix; no resize of an image needs as many."""


def reshaped(build: GraphBuilder, call: Call, x: Tensor, shape: Shape) -> Tensor:
    """Return `x` in another sample shape; itself when it has that shape."""
    if prod(shape) != prod(x.shape):
        raise call.malformed(f"{x.shape} has {prod(x.shape)} values, the new shape {shape} has {prod(shape)}")
    return x if shape == x.shape else build.add(call, Reshape(shape), x)


def read_reshape(build: GraphBuilder, call: Call) -> tuple[Value, ...]:
    """Add a reshape of the sample; the first entry must mean the batch."""
    x, target = call.tensor(0), call.ints(1, "shape")
    if not target:
        raise call.malformed("it has no target shape")
    copies = not call.attribute("allowzero", 0)
    full: tuple[int | BatchSize, ...] = (BATCH, *x.shape)
    rest: list[int] = []
    for i, n in enumerate(target[1:], start=1):
        entry: int | BatchSize = full[i] if n == 0 and copies and i < len(full) else n
        if isinstance(entry, BatchSize):
            raise _mixes(call, x, target)
        rest.append(int(entry))
    if -1 in rest:
        known = -prod(rest)
        if known <= 0 or prod(x.shape) % known:
            raise _mixes(call, x, target)
        rest[rest.index(-1)] = prod(x.shape) // known
    if not _is_batch(build, target[0], copies=copies) or prod(rest) != prod(x.shape):
        raise _mixes(call, x, target)
    return (reshaped(build, call, x, tuple(rest)),)


def _is_batch(build: GraphBuilder, entry: int | BatchSize, *, copies: bool) -> bool:
    return entry in (BATCH, -1, build.declared_batch) or (entry == 0 and copies)


def _mixes(call: Call, x: Tensor, target: list[int | BatchSize]) -> NetworkError:
    shapes = f"(N, {', '.join(map(str, x.shape))}) to ({', '.join(map(str, target))})"
    return call.malformed(
        f"reshapes {shapes}, which moves or mixes the batch axis, or does not fit; images must stay independent: keep the batch first"
    )


def read_flatten(build: GraphBuilder, call: Call) -> tuple[Value, ...]:
    """Add a flatten from axis 1."""
    x, axis = call.tensor(0), int(call.attribute("axis", 1))
    axis = axis + x.rank if axis < 0 else axis
    if axis == 0 or prod(x.shape[: axis - 1]) != 1:
        raise call.malformed(f"axis {axis} mixes images with features; flatten from axis 1")
    return (reshaped(build, call, x, (prod(x.shape),)),)


def read_transpose(build: GraphBuilder, call: Call) -> tuple[Value, ...]:
    """Add a transposition of sample axes."""
    x = call.tensor(0)
    order = call.attribute("perm") or list(range(x.rank))[::-1]
    if sorted(order) != list(range(x.rank)):
        raise call.malformed(f"perm {list(order)} for a value of rank {x.rank}")
    return (_moved(build, call, x, list(order)),)


def read_squeeze(build: GraphBuilder, call: Call) -> tuple[Value, ...]:
    """Drop sample axes of length 1."""
    x, axes = call.tensor(0), call.ints(1, "axes")
    drop = {i for i, n in enumerate(x.shape) if n == 1} if axes is None else {call.sample_axis(a, x.rank) for a in axes}
    if any(x.shape[i] != 1 for i in drop):
        raise call.malformed(f"axes {axes} of a value of shape {x.shape} are not all of length 1")
    return (reshaped(build, call, x, tuple(n for i, n in enumerate(x.shape) if i not in drop)),)


def read_unsqueeze(build: GraphBuilder, call: Call) -> tuple[Value, ...]:
    """Insert sample axes of length 1."""
    x, axes = call.tensor(0), call.ints(1, "axes")
    if not axes:
        raise call.malformed("it has no axes")
    rank = x.rank + len(axes)
    new = {call.sample_axis(a, rank) for a in axes}
    old = iter(x.shape)
    return (reshaped(build, call, x, tuple(1 if i in new else next(old) for i in range(rank - 1))),)


def read_shape(build: GraphBuilder, call: Call) -> tuple[Value, ...]:
    """Return the shape as a constant with the batch as a symbol."""
    return (shape_vector(call.tensor(0).shape)[slice(call.attribute("start", 0), call.attribute("end"))],)


def read_slice(build: GraphBuilder, call: Call) -> tuple[Value, ...]:
    """Add a slice of the sample."""
    x = call.tensor(0)
    constants = (None, *(call.constant(i) for i in range(1, len(call.inputs))))
    by_axis = slices_of(Fold(call.op, call.opset, constants, call.attributes, 0), x.rank)
    batch = by_axis.pop(0, None)
    if batch is not None and not (batch.start == 0 and batch.step == 1 and (batch.stop is None or batch.stop >= 2**31 - 1)):
        raise call.malformed("it slices the batch axis; images must stay independent of each other")
    return (add_slice(build, call, x, {axis - 1: s for axis, s in by_axis.items()}),)


def add_slice(build: GraphBuilder, call: Call, x: Tensor, by_axis: dict[int, slice]) -> Tensor:
    """Add a slice along sample axes; `x` itself when it keeps everything."""
    slices = tuple(by_axis.get(axis, slice(None)) for axis in range(len(x.shape)))
    if all(range(n)[s] == range(n) for n, s in zip(x.shape, slices)):
        return x
    return build.add(call, Slice(slices), x)


def read_split(build: GraphBuilder, call: Call) -> tuple[Value, ...]:
    """Add one slice for each output."""
    x = call.tensor(0)
    axis = call.sample_axis(call.attribute("axis", 0), x.rank)
    n, parts = x.shape[axis], len(call.proto.output)
    even = -(-n // parts)
    given = call.ints(1, "split") or [min(even, n - i * even) for i in range(parts)]
    sizes = [s for s in given if isinstance(s, int) and s > 0]
    if sum(sizes) != n or len(sizes) != parts:
        raise call.malformed(f"splits {n} values into {given} for {parts} outputs")
    ends = np.cumsum(sizes).tolist()
    return tuple(add_slice(build, call, x, {axis: slice(end - size, end)}) for size, end in zip(sizes, ends))


def read_gather(build: GraphBuilder, call: Call) -> tuple[Value, ...]:
    """Add a selection along a sample axis."""
    x, indices = call.tensor(0), call.constant(1)
    axis = call.sample_axis(call.attribute("axis", 0), x.rank)
    if indices is None or indices.dtype.kind not in "iu":
        raise call.refuse("indices must be constant integers")
    n = x.shape[axis]
    if indices.size == 0 or indices.min() < -n or indices.max() >= n:
        raise call.malformed(f"indices {indices.ravel()[:8].tolist()} of an axis of length {n}")
    return (build.add(call, Gather(axis, indices.astype(np.int64) % n), x),)


def read_gather_nd(build: GraphBuilder, call: Call) -> tuple[Value, ...]:
    """Refuse: what torch writes with it, `y[:, indices]`, arrives as a `Moved` value (see `read_moved`)."""
    raise call.refuse("only indices along one axis that is not the batch are supported; write index_select, or a slice")


def read_moved(build: GraphBuilder, call: Call) -> tuple[Value, ...]:
    """Read what may be done with a value whose batch axis is not the first: move it back, or gather along another axis."""
    value = call.inputs[0]
    assert isinstance(value, Moved)
    if call.op == "Transpose":
        perm = call.attribute("perm") or list(range(len(value.order)))[::-1]
        if sorted(perm) != list(range(len(value.order))):
            raise call.malformed(f"perm {list(perm)} for a value of rank {len(value.order)}")
        return (_moved(build, call, value.base, [value.order[i] for i in perm]),)
    indices, axis = call.constant(1), int(call.attribute("axis", 0)) % len(value.order)
    by_axis_0 = call.op == "GatherND" and not call.attribute("batch_dims", 0)
    if by_axis_0 and indices is not None and indices.ndim == 2 and indices.shape[1] == 1:
        indices, axis = indices[:, 0], 0
    if indices is None or indices.ndim != 1:
        raise call.refuse(f"it reads a value whose batch axis was moved by {value.label}; keep axis 0 first")
    (gathered,) = read_gather(build, replace(call, inputs=(value.base, indices), attributes={"axis": value.order[axis]}))
    assert isinstance(gathered, Tensor)
    return (Moved(gathered, value.order, value.label),)


def _moved(build: GraphBuilder, call: Call, x: Tensor, order: list[int]) -> Value:
    """Return a transposition; lazily where it moves the batch axis."""
    if order[0] != 0:
        return Moved(x, tuple(order), call.label)
    sample = tuple(i - 1 for i in order[1:])
    return x if sample == tuple(range(len(sample))) else build.add(call, Transpose(sample), x)


def read_expand(build: GraphBuilder, call: Call) -> tuple[Value, ...]:
    """Repeat values along sample axes of length 1."""
    x, target = call.tensor(0), call.ints(1, "shape")
    if target is None or len(target) > x.rank:
        raise call.refuse("the shape must be constant, and of no more axes than the value has")
    wanted = [1] * (x.rank - len(target)) + list(target)
    if not (_is_batch(build, wanted[0], copies=False) or wanted[0] == 1) or any(isinstance(n, BatchSize) for n in wanted[1:]):
        raise call.malformed(f"expands to ({', '.join(map(str, target))}), which repeats images")
    shape = np.broadcast_shapes(x.shape, tuple(int(n) for n in wanted[1:]))  # type: ignore[arg-type]
    return (x if shape == x.shape else build.add(call, Affine(shift=np.broadcast_to(np.float32(0), shape)), x),)


def read_depth_to_space(build: GraphBuilder, call: Call) -> tuple[Value, ...]:
    """Add the reshape, transposition and reshape that lay channels beside each other: torch's PixelShuffle is the mode CRD."""
    x, b = call.tensor(0), _block(call)
    c, h, w = x.shape
    if c % b**2:
        raise call.malformed(f"{c} channels in blocks of {b} x {b}")
    split, order = ((c // b**2, b, b, h, w), (0, 3, 1, 4, 2)) if call.attribute("mode", "DCR") == "CRD" else (
        (b, b, c // b**2, h, w), (2, 3, 0, 4, 1))  # fmt: skip
    y = build.add(call, Transpose(order), reshaped(build, call, x, split))
    return (reshaped(build, call, y, (c // b**2, h * b, w * b)),)


def read_space_to_depth(build: GraphBuilder, call: Call) -> tuple[Value, ...]:
    """Add the reshape, transposition and reshape that lay the pixels of a block into channels."""
    x, b = call.tensor(0), _block(call)
    c, h, w = x.shape
    if h % b or w % b:
        raise call.malformed(f"{h} x {w} values in blocks of {b} x {b}")
    y = build.add(call, Transpose((2, 4, 0, 1, 3)), reshaped(build, call, x, (c, h // b, b, w // b, b)))
    return (reshaped(build, call, y, (c * b**2, h // b, w // b)),)


def _block(call: Call) -> int:
    x, size = call.tensor(0), int(call.attribute("blocksize", 0))
    if x.rank != 4 or size < 1:
        raise call.malformed(f"blocks of {size} on a value of shape (N, {', '.join(map(str, x.shape))})")
    return size


def read_pad(build: GraphBuilder, call: Call) -> tuple[Value, ...]:
    """Add padding of the sample; edge, reflect and wrap are selections along each axis."""
    x, pads = call.tensor(0), call.ints(1, "pads")
    if pads is None or any(isinstance(p, BatchSize) for p in pads):
        raise call.refuse("pads must be constant numbers")
    axes = call.ints(3, "axes") or list(range(x.rank))
    widths = dict.fromkeys(range(x.rank), (0, 0))
    widths |= {int(a) % x.rank: (int(pads[i]), int(pads[i + len(axes)])) for i, a in enumerate(axes)}  # type: ignore[arg-type]
    if widths.pop(0) != (0, 0):
        raise call.malformed("it pads the batch axis")
    mode = call.attribute("mode", "constant")
    if mode == "constant":
        value = call.constant(2) if call.opset >= 11 else np.asarray(call.attribute("value", 0.0))
        number = 0.0 if value is None else float(call.finite(np.asarray(value), what="the padding value").ravel()[0])
        return (build.add(call, Pad(tuple(widths[i] for i in range(1, x.rank)), number), x) if any(map(any, widths.values())) else x,)
    for axis, (before, after) in widths.items():
        if (before, after) != (0, 0):
            x = build.add(call, Gather(axis - 1, _padding_indices(call, mode, x.shape[axis - 1], before, after)), x)
    return (x,)


def _padding_indices(call: Call, mode: str, n: int, before: int, after: int) -> NDArray[np.int64]:
    if max(before, after) > MAX_TAPS or n + before + after < 1:
        raise call.malformed(f"pads {before} and {after} values around {n}")
    at = np.arange(-before, n + after)
    if mode == "edge":
        return at.clip(0, n - 1)
    if mode == "wrap":
        return at % n
    if mode == "reflect" and n > 1:
        folded = at % (2 * n - 2)
        return np.where(folded < n, folded, 2 * n - 2 - folded)
    raise call.refuse(f"mode {mode!r} on an axis of length {n}")


def read_resize(build: GraphBuilder, call: Call) -> tuple[Value, ...]:
    """Add an interpolation to given scales or sizes; also the older Upsample."""
    x = call.tensor(0)
    mode = call.attribute("mode", "nearest")
    if mode not in ("nearest", "linear", "bilinear") or call.attribute("antialias", 0) or call.attribute("exclude_outside", 0):
        raise call.refuse(f"mode {mode!r} (nearest and linear, without antialias or exclude_outside, are supported)")
    if call.attribute("keep_aspect_ratio_policy", "stretch") != "stretch":
        raise call.refuse("keep_aspect_ratio_policy; give the sizes instead")
    scales, sizes = _scales_and_sizes(call, x)
    along = zip(x.shape, sizes, scales)
    matrices = tuple(None if n == size and scale == 1 else _interpolation(call, n, size, scale) for n, size, scale in along)
    return (build.add(call, Resize(matrices), x) if any(m is not None for m in matrices) else x,)


def _scales_and_sizes(call: Call, x: Tensor) -> tuple[list[float], list[int]]:
    """Return scale and output size of every sample axis."""
    place = 2 if call.op == "Resize" and call.opset >= 11 else 1
    scales, sizes = call.constant(place), call.ints(3, "sizes") if place == 2 else None
    if scales is None or scales.size == 0:
        scales = np.asarray(call.attribute("scales", []))
    axes = [int(a) % x.rank for a in call.attribute("axes", range(x.rank))]
    given = sizes or scales.ravel().tolist()
    if len(given) != len(axes):
        raise call.malformed(f"{len(given)} scales or sizes for {len(axes)} axes")
    full = dict(zip(axes, given))
    batch = full.pop(0, 1)
    if sizes and not isinstance(batch, BatchSize) and batch != 1 and batch < 1:
        raise call.malformed("it resizes the batch axis")
    if not sizes and batch != 1:
        raise call.malformed("it resizes the batch axis")
    if sizes:
        out = [int(full.get(i, n)) for i, n in enumerate(x.shape, start=1)]
        return [o / n for o, n in zip(out, x.shape)], out
    scale = [float(full.get(i, 1.0)) for i in range(1, x.rank)]
    if not all(np.isfinite(scale)) or min(scale) <= 0:
        raise call.malformed(f"scales {scale}")
    return scale, [int(np.floor(n * s)) for n, s in zip(x.shape, scale)]


def _interpolation(call: Call, n: int, size: int, scale: float) -> csr_array:
    """Return the interpolation matrix of one axis, `(size, n)`."""
    if not 1 <= size <= MAX_TAPS:
        raise call.malformed(f"resizes {n} values to {size}")
    at = _coordinates(call, n, size, scale)
    rows = np.arange(size)
    if call.attribute("mode", "nearest") == "nearest":
        columns = _nearest(call, at).clip(0, n - 1).astype(np.int64)
        return csr_array((np.ones(size, dtype=np.float32), (rows, columns)), shape=(size, n))
    low = np.floor(at)
    share = (at - low).astype(np.float32)
    columns = np.concatenate([low, low + 1]).clip(0, n - 1).astype(np.int64)
    return csr_array((np.concatenate([1 - share, share]), (np.tile(rows, 2), columns)), shape=(size, n))


def _coordinates(call: Call, n: int, size: int, scale: float) -> NDArray[np.floating]:
    """Return where in the input the output values are; nearest rounds them, so there the precision is that of the runtimes."""
    real = np.float32 if call.attribute("mode", "nearest") == "nearest" else np.float64
    x: NDArray[np.floating] = np.arange(size).astype(real)
    scale = float(real(scale))
    plain = call.op == "Upsample" or call.opset < 11
    mode = "asymmetric" if plain else call.attribute("coordinate_transformation_mode", "half_pixel")
    if mode == "asymmetric":
        return x / scale
    if mode == "align_corners":
        return x * (n - 1) / (size - 1) if size > 1 else np.zeros(size)
    if mode == "half_pixel" or (mode == "pytorch_half_pixel" and size > 1):
        return (x + 0.5) / scale - 0.5
    if mode == "half_pixel_symmetric":
        return n / 2 * (1 - size / (scale * n)) + (x + 0.5) / scale - 0.5
    if mode == "pytorch_half_pixel":
        return np.zeros(size)
    raise call.refuse(f"coordinate_transformation_mode {mode!r}")


def _nearest(call: Call, at: NDArray[np.floating]) -> NDArray[np.floating]:
    plain = call.op == "Upsample" or call.opset < 11
    mode = "floor" if plain else call.attribute("nearest_mode", "round_prefer_floor")
    rounding: dict[str, Callable[[NDArray[np.floating]], NDArray[np.floating]]] = {
        "floor": np.floor,
        "ceil": np.ceil,
        "round_prefer_floor": lambda v: np.ceil(v - 0.5),
        "round_prefer_ceil": lambda v: np.floor(v + 0.5),
    }
    if mode not in rounding:
        raise call.refuse(f"nearest_mode {mode!r}")
    return rounding[mode](at)
