"""An accelerator, described: its cells, how weights are mapped on them, how they are driven and sensed.

Everything is a frozen record in SI; a spec in TOML, a preset or Python makes the same record, and `to_toml` writes it
back. A layer may differ (`[layers."features.0"]`): `for_layer` returns the accelerator that this layer sees.
"""

import dataclasses
import hashlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Literal, Self, TypeAlias

import numpy as np

from accelsim import spec
from accelsim.chip import Chip
from devices import catalog
from devices.base.errors import SpecError
from devices.base.quantity import format_quantity
from devices.base.toml_codec import (
    NONE,
    Entry,
    Faults,
    Table,
    about,
    check_types,
    decode,
    entries,
    joined,
    kind_of,
    raise_faults,
    shown,
    to_table,
    value_text,
    write_lines,
)
from devices.law import MAX_ERROR_REL, CellLaw, ConductionLaw, ConverterLaw, ReadLaw
from devices.weight_encoding import Encoding
from devices.writing import WriteVerify

if TYPE_CHECKING:
    from accelsim.memory_spec import Memories
else:
    Memories = object  # SciPy and Numba are slow to import: `_memories` has the type when a spec has any

Leaf: TypeAlias = float | int | bool | str | tuple[float, ...] | None

SCHEMA = 1


def _programming_laws() -> dict[str, type]:
    from devices.cells import PROGRAMMING_LAWS  # SciPy is slow to import

    return dict(PROGRAMMING_LAWS)


def _read_laws() -> dict[str, type]:
    from devices.read_noise import READ_LAWS

    return dict(READ_LAWS)


def _drift_laws() -> dict[str, type]:
    from devices.ageing import AGEING_LAWS

    return dict(AGEING_LAWS)


def _stuck_laws() -> dict[str, type]:
    from devices.stuck import STUCK_LAWS

    return dict(STUCK_LAWS)


def _slow_laws() -> dict[str, type]:
    from devices.low_frequency_noise import LOW_FREQUENCY_LAWS

    return dict(LOW_FREQUENCY_LAWS)


def _conduction_laws() -> dict[str, type]:
    from devices.conduction import CONDUCTION_LAWS

    return dict(CONDUCTION_LAWS)


def _memories() -> type:
    from accelsim.memory_spec import Memories

    return Memories


def _converters() -> dict[str, type]:
    from devices.converter import CONVERTERS

    return dict(CONVERTERS)


MAX_SLICE_BITS = 24
SMALLEST, LARGEST = 1e-15, 1e15
"""What a physical quantity of a spec may be, in SI: no device leaves this, and its square is a float32."""


N_STATES_CHECKED = 65


def _check_numbers(record: object) -> None:
    """Raise SpecError for wrong types and bounds, and for magnitudes with which computing makes no sense."""
    wrong = check_types(record)
    for entry in entries(type(record)):
        value = getattr(record, entry.name)
        is_divisor = entry.about.above == 0.0
        if isinstance(value, float) and (value > LARGEST or (is_divisor and 0.0 < value < SMALLEST)):
            wrong.append(f"{entry.name}: {shown(value)}: need a value from {SMALLEST:g} to {LARGEST:g}, in SI units")
    raise_faults(wrong)


