"""Laws of conduction: their curves, slopes and terms, and what is refused."""

import numpy as np
import pytest

from accelsim.accelerator import Accelerator
from accelsim.conducting import ReadConduction
from devices.base.errors import SpecError
from devices.conduction import PolynomialConduction, SinhConduction, StateDependentConduction
from devices.law import ConductionLaw

G = np.array([50e-6, 80e-6, 130e-6, 225e-6])
V = np.linspace(-0.5, 0.5, 41)


def milo() -> StateDependentConduction:
    law = Accelerator.preset("rram_milo_iv").cell.conduction
    assert isinstance(law, StateDependentConduction)
    return law


LAWS: list[ConductionLaw] = [
    SinhConduction(v0_v=0.25),
    SinhConduction(v0_v=0.1, measured_at_v=0.2),
    PolynomialConduction(coefficients=(0.5, 2.0), limit_v=0.5),
    PolynomialConduction(coefficients=(0.0, -0.4), limit_v=0.5, measured_at_v=0.3),
    milo(),
]


@pytest.mark.parametrize("law", LAWS, ids=lambda law: law.kind)
def test_currents_are_odd_rise_with_the_voltage_and_start_at_zero(law: ConductionLaw) -> None:
    current = law.current_a(G[:, None], V)
    np.testing.assert_allclose(current, -law.current_a(G[:, None], -V), rtol=1e-12)
    assert np.all(np.diff(current, axis=1) > 0.0)
    assert np.all(law.current_a(G, np.zeros(4)) == 0.0)


@pytest.mark.parametrize("law", LAWS, ids=lambda law: law.kind)
def test_slopes_are_those_of_differences(law: ConductionLaw) -> None:
    v, step = np.array([-0.4, -0.1, 0.05, 0.3]), 1e-6
    by_difference = (law.current_a(G[:, None], v + step) - law.current_a(G[:, None], v - step)) / (2.0 * step)
    np.testing.assert_allclose(law.slope_siemens(G[:, None], v), by_difference, rtol=1e-7)
    inside = np.array([60e-6, 120e-6, 20e-6, 300e-6])  # two of them beyond what was fitted
    for above, below, slope in zip(law.terms(inside * 1.0001), law.terms(inside * 0.9999), law.term_slopes(inside)):
        np.testing.assert_allclose(slope, (above - below) / (2e-4 * inside), rtol=1e-6)


def test_a_cell_conducts_what_was_measured_at_the_voltage_where_it_was() -> None:
    for law in (SinhConduction(v0_v=0.1, measured_at_v=0.2), PolynomialConduction(coefficients=(0.5,), limit_v=0.5, measured_at_v=0.2)):
        np.testing.assert_allclose(law.current_a(G, np.full(4, 0.2)), 0.2 * G, rtol=1e-12)
    small = np.full(4, 1e-5)
    np.testing.assert_allclose(SinhConduction(v0_v=0.25).current_a(G, small), small * G, rtol=1e-8)


def test_hopping_is_the_published_hyperbolic_sine() -> None:
    """I0 sinh(V / V0): three voltages are enough to fix a ratio that no other curve has."""
    law = SinhConduction(v0_v=0.25)
    one, two, three = (float(law.current_a(G[:1], np.full(1, v))[0]) for v in (0.25, 0.5, 0.75))
    assert two / one == pytest.approx(2.0 * np.cosh(1.0), rel=1e-12)
    assert three / one == pytest.approx(np.sinh(3.0) / np.sinh(1.0), rel=1e-12)


def test_milos_curve_is_the_published_one() -> None:
    """By hand from the printed coefficients, at 50 uS and 0.5 V: 25 uA - 9.24 uA + 2.08 uA."""
    log = np.log10(50e-6)
    quadratic = 1.388e-4 * log**3 + 1.541e-3 * log**2 + 5.711e-3 * log + 7.063e-3
    cubic = 8.871e-5 * log**2 + 6.7919e-4 * log + 1.2968e-3
    expected = 50e-6 * 0.5 + quadratic * 0.25 + cubic * 0.125
    assert float(milo().current_a(G[:1], np.full(1, 0.5))[0]) == pytest.approx(expected, rel=1e-12)
    assert expected == pytest.approx(17.84e-6, rel=1e-3)


