"""Monte-Carlo: the same bits whatever runs it, intervals that cover, and variance reduction that does not move the mean."""

import os
import subprocess
import sys
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest

from accelsim.accelerator import Accelerator
from accelsim.placement import Plan, place
from accelsim.report.records import TrialReport
from accelsim.sampling.estimate import MIN_TRIALS, ControlMean, adjusted_losses, checkpoints, controlled_interval, mean_interval
from accelsim.sampling.monte_carlo import monte_carlo
from devices.base.errors import RunFolderError, SpecError
from tests.digits import digits_plan, judged
from workloads.kernels import ConvGeometry
from workloads.network import INPUT, Network, Node
from workloads.operators.matrix import Conv
from workloads.samples import Samples, samples_of
from workloads.walk import evaluate

ERROR_REL = 0.05


def linear_plan() -> tuple[Plan, Samples, float]:
    """Return one fully connected layer on unclipped cells, its samples and its exact MSE, mean of V sum x^2."""
    rng = np.random.default_rng(6)
    weights = rng.normal(size=(3, 4, 1, 1)).astype(np.float32)
    operator = Conv(weights, None, ConvGeometry(in_shape=(4, 1, 1), n_out=3), 0)
    node = Node(name="fc", operator=operator, inputs=(INPUT,), shape=(3,))
    network = Network(name="linear", digest="linear", input_shape=(4,), nodes=(node,), output=0)
    samples = samples_of(rng.normal(size=(5, 4)).astype(np.float32))
    spec = (f"cell.programming.error_rel={ERROR_REL}", "cell.programming.clip=false")
    exact = 2.0 * (ERROR_REL * np.abs(weights).max()) ** 2 * float((samples.x.astype(np.float64) ** 2).sum(axis=1).mean())
    return place(network, Accelerator.preset("memse", set=spec), calibration=samples), samples, exact


def same(one: TrialReport, other: TrialReport) -> None:
    np.testing.assert_array_equal(one.losses, other.losses)
    for name in ("mse", "ci_low", "ci_high", "n_trials", "stopped_by", "accuracy", "accuracy_ci", "read_power_w", "variance_factor"):
        assert getattr(one, name) == getattr(other, name), name


# The same bits


@pytest.mark.parametrize("settings", [(), ("cell.read_noise.kind=proportional", "cell.read_noise.error_rel=0.02", "mapping.bias=device")])
def test_one_thread_and_two_give_the_same_bits(settings: tuple[str, ...]) -> None:
    plan = digits_plan("cnn", *settings)
    same(*(monte_carlo(plan, judged(), seed=3, rel_error=0.01, max_trials=400, threads=n) for n in (1, 2)))


PROGRAM = """
from tests.digits import digits_plan, judged
from accelsim.sampling.monte_carlo import monte_carlo
found = monte_carlo(digits_plan("mlp"), judged(), seed=3, rel_error=0.01, max_trials=240)
print(found.mse.hex(), found.ci_low.hex(), found.losses.tobytes().hex()[:400], found.accuracy.hex(), found.read_power_w.hex())
"""


def test_two_processes_with_hash_randomization_give_the_same_bits() -> None:
    root = Path(__file__).parent.parent
    answers = {
        subprocess.run(
            [sys.executable, "-c", PROGRAM], cwd=root, env={**os.environ, "PYTHONHASHSEED": seed, "PYTHONPATH": str(root)}, check=True,
            capture_output=True, text=True,
        ).stdout
        for seed in ("1", "2")
    }  # fmt: skip
    assert len(answers) == 1
    assert len(answers.pop()) > 400


def test_an_interrupted_run_goes_on_to_the_same_bits(tmp_path: Path) -> None:
    plan, file = digits_plan("cnn", error_rel=0.1), tmp_path / "trials.npz"

    def stop(done: int, most: int, width: float) -> None:
        if done >= 240:
            raise KeyboardInterrupt

    question = {"seed": 3, "rel_error": 0.001, "max_trials": 600}
    whole = monte_carlo(plan, judged(), **question)  # type: ignore[arg-type]
    partial = monte_carlo(plan, judged(), **question, checkpoint=file, progress=stop)  # type: ignore[arg-type]
    assert partial.stopped_by == "interrupt"
    assert partial.n_trials == 240
    np.testing.assert_array_equal(partial.losses, whole.losses[:240])
    resumed = monte_carlo(plan, judged(), **question, checkpoint=file)  # type: ignore[arg-type]
    same(resumed, whole)


