"""Arrays of non-linear cells: against a root finder on the same equations, the linear limit, power, and symmetries."""

import numpy as np
import pytest
from scipy.optimize import root

from devices.conduction import PolynomialConduction, SinhConduction
from devices.law import ConductionLaw
from devices.wires import Driven, solve
from devices.wires_nonlinear import NonlinearSolution, solve_nonlinear
from tests.test_devices_conduction import milo

SINH = SinhConduction(v0_v=0.1)
LAWS = [SINH, PolynomialConduction(coefficients=(0.5, 2.0), limit_v=0.6), milo()]
LINES = [(20.0, 30.0), (0.0, 30.0), (20.0, 0.0), (0.0, 0.0)]


def random_array(n: int, m: int, *, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    random = np.random.default_rng(seed)
    return 1.0 / random.uniform(4.5e3, 20e3, (n, m)), random.uniform(-0.5, 0.5, n)


def by_root(law: ConductionLaw, g: np.ndarray, v: np.ndarray, *, word_ohm: float, bit_ohm: float, both: bool) -> np.ndarray:
    """Return the columns' currents, Kirchhoff's law written node by node and given to a general root finder."""
    n, m = g.shape

    def wrong(x: np.ndarray) -> np.ndarray:
        word, bit = x.reshape(2, n, m)
        off = np.zeros((2, n, m))
        for i in range(n):
            for j in range(m):
                through = float(law.current_a(g[i : i + 1, j], word[i, j : j + 1] - bit[i, j])[0])
                left = v[i] if j == 0 else word[i, j - 1]
                off[0, i, j] = (left - word[i, j]) / word_ohm - through
                if j < m - 1:
                    off[0, i, j] -= (word[i, j] - word[i, j + 1]) / word_ohm
                elif both:
                    off[0, i, j] += (v[i] - word[i, j]) / word_ohm
                below = 0.0 if i == n - 1 else bit[i + 1, j]
                off[1, i, j] = through - (bit[i, j] - below) / bit_ohm
                if i > 0:
                    off[1, i, j] += (bit[i - 1, j] - bit[i, j]) / bit_ohm
        return 1e3 * off.ravel()

    start = np.concatenate([np.repeat(v, m), np.zeros(n * m)])
    found = root(wrong, start, method="hybr", options={"xtol": 1e-13})
    assert np.abs(wrong(found.x)).max() < 1e-9
    return found.x.reshape(2, n, m)[1, -1] / bit_ohm


@pytest.mark.parametrize("law", LAWS, ids=lambda law: law.kind)
@pytest.mark.parametrize(("size", "both"), [((1, 1), False), ((4, 3), False), ((3, 4), True), ((5, 1), True)])
def test_currents_are_those_of_a_general_root_finder(law: ConductionLaw, size: tuple[int, int], both: bool) -> None:
    """At 20 and 30 ohm, where lines take a percent; the linear array (the negative control) is off by a hundred times the tolerance."""
    g, v = random_array(*size)
    expected = by_root(law, g, v, word_ohm=20.0, bit_ohm=30.0, both=both)
    driven: Driven = "both_ends" if both else "one_end"
    found = solve_nonlinear(law, g, v, word_ohm=20.0, bit_ohm=30.0, driven=driven)
    np.testing.assert_allclose(found.current_a, expected, rtol=1e-8, atol=1e-13)
    linear = solve(g, v, word_ohm=20.0, bit_ohm=30.0, driven=driven).current_a
    assert np.abs(linear / expected - 1.0).max() > 1e-3


@pytest.mark.parametrize(("word", "bit"), LINES)
def test_cells_of_a_nearly_ohmic_curve_are_a_linear_array(word: float, bit: float) -> None:
    """A sinh at a millionth of its voltage: relative differences of its square, 1e-12."""
    g, v = random_array(24, 17)
    found = solve_nonlinear(SinhConduction(v0_v=5e5), g, v, word_ohm=word, bit_ohm=bit)
    np.testing.assert_allclose(found.current_a, solve(g, v, word_ohm=word, bit_ohm=bit).current_a, rtol=1e-9, atol=1e-15)
    assert found.n_steps <= 3


def powers(law: ConductionLaw, g: np.ndarray, v: np.ndarray, found: NonlinearSolution, word: float, bit: float) -> tuple[float, float]:
    """Return what sources give, and what cells and segments take, for lines driven at one end."""
    through = law.current_a(g, found.word_v - found.bit_v)
    along_word, along_bit = np.cumsum(through[:, ::-1], axis=1), np.cumsum(through, axis=0)
    taken = np.sum(through * (found.word_v - found.bit_v)) + word * np.sum(along_word**2) + bit * np.sum(along_bit**2)
    return float(np.sum(v * through.sum(axis=1))), float(taken)


@pytest.mark.parametrize("law", LAWS, ids=lambda law: law.kind)
@pytest.mark.parametrize(("word", "bit"), LINES)
def test_power_is_balanced(law: ConductionLaw, word: float, bit: float) -> None:
    """Cells and lines take what sources give, to rounding; with the ohmic array's voltages (the control) they do not."""
    g, v = random_array(48, 40)
    given, taken = powers(law, g, v, solve_nonlinear(law, g, v, word_ohm=word, bit_ohm=bit), word, bit)
    assert given == pytest.approx(taken, rel=1e-9)
    if word > 0.0 and bit > 0.0:
        linear = solve(g, v, word_ohm=word, bit_ohm=bit)
        wrong = NonlinearSolution(current_a=linear.current_a, word_v=linear.word_v, bit_v=linear.bit_v, n_iterations=0, n_steps=0)
        given, taken = powers(law, g, v, wrong, word, bit)
        assert abs(given / taken - 1.0) > 1e-4


def test_steps_are_few_even_far_into_the_exponential() -> None:
    """Five times v0 over the cells, lines that take most of it, 64 x 64."""
    g, v = random_array(64, 64, seed=3)
    found = solve_nonlinear(SINH, g, v, word_ohm=200.0, bit_ohm=200.0)
    assert found.n_steps <= 15
    given, taken = powers(SINH, g, v, found, 200.0, 200.0)
    assert given == pytest.approx(taken, rel=1e-9)


def test_a_start_near_the_solution_saves_steps_and_ends_at_the_same_place() -> None:
    g, v = random_array(32, 32)
    before = solve_nonlinear(SINH, g, v, word_ohm=20.0, bit_ohm=20.0)
    moved = g * np.random.default_rng(1).uniform(0.9999, 1.0001, g.shape)
    cold, warm = (solve_nonlinear(SINH, moved, v, word_ohm=20.0, bit_ohm=20.0, start=s) for s in (None, before))
    np.testing.assert_allclose(warm.current_a, cold.current_a, rtol=1e-9, atol=1e-15)
    assert warm.n_steps < cold.n_steps


def test_nothing_applied_is_nothing_read() -> None:
    g, _ = random_array(5, 4)
    found = solve_nonlinear(SINH, g, np.zeros(5), word_ohm=2.0, bit_ohm=2.0)
    assert np.all(found.current_a == 0.0)
