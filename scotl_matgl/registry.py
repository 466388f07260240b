"""Entry points: how zoos, descriptors, bridges and estimators of any installed distribution are found and loaded."""

from __future__ import annotations

import contextlib
import difflib
import functools
import importlib
import io
import math
import os
import sys
import threading
import time
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from importlib import metadata
from types import MappingProxyType, ModuleType
from typing import Any, Literal

from scotl_matgl.exceptions import PluginWarning, warn

OWN_DISTRIBUTION = "scotl-matgl"

#: What can be registered, and the entry-point group of each kind.
GROUPS: Mapping[str, str] = MappingProxyType(
    {kind: f"scotl_matgl.{kind}" for kind in ("zoos", "descriptors", "bridges", "estimators")}
)


#: Seconds that a plugin may take to be imported and to list its cards, and the environment variable that changes them.
DEFAULT_TIMEOUT = 30.0
TIMEOUT_VARIABLE = "SCOTL_MATGL_PLUGIN_TIMEOUT"


class PluginError(RuntimeError):
    """A registered object could not be found or imported; the message names the distribution and what to do."""


class _ToStderr(io.TextIOBase):
    """Writes to stderr whatever it is given, and is never closed."""

    def write(self, text: str) -> int:
        """Write to stderr, with control characters spelt out."""
        from scotl_matgl.vocabulary import visible

        if sys.stderr is not None:
            sys.stderr.write(visible(text))
        return len(text)

    def close(self) -> None:
        """Stay open: others write here too."""


class _Work(threading.Thread):
    """A call in a thread that does not keep the interpreter from ending."""

    def __init__(self, what: str, call: Callable[[], Any]) -> None:
        super().__init__(name=f"{__name__}: {what}", daemon=True)
        self.call = call
        self.started = time.monotonic()
        self.ended = threading.Event()  # a thread that is about to start is listed, and cannot be joined yet
        self.value: Any = None
        self.error: BaseException | None = None

    def run(self) -> None:
        """Call, and keep what comes of it."""
        try:
            self.value = self.call()
        except BaseException as error:  # it is raised again in the thread that waits
            self.error = error
        finally:
            self.ended.set()


def time_limit() -> float:
    """Seconds that a plugin may take, as the environment variable SCOTL_MATGL_PLUGIN_TIMEOUT or the default says."""
    setting = os.environ.get(TIMEOUT_VARIABLE, "")
    try:
        limit = float(setting) if setting.strip() else DEFAULT_TIMEOUT
    except ValueError:
        limit = math.nan
    if not limit > 0:
        raise ValueError(f"{TIMEOUT_VARIABLE} is {setting!r}; it must be a number of seconds above 0")
    return limit


