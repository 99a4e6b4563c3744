"""explain(): three planted faults are found, and nothing is found where there is nothing."""

import json
from functools import cache
from pathlib import Path

import numpy as np
import pytest

from accelsim import Accelerator, Diagnosis, ModelCard, Network, Samples, SpecError, explain, load_embedded, load_report, place, predict
from accelsim.cli import main
from accelsim.diagnosis.preprocessing import Preprocessing, facts_of, judged
from accelsim.diagnosis.signals import clipped_shares
from accelsim.page.document import page_of
from accelsim.report.diagnosis import Finding
from accelsim.response.target import ideal_weights
from accelsim.sampling.monte_carlo import monte_carlo
from tests.digits import digits_network, digits_samples
from workloads.kernels import ConvGeometry
from workloads.network import INPUT, Node, to_lanes
from workloads.operators.matrix import Conv
from workloads.samples import samples_of
from workloads.walk import walk
from workloads.zoo import embedded_card

CALM = "cell.error_rel=0.001"
N, N_PREDICTED = 160, 40


@cache
def fashion() -> tuple[Network, Samples, Samples]:
    """The embedded network, images to calibrate on, and images to judge."""
    network, samples = load_embedded("fashion_cnn")
    return network, samples[:64], samples[64 : 64 + N]


@cache
def explained(*assignments: str) -> Diagnosis:
    network, calibration, samples = fashion()
    plan = place(network, Accelerator.preset("memse", set=(CALM, *assignments)), calibration=calibration)
    return explain(plan, samples[:N_PREDICTED], seed=3, n_layers=1)


def preprocessed(samples: Samples) -> Preprocessing:
    """Judge inputs by the network's own card."""
    network = fashion()[0]
    return judged(network, samples, samples.y, card=embedded_card(network))


def topics(found: Diagnosis) -> dict[str, Finding]:
    return {finding.topic: finding for finding in found.alarms}


def changed(x: np.ndarray, *, labels: np.ndarray | None = None, with_labels: bool = True) -> Samples:
    """Return the judged images as other numbers."""
    y = fashion()[2].y if labels is None else labels
    return samples_of(np.ascontiguousarray(x, np.float32), y if with_labels else None)


PIXELS = 0.353 * np.asarray(fashion()[2].x)


# nothing planted


def test_a_healthy_design_alarms_nobody() -> None:
    found = explained()
    assert found.alarms == ()
    assert {finding.severity for finding in found.findings} == {"fine"}
    assert found.answer.startswith("Nothing alarming: inputs, converters")
    assert found.tries == ()
    assert found.accuracy_card == 0.9247


def test_a_healthy_design_with_converters_and_levels_alarms_nobody() -> None:
    found = explained("mapping.levels=64", 'sense.adc={kind="uniform",n_bits=9}', 'drive.dac={kind="uniform",n_bits=8}')
    assert found.alarms == ()
    assert topics(found) == {}


def test_a_network_without_a_card_alarms_nobody_either() -> None:
    samples = digits_samples()
    plan = place(digits_network("cnn"), Accelerator.preset("memse", set=(CALM,)), calibration=samples[100:164])
    found = explain(plan, samples[:60], seed=3, n_layers=1)
    assert found.alarms == ()
    assert found.accuracy_card is None
    assert found.tries  # they were tried, and none is better


# the first planted fault: inputs


@pytest.mark.parametrize(
    ("x", "lever"),
    [
        (PIXELS, "Save them with x = p / 0.353, by the card, p = x_now"),
        (np.rint(255 * PIXELS), "Save them with x = p / 0.353, by the card, p = x_now / 255"),
        ((1.0 - PIXELS) / 0.353, "p = 1 - x_now / 2.833"),
        ((PIXELS - 0.5) / 0.5, "Save them with x = p / 0.353, by the card, p = (x_now - -1) / 2"),
        ((PIXELS / 0.353).swapaxes(2, 3), "Save them with rows and columns exchanged"),
    ],
    ids=["not scaled", "pixels", "inverted", "centred", "turned"],
)
def test_wrong_preprocessing_is_found_first_and_what_would_be_right(x: np.ndarray, lever: str) -> None:
    found = preprocessed(changed(x))
    assert (found.findings[0].topic, found.findings[0].severity) == ("preprocessing", "alarm")
    assert "the network's card says 92.5 %" in found.findings[0].what
    assert lever in found.findings[0].lever
    assert found.tries[0].accuracy > 0.85


def test_wrong_preprocessing_is_the_answer_of_the_whole_diagnosis() -> None:
    network = fashion()[0]
    wrong = changed(np.rint(255 * PIXELS))
    found = explain(place(network, Accelerator.preset("memse", set=(CALM,)), calibration=wrong[:64]), wrong, seed=3, n_layers=1)
    assert "clean accuracy is" in found.answer
    assert "x = p / 0.353, by the card, p = x_now / 255" in found.answer
    assert {finding.topic for finding in found.alarms} == {"preprocessing", "inputs"}


