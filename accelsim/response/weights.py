"""Weights by node: one point of view on the same cells - as trained, as asked for, on average, or as one programming has them."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import TypeVar

import numpy as np

from accelsim.datapath import DataPath, Fresh, Keep, Slices, block_sums
from accelsim.placement import check_magnitude, image_chunks
from accelsim.stored_signals import Buffers, Reader, read_mean
from workloads.network import Network, NodeIndex, from_lanes
from workloads.operators.base import Array
from workloads.operators.matrix import MatrixOperator
from workloads.samples import Samples
from workloads.walk import Apply, run

T = TypeVar("T")


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class StoredVariances:
    """Variances of what values in memories read as: of inputs `(*in_shape, B)`, and of the sums of blocks `(*shape, B)`."""

    inputs: Array | None = None
    sums: Array | None = None


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Weights:
    """Weights, and stored biases, by node; float32.

    Parameters
    ----------
    weights, biases
        A node that is not there has those of its operator.
    paths
        The ways of values through converters, of nodes that have any; without an entry a product is exact.
    slices
        For the same nodes: the weights by slice.
    variances
        For the same nodes: variances by slice, where products are to be averages over programmings.
    buffers
        The memories of values, of nodes that have any; without a reader values are what is read on average.
    """

    weights: Mapping[NodeIndex, Array]
    biases: Mapping[NodeIndex, Array]
    paths: Mapping[NodeIndex, DataPath] = field(default_factory=dict)
    slices: Mapping[NodeIndex, Slices] = field(default_factory=dict)
    variances: Mapping[NodeIndex, Slices] = field(default_factory=dict)
    buffers: Mapping[NodeIndex, Buffers] = field(default_factory=dict)

    def product(
        self,
        i: NodeIndex,
        operator: MatrixOperator,
        x: Array,
        *,
        read: Slices | None = None,
        fresh: Fresh | None = None,
        stored: Reader = read_mean,
    ) -> Array:
        """Return what layer i makes of its input, converters, memories and bias included; `read`, `fresh` as `DataPath.run` takes them."""
        path, keep = self.paths.get(i), self.keep(i, stored)
        x = self.arriving(i, x, stored)
        if path is None:
            weights, buffers = self.weights.get(i, operator.weights), self.buffers.get(i)
            blocks = () if buffers is None else buffers.blocks
            return self.with_bias(i, operator, block_sums(operator, blocks, weights, x, keep))
        if i in self.variances:
            y, _ = path.moments(self.slices[i], self.variances[i], x, keep=keep)
        else:
            y = path.run(self.slices[i], x, read=read, fresh=fresh, keep=keep)
        return self.with_bias(i, operator, y)

    def averaged(self, i: NodeIndex, operator: MatrixOperator, x: Array) -> tuple[Array, Array | None]:
        """Return `product`, and where it is an average over programmings the variance of what converters leave (`DataPath.moments`)."""
        if i not in self.variances:
            return self.product(i, operator, x), None
        y, rest = self.paths[i].moments(self.slices[i], self.variances[i], self.arriving(i, x), keep=self.keep(i))
        return self.with_bias(i, operator, y), rest

    def arriving(self, i: NodeIndex, x: Array, stored: Reader = read_mean) -> Array:
        """Return the input that layer i reads from where it is stored."""
        buffers = self.buffers.get(i)
        return x if buffers is None else buffers.read_inputs(x, stored)

    def keep(self, i: NodeIndex, stored: Reader = read_mean) -> Keep | None:
        """Return what becomes of the sums of layer i's row blocks; None where they are not stored."""
        buffers = self.buffers.get(i)
        if buffers is None or buffers.sums is None:
            return None
        site = buffers.sums
        return lambda number, sums: stored(site, number, sums)

    def stored_variances(self, i: NodeIndex, operator: MatrixOperator, x: Array) -> "StoredVariances | None":
        """Return the variances of what layer i's values read as, where bits err: of its inputs, and of its blocks' sums together."""
        buffers = self.buffers.get(i)
        if buffers is None or not buffers.errs:
            return None
        inputs = buffers.inputs.variance(x) if buffers.inputs is not None and buffers.inputs.errs else None
        if buffers.sums is None or not buffers.sums.errs:
            return StoredVariances(inputs=inputs)
        site, found = buffers.sums, list[Array]()

        def keep(number: int, sums: Array) -> Array:
            found.append(site.variance(sums))
            return sums

        self.blockwise(i, operator, self.arriving(i, x), keep)
        return StoredVariances(inputs=inputs, sums=np.sum(found, axis=0))

    def blockwise(self, i: NodeIndex, operator: MatrixOperator, arriving: Array, keep: Keep) -> None:
        """Show `keep` the sums of layer i's row blocks before they are stored, for inputs as they are read."""
        if i not in self.paths:
            block_sums(operator, self.buffers[i].blocks, self.weights.get(i, operator.weights), arriving, keep)
        elif i in self.variances:
            self.paths[i].moments(self.slices[i], self.variances[i], arriving, keep=keep)
        else:
            self.paths[i].run(self.slices[i], arriving, keep=keep)

    def with_bias(self, i: NodeIndex, operator: MatrixOperator, y: Array) -> Array:
        """Return `y` with layer i's bias added in place."""
        bias = self.biases.get(i)
        if bias is None:
            return operator.with_bias(y)
        y += bias.reshape(-1, *(1,) * (y.ndim - 1)).astype(y.dtype)
        return y

    def driven(self, i: NodeIndex, x: Array) -> Array:
        """Return the input that layer i's rows are driven with."""
        path, x = self.paths.get(i), self.arriving(i, x)
        return x if path is None else path.driven(x)

    def error_drive(self, i: NodeIndex, driven: Array) -> Array:
        """Return what errors of layer i's weights meet, for inputs that its rows are driven with."""
        path = self.paths.get(i)
        return driven if path is None else path.error_drive(driven)

    def outputs(self, graph: Network, samples: Samples) -> Array:
        """Return the outputs `(N, n_out)`, float64, of the network with these weights."""
        with np.errstate(over="ignore", invalid="ignore"):  # told below
            parts = [from_lanes(run(graph, chunk, apply=self.applied_to(graph))) for chunk in image_chunks(samples)]
        outputs = np.concatenate(parts).reshape(len(samples), -1).astype(np.float64)
        check_magnitude(outputs, what=f"outputs of the network {graph.name}")
        return outputs

    def only(self, node: NodeIndex) -> "Weights":
        """Return what one node has."""
        return Weights(
            weights=_only(self.weights, node),
            biases=_only(self.biases, node),
            paths=_only(self.paths, node),
            slices=_only(self.slices, node),
            variances=_only(self.variances, node),
            buffers=_only(self.buffers, node),
        )

    def over(self, base: "Weights") -> "Weights":
        """Return these weights, and those of `base` for the nodes that have none here."""
        return Weights(
            weights={**base.weights, **self.weights},
            biases={**base.biases, **self.biases},
            paths={**base.paths, **self.paths},
            slices={**base.slices, **self.slices},
            variances={**base.variances, **self.variances},
            buffers={**base.buffers, **self.buffers},
        )

    def without_paths(self) -> "Weights":
        """Return the same weights with ideal converters, and values that are not stored."""
        return Weights(weights=self.weights, biases=self.biases)

    def without_adcs(self) -> "Weights":
        """Return the same weights with ideal converters behind the columns."""
        return replace(self, paths={node: replace(path, adcs=()) for node, path in self.paths.items()})

    def shifted(self, errors: "Weights", sign: float = 1.0) -> "Weights":
        """Return the weights with `sign` times the errors; of one programming, no average."""
        return Weights(
            weights={n: w + sign * errors.weights[n] for n, w in self.weights.items()},
            biases={n: b + sign * errors.biases[n] for n, b in self.biases.items()},
            paths=self.paths,
            slices={n: tuple(w + sign * e for w, e in zip(s, errors.slices[n])) for n, s in self.slices.items()},
            buffers=self.buffers,
        )

    def applied_to(self, graph: Network) -> Apply:
        """Return the `apply` that walks `graph` with these weights."""

        def apply(i: NodeIndex, inputs: tuple[Array, ...]) -> Array:
            operator = graph.nodes[i].operator
            return self.product(i, operator, inputs[0]) if isinstance(operator, MatrixOperator) else operator.forward(*inputs)

        return apply


def _only(by_node: Mapping[NodeIndex, T], node: NodeIndex) -> dict[NodeIndex, T]:
    return {n: value for n, value in by_node.items() if n == node}
