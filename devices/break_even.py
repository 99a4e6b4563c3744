"""When a code pays: a protected memory at a raw error rate against a bare one whose wrong bits do as much damage.

A number's bit takes w eta(p) + b with the code, w being the bits that are read for one, b its logic and whatever is kept beside; the bare
memory is at the rate L(p) at which it does the same mean square damage. The code pays where

    R(p) = (w eta(p) + b) / eta(L(p)) < 1                                                                          (1)

For rare errors L(p) = c p^k e^(-s p). SECDED of n positions leaves what pairs of errors do, k = 2. Bit j is wrong after any pair with it,
any triple with it, and any other triple whose syndrome is that of j, A4_j of them, the words of weight four of the code through j:

    c = n - 1,    s = (n - 2)/2 - A4_j/(n - 1)                                                                     (2)

Codes of single bits leave some errors as they are, k = 1. With x = -ln p, the exponential law and (2) make R = 1 a Lambert W,

    (k - w) x = ln c + a b - s p,     p* = p0 e^(-W(-s p0/(k - w))),    p0 = (c e^(a b))^(-1/(k - w))              (3)

A Gaussian threshold, eta = v^2, v = m + s_v z, Q(z) = p, is a line of z against z of the bare memory, z_q = r z + (r - 1) m/s_v with
r^2 = w + b/v^2; and -ln Q(z) = z^2/2 + h(z), h slow, makes it a quadratic equation:

    (k - r^2) z^2 - 2 r B z - (B^2 + 2 C) = 0,   B = (r - 1) m/s_v,   C = ln c - s p - k h(z) + h(z_q)             (4)

whose slow parts are taken at the last z, N_SLOW times from z = 3. A code pays below p* where k > w, above where k < w.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import brentq
from scipy.special import lambertw, ndtr, ndtri

from devices.base.errors import SpecError
from devices.ecc import Ecc, ParityZero, Secded, SeparateBits, TripledBits, columns_of
from devices.reliability import CellThreshold, Exponential, ExponentialPublished
from devices.reliability_law import ReliabilityLaw
from devices.word_format import Floats, WordFormat, Words, square_damage, words_of

N_SCAN = 601
LEAST_P = 1e-13
N_SLOW = 8
ADDING = ("twos_complement", "offset_binary", "unsigned")
"""Codings in which errors of bits add up."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Rare:
    """What a code leaves of rare errors, c p^k e^(-s p)."""

    c: float
    k: int
    s: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Compared:
    """A protected and a bare memory that do the same damage; None where one cannot."""

    left_p: float
    raw_p: float | None
    with_rel: float | None
    without_rel: float | None

    @property
    def ratio(self) -> float | None:
        """Energy with the code over that without."""
        return None if self.with_rel is None or self.without_rel is None else self.with_rel / self.without_rel


