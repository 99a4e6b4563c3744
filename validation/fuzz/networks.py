"""Mutants of ONNX networks: fields of the protobuf, the graph's wiring, and bytes."""

from collections.abc import Iterator
from contextlib import suppress
from functools import cache
from pathlib import Path
from random import Random
from typing import Any

import numpy as np
import onnx
from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.message import DecodeError, Message
from onnx import AttributeProto, TensorProto, helper, numpy_helper

from validation.fuzz.mutation import FLOATS, INTEGERS, NAMES, mutated_bytes
from validation.fuzz.seeds import NetworkSeed
from workloads.onnx_rules import RULES
from workloads.onnx_shapes import FOLDERS

OPERATORS = (*sorted({*RULES, *FOLDERS}), "If", "Loop", "Scan", "Einsum", "TopK", "NonZero", "QuantizeLinear", "LSTM", "Nothing", "")
INT32_MAX = 2**31 - 1
MAX_NODES = 3000


def mutant_network(choose: Random, seed: NetworkSeed, *, other: NetworkSeed) -> bytes:
    """Return a damaged network, at times the seed as it is, with whatever else is mutated."""
    how = choose.random()
    if how < 0.12:
        return mutated_bytes(choose, seed.raw, other=other.raw)
    model = onnx.ModelProto()
    model.ParseFromString(seed.raw)
    for _ in range(choose.choice((1, 1, 1, 2, 3, 5))):
        if choose.random() < 0.55:
            _mutate_field(choose, model)
        else:
            choose.choice(GRAPH_MUTATIONS)(choose, model.graph)
    raw = model.SerializeToString()
    return mutated_bytes(choose, raw, other=other.raw) if how > 0.96 else raw


# any field of any message


def _mutate_field(choose: Random, model: onnx.ModelProto) -> None:
    messages = list(_messages(model))
    message = choose.choice(messages)
    present = [field for field, _ in message.ListFields()]
    fields = present if present and choose.random() < 0.8 else list(message.DESCRIPTOR.fields)
    field = choose.choice(fields)
    if field.is_repeated:
        _mutate_repeated(choose, message, field)
    elif field.cpp_type == FieldDescriptor.CPPTYPE_MESSAGE:
        _mutate_message(choose, message, field, messages)
    else:
        setattr(message, field.name, _scalar(choose, field))


def _messages(message: Message, *, limit: int = 4000) -> Iterator[Message]:
    """Yield a message and those in it."""
    waiting, n = [message], 0
    while waiting and n < limit:
        here = waiting.pop()
        n += 1
        yield here
        for field, value in here.ListFields():
            if field.cpp_type == FieldDescriptor.CPPTYPE_MESSAGE:
                waiting.extend(value if field.is_repeated else [value])


def _scalar(choose: Random, field: FieldDescriptor) -> Any:
    kind = field.cpp_type
    if kind == FieldDescriptor.CPPTYPE_STRING:
        if field.type == FieldDescriptor.TYPE_BYTES:
            return choose.choice((b"", b"\x00", b"\xff" * 16, b"SAME_UPPER", choose.randbytes(48)))
        return choose.choice((*NAMES, *OPERATORS))
    if kind in (FieldDescriptor.CPPTYPE_FLOAT, FieldDescriptor.CPPTYPE_DOUBLE):
        return choose.choice(FLOATS)
    if kind == FieldDescriptor.CPPTYPE_ENUM:
        return choose.choice([value.number for value in field.enum_type.values])
    wide = kind in (FieldDescriptor.CPPTYPE_INT64, FieldDescriptor.CPPTYPE_UINT64)
    value = choose.choice((*INTEGERS, *range(30)))
    unsigned = kind in (FieldDescriptor.CPPTYPE_UINT32, FieldDescriptor.CPPTYPE_UINT64)
    value = abs(value) if unsigned else value
    return value if wide and abs(value) < 2**63 else max(-INT32_MAX, min(INT32_MAX, value))


