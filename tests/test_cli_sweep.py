"""`accelsim sweep` and `accelsim collect`: what a file may ask, what is printed, and every bad input as one message."""

import json
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from accelsim.cli import main
from accelsim.cli_sweep import duration
from tests.digits import FIXTURES, digits_samples

Answer = tuple[int, str, str]
FILE = """
schema = 1
network = "net.onnx"
inputs = "x.npz"
calibration = "c.npz"
seed = 7
run = "predict"
out = "grid"
[axes]
cell.error_rel = [0.002, 0.005, 0.01]
"mapping.g_used_siemens" = { low = "12.5 uS", high = "25 uS", n = 2 }
[options]
method = "adjoint"
"""


@pytest.fixture
def cli(capsys: pytest.CaptureFixture[str]) -> Callable[..., Answer]:
    def run(*arguments: object) -> Answer:
        code = main([str(argument) for argument in arguments])
        captured = capsys.readouterr()
        return code, captured.out, captured.err

    return run


@pytest.fixture
def asked(tmp_path: Path) -> Path:
    """Return the file of a sweep, with its network and samples beside it."""
    (tmp_path / "net.onnx").write_bytes((FIXTURES / "digits_mlp.onnx").read_bytes())
    for name, samples in (("x", digits_samples()[:8]), ("c", digits_samples()[100:164])):
        np.savez(tmp_path / f"{name}.npz", x=samples.x, y=samples.y)
    (tmp_path / "sweep.toml").write_text(FILE)
    return tmp_path / "sweep.toml"


def test_a_sweep_is_computed_once_and_collected(cli: Callable[..., Answer], asked: Path, tmp_path: Path) -> None:
    code, out, err = cli("sweep", asked)
    assert code == 0
    assert "6 computed, 0 reused" in err
    assert "least mse_rel" in out
    assert sorted(path.name for path in (tmp_path / "grid").iterdir()) == ["command.json", "points", "sweep.json", "table.csv"]
    code, out, err = cli("sweep", asked, "--json")
    found = json.loads(out)
    assert code == 0
    assert "0 computed, 6 reused" in err
    assert found["kind"] == "sweep"
    assert found["n_reused"] == 6
    assert len(found["points"]) == 6
    code, out, _ = cli("collect", tmp_path / "grid", "--table", tmp_path / "all.csv", "--plot", tmp_path / "a.png")
    assert code == 0
    assert "6 reused" in out
    assert len((tmp_path / "all.csv").read_text().splitlines()) == 7
    assert (tmp_path / "a.png").read_bytes().startswith(b"\x89PNG")


def test_jobs_of_an_array_share_a_folder(cli: Callable[..., Answer], asked: Path, tmp_path: Path) -> None:
    assert cli("sweep", asked, "--shard", "2/2")[0] == 0
    code, _, err = cli("collect", tmp_path / "grid")
    assert code == 1
    assert "3 of 6 points are missing: run the sweep again, which computes only these" in err
    assert cli("sweep", asked, "--shard", "1/2")[0] == 0
    assert cli("collect", tmp_path / "grid")[0] == 0


def test_what_is_typed_goes_before_what_the_file_says(cli: Callable[..., Answer], asked: Path, tmp_path: Path) -> None:
    code, out, _ = cli("sweep", asked, "--seed", 3, "--out", tmp_path / "other", "--set", "cell.clip=false", "--json")
    assert code == 0
    assert json.loads(out)["seed"] == 3
    assert (tmp_path / "other" / "sweep.json").is_file()
    assert not (tmp_path / "grid").exists()
    assert "clip = false" in json.loads((tmp_path / "other" / "sweep.json").read_text())["question"]["provenance"]["spec_toml"]


def test_a_failed_point_is_told_and_the_exit_code_is_1(cli: Callable[..., Answer], asked: Path) -> None:
    asked.write_text(FILE.replace('"25 uS"', '"30 uS"'))
    code, out, err = cli("sweep", asked)
    assert code == 1
    assert "3 failed" in err
    assert "failed, 3  " in out
    assert "move g_used_siemens into the range" in out


