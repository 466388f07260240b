"""Tables that are too large to be read at once: so many rows after the other, of the columns that are needed."""

from __future__ import annotations

import csv
import gzip
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import IO, TYPE_CHECKING

from scotl_matgl.tables.files import TableError, read_table

if TYPE_CHECKING:
    import pandas as pd

# Smaller files are read whole, with all that `read_table` understands of headers, separators and encodings.
_LARGE = 16_000_000


def read_in_chunks(
    path: Path, formula: str | None, columns: Sequence[str] = (), *, rows: int = 20_000
) -> tuple[int, Iterator[pd.DataFrame]]:
    """Rows of a table, so many at a time.

    Parameters
    ----------
    path : path
        Parquet, which is read by pyarrow; or a table that :func:`~scotl_matgl.tables.files.read_table` reads. Text of
        more than 16 MB, also with ``.gz``, must be UTF-8, with the header in its first line.
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
        start = file.read(4)
    if start == b"PAR1":
        return _parquet(path, [formula or "formula", *columns], rows)
    if path.stat().st_size > _LARGE and start != b"PK\x03\x04":
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
    import pandas as pd

    try:
        with _opened(path) as file:
            head = file.readline(100_000).decode("utf-8-sig").rstrip("\r\n")
            n = sum(block.count(b"\n") for block in iter(lambda: file.read(1 << 20), b"")) + 1
    except (OSError, EOFError, UnicodeDecodeError) as error:
        raise TableError(f"{path} cannot be read ({error}); save it as CSV in UTF-8") from error
    names = {mark: next(csv.reader([head], delimiter=mark), []) for mark in (",", ";", "\t")}
    separator = max(names, key=lambda mark: (set(wanted) <= set(names[mark]), len(names[mark])))
    _lacks(path, wanted, names[separator])

    def chunks() -> Iterator[pd.DataFrame]:
        try:
            yield from pd.read_csv(
                path,
                sep=separator,
                usecols=list(wanted),
                dtype={wanted[0]: str},
                # Without this pandas turns the formula "NaN" (and "NA", "None") into a missing value.
                keep_default_na=False,
                na_values={name: ["", "nan", "NaN"] for name in wanted[1:]},
                encoding="utf-8-sig",
                compression="gzip" if _is_packed(path) else None,
                chunksize=rows,
            )
        except (ValueError, OSError, EOFError) as error:
            raise TableError(f"{path} cannot be read: {error}; correct it, and run the same command again") from error

    return n, (chunk[list(wanted)] for chunk in chunks())


def _is_packed(path: Path) -> bool:
    with path.open("rb") as file:
        return file.read(2) == b"\x1f\x8b"


def _opened(path: Path) -> IO[bytes]:
    return gzip.open(path, "rb") if _is_packed(path) else path.open("rb")  # type: ignore[return-value]
