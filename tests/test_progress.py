"""What long work tells while it goes on: a callable, a bar in a terminal or notebook, the log."""

from __future__ import annotations

import logging
import sys
from types import ModuleType, SimpleNamespace

import numpy as np
import pytest

from scotl_matgl import (
    StudySettings,
    TransferabilityRanker,
    TransferRegressor,
    learning_curves,
    load_example,
    validate,
)
from scotl_matgl.exceptions import InputError
from scotl_matgl.progress import bar, telling


@pytest.fixture(scope="module")
def rows():
    table = load_example().drop_duplicates("formula").sample(40, random_state=0)
    return list(table["formula"]), table["target"].to_numpy()


def check_rising(calls):
    done = [done for done, _ in calls]
    assert done == sorted(done)
    assert calls[-1][0] == calls[-1][1]
    assert len({total for _, total in calls}) == 1


@pytest.mark.slow
def test_a_ranking_and_a_model_tell_a_callable_how_far_they_are_and_give_the_same(rows):
    calls = []
    TransferabilityRanker("CGCNN*").fit(*rows, progress=lambda done, total: calls.append((done, total)))
    check_rising(calls)
    calls.clear()
    told = TransferRegressor("CGCNN*").fit(*rows, progress=lambda done, total: calls.append((done, total)))
    check_rising(calls)
    assert len(set(calls)) > 10
    assert np.array_equal(told.predict(rows[0][:5]), TransferRegressor("CGCNN*").fit(*rows).predict(rows[0][:5]))


@pytest.mark.slow
def test_nothing_is_printed_unless_asked_for(rows, capsys, caplog):
    with caplog.at_level(logging.INFO, "scotl_matgl"):
        TransferabilityRanker("CGCNN-MP-2017-Eform").fit(*rows)
    assert caplog.records[0].getMessage() == "ranking: started"
    assert caplog.records[-1].getMessage().startswith("ranking: done in ")
    assert capsys.readouterr() == ("", "")
    TransferRegressor("CGCNN-MP-2017-Eform", verbose=True).fit(*rows)
    lines = capsys.readouterr().err.splitlines()
    assert lines[0] == "fitting: started"
    assert lines[-1].startswith("fitting: done in ")


def test_lines_of_the_log_say_what_is_left(monkeypatch, capsys):
    now = [0.0]
    monkeypatch.setattr("scotl_matgl.progress.time", SimpleNamespace(monotonic=lambda: now[0]))
    with telling(None, "work", verbose=True) as step:
        for done in range(1, 5):
            now[0] += 3.0
            step(done, 4)
    # The time of a step times the steps that are left.
    assert capsys.readouterr().err.splitlines() == [
        "work: started",
        "work: 1 of 4, some 9 s left",
        "work: 2 of 4, some 6 s left",
        "work: 3 of 4, some 3 s left",
        "work: done in 12.0 s",
    ]


def test_a_bar_in_a_notebook_is_updated_in_its_cell(monkeypatch):
    shown = []
    handle = SimpleNamespace(update=shown.append)

    def display(html, display_id):
        assert display_id
        shown.append(html)
        return handle

    notebook, of_display = ModuleType("IPython"), ModuleType("IPython.display")
    notebook.get_ipython = lambda: SimpleNamespace(kernel=object())
    of_display.HTML, of_display.display = str, display
    monkeypatch.setitem(sys.modules, "IPython", notebook)
    monkeypatch.setitem(sys.modules, "IPython.display", of_display)
    with bar("a < b") as update:
        update(1, 4)
        update(4, 4)
    assert len(shown) == 3
    assert "a &lt; b" in shown[1]
    assert "value='1' max='4'" in shown[1]
    assert "4 of 4" in shown[2]


@pytest.mark.slow
def test_a_bar_leaves_no_trace_on_stdout(rows, capsys):
    ranker = TransferabilityRanker("CGCNN*").fit(*rows, progress=True)
    assert len(ranker.ranking_.results) > 0
    assert capsys.readouterr().out == ""


def test_what_is_no_progress_is_refused(rows):
    with pytest.raises(InputError, match="progress is 'yes'; it must be a callable"):
        TransferabilityRanker("CGCNN*").fit(*rows, progress="yes")


@pytest.mark.slow
def test_studies_tell_it_in_the_same_way(rows, capsys):
    calls = []
    learning_curves(*rows, "kernel ridge", repeats=2, settings=StudySettings(progress=lambda *step: calls.append(step)))
    check_rising(calls)
    validate("kernel ridge", *rows, schemes=(), settings=StudySettings(progress=True))
    assert capsys.readouterr().out == ""
    with pytest.raises(InputError, match="progress is 3"):
        learning_curves(*rows, "kernel ridge", repeats=2, settings=StudySettings(progress=3))
