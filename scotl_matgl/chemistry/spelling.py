"""From a formula as people type it to the plain text that the grammar reads.

What has one meaning is rewritten: subscripts, full-width characters, decimal commas, ``×`` before water, dictionaries.
What is no formula, or may name something beside the formula (a phase, an oxidation state, a dopant, an identifier, a
structure type, percent by weight), is refused under its own name.
"""

from __future__ import annotations

import html
import re
import unicodedata

from scotl_matgl.chemistry.elements import NUMBER_OF, SYMBOLS
from scotl_matgl.chemistry.grammar import AMOUNT, VACANCY
from scotl_matgl.chemistry.names import name_behind
from scotl_matgl.chemistry.refusals import RefusalError, charge_message, missing_message

MAX_LENGTH = 2000
"""Longest text that is tried as a formula; the longest formula of the published tables has 118 characters."""

MISSING = frozenset({"", "nan", "none", "null", "na", "n/a", "#n/a", "<na>", "nat", "-", "--", "?"})

SHORT_NAMES: dict[str, str] = {
    "NaN": "'NaN' marks a missing value: leave the row out. If sodium nitride is meant, write 'Na1N1', and read the "
    "table with pandas.read_csv(..., keep_default_na=False)",
    **{
        name: f"'{name}' is the usual short name of {meaning}: write that formula, or the amounts if the elements "
        f"{' and '.join(re.findall('[A-Z][a-z]?', name))} are meant"
        for name, meaning in {
            "YBCO": "YBa2Cu3O7",
            "BSCCO": "Bi2Sr2CaCu2O8",
            "BSCF": "Ba0.5Sr0.5Co0.8Fe0.2O3",
            "KNN": "K0.5Na0.5NbO3",
            "BFO": "BiFeO3",
            "CFO": "CoFe2O4",
            "NFO": "NiFe2O4",
            "CIS": "CuInS2",
            "YSO": "Y2SiO5",
            "BSO": "Bi12SiO20",
            "BBO": "BaB2O4",
            "KBBF": "KBe2BO3F2",
        }.items()
    },
    **{
        name: f"'{name}' is the usual short name of {meaning}: write the formula of the material"
        for name, meaning in {
            "BTO": "BaTiO3",
            "STO": "SrTiO3",
            "CTO": "CaTiO3",
            "PTO": "PbTiO3",
            "PZT": "Pb(Zr,Ti)O3, such as PbZr0.52Ti0.48O3",
            "BST": "Ba0.5Sr0.5TiO3",
            "LTO": "Li4Ti5O12",
            "LCO": "LiCoO2",
            "LMO": "LiMn2O4",
            "LNO": "LiNiO2",
            "LFP": "LiFePO4",
            "NMC": "Li(Ni,Mn,Co)O2, such as LiNi0.8Mn0.1Co0.1O2",
            "NCA": "LiNi0.8Co0.15Al0.05O2",
            "LLZO": "Li7La3Zr2O12",
            "LLTO": "Li0.33La0.56TiO3",
            "LATP": "Li1.3Al0.3Ti1.7P3O12",
            "LAGP": "Li1.5Al0.5Ge1.5P3O12",
            "LGPS": "Li10GeP2S12",
            "LSMO": "La0.7Sr0.3MnO3",
            "LSCF": "La0.6Sr0.4Co0.2Fe0.8O3",
            "LAO": "LaAlO3",
            "SRO": "SrRuO3",
            "ITO": "In2O3 with tin, such as In1.8Sn0.2O3",
            "FTO": "SnO2 with fluorine",
            "AZO": "ZnO with aluminium",
            "IGZO": "InGaZnO4",
            "YSZ": "ZrO2 with yttria, such as Zr0.85Y0.15O1.925",
            "YAG": "Y3Al5O12",
            "YIG": "Y3Fe5O12",
            "KTP": "KTiOPO4",
            "KDP": "KH2PO4",
            "CZTS": "Cu2ZnSnS4",
            "CIGS": "CuIn0.7Ga0.3Se2",
            "GST": "Ge2Sb2Te5",
        }.items()
    },
    **{
        name: f"'{name}' is the usual name of an alloy in percent by weight: write {meaning} (atomic percent), or each "
        "amount with a decimal point (Al6.0) if atoms are counted"
        for name, meaning in {
            "Ti64": "Ti86.2Al10.2V3.6",
            "Ti6Al4V": "Ti86.2Al10.2V3.6",
            "TiAl6V4": "Ti86.2Al10.2V3.6",
            "Ti6Al7Nb": "Ti85.9Al10.5Nb3.6",
            "TiAl6Nb7": "Ti85.9Al10.5Nb3.6",
        }.items()
    },
    **{name: f"'{name}' names the lattice of a crystal: write the formula alone" for name in ("FCC", "BCC", "HCP")},
}
"""Texts that the grammar would read, but that are names of something else."""

