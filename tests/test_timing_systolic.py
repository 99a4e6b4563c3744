"""Digital systolic arrays: the integers of SCALE-Sim (T13), and the wave of operands counted cycle by cycle."""

import itertools

import pytest

from accelsim import SpecError, load_embedded
from accelsim.timing.systolic import gemm_cycles, systolic_cycles

PRINTED = (
    ((8, 8), (16, 16, 16), (120, 152, 152)), ((8, 8), (10, 12, 20), (136, 192, 204)), ((16, 16), (64, 32, 27), (456, 440, 624)),
    ((32, 32), (100, 50, 75), (1096, 1164, 1728)), ((8, 16), (17, 33, 5), (243, 141, 126)), ((16, 8), (17, 33, 5), (270, 275, 213)),
)  # fmt: skip
"""Array, (M, N, K), length of the demand matrix with output, weight and input stationary: SCALE-Sim 2, run."""
REPORTED = (((16, 16, 16), (77, 109, 109)), ((100, 50, 75), (1095, 1163, 1727)), ((64, 32, 27), (177, 157, 251)))
"""(M, N, K) on 32 x 32, "Total Cycles" of its reports."""
DATAFLOWS = ("output", "weight", "input")


@pytest.mark.parametrize(("array", "size", "cycles"), PRINTED)
def test_cycles_are_those_of_the_tool(array: tuple[int, int], size: tuple[int, int, int], cycles: tuple[int, int, int]) -> None:
    """T13, first convention: the length of the demand matrix."""
    assert tuple(gemm_cycles(*size, rows=array[0], columns=array[1], dataflow=flow) for flow in DATAFLOWS) == cycles  # type: ignore[arg-type]


@pytest.mark.parametrize(("size", "cycles"), REPORTED)
def test_reports_say_the_last_cycle(size: tuple[int, int, int], cycles: tuple[int, int, int]) -> None:
    """T13, second convention: one less."""
    assert tuple(gemm_cycles(*size, rows=32, columns=32, dataflow=flow) - 1 for flow in DATAFLOWS) == cycles  # type: ignore[arg-type]


@pytest.mark.parametrize(("rows", "columns", "streamed"), list(itertools.product((1, 3, 8), (1, 4), (1, 5, 9))))
def test_a_fold_by_its_wave(rows: int, columns: int, streamed: int) -> None:
    """The last operand meets the last unit after it has been skewed along both sides of the array: counted unit by unit."""
    busy = {t + r + c for t in range(streamed) for r in range(rows) for c in range(columns)}
    assert busy == set(range(gemm_cycles(rows, columns, streamed, rows=rows, columns=columns, dataflow="output")))
    loaded = gemm_cycles(streamed, columns, rows, rows=rows, columns=columns, dataflow="weight")
    assert loaded == rows + len(busy)  # a row of weights a cycle, before


def test_a_network_layer_by_layer() -> None:
    network, _ = load_embedded("fashion_cnn")
    cycles = systolic_cycles(network, rows=32, columns=32)
    assert list(cycles) == [node.name for _, node in network.matrix_layers()]
    assert sum(systolic_cycles(network, rows=128, columns=128).values()) < sum(cycles.values())
    for wrong in ({"rows": 0, "columns": 4}, {"rows": 4, "columns": 4, "dataflow": "row"}):
        with pytest.raises(SpecError):
            systolic_cycles(network, **wrong)  # type: ignore[arg-type]
