"""Numbers stored as words in a memory: quantizing, the events of single faults, and reading them with faults that are drawn.

Draws are raw words of the stream, one for each bit, by the layer and what is stored: never by an error rate. So faults at one error rate
are among those at every higher one, and two designs are compared on the same faults.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from devices.base.stream import GROUP, site_id
from devices.base.stream import words as stream_words
from devices.ecc import ParityZero, Secded, SeparateBits, TripledBits
from devices.memory import Memory
from devices.memory_faults import Draws, WeakColumns
from devices.word_format import Floats, Integers, WordFormat, Words, bit_damage, values_of
from workloads.operators.base import Array

KEPT_OVER_MEAN = 0.7
"""Ternary weights that are kept are larger than this many times the mean magnitude: Li, Zhang, Liu, arXiv 1605.04711, (6)."""
BLOCK_BITS = 1 << 22
"""Bits whose draws are made together."""
WHOLE = -1
Event: TypeAlias = tuple[int, Array, Array]
"""A bit (WHOLE: the number), the probability that it is wrong, and by how many steps the number is off then, by word `(2^n_bits,)`."""


def quantized(word: WordFormat, values: Array, step: Array | float) -> NDArray[np.int32]:
    """Return the numbers that values are stored as, nearest and within range; a step of 0 stores zeros, binary numbers have signs only."""
    if word.coding == "binary":
        return np.where(values < 0.0, -1, 1).astype(np.int32)
    over = np.divide(1.0, step, out=np.zeros_like(np.asarray(step, values.dtype)), where=np.asarray(step) > 0.0)
    return np.clip(np.rint(values * over), word.least, word.greatest).astype(np.int32)


def errs(memory: Memory) -> bool:
    """Whether any bit is ever read wrong."""
    return bool(np.any(memory.error_rates > 0.0)) or (isinstance(memory.ecc, SeparateBits) and memory.ecc.protected_error_p > 0.0)


def independent(memory: Memory) -> bool:
    """Whether each bit that is read is wrong on its own: no code that decodes, no columns that gather faults."""
    return (memory.ecc is None or isinstance(memory.ecc, SeparateBits)) and not isinstance(memory.faults, WeakColumns)


def wrong_rates(memory: Memory) -> tuple[Floats, Floats]:
    """Return the probability that each bit reads 1 for a stored 0, and 0 for a 1, after correction, `(n_bits,)` each."""
    ecc = memory.ecc
    if isinstance(ecc, Secded | TripledBits | SeparateBits):
        left = ecc.residual_rates(memory.word, memory.error_rates)
        return left, left
    return memory.faults.rates(memory.word, memory.error_rates)


def events_of(memory: Memory) -> Iterator[Event]:
    """Yield the single faults of a number, by the word that is stored."""
    word = memory.word
    if isinstance(memory.ecc, ParityZero):
        erased = np.full(1 << word.n_bits, memory.ecc.erased_p(word, memory.error_rates))
        yield WHOLE, erased, -values_of(word).astype(np.float64)
        return
    up, down = wrong_rates(memory)
    stored, damage = np.arange(1 << word.n_bits), bit_damage(word).astype(np.float64)
    for j in range(word.n_bits):
        yield j, np.where((stored >> j) & 1, down[j], up[j]), damage[:, j]


def read_words(
    memory: Memory,
    words: Words,
    *,
    layer: str,
    kind: str,
    seed: int,
    trial: int,
    chunk: int = 0,
    sign: float = 1.0,
    alike: int = 1,
) -> Integers:
    """Return the numbers that stored words `(n,)` read as in a trial.

    `sign=-1` mirrors the draws; each `alike` words in turn share their cells (images of one place), but for those of a code; `chunk` tells
    reads apart.
    """
    if independent(memory):
        masks = wrong_bits(memory, words, layer=layer, kind=kind, seed=seed, trial=trial, chunk=chunk, sign=sign, alike=alike)
        return values_of(memory.word)[words ^ masks]
    out = np.empty(len(words), np.int32)
    stream = _Stream(layer=layer, kind=kind, chunk=chunk, seed=seed, trial=trial, sign=sign)
    together = 1 if memory.ecc is None else memory.ecc.group(memory.word)[0]
    column_draws = _column_draws(memory, stream)
    for start, stop in _blocks(len(words) // alike, memory.word.n_bits * alike, GROUP * together):
        at = slice(start * alike, stop * alike)
        n_groups, n_check = memory.check_shape(stop - start)
        checks = stream.draws(n_groups, n_check, "check", start // together) if n_check else None
        bits = np.repeat(stream.draws(stop - start, memory.word.n_bits, "word", start), alike, axis=0)
        out[at] = memory.read(words[at], draws=bits, check_draws=checks, column_draws=column_draws, start=start)
    return out


def wrong_bits(
    memory: Memory, words: Words, *, layer: str, kind: str, seed: int, trial: int, chunk: int = 0, sign: float = 1.0, alike: int = 1
) -> Words:
    """Return which bits of stored words are wrong in a trial, as masks, where bits are `independent`; arguments as of `read_words`."""
    out: Words = np.empty(len(words), np.uint16)
    rates = memory.error_rates if memory.ecc is None else memory.ecc.cell_rates(memory.word, memory.error_rates)[0]
    stream = _Stream(layer=layer, kind=kind, chunk=chunk, seed=seed, trial=trial, sign=sign)
    for start, stop in _blocks(len(words) // alike, memory.word.n_bits * alike, GROUP):
        at, draws = slice(start * alike, stop * alike), stream.draws(stop - start, memory.word.n_bits, "word", start)
        draws = np.repeat(draws, alike, axis=0) if alike > 1 else draws
        out[at] = memory.faults.masks(memory.word, words[at], rates, draws=draws, start=start)
    return out


def _blocks(n_cells: int, n_bits: int, unit: int) -> Iterator[tuple[int, int]]:
    """Yield the numbers whose bits are drawn together: whole groups of the stream, and of a code."""
    size = max(1, BLOCK_BITS // n_bits // unit) * unit
    yield from ((start, min(start + size, n_cells)) for start in range(0, n_cells, size))


@dataclass(frozen=True, slots=True, kw_only=True)
class _Stream:
    """Where draws come from."""

    layer: str
    kind: str
    chunk: int
    seed: int
    trial: int
    sign: float

    def draws(self, n: int, n_bits: int, name: str, start: int) -> Draws:
        """Return raw words `(n, n_bits)` for the bits of what comes `start` places in."""
        site = site_id(self.layer, f"{name} {self.kind} {self.chunk}")
        found = stream_words(np.empty((n, n_bits), np.uint32), seed=self.seed, site=site, trial=self.trial, start=start * n_bits)
        return ~found if self.sign < 0.0 else found


def _column_draws(memory: Memory, stream: _Stream) -> Draws | None:
    return stream.draws(1, memory.faults.n_columns, "columns", 0)[0] if isinstance(memory.faults, WeakColumns) else None
