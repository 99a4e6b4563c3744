"""predict(): what it answers, of which output, against which reference, by which method."""

from dataclasses import replace

import numpy as np
import pytest
from scipy.stats import norm

from accelsim.placement import Plan
from accelsim.prediction.accuracy import corrected_accuracy, predicted_accuracy
from accelsim.prediction.covariance import full_covariance
from accelsim.prediction.predict import predict
from accelsim.prediction.sketched import sketch
from accelsim.response.linear import respond
from accelsim.sampling.monte_carlo import monte_carlo
from devices.base.errors import MemoryLimitError, NetworkError, SpecError, UnsupportedMethodError
from tests.digits import digits_plan, judged, wanted_outputs
from workloads.network import Network, Node
from workloads.operators.base import Array
from workloads.operators.normalization import Softmax
from workloads.walk import evaluate

READ_NOISE = ("cell.read_noise.kind=state_independent", "cell.read_noise.error_rel=0.03")
EVERYTHING = (*READ_NOISE, "mapping.levels=32", "mapping.bias=device")


@pytest.mark.parametrize("reference", ["float", "quantized"])
@pytest.mark.parametrize("method", ["adjoint", "sketched", "corrected"])
def test_the_parts_sum_to_the_whole(method: str, reference: str) -> None:
    found = predict(digits_plan("cnn", *EVERYTHING), judged(), seed=3, method=method, reference=reference)  # type: ignore[arg-type]
    assert found.bias2 + found.variance == pytest.approx(found.mse, rel=1e-12)
    assert sum(found.by_layer.values()) == pytest.approx(found.mse, rel=1e-12)
    assert sum(found.by_cause.values()) == pytest.approx(found.mse, rel=1e-12)
    assert set(found.by_layer) == {"conv1", "conv2", "fc1", "interaction"}
    assert set(found.by_cause) == {"programming", "quantization", "read_noise", "interaction"}
    if found.by_output is not None:
        assert found.by_output.mean() == pytest.approx(found.mse, rel=1e-9)


def test_to_first_order_and_without_bias_there_is_no_interaction() -> None:
    found = predict(digits_plan("cnn", error_rel=0.01, clip=False), judged(), seed=3, method="adjoint")
    assert abs(found.by_layer["interaction"]) < 1e-4 * found.mse
    assert found.bias2 < 1e-9 * found.mse


def with_softmax(plan: Plan) -> Plan:
    def extended(graph: Network) -> Network:
        last = graph.nodes[graph.output]
        node = Node(name="softmax", operator=Softmax((0,)), inputs=(graph.output,), shape=last.shape)
        return replace(graph, nodes=(*graph.nodes, node), output=len(graph.nodes))

    return replace(plan, network=extended(plan.network), graph=extended(plan.graph))


def test_a_trailing_softmax_is_read_past_unless_it_is_asked_for() -> None:
    plain, ended = digits_plan("cnn"), with_softmax(digits_plan("cnn"))
    expected = predict(plain, judged(), seed=3, method="adjoint")
    found = predict(ended, judged(), seed=3, method="adjoint")
    assert found.provenance.output == expected.provenance.output == "fc1"
    assert found.mse == expected.mse
    chances = predict(ended, judged(), seed=3, method="adjoint", output="softmax")
    assert chances.provenance.output == "softmax"
    assert chances.mse < 1.0 < found.mse
    sampled = monte_carlo(ended, judged(), seed=3, max_trials=200, output="softmax")
    assert sampled.mse < 1.0


def test_the_output_may_be_any_node() -> None:
    inner = predict(digits_plan("cnn", error_rel=0.01), judged(), seed=3, method="sketched", output="conv1")
    sampled = monte_carlo(digits_plan("cnn", error_rel=0.01), judged(), seed=3, rel_error=0.02, output="conv1", max_trials=2_000)
    assert inner.provenance.output == "conv1"
    assert abs(inner.mse - sampled.mse) < 4 * np.hypot(sampled.mse_se, inner.mse_se)
    with pytest.raises(NetworkError, match="no node 'conv9'"):
        predict(digits_plan("cnn"), judged(), seed=3, output="conv9")


def test_against_the_quantized_network_quantization_is_no_error() -> None:
    plan = digits_plan("cnn", "mapping.levels=8", error_rel=1e-5)
    against_float = predict(plan, judged(), seed=3, method="adjoint")
    against_itself = predict(plan, judged(), seed=3, method="adjoint", reference="quantized")
    exact = np.mean((plan_outputs(plan) - evaluate(plan.network, judged().x)) ** 2)
    assert against_float.mse == pytest.approx(float(exact), rel=1e-3)
    assert against_float.by_cause["quantization"] == pytest.approx(float(exact), rel=1e-5)
    assert against_itself.mse < 1e-3 * against_float.mse
    assert against_itself.by_cause["quantization"] == 0.0


