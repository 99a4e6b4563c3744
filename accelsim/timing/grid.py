"""Which tokens of its inputs a token needs, and which it is the last to need: halo, stride, padding and fan-out as integers.

A value `(C, H, W)` is made pixel by pixel in rows, all channels of a pixel together; a token is up to `width` pixels of one row. With
token t of the consumer covering rows r, columns c0..c1 of its output, and a window of k with stride s, padding p and dilation d,

    need(t)    = 1 + index of the token that holds the window's last pixel  (r s - p + d (k-1),  c1 s - p + d (k-1)), inside the map    (1)
    release(t) = least index of a token that a later window still touches    (its first pixel, inside the map)                         (2)

(2) is a minimum over all later tokens: with padding, a later row may begin further back than an earlier one ended. Taps of a dilated
window are taken as if there were none missing between them: a token may wait for a pixel beside the last one it needs.
"""

from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from workloads.operators.base import Shape

Ints: TypeAlias = NDArray[np.int64]
Pair: TypeAlias = tuple[int, int]


@dataclass(frozen=True, slots=True, kw_only=True)
class Reach:
    """The window of an operator: what of its input map one pixel of its output depends on."""

    kernel: Pair
    stride: Pair
    dilation: Pair = (1, 1)
    pads: Pair = (0, 0)
    """Top and left."""


POINTWISE = Reach(kernel=(1, 1), stride=(1, 1))


@dataclass(frozen=True, slots=True, kw_only=True)
class Grid:
    """A map of pixels cut into tokens: `width` pixels of a row each, the last of a row fewer."""

    rows: int
    columns: int
    width: int

    @property
    def tokens_a_row(self) -> int:
        """Tokens of one row."""
        return -(-self.columns // self.width)

    @property
    def n_tokens(self) -> int:
        """Tokens of one image."""
        return self.rows * self.tokens_a_row

    @property
    def pixels(self) -> Ints:
        """Pixels of each token."""
        widths = np.full(self.tokens_a_row, self.width, np.int64)
        widths[-1] = self.columns - self.width * (self.tokens_a_row - 1)
        return np.tile(widths, self.rows)

    def token(self, row: Ints, column: Ints) -> Ints:
        """Return the tokens that hold pixels."""
        return row * self.tokens_a_row + column // self.width


def grid_size(shape: Shape) -> Pair:
    """Return rows and columns of a value: its last two axes; one row for a sequence, one pixel for a vector."""
    if len(shape) >= 3:
        return int(shape[-2]), int(shape[-1])
    return (1, int(shape[-1])) if len(shape) == 2 else (1, 1)


def needs(reach: Reach, made: Grid, read: Grid) -> tuple[Ints, Ints]:
    """Return (1) and (2) for each token of `made`, which reads the tokens of `read` through a window."""
    row = np.repeat(np.arange(made.rows, dtype=np.int64), made.tokens_a_row)
    first = np.tile(np.arange(made.tokens_a_row, dtype=np.int64) * made.width, made.rows)
    last = np.minimum(first + made.width, made.columns) - 1
    bottom, right = _last(row, 0, reach, read.rows), _last(last, 1, reach, read.columns)
    top, left = _first(row, 0, reach, read.rows), _first(first, 1, reach, read.columns)
    need = np.where((bottom < 0) | (right < 0), 0, 1 + read.token(np.maximum(bottom, 0), np.maximum(right, 0)))
    touched = read.token(top, left)
    release = np.empty_like(touched)
    release[-1] = read.n_tokens
    release[:-1] = np.minimum.accumulate(touched[::-1])[::-1][1:]
    return np.maximum.accumulate(need), release


def _last(place: Ints, axis: int, reach: Reach, size: int) -> Ints:
    """Return the last row (column) of the input that windows may touch; below 0 where all is padding."""
    end = place * reach.stride[axis] - reach.pads[axis] + reach.dilation[axis] * (reach.kernel[axis] - 1)
    return np.minimum(end, size - 1)


def _first(place: Ints, axis: int, reach: Reach, size: int) -> Ints:
    """Return the first row (column) of the input that windows may touch."""
    return np.clip(place * reach.stride[axis] - reach.pads[axis], 0, size - 1)


def whole(made: Grid, read: Grid) -> tuple[Ints, Ints]:
    """Return (1) and (2) where every token needs all of the input."""
    need = np.full(made.n_tokens, read.n_tokens, np.int64)
    release = np.zeros(made.n_tokens, np.int64)
    release[-1] = read.n_tokens
    return need, release
