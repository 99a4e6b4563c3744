"""Tables of benchmarks are made in parts, and the bound of a trial counts what it says."""

from pathlib import Path

from benchmarks.bound import products
from benchmarks.lenet import lenet
from benchmarks.tables import shown_table, updated
from workloads.operators.matrix import MatrixOperator


def test_lenet_is_the_network_of_the_reference() -> None:
    """61,470 weights (122,940 draws); of the 28 x 5 taps along each axis of the first layer, 134 are not in the padding."""
    network = lenet()
    layers = [node.operator for _, node in network.matrix_layers()]
    assert sum(operator.weights.size for operator in layers if isinstance(operator, MatrixOperator)) == 61_470
    conv1 = layers[0]
    assert isinstance(conv1, MatrixOperator)
    assert conv1.n_macs == 6 * 25 * 28**2
    assert products(conv1, (1, 28, 28)) == 6 * 134**2


def test_a_table_keeps_the_rows_that_are_not_made_again(tmp_path: Path) -> None:
    path = tmp_path / "table.csv"
    updated(path, [{"network": "a", "cells": "clipped", "ms": 1}, {"network": "b", "cells": "clipped", "ms": 2}], key=("network", "cells"))
    table = updated(path, [{"network": "b", "cells": "clipped", "ms": 3}], key=("network", "cells"))
    assert [(row["network"], str(row["ms"])) for row in table] == [("a", "1"), ("b", "3")]


def test_empty_columns_are_not_shown() -> None:
    assert shown_table([{"a": 1, "b": ""}, {"a": 22, "b": ""}]) == "| a  |\n|----|\n| 1  |\n| 22 |"
