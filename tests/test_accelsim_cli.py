"""The command line: every verb's answer, and every bad input as one message, exit code 2 and nothing written."""

import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
from made_reports import design_report, error_report
from onnx import TensorProto, helper, numpy_helper

from accelsim import Accelerator, load_report
from accelsim.cli import main
from workloads.zoo import embedded_path, load_embedded_samples

ROOT = Path(__file__).parents[1]
HEAD = {"schema", "version", "seed", "network", "spec_digest", "output", "reference", "warnings"}
Answer = tuple[int, str, str]
Cli = Callable[..., Answer]


@pytest.fixture
def cli(capsys: pytest.CaptureFixture[str]) -> Cli:
    def run(*arguments: object) -> Answer:
        code = main([str(argument) for argument in arguments])
        captured = capsys.readouterr()
        return code, captured.out, captured.err

    return run


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    samples = load_embedded_samples("fashion_cnn")[:24]
    path = tmp_path_factory.mktemp("images") / "x.npz"
    np.savez(path, x=samples.x, y=samples.y)
    return path


def _json(text: str) -> dict:
    def refuse(name: str) -> float:
        raise AssertionError(f"{name} in JSON")

    return json.loads(text, parse_constant=refuse)


# answers


def test_devices_lists_presets_and_prints_one(cli: Cli) -> None:
    code, out, err = cli("devices")
    assert (code, err) == (0, "")
    assert "memse " in out
    assert "memse_compat " in out
    assert 'g_max_siemens = "25 uS"' in cli("devices", "memse")[1]


def test_spec_prints_what_reads_back_as_the_same_accelerator(cli: Cli, tmp_path: Path) -> None:
    code, out, err = cli("spec", "memse", "--set", "cell.error_rel=0.03", "mapping.levels=128", "--set", "cell.clip=false")
    assert (code, err) == (0, "")
    expected = Accelerator.preset("memse", set=["cell.error_rel=0.03", "mapping.levels=128", "cell.clip=false"])
    assert Accelerator.from_text(out).digest == expected.digest
    assert "# " in out
    assert cli("spec", "memse", "--set", "cell.error_rel=0.03", "--out", tmp_path / "a.toml")[0] == 0
    assert Accelerator.from_toml(tmp_path / "a.toml").cell.programming.error_rel == 0.03  # type: ignore[union-attr]


def test_an_existing_spec_is_not_overwritten(cli: Cli, tmp_path: Path) -> None:
    (tmp_path / "mine.toml").write_text("mine")
    code, _, err = cli("spec", "memse", "--out", tmp_path / "mine.toml")
    assert code == 2
    assert "is there already" in err
    assert (tmp_path / "mine.toml").read_text() == "mine"


def test_inspect_lists_layers_with_totals(cli: Cli) -> None:
    code, out, err = cli("inspect", "fashion_cnn")
    assert (code, err) == (0, "")
    assert "conv2" in out
    assert "52,186 parameters, 1,632,480 MACs an image; all supported" in out
    record = _json(cli("inspect", "fashion_cnn", "--json")[1])
    assert set(record) >= HEAD
    assert [layer["name"] for layer in record["layers"] if layer["n_parameters"]] == ["conv1", "conv2", "fc1", "fc2"]
    assert len(record["network"]["digest"]) == 64


def test_predict_answers_as_a_table_and_as_json(cli: Cli, images: Path) -> None:
    code, out, err = cli("predict", "fashion_cnn", "--inputs", images, "--seed", "5")
    assert code == 0
    assert "relative MSE" in out
    assert "note: calibrated on the first 24 inputs" in err
    record = _json(cli("predict", "fashion_cnn", "--inputs", images, "--seed", "5", "--json")[1])
    wanted = "mse mse_rel bias2 variance by_layer by_cause method rel_error_estimate mse_se mse_chip_sd valid reason read_power_w"
    wanted += " power_by_component accuracy_clean accuracy_quantized accuracy_predicted n_inputs elapsed_s"
    assert set(record) >= HEAD | set(wanted.split())
    assert record["seed"] == 5
    assert sum(record["by_layer"].values()) == pytest.approx(record["mse"])