def plan_outputs(plan: Plan) -> np.ndarray:
    """Return the outputs of the network with rounded weights, by the network's own forward pass."""
    nodes = list(plan.network.nodes)
    for layer in plan.layers:
        largest = np.abs(layer.operator.weights).max()
        step = largest / 7.0
        rounded = (np.rint(layer.operator.weights / step) * step).astype(np.float32)
        i = plan.network.index(layer.name)
        nodes[i] = replace(nodes[i], operator=replace(nodes[i].operator, weights=rounded))  # type: ignore[type-var]
    return evaluate(replace(plan.network, nodes=tuple(nodes)), judged().x)


def test_random_probes_agree_with_carrying_every_output() -> None:
    """z of the total against its own standard error; and the error is of the size it says, over twelve seeds."""
    plan = digits_plan("cnn")
    exact = respond(plan, plan.graph, judged(), seed=1)
    found = [respond(plan, plan.graph, judged(), seed=s, n_probes=8) for s in range(12)]
    z = np.array([(r.variance - exact.variance) / r.variance_se for r in found])
    assert exact.n_probes == 0
    assert found[0].n_probes == 8
    assert np.abs(z).max() < 4
    assert 0.4 < z.std() < 2.0
    assert abs(z.mean()) < 4 / np.sqrt(12)
    shares = {n: np.mean([r.layers[n].programming for r in found]) for n in exact.layers}
    for name, share in shares.items():
        assert share == pytest.approx(exact.layers[name].programming, rel=0.1)


@pytest.mark.parametrize("settings", [READ_NOISE, ("mapping.bias=device",), EVERYTHING, ("mapping.precompensate=true",)],
                         ids=["read_noise", "device_bias", "everything", "precompensated"])
@pytest.mark.parametrize("method", ["adjoint", "sketched"])
def test_what_is_predicted_is_what_is_sampled(method: str, settings: tuple[str, ...]) -> None:
    """At small noise, where first order holds to 1 %, plus four standard errors."""
    plan = digits_plan("cnn", *settings, error_rel=0.005)
    found = predict(plan, judged(), seed=3, method=method)  # type: ignore[arg-type]
    sampled = monte_carlo(plan, judged(), seed=4, rel_error=0.02, max_trials=4_000)
    assert abs(found.mse / sampled.mse - 1.0) < 0.01 + 4 * np.hypot(sampled.mse_se, found.mse_se) / sampled.mse


def test_read_noise_and_device_biases_are_not_nothing() -> None:
    """The negative control of the comparison above: without them the prediction is another one."""

    def variance(*settings: str) -> float:
        return predict(digits_plan("cnn", *settings, error_rel=0.005, clip=False), judged(), seed=3, method="adjoint").variance

    assert variance(*READ_NOISE) > 1.1 * variance()
    response = respond(plan := digits_plan("cnn", "mapping.bias=device", error_rel=0.005, clip=False), plan.graph, judged(), seed=1)
    assert response.variance > variance() * 1.0001
    assert all(np.any(layer.bias_power > 0.0) for layer in response.layers.values())


@pytest.mark.parametrize("method", ["adjoint", "sketched"])
def test_every_cause_enters_the_covariance_of_the_outputs(method: str) -> None:
    """Its diagonal is the variance of each output, with read noise and device biases too: the predicted accuracy stands on it."""
    plan = digits_plan("cnn", *EVERYTHING)
    wanted = wanted_outputs(plan, judged())
    found = respond(plan, plan.graph, judged(), seed=1) if method == "adjoint" else sketch(plan, plan.graph, judged(), wanted, seed=1)
    assert found.covariance is not None
    by_image = np.trace(found.covariance, axis1=1, axis2=2) / plan.n_out
    np.testing.assert_allclose(by_image, found.variance_by_image, rtol=1e-4)


def test_a_memory_limit_is_kept_by_refusing() -> None:
    with pytest.raises(MemoryLimitError, match="above the limit of"):
        predict(digits_plan("cnn"), judged(), seed=3, memory_limit_bytes=10_000)


def test_a_method_without_a_rule_refuses_and_the_others_answer() -> None:
    plan = digits_plan("cnn", *READ_NOISE, error_rel=0.01)
    with pytest.raises(UnsupportedMethodError, match="no rule for read noise; use adjoint, sketched or corrected"):
        predict(plan, judged(), seed=3, method="covariance")
    assert predict(plan, judged(), seed=3, method="auto").method in ("adjoint", "sketched", "corrected")


