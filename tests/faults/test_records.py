"""Damaged records of trainings, screenings and bridges end in a sentence, before any work is done."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from scotl_matgl import get_descriptor
from scotl_matgl.bridges.build import MANIFEST, BuildSettings, build_all
from scotl_matgl.chemistry.corpus import Corpus
from scotl_matgl.chemistry.crystals import Crystal
from scotl_matgl.exceptions import InputError, StoredFileError
from scotl_matgl.storage import read_record
from scotl_matgl.training.source import _claim, _report
from scotl_matgl.transfer.screening import Screening

DAMAGED = {
    "cut off": b'{"a": 1',
    "empty": b"",
    "no object": b"[1, 2]",
    "a key twice": b'{"a": 1, "a": 2}',
    "nested": b'{"a": ' * 100_000,
    "a long number": b'{"a": ' + b"9" * 5000 + b"}",
    "another encoding": '{"a": "µ"}'.encode("utf-16"),
    "too large": b'{"a": "' + bytes(65 * 2**20),
}


@pytest.mark.parametrize("damage", DAMAGED)
def test_damaged_records_are_named_with_what_to_do(damage: str, tmp_path: Path) -> None:
    path = tmp_path / "settings.json"
    path.write_bytes(DAMAGED[damage])
    with pytest.raises(StoredFileError, match=r"settings\.json is damaged: it .*; do this$"):
        read_record(path, "do this")


def test_a_whole_record_is_read(tmp_path: Path) -> None:
    (tmp_path / "a.json").write_text(json.dumps({"a": [1, None, "µ"]}), encoding="utf-8")
    assert read_record(tmp_path / "a.json", "do this") == {"a": [1, None, "µ"]}


def test_a_training_in_a_damaged_folder_says_what_to_do(tmp_path: Path) -> None:
    (tmp_path / "settings.json").write_bytes(b'{"property": "ga')
    with pytest.raises(StoredFileError, match="delete the folder to train anew"):
        _claim(tmp_path, {}, True)
    with pytest.raises(InputError, match=r"lacks report\.json; copy the whole folder"):
        _report(tmp_path)
    (tmp_path / "report.json").write_bytes(b"\xff")
    with pytest.raises(StoredFileError, match=r"report\.json is damaged.*copy the folder again"):
        _report(tmp_path)


def test_a_screening_beside_a_damaged_plan_says_what_to_do(tmp_path: Path) -> None:
    for name in ("model.skops", "t.csv"):
        (tmp_path / name).write_bytes(b"x")
    (tmp_path / "out.csv.parts").mkdir()
    (tmp_path / "out.csv.parts" / "plan.json").write_bytes(b"{")
    screening = Screening(model=tmp_path / "model.skops", table=tmp_path / "t.csv", output=tmp_path / "out.csv")
    with pytest.raises(StoredFileError, match=r"plan\.json is damaged: .*; delete .*out\.csv\.parts to begin anew"):
        screening._start()


def test_a_damaged_manifest_is_told_before_a_bridge_is_built(tmp_path: Path) -> None:
    (tmp_path / MANIFEST).write_bytes(b"{")

    def never(_: Any) -> Any:
        raise AssertionError("a source was loaded")

    crystals = Corpus([Crystal(4 * np.eye(3), [[0] * 3, [0.5] * 3], [55, 17])])
    card: Any = SimpleNamespace(modality="structure", name="A", layers={"readout": 3}, weights={})
    with pytest.raises(StoredFileError, match=r"is damaged.*delete it to have it made anew"):
        build_all([card], crystals, get_descriptor("fractions"), load=never, settings=BuildSettings(folder=tmp_path))
