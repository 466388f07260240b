"""Why a text is no formula, as a sentence with the remedy, and amounts that no compound has."""

from __future__ import annotations

import re

from scotl_matgl.chemistry.elements import NUMBER_OF, NUMBER_OF_NAME, SYMBOL_BY_LOWER_CASE, SYMBOLS
from scotl_matgl.chemistry.grammar import AMOUNT, METALLOIDS, GrammarError, Pairs, add_up, read_groups, resolve_dots
from scotl_matgl.chemistry.names import written_out
from scotl_matgl.chemistry.refusals import RefusalError, charge_message, isotope_message

_PLACEHOLDERS = frozenset({*"AEGJLMQRXZ", "Ae", "An", "Lm", "Ln", "Ma", "Me", "Tr", "Va", "Vac", "Vc", "Xa", "Xx"})

_NONMETALS = frozenset(
    NUMBER_OF[s] for s in ["H", "He", "N", "O", "F", "Ne", "P", "S", "Cl", "Ar", "Se", "Br", "Kr", "I", "Xe", "Rn"]
)
_CARBON, _OXYGEN, _HYDROGEN = 6, 8, 1
# Whose oxides have two atoms of it for one of oxygen: 'Na20' may be 'Na2O'.
_MONOVALENT = frozenset(
    NUMBER_OF[s] for s in ["H", "Li", "Na", "K", "Rb", "Cs", "Cu", "Ag", "Tl", "N", "Cl", "F", "Au"]
)

# Of oxygen, MgO6 is the most for one other atom in the published tables.
_MOST_OXYGEN = 6.0
_SYMBOL_AND_NUMBER = re.compile(r"(?P<before>[A-Z][a-z]?|[)\]}(\[{])(?P<n>[0-9]+)(?![0-9.])")


def explain(text: str, found: str) -> str:
    """Likeliest reason for which `text` is not a formula, with the remedy."""
    if re.fullmatch(r"[+-]?[0-9.,]+(?:e[+-]?[0-9]+)?%?", text):
        return "it is a number, not a formula: is this the right column?"
    if found == "leading zero" and not re.search(r"[(\[]0+[0-9]{1,3}[)\]]$", text):
        hint = zero_for_oxygen(text)
        return "an amount starts with the digit 0" + (
            f", perhaps for the letter O; did you mean '{hint}'?"
            if hint
            else ": write it without, or with a point, 0.2"
        )
    if re.match(r"0[A-Z]|.*[(\[{]0", text) and (hint := zero_for_oxygen(text)):
        return f"the digit 0 stands where the letter O may be meant; did you mean '{hint}'?"
    name, meaning, formula = written_out(text)
    if name and _reads(formula):
        return f"'{name}' may be short for {meaning}: write it out, '{formula}'"
    return _amount_reason(text) or _symbol_reason(text, found)


def _amount_reason(text: str) -> str:
    """Reasons that lie in amounts, charges and what joins parts; empty if there is none."""
    if len(re.findall(r"(?!O)[A-Z][a-z]?[1-8][+](?![a-zα-ω.])", text)) > 1:  # Mn2+Fe3+2O4
        return charge_message()
    joined = re.search(r"(?<=[A-Za-z0-9)\]}])(?:[/@|&]|\+(?=[0-9.]*[A-Z(\[])(?!.*[+-]$))", text)
    if joined:
        return f"a '{joined.group()}' joins parts of it: write one formula with the amount of each element"
    mixture = re.fullmatch(r"(?:[(\[]?[0-9.]+[)\]]?[A-Z(\[][^-]*-)+[(\[]?[0-9.]+[)\]]?[A-Z(\[][^-]*", text)
    if mixture and (meant := _as_mixture(text)):
        return f"a '-' joins parts of it: did you mean '{meant}'?"
    variable = _variable_amount(text)
    if variable:
        return f"'{variable}' is a variable amount: write the number, as in 'Li1.05Mn1.95O4'"
    if re.search(r"(?<![0-9.])-\.?[0-9]+(?:\.[0-9]+)?[A-Z(\[{]", text):
        return "an amount is negative: amounts are positive; if the '-' joins two parts, write one formula with amounts"
    if re.search(r"[0-9][+-]\.?[0-9]+(?:\.[0-9]+)?(?:[A-Z(\[{]|$)", text) and not re.search(r"[0-9][+-][0-9]$", text):
        return (
            "an amount is written as a sum or difference: write the result, 'Li0.8' instead of 'Li1-0.2'; if the sign "
            "joins two compounds, write '·' for it"
        )
    if "^" in text or "+" in text or re.search(r"-[0-9]*(?:$|[)\]}])", text):
        return charge_message()
    plane = re.search(r"[(\[][0-9]{3,4}[)\]]$", text)
    if plane and re.match("[A-Z]", text):
        return f"'{plane.group()}' at the end names a surface or a direction: leave it out"
    uncertain = re.search(r"[0-9]\([0-9]{1,2}\)", text)
    if uncertain:
        return f"'{uncertain.group()[1:]}' looks like the uncertainty of an amount: leave it out"
    return ""


