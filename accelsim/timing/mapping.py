"""A plan in time: copies of layers, tiles, tokens, services, buffers and counts of actions; what every engine and the ledger read."""

from dataclasses import dataclass, replace
from typing import Literal, TypeAlias

from accelsim.chip import Chip
from accelsim.ledger import conversions_of
from accelsim.placement import PlacedLayer, Plan
from accelsim.timing.buffers import with_rooms
from accelsim.timing.building import Builder, MappedStep
from accelsim.timing.copies import Copies, copies_of
from accelsim.timing.digital import actions_of, check_engine, n_engines, stored_elsewhere
from accelsim.timing.graph import TokenGraph
from accelsim.timing.grid import Grid
from accelsim.timing.services import arrays_of_copy, value_bits
from accelsim.timing.steps import Step, steps_of
from accelsim.timing.tiles import place_apart, place_together
from devices.base.errors import SpecError
from workloads.network import INPUT

Rooms: TypeAlias = Literal["sized", "unbounded"] | int


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class TimedPlan:
    """A plan mapped in time: its steps, the graph that engines walk, and what there is to say about it.

    Of what stages share, `contended` is what one may have to wait for: a digital engine whose layers are one run is not.
    """

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
    n_engines: int
    contended: tuple[str, ...]
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
        usual = "digital_45nm" if all(layer.is_digital for layer in plan.layers) else "isaac"
        raise SpecError(f'chip: absent, but time needs it; `use = "{usual}"` or another preset that has one, or describe it')
    steps = steps_of(plan)
    chosen = copies_of(chip, steps, copies)
    _check_engine(chip, steps)
    arrays = {s.name: arrays_of_copy(s.on_arrays, chip) * chosen[s.name] for s in steps if s.on_arrays is not None}
    placed = place_together(chip, steps, arrays) if chip.serial is None else place_apart(chip, steps, arrays)
    grids, elsewhere = _grids(steps, chosen, token), stored_elsewhere(steps)
    mapped = tuple(
        MappedStep(
            step=step,
            copies=chosen[step.name],
            grid=grids[i],
            n_arrays=arrays.get(step.name, 0),
            tiles=placed.tiles[i],
            round=placed.rounds[i],
            actions=_actions(plan, chip, step, arrays.get(step.name, 0) // chosen[step.name], stores=i not in elsewhere),
        )
        for i, step in enumerate(steps)
    )
    builder = Builder(plan, chip, mapped, placed)
    graph, moved = builder.graph()
    mapped = tuple(replace(m, actions=m.actions | ({"move": moved[i]} if moved[i] else {})) for i, m in enumerate(mapped))
    if builder.serial is not None:
        mapped = tuple(replace(m, actions=m.actions | builder.serial.actions(i)) for i, m in enumerate(mapped))
    graph, notes = with_rooms(graph, rooms, widths={m.step.name: m.grid.tokens_a_row for m in mapped}, widen=placed.n_rounds == 1)
    return TimedPlan(
        plan=plan, chip=chip, steps=mapped, graph=graph, n_tiles=placed.n_tiles, n_chips=placed.n_chips, n_rounds=placed.n_rounds,
        written_cells=placed.written_cells, written_bits=sum(placed.reload_bits) if placed.n_rounds > 1 else 0, token=token,
        n_engines=n_engines(chip, steps), contended=builder.contended, notes=(*placed.notes, *notes),
    )  # fmt: skip


def _check_engine(chip: Chip, steps: tuple[Step, ...]) -> None:
    """Raise SpecError where a layer needs a digital engine that is not there, or not known well enough."""
    for step in steps:
        if step.on_engine is not None:
            check_engine(chip, step.on_engine)


def _grids(steps: tuple[Step, ...], copies: dict[str, int], token: int) -> tuple[Grid, ...]:
    """Return the tokens of each step: as wide as it has copies, digital ones as wide as what they read; all for a digital engine."""
    grids: list[Grid] = []
    for step in steps:
        if step.on_engine is not None:
            grids.append(Grid(rows=step.size[0], columns=step.size[1], width=step.size[1], is_one=True))
            continue
        width = copies[step.name]
        if step.layer is None and width == 1:
            width = max([1, *(grids[s.step].width // step.stride for s in step.sources if s.step != INPUT)])
        width *= -(-token // width)
        grids.append(Grid(rows=step.size[0], columns=step.size[1], width=min(width, step.size[1])))
    return tuple(grids)


def _actions(plan: Plan, chip: Chip, step: Step, n_arrays: int, *, stores: bool) -> dict[str, int]:
    """Return the actions of one image; moves are counted with the routes."""
    bits = value_bits(plan, chip)
    counts = {"compute": step.operations, "store": step.n_values * bits if stores else 0}
    if step.on_engine is not None:
        counts |= actions_of(step.on_engine, chip, value_bits=bits)
    if step.on_arrays is None:
        return {action: n for action, n in counts.items() if n}
    layer, operator = step.on_arrays, step.on_arrays.operator
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
