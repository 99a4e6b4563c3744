"""Memory faults: rates by bit and direction, nesting, columns, exact moments and events against all masks and against draws."""

from dataclasses import dataclass, field
from itertools import product

import numpy as np
import pytest

from devices.base import stream
from devices.base.errors import SpecError
from devices.base.toml_codec import Faults, about, decode, parse_toml, write_lines
from devices.memory_faults import FAULT_KINDS, MemoryFaults, PersistentFlips, StuckBits, TransientFlips, WeakColumns
from devices.word_format import WordFormat
from validation.statistics import z_of_means

KINDS: list[MemoryFaults] = [
    TransientFlips(),
    PersistentFlips(to_one_share=0.8),
    StuckBits(to_one_share=0.3),
    WeakColumns(weak_share=0.1, weak_factor=12.0, n_columns=60),
]
WORD = WordFormat(coding="twos_complement", n_bits=6)
N = 60_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Holder:
    faults: MemoryFaults = field(metadata=about("Faults.", kinds=lambda: FAULT_KINDS))


def drawn(law: MemoryFaults, words: np.ndarray, p: object, *, trial: int = 0, word: WordFormat = WORD) -> np.ndarray:
    cells = stream.words(np.empty((*words.shape, word.n_bits), np.uint32), seed=5, site=1, trial=trial)
    columns = stream.words(np.empty(getattr(law, "n_columns", 1), np.uint32), seed=5, site=2, trial=trial)
    return law.masks(word, words, p, draws=cells, column_draws=columns)  # type: ignore[arg-type]


def random_words(word: WordFormat = WORD, n: int = N) -> np.ndarray:
    return np.random.default_rng(1).integers(0, 1 << word.n_bits, n).astype(np.uint16)


@pytest.mark.parametrize("law", KINDS, ids=lambda law: law.kind)
def test_bits_err_at_their_own_rates_in_each_direction(law: MemoryFaults) -> None:
    p = np.array([0.06, 0.05, 0.04, 0.03, 0.02, 0.01])
    up, down = law.rates(WORD, p)
    words = random_words()
    masks = np.concatenate([drawn(law, words[k::200], p, trial=k) for k in range(200)])
    words = np.concatenate([words[k::200] for k in range(200)])
    for j in range(6):
        ones = (words >> j & 1).astype(bool)
        wrong = (masks >> j & 1).astype(float)
        assert abs(float(z_of_means(up[j], wrong[~ones]))) < 4.5
        assert abs(float(z_of_means(down[j], wrong[ones]))) < 4.5
        assert abs(float(z_of_means(2.0 * up[j], wrong[~ones]))) > 4.5, "the negative control: another rate"


def test_shares_are_as_stated() -> None:
    up, down = PersistentFlips(to_one_share=0.8).rates(WORD, 0.01)
    np.testing.assert_allclose(0.5 * (up + down), 0.01)
    np.testing.assert_allclose(up / (up + down), 0.8)
    up, down = StuckBits(to_one_share=0.3).rates(WORD, 0.01)
    np.testing.assert_allclose(up + down, 0.01)


@pytest.mark.parametrize("law", KINDS, ids=lambda law: law.kind)
def test_faults_are_nested_across_error_rates(law: MemoryFaults) -> None:
    words = random_words(n=5000)
    before = np.zeros_like(words)
    for p in (1e-4, 1e-3, 1e-2, 0.05):
        masks = drawn(law, words, p)
        assert np.all(masks & before == before)
        assert masks.any()
        assert np.any(masks != before)
        before = masks
    assert np.any(drawn(law, words, 0.05, trial=1) & before != before), "the negative control: another chip, other cells"


@pytest.mark.parametrize("law", KINDS, ids=lambda law: law.kind)
@pytest.mark.parametrize("coding", ["twos_complement", "sign_magnitude"])
def test_moments_are_those_of_draws(law: MemoryFaults, coding: str) -> None:
    word, p = WordFormat(coding=coding, n_bits=6), np.array([0.05, 0.04, 0.03, 0.02, 0.02, 0.02])  # type: ignore[arg-type]
    stored = np.array([0, 5, 31, 40, 63], np.uint16)
    n = 400
    masks = np.concatenate([drawn(law, np.tile(stored, n), p, trial=k, word=word).reshape(n, 5) for k in range(150)]).T
    errors = (word.decode(stored[:, None] ^ masks) - word.decode(stored)[:, None]).astype(float)
    found = law.moments(word, stored, p)
    batches = errors.reshape(5, 150, n).mean(axis=2)  # columns correlate numbers of one chip: chips are what is independent
    assert np.abs(z_of_means(found.mean_error, batches)).max() < 4.5
    squares = ((errors - found.mean_error[:, None]) ** 2).reshape(5, 150, n).mean(axis=2)
    assert np.abs(z_of_means(found.variance, squares)).max() < 4.5
    assert np.abs(z_of_means(1.3 * found.variance, squares)).max() > 4.5, "the negative control"


