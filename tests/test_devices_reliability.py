"""Energy-reliability laws: published numbers, inverses, slopes by differences, refusals, round trips."""

from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pytest

from devices.base.errors import SpecError
from devices.base.toml_codec import Faults, about, decode, parse_toml, write_lines
from devices.reliability import (
    MEASURED_14NM,
    RELIABILITY_LAWS,
    Exponential,
    ExponentialPublished,
    FixedPoint,
    GaussianThreshold,
    Sram14nm,
)
from devices.reliability_law import ReliabilityLaw, check_same_reference
from devices.reliability_table import Tabulated, read_reliability

SMOOTH = (
    Exponential(),
    ExponentialPublished(),
    Sram14nm(),
    Sram14nm(fit="poster"),
    GaussianThreshold(threshold_mean_rel=0.6, threshold_std_rel=0.08, energy_reference="energy 1.0 is that of a read at 0.8 V", source="x"),
)
TABLES = [
    Tabulated(
        voltages_rel=tuple(v * 24 / 23 for v, _ in MEASURED_14NM[::-1]), energies_rel=tuple(v * v for v, _ in MEASURED_14NM[::-1]),
        error_rates_p=tuple(p for _, p in MEASURED_14NM[::-1]), energy_reference="energy 1.0 is that at Vmin", source="x", over=over,
    )
    for over in ("probit", "log")
]  # fmt: skip
FIXED = FixedPoint(error_rate_p=1e-6, energy_reference="energy 1.0 is that of a read", source="x")


@dataclass(frozen=True, slots=True, kw_only=True)
class Holder:
    law: ReliabilityLaw = field(metadata=about("A law.", kinds=lambda: RELIABILITY_LAWS))


def test_the_published_law_gives_the_published_energies() -> None:
    """T17: as in FaultyMemory and its test: bit errors {0, 0.278037, 1} cost 1.1 bits' energy; 1e-2, 1e-3, 1e-4 cost .360, .540, .720."""
    law = ExponentialPublished()
    assert law.energy_rel(np.array([0.0, 0.278037, 1.0])).sum() == pytest.approx(1.1, abs=1e-6)
    np.testing.assert_allclose(law.energy_rel(np.array([1e-4, 1e-3, 1e-2])), [0.720, 0.540, 0.3598], atol=5e-4)
    assert law.energy_rel(1e-2) == pytest.approx(0.35978, abs=1e-5)
    assert law.bounds[0] == pytest.approx(2.76e-6, rel=1e-3)


def test_a_published_trained_profile_costs_what_it_costs() -> None:
    """profiles/McDo.json of FaultyMemory: shares of bits and error rates of a trained network, 0.0868 of full energy."""
    shares, rates = np.array([0.0003, 0.0506, 0.2404, 0.7087]), np.array([0.0305, 0.1017, 0.2128, 0.4155])
    assert ExponentialPublished().energy_rel(rates) @ shares == pytest.approx(0.0868, abs=2e-4)
    np.testing.assert_allclose(Exponential().energy_rel(rates), [0.2726, 0.1786, 0.1209, 0.0686], atol=1e-4)
    assert 0.53 < Sram14nm().energy_rel(rates) @ shares < 0.57


def test_the_published_jumps_are_there_and_the_strict_law_refuses_them() -> None:
    published, strict = ExponentialPublished(), Exponential()
    assert published.energy_rel(0.0) == published.energy_rel(1e-7) == 1.0
    assert published.energy_rel(0.5) == published.energy_rel(1.0) == 0.0
    assert published.energy_rel(np.nextafter(0.5, 0.0)) == pytest.approx(np.log(2.0) / 12.8)
    assert published.error_rate(1.0) == 0.0
    assert published.error_rate(0.0) == published.error_rate(0.05) == 0.5
    assert published.slope(0.6) == published.slope(0.0) == 0.0
    for rate in (0.0, 1e-7, 0.51, 1.0):
        with pytest.raises(SpecError, match="exponential"):
            strict.energy_rel(rate)
    with pytest.raises(SpecError, match=r"energy_rel: 0\.01"):
        strict.error_rate(0.01)


