"""A programming law from measured cells: maximum likelihood, the law with the least BIC, intervals, and how well it fits.

With r = programmed - target and s = s(target; theta), the likelihood of a measurement is that of the law itself,

    p = phi(r / s) / s,     or where a clipped cell is found at zero     p = Phi(-target / s),                    (1)

so that clipped data is not mistaken for a smaller error. Intervals are 1.96 standard errors from the curvature at the maximum.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import optimize, stats
from scipy.special import log_ndtr

from devices.base.errors import SpecError
from devices.measurements import Measurements
from devices.programming import GaussianError, ProportionalError, StateIndependentError
from devices.state_dependent import PolynomialError, SaturatingError, TabulatedError

Floats = NDArray[np.float64]
MAX_STATES, N_BINS, MIN_ROWS, THIN_ROWS = 64, 16, 20, 30
DEGREES = (1, 2, 3, 4)
KINDS = ("state_independent", "proportional", "saturating", "polynomial", "tabulated")
LOG_SQRT_2PI = 0.5 * float(np.log(2.0 * np.pi))


@dataclass(frozen=True, slots=True, kw_only=True)
class State:
    """The measurements at one target, or at neighbouring ones: counts, means and standard deviations, siemens."""

    n: int
    target_siemens: float
    mean_error_siemens: float
    std_siemens: float
    fitted_std_siemens: float

    @property
    def z(self) -> float:
        """Deviation of the measured variance from the fitted law's, in standard errors of a Gaussian's."""
        ratio = (self.std_siemens / self.fitted_std_siemens) ** 2 if self.fitted_std_siemens > 0.0 else np.inf
        return float((ratio - 1.0) / np.sqrt(2.0 / max(self.n - 1, 1)))


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Fit:
    """A fitted law.

    Parameters
    ----------
    law
        The law, as specs take it.
    parameters, half_widths
        By name, and half the width of the 95 % interval of each; conductances in siemens.
    bic
        Bayesian information criterion of every law that was tried, by its label; the least is best.
    states
        Data and law, state by state.
    p_value
        Of the variances by state, were the law true (chi-square; unclipped states with enough rows); None where there are too few.
    device_share
        Share of the variance that is between devices, cycles of one device apart; None where the file cannot tell.
    warnings
        What makes the fit weaker than it looks.
    """

    law: GaussianError
    label: str
    parameters: dict[str, float]
    half_widths: dict[str, float]
    bic: dict[str, float]
    states: tuple[State, ...]
    p_value: float | None
    device_share: float | None
    n: int
    g_max_siemens: float
    warnings: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class _Candidate:
    """A family of laws: names and starting values of its parameters (in units of g_max), and how to make a law of them."""

    label: str
    names: tuple[str, ...]
    start: Floats
    make: Callable[[Floats], GaussianError]


def fit_law(data: Measurements, *, kind: str = "auto", degree: int | None = None) -> Fit:
    """Return the law of `kind` that makes the data most likely; with `auto`, the one of least BIC.

    `degree` fixes that of a polynomial. Raises SpecError where there are fewer than 20 measurements, or no spread at all.
    """
    if kind not in ("auto", *KINDS):
        raise SpecError(f"kind: {kind!r}: need auto | {' | '.join(KINDS)}")
    warnings = []
    if data.time_s is not None and np.ptp(data.time_s) > 0.0:
        first = data.time_s == data.time_s.min()
        n_later = len(data) - int(first.sum())
        warnings.append(f"{n_later} of {len(data)} rows are at later times and left aside: a law of time is not fitted")
        data = data.chosen(first)
    if len(data) < MIN_ROWS:
        raise SpecError(f"{data.name}: {len(data)} measurements; need at least {MIN_ROWS} to tell an error law")
    problem = _Problem(data)
    found = {c.label: (c, *problem.maximum(c)) for c in problem.candidates(kind, degree)}
    found = {label: part for label, part in found.items() if np.isfinite(part[2])}
    if not found:
        raise SpecError(f"{data.name}: no {kind} law can make these data; cells at a target of zero err, so the error is not proportional")
    bic = {label: 2.0 * loss + len(c.names) * float(np.log(len(data))) for label, (c, _, loss) in found.items()}
    best, theta, _ = found[min(bic, key=lambda label: bic[label])]
    half = 1.96 * problem.standard_errors(best, theta)
    law = best.make(theta)
    states = problem.states(law)
    scale = 1.0 if best.names == ("error_rel",) else problem.g_max
    return Fit(
        law=law,
        label=best.label,
        parameters=dict(zip(best.names, (theta * scale).tolist())),
        half_widths=dict(zip(best.names, (half * scale).tolist())),
        bic=bic,
        states=states,
        p_value=_p_value(states, len(best.names), clipped=problem.clip),
        device_share=_device_share(data, law, problem.g_max),
        n=len(data),
        g_max_siemens=problem.g_max,
        warnings=(*warnings, *_thin(data, states), *_biased(states), *_lifetimes(data)),
    )


class _Problem:
    """The likelihood (1) of one set of data."""

    def __init__(self, data: Measurements) -> None:
        self.data, self.g_max = data, float(data.target_siemens.max())
        if self.g_max <= 0.0:
            raise SpecError(f"{data.name}: every target is zero; need measurements over the range that will be used")
        self.target, self.residual = data.target_siemens, data.programmed_siemens - data.target_siemens
        if not np.any(self.residual):
            raise SpecError(f"{data.name}: every cell is exactly at its target: there is no error to fit")
        self.at_zero = data.programmed_siemens == 0.0
        self.clip = bool(np.all(data.programmed_siemens >= 0.0))
        self.groups = _grouped(self.target, self.residual)

    def loss(self, candidate: _Candidate, theta: Floats) -> float:
        """Return the negative logarithm of (1), summed; infinite where the law makes the data impossible."""
        law = candidate.make(theta)
        std = np.broadcast_to(law.std_siemens(self.target, self.g_max), self.target.shape) / self.g_max
        if not np.all(np.isfinite(std)) or np.any((std <= 0.0) & ((self.residual != 0.0) | (self.target > 0.0))):
            return np.inf
        free = std > 0.0
        std, target, residual = (v[free] for v in (std, self.target / self.g_max, self.residual / self.g_max))
        held = self.at_zero[free] if self.clip else np.zeros(len(std), bool)
        dense = np.log(std[~held]) + 0.5 * (residual[~held] / std[~held]) ** 2 + LOG_SQRT_2PI
        return float(dense.sum() - log_ndtr(-target[held] / std[held]).sum())

    def maximum(self, candidate: _Candidate) -> tuple[Floats, float]:
        """Return the parameters of greatest likelihood, and the loss there."""
        unit = np.maximum(np.abs(candidate.start), 1e-3 * np.abs(candidate.start).max())

        def scaled(u: Floats) -> float:
            return min(self.loss(candidate, u * unit), 1e300)

        best = optimize.minimize(scaled, candidate.start / unit, method="Nelder-Mead", options=_OPTIONS)
        best = optimize.minimize(scaled, best.x, method="Nelder-Mead", options=_OPTIONS)  # again, from a fresh simplex
        return best.x * unit, float(best.fun) if best.fun < 1e299 else np.inf

    def standard_errors(self, candidate: _Candidate, theta: Floats) -> Floats:
        """Return the standard errors from the curvature of the loss, by central differences; NaN where it has none."""
        n = len(theta)
        step = 1e-3 * np.maximum(np.abs(theta), 1e-2 * np.abs(theta).max())
        moves, hessian = np.diag(step), np.empty((n, n))
        for i in range(n):
            for j in range(n):
                corners = [a * b * self.loss(candidate, theta + a * moves[i] + b * moves[j]) for a in (1, -1) for b in (1, -1)]
                hessian[i, j] = sum(corners) / (4.0 * step[i] * step[j])
        try:
            variances = np.diag(np.linalg.inv(0.5 * (hessian + hessian.T)))
        except np.linalg.LinAlgError:
            variances = np.full(n, np.nan)
        return np.sqrt(np.where(variances > 0.0, variances, np.nan))

    def candidates(self, kind: str, degree: int | None) -> list[_Candidate]:
        """Return the families that are to be tried; a table only where it is asked for."""
        clip, g_max = self.clip, self.g_max
        spread = np.array([[t, s] for _, t, _, s in self.groups if s > 0.0]).reshape(-1, 2) / g_max
        if not len(spread):
            raise SpecError(f"{self.data.name}: no state has two different measurements; an error law needs repeated programmings")
        typical = float(np.median(spread[:, 1]))

        def polynomial(d: int) -> _Candidate:
            start = np.asarray(np.polynomial.polynomial.polyfit(spread[:, 0], spread[:, 1], d), np.float64)
            return _Candidate(
                label=f"polynomial, degree {d}", names=tuple(f"c_{k}" for k in range(d + 1)), start=start,
                make=lambda c: PolynomialError(coefficients_siemens=tuple((c * g_max).tolist()), over_siemens=g_max, clip=clip),
            )  # fmt: skip

        def error_rel(law: type[StateIndependentError | ProportionalError]) -> _Candidate:
            return _Candidate(
                label=law.kind, names=("error_rel",), start=np.array([typical]), make=lambda c: law(error_rel=abs(float(c[0])), clip=clip)
            )

        saturating = _Candidate(
            label="saturating", names=("top_siemens", "knee_siemens"), start=np.array([typical, 0.3]),
            make=lambda c: SaturatingError(top_siemens=abs(c[0]) * g_max, knee_siemens=max(abs(c[1]), 1e-6) * g_max, clip=clip),
        )  # fmt: skip
        points = tuple(t for _, t, _, _ in self.groups)
        tabulated = _Candidate(
            label="tabulated", names=tuple(f"std_{i}" for i in range(len(points))),
            start=np.array([max(s / g_max, 1e-3 * typical) for _, _, _, s in self.groups]),
            make=lambda c: TabulatedError(points_siemens=points, stds_siemens=tuple(np.abs(c * g_max).tolist()), clip=clip),
        )  # fmt: skip
        degrees = [d for d in (DEGREES if degree is None else (degree,)) if d < len(spread)]
        families: dict[str, list[_Candidate]] = {
            "state_independent": [error_rel(StateIndependentError)],
            "proportional": [error_rel(ProportionalError)],
            "saturating": [saturating],
            "polynomial": [polynomial(d) for d in degrees],
            "tabulated": [tabulated],
        }
        if kind == "polynomial" and not degrees:
            raise SpecError(f"degree: {degree}: need more states than coefficients, there are {len(spread)} with a spread")
        return families[kind] if kind != "auto" else [c for k in KINDS[:4] for c in families[k]]

    def states(self, law: GaussianError) -> tuple[State, ...]:
        """Return the data state by state, beside the law; what clipping shifts is no error of the mean."""
        moments = law.moments(np.array([t for _, t, _, _ in self.groups]), self.g_max)
        return tuple(
            State(
                n=len(rows),
                target_siemens=t,
                mean_error_siemens=mean - float(expected - t),
                std_siemens=std,
                fitted_std_siemens=float(np.sqrt(variance)),
            )
            for (rows, t, mean, std), expected, variance in zip(self.groups, moments.mean_siemens, moments.variance_siemens2)
        )


_OPTIONS = {"maxiter": 4000, "maxfev": 8000, "xatol": 1e-7, "fatol": 1e-7, "adaptive": True}
_Group = tuple[NDArray[np.intp], float, float, float]


def _grouped(target: Floats, residual: Floats) -> list[_Group]:
    """Return rows, mean target, and mean and standard deviation of the error of each distinct target, or of neighbouring ones."""
    order = np.argsort(target, kind="stable")
    distinct, starts = np.unique(target[order], return_index=True)
    if len(distinct) > MAX_STATES:
        starts = np.linspace(0, len(target), N_BINS, endpoint=False).astype(np.intp)
    groups = []
    for rows in np.split(order, starts[1:]):
        std = float(residual[rows].std(ddof=1)) if len(rows) > 1 else 0.0
        groups.append((rows, float(target[rows].mean()), float(residual[rows].mean()), std))
    return groups


def _p_value(states: tuple[State, ...], n_parameters: int, *, clipped: bool) -> float | None:
    """Return the p-value of the variances; cells that are often clipped are no Gaussians, whose variances scatter otherwise."""
    usable = [s for s in states if s.n >= MIN_ROWS and not (clipped and s.target_siemens < 3.0 * s.fitted_std_siemens)]
    dof = len(usable) - n_parameters
    return float(stats.chi2.sf(sum(s.z**2 for s in usable), dof)) if dof > 0 else None


def _device_share(data: Measurements, law: GaussianError, g_max: float) -> float | None:
    """Return the share of the variance that is a device's own: analysis of variance of standardized errors, by device and target."""
    if data.device is None or data.cycle is None:
        return None
    std = np.broadcast_to(law.std_siemens(data.target_siemens, g_max), data.target_siemens.shape)
    usable = (std > 0.0) & ~((data.programmed_siemens == 0.0) & (data.target_siemens < 3.0 * std))
    z = (data.programmed_siemens - data.target_siemens)[usable] / std[usable]
    states = np.unique(data.target_siemens[usable], return_inverse=True)[1]
    cells = np.unique(np.stack([data.device[usable], states]), axis=1, return_inverse=True)[1].reshape(-1)
    counts = np.bincount(cells)
    n, k = len(z), len(counts)
    if k < 2 or n <= k:
        return None
    means = np.bincount(cells, z) / counts
    within = float(((z - means[cells]) ** 2).sum()) / (n - k)
    between = float((counts * (means - z.mean()) ** 2).sum()) / (k - 1)
    size = (n - float((counts**2).sum()) / n) / (k - 1)
    own = max(between - within, 0.0) / size
    return own / (own + within) if own + within > 0.0 else None


