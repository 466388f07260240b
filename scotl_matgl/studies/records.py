"""Results of long runs in a CSV file: it grows row by row, several runs may write to it, and a killed one goes on."""

from __future__ import annotations

import contextlib
import csv
import io
import math
import os
import stat
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from scotl_matgl import vocabulary
from scotl_matgl.exceptions import InputError, StoredFileWarning, warn
from scotl_matgl.storage import lock_file, write_whole

Key = tuple[str, ...]
Row = dict[str, str]


class ResultsFile:
    """Rows of results by their key, in memory and in a CSV file.

    A finished row is appended at once, under a lock, so that runs that share a file lose none of each other's. What a
    killed run left of a half line is dropped, and that row counts as not measured.

    Parameters
    ----------
    path : path or None
        The file, which may exist; None keeps the rows in memory alone.
    key : sequence of str
        Columns whose values name a row; a row of the same key takes the place of an earlier one.
    columns : sequence of str
        Columns that every file has, in order.
    grows : bool, default=False
        Whether rows may bring further columns.

    Attributes
    ----------
    rows : dict of tuple to dict
        Cells as text, by key.
    columns : list of str

    Raises
    ------
    InputError
        If the file is not one of an earlier run.

    Warns
    -----
    StoredFileWarning
        Once, if the file cannot be written: rows are then kept in memory alone.
    """

    def __init__(self, path: Path | None, *, key: Sequence[str], columns: Sequence[str], grows: bool = False) -> None:
        self.path = path
        self.key = tuple(key)
        self.columns = list(columns)
        self.grows = grows
        self.rows: dict[Key, Row] = {}
        self._seen = (0, 0)  # file and number of its bytes that are in `rows`
        self._whole = False  # whether a line can be added to it as it is
        if path is not None and (path.exists() or path.is_symlink()):
            if path.is_symlink() or not path.is_file():
                raise InputError(f"{path} is no regular file, to which results could be added; name another file")
            self.refresh()

    def get(self, *key: Any) -> Row | None:
        """Row of a key, or None."""
        return self.rows.get(tuple(_cell(value) for value in key))

    def add(self, records: Iterable[Mapping[str, Any]]) -> None:
        """Add rows, and write them at once.

        Parameters
        ----------
        records : iterable of mapping
            Column to value: text, whole numbers, truth values, numbers (NaN and None are empty cells).
        """
        new = [{column: _cell(value) for column, value in record.items()} for record in records]
        keys = [tuple(row[column] for column in self.key) for row in new]
        if self.path is None:
            self._merge(new)
            return
        try:
            with self._locked(self.path) as file:
                self._read(file)
                superseded = any(key in self.rows for key in keys)
                same_columns = self._merge(new)
                if self._whole and same_columns and not superseded:
                    self._append(file, new)
                else:
                    write_whole(self.path, self._text(self.rows.values(), header=True).encode())
                    self._seen = (0, 0)  # it is another file now, to which others may have added already
        except OSError as error:
            self._merge(new)
            warn(
                f"{self.path} cannot be written ({error.strerror or error}); the run goes on, and what it measures "
                "from here on is kept in memory alone",
                StoredFileWarning,
            )
            self.path = None

    def refresh(self) -> None:
        """Take in what other runs have added to the file."""
        if self.path is None:
            return
        try:
            with self.path.open("rb") as file:
                self._read(file)
        except FileNotFoundError:
            return
        except OSError as error:
            raise InputError(f"{self.path} cannot be read ({error.strerror or error}); name another file") from error

    def records(
        self, kinds: Mapping[str, Callable[[str], Any]], keys: Iterable[Sequence[Any]] | None = None
    ) -> list[dict[str, Any]]:
        """Rows with typed values.

        Parameters
        ----------
        kinds : mapping of str to callable
            Column to what makes its value from text; other columns hold numbers, NaN where a cell is empty.
        keys : iterable of key, optional
            Of the rows, in order. Default: all.
        """
        wanted = self.rows if keys is None else (tuple(_cell(value) for value in key) for key in keys)
        return [
            {column: kinds.get(column, number)(self.rows[key].get(column, "")) for column in self.columns}
            for key in wanted
        ]

    # -- file -----------------------------------------------------------------------------------------------------

    @contextlib.contextmanager
    def _locked(self, path: Path) -> Iterator[Any]:
        """The file, which no other run writes to meanwhile."""
        path.parent.mkdir(parents=True, exist_ok=True)
        while True:
            descriptor = os.open(path, os.O_RDWR | os.O_CREAT | getattr(os, "O_NOFOLLOW", 0), 0o666)
            with os.fdopen(descriptor, "r+b") as file:
                lock_file(file)
                status = os.fstat(file.fileno())
                with contextlib.suppress(FileNotFoundError):
                    # Another run may have put a new file in its place while this one waited.
                    if os.path.samestat(status, path.stat()) and stat.S_ISREG(status.st_mode):
                        yield file
                        return

    def _append(self, file: Any, rows: Sequence[Row]) -> None:
        end = file.seek(0, os.SEEK_END)
        try:
            file.write(self._text(rows, header=False).encode())
            file.flush()
        except OSError:
            with contextlib.suppress(OSError):
                file.truncate(end)
            raise
        self._seen = (self._seen[0], file.tell())

    def _read(self, file: Any) -> None:
        """Take in the rows of the file that are not known yet."""
        status = os.fstat(file.fileno())
        if (status.st_ino, status.st_size) == self._seen:
            return
        file.seek(0)
        content: bytes = file.read()
        self._seen, self._whole = (status.st_ino, len(content)), False
        if not content.strip():
            return
        columns, rows, damaged = _parse(content.decode("utf-8", errors="replace"))
        if not set(self.key) <= set(columns) or not (self.grows or columns == self.columns):
            raise self._foreign()
        known = self.rows
        self.columns = list(dict.fromkeys([*columns, *self.columns]))
        self.rows = {}
        self._merge(rows)
        self._whole = not damaged and len(self.rows) == len(rows) and columns == self.columns
        self.rows |= {key: row for key, row in known.items() if key not in self.rows}

    def _foreign(self) -> InputError:
        return InputError(f"{self.path} is not the table of an earlier run: its columns are others; name another file")

    def _merge(self, rows: Sequence[Row]) -> bool:
        """Put rows in memory; whether the columns stayed the same."""
        before = len(self.columns)
        for row in rows:
            self.rows[tuple(row[column] for column in self.key)] = row
            self.columns += [column for column in row if column not in self.columns]
        return len(self.columns) == before

    def _text(self, rows: Iterable[Row], *, header: bool) -> str:
        buffer = io.StringIO()
        writer = csv.writer(buffer, lineterminator="\n")
        if header:
            writer.writerow(map(vocabulary.quoted, self.columns))
        writer.writerows([vocabulary.quoted(row.get(column, "")) for column in self.columns] for row in rows)
        return buffer.getvalue()


