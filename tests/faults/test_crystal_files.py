"""A bad record costs itself, a file that announces too much costs nothing, and wild files are read right or refused."""

from __future__ import annotations

import gzip
import json
import os
import random
import re
import tracemalloc
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from scotl_matgl.chemistry.corpus import Corpus
from scotl_matgl.chemistry.crystal_files import read_crystals
from scotl_matgl.chemistry.crystals import Crystal, Refused, StructureError, as_crystal
from scotl_matgl.chemistry.reading import Formula, ReadingLimits

WILD = json.loads((Path(__file__).parents[1] / "data" / "wild" / "crystals" / "one_record.json").read_text("utf-8"))
POSCAR = "CsCl\n1.0\n4.14 0 0\n0 4.14 0\n0 0 4.14\nCs Cl\n1 1\ndirect\n0 0 0\n.5 .5 .5\n"
GOOD = {"id": "good", "structure": POSCAR, "fmt": "poscar"}


def _read(path: Path, **limits: Any) -> list[Crystal | Refused]:
    try:
        return list(read_crystals(path, limits=ReadingLimits(**limits)))
    except StructureError as error:
        return [Refused(path.name, str(error))]


# --- wild files -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("case", WILD, ids=[f"{i}-{case['file']}" for i, case in enumerate(WILD)])
def test_wild_files_are_read_right_or_refused_with_the_cause(case: dict[str, Any], tmp_path: Path) -> None:
    path = tmp_path / case["file"]
    path.write_bytes(case["text"].encode())
    (record,) = _read(path)
    if "refused" in case:
        assert isinstance(record, Refused)
        assert case["refused"] in record.reason
        return
    assert isinstance(record, Crystal), record.reason
    formula = Formula.of(case["composition"])
    assert formula is not None
    assert Counter(record.numbers.tolist()) == formula.amounts
    assert record.identifier == case.get("identifier", record.identifier)
    for name, value in case.get("properties", {}).items():
        assert record.properties[name] == value
    if "note" in case:
        assert any(case["note"] in message for _, message in Corpus([record]).warnings)


def test_sites_rounded_to_three_digits_lie_on_their_special_positions(tmp_path: Path) -> None:
    (case,) = [case for case in WILD if case["file"] == "rounded-thirds.cif"]
    (tmp_path / "a.cif").write_text(case["text"])
    (crystal,) = _read(tmp_path / "a.cif")
    assert isinstance(crystal, Crystal)
    np.testing.assert_allclose(np.sort(crystal.frac_coords[:, 0]), [1 / 3, 2 / 3], rtol=0, atol=1e-12)


@pytest.mark.parametrize("numbers", [(3, 8), (11, 8), (37, 8), (7, 7), (1, 1), (1, 8)], ids=str)
def test_no_formula_unit_is_stated_where_pymatgen_doubles_the_formula(numbers: tuple[int, int], tmp_path: Path) -> None:
    written = Crystal(
        2.5 * (np.ones((3, 3)) - np.eye(3)), np.array([[0.0] * 3, [0.5] * 3]), np.array(numbers, np.int16)
    )
    written.to_structure().to(str(tmp_path / "a.cif"), fmt="cif")  # "_cell_formula_units_Z 0" for one LiO
    (crystal,) = _read(tmp_path / "a.cif")
    assert isinstance(crystal, Crystal)
    assert sorted(crystal.numbers.tolist()) == sorted(numbers)
    assert crystal.volume == pytest.approx(written.volume, rel=1e-6)


# --- one record costs itself ------------------------------------------------------------------------------------------

