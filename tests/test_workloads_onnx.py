"""Networks read from ONNX files compute what ONNX's own reference evaluator computes; bad files are one clear error each."""

import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import NodeProto, TensorProto, helper, numpy_helper
from onnx.reference import ReferenceEvaluator

from devices.base.errors import NetworkError, UnsupportedOperatorError
from workloads.network import Network
from workloads.onnx_graph import module_path
from workloads.onnx_reader import load_onnx
from workloads.onnx_survey import survey
from workloads.operators.matrix import Conv, MatrixOperator
from workloads.operators.merge import Affine, Mul
from workloads.operators.smooth import Gelu, HardSwish, SiLU

FIXTURES = Path(__file__).parent / "fixtures"
ZOO = Path(__file__).parents[1] / "workloads" / "zoo"
TOPOLOGIES = Path(onnx.__file__).parent / "backend" / "test" / "data" / "light"
AGREEMENT = 1e-4
"""Of the largest output: float32 sums of some thousand terms in another order."""
N_IMAGES = 3

Arrays = dict[str, np.ndarray]


def model_of(
    nodes: Sequence[NodeProto], shape: Sequence[int | str], *, opset: int = 17, constants: Arrays | None = None,
    batch: int | str = "N", outputs: Sequence[str] = ("y",), kind: int = TensorProto.FLOAT,
) -> onnx.ModelProto:
    """Return a model that reads x `(batch, *shape)`."""
    graph = helper.make_graph(
        list(nodes),
        "test",
        [helper.make_tensor_value_info("x", kind, [batch, *shape])],
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in outputs],
        [numpy_helper.from_array(value, name) for name, value in (constants or {}).items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=8)


def saved(model: onnx.ModelProto, folder: Path, name: str = "net.onnx") -> Path:
    path = folder / name
    path.write_bytes(model.SerializeToString())
    return path


def images(shape: Sequence[int], n: int = N_IMAGES, seed: int = 0) -> np.ndarray:
    return (np.random.default_rng(seed).normal(size=(n, *shape)) * 1.5).astype(np.float32)


def assert_agrees(network: Network, model: onnx.ModelProto, x: np.ndarray) -> None:
    (expected, *_) = ReferenceEvaluator(model).run(None, {model.graph.input[0].name: x})
    found = network.forward(x)
    assert found.dtype == np.float32
    assert found.shape == expected.shape
    np.testing.assert_allclose(found, expected, rtol=0, atol=AGREEMENT * max(float(np.abs(expected).max()), 1e-3))


def rand(*shape: int, seed: int = 1) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


def ints(*values: int) -> np.ndarray:
    return np.array(values, dtype=np.int64)


def scalar(value: float) -> np.ndarray:
    return np.array(value, dtype=np.float32)


@dataclass(frozen=True, eq=False)
class Single:
    """One operator with its attributes and constant inputs, tried at several opsets; None leaves an input out."""

    op: str
    shape: tuple[int, ...]
    constants: tuple[np.ndarray | None, ...] = ()
    attributes: dict[str, Any] = field(default_factory=dict)
    opsets: tuple[int, ...] = (17,)
    note: str = ""
    x_at: int = 0

    def model(self, opset: int) -> onnx.ModelProto:
        names = [f"c{i}" if c is not None else "" for i, c in enumerate(self.constants)]
        names.insert(self.x_at, "x")
        node = helper.make_node(self.op, names, ["y"], name="the_node", **self.attributes)
        held = {f"c{i}": c for i, c in enumerate(self.constants) if c is not None}
        return model_of([node], self.shape, opset=opset, constants=held)


IMAGE, SIGNAL, VECTOR = (3, 7, 8), (3, 9), (6,)
ALL = (7, 9, 11, 13, 17, 22)
OLD, NEW = (7, 9, 11), (13, 17, 22)
W33, W13 = rand(4, 3, 3, 3), rand(4, 3, 3)
BN = (rand(3), rand(3, seed=2), rand(3, seed=3), np.abs(rand(3, seed=4)) + 0.1)
LONG_MAX = 2**63 - 1

