"""How far a prediction is off, asked of the network itself with a handful of noisy programmings.

With L(e) the loss under weight errors e and C(e) the loss of the linear response, whose mean the adjoint knows exactly,

    excess = E (L - C) / E C                                            (1)

is the error of first order itself. With q the mean outputs' own error and h2, h3 the higher orders of the outputs,

    L - C = 2 <q, h2 + ...> + 2 <J e, h2> + (|h2|^2 + 2 <J e, h3>) + ...

The second term is odd in e: a programming's errors and their negative lose it. Negated errors are not a programming where
cells clip; what that leaves out are third moments of single cells, which first order does not feel.

The adjoint pass has taken `N_CHECKED` programmings along, so their J e costs nothing here. Images differ: in one round each
programming meets one group of images, in the next round the next one, and the scatter between groups counts as error.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from accelsim.prediction.question import Question
from accelsim.response.linear import Response
from accelsim.response.passes import Linearization, linearize, push
from accelsim.response.weights import Weights
from accelsim.sampling.programmings import CHECK_TRIAL, N_CHECKED
from devices.base.stream import normals, site_id
from workloads.network import NodeIndex, from_lanes, to_lanes
from workloads.operators.base import Array
from workloads.operators.matrix import MatrixOperator
from workloads.walk import run

MAX_BYTES = 2 * 2**30
"""Activations the check may keep; beyond that it looks at evenly spread images only."""
GROUP = 16
"""Images that meet a programming together: one vector of lanes."""
MAX_ROUNDS, MAX_PROGRAMMINGS = 4, 96


@dataclass(frozen=True, slots=True, kw_only=True)
class SelfCheck:
    """Excess (1), its standard error, and the number of programmings (each with both signs of its errors) behind it."""

    excess: float
    excess_se: float
    n_pairs: int

    @property
    def linear_error(self) -> float:
        """Relative error of first order, the half-width of its 95 % interval included."""
        return self.error_of(1.0, 1.0)

    def error_of(self, mse: float, linear_mse: float) -> float:
        """Return the relative error of a predicted `mse`, first order having said `linear_mse`.

        The distance from the pairs' estimate and the half-width of that estimate's 95 % interval (Student, few pairs).
        """
        if linear_mse <= 0.0:
            return 0.0 if mse <= 0.0 else np.inf
        truth = linear_mse * (1.0 + self.excess)
        if truth <= 0.0:
            return np.inf
        return abs(mse / truth - 1.0) + self.half_width * linear_mse / truth

    @property
    def half_width(self) -> float:
        """Half-width of the excess's 95 % interval."""
        return float(stats.t.ppf(0.975, self.n_pairs - 1)) * self.excess_se if self.n_pairs > 1 else 0.0

    def in_words(self, what: str) -> str:
        """Return the evidence as a phrase."""
        return (
            f"{what}; {self.n_pairs} pairs of programmings put the MSE at {100 * self.excess:+.1f} % "
            f"(+- {100 * self.excess_se:.1f} %) of first order's"
        )

    def numbers(self) -> dict[str, float]:
        """Return the fields as numbers."""
        return {"excess": self.excess, "excess_se": self.excess_se, "n_pairs": float(self.n_pairs)}


