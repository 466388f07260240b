"""The command line: every command, its exit codes, and what goes to which stream."""

from __future__ import annotations

import csv
import io
import json
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from scotl_matgl import load_example
from scotl_matgl.bridges.store import shipped_folder
from scotl_matgl.chemistry.formulas import CompositionError
from scotl_matgl.cli import console
from scotl_matgl.cli.console import columns_of
from scotl_matgl.cli.main import main
from scotl_matgl.cli.rank import _next_command
from scotl_matgl.exceptions import InputError
from scotl_matgl.sources.cards import all_cards
from scotl_matgl.vocabulary import NO_TRANSFER

ENTHALPY = "MEGNet-MP-2018.6.1-Eform"
GAPS = {f"MEGNet-MP-2019.4.1-BandGap-mfi-{state}" for state in ("GLLB-SC", "HSE", "PBE", "SCAN")}


@pytest.fixture(autouse=True)
def home_of_its_own(tmp_path, monkeypatch) -> None:
    monkeypatch.setenv("SCOTL_MATGL_HOME", str(tmp_path / "home"))
    monkeypatch.delenv("SCOTL_MATGL_TRACEBACK", raising=False)


@pytest.fixture
def command(monkeypatch, capsys):
    """Run main() with arguments; gives exit code, standard output and standard error."""

    def run(*arguments: str | Path) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["scotl-matgl", *map(str, arguments)])
        with pytest.raises(SystemExit) as done:
            main()
        captured = capsys.readouterr()
        return int(done.value.code or 0), captured.out, captured.err

    return run


@pytest.fixture
def table(tmp_path) -> Path:
    path = tmp_path / "measured.csv"
    example = load_example().iloc[::40]
    example.rename(columns={"formula": "composition", "target": "enthalpy"}).to_csv(path, index=False)
    return path


def rank(table: Path, *more: str | Path) -> list[str | Path]:
    columns = ["--formula", "composition", "--target", "enthalpy"]
    return ["rank", table, *columns, "--sources", "M*GNet-MP-2018.6.1-Eform", "--estimators", "loo,logme", *more]


# -- zoo --------------------------------------------------------------------------------------------------------------


def test_zoo_list_shows_every_source(command) -> None:
    code, out, err = command("zoo", "list")
    assert (code, err) == (0, "")
    for card in all_cards():
        (line,) = [line for line in out.splitlines() if line.split()[:1] == [card.name]]
        assert card.property[:8] in line
        assert ("formulas" if card.modality == "composition" else "crystals") in line.split()
    assert max(map(len, out.splitlines())) <= 80
    assert out.splitlines()[-1].startswith(f"{len(all_cards())} sources, ")


def test_zoo_list_filters_and_formats(command) -> None:
    code, out, _ = command("zoo", "list", "--property", "BAND", "--zoo", "matgl", "--format", "json")
    rows = json.loads(out)
    assert code == 0
    assert {row["name"] for row in rows} == GAPS
    assert all(row["rankable"] for row in rows)
    _, out, _ = command(
        "zoo", "list", "--zoo", "matgl", "--architecture", "megnet", "--dataset", "2018", "--format", "csv"
    )
    (row,) = csv.DictReader(io.StringIO(out))
    assert (row["name"], row["unit"], row["width"], row["rankable"]) == (ENTHALPY, "eV/atom", "160", "True")
    assert (
        json.loads(command("zoo", "list", "--modality", "composition", "--zoo", "matgl", "--format", "json")[1]) == []
    )


def test_rankable_means_a_bridge_is_there(command, monkeypatch, tmp_path) -> None:
    monkeypatch.setattr("scotl_matgl.bridges.store.shipped_folder", lambda: tmp_path)
    rows = json.loads(command("zoo", "list", "--format", "json")[1])
    assert len(rows) == len(all_cards())
    assert {row["modality"] for row in rows if row["rankable"]} == {"composition"}  # these need none


def test_zoo_show(command) -> None:
    code, out, _ = command("zoo", "show", ENTHALPY.lower())
    assert code == 0
    assert f"name  {ENTHALPY}\n" in out
    assert "citation  " in out
    assert "licence  " in out
    shown = json.loads(command("zoo", "show", ENTHALPY, "--format", "json")[1])
    (card,) = [card for card in all_cards() if card.name == ENTHALPY]
    assert shown == json.loads(json.dumps(card.to_dict()))
    code, out, err = command("zoo", "show", "MEGNet-MP-2018.6.1-Efrom")
    assert (code, out) == (2, "")
    assert err.startswith("error: There is no source 'MEGNet-MP-2018.6.1-Efrom'; did you mean MEGNet-")


