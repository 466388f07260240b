"""The store of embeddings: what is encoded again and what is not, and what a kill, a bad file or a rival leaves."""

from __future__ import annotations

import dataclasses
import json
import threading
import warnings
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

import scotl_matgl.encoders.store
from scotl_matgl.chemistry.crystals import Crystal
from scotl_matgl.encoders.contracts import Encoded
from scotl_matgl.encoders.store import EmbeddingStore, source_key
from scotl_matgl.exceptions import StoredFileWarning
from scotl_matgl.sources.cards import SourceCard
from scotl_matgl.storage import home, write_whole

CARD = SourceCard(
    name="Toy",
    zoo="toys",
    modality="structure",
    property="p",
    unit="1",
    dataset="d",
    architecture="A",
    layers={"readout": 3, "gc_1": 2},
    loader="toys:load",
    licence="MIT",
    citation="c",
    options={"state": 0},
    weights={"model.pt": "0" * 64},
)


class Killed(BaseException):
    """Stands for the end of the process."""


def vector(crystal: Crystal, layer: str) -> NDArray[np.float32]:
    """An embedding that tells crystals and layers apart."""
    width = CARD.layers[layer]
    return (crystal.volume * np.arange(1, width + 1) + len(layer)).astype(np.float32)


class Encoder:
    """Counts what it encodes; refuses hydrogen; ends the process at call number `kill_at`."""

    def __init__(self, card: SourceCard = CARD, kill_at: int | None = None) -> None:
        self.card = card
        self.layers = tuple(card.layers)
        self.kill_at = kill_at
        self.calls: list[list[str]] = []
        self.asked: list[tuple[str, ...]] = []

    @property
    def n_encoded(self) -> int:
        return sum(map(len, self.calls))

    def encode(self, structures: Iterable[Any], *, layer: str = "readout", **_: Any) -> NDArray[np.float32]:
        return self.encode_layers(structures, layers=(layer,)).embeddings[layer]

    def encode_layers(
        self,
        structures: Iterable[Any],
        *,
        layers: Sequence[str],
        progress: Callable[[int, int], None] | None = None,
        **_: Any,
    ) -> Encoded:
        if self.kill_at is not None and len(self.calls) == self.kill_at:
            raise Killed
        structures = list(structures)
        self.calls.append([crystal.content_hash for crystal in structures])
        self.asked.append(tuple(layers))
        result = Encoded({layer: np.stack([vector(crystal, layer) for crystal in structures]) for layer in layers})
        for row, crystal in enumerate(structures):
            if 1 in crystal.numbers:
                result.refused[row] = f"hydrogen in {crystal.identifier}"
                for values in result.embeddings.values():
                    values[row] = np.nan
        if progress is not None:
            progress(len(structures), len(structures))
        return result


def crystal(size: float, *numbers: int) -> Crystal:
    sites = np.arange(len(numbers))[:, None] / len(numbers) * np.ones(3)
    return Crystal(size * np.eye(3), sites, np.array(numbers, dtype=np.int16), f"c{size}")


# Numbers of atoms that are not sorted, so that the store's own order within a chunk shows if it leaks out.
CRYSTALS = [crystal(3.0 + 0.1 * index, *([14, 8, 6][: 1 + index % 3])) for index in range(10)]


def expected(crystals: Sequence[Crystal], layer: str = "readout") -> NDArray[np.float32]:
    return np.stack([vector(item, layer) for item in crystals])


@pytest.fixture
def store(tmp_path: Path) -> EmbeddingStore:
    return EmbeddingStore(tmp_path / "embeddings")


def shards(store: EmbeddingStore, card: SourceCard = CARD) -> list[Path]:
    return sorted(store.folder(card).glob("*.safetensors"))


# --- what is returned ------------------------------------------------------------------------------------------------


