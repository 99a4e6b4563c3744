"""The fuzzer: a few hundred mutants break no rule, every rule can be broken, and what was found once stays mended."""

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from accelsim import Accelerator, RunFolderError, SpecError
from accelsim.cli import main
from validation.fuzz import child, oracle, questions
from validation.fuzz.cases import Case, write_case
from validation.fuzz.sound import Runs, write_sound

ROOT = Path(__file__).parents[1]
linux = pytest.mark.skipif(sys.platform != "linux", reason="needs forks and limits of memory")
Answer = tuple[int, str, str]
Cli = Callable[..., Answer]


@linux
def test_two_hundred_mutants_break_no_rule(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "validation", "fuzz", "--n", "200", "--seed", "11", "--out", str(tmp_path / "fuzz")]
    environment = {**os.environ, "OPENBLAS_NUM_THREADS": "1"}
    ended = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, check=False, env=environment)
    assert ended.returncode == 0, ended.stdout + ended.stderr
    assert "200 cases" in ended.stdout
    assert "0 distinct findings" in ended.stdout
    again = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, check=False, env=environment)
    assert "200 of 200 cases are done already" in again.stdout


@linux
def test_a_case_is_the_same_each_time(tmp_path: Path) -> None:
    runs = Runs(tmp_path / "sound")
    runs.make()
    for number in range(20):
        found = []
        for turn in ("a", "b"):
            folder = tmp_path / f"{turn}{number}"
            folder.mkdir()
            case = write_case(3, number, folder, runs)
            files = {str(p.relative_to(folder)): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file() and not p.is_symlink()}
            found.append((case, files))
        assert found[0] == found[1]


# every rule can be broken


def _ended(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, verb: Callable[[Any], int]) -> list[str]:
    """Return the rules that a verb breaks when it stands for `devices`."""
    from accelsim import cli_commands

    monkeypatch.setitem(cli_commands.VERBS, "devices", verb)  # type: ignore[arg-type]
    monkeypatch.setattr(child, "CPU_S", 1)
    (tmp_path / "case").mkdir()
    case = Case(kind="control", argv=("devices",), names=("mutant.onnx",))
    ending = child.start_limited(case.argv, tmp_path / "case", tmp_path / "record").ended()
    return sorted({finding.rule for finding in oracle.findings(case, ending, tmp_path / "case", frozenset())})


def _crashes(_: Any) -> int:
    raise KeyError("x")


def _hangs(_: Any) -> int:
    while True:
        pass


def _eats(_: Any) -> int:
    return len(bytearray(3 * 2**30))


def _looks_around(_: Any) -> int:
    with open("/etc/hostname", "rb") as file:
        return 0 * len(file.read())


def _litters(_: Any) -> int:
    Path(".half.tmp").touch()
    return 0


def _calls(_: Any) -> int:
    return 0 * subprocess.run(["true"], check=False).returncode


def _says_nothing_of_use(_: Any) -> int:
    raise SpecError("something is wrong")


def _shouts(_: Any) -> int:
    raise SpecError("mutant.onnx: " + "very " * 1000 + "wrong")


@linux
@pytest.mark.parametrize(
    ("verb", "rule"),
    [
        (_crashes, "traceback"), (_hangs, "hang"), (_eats, "memory"), (_looks_around, "outside"), (_litters, "litter"), (_calls, "outside"),
        (_says_nothing_of_use, "no place"), (_shouts, "refusal"), (lambda _: 7, "exit code"),
    ],
)  # fmt: skip
def test_a_broken_rule_is_found(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, verb: Callable[[Any], int], rule: str) -> None:
    assert rule in _ended(monkeypatch, tmp_path, verb)