_TRANSLATION = {
    **{ord(sub): str(digit) for digit, sub in enumerate("₀₁₂₃₄₅₆₇₈₉")},
    **dict.fromkeys(map(ord, "·•∙⋅・‧*×✕⨯⸱·・●⦁"), "·"),
    **dict.fromkeys(map(ord, "\u00ad\u200b\u200c\u200d\u200e\u200f\u2060\ufeff"), ""),
    **dict.fromkeys(map(ord, "−–‐‑‒—﹣－"), "-"),
    **dict.fromkeys(map(ord, "□☐◻▢⬜⎕"), VACANCY),
    **dict.fromkeys(map(ord, "⁄∕"), "/"),
    **dict(zip(map(ord, "₊₋ₓ"), "+-x", strict=True)),
}
_SUPERSCRIPTS = re.compile("[⁰¹²³⁴⁵⁶⁷⁸⁹⁺⁻]")
# Digits above the line before a symbol, as in ¹¹B, ^{11}B, <sup>11</sup>B.
_ISOTOPE = re.compile(r"(?P<n>[⁰¹²³⁴⁵⁶⁷⁸⁹]+|\^\{?[0-9]{1,3}\}?|<sup>[0-9]{1,3}</sup>)(?P<symbol>[A-Z][a-z]?)")
_TEX = re.compile(r"\\(?:ce|mathrm|mathsf|mathbf|mathit|text|textrm|rm)\s*\{(?P<inner>(?:[^{}]|\{[^{}]*\})*)\}")
_TEX_NAMES = {
    r"\cdot": "·",
    r"\bullet": "·",
    r"\times": "·",
    r"\delta": "δ",
    r"\alpha": "α",
    r"\beta": "β",
    r"\gamma": "γ",
}

_ROMAN = "(?:I|II|III|IV|V|VI|VII|VIII|IX|X|XI|XII)"
_NUMERAL = re.compile(rf"\(({_ROMAN}(?:,{_ROMAN})*)\)")
_TRAILING = re.compile(r"^(?P<rest>[^ ]+?) ?[(\[](?P<name>[A-Z][A-Za-z]?[0-9]*|[A-Z]{2,4}s?)[)\]]$")
_STATE = re.compile(
    r"[(\[](?P<name>s|l|g|c|aq|cr|am|vit|gl|sln|lq|solid|liquid|gas|glass|amorphous|crystalline|crystal|cr,l|s,l)[)\]]$"
)
_ABBREVIATIONS = frozenset(
    "NW NP NC NR NS NF NPs NWs HP HT LT RT SC PC SPS CVD PLD BCC FCC HCP BCT".split()  # noqa: SIM905 - a table
)
_STRUCTURE_TYPES = """
B1 B2 B3 B4 B8 B9 B10 B16 B19 B20 B27 B32 B33 B37 B81 C1 C2 C3 C4 C6 C7 C9 C10 C11 C14 C15 C16 C22 C23 C32 C36 C38 C40
C44 C49 C54 P1 P2 P3 P4 P6 P21 P31 P32 P41 P42 P43 P61 P63 P213 P222 P23 P432 P3121 P3221 P41212 P43212 P6122 I2 I4 I41
I222 I23 I213 I432 F222 F23 F432 F4132 C222 C2221
"""
STRUCTURE_TYPES = frozenset(_STRUCTURE_TYPES.split())
"""Strukturbericht symbols and space groups that read as an element and an amount."""

