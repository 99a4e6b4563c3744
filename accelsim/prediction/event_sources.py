"""Where single faults come from, and what one of them does to the outputs.

An event e has the probability p_e and changes one weight, or one value of one image. It is drawn with

    q_e = 0.9 p_e c_e^2 S_e / sum + 0.1 p_e c_e^2 / sum,      c_e: its change, S_e: the response power there                (1)

so that linear damage is followed and no event is out of reach, and counts p_e (1 - p_e) |d_e|^2 / q_e.
"""

from abc import ABC, abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from accelsim.placement import PlacedLayer, Plan
from accelsim.prediction.question import Question
from accelsim.response.linear import Response
from accelsim.response.target import mean_weights
from accelsim.response.weights import Weights
from accelsim.stored_signals import SignalSite
from accelsim.stored_weights import WordSite
from devices.stuck import StuckAt
from workloads.lane_products import LaneChanges, add_lane_products
from workloads.network import INPUT, Network, NodeIndex, from_lanes, to_lanes
from workloads.operators.base import Array
from workloads.operators.matrix import MatrixOperator
from workloads.samples import Samples
from workloads.walk import rewalk, walk

UNIFORM = 0.1
"""Share of events that are drawn whatever their linear damage."""
IMAGES, KEPT_BYTES = 32, 2**29
"""Images that are looked at together, and what may be kept of them."""
SCALES = 0.02, 3.0
"""Least and largest share of linear damage that a few events are believed to show."""
PER_VISIT = 16
"""Events of a value that are tried on each of those images before others are taken."""
LANE_EFFORT = 1.0 / 16.0
"""Effort of an event that a single image meets."""


class Source(ABC):
    """Faults of one kind in one layer: a sum over events that is sampled until it is known well enough; `linear` is its linear damage."""

    cause: str
    layer: str
    linear: float
    lasting: bool
    effort: float = 1.0
    """What an event costs, in passes of a chunk of images."""

    def __init__(self) -> None:
        self.found: list[float] = []
        self.squares: list[float] = []
        self.bits: list[int] = []

    def by_bit(self) -> dict[int, float]:
        """Return the sum's parts by bit of the words."""
        bits, found = np.array(self.bits), np.array(self.found)
        return {int(bit): float(found[bits == bit].sum()) / self.n for bit in np.unique(bits)} if self.n else {}

    @property
    def n(self) -> int:
        """Number of events sampled."""
        return len(self.found)

    @property
    def mean(self) -> float:
        """The sum, estimated."""
        return float(np.mean(self.found)) if self.found else 0.0

    @property
    def se(self) -> float:
        """Its standard error."""
        return float(np.std(self.found, ddof=1) / np.sqrt(self.n)) if self.n > 1 else 0.0

    @property
    def square(self) -> float:
        """The sum of p_e D_e^2, D_e being what an event does; of a single image, where faults are fresh."""
        return float(np.mean(self.squares)) if self.squares else 0.0

    @property
    def chip_variance(self) -> float:
        """Variance over chips of the MSE by faults that last, to first order."""
        return self.square if self.lasting else 0.0

    @abstractmethod
    def sample(self, n: int) -> None:
        """Sample about n more events."""


def sources_of(question: Question, response: Response, healthy: Plan) -> list[Source]:
    """Return the sources of a plan's faults; those whose events do nothing are left out."""
    runner, random = Runner(question.graph, question.samples, mean_weights(healthy)), np.random.default_rng([question.seed, 0x57CC])
    found: list[Source] = []
    stuck, words = _stuck(question.plan, healthy, response), _words(question.plan, response)
    for cause, events in (("stuck", stuck), ("memory_weights", words)):
        found += [WeightSource(cause, one, runner, random) for one in events if np.any(one.reach > 0.0)]
    for layer in question.plan.layers:
        powers = response.layers[layer.name]
        for name, site in () if layer.buffers is None else layer.buffers.sites():
            power = powers.input_power if name == "inputs" else powers.sum_power
            if site.errs and power is not None:
                found.append(SignalSource(layer, site, power, runner, random))
    return found


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class WeightEvents:
    """The events of one bit, or one cell, of one layer's weights: probability of each, and the change of the weight.

    `part` is the part of the encoding that a cell belongs to; `lasting` whether faults stay for a chip's life.
    """

    layer: PlacedLayer
    part: int
    p: Array
    change: Array
    power: Array
    lasting: bool
    bit: int = 0

    @property
    def reach(self) -> Array:
        """What (1) weighs where linear damage does not count."""
        return self.p * self.change**2

    @property
    def damage(self) -> Array:
        """Linear damage."""
        return self.reach * self.power


