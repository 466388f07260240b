"""The grammar of formulas: symbols, amounts, brackets and separators, and brackets that are shares of an alloy.

An amount after a bracket multiplies what is inside, as in ``Ca(OH)2``. Tables of alloys write shares in the same way:
``(Fe72Mo4B24)96Dy4`` is 96 % of an alloy and 4 % of dysprosium. A bracket is read as a share if the amounts outside add
up to 100 or to 1, those inside do not add up to 1, and what is inside is an alloy: its amounts add up to 100, or it
holds metals alone in equal amounts, or at least four elements, or amounts that are not whole. What is inside a compound
(``(PbTe)97(AgSbTe2)3``) is multiplied as ever, and what may be either (``(Ni3Al)95Cr5``) is refused with both readings.
"""

from __future__ import annotations

import math
import re
import unicodedata
from collections.abc import Iterable
from dataclasses import dataclass, field

from scotl_matgl.chemistry.elements import NUMBER_OF, SYMBOLS
from scotl_matgl.chemistry.refusals import RefusalError

# Below this an amount is noise of a calculation and not a constituent; the smallest real dopings are around 1e-6.
SMALLEST_AMOUNT = 1e-8

AMOUNT = r"(?:(?:0|[1-9][0-9]*)(?:\.[0-9]+)?|\.[0-9]+)(?:e[+-]?[0-9]+|E[+-][0-9]+)?"
PAIR = re.compile(rf"([A-Z][a-z]?)({AMOUNT})?")

VACANCY = "□"

# One level of round brackets, as in most formulas that have any.
_SIMPLE = re.compile(rf"(?:[A-Z][a-z]?(?:{AMOUNT})?|\((?:[A-Z][a-z]?(?:{AMOUNT})?)+\)(?:{AMOUNT})?)+")
_SIMPLE_ITEM = re.compile(rf"(?:([A-Z][a-z]?)|\(([^()]+)\))({AMOUNT})?")

_TOKEN = re.compile(
    r"(?P<symbol>[A-Z][a-z]?|□)"
    rf"|(?P<number>[1-9][0-9]{{0,2}}/[1-9][0-9]{{0,2}}(?![0-9.])|{AMOUNT})"
    r"|(?P<open>[(\[{])|(?P<close>[)\]}])|(?P<sep>·)"
)
_CLOSING = {"(": ")", "[": "]", "{": "}"}
_LONE_SEPARATOR = "a separator ('·', '*' or '.') has nothing on one side: remove it or complete the formula"

# A dot, a coefficient without a leading zero (or 0.5 and the like), and water, at the very end.
_WATER = re.compile(r"\.(?P<n>[1-9]/[1-9]|(?:0\.|[1-9][0-9]*\.?)[0-9]*)(?P<w>H2O|\(H2O\)|\[H2O\]|\{H2O\})$")
# Oxygen in double figures and water behind it: 'CuSO4·5H2O' after a passage through a narrow character set.
_LOST_DOT = re.compile(r"O(?P<n>[1-9][0-9]+)(?P<w>H2O|\(H2O\))$")
_SINGLE_DOT = re.compile(r"(?P<head>[^.]*[1-9][0-9]*)\.(?P<tail>[1-9][0-9]*[A-Z(\[{][^.]*)")

# With one of these a bracket is a compound, whatever its amounts.
_ANIONS = frozenset(
    NUMBER_OF[s] for s in ["H", "N", "O", "F", "S", "Cl", "Se", "Br", "Te", "I", "He", "Ne", "Ar", "Kr", "Xe", "Rn"]
)
METALLOIDS = frozenset(NUMBER_OF[s] for s in ["B", "C", "Si", "P", "Ge", "As", "Sb"])

Pairs = list[tuple[int, float]]


class GrammarError(Exception):
    """What stopped the strict reader; the likeliest cause behind it is found in `reasons`."""


def is_doubtful(text: str) -> bool:
    """Whether a formula without brackets needs the rule for the full stop, or may have lost a ``·``."""
    if "." in text and (_WATER.search(text) or _SINGLE_DOT.fullmatch(text)):
        return True
    return text.endswith("H2O") and _LOST_DOT.search(text) is not None