# -- bridge -----------------------------------------------------------------------------------------------------------


def test_bridge_show_gives_the_recorded_quality(command) -> None:
    code, out, _ = command("bridge", "show", ENTHALPY, "--format", "json")
    shown, final = sorted(json.loads(out), key=lambda row: row["provenance"]["layer"], reverse=True)
    assert code == 0
    assert [item["provenance"]["layer"] for item in (shown, final)] == ["readout", "final"]
    assert Path(shown["path"]).parent == shipped_folder()
    assert shown["provenance"]["source"] == ENTHALPY
    quality = shown["quality"]
    assert quality["median_r2"] >= 0.68
    assert quality["median_r2"] == pytest.approx(np.nanmedian(quality["r2"]))
    _, out, _ = command("bridge", "show")
    lines = out.splitlines()
    assert sorted(line.split()[0] for line in lines[2:-2]) == sorted(file.stem.split("--")[0] for file in _shipped())
    (line,) = [line for line in lines if line.split()[:3] == [ENTHALPY, "shipped", "readout"]]
    assert f" {quality['median_r2']:.3f} " in line
    assert len({len(line) for line in lines[2:-2]}) == 1


def _shipped() -> list[Path]:
    return list(shipped_folder().glob("*.safetensors"))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("bridge", "show", "nobody"), "there is no bridge for 'nobody'"),
        (("bridge", "build", "--structures", "none.cif"), "there is no file or folder none.cif"),
        (("bridge", "build", "--structures", ".", "--kind", "rigde"), "Unknown bridge 'rigde'; did you mean 'ridge'?"),
        (("bridge", "build", "--structures", ".", "--descriptor", "x"), "Unknown descriptor 'x'"),
        (("encode", "--structures", "none.cif"), "there is no file or folder none.cif"),
    ],
)
def test_wrong_names_and_files_are_bad_input(command, arguments, message) -> None:
    code, out, err = command(*arguments)
    assert (code, out) == (2, "")
    assert err.startswith(f"error: {message}")
    assert err.count("\n") == 1


# -- rank -------------------------------------------------------------------------------------------------------------


def test_rank_prints_the_answer_on_stdout_and_the_next_command_beside_it(command, table) -> None:
    code, out, err = command(*rank(table, "--unit", "eV/atom"))
    options = "--formula composition --target enthalpy --unit eV/atom --sources 'M*GNet-MP-2018.6.1-Eform'"
    assert (code, err) == (0, f"\nnext: scotl-matgl fit {table} {options} -o model.skops\n")
    assert "eV/atom" in out.splitlines()[0]
    assert ENTHALPY in out
    assert NO_TRANSFER in out


@pytest.mark.slow
def test_the_next_command_reads_the_same_rows_and_asks_the_same_sources(command, table, tmp_path) -> None:
    settings = ["--head", "kernel ridge", "--layer", "final", "--layer", "readout", "--seed", "3"]
    with_column = ["--column", "temperature", "--task", "regression", "--polymorphs", "apart", *settings]
    by_weight = ["--amounts", "weight", "--sources", "SCOTL-MEGNet-Eform", "--head", "kernel ridge"]
    steels = [f"Fe{100 - chromium - nickel}Cr{chromium}Ni{nickel}" for chromium in (10, 15, 20) for nickel in range(8)]
    formulas = {"--column": pd.read_csv(table)["composition"], "--amounts": pd.Series(steels)}
    for options in (with_column, by_weight):
        frame = pd.DataFrame({"composition": formulas[options[0]]}).assign(temperature=300.0, enthalpy=0.0)
        frame["temperature"] += frame.index
        frame["enthalpy"] += np.sin(frame.index)
        frame.to_csv(table, index=False)
        code, _, err = command(*rank(table, *options))
        assert code == 0, err
        told = shlex.split(err.split("next: ")[1])[1:]
        columns = [("--formula", "composition"), ("--target", "enthalpy"), ("--sources", "M*GNet-MP-2018.6.1-Eform")]
        assert sorted(zip(told[2:-2:2], told[3:-2:2], strict=True)) == sorted(
            [*columns, *zip(options[::2], options[1::2], strict=True)]
        )
        assert (told[:2], told[-2:]) == (["fit", str(table)], ["-o", "model.skops"])
    # And it can be given as it is: the amounts of the model's table are percents by weight too.
    assert command(*told[:-1], tmp_path / "model.skops")[0] == 0


