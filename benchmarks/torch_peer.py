"""Plain Monte-Carlo as a good PyTorch user writes it: one fill of normals a trial, functional forward, nothing computed twice.

The network is the loaded one, batch norms folded as our loader folds them, so both program the same weights. All conductances lie
in one tensor. Unclipped, one normal a pair is enough: the difference of two independent errors is one of sqrt(2) times the
deviation. Tuned, ReLUs and sums work in place, and of the memory formats the fastest for the network is taken.
"""

import math
import time
from collections.abc import Callable, Mapping
from statistics import median
from typing import Any

import numpy as np

from workloads.network import INPUT, Network
from workloads.operators.base import Operator
from workloads.operators.matrix import Conv, MatrixOperator
from workloads.operators.merge import Add
from workloads.operators.piecewise import Relu
from workloads.operators.pooling import AveragePool, MaxPool, Window
from workloads.operators.reduce import ReduceMean
from workloads.operators.reshape import Pad, Reshape, Slice

try:
    import torch
    from torch.nn import functional
except ImportError:
    torch = None  # type: ignore[assignment]

Rule = Callable[..., Any]
PLAIN = (False, False)
FORMATS = (PLAIN, (True, False), (True, True))
"""Whether images, and weights, have their channels innermost."""
N_TASTED = 5


class TorchTrials:
    """Plain trials of one network, state-independent programming error, one scale a layer; conductances are relative to the largest.

    Raises NotImplementedError for an operator that is not covered.
    """

    def __init__(self, network: Network, x: np.ndarray, *, error_rel: float, clip: bool, seed: int, tuned: bool) -> None:
        torch.set_num_threads(1)
        torch.manual_seed(seed)
        self.network, self.error_rel, self.clip, self.x = network, error_rel, clip, torch.tensor(x)
        owned = _owned(network) if tuned else [()] * len(network)
        self.rules = [_rule(node.operator, own) for node, own in zip(network.nodes[: network.output + 1], owned)]
        self.last = network.last_use()
        self.set_format(*min(FORMATS, key=self._tasted) if tuned else PLAIN)

    def set_format(self, images_last: bool, weights_last: bool) -> None:
        """Lay out the images and the stored conductances; the functions they stand for stay."""
        self.x = self.x.contiguous(memory_format=torch.channels_last if images_last and self.x.dim() == 4 else torch.contiguous_format)
        self.views: dict[int, Callable[[Any], Any]] = {}
        stored, units, start = [], [], 0
        for i, node in self.network.matrix_layers():
            assert isinstance(node.operator, MatrixOperator)
            weights = torch.tensor(node.operator.weights)
            view, flat = _layout(weights, weights_last)
            self.views[i] = _from(start, flat.numel(), view)
            stored.append(flat)
            units.append(torch.full((flat.numel(),), float(weights.abs().max())))
            start += flat.numel()
        self.weights, self.units = torch.cat(stored), torch.cat(units)
        relative = self.weights / self.units
        self.pairs = torch.stack([relative.clamp(min=0.0), (-relative).clamp(min=0.0)])
        with torch.no_grad():
            self.clean = self.outputs(self.weights)

    def _tasted(self, layout: tuple[bool, bool]) -> float:
        """Return the CPU time of a trial in this format."""
        self.set_format(*layout)
        times = []
        for _ in range(N_TASTED):
            started = time.process_time()
            self.loss()
            times.append(time.process_time() - started)
        return median(times)

    def loss(self) -> float:
        """Return the loss of one programming."""
        with torch.no_grad():
            return float(functional.mse_loss(self.outputs(self.programmed()), self.clean))

    def programmed(self) -> Any:
        """Return the weights of one programming, one behind the other."""
        if not self.clip:
            return torch.empty_like(self.weights).normal_(0.0, math.sqrt(2.0) * self.error_rel).mul_(self.units).add_(self.weights)
        held = torch.empty_like(self.pairs).normal_(0.0, self.error_rel).add_(self.pairs).clamp_(min=0.0)
        return held[0].sub_(held[1]).mul_(self.units)

    def outputs(self, weights: Any) -> Any:
        """Return the network's outputs with these weights, dropping values as soon as nobody needs them."""
        values = {INPUT: self.x}
        for i, (node, rule) in enumerate(zip(self.network.nodes, self.rules)):
            inputs = [values[j] for j in node.inputs]
            values[i] = rule(*inputs, self.views[i](weights)) if i in self.views else rule(*inputs)
            for j in node.inputs:
                if j != INPUT and self.last[j] == i:
                    values.pop(j, None)
        return values[self.network.output]