def resolve_dots(text: str) -> str:
    """Turn every full stop that separates into ``·``; the rule is in the docstring of `formulas`."""
    text = re.sub(r"\.(?![0-9])", "·", text)
    water = _WATER.search(text)
    if water:
        head = text[: water.start()]
        # After '·0' or '·1' the point belongs to the amount of water.
        if not re.search(r"(?<![0-9.])0$|·[0-9]+$", head):
            if "." in head:
                raise RefusalError(
                    f"the '.' before '{water['n']}{water['w']}' may be a decimal point or may add water: write "
                    f"'{head}·{water['n']}{water['w']}' for water, '{head}.{water['n']}H2O1' for a decimal amount"
                )
            return f"{head}·{water['n']}{water['w']}"
    lost = _LOST_DOT.search(text)
    if lost:
        oxygen, head = lost["n"], text[: lost.start()]
        raise RefusalError(
            f"'O{oxygen}' before '{lost['w']}' looks as if a '·' had been lost: "
            f"write '{head}O{oxygen[0]}·{oxygen[1:]}H2O' or '{head}O{oxygen}·H2O'"
        )
    single = _SINGLE_DOT.fullmatch(text)
    if single and not re.search(r"·[0-9]+$", single["head"]):
        again = {m[0] for m in PAIR.findall(single["head"])} & {m[0] for m in PAIR.findall(single["tail"])}
        if again:
            head, tail = single["head"], single["tail"]
            decimal = re.sub("^[0-9]+", lambda digits: digits.group() + "0", tail)
            raise RefusalError(
                f"the '.' may be a decimal point or may add '{tail}' (both sides hold {', '.join(sorted(again))}): "
                f"write '{head}·{tail}' for an addition compound, '{head}.{decimal}' for a decimal amount"
            )
    return text


@dataclass(slots=True)
class _Item:
    """One symbol or bracket of a level, and the amount behind it."""

    content: Pairs
    bracket: bool
    factor: float = 1.0
    counted: bool = False


@dataclass(slots=True)
class _Reader:
    """State of one pass: the stack of open brackets, and what has been read."""

    whole: Pairs = field(default_factory=list)
    coefficient: float = 1.0
    level: list[_Item] = field(default_factory=list)
    stack: list[tuple[str, list[_Item]]] = field(default_factory=list)
    shares: bool = False

    def begin_part(self, value: str, *, alone: bool) -> None:
        if alone:
            raise GrammarError("leading coefficient")
        self.coefficient = as_number(value)
        if not (self.coefficient == 0 or SMALLEST_AMOUNT < self.coefficient < math.inf):
            raise RefusalError(f"the coefficient {value} is not a positive amount: leave that part out")

    def number(self, value: str) -> None:
        item = self.level[-1] if self.level else None
        if item is None or item.counted:
            raise GrammarError(f"the amount {value} follows nothing that it could count")
        item.factor, item.counted = as_number(value), True

    def close(self, value: str) -> None:
        if not self.stack or _CLOSING[self.stack[-1][0]] != value:
            raise RefusalError(f"the '{value}' closes no bracket of its kind: every bracket needs its partner")
        if not self.level:
            raise RefusalError("a pair of brackets is empty: remove it or fill it")
        content = self.flat()
        self.level = self.stack.pop()[1]
        self.level.append(_Item(content, bracket=True))

    def end_part(self) -> None:
        if not self.level:
            raise RefusalError(_LONE_SEPARATOR)
        content = self.flat()
        self.whole.extend(content if self.coefficient == 1.0 else [(z, a * self.coefficient) for z, a in content])
        self.level, self.coefficient = [], 1.0

    def flat(self) -> Pairs:
        content, shares = _flatten(self.level)
        self.shares = self.shares or shares
        return content


def as_number(value: str) -> float:
    """Value of an amount, a fraction such as ``1/3`` included."""
    if "/" not in value:
        return float(value)
    whole, _, part = value.partition("/")
    return float(whole) / float(part)


