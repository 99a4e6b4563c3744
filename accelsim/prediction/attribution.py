"""Who is to blame: the MSE with only one source on, by layer and by cause, and the interaction that is left.

Squares of biases do not add, and errors meet in nonlinearities, so the parts do not sum to the whole: the difference is
reported as `interaction`, and with it each dict sums exactly to the MSE.
"""

from collections.abc import Mapping
from dataclasses import replace

import numpy as np

from accelsim.lower import IDEAL_WIRES, SLOTS
from accelsim.placement import PlacedLayer, Plan
from accelsim.prediction.question import Question
from accelsim.report.records import INTERACTION
from accelsim.response.linear import Response
from accelsim.response.target import ideal_weights, input_converters_only, mean_weights, paths_of
from accelsim.response.weights import Weights
from accelsim.stored_weights import WordSite
from workloads.network import from_lanes, to_lanes
from workloads.operators.base import Array
from workloads.walk import rewalk, walk

KEPT_BYTES, MAX_CHUNK = 2**30, 64
"""Values of the reference network kept while layer after layer is changed."""


def attribution_by_layer(question: Question, response: Response, *, mse: float, faults: Mapping[str, float]) -> dict[str, float]:
    """Return the MSE with only one layer's errors on, every other layer being the reference's; then `interaction`.

    `faults` is the variance by faults of each layer, which the response does not have.
    """
    bias2 = _bias2_by_layer(question)
    parts = {}
    for layer in question.plan.layers:
        shares = response.layers[layer.name]
        parts[layer.name] = bias2[layer.name] + float(shares.variance_by_output.mean()) + faults.get(layer.name, 0.0)
    return _with_interaction(parts, mse)


STORED = ("programming", "device_to_device", "drift", "low_frequency_noise", "stuck")
"""Causes that change stored values, by the name of the cell's field."""


def attribution_by_cause(
    question: Question, response: Response, *, mse: float, quantized: Array, faults: Mapping[str, float] | None = None
) -> dict[str, float]:
    """Return the MSE with only one cause on: what changes stored values, quantization, read noise, converters; then `interaction`.

    `faults` are the variances by stuck cells and memories' wrong bits, where they are known beyond first order.
    """
    faults = faults or {}
    plan, wanted, parts = question.plan, question.wanted, {}
    causes = [c for c in STORED if any(SLOTS[c] in layer.site.slots for layer in plan.layers)]
    causes += ["wires"] if any(layer.site.has_wires for layer in plan.layers) else []
    if causes == ["programming"] and not plan.has_memories:
        bias2 = float(np.mean((_programmed_only(question, response) - wanted) ** 2))
        parts["programming"] = bias2 + sum(layer.programming for layer in response.layers.values())
    else:
        parts |= {cause: _stored_alone(question, response, cause, faults=faults) for cause in causes}
    if any(layer.site.is_quantized for layer in plan.layers):
        plain = not (_has_paths(plan) or _has_buffers(plan))
        stored = quantized if plain else ideal_weights(plan).without_paths().outputs(question.graph, question.samples)
        parts["quantization"] = float(np.mean((stored - wanted) ** 2)) if question.reference == "float" else 0.0
    if any(layer.site.read_law is not None for layer in plan.layers):
        parts["read_noise"] = sum(layer.read_noise for layer in response.layers.values())
    if _has_paths(plan):
        parts |= _converters_alone(question, response, quantized)
    if _has_buffers(plan) and question.reference == "float":
        parts["value_rounding"] = _value_rounding(question)
    parts |= {cause: _memory_alone(question, response, cause, faults) for cause in MEMORY if _memory_errs(plan, cause)}
    return _with_interaction(parts, mse)


def _stored_alone(question: Question, response: Response, cause: str, *, faults: Mapping[str, float]) -> float:
    """Return the MSE when of all that happens to stored values only one cause does: its own mean weights and variances."""
    plan = replace(question.plan, layers=tuple(_with_only(layer, cause) for layer in question.plan.layers))
    variance = 0.0
    for layer in plan.layers:
        shares = response.layers[layer.name]
        variance += float(np.sum(layer.site.moments().variance * shares.power))
        if layer.bias_site is not None:
            variance += float(np.sum(layer.bias_site.moments().variance * shares.bias_power))
    if cause == "stuck":
        variance = faults.get("stuck", variance)
    return float(np.mean(_mean_error(question, plan) ** 2)) + variance