def check_linear(question: Question, response: Response, *, once: bool = False) -> SelfCheck:
    """Return the self check over all samples, or over as many as fit in memory; with `once`, of a single round."""
    chosen = _chosen(question)
    n_groups = max(1, len(chosen) // GROUP)
    groups = [_Group(question, response, chosen[start::n_groups]) for start in range(n_groups)]
    mean = float(np.mean((response.mean_output - question.wanted)[chosen] ** 2) + response.variance_by_image[chosen].mean())
    if mean <= 0.0:
        return SelfCheck(excess=0.0, excess_se=0.0, n_pairs=0)
    n_rounds = 1 if once else min(n_groups, MAX_ROUNDS)
    seen = np.zeros((N_CHECKED, n_rounds))
    check = SelfCheck(excess=0.0, excess_se=np.inf, n_pairs=0)
    for r in range(n_rounds):
        for k in range(N_CHECKED):
            seen[k, r] = groups[(k * n_groups // N_CHECKED + r) % n_groups].difference(k) / mean
        check = _check_of(seen[:, : r + 1].mean(axis=1))
        if once or _settled(check, question.tol_rel):
            return check
    found = list(seen.mean(axis=1))
    while len(found) < MAX_PROGRAMMINGS and not _settled(check, question.tol_rel):
        more = range(len(found), len(found) + N_CHECKED)
        found.extend(groups[k % n_groups].difference(k) / mean for k in more)
        check = _check_of(np.array(found))
    return check


def _check_of(by_programming: Array) -> SelfCheck:
    n = len(by_programming)
    return SelfCheck(excess=float(by_programming.mean()), excess_se=float(by_programming.std(ddof=1) / np.sqrt(n)), n_pairs=n)


class _Group:
    """Some of the images, with the point their linear response is taken at."""

    def __init__(self, question: Question, response: Response, chosen: NDArray[np.intp]) -> None:
        self.question, self.programmer = question, question.programmer
        self.images = to_lanes(question.samples.x[chosen])
        self.wanted = question.wanted[chosen]
        self.bias2 = float(np.mean((response.mean_output - question.wanted)[chosen] ** 2))
        self.draws = None if response.draws is None else response.draws[:, chosen]
        self.first = int(chosen[0])
        self._point: Linearization | None = None
        sites = {layer.node: layer.site for layer in question.plan.layers if layer.site.read_law is not None}
        self.read_variances = {node: site.read_variance() for node, site in sites.items()}
        self.read_sites = {node: site_id(site.layer, "read", self.first) for node, site in sites.items()}

    def difference(self, k: int) -> float:
        """Return loss less control, averaged over programming number `k`'s errors and their negative."""
        known = self.question.errors
        error = known[k] if k < len(known) else self.programmer.error(CHECK_TRIAL + k)
        both = 0.5 * sum(float(np.mean((self._output(error, k, sign) - self.wanted) ** 2)) for sign in (1.0, -1.0))
        return both - self.bias2 - float(np.mean(self._linear(error, k) ** 2))

    @property
    def point(self) -> Linearization:
        """The network of mean weights on these images."""
        if self._point is None:
            self._point = linearize(self.question.graph, self.images, self.programmer.mean)
        return self._point

    def _linear(self, error: Weights, k: int) -> Array:
        """Return J e `(images, n_out)`; known beforehand for the checked programmings, if reads add nothing."""
        known = None if self.draws is None or k >= len(self.draws) else self.draws[k]
        if known is not None and not self.read_sites:
            return known
        fresh = {node: self._read_noise(node, self.point.error_drive(node), k) for node in self.read_sites}
        if known is not None:
            return known + _flat(push(self.point, {}, {}, fresh))
        return _flat(push(self.point, error.weights, error.biases, fresh))

    def _output(self, error: Weights, k: int, sign: float) -> Array:
        """Return the outputs `(images, n_out)` with `sign` times the errors of the weights, and of the reads."""
        graph, view = self.question.graph, self.programmer.mean.shifted(error, sign)

        def apply(i: NodeIndex, inputs: tuple[Array, ...]) -> Array:
            operator = graph.nodes[i].operator
            if not isinstance(operator, MatrixOperator):
                return operator.forward(*inputs)
            y = view.product(i, operator, inputs[0])
            if i in self.read_sites:
                y += sign * self._read_noise(i, view.error_drive(i, view.driven(i, inputs[0])), k)
            return y

        return _flat(run(graph, self.images, apply=apply))

    def _read_noise(self, i: NodeIndex, x: Array, k: int) -> Array:
        """Return a fresh error of each output of node i: the variance of a read is its mean over programmings."""
        variance = self.read_variances[i]
        assert variance is not None  # only layers with read noise come here
        operator = self.question.graph.nodes[i].operator
        assert isinstance(operator, MatrixOperator)
        spread = operator.multiply(variance.astype(np.float32), x * x)
        draws = normals(np.empty(spread.shape, np.float32), seed=self.programmer.seed, site=self.read_sites[i], trial=CHECK_TRIAL + k)
        return np.sqrt(spread, out=spread) * draws


def _flat(output: Array) -> Array:
    return from_lanes(output).reshape(output.shape[-1], -1).astype(np.float64)


def _settled(check: SelfCheck, tol_rel: float) -> bool:
    """Whether more pairs would change nothing: first order is good enough, or the excess is known sharply or hopeless."""
    sharp = check.half_width <= 0.4 * tol_rel
    return check.linear_error <= tol_rel or sharp or abs(check.excess) - check.half_width > 4.0 * tol_rel


def _chosen(question: Question) -> NDArray[np.intp]:
    n = len(question.samples)
    affordable = max(1, MAX_BYTES // (4 * question.plan.activation_elements()))
    return np.arange(n) if n <= affordable else np.linspace(0, n - 1, affordable).astype(np.intp)
