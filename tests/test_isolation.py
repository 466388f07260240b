"""A plugin that misbehaves costs one warning and its own row with the reason; the ranking of the others is the same."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import textwrap
import threading
import warnings
from collections.abc import Callable, Iterator
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from scotl_matgl import registry
from scotl_matgl.exceptions import PluginWarning, ScotlMatglWarning
from scotl_matgl.ranking.ranker import TransferabilityRanker
from scotl_matgl.sources.cards import all_cards
from scotl_matgl.tables.files import load_example

pytestmark = pytest.mark.slow  # starts processes

ZOO = """
import numpy as np
from scotl_matgl.sources.cards import SourceCard
from scotl_matgl.chemistry.compositions import parse_compositions

def cards():
    return [
        SourceCard(
            name="{name}-model", zoo="{name}", modality="composition", property="none", unit="1", dataset="none",
            architecture="fractions", layers={{"readout": 118}}, loader="{module}:load", licence="MIT", citation="me",
        )
    ]

class Encoder:
    layers = ("readout",)

    def __init__(self, card):
        self.card = card

    def encode(self, formulas, *, layer="readout"):
        return self.change(np.sqrt(parse_compositions(formulas).dense_fractions()).astype(np.float32))

    def change(self, values):
        return values

def load(card):
    return Encoder(card)
"""

Install = Callable[..., None]


@pytest.fixture
def install(tmp_path: Path) -> Iterator[Install]:
    """Put a distribution with a zoo on sys.path; only zoos of such distributions are seen."""
    with pytest.MonkeyPatch.context() as monkeypatch:
        yield from installer(tmp_path, monkeypatch)


def installer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Install]:
    site = tmp_path / "site"
    site.mkdir()
    monkeypatch.syspath_prepend(str(site))
    monkeypatch.setenv("SCOTL_MATGL_HOME", str(tmp_path / "home"))
    modules: list[str] = []
    found = metadata.entry_points

    def only_ours(**wanted: Any) -> Any:
        points = found(**wanted)
        if wanted.get("group") != registry.GROUPS["zoos"]:
            return points
        return [point for point in points if point.dist is not None and point.dist.name.startswith("isolation-")]

    monkeypatch.setattr(metadata, "entry_points", only_ours)

    def add(
        name: str, extra: str = "", *, before: str = "", entry: str = "cards", entry_name: str | None = None
    ) -> None:
        module = f"isolation_{name}_{tmp_path.name}".replace("-", "_")
        code = textwrap.dedent(before) + ZOO.format(name=name, module=module) + textwrap.dedent(extra)
        (site / f"{module}.py").write_text(code)
        info = site / f"isolation_{name}-1.2.dist-info"
        info.mkdir()
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: isolation-{name}\nVersion: 1.2\n")
        (info / "entry_points.txt").write_text(f"[scotl_matgl.zoos]\n{entry_name or name} = {module}:{entry}\n")
        modules.append(module)
        registry.refresh()

    yield add
    (tmp_path / "release").touch()  # lets what hangs go
    registry.refresh()
    for module in modules:
        sys.modules.pop(module, None)


@pytest.fixture(scope="module")
def table() -> pd.DataFrame:
    return load_example().iloc[::50].reset_index(drop=True)


@pytest.fixture(scope="module")
def alone(table: pd.DataFrame, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """What is found with the good zoo only."""
    with pytest.MonkeyPatch.context() as monkeypatch:
        for install in installer(tmp_path_factory.mktemp("alone"), monkeypatch):
            install("good")
            ranker, caught = ranked(table)
            assert caught == []
            assert ranker.errors_ == {}
            found = {
                "rows": rows_of(ranker),
                "control": ranker.ranking_.control,
                "embedding": ranker.transform(table["formula"]),
            }
    return found


def ranked(table: pd.DataFrame, **options: Any) -> tuple[TransferabilityRanker, list[warnings.WarningMessage]]:
    ranker = TransferabilityRanker(descriptor="stoichiometry", estimators=("loo", "logme"), **options)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        ranker.fit(table["formula"], table["target"])
    return ranker, [item for item in caught if issubclass(item.category, ScotlMatglWarning)]


def rows_of(ranker: TransferabilityRanker) -> list[tuple[Any, ...]]:
    """What was found for each source, the time aside."""
    return [
        (result.source, result.scores, result.loo_rmse, result.bridged, result.refused, loss.tolist())
        for result, loss in zip(ranker.ranking_.results, ranker.ranking_.losses, strict=True)
    ]


HANG = """
import pathlib, time
with open(r"{folder}/started", "a") as file:
    file.write("once\\n")
while not pathlib.Path(r"{folder}/release").exists():
    time.sleep(0.01)
"""

IN_ENCODE = """
def change(self, values):
    {}
