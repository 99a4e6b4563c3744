"""Published cases of CrossSim: one array of 128 x 64, balanced pairs or an offset column, two laws of error, cells that clip.

Mean squared error of the product in units of the weights, by exact moments: 0.17935, 0.04110, 0.48698, 0.16660; 300 runs of CrossSim 3.2
gave 0.1792(18), 0.0417(4), 0.4876(50), 0.1682(18). Without clipping the first would be 0.2465.
"""

import numpy as np
import pytest

from accelsim.accelerator import Accelerator
from accelsim.lower import ArraySite
from workloads.kernels import ConvGeometry
from workloads.operators.matrix import Conv

RNG = np.random.default_rng(1)
A, V = RNG.uniform(-1, 1, (64, 128)), RNG.uniform(0, 1, 128)
CASES = [
    ("state_independent", "differential", 0.17935), ("proportional", "differential", 0.04110),
    ("state_independent", "offset", 0.48698), ("proportional", "offset", 0.16660),
]  # fmt: skip


def site(kind: str, encoding: str, *, clip: bool = True) -> ArraySite:
    chip = Accelerator.preset(
        "memse",
        set=(
            "cell.g_max_siemens=1", "cell.g_min_siemens=1e-3", "cell.error_rel=0.05", f"cell.programming.kind={kind}",
            f"mapping.encoding={encoding}", f"cell.clip={str(clip).lower()}",
        ),
    )  # fmt: skip
    geometry = ConvGeometry(in_shape=(128, 1, 1), n_out=64, kernel=(1, 1))
    operator = Conv(weights=A.reshape(64, 128, 1, 1), bias=None, geometry=geometry, spatial=0)
    return ArraySite(
        layer="a", operator=operator, cell=chip.cell, mapping=chip.mapping, w_max=np.full(64, np.abs(A).max()), g_used_siemens=np.ones(64)
    )


def mse(of: ArraySite) -> float:
    moments = of.moments()
    bias = (moments.mean.reshape(64, 128) - A) @ V
    return float(np.mean(bias**2 + moments.variance.reshape(64, 128) @ V**2))


@pytest.mark.parametrize(("kind", "encoding", "published"), CASES)
def test_the_error_of_a_product_is_the_published_one(kind: str, encoding: str, published: float) -> None:
    assert mse(site(kind, encoding)) == pytest.approx(published, abs=0.6e-5)


def test_without_clipping_the_balanced_case_is_a_third_off() -> None:
    """The negative control: the closed form that other tools use."""
    assert mse(site("state_independent", "differential", clip=False)) == pytest.approx(0.2465, abs=1e-4)


def dft_errors(encoding: str, *, n_runs: int) -> np.ndarray:
    """Return the mean of |dW| of a 64-point Fourier matrix, real and imaginary parts in arrays of their own, for each run."""
    set_ = (
        "cell.g_max_siemens=1", "cell.g_min_siemens=1e-3", "cell.programming.kind=proportional", "cell.error_rel=0.25",
        f"mapping.encoding={encoding}", "mapping.levels=256",
    )  # fmt: skip
    chip = Accelerator.preset("memse", set=set_)
    matrix = np.exp(-2j * np.pi * np.outer(np.arange(64), np.arange(64)) / 64)
    rng, found = np.random.default_rng(7), np.zeros((n_runs, 64, 64), complex)
    for values, unit in ((matrix.real, 1.0), (matrix.imag, 1j)):
        geometry = ConvGeometry(in_shape=(64, 1, 1), n_out=64)
        operator = Conv(weights=values.reshape(64, 64, 1, 1), bias=None, geometry=geometry, spatial=0)
        of = ArraySite(layer="f", operator=operator, cell=chip.cell, mapping=chip.mapping, w_max=np.ones(64), g_used_siemens=np.ones(64))
        for run in range(n_runs):
            cells = tuple(of.chain.sample(t, 1.0, normals=(rng.standard_normal(t.shape),)) for t in of.requested())
            found[run] += unit * (of.decode(cells, of.scale_siemens) - of.values).reshape(64, 64)
    return np.abs(found).mean(axis=(1, 2))


@pytest.mark.parametrize(("encoding", "published", "spread"), [("differential", 0.2118, 0.0018), ("offset", 0.3443, 0.0029)])
def test_the_error_of_a_fourier_matrix_is_the_published_one(encoding: str, published: float, spread: float) -> None:
    """CrossSim's tutorial 2.3: 40 of its runs gave 0.2118 +- 0.0018 and 0.3443 +- 0.0029; its printed 0.21637 is one run, 2.5 sigma off."""
    errors = dft_errors(encoding, n_runs=40)
    assert errors.mean() == pytest.approx(published, abs=2.0 * spread)
