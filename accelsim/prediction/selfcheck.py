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

from accelsim.response.linear import Response
from accelsim.response.target import reference_outputs
from accelsim.sampling.trials import TrialRunner
from workloads.samples import Samples

if TYPE_CHECKING:
    from accelsim.prediction.methods import Question

N_IMAGES = 32
MIN_PAIRS, MAX_PAIRS = 8, 40
SHARP = 0.2
"""Share of the tolerance that the standard error should come down to."""
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
        """Relative error of first order, one standard error included."""
        return self.error_of(1.0, 1.0)

    def error_of(self, mse: float, linear_mse: float) -> float:
        """Return the relative error of a predicted `mse`, first order having said `linear_mse`; one standard error included."""
        if linear_mse <= 0.0:
            return 0.0 if mse <= 0.0 else np.inf
        truth = linear_mse * (1.0 + self.excess)
        if truth <= 0.0:
            return np.inf
        return abs(mse / truth - 1.0) + self.excess_se * linear_mse / truth

    def closure_may_do(self, tol_rel: float) -> bool:
        """Whether a Gaussian closure is worth trying: the excess is moderate, and known well enough to judge it by."""
        return abs(self.excess) < CLOSURE_LIMIT and self.excess_se < tol_rel

    def in_words(self, what: str) -> str:
        """Return the evidence as a phrase."""
        return (f"{what}; {self.n_pairs} pairs of programmings put the MSE at {100 * self.excess:+.1f} % "
                f"(+- {100 * self.excess_se:.1f} %) of first order's")

    def numbers(self) -> dict[str, float]:
        """Return the fields as numbers."""
        return {"excess": self.excess, "excess_se": self.excess_se, "n_pairs": float(self.n_pairs)}


def check_linear(question: "Question", response: Response) -> SelfCheck:
    """Return the self check on up to 32 of the samples, evenly spread."""
    samples = _thinned(question.samples)
    wanted = reference_outputs(question.plan, question.graph, samples, question.reference)
    runner = TrialRunner(question.plan, question.graph, samples, reference=wanted, seed=question.seed, control=True)
    mean = _control_mean(question, response)
    if mean <= 0.0:
        return SelfCheck(excess=0.0, excess_se=0.0, n_pairs=0)
    differences: list[float] = []
    while len(differences) < MAX_PAIRS:
        both = [runner.run(FIRST_TRIAL + len(differences), sign=sign) for sign in (1.0, -1.0)]
        differences.append(sum(o.loss - o.control for o in both) / (2.0 * mean))
        if len(differences) >= MIN_PAIRS and _settled(differences, question.tol_rel):
            break
    return SelfCheck(
        excess=float(np.mean(differences)), excess_se=float(np.std(differences, ddof=1) / np.sqrt(len(differences))), n_pairs=len(differences),
    )


FIRST_TRIAL = 1 << 31
"""The check's trials are numbered from here on, so that they are not those of a Monte-Carlo run with the same seed."""


def _settled(differences: list[float], tol_rel: float) -> bool:
    error = float(np.std(differences, ddof=1) / np.sqrt(len(differences)))
    return error <= SHARP * tol_rel or abs(float(np.mean(differences))) - 3.0 * error > 4.0 * tol_rel


def _thinned(samples: Samples) -> Samples:
    return samples if len(samples) <= N_IMAGES else samples[np.linspace(0, len(samples) - 1, N_IMAGES).astype(int)]


def _control_mean(question: "Question", response: Response) -> float:
    """Return E C on the thinned images: squared bias and first-order variance by image."""
    n = len(question.samples)
    chosen = np.arange(n) if n <= N_IMAGES else np.linspace(0, n - 1, N_IMAGES).astype(int)
    bias2 = np.mean((response.mean_output - question.wanted)[chosen] ** 2)
    return float(bias2 + response.variance_by_image[chosen].mean())
