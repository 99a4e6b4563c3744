"""What mutants are made of: small sound networks, and every preset."""

import os
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from importlib.resources import as_file
from pathlib import Path

import numpy as np
import onnx
from onnx import numpy_helper

from devices import catalog
from workloads.onnx_rules import RULES
from workloads.onnx_shapes import FOLDERS
from workloads.zoo import embedded_names, embedded_path

MAX_BYTES = 400_000
MAX_NODE_BYTES = 30_000
FIXTURES = Path(__file__).parents[2] / "tests" / "fixtures"


@dataclass(frozen=True, slots=True, kw_only=True)
class NetworkSeed:
    """A sound network, and the shape of one sample it takes (None where it leaves it open)."""

    name: str
    raw: bytes
    shape: tuple[int, ...] | None
    beside: tuple[tuple[str, bytes], ...] = ()


@cache
def network_seeds() -> tuple[NetworkSeed, ...]:
    """Return the embedded networks, the fixtures of the tests and further models where they are, and the test cases of onnx."""
    paths = [*_embedded(), *sorted(FIXTURES.glob("*.onnx")), *_further()]
    seeds = [_file_seed(path) for path in paths if path.stat().st_size < MAX_BYTES]
    return (*seeds, *_node_seeds())


def own_seeds() -> tuple[NetworkSeed, ...]:
    """Return the seeds that are whole networks."""
    return tuple(seed for seed in network_seeds() if "/" not in seed.name)


def _embedded() -> list[Path]:
    found = []
    for name in embedded_names():
        with as_file(embedded_path(name)) as path:
            found.append(path)
    return found


def _further() -> list[Path]:
    folder = os.environ.get("ACCELSIM_DATA")
    return sorted((Path(folder) / "models").glob("*.onnx")) if folder else []


def _file_seed(path: Path) -> NetworkSeed:
    raw = path.read_bytes()
    data = path.with_name(path.name + ".data")
    beside = ((data.name, data.read_bytes()),) if data.is_file() else ()
    return NetworkSeed(name=path.stem, raw=raw, shape=_shape(raw), beside=beside)


def _shape(raw: bytes) -> tuple[int, ...] | None:
    graph = onnx.load_from_string(raw).graph
    stored = {t.name for t in graph.initializer}
    entry = next((v for v in graph.input if v.name not in stored), None)
    dims = [] if entry is None else [d.dim_value for d in entry.type.tensor_type.shape.dim[1:]]
    return tuple(dims) if dims and min(dims) > 0 and np.prod(dims) < 10_000 else None


def _node_seeds() -> list[NetworkSeed]:
    """Return onnx's own test cases of single operators, at most six of each; all inputs but the first become initializers."""
    from onnx.backend.test.case.node import collect_testcases

    known, seeds, taken = {*RULES, *FOLDERS}, [], dict[str, int]()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the cases divide by zero on purpose
        with np.errstate(all="ignore"):
            cases = collect_testcases(None)
    for case in cases:
        model = case.model
        if model is None or not case.data_sets:
            continue
        label = "|".join(sorted({node.op_type for node in model.graph.node}))
        if label.count("|") > 8 or taken.get(label, 0) >= (6 if label in known else 1):
            continue
        closed = _closed(model, case.data_sets[0][0])
        if closed is not None and len(closed) < MAX_NODE_BYTES:
            taken[label] = taken.get(label, 0) + 1
            seeds.append(NetworkSeed(name=f"node/{case.name}", raw=closed, shape=_shape(closed)))
    return seeds


def _closed(model: onnx.ModelProto, values: Sequence[object]) -> bytes | None:
    """Return a case with its further inputs as initializers and an opset that is read; None without a first float input."""
    made = onnx.ModelProto()
    made.CopyFrom(model)
    entries = list(made.graph.input)
    if len(entries) != len(values) or not values or not all(isinstance(v, np.ndarray) for v in values):
        return None
    if not isinstance(values[0], np.ndarray) or values[0].dtype.kind != "f" or values[0].ndim < 2:
        return None
    for entry, value in zip(entries[1:], values[1:]):
        made.graph.initializer.append(numpy_helper.from_array(np.ascontiguousarray(value), entry.name))
    del made.graph.input[1:]
    for entry in made.opset_import:
        entry.version = min(entry.version, 22) if entry.domain == "" else entry.version
    return bytes(made.SerializeToString())


@cache
def spec_seeds() -> tuple[tuple[str, str], ...]:
    """Return the presets of accelerators as name and text: as they stand, and complete."""
    from accelsim.accelerator import Accelerator

    stand = [(name, catalog.text(name)) for name in catalog.names()]
    complete = [(f"complete {name}", Accelerator.preset(name).to_toml(comments=True)) for name in catalog.names()]
    return (*stand, *complete)


@cache
def pipeline_seeds() -> tuple[tuple[str, str], ...]:
    """Return the presets of FPGA pipelines."""
    return tuple((name, catalog.text(name, folder=catalog.FPGA)) for name in catalog.names(catalog.FPGA))