def _as_percents(text: str) -> str:
    """Mixture of two parts whose coefficients add up to 100, such as ``63Na2O37SiO2``; empty if it is none."""
    first = re.match("[1-9][0-9]?", text)
    rest = f"{100 - int(first[0])}" if first else ""
    found = re.fullmatch(rf"([0-9]+[A-Z].*[A-Za-z)\]])({rest}[A-Z(].*)", text) if rest else None
    meant = f"{found[1]}·{found[2]}" if found else ""
    return meant if meant and _reads(meant) else ""


def _as_mixture(text: str) -> str:
    meant = re.sub(r"[(\[]([0-9.]+)[)\]](?=[A-Z(\[])", r"\1", text).replace("-", "·")
    return meant if _reads(meant) else ""


def _symbol_reason(text: str, found: str) -> str:
    """Reasons that lie in symbols and words."""
    if found == "leading coefficient":
        rest = re.sub(rf"^{AMOUNT}", "", text)
        if mixed := _as_percents(text):
            return f"it may be a mixture in percent: did you mean '{mixed}'?"
        if _reads(rest):
            return f"it starts with a coefficient: write the formula of one unit, '{rest}'"
        return "it starts with a number and no formula follows: is it a designation? Write the formula of the material"
    if re.fullmatch("[A-Z]{2,5}(?:[1-9]{3,4}|[1-9][0-9]{2}L[NC]?)", text) and not _reads(text):
        return f"'{text}' looks like a designation and no formula: write the formula of the material"
    if text.lower() in NUMBER_OF_NAME:
        return f"'{text}' is the name of an element: write '{SYMBOLS[NUMBER_OF_NAME[text.lower()] - 1]}'"
    if re.fullmatch(r"[A-Z][a-z]{4,}|[a-z]{7,}", text):
        return f"'{text[:40]}' looks like a word: remove names of compounds and phases, and write the formula"
    if beside := _name_beside(text):
        return beside
    suggestion = _suggestion(text)
    hint = f"; did you mean '{suggestion}'?" if suggestion else ""
    carbon = suggestion.replace("Co", "CO")
    if text.islower() and carbon != suggestion and _reads(carbon):
        hint = f"; did you mean '{carbon}' or '{suggestion}'?"
    for symbol in re.findall(r"[A-Z][a-z]*|[a-z]+", text):
        if symbol in NUMBER_OF or (symbol[:2] in NUMBER_OF and len(symbol) == 3 and not hint):
            continue
        if symbol in ("D", "T"):
            return isotope_message(symbol) + (f". Or did you mean '{suggestion}'?" if hint else "")
        if hint and symbol != "Vac":
            return f"'{symbol}' is not an element symbol" + hint
        if symbol in ("Va", "Vac"):
            return f"'{symbol}' is a placeholder for a vacancy, not an element: leave it out with its amount"
        if symbol in _PLACEHOLDERS or symbol.startswith("Xx"):
            return f"'{symbol}' is a placeholder, not an element: write one row for each real element"
        if len(symbol) > 3:
            return f"'{symbol[:40]}' looks like a word: remove names of compounds and phases, and write the formula"
        return f"'{symbol}' is not an element symbol: correct it or leave the row out"
    if "-" in text:
        return "a '-' joins parts of it: write one formula with the amount of each element, 'Fe0.7Ni0.3'" + hint
    return (found or "it does not follow the grammar of formulas") + (hint or ": write it as 'Fe2O3' or 'CuSO4·5H2O'")


