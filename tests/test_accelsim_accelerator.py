"""Describing an accelerator: presets, files, overrides, `--set`, designs."""

import os
import pickle
import subprocess
import sys
from contextlib import suppress
from dataclasses import FrozenInstanceError, replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from accelsim.accelerator import Accelerator, ArraySize, Cell, Drive, LayerOverride, Mapping, Sense
from accelsim.design import Design
from devices.base.errors import SpecError
from devices.programming import ProportionalError, StateIndependentError
from devices.read_noise import ProportionalReadNoise, StateIndependentReadNoise

MEMSE = Accelerator.preset("memse")
ROOT = Path(__file__).parent.parent


def refusal(text: str, *, set: tuple[str, ...] = ()) -> str:
    with pytest.raises(SpecError) as caught:
        Accelerator.from_text('use = "memse"\n' + text, set=set)
    return str(caught.value)


def output_of(code: str, **environment: str) -> str:
    command = [sys.executable, "-c", code]
    return subprocess.run(command, cwd=ROOT, env={**os.environ, **environment}, capture_output=True, check=True, text=True).stdout


def using(text: str) -> Accelerator:
    return Accelerator.from_text('use = "memse"\n' + text)


rel = st.floats(0.0, 10.0)
g_max = st.floats(1e-9, 1.0)
fraction = st.floats(0.01, 1.0)
laws = st.none() | st.builds(StateIndependentError, error_rel=rel, clip=st.booleans()) | st.builds(ProportionalError, error_rel=rel)
noises = st.none() | st.builds(StateIndependentReadNoise, error_rel=rel) | st.builds(ProportionalReadNoise, error_rel=rel)
sizes = st.none() | st.builds(ArraySize, n_rows=st.none() | st.integers(1, 4096), n_columns=st.none() | st.integers(1, 4096))
names = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=12)


@st.composite
def accelerators(draw: st.DrawFn) -> Accelerator:
    high = draw(g_max)
    levels = st.none() | st.integers(2, 1024)
    base = Accelerator(
        name=draw(names),
        cell=Cell(
            g_min_siemens=high * draw(st.floats(0.0, 0.009)),
            g_max_siemens=high,
            source=draw(names),
            programming=draw(laws),
            read_noise=draw(noises),
        ),
        mapping=Mapping(
            scale=draw(st.sampled_from(["network", "layer", "column"])),
            g_used_siemens=draw(st.none() | fraction.map(lambda f: high * f)),
            levels=draw(levels),
            rounding=draw(st.sampled_from(["nearest", "floor"])),
            bias=draw(st.sampled_from(["digital", "device"])),
            precompensate=draw(st.booleans()),
            array=draw(sizes),
        ),
        drive=Drive(v_read_v=draw(st.floats(1e-3, 5.0)), t_read_s=draw(st.none() | st.floats(1e-12, 1.0))),
        sense=Sense(feedback_ohm=draw(st.none() | st.floats(1.0, 1e9))),
    )
    overrides = {
        name: LayerOverride(name=name, leaves=(("mapping.g_used_siemens", high * draw(fraction)), ("mapping.levels", draw(levels))))
        for name in draw(st.lists(names, max_size=3))
    }
    return replace(base, layers=tuple(overrides.values()))


# presets


def test_the_memse_preset_is_as_documented() -> None:
    assert MEMSE.cell == Cell(
        g_min_siemens=0.0, g_max_siemens=25e-6, source=MEMSE.cell.source, programming=StateIndependentError(error_rel=0.01, clip=True)
    )
    assert "arXiv 2205.01707" in MEMSE.cell.source
    assert MEMSE.mapping == Mapping(encoding="differential", scale="layer", bias="digital")
    assert MEMSE.drive == Drive(v_read_v=0.2)
    assert (MEMSE.sense, MEMSE.layers) == (Sense(), ())


def test_the_compatibility_preset_differs_in_levels_and_rounding_only() -> None:
    compat = Accelerator.preset("memse_compat")
    assert compat.mapping == replace(MEMSE.mapping, levels=128, rounding="floor")
    assert (replace(compat.cell, source=""), compat.drive) == (replace(MEMSE.cell, source=""), MEMSE.drive)


