"""Faults that meet: the MSE of wrong bits drawn together, each image with faults of its own.

Single events (`events`) know nothing of faults that meet in nonlinearities, and neither the linear response nor the two moments of what is
read tell what they do: a control variate saves a few percent, Gaussian weights of the same moments err by 20 % and 25 % (docs, Memory). So
faults are drawn. Images that share their faults scatter alike, and say little more than one of them; here each has its own, by products of
single weights (`workloads.lane_products`), which makes a pass over 32 images worth about 17 to 20 that share. With f(S) what faults S add
to an image's loss beside the same image, chip and reads without them,

    MSE = MSE without faults + E f(S),      E f(S) = Z E f(S') / A(S')                                           (1)

where rare faults of weights are drawn by importance (`sampling.importance`): one of the S' is there in any case, in proportion to its
damage. Bits that do least, together `LEFT_OUT` of what a layer's single events do, are not drawn; they count in proportion to the others.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from scipy import stats

from accelsim.placement import PlacedLayer, Plan
from accelsim.prediction.event_sources import SCALES, Source, WeightSource
from accelsim.prediction.question import Question, Verdict
from accelsim.response.labels import usable_labels
from accelsim.response.linear import Response
from accelsim.sampling.few_faults import Places, few_masks, merged
from accelsim.sampling.importance import floored
from accelsim.sampling.monte_carlo import monte_carlo
from accelsim.sampling.trials import TrialRunner, is_random
from accelsim.stored_signals import SignalSite
from accelsim.stored_weights import WordSite
from accelsim.stored_words import independent, wrong_rates
from devices.word_format import Floats, Words, values_of
from workloads.lane_products import LaneChanges, add_lane_products
from workloads.network import NodeIndex, from_lanes, to_lanes
from workloads.operators.base import Array
from workloads.operators.matrix import MatrixOperator
from workloads.walk import run

LANES = 64
"""Images that pass together, at least; few images are repeated, each time with other faults."""
MAX_BYTES = 2**29
"""Values of the lanes that pass together."""
MIN_PASSES, MAX_LANES, MAX_PRODUCTS = 24, 200_000, 1e13
"""Passes at least; lanes at most, and their multiply-adds (a few minutes), as trials of `corrected` have them."""
FEW_FAULTS = 5.0
"""Faults of a trial, as many as count, below which they are drawn by importance; it takes half as long again."""
RARE = 0.02
"""Faults of values at a time, as many as count, below which single events cost less than passes."""
MAX_WRONG = 0.15
"""Share of the products whose weight may be wrong: 0.3 took minutes."""
LEFT_OUT = 0.004
N_CHIPS = 480
"""Trials that say how far chips are apart."""
PRECISION = 0.2, 0.5, 0.95
"""Half-width of the 95 % interval over the tolerance: the least and the most that is wanted, and what it may be with all other errors."""
OWN_TRIALS = 0x5EED_C0DE_0000_0003
"""Turns a seed into the one of the chips and reads that faults meet here."""


def can_be_joint(plan: Plan) -> bool:
    """Whether all of a plan's faults are wrong bits that err independently, where sums of weights' products are not stored.

    Where too many weights are wrong at a time, products of single weights cost more than what images of their own save.
    """
    wrong = sum(layer.n_products * _wrong_share(site) for layer, site in _digital(plan))
    if wrong > MAX_WRONG * sum(layer.n_products for layer, _ in _digital(plan)):
        return False
    for layer in plan.layers:
        if isinstance(layer.site, WordSite):
            stored_sums = layer.buffers is not None and layer.buffers.sums is not None
            if layer.site.is_sparse and (stored_sums or not independent(layer.site.memory)):
                return False
        elif layer.site.is_sparse:
            return False
    return True


def _digital(plan: Plan) -> list[tuple[PlacedLayer, WordSite]]:
    return [(layer, layer.site) for layer in plan.layers if isinstance(layer.site, WordSite)]


def _wrong_share(site: WordSite) -> float:
    """Return how many of a layer's words have a wrong bit at a time, at most."""
    return 1.0 - float(np.prod(1.0 - np.maximum(*wrong_rates(site.memory)))) if site.is_sparse else 0.0


