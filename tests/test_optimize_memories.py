"""Memories as part of a design: reverse water-filling from a plan's damages, and one multiplier for scales and memories."""

import numpy as np
import pytest

from accelsim.design import Design
from accelsim.ledger import read_power
from accelsim.optimizer.closed_form import minimize_mse
from accelsim.optimizer.memories import MemoryProblem, MemorySite, best_memories, price_range
from accelsim.optimizer.optimize import optimize
from accelsim.optimizer.problem import Problem
from accelsim.placement import Plan
from accelsim.report.design_report import DesignReport
from accelsim.response.target import mean_weights
from accelsim.sampling.monte_carlo import monte_carlo
from devices.base.errors import SpecError
from devices.ecc import Secded
from devices.memory import Memory
from devices.memory_faults import TransientFlips
from devices.reliability import Exponential, Sram14nm
from devices.reliability_law import ReliabilityLaw
from devices.word_format import WordFormat
from tests.digits import digits_plan, digits_samples

IMAGES = digits_samples()[100:116]
HELD_OUT = digits_samples()[116:132]
VALUES = (
    "memory.activations.use=sram_14nm", "memory.activations.v_rel=1.0", "memory.activations.read_energy_j=0.055 pJ",
    "memory.activations.write_energy_j=0.055 pJ", "drive.t_read_s=1 us", "cell.error_rel=0.01",
)  # fmt: skip


def site(damage: list[float], bit_w: float, law: ReliabilityLaw, layer: str = "a") -> MemorySite:
    memory = Memory(
        law=law, word=WordFormat(n_bits=len(damage)), faults=TransientFlips(), read_energy_j=1e-12, write_energy_j=1e-12, error_rate_p=1e-3
    )
    return MemorySite(layer=layer, part="activations", memory=memory, damage=np.array(damage), bit_w=bit_w)


def test_rates_of_the_exponential_law_are_its_closed_form() -> None:
    """p_l = w lambda / (a s_l) within bounds; and by bit p_j goes as 1 / s_j."""
    sites = [site([1.0, 4.0], 1.0, Exponential()), site([100.0, 400.0], 2.0, Exponential(), "b")]
    price = 0.05
    by_layer = MemoryProblem(sites, per_bit=False, codes=False).at(price).rates
    assert [float(p[0]) for p in by_layer] == pytest.approx([price / (12.8 * 2.5), 2.0 * price / (12.8 * 250.0)])
    by_bit = MemoryProblem(sites, per_bit=True, codes=False).at(price).rates
    assert by_bit[1] == pytest.approx([2.0 * price / (12.8 * 100.0), 2.0 * price / (12.8 * 400.0)])


@pytest.mark.parametrize("law", [Exponential(), Sram14nm()], ids=["exponential", "sram"])
def test_joint_optimum_is_that_of_brute_force(law: ReliabilityLaw) -> None:
    """One scale and two memories: MSE = A/c^2 + sum s p, P = B c + sum w eta; a fine grid finds nothing better."""
    problem = Problem(variance_siemens2=np.array([2.0]), linear_w_per_siemens=np.array([1.0]), c_min_siemens=np.array([1e-3]),
                      c_max_siemens=np.array([1e3]))  # fmt: skip
    sites = [site([3.0, 3.0], 0.5, law), site([300.0, 300.0], 1.0, law, "b")]
    memories, budget = MemoryProblem(sites, per_bit=False, codes=False), 4.0

    def value(damage: float, power_w: float):  # type: ignore[no-untyped-def]
        found = minimize_mse(problem.moved(damage, power_w), budget)
        return (found.mse, found.power_w) if hasattr(found, "mse") else found

    choice, (mse, power) = best_memories(memories, value, 0, prices=price_range(memories))  # type: ignore[misc]
    grid = np.geomspace(max(law.bounds[0], 1e-7), 0.4, 400)
    eta = 2.0 * law.energy_rel(grid)
    left = budget - (0.5 * eta[:, None] + 1.0 * eta[None, :])
    total = np.where(left > 0.0, 2.0 / np.maximum(left, 1e-9) ** 2, np.inf) + 6.0 * grid[:, None] + 600.0 * grid[None, :]
    assert mse <= total.min() * (1.0 + 1e-9)
    assert mse == pytest.approx(total.min(), rel=2e-3)
    assert power == pytest.approx(budget)
    # one multiplier: a watt buys the same of either
    c = budget - choice.power_w
    per_watt = 2.0 * 2.0 / c**3
    for memory, p in zip(sites, choice.rates):
        slope = float(law.slope(float(p[0]))) * memory.bit_w
        assert -memory.damage.mean() / slope == pytest.approx(per_watt, rel=1e-3)


def test_a_code_is_taken_where_it_pays() -> None:
    """SECDED pays under the exponential law where errors are rare, not where they are frequent, and not on measured cells there."""
    for law, price, pays in ((Exponential(), 1.0, True), (Exponential(), 30.0, False), (Sram14nm(), 10.0, False)):
        memory = site([100.0] * 8, 1.0, law)
        with_codes, without = (MemoryProblem([memory], per_bit=False, codes=codes) for codes in (True, False))
        chosen, plain = with_codes.at(price), without.at(price)
        costs = [c.power_w + c.damage / price for c in (chosen, plain)]
        assert chosen.coded == (pays,)
        assert (costs[0] < costs[1] * (1.0 - 1e-6)) is pays
        if pays:
            coded = memory.at(chosen.rates[0], coded=True)
            assert isinstance(coded.ecc, Secded)
            assert chosen.power_w == pytest.approx(coded.read_bits)


