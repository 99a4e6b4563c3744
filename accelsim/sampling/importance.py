"""Rare faults of stored weights by importance: every trial has at least one, drawn where the damage is.

With S the random set of wrong bits, f(S) what they add to a trial's loss, f of none being 0, and a_e > 0 any weight of bit e, A(S) their
sum,

    E f(S) = sum_S P(S) f(S) sum_(e in S) a_e / A(S) = Z E [ f(S') / A(S') ],      Z = sum_e p_e a_e               (1)

where S' holds one bit e drawn in proportion to p_e a_e, and the others each with its own probability. It is exact at any error rate, for
any f. With a_e the linear damage, f / A varies little, however rare faults are. Beside it stands the loss of the same trial without faults.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from accelsim.placement import Plan
from accelsim.response.linear import Response
from accelsim.stored_weights import WordSite
from accelsim.stored_words import independent
from devices.word_format import Words
from workloads.network import NodeIndex
from workloads.operators.base import Array

FLOOR = 0.1
"""Share of a layer's mean response power that every weight counts at least, so that no fault is out of reach."""
ENOUGH = 50.0
"""Faults of a trial, as many as count, from which on plain trials have enough of them."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Chosen:
    """A trial's bit that is wrong in any case: layer's node, number, bit."""

    node: NodeIndex
    number: int
    bit: int


class Importance:
    """Draws the bit of each trial and says what the trial counts."""

    def __init__(self, sites: Mapping[NodeIndex, WordSite], damages: Mapping[NodeIndex, Array]) -> None:
        """Take the damage a_e of each bit by node, `(n_bits, n)`."""
        self.sites, self.damages = sites, damages
        self.nodes = list(sites)
        by_number = {n: _rates(site) * damages[n] for n, site in sites.items()}
        self.sums = {n: np.cumsum(found.sum(axis=0)) for n, found in by_number.items()}
        self.totals = np.array([self.sums[n][-1] for n in self.nodes])
        self.total = float(self.totals.sum())
        self.n_faults = self.total**2 / sum(float((found * damages[n]).sum()) for n, found in by_number.items())

    def chosen(self, *, seed: int, trial: int) -> Chosen:
        """Return the bit that is wrong in a trial: a pure function of seed and trial."""
        random = np.random.default_rng([seed & 0xFFFFFFFFFFFFFFFF, trial, 0x1B17])
        node = self.nodes[int(random.choice(len(self.nodes), p=self.totals / self.total))]
        sums = self.sums[node]
        number = min(int(np.searchsorted(sums, random.random() * sums[-1], side="right")), len(sums) - 1)
        site = self.sites[node]
        shares = _rates(site, number) * self.damages[node][:, number]
        return Chosen(node=node, number=number, bit=int(random.choice(len(shares), p=shares / shares.sum())))

    def weight(self, masks: Mapping[NodeIndex, Words]) -> float:
        """Return Z / A for the bits that are wrong in a trial, the chosen one among them."""
        wrong = 0.0
        for node, mask in masks.items():
            numbers = np.flatnonzero(mask)
            bits = (mask[numbers] >> np.arange(len(self.damages[node]))[:, None]) & 1
            wrong += float(np.sum(bits * self.damages[node][:, numbers]))
        return self.total / wrong


def _rates(site: WordSite, number: int | None = None) -> Array:
    """Return the probability that each bit is wrong, `(n_bits, n)`, or `(n_bits,)` of one number."""
    words = site.words.reshape(-1) if number is None else site.words.reshape(-1)[number]
    return np.stack([p[words] for _, p, _ in site.single_faults()])


def importance_of(plan: Plan, response: Response, scales: Mapping[NodeIndex, Array]) -> Importance | None:
    """Return the importance of the faults of stored weights; None where there are none, or plain trials have enough of them.

    `scales` is how much of their linear damage the faults of each bit do.
    """
    sites = {layer.node: layer.site for layer in plan.layers if isinstance(layer.site, WordSite) and layer.site.is_sparse}
    if not sites or not all(independent(site.memory) for site in sites.values()):
        return None
    powers = {layer.node: response.layers[layer.name].power for layer in plan.layers}
    damages = {}
    for node, site in sites.items():
        power = floored(powers[node])
        damages[node] = np.stack([(change**2 * power).ravel() for _, _, change in site.events()]) * scales[node][:, None]
    found = Importance(sites, damages)
    return found if found.total > 0.0 and found.n_faults < ENOUGH else None


def floored(power: Array) -> Array:
    """Return a layer's response power with the least that every weight counts."""
    least = power + FLOOR * power.mean()
    return least if np.any(least > 0.0) else np.ones_like(power)