def test_a_preset_can_be_asked_for_by_name_like_a_file() -> None:
    assert Accelerator.from_toml("memse") == MEMSE
    with pytest.raises(SpecError, match="unknown preset 'mems'; nearest: memse"):
        Accelerator.from_toml("mems")
    with pytest.raises(SpecError, match="unknown preset"):
        Accelerator.preset("my_chip.toml")


# round trips


@given(chip=accelerators(), comments=st.booleans())
def test_an_accelerator_reads_back_equal_from_its_toml(chip: Accelerator, comments: bool) -> None:
    again = Accelerator.from_text(chip.to_toml(comments=comments))
    assert again == chip
    assert again.digest == chip.digest


def test_records_are_frozen_hashable_and_pickle() -> None:
    chip = MEMSE.with_set("layers.a.mapping.levels=4")
    assert pickle.loads(pickle.dumps(chip)) == chip
    assert hash(chip) == hash(chip.with_set())
    with pytest.raises(FrozenInstanceError):
        chip.name = "y"  # type: ignore[misc]


def test_the_digest_is_the_same_under_another_hash_seed() -> None:
    code = "from accelsim.accelerator import Accelerator as A; print(A.preset('memse').with_set('layers.a.levels=4').digest)"
    digests = {output_of(code, PYTHONHASHSEED=seed) for seed in ("1", "2")}
    assert digests == {MEMSE.with_set("layers.a.levels=4").digest + "\n"}


def test_the_digest_changes_with_every_value() -> None:
    assert len({MEMSE.digest, MEMSE.with_set("levels=2").digest, MEMSE.with_set("v_read_v=0.21").digest}) == 3


def test_the_complete_spec_explains_every_field() -> None:
    text = MEMSE.to_toml(comments=True)
    for said in ("# levels is absent", "absent: analog", 'g_max_siemens = "25 uS"', "g_min_siemens >= 0", '# [layers."features.0"]'):
        assert said in text


def test_a_repr_is_short() -> None:
    assert repr(MEMSE) == f"Accelerator('memse', 0 S to 25 uS, 200 mV, digest {MEMSE.digest[:8]})"


def test_importing_the_description_loads_no_slow_library() -> None:
    code = "import sys, accelsim.design; print({'numba', 'scipy', 'onnx', 'simpy', 'matplotlib'} & sys.modules.keys())"
    assert output_of(code) == "set()\n"


# bounds


def test_a_negative_conductance_is_refused() -> None:
    assert "cell.g_min_siemens: '-1 uS': need g_min_siemens >= 0" in refusal('[cell]\ng_min_siemens = "-1 uS"')


def test_a_reversed_range_is_refused() -> None:
    message = refusal('[cell]\ng_min_siemens = "100 uS"\ng_max_siemens = "1 uS"')
    assert "cell: need 0 <= g_min_siemens < g_max_siemens, got 0.0001 S and 1e-06 S" in message
    with pytest.raises(SpecError, match="need 0 <= g_min_siemens < g_max_siemens, got 1e-06 S and 1e-06 S"):
        Cell(g_min_siemens=1e-6, g_max_siemens=1e-6)


