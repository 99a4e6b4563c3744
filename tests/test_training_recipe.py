"""Recipes, data, layers and learned rates: what of training needs no PyTorch."""

import gzip
import itertools
from pathlib import Path

import numpy as np
import pytest

from accelsim.optimizer.reliability import allocate_energy
from accelsim.training.data import load_data, normalized
from accelsim.training.layout import parse_layers, widened
from accelsim.training.rates import Rates, clusters, rate_of, start_rates, theta_of
from accelsim.training.recipe import METHODS, Recipe, load_recipe, recipe_names, recipe_of, recipe_toml
from devices.base.errors import InfeasibleError, SamplesError, SpecError
from devices.reliability import Exponential, Sram14nm
from devices.reliability_law import ReliabilityLaw
from devices.reliability_table import Tabulated

GOOD = """
layers = "conv 8 k5 s2, pool 2, dense 16"
[word]
coding = "binary"
n_bits = 1
[law]
kind = "exponential"
[faults]
kind = "transient"
[method]
kind = "lanmax"
energy_budget_rel = 0.3
"""
TABLE = Tabulated(
    voltages_rel=(0.6, 0.8, 1.0), energies_rel=(0.36, 0.64, 1.0), error_rates_p=(0.3, 1e-2, 1e-6), energy_reference="the top", source="none"
)
LAWS: tuple[ReliabilityLaw, ...] = (Exponential(), Sram14nm(), TABLE)


# recipes


def test_a_recipe_reads_back_from_its_toml() -> None:
    recipe = recipe_of(GOOD, origin="good")
    assert recipe_of(recipe_toml(recipe), origin="again") == recipe
    assert recipe.digest == recipe_of(recipe_toml(recipe), origin="again").digest
    assert recipe.digest != recipe_of(GOOD.replace("0.3", "0.4"), origin="other").digest


@pytest.mark.parametrize("name", recipe_names())
def test_a_recipe_that_comes_along_is_whole(name: str) -> None:
    assert isinstance(load_recipe(name), Recipe)


def test_all_faults_of_a_recipe_are_told_at_once() -> None:
    text = GOOD.replace("layers =", "layer =").replace('"exponential"', '"expnential"').replace("energy_budget_rel = 0.3", "")
    with pytest.raises(SpecError) as told:
        recipe_of(text, origin="bad.toml")
    for part in ("faults in bad.toml", "layer: unknown key; nearest: layers", "expnential", "give one of energy_budget_rel"):
        assert part in str(told.value)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (("conv 8 k5 s2", "cnv 8"), "need conv C"),
        (("conv 8 k5 s2, pool 2, dense 16", "dense 16, conv 8"), "after a dense layer"),
        (("energy_budget_rel = 0.3", "energy_budget_rel = 0.3\naccuracy_budget = 0.9"), "give one of"),
        (('coding = "binary"\nn_bits = 1', 'coding = "unsigned"\nn_bits = 4'), "weights have signs"),
        (('kind = "lanmax"\nenergy_budget_rel = 0.3', 'kind = "uniform"'), "give one of error_rate_p, energy_budget_rel"),
        (('kind = "lanmax"', 'kind = "random_bit_errors"\nerror_rate_p = 0.6'), "energy_budget_rel"),
        (("energy_budget_rel = 0.3", "energy_budget_rel = 0.05"), "method.energy_budget_rel: 0.05: need 0.05415 to 1,"),
        (('kind = "exponential"', 'kind = "fixed_point"\nerror_rate_p = 1e-3\nenergy_reference = "x"\nsource = "y"'), "trades energy"),
    ],
)
def test_a_recipe_that_cannot_be_is_refused(change: tuple[str, str], message: str) -> None:
    with pytest.raises(SpecError, match=message):
        recipe_of(GOOD.replace(*change), origin="bad")


def test_a_recipe_that_is_not_there_names_those_that_are() -> None:
    with pytest.raises(SpecError, match="fashion_lanmax"):
        load_recipe("fashion_lanmx")


def test_every_method_has_a_kind_of_its_own() -> None:
    assert all(method.kind == kind for kind, method in METHODS.items())


