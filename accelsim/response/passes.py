"""One pass forwards and one backwards: the walk that every first-order quantity is made of.

Forwards, each node leaves a `LocalMap`; matrix layers also leave their input. Backwards, all outputs travel together as lanes
(lane = output * B + image), and each matrix layer shows its output gradient to a visitor on the way.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import numpy as np

from accelsim.response.weights import StoredVariances, Weights
from workloads.network import INPUT, Network, NodeIndex
from workloads.operators.base import Array, LocalMap, Slopes
from workloads.operators.matrix import MatrixOperator

Visitor = Callable[[NodeIndex, Array, Array], None]
"""Called with a node, the gradient `(*shape, R*B)` at its output, and its input `(*in_shape, B)`."""


@dataclass(frozen=True, slots=True, eq=False)
class MatrixMap(LocalMap):
    """The map of a matrix layer with weights of its own (mean or sampled)."""

    operator: MatrixOperator
    weights: Array
    n_inputs: int

    def push(self, tangents: tuple[Array | None, ...]) -> Array:
        (tangent,) = tangents
        if tangent is None:
            raise ValueError("a matrix map needs its one tangent")
        return self.operator.multiply(self.weights, tangent)

    def pull(self, delta: Array) -> tuple[Array | None, ...]:
        return (self.operator.multiply_transposed(self.weights, delta),)


@dataclass(frozen=True, slots=True, eq=False)
class TermsMap(LocalMap):
    """The map of a matrix layer whose cells conduct non-linearly: each term's weights, and the slopes of what drives them."""

    operator: MatrixOperator
    terms: list[tuple[Array, Array]]

    def push(self, tangents: tuple[Array | None, ...]) -> Array:
        (tangent,) = tangents
        if tangent is None:
            raise ValueError("a matrix map needs its one tangent")
        return _sum([self.operator.multiply(weights, _times(tangent, slope)) for weights, slope in self.terms])

    def pull(self, delta: Array) -> tuple[Array | None, ...]:
        return (_sum([_times(self.operator.multiply_transposed(weights, delta), slope) for weights, slope in self.terms]),)


def _times(lanes: Array, slope: Array) -> Array:
    """Return lanes `(*shape, R*B)` times slopes `(*shape, B)`."""
    split = lanes.reshape(*slope.shape[:-1], -1, slope.shape[-1]) * slope[..., None, :]
    return split.reshape(*slope.shape[:-1], -1)


def _sum(parts: list[Array]) -> Array:
    total = parts[0]
    for part in parts[1:]:
        total = total + part
    return total


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Linearization:
    """A network at a point: its output, the map of each node, and the inputs of its matrix layers."""

    graph: Network
    output: Array
    maps: Mapping[NodeIndex, LocalMap]
    matrix_inputs: Mapping[NodeIndex, Array]
    noisy: frozenset[NodeIndex]
    """Nodes that come after a matrix layer: where errors can be."""
    rests: Mapping[NodeIndex, Array] = field(default_factory=dict)
    """Variance of what converters leave, by layer, `(*shape, B)`: fresh at each position."""
    drives: Mapping[NodeIndex, Array] = field(default_factory=dict)
    """What errors of the weights meet, of layers where it is not the input: cells conduct non-linearly there."""

    def error_drive(self, i: NodeIndex) -> Array:
        """Return what errors of layer i's weights meet."""
        return self.drives.get(i, self.matrix_inputs[i])
    stored: Mapping[NodeIndex, StoredVariances] = field(default_factory=dict)
    """Variances of what memories of values leave, by layer."""


def ancestors(graph: Network) -> frozenset[NodeIndex]:
    """Return the nodes that the output depends on."""
    needed = {graph.output}
    for i in range(graph.output, -1, -1):
        if i in needed:
            needed.update(j for j in graph.nodes[i].inputs if j != INPUT)
    return frozenset(needed)


def after_a_matrix(graph: Network) -> frozenset[NodeIndex]:
    """Return the nodes whose value depends on stored weights."""
    noisy: set[NodeIndex] = set()
    for i, node in enumerate(graph.nodes):
        if isinstance(node.operator, MatrixOperator) or any(j in noisy for j in node.inputs):
            noisy.add(i)
    return frozenset(noisy)


