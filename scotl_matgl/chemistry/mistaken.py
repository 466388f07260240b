"""Formulas that the grammar reads, but whose letters or amounts stand for something else.

Organic shorthand (``Cu(OAc)2`` has no actinium), letters that look alike (``NaCI``, ``FeC13``), capitals and small
letters that were mixed up (``CO3O4``, ``LiFePo4``), and percents in a bracket without a multiplier
(``Pb(Zr52Ti48)O3``). What makes no sense as it stands is refused with the formula that is meant; where both readings
are compounds, the result says which was taken. Amounts with a decimal point (``Na1.0O1.0Ac1.0``) mean what they say.
"""

from __future__ import annotations

import re

from scotl_matgl.chemistry.elements import NUMBER_OF, NUMBER_OF_NAME
from scotl_matgl.chemistry.grammar import AMOUNT
from scotl_matgl.chemistry.refusals import RefusalError

CARBON_MONOXIDE = "whose CO is read as carbon and oxygen (cobalt is Co)"
COBALT = "whose Co is read as cobalt (a carbonate is CO3)"

_H, _C, _N, _SN, _PR, _PO, _AC, _TS = 1, 6, 7, 50, 59, 84, 89, 117
SUSPECTS = frozenset({_C, _N, _PR, _PO, _AC, _SN, _TS, *map(NUMBER_OF.__getitem__, ("No", "Cn", "Nh", "Fl"))})
"""Elements without which, and without brackets and Co3, nothing here applies."""

_ORGANIC = frozenset(NUMBER_OF[s] for s in ("H", "C", "N", "O", "S", "I"))
_MOLECULES = frozenset(NUMBER_OF[s] for s in ("H", "C", "N", "O", "F", "S", "Cl", "Br", "I"))
_RARE_EARTHS = frozenset({21, 39, *range(57, 72)})
_CARBIDE_IODIDES = _RARE_EARTHS | {40, 72, 90}  # Zr6CI12
# Anions and ammonium whose capitals were lost, and fluorine as Fl, with what they are written with.
_CAPITALS = {
    "No": r"(?:^(?:Li|Na|K|Rb|Cs|Ag|Tl|NH4|H)|\()No[23]\b",
    "Cn": r"(?:^(?:Na|K|Cu|Ag|Au|H|KS|NaS|NH4S)|\()Cn(?:$|\))",
    "Nh": r"^Nh3$|\(Nh4\)|^Nh4(?=[A-Z])",
    "Fl": r"^(?:Li|Na|K|Rb|Cs|Be|Mg|Ca|Sr|Ba|Al|Zn|Pb)Fl[23]?$",
    "Po": r"^(?:(?:Li|Na|K|H|Al|Fe|Ga|La|B|Mn|Co|Ni|V|Ti)[0-9]?)+Po4$|\(Po4\)|^(?:Li|Na|K|Rb|Cs)Po3$",
}
_CHLORIDE_NAMES = """
HCl NH4Cl NCl3 SCl2 S2Cl2 SOCl2 SO2Cl2 ClO2 Cl2O HClO HClO2 HClO3 HClO4 NH4ClO4 CHCl3 CH2Cl2 CH3Cl CCl4 COCl2 N2H5Cl
CH3NH3Cl NOCl NO2Cl
"""
_CHLORIDES = frozenset(_CHLORIDE_NAMES.split())
_METALS = (
    "(?:Li|Na|K|Rb|Cs|Be|Mg|Ca|Sr|Ba|Sc|Y|La|Ce|Pr|Nd|Sm|Eu|Gd|Tb|Dy|Ho|Er|Tm|Yb|Lu|Ti|Zr|Hf|V|Nb|Ta|Cr|Mo|W|Mn|Re|Fe|"
    "Ru|Os|Co|Rh|Ir|Ni|Pd|Pt|Cu|Ag|Au|Zn|Cd|Hg|Al|Ga|In|Tl|Ge|Sn|Pb|Sb|Bi)"
)
_ANIONS = (
    r"(?:NO[23]|ClO[34]|IO3|BF4|PF6|[HB]?PO[34]|H2PO4|HSO4|SO[34]|NH3|H2O|CH3COO|CH3CO2|C2H3O2|HCOO|C5H7O2|AlO2|FeO2|CrO2)"
    r"[)\]]"
)
_CO = re.compile(rf"CO(?![a-z])(?P<n>[1-9][0-9]?/[1-9][0-9]?|{AMOUNT})?")
# Iron, nickel or cobalt is the balance, and nothing stands behind the last symbol; Ti7Al2Cu and the like are compounds.
_STEEL = re.compile(r"(?:Fe|Ni|Co)(?:[0-9]{1,2}(?:\.[0-9]+)?(?:Cr|Ni|Mn|Mo|Al|Si|V|Nb|Ti|Cu|Co|W|Fe|Zr|Sn|Ta)){2,}")
_SOLDER = re.compile(rf"Sn(?:(?:{AMOUNT})(?:Ag|Pb|Cu|Bi|Zn|In|Sb))+")
_GROUPS = (
    (
        re.compile(r"OAc(?![a-z])(?=[)\]]|[2-4]?(?:$|·))|[(\[]Ac[)\]]|^(?:Ac2O|HAc|AcO(?:H|Na|K|Li|NH4))$|\(AcO\)"),
        "Ac",
        "acetate (C2H3O2)",
    ),
    (
        re.compile(r"[(\[]OPr[)\]]|^PrOH$|^[(\[]?Pr[)\]]?4N(?:F|Cl|Br|I|OH|NO3|ClO4|BF4|PF6)$"),
        "Pr",
        "propyl (C3H7)",
    ),
    (re.compile(r"OTs(?![a-z0-9])|^Ts(?:O(?![a-z0-9])|Cl$|NH2$)|^Ts2O$"), "Ts", "tosyl (C7H7SO2), as in tosylate"),
)
_NICKEL = re.compile(r"NI(?=[A-Z(])(?!I[nr])")


