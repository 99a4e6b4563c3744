"""A run as a trace that Perfetto and chrome://tracing open: one track a stage, one bar a token."""

import json
from pathlib import Path
from typing import Any

from accelsim.timing.recurrence import Times

MAX_BARS = 200_000
US = 1e6
"""Picoseconds in the microsecond that the format counts in."""


def chrome_trace(times: Times) -> dict[str, Any]:
    """Return the trace events (format: Trace Event Format, JSON object); of very long runs, the first tokens of each stage."""
    events: list[dict[str, Any]] = [_named("process_name", 0, 0, "accelerator")]
    allowed = max(1, MAX_BARS // len(times.graph.stages))
    for s, stage in enumerate(times.graph.stages):
        events.append(_named("thread_name", 0, s, stage.name))
        events.append({"ph": "M", "name": "thread_sort_index", "pid": 0, "tid": s, "args": {"sort_index": s}})
        for k, (start, finish, leave) in enumerate(zip(times.start[s][:allowed], times.finish[s], times.leave[s])):
            image, token = divmod(k, stage.n_tokens)
            bar = {"ph": "X", "pid": 0, "tid": s, "cat": "serve", "name": f"image {image}, token {token}"}
            events.append(bar | {"ts": int(start) / US, "dur": int(finish - start) / US})
            if leave > finish:
                events.append(bar | {"cat": "blocked", "name": "no room", "ts": int(finish) / US, "dur": int(leave - finish) / US})
    return {"traceEvents": events, "displayTimeUnit": "ns"}


def _named(what: str, pid: int, tid: int, name: str) -> dict[str, Any]:
    return {"ph": "M", "name": what, "pid": pid, "tid": tid, "args": {"name": name}}


def write_chrome_trace(times: Times, path: Path) -> None:
    """Write the trace into a new file."""
    with path.open("x", encoding="utf-8") as file:
        json.dump(chrome_trace(times), file)
