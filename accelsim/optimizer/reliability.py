"""Reverse water-filling: the error rates of layers, or of bits, that take least energy for a damage.

    minimize sum_l w_l eta(p_l)   subject to   sum_l s_l p_l <= D,        p within the law's bounds               (1)

w_l is what is read, bits times reads; s_l p_l the damage, such as the output's error, at the error rate p_l. With the multiplier m,

    w_l eta'(p_l) = -m s_l        at the optimum; p_l = w_l / (a m s_l) for the exponential law, held within bounds       (2)

With K voltage domains the rates rise with w_l/s_l still, so domains are runs of layers sorted by it, a run being one layer of the sums of
w and s: the best runs at a multiplier are found by dynamic programming, O(K L^2), the multiplier by bisection. Whatever is no convex law -
a few voltages, a code or none - is a menu of points (damage, energy), of which the lower convex hull is used. Every answer has the bound
that its multiplier proves: no choice takes less (`bound`); for (1) itself that is its energy.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from devices.base.errors import InfeasibleError, SpecError
from devices.reliability import Exponential, ExponentialPublished
from devices.reliability_law import ReliabilityLaw

Floats: TypeAlias = NDArray[np.float64]
N_BISECTIONS = 64
N_CONVEX = 2001
N_RUNS = 40
"""Bisections of the multiplier of runs, which jumps where other runs become best: beyond its jump nothing changes."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Allocation:
    """Error rates and energies of layers, in the shape of what was asked.

    Parameters
    ----------
    error_rate, energy_rel
        p and eta of each layer: of a bit as stored.
    energy, damage
        sum w eta, times what a menu's choice stores beyond; sum of damages.
    multiplier
        m of (2): what a little less damage costs in energy. 0 where the budget does not bind.
    bound
        Least energy that any choice for this damage could have.
    choice
        Which option of a menu each layer has, or its domain; zeros without.
    """

    error_rate: Floats
    energy_rel: Floats
    energy: float
    damage: float
    multiplier: float
    bound: float
    choice: NDArray[np.intp]


def _checked(weight: Floats, damage: Floats, budget: float) -> tuple[Floats, Floats]:
    """Return floats of one shape; SpecError for what is no problem."""
    w, s = np.broadcast_arrays(np.asarray(weight, np.float64), np.asarray(damage, np.float64))
    if not (np.all(np.isfinite(w)) and np.all(np.isfinite(s)) and np.all(w >= 0.0) and np.all(s >= 0.0)) or not w.size:
        raise SpecError("weight, damage: need one or more finite numbers of at least 0")
    if not np.isfinite(budget):
        raise SpecError(f"damage_budget: {budget}: need a finite number")
    return w, s


def _prices(weight: Floats, damage: Floats, multiplier: float) -> Floats:
    """Return m s/w: what an error rate's damage is worth in energy of a bit; infinite where nothing is read."""
    return np.divide(multiplier * damage, weight, out=np.full_like(weight, np.inf), where=weight > 0.0)


def best_rates(law: ReliabilityLaw, price: Floats) -> Floats:
    """Return the error rates of a convex law that minimize eta(p) + price p, within bounds: closed, or by bisection of the slope."""
    least, largest = law.bounds
    if isinstance(law, Exponential | ExponentialPublished):
        free = np.divide(1.0, law.a * price, out=np.full(price.shape, np.inf), where=price > 0.0)
        return np.clip(free, least, np.nextafter(largest, 0.0))
    low, high = np.full(price.shape, np.log(least)), np.full(price.shape, np.log(np.nextafter(largest, 0.0)))
    for _ in range(N_BISECTIONS):
        middle = 0.5 * (low + high)
        steep = law.slope(np.exp(middle)) + price < 0.0
        low, high = np.where(steep, middle, low), np.where(steep, high, middle)
    return np.clip(np.exp(0.5 * (low + high)), least, np.nextafter(largest, 0.0))


def is_convex(law: ReliabilityLaw) -> bool:
    """Return whether the law's slope rises all along its bounds, seen at N_CONVEX rates; a fixed point has none and is not."""
    least, largest = law.bounds
    if least == largest or least <= 0.0:
        return False
    slopes = law.slope(np.geomspace(least, np.nextafter(largest, 0.0), N_CONVEX).clip(least, np.nextafter(largest, 0.0)))
    return bool(np.all(np.diff(slopes) >= -1e-9 * np.abs(slopes[1:])))


