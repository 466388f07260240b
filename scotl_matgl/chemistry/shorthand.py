"""Texts that the grammar reads, but that chemists write for something else: OAc, NaCI, CO(NO3)2, Pb(Zr52Ti48)O3."""

from __future__ import annotations

import math
import re

from scotl_matgl.chemistry.elements import NUMBER_OF
from scotl_matgl.chemistry.grammar import AMOUNT
from scotl_matgl.chemistry.refusals import RefusalError

SUSPECTS = frozenset(NUMBER_OF[symbol] for symbol in ("C", "N", "Pr", "Po", "Ac", "No", "Cn", "Ts"))
"""Elements of which one is there wherever something else may be meant, but for percents in a bracket."""

# Anions whose capitals were lost, behind the metals that they are written with.
_RARE = {"No": "nobelium", "Cn": "copernicium", "Po": "polonium"}
_CAPITALS = re.compile(
    r"(?:^(?:Li|Na|K|Rb|Cs|Ag|Tl|NH4|H)|\()(?P<symbol>No)[23]\b|(?:^(?:Na|K|Cu|Ag|Au|H)|\()(?P<symbol2>Cn)(?:$|\))"
    r"|^(?:(?:Li|Na|K|H|Al|Fe|Ga|La|B|Mn|Co|Ni|V|Ti)[0-9]?)+(?P<symbol3>Po)4$|\((?P<symbol4>Po)4\)"
)

_GROUPS = (
    (re.compile(r"OAc(?![a-z])|\(Ac\)|^(?:AcOH|HAc|HOAc|Ac2O)$"), "Ac", "acetate", "C2H3O2"),
    (re.compile(r"\(OPr\)|^\(?Pr4N(?=\)|Cl|Br|I(?![nr])|F(?!e)|OH|BF4|PF6|ClO4|$)"), "Pr", "propyl", "C3H7"),
    (re.compile(r"OTs(?![a-z])|TsO"), "Ts", "tosylate", "C7H7SO3"),
)
# Elements of molecules, in which C and I may stand side by side.
_MOLECULES = frozenset(NUMBER_OF[symbol] for symbol in ("H", "C", "N", "O", "F", "S", "Cl", "Br", "I"))
# Which have clusters around carbon, such as Zr6CI12.
_CARBIDE_IODIDES = frozenset({21, 39, *range(57, 72), 40, 72, 90})
# At the end of a part without hydrogen: CH6NPbI3 and Pt(CO)I2 are listed as H6PbCI3N and PtCI2O.
_IODINE_FOR_L = re.compile(r"^(?:CH3NH3|CH6N)?(?:[^HI·]|H[a-z]|I[nr])*CI[0-9]*(?:$|·)")
_COBALT = re.compile(r"CO(?=\((?!NH2\)|CH3\)|C2H5\))|(?:Cl|Br|I)[2-4]?$|3O4$)")
_NICKEL = re.compile(r"NI(?=[A-Z(])(?!I[nr])")
_WITHOUT_FACTOR = re.compile(rf"[(\[](?P<content>(?:[A-Z][a-z]?{AMOUNT}){{2,}})[)\]](?![0-9./])")
_COUNTED = re.compile(rf"([A-Z][a-z]?)({AMOUNT})")
_MOST_BESIDE = 20.0


def refuse_shorthand(text: str, content: dict[int, float]) -> None:
    """Refuse organic groups that read as rare elements, and capitals that stand for other letters.

    Parameters
    ----------
    text : str
        The formula.
    content : dict of int to float
        What it was read as; it has one of `SUSPECTS`.

    Raises
    ------
    RefusalError
        With both readings.
    """
    if len(content) < 2:  # an element
        return
    for pattern, symbol, name, formula in _GROUPS:
        if NUMBER_OF[symbol] in content and pattern.search(text):
            raise RefusalError(
                f"'{symbol}' may be short for {name} ({formula}): write that out; if the element is meant, write "
                f"'{symbol}1'"
            )
    metallic = not _MOLECULES.issuperset(content)
    slip = _CAPITALS.search(text)
    if slip:
        at = next(slip.start(group) for group in _CAPITALS.groupindex if slip[group])
        symbol = text[at : at + 2]
        meant = f"{text[:at]}{symbol.upper()}{text[at + 2 :]}"
        raise RefusalError(
            f"'{symbol}' is {_RARE[symbol]}: did you mean '{meant}'? If the element is meant, write its amount with a "
            f"decimal point, {symbol}1.0"
        )
    if metallic and _CARBIDE_IODIDES.isdisjoint(content) and _IODINE_FOR_L.search(text):
        meant = re.sub(r"CI(?![nr])", "Cl", text)
        raise RefusalError(f"'CI' is carbon and iodine: did you mean '{meant}'? If they are meant, write 'C1I'")
    cobalt = _COBALT.match(text) or (metallic and re.match(r"CO(?=[A-Z(])", text))
    oxide = re.search(r"COO(?=[0-9])", text) if metallic else None
    if cobalt or oxide:
        at = 0 if oxide is None else oxide.start()
        meant = f"{text[:at]}Co{text[at + 2 :]}"
        raise RefusalError(f"'CO' is carbon and oxygen: did you mean '{meant}'? If they are meant, write 'C1O'")
    if (metallic or text.startswith("NIO")) and _NICKEL.match(text):
        raise RefusalError(f"'NI' is nitrogen and iodine: did you mean 'Ni{text[2:]}'? If they are meant, write 'N1I'")


def refuse_percent_in_bracket(text: str, content: dict[int, float]) -> None:
    """Refuse amounts in a bracket that add up to 100, without a factor behind it, beside small amounts.

    Raises
    ------
    RefusalError
        With the formula in shares.
    """
    for found in _WITHOUT_FACTOR.finditer(text):
        counted = [(symbol, float(amount)) for symbol, amount in _COUNTED.findall(found["content"])]
        inside = {NUMBER_OF[symbol] for symbol, _ in counted if symbol in NUMBER_OF}
        beside = [amount for z, amount in content.items() if z not in inside]
        if (
            math.isclose(sum(amount for _, amount in counted), 100, abs_tol=0.15)
            and beside
            and max(beside) <= _MOST_BESIDE
        ):
            shares = "".join(f"{symbol}{amount / 100:g}" for symbol, amount in counted)
            raise RefusalError(
                f"the amounts in '{found.group()}' add up to 100, and stand beside small ones: did you mean "
                f"'{text[: found.start()]}({shares}){text[found.end() :]}'?"
            )


def symbols_behind_amounts(text: str) -> str:
    """Formula of percents before their symbols, as in ``63Sn37Pb``; empty if it is nothing of the kind."""
    if re.fullmatch(rf"(?:{AMOUNT}[A-Z][a-z]?){{2,}}", text) is None:
        return ""
    counted = re.findall(rf"({AMOUNT})([A-Z][a-z]?)", text)
    if not math.isclose(sum(float(amount) for amount, _ in counted), 100, abs_tol=1):
        return ""
    return "".join(f"{symbol}{amount}" for amount, symbol in counted if symbol in NUMBER_OF)
