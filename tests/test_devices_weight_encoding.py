"""Differential pairs: what they store is what they are read as."""

import numpy as np

from devices.weight_encoding import decode, encode, scale_siemens

G_MIN, G_USED = 1e-6, 20e-6
WEIGHTS = np.random.default_rng(4).normal(size=(5, 7))


def scale(per_column: bool) -> np.ndarray:
    largest = np.abs(WEIGHTS).max(axis=1)
    w_max = largest if per_column else np.full(5, largest.max())
    return scale_siemens(w_max, G_USED, G_MIN)[:, None]


def test_a_pair_is_decoded_to_the_weight_it_encodes() -> None:
    for per_column in (True, False):
        np.testing.assert_allclose(decode(encode(WEIGHTS, scale(per_column), G_MIN), scale(per_column)), WEIGHTS, rtol=0, atol=1e-12)


def test_one_cell_of_a_pair_stays_at_the_lowest_conductance() -> None:
    pair = encode(WEIGHTS, scale(False), G_MIN)
    np.testing.assert_allclose(np.minimum(pair.positive_siemens, pair.negative_siemens), G_MIN)
    np.testing.assert_array_equal(pair.positive_siemens > G_MIN, WEIGHTS > 0)


def test_the_largest_weight_gets_the_conductance_in_use() -> None:
    together, apart = (encode(WEIGHTS, scale(per), G_MIN) for per in (False, True))
    largest = [np.maximum(p.positive_siemens, p.negative_siemens).max(axis=1) for p in (together, apart)]
    assert largest[0].max() <= G_USED * (1 + 1e-12)
    assert np.sum(np.isclose(largest[0], G_USED)) == 1
    np.testing.assert_allclose(largest[1], G_USED)


def test_a_column_of_zeros_has_no_scale_and_decodes_to_zero() -> None:
    found = scale_siemens(np.array([0.0, 2.0]), G_USED, G_MIN)
    np.testing.assert_allclose(found, [0.0, (G_USED - G_MIN) / 2.0])
    pair = encode(np.zeros((2, 3)), found[:, None], G_MIN)
    np.testing.assert_array_equal(decode(pair, found[:, None]), 0.0)


def test_each_column_may_use_a_conductance_of_its_own() -> None:
    np.testing.assert_allclose(scale_siemens(np.ones(2), np.array([11e-6, 21e-6]), G_MIN), [10e-6, 20e-6])


def test_arguments_are_left_as_they_are() -> None:
    kept = WEIGHTS.copy()
    decode(encode(WEIGHTS, scale(True), G_MIN), scale(True))
    np.testing.assert_array_equal(WEIGHTS, kept)
