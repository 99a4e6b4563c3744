"""A trained network as a frozen graph of layers."""

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np

from workloads.operators.base import Array, Operator, Shape

NodeIndex: TypeAlias = int
INPUT: NodeIndex = -1
"""Stands for the network's input among a node's inputs."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Node:
    """One operator at its place: its name, where its inputs come from, the shape of one sample of its output."""

    name: str
    operator: Operator
    inputs: tuple[NodeIndex, ...]
    shape: Shape


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Network:
    """A trained network: nodes in an order in which inputs come first, and one output.

    Parameters
    ----------
    name, digest
        The file's stem; sha256 over graph and weights, hex.
    input_shape
        Shape of one sample, without the batch.
    nodes
        In topological order; inputs are indices of earlier nodes, or `INPUT`.
    output
        Index of the node whose value is the network's output.
    notes
        What the reader decided and a user may want to know (for example: a declared batch size was read as "any").
    """

    name: str
    digest: str
    input_shape: Shape
    nodes: tuple[Node, ...]
    output: NodeIndex
    notes: tuple[str, ...] = ()

    def __len__(self) -> int:
        return len(self.nodes)

    def index(self, name: str) -> NodeIndex:
        """Return the index of the node with this name; KeyError with the near names otherwise."""
        for i, node in enumerate(self.nodes):
            if node.name == name:
                return i
        raise KeyError(f"no node {name!r} in {self.name}; it has {', '.join(n.name for n in self.nodes[:40])}")

    def consumers(self) -> list[list[NodeIndex]]:
        """Return, for each node, the nodes that read it."""
        readers: list[list[NodeIndex]] = [[] for _ in self.nodes]
        for i, node in enumerate(self.nodes):
            for j in node.inputs:
                if j != INPUT:
                    readers[j].append(i)
        return readers

    def last_use(self) -> list[NodeIndex]:
        """Return, for each node, the index of the last node that reads it (itself when none does)."""
        return [max(r, default=i) for i, r in enumerate(self.consumers())]

    def matrix_layers(self) -> Iterator[tuple[NodeIndex, Node]]:
        """Yield the nodes that hold weights: the ones that are placed on arrays."""
        from workloads.operators.matrix import MatrixOperator  # the operators import nothing of the graph

        for i, node in enumerate(self.nodes):
            if isinstance(node.operator, MatrixOperator):
                yield i, node


def to_lanes(batch: Array, dtype: type = np.float32) -> Array:
    """Return a batch `(N, *shape)` as an engine array `(*shape, N)`."""
    return np.ascontiguousarray(np.moveaxis(batch, 0, -1), dtype=dtype)


def from_lanes(values: Array) -> Array:
    """Return an engine array `(*shape, N)` as a batch `(N, *shape)`."""
    return np.ascontiguousarray(np.moveaxis(values, -1, 0))


def digest_of(*parts: bytes | str | np.ndarray) -> str:
    """Return a sha256 over parts, each with its kind, shape and length, so that no two lists of parts share one."""
    h = hashlib.sha256()
    for part in parts:
        if isinstance(part, np.ndarray):
            body = np.ascontiguousarray(part)
            h.update(f"array {body.dtype.str} {body.shape} ".encode())
            h.update(body.tobytes())
        else:
            raw = part.encode() if isinstance(part, str) else part
            h.update(f"bytes {len(raw)} ".encode())
            h.update(raw)
    return h.hexdigest()
