"""From a layer of weights to the cells that hold them: the error sites of a placed network.

A matrix layer on ideal converters and wires lowers to one node with one array site: its partial sums are exact, however many
arrays its rows and columns are spread over. A site answers with weights: the ideal stored ones, their mean and variance, a sample.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from typing import Literal, TypeAlias

import numpy as np

from accelsim.accelerator import Cell, Mapping
from accelsim.conducting import Conducting, ReadConduction
from accelsim.datapath import Slices
from devices.law import ArrayMap, CellChain, CellLaw, IdealWires, ReadLaw
from devices.programming import GaussianError
from devices.weight_encoding import Encoding
from workloads.operators.base import Array
from workloads.operators.matrix import Conv, ConvTranspose, MatrixOperator

IDEAL_WIRES = IdealWires()
SLOTS = {"programming": 0, "drift": 1, "device_to_device": 2, "low_frequency_noise": 3, "stuck": 4}
"""Of each of a cell's laws, by its field: what random numbers are drawn by."""
Cells: TypeAlias = tuple[Array, ...]
"""One array of conductances for each part of the encoding, in the shape of the weights."""
BLOCK_WEIGHTS = 1 << 22
"""Weights whose cells are looked at together."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class WeightMoments:
    """Mean and variance of the effective weights, float64, in the shape of the weights."""

    mean: Array
    variance: Array


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class ArraySite:
    """The cells of one layer, and the laws they obey.

    Parameters
    ----------
    layer, operator
        The layer's name, and the operator whose weights are stored.
    cell, mapping
        The layer's technology and the designer's choices.
    w_max
        The weight that gets `g_used`, one a column (equal within a layer or network unless the scale is per column).
    g_used_siemens
        Conductance given to `w_max`, one a column.
    part
        What is stored: the layer's `weights`, or its `bias` (as one more row of cells).
    columns
        The layer's columns that this site is of; `w_max` and `g_used_siemens` have one entry for each of these.
    conduction
        None for ohmic cells.
    """

    layer: str
    operator: MatrixOperator
    cell: Cell
    mapping: Mapping
    w_max: Array
    g_used_siemens: Array
    part: Literal["weights", "bias"] = "weights"
    columns: slice = field(default_factory=lambda: slice(None))
    wires: ArrayMap = IDEAL_WIRES
    conduction: ReadConduction | None = None

    @property
    def chain(self) -> CellChain:
        """The cell laws, in the order they act."""
        return CellChain(tuple(law for _, law in self._laws))

    @property
    def slots(self) -> tuple[int, ...]:
        """Number of each law of the chain among all that there could be: adding one does not change the draws of others."""
        return tuple(slot for slot, _ in self._laws)

    @property
    def _laws(self) -> tuple[tuple[int, CellLaw], ...]:
        cell = self.cell
        programming = cell.programming
        if cell.write_verify is not None:
            from devices.write_verify import VerifiedError

            assert isinstance(programming, GaussianError)  # specs know no other, and the cell has looked
            programming = VerifiedError(single=programming, writing=cell.write_verify)
        shifted = cell.device_to_device
        if isinstance(shifted, GaussianError):
            shifted = replace(shifted, clip=False)  # type: ignore[type-var]  # a target may be out of reach; what is stored is not
        slow = cell.low_frequency_noise
        slow = None if getattr(slow, "log_time", 1.0) == 0.0 else slow  # nothing has wandered yet: no need to draw
        every = {
            "device_to_device": shifted,
            "programming": programming,
            "drift": cell.drift,
            "low_frequency_noise": slow,
            "stuck": cell.stuck,
        }
        return tuple((SLOTS[name], law) for name, law in every.items() if law is not None)

    @property
    def is_sparse(self) -> bool:
        """Whether some law replaces few values at random: its two moments say little, so sketches draw it."""
        events = None if self.cell.stuck is None else self.cell.stuck.events(np.zeros(1))
        return events is not None and bool(np.any(events.p > 0.0))

    @property
    def is_quantized(self) -> bool:
        """Whether what is stored is not the float weights."""
        return self.encoding.n_levels is not None

    @property
    def read_law(self) -> ReadLaw | None:
        """The noise of each read, if any."""
        return self.cell.read_noise

    @property
    def values(self) -> Array:
        """What is to be stored, float64: the weights, or the bias as `(n_columns,)`."""
        stored = self.operator.weights if self.part == "weights" else self.operator.bias
        assert stored is not None  # a site is made only for what exists
        return stored[self.columns].astype(np.float64)

    def blocks(self) -> "Iterator[ArraySite]":
        """Yield the site a few columns at a time: float64 copies of all weights of a large layer are much memory."""
        n_columns = len(self.w_max)
        size = n_columns if self.has_wires else max(1, BLOCK_WEIGHTS * n_columns // max(1, self.operator.weights.size))  # arrays are whole
        start, stop, _ = self.columns.indices(self.operator.n_columns)
        for at in range(start, stop, size):
            chosen = slice(at, min(at + size, stop))
            own = slice(chosen.start - start, chosen.stop - start)
            yield replace(self, columns=chosen, w_max=self.w_max[own], g_used_siemens=self.g_used_siemens[own])

    @property
    def encoding(self) -> Encoding:
        """How a weight is held by cells."""
        m = self.mapping
        bits = () if m.slice_bits is None else tuple(int(b) for b in m.slice_bits)
        return Encoding(kind=m.encoding, levels=m.levels, rounding=m.rounding, slice_bits=bits)

    @property
    def scale_siemens(self) -> Array:
        """Conductance per unit of weight, one a column; 0 for a column of zeros."""
        return self.encoding.scale_siemens(self.w_max, self.g_used_siemens, self.cell.g_min_siemens)

    @property
    def w_span(self) -> Array:
        """Weight that the whole range of conductances stands for, one a column: with offsets, both signs share it."""
        encoding = self.encoding
        return self.w_max if encoding.kind == "differential" else self.w_max / encoding.zero

    @property
    def span_siemens(self) -> Array:
        """Range of conductances in use, one a column; 0 for a column of zeros."""
        return np.where(self.w_max > 0.0, self.g_used_siemens - self.cell.g_min_siemens, 0.0)

    @property
    def read_scale_siemens(self) -> Array:
        """Conductance that one unit of weight is read as, one a column: less than `scale_siemens` where drift is compensated for.

        A layer's outputs are scaled by one digital factor: the mean conductance that its cells had when programmed, over what is left.
        """
        scale = self.scale_siemens
        if self.cell.drift is None or not self.mapping.drift_compensation:
            return scale
        sums = np.zeros(2)
        for site in self.blocks():
            for chosen, at in ((replace(site, cell=replace(site.cell, drift=None)), 0), (site, 1)):
                mean, _ = chosen.stored()
                sums[at] += float(sum(part.sum() for part in mean))
        return scale * (sums[1] / sums[0]) if sums[0] > 0.0 else scale

    def with_g_used(self, g_used_siemens: Array) -> "ArraySite":
        """Return the same site with other conductances for the largest weight."""
        return replace(self, g_used_siemens=np.broadcast_to(g_used_siemens, self.g_used_siemens.shape))

    def _by_column(self, column_values: Array) -> Array:
        return column_values.reshape(-1, *(1,) * (self.operator.weights.ndim - 1 if self.part == "weights" else 0))

    def targets(self, *, quantized: bool = True) -> Cells:
        """Return the conductances that the cells of each weight should have, before any error and precompensation."""
        scale, span = self._by_column(self.scale_siemens), self._by_column(self.span_siemens)
        return self.encoding.encode(self.values, scale, span, self.cell.g_min_siemens, quantized=quantized)

    def requested(self, *, quantized: bool = True) -> Cells:
        """Return the conductances asked for: the targets, precompensated when the mapping says so."""
        targets = self.targets(quantized=quantized)
        law, g_max = self.cell.programming, self.cell.g_max_siemens
        if not self.mapping.precompensate or law is None:
            return targets
        return tuple(law.precompensated(target, g_max) for target in targets)

    def ideal_weights(self) -> Array:
        """Return the weights that the targets stand for: quantized, without error."""
        if self.encoding.n_levels is None:
            return self.values
        return self.decode(self.targets(), self.scale_siemens)

    def decode(self, cells: Cells, scale_siemens: Array) -> Array:
        """Return the weights that conductances are read as, at a scale by column."""
        span = self._by_column(self.span_siemens)
        return self.encoding.decode(cells, self._by_column(scale_siemens), span, self.cell.g_min_siemens)

    def slices(self, cells: Cells) -> Slices:
        """Return the weights that conductances are read as, slice by slice; where they conduct non-linearly, those of further terms too."""
        scale, span = self._by_column(self.read_scale_siemens), self._by_column(self.span_siemens)
        first = self.encoding.decode_slices(cells, scale, span, self.cell.g_min_siemens)
        if self.conduction is None:
            return first
        return first + self._higher_slices(tuple(zip(*(self.conduction.terms(part)[1:] for part in cells))))

    def _higher_slices(self, terms: tuple[Cells, ...]) -> Slices:
        """Return the weights of the terms after the first, from what each cell has of them: above what the zero has."""
        scale, found = self._by_column(self.read_scale_siemens), []
        for k, cells in enumerate(terms, start=1):
            zeros = self._zero_terms(k)
            for s in range(self.encoding.n_slices):
                total = np.zeros_like(cells[0])
                for part, cell, zero in zip(self.encoding.parts, cells, zeros, strict=True):
                    if part.slice == s:
                        total = total + part.sign * part.gain * (cell - zero)
                found.append(np.divide(total, scale, out=np.zeros_like(total), where=np.broadcast_to(scale > 0.0, total.shape)))
        return tuple(found)

    def _zero_terms(self, k: int) -> tuple[Array | float, ...]:
        """Return term k of the cell that stands for zero, by part and column; 0 for pairs, whose zeros cancel."""
        parts = self.encoding.parts
        if self.conduction is None or self.encoding.kind == "differential":
            return (0.0,) * len(parts)
        span = self._by_column(self.span_siemens)
        return tuple(self.conduction.terms(self.cell.g_min_siemens + part.zero * span)[k] for part in parts)

    def conducting(self) -> Conducting | None:
        """Return how the cells conduct, with the means over them that stand for all; None for ohmic ones."""
        read = self.conduction
        if read is None:
            return None
        sums, n_cells = np.zeros((2, read.n_terms)), 0
        for site in self.blocks():
            for part in site.targets():
                sums[0] += [float(np.sum(values)) for values in read.term_slopes(part)]
                sums[1] += [float(np.sum(values)) for values in read.terms(part)]
                n_cells += part.size
        total = sums[1, 0] if sums[1, 0] > 0.0 else 1.0
        return Conducting(
            read=read,
            error_weights=(1.0, *(sums[0, 1:] / n_cells).tolist()),
            power_weights=(1.0, *(sums[1, 1:] / total).tolist()),
            zeros=None if self.encoding.kind == "differential" else self._zeros_over_span(read),
        )

    def _zeros_over_span(self, read: ReadConduction) -> Array:
        span = np.where(self.span_siemens > 0.0, self.span_siemens, 1.0)
        by_part = [read.terms(self.cell.g_min_siemens + part.zero * span) for part in self.encoding.parts]  # one part a slice
        return np.stack([np.stack([terms[k] / span for terms in by_part]) for k in range(read.n_terms)])

    def ideal_slices(self) -> Slices:
        """Return the weights that the targets stand for, slice by slice."""
        return self.slices(self.targets())

    def slice_moments(self) -> tuple[Slices, Slices]:
        """Return mean and variance of the weights of each slice over programmings."""
        mean, variance = self.stored()
        slices = self.slices(mean)
        if self.conduction is not None:
            of_noise = tuple(zip(*(self.conduction.mean_terms(m, v)[1:] for m, v in zip(mean, variance))))
            slices = slices[: self.encoding.n_slices] + self._higher_slices(of_noise)
        return slices, self._slice_variances(variance)

    def read_slices(self) -> Slices | None:
        """Return the variance of the weights of each slice at one read, given their mean stored values; None without read noise."""
        if self.read_law is None:
            return None
        return self._slice_variances(self._mean_read_variances())

    def _mean_read_variances(self) -> Cells:
        """Return the variance of each cell at one read, on average over what is stored, siemens squared."""
        assert self.read_law is not None  # the caller has looked
        return tuple(self.read_law.mean_variance_siemens2(m, v, self.cell.g_max_siemens) for m, v in zip(*self.stored()))

    def read_slices_of(self, cells: Cells) -> Slices:
        """Return the variance of the weights of each slice at one read of given conductances."""
        assert self.read_law is not None  # the caller has looked
        return self._slice_variances(tuple(self.read_law.variance_siemens2(part, self.cell.g_max_siemens) for part in cells))

    def _slice_variances(self, variances: Cells) -> Slices:
        scale, parts = self._by_column(self.read_scale_siemens), self.encoding.parts
        found = []
        for s in range(self.encoding.n_slices):
            chosen = [part.gain**2 * v for part, v in zip(parts, variances, strict=True) if part.slice == s]
            found.append(_over_square(np.sum(chosen, axis=0), scale))
        return tuple(found)

    def stored(self, *, quantized: bool = True) -> tuple[Cells, Cells]:
        """Return the mean conductances of the cells of each weight, and their variances (siemens squared), as columns see them.

        Wires act on the mean; errors count by `ResistiveWires.gain` at inputs that are all alike.
        """
        found = [self.chain.moments(asked, self.cell.g_max_siemens) for asked in self.requested(quantized=quantized)]
        means, variances = tuple(m.mean_siemens for m in found), tuple(m.variance_siemens2 for m in found)
        if not self.has_wires:
            return means, variances
        gains = [self._in_arrays(mean, lambda g: self.wires.gain(g)) for mean in means]
        return self.seen(means), tuple(gain**2 * v for gain, v in zip(gains, variances))

    @property
    def has_wires(self) -> bool:
        """Whether wires have any resistance; those of a bias's own row have none."""
        return self.part == "weights" and not isinstance(self.wires, IdealWires)

    def seen(self, cells: Cells) -> Cells:
        """Return the conductances that columns see through the wires of their arrays; each part is in arrays of its own."""
        return tuple(self._in_arrays(part, self.wires.apply) for part in cells) if self.has_wires else cells

    def _in_arrays(self, part: Array, apply: Callable[[Array], Array]) -> Array:
        """Return what `apply` makes of each array `(n_rows, n_columns)` of a part."""
        size, operator, found = self.mapping.array, self.operator, []
        n_rows, n_columns = (None, None) if size is None else (size.n_rows, size.n_columns)
        groups = operator.geometry.groups if isinstance(operator, Conv | ConvTranspose) else 1
        for own in part.reshape(groups, -1, *part.shape[1:]):  # each group of channels has its arrays
            swapped = isinstance(operator, ConvTranspose)  # one row a channel, one column a tap
            upright = own.swapaxes(0, 1) if swapped else own
            matrix = upright.reshape(len(upright), -1) if swapped else own.reshape(len(own), -1).T
            result = np.empty(matrix.shape)
            rows, columns = n_rows or len(matrix), n_columns or matrix.shape[1]
            for i in range(0, len(matrix), rows):
                for j in range(0, matrix.shape[1], columns):
                    at = slice(i, i + rows), slice(j, j + columns)
                    result[at] = apply(np.asarray(matrix[at], np.float64))
            found.append(result.reshape(upright.shape).swapaxes(0, 1) if swapped else result.T.reshape(own.shape))
        return np.concatenate(found).astype(part.dtype)

    def moments(self, *, quantized: bool = True) -> WeightMoments:
        """Return mean and variance of the effective weights over programmings."""
        scale, start = self.read_scale_siemens, self.columns.indices(self.operator.n_columns)[0]
        parts = []
        for site in self.blocks():
            at = site.columns.start - start
            parts.append(site._moments(scale[at : at + len(site.w_max)], quantized=quantized))
        return WeightMoments(mean=np.concatenate([p.mean for p in parts]), variance=np.concatenate([p.variance for p in parts]))

    def _moments(self, scale_siemens: Array, *, quantized: bool) -> WeightMoments:
        mean, variance = self.stored(quantized=quantized)
        return WeightMoments(mean=self.decode(mean, scale_siemens), variance=self.weight_variance(variance, scale_siemens))

    def weight_variance(self, variances: Cells, scale_siemens: Array) -> Array:
        """Return the variance of the weights for independent variances of their cells, siemens squared."""
        total = np.zeros_like(variances[0])
        for part, variance in zip(self.encoding.parts, variances, strict=True):
            total = total + part.gain**2 * variance
        return _over_square(total, self._by_column(scale_siemens))

    def read_variance(self) -> Array | None:
        """Return the variance of the effective weights at one read, given their mean stored values; None without read noise."""
        if self.read_law is None:
            return None
        return self.weight_variance(self._mean_read_variances(), self.read_scale_siemens)


def _over_square(variance: Array, scale: Array) -> Array:
    squared = np.broadcast_to(scale**2, variance.shape)
    return np.divide(variance, squared, out=np.zeros_like(variance), where=squared > 0.0)
