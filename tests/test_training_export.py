"""What training writes: the network and its memory, read back by the rest of the package."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from test_training_run import SEED, blobs, recipe_for

from accelsim import Accelerator, load_onnx, monte_carlo, place, simulate
from accelsim.cli import main
from accelsim.stored_weights import WordSite
from accelsim.training.recipe import Lanmax, Recipe, Reliable, Schedule, Uniform, recipe_toml
from devices.memory_faults import PersistentFlips, TransientFlips
from devices.reliability import Exponential, Sram14nm
from devices.word_format import WordFormat
from workloads.samples import samples_of
from workloads.walk import evaluate

torch = pytest.importorskip("torch", reason="needs the extra `train`: pip install -e '.[test,train]'")
pytestmark = pytest.mark.extras

import accelsim.training.tested as draws  # noqa: E402
from accelsim.training.export import onnx_model, profile_toml  # noqa: E402
from accelsim.training.run import train  # noqa: E402
from accelsim.training.trainer import Trainer  # noqa: E402

WORDS = (
    WordFormat(coding="binary", n_bits=1), WordFormat(coding="ternary", n_bits=2), WordFormat(coding="twos_complement", n_bits=4),
    WordFormat(coding="sign_magnitude", n_bits=3),
)  # fmt: skip
SHORT = Schedule(n_epochs=3, batch_size=30, shift_pixels=0, mirror=False)


def trained(word: WordFormat, tmp_path: Path, **changes: Any) -> tuple[Trainer, Path, Path]:
    """Train, write both files, and return them."""
    method = Lanmax(energy_budget_rel=0.6)
    recipe = recipe_for(method, word=word, layers="conv 6 k3, pool 2, conv 8 k3 s2, dense 24", schedule=SHORT, **changes)
    trainer = train(recipe, blobs(), seed=SEED)
    paths = tmp_path / "network.onnx", tmp_path / "profile.toml"
    onnx.save_model(onnx_model(trainer.network, name="made"), str(paths[0]))
    paths[1].write_text(profile_toml(recipe, trainer.rates, trainer.network, name="made"))
    return trainer, *paths


@pytest.mark.parametrize("word", WORDS, ids=lambda word: word.coding)
def test_the_exported_network_computes_the_same_and_the_profile_stores_the_same_words(word: WordFormat, tmp_path: Path) -> None:
    trainer, network_path, profile_path = trained(word, tmp_path, per="bit" if word.n_bits > 2 else "layer")
    data = blobs()
    network = load_onnx(network_path)
    trainer.network.read_right()
    wanted = draws.logits_of(trainer.network, data.test.x)
    assert np.abs(evaluate(network, data.test.x) - wanted).max() <= 1e-5 * np.abs(wanted).max()
    plan = place(network, Accelerator.from_toml(profile_path), calibration=samples_of(data.train.x))
    assert [layer.name for layer in plan.layers] == [layer.name for layer in trainer.network.stored]
    for layer, mine, p in zip(plan.layers, trainer.network.stored, trainer.rates.p):
        site = layer.site
        assert isinstance(site, WordSite)
        numbers = np.asarray(site.memory.word.decode(site.words)).reshape(mine.numbers().shape)
        sign = np.sign((numbers * mine.numbers()).reshape(len(numbers), -1).sum(axis=1)).reshape(-1, *(1,) * (numbers.ndim - 1))
        assert np.array_equal(numbers, sign * mine.numbers())  # a negative factor of the batch norm turns a channel
        assert np.allclose(site.memory.error_rates, p, rtol=1e-12)
        assert np.allclose(site.ideal_weights(), site.values, rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize("faults", [TransientFlips(), PersistentFlips()], ids=lambda faults: faults.kind)
def test_monte_carlo_of_the_profile_has_the_accuracy_that_training_tested(faults: Any, tmp_path: Path) -> None:
    """The same network, memory and images, other code and other draws: the mean accuracies agree, and those at half the rates do not."""
    trainer, network_path, profile_path = trained(WORDS[0], tmp_path, faults=faults)
    trainer.rates.moved_to(0.3)  # many wrong bits, so that accuracy tells rates apart
    profile_path.write_text(profile_toml(trainer.recipe, trainer.rates, trainer.network, name="made"))
    data, p, n = blobs(), trainer.rates.p, 300
    mine = {q: draws.tested(trainer.network, data.test, p=q * p, mean=0.0, std=1.0, n_draws=n, seed=5) for q in (1.0, 0.5)}
    plan = place(load_onnx(network_path), Accelerator.from_toml(profile_path), calibration=samples_of(data.train.x))
    trials = monte_carlo(plan, samples_of(data.test.x, data.test.y), seed=6, rel_error=1e-3, max_trials=n)
    found = trials.accuracy
    error = mine[1.0].std / np.sqrt(n) * np.sqrt(2.0)
    assert abs(found - mine[1.0].mean) < 4.0 * error
    assert abs(found - mine[0.5].mean) > 4.0 * error


def test_an_asymmetric_memory_stores_channels_as_they_were_trained(tmp_path: Path) -> None:
    trainer, network_path, profile_path = trained(WORDS[2], tmp_path, faults=TransientFlips(to_one_share=0.9))
    plan = place(load_onnx(network_path), Accelerator.from_toml(profile_path), calibration=samples_of(blobs().train.x))
    for layer, mine in zip(plan.layers, trainer.network.stored):
        assert isinstance(layer.site, WordSite)
        assert np.array_equal(np.asarray(layer.site.words).ravel(), mine.stored_words())


@pytest.mark.parametrize("word", [WORDS[0], WORDS[2]], ids=lambda word: word.coding)
@pytest.mark.parametrize("reads", ["once", "positions"])
def test_a_profile_is_evaluated_as_it_comes_with_the_energy_that_training_counted(word: WordFormat, reads: Any, tmp_path: Path) -> None:
    """Energy of the memory: reads, bits and eta as training weighs them, times what a bit takes at the law's energy 1."""
    trainer, network_path, profile_path = trained(word, tmp_path, reads=reads, faults=PersistentFlips())
    network, samples = load_onnx(network_path), samples_of(blobs().test.x[:8])
    taken = {}
    for budget in (0.6, 0.3):
        trainer.rates.moved_to(budget)
        profile_path.write_text(profile_toml(trainer.recipe, trainer.rates, trainer.network, name="made"))
        plan = place(network, Accelerator.from_toml(profile_path), calibration=samples)
        report = simulate(plan, samples=samples)
        taken[budget] = report.energy_by_component["memory_weights"]
        times = [layer.operator.n_positions if reads == "positions" else 1 for layer in plan.layers]
        bits = sum(n * layer.operator.weights.size for n, layer in zip(times, plan.layers)) * word.n_bits
        assert taken[budget] == pytest.approx(budget * bits * 0.23375e-12, rel=1e-6)
        assert report.energy_j > taken[budget]
    assert taken[0.6] == pytest.approx(2.0 * taken[0.3], rel=1e-6)


