"""Tables: the bundled example, and reading a user's own without losing a formula or a row.

Files are known by what they hold and not by their suffix. Text may be UTF-8, UTF-16 or Windows-1252, with a title or
comments (``#``) above the header, separated by commas, semicolons, tabs or spaces. What is read is bounded, see
:class:`Limits`.
"""

from __future__ import annotations

import csv
import functools
import io
import re
import sys
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING, Any

from scotl_matgl.exceptions import InputError
from scotl_matgl.tables.cells import Signs, Unreadable, decimal_signs, points_may_group, read_cell, read_numbers
from scotl_matgl.tables.crystal_cells import CIF_SIGN, rows_of
from scotl_matgl.tables.strange_cells import marks_missing, why_no_number
from scotl_matgl.tables.workbooks import sheets_of

if TYPE_CHECKING:
    import pandas as pd

# Separators tried in a text table, until one gives the columns asked for.
_SEPARATORS = (",", ";", "\t", "|", " ")
# The header stands within so many lines; a quoted cell spans at most so many.
_HEADER_LINES, _CELL_LINES = 50, 20
# Below the header of a table in Markdown.
_RULE = re.compile(r"\s*\|?(?:\s*:?-{2,}:?\s*\|)+\s*(?:\s*:?-{2,}:?\s*)?")
# Cells looked at to find a column that was not named, and the share of them that must be of its kind.
_LOOKED_AT, _SHARE = 200, 0.8

EXAMPLE_UNIT = "eV/atom"


class TableError(InputError):
    """A table cannot be read, or has not the columns asked for; the message says what it has."""


@dataclass(frozen=True)
class Limits:
    """How much of a file is read, so that no file can take all memory.

    Attributes
    ----------
    n_bytes : int
        Largest file, also unpacked.
    n_rows : int
        Most rows.
    cell : int
        Longest cell, in characters; a row with a longer one is skipped.
    n_cells : int
        Most cells of a sheet of a workbook, from the first to the last that is filled, empty ones counted.
    crystal : int
        Longest cell that holds the text of a CIF.
    """

    n_bytes: int = 256_000_000
    n_rows: int = 1_000_000
    cell: int = 10_000
    n_cells: int = 20_000_000
    crystal: int = 200_000

    def of(self, cell: str) -> int:
        """Most characters of a cell."""
        return self.crystal if CIF_SIGN in cell else self.cell


def load_example() -> pd.DataFrame:
    """Measured formation enthalpies of 1,736 inorganic compounds at 298 K.

    Returns
    -------
    pandas.DataFrame
        Columns ``formula``, ``target`` (eV/atom) and ``uncertainty`` (eV/atom).

    Notes
    -----
    Values and uncertainties as collected in pymatgen (MIT licence, ``pymatgen/analysis/compatibility``) for the energy
    corrections of A. Wang et al., Scientific Reports 2021, 11, 15496, doi:10.1038/s41598-021-94550-5, which names the
    primary sources; kept where the uncertainty is at most 0.05 eV/atom. Written by ``tools/make_example_table.py``.

    Examples
    --------
    >>> load_example().shape
    (1736, 3)
    """
    path = Path(str(resources.files("scotl_matgl") / "data" / "tables" / "formation_enthalpy.csv"))
    return read_table(path, formula="formula", target="target")


