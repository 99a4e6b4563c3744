"""Operators that hold trained weights: convolutions and fully connected layers, the ones that live on arrays.

Each weight has one row (input feature and tap) and one column (output feature):

    y_op = sum_j W_oj x_pj + b_o        x_pj: the input under tap j at output position p, 0 in the padding      (1)

The weights are an argument of every product, so the same operator runs with quantized, mean or sampled ones.
"""

from abc import abstractmethod
from dataclasses import dataclass

import numpy as np

from workloads.kernels import (
    ConvGeometry,
    GradientMoments,
    conv,
    conv_transposed,
    weight_gradient_moments,
)
from workloads.operators.base import Array, LinearOperator, Shape


class MatrixOperator(LinearOperator):
    """A linear operator with weights `(n_columns, n_rows...)`, output features first, and an optional bias `(n_columns,)`."""

    __slots__ = ()

    weights: Array
    bias: Array | None

    @property
    def n_columns(self) -> int:
        """Number of output features: each is one column of an array."""
        return int(self.weights.shape[0])

    @property
    def n_rows(self) -> int:
        """Number of weights of one output feature."""
        return int(np.prod(self.weights.shape[1:]))

    @property
    @abstractmethod
    def n_positions(self) -> int:
        """Number of output positions that the same weights serve for one sample."""

    @property
    def n_macs(self) -> int:
        """Multiplications of one sample, without those by padding zeros left out."""
        return self.n_positions * int(self.weights.size)

    @abstractmethod
    def multiply(self, weights: Array, x: Array) -> Array:
        """Return (1) without the bias."""

    @abstractmethod
    def multiply_transposed(self, weights: Array, delta: Array, out: Array | None = None) -> Array:
        """Return the gradient with respect to the input; in `out`, flat and contiguous, where it is given."""

    @abstractmethod
    def gradient_moments(
        self, delta: Array, x: Array, variance: Array, *, covariance: bool = False, directions: Array | None = None
    ) -> GradientMoments:
        """Return the second moments of the weight gradient `g_oj = sum_p d_op x_pj`: see `kernels.weight_gradient_moments`."""

    @abstractmethod
    def row_activity(self, x: Array) -> Array:
        """Return, shape of `weights`, the squared input of each weight's row, summed over positions and averaged over images."""

    def with_bias(self, y: Array) -> Array:
        """Return `y` with the bias added in place."""
        if self.bias is not None:
            y += self.bias.reshape(-1, *(1,) * (y.ndim - 1)).astype(y.dtype)
        return y

    def linear(self, tangents: tuple[Array | None, ...]) -> Array:
        (tangent,) = tangents
        if tangent is None:
            raise ValueError("a matrix needs its one tangent")
        return self.multiply(self.weights, tangent)

    def transpose(self, delta: Array, in_shapes: tuple[Shape, ...]) -> tuple[Array | None, ...]:
        return (self.multiply_transposed(self.weights, delta),)

    def forward(self, *inputs: Array) -> Array:
        return self.with_bias(self.multiply(self.weights, inputs[0]))