def read_simple(text: str) -> Pairs | None:
    """Read a compound with one level of round brackets; None where it takes `read_groups` to read or to refuse it."""
    if _SIMPLE.fullmatch(text) is None:
        return None
    pairs: Pairs = []
    outer = 0.0
    try:
        for symbol, group, count in _SIMPLE_ITEM.findall(text):
            factor = float(count) if count else 1.0
            outer += factor
            if symbol:
                pairs.append((NUMBER_OF[symbol], factor))
                continue
            inside = [(NUMBER_OF[s], float(n) * factor if n else factor) for s, n in PAIR.findall(group)]
            if sum([amount for _, amount in inside]) > 90 * factor:
                return None
            pairs += inside
    except KeyError:
        return None
    return pairs if 1.06 < outer < 90 else None


def read_groups(text: str) -> tuple[Pairs, bool]:
    """Read symbols, amounts, brackets and separators in one pass with a stack of open brackets.

    Returns
    -------
    pairs : list of (int, float)
        Atomic number and amount of each symbol; vacancies are left out.
    shares : bool
        Whether a bracket was read as a share.
    """
    reader = _Reader()
    position, start, end = 0, True, len(text)
    match = _TOKEN.match
    while position < end:
        token = match(text, position)
        if token is None:
            raise GrammarError(f"the character {_name(text[position])} has no place in a formula")
        position = token.end()
        kind, value = token.lastgroup, token.group()
        if kind == "symbol":
            number = NUMBER_OF.get(value, 0 if value == VACANCY else -1)
            if number < 0:
                raise GrammarError("symbol")
            reader.level.append(_Item([(number, 1.0)], False))
        elif kind == "number":
            if value == "0" and text[position : position + 1].isdigit():
                raise GrammarError("leading zero")
            if start and not reader.stack:
                reader.begin_part(value, alone="·" not in text)
            else:
                reader.number(value)
        elif kind == "open":
            reader.stack.append((value, reader.level))
            reader.level = []
        elif kind == "close":
            reader.close(value)
        else:
            if reader.stack:
                raise RefusalError(f"'{value}' stands inside brackets: close them before it")
            reader.end_part()
        start = kind == "sep"
    if reader.stack:
        raise RefusalError(f"the '{reader.stack[-1][0]}' is never closed: every bracket needs its partner")
    reader.end_part()
    return (reader.whole if VACANCY not in text else [pair for pair in reader.whole if pair[0]]), reader.shares


def _flatten(level: list[_Item]) -> tuple[Pairs, bool]:
    """Content of a level as one list, and whether its brackets are shares."""
    shares = False
    if len(level) > 1:
        bracket = False
        outer = 0.0
        for item in level:
            bracket = bracket or item.bracket
            outer += item.factor
        # Most compounds have a few units: nothing to decide.
        shares = bracket and (outer < 1.06 or outer > 90 or _holds_hundred(level)) and _are_shares(level)
    content: Pairs = []
    for item in level:
        factor = item.factor
        if shares and item.bracket:
            factor /= _total(item.content) or 1.0
        if factor == 1.0:
            content += item.content
        else:
            content += [(z, amount * factor) for z, amount in item.content]
    return content, shares


def _total(content: Pairs) -> float:
    return math.fsum(amount for _, amount in content)


def _near(value: float, goal: float, tolerance: float) -> bool:
    return abs(value - goal) <= tolerance * goal


def _holds_hundred(level: list[_Item]) -> bool:
    return any(item.bracket and item.factor != 1 and _is_hundred(item.content) for item in level)


