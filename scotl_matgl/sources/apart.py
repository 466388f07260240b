"""Zoos of plugins: listed here, or by a process of their own if asked for or after one has ended a run."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from scotl_matgl import registry
from scotl_matgl.storage import home, lock_file
from scotl_matgl.vocabulary import visible

#: Environment variable: 1 lists the cards of all plugins in processes of their own.
ISOLATE_VARIABLE = "SCOTL_MATGL_ISOLATE"


def list_zoo(registration: registry.Registration, from_json: Callable[[Any], Any]) -> list[Any]:
    """What a zoo lists, which should be cards.

    Parameters
    ----------
    registration : Registration
        Of a zoo. Those of this package are trusted.
    from_json : callable
        Makes a card from its JSON form, which is what a process of its own hands over.

    Raises
    ------
    PluginError
        If it cannot be imported, or its process ends early.
    TimeoutError
        If it takes too long.
    Exception
        Whatever a plugin raises.

    Notes
    -----
    While a plugin is imported and lists its cards, a locked file in the folder ``plugins`` of :func:`home` says so. It
    stays if the process ends meanwhile (``os._exit``, a segmentation fault, a kill), and from then on a process of its
    own lists that version of the plugin. To try it in the process of the run again, delete the file.
    """
    if registration.distribution == registry.OWN_DISTRIBUTION:
        return list(registration.load()())
    if os.environ.get(ISOLATE_VARIABLE, "").strip() not in ("", "0") or _has_ended_a_process(registration):
        return [from_json(card) for card in _list_apart(registration)]
    with _noted(registration):
        return _list_here(registration)


def ended_a_process() -> list[Path]:
    """Files of plugins that have ended a process and are therefore listed apart; each holds the plugin's origin."""
    return [path for path in sorted(_folder().glob("*.loading")) if _is_left(path)]


def _list_here(registration: registry.Registration) -> list[Any]:
    list_cards = registration.load()
    what = f"the list of cards of zoo {registration.name!r}"
    listed: list[Any] = registry.in_limited_time(what, lambda: list(list_cards()))
    return listed


def _list_apart(registration: registry.Registration) -> list[Any]:
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "cards.json"
        code = f"from scotl_matgl.sources import apart; apart.write_cards({registration.name!r}, {str(file)!r})"
        done = subprocess.run(  # noqa: S603 - our own interpreter
            [sys.executable, "-c", code],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            env=os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)},
            timeout=4 * registry.time_limit(),
            check=False,
        )
        if done.returncode or not file.is_file():
            last = done.stderr.decode(errors="replace").strip().rpartition("\n")[2]
            raise registry.PluginError(
                f"{registration.origin} cannot list its cards: its process ended with {done.returncode}: "
                f"{visible(last) or 'without a word'}"
            )
        found: list[Any] = json.loads(file.read_text(encoding="utf-8"))
        return found


def write_cards(zoo: str, file: str) -> None:
    """List a zoo in a process of its own, and write the JSON form of its cards to a file."""
    listed = _list_here(registry.entries("zoos")[zoo])
    cards = [card.to_dict() for card in listed if hasattr(card, "to_dict")]
    Path(file).write_text(json.dumps(cards), encoding="utf-8")


# -- plugins that have ended a process ------------------------------------------------------------------------------


def _folder() -> Path:
    return home() / "plugins"


def _note(registration: registry.Registration) -> Path:
    """File of one version of a plugin."""
    return _folder() / f"{hashlib.sha256(registration.origin.encode()).hexdigest()[:16]}.loading"


def _has_ended_a_process(registration: registry.Registration) -> bool:
    return _is_left(_note(registration))


def _is_left(path: Path) -> bool:
    """Whether a note is there whose process is not."""
    try:
        with path.open("r+b") as file:
            return lock_file(file, wait=False) and os.fstat(file.fileno()).st_nlink > 0
    except OSError:
        return False


@contextlib.contextmanager
def _noted(registration: registry.Registration) -> Iterator[None]:
    """A note on the disk as long as the body runs; where none can be written, or another process has one, without."""
    path = _note(registration)
    with contextlib.ExitStack() as stack:
        with contextlib.suppress(OSError):
            path.parent.mkdir(parents=True, exist_ok=True)
            file = stack.enter_context(path.open("xb"))
            lock_file(file, wait=False)
            stack.callback(path.unlink, missing_ok=True)
            file.write(registration.origin.encode(errors="replace"))
            file.flush()
        yield
