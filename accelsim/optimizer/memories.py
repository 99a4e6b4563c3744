"""Error rates of memories as part of a design: one multiplier prices conductances, converter bits and the energy of memories.

A memory site (one kind of words of one layer) at the error rate p takes the power P(p) = rate x accesses x energy, and does the damage

    D(p) = sum_j s_j p'_j(p),      s_j: damage of one wrong bit j an inference, from single events; p': what a code leaves            (1)

For a price lambda of an MSE, each site - or each bit of it - is on its own:

    p(lambda) = argmin P(p) + D(p) / lambda                                                                        (2)

by the slope of a convex law (reverse water-filling); with a code, whose D(p) is no longer linear, on a grid that closes in; code or none,
whichever costs less. The scales' closed form says what the rest of the budget buys; the best lambda is found by golden section, and is the
one at which a watt buys the same everywhere. A code that comes or goes at a lambda is a step in power, which may leave some of a budget
unused: then the N_NEAREST sites that are nearest to indifference are tried with and without, the others as they are.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cache
from itertools import product
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray
from scipy.interpolate import CubicSpline

from accelsim.ledger import inferences_per_second
from accelsim.memory_spec import StoredWords
from accelsim.optimizer.problem import Infeasible
from accelsim.optimizer.reliability import allocate_domains, best_rates, is_convex
from accelsim.placement import Plan, with_specs
from accelsim.prediction.event_sources import Source, sources_of
from accelsim.prediction.events import sampled_sum, without_faults
from accelsim.prediction.question import Question
from accelsim.response.linear import Response
from accelsim.values_in_memory import Access, accesses_of
from devices.base.errors import SpecError, UnsupportedMethodError
from devices.ecc import Secded
from devices.memory import Memory
from devices.reliability import ExponentialPublished
from devices.word_format import WordFormat

Floats = NDArray[np.float64]
N_GRID = 241
LOOK_P = 1e-5
"""Error rate at which damages of single faults are measured: they do not depend on it."""
TOL_REL = 0.2
N_COARSE, N_GOLDEN = 25, 24
N_CODED, N_CLOSING, N_ROUNDS = 81, 33, 3
"""Rates of the grid of a coded memory, then of each closing in, which narrows ln p by 16: to 5e-5 at last."""
LEAST_CODED_P, MOST_CODED_P = 1e-9, 0.05
N_CURVE, LEAST_DAMAGE = 193, 1e-300
LEAST_CODED_PRICE = 1e-4
"""What a code leaves falls with p squared, and so the price at which p is at its least: by the check bits' many p there, at most."""
N_NEAREST, N_NEAR = 3, 9
TOL_BETTER = 1e-9
NEAR = 8.0
"""How far from the best price it is looked for again with codes held."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class MemorySite:
    """One kind of words of one layer, as a design moves it.

    `damage` is s of (1), `(n_bits,)`; `bit_w` the power of all reads and writes at an energy of 1 a bit, `logic_w` that of the logic of
    a code, where there is one.
    """

    layer: str
    part: str
    memory: Memory
    damage: Floats
    bit_w: float
    logic_w: float = 0.0

    def power_w(self, memory: Memory) -> float:
        """Return the power at a memory's operating point."""
        return self.bit_w * memory.read_bits + (0.0 if memory.ecc is None else self.logic_w)

    def at(self, rates: Floats, *, coded: bool) -> Memory:
        """Return the memory at other error rates of its bits, with a code or none."""
        ecc = (self.memory.ecc or Secded()) if coded else None
        one = None if np.ptp(rates) > 0.0 else float(rates[0])
        many = tuple(map(float, rates)) if one is None else None
        decode, encode = (self.memory.decode_energy_j, self.memory.encode_energy_j) if coded else (0.0, 0.0)
        return replace(
            self.memory, energy_rel=None, v_rel=None, error_rate_p=one, bit_error_rates_p=many, ecc=ecc, decode_energy_j=decode,
            encode_energy_j=encode,
        )  # fmt: skip


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class MemoryChoice:
    """What each site is at: error rates of its bits and whether it has a code; with power and damage of all, and the price, if any."""

    rates: tuple[Floats, ...]
    coded: tuple[bool, ...]
    power_w: float
    damage: float
    price: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Refreshed:
    """How often damages were measured anew, and the MSE by single faults at the first design, predicted there, and at the last."""

    n_rounds: int
    linear: float
    before: float
    after: float


