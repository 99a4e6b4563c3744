"""Placing a network on an accelerator: calibration, scales, and the lowered graph that predictors and samplers walk."""

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from difflib import get_close_matches
from functools import partial

import numpy as np

from accelsim.accelerator import Accelerator, Cell, Drive, Sense
from accelsim.calibration import calibrated_paths, refuse_rescaling, with_bits
from accelsim.conducting import ReadConduction
from accelsim.datapath import DataPath
from accelsim.design import Design
from accelsim.lower import IDEAL_WIRES, ArraySite
from accelsim.memory_spec import StoredWords
from accelsim.stored_signals import Buffers
from accelsim.stored_weights import WordSite
from accelsim.values_in_memory import accesses_of, calibrated_buffers
from devices.base.errors import SamplesError, SpecError
from devices.base.toml_codec import joined
from devices.ecc import Secded
from devices.law import ArrayMap
from workloads.network import INPUT, Network, Node, digest_of, to_lanes
from workloads.operators.base import Array
from workloads.operators.matrix import MatrixOperator
from workloads.operators.piecewise import Relu
from workloads.operators.pooling import MaxPool
from workloads.samples import Samples
from workloads.walk import walk

CHUNK_IMAGES = 64
UNCALIBRATED = ""
"""Stands for the digest of the calibration samples where there were none."""
MAX_MAGNITUDE = 1e15
"""Above it, sums of squares in float32 overflow."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class PlacedLayer:
    """One matrix layer on its arrays.

    Parameters
    ----------
    node
        Its index in the plan's graph.
    site, bias_site
        The cells of the weights, and of the bias where the mapping stores it in devices.
    input_max
        Largest magnitude of the layer's input over the calibration samples; it is driven with `drive.v_read_v`.
    path
        The way of its values through converters; None where there are none.
    n_arrays
        Arrays of the given size that the layer takes (row blocks times column blocks); 0 where its weights are words in a memory.
    n_inputs
        Values of its input.
    buffers
        The memories that its inputs, and the sums of its row blocks, are in; None where there are none.
    """

    node: int
    name: str
    site: ArraySite
    bias_site: ArraySite | None
    drive: Drive
    sense: Sense
    input_max: float
    n_arrays: int
    n_inputs: int
    path: DataPath | None = None
    buffers: Buffers | None = None

    @property
    def is_digital(self) -> bool:
        """Whether its weights are words in a memory, not conductances."""
        return isinstance(self.site, WordSite)

    @property
    def n_input_slices(self) -> int:
        """Reads of one position; without calibration those of the converter's bits."""
        if self.path is not None:
            return self.path.n_reads
        bits = getattr(self.drive.dac, "n_bits", 1)
        return 1 if self.drive.slice_bits is None else math.ceil(bits / self.drive.slice_bits)

    @property
    def n_row_blocks(self) -> int:
        """Arrays that a column is spread over."""
        size = self.site.mapping.array
        return 1 if size is None or size.n_rows is None else math.ceil(self.operator.n_rows / size.n_rows)

    @property
    def n_reads(self) -> int:
        """Reads of one inference: positions times input slices."""
        return self.operator.n_positions * self.n_input_slices

    @property
    def n_products(self) -> int:
        """Multiply-adds of one image on this hardware: each slice of a weight meets each slice of an input."""
        return self.operator.n_macs * (1 if self.path is None or not self.path.adcs else self.path.n_reads * len(self.path.gains))

    def with_adc_bits(self, n_bits: int) -> "PlacedLayer":
        """Return the layer with as many bits behind its columns; raise SpecError where nothing converts them."""
        if self.path is None or not self.path.adcs or self.sense.adc is None:
            raise SpecError(f"layer {self.name!r} has no sense.adc whose bits could be changed")
        path, adc = with_bits(self.path, self.sense.adc, self.name, n_bits)
        return replace(self, path=path, sense=replace(self.sense, adc=adc))

    @property
    def operator(self) -> MatrixOperator:
        """The layer's operator, with its float weights."""
        return self.site.operator

    @property
    def volts_per_unit(self) -> float:
        """Read voltage for an input of one; 0 where calibration saw only zeros."""
        return self.drive.v_read_v / self.input_max if self.input_max > 0.0 else 0.0


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Plan:
    """A network placed on an accelerator: references and small records; conductances are made when asked.

    Parameters
    ----------
    network
        The network as it was loaded.
    graph
        The graph that is walked: the same function, with ReLU behind the max-pool it feeds.
    layers
        The matrix layers in order of the graph.
    """

    network: Network
    accelerator: Accelerator
    graph: Network
    layers: tuple[PlacedLayer, ...]
    calibration_digest: str
    design: Design | None = None

    def with_design(self, design: Design) -> "Plan":
        """Return the same placement with the design's conductances."""
        names = [layer.name for layer in self.layers]
        for name in design.g_used_siemens:
            if name not in names:
                near = get_close_matches(name, names, 1)
                raise SpecError(
                    f"design names a layer {name!r} that the network does not have" + (f"; nearest: {near[0]!r}" if near else "")
                )
        for layer in self.layers:
            wanted = design.slice_bits.get(layer.name, layer.site.encoding.slice_bits)
            if tuple(wanted) != layer.site.encoding.slice_bits:
                raise SpecError(
                    f"design stores layer {layer.name!r} in slices of {list(wanted)} bits, the plan in "
                    f"{list(layer.site.encoding.slice_bits)}: ranges of converters go with the slices; "
                    "place(network, spec, calibration=..., design=design)"
                )
        layers = self.rescaled(design.scale).layers
        moved = tuple(_with_g_used(layer, np.asarray(design.g_used_siemens.get(layer.name, layer.site.g_used_siemens))) for layer in layers)
        if unknown := design.adc_bits.keys() - set(names):
            raise SpecError(f"design gives converter bits to a layer {min(unknown)!r} that the network does not have")
        moved = tuple(layer.with_adc_bits(design.adc_bits[layer.name]) if layer.name in design.adc_bits else layer for layer in moved)
        for part, rates in design.memory_p.items():
            if unknown := rates.keys() - {layer.name for layer in moved if part in _parts(layer)}:
                raise SpecError(f"design gives an error rate to memory.{part} of layer {min(unknown)!r}, which has none; check the spec")
        moved = tuple(with_specs(layer, partial(_redesigned, design, layer.name)) for layer in moved)
        return replace(self, layers=moved, design=design)

    def rescaled(self, scale: str) -> "Plan":
        """Return the same placement with weights scaled per `network`, `layer` or `column`."""
        top = max(_largest_by_column(layer).max() for layer in self.layers)
        moved = [layer for layer in self.layers if not np.array_equal(_with_scale(layer, scale, float(top)).site.w_max, layer.site.w_max)]
        refuse_rescaling(layer.path for layer in moved)
        return replace(self, layers=tuple(_with_scale(layer, scale, float(top)) for layer in self.layers))

    def layer_of_node(self) -> dict[int, PlacedLayer]:
        """Return the placed layers by node index."""
        return {layer.node: layer for layer in self.layers}

    @property
    def n_out(self) -> int:
        """Number of outputs of one image."""
        return math.prod(self.graph.nodes[self.graph.output].shape)

    @property
    def digest(self) -> str:
        """sha256 over the network, the complete spec, the calibration and the conductances in use."""
        used = [values for layer in self.layers for values in (layer.site.g_used_siemens, layer.site.w_max)]
        if self.design is not None and self.design.adc_bits:
            used.append(np.array(list(self.design.adc_bits.values())))
        used += [access.memory.error_rates for layer in self.layers for access in accesses_of(layer)]
        return digest_of(self.network.digest, self.accelerator.digest, self.calibration_digest, *used)

    @property
    def has_faults(self) -> bool:
        """Whether few values are replaced at random: cells that are stuck, bits of memories that are wrong."""
        return any(layer.site.is_sparse or (layer.buffers is not None and layer.buffers.errs) for layer in self.layers)

    @property
    def has_memories(self) -> bool:
        """Whether anything is stored as words."""
        return any(layer.is_digital or layer.buffers is not None for layer in self.layers)

    def activation_elements(self) -> int:
        """Number of elements of all values of one image: what a backward pass must keep."""
        return sum(math.prod(node.shape) for node in self.graph.nodes) + math.prod(self.graph.input_shape)


