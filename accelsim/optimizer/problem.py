"""The two budgets of a design as functions of its scale factors, and the records of an answer.

With c_k the conductance per unit weight of group k (a layer or a column) and u_k = 1/c_k > 0,

    MSE(u) = q2 + 2 l.u + ||F u||^2 + sum_k A_k u_k^2                                  (1)
    P(c)   = P0 + sum_k (B_k c_k + D_k c_k^2) = P0 + sum_k (B_k / u_k + D_k / u_k^2)   (2)

both convex in u, on the box c_min_k <= c_k <= c_max_k.
"""

import hashlib
from dataclasses import dataclass, replace
from typing import Literal, Self

import numpy as np
from numpy.typing import ArrayLike, NDArray

from devices.base.errors import SpecError

Vector = NDArray[np.float64]
Matrix = NDArray[np.float64]
Mask = NDArray[np.bool_]
Side = Literal["mse", "power"]


def _frozen(values: ArrayLike, *, name: str, ndim: int) -> NDArray[np.float64]:
    """Copy to a read-only float array of `ndim` dimensions; refuse NaN and infinity."""
    array = np.array(values, dtype=np.float64)
    if array.ndim != ndim:
        raise SpecError(f"need {name} of {ndim} dimension(s), got shape {array.shape}; reshape it")
    if not np.isfinite(array).all():
        raise SpecError(f"need finite {name}, got {array[~np.isfinite(array)][0]} at flat index {np.flatnonzero(~np.isfinite(array))[0]}")
    array.setflags(write=False)
    return array


