"""How far long work has come: told to a callable, drawn as a bar, or logged; all that takes `progress` does it here."""

from __future__ import annotations

import contextlib
import functools
import logging
import sys
import time
from collections.abc import Callable, Iterator
from typing import Any, ParamSpec, TypeAlias, TypeVar

from scotl_matgl.exceptions import InputError
from scotl_matgl.vocabulary import Progress

#: What `progress` may be: a callable of (done, total), True for a bar, or None.
Told: TypeAlias = Progress | bool | None

#: Records at level INFO say what is being done, how far it has come and what is left. Nothing is printed by default.
LOGGER = logging.getLogger("scotl_matgl")
LOGGER.addHandler(logging.NullHandler())

_P = ParamSpec("_P")
_R = TypeVar("_R")

# Seconds between two lines of the log.
_PAUSE = 2.0


@contextlib.contextmanager
def telling(progress: Told, label: str, *, verbose: bool = False) -> Iterator[Progress]:
    """Callable (done, total) for work that goes on inside the context.

    Parameters
    ----------
    progress : callable, True or None
        A callable is called with the same numbers. True draws a bar: below the cell in a notebook, else on stderr.
    label : str
        What is done, in a few words.
    verbose : bool, default=False
        Whether what is logged is printed to stderr too.

    Raises
    ------
    InputError
        If `progress` is none of these.

    Examples
    --------
    >>> with telling(lambda done, total: print(done, "of", total), "counting") as step:
    ...     step(1, 2)
    ...     step(2, 2)
    1 of 2
    2 of 2
    """
    if not (progress is None or isinstance(progress, bool) or callable(progress)):
        raise InputError(f"progress is {progress!r}; it must be a callable of (done, total), True for a bar, or None")
    lines = _Lines(label, verbose=verbose)
    with bar(label) if progress is True else contextlib.nullcontext(progress or _ignore) as told:

        def step(done: int, total: int) -> None:
            lines.step(done, total)
            told(done, total)

        yield step
    lines.end()


def tells(label: str) -> Callable[[Callable[_P, _R]], Callable[_P, _R]]:
    """Decorate a function whose keyword `progress` may be anything that :func:`telling` takes: it gets a callable."""

    def decorate(function: Callable[_P, _R]) -> Callable[_P, _R]:
        @functools.wraps(function)
        def told(*args: _P.args, **kwargs: _P.kwargs) -> _R:
            given: Any = kwargs.get("progress")
            with telling(given, label) as step:
                kwargs["progress"] = step
                return function(*args, **kwargs)

        return told

    return decorate


def part(progress: Progress | None, start: int, stop: int) -> Progress:
    """Progress of one of several parts of some work, as steps from `start` to `stop` of 100 of the whole."""

    def step(done: int, total: int) -> None:
        if progress is not None:
            progress(start + (stop - start) * done // max(total, 1), 100)

    return step


@contextlib.contextmanager
def bar(label: str, *, delay: float = 0.0) -> Iterator[Progress]:
    """Bar for what takes longer than `delay` seconds: below the cell in a notebook, else on stderr."""
    cell = _cell(label)
    if cell is not None:
        yield cell
        return
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn
    from rich.progress import Progress as Bars

    drawn = Bars(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
        console=Console(stderr=True),
        transient=True,
    )
    task = drawn.add_task(label, total=None)
    started = time.monotonic()

    def update(done: int, total: int) -> None:
        if not drawn.live.is_started and time.monotonic() - started >= delay and done < total:
            drawn.start()
        drawn.update(task, completed=done, total=total)

    try:
        yield update
    finally:
        drawn.stop()


class _Lines:
    """Lines of the log: the first, one every few seconds, and the last."""

    def __init__(self, label: str, *, verbose: bool) -> None:
        self.label, self.verbose = label, verbose
        self.started = self.last = time.monotonic()
        self.line("%s: started", label)

    def line(self, text: str, *values: Any) -> None:
        LOGGER.info(text, *values)
        if self.verbose:
            print(text % values, file=sys.stderr, flush=True)

    def step(self, done: int, total: int) -> None:
        now = time.monotonic()
        if now - self.last < _PAUSE or not 0 < done < total:
            return
        self.last = now
        left = (now - self.started) / done * (total - done)
        self.line("%s: %d of %d, some %.0f s left", self.label, done, total, left)

    def end(self) -> None:
        self.line("%s: done in %.1f s", self.label, time.monotonic() - self.started)


def _ignore(_done: int, _total: int) -> None:
    pass


def _cell(label: str) -> Progress | None:
    """Bar below the cell of a notebook, which needs nothing but IPython; None elsewhere."""
    shell = sys.modules["IPython"].get_ipython() if "IPython" in sys.modules else None
    if shell is None or getattr(shell, "kernel", None) is None:
        return None
    import html
    import importlib

    shown = importlib.import_module("IPython.display")
    started = time.monotonic()

    def drawn(done: int, total: int) -> Any:
        seconds = time.monotonic() - started
        left = f"{seconds / done * (total - done):.0f} s left" if 0 < done < total else f"{seconds:.0f} s"
        text = f"{html.escape(label)} <progress value='{done}' max='{total}'></progress> {done} of {total}, {left}"
        return shown.HTML(text)

    handle = shown.display(drawn(0, 1), display_id=True)

    def update(done: int, total: int) -> None:
        handle.update(drawn(done, total))

    return update