def place(network: Network, accelerator: Accelerator, *, calibration: Samples | None, design: Design | None = None) -> Plan:
    """Place every matrix layer of `network` on arrays of `accelerator`.

    `calibration` gives each layer's largest input, which is driven with the read voltage; with None the plan knows no voltages and
    converter ranges, which is enough for `simulate`. Raises SpecError for layer names of the spec that the network does not have,
    SamplesError when calibration does not fit the network.
    """
    return calibrated(network, calibration).place(accelerator, design=design)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Calibrated:
    """A network with what placing it takes and no accelerator changes: the graph, and each layer's largest input by node."""

    network: Network
    graph: Network
    calibration: Samples | None
    largest: dict[int, float]

    def place(self, accelerator: Accelerator, *, design: Design | None = None) -> Plan:
        """Return what `place` does, without walking the calibration samples for the largest inputs again."""
        if design is not None and design.slice_bits:
            accelerator = sliced_as(accelerator, design)
        _check_layer_names(self.graph, accelerator)
        layers = tuple(_place_layers(self.graph, accelerator, self.largest, self.calibration))
        digest = UNCALIBRATED if self.calibration is None else self.calibration.digest
        plan = Plan(network=self.network, accelerator=accelerator, graph=self.graph, layers=layers, calibration_digest=digest)
        return plan if design is None else plan.with_design(design)


