"""Tables of crystals: read in every form, ranked and learned from by the crystals' own embeddings."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from sklearn.base import BaseEstimator
from typer.testing import CliRunner

from scotl_matgl import (
    Corpus,
    SourceCard,
    TransferabilityRanker,
    TransferFeaturizer,
    TransferRegressor,
    get_descriptor,
    load_example,
)
from scotl_matgl.bridges.build import build_bridge
from scotl_matgl.chemistry.compositions import parse_compositions
from scotl_matgl.chemistry.crystals import Crystal
from scotl_matgl.cli.main import app
from scotl_matgl.descriptors.structural import NAMES, structural_features
from scotl_matgl.encoders.export import write_embeddings
from scotl_matgl.encoders.probes import reference_crystals
from scotl_matgl.exceptions import InputError
from scotl_matgl.studies import measuring
from scotl_matgl.studies.curves import learning_curves
from scotl_matgl.studies.settings import StudySettings
from scotl_matgl.studies.validation import validate
from scotl_matgl.tables.crystal_cells import crystals_of
from scotl_matgl.tables.rows import Rows, read_rows

CIF = """data_NaCl
_cell_length_a 5.69
_cell_length_b 5.69
_cell_length_c 5.69
_cell_angle_alpha 90
_cell_angle_beta 90
_cell_angle_gamma 90
_space_group_name_H-M_alt 'F m -3 m'
loop_
_atom_site_label
_atom_site_type_symbol
_atom_site_fract_x
_atom_site_fract_y
_atom_site_fract_z
Na1 Na 0 0 0
Cl1 Cl 0.5 0.5 0.5
"""


@pytest.fixture(autouse=True)
def at_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SCOTL_MATGL_HOME", str(tmp_path / "home"))


def polymorphs(seed: int = 0) -> tuple[list[Crystal], np.ndarray]:
    """Sixteen halides, each with the structures of CsCl and of NaCl; the values hang on structure and volume."""
    rng = np.random.default_rng(seed)
    crystals, values = [], []
    for cation in (3, 11, 19, 37):
        for anion in (9, 17, 35, 53):
            for halite in (False, True):
                edge = (5.0 if halite else 3.2) * (1 + 0.1 * rng.random())
                cell = edge * (0.5 * np.array([[0, 1, 1], [1, 0, 1], [1, 1, 0]]) if halite else np.eye(3))
                crystals.append(Crystal(cell, [[0, 0, 0], [0.5] * 3], [cation, anion], f"{cation}-{anion}"))
                values.append(crystals[-1].volume / 10 + 2 * halite)
    return crystals, np.array(values)


def volumes(structures: list[Any]) -> np.ndarray:
    """What a model of crystals knows that no formula tells; it does not take caesium."""
    if any("Cs" in structure.formula for structure in structures):
        raise ValueError("no caesium")
    return np.array([[item.volume, item.lattice.alpha, len(item)] for item in structures])


def source(name: str = "Volumes") -> SourceCard:
    structures = [crystal for crystal in reference_crystals().values() if 55 not in crystal.numbers]
    assert volumes([crystal.to_structure() for crystal in structures]).shape == (3, 3)
    taken = SourceCard.from_callable(lambda items: np.ones((len(items), 3)), name=name, property="volume", unit="Å³")
    return type(taken)(**{**taken.__dict__, "arguments": {"function": volumes}})


def test_every_form_of_a_crystal_is_a_row(tmp_path: Path) -> None:
    pytest.importorskip("ase")
    from ase import Atoms

    (tmp_path / "NaCl.cif").write_text(CIF)
    halite = reference_crystals()["NaCl"]
    structure = halite.to_structure()
    disordered = structure.copy()
    disordered[0] = {"Na": 0.5, "K": 0.5}
    given = [
        CIF,
        str(tmp_path / "NaCl.cif"),
        tmp_path / "NaCl.cif",
        halite,
        structure,
        structure.as_dict(),
        Atoms("NaCl", cell=halite.lattice, scaled_positions=halite.frac_coords, pbc=True),
        "NaCl",
        {"Na": 1, "Cl": 1},
        disordered,
        CIF.replace("0.5 0.5 0.5", "0.0 0.0 0.0"),
        "no.cif",
        "Xx2",
    ]
    rows = read_rows(pd.Series(given, index=list("abcdefghijklm")))
    assert [rows.labels[row] for row in rows.kept] == list("abcdefghij")
    assert set(rows.formulas.keys()[:9]) == {"Na5000Cl5000"}
    held = [crystal is not None for crystal in rows.crystals]
    assert held == [True] * 7 + [False] * 3
    for crystal in rows.crystals[:7]:
        assert crystal.volume / len(crystal) == pytest.approx(5.69**3 / 8, rel=1e-6)
    assert [(row.label, row.row) for row in rows.skipped] == [("k", 10), ("l", 11), ("m", 12)]
    assert "there is no file" in rows.skipped[1].reason
    assert any("1 row stands for its formula alone: site 0" in remark for remark in rows.remarks)
    assert any("7 of 10 rows are crystals" in remark for remark in rows.remarks)
    assert len(read_rows(["NaCl", "MgO"]).crystals) == 0


def test_polymorphs_stay_apart_and_share_a_fold() -> None:
    crystals, y = polymorphs()
    order = np.random.default_rng(1).permutation(len(y))
    rows = Rows.read(crystals + crystals[:3], [*y, *(y[:3] + 1)])
    again = Rows.read([crystals[i] for i in order], y[order])
    assert (len(rows), rows.n_merged, len(again)) == (32, 3, 32)
    assert rows.formulas.keys() == again.formulas.keys()
    assert [c.content_hash for c in rows.crystals] == [c.content_hash for c in again.crystals]
    place = {c.content_hash: i for i, c in enumerate(rows.crystals)}
    assert rows.y[place[crystals[0].content_hash]] == pytest.approx(y[0] + 0.5)  # the same crystal twice: the median
    keys = np.array(rows.formulas.keys())
    for train, test in rows.folds():
        assert not set(keys[train]) & set(keys[test])
    assert rows.witnesses.max() + 1 == 16
    one = Rows.read([Crystal((4 + i / 10) * np.eye(3), [[0] * 3], [26]) for i in range(12)], np.arange(12.0))
    assert one.witnesses.tolist() == list(range(12))
    assert len(one.folds()) == 5


def test_polymorphs_may_be_split_like_other_crystals() -> None:
    crystals, y = polymorphs()
    rows = Rows.read(crystals, y).splitting("apart")
    keys = np.array(rows.formulas.keys())
    assert any(set(keys[train]) & set(keys[test]) for train, test in rows.folds())
    assert sorted(row for _, test in rows.folds() for row in test) == list(range(32))
    assert rows.witnesses.max() + 1 == 32
    order = np.random.default_rng(2).permutation(32)
    again = Rows.read([crystals[i] for i in order], y[order]).splitting("apart")
    assert [test.tolist() for _, test in again.folds()] == [test.tolist() for _, test in rows.folds()]
    assert any("may be in different folds" in remark for remark in rows.remarks)
    apart = StudySettings(polymorphs="apart")
    found = validate(Volumes(), crystals, y, ["random"], n_splits=4, settings=apart)
    assert set(found.frame["failure"]) == {"ValueError: a formula that was learned from"}
    (one,) = (
        validate(Volumes(), alike, np.arange(12.0), ["random"], n_splits=3, settings=apart).n_rows
        for alike in [[Crystal((4 + i / 10) * np.eye(3), [[0] * 3], [26]) for i in range(12)]]
    )
    assert one == 12
    assert Rows.read([f"Fe{n}O" for n in range(1, 13)], np.arange(12.0) ** 2).splitting("apart").apart is False
    for use in (
        lambda: TransferabilityRanker("SCOTL-MEGNet-Eform", polymorphs="both").fit(crystals, y),  # type: ignore[arg-type]
        lambda: TransferRegressor(polymorphs="both").fit(crystals, y),  # type: ignore[arg-type]
    ):
        with pytest.raises(InputError, match="polymorphs is 'both'; it must be 'together' or 'apart'"):
            use()


def test_evaluate_never_judges_by_polymorphs_of_what_it_learned_from() -> None:
    crystals = [
        Crystal((a + i / 7) * np.eye(3), [[0, 0, 0], [0.5] * 3], [z, 8])
        for z in range(20, 60)
        for i, a in enumerate((3, 4))
    ]
    rows = Rows.read(crystals, np.arange(80.0) ** 2)
    keys = np.array(rows.formulas.keys())
    units = list(measuring._units(rows, measuring.EvaluationSettings(sizes=[20, 40])))
    assert [(unit.size, len(unit.train)) for unit in units] == [("20", 20)] * 3  # of 40 rows too few formulas are new
    for unit in units:
        assert not set(keys[unit.train]) & set(keys[unit.test])


@pytest.mark.slow
def test_a_ranking_of_crystals_uses_their_own_embeddings_and_says_for_how_many() -> None:
    crystals, y = polymorphs()
    caesium = Crystal(4.1 * np.eye(3), [[0, 0, 0], [0.5] * 3], [55, 17])
    card = source()
    materials: list[Any] = [*crystals, caesium, "NaBr"]
    settings: dict[str, Any] = {"estimators": ["loo"], "head": "kernel ridge", "on_error": "raise"}
    ranker = TransferabilityRanker([card, "SCOTL-MEGNet-Eform"], **settings).fit(materials, [*y, 9.0, 5.0])
    (first, other) = ranker.ranking_.results
    # The model refuses caesium, and a formula is no crystal: without a bridge both are refused.
    assert (first.source, first.encoded, first.bridged, first.refused) == ("Volumes", 32, 0, 2)
    assert (other.encoded, other.bridged) == (0, 34)
    assert first.loo_rmse < 0.7 * other.loo_rmse  # also with the two rows that hold no more than the mean
    assert len(ranker.compositions_) == ranker.ranking_.n_rows == 34
    assert ranker.ranking_.control_name.endswith("descriptors + structure")
    text = str(ranker.ranking_)
    assert "34 rows" in text
    assert "32 rows are embedded as crystals by 1 source" in text
    frame = ranker.ranking_.to_frame().set_index("source")
    assert frame.loc["Volumes", "encoded"] == 32
    assert ranker.transform([crystals[0]])[0, 0] == pytest.approx(crystals[0].volume, rel=1e-6)
    # With a bridge, it stands in for what is no crystal or is refused.
    build_bridge(card, Corpus([*crystals, *more()]), get_descriptor("standard"), bridge="ridge")
    (bridged,) = TransferabilityRanker(card, **settings).fit(materials, [*y, 9.0, 5.0]).ranking_.results
    assert (bridged.encoded, bridged.looked_up + bridged.bridged, bridged.refused) == (32, 2, 0)


def more() -> list[Crystal]:
    """Formulas enough for a bridge."""
    return [Crystal((3 + z / 50) * np.eye(3), [[0, 0, 0], [0.5] * 3], [z, 8]) for z in range(20, 50)]


@pytest.mark.slow
def test_a_model_predicts_crystals_by_their_embedding_and_formulas_by_the_bridge() -> None:
    crystals, y = polymorphs()
    card = source()
    build_bridge(card, Corpus([*crystals, *more()]), get_descriptor("standard"), bridge="ridge")
    train, test = crystals[:24], crystals[24:]
    settings: dict[str, Any] = {"head": "kernel ridge", "guard": False, "predictions": False, "on_error": "raise"}
    model = TransferRegressor(card, **settings).fit(train, y[:24])
    by_crystal = model.predict(test)
    by_formula = model.predict([f"Rb{symbol}" for symbol in ("F", "F", "Cl", "Cl", "Br", "Br", "I", "I")])
    assert np.abs(by_crystal[::2] - by_crystal[1::2]).min() > 0.5  # polymorphs differ
    assert by_formula[::2] == pytest.approx(by_formula[1::2])
    assert np.abs(by_crystal - y[24:]).mean() < 0.5 * np.abs(by_formula - y[24:]).mean()
    said = model.domain([test[0], "RbF"])["embedded by"]
    assert said.tolist() == ["crystal", "formula"]
    assert "embedded by" not in model.domain(["RbF"])
    features = TransferFeaturizer(card, combine="embedding").fit(train).transform(test)
    assert features[:, 0] == pytest.approx([crystal.volume for crystal in test], rel=1e-6)


def test_structural_descriptors_are_those_of_known_crystals_in_any_cell() -> None:
    found = pd.DataFrame(structural_features([*reference_crystals().values(), None]), columns=list(NAMES))
    found.index = pd.Index(["CsCl", "NaCl", "MgO", "Si", "none"])
    assert found.loc["none"].isna().all()
    assert found["space group"].tolist()[:4] == [221, 225, 225, 227]
    assert found[NAMES[7]].tolist()[:4] == [8, 6, 6, 4]
    assert found[NAMES[5]].tolist()[:4] == pytest.approx([4.14 * 3**0.5 / 2, 5.69 / 2, 4.25 / 2, 5.47 * 3**0.5 / 4])
    assert found[NAMES[0]].tolist()[:4] == pytest.approx([4.14**3 / 2, 5.69**3 / 8, 4.25**3 / 8, 5.47**3 / 8])
    assert found[NAMES[1]].tolist()[:2] == pytest.approx([36 / (4.14**3 / 2), 14 / (5.69**3 / 8)])
    assert found[[NAMES[6], NAMES[8]]].iloc[:4].to_numpy() == pytest.approx(0, abs=1e-9)
    for crystal in reference_crystals().values():
        double = Crystal(
            crystal.lattice * [[2], [1], [1]],
            np.concatenate([crystal.frac_coords / [2, 1, 1], crystal.frac_coords / [2, 1, 1] + np.array([0.5, 0, 0])]),
            np.concatenate([crystal.numbers, crystal.numbers]),
        )
        turn = np.array([[0.6, 0.8, 0.0], [-0.8, 0.6, 0.0], [0.0, 0.0, 1.0]])
        turned = Crystal(crystal.lattice @ turn, crystal.frac_coords, crystal.numbers)
        one, *others = structural_features([crystal, double, turned])
        for other in others:
            assert other == pytest.approx(one, rel=1e-6, abs=1e-6)


@pytest.mark.slow
def test_a_source_that_falls_back_to_its_bridge_is_listed_with_the_reason(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    crystals, y = polymorphs()
    card = source()
    build_bridge(card, Corpus(more()), get_descriptor("standard"), bridge="ridge")

    def broken(structures: list[Any]) -> np.ndarray:
        raise RuntimeError("no kernel image is available")

    broken_card = type(card)(**{**card.__dict__, "arguments": {"function": broken}})
    settings: dict[str, Any] = {"head": "kernel ridge", "on_error": "skip"}
    monkeypatch.setenv("SCOTL_MATGL_ASSETS", str(tmp_path))
    sources = [broken_card, "MEGNet-MP-2018.6.1-Eform", "SCOTL-MEGNet-Eform"]
    ranking = TransferabilityRanker(sources, estimators=["loo"], **settings).fit(crystals, y).ranking_
    assert ranking.fallbacks.keys() == {"Volumes", "MEGNet-MP-2018.6.1-Eform"}
    assert (ranking.to_frame()["encoded"].dropna() == 0).all()  # a script that asks for the column is not ended by it
    assert "no kernel image is available" in ranking.fallbacks["Volumes"]
    (result,) = (item for item in ranking.results if item.source == "Volumes")
    assert (result.encoded, result.bridged) == (0, 32)
    text = " ".join(str(ranking).split())
    assert "by bridges although the rows are crystals: Volumes: " in text
    assert "1 source of crystals, whose weights or packages are not here, by bridges (see fallbacks)" in text
    assert json.loads(ranking.to_json() or "")["fallbacks"] == ranking.fallbacks
    model = TransferRegressor(broken_card, **settings).fit(crystals, y)
    assert any("Volumes" in remark and "no kernel image" in remark for remark in model.remarks_)
    alone = TransferabilityRanker(sources, **settings).fit([f"Fe{n}O" for n in range(1, 13)], np.arange(12.0) ** 2)
    assert alone.ranking_.fallbacks == {}
    assert "fallbacks" not in json.loads(alone.ranking_.to_json() or "")


@pytest.mark.parametrize("ending", [".csv", ".npz", ".parquet"])
def test_embeddings_are_written_with_identifiers(ending: str, tmp_path: Path) -> None:
    values = np.array([[1.5, -2.0], [np.nan, np.nan]], np.float32)
    path = tmp_path / f"mine{ending}"
    if ending == ".parquet":
        pytest.importorskip("pyarrow")
    write_embeddings(path, ["a, 1", "b"], {("MEGNet", "readout"): values, ("M3GNet", "gc_1"): values[:, :1]})
    if ending == ".npz":
        read = np.load(path)
        assert read["identifier"].tolist() == ["a, 1", "b"]
        assert np.array_equal(read["MEGNet[readout]"], values, equal_nan=True)
        assert read["M3GNet[gc_1]"].shape == (2, 1)
        return
    table = pd.read_csv(path) if ending == ".csv" else pd.read_parquet(path)
    assert table.columns.tolist() == ["identifier", "MEGNet[readout]_0", "MEGNet[readout]_1", "M3GNet[gc_1]_0"]
    assert table["identifier"].tolist() == ["a, 1", "b"]
    assert table["MEGNet[readout]_1"].tolist()[0] == -2
    assert table.iloc[1, 1:].isna().all()


def test_embeddings_of_another_ending_are_refused_before_the_work(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"mine\.txt ends in none of \.parquet, \.csv, \.npz"):
        write_embeddings(tmp_path / "mine.txt", [], {})


def test_what_readers_note_of_crystals_reaches_the_result() -> None:
    from pymatgen.core import Lattice, Structure

    def hydride(a: float, symbol: str) -> Structure:
        return Structure(Lattice.cubic(a), ["Li", symbol], [[0, 0, 0], [0.5, 0.5, 0.5]])

    rows = read_rows([hydride(4.0, "D"), hydride(4.1, "H"), hydride(4.2, "D")])
    assert "2 crystals: 1 site of D (deuterium) read as H" in rows.remarks
    assert not any(remark.startswith("1 crystal:") for remark in rows.remarks)


class Volumes(BaseEstimator):  # type: ignore[misc]  # scikit-learn is not typed
    """Predicts a crystal's volume by the line through the training rows; formulas that are in both parts fail."""

    def fit(self, X: np.ndarray, y: np.ndarray) -> Volumes:
        self.keys_ = {crystal.key for crystal in X}
        self.line_ = np.polyfit([crystal.volume for crystal in X], y, 1)
        return self

    def predict(self, X: np.ndarray) -> np.ndarray:
        if self.keys_ & {crystal.key for crystal in X}:
            raise ValueError("a formula that was learned from")
        return np.polyval(self.line_, [crystal.volume for crystal in X])