def test_a_seed_that_was_drawn_is_told_and_repeats_the_answer(cli: Cli, images: Path) -> None:
    ask = ("predict", "fashion_cnn", "--inputs", images, "--method", "adjoint", "--json")
    first = cli(*ask)
    seed = _json(first[1])["seed"]
    assert f"note: seed {seed} was drawn" in first[2]
    again, other = _json(cli(*ask, "--seed", seed)[1]), _json(first[1])
    assert {**again, "elapsed_s": 0} == {**other, "elapsed_s": 0}


def test_embedded_networks_need_no_inputs(cli: Cli) -> None:
    code, out, err = cli("predict", "fashion_cnn", "--seed", "1", "--method", "adjoint", "--json")
    assert code == 0
    assert _json(out)["n_inputs"] == 256
    assert "embedded test images 64 to 319" in err
    assert "calibrated on the first 64 embedded images" in err


def test_a_set_reaches_the_prediction(cli: Cli, images: Path) -> None:
    ask = ("predict", "fashion_cnn", "--inputs", images, "--seed", "1", "--method", "adjoint", "--json", "--set", "cell.clip=false")
    small, large = (_json(cli(*ask, f"cell.error_rel={error}")[1])["mse"] for error in (0.001, 0.002))
    assert large == pytest.approx(4.0 * small, rel=1e-3)


def test_validate_compares_and_writes_both_runs(cli: Cli, images: Path, tmp_path: Path) -> None:
    out = tmp_path / "run"
    ask = ("validate", "fashion_cnn", "--inputs", images, "--seed", "3", "--rel-error", "0.05", "--threads", "2")
    code, text, _ = cli(*ask, "--out", out)
    assert code == 0
    assert all(part in text for part in ("PREDICTED", "MONTE-CARLO", "VERDICT", "agrees within 5 %"))
    assert sorted(os.listdir(out)) == ["predicted", "trials"]
    assert load_report(out / "trials").kind == "trials"
    record = _json(cli(*ask, "--json")[1])
    assert set(record) >= HEAD | {"predicted", "mc", "z", "ratio", "ratio_ci", "agrees"}
    assert set(record["mc"]) >= {"mse", "ci_low", "ci_high", "confidence", "n_trials", "stopped_by", "accuracy", "accuracy_ci", "elapsed_s"}
    assert record["agrees"] is True


def test_disagreement_is_exit_code_1(cli: Cli, images: Path) -> None:
    ask = ("validate", "fashion_cnn", "--inputs", images, "--seed", "3", "--method", "adjoint", "--set", "cell.error_rel=0.3")
    code, text, _ = cli(*ask, "--rel-error", "0.05")
    assert code == 1
    assert "does NOT agree" in text


def test_optimize_finds_a_design_that_predict_takes(cli: Cli, images: Path, tmp_path: Path) -> None:
    ask = ("fashion_cnn", "--inputs", images, "--calibration", images, "--seed", "3")
    power_w = _json(cli("predict", *ask, "--json")[1])["read_power_w"]
    run = tmp_path / "best"
    budget = ("--power-budget", f"{0.5e6 * power_w} uW", "--verify", images, "--rel-error", "0.05", "--max-trials", "400")
    code, out, _ = cli("optimize", *ask, *budget, "--out", run, "--json")
    assert code == 0
    record = _json(out)
    wanted = "feasible design mse read_power_w budget_w baseline saving_total_rel saving_controllable_rel multiplier duality_gap pareto mc"
    assert set(record) >= HEAD | set(wanted.split())
    assert record["read_power_w"] == pytest.approx(0.5 * power_w, rel=1e-2)
    for design in (run, run / "design.toml"):
        predicted = _json(cli("predict", *ask, "--design", design, "--json")[1])
        assert predicted["read_power_w"] == pytest.approx(0.5 * power_w, rel=0.05)


