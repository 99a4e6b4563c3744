"""Standard normals, float32: ours by their coordinates, NumPy's generators' and PyTorch's from a state."""

from collections.abc import Callable

import numpy as np

from benchmarks.clock import interleaved
from benchmarks.torch_peer import torch
from devices.base.stream import normals

SIZE, CALLS, TURNS = 1 << 16, 20, 31
OURS, TORCH = "accelsim", "PyTorch normal_"
NUMPY = ("SFC64", "PCG64DXSM", "Philox", "MT19937")
BARS = {"NumPy": 12.0, "PyTorch": 4.0}
"""How many times faster ours is to be than the fastest of each."""


def report() -> None:
    """Print the time of a normal and how it compares."""
    found = measured()
    print(f"\nNORMALS, float32, {SIZE} at a time")
    for name, seconds in found.items():
        print(f"  {name:<18} {1e9 * seconds:6.2f} ns each, {seconds / found[OURS]:5.2f} times ours")
    for peer, bar in BARS.items():
        times = [seconds for name, seconds in found.items() if name.startswith(peer)]
        if times:
            ratio = min(times) / found[OURS]
            print(f"  {ratio:.1f} times faster than the fastest of {peer}; bar {bar:g}: {'met' if ratio >= bar else 'MISSED'}")


def measured() -> dict[str, float]:
    """Return the CPU time of one normal of each."""
    out = np.empty(SIZE, np.float32)
    works: dict[str, Callable[[], object]] = {OURS: lambda: [normals(out, seed=7, site=1, trial=t) for t in range(CALLS)]}
    works |= {f"NumPy {name}": _numpy(name, out) for name in NUMPY}
    if torch is not None:
        tensor = torch.empty(SIZE)
        works[TORCH] = lambda: [tensor.normal_() for _ in range(CALLS)]
    return {name: seconds / CALLS / SIZE for name, seconds in interleaved(works, n=TURNS).items()}


def _numpy(name: str, out: np.ndarray) -> Callable[[], object]:
    state = np.random.Generator(getattr(np.random, name)(7))
    return lambda: [state.standard_normal(out=out, dtype=np.float32) for _ in range(CALLS)]
