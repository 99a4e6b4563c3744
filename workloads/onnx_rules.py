"""How ONNX nodes become operators: one rule an ONNX operator, listed in `RULES`."""

from collections.abc import Callable
from dataclasses import replace
from math import prod

import numpy as np

from workloads.onnx_graph import Call, GraphBuilder, Tensor, Value
from workloads.onnx_rules_matrix import (
    pair,
    per_axis,
    read_batch_norm,
    read_conv,
    read_conv_transpose,
    read_gemm,
    read_matmul,
    spatial_rank,
    window_pads,
)
from workloads.onnx_rules_merge import number, read_mul, read_neg, read_sub, read_sum, same_rank
from workloads.onnx_rules_power import (
    read_celu,
    read_div,
    read_greater,
    read_pow,
    read_reciprocal,
    read_sqrt,
    read_where,
)
from workloads.onnx_rules_shape import (
    read_depth_to_space,
    read_expand,
    read_flatten,
    read_gather,
    read_gather_nd,
    read_pad,
    read_reshape,
    read_resize,
    read_shape,
    read_slice,
    read_space_to_depth,
    read_split,
    read_squeeze,
    read_transpose,
    read_unsqueeze,
    reshaped,
)
from workloads.operators.base import Operator
from workloads.operators.merge import Affine, Concat, Mul
from workloads.operators.normalization import LRN, LogSoftmax, Softmax, Standardize
from workloads.operators.piecewise import Abs, Clip, HardSigmoid, LeakyRelu, PRelu, Relu
from workloads.operators.pooling import AveragePool, MaxPool, Window
from workloads.operators.reduce import ReduceMax, ReduceMean, ReduceSum
from workloads.operators.smooth import Elu, Erf, Exp, Gelu, HardSwish, Log, Mish, Power, Sigmoid, Softplus, Softsign, Tanh

Rule = Callable[[GraphBuilder, Call], tuple[Value, ...]]
FLOAT_LIMIT = 3.4e38


def elementwise(make: Callable[[Call], Operator]) -> Rule:
    """Return the rule of an operator with one input, made from attributes alone."""

    def read(build: GraphBuilder, call: Call) -> tuple[Value, ...]:
        return (build.add(call, make(call), call.tensor(0)),)

    return read


def read_pass(build: GraphBuilder, call: Call) -> tuple[Value, ...]:
    """Hand the value on: Identity, Dropout in inference."""
    return (call.tensor(0),)


def read_cast(build: GraphBuilder, call: Call) -> tuple[Value, ...]:
    """Hand the value on when the cast is to a floating type."""
    if call.attribute("to") not in (1, 10, 11, 16):
        raise call.refuse("a cast of activations to integers or booleans")
    return (call.tensor(0),)


def read_prelu(build: GraphBuilder, call: Call) -> tuple[Value, ...]:
    x = call.tensor(0)
    return (build.add(call, PRelu(call.sample_constant(call.numbers(1), x.rank)), x),)


def read_clip(build: GraphBuilder, call: Call) -> tuple[Value, ...]:
    """Bounds are attributes before opset 11; one beyond the float range is none."""
    low, high = (_bound(call, i, name) for i, name in ((1, "min"), (2, "max")))
    return (_clipped(build, call, call.tensor(0), low, high),)


def _clipped(build: GraphBuilder, call: Call, x: Tensor, low: float | None, high: float | None) -> Tensor:
    low = None if low is None or low <= -FLOAT_LIMIT else low
    high = None if high is None or high >= FLOAT_LIMIT else high
    if low is None and high is None:
        return x
    if low is not None and high is not None and low >= high:
        raise call.malformed(f"clips to [{low:g}, {high:g}]")
    return build.add(call, Relu() if (low, high) == (0.0, None) else Clip(low, high), x)


def _bound(call: Call, i: int, name: str) -> float | None:
    value = call.constant(i) if call.opset >= 11 else call.attribute(name)
    if value is None or np.size(value) == 0:
        return None
    number = float(np.asarray(value).ravel()[0])
    if np.size(value) != 1 or np.isnan(number):
        raise call.refuse(f"{name} must be one number, got {value}")
    return number


def read_extreme(build: GraphBuilder, call: Call) -> tuple[Value, ...]:
    """Read Min or Max with one constant number as a clip."""
    tensors = [v for v in call.inputs if isinstance(v, Tensor)]
    constants = [v for v in call.inputs if isinstance(v, np.ndarray)]
    if len(tensors) != 1 or len(constants) != 1 or constants[0].size != 1:
        raise call.refuse("only one activation with one constant number is supported")
    bound = float(call.finite(constants[0], what="the bound").ravel()[0])
    return (_clipped(build, call, tensors[0], *((bound, None) if call.op == "Max" else (None, bound))),)


