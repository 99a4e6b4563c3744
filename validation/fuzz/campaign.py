"""Many cases one after another: resumable, each distinct finding kept with the files that show it."""

import argparse
import json
import os
import resource
import shutil
import sys
import tempfile
import warnings
from collections import Counter, deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from importlib import import_module
from pathlib import Path

from validation.fuzz.cases import Case, write_case
from validation.fuzz.child import Ending, Running, start_limited
from validation.fuzz.oracle import Finding, findings, template
from validation.fuzz.sound import Runs

SAVE_EVERY, TELL_EVERY = 50, 500
AT_ONCE = 3
"""Cases that run while the next is written."""
OWN_BYTES = 8 * 2**30
"""More than a mutant takes to be made: a mistake of ours must not take the machine's memory."""
Tell = Callable[[str], None]


@dataclass(slots=True, kw_only=True)
class Progress:
    """What a campaign knows: cases done, endings by verb and code, findings by signature, refusals by template."""

    seed: int
    n_done: int = 0
    cpu_s: float = 0.0
    endings: dict[str, int] = field(default_factory=dict)
    kinds: dict[str, int] = field(default_factory=dict)
    found: dict[str, list[int]] = field(default_factory=dict)
    refusals: dict[str, list[object]] = field(default_factory=dict)

    @classmethod
    def read(cls, path: Path, *, seed: int) -> "Progress":
        """Return the progress in a file, or none; ValueError for that of another seed."""
        if not path.is_file():
            return cls(seed=seed)
        kept = cls(**json.loads(path.read_text()))
        if kept.seed != seed:
            raise ValueError(f"{path} is of seed {kept.seed}; give another --out for seed {seed}")
        return kept

    def write(self, path: Path) -> None:
        """Write the progress whole."""
        new = path.with_suffix(".new")
        new.write_text(json.dumps(asdict(self), indent=1))
        os.replace(new, path)

    def count(self, case: Case, ending: Ending) -> None:
        """Count an ending, and keep a refusal of a new template."""
        end = f"{case.argv[0]} {ending.code if ending.signal is None else f'signal {ending.signal}'}"
        self.endings[end] = self.endings.get(end, 0) + 1
        self.kinds[case.kind] = self.kinds.get(case.kind, 0) + 1
        self.cpu_s += ending.cpu_s
        if ending.code == 2:
            said = "\n".join(line for line in ending.err.splitlines() if not line.startswith("note: "))
            kept = self.refusals.setdefault(template(said)[:100], [0, self.n_done, said[:1500]])
            kept[0] = int(str(kept[0])) + 1


def run_campaign(*, seed: int, n: int, out: Path, tell: Tell) -> Progress:
    """Run the cases that `out` does not have yet, up to `n`, and return what was found."""
    out.mkdir(parents=True, exist_ok=True)
    progress = Progress.read(out / "progress.json", seed=seed)
    if progress.n_done:
        tell(f"{progress.n_done} of {n} cases are done already")
    with tempfile.TemporaryDirectory(prefix="accelsim-fuzz-") as work, _quiet():
        _prepare(Path(work))
        started: deque[Started] = deque()
        try:
            for number in range(progress.n_done, n):
                started.append(start_case(seed, number, Path(work)))
                if len(started) == AT_ONCE:
                    _judge(progress, started.popleft(), out, tell)
            while started:
                _judge(progress, started.popleft(), out, tell)
        finally:
            progress.write(out / "progress.json")
            for one in started:
                one.running.ended()
    return progress


def _judge(progress: Progress, one: "Started", out: Path, tell: Tell) -> None:
    """Wait for a case, count it, keep what is new, and save now and then."""
    ending, found = one.judged()
    progress.count(one.case, ending)
    for finding in found:
        seen = progress.found.setdefault(finding.signature, [])
        seen.append(one.number)
        if len(seen) == 1:
            kept = _keep(finding, one, ending, out)
            tell(f"FINDING {finding.signature}\n    case {one.number}: accelsim {' '.join(one.case.argv)[:160]}\n    {kept}")
    progress.n_done = one.number + 1
    if progress.n_done % SAVE_EVERY == 0:
        progress.write(out / "progress.json")
    if progress.n_done % TELL_EVERY == 0:
        tell(f"{progress.n_done} cases, {len(progress.found)} distinct findings, {progress.cpu_s:.0f} s of CPU")


@dataclass(frozen=True, slots=True, kw_only=True)
class Started:
    """A case whose command runs."""

    case: Case
    number: int
    folder: Path
    before: frozenset[str]
    running: Running

    def judged(self) -> tuple[Ending, list[Finding]]:
        """Wait for its end and return it with what is wrong with it; its files stay until its place is used again."""
        ending = self.running.ended()
        return ending, findings(self.case, ending, self.folder, self.before)


