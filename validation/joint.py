"""Conductances and memory energy under one power budget, against either alone: crossbar weights, activations in low-voltage memory.

Three designs of one network at the same budget, judged by Monte-Carlo on images that none was optimized on: scales alone (memories at
Vmin), memories alone (conductances as they are, a common scale), and both with one multiplier. Where memories at Vmin take more than the
budget, scales alone have no design.
"""

from collections.abc import Iterator, Sequence

import numpy as np

from accelsim.accelerator import Accelerator
from accelsim.design import Design
from accelsim.ledger import read_power
from accelsim.optimizer.memories import MemoryProblem, as_design, memory_sites, price_range
from accelsim.optimizer.optimize import optimize
from accelsim.optimizer.search import Memories
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

NETWORKS = ("resnet8_cifar10", "fashion_resnet", "fashion_cnn")
SPEC = (
    "cell.error_rel=0.005", "drive.t_read_s=1 us", "memory.activations.use=sram_14nm", "memory.activations.v_rel=1.0",
    "memory.activations.read_energy_j=0.055 pJ", "memory.activations.write_energy_j=0.055 pJ",
)  # fmt: skip
"""Energies: a 22 nm, 32 KB memory by CACTI, writes as reads (0.75 to 1.1 times a read by the same tool)."""
BUDGETS_REL = (0.75, 0.85, 0.95)
"""Budgets over the power with all cells at g_max and memories at Vmin."""
N_IMAGES, FEW_IMAGES = 32, {"resnet8_cifar10": 16}
"""Images that designs are made for, and as many others that judge them; few where a trial is slow."""
MOVED = ("scales", "memories", "joint")


def power_of(plan: Plan, samples: Samples) -> float:
    """Return the read power, cells at their mean weights."""
    return sum(layer.total_w for layer in read_power(plan, plan.graph, samples, [mean_weights(plan)]).values())


def memories_alone(plan: Plan, samples: Samples, wanted: np.ndarray, budget_w: float) -> Design | None:
    """Return the design that moves memories only, until the budget is met; None where even the largest error rates take more."""
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
    if memories.at(high).power_w > left:
        return None
    rates, codes = as_design(memories, memories.at(high))
    used = {layer.name: float(layer.site.g_used_siemens.max()) for layer in plan.layers}
    return Design(g_used_siemens=used, memory_p=rates, memory_secded=codes)


def joint_table(
    *, networks: Sequence[str] = NETWORKS, budgets_rel: Sequence[float] = BUDGETS_REL, most_images: int = N_IMAGES, max_trials: int = 400,
    done: tuple[str, ...] = (),
) -> Iterator[Row]:  # fmt: skip
    """Yield a row a network, budget and design; cells in `done` are skipped."""
    for network in networks:
        if all(_cell(network, rel, what) in done for rel in budgets_rel for what in MOVED):
            continue
        n_images = min(most_images, FEW_IMAGES.get(network, N_IMAGES))
        net, data = network_and_samples(network, 2 * n_images)
        samples, held_out = data[:n_images], data[n_images:]
        plan = place(net, Accelerator.preset("memse", set=SPEC), calibration=samples)
        full = power_of(plan, samples)
        for rel in budgets_rel:
            for what in MOVED:
                if _cell(network, rel, what) not in done:
                    design = _design(what, plan, samples, held_out, rel * full)
                    yield _row(network, what, plan, design, full, held_out, max_trials, budget_rel=rel)


def _cell(network: str, budget_rel: float, what: str) -> str:
    return f"{network} {100 * budget_rel:.0f}% {what}"


def _design(what: str, plan: Plan, samples: Samples, held_out: Samples, budget_w: float) -> Design | None:
    """Return the best design of scales, memories, or both; None where none meets the budget."""
    if what == "memories":
        return memories_alone(plan, samples, reference_outputs(plan, plan.graph, samples, "float"), budget_w)
    memories: Memories = "layer" if what == "joint" else "fixed"
    found = optimize(plan, samples, verify=held_out, seed=SEED, power_budget_w=budget_w, mc_max_trials=0, memories=memories)
    return found.design


def _row(
    network: str, what: str, plan: Plan, design: Design | None, full_w: float, held_out: Samples, max_trials: int, *, budget_rel: float
) -> Row:
    row: Row = {
        "cell": _cell(network, budget_rel, what), "network": network, "budget_rel": f"{budget_rel:g}", "moved": what,
        "budget_w": f"{budget_rel * full_w:.4g}",
    }  # fmt: skip
    if design is None:
        return row | {"power_w": "", "mse": "", "ci_low": "", "ci_high": "", "accuracy": "", "n_trials": 0}
    moved = plan.with_design(design)
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
    """Return the designs that the joint one at the same budget does not beat beyond both intervals, and those that beat it."""
    joint = {(row["network"], row["budget_rel"]): row for row in rows if row["moved"] == "joint"}
    alone = [(row, joint[row["network"], row["budget_rel"]]) for row in rows if row["moved"] != "joint" and row["mse"]]
    return {
        "not_beaten": [str(row["cell"]) for row, both in alone if float(both["ci_high"] or "inf") >= float(row["ci_low"])],
        "beyond_bar": [str(row["cell"]) for row, both in alone if float(both["ci_low"] or "inf") > float(row["ci_high"])],
    }
