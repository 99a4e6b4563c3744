"""Line resistance in an array: exact node voltages, and the conductances that an array seems to have.

The source of row i drives its word line through one segment; cell (i, j) joins word-line node w_ij to bit-line node u_ij; bit lines
end below the last row in one more segment to virtual ground. With g_w, g_b the conductances of segments, Kirchhoff's law at all nodes is

    T_w w - G u = g_w V e_0,     T_b u - G w = 0                                                          (1)

T_w (along rows) and T_b (along columns) are tridiagonal. Without w this is (T_b - G T_w^-1 G) u = G T_w^-1 g_w V e_0, symmetric and
positive definite, solved by conjugate gradients with T_b as preconditioner: two sweeps along lines an iteration, vectorized over the
others. A line without resistance is solved directly.

All inputs together see the effective conductances G_eff, I = V G_eff (`effective_matrix`, by elimination row after row). By reciprocity

    d I_c / d G_ij = a_ij b_ij,     a: voltage over the cell,   b: the same when output c is at 1 V and all inputs at ground      (2)

With small errors of the cells, the error of a column's current is that of its cells times (2) at the drive that is usual, b with each
word line replaced by the resistance back to its source: `ResistiveWires.gain`. What the cells of other columns add is left out.
"""

from dataclasses import dataclass, field
from typing import Any, ClassVar, Literal

import numpy as np
from scipy import linalg

from devices.base.errors import SpecError
from devices.base.jit import jit
from devices.base.toml_codec import about, check_types, raise_faults
from devices.law import ArrayMap, Values

Driven = Literal["one_end", "both_ends"]
TOLERANCE = 1e-12
"""Residual that is left, in the norm of the preconditioner, over that of the start from nothing."""
MAX_ITERATIONS = 5_000


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Solution:
    """Currents into ground `(n_columns,)`, node voltages `(n_rows, n_columns)` of word and bit lines, and iterations taken."""

    current_a: Values
    word_v: Values
    bit_v: Values
    n_iterations: int


def solve(
    conductance_siemens: Values, voltages_v: Values, *, word_ohm: float, bit_ohm: float, driven: Driven = "one_end",
    outputs_v: Values | None = None, start_v: Values | None = None, tolerance: float = TOLERANCE,
) -> Solution:  # fmt: skip
    """Solve (1) for one set of inputs `(n_rows,)`.

    `driven="both_ends"` ties both ends of a word line to its source, each through one segment. `outputs_v` `(n_columns,)` are voltages
    of the ends of the bit lines, ground by default; `start_v` are bit-line voltages to start from. Raises RuntimeError where
    `MAX_ITERATIONS` are not enough.
    """
    g, v = checked(conductance_siemens, voltages_v, word_ohm, bit_ohm)
    ends = np.zeros(g.shape[1]) if outputs_v is None else np.ascontiguousarray(outputs_v, np.float64)
    both = driven == "both_ends"
    if word_ohm == 0.0 and bit_ohm == 0.0:
        word, low = np.broadcast_to(v[:, None], g.shape), np.broadcast_to(ends, g.shape)
        return Solution(current_a=np.sum(g * (word - low), axis=0), word_v=word, bit_v=low, n_iterations=0)
    if word_ohm == 0.0:
        word = np.broadcast_to(v[:, None], g.shape)
        lines = _columns_alone(g, v, 1.0 / bit_ohm, ends)
        return Solution(current_a=(lines[-1] - ends) / bit_ohm, word_v=word, bit_v=lines, n_iterations=0)
    if bit_ohm == 0.0:
        word = _rows_alone(g, v, 1.0 / word_ohm, both, ends)
        return Solution(current_a=np.sum(g * (word - ends), axis=0), word_v=word, bit_v=np.broadcast_to(ends, g.shape), n_iterations=0)
    bit = np.zeros(g.shape) if start_v is None else np.array(start_v, np.float64)
    into = sources(g.shape, v, ends, 1.0 / word_ohm, 1.0 / bit_ohm, both)
    word, n = along_both(g, into, 1.0 / word_ohm, 1.0 / bit_ohm, both, tolerance=tolerance, bit=bit)
    return Solution(current_a=(bit[-1] - ends) / bit_ohm, word_v=word, bit_v=bit, n_iterations=n)


