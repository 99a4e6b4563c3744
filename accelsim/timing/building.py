"""The graph of a mapped plan: a stage for the image, one a step, one a transfer between tiles, and one a reload of weights.

A token of p pixels takes ceil(p / R) services of a layer of R copies, so it is at least R pixels wide: with narrower ones copies would
have nothing to do. The way from the tile's buffer over its bus to the arrays, and digital units, may be slower than the reads.
"""

import math
from dataclasses import dataclass, replace

import numpy as np

from accelsim.chip import Chip
from accelsim.placement import PlacedLayer, Plan
from accelsim.timing.digital import ENGINE, runs_of
from accelsim.timing.digital import service_ps as engine_ps
from accelsim.timing.graph import Edge, Stage, TokenGraph, picoseconds, times_each
from accelsim.timing.grid import Grid, Ints, needs, whole
from accelsim.timing.mesh import Place, transfer
from accelsim.timing.serial import SerialTimes
from accelsim.timing.services import stage_ps, value_bits
from accelsim.timing.steps import Step
from accelsim.timing.tiles import Placed
from workloads.network import INPUT
from workloads.operators.matrix import ConvTranspose


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


class Builder:
    """Makes the graph: a stage for the image, one a step, one a transfer, and one a reload."""

    def __init__(self, plan: Plan, chip: Chip, steps: tuple[MappedStep, ...], placed: Placed) -> None:
        self.plan, self.chip, self.steps, self.placed = plan, chip, steps, placed
        self.bits = value_bits(plan, chip)
        self.stages: list[Stage] = []
        self.resources: dict[str, int] = {}
        self.at: dict[int, int] = {}
        self.grids: dict[int, Grid] = {}
        self.moved = [0] * len(steps)
        self.reload_at: dict[int, int] = {}
        self.runs = runs_of([mapped.step for mapped in steps]) if chip.digital is not None and chip.digital.shared else []
        only, tiles = tuple(mapped.step for mapped in steps), list(placed.tiles)
        self.serial = None if chip.serial is None else SerialTimes(chip, only, tiles, value_bits=self.bits)

    def graph(self) -> tuple[TokenGraph, list[int]]:
        """Return the graph, and the bits times links that each step's results are moved."""
        self._image()
        for i, mapped in enumerate(self.steps):
            self._reload(mapped.round)
            inputs = tuple(self._input(i, k) for k in range(len(mapped.step.sources)))
            self.at[i] = len(self.stages)
            self.stages.append(self._stage(i, (*inputs, *self._after_reload(mapped), *self._in_turn(i, inputs))))
        self._close_rounds()
        self._close_runs()
        return TokenGraph(stages=tuple(self.stages), resources=self.resources), self.moved

    @property
    def contended(self) -> tuple[str, ...]:
        """What is shared and may have to be waited for: an engine only where it has several runs of layers."""
        return tuple(name for name in self.resources if name != ENGINE or len(self.runs) > 1)

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
        step, layer = mapped.step, mapped.step.on_arrays
        if self.serial is not None:
            return Stage(name=step.name, layer=step.name, service_ps=self.serial.service_ps(i, mapped.grid), inputs=inputs)
        if step.on_engine is not None:
            return self._on_engine(mapped, step.on_engine, inputs)
        if layer is None:
            return Stage(name=step.name, layer=step.name, service_ps=self._digital(mapped), inputs=inputs)
        t = stage_ps(layer, self.chip)
        waves = -(-_reads_of(mapped, layer) // mapped.copies)
        service = times_each(waves, layer.n_input_slices * t)
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
        layer, chip = mapped.step.on_arrays, self.chip
        if chip.bus_bits is None or layer is None:
            return np.zeros_like(waves)
        copy = mapped.n_arrays // mapped.copies
        blocks = layer.n_row_blocks
        on_a_tile = min(1.0, math.ceil(blocks * chip.arrays_per_tile / copy) / blocks) if copy > chip.arrays_per_tile else 1.0
        copies = max(1, min(mapped.copies, chip.arrays_per_tile // copy)) if copy <= chip.arrays_per_tile else 1
        bits = layer.operator.n_rows * on_a_tile * copies * self.bits
        return times_each(waves, picoseconds(math.ceil(bits / chip.bus_bits) / chip.clock_hz))

    def _digital(self, mapped: MappedStep) -> Ints:
        """Return how long a tile's digital units work on each token."""
        lanes = self.chip.lanes
        if lanes is None or not mapped.step.operations:
            return np.zeros(mapped.grid.n_tokens, np.int64)
        each = mapped.step.operations / (mapped.grid.rows * mapped.grid.columns) / (lanes * len(mapped.tiles))
        return np.array([picoseconds(math.ceil(each * p) / self.chip.clock_hz) for p in mapped.grid.pixels.tolist()], np.int64)

    # layers of a digital engine

    def _on_engine(self, mapped: MappedStep, layer: PlacedLayer, inputs: tuple[Edge, ...]) -> Stage:
        """Return the stage of a layer that an engine does as a whole."""
        work = np.array([engine_ps(layer, self.chip)], np.int64)
        holds = (ENGINE,) if self.runs else ()
        self.resources |= dict.fromkeys(holds, 1)
        service = np.maximum(work, self._digital(mapped))
        name = mapped.step.name
        return Stage(name=name, layer=name, service_ps=service, inputs=inputs, holds=holds, hold_ps=work if holds else None)

    def _in_turn(self, i: int, inputs: tuple[Edge, ...]) -> tuple[Edge, ...]:
        """Return the edge by which a layer waits for the one ahead of it in a run of a shared engine, where it does not read it anyway."""
        for run in self.runs:
            if i in run[1:]:
                ahead = self.at[run[run.index(i) - 1]]
                return () if any(edge.source == ahead for edge in inputs) else (_all_of_one(ahead),)
        return ()

    def _close_runs(self) -> None:
        """Let a shared engine begin a run of layers when it is done with it for the image before."""
        for number, run in enumerate(self.runs):
            first, last = self.at[run[0]], self.at[run[-1]]
            done = Stage(
                name=f"{ENGINE} done" + (f", run {number + 1}" if len(self.runs) > 1 else ""), layer=self.stages[last].layer,
                service_ps=np.zeros(1, np.int64), inputs=(_all_of_one(last),),
            )  # fmt: skip
            self.stages.append(done)
            waits = _all_of_one(len(self.stages) - 1, lag=1)
            self.stages[first] = replace(self.stages[first], inputs=(*self.stages[first].inputs, waits))

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


def _all_of_one(source: int, *, lag: int = 0) -> Edge:
    """Return the edge of a stage of one token from another one."""
    return Edge(source=source, need=np.ones(1, np.int64), release=np.ones(1, np.int64), lag=lag)


def _reads_of(mapped: MappedStep, layer: PlacedLayer) -> Ints:
    """Return the products that each token takes: one a pixel; a transposed convolution's are shared by the pixels they reach."""
    pixels = mapped.grid.pixels
    if not isinstance(layer.operator, ConvTranspose):
        return pixels
    done = np.cumsum(pixels) * layer.operator.n_positions // int(pixels.sum())
    return np.diff(done, prepend=0)
