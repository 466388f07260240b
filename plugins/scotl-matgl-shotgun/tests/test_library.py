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

import joblib
import numpy as np
import pytest

import scotl_matgl_shotgun.sources as sources_module
from scotl_matgl import Ranking, storage
from scotl_matgl.plugin import Corpus, InputError, get_descriptor
from scotl_matgl.testing.encoders import check_encoder
from scotl_matgl.testing.samples import sample_formulas
from scotl_matgl.testing.zoos import check_zoo
from scotl_matgl_shotgun import Library, LibraryError, LibraryWriter, Network, Record, cards

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
    original = sources_module.safe_open

    def counted(path: str, **options: object) -> object:
        calls.append(Path(path).name)
        return original(path, **options)

    monkeypatch.setattr(sources_module, "safe_open", counted)
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


@pytest.fixture
def table(synthetic: Corpus) -> tuple[list[str], np.ndarray]:
    rows = np.random.default_rng(0).permutation(len(synthetic))[:60]
    return [synthetic.compositions.text[i] for i in rows], synthetic.values("easy")[rows]


@pytest.fixture
def mixed(library: Library, tmp_path: Path) -> Library:
    """Eleven random networks and, last but one, the trained one of the property; three a shard."""
    trained = next(library.query("easy"))
    path = tmp_path / "mixed"
    with LibraryWriter(path, licence="CC0", citation="me", shard_size=3) as writer:
        for i in range(12):
            # Sums of many descriptors, of the trained one's shape: the best that chance gives.
            network = random_network(i, trained.widths)
            if i == 10:
                writer.add(dataclasses.replace(trained, name="trained"), library.network(trained))
            else:
                writer.add(record_of(network, f"random {i}"), network)
    return Library(path)


def leave_one_out(Z: np.ndarray, y: np.ndarray) -> float:
    """Mean absolute error of ridge at the best penalty, fitted anew for every row that is left out."""
    n, d = Z.shape
    spread = Z.std(axis=0)
    F = (Z - Z.mean(axis=0)) / np.where(spread > 1e-12, spread, np.inf)
    errors = np.empty((n, 31))
    for i in range(n):
        others = np.arange(n) != i
        A, b = F[others] - F[others].mean(axis=0), y[others] - y[others].mean()
        for j, alpha in enumerate(np.geomspace(5e-5, 100.0 * n, 31) * (F**2).sum() / n):
            weights = np.linalg.solve(A.T @ A + alpha * np.eye(d), A.T @ b)
            errors[i, j] = y[i] - y[others].mean() - weights @ (F[i] - F[others].mean(axis=0))
    return float(np.abs(errors[:, (errors**2).sum(axis=0).argmin()]).mean())


def same(a: Ranking, b: Ranking) -> bool:
    """Whether two rankings differ in nothing but the time that they took."""
    found = [
        [(r.source, r.property, r.unit, dict(r.scores), r.loo_rmse, r.bridged) for r in (*x.results, *x.screened)]
        for x in (a, b)
    ]
    return found[0] == found[1] and a.losses.tobytes() == b.losses.tobytes() and a.judgement.gains == b.judgement.gains


def test_the_network_of_the_property_is_first(
    mixed: Library, table: tuple[list[str], np.ndarray], opened: list[str]
) -> None:
    steps: list[tuple[int, int]] = []
    ranking = mixed.rank(
        *table, max_measured=4, head="kernel ridge", progress=lambda done, total: steps.append((done, total))
    )
    assert ranking.sources[0] == ranking.best == "trained"
    assert ranking.results[0].loo_rmse < 0.7 * min(result.loo_rmse for result in ranking.results[1:])
    assert len(ranking.results) == 4
    assert {result.source for result in (*ranking.results, *ranking.screened)} == {record.name for record in mixed}
    assert steps == [(done, 17) for done in range(1, 18)]  # the control, twelve networks, four measured
    assert opened == [f"networks-{i:07d}.safetensors" for i in (0, 3, 6, 9)]


def test_networks_are_screened_by_the_exact_error_of_ridge(mixed: Library, table: tuple[list[str], np.ndarray]) -> None:
    formulas, y = table
    expected = {record.name: leave_one_out(Z.astype(np.float64), y) for record, Z in mixed.embed(mixed, formulas)}
    order = sorted(expected, key=lambda name: (expected[name], name))
    ranking = mixed.rank(formulas, y, max_measured=3, head="kernel ridge")
    assert set(ranking.sources) == set(order[:3])
    assert [result.source for result in ranking.screened] == order[3:]


def test_rows_of_one_composition_are_merged(library: Library) -> None:
    # Every formula twice, with a target that nothing but its twin tells: the twins count as one row.
    y = np.random.default_rng(0).normal(size=len(FORMULAS))
    ranking = library.rank([*FORMULAS, *FORMULAS], np.tile(y, 2), library.query(limit=2))
    assert (ranking.n_rows, ranking.n_merged) == (len(FORMULAS), len(FORMULAS))
    assert not ranking.helps


