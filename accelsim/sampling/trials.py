"""Trials: the loss of each programming, beside the loss that the linear response predicts for the same draws.

    L = mean |y(W~) - y*|^2                 what is wanted
    C = mean |y(M) + J (W~ - M) - y*|^2     control variate: E C is known exactly from the adjoint                (1)

Both are means over images and outputs; the weights of a trial are shared by all images and positions.
"""

from dataclasses import dataclass

import numpy as np

from accelsim.ledger import column_squares, row_activity
from accelsim.placement import Plan, image_chunks
from accelsim.response.labels import usable_labels
from accelsim.response.passes import Linearization, linearize, push
from accelsim.sampling.importance import Importance
from accelsim.sampling.programmings import Draw, Programmer, reads_of
from accelsim.stored_signals import Reader, SignalSite
from accelsim.stored_weights import WordSite
from devices.base.stream import normals, site_id
from workloads.network import Network, NodeIndex, from_lanes
from workloads.operators.base import Array
from workloads.operators.matrix import MatrixOperator
from workloads.program import Program
from workloads.samples import Samples
from workloads.walk import Apply, run

N_POWER_TRIALS = 16


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Outcome:
    """One trial: loss, control (NaN when off), correct answers by image or None, read power over rate and time (NaN when not measured).

    With faults by importance, `base` is the loss without them and `weight` what they count: `loss = base + weight (loss with them - base)`.
    """

    loss: float
    control: float
    correct: Array | None
    power_w: float
    base: float = np.nan
    weight: float = 1.0


class TrialRunner:
    """Runs single trials on fixed samples; safe to share between threads, since nothing in it changes."""

    def __init__(
        self,
        plan: Plan,
        graph: Network,
        samples: Samples,
        *,
        reference: Array,
        seed: int,
        control: bool,
        importance: Importance | None = None,
    ) -> None:
        self.plan, self.graph, self.reference, self.seed = plan, graph, reference, seed
        self.labels, _ = usable_labels(samples.y, reference.shape[1])
        self.programmer = Programmer(plan, seed=seed)
        self.chunks = list(image_chunks(samples))
        self.layers = plan.layer_of_node()
        self.read_sites = {n: site_id(layer.name, "read", 0) for n, layer in self.layers.items() if layer.site.read_law is not None}
        sizes = {chunk.shape[-1] for chunk in self.chunks}
        plain = not (self.read_sites or self.programmer.mean.paths or self.programmer.mean.buffers)
        self.programs = {} if not plain else {size: Program(graph, size) for size in sizes}
        mean = self.programmer.mean
        self.points: list[Linearization] = [linearize(graph, chunk, mean) for chunk in self.chunks] if control else []
        self.mean_outputs = [_flat(p.output) for p in self.points]

        self.importance, self.fixed = importance, None
        if importance is not None and not is_random(plan, words=False):
            self.fixed = self._measured(self.programmer.draw(0, words=self._sound_words()), 0, [])

    def run(self, trial: int, *, sign: float = 1.0, control: bool = True, reads: int | None = None) -> Outcome:
        """Return the outcome of trial number `trial`, or of its mirror image (`sign=-1`): a pure function of both.

        `control=False` leaves the control out of a runner that has one; `reads` as of `Programmer.draw`.
        """
        if self.importance is not None:
            return self._by_importance(self.importance, trial)
        draw = self.programmer.draw(trial, sign=sign, reads=reads)
        return self._measured(draw, trial, self._pushed(draw) if control and self.points else [], sign=sign, reads=reads)

    def _by_importance(self, importance: Importance, trial: int) -> Outcome:
        """Return a trial whose faults of stored weights hold one in any case, beside the same trial without any."""
        chosen = importance.chosen(seed=self.seed, trial=trial)
        masks = {node: site.masks(seed=self.seed, trial=trial) for node, site in importance.sites.items()}
        masks[chosen.node][chosen.number] |= np.uint16(1 << chosen.bit)
        words = self._sound_words() | {node: site.reading(masks[node]) for node, site in importance.sites.items()}
        weight = importance.weight(masks)
        base = self.fixed or self._measured(self.programmer.draw(trial, words=self._sound_words()), trial, [])
        found = self._measured(self.programmer.draw(trial, words=words), trial, [])
        correct = None if base.correct is None or found.correct is None else base.correct + weight * (found.correct * 1.0 - base.correct)
        return Outcome(
            loss=base.loss + weight * (found.loss - base.loss), control=np.nan, correct=correct, power_w=base.power_w, base=base.loss,
            weight=weight,
        )  # fmt: skip

    def _sound_words(self) -> dict[NodeIndex, Array]:
        return {node: site.sound().sampled(seed=self.seed, trial=0) for node, site in self.programmer.words.items()}

    def _measured(self, draw: Draw, trial: int, pushed: list[Array], *, sign: float = 1.0, reads: int | None = None) -> Outcome:
        loss = controlled = power = 0.0
        correct: list[Array] = []
        start = 0
        for number, images in enumerate(self.chunks):
            meter = _Meter(self.layers, draw) if trial < N_POWER_TRIALS else None
            output = _flat(self._output(draw, trial, number, images, meter, sign, reads))
            wanted = self.reference[start : start + len(output)]
            loss += float(np.sum((output - wanted) ** 2))
            if pushed:
                controlled += float(np.sum((self.mean_outputs[number] + pushed[number] - wanted) ** 2))
            if self.labels is not None:
                correct.append(output.argmax(axis=1) == self.labels[start : start + len(output)])
            power += meter.sum_w if meter is not None else 0.0
            start += len(output)
        n = self.reference.size
        return Outcome(
            loss=loss / n,
            control=controlled / n if pushed else np.nan,
            correct=np.concatenate(correct) if correct else None,
            power_w=power / start if trial < N_POWER_TRIALS else np.nan,
        )

    def _output(
        self, draw: Draw, trial: int, number: int, images: Array, meter: "_Meter | None", sign: float, reads: int | None
    ) -> Array:
        if meter is None and self.programs:
            return self.programs[images.shape[-1]].run(images, draw.view.weights, draw.view.biases)
        return run(self.graph, images, apply=self.applied(draw, trial, number=number, meter=meter, sign=sign, reads=reads))

    def _pushed(self, draw: Draw) -> list[Array]:
        """Return the linear response to a programming, `(images, n_out)` for each chunk."""
        mean = self.programmer.mean
        errors = {n: w - mean.weights[n] for n, w in draw.view.weights.items()}
        bias_errors = {n: b - mean.biases[n] for n, b in draw.view.biases.items()}
        return [_flat(push(point, errors, bias_errors)) for point in self.points]

    def applied(
        self, draw: Draw, trial: int, *, number: int, meter: "_Meter | None" = None, sign: float = 1.0, reads: int | None = None,
        stored: Reader | None = None,
    ) -> Apply:
        """Return the `apply` that walks chunk `number` on the chip of a draw, reads and stored values included; `stored` reads these."""
        view = draw.view

        def sampled(site: SignalSite, block: int, values: Array) -> Array:
            again = reads if reads is not None and site.is_fresh else trial
            return site.sampled(values, seed=self.seed, trial=again, chunk=number, number=block, sign=sign)

        stored = stored or sampled

        def apply(i: NodeIndex, inputs: tuple[Array, ...]) -> Array:
            operator = self.graph.nodes[i].operator
            if not isinstance(operator, MatrixOperator):
                return operator.forward(*inputs)
            if meter is not None:
                meter.read(i, inputs[0])
            if i in view.paths:
                reads = reads_of(self.layers[i].site, draw, seed=self.seed, trial=trial, chunk=number)
                return view.product(i, operator, inputs[0], stored=stored, **reads)
            y = view.product(i, operator, inputs[0], stored=stored)
            if i in self.read_sites:
                y += self._read_noise(i, draw, inputs[0], y.shape, trial, number)
            return y

        return apply

    def _read_noise(self, i: NodeIndex, draw: Draw, x: Array, shape: tuple[int, ...], trial: int, number: int) -> Array:
        """One read a position and image: the sum over a column's independent Gaussian reads is Gaussian."""
        layer = self.layers[i]
        law, site = layer.site.read_law, layer.site
        assert law is not None  # only layers with read noise come here
        seen = tuple(law.variance_siemens2(cells, site.cell.g_max_siemens) for cells in draw.cells[layer.name])
        in_weights = site.weight_variance(seen, site.read_scale_siemens)
        spread = layer.operator.multiply(in_weights.astype(np.float32), x * x)
        draws = normals(np.empty(shape, np.float32), seed=self.seed, site=self.read_sites[i] ^ (number << 20), trial=trial)
        return np.sqrt(spread, out=spread) * draws


