"""Programmings of a plan: the weights of every layer in one trial, as a pure function of seed and trial."""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import overload

import numpy as np

from accelsim.lower import ArraySite
from accelsim.placement import PlacedLayer, Plan
from accelsim.response.probes import N_ERRORS
from accelsim.response.target import Weights, mean_weights
from devices.base.stream import normals_of_sites, site_id
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
        self.groups = [_Cells(sites) for sites in _grouped(plan.layers)]

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
        for cells in self.groups:
            for (node, site), pair, decoded in cells.drawn(seed=self.seed, trial=trial, sign=sign):
                if site.part == "weights":
                    weights[node], pairs[site.layer] = decoded, pair
                else:
                    biases[node] = decoded
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


Site = tuple[NodeIndex, ArraySite]
MAX_GROUP_CELLS = 2**20
"""Cells of small layers that are drawn together: what a call costs counts there, and memory where they are large."""


def _grouped(layers: Sequence[PlacedLayer]) -> list[list[Site]]:
    """Return the sites whose cells follow the same laws, as many together as `MAX_GROUP_CELLS`."""
    groups: dict[tuple[object, float], list[list[Site]]] = {}
    for layer in layers:
        for site in [layer.site] if layer.bias_site is None else [layer.site, layer.bias_site]:
            alike = groups.setdefault((site.chain, site.cell.g_max_siemens), [[]])
            if sum(_n_cells(s) for _, s in alike[-1]) + _n_cells(site) > MAX_GROUP_CELLS and alike[-1]:
                alike.append([])
            alike[-1].append((layer.node, site))
    return [group for alike in groups.values() for group in alike]


def _shape(site: ArraySite) -> tuple[int, ...]:
    return site.operator.weights.shape if site.part == "weights" else (site.operator.n_columns,)


def _n_cells(site: ArraySite) -> int:
    return math.prod(_shape(site))


class _Cells:
    """The cells of some sites: requested conductances and decoding, ready for many trials."""

    def __init__(self, sites: list[Site]) -> None:
        self.sites = sites
        first = sites[0][1]
        self.chain, self.g_max_siemens = first.chain, first.cell.g_max_siemens
        self.shapes = [_shape(site) for _, site in sites]
        self.sizes = np.array([_n_cells(site) for _, site in sites], np.int64)
        cuts = np.concatenate([[0], np.cumsum(self.sizes)])
        self.parts = [slice(a, b) for a, b in pairwise(cuts)]
        asked = [_single(block.requested()) for _, site in sites for block in site.blocks()]
        self.targets = {
            "+": np.concatenate([pair.positive_siemens.ravel() for pair in asked]),
            "-": np.concatenate([pair.negative_siemens.ravel() for pair in asked]),
        }
        slots = range(len(self.chain.laws))
        self.ids = {
            sign: [np.array([site_id(s.layer, f"cell {s.part} {sign}", slot) for _, s in sites], np.uint32) for slot in slots]
            for sign in "+-"
        }
        self.weight_per_siemens = [_weight_per_siemens(site, len(shape)) for (_, site), shape in zip(sites, self.shapes)]

    def drawn(self, *, seed: int, trial: int, sign: float) -> Iterator[tuple[Site, Pair, Array]]:
        """Yield each site with one programming of its pairs, and the weights that they stand for."""
        plus, minus = (self._half(half, seed=seed, trial=trial, sign=sign) for half in "+-")
        decoded = plus - minus
        for site, part, shape, scale in zip(self.sites, self.parts, self.shapes, self.weight_per_siemens):
            weights = decoded[part].reshape(shape)
            weights *= scale
            yield site, Pair(positive_siemens=plus[part].reshape(shape), negative_siemens=minus[part].reshape(shape)), weights

    def _half(self, half: str, *, seed: int, trial: int, sign: float) -> Array:
        draws = [normals_of_sites(self.sizes, seed=seed, sites=ids, trial=trial) for ids in self.ids[half]]
        if sign < 0.0:
            draws = [np.negative(d, out=d) for d in draws]
        return self.chain.sample(self.targets[half], self.g_max_siemens, normals=tuple(draws))


def _weight_per_siemens(site: ArraySite, n_axes: int) -> Array:
    scale = site.read_scale_siemens.reshape(-1, *(1,) * (n_axes - 1))
    return np.divide(1.0, scale, out=np.zeros_like(scale), where=scale > 0.0).astype(np.float32)


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
