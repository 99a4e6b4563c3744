"""How cells are written: the window that is accepted, how often at most, and what a write takes."""

from dataclasses import dataclass, field

from devices.base.toml_codec import about, check_types, raise_faults
from devices.law import Component, Cost


@dataclass(frozen=True, slots=True, kw_only=True)
class WriteVerify(Component):
    """Writing again until a cell is within a window of its target; `write_verify.py` has what is left of the error."""

    window_rel: float = field(metadata=about("Largest error that is accepted, over cell.g_max_siemens.", above=0.0))
    max_writes: int = field(metadata=about("Writes after which a cell stays as it is.", at_least=1))
    energy_per_write_j: float | None = field(default=None, metadata=about("Energy of a write.", at_least=0.0, absent="not known"))
    time_per_write_s: float | None = field(default=None, metadata=about("Time of a write.", at_least=0.0, absent="not known"))

    def __post_init__(self) -> None:
        raise_faults(check_types(self))

    def cost(self, action: str, **statistics: float) -> Cost:
        """Return the cost of `program`, given the mean number of `writes` a cell takes."""
        if action != "program":
            raise ValueError(f"writing knows the action 'program', not {action!r}")
        writes, time_s = statistics["writes"], self.time_per_write_s or 0.0
        return Cost(energy_j=writes * (self.energy_per_write_j or 0.0), time_s=writes * time_s, occupancy_s=writes * time_s)
