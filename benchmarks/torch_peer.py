"""What a PyTorch user would write by hand: program the pairs, clip, run the batch. Covers the embedded networks' operators."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import numpy_helper

try:
    import torch
    from torch.nn import functional
except ImportError:
    torch = None  # type: ignore[assignment]

COVERED = frozenset({"Conv", "Gemm", "Relu", "MaxPool", "AveragePool", "GlobalAveragePool", "Add", "Flatten", "Reshape", "Identity"})


class TorchTrials:
    """Plain Monte-Carlo trials of one network, state-independent programming error clipped at zero, one scale a layer.

    Raises NotImplementedError for an operator that is not covered.
    """

    def __init__(self, path: Path, x: np.ndarray, *, error_rel: float, g_max_siemens: float, seed: int) -> None:
        self.graph = onnx.load(path).graph
        missing = {node.op_type for node in self.graph.node} - COVERED
        if missing:
            raise NotImplementedError(f"no PyTorch peer for {', '.join(sorted(missing))}")
        torch.set_num_threads(1)
        torch.manual_seed(seed)
        self.constants = {entry.name: torch.tensor(numpy_helper.to_array(entry)) for entry in self.graph.initializer}
        self.x, self.g_max, self.std = torch.tensor(x), g_max_siemens, error_rel * g_max_siemens
        self.stored = {n.input[1]: self._pair(self.constants[n.input[1]]) for n in self.graph.node if n.op_type in ("Conv", "Gemm")}
        with torch.no_grad():
            self.clean = self._forward({})

    def _pair(self, weight: Any) -> tuple[Any, Any, float]:
        scale = self.g_max / float(weight.abs().max())
        return scale * weight.clamp(min=0.0), scale * (-weight).clamp(min=0.0), scale

    def loss(self) -> float:
        """Return the loss of one programming."""
        with torch.no_grad():
            drawn = {name: self._programmed(*pair) for name, pair in self.stored.items()}
            return float(((self._forward(drawn) - self.clean) ** 2).mean())

    def _programmed(self, positive: Any, negative: Any, scale: float) -> Any:
        up = torch.empty_like(positive).normal_(0.0, self.std).add_(positive).clamp_(min=0.0)
        down = torch.empty_like(negative).normal_(0.0, self.std).add_(negative).clamp_(min=0.0)
        return up.sub_(down).div_(scale)

    def _forward(self, weights: Mapping[str, Any]) -> Any:
        values = {**self.constants, **weights, self.graph.input[0].name: self.x}
        for node in self.graph.node:
            settings = {a.name: onnx.helper.get_attribute_value(a) for a in node.attribute}
            values[node.output[0]] = RULES[node.op_type]([values[name] for name in node.input if name], settings)
        return values[self.graph.output[0].name]


def _padded(x: Any, settings: Mapping[str, Any]) -> Any:
    top, left, bottom, right = settings.get("pads", [0, 0, 0, 0])
    return functional.pad(x, (left, right, top, bottom)) if any((top, left, bottom, right)) else x


def _conv(inputs: list[Any], settings: Mapping[str, Any]) -> Any:
    top, left, bottom, right = settings.get("pads", [0, 0, 0, 0])
    even = (top, left) == (bottom, right)
    return functional.conv2d(
        inputs[0] if even else _padded(inputs[0], settings), *inputs[1:], stride=settings.get("strides", [1, 1]),
        padding=(top, left) if even else 0, dilation=settings.get("dilations", [1, 1]), groups=settings.get("group", 1),
    )  # fmt: skip


def _gemm(inputs: list[Any], settings: Mapping[str, Any]) -> Any:
    weight = inputs[1] if settings.get("transB") else inputs[1].T
    return functional.linear(inputs[0], weight, *inputs[2:])


def _pool(inputs: list[Any], settings: Mapping[str, Any], *, kind: str) -> Any:
    pool = functional.max_pool2d if kind == "max" else functional.avg_pool2d
    return pool(_padded(inputs[0], settings), settings["kernel_shape"], settings.get("strides", [1, 1]))


def _reshape(inputs: list[Any], settings: Mapping[str, Any]) -> Any:
    return inputs[0].reshape(len(inputs[0]), -1)


RULES: Mapping[str, Callable[[list[Any], Mapping[str, Any]], Any]] = {
    "Conv": _conv,
    "Gemm": _gemm,
    "Relu": lambda inputs, settings: inputs[0].relu(),
    "MaxPool": lambda inputs, settings: _pool(inputs, settings, kind="max"),
    "AveragePool": lambda inputs, settings: _pool(inputs, settings, kind="average"),
    "GlobalAveragePool": lambda inputs, settings: inputs[0].mean(dim=(2, 3), keepdim=True),
    "Add": lambda inputs, settings: inputs[0] + inputs[1],
    "Flatten": _reshape,
    "Reshape": _reshape,
    "Identity": lambda inputs, settings: inputs[0],
}