def _layout(weights: Any, channels_last: bool) -> tuple[Callable[[Any], Any], Any]:
    """Return how to see the weights in a flat tensor, and that tensor."""
    if weights.dim() != 4 or not channels_last:
        return (lambda flat: flat.view(weights.shape)), weights.reshape(-1)
    inner = weights.permute(0, 2, 3, 1).contiguous()
    return (lambda flat: flat.view(inner.shape).permute(0, 3, 1, 2)), inner.reshape(-1)


def _from(start: int, size: int, view: Callable[[Any], Any]) -> Callable[[Any], Any]:
    return lambda flat: view(flat[start : start + size])


def _owned(network: Network) -> list[tuple[int, ...]]:
    """Return, for each node, which inputs it may overwrite: fresh sums and products of its shape that nobody else reads."""
    readers = network.consumers()
    free = [isinstance(node.operator, (Conv, Add)) and len(readers[i]) == 1 for i, node in enumerate(network.nodes)]
    return [
        tuple(k for k, j in enumerate(node.inputs) if j != INPUT and free[j] and network.nodes[j].shape == node.shape)
        for node in network.nodes
    ]


def _rule(operator: Operator, owned: tuple[int, ...]) -> Rule:
    """Return the operator as a function of tensors; a layer's weights come last."""
    if type(operator) not in RULES:
        raise NotImplementedError(f"no PyTorch peer for {operator.kind}")
    return RULES[type(operator)](operator, owned)


def _conv(operator: Conv, owned: tuple[int, ...]) -> Rule:
    bias = None if operator.bias is None else torch.tensor(operator.bias)
    if operator.spatial == 0:
        return lambda x, weights: functional.linear(x, weights.flatten(1), bias)
    if operator.spatial == 1:
        raise NotImplementedError("no PyTorch peer for a convolution in one dimension")
    g = operator.geometry
    top, left, bottom, right = g.pads
    settings: dict[str, Any] = {"stride": g.stride, "dilation": g.dilation, "groups": g.groups}
    if (top, left) == (bottom, right):
        return lambda x, weights: functional.conv2d(x, weights, bias, padding=(top, left), **settings)
    return lambda x, weights: functional.conv2d(functional.pad(x, (left, right, top, bottom)), weights, bias, **settings)


def _relu(operator: Relu, owned: tuple[int, ...]) -> Rule:
    return torch.relu_ if owned else torch.relu


def _add(operator: Add, owned: tuple[int, ...]) -> Rule:
    if operator.signs != (1.0, 1.0):
        raise NotImplementedError(f"no PyTorch peer for a sum with signs {operator.signs}")
    if not owned:
        return torch.add
    return (lambda a, b: a.add_(b)) if owned[0] == 0 else (lambda a, b: b.add_(a))


def _plain_pads(window: Window) -> tuple[int, int]:
    top, left, bottom, right = window.pads
    if (top, left) != (bottom, right):
        raise NotImplementedError(f"no PyTorch peer for pooling with pads {window.pads}")
    return top, left


def _max_pool(operator: MaxPool, owned: tuple[int, ...]) -> Rule:
    w, pads = operator.window, _plain_pads(operator.window)
    return lambda x: functional.max_pool2d(x, w.kernel, w.stride, pads, w.dilation)


def _average_pool(operator: AveragePool, owned: tuple[int, ...]) -> Rule:
    w, pads = operator.window, _plain_pads(operator.window)
    return lambda x: functional.avg_pool2d(x, w.kernel, w.stride, pads, count_include_pad=operator.include_pad)


def _mean(operator: ReduceMean, owned: tuple[int, ...]) -> Rule:
    axes = tuple(a + 1 for a in operator.axes)
    return lambda x: x.mean(dim=axes, keepdim=operator.keepdims)


def _reshape(operator: Reshape, owned: tuple[int, ...]) -> Rule:
    return lambda x: x.reshape(len(x), *operator.shape)


def _slice(operator: Slice, owned: tuple[int, ...]) -> Rule:
    return lambda x: x[(slice(None), *operator.slices)]


def _pad(operator: Pad, owned: tuple[int, ...]) -> Rule:
    widths = [width for pair in reversed(operator.widths) for width in pair]
    return lambda x: functional.pad(x, widths, value=operator.constant)


RULES: Mapping[type[Operator], Callable[[Any, tuple[int, ...]], Rule]] = {
    Conv: _conv,
    Relu: _relu,
    Add: _add,
    MaxPool: _max_pool,
    AveragePool: _average_pool,
    ReduceMean: _mean,
    Reshape: _reshape,
    Slice: _slice,
    Pad: _pad,
}
