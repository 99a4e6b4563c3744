"""A mesh of tiles: where a tile is, and the links between two of them."""

import math
from dataclasses import dataclass

from accelsim.chip import Mesh
from accelsim.timing.graph import picoseconds


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """A tile in a mesh as square as `n_tiles` allows, filled row by row, every other row backwards: neighbours in number are neighbours."""

    tile: int
    n_tiles: int

    @property
    def side(self) -> int:
        """Tiles of a row."""
        return math.isqrt(max(self.n_tiles - 1, 0)) + 1

    @property
    def row_column(self) -> tuple[int, int]:
        """Where it is."""
        row, column = divmod(self.tile, self.side)
        return row, column if row % 2 == 0 else self.side - 1 - column


@dataclass(frozen=True, slots=True, kw_only=True)
class Route:
    """The links from one tile to another, along the row first, and the time that a packet's head takes on them."""

    links: tuple[str, ...]
    fill_ps: int


def transfer(mesh: Mesh, start: Place, end: Place) -> Route:
    """Return the route between two tiles; no links where they are the same.

    A packet's head takes `hop_cycles` through each router (virtual cut-through); its body follows. A packet has all its links while its
    body passes.
    """
    links, at, goal = [], start.row_column, end.row_column
    while at != goal:
        row, column = at
        to = (row, column + (1 if goal[1] > column else -1)) if column != goal[1] else (row + (1 if goal[0] > row else -1), column)
        links.append(f"link {row},{column} to {to[0]},{to[1]}")
        at = to
    return Route(links=tuple(links), fill_ps=picoseconds(len(links) * mesh.hop_cycles / mesh.clock_hz))