def _stuck(plan: Plan, healthy: Plan, response: Response) -> Iterator[WeightEvents]:
    for layer, sound in zip(plan.layers, healthy.layers):
        law = layer.site.cell.stuck
        if not isinstance(law, StuckAt):
            continue
        site, power = sound.site, response.layers[layer.name].power
        mean, _ = site.stored()
        scale = site.read_scale_siemens.reshape(-1, *(1,) * (power.ndim - 1))
        per = np.divide(1.0, scale, out=np.zeros_like(scale), where=scale > 0.0)
        for i, (part, cells) in enumerate(zip(site.encoding.parts, mean)):
            for p, value in ((law.low_p, law.low_siemens), (law.high_p, law.high_siemens)):
                if p > 0.0:
                    change = part.sign * part.gain * (value - cells) * per
                    yield WeightEvents(layer=layer, part=i, p=np.full(change.shape, p), change=change, power=power, lasting=True)


def damage_scales(
    plan: Plan, healthy: Plan, graph: Network, samples: Samples, response: Response, *, seed: int, n: int
) -> dict[NodeIndex, Array]:
    """Return, by node, how much of their linear damage the faults of each bit of its words do, from `n` of them: `(n_bits,)`."""
    runner, random = Runner(graph, samples, mean_weights(healthy)), np.random.default_rng([seed, 0x5CA1])
    found: dict[NodeIndex, list[float]] = {}
    for events in _words(plan, response):
        source = WeightSource("memory_weights", events, runner, random)
        if source.linear > 0.0:
            source.sample(n)
        scale = source.mean / source.linear if source.linear > 0.0 else 1.0
        found.setdefault(events.layer.node, []).append(float(np.clip(scale, *SCALES)))
    return {node: np.array(scales) for node, scales in found.items()}


def _words(plan: Plan, response: Response) -> Iterator[WeightEvents]:
    for layer in plan.layers:
        if isinstance(layer.site, WordSite):
            lasting = layer.site.memory.faults.scope == "chip"
            for bit, p, change in layer.site.events():
                power = response.layers[layer.name].power
                yield WeightEvents(layer=layer, part=0, bit=bit, p=p, change=change, power=power, lasting=lasting)