_POLYTYPE = r"(?:[1-9][0-9]?[HRCTMOL]['′]?)"
_GREEK = "alpha|beta|gamma|delta|epsilon|zeta|eta|theta|kappa|lambda|sigma|tau|chi|omega|phi|psi|rho"
_PREFIX = re.compile(
    rf"^(?P<name>{_POLYTYPE}(?=[- ])|[α-ωΑ-Ω]['′]*|(?:{_GREEK})(?=[- A-Z])|[a-z]{{1,2}}(?=-[A-Z]))[- ]*"
    r"(?P<rest>[A-Z(\[].*)$"
)
_SUFFIX = re.compile(
    rf"^(?P<rest>.+?[A-Za-z0-9)\]])"
    rf"(?:[-_ ]{_POLYTYPE}| ?[(\[](?:{_POLYTYPE}|[α-ω]['′]*|{_GREEK})[)\]]|-[αβγ]| [α-ω]|[- ](?:{_GREEK}))$"
)
_IDENTIFIER = re.compile(
    r"^(?:mp|mvc|mpts|jvasp|oqmd|cod|icsd|aflow|wbm|twod|2dm|nomad|mc3d|c2db|csd|pdf|jcpds)[-_: #][-0-9a-f:]+$"
    r"|^(?:agm|m2ax)[0-9]+$|^UNS ?[A-Z][0-9]{5}$"
    r"|^(?:AISI|SAE|SUS|DIN|JIS|ASTM|AA) ?[0-9.]{3,7}[A-Z]{0,3}$",
    re.IGNORECASE,
)
_DATE = re.compile(
    r"^[0-9]{1,4}-(?P<month>Jan|Feb|Mar|Apr|May|Jun|Jul|Aug|Sep|Oct|Nov|Dec)(?:-[0-9]+)?$"
    r"|^(?:Jan|Feb|Mar|Apr|May|Jun|Jul|Aug|Sep|Oct|Nov|Dec)-[0-9]+$|^[0-9]{4}-[0-9]{2}-[0-9]{2}(?:[ T].*)?$"
)
_ELEMENT = "(?:" + "|".join(sorted(SYMBOLS, key=len, reverse=True)) + ")"
_PERCENT = rf"(?:[0-9]+(?:\.[0-9]+)?|\.[0-9]+) ?(?:%|wt\.?%)?{_ELEMENT}(?![a-z])"
WEIGHT_PART = re.compile(rf"([0-9]+(?:\.[0-9]+)?|\.[0-9]+) ?(?:%|wt\.?%)?({_ELEMENT})(?![a-z])")
GLUED_WEIGHTS = re.compile(rf"(?:(?:[0-9]+(?:\.[0-9]+)?|\.[0-9]+){_ELEMENT}(?![a-z])){{2,}}")
"""An alloy with the amounts before the symbols, ``63Sn37Pb``."""

WEIGHTS = re.compile(rf"(?P<base>{_ELEMENT})?(?:(?:^|[- ]+){_PERCENT})+")
"""An alloy in the notation ``Ti-6Al-4V``, ``60Sn-40Pb``."""

_PART = re.compile(r"[(\[]?(?P<share>0?\.[0-9]+)[)\]]?\s*(?P<compound>[A-Z(\[][A-Za-z0-9.()\[\]/]*)")
"""A compound of a solid solution, with its share."""

_DICTIONARY = re.compile(r"^\{\s*(?:(['\"])[A-Z][a-z]?\1\s*:\s*[0-9.eE+-]+\s*,?\s*)+\}$")
_DICTIONARY_ITEM = re.compile(r"['\"]([A-Z][a-z]?)['\"]\s*:\s*([0-9.eE+-]+)")
_COLONS = re.compile(rf"^(?:[A-Z][a-z]?: ?{AMOUNT}[,; ]*)+$")