def test_an_infeasible_budget_is_exit_code_1_with_the_floor(cli: Cli, images: Path) -> None:
    code, out, _ = cli("optimize", "fashion_cnn", "--inputs", images, "--seed", "3", "--mse-budget", "1e-9")
    assert code == 1
    assert "INFEASIBLE: the floor is" in out
    assert "lever" in out


def test_diff_compares_two_runs(cli: Cli, tmp_path: Path) -> None:
    a, b = error_report().save(tmp_path / "a"), error_report(mse=0.02).save(tmp_path / "b")
    code, out, err = cli("diff", a, b)
    assert (code, err) == (0, "")
    assert "spec: the same" in out
    assert "BEYOND" in out
    assert _json(cli("diff", a, b, "--json")[1])["answers"][0] == {"name": "mse", "a": 0.0123, "b": 0.02}


# bad input


def _net(path: Path, nodes: list, constants: dict[str, np.ndarray], *, domains: tuple[str, ...] = ("",)) -> Path:
    graph = helper.make_graph(
        nodes, "g", [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["N", 4])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)], [numpy_helper.from_array(v, k) for k, v in constants.items()],
    )  # fmt: skip
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid(domain, 17) for domain in domains])
    onnx.save(model, path)
    return path


def _gemm(path: Path, weights: np.ndarray) -> Path:
    return _net(path, [helper.make_node("Gemm", ["x", "w"], ["y"], transB=1)], {"w": weights.astype(np.float32)})


def _text(path: Path) -> Path:
    path.write_text("this is no network")
    return path


def _truncated(path: Path) -> Path:
    path.write_bytes(embedded_path("fashion_cnn").read_bytes()[:100_000])  # type: ignore[attr-defined]
    return path


def _external(path: Path, location: str) -> Path:
    _gemm(path, np.ones((64, 4)))
    model = onnx.load(path)
    onnx.save(model, path, save_as_external_data=True, location="weights.bin", size_threshold=0)
    (path.parent / "weights.bin").unlink()
    raw = path.read_bytes()
    if location != "weights.bin":
        model = onnx.load(path, load_external_data=False)
        model.graph.initializer[0].external_data[0].value = location
        raw = model.SerializeToString()
    path.write_bytes(raw)
    return path


def _if(path: Path) -> Path:
    branch = helper.make_graph(
        [helper.make_node("Relu", ["r"], ["b"])], "b", [], [helper.make_tensor_value_info("b", TensorProto.FLOAT, None)]
    )
    chosen = helper.make_node("If", ["c"], ["y"], then_branch=branch, else_branch=branch)
    nodes = [helper.make_node("Relu", ["x"], ["r"]), helper.make_node("Greater", ["x", "c0"], ["c"]), chosen]
    return _net(path, nodes, {"c0": np.array(0.5, np.float32)})


def _huge_constant(path: Path) -> Path:
    nodes = [helper.make_node("ConstantOfShape", ["s"], ["big"]), helper.make_node("Add", ["x", "big"], ["y"])]
    return _net(path, nodes, {"s": np.array([400_000, 1_000_000])})


NETWORKS: dict[str, tuple[Callable[[Path], Path], str]] = {
    "missing file": (lambda path: path, "bad.onnx"),
    "text named .onnx": (_text, "bad.onnx"),
    "truncated": (_truncated, "bad.onnx"),
    "missing external data": (lambda path: _external(path, "weights.bin"), "weights.bin"),
    "external data outside the folder": (lambda path: _external(path, "../secret.bin"), "secret.bin"),
    "NaN weights": (lambda path: _gemm(path, np.full((3, 4), np.nan)), "NaN"),
    "unsupported operator": (lambda path: _net(path, [helper.make_node("Det", ["x"], ["y"])], {}), "Det"),
    "If": (_if, "If"),
    "custom domain": (
        lambda path: _net(path, [helper.make_node("Mine", ["x"], ["y"], domain="my.own")], {}, domains=("", "my.own")),
        "my.own",
    ),
    "a constant of 4e11 elements": (_huge_constant, "ConstantOfShape"),
}


