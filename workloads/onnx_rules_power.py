"""How quotients, powers and comparisons of ONNX become operators; normalizations that an exporter spelt out become one again."""

from math import isfinite

import numpy as np

from workloads.network import INPUT
from workloads.onnx_graph import Call, GraphBuilder, Tensor, Value
from workloads.onnx_rules_merge import number, same_rank, scaled_and_shifted
from workloads.operators.merge import Add, Affine, Mul
from workloads.operators.normalization import Standardize
from workloads.operators.piecewise import Above
from workloads.operators.reduce import ReduceMean
from workloads.operators.smooth import Elu, Power, Softplus

FAR = 10.0
"""Beyond it log(1 + exp x) is x to the precision of float32: exporters write a choice between the two there."""


def read_pow(build: GraphBuilder, call: Call) -> tuple[Value, ...]:
    """Read a power with a constant exponent; the square as a product."""
    x, exponent = call.tensor(0), _number(call, call.constant(1))
    if exponent is None:
        raise call.refuse("the exponent must be one constant number")
    if exponent == 1.0:
        return (x,)
    return (build.add(call, Mul(), x, x) if exponent == 2.0 else build.add(call, Power(exponent), x),)


def read_sqrt(build: GraphBuilder, call: Call) -> tuple[Value, ...]:
    return (build.add(call, Power(0.5, "Sqrt"), call.tensor(0)),)


def read_reciprocal(build: GraphBuilder, call: Call) -> tuple[Value, ...]:
    return (_inverse(build, call, call.tensor(0)),)


def read_div(build: GraphBuilder, call: Call) -> tuple[Value, ...]:
    """Add a division: by a constant, or by an activation as the product with its inverse."""
    first, second = call.inputs
    if isinstance(second, Tensor):
        return (_over(build, call, first, second),)
    x = call.tensor(0)
    divisor = call.sample_constant(call.numbers(1), x.rank).astype(np.float64)
    if not np.all(divisor):
        raise call.malformed("divides by zero")
    return (scaled_and_shifted(build, call, x, scale=call.finite(1 / divisor, what="the inverse of the divisor")),)


def _over(build: GraphBuilder, call: Call, top: Value | None, bottom: Tensor) -> Tensor:
    if not isinstance(top, Tensor):
        scale = call.sample_constant(call.numbers(0), bottom.rank)
        return build.add(call, Affine(scale), _inverse(build, call, bottom))
    same_rank(call, [top, bottom])
    return _standardized(build, call, top, bottom) or build.add(call, Mul(), top, _inverse(build, call, bottom))


def _inverse(build: GraphBuilder, call: Call, x: Tensor) -> Tensor:
    """Return 1 / x; of a power, the power of the opposite exponent."""
    operator = build.operator(x)
    if isinstance(operator, Power):
        return build.add(call, Power(-operator.exponent, "Reciprocal"), Tensor(build.source(x).index, x.shape))
    return build.add(call, Power(-1.0, "Reciprocal"), x)


def _standardized(build: GraphBuilder, call: Call, top: Tensor, bottom: Tensor) -> Tensor | None:
    """Return `(x - mean x) / sqrt(mean (x - mean x)^2 + epsilon)` as one normalization, which older exporters write out."""
    spread, centred = _under_the_root(build, bottom), build.operator(top)
    if spread is None or not isinstance(centred, Add) or centred.signs != (1.0, -1.0):
        return None
    axes, epsilon, squared = spread
    x, mean = (build.source(top, i) for i in (0, 1))
    averaged = build.operator(mean)
    if squared.index != top.index or not isinstance(averaged, ReduceMean) or averaged.axes != axes or not averaged.keepdims:
        return None
    if build.source(mean).index != x.index:
        return None
    return build.add(call, Standardize(axes, epsilon), Tensor(x.index, top.shape))


def _under_the_root(build: GraphBuilder, bottom: Tensor) -> tuple[tuple[int, ...], float, Tensor] | None:
    """Return axes, epsilon and z where `bottom` is `sqrt(mean z^2 + epsilon)`."""
    root = build.operator(bottom)
    if not isinstance(root, Power) or root.exponent != 0.5 or build.source(bottom).index == INPUT:
        return None
    moved = build.source(bottom)
    added = build.operator(moved)
    if not isinstance(added, Affine) or added.scale is not None or added.shift is None or added.shift.size != 1:
        return None
    mean = build.source(moved)
    averaged = build.operator(mean)
    if not isinstance(averaged, ReduceMean) or not averaged.keepdims:
        return None
    square = build.source(mean)
    if not isinstance(build.operator(square), Mul) or build.source(square, 0).index != build.source(square, 1).index:
        return None
    return averaged.axes, float(added.shift.ravel()[0]), build.source(square)


def read_celu(build: GraphBuilder, call: Call) -> tuple[Value, ...]:
    """Read `max(0, x) + min(0, alpha (exp(x / alpha) - 1))` as an ELU of `x / alpha`, times alpha."""
    x, alpha = call.tensor(0), float(call.attribute("alpha", 1.0))
    if not alpha > 0.0 or not isfinite(alpha):
        raise call.refuse(f"alpha {alpha:g}; a positive one is supported")
    if alpha == 1.0:
        return (build.add(call, Elu(), x),)
    inner = build.add(call, Elu(), build.add(call, Affine(scale=number(1.0 / alpha)), x))
    return (build.add(call, Affine(scale=number(alpha)), inner),)


def read_greater(build: GraphBuilder, call: Call) -> tuple[Value, ...]:
    """Read a comparison with a constant number."""
    x, threshold = call.tensor(0), _number(call, call.constant(1))
    if threshold is None:
        raise call.refuse("only a comparison with one constant number is supported")
    return (build.add(call, Above(threshold), x),)


def read_where(build: GraphBuilder, call: Call) -> tuple[Value, ...]:
    """Read the choice `x > far ? x : softplus(x)` as the softplus that it is."""
    chosen, first, second = call.inputs
    if all(isinstance(v, Tensor) for v in (chosen, first, second)):
        above, x, soft = call.tensor(0), call.tensor(1), call.tensor(2)
        gate = build.operator(above)
        is_far = isinstance(gate, Above) and gate.threshold >= FAR and build.source(above).index == x.index
        if is_far and isinstance(build.operator(soft), Softplus) and build.source(soft).index == x.index:
            return (soft,)
    raise call.refuse("a choice that depends on activations has no rule; only softplus may be written so")


def _number(call: Call, value: object) -> float | None:
    """Return a constant that is one finite number, None for any other."""
    array = None if value is None else np.asarray(value)
    if array is None or array.size != 1 or array.dtype.kind not in "fiu" or not np.isfinite(array).all():
        return None
    return float(array.ravel()[0])