_OVER = "over cell.g_max_siemens (state_independent; inverse_proportional: there) or over the conductance (proportional)."
_PROGRAMMING = {
    "error_rel": f"Standard deviation of the error, {_OVER}",
    "clip": "Whether a conductance that would be negative is zero instead.",
}
_CONVERTER: dict[str, str] = {}
_READ_NOISE = {"error_rel": f"Standard deviation of the noise, {_OVER}"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Cell:
    """What the technology gives; never optimized. Needs 0 <= g_min_siemens < g_max_siemens."""

    g_min_siemens: float = field(metadata=about("Lowest conductance a cell can be given.", at_least=0.0))
    g_max_siemens: float = field(metadata=about("Highest conductance a cell can be given; relative errors are over it.", above=0.0))
    source: str = field(default="", metadata=about("Where the numbers of this cell are from.", per_layer=False))
    programming: CellLaw | None = field(
        default=None,
        metadata=about("What stored conductances miss their targets by.", absent="no error", kinds=_programming_laws, docs=_PROGRAMMING),
    )
    write_verify: WriteVerify | None = field(
        default=None, metadata=about("How cells are written again until they are near their targets.", absent="once")
    )
    device_to_device: CellLaw | None = field(
        default=None,
        metadata=about(
            "By how much each cell's targets are off for good, before it is written.",
            absent="cells are alike",
            kinds=_programming_laws,
            docs=_PROGRAMMING,
        ),
    )
    stuck: CellLaw | None = field(
        default=None, metadata=about("Cells that hold the same conductance whatever is asked for.", absent="none do", kinds=_stuck_laws)
    )
    low_frequency_noise: CellLaw | None = field(
        default=None,
        metadata=about("How stored conductances wander, the same for all reads of an inference.", absent="they do not", kinds=_slow_laws),
    )
    drift: CellLaw | None = field(
        default=None,
        metadata=about("How stored conductances fall with time.", absent="they do not", kinds=_drift_laws),
    )
    read_noise: ReadLaw | None = field(
        default=None,
        metadata=about("What is added afresh at each read.", absent="no noise", kinds=_read_laws, docs=_READ_NOISE),
    )
    conduction: ConductionLaw | None = field(
        default=None,
        metadata=about("How the current goes with the voltage.", absent="in proportion to it", kinds=_conduction_laws),
    )

    def __post_init__(self) -> None:
        _check_numbers(self)
        if not self.g_min_siemens < self.g_max_siemens:
            raise SpecError(f"need 0 <= g_min_siemens < g_max_siemens, got {self.g_min_siemens:g} S and {self.g_max_siemens:g} S")
        if self.write_verify is not None and self.programming is None:
            raise SpecError("write_verify: needs a cell.programming: the error of a single write, which it makes smaller")
        raise_faults([line for name in ("programming", "device_to_device") for line in self._too_wide(name)])

    def _too_wide(self, name: str) -> list[str]:
        """Return the fault of a law whose standard deviation is beyond MAX_ERROR_REL of the range somewhere in it."""
        from devices.programming import GaussianError  # Numba is slow to import

        law = getattr(self, name)
        if not isinstance(law, GaussianError):
            return []
        states = np.linspace(self.g_min_siemens, self.g_max_siemens, N_STATES_CHECKED)
        with np.errstate(over="ignore", invalid="ignore"):
            largest = float(np.max(law.std_siemens(states[states > 0.0], self.g_max_siemens)))
        if largest <= MAX_ERROR_REL * self.g_max_siemens:
            return []
        return [
            f"{name}: {kind_of(law)}: the standard deviation reaches {largest:.3g} S within the range; "
            f"need at most {MAX_ERROR_REL:g} times g_max_siemens, {self.g_max_siemens:g} S"
        ]


@dataclass(frozen=True, slots=True, kw_only=True)
class ArraySize:
    """The largest array there is, and its wires; a layer that needs more is split over several."""

    n_rows: int | None = field(default=None, metadata=about("Inputs of one array.", at_least=1, absent="as many as the layer has"))
    n_columns: int | None = field(default=None, metadata=about("Outputs of one array.", at_least=1, absent="as many as the layer has"))
    word_ohm: float = field(default=0.0, metadata=about("Resistance of a word line (row) from cell to cell.", at_least=0.0))
    bit_ohm: float = field(default=0.0, metadata=about("Resistance of a bit line (column) from cell to cell.", at_least=0.0))
    driven: Literal["one_end", "both_ends"] = field(default="one_end", metadata=about("Where word lines meet their sources."))

    def __post_init__(self) -> None:
        raise_faults(check_types(self))


@dataclass(frozen=True, slots=True, kw_only=True)
class Mapping:
    """What the designer chooses: which conductance stands for which weight."""

    encoding: Literal["differential", "offset"] = field(
        default="differential",
        metadata=about("How a signed weight is stored: as a pair, or in one cell around the middle of the range.", per_layer=False),
    )
    scale: Literal["network", "layer", "column"] = field(
        default="layer", metadata=about("What shares one factor from weights to conductances.", per_layer=False)
    )
    g_used_siemens: float | None = field(
        default=None, metadata=about("Conductance of the largest weight; optimize() moves it.", above=0.0, absent="cell.g_max_siemens")
    )
    levels: int | None = field(
        default=None, metadata=about("Conductances a cell can be asked for, over the range used.", at_least=2, absent="analog")
    )
    slice_bits: tuple[float, ...] | None = field(
        default=None,
        metadata=about("Bits of each slice of a weight, most significant first, each in a cell of its own.", absent="one cell holds it"),
    )
    rounding: Literal["nearest", "floor"] = field(
        default="nearest", metadata=about("How a target becomes a level; floor only reproduces the MemSE code, at 4x to 85x more error.")
    )
    replicas: int = field(default=1, metadata=about("Copies of a layer's arrays, which work on pixels side by side.", at_least=1))
    bias: Literal["digital", "device"] = field(default="digital", metadata=about("Where biases are kept.", per_layer=False))
    drift_compensation: bool = field(
        default=False, metadata=about("Whether each layer's outputs are scaled up by what its conductances have lost on average.")
    )
    precompensate: bool = field(default=False, metadata=about("Whether targets are moved so that clipping leaves no bias."))
    array: ArraySize | None = field(default=None, metadata=about("Size of an array.", absent="one array a layer"))

    def __post_init__(self) -> None:
        _check_numbers(self)
        if self.slice_bits is not None:
            if not self.slice_bits or any(b != int(b) for b in self.slice_bits):
                raise SpecError(f"slice_bits: {list(self.slice_bits)}: need whole numbers of bits, e.g. [2, 2, 2, 2]")
            object.__setattr__(self, "slice_bits", tuple(int(b) for b in self.slice_bits))
            Encoding(levels=self.levels, slice_bits=tuple(int(b) for b in self.slice_bits))  # raises for what does not fit
        if self.precompensate and self.encoding != "differential":
            raise SpecError("precompensate: moves pairs so that clipping cancels; it needs encoding = \"differential\"")


@dataclass(frozen=True, slots=True, kw_only=True)
class Drive:
    """How inputs are applied."""

    v_read_v: float = field(metadata=about("Read voltage, reached by a layer's calibrated maximum.", above=0.0))
    dac: ConverterLaw | None = field(
        default=None,
        metadata=about("What turns inputs into voltages.", absent="any voltage can be applied", kinds=_converters, docs=_CONVERTER),
    )
    slice_bits: int | None = field(
        default=None,
        metadata=about("Bits of an input that are applied at a time, in as many reads as that takes.", at_least=1, absent="all at once"),
    )
    t_read_s: float | None = field(
        default=None, metadata=about("Time one read takes.", above=0.0, absent="energies are not known, power is", per_layer=False)
    )
    rate_hz: float | None = field(
        default=None,
        metadata=about(
            "Inferences a second.", above=0.0, absent="1 / (largest number of positions of a layer x read time)", per_layer=False
        ),
    )

    def __post_init__(self) -> None:
        _check_numbers(self)
        if getattr(self.dac, "range_per", "layer") != "layer":
            raise SpecError('dac.range_per: "tile": inputs are converted for a whole layer; only sense.adc has a range for each tile')
        if self.slice_bits is not None and self.dac is None:
            raise SpecError("slice_bits: inputs need a [drive.dac] before they can be applied in slices")
        if self.slice_bits is not None and self.slice_bits > MAX_SLICE_BITS:
            raise SpecError(f"slice_bits: {self.slice_bits}: need at most {MAX_SLICE_BITS}, as of any DAC; leave it out for all at once")


@dataclass(frozen=True, slots=True, kw_only=True)
class Sense:
    """How currents are read."""

    adc: ConverterLaw | None = field(
        default=None,
        metadata=about("What turns a column's current into a number.", absent="any current is known", kinds=_converters, docs=_CONVERTER),
    )
    feedback_ohm: float | None = field(
        default=None, metadata=about("Feedback resistance of the transimpedance amplifiers.", above=0.0, absent="no amplifier power term")
    )

    def __post_init__(self) -> None:
        _check_numbers(self)


@dataclass(frozen=True, slots=True, kw_only=True)
class LayerOverride:
    """What one layer has different: dotted paths and their values in SI, None for absent."""

    name: str
    leaves: tuple[tuple[str, Leaf], ...]

    def table(self) -> spec.Table:
        """Return the leaves as nested tables."""
        table: spec.Table = {}
        for path, value in self.leaves:
            table = spec.assigned(table, tuple(path.split(".")), value=NONE if value is None else value)
        return table


@dataclass(frozen=True, slots=True, kw_only=True, repr=False)
class Accelerator:
    """A whole accelerator.

    Raises SpecError unless cell.g_min_siemens < mapping.g_used_siemens <= cell.g_max_siemens, for every layer.
    """

    schema: int = field(default=SCHEMA, metadata=about("Version of this format.", per_layer=False))
    name: str = field(metadata=about("Name of this accelerator.", per_layer=False))
    cell: Cell = field(metadata=about("What the technology gives."))
    mapping: Mapping = field(default=Mapping(), metadata=about("What the designer chooses."))
    drive: Drive = field(metadata=about("How inputs are applied."))
    sense: Sense = field(default=Sense(), metadata=about("How currents are read."))
    memory: Memories | None = field(
        default=None,
        metadata=about("What is stored as words, in memories that err.", absent="nothing is", record=_memories, short=False),
    )
    chip: Chip | None = field(
        default=None, metadata=about("What is around the arrays.", absent="time and energy are not known", per_layer=False)
    )
    layers: tuple[LayerOverride, ...] = field(default=(), metadata=about("What layers have different.", coded=False))

    def __post_init__(self) -> None:
        raise_faults(check_types(self))
        if self.schema != SCHEMA:
            raise SpecError(f"schema: {self.schema}: need {SCHEMA}; this version reads no other")
        used, low, high = self.mapping.g_used_siemens, self.cell.g_min_siemens, self.cell.g_max_siemens
        if used is not None and not low < used <= high:
            raise SpecError(
                f"mapping.g_used_siemens: need cell.g_min_siemens < g_used_siemens <= cell.g_max_siemens, "
                f"got {used:g} S with {low:g} S and {high:g} S; move g_used_siemens into the range"
            )
        self._check_layers()

    def _check_layers(self) -> None:
        ordered = tuple(sorted(self.layers, key=lambda layer: layer.name))
        if len({layer.name for layer in ordered}) < len(ordered):
            raise SpecError("layers: the same name twice")
        object.__setattr__(self, "layers", ordered)
        if ordered:
            faults = Faults(self.name)
            tables = {layer.name: layer.table() for layer in ordered}
            decoded = _decode_layers(tables, base=to_table(self), faults=faults)
            raise_faults(faults.lines)
            object.__setattr__(self, "layers", decoded)

    @classmethod
    def from_toml(cls, source: str | Path, *, set: Iterable[str] = ()) -> Self:
        """Return the accelerator of a preset or a spec file, with `set` (as in `--set`) applied.

        Raises SpecError with every fault of the file at once.
        """
        try:
            table, origin = spec.load(source)
            return cls._from_table(table, origin=origin, assignments=set)
        except RecursionError:
            raise SpecError(f"{source}: nested too deeply") from None

    @classmethod
    def from_text(cls, text: str, *, origin: str = "spec", folder: Path | None = None, set: Iterable[str] = ()) -> Self:
        """Return the accelerator of a spec in TOML; it may `use` files only when `folder` says where they are."""
        try:
            table, full_origin = spec.load_text(text, origin=origin, folder=folder)
            return cls._from_table(table, origin=full_origin, assignments=set)
        except RecursionError:
            raise SpecError(f"{origin}: nested too deeply") from None

    @classmethod
    def preset(cls, name: str, *, set: Iterable[str] = ()) -> Self:
        """Return a preset of the catalog; never a file."""
        return cls.from_text(catalog.text(name), origin=name, set=set)

    @classmethod
    def _from_table(cls, table: Table, *, origin: str, assignments: Iterable[str]) -> Self:
        changed = dict(table)
        for assignment in assignments:
            changed = _assigned(changed, assignment)
            origin = f"{origin}, set {shown(assignment)}" if len(origin) < 200 else origin
        faults = Faults(origin)
        layers = changed.pop("layers", {})
        record = decode(cls, changed, faults=faults, also=("use", "layers"))
        decoded = _decode_layers(layers, base=changed, faults=faults)
        faults.raise_if_any()
        assert record is not None
        return dataclasses.replace(record, layers=decoded)

    def with_set(self, *assignments: str) -> Self:
        """Return the accelerator with leaves changed, each as in `cell.error_rel=0.03`.

        A path may be shortened while one leaf only matches it. Raises SpecError with the candidates otherwise.
        """
        return self._from_table(self.to_table(), origin=self.name, assignments=assignments)

    def located(self, path: str) -> tuple[str, Entry | None]:
        """Return the full path that a path of `with_set` stands for, and what its field holds (None for kinds and whole tables).

        Raises SpecError where no field, or more than one, has this path.
        """
        names, _ = spec.split_assignment(f"{path}=0")
        full, entry = _located(self.to_table(), names)
        return spec.dotted(full), entry

    def for_layer(self, name: str) -> Self:
        """Return what one layer sees: this accelerator with the layer's own values, and no layers."""
        plain = dataclasses.replace(self, layers=())
        for layer in self.layers:
            if layer.name == name:
                return self._from_table(spec.merged(plain.to_table(), layer.table()), origin=self.name, assignments=())
        return plain

    @property
    def layer_names(self) -> tuple[str, ...]:
        """Names of the layers that differ, sorted; `place` checks that the network has them."""
        return tuple(layer.name for layer in self.layers)

    def to_table(self) -> spec.Table:
        """Return nested tables of plain values in SI; what is absent is left out."""
        layers = {layer.name: layer.table() for layer in self.layers}
        return to_table(self) | ({"layers": layers} if layers else {})

    def to_toml(self, *, comments: bool = False) -> str:
        """Return the complete spec; with comments, the meaning, unit, range and default of every field."""
        lines = [*write_lines(self, comments=comments), *(_LAYERS_COMMENT if comments else ()), *_layer_lines(self.layers)]
        return "\n".join(lines).lstrip("\n") + "\n"

    @property
    def digest(self) -> str:
        """SHA-256 of the complete spec."""
        return hashlib.sha256(self.to_toml().encode()).hexdigest()

    def __repr__(self) -> str:
        low = format_quantity(self.cell.g_min_siemens, "siemens", n_digits=4)
        high = format_quantity(self.cell.g_max_siemens, "siemens", n_digits=4)
        v_read = format_quantity(self.drive.v_read_v, "volt", n_digits=4)
        return f"Accelerator({self.name!r}, {low} to {high}, {v_read}, digest {self.digest[:8]})"


_LAYERS_COMMENT = (
    "",
    "# What one layer has different, under its name as `accelsim inspect` prints it, for example:",
    '# [layers."features.0"]',
    '# mapping.g_used_siemens = "20 uS"',
)


def _layer_lines(layers: tuple[LayerOverride, ...]) -> Iterator[str]:
    for layer in layers:
        yield from ("", f"[{joined('layers', layer.name)}]")
        for path, value in layer.leaves:
            yield f"{path} = {value_text(path.rpartition('.')[2], value)}"


def _decode_layers(raw: object, *, base: Table, faults: Faults) -> tuple[LayerOverride, ...]:
    if not isinstance(raw, dict):
        faults.add("layers", 'need tables such as [layers."features.0"]', value=raw)
        return ()
    every = (_decode_layer(name, raw[name], base=base, faults=faults) for name in sorted(raw))
    return tuple(layer for layer in every if layer is not None)


def _decode_layer(name: str, partial: object, *, base: Table, faults: Faults) -> LayerOverride | None:
    path = joined("layers", name)
    if not name or not isinstance(partial, dict):
        faults.add(path, "need a table of what the layer has different, under the layer's name", value=partial)
        return None
    _refuse_shared(partial, faults=faults, path=path)
    own = Faults(faults.origin)
    record = decode(Accelerator, spec.merged(base, partial), faults=own, path=path)
    if record is None:
        of_base = Faults(faults.origin)
        decode(Accelerator, base, faults=of_base, path=path)
        for line in own.lines:
            if line not in of_base.lines:
                faults.add("", line)
        return None
    full = to_table(record)
    leaves = tuple(sorted((spec.dotted(leaf), spec.lookup(full, leaf)) for leaf, _ in spec.flattened(partial)))
    return LayerOverride(name=name, leaves=leaves)


def _refuse_shared(partial: Table, *, faults: Faults, path: str) -> None:
    shared = spec.settable(Accelerator).keys() - spec.settable(Accelerator, per_layer=True).keys()
    for leaf, _ in spec.flattened(partial):
        if leaf in shared:
            faults.add(f"{path}.{spec.dotted(leaf)}", "a layer cannot differ in this; set it for the whole accelerator")


def _assigned(table: spec.Table, assignment: str) -> spec.Table:
    path, text = spec.split_assignment(assignment)
    full, entry = _located(table, path)
    return spec.assigned(table, full, value=spec.set_value(text, entry))


def _located(table: spec.Table, path: spec.Path_) -> tuple[spec.Path_, Entry | None]:
    """Return the full path that a `--set` path stands for, and its field."""
    if path[0] != "layers":
        return spec.resolved(Accelerator, path, table=table)
    layers = table.get("layers")
    layers = layers if isinstance(layers, dict) else {}
    name, rest = spec.split_layer_path(Accelerator, path[1:], table=table, layers=layers)
    own = layers.get(name)
    local = spec.merged(table, own if isinstance(own, dict) else {})
    full, entry = spec.resolved(Accelerator, rest, table=local, layer=name)
    return ("layers", name, *full), entry
