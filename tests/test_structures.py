"""Crystals are read as pymatgen reads them, hashed by content, and refused with a reason that a user can act on."""

from __future__ import annotations

import gzip
import json
import pickle
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from scotl_matgl.chemistry.compositions import composition_key, parse_compositions
from scotl_matgl.chemistry.corpus import Corpus
from scotl_matgl.chemistry.crystal_files import read_crystals
from scotl_matgl.chemistry.crystals import Crystal, Refused, StructureError, as_crystal, primitive

SITES = [[0.0, 0.0, 0.0], [0.5, 0.5, 0.5]]
CSCL = Crystal(4.14 * np.eye(3), SITES, [55, 17], "CsCl", {"formation_energy_eV_atom": -2.3})


def _structure(species: Any = ("Cs", "Cl"), sites: Any = SITES, **kwargs: Any) -> Any:
    from pymatgen.core import Lattice, Structure

    return Structure(Lattice.cubic(4.14), list(species), sites, **kwargs)


def _same(a: Crystal, b: Crystal, tolerance: float = 0.0) -> None:
    assert a.numbers.tolist() == b.numbers.tolist()
    np.testing.assert_allclose(a.lattice, b.lattice, rtol=0, atol=tolerance)
    np.testing.assert_allclose(a.frac_coords, b.frac_coords, rtol=0, atol=tolerance)


@pytest.fixture(scope="module")
def records(assets: Path) -> list[dict[str, Any]]:
    with gzip.open(assets / "structures" / "crystals.json.gz", "rt") as file:
        content: list[dict[str, Any]] = json.load(file)
    return content


@pytest.fixture(scope="module")
def corpus(assets: Path) -> Corpus:
    return Corpus.read(assets / "structures" / "crystals.json.gz")


# --- one crystal ------------------------------------------------------------------------------------------------------


def test_arrays_cannot_be_written_and_do_not_share_memory() -> None:
    lattice = 4.14 * np.eye(3)
    crystal = Crystal(lattice, SITES, [55, 17])
    lattice[0, 0] = 1.0
    assert crystal.lattice[0, 0] == 4.14
    assert (crystal.lattice.dtype, crystal.frac_coords.dtype, crystal.numbers.dtype) == (float, float, np.int16)
    for array in (crystal.lattice, crystal.frac_coords, crystal.numbers):
        with pytest.raises(ValueError, match="read-only"):
            array[0] = 0
    assert crystal.volume == pytest.approx(4.14**3)
    assert (len(crystal), crystal.key, crystal.chemical_system) == (2, composition_key([55, 17], [1, 1]), "Cl-Cs")


def test_content_hash_is_the_published_one() -> None:
    # Pinned: bridges and caches on users' disks carry such hashes.
    assert CSCL.content_hash == "19c5b08670a6240d085601b31cf170cb5e2425646fd7247286479b0d0927811c"
    assert Corpus([CSCL, CSCL]).hash == "f8a9c2c1188849a17e20acfc3681163ae415c28903f8be6dfacd9294466eb3fb"


def test_content_hash_sees_content_and_nothing_else() -> None:
    sites = np.array(SITES)
    variants = [
        Crystal(CSCL.lattice + 1e-12, sites, CSCL.numbers),
        Crystal(CSCL.lattice, sites + np.array([[0, 0, 0], [1e-12, 0, 0]]), CSCL.numbers),
        Crystal(CSCL.lattice, sites, [17, 55]),
        Crystal(CSCL.lattice, sites[::-1], CSCL.numbers),
        Crystal(CSCL.lattice, sites + 1.0, CSCL.numbers),
    ]
    assert len({crystal.content_hash for crystal in [CSCL, *variants]}) == 6
    negative = Crystal(np.where(CSCL.lattice == 0, -0.0, CSCL.lattice), np.where(sites == 0, -0.0, sites), [55, 17])
    assert np.signbit(negative.lattice).any()
    assert np.signbit(negative.frac_coords).any()
    assert negative.content_hash == CSCL.content_hash
    renamed = Crystal(np.asfortranarray(CSCL.lattice), sites, np.array([55, 17], dtype=np.int64), "other", {"a": 1})
    assert renamed.content_hash == CSCL.content_hash
    assert pickle.loads(pickle.dumps(CSCL)).content_hash == CSCL.content_hash  # noqa: S301 - made one line above