def _check_convex(law: ReliabilityLaw) -> None:
    if not is_convex(law):
        raise SpecError(f"the law {law.kind} is not convex within its bounds, so one slope has several error rates; use allocate_menu")


def allocate(law: ReliabilityLaw, *, weight: Floats, damage: Floats, damage_budget: float) -> Allocation:
    """Solve (1) for one law, any shape of layers; bits of unequal weight are layers with their own damage, 4^j for bit j.

    The published exponential is used between its jumps.

    Raises
    ------
    InfeasibleError
        Even the least error rate everywhere does more damage than the budget.
    SpecError
        The law is not convex, or the numbers are no problem.
    """
    w, s = _checked(weight, damage, damage_budget)
    _check_convex(law)
    m = _multiplier(lambda m: float((s * best_rates(law, _prices(w, s, m))).sum()), damage_budget, _range_of_multipliers(law, w, s))
    rates = best_rates(law, _prices(w, s, m))
    energies = law.energy_rel(rates)
    energy, done = float((w * energies).sum()), float((s * rates).sum())
    return Allocation(
        error_rate=rates, energy_rel=energies, energy=energy, damage=done, multiplier=m, bound=energy + m * (done - damage_budget),
        choice=np.zeros(w.shape, np.intp),
    )  # fmt: skip


def allocate_energy(law: ReliabilityLaw, *, weight: Floats, damage: Floats, energy_budget: float) -> Allocation:
    """Solve the dual of (1): least damage for an energy sum w eta; `bound` is of the energy for that damage."""
    w, s = _checked(weight, damage, energy_budget)
    _check_convex(law)
    low, high = _range_of_multipliers(law, w, s)

    def energy_of(m: float) -> float:
        return float((w * law.energy_rel(best_rates(law, _prices(w, s, m)))).sum())

    if energy_of(low) > energy_budget * (1.0 + 1e-12):
        raise InfeasibleError(f"energy_budget: {energy_budget:g}: the least is {energy_of(low):g}, all layers at the largest error rate")
    for _ in range(N_BISECTIONS):
        middle = float(np.sqrt(low * high))
        low, high = (middle, high) if energy_of(middle) <= energy_budget else (low, middle)
    rates = best_rates(law, _prices(w, s, low))
    energies = law.energy_rel(rates)
    energy = float((w * energies).sum())
    return Allocation(
        error_rate=rates, energy_rel=energies, energy=energy, damage=float((s * rates).sum()), multiplier=low, bound=energy,
        choice=np.zeros(w.shape, np.intp),
    )  # fmt: skip


def _range_of_multipliers(law: ReliabilityLaw, w: Floats, s: Floats) -> tuple[float, float]:
    """Return multipliers at which all layers are at the largest, and at the least error rate."""
    real = (w > 0.0) & (s > 0.0)
    if not real.any():
        return 1e-300, 1.0
    least, largest = law.bounds
    ratios = w[real] / s[real]
    flat, steep = (-float(law.slope(p)) for p in (float(np.nextafter(largest, 0.0)), least))
    return 0.5 * flat * float(ratios.min()), 2.0 * steep * float(ratios.max())


def _multiplier(damage_of: Callable[[float], float], budget: float, ends: tuple[float, float]) -> float:
    """Return the least multiplier whose damage is within the budget, 0 where it does not bind; InfeasibleError if none is."""
    low, high = ends
    if damage_of(0.0) <= budget:
        return 0.0
    floor = damage_of(high)
    if floor > budget * (1.0 + 1e-12):
        raise InfeasibleError(
            f"damage_budget: {budget:g}: the least damage is {floor:g}, all layers at the least error rate; raise the budget, or use a "
            "law or a code that reaches lower rates"
        )
    for _ in range(N_BISECTIONS):
        middle = float(np.sqrt(low * high))
        low, high = (low, middle) if damage_of(middle) <= budget else (middle, high)
    return high


