"""A plan in time: copies of layers, tiles, tokens, services, buffers and counts of actions; what every engine and the ledger read.

A product at one pixel takes `n_slices` reads, one after the other in a pipeline of stages of equal length t:

    t = max( read time, columns an ADC serves x conversion time ),   service = n_slices t,   fill = (stages - 1) t        (1)

A token of p pixels takes ceil(p / R) services of a layer of R copies, so it is at least R pixels wide: with narrower ones copies would
have nothing to do. The way from the tile's buffer over its bus to the arrays, and digital units, may be slower than (1).
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Literal, TypeAlias

import numpy as np

from accelsim.chip import Chip
from accelsim.ledger import conversions_of
from accelsim.placement import PlacedLayer, Plan
from accelsim.timing.buffers import with_rooms
from accelsim.timing.graph import Edge, Stage, TokenGraph, picoseconds
from accelsim.timing.grid import Grid, Ints, Pair, needs, whole
from accelsim.timing.mesh import Place, transfer
from accelsim.timing.serial import SerialTimes, arrays_of, own_tiles
from accelsim.timing.steps import Step, steps_of
from devices.base.errors import InfeasibleError, SpecError
from devices.converter import Converter
from workloads.network import INPUT
from workloads.operators.matrix import ConvTranspose

Copies: TypeAlias = Literal["given", "balanced", "budget"] | Mapping[str, int]
Rooms: TypeAlias = Literal["sized", "unbounded"] | int
BALANCED_PIXELS, BALANCED_COPIES = 196, 64
"""Balanced: a copy for each 196 pixels of a layer's output (14 x 14), at most 64."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class MappedStep:
    """A step on its tiles.

    Parameters
    ----------
    step, copies, grid
        What it does, how many copies of its arrays do it, and its tokens.
    n_arrays, tiles
        Arrays of all copies, and the tiles they are on; digital steps are where their first source is.
    round
        When its weights are in the arrays; 0 where all fit.
    actions
        How often each action is done for one image.
    """

    step: Step
    copies: int
    grid: Grid
    n_arrays: int
    tiles: range
    round: int
    actions: dict[str, int]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class TimedPlan:
    """A plan mapped in time: its steps, the graph that engines walk, and what there is to say about it."""

    plan: Plan
    chip: Chip
    steps: tuple[MappedStep, ...]
    graph: TokenGraph
    n_tiles: int
    n_chips: int
    n_rounds: int
    written_cells: int
    written_bits: int
    token: int
    notes: tuple[str, ...]

    @property
    def n_arrays(self) -> int:
        """Arrays of all copies of all layers."""
        return sum(step.n_arrays for step in self.steps)


