"""How ONNX's Conv, ConvTranspose, Gemm, MatMul and BatchNormalization become layers with weights."""

from dataclasses import replace
from math import prod

import numpy as np
from numpy.typing import NDArray

from workloads.kernels import ConvGeometry
from workloads.onnx_graph import Call, GraphBuilder, Tensor, Value
from workloads.operators.base import Array
from workloads.operators.matrix import Conv, ConvTranspose, MatrixOperator
from workloads.operators.merge import Affine
from workloads.operators.reshape import Reshape, Transpose

Pair = tuple[int, int]


def spatial_rank(call: Call, tensor: Tensor) -> int:
    """Return the number of spatial axes, 1 or 2."""
    spatial = tensor.rank - 2
    if spatial not in (1, 2):
        raise call.refuse(f"values of shape (N, {', '.join(map(str, tensor.shape))}) have {spatial} spatial axes; 1 or 2 are supported")
    return spatial


def pair(values: list[int], *, fill: int) -> Pair:
    """Return one or two numbers as two, the missing first axis filled."""
    if len(values) == 1:
        return fill, int(values[0])
    first, second = values
    return int(first), int(second)


def per_axis(call: Call, name: str, spatial: int) -> Pair:
    """Return strides or dilations."""
    values = call.attribute(name) or [1] * spatial
    if len(values) != spatial or min(values) < 1:
        raise call.malformed(f"{name} {list(values)} for {spatial} spatial axes; need {spatial} numbers of at least 1")
    return pair(values, fill=1)


