"""The strict codec: records from TOML with every fault at once, and back without loss."""

import tomllib
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import ClassVar, Literal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from devices import catalog
from devices.base.errors import SpecError
from devices.base.toml_codec import (
    MAX_DOTS_A_LINE,
    MAX_FILE_BYTES,
    Faults,
    about,
    check_types,
    decode,
    key_text,
    parse_toml,
    raise_faults,
    read_text,
    string_text,
    to_table,
    write_lines,
)


class Law:
    """A family."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Steady(Law):
    kind: ClassVar[str] = "steady"
    error_rel: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Fading(Law):
    kind: ClassVar[str] = "fading"
    t0_s: float
    sharp: bool = False

    def __post_init__(self) -> None:
        if self.t0_s <= 0.0:
            raise SpecError(f"need t0_s > 0, got {self.t0_s:g} s")


@dataclass(frozen=True, slots=True, kw_only=True)
class Part:
    area_m2: float = field(metadata=about("Area.", at_least=0.0))
    law: Law | None = field(
        default=None, metadata=about("Its law.", kinds=lambda: {"steady": Steady, "fading": Fading}, docs={"t0_s": "When it begins."})
    )

    def __post_init__(self) -> None:
        raise_faults(check_types(self))


@dataclass(frozen=True, slots=True, kw_only=True)
class Whole:
    name: str
    n_bits: int | None = field(default=None, metadata=about("Width.", at_least=1, absent="analog"))
    mode: Literal["fast", "slow"] = "fast"
    exact: bool = True
    v_read_v: float = field(default=0.5, metadata=about("Voltage.", above=0.0))
    gain: float = 1.0
    part: Part | None = None

    def __post_init__(self) -> None:
        raise_faults(check_types(self))


def read(text: str) -> Whole:
    faults = Faults("test.toml")
    record = decode(Whole, parse_toml(text, origin="test.toml"), faults=faults)
    faults.raise_if_any()
    assert record is not None
    return record


def refusal(text: str) -> str:
    with pytest.raises(SpecError) as caught:
        read(text)
    return str(caught.value)


positive = st.floats(min_value=0.0, exclude_min=True, allow_infinity=False)
finite = st.floats(allow_nan=False, allow_infinity=False)
texts = st.text(st.characters(exclude_categories=["Cs"]))
laws = st.none() | st.builds(Steady, error_rel=finite) | st.builds(Fading, t0_s=positive, sharp=st.booleans())
wholes = st.builds(
    Whole,
    name=texts,
    n_bits=st.none() | st.integers(1, 2**53),
    mode=st.sampled_from(["fast", "slow"]),
    exact=st.booleans(),
    v_read_v=positive,
    gain=finite,
    part=st.none() | st.builds(Part, area_m2=st.floats(min_value=0.0, allow_infinity=False), law=laws),
)


@given(record=wholes, comments=st.booleans())
def test_a_record_reads_back_equal_from_what_is_written(record: Whole, comments: bool) -> None:
    assert read("\n".join(write_lines(record, comments=comments))) == record


@given(record=wholes)
def test_a_record_reads_back_equal_from_its_table(record: Whole) -> None:
    faults = Faults("table")
    assert decode(Whole, to_table(record), faults=faults) == record


@given(text=texts)
def test_any_text_is_written_as_a_string_and_a_key_that_read_back(text: str) -> None:
    assert tomllib.loads(f"v = {string_text(text)}")["v"] == text
    assert tomllib.loads(f"{key_text(text)} = 1") == {text: 1}


def test_text_that_utf8_cannot_write_is_refused() -> None:
    with pytest.raises(SpecError, match="UTF-8"):
        string_text("\udcff")
    with pytest.raises(SpecError, match="UTF-8"):
        Whole(name="\udcff")


def test_what_does_not_print_is_escaped() -> None:
    assert string_text('é"\\\n\x1b\x9b\u202e\U000e0001') == r'"é\"\\\n\u001b\u009b\u202e\U000e0001"'


def test_all_faults_are_reported_at_once_with_path_value_and_rule() -> None:
    part = '[part]\narea_m2 = -1.0\nlaw = { kind = "stedy" }\n'
    message = refusal(f'nam = "x"\nn_bits = 0\nmode = "fats"\nexact = 1\nv_read_v = "3 S"\n{part}')
    assert message.splitlines() == [
        "8 faults in test.toml:",
        "  nam: unknown key; nearest: name",
        "  name: missing; need text in quotes",
        "  n_bits: 0: need n_bits >= 1",
        "  mode: 'fats': need fast | slow; nearest: fast",
        "  exact: 1: need true or false",
        "  v_read_v: '3 S': need a voltage in volt, e.g. \"0.2 V\"; S is a conductance",
        "  part.area_m2: -1.0: need area_m2 >= 0",
        "  part.law.kind: 'stedy': unknown kind; nearest: steady",
    ]


def test_a_rule_of_the_record_itself_is_reported_with_its_path() -> None:
    assert "part.law: need t0_s > 0, got -1 s" in refusal('name = "x"\n[part]\narea_m2 = 1\nlaw = { kind = "fading", t0_s = -1 }')


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("n_bits = true", "n_bits: true: need a whole number"),
        ("n_bits = 8.0", "n_bits: 8.0: need a whole number"),
        ('n_bits = "8"', "n_bits: '8': need a whole number"),
        ("n_bits = 99999999999999999999", "need a whole number of at most"),
        ("v_read_v = true", "v_read_v: true: .*a boolean is not a number"),
        ("v_read_v = nan", "v_read_v: nan: .*finite"),
        ("v_read_v = inf", "v_read_v: inf: .*finite"),
        ("v_read_v = 0", "v_read_v: 0: need v_read_v > 0"),
        ("v_read_v = 1979-05-27", "is not a number"),
        ("mode = 3", "need fast | slow"),
        ("part = 3", "part: 3: need a table of area_m2, law"),
        ("part = [1, 2]", "part: a list of 2: need a table"),
        ("part = { area_m2 = 1, law = 3 }", "part.law: 3: need a table with kind = steady | fading"),
        ("part = { area_m2 = 1, law = {} }", "part.law.kind: missing; need steady | fading"),
        ("part = { area_m2 = 1, law = { kind = ['steady'] } }", "part.law.kind: a list of 1: unknown kind"),
        ("part = { area_m2 = 1, law = { kind = 'steady', error_rel = 1, t0_s = 1 } }", "part.law.t0_s: unknown key"),
        ('"\\u001b[31m" = 1', r'"\\u001b\[31m": unknown key'),
    ],
)
def test_a_wrong_value_is_refused(line: str, said: str) -> None:
    with pytest.raises(SpecError, match=said):
        read(f'name = "x"\n{line}\n')


def test_none_makes_absent_what_may_be_absent() -> None:
    record = read('name = "none"\nn_bits = "none"\npart = "none"\n')
    assert (record.name, record.n_bits, record.part) == ("none", None, None)
    assert "exact: 'none'" in refusal('name = "x"\nexact = "none"')


def test_many_faults_are_counted_and_the_first_ones_shown() -> None:
    message = refusal('name = "x"\n' + "\n".join(f"k{i} = 1" for i in range(1000)))
    assert message.startswith("1000 faults")
    assert message.endswith("... and 980 more")


def test_python_values_are_held_to_the_same_rules() -> None:
    with pytest.raises(SpecError, match="v_read_v: true"):
        Whole(name="x", v_read_v=True)
    with pytest.raises(SpecError, match="units are for specs"):
        Whole(name="x", v_read_v="0.2 V")  # type: ignore[arg-type]
    with pytest.raises(SpecError, match="part: 'p': need a Part"):
        Whole(name="x", part="p")  # type: ignore[arg-type]
    assert type(Whole(name="x", v_read_v=1).v_read_v) is float


def test_comments_say_meaning_unit_range_and_default() -> None:
    text = "\n".join(write_lines(Whole(name="x", part=Part(area_m2=1e-6, law=Fading(t0_s=1.0))), comments=True))
    assert "# Width. (a whole number; n_bits >= 1; absent: analog)\n# n_bits is absent" in text
    assert "# Voltage. (volt; v_read_v > 0; default \"500 mV\")" in text
    assert '# Area. (metre2; area_m2 >= 0; required)\narea_m2 = "1 mm2"' in text
    assert "# Its law. (kind = steady | fading; may be absent)\n[part.law]" in text
    assert "# When it begins. (second; required)" in text


# files


def test_a_file_over_the_limit_is_refused_before_it_is_read(tmp_path: Path) -> None:
    path = tmp_path / "big.toml"
    path.write_bytes(b"#" * 10_000_000)
    with pytest.raises(SpecError, match=f"10000000 bytes; need at most {MAX_FILE_BYTES}"):
        read_text(path)


def test_what_is_no_regular_file_is_refused(tmp_path: Path) -> None:
    for path, said in [(tmp_path, "regular"), (Path("/dev/zero"), "regular"), (tmp_path / "no", "No such"), (Path("a\0b"), "no file")]:
        with pytest.raises(SpecError, match=said):
            read_text(path)


def test_a_file_that_is_not_utf8_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "latin.toml"
    path.write_bytes('name = "café"'.encode("latin-1"))
    with pytest.raises(SpecError, match="not UTF-8 at byte 11"):
        read_text(path)


def test_a_byte_order_mark_is_no_fault(tmp_path: Path) -> None:
    path = tmp_path / "bom.toml"
    path.write_bytes(b"\xef\xbb\xbfname = 'x'\r\n")
    assert read(read_text(path)).name == "x"


def test_a_syntax_error_is_reported_with_its_line() -> None:
    assert "test.toml: not TOML: " in refusal("name = 'x'\nn_bits =\n")
    assert "line 2" in refusal("name = 'x'\nn_bits =\n")


@pytest.mark.parametrize("text", ["a = " + "[" * 500, "a = " + "{a=" * 50_000, "a = " + "[" * 200_000])
def test_deep_nesting_is_refused(text: str) -> None:
    assert "nested too deeply" in refusal(text)


def test_a_key_of_very_many_parts_is_refused_before_tomllib_squares_them() -> None:
    assert f"dots; need at most {MAX_DOTS_A_LINE}" in refusal(".".join("a" * 100_000) + " = 1")


def test_an_integer_of_very_many_digits_is_refused() -> None:
    assert "not TOML" in refusal("n_bits = 1" + "0" * 5000)
    assert "a huge integer" in refusal("name = 'x'\nn_bits = 1" + "0" * 4000)


@given(text=st.text(max_size=200))
def test_any_text_is_a_record_or_a_spec_error(text: str) -> None:
    with suppress(SpecError):
        read(text)


# the catalog


def test_every_preset_has_a_summary_and_its_text() -> None:
    assert {"memse", "memse_compat"} <= set(catalog.names())
    for name in catalog.names():
        assert len(catalog.summary(name)) > 20
        assert f'name = "{name}"' in catalog.describe(name)


def test_an_unknown_preset_is_refused_with_the_nearest_and_the_list() -> None:
    with pytest.raises(SpecError, match="unknown preset 'mems'; nearest: memse; presets: digital_45nm, isaac, memse, memse_compat"):
        catalog.text("mems")
