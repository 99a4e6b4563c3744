"""Line resistance: our solver beside SciPy's direct ones on the same equations, one set of inputs or all of them."""

from collections.abc import Callable, Iterator

import numpy as np

from benchmarks.clock import interleaved
from devices.law import Values
from devices.wires import effective_matrix, solve
from validation.oracles.wires import Array, currents_of, nodal_system
from validation.tables import Row

SIZES = (64, 128, 256)
OHM, CELLS_OHM = 1.0, (10e3, 100e3)
SEED = 7
TURNS = {64: 7, 128: 3, 256: 1}
RATIOS = (1e-6, 1e-5, 1e-4, 1e-3, 1e-2, 1e-1)


def array(size: int) -> tuple[Array, Array]:
    """Return conductances and voltages of a square array."""
    random = np.random.default_rng(SEED)
    return 1.0 / random.uniform(*CELLS_OHM, (size, size)), random.uniform(0.0, 0.5, size)


def rows(size: int) -> Iterator[Row]:
    """Yield one row a way: CPU time of currents from conductances, and how far they are off the first."""
    from scipy.sparse import linalg

    g, v = array(size)
    found: dict[str, Values] = {}

    def direct(**options: object) -> Array:
        matrix, right = nodal_system(g, v, word_ohm=OHM, bit_ohm=OHM)
        return currents_of(linalg.splu(matrix, **options).solve(right), g.shape, bit_ohm=OHM)

    symmetric = {"permc_spec": "MMD_AT_PLUS_A", "diag_pivot_thresh": 0.0, "options": {"SymmetricMode": True}}
    ways: dict[str, Callable[[], Values]] = {
        "SciPy, sparse LU": direct,
        "SciPy, sparse LU, symmetric": lambda: direct(**symmetric),
        "ours, one set of inputs": lambda: solve(g, v, word_ohm=OHM, bit_ohm=OHM).current_a,
        "ours, effective matrix": lambda: v @ effective_matrix(g, word_ohm=OHM, bit_ohm=OHM),
    }

    def kept(name: str, way: Callable[[], Values]) -> Callable[[], object]:
        return lambda: found.__setitem__(name, way())

    seconds = interleaved({name: kept(name, way) for name, way in ways.items()}, n=TURNS[size])
    first = next(iter(ways))
    for name in ways:
        yield {
            "size": str(size), "way": name, "ms": f"{1e3 * seconds[name]:.4g}", "times_sparse_lu": f"{seconds[first] / seconds[name]:.3g}",
            "largest_error_rel": f"{np.max(np.abs(found[name] / found[first] - 1.0)):.1e}",
        }  # fmt: skip


def iterations() -> list[Row]:
    """Return how many iterations a solution takes over the resistance of a segment, over that of the middle cell."""
    table = []
    for size in SIZES:
        g, v = array(size)
        middle = 0.5 * sum(CELLS_OHM)
        counts = [solve(g, v, word_ohm=ratio * middle, bit_ohm=ratio * middle).n_iterations for ratio in RATIOS]
        table.append({"size": str(size)} | {f"{ratio:g}": str(count) for ratio, count in zip(RATIOS, counts)})
    return table
