"""Files of crystals, read record by record, so that a bad one does not cost the others."""

from __future__ import annotations

import gzip
import itertools
import re
import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np

from scotl_matgl.chemistry.crystal_records import identifier_of, properties_of, read_record
from scotl_matgl.chemistry.crystals import Crystal, Refused, crystal_of
from scotl_matgl.chemistry.extended_xyz import read_xyz_frame, xyz_frames
from scotl_matgl.chemistry.json_records import Fault, json_records
from scotl_matgl.chemistry.poscar import read_poscar
from scotl_matgl.chemistry.reading import Reading, ReadingLimits, how_to_raise
from scotl_matgl.chemistry.refusals import StructureError

_FORMATS = "*.cif, POSCAR*, CONTCAR*, *POSCAR, *CONTCAR, *.vasp, *.json, *.jsonl, *.ndjson, *.xyz, *.extxyz, also .gz"

_SUFFIXES = {
    "cif": "cif",
    "mcif": "cif",
    "poscar": "poscar",
    "vasp": "poscar",
    "json": "json",
    "jsonl": "json",
    "ndjson": "json",
    "xyz": "xyz",
    "extxyz": "xyz",
}


# What makes a crystal of a record, or says why there is none.
_Record: TypeAlias = Callable[[], Crystal | Refused]


def read_crystals(path: str | Path, *, limits: ReadingLimits | None = None) -> Iterator[Crystal | Refused]:
    """Read the crystals of a file or folder one by one; a bad record does not end the reading.

    Parameters
    ----------
    path : str or pathlib.Path
        CIF (one or more blocks), POSCAR, extended XYZ, or JSON: one record, a list of them, JSON lines, Matbench's
        ``{"index": ..., "columns": ..., "data": ...}`` or an answer of a data base with a list under ``data``,
        ``response`` or ``results``. A record is what `scotl_matgl.chemistry.crystal_records.read_record` takes, as
        ``{"id": ..., "structure": <as_dict or text>, "fmt": "poscar" | "cif", "properties": {...}}``. All may be
        compressed with gzip. Of a folder, all such files in order of name.
    limits : ReadingLimits, optional
        What a file may hold; by default what the environment says, see
        :meth:`~scotl_matgl.chemistry.reading.ReadingLimits.from_environment`.

    Yields
    ------
    Crystal or Refused
        In the order of the file. Identifiers are those of the file, else its name, with ``#1``, ``#2``, ... where it
        holds several. What a user should know of how a record was read is in ``properties["reader_warnings"]``.

    Raises
    ------
    FileNotFoundError
        If there is no such file.
    StructureError
        If the format is not known or the file as a whole cannot be read; in a folder such a file is `Refused`.

    Notes
    -----
    No file makes this package import a module or run code: nothing is read but text in these formats, by readers of
    its own. Cost: 30 µs per crystal of a corpus of plain POSCAR records; about a millisecond per CIF.
    """
    return (record() for record in _records_of(path, limits))


def sample_crystals(
    path: str | Path, n: int, *, random_state: int = 0, limits: ReadingLimits | None = None
) -> list[Crystal | Refused]:
    """Read `n` crystals of a file or folder, drawn at random; no others are made of their records.

    Parameters
    ----------
    path, limits
        As for `read_crystals`.
    n : int
        Crystals at most.
    random_state : int, default=0
        Seed.

    Returns
    -------
    list of Crystal or Refused
        In the order of the file. A record that was drawn and refused is in it too, and another one drawn instead.
    """
    records = list(_records_of(path, limits))
    rng = np.random.default_rng(random_state)
    drawn = rng.choice(len(records), size=min(n, len(records)), replace=False).tolist()
    found = {place: records[place]() for place in drawn}
    others = iter(rng.permutation(np.setdiff1d(np.arange(len(records)), drawn)).tolist())
    while sum(isinstance(record, Crystal) for record in found.values()) < n:
        place = next(others, None)
        if place is None:
            break
        found[place] = records[place]()
    return [found[place] for place in sorted(found)]


def _records_of(path: str | Path, limits: ReadingLimits | None) -> Iterator[_Record]:
    limits = ReadingLimits.from_environment() if limits is None else limits
    path = Path(path).expanduser()
    if not path.exists():
        raise FileNotFoundError(f"there is no file or folder {path}: check the path")
    if not path.is_dir():
        if not _format(path):
            raise StructureError(f"{path} is of no known format: {_FORMATS} are read")
        return _read_file(path, limits)
    files = [entry for entry in sorted(path.iterdir()) if entry.is_file() and _format(entry)]
    if not files:
        raise StructureError(f"the folder {path} holds no file of crystals: {_FORMATS} are read")
    if len(files) > limits.max_records:
        raise StructureError(f"the folder {path} holds {len(files)} files: {how_to_raise('max_records')}")
    return _read_folder(files, limits)


def _read_folder(files: Iterable[Path], limits: ReadingLimits) -> Iterator[_Record]:
    for file in files:
        try:
            yield from _read_file(file, limits)
        except StructureError as error:
            yield partial(Refused, _printable(file.name), str(error))


def _read_file(path: Path, limits: ReadingLimits) -> Iterator[_Record]:
    records = _READERS[_format(path)](path, limits)
    for count, record in enumerate(records):
        if count == limits.max_records:
            reason = f"the file holds more than {limits.max_records} records: {how_to_raise('max_records')}"
            yield partial(Refused, f"{_stem(path)}#{count + 1}", reason)
            return
        yield record


