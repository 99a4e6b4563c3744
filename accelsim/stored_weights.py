"""Weights of a layer that are words in a memory: the layer is computed digitally from what is read.

    w = step k,   k the number that a word reads as;   step = full scale / greatest k, one a layer or column
    binary    w = s sign(w), s the mean of |w|                                   (Rastegari et al., arXiv 1603.05279)
    ternary   w = s sign(w) where |w| > 0.7 mean |w|, s the mean of those        (Li, Zhang, Liu, arXiv 1605.04711)

A word is wrong bit by bit (`devices.memory_faults`): mean and variance of what is read are exact, and every single wrong bit is an event.
One draw serves all images of a chunk: persistent faults are so, and for transient ones, which are fresh at each inference, the mean over
images is the same.
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np

from accelsim.lower import ArraySite, Cells, WeightMoments
from accelsim.memory_spec import StoredWeights
from accelsim.stored_words import KEPT_OVER_MEAN, Event, errs, events_of, independent, quantized, read_words, wrong_bits
from devices.memory import Memory
from devices.word_format import Integers, Words
from workloads.operators.base import Array


@dataclass(frozen=True, kw_only=True, eq=False)
class WordSite(ArraySite):
    """The words of one layer's weights, and what may be wrong with them.

    It answers what a site of cells answers; there are no cells, so no conductance is used and no power is taken by them.

    Parameters
    ----------
    spec, memory
        The spec's table, and the memory at its operating point.
    faulty
        Whether bits err; without, words are read as they are stored.
    """

    spec: StoredWeights
    memory: Memory
    faulty: bool = True

    @cached_property
    def step(self) -> Array:
        """Value of one, one a column; 0 for a column of zeros."""
        return steps_of(self.spec, self.operator.weights.reshape(self.operator.n_columns, -1).astype(np.float64))

    @cached_property
    def words(self) -> Words:
        """The words that are stored, in the shape of the weights."""
        return self.memory.word.encode(numbers_of(self.spec, self.values, self._by_column(self.step)))

    @property
    def is_sparse(self) -> bool:
        """Whether bits err at all."""
        return self.faulty and errs(self.memory)

    @property
    def is_quantized(self) -> bool:
        """Whether what is stored is not the float weights: words never are."""
        return True

    @property
    def scale_siemens(self) -> Array:
        """No conductance stands for a weight."""
        return np.zeros(self.operator.n_columns)

    @property
    def span_siemens(self) -> Array:
        """No range of conductances is used."""
        return np.zeros(self.operator.n_columns)

    def targets(self, *, quantized: bool = True) -> Cells:
        """Return no conductance."""
        return self.stored()[0]

    def sound(self) -> "WordSite":
        """Return the site whose bits do not err."""
        return replace(self, faulty=False)

    def with_spec(self, spec: StoredWeights) -> "WordSite":
        """Return the same weights in another memory."""
        return replace(self, spec=spec, memory=spec.memory())

    def blocks(self) -> "Iterator[ArraySite]":
        """Yield the site as it is."""
        yield self

    def ideal_weights(self) -> Array:
        """Return the weights that the words stand for."""
        return self._by_column(self.step) * self.memory.word.decode(self.words)

    def stored(self, *, quantized: bool = True) -> tuple[Cells, Cells]:
        """Return no conductance, and no variance of any."""
        none = np.zeros(self.operator.weights.shape)
        return (none, none), (none, none)

    def moments(self, *, quantized: bool = True) -> WeightMoments:
        """Return mean and variance of the weights that are read; without `quantized` the errors are those of the float weights."""
        start = self.ideal_weights() if quantized else self.values
        if not self.is_sparse:
            return WeightMoments(mean=start, variance=np.zeros_like(start))
        step, found = self._by_column(self.step), self.memory.moments(self.words)
        return WeightMoments(mean=start + step * found.mean_error, variance=step**2 * found.variance)

    def single_faults(self) -> Iterator[Event]:
        """Yield single faults as `(bit, probability, change in steps)`, by the word that is stored."""
        return events_of(self.memory)

    def events(self) -> Iterator[Event]:
        """Yield single faults as `(bit, probability, change of the weight)`, in the shape of the weights."""
        if self.is_sparse:
            step = self._by_column(self.step)
            for bit, p, change in self.single_faults():
                yield bit, p[self.words], step * change[self.words]

    @property
    def is_fresh(self) -> bool:
        """Whether faults are fresh at each inference, not those of a chip."""
        return self.is_sparse and self.memory.faults.scope == "read"

    def masks(self, *, seed: int, trial: int, sign: float = 1.0) -> Words:
        """Return which bits of each number `(n,)` are wrong in a trial: only where bits are `independent`."""
        return wrong_bits(self.memory, self.words.reshape(-1), layer=self.layer, kind="weights", seed=seed, trial=trial, sign=sign)

    def reading(self, masks: Words) -> Array:
        """Return the weights that are read where so many bits are wrong, float32."""
        return self._weights(self.memory.word.decode(self.words.reshape(-1) ^ masks))

    def sampled(self, *, seed: int, trial: int, sign: float = 1.0) -> Array:
        """Return the weights that are read in a trial, float32; arguments as of `read_words`."""
        if not self.is_sparse:
            return self.ideal_weights().astype(np.float32)
        if independent(self.memory):
            return self.reading(self.masks(seed=seed, trial=trial, sign=sign))
        flat = self.words.reshape(-1)
        return self._weights(read_words(self.memory, flat, layer=self.layer, kind="weights", seed=seed, trial=trial, sign=sign))

    def _weights(self, numbers: Integers) -> Array:
        return (self._by_column(self.step) * numbers.reshape(self.words.shape)).astype(np.float32)


def steps_of(spec: StoredWeights, by_column: Array) -> Array:
    """Return the value of one, by column, for weights `(n_columns, n_rows)`."""
    largest = np.abs(by_column)
    if spec.step_per == "layer":
        largest = largest.reshape(1, -1)
    if spec.full_scale is not None:
        top = np.full(1, spec.full_scale)
    elif spec.word.coding == "binary":
        top = largest.mean(axis=1)
    elif spec.word.coding == "ternary":
        kept = largest > KEPT_OVER_MEAN * largest.mean(axis=1, keepdims=True)
        top = np.divide((largest * kept).sum(axis=1), kept.sum(axis=1), out=np.zeros(len(kept)), where=kept.any(axis=1))
    else:
        top = largest.max(axis=1)
    return np.array(np.broadcast_to(top / spec.word.greatest, (len(by_column),)))


def numbers_of(spec: StoredWeights, values: Array, step: Array) -> Array:
    """Return the whole numbers that weights are stored as, `step` broadcasting over `values`."""
    if spec.word.coding != "ternary":
        return quantized(spec.word, values, step)
    magnitude = np.abs(values)
    axes = tuple(range(1 if spec.step_per == "column" else 0, values.ndim))
    kept = magnitude > KEPT_OVER_MEAN * magnitude.mean(axis=axes, keepdims=True)
    return (np.sign(values) * kept).astype(np.int32)
