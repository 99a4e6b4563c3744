"""Programmings of a plan: the weights of every layer in one trial, as a pure function of seed and trial."""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import TypedDict, overload

import numpy as np

from accelsim.datapath import Fresh, Slices
from accelsim.lower import ArraySite, Cells
from accelsim.placement import PlacedLayer, Plan
from accelsim.response.probes import N_ERRORS
from accelsim.response.target import mean_weights
from accelsim.response.weights import Weights
from accelsim.stored_weights import WordSite
from devices.base.stream import normals, normals_of_sites, site_id
from workloads.network import NodeIndex
from workloads.operators.base import Array


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Draw:
    """The weights of one trial by node, and the conductances they come from."""

    view: Weights
    cells: dict[str, Cells]


class Reads(TypedDict, total=False):
    """How `Weights.product` is told of read noise."""

    read: Slices
    fresh: Fresh


def reads_of(site: ArraySite, draw: Draw, *, seed: int, trial: int, chunk: int = 0) -> Reads:
    """Return the noise of a site's conversions, fresh for each of them, each position and image; nothing without read noise."""
    if site.read_law is None:
        return {}

    def fresh(conversion: int, shape: tuple[int, ...]) -> Array:
        own = site_id(site.layer, f"read {conversion}", 0) ^ (chunk << 20)
        return normals(np.empty(shape, np.float32), seed=seed, site=own, trial=trial)

    return {"read": tuple(v.astype(np.float32) for v in site.read_slices_of(draw.cells[site.layer])), "fresh": fresh}


class Programmer:
    """Draws programmings of a plan; what does not change from trial to trial is made once, in float32."""

    def __init__(self, plan: Plan, *, seed: int) -> None:
        self.seed = seed
        self.layers = plan.layers
        self.mean = mean_weights(plan)
        self.words = {layer.node: layer.site for layer in plan.layers if isinstance(layer.site, WordSite)}
        self.groups = [SiteCells(sites) for sites in _grouped([layer for layer in plan.layers if layer.node not in self.words])]

    def checked_errors(self) -> "CheckedErrors":
        """Return the errors of the programmings that a prediction is checked with."""
        return CheckedErrors(self)

    def error(self, trial: int) -> Weights:
        """Return how far trial number `trial` is off its mean."""
        view = self.draw(trial).view
        return Weights(
            weights={n: w - self.mean.weights[n] for n, w in view.weights.items()},
            biases={n: b - self.mean.biases[n] for n, b in view.biases.items()},
            slices={n: tuple(a - b for a, b in zip(s, self.mean.slices[n])) for n, s in view.slices.items()},
        )

    def draw(
        self, trial: int, *, sign: float = 1.0, reads: int | None = None, words: Mapping[NodeIndex, Array] | None = None
    ) -> Draw:
        """Return trial number `trial`; with `sign=-1` its mirror image, from the same normals negated and words of memory mirrored.

        `reads` is the number of another trial whose reads of memories are taken; `words` are weights read, where they are at hand.
        """
        again = trial if reads is None else reads
        weights = dict(words) if words is not None else {
            node: site.sampled(seed=self.seed, trial=again if site.is_fresh else trial, sign=sign) for node, site in self.words.items()
        }
        biases: dict[NodeIndex, Array] = {}
        slices: dict[NodeIndex, Slices] = {}
        stored: dict[str, Cells] = {}
        for cells in self.groups:
            for (node, site), conductances, decoded in cells.drawn(seed=self.seed, trial=trial, sign=sign):
                if site.part == "weights":
                    weights[node], stored[site.layer] = decoded, conductances
                    if node in self.mean.paths:
                        slices[node] = tuple(part.astype(np.float32) for part in site.slices(conductances))
                else:
                    biases[node] = decoded
        view = Weights(weights=weights, biases=biases, paths=self.mean.paths, slices=slices, buffers=self.mean.buffers)
        return Draw(view=view, cells=stored)


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
    groups: dict[tuple[object, ...], list[list[Site]]] = {}
    for layer in layers:
        for site in [layer.site] if layer.bias_site is None else [layer.site, layer.bias_site]:
            alike = groups.setdefault((site.chain, site.slots, site.encoding, site.cell.g_max_siemens), [[]])
            if sum(_n_cells(s) for _, s in alike[-1]) + _n_cells(site) > MAX_GROUP_CELLS and alike[-1]:
                alike.append([])
            alike[-1].append((layer.node, site))
    return [group for alike in groups.values() for group in alike]


