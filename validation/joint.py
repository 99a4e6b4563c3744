"""Conductances and memory energy under one power budget, against either alone: crossbar weights, activations in low-voltage memory.

Three designs of one network at the same budget, judged by Monte-Carlo on images that none was optimized on: scales alone (memories at
Vmin), memories alone (conductances as they are, a common scale), and both with one multiplier.
"""

from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial

import numpy as np

from accelsim.accelerator import Accelerator
from accelsim.design import Design
from accelsim.ledger import read_power
from accelsim.optimizer.memories import MemoryProblem, as_design, memory_sites, price_range
from accelsim.optimizer.optimize import optimize
from accelsim.placement import Plan, place
from accelsim.prediction.events import without_faults
from accelsim.prediction.question import Question
from accelsim.response.linear import respond
from accelsim.response.target import mean_weights, reference_outputs
from accelsim.sampling.monte_carlo import monte_carlo
from accelsim.sampling.programmings import Programmer
from validation.networks import network_and_samples
from validation.tables import SEED, Row
from workloads.samples import Samples

NETWORK = "resnet8_cifar10"
SPEC = (
    "cell.error_rel=0.005", "drive.t_read_s=1 us", "memory.activations.use=sram_14nm", "memory.activations.v_rel=1.0",
    "memory.activations.read_energy_j=0.055 pJ", "memory.activations.write_energy_j=0.055 pJ",
)  # fmt: skip
"""Energies: a 22 nm, 32 KB memory by CACTI, writes as reads (0.75 to 1.1 times a read by the same tool)."""
BUDGET_REL = 0.85
"""Budget over the power with all cells at g_max and memories at Vmin."""


def power_of(plan: Plan, samples: Samples) -> float:
    """Return the read power, cells at their mean weights."""
    return sum(layer.total_w for layer in read_power(plan, plan.graph, samples, [mean_weights(plan)]).values())


def memories_alone(plan: Plan, samples: Samples, wanted: np.ndarray, budget_w: float) -> Design:
    """Return the design that moves memories only, until the budget is met."""
    sound = without_faults(plan)
    response = respond(sound, plan.graph, samples, seed=SEED)
    question = Question(
        plan=plan, programmer=Programmer(sound, seed=SEED), errors=(), graph=plan.graph, samples=samples, seed=SEED, wanted=wanted,
        tol_rel=0.05, reference="float",
    )  # fmt: skip
    memories = MemoryProblem(memory_sites(plan, question, response), per_bit=False, codes=False)
    left = budget_w - (power_of(plan, samples) - memories.present.power_w)
    low, high = price_range(memories)
    for _ in range(60):
        middle = float(np.sqrt(low * high))
        low, high = (middle, high) if memories.at(middle).power_w > left else (low, middle)
    rates, codes = as_design(memories, memories.at(high))
    used = {layer.name: float(layer.site.g_used_siemens.max()) for layer in plan.layers}
    return Design(g_used_siemens=used, memory_p=rates, memory_secded=codes)


def joint_table(*, network: str = NETWORK, n_images: int = 16, max_trials: int = 400, done: tuple[str, ...] = ()) -> Iterator[Row]:
    """Yield a row a design."""
    net, data = network_and_samples(network, 2 * n_images)
    samples, held_out = data[:n_images], data[n_images:]
    plan = place(net, Accelerator.preset("memse", set=SPEC), calibration=samples)
    wanted = reference_outputs(plan, plan.graph, samples, "float")
    budget = BUDGET_REL * power_of(plan, samples)

    def by(memories: str) -> Design | None:
        found = optimize(
            plan, samples, verify=held_out, seed=SEED, power_budget_w=budget, mc_max_trials=0, memories=memories  # type: ignore[arg-type]
        )
        return found.design

    alone = partial(memories_alone, plan, samples, wanted, budget)
    makers: dict[str, Callable[[], Design | None]] = {
        "scales": partial(by, "fixed"),
        "memories": alone,
        "joint": partial(by, "layer"),
    }
    for what, make in makers.items():
        if f"{network} {what}" not in done:
            yield _row(network, what, plan, make(), budget, held_out, max_trials)


def _row(network: str, what: str, plan: Plan, design: Design | None, budget: float, held_out: Samples, max_trials: int) -> Row:
    row: Row = {"cell": f"{network} {what}", "network": network, "moved": what, "budget_w": f"{budget:.4g}"}
    if design is None:
        return row | {"power_w": "", "mse": "", "ci_low": "", "ci_high": "", "accuracy": "", "n_trials": 0}
    moved = plan.with_design(replace(design))
    trials = monte_carlo(moved, held_out, seed=SEED + 2, rel_error=0.04, max_trials=max_trials)
    return row | {
        "power_w": f"{power_of(moved, held_out):.4g}",
        "mse": f"{trials.mse:.4g}",
        "ci_low": f"{trials.ci_low:.4g}",
        "ci_high": f"{trials.ci_high:.4g}",
        "accuracy": "" if trials.accuracy is None else f"{trials.accuracy:.4f}",
        "n_trials": trials.n_trials,
    }


def judged(rows: list[Row]) -> dict[str, list[str]]:
    """Return the designs that the joint one does not beat beyond both intervals."""
    joint = next(row for row in rows if row["moved"] == "joint")
    others = [row for row in rows if row["moved"] != "joint" and row["mse"]]
    return {"not_beaten": [str(row["cell"]) for row in others if float(joint["ci_high"]) >= float(row["ci_low"])]}