def memory_sites(plan: Plan, question: Question, response: Response) -> tuple[MemorySite, ...]:
    """Return the sites of a plan's memories, with the damage of each bit by single faults."""
    looked = looked_at(plan)
    sources = sources_of(replace(question, plan=looked), response, without_faults(looked))
    sampled_sum(sources, tol_rel=TOL_REL, least=0.0)
    rate = inferences_per_second(plan)
    return tuple(_site(access, sources, rate) for layer in plan.layers for access in accesses_of(layer))


def _site(access: Access, sources: Sequence[Source], rate: float) -> MemorySite:
    mine = [s for s in sources if s.layer == access.layer and s.cause == f"memory_{access.part}"]
    damage = np.zeros(access.memory.word.n_bits)
    for source in mine:
        for bit, mse in source.by_bit().items():
            damage[bit] += mse / LOOK_P
    memory = access.memory
    joules = access.reads * memory.read_energy_j + access.writes * memory.write_energy_j
    logic = access.reads * memory.decode_energy_j + access.writes * memory.encode_energy_j
    return MemorySite(layer=access.layer, part=access.part, memory=memory, damage=damage, bit_w=joules * rate, logic_w=logic * rate)


def looked_at(plan: Plan) -> Plan:
    """Return the plan with memories whose bits all err at LOOK_P, uncoded: to see what single faults do."""

    def changed(spec: StoredWords) -> StoredWords:
        plain = {"energy_rel": None, "v_rel": None, "bit_error_rates_p": None, "error_rate_p": LOOK_P, "ecc": None}
        return replace(spec, use=None, law=ExponentialPublished(), decode_energy_j=0.0, encode_energy_j=0.0, **plain)  # type: ignore[arg-type]

    return replace(plan, layers=tuple(with_specs(layer, lambda _, spec: changed(spec)) for layer in plan.layers))