def start_case(seed: int, number: int, work: Path) -> Started:
    """Write one case under `work` and start it."""
    place = work / f"place{number % AT_ONCE}"
    shutil.rmtree(place, ignore_errors=True)
    folder = place / "case"
    folder.mkdir(parents=True)
    (place / "secret.bin").write_bytes(b"\0\0\x80?" * 1024)
    case = write_case(seed, number, folder, Runs(work / "sound"))
    before = frozenset(os.listdir(folder))
    running = start_limited(case.argv, folder, place / "record")
    return Started(case=case, number=number, folder=folder, before=before, running=running)


def _prepare(work: Path) -> None:
    """Make what cases share, and give matplotlib a folder of its own for fonts and settings."""
    resource.setrlimit(resource.RLIMIT_AS, (OWN_BYTES, OWN_BYTES))
    os.environ["MPLCONFIGDIR"] = str(work / "matplotlib")
    os.environ["TORCHINDUCTOR_CACHE_DIR"] = str(work / "torch")
    for name in ("matplotlib.font_manager", "accelsim.cli_commands", "accelsim.cli_demo", "workloads.onnx_survey", "accelsim.cell_fit"):
        import_module(name)  # once, not in every fork; the first looks for fonts everywhere
    Runs(work / "sound").make()


@contextmanager
def _quiet() -> Iterator[None]:
    """Keep to ourselves what zipfile and numpy say of files that are made wrong on purpose."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


def _keep(finding: Finding, one: Started, ending: Ending, out: Path) -> Path:
    """Copy a case's files with its command and what it said; pipes and links are left out."""
    kept = out / "findings" / f"{one.number:06d}"
    kept.mkdir(parents=True, exist_ok=True)
    for path in one.folder.rglob("*"):
        if path.is_file() and not path.is_symlink():
            target = kept / path.relative_to(one.folder)
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(path, target)
    command = " ".join(map(repr, one.case.argv))
    said = f"{finding.signature}\n{finding.detail}\n\naccelsim {command}\ncode {ending.code} signal {ending.signal}\n\n"
    with (kept / "FINDING.txt").open("a", encoding="utf-8", errors="replace") as file:
        file.write(f"{said}{ending.err[-8000:]}\n{ending.out[:4000]}\n")
    return kept


def main(arguments: list[str], tell: Tell) -> int:
    """Run `python -m validation fuzz`; return 0 when nothing was found."""
    parser = argparse.ArgumentParser(prog="python -m validation fuzz", description=__doc__)
    parser.add_argument("--n", type=int, default=10_000, help="cases in all (10000)")
    parser.add_argument("--seed", type=int, default=1, help="of all mutants (1)")
    parser.add_argument("--out", type=Path, default=Path("fuzz"), help="folder of progress and findings (fuzz); a second start goes on")
    parser.add_argument("--only", type=int, metavar="NUMBER", help="run this case alone and show what it says")
    chosen = parser.parse_args(arguments)
    if not sys.platform.startswith("linux"):
        parser.error("the limits of time, memory and files need Linux")
    if chosen.only is not None:
        return _only(chosen.seed, chosen.only, tell)
    try:
        progress = run_campaign(seed=chosen.seed, n=chosen.n, out=chosen.out, tell=tell)
    except ValueError as error:
        parser.error(str(error))
    tell(summary(progress))
    return 1 if progress.found else 0


def _only(seed: int, number: int, tell: Tell) -> int:
    with tempfile.TemporaryDirectory(prefix="accelsim-fuzz-") as work, _quiet():
        _prepare(Path(work))
        one = start_case(seed, number, Path(work))
        ending, found = one.judged()
        tell(f"accelsim {' '.join(map(repr, one.case.argv))}\n{ending.out}\n{ending.err}\ncode {ending.code}, {ending.cpu_s:.2f} s of CPU")
        for finding in found:
            tell(f"{finding.signature}\n{finding.detail}")
    return 1 if found else 0


def summary(progress: Progress) -> str:
    """Return what a campaign found, in words."""
    codes: Counter[str] = Counter()
    for end, n in progress.endings.items():
        codes[end.partition(" ")[2]] += n
    lines = [
        f"{progress.n_done} cases, {progress.cpu_s:.0f} s of CPU; {len(progress.refusals)} different refusals",
        "by what was mutated: " + ", ".join(f"{kind} {n}" for kind, n in sorted(progress.kinds.items())),
        "by exit code: " + ", ".join(f"{code}: {n}" for code, n in sorted(codes.items())),
        f"{len(progress.found)} distinct findings",
    ]
    return "\n".join([*lines, *(f"  {signature}: {len(seen)} cases, first {seen[0]}" for signature, seen in progress.found.items())])
