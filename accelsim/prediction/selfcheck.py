"""How far a prediction is off, asked of the network itself with a handful of noisy programmings.

With L the loss of a programming and C the loss of its linear response, whose mean the adjoint knows exactly,

    excess = E (L - C) / E C                                            (1)

is the error of first order itself. L - C = 2 <J e, h2(e)> + (|h2|^2 + 2 <J e, h3> + ...): the leading term is odd in the
error e, so the mean over a programming and its mirror image (the same normals negated) loses it, and a few pairs suffice.
Images differ, so each pair looks at the next eight of them (evenly spread), and the scatter between images is part of the
standard error. Pairs are drawn until the estimate is sharp or hopeless.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from accelsim.prediction.question import Question
from accelsim.response.linear import Response
from accelsim.sampling.trials import TrialRunner

MAX_BYTES = 2 * 2**30
"""Activations the check may keep; beyond that it looks at evenly spread images only."""
MIN_PAIRS, FEW_PAIRS, MAX_PAIRS = 8, 24, 96
GROUP = 8
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


def check_linear(question: Question, response: Response, *, max_pairs: int = MAX_PAIRS) -> SelfCheck:
    """Return the self check over all samples, or over as many as fit in memory."""
    n = len(_chosen(question))
    n_groups = max(1, n // GROUP)
    groups = [_Group(question, response, _chosen(question)[start::n_groups]) for start in range(n_groups)]
    mean = float(np.mean([group.control_mean for group in groups]))
    check = SelfCheck(excess=0.0, excess_se=np.inf, n_pairs=0)
    if mean <= 0.0:
        return SelfCheck(excess=0.0, excess_se=0.0, n_pairs=0)
    differences: list[float] = []
    while len(differences) < max(max_pairs, n_groups) and not _settled(check, question.tol_rel):
        for group in groups:  # each pair's weights are new; a round sees every image once
            differences.append(group.difference(FIRST_TRIAL + len(differences)) / mean)
        if len(differences) > 1:
            error = float(np.std(differences, ddof=1) / np.sqrt(len(differences)))
            check = SelfCheck(excess=float(np.mean(differences)), excess_se=error, n_pairs=len(differences))
    return check


class _Group:
    """Some of the images, with the point their linear response is taken at."""

    def __init__(self, question: Question, response: Response, chosen: NDArray[np.intp]) -> None:
        self.runner = TrialRunner(
            question.plan, question.graph, question.samples[chosen], reference=question.wanted[chosen], seed=question.seed, control=True,
        )
        bias2 = np.mean((response.mean_output - question.wanted)[chosen] ** 2)
        self.control_mean = float(bias2 + response.variance_by_image[chosen].mean())

    def difference(self, trial: int) -> float:
        """Return loss less control, averaged over a programming and its mirror image."""
        first, mirrored = self.runner.run_mirrored(trial)
        return 0.5 * (first.loss - first.control + mirrored.loss - mirrored.control)


FIRST_TRIAL = 1 << 31
"""The check's trials are numbered from here on, so that they are not those of a Monte-Carlo run with the same seed."""


def _settled(check: SelfCheck, tol_rel: float) -> bool:
    """Whether more pairs would change nothing: first order is good enough, or the excess is known sharply or hopeless."""
    if check.n_pairs < MIN_PAIRS:
        return False
    sharp = check.n_pairs >= 2 * MIN_PAIRS and check.half_width <= 0.4 * tol_rel
    return check.linear_error <= tol_rel or sharp or abs(check.excess) - check.half_width > 4.0 * tol_rel


def _chosen(question: Question) -> NDArray[np.intp]:
    n = len(question.samples)
    affordable = max(1, MAX_BYTES // (4 * question.plan.activation_elements()))
    return np.arange(n) if n <= affordable else np.linspace(0, n - 1, affordable).astype(np.intp)