def _parse(text: str) -> tuple[list[str], list[Row], bool]:
    """Columns and whole rows of a CSV text, and whether a part of it was no row."""
    lines = [f"{line}\n" for line in text.split("\n")]
    half = lines.pop()[:-1]  # nothing, unless the last line was cut
    reader = csv.reader(lines, strict=True)
    rows: list[Row] = []
    damaged = bool(half)
    columns: list[str] = []
    try:
        columns = [vocabulary.unquoted(cell) for cell in next(reader, [])]
        for cells in reader:
            if len(cells) == len(columns):
                rows.append(dict(zip(columns, map(vocabulary.unquoted, cells), strict=True)))
            else:
                damaged = True
    except csv.Error:  # a text in quotes that was cut
        damaged = True
    return columns, rows, damaged


def number(cell: str) -> float:
    """Value of a cell that holds a number; NaN if it does not."""
    try:
        return float(cell)
    except ValueError:
        return math.nan


def truth(cell: str) -> bool:
    """Value of a cell that holds True or False."""
    return cell == "True"


def _cell(value: Any) -> str:
    """Text of a value, from which :func:`number` makes the same one."""
    import numpy as np

    if isinstance(value, np.generic):
        value = value.item()
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return ""
    if isinstance(value, str):
        return value.replace("\0", "\\0").encode("utf-8", errors="backslashreplace").decode()
    return repr(value)
