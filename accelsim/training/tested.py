"""Accuracy of a trained network over draws of wrong bits, with intervals."""

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.stats import t as student

from accelsim.training.data import Images, normalized
from accelsim.training.network import MemoryNetwork
from accelsim.training.rates import Floats
from accelsim.training.stored import Drawing

BATCH = 500
CONFIDENCE = 0.95


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Tested:
    """Accuracy of each draw over the same images, `(n_draws,)`, and without wrong bits.

    A draw is a read of all weights for transient faults, a chip for faults that stay.
    """

    accuracy: Floats
    accuracy_right: float
    n_images: int

    @property
    def mean(self) -> float:
        """Mean accuracy over the draws."""
        return float(self.accuracy.mean())

    @property
    def std(self) -> float:
        """Standard deviation from draw to draw."""
        return float(self.accuracy.std(ddof=1))

    @property
    def half_width(self) -> float:
        """Half the 95 % interval of the mean, by Student's t."""
        n = self.accuracy.size
        return float(student.ppf(0.5 + 0.5 * CONFIDENCE, n - 1) * self.std / np.sqrt(n))


def tested(
    network: MemoryNetwork, images: Images, *, p: Floats, mean: float, std: float, n_draws: int, seed: int
) -> Tested:
    """Return the accuracy on images under `n_draws` draws of wrong bits at rates `(n_layers, n_bits)`.

    Draw d takes the same random words whatever the rates: the wrong bits at lower rates are among those at higher ones.
    """
    x, y = torch.tensor(normalized(images.x, mean=mean, std=std)), torch.tensor(images.y)
    network.eval()
    found = []
    for draw in range(n_draws):
        network.read(p, Drawing(seed=seed, purpose="test", trial=draw))
        found.append(_accuracy(network, x, y))
    network.read_right()
    return Tested(accuracy=np.array(found), accuracy_right=_accuracy(network, x, y), n_images=len(images))


@torch.no_grad()
def _accuracy(network: MemoryNetwork, x: torch.Tensor, y: torch.Tensor) -> float:
    right = sum(int((network(part).argmax(1) == label).sum()) for part, label in zip(x.split(BATCH), y.split(BATCH)))
    return right / len(y)


@torch.no_grad()
def logits_of(network: MemoryNetwork, x: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return the logits `(N, n_classes)` of normalized images with the weights that were read last."""
    network.eval()
    return torch.cat([network(part) for part in torch.from_numpy(x).split(BATCH)]).numpy()
