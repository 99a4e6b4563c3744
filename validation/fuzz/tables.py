"""Mutants of tables of measured cells and of times."""

from random import Random

from validation.fuzz.mutation import FLOATS, NAMES, encoded_text, mutated_text

HEADERS = (
    "target (uS),programmed (uS)", "device_id,cycle,target (uS),programmed (uS)", "target_uS,programmed_uS,time_s",
    "target [S],programmed [S]",
)  # fmt: skip


def mutant_measurements(choose: Random) -> bytes:
    """Return damaged measurements, at times sound ones."""
    header = choose.choice(HEADERS)
    n_states, n = choose.choice((1, 2, 5, 12)), choose.choice((1, 3, 40, 400))
    spread = choose.choice((0.0, 1e-9, 0.3, 0.3, 0.3, 1e6))
    rows = [_row(choose, header, i, 1.0 + i % n_states, spread) for i in range(n)]
    return _table(choose, header, rows)


def _row(choose: Random, header: str, i: int, target: float, spread: float) -> str:
    values = [f"{target:g}", f"{choose.gauss(target, spread):.6g}"]
    if header.startswith("device_id"):
        values = [str(i % 7), str(i // 7), *values]
    if header.endswith("time_s"):
        values.append(str(choose.choice((0, 1, 3600))))
    if choose.random() < 0.002:
        values[choose.randrange(len(values))] = str(choose.choice((*FLOATS, *NAMES)))
    return ",".join(values)


def mutant_times(choose: Random) -> bytes:
    """Return damaged arrival times, at times sound ones."""
    times = [f"{1e-6 * i:g}" for i in range(choose.choice((1, 2, 8, 200)))]
    if choose.random() < 0.5:
        times[choose.randrange(len(times))] = str(choose.choice((*FLOATS, *NAMES)))
    return _table(choose, choose.choice(times), times)


def _table(choose: Random, header: str, rows: list[str]) -> bytes:
    text = "\n".join([header, *rows]) + "\n"
    how = choose.random()
    if how < 0.2:
        text = text.replace(",", choose.choice((";", "\t", ",,", ', "')))
    elif how < 0.4:
        old = choose.choice(("target", "uS", "programmed", "(", "time"))
        text = text.replace(old, choose.choice(("", "Target", "V", "x" * 300, "target", "\x1b[2J")))
    return encoded_text(choose, mutated_text(choose, text) if choose.random() < 0.6 else text)