@pytest.mark.parametrize("used", ["26 uS", "0.5 uS"])
def test_a_used_conductance_outside_the_cells_range_is_refused(used: str) -> None:
    said = "mapping.g_used_siemens: need cell.g_min_siemens < g_used_siemens <= cell.g_max_siemens, got"
    assert said in refusal(f'[cell]\ng_min_siemens = "0.5 uS"\n[mapping]\ng_used_siemens = "{used}"')


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ('[cell]\ng_max_siemens = "25 uV"', "cell.g_max_siemens: '25 uV': need a conductance in siemens, e.g. \"25 uS\"; uV is a voltage"),
        ("[cell]\ng_mxa_siemens = 1", "cell.g_mxa_siemens: unknown key; nearest: g_max_siemens"),
        ("[cel]\ng_max_siemens = 1", "cel: unknown key; nearest: cell"),
        ('usee = "memse"', "usee: unknown key; nearest: use"),
        ("[layer.x]", "layer: unknown key; nearest: layers"),
        ("[cell.programming]\nkind = 'state_dependent'", "'state_dependent': unknown kind; nearest: state_independent"),
        ("[cell.programming]\nerror_rel = -0.1", "cell.programming: need 0 <= error_rel, got -0.1"),
        ("[cell.programming]\nerror_rel = nan", "cell.programming.error_rel: nan"),
        ("[cell.programming]\nclip = 1", "cell.programming.clip: 1: need true or false"),
        ("[cell.programming]\nkind = 'proportional'", "cell.programming.error_rel: missing"),
        ("[mapping]\nlevels = 1", "mapping.levels: 1: need levels >= 2"),
        ("[mapping]\nlevels = true", "mapping.levels: true: need a whole number"),
        ("[mapping]\narray = { n_rows = 0 }", "mapping.array.n_rows: 0: need n_rows >= 1"),
        ("[mapping]\nscale = 'colum'", "need network | layer | column; nearest: column"),
        ("[drive]\nv_read_v = false", "drive.v_read_v: false"),
        ("[drive]\nt_read_s = '20 S'", "S is a conductance"),
        ("schema = 2", "schema: 2: need 1"),
        ("name = 3", "name: 3: need text in quotes"),
        ("layers = 3", "layers: 3: need tables"),
        ("layers.x = 3", "layers.x: 3: need a table"),
    ],
)
def test_a_bad_spec_is_refused_with_path_value_and_rule(text: str, said: str) -> None:
    assert said in refusal(text)


def test_several_faults_come_at_once() -> None:
    layer = '[layers.x.mapping]\nlevels = 0\nscale = "layer"\n'
    message = refusal(f'[cell]\ng_max_siemens = "25 uV"\n[mapping]\nlevels = 1\nscal = "layer"\n{layer}')
    assert message.startswith("5 faults in spec (which uses memse):\n")
    for path in ("cell.g_max_siemens", "mapping.levels: 1", "mapping.scal:", "layers.x.mapping.levels: 0", "layers.x.mapping.scale"):
        assert message.count(f"  {path}") == 1


@pytest.mark.parametrize("text", ["a = " + "[" * 500, "a = " + "[" * 200_000, "[cell]\n" + ".".join("a" * 100_000) + " = 1"])
def test_hostile_nesting_is_refused(text: str) -> None:
    refusal(text)


def test_a_spec_of_ten_megabytes_is_refused(tmp_path: Path) -> None:
    (tmp_path / "big.toml").write_text("#" * 10_000_000)
    with pytest.raises(SpecError, match="need at most 262144"):
        Accelerator.from_toml(tmp_path / "big.toml")
    with pytest.raises(SpecError, match="need at most 262144"):
        Accelerator.from_text("#" * 10_000_000)


# use


def test_a_file_starts_from_what_it_uses_relative_to_itself(tmp_path: Path) -> None:
    (tmp_path / "sub").mkdir()
    (tmp_path / "base.toml").write_text('use = "memse"\n[mapping]\nlevels = 64\n[layers.a]\nmapping.levels = 4\n')
    layer = "[layers.a]\nmapping.precompensate = true\n"
    (tmp_path / "sub" / "chip.toml").write_text(f'use = "../base.toml"\n[cell.programming]\nerror_rel = 0.02\n{layer}')
    chip = Accelerator.from_toml(tmp_path / "sub" / "chip.toml")
    assert (chip.name, chip.mapping.levels, chip.cell.programming) == ("chip", 64, StateIndependentError(error_rel=0.02))
    assert chip.layers == (LayerOverride(name="a", leaves=(("mapping.levels", 4), ("mapping.precompensate", True))),)


def test_another_kind_replaces_the_whole_table() -> None:
    chip = using('[cell.programming]\nkind = "proportional"\nerror_rel = 0.1')
    assert chip.cell.programming == ProportionalError(error_rel=0.1)


