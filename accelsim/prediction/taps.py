"""Which input element each weight of a column meets at each output position."""

import numpy as np

from workloads.operators.base import Array
from workloads.operators.matrix import Conv, ConvTranspose, MatrixOperator


def tap_indices(operator: MatrixOperator) -> tuple[int, Array]:
    """Return the number of groups and indices `(groups, n_rows, P)` into the flat input; -1 in the padding."""
    if isinstance(operator, Conv):
        return operator.geometry.groups, _conv_taps(operator)
    if isinstance(operator, ConvTranspose):
        return operator.geometry.groups, _transposed_taps(operator)
    raise TypeError(f"no taps for {type(operator).__name__}")


def _conv_taps(operator: Conv) -> Array:
    g = operator.geometry
    channels, height, width = g.in_shape
    (_, oh, ow), (kh, kw) = g.out_shape, g.kernel
    rows = np.arange(oh)[:, None] * g.stride[0] + np.arange(kh)[None, :] * g.dilation[0] - g.pads[0]
    columns = np.arange(ow)[:, None] * g.stride[1] + np.arange(kw)[None, :] * g.dilation[1] - g.pads[1]
    return _indices(rows, columns, (channels, height, width), g.groups)


def _transposed_taps(operator: ConvTranspose) -> Array:
    """Output row q meets input row p under tap a when p * stride + a * dilation - pad = q."""
    g = operator.geometry
    _, height, width = g.in_shape
    rows = _sources(height, g.kernel[0], g.stride[0], g.dilation[0], g.pads[0], g.out_shape[1])
    columns = _sources(width, g.kernel[1], g.stride[1], g.dilation[1], g.pads[1], g.out_shape[2])
    return _indices(rows, columns, g.out_shape, g.groups)


def _sources(n_out: int, kernel: int, stride: int, dilation: int, pad: int, n_in: int) -> Array:
    lifted = np.arange(n_out)[:, None] + pad - np.arange(kernel)[None, :] * dilation
    source = lifted // stride
    return np.where((lifted % stride == 0) & (source >= 0) & (source < n_in), source, -1)


def _indices(rows: Array, columns: Array, shape: tuple[int, int, int], groups: int) -> Array:
    """Combine row taps `(oh, kh)` and column taps `(ow, kw)` into flat indices."""
    channels, height, width = shape
    (oh, kh), (ow, kw) = rows.shape, columns.shape
    inside = ((rows >= 0) & (rows < height)).T[:, None, :, None] & ((columns >= 0) & (columns < width)).T[None, :, None, :]
    plane = rows.T[:, None, :, None] * width + columns.T[None, :, None, :]
    by_channel = np.arange(channels)[:, None, None, None, None] * (height * width) + plane[None]
    flat = np.where(inside[None], by_channel, -1).reshape(groups, channels // groups, kh * kw, oh * ow)
    return flat.reshape(groups, -1, oh * ow)
