"""How sums, products and gates of ONNX become operators, few where several nodes mean one."""

from dataclasses import replace
from math import sqrt

import numpy as np
from numpy.typing import NDArray

from workloads.onnx_graph import Call, GraphBuilder, Tensor, Value
from workloads.onnx_rules_matrix import add_channel_affine
from workloads.operators.matrix import Conv, ConvTranspose
from workloads.operators.merge import Add, Affine, Mul
from workloads.operators.piecewise import HardSigmoid
from workloads.operators.smooth import Erf, Gelu, HardSwish, Sigmoid, SiLU


def number(value: float) -> NDArray:
    """Return a number as a constant."""
    return np.array(value, dtype=np.float32)


def read_sum(build: GraphBuilder, call: Call) -> tuple[Value, ...]:
    """Add a sum of activations and constants: Add and Sum."""
    return (_summed(build, call, [(1.0, v) for v in call.inputs if v is not None]),)


def read_sub(build: GraphBuilder, call: Call) -> tuple[Value, ...]:
    first, second = call.inputs
    return (_summed(build, call, [(1.0, first), (-1.0, second)]),)


def _summed(build: GraphBuilder, call: Call, terms: list[tuple[float, Value | None]]) -> Tensor:
    tensors = [(sign, v) for sign, v in terms if isinstance(v, Tensor)]
    same_rank(call, [t for _, t in tensors])
    shift = _constant_sum(call, terms, tensors[0][1].rank)
    if len(tensors) == 1:
        sign, x = tensors[0]
        if shift is None:
            return x
        return scaled_and_shifted(build, call, x, scale=None if sign == 1.0 else number(sign), shift=shift)
    y = build.add(call, Add(tuple(sign for sign, _ in tensors)), *(t for _, t in tensors))
    return y if shift is None else build.add(call, Affine(shift=shift), y)


def _constant_sum(call: Call, terms: list[tuple[float, Value | None]], rank: int) -> NDArray | None:
    total: NDArray | None = None
    for i, (sign, value) in enumerate(terms):
        if isinstance(value, np.ndarray):
            part = sign * call.sample_constant(call.finite(value, what=f"input {i}"), rank)
            total = part if total is None else total + part
    return None if total is None else np.asarray(total, dtype=np.float32)


def same_rank(call: Call, tensors: list[Tensor]) -> None:
    """Refuse values whose batch axes would not meet."""
    if len({t.rank for t in tensors}) != 1:
        shapes = ", ".join(f"(N, {', '.join(map(str, t.shape))})" for t in tensors)
        raise call.malformed(f"joins values of shapes {shapes}, whose batch axes do not meet")


def scaled_and_shifted(build: GraphBuilder, call: Call, x: Tensor, *, scale: NDArray | None = None, shift: NDArray | None = None) -> Tensor:
    """Return `scale x + shift`; constants of one number a channel go into the layer before, when it is read by nobody else."""
    by_channel = [_per_channel(c, x.shape) for c in (scale, shift) if c is not None]
    if isinstance(build.operator(x), Conv | ConvTranspose | Affine) and all(c is not None for c in by_channel):
        channels = [None if c is None else _per_channel(c, x.shape) for c in (scale, shift)]
        return add_channel_affine(build, call, x, channels[0], channels[1])
    return build.add(call, Affine(scale, shift), x)


def _per_channel(constant: NDArray, shape: tuple[int, ...]) -> NDArray | None:
    """Return a constant as one number a channel, None when it varies along another axis or changes the shape."""
    if constant.size == 1:
        return np.full(shape[0], float(constant.ravel()[0]))
    if constant.ndim == len(shape) and constant.shape == (shape[0], *(1,) * (len(shape) - 1)):
        return constant.ravel().astype(np.float64)
    return None


def read_mul(build: GraphBuilder, call: Call) -> tuple[Value, ...]:
    """Add a product of two activations, or with a constant; `x sigmoid(x)` and its kin become one activation."""
    first, second = call.inputs
    if isinstance(first, Tensor) and isinstance(second, Tensor):
        fused = _gated(build, call, first, second) or _gated(build, call, second, first)
        if fused is not None:
            return (fused,)
        same_rank(call, [first, second])
        return (build.add(call, Mul(), first, second),)
    x, i = (first, 1) if isinstance(first, Tensor) else (call.tensor(1), 0)
    scale = call.sample_constant(call.numbers(i), x.rank)
    return (_unscaled_gelu(build, x, scale) or scaled_and_shifted(build, call, x, scale=scale),)


def _gated(build: GraphBuilder, call: Call, x: Tensor, gate: Tensor) -> Tensor | None:
    """Return `x g(x)` as one activation where `gate` is a known g of `x`."""
    operator = build.operator(gate)
    if operator is None:
        return None
    inner = build.source(gate)
    if isinstance(operator, Sigmoid) and inner.index == x.index:
        return build.add(call, SiLU(), x)
    if isinstance(operator, HardSigmoid) and inner.index == x.index and np.allclose((operator.alpha, operator.beta), (1 / 6, 0.5)):
        return build.add(call, HardSwish(), x)
    if _is_one_plus_erf(build, gate, x):
        doubled = Affine(scale=number(2.0))
        return build.add(call, doubled, build.add(call, Gelu(), x))
    return None


def _is_one_plus_erf(build: GraphBuilder, gate: Tensor, x: Tensor) -> bool:
    """Tell whether `gate` is `1 + erf(x / sqrt 2)`."""
    shift, erf = build.operator(gate), build.source(gate)
    if not isinstance(shift, Affine) or shift.scale is not None or not _is_number(shift.shift, 1.0):
        return False
    if not isinstance(build.operator(erf), Erf):
        return False
    scaled = build.source(erf)
    scale = build.operator(scaled)
    is_scale = isinstance(scale, Affine) and scale.shift is None and _is_number(scale.scale, 1 / sqrt(2))
    return is_scale and build.source(scaled).index == x.index


def _unscaled_gelu(build: GraphBuilder, x: Tensor, scale: NDArray) -> Tensor | None:
    """Return the Gelu under `0.5 (2 gelu)`."""
    operator = build.operator(x)
    doubled = isinstance(operator, Affine) and operator.shift is None and _is_number(operator.scale, 2.0)
    if doubled and _is_number(scale, 0.5) and isinstance(build.operator(build.source(x)), Gelu):
        gelu = build.source(x)
        return replace(gelu, shape=x.shape)
    return None


def _is_number(constant: NDArray | None, number: float) -> bool:
    return constant is not None and constant.size == 1 and bool(np.isclose(float(constant.ravel()[0]), number, rtol=1e-5))


def read_neg(build: GraphBuilder, call: Call) -> tuple[Value, ...]:
    return (scaled_and_shifted(build, call, call.tensor(0), scale=number(-1.0)),)
