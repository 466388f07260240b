"""Files of crystals, read record by record, so that a bad one does not cost the others."""

from __future__ import annotations

import gzip
import json
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from scotl_matgl.chemistry.crystals import Crystal, Refused, StructureError, as_crystal, with_its_warnings
from scotl_matgl.chemistry.elements import SYMBOLS

NUMBER_OF = {symbol: z for z, symbol in enumerate(SYMBOLS, start=1)} | {"D": 1, "T": 1}


_FORMATS = "*.cif, POSCAR*, CONTCAR*, *.poscar, *.vasp, *.json, *.xyz, *.extxyz, each also with .gz"


def read_crystals(path: str | Path) -> Iterator[Crystal | Refused]:
    """Read the crystals of a file or folder one by one; a bad record does not end the reading.

    Parameters
    ----------
    path : str or pathlib.Path
        CIF (one or more blocks), POSCAR, extended XYZ (needs ASE), or JSON: one record or a list of them, each either
        ``Structure.as_dict()`` or ``{"id": ..., "structure": <as_dict or text>, "fmt": "poscar" | "cif",
        "properties": {...}}``. All may be compressed with gzip. Of a folder, all such files in order of name.

    Yields
    ------
    Crystal or Refused
        In the order of the file. Identifiers are those of the file, else its name, with ``#1``, ``#2``, ... where it
        holds several. What pymatgen warned of while it read a record is in ``properties["reader_warnings"]``.

    Raises
    ------
    FileNotFoundError
        If there is no such file.
    StructureError
        If the format is not known or the file as a whole cannot be read; in a folder such a file is `Refused`.

    Notes
    -----
    Cost: 30 µs per crystal of a corpus of plain POSCAR records; a few milliseconds per CIF.
    """
    path = Path(path).expanduser()
    if not path.exists():
        raise FileNotFoundError(f"there is no file or folder {path}: check the path")
    if not path.is_dir():
        if not _format(path):
            raise StructureError(f"{path} is of no known format: {_FORMATS} are read")
        return _READERS[_format(path)](path)
    files = [entry for entry in sorted(path.iterdir()) if entry.is_file() and _format(entry)]
    if not files:
        raise StructureError(f"the folder {path} holds no file of crystals: {_FORMATS} are read")
    return _read_folder(files)


def _read_folder(files: Iterable[Path]) -> Iterator[Crystal | Refused]:
    for file in files:
        try:
            yield from _READERS[_format(file)](file)
        except StructureError as error:
            yield Refused(file.name, str(error))


def _format(path: Path) -> str:
    name = path.name.lower().removesuffix(".gz")
    if name.startswith(("poscar", "contcar")) or name.endswith((".poscar", ".vasp")):
        return "poscar"
    suffix = name.rpartition(".")[2] if "." in name else ""
    return {"cif": "cif", "json": "json", "xyz": "xyz", "extxyz": "xyz"}.get(suffix, "")


def _stem(path: Path) -> str:
    name = path.name.removesuffix(".gz")
    return re.sub(r"\.(cif|poscar|vasp|json|xyz|extxyz)$", "", name, flags=re.IGNORECASE)


def _text_of(path: Path) -> str:
    try:
        raw = gzip.decompress(path.read_bytes()) if path.name.lower().endswith(".gz") else path.read_bytes()
        return raw.decode("utf-8-sig")
    except (OSError, EOFError, UnicodeDecodeError) as error:
        raise StructureError(f"{path} cannot be read ({error}): is it complete, and text in UTF-8?") from error


def _read_poscar_file(path: Path) -> Iterator[Crystal | Refused]:
    yield _attempt(_stem(path), {}, _crystal_from_poscar, _text_of(path))


def _read_cif_file(path: Path) -> Iterator[Crystal | Refused]:
    # Blocks are cut apart so that one bad block does not cost the others; blocks without atoms hold bibliography.
    blocks = [block for block in re.split(r"(?m)^(?=data_)", _text_of(path)) if "_atom_site_" in block]
    if not blocks:
        yield Refused(_stem(path), "the file has no block with atom sites: is it a CIF of a crystal?")
    for i, block in enumerate(blocks, start=1):
        yield _attempt(_stem(path) if len(blocks) == 1 else f"{_stem(path)}#{i}", {}, _crystal_from_cif, block)


def _read_xyz_file(path: Path) -> Iterator[Crystal | Refused]:
    try:
        import ase.io
    except ImportError as error:
        raise StructureError(f"{path} is extended XYZ, which ASE reads: pip install ase") from error
    name, done = _stem(path), 0
    frames = ase.io.iread(str(path), index=":", format="extxyz")
    while True:
        try:
            frame = next(frames, None)
        except Exception as error:  # whatever ASE raises for a bad frame; the generator cannot go on after it
            yield Refused(f"{name}#{done + 1}", f"ASE cannot read this frame and those behind it: {_first_line(error)}")
            return
        if frame is None:
            return
        done += 1
        identifier = str(frame.info.get("id", frame.info.get("identifier", f"{name}#{done}")))
        yield _attempt(identifier, {}, as_crystal, frame)


