"""Text of others: a terminal shows it, a spreadsheet does not run it, a plugin's output does not mix with ours."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest

from scotl_matgl import all_cards, registry
from scotl_matgl.sources.cards import CardError, SourceCard
from scotl_matgl.vocabulary import for_spreadsheets, visible

ODD = {"\x1b[2J": r"\x1b[2J", "\x9b1m": r"\x9b1m", "\r": r"\r", "\x08": r"\x08", "\x00": r"\x00", "\u202e": r"\u202e",
       "\u2066": r"\u2066", "\u200b": r"\u200b", "\u2028": r"\u2028", "\x7f": r"\x7f"}  # fmt: skip


@pytest.mark.parametrize(("text", "shown"), ODD.items(), ids=ascii)
def test_what_steers_a_terminal_is_spelt_out(text: str, shown: str) -> None:
    assert visible(f"Na{text}Cl") == f"Na{shown}Cl"
    assert visible(visible(text)) == visible(text)


def test_letters_of_all_scripts_and_lines_stay() -> None:
    text = "α-Al₂O₃ · 5 µm\n\tÅ ± 2 °C, 测量, e\u0301 …"
    assert visible(text) == text


def test_commands_show_no_control_characters_of_a_file(tmp_path: Path) -> None:
    table = tmp_path / "table.csv"
    table.write_text("formula,tar\x1b[2Jget\nNaCl,1\n")
    done = subprocess.run(  # noqa: S603 - our own command
        [sys.executable, "-m", "scotl_matgl", "rank", str(table), "--target", "x\x1b]0;title\x07"],
        capture_output=True, env=os.environ | {"PYTHONWARNINGS": "ignore"}, check=False,
    )  # fmt: skip
    assert done.returncode == 2
    assert b"\x1b" not in done.stdout + done.stderr
    assert rb"\x1b" in done.stderr


@pytest.mark.parametrize("field", ["property", "unit", "notes", "licence", "citation", "error_unit"])
def test_cards_hold_no_control_characters(field: str) -> None:
    with pytest.raises(CardError, match=field):
        SourceCard.from_dict(all_cards()[0].to_dict() | {field: "eV\x1b[2J"})


def test_text_cells_that_a_spreadsheet_would_run_are_quoted() -> None:
    frame = pd.DataFrame(
        {
            "=name": ["=1+1", "+cmd", "-NaCl", "@SUM(A1)", "\t=1", "\r=1", "NaCl", "-1.5", "+3e5", None],
            "number": [-1.0] * 10,
            "mixed": [1, "=x", *[None] * 8],
        }
    )
    safe = for_spreadsheets(frame)
    assert list(safe.columns) == ["'=name", "number", "mixed"]
    assert safe["'=name"].tolist()[:9] == ["'=1+1", "'+cmd", "'-NaCl", "'@SUM(A1)", "'\t=1", "'\r=1", "NaCl", "-1.5",
                                           "+3e5"]  # fmt: skip
    assert safe["number"].tolist() == [-1.0] * 10
    assert safe["mixed"].tolist()[:2] == [1, "'=x"]
    assert frame["=name"][0] == "=1+1"


def test_what_a_plugin_prints_goes_to_stderr(capsys: pytest.CaptureFixture[str]) -> None:
    def noisy() -> int:
        print("hello \x1b[2J")
        sys.stdout.close()
        print("again")
        return 3

    assert registry.in_limited_time("a noisy plugin", noisy) == 3
    print("ours")
    said = capsys.readouterr()
    assert said.out == "ours\n"
    assert said.err == "hello \\x1b[2J\nagain\n"
