"""Mutants of specs: values, keys, tables and text, and of what `--set` takes."""

import datetime
import json
import math
import tomllib
from random import Random
from typing import Any

from validation.fuzz.mutation import FLOATS, INTEGERS, NAMES, Tree, encoded_text, mutated_text, mutated_tree

UNITS = ("S", "uS", "ohm", "V", "A", "s", "ns", "W", "J", "pJ", "F", "Hz", "m2", "mm2", "%", "", "uV", "furlongs", "day", "\u03bcS")
WORDS = (
    "uniform", "sign_magnitude", "sar", "ramp", "state_independent", "proportional", "polynomial", "tabulated", "saturating", "power_law",
    "stuck_at", "none", "differential", "offset", "layer", "column", "network", "max", "mse", "full", "percentile", "device", "digital",
    "memse", "isaac", "./self.toml", "../secret.bin", "other.toml",
)  # fmt: skip
VALUES: tuple[Any, ...] = (
    *INTEGERS, *FLOATS, *NAMES, *WORDS, True, False, [], {}, [1, 2], ["a"], [[]], [math.nan], 10**400, 10**40, 4096, 1e-9, 0.5,
    datetime.datetime(2020, 1, 1), datetime.date(1, 1, 1), datetime.time(0), {"kind": "uniform"}, {"kind": 3},
    {"kind": "state_independent"},
)  # fmt: skip
TABLES = (
    "cell.drift={kind='power_law',nu_mean=0.03,nu_std=0.01,t0_s=20,t_s=3600}", "cell.write_verify={window_rel=0.01,max_writes=4}",
    "cell.stuck={kind='stuck_at',low_p=0.001,high_p=0.0003,low_siemens=0.0,high_siemens=25e-6}",
    "cell.read_noise={kind='proportional',error_rel=0.01}", "cell.device_to_device={kind='proportional',error_rel=0.05}",
    "cell.programming={kind='proportional',error_rel=0.02}", "cell.programming.clip=false", "cell.error_rel=0.03",
    "cell.g_min_siemens=1e-6",
    "drive.dac={kind='uniform',n_bits=8}", "drive.slice_bits=2", "drive.v_read_v=0.2", "sense.adc={kind='uniform',n_bits=6,range='max'}",
    "sense.adc={kind='sar',n_bits=7,mismatch_rel=0.03}", "sense.adc={kind='ramp',n_bits=6}", "sense.feedback_ohm='100 kohm'",
    "mapping.encoding=offset", "mapping.slice_bits=[2,2,2]", "mapping.levels=32", "mapping.scale=column", "mapping.bias=device",
    "mapping.array={n_rows=16,n_columns=16,word_ohm=2,bit_ohm=2}", "mapping.precompensate=true", "mapping.replicas=4",
    "mapping.drift_compensation=true", "mapping.g_used_siemens=20uS", "layers.fc1.mapping.g_used_siemens=10uS", "name=x", "use=isaac",
)  # fmt: skip


def mutant_spec(choose: Random, text: str) -> bytes:
    """Return a damaged spec: mostly its tables, sometimes its text, seldom its bytes."""
    how = choose.random()
    if how < 0.25:
        return encoded_text(choose, mutated_text(choose, text))
    table = mutated_tree(choose, tomllib.loads(text), spec_value, pool=VALUES)
    return encoded_text(choose, toml_text(table))


def spec_value(choose: Random, old: Any) -> Any:
    """Return another value: near the old one, so that it may be sound, or of any kind."""
    how = choose.random()
    if how < 0.55:
        if isinstance(old, str):
            return _near_text(choose, old)
        if isinstance(old, bool):
            return not old
        if isinstance(old, int):
            return choose.choice((old + 1, old - 1, 0, -old, 2 * old, old * 1000, old // 2, float(max(min(old, 10**300), -(10**300)))))
        if isinstance(old, float):
            whole = round(old) if math.isfinite(old) else 0
            return choose.choice((old * 10.0 ** choose.randint(-12, 12), -old, 0.0, 1.0, old * (1 + 1e-15), whole))
        if isinstance(old, list):
            return choose.choice((old[:-1], old * 2, old[::-1], [*old, choose.choice(VALUES)], old * 500))
    return choose.choice(VALUES)


def _near_text(choose: Random, old: str) -> str:
    number, _, unit = old.partition(" ")
    try:
        value = float(number)
    except ValueError:
        return choose.choice((*WORDS, old.upper(), old + "x", old[:-1], *NAMES))
    if choose.random() < 0.6:
        value *= choose.choice((0.0, -1.0, 1e-9, 1e-3, 0.5, 2.0, 1e3, 1e9, 1e30))
    return f"{value!r} {unit if choose.random() < 0.6 else choose.choice(UNITS)}".strip()


def mutant_assignments(choose: Random) -> list[str]:
    """Return one to four values for `--set`, sound or damaged."""
    made = []
    for _ in range(choose.choice((1, 1, 2, 3, 4))):
        text = choose.choice(TABLES)
        how = choose.random()
        if how < 0.3:
            path, _, _ = text.partition("=")
            text = f"{path}={_bare(spec_value(choose, 0.02))}"
        elif how < 0.45:
            text = mutated_text(choose, text)
        made.append(text.replace("\0", ""))  # no command line can hold it
    return made


def _bare(value: Any) -> str:
    return value if isinstance(value, str) else value_text(value)


def toml_text(table: Tree | Any) -> str:
    """Return tables as TOML: values first, then each table under its path; what is no table is written as a value."""
    if not isinstance(table, dict):
        return f"v = {value_text(table)}\n"
    lines: list[str] = []
    waiting: list[tuple[tuple[str, ...], dict[str, Any]]] = [((), table)]
    while waiting:
        path, here = waiting.pop(0)
        if path:
            lines.append(f"[{'.'.join(_key(name) for name in path)}]")
        for name, value in here.items():
            if isinstance(value, dict) and len(path) < 6:
                waiting.append(((*path, name), value))
            else:
                lines.append(f"{_key(name)} = {value_text(value)}")
    return "\n".join(lines) + "\n"


def _key(name: object) -> str:
    text = str(name)
    return text if text.isascii() and text.replace("_", "").replace("-", "").isalnum() else json.dumps(text)


def value_text(value: Any) -> str:
    """Return a value as TOML writes it."""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, dict):
        return "{" + ", ".join(f"{_key(name)} = {value_text(one)}" for name, one in value.items()) + "}"
    if isinstance(value, list):
        return "[" + ", ".join(map(value_text, value)) + "]"
    if isinstance(value, datetime.date | datetime.time):
        return value.isoformat()
    if isinstance(value, str):
        return json.dumps(value)
    if value is None:
        return '"none"'
    if isinstance(value, int) and abs(value) > 10**300:
        return "9" * 401
    return repr(value)
