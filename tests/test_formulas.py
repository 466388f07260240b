"""Formulas as people type them: read as meant, or refused under the right name; nothing is read as something else."""

from __future__ import annotations

import datetime as dt
import json
import math
import os
import random
import re
import time
import tracemalloc
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from scotl_matgl.chemistry.compositions import parse_compositions
from scotl_matgl.chemistry.elements import ATOMIC_WEIGHTS, NUMBER_OF_NAME, SYMBOLS
from scotl_matgl.chemistry.formulas import CompositionError, format_formula, parse_formula
from scotl_matgl.chemistry.spelling import MAX_LENGTH

WILD = json.loads((Path(__file__).parent / "data" / "wild" / "formulas.json").read_text(encoding="utf-8"))
FUZZ_FORMULAS = int(os.environ.get("SCOTL_MATGL_FUZZ_FORMULAS", "3000"))  # `make fuzz`: 100,000


def _plain(text: str) -> dict[str, float]:
    """Oracle for plain formulas, by hand."""
    found: Counter[str] = Counter()
    for symbol, amount in re.findall(r"([A-Z][a-z]?)([0-9.]+(?:e-[0-9]+)?)?", text):
        found[symbol] += float(amount or 1)
    return dict(found)


@pytest.mark.parametrize("case", WILD, ids=[case["text"] for case in WILD])
def test_wild_formula(case: dict[str, str]) -> None:
    table = parse_compositions([case["text"]], on_error="skip")
    if "reason" in case:
        assert case["reason"] in table.skipped[0].reason
        return
    assert parse_formula(case["text"]) == pytest.approx(_plain(case["same_as"]), rel=1e-12)
    assert [note.reading for note in table.notes] == ([case["note"]] if "note" in case else [])


def test_suggestions_of_wild_formulas_are_read() -> None:
    for case in WILD:
        for meant in re.findall(r"id you mean '([^']+)'", case.get("reason", "")):
            assert parse_formula(meant), case


# --- shares -----------------------------------------------------------------------------------------------------------


def test_shares_are_counted_and_carried() -> None:
    table = parse_compositions(["NaCl", "(Fe72Mo4B24)96Dy4", "Al4(CoCrFeMnNi)96", "(GeTe)80(AgSbTe2)20"])
    assert [str(note) for note in table.notes] == [
        "2 formulas read as shares, such as (Fe72Mo4B24)96Dy4 as Fe69.12Mo3.84B23.04Dy4"
    ]
    assert table.take([0]).notes == table.notes
    assert parse_compositions(["NaCl", "Ca(OH)2"]).notes == ()


def test_shares_in_published_tables(assets: Path) -> None:
    shares = {}
    for name in ("bmg_bulk_modulus", "bmg_liquidus_temperature", "hea_single_phase", "metallic_glass", "expt_gap"):
        table = pd.read_csv(assets / "targets" / f"{name}.csv", keep_default_na=False)
        shares[name] = sum(note.count for note in parse_compositions(table["composition"]).notes)
    assert shares == {
        "bmg_bulk_modulus": 40,
        "bmg_liquidus_temperature": 51,
        "hea_single_phase": 22,
        "metallic_glass": 0,
        "expt_gap": 0,
    }


METALS = ("Fe", "Co", "Ni", "Cr", "Mn", "Al", "Ti", "Zr", "Cu", "Nb", "La", "Y")


@given(
    st.lists(st.sampled_from(METALS), min_size=5, max_size=7, unique=True),
    st.lists(st.integers(1, 60), min_size=7, max_size=7),
    st.integers(40, 99),
    st.booleans(),
)
@settings(max_examples=200, derandomize=True)
def test_shares_by_hand(symbols: list[str], weights: list[int], share: int, percent: bool) -> None:
    *inside, outside = symbols
    parts = dict(zip(inside, weights, strict=False))
    scale = 1 if percent else 100
    text = "(" + "".join(f"{s}{w}" for s, w in parts.items()) + f"){share / scale!r}{outside}{(100 - share) / scale!r}"
    total = sum(parts.values())
    expected = {s: w / total * share / scale for s, w in parts.items()} | {outside: (100 - share) / scale}
    assert parse_formula(text) == pytest.approx(expected, rel=1e-12)


