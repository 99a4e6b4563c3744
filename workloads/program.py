"""A network made ready to run again and again on batches of one size, with other weights each time.

What a walk over the graph looks up and allocates anew is looked up and allocated once: gather tables, memory (values share it as
soon as nobody reads them any more), and which activation follows a matrix layer alone, so that it is done while sums are still in
registers. The bits are those of the walk. Most of a run holds no lock; threads have memory of their own.
"""

import math
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np

from devices.base.jit import jit
from workloads.kernels import FREE, Bounds, largest_in_windows, prepared
from workloads.network import INPUT, Network, NodeIndex
from workloads.operators.base import Array, Operator
from workloads.operators.matrix import Conv, MatrixOperator
from workloads.operators.merge import Add
from workloads.operators.piecewise import Clip, Relu
from workloads.operators.pooling import MaxPool
from workloads.operators.reshape import Reshape

Values = Mapping[NodeIndex, Array]
Step = Callable[["_Room", Values, Values], None]


class _Room(threading.local):
    """A thread's memory: shared blocks for values, packed weights, and where each node's value is."""

    def __init__(self, block_sizes: tuple[int, ...], n_packed: int) -> None:
        self.blocks = [np.empty(size, np.float32) for size in block_sizes]
        self.packed = np.empty(n_packed, np.float32)
        self.values: dict[NodeIndex, Array] = {}
        self.flat: dict[NodeIndex, Array] = {}


@dataclass(slots=True, eq=False)
class _Blocks:
    """Hands out blocks of memory to values, and takes them back."""

    sizes: list[int]
    free: list[int]

    def take(self, size: int) -> int:
        """Return a free block, the smallest that is large enough, or else the largest made larger, or a new one."""
        fitting = [b for b in self.free if self.sizes[b] >= size]
        if fitting or self.free:
            block = min(fitting, key=lambda b: self.sizes[b]) if fitting else max(self.free, key=lambda b: self.sizes[b])
            self.free.remove(block)
            self.sizes[block] = max(self.sizes[block], size)
            return block
        self.sizes.append(size)
        return len(self.sizes) - 1


class Program:
    """Runs `network` on engine images `(*input_shape, n_images)`; weights of matrix layers are given anew in each run."""

    def __init__(self, network: Network, n_images: int) -> None:
        self.network, self.n_images = network, n_images
        nodes = network.nodes[: network.output + 1]
        self.fused = _fused(network)
        self.needed = _needed(network)
        blocks, self.n_packed = _Blocks([], []), 0
        self.home: dict[NodeIndex, int] = {}
        self.steps: list[Step] = []
        alive: dict[int, int] = {}  # block: values that lie there and will still be read
        readers = self._readers()
        for i in range(len(nodes)):
            if i not in self.needed or i in self.fused.values():
                continue
            result = self.fused.get(i, i)
            shares = isinstance(nodes[i].operator, Reshape) and nodes[i].inputs[0] in self.home
            if shares:
                block = self.home[nodes[i].inputs[0]]
            else:
                block = blocks.take(math.prod(nodes[result].shape) * n_images)
            self.home[result] = block
            alive[block] = alive.get(block, 0) + readers.get(result, 0) + (result == network.output)
            self.steps.append(self._step(i, result, shares))
            for j in nodes[i].inputs:
                if j in self.home:
                    alive[self.home[j]] -= 1
                    if not alive[self.home[j]]:
                        blocks.free.append(self.home[j])
        self.rooms = _Room(tuple(blocks.sizes), self.n_packed)

    def _readers(self) -> dict[NodeIndex, int]:
        counts: dict[NodeIndex, int] = {}
        for i, node in enumerate(self.network.nodes[: self.network.output + 1]):
            if i in self.needed and i not in self.fused.values():
                for j in node.inputs:
                    counts[j] = counts.get(j, 0) + 1
        return counts

    def run(self, images: Array, weights: Values, biases: Values) -> Array:
        """Return the output `(*out_shape, n_images)`, which lasts until the next run of this thread."""
        room = self.rooms
        if not room.values:
            self._furnish(room)
        room.values[INPUT], room.flat[INPUT] = images, images.reshape(-1)
        for step in self.steps:
            step(room, weights, biases)
        return room.values[self.network.output]

    def _furnish(self, room: _Room) -> None:
        for i, block in self.home.items():
            shape = (*self.network.nodes[i].shape, self.n_images)
            room.flat[i] = room.blocks[block][: math.prod(shape)]
            room.values[i] = room.flat[i].reshape(shape)

    def _step(self, i: NodeIndex, result: NodeIndex, shares: bool) -> Step:
        """Return what computes node `i`, and the activation after it where that is `result`."""
        node = self.network.nodes[i]
        operator, bounds = node.operator, FREE if result == i else _bounds(self.network.nodes[result].operator)
        if shares:
            return _nothing
        if isinstance(operator, MatrixOperator):
            return self._matrix(i, result, operator, bounds)
        if isinstance(operator, MaxPool):
            return _pool(node.inputs[0], result, operator, self.n_images)
        if isinstance(operator, Relu | Clip):
            return _add((node.inputs[0],), result, _bounds(operator))
        shapes = {self._shape(j) for j in node.inputs}
        if isinstance(operator, Add) and operator.signs == (1.0, 1.0) and len(shapes) == 1:
            return _add(node.inputs, result, bounds)
        return _other(node.inputs, result, operator)

    def _shape(self, i: NodeIndex) -> tuple[int, ...]:
        return self.network.input_shape if i == INPUT else self.network.nodes[i].shape

    def _matrix(self, i: NodeIndex, result: NodeIndex, operator: MatrixOperator, bounds: Bounds) -> Step:
        (source,) = self.network.nodes[i].inputs
        own = np.zeros(operator.n_columns) if operator.bias is None else operator.bias
        bias, low, high = np.ascontiguousarray(own, np.float32), np.float32(bounds[0]), np.float32(bounds[1])
        ready = prepared(operator.geometry, self.n_images) if isinstance(operator, Conv) else None
        if ready is None:

            def by_operator(room: _Room, weights: Values, biases: Values) -> None:
                y, added = room.values[result], biases.get(i, bias)
                np.add(operator.multiply(weights[i], room.values[source]), added.reshape(-1, *(1,) * (y.ndim - 1)), out=y)
                if bounds != FREE:
                    np.clip(y, low, high, out=y)

            return by_operator
        self.n_packed = max(self.n_packed, ready.n_packed)

        def by_kernel(room: _Room, weights: Values, biases: Values) -> None:
            ready(room.flat[source], weights[i].reshape(-1), biases.get(i, bias), room.flat[result], room.packed, (low, high))

        return by_kernel


