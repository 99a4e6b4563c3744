"""From actions to energy: what reading the arrays takes.

For one image and one read time, with v the input voltages of a layer and sums over positions p, rows j, columns i:

    memristors   sum_p sum_ij (sum of the cells G of W_ij) v_pj^2                       (1)
    amplifiers   r_f sum_p sum_i I_pi^2,  I = G v             (2)

Energy is (1) + (2) times the read time, and what each conversion takes; power is energy per inference times the inference rate, by
default one read of the layer with the most reads after the other: rate = 1 / (largest number of positions x input slices x read time).
Layers of a digital engine have no reads: there the rate is that of the engine, where it is the slower one.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from accelsim.lower import ArraySite, Cells
from accelsim.placement import PlacedLayer, Plan, image_chunks
from accelsim.response.weights import Weights
from accelsim.timing.digital import engine_s
from accelsim.values_in_memory import accesses_of
from devices.base.errors import SpecError
from workloads.network import Network
from workloads.operators.base import Array
from workloads.operators.matrix import MatrixOperator
from workloads.samples import Samples
from workloads.walk import Apply, walk


@dataclass(frozen=True, slots=True, kw_only=True)
class LayerPower:
    """Mean power of one layer while the network runs at its rate, watts, by component."""

    memristors_w: float
    amplifiers_w: float
    dacs_w: float = 0.0
    adcs_w: float = 0.0
    memories_w: float = 0.0

    @property
    def total_w(self) -> float:
        """Sum over components."""
        return self.memristors_w + self.amplifiers_w + self.dacs_w + self.adcs_w + self.memories_w


@dataclass(frozen=True, slots=True, kw_only=True)
class Conversions:
    """Conversions of one inference of one layer."""

    dac: int
    adc: int


def conversions_of(layer: PlacedLayer) -> Conversions:
    """Return how often the converters of a layer work in one inference.

    Every row is driven once for each position and input slice. Every column is converted as often, for each row block and weight slice;
    the two columns of a pair are subtracted before.
    """
    path, operator = layer.path, layer.operator
    if path is None:
        return Conversions(dac=0, adc=0)
    reads = operator.n_positions * path.n_reads
    columns = operator.n_columns * len(path.gains) * len(path.blocks)
    return Conversions(dac=reads * operator.n_rows, adc=reads * columns)


def converter_power(plan: Plan, layer: PlacedLayer) -> tuple[float, float]:
    """Return the mean power of a layer's DACs and ADCs, as far as their energy is known."""
    count, rate = conversions_of(layer), None
    powers = []
    for converter, n in ((layer.drive.dac, count.dac), (layer.sense.adc, count.adc)):
        model = getattr(converter, "conversion", None)
        if model is None or converter is None:
            powers.append(0.0)
            continue
        rate = inferences_per_second(plan) if rate is None else rate
        powers.append(n * model.energy_j(converter.n_bits) * rate)
    return powers[0], powers[1]


def memory_power(plan: Plan, layer: PlacedLayer) -> float:
    """Return the mean power of a layer's accesses to memories of known energy."""
    energy_j = sum(access.energy_j for access in accesses_of(layer))
    return energy_j * inferences_per_second(plan) if energy_j > 0.0 else 0.0


def inferences_per_second(plan: Plan) -> float:
    """Return the inference rate; raise SpecError where no time is known."""
    drive, engine = plan.accelerator.drive, _engine_s(plan)
    if drive.rate_hz is not None:
        return drive.rate_hz
    n_reads = _most_reads(plan, engine)
    if n_reads and drive.t_read_s is None:
        raise SpecError(
            'drive.t_read_s: absent, but the power of converters and memories of known energy needs it; set drive.t_read_s="100 ns"'
        )
    return 1.0 / max(engine, n_reads * (drive.t_read_s or 0.0))


def _engine_s(plan: Plan) -> float:
    """Return how long an image keeps the plan's digital engine busy; 0 without one."""
    return engine_s(plan.layers, plan.accelerator.chip)


def _most_reads(plan: Plan, engine: float) -> int:
    """Return the reads of the layer that has most; where there is an engine, of layers on arrays."""
    return max((layer.n_reads for layer in plan.layers if not (engine and layer.is_digital)), default=0)


def reads_per_second_times_read_time(plan: Plan) -> float:
    """Return inference rate times read time: the share of a second in which one position of a layer is being read."""
    drive = plan.accelerator.drive
    if drive.rate_hz is not None:
        if drive.t_read_s is None:
            raise SpecError(
                f"drive.rate_hz is {drive.rate_hz:g} Hz, but power at a given rate needs drive.t_read_s; set it, or leave rate_hz out"
            )
        return drive.rate_hz * drive.t_read_s
    engine = _engine_s(plan)
    n_reads = _most_reads(plan, engine)
    if not engine:
        return 1.0 / n_reads
    return (drive.t_read_s or 0.0) * inferences_per_second(plan) if n_reads else 0.0


