"""NeuroSim V1.3's energy of each layer's arrays of ResNet-18, by a fixed energy and by the cells' law with the layer's mean input.

Published, with each layer's mean input (CiMLoop's NeuroSim notebook: ImageNet, 22 nm, 0.85 V, 128 x 128 arrays, two bits a cell, 5-bit
ADCs, 6 kohm, on/off 150; mean weight 0.4995 everywhere, so mean conductances are the same). Inputs are applied bit by bit, so a row's
mean square is its mean: with the activity of a row (mean square of its input over all positions, zeros of padding included, as the ledger
has it), columns c and a constant each,

    fixed     E = e positions rows c                       every multiply-add takes the same
    by data   E = e sum over weights of activity           conductance times squared voltage times time, summed over cells and positions
    drivers   E = by data + e' positions rows              and what charges a row's line, whatever it carries

Constants minimize the squared relative errors; each layer is also predicted with constants of the twenty others. Only means of inputs are
published, not their distributions, and a mean is not a density of bits.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from workloads.kernels import ConvGeometry
from workloads.operators.matrix import Conv

PICOJOULES = (
    14812000, 11428900, 13715100, 12980100, 11419500, 7140360, 5762520, 868856, 8977990, 5102100, 4564700, 5285790, 610931, 5571240,
    5240740, 2748430, 3278900, 465117, 3293640, 4778300, 84557.3,
)  # fmt: skip
MEAN_INPUT = (
    0.4652, 0.2924, 0.3836, 0.3516, 0.2856, 0.4104, 0.1728, 0.4210, 0.3165, 0.1448, 0.3286, 0.1943, 0.3438, 0.2086, 0.1923, 0.2110, 0.1655,
    0.2344, 0.1646, 0.2958, 0.6345,
)  # fmt: skip
MODELS: Mapping[str, tuple[str, ...]] = {"fixed": ("products",), "by_data": ("activity",), "drivers": ("activity", "driven")}
COLUMNS = (
    "layer", "mean_input", "neurosim_uj", "fixed_rel", "by_data_rel", "drivers_rel", "fixed_out_rel", "by_data_out_rel", "drivers_out_rel",
)  # fmt: skip


def _layers() -> Iterator[tuple[str, Conv]]:
    """Yield the convolutions of ResNet-18 for 224 x 224 in its order: shortcuts behind the two convolutions beside them."""

    def conv(size: int, into: int, out: int, kernel: int, stride: int) -> Conv:
        pad = kernel // 2
        g = ConvGeometry(in_shape=(into, size, size), n_out=out, kernel=(kernel,) * 2, stride=(stride,) * 2, pads=(pad,) * 4)
        return Conv(np.broadcast_to(np.float32(0.5), (out, into, kernel, kernel)), None, g)

    yield "conv1", conv(224, 3, 64, 7, 2)
    size, into = 56, 64
    for stage, out in enumerate((64, 128, 256, 512), start=1):
        for block in (1, 2):
            stride = 2 if stage > 1 and block == 1 else 1
            yield f"layer{stage}.{block}.conv1", conv(size, into, out, 3, stride)
            yield f"layer{stage}.{block}.conv2", conv(size // stride, out, out, 3, 1)
            if stride == 2:
                yield f"layer{stage}.{block}.shortcut", conv(size, into, out, 1, 2)
            size, into = size // stride, out
    yield "fc", Conv(np.broadcast_to(np.float32(0.5), (1000, 512, 1, 1)), None, ConvGeometry(in_shape=(512, 1, 1), n_out=1000), 0)


@dataclass(frozen=True, slots=True, kw_only=True)
class Counts:
    """What one layer's energy is proportional to: multiply-adds, what its cells see of its inputs, and rows driven."""

    name: str
    products: float
    activity: float
    driven: float


def counts(mean_input: tuple[float, ...] = MEAN_INPUT) -> list[Counts]:
    """Return the counts of all layers."""
    found = []
    for (name, operator), mean in zip(_layers(), mean_input):
        shape = operator.geometry.in_shape if operator.spatial else operator.geometry.in_shape[:1]
        seen = float(np.sum(operator.row_activity(np.ones((*shape, 1)))))  # positions that each weight meets an input at, not a padding
        positions = operator.n_positions
        found.append(
            Counts(
                name=name, products=float(positions * operator.n_rows * operator.n_columns), driven=float(positions * operator.n_rows),
                activity=mean * seen,
            )
        )  # fmt: skip
    return found


def relative_errors(model: str, of: list[Counts]) -> tuple[NDArray, NDArray]:
    """Return the relative error of each layer with constants of all layers, and with constants of the others."""
    energy = np.array(PICOJOULES)
    terms = np.stack([[getattr(c, name) for c in of] / energy for name in MODELS[model]], axis=1)

    def constants(rows: NDArray) -> NDArray:
        return np.linalg.lstsq(rows, np.ones(len(rows)), rcond=None)[0]

    inside = terms @ constants(terms) - 1.0
    outside = [terms[i] @ constants(np.delete(terms, i, axis=0)) - 1.0 for i in range(len(terms))]
    return inside, np.array(outside)


Row = dict[str, str | float]


def neurosim_table() -> Iterator[Row]:
    """Yield each layer's errors, then their mean and largest magnitudes."""
    of = counts()
    errors = {model: relative_errors(model, of) for model in MODELS}
    for i, c in enumerate(of):
        row: Row = {"layer": c.name, "mean_input": MEAN_INPUT[i], "neurosim_uj": PICOJOULES[i] * 1e-6}
        row |= {f"{model}_rel": float(inside[i]) for model, (inside, _) in errors.items()}
        yield row | {f"{model}_out_rel": float(outside[i]) for model, (_, outside) in errors.items()}
    for what, of_all in (("mean magnitude", np.mean), ("largest magnitude", np.max)):
        row = {"layer": what, "mean_input": "", "neurosim_uj": ""}
        row |= {f"{model}_rel": float(of_all(np.abs(inside))) for model, (inside, _) in errors.items()}
        yield row | {f"{model}_out_rel": float(of_all(np.abs(outside))) for model, (_, outside) in errors.items()}