class _KeptStreams:
    """While in use, what is written to stdout goes to stderr, and who closes one of them does not close it for us.

    The streams are the process's own: of several threads the first turns them, and the last turns them back. Each for
    itself, the second would keep as stdout what the first had made of it, for good.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._users = 0
        self._undo = contextlib.ExitStack()

    def __enter__(self) -> None:
        with self._lock:
            self._users += 1
            if self._users == 1:
                self._turn()

    def __exit__(self, *_: object) -> None:
        with self._lock:
            self._users -= 1
            if self._users == 0:
                self._undo.close()

    def _turn(self) -> None:
        stack = self._undo
        with contextlib.suppress(AttributeError, OSError, ValueError):  # closed, or there is none
            sys.stdout.flush()
        kept = {}
        for number in (1, 2):
            with contextlib.suppress(OSError):
                kept[number] = os.dup(number)
        for number, copy in kept.items():
            stack.callback(os.close, copy)
            stack.callback(os.dup2, copy, number)
        if len(kept) == 2:
            os.dup2(2, 1)
        stack.enter_context(contextlib.redirect_stdout(_ToStderr()))


_kept_streams = _KeptStreams()


def in_limited_time(what: str, call: Callable[[], Any]) -> Any:
    """Call something of a plugin that may hang, and give up on it after a while.

    Parameters
    ----------
    what : str
        Begins the message of the error, and tells calls apart: while one of this name hangs, no second one is started,
        and the time that it has had counts.
    call : callable
        Called without arguments, in a thread of its own.

    Raises
    ------
    TimeoutError
        If it has not come back after 30 seconds, or as many as the environment variable SCOTL_MATGL_PLUGIN_TIMEOUT
        says. A thread cannot be ended from outside: what hangs goes on until the interpreter ends. Code that never
        hands back control to Python (a loop in C that holds its global lock) is beyond this.

    Notes
    -----
    Only the main thread may set signal handlers, so a plugin that does so while it is imported fails, with that reason.
    """
    limit = time_limit()
    work = _Work(what, call)
    for thread in threading.enumerate():
        if isinstance(thread, _Work) and thread.name == work.name:
            left = max(0.0, min(limit - (time.monotonic() - thread.started), threading.TIMEOUT_MAX))
            if not thread.ended.wait(left):
                raise TimeoutError(f"{what} has not come back after {limit:g} s ({TIMEOUT_VARIABLE} sets the limit)")
    # What a plugin prints must not mix with our output, and closing it must not close ours.
    with _kept_streams:
        try:
            work.start()
        except RuntimeError:  # there may be no more threads; nobody is to wait for this one
            work.ended.set()
            raise
        work.ended.wait(min(limit, threading.TIMEOUT_MAX))
    if not work.ended.is_set():
        raise TimeoutError(f"{what} has not come back after {limit:g} s ({TIMEOUT_VARIABLE} sets the limit)")
    if isinstance(work.error, KeyboardInterrupt):  # no key of the user's: that interrupts the thread that waits
        raise RuntimeError("it raises KeyboardInterrupt") from work.error
    if work.error is not None:
        raise work.error
    return work.value


def import_module(name: str) -> ModuleType:
    """Import a module: our own as usual, that of a plugin :func:`in_limited_time`."""
    if name.partition(".")[0] == __package__:
        return importlib.import_module(name)
    module: ModuleType = in_limited_time(f"the import of {name}", lambda: importlib.import_module(name))
    return module


@dataclass(frozen=True)
class Registration:
    """One entry point, known from its metadata and not yet imported.

    Attributes
    ----------
    kind : str
        One of :data:`GROUPS`.
    name : str
        Name under which users refer to the object.
    distribution, version : str
        Where it comes from; ``"unknown"`` where the metadata does not say.
    entry_point : importlib.metadata.EntryPoint
        What :meth:`load` imports.
    """

    kind: str
    name: str
    distribution: str
    version: str
    entry_point: metadata.EntryPoint

    @property
    def origin(self) -> str:
        """Distribution, version and target, as messages show them."""
        return f"{self.distribution} {self.version} ({self.entry_point.value})"

    def load(self) -> Any:
        """Import the object.

        Raises
        ------
        PluginError
            If the import fails for whatever reason, with that reason.
        """
        try:
            import_module(self.entry_point.module)
            return self.entry_point.load()
        except KeyboardInterrupt:
            raise
        except BaseException as error:  # a plugin may raise anything while it is imported, sys.exit() included
            remedy = f"reinstall or remove the distribution {self.distribution}"
            if isinstance(error, ModuleNotFoundError) and error.name:
                remedy = f"install the missing package {error.name!r}, or remove the distribution {self.distribution}"
            raise PluginError(
                f"{self.kind[:-1]} {self.name!r} of {self.origin} cannot be imported: "
                f"{type(error).__name__}: {error}; {remedy}"
            ) from error


def collect(kind: str, entry_points: Iterable[metadata.EntryPoint]) -> Mapping[str, Registration]:
    """Entry points of one kind by name, warning once for each name that two distributions claim.

    Parameters
    ----------
    kind : str
        One of :data:`GROUPS`.
    entry_points : iterable of importlib.metadata.EntryPoint
        In any order. The project's own come first, the others in the order of their distributions' names, so that
        the winner of a clash does not depend on the order of ``sys.path``.

    Returns
    -------
    mapping of str to Registration
        Read-only, sorted by name.
    """
    by_name: dict[str, list[Registration]] = defaultdict(list)
    for entry_point in entry_points:
        dist = entry_point.dist
        registration = Registration(
            kind=kind,
            name=entry_point.name,
            distribution=_told(dist, "name"),
            version=_told(dist, "version"),
            entry_point=entry_point,
        )
        # An editable install beside a build folder lists the same entry point twice: that is no clash.
        if not any(known.origin == registration.origin for known in by_name[entry_point.name]):
            by_name[entry_point.name].append(registration)

    chosen = {}
    for name, claims in sorted(by_name.items()):
        claims.sort(key=lambda item: (item.distribution != OWN_DISTRIBUTION, item.distribution, item.origin))
        chosen[name] = claims[0]
        if len(claims) > 1:
            others = ", ".join(item.origin for item in claims[1:])
            warn(
                f"{kind[:-1]} {name!r} is registered more than once: {claims[0].origin} is used, {others} is ignored",
                PluginWarning,
            )
    return MappingProxyType(chosen)


def _told(dist: metadata.Distribution | None, field: Literal["name", "version"]) -> str:
    """Name or version of a distribution, "unknown" where a broken installation left a folder without metadata.

    Both are None then; with the package importlib_metadata imported they raise its MetadataNotFound instead.
    """
    try:
        return getattr(dist, field, None) or "unknown"
    except (FileNotFoundError, KeyError):
        return "unknown"


@functools.lru_cache(maxsize=len(GROUPS))
def entries(kind: str) -> Mapping[str, Registration]:
    """Everything registered under one kind; metadata only, nothing is imported.

    Parameters
    ----------
    kind : {"zoos", "descriptors", "bridges", "estimators"}
        What to list.

    Returns
    -------
    mapping of str to Registration
        Read-only, sorted by name. Cached for the process; see :func:`refresh`.

    Examples
    --------
    >>> "scotl" in entries("estimators")
    True
    """
    if kind not in GROUPS:
        raise ValueError(f"Unknown {kind=}; choose one of {', '.join(GROUPS)}")
    return collect(kind, metadata.entry_points(group=GROUPS[kind]))


def refresh() -> None:
    """Forget what was discovered, so that distributions installed since then are seen."""
    entries.cache_clear()


def names(kind: str) -> tuple[str, ...]:
    """Names registered under one kind, sorted."""
    return tuple(entries(kind))


def load(kind: str, name: str) -> Any:
    """Import the object registered as `name`.

    Raises
    ------
    PluginError
        If the name is unknown (the message lists what is installed) or the import fails.
    """
    known = entries(kind)
    if name not in known:
        close = difflib.get_close_matches(name, known, n=1)
        hint = f"did you mean {close[0]!r}? " if close else ""
        raise PluginError(f"Unknown {kind[:-1]} {name!r}; {hint}Registered are: {', '.join(known) or 'none'}")
    return known[name].load()