# --- percent by weight ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "percent"),
    [
        # By hand: weight over atomic weight, scaled to 100. Ti-6Al-4V: 90/47.867, 6/26.9815, 4/50.9415.
        ("Ti-6Al-4V", {"Ti": 86.204, "Al": 10.196, "V": 3.600}),
        ("Ti90Al6V4", {"Ti": 86.204, "Al": 10.196, "V": 3.600}),
        ("Ti0.9Al0.06V0.04", {"Ti": 86.204, "Al": 10.196, "V": 3.600}),
        ("Ti–6Al–4V", {"Ti": 86.204, "Al": 10.196, "V": 3.600}),
        ("Fe-18Cr-8Ni", {"Fe": 73.250, "Cr": 19.214 - 0.079, "Ni": 7.536 + 0.079}),
        ("60Sn-40Pb", {"Sn": 72.36, "Pb": 27.64}),
        ("60Sn40Pb", {"Sn": 72.36, "Pb": 27.64}),
        ("Fe", {"Fe": 100.0}),
    ],
)
def test_percent_by_weight(text: str, percent: dict[str, float]) -> None:
    assert parse_formula(text, amounts="weight") == pytest.approx(percent, abs=0.15)
    masses = {s: a * ATOMIC_WEIGHTS[SYMBOLS.index(s)] for s, a in parse_formula(text, amounts="weight").items()}
    given_ = {s: m / math.fsum(masses.values()) for s, m in masses.items()}
    if text.startswith("Ti"):
        assert given_ == pytest.approx({"Ti": 0.9, "Al": 0.06, "V": 0.04}, rel=1e-12)


def test_percent_by_weight_in_columns() -> None:
    table = parse_compositions(["Ti-6Al-4V", {"Ti": 90, "Al": 6, "V": 4}], amounts="weight")
    assert len(set(table.keys())) == 1
    assert str(table.notes[0]).startswith("2 formulas read as percent by weight, such as Ti-6Al-4V as Ti86.")
    skipped = parse_compositions(["Fe2O3", "Ti-60Al-60V"], on_error="skip", amounts="weight").skipped
    assert "add up to 5" in skipped[0].reason
    assert "nothing is left" in skipped[1].reason
    with pytest.raises(ValueError, match="choose 'atoms' or 'weight'"):
        parse_compositions(["Fe"], amounts="mass")  # type: ignore[arg-type]


def test_atomic_weights_and_names_are_those_of_pymatgen() -> None:
    from pymatgen.core import Element

    assert [float(Element.from_Z(z).atomic_mass) for z in range(1, 119)] == pytest.approx(ATOMIC_WEIGHTS, rel=1e-3)
    assert {Element.from_Z(z).long_name.lower(): z for z in range(1, 119)}.items() <= NUMBER_OF_NAME.items()


# --- bad items never end a run ----------------------------------------------------------------------------------------


class _Hostile:
    def __repr__(self) -> str:
        raise RuntimeError


HUGE = [
    "x" * 120_000,
    "Fe" * 60_000,
    "nacl" * 30_000,
    "(" * 120_000,
    "1" * 400,
    "Fe" + "9" * 400,
    "Fe" + "9" * 5000,
    "mp-" + "1" * 5000,
    "(" * 990 + "Fe" + ")" * 990,
    "nacl" * 490,
    10**5000,
    {"Fe": 10**400},
    {"Fe": "1_0_0"},
    {"Fe": "9" * 5000},
    {"Na\0": 1},
    "Na\0Cl",
    "\0",
    _Hostile(),
    dt.date(2026, 2, 2),
]


def test_bad_items_are_listed_in_bounded_time_and_memory() -> None:
    tracemalloc.start()
    start = time.process_time()
    table = parse_compositions(HUGE, on_error="skip")
    assert time.process_time() - start < 2
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 20e6
    # Brackets 990 deep are legal; all others are refused.
    assert table.rows.tolist() == [8]
    assert all(len(s.value) <= 120 and len(s.reason) < 400 for s in table.skipped)
    assert f"at most {MAX_LENGTH}" in table.skipped[0].reason
    assert "spreadsheet" in table.skipped[-1].reason
    with pytest.raises(CompositionError, match="row 0"):
        parse_compositions([10**5000])


