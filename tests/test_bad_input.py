"""Hostile and clumsy input beyond what `test_accelsim_cli.py` holds: each ends in one message, its exit code, and nothing written."""

import io
import os
import subprocess
import sys
import tokenize
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from accelsim import Accelerator, SpecError
from accelsim.cli import main
from devices.base.quantity import percent
from workloads.samples import DAMAGED

ROOT = Path(__file__).parents[1]
WEIGHTS = np.random.default_rng(0).normal(size=(3, 4)).astype(np.float32)
IMAGES = np.random.default_rng(1).normal(size=(8, 4)).astype(np.float32)
MEMORY_BYTES = 6 * 2**30
Answer = tuple[int, str, str]
Cli = Callable[..., Answer]


@pytest.fixture
def cli(capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Cli:
    """Return a way to run `accelsim` in a folder with the good network `good.onnx` and its images `good.npz`."""
    monkeypatch.chdir(tmp_path)
    _gemm(Path("good.onnx"), numpy_helper.from_array(WEIGHTS, "w"))
    np.savez("good.npz", x=IMAGES, y=np.arange(8) % 3)

    def run(*arguments: object) -> Answer:
        code = main([str(argument) for argument in arguments])
        captured = capsys.readouterr()
        return code, captured.out, captured.err

    return run


def _gemm(path: Path, weights: TensorProto) -> None:
    graph = helper.make_graph(
        [helper.make_node("Gemm", ["x", "w"], ["y"], transB=1)],
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["N", 4])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)],
        [weights],
    )
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)]), path)


def _refused(answer: Answer, message: str) -> None:
    code, out, err = answer
    assert (code, out) == (2, ""), err
    assert message in err
    assert err.count("error:") == 1
    assert "Traceback" not in err
    assert not Path("run").exists()
    assert not [name for name in os.listdir() if name.startswith(".")]


def _predict(cli: Cli, *more: object, network: str = "good.onnx", inputs: str = "good.npz") -> Answer:
    return cli("predict", network, "--inputs", inputs, "--seed", 1, "--method", "adjoint", "--out", "run", *more)


# networks


def _external(location: str, **more: int) -> TensorProto:
    """Return a tensor that says its numbers are in another file."""
    tensor = TensorProto(name="w", data_type=TensorProto.FLOAT, dims=[3, 4], data_location=TensorProto.EXTERNAL)
    for key, value in {"location": location, **more}.items():
        entry = tensor.external_data.add()
        entry.key, entry.value = key, str(value)
    return tensor


@pytest.mark.parametrize(
    ("tensor", "message"),
    [
        (_external("/dev/zero"), "must be a relative path"),
        (_external("link.bin"), "leads out of the model's folder"),
        (_external("folder/secret.bin"), "leads out of the model's folder"),
        (_external("short.bin"), "needs 48 bytes"),
        (_external("short.bin", offset=10**18), "needs 48 bytes"),
        (_external("short.bin", offset=-5), "needs 48 bytes"),
        (_external("short.bin", length=10**15), "declared as 1000000000000000"),
        (_external("a\0b"), "must be a relative path"),
        (TensorProto(name="w", data_type=1, dims=[10**6, 10**6]), "does not hold the numbers"),
        (TensorProto(name="w", data_type=1, dims=[-3, 4], raw_data=WEIGHTS.tobytes()), "(-3, 4)"),
        (TensorProto(name="w", data_type=77, dims=[3, 4], raw_data=WEIGHTS.tobytes()), "type 77"),
    ],
)
def test_a_hostile_weight_is_one_message(cli: Cli, tmp_path: Path, tensor: TensorProto, message: str) -> None:
    (tmp_path / "secret.bin").write_bytes(WEIGHTS.tobytes())
    inside = tmp_path / "inside"
    inside.mkdir()
    (inside / "link.bin").symlink_to("../secret.bin")
    (inside / "folder").symlink_to("..")
    (inside / "short.bin").write_bytes(b"123")
    _gemm(inside / "bad.onnx", tensor)
    _refused(_predict(cli, network="inside/bad.onnx"), message)