def _shape(site: ArraySite) -> tuple[int, ...]:
    return site.operator.weights.shape if site.part == "weights" else (site.operator.n_columns,)


def _n_cells(site: ArraySite) -> int:
    return math.prod(_shape(site))


class SiteCells:
    """The cells of some sites: requested conductances and decoding, ready for many trials."""

    def __init__(self, sites: list[Site]) -> None:
        self.sites = sites
        first = sites[0][1]
        self.chain, self.g_max_siemens = first.chain, first.cell.g_max_siemens
        self.shapes = [_shape(site) for _, site in sites]
        self.sizes = np.array([_n_cells(site) for _, site in sites], np.int64)
        cuts = np.concatenate([[0], np.cumsum(self.sizes)])
        self.parts = [slice(a, b) for a, b in pairwise(cuts)]
        self.encoding = first.encoding
        asked = [[_single(part) for part in block.requested()] for _, site in sites for block in site.blocks()]
        self.targets = [np.concatenate([cells[p].ravel() for cells in asked]) for p in range(len(self.encoding.parts))]
        slots = first.slots
        self.ids = [
            [np.array([site_id(s.layer, f"cell {s.part} {part.name}", slot) for _, s in sites], np.uint32) for slot in slots]
            for part in self.encoding.parts
        ]
        self.readings = [_Reading(site, len(shape)) for (_, site), shape in zip(sites, self.shapes)]

    def drawn(self, *, seed: int, trial: int, sign: float) -> Iterator[tuple[Site, Cells, Array]]:
        """Yield each site with one programming of its cells, and the weights that they stand for."""
        stored = self._wired([self._part(p, seed=seed, trial=trial, sign=sign) for p in range(len(self.targets))])
        counted = self._counted(stored)
        for site, part, shape, reading in zip(self.sites, self.parts, self.shapes, self.readings):
            yield site, tuple(cells[part].reshape(shape) for cells in stored), reading.weights(counted[part].reshape(shape))

    def _wired(self, stored: list[Array]) -> list[Array]:
        """Return the conductances that columns see; cells without errors are the targets themselves, which stay as they are."""
        if not any(site.has_wires for _, site in self.sites):
            return stored
        stored = [cells.copy() for cells in stored]
        for (_, site), part, shape in zip(self.sites, self.parts, self.shapes):
            if site.has_wires:
                for cells in stored:
                    cells[part] = site.seen((cells[part].reshape(shape),))[0].ravel()
        return stored

    def _counted(self, stored: list[Array]) -> Array:
        """Return what the cells of each weight add up to, as the encoding counts them; one new array."""
        first, *rest = self.encoding.parts
        total = stored[0] * np.float32(first.sign * first.gain)
        for part, cells in zip(rest, stored[1:]):
            if part.gain == 1.0 and part.sign == -1.0:
                total -= cells
            else:
                total += cells * np.float32(part.sign * part.gain)
        return total

    def _part(self, p: int, *, seed: int, trial: int, sign: float) -> Array:
        draws = [normals_of_sites(self.sizes, seed=seed, sites=ids, trial=trial) for ids in self.ids[p]]
        if sign < 0.0:
            draws = [np.negative(d, out=d) for d in draws]
        return self.chain.sample(self.targets[p], self.g_max_siemens, normals=tuple(draws))


class _Reading:
    """What turns the counted conductances of one site into weights."""

    def __init__(self, site: ArraySite, n_axes: int) -> None:
        scale = site.read_scale_siemens.reshape(-1, *(1,) * (n_axes - 1))
        self.per_siemens = np.divide(1.0, scale, out=np.zeros_like(scale), where=scale > 0.0).astype(np.float32)
        zero = sum(part.sign * part.gain * part.zero for part in site.encoding.parts)
        gains = sum(part.sign * part.gain for part in site.encoding.parts)
        base = gains * site.cell.g_min_siemens + zero * site.span_siemens
        self.base = None if site.encoding.kind == "differential" else base.reshape(scale.shape).astype(np.float32)

    def weights(self, counted: Array) -> Array:
        """Return the weights, in the memory of what was counted."""
        if self.base is not None:
            counted -= self.base
        counted *= self.per_siemens
        return counted


def _single(values: Array) -> Array:
    return values.astype(np.float32)


SKETCH_TRIAL = 5 << 29
"""The first trial number of the programmings that sketches sample, apart from all others."""
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
