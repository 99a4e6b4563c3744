"""Labels, where they can be the classes of a network's outputs."""

import numpy as np
from numpy.typing import NDArray


def usable_labels(labels: NDArray[np.int64] | None, n_out: int) -> tuple[NDArray[np.int64] | None, tuple[str, ...]]:
    """Return the labels where they can be classes of `n_out` outputs; else None and a note that says why."""
    if labels is None:
        return None, ()
    if n_out < 2:
        return None, (f"labels are left aside: {n_out} output tells no classes apart",)
    if labels.min() < 0 or labels.max() >= n_out:
        return None, (f"labels are left aside: they run from {labels.min()} to {labels.max()}, and the network has {n_out} outputs",)
    return labels, ()