def test_a_loop_is_refused(cli: Cli) -> None:
    info = helper.make_tensor_value_info
    body = helper.make_graph(
        [helper.make_node("Identity", ["go"], ["on"]), helper.make_node("Relu", ["v"], ["u"])],
        "body",
        [info("i", TensorProto.INT64, []), info("go", TensorProto.BOOL, []), info("v", TensorProto.FLOAT, None)],
        [info("on", TensorProto.BOOL, []), info("u", TensorProto.FLOAT, None)],
    )
    graph = helper.make_graph(
        [helper.make_node("Loop", ["n", "c", "x"], ["y"], body=body)],
        "g",
        [info("x", TensorProto.FLOAT, ["N", 4])],
        [info("y", TensorProto.FLOAT, None)],
        [numpy_helper.from_array(np.array(10**9), "n"), numpy_helper.from_array(np.array(True), "c")],
    )
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)]), "bad.onnx")
    _refused(_predict(cli, network="bad.onnx"), "Loop")


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="needs pipes")
def test_a_pipe_is_not_waited_for(cli: Cli) -> None:
    os.mkfifo("pipe")
    _refused(_predict(cli, network="pipe"), "no network file 'pipe': it is a pipe or a device")
    _refused(_predict(cli, inputs="pipe"), "no samples file 'pipe': it is a pipe or a device")
    _refused(_predict(cli, "--spec", "./pipe"), "not a regular file")


def test_weights_whose_outputs_overflow_are_refused(cli: Cli) -> None:
    _gemm(Path("huge.onnx"), numpy_helper.from_array(np.full((3, 4), 3e38, np.float32), "w"))
    _refused(_predict(cli, network="huge.onnx"), "weights of layer 'gemm_1' of huge reach 3e+38")


def test_constant_weights_have_no_relative_error(cli: Cli) -> None:
    _gemm(Path("zero.onnx"), numpy_helper.from_array(np.zeros((3, 4), np.float32), "w"))
    code, out, _ = _predict(cli, network="zero.onnx")
    assert code == 0
    assert "- (the clean outputs do not vary)" in out
    assert "nan" not in out


# samples


def test_inputs_that_overflow_are_refused(cli: Cli) -> None:
    np.savez("large.npz", x=IMAGES * np.float32(1e30))
    _refused(_predict(cli, inputs="large.npz"), "normalize the samples")


HEADERS = {
    "brackets": b"\x93NUMPY\x01\x00\x90\x01" + b"[" * 400,
    "balanced brackets": b"\x93NUMPY\x01\x00\x90\x01" + b"[" * 200 + b"]" * 200,
    "minuses": b"\x93NUMPY\x02\x00\x60\xea\x00\x00" + b"-" * 59_999 + b"1",
    "a long one": b"\x93NUMPY\x01\x00\xff\xff" + b"(" * 65_535,
    "a version to come": b"\x93NUMPY\x09\x00\x02\x00{}",
}


@pytest.mark.parametrize("case", HEADERS)
def test_a_hostile_array_header_is_one_message(cli: Cli, case: str) -> None:
    with zipfile.ZipFile("bad.npz", "w") as archive:
        archive.writestr("x.npy", HEADERS[case])
    _refused(_predict(cli, inputs="bad.npz"), "x in bad.npz is not a numpy array, or is damaged")


def test_the_list_of_what_numpy_raises_has_the_tokenizer() -> None:
    with pytest.raises(DAMAGED):
        np.lib.format.read_array_header_1_0(io.BytesIO(b"\x90\x01" + b"[" * 400))
    assert tokenize.TokenError in DAMAGED


