"""What protects stored numbers, what it leaves wrong, and what it takes: SECDED, parity, safer sign bits.

SECDED is the extended Hamming code, shortened: data bit i has as its column h_i the i-th number from 3 on that is no power of two, the
check bits the powers of two, and one parity bit goes over all. No error or one is put right. Two, or any even number, are passed on as they
are; from three on an odd number flips one bit more where the syndrome is a column's. With H's columns (h_i, 1), theta_i = 1 - 2 p_i, and
sums over all row combinations u of H, bit j is wrong after decoding with probability, exactly,

    Z_j = 2^-m sum_u prod_(i != j, u h_i = 1) theta_i               the others' errors have syndrome 0
    S_j = 2^-m sum_u (-1)^(u h_j) prod_(i != j, u h_i = 1) theta_i  theirs is that of bit j
    p'_j = p_j (1 - Z_j) + (1 - p_j) S_j                                                                      (1)

Faults are taken as independent and symmetric; the check bits err as the best of a number's bits.
"""

from abc import ABC, abstractmethod
from dataclasses import dataclass, field
from functools import cache
from typing import ClassVar

import numpy as np
from numpy.typing import ArrayLike, NDArray

from devices.base.errors import SpecError
from devices.base.jit import jit
from devices.base.toml_codec import about, check_types, raise_faults
from devices.memory_faults import ReadMoments, two_or_more
from devices.packing import pack, unpack
from devices.word_format import Floats, Integers, WordFormat, Words, by_bit, moments_by_word, values_of

MAX_DATA_BITS = 128
MAX_TRIPLED = 8


class Ecc(ABC):
    """What protects stored numbers."""

    __slots__ = ()
    kind: ClassVar[str]

    @abstractmethod
    def group(self, word: WordFormat) -> tuple[int, int]:
        """Return how many numbers are protected together, and by how many check bits."""

    @abstractmethod
    def failure_p(self, word: WordFormat, error_rate: ArrayLike) -> float:
        """Return the probability that one read of a group cannot be put right."""

    @abstractmethod
    def moments(self, word: WordFormat, words: Words, error_rate: ArrayLike) -> ReadMoments:
        """Return the moments of each number that is read, given what is stored; symmetric independent faults."""

    @abstractmethod
    def read(self, word: WordFormat, words: Words, masks: Words, check_masks: NDArray[np.uint16]) -> Integers:
        """Return what `words`, `(n,)`, read as, bits flipped by `masks`, and check bits by `check_masks`, `(n_groups,)`."""

    def cell_rates(self, word: WordFormat, error_rate: ArrayLike) -> tuple[Floats, Floats]:
        """Return the error rates of a number's bits and of a group's check bits as stored, `(n_bits,)` and `(n_check,)`."""
        rates = by_bit(word, error_rate)
        return rates, np.full(self.group(word)[1], rates.min())

    def stored_bits(self, word: WordFormat) -> float:
        """Return how many bits are stored for one number."""
        n_words, n_check = self.group(word)
        return word.n_bits + n_check / n_words

    def overhead_rel(self, word: WordFormat) -> float:
        """Return the bits stored beyond the number's own, over those."""
        return self.stored_bits(word) / word.n_bits - 1.0

    def read_bits(self, word: WordFormat, energy_rel: Floats) -> float:
        """Return a read's energy in bits at full energy, from the energy of each bit, `(n_bits,)`; check bits as the dearest."""
        n_words, n_check = self.group(word)
        return float(energy_rel.sum() + n_check / n_words * energy_rel.max())


