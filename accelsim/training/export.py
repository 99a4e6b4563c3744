"""A trained network as files: ONNX with its batch norms, and the profile of its memory, a spec that `accelsim evaluate --spec` reads."""

from collections.abc import Iterator
from typing import Any

import numpy as np
import onnx
from onnx import helper, numpy_helper
from torch import nn

from accelsim.training.network import MemoryNetwork
from accelsim.training.rates import Rates
from accelsim.training.recipe import Recipe
from accelsim.training.stored import StoredLayer
from devices.base.toml_codec import kind_of, string_text, write_lines

OPSET, IR_VERSION = 17, 8
CHIP = "digital_45nm"
"""The preset that profiles start from: its engine computes the layers, its memory says what a bit takes at the law's energy 1."""
INPUT, OUTPUT = "image", "logits"


def onnx_model(network: MemoryNetwork, *, name: str) -> onnx.ModelProto:
    """Return the network with its weights as stored, no bit of them wrong, and a free batch axis; nodes bear the layers' names."""
    network.read_right()
    made = _Graph()
    value = INPUT
    for part in network.parts:
        value = made.add(part, value)
    made.nodes[-1].output[0] = OUTPUT
    graph = helper.make_graph(
        made.nodes, name, [helper.make_tensor_value_info(INPUT, onnx.TensorProto.FLOAT, ["N", *network.input_shape])],
        [helper.make_tensor_value_info(OUTPUT, onnx.TensorProto.FLOAT, ["N", network.n_classes])], made.constants,
    )  # fmt: skip
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", OPSET)], producer_name="accelsim")
    model.ir_version = IR_VERSION
    onnx.checker.check_model(model, full_check=True)
    return model


class _Graph:
    """Nodes and constants, in the order of the layers."""

    def __init__(self) -> None:
        self.nodes: list[onnx.NodeProto] = []
        self.constants: list[onnx.TensorProto] = []
        self.last = ""

    def add(self, part: nn.Module, value: str) -> str:
        """Add a part of the network behind `value`, and return the name of what it gives."""
        if isinstance(part, StoredLayer):
            self.last = part.name
            assert part.value is not None
            weights = self._constant(f"{part.name}.weight", part.value.detach().numpy())
            if part.latent.dim() == 2:
                return self._node("Gemm", part.name, [value, weights], transB=1)
            kernel, pad = list(part.latent.shape[2:]), part.padding
            return self._node("Conv", part.name, [value, weights], kernel_shape=kernel, strides=[part.stride] * 2, pads=[pad] * 4)
        if isinstance(part, nn.BatchNorm1d | nn.BatchNorm2d):
            tensors = {"scale": part.weight, "shift": part.bias, "mean": part.running_mean, "variance": part.running_var}
            names = [self._constant(f"{self.last}.norm.{key}", t.detach().numpy()) for key, t in tensors.items() if t is not None]
            return self._node("BatchNormalization", f"{self.last}.norm", [value, *names], epsilon=part.eps)
        if isinstance(part, nn.MaxPool2d):
            size = [int(part.kernel_size)] * 2  # type: ignore[arg-type]
            return self._node("MaxPool", f"{self.last}.pool", [value], kernel_shape=size, strides=size)
        if isinstance(part, nn.ReLU):
            return self._node("Relu", f"{self.last}.relu", [value])
        return self._node("Flatten", f"{self.last}.flat", [value], axis=1)

    def _constant(self, name: str, array: np.ndarray) -> str:
        self.constants.append(numpy_helper.from_array(np.ascontiguousarray(array, np.float32), name))
        return name

    def _node(self, kind: str, name: str, inputs: list[str], **attributes: Any) -> str:
        out = f"{name}.out"
        self.nodes.append(helper.make_node(kind, inputs, [out], name=name, **attributes))
        return out


def profile_toml(recipe: Recipe, rates: Rates, network: MemoryNetwork, *, name: str) -> str:
    """Return the memory profile: a spec whose layers are words read at the error rates that training ended with, on the chip CHIP.

    The reader folds batch norms into the weights, so each column has a step of its own.
    """
    return "\n".join(_profile_lines(recipe, rates, network, name)) + "\n"


def _profile_lines(recipe: Recipe, rates: Rates, network: MemoryNetwork, name: str) -> Iterator[str]:
    yield from ("schema = 1", f"name = {string_text(name)}")
    yield from (f"use = {string_text(CHIP)}  # the chip around the memory, and what a bit takes at the law's energy 1", "")
    yield from ("[memory.weights]", 'step_per = "column"')
    if recipe.reads == "positions":
        yield 'read_each = "position"'
    yield _point(rates.p[0])
    for table in ("word", "law", "faults"):
        record = getattr(recipe, table)
        yield from ("", f"[memory.weights.{table}]")
        if table != "word":
            yield f"kind = {string_text(kind_of(record))}"
        yield from write_lines(record, path=f"memory.weights.{table}")
    for layer, p in zip(network.stored, rates.p):
        yield from ("", f"[layers.{string_text(layer.name)}]", f"memory.weights.{_point(p)}")


def _point(p: np.ndarray) -> str:
    """Return an operating point: one error rate, or one for each bit."""
    if np.all(p == p[0]):
        return f"error_rate_p = {float(p[0])!r}"
    return f"bit_error_rates_p = [{', '.join(repr(float(rate)) for rate in p)}]"