def read_table(
    path: str | Path,
    *,
    formula: str | None = None,
    target: str | None = None,
    columns: Sequence[str] = (),
    sheet: str | None = None,
    with_target: bool = True,
    limits: Limits | None = None,
) -> pd.DataFrame:
    """Read a table from CSV, TSV, Excel, JSON (records or lines) or Parquet, keeping formulas as text.

    Parameters
    ----------
    path : path
        File, also with ``.gz``; ``"-"`` is standard input.
    formula, target : str, optional
        Columns; case and blanks do not count. They are named so in the result. Default: columns ``formula`` and
        ``target``, else the only column of formulas and the only other one of numbers. Where most cells of the target
        are numbers they become int or float, other text stays as it is, and empty cells become None, so that
        :class:`~scotl_matgl.TransferabilityRanker` can list them. Decimal commas are understood between semicolons
        and tabs and in quoted cells.
    columns : sequence of str, default=()
        Further columns that must be there, named likewise.
    sheet : str, optional
        Sheet of a workbook. Default: the only one that has the columns.
    with_target : bool, default=True
        Whether there must be a target.
    limits : Limits, optional
        How much is read.

    Returns
    -------
    pandas.DataFrame
        ``attrs["columns"]`` says which columns are the formula and the target, ``attrs["sheet"]`` which of several
        sheets with rows was taken.

    Raises
    ------
    TableError
        If the file is missing, cannot be read, or lacks a column.
    """
    name = "standard input" if str(path) == "-" else str(path)
    wanted = [column for column in (formula, target, *columns) if column is not None]
    frame, semicolons = _cells(path, name, wanted, sheet, with_target=with_target, limits=limits or Limits())
    if not wanted and _is_row(list(map(str, frame.columns))):
        shown = ", ".join(map(str, frame.columns[:4]))
        raise TableError(f"{name} has no header: its first row holds {shown}; write the names of the columns above it")
    for column in columns:
        column_of(frame, column, "", name)
    roles = {"formula": column_of(frame, formula, "formula", name, known=columns)}
    if with_target:
        roles["target"] = column_of(frame, target, "target", name, known=(*roles.values(), *columns))
        _check_one_header(frame, **roles, name=name)
    found = typed(frame, **roles, semicolons=semicolons)
    found.attrs["columns"] = roles
    return found


def read_columns(path: str | Path, columns: Sequence[str], limits: Limits | None = None) -> pd.DataFrame:
    """Read columns of numbers from a file of any kind that :func:`read_table` reads.

    Parameters
    ----------
    path : path
        File, also with ``.gz``; ``"-"`` is standard input.
    columns : sequence of str
        Columns; case and blanks do not count.
    limits : Limits, optional
        How much is read.

    Returns
    -------
    pandas.DataFrame
        The columns in this order, float64, of the rows that hold a number in each. Index: numbers of the rows.
        ``attrs["skipped"]`` has (row, cell, reason) of each other row that is not empty.

    Raises
    ------
    TableError
        If the file is missing, cannot be read, or lacks a column.
    """
    import pandas as pd

    name = "standard input" if str(path) == "-" else str(path)
    frame, _ = _cells(path, name, columns, None, with_target=False, limits=limits or Limits())
    cells = frame[[column_of(frame, column, "", name) for column in columns]]
    read = {column: read_numbers(cells[column].to_numpy(dtype=object)) for column in columns}
    skipped = []
    for row in range(len(cells)):
        wrong = [column for column in columns if read[column].reasons[row]]
        if wrong and any(str(cell).strip() for cell in cells.iloc[row]):
            skipped.append((row, f"{wrong[0]}: {cells[wrong[0]].iloc[row]}", read[wrong[0]].reasons[row]))
    found = pd.DataFrame({column: read[column].values for column in columns}).dropna()
    found.attrs["skipped"] = skipped
    return found


def _cells(
    path: str | Path, name: str, wanted: Sequence[str], sheet: str | None, *, with_target: bool, limits: Limits
) -> tuple[pd.DataFrame, bool]:
    """All cells of a table as they stand, and whether decimal commas are at home in it."""
    content = _unpacked(_content(path, limits), name, limits)
    semicolons = False
    try:
        if content[:4] == b"PK\x03\x04":
            frame = _workbook(content, name, wanted, sheet, with_target=with_target, limits=limits)
        elif content[:4] == b"PAR1":
            frame = _parquet(content, name)
        else:
            frame, semicolons = _text_table(_decoded(content, name), name, wanted, limits)
    except TableError:
        raise
    except Exception as error:  # readers raise whatever their libraries do
        raise TableError(f"{name} cannot be read as a table: {error}") from error
    if len(frame) > limits.n_rows:
        raise TableError(f"{name} has {len(frame)} rows; at most {limits.n_rows} are read (see Limits)")
    return frame, semicolons