@linux
def test_a_verb_that_keeps_the_rules_is_left_alone(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    assert _ended(monkeypatch, tmp_path, lambda _: 0) == []


# what was found once


@pytest.fixture
def cli(capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Cli:
    """Return a way to run `accelsim` in a folder with `tiny.onnx` and `tiny.npz`."""
    monkeypatch.chdir(tmp_path)
    write_sound(tmp_path)

    def run(*arguments: object) -> Answer:
        code = main([str(argument) for argument in arguments])
        captured = capsys.readouterr()
        return code, captured.out, captured.err

    return run


ASK = ("--inputs", "tiny.npz", "--seed", 1, "--method", "adjoint")


def _refused(answer: Answer, *words: str) -> None:
    code, out, err = answer
    assert (code, out) == (2, ""), err
    assert all(word in err for word in words), err
    assert "Traceback" not in err
    assert "encountered in" not in err
    assert len(err) < 3000


def _changed(change: Callable[[onnx.ModelProto], object]) -> None:
    model = onnx.load("tiny.onnx")
    change(model)
    Path("bad.onnx").write_bytes(model.SerializeToString())


def test_an_attribute_that_refers_to_a_function_is_refused(cli: Cli) -> None:
    def refer(model: onnx.ModelProto) -> None:
        model.graph.node[2].attribute[0].ref_attr_name = "size"

    _changed(refer)
    _refused(cli("predict", "bad.onnx", *ASK), "bad.onnx: node 'c'", "has no value of its own")
    assert cli("inspect", "bad.onnx")[0] == 0


def test_a_refusal_names_the_file_and_is_short(cli: Cli) -> None:
    _changed(lambda model: model.graph.node[0].attribute.append(helper.make_attribute("strides", [7] * 5000)))
    _refused(cli("predict", "bad.onnx", *ASK), "bad.onnx: node 'a': Conv (opset 17): strides")
    _changed(lambda model: model.graph.node.pop(1))
    _refused(cli("predict", "bad.onnx", *ASK), "bad.onnx: node", "which no earlier node")
    np.savez("bad.npz", x=np.zeros((2, 5), np.float32))
    _refused(cli("predict", "tiny.onnx", "--inputs", "bad.npz", "--seed", 1), "bad.npz: x has samples of shape")


def test_external_data_of_a_name_that_no_file_has_is_one_short_message(cli: Cli) -> None:
    def elsewhere(model: onnx.ModelProto) -> None:
        tensor = model.graph.initializer[0]
        tensor.ClearField("raw_data")
        tensor.data_location = TensorProto.EXTERNAL
        entry = tensor.external_data.add()
        entry.key, entry.value = "location", "x" * 5000

    _changed(elsewhere)
    _refused(cli("inspect", "bad.onnx"), "bad.onnx: tensor 'conv1.weight' names the external file")


def test_weights_beyond_float32s_squares_are_refused_even_where_nothing_reaches_them(cli: Cli) -> None:
    def grow(model: onnx.ModelProto) -> None:
        weights = numpy_helper.to_array(model.graph.initializer[2]).copy()
        weights[0, 0] = 1e30
        model.graph.initializer[2].CopyFrom(numpy_helper.from_array(weights, "fc1.weight"))
        model.graph.initializer[0].CopyFrom(numpy_helper.from_array(np.zeros((2, 1, 3, 3), np.float32), "conv1.weight"))
        model.graph.initializer[1].CopyFrom(numpy_helper.from_array(np.array([-1, -1], np.float32), "conv1.bias"))

    _changed(grow)
    _refused(cli("predict", "bad.onnx", *ASK), "weights of layer 'fc1' of bad reach 1e+30")


@pytest.mark.parametrize(
    "law",
    [
        "kind = 'levels'\nmeans_rel = [0, 1]\nstds_rel = [4294967296, 0.003]",
        "kind = 'polynomial'\ncoefficients_siemens = [1e9]\nover_siemens = '25 uS'",
        "kind = 'tabulated'\npoints_siemens = ['1 uS']\nstds_siemens = [1e9]",
        "kind = 'saturating'\ntop_siemens = 1e9\nknee_siemens = '1 uS'",
    ],
)
def test_a_law_whose_errors_no_cell_has_is_refused(cli: Cli, law: str) -> None:
    Path("s.toml").write_text(f'use = "memse"\n[cell.programming]\n{law}\n')
    _refused(cli("predict", "tiny.onnx", *ASK, "--spec", "s.toml"), "s.toml", "cell.programming", "need at most 1000 times g_max_siemens")


def test_laws_of_presets_are_within_that_bound() -> None:
    from devices import catalog

    assert all(Accelerator.preset(name).cell.g_max_siemens > 0.0 for name in catalog.names())


def test_a_pipeline_needs_a_layer_with_weights(cli: Cli) -> None:
    graph = helper.make_graph(
        [helper.make_node("Relu", ["x"], ["y"])], "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["N", 4])], [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)],
    )  # fmt: skip
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)]), "bare.onnx")
    _refused(cli("simulate", "bare.onnx", "--spec", "pipecnn_de1"), "bare has no layer with weights")