def calibrated(network: Network, calibration: Samples | None) -> Calibrated:
    """Return a network ready to be placed, on one accelerator or on many; see `place`."""
    if calibration is not None:
        check_samples(network, calibration)
    graph = reorder_relu_behind_pool(network)
    if not list(graph.matrix_layers()):
        raise SpecError(f"{network.name} has no layer with weights; there is nothing to place on arrays")
    largest = {i: 0.0 for i, _ in graph.matrix_layers()} if calibration is None else _largest_inputs(graph, calibration)
    return Calibrated(network=network, graph=graph, calibration=calibration, largest=largest)


def sliced_as(accelerator: Accelerator, design: Design) -> Accelerator:
    """Return the accelerator whose layers are in the design's slices."""
    found = accelerator
    for name, bits in design.slice_bits.items():
        path = joined("layers", name)
        found = found.with_set(f"{path}.mapping.levels=none", f"{path}.mapping.slice_bits={list(bits)}")
    return found


def check_question(plan: Plan, samples: Samples) -> None:
    """Raise SamplesError unless the plan is calibrated and the samples fit its network."""
    if plan.calibration_digest == UNCALIBRATED:
        raise SamplesError("the plan was placed without calibration, which is enough for simulate() only; place(..., calibration=samples)")
    check_samples(plan.network, samples)


def check_samples(network: Network, samples: Samples) -> None:
    """Raise SamplesError unless the samples fit the network's input."""
    if tuple(samples.x.shape[1:]) != tuple(network.input_shape):
        raise SamplesError(f"x has shape {samples.x.shape}, but {network.name} takes (N, {', '.join(map(str, network.input_shape))})")


def check_magnitude(values: Array | float, *, what: str) -> None:
    """Raise SamplesError for values whose squares would overflow, or that have already."""
    largest = float(np.max(np.abs(values)))
    if not largest <= MAX_MAGNITUDE:
        raise SamplesError(
            f"{what} reach {largest:.3g}; need at most {MAX_MAGNITUDE:g}; normalize the samples as in training, "
            "and look for weights that are too large"
        )


