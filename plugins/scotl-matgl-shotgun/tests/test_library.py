"""Libraries: networks equal to torch's, searched without weights, streamed, checked, ranked."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
import shutil
import subprocess
import sys
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest

import scotl_matgl_shotgun.library as library_module
from scotl_matgl import storage
from scotl_matgl.plugin import Corpus, get_descriptor
from scotl_matgl.testing.encoders import check_encoder
from scotl_matgl.testing.samples import sample_formulas
from scotl_matgl.testing.zoos import check_zoo
from scotl_matgl_shotgun import Library, LibraryError, LibraryWriter, Network, Ranked, Record, cards

FORMULAS = sample_formulas()


def random_network(seed: int, widths: tuple[int, ...] = (132, 20, 9, 5, 1), activation: str = "leaky_relu") -> Network:
    rng = np.random.default_rng(seed)
    return Network(
        tuple(rng.normal(size=(b, a)).astype(np.float32) / a**0.5 for a, b in pairwise(widths)),
        tuple(rng.normal(size=b).astype(np.float32) for b in widths[1:]),
        activation,
        rng.normal(size=widths[0]),
        rng.uniform(10, 100, size=widths[0]),
    )


def record_of(network: Network, name: str, **facts: object) -> Record:
    return Record(
        **{
            "name": name,
            "property": "none",
            "unit": "1",
            "descriptor": "magpie",
            "dataset": "none",
            "widths": network.widths,
            "activation": network.activation,
            **facts,
        }
    )


@pytest.fixture
def opened(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Shards that are opened during the test."""
    calls: list[str] = []
    original = library_module.safe_open

    def counted(path: str, **options: object) -> object:
        calls.append(Path(path).name)
        return original(path, **options)

    monkeypatch.setattr(library_module, "safe_open", counted)
    return calls


@pytest.fixture
def copied(library: Library, tmp_path: Path) -> Library:
    return Library(shutil.copytree(library.path, tmp_path / "copy"))


# -- networks ----------------------------------------------------------------------------------------------------------


def test_networks_survive_the_library_bit_by_bit(tmp_path: Path) -> None:
    made = {f"n{i}": random_network(i) for i in range(5)}
    with LibraryWriter(tmp_path, licence="CC0", citation="me", shard_size=2) as writer:
        for name, network in made.items():
            writer.add(record_of(network, name), network)
    library = Library(tmp_path)
    assert [record.shard for record in library] == [f"networks-000000{i}.safetensors" for i in (0, 0, 2, 2, 4)]
    for record in library:
        found, expected = library.network(record), made[record.name]
        ours, theirs = ((*n.weights, *n.biases, n.mean, n.scale) for n in (found, expected))
        for a, b in zip(ours, theirs, strict=True):
            np.testing.assert_array_equal(a, b)
        assert record.n_parameters == sum(t.size for t in (*expected.weights, *expected.biases))


# -- index -------------------------------------------------------------------------------------------------------------


def test_query(library: Library, opened: list[str]) -> None:
    records = list(library)
    assert [record.property for record in records] == ["easy", "noise"] * 3
    easy = [record for record in records if record.property == "easy"]
    assert list(library.query("EASY")) == list(library.query("ea*")) == easy
    assert list(library.query("eas")) == []
    assert list(library.query(descriptor="magpie", dataset="rock*")) == records
    assert list(library.query(dataset="other")) == []
    middle = sorted(record.error for record in records)[2]
    assert [r.error <= middle for r in library.query(max_error=middle)] == [True] * 3
    assert list(library.query("noise", limit=2)) == [r for r in records if r.property == "noise"][:2]
    assert list(library.query(limit=0)) == []
    assert opened == []  # all this was answered by the index


def test_unknown_errors_do_not_match_a_limit(tmp_path: Path) -> None:
    network = random_network(0)
    with LibraryWriter(tmp_path, licence="CC0", citation="me") as writer:
        writer.add(record_of(network, "unknown"), network)
        writer.add(record_of(network, "known", error=1.0), network)
    assert [record.name for record in Library(tmp_path).query(max_error=5.0)] == ["known"]