def test_layers_are_named_by_kind_and_place() -> None:
    assert [layer.name for layer in parse_layers("conv 8 k5 s2, pool 2, dense 16")] == ["conv1", "pool2", "dense3"]
    assert widened("conv 8 k5 s2, pool 2, dense 16", 0.5) == "conv 4 k5 s2, pool 2, dense 8"


# data


def idx(array: np.ndarray) -> bytes:
    return bytes((0, 0, 8, array.ndim)) + np.array(array.shape, ">u4").tobytes() + array.astype(np.uint8).tobytes()


def idx_folder(folder: Path, *, packed: bool) -> np.ndarray:
    x = np.random.default_rng(1).integers(0, 256, (7, 5, 6)).astype(np.uint8)
    for split in ("train", "t10k"):
        for name, array in (("images-idx3", x), ("labels-idx1", np.arange(7) % 3)):
            content, end = (gzip.compress(idx(array)), ".gz") if packed else (idx(array), "")
            (folder / f"{split}-{name}-ubyte{end}").write_bytes(content)
    return x


@pytest.mark.parametrize("packed", [False, True])
def test_a_folder_of_idx_files_is_read(tmp_path: Path, packed: bool) -> None:
    x = idx_folder(tmp_path, packed=packed)
    data = load_data(tmp_path)
    assert np.array_equal(data.train.x[:, 0], x)
    assert (data.input_shape, data.n_classes, len(data.test)) == ((1, 5, 6), 3, 7)
    assert normalized(data.train.x, mean=0.5, std=0.25).max() <= 2.0


def test_an_npz_is_split_or_comes_with_a_test(tmp_path: Path) -> None:
    x, y = np.random.default_rng(2).normal(size=(60, 1, 4, 4)).astype(np.float32), np.arange(60) % 3
    np.savez(tmp_path / "a.npz", x=x, y=y)
    np.savez(tmp_path / "b.npz", x=(x * 20 + 100).astype(np.uint8), y=y)
    assert (len(load_data(tmp_path / "a.npz").train), len(load_data(tmp_path / "a.npz").test)) == (50, 10)
    assert load_data(tmp_path / "b.npz", tmp_path / "b.npz").train.x.dtype == np.uint8


@pytest.mark.parametrize(
    ("arrays", "message"),
    [({"x": np.zeros((3, 1, 2, 2), np.float32)}, "no labels"), ({"x": np.zeros((3, 4), np.float32), "y": np.zeros(3, int)}, "need images"),
     ({"x": np.zeros((3, 1, 2, 2), np.uint8), "y": np.zeros(4, int)}, "one label"), ({"z": np.zeros(3)}, "need an array named x"),
     ({"x": np.zeros((3, 1, 2, 2), np.float32), "y": np.full(3, -1)}, "from 0")],
)  # fmt: skip
def test_data_that_cannot_be_trained_on_is_refused(tmp_path: Path, arrays: dict[str, np.ndarray], message: str) -> None:
    np.savez(tmp_path / "a.npz", **arrays)
    with pytest.raises(SamplesError, match=message):
        load_data(tmp_path / "a.npz")


@pytest.mark.parametrize(
    ("content", "message"),
    [(b"", "starts with nothing"), (b"\0\0\x0d\x01", "need 000008"), (b"\0\0\x08\x01\0\0", "within its header"),
     (idx(np.arange(9)) + b"x", "9 bytes, but 10 follow"), (gzip.compress(idx(np.arange(9)))[:-9], "cannot be read")],
)  # fmt: skip
def test_a_damaged_idx_file_is_refused(tmp_path: Path, content: bytes, message: str) -> None:
    idx_folder(tmp_path, packed=False)
    (tmp_path / "train-labels-idx1-ubyte").write_bytes(content)
    with pytest.raises(SamplesError, match=message):
        load_data(tmp_path)


def test_a_folder_without_idx_files_says_which_is_missing(tmp_path: Path) -> None:
    with pytest.raises(SamplesError, match="train-images-idx3-ubyte"):
        load_data(tmp_path)


# rates