def test_corpus_hash_depends_on_order() -> None:
    other = Crystal(4.2 * np.eye(3), SITES, [55, 17])
    assert len({Corpus(c).hash for c in ([CSCL, other], [other, CSCL], [CSCL], [])}) == 4


@pytest.mark.parametrize(
    ("lattice", "sites", "numbers", "fragment"),
    [
        (np.eye(2), SITES, [55, 17], r"the shape \(2, 2\)"),
        (np.eye(3), np.empty((0, 3)), [], "holds no atom"),
        (np.eye(3), SITES, [55], "do not match"),
        (np.eye(3), [[0, 0]], [55], "do not match"),
        (np.diag([1, 1, np.nan]), SITES, [55, 17], "the lattice holds NaN"),
        (np.diag([1, 1, np.inf]), SITES, [55, 17], "the lattice holds NaN"),
        (np.eye(3), [[0, 0, 0], [0, np.nan, 0]], [55, 17], "coordinates of atom 1 are NaN"),
        (np.eye(3), [[0, -np.inf, 0], [0, 0, 0]], [55, 17], "coordinates of atom 0 are NaN"),
        (np.eye(3), [[0, 0, 0], [np.inf, -np.inf, 0]], [55, 17], "coordinates of atom 1 are NaN"),
        (np.zeros((3, 3)), SITES, [55, 17], "no volume"),
        (np.array([[1, 0, 0], [0, 1, 0], [1, 1, 0]]), SITES, [55, 17], "no volume"),
        (np.eye(3), SITES, [55, 0], "atom 1 has the atomic number 0"),
        (np.eye(3), SITES, [119, 17], "atom 0 has the atomic number 119"),
        (np.eye(3), SITES, [65536 + 17, 17], "atom 0 has the atomic number 65553"),
        (np.eye(3), SITES, [55, 1.5], "atom 1 has the atomic number 1.5"),
        (np.eye(3), SITES, [np.nan, 17], "atom 0 has the atomic number nan"),
        (np.eye(3), SITES, ["Cs", "Cl"], "atom 0 has the atomic number Cs"),
    ],
)
def test_what_is_no_crystal(lattice: Any, sites: Any, numbers: Any, fragment: str) -> None:
    with pytest.raises(StructureError, match=fragment):
        Crystal(lattice, sites, numbers)


def test_huge_coordinates_are_finite() -> None:
    assert Crystal(np.eye(3), [[0, 0, 0], [1e300, 0, 0]], [55, 17]).frac_coords[1, 0] == 1e300


def test_left_handed_cell_is_a_crystal() -> None:
    assert Crystal(-4.14 * np.eye(3), SITES, [55, 17]).volume == pytest.approx(4.14**3)


# --- objects of other packages ----------------------------------------------------------------------------------------


def test_structures_of_pymatgen() -> None:
    from pymatgen.core import IStructure

    structure = _structure(["Cs+", "Cl-"], site_properties={"magmom": [0, 1]}, properties={"e": -1.0})
    crystal = as_crystal(structure)
    _same(crystal, CSCL)
    assert dict(crystal.properties) == {"e": -1.0}
    assert as_crystal(crystal) is crystal
    for form in (IStructure.from_sites(structure), structure.as_dict(), json.loads(structure.to_json())):
        _same(as_crystal(form), CSCL)
    assert Crystal.from_structure(structure, identifier="mp-0").identifier == "mp-0"
    assert CSCL.to_structure() == _structure(properties=dict(CSCL.properties))
    _same(as_crystal(CSCL.to_structure()), CSCL)


def test_deuterium_is_hydrogen() -> None:
    assert as_crystal(_structure(["D", "T"])).numbers.tolist() == [1, 1]


def test_atoms_of_ase() -> None:
    ase = pytest.importorskip("ase")
    atoms = ase.Atoms("CsCl", scaled_positions=SITES, cell=4.14 * np.eye(3), pbc=True)
    _same(as_crystal(atoms), CSCL, 1e-15)
    for periodic, cell, fragment in [
        (False, 4.14 * np.eye(3), "not periodic along a, b, c"),
        ([True, True, False], 4.14 * np.eye(3), "not periodic along c:"),
        (True, np.diag([4.14, 4.14, 0.0]), "no volume"),
    ]:
        with pytest.raises(StructureError, match=fragment):
            as_crystal(ase.Atoms("CsCl", positions=SITES, cell=cell, pbc=periodic))
    with pytest.raises(StructureError, match="atomic number 0"):
        as_crystal(ase.Atoms("XCl", scaled_positions=SITES, cell=4.14 * np.eye(3), pbc=True))


