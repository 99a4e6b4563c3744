"""What becomes of a layer's values on their way: DAC, input slices, arrays of limited size, ADC, shift and add.

A layer is split into row blocks r (an array has so many rows), weight slices s and input slices t, each with a conversion of its own:

    x_q = DAC(x) = sum_t h_t x_t,     W = sum_s k_s W_s                                                            (1)
    z_rst = sum_{j in r} W_sj x_tj,   y = sum_rst k_s h_t ADC(z_rst)                                               (2)

Signals are measured in full scales: z counts cells that are fully on and driven with the read voltage, so that it does not change
with the conductance in use (amplifiers follow it), and is at most the number of rows. Pairs are subtracted before conversion. A column
of offset cells is converted as it is; what the offset adds is known from a unit column, whose cells are ideal and whose converter is
like the others, and is taken away digitally.

Over programmings the partial sums are Gaussian, N(m, v), to first order. A converter has exact moments then (`devices.converter`):
mean and gain, and a remainder that does not follow its input, taken to be independent from conversion to conversion:

    E y = sum k_s h_t E ADC(z),     rest = sum (k_s h_t)^2 (Var ADC(z) - gain^2 v)                                 (3)

Where cells conduct non-linearly (`accelsim.conducting`), a partial sum has one product a term of the current, the weights of the terms
standing one after the other: those of the conductances slice by slice, then those of the second term, and so on.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np

from accelsim.conducting import Conducting
from devices.law import SignalOperator
from workloads.operators.base import Array
from workloads.operators.matrix import Conv, ConvTranspose, MatrixOperator

NEGLIGIBLE = 1e-3
"""Place value, over the largest, of a conversion whose noise is not averaged over: a millionth of the variance."""
Slices = tuple[Array, ...]
"""Weights by slice `(*weights.shape)`, each counted with its place value: they add up to the weights."""
Fresh = Callable[[int, tuple[int, ...]], Array]
"""Returns standard normals of a shape, the same for the same number of a conversion."""
Keep = Callable[[int, Array], Array]
"""Returns what the sum of a row block, of that number, is after it was kept somewhere."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Block:
    """Rows of a layer that share an array: the operator that they are, and which of its weights they hold (None: all)."""

    operator: MatrixOperator
    channels: slice
    taken: Array | None

    def weights(self, weights: Array) -> Array:
        """Return the block's share of a layer's weights."""
        own = weights[:, self.channels]
        return np.ascontiguousarray(own) if self.taken is None else own * self.taken


def blocks_of(operator: MatrixOperator, n_rows: int | None) -> tuple[Block, ...]:
    """Return the row blocks of an operator on arrays of `n_rows` rows; None for arrays as large as it takes.

    Rows are the weights of one output feature in their order: channel, then tap. A transposed convolution has one row a channel, and a
    column of its own for each tap.
    """
    if isinstance(operator, ConvTranspose):
        return tuple(_transposed_blocks(operator, n_rows))
    size = operator.n_rows if n_rows is None else n_rows
    if size >= operator.n_rows:
        return (Block(operator=_without_bias(operator), channels=slice(None), taken=None),)
    return tuple(_row_blocks(operator, size))