class MemoryProblem:
    """The memories of a plan as a problem: what they take and damage at a price."""

    def __init__(self, sites: Sequence[MemorySite], *, per_bit: bool, codes: bool, fixed: bool = False) -> None:
        self.sites, self.per_bit, self.codes, self.fixed = tuple(sites), per_bit, codes, fixed
        for site in sites:
            if site.memory.ecc is not None and not isinstance(site.memory.ecc, Secded):
                raise UnsupportedMethodError(
                    f"optimize() knows SECDED or no code; memory.{site.part} of layer {site.layer!r} has {site.memory.ecc.kind}"
                )
            if site.bit_w == 0.0 and not fixed:
                raise SpecError(
                    f"memory.{site.part}.read_energy_j: absent for layer {site.layer!r}; without an energy, no errors are always better: "
                    "give read_energy_j and write_energy_j"
                )
        self.convex = {site.memory.law: is_convex(site.memory.law) for site in sites}
        self.tables = [_CodedSite(site) if not fixed and (codes or site.memory.ecc) else None for site in sites]

    def at(self, price: float, *, coded: Sequence[bool] | None = None) -> MemoryChoice:
        """Return (2): `price` is lambda, MSE per watt; with `coded` it is given which sites have a code."""
        rates, chosen = [], []
        for i, (table, plain) in enumerate(zip(self.tables, self._plain(price))):
            best, has = plain, False
            if table is not None and (coded is None or coded[i]):
                rate, cost = table.best(price)
                has = coded is not None or self.must(i) or cost < self._cost(self.sites[i], plain, price)
                best = np.full(self.n_bits(i), rate) if has else plain
            rates.append(best)
            chosen.append(has)
        return replace(self.choice(rates, chosen), price=price)

    def must(self, i: int) -> bool:
        """Return whether a site keeps the code it has: none is to be chosen."""
        return self.sites[i].memory.ecc is not None and not self.codes

    def nearest(self, price: float) -> list[int]:
        """Return the sites that gain or lose least by a code at a price, nearest first."""
        plain = self._plain(price)
        free = {i: table for i, table in enumerate(self.tables) if table is not None and not self.must(i)}
        gains = {i: abs(table.best(price)[1] - self._cost(self.sites[i], plain[i], price)) for i, table in free.items()}
        return sorted(gains, key=lambda i: gains[i])[:N_NEAREST]

    def _plain(self, price: float) -> list[Floats]:
        """Return each site's best rates without a code: those of one law together."""
        found: dict[int, Floats] = {}
        for law, convex in self.convex.items():
            mine = [i for i, site in enumerate(self.sites) if site.memory.law == law]
            damages = [self.sites[i].damage if self.per_bit else self.sites[i].damage.mean() * np.ones(self.n_bits(i)) for i in mine]
            low, high = law.bounds
            cuts = np.cumsum([len(d) for d in damages])[:-1]
            weights = np.concatenate([np.full(len(d), self.sites[i].bit_w) for i, d in zip(mine, damages)])
            if low == high:
                rates = np.full(len(weights), low)
            elif convex:
                rates = best_rates(law, np.concatenate(damages) / price / weights)
                if isinstance(law, ExponentialPublished):  # its full energy is free of errors
                    rates = np.where(rates <= low * (1.0 + 1e-12), 0.0, rates)
            else:
                grid = np.geomspace(max(low, 1e-12), high * (1 - 1e-12), N_GRID)
                cost = weights[:, None] * law.energy_rel(grid) + np.concatenate(damages)[:, None] * grid / price
                rates = np.asarray(grid[cost.argmin(axis=1)])
            found |= dict(zip(mine, np.split(rates, cuts)))
        return [found[i] for i in range(len(self.sites))]

    def n_bits(self, i: int) -> int:
        """Return the bits of a site's words."""
        return self.sites[i].memory.word.n_bits

    def _cost(self, site: MemorySite, rates: Floats, price: float) -> float:
        return site.bit_w * float(site.memory.law.energy_rel(rates).sum()) + float(site.damage @ rates) / price

    def choice(self, rates: Sequence[Floats], coded: Sequence[bool]) -> MemoryChoice:
        """Return rates with their power and damage."""
        power = damage = 0.0
        for site, p, has in zip(self.sites, rates, coded):
            memory = site.at(p, coded=has)
            power += site.power_w(memory)
            left = memory.ecc.residual_rates(memory.word, memory.error_rates) if isinstance(memory.ecc, Secded) else p
            damage += float(site.damage @ left)
        return MemoryChoice(rates=tuple(rates), coded=tuple(coded), power_w=power, damage=damage)

    def clustered(self, choice: MemoryChoice, n_domains: int) -> MemoryChoice:
        """Return the choice with at most so many different voltages, at the same damage and least energy: one law, no codes, not by bit."""
        laws = {site.memory.law for site in self.sites}
        if len(laws) > 1 or self.per_bit or any(choice.coded):
            raise UnsupportedMethodError("voltage domains need one law for all memories, one rate a layer and no code")
        weight = np.array([site.bit_w * site.memory.word.n_bits for site in self.sites])
        damage = np.array([site.damage.sum() for site in self.sites])
        found = allocate_domains(next(iter(laws)), weight=weight, damage=damage, damage_budget=choice.damage, n_domains=n_domains)
        return self.choice([np.full(s.memory.word.n_bits, p) for s, p in zip(self.sites, found.error_rate)], choice.coded)

    def one_rate(self, power_w: float) -> MemoryChoice | None:
        """Return the choice of one error rate for all bits, and no code, that takes a power; None for several laws or none that does."""
        laws = {site.memory.law for site in self.sites}
        law, bits_w = next(iter(laws)), sum(site.bit_w * site.memory.word.n_bits for site in self.sites)
        least, most = law.energy_bounds
        if len(laws) > 1 or bits_w == 0.0 or not least < power_w / bits_w <= most:
            return None
        rate = law.error_rate(power_w / bits_w)
        return self.choice([np.full(site.memory.word.n_bits, rate) for site in self.sites], [False] * len(self.sites))

    def with_damages(self, factors: Floats) -> "MemoryProblem":
        """Return the problem with each site's damage times a factor."""
        sites = [replace(site, damage=float(factor) * site.damage) for site, factor in zip(self.sites, factors)]
        return MemoryProblem(sites, per_bit=self.per_bit, codes=self.codes, fixed=self.fixed)

    @property
    def present(self) -> MemoryChoice:
        """The operating points that the plan has."""
        return self.choice([site.memory.error_rates for site in self.sites], [site.memory.ecc is not None for site in self.sites])