def linearize(graph: Network, images: Array, view: Weights) -> Linearization:
    """Run forwards with the given weights, leaving a map at each node that errors can reach.

    A layer's map is that of its weights, from what drives its rows: converters pass small errors on as they are.
    """
    needed, noisy, last = ancestors(graph), after_a_matrix(graph), graph.last_use()
    values: dict[NodeIndex, Array] = {INPUT: images}
    maps: dict[NodeIndex, LocalMap] = {}
    matrix_inputs: dict[NodeIndex, Array] = {}
    rests: dict[NodeIndex, Array] = {}
    drives: dict[NodeIndex, Array] = {}
    stored: dict[NodeIndex, StoredVariances] = {}
    for i, node in enumerate(graph.nodes[: graph.output + 1]):
        if i not in needed:
            continue
        inputs = tuple(values[j] for j in node.inputs)
        if isinstance(node.operator, MatrixOperator):
            values[i], rest = view.averaged(i, node.operator, inputs[0])
            if rest is not None:
                rests[i] = rest
            if (variances := view.stored_variances(i, node.operator, inputs[0])) is not None:
                stored[i] = variances
            maps[i] = MatrixMap(node.operator, view.weights[i], inputs[0].size // inputs[0].shape[-1])
            matrix_inputs[i] = view.driven(i, inputs[0])
            path = view.paths.get(i)
            if path is not None and path.conduction is not None:
                drives[i] = path.error_drive(matrix_inputs[i])
                maps[i] = TermsMap(node.operator, path.local_terms(view.slices[i], matrix_inputs[i]))
        else:
            values[i] = node.operator.forward(*inputs)
            if i in noisy:
                maps[i] = node.operator.linearize(inputs, values[i])
        _forget(values, node.inputs, last, i, graph.output)
    return Linearization(
        graph=graph, output=values[graph.output], maps=maps, matrix_inputs=matrix_inputs, noisy=noisy, rests=rests, drives=drives,
        stored=stored,
    )


def _forget(values: dict[NodeIndex, Array], inputs: tuple[NodeIndex, ...], last: list[NodeIndex], i: NodeIndex, output: NodeIndex) -> None:
    for j in inputs:
        if j not in (INPUT, output) and last[j] == i:
            values.pop(j, None)


def pull(point: Linearization, seeds: Array, visit: Visitor) -> None:
    """Carry `seeds` `(*out_shape, R*B)` from the output back to every matrix layer, and show each its gradient.

    Visitors look, and keep no reference: a gradient's memory is used again.
    """
    graph, spare = point.graph, _Spare()
    deltas: dict[NodeIndex, Array] = {graph.output: seeds}
    alone: set[NodeIndex] = set()  # whose gradient nobody else sees (a sum hands the same array to both)
    for i in range(graph.output, -1, -1):
        delta = deltas.pop(i, None)
        if delta is None:
            continue
        node = graph.nodes[i]
        if isinstance(node.operator, MatrixOperator):
            visit(i, delta, point.matrix_inputs[i])
        if not any(j in point.noisy for j in node.inputs):
            continue
        parts, new = _pulled(point.maps[i], delta, spare, alone=i in alone)
        for j, part in zip(node.inputs, parts):
            if j not in point.noisy or part is None:
                continue
            if j in deltas:
                deltas[j] = deltas[j] + part
                alone.add(j)
            else:
                deltas[j] = part
                (alone.add if new else alone.discard)(j)


def _pulled(local: LocalMap, delta: Array, spare: "_Spare", *, alone: bool) -> tuple[tuple[Array | None, ...], bool]:
    """Return the map's pull, and whether it is in memory of its own; in that of `delta` where that is allowed and possible."""
    if isinstance(local, MatrixMap):
        back = local.operator.multiply_transposed(local.weights, delta, spare.taken(local.n_inputs * delta.shape[-1], delta.dtype))
        if alone:
            spare.give(delta)
        return (back,), True
    if isinstance(local, Slopes):
        return (local.pull_in_place(delta) if alone else local.pull(delta)), True
    return local.pull(delta), False


class _Spare:
    """Memory of gradients that are done with: fresh pages cost as much as a pass over them."""

    def __init__(self) -> None:
        self.buffers: list[Array] = []

    def give(self, array: Array) -> None:
        """Take an array over."""
        if array.flags.c_contiguous and array.flags.writeable:
            self.buffers = [array.reshape(-1), *self.buffers[:1]]

    def taken(self, size: int, dtype: "np.dtype[np.floating]") -> Array | None:
        """Return flat memory for `size` numbers; None where there is none."""
        for n, buffer in enumerate(self.buffers):
            if buffer.size >= size and buffer.dtype == dtype:
                del self.buffers[n]
                return buffer[:size]
        return None


def push(
    point: Linearization,
    errors: Mapping[NodeIndex, Array],
    bias_errors: Mapping[NodeIndex, Array],
    fresh: Mapping[NodeIndex, Array] | None = None,
) -> Array:
    """Return the first-order output error `J e` `(*out_shape, B)` for errors in the weights of the matrix layers.

    `fresh` are errors `(*shape, B)` that arise at the outputs of matrix layers.
    """
    graph, last = point.graph, point.graph.last_use()
    tangents: dict[NodeIndex, Array] = {}
    for i, node in enumerate(graph.nodes[: graph.output + 1]):
        if i not in point.maps:
            continue
        tangent = None
        if any(j in tangents for j in node.inputs):
            tangent = point.maps[i].push(tuple(tangents.get(j) for j in node.inputs))
        if isinstance(node.operator, MatrixOperator):
            tangent = _with_own_error(node.operator, tangent, point.error_drive(i), errors.get(i), bias_errors.get(i))
        if fresh is not None and i in fresh:
            tangent = fresh[i] if tangent is None else tangent + fresh[i]
        if tangent is not None:
            tangents[i] = tangent
        _forget(tangents, tuple(j for j in node.inputs if j in tangents), last, i, graph.output)
    result = tangents.get(graph.output)
    return np.zeros_like(point.output) if result is None else result


def _with_own_error(
    operator: MatrixOperator, tangent: Array | None, x: Array, error: Array | None, bias_error: Array | None
) -> Array | None:
    if error is not None:
        own = operator.multiply(error, x)
        tangent = own if tangent is None else tangent + own
    if bias_error is not None and tangent is not None:
        tangent += bias_error.reshape(-1, *(1,) * (tangent.ndim - 1)).astype(tangent.dtype)
    return tangent
