"""What a method of prediction is asked, and what it answers."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from accelsim.placement import Plan
from accelsim.response.target import Reference
from accelsim.response.weights import Weights
from accelsim.sampling.programmings import Programmer
from workloads.network import Network
from workloads.operators.base import Array
from workloads.samples import Samples


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Question:
    """What is asked: the plan, the samples, what the outputs should have been, and how good the answer must be.

    `errors` are those of the checked programmings, whose linear response is known; `labels` those that the accuracy is asked for.
    """

    plan: Plan
    programmer: Programmer
    errors: Sequence[Weights]
    graph: Network
    samples: Samples
    seed: int
    wanted: Array
    tol_rel: float
    reference: Reference
    labels: NDArray[np.int64] | None = None


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Verdict:
    """One method's answer: `bias2 + variance = mse`, its standard error, its own error estimate, and what else it knows.

    `samples` are outputs `(n_samples, images, n_out)`, in chunks of images; `accuracy` is given where trials have measured it.
    """

    method: str
    reason: str
    bias2: float
    variance: float
    mse_se: float
    rel_error_estimate: float
    mean_output: Array
    covariance: Array | None
    by_output: Array | None
    samples: tuple[Array, ...] = ()
    accuracy: float | None = None
    warnings: tuple[str, ...] = ()
    details: Mapping[str, float] = field(default_factory=dict)

    @property
    def mse(self) -> float:
        """The predicted mean squared error."""
        return self.bias2 + self.variance