@pytest.mark.parametrize("jobs", [None, 2])
def test_one_bad_network_costs_its_row(copied: Library, synthetic: Corpus, jobs: int | None) -> None:
    records = list(copied)
    (copied.path / records[2].shard).unlink()
    bad = dataclasses.replace(records[0], name="bad", prefix="no such")
    calls: list[int] = []
    ranking = copied.rank(
        synthetic.compositions.text[:30],
        synthetic.values("easy")[:30],
        [*records, bad],
        progress=lambda done, _: calls.append(done),
        n_jobs=jobs,
    )
    assert {*ranking.sources} == {records[i].name for i in (0, 1, 4, 5)}
    assert set(ranking.errors) == {records[2].name, records[3].name, "bad"}
    assert "cannot be read" in ranking.errors[records[3].name]
    assert "is not in" in ranking.errors["bad"]
    assert calls == sorted(set(calls))


def test_a_descriptor_that_fails_costs_its_networks(library: Library) -> None:
    class Failing(type(get_descriptor("magpie"))):  # type: ignore[misc]
        def transform(self, formulas: object) -> np.ndarray:
            calls.append(1)
            raise ZeroDivisionError("no table")

    calls: list[int] = []
    own = Library(library.path, descriptors={"failing": Failing()})
    records = list(library)
    bad = [dataclasses.replace(record, descriptor="failing", fingerprint="") for record in records[1:3]]
    ranking = own.rank(FORMULAS, np.linspace(0, 1.5, 14), [records[0], *bad])
    assert ranking.sources == (records[0].name,)
    assert all("ZeroDivisionError: no table" in ranking.errors[record.name] for record in bad)
    assert calls == [1]


def test_descriptors_are_computed_once_for_all_networks(library: Library, monkeypatch: pytest.MonkeyPatch) -> None:
    calls = []
    original = Library.describe
    monkeypatch.setattr(Library, "describe", lambda self, record, c: calls.append(1) or original(self, record, c))
    library.rank(FORMULAS, np.linspace(0, 1.5, 14))
    assert calls == [1]


def test_a_network_that_overflows_costs_its_row(tmp_path: Path) -> None:
    network = random_network(0)
    huge = dataclasses.replace(network, weights=tuple(np.float32(1e30) * weight for weight in network.weights))
    with LibraryWriter(tmp_path, licence="CC0", citation="me") as writer:
        writer.add(record_of(network, "good"), network)
        writer.add(record_of(huge, "huge"), huge)
    library = Library(tmp_path)
    with np.errstate(all="ignore"):
        ranking = library.rank(FORMULAS, np.linspace(0, 1.5, len(FORMULAS)))
        assert np.isnan(library.card(list(library)[1]).load().encode(FORMULAS)).all()
    assert ranking.sources == ("good",)
    assert dict(ranking.errors) == {"huge": "the source refuses every formula of the table"}


@pytest.mark.parametrize(
    ("y", "options", "message"),
    [
        (np.zeros(3), {}, "has shape"),
        (np.full(14, np.nan), {}, "at least 10 are needed"),
        (np.linspace(0, 1.5, 14), {"max_measured": 0}, "max_measured is 0"),
        (np.linspace(0, 1.5, 14), {"head": "foot"}, "head is 'foot'"),
        (np.linspace(0, 1.5, 14), {"path": "/dev/null"}, "no regular file"),
    ],
)
def test_bad_targets_are_refused(library: Library, y: np.ndarray, options: dict, message: str) -> None:
    with pytest.raises(InputError, match=message):
        library.rank(FORMULAS, y, **options)


def test_a_name_must_stand_once(library: Library) -> None:
    record = next(iter(library))
    with pytest.raises(InputError, match="stands 2 times"):
        library.rank(FORMULAS, np.linspace(0, 1.5, 14), [record, record])


# -- resuming ----------------------------------------------------------------------------------------------------------

_KILLED = """
import json, os, signal, sys
from scotl_matgl_shotgun import Library
path, file, table, at = sys.argv[1:]
def progress(done, total):
    if done == int(at):
        os.kill(os.getpid(), signal.SIGKILL)
from scotl_matgl.ranking import memory
memory._SECONDS = 0  # a line at once, so that the kill comes behind some
Library(path).rank(*json.loads(table), path=file, max_measured=3, head="kernel ridge", progress=progress)
"""


