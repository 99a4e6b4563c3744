"""What of a network is in memories: spec, placement, words, faults drawn, prediction."""

from dataclasses import replace

import numpy as np
import pytest

from accelsim.accelerator import Accelerator
from accelsim.ledger import read_power
from accelsim.memory_spec import StoredWeights
from accelsim.placement import Plan, place
from accelsim.prediction.predict import predict
from accelsim.response.linear import respond
from accelsim.response.target import ideal_weights, mean_weights
from accelsim.sampling.faults import ENOUGH_EVENTS, effective_events, rare_faults
from accelsim.sampling.importance import Importance
from accelsim.sampling.monte_carlo import monte_carlo
from accelsim.sampling.programmings import Programmer
from accelsim.sampling.record import no_trials
from accelsim.sampling.trials import TrialRunner
from accelsim.stored_signals import SignalSite
from accelsim.stored_weights import WordSite, numbers_of, steps_of
from accelsim.values_in_memory import accesses_of
from devices.base.errors import SpecError
from devices.word_format import WordFormat
from tests.digits import digits_network, digits_plan, digits_samples

IMAGES = digits_samples()[100:116]
WEIGHTS = ("memory.weights.use=exponential_published", "memory.weights.error_rate_p=1e-3", "cell.programming=none")
PROFILE = """
schema = 1
name = "profile"
use = "memse"
[memory.weights]
use = "sram_14nm"
v_rel = 0.9
read_energy_j = "0.1 pJ"
[memory.activations]
use = "sram_14nm"
energy_rel = 0.8
word = { coding = "unsigned", n_bits = 6 }
faults = { kind = "persistent" }
[layers."first"]
memory.weights.error_rate_p = 1e-3
[layers."second"]
memory.weights = "none"
[layers."third"]
memory.weights.bit_error_rates_p = [1e-3, 1e-4, 1e-4, 1e-4, 1e-4, 1e-4, 1e-4, 1e-5]
"""


def with_memory(name: str, *more: str) -> Plan:
    return digits_plan(name, *more, error_rel=0.01)


def word_sites(plan: Plan) -> list[WordSite]:
    return [layer.site for layer in plan.layers if isinstance(layer.site, WordSite)]


# spec


def test_a_spec_reads_back_as_itself() -> None:
    chip = Accelerator.from_text(PROFILE)
    assert Accelerator.from_text(chip.to_toml()) == chip
    assert Accelerator.from_text(chip.to_toml(comments=True)) == chip
    assert chip.memory is not None
    assert chip.memory.partial_sums is None


def test_a_layer_has_its_own_operating_point() -> None:
    chip = Accelerator.from_text(PROFILE)
    first, second, third = (chip.for_layer(name).memory for name in ("first", "second", "third"))
    assert first is not None
    assert first.weights is not None
    assert (first.weights.error_rate_p, first.weights.v_rel) == (1e-3, None)
    assert second is not None
    assert second.weights is None
    assert third is not None
    assert third.weights is not None
    assert np.isclose(third.weights.memory().error_rates[7], 1e-5)


def test_setting_one_operating_point_takes_another_away() -> None:
    chip = Accelerator.from_text(PROFILE, set=["memory.activations.v_rel=0.95", "memory.weights.word.n_bits=8"])
    assert chip.memory is not None
    assert chip.memory.activations is not None
    assert (chip.memory.activations.v_rel, chip.memory.activations.energy_rel) == (0.95, None)


@pytest.mark.parametrize(
    ("assignments", "said"),
    [
        (["memory.weights.error_rate_p=1e-3"], "memory.weights.use: missing"),
        (["memory.weights.use=sram_14"], "nearest: sram_14nm"),
        (["memory.weights.use=sram_14nm"], "give one of energy_rel, v_rel, error_rate_p"),
        (["memory.weights.use=sram_14nm", "memory.weights.error_rate_p=0.7"], "the range of sram_14nm"),
        ([*WEIGHTS, "memory.weights.word.coding=unsigned"], "both signs"),
        ([*WEIGHTS, "memory.weights.read_each=position"], "read_each: position: transient"),
        ([*WEIGHTS, "memory.weights.eror_rate_p=1"], "nearest: memory.weights.error_rate_p"),
    ],
)
def test_what_makes_no_sense_is_refused(assignments: list[str], said: str) -> None:
    with pytest.raises(SpecError, match=said):
        Accelerator.preset("memse", set=assignments)


