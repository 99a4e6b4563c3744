"""An array of cells whose current is not in proportion to their voltage, with resistive lines: node voltages by Newton's method.

With I the current through each cell at the voltage over it, w - u, and L_w, L_b what the segments of word and bit lines conduct,

    L_w w + I(w - u) = s_w,     L_b u - I(w - u) = s_b                                                    (1)

Currents rise with voltages, so (1) is the gradient of a convex function and has one solution. Each step of Newton solves the linear array
(1) of `devices.wires` with the slopes dI/dv for conductances and the residuals of Kirchhoff's law for sources, by the same conjugate
gradients; it is halved until the residual falls.
"""

from dataclasses import dataclass

import numpy as np

from devices.law import ConductionLaw, Values
from devices.wires import Driven, Solution, along_both, along_columns, along_rows, checked, solve, sources

MAX_STEPS, MAX_HALVINGS = 100, 40
SETTLED = 1e-13
"""Largest change of a voltage, over the largest that is applied, after which there is no further step."""
INNER_TOLERANCE = 1e-10


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class NonlinearSolution(Solution):
    """Currents, node voltages and inner iterations as of a linear array; `n_steps` of Newton's method."""

    n_steps: int


def solve_nonlinear(
    law: ConductionLaw, conductance_siemens: Values, voltages_v: Values, *,
    word_ohm: float, bit_ohm: float, driven: Driven = "one_end", start: Solution | None = None,
) -> NonlinearSolution:  # fmt: skip
    """Solve (1) for one set of inputs `(n_rows,)`, bit lines ending at ground.

    `start` is a solution to start from (the last trial's); by default that of ohmic cells which conduct what theirs do at the full input.
    Raises RuntimeError where `MAX_STEPS` are not enough.
    """
    g, v = checked(conductance_siemens, voltages_v, word_ohm, bit_ohm)
    ground = np.zeros(g.shape[1])
    array = _Array(law=law, g=g, v=v, g_word=_inverse(word_ohm), g_bit=_inverse(bit_ohm), both=driven == "both_ends")
    if start is None:
        over = np.where(v == 0.0, 1.0, v)[:, None]
        secant = np.where(v[:, None] == 0.0, law.slope_siemens(g, np.zeros_like(over)), law.current_a(g, over) / over)
        start = solve(secant, v, word_ohm=word_ohm, bit_ohm=bit_ohm, driven=driven, outputs_v=ground)
    word, bit = np.array(start.word_v, np.float64), np.array(start.bit_v, np.float64)
    largest, n_inner = float(np.max(np.abs(v), initial=0.0)), 0
    for step in range(MAX_STEPS):
        size, iterations = array.improve(word, bit)
        n_inner += iterations
        if size <= SETTLED * largest:
            through = law.current_a(g, word - bit)
            return NonlinearSolution(current_a=through.sum(axis=0), word_v=word, bit_v=bit, n_iterations=n_inner, n_steps=step + 1)
    raise RuntimeError(
        f"wires: {MAX_STEPS} steps of Newton's method do not solve {g.shape[0]} x {g.shape[1]} cells ({law.kind}) at up to {largest:g} V; "
        "the voltages may be far beyond what the law was made for"
    )


def _inverse(ohm: float) -> float:
    """Return the conductance of a segment; 0 stands for a line without resistance."""
    return 0.0 if ohm == 0.0 else 1.0 / ohm


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class _Array:
    """An array and its inputs; `g_word`, `g_bit` of 0 are lines without resistance, whose voltages are given."""

    law: ConductionLaw
    g: Values
    v: Values
    g_word: float
    g_bit: float
    both: bool

    def improve(self, word: Values, bit: Values) -> tuple[float, int]:
        """Do one step of Newton's method in place; return the largest change of a voltage, and the inner iterations."""
        residual = self._residual(word, bit)
        before = _norm(residual)
        d_word, d_bit, n = self._step(self.law.slope_siemens(self.g, word - bit), residual)
        share = 1.0
        size = float(max(np.abs(d_word).max(), np.abs(d_bit).max()))
        for _ in range(MAX_HALVINGS):
            with np.errstate(over="ignore", invalid="ignore"):
                after = _norm(self._residual(word + share * d_word, bit + share * d_bit))
            if after < before or share * size <= SETTLED * float(np.abs(self.v).max()):
                break
            share *= 0.5
        word += share * d_word
        bit += share * d_bit
        return share * size, n

    def _step(self, slopes: Values, residual: tuple[Values, Values]) -> tuple[Values, Values, int]:
        """Return the changes of voltages that bring the linearized residual to zero."""
        still = np.zeros(self.g.shape)
        if self.g_word and self.g_bit:
            d_bit = np.zeros(self.g.shape)
            d_word, n = along_both(slopes, residual, self.g_word, self.g_bit, self.both, tolerance=INNER_TOLERANCE, bit=d_bit)
            return d_word, d_bit, n
        if self.g_bit:
            return still, along_columns(slopes, self.g_bit, residual[1]), 0
        return (along_rows(slopes, self.g_word, self.both, residual[0]) if self.g_word else still), still, 0

    def _residual(self, word: Values, bit: Values) -> tuple[Values, Values]:
        """Return the currents that flow into each node and not out of it, word and bit lines; none where a line is held."""
        through = self.law.current_a(self.g, word - bit)
        into_word, into_bit = sources(self.g.shape, self.v, np.zeros(self.g.shape[1]), self.g_word, self.g_bit, self.both)
        if self.g_word:
            into_word -= through + self.g_word * word * _ends(self.g.shape[1], self.both)
            along = self.g_word * np.diff(word, axis=1)
            into_word[:, :-1] += along
            into_word[:, 1:] -= along
        if self.g_bit:
            into_bit += through
            into_bit[-1] -= self.g_bit * bit[-1]
            along = self.g_bit * np.diff(bit, axis=0)
            into_bit[:-1] += along
            into_bit[1:] -= along
        return into_word if self.g_word else np.zeros(self.g.shape), into_bit if self.g_bit else np.zeros(self.g.shape)


def _ends(n_columns: int, both: bool) -> Values:
    """Return how many segments to a source each node of a word line has."""
    ends = np.zeros(n_columns)
    ends[0] += 1.0
    ends[-1] += float(both)
    return ends


def _norm(residual: tuple[Values, Values]) -> float:
    found = float(np.sqrt(np.sum(residual[0] ** 2) + np.sum(residual[1] ** 2)))
    return found if found == found else np.inf
