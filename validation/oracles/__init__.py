"""Brute force in plain NumPy, float64: slow, short, and sharing no code with what it judges."""

from validation.oracles.cells import CellOracle
from validation.oracles.layers import average_pool, convolve, max_pool

__all__ = ["CellOracle", "average_pool", "convolve", "max_pool"]
