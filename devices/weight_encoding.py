"""Signed weights on positive conductances: which cells hold a weight, and what they are read as.

With span = g_used - g_min, a weight W in -W_max..W_max takes one cell (offset) or two (differential):

    differential   G+ = g_min + c max(W, 0),  G- = g_min + c max(-W, 0),   W = (G+ - G-) / c,   c = span / W_max        (1)
    offset         G  = g_0 + c W,   g_0 = g_min + z span,                 W = (G - g_0) / c,   c = z span / W_max      (2)

with z = 1/2, or with N levels z = floor((N-1)/2) / (N-1), so that zero is a level. What g_0 adds to a column's current is taken
away again: an ideal unit column. Differential columns are subtracted before they are converted.

Sliced, a number of B = sum b_s bits is stored digit by digit, each in a cell of its own; with place values p_s,

    code = sum_s p_s d_s in 0..2^B - 1,   G_s = g_min + span d_s / (2^b_s - 1),
    W = sum_s k_s (G_s - g_0s) / c,       k_s = p_s (2^b_s - 1) / (2^B - 1),   sum_s k_s = 1                            (3)

so an error of the same size counts k_s times as much: nearly all of the error is that of the most significant slice.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from devices.base.errors import SpecError
from devices.law import Values
from devices.quantizer import LevelQuantizer

MAX_BITS = 24


@dataclass(frozen=True, slots=True, kw_only=True)
class Part:
    """One of the cells that hold a weight.

    Parameters
    ----------
    name
        Unique among the cells of a weight.
    sign, gain
        What its conductance counts: `sign * gain / c` of the weight.
    slice
        Which digit it holds, 0 the most significant.
    zero
        The conductance that is read as nothing, over the span above g_min; 0 for pairs, where it cancels.
    """

    name: str
    sign: float
    gain: float
    slice: int
    zero: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Encoding:
    """How a weight is held by cells.

    Parameters
    ----------
    kind
        `differential` (1) or `offset` (2).
    levels, rounding
        Conductances a cell can be asked for; None for any. Not with slices, whose bits say it.
    slice_bits
        Bits of each slice, the most significant first; empty for a number in one piece.
    """

    kind: Literal["differential", "offset"] = "differential"
    levels: int | None = None
    rounding: Literal["nearest", "floor"] = "nearest"
    slice_bits: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        if self.slice_bits and self.levels is not None:
            raise SpecError(f"levels: {self.levels} with slice_bits {list(self.slice_bits)}: slices have their own; leave levels out")
        if any(b < 1 for b in self.slice_bits) or self.n_bits > MAX_BITS:
            raise SpecError(f"slice_bits: {list(self.slice_bits)}: need bits of at least 1 each and {MAX_BITS} together")

    @property
    def n_bits(self) -> int:
        """Bits of all slices together."""
        return sum(self.slice_bits)

    @property
    def n_slices(self) -> int:
        """Cells of each sign that a weight takes."""
        return max(1, len(self.slice_bits))

    @property
    def n_levels(self) -> int | None:
        """Levels of a number, all slices together; None for any."""
        return 2**self.n_bits if self.slice_bits else self.levels

    @property
    def zero(self) -> float:
        """Where a weight of zero is, over the span; 0 for pairs."""
        if self.kind == "differential":
            return 0.0
        n = self.n_levels
        return 0.5 if n is None else ((n - 1) // 2) / (n - 1)

    @property
    def parts(self) -> tuple[Part, ...]:
        """The cells of each weight, slice by slice."""
        halves = [("0", 1.0)] if self.kind == "offset" else [("+", 1.0), ("-", -1.0)]
        if not self.slice_bits:
            return tuple(Part(name=name, sign=sign, gain=1.0, slice=0, zero=self.zero) for name, sign in halves)
        places = self._places()
        zero_digits = self._digits(np.array([round(self.zero * (2**self.n_bits - 1))]))
        parts = []
        for s, (bits, place) in enumerate(zip(self.slice_bits, places)):
            top = 2**bits - 1
            for name, sign in halves:
                gain, zero = place * top / (2**self.n_bits - 1), float(zero_digits[s][0]) / top
                parts.append(Part(name=f"{name} slice {s}", sign=sign, gain=gain, slice=s, zero=zero))
        return tuple(parts)

    def scale_siemens(self, w_max: Values, g_used_siemens: Values | float, g_min_siemens: float) -> Values:
        """Return c of (1) or (2), broadcast over `w_max`; zero where `w_max` is zero (nothing is stored there)."""
        scale = scale_siemens(w_max, g_used_siemens, g_min_siemens)
        return scale if self.kind == "differential" else self.zero * scale

    def encode(
        self, weights: Values, scale: Values, span_siemens: Values, g_min_siemens: float, *, quantized: bool = True
    ) -> tuple[Values, ...]:
        """Return the conductances that each part's cells should have, siemens; `scale` and `span_siemens` broadcast against `weights`.

        With `quantized` false, those without levels; slices have levels always.
        """
        scaled = weights * scale
        if self.kind == "differential":
            offsets = [np.maximum(scaled, 0.0), np.maximum(-scaled, 0.0)]
        else:
            offsets = [np.clip(self.zero * span_siemens + scaled, 0.0, span_siemens)]
        if self.slice_bits:
            return self._sliced(offsets, span_siemens, g_min_siemens)
        if self.levels is not None and quantized:
            quantizer = LevelQuantizer(levels=self.levels, rounding=self.rounding)
            offsets = [quantizer.apply(offset, span_siemens) for offset in offsets]
        return tuple(g_min_siemens + offset for offset in offsets)

    def _sliced(self, offsets: list[Values], span: Values, g_min: float) -> tuple[Values, ...]:
        top = 2**self.n_bits - 1
        step = np.broadcast_to(span, offsets[0].shape) / top
        halves = [self._digits(np.rint(np.divide(o, step, out=np.zeros_like(o), where=step > 0.0)).astype(np.int64)) for o in offsets]
        found = []
        for s, bits in enumerate(self.slice_bits):
            found += [g_min + span * (digits[s] / (2**bits - 1)) for digits in halves]
        return tuple(found)

    def decode(self, cells: Sequence[Values], scale: Values, span_siemens: Values, g_min_siemens: float) -> Values:
        """Return the weights that conductances are read as by (1) to (3); zero where the scale is zero."""
        total = np.zeros_like(cells[0])
        for part, cell in zip(self.parts, cells, strict=True):
            total = total + (part.sign * part.gain) * self._above_zero(part, cell, span_siemens, g_min_siemens)
        return np.divide(total, scale, out=np.zeros_like(total), where=np.broadcast_to(scale > 0.0, total.shape))

    def decode_slices(self, cells: Sequence[Values], scale: Values, span_siemens: Values, g_min_siemens: float) -> tuple[Values, ...]:
        """Return the weights slice by slice, each counted with its place value: `decode` is their sum."""
        totals = [np.zeros_like(cells[0]) for _ in range(self.n_slices)]
        for part, cell in zip(self.parts, cells, strict=True):
            totals[part.slice] = totals[part.slice] + (part.sign * part.gain) * self._above_zero(part, cell, span_siemens, g_min_siemens)
        live = np.broadcast_to(scale > 0.0, cells[0].shape)
        return tuple(np.divide(total, scale, out=np.zeros_like(total), where=live) for total in totals)

    def _above_zero(self, part: Part, cell: Values, span: Values, g_min: float) -> Values:
        return cell if self.kind == "differential" else cell - (g_min + part.zero * span)

    def _places(self) -> list[int]:
        below = np.cumsum([0, *self.slice_bits[:0:-1]])[::-1]
        return [1 << int(b) for b in below]

    def _digits(self, code: Values) -> list[Values]:
        return [(code // place) % (1 << bits) for bits, place in zip(self.slice_bits, self._places())]


def scale_siemens(w_max: Values, g_used_siemens: Values | float, g_min_siemens: float) -> Values:
    """Return span / W_max, broadcast over `w_max`; zero where `w_max` is zero."""
    span = np.broadcast_to(np.asarray(g_used_siemens, dtype=np.float64) - g_min_siemens, np.shape(w_max))
    return np.divide(span, w_max, out=np.zeros(np.shape(w_max)), where=np.asarray(w_max) > 0.0)
