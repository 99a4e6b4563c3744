"""When codes pay under each law: roots beside closed forms, beside a million decoded words and a scan of all operating points."""

from collections.abc import Iterator, Mapping

import numpy as np

from accelsim.memories import LAWS
from devices.break_even import Compared, Protected, quarter_scale_words, scanned
from devices.ecc import Ecc, ParityZero, Secded, SeparateBits, TripledBits
from devices.reliability import MEASURED_14NM
from devices.reliability_law import ReliabilityLaw
from devices.reliability_table import Tabulated
from devices.word_format import Floats, WordFormat, square_damage, words_of
from validation.tables import SEED, Row

WORD = WordFormat(coding="twos_complement", n_bits=8)
TARGETS_P = tuple(10.0**-n for n in range(2, 13))
N_SAMPLED = 1_000_000
SCANNED_P = (1e-3, 1e-5)
BAR_CLOSED, BAR_SCAN = 0.03, 3e-3
_VOLTS, _RATES = zip(*MEASURED_14NM)
MEASURED = Tabulated(
    voltages_rel=tuple(v / _VOLTS[0] for v in _VOLTS[::-1]), energies_rel=tuple((v / _VOLTS[0]) ** 2 for v in _VOLTS[::-1]),
    error_rates_p=_RATES[::-1], energy_reference="energy 1.0 is that of an access at 23/24 of Vmin",
    source="the points that sram_14nm is fitted to",
)  # fmt: skip
CHOSEN: Mapping[str, ReliabilityLaw] = {**LAWS, "tabulated, 14 nm": MEASURED}


def protections(law: ReliabilityLaw) -> dict[str, Protected]:
    """Return a law's contests by name; a safer bit is at the law's least error rate and its energy."""
    codes: dict[str, Ecc] = {f"({n + Secded(data_bits=n).n_check}, {n})": Secded(data_bits=n) for n in (64, 32, 16, 8)}
    codes["tripled sign"] = TripledBits()
    codes["separate sign"] = SeparateBits(protected_error_p=law.bounds[0], protected_energy_rel=law.energy_bounds[1])
    codes["parity, zero"] = ParityZero()
    words = {"parity, zero": quarter_scale_words(WORD)}
    return {name: Protected(law=law, ecc=code, word=WORD, words=words.get(name)) for name, code in codes.items()}


def ecc_table(*, n_sampled: int = N_SAMPLED, done: tuple[str, ...] = ()) -> Iterator[Row]:
    """Yield a row a law and code; cells in `done` are skipped."""
    for law_name, law in CHOSEN.items():
        for code_name, protected in protections(law).items():
            if f"{law_name} {code_name}" not in done:
                yield _row(law_name, code_name, protected, n_sampled)


def _row(law_name: str, code_name: str, protected: Protected, n_sampled: int) -> Row:
    spans = protected.spans()
    span = spans[0] if spans else None
    closed = protected.closed_form()
    ends = [] if span is None else [end for end in (span.from_p, span.to_p) if end is not None]
    end = min(ends, key=lambda p: abs(np.log(p / closed))) if ends and closed else (ends[-1] if ends else None)
    left = None if end is None else protected.left_rate(end)
    sampled = None if end is None or left is None else sampled_left(protected, end, n=n_sampled, seed=SEED)
    return {
        "cell": f"{law_name} {code_name}",
        "law": law_name,
        "code": code_name,
        "bits_read": f"{protected.slope_bits + protected.fixed_rel:.4g}",
        "pays": "nowhere" if span is None else "everywhere" if not ends else "in part",
        "from_p": _text(None if span is None else span.from_p),
        "to_p": _text(None if span is None else span.to_p),
        "closed_p": _text(closed if end is not None else None),
        "left_p": _text(left),
        "sampled_ratio": "" if sampled is None or left is None else f"{sampled[0] / left:.4f}",
        "sampled_se": "" if sampled is None or left is None else f"{sampled[1] / left:.4f}",
        "scan_off": f"{_scan_off(protected):.1e}",
    } | {f"{p:.0e}": _ratio(protected.compared(p)) for p in TARGETS_P}


def _text(value: float | None) -> str:
    return "" if value is None else f"{value:.3e}"