# -- bytes ------------------------------------------------------------------------------------------------------------


def _content(path: str | Path, limits: Limits) -> bytes:
    if str(path) == "-":
        content = sys.stdin.buffer.read(limits.n_bytes + 1)
    else:
        path = Path(path)
        if not path.is_file():
            raise TableError(f"there is no file {path}; give the path of a CSV, TSV, Excel, JSON or Parquet table")
        with path.open("rb") as stream:
            content = stream.read(limits.n_bytes + 1)
    if len(content) > limits.n_bytes:
        raise TableError(f"{path} is larger than {limits.n_bytes} bytes, which is the limit (see Limits)")
    return content


def _unpacked(content: bytes, name: str, limits: Limits) -> bytes:
    """Bytes of the table; a file that is none is told by its first bytes."""
    if content[:2] == b"\x1f\x8b":
        unpack = zlib.decompressobj(wbits=31)
        try:
            content = unpack.decompress(content, limits.n_bytes + 1)
        except zlib.error as error:
            raise TableError(f"{name} cannot be unpacked: {error}; fetch it again") from error
        if len(content) > limits.n_bytes:
            raise TableError(f"{name} unpacks to more than {limits.n_bytes} bytes, which is the limit (see Limits)")
        if not unpack.eof:
            raise TableError(f"{name} is cut off; fetch it again")
    start = content[:200].lstrip().lower()
    for signs, what in (
        ((b"version https://git-lfs",), "is a pointer of Git LFS and not the table; run `git lfs pull`"),
        ((b"\xd0\xcf\x11\xe0",), "is a workbook of the old format; save it as .xlsx or .csv"),
        ((b"<!doctype html", b"<html"), "is a web page and no table; download the file itself"),
        ((b"%pdf",), "is a PDF and no table; copy its table into a CSV file"),
    ):
        if start.startswith(signs):
            raise TableError(f"{name} {what}")
    return content


def _decoded(content: bytes, name: str) -> str:
    """Text of the bytes: UTF-8 or UTF-16, else Windows-1252."""
    encodings = ["utf-8-sig", "cp1252"]
    if content[:2] in (b"\xff\xfe", b"\xfe\xff"):
        encodings = ["utf-16"]
    elif b"\0" in content[:200]:
        encodings = ["utf-16-le" if content[1:2] == b"\0" else "utf-16-be"]
    for encoding in encodings:
        try:
            return content.decode(encoding)
        except UnicodeDecodeError as error:
            line = content[: error.start].count(b"\n") + 1
    raise TableError(f"{name} is text of no encoding that is known (line {line}); save it as UTF-8")


# -- workbooks and Parquet --------------------------------------------------------------------------------------------


# What rows and cells of a sheet are numbered: a reader fills all that lie between with empty cells.
_NUMBERED = re.compile(rb"<(?:\w+:)?(?:row|c)\s[^<]*?\br\s*=\s*[\"']([^\"'<]*)[\"']")
_ENCODING = re.compile(rb"(?:\xef\xbb\xbf)?<\?xml[^>]{0,200}?encoding\s*=\s*[\"']([^\"']*)")
_CELL_NAME = re.compile(rb"([A-Z]{0,3})([0-9]{1,7})")


def _check_sheets(content: bytes, name: str, limits: Limits) -> None:
    """Raise if a workbook unpacks to too much, or if a sheet reaches so far that it would take all memory."""
    import zipfile

    try:
        book = zipfile.ZipFile(io.BytesIO(content))
        if sum(part.file_size for part in book.infolist()) > limits.n_bytes:
            raise TableError(f"{name} unpacks to more than {limits.n_bytes} bytes, which is the limit (see Limits)")
        for part in book.infolist():  # a sheet may stand in any of them
            _check_reach(book.read(part), name, limits)
    except (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError, RuntimeError) as error:
        raise TableError(f"{name} is a damaged workbook: {error}; save it again") from error


