"""What learning error rates adds to a step of SGD: CPU time of one step by each method, in turns, on one thread.

`float` is the same network as a PyTorch user writes it: float weights, no memory. `reliable` reads binary weights without a wrong bit.
"""

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

import numpy as np

from accelsim.training.data import Data, Images
from accelsim.training.recipe import Lanmax, Method, RandomBitErrors, Recipe, Reliable, Schedule, Uniform
from benchmarks.clock import interleaved
from devices.memory_faults import TransientFlips
from devices.reliability import Exponential
from devices.word_format import WordFormat
from validation.tables import Row

if TYPE_CHECKING:
    from torch import nn

LAYERS = {
    "conv 32 k5 s2, conv 64 k3 s2, conv 128 k3 s2, dense 256": (1, 28, 28),
    "conv 32 k3, conv 32 k3 s2, conv 64 k3 s2": (3, 32, 32),
}
METHODS: dict[str, Method] = {
    "reliable": Reliable(), "uniform": Uniform(error_rate_p=0.02), "lanmax": Lanmax(energy_budget_rel=0.3, learn_share=1.0),
    "random_bit_errors": RandomBitErrors(error_rate_p=0.02, start_loss=1e9),
}  # fmt: skip
N_STEPS, TURNS = 4, 5


def rows() -> Iterator[Row]:
    """Yield a row for each network and method: milliseconds a step, and over those of SGD."""
    import torch

    torch.set_num_threads(1)
    for layers, shape in LAYERS.items():
        times = interleaved(_works(layers, shape), n=TURNS)
        for name, seconds in times.items():
            yield {
                "layers": layers, "method": name, "ms_a_step": f"{1e3 * seconds / N_STEPS:.2f}",
                "times_reliable": f"{seconds / times['reliable']:.3f}", "times_float": f"{seconds / times['float']:.3f}",
            }  # fmt: skip


def _works(layers: str, shape: tuple[int, ...]) -> dict[str, Callable[[], object]]:
    random = np.random.default_rng(1)
    images = Images(x=random.normal(size=(1024, *shape)).astype(np.float32), y=random.integers(0, 10, 1024))
    data = Data(train=images, test=images)
    works: dict[str, Callable[[], object]] = {"float": _float_steps(_recipe(layers, Reliable()), data)}
    return works | {name: _steps(_recipe(layers, method), data) for name, method in METHODS.items()}


def _recipe(layers: str, method: Method) -> Recipe:
    schedule = Schedule(n_epochs=1000, optimizer="sgd", rate=0.01, shift_pixels=0, mirror=False)
    word = WordFormat(coding="binary", n_bits=1)
    return Recipe(layers=layers, word=word, law=Exponential(), faults=TransientFlips(), method=method, schedule=schedule)


def _steps(recipe: Recipe, data: Data) -> Callable[[], object]:
    from accelsim.training.run import take_step, trainer_of

    trainer = trainer_of(recipe, data, seed=1)

    def work() -> None:
        for _ in range(N_STEPS):
            take_step(trainer, data.train, None, n_steps=10**6)

    return work


def _float_steps(recipe: Recipe, data: Data) -> Callable[[], object]:
    import torch
    from torch.nn.functional import cross_entropy

    from accelsim.training.run import batch_of

    network = _float_network(recipe, data)
    optimizer, done = torch.optim.SGD(network.parameters(), lr=0.01, momentum=0.9, nesterov=True), [0]

    def work() -> None:
        for _ in range(N_STEPS):
            x, y = batch_of(data.train, recipe, seed=1, step=done[0])
            optimizer.zero_grad(set_to_none=True)
            loss: Any = cross_entropy(network(x), y)
            loss.backward()
            optimizer.step()
            done[0] += 1

    return work


def _float_network(recipe: Recipe, data: Data) -> "nn.Module":
    """Return the recipe's network with PyTorch's own layers."""
    from torch import nn

    from accelsim.training.run import made_network
    from accelsim.training.stored import StoredLayer

    parts: list[nn.Module] = []
    for part in made_network(recipe, input_shape=data.input_shape, n_classes=10, seed=1).parts:
        if not isinstance(part, StoredLayer):
            parts.append(part)
            continue
        out, into, *kernel = part.latent.shape
        if kernel:
            parts.append(nn.Conv2d(into, out, kernel[0], stride=part.stride, padding=part.padding, bias=False))
        else:
            parts.append(nn.Linear(into, out, bias=False))
    return nn.Sequential(*parts).train()
