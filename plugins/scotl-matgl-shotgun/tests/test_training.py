"""Training: better than chance, the same again, resumable, and written whole or not at all."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest
import torch

from scotl_matgl.plugin import Corpus
from scotl_matgl_shotgun import Library, LibraryError, LibraryWriter, train_library, train_network

EASY = {"easy": "1", "noise": "eV"}


def test_networks_have_learned_and_say_how_well(library: Library, synthetic: Corpus) -> None:
    y = synthetic.values("easy")
    chance = np.abs(y - np.median(y)).mean()
    for record in library.query("easy"):
        assert record.error < 0.5 * chance
        ((_, predicted),) = library.embed([record], synthetic.compositions, layer="final")
        # About 37 % of the materials are held out, and the sample's rows are predicted about as well.
        assert np.abs(predicted[:, 0] - y).mean() < 1.5 * record.error
    noise = synthetic.values("noise")
    for record in library.query("noise"):  # held-out rows: nothing can be learned, and the record says so
        assert record.error > 0.8 * np.abs(noise - np.median(noise)).mean()


def test_networks_are_pyramids_of_random_shape(library: Library) -> None:
    shapes = {record.widths for record in library}
    assert len(shapes) > 3
    for record in library:
        hidden = record.widths[1:-1]
        assert 2 <= len(hidden) <= 4
        assert list(hidden) == sorted(hidden, reverse=True)
        assert min(hidden) >= 6
        assert max(hidden) <= 24
        assert record.n_train == 200


def test_interrupted_training_goes_on(library: Library, synthetic: Corpus, settings: dict, tmp_path: Path) -> None:
    class StopError(Exception):
        pass

    def interrupt(done: int, _: object) -> None:
        if done == 3:
            raise StopError

    torch.manual_seed(7)
    expected_random = torch.rand(1)
    torch.manual_seed(7)
    with pytest.raises(StopError):
        train_library(tmp_path, synthetic, EASY, 6, 0, progress=interrupt, **settings)
    index = tmp_path / "index.jsonl"
    with index.open("a") as file:
        file.write('{"name": "cut in the midd')
    trained: list[int] = []
    found = train_library(tmp_path, synthetic, EASY, 6, 0, progress=lambda done, _: trained.append(done), **settings)
    assert trained == [4, 5, 6]
    for a, b in zip(found, library, strict=True):
        # The shards are cut otherwise, the networks are the same.
        assert dataclasses.replace(a, shard="", sha256="", prefix="") == dataclasses.replace(
            b, shard="", sha256="", prefix=""
        )
        for mine, other in zip(found.network(a).weights, library.network(b).weights, strict=True):
            np.testing.assert_array_equal(mine, other)
    assert torch.rand(1) == expected_random  # the caller's random numbers are left alone

    before = index.read_bytes()
    train_library(tmp_path, synthetic, EASY, 6, 0, progress=lambda *_: pytest.fail("nothing is left"), **settings)
    assert index.read_bytes() == before


def test_other_settings_are_refused(library: Library, synthetic: Corpus, settings: dict) -> None:
    before = (library.path / "index.jsonl").read_bytes()
    with pytest.raises(LibraryError, match="another made_by"):
        train_library(library.path, synthetic, EASY, 8, 1, **settings)
    with pytest.raises(LibraryError, match="another licence"):
        train_library(library.path, synthetic, EASY, 8, 0, **{**settings, "licence": "other"})
    assert (library.path / "index.jsonl").read_bytes() == before


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"properties": {"unknown": "eV"}}, "known for 0 materials"),
        ({"properties": {}}, "at least one of each"),
        ({"depth": (4, 3)}, "least and a largest"),
        ({"activation": "tanh"}, "activation is 'tanh'"),
        ({"random_state": -1}, "at least 0"),
    ],
)
def test_bad_settings_are_refused(
    change: dict, message: str, synthetic: Corpus, settings: dict, tmp_path: Path
) -> None:
    options = {"properties": EASY, "n_networks": 1, **settings, **change}
    with pytest.raises(LibraryError, match=message):
        train_library(tmp_path, synthetic, **options)


def test_names_come_once(library: Library, tmp_path: Path) -> None:
    record = next(iter(library))
    network = library.network(record)
    with LibraryWriter(tmp_path, licence="CC0", citation="me") as writer:
        writer.add(record, network)
        with pytest.raises(LibraryError, match="already"):
            writer.add(record, network)
        with pytest.raises(LibraryError, match="the record says"):
            writer.add(dataclasses.replace(record, name="other", activation="identity"), network)


def test_crystals_of_the_corpus_can_be_learned_from(crystals: Corpus, tmp_path: Path) -> None:
    found = train_library(
        tmp_path,
        crystals,
        {"formation_energy_eV_atom": "eV/atom"},
        2,
        dataset="Materials Project",
        licence="CC BY 4.0",
        n_epochs=25,
        width=(16, 64),
    )
    y = crystals.values("formation_energy_eV_atom")
    chance = np.abs(y - np.median(y)).mean()
    for record in found:
        assert record.widths[0] == 267
        assert record.error < 0.5 * chance


def test_one_network_learns_several_properties_of_which_not_all_are_known() -> None:
    rng = np.random.default_rng(0)
    X = rng.normal(size=(600, 6))
    Y = np.column_stack([100 + 10 * X[:, 0], 0.01 * X[:, 1], X[:, 2] * X[:, 3]])
    seen = Y.copy()
    seen[rng.random(600) < 0.9, 1] = np.nan  # a tenth is known
    seen[500:] = np.nan
    network = train_network(X, seen, (32, 16), seed=1, n_epochs=80, batch_size=32)
    error = network.forward(X[500:])["final"] - Y[500:]
    assert (error.std(axis=0) < [0.1 * 10, 0.35 * 0.01, 0.5]).all()
    again = train_network(X, seen, (32, 16), seed=1, n_epochs=80, batch_size=32)
    np.testing.assert_array_equal(again.weights[0], network.weights[0])
    with pytest.raises(LibraryError, match="property number 1 is known for no row"):
        train_network(X, np.where([True, False, True], Y, np.nan), (4,))