def test_validation_and_curves_hand_crystals_to_the_methods_and_keep_polymorphs_together(tmp_path: Path) -> None:
    crystals, _ = polymorphs()
    y = np.array([3 + 2 * crystal.volume for crystal in crystals])
    found = validate(Volumes(), crystals, y, ["random", "cluster", "chemical system"], n_splits=3)
    assert (found.n_rows, found.n_merged, found.left_out) == (32, 0, {})
    assert len(found.failures) == 0
    assert found.frame["n_test"].sum() == 3 * 32
    assert found.frame["error"].max() < 1e-9
    assert any("32 of 32 rows are crystals" in remark for remark in found.remarks)
    path = tmp_path / "curve.csv"
    settings: dict[str, Any] = {"sizes": [8, 16], "repeats": 3, "settings": StudySettings(path=path)}
    curves = learning_curves(crystals, y, {"volumes": Volumes()}, **settings)
    assert curves.n_rows == 32
    assert curves.frame["error"].max() < 1e-9
    # Other crystals of the same formulas are another table, although values and formulas are the same.
    larger = [Crystal(1.1 * crystal.lattice, crystal.frac_coords, crystal.numbers) for crystal in crystals]
    learning_curves(larger, y, {"volumes": Volumes()}, **settings)
    assert len(pd.read_csv(path)) == 2 * len(curves.frame)


