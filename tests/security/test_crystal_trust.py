"""No file of crystals makes this package import a module, run code, or write what a terminal would obey."""

from __future__ import annotations

import json
import pickle
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from scotl_matgl.chemistry.crystal_files import read_crystals
from scotl_matgl.chemistry.crystals import Crystal, Refused, StructureError, as_crystal

PAYLOAD = """
import pathlib
pathlib.Path("was_run").write_text("yes")


class Anything:
    @classmethod
    def from_dict(cls, content):
        return cls()
"""
NAMED = {"@module": "payload_of_a_stranger", "@class": "Anything", "@version": "1"}


def _site(symbol: str, abc: list[float]) -> dict[str, Any]:
    return {"species": [{"element": symbol, "occu": 1, **NAMED}], "abc": abc, "properties": {"p": NAMED}, "label": "a"}


def _structure() -> dict[str, Any]:
    lattice = {"matrix": [[4.14, 0, 0], [0, 4.14, 0], [0, 0, 4.14]], **NAMED}
    sites = [_site("Cs", [0, 0, 0]), _site("Cl", [0.5, 0.5, 0.5])]
    return {**NAMED, "lattice": lattice, "sites": sites, "properties": {"p": NAMED}, "charge": NAMED}


RECORDS = {
    "pymatgen": _structure(),
    "record": {**NAMED, "id": "a", "structure": _structure(), "properties": {"p": NAMED}},
    "matbench": {"index": [0], "columns": ["structure", "y"], "data": [[_structure(), NAMED]]},
    "document": {"data": [{**NAMED, "structure": _structure(), "builder_meta": NAMED}]},
}


@pytest.mark.slow
@pytest.mark.parametrize("kind", RECORDS)
def test_modules_that_a_json_names_are_not_imported(kind: str, tmp_path: Path) -> None:
    (tmp_path / "payload_of_a_stranger.py").write_text(PAYLOAD)
    (tmp_path / "crystal.json").write_text(json.dumps(RECORDS[kind]))
    code = (
        "import sys\nfrom scotl_matgl.chemistry.corpus import Corpus\ncorpus = Corpus.read('crystal.json')\n"
        "assert len(corpus) == 1, corpus.refused\nassert corpus[0].numbers.tolist() == [55, 17]\n"
        "assert 'payload_of_a_stranger' not in sys.modules"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=False)  # noqa: S603
    assert done.returncode == 0, done.stderr
    assert not (tmp_path / "was_run").exists()


def test_a_dictionary_in_memory_is_not_decoded_either(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "payload_of_a_stranger.py").write_text(PAYLOAD)
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    assert as_crystal(_structure()).numbers.tolist() == [55, 17]
    assert not (tmp_path / "was_run").exists()


class _Runs:
    def __reduce__(self) -> Any:
        return exec, ("import pathlib; pathlib.Path('was_run').write_text('yes')",)


@pytest.mark.parametrize(
    "name", ["a.pckl", "a.pkl", "a.pickle", "a.traj", "a.db", "a.yaml", "a.yml", "a.npz", "a.hdf5"]
)
def test_formats_that_hold_objects_are_not_read(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    path = tmp_path / name
    path.write_bytes(pickle.dumps(_Runs()))
    with pytest.raises(StructureError, match="no known format"):
        read_crystals(path)
    for suffix in ("json", "cif", "vasp", "extxyz", "jsonl"):
        renamed = path.rename(tmp_path / f"a.{suffix}")
        try:
            records = list(read_crystals(renamed))
        except StructureError:
            records = []
        assert not any(isinstance(record, Crystal) for record in records)
        renamed.rename(path)
    assert not (tmp_path / "was_run").exists()


XYZ = '1\nLattice="3 0 0 0 3 0 0 0 3" Properties=species:S:1:pos:R:3 {}\nNa 0 0 0\n'


@pytest.mark.parametrize(
    "pair",
    [
        """a="__import__('pathlib').Path('was_run').write_text('yes')" """,
        """_JSON='{"__ndarray__": [[1], "float64", [1]]}' """,
        """calculator=os.system arrays={a} numbers=3 __class__=x """,
        """info="!!python/object/apply:os.system ['touch was_run']" """,
    ],
)
def test_values_of_extended_xyz_stay_text(pair: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "a.extxyz").write_text(XYZ.format(pair))
    (crystal,) = read_crystals(tmp_path / "a.extxyz")
    assert isinstance(crystal, Crystal), crystal
    assert crystal.numbers.tolist() == [11]
    assert all(isinstance(value, str | int | float | bool) for value in crystal.properties.values())
    assert not (tmp_path / "was_run").exists()


def test_a_name_with_an_at_sign_is_the_file_of_that_name(tmp_path: Path) -> None:
    (tmp_path / "a@0.extxyz").write_text(XYZ.format(""))  # ASE takes what follows @ for an index
    (crystal,) = read_crystals(tmp_path / "a@0.extxyz")
    assert isinstance(crystal, Crystal)


def test_what_a_terminal_would_obey_is_made_visible(tmp_path: Path) -> None:
    escape = "\x1b]0;mine\x07\x1b[2J"
    site = {"species": [{"element": escape, "occu": 1}], "abc": [0, 0, 0]}
    bad = {"id": escape + "\r", "structure": {"lattice": _structure()["lattice"], "sites": [site]}}
    (tmp_path / "a.json").write_text(json.dumps([bad, {"id": escape, "structure": _structure()}]))
    refused, crystal = read_crystals(tmp_path / "a.json")
    assert isinstance(refused, Refused)
    for text in (refused.identifier, refused.reason, crystal.identifier):
        assert text.isprintable()
        assert "\\x1b" in text