def _refused(answer: Answer, message: str, folder: Path, before: list[str]) -> None:
    """Check that bad input ended as it must."""
    code, out, err = answer
    assert code == 2, err
    assert out == ""
    assert message in err
    assert "Traceback" not in err
    assert err.count("accelsim: error:") == 1
    assert sorted(os.listdir(folder)) == before


@pytest.mark.parametrize("case", NETWORKS)
def test_a_bad_network_is_one_message(cli: Cli, tmp_path: Path, images: Path, case: str) -> None:
    make, message = NETWORKS[case]
    (tmp_path / "in").mkdir()
    network = make(tmp_path / "in" / "bad.onnx")
    before = sorted(os.listdir(tmp_path))
    _refused(cli("predict", network, "--inputs", images, "--seed", "1", "--out", tmp_path / "run"), message, tmp_path, before)


def _declares_600_gb(path: Path) -> None:
    import io
    import zipfile

    header = io.BytesIO()
    np.lib.format.write_array_header_1_0(header, {"descr": "<f4", "fortran_order": False, "shape": (150_000_000_000, 1)})  # type: ignore[arg-type]
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("x.npy", header.getvalue() + b"\0" * 64)


SAMPLES: dict[str, tuple[np.ndarray | Callable[[Path], None], str]] = {
    "wrong shape": (np.zeros((4, 28, 28, 1), np.float32), "channels come first"),
    "integers": (np.zeros((4, 1, 28, 28), np.uint8), "normalize"),
    "empty batch": (np.zeros((0, 1, 28, 28), np.float32), "at least 1"),
    "NaN": (np.full((4, 1, 28, 28), np.nan, np.float32), "NaN"),
    "objects": (np.array([{}, {}], dtype=object), "objects"),
    "a declaration of 600 GB": (_declares_600_gb, "declares"),
    "text": (lambda path: path.write_text("no") and None, "not an .npz file"),
}


@pytest.mark.parametrize("case", SAMPLES)
def test_bad_samples_are_one_message(cli: Cli, tmp_path: Path, case: str) -> None:
    content, message = SAMPLES[case]
    if isinstance(content, np.ndarray):
        np.savez(tmp_path / "x.npz", x=content)
    else:
        content(tmp_path / "x.npz")
    _refused(cli("predict", "fashion_cnn", "--inputs", tmp_path / "x.npz", "--out", tmp_path / "run"), message, tmp_path, ["x.npz"])


_CELL = '[cell]\ng_max_siemens = "{g_max}"\n'
SPECS = {
    "negative conductance": ('use = "memse"\n' + _CELL.format(g_max="-25 uS"), "cell.g_max_siemens"),
    "misspelt key": ('use = "memse"\n[cell]\ng_mim_siemens = 0\n', "nearest: g_min_siemens"),
    "a voltage for a conductance": ('use = "memse"\n' + _CELL.format(g_max="25 uV"), "uV is a voltage"),
    "10 MB": ("#" * 10_000_000, "at most"),
    "500 brackets": ("a = " + "[" * 500, "s.toml"),
    "no TOML": ("= =", "s.toml"),
}