BAD_RECORDS = {
    "deep": "[" * 100_000 + "]" * 100_000,
    "deep object": '{"a":' * 100_000 + "1" + "}" * 100_000,
    "deep inside": '{"id": "x", "structure": {"lattice": ' + "[" * 100_000 + "]" * 100_000 + "}}",
    "digits": '{"id": ' + "9" * 5000 + ', "structure": "x"}',
    "scalar": "7",
    "nothing": "null",
    "syntax": '{"id": 3,, "x": [1 2]}',
    "empty": "{}",
    "long id": json.dumps({"id": "x" * 100_000, "structure": "x"}),
    "billion": json.dumps({"id": "b", "structure": POSCAR.replace("1 1\n", "1000000000 1\n")}),
    "huge": json.dumps({"structure": POSCAR.replace("4.14", "1e200")}),
}


@pytest.mark.slow
@pytest.mark.parametrize("kind", BAD_RECORDS)
@pytest.mark.parametrize("form", ["list", "lines", "data"])
def test_a_bad_record_costs_itself(kind: str, form: str, tmp_path: Path) -> None:
    good, bad = json.dumps(GOOD), BAD_RECORDS[kind]
    text = {
        "list": f"[{good}, {bad}, {good}]",
        "lines": f"{good}\n{bad}\n{good}\n",
        "data": f'{{"data": [{good}, {bad}, {good}]}}',
    }[form]
    (tmp_path / "a.json").write_text(text)
    records = _read(tmp_path / "a.json")
    assert [r.identifier for r in records if isinstance(r, Crystal)] == ["good", "good"]
    refused = [r for r in records if isinstance(r, Refused)]
    assert refused
    assert all(r.reason and len(r.identifier) <= 210 for r in refused)


def test_a_bad_file_of_a_folder_costs_itself(tmp_path: Path) -> None:
    (tmp_path / "a.json").write_text("[" * 100_000)
    whole = bytearray(gzip.compress(json.dumps([GOOD] * 50).encode()))
    (tmp_path / "b.json.gz").write_bytes(whole[:-9])
    for place in (12, 60, len(whole) - 6):
        flipped = whole.copy()
        flipped[place] ^= 4
        (tmp_path / f"c{place}.json.gz").write_bytes(flipped)
    (tmp_path / "d.cif").write_bytes(b"\xff\xfe\x00data_")
    (tmp_path / "e.vasp").write_text(POSCAR)
    corpus = Corpus.read(tmp_path)
    assert [crystal.identifier for crystal in corpus] == ["e"]
    assert len(corpus.refused) == 6


# --- limits -----------------------------------------------------------------------------------------------------------


def _bomb(folder: Path, kind: str) -> Path:
    if kind == "gzip":
        path = folder / "a.json.gz"
        path.write_bytes(gzip.compress(b"[" + b"0," * 30_000_000, compresslevel=1))
    elif kind == "list":
        path = folder / "a.json"
        path.write_text("[[" + "0," * 2_000_000 + "0]]")
    elif kind == "poscar":
        path = folder / "a.vasp"
        path.write_text(POSCAR.replace("1 1\n", "1000000000 1\n"))
    elif kind == "xyz":
        path = folder / "a.xyz"
        path.write_text("1000000000\nx\n" + "Na 0 0 0\n" * 1000)
    else:
        path = folder / "a.cif"
        rows = "".join(f"Na{i} Na 0.{i:07d} 0.1 0.2\n" for i in range(200_000))
        head = "data_x\n_symmetry_Int_Tables_number 225\nloop_\n_atom_site_label\n_atom_site_type_symbol\n"
        path.write_text(head + "_atom_site_fract_x\n_atom_site_fract_y\n_atom_site_fract_z\n" + rows)
    return path


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["gzip", "list", "poscar", "xyz", "cif"])
def test_what_is_too_large_is_refused_before_it_takes_memory(kind: str, tmp_path: Path) -> None:
    path = _bomb(tmp_path, kind)
    tracemalloc.start()
    (record,) = _read(path, max_file_megabytes=20, max_record_megabytes=1)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert isinstance(record, Refused)
    assert "SCOTL_MATGL_MAX_" in record.reason or "more than 10000 rows" in record.reason
    assert peak < 60e6


