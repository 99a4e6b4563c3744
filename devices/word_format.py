"""How whole numbers are stored as bits: codings, and what flipped bits do to the numbers.

    coding            bits of k, b_j of weight 2^j, j = 0 first            values
    twos_complement   k = -2^(B-1) b_(B-1) + sum_(j<B-1) 2^j b_j           -2^(B-1) .. 2^(B-1) - 1
    offset_binary     k = sum_j 2^j b_j - 2^(B-1)                          the same
    unsigned          k = sum_j 2^j b_j                                    0 .. 2^B - 1
    sign_magnitude    k = (-1)^b_(B-1) sum_(j<B-1) 2^j b_j                 -(2^(B-1) - 1) .. 2^(B-1) - 1; both zeros read 0
    binary            k = 2 b_0 - 1                                        -1, 1
    ternary           k = b_0 - b_1                                        -1, 0, 1; both bits set reads 0

With `gray`, what is stored is w xor (w >> 1) of the word w. Bit j flips independently with probability p_j(0 -> 1) or p_j(1 -> 0).
Exact moments for every word at once, O(B 2^B), bit by bit through mean error e and variance v of what remains to come, w' = w with bit j
flipped and d = k(w') - k(w):

    e(w) <- (1-p) e(w) + p (e(w') + d),    v(w) <- (1-p) v(w) + p v(w') + p (1-p) (e(w') + d - e(w))^2              (1)

For codings linear in their bits and one p for all, with the mean square of 2k + 1 (of 2k for binary),

    E d^2 = p (1-p) sum_j w_j^2 + p^2 E (2k + 1)^2,   = p (4^B - 1)/3 for equally likely words                       (2)
"""

from dataclasses import dataclass, field
from functools import cache
from typing import Literal, TypeAlias

import numpy as np
from numpy.typing import ArrayLike, NDArray

from devices.base.errors import SpecError
from devices.base.jit import jit
from devices.base.toml_codec import about, check_types, raise_faults

Coding: TypeAlias = Literal["twos_complement", "offset_binary", "unsigned", "sign_magnitude", "binary", "ternary"]
Words: TypeAlias = NDArray[np.uint16]
Integers: TypeAlias = NDArray[np.int32]
Floats: TypeAlias = NDArray[np.float64]
MAX_BITS = 16
_FIXED_BITS = {"binary": 1, "ternary": 2}
_LINEAR = ("twos_complement", "offset_binary", "unsigned", "binary")


@dataclass(frozen=True, slots=True, kw_only=True)
class WordFormat:
    """How a whole number is stored in `n_bits` bits."""

    coding: Coding = field(default="twos_complement", metadata=about("How the bits make a whole number."))
    n_bits: int = field(default=8, metadata=about(f"Bits of a number, at most {MAX_BITS}; 1 for binary, 2 for ternary.", at_least=1))
    gray: bool = field(default=False, metadata=about("Whether words are stored in Gray's code."))

    def __post_init__(self) -> None:
        raise_faults(check_types(self))
        need = _FIXED_BITS.get(self.coding)
        if need is not None and (self.n_bits != need or self.gray):
            raise SpecError(f"n_bits: {self.n_bits}: a {self.coding} number has {need}, and gray is false")
        least = 1 if self.coding in ("binary", "unsigned") else 2
        if not least <= self.n_bits <= MAX_BITS:
            raise SpecError(f"n_bits: {self.n_bits}: need {least} to {MAX_BITS} for {self.coding}")

    @property
    def least(self) -> int:
        """The least number that can be stored."""
        return int(values_of(self).min())

    @property
    def greatest(self) -> int:
        """The greatest number that can be stored."""
        return int(values_of(self).max())

    def encode(self, values: NDArray[np.integer]) -> Words:
        """Return the words of whole numbers, in their shape; SpecError for numbers that the format cannot hold."""
        values = np.asarray(values)
        if not np.issubdtype(values.dtype, np.integer):
            raise SpecError(f"values: need whole numbers, got {values.dtype.name}; quantize them first")
        wrong = (values < self.least) | (values > self.greatest)
        if self.coding == "binary":
            wrong |= values == 0
        if np.any(wrong):
            value = int(np.atleast_1d(values)[np.atleast_1d(wrong)][0])
            allowed = "-1 or 1" if self.coding == "binary" else f"{self.least} to {self.greatest}"
            raise SpecError(f"values: {value}: need {allowed} in {self.n_bits} bits, {self.coding}; clip or quantize them first")
        return words_of(self)[values.astype(np.int64) - self.least]

    def decode(self, words: Words) -> Integers:
        """Return the numbers of words, in their shape."""
        return values_of(self)[words]


@cache
def values_of(word: WordFormat) -> Integers:
    """Return the number that each word reads as, `(2^n_bits,)`."""
    stored = np.arange(1 << word.n_bits, dtype=np.int32)
    plain = stored.copy()
    if word.gray:
        for shift in range(1, word.n_bits):
            plain ^= stored >> shift
    half = np.int32(1 << (word.n_bits - 1))
    if word.coding == "twos_complement":
        values = np.where(plain >= half, plain - 2 * half, plain)
    elif word.coding == "offset_binary":
        values = plain - half
    elif word.coding == "unsigned":
        values = plain
    elif word.coding == "sign_magnitude":
        values = np.where(plain >= half, half - plain, plain)
    else:
        values = 2 * plain - 1 if word.coding == "binary" else (plain & 1) - (plain >> 1)
    values = values.astype(np.int32)
    values.setflags(write=False)
    return values