class _CodedSite:
    """A site with a code: the one rate of its bits at which power + damage / price is least."""

    def __init__(self, site: MemorySite) -> None:
        low, high = site.memory.law.bounds
        code, word = site.memory.ecc or Secded(), site.memory.word
        assert isinstance(code, Secded)  # a MemoryProblem has no other
        self.site, self.grid = site, np.linspace(np.log(max(low, LEAST_CODED_P)), np.log(min(high, MOST_CODED_P)), N_CODED)
        self.bits = code.read_bits(word, np.ones(word.n_bits))
        left = _left_rates(code, word, float(self.grid[0]), float(self.grid[-1])) @ site.damage
        self.damage = CubicSpline(self.grid, np.log(left)) if np.all(left > 0.0) else None

    def best(self, price: float) -> tuple[float, float]:
        """Return the rate and its cost."""
        grid, cost = self.grid, self._cost(self.grid, price)
        for _ in range(N_ROUNDS):
            i = int(cost.argmin())
            grid = np.linspace(grid[max(i - 1, 0)], grid[min(i + 1, len(grid) - 1)], N_CLOSING)
            cost = self._cost(grid, price)
        i = int(cost.argmin())
        return float(np.exp(grid[i]).clip(*self.site.memory.law.bounds)), float(cost[i])

    def _cost(self, log_rates: Floats, price: float) -> Floats:
        law = self.site.memory.law
        power = self.site.bit_w * self.bits * law.energy_rel(np.exp(log_rates).clip(*law.bounds)) + self.site.logic_w
        return np.asarray(power + (0.0 if self.damage is None else np.exp(self.damage(log_rates)) / price))


@cache
def _left_rates(code: Secded, word: WordFormat, low: float, high: float) -> Floats:
    """Return the rates that a code leaves of each bit, `(N_CODED, n_bits)`, at rates between two logarithms."""
    return np.array([code.residual_rates(word, float(p)) for p in np.exp(np.linspace(low, high, N_CODED))])


Answer = tuple[float, float]
Value = Callable[[float, float], "Answer | Infeasible"]


def best_memories(
    memories: MemoryProblem, value: Value, side: int, *, prices: tuple[float, float]
) -> "tuple[MemoryChoice, Answer] | Infeasible":
    """Return the choice with which the rest is best; `value(damage, power_w)` is what it comes to, `side` 0 for MSE, 1 for power."""
    found = _least(memories, value, side, prices=prices, coded=None)
    if isinstance(found[2], Infeasible):
        return found[2]
    price = found[1].price or 1.0
    near, held = memories.nearest(price), list(found[1].coded)
    for has in product((False, True), repeat=len(near)) if near else ():
        for i, one in zip(near, has):
            held[i] = one
        other = _least(memories, value, side, prices=(price / NEAR, price * NEAR), coded=tuple(held), n_coarse=N_NEAR)
        found = other if other[0] < found[0] * (1.0 - TOL_BETTER) else found
    assert not isinstance(found[2], Infeasible)  # it was not, and what is better is not
    return found[1], found[2]


Tried = tuple[float, MemoryChoice, "Answer | Infeasible"]


def _least(
    memories: MemoryProblem, value: Value, side: int, *, prices: tuple[float, float], coded: tuple[bool, ...] | None,
    n_coarse: int = N_COARSE,
) -> Tried:  # fmt: skip
    """Return the best choice over prices: a few over their range, then golden section about the best of these."""

    def at(log_price: float) -> Tried:
        choice = memories.at(float(np.exp(log_price)), coded=coded)
        found = value(choice.damage, choice.power_w)
        return (1e300 * (1.0 + found.gap) if isinstance(found, Infeasible) else found[side]), choice, found

    low, high = (float(np.log(price)) for price in prices)
    return _golden(at, low, high, n_coarse=n_coarse)


Point = TypeVar("Point", bound=tuple[Any, ...])


