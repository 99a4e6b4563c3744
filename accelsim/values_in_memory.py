"""Which values of which layers are in memories, over which range, and how often each memory is read and written.

Ranges are those of the float network's inputs, and of the sums of row blocks of ideal stored weights on inputs as they are stored.
"""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from accelsim.accelerator import Accelerator
from accelsim.calibration import Signal
from accelsim.datapath import Block, DataPath, block_sums, blocks_of
from accelsim.lower import ArraySite
from accelsim.memory_spec import StoredSignals
from accelsim.stored_signals import Buffers, SignalSite, full_scale_of
from accelsim.stored_weights import WordSite
from devices.memory import Memory
from workloads.operators.base import Array
from workloads.operators.matrix import MatrixOperator

Watch = Callable[[int, Array], None]
PARTS = {"inputs": "activations", "sums": "partial_sums"}


def calibrated_buffers(
    sites: dict[int, ArraySite],
    locals_: dict[int, Accelerator],
    paths: dict[int, DataPath],
    walk_inputs: Callable[[Watch], None] | None,
) -> dict[int, Buffers]:
    """Return the memories of each layer's values; `walk_inputs(watch)` shows all layers' inputs, chunk by chunk (None: ranges of 1)."""
    inputs = {i: spec for i, local in locals_.items() if (spec := _spec(local, "inputs")) is not None}
    blocks = {i: _blocks(sites[i], locals_[i]) for i in sites}
    sums = {i: spec for i, local in locals_.items() if (spec := _spec(local, "sums")) is not None and len(blocks[i]) > 1}
    if not inputs and not sums:
        return {}
    seen = {i: Signal() for i in inputs}
    if walk_inputs is not None:
        walk_inputs(lambda i, x: seen[i].add(x) if i in seen else None)
    found = {i: Buffers(inputs=_site(sites[i].layer, "inputs", spec, seen[i])) for i, spec in inputs.items()}
    added = {i: Signal() for i in sums}
    if sums and walk_inputs is not None:
        walk_inputs(_watching_sums(sites, paths, blocks, found, added))
    for i, spec in sums.items():
        before = found.get(i, Buffers())
        found[i] = Buffers(inputs=before.inputs, sums=_site(sites[i].layer, "sums", spec, added[i]), blocks=blocks[i])
    return found


def _spec(local: Accelerator, name: str) -> StoredSignals | None:
    return None if local.memory is None else getattr(local.memory, PARTS[name])


def _blocks(site: ArraySite, local: Accelerator) -> tuple[Block, ...]:
    size = local.mapping.array
    rows = None if size is None else size.n_rows
    return () if rows is None or rows >= site.operator.n_rows else blocks_of(site.operator, rows)


def _site(layer: str, name: str, spec: StoredSignals, signal: Signal) -> SignalSite:
    top = full_scale_of(spec, signal.low, signal.high, signal.values(), layer=layer, part=PARTS[name])
    memory = spec.memory()
    return SignalSite(layer=layer, part=PARTS[name], spec=spec, memory=memory, step=top / memory.word.greatest)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Access:
    """How often a memory's numbers are read and written in one inference of a layer, and what that takes."""

    part: str
    layer: str
    memory: Memory
    reads: int
    writes: int

    @property
    def energy_j(self) -> float:
        """Energy of an inference."""
        return self.read_j + self.write_j

    @property
    def read_j(self) -> float:
        """Energy of an inference's reads."""
        return self.memory.cost("read", n_values=self.reads).energy_j

    @property
    def write_j(self) -> float:
        """Energy of an inference's writes."""
        return self.memory.cost("write", n_values=self.writes).energy_j


class Reader(Protocol):
    """What of a placed layer says how often it reads and writes."""

    @property
    def name(self) -> str: ...

    @property
    def operator(self) -> MatrixOperator: ...

    @property
    def site(self) -> ArraySite: ...

    @property
    def buffers(self) -> Buffers | None: ...

    @property
    def n_inputs(self) -> int: ...


def accesses_of(layer: Reader) -> Iterator[Access]:
    """Yield what one inference of a layer reads and writes: numbers, each of as many bits as its word.

    Weights are written before, and read once an inference (or once a position). Inputs are written once and read once (or as often as a
    position's window covers them). Each row block's sum is written and read once.
    """
    operator, site = layer.operator, layer.site
    if isinstance(site, WordSite):
        times = operator.n_positions if site.spec.read_each == "position" else 1
        yield Access(part="weights", layer=layer.name, memory=site.memory, reads=operator.weights.size * times, writes=0)
    buffers = layer.buffers
    if buffers is None:
        return
    if buffers.inputs is not None:
        n = layer.n_inputs
        reads = operator.n_rows * operator.n_positions if buffers.inputs.spec.read_each == "position" else n
        yield Access(part="activations", layer=layer.name, memory=buffers.inputs.memory, reads=reads, writes=n)
    if buffers.sums is not None:
        n = operator.n_columns * operator.n_positions * len(buffers.blocks)
        yield Access(part="partial_sums", layer=layer.name, memory=buffers.sums.memory, reads=n, writes=n)


def _watching_sums(
    sites: dict[int, ArraySite],
    paths: dict[int, DataPath],
    blocks: dict[int, tuple[Block, ...]],
    buffers: dict[int, Buffers],
    added: dict[int, Signal],
) -> Watch:
    weights = {i: sites[i].ideal_weights().astype(np.float32) for i in added if i not in paths}
    slices = {i: tuple(part.astype(np.float32) for part in sites[i].ideal_slices()) for i in added if i in paths}

    def watch(i: int, x: Array) -> None:
        if i not in added:
            return

        def keep(number: int, sums: Array) -> Array:
            added[i].add(sums)
            return sums

        stored = buffers[i].sound().read_inputs(x) if i in buffers else x
        if i in paths:
            paths[i].run(slices[i], stored, keep=keep)
        else:
            block_sums(sites[i].operator, blocks[i], weights[i], stored, keep)

    return watch


def unpriced(layers: Iterable[Reader]) -> tuple[str, ...]:
    """Return what to say of memories whose accesses take no energy, because none is given."""
    parts: dict[str, int] = {}
    for layer in layers:
        for access in accesses_of(layer):
            if not access.energy_j and access.memory.read_bits:
                parts[access.part] = parts.get(access.part, 0) + access.reads
    say = "absent, so {:,} reads an image are not in the energy; give it, joules a bit at the law's energy 1"
    return tuple(f"memory.{part}.read_energy_j: {say.format(n)}" for part, n in parts.items())
