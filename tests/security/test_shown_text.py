"""Text of others: a terminal shows it, a spreadsheet does not run it, a plugin's output does not mix with ours."""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

import scotl_matgl.cli
from scotl_matgl import all_cards, load_example, registry
from scotl_matgl.bridges.ridge import RidgeBridge
from scotl_matgl.cli.main import main
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


ESC = "\x1b[2J"


@pytest.fixture
def odd(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of files whose names, headers, cells, headers and comments hold a sequence that steers a terminal."""
    monkeypatch.setenv("SCOTL_MATGL_HOME", str(tmp_path / "home"))
    monkeypatch.chdir(tmp_path)
    table = (
        load_example().iloc[::60].astype(object).rename(columns={"formula": f"formula{ESC}", "target": f"target{ESC}"})
    )
    table.iloc[0, 0] = f"Na{ESC}Cl"
    table.iloc[1, 1] = f"1{ESC}"
    table.to_csv(tmp_path / f"table{ESC}.csv", index=False)
    load_example().head(20).to_excel(tmp_path / "book.xlsx", index=False, sheet_name="one")
    (tmp_path / "short.csv").write_text(f"formula,target\nNaCl,1\nNa{ESC}Cl,2\nKCl,{ESC}\n")
    (tmp_path / f"crystal{ESC}.cif").write_text(f"data_{ESC}\n_cell_length_a {ESC}\nloop_\n_odd{ESC}\n")
    (tmp_path / "crystals.json").write_text(
        f'[{{"id": "a{json.dumps(ESC)[1:-1]}", "structure": "b{json.dumps(ESC)[1:-1]}"}}]'
    )
    (tmp_path / f"model{ESC}.skops").write_bytes(b"no model")
    bridge = RidgeBridge().fit(*np.random.default_rng(0).normal(size=(2, 60, 6)))
    provenance = {"source": f"Toy{ESC}", "layer": "readout", "descriptor": ESC, "n_crystals": 1, "n_refused": 0}
    bridge.save(tmp_path / "home" / "bridges" / "Toy.safetensors", provenance)
    (tmp_path / "home" / "bridges" / f"Odd{ESC}.safetensors").write_bytes(b"no bridge")
    note = tmp_path / "home" / "plugins" / "0.loading"
    note.parent.mkdir()
    note.write_text(f"odd{ESC} 1.0")
    return tmp_path


COLUMNS = f"--formula formula{ESC} --target target{ESC}"
COMMANDS = [
    f"rank table{ESC}.csv {COLUMNS} --unit eV{ESC} --sources MEGNet*Eform",
    f"rank table{ESC}.csv {COLUMNS} --sources MEGNet*Eform --format json",
    f"rank table{ESC}.csv --target no{ESC}",
    f"rank short.csv --sources no{ESC}",
    f"rank short.csv --estimators no{ESC}",
    f"rank book.xlsx --sheet no{ESC}",
    f"rank no{ESC}.csv",
    "fit short.csv -o model.skops",
    f"fit short.csv -o no{ESC}/model.skops",
    f"predict model{ESC}.skops NaCl",
    "evaluate short.csv",
    "curve short.csv --jobs 1",
    f"curve short.csv --sizes {ESC}",
    "validate short.csv --jobs 1",
    f"validate short.csv --scheme {ESC}",
    f"trade table{ESC}.csv --price-target 1 --price-source 1 --error 1",
    f"zoo show no{ESC}",
    f"zoo list --property no{ESC}",
    f"encode --structures crystal{ESC}.cif",
    "encode --structures crystals.json",
    f"bridge build --structures crystal{ESC}.cif",
    f"bridge build --structures crystals.json --kind no{ESC}",
    "bridge show",
    f"bridge show no{ESC}",
    f"train --structures crystal{ESC}.cif --property p{ESC} --unit eV{ESC} --output run{ESC}",
    f"data fetch no{ESC}.safetensors",
    "cache info",
    "cache verify",
]


@pytest.mark.slow
@pytest.mark.filterwarnings("default::scotl_matgl.exceptions.ScotlMatglWarning")
@pytest.mark.parametrize("command", COMMANDS, ids=ascii)
def test_no_command_shows_control_characters_of_others(
    odd: Path, command: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["scotl-matgl", *command.split()])
    with pytest.raises(SystemExit) as ended:
        main()
    said = "".join(capsys.readouterr())
    assert "\x1b" not in said
    assert said
    if ended.value.code:
        assert "TRACEBACK" not in said  # no fault of ours
        assert r"\x1b" in said


def test_commands_print_through_one_function() -> None:
    folder = Path(scotl_matgl.cli.__file__).parent
    printing = {
        path.name: len(re.findall(r"\b(?:echo|secho|print)\(", path.read_text())) for path in folder.glob("*.py")
    }
    assert {name: count for name, count in printing.items() if count} == {"console.py": 1}


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