def test_the_next_command_can_be_given_as_it_is() -> None:
    assert _next_command(Path("-mine.csv"), {}) == "scotl-matgl fit ./-mine.csv -o model.skops"
    assert _next_command(Path("my table.csv"), {"seed": 3, "layer": ["a", "b"]}) == (
        "scotl-matgl fit 'my table.csv' --seed 3 --layer a --layer b -o model.skops"
    )
    assert _next_command(Path("-"), {}) == "scotl-matgl fit TABLE -o model.skops"  # standard input is used up


@pytest.mark.slow
def test_rank_as_json_csv_and_file_agree(command, table, tmp_path) -> None:
    content = json.loads(command(*rank(table, "--format", "json"))[1])
    assert content["target"] == "enthalpy"
    assert content["n_rows"] == len(pd.read_csv(table))
    assert {"loo", "logme"} < set(content["ranking"][0]) | set(content["ranking"][-1])
    rows = list(csv.DictReader(io.StringIO(command(*rank(table, "--format", "csv"))[1])))
    assert [row["source"] for row in rows] == [row["source"] for row in content["ranking"]]
    assert [float(row["error"]) for row in rows] == [row["error"] for row in content["ranking"]]
    output = tmp_path / "ranking.json"
    code, out, err = command(*rank(table, "--format", "json", "--output", output))
    assert (code, out, err) == (0, "", f"written to {output}\n")
    written = json.loads(output.read_text())
    assert [row["error"] for row in written["ranking"]] == [row["error"] for row in content["ranking"]]


@pytest.mark.slow
def test_rank_options_reach_the_ranker(command, table) -> None:
    options = ["--seed", "3", "--max-rows", "20", "--look-up", "off", "--jobs", "2", "--descriptor", "standard"]
    content = json.loads(command(*rank(table, "--format", "json", *options))[1])
    assert content["settings"]["random_state"] == 3
    assert content["settings"]["look_up"] is False
    default = json.loads(command(*rank(table, "--format", "json"))[1])
    assert content["control_errors"] != default["control_errors"]
    labels = json.loads(command(*rank(table, "--format", "json", "--task", "regression"))[1])
    assert labels["task"] == "regression"
    alone = json.loads(command(*rank(table, "--format", "json", "--combine", "embedding"))[1])
    assert (alone["combine"], alone["head"]) == ("embedding", "random forest on descriptors")
    assert default["combine"] == "concat"
    assert default["head"] != "random forest"


@pytest.mark.slow
def test_rank_lists_bad_rows_and_goes_on(command, table) -> None:
    lines = table.read_text().splitlines()
    bad = ["NaN,-1.0,0.01", "FE2O3,-1.0,0.01", "MgF2,n/a,0.01", "MgF2,,0.01"]
    table.write_text("\n".join([lines[0], *bad, *lines[1:]]) + "\n")
    code, out, err = command(*rank(table, "--format", "json"))
    content = json.loads(out)
    assert (code, err) == (0, "")
    assert [(row["row"], row["value"]) for row in content["skipped"]] == [
        (0, "'NaN'"), (1, "'FE2O3'"), (2, "'n/a'"), (3, "None"),
    ]  # fmt: skip
    assert content["n_rows"] == len(lines) - 1
    _, out, _ = command(*rank(table))
    assert "* rows skipped: 4: row 0 ('NaN'): 'NaN' marks a missing value" in out


@pytest.mark.slow
def test_rank_class_labels(command, table) -> None:
    frame = pd.read_csv(table, keep_default_na=False)
    frame["enthalpy"] = np.where(frame["enthalpy"] < -1, "stable", "loose")
    frame.to_csv(table, index=False)
    content = json.loads(command(*rank(table, "--format", "json"))[1])
    assert content["task"] == "classification"
    assert set(content["unscored"]) == {"loo"}
    assert 0 <= content["ranking"][0]["error"] <= 1


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (["--formula", "formula"], "has no column 'formula' for the formula; it has: composition, enthalpy"),
        (["--target", "gap"], "has no column 'gap' for the target; it has: composition, enthalpy"),
        (["--sources", "nobody"], "There is no source 'nobody'"),
        (["--estimators", "lo"], "Unknown estimator 'lo'; did you mean 'loo'?"),
        (["--descriptor", "standart"], "Unknown descriptor 'standart'; did you mean 'standard'?"),
        (["--output", "no/such/folder/x.json"], "there is no folder no/such/folder to write x.json into"),
        (["--output", "."], ". is a folder; give the name of a file"),
        (["--max-rows", "3"], "max_rows is 3; it must be a whole number of at least 10"),
    ],
)  # fmt: skip
def test_bad_input_ends_with_2_and_one_sentence(command, table, change, message) -> None:
    code, out, err = command(*rank(table, *change))
    assert (code, out) == (2, "")
    assert err.startswith("error: ")
    assert message in err
    assert "Traceback" not in err
    assert err.count("\n") == 1


