"""Worker processes of our own: spawned, never forked, replaced when they die, gone when their parent is."""

import multiprocessing
import os
import signal
import threading
from concurrent.futures import Executor, ProcessPoolExecutor

from devices.base.errors import AccelsimError

START_TRIES = 2


class WorkersDiedError(AccelsimError):
    """Worker processes that end before they have done anything."""


class Pool:
    """Makes executors, one after another as they break; `again` is called for each that broke."""

    def __init__(self, n_workers: int) -> None:
        self.n_workers = n_workers
        self.executor = self._made()
        self.is_proven = False
        self.n_broken = 0

    def _made(self) -> ProcessPoolExecutor:
        context = multiprocessing.get_context("spawn")
        return ProcessPoolExecutor(self.n_workers, mp_context=context, initializer=_start_worker)

    def again(self) -> Executor:
        """Return a new executor for one whose workers died; WorkersDiedError where none has ever lived."""
        self.n_broken += 1
        if not self.is_proven and self.n_broken >= START_TRIES:
            raise WorkersDiedError(
                "worker processes die before they begin; in a script, call sweep() under `if __name__ == \"__main__\":`, "
                "since workers import the script; or memory is short: give fewer workers"
            )
        self.executor.shutdown(wait=True, cancel_futures=True)  # its own thread ends first, or the interpreter stumbles over it
        self.executor = self._made()
        return self.executor

    def close(self, *, at_once: bool) -> None:
        """End the workers: when they have finished, or at once, in the middle of a point."""
        if at_once:
            for process in list((getattr(self.executor, "_processes", None) or {}).values()):  # no public name before Python 3.14
                process.terminate()
        self.executor.shutdown(wait=True, cancel_futures=True)


def _start_worker() -> None:
    """Leave Ctrl-C to the parent, and end when it ends: a parent that is killed closes nothing."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    parent = multiprocessing.parent_process()
    if parent is not None:
        threading.Thread(target=_end_with, args=(parent,), daemon=True).start()


def _end_with(parent: "multiprocessing.process.BaseProcess") -> None:
    parent.join()
    os._exit(1)