def _mutate_repeated(choose: Random, message: Message, field: FieldDescriptor) -> None:
    values: Any = getattr(message, field.name)
    is_message = field.cpp_type == FieldDescriptor.CPPTYPE_MESSAGE
    at = choose.randrange(len(values)) if len(values) else 0
    how = choose.randrange(5)
    if how == 0 and len(values):
        del values[at]
    elif how == 1 and len(values):
        values.extend([values[at]] * choose.choice((1, 1, 2, 100)))
    elif how == 2 and is_message:
        values.add()
    elif how == 3 and len(values) > 1:
        kept = list(values)
        kept.insert(choose.randrange(len(kept)), kept.pop(at))
        del values[:]
        values.extend(kept)
    elif not is_message:
        if len(values) and choose.random() < 0.7:
            values[at] = _scalar(choose, field)
        else:
            values.append(_scalar(choose, field))


def _mutate_message(choose: Random, message: Message, field: FieldDescriptor, messages: list[Message]) -> None:
    alike = [m for m in messages if m.DESCRIPTOR is field.message_type and m is not message]
    if alike and choose.random() < 0.5:
        donor = choose.choice(alike).SerializePartialToString()
        with suppress(DecodeError):  # graphs in graphs may go deeper than protobuf reads
            getattr(message, field.name).ParseFromString(donor)
    elif choose.random() < 0.5:
        message.ClearField(field.name)
    else:
        getattr(message, field.name).SetInParent()


# the graph


def _node(choose: Random, graph: onnx.GraphProto) -> onnx.NodeProto:
    return choose.choice(graph.node) if len(graph.node) else graph.node.add()


def _tensor(choose: Random, graph: onnx.GraphProto) -> TensorProto:
    held = [a.t for node in graph.node for a in node.attribute if a.type == AttributeProto.TENSOR]
    tensors = [*graph.initializer, *held]
    return choose.choice(tensors) if tensors else graph.initializer.add()


def _names(graph: onnx.GraphProto) -> list[str]:
    made = [name for node in graph.node for name in (*node.output, *node.input)]
    return [*made, *(v.name for v in (*graph.input, *graph.initializer, *graph.output)), "nowhere"]


def _rewire(choose: Random, graph: onnx.GraphProto) -> None:
    """Read or make another value: cycles, values made twice, shapes that do not fit."""
    node = _node(choose, graph)
    ends = node.input if choose.random() < 0.75 else node.output
    name = choose.choice(_names(graph))
    if len(ends) and choose.random() < 0.8:
        ends[choose.randrange(len(ends))] = name
    else:
        ends.append(name)


def _reoperate(choose: Random, graph: onnx.GraphProto) -> None:
    _node(choose, graph).op_type = choose.choice(OPERATORS)


ATTRIBUTES = (
    "axis", "axes", "kernel_shape", "strides", "dilations", "pads", "group", "auto_pad", "output_padding", "output_shape", "alpha", "beta",
    "epsilon", "perm", "keepdims", "mode", "to", "value", "value_ints", "transA", "transB", "size", "num_groups", "ceil_mode", "split",
    "start", "end", "starts", "ends", "steps", "allowzero", "scales", "min", "max", "approximate", "coordinate_transformation_mode",
    "nearest_mode", "count_include_pad", "noop_with_empty_axes", "spatial", "training_mode", "body", "sizes", "antialias",
)  # fmt: skip


def _attribute(choose: Random, graph: onnx.GraphProto) -> None:
    """Give an attribute of a name that some rule reads, with any value."""
    node = _node(choose, graph)
    name = choose.choice([a.name for a in node.attribute] or ATTRIBUTES) if choose.random() < 0.6 else choose.choice(ATTRIBUTES)
    for i in reversed([i for i, a in enumerate(node.attribute) if a.name == name]):
        del node.attribute[i]
    value = _value(choose)
    if value is not None:
        node.attribute.append(helper.make_attribute(name, value))


def _value(choose: Random) -> Any:
    small = (-3, -2, -1, 0, 1, 2, 3, 4, 5)
    how = choose.randrange(8)
    if how < 2:
        return choose.choice((*small, *INTEGERS))
    if how == 2:
        return choose.choice(FLOATS)
    if how in (3, 4):
        return [choose.choice((*small, *small, *INTEGERS)) for _ in range(choose.choice((1, 1, 2, 2, 3, 4, 4, 8, 5000)))]
    if how == 5:
        return choose.choice(("SAME_UPPER", "SAME_LOWER", "VALID", "reflect", "edge", "wrap", "linear", "nearest", "cubic", "tanh", *NAMES))
    if how == 6:
        return [choose.choice(FLOATS) for _ in range(choose.choice((1, 2, 4)))]
    return numpy_helper.from_array(np.array(choose.choice((0, 1, -1, 2**40, 5.0, np.nan))), "t") if choose.random() < 0.7 else None


