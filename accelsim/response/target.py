"""What is predicted: the output that counts, the reference it is compared with, and the weights of each point of view."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np

from accelsim.placement import Plan, check_magnitude, image_chunks
from accelsim.response.passes import matrix_forward
from devices.base.errors import NetworkError
from workloads.network import INPUT, Network, NodeIndex, from_lanes
from workloads.operators.base import Array
from workloads.operators.matrix import MatrixOperator
from workloads.samples import Samples
from workloads.walk import run

Reference = Literal["float", "quantized"]
TRAILING = ("Softmax", "LogSoftmax", "Sigmoid", "ArgMax")
"""Last operators that are read past: the error is that of their input."""


def graph_to_output(graph: Network, output: str | None) -> Network:
    """Return the graph whose output is the one that counts: the named node, or the input of a trailing Softmax and its kin."""
    if output is not None:
        try:
            return replace(graph, output=graph.index(output))
        except KeyError as error:
            raise NetworkError(f"output {output!r}: {error.args[0]}") from None
    last = graph.nodes[graph.output]
    if last.operator.kind in TRAILING and last.inputs[0] != INPUT:
        return replace(graph, output=last.inputs[0])
    return graph


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Weights:
    """Weights, and stored biases, by node: one point of view on the same cells. float32."""

    weights: Mapping[NodeIndex, Array]
    biases: Mapping[NodeIndex, Array]

    def outputs(self, graph: Network, samples: Samples) -> Array:
        """Return the outputs `(N, n_out)`, float64, of the network with these weights."""
        parts = [from_lanes(run(graph, chunk, apply=self.applied_to(graph))) for chunk in image_chunks(samples)]
        outputs = np.concatenate(parts).reshape(len(samples), -1).astype(np.float64)
        check_magnitude(outputs, what="outputs")
        return outputs

    def only(self, node: NodeIndex) -> "Weights":
        """Return what one node has."""
        return Weights(
            weights={n: w for n, w in self.weights.items() if n == node}, biases={n: b for n, b in self.biases.items() if n == node}
        )

    def applied_to(self, graph: Network):  # type: ignore[no-untyped-def]
        """Return the `apply` that walks `graph` with these weights."""

        def apply(i: NodeIndex, inputs: tuple[Array, ...]) -> Array:
            operator = graph.nodes[i].operator
            if isinstance(operator, MatrixOperator):
                return matrix_forward(operator, self.weights.get(i, operator.weights), inputs[0], self.biases.get(i))
            return operator.forward(*inputs)

        return apply


def ideal_weights(plan: Plan) -> Weights:
    """Return the quantized weights, without error."""
    return Weights(
        weights={layer.node: _single(layer.site.ideal_weights()) for layer in plan.layers},
        biases={layer.node: _single(layer.bias_site.ideal_weights()) for layer in plan.layers if layer.bias_site is not None},
    )


def mean_weights(plan: Plan, *, quantized: bool = True) -> Weights:
    """Return the mean weights over programmings; or, with `quantized` false, those of unquantized targets."""
    biased = [layer for layer in plan.layers if layer.bias_site is not None]
    return Weights(
        weights={layer.node: _single(layer.site.moments(quantized=quantized).mean) for layer in plan.layers},
        biases={layer.node: _single(layer.bias_site.moments(quantized=quantized).mean) for layer in biased if layer.bias_site},
    )


def reference_outputs(plan: Plan, graph: Network, samples: Samples, reference: Reference) -> Array:
    """Return the outputs `(N, n_out)` that errors are measured from."""
    view = Weights(weights={}, biases={}) if reference == "float" else ideal_weights(plan)
    return view.outputs(graph, samples)


def _single(values: Array) -> Array:
    return np.ascontiguousarray(values, dtype=np.float32)