def _row_blocks(operator: MatrixOperator, size: int) -> Iterator[Block]:
    shape = operator.weights.shape
    taps = int(np.prod(shape[2:]))
    for start in range(0, operator.n_rows, size):
        stop = min(start + size, operator.n_rows)
        rows = np.zeros(operator.n_rows, operator.weights.dtype)
        rows[start:stop] = 1.0
        if isinstance(operator, Conv) and operator.geometry.groups == 1:
            channels = slice(start // taps, -(-stop // taps))
            height, width = operator.geometry.in_shape[1:]
            geometry = replace(operator.geometry, in_shape=(channels.stop - channels.start, height, width))
            part: MatrixOperator = replace(operator, weights=operator.weights[:, channels], bias=None, geometry=geometry)
        else:
            channels, part = slice(None), _without_bias(operator)
        yield Block(operator=part, channels=channels, taken=rows.reshape(shape[1:])[channels])


def _transposed_blocks(operator: ConvTranspose, n_rows: int | None) -> Iterator[Block]:
    shape = operator.weights.shape
    size = shape[1] if n_rows is None else n_rows
    for start in range(0, shape[1], size):
        for tap in np.ndindex(*shape[2:]):
            taken = np.zeros(shape[1:], operator.weights.dtype)
            taken[(slice(start, start + size), *tap)] = 1.0
            yield Block(operator=_without_bias(operator), channels=slice(None), taken=taken)


def _without_bias(operator: MatrixOperator) -> MatrixOperator:
    return replace(operator, bias=None)  # type: ignore[type-var]


@dataclass(frozen=True, slots=True, kw_only=True)
class InputDigits:
    """Inputs digit by digit, the least significant first: magnitudes in base `2^bits`, the sign by the polarity of the drive.

    `step` is that of the DAC, `n_digits` what its largest code takes.
    """

    step: float
    bits: int
    n_digits: int

    def split(self, x: Array) -> Iterator[tuple[float, Array]]:
        """Yield the value of each digit's full scale, and the digits over it, in -1..1."""
        code = np.rint(x * np.asarray(1.0 / self.step, x.dtype))
        left, sign, base = np.abs(code), np.sign(code), 2**self.bits
        for t in range(self.n_digits):
            above = np.floor(left / base)
            yield self.step * (base - 1) * base**t, (left - base * above) * (sign / np.asarray(base - 1, x.dtype))
            left = above


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class DataPath:
    """The way of one layer's values.

    Parameters
    ----------
    operator
        The layer's operator.
    gains
        k of (1), by weight slice; they add up to one.
    w_span
        Weight that the whole range of a cell stands for, one a column.
    offset
        What the zero of each slice conducts, over the span `(n_slices, n_columns)`; None for pairs.
    x_span
        Input that is driven with the read voltage.
    dac, digits
        None for ideal inputs; for inputs that are not sliced.
    adcs
        `n_adcs`, or none for ideal ones.
    blocks
        Row blocks.
    conduction
        None for ohmic cells.
    by_tile
        Whether each row block's converters have a range of their own.
    """

    operator: MatrixOperator
    gains: tuple[float, ...]
    w_span: Array
    offset: Array | None
    x_span: float
    dac: SignalOperator | None
    digits: InputDigits | None
    adcs: tuple[SignalOperator, ...]
    blocks: tuple[Block, ...]
    conduction: Conducting | None = None
    by_tile: bool = False

    @property
    def n_adcs(self) -> int:
        """Settings of ADCs: one a weight slice, and with `by_tile` one a row block and slice, block by block."""
        return len(self.gains) * (len(self.blocks) if self.by_tile else 1)

    @property
    def n_reads(self) -> int:
        """Reads of one position: one an input slice."""
        return 1 if self.digits is None else self.digits.n_digits

    def driven(self, x: Array) -> Array:
        """Return the inputs that the rows are driven with."""
        return x if self.dac is None else self.dac.value(x)

    def activity(self, x: Array) -> Array:
        """Return `row_activity` of what rows are driven with, over all reads: each slice is driven over the full voltage."""
        driven = self.driven(x)
        if self.digits is None and self.conduction is None:
            return self.operator.row_activity(driven)
        draws = (lambda u: u) if self.conduction is None else self.conduction.power_drive
        return np.sum([self.operator.row_activity(draws(part) * np.float32(self.x_span)) for _, part in self._drives(driven)], axis=0)

    def _drives(self, driven: Array) -> Iterator[tuple[float, Array]]:
        """Yield the value of each read's full drive, and the relative drives, in -1..1 where inputs are as calibrated."""
        if self.digits is None:
            yield self.x_span, driven * np.asarray(1.0 / self.x_span, driven.dtype)
        else:
            yield from self.digits.split(driven)

    def _through_cells(self, driven: Array, drive: Callable[[Array], Array]) -> Array:
        """Return the input that ohmic cells would need, for what cells make of the relative drive of each read."""
        total = np.zeros_like(driven)
        for value, part in self._drives(driven):
            total += np.asarray(value, driven.dtype) * drive(part)
        return total

    def error_drive(self, driven: Array) -> Array:
        """Return what errors of the weights meet, for inputs that rows are driven with."""
        return driven if self.conduction is None else self._through_cells(driven, self.conduction.error_drive)

    def current_drive(self, x: Array) -> Array:
        """Return the inputs at which ohmic cells would conduct as much as the layer's do."""
        return x if self.conduction is None else self._through_cells(self.driven(x), self.conduction.current_drive)

    def ohmic(self) -> "DataPath":
        """Return the same way with cells that conduct in proportion to the voltage."""
        return replace(self, conduction=None)

    def local_terms(self, slices: Slices, driven: Array) -> list[tuple[Array, Array]]:
        """Return, for cells that conduct non-linearly, the weights of each term and what small changes of the inputs count there.

        Inputs in digits have no slope; they count what they make of the whole input.
        """
        assert self.conduction is not None  # the caller has looked
        if self.digits is None:
            slopes = self.conduction.read.shape_slopes(driven * np.asarray(1.0 / self.x_span, driven.dtype))
        else:
            seen = [self._through_cells(driven, lambda u, k=k: self.conduction.shapes(u)[k]) for k in range(self.n_terms)]  # type: ignore[misc,union-attr]
            slopes = tuple(np.divide(s, driven, out=np.ones_like(driven), where=driven != 0.0) for s in seen)
        return [(self._of_term(slices, k), slope) for k, slope in enumerate(slopes)]

    @property
    def n_terms(self) -> int:
        """Products that a partial sum is made of."""
        return 1 if self.conduction is None else self.conduction.read.n_terms

    def _of_term(self, slices: Slices, k: int) -> Array:
        n = len(self.gains)
        return total_of(slices[k * n : (k + 1) * n])

    def run(
        self, slices: Slices, x: Array, *, read: Slices | None = None, fresh: Fresh | None = None, keep: Keep | None = None
    ) -> Array:
        """Return y of (2) for stored weights; `read` are variances of each slice's weights at one read, with `fresh` normals.

        With `keep` each block's sum is what that returns; noise of reads without converters is added behind it.
        """
        driven = self.driven(x)
        if not self.adcs:
            y = self._unconverted(slices, driven, keep)
            return y if read is None or fresh is None else y + self._read_noise(total_of(read), driven, fresh)
        noise = None if read is None else self._squares(read)
        totals: dict[int, Array] = {}
        for number, (weight, at, s, z, base, xs, block) in enumerate(self._partial_sums(self._units(slices), driven)):
            if noise is not None and fresh is not None:
                spread = block.operator.multiply(block.weights(noise[s]), xs * xs)
                z += np.sqrt(spread, out=spread) * fresh(number, z.shape)
            part = self.adcs[at].value(z)
            if base is not None:
                part = part - self.adcs[at].value(base)
            part = part * np.asarray(weight, part.dtype)
            own = id(block) if keep is not None else 0
            totals[own] = part if own not in totals else totals[own] + part
        sums = [total * self._by_column(self.w_span, total) for total in totals.values()]
        return sums[0] if keep is None else total_of([keep(b, one) for b, one in enumerate(sums)])

    def _unconverted(self, slices: Slices, driven: Array, keep: Keep | None) -> Array:
        """Return y of (2) where any current is known."""
        if self.conduction is None:
            return block_sums(self.operator, self.blocks, self._of_term(slices, 0), driven, keep)
        totals: dict[int, Array] = {}

        def add(number: int, sums: Array) -> Array:
            totals[number] = sums if number not in totals else totals[number] + sums
            return sums

        for value, part in self._drives(driven):
            for k, shape in enumerate(self.conduction.shapes(part)):
                seen = shape * np.asarray(value, shape.dtype)
                if keep is None:
                    add(0, self.operator.multiply(self._of_term(slices, k), seen))
                else:
                    block_sums(self.operator, self.blocks, self._of_term(slices, k), seen, add)
        return totals[0] if keep is None else total_of([keep(b, one) for b, one in totals.items()])

    def _read_noise(self, variance: Array, driven: Array, fresh: Fresh) -> Array:
        spread = self.read_spread(variance, driven)
        return np.sqrt(spread, out=spread) * fresh(0, spread.shape)

    def read_spread(self, variance: Array, driven: Array) -> Array:
        """Return the variance of y for a variance of the weights at one read, which is fresh for each input slice."""
        if self.digits is None:
            seen = self.error_drive(driven)
            return self.operator.multiply(variance, seen * seen)
        squares = np.zeros_like(driven)
        for weight, part in self.digits.split(driven):
            squares += (np.float32(weight) * (part if self.conduction is None else self.conduction.error_drive(part))) ** 2
        return self.operator.multiply(variance, squares)

    def moments(
        self, slices: Slices, variances: Slices, x: Array, *, read: Slices | None = None, keep: Keep | None = None
    ) -> tuple[Array, Array]:
        """Return E y and the rest of (3), for slices of weights with means and variances; `keep` as of `run`."""
        driven = self.driven(x)
        if not self.adcs:
            y = self._unconverted(slices, driven, keep)
            return y, np.zeros_like(y)
        spreads = self._squares(tuple(v + r for v, r in zip(variances, read)) if read is not None else variances)
        totals: dict[int, Array] = {}
        rest = np.zeros(())
        parts = [self.x_span] if self.digits is None else [value for value, _ in self.digits.split(driven[..., :1])]
        least = NEGLIGIBLE * max(parts) * max(self.gains)
        for weight, at, s, z, base, xs, block in self._partial_sums(self._units(slices), driven):
            own = id(block) if keep is not None else 0
            if weight < least:
                part = self.adcs[at].value(z) if base is None else self.adcs[at].value(z) - self.adcs[at].value(base)
                totals[own] = totals.get(own, np.zeros(())) + weight * part
                continue
            v = block.operator.multiply(block.weights(spreads[s]), xs * xs)
            mean, variance, gain = self.adcs[at].moments(z, v)
            totals[own] = totals.get(own, np.zeros(())) + weight * (mean if base is None else mean - self.adcs[at].value(base))
            rest = rest + weight**2 * np.maximum(variance - gain**2 * v, 0.0)
        span = self._by_column(self.w_span, x).astype(np.float64)
        sums = [np.asarray(total * span, x.dtype) for total in totals.values()]
        return sums[0] if keep is None else total_of([keep(b, one) for b, one in enumerate(sums)]), np.asarray(rest * span**2, x.dtype)

    def signals(self, slices: Slices, x: Array) -> Iterator[tuple[int, Array]]:
        """Yield the number of each conversion's ADC and its signal, the unit column's too: what a range is chosen from."""
        for _, at, _, z, base, _, _ in self._partial_sums(self._units(slices), self.driven(x)):
            yield at, z
            if base is not None:
                yield at, base

    def _partial_sums(self, units: Slices, driven: Array) -> Iterator[tuple[float, int, int, Array, Array | None, Array, Block]]:
        """Yield each conversion's weight, its ADC, its slice, its signal z, what is taken away from it, what errors meet, its block."""
        n = len(self.gains)
        for value, part in self._drives(driven):
            for b, block in enumerate(self.blocks):
                xs = np.ascontiguousarray(part[block.channels])
                shapes = (xs,) if self.conduction is None else self.conduction.shapes(xs)
                seen = xs if self.conduction is None else self.conduction.error_drive(xs)
                ones = [] if self.offset is None else [block.operator.multiply(block.weights(np.ones_like(units[0])), h) for h in shapes]
                for s, gain in enumerate(self.gains):
                    z = block.operator.multiply(block.weights(units[s]), shapes[0])
                    for k in range(1, len(shapes)):
                        z = z + block.operator.multiply(block.weights(units[k * n + s]), shapes[k])
                    base = None
                    if ones:
                        base = self._by_column(self._zero(0, s), z) * ones[0]
                        for k in range(1, len(ones)):
                            base = base + self._by_column(self._zero(k, s), z) * ones[k]
                        z = z + base
                    yield value * gain, b * n + s if self.by_tile else s, s, z, base, seen, block

    def _zero(self, k: int, s: int) -> Array:
        """Return what the zero of slice s conducts by term k, over the span."""
        assert self.offset is not None  # the caller has looked
        if k == 0:
            return np.asarray(self.offset[s])
        assert self.conduction is not None  # there is a second term
        assert self.conduction.zeros is not None
        return np.asarray(self.conduction.zeros[k, s])

    def _units(self, slices: Slices) -> Slices:
        """Return weights in full scales: what they conduct over the span."""
        return tuple(w / self._over(gain).astype(w.dtype) for w, gain in zip(slices, self.gains * self.n_terms))

    def _squares(self, variances: Slices) -> Slices:
        return tuple((v / self._over(gain) ** 2).astype(np.float32) for v, gain in zip(variances, self.gains))

    def _over(self, gain: float) -> Array:
        span = np.where(self.w_span > 0.0, self.w_span, 1.0)
        return (gain * span).reshape(-1, *(1,) * (self.operator.weights.ndim - 1))

    def _by_column(self, values: Array, like: Array) -> Array:
        return values.reshape(-1, *(1,) * (like.ndim - 1)).astype(like.dtype)


def block_sums(operator: MatrixOperator, blocks: Sequence[Block], weights: Array, x: Array, keep: Keep | None) -> Array:
    """Return a product without bias as the sum of its row blocks, each after `keep`."""
    if keep is None:
        return operator.multiply(weights, x)
    parts = (block.operator.multiply(block.weights(weights), np.ascontiguousarray(x[block.channels])) for block in blocks)
    return total_of([keep(b, part) for b, part in enumerate(parts)])


def total_of(slices: Sequence[Array]) -> Array:
    """Return the weights that slices add up to."""
    total = slices[0]
    for part in slices[1:]:
        total = total + part
    return total