def along_both(
    g: Values, into: tuple[Values, Values], g_word: float, g_bit: float, both: bool, *, tolerance: float, bit: Values
) -> tuple[Values, int]:
    """Solve (1) for currents into word-line and bit-line nodes, from bit-line voltages `bit` and in place; return word lines, iterations.

    Raises RuntimeError where `MAX_ITERATIONS` are not enough.
    """
    word = np.empty(g.shape)
    n = int(_conjugate_gradients(g, into[0], into[1], g_word, g_bit, both, tolerance, MAX_ITERATIONS, bit, word))
    if n >= MAX_ITERATIONS:
        raise RuntimeError(
            f"wires: {n} iterations do not solve {g.shape[0]} x {g.shape[1]} cells of up to {g.max():g} S "
            f"with {1.0 / g_word:g} and {1.0 / g_bit:g} ohm a segment"
        )
    return word, n


def sources(shape: tuple[int, ...], v: Values, ends: Values, g_word: float, g_bit: float, both: bool) -> tuple[Values, Values]:
    """Return what flows into word-line nodes and into bit-line nodes when all nodes are at ground, `(n_rows, n_columns)` each."""
    into_word, into_bit = np.zeros(shape), np.zeros(shape)
    into_word[:, 0] += g_word * v
    if both:
        into_word[:, -1] += g_word * v
    into_bit[-1] += g_bit * ends
    return into_word, into_bit


def checked(conductance: Values, voltages: Values, word_ohm: float, bit_ohm: float) -> tuple[Values, Values]:
    g, v = np.ascontiguousarray(conductance, np.float64), np.ascontiguousarray(voltages, np.float64)
    if g.ndim != 2 or v.shape != g.shape[:1]:
        raise ValueError(f"need conductances (n_rows, n_columns) and voltages (n_rows,), got {g.shape} and {v.shape}")
    if not (word_ohm >= 0.0 and bit_ohm >= 0.0 and np.all(g >= 0.0) and np.all(np.isfinite(g))):
        raise SpecError(f"word_ohm: {word_ohm:g}, bit_ohm: {bit_ohm:g}: need resistances of at least 0, and no conductance below it")
    return g, v


def _columns_alone(g: Values, v: Values, g_bit: float, ends: Values) -> Values:
    """Return bit-line voltages for word lines that are held at `v`."""
    right = g * v[:, None]
    right[-1] += g_bit * ends
    return along_columns(g, g_bit, right)


def along_columns(g: Values, g_bit: float, into: Values) -> Values:
    """Return bit-line voltages for currents into their nodes, word lines being at ground."""
    inverse, carry, x = np.empty(g.shape), np.empty(g.shape), np.empty(g.shape)
    _factor_columns(g, g_bit, carry, inverse)
    _solve_columns(carry, inverse, g_bit, into, x)
    return x


def _rows_alone(g: Values, v: Values, g_word: float, both: bool, ends: Values) -> Values:
    """Return word-line voltages for bit lines that are held at `ends`."""
    right = g * ends
    right[:, 0] += g_word * v
    if both:
        right[:, -1] += g_word * v
    return along_rows(g, g_word, both, right)


def along_rows(g: Values, g_word: float, both: bool, into: Values) -> Values:
    """Return word-line voltages for currents into their nodes, bit lines being at ground."""
    transposed = np.ascontiguousarray(g.T)
    inverse, carry, x = np.empty(transposed.shape), np.empty(transposed.shape), np.empty(transposed.shape)
    _factor_rows(transposed, g_word, both, carry, inverse)
    _solve_columns(carry, inverse, g_word, np.ascontiguousarray(into.T), x)
    return np.ascontiguousarray(x.T)


@jit()
def _factor_columns(g: Any, g_bit: float, carry: Any, inverse: Any) -> None:
    n, m = g.shape
    for i in range(n):
        for j in range(m):
            d = (2.0 * g_bit if i > 0 else g_bit) + g[i, j]
            if i > 0:
                d += g_bit * carry[i - 1, j]
            inverse[i, j] = 1.0 / d
            carry[i, j] = -g_bit * inverse[i, j]


@jit()
def _factor_rows(g: Any, g_word: float, both: bool, carry: Any, inverse: Any) -> None:
    """The same along word lines, which are stored as columns here."""
    n, m = g.shape
    for i in range(n):
        for j in range(m):
            d = (2.0 * g_word if i < n - 1 or both else g_word) + g[i, j]
            if i > 0:
                d += g_word * carry[i - 1, j]
            inverse[i, j] = 1.0 / d
            carry[i, j] = -g_word * inverse[i, j]