def check_meaning(text: str, content: dict[int, float]) -> str:
    """Refuse a formula that is meant as another; return what a result should say of how it was read.

    Parameters
    ----------
    text : str
        Plain formula, with ``·`` between its parts.
    content : dict of int to float
        Its amounts as the grammar reads them.

    Returns
    -------
    str
        `CARBON_MONOXIDE`, `COBALT` or empty.

    Raises
    ------
    RefusalError
        With what is meant instead.
    """
    if len(content) < 2:
        return ""
    if not SUSPECTS.isdisjoint(content):
        if _SN in content:
            _refuse_solders(text)
        molecule = content.keys() <= _MOLECULES and not text.startswith("NIO")
        if _N in content and not molecule and _NICKEL.match(text):
            raise RefusalError(
                f"'NI' is nitrogen and iodine: did you mean 'Ni{text[2:]}'? If they are meant, write 'N1I'"
            )
        _refuse_groups(text, content)
        _refuse_rare(text, content)
        if _C in content:
            _refuse_chlorine(text, content)
            if "CO" in text:
                return _cobalt(text)
    if ")" in text or "]" in text:
        _refuse_percents(text)
    if "Co3" in text and re.fullmatch(r"(?:(?:Li|Na|K|Rb|Cs)2|Mg|Ca|Sr|Ba|Pb)Co3", text):
        return COBALT
    return ""


def _name(number: int) -> str:
    return next(name for name, z in NUMBER_OF_NAME.items() if z == number)


def _refuse_groups(text: str, content: dict[int, float]) -> None:
    if content.keys().isdisjoint((_PR, _AC, _TS)):
        return
    for pattern, symbol, meaning in _GROUPS:
        if pattern.search(text):
            raise RefusalError(
                f"'{symbol}' may be short for {meaning}: write that out; if the element is meant, write '{symbol}1'"
            )


def _refuse_rare(text: str, content: dict[int, float]) -> None:
    """Refuse rare elements that stand for a slip of capitals, such as ``KNo3`` and ``LiFePo4``."""
    for symbol, pattern in _CAPITALS.items():
        if NUMBER_OF[symbol] in content and re.search(pattern, text):
            meant = text.replace(symbol, "F" if symbol == "Fl" else symbol.upper())
            raise RefusalError(
                f"'{symbol}' is {_name(NUMBER_OF[symbol])}: did you mean '{meant}'? If the element is meant, write its "
                f"amount with a decimal point, {symbol}1.0"
            )


