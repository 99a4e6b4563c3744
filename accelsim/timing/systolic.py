"""Cycles of a digital systolic array, to put a chip of crossbars beside: closed forms of SCALE-Sim 2 (Samajdar et al., ISPASS 2020).

An array of R x C multiply-add units makes M x N results of K products each in folds of at most R x C:

    dataflow   rows  columns  streamed       cycles of a fold
    output     M     N        K              R + C + K - 2       results stay, both operands stream; draining overlaps
    weight     K     N        M              2 R + C + M - 2     weights are loaded first (R cycles), inputs stream
    input      K     M        N              2 R + C + N - 2     inputs are loaded first, weights stream                  (1)

times ceil(rows / R) ceil(columns / C) folds. The publication has 2 R for `output` too; its tool does not, and reports the number of its
last cycle, one less than (1). A grouped convolution is as many products as it has groups, one after the other.
"""

import math
from typing import get_args

from accelsim.chip import Dataflow
from devices.base.errors import SpecError
from workloads.network import Network
from workloads.operators.matrix import MatrixOperator


def gemm_cycles(m: int, n: int, k: int, *, rows: int, columns: int, dataflow: Dataflow) -> int:
    """Return (1) for the product of (M, K) by (K, N)."""
    if dataflow not in get_args(Dataflow):
        raise SpecError(f"dataflow: {dataflow!r}: need {' | '.join(get_args(Dataflow))}")
    if min(m, n, k, rows, columns) < 1:
        raise SpecError(f"need sizes of at least 1, got m = {m}, n = {n}, k = {k} on {rows} x {columns}")
    down, across, streamed = {"output": (m, n, k), "weight": (k, n, m), "input": (k, m, n)}[dataflow]
    loading = 0 if dataflow == "output" else rows
    return math.ceil(down / rows) * math.ceil(across / columns) * (loading + rows + columns + streamed - 2)


def layer_cycles(operator: MatrixOperator, *, rows: int, columns: int, dataflow: Dataflow) -> int:
    """Return the cycles of one image of a layer, memory never in the way: (1) for each of its groups."""
    groups = groups_of(operator)
    m, n, k = operator.n_positions, operator.n_columns // groups, operator.n_rows
    return groups * gemm_cycles(m, n, k, rows=rows, columns=columns, dataflow=dataflow)


def groups_of(operator: MatrixOperator) -> int:
    """Return how many products with inputs of their own a layer is."""
    geometry = getattr(operator, "geometry", None)
    return 1 if geometry is None else int(geometry.groups)


def systolic_cycles(network: Network, *, rows: int, columns: int, dataflow: Dataflow = "weight") -> dict[str, int]:
    """Return the cycles of each matrix layer of one image on a digital systolic array, memory never in the way.

    `dataflow` is `output`, `weight` or `input`: what stays. Beside `simulate` it says what digital units would take for the same layers.
    Closed forms of SCALE-Sim 2 (Samajdar et al., ISPASS 2020).
    """
    found = {}
    for _, node in network.matrix_layers():
        assert isinstance(node.operator, MatrixOperator)
        found[node.name] = layer_cycles(node.operator, rows=rows, columns=columns, dataflow=dataflow)
    return found