def _check_layer_names(graph: Network, accelerator: Accelerator) -> None:
    names = [node.name for _, node in graph.matrix_layers()]
    for name in accelerator.layer_names:
        if name not in names:
            near = get_close_matches(name, names, 1)
            hint = f"nearest: {near[0]!r}" if near else f"it has {', '.join(names[:12])}"
            raise SpecError(f'layers."{name}": the network has no such layer; {hint} (`accelsim inspect` lists them)')


def _largest_inputs(graph: Network, calibration: Samples) -> dict[int, float]:
    largest: dict[int, float] = {i: 0.0 for i, _ in graph.matrix_layers()}

    def watch(i: int, inputs: tuple[Array, ...]) -> Array:
        if i in largest:
            largest[i] = float(np.maximum(largest[i], np.max(np.abs(inputs[0]))))  # NaN stays
        return graph.nodes[i].operator.forward(*inputs)

    with np.errstate(over="ignore", invalid="ignore"):  # told below, by layer
        for chunk in image_chunks(calibration):
            walk(graph, chunk, apply=watch)
    for i, node in graph.matrix_layers():
        weights = node.operator.weights  # type: ignore[attr-defined]
        check_magnitude(max(float(weights.max()), -float(weights.min())), what=f"weights of layer {node.name!r} of {graph.name}")
        check_magnitude(largest[i], what=f"inputs of layer {node.name!r} of {graph.name}, on the calibration samples,")
    return largest


def image_chunks(samples: Samples, size: int = CHUNK_IMAGES) -> Iterable[Array]:
    """Yield engine arrays `(*input_shape, up to size)`."""
    for start in range(0, len(samples), size):
        yield to_lanes(samples.x[start : start + size])


def _place_layers(
    graph: Network, accelerator: Accelerator, largest: dict[int, float], calibration: Samples | None
) -> Iterable[PlacedLayer]:
    network_max = max((_network_max(n, accelerator) for _, n in graph.matrix_layers()), default=0.0)
    locals_ = {i: accelerator.for_layer(node.name) for i, node in graph.matrix_layers()}
    sites = {i: _site(node, locals_[i], network_max) for i, node in graph.matrix_layers()}
    paths: dict[int, DataPath] = {}
    walk_inputs = None if calibration is None else partial(_walk_inputs, graph, calibration)
    if walk_inputs is not None:
        cells = {i: site for i, site in sites.items() if not isinstance(site, WordSite)}
        paths = calibrated_paths(cells, locals_, walk_inputs)
    buffers = calibrated_buffers(sites, locals_, paths, walk_inputs)
    for i, node in graph.matrix_layers():
        assert isinstance(node.operator, MatrixOperator)
        local, site = locals_[i], sites[i]
        bias_site = None
        if local.mapping.bias == "device" and node.operator.bias is not None and not isinstance(site, WordSite):
            bias_site = replace(site, part="bias")
        yield PlacedLayer(
            node=i,
            name=node.name,
            site=site,
            bias_site=bias_site,
            drive=local.drive,
            sense=local.sense,
            input_max=paths[i].x_span if i in paths else largest[i],
            path=paths.get(i),
            n_arrays=0 if isinstance(site, WordSite) else _n_arrays(node.operator, local, len(site.encoding.parts)),
            n_inputs=math.prod(graph.input_shape if node.inputs[0] == INPUT else graph.nodes[node.inputs[0]].shape),
            buffers=buffers.get(i),
        )


def _walk_inputs(graph: Network, calibration: Samples, watch: Callable[[int, Array], None]) -> None:
    """Show every layer's inputs `(*in_shape, B)`, those of the float network."""

    def seen(i: int, inputs: tuple[Array, ...]) -> Array:
        watch(i, inputs[0])
        return graph.nodes[i].operator.forward(*inputs)

    for chunk in image_chunks(calibration):
        walk(graph, chunk, apply=seen)


def _network_max(node: Node, accelerator: Accelerator) -> float:
    assert isinstance(node.operator, MatrixOperator)
    return float(_largest_stored(node.operator, with_bias=accelerator.mapping.bias == "device").max())