def _refuse_chlorine(text: str, content: dict[int, float]) -> None:
    """Refuse ``CI`` with a capital I, and ``C1`` with the digit 1, where ``Cl`` is meant."""
    meant = re.sub(r"CI(?![a-z])", "Cl", text)
    if meant != text:
        ends = re.search(r"(?<=[A-Za-z0-9)\]])CI(?:[0-9]?(?:$|·|\()|O[2-4]?(?:$|\)|·))", text)
        cluster = not _CARBIDE_IODIDES.isdisjoint(content) and not re.search("^[A-Z][a-z]?CI[34]$|OCI$", text)
        ionic = ends and not content.keys() <= _ORGANIC and not cluster
        if ionic or meant in _CHLORIDES:
            raise RefusalError(
                f"'CI' is carbon and iodine, with a capital I: did you mean '{meant}'? If they are meant, write C1I"
            )
    typed = re.fullmatch(r"(?P<head>.*[A-Za-z0-9)\]])C1(?P<n>[2-6]?)(?P<rest>O[1-4]?)?", text)
    if typed is None or (_CARBIDE_IODIDES & content.keys() and not typed["n"] and not typed["head"].endswith("O")):
        return
    head, amounts = typed["head"], re.findall("[0-9]+", typed["head"])
    hydrogen = _H in content and not re.fullmatch(r"(?:CH3)?NH[34].*|H", head)
    carbide = re.fullmatch("Li|Na|K|Rb|Cs|Ca|Sr|Ba" if typed["n"] else f"{_METALS}|Si|B|U|Th", head)
    salt = re.fullmatch("Li|Na|K|Rb|Cs|Ag|Tl|Cu|H|NH4|CH3NH3", head)
    several = len(content) > 2 and "Pb" not in head and "Sn" not in head and "Bi" not in head and not typed["rest"]
    if "1" in amounts or any(int(n) > 4 for n in amounts) or hydrogen or "." in text:
        return
    if typed["n"] and (carbide or (several and re.search("[A-Z][a-z]?$", head) is None)):
        return
    if not typed["n"] and not salt and not (head.endswith("O") and re.fullmatch(f"{_METALS}O", head)):
        return
    raise RefusalError(
        f"'C1{typed['n']}' may have the digit 1 for the letter l: did you mean "
        f"'{head}Cl{typed['n']}{typed['rest'] or ''}'? If carbon is meant, write C1{typed['n']}.0"
    )


def _cobalt(text: str) -> str:
    """Refuse ``CO`` where only cobalt makes sense; the note where both readings are compounds."""
    note = ""
    parts = text.split("·")
    for part in parts:
        for found in _CO.finditer(part):
            before, after = part[: found.start()], part[found.end() :]
            hydrated = len(parts) > 1 and parts[-1].endswith("H2O")
            if _is_cobalt(before, found["n"] or "", after, part) or (hydrated and not before and "NH2" not in part):
                whole = text.replace(part, f"{before}Co{found['n'] or ''}{after}", 1)
                raise RefusalError(
                    f"'CO' is carbon and oxygen, cobalt is Co: did you mean '{whole}'? If "
                    f"carbon is meant, give its amount, '{before}C1{part[len(before) + 1 :]}'"
                )
            if _may_be_cobalt(before, found["n"] or "", after):
                note = CARBON_MONOXIDE
    return note


