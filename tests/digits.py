"""The digits networks of `make_digits.py`, placed on memristors."""

from functools import cache
from pathlib import Path

from accelsim.accelerator import Accelerator
from accelsim.placement import Plan, place
from workloads.network import Network
from workloads.onnx_reader import load_onnx
from workloads.samples import Samples, load_samples

FIXTURES = Path(__file__).parent / "fixtures"
CALIBRATION = slice(100, 164)
JUDGED = slice(0, 8)


@cache
def digits_network(name: str) -> Network:
    """Return `mlp`, `cnn`, `resnet` or `maxpool`."""
    return load_onnx(FIXTURES / f"digits_{name}.onnx")


@cache
def digits_samples() -> Samples:
    """Return the 200 held-out images and labels."""
    return load_samples(FIXTURES / "digits_test.npz")


def judged() -> Samples:
    """Return the eight images that errors are averaged over."""
    return digits_samples()[JUDGED]


def digits_plan(name: str, *assignments: str, error_rel: float = 0.03, clip: bool = True) -> Plan:
    """Return a digits network on the preset `memse`, with this programming error and other assignments."""
    chosen = (f"cell.programming.error_rel={error_rel}", f"cell.programming.clip={str(clip).lower()}", *assignments)
    return place(digits_network(name), Accelerator.preset("memse", set=chosen), calibration=digits_samples()[CALIBRATION])