Encoder.change = change
"""

CASES = {
    "fails to import": (
        "",
        {"before": "raise RuntimeError('broken build')\n"},
        "zoo bad",
        "RuntimeError: broken build",
    ),
    "is no Python": ("", {"before": "def:\n"}, "zoo bad", "SyntaxError"),
    "ends the interpreter on import": ("", {"before": "raise SystemExit(3)\n"}, "zoo bad", "SystemExit: 3"),
    "interrupts on import": ("", {"before": "raise KeyboardInterrupt\n"}, "zoo bad", "raises KeyboardInterrupt"),
    "hangs on import": ("", {"before": HANG}, "zoo bad", "has not come back after 0.3 s"),
    "needs a missing package": (
        "",
        {"before": "import no_such_package\n"},
        "zoo bad",
        "install the missing package 'no_such_package', or remove the distribution isolation-bad",
    ),
    "lacks what it registers": ("", {"entry": "kards"}, "zoo bad", "AttributeError"),
    "is no function": ("kards = 3", {"entry": "kards"}, "zoo bad", "'int' object is not callable"),
    "raises while it lists its cards": ("def cards(): raise OSError('disk')", {}, "zoo bad", "OSError: disk"),
    "ends the interpreter in its list": ("def cards(): raise SystemExit", {}, "zoo bad", "SystemExit"),
    "hangs while it lists its cards": (
        "def cards():\n" + textwrap.indent(HANG, "    "),
        {},
        "zoo bad",
        "the list of cards of zoo 'bad' has not come back after 0.3 s",
    ),
    "lists what is no card": (
        "def cards(): return ['bad-model']",
        {},
        "zoo bad",
        "lists a str, which is no SourceCard",
    ),
    "lists a card against the schema": (
        "def cards(): return [SourceCard.from_dict({'name': 'bad-model'})]",
        {},
        "zoo bad",
        "CardError: .*the fields zoo, .* are missing",
    ),
    "duplicates a name": (
        "import dataclasses\nmine = cards\n"
        "def cards(): return [dataclasses.replace(mine()[0], name='good-model', zoo='copy')]",
        {"entry_name": "zzz"},
        r"good-model \(zoo zzz\)",
        "isolation-bad 1.2 .*lists a name that zoo 'good' has",
    ),
    "needs a missing package to load": (
        "def load(card):\n    import no_such_package",
        {},
        "bad-model",
        "ModuleNotFoundError: No module named 'no_such_package'",
    ),
    "lacks its loader": ("del load", {}, "bad-model", "its loader .* cannot be imported: AttributeError"),
    "raises while it is loaded": ("def load(card): raise KeyError('w')", {}, "bad-model", "raises KeyError: 'w'"),
    "loads nothing": ("def load(card): pass", {}, "bad-model", "'NoneType' object has no attribute 'encode'"),
    "raises in encode": (IN_ENCODE.format("raise ZeroDivisionError('no')"), {}, "bad-model", "ZeroDivisionError: no"),
    "ends the interpreter in encode": (IN_ENCODE.format("raise SystemExit(1)"), {}, "bad-model", "SystemExit: 1"),
    "returns nothing": (IN_ENCODE.format("pass"), {}, "bad-model", r"returns object of the shape \(\)"),
    "returns too few rows": (IN_ENCODE.format("return values[1:]"), {}, "bad-model", r"of the shape \(34, 118\)"),
    "returns another width": (IN_ENCODE.format("return values[:, 1:]"), {}, "bad-model", r"of the shape \(35, 117\)"),
    "returns one dimension": (IN_ENCODE.format("return values[:, 0]"), {}, "bad-model", r"of the shape \(35,\)"),
    "returns texts": (IN_ENCODE.format("return values.astype(str)"), {}, "bad-model", "returns <U32"),
    "returns NaN in all rows": (
        IN_ENCODE.format("return values * np.float32('nan')"),
        {},
        "bad-model",
        "refuses every formula",
    ),
    "returns NaN here and there": (
        IN_ENCODE.format("values[2:4, 0] = np.nan; return values"),
        {},
        "bad-model",
        "NaN or infinite values in 2 rows, the first for",
    ),
    "returns inf": (
        IN_ENCODE.format("values[5, 0] = np.inf; return values"),
        {},
        "bad-model",
        "NaN or infinite values in 1 rows, the first for",
    ),
}


@pytest.mark.parametrize("case", CASES)
def test_a_plugin_that_misbehaves_costs_one_warning_and_its_own_row(
    case: str,
    install: Install,
    table: pd.DataFrame,
    alone: dict[str, Any],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    extra, options, row, reason = CASES[case]
    if "hangs" in case:
        monkeypatch.setenv(registry.TIMEOUT_VARIABLE, "0.3")
    install("good")
    options = {key: value.replace("{folder}", str(tmp_path)) for key, value in options.items()}
    install("bad", extra.replace("{folder}", str(tmp_path)), **options)
    beside, caught = ranked(table)
    assert len(caught) == 1
    ((failed, why),) = beside.errors_.items()
    assert_matches(row, failed)
    assert_matches(reason, why)
    assert_matches(reason, str(caught[0].message))
    assert rows_of(beside) == alone["rows"]
    np.testing.assert_array_equal(beside.ranking_.control, alone["control"])
    np.testing.assert_array_equal(beside.transform(table["formula"]), alone["embedding"])


def assert_matches(pattern: str, text: str) -> None:
    assert re.search(pattern, text), text


def test_a_name_that_two_distributions_register_costs_one_warning(
    install: Install, table: pd.DataFrame, alone: dict[str, Any]
) -> None:
    install("good")
    install("later", entry_name="good")
    beside, caught = ranked(table)
    assert [item.category for item in caught] == [PluginWarning]
    used = "'good' is registered more than once: isolation-good .* is used, isolation-later"
    assert_matches(used, str(caught[0].message))
    assert rows_of(beside) == alone["rows"]


def test_a_broken_zoo_that_was_not_asked_for_is_worth_a_warning_only(install: Install, table: pd.DataFrame) -> None:
    install("good")
    install("bad", before="raise RuntimeError('broken build')\n")
    ranker, caught = ranked(table, sources="good-model", on_error="raise")
    assert ranker.errors_ == {}
    assert [item.category for item in caught] == [PluginWarning]
    assert_matches("broken build", str(caught[0].message))


def test_all_that_fail_are_counted_in_one_warning(install: Install, table: pd.DataFrame) -> None:
    install("good")
    install("first", before="import no_such_package\n")
    install("second", IN_ENCODE.format("return values[1:]"))
    ranker, caught = ranked(table)
    assert len(caught) == 1
    assert set(ranker.errors_) == {"zoo first", "second-model"}
    assert_matches("^2 sources were not ranked", str(caught[0].message))
    _, silent = ranked(table, on_error="skip")
    assert silent == []


def test_a_formula_that_a_source_refuses_costs_neither(install: Install, table: pd.DataFrame) -> None:
    """Whole rows of NaN are the contract's way to refuse, and no fault."""
    install("good", IN_ENCODE.format("values[2:4] = np.nan; return values"))
    ranker, caught = ranked(table)
    assert caught == []
    assert ranker.ranking_.results[0].refused == 2