def _tensor_shape(choose: Random, graph: onnx.GraphProto) -> None:
    """Change a tensor's declared shape, its numbers left as they are or made to fit."""
    tensor = _tensor(choose, graph)
    dims = list(tensor.dims)
    if dims and choose.random() < 0.7:
        dims[choose.randrange(len(dims))] = choose.choice((*INTEGERS, 2, 3, 4, 5, 100_000))
    else:
        dims.append(choose.choice((1, 1, 2, 0)))
    del tensor.dims[:]
    tensor.dims.extend(dims)
    n = int(np.prod(np.array(dims, dtype=object))) if dims else 1
    if 0 <= n < 2**16 and tensor.data_type == TensorProto.FLOAT and choose.random() < 0.6:
        tensor.raw_data = np.random.default_rng(choose.randrange(2**32)).normal(size=n).astype(np.float32).tobytes()


def _tensor_numbers(choose: Random, graph: onnx.GraphProto) -> None:
    tensor = _tensor(choose, graph)
    array: np.ndarray = np.zeros(0)
    if tensor.data_location != TensorProto.EXTERNAL and 0 <= tensor.data_type <= 16 and len(tensor.raw_data) % 8 == 0:
        array = np.frombuffer(tensor.raw_data, np.float32 if tensor.data_type == TensorProto.FLOAT else np.int64).copy()
    if array.size:
        values = FLOATS if array.dtype.kind == "f" else (*INTEGERS, -2, 4, 5)
        where: Any = slice(None) if choose.random() < 0.3 else choose.randrange(array.size)
        with np.errstate(over="ignore"):
            array[where] = np.asarray(choose.choice(values)).astype(array.dtype)
        tensor.raw_data = array.tobytes()


def _external(choose: Random, graph: onnx.GraphProto) -> None:
    """Say that a tensor's numbers are in another file: inside, outside, a link, a device, nowhere."""
    tensor = _tensor(choose, graph)
    tensor.data_location = TensorProto.EXTERNAL
    tensor.ClearField("raw_data")
    entries = {"location": choose.choice(("data.bin", "../secret.bin", "link.bin", "/etc/passwd", "/dev/zero", "folder", "pipe", *NAMES))}
    if choose.random() < 0.6:
        entries["offset"] = choose.choice(("0", "4", "-1", "1e3", str(2**63), "\u0663", ""))
    if choose.random() < 0.6:
        entries["length"] = choose.choice(("0", "4", "16", "-1", str(2**60), "x"))
    for key, value in entries.items():
        entry = tensor.external_data.add()
        entry.key, entry.value = key, value


def _input(choose: Random, graph: onnx.GraphProto) -> None:
    if not len(graph.input):
        graph.input.add()
    value = choose.choice(graph.input)
    dims = value.type.tensor_type.shape.dim
    how = choose.randrange(5)
    if how == 0:
        value.type.tensor_type.elem_type = choose.randrange(25)
    elif how == 1 and len(dims):
        dims[choose.randrange(len(dims))].dim_value = choose.choice((*INTEGERS, 1, 2, 5, 8, 1000, 100_000))
    elif how == 2 and len(dims):
        dims[choose.randrange(len(dims))].dim_param = choose.choice(NAMES)
    elif how == 3:
        dims.add().dim_value = choose.choice((0, 1, 3))
    else:
        graph.input.add().CopyFrom(value)
        value.name = choose.choice(NAMES)


def _inserted(choose: Random, graph: onnx.GraphProto) -> None:
    """Put a node of any operator between a value and its readers."""
    if not len(graph.node):
        return
    at = choose.randrange(len(graph.node))
    reader = graph.node[at]
    if not len(reader.input):
        return
    where = choose.randrange(len(reader.input))
    more = [choose.choice(_names(graph)) for _ in range(choose.choice((0, 0, 1, 2)))]
    node = helper.make_node(choose.choice(OPERATORS) or "Relu", [reader.input[where], *more], [f"new_{choose.randrange(10**6)}"])
    for _ in range(choose.choice((0, 0, 1, 2))):
        value = _value(choose)
        if value is not None:
            node.attribute.append(helper.make_attribute(choose.choice(ATTRIBUTES), value))
    reader.input[where] = node.output[0]
    kept = list(graph.node)
    kept.insert(at, node)
    del graph.node[:]
    graph.node.extend(kept)