def test_tables_that_cannot_be_ranked(command, tmp_path, table) -> None:
    code, _, err = command(*rank(tmp_path / "none.csv"))
    assert (code, err) == (
        2,
        f"error: there is no file {tmp_path / 'none.csv'}; "
        "give the path of a CSV, TSV, Excel, JSON or Parquet table\n",
    )  # fmt: skip
    table.write_text("composition,enthalpy\nNaCl,1\nMgO,2\n")
    code, _, err = command(*rank(table))
    assert (code, err) == (2, "error: only 2 different compositions can be used of 2 rows; at least 10 are needed\n")


def test_usage_errors_end_with_2(command, table) -> None:
    for arguments in (["rank"], rank(table, "--format", "yaml"), rank(table, "--jobs", "many"), ["no-such-command"]):
        code, out, err = command(*arguments)
        assert (code, out) == (2, "")
        assert err.startswith("Usage: ")


@pytest.mark.slow
def test_no_source_that_can_be_ranked_ends_with_1(command, table, monkeypatch, tmp_path) -> None:
    monkeypatch.setattr("scotl_matgl.bridges.store.shipped_folder", lambda: tmp_path)
    code, out, _ = command(*rank(table))
    assert code == 1
    assert out.startswith("No source could be ranked; mean absolute error 0.")
    assert "`scotl-matgl bridge build --sources" in out.replace("\n  ", " ")


# -- which errors are whose -------------------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize(
    ("error", "code"),
    [
        (InputError("this is yours"), 2),
        (CompositionError("row 3", ()), 2),
        (FileNotFoundError(2, "No such file", "x.csv"), 2),
        (PermissionError(13, "Permission denied", "x.csv"), 2),
        (KeyError("error"), 1),
        (IndexError("index 5 is out of bounds"), 1),
        (ValueError("operands could not be broadcast together"), 1),
        (TypeError("unsupported operand"), 1),
        (OSError(28, "No space left on device"), 1),
        (RuntimeError("it broke"), 1),
    ],
)
def test_a_fault_of_ours_is_not_called_bad_input(command, monkeypatch, error, code) -> None:
    def fail(*_: Any, **__: Any) -> None:
        raise error

    monkeypatch.setattr("scotl_matgl.sources.cards.all_cards", fail)
    found, out, err = command("zoo", "show", "x")
    assert (found, out) == (code, "")
    assert str(error) in err
    assert ("SCOTL_MATGL_TRACEBACK=1 shows where it happened" in err) == (code == 1)
    assert (type(error).__name__ in err) == (code == 1)
    monkeypatch.setenv("SCOTL_MATGL_TRACEBACK", "1")
    monkeypatch.setattr(sys, "argv", ["scotl-matgl", "zoo", "show", "x"])
    with pytest.raises(type(error)):
        main()


def test_progress_is_silent_where_nobody_watches(capsys) -> None:
    with console.progress_bar("ranking", delay=0.0) as update:
        for step in range(5):
            update(step, 5)
    captured = capsys.readouterr()
    assert (captured.out, captured.err) == ("", "")


def test_progress_shows_on_a_terminal_and_cleans_up(monkeypatch) -> None:
    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    terminal = Terminal()
    monkeypatch.setattr(sys, "stderr", terminal)
    monkeypatch.setenv("TERM", "xterm")
    with console.progress_bar("ranking", delay=1e6) as update:
        update(1, 5)
    assert terminal.getvalue() == ""  # over before it was worth a bar
    with console.progress_bar("ranking", delay=-1.0) as update:
        update(1, 5)
        update(4, 5)
    assert "ranking" in terminal.getvalue()


# -- as a process -----------------------------------------------------------------------------------------------------


