"""Effective weights of differential pairs, drawn one programming after the other from the definition.

    G+- = max(g+- + s z, 0) or g+- + s z,    g+ = c max(W, 0),   g- = c max(-W, 0),   W~ = (G+ - G-) / c
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]


@dataclass(frozen=True, slots=True, kw_only=True)
class CellOracle:
    """Pairs of cells with a Gaussian error of `error_rel` times g_max, or times each cell's own target when `proportional`."""

    g_max_siemens: float
    g_used_siemens: float
    error_rel: float
    clip: bool
    per_column: bool = False
    proportional: bool = False

    def draw(self, weights: Array, n: int, *, rng: np.random.Generator, w_max: Array | None = None) -> Array:
        """Return `n` programmings `(n, *weights.shape)`; `w_max` by column where it is not that of these weights alone."""
        columns = np.abs(weights.reshape(len(weights), -1)).max(axis=1) if w_max is None else w_max
        largest = columns if self.per_column else np.full(len(weights), columns.max())
        scale = (self.g_used_siemens / largest).reshape(-1, *(1,) * (weights.ndim - 1))
        plus, minus = (self._stored(np.maximum(sign * weights, 0.0) * scale, n, rng) for sign in (1.0, -1.0))
        return (plus - minus) / scale

    def _stored(self, target: Array, n: int, rng: np.random.Generator) -> Array:
        std = self.error_rel * (target if self.proportional else self.g_max_siemens)
        stored = target + std * rng.standard_normal((n, *target.shape))
        return np.maximum(stored, 0.0) if self.clip else stored
