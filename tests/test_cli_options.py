"""The same options everywhere: what a command can use it has, under one name, with a metavar that speaks."""

from __future__ import annotations

import enum
import inspect
import json
import typing
from collections.abc import Iterator
from typing import Any

import pandas as pd
import pytest
import typer
from typer.testing import CliRunner

from scotl_matgl.cli.main import app

# What a command can be given where the thing exists for it. `-` in its place below says why it does not.
SHARED = ("--unit", "--task", "--seed", "--jobs", "--output", "--format")

FIXED = "the bundled table has its unit and its kind of target, and its ranking is the one that the README shows"
LISTS = "it lists what is there"
WORDS = "it says in words how things stand; there are no data to keep"
ONE_FILE = "its result is one file of one form"
TEXT = "its summary is for reading; the CSV of --output has all that was measured"
CARD = "the property belongs to the crystals, and so do unit and kind"
STORED = "the model has them from its fit"

# Command to the shared options that it lacks, each with the reason. A command that is not listed has all of them.
LACKS: dict[str, dict[str, str]] = {
    "rank": {},
    "demo": {"--unit": FIXED, "--task": FIXED, "--seed": FIXED},
    "fit": {"--format": ONE_FILE},
    "predict": {"--unit": STORED, "--task": STORED, "--seed": "nothing is drawn", "--format": "the ending says it"},
    "evaluate": {"--format": TEXT},
    "curve": {"--format": TEXT},
    "validate": {"--format": TEXT},
    "trade": {"--task": "errors are numbers", "--jobs": "it takes a second"},
    "encode": {"--unit": CARD, "--task": CARD, "--format": "the ending says it"},
    "train": {"--task": "sources are trained on numbers", "--format": ONE_FILE},
    "bridge build": {"--unit": CARD, "--task": CARD, "--format": ONE_FILE},
    "bridge show": dict.fromkeys(("--unit", "--task", "--seed", "--jobs"), LISTS),
    "zoo list": dict.fromkeys(("--unit", "--task", "--seed", "--jobs"), LISTS),
    "zoo show": dict.fromkeys(("--unit", "--task", "--seed", "--jobs"), LISTS),
    "zoo add": {"--task": CARD, "--output": "it goes where the zoo is kept", "--format": ONE_FILE},
    "zoo remove": dict.fromkeys(SHARED, "it takes away and says what"),
    "data fetch": dict.fromkeys(SHARED, "it fetches one file to where rankings look for it"),
    "cache info": dict.fromkeys(("--unit", "--task", "--seed", "--jobs"), LISTS),
    "cache verify": dict.fromkeys(SHARED, WORDS),
    "cache prune": dict.fromkeys(SHARED, "it deletes and says what"),
    "doctor": dict.fromkeys(SHARED, WORDS),
}

# Commands that read the user's table, and the options by which they do.
READS_A_TABLE = ("rank", "fit", "predict", "evaluate", "curve", "validate")
OF_TABLES = ("--formula", "--sheet", "--amounts", "--structures")

METAVARS = {
    "TABLE", "FILE", "FILE.html", "FOLDER", "MODEL", "URL", "COLUMN", "SHEET", "UNIT", "SOURCE", "NAME", "NAME,...",
    "HEAD", "LAYER", "DEVICE", "FORMULA", "N", "N,...", "NUMBER", "MINUTES", "MB", "TEXT", "CRYSTALS",
}  # fmt: skip

SHORT = {"-o": "--output", "-s": "--sources"}


def commands(group: typer.Typer = app, before: str = "") -> Iterator[tuple[str, dict[str, tuple[Any, Any]]]]:
    """Every command by its words, and its parameters: type and how typer was told."""
    for command in group.registered_commands:
        assert command.callback is not None
        name = command.name or command.callback.__name__.replace("_", "-")
        parameters = inspect.signature(command.callback, eval_str=True).parameters
        yield before + name, {key: typing.get_args(one.annotation)[:2] for key, one in parameters.items()}
    for inner in group.registered_groups:
        assert inner.typer_instance is not None
        yield from commands(inner.typer_instance, f"{before}{inner.name} ")


