"""How a layer's cells conduct: the terms of a non-linear current, over the read voltage and in siemens.

With u = v / v_read the relative drive of a row, a cell's current over v_read is

    I(G, v) / v_read = sum_k C_k(G) h_k(u),     C_1 = G,   h_k(1) = 1 for k > 1                           (1)

so the columns add up one product a term: the stored conductances meet h_1 of the inputs, C_2 of them h_2, and so on. Errors of the
conductances are seen through dI/dG = h_1 + C_2' h_2 + ..., each C_k' being its mean over the layer's cells; power is drawn as
sum_k C_k h_k(u) u, the C_k over G also being means. For laws of one term, both are exact.
"""

from dataclasses import dataclass

import numpy as np

from devices.law import ConductionLaw, Values


@dataclass(frozen=True, slots=True, kw_only=True)
class ReadConduction:
    """A cell's law of conduction at the read voltage it is driven with."""

    law: ConductionLaw
    v_read_v: float

    @property
    def n_terms(self) -> int:
        """Terms of (1)."""
        return len(self.law.shapes(np.zeros(1)))

    def _scales(self) -> tuple[float, ...]:
        """Return h_k's of full drive before they are made one; the first is kept."""
        full = self.law.shapes(np.full(1, self.v_read_v))
        return (1.0, *(float(shape[0]) / self.v_read_v for shape in full[1:]))

    def held(self, drive: Values) -> Values:
        """Return relative drives as drivers give them: at most the law's `limit_v`, where it has one."""
        limit = getattr(self.law, "limit_v", None)
        if limit is None:
            return drive
        most = drive.dtype.type(limit / self.v_read_v)
        return np.minimum(np.maximum(drive, -most), most)

    def terms(self, conductance_siemens: Values) -> tuple[Values, ...]:
        """Return C_k, siemens."""
        return tuple(c * np.asarray(s, c.dtype) for c, s in zip(self.law.terms(conductance_siemens), self._scales(), strict=True))

    def term_slopes(self, conductance_siemens: Values) -> tuple[Values, ...]:
        """Return dC_k/dG."""
        return tuple(c * s for c, s in zip(self.law.term_slopes(conductance_siemens), self._scales(), strict=True))

    def shapes(self, drive: Values) -> tuple[Values, ...]:
        """Return h_k of relative drives, in their shape and type."""
        volts = self.held(drive) * np.asarray(self.v_read_v, drive.dtype)
        over = [np.asarray(self.v_read_v * s, drive.dtype) for s in self._scales()]
        return tuple((f / o).astype(drive.dtype, copy=False) for f, o in zip(self.law.shapes(volts), over, strict=True))

    def shape_slopes(self, drive: Values) -> tuple[Values, ...]:
        """Return dh_k/du, in the shape and type of the drives; none where drivers give no more."""
        held = self.held(drive)
        slopes = (slope * (held == drive) for slope in self.law.shape_slopes(held * np.asarray(self.v_read_v, drive.dtype)))
        return tuple((f / np.asarray(s, drive.dtype)).astype(drive.dtype, copy=False) for f, s in zip(slopes, self._scales(), strict=True))

    def mean_terms(self, mean_siemens: Values, variance_siemens2: Values) -> tuple[Values, ...]:
        """Return E C_k(G) for Gaussian conductances, by quadrature; those below zero being zero."""
        nodes, weights = np.polynomial.hermite_e.hermegauss(N_NODES)
        std, total = np.sqrt(variance_siemens2), [np.zeros_like(mean_siemens) for _ in range(self.n_terms)]
        for node, weight in zip(nodes, weights / weights.sum()):
            for k, term in enumerate(self.terms(np.maximum(mean_siemens + node * std, 0.0))):
                total[k] += weight * term
        return (mean_siemens, *total[1:])


N_NODES = 9


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Conducting:
    """The conduction of one layer's cells, with what stands for all of them.

    Parameters
    ----------
    read
        The law, at the layer's read voltage.
    error_weights
        1, and the means of C_k' for k > 1.
    power_weights
        1, and the means of C_k over that of G.
    zeros
        C_k of the zero of each slice over the span `(n_terms, n_slices, n_columns)`; None for pairs.
    """

    read: ReadConduction
    error_weights: tuple[float, ...]
    power_weights: tuple[float, ...]
    zeros: Values | None

    def shapes(self, drive: Values) -> tuple[Values, ...]:
        """Return h_k of relative drives."""
        return self.read.shapes(drive)

    def error_drive(self, drive: Values) -> Values:
        """Return what errors of the conductances meet."""
        return _weighed(self.error_weights, self.read.shapes(drive))

    def power_drive(self, drive: Values) -> Values:
        """Return the relative drive whose square draws as much power from an ohmic cell."""
        return np.sqrt(np.maximum(self.read.held(drive) * _weighed(self.power_weights, self.read.shapes(drive)), 0.0))

    def current_drive(self, drive: Values) -> Values:
        """Return the relative drive at which ohmic cells conduct as much, on average."""
        return _weighed(self.power_weights, self.read.shapes(drive))


def _weighed(weights: tuple[float, ...], shapes: tuple[Values, ...]) -> Values:
    total = shapes[0]
    for weight, shape in zip(weights[1:], shapes[1:], strict=True):
        total = total + shape * np.asarray(weight, shape.dtype)
    return total
