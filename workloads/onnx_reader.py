"""From an ONNX file to a `Network`.

Axis 0 of the network's input is the batch, whatever size the file declares, and stays the batch throughout: images never meet.
"""

from collections.abc import Iterator
from dataclasses import dataclass, fields, replace
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto

from devices.base.errors import NetworkError, UnsupportedOperatorError, told_of
from workloads.network import INPUT, Network, Node, NodeIndex
from workloads.onnx_files import DOMAINS, OnnxFile, names_in, read_onnx
from workloads.onnx_graph import Call, GraphBuilder, Moved, Tensor, Value
from workloads.onnx_rules import RULES
from workloads.onnx_rules_shape import read_moved
from workloads.onnx_shapes import Fold, fold
from workloads.operators.base import Shape

FOLD_LIMIT_BYTES = 64 * 2**20
FLOAT_TYPES = (TensorProto.FLOAT, TensorProto.FLOAT16, TensorProto.DOUBLE, TensorProto.BFLOAT16)
MOVABLE = ("Transpose", "Gather", "GatherND")
"""What may be done with a value whose batch axis is not the first."""
MALFORMED = (ValueError, IndexError, KeyError, TypeError, AttributeError, ZeroDivisionError, OverflowError, MemoryError)
"""What a rule may raise when a node does not keep to the standard; the user gets one NetworkError."""


def load_onnx(path: str | Path, *, input_shape: Shape | None = None, fold_limit_bytes: int = FOLD_LIMIT_BYTES) -> Network:
    """Return the network in an ONNX file.

    Parameters
    ----------
    path
        The model; external data may lie beside it or in folders below.
    input_shape
        Shape of one sample, `(1, 64, 64)`: needed where the file leaves it open, otherwise in place of the declared one.
    fold_limit_bytes
        The largest constant that is computed while reading.

    Raises
    ------
    NetworkError
        The file is missing, damaged, unsafe, or asks for what no rule covers (UnsupportedOperatorError).
    """
    with told_of(Path(path)):
        file = read_onnx(Path(path))
        entry = find_entry(file, input_shape)
        build = start(file, entry, fold_limit_bytes=fold_limit_bytes)
        for proto in file.graph.node:
            read_node(build, proto)
        return _network(build, entry)


@dataclass(frozen=True, slots=True)
class Entry:
    """The network's input: its name, the shape of one sample, the declared batch, and what the user may want to know."""

    name: str
    shape: Shape
    declared_batch: int | None
    notes: tuple[str, ...]


def find_entry(file: OnnxFile, input_shape: Shape | None) -> Entry:
    """Return the only input that the graph reads."""
    read = set(_names_read(file.graph))
    free = [v for v in file.graph.input if v.name not in file.initializers]
    used = [v for v in free if v.name in read]
    if len(used) != 1:
        names = ", ".join(repr(v.name) for v in used) or "none"
        raise NetworkError(f"{file.path.name} reads {len(used)} inputs ({names}); networks with exactly one are supported")
    (value,) = used
    kind = value.type.tensor_type.elem_type
    if not value.type.HasField("tensor_type") or kind not in FLOAT_TYPES:
        name = TensorProto.DataType.Name(kind) if kind in TensorProto.DataType.values() else str(kind)
        raise NetworkError(f"the input {value.name!r} is of type {name}, not float; export a network of float images")
    notes = [f"the input {v.name!r} is read by nobody and was left out" for v in free if v is not value]
    declared = [d.dim_value if d.HasField("dim_value") and d.dim_value > 0 else None for d in value.type.tensor_type.shape.dim]
    shape = _sample_shape(value.name, declared, input_shape, notes)
    batch = declared[0] if declared else None
    if batch is not None:
        notes.append(f"the declared batch size {batch} was read as any batch size")
    return Entry(value.name, shape, batch, tuple(notes))


def _names_read(graph: onnx.GraphProto) -> Iterator[str]:
    """Yield what nodes read, those in branches included."""
    for node in graph.node:
        yield from node.input
        for attribute in node.attribute:
            yield from _names_read(attribute.g)


def _sample_shape(name: str, declared: list[int | None], given: Shape | None, notes: list[str]) -> Shape:
    """Return the shape of one sample from what the file declares and what the user gives."""
    shown = ", ".join("?" if n is None else str(n) for n in declared[1:])
    if given is None:
        sample = [n for n in declared[1:] if n is not None]
        if not sample or len(sample) < len(declared) - 1:
            raise NetworkError(
                f"the input {name!r} declares the sample shape ({shown}) with open sizes; "
                "say which to use: input_shape=(1, 64, 64), or --input-shape 1,64,64"
            )
        return tuple(sample)
    shape = tuple(int(n) for n in given)
    if not shape or min(shape) < 1 or (declared and len(shape) != len(declared) - 1):
        raise NetworkError(
            f"input_shape {shape} for the input {name!r} of sample shape ({shown}); need as many sizes, without the batch, of at least 1"
        )
    if any(n not in (None, s) for n, s in zip(declared[1:], shape)):
        notes.append(f"the declared sample shape ({shown}) was replaced by {shape}")
    return shape


