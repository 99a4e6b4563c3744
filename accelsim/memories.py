"""Energy-reliability laws and memory presets at a glance: what energy 1 is, energies at a few error rates, sources."""

from dataclasses import dataclass

from accelsim.report.base import columns_table
from devices import catalog
from devices.base.errors import SpecError
from devices.base.toml_codec import nearest_text, shown
from devices.memory import technology
from devices.reliability import Exponential, ExponentialPublished, Sram14nm
from devices.reliability_law import ReliabilityLaw

RATES_P = (1e-5, 1e-4, 1e-3, 1e-2, 0.1)
LAWS: dict[str, ReliabilityLaw] = {
    "exponential_published": ExponentialPublished(),
    "exponential": Exponential(),
    "sram_14nm": Sram14nm(),
    "sram_14nm, fit = poster": Sram14nm(fit="poster"),
}
"""The laws that need no numbers of the user's own."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LawFacts:
    """One law: its range, and the energy of a bit at RATES_P under its own reference, None outside the range."""

    name: str
    energy_reference: str
    source: str
    bounds_p: tuple[float, float]
    rates_p: tuple[float, ...]
    energies_rel: tuple[float | None, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class MemoryFacts:
    """One preset: its law, its error rate where it is a fixed point, and what a bit takes where that is published."""

    name: str
    summary: str
    law: str
    error_rate_p: float | None
    read_energy_j: float | None
    write_energy_j: float | None
    law_source: str
    source: str | None


def law_facts(name: str, law: ReliabilityLaw) -> LawFacts:
    """Return the facts of a law."""
    least, largest = law.bounds
    energies = tuple(law.energy_rel(p) if least <= p <= largest else None for p in RATES_P)
    return LawFacts(
        name=name, energy_reference=law.energy_reference, source=law.source, bounds_p=law.bounds, rates_p=RATES_P, energies_rel=energies
    )


def memory_facts(name: str) -> MemoryFacts:
    """Return the facts of a preset."""
    made = technology(name)
    least, largest = made.law.bounds
    return MemoryFacts(
        name=name, summary=catalog.summary(name, folder=catalog.MEMORY), law=made.law.kind,
        error_rate_p=least if least == largest else None, read_energy_j=made.read_energy_j, write_energy_j=made.write_energy_j,
        law_source=made.law.source, source=made.source,
    )  # fmt: skip


def law_of(name: str) -> ReliabilityLaw:
    """Return a law by its name, or a preset's; SpecError with the nearest name."""
    if name in LAWS:
        return LAWS[name]
    if name not in catalog.names(catalog.MEMORY):
        known = (*LAWS, *catalog.names(catalog.MEMORY))
        raise SpecError(f"unknown law or memory {shown(name)}{nearest_text(name, known)}; `accelsim memory` lists them")
    return technology(name).law


def laws_text(facts: list[LawFacts]) -> str:
    """Return the laws as a table, and below it what their energies of 1 are: each row is under a reference of its own."""
    header = ["law", *(f"p = {p:g}" for p in RATES_P), "least p", "largest p"]
    rows = [
        [f.name, *("-" if e is None else f"{e:.3f}" for e in f.energies_rel), f"{f.bounds_p[0]:.3g}", f"{f.bounds_p[1]:.3g}"]
        for f in facts
        if f.bounds_p[0] < f.bounds_p[1]
    ]
    notes = [f"{f.name}: {_fixed(f)}{f.energy_reference}.\n  {f.source}" for f in facts]
    head = "Energy of a bit at an error rate, over the energy 1 of its law; those of different references are not to be compared:"
    return "\n".join([*([head, "", columns_table(header, rows), ""] if rows else []), *notes])


def _fixed(facts: LawFacts) -> str:
    least, largest = facts.bounds_p
    return f"one operating point, p = {least:g}; " if least == largest else ""


def presets_text(facts: list[MemoryFacts]) -> str:
    """Return the presets as a table."""
    rows = [
        [f.name, f.law, "-" if f.error_rate_p is None else f"{f.error_rate_p:g}", _pj(f.read_energy_j), _pj(f.write_energy_j), f.summary]
        for f in facts
    ]
    return columns_table(["preset", "law", "p", "read pJ/bit", "write pJ/bit", ""], rows)


def _pj(energy_j: float | None) -> str:
    return "-" if energy_j is None else f"{1e12 * energy_j:.3g}"