def test_limits_come_from_the_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "a.json").write_text(json.dumps([GOOD] * 3))
    monkeypatch.setenv("SCOTL_MATGL_MAX_ATOMS", "1")
    assert "at most 1 are read" in Corpus.read(tmp_path / "a.json").refused[0].reason
    monkeypatch.setenv("SCOTL_MATGL_MAX_ATOMS", "2")
    monkeypatch.setenv("SCOTL_MATGL_MAX_RECORDS", "2")
    corpus = Corpus.read(tmp_path / "a.json")
    assert (len(corpus), len(corpus.refused)) == (2, 1)
    assert "SCOTL_MATGL_MAX_RECORDS" in corpus.refused[0].reason
    monkeypatch.setenv("SCOTL_MATGL_MAX_FILE_MEGABYTES", "many")
    with pytest.raises(ValueError, match="SCOTL_MATGL_MAX_FILE_MEGABYTES is 'many'"):
        Corpus.read(tmp_path / "a.json")


@pytest.mark.slow
@pytest.mark.parametrize(
    "text",
    ["'a " * 50_000, "_" * 500_000, "loop_ " * 200_000, ";\n" * 200_000, "\n;" * 100_001, "_cell_x 1 " * 50_000],
    ids=["quotes", "name", "loops", "texts", "closed texts", "twice"],
)
def test_what_would_stall_a_quadratic_reader_is_no_crystal(text: str, tmp_path: Path) -> None:
    (tmp_path / "a.cif").write_text("data_x\n_atom_site_label Na\n" + text)
    assert not any(isinstance(record, Crystal) for record in _read(tmp_path / "a.cif"))


# --- one crystal is no list -------------------------------------------------------------------------------------------


def test_one_crystal_is_no_list_of_crystals() -> None:
    ase = pytest.importorskip("ase")
    from scotl_matgl.encoders.base import encode_crystals

    (case,) = [case for case in WILD if case["file"] == "pymatgen.json"]
    crystal = as_crystal(json.loads(case["text"]))
    atoms = ase.Atoms("Na", cell=[3, 3, 3], pbc=True)
    for one in (crystal, crystal.to_structure(), atoms, json.loads(case["text"])):
        for reader in (Corpus, lambda x: encode_crystals(x, dict, widths={"a": 1}, cutoff=3.0, batch_edges=9)):
            with pytest.raises(StructureError, match=r"a list of crystals is needed, not one .*: pass \[crystal\]"):
                reader(one)
    with pytest.raises(StructureError, match=r"read files by Corpus\.read"):
        Corpus("crystals.json.gz")


# --- mutated files ----------------------------------------------------------------------------------------------------

ODD = (
    "nan",
    ".",
    "?",
    "-",
    "0",
    "-1",
    "1e400",
    "Va",
    "(Al,Si)",
    "OH1",
    "'",
    '"',
    ";",
    "loop_",
    "data_",
    "{",
    "]",
    ",",
    "9" * 50,
)


def _real_files(assets: Path) -> list[tuple[str, str]]:
    """Crystals of the corpus in every format, as pymatgen writes them."""
    import itertools

    from pymatgen.io.cif import CifWriter

    files = []
    source = read_crystals(assets / "structures" / "crystals.json.gz")
    for crystal in itertools.islice(source, 0, 4000, 400):
        assert isinstance(crystal, Crystal)
        structure = crystal.to_structure()
        rows = "".join(f"{site.specie.symbol} {site.x:.8f} {site.y:.8f} {site.z:.8f}\n" for site in structure)
        cell = " ".join(f"{x:.8f}" for x in structure.lattice.matrix.ravel())
        head = f'{len(structure)}\nLattice="{cell}" Properties=species:S:1:pos:R:3 energy=-1.5\n'
        files += [
            ("a.cif", str(CifWriter(structure, symprec=0.01))),
            ("b.cif", str(CifWriter(structure))),
            ("a.vasp", structure.to(fmt="poscar")),
            ("a.json", json.dumps({"material_id": "mp-1", "structure": structure.as_dict()})),
            ("b.json", json.dumps({"columns": ["structure", "y"], "index": [0], "data": [[structure.as_dict(), 1.0]]})),
            ("a.extxyz", head + rows),
        ]
    return files