@pytest.mark.parametrize(
    ("x", "message"),
    [
        (IMAGES.astype(complex), "x is of complex128"),
        (IMAGES > 0, "x is of bool"),
        (np.array([["a"] * 4]), "x is of <U1"),
        (np.float32(1), "the batch first"),
        (np.full((4, 4), np.inf, np.float32), "NaN or infinite"),
        (IMAGES.astype(np.float64) * 1e300, "NaN or infinite"),
    ],
)
def test_arrays_of_another_kind_are_refused(cli: Cli, x: np.ndarray, message: str) -> None:
    np.savez("bad.npz", x=x)
    _refused(_predict(cli, inputs="bad.npz"), message)


# specs


@pytest.mark.parametrize(
    ("assignment", "message"),
    [
        ("cell.g_max_siemens=1e-320", "need a value from 1e-15 to 1e+15"),
        ("drive.v_read_v=1e300", "need a value from 1e-15 to 1e+15"),
        ("sense.feedback_ohm=1e-200", "need a value from 1e-15 to 1e+15"),
        ("cell.error_rel=1e300", "at most 1000"),
        ("cell=3", "cell: a table, not a value; set what is in it: cell.g_min_siemens"),
        ("a.b.c=3", "unknown field; `accelsim spec NAME` prints all there are"),
    ],
)
def test_a_value_no_device_has_is_refused(cli: Cli, assignment: str, message: str) -> None:
    _refused(_predict(cli, "--set", assignment), message)


def test_the_extremes_of_a_spec_compute(cli: Cli) -> None:
    for assignment in ("cell.g_max_siemens=1e-15", "cell.g_max_siemens=1e15", "drive.v_read_v=1e15", "cell.error_rel=1e3"):
        code, out, _ = cli("predict", "good.onnx", "--inputs", "good.npz", "--seed", 1, "--method", "adjoint", "--set", assignment)
        assert code == 0
        assert "nan" not in out
        assert "inf" not in out


def test_records_made_in_python_keep_the_bounds() -> None:
    with pytest.raises(SpecError, match="v_read_v: 1e\\+300: need a value from"):
        Accelerator.preset("memse", set=["drive.v_read_v=1e300"])


def test_a_number_of_5000_digits_is_refused_in_plain_words(cli: Cli) -> None:
    Path("s.toml").write_text('use = "memse"\n[mapping]\nlevels = ' + "9" * 5000)
    answer = _predict(cli, "--spec", "s.toml")
    _refused(answer, "5000 digits")
    assert "set_int_max_str_digits" not in answer[2]


# what is around


def test_running_out_of_memory_is_one_message(cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    from accelsim import cli_commands

    def starved(_: object) -> int:
        raise MemoryError("Unable to allocate 1 TiB")

    monkeypatch.setitem(cli_commands.VERBS, "devices", starved)
    _refused(cli("devices"), "not enough memory (Unable to allocate 1 TiB); give fewer or smaller inputs")


def test_a_file_that_could_not_be_finished_is_removed(cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    class Full(io.StringIO):
        def write(self, _: str) -> int:
            raise OSError(28, "No space left on device")

    really = Path.open

    def opened(self: Path, mode: str = "r", **more: object) -> object:
        if mode != "x":
            return really(self, mode, **more)  # type: ignore[call-overload]
        self.touch(exist_ok=False)
        return Full()

    monkeypatch.setattr(Path, "open", opened)
    _refused(cli("devices", "--out", "a.txt"), "cannot write a.txt: No space left on device; give a writable place")
    assert not Path("a.txt").exists()


def test_no_share_is_minus_zero() -> None:
    assert percent(-1e-9, 1) == "0.0 %"
    assert percent(-0.001, 1) == "-0.1 %"


def _limited() -> None:
    import resource

    resource.setrlimit(resource.RLIMIT_AS, (MEMORY_BYTES, MEMORY_BYTES))


def _process(*arguments: str, where: Path, **more: str) -> subprocess.CompletedProcess[str]:
    """Run `accelsim` with little memory, 20 s, and the environment of a service: no home directory."""
    environment = {"PATH": os.environ["PATH"], "PYTHONPATH": str(ROOT), "HOME": str(where / "nowhere"), **more}
    return subprocess.run(
        [sys.executable, "-m", "accelsim", *arguments],
        capture_output=True, text=True, cwd=where, check=False, timeout=20, env=environment, preexec_fn=_limited,
    )  # fmt: skip


@pytest.mark.skipif(sys.platform != "linux", reason="needs limits of memory")
def test_a_constant_of_4e11_elements_takes_no_memory(tmp_path: Path) -> None:
    graph = helper.make_graph(
        [helper.make_node("ConstantOfShape", ["s"], ["big"]), helper.make_node("Add", ["x", "big"], ["y"])],
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["N", 4])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)],
        [numpy_helper.from_array(np.array([400_000, 1_000_000]), "s")],
    )
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)]), tmp_path / "bad.onnx")
    ended = _process("predict", "bad.onnx", "--inputs", "x.npz", where=tmp_path)
    assert (ended.returncode, ended.stdout) == (2, "")
    assert ended.stderr.count("\n") == 1