def _name_beside(text: str) -> str:
    """Reason where a formula is followed by a name, such as ``ZnS_wz`` or ``Li7La3Zr2O12(LLZO)``; else empty."""
    surface = re.fullmatch(r"(?P<rest>[A-Z].*[A-Za-z0-9])T[xz_]+", text)
    if surface and _reads(surface["rest"]):
        return "'Tx' stands for surface groups of unknown amount: write them out, as in 'Ti3C2O2'"
    found = re.fullmatch(
        r"(?P<rest>[A-Z].*?)(?:[ _](?P<word>[a-z]{2,12})|[(\[](?P<name>[A-Z][A-Za-z]{1,7})[)\]])", text
    )
    if found is None or not _reads(found["rest"]) or _reads(found["word"] or found["name"]):
        return ""
    name = found["word"] or found["name"]
    return f"'{name}' behind it names a phase or the compound: leave it out and write '{found['rest']}'"


def _variable_amount(text: str) -> str:
    """First amount that holds a letter, such as ``1+x`` or the ``x`` of ``LixCoO2``."""
    match = re.search(r"[0-9.]*[+\-±][0-9.]*[a-zα-ω](?![a-z])|(?<=[)\]}·0-9])[m-nu-z](?![a-z])|[α-ω]", text)
    if match and not text.islower():
        return match.group()
    for symbol in re.findall(r"[A-Z][a-z]+", text):
        if symbol not in NUMBER_OF and symbol[:-1] in NUMBER_OF and symbol[-1] in "uvwxyz":
            return str(symbol[-1])
    return ""


def _reads(text: str) -> bool:
    try:
        add_up(read_groups(resolve_dots(text))[0])
    except (GrammarError, RefusalError):
        return False
    return True


def _suggestion(text: str) -> str:
    """Formula that the author probably meant: mark-up removed, capitals put right; empty if there is none."""
    bare = re.sub(r"</?su[bp]>|[_$~]|\\ce(?=\{)|\{(?=[0-9.]+\})|(?<=[0-9])\}", "", text)
    bare = bare[1:-1] if text.startswith("\\ce{") and bare.startswith("{") else bare
    alike = re.sub(
        "A[I1]|T[I1](?=[A-Z0-9]|$)", lambda run: run.group()[0] + "l", re.sub("(?<=[a-z0-9])l(?![a-z])", "I", bare)
    )
    for candidate in (bare, alike, re.sub(r"[A-Za-z]+", lambda run: _recapitalised(run.group()), bare)):
        if candidate != text and _reads(candidate):
            return candidate
    return ""


def _recapitalised(run: str) -> str:
    """Split a run of letters into the fewest symbols, keeping the author's capitals where there is a choice."""
    # Symbols, changed capitals, and length of the last symbol of the best split of each beginning.
    best: list[tuple[int, int, int] | None] = [(0, 0, 0)] + [None] * len(run)
    for end in range(1, len(run) + 1):
        for length in (1, 2):
            before = best[end - length] if end >= length else None
            symbol = SYMBOL_BY_LOWER_CASE.get(run[end - length : end].lower())
            if before is None or symbol is None:
                continue
            changed = sum(a != b for a, b in zip(symbol, run[end - length : end], strict=True))
            option = (before[0] + 1, before[1] + changed, length)
            current = best[end]
            if current is None or option[:2] < current[:2]:
                best[end] = option
    symbols = []
    end = len(run)
    while end:
        last = best[end]
        if last is None:
            return run
        symbols.append(SYMBOL_BY_LOWER_CASE[run[end - last[2] : end].lower()])
        end -= last[2]
    return "".join(reversed(symbols))


