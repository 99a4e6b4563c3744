"""Walking a graph forwards: values are dropped as soon as nobody reads them any more."""

from collections.abc import Callable, Mapping

from workloads.network import INPUT, Network, NodeIndex, from_lanes, to_lanes
from workloads.operators.base import Array

Apply = Callable[[NodeIndex, tuple[Array, ...]], Array]


def run(network: Network, images: Array, *, apply: Apply | None = None) -> Array:
    """Return the output for engine images `(*input_shape, B)`.

    `apply(i, inputs)` computes node i (by default its operator's forward): the way to run with other weights.
    """
    return walk(network, images, apply=apply)[network.output]


def walk(network: Network, images: Array, *, apply: Apply | None = None, keep: bool = False) -> dict[NodeIndex, Array]:
    """Return the values by node: all of them with `keep`, otherwise only what is alive at the end."""
    last = network.last_use()
    values: dict[NodeIndex, Array] = {INPUT: images}
    for i, node in enumerate(network.nodes):
        inputs = tuple(values[j] for j in node.inputs)
        values[i] = node.operator.forward(*inputs) if apply is None else apply(i, inputs)
        if not keep:
            for j in node.inputs:
                if j not in (INPUT, network.output) and last[j] == i:
                    values.pop(j, None)
        if i == network.output and not keep:
            break
    return values


def rewalk(network: Network, values: Mapping[NodeIndex, Array], changed: NodeIndex, *, apply: Apply) -> Array:
    """Return the output when `apply` computes node `changed` and all that follows from it anew, on kept values of a walk."""
    last = network.last_use()
    new: dict[NodeIndex, Array] = {}
    for i in range(changed, network.output + 1):
        inputs = network.nodes[i].inputs
        if i == changed or any(j in new for j in inputs):
            new[i] = apply(i, tuple(new[j] if j in new else values[j] for j in inputs))
        for j in inputs:
            if j != network.output and last[j] == i:
                new.pop(j, None)
    return new[network.output] if network.output in new else values[network.output]


def evaluate(network: Network, batch: Array) -> Array:
    """Return the outputs `(N, *out_shape)` of a batch `(N, *input_shape)`, in the float precision of the engine."""
    return from_lanes(run(network, to_lanes(batch)))
