"""The methods of prediction, each with an estimate of its own error, and the rule that chooses between them."""

from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace

import numpy as np
from scipy import stats

from accelsim.prediction.covariance import full_covariance
from accelsim.prediction.question import Question, Verdict
from accelsim.prediction.selfcheck import SelfCheck, check_linear
from accelsim.prediction.sketched import SketchedResult, sketch
from accelsim.response.linear import Response
from accelsim.sampling.monte_carlo import monte_carlo
from devices.base.errors import UnsupportedMethodError

MAX_SKETCHES = 8
HOPELESS = 32.0
"""Sketches that seem needed beyond which no second one is made; fewer may be needed than a first one with an outlier says."""
REPEATS = 0x5EED_C0DE_0000_0002
"""Turns a seed into those of further sketches."""
GAIN_BIAS = 0.01
"""Gains stem from the same few samples as what they are used for; 0 to 1.8 % were measured (docs, Predictors)."""
FIRST_ORDER_ACCURACY = 0.03
"""Relative MSE beyond which first order's mean outputs are not trusted with the accuracy: `digit_cnn` was 20 points off at 0.8."""
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


def sketched(question: Question, response: Response) -> Verdict:
    """Statistical linearization with sampled remainders: repeated until its interval is narrow enough, if a few times may make it so."""
    found = [_sketch(question, response, 0)]
    while len(found) < MAX_SKETCHES and len(found) < _needed(question, found) <= HOPELESS:
        found.append(_sketch(question, response, len(found)))
    return _mean_of(question, found)


def _sketch(question: Question, response: Response, n: int) -> SketchedResult:
    seed = question.seed ^ (n * REPEATS) % 2**64
    return sketch(question.plan, question.graph, question.samples, question.wanted, seed=seed, n_probes=response.n_probes)


def _needed(question: Question, found: list[SketchedResult]) -> float:
    """Return how many sketches would make the interval narrow enough, judged by these."""
    spare = question.tol_rel - GAIN_BIAS
    return len(found) * (_half_width(found) / spare) ** 2 if spare > 0.0 else np.inf


def _mse_of(found: list[SketchedResult]) -> tuple[float, float]:
    """Return the mean of the sketches' MSE, and its standard error."""
    return float(np.mean([f.mse for f in found])), float(np.sqrt(sum(f.mse_se**2 for f in found))) / len(found)


def _half_width(found: list[SketchedResult]) -> float:
    """Return the relative half-width of the 95 % interval of the sketches' mean."""
    mse, se = _mse_of(found)
    return float(stats.t.ppf(0.975, sum(f.degrees_of_freedom for f in found))) * se / max(mse, 1e-300)


def _mean_of(question: Question, found: list[SketchedResult]) -> Verdict:
    """Return the verdict of all sketches: moments add up as those of a mixture do."""
    mse, se = _mse_of(found)
    means = np.stack([f.mean_output for f in found])
    mean = means.mean(axis=0)
    bias2 = min(float(np.mean((mean - question.wanted) ** 2)), mse)
    by_output, covariance = None, None
    if all(f.variance_by_output is not None for f in found):
        squares = [np.mean((f.mean_output - question.wanted) ** 2, axis=0) + f.variance_by_output for f in found]
        by_output = np.mean(squares, axis=0)
    if all(f.covariance is not None for f in found):
        off = means - mean
        within = np.mean(np.stack([f.covariance for f in found if f.covariance is not None]), axis=0)
        covariance = within + np.einsum("sni,snj->nij", off, off) / len(found)
    return Verdict(
        method="sketched",
        reason=f"statistical linearization, remainders from {len(found)} x {found[0].by_sample.shape[1]} samples an image",
        bias2=bias2,
        variance=mse - bias2,
        mse_se=se,
        rel_error_estimate=_half_width(found) + GAIN_BIAS,
        mean_output=mean,
        covariance=covariance,
        by_output=by_output,
        samples=tuple(chunk for f in found for chunk in f.samples),
        details={"n_sketches": float(len(found))},
    )


def covariance(question: Question, response: Response) -> Verdict:
    """Gaussian closure with the full covariance of every map; for small maps."""
    check = check_linear(question, response)
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


def corrected(question: Question, response: Response) -> Verdict:
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
        accuracy=trials.accuracy,
        details={"n_trials": float(trials.n_trials), "variance_factor": trials.variance_factor},
    )


METHODS: dict[str, Callable[[Question, Response], Verdict]] = {
    "adjoint": adjoint,
    "sketched": sketched,
    "covariance": covariance,
    "corrected": corrected,
}


def choose(method: str, question: Question, response: Response) -> Verdict:
    """Return the answer of the named method; with `auto`, of the cheapest one that is good enough by its own estimate."""
    if method != "auto":
        return METHODS[method](question, response)
    tried = [adjoint(question, response, check_linear(question, response))]
    noisy = question.labels is not None and tried[0].mse > FIRST_ORDER_ACCURACY * float(question.wanted.var())
    if tried[0].rel_error_estimate > question.tol_rel or noisy:
        with suppress(UnsupportedMethodError):
            tried.append(sketched(question, response))
    good = [v for v in tried if v.rel_error_estimate <= question.tol_rel]
    if not good:
        best = min(tried, key=lambda v: v.rel_error_estimate)
        return _because(corrected(question, response), f"{best.method} would be off by about {100 * best.rel_error_estimate:.0f} %")
    if good[-1] is tried[0]:
        return tried[0]
    if good[0] is tried[0]:
        return _because(good[-1], "first order would do for the MSE, but not for the accuracy")
    return _because(good[-1], f"adjoint would be off by about {100 * tried[0].rel_error_estimate:.0f} %")


def _because(answer: Verdict, why: str) -> Verdict:
    return replace(answer, reason=f"{why}; {answer.reason}")
