"""The least time of a trial on this machine: its normals, each at the generator's best, and its products, at the kernel's best.

    bound = n_normals * t_normal + 2 n_macs * n_images / peak          (1)

Products by zeros of the padding do not count. What (1) leaves out: activations, pooling, sums, and making weights of normals.
"""

from dataclasses import dataclass

import numpy as np

from accelsim import Plan, Samples
from benchmarks.clock import interleaved
from devices.base.stream import normals
from workloads.kernels import ConvGeometry, conv
from workloads.operators.base import Shape
from workloads.operators.matrix import MatrixOperator

LANES = 48
SIZES = ((16, 16), (16, 32), (32, 10), (32, 16), (64, 8))
SHAPES = tuple(ConvGeometry(in_shape=(n, size, size), n_out=n, kernel=(3, 3)) for n, size in SIZES)
N_NORMALS = 1 << 16
CALLS = 8


@dataclass(frozen=True, slots=True, kw_only=True)
class Machine:
    """What this machine does at best: seconds a normal, and floating-point operations a second of the convolution kernel."""

    normal_s: float
    peak_per_s: float

    def bound_s(self, plan: Plan, samples: Samples) -> float:
        """Return (1): two normals a pair where cells clip, else one would do."""
        law = plan.accelerator.cell.programming
        n_weights = sum(layer.operator.weights.size for layer in plan.layers)
        macs = sum(products(layer.operator, _in_shape(plan, layer.node)) for layer in plan.layers)
        return (1 + int(getattr(law, "clip", True))) * n_weights * self.normal_s + 2.0 * macs * len(samples) / self.peak_per_s


def measured(*, n: int = 21) -> Machine:
    """Measure both on arrays that stay in cache."""
    out = np.empty(N_NORMALS, np.float32)
    operands = [(np.ones((*g.in_shape, LANES), np.float32), np.ones(g.weight_shape, np.float32), g) for g in SHAPES]

    def product(k: int) -> object:
        return [conv(*operands[k]) for _ in range(CALLS)]

    works = {f"{k}": (lambda k=k: product(k)) for k in range(len(SHAPES))}
    found = interleaved({"normals": lambda: [normals(out, seed=7, site=1, trial=t) for t in range(CALLS)], **works}, n=n)
    rates = [2.0 * g.n_macs * LANES * CALLS / found[f"{k}"] for k, g in enumerate(SHAPES)]
    return Machine(normal_s=found["normals"] / CALLS / N_NORMALS, peak_per_s=max(rates))


def products(operator: MatrixOperator, in_shape: Shape) -> float:
    """Return the multiplications of one image, those by padding left out: the sum of the layer's outputs when all is one."""
    ones = operator.multiply(np.ones_like(operator.weights, np.float32), np.ones((*in_shape, 1), np.float32))
    return float(ones.sum(dtype=np.float64))


def _in_shape(plan: Plan, node: int) -> Shape:
    (source,) = plan.graph.nodes[node].inputs
    return plan.graph.input_shape if source < 0 else plan.graph.nodes[source].shape