def _read_json_file(path: Path) -> Iterator[Crystal | Refused]:
    try:
        content = json.loads(_text_of(path))
    except json.JSONDecodeError as error:
        raise StructureError(f"{path} is not valid JSON ({error}): is it complete?") from error
    records = content if isinstance(content, list) else [content]
    for i, record in enumerate(records, start=1):
        identifier = _stem(path) if len(records) == 1 else f"{_stem(path)}#{i}"
        if not isinstance(record, dict):
            yield Refused(identifier, f"the record is a {type(record).__name__}, not a dictionary")
            continue
        for name in ("id", "identifier", "material_id"):
            if isinstance(record.get(name), str | int):
                identifier = str(record[name])
                break
        properties = record.get("properties")
        yield _attempt(identifier, properties if isinstance(properties, dict) else {}, _crystal_from_record, record)


_READERS = {"poscar": _read_poscar_file, "cif": _read_cif_file, "xyz": _read_xyz_file, "json": _read_json_file}


def _attempt(
    identifier: str, properties: Mapping[str, Any], reader: Callable[[Any], Crystal], source: Any
) -> Crystal | Refused:
    """Crystal of one record, or why there is none."""
    try:
        crystal = reader(source)
    except StructureError as error:
        return Refused(identifier, str(error))
    except Exception as error:  # the parsers of other packages raise anything; Ctrl-C is not an Exception
        return Refused(
            identifier, f"it cannot be read: {_first_line(error)} ({type(error).__name__}); correct the file"
        )
    # Filled in and not rebuilt with `replace`, which would check every array a second time.
    object.__setattr__(crystal, "identifier", identifier)
    object.__setattr__(crystal, "properties", {**crystal.properties, **properties})
    return crystal


def _first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or ["no message"])[0][:200]


def _crystal_from_record(record: dict[str, Any]) -> Crystal:
    structure = record.get("structure", record)
    if isinstance(structure, dict):
        return as_crystal(structure)
    if not isinstance(structure, str):
        raise StructureError(f"its 'structure' is a {type(structure).__name__}: a dictionary or text is needed")
    kind = record.get("fmt", "poscar")
    if kind not in ("poscar", "cif"):
        raise StructureError(f"its 'fmt' is {kind!r}: 'poscar' and 'cif' are read")
    return _crystal_from_poscar(structure) if kind == "poscar" else _crystal_from_cif(structure)


def _crystal_from_cif(text: str) -> Crystal:
    from pymatgen.io.cif import CifParser

    def parse() -> Any:
        return CifParser.from_str(text).parse_structures(primitive=False, on_error="raise")[0]

    return _with_warnings(*with_its_warnings(parse))


def _crystal_from_poscar(text: str) -> Crystal:
    quick = _quick_poscar(text)
    if quick is not None:
        return quick
    from pymatgen.io.vasp.inputs import Poscar

    def parse() -> Any:
        return Poscar.from_str(text).structure

    return _with_warnings(*with_its_warnings(parse))


def _with_warnings(structure: Any, messages: list[str]) -> Crystal:
    crystal = as_crystal(structure)
    return replace(crystal, properties={**crystal.properties, "reader_warnings": messages}) if messages else crystal


def _quick_poscar(text: str) -> Crystal | None:
    """Read the plainest POSCAR: scale 1, symbols, direct coordinates, no selective dynamics; None for any other."""
    head = text.split("\n", 8)
    if len(head) != 9 or head[7].strip().lower() != "direct":
        return None
    symbols, counts, body = head[5].split(), head[6].split(), head[8].split()
    try:
        if float(head[1]) != 1.0:
            return None
        numbers = [NUMBER_OF[s] for s, n in zip(symbols, map(int, counts), strict=True) for _ in range(n)]
        width = len(body) // len(numbers)
        if width * len(numbers) != len(body) or width not in (3, 4):
            return None
        if width == 4 and [NUMBER_OF[s] for s in body[3::4]] != numbers:
            return None
        frac_coords = np.array([body[0::width], body[1::width], body[2::width]], dtype=np.float64).T
        lattice = np.array([line.split() for line in head[2:5]], dtype=np.float64)
    except (KeyError, ValueError, ZeroDivisionError):
        return None
    return Crystal(lattice, np.ascontiguousarray(frac_coords), np.array(numbers, dtype=np.int16))