def test_a_checkpoint_of_another_question_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "trials.npz"
    monte_carlo(digits_plan("mlp"), judged(), seed=3, max_trials=40, checkpoint=file)
    with pytest.raises(RunFolderError, match="belongs to another plan, seed"):
        monte_carlo(digits_plan("mlp"), judged(), seed=4, max_trials=40, checkpoint=file)
    file.write_text("nothing")
    with pytest.raises(RunFolderError, match="is not a checkpoint"):
        monte_carlo(digits_plan("mlp"), judged(), seed=3, max_trials=40, checkpoint=file)


# The interval


N_RUNS = 100


def test_the_interval_covers_the_exact_mse_as_often_as_it_says() -> None:
    """Of 100 intervals of 95 %, 88 to 100 cover (p = 0.003 each side); of half their width, at most 82 (67 expected)."""
    plan, samples, exact = linear_plan()
    runs = [
        monte_carlo(plan, samples, seed=s, rel_error=1e-6, max_trials=MIN_TRIALS, control_variate=False, threads=1) for s in range(N_RUNS)
    ]
    assert sum(r.ci_low <= exact <= r.ci_high for r in runs) >= 88
    assert sum(abs(r.mse - exact) <= 0.25 * (r.ci_high - r.ci_low) for r in runs) <= 82
    pooled = np.concatenate([r.losses for r in runs])
    assert abs(pooled.mean() - exact) < 4 * pooled.std() / np.sqrt(len(pooled))


def test_the_control_of_a_linear_network_leaves_no_variance() -> None:
    plan, samples, exact = linear_plan()
    found = monte_carlo(plan, samples, seed=1, max_trials=MIN_TRIALS)
    assert found.variance_factor > 1e6
    assert found.mse == pytest.approx(exact, rel=1e-5)


@pytest.mark.parametrize("error_rel", [0.01, 0.1])
def test_control_variate_and_mirrored_pairs_do_not_move_the_mean(error_rel: float) -> None:
    """Both at two seeds; z below 4, and at small noise far fewer trials do."""
    plan = digits_plan("mlp", error_rel=error_rel)
    for seed in (1, 2):
        plain = monte_carlo(plan, judged(), seed=seed, rel_error=0.005, max_trials=2_000, control_variate=False)
        reduced = monte_carlo(plan, judged(), seed=seed + 10, rel_error=0.005, max_trials=2_000)
        assert plain.control_variate == "control variate off as asked"
        assert reduced.control_variate == "on"
        assert abs(plain.mse - reduced.mse) < 4 * np.hypot(plain.mse_se, reduced.mse_se)
        assert reduced.variance_factor > (50 if error_rel == 0.01 else 3)


def test_without_mirrored_pairs_the_mean_is_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    plan = digits_plan("cnn", error_rel=0.03)
    paired = monte_carlo(plan, judged(), seed=1, rel_error=0.01, max_trials=800)
    monkeypatch.setattr("accelsim.sampling.control.pairs_pay", lambda losses, controls, known: False)
    single = monte_carlo(plan, judged(), seed=2, rel_error=0.01, max_trials=800)
    assert abs(paired.mse - single.mse) < 4 * np.hypot(paired.mse_se, single.mse_se)
    assert paired.mse_se < single.mse_se, "what pairs are for"


def test_it_stops_at_fixed_trial_counts_only() -> None:
    counts = checkpoints(10_000)
    assert counts[0] == MIN_TRIALS
    assert all(b > a for a, b in pairwise(counts))
    for error_rel in (0.01, 0.05):
        found = monte_carlo(digits_plan("mlp", error_rel=error_rel), judged(), seed=3, rel_error=0.01, max_trials=10_000)
        assert found.n_trials in counts
        assert found.stopped_by == "rel_error"
        assert 0.5 * (found.ci_high - found.ci_low) <= 0.01 * found.mse
    assert monte_carlo(digits_plan("mlp", error_rel=0.2), judged(), seed=3, rel_error=1e-4, max_trials=250).stopped_by == "max_trials"