def test_a_killed_run_goes_on(
    mixed: Library, table: tuple[list[str], np.ndarray], tmp_path: Path, opened: list[str]
) -> None:
    options = {"max_measured": 3, "head": "kernel ridge"}
    whole = mixed.rank(*table, **options)
    file = tmp_path / "scores.jsonl"
    done = subprocess.run(  # noqa: S603 - own code
        [sys.executable, "-c", _KILLED, str(mixed.path), str(file), json.dumps([table[0], table[1].tolist()]), "9"],
        check=False,
    )
    assert done.returncode == -9
    assert file.read_bytes().count(b"\n") == 1 + 7  # a header; the eighth was about to be written
    with file.open("a") as half:
        half.write('["cut in the midd')
    opened.clear()
    steps: list[int] = []
    ranking = mixed.rank(*table, path=file, progress=lambda done, _: steps.append(done), **options)
    assert same(ranking, whole)
    assert steps == list(range(1, 17))
    assert set(opened[:2]) == {"networks-0000006.safetensors", "networks-0000009.safetensors"}
    assert [json.loads(line)[2] for line in file.read_text().splitlines()[1:]] == [record.name for record in mixed]
    # All is known now: what is opened is of the first ones.
    opened.clear()
    before = file.read_bytes()
    assert same(mixed.rank(*table, path=file, **options), whole)
    assert len(opened) <= 3
    assert file.read_bytes() == before
    assert len(mixed.rank(*table, path=file, max_measured=5, head="kernel ridge").results) == 5


def test_scores_of_another_table_or_setting_are_refused(
    mixed: Library, table: tuple[list[str], np.ndarray], tmp_path: Path
) -> None:
    formulas, y = table
    file = tmp_path / "scores.jsonl"
    mixed.rank(formulas, y, path=file, head="kernel ridge")
    before = file.read_bytes()
    mixed.rank(formulas[::-1], y[::-1], path=file, head="kernel ridge")  # the same table
    other = y.copy()
    other[3] += 1e-9
    for change in ({"y": other}, {"formulas": ["KI", *formulas[1:]]}, {"layer": "hidden_1"}):
        with pytest.raises(InputError, match=r"scores\.jsonl cannot be gone on with: its scores are of another table"):
            mixed.rank(**{"formulas": formulas, "y": y, "path": file, "head": "kernel ridge", **change})
    assert file.read_bytes() == before
    for content, message in (("a,b\n1,2\n", "something else"), ("notes", "something else")):
        file.write_text(content)
        with pytest.raises(InputError, match=message):
            mixed.rank(formulas, y, path=file)
        assert file.read_text() == content
    file.write_bytes(before.replace(b"[", b"{", 1))
    with pytest.raises(InputError, match="line 2 is damaged"):
        mixed.rank(formulas, y, path=file)
    file.write_bytes(before[:20])  # killed while the first line was written
    assert len(mixed.rank(formulas, y, path=file, head="kernel ridge").results) == 12
    assert file.read_bytes().count(b"\n") == 13


def test_a_network_that_was_written_again_is_screened_again(
    mixed: Library, table: tuple[list[str], np.ndarray], tmp_path: Path
) -> None:
    file = tmp_path / "scores.jsonl"
    mixed.rank(*table, path=file, head="kernel ridge")
    other = tmp_path / "other"
    with LibraryWriter(other, licence="CC0", citation="me", shard_size=1) as writer:
        for record in mixed:
            network = random_network(99, record.widths) if record.name == "random 3" else mixed.network(record)
            writer.add(record, network)
    changed = Library(other)
    assert same(changed.rank(*table, path=file, head="kernel ridge"), changed.rank(*table, head="kernel ridge"))


def test_two_runs_do_not_share_a_file(mixed: Library, table: tuple[list[str], np.ndarray], tmp_path: Path) -> None:
    fcntl = pytest.importorskip("fcntl")
    file = tmp_path / "scores.jsonl"
    with file.open("a") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        with pytest.raises(InputError, match="another run is writing"):
            mixed.rank(*table, path=file)


def test_a_full_disk_does_not_end_the_run(
    mixed: Library, table: tuple[list[str], np.ndarray], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from scotl_matgl.exceptions import StoredFileWarning
    from scotl_matgl.ranking import memory

    class Full:
        def write(self, content: bytes) -> int:
            raise OSError(28, "No space left on device")

        def close(self) -> None:
            pass

    monkeypatch.setattr(memory.ScoresFile, "_read", lambda self, _file: setattr(self, "_file", Full()))
    with pytest.warns(StoredFileWarning, match="No space left"):
        ranking = mixed.rank(*table, path=tmp_path / "scores.jsonl", head="kernel ridge")
    assert same(ranking, mixed.rank(*table, head="kernel ridge"))


@pytest.mark.parametrize("backend", ["threading", "loky"])
def test_workers_give_the_same(mixed: Library, table: tuple[list[str], np.ndarray], backend: str) -> None:
    options = {"max_measured": 3, "head": "kernel ridge", "estimators": {}}
    with joblib.parallel_config(backend, n_jobs=2):
        found = mixed.rank(*table, **options)
    assert same(found, mixed.rank(*table, **options))


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
