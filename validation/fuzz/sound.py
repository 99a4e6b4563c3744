"""Sound files for mutants to stand beside: a tiny network, its images, and a run folder of every kind."""

import contextlib
import io
import os
from pathlib import Path
from random import Random

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from accelsim.accelerator import Accelerator
from accelsim.optimizer.optimize import optimize
from accelsim.placement import place
from accelsim.prediction.predict import predict
from accelsim.report.base import Report
from accelsim.report.run_folder import save_report
from accelsim.sampling.monte_carlo import monte_carlo
from accelsim.timing.evaluate import evaluate
from accelsim.timing.simulate import simulate
from validation.fuzz.arrays import sound_npz
from validation.fuzz.questions import HAS_OPTUNA, HAS_TORCH, RECIPE, SEARCH, SWEEP, training_images
from workloads.onnx_reader import load_onnx
from workloads.samples import load_samples

SHAPE = (1, 6, 6)
RUNS = ("error", "trials", "design", "time", "evaluation")
"""Run folders that are mutated, by name."""


def tiny_network() -> bytes:
    """Return a convolution, ReLU, max-pool and fully connected layer on 6 x 6 pixels."""
    generator = np.random.default_rng(5)
    weights = {"conv1.weight": (2, 1, 3, 3), "conv1.bias": (2,), "fc1.weight": (3, 8), "fc1.bias": (3,)}
    stored = [numpy_helper.from_array(generator.normal(size=s).astype(np.float32) / 2, n) for n, s in weights.items()]
    nodes = [
        helper.make_node("Conv", ["x", "conv1.weight", "conv1.bias"], ["a"]),
        helper.make_node("Relu", ["a"], ["b"]),
        helper.make_node("MaxPool", ["b"], ["c"], kernel_shape=[2, 2], strides=[2, 2]),
        helper.make_node("Flatten", ["c"], ["d"]),
        helper.make_node("Gemm", ["d", "fc1.weight", "fc1.bias"], ["y"], transB=1),
    ]
    entry = helper.make_tensor_value_info("x", TensorProto.FLOAT, ["N", *SHAPE])
    graph = helper.make_graph(nodes, "tiny", [entry], [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["N", 3])], stored)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)])
    onnx.checker.check_model(model)
    return bytes(model.SerializeToString())


def write_sound(folder: Path) -> None:
    """Write the tiny network and eight images."""
    (folder / "tiny.onnx").write_bytes(tiny_network())
    (folder / "tiny.npz").write_bytes(sound_npz(Random(3), SHAPE, n=8))


class Runs:
    """A run folder without fault of every kind."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def sound(self, name: str) -> Path:
        """Return the run folder of a name in RUNS."""
        return self.folder / name

    def make(self) -> None:
        """Compute and write all of them; what this imports and compiles, forks need not."""
        self.folder.mkdir(parents=True)
        write_sound(self.folder)
        network, samples = load_onnx(self.folder / "tiny.onnx"), load_samples(self.folder / "tiny.npz")
        plan = place(network, Accelerator.preset("memse"), calibration=samples)
        timed = place(network, Accelerator.preset("isaac"), calibration=samples)
        reports: dict[str, Report] = {
            "error": predict(plan, samples, seed=1),
            "trials": monte_carlo(plan, samples, seed=1, max_trials=32, threads=1),
            "design": optimize(plan, samples, seed=1, power_budget_w=1.0, mc_max_trials=32, threads=1),
            "time": simulate(timed, images=2),
            "evaluation": evaluate(timed, samples, seed=1, images=2, method="adjoint"),
        }
        for name, report in reports.items():
            save_report(report, self.folder / name, command=["accelsim", name])
        self._ask_much()

    def _ask_much(self) -> None:
        """Make the folders of a sweep, a search and a training that was cut off before its report, and a checkpoint of trials."""
        for name, text in (("sweep.toml", SWEEP), ("search.toml", SEARCH), ("recipe.toml", RECIPE)):
            (self.folder / name).write_text(text)
        (self.folder / "train.npz").write_bytes(training_images())
        here = str(self.folder)
        _run(["sweep", f"{here}/sweep.toml", "--out", f"{here}/sweep"])
        asked = [f"{here}/tiny.onnx", "--inputs", f"{here}/tiny.npz", "--seed", "1", "--method", "adjoint"]
        _run(["validate", *asked, "--max-trials", "32", "--threads", "1", "--checkpoint", f"{here}/trials.npz"])
        if HAS_OPTUNA:
            _run(["explore", f"{here}/search.toml", "--out", f"{here}/search"])
        if HAS_TORCH:
            import torch  # once, not in every fork, which must not come after a backward pass

            torch.set_num_threads(1)
            given = ["--recipe", f"{here}/recipe.toml", "--data", f"{here}/train.npz", "--seed", "1"]
            _in_fork(["train", *given, "--out", f"{here}/training"])
            (self.folder / "training" / "report.json").unlink()


def _run(argv: list[str]) -> None:
    from accelsim.cli import main

    said = io.StringIO()
    with contextlib.redirect_stdout(said), contextlib.redirect_stderr(said):
        code = main(argv)
    assert code in (0, 1), said.getvalue()


def _in_fork(argv: list[str]) -> None:
    pid = os.fork()
    if pid == 0:
        code = 1
        try:
            _run(argv)
            code = 0
        finally:
            os._exit(code)
    assert os.waitpid(pid, 0)[1] == 0