def test_random_designs_and_lists_are_asked_in_a_file(cli: Callable[..., Answer], asked: Path) -> None:
    head = FILE.partition("[axes]")[0]
    asked.write_text(f'design = "sobol"\nn_points = 4\n{head}[axes]\ncell.error_rel = {{ low = 0.001, high = 0.01, scale = "log" }}\n')
    code, out, _ = cli("sweep", asked)
    assert code == 0
    assert "predict at 4 points (sobol)" in out
    asked.write_text(f"{head}[[points]]\ncell.error_rel = 0.01\n[[points]]\ncell.error_rel = 0.02\n")
    code, out, _ = cli("sweep", asked)
    assert code == 0
    assert "predict at 2 points (list)" in out


def test_an_embedded_network_needs_no_samples_and_simulate_none_at_all(cli: Callable[..., Answer], tmp_path: Path) -> None:
    file = tmp_path / "s.toml"
    file.write_text('network = "fashion_cnn"\nspec = "isaac"\nrun = "simulate"\nseed = 1\n[axes]\nmapping.replicas = [1, 2]\n')
    code, out, err = cli("sweep", file)
    assert code == 0
    assert "latency_s" in out
    assert "--out keeps them" in err


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("cell.error_rel", "cell.eror_rel", "axes: cell.eror_rel: unknown field; nearest: cell.programming.error_rel"),
        ('run = "predict"', 'run = "predictt"', "run: 'predictt': need predict | "),
        ('run = "predict"', "run = 3", "run: 3: need text in quotes"),
        ("seed = 7", "seed = -7", "seed: -7: need a whole number"),
        ("seed = 7", "sed = 7", "sed: unknown key; nearest: seed"),
        ("schema = 1", "schema = 2", "schema: 2: need 1"),
        ('network = "net.onnx"', "", "network: missing"),
        ('network = "net.onnx"', 'network = "no.onnx"', "no.onnx"),
        ('inputs = "x.npz"', 'inputs = "no.npz"', "no samples file"),
        ('inputs = "x.npz"', "", "inputs is missing: give the images that net takes"),
        ('method = "adjoint"', 'methd = "adjoint"', "options: methd: predict takes no such option; nearest: method"),
        ("[axes]", "[axis]", "axis: unknown key; nearest: axes"),
        ('"12.5 uS"', '"12.5 uV"', "uV is a voltage"),
        ("[0.002, 0.005, 0.01]", "[", "not TOML"),
        ('out = "grid"', 'out = "x.npz"', "x.npz is a file; give the name of a folder"),
    ],
)
def test_a_wrong_file_gives_one_message(
    cli: Callable[..., Answer], asked: Path, tmp_path: Path, old: str, new: str, message: str
) -> None:
    assert old in FILE
    asked.write_text(FILE.replace(old, new))
    code, out, err = cli("sweep", asked)
    assert message in err
    assert code == 2
    assert out == ""
    assert "Traceback" not in err
    assert not (tmp_path / "grid").exists()


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (("--shard", "0/4"), "need I/N with I from 1 to N"),
        (("--shard", "5/4"), "need I/N with I from 1 to N"),
        (("--shard", "five"), "need I/N with I from 1 to N"),
        (("--workers", "0"), "need a whole number from 1 to 4096"),
        (("--set", "cell.eror_rel=1"), "nearest: cell.programming.error_rel"),
    ],
)
def test_wrong_options_give_one_message(cli: Callable[..., Answer], asked: Path, more: tuple[str, ...], message: str) -> None:
    code, out, err = cli("sweep", asked, *more)
    assert code == 2
    assert message in err
    assert out == ""


def test_a_shard_without_a_folder_is_refused(cli: Callable[..., Answer], asked: Path) -> None:
    asked.write_text(FILE.replace('out = "grid"', ""))
    code, _, err = cli("sweep", asked, "--shard", "1/2")
    assert code == 2
    assert "--shard: jobs of an array meet in a folder; give --out" in err


def test_no_file_and_no_folder_are_refused(cli: Callable[..., Answer], tmp_path: Path) -> None:
    assert "No such file" in cli("sweep", tmp_path / "no.toml")[2]
    code, _, err = cli("collect", tmp_path / "no")
    assert code == 2
    assert "is not the folder of a sweep: no such folder; give the --out of `accelsim sweep`" in err