def test_labels_of_another_order_are_found() -> None:
    labels = (np.asarray(fashion()[2].y) + 3) % 10
    found = preprocessed(changed(PIXELS / 0.353, labels=labels))
    assert "Save them with labels of another order: 3 -> 0, 4 -> 1" in found.findings[0].lever


def test_labels_that_mean_nothing_are_not_explained_away() -> None:
    """Negative control: no preprocessing and no order makes shuffled labels right."""
    labels = np.random.default_rng(0).permutation(np.asarray(fashion()[2].y))
    found = preprocessed(changed(PIXELS / 0.353, labels=labels))
    assert "Compare preprocessing, class order and channel order with training" in found.findings[0].lever
    assert len(found.findings) == 1


@pytest.mark.parametrize(("x", "said"), [(PIXELS, "by the card they run from 0 to 2.833"), (np.rint(255 * PIXELS), "not normalized")])
def test_inputs_without_labels_are_judged_by_their_looks(x: np.ndarray, said: str) -> None:
    found = preprocessed(changed(x, with_labels=False))
    assert said in found.findings[0].what
    assert found.findings[0].severity == "alarm"
    assert found.tries == ()


def test_colours_in_reverse_order_are_found() -> None:
    """A network that reads the red channel only, on inputs whose colours are reversed."""
    network, x, labels = _red_only()
    reversed_ = judged(network, samples_of(x[:, ::-1]), labels, card=ModelCard(accuracy=1.0))
    assert "channels in reverse order" in reversed_.findings[0].lever
    right = judged(network, samples_of(x), labels, card=ModelCard(accuracy=1.0))
    assert [finding.severity for finding in right.findings] == ["fine"]