def test_isotopes_of_pymatgen_are_hydrogen_and_said() -> None:
    from pymatgen.core import Lattice, Structure

    sites = [[0, 0, 0], [0.5, 0.5, 0.5], [0.5, 0, 0], [0, 0.5, 0]]
    crystal = as_crystal(Structure(Lattice.cubic(4.1), ["Li", "D", "D+", "T"], sites))
    assert crystal.numbers.tolist() == [3, 1, 1, 1]
    assert crystal.properties["reader_warnings"] == [
        "2 sites of D (deuterium) read as H",
        "1 site of T (tritium) read as H",
    ]
    assert "reader_warnings" not in as_crystal(Structure(Lattice.cubic(4.1), ["Li", "H"], sites[:2])).properties


def _refused_objects() -> dict[str, Any]:
    from pymatgen.core import DummySpecies, Element, Lattice, Molecule, Structure

    slab = Lattice(4.14 * np.eye(3), pbc=(True, True, False))
    return {
        "a molecule has no lattice": Molecule(["C", "O"], SITES),
        r"site 1 \(Cl:0\.50*, F:0\.50*\) is disordered": _structure(["Cs", {"Cl": 0.5, "F": 0.5}]),
        r"site 0 \(Cs:0\.90*\) is disordered or partly": _structure([{"Cs": 0.9}, "Cl"]),
        r"site 1 holds X0?\+?, a dummy species": _structure(["Cs", DummySpecies("X", 0)]),
        "coordinates of atom 1 are NaN": _structure(sites=[[0, 0, 0], [np.nan, 0, 0]]),
        "lattice holds NaN": Structure(Lattice(np.diag([1, 1, np.nan])), ["Cs"], [[0, 0, 0]]),
        "holds no atom": _structure([], []),
        "not periodic along c": Structure(slab, ["Cs", "Cl"], SITES),
        "a Element is no crystal": Element("Fe"),
        "a str is no crystal": "NaCl",
        "a NoneType is no crystal": None,
        "no 'lattice' and 'sites'": {"Fe": 2},
    }


def test_refused_objects() -> None:
    for fragment, obj in _refused_objects().items():
        with pytest.raises(StructureError, match=fragment):
            as_crystal(obj)


def test_primitive_cell() -> None:
    a = 5.69
    fcc = np.array([[0, 0, 0], [0, 0.5, 0.5], [0.5, 0, 0.5], [0.5, 0.5, 0]])
    salt = Crystal(a * np.eye(3), np.vstack([fcc, fcc + 0.5]), [11] * 4 + [17] * 4, "NaCl", {"x": 1})
    small = primitive(salt)
    assert sorted(small.numbers.tolist()) == [11, 17]
    assert small.volume == pytest.approx(a**3 / 4)
    assert (small.identifier, small.properties, small.key) == ("NaCl", {"x": 1}, salt.key)
    assert len(primitive(CSCL)) == 2
    with pytest.raises(StructureError, match="do atoms overlap"):
        primitive(Crystal(a * np.eye(3), [[0, 0, 0], [0, 0, 0]], [11, 11]))


# --- files ------------------------------------------------------------------------------------------------------------


def _write(path: Path, text: str) -> Path:
    if path.suffix == ".gz":
        path.write_bytes(gzip.compress(text.encode()))
    else:
        path.write_text(text, encoding="utf-8")
    return path


def _one(path: Path) -> Crystal:
    (crystal,) = read_crystals(path)
    assert isinstance(crystal, Crystal), crystal
    return crystal


