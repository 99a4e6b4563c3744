"""Which bits of a memory are read wrong: fresh at each read, the same for a chip's life, stuck, or gathered in weak columns.

    kind          a bit that holds 0 reads 1   a 1 reads 0             its draw is
    transient     2 s p                        2 (1 - s) p             fresh at each read
    persistent    2 s p                        2 (1 - s) p             the cell's, for the chip's life
    weak_columns  as persistent, p_w = k p_s in a share f of the columns, p_s elsewhere, p = f p_w + (1 - f) p_s          (1)
    stuck_bits    s p                          (1 - s) p               the cell's; p is the share of stuck cells

p may differ from bit to bit; s is `to_one_share`, 1/2 for symmetric faults. A draw is a raw word of the stream for each cell, bit j of
number i being cell i n_bits + j; a cell errs when its word over 2^32 is below its probability (stuck at 0: above one less it). So faults
are nested: those at one error rate are among those at every higher one. Words resolve probabilities to 2^-32.
"""

from abc import ABC, abstractmethod
from dataclasses import dataclass, field
from typing import ClassVar

import numpy as np
from numpy.typing import ArrayLike, NDArray

from devices.base.errors import SpecError
from devices.base.jit import jit
from devices.base.toml_codec import about, check_types, raise_faults
from devices.law import Scope
from devices.word_format import Floats, Integers, WordFormat, Words, bit_damage, by_bit, moments_by_word, values_of

_SHARE = about("Share of the errors that go from 0 to 1 where both are stored equally often, at most 1; 0.5: symmetric.", at_least=0.0)
Draws = NDArray[np.uint32]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class ReadMoments:
    """Mean error (read less stored) and variance of numbers read, in steps and squared steps, in the shape of the stored words."""

    mean_error: Floats
    variance: Floats


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class ReadEvents:
    """Rare misreadings: bit j alone is wrong with `p[j]`, and the number reads `value[j]`; `(n_bits, *shape)`, bit 0 first.

    `rest_p`, in the shape of the stored words, is the probability of two or more wrong bits, which no event tells of.
    """

    p: Floats
    value: Integers
    rest_p: Floats


class MemoryFaults(ABC):
    """Which bits of a memory are read wrong at an error rate."""

    __slots__ = ()
    kind: ClassVar[str]
    scope: ClassVar[Scope]
    to_one_share: float

    @abstractmethod
    def rates(self, word: WordFormat, error_rate: ArrayLike) -> tuple[Floats, Floats]:
        """Return the probabilities that a 0 reads 1 and that a 1 reads 0, `(n_bits,)` each, bit 0 first; SpecError above 1."""

    @abstractmethod
    def masks(
        self, word: WordFormat, words: Words, error_rate: ArrayLike, *, draws: Draws, column_draws: Draws | None = None, start: int = 0
    ) -> Words:
        """Return which bits of stored words are wrong, as masks in their shape.

        `draws` are raw words of the stream, `(*words.shape, n_bits)`; `column_draws`, `(n_columns,)`, for kinds that know columns;
        `start` is the number of words of the memory before these.
        """

    def moments(self, word: WordFormat, words: Words, error_rate: ArrayLike) -> ReadMoments:
        """Return the exact moments of each number that is read, given what is stored."""
        error, variance = moments_by_word(word, *self.rates(word, error_rate))
        return ReadMoments(mean_error=error[words], variance=variance[words])

    def events(self, word: WordFormat, words: Words, error_rate: ArrayLike) -> ReadEvents:
        """Return each number's single wrong bits: their exact probabilities, no other bit being wrong, and what is read."""
        up, down = self.rates(word, error_rate)
        stored = np.arange(1 << word.n_bits)
        wrong = np.where((stored[:, None] >> np.arange(word.n_bits)) & 1, down, up)
        single = np.stack([wrong[:, j] * np.prod(1.0 - np.delete(wrong, j, axis=1), axis=1) for j in range(word.n_bits)])
        read = (values_of(word)[:, None] + bit_damage(word)).T
        return ReadEvents(p=single[:, words], value=read[:, words], rest_p=two_or_more(wrong)[words])