def rare_for(plan: Plan) -> float:
    """Return the number of faults at a time, as many as count, below which single events cost less, even if many are needed.

    Those of weights alone can be drawn by importance, however rare.
    """
    return RARE if any(layer.buffers is not None and layer.buffers.errs for layer in plan.layers) else 0.0


def joint_faults(question: Question, response: Response, healthy: Verdict, healthy_plan: Plan, sources: Sequence[Source]) -> Verdict:
    """Return the verdict on a plan with faults from that on the same plan without, and passes with faults drawn together.

    `sources` are those of its single events, sampled: they say which bits count.
    """
    drawn, factor = _that_count(sources)
    runner = _Joint(question, healthy_plan, drawn, response)
    tally = runner.run(healthy, factor)
    added, width = factor * tally.added, factor * tally.half_width
    mse = healthy.mse + added
    bias2 = min(tally.bias2(healthy.mean_output - question.wanted), mse)
    variance = mse - bias2
    base = response.covariance if healthy.covariance is None or healthy.variance <= 0.0 else healthy.covariance
    spread = response.variance if base is response.covariance else healthy.variance
    return Verdict(
        method="joint",
        reason=f"faults drawn together, each image with its own, {tally.n_passes} times: {100 * added / max(mse, 1e-300):.0f} % of the MSE",
        bias2=bias2,
        variance=variance,
        mse_se=float(np.hypot(healthy.mse_se, factor * tally.se)),
        rel_error_estimate=(healthy.rel_error_estimate * healthy.mse + width + (factor - 1.0) * added) / max(mse, 1e-300),
        mean_output=healthy.mean_output + tally.shift,
        covariance=None if base is None or not spread > 0.0 else variance / spread * base,
        by_output=None,
        accuracy=tally.accuracy,
        details={"n_passes": float(tally.n_passes)} | ({"chip_sd": _chip_sd(question)} if any(s.lasting for s in sources) else {}),
    )


def _chip_sd(question: Question) -> float:
    """Return the spread over chips of the MSE, whose faults all images share, from a few trials."""
    trials = monte_carlo(
        question.plan, question.samples, seed=question.seed ^ OWN_TRIALS, rel_error=1e-6, max_trials=N_CHIPS, control_variate=False,
        output=question.graph.nodes[question.graph.output].name, reference=question.reference, threads=1,
    )  # fmt: skip
    return trials.mse_chip_sd


def _that_count(sources: Sequence[Source]) -> tuple[list[Source], float]:
    """Return the sources without the bits that do least in their layer, and what the others' part is multiplied with.

    A layer's faults are never left out as a whole: how they meet with others' says no sum over single events.
    """
    total, kept = sum(source.mean for source in sources), list[Source]()
    for layer in dict.fromkeys(source.layer for source in sources):
        own = sorted((s for s in sources if s.layer == layer), key=lambda source: source.mean)
        in_layer, left = sum(s.mean for s in own), 0.0
        while own and isinstance(own[0], WeightSource) and left + own[0].mean <= LEFT_OUT * in_layer:
            left += own.pop(0).mean
        kept += own
    counted = sum(source.mean for source in kept)
    return kept, total / counted if counted > 0.0 else 1.0


