"""Which tokens of its inputs a token needs, and which it is the last to need: halo, stride, padding and fan-out as integers.

A value `(C, H, W)` is made pixel by pixel in rows, all channels of a pixel together; a token is up to `width` pixels of one row. Where
an output pixel depends on the input rows first..last and columns first..last (inside the map),

    need(t)    = 1 + index of the token that holds the last pixel that token t depends on                                    (1)
    release(t) = least index of a token that a later one depends on                                                         (2)

(2) is a minimum over all later tokens: with padding, a later row may begin further back than an earlier one ended. Taps of a dilated
window are taken as if there were none missing between them: a token may wait for a pixel beside the last one it needs.
"""

from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_array

from workloads.operators.base import Shape

Ints: TypeAlias = NDArray[np.int64]
Pair: TypeAlias = tuple[int, int]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Span:
    """What each row (column) of an output depends on: the rows (columns) `first..last` of the input; last < 0 where all is padding."""

    first: Ints
    last: Ints

    @classmethod
    def window(cls, n_out: int, n_in: int, *, kernel: int, stride: int, dilation: int = 1, pad: int = 0) -> "Span":
        """Return the span of a sliding window with `pad` before the first place."""
        start = np.arange(n_out, dtype=np.int64) * stride - pad
        return cls.clipped(start, start + dilation * (kernel - 1), n_in)

    @classmethod
    def transposed(cls, n_out: int, n_in: int, *, kernel: int, stride: int, dilation: int = 1, pad: int = 0) -> "Span":
        """Return the span of a transposed window: input i reaches outputs `i stride - pad + dilation a`."""
        place = np.arange(n_out, dtype=np.int64) + pad
        return cls.clipped(-((dilation * (kernel - 1) - place) // stride), place // stride, n_in)

    @classmethod
    def of_matrix(cls, matrix: csr_array) -> "Span":
        """Return the span of an interpolation `(n_out, n_in)`."""
        rows = [matrix.indices[a:b] for a, b in zip(matrix.indptr[:-1], matrix.indptr[1:])]
        first = np.array([row.min(initial=matrix.shape[1] - 1) for row in rows], np.int64)
        return cls(first=first, last=np.array([row.max(initial=-1) for row in rows], np.int64))

    @classmethod
    def same(cls, n: int) -> "Span":
        """Return the span of what acts on each place alone."""
        return cls.window(n, n, kernel=1, stride=1)

    @classmethod
    def clipped(cls, first: Ints, last: Ints, n_in: int) -> "Span":
        """Return spans inside `0..n_in - 1`."""
        return cls(first=np.clip(first, 0, n_in - 1), last=np.minimum(last, n_in - 1))


    def through(self, inner: "Span") -> "Span":
        """Return the span over what `inner` depends on, of places that depend on those of `inner`."""
        first, last = np.empty_like(self.first), np.empty_like(self.last)
        for i, (a, b) in enumerate(zip(self.first.tolist(), self.last.tolist())):
            first[i] = inner.first[a : max(a, b) + 1].min()
            last[i] = inner.last[a : b + 1].max() if b >= a else -1
        return Span(first=first, last=last)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Reach:
    """What each pixel of an output depends on."""

    rows: Span
    columns: Span

    def through(self, inner: "Reach") -> "Reach":
        """Return what each pixel depends on of what `inner` depends on."""
        return Reach(rows=self.rows.through(inner.rows), columns=self.columns.through(inner.columns))


@dataclass(frozen=True, slots=True, kw_only=True)
class Grid:
    """A map of pixels cut into tokens: `width` pixels of a row each, the last of a row fewer; or all of the map as one token."""

    rows: int
    columns: int
    width: int
    is_one: bool = False

    @property
    def tokens_a_row(self) -> int:
        """Tokens of one row."""
        return 1 if self.is_one else -(-self.columns // self.width)

    @property
    def n_tokens(self) -> int:
        """Tokens of one image."""
        return 1 if self.is_one else self.rows * self.tokens_a_row

    @property
    def pixels(self) -> Ints:
        """Pixels of each token."""
        if self.is_one:
            return np.full(1, self.rows * self.columns, np.int64)
        widths = np.full(self.tokens_a_row, self.width, np.int64)
        widths[-1] = self.columns - self.width * (self.tokens_a_row - 1)
        return np.tile(widths, self.rows)

    def token(self, row: Ints, column: Ints) -> Ints:
        """Return the tokens that hold pixels."""
        if self.is_one:
            return np.zeros(np.broadcast(row, column).shape, np.int64)
        return row * self.tokens_a_row + column // self.width


def grid_size(shape: Shape) -> Pair:
    """Return rows and columns of a value: its last two axes; one row for a sequence, one pixel for a vector."""
    if len(shape) >= 3:
        return int(shape[-2]), int(shape[-1])
    return (1, int(shape[-1])) if len(shape) == 2 else (1, 1)


def needs(reach: Reach, made: Grid, read: Grid) -> tuple[Ints, Ints]:
    """Return (1) and (2) for each token of `made`, which reads the tokens of `read`."""
    if made.is_one:
        return whole(made, read)
    row = np.repeat(np.arange(made.rows, dtype=np.int64), made.tokens_a_row)
    start = np.arange(made.tokens_a_row, dtype=np.int64) * made.width
    right = np.tile(np.maximum.reduceat(reach.columns.last, start), made.rows)
    left = np.tile(np.minimum.reduceat(reach.columns.first, start), made.rows)
    bottom, top = reach.rows.last[row], reach.rows.first[row]
    need = np.where((bottom < 0) | (right < 0), 0, 1 + read.token(np.maximum(bottom, 0), np.maximum(right, 0)))
    touched = read.token(top, left)
    release = np.empty_like(touched)
    release[-1] = read.n_tokens
    release[:-1] = np.minimum.accumulate(touched[::-1])[::-1][1:]
    return np.maximum.accumulate(need), release


def whole(made: Grid, read: Grid) -> tuple[Ints, Ints]:
    """Return (1) and (2) where every token needs all of the input."""
    need = np.full(made.n_tokens, read.n_tokens, np.int64)
    release = np.zeros(made.n_tokens, np.int64)
    release[-1] = read.n_tokens
    return need, release
