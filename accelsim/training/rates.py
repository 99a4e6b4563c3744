"""Error rates that are learned: a parameter for each layer, bit position, or voltage domain, moved by the gradient.

    minimize E[L] + m sum_lj w_lj eta(p_lj),   p = sigmoid(theta)/2,   sum w = 1                         (1)
    d/d theta = (1 - 2p) (p dE[L]/dp) + m w eta'(p) p (1 - 2p)                                           (2)

w is the share of the bits that are read. Steps are Adam's (Kingma and Ba, arXiv 1412.6980), so the scale of the loss does not matter; m
is the multiplier of a budget and rises while the budget is exceeded (dual ascent). No PyTorch: the numbers are few.
"""

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import brentq

from devices.base.errors import InfeasibleError, SpecError
from devices.reliability_law import ReliabilityLaw

Floats = NDArray[np.float64]
Groups = NDArray[np.intp]
BETA_1, BETA_2, TINY = 0.9, 0.99, 1e-12
HIGHEST_P = 0.5 * (1.0 - 1e-6)
"""At 1/2 a bit holds nothing, its parameter would be infinite, and the published law has its jump."""


def theta_of(p: Floats) -> Floats:
    """Return theta of p = sigmoid(theta)/2."""
    return np.asarray(np.log(2.0 * p) - np.log1p(-2.0 * p))


def rate_of(theta: Floats) -> Floats:
    """Return p = sigmoid(theta)/2."""
    return np.asarray(0.5 / (1.0 + np.exp(-theta)))


@dataclass(slots=True, kw_only=True, eq=False)
class Rates:
    """Learned error rates of a network's bits, and the moments of their optimizer.

    Parameters
    ----------
    law
        What energy a bit takes at an error rate.
    share
        Share of all bits read that are bit j of layer l, `(n_layers, n_bits)`, summing to 1.
    group
        Which parameter each has, `(n_layers, n_bits)`.
    theta, first, second, n_steps
        Parameters `(n_groups,)`, Adam's moments, and steps taken.
    """

    law: ReliabilityLaw
    share: Floats
    group: Groups
    theta: Floats
    first: Floats = field(default_factory=lambda: np.zeros(0))
    second: Floats = field(default_factory=lambda: np.zeros(0))
    n_steps: int = 0

    def __post_init__(self) -> None:
        if self.first.size != self.theta.size:
            self.first, self.second, self.n_steps = np.zeros_like(self.theta), np.zeros_like(self.theta), 0

    @property
    def bounds_theta(self) -> tuple[float, float]:
        """Parameters of the least and the largest error rate that the law has, below 1/2."""
        least, largest = self.law.bounds
        low, high = theta_of(np.array([max(least, 1e-300), min(largest, HIGHEST_P)]))
        return float(low), float(high)

    @property
    def p(self) -> Floats:
        """Error rates, `(n_layers, n_bits)`, within the law's bounds."""
        least, largest = self.law.bounds
        return np.clip(rate_of(self.theta)[self.group], least, min(largest, HIGHEST_P))

    @property
    def energy_rel(self) -> float:
        """Energy of all reads over that at the law's energy 1."""
        return float((self.share * self.law.energy_rel(self.p)).sum())

    def step(self, slope: Floats, *, multiplier: float, rate: float) -> None:
        """Take one step by (2); `slope` is p dE[L]/dp of each bit position, `(n_layers, n_bits)`."""
        p = self.p
        gradient = (1.0 - 2.0 * p) * (slope + multiplier * self.share * self.law.slope(p) * p)
        by_group = np.bincount(self.group.ravel(), gradient.ravel(), minlength=self.theta.size)
        self.n_steps += 1
        self.first = BETA_1 * self.first + (1.0 - BETA_1) * by_group
        self.second = BETA_2 * self.second + (1.0 - BETA_2) * by_group**2
        mean = self.first / (1.0 - BETA_1**self.n_steps)
        size = np.sqrt(self.second / (1.0 - BETA_2**self.n_steps))
        self.theta = np.clip(self.theta - rate * mean / (size + TINY), *self.bounds_theta)

    def moved_to(self, energy_rel: float) -> None:
        """Add one number to every theta so that the energy is `energy_rel`; InfeasibleError where none does."""
        low, high = self.bounds_theta
        start, span = self.theta, high - low

        def excess(shift: float) -> float:
            self.theta = np.clip(start + shift, low, high)
            return self.energy_rel - energy_rel

        ends = excess(-span), excess(span)
        if ends[0] < 0.0 or ends[1] > 0.0:
            self.theta = start
            raise InfeasibleError(
                f"energy_budget_rel: {energy_rel:g}: need {ends[1] + energy_rel:.4g} to {ends[0] + energy_rel:.4g}, the range of the law "
                f"{self.law.kind}"
            )
        excess(float(brentq(excess, -span, span, xtol=1e-13)))

    def gather(self, n_domains: int) -> None:
        """Let the parameters become `n_domains` voltage domains: the runs of sorted thetas with the least weighted squared distance."""
        weight = np.asarray(np.bincount(self.group.ravel(), self.share.ravel(), minlength=self.theta.size), np.float64)
        label = clusters(self.theta, weight=weight, n_clusters=n_domains)
        n = int(label.max()) + 1
        total = np.bincount(label, weight, minlength=n)
        self.theta = np.bincount(label, weight * self.theta, minlength=n) / total
        self.group = label[self.group]
        self.first, self.second, self.n_steps = np.zeros(n), np.zeros(n), 0


