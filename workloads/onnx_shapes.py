"""Constants and shapes known when a network is read: the batch as a symbol, and the folding of constant nodes.

A shape vector that mentions the batch is an object array whose batch entries are `BatchSize`; everything else is plain numbers.
"""

from collections.abc import Callable
from dataclasses import dataclass
from math import prod
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray
from onnx import helper

from devices.base.errors import NetworkError

Attributes: TypeAlias = dict[str, Any]


@dataclass(frozen=True, slots=True)
class BatchSize:
    """The number of images, times a factor: what axis 0 of a value is called while a network is read."""

    factor: int = 1

    def __mul__(self, other: object) -> "BatchSize":
        if isinstance(other, int | np.integer) and other > 0:
            return BatchSize(self.factor * int(other))
        return NotImplemented

    __rmul__ = __mul__

    def __floordiv__(self, other: object) -> "BatchSize":
        if isinstance(other, int | np.integer) and other > 0 and self.factor % int(other) == 0:
            return BatchSize(self.factor // int(other))
        return NotImplemented

    def __str__(self) -> str:
        return "N" if self.factor == 1 else f"{self.factor} N"


BATCH = BatchSize()


def shape_vector(shape: tuple[int, ...]) -> NDArray:
    """Return the shape of a value with the batch in front, as a symbolic vector."""
    vector = np.empty(len(shape) + 1, dtype=object)
    vector[:] = [BATCH, *shape]
    return vector


def tidy(array: NDArray) -> NDArray:
    """Return an object array as integers when it has no batch entry left."""
    if array.dtype == object and not any(isinstance(v, BatchSize) for v in array.ravel()):
        return array.astype(np.int64)
    return array


@dataclass(frozen=True, slots=True, eq=False)
class Fold:
    """A node whose inputs are all constant; `limit_bytes` bounds each output."""

    op: str
    opset: int
    inputs: tuple[NDArray | None, ...]
    attributes: Attributes
    limit_bytes: int

    def given(self, i: int) -> NDArray:
        value = self.inputs[i] if i < len(self.inputs) else None
        if value is None:
            raise NetworkError(f"{self.op} lacks its input {i}")
        return value

    def optional(self, i: int) -> NDArray | None:
        return self.inputs[i] if i < len(self.inputs) else None

    def ints(self, i: int, attribute: str) -> list[int] | None:
        """Return integers that older opsets give as an attribute and newer ones as an input."""
        value = self.optional(i)
        return [int(v) for v in value.ravel()] if value is not None else self.attributes.get(attribute)

    def room(self, shape: tuple[int, ...], itemsize: int) -> None:
        """Refuse an output above the limit, before it is made."""
        n_bytes = prod(int(n) for n in shape) * itemsize
        if n_bytes > self.limit_bytes:
            sizes = tuple(int(n) for n in shape)
            raise NetworkError(
                f"{self.op} makes a constant of shape {sizes}, {n_bytes:.3g} bytes; at most {self.limit_bytes} are folded; "
                "store it as an initializer, or raise fold_limit_bytes"
            )


def fold(node: Fold) -> tuple[NDArray, ...] | None:
    """Return the outputs of a node of constants, or None when its operator is not one that is folded."""
    rule = FOLDERS.get(node.op)
    if rule is None:
        return None
    result = rule(node)
    outputs = result if isinstance(result, tuple) else (result,)
    return tuple(tidy(np.asarray(o)) for o in outputs)


def _elementwise(function: Callable[..., NDArray]) -> Callable[[Fold], NDArray]:
    def apply(node: Fold) -> NDArray:
        arrays = [a for a in node.inputs if a is not None]
        node.room(np.broadcast_shapes(*(a.shape for a in arrays)), max(a.itemsize for a in arrays))
        with np.errstate(all="ignore"):
            return np.asarray(function(*arrays))

    return apply


def _divide(a: NDArray, b: NDArray) -> NDArray:
    if a.dtype.kind == "f":
        return a / b
    if not np.all(b):
        raise NetworkError("Div of constants divides integers by zero")
    if a.dtype == object or b.dtype == object:
        return a // b
    return np.trunc(a / b).astype(a.dtype) if np.any(a < 0) or np.any(b < 0) else a // b


def _equal(a: NDArray, b: NDArray) -> NDArray:
    return np.asarray(a == b, dtype=bool)


def _constant_of_shape(node: Fold) -> NDArray:
    shape = tuple(int(n) for n in node.given(0).ravel())
    value = node.attributes.get("value", np.zeros(1, dtype=np.float32))
    if any(n < 0 for n in shape):
        raise NetworkError(f"ConstantOfShape of the shape {shape}")
    node.room(shape, value.itemsize)
    return np.broadcast_to(value.ravel()[0], shape)


def _constant(node: Fold) -> NDArray:
    kinds = {"value": None, "value_float": np.float32, "value_floats": np.float32, "value_int": np.int64, "value_ints": np.int64}
    for name, dtype in kinds.items():
        if name in node.attributes:
            return np.asarray(node.attributes[name], dtype=dtype)
    raise NetworkError(f"Constant holds {', '.join(node.attributes) or 'nothing'}; only numbers are read")


def _gather(node: Fold) -> NDArray:
    data, indices, axis = node.given(0), node.given(1), node.attributes.get("axis", 0)
    axis = axis % max(data.ndim, 1)
    node.room((*data.shape[:axis], *indices.shape, *data.shape[axis + 1 :]), data.itemsize)
    return np.take(data, indices, axis=axis)


def _concat(node: Fold) -> NDArray:
    arrays = [node.given(i) for i in range(len(node.inputs))]
    node.room((sum(a.size for a in arrays),), max(a.itemsize for a in arrays))
    return np.concatenate(arrays, axis=node.attributes.get("axis", 0))


def _unsqueeze(node: Fold) -> NDArray:
    axes = node.ints(1, "axes")
    if axes is None:
        raise NetworkError("Unsqueeze without axes")
    return np.expand_dims(node.given(0), tuple(axes))


def _squeeze(node: Fold) -> NDArray:
    axes = node.ints(1, "axes")
    return np.squeeze(node.given(0), None if axes is None else tuple(axes))


def _cast(node: Fold) -> NDArray:
    data, dtype = node.given(0), helper.tensor_dtype_to_np_dtype(node.attributes["to"])
    if data.dtype == object:
        return data
    with np.errstate(all="ignore"):
        return data.astype(dtype) if dtype.kind in "iub" else data.astype(np.float32)


def _range(node: Fold) -> NDArray:
    start, stop, step = (node.given(i).item() for i in range(3))
    if step == 0 or not all(np.isfinite((start, stop, step))):
        raise NetworkError(f"Range from {start} to {stop} by {step}")
    n = max(0, int(np.ceil((stop - start) / step)))
    node.room((n,), node.given(0).itemsize)
    return (start + step * np.arange(n)).astype(node.given(0).dtype)


def _reshape(node: Fold) -> NDArray:
    data, target = node.given(0), [int(n) for n in node.given(1).ravel()]
    keep_zero = node.attributes.get("allowzero", 0)
    return data.reshape([data.shape[i] if n == 0 and not keep_zero else n for i, n in enumerate(target)])


def _expand(node: Fold) -> NDArray:
    data = node.given(0)
    shape = np.broadcast_shapes(data.shape, tuple(int(n) for n in node.given(1).ravel()))
    node.room(shape, data.itemsize)
    return np.broadcast_to(data, shape)


def _tile(node: Fold) -> NDArray:
    data, repeats = node.given(0), [int(n) for n in node.given(1).ravel()]
    node.room(tuple(n * r for n, r in zip(data.shape, repeats)), data.itemsize)
    return np.tile(data, repeats)


def slices_of(node: Fold, rank: int) -> dict[int, slice]:
    """Return the slices of a Slice node by axis, from its attributes (before opset 10) or inputs; the data are input 0."""
    starts, ends = node.ints(1, "starts"), node.ints(2, "ends")
    if starts is None or ends is None:
        raise NetworkError("Slice needs constant starts and ends")
    axes = node.ints(3, "axes") or list(range(len(starts)))
    steps = node.ints(4, "steps") or [1] * len(starts)
    if 0 in steps:
        raise NetworkError("Slice by a step of 0")
    return {a % rank: _slice(start, end, step) for a, start, end, step in zip(axes, starts, ends, steps)}


def _slice(start: int, end: int, step: int) -> slice:
    """Return ONNX's slice as Python's: downwards, an end far below 0 means through the first entry."""
    return slice(start, None if step < 0 and end <= -(2**31) + 1 else end, step)


def _slicing(node: Fold) -> NDArray:
    data = node.given(0)
    by_axis = slices_of(node, data.ndim)
    return data[tuple(by_axis.get(axis, slice(None)) for axis in range(data.ndim))]


def _transpose(node: Fold) -> NDArray:
    return node.given(0).transpose(node.attributes.get("perm"))


def _flatten(node: Fold) -> NDArray:
    data, axis = node.given(0), node.attributes.get("axis", 1)
    axis = axis % data.ndim if axis < 0 else axis
    return data.reshape(prod(data.shape[:axis]), -1)


def _shape(node: Fold) -> NDArray:
    return np.array(node.given(0).shape, dtype=np.int64)[slice(node.attributes.get("start", 0), node.attributes.get("end"))]


def _reduce_product(node: Fold) -> NDArray:
    axes = node.ints(1, "axes")
    keep = bool(node.attributes.get("keepdims", 1))
    return np.prod(node.given(0), axis=None if axes is None else tuple(axes), keepdims=keep)


FOLDERS: dict[str, Callable[[Fold], NDArray | tuple[NDArray, ...]]] = {
    "Abs": _elementwise(np.abs),
    "Add": _elementwise(np.add),
    "And": _elementwise(np.logical_and),
    "Cast": _cast,
    "Ceil": _elementwise(np.ceil),
    "Concat": _concat,
    "Constant": _constant,
    "ConstantOfShape": _constant_of_shape,
    "Div": _elementwise(_divide),
    "Equal": _elementwise(_equal),
    "Exp": _elementwise(np.exp),
    "Expand": _expand,
    "Flatten": _flatten,
    "Floor": _elementwise(np.floor),
    "Gather": _gather,
    "Greater": _elementwise(np.greater),
    "Identity": lambda node: node.given(0),
    "Less": _elementwise(np.less),
    "Max": _elementwise(lambda *a: np.maximum.reduce(np.broadcast_arrays(*a))),
    "Min": _elementwise(lambda *a: np.minimum.reduce(np.broadcast_arrays(*a))),
    "Mul": _elementwise(np.multiply),
    "Neg": _elementwise(np.negative),
    "Not": _elementwise(np.logical_not),
    "Or": _elementwise(np.logical_or),
    "Pow": _elementwise(lambda a, b: np.power(a, b).astype(a.dtype)),
    "Range": _range,
    "Reciprocal": _elementwise(np.reciprocal),
    "ReduceProd": _reduce_product,
    "Reshape": _reshape,
    "Shape": _shape,
    "Size": lambda node: np.array(node.given(0).size, dtype=np.int64),
    "Slice": _slicing,
    "Sqrt": _elementwise(np.sqrt),
    "Squeeze": _squeeze,
    "Sub": _elementwise(np.subtract),
    "Tile": _tile,
    "Transpose": _transpose,
    "Unsqueeze": _unsqueeze,
    "Where": _elementwise(np.where),
}