def allocate_domains(law: ReliabilityLaw, *, weight: Floats, damage: Floats, damage_budget: float, n_domains: int) -> Allocation:
    """Solve (1) with at most `n_domains` different error rates; `choice` says which domain each layer is in.

    Among the runs that are best at some multiplier, those of least energy at the budget; `bound` is that of the best multiplier.
    """
    w, s = _checked(weight, damage, damage_budget)
    _check_convex(law)
    if n_domains < 1:
        raise SpecError(f"n_domains: {n_domains}: need 1 or more")
    order = np.argsort(np.divide(s, w, out=np.full_like(s, np.inf), where=w > 0.0), axis=None, kind="stable")
    sums = [np.concatenate([[0.0], np.cumsum(part.reshape(-1)[order])]) for part in (w, s)]
    everyone = allocate(law, weight=w, damage=s, damage_budget=damage_budget)
    low, high = _range_of_multipliers(law, w, s)
    best: Allocation | None = None
    bound, seen = -np.inf, set()
    for _ in range(N_RUNS if everyone.multiplier > 0.0 else 1):
        m = float(np.sqrt(low * high)) if everyone.multiplier > 0.0 else 0.0
        starts, lagrangian, done = _best_runs(law, sums, n_domains, m)
        bound = max(bound, lagrangian - m * damage_budget)
        if starts not in seen:
            seen.add(starts)
            found = _of_runs(law, sums, starts, damage_budget)
            best = found if best is None or found.energy < best.energy else best
        low, high = (low, m) if done <= damage_budget else (m, high)
    assert best is not None
    return _spread(best, order, w.shape, bound=max(bound, everyone.bound))


Runs: TypeAlias = tuple[int, ...]


def _best_runs(law: ReliabilityLaw, sums: Sequence[Floats], n_domains: int, m: float) -> tuple[Runs, float, float]:
    """Return where runs begin, least sum of w eta + m s p over at most `n_domains` runs, and the damage there."""
    n = sums[0].size - 1
    first, last = np.triu_indices(n)
    w, s = (part[last + 1] - part[first] for part in sums)
    rates = best_rates(law, _prices(w, s, m))
    cost, done = np.full((n, n), np.inf), np.zeros((n, n))
    cost[first, last], done[first, last] = w * law.energy_rel(rates) + m * s * rates, s * rates
    best, cuts = cost[0], np.zeros((0, n), np.intp)
    for _ in range(min(n_domains, n) - 1):
        ways = np.concatenate([[0.0], best[:-1]])[:, None] + cost  # [k, i]: the last run is k .. i
        cut = ways.argmin(axis=0)
        best, cuts = ways[cut, np.arange(n)], np.concatenate([cuts, cut[None]])
    starts, end = [], n - 1
    damage = 0.0
    for cut in cuts[::-1]:
        if end < 0:
            break
        starts.append(int(cut[end]))
        damage += done[cut[end], end]
        end = int(cut[end]) - 1
    if end >= 0:
        starts.append(0)
        damage += done[0, end]
    return tuple(starts[::-1]), float(best[-1]), float(damage)


def _of_runs(law: ReliabilityLaw, sums: Sequence[Floats], starts: Runs, budget: float) -> Allocation:
    """Return the allocation of runs as one layer each, their number in `choice` for each of the sorted layers."""
    edges = np.array([*starts, sums[0].size - 1])
    w, s = (np.diff(part[edges]) for part in sums)
    found = allocate(law, weight=w, damage=s, damage_budget=budget)
    run = np.repeat(np.arange(len(starts)), np.diff(edges))
    return replace(found, error_rate=found.error_rate[run], energy_rel=found.energy_rel[run], choice=run)


def _spread(found: Allocation, order: NDArray[np.intp], shape: tuple[int, ...], *, bound: float) -> Allocation:
    """Return an allocation of sorted layers in the layers' own order and shape."""
    back = np.empty_like(order)
    back[order] = np.arange(order.size)
    return replace(
        found, error_rate=found.error_rate[back].reshape(shape), energy_rel=found.energy_rel[back].reshape(shape),
        choice=found.choice[back].reshape(shape), bound=bound,
    )  # fmt: skip


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Menu:
    """Points that a layer may choose from, `(n,)`: those of the lower convex hull, damage rising.

    `left_rate` is the rate of wrong bits that is left and does the damage, `energy_rel` what a bit of a number takes with all that is
    stored for it; `error_rate` and `option` say what the point is: the error rate as stored, and which of the options.
    """

    left_rate: Floats
    energy_rel: Floats
    error_rate: Floats
    option: NDArray[np.intp]