def _red_only() -> tuple[Network, np.ndarray, np.ndarray]:
    rng = np.random.default_rng(5)
    labels = rng.integers(0, 6, 120)
    x = rng.random((120, 3, 2, 3)).astype(np.float32)
    x.reshape(120, 3, 6)[np.arange(120), 0, labels] += 2.0
    weights = np.zeros((6, 3, 2, 3), np.float32)
    weights[np.arange(6), 0, np.arange(6) // 3, np.arange(6) % 3] = 1.0
    whole = Conv(weights=weights, bias=None, geometry=ConvGeometry(in_shape=(3, 2, 3), n_out=6, kernel=(2, 3)))
    node = Node(name="fc", operator=whole, inputs=(INPUT,), shape=(6, 1, 1))
    return Network(name="red", digest="r" * 64, input_shape=(3, 2, 3), nodes=(node,), output=0), x, labels


def test_constant_inputs_are_found() -> None:
    found = judged(fashion()[0], changed(np.zeros_like(PIXELS), with_labels=False), None, card=None)
    assert found.findings[0].what == "all inputs are 0"


def test_facts_of_inputs_are_those_of_numpy() -> None:
    x = np.random.default_rng(1).normal(size=(5, 3, 4, 4)).astype(np.float32)
    facts = facts_of(x)
    assert facts.mean == pytest.approx(x.mean(), abs=1e-6)
    assert facts.channel_stds == pytest.approx([x[:, k].std() for k in range(3)], rel=1e-5)


# the second planted fault: a converter range that is too small


def test_a_range_that_is_too_small_is_found_with_what_a_wider_one_buys() -> None:
    found = explained('sense.adc={kind="uniform",n_bits=8,range="fixed",full_scale=0.5}')
    alarm = found.alarms[0]
    assert alarm.topic == "clipping"
    assert "Widen sense.adc" in alarm.lever
    wide = next(remedy for remedy in found.remedies if remedy.what.startswith("converter ranges"))
    network, _, samples = fashion()
    accelerator = Accelerator.preset("memse", set=(CALM, 'sense.adc={kind="uniform",n_bits=8,range="max"}'))
    images = samples[:N_PREDICTED]
    by_hand = predict(place(network, accelerator, calibration=images), images, seed=3, attribution=False)
    assert wide.mse == pytest.approx(by_hand.mse, rel=1e-6)
    assert wide.change_rel < -0.9


def test_clipped_shares_are_counted_as_by_hand() -> None:
    network, calibration, samples = fashion()
    chip = Accelerator.preset("memse", set=(CALM, 'sense.adc={kind="uniform",n_bits=6,range="fixed",full_scale=1.0}'))
    plan = place(network, chip, calibration=calibration)
    layer = plan.layers[0]
    assert layer.path is not None
    x = to_lanes(samples.x[:8])
    z = layer.operator.multiply(ideal_weights(plan).weights[layer.node], x / np.float32(layer.path.x_span))
    z = z / np.float32(np.max(layer.path.w_span))
    step = layer.path.adcs[0].step  # type: ignore[attr-defined]
    dac, adc = clipped_shares(layer, x)
    assert dac is None
    assert adc == pytest.approx(float(np.mean(np.abs(z) > 1.0 + 0.5 * step)), abs=2e-4)
    assert adc > 0.01


# the third planted fault: one layer with huge programming errors


def test_a_layer_with_huge_errors_is_found() -> None:
    found = explained("layers.conv2.cell.error_rel=0.3")
    alarm = found.alarms[0]
    assert alarm.topic == "layers"
    assert alarm.what.startswith("'conv2' alone makes")
    assert '[layers."conv2"]' in alarm.lever
    own = {layer.layer: layer.own_rel for layer in found.layers}
    assert own["conv2"] > 100 * max(value for name, value in own.items() if name != "conv2")
    best = found.remedies[0]
    assert "conv2" in best.what or "all layers" in best.what
    assert best.change_rel < -0.5


def test_quantization_that_is_too_coarse_is_found() -> None:
    found = explained("mapping.levels=3")
    assert "quantization" in topics(found)


def test_the_error_of_the_last_layer_is_monte_carlos() -> None:
    network, calibration, samples = fashion()
    plan = place(network, Accelerator.preset("memse", set=("cell.error_rel=0.01",)), calibration=calibration)
    found = explain(plan, samples[:32], seed=3, n_layers=1)
    trials = monte_carlo(plan, samples[:32], seed=9, rel_error=0.05)
    last = found.layers[-1]
    pooled = float(np.var(walk(network, to_lanes(samples.x[:32]))[network.output], dtype=np.float64))
    spread = trials.mse_chip_sd / np.sqrt(found.n_chips)
    assert abs(last.mse_rel * pooled - trials.mse) < 4.0 * np.hypot(spread, trials.mse_se)


# what is told and kept


def test_a_diagnosis_is_kept_and_told(tmp_path: Path) -> None:
    found = explained("layers.conv2.cell.error_rel=0.3")
    folder = found.save(tmp_path / "run")
    again = load_report(folder)
    assert isinstance(again, Diagnosis)
    assert again.to_json_dict() == found.to_json_dict()
    assert str(again) == str(found)
    page = page_of(folder)
    assert "Why is the accuracy of fashion_cnn what it is here?" in page
    assert 'class="answer alarm"' in page
    assert page.count("<svg") == 2


def test_the_command_line_takes_a_card(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    samples = digits_samples()
    np.savez(tmp_path / "x.npz", x=samples.x[:64], y=samples.y[:64])
    (tmp_path / "card.toml").write_text("accuracy = 0.999\nmean = 0.0\nstd = 0.01\n")
    net = str(Path(__file__).parent / "fixtures" / "digits_mlp.onnx")
    command = ["explain", net, "--inputs", str(tmp_path / "x.npz"), "--seed", "1", "--set", CALM, "--json"]
    assert main([*command, "--card", str(tmp_path / "card.toml")]) == 0
    record = json.loads(capsys.readouterr().out)
    assert record["kind"] == "explain"
    assert record["accuracy_card"] == 0.999
    assert any("normalized by the card they run from 0 to 100" in finding["what"] for finding in record["findings"])
    (tmp_path / "card.toml").write_text("accuracy = 92.47\n")
    assert main([*command, "--card", str(tmp_path / "card.toml")]) == 2
    assert "accuracy: 92.47: need a share" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("acuracy = 0.9", "acuracy: unknown; a card has accuracy, mean, std"),
        ('mean = "no"', "mean: 'no': need a number"),
        ("mean = [0.1, 0.2]", "need as many of each, got 2 and 0"),
        ("mean = 0\nstd = 0", "standard deviations above 0"),
        ("mean = nan\nstd = 1", "need finite means"),
    ],
)
def test_a_bad_card_is_refused(tmp_path: Path, text: str, said: str) -> None:
    (tmp_path / "card.toml").write_text(text)
    with pytest.raises(SpecError, match=said):
        ModelCard.from_toml(tmp_path / "card.toml")


def test_a_card_of_other_channels_is_refused() -> None:
    network, calibration, samples = fashion()
    plan = place(network, Accelerator.preset("memse"), calibration=calibration)
    with pytest.raises(SpecError, match="mean has 3 values, and inputs have 1 channels"):
        explain(plan, samples, seed=1, card=ModelCard(mean=(0.1, 0.2, 0.3), std=(1.0, 1.0, 1.0)))


def test_embedded_networks_have_a_card_whatever_their_name() -> None:
    card = embedded_card(fashion()[0])
    assert card == ModelCard(accuracy=0.9247, mean=(0.0,), std=(0.353,))
    assert embedded_card(digits_network("cnn")) is None
    assert card.limits == pytest.approx((0.0, 1 / 0.353))
