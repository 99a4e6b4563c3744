"""The methods of prediction, each with an estimate of its own error, and the rule that chooses between them."""

from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace

import numpy as np
from scipy import stats

from accelsim.prediction.covariance import full_covariance
from accelsim.prediction.question import Question, Verdict
from accelsim.prediction.selfcheck import SelfCheck, check_linear
from accelsim.prediction.sketched import N_TANGENTS, SketchedResult, sketch, tangents_that_fit
from accelsim.response.linear import Response
from accelsim.sampling.estimate import MIN_TRIALS
from accelsim.sampling.monte_carlo import monte_carlo
from devices.base.errors import UnsupportedMethodError
from workloads.operators.base import Array

MAX_SAMPLES = 96
"""Samples an image of a sketch and its repetitions."""
HOPELESS = 384
"""Samples that seem needed beyond which there is no repetition; fewer may be needed than a first sketch with an outlier says."""
REPEATS = 0x5EED_C0DE_0000_0002
"""Turns a seed into those of further sketches."""
GAIN_BIAS = 0.12
"""Over the number of samples, at small noise: 0 to 1.8 % were measured with twelve (docs, Predictors)."""
FIRST_ORDER_ACCURACY = 0.03
"""Relative MSE beyond which first order's mean outputs are not trusted with the accuracy: `digit_cnn` was 20 points off at 0.8."""
CORRECTED_MAX_TRIALS, CORRECTED_MAX_PRODUCTS = 20_000, 2e13
"""Trials that are not exceeded, and multiply-adds (some minutes), but 200 trials there are at least."""
OWN_TRIALS = 0x5EED_C0DE_0000_0001
"""Turns a seed into the one of the corrected method's trials, so that a Monte-Carlo check with the same seed is independent of them."""


def adjoint(question: Question, response: Response, check: SelfCheck | None = None) -> Verdict:
    """First order, with its error estimated from a few noisy programmings."""
    check = check or check_linear(question, response, once=True)
    bias2 = np.mean((response.mean_output - question.wanted) ** 2, axis=0)
    by_output = None if response.n_probes else bias2 + sum(p.variance_by_output for p in response.layers.values())
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
    """Statistical linearization with sampled remainders: again with more samples, where that may make the interval narrow enough."""
    found = [_sketch(question, response, 0, N_TANGENTS)]
    at_once = max(N_TANGENTS, tangents_that_fit(question.graph))
    while (have := _n_samples(found)) < MAX_SAMPLES and have < (needed := _needed(question, found)) <= HOPELESS:
        more = min(max(needed - have, N_TANGENTS), MAX_SAMPLES - have, at_once)
        found.append(_sketch(question, response, len(found), max(more, 2)))
    return _mean_of(question, found)


def _sketch(question: Question, response: Response, n: int, n_tangents: int) -> SketchedResult:
    seed = question.seed ^ (n * REPEATS) % 2**64
    return sketch(
        question.plan, question.graph, question.samples, question.wanted, seed=seed, n_probes=response.n_probes, n_tangents=n_tangents
    )


def _n_samples(found: list[SketchedResult]) -> int:
    return sum(f.n_samples for f in found)


def _needed(question: Question, found: list[SketchedResult]) -> int:
    """Return how many samples an image would make the estimate good enough, judged by these; more than HOPELESS where too many would."""
    have, half, excess = _n_samples(found), _half_width(found), _gain_bias(question, found) * _n_samples(found) / len(found)
    if half + _gain_bias(question, found) <= question.tol_rel:
        return have
    n = np.arange(have + 2, HOPELESS + 4, 2)
    enough = half * np.sqrt(have / n) + (len(found) + 1) * excess / n <= question.tol_rel
    return int(n[np.argmax(enough)]) if enough.any() else HOPELESS + 2


def _gain_bias(question: Question, found: list[SketchedResult]) -> float:
    """Return how far off the mean may be since gains stem from the same few samples: as one over their number, and with the noise."""
    pooled = float(question.wanted.var())
    mse_rel = _mse_of(found)[0] / pooled if pooled > 0.0 else 0.0
    return GAIN_BIAS * (1.0 + 0.5 * mse_rel) * len(found) / _n_samples(found)


def _weights(found: list[SketchedResult]) -> Array:
    return np.array([f.n_samples for f in found]) / _n_samples(found)