@dataclass(frozen=True, slots=True, kw_only=True)
class Option:
    """A way to store: how many bits for one (1.125 for SECDED of 64), and the rate that is left of an error rate."""

    stored_rel: float
    left_rate: Callable[[float], float]


BARE = Option(stored_rel=1.0, left_rate=lambda error_rate: error_rate)


def menu(law: ReliabilityLaw, error_rates: Floats, *, options: Sequence[Option] = (BARE,)) -> Menu:
    """Return the lower convex hull of error rates and options: what is never best at any price is left out."""
    rates = np.asarray(error_rates, np.float64).reshape(-1)
    energies = np.atleast_1d(law.energy_rel(rates))
    left = np.array([[option.left_rate(float(p)) for p in rates] for option in options]).reshape(-1)
    energy = np.concatenate([option.stored_rel * energies for option in options])
    option = np.repeat(np.arange(len(options)), rates.size)
    hull: list[int] = []
    for i in np.lexsort((energy, left)):
        while hull and energy[hull[-1]] >= energy[i] and left[hull[-1]] == left[i]:
            hull.pop()
        if hull and energy[i] >= energy[hull[-1]]:
            continue
        while len(hull) > 1 and _above(left, energy, hull[-2], hull[-1], i):
            hull.pop()
        hull.append(int(i))
    points = np.array(hull)
    return Menu(left_rate=left[points], energy_rel=energy[points], error_rate=np.tile(rates, len(options))[points], option=option[points])


def _above(x: Floats, y: Floats, a: int, b: int, c: int) -> bool:
    """Return whether b is on or above the line from a to c."""
    return bool((y[b] - y[a]) * (x[c] - x[a]) >= (y[c] - y[a]) * (x[b] - x[a]))


def allocate_menu(choices: Menu, *, weight: Floats, damage: Floats, damage_budget: float) -> Allocation:
    """Choose a point for each layer within the budget; what is over is spent on the steps that save most, as far as it goes."""
    w, s = _checked(weight, damage, damage_budget)
    n = choices.left_rate.size
    steps = np.diff(choices.energy_rel) / np.diff(choices.left_rate) if n > 1 else np.zeros(0)

    def points(m: float) -> NDArray[np.intp]:
        found = np.searchsorted(steps, -_prices(w, s, m), side="right") if n > 1 else np.zeros(w.shape, np.intp)
        return np.asarray(np.where(s > 0.0, found, n - 1))

    def damage_of(m: float) -> float:
        return float((s * choices.left_rate[points(m)]).sum())

    real = (w > 0.0) & (s > 0.0)
    ratios = w[real] / s[real] if real.any() else np.ones(1)
    ends = (0.5 * float(-steps[-1] * ratios.min()), 2.0 * float(-steps[0] * ratios.max())) if n > 1 else (1e-300, 1.0)
    m = _multiplier(damage_of, damage_budget, ends)
    at = points(m)
    bound = float((w * choices.energy_rel[at]).sum()) + m * (float((s * choices.left_rate[at]).sum()) - damage_budget)
    at = _spend_rest(choices, w.reshape(-1), s.reshape(-1), at.reshape(-1).copy(), damage_budget).reshape(w.shape)
    energies = choices.energy_rel[at]
    return Allocation(
        error_rate=choices.error_rate[at], energy_rel=energies, energy=float((w * energies).sum()),
        damage=float((s * choices.left_rate[at]).sum()), multiplier=m, bound=bound, choice=choices.option[at],
    )  # fmt: skip


def _spend_rest(choices: Menu, w: Floats, s: Floats, at: NDArray[np.intp], budget: float) -> NDArray[np.intp]:
    """Move layers one step on while the budget allows, the largest saving first."""
    rest = budget - float((s * choices.left_rate[at]).sum())
    while True:
        after = np.minimum(at + 1, choices.left_rate.size - 1)
        costs = s * (choices.left_rate[after] - choices.left_rate[at])
        savings = np.where((after > at) & (costs <= rest), w * (choices.energy_rel[at] - choices.energy_rel[after]), 0.0)
        i = int(savings.argmax())
        if savings[i] <= 0.0:
            return at
        rest -= float(costs[i])
        at[i] += 1