def _golden(at: Callable[[float], Point], low: float, high: float, *, n_coarse: int) -> Point:
    """Return the point whose first entry is least: a few over the range, then golden section about the best of these."""
    tried = [at(x) for x in np.linspace(low, high, n_coarse)]
    best = int(np.argmin([t[0] for t in tried]))
    step = (high - low) / (n_coarse - 1)
    left, right = low + step * max(best - 1, 0), low + step * min(best + 1, n_coarse - 1)
    golden = (np.sqrt(5.0) - 1.0) / 2.0
    xs = [right - golden * (right - left), left + golden * (right - left)]
    pair, found = [at(x) for x in xs], tried[best]
    for _ in range(N_GOLDEN):
        found = min((found, *pair), key=lambda t: t[0])
        if pair[0][0] <= pair[1][0]:
            right, xs[1], pair[1] = xs[1], xs[0], pair[0]
            xs[0] = right - golden * (right - left)
            pair[0] = at(xs[0])
        else:
            left, xs[0], pair[0] = xs[0], xs[1], pair[1]
            xs[1] = left + golden * (right - left)
            pair[1] = at(xs[1])
    return min((found, *pair), key=lambda t: t[0])


class MemoryCurve:
    """The whole trade-off of memories, damage over power above `now_w`, for many questions: each a search along it."""

    def __init__(self, memories: MemoryProblem, now_w: float) -> None:
        choices = [memories.at(float(price)) for price in np.geomspace(*price_range(memories), N_CURVE)]
        self.power_w = np.array([choice.power_w - now_w for choice in choices])
        self.log_damage = np.log([max(choice.damage, LEAST_DAMAGE) for choice in choices])

    def best(self, value: Value, side: int) -> "Answer | Infeasible":
        """Return the least that `value(damage, power_w)` comes to along the curve; `side` 0 for MSE, 1 for power."""
        places = np.arange(N_CURVE)

        def at(place: float) -> tuple[float, "Answer | Infeasible"]:
            found = value(float(np.exp(np.interp(place, places, self.log_damage))), float(np.interp(place, places, self.power_w)))
            return (1e300 * (1.0 + found.gap) if isinstance(found, Infeasible) else found[side]), found

        return _golden(at, 0.0, N_CURVE - 1.0, n_coarse=N_COARSE)[1]


def price_range(memories: MemoryProblem) -> tuple[float, float]:
    """Return prices at which all memories are at their least, and at their largest error rates."""
    ends = []
    for site in memories.sites:
        low, high = site.memory.law.bounds
        positive = site.damage[site.damage > 0.0]
        if low == high or not positive.size or not is_convex(site.memory.law):
            continue
        slopes = [-float(site.memory.law.slope(p)) * site.bit_w for p in (low, float(np.nextafter(high, 0.0)))]
        ends += [damage / slope for damage in (positive.min(), positive.max(), positive.mean()) for slope in slopes if slope > 0.0]
    coded = LEAST_CODED_PRICE if any(memories.tables) else 1.0
    return (0.5 * coded * min(ends), 2.0 * max(ends)) if ends else (1e-12, 1e12)


Rates = dict[str, dict[str, float | tuple[float, ...]]]


def as_design(memories: MemoryProblem, choice: MemoryChoice) -> tuple[Rates, dict[str, tuple[str, ...]]]:
    """Return error rates by part and layer, and by part the layers that have a code: what a Design holds."""
    rates: Rates = {}
    coded: dict[str, tuple[str, ...]] = {}
    for site, p, has in zip(memories.sites, choice.rates, choice.coded):
        rates.setdefault(site.part, {})[site.layer] = float(p[0]) if np.ptp(p) == 0.0 else tuple(map(float, p))
        coded.setdefault(site.part, ())
        if has:
            coded[site.part] = (*coded[site.part], site.layer)
    return rates, coded


def in_words(memories: MemoryProblem, choice: MemoryChoice) -> str:
    """Return what was chosen as a sentence."""
    parts = []
    for site, p, has in zip(memories.sites, choice.rates, choice.coded):
        span = f"{p.min():.2g}" if np.ptp(p) == 0.0 else f"{p.max():.2g} to {p.min():.2g}"
        parts.append(f"{site.part} of {site.layer} {span}{' with SECDED' if has else ''}")
    return "error rates of memories: " + ", ".join(parts)
