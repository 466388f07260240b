"""Tables that are too large to be read at once: so many rows after the other, of the columns that are needed."""

from __future__ import annotations

import codecs
import gzip
import io
import zlib
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import IO, TYPE_CHECKING

from scotl_matgl.tables.crystal_cells import CIF_SIGN
from scotl_matgl.tables.files import Limits, TableError, column_of, fields_of, read_table, same_name, separated, typed

if TYPE_CHECKING:
    import pandas as pd

# Smaller files are read whole, with all that `read_table` understands of headers, separators and encodings.
_LARGE = 16_000_000
# So many bytes are looked at to tell whether cells hold crystals.
_BEGINNING = 100_000
# A line is no longer than that, and a quoted cell spans no more lines.
_LONGEST, _SPAN = 1_000_000, 20


def read_in_chunks(
    path: Path, formula: str | None, columns: Sequence[str] = (), *, rows: int = 20_000
) -> tuple[int, Iterator[pd.DataFrame]]:
    """Rows of a table, so many at a time.

    Parameters
    ----------
    path : path
        Parquet, which is read by pyarrow; or a table that :func:`~scotl_matgl.tables.files.read_table` reads. Text of
        more than 16 MB, also with ``.gz``, is UTF-8 or Windows-1252, separated by commas, semicolons or tabs, with the
        header above all but comments; its rows are read by the same rules.
    formula : str, optional
        Column of formulas. Default: see `read_table`; in large files ``formula``.
    columns : sequence of str, default=()
        Further columns.
    rows : int, default=20,000
        Rows of a chunk.

    Returns
    -------
    int
        Number of rows; of large texts an upper bound, as a quoted cell may span lines.
    iterator of DataFrame
        The columns alone, the formulas first, with the numbers of the rows as index.

    Raises
    ------
    TableError
        If the file is missing, cannot be read, or lacks a column.
    """
    if not path.is_file():
        raise TableError(f"there is no file {path}; give the path of a CSV, TSV, Excel, JSON or Parquet table")
    with path.open("rb") as file:
        beginning = file.read(_BEGINNING)
    start = beginning[:4]
    if start == b"PAR1":
        return _parquet(path, [formula or "formula", *columns], rows)
    crystals = CIF_SIGN.encode() in beginning  # whose cells span many lines
    if path.stat().st_size > _LARGE and not crystals and start != b"PK\x03\x04":
        return _text(path, [formula or "formula", *columns], rows)
    frame = read_table(path, formula=formula, columns=columns, with_target=False)
    frame = frame[[frame.attrs["columns"]["formula"], *columns]]
    return len(frame), (frame.iloc[at : at + rows] for at in range(0, len(frame), rows))


def _lacks(path: Path, wanted: Sequence[str], found: Sequence[str]) -> None:
    for name in wanted:
        if name not in found:
            raise TableError(f"{path} has no column {name!r}; it has: {', '.join(found)}")


def _parquet(path: Path, wanted: Sequence[str], rows: int) -> tuple[int, Iterator[pd.DataFrame]]:
    import pandas as pd

    try:
        from pyarrow.parquet import ParquetFile
    except ImportError as error:
        raise TableError(f"{path} is a Parquet file: pip install 'scotl-matgl[parquet]', or save it as CSV") from error
    try:
        file = ParquetFile(path)
    except Exception as error:  # pyarrow raises whatever it does
        raise TableError(f"{path} cannot be read as a table: {error}") from error
    _lacks(path, wanted, file.schema_arrow.names)

    def chunks() -> Iterator[pd.DataFrame]:
        at = 0
        for batch in file.iter_batches(batch_size=rows, columns=list(wanted)):
            frame = batch.to_pandas()[list(wanted)]
            frame.index = pd.RangeIndex(at, at + len(frame))
            at += len(frame)
            yield frame

    return file.metadata.num_rows, chunks()


