"""Contracts: what every law and operator must keep, as classes of tests that outsiders can subclass.

    class TestMyLaw(CellLawContract):
        laws = (MyLaw(error_rel=0.02), MyLaw(error_rel=0.3))

pytest collects the inherited tests. Every statistical one has a fixed seed.
"""

from validation.contract.cell_law import CellLawContract
from validation.contract.operators import OperatorContract, Subject
from validation.contract.read_law import ReadLawContract
from validation.contract.signal_operator import SignalOperatorContract

__all__ = ["CellLawContract", "OperatorContract", "ReadLawContract", "SignalOperatorContract", "Subject"]