def test_none_takes_away_what_the_base_has() -> None:
    chip = using('[cell]\nprogramming = "none"')
    assert chip.cell.programming is None
    assert Accelerator.from_text(chip.to_toml()) == chip


def test_a_circle_of_uses_is_refused(tmp_path: Path) -> None:
    (tmp_path / "a.toml").write_text('use = "b.toml"')
    (tmp_path / "b.toml").write_text('use = "a.toml"')
    with pytest.raises(SpecError, match="is a circle; remove one `use`"):
        Accelerator.from_toml(tmp_path / "a.toml")


def test_a_long_chain_of_uses_is_refused(tmp_path: Path) -> None:
    for i in range(9):
        (tmp_path / f"{i}.toml").write_text(f'use = "{i + 1}.toml"')
    with pytest.raises(SpecError, match="more than 8 specs deep"):
        Accelerator.from_toml(tmp_path / "0.toml")


@pytest.mark.parametrize(("used", "said"), [("3", "need the name of a preset"), ('"mems"', "nearest: memse"), ('"a.toml"', "presets only")])
def test_a_bad_use_is_refused(used: str, said: str) -> None:
    with pytest.raises(SpecError, match=said):
        Accelerator.from_text(f"use = {used}")


# --set


@pytest.mark.parametrize(
    ("assignment", "path", "value"),
    [
        ("cell.programming.error_rel=0.03", "cell.programming.error_rel", 0.03),
        ("cell.error_rel=0.03", "cell.programming.error_rel", 0.03),
        ("error_rel=3 %", "cell.programming.error_rel", 0.03),
        ("cell.clip=false", "cell.programming.clip", False),
        ("mapping.levels=128", "mapping.levels", 128),
        ("g_used_siemens=20uS", "mapping.g_used_siemens", 20e-6),
        ("g_used_siemens = '20 uS'", "mapping.g_used_siemens", 20e-6),
        ("mapping.g_used_siemens=20 \u00b5S", "mapping.g_used_siemens", 20e-6),
        ("rounding=floor", "mapping.rounding", "floor"),
        ("array.n_rows=256", "mapping.array.n_rows", 256),
        ("source=2026", "cell.source", "2026"),
        ('source="a=b"', "cell.source", "a=b"),
        ("name=a.b = c", "name", "a.b = c"),
    ],
)
def test_a_leaf_is_set_by_its_path_or_the_end_of_it(assignment: str, path: str, value: object) -> None:
    found: object = MEMSE.with_set(assignment)
    for name in path.split("."):
        found = getattr(found, name)
    assert found == value
    assert type(found) is type(value)


def test_a_table_is_set_whole_or_taken_away() -> None:
    noise = "cell.read_noise={kind='proportional', error_rel=0.005}"
    chip = MEMSE.with_set("mapping.array={n_rows=256, n_columns=128}", "cell.programming=none", noise)
    assert chip.mapping.array == ArraySize(n_rows=256, n_columns=128)
    assert (chip.cell.programming, chip.cell.read_noise) == (None, ProportionalReadNoise(error_rel=0.005))
    assert chip.with_set("array=none").mapping.array is None


def test_an_ambiguous_set_lists_the_candidates() -> None:
    noisy = MEMSE.with_set("cell.read_noise={kind='proportional', error_rel=0.005}")
    with pytest.raises(SpecError) as caught:
        noisy.with_set("cell.error_rel=0.03")
    assert str(caught.value) == "cell.error_rel: ambiguous; one of cell.programming.error_rel, cell.read_noise.error_rel"
    assert noisy.with_set("cell.clip=false").cell.programming == StateIndependentError(error_rel=0.01, clip=False)


def test_sets_are_applied_together_so_that_a_table_may_be_made_leaf_by_leaf() -> None:
    chip = MEMSE.with_set("cell.read_noise.kind=proportional", "cell.read_noise.error_rel=0.005")
    assert chip.cell.read_noise == ProportionalReadNoise(error_rel=0.005)