@dataclass(slots=True, kw_only=True, eq=False)
class _Tally:
    """What passes found.

    Parameters
    ----------
    by_pass
        What faults add to the MSE, each pass over all images.
    n_each
        Lanes an image has had.
    shifts, squares
        Sums of the outputs' changes `(N, n_out)`, and of their squares over n_out, `(N,)`.
    correct
        Right answers by pass, as a share; none without labels.
    """

    shifts: Array
    squares: Array
    n_each: int = 0
    by_pass: list[float] = field(default_factory=list)
    correct: list[float] = field(default_factory=list)

    @property
    def n_passes(self) -> int:
        """Passes over all images."""
        return len(self.by_pass)

    @property
    def added(self) -> float:
        """MSE that faults add."""
        return float(np.mean(self.by_pass))

    @property
    def se(self) -> float:
        """Its standard error."""
        return float(np.std(self.by_pass, ddof=1) / np.sqrt(self.n_passes)) if self.n_passes > 1 else np.inf

    @property
    def half_width(self) -> float:
        """Half-width of its 95 % interval."""
        return float(stats.t.ppf(0.975, max(self.n_passes - 1, 1))) * self.se

    @property
    def shift(self) -> Array:
        """Mean change of the outputs `(N, n_out)`."""
        return self.shifts / self.n_each

    @property
    def accuracy(self) -> float | None:
        """Share of right answers."""
        return float(np.clip(np.mean(self.correct), 0.0, 1.0)) if self.correct else None

    def bias2(self, before: Array) -> float:
        """Return the mean square of `before` and the shift together, without what the shift's own error adds."""
        mean = self.shift
        own = (self.squares / self.n_each - np.mean(mean**2, axis=1)) / max(self.n_each - 1, 1)
        return max(0.0, float(np.mean((before + mean) ** 2)) - float(own.mean()))


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class _Layer:
    """A layer's stored weights: flat words and steps, and the rates of their bits `(n_bits,)`, 0 for bits that are not drawn."""

    site: WordSite
    words: Words
    steps: Array
    up: Floats
    down: Floats

    def changes(self, lanes: Places, numbers: Places, masks: Words, n_lanes: int) -> LaneChanges:
        """Return how far weights are off where bits are wrong, lanes in order."""
        table = values_of(self.site.memory.word)
        stored = self.words[numbers]
        change = (self.steps[numbers] * (table[stored ^ masks] - table[stored])).astype(np.float32)
        return LaneChanges(starts=np.searchsorted(lanes, np.arange(n_lanes + 1)), number=numbers, change=change)


