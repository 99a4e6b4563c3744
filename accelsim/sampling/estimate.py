"""From trial losses to an interval: control variate by regression, jackknife over independent batches, Student's t."""

from dataclasses import dataclass

import numpy as np
from scipy import stats

from workloads.operators.base import Array

MIN_TRIALS = 200
BATCH = 10


@dataclass(frozen=True, slots=True, kw_only=True)
class Interval:
    """A mean with its confidence interval and standard error."""

    mean: float
    low: float
    high: float
    standard_error: float

    @property
    def half_width_rel(self) -> float:
        """Half the width over the mean; infinite for a mean of 0 with a width."""
        half = 0.5 * (self.high - self.low)
        return half / self.mean if self.mean > 0.0 else (0.0 if half == 0.0 else np.inf)


@dataclass(frozen=True, slots=True, kw_only=True)
class ControlMean:
    """The mean of a control, and the standard error that it is known with."""

    mean: float
    se: float = 0.0

    def exactly(self) -> "ControlMean":
        """Return the same, taken as exact."""
        return ControlMean(mean=self.mean)


def adjusted_losses(losses: Array, controls: Array, known: ControlMean | None, *, paired: bool = False) -> tuple[Array, float]:
    """Return losses less `beta (control - its known mean)`, and how many times fewer trials that makes enough.

    beta minimizes the variance of the mean, over n means of mirrored pairs or single trials: `cov / (var + n se^2)`, the control's
    mean being known to se. Estimated from the same trials it biases the mean by O(1/n), far below the standard error.
    """
    if known is None or len(losses) < 16:
        return losses, 1.0
    lost, controlled = (_pair_means(losses), _pair_means(controls)) if paired else (losses, controls)
    spread = float(np.var(controlled, ddof=1))
    if spread <= 0.0:
        return losses, 1.0
    beta = float(np.cov(lost, controlled, ddof=1)[0, 1]) / (spread + len(lost) * known.se**2)
    adjusted = losses - beta * (controls - known.mean)
    left = float(np.var(_pair_means(adjusted), ddof=2)) * 2.0 if paired else float(np.var(adjusted, ddof=2))
    left += len(losses) * (beta * known.se) ** 2
    plain = float(np.var(losses, ddof=1))
    return adjusted, plain / left if left > 0.0 else np.inf


def controlled_interval(losses: Array, controls: Array, known: ControlMean | None, *, paired: bool, confidence: float) -> Interval:
    """Return the interval of the mean of the adjusted losses, from a jackknife over batches: beta is estimated anew without each.

    Losses adjusted by one common beta look more alike than they are, most of all where losses and controls have long tails.
    """
    adjusted, _ = adjusted_losses(losses, controls, known, paired=paired)
    plain = mean_interval(adjusted, confidence=confidence)
    n_batches = len(losses) // BATCH
    if known is None or n_batches < 3 or np.array_equal(adjusted, losses):
        return plain
    size = 2 if paired else 1
    lost, controlled = (
        v[: n_batches * BATCH].reshape(-1, size).mean(axis=1).reshape(n_batches, BATCH // size) for v in (losses, controls)
    )
    without = [_without_each(v) for v in (lost, controlled, lost * controlled, controlled**2)]
    spread = without[3] - without[1] ** 2 + lost.size * known.se**2
    beta = (without[2] - without[0] * without[1]) / np.maximum(spread, np.finfo(float).tiny)
    left_out = without[0] - beta * (without[1] - known.mean)
    scatter = (n_batches - 1) / n_batches * np.sum((left_out - left_out.mean()) ** 2)
    error = float(np.sqrt(scatter + (beta.mean() * known.se) ** 2))
    half = float(stats.t.ppf(0.5 + confidence / 2, n_batches - 1)) * error
    return Interval(mean=plain.mean, low=plain.mean - half, high=plain.mean + half, standard_error=error)


def _without_each(batches: Array) -> Array:
    """Return the mean over all batches but one, for each."""
    sums = batches.sum(axis=1)
    return (sums.sum() - sums) / (batches.size - batches.shape[1])


def pairs_pay(losses: Array, controls: Array, known: ControlMean) -> bool:
    """Whether mirrored pairs leave less variance a trial than independent trials would.

    The linear control leaves `2 <J e, h2> + |h2|^2 + ...`; its leading term is odd in the error, so a programming and its
    mirror image cancel it. At large noise the even terms rule, and pairs only repeat each other.
    """
    single, _ = adjusted_losses(losses, controls, known.exactly())
    return 2.0 * float(np.var(_pair_means(adjusted_losses(losses, controls, known.exactly(), paired=True)[0]), ddof=1)) <= float(
        np.var(single, ddof=1)
    )


def _pair_means(values: Array) -> Array:
    return values[: len(values) // 2 * 2].reshape(-1, 2).mean(axis=1)


def mean_interval(values: Array, *, confidence: float, batch: int = BATCH) -> Interval:
    """Return the Student interval of the mean from means of batches of consecutive, independent values."""
    n_batches = len(values) // batch
    if n_batches < 2:
        mean = float(np.mean(values)) if len(values) else np.nan
        return Interval(mean=mean, low=-np.inf, high=np.inf, standard_error=np.inf)
    means = values[: n_batches * batch].reshape(n_batches, batch).mean(axis=1)
    error = float(means.std(ddof=1) / np.sqrt(n_batches))
    half = float(stats.t.ppf(0.5 + confidence / 2, n_batches - 1)) * error
    mean = float(values.mean())
    return Interval(mean=mean, low=mean - half, high=mean + half, standard_error=error)


def checkpoints(max_trials: int) -> list[int]:
    """Return the fixed trial counts at which the stopping rule is tested: from 200, each about a fifth further."""
    counts = [min(MIN_TRIALS, max_trials)]
    while counts[-1] < max_trials:
        step = max(BATCH * 4, int(counts[-1] * 0.2) // BATCH * BATCH)
        counts.append(min(counts[-1] + step, max_trials))
    return counts