@pytest.mark.parametrize(
    ("assignment", "said"),
    [
        ("cell.eror_rel=1", "cell.eror_rel: unknown field; nearest: cell.programming.error_rel, cell.device_to_device.error_rel, "
            "cell.read_noise.error_rel"),
        ("drive.clip=true", "drive.clip: unknown field; nearest: cell.programming.clip"),
        ("use=memse", "use: unknown field"),
        ("levels", "need PATH=VALUE"),
        ("=3", "a name in the path is empty"),
        ("cell..error_rel=3", "a name in the path is empty"),
        ('layers."a=3', "need PATH=VALUE"),
        ("a." * 3000 + "b=1", "need at most 32"),
        ("levels=nan", "mapping.levels: nan: need a whole number"),
        ("levels=" + "[" * 3000, "need a whole number"),
        ("levels=", "mapping.levels: '': need a whole number"),
        ("error_rel=25 uV", "cell.programming.error_rel: '25 uV'"),
        ("layers=3", "need layers.NAME.FIELD"),
        ("layers.x=3", "need layers.NAME.FIELD"),
        ("layers.x.levls=3", "need layers.NAME.FIELD"),
        ("layers.x.mapping.scale=column", "layers.x.mapping.scale: a layer cannot differ in this"),
        ("layers.x.rate_hz=5", "layers.x.rate_hz: a layer cannot differ in this"),
        ("layers.x.g_used_siemens=30uS", "layers.x.mapping.g_used_siemens: need cell.g_min_siemens < g_used_siemens"),
    ],
)
def test_a_bad_set_is_refused(assignment: str, said: str) -> None:
    with pytest.raises(SpecError) as caught:
        MEMSE.with_set(assignment)
    assert said in str(caught.value)


def test_sets_apply_when_a_file_or_preset_is_read(tmp_path: Path) -> None:
    (tmp_path / "chip.toml").write_text('use = "memse"')
    assert Accelerator.from_toml(tmp_path / "chip.toml", set=["levels=16"]).mapping.levels == 16
    assert Accelerator.preset("memse", set=["levels=16"]) == MEMSE.with_set("levels=16")


@given(text=st.text(max_size=60))
def test_any_set_is_an_accelerator_or_a_spec_error(text: str) -> None:
    with suppress(SpecError):
        MEMSE.with_set(text)


# layers


@pytest.mark.parametrize(
    "assignment",
    [
        'layers."features.0".mapping.g_used_siemens=20uS',
        "layers.'features.0'.mapping.g_used_siemens=20uS",
        "layers.features.0.mapping.g_used_siemens=20uS",
        "layers.features.0.g_used_siemens=20uS",
    ],
)
def test_a_layer_may_differ_under_a_name_with_dots(assignment: str) -> None:
    chip = MEMSE.with_set(assignment)
    assert chip.layers == (LayerOverride(name="features.0", leaves=(("mapping.g_used_siemens", 20e-6),)),)


def test_a_layer_sees_its_own_values_and_the_rest_of_the_accelerator() -> None:
    layer = '[layers."features.0"]\nmapping.g_used_siemens = "20 uS"\nmapping.levels = "none"\ncell.programming.error_rel = 0.05'
    chip = using(f"[mapping]\nlevels = 128\n{layer}")
    local = chip.for_layer("features.0")
    assert (local.mapping.g_used_siemens, local.mapping.levels, local.layers) == (20e-6, None, ())
    assert local.cell.programming == StateIndependentError(error_rel=0.05)
    assert chip.for_layer("features.3") == replace(chip, layers=())
    assert local.drive == chip.drive


def test_a_layer_may_have_another_kind_of_law() -> None:
    chip = using('[layers.a.cell.programming]\nkind = "proportional"\nerror_rel = 0.1')
    assert chip.for_layer("a").cell.programming == ProportionalError(error_rel=0.1)
    assert Accelerator.from_text(chip.to_toml()) == chip


def test_layers_are_ordered_by_name_so_that_equal_specs_are_equal() -> None:
    assert MEMSE.with_set("layers.b.levels=2", "layers.a.levels=3") == MEMSE.with_set("layers.a.levels=3", "layers.b.levels=2")


