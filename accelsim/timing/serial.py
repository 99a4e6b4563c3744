"""Products whose steps follow one another, layers on tiles of their own: the model of time of MNSIM 2.0 (Zhu et al., TCAD 2023).

Nothing of a product overlaps with the next one. With r rows and c columns of a layer's largest array, n slices of an input, g groups
ceil(r / rows at once) ceil(c / columns at once), P cores of its fullest tile, L = ceil(log2 P), partial sums of b bits, values of v bits,
M outputs, clock period T, W(bits) the time of as many buffer words, and distances d between tiles, a pixel takes

    n g (t_drive + t_read + t_convert + t_select + 2 T) + g T + ceil(c / columns at once) T          (drive, read, convert, registers)
    + L T + (2 (b + L) - L (L + 1) / 2) c / tree rate                                                 (sum over a tile of four cores)
    + W((b + L) c P) + W(v c P) + d_in (T + v c P / link rate) + d_out v M / link rate                (buffer, sum over tiles, transfer)
    + W(new inputs) + W(inputs that are read)                                                                                      (1)

New inputs fill k - 1 rows of a line buffer before the first pixel, and are a column's (at the start of a row, what that takes) after. A
pooling takes t_pool for each `pool_channels` channels and `pool_taps` taps, and the words of what it reads and makes; sums are made at the
middle of the chip's left side. Tiles are numbered in growing squares, back and forth. Rows of an array hold whole channels.
"""

import math
from dataclasses import dataclass

import numpy as np

from accelsim.chip import Chip
from accelsim.placement import PlacedLayer
from accelsim.timing.graph import PS
from accelsim.timing.grid import Grid, Ints, Pair
from accelsim.timing.steps import Step
from devices.base.errors import InfeasibleError, SpecError
from workloads.operators.matrix import Conv
from workloads.operators.pooling import AveragePool, MaxPool, Window

TREE_LEVELS = 2
"""Levels of the adder tree between the cores of a tile: four cores, as MNSIM counts them, however many there are."""


def tile_position(number: int) -> Pair:
    """Return row and column of a tile: squares of growing side, each new one's edge walked away from where the last one ended."""
    side = math.isqrt(number)
    along = number - side * side
    first, second = min(along, side), side - max(along - side, 0)
    return (first, second) if side % 2 else (second, first)


@dataclass(frozen=True, slots=True, kw_only=True)
class Blocks:
    """How a layer is cut for arrays that hold whole channels: rows and columns of the largest, and how many row and column blocks."""

    rows: int
    columns: int
    row_blocks: int
    column_blocks: int