@dataclass(frozen=True, slots=True, kw_only=True)
class Span:
    """Raw error rates between which a code pays; an end is None where the law ends, not the gain."""

    from_p: float | None
    to_p: float | None


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Protected:
    """A law, a code, and words that are all as likely, or those given.

    Parameters
    ----------
    logic_rel
        Energy of encoder and decoder at a read, a bit of a number, over the law's energy of 1; 0: not counted.
    words
        Stored words that stand for all; None: every word as likely as any other.
    """

    law: ReliabilityLaw
    ecc: Ecc
    word: WordFormat
    logic_rel: float = 0.0
    words: Words | None = None

    def __post_init__(self) -> None:
        if not 0.0 <= self.logic_rel < np.inf:
            raise SpecError(f"logic_rel: {self.logic_rel:g}: need an energy of at least 0, over the law's energy of 1")
        if self.law.bounds[0] == self.law.bounds[1]:
            raise SpecError(f"law: {self.law.kind}: has one error rate and one energy, so there is nothing for a code to save")
        self.ecc.group(self.word)

    @property
    def slope_bits(self) -> float:
        """w of (1): how much of a bit's energy is read for one bit of a number."""
        one, none = (self.ecc.read_bits(self.word, np.full(self.word.n_bits, e)) for e in (1.0, 0.0))
        return (one - none) / self.word.n_bits

    @property
    def fixed_rel(self) -> float:
        """b of (1): the logic, and what bits in another memory take."""
        return self.ecc.read_bits(self.word, np.zeros(self.word.n_bits)) / self.word.n_bits + self.logic_rel

    def left_rate(self, raw_p: float) -> float:
        """Return L of (1): the rate of wrong bare bits that is worth what the code leaves, by mean squares to first order."""
        stored = words_of(self.word) if self.words is None else self.words
        moments = self.ecc.moments(self.word, stored, raw_p)
        return float(np.mean(moments.variance + moments.mean_error**2)) / self._damage

    def with_rel(self, raw_p: float) -> float:
        """Return the energy of a number's bit with the code."""
        return self.slope_bits * self.law.energy_rel(raw_p) + self.fixed_rel

    def ratio(self, raw_p: float) -> float:
        """Return R of (1); NaN where the bare memory cannot be so good, or so bad."""
        left = self.left_rate(raw_p)
        return self.with_rel(raw_p) / self.law.energy_rel(left) if self._reaches(left) else np.nan

    def compared(self, left_p: float) -> Compared:
        """Return both energies where so many bits are left wrong."""
        low, high = self._raw_range
        raw: float | None = None
        if self.left_rate(low) <= left_p <= self.left_rate(high):
            raw = float(np.exp(brentq(lambda x: np.log(self.left_rate(float(np.exp(x))) / left_p), np.log(low), np.log(high), xtol=1e-12)))
            raw = min(max(raw, low), high)
        return Compared(
            left_p=left_p, raw_p=raw, with_rel=None if raw is None else self.with_rel(raw),
            without_rel=self.law.energy_rel(left_p) if self._reaches(left_p) else None,
        )  # fmt: skip

    def spans(self) -> tuple[Span, ...]:
        """Return where the code pays, by the roots of ln R; raw rates at which the bare memory is out of its range are left out."""
        low, high = np.log(self._raw_range)
        x = np.linspace(low, high, N_SCAN)
        known = np.log([self.ratio(float(p)) for p in np.exp(x).clip(*self._raw_range)])
        found: list[Span] = []
        start: float | None = None
        inside = False
        for i in range(N_SCAN):
            pays = bool(known[i] < 0.0)  # NaN: no
            if pays == inside:
                continue
            both = i > 0 and not np.isnan(known[i - 1] + known[i])
            end = self._root(float(x[i - 1]), float(x[i])) if both else None
            if inside:
                found.append(Span(from_p=start, to_p=end))
            start, inside = end, pays
        return (*found, Span(from_p=start, to_p=None)) if inside else tuple(found)

    def closed_form(self) -> float | None:
        """Return p* of (3) or (4), between rates at which the code pays and does not; None where the law has none, or R = 1 nowhere."""
        rare = self.rare
        if rare is None or rare.k == self.slope_bits:
            return None
        if isinstance(self.law, Exponential | ExponentialPublished):
            return self._exponential(rare, self.law.a)
        return self._gaussian(rare, self.law) if isinstance(self.law, CellThreshold) else None

    @property
    def rare(self) -> Rare | None:
        """c, k and s of what the code leaves of rare errors."""
        damage = square_damage(self.word, self.words)
        share = damage / damage.sum()
        if isinstance(self.ecc, Secded):
            return self._rare_pairs(self.ecc, share)
        if isinstance(self.ecc, ParityZero):
            return self._rare_erasures(float(damage.sum()))
        if not isinstance(self.ecc, TripledBits | SeparateBits):
            return None
        safe = float(share[-self.ecc.n_protected :].sum())
        if safe == 1.0:
            return None
        return Rare(c=1.0 - safe, k=1, s=-3.0 * safe / (1.0 - safe) if isinstance(self.ecc, TripledBits) else 0.0)

    def _rare_pairs(self, code: Secded, share: Floats) -> Rare:
        """Return (2), bits by their shares of the damage."""
        length, (n_words, n) = code.data_bits + code.n_check, (code.group(self.word)[0], self.word.n_bits)
        through = float(share @ weight_four(code.data_bits)[: n_words * n].reshape(n_words, n).mean(axis=0))
        return Rare(c=length - 1.0, k=2, s=0.5 * (length - 2) - through / (length - 1))

    def _rare_erasures(self, damage: float) -> Rare:
        """Return what parity does: one error of n + 1 erases a value; two, n of them with each bit, pass.

        c = (n + 1) E v^2/D; with X = E(sum of all bits' errors)^2/D - 1 for pairs that meet, L = c p + (n + X - n c) p^2.
        """
        n, stored = self.word.n_bits, words_of(self.word) if self.words is None else self.words
        values = self.word.decode(stored).astype(np.float64)
        turned = self.word.decode(stored ^ np.uint16((1 << n) - 1)).astype(np.float64) - values
        c = (n + 1) * float(np.mean(values**2)) / damage
        meet = float(np.mean(turned**2)) / damage - 1.0 if self.word.coding in ADDING and not self.word.gray else 0.0
        return Rare(c=c, k=1, s=-(n + meet - n * c) / c)

    @property
    def _damage(self) -> float:
        return float(square_damage(self.word, self.words).sum())

    @property
    def _raw_range(self) -> tuple[float, float]:
        low, high = self.law.bounds
        return (LEAST_P if isinstance(self.law, ExponentialPublished) else low), float(np.nextafter(high, 0.0))

    def _reaches(self, rate: float) -> bool:
        low, high = self._raw_range
        return low * (1.0 - 1e-12) <= rate < high

    def _root(self, low: float, high: float) -> float | None:
        """Return where R is 1 between two logarithms; None at the law's least error rate, which is an end of the law."""
        found = float(np.exp(brentq(lambda x: np.log(self.ratio(float(np.exp(x)))), low, high, xtol=1e-12)))
        return found if found > self.law.bounds[0] * (1.0 + 1e-3) else None

    def _exponential(self, rare: Rare, a: float) -> float | None:
        w, b = self.slope_bits, self.fixed_rel
        p0 = float(np.exp(-(np.log(rare.c) + a * b) / (rare.k - w)))
        argument = -rare.s * p0 / (rare.k - w)
        if not p0 < 0.5 or argument < -np.exp(-1.0):
            return None
        p = p0 * float(np.exp(-lambertw(argument).real))
        return p if 0.0 < p < 0.5 else None

    def _gaussian(self, rare: Rare, law: CellThreshold) -> float | None:
        (mean, std), z = law.threshold, 3.0
        for _ in range(N_SLOW):
            p, v = float(ndtr(-z)), mean + std * z
            r = float(np.sqrt(self.slope_bits + self.fixed_rel / v**2))
            line = (r - 1.0) * mean / std
            slow = np.log(rare.c) - rare.s * p - rare.k * _slow(z) + _slow(max(r * z + line, 0.0))
            under = (r * line) ** 2 + (rare.k - r**2) * (line**2 + 2.0 * slow)
            if under < 0.0:
                return None
            z = (r * line + np.sign(rare.k - r**2) * float(np.sqrt(under))) / (rare.k - r**2)
            if not 0.0 < z < 38.0:
                return None
        return float(ndtr(-z))