def _check_reach(sheet: bytes, name: str, limits: Limits) -> None:
    declared = _ENCODING.match(sheet)
    other = declared is not None and declared[1].lower() not in (b"utf-8", b"us-ascii", b"ascii")
    if other or sheet[:2] in (b"\xff\xfe", b"\xfe\xff", b"<\0", b"\0<"):
        raise TableError(f"{name} has a sheet that is not UTF-8; save it again")
    if b"<!DOCTYPE" in sheet:  # whose entities may hold rows that are not seen here
        raise TableError(f"{name} has a sheet with a document type, which no program writes; save it again")
    rows = columns = 1
    for found in _NUMBERED.finditer(sheet):
        cell = _CELL_NAME.fullmatch(found[1])
        if cell is None:
            shown = found[1][:20].decode("utf-8", "replace")
            raise TableError(f"{name} has a sheet with a cell named {shown!r}, which is no cell; save it again")
        rows = max(rows, int(cell[2]))
        if cell[1]:
            columns = max(columns, functools.reduce(lambda number, letter: 26 * number + letter - 64, cell[1], 0))
    if rows > limits.n_rows or rows * columns > limits.n_cells:
        raise TableError(
            f"{name} has a sheet that reaches to row {rows} and column {columns}; at most {limits.n_rows} rows and "
            f"{limits.n_cells} cells are read (see Limits): delete what stands far below or beside the table"
        )


def _workbook(
    content: bytes, name: str, wanted: Sequence[str], sheet: str | None, *, with_target: bool, limits: Limits
) -> pd.DataFrame:
    _check_sheets(content, name, limits)
    sheets = sheets_of(content)
    if sheet is not None:
        if sheet not in sheets:
            raise TableError(f"{name} has no sheet {sheet!r}; it has: {', '.join(map(str, sheets))}")
        sheets = {sheet: sheets[sheet]}
    frames = {title: _with_header(cells, wanted) for title, cells in sheets.items()}
    filled = {title: frame for title, frame in frames.items() if len(frame)}
    fitting = {title: frame for title, frame in filled.items() if _fits(frame, wanted, with_target=with_target)}
    chosen = fitting or filled
    if len(chosen) > 1:
        raise TableError(
            f"{name} has several sheets with such a table: {', '.join(map(str, chosen))}; name one "
            "(sheet=; `rank --sheet`), or save it alone"
        )
    if not chosen:
        raise TableError(f"{name} has no sheet with rows")
    title, frame = next(iter(chosen.items()))
    if len(filled) > 1:
        frame.attrs["sheet"] = str(title)
    return frame


def _fits(frame: pd.DataFrame, wanted: Sequence[str], *, with_target: bool) -> bool:
    """Whether a sheet has the columns asked for, or where none was, formulas and numbers."""
    if wanted:
        return all(_matches(frame, column) for column in wanted)
    formulas = [column for column in frame.columns if same_name(column) == "formula" or _holds_formulas(frame[column])]
    numbers = any(same_name(column) == "target" or _holds_numbers(frame[column]) for column in frame.columns)
    return bool(formulas) and (numbers or not with_target)


def _with_header(records: list[list[Any]], wanted: Sequence[str]) -> pd.DataFrame:
    """Table of the records below the header."""
    import pandas as pd

    at = _header_at([[str(cell) for cell in record] for record in records[:_HEADER_LINES]], wanted)
    if at is None:
        return pd.DataFrame()
    names, repeated = _unique([str(cell) for cell in records[at]])
    rows = [record for record in records[at + 1 :] if any(str(cell).strip() for cell in record)]
    frame = pd.DataFrame(rows, columns=names, dtype=object)
    frame.attrs["repeated"] = repeated
    return frame


def _parquet(content: bytes, name: str) -> pd.DataFrame:
    import pandas as pd

    try:
        frame = pd.read_parquet(io.BytesIO(content))
        return frame.reset_index() if any(name is not None for name in frame.index.names) else frame
    except ImportError as error:
        raise TableError(f"{name} is a Parquet file: pip install 'scotl-matgl[parquet]', or save it as CSV") from error


