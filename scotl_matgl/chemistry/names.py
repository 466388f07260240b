"""Names of groups, cations and phases that stand in formulas, and what they are as formulas."""

from __future__ import annotations

import re

_CATIONS = {
    "MA": ("methylammonium", "(CH6N)"),
    "FA": ("formamidinium", "(CH5N2)"),
    "PEA": ("phenethylammonium", "(C8H12N)"),
    "BA": ("butylammonium", "(C4H12N)"),
    "EA": ("ethylammonium", "(C2H8N)"),
    "DMA": ("dimethylammonium", "(C2H8N)"),
    "GA": ("guanidinium", "(CH6N3)"),
}
_GROUPS = {
    "acac": ("acetylacetonate", "(C5H7O2)"),
    "OTf": ("triflate", "(CF3SO3)"),
    "iPr": ("isopropyl", "C3H7"),
    "tBu": ("tert-butyl", "C4H9"),
    "nBu": ("butyl", "C4H9"),
    "Me": ("methyl", "(CH3)"),
    "Et": ("ethyl", "(C2H5)"),
    "Bu": ("butyl", "(C4H9)"),
    "Ph": ("phenyl", "(C6H5)"),
    "Cp": ("cyclopentadienyl", "(C5H5)"),
    "THF": ("tetrahydrofuran", "(C4H8O)"),
    "DMF": ("dimethylformamide", "(C3H7NO)"),
    "DMSO": ("dimethyl sulfoxide", "(C2H6SO)"),
    "en": ("ethylenediamine", "(C2H8N2)"),
    "py": ("pyridine", "(C5H5N)"),
    "bpy": ("bipyridine", "(C10H8N2)"),
    "phen": ("phenanthroline", "(C12H8N2)"),
}
_NAMES = {**_CATIONS, **_GROUPS}


def _any_of(names: dict[str, tuple[str, str]], before: str) -> re.Pattern[str]:
    """Pattern of the names, longest first, with or without brackets of their own."""
    listed = "|".join(sorted((name for name in names if name != "Me"), key=len, reverse=True))
    return re.compile(rf"\((?P<inside>{listed})\)|{before}(?P<bare>{listed})(?![a-z])")


_CATION = _any_of(_CATIONS, "")
_GROUP = _any_of(_GROUPS, "(?<![a-z])")
# Beside lead, tin or germanium and a halogen: elsewhere BAF2 and GACl3 are capitals.
_HALIDE = re.compile("^(?=.*(?:Pb|Sn|Ge))(?=.*(?:F|Cl|Br|I))|^(?:MA|FA)(?:Cl|Br|I)$")
# Elsewhere 'Me' stands for any metal.
_METHYL = re.compile("(?P<inside>(?<=O)Me)(?![a-z])|(?P<bare>Me(?=[2-4](?:N|Si|P|As|Sn|Al|Zn|Hg|Ge)|OH|NH))")

_FORMULA = r"(?P<rest>[A-Z(\[](?:[A-Za-z0-9.()\[\]])*[A-Za-z0-9)\]])"
_SPACE_GROUP = r"[PIFABCR](?:-?[1-6]|[mnabcd])[-1-6/mnabcde_]*(?::?[12HRS])?"
_BEHIND = re.compile(
    rf"{_FORMULA}(?:_(?P<any>{_SPACE_GROUP}|[a-z]{{4,}}|SG ?[0-9]{{1,3}})|-(?P<dash>[a-z]{{4,}}|{_SPACE_GROUP}))"
)


def written_out(text: str) -> tuple[str, str, str]:
    """Name of the first group or cation in a text, what it is, and the text with all of them as formulas.

    Parameters
    ----------
    text : str
        Such as ``MAPbI3`` or ``Si(OEt)4``.

    Returns
    -------
    name, meaning, formula : str
        Empty where there is none.
    """
    for pattern in (_CATION, _GROUP, _METHYL):
        first = pattern.search(text)
        if first is None or (pattern is _CATION and not _HALIDE.search(text)):
            continue
        name = first["inside"] or first["bare"]
        meant = pattern.sub(_formula_of, text)
        meant = re.sub(r"\(([A-Za-z0-9]+)\)(?![0-9])(?=[A-Z()]|$)", r"\1", meant)
        kind, formula = _NAMES[name]
        return name, f"{kind} ({formula.strip('()')})", meant
    return "", "", ""


def _formula_of(found: re.Match[str]) -> str:
    return _NAMES[found["inside"] or found["bare"]][1]


def name_behind(text: str) -> tuple[str, str, str]:
    """Name that stands behind a formula after ``_`` or ``-``, what it names, and the formula without it."""
    found = _BEHIND.fullmatch(text)
    if found is None:
        return "", "", ""
    name = found["any"] or found["dash"]
    kind = "phase" if name.islower() and name.isalpha() else "space group"
    if found["dash"] and kind == "space group" and len(name) < 3:
        return "", "", ""
    return name, kind, found["rest"]