def test_measured_cells_are_met_within_the_stated_ratio() -> None:
    law = Sram14nm()
    for v_rel, rate in MEASURED_14NM:
        assert 1 / 1.24 < law.error_rate_at(v_rel) / rate < 1.24
        assert law.energy_rel(rate) == pytest.approx(v_rel**2, abs=0.009)
    assert 3.5 < Sram14nm(fit="poster").error_rate_at(23 / 24) / MEASURED_14NM[0][1] < 4.2, "the two readings differ, as stated"


def test_the_poster_s_fit_gives_its_stated_voltages_and_points() -> None:
    law = Sram14nm(fit="poster")
    np.testing.assert_allclose(law.v_rel(np.array([1e-4, 1e-3, 1e-2, 2.5e-2])), [0.924, 0.887, 0.843, 0.822], atol=1.2e-3)
    read_off = {0.754: 0.197, 0.803: 0.050, 0.846: 1.12e-2, 0.889: 1.34e-3, 0.905: 4.0e-4, 0.947: 1.6e-5, 0.968: 2.1e-6}
    ratios = [law.error_rate_at(v) / p for v, p in read_off.items()]
    assert min(ratios) == pytest.approx(0.67, abs=0.03)
    assert max(ratios) == pytest.approx(1.68, abs=0.12)


def test_the_curve_decides_what_an_error_rate_saves() -> None:
    """p = 2.07 %, 3.3 times less energy by the exponential, is 1.49 times less on the measured curve."""
    assert 1 / Exponential().energy_rel(0.0207) == pytest.approx(3.3, abs=0.02)
    assert 1 / Sram14nm().energy_rel(0.0207) == pytest.approx(1.49, abs=0.01)


@pytest.mark.parametrize("law", [*SMOOTH, *TABLES], ids=lambda law: law.kind)
def test_energy_and_error_rate_are_inverse_and_slopes_are_derivatives(law: ReliabilityLaw) -> None:
    least, largest = law.bounds
    rates = np.geomspace(least * 1.01, largest * 0.99, 200)
    energies = law.energy_rel(rates)
    assert np.all(np.diff(energies) < 0.0)
    np.testing.assert_allclose(law.error_rate(energies), rates, rtol=1e-9)
    step = 1e-5 * rates
    differences = (law.energy_rel(rates + step) - law.energy_rel(rates - step)) / (2 * step)
    np.testing.assert_allclose(law.slope(rates), differences, rtol=1e-6)
    assert law in TABLES or np.all(np.diff(law.slope(rates)) > 0.0), "convex up to 1/2: reverse water-filling needs no hull"
    assert isinstance(law.energy_rel(0.1), float)
    assert isinstance(law.slope(0.1), float)
    assert law.energy_rel(rates.reshape(20, 10)).shape == (20, 10)


@pytest.mark.parametrize("law", [*SMOOTH[2:], *TABLES], ids=lambda law: law.kind)
def test_voltages_and_error_rates_are_inverse(law: ReliabilityLaw) -> None:
    rates = np.geomspace(*law.bounds, 50)
    np.testing.assert_allclose(law.error_rate_at(law.v_rel(rates)), rates, rtol=1e-9)
    if law not in TABLES:
        np.testing.assert_allclose(law.v_rel(rates) ** 2, law.energy_rel(rates), rtol=1e-12)


def test_a_fixed_point_is_one_point() -> None:
    assert FIXED.energy_rel(1e-6) == 1.0
    assert FIXED.error_rate(1.0) == 1e-6
    with pytest.raises(SpecError, match="fixed_point"):
        FIXED.energy_rel(1e-5)
    with pytest.raises(SpecError, match="nothing can be traded"):
        FIXED.slope(1e-6)


def test_energies_of_different_references_are_not_mixed() -> None:
    assert check_same_reference([Sram14nm(), Sram14nm(fit="poster")]) == Sram14nm().energy_reference
    with pytest.raises(SpecError, match="different references"):
        check_same_reference([Sram14nm(), Exponential()])
    with pytest.raises(SpecError, match="different references"):
        check_same_reference([ExponentialPublished(), Exponential()])


def test_what_is_out_of_bounds_is_refused_with_the_value() -> None:
    with pytest.raises(SpecError, match=r"error_rate: 0\.6: need"):
        Sram14nm().energy_rel(np.array([0.1, 0.6]))
    with pytest.raises(SpecError, match="finite"):
        Sram14nm().energy_rel(float("nan"))
    with pytest.raises(SpecError, match=r"v_rel: 1\.2: need"):
        Sram14nm().error_rate_at(1.2)
    with pytest.raises(SpecError, match="knows no voltage"):
        Exponential().v_rel(0.1)
    with pytest.raises(SpecError, match="a: "):
        Exponential(a=0.5)
    with pytest.raises(SpecError, match="threshold_mean_rel"):
        GaussianThreshold(threshold_mean_rel=1.5, threshold_std_rel=0.1, energy_reference="x", source="x")