def test_a_spec_uses_specs_only(cli: Cli, tmp_path: Path) -> None:
    (tmp_path / "secret").write_text('use = "memse"\n')
    (tmp_path / "link.toml").symlink_to("secret")
    (tmp_path / "base.toml").write_text('use = "memse"\n')
    for used in ("./secret", "/etc/hostname", "link.toml"):
        Path("s.toml").write_text(f'use = "{used}"\n')
        _refused(cli("spec", "s.toml"), "use:", "need the name of a preset, or of a spec file that ends in .toml")
    Path("s.toml").write_text('use = "base.toml"\n')
    assert cli("spec", "s.toml")[0] == 0


def test_times_that_no_clock_counts_are_refused(cli: Cli) -> None:
    Path("t.csv").write_text("0\n1e308\n")
    _refused(cli("simulate", "tiny.onnx", "--images", 2, "--arrivals", "t.csv"), "arrivals: need 2 times in seconds from 0 to 1e+06")


def test_a_fit_and_a_design_name_their_file(cli: Cli) -> None:
    rows = "\n".join(f"1,{1 + 1e6 * (-1) ** i}" for i in range(40))
    Path("m.csv").write_text(f"target (uS),programmed (uS)\n{rows}\n")
    _refused(cli("fit", "m.csv", "--kind", "state_independent"), "m.csv")
    Path("d.toml").write_text('[g_used_siemens]\nfc9 = "10 uS"\n')
    _refused(cli("predict", "tiny.onnx", *ASK, "--design", "d.toml"), "d.toml: design names a layer")


def test_a_run_folder_reads_nothing_elsewhere(cli: Cli, tmp_path: Path) -> None:
    assert cli("predict", "tiny.onnx", *ASK, "--out", "run")[0] == 0
    (tmp_path / "run" / "spec.toml").rename(tmp_path / "spec.toml")
    for target in ("../spec.toml", "spec.toml", "/etc/hostname"):
        (tmp_path / "run" / "spec.toml").unlink(missing_ok=True)
        (tmp_path / "run" / "spec.toml").symlink_to(target)
        _refused(cli("diff", "run", "run"), "run: spec.toml is a link that leads out of the run folder")


def test_a_damaged_spec_in_a_record_is_one_message(cli: Cli, tmp_path: Path) -> None:
    import hashlib

    assert cli("predict", "tiny.onnx", *ASK, "--out", "run")[0] == 0
    record, manifest = tmp_path / "run" / "record.json", tmp_path / "run" / "manifest.json"
    held, kept = json.loads(record.read_text()), json.loads(manifest.read_text())
    held["fields"]["provenance"]["spec_toml"] = "'"
    record.write_text(json.dumps(held))
    kept["sha256"]["record.json"] = hashlib.sha256(record.read_bytes()).hexdigest()
    manifest.write_text(json.dumps(kept))
    _refused(cli("diff", "run", "run"), "run: spec_toml in record.json: not TOML")


def test_what_was_typed_comes_back_without_control_characters(cli: Cli) -> None:
    code, out, err = cli("devices", "memse", "--x\x1b[31m\x7f")
    assert (code, out) == (2, "")
    assert all(c.isprintable() or c == "\n" for c in err)


# what came with sweeps, searches and checkpoints


TRIALS = ("--max-trials", 32, "--threads", 1, "--checkpoint", "trials.npz")


@pytest.mark.parametrize(
    ("name", "change", "said"),
    [
        ("losses", lambda a: a[:-1], "controls: float64"), ("controls", lambda a: a[:, None], "controls: float64"),
        ("losses", lambda a: a * np.nan, "losses: numbers that no trial gives"), ("weights", lambda a: -a, "weights: numbers"),
        ("powers", lambda a: a.astype("<f4"), "powers: float32"), ("correct_by_image", lambda a: a[:3], "correct_by_image: float64"),
        ("bases", lambda a: np.full_like(a, 1e300), "bases: numbers"), ("losses", lambda a: a.astype(object), "never read"),
    ],
)  # fmt: skip
def test_a_checkpoint_of_trials_holds_what_trials_give(cli: Cli, name: str, change: Callable[[Any], Any], said: str) -> None:
    assert cli("validate", "tiny.onnx", *ASK, *TRIALS)[0] in (0, 1)
    with np.load("trials.npz") as stored:
        arrays = {key: stored[key] for key in stored.files}
    np.savez("trials.npz", **(arrays | {name: change(arrays[name])}))
    _refused(cli("validate", "tiny.onnx", *ASK, *TRIALS), "trials.npz", said, "remove it or give another path")