def two_or_more(wrong: Floats) -> Floats:
    """Return the probability of two or more events of those along the last axis, without differences."""
    none, one, more = np.ones(len(wrong)), np.zeros(len(wrong)), np.zeros(len(wrong))
    for p in wrong.T:
        none, one, more = none * (1.0 - p), one * (1.0 - p) + none * p, more + one * p
    return more


def _limits(rates: Floats) -> NDArray[np.uint64]:
    """Return the 32-bit words that probabilities are worth."""
    return np.asarray(np.floor(rates * 2.0**32 + 0.5)).astype(np.uint64)


@jit()
def _fill_masks(words, draws, limits, mirrored, weak, offset, out):  # type: ignore[no-untyped-def]
    """Bit j errs when its draw, mirrored for stored ones of stuck cells, is below the limit of its column's class and stored bit."""
    n_bits, n_columns = draws.shape[1], weak.size
    turned = np.uint32(0xFFFFFFFF) if mirrored else np.uint32(0)
    for i in range(words.size):
        mask = 0
        for j in range(n_bits):
            group = weak[(offset + i * n_bits + j) % n_columns] if n_columns > 1 else weak[0]
            one = (words[i] >> j) & 1  # as likely as not, so what hangs on it is selected, never branched on
            limit = limits[group, j, one]
            draw = draws[i, j] ^ (turned & np.uint32(-one))
            mask |= int(np.uint64(draw) < limit) << j
        out[i] = mask


def _drawn(word: WordFormat, words: Words, draws: Draws, up: Floats, down: Floats, *, mirrored: bool = False,
           weak: NDArray[np.uint8] | None = None, start: int = 0) -> Words:  # fmt: skip
    """Return masks; `up` and `down` are `(n_groups, n_bits)`, `weak` the group of each column."""
    if draws.shape != (*words.shape, word.n_bits) or draws.dtype != np.uint32:
        raise ValueError(f"draws: need uint32 of shape {(*words.shape, word.n_bits)}, got {draws.dtype.name} {draws.shape}")
    out: Words = np.empty(words.shape, np.uint16)
    flat = np.ascontiguousarray(words, np.uint16).reshape(-1)
    columns = np.zeros(1, np.uint8) if weak is None else weak
    cells = np.ascontiguousarray(draws).reshape(-1, word.n_bits)
    limits = np.stack([_limits(up), _limits(down)], axis=-1)
    _fill_masks(flat, cells, limits, mirrored, columns, start * word.n_bits, out.reshape(-1))
    return out


def _check_rates(up: Floats, down: Floats, kind: str) -> None:
    highest = max(float(up.max()), float(down.max()))
    if highest > 1.0:
        raise SpecError(f"error rates: {kind}: a bit would err with probability {highest:g}; lower the rate, or what gathers faults")


class _Flips(MemoryFaults):
    """A fault turns what the cell holds."""

    __slots__ = ()

    def __post_init__(self) -> None:
        raise_faults(check_types(self))
        _check_share(self.to_one_share)

    def rates(self, word: WordFormat, error_rate: ArrayLike) -> tuple[Floats, Floats]:
        p = by_bit(word, error_rate)
        up, down = 2.0 * self.to_one_share * p, 2.0 * (1.0 - self.to_one_share) * p
        _check_rates(up, down, self.kind)
        return up, down

    def masks(
        self, word: WordFormat, words: Words, error_rate: ArrayLike, *, draws: Draws, column_draws: Draws | None = None, start: int = 0
    ) -> Words:
        up, down = self.rates(word, error_rate)
        return _drawn(word, words, draws, up[None, :], down[None, :])


def _check_share(share: float) -> None:
    if share > 1.0:
        raise SpecError(f"to_one_share: {share:g}: need at most 1; it is a share of the errors")


@dataclass(frozen=True, slots=True, kw_only=True)
class TransientFlips(_Flips):
    """Bits that are wrong at one read and right at the next: draws are fresh for each read."""

    kind: ClassVar[str] = "transient"
    scope: ClassVar[Scope] = "read"
    to_one_share: float = field(default=0.5, metadata=_SHARE)


@dataclass(frozen=True, slots=True, kw_only=True)
class PersistentFlips(_Flips):
    """Cells that are wrong at every read below a voltage of their own: one draw a cell for the chip's life."""

    kind: ClassVar[str] = "persistent"
    scope: ClassVar[Scope] = "chip"
    to_one_share: float = field(default=0.5, metadata=_SHARE)