def _are_shares(level: list[_Item]) -> bool:
    """Whether the brackets of a level are shares; refuse what may be shares or formula units."""
    outer = math.fsum(item.factor for item in level)
    kinds = {_kind(item, level) for item in level if item.bracket}
    if not kinds & {"alloy", "unclear"}:
        return False
    goal = 1.0 if outer < 10 else 100.0
    if not _near(outer, goal, 0.0015):
        # An alloy beside the goal is a slip of the pen; counts of atoms add up to 100 in themselves.
        counts = math.fsum(item.factor * _total(item.content) for item in level)
        slip = "alloy" in kinds and _near(outer, goal, 0.05) and not _near(counts, 100.0, 0.0015)
        if slip or _holds_hundred(level):
            raise RefusalError(
                f"its brackets look like shares, but the amounts outside add up to {outer:.6g}: "
                f"correct them to add up to {goal:g}, or write the amount of each element without brackets"
            )
        return False
    as_shares = _fractions(level, shares=True)
    as_units = _fractions(level, shares=False)
    if all(abs(as_shares[z] - as_units[z]) < 1e-9 for z in as_units):
        return False
    if kinds <= {"alloy", "one"}:
        return True
    first = next(item for item in level if item.bracket and _kind(item, level) in ("unclear", "alloy"))
    raise RefusalError(
        f"the amounts add up to {goal:g}, so the bracket before {first.factor:g} may be a share of "
        f"{first.factor / goal:.4g} ({_written(as_shares)}) or {first.factor:g} formula units ({_written(as_units)}): "
        "write the one that is meant"
    )


def _is_hundred(content: Pairs) -> bool:
    return len(content) > 1 and _near(_total(content), 100.0, 0.015) and len({z for z, _ in content}) > 1


def _kind(item: _Item, level: list[_Item]) -> str:
    """What a bracket holds: an ``alloy``, a ``compound``, amounts that add up to ``one``, or what is ``unclear``."""
    amounts = [amount for _, amount in item.content]
    elements = {z for z, _ in item.content}
    if _near(math.fsum(amounts), 1.0, 0.02):
        return "one"
    if _is_hundred(item.content):
        return "alloy"
    if elements & _ANIONS or 0 in elements:
        return "compound"
    bare = math.fsum(other.factor for other in level if not other.bracket)
    if len(elements) >= 4 or any(amount != int(amount) for amount in amounts):
        return "alloy"
    if not elements & METALLOIDS:
        equal = len(elements) > 1 and len(set(amounts)) == 1
        return "alloy" if equal or bare > math.fsum(other.factor for other in level) / 2 else "unclear"
    return "unclear" if bare else "compound"


def _fractions(level: list[_Item], *, shares: bool) -> dict[int, float]:
    found: dict[int, float] = {}
    for item in level:
        factor = item.factor / (_total(item.content) or 1.0) if shares and item.bracket else item.factor
        for z, amount in item.content:
            found[z] = found.get(z, 0.0) + amount * factor
    total = math.fsum(found.values()) or 1.0
    return {z: amount / total for z, amount in found.items()}


def _written(fractions: dict[int, float]) -> str:
    return "".join(f"{SYMBOLS[z - 1]}{100 * share:.4g}" for z, share in fractions.items() if z and share)


def add_up(pairs: Iterable[tuple[int, float]]) -> dict[int, float]:
    """Add up the amounts of each element, leave out zeros, and refuse what is not a positive amount."""
    content: dict[int, float] = {}
    for z, amount in pairs:
        if not SMALLEST_AMOUNT < amount < math.inf:
            if amount == 0:
                continue
            raise RefusalError(_amount_message(SYMBOLS[z - 1], amount))
        content[z] = content.get(z, 0.0) + amount
    if len(content) > 1:
        least = SMALLEST_AMOUNT * math.fsum(content.values())
        for z, amount in content.items():
            if not amount > least:
                raise RefusalError(_amount_message(SYMBOLS[z - 1], amount))
    elif not content:
        raise RefusalError("it holds no element: leave the row out or write its formula")
    return content


def _amount_message(symbol: str, amount: float) -> str:
    if amount < 0:
        return f"the amount of {symbol} is {amount:g}: amounts are positive"
    if not math.isfinite(amount):
        return f"the amount of {symbol} is {amount:g}: write a number"
    return f"the amount of {symbol}, {amount:g}, vanishes beside the rest: leave {symbol} out or correct the amount"


def _name(character: str) -> str:
    if character.isprintable() and character.isascii():
        return repr(character)
    return f"{character!r} ({unicodedata.name(character, 'unnamed')})"