def blocks_of(layer: PlacedLayer) -> Blocks:
    """Return the blocks of a layer; a channel that is larger than an array is cut."""
    size = layer.site.mapping.array
    if size is None or size.n_rows is None or size.n_columns is None:
        raise SpecError("mapping.array: chip.serial needs arrays of a size; set n_rows and n_columns")
    operator = layer.operator
    taps = math.prod(operator.geometry.kernel) if isinstance(operator, Conv) else 1
    channels = max(1, size.n_rows // taps)
    rows = min(channels * taps, operator.n_rows)
    return Blocks(
        rows=min(rows, size.n_rows), columns=min(operator.n_columns, size.n_columns),
        row_blocks=math.ceil(operator.n_rows / min(rows, size.n_rows)), column_blocks=math.ceil(operator.n_columns / size.n_columns),
    )  # fmt: skip


def arrays_of(layer: PlacedLayer) -> int:
    """Return the arrays of one copy of a layer: each part of a weight has arrays of its own."""
    blocks = blocks_of(layer)
    return blocks.row_blocks * blocks.column_blocks * len(layer.site.encoding.parts)


def own_tiles(chip: Chip, steps: tuple[Step, ...], arrays: dict[str, int]) -> list[range]:
    """Return the tiles of each step: as many as a layer takes, one of each pooling, none of others; InfeasibleError beyond the chip."""
    assert chip.serial is not None
    found, first = [], 0
    for step in steps:
        count = math.ceil(arrays[step.name] / chip.arrays_per_tile) if step.layer is not None else int(_window(step) is not None)
        found.append(range(first, first + count))
        first += count
    there_are = chip.serial.side**2 if chip.n_tiles is None else chip.n_tiles
    if first > there_are:
        raise InfeasibleError(
            f"the layers take {first} tiles of their own, of {there_are} there are; raise chip.n_tiles and chip.serial.side"
        )
    return found


def reads_s(layer: PlacedLayer, chip: Chip) -> float:
    """Return the first line of (1): how long arrays and converters work on a pixel."""
    serial, blocks, period = chip.serial, blocks_of(layer), 1.0 / chip.clock_hz
    assert serial is not None
    if layer.drive.t_read_s is None or chip.t_convert_s is None:
        raise SpecError("drive.t_read_s, chip.t_convert_s: absent, but chip.serial needs both")
    across = math.ceil(blocks.columns / serial.columns_at_once)
    groups = math.ceil(blocks.rows / serial.rows_at_once) * across
    each = serial.t_drive_s + layer.drive.t_read_s + chip.t_convert_s + serial.t_select_s + 2.0 * period
    return layer.n_input_slices * groups * each + groups * period + across * period


class SerialTimes:
    """The services and actions of all steps on their tiles."""

    def __init__(self, chip: Chip, steps: tuple[Step, ...], tiles: list[range], *, value_bits: int) -> None:
        assert chip.serial is not None
        self.chip, self.serial, self.steps, self.bits = chip, chip.serial, steps, value_bits
        self.places = [[tile_position(tile) for tile in of_step] for of_step in tiles]
        self.readers: list[list[int]] = [[] for _ in steps]
        for i, step in enumerate(steps):
            for source in step.sources:
                if source.step >= 0:
                    self.readers[source.step].append(i)

    def service_ps(self, i: int, grid: Grid) -> Ints:
        """Return how long each token of a step takes: as long as its first pixel, all of its copies at once."""
        step = self.steps[i]
        loaded, read = self._inputs(step)
        base = self._base_s(i, step)
        row = np.repeat(np.arange(grid.rows), grid.tokens_a_row)
        start = np.tile(np.arange(grid.tokens_a_row) == 0, grid.rows)
        kind = np.where(start, np.where(row == 0, 0, 1), 2)
        each = np.array([base + self._words_s(loaded[k]) + self._words_s(read[k]) for k in range(3)])
        return np.asarray(np.rint(each[kind] / PS), np.int64)

    def actions(self, i: int) -> dict[str, int]:
        """Return the actions of one image that are counted otherwise than where stages overlap; buffers are counted in bits of words.

        Every buffer of a layer's tiles is read and written for as long as any is. Of c columns, c over the columns a converter has are
        converted in each of the ceil(c / columns at once) turns, and rows are driven likewise: half of what there is, where a layer
        has fewer columns than there are converters.
        """
        step, (loaded, read), (stored, sent) = self.steps[i], self._inputs(self.steps[i]), self._outputs(self.steps[i])
        rows, columns = step.size
        times, n = (1, rows - 1, rows * (columns - 1)), rows * columns
        n_read = sum(t * self._n_words(b) for t, b in zip(times, read)) + n * self._n_words(sent)
        n_written = sum(t * self._n_words(b) for t, b in zip(times, loaded)) + n * self._n_words(stored)
        tiles = len(self.places[i])
        if step.layer is None:
            return {"load": tiles * n_read * self.serial.word_bits, "store": tiles * n_written * self.serial.word_bits}
        blocks, cores, _ = self._sizes(step.layer)
        size, operator = step.layer.site.mapping.array, step.layer.operator
        assert size is not None
        assert size.n_rows is not None  # blocks_of has seen to it
        assert size.n_columns is not None
        turns = math.ceil(blocks.rows / self.serial.rows_at_once) * math.ceil(blocks.columns / self.serial.columns_at_once)
        each = operator.n_positions * step.layer.n_input_slices * turns * math.ceil(arrays_of(step.layer) / self.chip.arrays_per_core)
        buffers = tiles * (cores + 1) * self.serial.word_bits
        return {
            "drive": each * math.ceil(blocks.rows / math.ceil(size.n_rows / self.serial.rows_at_once)),
            "convert": each * math.ceil(blocks.columns / math.ceil(size.n_columns / self.serial.columns_at_once)),
            "load": buffers * n_read, "store": buffers * n_written,
        }  # fmt: skip

    def _base_s(self, i: int, step: Step) -> float:
        """Return (1) without its inputs."""
        stored, sent = self._outputs(step)
        inside, outside = self._distances(i)
        base = self._words_s(stored) + self._words_s(sent) + outside * step.channels * self.bits / self.serial.link_bits_hz
        if step.layer is None:
            window = _window(step)
            if window is None:
                return base + self.serial.t_sum_s
            units = math.ceil(step.channels / self.serial.pool_channels) * math.ceil(math.prod(window.kernel) / self.serial.pool_taps)
            return base + units * self.serial.t_pool_s
        period, (blocks, cores, levels) = 1.0 / self.chip.clock_hz, self._sizes(step.layer)
        across = blocks.columns * cores * self.bits
        tree = TREE_LEVELS * (_partial_bits(step.layer) + levels) - levels * (levels + 1) / 2
        base += inside * (period + across / self.serial.link_bits_hz) if inside else 0.0
        return base + reads_s(step.layer, self.chip) + levels * period + tree * blocks.columns / self.serial.tree_bits_hz

    def _sizes(self, layer: PlacedLayer) -> tuple[Blocks, int, int]:
        """Return the blocks of a layer, the cores of its fullest tile, and the levels of the tree that sums them."""
        cores = min(math.ceil(arrays_of(layer) / self.chip.arrays_per_core), self.chip.cores_per_tile)
        return blocks_of(layer), cores, math.ceil(math.log2(cores))

    def _outputs(self, step: Step) -> Pair:
        """Return the bits that a pixel writes into the buffer behind it, and those that are read from there."""
        if step.layer is None:
            bits = step.channels * self.bits
            return (bits, bits) if _window(step) is not None else (len(step.sources) * bits, len(step.sources) * bits)
        blocks, cores, levels = self._sizes(step.layer)
        return (_partial_bits(step.layer) + levels) * blocks.columns * cores, blocks.columns * cores * self.bits

    def _inputs(self, step: Step) -> tuple[tuple[int, int, int], tuple[int, int, int]]:
        """Return the bits that are new, and those that are read, of the first pixel, the first of other rows, and all others."""
        bits = self.bits
        if step.layer is None:
            window = _window(step)
            if window is None:
                return (0, 0, 0), (0, 0, 0)
            pads, channels, all_rows = window.pads, step.channels, step.channels * math.prod(window.kernel)
            kernel, stride, width = window.kernel, window.stride, window.in_size[1]
        elif isinstance(step.layer.operator, Conv) and step.layer.operator.spatial:
            g, all_rows = step.layer.operator.geometry, blocks_of(step.layer).rows
            pads, channels, kernel, stride, width = g.pads, all_rows // math.prod(g.kernel), g.kernel, g.stride, g.in_shape[2]
        else:
            rows = blocks_of(step.layer).rows * bits
            return (rows, rows, rows), (rows, rows, rows)
        first_column = max(kernel[1] - pads[1], 0)
        new = (
            channels * (width * max(kernel[0] - pads[0] - 1, 0) + first_column),
            channels * (width * (stride[0] - 1) + first_column),
            channels * stride[1],
        )
        read = (all_rows, all_rows, min(stride[1], kernel[1]) * kernel[0] * channels)
        return (new[0] * bits, new[1] * bits, new[2] * bits), (read[0] * bits, read[1] * bits, read[2] * bits)

    def _distances(self, i: int) -> tuple[float, float]:
        """Return the tiles between those of a step, and to its readers, from where both together are least."""
        places, after = self.places[i], [place for reader in self.readers[i] for place in self.places[reader]]
        if not places:
            return 0, max((self._to_sums(place) for place in after), default=0)
        all_sums = bool(self.readers[i]) and all(not self.places[reader] for reader in self.readers[i])
        choices = []
        for place in sorted(places):
            inside = max(_apart(place, other) for other in places)
            outside = self._to_sums(place) if all_sums else max((_apart(place, other) for other in after), default=0)
            choices.append((inside + outside, inside, outside))
        _, inside, outside = min(choices, key=lambda choice: choice[0])
        return inside, outside

    def _to_sums(self, place: Pair) -> float:
        return abs(place[0] - self.serial.side / 2) + place[1]

    def _n_words(self, bits: int) -> int:
        return math.ceil(bits / self.serial.word_bits)

    def _words_s(self, bits: int) -> float:
        return self._n_words(bits) * self.serial.t_word_s


def _apart(a: Pair, b: Pair) -> int:
    return abs(a[0] - b[0]) + abs(a[1] - b[1])


def _partial_bits(layer: PlacedLayer) -> int:
    return int(getattr(layer.sense.adc, "n_bits", 8))


def _window(step: Step) -> Window | None:
    return step.operator.window if isinstance(step.operator, (MaxPool, AveragePool)) else None
