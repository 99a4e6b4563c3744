"""Numbers stored as words in a memory: quantizing, the events of single faults, and reading them with faults that are drawn.

Draws are raw words of the stream, one for each bit, by the layer and what is stored: never by an error rate. So faults at one error rate
are among those at every higher one, and two designs are compared on the same faults.
"""

from collections.abc import Iterator
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
    forced: Words | None = None,
) -> Integers:
    """Return the numbers that stored words `(n,)` read as in a trial.

    `sign=-1` mirrors the draws; each `alike` words in turn share their cells (images of one place); `chunk` tells reads apart.
    `forced` are bits that are wrong in any case, as masks: only where bits are `independent`. Cells of a code are not `alike`.
    """
    n_cells, out = len(words) // alike, np.empty(len(words), np.int32)
    together = 1 if memory.ecc is None else memory.ecc.group(memory.word)[0]
    unit = GROUP * together
    size = max(1, BLOCK_BITS // (memory.word.n_bits * alike) // unit) * unit
    column_draws = _column_draws(memory, layer=layer, kind=kind, seed=seed, trial=trial)

    def draws(n: int, n_bits: int, name: str, start: int) -> Draws:
        site = site_id(layer, f"{name} {kind} {chunk}")
        found = stream_words(np.empty((n, n_bits), np.uint32), seed=seed, site=site, trial=trial, start=start * n_bits)
        return ~found if sign < 0.0 else found

    for start in range(0, n_cells, size):
        stop = min(start + size, n_cells)
        at, bits = slice(start * alike, stop * alike), draws(stop - start, memory.word.n_bits, "word", start)
        bits = np.repeat(bits, alike, axis=0) if alike > 1 else bits
        if independent(memory):
            out[at] = _read_bits(memory, words[at], bits, None if forced is None else forced[at], start)
            continue
        n_groups, n_check = memory.check_shape(stop - start)
        checks = draws(n_groups, n_check, "check", start // together) if n_check else None
        out[at] = memory.read(words[at], draws=bits, check_draws=checks, column_draws=column_draws, start=start)
    return out


def _read_bits(memory: Memory, words: Words, draws: Draws, forced: Words | None, start: int) -> Integers:
    rates = memory.error_rates if memory.ecc is None else memory.ecc.cell_rates(memory.word, memory.error_rates)[0]
    masks = memory.faults.masks(memory.word, words, rates, draws=draws, start=start)
    if forced is not None:
        masks = masks | forced
    return values_of(memory.word)[words ^ masks]


def _column_draws(memory: Memory, *, layer: str, kind: str, seed: int, trial: int) -> Draws | None:
    if not isinstance(memory.faults, WeakColumns):
        return None
    return stream_words(
        np.empty(memory.faults.n_columns, np.uint32), seed=seed, site=site_id(layer, f"columns {kind}", 0), trial=trial
    )
