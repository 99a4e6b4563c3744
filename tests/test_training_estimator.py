"""The slope of the expected loss by error rate, against exhaustive enumeration of every pattern of wrong bits."""

from collections.abc import Iterator
from functools import cache

import numpy as np
import pytest

from devices.memory_faults import MemoryFaults, PersistentFlips, StuckBits, TransientFlips
from devices.word_format import WordFormat

torch = pytest.importorskip("torch", reason="needs the extra `train`: pip install -e '.[test,train]'")
pytestmark = pytest.mark.extras

from accelsim.training.stored import Storage, StoredLayer  # noqa: E402

BINARY = WordFormat(coding="binary", n_bits=1)
RATES = (0.01, 0.05, 0.2, 0.4)


def layer_of(shape: tuple[int, ...], *, seed: int, word: WordFormat = BINARY, faults: MemoryFaults | None = None) -> StoredLayer:
    torch.manual_seed(seed)
    return StoredLayer("layer", shape, Storage(word=word, faults=faults or TransientFlips(), scale="none", clip=1.0))


def masks_of(layer: StoredLayer) -> Iterator[np.ndarray]:
    """Every pattern of wrong bits, as masks of the layer's words."""
    n_bits = layer.storage.word.n_bits
    for pattern in range(1 << (layer.n_weights * n_bits)):
        yield np.array([(pattern >> (i * n_bits)) & ((1 << n_bits) - 1) for i in range(layer.n_weights)], np.uint16)


def probabilities(layer: StoredLayer, masks: list[np.ndarray], p: float) -> np.ndarray:
    """Probability of each mask, bit by bit, from the faults' rates."""
    bits = np.arange(layer.storage.word.n_bits)
    up, down = layer.storage.faults.rates(layer.storage.word, np.full(bits.size, p))
    q = np.where((layer.stored_words()[:, None] >> bits) & 1, down, up)
    wrong = (np.array(masks)[:, :, None] >> bits) & 1
    return np.where(wrong, q, 1.0 - q).prod(axis=(1, 2))


def passes(network, layer: StoredLayer) -> list[tuple[np.ndarray, float, object]]:
    """Every mask with its loss and the gradient at the weights that are then read: neither hangs on the error rate."""
    found, words, none = [], layer.stored_words(), np.zeros(layer.storage.word.n_bits)
    for mask in masks_of(layer):
        layer._hold(words, mask, none)
        loss = network()
        loss.backward()
        found.append((mask, float(loss.detach()), layer.value.grad))
    return found


def enumerated(layer: StoredLayer, every: list[tuple[np.ndarray, float, object]], p: float) -> tuple[float, float, float]:
    """Return p dE[L]/dp exactly, and the expectations of the trapezoid and of the path-wise estimate, over every mask.

    The exact one is a central difference of the enumerated expectation, a polynomial in p.
    """
    words, slopes, paths = layer.stored_words(), [], []
    for mask, _, gradient in every:
        layer._hold(words, mask, np.full(layer.storage.word.n_bits, p))
        layer.value.grad = gradient
        slopes.append(layer.rate_slope().sum())
        paths.append(layer.path_slope().sum())
    masks, losses = [mask for mask, _, _ in every], np.array([loss for _, loss, _ in every])
    here, after, before = (probabilities(layer, masks, q) for q in (p, p + 1e-5, p - 1e-5))
    assert here.sum() == pytest.approx(1.0)
    return p * float((after - before) @ losses) / 2e-5, float(here @ np.array(slopes)), float(here @ np.array(paths))


@cache
def two_layers(seed: int):
    """A network of 12 binary weights, all in one memory: 3 inputs, 3 hidden units of tanh, 1 output; 40 samples it fits without faults."""
    layer = layer_of((12,), seed=seed)

    def outputs(w):
        return torch.tanh(x @ w[:9].reshape(3, 3).T) @ w[9:]

    x = torch.randn(40, 3, generator=torch.Generator().manual_seed(seed + 1))
    target = outputs(layer.read_right().detach())
    return layer, passes(lambda: ((outputs(layer.value) - target) ** 2).mean(), layer)


@pytest.mark.parametrize("p", RATES)
def test_the_trapezoid_is_near_the_exact_slope_where_the_pathwise_one_is_not(p: float) -> None:
    exact, trapezoid, naive = enumerated(*two_layers(3), p)
    assert exact > 0.0
    assert abs(trapezoid / exact - 1.0) < 0.2
    assert abs(naive / exact - 1.0) > 1.4 * abs(trapezoid / exact - 1.0)


def test_at_rare_errors_the_pathwise_slope_misses_most_of_the_damage() -> None:
    exact, trapezoid, naive = enumerated(*two_layers(3), 0.01)
    assert naive / exact < 0.4
    assert trapezoid / exact > 0.8


FORMATS = [
    (BINARY, TransientFlips()),
    (WordFormat(coding="ternary", n_bits=2), TransientFlips()),
    (WordFormat(coding="twos_complement", n_bits=3), TransientFlips()),
    (WordFormat(coding="sign_magnitude", n_bits=3), TransientFlips(to_one_share=0.2)),
    (WordFormat(coding="offset_binary", n_bits=3, gray=True), PersistentFlips(to_one_share=0.8)),
    (WordFormat(coding="twos_complement", n_bits=3), StuckBits(to_one_share=0.3)),
]


@pytest.mark.parametrize(("word", "faults"), FORMATS, ids=lambda value: getattr(value, "coding", getattr(value, "kind", "")))
def test_the_trapezoid_is_exact_for_a_loss_that_is_quadratic_in_each_weight(word: WordFormat, faults: MemoryFaults) -> None:
    layer = layer_of((1, 3), seed=5, word=word, faults=faults)
    x = torch.randn(30, 3, generator=torch.Generator().manual_seed(6))
    target = torch.randn(30, 1, generator=torch.Generator().manual_seed(7))
    exact, trapezoid, naive = enumerated(layer, passes(lambda: ((layer(x) - target) ** 2).mean(), layer), 0.1)
    assert trapezoid == pytest.approx(exact, rel=2e-4)
    assert abs(naive / exact - 1.0) > 0.02


def test_each_bit_has_a_slope_of_its_own() -> None:
    word = WordFormat(coding="twos_complement", n_bits=4)
    layer = layer_of((8, 64), seed=8, word=word)
    x = torch.randn(200, 64, generator=torch.Generator().manual_seed(9))
    target = layer_times(layer, x).detach()
    total = np.zeros(4)
    from accelsim.training.stored import Drawing

    for trial in range(20):
        layer.read(np.full(4, 0.05), Drawing(seed=1, purpose="test", trial=trial))
        ((layer(x) - target) ** 2).mean().backward()
        total += layer.rate_slope()
    assert np.allclose(total[1:] / total[:-1], 4.0, rtol=0.35)  # damage goes as 4^j


def layer_times(layer: StoredLayer, x):
    layer.read_right()
    return layer(x)