def test_a_spoiled_line_is_named(copied: Library) -> None:
    index = copied.path / "index.jsonl"
    lines = index.read_text().splitlines()
    lines[3] = lines[3].replace('"widths"', '"width"')
    index.write_text("\n".join(lines) + "\n")
    found = iter(copied)
    assert [next(found).name for _ in range(3)]
    with pytest.raises(LibraryError, match="line 4"):
        next(found)


def test_what_is_no_library_is_refused(tmp_path: Path) -> None:
    with pytest.raises(LibraryError, match="no library"):
        Library(tmp_path)


# -- weights -----------------------------------------------------------------------------------------------------------


def test_a_network_is_read_when_it_is_asked_for(library: Library, opened: list[str]) -> None:
    embedded = library.embed(library, FORMULAS)
    assert opened == []
    for shards in (1, 1, 2, 2, 3, 3):  # two networks in each
        next(embedded)
        assert len(opened) == shards
    assert list(embedded) == []
    assert len(opened) == len(set(opened)) == 3


def test_shards_are_hashed_once(library: Library, monkeypatch: pytest.MonkeyPatch) -> None:
    hashed = []
    original = hashlib.file_digest
    monkeypatch.setattr(hashlib, "file_digest", lambda f, a: hashed.append(f.name) or original(f, a))
    storage._file_sha256.cache_clear()
    assert len(list(library.embed(library, FORMULAS))) == 6
    assert len(list(Library(library.path).embed(library, FORMULAS))) == 6
    assert len(hashed) == len(set(hashed)) == 3


def test_a_changed_shard_is_detected(copied: Library) -> None:
    records = list(copied)
    shard = copied.path / records[0].shard
    content = bytearray(shard.read_bytes())
    content[-1] ^= 1  # one bit of one weight
    shard.write_bytes(content)
    with pytest.raises(LibraryError, match="is not the file that network"):
        copied.network(records[0])
    with pytest.raises(LibraryError, match="is not the file that network"):
        copied.card(records[0]).load()
    copied.network(records[2])


def test_records_cannot_point_out_of_the_library(library: Library) -> None:
    record = dataclasses.replace(next(iter(library)), shard="../" + library.path.name)
    with pytest.raises(LibraryError, match="no file name"):
        library.network(record)


def test_another_descriptor_is_refused(library: Library) -> None:
    record = next(iter(library))
    with pytest.raises(LibraryError, match="fingerprint"):
        next(library.embed([dataclasses.replace(record, fingerprint="0" * 64)], FORMULAS))
    with pytest.raises(LibraryError, match="is not there"):
        next(library.embed([dataclasses.replace(record, descriptor="no such")], FORMULAS))


def test_descriptors_of_the_user_are_taken(library: Library) -> None:
    record = next(iter(library))
    own = Library(library.path, descriptors={"mine": get_descriptor("magpie")})
    (found,) = own.embed([dataclasses.replace(record, descriptor="mine")], FORMULAS)
    (expected,) = library.embed([record], FORMULAS)
    np.testing.assert_array_equal(found[1], expected[1])


def test_embed_computes_descriptors_once(library: Library, monkeypatch: pytest.MonkeyPatch) -> None:
    calls = []
    kind = type(get_descriptor("magpie"))
    original = kind.transform
    monkeypatch.setattr(kind, "transform", lambda self, X: calls.append(1) or original(self, X))
    embedded = list(library.embed(library, FORMULAS, layer="final"))
    assert len(calls) == 1
    X = get_descriptor("magpie").transform(FORMULAS)
    for record, values in embedded:
        np.testing.assert_array_equal(values, library.network(record).forward(X)["final"])


# -- ranking -----------------------------------------------------------------------------------------------------------


