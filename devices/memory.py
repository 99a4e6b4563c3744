"""A memory of numbers: its law, the point it works at, how numbers are stored, which faults it has, what protects it, and its price.

One bit at the error rate p takes `read_energy_j` eta(p), eta being the law's: the price and the errors come from the same record. A write
takes the same share of `write_energy_j`. Leakage, regulators and delay by voltage are not in these laws.
"""

from dataclasses import dataclass, field
from typing import Any, TypeVar

import numpy as np

from devices import catalog
from devices.base.errors import SpecError
from devices.base.toml_codec import Faults, about, check_types, decode, parse_toml, raise_faults, write_lines
from devices.ecc import ECCS, Ecc
from devices.law import Component, Cost
from devices.memory_faults import FAULT_KINDS, Draws, MemoryFaults, ReadMoments, StuckBits
from devices.reliability import RELIABILITY_LAWS
from devices.reliability_law import ReliabilityLaw
from devices.word_format import Floats, Integers, WordFormat, Words, by_bit, read_flipped

Made = TypeVar("Made")
_ENERGIES = ("read_energy_j", "write_energy_j")
POINTS = ("energy_rel", "v_rel", "error_rate_p", "bit_error_rates_p")


@dataclass(frozen=True, slots=True, kw_only=True)
class Memory(Component):
    """A memory at its operating point: one of `energy_rel`, `v_rel`, `error_rate_p`, `bit_error_rates_p`; none needed for a fixed point."""

    law: ReliabilityLaw = field(metadata=about("Energy by error rate.", kinds=lambda: RELIABILITY_LAWS))
    word: WordFormat = field(metadata=about("How numbers are stored."))
    faults: MemoryFaults = field(metadata=about("Which bits err.", kinds=lambda: FAULT_KINDS))
    ecc: Ecc | None = field(default=None, metadata=about("What protects the numbers.", absent="nothing does", kinds=lambda: ECCS))
    read_energy_j: float = field(metadata=about("Energy to read one bit at the law's energy 1.", at_least=0.0))
    write_energy_j: float = field(metadata=about("Energy to write one bit at the law's energy 1.", at_least=0.0))
    read_time_s: float = field(default=0.0, metadata=about("Time of one read; 0: not counted.", at_least=0.0))
    write_time_s: float = field(default=0.0, metadata=about("Time of one write; 0: not counted.", at_least=0.0))
    decode_energy_j: float = field(default=0.0, metadata=about("Energy of ecc's logic at a read, a number; 0: not counted.", at_least=0.0))
    encode_energy_j: float = field(default=0.0, metadata=about("Energy of ecc's logic at a write, a number; 0: not counted.", at_least=0.0))
    source: str | None = field(default=None, metadata=about("Where the energies are from.", absent="not told"))
    energy_rel: float | None = field(default=None, metadata=about("Energy over the law's energy 1.", at_least=0.0, absent="see the others"))
    v_rel: float | None = field(default=None, metadata=about("Voltage over the law's reference.", above=0.0, absent="see the others"))
    error_rate_p: float | None = field(default=None, metadata=about("Error rate of every bit.", at_least=0.0, absent="see the others"))
    bit_error_rates_p: tuple[float, ...] | None = field(
        default=None, metadata=about("Error rate of each bit, the least significant first.", at_least=0.0, absent="see the others")
    )

    def __post_init__(self) -> None:
        raise_faults(check_types(self))
        given = [name for name in POINTS if getattr(self, name) is not None]
        least, largest = self.law.bounds
        if len(given) > 1 or (not given and least != largest):
            raise SpecError(f"{given[-1] if given else 'error_rate_p'}: give one of {', '.join(POINTS)}; got {', '.join(given) or 'none'}")
        if self.ecc is None and (self.decode_energy_j or self.encode_energy_j):
            raise SpecError("decode_energy_j: there is no ecc whose logic could take it; leave it and encode_energy_j out")
        if self.ecc is not None:
            self.ecc.group(self.word)
        self.law.energy_rel(self.error_rates)
        self.faults.rates(self.word, self.error_rates)

    @property
    def error_rates(self) -> Floats:
        """Error rate of each bit as stored, `(n_bits,)`, the least significant first."""
        if self.bit_error_rates_p is not None:
            return by_bit(self.word, self.bit_error_rates_p)
        if self.energy_rel is not None:
            rate = self.law.error_rate(self.energy_rel)
        elif self.v_rel is not None:
            rate = self.law.error_rate_at(self.v_rel)
        else:
            rate = self.law.bounds[0] if self.error_rate_p is None else self.error_rate_p
        return by_bit(self.word, rate)

    @property
    def energies_rel(self) -> Floats:
        """Energy of each bit over the law's energy 1, `(n_bits,)`."""
        if self.energy_rel is not None:
            return np.full(self.word.n_bits, self.energy_rel)
        return self.law.energy_rel(self.error_rates)

    @property
    def stored_bits(self) -> float:
        """Bits stored for one number, check bits among them."""
        return float(self.word.n_bits) if self.ecc is None else self.ecc.stored_bits(self.word)

    @property
    def read_bits(self) -> float:
        """What reading one number takes, in bits at the law's energy 1."""
        return float(self.energies_rel.sum()) if self.ecc is None else self.ecc.read_bits(self.word, self.energies_rel)

    def moments(self, words: Words) -> ReadMoments:
        """Return the moments of each number that is read, given what is stored, after correction.

        SpecError for protected memories whose faults are not symmetric, or hang on what is stored: stuck check bits are not modelled.
        """
        if self.ecc is None:
            return self.faults.moments(self.word, words, self.error_rates)
        up = self._symmetric()
        return self.ecc.moments(self.word, words, up)

    def check_shape(self, n_words: int) -> tuple[int, int]:
        """Return the shape of the draws of check bits for so many numbers: groups, and check bits of each."""
        n_a_group, n_check = (1, 0) if self.ecc is None else self.ecc.group(self.word)
        return -(-n_words // n_a_group), n_check

    def read(
        self, words: Words, *, draws: Draws, check_draws: Draws | None = None, column_draws: Draws | None = None, start: int = 0
    ) -> Integers:
        """Return the numbers that stored words, `(n,)`, read as, from raw words of the stream: a cell of them each, as in memory_faults.

        `draws` is `(n, n_bits)`; `check_draws` of `check_shape(n)` where something protects the numbers. SpecError as of `moments`.
        """
        if self.ecc is None:
            masks = self.faults.masks(self.word, words, self.error_rates, draws=draws, column_draws=column_draws, start=start)
            return read_flipped(self.word, words, masks)
        self._symmetric()
        rates, check_rates = self.ecc.cell_rates(self.word, self.error_rates)
        masks = self.faults.masks(self.word, words, rates, draws=draws, column_draws=column_draws, start=start)
        checks = np.zeros(self.check_shape(words.size)[0], np.uint16)
        if check_rates.size:
            if check_draws is None:
                raise ValueError(f"check_draws: need uint32 of shape {self.check_shape(words.size)}")
            form = WordFormat(coding="unsigned", n_bits=check_rates.size)
            checks = self.faults.masks(form, checks, check_rates, draws=check_draws, column_draws=column_draws)
        return self.ecc.read(self.word, words, masks, checks)

    def _symmetric(self) -> Floats:
        """Return the error rates of bits, the same in both directions; SpecError where they are not."""
        up, down = self.faults.rates(self.word, self.error_rates)
        if self.faults.kind == StuckBits.kind or not np.array_equal(up, down):
            raise SpecError(f"faults.kind: {self.faults.kind}: with ecc, faults must turn bits up and down alike: to_one_share = 0.5")
        return up

    def cost(self, action: str, **statistics: float) -> Cost:
        """Return the cost of `read` or `write`, given `n_values`, how many numbers (1 if left out)."""
        if action not in ("read", "write"):
            raise ValueError(f"a memory knows the actions 'read' and 'write', not {action!r}")
        n = statistics.get("n_values", 1.0)
        bit_j, logic_j, time_s = (
            (self.read_energy_j, self.decode_energy_j, self.read_time_s)
            if action == "read"
            else (self.write_energy_j, self.encode_energy_j, self.write_time_s)
        )
        return Cost(energy_j=n * (self.read_bits * bit_j + logic_j), time_s=n * time_s, occupancy_s=n * time_s)

    @classmethod
    def from_text(cls, text: str, *, origin: str = "text") -> "Memory":
        """Return the memory of a TOML text, its tables `law`, `word`, `faults`, `ecc` at the top; SpecError with every fault."""
        return _decoded(cls, text, origin)

    @classmethod
    def preset(cls, name: str, *, word: WordFormat, faults: MemoryFaults, **more: Any) -> "Memory":
        """Return a memory of a published technology: its law, energies and times, unless `more` has others.

        `more` are fields of this record: the operating point, `ecc`, the energies where the preset has none.
        """
        made = technology(name)
        known = {n: v for n in (*_ENERGIES, "read_time_s", "write_time_s", "source") if (v := getattr(made, n)) is not None}
        missing = [n for n in _ENERGIES if n not in known and n not in more]
        if missing:
            raise SpecError(f"{', '.join(missing)}: the preset {name} has none; give it, joules a bit at the law's energy 1")
        return cls(**{"law": made.law, **known, "word": word, "faults": faults, **more})

    def to_toml(self) -> str:
        """Return the memory as TOML that reads back as the same record."""
        return "\n".join(write_lines(self)) + "\n"


@dataclass(frozen=True, slots=True, kw_only=True)
class Technology:
    """What a preset knows of a memory: no word format, no faults, and not always energies."""

    law: ReliabilityLaw = field(metadata=about("Energy by error rate.", kinds=lambda: RELIABILITY_LAWS))
    read_energy_j: float | None = field(default=None, metadata=about("Energy to read one bit.", at_least=0.0, absent="not published"))
    write_energy_j: float | None = field(default=None, metadata=about("Energy to write one bit.", at_least=0.0, absent="not published"))
    read_time_s: float | None = field(default=None, metadata=about("Time of one read.", at_least=0.0, absent="not published"))
    write_time_s: float | None = field(default=None, metadata=about("Time of one write.", at_least=0.0, absent="not published"))
    source: str | None = field(default=None, metadata=about("Where the energies are from.", absent="there are none"))

    def __post_init__(self) -> None:
        raise_faults(check_types(self))


def technology(name: str) -> Technology:
    """Return what a memory preset knows; SpecError with the nearest name when there is none."""
    return _decoded(Technology, catalog.text(name, folder=catalog.MEMORY), name)


def _decoded(record_type: type[Made], text: str, origin: str) -> Made:
    faults = Faults(origin)
    table = {name: value for name, value in parse_toml(text, origin=origin).items() if name not in ("schema", "name")}
    record = decode(record_type, table, faults=faults)
    faults.raise_if_any()
    assert record is not None
    return record
