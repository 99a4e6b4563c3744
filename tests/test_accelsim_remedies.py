"""remedies(): what each remedy buys is what predicting the mended design says, by hand."""

import json

import pytest

from accelsim.accelerator import Accelerator
from accelsim.cli import main
from accelsim.placement import place
from accelsim.prediction.predict import predict
from accelsim.prediction.remedies import Remedy, remedies
from devices.cells import PROGRAMMING_LAWS
from devices.read_noise import READ_LAWS
from tests.digits import digits_network, digits_samples, judged

SPEC = ("cell.error_rel=0.05", "mapping.levels=16", "cell.read_noise.kind=state_independent", "cell.read_noise.error_rel=0.04")


def remedies_of(*assignments: str, name: str = "cnn") -> dict[str, Remedy]:
    network = digits_network(name)
    plan = place(network, Accelerator.preset("memse", set=assignments), calibration=digits_samples())
    return {r.what: r for r in remedies(plan, judged(), predict(plan, judged(), seed=4))}


def mse_with(*assignments: str) -> float:
    plan = place(digits_network("cnn"), Accelerator.preset("memse", set=assignments), calibration=digits_samples())
    return predict(plan, judged(), seed=4, attribution=False).mse


def test_each_remedy_is_the_prediction_of_the_mended_spec() -> None:
    found = remedies_of("cell.programming.error_rel=0.05", *SPEC[1:])
    noise = SPEC[2:]
    by_hand = {
        "half the programming error, all layers": mse_with("cell.programming.error_rel=0.025", SPEC[1], *noise),
        "half the read noise, all layers": mse_with("cell.programming.error_rel=0.05", SPEC[1], noise[0], "cell.read_noise.error_rel=0.02"),
        "twice the levels, all layers": mse_with("cell.programming.error_rel=0.05", "mapping.levels=32", *noise),
        "mapping.precompensate = true": mse_with("cell.programming.error_rel=0.05", SPEC[1], "mapping.precompensate=true", *noise),
    }
    for what, mse in by_hand.items():
        assert found[what].mse == pytest.approx(mse, rel=1e-6), what
    assert [r.mse for r in found.values()] == sorted(r.mse for r in found.values())


def test_one_layer_alone_is_mended_by_its_override() -> None:
    found = remedies_of("cell.error_rel=0.03")
    for name in ("conv1", "fc1"):
        what = f"half the errors of {name!r} alone"
        if what in found:
            expected = mse_with("cell.error_rel=0.03", f"layers.{name}.cell.error_rel=0.015")
            assert found[what].mse == pytest.approx(expected, rel=1e-6)
            break
    else:
        pytest.fail(f"no layer among {list(found)}")


def test_only_what_is_there_is_mended() -> None:
    found = remedies_of("cell.error_rel=0.01", "cell.clip=false")
    assert "half the programming error, all layers" in found
    assert not any("read noise" in what or "levels" in what or "precompensate" in what for what in found)


@pytest.mark.parametrize("kind", [*PROGRAMMING_LAWS, *(f"read {kind}" for kind in READ_LAWS)])
def test_half_a_law_has_half_the_deviation(kind: str) -> None:
    import numpy as np

    made = {"error_rel": 0.02, "coefficients_siemens": (1e-6, 2e-6), "over_siemens": 25e-6, "points_siemens": (0.0, 1e-5),
            "stds_siemens": (1e-6, 2e-6), "top_siemens": 1e-6, "knee_siemens": 5e-6,
            "means_rel": (0.0, 1.0), "stds_rel": (0.01, 0.02)}  # fmt: skip
    states = np.array([1e-6, 1e-5, 2.5e-5])
    if kind.startswith("read "):
        read_type = READ_LAWS[kind.removeprefix("read ")]
        read = read_type(**{n: v for n, v in made.items() if n in read_type.__dataclass_fields__})  # type: ignore[attr-defined]
        half = read.scaled(0.5)
        np.testing.assert_allclose(half.variance_siemens2(states, 25e-6), 0.25 * read.variance_siemens2(states, 25e-6))
        return
    law_type = PROGRAMMING_LAWS[kind]
    law = law_type(**{n: v for n, v in made.items() if n in law_type.__dataclass_fields__})  # type: ignore[attr-defined]
    np.testing.assert_allclose(law.scaled(0.5).std_siemens(states, 25e-6), 0.5 * np.asarray(law.std_siemens(states, 25e-6)))


def test_the_command_prints_and_answers(capsys: pytest.CaptureFixture[str]) -> None:
    command = ["predict", "fashion_cnn", "--seed", "1", "--explain", "--set", "cell.error_rel=0.02"]
    assert main(command) == 0
    assert "what would help" in capsys.readouterr().out
    assert main([*command, "--json"]) == 0
    record = json.loads(capsys.readouterr().out)
    assert {"what", "mse", "change_rel", "accuracy_predicted", "valid"} == set(record["explain"][0])
    assert min(r["change_rel"] for r in record["explain"]) < -0.5