def normalised(text: str) -> str:
    """Rewrite what has one meaning, and refuse what is no formula or names something beside one."""
    if len(text) > MAX_LENGTH:
        raise RefusalError(
            f"it has {len(text)} characters, and a formula has at most {MAX_LENGTH}: is this the right column?"
        )
    if any(mark in text for mark in "\\$<&^⁰¹²³⁴⁵⁶⁷⁸⁹"):
        text = _without_markup(text)
    if not text.isascii():
        text = _plain_characters(text)
    text = text.replace("*", "·").strip()
    text = re.sub(r"^- (.*) -$", r"\1", text)  # as the Crystallography Open Database lists it
    if text.lower() in MISSING:
        raise RefusalError(missing_message())
    control = next((c for c in text if not c.isprintable() and not c.isspace()), "")
    if control:
        raise RefusalError(f"it holds the control character {control!r}: remove it")
    if _DICTIONARY.match(text):
        return _from_dictionary(text)
    text = _as_solid_solution(text) or text
    for refuse in (_refuse_glued, _refuse_phases, _refuse_names, _refuse_dopants, _refuse_weights):
        refuse(text)
    text = re.sub(r"(?<=[0-9)\]}])\s*x\s*(?=[0-9.]+\s*H2O$)|(?<=\S)\s+x\s+(?=[0-9.]+\s*H2O$)", "·", text)
    if any(c.isspace() for c in text):
        text = _joined(text)
    return _without_commas(text) if "," in text or ";" in text else text


def _as_solid_solution(text: str) -> str:
    """Two or more compounds whose shares add up to one, ``0.94BaTiO3-0.06SrTiO3``, joined by points; else empty."""
    if text[:1] not in "(0[." or re.match(r"[(\[]?0?\.[0-9]", text) is None:
        return ""
    found = [_PART.fullmatch(part) for part in re.split(r"\s*[-+·]\s*(?=[(\[]?0?\.[0-9])", text)]
    parts = [(part["share"], part["compound"]) for part in found if part is not None]
    if len(parts) < max(2, len(found)) or abs(sum(float(share) for share, _ in parts) - 1) > 1e-6:
        return ""
    if any(len(set(re.findall("[A-Z][a-z]?", compound))) < 2 for _, compound in parts):
        return ""  # an alloy, whose percents may be of weight
    return "·".join(share + compound for share, compound in parts)


def refuse_bracket(text: str) -> None:
    """Refuse a bracket that may name a phase, a dopant or an oxidation state; the grammar would read all of them."""
    if text[-1] not in ")]" and "(I" not in text and "(V" not in text and "(X" not in text:
        return
    numeral = _NUMERAL.search(text)
    if numeral and text != numeral.group():
        raise RefusalError(
            f"'{numeral.group()}' may be an oxidation state or the name of a phase: leave it out; "
            "if the element is meant, write it without brackets"
        )
    found = _TRAILING.match(text)
    if found is None or found["rest"].count("(") > found["rest"].count(")"):
        return
    name, rest = found["name"], found["rest"]
    if name in _ABBREVIATIONS or name in STRUCTURE_TYPES:
        raise RefusalError(
            f"'({name})' may name a form or structure type: write '{rest}'; for elements leave the brackets out"
        )
    lone = name.isalpha() and (name in NUMBER_OF or len(name) == 1 or name[1:].islower())
    # Halides and the like are anions where other groups have brackets too: Ca5(PO4)3(F).
    if lone and not (name in ("F", "Cl", "Br", "O", "H") and "(" in rest):
        raise RefusalError(
            f"'({name})' at the end may name a phase or a dopant without an amount: write '{rest}' for the phase, "
            f"the amounts for a dopant; if one more {name} is meant, write it without brackets"
        )