@pytest.mark.parametrize("law", [*SMOOTH, *TABLES, FIXED, Exponential(a=9.5)], ids=lambda law: law.kind)
def test_laws_round_trip_and_say_their_reference_and_source(law: ReliabilityLaw) -> None:
    text = "\n".join(write_lines(Holder(law=law)))
    faults = Faults("text")
    back = decode(Holder, parse_toml(text, origin="text"), faults=faults)
    faults.raise_if_any()
    assert back == Holder(law=law)
    assert law.energy_reference.startswith("energy 1.0 is ")
    assert law.source


CSV = "# cells of wafer 7\nenergy (pJ),p,V (mV)\n2.00,1e-4,750\n1.2,2e-2,600\n2.5,1e-6,800\n"


def test_a_table_goes_through_its_rows_and_a_gaussian_threshold_comes_back(tmp_path: Path) -> None:
    path = tmp_path / "cells.csv"
    path.write_text(CSV)
    law = read_reliability(path, source="wafer 7")
    np.testing.assert_allclose(law.energy_rel(np.array([2e-2, 1e-4, 1e-6])), [0.48, 0.8, 1.0], rtol=1e-12)
    np.testing.assert_allclose(law.v_rel(np.array([2e-2, 1e-4, 1e-6])), [0.75, 0.9375, 1.0], rtol=1e-12)
    assert law.energy_reference == "energy 1.0 is 2.5 pJ, that at the highest voltage of cells.csv, 800 mV"
    truth = SMOOTH[2]
    volts = np.linspace(0.75, 0.96, 8)
    rows = "".join(f"{v},{v * v},{truth.error_rate_at(float(v))!r}\n" for v in volts)
    path.write_text("v_rel,energy_rel,p\n" + rows)
    law = read_reliability(path, source="x", energy_reference="energy 1.0 is that at Vmin")
    rates = np.geomspace(*law.bounds, 100)
    np.testing.assert_allclose(law.energy_rel(rates), truth.energy_rel(rates), atol=1e-3)
    np.testing.assert_allclose(law.v_rel(rates) * 0.96, truth.v_rel(rates), atol=1e-12)


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("2.00,1e-4", "2.00,3e-2", "line 4 and line 3: p goes from 0.02 to 0.03"),
        ("2.00,1e-4", "2.6,1e-4", "line 3 and line 5: energy goes from"),
        ("750", "600", "line 3 and line 4: voltages"),
        ("1e-6", "0", "line 5: p: 0: .*leave out voltages"),
        ("2e-2", "0.7", "line 4: p: 0.7"),
        ("2e-2", "x", "line 4: p: 'x': need a number"),
        ("V (mV)", "V", "header: 'V'"),
        ("V (mV)", "V (pJ)", "header: v: 'pJ'"),
        ("V (mV)", "energy (J)", "second column"),
        (",p,", ",q,", "header: 'q'"),
        ("energy (pJ)", "energy_rel", "energy_rel: over what"),
        ("2.5,1e-6,800", "2.5,1e-6", "line 5: 2 values"),
    ],
)
def test_a_table_that_is_no_law_is_refused_with_its_rows(tmp_path: Path, old: str, new: str, message: str) -> None:
    path = tmp_path / "cells.csv"
    path.write_text(CSV.replace(old, new))
    with pytest.raises(SpecError, match=message):
        read_reliability(path, source="x")


def test_entries_of_a_table_in_a_spec_are_held_to_the_same() -> None:
    shared = {"voltages_rel": (0.8, 1.0), "energy_reference": "energy 1.0 is x", "source": "x"}
    with pytest.raises(SpecError, match="entry 0 and entry 1: p goes"):
        Tabulated(energies_rel=(0.64, 1.0), error_rates_p=(1e-4, 1e-3), **shared)
    with pytest.raises(SpecError, match="one of each"):
        Tabulated(energies_rel=(0.64,), error_rates_p=(1e-3, 1e-4), **shared)