def test_short_paths_lead_into_no_memory_that_is_absent() -> None:
    chip = Accelerator.preset("memse", set=["sense.adc.kind=uniform", "n_bits=6"])
    assert chip.sense.adc is not None
    assert chip.sense.adc.n_bits == 6


# placement


def test_both_kinds_of_layer_mix() -> None:
    network = digits_network("cnn")
    names = [node.name for _, node in network.matrix_layers()]
    chip = Accelerator.preset("memse", set=[*WEIGHTS, f'layers."{names[0]}".memory.weights=none'])
    plan = place(network, chip, calibration=digits_samples()[:16])
    assert [layer.is_digital for layer in plan.layers] == [False, *[True] * (len(names) - 1)]
    assert [layer.n_arrays for layer in plan.layers[1:]] == [0] * (len(names) - 1)
    power = predict(plan, IMAGES, seed=1).power_by_layer
    assert power[names[0]] > 0.0
    assert power[names[1]] == 0.0


def test_accesses_are_counted() -> None:
    sets = ("activations", "partial_sums")
    more = [f"memory.{s}.{x}" for s in sets for x in ("use=sram_14nm", "error_rate_p=1e-4", "read_energy_j=1pJ", "write_energy_j=2pJ")]
    plan = with_memory("cnn", *WEIGHTS, *more, "mapping.array.n_rows=20", "memory.weights.read_energy_j=1pJ", "drive.t_read_s=1us")
    for layer in plan.layers:
        found = {access.part: access for access in accesses_of(layer)}
        operator, blocks = layer.operator, -(-layer.operator.n_rows // 20)
        assert (found["weights"].reads, found["weights"].writes) == (operator.weights.size, 0)
        assert found["activations"].reads == found["activations"].writes == layer.n_inputs
        assert ("partial_sums" in found) == (blocks > 1)
        if blocks > 1:
            assert found["partial_sums"].reads == operator.n_columns * operator.n_positions * blocks
        memory = found["activations"].memory
        assert found["activations"].energy_j == pytest.approx(layer.n_inputs * memory.read_bits * 3e-12)
    energy = sum(access.energy_j for layer in plan.layers for access in accesses_of(layer))
    power = read_power(plan, plan.graph, IMAGES, [mean_weights(plan)])
    rate = 1.0 / (max(layer.n_reads for layer in plan.layers) * 1e-6)
    assert sum(layer.memories_w for layer in power.values()) == pytest.approx(energy * rate)
    assert sum(layer.total_w for layer in power.values()) == pytest.approx(energy * rate), "there are no other parts"


def test_unsigned_inputs_that_are_negative_are_refused() -> None:
    chip = Accelerator.preset("memse", set=["memory.activations.use=exponential_published", "memory.activations.error_rate_p=0",
                                            "memory.activations.word.coding=unsigned"])  # fmt: skip
    few = digits_samples()[:8]
    negative = replace(few, x=-few.x - 0.1)
    with pytest.raises(SpecError, match="use twos_complement there"):
        place(digits_network("cnn"), chip, calibration=negative)


# words


@pytest.mark.parametrize("coding", ["binary", "ternary", "twos_complement", "sign_magnitude"])
def test_quantizing_twice_is_quantizing_once(coding: str) -> None:
    bits = {"binary": 1, "ternary": 2}.get(coding, 5)
    spec = StoredWeights(use="exponential_published", error_rate_p=0.0, word=WordFormat(coding=coding, n_bits=bits), step_per="column")  # type: ignore[arg-type]
    weights = np.random.default_rng(1).normal(size=(6, 40))
    step = steps_of(spec, weights)[:, None]
    once = step * spec.word.decode(spec.word.encode(numbers_of(spec, weights, step)))
    again = steps_of(spec, once)[:, None]
    twice = again * spec.word.decode(spec.word.encode(numbers_of(spec, once, again)))
    assert np.allclose(once, twice, rtol=1e-12, atol=0.0)
    assert np.mean((once - weights) ** 2) < 0.4 * np.mean(weights**2)


def test_faults_are_nested_across_error_rates() -> None:
    def wrong(rate: str) -> np.ndarray:
        (site, *_) = word_sites(with_memory("mlp", *WEIGHTS, f"memory.weights.error_rate_p={rate}"))
        return np.asarray(site.sampled(seed=3, trial=5) != site.ideal_weights().astype(np.float32))

    few, many = wrong("1e-2"), wrong("0.1")
    assert 0 < few.sum() < many.sum()
    assert np.all(many[few])
    assert not np.all(few[many])


@pytest.mark.parametrize("more", [(), ("memory.weights.ecc.kind=secded",), ("memory.weights.ecc.kind=tripled_bits",),
                                  ("memory.weights.word.coding=binary", "memory.weights.word.n_bits=1")])  # fmt: skip
def test_drawn_weights_have_the_moments_they_should(more: tuple[str, ...]) -> None:
    (site, *_) = word_sites(with_memory("mlp", *WEIGHTS, "memory.weights.error_rate_p=2e-2", *more))
    moments, n = site.moments(), 60
    off = np.array([site.sampled(seed=2, trial=t) - moments.mean for t in range(n)], np.float64)
    by_trial = (off**2).sum(axis=(1, 2)) / moments.variance.sum()
    allowed = 0.03 if "secded" in "".join(more) else 0.0  # its bits are taken as independent
    assert abs(by_trial.mean() - 1.0) < 4.0 * by_trial.std(ddof=1) / np.sqrt(n) + allowed
    mean = off.mean(axis=(1, 2))
    assert abs(mean.mean()) < 4.0 * mean.std(ddof=1) / np.sqrt(n) + 1e-9
    shifted = (off + 0.3 * np.sqrt(moments.variance)) ** 2
    assert shifted.sum(axis=(1, 2)).mean() / moments.variance.sum() - 1.0 > 0.05, "the negative control: a bias"


def test_lasting_faults_are_those_of_the_cell_and_fresh_ones_are_not() -> None:
    def read(kind: str) -> np.ndarray:
        chip = Accelerator.preset("memse", set=["memory.activations.use=exponential_published", "memory.activations.error_rate_p=0.05",
                                                f"memory.activations.faults.kind={kind}"])  # fmt: skip
        plan = place(digits_network("cnn"), chip, calibration=digits_samples()[:16])
        buffers = plan.layers[0].buffers
        assert buffers is not None
        assert isinstance(buffers.inputs, SignalSite)
        x = np.repeat(np.linspace(0.0, 1.0, 64, dtype=np.float32)[:, None], 8, axis=1)
        return buffers.inputs.sampled(x, seed=1, trial=0) - buffers.inputs.sound().mean(x)

    lasting, fresh = read("persistent"), read("transient")
    assert np.any(lasting)
    assert np.all(lasting == lasting[:, :1])
    assert np.any(fresh)
    assert not np.all(fresh == fresh[:, :1])


def test_masks_say_which_bits_are_wrong() -> None:
    (site, *_) = word_sites(with_memory("mlp", *WEIGHTS, "memory.weights.error_rate_p=0.05"))
    masks = site.masks(seed=1, trial=2)
    assert np.array_equal(site.reading(masks), site.sampled(seed=1, trial=2))
    n_wrong = sum(int(((masks >> j) & 1).sum()) for j in range(8))
    assert abs(n_wrong - 0.05 * 8 * masks.size) < 5.0 * np.sqrt(0.05 * 8 * masks.size)
    masks[7] ^= 1 << 6
    changed = site.reading(masks) != site.sampled(seed=1, trial=2)
    assert np.flatnonzero(changed).tolist() == [7]


# the response and the prediction


def test_first_order_of_values_in_memory_is_what_small_errors_do() -> None:
    """Variances of values read, through the network: against sampled reads; words are long, so that rounding is small beside faults."""
    rates, format_ = ",".join([*["0.0"] * 8, *["0.02"] * 2, *["0.0"] * 4]), "word.n_bits=14"
    each = ("use=exponential_published", f"bit_error_rates_p=[{rates}]", format_)
    sets = [f"memory.{s}.{x}" for s in ("activations", "partial_sums") for x in each]
    plan = with_memory("cnn", *sets, "mapping.array.n_rows=20", "cell.programming=none")
    response = respond(plan, plan.graph, IMAGES, seed=1)
    runner = TrialRunner(plan, plan.graph, IMAGES, reference=response.mean_output, seed=4, control=False)
    losses = np.array([runner.run(t).loss for t in range(150)])
    se = losses.std(ddof=1) / np.sqrt(len(losses))
    assert response.variance == pytest.approx(losses.mean(), abs=4.0 * se + 0.02 * losses.mean())
    inputs = sum(float(layer.inputs_by_output.mean()) for layer in response.layers.values())
    assert losses.mean() - inputs > 8.0 * se, "the negative control: partial sums left out"


def test_mean_values_are_what_is_read_on_average() -> None:
    memory = ("memory.activations.use=exponential_published", "memory.activations.error_rate_p=0.05")
    plan = with_memory("mlp", *memory, "cell.programming=none")
    buffers = plan.layers[0].buffers
    assert buffers is not None
    assert buffers.inputs is not None
    x = np.linspace(-0.2, 1.0, 512, dtype=np.float32)[:, None].repeat(64, axis=1)
    read = np.stack([buffers.inputs.sampled(x, seed=1, trial=t) for t in range(20)]).astype(np.float64)
    off = (read - buffers.inputs.mean(x)) / np.sqrt(buffers.inputs.variance(x))
    assert abs(off.mean()) * np.sqrt(off.size) < 4.0
    assert (off**2).mean() == pytest.approx(1.0, abs=0.02)


@pytest.mark.parametrize(
    "more",
    [
        ("memory.weights.use=exponential_published", "memory.weights.error_rate_p=1e-4", "cell.programming=none"),
        ("cell.programming=none", "memory.activations.use=exponential_published", "memory.activations.error_rate_p=2e-5",
         "memory.partial_sums.use=exponential_published", "memory.partial_sums.error_rate_p=2e-5",
         "mapping.array.n_rows=20", "memory.partial_sums.faults.kind=persistent"),
    ],
    ids=["weights", "values"],
)  # fmt: skip
def test_the_prediction_agrees_with_monte_carlo(more: tuple[str, ...]) -> None:
    plan = with_memory("cnn", *more)
    report = predict(plan, IMAGES, seed=5)
    trials = monte_carlo(plan, IMAGES, seed=6, rel_error=0.03, max_trials=2_500)
    assert report.mse == pytest.approx(trials.mse, abs=2.0 * float(np.hypot(trials.mse_se, report.mse_se)) + 0.03 * trials.mse)
    assert abs(report.mse - report.by_cause.get("memory_weights", 0.0) - report.by_cause.get("memory_activations", 0.0)
               - report.by_cause.get("memory_partial_sums", 0.0)) < 0.5 * report.mse  # fmt: skip
    assert sum(report.by_cause.values()) == pytest.approx(report.mse)
    assert sum(report.by_layer.values()) == pytest.approx(report.mse)


def test_without_faults_words_are_only_rounded() -> None:
    plan = with_memory("cnn", "memory.weights.use=exponential_published", "memory.weights.error_rate_p=0", "cell.programming=none")
    ideal, mean = ideal_weights(plan), mean_weights(plan)
    assert all(np.array_equal(ideal.weights[n], mean.weights[n]) for n in ideal.weights)
    assert all(np.array_equal(ideal.weights[n], w) for n, w in Programmer(plan, seed=1).draw(3).view.weights.items())
    report = predict(plan, IMAGES, seed=1)
    assert report.by_cause["quantization"] == pytest.approx(report.mse)


# Monte-Carlo


def importance_plan(p: str, *more: str) -> Plan:
    return with_memory("cnn", *WEIGHTS, f"memory.weights.error_rate_p={p}", "memory.weights.faults.kind=persistent", *more)


def test_faults_by_importance_have_the_mean_and_spread_of_plain_trials() -> None:
    plan = importance_plan("3e-4")
    wanted = ideal_weights(plan).outputs(plan.graph, IMAGES)
    importance = rare_faults(plan, plan.graph, IMAGES, seed=1)
    assert importance is not None
    rare, plain = (TrialRunner(plan, plan.graph, IMAGES, reference=wanted, seed=3, control=False, importance=i) for i in (importance, None))
    sampled, drawn = [rare.run(t) for t in range(300)], np.array([plain.run(t).loss for t in range(2500)])
    losses = np.array([outcome.loss for outcome in sampled])
    se = np.hypot(losses.std(ddof=1) / np.sqrt(len(losses)), drawn.std(ddof=1) / np.sqrt(len(drawn)))
    assert abs(losses.mean() - drawn.mean()) < 3.5 * se
    assert losses.std() < 0.3 * drawn.std(), "importance is worth its name"
    raw = np.array([o.base + (o.loss - o.base) / o.weight for o in sampled])
    assert abs(raw.mean() - drawn.mean()) > 8.0 * se, "the negative control: faults that do not count by their weight"


def test_weights_of_importance_are_those_of_enumeration() -> None:
    """A binary layer of six weights and f = (sum of w_i m_i)^2: all 64 sets of wrong bits, against (1) over all choices of a bit."""
    plan = importance_plan("0.2", "memory.weights.word.coding=binary", "memory.weights.word.n_bits=1")
    site = word_sites(plan)[0]
    node, n, p = plan.layers[0].node, 6, 0.2
    damage = np.zeros((1, site.words.size))
    damage[0, :n] = [3.0, 1.0, 0.5, 2.0, 0.1, 1.5]
    importance = Importance({node: site}, {node: damage})
    w, found, exact = np.array([1.0, -2.0, 0.5, 1.0, 3.0, -1.0]), 0.0, 0.0
    for wrong in range(1, 1 << n):
        bits = (wrong >> np.arange(n)) & 1
        mask = np.zeros(site.words.size, np.uint16)
        mask[:n] = bits
        probability, f = float(np.prod(np.where(bits == 1, p, 1 - p))), float(w @ bits) ** 2
        exact += probability * f
        for e in np.flatnonzero(bits):  # drawn in proportion to p a_e, the others each with its probability
            found += p * damage[0, e] / importance.total * probability / p * f * importance.weight({node: mask})
    assert found == pytest.approx(exact, rel=1e-12)


def test_chosen_bits_follow_their_damage() -> None:
    plan = importance_plan("1e-5")
    importance = rare_faults(plan, plan.graph, IMAGES, seed=1)
    assert importance is not None
    chosen = [importance.chosen(seed=5, trial=t) for t in range(2000)]
    expected = importance.totals / importance.total
    counts = np.array([sum(c.node == node for c in chosen) for node in importance.nodes])
    z = (counts - 2000 * expected) / np.sqrt(2000 * expected * (1 - expected))
    assert np.all(np.abs(z) < 4.0)
    again = importance.chosen(seed=5, trial=7)
    assert (chosen[7].node, chosen[7].number, chosen[7].bit) == (again.node, again.number, again.bit)


@pytest.mark.parametrize("p", ["1e-6", "1e-4"])
def test_rare_faults_need_few_trials(p: str) -> None:
    plan = importance_plan(p)
    report, trials = predict(plan, IMAGES, seed=1), monte_carlo(plan, IMAGES, seed=2, rel_error=0.03, max_trials=2_000)
    assert trials.stopped_by == "rel_error"
    assert trials.n_effective is not None
    assert trials.n_effective >= 100.0
    assert report.mse == pytest.approx(trials.mse, abs=2.0 * float(np.hypot(trials.mse_se, report.mse_se)) + 0.03 * trials.mse)
    assert report.mse_chip_sd == pytest.approx(trials.mse_chip_sd, rel=0.35)


def test_only_lasting_faults_make_chips_differ() -> None:
    fresh = with_memory("cnn", *WEIGHTS, "memory.weights.error_rate_p=1e-2")
    assert monte_carlo(fresh, IMAGES, seed=2, rel_error=0.2, max_trials=200).mse_chip_sd == 0.0
    assert predict(fresh, IMAGES, seed=2, attribution=False).mse_chip_sd == 0.0
    lasting = importance_plan("1e-2")
    assert monte_carlo(lasting, IMAGES, seed=2, rel_error=0.2, max_trials=200).mse_chip_sd > 0.0


def test_a_run_on_few_faults_is_not_ended() -> None:
    """Of 400 trials a few have all the faults: their scatter says nothing, and the interval is not believed."""
    losses = np.full(400, 1.0)
    losses[[3, 200]] = 50.0
    few = replace(no_trials(8), losses=losses, bases=np.full(400, np.nan), weights=np.ones(400))
    assert effective_events(few) == pytest.approx(2.0)
    many = replace(few, losses=np.random.default_rng(1).exponential(size=400))
    assert effective_events(many) > ENOUGH_EVENTS