# -- text -------------------------------------------------------------------------------------------------------------


def _text_table(text: str, name: str, wanted: Sequence[str], limits: Limits) -> tuple[pd.DataFrame, bool]:
    """Table of a text, and whether decimal commas are at home in it."""
    if text.lstrip()[:1] in ("[", "{"):
        return _json_table(text, name), False
    lines = [line for line in rows_of(text) if line.strip()]
    if len(lines) > limits.n_rows + _HEADER_LINES:
        raise TableError(f"{name} has more than {limits.n_rows} rows, which is the limit (see Limits)")
    bare = [line for line in lines if not line.lstrip().startswith("#")]
    # A header may itself stand behind a number sign: the last one above the rows, or any with the names asked for.
    first = next((at for at, line in enumerate(lines) if line in bare[:1]), 0)
    above = lines if wanted else [*lines[max(first - 1, 0) : first], *bare]
    for candidates in (bare, [re.sub(r"^\s*#+\s*", "", line) for line in above]):
        for separator in _SEPARATORS if wanted else _likely_separators(candidates[:_HEADER_LINES]):
            start = [fields_of(line, separator) for line in candidates[:_HEADER_LINES]]
            at = _header_at(start, wanted)
            if candidates is bare and first and at is not None and not wanted and _is_row(start[at]):
                break  # the header is a comment
            if at is not None and (wanted or len(start[at]) > 1):
                rows = [line for line in candidates[at:] if not _RULE.fullmatch(line)]
                return separated(rows, separator, name, limits), separator == ";"
    if not bare:
        raise TableError(f"{name} cannot be read as a table: it has no rows")
    return separated(bare, ",", name, limits), False


def _likely_separators(lines: Sequence[str]) -> list[str]:
    """Separators by the number of lines that they cut alike: decimal commas stand in the rows and not in the header."""

    def alike(separator: str) -> tuple[bool, int]:
        rows = [fields_of(line, separator) for line in lines]
        widths = [len(row) for row in rows if len(row) > 1]
        named = any(len(row) > 1 and {"formula", "target"} & {same_name(cell) for cell in row} for row in rows)
        return named, max(map(widths.count, set(widths)), default=0)

    return sorted(_SEPARATORS, key=alike, reverse=True)


def fields_of(line: str, separator: str) -> list[str]:
    """Fields of a line that is a row of its own."""
    if separator == " ":
        return line.split()
    if separator == "|":
        return [field.strip() for field in line.split("|")]
    try:
        return next(csv.reader([line], delimiter=separator, skipinitialspace=True), [])
    except csv.Error:
        return line.split(separator)


def _records(lines: Sequence[str], separator: str) -> Iterator[tuple[str, list[str] | None]]:
    """Each row as it stands and its fields; None where a quote is not closed."""
    position = 0
    while position < len(lines):
        line, used = lines[position], 1
        if separator != " " and line.count('"') % 2:
            for more in range(2, _CELL_LINES + 1):
                joined = "\n".join(lines[position : position + more])
                if joined.count('"') % 2 == 0 and _closes(joined, separator):
                    line, used = joined, more
                    break
            else:
                yield line, None
                position += 1
                continue
            yield line, next(csv.reader(io.StringIO(line), delimiter=separator, skipinitialspace=True), [])
        else:
            yield line, fields_of(line, separator)
        position += used


def _closes(text: str, separator: str) -> bool:
    """Whether a text of several lines is one row."""
    return len(list(csv.reader(io.StringIO(text), delimiter=separator, skipinitialspace=True))) == 1