def test_the_order_of_the_crystals_is_kept_whatever_is_stored(store: EmbeddingStore) -> None:
    first = store.encode(Encoder(), CRYSTALS, chunk=3)
    np.testing.assert_array_equal(first.embeddings["readout"], expected(CRYSTALS))
    assert first.embeddings["readout"].dtype == np.float32
    assert first.refused == {}

    shuffled = [CRYSTALS[index] for index in (7, 0, 9, 3)] + [crystal(9.0, 14)] + CRYSTALS[5:7]
    encoder = Encoder()
    again = store.encode(encoder, shuffled)
    np.testing.assert_array_equal(again.embeddings["readout"], expected(shuffled))
    assert encoder.calls == [[shuffled[4].content_hash]]


def test_crystals_of_equal_content_are_encoded_once(store: EmbeddingStore) -> None:
    twins = [CRYSTALS[0], CRYSTALS[1], dataclasses.replace(CRYSTALS[0], identifier="twin"), CRYSTALS[1]]
    encoder = Encoder()
    result = store.encode(encoder, twins)
    assert encoder.calls == [[CRYSTALS[0].content_hash, CRYSTALS[1].content_hash]]
    np.testing.assert_array_equal(result.embeddings["readout"], expected(twins))


def test_no_crystal_gives_arrays_of_no_row(store: EmbeddingStore) -> None:
    result = store.encode(Encoder(), [], layers=("readout", "gc_1"))
    assert {layer: values.shape for layer, values in result.embeddings.items()} == {"readout": (0, 3), "gc_1": (0, 2)}


def test_reasons_of_refusals_survive_and_the_refused_are_not_tried_again(store: EmbeddingStore) -> None:
    hydride = crystal(5.0, 3, 1)
    mixed = [CRYSTALS[0], hydride, CRYSTALS[1], hydride]
    for encoder in (Encoder(), Encoder(kill_at=0)):  # the second one may not be called at all
        result = EmbeddingStore(store.root).encode(encoder, mixed)
        assert result.refused == {1: "hydrogen in c5.0", 3: "hydrogen in c5.0"}
        values = result.embeddings["readout"]
        assert np.isnan(values[[1, 3]]).all()
        np.testing.assert_array_equal(values[[0, 2]], expected(CRYSTALS[:2]))


def test_progress_counts_stored_crystals_as_done_and_ends_at_the_total(store: EmbeddingStore) -> None:
    store.encode(Encoder(), CRYSTALS[:4])
    told: list[tuple[int, int]] = []
    store.encode(Encoder(), CRYSTALS, chunk=4, progress=lambda done, total: told.append((done, total)))
    assert told == [(4, 10), (8, 10), (10, 10)]


# --- what is encoded again -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("killed_at", [0, 1, 2, 3])
def test_a_killed_run_goes_on_where_it_stopped(store: EmbeddingStore, killed_at: int) -> None:
    with pytest.raises(Killed):
        store.encode(Encoder(kill_at=killed_at), CRYSTALS, chunk=3)
    assert len(shards(store)) == killed_at
    encoder = Encoder()
    result = EmbeddingStore(store.root).encode(encoder, CRYSTALS, chunk=3)
    assert encoder.n_encoded == len(CRYSTALS) - 3 * killed_at
    np.testing.assert_array_equal(result.embeddings["readout"], expected(CRYSTALS))
    store.encode(Encoder(kill_at=0), CRYSTALS)


@pytest.mark.parametrize(
    "changes",
    [
        {"weights": {"model.pt": "1" * 64}},
        {"weights": {"model.pt": "0" * 64, "more.pt": "0" * 64}},
        {"options": {"state": 1}},
        {"loader": "toys:other"},
        {"name": "Toy-2"},
    ],
    ids=lambda changes: next(iter(changes)),
)
def test_another_model_is_another_folder(store: EmbeddingStore, changes: dict[str, Any]) -> None:
    store.encode(Encoder(), CRYSTALS[:2])
    other = Encoder(dataclasses.replace(CARD, **changes))
    store.encode(other, CRYSTALS[:2])
    assert other.n_encoded == 2
    assert store.folder(other.card) != store.folder(CARD)