def _without_markup(text: str) -> str:
    """Text without the marks of HTML and LaTeX; refuse isotopes and charges above the line."""
    text = html.unescape(text)
    isotope = _ISOTOPE.search(text)
    if isotope and isotope["symbol"] in NUMBER_OF:
        raise RefusalError(
            f"'{isotope.group()}': raised digits name an isotope, and isotopes are not told apart here: write "
            f"'{text[: isotope.start()]}{text[isotope.start('symbol') :]}'"
        )
    behind = re.search("(?<=[A-Za-z])[⁰¹²³⁴⁵⁶⁷⁸⁹]{2,3}(?![⁰¹²³⁴⁵⁶⁷⁸⁹⁺⁻])", text)
    if behind:
        raise RefusalError(
            f"'{behind.group()}': raised digits name an isotope, and isotopes are not told apart here: write "
            f"'{text[: behind.start()]}{text[behind.end() :]}'"
        )
    if re.search("</?su[bp]>", text):
        if "<sup>" in text:
            raise RefusalError(charge_message())
        text = re.sub("</?sub>", "", text)
    if "\\" not in text and "$" not in text:
        return text
    for name, character in _TEX_NAMES.items():
        text = re.sub(re.escape(name) + "(?![a-z]) ?", character, text)
    text = text.replace("$", "")
    for _ in range(3):
        text = _TEX.sub(lambda found: found["inner"], text)
    return re.sub(r"_\{([^{}_]*)\}|_(?=[0-9δx])", lambda found: found[1] or "", text)


def _plain_characters(text: str) -> str:
    if _SUPERSCRIPTS.search(text):
        raise RefusalError(charge_message())
    if "\ufffd" in text or re.search("Â[·°]|â‚|â€", text):
        raise RefusalError("its characters were damaged by a wrong encoding: read the file as UTF-8, or as cp1252")
    return unicodedata.normalize("NFKC", text.translate(_TRANSLATION)).translate(_TRANSLATION)


def _from_dictionary(text: str) -> str:
    items = _DICTIONARY_ITEM.findall(text)
    if len({symbol for symbol, _ in items}) < len(items):
        raise RefusalError("an element stands twice in the dictionary: write it once")
    if any(re.fullmatch(AMOUNT, amount) is None or symbol not in NUMBER_OF for symbol, amount in items):
        raise RefusalError("the dictionary must hold element symbols and positive numbers, as in {'Fe': 2, 'O': 3}")
    return "".join(symbol + amount for symbol, amount in items).replace("E", "e") if items else text


def _refuse_names(text: str) -> None:
    if _IDENTIFIER.match(text):
        raise RefusalError(
            f"'{text[:40]}' is an identifier of a database or a standard, not a formula: look up its formula"
        )
    date = _DATE.match(text)
    if date:
        raise RefusalError(
            "it is a date: a spreadsheet turns formulas such as 'FeB2' into dates; format the column as text and type "
            "the formula again"
        )
    if re.search(r"\bdoped\b", text, re.IGNORECASE):
        raise RefusalError(_dopant_message("it"))
    # Words: four letters and more that stand alone beside the formula.
    for piece in re.split(r"[\s,()\[\]/_-]+", text):
        if (
            piece not in (text, "acac", "phen")
            and len(piece) >= 4
            and re.fullmatch(r"[A-Z]?[a-zäöü]+", piece)
            and not _all_symbols(piece)
        ):
            raise RefusalError(
                f"'{piece}' looks like a word: remove names of compounds and phases, and write the formula"
            )


def _all_symbols(piece: str) -> bool:
    return re.fullmatch(r"(?:[A-Z][a-z]?)+", piece) is not None or re.search("[A-Z].*[A-Z]", piece) is not None