@dataclass(frozen=True, slots=True, kw_only=True)
class Secded(Ecc):
    """Single errors corrected, double ones detected and passed on, in words of `data_bits`."""

    kind: ClassVar[str] = "secded"
    data_bits: int = field(default=64, metadata=about("Data bits of one word of the code: 64 makes (72, 64).", at_least=4))

    def __post_init__(self) -> None:
        raise_faults(check_types(self))
        if self.data_bits > MAX_DATA_BITS:
            raise SpecError(f"data_bits: {self.data_bits}: need 4 to {MAX_DATA_BITS}")

    @property
    def n_check(self) -> int:
        """Check bits, the parity bit among them: the least r with 2^r > data_bits + r, and one more."""
        r = 2
        while (1 << r) <= self.data_bits + r:
            r += 1
        return r + 1

    def group(self, word: WordFormat) -> tuple[int, int]:
        if word.n_bits > self.data_bits:
            raise SpecError(f"data_bits: {self.data_bits}: need at least the {word.n_bits} bits of a number")
        return self.data_bits // word.n_bits, self.n_check

    def stored_bits(self, word: WordFormat) -> float:
        """Return the bits stored for one number; those that no number fills count."""
        return (self.data_bits + self.n_check) / self.group(word)[0]

    def failure_p(self, word: WordFormat, error_rate: ArrayLike) -> float:
        """Return the probability of two or more errors in a word of the code, 1 - q^n - n p q^(n-1) for one p."""
        return float(two_or_more(self._rates(word, error_rate)[None, :])[0])

    def silent_p(self, word: WordFormat, error_rate: ArrayLike) -> float:
        """Return the probability that a word of the code is wrong and nothing tells: miscorrected, or another word of the code."""
        p = self._rates(word, error_rate)
        zero, same, all_zero = _syndromes(self.data_bits, tuple(p))
        none, one = float(np.prod(1.0 - p)), sum(p[j] * np.prod(np.delete(1.0 - p, j)) for j in range(p.size))
        return max(float(p @ zero + (1.0 - p) @ same + all_zero - none - one), 0.0)

    def residual_rates(self, word: WordFormat, error_rate: ArrayLike) -> Floats:
        """Return (1), the probability that each bit of a number is wrong after decoding, `(n_bits,)`, over the numbers of a group."""
        p = self._rates(word, error_rate)
        zero, same, _ = _syndromes(self.data_bits, tuple(p))
        wrong = np.clip(p * (1.0 - zero) + (1.0 - p) * same, 0.0, 1.0)
        n_words = self.group(word)[0]
        return np.asarray(wrong[: n_words * word.n_bits].reshape(n_words, word.n_bits).mean(axis=0))

    def moments(self, word: WordFormat, words: Words, error_rate: ArrayLike) -> ReadMoments:
        """Return the moments of bits wrong at the residual rates, as if independent: mean square errors within 3 % at p = 1e-2."""
        error, variance = moments_by_word(word, self.residual_rates(word, error_rate))
        return ReadMoments(mean_error=error[words], variance=variance[words])

    def read(self, word: WordFormat, words: Words, masks: Words, check_masks: NDArray[np.uint16]) -> Integers:
        """Decode; errors alone decide what is flipped, whatever is stored. Up to 64 data bits; bits that no number fills do not err."""
        if self.data_bits > 64:
            raise SpecError(f"data_bits: {self.data_bits}: words of more than 64 bits cannot be sampled")
        packed = pack(masks, word.n_bits, memory_bits=self.data_bits)
        left = unpack(self.residual_masks(packed, check_masks), words.size, word.n_bits, memory_bits=self.data_bits)
        return word.decode(words ^ left)

    def residual_masks(self, data_masks: NDArray[np.uint64], check_masks: NDArray[np.uint16]) -> NDArray[np.uint64]:
        """Return which data bits are wrong after decoding, `(n,)`, from those wrong before and the check bits, the parity bit highest."""
        columns = columns_of(self.data_bits)
        where = np.full(1 << (self.n_check - 1), -1, np.int64)
        where[columns] = np.arange(columns.size)
        out = np.empty(data_masks.shape, np.uint64)
        _decode(data_masks, check_masks, columns, where, self.data_bits, out)
        return out

    def _rates(self, word: WordFormat, error_rate: ArrayLike) -> Floats:
        """Return the error rate of each position of the code."""
        rates = by_bit(word, error_rate)
        n_words = self.group(word)[0]
        rest = self.data_bits - n_words * word.n_bits + self.n_check
        return np.concatenate([np.tile(rates, n_words), np.full(rest, rates.min())])