def separated(lines: Sequence[str], separator: str, name: str, limits: Limits, *, first: int = 0) -> pd.DataFrame:
    """Table of lines with a header; rows of another number of fields are marked.

    Parameters
    ----------
    lines : sequence of str
        The header, and lines that are not empty.
    separator : str
        Between the fields.
    name : str
        Of the file, for errors.
    limits : Limits
        Of the length of a cell.
    first : int, default=0
        Number of the first row.

    Raises
    ------
    TableError
        If decimal commas stand between commas.
    """
    import pandas as pd

    names, repeated = _unique(fields_of(lines[0], separator))
    width = len(names)
    rows: list[list[Any]] = []
    split = 0
    for line, fields in _records(lines[1:], separator):
        if fields is None:
            rows.append([Unreadable(line[:80], "stands in a row with a stray quote")] * width)
            continue
        while len(fields) > width and not fields[-1].strip():
            fields.pop()
        if len(fields) > width:
            commas = [i for i in range(len(fields) - 1) if _is_split(fields[i], fields[i + 1])]
            if separator == "," and len(commas) >= len(fields) - width:
                split += 1
                at = commas[0]
                if split > 1 or (not first and len(lines) < 4):
                    raise TableError(
                        f"{name}, row {first + len(rows)} ({line[:80]!r}): a decimal comma in a file separated by "
                        f"commas; write {fields[at]}.{fields[at + 1]}, or quote the number"
                    )
            reason = f"stands in a row of {len(fields)} fields where the header has {width}"
            fields = [fields[0], *[Unreadable(line[:80], reason)] * (width - 1)]
        elif any(len(field) > limits.of(field) for field in fields):
            most = max(limits.of(field) for field in fields)
            reason = f"stands in a row with a cell of more than {most} characters"
            fields = [Unreadable(field[:80], reason) if len(field) > limits.of(field) else field for field in fields]
        rows.append([*fields, *[""] * (width - len(fields))])
    frame = pd.DataFrame(rows, columns=names, dtype=object)
    frame.attrs["repeated"] = repeated
    return frame


def _is_split(whole: str, decimals: str) -> bool:
    """Whether two neighbouring fields are a number that a decimal comma was in."""
    return bool(re.fullmatch(r"\s*[+-]?[0-9]+", whole) and re.fullmatch(r"[0-9]+(?:[eE][+-]?[0-9]+)?\s*", decimals))


def _json_table(text: str, name: str) -> pd.DataFrame:
    """Table of JSON: records, lines, columns, or columns and data."""
    import json

    import pandas as pd

    try:
        found = json.loads(text)
    except RecursionError as error:
        raise TableError(f"{name} is nested too deep for a table") from error
    except ValueError as error:
        lines = [line for line in text.splitlines() if line.strip()]
        try:
            found = [json.loads(line) for line in lines]
        except ValueError:
            raise TableError(f"{name} cannot be read as a table: {error}") from error
    if isinstance(found, dict) and {"columns", "data"} <= set(found):
        return pd.DataFrame(found["data"], columns=found["columns"], dtype=object)
    if isinstance(found, dict) and found and len({type(column) for column in found.values()} & {list, dict}) == 1:
        return pd.DataFrame(found, dtype=object)
    if isinstance(found, list) and found and all(isinstance(record, dict) for record in found):
        return pd.DataFrame(found, dtype=object)
    raise TableError(f"{name} cannot be read as a table: it is JSON, but no list of records")


# -- columns ----------------------------------------------------------------------------------------------------------


def same_name(name: Any) -> str:
    """What of the name of a column counts: neither case nor blanks."""
    return re.sub(r"\s+", " ", str(name).replace("\ufeff", "").replace("\u200b", "")).strip().casefold()


def _unique(names: Sequence[str]) -> tuple[list[str], list[str]]:
    """Names without blanks around them, of those that repeat the later ones numbered; and those that repeat."""
    found: list[str] = []
    repeated: list[str] = []
    for position, given in enumerate(names):
        name = re.sub(r"\s+", " ", given.replace("\ufeff", "")).strip() or f"column {position + 1}"
        count = 2
        base = name
        if name in found:
            repeated.append(name)
        while name in found:
            name, count = f"{base} {count}", count + 1
        found.append(name)
    return found, repeated


def _matches(frame: pd.DataFrame, name: str) -> list[Any]:
    """Columns of a name: exactly so, else but for case and blanks."""
    exact = [column for column in frame.columns if str(column) == name]
    return exact or [column for column in frame.columns if same_name(column) == same_name(name)]