def _refuse_phases(text: str) -> None:
    state = _STATE.search(text)
    if state and state.start() > 0:
        raise RefusalError(
            f"'{state.group()}' states the phase: leave it out and write '{text[: state.start()].strip()}'"
        )
    prefix = _PREFIX.match(text)
    if prefix:
        kind = "polytype" if prefix["name"][0].isdigit() else "phase"
        raise RefusalError(f"'{prefix['name']}' names the {kind}: leave it out and write '{prefix['rest']}'")
    suffix = _SUFFIX.match(text)
    if suffix and re.match("[A-Z(\\[]", suffix["rest"]):
        name = text[len(suffix["rest"]) :].strip("-_ ()[]")
        kind = "polytype" if name[0].isdigit() else "phase"
        raise RefusalError(f"'{name}' names the {kind}: leave it out and write '{suffix['rest'].strip()}'")
    if "_" in text or "-" in text:
        name, kind, rest = name_behind(text)
        if name:
            raise RefusalError(f"'{name}' behind it names the {kind}: leave it out and write '{rest}'")
    if "(" in text or "[" in text:
        refuse_bracket(text)
    head, blank, tail = text.rpartition(" ")
    head = head.strip()
    if not blank or " " in head or not head:
        return
    several = len(re.findall("[A-Z][a-z]?", head)) > 1
    numeral = re.fullmatch(_ROMAN, tail) is not None and (several or len(tail) > 1)
    lone = several and "(" not in head and re.fullmatch("[A-Z][a-z]?", tail) is not None
    if numeral or tail in _ABBREVIATIONS or (several and (tail in STRUCTURE_TYPES or lone)):
        raise RefusalError(
            f"'{tail}' after a blank may name a phase, a form or a dopant: write '{head}' without it; "
            f"if its elements are meant, write '{head}{tail}' in one piece"
        )


# Dopants as they are named: lone symbols, each with or without its charge.
_LONE_SYMBOLS = re.compile(r"[A-Z][a-z]?(?:[0-9]*[+-])?(?:, ?[A-Z][a-z]?(?:[0-9]*[+-])?)*")


def _dopant_message(what: str) -> str:
    return (
        f"{what} names a dopant without an amount, or with one that is not part of the formula: write it into the "
        "formula, e.g. Y1.9Eu0.1O3"
    )


def _refuse_dopants(text: str) -> None:
    if _COLONS.match(text):
        meant = "".join(re.findall(f"[A-Z][a-z]?|{AMOUNT}", text))
        raise RefusalError(f"':' stands between symbols and amounts: did you mean '{meant}'?")
    host, colon, rest = text.partition(":")
    if colon and host and rest:
        first, last = (_LONE_SYMBOLS.fullmatch(part.strip()) is not None for part in (host, rest))
        last = last or re.fullmatch(r"\s*[A-Z][a-z]?\s*[(\[].*%\s*[)\]]\s*", rest) is not None  # In2O3:Sn (5%)
        last = last or ("%" in rest and "%" not in host)  # NaYF4:20%Yb,2%Er
        after = last or (not first and len(rest) < len(host))  # Er3+:YAG beside ZnS:Mn2+
        raise RefusalError(_dopant_message(f"'{rest.strip()}' after ':'" if after else f"'{host}' before ':'"))
    if re.search("[0-9A-Za-z] ?(?:wt|mass|w)\\.? ?%$", text):
        raise RefusalError(
            "its amounts are percent by weight: leave 'wt%' out and pass amounts='weight' (--amounts weight)"
        )
    if re.search("[0-9A-Za-z] ?(?:at|mol)\\.? ?%$", text):
        raise RefusalError("its amounts are percent of atoms or moles: write the formula without 'at.%' or 'mol%'")
    pure = re.fullmatch(r"(?P<rest>[A-Z].*?)[, ]*(?P<purity>[(\[ ,](?:9[0-9](?:\.[0-9]+)?|100) ?%[)\]]?)", text)
    if pure:
        raise RefusalError(
            f"'{pure['purity'].strip(' ,')}' behind it states a purity or a density: leave it out and write "
            f"'{pure['rest']}'"
        )
    if "%" in text and re.search("[A-Z]", text) and WEIGHTS.fullmatch(text) is None:
        percent = re.search(r"[0-9.]+ ?[a-z.]*%", text)
        raise RefusalError(_dopant_message(f"'{percent.group() if percent else '%'}'"))