def _ratio(found: Compared) -> str:
    """Return the ratio of energies, or which of the two reaches so few errors."""
    if found.ratio is not None:
        return f"{found.ratio:.3f}"
    return "-" if found.with_rel is None and found.without_rel is None else "code only" if found.without_rel is None else "bare only"


def _scan_off(protected: Protected) -> float:
    """Return by how much the energies found by roots are above or below those of a scan, at most."""
    off = [0.0]
    for p in SCANNED_P:
        exact, tried = protected.compared(p), scanned(protected, p)
        pairs = ((exact.with_rel, tried.with_rel), (exact.without_rel, tried.without_rel))
        off += [abs(b / a - 1.0) for a, b in pairs if a is not None and b is not None]
    return max(off)


def sampled_left(protected: Protected, raw_p: float, *, n: int, seed: int) -> tuple[float, float]:
    """Return the rate of wrong bits, by their damage, in `n` words of the code that were decoded, and its standard error."""
    generator = np.random.default_rng(seed)
    damage = square_damage(protected.word, protected.words)
    if isinstance(protected.ecc, Secded):
        losses = _lost_in_words(protected.ecc, protected.word, raw_p, damage / damage.sum(), n=n, generator=generator)
    else:
        losses = _lost_in_numbers(protected, raw_p, n=n, generator=generator) / damage.sum()
    return float(losses.mean()), float(losses.std() / np.sqrt(n))


def _flips(p: float, n: int, n_bits: int, generator: np.random.Generator) -> Floats:
    """Return masks `(n,)` whose bits are set with probability p each, by where they are among all bits."""
    masks = np.zeros(n, np.uint64)
    n_set = int(generator.binomial(n * n_bits, p))
    where = generator.choice(n * n_bits, size=n_set, replace=False, shuffle=False)
    np.bitwise_or.at(masks, where % n, np.uint64(1) << (where // n).astype(np.uint64))
    return masks  # type: ignore[return-value]


def _lost_in_words(
    code: Secded, word: WordFormat, p: float, share: Floats, *, n: int, generator: np.random.Generator
) -> Floats:
    """Return what is wrong after decoding, each bit by its share, over the numbers of a word of the code."""
    checks = _flips(p, n, code.n_check, generator)
    left = code.residual_masks(_flips(p, n, code.data_bits, generator).astype(np.uint64), checks.astype(np.uint16))
    n_words = code.group(word)[0]
    lost = np.zeros(n)
    for j in range(n_words * word.n_bits):
        lost += (left >> np.uint64(j) & np.uint64(1)).astype(np.float64) * share[j % word.n_bits]
    return lost / n_words


def _lost_in_numbers(protected: Protected, p: float, *, n: int, generator: np.random.Generator) -> Floats:
    """Return squared errors of numbers that were read."""
    ecc, word = protected.ecc, protected.word
    stored = generator.choice(words_of(word) if protected.words is None else protected.words, size=n)
    rates, check_rates = ecc.cell_rates(word, p)
    masks, checks = np.zeros(n, np.uint16), np.zeros(n, np.uint16)
    for out, chances in ((masks, rates), (checks, check_rates)):
        for j, chance in enumerate(chances):
            out |= (generator.random(n) < chance).astype(np.uint16) << np.uint16(j)
    return np.asarray((ecc.read(word, stored, masks, checks).astype(np.float64) - word.decode(stored)) ** 2)


def judged(rows: list[Row]) -> dict[str, list[str]]:
    """Return the cells whose closed form, sample or scan is another answer than the root."""
    closed = [str(row["cell"]) for row in rows if row["closed_p"] and row["code"] != "separate sign" and _closed_off(row) > BAR_CLOSED]
    sampled = [
        str(row["cell"]) for row in rows if row["sampled_ratio"] and abs(float(row["sampled_ratio"]) - 1.0) > 4.0 * float(row["sampled_se"])
    ]
    scans = [str(row["cell"]) for row in rows if float(row["scan_off"]) > BAR_SCAN]
    return {"beyond_bar": sorted({*closed, *sampled, *scans}), "closed": closed, "sampled": sampled, "scans": scans}


def _closed_off(row: Row) -> float:
    """Return how far the closed form is off the nearer end."""
    ends = [float(row[name]) for name in ("from_p", "to_p") if row[name]]
    return min(abs(float(row["closed_p"]) / end - 1.0) for end in ends)