def _is_cobalt(before: str, n: str, after: str, part: str) -> bool:
    """Whether the CO between `before` and `after` cannot be carbon."""
    opening = not before or before[-1] in "(["
    if opening and after[:1] in (")", "]") and before:  # carbonyls and carbonates
        return False
    hydrogen = re.search("H(?![a-z])", part) is not None
    oxygen = re.match(r"O(?![a-z])", after) is not None
    if oxygen and not hydrogen:
        closed = opening and before and after.startswith(("O)", "O]")) and not n  # oxalates (COO)2
        return not closed and (opening or n != "3")
    if opening and re.match(rf"[(\[]?(?:OH?[)\]]|{_ANIONS})", after):
        return True
    if opening and re.match(r"\((?:CN|N3|SCN)\)|(?:Cl|Br|I)[2-4]?$", after):
        return True
    again = re.search("O(?![a-z])", after) is not None
    metal = re.match(rf"{_METALS}(?![a-z])", after) is not None
    if hydrogen:
        return oxygen and opening and after.startswith(("OOH", "O(OH)"))
    if opening and again and not after.startswith(("(", "[")):
        return True
    if metal and (again or not opening or after[0] < "O"):
        return n != "3" or opening
    if again and ("." in n or "/" in n):
        return True
    return _is_alloy(before, n, after)


def _is_alloy(before: str, n: str, after: str) -> bool:
    """Whether amounts without carbon are those of an alloy of cobalt: they add up to 100 or 1, or as in SmCo5."""
    lone = re.fullmatch(r"([A-Z][a-z]?)([0-9]*)", before)
    if lone and not after and NUMBER_OF.get(lone[1]) in _RARE_EARTHS and n.isdigit():
        return 3 * int(lone[2] or 1) + 4 < 2 * int(n)
    rest = re.findall(rf"([A-Z][a-z]?)({AMOUNT})?", before + after)
    if not n or "/" in n or not all(amount for _, amount in rest) or not rest:
        return False
    total = float(n) + sum(float(amount) for _, amount in rest)
    return abs(total - 100) < 0.1 or abs(total - 1) < 1e-3


def _may_be_cobalt(before: str, n: str, after: str) -> bool:
    """Whether Co would make a compound as well as CO does."""
    if not before:
        if n:
            return False
        return re.match(r"(?:F2|S|Se|Te)$", after) is not None or (
            re.match(rf"(?:{_METALS}|Si|As|P)(?![a-z])[0-9]*$", after) is not None
        )
    lone = re.fullmatch(r"([A-Z][a-z]?)[0-9]?", before)
    return bool(lone and not after and NUMBER_OF.get(lone[1]) in _RARE_EARTHS and n == "2")


def _refuse_solders(text: str) -> None:
    """Refuse ``Sn3.5Ag``: tin is the balance, and each amount stands before its symbol."""
    if _SOLDER.fullmatch(text) is not None and re.search(r"[0-9]{2}|\.", text):
        _refuse_balance(text, "a solder")


def refuse_steels(text: str) -> None:
    """Refuse ``Fe18Cr8Ni``: iron is the balance, and each amount stands before its symbol."""
    if _STEEL.fullmatch(text) is not None:
        _refuse_balance(text, "an alloy")


def _refuse_balance(text: str, kind: str) -> None:
    marked = re.sub(r"([0-9.]+)", r"-\1", text)
    raise RefusalError(
        f"it may be {kind} with the amounts before their symbols: write '{marked}' and pass amounts='weight' "
        f"(--amounts weight) for percent by weight; if the amounts count what stands before them, write '{text}1'"
    )


def _refuse_percents(text: str) -> None:
    """Refuse percents in a bracket without a multiplier beside small amounts, as in ``Pb(Zr52Ti48)O3``."""
    for found in re.finditer(r"[(\[]((?:[A-Z][a-z]?[1-9][0-9]?(?:\.[0-9]+)?){2,})[)\]](?![0-9.])", text):
        amounts = re.findall(r"([A-Z][a-z]?)([0-9.]+)", found[1])
        outside = text[: found.start()] + "·" + text[found.end() :]
        rest = re.sub("[^0-9.]+", " ", outside).split()
        small = all(float(amount) <= 12 for amount in rest if amount != ".")
        if outside == "·" or not small or abs(sum(float(amount) for _, amount in amounts) - 100) > 0.1:
            continue
        shares = "".join(f"{symbol}{float(amount) / 100:.6g}" for symbol, amount in amounts)
        raise RefusalError(
            f"the amounts in '{found.group()}' add up to 100 beside small ones: did you mean "
            f"'{text[: found.start()]}({shares}){text[found.end() :]}'? If atoms are counted, write the amounts "
            "without brackets"
        )