def _mean_error(question: Question, plan: Plan) -> Array:
    """Return how far outputs of mean weights are off those of ideal ones, converters being ideal."""
    sliced = any(layer.site.encoding.slice_bits for layer in plan.layers)  # digits have no targets without levels
    if plan.has_memories or _has_paths(plan) or sliced:
        views = mean_weights(plan).without_paths(), ideal_weights(plan).without_paths()
        mean, ideal = (view.outputs(question.graph, question.samples) for view in views)
        return mean - ideal
    view = mean_weights(plan, quantized=question.reference == "quantized")
    return view.outputs(question.graph, question.samples) - question.wanted


def _with_only(layer: PlacedLayer, cause: str) -> PlacedLayer:
    """Return the layer with no other cause of wrong stored values."""
    if isinstance(layer.site, WordSite):
        return replace(layer, site=layer.site.sound())
    changes: dict[str, object] = {other: None for other in STORED if other != cause}
    if cause != "programming":
        changes["write_verify"] = None
    cell = replace(layer.site.cell, **changes)  # type: ignore[arg-type]
    wires = layer.site.wires if cause == "wires" else IDEAL_WIRES
    bias = None if layer.bias_site is None else replace(layer.bias_site, cell=cell)
    return replace(layer, site=replace(layer.site, cell=cell, wires=wires), bias_site=bias)


def _programmed_only(question: Question, response: Response) -> Array:
    """Return the outputs of mean weights without quantization error: of unquantized targets, or measured from quantized ones."""
    plan = question.plan
    if not _has_paths(plan):
        if question.reference == "quantized" or all(not layer.site.is_quantized for layer in plan.layers):
            return response.mean_output
        clips = any(getattr(layer.site.cell.programming, "clip", False) for layer in plan.layers)
        if not clips and not any(layer.site.encoding.slice_bits for layer in plan.layers):
            return question.wanted  # errors have no mean: these are the float weights
    return _mean_error(question, plan) + question.wanted


def _has_paths(plan: Plan) -> bool:
    return any(layer.path is not None for layer in plan.layers)


MEMORY = ("memory_weights", "memory_activations", "memory_partial_sums")
"""Causes that are wrong bits of memories."""


def _has_buffers(plan: Plan) -> bool:
    return any(layer.buffers is not None for layer in plan.layers)


def _memory_errs(plan: Plan, cause: str) -> bool:
    return any(_only_memory(layer, cause).site.is_sparse or _buffers_err(_only_memory(layer, cause)) for layer in plan.layers)


def _buffers_err(layer: PlacedLayer) -> bool:
    return layer.buffers is not None and layer.buffers.errs


def _only_memory(layer: PlacedLayer, cause: str) -> PlacedLayer:
    """Return the layer with ideal cells, of whose memories only one errs."""
    plain = _with_only(layer, "") if not isinstance(layer.site, WordSite) or cause != "memory_weights" else layer
    if plain.buffers is None:
        return plain
    silent = {name: site.sound() for name, site in plain.buffers.sites() if f"memory_{site.part}" != cause}
    return replace(plain, buffers=replace(plain.buffers, **silent))  # type: ignore[arg-type]


def _memory_alone(question: Question, response: Response, cause: str, faults: Mapping[str, float]) -> float:
    """Return the MSE when only one kind of memory errs: the bias of mean values, and the variance."""
    plan = replace(question.plan, layers=tuple(_only_memory(layer, cause) for layer in question.plan.layers))
    ideal = ideal_weights(plan)
    mean, wanted = (replace(view, paths={}).outputs(question.graph, question.samples) for view in (mean_weights(plan), ideal))
    return float(np.mean((mean - wanted) ** 2)) + faults.get(cause, _first_order(plan, response, cause))


def _first_order(plan: Plan, response: Response, cause: str) -> float:
    shares = response.layers
    if cause == "memory_activations":
        return sum(float(part.inputs_by_output.mean()) for part in shares.values())
    if cause == "memory_partial_sums":
        return sum(float(part.sums_by_output.mean()) for part in shares.values())
    words = [layer for layer in plan.layers if layer.is_digital]
    return sum(float(np.sum(layer.site.moments().variance * shares[layer.name].power)) for layer in words)