def _largest_stored(operator: MatrixOperator, *, with_bias: bool) -> Array:
    """Return the largest magnitude that each column stores, `(n_columns,)`, float64."""
    largest = np.abs(operator.weights.reshape(operator.n_columns, -1)).max(axis=1).astype(np.float64)
    return np.maximum(largest, np.abs(operator.bias)) if with_bias and operator.bias is not None else largest


def _w_max(by_column: Array, scale: str, network_max: float) -> Array:
    if scale == "column":
        return by_column
    return np.full_like(by_column, network_max if scale == "network" else by_column.max())


def _site(node: Node, local: Accelerator, network_max: float) -> ArraySite:
    operator = node.operator
    assert isinstance(operator, MatrixOperator)
    by_column = _largest_stored(operator, with_bias=local.mapping.bias == "device")
    size = local.mapping.array
    wires: ArrayMap = IDEAL_WIRES
    if size is not None and (size.word_ohm > 0.0 or size.bit_ohm > 0.0):
        from devices.wires import ResistiveWires

        if getattr(local.cell.programming, "clip", True) is False:
            raise SpecError(
                f"mapping.array.word_ohm, bit_ohm: {size.word_ohm:g}, {size.bit_ohm:g} ohm: wires need conductances of at least 0, and "
                "cell.programming.clip = false lets them fall below; set it to true"
            )
        wires = ResistiveWires(word_ohm=size.word_ohm, bit_ohm=size.bit_ohm, driven=size.driven)
    used = local.cell.g_max_siemens if local.mapping.g_used_siemens is None else local.mapping.g_used_siemens
    w_max, g_used = _w_max(by_column, local.mapping.scale, network_max), np.full_like(by_column, used)
    spec = None if local.memory is None else local.memory.weights
    if spec is not None:
        cell = Cell(g_min_siemens=local.cell.g_min_siemens, g_max_siemens=local.cell.g_max_siemens)
        mapping = replace(local.mapping, levels=None, slice_bits=None, precompensate=False, drift_compensation=False)
        return WordSite(
            layer=node.name, operator=operator, cell=cell, mapping=mapping, w_max=w_max, g_used_siemens=g_used, spec=spec,
            memory=spec.memory(),
        )  # fmt: skip
    return ArraySite(
        layer=node.name, operator=operator, cell=local.cell, mapping=local.mapping, w_max=w_max, g_used_siemens=g_used, wires=wires,
        conduction=_read_conduction(local),
    )  # fmt: skip


def _read_conduction(local: Accelerator) -> ReadConduction | None:
    """Return the law of conduction at the read voltage; raise SpecError where it does not reach so far."""
    law, v_read = local.cell.conduction, local.drive.v_read_v
    if law is None:
        return None
    limit = getattr(law, "limit_v", None)
    if limit is not None and v_read > limit:
        raise SpecError(
            f"drive.v_read_v: {v_read:g} V: cell.conduction ({law.kind}) holds up to limit_v = {limit:g} V; "
            "read at a lower voltage, or give a law that reaches further"
        )
    return ReadConduction(law=law, v_read_v=v_read)


def with_specs(layer: PlacedLayer, change: Callable[[str, StoredWords], StoredWords]) -> PlacedLayer:
    """Return the layer with other memories, `change(part, spec)` of each that it has."""
    site, buffers = layer.site, layer.buffers
    if isinstance(site, WordSite):
        site = site.with_spec(change("weights", site.spec))  # type: ignore[arg-type]
    if buffers is not None:
        moved = {name: one.with_spec(change(one.part, one.spec)) for name, one in buffers.sites()}  # type: ignore[arg-type]
        buffers = replace(buffers, **moved)  # type: ignore[arg-type]
    return replace(layer, site=site, buffers=buffers)


def _parts(layer: PlacedLayer) -> tuple[str, ...]:
    return tuple(access.part for access in accesses_of(layer))


