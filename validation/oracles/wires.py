"""Kirchhoff's law at every node of an array, assembled sparsely and solved directly."""

import numpy as np
from numpy.typing import NDArray
from scipy import sparse
from scipy.sparse import linalg

Array = NDArray[np.float64]


def nodal_currents(conductance: Array, voltages: Array, *, word_ohm: float, bit_ohm: float, both_ends: bool = False) -> Array:
    """Return the currents into ground `(n_columns,)` for voltages `(n_rows,)`."""
    matrix, right = nodal_system(conductance, voltages, word_ohm=word_ohm, bit_ohm=bit_ohm, both_ends=both_ends)
    return currents_of(linalg.splu(matrix).solve(right), conductance.shape, bit_ohm=bit_ohm)


def currents_of(node_v: Array, shape: tuple[int, ...], *, bit_ohm: float) -> Array:
    """Return the currents into ground for the voltages of all nodes."""
    n, m = shape
    return np.asarray(node_v[n * m + (n - 1) * m :] / bit_ohm)


def nodal_system(
    conductance: Array, voltages: Array, *, word_ohm: float, bit_ohm: float, both_ends: bool = False
) -> tuple[sparse.csc_matrix, Array]:
    """Return the matrix and the right side of Kirchhoff's law; nodes in the order of cells, word lines first."""
    n, m = conductance.shape
    at = np.arange(n * m).reshape(n, m)
    g_word, g_bit = 1.0 / word_ohm, 1.0 / bit_ohm
    a = np.concatenate([at.ravel(), at[:, :-1].ravel(), n * m + at[:-1].ravel()])
    b = np.concatenate([n * m + at.ravel(), at[:, 1:].ravel(), n * m + at[1:].ravel()])
    g = np.concatenate([conductance.ravel(), np.full(n * (m - 1), g_word), np.full((n - 1) * m, g_bit)])
    diagonal: Array = (np.bincount(a, g, 2 * n * m) + np.bincount(b, g, 2 * n * m)).astype(np.float64)
    right = np.zeros(2 * n * m)
    for side in (0, m - 1) if both_ends else (0,):
        diagonal[at[:, side]] += g_word
        right[at[:, side]] += g_word * voltages
    diagonal[n * m + at[-1]] += np.float64(g_bit)
    every = np.arange(2 * n * m)
    places = np.concatenate([a, b, every]), np.concatenate([b, a, every])
    return sparse.csc_matrix((np.concatenate([-g, -g, diagonal]), places), (2 * n * m, 2 * n * m)), right