def test_what_says_nothing_of_the_numbers_does_not_cost_an_encoding(store: EmbeddingStore) -> None:
    store.encode(Encoder(), CRYSTALS[:2])
    renamed = dataclasses.replace(CARD, notes="doubtful", error=0.1, licence="other", probes={"Si": 1.0})
    assert source_key(renamed) == source_key(CARD)
    store.encode(Encoder(renamed, kill_at=0), CRYSTALS[:2])


def test_a_new_version_of_the_encoders_encodes_again(store: EmbeddingStore, monkeypatch: pytest.MonkeyPatch) -> None:
    store.encode(Encoder(), CRYSTALS[:2])
    module = scotl_matgl.encoders.store
    monkeypatch.setattr(module, "ENCODING_VERSION", module.ENCODING_VERSION + 1)
    encoder = Encoder()
    store.encode(encoder, CRYSTALS[:2])
    assert encoder.n_encoded == 2


def test_a_layer_asked_for_later_is_encoded_then_and_both_are_kept(store: EmbeddingStore) -> None:
    store.encode(Encoder(), CRYSTALS[:5])
    encoder = Encoder()
    result = store.encode(encoder, CRYSTALS[:5], layers=("readout", "gc_1"))
    assert encoder.n_encoded == 5
    for layer in ("readout", "gc_1"):
        np.testing.assert_array_equal(result.embeddings[layer], expected(CRYSTALS[:5], layer))
    for layers in (("gc_1",), ("readout",), ("gc_1", "readout")):
        again = store.encode(Encoder(kill_at=0), CRYSTALS[:5], layers=layers)
        assert tuple(again.embeddings) == layers
        np.testing.assert_array_equal(again.embeddings[layers[0]], expected(CRYSTALS[:5], layers[0]))


def test_a_refusal_in_one_layer_is_not_told_of_another(store: EmbeddingStore) -> None:
    class OnlyInReadout(Encoder):
        def encode_layers(self, structures: Any, *, layers: Any, **options: Any) -> Encoded:
            result = super().encode_layers(structures, layers=layers, **options)
            if "readout" in layers:
                result.embeddings["readout"][0] = np.nan
                result.refused[0] = "not finite"
            return result

    assert store.encode(OnlyInReadout(), CRYSTALS[:2]).refused == {0: "not finite"}
    other = store.encode(OnlyInReadout(), CRYSTALS[:2], layers=("gc_1",))
    assert other.refused == {}
    assert np.isfinite(other.embeddings["gc_1"]).all()


# --- files -----------------------------------------------------------------------------------------------------------


def test_partial_files_are_never_read_and_no_run_leaves_one(store: EmbeddingStore) -> None:
    store.encode(Encoder(), CRYSTALS[:2])
    assert [path.suffix for path in store.folder(CARD).iterdir()] == [".safetensors"]
    content = shards(store)[0].read_bytes()
    shards(store)[0].rename(store.folder(CARD) / f".{shards(store)[0].name}.123.partial")
    encoder = Encoder()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        store.encode(encoder, CRYSTALS[:2])
    assert encoder.n_encoded == 2
    assert shards(store)[0].read_bytes() == content


