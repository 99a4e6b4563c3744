"""How far a prediction is off, asked of the network itself with a handful of noisy programmings.

With L the loss of a programming and C the loss of its linear response, whose mean the adjoint knows exactly,

    excess = E (L - C) / E C                                            (1)

is the error of first order itself. L - C = 2 <J e, h2(e)> + (|h2|^2 + 2 <J e, h3> + ...): the leading term is odd in the
error e, so the mean over a programming and its mirror image (the same normals negated) loses it, and a few pairs suffice.
Pairs are drawn until the estimate is sharp or hopeless.
"""

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from accelsim.response.linear import Response
from accelsim.sampling.trials import TrialRunner

if TYPE_CHECKING:
    from accelsim.prediction.methods import Question

MAX_BYTES = 2 * 2**30
"""Activations the check may keep; beyond that it looks at evenly spread images only."""
MIN_PAIRS, FEW_PAIRS, MAX_PAIRS = 4, 12, 40
ENOUGH = 0.8
"""Share of the tolerance at which first order's error, interval included, is good enough to stop."""
CLOSURE_LIMIT = 0.8
"""Excess beyond which a Gaussian closure is not worth trying."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SelfCheck:
    """Excess (1), its standard error, and the number of pairs of programmings behind it."""

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

    def closure_may_do(self, tol_rel: float) -> bool:
        """Whether a Gaussian closure is worth trying: the excess is moderate, and known well enough to judge it by."""
        return abs(self.excess) < CLOSURE_LIMIT and self.excess_se < tol_rel

    def in_words(self, what: str) -> str:
        """Return the evidence as a phrase."""
        return (
            f"{what}; {self.n_pairs} pairs of programmings put the MSE at {100 * self.excess:+.1f} % "
            f"(+- {100 * self.excess_se:.1f} %) of first order's"
        )

    def numbers(self) -> dict[str, float]:
        """Return the fields as numbers."""
        return {"excess": self.excess, "excess_se": self.excess_se, "n_pairs": float(self.n_pairs)}


def check_linear(question: "Question", response: Response, *, max_pairs: int = MAX_PAIRS) -> SelfCheck:
    """Return the self check on all samples, or on as many as fit in memory.

    Images differ: the error of first order on a few of them says little about the others.
    """
    chosen = _chosen(question)
    samples = question.samples[chosen]
    bias2 = np.mean((response.mean_output - question.wanted)[chosen] ** 2)
    mean = float(bias2 + response.variance_by_image[chosen].mean())
    if mean <= 0.0:
        return SelfCheck(excess=0.0, excess_se=0.0, n_pairs=0)
    runner = TrialRunner(
        question.plan,
        question.graph,
        samples,
        reference=question.wanted[chosen],
        seed=question.seed,
        control=True,
    )
    differences: list[float] = []
    check = SelfCheck(excess=0.0, excess_se=np.inf, n_pairs=0)
    while check.n_pairs < max_pairs and not _settled(check, question.tol_rel):
        both = runner.run_mirrored(FIRST_TRIAL + check.n_pairs)
        differences.append(sum(o.loss - o.control for o in both) / (2.0 * mean))
        if len(differences) > 1:
            error = float(np.std(differences, ddof=1) / np.sqrt(len(differences)))
            check = SelfCheck(excess=float(np.mean(differences)), excess_se=error, n_pairs=len(differences))
        else:
            check = SelfCheck(excess=differences[0], excess_se=np.inf, n_pairs=1)
    return check


FIRST_TRIAL = 1 << 31
"""The check's trials are numbered from here on, so that they are not those of a Monte-Carlo run with the same seed."""


def _settled(check: SelfCheck, tol_rel: float) -> bool:
    """Whether more pairs would change nothing: first order is good enough, or the excess is known sharply or hopeless."""
    if check.n_pairs < MIN_PAIRS:
        return False
    sharp = check.n_pairs >= 2 * MIN_PAIRS and check.half_width <= 0.4 * tol_rel
    return check.linear_error <= ENOUGH * tol_rel or sharp or abs(check.excess) - check.half_width > 4.0 * tol_rel


def _chosen(question: "Question") -> NDArray[np.intp]:
    n = len(question.samples)
    affordable = max(1, MAX_BYTES // (4 * question.plan.activation_elements()))
    return np.arange(n) if n <= affordable else np.linspace(0, n - 1, affordable).astype(np.intp)
