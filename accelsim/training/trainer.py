"""A network in training, with all that a checkpoint holds."""

import math
from dataclasses import dataclass, field

import torch

from accelsim.training.network import MemoryNetwork
from accelsim.training.rates import Rates
from accelsim.training.recipe import Recipe

START_MULTIPLIER = 0.1
"""Of a budget of accuracy, where learning starts without a closed form."""


@dataclass(slots=True, kw_only=True, eq=False)
class Trainer:
    """A network in training, with all that a checkpoint holds."""

    recipe: Recipe
    seed: int
    network: MemoryNetwork
    optimizer: torch.optim.Optimizer
    rates: Rates
    step: int = 0
    multiplier: float = START_MULTIPLIER
    loss: float = math.nan
    accuracy: float = math.nan
    held_accuracy: float = math.nan
    started: bool = False
    history: list[dict[str, float]] = field(default_factory=list)