POSCARS = {
    "plain": "CsCl\n1.0\n4.14 0 0\n0 4.14 0\n0 0 4.14\nCs Cl\n1 1\ndirect\n0 0 0 Cs\n.5 .5 .5 Cl\n",
    "no labels": "CsCl\n1.0\n4.14 0 0\n0 4.14 0\n0 0 4.14\nCs Cl\n1 1\nDirect\n0 0 0\n.5 .5 .5\n",
    "scaled": "CsCl\n4.14\n1 0 0\n0 1 0\n0 0 1\nCs Cl\n1 1\ndirect\n0 0 0\n.5 .5 .5\n",
    "volume": f"CsCl\n{-(4.14**3)}\n1 0 0\n0 1 0\n0 0 1\nCs Cl\n1 1\ndirect\n0 0 0\n.5 .5 .5\n",
    "cartesian": "CsCl\n1.0\n4.14 0 0\n0 4.14 0\n0 0 4.14\nCs Cl\n1 1\nCartesian\n0 0 0\n2.07 2.07 2.07\n",
    "selective": "CsCl\n1.0\n4.14 0 0\n0 4.14 0\n0 0 4.14\nCs Cl\n1 1\nSelective dynamics\nDirect\n"
    "0 0 0 T T F\n.5 .5 .5 T T T\n",
    "velocities": "CsCl\n1.0\n4.14 0 0\n0 4.14 0\n0 0 4.14\nCs Cl\n1 1\ndirect\n0 0 0\n.5 .5 .5\n\n0 0 0\n0 0 0\n",
}


@pytest.mark.parametrize("kind", POSCARS)
def test_poscar(kind: str, tmp_path: Path) -> None:
    crystal = _one(_write(tmp_path / "POSCAR", POSCARS[kind]))
    _same(crystal, CSCL, 1e-14)
    _same(_one(_write(tmp_path / "a.vasp.gz", POSCARS[kind])), crystal)


def test_cif_with_good_and_bad_blocks(tmp_path: Path) -> None:
    good = _structure().to(fmt="cif")
    disordered = _structure(["Cs", {"Cl": 0.5, "F": 0.5}]).to(fmt="cif")
    broken = good.replace("4.14", "much")
    header = "data_global\n_journal_name 'none'\n"
    path = _write(tmp_path / "many.cif", "\n".join([header, good, disordered, broken, good]))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        records = list(read_crystals(path))
    assert [type(r) for r in records] == [Crystal, Refused, Refused, Crystal]
    assert [r.identifier for r in records] == ["many#1", "many#2", "many#3", "many#4"]
    assert "is disordered" in records[1].reason
    assert "_cell_length_a is 'much" in records[2].reason
    _same(records[3], CSCL, 1e-8)
    corpus = Corpus.read(path)
    assert (len(corpus), [r.identifier for r in corpus.refused]) == (2, ["many#2", "many#3"])
    assert _one(_write(tmp_path / "one.cif.gz", good)).identifier == "one"
    (empty,) = read_crystals(_write(tmp_path / "empty.cif", header))
    assert "no block with atom sites" in empty.reason


def test_json_with_good_and_bad_records(tmp_path: Path) -> None:
    content = [
        {"id": "a", "structure": POSCARS["plain"], "fmt": "poscar", "properties": {"gap_eV": 4.8}},
        {"material_id": "b", "structure": _structure().as_dict()},
        _structure().as_dict(),
        {"id": "cif", "structure": _structure().to(fmt="cif"), "fmt": "cif"},
        {"id": "d", "structure": "nonsense", "fmt": "poscar"},
        {"id": "e", "structure": POSCARS["plain"].replace("4.14", "nan")},
        {"id": "f", "structure": 3},
        {"id": "g", "structure": "", "fmt": "xtal"},
        7,
        {"id": "h"},
        {"id": "i", "structure": _structure(["Cs", {"Cl": 0.5}]).as_dict()},
    ]
    corpus = Corpus.read(_write(tmp_path / "table.json.gz", json.dumps(content)))
    assert [crystal.identifier for crystal in corpus] == ["a", "b", "table#3", "cif"]
    for crystal in corpus:
        _same(crystal, CSCL, 1e-8)
    assert corpus[0].properties == {"gap_eV": 4.8}
    fragments = {
        "d": "cut off",
        "e": "lattice holds NaN",
        "f": "its 'structure' is a int",
        "g": "its 'fmt' is 'xtal'",
        "table#9": "the record is a int",
        "h": "no 'lattice' and 'sites'",
        "i": "partly occupied",
    }
    assert [r.identifier for r in corpus.refused] == list(fragments)
    for refused in corpus.refused:
        assert fragments[refused.identifier] in refused.reason
    assert _one(_write(tmp_path / "single.json", json.dumps(_structure().as_dict()))).identifier == "single"