@pytest.mark.parametrize("case", SPECS)
def test_a_bad_spec_is_one_message(cli: Cli, tmp_path: Path, images: Path, case: str) -> None:
    content, message = SPECS[case]
    spec = tmp_path / "s.toml"
    spec.write_text(content)
    _refused(cli("predict", "fashion_cnn", "--inputs", images, "--spec", spec, "--out", tmp_path / "run"), message, tmp_path, ["s.toml"])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["spec", "mense"], "memse"),
        (["spec", "nowhere.toml"], "nowhere.toml"),
        (["spec", "memse", "--set", "cell.error_rle=1"], "error_rel"),
        (["spec", "memse", "--set", "nonsense"], "need PATH=VALUE"),
        (["devices", "memes"], "memse"),
        (["inspect", "nowhere.onnx"], "nowhere.onnx"),
        (["diff", "nowhere", "nowhere"], "no such folder"),
        (["predict", "fashion_cnn", "--design", "nowhere.toml"], "nowhere.toml"),
        (["predict", "fashion_cnn", "--inputs", "nowhere.npz"], "nowhere.npz"),
        (["predict", "fashion_cnn", "--output", "nowhere"], "nowhere"),
        (["predict", "fashion_cnn", "--input-shape", "1,28,28"], "--input-shape"),
        (["optimize", "fashion_cnn", "--power-budget", "10 mV"], "--power-budget '10 mV': need a power"),
        (["optimize", "fashion_cnn", "--power-budget=-1"], "need a power above 0"),
    ],
)
def test_a_bad_argument_is_one_message(
    cli: Cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, arguments: list[str], message: str
) -> None:
    monkeypatch.chdir(tmp_path)
    _refused(cli(*arguments), message, tmp_path, [])


@pytest.mark.parametrize(
    "arguments",
    [
        [], ["predikt"], ["predict"], ["optimize", "fashion_cnn"], ["predict", "fashion_cnn", "--seed", "-1"],
        ["predict", "fashion_cnn", "--seed", "1.5"], ["validate", "fashion_cnn", "--threads", "0"],
        ["validate", "fashion_cnn", "--rel-error", "nan"],
        ["optimize", "fashion_cnn", "--mse-budget", "inf"], ["optimize", "fashion_cnn", "--mse-budget", "1", "--power-budget", "1"],
        ["inspect", "fashion_cnn", "--input-shape", "1,x"],
    ],
)  # fmt: skip
def test_wrong_usage_is_exit_code_2(cli: Cli, arguments: list[str]) -> None:
    code, out, err = cli(*arguments)
    assert (code, out) == (2, "")
    assert "usage: accelsim" in err


def test_too_few_trials_are_refused(cli: Cli, images: Path, tmp_path: Path) -> None:
    answer = cli("validate", "fashion_cnn", "--inputs", images, "--seed", "1", "--method", "adjoint", "--max-trials", "5")
    _refused(answer, "need max_trials >= 20", tmp_path, [])


