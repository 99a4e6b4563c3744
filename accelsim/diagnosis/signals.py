"""What happens layer by layer: how the error grows on sampled chips, and how much converters clip.

Of layer l with exact output y, output y~ on a chip with the errors of the layers before it, and y^ with exact inputs,

    error so far = E |y~ - y|^2 / Var y,     its own = E |y^ - y|^2 / Var y                                        (1)

averaged over chips, images and outputs.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from accelsim.placement import PlacedLayer, Plan
from accelsim.report.diagnosis import LayerFacts
from accelsim.report.records import ErrorReport
from accelsim.response.target import Reference, graph_to_output, reference_outputs
from accelsim.sampling.trials import TrialRunner
from devices.converter import SuccessiveApproximation, Uniform
from devices.law import SignalOperator
from workloads.network import Network, NodeIndex, to_lanes
from workloads.operators.base import Array
from workloads.operators.matrix import MatrixOperator
from workloads.samples import Samples
from workloads.walk import run, walk

N_CHIPS = 8
MAX_VALUES = 2**26
"""Values of the exact network that are kept at a time, 256 MiB."""
MOST_IMAGES = 64
FIRST_TRIAL = 7 << 28
"""The first trial number of the chips, apart from those of Monte-Carlo, of sketches and of the self check."""


@dataclass(slots=True, kw_only=True, eq=False)
class _Sums:
    so_far: float = 0.0
    own: float = 0.0


def layer_facts(
    plan: Plan, samples: Samples, report: ErrorReport, *, seed: int, output: str | None, reference: Reference
) -> tuple[LayerFacts, ...]:
    """Return how the error grows from layer to layer up to the output that counts, and what converters clip."""
    graph = graph_to_output(plan.graph, output)
    some = samples[: int(np.clip(MAX_VALUES // max(plan.activation_elements(), 1), 1, min(MOST_IMAGES, len(samples))))]
    exact = walk(graph, to_lanes(some.x), keep=True)
    sums = _grown(plan, graph, some, exact, seed=seed, reference=reference)
    layers = [layer for layer in plan.layers if layer.node in sums]
    return tuple(_facts(layer, graph, exact, sums[layer.node], report) for layer in layers)


def _grown(
    plan: Plan, graph: Network, samples: Samples, exact: Mapping[NodeIndex, Array], *, seed: int, reference: Reference
) -> dict[NodeIndex, _Sums]:
    """Return the sums of (1) over chips, by node."""
    wanted = reference_outputs(plan, graph, samples, reference)
    runner = TrialRunner(plan, graph, samples, reference=wanted, seed=seed, control=False)
    sums: dict[NodeIndex, _Sums] = {}
    for chip in range(N_CHIPS):
        trial = FIRST_TRIAL + chip
        made = runner.applied(runner.programmer.draw(trial), trial, number=0)

        def watch(i: NodeIndex, inputs: tuple[Array, ...], made=made) -> Array:  # type: ignore[no-untyped-def]
            found: Array = made(i, inputs)
            if isinstance(graph.nodes[i].operator, MatrixOperator):
                given = exact[graph.nodes[i].inputs[0]]
                entry = sums.setdefault(i, _Sums())
                entry.so_far += _squared(found - exact[i]) / N_CHIPS
                entry.own += _squared(made(i, (given,)) - exact[i]) / N_CHIPS
            return found

        run(graph, to_lanes(samples.x), apply=watch)
    return sums


def _squared(error: Array) -> float:
    return float(np.mean(np.square(error, dtype=np.float64)))


def _facts(layer: PlacedLayer, graph: Network, exact: Mapping[NodeIndex, Array], sums: _Sums, report: ErrorReport) -> LayerFacts:
    variance = float(np.var(exact[layer.node], dtype=np.float64))
    dac, adc = clipped_shares(layer, exact[graph.nodes[layer.node].inputs[0]])
    return LayerFacts(
        layer=layer.name,
        mse_rel=sums.so_far / variance if variance > 0.0 else 0.0,
        own_rel=sums.own / variance if variance > 0.0 else 0.0,
        share=report.by_layer.get(layer.name, 0.0) / report.mse if report.mse > 0.0 else 0.0,
        dac_clipped=dac,
        adc_clipped=adc,
    )


def clipped_shares(layer: PlacedLayer, x: Array) -> tuple[float | None, float | None]:
    """Return the shares of inputs beyond the range of a layer's DAC, and of its columns' signals beyond those of its ADCs.

    Signals are those of the ideal stored weights on converted inputs `(*in_shape, B)`; None where there is no converter.
    """
    path = layer.path
    if path is None:
        return None, None
    dac = None if path.dac is None else _beyond(path.dac, x)
    if not path.adcs:
        return dac, None
    slices = tuple(part.astype(np.float32) for part in layer.site.ideal_slices())
    n_beyond = n = 0.0
    for s, signal in path.signals(slices, x):
        n_beyond += _beyond(path.adcs[s], signal) * signal.size
        n += signal.size
    return dac, n_beyond / n


def _beyond(converter: SignalOperator, signal: Array) -> float:
    """Return the share of a signal that is more than half a step beyond the last code on either side."""
    ideal = converter.ideal if isinstance(converter, SuccessiveApproximation) else converter
    assert isinstance(ideal, Uniform)  # there are no others
    half = 0.5000001 * ideal.step
    return float(np.mean((signal < ideal.lowest - half) | (signal > ideal.highest + half)))