class _Files(list[tuple[str, str]]):
    def __repr__(self) -> str:  # hypothesis prints it
        return f"{len(self)} files"


@pytest.fixture(scope="module")
def real_files(assets: Path) -> list[tuple[str, str]]:
    return _Files(_real_files(assets))


def _mutated(text: str, rng: random.Random) -> str:
    for _ in range(rng.choice((1, 1, 1, 2, 5))):
        lines, kind = text.split("\n"), rng.randrange(8)
        i, j = rng.randrange(len(lines)), rng.randrange(len(lines))
        at = rng.randrange(len(text) + 1)
        if kind == 0:
            text = text[:at]
        elif kind == 1:
            text = "\n".join(lines[:i] + lines[i + 1 :])
        elif kind == 2:
            text = "\n".join([*lines[:i], lines[j], *lines[i:]])
        elif kind == 3:
            lines[i], lines[j] = lines[j], lines[i]
            text = "\n".join(lines)
        elif kind == 4:
            text = text[:at] + chr(rng.choice((rng.randrange(128), rng.randrange(0x800)))) + text[at + 1 :]
        elif kind == 5:
            text = text[:at] + rng.choice(ODD) + text[at:]
        elif kind == 6:
            words = lines[i].split(" ")
            words[rng.randrange(len(words))] = rng.choice(ODD)
            text = "\n".join([*lines[:i], " ".join(words), *lines[i + 1 :]])
        else:
            text = text[:at] + text[at + rng.randrange(1, 40) :]
    return text


def test_real_files_are_read_as_pymatgen_reads_them(real_files: list[tuple[str, str]], tmp_path: Path) -> None:
    import warnings

    from pymatgen.core import Structure

    for name, text in real_files:
        (tmp_path / name).write_text(text)
        (ours,) = _read(tmp_path / name)
        assert isinstance(ours, Crystal), (name, ours.reason)
        if name.endswith(("json", "xyz")):
            content = json.loads(text) if name.endswith("json") else None
            if content is None:
                continue
            theirs = Structure.from_dict(content.get("structure") or content["data"][0][0])
        else:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                theirs = Structure.from_str(text, fmt="cif" if name.endswith("cif") else "poscar")
        np.testing.assert_allclose(ours.lattice, theirs.lattice.matrix, rtol=0, atol=1e-6)
        assert Counter(ours.numbers.tolist()) == Counter(theirs.atomic_numbers)
        for site in theirs:  # each of their atoms is one of ours
            apart = ours.frac_coords[ours.numbers == site.specie.Z] - site.frac_coords
            apart -= np.rint(apart)
            assert np.linalg.norm(apart @ ours.lattice, axis=1).min() < 0.01


@settings(
    max_examples=int(os.environ.get("SCOTL_MATGL_FUZZ", "300")),
    deadline=None,
    suppress_health_check=list(HealthCheck),
)
@given(seed=st.integers(0, 2**32 - 1))
def test_mutated_files_are_read_or_refused(
    seed: int, real_files: list[tuple[str, str]], tmp_path_factory: pytest.TempPathFactory
) -> None:
    rng = random.Random(seed)  # noqa: S311 - for tests
    name, text = rng.choice(real_files)
    path = tmp_path_factory.getbasetemp() / f"mutated-{name}"
    path.write_bytes(_mutated(text, rng).encode("utf-8", "replace"))
    for record in _read(path):
        if isinstance(record, Refused):
            # A refusal by our own checks, and not the message of a slip in a reader.
            assert "it cannot be read: " not in record.reason
            assert record.reason.isprintable()
        else:
            assert len(record.numbers) <= 10_000
            assert np.isfinite(record.frac_coords).all()