def _refuse_weights(text: str) -> None:
    balance = re.fullmatch(r"(?P<rest>.*[0-9A-Za-z])[-, ]*[(\[]?[Bb]al(?:ance)?\.?[)\]]?", text)
    if balance is not None and WEIGHTS.fullmatch(balance["rest"]) is not None:
        text = balance["rest"]
    listed = re.fullmatch(rf"{_ELEMENT}(?: {_PERCENT})+", text) is not None
    if not (listed or "-" in text) or WEIGHTS.fullmatch(text) is None or len(WEIGHT_PART.findall(text)) < 1:
        return
    if balance is not None or listed:
        meant = "-".join(text.split())
        raise RefusalError(
            f"it looks like an alloy whose balance is its first element: write '{meant}', and pass amounts='weight' "
            "(--amounts weight) if the amounts are percent by weight"
        )
    try:
        meant = "".join(f"{symbol}{amount:.6g}" for symbol, amount in weight_parts(text))
    except RefusalError:
        meant = "Ti90Al6V4"
    raise RefusalError(
        "it looks like an alloy in percent by weight: pass amounts='weight' (--amounts weight) to read the column so; "
        f"if the percent count atoms, write '{meant}'"
    )


def _refuse_glued(text: str) -> None:
    """Refuse amounts before their symbols, as solders have them: 63Sn37Pb."""
    if GLUED_WEIGHTS.fullmatch(text) is None:
        return
    parts = WEIGHT_PART.findall(text)
    if abs(sum(float(amount) for amount, _ in parts) - 100) <= 1:
        meant = "".join(f"{symbol}{float(amount):.6g}" for amount, symbol in parts)
        raise RefusalError(
            f"amounts stand before the symbols: write '{meant}', and pass amounts='weight' (--amounts weight) if they "
            "are percent by weight"
        )


def weight_parts(text: str) -> list[tuple[str, float]]:
    """Symbols and percents of an alloy in ``Ti-6Al-4V``; a first symbol without a number is the balance."""
    found = WEIGHTS.fullmatch(text)
    parts = [(symbol, float(amount)) for amount, symbol in WEIGHT_PART.findall(text)]
    if found is not None and found["base"]:
        rest = 100.0 - sum(amount for _, amount in parts)
        if not rest > 0:
            raise RefusalError(f"the percents beside {found['base']} add up to {100 - rest:g}: nothing is left for it")
        return [(found["base"], rest), *parts]
    return parts


def _joined(text: str) -> str:
    """Text without white space; refuse white space that carries meaning."""
    if re.search(r"[A-Z]\s+[a-z]", text) and not re.search(r"\b[a-z]{2,}", text):
        raise RefusalError("white space splits an element symbol: write the symbol in one piece")
    if re.search(r"[0-9.]\s+[0-9.]|[A-Za-z)\]}]\s+[0-9.]+[A-Z(\[{]", text):
        raise RefusalError(
            "white space stands before a number, which may count what is before or after it: write 'Fe2O3' without "
            "spaces, or '·' before added molecules, as in 'CuSO4·5H2O'"
        )
    if re.fullmatch(r"[A-Z][a-z]?[0-9.]*[A-Z]\S*\s+[0-9.]+", text):
        raise RefusalError("a number stands after a blank at the end: leave it out, or join it to what it counts")
    return re.sub(r"\s+", "", text)


def _without_commas(text: str) -> str:
    """Decimal commas as points, and lists with amounts without their commas; refuse what may be something else."""
    counted = rf"[A-Z][a-z]?(?:[0-9]+,[0-9]+|{AMOUNT})"
    text = re.sub(rf"({counted}|{VACANCY}{AMOUNT})[,;](?=[A-Z{VACANCY}])", r"\1", text)
    commas = re.findall(r"([0-9]+),([0-9]+)", text)
    if commas and len(commas) == len(re.findall("[,;]", text)):
        meant = re.sub(r"(?<=[0-9]),(?=[0-9])", ".", text)
        certain = any(whole == "0" for whole, _ in commas) or all(len(part) > 1 for _, part in commas)
        if certain and "." not in text and not re.search(r",[0-9]*\(?H2O", text):
            return meant
        if "." not in text:
            raise RefusalError(
                f"the ',' may be a decimal comma or may separate parts: write '{meant}' if it is the decimal comma"
            )
    if "," in text or ";" in text:
        both = re.search(r"([A-Z][a-z]?)[,;]([A-Z][a-z]?)", text)
        example = f"'{both[1]}0.5{both[2]}0.5'" if both else "'Ba0.5Sr0.5TiO3'"
        raise RefusalError(f"a ',' lists elements without the amount of each: write the amounts, as in {example}")
    return text
