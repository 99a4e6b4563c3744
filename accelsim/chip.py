"""The chip around the arrays: how arrays are grouped, what they share, what each part takes in energy, power and area.

    chip > tile > core > array            a core is what a tile has several of (an IMA of ISAAC, a core of PUMA); often there is one

Parts are a list of facts, each with its source: how many there are of it in an array, core, tile or on the chip, what one of its actions
takes, its power while it works, its leakage and its area. Counts of actions come from the plan; energy is counts times unit energies.

Layers whose weights are words in a memory are on no array: a digital engine of multiply-add units computes them.
"""

from dataclasses import dataclass, field
from typing import Literal

from devices.base.errors import SpecError
from devices.base.toml_codec import about, check_types, raise_faults

Action = Literal[
    "read", "drive", "convert", "merge", "load", "store", "move", "compute", "off_chip", "write", "multiply_add", "multiply_bits",
    "sum_bits",
]
Per = Literal["array", "core", "tile", "chip", "unit"]
Dataflow = Literal["output", "weight", "input"]
Tag = Literal["source_code", "measured", "published", "abstract", "note", "derived", "remembered"]

ACTIONS: dict[str, str] = {
    "read": "one read of one array (one input slice)",
    "drive": "one row driven in one read",
    "convert": "one column's current turned into a number",
    "merge": "one number shifted and added",
    "load": "one bit from a tile's buffer to its arrays",
    "store": "one bit of a result into a tile's buffer",
    "move": "one bit over one link of the network between tiles",
    "compute": "one operation of a digital unit: an activation, a comparison, a sum",
    "off_chip": "one bit in or out of the chip",
    "write": "one cell written",
    "multiply_add": "one multiply-add of the digital engine",
    "multiply_bits": "one bit of a weight times one bit of an activation, in a multiply-add of the digital engine",
    "sum_bits": "one bit of the sum of a multiply-add of the digital engine",
}
OF_ENGINES = ("multiply_add", "multiply_bits", "sum_bits")
"""What only a digital engine does."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Part:
    """One kind of part: how many, what it does, what that takes, and who says so."""

    name: str = field(default="", metadata=about("Its name.", coded=False))
    per: Per = field(metadata=about("Where it is: so many in each; a unit is one multiply-add unit of a digital engine."))
    count: float = field(default=1.0, metadata=about("How many in each; a quarter where four share one.", above=0.0))
    action: Action | None = field(default=None, metadata=about("What it does that takes energy.", absent="its energy is that of others"))
    energy_j: float = field(default=0.0, metadata=about("Energy of one action.", at_least=0.0))
    power_w: float = field(default=0.0, metadata=about("Power of one while it works, for the sum over the chip.", at_least=0.0))
    leakage_w: float = field(default=0.0, metadata=about("Power of one while it does nothing.", at_least=0.0))
    area_m2: float = field(default=0.0, metadata=about("Area of one.", at_least=0.0))
    cells: bool = field(default=False, metadata=about("Whether its energy is the cells', which follows from data where samples are given."))
    converters: bool = field(default=False, metadata=about("Whether its energy holds that of DACs and ADCs, which is not counted again."))
    tag: Tag = field(metadata=about("How its numbers are known; remembered ones are told as such in reports."))
    source: str = field(metadata=about("Who says so."))

    def __post_init__(self) -> None:
        raise_faults(check_types(self))
        if self.energy_j > 0.0 and self.action is None:
            raise SpecError(f"energy_j: {self.energy_j:g} J, but no action that takes it; give one of {', '.join(ACTIONS)}")
        if (self.cells or self.converters) and self.action != "read":
            raise SpecError('cells, converters: only a part whose action is "read" holds their energy')


@dataclass(frozen=True, slots=True, kw_only=True)
class Mesh:
    """A mesh of routers, one a tile; routes go along rows first, then columns."""

    flit_bits: int = field(metadata=about("Bits that a link moves in a cycle.", at_least=1))
    clock_hz: float = field(metadata=about("Cycles a second.", above=0.0))
    hop_cycles: int = field(metadata=about("Cycles that a head takes through one router and link.", at_least=1))

    def __post_init__(self) -> None:
        raise_faults(check_types(self))


@dataclass(frozen=True, slots=True, kw_only=True)
class OffChip:
    """The way in and out: images, and weights where they do not fit."""

    bit_rate_hz: float = field(metadata=about("Bits a second.", above=0.0))
    latency_s: float = field(default=0.0, metadata=about("Time until the first bit is there.", at_least=0.0))

    def __post_init__(self) -> None:
        raise_faults(check_types(self))


@dataclass(frozen=True, slots=True, kw_only=True)
class Serial:
    """Times of products whose steps follow one another, on tiles that layers do not share: `accelsim.timing.serial`."""

    rows_at_once: int = field(metadata=about("Rows of an array that are driven at a time.", at_least=1))
    columns_at_once: int = field(metadata=about("Columns of an array that are converted at a time.", at_least=1))
    t_drive_s: float = field(metadata=about("Until the rows' voltages are there, for each read.", at_least=0.0))
    t_select_s: float = field(metadata=about("Of decoders and multiplexers, for each read.", at_least=0.0))
    word_bits: int = field(metadata=about("Bits of a buffer's word.", at_least=1))
    t_word_s: float = field(metadata=about("Time to read or write a word.", at_least=0.0))
    tree_bits_hz: float = field(metadata=about("Bits a second between the cores of a tile.", above=0.0))
    link_bits_hz: float = field(metadata=about("Bits a second between tiles.", above=0.0))
    side: int = field(metadata=about("Tiles along a side of the chip.", at_least=1))
    t_pool_s: float = field(metadata=about("Time of a pooling unit.", at_least=0.0))
    pool_channels: int = field(metadata=about("Channels that pooling units take at once.", at_least=1))
    pool_taps: int = field(metadata=about("Values that a pooling unit takes at once.", at_least=1))
    t_sum_s: float = field(metadata=about("Time of a sum of layers, without its buffer.", at_least=0.0))

    def __post_init__(self) -> None:
        raise_faults(check_types(self))


@dataclass(frozen=True, slots=True, kw_only=True)
class Port:
    """The port of a memory at a digital engine."""

    bits: int = field(metadata=about("Bits that one access reads or writes.", at_least=1))
    t_access_s: float | None = field(
        default=None,
        metadata=about("Time from one access to the next.", above=0.0, absent="a cycle of the engine, or the memory's own time if longer"),
    )

    def __post_init__(self) -> None:
        raise_faults(check_types(self))


@dataclass(frozen=True, slots=True, kw_only=True)
class Digital:
    """The engine that computes layers whose weights are words in a memory: an array of multiply-add units."""

    rows: int = field(metadata=about("Rows of multiply-add units.", at_least=1))
    columns: int = field(metadata=about("Columns of multiply-add units.", at_least=1))
    dataflow: Dataflow = field(default="weight", metadata=about("What stays in the units while the rest streams."))
    shared: bool = field(default=True, metadata=about("Whether one engine does all layers in turn; each has its own otherwise."))
    clock_hz: float | None = field(default=None, metadata=about("Cycles a second of the units.", above=0.0, absent="as chip.clock_hz"))
    sum_bits: int | None = field(
        default=None, metadata=about("Bits of the sums in the units.", at_least=1, absent="not told; parts that take energy by it need it")
    )
    weights: Port | None = field(default=None, metadata=about("Port of the memory of weights.", absent="it never limits", short=False))
    activations: Port | None = field(
        default=None, metadata=about("Port of the memory of activations.", absent="it never limits", short=False)
    )
    partial_sums: Port | None = field(
        default=None, metadata=about("Port of the memory of partial sums.", absent="it never limits", short=False)
    )

    def __post_init__(self) -> None:
        raise_faults(check_types(self))


@dataclass(frozen=True, slots=True, kw_only=True)
class Chip:
    """How arrays are grouped and how fast what is around them is."""

    n_tiles: int | None = field(default=None, metadata=about("Tiles of a chip.", at_least=1, absent="as many as the network takes"))
    n_chips: int | None = field(default=None, metadata=about("Chips there are.", at_least=1, absent="as many as the network takes"))
    cores_per_tile: int = field(default=1, metadata=about("Cores of a tile.", at_least=1))
    arrays_per_core: int = field(default=1, metadata=about("Arrays of a core.", at_least=1))
    slices: Literal["together", "apart"] = field(
        default="together", metadata=about("Whether the slices of a weight share an array or have arrays of their own.")
    )
    clock_hz: float = field(metadata=about("Cycles a second of the digital parts.", above=0.0))
    read_stages: int = field(
        default=1, metadata=about("Stages that a read passes, each as long as a read.", at_least=1)
    )
    extra_s: float = field(default=0.0, metadata=about("Further time until a product's result is in the buffer.", at_least=0.0))
    columns_per_adc: int | None = field(
        default=None, metadata=about("Columns that one ADC converts in turn, beside the next read.", at_least=1, absent="one each")
    )
    t_convert_s: float | None = field(
        default=None, metadata=about("Time of one conversion.", above=0.0, absent="that of sense.adc.conversion, where it is known")
    )
    adcs_per_tile: int | None = field(
        default=None, metadata=about("ADCs that the arrays of a tile share.", at_least=1, absent="arrays have their own")
    )
    bus_bits: int | None = field(
        default=None, metadata=about("Bits that a tile's bus brings to its arrays in a cycle.", at_least=1, absent="it never limits")
    )
    lanes: int | None = field(
        default=None, metadata=about("Operations a cycle of a tile's digital units.", at_least=1, absent="they never limit")
    )
    buffer_bits: int | None = field(default=None, metadata=about("Bits that a tile's buffer holds.", at_least=1, absent="enough"))
    value_bits: int | None = field(default=None, metadata=about("Bits of an activation.", at_least=1, absent="those of drive.dac, or 8"))
    t_write_s: float | None = field(
        default=None, metadata=about("Time to write one row of an array.", above=0.0, absent="weights that do not fit are refused")
    )
    endurance: float | None = field(default=None, metadata=about("Times a cell can be written.", above=0.0, absent="not told"))
    leakage: Literal["always_on", "gate_after_last", "gate_idle"] = field(
        default="always_on", metadata=about("When parts leak: all the time, until their layer's last token, or while it works.")
    )
    mesh: Mesh | None = field(default=None, metadata=about("What connects the tiles.", absent="results are there at once"))
    off_chip: OffChip | None = field(default=None, metadata=about("The way in and out.", absent="images are there at once"))
    serial: Serial | None = field(
        default=None, metadata=about("Times of products whose steps follow one another.", absent="the stages of a product overlap")
    )
    digital: Digital | None = field(
        default=None,
        metadata=about("What computes layers whose weights are in a memory.", absent="nothing does; such layers are refused", short=False),
    )
    parts: tuple[Part, ...] = field(default=(), metadata=about("What the chip is made of, each part under its name."))

    def __post_init__(self) -> None:
        raise_faults(check_types(self))
        for part in self.parts:
            self._check_engine(part)

    def _check_engine(self, part: Part) -> None:
        """Raise SpecError for a part of a digital engine that is not there, or whose sums have no width."""
        if self.digital is None and (part.per == "unit" or part.action in OF_ENGINES):
            raise SpecError(f"parts.{part.name}: is of a digital engine, and there is no [chip.digital]; give it, or leave the part out")
        if self.digital is not None and self.digital.sum_bits is None and part.action == "sum_bits":
            raise SpecError(f"digital.sum_bits: absent, but parts.{part.name} takes energy for each bit of a sum; set it")

    @property
    def arrays_per_tile(self) -> int:
        """Arrays of a tile."""
        return self.cores_per_tile * self.arrays_per_core

    def count_of(self, part: Part, n_tiles: int, n_engines: int = 0) -> float:
        """Return how many of a part there are on `n_tiles` tiles, with so many digital engines."""
        cores = n_tiles * self.cores_per_tile
        units = 0 if self.digital is None else n_engines * self.digital.rows * self.digital.columns
        return part.count * {"chip": 1, "tile": n_tiles, "core": cores, "array": cores * self.arrays_per_core, "unit": units}[part.per]


@dataclass(frozen=True, slots=True, kw_only=True)
class Rollup:
    """Power while everything works, leakage and area of a whole chip, by part."""

    power_w: dict[str, float]
    leakage_w: dict[str, float]
    area_m2: dict[str, float]


def rollup(chip: Chip, n_tiles: int, n_engines: int = 0) -> Rollup:
    """Return the sums over all parts of a chip of `n_tiles` tiles and `n_engines` digital engines."""
    counts = {part.name: chip.count_of(part, n_tiles, n_engines) for part in chip.parts}
    return Rollup(
        power_w={part.name: counts[part.name] * part.power_w for part in chip.parts},
        leakage_w={part.name: counts[part.name] * part.leakage_w for part in chip.parts},
        area_m2={part.name: counts[part.name] * part.area_m2 for part in chip.parts},
    )
