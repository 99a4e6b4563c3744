"""Programmings of a plan: the weights of every layer in one trial, as a pure function of seed and trial."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import overload

import numpy as np

from accelsim.lower import ArraySite
from accelsim.placement import PlacedLayer, Plan
from accelsim.response.probes import N_ERRORS
from accelsim.response.target import Weights, mean_weights
from devices.base.stream import normals, site_id
from devices.weight_encoding import Pair
from workloads.network import NodeIndex
from workloads.operators.base import Array


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Draw:
    """The weights of one trial by node, and the conductances they come from."""

    view: Weights
    pairs: dict[str, Pair]


class Programmer:
    """Draws programmings of a plan; what does not change from trial to trial is made once, in float32."""

    def __init__(self, plan: Plan, *, seed: int) -> None:
        self.seed = seed
        self.layers = plan.layers
        self.mean = mean_weights(plan)
        self.cells = {(layer.node, site.part): _Cells(site) for layer in plan.layers for site in _sites(layer)}

    def checked_errors(self) -> "CheckedErrors":
        """Return the errors of the programmings that a prediction is checked with."""
        return CheckedErrors(self)

    def error(self, trial: int) -> Weights:
        """Return how far trial number `trial` is off its mean."""
        view = self.draw(trial).view
        return Weights(
            weights={n: w - self.mean.weights[n] for n, w in view.weights.items()},
            biases={n: b - self.mean.biases[n] for n, b in view.biases.items()},
        )

    def draw(self, trial: int, *, sign: float = 1.0) -> Draw:
        """Return trial number `trial`; with `sign=-1` its mirror image, from the same normals negated."""
        weights: dict[NodeIndex, Array] = {}
        biases: dict[NodeIndex, Array] = {}
        pairs: dict[str, Pair] = {}
        for (node, part), cells in self.cells.items():
            pair = cells.pair(seed=self.seed, trial=trial, sign=sign)
            if part == "weights":
                weights[node], pairs[cells.site.layer] = cells.decoded(pair), pair
            else:
                biases[node] = cells.decoded(pair)
        return Draw(view=Weights(weights=weights, biases=biases), pairs=pairs)


N_CHECKED = N_ERRORS
CHECK_TRIAL = 1 << 31
"""Number of the first of them, apart from the trials of a Monte-Carlo run with the same seed."""


class CheckedErrors(Sequence[Weights]):
    """The errors of `N_CHECKED` programmings, drawn when asked for: all at once may be much memory."""

    def __init__(self, programmer: Programmer) -> None:
        self.programmer = programmer

    def __len__(self) -> int:
        return N_CHECKED

    @overload
    def __getitem__(self, k: int) -> Weights: ...
    @overload
    def __getitem__(self, k: slice) -> list[Weights]: ...
    def __getitem__(self, k: int | slice) -> Weights | list[Weights]:
        if isinstance(k, slice):
            return [self[i] for i in range(*k.indices(N_CHECKED))]
        if not 0 <= k < N_CHECKED:
            raise IndexError(k)
        return self.programmer.error(CHECK_TRIAL + k)


def _sites(layer: PlacedLayer) -> list[ArraySite]:
    return [layer.site] if layer.bias_site is None else [layer.site, layer.bias_site]


class _Cells:
    """One site's requested conductances and decoding, ready for many trials."""

    def __init__(self, site: ArraySite) -> None:
        self.site = site
        asked = [_single(block.requested()) for block in site.blocks()]
        self.targets = {
            "+": np.concatenate([pair.positive_siemens for pair in asked]),
            "-": np.concatenate([pair.negative_siemens for pair in asked]),
        }
        slots = range(len(site.chain.laws))
        self.sites = {sign: [site_id(site.layer, f"cell {site.part} {sign}", slot) for slot in slots] for sign in "+-"}
        scale = site.scale_siemens.reshape(-1, *(1,) * (self.targets["+"].ndim - 1))
        self.weight_per_siemens = np.divide(1.0, scale, out=np.zeros_like(scale), where=scale > 0.0).astype(np.float32)

    def pair(self, *, seed: int, trial: int, sign: float) -> Pair:
        """Return one programming of every pair."""
        plus, minus = (self._half(half, seed=seed, trial=trial, sign=sign) for half in "+-")
        return Pair(positive_siemens=plus, negative_siemens=minus)

    def _half(self, half: str, *, seed: int, trial: int, sign: float) -> Array:
        target = self.targets[half]
        draws = [normals(np.empty(target.shape, np.float32), seed=seed, site=s, trial=trial) for s in self.sites[half]]
        if sign < 0.0:
            draws = [-d for d in draws]
        return self.site.chain.sample(target, self.site.cell.g_max_siemens, normals=tuple(draws))

    def decoded(self, pair: Pair) -> Array:
        """Return the weights that the pairs stand for."""
        weights = pair.positive_siemens - pair.negative_siemens
        weights *= self.weight_per_siemens
        return weights


def _single(pair: Pair) -> Pair:
    return Pair(positive_siemens=pair.positive_siemens.astype(np.float32), negative_siemens=pair.negative_siemens.astype(np.float32))


N_VIEWS = 4
VIEW_TRIAL = 3 << 30
"""The first trial number of the views, apart from those of Monte-Carlo and of the self check."""


def power_views(programmer: Programmer, *, mse_rel: float) -> list[Weights]:
    """Return the weights whose inputs read power is accounted at: the mean ones, or two mirrored pairs where noise is not small."""
    if not mse_rel > SMALL_MSE_REL:
        return [programmer.mean]
    return [programmer.draw(VIEW_TRIAL + k // 2, sign=1.0 - 2.0 * (k % 2)).view for k in range(N_VIEWS)]


SMALL_MSE_REL = 0.01
"""Relative MSE below which noise adds less than about a percent to squared inputs."""