def _slow(z: float) -> float:
    """Return h of (4), with Birnbaum's bound of Q: within 2 % of exact from z = 2 on, in Q."""
    return float(0.5 * np.log(2.0 * np.pi) + np.log(0.5 * (z + np.sqrt(z * z + 4.0))))


def indifferent_rate(protected: Protected) -> float | None:
    """Return the bare memory's best rate at which a code is worth as much, at one price of damage, under the exponential law.

    A bare bit of damage S costs eta(p) + S p, best at p = T = 1/(a S), where it is (1 - ln T)/a; with c p^2 left of p the best is at
    p^2 = w T/(2 c), and what e^(-s p) takes off there is w s p/(2 a). Both costs are equal where

        ln T = ln T0 + g sqrt(T),   ln T0 = 1 + (w ln(w/(2 c)) - 2 a b)/(2 - w),   g = w s sqrt(w/(2 c))/(2 - w)
        sqrt(T) = -(2/g) W(-(g/2) sqrt(T0))                                                                         (5)

    and the code is worth more below. None for other laws and codes.
    """
    rare, w = protected.rare, protected.slope_bits
    if not isinstance(protected.law, Exponential | ExponentialPublished) or rare is None or rare.k != 2 or w >= 2.0:
        return None
    start = float(np.exp(0.5 + (0.5 * w * np.log(w / (2.0 * rare.c)) - protected.law.a * protected.fixed_rel) / (2.0 - w)))
    half = 0.5 * w * rare.s * float(np.sqrt(w / (2.0 * rare.c))) / (2.0 - w)
    return (float(lambertw(-half * start).real) / half) ** 2 if half * start < np.exp(-1.0) else None


def weight_four(data_bits: int) -> NDArray[np.int64]:
    """Return, for each data bit of a SECDED word, how many words of weight four of the code go through it.

    Columns a, b, c that add up to column j, by the Walsh transform F of how often a column is there: N_j = 2^-m sum_u (-1)^(u h_j) F_u^3
    counts ordered triples, of which 3 n - 2 have two alike; six orders make A4_j = (N_j - 3 n + 2)/6.
    """
    columns = columns_of(data_bits)
    n, high = columns.size, 1 << (Secded(data_bits=data_bits).n_check - 1)
    extended = columns | high
    signs = 1 - 2 * (np.bitwise_count(np.arange(2 * high)[:, None] & extended) & 1).astype(np.int64)
    triples = (signs.sum(axis=1)[:, None] ** 3 * signs[:, :data_bits]).sum(axis=0) // (2 * high)
    return np.asarray((triples - 3 * n + 2) // 6)


def quarter_scale_words(word: WordFormat, *, n: int = 4096) -> Words:
    """Return words of Gaussian numbers whose standard deviation is a quarter of the greatest, at the middles of `n` equal shares."""
    values = np.clip(np.rint(0.25 * word.greatest * ndtri((np.arange(n) + 0.5) / n)), word.least, word.greatest)
    return word.encode(values.astype(np.int64))


def scanned(protected: Protected, left_p: float, *, n_points: int = 2000) -> Compared:
    """Return what `compared` does, by trying operating points from the least energy to the most: no root and no inverse."""
    low, high = protected.law.energy_bounds
    energies = np.linspace(max(low, 1e-9), high, n_points)
    rates: Floats = protected.law.error_rate(energies)
    bare = rates <= left_p
    left = np.array([protected.left_rate(float(p)) for p in rates])
    coded = left <= left_p
    with_rel = protected.slope_bits * energies + protected.fixed_rel
    best = int(np.argmin(np.where(coded, with_rel, np.inf)))
    return Compared(
        left_p=left_p, raw_p=float(rates[best]) if coded.any() else None, with_rel=float(with_rel[best]) if coded.any() else None,
        without_rel=float(energies[bare].min()) if bare.any() else None,
    )  # fmt: skip