COMMANDS = dict(commands())


def names(told: Any) -> list[str]:
    """What an option is called as; the first name stands in the place of the default where it is annotated."""
    return [one for one in (told.default, *(told.param_decls or ())) if isinstance(one, str) and one.startswith("-")]


def options(command: str) -> dict[str, tuple[Any, Any]]:
    """Long names of the options of a command."""
    found = {}
    for name, (kind, told) in COMMANDS[command].items():
        if isinstance(told, typer.models.OptionInfo):
            declared = [one for one in names(told) if one.startswith("--")] or ["--" + name.replace("_", "-")]
            assert len(declared) == 1, f"{command} has {declared} for one thing"
            found[declared[0].partition("/")[0]] = kind, told
    return found


def test_every_command_has_the_shared_options_that_it_can_use_and_the_reason_for_each_that_it_lacks() -> None:
    assert set(COMMANDS) == set(LACKS)
    lacks = {name: set(SHARED) - set(options(name)) for name in COMMANDS}
    assert lacks == {name: set(reasons) for name, reasons in LACKS.items()}


@pytest.mark.parametrize("command", READS_A_TABLE)
def test_commands_that_read_a_table_read_it_by_the_same_options(command: str) -> None:
    assert set(OF_TABLES) <= set(options(command))


def test_every_option_with_a_value_has_a_metavar_that_speaks() -> None:
    silent = []
    for command, parameters in COMMANDS.items():
        for name, (kind, told) in parameters.items():
            plain = next((one for one in typing.get_args(kind) if one is not type(None)), kind)
            chosen = isinstance(plain, type) and issubclass(plain, enum.Enum)  # typer writes the choices themselves
            if plain is not bool and not chosen and told.metavar not in METAVARS:
                silent.append((command, name, told.metavar))
            assert told.help, (command, name)
    assert silent == []


def test_a_short_option_means_one_thing_and_an_option_has_one_name_and_one_kind_of_value() -> None:
    short: dict[str, set[str]] = {}
    metavars: dict[str, set[str]] = {}
    for command in COMMANDS:
        for name, (_, told) in options(command).items():
            for one in names(told):
                if not one.startswith("--"):
                    short.setdefault(one, set()).add(name)
            if told.metavar and name not in ("--property", "--output"):
                metavars.setdefault(name, set()).add(told.metavar)
            assert not told.hidden
    assert short == {key: {name} for key, name in SHORT.items()}
    assert {name: found for name, found in metavars.items() if len(found) > 1} == {}
    assert not any("--threads" in options(command) for command in COMMANDS)  # --jobs everywhere


@pytest.mark.parametrize(
    "words", [("zoo", "list"), ("zoo", "show", "MEGNet*"), ("bridge", "show", "MEGNet*"), ("cache", "info")]
)
@pytest.mark.parametrize("form", ["table", "json", "csv"])
def test_what_is_written_to_a_file_is_what_is_printed(words, form, tmp_path, monkeypatch) -> None:
    monkeypatch.setenv("SCOTL_MATGL_HOME", str(tmp_path / "home"))
    (tmp_path / "home").mkdir()
    (tmp_path / "home" / "one.partial").write_bytes(b"12345")
    printed = CliRunner().invoke(app, [*words, "--format", form])
    assert printed.exit_code == 0, printed.output
    path = tmp_path / "out"
    written = CliRunner().invoke(app, [*words, "--format", form, "-o", str(path)])
    assert (written.exit_code, written.stdout) == (0, "")
    assert f"written to {path}" in written.stderr
    assert path.read_text().rstrip("\n") == printed.stdout.rstrip("\n")
    if form == "table":
        return
    rows = json.loads(printed.stdout) if form == "json" else pd.read_csv(path).to_dict("records")
    if words[0] == "cache":
        assert [(row["kind"], row["files"], row["bytes"]) for row in rows] == [("unfinished", 1, 5)]
    else:
        listed = json.loads(CliRunner().invoke(app, [*words, "--format", "json"]).stdout)
        assert len(rows) == len(listed) > 3
