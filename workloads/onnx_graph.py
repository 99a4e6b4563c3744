"""A network while it is being read: nodes are added one by one, values are constants or activations."""

import re
from collections import Counter
from dataclasses import dataclass, field, replace
from math import prod
from typing import Any, TypeAlias

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import helper

from devices.base.errors import NetworkError, UnsupportedOperatorError
from workloads.network import INPUT, Node, NodeIndex
from workloads.onnx_files import OnnxFile
from workloads.onnx_shapes import Attributes, BatchSize
from workloads.operators.base import Array, Operator, Shape
from workloads.operators.matrix import MatrixOperator

MAX_ELEMENTS = 2**32
"""No value of one sample is larger: a file that declares more is damaged or hostile."""


MAX_TOLD, MAX_SHOWN = 600, 120
"""Characters of a message, and of a name in it: a file may hold lists and names of any length."""


@dataclass(frozen=True, slots=True)
class Tensor:
    """An activation: the node that makes it and the shape of one sample; axis 0 of the ONNX value, the batch, is left out."""

    index: NodeIndex
    shape: Shape

    @property
    def rank(self) -> int:
        """Rank of the ONNX value, batch included."""
        return len(self.shape) + 1


@dataclass(frozen=True, slots=True)
class Moved:
    """An activation with its axes in another order, the batch not first: good for being moved back, and for little else."""

    base: Tensor
    order: tuple[int, ...]
    label: str


Value: TypeAlias = Tensor | Moved | NDArray


@dataclass(frozen=True, slots=True, eq=False)
class Call:
    """One ONNX node with its inputs at hand."""

    proto: onnx.NodeProto
    op: str
    opset: int
    label: str
    inputs: tuple[Value | None, ...]
    attributes: Attributes

    def refuse(self, why: str) -> UnsupportedOperatorError:
        """Return the error for what is not supported: node, operator, opset and reason."""
        return UnsupportedOperatorError(self._told(why))

    def malformed(self, why: str) -> NetworkError:
        """Return the error for what no network should have."""
        return NetworkError(self._told(why))

    def _told(self, why: str) -> str:
        label, op = (text if len(text) <= MAX_SHOWN else f"{text[:MAX_SHOWN]}..." for text in (self.label, self.op))
        return f"{label}: {op} (opset {self.opset}): {why if len(why) <= MAX_TOLD else f'{why[:MAX_TOLD]}...'}"

    def attribute(self, name: str, default: Any = None) -> Any:
        return self.attributes.get(name, default)

    def has(self, i: int) -> bool:
        """Tell whether input i is given."""
        return i < len(self.inputs) and self.inputs[i] is not None

    def tensor(self, i: int = 0) -> Tensor:
        """Return input i, which must be an activation."""
        value = self.inputs[i] if i < len(self.inputs) else None
        if isinstance(value, Tensor):
            return value
        if isinstance(value, Moved):
            raise self.refuse(f"it reads a value whose batch axis was moved by {value.label}; keep axis 0 first")
        raise self.refuse(f"input {i} must come from the network's input, but is {'absent' if value is None else 'constant'}")

    def constant(self, i: int) -> NDArray | None:
        """Return input i, which must be constant or absent."""
        value = self.inputs[i] if i < len(self.inputs) else None
        if isinstance(value, Tensor):
            raise self.refuse(f"input {i} must be constant, but it is computed from the network's input")
        if isinstance(value, Moved):
            raise self.refuse(f"it reads a value whose batch axis was moved by {value.label}; keep axis 0 first")
        return value

    def numbers(self, i: int) -> NDArray:
        """Return input i as finite float32."""
        value = self.constant(i)
        if value is None:
            raise self.malformed(f"input {i} is missing")
        return self.finite(value, what=f"input {i} ({self.proto.input[i]!r})")

    def finite(self, value: NDArray, *, what: str) -> NDArray:
        """Return numbers as float32, refusing NaN and infinity; a repeated number is not spread out."""
        if value.dtype == object:
            raise self.refuse("arithmetic with the batch size as a weight")
        few = value[tuple(slice(0, 1) if s == 0 else slice(None) for s in value.strides)] if 0 in value.strides else value
        bad = int(few.size - np.count_nonzero(np.isfinite(few)))
        if bad:
            raise self.malformed(f"{what} has {bad} weights that are NaN or infinite; the training diverged, or the file is damaged")
        return value if value.dtype == np.float32 else self._float32(value, what=what)

    def _float32(self, value: NDArray, *, what: str) -> NDArray:
        with np.errstate(over="ignore"):
            small = np.asarray(value, dtype=np.float32)
        if not np.all(np.isfinite(small)):
            raise self.malformed(f"{what} has numbers up to {np.abs(value).max():g}, beyond float32")
        return small

    def ints(self, i: int, attribute: str) -> list[int | BatchSize] | None:
        """Return integers that older opsets give as an attribute and newer ones as input i; a batch entry stays a symbol."""
        value = self.constant(i)
        if value is None:
            return self.attribute(attribute)
        return [v if isinstance(v, BatchSize) else int(v) for v in value.ravel()]

    def sample_axis(self, axis: int | BatchSize, rank: int) -> int:
        """Return an ONNX axis as an axis of the sample; the batch axis is refused."""
        if isinstance(axis, BatchSize) or not -rank <= axis < rank:
            raise self.malformed(f"axis {axis} of a value of rank {rank}")
        if axis % rank == 0:
            raise self.malformed("it works along the batch axis; images must stay independent of each other")
        return axis % rank - 1

    def sample_constant(self, value: NDArray, rank: int) -> Array:
        """Return a constant that broadcasts against values of this rank, without its batch axis."""
        if value.ndim > rank:
            raise self.refuse(f"a constant of shape {value.shape} raises the rank of a value from {rank}")
        if value.ndim < rank:
            return value
        if value.shape[0] != 1:
            raise self.malformed(f"a constant of shape {value.shape} differs from image to image; its first entry must be 1")
        return value[0]