@cache
def columns_of(data_bits: int) -> NDArray[np.int64]:
    """Return the Hamming column of each position: data bits, check bits, and 0 for the parity bit over all."""
    data: list[int] = []
    number = 3
    while len(data) < data_bits:
        if number & (number - 1):
            data.append(number)
        number += 1
    n_check = Secded(data_bits=data_bits).n_check
    columns = np.array([*data, *(1 << c for c in range(n_check - 1)), 0], np.int64)
    columns.setflags(write=False)
    return columns


@cache
def _parities(data_bits: int) -> NDArray[np.bool_]:
    """Return u h_i for each combination of rows u and each position i, `(2^m, n)`, the row of ones last."""
    columns = columns_of(data_bits)
    n_check = Secded(data_bits=data_bits).n_check
    extended = columns | (1 << (n_check - 1))
    return _odd(np.arange(1 << n_check)[:, None] & extended)


def _odd(words: NDArray[np.integer]) -> NDArray[np.bool_]:
    """Return whether an odd number of the lowest 16 bits is set."""
    for shift in (8, 4, 2, 1):
        words = words ^ (words >> shift)
    return np.asarray(words & 1, bool)


def _syndromes(data_bits: int, rates: tuple[float, ...]) -> tuple[Floats, Floats, float]:
    """Return Z_j and S_j of (1) for each position, and the probability that all errors have syndrome 0."""
    odd = _parities(data_bits)
    factors = np.where(odd, 1.0 - 2.0 * np.array(rates), 1.0)
    before = np.cumprod(np.concatenate([np.ones((len(odd), 1)), factors[:, :-1]], axis=1), axis=1)
    after = np.cumprod(np.concatenate([np.ones((len(odd), 1)), factors[:, :0:-1]], axis=1), axis=1)[:, ::-1]
    others = before * after
    zero, same = others.mean(axis=0), np.maximum((np.where(odd, -1.0, 1.0) * others).mean(axis=0), 0.0)
    return zero, same, float((before[:, -1] * factors[:, -1]).mean())


@jit()
def _decode(data_masks, check_masks, columns, where, data_bits, out):  # type: ignore[no-untyped-def]
    one = np.uint64(1)
    n_check = columns.size - data_bits
    for i in range(data_masks.size):
        mask, check, syndrome, parity = data_masks[i], np.uint64(check_masks[i]), 0, 0
        for j in range(data_bits):
            if (mask >> np.uint64(j)) & one:
                syndrome ^= columns[j]
                parity ^= 1
        for j in range(n_check):
            if (check >> np.uint64(j)) & one:
                syndrome ^= columns[data_bits + j]
                parity ^= 1
        if parity == 1 and 0 <= where[syndrome] < data_bits:
            mask ^= one << np.uint64(where[syndrome])
        out[i] = mask


