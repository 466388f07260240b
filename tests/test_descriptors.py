"""Descriptors against matminer over real and random formulas, and their behaviour as scikit-learn transformers."""

from __future__ import annotations

import csv
import importlib.util
import json
import pickle
import subprocess
import sys
import warnings
from pathlib import Path
from types import ModuleType

import numpy as np
import pandas as pd
import pytest
from pymatgen.core.composition import Composition
from sklearn.base import clone
from sklearn.compose import ColumnTransformer
from sklearn.linear_model import Ridge
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from scotl_matgl.chemistry.compositions import parse_compositions
from scotl_matgl.chemistry.elements import SYMBOLS
from scotl_matgl.chemistry.formulas import CompositionError
from scotl_matgl.descriptors import base
from scotl_matgl.descriptors.composite import CompositeDescriptor, StandardDescriptor, get_descriptor
from scotl_matgl.descriptors.element_properties import (
    ElementPropertyDescriptor,
    ScotlVectorDescriptor,
    ValenceOrbitalDescriptor,
)
from scotl_matgl.descriptors.element_tables import load_element_tables
from scotl_matgl.descriptors.fractions import ElementFractionDescriptor, StoichiometryDescriptor
from scotl_matgl.descriptors.ions import IonPropertyDescriptor
from scotl_matgl.descriptors.matminer import MatminerDescriptor
from scotl_matgl.exceptions import ScotlMatglWarning

ROOT = Path(__file__).resolve().parents[1]
PRESETS = ("magpie", "deml", "matscholar_el", "megnet_el", "matminer")
FORMULAS = ["Fe2O3", "NaCl", "Ba0.2Ca0.8TiO3", "Ag(AuS)2", "Si", "Al0.25Co1Fe1Ni1"]


def target_formulas(assets: Path) -> list[str]:
    """Return every formula of the target tables once, in the order of the files' names.

    Left out are the 103 in which the amounts in a bracket are shares of it, as in ``(Cu50Zr50)92Al8``: pymatgen, and so
    matminer, multiplies them (test_formulas.py has what they mean).
    """
    found: dict[str, None] = {}
    for path in sorted((assets / "targets").glob("*.csv")):
        with path.open(newline="", encoding="utf-8") as file:
            found |= dict.fromkeys(row["composition"] for row in csv.DictReader(file))
    bracketed = [formula for formula in found if "(" in formula]
    read = parse_compositions(bracketed).dense_fractions()
    for formula, fractions in zip(bracketed, read, strict=True):
        theirs = Composition(formula).fractional_composition
        if any(abs(fractions[element.Z - 1] - amount) > 1e-9 for element, amount in theirs.items()):
            del found[formula]
    assert len(bracketed) - sum("(" in formula for formula in found) == 103
    return list(found)


def random_formulas(n: int, seed: int = 0, *, largest: int = 7) -> list[str]:
    """Return formulas over all 118 elements with whole, equal, nearly equal and fractional amounts."""
    rng = np.random.default_rng(seed)
    formulas = []
    for i in range(n):
        k = int(rng.integers(1, largest + 1))
        symbols = rng.choice(SYMBOLS, size=k, replace=False)
        amounts = [
            rng.integers(1, 9, size=k),
            np.ones(k),
            # either side of the tolerance of numpy.isclose, which decides the mode
            1.0 + rng.choice([0.0, 0.9e-5, 0.99e-5, 1.01e-5, 1.1e-5], size=k),
            rng.random(k).round(4) + 1e-4,
        ][i % 4]
        formulas.append("".join(f"{s}{a:.10g}" for s, a in zip(symbols, amounts, strict=True)))
    return formulas


def matminer_rows(featurizer, formulas: list[str]) -> np.ndarray:
    """Featurize row by row; a row for which matminer raises is NaN, as with its own ignore_errors=True."""
    rows = np.full((len(formulas), len(featurizer.feature_labels())), np.nan)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for i, formula in enumerate(formulas):
            try:
                rows[i] = featurizer.featurize(Composition(formula))
            except KeyError:
                continue
    return rows


