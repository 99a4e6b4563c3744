"""Levels: exact ones, the nearest or the one below."""

import numpy as np
import pytest

from devices.base.errors import SpecError
from devices.quantizer import LevelQuantizer

SPAN = 20e-6


@pytest.mark.parametrize("levels", [2, 3, 16, 256])
def test_levels_are_evenly_spaced_and_stay_where_they_are(levels: int) -> None:
    quantizer = LevelQuantizer(levels=levels)
    exact = np.linspace(0.0, SPAN, levels)
    np.testing.assert_allclose(quantizer.apply(exact, SPAN), exact, rtol=1e-12)
    found = np.unique(quantizer.apply(np.linspace(0.0, SPAN, 10_001), SPAN))
    np.testing.assert_allclose(found, exact, rtol=1e-12)


@pytest.mark.parametrize("levels", [2, 5, 16])
def test_nearest_is_at_most_half_a_step_away(levels: int) -> None:
    values = np.random.default_rng(1).random(10_000) * SPAN
    step = SPAN / (levels - 1)
    stored = LevelQuantizer(levels=levels).apply(values, SPAN)
    assert np.abs(stored - values).max() <= 0.5 * step * (1 + 1e-12)
    distances = np.abs(values[:, None] - step * np.arange(levels))
    np.testing.assert_allclose(stored, step * distances.argmin(axis=1), rtol=1e-12)


def test_floor_is_the_level_below_with_the_published_step() -> None:
    values = np.random.default_rng(2).random(10_000) * SPAN
    step = SPAN / 16
    stored = LevelQuantizer(levels=16, rounding="floor").apply(values, SPAN)
    np.testing.assert_allclose(stored, step * np.floor(values / step), rtol=1e-12)
    assert np.all(stored <= values)
    assert LevelQuantizer(levels=16, rounding="floor").apply(np.array([SPAN]), SPAN)[0] == pytest.approx(SPAN)


@pytest.mark.parametrize("levels", [4, 16, 64])
def test_floor_costs_about_four_times_the_mean_square(levels: int) -> None:
    """Uniform values: step^2/12 against step^2/3 with steps of SPAN/(N-1) and SPAN/N, 4 ((N-1)/N)^2; standard error 1 %."""
    values = np.random.default_rng(3).random(100_000) * SPAN
    nearest, floor = (np.mean((LevelQuantizer(levels=levels, rounding=r).apply(values, SPAN) - values) ** 2) for r in ("nearest", "floor"))
    assert floor / nearest == pytest.approx(4.0 * ((levels - 1) / levels) ** 2, rel=0.04)
    assert nearest == pytest.approx((SPAN / (levels - 1)) ** 2 / 12.0, rel=0.04)


def test_a_column_without_span_stores_nothing() -> None:
    stored = LevelQuantizer(levels=4).apply(np.zeros((2, 3)), np.array([[0.0], [SPAN]]))
    np.testing.assert_array_equal(stored, 0.0)


def test_each_column_has_its_own_step() -> None:
    stored = LevelQuantizer(levels=3).apply(np.array([[0.3, 0.6], [0.3, 0.6]]), np.array([[1.0], [0.5]]))
    np.testing.assert_allclose(stored, [[0.5, 0.5], [0.25, 0.5]])


def test_fewer_than_two_levels_are_refused() -> None:
    with pytest.raises(SpecError, match="need levels >= 2, got 1; leave levels out for analog storage"):
        LevelQuantizer(levels=1)