@dataclass(frozen=True, slots=True, kw_only=True)
class ParityZero(Ecc):
    """A parity bit for each number: where it tells of an error, an odd number of wrong bits, the number reads 0."""

    kind: ClassVar[str] = "parity_zero"

    def group(self, word: WordFormat) -> tuple[int, int]:
        if word.coding == "binary":
            raise SpecError("coding: binary: a number that is -1 or 1 cannot read 0; use another coding, or no parity")
        return 1, 1

    def failure_p(self, word: WordFormat, error_rate: ArrayLike) -> float:
        """Return the probability that any bit is wrong: parity puts nothing right."""
        return _any(self._rates(word, error_rate))

    def erased_p(self, word: WordFormat, error_rate: ArrayLike) -> float:
        """Return the probability that a number reads 0 for an error, (1 - prod(1 - 2 p_j))/2."""
        return float(0.5 * (1.0 - np.prod(1.0 - 2.0 * self._rates(word, error_rate))))

    def moments(self, word: WordFormat, words: Words, error_rate: ArrayLike) -> ReadMoments:
        """Return the exact moments: errors of even numbers of bits pass, those of odd ones read 0."""
        self.group(word)
        rates = self._rates(word, error_rate)
        weight, first, second = _by_parity(word, rates)
        values = values_of(word).astype(np.float64)
        error = first[0] - weight[1] * values
        about_mean = second[0] - 2.0 * error * first[0] + weight[0] * error**2 + weight[1] * (values + error) ** 2
        return ReadMoments(mean_error=error[words], variance=np.maximum(about_mean, 0.0)[words])

    def read(self, word: WordFormat, words: Words, masks: Words, check_masks: NDArray[np.uint16]) -> Integers:
        self.group(word)
        return np.where(_odd(masks) ^ _odd(check_masks), 0, word.decode(words ^ masks)).astype(np.int32)

    def _rates(self, word: WordFormat, error_rate: ArrayLike) -> Floats:
        rates = by_bit(word, error_rate)
        return np.append(rates, rates.min())


def _by_parity(word: WordFormat, rates: Floats) -> tuple[Floats, Floats, Floats]:
    """Return E 1, E d and E d^2 of each word where an even number of bits is wrong, and an odd one, `(2, 2^n_bits)` each.

    `rates` has the parity bit's last. Bit by bit as in devices.word_format (1): sums of products of probabilities, no differences.
    """
    values, stored = values_of(word).astype(np.float64), np.arange(1 << word.n_bits)
    weight = np.stack([np.full(stored.size, 1.0 - rates[-1]), np.full(stored.size, rates[-1])])
    first, second = np.zeros_like(weight), np.zeros_like(weight)
    for j in range(word.n_bits):
        p, other = rates[j], stored ^ (1 << j)
        d = values[other] - values
        w, f, s = (moment[::-1, other] for moment in (weight, first, second))
        second = (1.0 - p) * second + p * (s + 2.0 * d * f + d**2 * w)
        first = (1.0 - p) * first + p * (f + d * w)
        weight = (1.0 - p) * weight + p * w
    return weight, first, second


def _any(rates: Floats) -> float:
    """Return the probability of one or more of independent events, without a difference."""
    with np.errstate(divide="ignore"):  # a certain one makes it 1
        return float(-np.expm1(np.log1p(-rates).sum()))


class _SafeTop(Ecc):
    """The top bits of each number err less often than the others."""

    __slots__ = ()
    n_protected: int

    @abstractmethod
    def protected_rates(self, error_rate: Floats) -> Floats:
        """Return the error rates of protected bits."""

    def residual_rates(self, word: WordFormat, error_rate: ArrayLike) -> Floats:
        """Return the probability that each bit of a number is wrong, `(n_bits,)`."""
        self.group(word)
        rates = by_bit(word, error_rate)
        rates[-self.n_protected :] = self.protected_rates(rates[-self.n_protected :])
        return rates

    def failure_p(self, word: WordFormat, error_rate: ArrayLike) -> float:
        """Return the probability that a protected bit is wrong."""
        return _any(self.residual_rates(word, error_rate)[-self.n_protected :])

    def moments(self, word: WordFormat, words: Words, error_rate: ArrayLike) -> ReadMoments:
        error, variance = moments_by_word(word, self.residual_rates(word, error_rate))
        return ReadMoments(mean_error=error[words], variance=variance[words])

    def _check_width(self, word: WordFormat) -> None:
        if self.n_protected > word.n_bits:
            raise SpecError(f"n_protected: {self.n_protected}: a number has {word.n_bits} bits")

    def _top(self, word: WordFormat) -> np.uint16:
        return np.uint16(((1 << self.n_protected) - 1) << (word.n_bits - self.n_protected))