def test_an_output_folder_that_cannot_be_made_is_refused_before_any_work(cli: Cli, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    for out in (tmp_path / "file", tmp_path / "file" / "run"):
        _refused(cli("predict", "nowhere.onnx", "--out", out), "give", tmp_path, ["file"])


def test_a_read_only_folder_is_refused(cli: Cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def read_only(self: Path, *_: object, **__: object) -> None:
        raise PermissionError(13, "Permission denied", str(self))

    monkeypatch.setattr(Path, "mkdir", read_only)
    for verb in (["predict", "fashion_cnn"], ["demo"]):
        _refused(cli(*verb, "--out", tmp_path / "run"), "Permission denied; give a writable place", tmp_path, [])


def test_a_bug_of_ours_is_exit_code_70_with_a_way_to_report(cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    from accelsim import cli_commands

    def broken(_: object) -> int:
        raise ZeroDivisionError("ours")

    monkeypatch.setitem(cli_commands.VERBS, "devices", broken)
    code, _, err = cli("devices")
    assert code == 70
    assert "ZeroDivisionError: ours" in err
    assert "Please report it" in err


def test_an_interrupt_is_exit_code_130(cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    from accelsim import cli_commands

    def interrupted(_: object) -> int:
        raise KeyboardInterrupt

    monkeypatch.setitem(cli_commands.VERBS, "devices", interrupted)
    code, _, err = cli("devices")
    assert (code, err.strip()) == (130, "accelsim: interrupted")


def test_names_from_files_cannot_steer_the_terminal(cli: Cli, tmp_path: Path) -> None:
    network = _net(tmp_path / "n.onnx", [helper.make_node("Relu", ["x"], ["y"], name="\x1b[31mred")], {})
    assert "\x1b" not in "".join(map(str, cli("inspect", network)))
    assert "\x1b" not in "".join(map(str, cli("predict", tmp_path / "\x1b[31m.onnx")))


def test_a_warning_is_one_line_without_its_source(capsys: pytest.CaptureFixture[str]) -> None:
    from accelsim.cli_terminal import show_warning

    show_warning(RuntimeWarning("kernels are\nnot kept"), RuntimeWarning, "somewhere.py", 12)
    assert capsys.readouterr().err == "note: kernels are not kept\n"


@pytest.mark.parametrize(("silences_s", "is_told"), [((0.05,), True), ((60.0,), False)])
def test_long_silence_is_broken(silences_s: tuple[float, ...], is_told: bool, capsys: pytest.CaptureFixture[str]) -> None:
    from accelsim.cli_terminal import heard

    with heard("predict", silences_s):
        time.sleep(0.5)
    err = capsys.readouterr().err
    assert err.startswith("... predict: at work for 0 s; a first run compiles for some seconds\n") == is_told
    assert err.count("compiles") == is_told


def test_nothing_is_said_into_an_open_line_of_progress(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    from accelsim.cli_terminal import Line, heard

    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    line = Line()
    with heard("predict", (0.05,)):
        line.tell("half")
        time.sleep(0.3)
        assert capsys.readouterr().err == f"\r{'half':<70}"
        line.close()


def test_what_is_missing_says_where_help_is(cli: Cli) -> None:
    assert "`accelsim demo` shows what it does" in cli()[2]
    assert cli("predict")[2].strip().endswith("required: NET (`accelsim predict --help` tells what there is)")


# as users start it


def _process(*arguments: str, **more: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "accelsim", *arguments],
        capture_output=True,
        text=True,
        cwd=ROOT,
        check=False,
        timeout=300,
        env={**os.environ, **more},
    )


def test_the_module_starts_and_ends_with_the_code(tmp_path: Path) -> None:
    assert _process("--version").stdout.startswith("accelsim ")
    assert _process("spec", "mense").returncode == 2
    ended = _process("inspect", "fashion_resnet", "--json")
    assert ended.returncode == 0
    assert _json(ended.stdout)["supported"] is True


@pytest.mark.skipif(shutil.which("head") is None, reason="needs head")
def test_a_reader_that_leaves_early_is_no_error() -> None:
    ended = subprocess.run(
        f"'{sys.executable}' -m accelsim spec memse | head -n 1", shell=True, capture_output=True, text=True, cwd=ROOT, check=False
    )
    assert (ended.returncode, ended.stderr) == (0, "")


def test_the_optimum_of_a_saved_run_is_drawn(tmp_path: Path) -> None:
    from accelsim.report.run_folder import draw_to

    draw_to(design_report(), tmp_path / "figure")
    assert (tmp_path / "figure.png").stat().st_size > 5_000


def test_cite_prints_what_a_spec_rests_on(cli: Cli) -> None:
    code, out, _ = cli("cite", "isaac")
    assert code == 0
    assert "Shafiee" in out
    assert "MemSE" in out
    assert "chip.parts.edram" in out
    assert "(remembered, not read)" in out
    _, out, _ = cli("cite", "memse", "--set", "memory.weights.use=stt_mram_28nm")
    assert "memory.weights, errors" in out
    found = _json(cli("cite", "pcm_chip", "--json")[1])["citations"]
    assert any("Nandakumar" in citation["reference"] for citation in found)
    assert "no source is given" in cli("cite", "memse", "--set", "cell.source=")[1]


def test_memory_lists_laws_with_their_references_and_prints_one(cli: Cli) -> None:
    code, out, err = cli("memory")
    assert (code, err) == (0, "")
    for part in ("exponential_published", "0.360", "sram_14nm", "0.696", "lowest voltage at which no error was measured", "stt_mram_22nm"):
        assert part in out
    assert 'read_energy_j = "0.06875 pJ"' in cli("memory", "stt_mram_22nm")[1]
    record = json.loads(cli("memory", "--json")[1])
    laws = {law["name"]: law for law in record["laws"]}
    assert laws["exponential"]["energies_rel"][3] == pytest.approx(0.3598, abs=1e-4)
    assert all(law["energy_reference"] and law["source"] for law in laws.values())
    code, _, err = cli("memory", "sram_14")
    assert code == 2
    assert "nearest: sram_14nm" in err


def test_memory_says_when_a_code_pays(cli: Cli, tmp_path: Path) -> None:
    drawn = tmp_path / "pays.png"
    code, out, _ = cli("memory", "sram_14nm", "--ecc", "secded", "--plot", str(drawn))
    assert code == 0
    assert "SECDED (72, 64)" in out
    assert "below 0.000213 (3.21e-06 left). Closed form: 0.000215." in out
    assert drawn.stat().st_size > 10_000
    every = cli("memory", "--ecc", "secded")[1]
    assert all(name in every for name in ("exponential_published", "sram_14nm, fit = poster"))
    record = json.loads(cli("memory", "exponential", "--ecc", "secded", "--logic-rel", "0.05", "--json")[1])["protections"][0]
    assert record["spans"][0]["to_p"] == pytest.approx(4.19e-3, rel=1e-2)
    assert record["closed_form_p"] == pytest.approx(4.18e-3, rel=1e-2)
    assert [c["left_p"] for c in record["compared"]] == pytest.approx([10.0**-n for n in range(2, 13)])


@pytest.mark.parametrize(
    ("ask", "said"),
    [
        (("--ecc", "secdec"), "nearest: secded"),
        (("--data-bits", "8"), "--data-bits: of --ecc only"),
        (("--ecc", "parity_zero", "--data-bits", "8"), "of secded only"),
        (("--ecc", "secded", "--protected", "1"), "of tripled_bits and separate_bits only"),
        (("--ecc", "secded", "--logic-rel", "-1"), "logic_rel: -1"),
        (("dram_ddr3", "--ecc", "secded"), "nothing for a code to save"),
    ],
)
def test_wrong_questions_about_codes_are_refused(cli: Cli, ask: tuple[str, ...], said: str) -> None:
    code, _, err = cli("memory", *ask)
    assert code == 2
    assert said in err


def test_memory_draws_a_law(cli: Cli, tmp_path: Path) -> None:
    picture = tmp_path / "law.png"
    assert cli("memory", "sram_14nm", "--plot", picture)[0] == 0
    assert picture.read_bytes().startswith(b"\x89PNG")
    assert "is there already" in cli("memory", "sram_14nm", "--plot", picture)[2]
    assert "which one" in cli("memory", "--plot", tmp_path / "other.png")[2]
    assert "fixed point" in cli("memory", "rram_22nm", "--plot", tmp_path / "other.png")[2]


def test_devices_draws_a_cell(cli: Cli, tmp_path: Path) -> None:
    picture = tmp_path / "cell.png"
    assert cli("devices", "pcm_nandakumar", "--plot", picture)[0] == 0
    assert picture.read_bytes().startswith(b"\x89PNG")
    code, _, err = cli("devices", "pcm_nandakumar", "--plot", picture)
    assert code == 2
    assert "is there already" in err
    assert "which one" in cli("devices", "--plot", tmp_path / "other.png")[2]