def test_extended_xyz(tmp_path: Path) -> None:
    ase = pytest.importorskip("ase")
    write = pytest.importorskip("ase.io").write
    good = ase.Atoms("CsCl", scaled_positions=SITES, cell=4.14 * np.eye(3), pbc=True, info={"id": "first", "gap": 4.8})
    gas = ase.Atoms("CsCl", positions=SITES)
    path = tmp_path / "frames.extxyz"
    write(path, [good, gas, good], format="extxyz")
    corpus = Corpus.read(path)
    assert [crystal.identifier for crystal in corpus] == ["first", "first"]
    _same(corpus[0], CSCL, 1e-8)
    assert corpus[0].properties["gap"] == 4.8
    assert corpus.refused[0].identifier == "frames#2"
    assert "no Lattice" in corpus.refused[0].reason
    (tmp_path / "frames.extxyz.gz").write_bytes(gzip.compress(path.read_bytes()))
    assert Corpus.read(tmp_path / "frames.extxyz.gz").hash == corpus.hash
    path.write_text(path.read_text() + '2\nLattice="4 0 0 0 4 0 0 0 4"\nCs 0 0 0\n')
    broken = Corpus.read(path)
    assert len(broken) == 2
    assert "cut off" in broken.refused[-1].reason


def test_folder(tmp_path: Path) -> None:
    _write(tmp_path / "b.cif", _structure().to(fmt="cif"))
    _write(tmp_path / "a.vasp", POSCARS["plain"])
    _write(tmp_path / "c.json", "[{]")
    _write(tmp_path / "README.md", "about")
    corpus = Corpus.read(tmp_path)
    assert [crystal.identifier for crystal in corpus] == ["a", "b"]
    assert corpus.refused[0].identifier == "c"
    assert "not valid JSON" in corpus.refused[0].reason


@pytest.mark.parametrize(
    "name", ["POSCAR", "POSCAR_salt", "CONTCAR.relaxed", "NaCl_POSCAR", "mp-22862.POSCAR", "salt.vasp"]
)
def test_poscars_are_known_by_either_end_of_their_names(name: str, tmp_path: Path) -> None:
    text = "salt\n1\n4 0 0\n0 4 0\n0 0 4\nNa Cl\n1 1\nDirect\n0 0 0\n0.5 0.5 0.5\n"
    assert Corpus.read(_write(tmp_path / name, text)).compositions.text == ("NaCl",)


def test_files_that_cannot_be_read_at_all(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="there is no file or folder"):
        Corpus.read(tmp_path / "absent.cif")
    with pytest.raises(StructureError, match=r"holds no file of crystals: \*\.cif"):
        Corpus.read(tmp_path)
    with pytest.raises(StructureError, match="no known format"):
        Corpus.read(_write(tmp_path / "a.txt", ""))
    whole = gzip.compress(json.dumps([_structure().as_dict()]).encode())
    (tmp_path / "cut.json.gz").write_bytes(whole[:-20])
    with pytest.raises(StructureError, match="is it complete"):
        Corpus.read(tmp_path / "cut.json.gz")
    with pytest.raises(StructureError, match="not valid JSON"):
        Corpus.read(_write(tmp_path / "text.json", "about"))


def test_what_stands_before_a_cut_is_read(tmp_path: Path) -> None:
    whole = json.dumps([{"id": "a", "structure": POSCARS["plain"]}, {"id": "b", "structure": POSCARS["plain"]}])
    corpus = Corpus.read(_write(tmp_path / "cut.json", whole[:-9]))
    assert [crystal.identifier for crystal in corpus] == ["a"]
    assert [(r.identifier, "is it complete" in r.reason) for r in corpus.refused] == [("cut#2", True)]


# --- corpus -----------------------------------------------------------------------------------------------------------


def test_one_per_formula_takes_the_lowest_energy_else_the_first() -> None:
    def crystal(name: str, energy: Any = None, cell: float = 4.14) -> Crystal:
        properties = {} if energy is None else {"formation_energy_eV_atom": energy}
        return Crystal(cell * np.eye(3), SITES, [55, 17], name, properties)

    iron = Crystal(2.5 * np.eye(3), [[0, 0, 0]], [26], "Fe")
    refused = (Refused("x", "y"),)
    for names, best in [
        ([crystal("a"), iron, crystal("b")], "a"),
        ([crystal("a"), iron, crystal("b", -1.0), crystal("c", -2.0), crystal("d", -1.5)], "c"),
        ([crystal("a", float("nan")), iron, crystal("b", 0.5)], "b"),
        ([crystal("a", -1.0), iron, crystal("b", -1.0)], "a"),
    ]:
        chosen = Corpus(names, refused).one_per_formula()
        assert sorted(c.identifier for c in chosen) == ["Fe", best]
        assert chosen.refused == refused
    assert len(Corpus([]).one_per_formula()) == 0