def test_parameters_and_rates_are_inverse() -> None:
    p = np.array([1e-9, 1e-3, 0.1, 0.4999])
    assert np.allclose(rate_of(theta_of(p)), p, rtol=1e-9)


def share(*weights: float) -> np.ndarray:
    return np.array(weights)[:, None] / sum(weights)


@pytest.mark.parametrize("law", LAWS, ids=lambda law: law.kind)
def test_learned_rates_settle_at_reverse_water_filling_where_damage_is_linear(law: ReliabilityLaw) -> None:
    """With damage s p the optimum is known in closed form: gradient steps with dual ascent must find it."""
    weight, damage, budget = share(1.0, 30.0, 5.0), np.array([[0.1], [1.0], [0.05]]), 0.6
    wanted = allocate_energy(law, weight=weight, damage=damage, energy_budget=budget)
    rates, multiplier = start_rates(law, weight, np.full((3, 1), 1e-2)), 0.1
    for i in range(3000):
        rates.step(damage * rates.p, multiplier=multiplier, rate=0.05 * max(0.02, 1.0 - i / 2000))
        multiplier *= np.exp(0.1 * (rates.energy_rel / budget - 1.0))
    assert rates.energy_rel == pytest.approx(budget, rel=2e-3)
    assert np.allclose(np.log(rates.p), np.log(wanted.error_rate), atol=0.05)


def test_rates_without_a_budget_fall_where_damage_is_all_that_counts() -> None:
    rates = start_rates(Exponential(), share(1.0, 1.0), np.full((2, 1), 1e-2))
    for _ in range(3000):
        rates.step(rates.p, multiplier=0.0, rate=0.05)
    assert np.allclose(rates.p, Exponential().bounds[0])


@pytest.mark.parametrize("law", LAWS, ids=lambda law: law.kind)
def test_rates_move_together_to_an_energy(law: ReliabilityLaw) -> None:
    rates = start_rates(law, share(1.0, 3.0), np.array([[1e-3], [1e-2]]))
    before = rates.theta.copy()
    rates.moved_to(0.7)
    assert rates.energy_rel == pytest.approx(0.7, abs=1e-9)
    assert np.ptp(rates.theta - before) < 1e-9
    with pytest.raises(InfeasibleError, match="energy_budget_rel: 1e-06"):
        rates.moved_to(1e-6)


def test_bits_may_have_rates_of_their_own() -> None:
    each = np.full((2, 4), 0.125)
    p = np.geomspace(1e-4, 1e-2, 8).reshape(2, 4)
    assert np.allclose(start_rates(Exponential(), each, p, per="bit").p, p)
    assert np.unique(start_rates(Exponential(), each, p, per="layer").p).size == 2
    assert np.unique(start_rates(Exponential(), each, p, per="network").p).size == 1


def test_clusters_are_the_best_of_all_splits() -> None:
    random = np.random.default_rng(4)
    for n_clusters in (1, 2, 3, 4):
        values, weight = random.normal(size=7), random.uniform(0.1, 3.0, 7)
        found = spread(values, weight, clusters(values, weight=weight, n_clusters=n_clusters))
        order, best = np.argsort(values), np.inf
        for cut in itertools.combinations(range(1, 7), n_clusters - 1):
            label = np.zeros(7, int)
            label[order] = np.searchsorted(cut, np.arange(7), side="right")
            best = min(best, spread(values, weight, label))
        assert found == pytest.approx(best)


def spread(values: np.ndarray, weight: np.ndarray, label: np.ndarray) -> float:
    return sum(
        float(weight[label == k] @ (values[label == k] - np.average(values[label == k], weights=weight[label == k])) ** 2)
        for k in np.unique(label)
    )


def test_domains_share_their_rates_and_keep_what_is_read() -> None:
    rates: Rates = start_rates(Exponential(), share(1.0, 1.0, 8.0), np.array([[1e-4], [2e-4], [1e-1]]))
    rates.gather(2)
    assert np.unique(rates.p).size == 2
    assert rates.p[0] == rates.p[1]
    assert rates.p[2] == pytest.approx(0.1)