def _text(path: Path, wanted: Sequence[str], rows: int) -> tuple[int, Iterator[pd.DataFrame]]:
    limits = Limits()
    try:
        encoding, n = _look_through(path)
        lines = _lines(path, encoding)
        head = next(lines, "")
    except (OSError, EOFError, zlib.error) as error:
        raise TableError(f"{path} cannot be read: {error}; fetch it again, or save it as CSV in UTF-8") from error
    names = {mark: [same_name(field) for field in fields_of(head, mark)] for mark in (",", ";", "\t")}
    asked = {same_name(name) for name in wanted}
    separator = max(names, key=lambda mark: (asked <= set(names[mark]), len(names[mark])))

    def read(block: Sequence[str], first: int) -> pd.DataFrame:
        frame = separated([head, *block], separator, str(path), limits, first=first)
        for name in wanted:
            column_of(frame, name, "", str(path))
        return typed(frame[list(wanted)], wanted[0], semicolons=separator == ";")

    read([], 0)  # a column that is not there is told before the first part
    return n, _of_equal_size(read, _blocks(lines, rows, path), rows)


def _look_through(path: Path) -> tuple[str, int]:
    """Encoding of a text, and how many rows it has at most."""
    decoder = codecs.getincrementaldecoder("utf-8")()
    encoding, n = "utf-8-sig", 0  # the header ends one line, and the last row may end none
    with _opened(path) as file:
        for block in iter(lambda: file.read(1 << 20), b""):
            if b"\0" in block[:200]:
                raise TableError(f"{path} is large and no UTF-8; save it as CSV in UTF-8")
            n += block.count(b"\n")
            if encoding != "cp1252":
                try:
                    decoder.decode(block)
                except UnicodeDecodeError:
                    encoding = "cp1252"
    return encoding, n


def _lines(path: Path, encoding: str) -> Iterator[str]:
    """Lines that are neither empty nor comments; a byte that no letter has costs its row."""
    with io.TextIOWrapper(_opened(path), encoding, errors="replace") as file:  # type: ignore[arg-type, unused-ignore]
        while line := file.readline(_LONGEST):
            if len(line) == _LONGEST and not line.endswith("\n"):
                while (more := file.readline(_LONGEST)) and not more.endswith("\n"):
                    pass  # of a line that is longer than any row
            for part in line.splitlines():
                if part.strip() and not part.lstrip().startswith("#"):
                    yield part


def _blocks(lines: Iterator[str], rows: int, path: Path) -> Iterator[list[str]]:
    """Lines, so many or a few more at a time: no quoted cell that spans lines is cut."""
    block: list[str] = []
    try:
        for line in lines:
            block.append(line)
            whole = len(block) >= rows and not any(text.count('"') % 2 for text in block[-_SPAN:])
            if whole or len(block) >= rows + 10 * _SPAN:
                yield block
                block = []
    except (OSError, EOFError, zlib.error) as error:
        raise TableError(f"{path} cannot be read: {error}; fetch it again, and run the same command again") from error
    if block:
        yield block


def _of_equal_size(
    read: Callable[[Sequence[str], int], pd.DataFrame], blocks: Iterator[list[str]], rows: int
) -> Iterator[pd.DataFrame]:
    """Tables of so many rows each, numbered from the first on; the last one may have fewer."""
    import pandas as pd

    at, rest = 0, pd.DataFrame()
    for block in blocks:
        found = read(block, at + len(rest))
        rest = pd.concat([rest, found], ignore_index=True) if len(rest) else found
        while len(rest) >= rows:
            yield rest[:rows].set_axis(range(at, at + rows))
            at, rest = at + rows, rest[rows:].reset_index(drop=True)
    if len(rest):
        yield rest.set_axis(range(at, at + len(rest)))


def _opened(path: Path) -> IO[bytes]:
    with path.open("rb") as file:
        packed = file.read(2) == b"\x1f\x8b"
    return gzip.open(path, "rb") if packed else path.open("rb")  # type: ignore[return-value]
