"""The maximum of correlated Gaussians, by a tournament of Clark's pairwise moments.

C. E. Clark, "The greatest of a finite set of random variables", Operations Research 9(2), 1961. For a match of
`(m1, v1)` and `(m2, v2)` with `theta^2 = E (t1 - t2)^2` and `alpha = (m1 - m2) / theta`:

    E max   = m1 Phi(alpha) + m2 Phi(-alpha) + theta phi(alpha)
    E max^2 = (m1^2 + v1) Phi(alpha) + (m2^2 + v2) Phi(-alpha) + (m1 + m2) theta phi(alpha)
    gain    = Phi(alpha), Phi(-alpha)                                                            (1)

The winner goes on as if it were Gaussian: exact for two, an approximation for more. Its tangent is `Phi(alpha) t1 + Phi(-alpha) t2`;
what its variance has beyond that of the tangent is a residual, independent of the others, and adds to theta^2 of the next match
(without it the maximum of 64 is 0.4 standard deviations low, with it 0.1).
"""

from dataclasses import dataclass

import numpy as np
from scipy.special import ndtr

from workloads.operators.base import Array, split_lanes

FAR = 40.0


@dataclass(frozen=True, slots=True, eq=False)
class _Field:
    """What is left in the tournament: means and variances `(n, *rest, B)`, tangents `(n, *rest, K, B)`."""

    mean: Array
    variance: Array
    residual: Array
    tangents: Array

    def __len__(self) -> int:
        return len(self.mean)


def tournament(mean: Array, variance: Array, tangents: Array) -> tuple[Array, Array, Array]:
    """Return mean and variance `(*rest, B)` of the maximum over the first axis, and the gains `(n, *rest, B)`.

    `mean` and `variance` are `(n, *rest, B)`, `tangents` `(n, *rest, K*B)`; a mean of -infinity never wins.
    """
    field = _Field(mean, variance, np.zeros_like(variance), split_lanes(tangents, mean.shape[-1]))
    rounds = []
    while len(field) > 1:
        field, chance = _round(field)
        rounds.append(chance)
    return field.mean[0], field.variance[0], _gains(rounds, like=mean)


def _gains(rounds: list[Array], like: Array) -> Array:
    """Return the product of every entrant's chances, from the final backwards."""
    gains = np.ones((1, *like.shape[1:]), dtype=like.dtype)
    for chance in reversed(rounds):
        n = len(chance)
        gains = np.concatenate([gains[:n] * chance, gains[:n] * (1 - chance), gains[n:]])
    return gains


def _round(field: _Field) -> tuple[_Field, Array]:
    """Play entrant i against entrant i + n/2; an odd one out waits. Returns the winners and the first ones' chances."""
    n = len(field) // 2
    first, second = slice(0, n), slice(n, 2 * n)
    difference = field.tangents[first] - field.tangents[second]
    spread = (difference**2).mean(axis=-2)
    theta = np.sqrt(spread + field.residual[first] + field.residual[second])
    mean, variance, chance = _clark(field, first, second, theta)
    residual = _residual(field, first, second, variance=variance, chance=chance, spread=spread)
    tangents = field.tangents[second] + chance[..., None, :] * difference
    rest = slice(2 * n, None)
    winners = _Field(
        np.concatenate([mean, field.mean[rest]]),
        np.concatenate([variance, field.variance[rest]]),
        np.concatenate([residual, field.residual[rest]]),
        np.concatenate([tangents, field.tangents[rest]]),
    )
    return winners, chance


def _residual(field: _Field, first: slice, second: slice, *, variance: Array, chance: Array, spread: Array) -> Array:
    """Return the winners' variance beyond that of their tangents, `p^2 t1 + q^2 t2 + p q (t1 + t2 - spread)`, t = v - residual."""
    t1, t2 = (field.variance[who] - field.residual[who] for who in (first, second))
    lost = 1 - chance
    return np.maximum(variance - chance**2 * t1 - lost**2 * t2 - chance * lost * (t1 + t2 - spread), 0)


def _clark(field: _Field, first: slice, second: slice, theta: Array) -> tuple[Array, Array, Array]:
    """Return (1), as mean, variance and gain, centred at the higher mean so that nothing cancels."""
    m1, m2, v1, v2 = field.mean[first], field.mean[second], field.variance[first], field.variance[second]
    ahead = m1 >= m2
    high = np.where(ahead, m1, m2)
    lead = np.abs(np.subtract(m1, m2, out=np.zeros_like(m1), where=m1 != m2))
    alpha = np.where(lead >= FAR * theta, FAR, np.minimum(lead, FAR * theta) / np.where(theta > 0, theta, 1)).astype(theta.dtype)
    behind = theta * alpha
    p, q = ndtr(alpha), ndtr(-alpha)
    swing = theta * np.exp(-0.5 * alpha**2) / np.sqrt(2 * np.pi).astype(theta.dtype)
    shift = swing - behind * q
    second_moment = np.where(ahead, v1, v2) * p + (np.where(ahead, v2, v1) + behind**2) * q - behind * swing
    return high + shift, np.maximum(second_moment - shift**2, 0), np.where(ahead, p, q)