def _non_negative(value: float, *, name: str) -> float:
    if not (np.isfinite(value) and value >= 0.0):
        raise SpecError(f"need finite {name} >= 0, got {value:g}")
    return float(value)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class BiasModel:
    """Squared bias of the outputs: the mean over (input, output) pairs of ||q + sum_k b_k u_k||^2 = q2 + 2 l.u + ||F u||^2.

    Parameters
    ----------
    q2
        Mean of q^2: what stays when every conductance is infinite (quantization).
    linear_siemens
        l_k = mean of q b_k, (K,); None: no clipping bias beside a constant, or orthogonal to it.
    factor_siemens
        F of shape (R, K) with F'F = mean of b_k b_k' (R small: a product costs R K); None: no clipping bias.
    """

    q2: float = 0.0
    linear_siemens: Vector | None = None
    factor_siemens: Matrix | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "q2", _non_negative(self.q2, name="q2"))
        if self.linear_siemens is not None:
            object.__setattr__(self, "linear_siemens", _frozen(self.linear_siemens, name="linear_siemens", ndim=1))
        if self.factor_siemens is not None:
            object.__setattr__(self, "factor_siemens", _frozen(self.factor_siemens, name="factor_siemens", ndim=2))

    @classmethod
    def from_gram(cls, q2: float, linear_siemens: ArrayLike, *, gram_siemens2: ArrayLike) -> Self:
        """Factor a Gram matrix mean(b_k b_k') of shape (K, K) by eigenvalues, dropping those at rounding error.

        Raises SpecError where the matrix is not symmetric and positive semidefinite to rounding error.
        """
        gram = _frozen(gram_siemens2, name="gram_siemens2", ndim=2)
        if gram.shape[0] != gram.shape[1]:
            raise SpecError(f"need a square gram_siemens2, got shape {gram.shape}")
        values, vectors = np.linalg.eigh((gram + gram.T) / 2)
        rounding = len(gram) * np.finfo(float).eps * np.abs(values).max(initial=0.0)
        if np.abs(gram - gram.T).max(initial=0.0) > rounding or values.min(initial=0.0) < -8 * rounding:
            raise SpecError(
                f"need gram_siemens2 symmetric with eigenvalues >= 0, got least eigenvalue {values.min(initial=0.0):g} "
                f"and largest {values.max(initial=0.0):g}; compute it as B'B in double precision"
            )
        keep = values > rounding
        return cls(
            q2=q2,
            linear_siemens=_frozen(linear_siemens, name="linear_siemens", ndim=1),
            factor_siemens=np.sqrt(values[keep])[:, None] * vectors.T[keep],
        )

    def bias2(self, u_per_siemens: Vector) -> NDArray[np.float64]:
        """2 l.u + ||F u||^2, without q2; shape (..., K) gives (...)."""
        total = np.zeros(u_per_siemens.shape[:-1])
        if self.linear_siemens is not None:
            total = total + 2.0 * (u_per_siemens @ self.linear_siemens)
        if self.factor_siemens is not None:
            total = total + ((u_per_siemens @ self.factor_siemens.T) ** 2).sum(axis=-1)
        return total

    def biased(self, n_groups: int) -> Mask:
        """Which groups have a column of F that is not zero, (K,)."""
        if self.factor_siemens is None:
            return np.zeros(n_groups, dtype=bool)
        return np.asarray(self.factor_siemens.any(axis=0))

    @property
    def is_constant(self) -> bool:
        """Whether q2 is all there is (no clipping)."""
        return self.linear_siemens is None and self.factor_siemens is None


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Problem:
    """Coefficients of (1) and (2) with the bounds of every scale factor.

    Parameters
    ----------
    variance_siemens2
        A_k >= 0, (K,): group k adds A_k / c_k^2 to the MSE.
    linear_w_per_siemens, square_w_per_siemens2
        B_k, D_k >= 0, (K,): group k draws B_k c_k + D_k c_k^2 watts. D None: zero.
    c_min_siemens, c_max_siemens
        Bounds of c_k (siemens per unit weight), 0 < c_min <= c_max, (K,).
    p0_w
        Power that no scale factor moves.
    bias
        Squared bias as a function of u = 1/c; by default none.

    Without groups (no layer is in a crossbar) both budgets are constants.
    Raises SpecError for shapes that differ, negative coefficients, crossed bounds, and for a biased group without variance
    and without power (its optimum is not unique).
    """

    variance_siemens2: Vector
    linear_w_per_siemens: Vector
    c_min_siemens: Vector
    c_max_siemens: Vector
    square_w_per_siemens2: Vector | None = None
    p0_w: float = 0.0
    bias: BiasModel = BiasModel()

    def __post_init__(self) -> None:
        for name in ("variance_siemens2", "linear_w_per_siemens", "c_min_siemens", "c_max_siemens"):
            object.__setattr__(self, name, _frozen(getattr(self, name), name=name, ndim=1))
        square = np.zeros(self.n_groups) if self.square_w_per_siemens2 is None else self.square_w_per_siemens2
        object.__setattr__(self, "square_w_per_siemens2", _frozen(square, name="square_w_per_siemens2", ndim=1))
        object.__setattr__(self, "p0_w", _non_negative(self.p0_w, name="p0_w"))
        self._check_shapes()
        self._check_values()

    def _check_shapes(self) -> None:
        widths = {
            "linear_w_per_siemens": len(self.linear_w_per_siemens),
            "square_w_per_siemens2": len(self.square),
            "c_min_siemens": len(self.c_min_siemens),
            "c_max_siemens": len(self.c_max_siemens),
        }
        if self.bias.linear_siemens is not None:
            widths["bias.linear_siemens"] = len(self.bias.linear_siemens)
        if self.bias.factor_siemens is not None:
            widths["bias.factor_siemens"] = self.bias.factor_siemens.shape[1]
        for name, width in widths.items():
            if width != self.n_groups:
                raise SpecError(f"need {name} for the {self.n_groups} groups of variance_siemens2, got {width}; give one value a group")

    def _check_values(self) -> None:
        for name in ("variance_siemens2", "linear_w_per_siemens", "square_w_per_siemens2"):
            values = getattr(self, name)
            if values.min(initial=0.0) < 0.0:
                raise SpecError(f"need {name} >= 0, got {values.min():g} for group {values.argmin()}")
        crossed = ~((self.c_min_siemens > 0.0) & (self.c_min_siemens <= self.c_max_siemens))
        if crossed.any():
            k = int(crossed.argmax())
            raise SpecError(
                f"need 0 < c_min_siemens <= c_max_siemens, got {self.c_min_siemens[k]:g} S and {self.c_max_siemens[k]:g} S for group {k}"
            )
        loose = self.bias.biased(self.n_groups) & (self.variance_siemens2 == 0.0) & ~self.costly
        if loose.any():
            raise SpecError(f"need A, B or D > 0 for group {loose.argmax()}, which has bias, got 0: no unique optimum; leave it out")

    @property
    def n_groups(self) -> int:
        """K."""
        return len(self.variance_siemens2)

    @property
    def square(self) -> Vector:
        """D_k, never None."""
        assert self.square_w_per_siemens2 is not None  # set in __post_init__
        return self.square_w_per_siemens2

    @property
    def costly(self) -> Mask:
        """Groups whose scale moves the power: B_k > 0 or D_k > 0."""
        return (self.linear_w_per_siemens > 0.0) | (self.square > 0.0)

    @property
    def digest(self) -> str:
        """SHA-256 of all coefficients, in hexadecimal."""
        arrays = (
            self.variance_siemens2,
            self.linear_w_per_siemens,
            self.square,
            self.c_min_siemens,
            self.c_max_siemens,
            np.array([self.p0_w, self.bias.q2]),
            self.bias.linear_siemens,
            self.bias.factor_siemens,
        )
        seal = hashlib.sha256()
        for array in arrays:
            seal.update(b"absent" if array is None else repr(array.shape).encode() + array.tobytes())
        return seal.hexdigest()

    def moved(self, mse: float, power_w: float) -> "Problem":
        """Return the problem with so much more error and power that no scale changes."""
        bias = self.bias
        shifted = BiasModel(q2=max(bias.q2 + mse, 0.0), linear_siemens=bias.linear_siemens, factor_siemens=bias.factor_siemens)
        return replace(self, bias=shifted, p0_w=max(self.p0_w + power_w, 0.0))

    def mse_excess(self, c_siemens: Vector) -> NDArray[np.float64]:
        """MSE - q2 of designs c, shape (..., K) gives (...); equation (1)."""
        u = 1.0 / c_siemens
        return self.bias.bias2(u) + (self.variance_siemens2 * u * u).sum(axis=-1)

    def mse(self, c_siemens: Vector) -> NDArray[np.float64]:
        """MSE of designs c, shape (..., K) gives (...); equation (1)."""
        return self.bias.q2 + self.mse_excess(c_siemens)

    def controllable_w(self, c_siemens: Vector) -> NDArray[np.float64]:
        """P - P0 of designs c, watts, shape (..., K) gives (...); equation (2)."""
        return ((self.linear_w_per_siemens + self.square * c_siemens) * c_siemens).sum(axis=-1)

    def power_w(self, c_siemens: Vector) -> NDArray[np.float64]:
        """P of designs c, watts, shape (..., K) gives (...); equation (2)."""
        return self.p0_w + self.controllable_w(c_siemens)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Solution:
    """The optimum of one objective under a budget of the other, with its certificate.

    Parameters
    ----------
    objective
        What was minimised; the other one was budgeted.
    c_siemens
        Optimal scale factors, (K,).
    mse, power_w
        Both sides at c.
    multiplier
        Price of the budget, -d objective / d budget: watts per unit MSE for objective "power", MSE per watt for "mse"; 0 with slack.
    mse_per_watt
        lambda = -dMSE/dP along the trade-off; 0 where more power buys nothing, infinity where power is at its least.
    lower_bound
        Value of the Lagrangian dual: no feasible design has a smaller objective.
    duality_gap_rel
        (objective - lower_bound) over P - P0 for "power", over the MSE for "mse". Rounding may turn it slightly negative.
    active_lower, active_upper
        Groups at c_min, c_max, (K,); both where the bounds coincide.
    slack
        The budget does not bind: the unbudgeted optimum of the objective meets it.
    n_iterations
        Evaluations of the inner minimum; 0 for the closed form.
    """

    objective: Side
    c_siemens: Vector
    mse: float
    power_w: float
    multiplier: float
    mse_per_watt: float
    lower_bound: float
    duality_gap_rel: float
    active_lower: Mask
    active_upper: Mask
    slack: bool
    n_iterations: int

    def __post_init__(self) -> None:
        for array in (self.c_siemens, self.active_lower, self.active_upper):
            array.setflags(write=False)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class CommonScale:
    """The best single number t with c_k = t r_k under a budget: the baseline of every finer design."""

    scale_siemens: float
    c_siemens: Vector
    mse: float
    power_w: float

    def __post_init__(self) -> None:
        self.c_siemens.setflags(write=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class Infeasible:
    """A budget below what any design within the bounds reaches.

    Parameters
    ----------
    at
        The budgeted side: "mse" (its floor is near c_max) or "power" (its floor is at c_min, watts).
    floor, budget
        The smallest value within the bounds, and what was asked.
    """

    at: Side
    floor: float
    budget: float

    @property
    def gap(self) -> float:
        """How far the budget is below the floor, in the unit of `at`."""
        return self.floor - self.budget


def within_budgets(
    mse: float, power_w: float, *, power_budget_w: float | None, mse_budget: float | None
) -> tuple[float, float] | Infeasible:
    """Return a design's error and power, or which budget it is beyond."""
    if power_budget_w is not None and power_w > power_budget_w:
        return Infeasible(at="power", floor=power_w, budget=power_budget_w)
    if mse_budget is not None and mse > mse_budget:
        return Infeasible(at="mse", floor=mse, budget=mse_budget)
    return mse, power_w