def test_the_network_of_the_property_is_first(
    library: Library, synthetic: Corpus, tmp_path: Path, opened: list[str]
) -> None:
    trained = next(library.query("easy"))
    with LibraryWriter(tmp_path, licence="CC0", citation="me") as writer:
        for i in range(4):
            # Sums of many descriptors, of the trained one's shape: the best that chance gives.
            network = random_network(i, trained.widths)
            writer.add(record_of(network, f"random {i}"), network)
        writer.add(dataclasses.replace(trained, name="trained"), library.network(trained))
    mixed = Library(tmp_path)
    rows = np.random.default_rng(0).permutation(len(synthetic))[:60]
    opened.clear()
    formulas = [synthetic.compositions.text[i] for i in rows]
    calls: list[tuple[int, str]] = []
    ranked = mixed.rank(
        formulas,
        synthetic.values("easy")[rows],
        n_folds=3,
        n_estimators=15,
        progress=lambda done, result: calls.append((done, result.record.name)),
    )
    assert ranked[0].record.name == "trained"
    errors = [result.mae for result in ranked]
    assert errors == sorted(errors)
    assert errors[0] < 0.7 * errors[1]
    assert calls == list(enumerate([record.name for record in mixed], start=1))
    assert opened == ["networks-0000000.safetensors"]

    best = mixed.rank(formulas, synthetic.values("easy")[rows], n_folds=3, n_estimators=15, keep=2)
    assert best == ranked[:2]


def test_error_is_that_of_a_forest_on_the_readout(library: Library, synthetic: Corpus) -> None:
    from sklearn.ensemble import RandomForestRegressor
    from sklearn.model_selection import KFold, cross_val_predict

    formulas, y = synthetic.compositions.text[:40], synthetic.values("easy")[:40]
    record = next(iter(library))
    (result,) = library.rank(formulas, y, [record], n_folds=4, n_estimators=10)
    ((_, Z),) = library.embed([record], formulas)
    # The folds are cut through compositions in the order of their keys; here each row has its own.
    order = np.argsort(synthetic.compositions.keys()[:40])
    forest = RandomForestRegressor(10, random_state=0)
    folds = [
        (np.setdiff1d(np.arange(40), order[test]), np.sort(order[test]))
        for _, test in KFold(4, shuffle=True, random_state=0).split(order)
    ]
    predicted = cross_val_predict(forest, Z, y, cv=folds)
    assert result.mae == pytest.approx(np.abs(predicted - y).mean(), rel=1e-12)


def test_equal_compositions_share_a_fold(library: Library) -> None:
    # Every formula twice, with a target that nothing but its twin tells: chance level, unless twins are told.
    rng = np.random.default_rng(0)
    y = np.tile(rng.normal(size=len(FORMULAS)), 2)
    (result,) = library.rank([*FORMULAS, *FORMULAS], y, library.query(limit=1), n_folds=5, n_estimators=20)
    assert result.mae > np.abs(y - y.mean()).mean() * 0.8


def test_one_bad_network_costs_its_row(copied: Library, synthetic: Corpus) -> None:
    records = list(copied)
    (copied.path / records[2].shard).unlink()
    bad = dataclasses.replace(records[0], prefix="no such")
    calls: list[int] = []
    ranked = copied.rank(
        synthetic.compositions.text[:30],
        synthetic.values("easy")[:30],
        [*records, bad],
        n_folds=2,
        n_estimators=3,
        keep=3,
        progress=lambda done, _: calls.append(done),
    )
    assert [bool(result.reason) for result in ranked] == [False] * 3 + [True] * 3
    assert {r.record for r in ranked[3:]} == {records[2], records[3], bad}
    assert calls == list(range(1, 8))
    assert "cannot be read" in ranked[3].reason
    assert "is not in" in ranked[5].reason


def test_a_descriptor_that_fails_costs_its_networks(library: Library) -> None:
    class Failing(type(get_descriptor("magpie"))):  # type: ignore[misc]
        def transform(self, formulas: object) -> np.ndarray:
            raise ZeroDivisionError("no table")

    own = Library(library.path, descriptors={"failing": Failing()})
    records = list(library)
    bad = dataclasses.replace(records[1], descriptor="failing", fingerprint="")
    ranked = own.rank(FORMULAS, np.arange(14), [records[0], bad], n_folds=2, n_estimators=3)
    assert [r.record for r in ranked] == [records[0], bad]
    assert "ZeroDivisionError: no table" in ranked[1].reason


