"""Where single faults come from, and what one of them does to the outputs.

An event e has the probability p_e and changes one weight, or one value of one image. It is drawn with

    q_e = 0.9 p_e c_e^2 S_e / sum + 0.1 p_e c_e^2 / sum,      c_e: its change, S_e: the response power there                (1)

so that linear damage is followed and no event is out of reach, and counts p_e (1 - p_e) |d_e|^2 / q_e.
"""

from abc import ABC, abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np

from accelsim.placement import PlacedLayer, Plan
from accelsim.prediction.question import Question
from accelsim.response.linear import Response
from accelsim.response.target import mean_weights
from accelsim.response.weights import Weights
from accelsim.stored_signals import SignalSite
from accelsim.stored_weights import WordSite
from devices.stuck import StuckAt
from workloads.network import INPUT, Network, NodeIndex, from_lanes, to_lanes
from workloads.operators.base import Array
from workloads.operators.matrix import MatrixOperator
from workloads.samples import Samples
from workloads.walk import rewalk, walk

UNIFORM = 0.1
"""Share of events that are drawn whatever their linear damage."""
IMAGES = 16
"""Images that meet an event together: one vector of lanes."""
SCALES = 0.02, 3.0
"""Least and largest share of linear damage that a few events are believed to show."""
PER_VISIT = 4
"""Events of a value that are tried on each of those images before others are taken."""


class Source(ABC):
    """Faults of one kind in one layer: a sum over events that is sampled until it is known well enough; `linear` is its linear damage."""

    cause: str
    layer: str
    linear: float

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
    def chip_variance(self) -> float:
        """Variance over chips of the MSE by faults that last: the sum of p_e D_e^2."""
        return float(np.mean(self.squares)) if self.squares else 0.0

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

    def chunk(self, random: np.random.Generator) -> dict[NodeIndex, Array]:
        """Return all values of a random chunk of images, the network's input among them."""
        start = int(random.integers(max(1, len(self.samples) // IMAGES))) * IMAGES
        if start not in self.kept:
            images = to_lanes(self.samples.x[start : start + IMAGES])
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
    """Faults of one bit, or one cell, of a layer's weights: one meets all images of a chunk."""

    def __init__(self, cause: str, events: WeightEvents, runner: Runner, random: np.random.Generator) -> None:
        Source.__init__(self)
        self.cause, self.layer, self.events, self.runner, self.random = cause, events.layer.name, events, runner, random
        self.linear = float(events.damage.sum())

    def sample(self, n: int) -> None:
        """Sample events in proportion to (1), on chunks of images taken at random."""
        shares = _shares(self.events.damage.reshape(-1, 1), self.events.reach.reshape(-1, 1))[:, 0]
        sums = np.cumsum(shares)
        for at in np.minimum(np.searchsorted(sums, self.random.random(n) * sums[-1]), sums.size - 1):
            p, q, found = float(self.events.p.ravel()[at]), float(shares[at] / sums[-1]), self._run(int(at))
            self.found.append(p * (1.0 - p) * found / q)
            self.bits.append(self.events.bit)
            self.squares.append(p * found**2 / q if self.events.lasting else 0.0)

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