def _redesigned(design: Design, layer: str, part: str, spec: StoredWords) -> StoredWords:
    """Return a memory at the design's error rates, with a code or none."""
    p = design.memory_p.get(part, {}).get(layer)
    if p is None:
        return spec
    ecc = spec.ecc
    if part in design.memory_secded:
        ecc = (spec.ecc or Secded()) if layer in design.memory_secded[part] else None
    many = p if isinstance(p, tuple) else None
    decode, encode = (spec.decode_energy_j, spec.encode_energy_j) if ecc is not None else (0.0, 0.0)
    return replace(
        spec, energy_rel=None, v_rel=None, error_rate_p=None if isinstance(p, tuple) else p, bit_error_rates_p=many, ecc=ecc,
        decode_energy_j=decode, encode_energy_j=encode,
    )  # fmt: skip


def _largest_by_column(layer: PlacedLayer) -> Array:
    return _largest_stored(layer.operator, with_bias=layer.bias_site is not None)


def _with_scale(layer: PlacedLayer, scale: str, network_max: float) -> PlacedLayer:
    w_max = _w_max(_largest_by_column(layer), scale, network_max)
    bias = None if layer.bias_site is None else replace(layer.bias_site, w_max=w_max)
    return replace(layer, site=replace(layer.site, w_max=w_max), bias_site=bias)


def _with_g_used(layer: PlacedLayer, g_used: Array) -> PlacedLayer:
    n = layer.operator.n_columns
    if g_used.size not in (1, n):
        raise SpecError(f"design gives layer {layer.name!r} {g_used.size} conductances; need 1 or one for each of its {n} columns")
    low, high = layer.site.cell.g_min_siemens, layer.site.cell.g_max_siemens
    if not (np.all(g_used > low) and np.all(g_used <= high * (1 + 1e-12))):
        raise SpecError(
            f"layer {layer.name!r}: need g_min_siemens < g_used_siemens <= g_max_siemens ({low:g} S to {high:g} S), "
            f"got {float(np.min(g_used)):g} S to {float(np.max(g_used)):g} S"
        )
    g_used = np.minimum(g_used, high)
    bias = None if layer.bias_site is None else layer.bias_site.with_g_used(g_used)
    site, path = layer.site.with_g_used(g_used), layer.path
    if path is not None and path.conduction is not None:
        path = replace(path, conduction=site.conducting())
    return replace(layer, site=site, bias_site=bias, path=path)


def _n_arrays(operator: MatrixOperator, local: Accelerator, n_parts: int) -> int:
    size = local.mapping.array
    rows = operator.n_rows + int(local.mapping.bias == "device" and operator.bias is not None)
    columns = n_parts * operator.n_columns  # each cell of a weight is in a column of its own
    row_blocks = 1 if size is None or size.n_rows is None else math.ceil(rows / size.n_rows)
    column_blocks = 1 if size is None or size.n_columns is None else math.ceil(columns / size.n_columns)
    return row_blocks * column_blocks


def reorder_relu_behind_pool(network: Network) -> Network:
    """Return the same function with each ReLU that only feeds a max-pool moved behind it.

    max(relu(x)) = relu(max(x)), exactly; the max of Gaussians has good closed forms, the max of rectified ones does not.
    """
    nodes = list(network.nodes)
    consumers = network.consumers()
    for i, node in enumerate(nodes):
        if not isinstance(node.operator, Relu) or len(consumers[i]) != 1 or i == network.output:
            continue
        j = consumers[i][0]
        pool = nodes[j]
        if not isinstance(pool.operator, MaxPool) or j != i + 1:
            continue
        source = node.inputs
        source_shape = network.input_shape if source[0] == INPUT else nodes[source[0]].shape
        pooled = Node(name=pool.name, operator=pool.operator, inputs=source, shape=pool.operator.out_shape(source_shape))
        nodes[i] = pooled
        nodes[j] = Node(name=node.name, operator=node.operator, inputs=(i,), shape=pooled.shape)
    return replace(network, nodes=tuple(nodes))