# --- commands ---------------------------------------------------------------------------------------------------------


def test_commands_list_what_was_refused_and_noted(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from scotl_matgl.cli.options import read_corpus
    from scotl_matgl.exceptions import InputError

    (tmp_path / "a.vasp").write_text(POSCAR.replace("CsCl\n", "Cs Cl\n").replace("Cs Cl\n1 1", "1 1"))
    (tmp_path / "b.vasp").write_text(POSCAR.replace("Cs Cl\n", ""))
    assert len(read_corpus(tmp_path, None)) == 1
    shown = capsys.readouterr().err
    assert "not read: b: it names no elements" in shown
    assert "read with a note: a: it has no line of elements; they are those of its first line" in shown
    (tmp_path / "a.vasp").unlink()
    with pytest.raises(InputError, match=r"no crystal of .* could be read"):
        read_corpus(tmp_path, None)


def test_encode_lists_why_a_crystal_was_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from types import SimpleNamespace

    import typer

    from scotl_matgl.cli import sources
    from scotl_matgl.encoders import store

    def refusing(self: Any, encoder: Any, corpus: Corpus, **kwargs: Any) -> Any:
        refused = dict.fromkeys(range(len(corpus)), "the model does not know Cs")
        return SimpleNamespace(refused=refused, n_encoded=0)

    (tmp_path / "a.json").write_text(json.dumps([{**GOOD, "id": f"c{i}"} for i in range(25)]))
    monkeypatch.setenv("SCOTL_MATGL_HOME", str(tmp_path / "home"))
    monkeypatch.setattr(store.EmbeddingStore, "encode", refusing)
    monkeypatch.setattr(sources, "structure_cards", lambda *_: [SimpleNamespace(name="Mine")])
    monkeypatch.setattr(sources, "load_encoder", lambda *_: None)
    with pytest.raises(typer.Exit) as done:
        sources.encode(structures=tmp_path / "a.json", device="cpu", jobs=1)
    assert done.value.exit_code == 0
    shown = capsys.readouterr()
    # What was stored before says nothing of speed.
    assert re.search(r"\| Mine \| 25 \| 0 \| 25 \| [0-9.]+ \| - \|", shown.out)
    assert "refused by Mine: c0: the model does not know Cs" in shown.err
    assert "refused by Mine: 5 more" in shown.err


def test_a_sample_makes_no_crystal_of_other_records(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import scotl_matgl.chemistry.crystal_files as files

    read_record = files.read_record
    bad = POSCAR.replace("Cs Cl\n", "")
    records = [{"id": f"c{i}", "structure": bad if i == 3 else POSCAR, "fmt": "poscar"} for i in range(60)]
    (tmp_path / "all.json").write_text(json.dumps(records))
    whole = Corpus.read(tmp_path / "all.json")
    read = []
    monkeypatch.setattr(files, "read_record", lambda *given: read.append(0) or read_record(*given))
    for n in (1, 20, 58, 59, 100):
        read.clear()
        sample = Corpus.read(tmp_path / "all.json", sample=n)
        assert len(sample) == min(n, 59)
        # One more for the record that is refused, if it was drawn.
        assert len(read) == len(sample) + len(sample.refused)
        positions = [int(crystal.identifier[1:]) for crystal in sample]
        assert positions == sorted(set(positions))
    assert sample.hash == whole.hash
    drawn = np.sort(np.random.default_rng(0).choice(60, size=20, replace=False))
    again = Corpus.read(tmp_path / "all.json", sample=20)
    other = np.sort(np.random.default_rng(5).choice(60, size=20, replace=False)).tolist()
    seeded = Corpus.read(tmp_path / "all.json", sample=20, random_state=5)
    assert {f"c{i}" for i in other} - {"c3"} <= {crystal.identifier for crystal in seeded}
    assert other != drawn.tolist()
    assert 3 in drawn or [crystal.identifier for crystal in again] == [f"c{i}" for i in drawn]
