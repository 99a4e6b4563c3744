"""Signed weights on positive conductances.

Differential: each weight is a pair of cells,

    G+ = g_min + c max(W, 0),   G- = g_min + c max(-W, 0),   W = (G+ - G-) / c,   c = (g_used - g_min) / W_max     (1)

with c in siemens per unit of weight, one for the network, for each layer or for each column.
"""

from dataclasses import dataclass

import numpy as np

from devices.law import Values


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Pair:
    """Target conductances of the two cells of each weight, siemens, in the shape of the weights."""

    positive_siemens: Values
    negative_siemens: Values


def scale_siemens(w_max: Values, g_used_siemens: Values | float, g_min_siemens: float) -> Values:
    """Return c of (1), broadcast over `w_max`; zero where `w_max` is zero (nothing is stored there)."""
    span = np.broadcast_to(np.asarray(g_used_siemens, dtype=np.float64) - g_min_siemens, np.shape(w_max))
    return np.divide(span, w_max, out=np.zeros(np.shape(w_max)), where=np.asarray(w_max) > 0.0)


def encode(weights: Values, scale: Values, g_min_siemens: float) -> Pair:
    """Return the target pair (1); `scale` broadcasts against `weights`."""
    scaled = weights * scale
    return Pair(
        positive_siemens=g_min_siemens + np.maximum(scaled, 0.0),
        negative_siemens=g_min_siemens + np.maximum(-scaled, 0.0),
    )


def decode(pair: Pair, scale: Values) -> Values:
    """Return the weights that a pair of conductances stands for; zero where the scale is zero."""
    difference = pair.positive_siemens - pair.negative_siemens
    return np.divide(difference, scale, out=np.zeros_like(difference), where=np.broadcast_to(scale > 0.0, difference.shape))