def test_embeddings_that_are_not_finite_cost_their_row(tmp_path: Path) -> None:
    network = random_network(0)
    spoiled = dataclasses.replace(network, biases=(network.biases[0] + np.nan, *network.biases[1:]))
    with LibraryWriter(tmp_path, licence="CC0", citation="me") as writer:
        writer.add(record_of(network, "good"), network)
        writer.add(record_of(network, "spoiled"), spoiled)
    library = Library(tmp_path)
    ranked = library.rank(FORMULAS, np.arange(len(FORMULAS)), n_folds=2, n_estimators=3)
    assert [(r.record.name, r.reason) for r in ranked] == [
        ("good", ""),
        ("spoiled", "its embedding of row 0 is not finite"),
    ]
    assert np.isnan(library.card(ranked[1].record).load().encode(FORMULAS)).all()


@pytest.mark.parametrize(
    ("y", "options", "message"),
    [
        (np.zeros(3), {}, "y has shape"),
        (np.full(14, np.nan), {}, "row 0"),
        (np.arange(14.0), {"n_folds": 15}, "number of compositions"),
        (np.arange(14.0), {"keep": 0}, "keep is 0"),
    ],
)
def test_bad_targets_are_refused(library: Library, y: np.ndarray, options: dict, message: str) -> None:
    with pytest.raises(LibraryError, match=message):
        library.rank(FORMULAS, y, **options)


# -- zoo ---------------------------------------------------------------------------------------------------------------


def test_conformance(library: Library, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SCOTL_MATGL_SHOTGUN", str(library.path))
    check_zoo(cards)
    listed = list(cards())
    assert [card.name for card in listed] == [record.name for record in library]
    for card in listed[:2]:
        check_encoder(card.load())


def test_card_says_what_the_record_says(library: Library) -> None:
    record = next(iter(library))
    card = library.card(record)
    assert (card.modality, card.property, card.error, card.error_unit) == ("composition", "easy", record.error, "1")
    assert card.layers["readout"] == record.widths[-2]
    assert card.layers["final"] == 1
    assert len(card.layers) == len(record.widths) - 1
    assert card.parameters == sum(t.size for t in (*library.network(record).weights, *library.network(record).biases))
    ((_, expected),) = library.embed([record], FORMULAS)
    np.testing.assert_array_equal(card.load().encode(FORMULAS), expected)


def test_card_follows_its_library(library: Library, copied: Library) -> None:
    encoder = library.card(next(iter(library))).load(path=str(copied.path))
    assert encoder.encode(["NaCl"]).shape == (1, encoder.card.width)


def test_zoo_is_empty_by_default_and_takes_several(
    library: Library, copied: Library, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("SCOTL_MATGL_SHOTGUN", raising=False)
    assert list(cards()) == []
    monkeypatch.setenv("SCOTL_MATGL_SHOTGUN", os.pathsep.join([str(library.path), str(copied.path)]))
    assert len(list(cards())) == 12
    monkeypatch.setenv("SCOTL_MATGL_SHOTGUN", str(tmp_path / "nothing"))
    with pytest.raises(LibraryError, match="no library"):
        list(cards())


def test_networks_are_used_without_torch(library: Library) -> None:
    code = (
        "import sys; from scotl_matgl_shotgun import Library; library = Library(sys.argv[1]); "
        "print(len(list(library.embed(library, ['NaCl', 'MgO']))), 'torch' in sys.modules)"
    )
    done = subprocess.run(  # noqa: S603 - own code
        [sys.executable, "-c", code, str(library.path)], capture_output=True, text=True, check=True
    )
    assert done.stdout.split() == ["6", "False"]


def test_results_can_be_compared() -> None:
    record = record_of(random_network(0), "a")
    assert Ranked(record, 1.0) == Ranked(Record.from_json(record.to_json()), 1.0)
    assert json.loads(record.to_json())["widths"] == [132, 20, 9, 5, 1]