@jit(fastmath=True)
def _solve_columns(carry: Any, inverse: Any, conductance: float, right: Any, x: Any) -> None:
    """Solve all tridiagonal systems along the first axis at once."""
    n, m = right.shape
    for j in range(m):
        x[0, j] = right[0, j] * inverse[0, j]
    for i in range(1, n):
        for j in range(m):
            x[i, j] = (right[i, j] + conductance * x[i - 1, j]) * inverse[i, j]
    for i in range(n - 2, -1, -1):
        for j in range(m):
            x[i, j] -= carry[i, j] * x[i + 1, j]


@jit(fastmath=True)
def _transpose(a: Any, b: Any) -> None:
    n, m = a.shape
    for i0 in range(0, n, 32):
        for j0 in range(0, m, 32):
            for i in range(i0, min(i0 + 32, n)):
                for j in range(j0, min(j0 + 32, m)):
                    b[j, i] = a[i, j]


@jit(fastmath=True)
def _conjugate_gradients(
    g: Any, into_word: Any, into_bit: Any, g_word: float, g_bit: float, both: bool, tolerance: float, max_iterations: int, x: Any, word: Any
) -> int:
    """Solve for bit-line voltages x, from x, for currents into all nodes; leave word-line voltages in `word`, return the iterations."""
    n, m = g.shape
    gt = np.empty((m, n))
    _transpose(g, gt)
    cb, ib = np.empty((n, m)), np.empty((n, m))
    cw, iw = np.empty((m, n)), np.empty((m, n))
    _factor_columns(g, g_bit, cb, ib)
    _factor_rows(gt, g_word, both, cw, iw)
    t1, t2, w0 = np.empty((m, n)), np.empty((m, n)), np.empty((n, m))
    _transpose(into_word, t1)
    _solve_columns(cw, iw, g_word, t1, t2)
    _transpose(t2, w0)  # word lines with bit lines at ground
    q, z, p, t3 = np.empty((n, m)), np.empty((n, m)), np.empty((n, m)), np.empty((n, m))
    right = g * w0 + into_bit
    _solve_columns(cb, ib, g_bit, right, z)
    start = 0.0
    for i in range(n):
        for j in range(m):
            start += right[i, j] * z[i, j]
    rz, it, going = 0.0, 0, False
    r = right
    for j in range(m):
        for i in range(n):
            going = going or x[i, j] != 0.0
    p[:] = x
    first = going  # a start: its residual comes from one application
    if not going:
        rz = start
        p[:] = z
    while it < max_iterations and start > 0.0:
        for i in range(n):
            for j in range(m):
                t3[i, j] = g[i, j] * p[i, j]
        _transpose(t3, t1)
        _solve_columns(cw, iw, g_word, t1, t2)
        _transpose(t2, t3)
        pq = 0.0
        for i in range(n):
            for j in range(m):
                s = ((2.0 * g_bit if i > 0 else g_bit) + g[i, j]) * p[i, j] - g[i, j] * t3[i, j]
                if i > 0:
                    s -= g_bit * p[i - 1, j]
                if i < n - 1:
                    s -= g_bit * p[i + 1, j]
                q[i, j] = s
                pq += s * p[i, j]
        if first:
            r -= q
        else:
            it += 1
            step = rz / pq
            for i in range(n):
                for j in range(m):
                    x[i, j] += step * p[i, j]
                    r[i, j] -= step * q[i, j]
        _solve_columns(cb, ib, g_bit, r, z)
        left = 0.0
        for i in range(n):
            for j in range(m):
                left += r[i, j] * z[i, j]
        if left <= tolerance * tolerance * start:
            break
        ratio = 0.0 if first else left / rz
        first = False
        rz = left
        for i in range(n):
            for j in range(m):
                p[i, j] = z[i, j] + ratio * p[i, j]
    for i in range(n):
        for j in range(m):
            t3[i, j] = g[i, j] * x[i, j]
    _transpose(t3, t1)
    _solve_columns(cw, iw, g_word, t1, t2)
    _transpose(t2, word)
    word += w0
    return it