def zero_for_oxygen(text: str) -> str:
    """Formula with the letter O where the digit 0 may stand for it; empty if that gives none."""

    def letter(match: re.Match[str]) -> str:
        digits = re.fullmatch(r"([1-9]?)0([1-9]|1[0-9])?", match["n"])
        if digits is None or match["before"] == "O" or match["n"] == "10":
            return match.group()
        return f"{match['before']}{digits[1]}O{digits[2] or ''}"

    meant = _SYMBOL_AND_NUMBER.sub(letter, re.sub(r"^0(?=[A-Z])", "O", text))
    return meant if meant != text and _reads(meant) else ""


def refuse_zeros(text: str, pairs: Pairs) -> None:
    """Refuse a zero that may be the letter O; an element with the amount zero is the end member of a series."""
    if all(amount for _, amount in pairs):
        return
    bare = re.search(r"([A-Z][a-z]?|[)\]}])0(?![0-9.])", text)
    if bare is None:
        return
    elements = {z for z, amount in pairs if amount}
    hundred = abs(sum(amount for _, amount in pairs) - 100) < 0.15
    series = hundred or any(mark in text for mark in ".·") or _OXYGEN in elements or ("100" in text and ")" in text)
    if series and len(elements) > 1:
        return
    hint = zero_for_oxygen(text)
    what = f"the amount of {bare[1]} is zero" if bare[1].isalpha() else "an amount is zero"
    raise RefusalError(
        f"{what}: leave {bare[1] if bare[1].isalpha() else 'that part'} out"
        + (f", or did you mean '{hint}'?" if hint else "")
    )


def refuse_amounts(text: str, content: dict[int, float]) -> None:
    """Refuse amounts that are a designation, a lost decimal point, or a digit 0 for the letter O.

    An amount that is written with a decimal point (``Al107.0Mg1``) is meant as it stands.
    """
    amount = max(content.values())
    if amount != int(amount) or (".0" in text and re.search(r"[0-9]\.0(?![0-9])", text)):
        return
    if len(content) == 1:
        _refuse_single(text, *next(iter(content.items())))
        return
    if amount <= 100 and content.get(_OXYGEN) != amount:
        return
    largest = max(content, key=content.__getitem__)
    others = [value for z, value in content.items() if z != largest]
    if amount > 100 and max(others) < 10 and largest != _CARBON and not _is_cell(largest, amount + sum(others)):
        _refuse_large(text, largest, amount, "stands beside amounts below 10: is it a designation, or is a point lost?")
    if largest == _OXYGEN and _HYDROGEN not in content and amount > _MOST_OXYGEN * sum(others):
        _refuse_large(text, largest, amount, "is more than any compound has: is a decimal point lost?")


def _refuse_single(text: str, z: int, amount: float) -> None:
    hint = zero_for_oxygen(text)
    if amount == 20 and z in _MONOVALENT and hint:
        raise RefusalError(
            f"'{text}' may have the digit 0 for the letter O: did you mean '{hint}'? For the element write "
            f"'{SYMBOLS[z - 1]}'"
        )
    free = z == _CARBON or (z in METALLOIDS and amount < 1000) or _is_cell(z, amount)
    if amount > 100 and not free:
        _refuse_large(text, z, amount, f"is a designation or a slip; for the element write '{SYMBOLS[z - 1]}'.")


def _is_cell(z: int, atoms: float) -> bool:
    """Whether atoms of a metal fill a supercell: fewer than a thousand, and a product of twos, threes and fives."""
    if z in _NONMETALS or not (atoms < 1000 and atoms == int(atoms)):
        return False
    rest = int(atoms)
    for prime in (2, 3, 5):
        while rest % prime == 0:
            rest //= prime
    return rest == 1


def _refuse_large(text: str, z: int, amount: float, what: str) -> None:
    symbol = SYMBOLS[z - 1]
    hint = zero_for_oxygen(text)
    if not hint and z == _OXYGEN:
        point = re.search(r"O([0-9])([0-9]+)(?![0-9.])", text)
        hint = f"{text[: point.start(2)]}.{text[point.start(2) :]}" if point and amount == int(amount) else ""
    raise RefusalError(
        f"the amount of {symbol}, {amount:g}, {what} "
        + (f"Did you mean '{hint}'? " if hint else "Write the formula of the compound. ")
        + f"If the amount is meant, write it with a decimal point, {symbol}{amount:.1f}"
    )
