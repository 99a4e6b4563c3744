"""Encodings: what cells store is what they are read as, digit by digit, and errors count by place value."""

import itertools

import numpy as np
import pytest

from devices.base.errors import SpecError
from devices.weight_encoding import Encoding, scale_siemens

G_MIN, G_USED = 1e-6, 20e-6
SPAN = G_USED - G_MIN
WEIGHTS = np.random.default_rng(4).normal(size=(5, 7))
ENCODINGS = [
    Encoding(), Encoding(kind="offset"), Encoding(levels=17), Encoding(kind="offset", levels=17), Encoding(kind="offset", levels=16),
    Encoding(slice_bits=(2, 2, 2)), Encoding(slice_bits=(1, 3, 2)), Encoding(slice_bits=(1,) * 8),
    Encoding(kind="offset", slice_bits=(4, 4)),
]  # fmt: skip


def stored(encoding: Encoding, *, per_column: bool = False) -> tuple[tuple[np.ndarray, ...], np.ndarray]:
    largest = np.abs(WEIGHTS).max(axis=1)
    w_max = largest if per_column else np.full(5, largest.max())
    scale = encoding.scale_siemens(w_max, G_USED, G_MIN)[:, None]
    return encoding.encode(WEIGHTS, scale, np.full((5, 1), SPAN), G_MIN), scale


def decoded(encoding: Encoding, cells: tuple[np.ndarray, ...], scale: np.ndarray) -> np.ndarray:
    return encoding.decode(cells, scale, np.full((5, 1), SPAN), G_MIN)


@pytest.mark.parametrize("encoding", ENCODINGS, ids=str)
@pytest.mark.parametrize("per_column", [True, False])
def test_cells_are_read_as_the_weight_they_stand_for(encoding: Encoding, per_column: bool) -> None:
    """To half a step of what the weight is stored with; exactly where it is analog."""
    cells, scale = stored(encoding, per_column=per_column)
    step = 0.0 if encoding.n_levels is None else SPAN / (encoding.n_levels - 1)
    assert np.all(np.abs(decoded(encoding, cells, scale) - WEIGHTS) <= 0.5 * step / scale * (1 + 1e-9) + 1e-12)
    for part in cells:
        assert part.min() >= G_MIN * (1 - 1e-12)
        assert part.max() <= G_USED * (1 + 1e-12)


@pytest.mark.parametrize("encoding", ENCODINGS, ids=str)
def test_zero_is_read_as_zero(encoding: Encoding) -> None:
    cells = encoding.encode(np.zeros((5, 7)), np.full((5, 1), 1e-6), np.full((5, 1), SPAN), G_MIN)
    np.testing.assert_allclose(decoded(encoding, cells, np.full((5, 1), 1e-6)), 0.0, atol=1e-12)


def test_one_cell_of_a_pair_stays_at_the_lowest_conductance() -> None:
    (plus, minus), _ = stored(Encoding())
    np.testing.assert_allclose(np.minimum(plus, minus), G_MIN)
    np.testing.assert_array_equal(plus > G_MIN, WEIGHTS > 0)


def test_the_largest_weight_gets_the_conductance_in_use() -> None:
    largest = [np.maximum(*stored(Encoding(), per_column=per)[0]).max(axis=1) for per in (False, True)]
    assert np.sum(np.isclose(largest[0], G_USED)) == 1
    np.testing.assert_allclose(largest[1], G_USED)


def test_digits_are_those_of_the_code_by_enumeration() -> None:
    """Every code of 1 + 3 + 2 bits: the digits, most significant first, are Python's."""
    encoding = Encoding(slice_bits=(1, 3, 2))
    codes = np.arange(64.0)
    cells = encoding.encode(codes / 63.0, np.full(64, SPAN), np.full(64, SPAN), 0.0)[::2]
    digits = [np.rint(cell / SPAN * top).astype(int) for cell, top in zip(cells, (1, 7, 3))]
    expected = [(a, b, c) for a, b, c in itertools.product(range(2), range(8), range(4))]
    np.testing.assert_array_equal(np.stack(digits, axis=1), expected)


@pytest.mark.parametrize("encoding", ENCODINGS, ids=str)
def test_gains_are_what_a_cell_counts(encoding: Encoding) -> None:
    """Finite differences, and one in all for each sign."""
    cells, scale = stored(encoding)
    before = decoded(encoding, cells, scale)
    for i, part in enumerate(encoding.parts):
        moved = decoded(encoding, tuple(c + 1e-7 * (i == j) for j, c in enumerate(cells)), scale)
        np.testing.assert_allclose((moved - before) * scale, part.sign * part.gain * 1e-7, rtol=1e-6)
    assert sum(p.gain for p in encoding.parts if p.sign > 0) == pytest.approx(1.0)


def test_the_wrong_place_values_are_noticed() -> None:
    """The negative control: digits read as if all slices were alike."""
    encoding = Encoding(slice_bits=(2, 2))
    cells, scale = stored(encoding)
    assert np.abs(decoded(encoding, cells[2:] + cells[:2], scale) - WEIGHTS).max() > 0.3


def test_a_column_of_zeros_has_no_scale_and_decodes_to_zero() -> None:
    found = scale_siemens(np.array([0.0, 2.0]), G_USED, G_MIN)
    np.testing.assert_allclose(found, [0.0, SPAN / 2.0])
    for encoding in ENCODINGS:
        cells = encoding.encode(np.zeros((2, 3)), found[:, None], np.array([[0.0], [SPAN]]), G_MIN)
        np.testing.assert_allclose(encoding.decode(cells, found[:, None], np.array([[0.0], [SPAN]]), G_MIN), 0.0, atol=1e-15)


def test_each_column_may_use_a_conductance_of_its_own() -> None:
    np.testing.assert_allclose(scale_siemens(np.ones(2), np.array([11e-6, 21e-6]), G_MIN), [10e-6, 20e-6])


def test_arguments_are_left_as_they_are() -> None:
    kept = WEIGHTS.copy()
    for encoding in ENCODINGS:
        decoded(encoding, *stored(encoding))
    np.testing.assert_array_equal(WEIGHTS, kept)


@pytest.mark.parametrize("wrong", [{"levels": 16, "slice_bits": (2, 2)}, {"slice_bits": (0, 2)}, {"slice_bits": (12, 13)}])
def test_what_does_not_fit_is_refused(wrong: dict) -> None:
    with pytest.raises(SpecError, match="slice"):
        Encoding(**wrong)