def plan_of(*more: str) -> Plan:
    return digits_plan("cnn", *VALUES, *more, error_rel=0.01)


def power_of(plan: Plan) -> float:
    return sum(layer.total_w for layer in read_power(plan, plan.graph, IMAGES, [mean_weights(plan)]).values())


def found_with(plan: Plan, budget: float, memories: str, **more: object) -> DesignReport:
    return optimize(
        plan, IMAGES, verify=HELD_OUT, seed=3, power_budget_w=budget, mc_max_trials=0, memories=memories, **more  # type: ignore[arg-type]
    )


def test_the_joint_optimum_beats_scales_alone_by_monte_carlo_and_meets_the_budget() -> None:
    plan = plan_of("drive.t_read_s=30 ns")
    budget = 0.93 * power_of(plan)
    fixed, joint = (found_with(plan, budget, memories) for memories in ("fixed", "layer"))
    assert fixed.design is not None
    assert joint.design is not None
    sampled = [monte_carlo(plan.with_design(d), HELD_OUT, seed=9, rel_error=0.05, max_trials=400) for d in (fixed.design, joint.design)]
    assert sampled[1].ci_high < sampled[0].ci_low
    assert power_of(plan.with_design(joint.design)) <= budget * 1.02
    assert joint.mse_verify == pytest.approx(sampled[1].mse, rel=0.15)


def test_by_bit_is_at_least_as_good_as_by_layer_and_one_voltage_at_most() -> None:
    """In the model, at one price of an MSE: cost = power + damage / price."""
    sites = [site([1.0, 4.0, 16.0, 64.0], 1.0, Sram14nm()), site([50.0, 200.0, 800.0, 3200.0], 2.0, Sram14nm(), "b")]
    by_layer, by_bit = (MemoryProblem(sites, per_bit=per_bit, codes=False) for per_bit in (False, True))
    one, price = by_layer.clustered(by_layer.at(5.0), 1), 5.0
    costs = [c.power_w + c.damage / price for c in (by_bit.at(price), by_layer.at(price), one)]
    assert costs[0] < costs[1] < costs[2]
    assert len({float(p[0]) for p in one.rates}) == 1
    assert one.damage <= by_layer.at(price).damage * (1.0 + 1e-6)


def test_a_design_with_memories_reads_back_and_moves_the_plan() -> None:
    plan = plan_of()
    names = [layer.name for layer in plan.layers]
    rates = {"activations": {names[0]: 1e-3, names[1]: (1e-3,) * 4 + (1e-5,) * 4}}
    design = Design(g_used_siemens={names[0]: 2e-5}, memory_p=rates, memory_secded={"activations": (names[0],)})
    again = Design.from_text(design.to_toml())
    assert again.digest == design.digest
    assert again == design
    moved = plan.with_design(design)
    buffers = [layer.buffers for layer in moved.layers]
    assert buffers[0] is not None
    assert buffers[0].inputs is not None
    assert isinstance(buffers[0].inputs.memory.ecc, Secded)
    assert buffers[1] is not None
    assert buffers[1].inputs is not None
    assert buffers[1].inputs.memory.error_rates[7] == pytest.approx(1e-5)
    assert moved.digest != plan.digest


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("[memory_p.activation]\na = 0.1", "need weights | activations"),
        ("[memory_p.weights]\na = 0.7", "need error rates from 0 to 0.5"),
        ("memory_secded = 3", "need lists of layer names"),
    ],
)
def test_a_design_with_wrong_memories_is_refused(text: str, said: str) -> None:
    start = "" if "secded" not in text else text + "\n"
    body = f"schema = 1\n{start}[g_used_siemens]\na = \"20 uS\"\n" + ("" if start else text)
    with pytest.raises(SpecError, match=said):
        Design.from_text(body)


def test_a_design_for_a_memory_that_is_not_there_is_refused() -> None:
    plan = plan_of()
    with pytest.raises(SpecError, match="has none"):
        plan.with_design(Design(g_used_siemens={plan.layers[0].name: 2e-5}, memory_p={"weights": {plan.layers[0].name: 0.1}}))


@pytest.mark.parametrize(
    ("more", "said"),
    [({"memory_domains": 0}, "need 1 or more"), ({"memories": "all"}, "need fixed | layer | bit"),
     ({"memories": "fixed", "memory_codes": True}, "memories stay fixed")],
)  # fmt: skip
def test_wrong_questions_are_refused(more: dict[str, object], said: str) -> None:
    with pytest.raises(SpecError, match=said):
        optimize(plan_of(), IMAGES, seed=1, power_budget_w=1.0, **more)  # type: ignore[arg-type]


def test_memories_that_are_not_there_cannot_be_moved() -> None:
    with pytest.raises(SpecError, match="has no memory"):
        optimize(digits_plan("cnn"), IMAGES, seed=1, power_budget_w=1e-6, memories="layer")