def test_the_controlled_interval_counts_that_its_coefficient_is_estimated() -> None:
    """Long tails, and a residual that grows with the control: the jackknife covers, losses adjusted by one beta cover too seldom."""
    random, n_runs, covered, naive = np.random.default_rng(3), 1500, 0, 0
    for _ in range(n_runs):
        control = random.chisquare(1, 60)
        loss = control + 0.5 * np.abs(control - 1.0) * random.standard_normal(60)
        found = controlled_interval(loss, control, ControlMean(mean=1.0), paired=False, confidence=0.95)
        adjusted, _ = adjusted_losses(loss, control, ControlMean(mean=1.0))
        one_beta = mean_interval(adjusted, confidence=0.95)
        covered += found.low <= 1.0 <= found.high
        naive += one_beta.low <= 1.0 <= one_beta.high
    assert 0.93 < covered / n_runs < 0.975
    assert naive < covered - 0.015 * n_runs


@pytest.mark.parametrize("stated", [True, False])
def test_a_control_whose_mean_is_known_to_an_error_covers_if_the_error_is_counted(stated: bool) -> None:
    """A control whose stated mean is off by a random 0.1: intervals of 95 % cover; taken as exact (the negative control) they do not."""
    random, n_runs, covered = np.random.default_rng(4), 800, 0
    for _ in range(n_runs):
        control = random.chisquare(4, 200) / 4.0
        loss = control + 0.2 * random.standard_normal(200)
        known = ControlMean(mean=1.0 + 0.1 * random.standard_normal(), se=0.1 if stated else 0.0)
        found = controlled_interval(loss, control, known, paired=False, confidence=0.95)
        covered += found.low <= 1.0 <= found.high
    assert (0.93 < covered / n_runs < 0.975) if stated else covered / n_runs < 0.6


def test_a_control_that_does_not_pay_is_given_up() -> None:
    found = monte_carlo(digits_plan("resnet", error_rel=0.3, clip=False), judged(), seed=1, rel_error=0.05, max_trials=400)
    assert found.control_variate.startswith("given up after 40 trials")
    assert found.variance_factor == 1.0


def test_many_outputs_have_a_control_with_a_standard_error() -> None:
    """A whole map as outputs: as with the control off, z below 4, at far fewer trials than without."""
    plan = digits_plan("cnn", error_rel=0.01)
    name = plan.layers[0].name
    with_control = monte_carlo(plan, judged(), seed=1, rel_error=0.01, max_trials=400, output=name)
    without = monte_carlo(plan, judged(), seed=2, rel_error=0.01, max_trials=400, output=name, control_variate=False)
    assert with_control.control_variate == "on; its mean by random probes, their standard error included"
    assert abs(with_control.mse - without.mse) < 4 * np.hypot(with_control.mse_se, without.mse_se)
    assert with_control.mse_se < 0.7 * without.mse_se


def test_accuracy_has_an_interval_over_images() -> None:
    """Without noise it is that of the images alone; with noise lower, and between 0 and 1."""
    samples = judged()
    clean = evaluate(digits_plan("cnn").network, samples.x).argmax(axis=1) == samples.y
    found = monte_carlo(digits_plan("cnn", error_rel=1e-6), samples, seed=3, max_trials=200)
    assert found.accuracy == pytest.approx(clean.mean())
    expected = mean_interval(clean.astype(np.float64), confidence=0.95, batch=1)
    assert found.accuracy_ci == pytest.approx((max(0.0, expected.low), min(1.0, expected.high)))
    noisy = monte_carlo(digits_plan("cnn", error_rel=0.3), samples, seed=3, max_trials=200)
    assert noisy.accuracy is not None
    assert noisy.accuracy < found.accuracy
    assert noisy.accuracy_ci is not None
    assert 0.0 <= noisy.accuracy_ci[0] <= noisy.accuracy <= noisy.accuracy_ci[1] <= 1.0


@pytest.mark.parametrize(("wrong", "message"), [
    ({"rel_error": 0.0}, "need 0 < rel_error < 1"),
    ({"confidence": 1.0}, "need 0.5 <= confidence < 1"),
    ({"max_trials": 5}, "need max_trials >= 20"),
])  # fmt: skip
def test_parameters_that_make_no_sense_are_refused(wrong: dict, message: str) -> None:  # type: ignore[type-arg]
    with pytest.raises(SpecError, match=message):
        monte_carlo(digits_plan("mlp"), judged(), seed=3, **wrong)
