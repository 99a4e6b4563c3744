"""ONNX files as untrusted input: the model, its weights and its external data, or one clear NetworkError."""

from collections.abc import Iterator
from dataclasses import dataclass
from math import prod
from pathlib import Path, PurePosixPath, PureWindowsPath

import numpy as np
import onnx
from google.protobuf.message import DecodeError
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from devices.base.errors import NetworkError, UnsupportedOperatorError, no_file
from workloads.network import digest_of

OPSETS = range(7, 23)
DOMAINS = ("", "ai.onnx")
NUMBER_TYPES = frozenset(
    {
        TensorProto.FLOAT, TensorProto.DOUBLE, TensorProto.FLOAT16, TensorProto.BFLOAT16, TensorProto.BOOL,
        TensorProto.INT8, TensorProto.INT16, TensorProto.INT32, TensorProto.INT64,
        TensorProto.UINT8, TensorProto.UINT16, TensorProto.UINT32, TensorProto.UINT64,
    }
)


@dataclass(frozen=True, slots=True, eq=False)
class OnnxFile:
    """A parsed model, where it lies, and its initializers as arrays (floats as float32)."""

    path: Path
    model: onnx.ModelProto
    opset: int
    initializers: dict[str, NDArray]

    @property
    def graph(self) -> onnx.GraphProto:
        return self.model.graph

    def array(self, tensor: TensorProto) -> NDArray:
        """Return a tensor of this file as an array."""
        return tensor_array(tensor, folder=self.path.parent)

    def digest(self, *extra: str) -> str:
        """Return sha256 over opset, nodes, graph inputs and outputs, and weights, wherever they are stored."""
        graph = self.graph
        parts: list[bytes | str | np.ndarray] = [str(self.opset), *extra]
        for node in graph.node:
            parts += [node.op_type, node.domain, "\n".join(node.input), "\n".join(node.output)]
            for attribute in sorted(node.attribute, key=lambda a: a.name):
                is_tensor = attribute.type == onnx.AttributeProto.TENSOR
                parts.append(attribute.name)
                parts.append(self.array(attribute.t) if is_tensor else attribute.SerializeToString(deterministic=True))
        parts += ["\n".join(v.name for v in graph.input), "\n".join(v.name for v in graph.output)]
        for name in sorted(self.initializers):
            parts += [name, self.initializers[name]]
        return digest_of(*parts)


def read_onnx(path: Path) -> OnnxFile:
    """Read a model and its weights; NetworkError for whatever is not a usable ONNX file."""
    model = _parse(path)
    opset = _opset(model, path)
    if model.graph.sparse_initializer:
        raise NetworkError(f"{path.name} has sparse initializers, which are not read; export dense weights")
    tensors = {t.name: tensor_array(t, folder=path.parent) for t in model.graph.initializer}
    return OnnxFile(path, model, opset, tensors)


def _parse(path: Path) -> onnx.ModelProto:
    if not path.is_file():
        raise NetworkError(no_file("network", path, lever="give the path of an .onnx file, or the name of an embedded network"))
    try:
        raw = path.read_bytes()
    except OSError as error:
        raise NetworkError(f"{path.name} cannot be read: {error.strerror}") from error
    model = onnx.ModelProto()
    try:
        model.ParseFromString(raw)
    except (DecodeError, RuntimeError, ValueError) as error:
        raise NetworkError(f"{path.name} ({len(raw)} bytes) is not an ONNX file, or is truncated; export it again") from error
    if not model.HasField("graph") or not model.graph.node:
        raise NetworkError(f"{path.name} ({len(raw)} bytes) is not an ONNX file: it holds no graph; export it again")
    if not all(isinstance(name, str) for name in names_in(model.graph)):
        raise NetworkError(f"{path.name} has names that are not text; the file is damaged")
    return model


def names_in(graph: onnx.GraphProto) -> Iterator[str]:
    """Yield every name in a graph; protobuf gives bytes where one is not UTF-8."""
    for node in graph.node:
        yield from (node.name, node.op_type, node.domain, *node.input, *node.output, *(a.name for a in node.attribute))
    yield from (entry.name for entry in (*graph.input, *graph.output, *graph.initializer))
    yield from (word for t in graph.initializer for entry in t.external_data for word in (entry.key, entry.value))


