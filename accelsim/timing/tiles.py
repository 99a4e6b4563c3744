"""Which tiles arrays are on: filled layer after layer, anew where there are none left, or of each step's own."""

import math
from dataclasses import dataclass

from accelsim.chip import Chip
from accelsim.placement import PlacedLayer
from accelsim.timing.serial import own_tiles
from accelsim.timing.services import array_size, arrays_of_copy
from accelsim.timing.steps import Step
from devices.base.errors import InfeasibleError
from workloads.network import INPUT


def arrays_there_are(chip: Chip) -> int | None:
    """Return the arrays of all tiles of all chips; None where there are as many as the network takes."""
    if chip.n_tiles is None or chip.n_chips is None:
        return None
    return chip.n_tiles * chip.n_chips * chip.arrays_per_tile


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Placed:
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


def place_together(chip: Chip, steps: tuple[Step, ...], arrays: dict[str, int]) -> Placed:
    """Fill tiles with arrays, layer after layer; begin anew with other weights where there are no tiles left."""
    total, per_tile = arrays_there_are(chip), chip.arrays_per_tile
    tiles, rounds, owners = list[range](), list[int](), dict[int, set[int]]()
    used, highest, this_round = 0, 0, 0
    written, rows, bits = [0], [0], [0]
    for i, step in enumerate(steps):
        if step.on_arrays is None:
            source = next((s.step for s in step.sources if s.step != INPUT), None)
            home = tiles[source].start if source is not None else 0
            tiles.append(range(home, home + 1))
            rounds.append(this_round)
            continue
        layer, n = step.on_arrays, arrays[step.name]
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
        n_cells = layer.operator.weights.size * len(layer.site.encoding.parts) * (n // arrays_of_copy(layer, chip))
        written[-1] += n_cells
        rows[-1] = max(rows[-1], min(array_size(layer)[0], layer.operator.n_rows))
        bits[-1] += n_cells * _bits_a_cell(layer)
    n_rounds = this_round + 1
    if n_rounds > 1 and chip.t_write_s is None:
        raise InfeasibleError(
            f"the weights take {sum(arrays.values())} arrays, of {total} there are; without chip.t_write_s they cannot be written while "
            "it runs; raise chip.n_tiles or n_chips (or leave n_chips out), give layers fewer copies, or set chip.t_write_s"
        )
    n_tiles = max(1, -(-highest // per_tile))  # poolings and the like are on one, where no layer is on arrays
    n_chips = 1 if chip.n_tiles is None else -(-n_tiles // chip.n_tiles)
    shared = frozenset(tile for tile, of in owners.items() if len(of) > 1)
    notes = [f"the weights do not fit: they are written in {n_rounds} rounds for each image"] if n_rounds > 1 else []
    return Placed(
        tiles=tuple(tiles), rounds=tuple(rounds), shared=shared, n_tiles=n_tiles, n_chips=n_chips, n_rounds=n_rounds,
        written_cells=sum(written) if n_rounds > 1 else 0, reload_rows=tuple(rows), reload_bits=tuple(bits), notes=tuple(notes),
    )  # fmt: skip


def place_apart(chip: Chip, steps: tuple[Step, ...], arrays: dict[str, int]) -> Placed:
    """Give each step tiles of its own."""
    tiles = own_tiles(chip, steps, arrays)
    return Placed(
        tiles=tuple(tiles), rounds=(0,) * len(steps), shared=frozenset(), n_tiles=tiles[-1].stop, n_chips=1, n_rounds=1, written_cells=0,
        reload_rows=(0,), reload_bits=(0,), notes=(),
    )  # fmt: skip


def _bits_a_cell(layer: PlacedLayer) -> int:
    mapping = layer.site.mapping
    if mapping.slice_bits:
        return math.ceil(max(mapping.slice_bits))
    return 8 if mapping.levels is None else math.ceil(math.log2(mapping.levels))