@pytest.mark.parametrize("law", KINDS, ids=lambda law: law.kind)
def test_events_are_the_single_flips_of_all_masks(law: MemoryFaults) -> None:
    word = WordFormat(coding="sign_magnitude", n_bits=4)
    p = np.array([0.04, 0.03, 0.02, 0.01])
    up, down = law.rates(word, p)
    stored = np.arange(16, dtype=np.uint16)
    events = law.events(word, stored, p)
    for w in range(16):
        rest = 0.0
        for bits in product((0, 1), repeat=4):
            rates = [down[j] if w >> j & 1 else up[j] for j in range(4)]
            share = np.prod([rate if b else 1.0 - rate for b, rate in zip(bits, rates)])
            if sum(bits) == 1:
                j = bits.index(1)
                assert events.p[j, w] == pytest.approx(share, rel=1e-12)
                assert events.value[j, w] == word.decode(np.array(w ^ (1 << j), np.uint16))
            rest += share if sum(bits) > 1 else 0.0
        assert events.rest_p[w] == pytest.approx(rest, rel=1e-12)
    one_by_one = ((events.value - word.decode(stored)) ** 2 * law.events(word, stored, 1e-9).p).sum(axis=0)
    exact = law.moments(word, stored, 1e-9)
    np.testing.assert_allclose(one_by_one, exact.variance + exact.mean_error**2, rtol=1e-7)


def test_weak_columns_gather_faults_as_their_covariance_says() -> None:
    law = WeakColumns(weak_share=0.1, weak_factor=12.0, n_columns=60)
    words = np.zeros(10 * 30, np.uint16)  # 10 numbers of 6 bits a row, 30 rows
    p = 0.03
    masks = np.stack([drawn(law, words, p, trial=k).reshape(30, 10) for k in range(200)])
    sums = np.stack([(masks >> j & 1).sum(axis=1) for j in range(6)]).ravel()
    expected = 30 * p * (1 - p) + 30 * 29 * law.column_covariance(p)
    squares = (sums - 30 * p) ** 2
    assert abs(float(z_of_means(np.array(expected), squares))) < 4
    assert abs(float(z_of_means(np.array(30 * p * (1 - p)), squares))) > 10, "the negative control: independent faults"


def test_a_memory_read_in_parts_has_the_columns_of_the_whole() -> None:
    law = WeakColumns(weak_share=0.2, weak_factor=20.0, n_columns=64)
    words = random_words(n=1000)
    cells = stream.words(np.empty((1000, 6), np.uint32), seed=5, site=1, trial=0)
    columns = stream.words(np.empty(64, np.uint32), seed=5, site=2, trial=0)
    whole = law.masks(WORD, words, 0.02, draws=cells, column_draws=columns)
    part = law.masks(WORD, words[400:], 0.02, draws=cells[400:], column_draws=columns, start=400)
    np.testing.assert_array_equal(part, whole[400:])


def test_certain_faults_and_none_are_exact() -> None:
    words = random_words(n=500)
    np.testing.assert_array_equal(drawn(TransientFlips(), words, 0.0), 0)
    np.testing.assert_array_equal(drawn(TransientFlips(), words, 1.0), 63)
    np.testing.assert_array_equal(drawn(StuckBits(to_one_share=1.0), words, 1.0), ~words & 63)


def test_what_is_no_fault_is_refused() -> None:
    with pytest.raises(SpecError, match="to_one_share"):
        TransientFlips(to_one_share=1.5)
    with pytest.raises(SpecError, match=r"probability 1\.2"):
        PersistentFlips(to_one_share=1.0).rates(WORD, 0.6)
    with pytest.raises(SpecError, match="n_columns: 4"):
        WeakColumns(weak_share=0.1, weak_factor=2.0, n_columns=4).rates(WORD, 0.1)
    with pytest.raises(SpecError, match="weak_share"):
        WeakColumns(weak_share=1.0, weak_factor=2.0, n_columns=4)
    with pytest.raises(SpecError, match="probability"):
        WeakColumns(weak_share=0.01, weak_factor=100.0, n_columns=8).rates(WORD, 0.1)
    with pytest.raises(ValueError, match="column_draws"):
        WeakColumns(weak_share=0.1, weak_factor=2.0, n_columns=8).masks(
            WORD, np.zeros(1, np.uint16), 0.1, draws=np.zeros((1, 6), np.uint32)
        )


@pytest.mark.parametrize("law", KINDS, ids=lambda law: law.kind)
def test_kinds_round_trip(law: MemoryFaults) -> None:
    faults = Faults("text")
    assert decode(Holder, parse_toml("\n".join(write_lines(Holder(faults=law))), origin="text"), faults=faults) == Holder(faults=law)
    faults.raise_if_any()