def _value_rounding(question: Question) -> float:
    """Return the MSE by rounding values to the numbers of their memories, on ideal stored weights."""
    ideal = ideal_weights(question.plan)
    rounded, plain = (view.outputs(question.graph, question.samples) for view in (replace(ideal, paths={}), ideal.without_paths()))
    return float(np.mean((rounded - plain) ** 2))


def _converters_alone(question: Question, response: Response, quantized: Array) -> dict[str, float]:
    """Return the MSE of DACs alone, and of ADCs alone: their error on ideal stored weights, and what noise makes random of it."""
    plan, graph, samples, parts = question.plan, question.graph, question.samples, {}
    against_float = question.reference == "float"
    if any(layer.path is not None and layer.path.dac is not None for layer in plan.layers):
        outputs = input_converters_only(plan).outputs(graph, samples)
        parts["dac"] = float(np.mean((outputs - question.wanted) ** 2)) if against_float else 0.0
    if any(layer.path is not None and layer.path.conduction is not None for layer in plan.layers):
        parts["conduction"] = float(np.mean(_by_conduction(plan, question) ** 2))
    if any(layer.path is not None and layer.path.adcs for layer in plan.layers):
        without = ideal_weights(plan).without_adcs().outputs(graph, samples)
        bias2 = float(np.mean((quantized - without) ** 2)) if against_float else 0.0
        parts["adc"] = bias2 + sum(layer.converters for layer in response.layers.values())
    return parts


def _by_conduction(plan: Plan, question: Question) -> Array:
    """Return how far outputs of ideal stored weights are off when their cells conduct as they do; without converters behind columns."""
    ohmic, paths = ideal_weights(plan).without_adcs(), paths_of(plan)
    conducting = replace(
        ohmic,
        paths={node: replace(path, adcs=()) for node, path in paths.items()},
        slices={layer.node: tuple(s.astype(np.float32) for s in layer.site.ideal_slices()) for layer in plan.layers if layer.node in paths},
    )
    bent, straight = (view.outputs(question.graph, question.samples) for view in (conducting, ohmic))
    return bent - straight


def _bias2_by_layer(question: Question) -> dict[str, float]:
    """Return, by layer, the squared bias when that layer alone has its mean weights; what comes before it is computed once."""
    plan, graph, samples, wanted = question.plan, question.graph, question.samples, question.wanted
    base = Weights(weights={}, biases={}) if question.reference == "float" else ideal_weights(plan)
    alone = {layer.name: question.programmer.mean.only(layer.node) for layer in plan.layers}
    biased = [layer for layer in plan.layers if _differs(alone[layer.name], base, layer)]
    sums = dict.fromkeys(alone, 0.0)
    size = int(np.clip(KEPT_BYTES // (4 * plan.activation_elements()), 1, MAX_CHUNK)) if biased else len(samples)
    for start in range(0, len(samples) if biased else 0, size):
        values = walk(graph, to_lanes(samples.x[start : start + size]), apply=base.applied_to(graph), keep=True)
        for layer in biased:
            output = from_lanes(rewalk(graph, values, layer.node, apply=alone[layer.name].over(base).applied_to(graph)))
            errors = output.reshape(output.shape[0], -1).astype(np.float64) - wanted[start : start + size]
            sums[layer.name] += float(np.sum(errors**2))
    return {name: total / wanted.size for name, total in sums.items()}


def _differs(mean: Weights, base: Weights, layer: PlacedLayer) -> bool:
    reference = base.weights.get(layer.node, layer.operator.weights)
    if mean.buffers or base.paths.get(layer.node) is not mean.paths.get(layer.node):
        return True
    return bool(mean.biases) or not np.allclose(mean.weights[layer.node], reference, rtol=1e-6, atol=0.0)


def _with_interaction(parts: dict[str, float], mse: float) -> dict[str, float]:
    if len(parts) == 1:  # with one source there is nothing to turn off, and nothing to interact with
        parts = dict.fromkeys(parts, mse)
    return {**parts, INTERACTION: mse - sum(parts.values())}
