"""Training itself: the same bits for the same seed, whatever interrupts it; faults as promised; budgets held."""

import os
import pickle
import re
import signal
import subprocess
import sys
import time
import zipfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from accelsim.training.data import Data, Images
from accelsim.training.recipe import ClosedForm, Evaluation, Lanmax, Method, RandomBitErrors, Recipe, Reliable, Schedule, Uniform
from devices.base.errors import RunFolderError, SpecError
from devices.memory_faults import MemoryFaults, PersistentFlips, TransientFlips, WeakColumns
from devices.reliability import Exponential, Sram14nm
from devices.word_format import WordFormat

torch = pytest.importorskip("torch", reason="needs the extra `train`: pip install -e '.[test,train]'")
pytestmark = pytest.mark.extras

import accelsim.training.tested as draws  # noqa: E402
from accelsim.training.run import Progress, augmented, batch_of, train, trainer_of  # noqa: E402
from accelsim.training.stored import Drawing, Storage, StoredLayer  # noqa: E402
from accelsim.training.trainer import Trainer  # noqa: E402

BINARY = WordFormat(coding="binary", n_bits=1)
SEED = 11


@pytest.fixture(autouse=True)
def _one_thread() -> None:
    torch.set_num_threads(1)


def blobs(n: int = 360, *, seed: int = 5) -> Data:
    """Four classes of 8 x 8 images, each a pattern under noise."""
    patterns = np.random.default_rng(99).normal(size=(4, 1, 8, 8))
    random = np.random.default_rng(seed)
    y = random.integers(0, 4, n)
    x = (patterns[y] + 1.2 * random.normal(size=(n, 1, 8, 8))).astype(np.float32)
    return Data(train=Images(x=x[: n * 2 // 3], y=y[: n * 2 // 3]), test=Images(x=x[n * 2 // 3 :], y=y[n * 2 // 3 :]))


def recipe_for(method: Method, **changes: Any) -> Recipe:
    made = Recipe(
        layers="conv 6 k3 s2, dense 24", word=BINARY, law=Exponential(), faults=TransientFlips(), method=method,
        schedule=Schedule(n_epochs=3, batch_size=30, shift_pixels=1, mirror=False), evaluation=Evaluation(n_draws=5),
    )  # fmt: skip
    return replace(made, **changes)


LANMAX = recipe_for(Lanmax(energy_budget_rel=0.4))


def bits_of(trainer: Trainer) -> bytes:
    """Everything that training made, as bytes."""
    tensors = [t.numpy().tobytes() for t in trainer.network.state_dict().values()]
    return b"".join([*tensors, trainer.rates.p.tobytes(), np.float64(trainer.multiplier).tobytes(), np.float64(trainer.loss).tobytes()])


class Stop(Exception):
    """Interrupts training."""


def stop_at(step: int):
    def tell(news: Progress) -> None:
        if news.step == step:
            raise Stop

    return tell


METHODS = [
    LANMAX, recipe_for(Lanmax(energy_budget_rel=0.4, n_domains=2)), recipe_for(Lanmax(accuracy_budget=0.6)),
    recipe_for(RandomBitErrors(error_rate_p=0.02, start_loss=1.2)),
    recipe_for(Uniform(error_rate_p=0.02), faults=PersistentFlips(), n_chips=3),
]  # fmt: skip


@pytest.mark.parametrize("recipe", METHODS, ids=lambda r: f"{r.method.kind}-{r.faults.kind}")
def test_an_interrupted_training_that_goes_on_ends_with_the_same_bits(recipe: Recipe, tmp_path: Path) -> None:
    data = blobs()
    whole = bits_of(train(recipe, data, seed=SEED))
    path = tmp_path / "a.pt"
    for step in (5, 13):
        with pytest.raises(Stop):
            train(recipe, data, seed=SEED, checkpoint=path, checkpoint_every_s=0.0, progress=stop_at(step))
    assert bits_of(train(recipe, data, seed=SEED, checkpoint=path)) == whole


def test_the_same_seed_gives_the_same_bits_and_another_gives_others() -> None:
    first, again, other = (bits_of(train(LANMAX, blobs(), seed=seed)) for seed in (SEED, SEED, SEED + 1))
    assert first == again != other


def test_a_killed_training_goes_on(tmp_path: Path) -> None:
    """kill -9 in the middle: what is on disk is whole, and leads to the bits of a training that nobody killed."""
    code = (
        "import sys; sys.path.insert(0, sys.argv[1]); import test_training_run as t; from pathlib import Path; t.torch.set_num_threads(1);"
        "t.train(t.LANMAX, t.blobs(), seed=t.SEED, checkpoint=Path(sys.argv[2]), checkpoint_every_s=0.0,"
        "progress=lambda news: t.time.sleep(0.02))"
    )
    path = tmp_path / "a.pt"
    running = subprocess.Popen([sys.executable, "-c", code, str(Path(__file__).parent), str(path)], cwd=Path(__file__).parents[1])
    until = time.monotonic() + 120.0
    while not path.exists() and time.monotonic() < until:
        time.sleep(0.05)
    time.sleep(0.1)
    os.kill(running.pid, signal.SIGKILL)
    running.wait()
    assert path.exists()
    assert bits_of(train(LANMAX, blobs(), seed=SEED, checkpoint=path)) == bits_of(train(LANMAX, blobs(), seed=SEED))


def test_a_checkpoint_of_another_question_is_refused(tmp_path: Path) -> None:
    path, short = tmp_path / "a.pt", recipe_for(Reliable(), schedule=Schedule(n_epochs=1, batch_size=64, shift_pixels=0))
    train(short, blobs(), seed=SEED, checkpoint=path)
    for recipe, data, seed in ((LANMAX, blobs(), SEED), (short, blobs(seed=6), SEED), (short, blobs(), SEED + 1)):
        with pytest.raises(RunFolderError, match="another recipe, seed or other data"):
            train(recipe, data, seed=seed, checkpoint=path)
    path.write_bytes(path.read_bytes()[:1000])
    with pytest.raises(RunFolderError, match="not a checkpoint"):
        train(short, blobs(), seed=SEED, checkpoint=path)


class Code:
    """A pickle that runs code."""

    def __reduce__(self) -> Any:
        return os.mkdir, ("EXECUTED",)


SHORT = recipe_for(Reliable(), schedule=Schedule(n_epochs=1, batch_size=64, shift_pixels=0))


def _changed(state: dict[str, Any], path: tuple[Any, ...], value: Any) -> None:
    for name in path[:-1]:
        state = state[name]
    state[path[-1]] = value(state.get(path[-1])) if callable(value) else value


@pytest.mark.parametrize(
    ("path", "value", "said"),
    [
        (("network",), 3, "network: no table"), (("network", "LATENT"), lambda t: t[None], "not as this network has it"),
        (("network", "LATENT"), lambda t: t * float("nan"), "not as this network has it"),
        (("network", "LATENT"), lambda t: t.double(), "not as this network has it"),
        (("network", "other"), lambda _: torch.zeros(1), "network: other"), (("optimizer",), None, "optimizer: not one's state"),
        (("optimizer", "state", 0), lambda held: {**held, "exp_avg": torch.zeros(3)}, "optimizer: exp_avg of parameter 0"),
        (("optimizer", "state", 0), lambda held: {}, "parameter 0: parts are missing"),
        (("optimizer", "param_groups", 0, "weight_decay"), float("nan"), "optimizer: set otherwise"),
        (("optimizer", "param_groups", 0, "lr"), "x", "optimizer: set otherwise"), (("numbers",), {}, "numbers: not those"),
        (("numbers", "step"), 1.5, "step: float"), (("numbers", "step"), -1, "step: -1"),
        (("numbers", "multiplier"), float("inf"), "multiplier: inf"),
        (("numbers", "history"), [{"a": "b"}], "history: rows"), (("rates", "theta"), lambda t: t.float(), "rates: of another kind"),
        (("rates", "group"), lambda t: t + 99, "rates: group: no such group"), (("n_rate_steps",), "x", "n_rate_steps: x"),
    ],
)  # fmt: skip
def test_a_checkpoint_that_no_training_has_left_is_refused(tmp_path: Path, path: tuple[Any, ...], value: Any, said: str) -> None:
    file = tmp_path / "a.pt"
    train(SHORT, blobs(), seed=SEED, checkpoint=file)
    state = torch.load(file, weights_only=True)
    latent = next(name for name in state["network"] if name.endswith("latent"))
    _changed(state, tuple(latent if name == "LATENT" else name for name in path), value)
    torch.save(state, file)
    with pytest.raises(RunFolderError, match=re.escape(said)):
        train(SHORT, blobs(), seed=SEED, checkpoint=file)


def test_a_checkpoint_is_read_without_running_code_or_leaving_its_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    file = tmp_path / "run" / "a.pt"
    file.parent.mkdir()
    for content in (pickle.dumps(Code()), b"", pickle.dumps({"key": Code()})):
        file.write_bytes(content)
        with pytest.raises(RunFolderError, match="not a checkpoint of a training"):
            train(SHORT, blobs(), seed=SEED, checkpoint=file)
    torch.save({"key": Code()}, file)
    with pytest.raises(RunFolderError, match="not a checkpoint of a training"):
        train(SHORT, blobs(), seed=SEED, checkpoint=file)
    file.rename(tmp_path / "b.pt")
    file.symlink_to(tmp_path / "b.pt")
    with pytest.raises(RunFolderError, match="leads out of"):
        train(SHORT, blobs(), seed=SEED, checkpoint=file)
    assert not (tmp_path / "EXECUTED").exists()
    with zipfile.ZipFile(tmp_path / "b.pt") as archive:
        inside = archive.read(next(name for name in archive.namelist() if name.endswith("pkl")))
    pickle.loads(inside)  # negative control: this is what would have run
    assert (tmp_path / "EXECUTED").exists()


def test_weights_of_another_network_are_no_start() -> None:
    wide = recipe_for(Reliable(), layers="conv 8 k3 s2, dense 24")
    state = trainer_of(wide, blobs(), seed=1).network.state_dict()
    with pytest.raises(SpecError, match="another network"):
        trainer_of(LANMAX, blobs(), seed=1, start=state)


def test_the_closed_form_needs_a_trained_network_and_lanmax_starts_from_it() -> None:
    data, closed = blobs(), recipe_for(ClosedForm(energy_budget_rel=0.4, n_batches=8))
    with pytest.raises(SpecError, match="give --start"):
        trainer_of(closed, data, seed=1)
    state = train(recipe_for(Reliable()), data, seed=1).network.state_dict()
    learned = recipe_for(Lanmax(energy_budget_rel=0.4, n_batches=8))
    found = trainer_of(closed, data, seed=1, start=state).rates
    assert found.energy_rel == pytest.approx(0.4, rel=1e-3)
    assert np.array_equal(found.p, trainer_of(learned, data, seed=1, start=state).rates.p)
    assert np.all(trainer_of(learned, data, seed=1).rates.p == pytest.approx(1e-3))


def test_an_energy_budget_is_held_and_layers_differ() -> None:
    trainer = train(LANMAX, blobs(), seed=SEED)
    assert trainer.rates.energy_rel == pytest.approx(0.4, abs=1e-9)
    assert np.unique(np.round(np.log(trainer.rates.p), 3)).size == 3


def test_an_accuracy_budget_lowers_the_energy_until_accuracy_would_fall() -> None:
    longer = Schedule(n_epochs=60, batch_size=30, shift_pixels=0, mirror=False)
    found = {a: train(recipe_for(Lanmax(accuracy_budget=a), schedule=longer), blobs(), seed=SEED) for a in (0.5, 0.95)}
    assert found[0.5].rates.energy_rel < found[0.95].rates.energy_rel
    assert found[0.5].rates.energy_rel < 0.9 * float(Exponential().energy_rel(1e-3))  # what it started from


def test_domains_are_few() -> None:
    trainer = train(recipe_for(Lanmax(energy_budget_rel=0.4, n_domains=2), layers="conv 4 k3, conv 6 k3 s2, dense 24"), blobs(), seed=SEED)
    assert trainer.rates.p.shape == (4, 1)
    assert np.unique(trainer.rates.p).size == 2
    assert trainer.rates.energy_rel == pytest.approx(0.4, abs=1e-9)


def test_reads_weight_the_energy() -> None:
    once, often = (trainer_of(recipe_for(Reliable(), reads=reads), blobs(), seed=1) for reads in ("once", "positions"))
    n = np.array([layer.n_weights for layer in once.network.stored], float)
    assert np.allclose(once.rates.share[:, 0], n / n.sum())
    assert np.allclose(often.rates.share[:, 0], n * [16, 1, 1] / (n * [16, 1, 1]).sum())


# faults


def layer_of(word: WordFormat = BINARY, faults: MemoryFaults | None = None, shape: tuple[int, ...] = (40, 50), **more: Any) -> StoredLayer:
    torch.manual_seed(3)
    return StoredLayer("layer", shape, Storage(word=word, faults=faults or TransientFlips(), **more))


def drawn(layer: StoredLayer, p: float, trial: int, *, purpose: str = "a", seed: int = 1) -> np.ndarray:
    layer.read(np.full(layer.storage.word.n_bits, p), Drawing(seed=seed, purpose=purpose, trial=trial))
    assert layer.last is not None
    return layer.last.masks.copy()


@pytest.mark.parametrize("faults", [TransientFlips(), PersistentFlips(), WeakColumns(weak_share=0.1, weak_factor=4.0, n_columns=64)])
def test_faults_are_nested_across_error_rates(faults: MemoryFaults) -> None:
    layer = layer_of(WordFormat(coding="twos_complement", n_bits=4), faults)
    low, high = drawn(layer, 0.01, 0), drawn(layer, 0.05, 0)
    assert low.any()
    assert np.array_equal(low & high, low)
    other = drawn(layer, 0.05, 1)
    assert not np.array_equal(low & other, low)  # faults of another draw are not nested in these


def test_faults_are_as_frequent_as_the_error_rate() -> None:
    layer, p = layer_of(), 0.03
    n = 50 * layer.n_weights
    total = sum(int(drawn(layer, p, trial).sum()) for trial in range(50))
    assert abs(total - n * p) / np.sqrt(n * p * (1.0 - p)) < 4.0
    assert abs(total - n * 0.035) / np.sqrt(n * 0.035) > 4.0


def test_a_chip_keeps_its_faults_and_others_have_theirs() -> None:
    layer = layer_of(faults=PersistentFlips())
    assert np.array_equal(drawn(layer, 0.05, 4), drawn(layer, 0.05, 4))
    assert not np.array_equal(drawn(layer, 0.05, 4), drawn(layer, 0.05, 5))
    assert not np.array_equal(drawn(layer, 0.05, 4), drawn(layer, 0.05, 4, purpose="test"))
    assert not np.array_equal(drawn(layer, 0.05, 4), drawn(layer, 0.05, 4, seed=2))


def test_trained_chips_take_turns_and_reads_are_fresh() -> None:
    seen: dict[str, list[bytes]] = {}
    for name, faults in (("chip", PersistentFlips()), ("read", TransientFlips())):
        recipe, masks = recipe_for(Uniform(error_rate_p=0.3), faults=faults, n_chips=2), seen.setdefault(name, [])
        trainer = trainer_of(recipe, blobs(), seed=1)
        from accelsim.training.run import take_step

        for _ in range(4):
            take_step(trainer, blobs().train, None, n_steps=100)
            assert trainer.network.stored[0].last is not None
            masks.append(trainer.network.stored[0].last.masks.tobytes())
    assert seen["chip"][0] == seen["chip"][2] != seen["chip"][1] == seen["chip"][3]
    assert len(set(seen["read"])) == 4


# weights


def test_binary_ternary_and_fixed_point_weights_are_what_their_words_say() -> None:
    for word in (BINARY, WordFormat(coding="ternary", n_bits=2), WordFormat(coding="twos_complement", n_bits=4),
                 WordFormat(coding="sign_magnitude", n_bits=3), WordFormat(coding="offset_binary", n_bits=5, gray=True)):  # fmt: skip
        layer = layer_of(word)
        value, numbers = layer.read_right().detach().numpy(), layer.numbers()
        assert layer.last is not None
        assert np.array_equal(word.decode(layer.last.words).reshape(numbers.shape), numbers)
        assert np.allclose(value, layer.steps()[:, None] * numbers, rtol=1e-6)
        assert np.abs(numbers).max() == word.greatest
        assert np.array_equal(np.sign(numbers)[numbers != 0], np.sign(layer.latent.detach().numpy())[numbers != 0])


def test_fixed_point_rounds_to_the_nearest_step_of_each_channel() -> None:
    layer = layer_of(WordFormat(coding="twos_complement", n_bits=8), scale="none")
    value, latent = layer.read_right().detach(), layer.latent.detach()
    step = latent.abs().amax(1, keepdim=True) / 127.0
    assert float(((value - latent).abs() / step).max()) <= 0.5 + 1e-4


def test_the_gradient_goes_straight_through_and_weights_are_clipped() -> None:
    layer = layer_of(clip=0.05)
    layer.read(np.array([0.2]), Drawing(seed=1, purpose="a", trial=0))
    layer(torch.ones(2, 50)).pow(2).sum().backward()
    layer.pass_gradient()
    assert layer.value is not None
    assert torch.equal(layer.latent.grad, layer.value.grad)
    with torch.no_grad():
        layer.latent.add_(1.0)
    layer.clip_latent()
    assert float(layer.latent.detach().abs().max()) == pytest.approx(0.05)


def test_random_bit_error_training_adds_the_two_gradients() -> None:
    from accelsim.training.run import _gradients

    recipe = recipe_for(RandomBitErrors(error_rate_p=0.2, start_loss=100.0))
    trainer = trainer_of(recipe, blobs(), seed=1)
    trainer.started = True
    x, y = batch_of(blobs().train, recipe, seed=1, step=0)
    _gradients(trainer, x, y)
    layer, total = trainer.network.stored[0], trainer.network.stored[0].latent.grad.clone()
    parts = []
    for read in (trainer.network.read_right, lambda: trainer.network.read(trainer.rates.p, Drawing(seed=1, purpose="training", trial=0))):
        read()
        torch.nn.functional.cross_entropy(trainer.network(x), y).backward()
        parts.append(layer.value.grad.clone())
    assert torch.allclose(total, parts[0] + parts[1], atol=1e-6)
    assert not torch.allclose(total, 2.0 * parts[0], atol=1e-3)


def test_random_bit_errors_start_once_the_loss_is_low() -> None:
    recipe = recipe_for(RandomBitErrors(error_rate_p=0.2, start_loss=1e-9))
    trainer = train(recipe, blobs(), seed=1)
    assert not trainer.started
    assert bits_of(trainer)[:100] == bits_of(train(recipe_for(Reliable()), blobs(), seed=1))[:100]


# testing, images


def test_testing_repeats_and_wrong_bits_cost_accuracy() -> None:
    data, trainer = blobs(), train(recipe_for(Reliable()), blobs(), seed=SEED)
    how: dict[str, Any] = {"mean": 0.0, "std": 1.0, "n_draws": 20, "seed": 3}
    found = {p: draws.tested(trainer.network, data.test, p=np.full((3, 1), p), **how) for p in (0.0, 0.01, 0.4)}
    again = draws.tested(trainer.network, data.test, p=np.full((3, 1), 0.01), **how)
    assert np.array_equal(found[0.01].accuracy, again.accuracy)
    assert np.all(found[0.0].accuracy == found[0.0].accuracy_right)
    assert found[0.4].mean < found[0.01].mean <= 1.0
    assert found[0.4].mean < 0.5


def test_training_for_wrong_bits_pays() -> None:
    """Trained with wrong bits, the network stands more of them than the one trained without, which is the negative control."""
    data, p = blobs(900), np.full((3, 1), 0.12)
    longer = Schedule(n_epochs=12, batch_size=30, shift_pixels=0, mirror=False)
    accuracy = []
    for method in (Reliable(), Uniform(error_rate_p=0.12)):
        network = train(recipe_for(method, schedule=longer, layers="conv 8 k3 s2, dense 64"), data, seed=SEED).network
        accuracy.append(draws.tested(network, data.test, p=p, mean=0.0, std=1.0, n_draws=40, seed=3))
    z = (accuracy[1].mean - accuracy[0].mean) / np.hypot(accuracy[0].std, accuracy[1].std) * np.sqrt(40.0)
    assert z > 4.0


def test_images_are_shifted_and_mirrored_whole() -> None:
    x = np.zeros((2000, 2, 9, 9), np.uint8)
    x[:, :, 4, 3] = 7
    moved = augmented(x, shift=2, mirror=True, random=np.random.default_rng(1))
    assert moved.shape == x.shape
    assert np.all(moved.sum(axis=(2, 3)) == 7)
    assert np.array_equal(moved[:, 0], moved[:, 1])
    assert len(np.unique(moved[:, 0].reshape(2000, -1).argmax(axis=1))) == 35  # 5 rows; 7 columns, 1..5 as it is and 3..7 mirrored
    assert np.array_equal(augmented(x, shift=0, mirror=False, random=np.random.default_rng(1)), x)


def test_an_epoch_takes_every_image_once() -> None:
    data = blobs()
    recipe = recipe_for(Reliable(), schedule=Schedule(n_epochs=1, batch_size=30, shift_pixels=0, mirror=False))
    seen = np.concatenate([batch_of(data.train, recipe, seed=1, step=i)[0].numpy() for i in range(8)])
    assert np.array_equal(np.sort(seen.ravel()), np.sort(data.train.x.ravel()))


@pytest.mark.parametrize("law", [Exponential(), Sram14nm()], ids=lambda law: law.kind)
def test_each_bit_may_have_a_rate_of_its_own(law: Any) -> None:
    """Under one budget the higher bits of a word end safer than the lower ones: damage goes as 4^j."""
    word, longer = WordFormat(coding="twos_complement", n_bits=4), Schedule(n_epochs=12, batch_size=30, shift_pixels=0, mirror=False)
    recipe = recipe_for(Lanmax(energy_budget_rel=0.7, rate=0.05), word=word, law=law, per="bit", schedule=longer)
    p = train(recipe, blobs(), seed=SEED).rates.p
    assert p.shape == (3, 4)
    assert np.all(p[1, 3] < p[1, :2])
