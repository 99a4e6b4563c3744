"""Resizing by interpolation: a small matrix along each axis."""

from dataclasses import dataclass

import numpy as np
from scipy.sparse import csr_array

from workloads.operators.base import Array, LinearOperator, Shape
from workloads.operators.reshape import one_tangent


@dataclass(frozen=True, slots=True, eq=False)
class Resize(LinearOperator):
    """Values interpolated along sample axes: `matrices[i]`, `(out, in)`, acts along axis i; `None` leaves it."""

    matrices: tuple[csr_array | None, ...]

    def out_shape(self, *in_shapes: Shape) -> Shape:
        return tuple(n if m is None else m.shape[0] for n, m in zip(in_shapes[0], self.matrices))

    def linear(self, tangents: tuple[Array | None, ...]) -> Array:
        y = one_tangent(tangents)
        for axis, matrix in enumerate(self.matrices):
            if matrix is not None:
                y = _along(matrix, y, axis)
        return y

    def transpose(self, delta: Array, in_shapes: tuple[Shape, ...]) -> tuple[Array | None, ...]:
        x = delta
        for axis, matrix in enumerate(self.matrices):
            if matrix is not None:
                x = _along(matrix.T.tocsr(), x, axis)
        return (x,)


def _along(matrix: csr_array, x: Array, axis: int) -> Array:
    """Return the matrix times `x` along one axis."""
    moved = np.moveaxis(x, axis, 0)
    product = matrix.astype(x.dtype) @ moved.reshape(len(moved), -1)
    return np.ascontiguousarray(np.moveaxis(product.reshape(-1, *moved.shape[1:]), 0, axis))
