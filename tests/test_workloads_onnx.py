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
from workloads.onnx_graph import module_path, module_scope
from workloads.onnx_reader import load_onnx
from workloads.onnx_survey import survey
from workloads.operators.matrix import Conv, MatrixOperator
from workloads.operators.merge import Affine, Mul
from workloads.operators.smooth import Gelu, HardSwish, SiLU
from workloads.walk import evaluate

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
    found = evaluate(network, x)
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
    """One operator with its attributes and constant inputs, tried at several opsets; None leaves an input out.

    `judge` is the same operator of another opset, where the reference evaluator (1.23) cannot run this one.
    """

    op: str
    shape: tuple[int, ...]
    constants: tuple[np.ndarray | None, ...] = ()
    attributes: dict[str, Any] = field(default_factory=dict)
    opsets: tuple[int, ...] = (17,)
    note: str = ""
    x_at: int = 0
    judge: "Single | None" = None

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
DOUBLE = np.array([1, 1, 2, 2], np.float32)


def doubled(mode: str) -> Single:
    """Return what Upsample and the first Resize mean: coordinates over the scale, rounded down."""
    attributes = {"mode": mode, "nearest_mode": "floor", "coordinate_transformation_mode": "asymmetric"}
    return Single("Resize", IMAGE, (np.empty(0, np.float32), DOUBLE), attributes, (13,))


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
    Single(
        "ConvTranspose", IMAGE, (rand(3, 4, 3, 3),), {"strides": [2, 3], "pads": [1, 0, 1, 2], "output_padding": [1, 2]}, (11,), "padded"
    ),
    Single("ConvTranspose", IMAGE, (rand(3, 4, 3, 3),), {"dilations": [2, 2], "pads": [1, 1, 1, 1]}, (11,), "dilated"),
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
    Single("Celu", IMAGE, (), {}, (12,)),
    Single("Celu", IMAGE, (), {"alpha": 0.6}, (12, 17), "alpha"),
    Single("Expand", (3, 1, 8), (ints(1, 3, 7, 1),), {}, (13, 17)),
    Single("Expand", (3, 1, 8), (ints(7, 1),), {}, (13,), "few axes"),
    *(Single("DepthToSpace", (12, 3, 2), (), {"blocksize": 2, "mode": m}, (11, 13), m) for m in ("DCR", "CRD")),
    Single("SpaceToDepth", (3, 4, 6), (), {"blocksize": 2}, (13,)),
    # pooling
    Single("AveragePool", (2, 5, 4, 3), (), {"kernel_shape": [3, 1, 1], "pads": [1, 0, 0, 1, 0, 0]}, (11, 17), "along channels"),
    Single("AveragePool", (2, 5, 4, 3), (), {"kernel_shape": [1, 2, 3], "strides": [1, 2, 1]}, (11,), "of every channel"),
    Single("MaxPool", (2, 5, 4, 3), (), {"kernel_shape": [2, 1, 1], "strides": [2, 1, 1]}, (11,), "along channels"),
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
    *(Single(op, IMAGE, (), {"axes": [1, 3], "keepdims": 0}, (11,)) for op in ("ReduceMin", "ReduceL2", "ReduceSumSquare")),
    *(Single(op, IMAGE, (ints(2),), {}, (18,)) for op in ("ReduceMin", "ReduceL2", "ReduceSumSquare")),
    Single("ReduceMean", IMAGE, (ints(-1, -2),), {"keepdims": 0}, (18, 22), "input"),
    Single("ReduceMax", IMAGE, (ints(1),), {}, (18, 22), "input"),
    Single("ReduceSum", IMAGE, (ints(1),), {"keepdims": 0}, (13, 17, 22), "input"),
    # normalizations
    Single("BatchNormalization", IMAGE, BN, {"epsilon": 1e-3}, (14, 15, 17)),
    Single("BatchNormalization", IMAGE, BN, {}, (7, 9), judge=Single("BatchNormalization", IMAGE, BN)),
    Single("InstanceNormalization", IMAGE, (rand(3), rand(3, seed=2)), {}, (7, 17, 22)),
    Single("InstanceNormalization", SIGNAL, (rand(3), rand(3, seed=2)), {"epsilon": 1e-2}, (17,), "one axis"),
    Single("LayerNormalization", (4, 6), (rand(6), rand(6, seed=2)), {}, (17, 22)),
    Single("LayerNormalization", IMAGE, (rand(3, 7, 8),), {"axis": 1}, (17,), "over all, no shift"),
    Single("GroupNormalization", (4, 3, 3), (rand(4), rand(4, seed=2)), {"num_groups": 2}, (21, 22)),
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
    Single("Upsample", IMAGE, (), {"mode": "nearest", "scales": [1.0, 1.0, 2.0, 2.0]}, (7,), "nearest", judge=doubled("nearest")),
    Single("Upsample", IMAGE, (np.array([1, 1, 2, 3], np.float32),), {"mode": "nearest"}, (9,), "nearest"),
    Single("Upsample", IMAGE, (DOUBLE,), {"mode": "linear"}, (9,), "linear", judge=doubled("linear")),
    Single("Resize", IMAGE, (DOUBLE,), {"mode": "nearest"}, (10,), "nearest", judge=doubled("nearest")),
    Single("Resize", IMAGE, (DOUBLE,), {"mode": "linear"}, (10,), "linear", judge=doubled("linear")),
    *(
        Single(
            "Resize", IMAGE, (np.empty(0, np.float32), np.array([1, 1, *s], np.float32)),
            {"mode": "nearest", "nearest_mode": r, "coordinate_transformation_mode": c}, (11, 13, 19), f"nearest {r} {c} {s}",
        )
        for r in ("floor", "ceil", "round_prefer_floor", "round_prefer_ceil") for c in ("asymmetric", "half_pixel")
        for s in ((2.0, 2.0), (0.625, 1.5))
    ),
    *(
        Single(
            "Resize", IMAGE, (np.empty(0, np.float32), np.array([1, 1, *s], np.float32)),
            {"mode": "linear", "coordinate_transformation_mode": c}, (11, 13, 19), f"linear {c} {s}",
        )
        for c in ("half_pixel", "pytorch_half_pixel", "align_corners", "asymmetric") for s in ((2.0, 2.0), (3.0, 0.5))
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
    if single.op in ("Identity", "Dropout", "Cast") or "no change" in single.note:
        model.graph.node.append(helper.make_node("Relu", ["y"], ["z"]))
        model.graph.output[0].name = "z"
    judge = model if single.judge is None else single.judge.model(single.judge.opsets[0])
    assert_agrees(load_onnx(saved(model, tmp_path)), judge, images(single.shape))


@pytest.mark.parametrize("size", [1, 3, 4, 5])
def test_lrn_sums_its_neighbours(size: int, tmp_path: Path) -> None:
    """Against the formula: the reference evaluator (1.23) fills as many channels as there are images."""
    node = helper.make_node("LRN", ["x"], ["y"], size=size, alpha=0.3, beta=0.6, bias=2.0)
    x = images((6, 4, 4))
    expected = np.empty_like(x)
    for c in range(6):
        near = x[:, max(0, c - (size - 1) // 2) : c + size // 2 + 1]
        expected[:, c] = x[:, c] / (2.0 + 0.3 / size * (near**2).sum(axis=1)) ** 0.6
    network = load_onnx(saved(model_of([node], (6, 4, 4)), tmp_path))
    np.testing.assert_allclose(evaluate(network, x), expected, rtol=1e-5)


@pytest.mark.parametrize("op", ["Softmax", "LogSoftmax"])
def test_softmax_before_opset_13_is_over_all_axes_from_its_own(op: str, tmp_path: Path) -> None:
    x = images(IMAGE)
    network = load_onnx(saved(model_of([helper.make_node(op, ["x"], ["y"], axis=2)], IMAGE, opset=11), tmp_path))
    flat = np.exp(x.reshape(N_IMAGES, 3, 56).astype(np.float64))
    expected = (flat / flat.sum(axis=2, keepdims=True)).reshape(x.shape)
    np.testing.assert_allclose(evaluate(network, x), expected if op == "Softmax" else np.log(expected), rtol=1e-4)


def test_groups_of_a_transposed_convolution_are_separate(tmp_path: Path) -> None:
    """Against two ungrouped ones: the reference evaluator (1.23) cannot run several output channels a group."""
    weights, x = rand(4, 2, 3, 3), images((4, 5, 5))
    options = {"strides": [2, 2], "pads": [1, 1, 1, 1]}
    whole = model_of([helper.make_node("ConvTranspose", ["x", "w"], ["y"], group=2, **options)], (4, 5, 5), constants={"w": weights})
    halves = []
    for part in (slice(0, 2), slice(2, 4)):
        node = helper.make_node("ConvTranspose", ["x", "w"], ["y"], **options)
        half = model_of([node], (2, 5, 5), constants={"w": weights[part]})
        halves.append(ReferenceEvaluator(half).run(None, {"x": x[:, part]})[0])
    found = evaluate(load_onnx(saved(whole, tmp_path)), x)
    np.testing.assert_allclose(found, np.concatenate(halves, axis=1), rtol=1e-4, atol=1e-4)


# whole networks


DATA_MODELS = ("digit_cnn", "resnet8_cifar10", "resnet20_cifar10", "mobilenet_v2", "mouse_unet", "em_unet")
TRIED_SHAPES = {"em_unet": (1, 48, 64)}
TRIED_IMAGES = {"mobilenet_v2": 1, "mouse_unet": 1}


def data_model(name: str) -> Path:
    if not os.environ.get("ACCELSIM_DATA"):
        pytest.skip("ACCELSIM_DATA is not set: it names the folder with models/*.onnx")
    path = Path(os.environ["ACCELSIM_DATA"]) / "models" / f"{name}.onnx"
    if not path.is_file():
        pytest.skip(f"ACCELSIM_DATA holds no models/{name}.onnx")
    return path


@pytest.mark.parametrize("name", [pytest.param(n, marks=pytest.mark.slow) if n == "mouse_unet" else n for n in DATA_MODELS])
def test_trained_networks_agree_with_the_reference_evaluator(name: str) -> None:
    path = data_model(name)
    network = load_onnx(path, input_shape=TRIED_SHAPES.get(name))
    assert_agrees(network, onnx.load(path), images(network.input_shape, TRIED_IMAGES.get(name, 2)))


def test_batch_norms_of_trained_networks_are_folded() -> None:
    network = load_onnx(data_model("resnet8_cifar10"))
    assert not [node.name for node in network.nodes if isinstance(node.operator, Affine)]
    assert len(list(network.matrix_layers())) == 10


def test_layers_have_the_names_users_know() -> None:
    names = {node.name for _, node in load_onnx(data_model("mobilenet_v2")).matrix_layers()}
    assert {"features.0.0", "features.1.conv.0.0", "features.18.0", "classifier.1"} <= names


@pytest.mark.parametrize("path", sorted(ZOO.glob("*.onnx")) or [pytest.param(None, marks=pytest.mark.skip("no network is embedded"))])
def test_embedded_networks_agree_with_the_reference_evaluator(path: Path) -> None:
    network = load_onnx(path)
    assert_agrees(network, onnx.load(path), images(network.input_shape, 3))


@pytest.mark.parametrize("n_images", [1, 2, 5])
@pytest.mark.parametrize("name", ["default_export", "dynamic_shapes", "legacy_export"])
def test_torchs_exports_give_torchs_outputs_for_any_batch(name: str, n_images: int) -> None:
    path, kept = FIXTURES / f"{name}.onnx", FIXTURES / "fixture_io.npz"
    if not (path.is_file() and kept.is_file()):
        pytest.skip(f"tests/fixtures has no {name}.onnx with fixture_io.npz; make them with python -m tests.fixtures.make_fixtures")
    with np.load(kept) as held:
        x, y = held["x"][:n_images], held["y"][:n_images]
    network = load_onnx(path)
    np.testing.assert_allclose(evaluate(network, x), y, rtol=0, atol=AGREEMENT * np.abs(y).max())
    assert [node.name for _, node in network.matrix_layers()] == ["conv1", "conv2", "fc"]


def test_a_fixed_batch_is_read_as_any_and_noted() -> None:
    network = load_onnx(FIXTURES / "default_export.onnx")
    assert "the declared batch size 2 was read as any batch size" in network.notes


TOPOLOGY_NAMES = ("bvlc_alexnet", "densenet121", "inception_v1", "resnet50", "shufflenet", "squeezenet", "vgg19", "zfnet512")


@pytest.mark.parametrize("name", TOPOLOGY_NAMES)
def test_topologies_without_weights_are_surveyed(name: str) -> None:
    rows = survey(TOPOLOGIES / f"light_{name}.onnx")
    assert all(row.supported for row in rows)
    assert rows[-1].out_shape is not None
    assert rows[-1].out_shape[0] == 1000


def test_a_survey_counts_what_the_papers_count() -> None:
    """VGG-19: 143.67 M parameters, 19.6 G multiplications; ResNet-50: 25.5 M (biases folded in), 4.1 G."""
    vgg, resnet = (survey(TOPOLOGIES / f"light_{n}.onnx") for n in ("vgg19", "resnet50"))
    assert sum(row.n_parameters for row in vgg) == 143_667_240
    assert sum(row.n_macs for row in vgg) == pytest.approx(19.63e9, rel=1e-3)
    assert sum(row.n_parameters for row in resnet) == pytest.approx(25.53e6, rel=1e-3)
    assert sum(row.n_macs for row in resnet) == pytest.approx(4.09e9, rel=1e-3)


def test_repeated_constants_above_the_limit_are_refused_unless_it_is_raised() -> None:
    path = TOPOLOGIES / "light_vgg19.onnx"
    with pytest.raises(NetworkError, match="fold_limit_bytes"):
        load_onnx(path)
    assert len(list(load_onnx(path, fold_limit_bytes=2**30).matrix_layers())) == 19


def with_random_weights(model: onnx.ModelProto) -> onnx.ModelProto:
    """Return a weightless topology with random numbers where constants were repeated; vectors are positive."""
    shapes = {t.name: numpy_helper.to_array(t) for t in model.graph.initializer}
    filled, rng = onnx.ModelProto(), np.random.default_rng(0)
    filled.CopyFrom(model)
    filled.ir_version = 8  # from 4 on, weights need not be inputs
    kept = [node for node in filled.graph.node if node.op_type != "ConstantOfShape"]
    for node in filled.graph.node:
        if node.op_type == "ConstantOfShape":
            shape = tuple(shapes[node.input[0]])
            spread = rng.normal(size=shape) * np.sqrt(2 / np.prod(shape[1:])) if len(shape) > 1 else 0.5 + rng.random(shape)
            filled.graph.initializer.append(numpy_helper.from_array(spread.astype(np.float32), node.output[0]))
    del filled.graph.node[:]
    filled.graph.node.extend(kept)
    data = [v for v in filled.graph.input if v.name.endswith("data_0")]
    del filled.graph.input[:]
    filled.graph.input.extend(data)
    return filled


def test_squeezenet_with_random_weights_agrees_with_the_reference_evaluator(tmp_path: Path) -> None:
    """Without the softmax: before opset 13 it is over all features, which the reference evaluator (1.23) does not know."""
    model = with_random_weights(onnx.load(TOPOLOGIES / "light_squeezenet.onnx"))
    model.graph.output[0].name = model.graph.node.pop().input[0]
    network = load_onnx(saved(model, tmp_path))
    assert_agrees(network, model, images(network.input_shape, 1))


# small networks


def node(op: str, inputs: str, outputs: str, **attributes: Any) -> NodeProto:
    return helper.make_node(op, inputs.split(), outputs.split(), **attributes)


def layers(network: Network) -> list[str]:
    return [n.operator.kind for n in network.nodes]


def test_a_batch_norm_is_folded_when_nobody_else_reads_the_convolution(tmp_path: Path) -> None:
    constants = {"w": W33, **{f"b{i}": b for i, b in enumerate(BN)}}
    constants["w"] = rand(3, 3, 3, 3)
    conv, norm = node("Conv", "x w", "c"), node("BatchNormalization", "c b0 b1 b2 b3", "n")
    alone = model_of([conv, norm], IMAGE, constants=constants, outputs=["n"])
    shared = model_of([conv, norm, node("Add", "c n", "y")], IMAGE, constants=constants)
    for model, expected in ((alone, ["Conv"]), (shared, ["Conv", "BatchNormalization", "Add"])):
        network = load_onnx(saved(model, tmp_path))
        assert len(network) == len(expected)
        assert_agrees(network, model, images(IMAGE))


def test_a_batch_norm_after_a_gemm_and_a_transposed_convolution_is_folded(tmp_path: Path) -> None:
    norm = {f"b{i}": b for i, b in enumerate((rand(4), rand(4, seed=2), rand(4, seed=3), np.abs(rand(4, seed=4)) + 0.1))}
    for first, shape, w in (
        (node("Gemm", "x w", "c", transB=1), (6,), rand(4, 6)), (node("ConvTranspose", "x w", "c"), (3, 5, 5), rand(3, 4, 2, 2))
    ):
        model = model_of([first, node("BatchNormalization", "c b0 b1 b2 b3", "y")], shape, constants={"w": w, **norm})
        network = load_onnx(saved(model, tmp_path))
        assert len(network) == 1
        assert_agrees(network, model, images(shape))


def test_a_matmul_with_its_bias_is_one_layer(tmp_path: Path) -> None:
    model = model_of([node("MatMul", "x fc.weight", "m"), node("Add", "b m", "y")], (6,), constants={"fc.weight": rand(6, 4), "b": rand(4)})
    network = load_onnx(saved(model, tmp_path))
    assert [n.name for n in network.nodes] == ["fc"]
    assert_agrees(network, model, images((6,)))


def test_scales_and_shifts_in_a_row_are_one(tmp_path: Path) -> None:
    chain = [
        node("Relu", "x", "r"), node("Mul", "r a", "s"), node("Add", "s b", "t"), node("Sub", "c t", "u"), node("Div", "u a", "v"),
        node("Add", "v d", "y"),
    ]
    constants = {"a": rand(3, 1, 1), "b": rand(3, 1, 1, seed=2), "c": scalar(2.0), "d": rand(7, 8)}
    model = model_of(chain, IMAGE, constants=constants)
    network = load_onnx(saved(model, tmp_path))
    assert layers(network) == ["Relu", "Affine", "Affine"]
    assert_agrees(network, model, images(IMAGE))


@pytest.mark.parametrize(
    ("nodes", "kind"),
    [
        ([node("Sigmoid", "x", "s"), node("Mul", "x s", "y")], SiLU),
        ([node("Sigmoid", "x", "s"), node("Mul", "s x", "y")], SiLU),
        ([node("HardSigmoid", "x", "s", alpha=1 / 6, beta=0.5), node("Mul", "x s", "y")], HardSwish),
        (
            [
                node("Div", "x root", "d"), node("Erf", "d", "e"), node("Add", "e one", "f"), node("Mul", "x f", "g"),
                node("Mul", "g half", "y"),
            ],
            Gelu,
        ),
        ([node("Sigmoid", "x", "s"), node("Relu", "x", "r"), node("Mul", "r s", "y")], Mul),
    ],
    ids=["silu", "silu_reversed", "hard_swish", "gelu", "other_gate"],
)
def test_gates_of_a_value_by_itself_become_one_activation(nodes: list[NodeProto], kind: type, tmp_path: Path) -> None:
    model = model_of(nodes, IMAGE, constants={"root": scalar(np.sqrt(2)), "one": scalar(1.0), "half": scalar(0.5)})
    network = load_onnx(saved(model, tmp_path))
    assert isinstance(network.nodes[network.output].operator, kind)
    assert len(network) == (3 if kind is Mul else 1)
    assert_agrees(network, model, images(IMAGE))


LAYER_NORM = [
    node("ReduceMean", "x", "m", axes=[-1]), node("Sub", "x m", "d"), node("Pow", "d two", "q"), node("ReduceMean", "q", "v", axes=[-1]),
    node("Add", "v eps", "w"), node("Sqrt", "w", "s"), node("Div", "d s", "y"),
]  # fmt: skip


def test_a_layer_norm_written_out_becomes_one(tmp_path: Path) -> None:
    constants = {"two": scalar(2.0), "eps": scalar(1e-5)}
    model = model_of(LAYER_NORM, IMAGE, opset=13, constants=constants)
    network = load_onnx(saved(model, tmp_path))
    assert layers(network) == ["LayerNormalization"]
    assert_agrees(network, model, images(IMAGE))


def test_what_is_no_layer_norm_stays_a_quotient(tmp_path: Path) -> None:
    """Root mean square normalization: nothing is subtracted; and a mean over other axes than the variance's."""
    constants = {"two": scalar(2.0), "eps": scalar(1e-5)}
    rms = [node("Pow", "x two", "q"), *LAYER_NORM[3:6], node("Reciprocal", "s", "i"), node("Mul", "x i", "y")]
    other = [node("ReduceMean", "x", "m", axes=[1]), *LAYER_NORM[1:]]
    for nodes in (rms, other):
        model = model_of(nodes, IMAGE, opset=13, constants=constants)
        network = load_onnx(saved(model, tmp_path))
        assert "LayerNormalization" not in layers(network)
        assert_agrees(network, model, images(IMAGE))


def test_powers_and_logarithms_of_positive_values(tmp_path: Path) -> None:
    nodes = [
        node("Exp", "x", "e"), node("Sqrt", "e", "s"), node("Pow", "s p", "t"), node("Reciprocal", "t", "r"), node("Log", "r", "l"),
        node("Div", "e s", "d"), node("Div", "k d", "f"), node("Sum", "l d f", "y"),
    ]  # fmt: skip
    model = model_of(nodes, IMAGE, opset=13, constants={"p": scalar(0.75), "k": scalar(2.0)})
    assert_agrees(load_onnx(saved(model, tmp_path)), model, images(IMAGE))


def test_a_softplus_with_its_far_branch_is_a_softplus(tmp_path: Path) -> None:
    nodes = [node("Softplus", "x", "s"), node("Greater", "x far", "g"), node("Where", "g x s", "y")]
    network = load_onnx(saved(model_of(nodes, IMAGE, constants={"far": scalar(20.0)}), tmp_path))
    assert layers(network) == ["Softplus"]
    near = model_of(nodes, IMAGE, constants={"far": scalar(1.0)})
    with pytest.raises(UnsupportedOperatorError, match="a choice that depends on activations"):
        load_onnx(saved(near, tmp_path))


def test_indices_of_features_may_be_gathered_with_the_batch_moved(tmp_path: Path) -> None:
    """As torch writes `y[:, indices]`; anything else with the batch away from its place is refused."""
    moved = [node("Transpose", "x", "t", perm=[1, 0]), node("GatherND", "t at", "g"), node("Transpose", "g", "y", perm=[1, 0])]
    model = model_of(moved, VECTOR, constants={"at": np.array([[4], [0], [-1]])})
    assert_agrees(load_onnx(saved(model, tmp_path)), model, images(VECTOR))
    for last in (node("Relu", "t", "y"), node("Add", "x t", "y"), node("GatherND", "t at", "y")):
        with pytest.raises(NetworkError, match=r"batch axis was moved|moves the batch axis|not computed from the input"):
            load_onnx(saved(model_of([moved[0], last], VECTOR, constants={"at": np.array([[4]])}), tmp_path))


def test_an_if_whose_condition_is_known_is_its_branch(tmp_path: Path) -> None:
    branches = {
        f"{name}_branch": helper.make_graph([node(op, "x", f"{name}_y")], name, [], [helper.make_tensor_value_info(f"{name}_y", 1, None)])
        for name, op in (("then", "Relu"), ("else", "Tanh"))
    }
    for known, kind in ((True, "Relu"), (False, "Tanh")):
        nodes = [node("If", "c", "z", **branches), node("Sigmoid", "z", "y")]
        model = model_of(nodes, IMAGE, constants={"c": np.array(known)})
        network = load_onnx(saved(model, tmp_path))
        assert layers(network) == [kind, "Sigmoid"]
        assert_agrees(network, model, images(IMAGE))
    free = [node("ReduceMax", "x", "m"), node("Greater", "m zero", "c"), node("If", "c", "y", **branches)]
    with pytest.raises(NetworkError):
        load_onnx(saved(model_of(free, IMAGE, constants={"zero": scalar(0.0)}), tmp_path))


def test_products_and_sums_of_activations_broadcast(tmp_path: Path) -> None:
    gate = [node("ReduceMean", "x", "m", axes=[1]), node("Sigmoid", "m", "s"), node("Mul", "s x", "p"), node("Sub", "p m", "y")]
    model = model_of(gate, IMAGE)
    assert_agrees(load_onnx(saved(model, tmp_path)), model, images(IMAGE))


def test_a_value_may_meet_itself(tmp_path: Path) -> None:
    model = model_of([node("Relu", "x", "r"), node("Add", "r r", "a"), node("Mul", "a a", "y")], IMAGE)
    assert_agrees(load_onnx(saved(model, tmp_path)), model, images(IMAGE))


def test_concatenation_and_split_are_inverse(tmp_path: Path) -> None:
    for opset, parts in ((11, {"split": [1, 2]}), (13, {}), (18, {})):
        inputs = "r" if opset == 11 else "r parts"
        nodes = [node("Relu", "x", "r"), node("Split", inputs, "a b", axis=1, **parts), node("Concat", "b a", "y", axis=-3)]
        model = model_of(nodes, IMAGE, opset=opset, constants={} if opset == 11 else {"parts": ints(1, 2)})
        assert_agrees(load_onnx(saved(model, tmp_path)), model, images(IMAGE))


def test_an_even_split_needs_no_sizes(tmp_path: Path) -> None:
    model = model_of([node("Split", "x", "a b", axis=1, num_outputs=2), node("Add", "a b", "y")], (4, 3), opset=18)
    assert_agrees(load_onnx(saved(model, tmp_path)), model, images((4, 3)))


SHAPE_GRAPHS = {
    "view": [
        node("Shape", "x", "s"), node("Gather", "s zero", "n", axis=0), node("Unsqueeze", "n at0", "n1"),
        node("Concat", "n1 minus", "t", axis=0), node("Reshape", "x t", "y"),
    ],
    "product": [
        node("Shape", "x", "s"), node("Slice", "s at0 at1", "n"), node("Slice", "s at1 at4", "rest"),
        node("ReduceProd", "rest", "p"), node("Concat", "n p", "t", axis=0), node("Reshape", "x t", "y"),
    ],
    "rounds": [
        node("Shape", "x", "s"), node("Gather", "s at0", "n", axis=0), node("Mul", "n two", "m"), node("Div", "m two", "k"),
        node("Cast", "k", "c", to=TensorProto.INT64), node("Concat", "c minus", "t", axis=0), node("Reshape", "x t", "y"),
    ],
    "channels_from_shape": [
        node("Shape", "x", "s", start=1, end=2), node("Concat", "copy s minus", "t", axis=0), node("Reshape", "x t", "r"),
        node("Transpose", "r", "y", perm=[0, 2, 1]),
    ],
    "constant_of_shape": [
        node("ConstantOfShape", "at4", "z", value=helper.make_tensor("v", TensorProto.INT64, [1], [0])),
        node("Range", "zero stop one", "q"), node("Mul", "q z", "p0"), node("Concat", "p0 p0", "pads", axis=0), node("Pad", "x pads", "p"),
        node("Relu", "p", "y"),
    ],
}


@pytest.mark.parametrize("name", SHAPE_GRAPHS)
@pytest.mark.parametrize("batch", ["N", 2])
def test_shapes_computed_in_the_graph_are_folded(name: str, batch: int | str, tmp_path: Path) -> None:
    constants = {
        "zero": np.array(0), "one": np.array(1), "stop": np.array(4), "at0": ints(0), "at1": ints(1), "at4": ints(4), "two": ints(2),
        "minus": ints(-1), "copy": ints(0),
    }
    model = model_of(SHAPE_GRAPHS[name], IMAGE, constants=constants, batch=batch)
    network = load_onnx(saved(model, tmp_path))
    assert len(network) <= 2
    for n in (1, 2, 5):
        assert_agrees(network, model, images(IMAGE, n))


@pytest.mark.parametrize("target", [(2, 168), (2, -1), (-1, 168), (0, 3, 56)])
def test_a_reshape_to_the_declared_batch_means_any_batch(target: tuple[int, ...], tmp_path: Path) -> None:
    model = model_of([node("Reshape", "x t", "y")], IMAGE, constants={"t": ints(*target)}, batch=2)
    found = evaluate(load_onnx(saved(model, tmp_path)), images(IMAGE, 5))
    assert found.shape[0] == 5
    np.testing.assert_array_equal(found.ravel(), images(IMAGE, 5).ravel())


@pytest.mark.parametrize(
    ("nodes", "constants"),
    [
        ([node("Reshape", "x t", "y")], {"t": ints(-1)}),
        ([node("Reshape", "x t", "y")], {"t": ints(1, -1)}),
        ([node("Reshape", "x t", "y")], {"t": ints(-1, 8)}),
        ([node("Reshape", "x t", "y")], {"t": ints(3, -1, 56)}),
        ([node("Shape", "x", "s"), node("Gather", "s i", "n"), node("Concat", "three n k", "t", axis=0), node("Reshape", "x t", "y")],
         {"i": ints(0), "three": ints(3), "k": ints(56)}),
        ([node("Shape", "x", "s"), node("Gather", "s i", "n"), node("Mul", "n k", "m"), node("Concat", "m r", "t", axis=0),
          node("Reshape", "x t", "y")], {"i": ints(0), "k": ints(3), "r": ints(56)}),
        ([node("Transpose", "x", "y", perm=[1, 0, 2, 3])], {}),
        ([node("Transpose", "x", "y")], {}),
        ([node("Flatten", "x", "y", axis=0)], {}),
        ([node("Flatten", "x", "y", axis=2)], {}),
        ([node("Relu", "x", "r"), node("Concat", "x r", "y", axis=0)], {}),
        ([node("Slice", "x a b", "y")], {"a": ints(0), "b": ints(1)}),
        ([node("Gather", "x i", "y", axis=0)], {"i": ints(0)}),
        ([node("Softmax", "x", "y", axis=0)], {}),
        ([node("ReduceMean", "x", "y", axes=[0])], {}),
        ([node("ReduceMean", "x", "y")], {}),
        ([node("Unsqueeze", "x a", "y")], {"a": ints(0)}),
        ([node("Pad", "x p", "y")], {"p": ints(1, 0, 0, 0, 0, 0, 0, 0)}),
        ([node("Add", "x c", "y")], {"c": rand(2, 3, 7, 8)}),
    ],
)
def test_mixing_images_is_one_clear_error(nodes: list[NodeProto], constants: Arrays, tmp_path: Path) -> None:
    with pytest.raises(NetworkError, match=r"node '.*opset 17.*(batch|image|operand|independent|standard)"):
        load_onnx(saved(model_of(nodes, IMAGE, constants=constants), tmp_path))


def test_several_outputs_give_the_first_and_a_note(tmp_path: Path) -> None:
    model = model_of([node("Relu", "x", "a"), node("Sigmoid", "x", "b")], IMAGE, outputs=["a", "b"])
    network = load_onnx(saved(model, tmp_path))
    assert layers(network) == ["Relu"]
    assert any("first was taken" in note for note in network.notes)


def test_a_trailing_argmax_is_left_out_and_noted(tmp_path: Path) -> None:
    model = model_of([node("Gemm", "x w", "l"), node("ArgMax", "l", "y", axis=1)], (6,), constants={"w": rand(6, 4)})
    network = load_onnx(saved(model, tmp_path))
    assert layers(network) == ["Gemm"]
    assert any("ArgMax" in note for note in network.notes)
    with pytest.raises(UnsupportedOperatorError, match="very end"):
        load_onnx(saved(model_of([node("ArgMax", "x", "a", axis=1), node("Relu", "a", "y")], (6,)), tmp_path))


@pytest.mark.parametrize("kind", [np.float16, np.float64])
def test_other_float_weights_become_float32(kind: type, tmp_path: Path) -> None:
    weights = rand(6, 4).astype(kind)
    network = load_onnx(saved(model_of([node("Gemm", "x w", "y")], (6,), constants={"w": weights}), tmp_path))
    (_, layer), = network.matrix_layers()
    assert isinstance(layer.operator, Conv)
    assert layer.operator.weights.dtype == np.float32
    np.testing.assert_array_equal(layer.operator.weights.reshape(4, 6), weights.T.astype(np.float32))


def test_the_arrays_of_a_network_are_read_only(tmp_path: Path) -> None:
    network = load_onnx(saved(model_of([node("Gemm", "x w", "y")], (6,), constants={"w": rand(6, 4)}), tmp_path))
    (_, layer), = network.matrix_layers()
    assert isinstance(layer.operator, MatrixOperator)
    with pytest.raises(ValueError, match="read-only"):
        layer.operator.weights[0] = 1


# names


@pytest.mark.parametrize(
    ("node_name", "module"),
    [
        ("/features/features.0/Conv", "features.0"),
        ("/features/features.0/features.0.0/Conv", "features.0.0"),
        ("/layer1/layer1.0/conv1/Conv", "layer1.0.conv1"),
        ("/block/conv/conv.0/Conv", "block.conv.0"),
        ("/Conv", None),
        ("Conv_3", None),
        ("", None),
    ],
)
def test_module_paths_are_read_from_node_names(node_name: str, module: str | None) -> None:
    assert module_path(node_name) == module


@pytest.mark.parametrize(
    ("scopes", "module"),
    [
        ("['', 'mlp', 'mlp.fc1', 'linear']", "mlp.fc1"), ("['', 'fc', 'linear_1']", "fc"), ("['', 'linear']", None), ("[]", None),
        ("", None),
    ],
)  # fmt: skip
def test_module_scopes_are_read_from_metadata(scopes: str, module: str | None) -> None:
    """torch's exporter transposes the weights of a Linear on sequences, whose name is lost; the metadata has its module."""
    proto = helper.make_node("MatMul", ["x", "val_7"], ["y"], name="node_MatMul_6")
    proto.metadata_props.add(key="pkg.torch.onnx.name_scopes", value=scopes)
    assert module_scope(proto) == module


def test_layers_are_named_by_weight_then_module_then_number(tmp_path: Path) -> None:
    nodes = [
        node("Conv", "x stem.weight", "a"), helper.make_node("Conv", ["a", "w"], ["b"], name="/body/conv/Conv"), node("Relu", "b", "c"),
        node("Conv", "c w", "d"), node("Conv", "d w", "e"), node("Conv", "e stem.weight", "f"), node("Relu", "f", "y"),
    ]
    square = rand(3, 3, 1, 1)
    network = load_onnx(saved(model_of(nodes, IMAGE, constants={"stem.weight": square, "w": square}), tmp_path))
    assert [n.name for n in network.nodes] == ["stem", "body.conv", "relu_1", "conv_1", "conv_2", "stem_2", "relu_2"]


def test_a_weight_transposed_in_the_graph_keeps_its_name(tmp_path: Path) -> None:
    nodes = [node("Transpose", "fc.weight", "t", perm=[1, 0]), node("MatMul", "x t", "y")]
    network = load_onnx(saved(model_of(nodes, (6,), constants={"fc.weight": rand(4, 6)}), tmp_path))
    assert [n.name for n in network.nodes] == ["fc"]


# identity


def simple(folder: Path, weights: np.ndarray, name: str = "net.onnx", **options: Any) -> Path:
    return saved(model_of([node("Gemm", "x fc.weight", "y")], (6,), constants={"fc.weight": weights}, **options), folder, name)


def test_the_digest_follows_graph_and_weights_only(tmp_path: Path) -> None:
    one, other = rand(6, 4), rand(6, 4, seed=9)
    first = load_onnx(simple(tmp_path, one))
    assert load_onnx(simple(tmp_path, one, "renamed.onnx")).digest == first.digest
    assert load_onnx(simple(tmp_path, other)).digest != first.digest
    assert load_onnx(simple(tmp_path, one, opset=13)).digest != first.digest
    model = onnx.load(simple(tmp_path, one))
    onnx.save_model(model, tmp_path / "outside.onnx", save_as_external_data=True, location="outside.data", size_threshold=0)
    assert load_onnx(tmp_path / "outside.onnx").digest == first.digest


# bad files


def test_a_missing_file_is_one_error(tmp_path: Path) -> None:
    with pytest.raises(NetworkError, match="no network file"):
        load_onnx(tmp_path / "absent.onnx")
    with pytest.raises(NetworkError, match="folder"):
        load_onnx(tmp_path)


@pytest.mark.parametrize("content", [b"", b"a text, not a network\n" * 20, b"\x00" * 100, b"\x08\x08\x12\x07pytorch", b"PK\x03\x04"])
def test_other_content_is_one_error(content: bytes, tmp_path: Path) -> None:
    (tmp_path / "net.onnx").write_bytes(content)
    with pytest.raises(NetworkError, match="not an ONNX file"):
        load_onnx(tmp_path / "net.onnx")


@pytest.mark.parametrize("share", [0.1, 0.3, 0.5, 0.7, 0.9, 0.99])
def test_a_truncated_file_is_one_error(share: float, tmp_path: Path) -> None:
    raw = simple(tmp_path, rand(6, 4)).read_bytes()
    (tmp_path / "cut.onnx").write_bytes(raw[: int(share * len(raw))])
    with pytest.raises(NetworkError):
        load_onnx(tmp_path / "cut.onnx")


def test_damaged_bytes_are_an_error_of_ours_or_a_network(tmp_path: Path) -> None:
    """Flip single bytes all through a file: whatever comes is a network or a NetworkError."""
    raw = bytearray((FIXTURES / "legacy_export.onnx").read_bytes())
    rng = np.random.default_rng(0)
    for at in rng.integers(0, len(raw), size=300):
        changed = raw.copy()
        changed[at] ^= 1 << int(rng.integers(8))
        (tmp_path / "damaged.onnx").write_bytes(changed)
        try:
            load_onnx(tmp_path / "damaged.onnx")
        except NetworkError as error:
            assert str(error)  # noqa: PT017 (either outcome is right)


def external(folder: Path, *, location: str = "w.data", offset: int = 0, length: int | None = None) -> Path:
    """Write a network whose weight lies elsewhere."""
    model = model_of([node("Gemm", "x fc.weight", "y")], (6,), constants={"fc.weight": rand(6, 4)})
    (weight,) = model.graph.initializer
    weight.ClearField("raw_data")
    weight.data_location = TensorProto.EXTERNAL
    entries = {"location": location, "offset": str(offset), "length": str(96 if length is None else length)}
    for key, value in entries.items():
        weight.external_data.add(key=key, value=value)
    return saved(model, folder)


def test_external_data_beside_the_model_is_read(tmp_path: Path) -> None:
    (tmp_path / "deep").mkdir()
    (tmp_path / "deep" / "w.data").write_bytes(b"\0" * 8 + rand(6, 4).tobytes())
    network = load_onnx(external(tmp_path, location="deep/w.data", offset=8))
    x = images((6,))
    np.testing.assert_allclose(evaluate(network, x), x @ rand(6, 4), rtol=1e-5, atol=1e-5)


def test_missing_or_short_external_data_is_one_error(tmp_path: Path) -> None:
    path = external(tmp_path)
    with pytest.raises(NetworkError, match="missing"):
        load_onnx(path)
    (tmp_path / "w.data").write_bytes(b"\0" * 50)
    with pytest.raises(NetworkError, match="truncated"):
        load_onnx(path)
    (tmp_path / "w.data").write_bytes(b"\0" * 96)
    with pytest.raises(NetworkError, match="truncated"):
        load_onnx(external(tmp_path, offset=-8))
    with pytest.raises(NetworkError, match="declared as 40"):
        load_onnx(external(tmp_path, length=40))


@pytest.mark.parametrize(
    "location",
    ["../secret.data", "/etc/hostname", "deep/../../secret.data", "C:\\secret.data", "link.data", "linked/secret.data", ""],
)
def test_external_data_outside_the_folder_is_never_read(location: str, tmp_path: Path) -> None:
    home = tmp_path / "model"
    (home / "deep").mkdir(parents=True)
    (tmp_path / "secret.data").write_bytes(b"\0" * 96)
    (home / "link.data").symlink_to(tmp_path / "secret.data")
    (home / "linked").symlink_to(tmp_path)
    with pytest.raises(NetworkError, match=r"folder"):
        load_onnx(external(home, location=location))


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_weights_that_are_not_finite_are_counted(bad: float, tmp_path: Path) -> None:
    weights = rand(6, 4)
    weights[1, 1:3] = bad
    with pytest.raises(NetworkError, match="2 weights that are NaN or infinite"):
        load_onnx(simple(tmp_path, weights))


def test_a_weight_too_large_for_float32_is_refused(tmp_path: Path) -> None:
    with pytest.raises(NetworkError, match="infinite"):
        load_onnx(simple(tmp_path, np.full((6, 4), 1e300)))


def test_weights_of_another_size_than_declared_are_one_error(tmp_path: Path) -> None:
    model = onnx.load(simple(tmp_path, rand(6, 4)))
    model.graph.initializer[0].dims[0] = 10**12
    with pytest.raises(NetworkError, match="96 are stored"):
        load_onnx(saved(model, tmp_path))


@pytest.mark.parametrize("shape", [(400_000_000_000,), (2**31, 2**31), (-1, 4)])
def test_huge_constants_are_refused_before_they_are_made(shape: tuple[int, ...], tmp_path: Path) -> None:
    nodes = [node("ConstantOfShape", "s", "c"), node("Add", "x c", "y")]
    with pytest.raises(NetworkError, match="ConstantOfShape"):
        load_onnx(saved(model_of(nodes, (6,), constants={"s": ints(*shape)}), tmp_path))


@pytest.mark.parametrize(
    "nodes",
    [
        [node("Range", "a b c", "y0")],
        [node("Expand", "a s", "y0")],
        [node("Reshape", "a one", "o"), node("Tile", "o r", "y0")],
    ],
)
def test_every_way_to_a_huge_constant_is_closed(nodes: list[NodeProto], tmp_path: Path) -> None:
    constants = {"a": np.array(0), "b": np.array(10**13), "c": np.array(1), "s": ints(10**6, 10**6), "one": ints(1), "r": ints(10**13)}
    with pytest.raises(NetworkError, match="at most"):
        load_onnx(saved(model_of([*nodes, node("Add", "x y0", "y")], (6,), constants=constants), tmp_path))


def test_a_huge_activation_is_refused(tmp_path: Path) -> None:
    model = model_of([node("Pad", "x p", "y")], (3, 4, 4), constants={"p": ints(0, 0, 10**6, 10**6, 0, 0, 10**6, 10**6)})
    with pytest.raises(NetworkError, match="makes a value of shape"):
        load_onnx(saved(model, tmp_path))


@pytest.mark.parametrize("op", ["If", "Loop", "Scan", "LSTM", "Einsum", "NonMaxSuppression", "NoSuchOperator"])
def test_an_operator_without_a_rule_names_node_operator_and_opset(op: str, tmp_path: Path) -> None:
    bad = helper.make_node(op, ["x"], ["y"], name="culprit")
    with pytest.raises(UnsupportedOperatorError, match=rf"'culprit': {op} \(opset 17\)"):
        load_onnx(saved(model_of([bad], IMAGE), tmp_path))


def test_custom_domains_are_refused_and_ai_onnx_is_not(tmp_path: Path) -> None:
    bad = helper.make_node("Relu", ["x"], ["y"], name="culprit", domain="com.example")
    with pytest.raises(UnsupportedOperatorError, match=r"culprit.*com\.example"):
        load_onnx(saved(model_of([bad], IMAGE), tmp_path))
    fine = helper.make_node("Relu", ["x"], ["y"], domain="ai.onnx")
    assert len(load_onnx(saved(model_of([fine], IMAGE), tmp_path))) == 1


@pytest.mark.parametrize("opset", [6, 23, 99])
def test_other_opsets_are_refused(opset: int, tmp_path: Path) -> None:
    with pytest.raises(UnsupportedOperatorError, match=f"opset {opset}"):
        load_onnx(saved(model_of([node("Relu", "x", "y")], IMAGE, opset=opset), tmp_path))


def test_two_inputs_are_refused_and_an_unread_one_is_noted(tmp_path: Path) -> None:
    model = model_of([node("Add", "x z", "y")], IMAGE)
    model.graph.input.append(helper.make_tensor_value_info("z", TensorProto.FLOAT, ["N", *IMAGE]))
    with pytest.raises(NetworkError, match="2 inputs"):
        load_onnx(saved(model, tmp_path))
    model.graph.node[0].op_type = "Relu"
    del model.graph.node[0].input[1]
    assert any("'z' is read by nobody" in note for note in load_onnx(saved(model, tmp_path)).notes)


def test_an_integer_input_is_refused(tmp_path: Path) -> None:
    with pytest.raises(NetworkError, match="INT64, not float"):
        load_onnx(saved(model_of([node("Relu", "x", "y")], IMAGE, kind=TensorProto.INT64), tmp_path))


def test_open_sizes_must_be_said(tmp_path: Path) -> None:
    path = saved(model_of([node("Relu", "x", "y")], (1, "H", "W")), tmp_path)
    with pytest.raises(NetworkError, match="--input-shape"):
        load_onnx(path)
    assert load_onnx(path, input_shape=(1, 5, 6)).input_shape == (1, 5, 6)
    for wrong in ((5, 6), (1, 0, 6), ()):
        with pytest.raises(NetworkError, match="need as many sizes"):
            load_onnx(path, input_shape=wrong)


def test_another_input_shape_than_declared_is_noted(tmp_path: Path) -> None:
    network = load_onnx(saved(model_of([node("Relu", "x", "y")], IMAGE), tmp_path), input_shape=(3, 9, 9))
    assert network.input_shape == (3, 9, 9)
    assert any("(3, 7, 8) was replaced" in note for note in network.notes)


@pytest.mark.parametrize(
    ("nodes", "constants"),
    [
        ([node("Conv", "x w", "y")], {"w": rand(4, 5, 3, 3)}),
        ([node("Conv", "x w", "y")], {"w": rand(4, 3, 9, 9)}),
        ([node("Conv", "x w b", "y")], {"w": W33, "b": rand(5)}),
        ([node("Conv", "x w", "y", strides=[0, 1])], {"w": W33}),
        ([node("Conv", "x w", "y", pads=[-1, 0, 0, 0])], {"w": W33}),
        ([node("Conv", "x w", "y", group=0)], {"w": W33}),
        ([node("Conv", "x", "y")], {}),
        ([node("Conv", "x x", "y")], {}),
        ([node("Conv", "x missing", "y")], {}),
        ([node("MaxPool", "x", "y")], {}),
        ([node("MaxPool", "x", "y", kernel_shape=[99, 1])], {}),
        ([node("Add", "x c", "y")], {"c": rand(5)}),
        ([node("BatchNormalization", "x c c c c", "y")], {"c": rand(5)}),
        ([node("Reshape", "x c", "y")], {"c": ints(0, 5, -1)}),
        ([node("Transpose", "x", "y", perm=[0, 1, 1, 3])], {}),
        ([node("Concat", "x x", "y", axis=7)], {}),
        ([node("Gather", "x c", "y", axis=1)], {"c": ints(3)}),
        ([node("Squeeze", "x c", "y")], {"c": ints(1)}),
        ([node("Resize", "x e c", "y")], {"e": np.empty(0, np.float32), "c": np.array([1, 1, -1, 2], np.float32)}),
        ([node("Resize", "x e c", "y", mode="cubic")], {"e": np.empty(0, np.float32), "c": np.array([1, 1, 2, 2], np.float32)}),
        ([node("Clip", "x c d", "y")], {"c": scalar(1.0), "d": scalar(-1.0)}),
        ([node("Div", "x c", "y")], {"c": scalar(0.0)}),
        ([node("Relu", "", "y")], {}),
        ([node("Relu", "y", "y")], {}),
        ([node("Cast", "x", "y", to=TensorProto.INT64)], {}),
        ([node("Conv", "x w", "z"), node("MatMul", "z z", "y")], {"w": W33}),
        ([node("Relu", "x", "z")], {}),
        ([node("Identity", "x", "y")], {}),
        ([node("BatchNormalization", "x c c c c", "y a b", training_mode=1)], {"c": rand(3)}),
    ],
)
def test_a_node_that_makes_no_sense_is_one_error(nodes: list[NodeProto], constants: Arrays, tmp_path: Path) -> None:
    with pytest.raises(NetworkError) as caught:
        load_onnx(saved(model_of(nodes, IMAGE, constants=constants), tmp_path))
    assert "\n" not in str(caught.value)


# surveys


def test_a_survey_passes_unsupported_nodes_and_says_why(tmp_path: Path) -> None:
    nodes = [
        node("Conv", "x stem.weight", "a"), helper.make_node("Sin", ["a"], ["b"], name="culprit"),
        node("Conv", "b w", "c"), helper.make_node("Odd", ["c"], ["d"], name="stranger", domain="com.example"), node("Relu", "d", "y"),
    ]
    path = saved(model_of(nodes, IMAGE, constants={"stem.weight": W33, "w": rand(4, 4, 1, 1)}), tmp_path)
    rows = survey(path)
    assert [row.supported for row in rows] == [True, False, True, False, False]
    assert rows[0].name == "stem"
    assert (rows[0].n_parameters, rows[0].n_macs) == (108, 108 * 30)
    assert rows[0].in_shape == IMAGE
    assert rows[0].out_shape == rows[1].out_shape == (4, 5, 6)
    assert "Sin (opset 17)" in rows[1].reason
    assert "com.example" in rows[3].reason
    assert rows[4].reason == "it reads 'd', whose shape is not known"
    with pytest.raises(NetworkError, match="culprit"):
        load_onnx(path)


def test_a_survey_of_a_supported_network_lists_its_layers() -> None:
    path = FIXTURES / "legacy_export.onnx"
    network, rows = load_onnx(path), survey(path)
    assert [row.name for row in rows] == [n.name for n in network.nodes]
    assert [row.out_shape for row in rows] == [n.shape for n in network.nodes]