def process(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    line = [sys.executable, "-m", "scotl_matgl", *map(str, arguments)]
    return subprocess.run(line, capture_output=True, text=True, check=False)  # noqa: S603 - our own command


@pytest.mark.slow
def test_exit_codes_and_streams_of_the_process(table) -> None:
    done = process(*rank(table, "--format", "json"))
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    listed = {row["source"] for row in json.loads(done.stdout)["ranking"]}
    assert listed == {ENTHALPY, NO_TRANSFER, "M3GNet-MP-2018.6.1-Eform", "first two together"}
    done = process("rank", "none.csv")
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith("error: there is no file none.csv")


@pytest.mark.parametrize(
    ("command_line", "words"),
    [
        ((), ("rank", "demo", "zoo", "bridge", "encode")),
        (("rank",), ("--formula", "--target", "--sheet", "--sources", "--look-up", "--format", "--output")),
        (("demo",), ("bundled",)),
        (("encode",), ("--structures", "--layer", "--device")),
        (("zoo",), ("list", "show")),
        (("zoo", "list"), ("--property", "--architecture", "--modality")),
        (("zoo", "show"), ("name",)),
        (("bridge",), ("build", "show")),
        (("bridge", "build"), ("--structures", "--kind", "--descriptor", "--output")),
        (("bridge", "show"), ("name",)),
    ],
)
def test_help_of_every_command(command, monkeypatch, command_line, words) -> None:
    monkeypatch.setenv("COLUMNS", "120")
    code, out, err = command(*command_line, "--help")
    assert (code, err) == (0, "")
    for word in words:
        assert word in out.lower()


def test_rank_finds_columns_and_takes_a_sheet(command, tmp_path: Path) -> None:
    book = tmp_path / "book.xlsx"
    with pd.ExcelWriter(book) as writer:
        for sheet in "AB":
            pd.DataFrame({"compound": ["NaCl", "MgO"], "gap": [1.5, 2.5]}).to_excel(
                writer, sheet_name=sheet, index=False
            )
    _, _, err = command("rank", book, "--sheet", "B")
    assert "column 'compound' is taken as the formula (--formula)" in err
    assert "sheet 'B' is taken" not in err
    code, _, err = command("rank", book)
    assert (code, "several sheets with such a table: A, B; name one (sheet=; `rank --sheet`)" in err) == (2, True)
    with pd.ExcelWriter(book, mode="a", if_sheet_exists="replace") as writer:
        pd.DataFrame({"note": ["typed from the paper"]}).to_excel(writer, sheet_name="A", index=False)
    assert "sheet 'B' is taken (--sheet)" in command("rank", book)[2]


# -- the two tables of the assets -------------------------------------------------------------------------------------


def ranked(command, path: Path) -> dict[str, Any]:
    arguments = ["rank", path, "--formula", "composition", "--target", "target", "--format", "json"]
    code, out, err = command(*arguments, "--sources", "MEGNet-MP-*", "--estimators", "loo")
    assert (code, err) == (0, "")
    return json.loads(out)


def test_measured_enthalpies_put_the_enthalpy_source_above_all_gap_sources(command, assets) -> None:
    content = ranked(command, assets / "targets" / "expt_formation_enthalpy.csv")
    by_name = {row["source"]: row for row in content["ranking"]}
    order = [name for name in by_name if name != "first five together"]
    assert (content["best"], content["verdict"]) == (order[0], "yes")
    assert order[0] == ENTHALPY
    assert set(order) == {ENTHALPY, NO_TRANSFER, *GAPS}
    assert by_name[ENTHALPY]["p_best"] > 0.99


def test_measured_gaps_put_a_gap_source_first(command, assets) -> None:
    content = ranked(command, assets / "targets" / "expt_gap_nonmetals.csv")
    order = [row["source"] for row in content["ranking"] if row["source"] in {ENTHALPY, *GAPS}]
    assert order[0] in GAPS
    assert min(content["ranking"], key=lambda row: row["loo_rmse"] or np.inf)["source"] in GAPS


# -- what is installed ------------------------------------------------------------------------------------------------


def test_version_and_doctor_tell_what_is_installed(command, monkeypatch) -> None:
    from scotl_matgl import __version__
    from scotl_matgl.cli import doctor

    assert command("--version")[:2] == (0, f"scotl-matgl {__version__}\n")
    monkeypatch.setattr(doctor, "_is_there", lambda module: module not in ("torch", "pyarrow", "scotl_matgl_cgcnn"))
    code, out, _ = command("doctor")
    assert code == 0
    assert "torch  missing: pip install 'scotl-matgl[matgl]'" in out
    assert "pyarrow  missing: pip install 'scotl-matgl[parquet]'" in out
    assert "matplotlib  installed" in out
    assert f"{len(all_cards())} sources" in out
    assert "torch is missing" in out
    composition = sum(card.modality == "composition" for card in all_cards())
    assert f"{composition} can be encoded here" in out


def test_the_second_column_of_a_table_gives_way() -> None:
    rows = [{"name": "a" * 20, "what": "b" * 30, "n": "1"}, {"name": "c", "what": "d", "n": "22"}]
    lines = columns_of(rows, right=("n",), widths=40).splitlines()
    assert {len(line) for line in lines} == {40}
    assert lines[2].startswith("a" * 20 + "  b")
    assert "…" in lines[2]
    assert lines[3].endswith("  22")


def test_completion_can_be_installed(command) -> None:
    assert "--install-completion" in command("--help")[1]
