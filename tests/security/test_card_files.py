"""Cards from files: they name neither code nor places of their own."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import pytest

from scotl_matgl import all_cards
from scotl_matgl.exceptions import InputError
from scotl_matgl.sources.cards import FILE_LOADERS, CardError, SourceCard, read_cards
from scotl_matgl.training.source import load_trained

OWN = next(card for card in all_cards() if card.name.startswith("SCOTL-"))


@pytest.fixture(autouse=True)
def _home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SCOTL_MATGL_HOME", str(tmp_path / "home" / "kept"))


def trained(folder: Path, content: bytes = b"weights", **fields: Any) -> Path:
    """Folder that looks like a training of `train_source`."""
    folder.mkdir()
    card = OWN.to_dict() | {"weights": {"net.safetensors": hashlib.sha256(content).hexdigest()}} | fields
    (folder / "card.json").write_text(json.dumps(card))
    (folder / "report.json").write_text("{}")
    (folder / "net.safetensors").write_bytes(content)
    return folder


NAMES = ["../../../.bashrc", "..", ".", "", "/etc/x", "a/../../x", "a\\b", "C:x", "x\0y", "x\ny", "a//b", "x" * 300]


@pytest.mark.parametrize("name", NAMES)
def test_weights_are_names_of_files(tmp_path: Path, name: str) -> None:
    weights = {name: hashlib.sha256(b"weights").hexdigest()}
    with pytest.raises(CardError, match="its weights are in"):
        SourceCard.from_dict(OWN.to_dict() | {"weights": weights})
    folder = trained(tmp_path / "trained", weights=weights)
    with pytest.raises(CardError, match="its weights are in"):
        load_trained(folder).install()
    assert not (tmp_path / "home").exists()


def test_install_writes_one_file_of_its_own_folder(tmp_path: Path) -> None:
    card = load_trained(trained(tmp_path / "good", name="Mine")).install()
    kept = tmp_path / "home" / "kept"
    files = sorted(str(path.relative_to(kept)) for path in kept.rglob("*") if path.is_file())
    assert files == [f"cards/{card.name}.json", "sources/net.safetensors"]
    assert card.loader in FILE_LOADERS
    below = {"a/net.safetensors": hashlib.sha256(b"weights").hexdigest()}
    with pytest.raises(InputError, match="in its own folder"):
        load_trained(trained(tmp_path / "below", weights=below))


def test_install_follows_no_link_and_takes_no_other_file(tmp_path: Path) -> None:
    secret = tmp_path / "secret"
    secret.write_bytes(b"weights")
    folder = trained(tmp_path / "link")
    (folder / "net.safetensors").unlink()
    (folder / "net.safetensors").symlink_to(secret)
    with pytest.raises(InputError, match="a link is not followed"):
        load_trained(folder).install()
    folder = trained(tmp_path / "other")
    (folder / "net.safetensors").write_bytes(b"others")
    with pytest.raises(InputError, match="is not the file of the card"):
        load_trained(folder).install()
    assert not (tmp_path / "home" / "kept" / "sources" / "net.safetensors").exists()


@pytest.mark.parametrize("loader", ["os:system", "evil:main", "scotl_matgl.encoders.composition:write_networks"])
def test_a_card_of_a_file_names_a_loader_of_the_short_list(tmp_path: Path, loader: str) -> None:
    (tmp_path / "evil.py").write_text(f"open({str(tmp_path / 'marker')!r}, 'w')")
    folder = trained(tmp_path / "trained", loader=loader)
    with pytest.raises(CardError, match="its loader is"):
        load_trained(folder)
    with pytest.raises(CardError, match="its loader is"):
        read_cards(folder / "card.json")
    assert read_cards(folder / "card.json", loaders=[loader])[0].loader == loader
    assert not (tmp_path / "marker").exists()


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"notes": 1}, "notes must be a text"),
        ({"error_unit": ["eV"]}, "error_unit must be a text"),
        ({"notes": "x" * 20_001}, "notes must be a text of at most 20000"),
        ({"property": "x" * 20_001}, "property has 20001 characters"),
        ({"probes": {str(i): 1.0 for i in range(1_001)}}, "probes has 1001 items"),
        ({"options": json.loads("[" * 30 + "]" * 30)}, "options is"),
        ({"options": {"a": json.loads("[" * 30 + "]" * 30)}}, "options are nested too deeply"),
    ],
    ids=lambda value: str(value)[:30],
)
def test_fields_have_their_type_size_and_depth(tmp_path: Path, fields: dict[str, Any], message: str) -> None:
    path = trained(tmp_path / "trained", **fields) / "card.json"
    with pytest.raises(CardError, match=message):
        read_cards(path)


def test_json_without_end_is_a_sentence(tmp_path: Path) -> None:
    path = tmp_path / "card.json"
    for text in ("[" * 100_000, "[" * 100_000 + "]" * 100_000, '{"name": 1e999}', "1" * 5_000):
        path.write_text(text)
        with pytest.raises(CardError, match=r"card\.json"):
            read_cards(path)
