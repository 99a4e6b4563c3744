"""Energy, time and area of converters: the published tables."""

import pytest

from devices.base.errors import SpecError
from devices.converter import RampConverter, UniformConverter
from devices.converter_cost import ClockedModel, DacModel, FixedCost, SarModel, Schreier, SurveyRegression, Walden

SURVEY = {  # bits: (pJ, um2) at 10 MS/s, 100 MS/s, 1.2 GS/s; 32 nm
    4: ((0.924, 2160), (0.924, 3274), (0.924, 5130)),
    6: ((1.07, 2254), (1.07, 3417), (1.07, 5353)),
    8: ((1.71, 2598), (1.71, 3939), (1.85, 6313)),
    10: ((3.31, 3163), (3.31, 4796), (15.7, 11979)),
    12: ((7.17, 3987), (29.1, 9185), (150.0, 23528)),
}


@pytest.mark.parametrize("n_bits", SURVEY)
def test_the_survey_regression_is_the_published_table(n_bits: int) -> None:
    for rate, (energy, area) in zip((10e6, 100e6, 1.2e9), SURVEY[n_bits]):
        model = SurveyRegression(rate_hz=rate, technology_m=32e-9)
        assert model.energy_j(n_bits) == pytest.approx(energy * 1e-12, rel=0.006)
        assert model.area(n_bits) == pytest.approx(area * 1e-12, rel=0.003)
        assert model.time_s(n_bits) == 1.0 / rate


def test_the_isaac_point_is_a_ninth_above_what_isaac_charges() -> None:
    assert SurveyRegression(rate_hz=1.2e9, technology_m=32e-9).energy_j(8) / 1.667e-12 == pytest.approx(1.11, abs=0.01)


def test_figures_of_merit() -> None:
    assert [Schreier(fom_db=165.0).energy_j(b) * 1e12 for b in (6, 8, 10)] == pytest.approx([0.097, 1.55, 24.8], rel=0.01)
    assert [Walden(fom_j=10e-15).energy_j(b) * 1e12 for b in (6, 8, 10)] == pytest.approx([0.64, 2.56, 10.24], rel=1e-3)


def test_zigzag_models() -> None:
    model = SarModel(v_v=0.9, n_rows=128)
    assert [model.energy_j(b) * 1e12 for b in (4, 6, 8, 10)] == pytest.approx([0.324, 0.489, 0.701, 1.66], rel=0.002)
    assert [model.area(b) * 1e12 for b in (4, 6, 8, 10)] == pytest.approx([183, 618, 2085, 7036], rel=0.002)
    assert DacModel(v_v=1.0).energy_j(1) == 0.0
    assert DacModel(v_v=1.0).energy_j(8) == pytest.approx(400e-15)


def test_a_fixed_point_needs_its_source() -> None:
    assert FixedCost(energy_per_conversion_j=1.667e-12, source="ISAAC").energy_j(8) == 1.667e-12
    with pytest.raises(SpecError, match="source"):
        FixedCost(energy_per_conversion_j=1e-12, source="")


def test_costs_come_from_the_same_object() -> None:
    cost = SurveyRegression(rate_hz=1e8, technology_m=32e-9).cost("convert", n_bits=8)
    assert cost.energy_j == pytest.approx(1.71e-12, rel=0.005)
    assert cost.time_s == 1e-8
    with pytest.raises(ValueError, match="convert"):
        Walden(fom_j=1e-15).cost("read")


def test_mnsims_default_takes_ten_picojoules_and_eight_nanoseconds() -> None:
    """Choice 6 of its menu: 6 bits, 1 GS/s, 1.26 mW."""
    model = ClockedModel(power_w=1.26e-3, clock_hz=1e9, footprint_m2=1650e-12)
    assert model.time_s(6) == pytest.approx(8e-9)
    assert model.energy_j(6) == pytest.approx(10.08e-12)
    assert model.area(6) == 1650e-12


def test_times_of_conversions_where_they_are_known() -> None:
    assert SarModel(v_v=0.9, n_rows=128).time_s(8) == pytest.approx(8 * (0.00653 * 128 + 0.640) * 1e-9)
    fixed = FixedCost(energy_per_conversion_j=1e-12, time_per_conversion_s=2e-9, source="x")
    assert UniformConverter(n_bits=8, conversion=fixed).conversion_s == 2e-9
    assert RampConverter(n_bits=8, clock_hz=1e9, conversion=fixed).conversion_s == pytest.approx(256e-9), "a ramp's own clock counts"
    assert UniformConverter(n_bits=8, conversion=Walden(fom_j=1e-15)).conversion_s is None
    assert UniformConverter(n_bits=8).conversion_s is None