@pytest.mark.skipif(sys.platform != "linux", reason="needs limits of memory")
def test_a_closed_output_and_a_poor_locale_are_no_bugs(tmp_path: Path) -> None:
    (tmp_path / "s.toml").write_text('use = "memse"\nname = "caf\u00e9"\n', encoding="utf-8")
    poor = {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
    ended = _process("spec", "s.toml", where=tmp_path, **poor)
    assert (ended.returncode, ended.stderr) == (0, "")
    assert 'name = "caf?"' in ended.stdout
    closed = subprocess.run(
        ["sh", "-c", f"'{sys.executable}' -m accelsim spec memse >&-"], capture_output=True, text=True, cwd=ROOT, check=False, timeout=20
    )
    assert (closed.returncode, closed.stderr) == (0, "")


NOBODY = ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups", sys.executable]


def _can_become_nobody() -> bool:
    """Whether this is root, with a Python and packages that user nobody may read."""
    try:
        return subprocess.run([*NOBODY, "-c", "import accelsim"], capture_output=True, check=False, cwd="/").returncode == 0
    except OSError:
        return False


@pytest.mark.skipif(not _can_become_nobody(), reason="needs root, to become nobody, and packages that nobody may read")
def test_a_read_only_installation_without_a_home_works_and_says_so_once(tmp_path: Path) -> None:
    """As user nobody, who can write neither the packages nor a home directory, only the folder for the answer."""
    folder = Path("/tmp") / f"accelsim-nobody-{os.getpid()}"
    folder.mkdir()
    try:
        _gemm(folder / "good.onnx", numpy_helper.from_array(WEIGHTS, "w"))
        np.savez(folder / "good.npz", x=IMAGES)
        (folder / "sealed").mkdir()
        os.chown(folder, 65534, 65534)
        ask = ("predict", "good.onnx", "--inputs", "good.npz", "--seed", "1", "--method", "adjoint", "--out")
        ended, refused = (_as_nobody(*ask, out, where=folder) for out in ("run", "sealed/run"))
        assert ended.returncode == 0, ended.stderr
        assert ended.stderr.count("compiled kernels are not kept on disk") == 1
        assert "atplotlib" not in ended.stderr
        assert (folder / "run" / "figure.png").is_file()
        assert refused.returncode == 2
        assert "accelsim: error: cannot write the run folder sealed/run: Permission denied; give a writable place" in refused.stderr
        assert os.listdir(folder / "sealed") == []
    finally:
        subprocess.run(["rm", "-r", str(folder)], check=True)


def _as_nobody(*arguments: str, where: Path) -> subprocess.CompletedProcess[str]:
    environment = {"PATH": os.environ["PATH"], "PYTHONPATH": str(ROOT), "HOME": "/nonexistent", "PYTHONDONTWRITEBYTECODE": "1"}
    return subprocess.run(
        [*NOBODY, "-m", "accelsim", *arguments],
        capture_output=True, text=True, cwd=where, check=False, timeout=60, env=environment,
    )  # fmt: skip