@dataclass(frozen=True, slots=True, eq=False)
class Conv(MatrixOperator):
    """Convolution, one or two spatial dimensions; weights `(O, C/groups, kh, kw)` (`kh = 1` in one dimension).

    `spatial` is the number of spatial dimensions of its values: 2, 1, or 0 for a fully connected layer.
    """

    weights: Array
    bias: Array | None
    geometry: ConvGeometry
    spatial: int = 2

    @property
    def kind(self) -> str:
        return "Conv" if self.spatial else "Gemm"

    @property
    def n_positions(self) -> int:
        return int(np.prod(self.geometry.out_shape[1:]))

    def out_shape(self, *in_shapes: Shape) -> Shape:
        return self._narrow(self.geometry.out_shape)

    def multiply(self, weights: Array, x: Array) -> Array:
        y = conv(self._wide(x, self.geometry.in_shape), weights.astype(x.dtype, copy=False), self.geometry)
        return y.reshape(*self._narrow(self.geometry.out_shape), x.shape[-1])

    def multiply_transposed(self, weights: Array, delta: Array, out: Array | None = None) -> Array:
        into = None if out is None else out.reshape(*self.geometry.in_shape, delta.shape[-1])
        x = conv_transposed(self._wide(delta, self.geometry.out_shape), weights.astype(delta.dtype, copy=False), self.geometry, into)
        return x.reshape(*self._narrow(self.geometry.in_shape), delta.shape[-1])

    def gradient_moments(
        self, delta: Array, x: Array, variance: Array, *, covariance: bool = False, directions: Array | None = None
    ) -> GradientMoments:
        return weight_gradient_moments(
            self._wide(delta, self.geometry.out_shape), self._wide(x, self.geometry.in_shape), self.geometry, variance,
            covariance=covariance, directions=directions,
        )

    def row_activity(self, x: Array) -> Array:
        g = self.geometry
        squared = _mean_square(self._wide(x, g.in_shape))
        top, left, bottom, right = g.pads
        padded = np.pad(squared, ((0, 0), (top, bottom), (left, right)))
        (_, oh, ow), (sh, sw), (dh, dw) = g.out_shape, g.stride, g.dilation
        taps = np.empty((g.in_shape[0], *g.kernel))
        for a in range(g.kernel[0]):
            for b in range(g.kernel[1]):
                rows, columns = slice(a * dh, a * dh + (oh - 1) * sh + 1, sh), slice(b * dw, b * dw + (ow - 1) * sw + 1, sw)
                taps[:, a, b] = padded[:, rows, columns].sum(axis=(1, 2))
        by_group = taps.reshape(g.groups, 1, -1, *g.kernel)
        return np.broadcast_to(by_group, (g.groups, g.n_out // g.groups, *by_group.shape[2:])).reshape(self.weights.shape)

    def _wide(self, x: Array, shape: Shape) -> Array:
        return x.reshape(*shape, x.shape[-1])

    def _narrow(self, shape: Shape) -> Shape:
        return (shape[0], *shape[3 - self.spatial :]) if self.spatial < 2 else shape


@dataclass(frozen=True, slots=True, eq=False)
class ConvTranspose(MatrixOperator):
    """Transposed convolution: the adjoint of the convolution `geometry` (whose input is this operator's output).

    Weights are kept output features first, `(O, C/groups, kh, kw)`; `geometry` has `n_out = C` and `in_shape = (O, H, W)`.
    """

    weights: Array
    bias: Array | None
    geometry: ConvGeometry
    spatial: int = 2

    @property
    def n_positions(self) -> int:
        """Input positions: each drives its row once, and one array read serves it."""
        return int(np.prod(self.geometry.out_shape[1:]))

    def out_shape(self, *in_shapes: Shape) -> Shape:
        return self._narrow(self.geometry.in_shape)

    def multiply(self, weights: Array, x: Array) -> Array:
        wide = x.reshape(*self.geometry.out_shape, x.shape[-1])
        y = conv_transposed(wide, self._swap(weights).astype(x.dtype, copy=False), self.geometry)
        return y.reshape(*self._narrow(self.geometry.in_shape), x.shape[-1])

    def multiply_transposed(self, weights: Array, delta: Array, out: Array | None = None) -> Array:
        wide = delta.reshape(*self.geometry.in_shape, delta.shape[-1])
        into = None if out is None else out.reshape(*self.geometry.out_shape, delta.shape[-1])
        x = conv(wide, self._swap(weights).astype(delta.dtype, copy=False), self.geometry, into)
        return x.reshape(*self._narrow(self.geometry.out_shape), delta.shape[-1])

    def gradient_moments(
        self, delta: Array, x: Array, variance: Array, *, covariance: bool = False, directions: Array | None = None
    ) -> GradientMoments:
        """The gradient of `<d, W' x>` is that of the convolution with input d and output gradient x: the roles swap."""
        n_images, lanes = x.shape[-1], delta.shape[-1]
        repeated = np.tile(x, lanes // n_images).reshape(*self.geometry.out_shape, lanes)
        swapped = None if directions is None else np.stack([self._swap(e.reshape(self.weights.shape)).ravel() for e in directions])
        moments = weight_gradient_moments(
            repeated, delta.reshape(*self.geometry.in_shape, lanes), self.geometry, self._swap(variance),
            covariance=covariance, directions=swapped, n_images=n_images,
        )
        return moments.with_power(self._swap(moments.power))

    def row_activity(self, x: Array) -> Array:
        """Each input channel drives one row, whatever taps its columns stand for."""
        g = self.geometry
        squared = _mean_square(x.reshape(*g.out_shape, -1)).sum(axis=(1, 2))
        by_group = squared.reshape(g.groups, 1, -1, 1, 1)
        o, c = self.weights.shape[0] // g.groups, self.weights.shape[1]
        return np.broadcast_to(by_group, (g.groups, o, c, *g.kernel)).reshape(self.weights.shape)

    def _swap(self, weights: Array) -> Array:
        """Exchange input and output features within each group."""
        groups = self.geometry.groups
        o, c = weights.shape[0] // groups, weights.shape[1]
        split = weights.reshape(groups, o, c, *weights.shape[2:])
        return np.ascontiguousarray(np.swapaxes(split, 1, 2)).reshape(groups * c, o, *weights.shape[2:])

    def _narrow(self, shape: Shape) -> Shape:
        return (shape[0], *shape[3 - self.spatial :]) if self.spatial < 2 else shape


def _mean_square(x: Array) -> Array:
    """Return the mean square over lanes, float64: squares of one element are summed in the precision of `x`, without a copy of it."""
    return np.einsum("...b,...b->...", x, x).astype(np.float64) / x.shape[-1]