def test_a_damaged_point_is_refused_by_collect(cli: Callable[..., Answer], asked: Path, tmp_path: Path) -> None:
    cli("sweep", asked)
    next((tmp_path / "grid" / "points").iterdir()).write_text("{")
    code, out, err = cli("collect", tmp_path / "grid")
    assert code == 2
    assert out == ""
    assert "is damaged" in err
    assert "remove it and run the sweep again" in err
    code, _, err = cli("sweep", asked)
    assert code == 0
    assert "1 computed, 5 reused" in err
    assert "damaged point file" in err


def test_wrong_options_of_collect_are_refused(cli: Callable[..., Answer], asked: Path, tmp_path: Path) -> None:
    cli("sweep", asked)
    for more, message in (
        (("--table", tmp_path / "a.xls"), "need a name that ends in .csv or .parquet"),
        (("--table", asked), "is there already"),
        (("--plot", tmp_path / "a.png", "--over", "cell.clip"), "over: 'cell.clip': the sweep has no such axis"),
        (("--plot", tmp_path / "a.png", "--column", "mss"), "nearest: mse"),
        (("--plot", tmp_path / "a.xyz"), "give a name that ends in .png"),
    ):
        code, _, err = cli("collect", tmp_path / "grid", *more)
        assert code == 2, err
        assert message in err


def test_without_dask_a_cluster_says_what_to_install(
    cli: Callable[..., Answer], asked: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "distributed", None)
    code, _, err = cli("sweep", asked, "--cluster", "tcp://127.0.0.1:1")
    assert code == 2
    assert "--cluster needs Dask: pip install 'accelsim[cluster]'" in err


@pytest.mark.extras
def test_a_cluster_that_is_not_there_is_told(cli: Callable[..., Answer], asked: Path) -> None:
    pytest.importorskip("distributed", reason="needs the extra `cluster`: pip install -e '.[test,cluster]'")
    code, _, err = cli("sweep", asked, "--cluster", "tcp://127.0.0.1:1")
    assert code == 2
    assert "--cluster: no scheduler answers at tcp://127.0.0.1:1" in err
    code, _, err = cli("sweep", asked, "--cluster", "nonsense://")
    assert code == 2
    assert "--cluster: no scheduler answers at nonsense://" in err


@pytest.mark.extras
def test_a_cluster_computes_the_sweep(cli: Callable[..., Answer], asked: Path) -> None:
    distributed = pytest.importorskip("distributed", reason="needs the extra `cluster`: pip install -e '.[test,cluster]'")
    with distributed.LocalCluster(n_workers=1, threads_per_worker=2, processes=False, dashboard_address=None) as cluster:
        code, _, err = cli("sweep", asked, "--cluster", cluster.scheduler_address)
        assert code == 0, err
        assert "2 threads of 1 workers" in err
        assert "6 computed" in err


def test_a_time_is_told_as_people_say_it() -> None:
    assert [duration(s) for s in (3.2, 89.0, 600.0, 7200.0)] == ["3 s", "89 s", "10 min", "2.0 h"]


def test_a_read_only_folder_is_refused(cli: Callable[..., Answer], asked: Path) -> None:
    code, _, err = cli("sweep", asked, "--out", "/proc/grid")  # where not even root can make one
    assert code == 2
    assert "out: cannot write the sweep's folder /proc/grid: " in err


def test_a_spec_that_is_not_there_is_told_with_the_file_that_names_it(cli: Callable[..., Answer], asked: Path) -> None:
    asked.write_text(FILE.replace("seed = 7", 'seed = 7\nspec = "chip.toml"'))
    code, _, err = cli("sweep", asked)
    assert code == 2
    assert f"{asked}: spec: " in err
    assert "no such file" in err
    asked.write_text(FILE.replace("seed = 7", 'seed = 7\nspec = "mems"'))
    assert f"{asked}: spec: unknown preset 'mems'" in cli("sweep", asked)[2]


def test_a_question_that_links_out_of_the_folder_is_replaced_unread(cli: Callable[..., Answer], asked: Path, tmp_path: Path) -> None:
    assert cli("sweep", asked)[0] == 0
    outside = tmp_path / "outside.json"
    question = (tmp_path / "grid" / "sweep.json").read_text()
    outside.write_text(question)
    (tmp_path / "grid" / "sweep.json").unlink()
    (tmp_path / "grid" / "sweep.json").symlink_to(outside)
    assert cli("sweep", asked)[0] == 0
    assert not (tmp_path / "grid" / "sweep.json").is_symlink()
    assert outside.read_text() == question