def window_pads(call: Call, spatial: int, *, size: Pair, kernel: Pair, stride: Pair, dilation: Pair) -> tuple[int, int, int, int]:
    """Return top, left, bottom, right, from `pads` or `auto_pad`."""
    mode = call.attribute("auto_pad", "NOTSET")
    if mode == "VALID":
        return 0, 0, 0, 0
    if mode in ("SAME_UPPER", "SAME_LOWER"):
        totals = [max(0, (-(-n // s) - 1) * s + d * (k - 1) + 1 - n) for n, k, s, d in zip(size, kernel, stride, dilation)]
        small, large = [t // 2 for t in totals], [t - t // 2 for t in totals]
        before, after = (small, large) if mode == "SAME_UPPER" else (large, small)
        return before[0], before[1], after[0], after[1]
    if mode != "NOTSET":
        raise call.refuse(f"auto_pad {mode!r}")
    pads = [int(p) for p in call.attribute("pads") or [0] * (2 * spatial)]
    if len(pads) != 2 * spatial or min(pads) < 0:
        raise call.refuse(f"pads {pads} for {spatial} spatial axes; need {2 * spatial} numbers of at least 0")
    return (pads[0], pads[1], pads[2], pads[3]) if spatial == 2 else (0, pads[0], 0, pads[1])


def _wide_weights(call: Call, spatial: int) -> NDArray:
    """Return the weights with two kernel axes."""
    weights = call.numbers(1)
    if weights.ndim != spatial + 2:
        raise call.malformed(f"weights of shape {weights.shape} for {spatial} spatial axes")
    declared = call.attribute("kernel_shape")
    if declared is not None and list(declared) != list(weights.shape[2:]):
        raise call.malformed(f"kernel_shape {list(declared)} with weights of shape {weights.shape}")
    return weights.reshape(*weights.shape[:2], 1, weights.shape[2]) if spatial == 1 else weights


def _bias(call: Call, n_out: int) -> NDArray | None:
    if not call.has(2):
        return None
    bias = call.numbers(2)
    if bias.shape != (n_out,):
        raise call.malformed(f"a bias of shape {bias.shape} for {n_out} output features")
    return bias


def read_conv(build: GraphBuilder, call: Call) -> tuple[Value, ...]:
    """Add a convolution."""
    x = call.tensor(0)
    spatial = spatial_rank(call, x)
    weights, groups = _wide_weights(call, spatial), int(call.attribute("group", 1))
    n_out, channels = weights.shape[0], x.shape[0]
    if groups < 1 or n_out % groups or weights.shape[1] * groups != channels:
        raise call.malformed(f"weights of shape {weights.shape}, {groups} groups, for {channels} input channels")
    size, kernel = pair(list(x.shape[1:]), fill=1), (int(weights.shape[2]), int(weights.shape[3]))
    stride, dilation = per_axis(call, "strides", spatial), per_axis(call, "dilations", spatial)
    pads = window_pads(call, spatial, size=size, kernel=kernel, stride=stride, dilation=dilation)
    geometry = _geometry(call, (channels, *size), n_out=n_out, kernel=kernel, stride=stride, dilation=dilation, pads=pads, groups=groups)
    return (build.add(call, Conv(weights, _bias(call, n_out), geometry, spatial), x),)


def _geometry(
    call: Call, in_shape: tuple[int, int, int], *,
    n_out: int, kernel: Pair, stride: Pair, dilation: Pair, pads: tuple[int, int, int, int], groups: int,
) -> ConvGeometry:
    """Return the geometry of a convolution whose windows fit."""
    for axis in (0, 1):
        extent, reach = in_shape[1 + axis] + pads[axis] + pads[axis + 2], dilation[axis] * (kernel[axis] - 1) + 1
        if kernel[axis] < 1 or reach > extent:
            raise call.malformed(f"a kernel that reaches over {reach} values does not fit into {extent}; the input is too small")
    return ConvGeometry(in_shape=in_shape, n_out=n_out, kernel=kernel, stride=stride, dilation=dilation, pads=pads, groups=groups)


def read_conv_transpose(build: GraphBuilder, call: Call) -> tuple[Value, ...]:
    """Add a transposed convolution: the adjoint of the convolution from its output to its input."""
    x = call.tensor(0)
    spatial = spatial_rank(call, x)
    stored, groups = _wide_weights(call, spatial), int(call.attribute("group", 1))
    channels, per_group = x.shape[0], int(stored.shape[1])
    if groups < 1 or channels % groups or stored.shape[0] != channels:
        raise call.malformed(f"weights of shape {stored.shape}, {groups} groups, for {channels} input channels")
    split = stored.reshape(groups, channels // groups, per_group, *stored.shape[2:])
    weights = np.ascontiguousarray(split.swapaxes(1, 2)).reshape(groups * per_group, channels // groups, *stored.shape[2:])
    kernel = (int(stored.shape[2]), int(stored.shape[3]))
    stride, dilation = per_axis(call, "strides", spatial), per_axis(call, "dilations", spatial)
    size, pads = _transposed_size(call, pair(list(x.shape[1:]), fill=1), kernel=kernel, stride=stride, dilation=dilation)
    n_out = groups * per_group
    geometry = _geometry(call, (n_out, *size), n_out=channels, kernel=kernel, stride=stride, dilation=dilation, pads=pads, groups=groups)
    if geometry.out_shape[1:] != pair(list(x.shape[1:]), fill=1):
        raise call.refuse("output_padding of a stride or more")
    return (build.add(call, ConvTranspose(weights, _bias(call, n_out), geometry, spatial), x),)


def _transposed_size(call: Call, size: Pair, *, kernel: Pair, stride: Pair, dilation: Pair) -> tuple[Pair, tuple[int, int, int, int]]:
    """Return output size and pads (top, left, bottom, right) of a transposed convolution."""
    spatial = call.tensor(0).rank - 2
    extra = pair(list(call.attribute("output_padding") or [0] * spatial), fill=0)
    full = [s * (n - 1) + e + d * (k - 1) + 1 for n, k, s, d, e in zip(size, kernel, stride, dilation, extra)]
    mode, wanted = call.attribute("auto_pad", "NOTSET"), call.attribute("output_shape")
    if wanted is None and mode in ("SAME_UPPER", "SAME_LOWER"):
        wanted = [n * s for n, s in zip(size, stride)][2 - spatial :]
    if wanted is None:
        pads = window_pads(call, spatial, size=size, kernel=kernel, stride=stride, dilation=dilation)
        return (full[0] - pads[0] - pads[2], full[1] - pads[1] - pads[3]), pads
    target = pair(list(wanted)[-spatial:], fill=1)
    totals = [f - t for f, t in zip(full, target)]
    if min(totals) < 0:
        raise call.refuse(f"an output of {target}, larger than the {tuple(full)} its windows cover")
    small, large = [t // 2 for t in totals], [t - t // 2 for t in totals]
    before, after = (small, large) if mode == "SAME_UPPER" else (large, small)
    return target, (before[0], before[1], after[0], after[1])


def add_linear(build: GraphBuilder, call: Call, weights: NDArray, bias: NDArray | None, x: Tensor) -> Tensor:
    """Add a fully connected layer with weights `(O, K)` on values `(K,)`, or `(K, P)`: the same at every position."""
    n_out, n_in = weights.shape
    if x.shape[0] != n_in:
        raise call.malformed(f"weights of shape {weights.shape} (out, in) for {x.shape[0]} input features")
    positions = x.shape[1] if len(x.shape) == 2 else 1
    geometry = ConvGeometry(
        in_shape=(n_in, 1, positions), n_out=n_out, kernel=(1, 1), stride=(1, 1), dilation=(1, 1), pads=(0, 0, 0, 0), groups=1
    )
    contiguous = weights if 0 in weights.strides else np.ascontiguousarray(weights)
    return build.add(call, Conv(contiguous.reshape(n_out, n_in, 1, 1), bias, geometry, spatial=len(x.shape) - 1), x)


def read_gemm(build: GraphBuilder, call: Call) -> tuple[Value, ...]:
    """Add `alpha A B + beta C` with constant B and C."""
    x = call.tensor(0)
    if call.attribute("transA", 0):
        raise call.refuse("transA=1 makes features of the batch")
    if len(x.shape) != 1:
        raise call.refuse(f"an input of shape (N, {', '.join(map(str, x.shape))}); flatten it first")
    stored = call.numbers(1)
    if stored.ndim != 2:
        raise call.malformed(f"weights of shape {stored.shape}; need two axes")
    weights = _scaled(call, stored if call.attribute("transB", 0) else stored.T, call.attribute("alpha", 1.0))
    bias = None
    if call.has(2):
        shift = call.sample_constant(call.numbers(2), 2)
        bias = _scaled(call, np.broadcast_to(shift, (weights.shape[0],)).copy(), call.attribute("beta", 1.0))
    return (add_linear(build, call, weights, bias, x),)


def _scaled(call: Call, values: NDArray, factor: float) -> NDArray:
    return values if factor == 1.0 else call.finite(values * np.float64(factor), what=f"a factor of {factor:g}")


def read_matmul(build: GraphBuilder, call: Call) -> tuple[Value, ...]:
    """Add a product with a constant matrix, from the right on the last axis or from the left on the last but one."""
    if not isinstance(call.inputs[0], Tensor):
        return (_matmul_left(build, call),)
    x = call.tensor(0)
    if isinstance(call.inputs[1], Tensor):
        raise call.refuse("a product of two activations (attention) has no rule; one factor must be constant")
    weights = call.numbers(1)
    if weights.ndim != 2:
        raise call.refuse(f"a constant factor of shape {weights.shape}; two axes are supported")
    if len(x.shape) == 1:
        return (add_linear(build, call, weights.T, None, x),)
    lead = x.shape[:-1]
    if len(lead) > 1:
        x = build.add(call, Reshape((prod(lead), x.shape[-1])), x)
    y = add_linear(build, call, weights.T, None, build.add(call, Transpose((1, 0)), x))
    y = build.add(call, Transpose((1, 0)), y)
    return (build.add(call, Reshape((*lead, y.shape[-1])), y) if len(lead) > 1 else y,)


def _matmul_left(build: GraphBuilder, call: Call) -> Tensor:
    x, weights = call.tensor(1), call.numbers(0)
    if weights.ndim != 2 or len(x.shape) != 2:
        raise call.refuse(f"a constant of shape {weights.shape} times a value of shape (N, {', '.join(map(str, x.shape))})")
    return add_linear(build, call, weights, None, x)


def read_batch_norm(build: GraphBuilder, call: Call) -> tuple[Value, ...]:
    """Fold a batch normalization into the layer before it, or add it as an affine map."""
    if call.attribute("training_mode", 0) or call.attribute("is_test", 1) == 0:
        raise call.refuse("it is in training mode; export the network after model.eval()")
    if call.attribute("spatial", 1) == 0:
        raise call.refuse("spatial=0: statistics by position")
    x = call.tensor(0)
    gamma, beta, mean, variance = (call.numbers(i).astype(np.float64) for i in range(1, 5))
    if not gamma.shape == beta.shape == mean.shape == variance.shape == x.shape[:1]:
        raise call.malformed(f"statistics of shapes {gamma.shape}, {beta.shape}, {mean.shape}, {variance.shape} for {x.shape[0]} channels")
    spread = variance + call.attribute("epsilon", 1e-5)
    if not np.all(spread > 0):
        raise call.malformed(f"has the variance {variance.min():g}; need variance + epsilon above 0")
    scale = call.finite(gamma / np.sqrt(spread), what="the scale").astype(np.float64)
    return (add_channel_affine(build, call, x, scale, beta - mean * scale),)


def add_channel_affine(build: GraphBuilder, call: Call, x: Tensor, scale: NDArray | None, shift: NDArray | None) -> Tensor:
    """Return `scale x + shift`, one number a channel: within the layer before it when nobody else reads that layer."""
    operator = build.operator(x)
    name = next(n for n, value in zip(call.proto.input, call.inputs) if value is x)
    columns = [None if c is None else c.reshape(-1, *(1,) * (len(x.shape) - 1)) for c in (scale, shift)]
    if isinstance(operator, Conv | ConvTranspose) and build.is_private(x, name):
        return build.rewrite(call, x, with_affine(operator, scale, shift))
    if isinstance(operator, Affine) and build.is_private(x, name):
        return build.rewrite(call, x, composed(operator, *columns))
    return build.add(call, composed(Affine(), *columns), x)


def composed(first: Affine, scale: NDArray | None, shift: NDArray | None) -> Affine:
    """Return the affine map that does `first` and then `scale x + shift`."""
    scales = [c for c in (first.scale, scale) if c is not None]
    moved = first.shift if first.shift is None or scale is None else first.shift * scale
    shifts = [c for c in (moved, shift) if c is not None]
    return Affine(
        scale=np.asarray(prod(scales[1:], start=scales[0]), dtype=np.float32) if scales else None,
        shift=np.asarray(sum(shifts[1:], start=shifts[0]), dtype=np.float32) if shifts else None,
    )


def with_affine(operator: Conv | ConvTranspose, scale: NDArray | None, shift: NDArray | None) -> MatrixOperator:
    """Return a layer whose output is `scale y + shift`, one number an output feature."""
    n_columns = operator.n_columns
    factor = np.ones(n_columns) if scale is None else scale
    weights: Array = operator.weights
    if scale is not None:
        weights = (weights * factor.reshape(-1, 1, 1, 1)).astype(np.float32)
    bias = np.zeros(n_columns) if operator.bias is None else operator.bias * factor
    if shift is not None:
        bias = bias + shift
    keeps_none = operator.bias is None and shift is None
    return replace(operator, weights=weights, bias=None if keeps_none else bias.astype(np.float32))
