"""One command in a process of its own: limited in time, memory and file size, every file that it opens noted."""

import faulthandler
import json
import os
import resource
import select
import shutil
import signal
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

CPU_S = 10
WALL_S = 60.0
"""A machine may be busy: a process that computes is held to CPU_S, one that waits to this."""
MEMORY_BYTES = 2 * 2**30
FILE_BYTES = 64 * 2**20
_WATCHED = ("open", "os.listdir", "os.scandir", "os.mkdir", "os.rmdir", "os.remove", "os.rename", "os.link", "os.symlink")
_FORBIDDEN = ("subprocess.Popen", "os.system", "os.exec", "os.posix_spawn", "socket.connect", "socket.getaddrinfo")
_WRITES = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND


@dataclass(frozen=True, slots=True, kw_only=True)
class Ending:
    """How a command ended: its exit code or the signal that killed it, what it said, what it took, what it touched."""

    code: int | None
    signal: int | None
    timed_out: bool
    out: str
    err: str
    cpu_s: float
    memory_bytes: int
    touched: tuple[tuple[str, str, bool], ...]
    """Event, real path, and whether to write."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Running:
    """A command that was started and not yet waited for."""

    pid: int
    record: Path
    started_s: float

    def ended(self) -> Ending:
        """Wait for the end, at most WALL_S from the start, longer where the machine has more to do than CPUs, and return how it was."""
        timed_out = self._waited_long()
        if timed_out:
            os.kill(self.pid, signal.SIGKILL)
        _, status, used = os.wait4(self.pid, 0)
        kept = json.loads(text) if (text := _text(self.record / "touched.json")) else {}
        killed = os.WTERMSIG(status) if os.WIFSIGNALED(status) else None
        return Ending(
            code=None if killed else os.waitstatus_to_exitcode(status), signal=killed, timed_out=timed_out, out=_text(self.record / "out"),
            err=_text(self.record / "err"), cpu_s=used.ru_utime + used.ru_stime, memory_bytes=int(kept.get("memory_bytes", 0)),
            touched=tuple((str(event), str(path), bool(write)) for event, path, write in kept.get("touched", ())),
        )  # fmt: skip

    def _waited_long(self) -> bool:
        descriptor = os.pidfd_open(self.pid)
        try:
            busy = max(1.0, os.getloadavg()[0] / (os.cpu_count() or 1))  # who waits for a CPU does not hang
            left_s = max(0.0, self.started_s + WALL_S * busy - time.monotonic())
            return not select.select([descriptor], [], [], left_s)[0]
        finally:
            os.close(descriptor)


def start_limited(argv: Sequence[str], folder: Path, record: Path) -> Running:
    """Start `accelsim argv` in `folder` in a fork of this process; `record` is a folder for what it says."""
    shutil.rmtree(record, ignore_errors=True)
    record.mkdir(parents=True)
    sys.stdout.flush()
    sys.stderr.flush()
    pid = os.fork()
    if pid == 0:
        _child(argv, folder, record)
    return Running(pid=pid, record=record, started_s=time.monotonic())


def _text(path: Path) -> str:
    return path.read_bytes()[:2_000_000].decode("utf-8", errors="replace") if path.is_file() else ""


def _child(argv: Sequence[str], folder: Path, record: Path) -> None:
    """Run the command, note what it touched, and end the process."""
    code = 99
    try:
        touched: list[tuple[str, str, bool]] = []
        notes = os.open(record / "touched.json", os.O_WRONLY | os.O_CREAT)
        _redirect(record)
        os.chdir(folder)
        before = _limit()
        sys.addaudithook(lambda event, args: _note(touched, event, args))
        from accelsim.cli import main
        from validation.fuzz.calls import CALLS, call

        code = call(argv) if argv and argv[0] in CALLS else main(list(argv))
        sys.stdout.flush()
        noted = [] if code == 99 else list(touched)
        memory = max(0, 1024 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)
        os.write(notes, json.dumps({"touched": noted, "memory_bytes": memory}).encode())
    except BaseException:  # noqa: BLE001  whatever it is, the parent reads it
        faulthandler.dump_traceback()
        import traceback

        traceback.print_exc()
    finally:
        sys.stderr.flush()
        os._exit(code)


def _redirect(record: Path) -> None:
    for descriptor, name in ((1, "out"), (2, "err")):
        target = os.open(record / name, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        os.dup2(target, descriptor)
        os.close(target)
    nothing = os.open(os.devnull, os.O_RDONLY)
    os.dup2(nothing, 0)
    sys.stdout = open(1, "w", encoding="utf-8", closefd=False)  # noqa: SIM115  until the process ends
    sys.stderr = open(2, "w", encoding="utf-8", closefd=False, errors="backslashreplace")  # noqa: SIM115


def _limit() -> int:
    """Set the limits and return the resident memory that the process starts with."""
    pages, resident = (int(n) for n in Path("/proc/self/statm").read_text().split()[:2])
    page = resource.getpagesize()
    limit = pages * page + MEMORY_BYTES
    resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
    resource.setrlimit(resource.RLIMIT_CPU, (CPU_S, CPU_S + 2))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (FILE_BYTES, FILE_BYTES))
    started = time.process_time()  # a fork starts at zero
    assert started < 1.0
    return resident * page


def _note(touched: list[tuple[str, str, bool]], event: str, args: tuple[Any, ...]) -> None:
    if event in _FORBIDDEN:
        touched.append((event, str(args)[:200], True))
    elif event in _WATCHED and args and isinstance(args[0], str | bytes | os.PathLike) and len(touched) < 20_000:
        writes = event not in ("open", "os.listdir", "os.scandir") or (event == "open" and bool((args[2] or 0) & _WRITES))
        touched.append((event, os.path.realpath(os.fsdecode(args[0])), writes))