@pytest.mark.parametrize(
    "damage",
    [
        lambda path: path.write_bytes(path.read_bytes()[:-4]),
        lambda path: path.write_bytes(path.read_bytes()[:20]),
        lambda path: path.write_bytes(b""),
        lambda path: path.write_bytes(bytes(200)),
    ],
    ids=["tensors cut", "header cut", "empty", "zeros"],
)
def test_a_damaged_file_is_named_and_written_again(store: EmbeddingStore, damage: Callable[[Path], Any]) -> None:
    store.encode(Encoder(), CRYSTALS, chunk=4)
    path = shards(store)[1]
    whole = path.read_bytes()
    damage(path)
    encoder = Encoder()
    with pytest.warns(StoredFileWarning, match=f"{path.name} cannot be read as a chunk of embeddings") as caught:
        result = store.encode(encoder, CRYSTALS, chunk=4)
    assert len(caught) == 1
    assert 0 < encoder.n_encoded <= 4
    np.testing.assert_array_equal(result.embeddings["readout"], expected(CRYSTALS))
    assert path.read_bytes() == whole  # repaired, so that the next run is silent
    store.encode(Encoder(kill_at=0), CRYSTALS, chunk=4)


@pytest.mark.parametrize("header", [None, {}, {"scotl_matgl": "{"}, {"scotl_matgl": '{"crystals": []}'}])
def test_a_file_of_something_else_is_named_and_left_alone(store: EmbeddingStore, header: dict[str, str] | None) -> None:
    from safetensors.numpy import save_file

    path = store.folder(CARD) / "foreign.safetensors"
    path.parent.mkdir(parents=True)
    save_file({"readout": np.zeros((1, 3), np.float32)}, path, metadata=header)
    content = path.read_bytes()
    with pytest.warns(StoredFileWarning, match="foreign.safetensors cannot be read as a chunk of embeddings"):
        result = store.encode(Encoder(), CRYSTALS[:2])
    np.testing.assert_array_equal(result.embeddings["readout"], expected(CRYSTALS[:2]))
    assert path.read_bytes() == content


def test_a_shard_holds_hashes_and_reasons_in_its_header(store: EmbeddingStore) -> None:
    from safetensors import safe_open

    hydride = crystal(5.0, 3, 1)
    store.encode(Encoder(), [CRYSTALS[0], hydride])
    with safe_open(str(shards(store)[0]), framework="numpy") as file:
        found = json.loads(file.metadata()["scotl_matgl"])
        assert list(file.keys()) == ["readout"]
    assert found["schema"] == ["chunk of embeddings", 2]
    assert found["header"] == {
        "crystals": [CRYSTALS[0].content_hash, hydride.content_hash],
        "refused": {hydride.content_hash: "hydrogen in c5.0"},
    }


def test_writers_of_one_file_never_publish_a_mixture(tmp_path: Path) -> None:
    path = tmp_path / "below" / "file"
    contents = [bytes([value]) * 200_000 for value in range(4)]
    write_whole(path, contents[0])
    failures: list[BaseException] = []
    seen: set[bytes] = set()
    stop = threading.Event()

    def write(content: bytes) -> None:
        try:
            for _ in range(40):
                write_whole(path, content)
        except BaseException as error:
            failures.append(error)

    def read() -> None:
        while not stop.is_set():
            seen.add(path.read_bytes())

    reader = threading.Thread(target=read)
    writers = [threading.Thread(target=write, args=(content,)) for content in contents]
    for thread in (reader, *writers):
        thread.start()
    for thread in writers:
        thread.join()
    stop.set()
    reader.join()
    assert failures == []
    assert seen <= set(contents)
    assert path.read_bytes() in contents
    assert list(path.parent.iterdir()) == [path]


def test_a_write_that_fails_leaves_the_old_file_and_no_partial_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "file"
    write_whole(path, b"old")

    def full_disk(self: Path, target: Path) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "replace", full_disk)
    with pytest.raises(OSError, match="No space left"):
        write_whole(path, b"new")
    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]


# --- what is asked for wrongly ---------------------------------------------------------------------------------------


def test_a_layer_that_the_card_lacks_is_a_sentence(store: EmbeddingStore) -> None:
    for layers in (("gc_9",), "readout"):  # a text is a sequence of texts: 'r' is no layer either
        with pytest.raises(ValueError, match=rf"Toy has no layer {layers[0]!r}; .*it has readout, gc_1"):
            store.encode(Encoder(), CRYSTALS, layers=layers)