@cache
def words_of(word: WordFormat) -> Words:
    """Return the word of each number from the least to the greatest; where two words read the same, the lower plain one."""
    values = values_of(word)
    order = np.arange(values.size)[::-1]
    if word.gray:
        order = order ^ (order >> 1)
    words = np.zeros(int(values.max()) - int(values.min()) + 1, np.uint16)
    words[values[order] - values.min()] = order
    words.setflags(write=False)
    return words


@jit()
def _xor(words, masks, out):  # type: ignore[no-untyped-def]
    for i in range(words.size):
        out[i] = words[i] ^ masks[i]


@jit()
def _read(words, masks, values, out):  # type: ignore[no-untyped-def]
    for i in range(words.size):
        out[i] = values[words[i] ^ masks[i]]


def flip(words: NDArray[np.unsignedinteger], masks: NDArray[np.unsignedinteger]) -> NDArray[np.unsignedinteger]:
    """Return words with the bits of masks flipped, w xor m, in the shape and type of the words."""
    out = np.empty_like(words, order="C")
    _xor(np.ascontiguousarray(words).reshape(-1), np.ascontiguousarray(masks, words.dtype).reshape(-1), out.reshape(-1))
    return out


def read_flipped(word: WordFormat, words: Words, masks: Words) -> Integers:
    """Return the numbers that words read as with the bits of masks flipped."""
    out: Integers = np.empty(words.shape, np.int32)
    _read(np.ascontiguousarray(words).reshape(-1), np.ascontiguousarray(masks).reshape(-1), values_of(word), out.reshape(-1))
    return out


def bit_damage(word: WordFormat) -> Integers:
    """Return by how much each word's number changes when one bit flips, `(2^n_bits, n_bits)`, bit 0 first."""
    values, words = values_of(word), np.arange(1 << word.n_bits)
    return np.stack([values[words ^ (1 << j)] - values for j in range(word.n_bits)], axis=1)


def square_damage(word: WordFormat, words: Words | None = None) -> Floats:
    """Return the mean square change for a flip of each bit, `(n_bits,)`: over the words given, or over all, equally likely."""
    squares = bit_damage(word).astype(np.float64) ** 2
    return np.asarray(_shares(word, words) @ squares)


def by_bit(word: WordFormat, error_rate: ArrayLike) -> Floats:
    """Return error rates `(n_bits,)`, bit 0 first, from one for all or one for each; SpecError if they are no probabilities."""
    rates = np.asarray(error_rate, np.float64)
    if rates.shape not in ((), (word.n_bits,)):
        raise SpecError(f"error rates: need one, or one for each of {word.n_bits} bits, the least significant first; got {rates.shape}")
    if not np.all((rates >= 0.0) & (rates <= 1.0)):
        raise SpecError(f"error rates: {rates}: need 0 <= p <= 1")
    return np.array(np.broadcast_to(rates, (word.n_bits,)))


def moments_by_word(word: WordFormat, to_one_p: ArrayLike, to_zero_p: ArrayLike | None = None) -> tuple[Floats, Floats]:
    """Return mean error and variance of what each word reads as, by (1), `(2^n_bits,)` each: exact.

    `to_one_p` is the probability that a stored 0 reads 1, for all bits or for each; `to_zero_p` the other, the same if left out.
    """
    up = by_bit(word, to_one_p)
    down = up if to_zero_p is None else by_bit(word, to_zero_p)
    values, words = values_of(word).astype(np.float64), np.arange(1 << word.n_bits)
    error, variance = np.zeros(values.size), np.zeros(values.size)
    for j in range(word.n_bits):
        other = words ^ (1 << j)
        p = np.where((words >> j) & 1, down[j], up[j])
        moved = error[other] + values[other] - values
        variance = (1.0 - p) * variance + p * variance[other] + p * (1.0 - p) * (moved - error) ** 2
        error = (1.0 - p) * error + p * moved
    return error, variance


def mean_square_damage(word: WordFormat, error_rate: ArrayLike, words: Words | None = None, *, to_zero_p: ArrayLike | None = None) -> float:
    """Return E (read - stored)^2 in squared steps, exact: over the words given, or over all, equally likely."""
    error, variance = moments_by_word(word, error_rate, to_zero_p)
    return float(_shares(word, words) @ (variance + error**2))


def linear_mean_square_damage(word: WordFormat, error_rate: float, *, mean: float, mean_square: float) -> float:
    """Return (2) from the mean and mean square of the stored numbers; SpecError for codings that are not linear in their bits."""
    if word.coding not in _LINEAR or word.gray:
        raise SpecError(f"coding: {word.coding}{', gray' if word.gray else ''}: not linear in its bits; use mean_square_damage")
    weights = np.array([2.0]) if word.coding == "binary" else 2.0 ** np.arange(word.n_bits)
    centre = {"binary": 0.0, "unsigned": 1.0 - 2.0**word.n_bits}.get(word.coding, 1.0)
    off_centre = 4.0 * mean_square + 4.0 * centre * mean + centre**2
    return float(error_rate * (1.0 - error_rate) * (weights**2).sum() + error_rate**2 * off_centre)


def _shares(word: WordFormat, words: Words | None) -> Floats:
    n = 1 << word.n_bits
    return np.full(n, 1.0 / n) if words is None else np.bincount(np.ravel(words), minlength=n) / np.size(words)
