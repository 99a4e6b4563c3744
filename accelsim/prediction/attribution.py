"""Who is to blame: the MSE with only one source on, by layer and by cause, and the interaction that is left.

Squares of biases do not add, and errors meet in nonlinearities, so the parts do not sum to the whole: the difference is
reported as `interaction`, and with it each dict sums exactly to the MSE.
"""

import numpy as np

from accelsim.placement import PlacedLayer, Plan
from accelsim.report.records import INTERACTION
from accelsim.response.linear import Response
from accelsim.response.target import Reference, Weights, ideal_weights, mean_weights
from workloads.network import Network
from workloads.operators.base import Array
from workloads.samples import Samples


def attribution_by_layer(
    plan: Plan, graph: Network, samples: Samples, *, wanted: Array, reference: Reference, response: Response, mse: float
) -> dict[str, float]:
    """Return the MSE with only one layer's errors on, every other layer being the reference's; then `interaction`."""
    base = Weights(weights={}, biases={}) if reference == "float" else ideal_weights(plan)
    parts = {}
    for layer in plan.layers:
        shares = response.layers[layer.name]
        parts[layer.name] = _bias2_of(plan, graph, samples, layer, base, wanted) + shares.programming + shares.read_noise
    return _with_interaction(parts, mse)


def attribution_by_cause(
    plan: Plan, graph: Network, samples: Samples, *, wanted: Array, reference: Reference, response: Response, mse: float, quantized: Array
) -> dict[str, float]:
    """Return the MSE with only one cause on: programming, quantization, read noise; then `interaction`."""
    parts = {}
    laws = any(layer.site.cell.programming is not None for layer in plan.layers)
    if laws:
        only = mean_weights(plan, quantized=reference == "quantized")
        bias2 = float(np.mean((only.outputs(graph, samples) - wanted) ** 2)) if _biased(plan) or reference == "quantized" else 0.0
        parts["programming"] = bias2 + sum(layer.programming for layer in response.layers.values())
    if any(layer.site.mapping.levels is not None for layer in plan.layers):
        parts["quantization"] = float(np.mean((quantized - wanted) ** 2))
    if any(layer.site.read_law is not None for layer in plan.layers):
        parts["read_noise"] = sum(layer.read_noise for layer in response.layers.values())
    return _with_interaction(parts, mse)


def _bias2_of(plan: Plan, graph: Network, samples: Samples, layer: PlacedLayer, base: Weights, wanted: Array) -> float:
    mean = mean_weights(plan, only=layer.name)
    reference_weights = base.weights.get(layer.node, layer.operator.weights)
    if not mean.biases and np.allclose(mean.weights[layer.node], reference_weights, rtol=1e-6, atol=0.0):
        return 0.0
    view = Weights(weights={**base.weights, **mean.weights}, biases={**base.biases, **mean.biases})
    return float(np.mean((view.outputs(graph, samples) - wanted) ** 2))


def _biased(plan: Plan) -> bool:
    """Whether mean weights differ from ideal ones at all."""
    return any(getattr(layer.site.cell.programming, "clip", False) for layer in plan.layers)


def _with_interaction(parts: dict[str, float], mse: float) -> dict[str, float]:
    if len(parts) == 1:  # with one source there is nothing to turn off, and nothing to interact with
        parts = dict.fromkeys(parts, mse)
    return {**parts, INTERACTION: mse - sum(parts.values())}
