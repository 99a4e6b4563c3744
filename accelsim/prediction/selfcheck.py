"""How far a closure is off, asked of the network itself with a handful of noisy programmings.

Three numbers, each a mean over n trials with the weights W~ of real programmings:

    growth   E |grad y(W~)|^2 / |grad y(M)|^2 - 1           of the gradient's square, weighted by the variances      (1)
    shift    |E y(W~) - y(M)|^2 / MSE                       what the mean output moves by, from distinct pairs       (2)
    excess   E (L - C) / E C                                loss against the loss of the linear response             (3)

With Hermite coefficients c_k of the output, Var = sum c_k and E |grad|^2 = sum k c_k, so half of (1) is the second-order
share of the variance that a first-order prediction lacks. (3) is the error itself, but scatters most.
"""

from dataclasses import dataclass

import numpy as np

from accelsim.placement import Plan
from workloads.network import Network
from workloads.operators.base import Array
from workloads.samples import Samples


@dataclass(frozen=True, slots=True, kw_only=True)
class SelfCheck:
    """Growth, shift and excess of the head comment, the standard error of the excess, and the number of trials."""

    growth: float
    shift: float
    excess: float
    excess_se: float
    n_trials: int