# -- the command line ---------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def tables(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The polymorphs as a column of CIFs, of names of files, and of identifiers."""
    folder = tmp_path_factory.mktemp("tables")
    crystals, y = polymorphs()
    (folder / "cifs").mkdir()
    texts = [f"# made for a test\n{crystal.to_structure().to(fmt='cif')}" for crystal in crystals]
    for name, text in zip((crystal.identifier for crystal in crystals), texts, strict=True):
        count = len(list((folder / "cifs").glob(f"{name}.*")))
        (folder / "cifs" / f"{name}.{count}.cif").write_text(text)
    files = [f"{crystal.identifier}.{row % 2}" for row, crystal in enumerate(crystals)]
    pd.DataFrame({"structure": texts, "value": y}).to_csv(folder / "text.csv", index=False)
    pd.DataFrame({"structure": texts, "value": y}).to_json(folder / "text.json", orient="records")
    pd.DataFrame({"file": [f"cifs/{name}.cif" for name in files], "value": y}).to_csv(folder / "files.csv", index=False)
    pd.DataFrame({"id": files, "value": y}).to_csv(folder / "ids.csv", index=False)
    return folder


FORMS = {
    "text": ["text.csv"],
    "json": ["text.json"],
    "files": ["files.csv"],
    "ids": ["ids.csv", "--formula", "id", "--structures", "cifs"],
}
QUICK = ["-s", "SCOTL-MEGNet-Eform", "--head", "kernel ridge", "--jobs", "1"]


