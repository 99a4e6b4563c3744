"""What of a network is stored as words in memories: weights, activations and partial sums, each in a memory of its own.

    [memory.weights]              a layer that has it is computed digitally, from weights read out of that memory
    [memory.activations]          each layer's input is written to it and read from it
    [memory.partial_sums]         the sums of a layer's row blocks, where it is split over several

Each is a technology (`use`, a preset of `accelsim memory`, or a `law`), a word format, faults, a code or none, and one operating point:
`error_rate_p`, `energy_rel`, `v_rel` or `bit_error_rates_p`. A layer may differ in all of it.
"""

from dataclasses import dataclass, field
from typing import Any, ClassVar, Literal, TypeAlias

import numpy as np

from devices import catalog
from devices.base.errors import SpecError
from devices.base.toml_codec import about, check_types, raise_faults
from devices.ecc import ECCS, Ecc
from devices.memory import POINTS, Memory, technology
from devices.memory_faults import FAULT_KINDS, MemoryFaults, TransientFlips
from devices.reliability import RELIABILITY_LAWS
from devices.reliability_law import ReliabilityLaw
from devices.word_format import WordFormat

DEFAULT_WORD = WordFormat(coding="twos_complement", n_bits=8)
DEFAULT_FAULTS = TransientFlips()
ReadEach: TypeAlias = Literal["inference", "position"]
_POINT = "one of the four; not needed for a fixed point"


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredWords:
    """A memory of a spec, at its operating point."""

    part: ClassVar[str] = "words"
    use: str | None = field(default=None, metadata=about("A preset of `accelsim memory`.", absent="the law is below"))
    read_energy_j: float | None = field(
        default=None, metadata=about("Energy to read one bit at the law's energy 1.", at_least=0.0, absent="the preset's, or not counted")
    )
    write_energy_j: float | None = field(
        default=None, metadata=about("Energy to write one bit at the law's energy 1.", at_least=0.0, absent="the preset's, or not counted")
    )
    decode_energy_j: float = field(default=0.0, metadata=about("Energy of ecc's logic at a read, a number; 0: not counted.", at_least=0.0))
    encode_energy_j: float = field(default=0.0, metadata=about("Energy of ecc's logic at a write, a number; 0: not counted.", at_least=0.0))
    read_each: ReadEach = field(
        default="inference", metadata=about("Whether a number is read once an inference and held, or for every position that uses it.")
    )
    error_rate_p: float | None = field(default=None, metadata=about("Error rate of every bit.", at_least=0.0, absent=_POINT))
    energy_rel: float | None = field(default=None, metadata=about("Energy over the law's energy 1.", at_least=0.0, absent=_POINT))
    v_rel: float | None = field(default=None, metadata=about("Voltage over the law's reference.", above=0.0, absent=_POINT))
    bit_error_rates_p: tuple[float, ...] | None = field(
        default=None, metadata=about("Error rate of each bit, the least significant first.", at_least=0.0, absent=_POINT)
    )
    word: WordFormat = field(default=DEFAULT_WORD, metadata=about("How numbers are stored."))
    faults: MemoryFaults = field(default=DEFAULT_FAULTS, metadata=about("Which bits err.", kinds=lambda: FAULT_KINDS))
    law: ReliabilityLaw | None = field(
        default=None, metadata=about("Energy by error rate.", absent="the preset's", kinds=lambda: RELIABILITY_LAWS)
    )
    ecc: Ecc | None = field(default=None, metadata=about("What protects the numbers.", absent="nothing does", kinds=lambda: ECCS))

    def __post_init__(self) -> None:
        raise_faults(check_types(self))
        if self.use is not None and self.use not in catalog.names(catalog.MEMORY):
            raise SpecError(f"use: {catalog.unknown(self.use, folder=catalog.MEMORY)}")
        if self.use is None and self.law is None:
            raise SpecError('use: missing; need a preset of `accelsim memory`, e.g. use = "sram_14nm", or a [law]')
        if self.read_each == "position" and self.faults.scope == "read" and np.any(self.memory().error_rates > 0.0):
            raise SpecError(
                'read_each: position: transient faults that are fresh at each position are not modelled; use read_each = "inference", or '
                "persistent faults"
            )
        self.memory()

    def memory(self) -> Memory:
        """Return the memory that this describes."""
        known: dict[str, Any] = {}
        if self.use is not None:
            made = technology(self.use)
            names = ("law", "read_energy_j", "write_energy_j", "read_time_s", "write_time_s", "source")
            known = {name: value for name in names if (value := getattr(made, name)) is not None}
        own = ("read_energy_j", "write_energy_j", "law", *POINTS)
        known |= {name: value for name in own if (value := getattr(self, name)) is not None}
        return Memory(
            **{"read_energy_j": 0.0, "write_energy_j": 0.0} | known, word=self.word, faults=self.faults, ecc=self.ecc,
            decode_energy_j=self.decode_energy_j, encode_energy_j=self.encode_energy_j,
        )  # fmt: skip


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredWeights(StoredWords):
    """The memory of weights: the greatest word stands for the largest weight. Binary: w = s sign(w), s the mean magnitude, or given."""

    part: ClassVar[str] = "weights"
    step_per: Literal["layer", "column"] = field(default="layer", metadata=about("What shares one step from numbers to weights."))
    full_scale: float | None = field(
        default=None,
        metadata=about("Weight that the greatest number stands for.", above=0.0, absent="the largest; binary, ternary: the mean kept"),
    )

    def __post_init__(self) -> None:
        StoredWords.__post_init__(self)
        if self.word.coding == "unsigned":
            raise SpecError("word.coding: unsigned: weights have both signs; use twos_complement, offset_binary or sign_magnitude")
        if self.full_scale is not None and self.step_per == "column":
            raise SpecError('full_scale: one value for all columns needs step_per = "layer"')


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredSignals(StoredWords):
    """The memory of a layer's values: the greatest word stands for the largest magnitude that calibration saw, or for `full_scale`."""

    part: ClassVar[str] = "signals"
    full_scale: float | None = field(
        default=None, metadata=about("Magnitude that the greatest number stands for.", above=0.0, absent="by calibration")
    )
    range_percentile: float | None = field(
        default=None, metadata=about("Percentile of the magnitudes that it is by calibration.", above=0.0, absent="the largest")
    )

    def __post_init__(self) -> None:
        StoredWords.__post_init__(self)
        if self.word.coding == "binary":
            raise SpecError("word.coding: binary: values of a layer may be 0, which a binary number cannot be; use another coding")
        if self.range_percentile is not None and not self.range_percentile <= 100.0:
            raise SpecError(f"range_percentile: {self.range_percentile:g}: need at most 100")


@dataclass(frozen=True, slots=True, kw_only=True)
class Memories:
    """What is stored as words; what is absent is held without error, and its energy is not counted."""

    weights: StoredWeights | None = field(
        default=None, metadata=about("Weights of layers that are computed digitally.", absent="weights are in crossbars", short=False)
    )
    activations: StoredSignals | None = field(
        default=None, metadata=about("Inputs of layers.", absent="inputs come as they are", short=False)
    )
    partial_sums: StoredSignals | None = field(
        default=None, metadata=about("Sums of row blocks, where layers are split.", absent="sums are added as they are", short=False)
    )

    def __post_init__(self) -> None:
        raise_faults(check_types(self))
