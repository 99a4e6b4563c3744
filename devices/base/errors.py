"""Errors a user can cause and mend. Each message has the value, the rule and the lever."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


class AccelsimError(Exception):
    """Base of every error that is the user's to mend; the CLI prints these without a traceback."""


class SpecError(AccelsimError):
    """A spec, preset, design or `--set` that breaks a rule."""


class NetworkError(AccelsimError):
    """A network file that cannot be read, is malformed, or asks for what is refused."""


class UnsupportedOperatorError(NetworkError):
    """An ONNX operator that has no rule here; the message names node, operator and opset."""


class UnsupportedMethodError(AccelsimError):
    """A predictor that has no rule for an operator of this network; other methods may."""


class SamplesError(AccelsimError):
    """Input samples of the wrong kind, shape or content."""


class MemoryLimitError(AccelsimError):
    """Work whose estimated memory exceeds the limit it was given."""


class InfeasibleError(AccelsimError):
    """A request that no design can meet; the message has the floor, the gap and the levers."""


class RunFolderError(AccelsimError):
    """A run folder that cannot be written, or is not one of ours."""


class DeadlockError(AccelsimError):
    """Stages of an accelerator that wait for each other; the message names the circle and the buffers in it."""


def no_file(what: str, path: Path, *, lever: str) -> str:
    """Return the message for a path where no regular file is, and what to give instead."""
    instead = ": it is a folder" if path.is_dir() else ": it is a pipe or a device" if path.exists() else ""
    return f"no {what} file {str(path)!r}{instead}; {lever}"


@contextmanager
def told_of(path: Path) -> Iterator[None]:
    """Put a file's name before what is said of its content, where the message does not have it."""
    try:
        yield
    except AccelsimError as error:
        if path.name in str(error):
            raise
        raise type(error)(f"{path.name}: {error}") from error.__cause__
