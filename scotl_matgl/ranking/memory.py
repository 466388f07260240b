"""Scores of a screen in a file that only grows, so that a run over very many networks goes on where it was killed."""

from __future__ import annotations

import hashlib
import json
import sys
import time
from collections.abc import Iterable
from pathlib import Path
from types import TracebackType
from typing import Any, BinaryIO, Protocol, Self

from scotl_matgl.descriptors.described import Described
from scotl_matgl.exceptions import InputError, StoredFileWarning, warn
from scotl_matgl.ranking.result import SourceResult
from scotl_matgl.ranking.search import Search
from scotl_matgl.ranking.stages import Source
from scotl_matgl.storage import check_form, installed_versions, lock_file
from scotl_matgl.tables.rows import Rows

_KIND = "scotl-matgl scores 1"

# Of a line, from its third item on.
_FORM = {
    "source": str,
    "property": str,
    "unit": str,
    "scores": {str: float},
    "loo_rmse": float,
    "looked_up": int,
    "bridged": int,
    "refused": int,
    "seconds": float,
}

# Lines are written together, at the latest so many seconds after the first of them: a kill loses no more than that.
_SECONDS = 1.0


def fingerprint_of(rows: Rows, described: Described, search: Search) -> str:
    """Hash of all that the screen of a source depends on but the source: table, settings, versions.

    Parameters
    ----------
    rows : Rows
        Merged, so that the order of a table and its repeats change nothing that is not the target.
    described : Described
        Their formulas.
    search : Search
        Of which the number of measured sources, the head and the threads do not count.
    """
    settings = {
        "compositions": list(rows.formulas.keys()),
        "target": [repr(value) for value in rows.y.tolist()],
        "classes": [str(name) for name in rows.classes],
        "descriptor": described.fingerprint(),
        "estimators": {name: repr(estimator) for name, estimator in search.estimators.items()},
        "screen": [search.screen, search.layer, search.look_up, search.combine, search.max_rows, search.screen_rows],
        "random_state": search.random_state,
        "versions": installed_versions(("scotl-matgl", "numpy")),
    }
    return hashlib.sha256(json.dumps(settings, sort_keys=True).encode()).hexdigest()


class LastingSource(Source, Protocol):
    """A source whose scores may be kept beyond the run."""

    @property
    def identity(self) -> str:
        """All that its embedding depends on but the formulas, such as the hash of its weights."""


class ScoresFile:
    """Scores and criterion of screened sources: a context manager, and the memory of a search.

    The file holds a line of JSON for each source, with its identity, so that one whose weights are others now is
    screened again. It is locked while it is in use. What a killed run left of a half line is dropped. Sources that
    failed are not in it: they are tried again.

    Parameters
    ----------
    path : Path
        The file, which may exist.
    sources : iterable of LastingSource
        Sources that may be asked for.
    fingerprint : str
        Of table and settings, see :func:`fingerprint_of`.

    Raises
    ------
    InputError
        If the file is none of an earlier run, belongs to another table, or another run is writing to it.

    Warns
    -----
    StoredFileWarning
        Once, if it cannot be written to any more: the run goes on without it.
    """

    def __init__(self, path: Path, sources: Iterable[LastingSource], fingerprint: str) -> None:
        self.path = path.expanduser()
        self._sources = {source.name: source for source in sources}
        self._header = {"kind": _KIND, "fingerprint": fingerprint}
        self._known: dict[str, tuple[str, SourceResult, float]] = {}
        self._pending: list[str] = []
        self._since = 0.0
        self._file: BinaryIO | None = None

    def __enter__(self) -> Self:
        if self.path.is_symlink() or (self.path.exists() and not self.path.is_file()):
            raise InputError(f"{self.path} is no regular file, to which scores could be added; name another file")
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            self._file = self.path.open("a+b", buffering=0)
        except OSError as error:
            raise InputError(f"{self.path} cannot be opened ({error.strerror or error}); name another file") from error
        try:
            if not lock_file(self._file, wait=False):
                raise InputError(f"another run is writing to {self.path}; wait for it, or name another file")
            self._read(self._file)
        except BaseException:
            self._file.close()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._write()
        if self._file is not None:
            self._file.close()

    def recall(self, source: str) -> tuple[SourceResult, float] | None:
        """Scores and criterion of a source that was screened before, or None."""
        if source not in self._known:
            return None
        identity, result, criterion = self._known[source]
        return (result, criterion) if identity == self._sources[source].identity else None

    def keep(self, result: SourceResult, criterion: float) -> None:
        """Keep scores and criterion of a source."""
        if not self._pending:
            self._since = time.monotonic()
        values = vars(result) | {"scores": dict(result.scores)}
        self._pending.append(json.dumps([self._sources[result.source].identity, criterion, *values.values()]))
        if time.monotonic() - self._since > _SECONDS:
            self._write()

    # -- file ----------------------------------------------------------------------------------------------------------

    def _read(self, file: BinaryIO) -> None:
        """Take in the lines of the file, and cut what was left of a half one."""
        file.seek(0)
        content = file.read()
        whole = content[: content.rfind(b"\n") + 1]
        lines = whole.splitlines()
        if not lines:
            if content and not json.dumps(self._header).encode().startswith(content):
                raise self._foreign("it holds something else")
            file.truncate(0)
            file.write((json.dumps(self._header) + "\n").encode())
            return
        self._check_header(lines[0])
        for number, line in enumerate(lines[1:], start=2):
            try:
                identity, criterion, *values = json.loads(line)
                # Of very many sources most texts are the same ones.
                shared: list[Any] = [sys.intern(value) if type(value) is str else value for value in values]
                result = SourceResult(*shared)
                check_form(vars(result), _FORM, "it")
                self._known[result.source] = str(identity), result, float(criterion)
            except (TypeError, ValueError, OverflowError, RecursionError) as error:
                raise InputError(f"{self.path}, line {number} is damaged ({error}); delete that line") from error
        if len(whole) < len(content):
            file.truncate(len(whole))

    def _check_header(self, line: bytes) -> None:
        try:
            header: Any = json.loads(line)
        except (ValueError, RecursionError):
            header = None
        if not isinstance(header, dict) or header.get("kind") != _KIND:
            raise self._foreign("it holds something else")
        if header != self._header:
            raise self._foreign("its scores are of another table, other settings or other versions")

    def _foreign(self, why: str) -> InputError:
        return InputError(f"{self.path} cannot be gone on with: {why}; name another file, or delete this one")

    def _write(self) -> None:
        if not self._pending or self._file is None:
            return
        text = "\n".join(self._pending) + "\n"
        self._pending.clear()
        try:
            self._file.write(text.encode())
        except OSError as error:
            self._file.close()
            self._file = None
            warn(
                f"{self.path} cannot be written ({error.strerror or error}); the run goes on, but could not be resumed "
                "from here",
                StoredFileWarning,
            )