def test_a_checkpoint_of_trials_that_unpacks_into_gigabytes_is_refused_before_it_is_read(cli: Cli) -> None:
    assert cli("validate", "tiny.onnx", *ASK, *TRIALS)[0] in (0, 1)
    Path("trials.npz").write_bytes(questions.with_bomb(Path("trials.npz").read_bytes(), "losses", n=60_000_000))
    _refused(cli("validate", "tiny.onnx", *ASK, *TRIALS), "trials.npz is not a checkpoint of trials", "are read")


def test_a_sweeps_folder_reads_nothing_elsewhere_and_is_named(cli: Cli, tmp_path: Path) -> None:
    Path("sweep.toml").write_text(questions.SWEEP)
    assert cli("sweep", "sweep.toml", "--out", "grid")[0] == 0
    (tmp_path / "secret").write_text("{}")
    point = next((tmp_path / "grid" / "points").glob("*.json"))
    for file in (tmp_path / "grid" / "sweep.json", point):
        kept = file.read_bytes()
        file.unlink()
        file.symlink_to(tmp_path / "secret")
        for verb in (("collect", "grid"), ("report", "grid")):
            _refused(cli(*verb), "grid", "leads out of")
        file.unlink()
        file.write_bytes(kept[:-20])
        _refused(cli("collect", "grid"), "grid")
        file.write_bytes(kept)
    (tmp_path / "grid" / "command.json").unlink()
    (tmp_path / "grid" / "command.json").symlink_to(tmp_path / "secret")
    _refused(cli("report", "grid"), "grid: command.json is a link that leads out")
    assert cli("sweep", "sweep.toml", "--out", "grid")[0] == 0  # which writes it anew, and not through the link
    assert (tmp_path / "secret").read_text() == "{}"
    assert not (tmp_path / "grid" / "command.json").is_symlink()


def test_a_page_of_what_is_no_run_names_it(cli: Cli, tmp_path: Path) -> None:
    (tmp_path / "other").mkdir()
    _refused(cli("report", "other"), "other: not a run folder")


def test_a_name_that_the_system_refuses_is_told_shortly(cli: Cli) -> None:
    Path("sweep.toml").write_text(questions.SWEEP.replace("tiny.npz", "x" * 5000))
    code, out, err = cli("sweep", "sweep.toml")
    assert (code, out) == (2, "")
    assert len(err) < 600
    assert "xxx" in err


def test_the_answer_of_a_folder_that_cannot_be_written_is_shown(cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    from accelsim.report import sweep_folder

    Path("sweep.toml").write_text(questions.SWEEP)
    assert cli("sweep", "sweep.toml", "--out", "grid")[0] == 0

    def full(*_: object) -> None:
        raise RunFolderError("cannot write grid/table.csv: No space left on device; give a writable place with room")

    monkeypatch.setattr(sweep_folder, "write_table", full)
    code, out, err = cli("collect", "grid")
    assert code == 0
    assert "least mse_rel" in out
    assert "note: the folder's table.csv is as it was: cannot write grid/table.csv" in err


def test_a_place_where_nothing_can_be_written_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from accelsim.report.files import write_whole

    def read_only(*_: object, **__: object) -> None:
        raise OSError(30, "Read-only file system")

    monkeypatch.setattr(Path, "open", read_only)
    monkeypatch.setattr(Path, "unlink", read_only)
    with pytest.raises(RunFolderError, match=r"cannot write .*a\.json: Read-only file system; give a writable place"):
        write_whole(tmp_path / "a.json", b"{}")


def test_a_record_with_a_field_of_a_long_name_is_told_shortly(cli: Cli, tmp_path: Path) -> None:
    Path("sweep.toml").write_text(questions.SWEEP)
    assert cli("sweep", "sweep.toml", "--out", "grid")[0] == 0
    file = tmp_path / "grid" / "sweep.json"
    held = json.loads(file.read_text())
    held["question"]["provenance"]["x" * 5000] = 1
    file.write_text(json.dumps(held))
    _refused(cli("collect", "grid"), "grid/sweep.json: provenance_: fields missing or unknown: xxx", "run the sweep again")