def map_in_time(plan: Plan, *, copies: Copies = "given", token: int = 1, rooms: Rooms = "sized") -> TimedPlan:
    """Return a plan mapped in time.

    `copies` of each layer are `given` by the spec (mapping.replicas), `balanced` over pixels, chosen within the tiles there are
    (`budget`), or named. `token` is the least width of a token in pixels; `rooms` of the buffers are sized so that nothing deadlocks,
    unbounded, or a number of rows. Raises SpecError where the spec has no [chip], InfeasibleError where weights do not fit.
    """
    chip = plan.accelerator.chip
    if chip is None:
        raise SpecError('chip: absent, but time needs it; `use = "isaac"` or another preset that has one, or describe it')
    steps = steps_of(plan)
    chosen = _copies(plan, chip, steps, copies)
    arrays = {step.name: _arrays(step.layer, chip) * chosen[step.name] for step in steps if step.layer is not None}
    placed = _place(plan, chip, steps, arrays) if chip.serial is None else _place_apart(chip, steps, arrays)
    grids = _grids(steps, chosen, token)
    mapped = tuple(
        MappedStep(
            step=step,
            copies=chosen[step.name],
            grid=grids[i],
            n_arrays=arrays.get(step.name, 0),
            tiles=placed.tiles[i],
            round=placed.rounds[i],
            actions=_actions(plan, chip, step, arrays.get(step.name, 0) // chosen[step.name]),
        )
        for i, step in enumerate(steps)
    )
    builder = _Builder(plan, chip, mapped, placed)
    graph, moved = builder.graph()
    mapped = tuple(replace(m, actions=m.actions | ({"move": moved[i]} if moved[i] else {})) for i, m in enumerate(mapped))
    if builder.serial is not None:
        mapped = tuple(replace(m, actions=m.actions | builder.serial.actions(i)) for i, m in enumerate(mapped))
    graph, notes = with_rooms(graph, rooms, widths={m.step.name: m.grid.tokens_a_row for m in mapped})
    return TimedPlan(
        plan=plan, chip=chip, steps=mapped, graph=graph, n_tiles=placed.n_tiles, n_chips=placed.n_chips, n_rounds=placed.n_rounds,
        written_cells=placed.written_cells, written_bits=sum(placed.reload_bits) if placed.n_rounds > 1 else 0, token=token,
        notes=(*placed.notes, *notes),
    )  # fmt: skip


# arrays and tiles


def array_size(layer: PlacedLayer) -> Pair:
    """Return rows and columns of the arrays a layer is on; the layer's own where they are as large as it takes."""
    size = layer.site.mapping.array
    columns = layer.operator.n_columns * len(layer.site.encoding.parts)
    return (
        layer.operator.n_rows if size is None or size.n_rows is None else size.n_rows,
        columns if size is None or size.n_columns is None else size.n_columns,
    )


def _arrays(layer: PlacedLayer, chip: Chip) -> int:
    """Return the arrays of one copy of a layer."""
    if chip.serial is not None:
        return arrays_of(layer)
    if chip.slices == "together":
        return layer.n_arrays
    _, columns = array_size(layer)
    parts = len(layer.site.encoding.parts)
    return layer.n_row_blocks * math.ceil(layer.operator.n_columns / columns) * parts


def _copies(plan: Plan, chip: Chip, steps: tuple[Step, ...], copies: Copies) -> dict[str, int]:
    layers = [step for step in steps if step.layer is not None]
    given = {step.name: 1 if step.layer is None else step.layer.site.mapping.replicas for step in steps}
    if isinstance(copies, Mapping):
        unknown = copies.keys() - {step.name for step in layers}
        if unknown or any(n < 1 for n in copies.values()):
            has = ", ".join(step.name for step in layers[:12])
            raise SpecError(f"copies: {dict(copies)}: need layers of the network, each with at least 1; it has {has}")
        return given | dict(copies)
    if copies == "given":
        return given
    if copies == "balanced":
        return {s.name: max(1, min(BALANCED_COPIES, s.size[0] * s.size[1] // BALANCED_PIXELS)) for s in steps}
    return given | _within_budget(plan, chip, layers)


def _within_budget(plan: Plan, chip: Chip, layers: list[Step]) -> dict[str, int]:
    """Return the copies that make the interval least on the tiles there are: the slowest layer gets copies that help, while any fit."""
    total = _arrays_there_are(chip)
    if total is None:
        raise SpecError('chip.n_tiles, n_chips: absent, but copies = "budget" needs to know how many there are; set both')
    one = {step.name: _arrays(step.layer, chip) for step in layers if step.layer is not None}
    chosen = dict.fromkeys(one, 1)
    used = sum(one.values())
    if used > total:
        raise InfeasibleError(f"one copy of each layer takes {used} arrays, of {total} there are; raise chip.n_tiles, or leave copies out")

    def interval(step: Step, n: int) -> float:
        assert step.layer is not None
        return step.size[0] * math.ceil(step.size[1] / n) * step.layer.n_input_slices * stage_ps(step.layer, chip)

    while True:
        slowest = max(layers, key=lambda step: interval(step, chosen[step.name]))
        n, now = chosen[slowest.name], interval(slowest, chosen[slowest.name])
        more = next((k for k in range(n + 1, slowest.size[1] + 1) if interval(slowest, k) < now), None)
        if more is None or used + (more - n) * one[slowest.name] > total:
            return chosen
        used += (more - n) * one[slowest.name]
        chosen[slowest.name] = more


def _arrays_there_are(chip: Chip) -> int | None:
    if chip.n_tiles is None or chip.n_chips is None:
        return None
    return chip.n_tiles * chip.n_chips * chip.arrays_per_tile


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class _Placed:
    """Which tiles each step is on, when its weights are there, and what that takes."""

    tiles: tuple[range, ...]
    rounds: tuple[int, ...]
    shared: frozenset[int]
    n_tiles: int
    n_chips: int
    n_rounds: int
    written_cells: int
    reload_rows: tuple[int, ...]
    reload_bits: tuple[int, ...]
    notes: tuple[str, ...]


def _place(plan: Plan, chip: Chip, steps: tuple[Step, ...], arrays: dict[str, int]) -> _Placed:
    """Fill tiles with arrays, layer after layer; begin anew with other weights where there are no tiles left."""
    total, per_tile = _arrays_there_are(chip), chip.arrays_per_tile
    tiles, rounds, owners = list[range](), list[int](), dict[int, set[int]]()
    used, highest, this_round = 0, 0, 0
    written, rows, bits = [0], [0], [0]
    for i, step in enumerate(steps):
        if step.layer is None:
            source = next((s.step for s in step.sources if s.step != INPUT), None)
            home = tiles[source].start if source is not None else 0
            tiles.append(range(home, home + 1))
            rounds.append(this_round)
            continue
        n = arrays[step.name]
        if total is not None and n > total:
            raise InfeasibleError(f"layer {step.name!r} takes {n} arrays, of {total} there are; raise chip.n_tiles or n_chips")
        if total is not None and used + n > total:
            used, this_round = 0, this_round + 1
            for of_round in (written, rows, bits):
                of_round.append(0)
        tiles.append(range(used // per_tile, -(-(used + n) // per_tile)))
        rounds.append(this_round)
        for tile in tiles[-1]:
            owners.setdefault(tile, set()).add(i)
        used += n
        highest = max(highest, used)
        n_cells = step.layer.operator.weights.size * len(step.layer.site.encoding.parts) * (n // _arrays(step.layer, chip))
        written[-1] += n_cells
        rows[-1] = max(rows[-1], min(array_size(step.layer)[0], step.layer.operator.n_rows))
        bits[-1] += n_cells * _bits_a_cell(step.layer)
    n_rounds = this_round + 1
    if n_rounds > 1 and chip.t_write_s is None:
        raise InfeasibleError(
            f"the weights take {sum(arrays.values())} arrays, of {total} there are; without chip.t_write_s they cannot be written while "
            "it runs; raise chip.n_tiles or n_chips (or leave n_chips out), give layers fewer copies, or set chip.t_write_s"
        )
    n_tiles = -(-highest // per_tile)
    n_chips = 1 if chip.n_tiles is None else -(-n_tiles // chip.n_tiles)
    shared = frozenset(tile for tile, of in owners.items() if len(of) > 1)
    notes = [f"the weights do not fit: they are written in {n_rounds} rounds for each image"] if n_rounds > 1 else []
    return _Placed(
        tiles=tuple(tiles), rounds=tuple(rounds), shared=shared, n_tiles=n_tiles, n_chips=n_chips, n_rounds=n_rounds,
        written_cells=sum(written) if n_rounds > 1 else 0, reload_rows=tuple(rows), reload_bits=tuple(bits), notes=tuple(notes),
    )  # fmt: skip


def _place_apart(chip: Chip, steps: tuple[Step, ...], arrays: dict[str, int]) -> _Placed:
    """Give each step tiles of its own."""
    tiles = own_tiles(chip, steps, arrays)
    return _Placed(
        tiles=tuple(tiles), rounds=(0,) * len(steps), shared=frozenset(), n_tiles=tiles[-1].stop, n_chips=1, n_rounds=1, written_cells=0,
        reload_rows=(0,), reload_bits=(0,), notes=(),
    )  # fmt: skip


def _bits_a_cell(layer: PlacedLayer) -> int:
    mapping = layer.site.mapping
    if mapping.slice_bits:
        return math.ceil(max(mapping.slice_bits))
    return 8 if mapping.levels is None else math.ceil(math.log2(mapping.levels))


# time


def stage_ps(layer: PlacedLayer, chip: Chip) -> int:
    """Return t of (1)."""
    if layer.drive.t_read_s is None:
        raise SpecError("drive.t_read_s: absent, but time needs it; set it")
    _, columns = array_size(layer)
    convert = _conversion_s(layer, chip)
    times = [layer.drive.t_read_s]
    if convert is not None and chip.columns_per_adc is not None:
        times.append(min(chip.columns_per_adc, columns) * convert)
    if convert is not None and chip.adcs_per_tile is not None:
        times.append(columns * min(chip.arrays_per_tile, _arrays(layer, chip)) * convert / chip.adcs_per_tile)
    return picoseconds(max(times))


def _conversion_s(layer: PlacedLayer, chip: Chip) -> float | None:
    if chip.t_convert_s is not None:
        return chip.t_convert_s
    adc = layer.sense.adc
    time = adc.conversion_s if isinstance(adc, Converter) else None
    if time is None and (chip.columns_per_adc is not None or chip.adcs_per_tile is not None):
        raise SpecError("chip.t_convert_s: absent, and neither sense.adc nor its conversion says how long a conversion takes; set it")
    return time


def value_bits(plan: Plan, chip: Chip) -> int:
    """Return the bits of an activation."""
    return chip.value_bits or int(getattr(plan.accelerator.drive.dac, "n_bits", 8))


def _grids(steps: tuple[Step, ...], copies: dict[str, int], token: int) -> tuple[Grid, ...]:
    """Return the tokens of each step: as wide as it has copies, digital ones as wide as what they read."""
    grids: list[Grid] = []
    for step in steps:
        width = copies[step.name]
        if step.layer is None and width == 1:
            width = max([1, *(grids[s.step].width // step.stride for s in step.sources if s.step != INPUT)])
        width *= -(-token // width)
        grids.append(Grid(rows=step.size[0], columns=step.size[1], width=min(width, step.size[1])))
    return tuple(grids)


def _actions(plan: Plan, chip: Chip, step: Step, n_arrays: int) -> dict[str, int]:
    """Return the actions of one image; moves are counted with the routes."""
    bits = value_bits(plan, chip)
    counts = {"compute": step.operations, "store": step.n_values * bits}
    if step.layer is None:
        return {action: n for action, n in counts.items() if n}
    layer, operator = step.layer, step.layer.operator
    reads = operator.n_positions * layer.n_input_slices
    columns = operator.n_columns * len(layer.site.encoding.parts) // _columns_a_conversion(layer)
    counts |= {
        "read": reads * n_arrays,
        "drive": reads * operator.n_rows,
        "convert": reads * columns * layer.n_row_blocks if layer.path is None else conversions_of(layer).adc,
        "merge": reads * columns * layer.n_row_blocks,
        "load": operator.n_positions * operator.n_rows * bits,
    }
    return {action: n for action, n in counts.items() if n}


def _columns_a_conversion(layer: PlacedLayer) -> int:
    """Return the columns that are subtracted before a conversion: two of a pair."""
    encoding = layer.site.encoding
    return max(1, len(encoding.parts) // encoding.n_slices)


class _Builder:
    """Makes the graph: a stage for the image, one a step, one a transfer, and one a reload."""

    def __init__(self, plan: Plan, chip: Chip, steps: tuple[MappedStep, ...], placed: _Placed) -> None:
        self.plan, self.chip, self.steps, self.placed = plan, chip, steps, placed
        self.bits = value_bits(plan, chip)
        self.stages: list[Stage] = []
        self.resources: dict[str, int] = {}
        self.at: dict[int, int] = {}
        self.grids: dict[int, Grid] = {}
        self.moved = [0] * len(steps)
        self.reload_at: dict[int, int] = {}
        only, tiles = tuple(mapped.step for mapped in steps), list(placed.tiles)
        self.serial = None if chip.serial is None else SerialTimes(chip, only, tiles, value_bits=self.bits)

    def graph(self) -> tuple[TokenGraph, list[int]]:
        """Return the graph, and the bits times links that each step's results are moved."""
        self._image()
        for i, mapped in enumerate(self.steps):
            self._reload(mapped.round)
            inputs = tuple(self._input(i, k) for k in range(len(mapped.step.sources)))
            self.at[i] = len(self.stages)
            self.stages.append(self._stage(i, (*inputs, *self._after_reload(mapped))))
        self._close_rounds()
        return TokenGraph(stages=tuple(self.stages), resources=self.resources), self.moved

    def _image(self) -> None:
        shape = self.plan.graph.input_shape
        rows, columns = (shape[-2], shape[-1]) if len(shape) >= 3 else (1, shape[-1] if len(shape) == 2 else 1)
        grid = Grid(rows=int(rows), columns=int(columns), width=int(columns))
        off_chip = self.chip.off_chip
        service, fill = np.zeros(grid.n_tokens, np.int64), 0
        holds: tuple[str, ...] = ()
        if off_chip is not None:
            bits = grid.pixels * (math.prod(shape) // (grid.rows * grid.columns)) * self.bits
            service = np.array([picoseconds(b / off_chip.bit_rate_hz) for b in bits.tolist()], np.int64)
            fill, holds = picoseconds(off_chip.latency_s), ("off-chip",)
            self.resources["off-chip"] = 1
        self.at[INPUT], self.grids[INPUT] = 0, grid
        self.stages.append(
            Stage(name="image", layer="image", service_ps=service, inputs=(), fill_ps=fill, holds=holds, hold_ps=service if holds else None)
        )

    def _grid(self, step: int) -> Grid:
        return self.grids[INPUT] if step == INPUT else self.steps[step].grid

    def _input(self, i: int, k: int) -> Edge:
        """Return the edge from a source, with a transfer between where they are on other tiles."""
        mapped, source = self.steps[i], self.steps[i].step.sources[k]
        read, at = self._grid(source.step), self.at[source.step]
        if self.chip.mesh is not None and source.step != INPUT:
            giver = self.steps[source.step]
            route = transfer(
                self.chip.mesh,
                Place(tile=giver.tiles.start, n_tiles=self._mesh_tiles()),
                Place(tile=mapped.tiles.start, n_tiles=self._mesh_tiles()),
            )
            if route.links:
                at = self._transfer(giver, mapped, at, route.links, route.fill_ps)
                self.moved[source.step] += giver.step.n_values * self.bits * len(route.links)
        need, release = whole(mapped.grid, read) if source.reach is None else needs(source.reach, mapped.grid, read)
        return Edge(source=at, need=need, release=release)

    def _mesh_tiles(self) -> int:
        return self.chip.n_tiles or self.placed.n_tiles

    def _transfer(self, giver: MappedStep, taker: MappedStep, at: int, links: tuple[str, ...], fill_ps: int) -> int:
        mesh = self.chip.mesh
        assert mesh is not None
        flits = -(-giver.grid.pixels * giver.step.channels * self.bits // mesh.flit_bits)
        service = np.array([picoseconds(n / mesh.clock_hz) for n in flits.tolist()], np.int64)
        for link in links:
            self.resources[link] = 1
        count = np.arange(1, giver.grid.n_tokens + 1, dtype=np.int64)
        self.stages.append(
            Stage(
                name=f"{giver.step.name} to {taker.step.name}", layer=giver.step.name, service_ps=service,
                inputs=(Edge(source=at, need=count, release=count),), fill_ps=fill_ps, holds=links, hold_ps=service,
            )
        )
        return len(self.stages) - 1

    def _stage(self, i: int, inputs: tuple[Edge, ...]) -> Stage:
        mapped = self.steps[i]
        step, layer = mapped.step, mapped.step.layer
        if self.serial is not None:
            return Stage(name=step.name, layer=step.name, service_ps=self.serial.service_ps(i, mapped.grid), inputs=inputs)
        if layer is None:
            return Stage(name=step.name, layer=step.name, service_ps=self._digital(mapped), inputs=inputs)
        t = stage_ps(layer, self.chip)
        waves = -(-_reads_of(mapped, layer) // mapped.copies)
        service = waves * layer.n_input_slices * t
        bus = self._bus(mapped, waves)
        holds: tuple[str, ...] = ()
        tiles = [tile for tile in (mapped.tiles[0], mapped.tiles[-1]) if tile in self.placed.shared]
        if tiles and bus.any():
            holds = tuple(dict.fromkeys(f"bus of tile {tile}" for tile in sorted(tiles)))
        held = bus
        if self.chip.adcs_per_tile is not None and tiles:
            holds = tuple(dict.fromkeys(f"ADCs of tile {tile}" for tile in sorted(tiles)))
            held = service
        self.resources |= dict.fromkeys(holds, 1)
        service = np.maximum(np.maximum(service, bus), self._digital(mapped))
        fill = (self.chip.read_stages - 1) * t + picoseconds(self.chip.extra_s)
        return Stage(
            name=step.name, layer=step.name, service_ps=service, inputs=inputs, fill_ps=fill, holds=holds, hold_ps=held if holds else None
        )  # fmt: skip

    def _bus(self, mapped: MappedStep, waves: Ints) -> Ints:
        """Return how long a tile's bus brings each token's inputs: those of the rows and the copies that are on one tile."""
        layer, chip = mapped.step.layer, self.chip
        if chip.bus_bits is None or layer is None:
            return np.zeros_like(waves)
        copy = mapped.n_arrays // mapped.copies
        blocks = layer.n_row_blocks
        on_a_tile = min(1.0, math.ceil(blocks * chip.arrays_per_tile / copy) / blocks) if copy > chip.arrays_per_tile else 1.0
        copies = max(1, min(mapped.copies, chip.arrays_per_tile // copy)) if copy <= chip.arrays_per_tile else 1
        bits = layer.operator.n_rows * on_a_tile * copies * self.bits
        return waves * picoseconds(math.ceil(bits / chip.bus_bits) / chip.clock_hz)

    def _digital(self, mapped: MappedStep) -> Ints:
        """Return how long a tile's digital units work on each token."""
        lanes = self.chip.lanes
        if lanes is None or not mapped.step.operations:
            return np.zeros(mapped.grid.n_tokens, np.int64)
        each = mapped.step.operations / (mapped.grid.rows * mapped.grid.columns) / (lanes * len(mapped.tiles))
        return np.array([picoseconds(math.ceil(each * p) / self.chip.clock_hz) for p in mapped.grid.pixels.tolist()], np.int64)

    # weights that do not fit

    def _reload(self, number: int) -> None:
        """Add the stage that writes a round's weights, once for each image, when the round before is done."""
        if self.placed.n_rounds == 1 or number in self.reload_at:
            return
        chip = self.chip
        assert chip.t_write_s is not None
        time = picoseconds(self.placed.reload_rows[number] * chip.t_write_s)
        if chip.off_chip is not None:
            time = max(time, picoseconds(self.placed.reload_bits[number] / chip.off_chip.bit_rate_hz))
        before = [
            Edge(source=self.at[i], need=np.array([m.grid.n_tokens]), release=np.array([m.grid.n_tokens]))
            for i, m in enumerate(self.steps) if m.round == number - 1
        ]  # fmt: skip
        self.reload_at[number] = len(self.stages)
        service = np.array([time], np.int64)
        holds = ("off-chip",) if chip.off_chip is not None else ()
        self.stages.append(
            Stage(
                name=f"weights of round {number + 1}", layer="weights", service_ps=service, inputs=tuple(before), holds=holds,
                hold_ps=service if holds else None,
            )
        )

    def _after_reload(self, mapped: MappedStep) -> tuple[Edge, ...]:
        if self.placed.n_rounds == 1:
            return ()
        need = np.ones(mapped.grid.n_tokens, np.int64)
        release = np.zeros(mapped.grid.n_tokens, np.int64)
        release[-1] = 1
        return (Edge(source=self.reload_at[mapped.round], need=need, release=release),)

    def _close_rounds(self) -> None:
        """Let the first round of an image wait for the last round of the image before."""
        if self.placed.n_rounds == 1:
            return
        last = [i for i, m in enumerate(self.steps) if m.round == self.placed.n_rounds - 1]
        edges = tuple(
            Edge(source=self.at[i], need=np.array([self.steps[i].grid.n_tokens]), release=np.array([self.steps[i].grid.n_tokens]), lag=1)
            for i in last
        )
        first = self.reload_at[0]
        self.stages[first] = replace(self.stages[first], inputs=(*self.stages[first].inputs, *edges))


def _reads_of(mapped: MappedStep, layer: PlacedLayer) -> Ints:
    """Return the products that each token takes: one a pixel; a transposed convolution's are shared by the pixels they reach."""
    pixels = mapped.grid.pixels
    if not isinstance(layer.operator, ConvTranspose):
        return pixels
    done = np.cumsum(pixels) * layer.operator.n_positions // int(pixels.sum())
    return np.diff(done, prepend=0)