def _chain(choose: Random, graph: onnx.GraphProto) -> None:
    """Add very many nodes that double a value, join it with itself, or do nothing."""
    if not len(graph.output) or not len(graph.node) or not len(graph.node[-1].output):
        return
    name, n = graph.node[-1].output[0], choose.choice((5, 40, 300, MAX_NODES))
    operator = choose.choice(("Identity", "Add", "Concat", "Mul", "Relu", "Transpose", "Tile", "Expand"))
    for i in range(n):
        inputs = [name, name] if operator in ("Add", "Concat", "Mul") else [name]
        graph.node.append(helper.make_node(operator, inputs, [f"chain_{i}"]))
        if operator == "Concat":
            graph.node[-1].attribute.append(helper.make_attribute("axis", 1))
        name = f"chain_{i}"
    graph.output[0].name = name


def _subgraph(choose: Random, graph: onnx.GraphProto) -> None:
    """Give a node a graph in a graph, at times many deep."""
    inner = onnx.GraphProto()
    if choose.random() < 0.3 and graph.ByteSize() < 20_000:
        inner.CopyFrom(graph)
    for _ in range(choose.choice((1, 3, 25))):
        node = helper.make_node("If", ["c"], ["z"], then_branch=inner, else_branch=onnx.GraphProto())
        inner = helper.make_graph([node], "inner", [], [])
    _node(choose, graph).attribute.append(helper.make_attribute("body", inner))


def _fold_bomb(choose: Random, graph: onnx.GraphProto) -> None:
    """Add nodes of constants that make a large value of few bytes."""
    n = choose.choice((8, 10**4, 10**6, 3 * 10**9, 2**62))
    graph.initializer.append(numpy_helper.from_array(np.array([n, choose.choice((1, 10**6, n))]), "sizes"))
    graph.initializer.append(numpy_helper.from_array(np.array(n), "count"))
    graph.initializer.append(numpy_helper.from_array(np.array(0), "nil"))
    graph.initializer.append(numpy_helper.from_array(np.array(1), "one"))
    graph.initializer.append(numpy_helper.from_array(np.ones((1, 1), np.float32), "unit"))
    inputs = {"ConstantOfShape": ["sizes"], "Range": ["nil", "count", "one"], "Expand": ["unit", "sizes"], "Tile": ["unit", "sizes"]}
    operator = choose.choice(list(inputs))
    kept = list(graph.node)
    nodes = [helper.make_node(operator, inputs[operator], ["bomb"])]
    for i in range(choose.choice((0, 0, 6))):
        nodes.append(helper.make_node(choose.choice(("Add", "Concat", "Mul", "MatMul", "Exp")), ["bomb", "bomb"], [f"bomb_{i}"]))
    reader = choose.choice(kept) if kept else nodes[0]
    if len(reader.input):
        reader.input[choose.randrange(len(reader.input))] = nodes[-1].output[0]
    del graph.node[:]
    graph.node.extend([*nodes, *kept])


def _whole(choose: Random, graph: onnx.GraphProto) -> None:
    """Take out all nodes, inputs, outputs or initializers, or turn the order of nodes round."""
    how = choose.randrange(5)
    if how == 4:
        kept = list(graph.node)[::-1]
        del graph.node[:]
        graph.node.extend(kept)
    else:
        del (graph.node, graph.input, graph.output, graph.initializer)[how][:]


GRAPH_MUTATIONS = (
    _rewire, _rewire, _reoperate, _reoperate, _attribute, _attribute, _attribute, _tensor_shape, _tensor_shape, _tensor_numbers,
    _tensor_numbers, _external, _input, _input, _inserted, _inserted, _inserted, _chain, _subgraph, _fold_bomb, _whole,
)  # fmt: skip


@cache
def data_beside() -> bytes:
    """Return the numbers of external tensors that lie beside a mutant."""
    return np.random.default_rng(0).normal(size=4096).astype(np.float32).tobytes()


def write_network(path: Path, raw: bytes) -> None:
    """Write a network with files beside it that it may name: data, a link that leads out, a folder, a pipe."""
    import os

    path.write_bytes(raw)
    (path.parent / "data.bin").write_bytes(data_beside())
    (path.parent / "link.bin").symlink_to("../secret.bin")
    (path.parent / "folder").mkdir()
    os.mkfifo(path.parent / "pipe")