class Runner:
    """The network of mean weights, kept on some images, and what becomes of its outputs when one thing changes."""

    def __init__(self, graph: Network, samples: Samples, view: Weights) -> None:
        self.graph, self.view, self.samples = graph, view, samples
        self.kept: dict[int, dict[NodeIndex, Array]] = {}
        self.bytes_each = 4 * sum(int(np.prod(shape)) for shape in (graph.input_shape, *(node.shape for node in graph.nodes)))
        self.size = max(1, min(IMAGES, KEPT_BYTES // self.bytes_each))

    def chunk(self, random: np.random.Generator) -> dict[NodeIndex, Array]:
        """Return all values of a chunk of images, the network's input among them: each image is as likely; few are there repeatedly."""
        start = int(random.integers(len(self.samples))) // self.size * self.size
        if start not in self.kept:
            if (len(self.kept) + 1) * self.size * self.bytes_each > KEPT_BYTES:
                self.kept.clear()
            chosen = np.arange(start, min(start + self.size, len(self.samples)))
            images = to_lanes(self.samples.x[np.tile(chosen, max(1, self.size // len(chosen)))])
            values = walk(self.graph, images, apply=self.view.applied_to(self.graph), keep=True)
            self.kept[start] = {**values, INPUT: images}
        return self.kept[start]

    def change(self, values: dict[NodeIndex, Array], node: NodeIndex, view: Weights | None = None, own: Array | None = None) -> Array:
        """Return the squared change of the outputs, by image, when a node has another view's weights, or makes `own` values."""
        usual = (view or self.view).applied_to(self.graph)

        def apply(i: NodeIndex, inputs: tuple[Array, ...]) -> Array:
            return own if own is not None and i == node else usual(i, inputs)

        output = rewalk(self.graph, values, node, apply=apply)
        off = from_lanes(output).astype(np.float64) - from_lanes(values[self.graph.output])
        return np.asarray((off.reshape(len(off), -1) ** 2).mean(axis=1))


class WeightSource(Source):
    """Faults of one bit, or one cell, of a layer's weights: each image meets one of its own, or where cells conduct all meet the same."""

    def __init__(self, cause: str, events: WeightEvents, runner: Runner, random: np.random.Generator) -> None:
        Source.__init__(self)
        self.cause, self.layer, self.events, self.runner, self.random = cause, events.layer.name, events, runner, random
        self.linear, self.lasting = float(events.damage.sum()), events.lasting
        buffers = events.layer.buffers
        self.by_lane = events.layer.is_digital and (buffers is None or buffers.sums is None)
        self.effort = LANE_EFFORT if self.by_lane else 1.0

    def sample(self, n: int) -> None:
        """Sample events in proportion to (1), on chunks of images taken at random."""
        shares = _shares(self.events.damage.reshape(-1, 1), self.events.reach.reshape(-1, 1))[:, 0]
        sums = np.cumsum(shares)
        target = self.n + n
        while self.n < target:
            values = self.runner.chunk(self.random)
            n_lanes = values[INPUT].shape[-1] if self.by_lane else target - self.n
            n_events = -(-n_lanes // 2) if self.by_lane and self.events.lasting else n_lanes
            at = np.minimum(np.searchsorted(sums, self.random.random(n_events) * sums[-1]), sums.size - 1)
            p, q = self.events.p.ravel()[at], shares[at] / sums[-1]
            found, squares = self._lane_by_lane(values, at, n_lanes) if self.by_lane else self._one_by_one(at)
            self.found.extend(map(float, p * (1.0 - p) * found / q))
            self.bits.extend([self.events.bit] * n_events)
            self.squares.extend(map(float, p * squares / q))

    def _one_by_one(self, at: NDArray[np.int64]) -> tuple[Array, Array]:
        """Return the squared changes by events `(n,)`, each the mean over a chunk of images, and what they are squared."""
        found = np.array([self._run(int(one)) for one in at])
        return found, found**2

    def _lane_by_lane(self, values: dict[NodeIndex, Array], at: NDArray[np.int64], n_lanes: int) -> tuple[Array, Array]:
        """Return the squared changes by events, each on an image of its own, and their squares; of lasting ones on two, and the product.

        The product of what an event does to two images is, on average, the square of what it does to all of them.
        """
        lanes = self.random.permutation(n_lanes)
        of_lane = np.empty(n_lanes, np.int64)
        of_lane[lanes] = np.resize(at, n_lanes)
        node, layer = self.events.layer.node, self.events.layer
        own, x = values[node].copy(), self.runner.view.arriving(node, values[self.runner.graph.nodes[node].inputs[0]])
        change = self.events.change.ravel()[of_lane].astype(np.float32)
        add_lane_products(layer.operator, LaneChanges(starts=np.arange(n_lanes + 1), number=of_lane, change=change), x, own)
        off = self.runner.change(values, node, own=own)[lanes]
        if not self.events.lasting:
            return off, off**2
        n = len(at)
        second = np.append(off[n:], off[n_lanes - n : n])  # an odd lane's event has no second image
        return 0.5 * (off[:n] + second), off[:n] * second

    def exactly(self, at: int) -> float:
        """Return what one event counts in the sum, on a chunk of images taken at random."""
        p = float(self.events.p.ravel()[at])
        return p * (1.0 - p) * self._run(at)

    def _run(self, at: int) -> float:
        view, events = self.runner.view, self.events
        node, change = events.layer.node, events.change.ravel()[at]
        weights = view.weights[node].copy()
        weights.ravel()[at] += change
        slices = dict(view.slices)
        if node in slices:
            own = events.layer.site.encoding.parts[events.part].slice
            moved = [part.copy() for part in slices[node]]
            n_slices, conduction = events.layer.site.encoding.n_slices, view.paths[node].conduction
            for k, weight in enumerate((1.0,) if conduction is None else conduction.error_weights):
                moved[k * n_slices + own].ravel()[at] += weight * change
            slices[node] = tuple(moved)
        values = self.runner.chunk(self.random)
        return float(self.runner.change(values, node, replace(view, weights={**view.weights, node: weights}, slices=slices)).mean())


class SignalSource(Source):
    """Faults of a layer's values in a memory: each image has an event of its own, or all the same cell's where faults last."""

    def __init__(self, layer: PlacedLayer, site: SignalSite, power: Array, runner: Runner, random: np.random.Generator) -> None:
        Source.__init__(self)
        self.cause, self.layer, self.placed, self.site = f"memory_{site.part}", layer.name, layer, site
        self.runner, self.random = runner, random
        every = np.arange(1 << site.memory.word.n_bits, dtype=np.uint16)
        self.linear = float(site.step**2 * site.memory.moments(every).variance.mean() * power.sum())  # as if words were equally likely
        self.power = power[..., None]
        self.lasting = site.memory.faults.scope == "chip"

    def sample(self, n: int) -> None:
        """Sample events chunk of images by chunk."""
        while n > 0:
            values = self.runner.chunk(self.random)
            n -= self._visit(values)

    def _visit(self, values: dict[NodeIndex, Array]) -> int:
        places = self._places(values)
        events = [[(p, change) for _, p, change in self.site.events(x)] for x in places]
        p, change = (np.stack([one[k] for block in events for one in block]).reshape(-1, places[0].shape[-1]) for k in (0, 1))
        power = np.broadcast_to(self.power, places[0].shape).reshape(1, -1, places[0].shape[-1])
        reach = p * change**2
        damage = reach * np.broadcast_to(power, (len(places) * len(events[0]), *power.shape[1:])).reshape(reach.shape)
        if self.lasting:
            reach, damage = (np.broadcast_to(v.sum(axis=1, keepdims=True), v.shape) for v in (reach, damage))
        n_images = reach.shape[1]
        weight = _shares(damage, reach)
        sums = np.cumsum(weight, axis=0)
        for _ in range(PER_VISIT):
            u = np.full(n_images, self.random.random()) if self.lasting else self.random.random(n_images)
            at = np.array([min(int(np.searchsorted(sums[:, b], u[b] * sums[-1, b])), len(sums) - 1) for b in range(n_images)])
            lanes = np.arange(n_images)
            q = weight[at, lanes] / np.maximum(sums[-1], 1e-300)
            off = self.runner.change(values, self.placed.node, own=self._product(values, places, len(events[0]), at, change[at, lanes]))
            chosen = p[at, lanes]
            with np.errstate(divide="ignore", invalid="ignore"):
                found = np.where(sums[-1] > 0.0, chosen * (1.0 - chosen) * off / q, 0.0)
                which = at // (places[0].size // n_images) % len(events[0])
                self.bits.extend(map(int, which[:1] if self.lasting else which))
                if self.lasting:
                    self.found.append(float(found.mean()))
                    self.squares.append(float(np.where(sums[-1] > 0.0, chosen / q, 0.0).mean()) * float(off.mean()) ** 2)
                else:
                    self.found.extend(map(float, found))
                    self.squares.extend(map(float, found * off))
        return PER_VISIT * (1 if self.lasting else n_images)

    def _places(self, values: dict[NodeIndex, Array]) -> list[Array]:
        """Return the values that are stored, before they are: the inputs, or the sums of each block."""
        graph, node = self.runner.graph, self.placed.node
        x = values[graph.nodes[node].inputs[0]]
        if self.site.part == "activations":
            return [x]
        found: list[Array] = []

        def keep(number: int, sums: Array) -> Array:
            found.append(sums)
            return sums

        self.runner.view.blockwise(node, self.placed.operator, self.runner.view.arriving(node, x), keep)
        return found

    def _product(self, values: dict[NodeIndex, Array], places: list[Array], n_bits: int, at: Array, change: Array) -> Array:
        """Return what the layer makes when one value of each image is off."""
        size = places[0].size // places[0].shape[-1]
        block, element = at // (n_bits * size), at % size
        graph, node, lanes = self.runner.graph, self.placed.node, np.arange(len(at))
        operator = graph.nodes[node].operator
        assert isinstance(operator, MatrixOperator)

        def read(site: SignalSite, number: int, x: Array) -> Array:
            stored = site.mean(x)
            if site.part == self.site.part:
                mine = block == number
                stored.reshape(-1, x.shape[-1])[element[mine], lanes[mine]] += change[mine].astype(x.dtype)
            return stored

        return self.runner.view.product(node, operator, values[graph.nodes[node].inputs[0]], stored=read)


def _shares(damage: Array, reach: Array) -> Array:
    """Return what events are drawn in proportion to, by image."""
    share = UNIFORM * reach / np.maximum(reach.sum(axis=0), 1e-300)
    total = damage.sum(axis=0)
    linear = np.divide(damage, total, out=np.zeros_like(damage), where=total > 0.0)
    return share + (1.0 - UNIFORM) * linear
