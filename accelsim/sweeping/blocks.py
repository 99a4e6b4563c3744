"""Points that a worker is handed at once: so many that the way there and back costs little, so few that a kill loses little."""

BLOCK_S = 2.0
"""What a block should take. Dask's way from client to scheduler to worker and back is 5 ms of CPU time, a quarter of a percent of it."""


class BlockSize:
    """The size of the next block, by what the last one took: it at most doubles, so no first guess can be far too large."""

    def __init__(self) -> None:
        self.n_points = 1

    def take(self, n_points: int, elapsed_s: float) -> None:
        """Learn that a block of `n_points` took `elapsed_s`."""
        fitting = n_points * BLOCK_S / max(elapsed_s, 1e-9)
        self.n_points = max(1, int(min(fitting, 2 * n_points)))

    def of(self, n_waiting: int, *, n_blocks: int) -> int:
        """Return how many points the next block has, with `n_blocks` under way: towards the end fewer, so that no worker is idle."""
        return max(1, min(self.n_points, n_waiting // n_blocks))