def is_random(plan: Plan, *, words: bool = True, fresh: bool = True) -> bool:
    """Whether trials differ: by cells, reads, values in memories, and `words` of weights; `fresh`: also by what each inference has anew."""
    for layer in plan.layers:
        sites = [site for site in (layer.site, layer.bias_site) if site is not None]
        if any(site.chain.laws or (fresh and site.read_law is not None) for site in sites):
            return True
        if words and isinstance(layer.site, WordSite) and layer.site.is_sparse and (fresh or not layer.site.is_fresh):
            return True
        if layer.buffers is not None and any(site.errs and (fresh or not site.is_fresh) for _, site in layer.buffers.sites()):
            return True
    return False


class _Meter:
    """Adds up `G v^2` and amplifier power over layers and images of one trial."""

    def __init__(self, layers: dict, draw: Draw) -> None:  # type: ignore[type-arg]
        self.layers, self.draw, self.sum_w = layers, draw, 0.0

    def read(self, i: NodeIndex, x: Array) -> None:
        """Account the reads of node i for inputs `(*shape, B)`."""
        layer = self.layers[i]
        if layer.name not in self.draw.cells:  # its weights are words
            return
        cells, n_images = self.draw.cells[layer.name], x.shape[-1]
        total = np.sum(cells, axis=0, dtype=np.float64)
        self.sum_w += float(np.sum(total * row_activity(layer, x))) * layer.volts_per_unit**2 * n_images
        feedback = layer.sense.feedback_ohm
        if feedback is not None:
            seen = x if layer.path is None else layer.path.current_drive(x)
            squares = sum(float(column_squares(layer.operator, g, seen).sum()) for g in cells)
            self.sum_w += feedback * squares * layer.volts_per_unit**2


def _flat(output: Array) -> Array:
    return from_lanes(output).reshape(output.shape[-1], -1).astype(np.float64)
