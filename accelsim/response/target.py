"""What is predicted: the output that counts, the reference it is compared with, and the weights of each point of view."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Literal

import numpy as np

from accelsim.datapath import DataPath, Slices
from accelsim.placement import Plan
from accelsim.response.weights import Weights
from accelsim.stored_signals import Buffers
from devices.base.errors import NetworkError
from workloads.network import INPUT, Network, NodeIndex
from workloads.operators.base import Array
from workloads.samples import Samples

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


def paths_of(plan: Plan) -> dict[NodeIndex, DataPath]:
    """Return the ways through converters, of the layers that have any."""
    return {layer.node: layer.path for layer in plan.layers if layer.path is not None}


def buffers_of(plan: Plan) -> dict[NodeIndex, Buffers]:
    """Return the memories of values, of the layers that have any."""
    return {layer.node: layer.buffers for layer in plan.layers if layer.buffers is not None}


def ideal_weights(plan: Plan) -> Weights:
    """Return the quantized weights, without error, in ohmic cells."""
    return Weights(
        weights={layer.node: _single(layer.site.ideal_weights()) for layer in plan.layers},
        biases={layer.node: _single(layer.bias_site.ideal_weights()) for layer in plan.layers if layer.bias_site is not None},
        paths={node: path.ohmic() for node, path in paths_of(plan).items()},
        slices={
            layer.node: _singles(layer.site.ideal_slices()[: layer.site.encoding.n_slices])
            for layer in plan.layers
            if layer.path is not None
        },
        buffers={node: buffers.sound() for node, buffers in buffers_of(plan).items()},
    )


def mean_weights(plan: Plan, *, quantized: bool = True) -> Weights:
    """Return the mean weights over programmings, products averaged over them; or, with `quantized` false, those of unquantized targets."""
    biased = [layer for layer in plan.layers if layer.bias_site is not None]
    moments = {layer.node: layer.site.slice_moments() for layer in plan.layers if layer.path is not None}
    return Weights(
        weights={layer.node: _single(layer.site.moments(quantized=quantized).mean) for layer in plan.layers},
        biases={layer.node: _single(layer.bias_site.moments(quantized=quantized).mean) for layer in biased if layer.bias_site},
        paths=paths_of(plan),
        slices={node: _singles(mean) for node, (mean, _) in moments.items()},
        variances={node: _singles(variance) for node, (_, variance) in moments.items()},
        buffers=buffers_of(plan),
    )


def input_converters_only(plan: Plan) -> Weights:
    """Return the float weights behind the plan's DACs."""
    paths = {node: replace(path.ohmic(), adcs=()) for node, path in paths_of(plan).items()}
    return Weights(weights={}, biases={}, paths=paths, slices={node: (path.operator.weights,) for node, path in paths.items()})


def reference_outputs(plan: Plan, graph: Network, samples: Samples, reference: Reference) -> Array:
    """Return the outputs `(N, n_out)` that errors are measured from."""
    view = Weights(weights={}, biases={}) if reference == "float" else ideal_weights(plan)
    return view.outputs(graph, samples)


def _single(values: Array) -> Array:
    return np.ascontiguousarray(values, dtype=np.float32)


def _singles(values: Sequence[Array]) -> Slices:
    return tuple(_single(part) for part in values)