@pytest.mark.parametrize(
    "content",
    [
        {"Na": 1.0, "O": 1.0, "Ac": 1.0},
        {"Fe": 1.0, "C": 13.0},
        {"Na": 1.0, "C": 1.0, "I": 1.0},
        {"K": 1.0, "C": 1.0, "O": 7.0, "Fe": 1.0},
        {"Li": 1.0, "Po": 4.0},
        {"Ts": 1.0, "O": 1.0},
        {"Al": 203.0},
        {"Gd": 1.0, "Ru": 1212.0},
        {"H": 20.0},
        {"Y": 1.0, "B": 1.0, "C": 1.0, "O": 1.0},
        {"Ti": 64.0},
    ],
)
def test_what_is_written_is_not_refused(content: dict[str, float]) -> None:
    written = format_formula([SYMBOLS.index(s) + 1 for s in content], list(content.values()))
    assert parse_formula(written) == content


# --- fuzz -------------------------------------------------------------------------------------------------------------


def _mutated(text: str, rng: random.Random) -> str:
    """One to three edits of a formula."""
    pool = "0123456789.,()[]{}·×*+-/%:; exδα□₂²ABCHINOPSVWcelrst'"
    for _ in range(rng.randint(1, 3)):
        at = rng.randrange(len(text) + 1)
        kind = rng.randrange(4)
        if kind == 0:
            text = text[:at] + rng.choice(pool) + text[at:]
        elif kind == 1:
            text = text[:at] + text[at + 1 :]
        elif kind == 2:
            text = text[:at] + text[at : at + 2][::-1] + text[at + 2 :]
        else:
            text = text[:at] + rng.choice(WILD)["text"][:8] + text[at:]
    return text


def _by_pymatgen(text: str) -> dict[str, float] | None:
    """Reading of pymatgen where it is right: ASCII without separators, amounts without exponents."""
    from pymatgen.core import Composition

    if not re.fullmatch(r"[A-Za-z0-9.()\[\]{}]+", text) or re.search(r"[a-z0-9]e|[0-9]E|\.(?![0-9])", text):
        return None
    try:
        return {s: a for s, a in Composition(text).get_el_amt_dict().items() if a}
    except ValueError:
        return None


def test_mutated_formulas_give_what_pymatgen_reads_or_one_sentence() -> None:
    rng = random.Random(0)  # noqa: S311 - no secret
    seeds = [case["text"] for case in WILD if "same_as" in case] + ["Fe2O3", "Ca(OH)2", "K4[Fe(CN)6]", "La0.7Sr0.3MnO3"]
    slowest = 0.0
    for _ in range(FUZZ_FORMULAS):
        text = _mutated(rng.choice(seeds), rng)
        start = time.process_time()
        table = parse_compositions([text], on_error="skip")
        slowest = max(slowest, time.process_time() - start)
        if table.skipped:
            assert "reading it failed" not in table.skipped[0].reason, text
            continue
        mine = parse_formula(text)
        theirs = _by_pymatgen(text)
        hydrate = re.search(r"\.[0-9]+\(?H2O\)?$", text)  # pymatgen takes the full stop for a decimal point
        if theirs is None or hydrate or table.notes or not set(theirs) <= set(SYMBOLS):
            continue
        assert mine == pytest.approx(theirs, rel=1e-9), text
    assert slowest < 0.5


@given(st.text(alphabet=st.characters(codec="utf-8"), max_size=40))
@settings(max_examples=500, derandomize=True)
def test_any_text_is_read_or_refused(text: str) -> None:
    table = parse_compositions([text], on_error="skip")
    assert len(table) + len(table.skipped) == 1
    assert all("reading it failed" not in s.reason for s in table.skipped)
    assert np.all(table.amounts > 0)


def test_any_object_is_read_or_refused() -> None:
    values: list[Any] = [object(), [], (), {1: 2}, {"Fe": None}, {"Fe": object()}, 1j, True, np.array([1]), np.nan, b""]
    assert len(parse_compositions(values, on_error="skip").skipped) == len(values)