def test_beyond_what_was_fitted_the_curve_keeps_its_shape() -> None:
    law, v = milo(), np.full(1, 0.5)
    for end, beyond in ((50e-6, 5e-6), (225e-6, 400e-6)):
        relative = [float(law.current_a(np.full(1, g), v)[0]) / g for g in (end, beyond)]
        assert relative[0] == pytest.approx(relative[1], rel=1e-12)


def test_terms_at_a_read_voltage_add_up_to_the_current() -> None:
    for law in LAWS:
        read, u = ReadConduction(law=law, v_read_v=0.3), np.array([-1.0, -0.2, 0.5, 1.0])
        found = sum(c[:, None] * h for c, h in zip(read.terms(G), read.shapes(u)))
        np.testing.assert_allclose(found, law.current_a(G[:, None], 0.3 * u) / 0.3, rtol=1e-12)
        slope = sum(c[:, None] * h for c, h in zip(read.terms(G), read.shape_slopes(u)))
        np.testing.assert_allclose(slope, law.slope_siemens(G[:, None], 0.3 * u), rtol=1e-12)
        assert all(h.dtype == np.float32 for h in read.shapes(u.astype(np.float32)))


def test_mean_terms_of_cells_that_err_are_those_of_samples() -> None:
    """With the mean conductance instead, Milo's quadratic term is off by more than ten standard errors (the negative control)."""
    read, random = ReadConduction(law=milo(), v_read_v=0.5), np.random.default_rng(5)
    mean, std = 70e-6, 6e-6
    drawn = read.terms(mean + std * random.standard_normal(400_000))
    for found, sample in zip(read.mean_terms(np.full(1, mean), np.full(1, std**2)), drawn):
        error = sample.std() / np.sqrt(sample.size)
        assert abs(found[0] - sample.mean()) < 4.0 * error
    error = drawn[1].std() / np.sqrt(drawn[1].size)
    assert abs(read.terms(np.full(1, mean))[1][0] - drawn[1].mean()) > 10.0 * error


def test_drivers_give_no_more_than_their_limit_and_voltages_beyond_any_cell_are_refused() -> None:
    read, u = ReadConduction(law=SinhConduction(v0_v=0.1, limit_v=0.3), v_read_v=0.2), np.array([-5.0, -1.0, 1.0, 1.4, 5.0])
    held = read.shapes(u)[0]
    assert held[0] == -held[-1] == pytest.approx(-0.1 * np.sinh(3.0) / 0.2)
    np.testing.assert_array_equal(read.shape_slopes(u)[0] > 0.0, [False, True, True, True, False])
    with pytest.raises(SpecError, match=r"driven with 100 V.*limit_v"):
        ReadConduction(law=SinhConduction(v0_v=0.1), v_read_v=0.2).shapes(np.array([500.0]))


def test_a_curve_that_falls_is_refused() -> None:
    with pytest.raises(SpecError, match="limit_v"):
        PolynomialConduction(coefficients=(-2.0,), limit_v=0.5)
    with pytest.raises(SpecError, match="low_siemens"):
        StateDependentConduction(quadratic=(0.0,), cubic=(0.0,), low_siemens=2e-4, high_siemens=1e-4, limit_v=0.5)
    with pytest.raises(SpecError, match="overflows"):
        SinhConduction(v0_v=1e-3, measured_at_v=1.0)


def test_every_law_goes_through_a_spec() -> None:
    for preset, settings in (
        ("memse", ("cell.conduction.kind=sinh", "cell.conduction.v0_v=0.25", "cell.conduction.measured_at_v=0.2")),
        ("memse", ("cell.conduction.kind=polynomial", "cell.conduction.coefficients=[0,1.5]", "cell.conduction.limit_v=0.5")),
        ("rram_milo_iv", ()),
    ):
        chip = Accelerator.preset(preset, set=settings)
        assert Accelerator.from_text(chip.to_toml()).cell.conduction == chip.cell.conduction