def start_rates(law: ReliabilityLaw, share: Floats, p: Floats, *, per: str = "layer") -> Rates:
    """Return rates that start at `p`, `(n_layers, n_bits)`, one parameter for each layer, bit, or for the whole network."""
    n_bits = share.shape[1]
    layers, bits = np.indices(share.shape)
    group = {"layer": layers, "bit": layers * n_bits + bits, "network": np.zeros_like(layers)}[per]
    theta = np.zeros(int(group.max()) + 1)
    np.add.at(theta, group, theta_of(np.clip(p, max(law.bounds[0], 1e-300), min(law.bounds[1], HIGHEST_P))))
    return Rates(law=law, share=share, group=group.astype(np.intp), theta=theta / np.bincount(group.ravel()))


def clusters(values: Floats, *, weight: Floats, n_clusters: int) -> Groups:
    """Return the cluster of each number, 0 for the lowest: the exact optimum of weighted k-means on a line, by dynamic programming."""
    if n_clusters < 1:
        raise SpecError(f"n_domains: {n_clusters}: need 1 or more")
    order = np.argsort(values, kind="stable")
    x, w = values[order], np.maximum(weight[order], 1e-300)
    n = x.size
    sums = [np.concatenate([[0.0], np.cumsum(w * x**k)]) for k in range(3)]
    best, cuts = np.array([_spread(sums, 0, i + 1) for i in range(n)]), np.zeros((0, n), np.intp)
    for _ in range(min(n_clusters, n) - 1):
        ways = np.array([[np.inf if k > i or k == 0 else best[k - 1] + _spread(sums, k, i + 1) for i in range(n)] for k in range(n)])
        ways[0] = best
        cuts, best = np.concatenate([cuts, ways.argmin(axis=0)[None]]), ways.min(axis=0)
    return _labels(cuts, order)


def _spread(sums: list[Floats], start: int, stop: int) -> float:
    """Return the weighted squared distance of a run from its mean."""
    w, wx, wxx = (s[stop] - s[start] for s in sums)
    return max(float(wxx - wx**2 / w), 0.0)


def _labels(cuts: Groups, order: Groups) -> Groups:
    """Return labels in the numbers' own order from where the last run starts, for each number of runs and end."""
    n = order.size
    starts, end = {0}, n - 1
    for cut in cuts[::-1]:
        if end < 0:
            break
        starts.add(int(cut[end]))
        end = int(cut[end]) - 1
    label = np.zeros(n, np.intp)
    label[order] = np.cumsum(np.isin(np.arange(n), sorted(starts))) - 1
    return label