_TOP = about("How many of the most significant bits are protected.", at_least=1)


@dataclass(frozen=True, slots=True, kw_only=True)
class TripledBits(_SafeTop):
    """The top bits stored three times, the majority read: wrong with probability 3 p^2 - 2 p^3."""

    kind: ClassVar[str] = "tripled_bits"
    n_protected: int = field(default=1, metadata=_TOP)

    def __post_init__(self) -> None:
        raise_faults(check_types(self))
        if self.n_protected > MAX_TRIPLED:
            raise SpecError(f"n_protected: {self.n_protected}: need at most {MAX_TRIPLED}; for more, use a code or separate bits")

    def group(self, word: WordFormat) -> tuple[int, int]:
        self._check_width(word)
        return 1, 2 * self.n_protected

    def cell_rates(self, word: WordFormat, error_rate: ArrayLike) -> tuple[Floats, Floats]:
        rates = by_bit(word, error_rate)
        return rates, np.tile(rates[-self.n_protected :], 2)

    def protected_rates(self, error_rate: Floats) -> Floats:
        return error_rate**2 * (3.0 - 2.0 * error_rate)

    def read_bits(self, word: WordFormat, energy_rel: Floats) -> float:
        """Return a read's energy in bits at full energy; copies take what their bits take."""
        self.group(word)
        return float(energy_rel.sum() + 2.0 * energy_rel[-self.n_protected :].sum())

    def read(self, word: WordFormat, words: Words, masks: Words, check_masks: NDArray[np.uint16]) -> Integers:
        """Vote; check bits are the second copies of the top bits, lowest first, then the third ones."""
        self.group(word)
        shift, low = np.uint16(word.n_bits - self.n_protected), np.uint16((1 << self.n_protected) - 1)
        second, third = check_masks & low, check_masks >> np.uint16(self.n_protected) & low
        first = masks >> shift & low
        majority = (first & second) | (first & third) | (second & third)
        return word.decode(words ^ ((masks & ~self._top(word)) | majority << shift).astype(np.uint16))


@dataclass(frozen=True, slots=True, kw_only=True)
class SeparateBits(_SafeTop):
    """The top bits in a memory of their own, at its error rate and energy, whatever the others are at."""

    kind: ClassVar[str] = "separate_bits"
    n_protected: int = field(default=1, metadata=_TOP)
    protected_error_p: float = field(metadata=about("Error rate of a protected bit.", at_least=0.0))
    protected_energy_rel: float = field(metadata=about("Energy of a protected bit, over the law's energy of 1.", at_least=0.0))

    def __post_init__(self) -> None:
        raise_faults(check_types(self))
        if self.protected_error_p > 0.5:
            raise SpecError(f"protected_error_p: {self.protected_error_p:g}: need at most 0.5")

    def group(self, word: WordFormat) -> tuple[int, int]:
        self._check_width(word)
        return 1, 0

    def cell_rates(self, word: WordFormat, error_rate: ArrayLike) -> tuple[Floats, Floats]:
        return self.residual_rates(word, error_rate), np.zeros(0)

    def protected_rates(self, error_rate: Floats) -> Floats:
        return np.full_like(error_rate, self.protected_error_p)

    def read_bits(self, word: WordFormat, energy_rel: Floats) -> float:
        self.group(word)
        return float(energy_rel[: -self.n_protected].sum() + self.n_protected * self.protected_energy_rel)

    def read(self, word: WordFormat, words: Words, masks: Words, check_masks: NDArray[np.uint16]) -> Integers:
        """Read; the top bits of `masks` are flips of the protected memory, drawn at its own rate."""
        return word.decode(words ^ masks)


ECCS: dict[str, type[Ecc]] = {ecc.kind: ecc for ecc in (Secded, ParityZero, TripledBits, SeparateBits)}
