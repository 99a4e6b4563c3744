"""Error, accuracy, time, energy and area of one spec, from one plan."""

import time
from typing import Any

from accelsim.placement import Plan
from accelsim.prediction.predict import predict
from accelsim.report.evaluation import Evaluation
from accelsim.timing.simulate import simulate
from workloads.samples import Samples

_OF_PREDICT = ("method", "output", "reference", "tol_rel")


def evaluate(plan: Plan, samples: Samples, *, seed: int, **options: Any) -> Evaluation:
    """Return what `predict` and `simulate` say of a plan; the energy of cells follows from their conductances and these samples.

    `options` are those of both. Raises what they raise.
    """
    started = time.perf_counter()
    of_predict = {name: options.pop(name) for name in _OF_PREDICT if name in options}
    timed = simulate(plan, samples=samples, seed=seed, **options)  # the quick one first: it refuses specs without a chip
    error = predict(plan, samples, seed=seed, **of_predict)
    return Evaluation(error=error, time=timed, elapsed_s=time.perf_counter() - started)
