"""Quantities: text with a unit in, SI floats out, and back without loss."""

import math
from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from devices.base.errors import SpecError
from devices.base.quantity import UNITS, format_quantity, parse_quantity, unit_of

finite = st.floats(allow_nan=False, allow_infinity=False)


@pytest.mark.parametrize(
    ("text", "unit", "value"),
    [
        ("0.5 uS", "siemens", 0.5e-6),
        ("25 \u00b5S", "siemens", 25e-6),
        ("25 \u03bcS", "siemens", 25e-6),
        ("25uS", "siemens", 25e-6),
        (" 20 mS ", "siemens", 20e-3),
        ("0.2 V", "volt", 0.2),
        ("10 kohm", "ohm", 10e3),
        ("10 k\u03a9", "ohm", 10e3),
        ("10 k\u2126", "ohm", 10e3),
        ("20 s", "second", 20.0),
        ("100 ns", "second", 100e-9),
        ("2 h", "second", 7200.0),
        ("1 day", "second", 86400.0),
        ("10 mW", "watt", 10e-3),
        ("1.5 pJ", "joule", 1.5e-12),
        ("1e3 fF", "farad", 1e-12),
        ("1 MHz", "hertz", 1e6),
        ("1 mm2", "metre2", 1e-6),
        ("1.44 um\u00b2", "metre2", 1.44e-12),
        ("3 %", "relative", 0.03),
        ("0.1 %", "probability", 0.001),
        ("1e-3", "relative", 1e-3),
        ("-.5", "number", -0.5),
        (3, "volt", 3.0),
        (25e-6, "siemens", 25e-6),
    ],
)
def test_a_quantity_is_the_float_that_its_digits_name(text: object, unit: str, value: float) -> None:
    assert parse_quantity(text, unit) == value


@pytest.mark.parametrize(
    ("value", "unit", "said"),
    [
        ("25 uV", "siemens", "need a conductance in siemens.*uV is a voltage"),
        ("25 us", "siemens", "us is a time"),
        ("20 S", "second", "need a time in seconds?.*S is a conductance"),
        ("25 KS", "siemens", "'KS' is no unit here; nearest: kS"),
        ("10 m", "ohm", "m is a length"),
        ("10 q", "ohm", "'q' is no unit here"),
        ("3 %", "volt", "% is a ratio"),
        ("2 h", "volt", "'h' is no unit here"),
        ("uS", "siemens", "does not begin with a number"),
        ("", "siemens", "does not begin with a number"),
        ("1_000 V", "volt", "no unit"),
        ("\u0661 V", "volt", "does not begin with a number"),
        ("nan", "volt", "does not begin with a number"),
        ("inf V", "volt", "does not begin with a number"),
        ("1e999 V", "volt", "finite"),
        ("1" * 100, "volt", "need a voltage"),
        (math.nan, "volt", "finite"),
        (math.inf, "volt", "finite"),
        (-math.inf, "volt", "finite"),
        (10**400, "volt", "too large"),
        (True, "volt", "a boolean is not a number"),
        (False, "relative", "a boolean is not a number"),
        (None, "volt", "nothing is not a number"),
        ([1], "volt", "a list is not a number"),
        ({"a": 1}, "volt", "a table is not a number"),
    ],
)
def test_what_is_not_the_expected_quantity_is_refused_with_what_was_expected(value: object, unit: str, said: str) -> None:
    with pytest.raises(SpecError, match=said) as caught:
        parse_quantity(value, unit)
    assert f"need {UNITS[unit].measures}" in str(caught.value)


@pytest.mark.parametrize(
    ("value", "unit", "text"),
    [
        (25e-6, "siemens", "25 uS"),
        (0.5e-6, "siemens", "500 nS"),
        (1e4, "ohm", "10 kohm"),
        (20.0, "second", "20 s"),
        (0.0, "siemens", "0 S"),
        (1e-6, "metre2", "1 mm2"),
        (0.01, "relative", "0.01"),
        (1.0, "number", "1"),
        (1e-30, "joule", "1e-30 J"),
        (1 / 3 * 1e-6, "siemens", "333.3333333333333 nS"),
    ],
)
def test_a_quantity_is_printed_with_a_prefix(value: float, unit: str, text: str) -> None:
    assert format_quantity(value, unit) == text


def test_a_quantity_can_be_printed_with_fewer_digits() -> None:
    assert format_quantity(1 / 3 * 1e-6, "siemens", n_digits=3) == "333 nS"
    assert format_quantity(0.9999e-3, "siemens", n_digits=2) == "1 mS"


@given(value=finite, unit=st.sampled_from(sorted(UNITS)))
def test_what_is_printed_reads_back_as_the_same_float(value: float, unit: str) -> None:
    assert parse_quantity(format_quantity(value, unit), unit) == value


@given(value=finite, unit=st.sampled_from(sorted(UNITS)))
def test_a_plain_number_is_in_the_expected_unit(value: float, unit: str) -> None:
    assert parse_quantity(value, unit) == value
    assert parse_quantity(repr(value), unit) == value


@given(text=st.text(max_size=80), unit=st.sampled_from(sorted(UNITS)))
def test_any_text_is_a_finite_number_or_a_spec_error(text: str, unit: str) -> None:
    with suppress(SpecError):
        assert math.isfinite(parse_quantity(text, unit))


def test_minus_zero_is_zero() -> None:
    assert math.copysign(1.0, parse_quantity(-0.0, "volt")) == 1.0


@pytest.mark.parametrize(
    ("name", "unit"),
    [
        ("g_max_siemens", "siemens"), ("feedback_ohm", "ohm"), ("v_read_v", "volt"), ("t_read_s", "second"), ("power_w", "watt"),
        ("read_energy_j", "joule"), ("rate_hz", "hertz"), ("area_m2", "metre2"), ("error_rel", "relative"), ("flip_p", "probability"),
        ("nu_mean", "number"), ("levels", "number"), ("v", "number"),
    ],
)  # fmt: skip
def test_the_name_of_a_field_says_its_unit(name: str, unit: str) -> None:
    assert unit_of(name) == unit
