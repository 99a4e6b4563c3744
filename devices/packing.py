"""Several words in one word of a memory: 64 binary weights or eight 8-bit ones in 64 bits, no word across two."""

# mypy: allow-untyped-defs
import numpy as np
from numpy.typing import NDArray

from devices.base.errors import SpecError
from devices.base.jit import jit
from devices.word_format import Words

MEMORY_BITS = 64


def words_a_row(n_bits: int, *, memory_bits: int = MEMORY_BITS) -> int:
    """Return how many words of `n_bits` a memory word of `memory_bits` holds; SpecError if none fits."""
    if not 1 <= n_bits <= memory_bits <= MEMORY_BITS:
        raise SpecError(f"memory_bits: {memory_bits}: need {n_bits} <= memory_bits <= {MEMORY_BITS} for words of {n_bits} bits")
    return memory_bits // n_bits


@jit()
def _pack(words, n_bits, n_a_row, out):
    for i in range(words.size):
        out[i // n_a_row] |= np.uint64(words[i]) << np.uint64(n_bits * (i % n_a_row))


@jit()
def _unpack(packed, n_bits, n_a_row, out):
    low = np.uint64((1 << n_bits) - 1)
    for i in range(out.size):
        out[i] = np.uint16((packed[i // n_a_row] >> np.uint64(n_bits * (i % n_a_row))) & low)


def pack(words: Words, n_bits: int, *, memory_bits: int = MEMORY_BITS) -> NDArray[np.uint64]:
    """Return memory words, `(n,)`, that hold words in their order, the first in the lowest bits; what is left over is 0."""
    n_a_row = words_a_row(n_bits, memory_bits=memory_bits)
    out = np.zeros(-(-words.size // n_a_row), np.uint64)
    _pack(np.ascontiguousarray(words).reshape(-1), n_bits, n_a_row, out)
    return out


def unpack(packed: NDArray[np.uint64], n_words: int, n_bits: int, *, memory_bits: int = MEMORY_BITS) -> Words:
    """Return the first `n_words` words that memory words hold."""
    n_a_row = words_a_row(n_bits, memory_bits=memory_bits)
    if n_words > packed.size * n_a_row:
        raise SpecError(f"n_words: {n_words}: {packed.size} memory words hold at most {packed.size * n_a_row}")
    out: Words = np.empty(n_words, np.uint16)
    _unpack(packed, n_bits, n_a_row, out)
    return out