def test_corpus_as_a_sequence() -> None:
    iron = Crystal(2.5 * np.eye(3), [[0, 0, 0]], [26], "Fe", {"formation_energy_eV_atom": "unknown"})
    corpus = Corpus([CSCL, iron, _structure()], [Refused("x", "y")])
    assert corpus[-1].key == CSCL.key
    assert [len(c) for c in corpus[1:]] == [1, 2]
    assert repr(corpus) == "Corpus(3 crystals, 1 refused)"
    np.testing.assert_array_equal(corpus.values("formation_energy_eV_atom"), [-2.3, np.nan, np.nan])
    compositions = corpus.compositions
    assert compositions.text == ("ClCs", "Fe", "ClCs")
    assert compositions.amounts.tolist() == [1, 1, 1, 1, 1]
    assert compositions.keys() == parse_compositions(corpus).keys() == tuple(crystal.key for crystal in corpus)
    with pytest.raises(StructureError, match="a int is no crystal"):
        Corpus([CSCL, 3])


def test_published_corpus(corpus: Corpus, records: list[dict[str, Any]]) -> None:
    assert (len(corpus), len(corpus.refused)) == (51_264, 0)  # structures/SOURCES.md
    assert [c.identifier for c in corpus] == [r["id"] for r in records]
    assert [len(c) for c in corpus] == [r["natoms"] for r in records]
    # Two crystals are sodium nitride, which as text means "missing" nearly everywhere, and two have ten oxygen atoms,
    # which as text are more likely a lost decimal point: text is refused, written out it is read.
    written = {"NaN": "Na1N1", "TaO10": "TaO10.0", "BaO10": "BaO10.0"}
    formulas = parse_compositions([written.get(r["formula"], r["formula"]) for r in records])
    assert corpus.compositions.keys() == formulas.keys()
    assert corpus[7].properties == records[7]["properties"]
    distinct = corpus.one_per_formula()
    assert len(distinct) == 42_123  # structures/SOURCES.md
    lowest: dict[str, float] = {}
    for key, energy in zip(formulas.keys(), corpus.values("formation_energy_eV_atom"), strict=True):
        lowest[key] = np.fmin(lowest.get(key, np.nan), energy)
    kept = distinct.compositions.keys()
    np.testing.assert_array_equal(distinct.values("formation_energy_eV_atom"), [lowest[key] for key in kept])


def test_published_corpus_against_pymatgen(corpus: Corpus, records: list[dict[str, Any]]) -> None:
    from pymatgen.core import Structure

    for i in range(0, len(records), 173):
        theirs = Structure.from_str(records[i]["structure"], fmt="poscar")
        ours = corpus[i]
        assert ours.numbers.tolist() == list(theirs.atomic_numbers)
        np.testing.assert_array_equal(ours.lattice, theirs.lattice.matrix)
        np.testing.assert_array_equal(ours.frac_coords, theirs.frac_coords)
        assert ours.volume == pytest.approx(theirs.volume, rel=1e-12)
        assert ours.chemical_system == theirs.chemical_system


def test_published_corpus_is_primitive(corpus: Corpus) -> None:
    for crystal in list(corpus)[::500]:
        small = primitive(crystal)
        assert len(small) == len(crystal)
        assert small.volume == pytest.approx(crystal.volume, rel=1e-6)


def test_magnetic_cif_is_a_cif(tmp_path: Path) -> None:
    cell = [f"_cell_length_{axis} 4" for axis in "abc"] + [
        f"_cell_angle_{angle} 90" for angle in ("alpha", "beta", "gamma")
    ]
    columns = [f"_atom_site_{name}" for name in ("label", "fract_x", "fract_y", "fract_z")]
    lines = ["data_a", *cell, "_space_group_IT_number 1", "loop_", *columns, "Fe1 0 0 0", ""]
    (tmp_path / "fe.mcif").write_text("\n".join(lines))
    (crystal,) = Corpus.read(tmp_path / "fe.mcif")
    assert crystal.numbers.tolist() == [26]