def read_hard_sigmoid(build: GraphBuilder, call: Call) -> tuple[Value, ...]:
    alpha, beta = float(call.attribute("alpha", 0.2)), float(call.attribute("beta", 0.5))
    if alpha <= 0:
        raise call.refuse(f"alpha {alpha:g}; a positive one is supported")
    return (build.add(call, HardSigmoid(alpha, beta), call.tensor(0)),)


def read_concat(build: GraphBuilder, call: Call) -> tuple[Value, ...]:
    tensors = [call.tensor(i) for i in range(len(call.inputs))]
    same_rank(call, tensors)
    axis = call.sample_axis(call.attribute("axis", 1), tensors[0].rank)
    rests = {t.shape[:axis] + t.shape[axis + 1 :] for t in tensors}
    if len(rests) != 1:
        raise call.malformed(f"joins values of shapes {', '.join(str(t.shape) for t in tensors)} along sample axis {axis}")
    if len(tensors) == 1:
        return (tensors[0],)
    return (build.add(call, Concat(axis, tuple(t.shape[axis] for t in tensors)), *tensors),)


def _window(call: Call, x: Tensor, spatial: int) -> Window:
    declared = call.attribute("kernel_shape")
    if not declared or len(declared) != spatial or min(declared) < 1:
        raise call.malformed(f"kernel_shape {declared} for {spatial} spatial axes")
    size, kernel = pair(list(x.shape[1:]), fill=1), pair(list(declared), fill=1)
    stride, dilation = per_axis(call, "strides", spatial), per_axis(call, "dilations", spatial)
    pads = window_pads(call, spatial, size=size, kernel=kernel, stride=stride, dilation=dilation)
    ceil = bool(call.attribute("ceil_mode", 0))
    out = [_n_windows(size[i], kernel[i], stride[i], dilation[i], pads[i], pads[i + 2], ceil) for i in (0, 1)]
    if min(out) < 1 or any(p >= d * (k - 1) + 1 for p, k, d in zip(pads, kernel * 2, dilation * 2)):
        raise call.malformed(f"windows of {kernel} with padding {pads} on values of size {size}")
    return Window(in_size=size, out_size=(out[0], out[1]), kernel=kernel, stride=stride, dilation=dilation, pads=pads)