class _Joint:
    """Passes over all images, without faults and with them."""

    def __init__(self, question: Question, healthy: Plan, sources: Sequence[Source], response: Response) -> None:
        self.question, self.graph = question, question.graph
        n_images, seed = len(question.samples), question.seed ^ OWN_TRIALS
        self.trials = TrialRunner(healthy, self.graph, question.samples, reference=question.wanted, seed=seed, control=False)
        self.labels, _ = usable_labels(question.samples.y, question.wanted.shape[1])
        fitting = max(1, MAX_BYTES // (8 * question.plan.activation_elements()))
        self.copies = max(1, min(LANES, fitting) // n_images)
        self.size = min(n_images, fitting, 4 * LANES)
        self.fixed = None if is_random(healthy) else self._without()
        self.layers = {node: _layer(site, sources) for node, site in _word_sites(question.plan).items()}
        stored = [(layer.name, site) for layer in question.plan.layers if layer.buffers for _, site in layer.buffers.sites()]
        self.signals = {(layer, site.part): site for layer, site in stored if site.errs}
        self.importance = None if self.signals else _Importance.of(self.layers, response, sources)

    def run(self, healthy: Verdict, factor: float) -> _Tally:
        """Pass until the MSE is known well enough, its part without faults being given; tested at fixed numbers of passes."""
        n_images, n_out = self.question.wanted.shape
        tally, enough = _Tally(shifts=np.zeros((n_images, n_out)), squares=np.zeros(n_images)), MIN_PASSES
        products = sum(layer.n_products for layer in self.question.plan.layers)
        most = max(MIN_PASSES, int(min(MAX_LANES, MAX_PRODUCTS / products)) // (n_images * self.copies))
        while tally.n_passes < most:
            self._pass(tally)
            if tally.n_passes == enough:
                if factor * tally.half_width <= self._allowed(healthy, healthy.mse + factor * tally.added):
                    break
                enough += max(4, enough // 5)
        return tally

    def _allowed(self, healthy: Verdict, mse: float) -> float:
        """Return the half-width of the interval that is narrow enough."""
        least, most, in_all = (share * self.question.tol_rel * mse for share in PRECISION)
        return float(np.clip(in_all - healthy.rel_error_estimate * healthy.mse, least, most))

    def _pass(self, tally: _Tally) -> None:
        number, n_images, added, correct = tally.n_passes, len(self.question.samples), 0.0, 0.0
        for start in range(0, n_images, self.size):
            chosen = np.tile(np.arange(start, min(start + self.size, n_images)), self.copies)
            trial = number * n_images + start
            before = self._outputs(chosen, trial) if self.fixed is None else self.fixed[chosen]
            after, weight = self._with_faults(chosen, trial)
            wanted, off = self.question.wanted[chosen], weight[:, None] * (after - before)
            losses = weight * (np.mean((after - wanted) ** 2, axis=1) - np.mean((before - wanted) ** 2, axis=1))
            added += float(losses.sum())
            np.add.at(tally.shifts, chosen, off)
            np.add.at(tally.squares, chosen, np.mean(off**2, axis=1))
            if self.labels is not None:
                right = [(y.argmax(axis=1) == self.labels[chosen]).astype(np.float64) for y in (before, after)]
                correct += float(np.sum(right[0] + weight * (right[1] - right[0])))
        tally.n_each += self.copies
        tally.by_pass.append(added / (n_images * self.copies))
        if self.labels is not None:
            tally.correct.append(correct / (n_images * self.copies))

    def _without(self) -> Array:
        n = len(self.question.samples)
        return np.concatenate([self._outputs(np.arange(i, min(i + self.size, n)), 0) for i in range(0, n, self.size)])

    def _outputs(self, chosen: Places, trial: int) -> Array:
        """Return the outputs `(lanes, n_out)` without faults."""
        apply = self.trials.applied(self.trials.programmer.draw(trial), trial, number=0)
        return _flat(run(self.graph, to_lanes(self.question.samples.x[chosen]), apply=apply))

    def _with_faults(self, chosen: Places, trial: int) -> tuple[Array, Array]:
        """Return the outputs with faults, and what each lane counts."""
        random = np.random.default_rng([self.question.seed & 0xFFFF_FFFF_FFFF_FFFF, 0x101A7, trial])
        found, weight = self._drawn(random, len(chosen))
        changes = {node: self.layers[node].changes(*faults, len(chosen)) for node, faults in found.items()}
        draw = self.trials.programmer.draw(trial)

        def stored(site: SignalSite, block: int, values: Array) -> Array:
            return self._read(random, self.signals.get((site.layer, site.part), site), block, values, trial)

        usual = self.trials.applied(draw, trial, number=0, stored=stored)

        def apply(i: NodeIndex, inputs: tuple[Array, ...]) -> Array:
            operator = self.graph.nodes[i].operator
            if i not in changes:
                return usual(i, inputs)
            assert isinstance(operator, MatrixOperator)  # only they have weights
            x = draw.view.arriving(i, inputs[0], stored)
            y = operator.multiply(draw.view.weights[i], x)
            add_lane_products(operator, changes[i], x, y)
            return operator.with_bias(y)

        return _flat(run(self.graph, to_lanes(self.question.samples.x[chosen]), apply=apply)), weight

    def _drawn(self, random: np.random.Generator, n_lanes: int) -> tuple[dict[NodeIndex, tuple[Places, Places, Words]], Array]:
        """Return lanes, numbers and masks of the wrong words by node, and each lane's weight."""
        found = {n: few_masks(random, one.words, one.up, one.down, n_lanes) for n, one in self.layers.items()}
        if self.importance is not None:
            found = self.importance.with_one(random, found, n_lanes)
        split = {n: (at // len(self.layers[n].words), at % len(self.layers[n].words), masks) for n, (at, masks) in found.items()}
        return split, np.ones(n_lanes) if self.importance is None else self.importance.weights(split, n_lanes)

    def _read(self, random: np.random.Generator, site: SignalSite, block: int, values: Array, trial: int) -> Array:
        """Return what values read as, each image with faults of its own."""
        if not site.errs:
            return site.mean(values)
        if not independent(site.memory):
            return site.sampled(values, seed=self.question.seed ^ OWN_TRIALS, trial=trial, number=block)
        words = site.words(values).reshape(-1)
        at, masks = few_masks(random, words, *wrong_rates(site.memory))
        table = (site.step * values_of(site.memory.word)).astype(values.dtype)
        read = table[words]
        read[at] = table[words[at] ^ masks]
        return read.reshape(values.shape)


class _Importance:
    """Draws a wrong bit for each lane, by (1), and says what the lane counts."""

    def __init__(self, damages: Mapping[NodeIndex, Array], rates: Mapping[NodeIndex, Array]) -> None:
        """Take damage and probability of each bit by node, `(n_bits, n)`."""
        self.damages = damages
        self.sums = np.cumsum(np.concatenate([(rates[n] * damages[n]).ravel() for n in damages]))
        self.ends = np.cumsum([damages[n].size for n in damages])
        self.total = float(self.sums[-1])

    @classmethod
    def of(cls, layers: Mapping[NodeIndex, _Layer], response: Response, sources: Sequence[Source]) -> "_Importance | None":
        """Return the importance of the drawn bits; None where there are none, or enough in every trial."""
        scales = {(s.events.layer.node, s.events.bit): s.mean / s.linear for s in sources if isinstance(s, WeightSource) and s.linear > 0.0}
        damages, rates = {}, {}
        for node, one in layers.items():
            power = floored(response.layers[one.site.layer].power)
            events = [(bit, p.ravel(), (change**2 * power).ravel()) for bit, p, change in one.site.events()]
            damages[node] = np.stack([found * np.clip(scales.get((node, bit), 1.0), *SCALES) for bit, _, found in events])
            rates[node] = np.stack([p if one.up[bit] + one.down[bit] > 0.0 else np.zeros_like(p) for bit, p, _ in events])
        squares = sum(float(np.sum(rates[n] * damages[n] ** 2)) for n in layers)
        total = sum(float(np.sum(rates[n] * damages[n])) for n in layers)
        return cls(damages, rates) if 0.0 < total**2 < FEW_FAULTS * squares else None

    def with_one(
        self, random: np.random.Generator, found: Mapping[NodeIndex, tuple[Places, Words]], n_lanes: int
    ) -> dict[NodeIndex, tuple[Places, Words]]:
        """Return wrong words, as `few_masks` has them, with one bit more in each lane that is wrong in any case."""
        chosen = np.minimum(np.searchsorted(self.sums, random.random(n_lanes) * self.total, side="right"), len(self.sums) - 1)
        with_them = {}
        for node, begin, end in zip(self.damages, [0, *self.ends], self.ends):
            lanes = np.flatnonzero((chosen >= begin) & (chosen < end))
            n = self.damages[node].shape[1]
            bits, numbers = np.divmod(chosen[lanes] - begin, n)
            places, masks = found[node]
            with_them[node] = merged(np.append(places, lanes * n + numbers), np.append(masks, np.left_shift(1, bits).astype(np.uint16)))
        return with_them

    def weights(self, found: Mapping[NodeIndex, tuple[Places, Places, Words]], n_lanes: int) -> Array:
        """Return Z / A by lane."""
        wrong = np.zeros(n_lanes)
        for node, (lanes, numbers, masks) in found.items():
            for bit, damage in enumerate(self.damages[node]):
                on = ((masks >> bit) & 1).astype(bool)
                wrong += np.bincount(lanes[on], weights=damage[numbers[on]], minlength=n_lanes)
        return self.total / wrong


def _word_sites(plan: Plan) -> dict[NodeIndex, WordSite]:
    return {layer.node: layer.site for layer in plan.layers if isinstance(layer.site, WordSite) and layer.site.is_sparse}


def _layer(site: WordSite, sources: Sequence[Source]) -> _Layer:
    drawn = {s.events.bit for s in sources if isinstance(s, WeightSource) and s.layer == site.layer}
    up, down = (np.where(np.isin(np.arange(len(rates)), list(drawn)), rates, 0.0) for rates in wrong_rates(site.memory))
    by_column = site.step.reshape(-1, *(1,) * (site.words.ndim - 1))
    return _Layer(
        site=site, words=site.words.reshape(-1), steps=np.broadcast_to(by_column, site.words.shape).reshape(-1), up=up, down=down
    )


def _flat(output: Array) -> Array:
    return from_lanes(output).reshape(output.shape[-1], -1).astype(np.float64)
