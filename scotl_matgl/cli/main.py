"""The entry point: all commands, and how a run ends."""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import warnings
from collections.abc import Iterator
from typing import Any, NoReturn

from scotl_matgl.cli import bridges, cache, doctor, models, rank, sources, studies  # noqa: F401 - their commands join the app
from scotl_matgl.cli.app import app
from scotl_matgl.cli.console import say

_ADDED_TO = "every finished fit is in the file of --output, if one was given; the same command goes on from there"

# What an interrupted command leaves, by its first words.
_KEPT = {
    "encode": "what was encoded is stored; the same command goes on where it stopped",
    "bridge build": "what was encoded, and every finished bridge, is kept; the same command goes on where it stopped",
    "data fetch": "what was fetched is kept; the same command goes on where it stopped",
    "train": "the last finished epoch is in the folder of --output; the same command with --resume goes on from there",
    "curve": _ADDED_TO,
    "evaluate": _ADDED_TO,
    "validate": _ADDED_TO,
}


class Interrupted(BaseException):
    """A signal asks the run to end. It is no Exception, so that what isolates failures does not swallow it."""

    def __init__(self, number: int) -> None:
        self.number = number


def main() -> None:
    """Run the command line: 0 when all went well, 2 for bad input, 1 for anything else that failed.

    A run that is interrupted says what is kept, and ends with 128 and the number of the signal.
    """
    warnings.formatwarning = _visible_warning
    for name in ("stdout", "stderr"):
        if getattr(sys, name) is None:  # whoever closed it wants to read nothing
            setattr(sys, name, open(os.devnull, "w", encoding="utf-8"))  # noqa: SIM115 - as long as the process
    try:
        with _interrupts():
            app()
    except Interrupted as stop:
        _say_what_is_kept(stop.number)
        sys.exit(128 + stop.number)
    except Exception as error:  # shown as a sentence; the traceback is there for who wants it
        _fail(error, 2 if _is_bad_input(error) else 1)


@contextlib.contextmanager
def _interrupts() -> Iterator[None]:
    """Meanwhile, SIGINT and SIGTERM raise :class:`Interrupted`."""
    before = {}
    for number in (signal.SIGINT, signal.SIGTERM):
        with contextlib.suppress(ValueError):  # not in the main thread: whoever calls deals with signals
            before[number] = signal.signal(number, _interrupt)
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _interrupt(number: int, _frame: Any) -> NoReturn:
    signal.signal(number, signal.SIG_DFL)  # whoever asks twice does not want to wait
    raise Interrupted(number)


def _say_what_is_kept(number: int) -> None:
    words = [word for word in sys.argv[1:] if not word.startswith("-")]
    kept = _KEPT.get(" ".join(words[:2])) or _KEPT.get(" ".join(words[:1])) or "it has written nothing; run it again"
    say(f"\ninterrupted ({signal.Signals(number).name}): {kept}", err=True)


def _visible_warning(
    message: Warning | str,
    category: type[Warning],
    filename: str,  # noqa: ARG001 - Python's signature
    lineno: int,  # noqa: ARG001
    line: str | None = None,  # noqa: ARG001
) -> str:
    """A warning on one line, without the place in the code, and without control characters of what it quotes."""
    from scotl_matgl.vocabulary import visible

    return f"{category.__name__}: {visible(str(message))}\n"


def _is_bad_input(error: Exception) -> bool:
    """Whether what the user gave is at fault: a file, or what our own checks refuse.

    A ValueError or KeyError of another package is not: those are what a fault of this one looks like.
    """
    if isinstance(error, FileNotFoundError | IsADirectoryError | NotADirectoryError | PermissionError):
        return True
    return isinstance(error, ValueError) and type(error).__module__.partition(".")[0] == __package__.partition(".")[0]


def _fail(error: Exception, code: int) -> None:
    if os.environ.get("SCOTL_MATGL_TRACEBACK"):
        raise error
    message = str(error) or type(error).__name__
    if code == 1:
        message = f"{type(error).__name__}: {message}"
    say(f"error: {message}", err=True)
    if code == 1:
        say("SCOTL_MATGL_TRACEBACK=1 shows where it happened", err=True)
    sys.exit(code)