def activity(plan: Plan, graph: Network, samples: Samples, views: Sequence[Weights]) -> dict[str, Array]:
    """Return, by layer, `sum_p v_pj^2` averaged over images and views, volts squared, in the shape of the weights."""
    sums = {layer.name: np.zeros(layer.operator.weights.shape) for layer in plan.layers}

    def add(layer: PlacedLayer, x: Array) -> None:
        sums[layer.name] += row_activity(layer, x) * layer.volts_per_unit**2 * x.shape[-1]

    _walk_layers(plan, graph, samples, views, add)
    return {name: total / (len(samples) * len(views)) for name, total in sums.items()}


def row_activity(layer: PlacedLayer, x: Array) -> Array:
    """Return the squared drive of each weight's row, over all reads of all positions and averaged over images, for an input of one."""
    return layer.operator.row_activity(x) if layer.path is None else layer.path.activity(x)


def _walk_layers(plan: Plan, graph: Network, samples: Samples, views: Sequence[Weights], add: Callable[[PlacedLayer, Array], None]) -> None:
    """Show `add` every layer's inputs `(*in_shape, B)`, for each view and chunk of images."""
    layers = plan.layer_of_node()
    for view in views:
        apply_view = view.applied_to(graph)

        def watch(i: int, inputs: tuple[Array, ...], apply_view: Apply = apply_view) -> Array:
            if i in layers:
                add(layers[i], inputs[0])
            return apply_view(i, inputs)

        for chunk in image_chunks(samples):
            walk(graph, chunk, apply=watch)


def squared_currents(
    plan: Plan, graph: Network, samples: Samples, views: Sequence[Weights], cells: Mapping[str, Cells]
) -> dict[str, Array]:
    """Return, by layer, `sum_p I^2` averaged over images and views, amperes squared, `(n_columns,)`: a weight's columns together."""
    sums = {layer.name: np.zeros(layer.operator.n_columns) for layer in plan.layers}

    def add(layer: PlacedLayer, x: Array) -> None:
        seen = x if layer.path is None else layer.path.current_drive(x)
        for g in cells[layer.name]:
            sums[layer.name] += column_squares(layer.operator, g, seen) * layer.volts_per_unit**2

    _walk_layers(plan, graph, samples, views, add)
    return {name: total / (len(samples) * len(views)) for name, total in sums.items()}


def column_squares(operator: MatrixOperator, weights: Array, x: Array) -> Array:
    """Return `sum_p (W x)_op^2` of each column, summed over images."""
    largest = float(np.max(np.abs(weights), initial=0.0)) or 1.0  # conductances are small numbers: keep float32 in range
    y = operator.multiply((weights / largest).astype(np.float32), x).astype(np.float64)
    return largest**2 * (y * y).reshape(len(y), -1).sum(axis=1)


def read_power(
    plan: Plan, graph: Network, samples: Samples, views: Sequence[Weights], *, rows: Mapping[str, Array] | None = None
) -> dict[str, LayerPower]:
    """Return the mean read power of each layer, at the mean conductances and the inputs that `views` produce on `samples`.

    Noisy weights make larger inputs: where noise is not small, the views are a few sampled programmings. `rows` is their
    `activity`, where it is known.
    """
    rows = activity(plan, graph, samples, views) if rows is None else rows
    amplified = any(layer.sense.feedback_ohm is not None for layer in plan.layers)
    cells = {layer.name: layer.site.stored()[0] for layer in plan.layers} if amplified else {}
    currents = squared_currents(plan, graph, samples, views, cells) if amplified else {}
    share = reads_per_second_times_read_time(plan)
    return {
        layer.name: _layer_power(
            layer, rows[layer.name], currents.get(layer.name), share, converter_power(plan, layer), memory_power(plan, layer)
        )
        for layer in plan.layers
    }


def _layer_power(
    layer: PlacedLayer, rows: Array, currents: Array | None, share: float, converters: tuple[float, float], memories_w: float
) -> LayerPower:
    if layer.is_digital:
        return LayerPower(memristors_w=0.0, amplifiers_w=0.0, memories_w=memories_w)
    memristors = sum(_conductance_times(site, rows[site.columns]) for site in layer.site.blocks()) * share
    feedback = layer.sense.feedback_ohm
    amplifiers = 0.0 if feedback is None or currents is None else feedback * float(currents.sum()) * share
    return LayerPower(memristors_w=memristors, amplifiers_w=amplifiers, dacs_w=converters[0], adcs_w=converters[1], memories_w=memories_w)


def _conductance_times(site: ArraySite, rows: Array) -> float:
    mean, _ = site.stored()
    return float(np.sum(sum(mean) * rows))