def _format(path: Path) -> str:
    name = path.name.lower().removesuffix(".gz")
    suffix = name.rpartition(".")[2] if "." in name else ""
    if suffix in _SUFFIXES:
        return _SUFFIXES[suffix]
    return "poscar" if name.startswith(("poscar", "contcar")) or name.endswith(("poscar", "contcar")) else ""


def _stem(path: Path) -> str:
    name = re.sub(r"\.gz$", "", path.name, flags=re.IGNORECASE)
    return _printable(re.sub(rf"\.({'|'.join(_SUFFIXES)})$", "", name, flags=re.IGNORECASE))


def _printable(text: str, longest: int = 200) -> str:
    """Text on one line, with what a terminal would obey or not show made visible, and cut."""
    if text.isprintable() and len(text) <= longest:
        return text
    shown = "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text[:longest])
    return shown + ("..." if len(text) > longest else "")


def _text_of(path: Path, limits: ReadingLimits) -> str:
    most = int(limits.max_file_megabytes * 1e6)
    try:
        opener = gzip.open if path.name.lower().endswith(".gz") else open
        with opener(path, "rb") as file:
            raw = file.read(most + 1)
    except (OSError, EOFError, zlib.error) as error:
        raise StructureError(f"{path} cannot be read ({error}): is it complete and undamaged?") from error
    except MemoryError as error:
        raise StructureError(f"{path} does not fit into memory: split the file") from error
    if len(raw) > most:
        size = f"{path} holds more than {limits.max_file_megabytes:g} MB of text"
        raise StructureError(f"{size}: {how_to_raise('max_file_megabytes')}")
    try:
        text = raw.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise StructureError(f"{path} cannot be read ({error}): is it text in UTF-8?") from error
    return text.replace("\r\n", "\n").replace("\r", "\n") if "\r" in text else text


def _read_poscar_file(path: Path, limits: ReadingLimits) -> Iterator[_Record]:
    yield partial(_attempt, _stem(path), {}, read_poscar, _text_of(path, limits), limits)


def _read_cif_file(path: Path, limits: ReadingLimits) -> Iterator[_Record]:
    from scotl_matgl.chemistry.cif import cif_blocks, read_cif_block  # its grammar costs 15 ms

    for identifier, block in _numbered(_stem(path), cif_blocks(_text_of(path, limits), limits)):
        if block is None:
            yield partial(Refused, identifier, "the file has no block with atom sites: is it a CIF of a crystal?")
        else:
            yield partial(_attempt, identifier, {}, read_cif_block, block, limits)


def _read_xyz_file(path: Path, limits: ReadingLimits) -> Iterator[_Record]:
    name = _stem(path)
    for count, frame in enumerate(xyz_frames(_text_of(path, limits)), start=1):
        identifier = f"{name}#{count}"
        if frame is None:
            reason = "a frame must begin with its number of atoms; it and those behind it cannot be read"
            yield partial(Refused, identifier, reason)
            return
        yield partial(_attempt, identifier, {}, read_xyz_frame, frame, limits, named=True)


def _read_json_file(path: Path, limits: ReadingLimits) -> Iterator[_Record]:
    text = _text_of(path, limits)
    try:
        for default, record in _numbered(_stem(path), json_records(text, limits)):
            if isinstance(record, Fault):
                yield partial(Refused, default, record.reason)
            elif not isinstance(record, dict):
                yield partial(Refused, default, f"the record is a {type(record).__name__}, not a dictionary")
            else:
                identifier = _printable(identifier_of(record, default))
                yield partial(_attempt, identifier, properties_of(record), read_record, record, limits)
    except StructureError as error:
        raise StructureError(f"{path}: {error}") from error


def _numbered(stem: str, records: Iterator[Any]) -> Iterator[tuple[str, Any]]:
    """Name each record by the file, with a number if there are several; one None if there is none."""
    first = list(itertools.islice(records, 2))
    if len(first) < 2:
        yield stem, first[0] if first else None
        return
    for i, record in enumerate(itertools.chain(first, records), start=1):
        yield f"{stem}#{i}", record


_READERS: dict[str, Callable[[Path, ReadingLimits], Iterator[_Record]]] = {
    "poscar": _read_poscar_file,
    "cif": _read_cif_file,
    "xyz": _read_xyz_file,
    "json": _read_json_file,
}


def _attempt(
    identifier: str,
    properties: Mapping[str, Any],
    reader: Callable[[Any, ReadingLimits], Reading],
    source: Any,
    limits: ReadingLimits,
    *,
    named: bool = False,
) -> Crystal | Refused:
    """Crystal of one record, or why there is none; if `named`, its own properties may hold its name."""
    try:
        reading = reader(source, limits)
        if named:
            identifier = _printable(identifier_of(reading.properties, identifier))
        return crystal_of(reading, identifier, properties)
    except StructureError as error:
        return Refused(identifier, _printable(str(error), 1000))
    except RecursionError:
        return Refused(identifier, "it is nested too deep: no crystal needs more than a few levels")
    except MemoryError:
        return Refused(identifier, "there is not enough memory for it: make the cell smaller")
    except Exception as error:  # one record must not end the reading of the others, whatever is in it
        reason = (str(error).strip().splitlines() or ["no message"])[0]
        return Refused(
            identifier, _printable(f"it cannot be read: {reason} ({type(error).__name__}); correct the file", 1000)
        )
