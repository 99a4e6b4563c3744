"""Products of single weights that differ from lane to lane, added to a product with the weights that all lanes share.

    y_opb += sum_e change_e x_pjb       over the changed weights e = (o, j) of lane b                               (1)

Few weights change, so their number counts and not that of all weights; values are turned to lie lane by lane on the way.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from devices.base.jit import jit
from workloads.operators.base import Array
from workloads.operators.matrix import Conv, ConvTranspose, MatrixOperator

APART = 16
"""Floats between lanes, a cache line: else lanes of maps whose size is a power of two would be in each other's way."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class LaneChanges:
    """Changed weights, lane by lane.

    Parameters
    ----------
    starts
        Where those of each lane begin, and where the last one's end, `(B + 1,)`.
    number
        Place of each in the flat weights, int64.
    change
        What is added to it, float32.
    """

    starts: NDArray[np.int64]
    number: NDArray[np.int64]
    change: Array


def add_lane_products(operator: MatrixOperator, changes: LaneChanges, x: Array, y: Array) -> None:
    """Add (1) to `y` `(*out_shape, B)` in place, for inputs `x` `(*in_shape, B)`.

    TypeError for operators that are no convolution, ValueError for a `y` that is not contiguous.
    """
    if not isinstance(operator, Conv | ConvTranspose):
        raise TypeError(f"no products by lane for {type(operator).__name__}")
    if not y.flags.c_contiguous:
        raise ValueError("y: need a contiguous array, which is changed in place")
    if not len(changes.number):
        return
    g, n_lanes = operator.geometry, x.shape[-1]
    across = isinstance(operator, ConvTranspose)
    lanes = np.zeros((n_lanes, y.size // n_lanes + APART), np.float32)
    sizes = (*g.in_shape[1:], *g.out_shape[1:], *g.kernel, *g.stride, *g.dilation, *g.pads[:2])
    by_group = operator.weights.shape[0] // g.groups
    _add_changes(changes.starts, changes.number, changes.change, _by_lane(x), lanes, operator.weights.shape[1], by_group, across, *sizes)
    _turn_back(lanes, y.reshape(-1, n_lanes))


def _by_lane(x: Array) -> Array:
    out = np.empty((x.shape[-1], x.size // x.shape[-1] + APART), np.float32)
    _turn(np.ascontiguousarray(x, np.float32).reshape(-1, x.shape[-1]), out)
    return out


@jit()
def _turn(x, out):  # type: ignore[no-untyped-def]
    for i in range(x.shape[0]):
        for b in range(x.shape[1]):
            out[b, i] = x[i, b]


@jit()
def _turn_back(lanes, y):  # type: ignore[no-untyped-def]
    for i in range(y.shape[0]):
        for b in range(y.shape[1]):
            y[i, b] += lanes[b, i]


@jit()
def _first(offset, step, size):  # type: ignore[no-untyped-def]
    """Return the first position k >= 0 with k step + offset in 0..size, and the one after the last."""
    low = 0 if offset >= 0 else (-offset + step - 1) // step
    high = (size - 1 - offset) // step + 1 if size > offset else 0
    return low, high


@jit()
def _add_changes(starts, number, change, x, y, channels, by_group, across, wide_h, wide_w, out_h, out_w, kh, kw, sh, sw, dh, dw, top, left):  # type: ignore[no-untyped-def]
    """Add each change to its lane: the wide side of a convolution is its input, that of a transposed one its output."""
    for b in range(starts.size - 1):
        for e in range(starts[b], starts[b + 1]):
            rest, tap = number[e] // (kh * kw), number[e] % (kh * kw)
            o, c = rest // channels, rest % channels
            c += o // by_group * channels
            row, column = tap // kw * dh - top, tap % kw * dw - left
            p_low, p_high = _first(row, sh, wide_h)
            q_low, q_high = _first(column, sw, wide_w)
            wide, narrow = (o, c) if across else (c, o)
            for p in range(p_low, min(p_high, out_h)):
                w = (wide * wide_h + p * sh + row) * wide_w + column
                n = (narrow * out_h + p) * out_w
                if across:
                    for q in range(q_low, min(q_high, out_w)):
                        y[b, w + q * sw] += change[e] * x[b, n + q]
                else:
                    for q in range(q_low, min(q_high, out_w)):
                        y[b, n + q] += change[e] * x[b, w + q * sw]