def effective_matrix(conductance_siemens: Values, *, word_ohm: float, bit_ohm: float, driven: Driven = "one_end") -> Values:
    """Return the conductances `(n_rows, n_columns)` that all inputs see, I = V G_eff; by elimination row after row.

    Bit-line nodes of row i hang on those of the rows above and below, and on their word line:
    S_i = T_b,i - G_i T_w^-1 G_i - g_b^2 S_{i-1}^-1.
    """
    g, _ = checked(conductance_siemens, np.zeros(len(conductance_siemens)), word_ohm, bit_ohm)
    n, m = g.shape
    both = driven == "both_ends"
    if word_ohm == 0.0 and bit_ohm == 0.0:
        return g
    if bit_ohm == 0.0:
        return g * _rows_alone(g, np.ones(n), 1.0 / word_ohm, both, np.zeros(m))
    g_bit = 1.0 / bit_ohm
    if word_ohm == 0.0:
        return _columns_only(g, g_bit)
    g_word = 1.0 / word_ohm
    rows = np.zeros((n, m))
    above = np.zeros((m, m))
    solved = np.zeros((m, m))
    for i in range(n):
        band = np.zeros((2, m))
        band[1] = 2.0 * g_word + g[i]
        band[1, -1] -= 0.0 if both else g_word
        band[0, 1:] = -g_word
        along = linalg.solveh_banded(band if m > 1 else band[1:], np.diag(g[i]), overwrite_ab=True, check_finite=False)
        s = np.diag((2.0 * g_bit if i > 0 else g_bit) + g[i]) - g[i][:, None] * along
        if i > 0:
            s -= g_bit**2 * above
            rows[:i] = g_bit * (rows[:i] @ above)
        rows[i] = g_word * (along[0] + along[-1] if both else along[0])
        if i < n - 1:
            above = linalg.inv(s, overwrite_a=True, check_finite=False)
        else:
            solved = linalg.solve(s, rows.T, assume_a="pos", check_finite=False)
    return np.ascontiguousarray(solved.T) * g_bit


def _columns_only(g: Values, g_bit: float) -> Values:
    """Bit lines alone: by reciprocity, what 1 V at an output does to each cell of its column."""
    return g * _columns_alone(g, np.zeros(len(g)), g_bit, np.ones(g.shape[1]))


_OHM = "Resistance of one segment, from cell to cell, of a"


@dataclass(frozen=True, slots=True, kw_only=True)
class ResistiveWires(ArrayMap):
    """Word and bit lines with resistance."""

    kind: ClassVar[str] = "resistive"
    word_ohm: float = field(metadata=about(f"{_OHM} word line (row).", at_least=0.0))
    bit_ohm: float = field(metadata=about(f"{_OHM} bit line (column).", at_least=0.0))
    driven: Driven = field(default="one_end", metadata=about("Where word lines meet their sources."))

    def __post_init__(self) -> None:
        raise_faults(check_types(self))

    def apply(self, conductance_siemens: Values) -> Values:
        return effective_matrix(conductance_siemens, word_ohm=self.word_ohm, bit_ohm=self.bit_ohm, driven=self.driven)

    def _solved(self, g: Values, inputs: Values, outputs: Values) -> Values:
        """Return the voltage over each cell."""
        found = solve(g, inputs, word_ohm=self.word_ohm, bit_ohm=self.bit_ohm, driven=self.driven, outputs_v=outputs)
        return found.word_v - found.bit_v

    def vjp(self, conductance_siemens: Values, delta: Values) -> Values:
        """Return sum_kc delta_kc d G_eff,kc / d G_ij, exactly by (2): one solution for each input and each output."""
        n, m = conductance_siemens.shape
        inputs = np.stack([self._solved(conductance_siemens, row, np.zeros(m)) for row in np.eye(n)])
        outputs = np.stack([-self._solved(conductance_siemens, np.zeros(n), column) for column in np.eye(m)])
        return np.einsum("kij,kc,cij->ij", inputs, delta, outputs, optimize=True)

    def gain(self, conductance_siemens: Values, drive: Values | None = None) -> Values:
        """Return by how much a cell's error counts in its column's current, over its own input, at a usual drive (all alike)."""
        g = np.ascontiguousarray(conductance_siemens, np.float64)
        n, m = g.shape
        drive = np.ones(n) if drive is None else drive
        over = self._solved(g, drive, np.zeros(m)) / np.where(drive > 0.0, drive, 1.0)[:, None]
        at = np.arange(1.0, m + 1.0)
        behind = self.word_ohm * (at if self.driven == "one_end" else at * (m + 1.0 - at) / (m + 1.0))
        in_series = g / (1.0 + g * behind)
        lifted = np.ones(g.shape) if self.bit_ohm == 0.0 else _columns_alone(in_series, np.zeros(n), 1.0 / self.bit_ohm, np.ones(m))
        return np.where(drive[:, None] > 0.0, over, 0.0) * lifted / (1.0 + g * behind)