def _mse_of(found: list[SketchedResult]) -> tuple[float, float]:
    """Return the mean of the sketches' MSE, each sample counting alike, and its standard error."""
    weights = _weights(found)
    mse, se = np.array([f.mse for f in found]), np.array([f.mse_se for f in found])
    return float(weights @ mse), float(np.sqrt(np.sum((weights * se) ** 2)))


def _half_width(found: list[SketchedResult]) -> float:
    """Return the relative half-width of the 95 % interval of the sketches' mean."""
    mse, se = _mse_of(found)
    return float(stats.t.ppf(0.975, sum(f.degrees_of_freedom for f in found))) * se / max(mse, 1e-300)


def _mean_of(question: Question, found: list[SketchedResult]) -> Verdict:
    """Return the verdict of all sketches: moments add up as those of a mixture do."""
    mse, se = _mse_of(found)
    weights, means = _weights(found), np.stack([f.mean_output for f in found])
    mean = np.einsum("s,sni->ni", weights, means)
    bias2 = min(float(np.mean((mean - question.wanted) ** 2)), mse)
    by_output, covariance = None, None
    if all(f.variance_by_output is not None for f in found):
        squares = [np.mean((f.mean_output - question.wanted) ** 2, axis=0) + f.variance_by_output for f in found]
        by_output = weights @ np.array(squares)
    if all(f.covariance is not None for f in found):
        off = means - mean
        within = np.einsum("s,snij->nij", weights, np.stack([f.covariance for f in found if f.covariance is not None]))
        covariance = within + np.einsum("s,sni,snj->nij", weights, off, off)
    return Verdict(
        method="sketched",
        reason=f"statistical linearization, remainders from {_n_samples(found)} samples an image",
        bias2=bias2,
        variance=mse - bias2,
        mse_se=se,
        rel_error_estimate=_half_width(found) + _gain_bias(question, found),
        mean_output=mean,
        covariance=covariance,
        by_output=by_output,
        samples=tuple(chunk for f in found for chunk in f.samples),
        details={"n_samples": float(_n_samples(found))},
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
    half_width, max_trials = 0.5 * question.tol_rel, affordable_trials(question)
    trials = monte_carlo(
        question.plan,
        question.samples,
        seed=question.seed ^ OWN_TRIALS,
        rel_error=half_width,
        max_trials=max_trials,
        output=question.graph.nodes[question.graph.output].name,
        reference=question.reference,
        threads=1,
    )
    bias2 = float(np.mean((response.mean_output - question.wanted) ** 2))
    bias2 = min(bias2, trials.mse)
    half = 0.5 * (trials.ci_high - trials.ci_low)
    width = half / trials.mse if trials.mse > 0.0 else (0.0 if half == 0.0 and trials.mse == 0.0 else np.inf)
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
        details={"n_trials": float(trials.n_trials), "variance_factor": trials.variance_factor, "chip_sd": trials.mse_chip_sd},
    )


def affordable_trials(question: Question) -> int:
    """Return how many trials the corrected method may run."""
    products = len(question.samples) * sum(layer.n_products for layer in question.plan.layers)
    return min(CORRECTED_MAX_TRIALS, max(MIN_TRIALS, int(CORRECTED_MAX_PRODUCTS / products)))


def _trials_needed(question: Question, found: Verdict) -> float:
    """Return how many trials would be precise enough, by the scatter of a sketch's samples; 0 where it has none."""
    if "n_samples" not in found.details or not found.mse > 0.0:
        return 0.0
    spread = found.mse_se / found.mse * np.sqrt(found.details["n_samples"])
    return float((1.96 * spread / (0.5 * question.tol_rel)) ** 2)


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
        needed, most = _trials_needed(question, tried[-1]), affordable_trials(question)
        if most < CORRECTED_MAX_TRIALS and needed > 2.0 * most:
            why = f"about {needed:.0f} trials would be needed, and {most} take minutes here: give fewer images, or a larger tol_rel"
            return _because(best, why)
        return _because(corrected(question, response), f"{best.method} would be off by about {100 * best.rel_error_estimate:.0f} %")
    if good[-1] is tried[0]:
        return tried[0]
    if good[0] is tried[0]:
        return _because(good[-1], "first order would do for the MSE, but not for the accuracy")
    return _because(good[-1], f"adjoint would be off by about {100 * tried[0].rel_error_estimate:.0f} %")


def _because(answer: Verdict, why: str) -> Verdict:
    return replace(answer, reason=f"{why}; {answer.reason}")
