"""What chemists write for something else than the grammar reads is refused with both readings; compounds are read."""

from __future__ import annotations

import pytest

from scotl_matgl.chemistry.formulas import CompositionError, format_formula, parse_formula


@pytest.mark.parametrize(
    ("text", "fragment"),
    [
        ("Zn(OAc)2·2H2O", "acetate (C2H3O2)"),
        ("Ni(OAc)2.4H2O", "acetate"),
        ("AcOH", "acetate"),
        ("Y(OPr)3", "propyl (C3H7)"),
        ("Pr4NBr", "propyl"),
        ("TsOH", "tosylate"),
        ("NaCI", "did you mean 'NaCl'?"),
        ("CuCI2", "did you mean 'CuCl2'?"),
        ("CuCI2·2H2O", "did you mean 'CuCl2·2H2O'?"),
        ("CO(NO3)2", "did you mean 'Co(NO3)2'?"),
        ("COCl2", "did you mean 'CoCl2'?"),
        ("CO3O4", "did you mean 'Co3O4'?"),
        ("LiCOO2", "did you mean 'LiCoO2'?"),
        ("COFe2O4", "did you mean 'CoFe2O4'?"),
        ("NIO", "did you mean 'NiO'?"),
        ("NIFe2O4", "did you mean 'NiFe2O4'?"),
        ("KNo3", "did you mean 'KNO3'?"),
        ("LiFePo4", "did you mean 'LiFePO4'?"),
        ("Pb(Zr52Ti48)O3", "did you mean 'Pb(Zr0.52Ti0.48)O3'?"),
        ("63Sn37Pb", "write 'Sn63Pb37', and pass amounts='weight'"),
        ("96.5Sn3Ag0.5Cu", "write 'Sn96.5Ag3Cu0.5'"),
        ("NaYF4:20%Yb,2%Er", "'20%Yb,2%Er' after ':'"),
        ("Mn2+Fe3+2O4", "it carries a charge"),
        ("BaTiO3_P4mm", "'P4mm' behind it names the space group"),
        ("SiO2-P3221", "'P3221' behind it names the space group"),
        ("SrTiO<sub>3-&delta;</sub>", "'3-δ' is a variable amount"),
        ("Mg¹¹B₂", "name an isotope"),
        ("MAPbI3", "methylammonium (CH6N)"),
        ("(MA)PbBr3", "methylammonium"),
        ("FA0.85Cs0.15PbI3", "formamidinium (CH5N2)"),
        ("BTO", "short name of BaTiO3"),
        ("Fe18Cr8Ni", "write 'Fe-18Cr-8Ni' and pass amounts='weight'"),
        ("Ni20Cr5Al", "write 'Ni-20Cr-5Al' and pass amounts='weight'"),
        ("63Na2O37SiO2", "did you mean '63Na2O·37SiO2'?"),
        ("co2", "did you mean 'CO2' or 'Co2'?"),
    ],
)
def test_both_readings_are_named(text: str, fragment: str) -> None:
    with pytest.raises(CompositionError) as caught:
        parse_formula(text)
    assert fragment in str(caught.value)


@pytest.mark.parametrize(
    ("text", "content"),
    [
        ("AcOF", {"Ac": 1, "O": 1, "F": 1}),
        ("Ac2O3", {"Ac": 2, "O": 3}),
        ("AcHfO3", {"Ac": 1, "Hf": 1, "O": 3}),
        ("PrOCl", {"Pr": 1, "O": 1, "Cl": 1}),
        ("CI4", {"C": 1, "I": 4}),
        ("CH3NH3I", {"C": 1, "H": 6, "N": 1, "I": 1}),
        ("H6PbCI3N", {"H": 6, "Pb": 1, "C": 1, "I": 3, "N": 1}),
        ("Zr6CI12", {"Zr": 6, "C": 1, "I": 12}),
        ("PtCI2O", {"Pt": 1, "C": 1, "I": 2, "O": 1}),
        ("CO(NH2)2", {"C": 1, "O": 1, "N": 2, "H": 4}),
        ("CO3Pb", {"C": 1, "O": 3, "Pb": 1}),
        ("Ca(HCOO)2", {"Ca": 1, "H": 2, "C": 2, "O": 4}),
        ("Hg2NI", {"Hg": 2, "N": 1, "I": 1}),
        ("Na0.35CoO2·1.3H2O", {"Na": 0.35, "Co": 1, "O": 3.3, "H": 2.6}),
        (r"$\mathrm{La_{0.7}Sr_{0.3}MnO_{3}}$", {"La": 0.7, "Sr": 0.3, "Mn": 1, "O": 3}),
        (r"\ce{Fe2O3}", {"Fe": 2, "O": 3}),
        ("Na1C1I1", {"Na": 1, "C": 1, "I": 1}),
        ("Fe18Cr8Ni1", {"Fe": 18, "Cr": 8, "Ni": 1}),
        ("Fe2Ni", {"Fe": 2, "Ni": 1}),
        ("Ti7Al2Cu", {"Ti": 7, "Al": 2, "Cu": 1}),
    ],
)
def test_compounds_are_read(text: str, content: dict[str, float]) -> None:
    assert parse_formula(text) == pytest.approx(content)


@pytest.mark.parametrize("numbers", [[11, 6, 53], [19, 102], [89, 8, 1], [28, 7, 53], [26, 84], [26, 24, 28]])
def test_what_is_written_is_read_back(numbers: list[int]) -> None:
    amounts = [18.0, 8.0, 1.0] if numbers[-1] == 28 else [1.0, 4.0, 3.0][: len(numbers)]
    read = parse_formula(format_formula(numbers, amounts))
    assert list(read.values()) == amounts
