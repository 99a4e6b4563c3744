"""Values of a layer that are words in a memory on their way: its inputs, and the sums of its row blocks.

    x_read = step k,   k = the number that the word of x / step reads as,   step = full scale / greatest k                (1)

Each value has cells of its own. Transient faults are fresh at each read, so for each image; persistent ones are those of the cell, the same
for every image. Either way one image's values err independently, with exact moments by the word that is stored.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import TypeAlias

import numpy as np

from accelsim.datapath import Block
from accelsim.memory_spec import StoredSignals
from accelsim.stored_words import Event, errs, events_of, quantized, read_words
from devices.base.errors import SpecError
from devices.memory import Memory
from devices.word_format import Words, values_of
from workloads.operators.base import Array


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class SignalSite:
    """One kind of values of one layer in a memory.

    Parameters
    ----------
    layer, part
        The layer's name; `activations` or `partial_sums`.
    spec, memory
        The spec's table, and the memory at its operating point.
    step
        Value of one.
    faulty
        Whether bits err; without, words are read as they are stored.
    """

    layer: str
    part: str
    spec: StoredSignals
    memory: Memory
    step: float
    faulty: bool = True

    @property
    def errs(self) -> bool:
        """Whether any bit is ever read wrong."""
        return self.faulty and errs(self.memory)

    @property
    def is_fresh(self) -> bool:
        """Whether faults are fresh at each inference, not those of a chip."""
        return self.memory.faults.scope == "read"

    def sound(self) -> "SignalSite":
        """Return the site whose bits do not err."""
        return replace(self, faulty=False)

    def with_spec(self, spec: StoredSignals) -> "SignalSite":
        """Return the same values in another memory, over the same range."""
        return replace(self, spec=spec, memory=spec.memory(), step=self.step * self.spec.word.greatest / spec.word.greatest)

    def words(self, x: Array) -> Words:
        """Return the words that values are stored as, in their shape."""
        return self.memory.word.encode(quantized(self.memory.word, x, self.step))

    def mean(self, x: Array) -> Array:
        """Return what values read as on average."""
        words = self.words(x)
        table = values_of(self.memory.word).astype(np.float64)
        if self.errs:
            table = table + self.memory.moments(np.arange(table.size, dtype=np.uint16)).mean_error
        return (self.step * table).astype(x.dtype)[words]

    def variance(self, x: Array) -> Array:
        """Return the variance of what values read as, given what is stored."""
        every = np.arange(1 << self.memory.word.n_bits, dtype=np.uint16)
        found = self.memory.moments(every).variance if self.errs else np.zeros(every.size)
        return (self.step**2 * found).astype(x.dtype)[self.words(x)]

    def events(self, x: Array) -> Iterator[Event]:
        """Yield single faults as `(bit, probability, change of the value)`, in the shape of the values."""
        words = self.words(x)
        for bit, p, change in events_of(self.memory) if self.errs else ():
            yield bit, p[words], self.step * change[words]

    def sampled(self, x: Array, *, seed: int, trial: int, chunk: int = 0, number: int = 0, sign: float = 1.0) -> Array:
        """Return what values `(*shape, B)` read as in a trial; `number` tells the sums of blocks apart."""
        if not self.errs:
            return self.mean(x)
        words, fresh, n_images = self.words(x), self.is_fresh, x.shape[-1]
        kind = f"{self.part} {number}"
        if self.memory.ecc is None:
            numbers = read_words(
                self.memory, words.reshape(-1), layer=self.layer, kind=kind, seed=seed, trial=trial, sign=sign,
                chunk=chunk if fresh else 0, alike=1 if fresh else n_images,
            )  # fmt: skip
        else:  # a word of the code holds values of one image
            by_image = [
                read_words(
                    self.memory, np.ascontiguousarray(words[..., b]).reshape(-1), layer=self.layer, kind=f"{kind} {b if fresh else 0}",
                    seed=seed, trial=trial, sign=sign, chunk=chunk if fresh else 0,
                )
                for b in range(n_images)
            ]  # fmt: skip
            numbers = np.stack(by_image, axis=-1)
        return (np.asarray(self.step, x.dtype) * numbers.astype(x.dtype)).reshape(x.shape)


Reader: TypeAlias = Callable[[SignalSite, int, Array], Array]
"""Returns what values read as: `(site, number of the block, values)`."""


def read_mean(site: SignalSite, number: int, x: Array) -> Array:
    """Return what values read as on average: the reader where nothing is drawn."""
    return site.mean(x)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Buffers:
    """What a layer's values are stored in: its inputs, and the sums of its row blocks; None where they are not."""

    inputs: SignalSite | None = None
    sums: SignalSite | None = None
    blocks: tuple[Block, ...] = ()

    def sound(self) -> "Buffers":
        """Return the same without faults."""
        return replace(self, **{name: site.sound() for name, site in self.sites()})  # type: ignore[arg-type]

    def sites(self) -> Iterator[tuple[str, SignalSite]]:
        """Yield the fields that are there."""
        yield from ((name, site) for name, site in (("inputs", self.inputs), ("sums", self.sums)) if site is not None)

    @property
    def errs(self) -> bool:
        """Whether any value is ever read wrong."""
        return any(site.errs for _, site in self.sites())

    def read_inputs(self, x: Array, read: Reader = read_mean) -> Array:
        """Return the inputs as they are read."""
        return x if self.inputs is None else read(self.inputs, 0, x)


def full_scale_of(spec: StoredSignals, low: float, high: float, values: Array, *, layer: str, part: str) -> float:
    """Return what the greatest number stands for, from the calibrated extremes and sampled values; 1 where all are zero."""
    if spec.word.coding == "unsigned" and low < 0.0:
        raise SpecError(
            f"memory.{part}.word.coding: unsigned: values of layer {layer!r} go down to {low:.3g}; use twos_complement there, e.g. "
            f'[layers."{layer}"] memory.{part}.word.coding = "twos_complement"'
        )
    if spec.full_scale is not None:
        return spec.full_scale
    if spec.range_percentile is None:
        largest = max(-low, high)
    else:
        largest = float(np.percentile(np.abs(values), spec.range_percentile))
    return largest if largest > 0.0 else 1.0
