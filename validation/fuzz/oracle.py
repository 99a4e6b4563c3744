"""What may not happen, whatever the input: the rules that every ending is held to."""

import json
import os
import re
import sys
import sysconfig
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from validation.fuzz.cases import Case
from validation.fuzz.child import MEMORY_BYTES, Ending

CODES = (0, 1, 2, 130)
CACHES = ("NUMBA_CACHE_DIR", "MPLCONFIGDIR", "TORCHINDUCTOR_CACHE_DIR")
MAX_LINES = 24
MAX_CHARACTERS = 3000
_FRAME = re.compile(r'File "([^"]+)", line (\d+), in (\S+)')
_PROGRESS = re.compile(r"\b\d+ of \d+ (?:computed|trials)|step \d+ of \d+")
"""What a long sweep, search or training tells on its way: that it takes long is what was asked for."""
_OF_FILE = re.compile(
    r"\b(?:axes|space|points|options|run|design|n_points|seed|objectives|constraints|n_trials|batch|sampler|scales|out|set)\b[^\n]*: "
)
"""Fields of the file of a sweep or a search."""
_NEEDS = re.compile(r"needs (?:Optuna|PyTorch)|no (?:samples|network) file '|: File name too long$", re.MULTILINE)
"""Refusals of an extra that is not there, and of files by the name that the mutant gives them."""
_TO_FILE = ("cite", "devices", "inspect", "memory", "spec")
"""Verbs whose `--out` is a file that gets the answer, in place of the terminal."""
_NOT_FINITE = re.compile(r"(?<![\w.'])[-+]?(nan|inf)(?![\w.'(])", re.IGNORECASE)
_NUMPY_NOTE = re.compile(r"note: .*(encountered in|divide by zero|Warning|deprecated)")
_FIELD = re.compile(
    r"(?:error: |^\s*)(?:chip|layers|use|design|fpga)[\w.\[\]'\"-]*: |\b(?:cell|mapping|drive|sense|chip)\.\w", re.MULTILINE
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """A rule that was broken; findings of one signature are taken for one."""

    rule: str
    signature: str
    detail: str


def findings(case: Case, ending: Ending, folder: Path, before: frozenset[str]) -> list[Finding]:
    """Return what is wrong with an ending; `before` are the names that were in the folder."""
    return [*_of_process(case, ending), *_of_files(case, ending, folder, before), *_of_words(case, ending)]


def _found(rule: str, signature: str, detail: str = "") -> Finding:
    return Finding(rule=rule, signature=f"{rule}: {signature}", detail=detail)


def _of_process(case: Case, ending: Ending) -> list[Finding]:
    verb = case.argv[0]
    if ending.code == 70 or "Traceback (most recent" in ending.err:
        return [_found("traceback", _last_frame(ending.err), ending.err[-1500:])]
    if ending.signal is not None and _PROGRESS.search(ending.err):
        return []
    if ending.timed_out or ending.signal in (24, 9):
        return [_found("hang", f"{verb} {case.kind}", f"{ending.cpu_s:.1f} s of CPU")]
    if ending.signal is not None:
        return [_found("killed", f"{verb} by signal {ending.signal}", ending.err[-1500:])]
    found = []
    if ending.code not in CODES:
        found.append(_found("exit code", f"{verb} {ending.code}", ending.err[-500:]))
    if "not enough memory" in ending.err or ending.memory_bytes > MEMORY_BYTES:
        found.append(_found("memory", f"{verb} {case.kind}", f"{ending.memory_bytes / 2**20:.0f} MiB; {ending.err[-400:]}"))
    return found


def _last_frame(err: str) -> str:
    """Return the last place of ours in a traceback, and the exception."""
    frames = [f for f in _FRAME.findall(err) if any(f"/{name}/" in f[0] for name in ("accelsim", "devices", "workloads"))]
    place = f"{Path(frames[-1][0]).name}:{frames[-1][1]} {frames[-1][2]}" if frames else "?"
    raised = re.findall(r"^(\w[\w.]*(?:Error|Exception|Warning|Interrupt|Exit|Iteration))\b", err, re.MULTILINE)
    return f"{place} {raised[-1] if raised else '?'}"


# files


def _of_files(case: Case, ending: Ending, folder: Path, before: frozenset[str]) -> list[Finding]:
    found = []
    for event, path, writes in ending.touched:
        was_given = case.kind in ("arguments", "sweep", "search") and not writes  # their files name the files to read
        if not was_given and not _may_touch(path, folder, writes=writes, event=event):
            found.append(_found("outside", f"{event} {_short(path)}", " ".join(case.argv)))
    new = {name for name in os.listdir(folder) if name not in before}
    allowed = {case.out} if case.out is not None and ending.code in (0, 1, 130) else set()
    if case.kind != "arguments" and new - allowed:
        what = "temporary files" if any(name.startswith(".") for name in new) else "files"
        found.append(_found("litter", f"{case.argv[0]} leaves {what}", str(new)))
    if case.out is not None and ending.code == 0 and "." not in case.out and not _is_whole(folder / case.out):
        found.append(_found("half written", case.argv[0], str(sorted(new))))
    return found


def _is_whole(run: Path) -> bool:
    places = [run, *(p for p in run.iterdir() if p.is_dir())] if run.is_dir() else []
    ends = ("manifest.json", "sweep.json", "explore.json")
    return any((place / name).is_file() for place in places for name in ends) and not any(p.name.startswith(".") for p in run.rglob("*"))


@cache
def _readable() -> tuple[str, ...]:
    """Return where the program itself lies: its packages, Python's, and what the system tells every process."""
    own = str(Path(__file__).resolve().parents[2])
    packages = [f"{own}/{name}" for name in ("accelsim", "devices", "workloads", "validation")]
    places = [sys.prefix, sys.base_prefix, sysconfig.get_path("stdlib"), *packages]
    caches = [os.environ.get(name, "") for name in CACHES]
    homes = [str(Path.home() / place) for place in (".config/matplotlib", ".cache/matplotlib", ".cache/fontconfig")]
    system = [
        "/usr/share", "/usr/lib", "/usr/local/share", "/etc/fonts", "/proc/self", f"/proc/{os.getpid()}", "/proc/meminfo", "/sys/fs/cgroup",
        "/sys/devices/system", "/dev/null", "/dev/urandom",
    ]  # fmt: skip
    return tuple(os.path.realpath(place) for place in (*places, *caches, *homes, *system) if place)


def _may_touch(path: str, folder: Path, *, writes: bool, event: str) -> bool:
    if event not in ("open", "os.listdir", "os.scandir", "os.mkdir", "os.rmdir", "os.remove", "os.rename", "os.link", "os.symlink"):
        return False
    real = os.path.realpath(folder)
    if path == real or path.startswith(real + "/"):
        return True
    if re.search(r"\.(egg|dist)-info/[A-Za-z_.]+$", path) and not writes:
        return True  # which versions are installed
    if "/__pycache__/" in path or path.endswith("/__pycache__") or path == "/dev/null":
        return True  # compiled modules and kernels
    caches = [os.environ.get(name, "\0") for name in CACHES]
    if any(path.startswith(os.path.realpath(place)) for place in caches if "\0" not in place):
        return True
    if writes:
        return False
    if event == "os.listdir" and path in {os.path.realpath(place) for place in sys.path}:
        return True  # where packages may be
    if re.fullmatch(r"/proc/\d+/.*", path) or "/sound/" in path:
        return "environ" not in path
    return any(path == place or path.startswith(place + "/") for place in _readable())


def _short(path: str) -> str:
    return re.sub(r"\d+", "N", path)[-60:]


# words


def _of_words(case: Case, ending: Ending) -> list[Finding]:
    if ending.signal is not None or ending.code == 70:
        return []
    verb, found = case.argv[0], []
    for name, text in (("stderr", ending.err), ("stdout", ending.out)):
        if odd := sorted({c for c in text if not c.isprintable() and c not in "\n\r"}):
            found.append(_found("control character", f"{verb} {name} {odd[:3]!r}", text[:300]))
    if note := _NUMPY_NOTE.search(ending.err):
        found.append(_found("numpy note", f"{verb} {re.sub(r'[0-9.]+', 'N', note[0])[:80]}", ending.err[-600:]))
    if ending.code == 2:
        found += _of_refusal(case, ending)
    elif ending.code == 0:
        found += _of_answer(case, ending)
    return found


def _of_refusal(case: Case, ending: Ending) -> list[Finding]:
    said = "\n".join(line for line in ending.err.splitlines() if not line.startswith("note: "))
    if said.startswith("usage:"):
        return []
    found = []
    if len(re.findall(r"^accelsim: error: ", said, re.MULTILINE)) != 1:
        found.append(_found("refusal", f"{case.argv[0]} says not one error", said[:400]))
    if len(said.splitlines()) > MAX_LINES or len(said) > MAX_CHARACTERS:
        found.append(_found("refusal", f"too long: {template(said)[:60]}", said[:600]))
    if ending.out:
        found.append(_found("refusal", f"{case.argv[0]} answers and refuses", ending.out[:300]))
    if not names_place(case, said):
        found.append(_found("no place", template(said)[:90], said[:400]))
    return found


def names_place(case: Case, said: str) -> bool:
    """Return whether a refusal names a file that was given or the network in it, a flag, or a field of the spec."""
    stems = [Path(name).stem for name in case.names if name.endswith(".onnx")]
    known = (*case.names, *stems, "--", "tiny", "set '", "unknown field", "arrivals:")
    if case.kind in ("sweep", "search") and _OF_FILE.search(said) is not None:
        return True
    return any(name in said for name in known) or _FIELD.search(said) is not None or _NEEDS.search(said) is not None


def _of_answer(case: Case, ending: Ending) -> list[Finding]:
    if "--json" in case.argv:
        if "--out" in case.argv and case.argv[0] in _TO_FILE and not ending.out:
            return []
        try:
            json.loads(ending.out, parse_constant=_refuse)
        except ValueError as error:
            return [_found("json", f"{case.argv[0]}: {str(error)[:40]}", ending.out[:300])]
        return []
    if case.argv[0] in ("predict", "optimize", "validate", "simulate", "evaluate", "fit") and (match := _NOT_FINITE.search(ending.out)):
        line = next(line for line in ending.out.splitlines() if _NOT_FINITE.search(line))
        return [_found("not finite", f"{case.argv[0]} {template(line)[:50]}", f"{match[0]}: {line}")]
    return []


def _refuse(name: str) -> float:
    raise ValueError(f"{name} is no JSON")


def template(said: str) -> str:
    """Return a message without what differs from case to case: names in quotes and numbers."""
    text = said.replace("accelsim: error: ", "", 1)
    text = re.sub(r"'(?:[^'\\]|\\.){0,200}'|\"[^\"]{0,200}\"", "'_'", text)
    return re.sub(r"[-+]?\d[\d.,e+x-]*", "N", text)