@pytest.mark.parametrize("chunk", [0, -1])
def test_a_chunk_of_nothing_is_refused_rather_than_giving_nan(store: EmbeddingStore, chunk: int) -> None:
    with pytest.raises(ValueError, match=f"chunk is {chunk}; it must be positive"):
        store.encode(Encoder(), CRYSTALS, chunk=chunk)


def test_an_embedding_of_another_width_than_the_card_says_is_refused_and_not_stored(store: EmbeddingStore) -> None:
    class Narrow(Encoder):
        def encode_layers(self, structures: Any, *, layers: Any, **options: Any) -> Encoded:
            result = super().encode_layers(structures, layers=layers, **options)
            # One column would fit into any number of columns.
            return Encoded({layer: values[:, :1] for layer, values in result.embeddings.items()})

    with pytest.raises(ValueError, match="the layer 'readout' of Toy is 1 wide and not 3, as its card says"):
        store.encode(Narrow(), CRYSTALS)
    assert shards(store) == []


# --- where -----------------------------------------------------------------------------------------------------------


def test_home_follows_the_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import platformdirs

    monkeypatch.setenv("SCOTL_MATGL_HOME", str(tmp_path))
    assert home() == tmp_path
    assert EmbeddingStore().root == tmp_path / "embeddings"
    monkeypatch.setenv("HOME", str(tmp_path / "user"))
    monkeypatch.setenv("SCOTL_MATGL_HOME", "~/elsewhere")
    assert home() == tmp_path / "user" / "elsewhere"
    for empty in ("", None):
        if empty is None:
            monkeypatch.delenv("SCOTL_MATGL_HOME")
        else:
            monkeypatch.setenv("SCOTL_MATGL_HOME", empty)
        assert home() == platformdirs.user_cache_path("scotl_matgl")


def test_a_home_that_cannot_be_written_costs_one_sentence_and_no_number(tmp_path: Path) -> None:
    (tmp_path / "full").write_text("no folder")
    store = EmbeddingStore(tmp_path / "full" / "embeddings")
    encoder = Encoder()
    with pytest.warns(StoredFileWarning, match="cannot be stored below .*; the run goes on") as caught:
        result = store.encode(encoder, CRYSTALS, chunk=3)
    assert len(caught) == 1
    assert encoder.n_encoded == len(CRYSTALS)
    np.testing.assert_array_equal(result.embeddings["readout"], expected(CRYSTALS))


def test_nan_of_a_crystal_that_was_not_refused_is_damage(store: EmbeddingStore) -> None:
    from scotl_matgl.encoders.store import EMBEDDINGS_FILE
    from scotl_matgl.storage import read_tensors, write_tensors

    store.encode(Encoder(), CRYSTALS[:3])
    (path,) = shards(store)
    header, tensors = read_tensors(path, EMBEDDINGS_FILE)
    tensors["readout"][1, 0] = np.nan
    write_tensors(path, tensors, EMBEDDINGS_FILE, header)
    encoder = Encoder()
    with pytest.warns(StoredFileWarning, match="not finite of crystals that were not refused"):
        result = store.encode(encoder, CRYSTALS[:3])
    assert encoder.n_encoded == 3
    np.testing.assert_array_equal(result.embeddings["readout"], expected(CRYSTALS[:3]))


def test_a_crystal_whose_embedding_is_not_finite_counts_as_refused(store: EmbeddingStore) -> None:
    class Careless(Encoder):
        def encode_layers(self, structures: Any, **options: Any) -> Encoded:
            result = super().encode_layers(structures, **options)
            result.embeddings["readout"][0] = np.inf
            return result

    for encoder in (Careless(), Careless(kill_at=0)):
        assert store.encode(encoder, CRYSTALS[:1]).refused == {0: "its embedding is not finite"}