def _thin(data: Measurements, states: tuple[State, ...]) -> list[str]:
    told = [
        f"only {s.n} measurements at {1e6 * s.target_siemens:.4g} uS: its error is known to {100 / np.sqrt(2 * max(s.n - 1, 1)):.0f} %"
        for s in states
        if s.n < THIN_ROWS
    ]
    if len(told) > 3:
        told = [*told[:2], f"and so at {len(told) - 2} more states: fewer than {THIN_ROWS} measurements each"]
    if len(states) < 4:
        told.append(f"only {len(states)} states were measured: between them the law is a guess")
    return told


def _biased(states: tuple[State, ...]) -> list[str]:
    """Warn where cells end beside their target on average: the laws have no such shift."""
    off = [s for s in states if s.n > 1 and abs(s.mean_error_siemens) > 4.0 * s.std_siemens / np.sqrt(s.n)]
    if not off:
        return []
    worst = max(off, key=lambda s: abs(s.mean_error_siemens))
    return [
        f"cells miss their target on average at {len(off)} of {len(states)} states, most at {1e6 * worst.target_siemens:.4g} uS, by "
        f"{1e6 * worst.mean_error_siemens:+.3g} uS: the law is centred on the target, and its error covers the shift"
    ]


def _lifetimes(data: Measurements) -> list[str]:
    if data.device is None or data.cycle is None:
        return [
            "without device_id and cycle, spread between devices and between cycles cannot be told apart; "
            "all of it counts as programming error"
        ]
    return []