def _needed(network: Network) -> set[NodeIndex]:
    needed = {network.output}
    for i in range(network.output, -1, -1):
        if i in needed:
            needed.update(j for j in network.nodes[i].inputs if j != INPUT)
    return needed


def _fused(network: Network) -> dict[NodeIndex, NodeIndex]:
    """Return, by matrix layer or sum, the ReLU or clip that is its only reader."""
    needed = _needed(network)
    readers: dict[NodeIndex, list[NodeIndex]] = {}
    for i in sorted(needed):
        for j in network.nodes[i].inputs:
            readers.setdefault(j, []).append(i)
    return {
        i: read[0]
        for i, read in readers.items()
        if i != INPUT and i != network.output and len(read) == 1
        and isinstance(network.nodes[i].operator, MatrixOperator | Add) and isinstance(network.nodes[read[0]].operator, Relu | Clip)
        and network.nodes[i].shape == network.nodes[read[0]].shape
        and not (isinstance(network.nodes[i].operator, Add) and not _plain(network, i))
    }  # fmt: skip


def _plain(network: Network, i: NodeIndex) -> bool:
    """Whether node `i` is a plain sum of two values of one shape."""
    node = network.nodes[i]
    shapes = {network.input_shape if j == INPUT else network.nodes[j].shape for j in node.inputs}
    return isinstance(node.operator, Add) and node.operator.signs == (1.0, 1.0) and len(shapes) == 1


def _bounds(operator: Operator) -> Bounds:
    if isinstance(operator, Clip):
        return (-math.inf if operator.low is None else operator.low, math.inf if operator.high is None else operator.high)
    return (0.0, math.inf)


def _nothing(room: _Room, weights: Values, biases: Values) -> None:
    """The value is its source's, in another shape."""


def _other(inputs: tuple[NodeIndex, ...], result: NodeIndex, operator: Operator) -> Step:
    def step(room: _Room, weights: Values, biases: Values) -> None:
        room.values[result][...] = operator.forward(*(room.values[j] for j in inputs))

    return step


def _add(inputs: tuple[NodeIndex, ...], result: NodeIndex, bounds: Bounds) -> Step:
    low, high = np.float32(bounds[0]), np.float32(bounds[1])

    def step(room: _Room, weights: Values, biases: Values) -> None:
        if len(inputs) == 1:
            _clamp(room.flat[inputs[0]], low, high, room.flat[result])
        else:
            _add_clamped(room.flat[inputs[0]], room.flat[inputs[1]], low, high, room.flat[result])

    return step


def _pool(source: NodeIndex, result: NodeIndex, operator: MaxPool, n_images: int) -> Step:
    w = operator.window
    numbers = (*w.in_size, *w.out_size, *w.kernel, *w.stride, *w.dilation, *w.pads[:2], n_images)

    def step(room: _Room, weights: Values, biases: Values) -> None:
        largest_in_windows(room.flat[source], *numbers, room.flat[result])

    return step


@jit()
def _clamp(x: Array, low: np.float32, high: np.float32, y: Array) -> None:
    for i in range(x.size):
        value = x[i]
        value = low if value < low else value
        y[i] = high if value > high else value


@jit()
def _add_clamped(a: Array, b: Array, low: np.float32, high: np.float32, y: Array) -> None:
    for i in range(a.size):
        value = a[i] + b[i]
        value = low if value < low else value
        y[i] = high if value > high else value