def _opset(model: onnx.ModelProto, path: Path) -> int:
    versions = [entry.version for entry in model.opset_import if entry.domain in DOMAINS]
    if not versions:
        raise NetworkError(f"{path.name} declares no opset of the domain ai.onnx; export it again, with opset 17 for example")
    if versions[0] not in OPSETS:
        raise UnsupportedOperatorError(
            f"{path.name} is of opset {versions[0]}; {OPSETS.start} to {OPSETS.stop - 1} are read; export with opset_version=17 for example"
        )
    return int(versions[0])


def tensor_array(tensor: TensorProto, *, folder: Path) -> NDArray:
    """Return a tensor's numbers (floating types as float32), after its declared size is checked against what is stored."""
    label = f"tensor {tensor.name!r}"
    if tensor.data_type not in NUMBER_TYPES:
        known = tensor.data_type in TensorProto.DataType.values()
        kind = TensorProto.DataType.Name(tensor.data_type) if known else str(tensor.data_type)
        raise NetworkError(f"{label} is of type {kind}, which is not read; export float32 weights")
    shape = tuple(tensor.dims)
    if any(n < 0 for n in shape):
        raise NetworkError(f"{label} declares the shape {shape}; the file is damaged")
    if tensor.data_location == TensorProto.EXTERNAL:
        return _as_float32(_external(tensor, shape, folder))
    n_bytes = prod(shape) * _dtype(tensor).itemsize
    if tensor.HasField("raw_data") and len(tensor.raw_data) != n_bytes:
        stored = len(tensor.raw_data)
        raise NetworkError(f"{label} declares the shape {shape}, {n_bytes} bytes, but {stored} are stored; the file is damaged")
    try:
        return _as_float32(numpy_helper.to_array(tensor))
    except (ValueError, TypeError) as error:
        raise NetworkError(f"{label} does not hold the numbers its shape {shape} declares; the file is damaged") from error


def _dtype(tensor: TensorProto) -> np.dtype:
    return helper.tensor_dtype_to_np_dtype(tensor.data_type)


def _as_float32(array: NDArray) -> NDArray:
    if array.dtype.kind in "iub":
        return array
    with np.errstate(over="ignore"):
        return np.asarray(array, dtype=np.float32)


def _external(tensor: TensorProto, shape: tuple[int, ...], folder: Path) -> NDArray:
    """Read a tensor from a file beside the model."""
    entries = {entry.key: entry.value for entry in tensor.external_data}
    dtype, label = _dtype(tensor), f"tensor {tensor.name!r}"
    n_bytes = prod(shape) * dtype.itemsize
    path = _data_file(entries.get("location", ""), folder=folder, label=label)
    try:
        offset, length = int(entries.get("offset", "0")), int(entries.get("length", str(n_bytes)))
    except ValueError as error:
        told = f"offset {entries.get('offset')!r} and length {entries.get('length')!r}"
        raise NetworkError(f"{label} has the external {told}, which are not numbers; export it again") from error
    size = path.stat().st_size
    if offset < 0 or length != n_bytes or offset + n_bytes > size:
        raise NetworkError(
            f"{label} needs {n_bytes} bytes from byte {offset} of {path.name}, declared as {length}; the file has {size}; "
            "it is truncated or of another export"
        )
    with path.open("rb") as file:
        file.seek(offset)
        return np.frombuffer(file.read(n_bytes), dtype=dtype.newbyteorder("<") if dtype.kind in "iufb" else dtype).reshape(shape)


MAX_LOCATION = 240
"""Characters of a path to external data: a longer name no file system takes."""


def _data_file(location: str, *, folder: Path, label: str) -> Path:
    """Return the external data file; only a regular file inside the model's folder is opened."""
    absolute = PurePosixPath(location).is_absolute() or PureWindowsPath(location).is_absolute() or PureWindowsPath(location).drive
    if not location or absolute or "\0" in location or len(location) > MAX_LOCATION:
        raise NetworkError(f"{label} names the external file {location[:80]!r}; it must be a relative path inside the model's folder")
    home = folder.resolve()
    path = (home / location).resolve()
    if not path.is_relative_to(home):
        raise NetworkError(
            f"{label} names the external file {location!r}, which leads out of the model's folder; put the file beside the model"
        )
    if not path.is_file():
        raise NetworkError(f"{label} is stored in {location!r}, which is missing; keep the file beside the model, as it was exported")
    return path