@dataclass(slots=True, eq=False)
class GraphBuilder:
    """The nodes made so far, and how to add one."""

    file: OnnxFile
    declared_batch: int | None
    fold_limit_bytes: int
    nodes: list[Node] = field(default_factory=list)
    values: dict[str, Value] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    origins: dict[str, str] = field(default_factory=dict)
    _uses: Counter[str] = field(default_factory=Counter)
    _made_as: dict[NodeIndex, str] = field(default_factory=dict)
    _numbers: Counter[str] = field(default_factory=Counter)
    _names: set[str] = field(default_factory=set)

    def __post_init__(self) -> None:
        graph = self.file.graph
        self._uses.update(name for node in graph.node for name in node.input)
        self._uses.update(v.name for v in graph.output)
        for name, array in self.file.initializers.items():
            self.values[name], self.origins[name] = array, name

    def call(self, proto: onnx.NodeProto) -> Call:
        """Return a node with its inputs; one that nobody made before is an error."""
        label = f"node {proto.name or (proto.output[0] if proto.output else '?')!r}"
        opset = self.file.opset
        inputs: list[Value | None] = []
        for name in proto.input:
            if name and name not in self.values:
                raise NetworkError(
                    f"{label}: {proto.op_type} (opset {opset}) reads {name!r}, which no earlier node, input or initializer provides"
                )
            inputs.append(self.values[name] if name else None)
        return Call(proto, proto.op_type, opset, label, tuple(inputs), self._attributes(proto))

    def _attributes(self, proto: onnx.NodeProto) -> Attributes:
        found: Attributes = {}
        for a in proto.attribute:
            if a.type == onnx.AttributeProto.TENSOR:
                found[a.name] = self.file.array(a.t)
            elif a.type in (onnx.AttributeProto.GRAPH, onnx.AttributeProto.GRAPHS):
                continue
            else:
                value = _attribute_value(a, proto)
                found[a.name] = value.decode(errors="replace") if isinstance(value, bytes) else value
        return found

    def add(self, call: Call, operator: Operator, *inputs: Tensor) -> Tensor:
        """Add a node and return its value."""
        shape = operator.out_shape(*(t.shape for t in inputs))
        if any(n <= 0 for n in shape) or prod(shape) > MAX_ELEMENTS:
            raise call.malformed(f"makes a value of shape {shape} from {', '.join(str(t.shape) for t in inputs)}")
        name = self._name(call, operator)
        self.nodes.append(Node(name=name, operator=operator, inputs=tuple(t.index for t in inputs), shape=tuple(int(n) for n in shape)))
        index = len(self.nodes) - 1
        if call.proto.output:
            self._made_as[index] = call.proto.output[0]
        return Tensor(index, self.nodes[index].shape)

    def operator(self, tensor: Tensor) -> Operator | None:
        """Return the operator that made a value, None for the network's input."""
        return None if tensor.index == INPUT else self.nodes[tensor.index].operator

    def source(self, tensor: Tensor, i: int = 0) -> Tensor:
        """Return input i of the node that made a value."""
        index = self.nodes[tensor.index].inputs[i]
        return Tensor(index, self.nodes[index].shape if index != INPUT else ())

    def is_private(self, tensor: Tensor, name: str) -> bool:
        """Tell whether `name`, read by one node only, is the only name of this value."""
        return self._uses[name] == 1 and self._made_as.get(tensor.index) == name

    def rewrite(self, call: Call, tensor: Tensor, operator: Operator) -> Tensor:
        """Replace the operator that made a value by one that does the work of `call` too."""
        self.nodes[tensor.index] = replace(self.nodes[tensor.index], operator=operator)
        self._made_as[tensor.index] = call.proto.output[0]
        return tensor

    def _name(self, call: Call, operator: Operator) -> str:
        given = self._layer_name(call) if isinstance(operator, MatrixOperator) else None
        if given is None:
            kind = call.op.lower()
            self._numbers[kind] += 1
            given = f"{kind}_{self._numbers[kind]}"
        unique, n = given, 1
        while unique in self._names:
            n += 1
            unique = f"{given}_{n}"
        self._names.add(unique)
        return unique

    def _layer_name(self, call: Call) -> str | None:
        """Return the weight's name without `.weight`, or the module path that the exporter told, or None."""
        for name in call.proto.input:
            origin = self.origins.get(name, "")
            if origin.endswith(".weight") and origin != ".weight":
                return origin.removesuffix(".weight")
        return module_path(call.proto.name) or module_scope(call.proto)


