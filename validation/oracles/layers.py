"""Layers by the definition: loops over output positions and taps, one weight tensor a sample."""

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]
Pair = tuple[int, int]
Pads = tuple[int, int, int, int]


def convolve(
    x: Array, weights: Array, *, stride: Pair = (1, 1), dilation: Pair = (1, 1), pads: Pads = (0, 0, 0, 0), groups: int = 1
) -> Array:
    """Return `(n, O, oh, ow)` for inputs `(n, C, H, W)` and a weight tensor of its own for each, `(n, O, C/groups, kh, kw)`."""
    top, left, bottom, right = pads
    padded = np.pad(x, ((0, 0), (0, 0), (top, bottom), (left, right)))
    n, n_out, _, kh, kw = weights.shape
    oh = (padded.shape[2] - dilation[0] * (kh - 1) - 1) // stride[0] + 1
    ow = (padded.shape[3] - dilation[1] * (kw - 1) - 1) // stride[1] + 1
    split_x, split_w = np.split(padded, groups, axis=1), np.split(weights, groups, axis=1)
    y = np.empty((n, n_out, oh, ow))
    for i in range(oh):
        for j in range(ow):
            rows = slice(i * stride[0], i * stride[0] + dilation[0] * (kh - 1) + 1, dilation[0])
            columns = slice(j * stride[1], j * stride[1] + dilation[1] * (kw - 1) + 1, dilation[1])
            parts = [np.einsum("nockl,nckl->no", w, a[:, :, rows, columns]) for a, w in zip(split_x, split_w)]
            y[:, :, i, j] = np.concatenate(parts, axis=1)
    return y


def average_pool(x: Array, size: int) -> Array:
    """Return the averages of disjoint squares of `(n, C, H, W)`."""
    return _squares(x, size).mean(axis=(3, 5))


def max_pool(x: Array, size: int) -> Array:
    """Return the largest values of disjoint squares of `(n, C, H, W)`."""
    return _squares(x, size).max(axis=(3, 5))


def _squares(x: Array, size: int) -> Array:
    n, c, h, w = x.shape
    return x.reshape(n, c, h // size, size, w // size, size)
