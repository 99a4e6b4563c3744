"""Products of backward lanes with forward samples, image by image."""

import numpy as np

from devices.base.jit import jit
from workloads.operators.base import Array


@jit(fastmath=True)
def _accumulate(left: Array, right: Array, out: Array) -> None:
    """out[m, r, b] += sum_f left[f, m, b] right[f, r, b]."""
    n_features, n_left, n_images = left.shape
    n_right = right.shape[1]
    for f in range(n_features):
        for m in range(n_left):
            for r in range(n_right):
                for b in range(n_images):
                    out[m, r, b] += left[f, m, b] * right[f, r, b]


def lane_products(left: Array, right: Array) -> Array:
    """Return `sum_f left[f, m, b] right[f, r, b]`, shape `(M, R, B)`, for arrays `(F, M, B)` and `(F, R, B)`."""
    out = np.zeros((left.shape[1], right.shape[1], left.shape[2]), left.dtype)
    _accumulate(left, right, out)
    return out