@pytest.mark.parametrize(
    ("wrong", "message"), [({"method": "exact"}, "method: 'exact': need auto"), ({"tol_rel": 0.0}, "need 0 < tol_rel < 1")]
)
def test_questions_that_make_no_sense_are_refused(wrong: dict, message: str) -> None:  # type: ignore[type-arg]
    with pytest.raises(SpecError, match=message):
        predict(digits_plan("mlp"), judged(), seed=3, **wrong)


def test_the_same_seed_gives_the_same_bits() -> None:
    for method in ("adjoint", "sketched", "covariance", "corrected"):
        one, other = (predict(digits_plan("mlp"), judged(), seed=3, method=method, attribution=False) for _ in range(2))  # type: ignore[arg-type]
        assert one.mse == other.mse
        assert one.rel_error_estimate == other.rel_error_estimate


def test_first_order_covariances_are_those_of_full_covariance_without_noise() -> None:
    """Not only their trace: every pair of outputs of every image, in the Frobenius norm."""
    plan = digits_plan("cnn", error_rel=1e-4, clip=False)
    linear = respond(plan, plan.graph, judged(), seed=1).covariance
    _, matrices = full_covariance(plan, plan.graph, judged())
    assert linear is not None
    assert np.linalg.norm(linear - matrices) < 1e-3 * np.linalg.norm(matrices)


def made_outputs(n_images: int, *, tails: bool, seed: int) -> tuple[Array, Array, tuple[Array, ...], Array, float]:
    """Return means, covariances, twelve samples an image in chunks of ten, labels, and the exact accuracy.

    With `tails` the noise of a sample is 1/2 or sqrt(7/4) times as strong: the same covariance, other tails.
    """
    random = np.random.default_rng(seed)
    mean, labels = random.standard_normal((n_images, 2)), random.integers(0, 2, n_images)
    scales = np.array([0.5, np.sqrt(1.75)]) if tails else np.ones(2)
    covariance = np.broadcast_to(np.eye(2), (n_images, 2, 2))
    size = (12, n_images, 2)
    strength = scales[random.integers(0, 2, size[:2])][..., None]
    samples = (mean + strength * random.standard_normal(size)).astype(np.float32)
    margin = (mean[np.arange(n_images), labels] - mean[np.arange(n_images), 1 - labels]) / np.sqrt(2.0)
    exact = float(np.mean([norm.cdf(margin / s) for s in scales]))
    return mean, covariance, tuple(samples[:, i : i + 10] for i in range(0, n_images, 10)), labels, exact


def test_samples_correct_the_accuracy_where_outputs_are_not_gaussian() -> None:
    """Many images, all right more often than a Gaussian says: the Gaussian answer is off (the control), the corrected one is not."""
    mean, covariance, samples, *_ = made_outputs(5_000, tails=True, seed=1)
    labels = mean.argmax(axis=1)  # all right but for the noise: tails matter
    margin = np.abs(mean[:, 0] - mean[:, 1]) / np.sqrt(2.0)
    exact = float(np.mean([norm.cdf(margin / s) for s in (0.5, np.sqrt(1.75))]))
    gaussian = predicted_accuracy(mean, covariance, labels, seed=1)
    corrected = corrected_accuracy(mean, covariance, samples, labels, seed=1)
    assert abs(gaussian - exact) > 0.01
    assert abs(corrected - exact) < 0.005


def test_few_samples_do_not_disturb_a_gaussian_answer() -> None:
    """Gaussian outputs of thirty images, forty times: the corrected answer scatters less than the samples alone."""
    off, alone = [], []
    for seed in range(40):
        mean, covariance, samples, labels, exact = made_outputs(30, tails=False, seed=seed)
        off.append(corrected_accuracy(mean, covariance, samples, labels, seed=1) - exact)
        right = np.concatenate([s.argmax(axis=2) for s in samples], axis=1) == labels
        alone.append(right.mean() - exact)
    assert np.std(off) < 0.8 * np.std(alone)


def test_the_accuracy_is_not_first_orders_where_noise_is_strong() -> None:
    """First order is good enough for the MSE at a tolerance of 90 %; with labels another method answers, without it stays."""
    plan = digits_plan("cnn", error_rel=0.1)
    with_labels = predict(plan, judged(), seed=1, tol_rel=0.9)
    without = predict(plan, replace(judged(), y=None), seed=1, tol_rel=0.9)
    assert with_labels.mse_rel > 0.03
    assert without.method == "adjoint"
    assert with_labels.method == "sketched"
    assert "but not for the accuracy" in with_labels.reason