def test_what_hangs_is_started_once_and_used_when_it_is_ready(
    install: Install, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(registry.TIMEOUT_VARIABLE, "0.2")
    install("slow", before=HANG.replace("{folder}", str(tmp_path)))
    for _ in range(2):
        with pytest.warns(PluginWarning, match=r"has not come back after 0.2 s \(SCOTL_MATGL_PLUGIN_TIMEOUT"):
            assert all_cards() == []
    assert (tmp_path / "started").read_text() == "once\n"

    (tmp_path / "release").touch()
    for thread in threading.enumerate():
        if thread.name.startswith(registry.__name__):
            thread.join()
    assert [card.name for card in all_cards()] == ["slow-model"]
    assert (tmp_path / "started").read_text() == "once\n"


def test_an_interrupt_of_the_user_ends_the_wait(install: Install, tmp_path: Path) -> None:
    install("slow", before=HANG.replace("{folder}", str(tmp_path)))
    # A shell starts what runs in the background with interrupts ignored, and Python then leaves them so.
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    interrupt = threading.Timer(0.3, os.kill, (os.getpid(), signal.SIGINT))
    interrupt.start()
    try:
        with pytest.raises(KeyboardInterrupt):
            registry.load("zoos", "slow")
    finally:
        signal.signal(signal.SIGINT, before)


@pytest.mark.parametrize("setting", ["soon", "0", "-1", "nan"])
def test_a_limit_that_is_none_is_named(setting: str, install: Install, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(registry.TIMEOUT_VARIABLE, setting)
    install("good")
    with pytest.raises(registry.PluginError, match=f"PLUGIN_TIMEOUT is '{setting}'; it must be a number of seconds"):
        registry.load("zoos", "good")


def test_our_own_modules_are_imported_without_a_thread(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(registry, "in_limited_time", None)
    assert registry.load("estimators", "scotl").__name__ == "SCOTL"


def test_threads_that_ask_for_the_same_wait_also_for_one_that_is_about_to_start(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    first = registry._Work("the import of toys", lambda: 1)
    monkeypatch.setattr(registry.threading, "enumerate", lambda: [first])
    starter = threading.Timer(0.05, first.start)  # until then it is listed and not started, and cannot be joined
    starter.start()
    assert registry.in_limited_time("the import of toys", lambda: (first.value, 2)) == (1, 2)
    starter.join()


def test_threads_that_load_plugins_at_once_leave_stdout_where_it_was() -> None:
    code = (
        "import threading, time\n"
        "from scotl_matgl.registry import in_limited_time\n"
        "def load(k):\n"
        "    for n in range(20): in_limited_time(f'plugin {k} {n}', lambda: time.sleep(0.001 * k))\n"
        "threads = [threading.Thread(target=load, args=(k,)) for k in range(1, 5)]\n"
        "[thread.start() for thread in threads]; [thread.join() for thread in threads]\n"
        "print('the answer')\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)  # noqa: S603
    assert (done.stdout, done.stderr) == ("the answer\n", "")