SINGLES = [
    # convolutions
    Single("Conv", IMAGE, (W33, rand(4)), {}, ALL),
    Single("Conv", IMAGE, (W33,), {"strides": [2, 1], "pads": [1, 0, 2, 1]}, ALL, "strides and lopsided pads"),
    Single("Conv", IMAGE, (W33,), {"dilations": [2, 2], "pads": [2, 2, 2, 2]}, (11,), "dilated"),
    Single("Conv", (4, 6, 6), (rand(8, 2, 3, 3), rand(8)), {"group": 2, "pads": [1, 1, 1, 1]}, (11,), "two groups"),
    Single("Conv", (4, 6, 6), (rand(8, 1, 3, 3),), {"group": 4}, (11,), "depthwise with multiplier 2"),
    Single("Conv", (4, 6, 6), (rand(4, 1, 3, 3),), {"group": 4, "strides": [2, 2], "pads": [1, 1, 1, 1]}, (11,), "depthwise, stride 2"),
    *(Single("Conv", IMAGE, (W33,), {"auto_pad": m, "strides": [2, 2]}, (11, 17), m) for m in ("SAME_UPPER", "SAME_LOWER", "VALID")),
    Single("Conv", (3, 6, 6), (rand(4, 3, 2, 2),), {"auto_pad": "SAME_LOWER"}, (11,), "even kernel, SAME_LOWER"),
    Single("Conv", SIGNAL, (W13, rand(4)), {"strides": [2], "pads": [1, 2]}, (11, 17), "one axis"),
    Single("Conv", (4, 9), (rand(4, 2, 3),), {"group": 2, "dilations": [2]}, (11,), "one axis, groups"),
    Single("Conv", SIGNAL, (W13,), {"auto_pad": "SAME_UPPER", "strides": [2]}, (11,), "one axis, SAME_UPPER"),
    Single("ConvTranspose", IMAGE, (rand(3, 4, 3, 3), rand(4)), {}, (11, 17)),
    Single("ConvTranspose", IMAGE, (rand(3, 4, 2, 2), rand(4)), {"strides": [2, 2]}, (7, 11, 17), "as in U-Nets"),
    Single("ConvTranspose", IMAGE, (rand(3, 4, 3, 3),), {"strides": [2, 3], "pads": [1, 0, 1, 2], "output_padding": [1, 2]}, (11,), "padded"),
    Single("ConvTranspose", IMAGE, (rand(3, 4, 3, 3),), {"dilations": [2, 2], "pads": [1, 1, 1, 1]}, (11,), "dilated"),
    Single("ConvTranspose", (4, 5, 5), (rand(4, 2, 3, 3),), {"group": 2, "strides": [2, 2], "pads": [1, 1, 1, 1]}, (11,), "groups"),
    Single("ConvTranspose", SIGNAL, (rand(3, 4, 3),), {"strides": [2], "pads": [1, 0]}, (11,), "one axis"),
    # fully connected
    Single("Gemm", VECTOR, (rand(6, 4), rand(4)), {}, ALL),
    Single("Gemm", VECTOR, (rand(4, 6), rand(1, 4)), {"transB": 1, "alpha": 0.5, "beta": 2.0}, ALL, "transposed and scaled"),
    Single("Gemm", VECTOR, (rand(4, 6),), {"transB": 1}, (11, 17), "no bias"),
    Single("Gemm", VECTOR, (rand(6, 4), scalar(0.3)), {}, (11,), "one bias for all"),
    Single("MatMul", VECTOR, (rand(6, 4),), {}, (9, 17)),
    Single("MatMul", (5, 6), (rand(6, 4),), {}, (17,), "at every position"),
    Single("MatMul", (2, 5, 6), (rand(6, 4),), {}, (17,), "at every position of two axes"),
    Single("MatMul", (5, 6), (rand(4, 5),), {}, (17,), "constant from the left", x_at=1),
    # sums and products
    Single("Add", IMAGE, (rand(3, 1, 1),), {}, ALL),
    Single("Add", IMAGE, (rand(1, 3, 1, 1),), {}, (7, 17), "constant first", x_at=1),
    Single("Add", (3, 1, 1), (rand(1, 3, 7, 8),), {}, (17,), "constant larger than the value"),
    Single("Sub", IMAGE, (rand(8),), {}, (7, 17)),
    Single("Sub", IMAGE, (rand(8),), {}, (7, 17), "constant first", x_at=1),
    Single("Mul", IMAGE, (rand(7, 1),), {}, (7, 17)),
    Single("Mul", IMAGE, (scalar(2.5),), {}, (17,), "constant first", x_at=1),
    Single("Div", IMAGE, (rand(1, 1, 7, 8),), {}, (7, 17)),
    Single("Sum", IMAGE, (rand(3, 1, 1), rand(8)), {}, (8, 17)),
    Single("Neg", IMAGE, (), {}, (7, 17)),
    Single("Pow", IMAGE, (scalar(2.0),), {}, (13,)),
    Single("Max", IMAGE, (scalar(0.5),), {}, (13,)),
    Single("Min", IMAGE, (scalar(0.5),), {}, (13,), x_at=1),
    # activations
    Single("Relu", IMAGE, (), {}, ALL),
    Single("LeakyRelu", IMAGE, (), {"alpha": 0.2}, (7, 16)),
    Single("LeakyRelu", IMAGE, (), {}, (16,), "default"),
    Single("PRelu", IMAGE, (rand(3, 1, 1),), {}, (9, 16)),
    Single("PRelu", IMAGE, (rand(1),), {}, (16,), "one slope"),
    Single("PRelu", VECTOR, (rand(6),), {}, (16,), "vector"),
    Single("Elu", IMAGE, (), {"alpha": 0.7}, (7, 17)),
    Single("Selu", IMAGE, (), {}, (7, 17)),
    Single("Abs", IMAGE, (), {}, (13,)),
    Single("Exp", IMAGE, (), {}, (13,)),
    Single("Erf", IMAGE, (), {}, (13,)),
    Single("Clip", IMAGE, (), {"min": 0.0, "max": 6.0}, (7, 9), "attributes"),
    Single("Clip", IMAGE, (), {"min": -0.5}, (7, 9), "one attribute"),
    Single("Clip", IMAGE, (scalar(-0.5), scalar(1.0)), {}, (11, 13, 17)),
    Single("Clip", IMAGE, (scalar(0.0),), {}, (11, 17), "from below"),
    Single("Clip", IMAGE, (None, scalar(0.7)), {}, (11, 17), "from above"),
    Single("Sigmoid", IMAGE, (), {}, (7, 17)),
    Single("Tanh", IMAGE, (), {}, (7, 17)),
    Single("Softplus", IMAGE, (), {}, (7, 17)),
    Single("Softsign", IMAGE, (), {}, (7, 17)),
    Single("HardSigmoid", IMAGE, (), {"alpha": 0.3, "beta": 0.4}, (7, 17)),
    Single("HardSwish", IMAGE, (), {}, (14, 17, 22)),
    Single("Gelu", IMAGE, (), {}, (20,)),
    Single("Gelu", IMAGE, (), {"approximate": "tanh"}, (20,), "tanh"),
    Single("Mish", IMAGE, (), {}, (18, 22)),
    # pooling
    Single("MaxPool", IMAGE, (), {"kernel_shape": [2, 2], "strides": [2, 2]}, ALL),
    Single("MaxPool", IMAGE, (), {"kernel_shape": [3, 3], "strides": [2, 2], "pads": [1, 1, 1, 1]}, (8, 11, 17), "padded"),
    Single("MaxPool", IMAGE, (), {"kernel_shape": [3, 2], "strides": [2, 2], "ceil_mode": 1}, (10, 17), "rounded up"),
    Single("MaxPool", IMAGE, (), {"kernel_shape": [2, 2], "dilations": [2, 3]}, (10, 17), "dilated"),
    Single("MaxPool", IMAGE, (), {"kernel_shape": [3, 3], "strides": [2, 2], "auto_pad": "SAME_UPPER"}, (11, 17), "SAME_UPPER"),
    Single("MaxPool", IMAGE, (), {"kernel_shape": [2, 3], "strides": [2, 2], "auto_pad": "VALID"}, (11,), "VALID"),
    Single("MaxPool", SIGNAL, (), {"kernel_shape": [3], "strides": [2], "pads": [1, 1]}, (11, 17), "one axis"),
    Single("AveragePool", IMAGE, (), {"kernel_shape": [2, 2], "strides": [2, 2]}, ALL),
    Single("AveragePool", IMAGE, (), {"kernel_shape": [3, 3], "strides": [2, 2], "pads": [1, 1, 1, 1]}, (7, 11, 17), "padded"),
    Single(
        "AveragePool", IMAGE, (), {"kernel_shape": [3, 3], "strides": [2, 2], "pads": [1, 1, 1, 1], "count_include_pad": 1},
        (7, 11, 17), "padding counts",
    ),
    Single("AveragePool", IMAGE, (), {"kernel_shape": [3, 3], "strides": [2, 2], "auto_pad": "SAME_UPPER"}, (11,), "SAME_UPPER"),
    Single("AveragePool", SIGNAL, (), {"kernel_shape": [2]}, (11, 17), "one axis"),
    Single("GlobalAveragePool", IMAGE, (), {}, ALL),
    Single("GlobalAveragePool", SIGNAL, (), {}, (17,), "one axis"),
    Single("GlobalMaxPool", IMAGE, (), {}, ALL),
    # reductions
    *(
        Single(op, IMAGE, (), {"axes": [2, 3], "keepdims": k}, (7, 11), f"attribute, keepdims {k}")
        for op in ("ReduceMean", "ReduceMax", "ReduceSum") for k in (0, 1)
    ),
    Single("ReduceMean", IMAGE, (ints(-1, -2),), {"keepdims": 0}, (18, 22), "input"),
    Single("ReduceMax", IMAGE, (ints(1),), {}, (18, 22), "input"),
    Single("ReduceSum", IMAGE, (ints(1),), {"keepdims": 0}, (13, 17, 22), "input"),
    # normalizations
    Single("BatchNormalization", IMAGE, BN, {"epsilon": 1e-3}, (7, 9, 14, 15, 17)),
    Single("InstanceNormalization", IMAGE, (rand(3), rand(3, seed=2)), {}, (7, 17, 22)),
    Single("InstanceNormalization", SIGNAL, (rand(3), rand(3, seed=2)), {"epsilon": 1e-2}, (17,), "one axis"),
    Single("LayerNormalization", (4, 6), (rand(6), rand(6, seed=2)), {}, (17, 22)),
    Single("LayerNormalization", IMAGE, (rand(3, 7, 8),), {"axis": 1}, (17,), "over all, no shift"),
    Single("GroupNormalization", (4, 3, 3), (rand(4), rand(4, seed=2)), {"num_groups": 2}, (21, 22)),
    Single("LRN", (6, 4, 4), (), {"size": 3, "alpha": 0.1, "beta": 0.6, "bias": 2.0}, (7, 13, 17)),
    Single("LRN", (6, 4, 4), (), {"size": 4, "alpha": 0.1}, (13,), "even size"),
    Single("Softmax", VECTOR, (), {}, ALL),
    Single("Softmax", IMAGE, (), {}, (13, 17), "last axis"),
    Single("Softmax", IMAGE, (), {"axis": 1}, (13, 17), "channels"),
    Single("LogSoftmax", VECTOR, (), {"axis": 1}, (7, 13, 17)),
    # shapes
    Single("Flatten", IMAGE, (), {}, ALL),
    Single("Flatten", IMAGE, (), {"axis": -3}, (11, 17), "negative axis"),
    Single("Reshape", IMAGE, (ints(0, -1),), {}, ALL),
    Single("Reshape", IMAGE, (ints(-1, 3, 56),), {}, (7, 17), "batch is the rest"),
    Single("Reshape", IMAGE, (ints(0, 0, 56),), {}, (17,), "zeros copy"),
    Single("Reshape", IMAGE, (ints(-1, 3, 7, 8),), {"allowzero": 1}, (17,), "no change"),
    Single("Transpose", IMAGE, (), {"perm": [0, 2, 3, 1]}, (7, 17)),
    Single("Squeeze", (1, 7, 1), (), {"axes": [1, -1]}, (7, 11), "attribute"),
    Single("Squeeze", (1, 7, 1), (ints(1),), {}, (13, 17), "input"),
    Single("Squeeze", (1, 7, 1), (), {}, (13,), "every axis of length 1"),
    Single("Unsqueeze", (7,), (), {"axes": [1, 3]}, (7, 11), "attribute"),
    Single("Unsqueeze", (7,), (ints(-1, 1),), {}, (13, 17), "input"),
    Single("Slice", IMAGE, (), {"starts": [1, 0], "ends": [3, -1], "axes": [1, 3]}, (7, 9), "attributes"),
    Single("Slice", IMAGE, (ints(0, 1), ints(LONG_MAX, -1), ints(0, 2)), {}, (10, 13, 17), "inputs, the batch kept whole"),
    Single("Slice", IMAGE, (ints(-1), ints(-(2**63)), ints(3), ints(-2)), {}, (13, 17), "backwards"),
    Single("Gather", IMAGE, (ints(2, 0, -1),), {"axis": 1}, (7, 13, 17)),
    Single("Gather", IMAGE, (np.array(3, dtype=np.int64),), {"axis": 2}, (13,), "one entry"),
    Single("Gather", IMAGE, (np.array([[0, 1], [3, 2]]),), {"axis": -1}, (13,), "table"),
    Single("Pad", IMAGE, (), {"pads": [0, 1, 0, 2, 0, 0, 1, 0], "value": 0.5}, (7, 9), "attributes"),
    Single("Pad", IMAGE, (ints(0, 0, 1, 2, 0, 1, 0, 1), scalar(-1.0)), {}, (11, 13, 17)),
    Single("Pad", IMAGE, (ints(1, 2, 0, 1), None, ints(2, 3)), {}, (18, 22), "axes"),
    *(Single("Pad", IMAGE, (ints(0, 0, 2, 1, 0, 0, 1, 3),), {"mode": m}, (11, 18), m) for m in ("reflect", "edge")),
    Single("Pad", IMAGE, (ints(0, 0, 2, 1, 0, 0, 1, 3),), {"mode": "wrap"}, (19,), "wrap"),
    Single("Identity", IMAGE, (), {}, (17,)),
    Single("Dropout", IMAGE, (), {}, (7, 10, 13)),
    Single("Dropout", IMAGE, (scalar(0.4),), {}, (13,), "ratio"),
    Single("Cast", IMAGE, (), {"to": TensorProto.FLOAT}, (13,)),
    # resizing
    Single("Upsample", IMAGE, (), {"mode": "nearest", "scales": [1.0, 1.0, 2.0, 2.0]}, (7,), "nearest"),
    Single("Upsample", IMAGE, (np.array([1, 1, 2, 3], np.float32),), {"mode": "nearest"}, (9,), "nearest"),
    Single("Resize", IMAGE, (np.array([1, 1, 2, 1.5], np.float32),), {"mode": "nearest"}, (10,), "as first defined"),
    *(
        Single(
            "Resize", IMAGE, (np.empty(0, np.float32), np.array([1, 1, *s], np.float32)),
            {"mode": "nearest", "nearest_mode": r, "coordinate_transformation_mode": c}, (11, 13, 19), f"nearest {r} {c} {s}",
        )
        for r in ("floor", "ceil", "round_prefer_floor", "round_prefer_ceil") for c in ("asymmetric", "half_pixel")
        for s in ((2.0, 2.0), (0.6, 1.5))
    ),
    *(
        Single(
            "Resize", IMAGE, (np.empty(0, np.float32), np.array([1, 1, *s], np.float32)),
            {"mode": "linear", "coordinate_transformation_mode": c}, (11, 13, 19), f"linear {c} {s}",
        )
        for c in ("half_pixel", "pytorch_half_pixel", "align_corners", "asymmetric") for s in ((2.0, 2.0), (0.6, 1.5))
    ),
    Single("Resize", IMAGE, (None, None, ints(3, 3, 14, 5)), {"mode": "linear"}, (13, 18), "sizes"),
    Single("Resize", IMAGE, (None, None, ints(14, 5)), {"mode": "linear", "axes": [2, 3]}, (18,), "sizes by axis"),
    Single("Resize", SIGNAL, (None, np.array([1, 1, 2], np.float32)), {"mode": "linear"}, (13,), "one axis"),
]


@pytest.mark.parametrize(
    ("single", "opset"), [(s, o) for s in SINGLES for o in s.opsets], ids=[f"{s.op}-{o}-{s.note}" for s in SINGLES for o in s.opsets]
)
def test_each_operator_agrees_with_the_reference_evaluator(single: Single, opset: int, tmp_path: Path) -> None:
    model = single.model(opset)
    onnx.checker.check_model(model)
    if single.op in ("Identity", "Dropout", "Cast") or "no change" in single.note:
        model.graph.node.append(helper.make_node("Relu", ["y"], ["z"]))
        model.graph.output[0].name = "z"
    assert_agrees(load_onnx(saved(model, tmp_path)), model, images(single.shape))