def assert_equal_to_matminer(
    ours: np.ndarray, theirs: np.ndarray, names: list[str], exact: tuple[str, ...] = ()
) -> None:
    """Check the rule of the design: NaN and named statistics exact, the rest within 1e-12 of the column's maximum."""
    assert ours.shape == theirs.shape
    assert ours.dtype == np.float64
    np.testing.assert_array_equal(np.isnan(ours), np.isnan(theirs))
    ours, theirs = np.nan_to_num(ours), np.nan_to_num(theirs)
    is_exact = np.array([any(f" {stat} " in f" {name} " for stat in exact) for name in names])
    np.testing.assert_array_equal(ours[:, is_exact], theirs[:, is_exact])
    scale = np.abs(theirs).max(axis=0)
    assert np.all(np.abs(ours - theirs) <= 1e-12 * scale)


@pytest.fixture(scope="module")
def exporter() -> ModuleType:
    spec = importlib.util.spec_from_file_location("export_element_tables", ROOT / "tools" / "export_element_tables.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


# --- against matminer ---------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_shipped_tables_are_those_of_the_installed_matminer(exporter: ModuleType) -> None:
    built = exporter.build()
    with np.load(exporter.OUTPUT, allow_pickle=False) as shipped:
        assert set(shipped.files) == set(built)
        meta, meta_built = (json.loads(arrays["meta"].tobytes()) for arrays in (shipped, built))
        assert meta["presets"] == meta_built["presets"]
        for name in set(built) - {"meta"}:
            if name.endswith("imputed_values"):  # means, which may differ in the last bit between builds of numpy
                np.testing.assert_allclose(shipped[name], built[name], rtol=1e-14)
            else:
                np.testing.assert_array_equal(shipped[name], built[name], err_msg=name)
    assert exporter.OUTPUT.stat().st_size < 300_000
    assert meta["versions"]["matminer"] == "0.10.1"


@pytest.mark.parametrize("impute_nan", [True, False])
@pytest.mark.parametrize("preset", PRESETS)
def test_element_property_equals_matminer(assets: Path, preset: str, impute_nan: bool) -> None:
    from matminer.featurizers.composition import ElementProperty

    real = target_formulas(assets)
    n = {"magpie": 2500, "matscholar_el": 120, "matminer": 400}.get(preset, 800)
    chosen = np.random.default_rng(1).choice(len(real), size=n, replace=False)
    formulas = [real[i] for i in chosen] + random_formulas(min(n, 400))
    theirs = ElementProperty.from_preset(preset, impute_nan=impute_nan)
    ours = ElementPropertyDescriptor(preset, impute_nan=impute_nan)
    names = ours.get_feature_names_out().tolist()
    assert names == theirs.feature_labels()
    assert_equal_to_matminer(
        ours.transform(formulas), matminer_rows(theirs, formulas), names, exact=("minimum", "maximum", "range", "mode")
    )


def test_ion_property_equals_matminer_on_every_target_formula(assets: Path) -> None:
    from matminer.featurizers.composition import IonProperty

    formulas = target_formulas(assets) + random_formulas(2000, seed=2)
    theirs = IonProperty(impute_nan=True, fast=True)
    ours = IonPropertyDescriptor()
    names = ours.get_feature_names_out().tolist()
    assert names == theirs.feature_labels()
    found = ours.transform(formulas)
    expected = matminer_rows(theirs, formulas)
    assert_equal_to_matminer(found, expected, names)
    np.testing.assert_array_equal(found[:, 0], expected[:, 0])
    assert 0.1 < found[:, 0].mean() < 0.9  # both answers occur


def test_ion_property_without_imputation_equals_matminer() -> None:
    from matminer.featurizers.composition import IonProperty

    formulas = random_formulas(1000, seed=3)
    ours = IonPropertyDescriptor(impute_nan=False)
    expected = matminer_rows(IonProperty(impute_nan=False, fast=True), formulas)
    assert np.isnan(expected).any()
    assert_equal_to_matminer(ours.transform(formulas), expected, ours.get_feature_names_out().tolist())


@pytest.mark.parametrize("multiple", [1, 3, 0.1])
def test_compound_possible_equals_trying_every_combination(multiple: float) -> None:
    # Neutral by construction for one choice of states, so that the true answers are many and the sums not trivial.
    from matminer.featurizers.composition import IonProperty

    rng = np.random.default_rng(4)
    states = load_element_tables().oxidation_states
    usable = [z for z in range(1, 119) if len(states[z - 1]) > 1]
    formulas = []
    while len(formulas) < 60:
        numbers = rng.choice(usable, size=6, replace=False)
        charges = np.array([rng.choice(states[z - 1]) for z in numbers])
        amounts = rng.integers(1, 5, size=6).astype(float)
        rest = -(charges[:5] @ amounts[:5]) / charges[5] if charges[5] else 0.0
        if rest > 0.01:
            amounts[5] = rest
            formulas.append(
                "".join(f"{SYMBOLS[z - 1]}{float(a * multiple)!r}" for z, a in zip(numbers, amounts, strict=True))
            )
    found = IonPropertyDescriptor().transform(formulas)[:, 0]
    assert found.all()
    np.testing.assert_array_equal(found, matminer_rows(IonProperty(impute_nan=True, fast=True), formulas)[:, 0])


def test_compound_possible_where_the_combinations_are_too_many_to_try() -> None:
    states = load_element_tables().oxidation_states
    chosen = {"Cl": -1, "Br": -1, "I": -1, "S": -2, "Se": -2, "Te": -2, "As": 5, "P": 3, "Sb": -3, "Sn": -4, "Ge": -4}
    chosen |= {"Xe": 2, "Po": -2, "Mn": 2, "Fe": 2, "Co": 2, "Cr": 3, "W": 4, "Si": -4, "N": 3}
    assert sum(chosen.values()) == 0
    sizes = [len(states[SYMBOLS.index(symbol)]) for symbol in chosen]
    assert all(charge in states[SYMBOLS.index(symbol)] for symbol, charge in chosen.items())
    assert np.prod(sizes, dtype=float) > 1e9
    # Twice everything but nitrogen, whose states are odd: the total charge is odd.
    odd = "".join(symbol if symbol == "N" else f"{symbol}2" for symbol in chosen)
    assert IonPropertyDescriptor().transform(["".join(chosen), odd])[:, 0].tolist() == [1.0, 0.0]


def test_valence_stoichiometry_and_fractions_equal_matminer_on_every_target_formula(assets: Path) -> None:
    from matminer.featurizers.composition import ElementFraction, Stoichiometry, ValenceOrbital

    formulas = target_formulas(assets)[::2] + random_formulas(1000, seed=5)
    for ours, theirs in (
        (ValenceOrbitalDescriptor(), ValenceOrbital(impute_nan=True)),
        (ValenceOrbitalDescriptor(impute_nan=False), ValenceOrbital(impute_nan=False)),
        (StoichiometryDescriptor(), Stoichiometry()),
        (ElementFractionDescriptor(), ElementFraction()),
    ):
        names = ours.get_feature_names_out().tolist()
        assert names == theirs.feature_labels()
        assert_equal_to_matminer(ours.transform(formulas), matminer_rows(theirs, formulas), names)


def test_standard_is_the_five_blocks_in_order() -> None:
    parts = [
        ElementPropertyDescriptor("magpie"),
        StoichiometryDescriptor(),
        ValenceOrbitalDescriptor(),
        IonPropertyDescriptor(),
        ElementFractionDescriptor(),
    ]
    standard = StandardDescriptor()
    np.testing.assert_array_equal(standard.transform(FORMULAS), np.hstack([part.transform(FORMULAS) for part in parts]))
    names = standard.get_feature_names_out().tolist()
    assert names == [name for part in parts for name in part.get_feature_names_out()]
    assert (len(names), len(set(names))) == (267, 267)


def test_slices_of_a_wide_table_join_without_seam(monkeypatch: pytest.MonkeyPatch) -> None:
    formulas = random_formulas(60, seed=6)
    whole = CompositeDescriptor([ElementPropertyDescriptor("deml"), IonPropertyDescriptor()])
    expected = whole.transform(formulas)
    monkeypatch.setattr(base, "MAX_ENTRIES", 100)
    np.testing.assert_array_equal(whole.transform(formulas), expected)


# --- SCOTL's vector -----------------------------------------------------------------------------------------------


def test_scotl_vector_equals_the_published_examples(assets: Path) -> None:
    examples = json.loads((assets / "reference" / "scotl_composition_vectors.json").read_text())
    expected = np.array(list(examples.values()))
    scotl = ScotlVectorDescriptor(assets / "reference" / "scotl_element_table.json")
    found = scotl.transform(list(examples))
    assert found.shape == (len(examples), 60)
    np.testing.assert_allclose(found, expected, rtol=1e-6, atol=1e-6)  # published in float32
    names = scotl.get_feature_names_out().tolist()
    assert len(set(names)) == 60
    assert (names[0], names[20], names[40]) == (
        "SCOTL mean atomic_number",
        "SCOTL minimum atomic_number",
        "SCOTL maximum atomic_number",
    )
    assert scotl.coverage(["He"])[0] < 1.0


def test_scotl_vector_finds_its_table_through_the_environment(assets: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SCOTL_MATGL_ASSETS", str(assets))
    by_path = ScotlVectorDescriptor(assets / "reference" / "scotl_element_table.json")
    np.testing.assert_array_equal(ScotlVectorDescriptor().transform(FORMULAS), by_path.transform(FORMULAS))
    assert ScotlVectorDescriptor().fingerprint() == by_path.fingerprint()


def test_absent_or_wrong_scotl_table_is_a_sentence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("SCOTL_MATGL_ASSETS", raising=False)
    with pytest.raises(FileNotFoundError, match=r"give its path .*or set the environment variable SCOTL_MATGL_ASSETS"):
        ScotlVectorDescriptor().transform(["NaCl"])
    monkeypatch.setenv("SCOTL_MATGL_ASSETS", str(tmp_path))
    with pytest.raises(FileNotFoundError, match=r"is not at .*scotl_element_table\.json"):
        ScotlVectorDescriptor().transform(["NaCl"])
    wrong = tmp_path / "wrong.json"
    wrong.write_text('{"columns": ["a"], "scaled_f64": [[1.0]], "raw_nan_as_none": [[1.0]]}')
    with pytest.raises(ValueError, match="must be 118 rows of 1 finite numbers"):
        ScotlVectorDescriptor(wrong).transform(["NaCl"])
    wrong.write_text("[]")
    with pytest.raises(ValueError, match="needs the entries 'columns'"):
        ScotlVectorDescriptor(wrong).transform(["NaCl"])


# --- what is imputed ----------------------------------------------------------------------------------------------


def test_coverage_counts_the_entries_that_are_not_imputed() -> None:
    magpie = ElementPropertyDescriptor("magpie")
    raw = load_element_tables().presets["magpie"].raw
    known = np.isfinite(raw).sum(axis=1)
    expected = [1.0, known[117] / 22, (known[117] + known[25] + known[7]) / 66]
    np.testing.assert_allclose(magpie.coverage(["Fe2O3", "Og", "Fe7OgO0.01"]), expected, rtol=1e-15)
    assert expected[1] < 0.5
    assert StoichiometryDescriptor().coverage(["Og", "Fe"]).tolist() == [1.0, 1.0]
    # magpie 22 + valence 5 + electronegativity 1 entries per element
    states = load_element_tables().presets["matminer"]
    valence = ValenceOrbitalDescriptor().coverage(["Og"])[0] * 5
    x = float(states.known[117, states.properties.index("X")])
    np.testing.assert_allclose(StandardDescriptor().coverage(["Og"]), [(known[117] + valence + x) / 28], rtol=1e-15)


def test_imputed_elements_are_listed_with_their_properties() -> None:
    listing = StandardDescriptor().imputed_elements(["HeO", "Fe2O3", "Og"])
    assert list(listing) == ["He", "Og"]
    assert "PymatgenData X" in listing["He"]
    assert "MagpieData GSvolume_pa" in listing["Og"]
    raw = load_element_tables().presets["magpie"]
    missing = [
        f"MagpieData {name}" for name, value in zip(raw.properties, raw.raw[117], strict=True) if np.isnan(value)
    ]
    assert [name for name in listing["Og"] if name.startswith("Magpie")] == missing
    assert StandardDescriptor().imputed_elements(["Fe2O3"]) == {}


# --- any featurizer of matminer -----------------------------------------------------------------------------------


def test_matminer_descriptor_equals_the_featurizer_and_lists_rows_that_fail() -> None:
    from matminer.featurizers.composition import Miedema

    formulas = ["TiZr", "NaCl", "Fe0.5Ni0.5", "FeO"]
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # matminer's own warnings do not reach the user
        ours = MatminerDescriptor("Miedema", {"impute_nan": False, "data_source": "Miedema"}).fit(formulas)
    theirs = Miedema(impute_nan=False)
    np.testing.assert_array_equal(ours.transform(formulas), [theirs.featurize(Composition(f)) for f in formulas])
    assert ours.get_feature_names_out().tolist() == theirs.feature_labels()
    assert ours.failed_rows_ == ()

    states = MatminerDescriptor("OxidationStates").fit(formulas)
    table = parse_compositions(["?", "NaCl"], on_error="skip")
    assert np.isnan(states.transform(table)).all()
    (failed,) = states.failed_rows_
    assert (failed.row, failed.value) == (1, "NaCl")
    assert "OxidationStates failed: ValueError: Oxidation states have not been determined" in failed.reason


def test_matminer_descriptor_builds_presets_with_explicit_imputation() -> None:
    formulas = [*FORMULAS, "OgO"]
    ours = MatminerDescriptor("ElementProperty", {"preset_name": "magpie"}).fit(formulas)
    np.testing.assert_allclose(
        ours.transform(formulas), ElementPropertyDescriptor("magpie").transform(formulas), rtol=1e-12, atol=1e-9
    )
    assert ours.featurizer_.impute_nan is True
    assert any("Ward" in reference for reference in ours.citations())
    kept = clone(ours).set_params(parameters={"preset_name": "magpie", "impute_nan": False}).fit(formulas)
    assert np.isnan(kept.transform(formulas)[-1]).any()
    assert kept.fingerprint() != ours.fingerprint()


def test_matminer_descriptor_leaves_text_out_and_says_so() -> None:
    from matminer.featurizers.composition import AtomicOrbitals

    with pytest.warns(ScotlMatglWarning, match="gives text in HOMO_character, HOMO_element"):
        orbitals = MatminerDescriptor("AtomicOrbitals").fit(["NaCl"])
    expected = AtomicOrbitals().featurize(Composition("NaCl"))
    assert orbitals.get_feature_names_out().tolist() == ["HOMO_energy", "LUMO_energy", "gap_AO"]
    assert orbitals.transform(["NaCl"]).tolist() == [[expected[2], expected[5], expected[6]]]
    assert orbitals.left_out_ == ("HOMO_character", "HOMO_element", "LUMO_character", "LUMO_element")


def test_matminer_descriptor_names_what_it_cannot_build() -> None:
    with pytest.raises(ValueError, match=r"no composition featurizer 'WenAloys'; did you mean 'WenAlloys'\?"):
        MatminerDescriptor("WenAloys").fit(["NaCl"])
    with pytest.raises(ValueError, match=r"Stoichiometry cannot be built .*unexpected keyword"):
        MatminerDescriptor("Stoichiometry", {"norms": [1]}).fit(["NaCl"])


# --- scikit-learn -------------------------------------------------------------------------------------------------

ALL = [
    StandardDescriptor(),
    *(ElementPropertyDescriptor(preset) for preset in PRESETS),
    StoichiometryDescriptor(),
    ValenceOrbitalDescriptor(),
    IonPropertyDescriptor(),
    ElementFractionDescriptor(),
    CompositeDescriptor([StoichiometryDescriptor(), ElementFractionDescriptor()]),
    MatminerDescriptor("Stoichiometry"),
]


@pytest.mark.parametrize("descriptor", ALL, ids=lambda d: f"{type(d).__name__}-{getattr(d, 'preset', '')}")
def test_clone_pickle_pandas_and_every_input_type_give_the_same_values(descriptor) -> None:
    expected = clone(descriptor).fit(FORMULAS).transform(FORMULAS)
    assert np.isfinite(expected).all()
    names = clone(descriptor).fit(FORMULAS).get_feature_names_out()
    assert expected.shape == (len(FORMULAS), len(names))

    again = pickle.loads(pickle.dumps(clone(descriptor).fit(FORMULAS)))  # noqa: S301  (our own bytes)
    column = pd.Series(FORMULAS, index=list("abcdef"), name="formula")
    for formulas in (
        np.array(FORMULAS),
        np.array(FORMULAS, dtype=object)[:, None],
        column,
        column.to_frame(),
        [Composition(f) for f in FORMULAS],
        parse_compositions(FORMULAS),
    ):
        np.testing.assert_array_equal(again.transform(formulas), expected)
    assert again.fingerprint() == clone(descriptor).fit(FORMULAS).fingerprint()

    frame = clone(descriptor).set_output(transform="pandas").fit_transform(column)
    assert list(frame.columns) == list(names)
    assert list(frame.index) == list(column.index)
    np.testing.assert_array_equal(frame.to_numpy(), expected)

    assert clone(descriptor).fit(FORMULAS).transform([]).shape == (0, len(names))
    assert clone(descriptor).fit(FORMULAS).coverage([]).shape == (0,)
    assert all(isinstance(reference, str) for reference in again.citations())
    assert descriptor.__sklearn_tags__().input_tags.string


def test_pipeline_and_column_transformer() -> None:
    frame = pd.DataFrame({"formula": FORMULAS, "temperature": np.arange(6.0)}, index=range(10, 16))
    expected = StandardDescriptor().transform(FORMULAS)
    for column in ("formula", ["formula"]):
        both = ColumnTransformer([("d", StandardDescriptor(), column), ("rest", "passthrough", ["temperature"])])
        found = both.set_output(transform="pandas").fit_transform(frame)
        np.testing.assert_array_equal(found.to_numpy()[:, :-1], expected)
        assert found.columns[0] == "d__MagpieData minimum Number"
        assert found.columns[-1] == "rest__temperature"
        assert list(found.index) == list(frame.index)
    y = np.arange(6.0)
    model = make_pipeline(StandardDescriptor(), StandardScaler(), Ridge(alpha=1e-8)).fit(frame["formula"], y)
    np.testing.assert_allclose(model.predict(FORMULAS), y, atol=1e-6)  # 267 features interpolate 6 rows


def test_a_bad_row_is_named() -> None:
    with pytest.raises(CompositionError, match="FE2O3"):
        StandardDescriptor().transform(["NaCl", "FE2O3"])


def test_composite_refuses_features_of_the_same_name() -> None:
    with pytest.raises(ValueError, match="give the feature 'MagpieData minimum Number' \\(132 such"):
        CompositeDescriptor([StandardDescriptor(), ElementPropertyDescriptor("magpie")]).fit(["NaCl"])
    with pytest.raises(ValueError, match="at least one name or descriptor"):
        CompositeDescriptor([]).fit(["NaCl"])


def test_unknown_preset_and_negative_norm_are_refused() -> None:
    with pytest.raises(ValueError, match="Unknown preset='magpi'; choose one of deml, magpie"):
        ElementPropertyDescriptor("magpi").transform(["NaCl"])
    with pytest.raises(ValueError, match="negative p"):
        StoichiometryDescriptor(norms=(2, -1)).transform(["NaCl"])


def test_get_descriptor_resolves_names_objects_classes_and_lists() -> None:
    expected = ElementPropertyDescriptor("magpie").transform(FORMULAS)
    np.testing.assert_array_equal(get_descriptor("magpie").transform(FORMULAS), expected)
    both = get_descriptor(["magpie", StoichiometryDescriptor(norms=(2,))]).fit(FORMULAS)
    np.testing.assert_array_equal(both.transform(FORMULAS)[:, :132], expected)
    assert both.get_feature_names_out()[-1] == "2-norm"
    given = ElementPropertyDescriptor("deml", impute_nan=False)
    copy = get_descriptor(given)
    assert copy is not given
    assert copy.get_params() == given.get_params()
    assert isinstance(get_descriptor(IonPropertyDescriptor), IonPropertyDescriptor)
    with pytest.raises(TypeError, match="3 is not a descriptor: give a registered name"):
        get_descriptor(3)


def test_fingerprints_tell_descriptors_apart() -> None:
    prints = [
        d.fingerprint()
        for d in (
            *(ElementPropertyDescriptor(preset, impute_nan=impute) for preset in PRESETS for impute in (True, False)),
            *(StandardDescriptor(impute_nan=impute) for impute in (True, False)),
            IonPropertyDescriptor(),
            ValenceOrbitalDescriptor(),
            StoichiometryDescriptor(),
            StoichiometryDescriptor(norms=(2,)),
            ElementFractionDescriptor(),
        )
    ]
    assert len(set(prints)) == len(prints)


@pytest.mark.slow
def test_another_process_has_the_same_fingerprint_and_needs_neither_matminer_nor_pymatgen() -> None:
    code = (
        "import sys; from scotl_matgl.descriptors.composite import StandardDescriptor as S\n"
        "S().fit_transform(['Fe2O3', 'NaCl']);"
        "print(S().fingerprint(), [m for m in ('matminer', 'pymatgen', 'torch', 'matgl') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT)  # noqa: S603  (fixed code)
    assert done.stdout.split(maxsplit=1) == [StandardDescriptor().fingerprint(), "[]\n"]
    assert done.stderr == ""