def test_a_layer_made_in_python_is_checked_too() -> None:
    with pytest.raises(SpecError, match=r"layers\.a\.mapping\.levels: 1: need levels >= 2"):
        replace(MEMSE, layers=(LayerOverride(name="a", leaves=(("mapping.levels", 1),)),))
    with pytest.raises(SpecError, match="the same name twice"):
        replace(MEMSE, layers=(LayerOverride(name="a", leaves=()), LayerOverride(name="a", leaves=())))


# designs

conductances = st.floats(1e-9, 1e-3)
designs = st.one_of(
    st.builds(Design, g_used_siemens=st.dictionaries(names, conductances, min_size=1), origin=names),
    st.builds(
        Design,
        g_used_siemens=st.dictionaries(names, conductances | st.lists(conductances, min_size=1).map(tuple), min_size=1),
        scale=st.just("column"),
        network_digest=names,
    ),
)


@given(design=designs)
def test_a_design_reads_back_equal(design: Design) -> None:
    again = Design.from_text(design.to_toml())
    assert again == design
    assert hash(again) == hash(design)
    assert again.digest == design.digest
    assert pickle.loads(pickle.dumps(design)) == design


def test_a_design_of_many_columns_reads_back_from_a_file(tmp_path: Path) -> None:
    design = Design(g_used_siemens={f"layer.{i}": tuple(1e-6 + 1e-9 * j for j in range(1000)) for i in range(40)}, scale="column")
    (tmp_path / "design.toml").write_text(design.to_toml())
    assert Design.from_toml(tmp_path / "design.toml") == design


def test_a_design_cannot_be_changed_through_the_mapping_it_was_made_from() -> None:
    used = {"a": 1e-6}
    design = Design(g_used_siemens=used)
    used["a"] = 2e-6
    assert design.g_used_siemens["a"] == 1e-6
    with pytest.raises(TypeError):
        design.g_used_siemens["a"] = 2e-6  # type: ignore[index]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "g_used_siemens: need a table"),
        ("[g_used_siemens]", "g_used_siemens: need a table"),
        ("[g_used_siemens]\na = '1 uV'", "g_used_siemens.a: '1 uV': need a conductance"),
        ("[g_used_siemens]\na = -1", "g_used_siemens.a: -1: need g_used_siemens > 0"),
        ("[g_used_siemens]\na = true", "a boolean is not a number"),
        ("[g_used_siemens]\na = []", "g_used_siemens.a: need at least one column"),
        ("scale = 'column'\n[g_used_siemens]\na = [1, nan]", r"g_used_siemens.a[1]: nan"),
        ("[g_used_siemens]\na = [1e-6, 2e-6]", "needs scale = column, got layer"),
        ("scale = 'network'\n[g_used_siemens]\na = 1\nb = 2", "needs one conductance for all layers, got 2"),
        ("scale = 'colum'\n[g_used_siemens]\na = 1", "scale: 'colum': need network | layer | column; nearest: column"),
        ("scale = ['column']\n[g_used_siemens]\na = 1", "scale: a list of 1"),
        ("schema = 2\n[g_used_siemens]\na = 1", "schema: 2: need 1"),
        ("origin = 1\n[g_used_siemens]\na = 1", "origin: 1: need text"),
        ("orign = 'x'\n[g_used_siemens]\na = 1", "orign: unknown key; nearest: origin"),
    ],
)
def test_a_bad_design_is_refused(text: str, said: str) -> None:
    with pytest.raises(SpecError) as caught:
        Design.from_text(text)
    assert said in str(caught.value)


def test_a_design_outside_the_cells_range_is_refused_for_that_accelerator() -> None:
    design = Design(g_used_siemens={"a": 25e-6, "b": 20e-6})
    design.check_against(MEMSE)
    with pytest.raises(SpecError, match=r"g_used_siemens\.b: need g_min.* < g_used.* <= g_max.*, got 2e-05 S with 0 S and 1e-05 S"):
        design.check_against(MEMSE.with_set("layers.b.cell.g_max_siemens=10uS"))
