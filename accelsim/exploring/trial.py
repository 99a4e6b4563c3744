"""One trial of a search: a spec, the best conductances for it by the closed form, and what comes of them."""

from typing import Any, Literal

from accelsim.design import Design
from accelsim.optimizer.optimize import optimize
from accelsim.placement import Plan
from accelsim.prediction.predict import predict
from accelsim.timing.evaluate import evaluate
from devices.base.errors import InfeasibleError
from workloads.samples import Samples

Scales = Literal["given", "network", "layer", "column"]
POWER_SHARE = "power_share"


def answered(
    plan: Plan, samples: Samples, *, seed: int, timed: bool, scales: Scales, power_share: float, options: dict[str, Any]
) -> dict[str, Any]:
    """Return what `predict` or `evaluate` says of a plan at its best conductances within a share of the largest read power.

    Conductances follow from `optimize` instead of being searched, unless `scales` is `given`. Raises InfeasibleError where that share
    cannot be reached.
    """
    design = None if scales == "given" else best_design(plan, samples, seed=seed, scales=scales, power_share=power_share)
    placed = plan if design is None else plan.with_design(design)
    report = evaluate(placed, samples, seed=seed, **options) if timed else predict(placed, samples, seed=seed, **options)
    return {**report.to_json_dict(), "elapsed_s": None, "design": "" if design is None else design.to_toml()}


def best_design(plan: Plan, samples: Samples, *, seed: int, scales: Scales, power_share: float) -> Design:
    """Return the design of least error within a share of the read power of the largest conductances."""
    largest = {layer.name: layer.site.cell.g_max_siemens for layer in plan.layers}
    full = predict(plan.with_design(Design(g_used_siemens=largest)), samples, seed=seed, method="adjoint", attribution=False)
    budget_w = power_share * full.read_power_w
    found = optimize(plan, samples, verify=samples, seed=seed, power_budget_w=budget_w, per=scales, mc_max_trials=0)  # type: ignore[arg-type]
    if found.design is None:
        raise InfeasibleError(f"{POWER_SHARE} {power_share:g}: no conductances take so little; the floor is {found.floor:g} W")
    return found.design