def start(file: OnnxFile, entry: Entry, *, fold_limit_bytes: int) -> GraphBuilder:
    """Return a builder that knows the weights and the input."""
    build = GraphBuilder(file, entry.declared_batch, fold_limit_bytes)
    build.values[entry.name] = Tensor(INPUT, entry.shape)
    build.notes.extend(entry.notes)
    return build


def read_node(build: GraphBuilder, proto: onnx.NodeProto) -> None:
    """Fold one ONNX node, or add what it means to the network; its outputs become values."""
    if proto.domain not in DOMAINS:
        label, opset = proto.name or proto.output[0], build.file.opset
        raise UnsupportedOperatorError(
            f"node {label!r}: {proto.op_type} (opset {opset}) is of the custom domain {proto.domain!r}; export with standard operators only"
        )
    call = build.call(proto)
    try:
        outputs = _branch(build, call) if proto.op_type == "If" else _outputs(build, call)
    except MALFORMED as error:
        raise call.malformed(f"does not keep to the standard ({type(error).__name__}: {error}); export it again") from error
    if len(outputs) > len(proto.output):
        raise call.malformed(f"names {len(proto.output)} outputs, need {len(outputs)}")
    for name, value in zip(proto.output, outputs):
        build.values[name] = value


def _branch(build: GraphBuilder, call: Call) -> tuple[Value, ...]:
    """Read the branch of an If whose condition is known: exporters write one where a shape decides."""
    chosen = call.inputs[0] if call.inputs else None
    if not isinstance(chosen, np.ndarray) or chosen.size != 1 or chosen.dtype.kind != "b":
        raise call.refuse("its condition depends on the images, or is not known; export the branch that is taken alone")
    wanted = "then_branch" if bool(chosen.ravel()[0]) else "else_branch"
    graph = next((a.g for a in call.proto.attribute if a.name == wanted), None)
    if graph is None or not all(isinstance(name, str) for name in names_in(graph)):
        raise call.malformed(f"has no sound {wanted}")
    for tensor in graph.initializer:
        build.values[tensor.name] = build.file.array(tensor)
    for proto in graph.node:
        read_node(build, proto)
    missing = [v.name for v in graph.output if v.name not in build.values]
    if missing:
        raise call.malformed(f"the {wanted} does not make {missing[0]!r}")
    return tuple(build.values[v.name] for v in graph.output)


def _outputs(build: GraphBuilder, call: Call) -> tuple[Value, ...]:
    if call.inputs and isinstance(call.inputs[0], Moved) and call.op in MOVABLE:
        return read_moved(build, call)
    constants = tuple(v for v in call.inputs if not isinstance(v, Tensor | Moved))
    if len(constants) == len(call.inputs):
        folded = fold(Fold(call.op, call.opset, constants, call.attributes, build.fold_limit_bytes))
        if folded is not None:
            _keep_origin(build, call)
            return folded
    rule = RULES.get(call.op)
    if rule is None:
        raise call.refuse("no rule for this operator; see `accelsim inspect`, export with another opset, or leave this part out")
    return rule(build, call)


def _keep_origin(build: GraphBuilder, call: Call) -> None:
    """A constant made from one weight alone is still known by that weight's name."""
    known = {build.origins[name] for name in call.proto.input if build.origins.get(name, "").endswith(".weight")}
    if len(known) == 1:
        (origin,) = known
        build.origins.update(dict.fromkeys(call.proto.output, origin))


def _network(build: GraphBuilder, entry: Entry) -> Network:
    """Return the finished network: the first output and what it needs."""
    outputs = build.file.graph.output
    value = build.values.get(outputs[0].name) if outputs else None
    if isinstance(value, Moved):
        raise NetworkError(f"{value.label}: Transpose (opset {build.file.opset}): it moves the batch axis of the output; keep axis 0 first")
    if not isinstance(value, Tensor) or value.index == INPUT:
        name = outputs[0].name if outputs else ""
        raise NetworkError(f"{build.file.path.name}: the output {name!r} is not computed from the input")
    if len(outputs) > 1:
        build.notes.append(f"of the outputs {', '.join(repr(o.name) for o in outputs)} the first was taken")
    nodes, output = _needed(build.nodes, value.index)
    return Network(
        name=build.file.path.stem,
        digest=build.file.digest(repr(entry.shape)),
        input_shape=entry.shape,
        nodes=tuple(_frozen(node) for node in nodes),
        output=output,
        notes=tuple(build.notes),
    )


def _needed(nodes: list[Node], output: NodeIndex) -> tuple[list[Node], NodeIndex]:
    """Return the nodes that the output needs, renumbered, and its new index."""
    needed = {output}
    for i in range(output, -1, -1):
        if i in needed:
            needed.update(nodes[i].inputs)
    needed.discard(INPUT)
    new = {old: i for i, old in enumerate(sorted(needed))} | {INPUT: INPUT}
    kept = [replace(nodes[old], inputs=tuple(new[j] for j in nodes[old].inputs)) for old in sorted(needed)]
    return kept, new[output]


def _frozen(node: Node) -> Node:
    """Return the node with its arrays read-only."""
    for name in (f.name for f in fields(node.operator)):  # type: ignore[arg-type] # every operator is a dataclass
        value = getattr(node.operator, name)
        if isinstance(value, np.ndarray):
            value.flags.writeable = False
    return node