def _header_at(records: Sequence[Sequence[str]], wanted: Sequence[str]) -> int | None:
    """Position of the header: the first record with all names, or of the usual width where none was asked for."""
    if wanted:
        asked = {same_name(name) for name in wanted}
        return next((at for at, record in enumerate(records) if asked <= {same_name(cell) for cell in record}), None)
    usual = {"formula", "target"}
    for at, record in enumerate(records):
        if usual & {same_name(cell) for cell in record}:
            return at
    widths = [sum(1 for cell in record if cell.strip()) for record in records]
    counts = {width: widths.count(width) for width in widths if width}
    if not counts:
        return None
    at = widths.index(max(counts, key=lambda width: (counts[width], width)))
    above = records[at - 1] if at else ()
    # An index is often written without a name: a header with nothing in its first field.
    unnamed = len(above) == len(records[at]) > 2 and not above[0].strip() and all(cell.strip() for cell in above[1:])
    return at - 1 if unnamed and not any(read_cell(cell).kind == "number" for cell in above) else at


def column_of(frame: pd.DataFrame, name: str | None, role: str, file: str, *, known: Sequence[str] = ()) -> str:
    """Column of a role, named or found; it gets the name that was asked for."""
    found = _matches(frame, role if name is None else name)
    found += [f"{column} (again)" for column in found if column in frame.attrs.get("repeated", ())]
    if len(found) > 1:
        raise TableError(f"{file} has several columns {name or role!r}: {', '.join(map(repr, found))}; rename one")
    if found:
        if name is not None and found[0] != name:
            frame.rename(columns={found[0]: name}, inplace=True)
            return name
        return str(found[0])
    listed = ", ".join(map(str, frame.columns))
    if name is not None:
        what = f" for the {role}" if role else ""
        raise TableError(f"{file} has no column {name!r}{what}; it has: {listed}")
    holds = _holds_formulas if role == "formula" else _holds_numbers
    free = [column for column in frame.columns if column not in known and not _is_index(column, frame[column])]
    candidates = [column for column in free if holds(frame[column])]
    left = list(frame.columns) if role == "formula" else free
    if not candidates and len(left) == 1:
        candidates = left  # nothing else can be meant: what is no formula, no number or no class is told row by row
    if len(candidates) == 1:
        return str(candidates[0])
    option = f"name it ({role}=, --{role})"
    if candidates:
        raise TableError(f"{file} has several columns that may be the {role}: {', '.join(candidates)}; {option}")
    raise TableError(f"{file} has no column {role!r}, and none that looks like it; {option}; it has: {listed}")


def _is_index(name: Any, column: pd.Series) -> bool:
    """Whether a column counts the rows, under no name or one that says so."""
    if same_name(name) not in ("column 1", "unnamed: 0", "index", "#", "no", "no.", "nr", "nr.", "entry", "row"):
        return False
    cells = [str(cell).strip() for cell in column]
    return cells in ([str(row) for row in range(len(cells))], [str(row + 1) for row in range(len(cells))])


def _check_one_header(frame: pd.DataFrame, formula: str, target: str, name: str) -> None:
    """Raise if the name of the target stands over several columns, which a second row names."""
    place = frame.columns.tolist().index(target)
    if not len(frame) or place + 1 >= len(frame.columns) or frame.columns[place + 1] != f"column {place + 2}":
        return
    first = frame.iloc[0]
    below = [str(cell).strip() for cell in (first[target], first.iloc[place + 1])]
    if str(first[formula] or "").strip() == "" and all(cell and read_cell(cell).kind == "other" for cell in below):
        raise TableError(
            f"{name}: {target!r} stands over several columns, which the row below calls {below[0]!r} and {below[1]!r}; "
            "give each column a name of its own, and delete that row"
        )


