"""When a code pays under one law, as a table: energies with it and without at equally many errors, and where they cross."""

from collections.abc import Sequence
from dataclasses import dataclass

from accelsim.report.base import columns_table
from devices.base.errors import SpecError
from devices.base.toml_codec import nearest_text, shown
from devices.break_even import Compared, Protected, Span
from devices.ecc import ECCS, Ecc, ParityZero, Secded, SeparateBits, TripledBits
from devices.reliability_law import ReliabilityLaw
from devices.word_format import WordFormat

TARGETS_P = tuple(10.0**-n for n in range(2, 13))


@dataclass(frozen=True, slots=True, kw_only=True)
class ProtectionFacts:
    """One code under one law.

    Parameters
    ----------
    bits_rel, fixed_rel
        Bits read for one bit of a number; what is taken at any voltage: logic, and bits in another memory.
    spans
        Raw error rates between which the code pays, None where the law ends.
    closed_form_p
        One end of them by the closed form; None where there is none.
    left_p
        What is left wrong at the ends of the spans, by raw rate.
    """

    law: str
    code: str
    word: str
    bits_rel: float
    fixed_rel: float
    logic_rel: float
    spans: tuple[Span, ...]
    closed_form_p: float | None
    left_p: dict[str, float]
    compared: tuple[Compared, ...]


def protection(law: ReliabilityLaw, kind: str, *, data_bits: int | None = None, n_protected: int | None = None) -> Ecc:
    """Return a protection by its kind; a safer bit is at the law's least error rate. SpecError for options that it has not."""
    if kind not in ECCS:
        raise SpecError(f"--ecc: {shown(kind)}{nearest_text(kind, tuple(ECCS))}; there are {', '.join(ECCS)}")
    if data_bits is not None and kind != Secded.kind:
        raise SpecError(f"--data-bits: {data_bits}: of {Secded.kind} only, and this is {kind}; leave it out")
    if n_protected is not None and kind not in (TripledBits.kind, SeparateBits.kind):
        raise SpecError(f"--protected: {n_protected}: of {TripledBits.kind} and {SeparateBits.kind} only, and this is {kind}; leave it out")
    if kind == Secded.kind:
        return Secded(data_bits=64 if data_bits is None else data_bits)
    if kind == ParityZero.kind:
        return ParityZero()
    n = 1 if n_protected is None else n_protected
    if kind == TripledBits.kind:
        return TripledBits(n_protected=n)
    return SeparateBits(n_protected=n, protected_error_p=law.bounds[0], protected_energy_rel=law.energy_bounds[1])


def code_name(ecc: Ecc) -> str:
    """Return what a code is called."""
    if isinstance(ecc, Secded):
        return f"SECDED ({ecc.data_bits + ecc.n_check}, {ecc.data_bits})"
    return ecc.kind if isinstance(ecc, ParityZero) else f"{ecc.kind}, {ecc.n_protected}"  # type: ignore[attr-defined]


def protection_facts(name: str, protected: Protected) -> ProtectionFacts:
    """Return where a code pays under a law."""
    spans = protected.spans()
    ends = [end for span in spans for end in (span.from_p, span.to_p) if end is not None]
    word: WordFormat = protected.word
    return ProtectionFacts(
        law=name, code=code_name(protected.ecc), word=f"{word.n_bits} bits ({word.coding})", bits_rel=protected.slope_bits,
        fixed_rel=protected.fixed_rel, logic_rel=protected.logic_rel, spans=spans,
        closed_form_p=protected.closed_form() if ends else None, left_p={f"{end:.6g}": protected.left_rate(end) for end in ends},
        compared=tuple(protected.compared(p) for p in TARGETS_P),
    )  # fmt: skip


def protection_text(facts: ProtectionFacts) -> str:
    """Return the facts as sentences and a table."""
    logic = "not counted; --logic-rel counts it" if facts.logic_rel == 0.0 else f"{facts.logic_rel:g} a bit, counted"
    head = [
        f"{facts.code} under {facts.law}, numbers of {facts.word}: a bit of a number takes {facts.bits_rel:.4g} times the law's energy"
        + (f" and {facts.fixed_rel:.4g}" if facts.fixed_rel else "") + f" (its logic: {logic}).",
        _where(facts) + _closed(facts),
        "",
        "Energy of a bit at so many wrong bits left, over the law's energy 1 (- where no voltage of the law reaches it):",
        "",
    ]  # fmt: skip
    rows = [_compared_row(c) for c in facts.compared]
    return "\n".join([*head, columns_table(["left", "raw rate", "with code", "without", "with / without"], rows)])


def _compared_row(c: Compared) -> list[str]:
    return [f"{c.left_p:.0e}", _number(c.raw_p, ".3g"), *(_number(v, ".3f") for v in (c.with_rel, c.without_rel, c.ratio))]


def protections_text(facts: Sequence[ProtectionFacts]) -> str:
    """Return one code under several laws as a table of the ratios, and where it pays under each."""
    first = facts[0]
    head = f"Energy with {first.code} over that without, where as many bits are left wrong, numbers of {first.word} (- where one cannot):"
    rows = [[f.law, *(_number(c.ratio, ".3f") for c in f.compared)] for f in facts]
    ends = [f"{f.law}: {_where(f)}{_closed(f)}" for f in facts]
    return "\n".join([head, "", columns_table(["law", *(f"{p:.0e}" for p in TARGETS_P)], rows), "", *ends])


def _number(value: float | None, form: str) -> str:
    return "-" if value is None else f"{value:{form}}"


def _where(facts: ProtectionFacts) -> str:
    if not facts.spans:
        return "It pays nowhere in the law's range."
    return "; ".join(_span_text(span, facts) for span in facts.spans) + "."


def _span_text(span: Span, facts: ProtectionFacts) -> str:
    low, high = (None if end is None else f"{end:.3g} ({facts.left_p[f'{end:.6g}']:.3g} left)" for end in (span.from_p, span.to_p))
    if low is None and high is None:
        return "It pays at every rate of the law"
    if low is None or high is None:
        return f"It pays at raw error rates {'below ' + high if high is not None else 'above ' + str(low)}"
    return f"It pays at raw error rates from {low} to {high}"


def _closed(facts: ProtectionFacts) -> str:
    return "" if facts.closed_form_p is None else f" Closed form: {facts.closed_form_p:.3g}."
