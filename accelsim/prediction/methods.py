"""The methods of prediction, each with an estimate of its own error, and the rule that chooses between them."""

from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace

import numpy as np

from accelsim.prediction.covariance import covariance_fits, full_covariance
from accelsim.prediction.question import Question, Verdict
from accelsim.prediction.selfcheck import SelfCheck, check_linear
from accelsim.prediction.sketched import SketchedResult, chunk_size, sketch
from accelsim.response.linear import Response
from accelsim.sampling.monte_carlo import monte_carlo
from devices.base.errors import UnsupportedMethodError

CORRECTED_MAX_TRIALS = 20_000
OWN_TRIALS = 0x5EED_C0DE_0000_0001
"""Turns a seed into the one of the corrected method's trials, so that a Monte-Carlo check with the same seed is independent of them."""


def adjoint(question: Question, response: Response, check: SelfCheck | None = None) -> Verdict:
    """First order, with its error estimated from a few noisy programmings."""
    check = check or check_linear(question, response, once=True)
    bias2 = np.mean((response.mean_output - question.wanted) ** 2, axis=0)
    by_output = None if response.n_probes else bias2 + sum(p.programming_by_output + p.read_by_output for p in response.layers.values())
    se_rel = response.variance_se / max(float(bias2.mean()) + response.variance, 1e-300)
    return Verdict(
        method="adjoint",
        reason=check.in_words("first order"),
        bias2=float(bias2.mean()),
        variance=response.variance,
        mse_se=response.variance_se,
        rel_error_estimate=check.linear_error + 1.96 * se_rel,
        mean_output=response.mean_output,
        covariance=response.covariance,
        by_output=by_output,
        details=check.numbers(),
    )


def sketched(question: Question, response: Response, check: SelfCheck | None = None) -> Verdict:
    """Gaussian closure in linear memory; its error estimated by comparison with the same noisy programmings."""
    check = check or check_linear(question, response)
    found = sketch(question.plan, question.graph, question.samples, seed=question.seed, n_probes=response.n_probes)
    bias2 = np.mean((found.mean_output - question.wanted) ** 2, axis=0)
    variance = float(found.variance_by_image.mean())
    mse = float(bias2.mean()) + variance
    linear = float(np.mean((response.mean_output - question.wanted) ** 2)) + response.variance
    error = _scatter(question, response, found)
    return Verdict(
        method="sketched",
        reason=check.in_words("the Gaussian closure"),
        bias2=float(bias2.mean()),
        variance=variance,
        mse_se=error,
        rel_error_estimate=check.error_of(mse, linear) + 1.96 * error / max(mse, 1e-300),
        mean_output=found.mean_output,
        covariance=found.covariance,
        by_output=None if found.variance_by_output is None else bias2 + found.variance_by_output,
        details=check.numbers(),
    )


def _scatter(question: Question, response: Response, found: SketchedResult) -> float:
    """Return the standard error of a sketch's MSE: the jackknife over chunks of images, whose draws are independent.

    Taken on the ratio to first order, so that images of different difficulty do not count as scatter; what is left of
    their differences makes it larger, not smaller. At least the scatter that the sketch knows of itself.
    """
    by_image = np.mean((found.mean_output - question.wanted) ** 2, axis=1) + found.variance_by_image
    linear = np.mean((response.mean_output - question.wanted) ** 2, axis=1) + response.variance_by_image
    cuts = np.arange(0, len(by_image), chunk_size(len(by_image)))
    sums, lines = np.add.reduceat(by_image, cuts), np.add.reduceat(linear, cuts)
    if len(cuts) < 3 or lines.sum() <= 0.0:
        return found.variance_se
    n = len(cuts)
    left_out = (sums.sum() - sums) / (lines.sum() - lines)
    error = float(np.sqrt((n - 1) / n * np.sum((left_out - left_out.mean()) ** 2)))
    return max(error * float(linear.mean()), found.variance_se)


def covariance(question: Question, response: Response, check: SelfCheck | None = None) -> Verdict:
    """Gaussian closure with the full covariance of every map; for small maps."""
    check = check or check_linear(question, response)
    mean, matrices = full_covariance(question.plan, question.graph, question.samples)
    bias2 = np.mean((mean - question.wanted) ** 2, axis=0)
    variances = np.diagonal(matrices, axis1=1, axis2=2).mean(axis=0)
    linear = float(np.mean((response.mean_output - question.wanted) ** 2)) + response.variance
    return Verdict(
        method="covariance",
        reason=check.in_words("the Gaussian closure, full covariance"),
        bias2=float(bias2.mean()),
        variance=float(variances.mean()),
        mse_se=0.0,
        rel_error_estimate=check.error_of(float((bias2 + variances).mean()), linear),
        mean_output=mean,
        covariance=matrices,
        by_output=bias2 + variances,
        details=check.numbers(),
    )


def corrected(question: Question, response: Response, check: SelfCheck | None = None) -> Verdict:
    """The adjoint corrected by control-variate trials: any noise, with an interval."""
    half_width = 0.5 * question.tol_rel
    trials = monte_carlo(
        question.plan,
        question.samples,
        seed=question.seed ^ OWN_TRIALS,
        rel_error=half_width,
        max_trials=CORRECTED_MAX_TRIALS,
        output=question.graph.nodes[question.graph.output].name,
        reference=question.reference,
        threads=1,
    )
    bias2 = float(np.mean((response.mean_output - question.wanted) ** 2))
    bias2 = min(bias2, trials.mse)
    width = 0.5 * (trials.ci_high - trials.ci_low) / trials.mse if trials.mse > 0.0 else 0.0
    scale = (trials.mse - bias2) / response.variance if response.variance > 0.0 else 1.0
    return Verdict(
        method="corrected",
        reason=f"first order corrected by {trials.n_trials} trials, worth {trials.n_trials * trials.variance_factor:.0f} plain ones",
        bias2=bias2,
        variance=trials.mse - bias2,
        mse_se=trials.mse_se,
        rel_error_estimate=width,
        mean_output=response.mean_output,
        covariance=None if response.covariance is None else scale * response.covariance,
        by_output=None,
        details={"n_trials": float(trials.n_trials), "variance_factor": trials.variance_factor},
    )


METHODS: dict[str, Callable[..., Verdict]] = {
    "adjoint": adjoint,
    "sketched": sketched,
    "covariance": covariance,
    "corrected": corrected,
}


def choose(method: str, question: Question, response: Response) -> Verdict:
    """Return the answer of the named method; with `auto`, of the cheapest one that is good enough by its own estimate."""
    if method != "auto":
        return METHODS[method](question, response)
    check = check_linear(question, response)
    first = adjoint(question, response, check)
    if first.rel_error_estimate <= question.tol_rel:
        return first
    tried = [first]
    if check.closure_may_do(question.tol_rel):
        with suppress(UnsupportedMethodError):
            tried.append(_closure(question, response, check))
    best = min(tried, key=lambda v: v.rel_error_estimate)
    if best.rel_error_estimate <= question.tol_rel:
        return best
    return _because(corrected(question, response), best)


def _closure(question: Question, response: Response, check: SelfCheck) -> Verdict:
    if covariance_fits(question.plan, question.graph, len(question.samples)):
        return covariance(question, response, check)
    return sketched(question, response, check)


def _because(answer: Verdict, best: Verdict) -> Verdict:
    why = f"{best.method} would be off by about {100 * best.rel_error_estimate:.0f} %; {answer.reason}"
    return replace(answer, reason=why)