def _attribute_value(attribute: onnx.AttributeProto, proto: onnx.NodeProto) -> Any:
    try:
        return helper.get_attribute_value(attribute)
    except ValueError:
        label = f"node {proto.name or (proto.output[0] if proto.output else '?')!r}: {proto.op_type}"
        raise NetworkError(
            f"{label}: the attribute {attribute.name!r} has no value of its own; only functions have such, export without them"
        ) from None


NAME_SCOPES = "pkg.torch.onnx.name_scopes"
"""Metadata of torch's exporter: the modules around a node, outermost first, then the node's own name."""


def module_scope(proto: onnx.NodeProto) -> str | None:
    """Return the innermost module in the metadata torch gives a node: `['', 'mlp', 'mlp.fc1', 'linear']` is in `mlp.fc1`."""
    told = next((p.value for p in proto.metadata_props if p.key == NAME_SCOPES), "")
    scopes = re.findall(r"'([^']*)'", told[:MAX_SCOPES])
    return scopes[-2] or None if len(scopes) >= 2 else None


MAX_SCOPES = 4096
"""Characters of a node's metadata that are looked at."""


def module_path(node_name: str) -> str | None:
    """Return the module in a name torch gives a node: `/layer1/layer1.0/conv1/Conv` is in `layer1.0.conv1`."""
    if not node_name.startswith("/"):
        return None
    path: list[str] = []
    for part in node_name.split("/")[1:-1]:
        if path and part.startswith(path[-1] + "."):
            path[-1] = part
        else:
            path.append(part)
    return ".".join(path) or None