def run(folder: Path, command: str, form: str, *options: object, table: str = "") -> str:
    file, *more = FORMS[form]
    arguments = [str(folder / item) if item == "cifs" else item for item in more]
    where = [table, str(folder / file)] if table else [str(folder / file)]
    words = [command, *map(str, options if table else []), *where, *arguments, *map(str, () if table else options)]
    result = CliRunner().invoke(app, words, catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return result.stdout


@pytest.mark.slow
@pytest.mark.parametrize("form", FORMS)
def test_rank_takes_crystals_in_every_form(form: str, tables: Path) -> None:
    crystals, y = polymorphs()
    ranked = TransferabilityRanker("SCOTL-MEGNet-Eform", head="kernel ridge", on_error="skip").fit(crystals, y).ranking_
    said = json.loads(run(tables, "rank", form, *QUICK, "--format", "json"))
    assert said["n_rows"] == 32
    (row,) = (row for row in said["ranking"] if row["source"] == "SCOTL-MEGNet-Eform")
    expected = ranked.to_frame().set_index("source").loc["SCOTL-MEGNet-Eform"]
    assert row["error"] == pytest.approx(expected["error"], rel=1e-3)  # CIFs are rounded
    assert any("32 of 32 rows are crystals" in remark for remark in said["remarks"])


@pytest.mark.slow
@pytest.mark.parametrize("form", ["text", "ids"])
def test_fit_and_predict_take_crystals(form: str, tables: Path, tmp_path: Path) -> None:
    crystals, y = polymorphs()
    settings: dict[str, Any] = {"head": "kernel ridge", "on_error": "skip"}
    run(tables, "fit", form, *QUICK, "-o", tmp_path / "m.skops")
    shown = pd.read_csv(io.StringIO(run(tables, "predict", form, tmp_path / "m.skops", table="--table")))
    run(tables, "predict", form, tmp_path / "m.skops", "-o", tmp_path / "p.csv", table="--table")
    written = pd.read_csv(tmp_path / "p.csv")
    predicted = TransferRegressor("SCOTL-MEGNet-Eform", **settings).fit(crystals, y).predict(crystals)
    assert written["predicted"].to_numpy() == pytest.approx(predicted, rel=0.02, abs=0.02)
    assert shown["predicted"].to_numpy() == pytest.approx(predicted, rel=0.05, abs=0.05)
    assert np.abs(predicted[::2] - predicted[1::2]).min() > 0.1  # polymorphs differ
    assert written.columns[0] == {"ids": "id"}.get(form, "structure")
    if form == "ids":
        assert written.iloc[0, 0] == "3-9.0"


@pytest.mark.slow
def test_validate_and_curve_take_crystals(tables: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("SCOTL_MATGL_ASSETS", raising=False)  # bridges, which are quick, for all sources of crystals
    for command, options in (("validate", ["--folds", 3, "--scheme", "random"]), ("curve", ["--repeats", 1])):
        path = tmp_path / f"{command}.csv"
        said = [run(tables, command, form, *QUICK[2:], *options, "-o", path) for form in ("text", "files")]
        for text in said:
            assert "32 of 32 rows are crystals; polymorphs of one formula stay apart" in " ".join(text.split())
        found = pd.read_csv(path)
        assert not found["failure"].notna().any()
        # Both tables hold the same crystals, so that the second run finds all in the file.
        assert len(found) == {"validate": 2 * 3, "curve": 2 * found["n"].nunique() if "n" in found else 0}[command]


def test_an_identifier_without_a_file_is_told(tables: Path) -> None:
    column = pd.Series(["3-9.0", "3-9.1.cif", "NaCl"], name="id")
    found = crystals_of(column, None, tables / "cifs")
    assert [Path(cell).name for cell in found] == ["3-9.0.cif", "3-9.1.cif", "NaCl.cif"]
    rows = read_rows(found)
    assert rows.kept.tolist() == [0, 1]
    assert "there is no file" in rows.skipped[0].reason
    with pytest.raises(InputError, match=r"no file in .*cifs is called as a cell of the column 'id', such as 'Fe'"):
        crystals_of(pd.Series(["Fe"], name="id"), None, tables / "cifs")
    with pytest.raises(InputError, match="there is no folder"):
        crystals_of(column, None, tables / "none")


def test_formulas_alone_give_the_same_bits_and_numbers_as_before_there_were_crystals() -> None:
    table = load_example().iloc[::25]
    settings: dict[str, Any] = {"sources": ["SCOTL-MEGNet*", "MEGNet-MP-2018*"], "head": "kernel ridge"}
    read = parse_compositions(table["formula"])  # never asked whether they are crystals
    texts, compositions = (
        TransferabilityRanker(**settings).fit(given, table["target"]).ranking_ for given in (table["formula"], read)
    )
    frames = [ranking.to_frame().drop(columns="seconds") for ranking in (texts, compositions)]
    pd.testing.assert_frame_equal(*frames, check_exact=True)
    # Measured by the version that knew no crystals, with the weights as they are now.
    assert {item.source: item.loo_rmse for item in texts.results} == pytest.approx(BEFORE, rel=1e-6)
    assert "structure" not in str(texts)
    assert not any("encoded" in column for column in texts.to_frame())


BEFORE = {
    "SCOTL-MEGNet-Eform": 0.15361519903791246,
    "MEGNet-MP-2018.6.1-Eform": 0.22692745293848426,
    "SCOTL-MEGNet-PBEGap": 0.46513519179155616,
    "SCOTL-MEGNet-HSEGap": 0.4700309671708564,
}