# the command line


def written(tmp_path: Path, recipe: Recipe) -> tuple[str, str]:
    (tmp_path / "r.toml").write_text(recipe_toml(recipe))
    data = blobs()
    x, y = np.concatenate([data.train.x, data.test.x]), np.concatenate([data.train.y, data.test.y])
    np.savez(tmp_path / "d.npz", x=x, y=y)
    return str(tmp_path / "r.toml"), str(tmp_path / "d.npz")


def test_the_command_writes_a_folder_that_the_other_commands_read(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    recipe, data = written(tmp_path, recipe_for(Lanmax(energy_budget_rel=0.5), schedule=SHORT))
    out = tmp_path / "run"
    assert main(["train", "--recipe", recipe, "--data", data, "--seed", "3", "--out", str(out), "--json"]) == 0
    record = json.loads(capsys.readouterr().out)
    assert record["energy_rel"] == pytest.approx(0.5)
    assert record == json.loads((out / "report.json").read_text())
    assert [path.name for path in sorted(out.iterdir())] == [
        "checkpoint.pt", "command.json", "history.csv", "network.onnx", "profile.toml", "recipe.toml", "report.json", "test.npz"
    ]  # fmt: skip
    network, profile, images = (str(out / name) for name in ("network.onnx", "profile.toml", "test.npz"))
    assert main(["predict", network, "--spec", profile, "--inputs", images, "--seed", "1", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["accuracy_predicted"] == pytest.approx(record["accuracy"], abs=0.1)
    assert main(["evaluate", network, "--spec", profile, "--inputs", images, "--seed", "1", "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["latency_s"] > 0.0
    assert told["energy_by_component"]["memory_weights"] > 0.0
    assert told["area_m2"] > 0.0
    assert main(["train", "--recipe", recipe, "--data", data, "--seed", "3", "--out", str(out)]) == 2
    assert "holds a finished training" in capsys.readouterr().err


def test_two_runs_of_the_command_write_the_same_network(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    recipe, data = written(tmp_path, recipe_for(Uniform(error_rate_p=0.02), schedule=SHORT))
    for name in ("a", "b"):
        assert main(["train", "--recipe", recipe, "--data", data, "--seed", "3", "--out", str(tmp_path / name)]) == 0
    for file in ("network.onnx", "profile.toml", "report.json", "test.npz"):
        assert (tmp_path / "a" / file).read_bytes() == (tmp_path / "b" / file).read_bytes()
    assert main(["train", "--recipe", recipe, "--data", data, "--seed", "3", "--start", str(tmp_path / "a")]) == 0
    assert "--out DIR keeps the network" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [(["--data", "nowhere.npz"], "no samples file 'nowhere.npz'"), (["--recipe", "nothing"], "recipes that come along: fashion_lanmax"),
     (["--start", "nowhere"], "not a checkpoint of a training"), (["--out", "taken"], "holds other things")],
)  # fmt: skip
def test_what_cannot_be_trained_is_told_in_a_line(
    arguments: list[str], message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    recipe, data = written(tmp_path, recipe_for(Reliable(), schedule=SHORT))
    monkeypatch.chdir(tmp_path)
    (tmp_path / "taken").mkdir()
    (tmp_path / "taken" / "thesis.txt").write_text("mine")
    chosen = {"--recipe": recipe, "--data": data, "--seed": "1"} | dict([arguments])  # type: ignore[list-item]
    assert main(["train", *(part for pair in chosen.items() for part in pair)]) == 2
    told = capsys.readouterr().err
    assert message in told
    assert "Traceback" not in told


def test_without_pytorch_the_command_says_what_to_install(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    import sys

    recipe, data = written(tmp_path, replace(recipe_for(Reliable()), law=Sram14nm()))
    monkeypatch.setitem(sys.modules, "torch", None)
    assert main(["train", "--recipe", recipe, "--data", data, "--seed", "1"]) == 2
    assert "training needs PyTorch, which is not installed: pip install 'accelsim[train]'" in capsys.readouterr().err


def test_the_profile_is_a_spec_that_says_its_law(tmp_path: Path) -> None:
    _, _, profile = trained(WORDS[2], tmp_path, law=Sram14nm(), per="bit")
    spec = Accelerator.from_toml(profile)
    assert spec.memory is not None
    assert spec.memory.weights is not None
    assert spec.memory.weights.law == Sram14nm()
    assert Exponential() != spec.memory.weights.law
