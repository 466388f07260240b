"""Files of published models are found where they are said to be, and are those of their card or refused."""

from __future__ import annotations

import dataclasses
import hashlib
from functools import partial
from pathlib import Path

import pytest

from scotl_matgl.encoders.probes import IncompatibleWeightsError
from scotl_matgl.plugin import SourceCard, read_published
from scotl_matgl.sources.zoo import own

read = partial(read_published, variable="MY_MODELS", folder="mine", origin="the folder x of y")


@pytest.fixture
def card(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> SourceCard:
    """A card of a model in two files, which lie in the folder `models/mine`."""
    monkeypatch.delenv("MY_MODELS", raising=False)
    monkeypatch.delenv("SCOTL_MATGL_ASSETS", raising=False)
    folder = tmp_path / "models" / "mine"
    folder.mkdir(parents=True)
    (folder / "a.bin").write_bytes(b"weights")
    (folder / "a.json").write_bytes(b"settings")
    sha256 = {"a.bin": hashlib.sha256(b"weights").hexdigest(), "a.json": hashlib.sha256(b"settings").hexdigest()}
    return dataclasses.replace(own()[0], name="Mine", weights=sha256)


def test_the_path_comes_before_the_variable_and_the_variable_before_the_assets(
    card: SourceCard, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = tmp_path / "models" / "mine"
    contents = {"a.bin": b"weights", "a.json": b"settings"}
    monkeypatch.setenv("SCOTL_MATGL_ASSETS", str(tmp_path))
    assert read(card, ["a.bin", "a.json"]) == (found, contents)
    other = tmp_path / "other"
    found.rename(other)
    monkeypatch.setenv("MY_MODELS", str(other))
    assert read(card, ["a.bin"]) == (other, contents)  # the card lists the second
    with pytest.raises(
        FileNotFoundError, match=rf"a\.bin and a\.json were looked for in {tmp_path}\. Get the folder x"
    ):
        read(card, ["a.bin"], tmp_path)


def test_a_model_that_is_nowhere_is_said_to_be(card: SourceCard) -> None:
    with pytest.raises(FileNotFoundError, match=r"looked for in no folder.*MY_MODELS, or have it as models/mine"):
        read(card, ["a.bin"])


def test_a_changed_file_is_refused_unless_it_is_wanted(card: SourceCard, tmp_path: Path) -> None:
    folder = tmp_path / "models" / "mine"
    (folder / "a.json").write_bytes(b"settingS")
    with pytest.raises(IncompatibleWeightsError, match=r"a\.json is not the file of the card Mine: its sha256 is"):
        read(card, ["a.bin"], folder)
    assert read(card, ["a.json"], folder, check=False)[1] == {"a.json": b"settingS"}