@dataclass(frozen=True, slots=True, kw_only=True)
class StuckBits(MemoryFaults):
    """Cells stuck at 1 or at 0, whatever is written: only those that hold the other value are wrong, half of them in random data."""

    kind: ClassVar[str] = "stuck_bits"
    scope: ClassVar[Scope] = "chip"
    to_one_share: float = field(default=0.5, metadata=about("Share of the stuck cells that are stuck at 1, at most 1.", at_least=0.0))

    def __post_init__(self) -> None:
        raise_faults(check_types(self))
        _check_share(self.to_one_share)

    def rates(self, word: WordFormat, error_rate: ArrayLike) -> tuple[Floats, Floats]:
        p = by_bit(word, error_rate)
        return self.to_one_share * p, (1.0 - self.to_one_share) * p

    def masks(
        self, word: WordFormat, words: Words, error_rate: ArrayLike, *, draws: Draws, column_draws: Draws | None = None, start: int = 0
    ) -> Words:
        """Return masks; the cells of the lowest words are stuck at 1, those of the highest at 0."""
        up, down = self.rates(word, error_rate)
        return _drawn(word, words, draws, up[None, :], down[None, :], mirrored=True)


@dataclass(frozen=True, slots=True, kw_only=True)
class WeakColumns(MemoryFaults):
    """Persistent faults gathered in some of the columns: cell c is in column c mod n_columns, each weak with probability `weak_share`.

    The bits of one number are in columns of their own, so each number's moments are those of independent faults; numbers that share a
    column are correlated (`column_covariance`).
    """

    kind: ClassVar[str] = "weak_columns"
    scope: ClassVar[Scope] = "chip"
    weak_share: float = field(metadata=about("Probability that a column is weak, below 1.", above=0.0))
    weak_factor: float = field(metadata=about("How many times as often a weak column's cells err, f's k in (1).", at_least=1.0))
    n_columns: int = field(metadata=about("Columns of the memory, each of one bit: at least n_bits of the numbers.", at_least=1))
    to_one_share: float = field(default=0.5, metadata=_SHARE)

    def __post_init__(self) -> None:
        raise_faults(check_types(self))
        _check_share(self.to_one_share)
        if self.weak_share >= 1.0:
            raise SpecError(f"weak_share: {self.weak_share:g}: need below 1; without strong columns, use persistent faults")

    def rates(self, word: WordFormat, error_rate: ArrayLike) -> tuple[Floats, Floats]:
        """Return the probabilities over both kinds of column."""
        if self.n_columns < word.n_bits:
            raise SpecError(f"n_columns: {self.n_columns}: need at least the {word.n_bits} bits of a number")
        p = by_bit(word, error_rate)
        up, down = 2.0 * self.to_one_share * p, 2.0 * (1.0 - self.to_one_share) * p
        weak = self._factors()[1]
        _check_rates(weak * up, weak * down, self.kind)
        return up, down

    def masks(
        self, word: WordFormat, words: Words, error_rate: ArrayLike, *, draws: Draws, column_draws: Draws | None = None, start: int = 0
    ) -> Words:
        up, down = self.rates(word, error_rate)
        if column_draws is None or column_draws.shape != (self.n_columns,):
            raise ValueError(f"column_draws: weak_columns needs one word for each of its {self.n_columns} columns")
        weak = (column_draws.astype(np.uint64) < _limits(np.array(self.weak_share))).astype(np.uint8)
        factors = self._factors()[:, None]
        return _drawn(word, words, draws, factors * up, factors * down, weak=weak, start=start)

    def column_covariance(self, error_rate: float) -> float:
        """Return the covariance of two symmetric faults of one column: f (1 - f) (p_w - p_s)^2."""
        strong, weak = error_rate * self._factors()
        return float(self.weak_share * (1.0 - self.weak_share) * (weak - strong) ** 2)

    def _factors(self) -> Floats:
        """Return p_s/p and p_w/p of (1)."""
        strong = 1.0 / (1.0 + self.weak_share * (self.weak_factor - 1.0))
        return np.array([strong, self.weak_factor * strong])


FAULT_KINDS: dict[str, type[MemoryFaults]] = {law.kind: law for law in (TransientFlips, PersistentFlips, StuckBits, WeakColumns)}