def _is_row(cells: Sequence[str]) -> bool:
    """Whether what should be a header holds a formula and a number, as a row does."""
    from scotl_matgl.chemistry.compositions import parse_compositions

    if {"formula", "target"} & {same_name(cell) for cell in cells}:
        return False
    numbers = [cell for cell in cells if read_cell(cell).kind == "number"]
    words = [cell for cell in cells if cell.strip() and cell not in numbers]
    return bool(numbers) and len(words) > 0 and bool(len(parse_compositions(words, on_error="skip")))


def _sample(column: pd.Series) -> list[Any]:
    return [cell for cell in column.iloc[:_LOOKED_AT] if cell is not None and str(cell).strip()]


def _holds_formulas(column: pd.Series) -> bool:
    """Whether most cells are formulas, and not all of them lone letters such as labels; or most are crystals."""
    from scotl_matgl.chemistry.compositions import parse_compositions
    from scotl_matgl.chemistry.materials import holds_crystal

    sample = _sample(column)
    if sample and sum(map(holds_crystal, sample)) >= _SHARE * len(sample):
        return True
    cells = [cell for cell in sample if isinstance(cell, str)]
    if not cells:
        return False
    read = parse_compositions(cells, on_error="skip")
    return len(read) >= _SHARE * len(cells) and len(set(read.text)) > 1


def _holds_numbers(column: pd.Series) -> bool:
    """Whether most cells are numbers, marks of missing ones left out."""
    cells = [cell for cell in _sample(column) if not marks_missing(cell)]
    signs = decimal_signs(cells)
    kinds = [read_cell(cell, signs).kind for cell in cells]
    return bool(cells) and kinds.count("number") >= _SHARE * len(cells)


def typed(frame: pd.DataFrame, formula: str, target: str | None = None, *, semicolons: bool) -> pd.DataFrame:
    """Numbers as numbers: in the target wherever most cells are, in other columns where all are."""
    import pandas as pd

    frame = frame.copy()
    for column in frame.columns:
        if column == formula or frame[column].dtype != object:
            continue
        given = frame[column].tolist()
        signs = decimal_signs(given, semicolons=semicolons)
        told = not signs.comma and (any(map(_has_comma, given)) or points_may_group(given, alone=semicolons))
        if column == target and (signs.points_group or told):
            # What commas and points are is told where the target is read as a whole.
            frame[column] = pd.Series([_stripped(cell) for cell in given], index=frame.index, dtype=object)
            continue
        cells = [_number(cell, signs) for cell in given]
        filled = [cell for cell in cells if cell is not None]
        numbers = sum(isinstance(cell, int | float) and not isinstance(cell, bool) for cell in filled)
        if column == target:
            # Mostly numbers: the rest are rows to be skipped and listed, not a sign of class labels.
            if 2 * numbers <= sum(not marks_missing(cell) for cell in filled):
                cells = [_stripped(cell) for cell in given]
        elif numbers < len(filled) or not filled:
            continue
        frame[column] = pd.Series(cells, index=frame.index, dtype=object).infer_objects()
    return frame


def _has_comma(cell: Any) -> bool:
    return isinstance(cell, str) and not isinstance(cell, Unreadable) and re.search("[0-9],[0-9]", cell) is not None


def _stripped(cell: Any) -> Any:
    if isinstance(cell, Unreadable) or not isinstance(cell, str):
        return cell
    return cell.strip() or None


def _number(value: Any, signs: Signs) -> Any:
    """A number where the text of a cell is one, None where it is empty, else the cell as it is."""
    if isinstance(value, int) and not -(2**63) <= value < 2**63:
        value = str(value)  # no array holds it; as text it is read as it would be from CSV
    if isinstance(value, Unreadable) or not isinstance(value, str):
        return value
    cell = read_cell(value, signs)
    if cell.kind == "empty":
        return None
    if signs.comma and cell.kind in ("other", "doubtful"):
        return Unreadable(value.strip(), why_no_number(value, decimal_comma=True))
    if cell.kind != "number" or not cell.plain:
        return value.strip()
    whole = value.strip()
    return int(whole) if re.fullmatch(r"[+-]?[0-9]{1,18}", whole) else cell.value
