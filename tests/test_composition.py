"""Formulas are read as a chemist reads them, against pymatgen where pymatgen is right, and refused with a remedy."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from scotl_matgl.chemistry.compositions import Compositions, composition_key, parse_compositions
from scotl_matgl.chemistry.elements import SYMBOLS
from scotl_matgl.chemistry.formulas import CompositionError, format_formula, parse_formula, reduced_formula

READ = {
    "Fe2O3": {"Fe": 2, "O": 3},
    "Fe₂O₃": {"Fe": 2, "O": 3},
    "Fe$_{2}$O$_{3}$": {"Fe": 2, "O": 3},
    "Fe<sub>2</sub>O<sub>3</sub>": {"Fe": 2, "O": 3},
    " Fe2 O3\u00a0": {"Fe": 2, "O": 3},
    "Fe 2 O 3": {"Fe": 2, "O": 3},
    "\ufeffFe2O3": {"Fe": 2, "O": 3},
    "CO": {"C": 1, "O": 1},
    "Co": {"Co": 1},
    "No": {"No": 1},
    "Na": {"Na": 1},
    "Na1N1": {"Na": 1, "N": 1},
    "Hg0.7Cd0.3Te1": {"Hg": 0.7, "Cd": 0.3, "Te": 1},
    "Fe.5Co.5": {"Fe": 0.5, "Co": 0.5},
    "Ni9.7e-05Fe": {"Ni": 9.7e-5, "Fe": 1},
    "Ca3(PO4)2": {"Ca": 3, "P": 2, "O": 8},
    "K4[Fe(CN)6]": {"K": 4, "Fe": 1, "C": 6, "N": 6},
    "{[(Li2)2O]3}0.5": {"Li": 6, "O": 1.5},
    "CH3CH2OH": {"C": 2, "H": 6, "O": 1},
    # Addition compounds.
    "CuSO4·5H2O": {"Cu": 1, "S": 1, "O": 9, "H": 10},
    "CuSO4*5H2O": {"Cu": 1, "S": 1, "O": 9, "H": 10},
    "CuSO4 • 5 H2O": {"Cu": 1, "S": 1, "O": 9, "H": 10},
    "CuSO₄⋅5H₂O": {"Cu": 1, "S": 1, "O": 9, "H": 10},
    "CuSO4·0H2O": {"Cu": 1, "S": 1, "O": 4},
    "CuSO4·5(H2O)": {"Cu": 1, "S": 1, "O": 9, "H": 10},
    "3CaO·Al2O3": {"Ca": 3, "O": 6, "Al": 2},
    "2CaO.SiO2": {"Ca": 2, "O": 4, "Si": 1},
    # The full stop, rule by rule.
    "LiOH.H2O": {"Li": 1, "O": 2, "H": 3},
    "CuSO4.5H2O": {"Cu": 1, "S": 1, "O": 9, "H": 10},
    "CuSO4.5(H2O)": {"Cu": 1, "S": 1, "O": 9, "H": 10},
    "CoCl2.6H2O": {"Co": 1, "Cl": 2, "H": 12, "O": 6},
    "Ba(OH)2.8H2O": {"Ba": 1, "O": 10, "H": 18},
    "CaSO4.0.5H2O": {"Ca": 1, "S": 1, "O": 4.5, "H": 1},
    "NiSO4.10H2O": {"Ni": 1, "S": 1, "O": 14, "H": 20},
    "Cl2.6H2O1": {"Cl": 2.6, "H": 2, "O": 1},
    "S1O4.05H2O": {"S": 1, "O": 5.05, "H": 2},
    "Na0.5H2O": {"Na": 0.5, "H": 2, "O": 1},
    "Li2.4O1H0.6Cl1": {"Li": 2.4, "O": 1, "H": 0.6, "Cl": 1},
}
REFUSED = {
    "": "is missing",
    "   ": "is missing",
    "nan": "is missing",
    "N/A": "is missing",
    "None": "is missing",
    "NA": "for sodium write 'Na'",
    "NaN": "write 'Na1N1'",
    "FE2O3": "did you mean 'Fe2O3'?",
    "NACL": "did you mean 'NaCl'?",
    "fe2o3": "did you mean 'Fe2O3'?",
    "nacl": "did you mean 'NaCl'?",
    "Feo": "did you mean 'FeO'?",
    "CASO4.2H2O": "did you mean 'CaSO4.2H2O'?",
    "MGAL2O4": "did you mean 'MgAl2O4'?",
    "Fe_2O_3": "did you mean 'Fe2O3'?",
    "Xx2": "'Xx' is a placeholder",
    "R2O3": "'R' is a placeholder",
    "Me": "'Me' is a placeholder",
    "Ln2O3": "'Ln' is a placeholder",
    "Vac2O": "'Vac' is a placeholder",
    "Ax": "'Ax' is not an element symbol",
    "Fe3+": "carries a charge",
    "Na+": "carries a charge",
    "SO4-2": "carries a charge",
    "SO4^2-": "carries a charge",
    "SO₄²⁻": "carries a charge",
    "(Fe2+)(O2-)": "carries a charge",
    "D2O": "D is deuterium",
    "T2O": "T is tritium",
    "ND3": "did you mean 'Nd3'?",
    "Li1+xMn2-xO4": "'1+x' is a variable amount",
    "LixCoO2": "'x' is a variable amount",
    "Zn1−xCoxO": "'1-x' is a variable amount",
    "YBa2Cu3O7-δ": "'7-δ' is a variable amount",
    "CuSO4·nH2O": "'n' is a variable amount",
    "(1-x)PbTiO3": "'1-x' is a variable amount",
    "Li1-0.2Mn": "write the result",
    "Fe-2O3": "an amount is negative",
    "Fe0O3": "the amount of Fe is zero: leave Fe out",
    "(Fe2O3)0Ni": "an amount is zero: leave that part out",
    "Fe1e-9": "1e-09, vanishes",
    "Fe1O1e-9": "the amount of O, 1e-09, vanishes",
    "Fe1e9O1": "the amount of O, 1, vanishes",
    "Fe1e999": "the amount of Fe is inf",
    "2H2O": "write the formula of one unit, 'H2O'",
    "42": "is a number, not a formula",
    "-3.5e2": "is a number, not a formula",
    "Fe(OH": "'(' is never closed",
    "FeOH)": "')' closes no bracket",
    "Fe(O]2": "']' closes no bracket",
    "Fe()2O": "brackets is empty",
    "·5H2O": "nothing on one side",
    "CuSO4·": "nothing on one side",
    "Fe2O3.": "nothing on one side",
    "Fe(H2O·NaCl)": "inside brackets",
    "Na0.5CoO2.5H2O": "'Na0.5CoO2·5H2O' for water, 'Na0.5CoO2.5H2O1' for a decimal",
    "Al2O3.2SiO2": "'Al2O3·2SiO2' for an addition compound",
    "CuSO45H2O": "write 'CuSO4·5H2O' or 'CuSO45·H2O'",
    "Na2B4O710(H2O)": "write 'Na2B4O7·10H2O'",
    "TiO2 (anatase)": "'anatase' looks like a word",
    "TiO2-rutile": "'rutile' behind it names the phase",
    "Fe-Ni": "a '-' joins parts",
    "CuSO4 5H2O": "white space stands before a number",
    "Fe2 3O4": "white space stands before a number",
    "F e2O3": "white space splits an element symbol",
    "СО2": "CYRILLIC CAPITAL LETTER ES",
    "Fe/Ni": "a '/' joins parts of it",
    "Fe(2)O": "the amount 2 follows nothing",
}


@pytest.mark.parametrize(("text", "expected"), READ.items())
def test_formula_is_read(text: str, expected: dict[str, float]) -> None:
    amounts = parse_formula(text)
    assert list(amounts) == list(expected)
    assert amounts == pytest.approx(expected, rel=1e-14)


@pytest.mark.parametrize(("text", "fragment"), REFUSED.items())
def test_formula_is_refused_with_the_remedy(text: str, fragment: str) -> None:
    with pytest.raises(CompositionError) as caught:
        parse_formula(text)
    assert fragment in str(caught.value)
    assert repr(text) in str(caught.value)


def test_suggestions_are_formulas() -> None:
    for text, fragment in REFUSED.items():
        if "did you mean" in fragment:
            assert parse_formula(fragment.split("'")[1]), text


def test_symbols_are_those_of_pymatgen() -> None:
    from pymatgen.core import Element

    assert [Element.from_Z(z).symbol for z in range(1, 119)] == list(SYMBOLS)


def _formulas(assets: Path) -> list[str]:
    found: set[str] = set()
    for path in [*sorted((assets / "targets").glob("*.csv")), *sorted((assets / "matbench").glob("*.csv"))]:
        table = pd.read_csv(path, keep_default_na=False)
        found.update(table["composition" if "composition" in table else "formula"])
    return sorted(found)


def test_published_formulas_against_pymatgen(assets: Path) -> None:
    from pymatgen.core import Composition

    formulas = _formulas(assets)
    assert len(formulas) > 12_000
    ours = parse_compositions(formulas)
    for i, text in enumerate(formulas):
        theirs = Composition(text).get_el_amt_dict()
        if parse_compositions([text]).notes:
            continue  # shares, which pymatgen multiplies: tests/test_formulas.py
        numbers, amounts = ours[i]
        mine = dict(zip((SYMBOLS[z - 1] for z in numbers), amounts.tolist(), strict=True))
        assert mine == pytest.approx(theirs, rel=1e-12), text


def test_keys_of_published_formulas_merge_as_rounded_fractions(assets: Path) -> None:
    formulas = _formulas(assets)
    table = parse_compositions(formulas)
    rounded = np.floor(table.dense_fractions() * 1e4 + 0.5 + 1e-6)
    _, group = np.unique(rounded, axis=0, return_inverse=True)
    keys = table.keys()
    assert len(set(keys)) == len(set(group.ravel().tolist())) < len(formulas)
    assert len(set(zip(keys, group.ravel().tolist(), strict=True))) == len(set(keys))
    assert keys[:500] == tuple(composition_key(*table[i]) for i in range(500))


# --- laws -------------------------------------------------------------------------------------------------------------

amounts_strategy = st.one_of(
    st.integers(1, 40).map(float), st.integers(1, 9999).map(lambda k: k / 1000), st.floats(1e-3, 1e3)
)
contents = st.dictionaries(st.sampled_from(SYMBOLS), amounts_strategy, min_size=1, max_size=8)


def _arrays(content: dict[str, float]) -> tuple[list[int], list[float]]:
    return [SYMBOLS.index(symbol) + 1 for symbol in content], list(content.values())


@pytest.mark.slow
@given(contents)
@settings(max_examples=300, derandomize=True)
def test_written_formula_reads_back_exactly(content: dict[str, float]) -> None:
    assert parse_formula(format_formula(*_arrays(content))) == content


pieces = st.sampled_from(
    [*"ABCDHNOTX0125()[]{}.·*+-^_ ,xyδe₂²", "Fe", "Cu", "SO4", "H2O", "NaN", "fe", "1e", "<sub>", "\n"]
)


@pytest.mark.slow
@given(st.one_of(st.lists(pieces, max_size=14).map("".join), st.text(max_size=12)))
@settings(max_examples=500, derandomize=True)
def test_any_text_gives_positive_amounts_or_one_sentence(text: str) -> None:
    try:
        amounts = parse_formula(text)
    except CompositionError as error:
        reason = str(error).removeprefix(f"{text!r} cannot be read: ")
        assert len(reason) > 20
        assert ":" in reason or "?" in reason or ";" in reason  # a remedy follows
    else:
        assert amounts
        assert set(amounts) <= set(SYMBOLS)
        assert all(0 < amount < math.inf for amount in amounts.values())


@pytest.mark.parametrize("content", [{"Na": 1.0, "N": 1.0}, {"Cl": 2.6, "H": 2.0, "O": 1.0}, {"H": 2.0, "O": 1.0}])
def test_written_formula_avoids_doubtful_spellings(content: dict[str, float]) -> None:
    assert parse_formula(format_formula(*_arrays(content))) == content


@pytest.mark.slow
@given(contents, st.randoms(use_true_random=False), st.integers(1, 1000))
@settings(max_examples=300, derandomize=True)
def test_key_does_not_depend_on_order_or_scale(content: dict[str, float], random: Any, scale: int) -> None:
    pairs = list(zip(*_arrays(content), strict=True))
    random.shuffle(pairs)
    numbers, amounts = zip(*pairs, strict=True)
    fractions = np.array(list(content.values())) / math.fsum(content.values()) * 1e4
    # A fraction on the very edge of two steps may fall on either side: no rounding can avoid that.
    if np.all(np.abs(fractions + 1e-6 - np.floor(fractions) - 0.5) > 1e-7):
        assert composition_key(numbers, np.array(amounts) * scale) == composition_key(*_arrays(content))


def test_key_rounds_halves_up_whatever_the_noise() -> None:
    # 0.00125 = 12.5 steps, and its sum is off by one bit on either side.
    assert composition_key([26, 28], [0.00125, 0.99875]) == composition_key([26, 28], [0.125, 99.875])
    assert composition_key([26, 28], [np.nextafter(0.00125, 0), 0.99875]) == "Fe13Ni9988"
    assert composition_key([26, 28], [np.nextafter(0.00125, 1), 0.99875]) == "Fe13Ni9988"
    assert composition_key([26, 8, 26], [1, 3, 1]) == "O6000Fe4000"
    assert composition_key([26, 28], [4e-5, 1.0]) == "Ni10000"


def test_spellings_of_one_compound_share_a_key() -> None:
    keys = parse_compositions(["Ca(OH)2", "CaO2H2", "H2O2Ca", "Ca0.2O0.4H0.4", "CaO·H2O"]).keys()
    assert set(keys) == {"H4000O4000Ca2000"}


def test_display_formula() -> None:
    assert reduced_formula([26, 8], [4.0, 6.0]) == "Fe2O3"
    assert reduced_formula([26, 8], [0.4, 0.61234567]) == "Fe0.4O0.6123"
    assert reduced_formula([26], [8.0]) == "Fe"


# --- columns ----------------------------------------------------------------------------------------------------------


def test_flat_arrays() -> None:
    table = parse_compositions(["NaCl", "Ca(OH)2", "Si"])
    assert table.numbers.tolist() == [11, 17, 20, 8, 1, 14]
    assert table.amounts.tolist() == [1, 1, 1, 2, 2, 1]
    assert table.offsets.tolist() == [0, 2, 5, 6]
    assert table.numbers.dtype == np.int16
    assert table.fractions == pytest.approx([0.5, 0.5, 0.2, 0.4, 0.4, 1.0])
    dense = table.dense_fractions()
    assert dense.shape == (3, 118)
    assert dense[1, [0, 7, 19]] == pytest.approx([0.4, 0.4, 0.2])
    assert dense.sum(axis=1) == pytest.approx(np.ones(3))
    assert [numbers.tolist() for numbers, _ in table] == [[11, 17], [20, 8, 1], [14]]
    assert table[-1][0].tolist() == [14]
    with pytest.raises(ValueError, match="read-only"):
        table.numbers[0] = 3


def test_no_rows() -> None:
    table = parse_compositions([])
    assert (len(table), table.n_input, table.keys(), table.dense_fractions().shape) == (0, 0, (), (0, 118))
    assert parse_compositions(["?"], on_error="skip").keys() == ()


def test_raise_names_row_label_value_remedy_and_the_rest() -> None:
    column = pd.Series(["Fe2O3", "NACL", None, "Xx"], index=["a", "b", "c", "d"])
    with pytest.raises(CompositionError) as caught:
        parse_compositions(column)
    message = str(caught.value)
    assert message.startswith("row 1 (label 'b'): 'NACL' cannot be read")
    assert "did you mean 'NaCl'?" in message
    assert "2 further rows cannot be read either (2, 3)." in message
    assert "on_error='skip'" in message
    assert [(s.row, s.label) for s in caught.value.skipped] == [(1, "b"), (2, "c"), (3, "d")]
    with pytest.raises(CompositionError, match=r"^row 0: 'NACL' cannot be read(?!.*further)"):
        parse_compositions(["NACL"])


def test_skip_accounts_for_every_row() -> None:
    values = [*READ, *REFUSED]
    values = [values[i] for i in np.random.default_rng(0).permutation(len(values))]
    table = parse_compositions(pd.Series(values, index=[f"r{i}" for i in range(len(values))]), on_error="skip")
    assert table.n_input == len(table) + len(table.skipped) == len(values)
    assert sorted([*table.rows.tolist(), *(s.row for s in table.skipped)]) == list(range(len(values)))
    assert table.text == tuple(values[i] for i in table.rows)
    for skipped in table.skipped:
        assert skipped.label == f"r{skipped.row}"
        assert skipped.value == repr(values[skipped.row])
        assert REFUSED[values[skipped.row]] in skipped.reason


@pytest.mark.parametrize("value", [None, float("nan"), np.nan, pd.NA, pd.NaT])
def test_missing_values(value: Any) -> None:
    table = parse_compositions(pd.Series(["Si", value], dtype=object), on_error="skip")
    assert "is missing" in table.skipped[0].reason


@pytest.mark.parametrize(
    ("value", "fragment"),
    [
        (3, "is a number"),
        (np.float64(2.5), "is a number"),
        (b"Fe", "decode"),
        (["Fe"], "a list is no formula"),
        ({"FE": 2}, "did you mean 'Fe'?"),
        ({"D": 2}, "deuterium"),
        ({26: 2}, "the key 26 is not an element symbol"),
        ({"Fe": 2, "O": -3}, "the amount of O is -3"),
        ({"Fe": 0, "O": 0}, "holds no element"),
        ({"Fe": "two"}, "which is not a number"),
        ({"Fe": float("nan")}, "the amount of Fe is nan"),
        ({}, "holds no element"),
    ],
)
def test_other_values_are_refused(value: Any, fragment: str) -> None:
    assert fragment in parse_compositions([value], on_error="skip").skipped[0].reason


def test_objects_of_pymatgen() -> None:
    from pymatgen.core import Composition, DummySpecies, Element, Lattice, Molecule, Species, Structure

    lattice = Lattice.cubic(4.14)
    cscl = Structure(lattice, ["Cs+", "Cl-"], [[0, 0, 0], [0.5, 0.5, 0.5]])
    ice = Structure(lattice, [Species("D", 1), Species("D", 1), Species("O", -2)], np.eye(3) / 2)
    good = [
        Composition("Fe2O3"),
        Composition({Species("Fe", 2): 1, Species("Fe", 3): 2, Species("O", -2): 4}),
        {"Fe": 2, Element("O"): 3},
        cscl,
        ice,
    ]
    table = parse_compositions(good)
    assert table.text == ("Fe2O3", "Fe3O4", "Fe2O3", "CsCl", "H2O")
    bad = [
        Composition({DummySpecies("X", 0): 1, "O": 1}),
        Composition({"D": 2, "O": 1}),
        Composition({Species("D", 1): 2, Species("O", -2): 1}),
        {Element("D"): 2},
        Element("Fe"),
        Composition(),
    ]
    reasons = [s.reason for s in parse_compositions(bad, on_error="skip").skipped]
    for reason, fragment in zip(reasons, ["dummy", *["deuterium"] * 3, "no composition", "no element"], strict=True):
        assert fragment in reason
    assert parse_compositions([Molecule(["O", "H", "H"], np.eye(3))]).text == ("OH2",)
    for single in (cscl, good[0], {"Fe": 1}):
        with pytest.raises(TypeError, match="put it into a list"):
            parse_compositions(single)


def test_forms_of_a_column() -> None:
    values = ["Fe2O3", "NaCl"]
    forms = [
        tuple(values),
        np.array(values),
        np.array(values, dtype=object)[:, None],
        pd.Series(values),
        pd.Series(values, dtype="category"),
        pd.Series(values, dtype="string"),
        pd.DataFrame({"formula": values}),
        pd.Index(values),
        (v for v in values),
    ]
    for form in forms:
        table = parse_compositions(form)
        assert table.text == ("Fe2O3", "NaCl")
        assert parse_compositions(table) is table


@pytest.mark.parametrize(
    ("inputs", "fragment"),
    [
        ("Fe2O3", "one formula where a column"),
        ({"Fe2O3"}, "a set has no order"),
        (3, "a column of formulas is expected, not 3"),
        (None, "a column of formulas is expected, not None"),
        (np.array([["Fe", "O"]]), "not a table of shape"),
        (np.array("Fe"), "not a table of shape"),
        (pd.DataFrame({"a": ["Fe"], "b": ["O"]}), "choose the one column"),
    ],
)
def test_what_is_no_column(inputs: Any, fragment: str) -> None:
    with pytest.raises(TypeError, match=fragment):
        parse_compositions(inputs)


@pytest.mark.parametrize("on_error", ["ignore", "warn", None, True])
def test_unknown_on_error(on_error: Any) -> None:
    with pytest.raises(ValueError, match="choose 'raise' or 'skip'"):
        parse_compositions(["Fe"], on_error=on_error)


def test_take() -> None:
    table = parse_compositions(["NaCl", "oops", "Ca(OH)2", "Si"], on_error="skip")
    part = table.take([2, 0, 2])
    assert isinstance(part, Compositions)
    assert part.text == ("Si", "NaCl", "Si")
    assert part.numbers.tolist() == [14, 11, 17, 14]
    assert part.offsets.tolist() == [0, 1, 3, 4]
    assert part.rows.tolist() == [3, 0, 3]
    assert part.keys() == tuple(table.keys()[i] for i in (2, 0, 2))
    assert (part.skipped, part.n_input) == (table.skipped, 4)
    assert table.take(np.array([False, True, True])).text == ("Ca(OH)2", "Si")
    assert table.take(slice(1, None)).amounts.tolist() == [1, 2, 2, 1]
    assert table.take([]).keys() == ()