def _n_windows(n: int, kernel: int, stride: int, dilation: int, before: int, after: int, ceil: bool) -> int:
    """Return how many windows there are; rounding up, a last window that starts in the padding is left out."""
    room = n + before + after - dilation * (kernel - 1) - 1
    if not ceil:
        return room // stride + 1
    count = -(-room // stride) + 1
    return count - 1 if (count - 1) * stride >= n + before else count


def _flat_pool(build: GraphBuilder, call: Call, read: Rule) -> Tensor | None:
    """Return a pooling over three axes that leaves the first or the last alone, as one over two; None for any other.

    torch's LocalResponseNorm is such: windows of (size, 1, 1) along the channels.
    """
    x, kernel = call.tensor(0), call.attribute("kernel_shape")
    if x.rank != 5 or not kernel or len(kernel) != 3 or call.attribute("auto_pad", "NOTSET") not in ("NOTSET", "VALID"):
        return None
    strides, dilations, pads = (list(call.attribute(n) or d) for n, d in (("strides", [1] * 3), ("dilations", [1] * 3), ("pads", [0] * 6)))
    idle = [kernel[i] == strides[i] == 1 and pads[i] == pads[i + 3] == 0 for i in range(3)]
    c, d, h, w = x.shape
    if not (idle[2] or idle[0]):
        return None
    kept, flat = ((0, 1), (c, d, h * w)) if idle[2] and idle[1] else ((1, 2), (c * d, h, w)) if idle[0] else ((), ())
    if not kept:
        return None
    if kept == (0, 1):
        kernel, strides, dilations, pads = [kernel[0], 1], [strides[0], 1], [dilations[0], 1], [pads[0], 0, pads[3], 0]
    else:
        kernel, strides, dilations, pads = kernel[1:], strides[1:], dilations[1:], [pads[1], pads[2], pads[4], pads[5]]
    attributes = call.attributes | {"kernel_shape": kernel, "strides": strides, "dilations": dilations, "pads": pads}
    (y,) = read(build, replace(call, inputs=(reshaped(build, call, x, flat),), attributes=attributes))
    assert isinstance(y, Tensor)
    out = (c, y.shape[1], h, w) if kept == (0, 1) else (c, d, y.shape[1], y.shape[2])
    return reshaped(build, call, y, out)


def read_max_pool(build: GraphBuilder, call: Call) -> tuple[Value, ...]:
    flat = _flat_pool(build, call, read_max_pool)
    if flat is not None:
        return (flat,)
    x = call.tensor(0)
    spatial = spatial_rank(call, x)
    return (build.add(call, MaxPool(_window(call, x, spatial), spatial), x),)


def read_average_pool(build: GraphBuilder, call: Call) -> tuple[Value, ...]:
    flat = _flat_pool(build, call, read_average_pool)
    if flat is not None:
        return (flat,)
    x = call.tensor(0)
    spatial = spatial_rank(call, x)
    include_pad = bool(call.attribute("count_include_pad", 0))
    return (build.add(call, AveragePool(_window(call, x, spatial), spatial, include_pad), x),)


def global_pool(make: type[ReduceMean] | type[ReduceMax]) -> Rule:
    """Return the rule of a reduction over all spatial axes."""

    def read(build: GraphBuilder, call: Call) -> tuple[Value, ...]:
        x = call.tensor(0)
        return (build.add(call, make(tuple(range(1, len(x.shape)))), x),) if len(x.shape) > 1 else (x,)

    return read


def reduction(make: type[ReduceMean] | type[ReduceSum] | type[ReduceMax]) -> Rule:
    """Return the rule of a reduction; the axes are an attribute in older opsets."""

    def read(build: GraphBuilder, call: Call) -> tuple[Value, ...]:
        x, axes = call.tensor(0), call.ints(1, "axes")
        if not axes:
            if call.attribute("noop_with_empty_axes", 0):
                return (x,)
            raise call.malformed("it reduces over the batch axis too; name the axes")
        sample = tuple(sorted({call.sample_axis(a, x.rank) for a in axes}))
        return (build.add(call, make(sample, bool(call.attribute("keepdims", 1))), x),)

    return read


def read_reduce_min(build: GraphBuilder, call: Call) -> tuple[Value, ...]:
    """Read the least as minus the largest of the negative."""
    below = build.add(call, Affine(scale=number(-1.0)), call.tensor(0))
    (largest,) = reduction(ReduceMax)(build, replace(call, inputs=(below, *call.inputs[1:])))
    assert isinstance(largest, Tensor)
    return (build.add(call, Affine(scale=number(-1.0)), largest),)


def read_reduce_sum_square(build: GraphBuilder, call: Call) -> tuple[Value, ...]:
    """Add the sum of squares."""
    x = call.tensor(0)
    return reduction(ReduceSum)(build, replace(call, inputs=(build.add(call, Mul(), x, x), *call.inputs[1:])))


def read_reduce_l2(build: GraphBuilder, call: Call) -> tuple[Value, ...]:
    """Add the root of the sum of squares."""
    (squares,) = read_reduce_sum_square(build, call)
    assert isinstance(squares, Tensor)
    return (build.add(call, Power(0.5, "Sqrt"), squares),)


def softmax_like(make: type[Softmax] | type[LogSoftmax]) -> Rule:
    """Return the rule of a softmax: over one axis, or before opset 13 over all axes from `axis` on."""

    def read(build: GraphBuilder, call: Call) -> tuple[Value, ...]:
        x = call.tensor(0)
        axis = call.sample_axis(call.attribute("axis", -1 if call.opset >= 13 else 1), x.rank)
        axes = (axis,) if call.opset >= 13 else tuple(range(axis, len(x.shape)))
        return (build.add(call, make(axes), x),)

    return read


def read_argmax(build: GraphBuilder, call: Call) -> tuple[Value, ...]:
    """Leave a trailing ArgMax out: errors are measured before it."""
    if call.proto.output[0] not in {v.name for v in build.file.graph.output}:
        raise call.refuse("only at the very end of a network")
    build.notes.append(f"the trailing {call.op} was left out: the output is what it chooses from")
    return (call.tensor(0),)


def read_lrn(build: GraphBuilder, call: Call) -> tuple[Value, ...]:
    size = int(call.attribute("size", 0))
    if size < 1:
        raise call.malformed(f"size {size}")
    numbers = (float(call.attribute(n, d)) for n, d in (("alpha", 1e-4), ("beta", 0.75), ("bias", 1.0)))
    return (build.add(call, LRN(size, *numbers), call.tensor(0)),)


def read_instance_norm(build: GraphBuilder, call: Call) -> tuple[Value, ...]:
    x = call.tensor(0)
    ones = (1,) * (len(x.shape) - 1)
    scale, shift = (call.numbers(i).reshape(-1, *ones) for i in (1, 2))
    axes, epsilon = tuple(range(1, len(x.shape))), float(call.attribute("epsilon", 1e-5))
    return (build.add(call, Standardize(axes, epsilon, scale, shift, label="InstanceNormalization"), x),)


def read_layer_norm(build: GraphBuilder, call: Call) -> tuple[Value, ...]:
    x = call.tensor(0)
    axes = tuple(range(call.sample_axis(call.attribute("axis", -1), x.rank), len(x.shape)))
    scale = call.sample_constant(call.numbers(1), x.rank)
    shift = call.sample_constant(call.numbers(2), x.rank) if call.has(2) else None
    return (build.add(call, Standardize(axes, float(call.attribute("epsilon", 1e-5)), scale, shift), x),)


def read_group_norm(build: GraphBuilder, call: Call) -> tuple[Value, ...]:
    """Standardize each group of channels, then scale and shift by channel (opset 21) or group (opset 18)."""
    x, groups = call.tensor(0), int(call.attribute("num_groups", 0))
    if groups < 1 or x.shape[0] % groups:
        raise call.malformed(f"{groups} groups of {x.shape[0]} channels")
    split = (groups, prod(x.shape) // groups)
    scale, shift = (np.repeat(c, x.shape[0] // len(c)).reshape(-1, *(1,) * (len(x.shape) - 1)) for c in (call.numbers(1), call.numbers(2)))
    standard = Standardize((1,), float(call.attribute("epsilon", 1e-5)), label="GroupNormalization")
    y = build.add(call, standard, reshaped(build, call, x, split))
    return (build.add(call, Affine(scale, shift), reshaped(build, call, y, x.shape)),)


RULES: dict[str, Rule] = {
    "Abs": elementwise(lambda call: Abs()),
    "Add": read_sum,
    "ArgMax": read_argmax,
    "AveragePool": read_average_pool,
    "BatchNormalization": read_batch_norm,
    "Cast": read_cast,
    "Celu": read_celu,
    "Clip": read_clip,
    "Concat": read_concat,
    "Conv": read_conv,
    "ConvTranspose": read_conv_transpose,
    "Div": read_div,
    "DepthToSpace": read_depth_to_space,
    "Dropout": read_pass,
    "Elu": elementwise(lambda call: Elu(float(call.attribute("alpha", 1.0)))),
    "Erf": elementwise(lambda call: Erf()),
    "Exp": elementwise(lambda call: Exp()),
    "Expand": read_expand,
    "Flatten": read_flatten,
    "Gather": read_gather,
    "GatherND": read_gather_nd,
    "Gelu": elementwise(lambda call: Gelu(call.attribute("approximate", "none"))),
    "Gemm": read_gemm,
    "GlobalAveragePool": global_pool(ReduceMean),
    "GlobalMaxPool": global_pool(ReduceMax),
    "Greater": read_greater,
    "GroupNormalization": read_group_norm,
    "HardSigmoid": read_hard_sigmoid,
    "HardSwish": elementwise(lambda call: HardSwish()),
    "Identity": read_pass,
    "InstanceNormalization": read_instance_norm,
    "LRN": read_lrn,
    "LayerNormalization": read_layer_norm,
    "LeakyRelu": elementwise(lambda call: LeakyRelu(float(call.attribute("alpha", 0.01)))),
    "Log": elementwise(lambda call: Log()),
    "LogSoftmax": softmax_like(LogSoftmax),
    "MatMul": read_matmul,
    "Max": read_extreme,
    "MaxPool": read_max_pool,
    "Min": read_extreme,
    "Mish": elementwise(lambda call: Mish()),
    "Mul": read_mul,
    "Neg": read_neg,
    "PRelu": read_prelu,
    "Pad": read_pad,
    "Pow": read_pow,
    "Reciprocal": read_reciprocal,
    "ReduceL2": read_reduce_l2,
    "ReduceMax": reduction(ReduceMax),
    "ReduceMean": reduction(ReduceMean),
    "ReduceMin": read_reduce_min,
    "ReduceSum": reduction(ReduceSum),
    "ReduceSumSquare": read_reduce_sum_square,
    "Relu": elementwise(lambda call: Relu()),
    "Reshape": read_reshape,
    "Resize": read_resize,
    "Selu": elementwise(lambda call: Elu(float(call.attribute("alpha", 1.67326319)), float(call.attribute("gamma", 1.05070102)))),
    "Shape": read_shape,
    "Sigmoid": elementwise(lambda call: Sigmoid()),
    "Slice": read_slice,
    "Softmax": softmax_like(Softmax),
    "Softplus": elementwise(lambda call: Softplus()),
    "Softsign": elementwise(lambda call: Softsign()),
    "SpaceToDepth": read_space_to_depth,
    "Split": read_split,
    "Sqrt": read_sqrt,
    "Squeeze": read_squeeze,
    "Sub": read_sub,
    "Sum": read_sum,
    "Tanh": elementwise(lambda call: Tanh()),
    "Transpose": read_transpose,
    "Unsqueeze": read_unsqueeze,
    "Upsample": read_resize,
    "Where": read_where,
}
