"""Standard normals, float32: ours by their coordinates, NumPy's SFC64 and PyTorch's from a state."""

from collections.abc import Callable

import numpy as np

from benchmarks.clock import interleaved
from benchmarks.torch_peer import torch
from devices.base.stream import normals

SIZE = 1 << 16
CALLS = 50


def report() -> None:
    """Print the time of a normal and how it compares."""
    out = np.empty(SIZE, np.float32)
    state = np.random.Generator(np.random.SFC64(7))
    works: dict[str, Callable[[], object]] = {
        "accelsim": lambda: [normals(out, seed=7, site=1, trial=t) for t in range(CALLS)],
        "NumPy SFC64": lambda: [state.standard_normal(out=out, dtype=np.float32) for _ in range(CALLS)],
    }
    if torch is not None:
        tensor = torch.empty(SIZE)
        works["PyTorch"] = lambda: [tensor.normal_() for _ in range(CALLS)]
    found = interleaved(works, n=21)
    print(f"NORMALS, float32, {SIZE} at a time")
    for name, seconds in found.items():
        print(f"  {name:<14} {1e9 * seconds / CALLS / SIZE:6.2f} ns each, {seconds / found['accelsim']:5.2f} times ours")
