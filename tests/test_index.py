"""Corpus index, its fetching, and the build of all bridges that leaves it."""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import http.server
import json
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from test_bridges import BINARIES, CARD, Encoder, binary

from scotl_matgl.bridges.base import BridgeError
from scotl_matgl.bridges.build import BuildSettings, build_all
from scotl_matgl.bridges.fetch import FetchError, expected_index, fetch_index
from scotl_matgl.bridges.index import IndexWriter, index_path, look_up_in_index, read_index_header, sources_in
from scotl_matgl.bridges.lookup import LookUp
from scotl_matgl.bridges.ridge import RidgeBridge
from scotl_matgl.bridges.store import MANIFEST, find_bridge, find_look_up, look_up_path
from scotl_matgl.chemistry.corpus import Corpus
from scotl_matgl.descriptors.composite import get_descriptor
from scotl_matgl.exceptions import StoredFileWarning
from scotl_matgl.sources.cards import SourceCard

KEYS = [f"key {i}" for i in range(400)]
WEIGHTS = {"state.pt": "a" * 64}


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("SCOTL_MATGL_HOME", str(tmp_path / "home"))
    return tmp_path / "home"


def spread(rank: int = 6, width: int = 20) -> NDArray[np.float32]:
    """Embeddings of a low rank, three of them refused."""
    rng = np.random.default_rng(0)
    Z = 5 + rng.normal(size=(len(KEYS), rank)) * np.geomspace(3, 0.3, rank) @ rng.normal(size=(rank, width))
    Z[[3, 50, 399]] = np.nan
    return Z.astype(np.float32)


def write_index(path: Path, **layers: NDArray[np.float32]) -> list[float]:
    writer = IndexWriter(KEYS, n_components=6)
    kept = [writer.add("Toy", layer, values, WEIGHTS) for layer, values in layers.items()]
    writer.save(path, {"corpus_hash": "c"})
    return kept


def test_the_index_gives_back_what_its_components_hold_and_knows_what_was_refused(tmp_path: Path) -> None:
    Z, final = spread(), spread(1, 1)
    kept = write_index(tmp_path / "index", readout=Z, final=final)
    look_up = look_up_in_index(tmp_path / "index", "Toy", "readout", WEIGHTS)
    assert look_up is not None
    found, known = look_up.find([*KEYS[::-1], "another"])
    found, known = found[:-1][::-1], np.append(known[:-1][::-1], known[-1])
    np.testing.assert_array_equal(known, [*np.isfinite(Z).all(axis=1), False])
    # Rounding to whole steps is an error of at most half a step in each component: 1/254 of its largest value.
    error = np.linalg.norm(found - Z, axis=1)[known[:-1]]
    centred = Z[known[:-1]] - Z[known[:-1]].mean(axis=0)
    assert error.max() <= np.sqrt(6) * np.linalg.norm(centred, axis=1).max() / 254 * 1.01
    lost = (error**2).sum() / (centred.astype(float) ** 2).sum()
    assert kept[0] == pytest.approx(1 - lost, abs=1e-6)
    assert kept[0] > 0.9999

    narrow = look_up_in_index(tmp_path / "index", "Toy", "final", WEIGHTS)
    assert narrow is not None
    np.testing.assert_array_equal(narrow.find(KEYS)[0], final.astype(np.float16).astype(np.float32))
    assert kept[1] == 1.0


def test_fewer_components_keep_the_largest_share_there_is(tmp_path: Path) -> None:
    Z = spread(rank=12)
    known = np.isfinite(Z).all(axis=1)
    values = np.linalg.svd(Z[known] - Z[known].mean(axis=0), compute_uv=False) ** 2
    assert write_index(tmp_path / "index", readout=Z)[0] == pytest.approx(values[:6].sum() / values.sum(), abs=2e-4)


def test_the_index_serves_only_the_source_layer_and_weights_that_it_holds(tmp_path: Path) -> None:
    write_index(tmp_path / "index", readout=spread())
    assert list(sources_in(tmp_path / "index")) == ["Toy"]
    assert look_up_in_index(tmp_path / "index", "Toy", "final", WEIGHTS) is None
    assert look_up_in_index(tmp_path / "index", "Other", "readout", WEIGHTS) is None
    assert look_up_in_index(tmp_path / "index", "Toy", "readout", {"state.pt": "b" * 64}) is None


def test_what_is_no_index_is_a_sentence(tmp_path: Path) -> None:
    LookUp.of(KEYS, spread(), {}).save(tmp_path / "lookup")
    (tmp_path / "text").write_text("hello")
    for name in ("lookup", "text", "absent"):
        with pytest.raises(BridgeError, match=r"cannot be read as a corpus index: .* `scotl-matgl data fetch`"):
            read_index_header(tmp_path / name)
    with pytest.raises(BridgeError, match="a composition stands twice"):
        IndexWriter(["a", "a"])
    with pytest.raises(BridgeError, match="Toy: 2 embeddings for 400 formulas"):
        IndexWriter(KEYS).add("Toy", "readout", np.zeros((2, 2), np.float32), {})
    with pytest.raises(BridgeError, match="Toy has no embedding of any formula"):
        IndexWriter(KEYS).add("Toy", "readout", np.full((400, 2), np.nan, np.float32), {})


def test_the_users_own_look_up_comes_before_the_index_and_a_damaged_index_costs_a_warning(home: Path) -> None:
    assert find_look_up(CARD, "readout") is None
    Z = np.ones((len(KEYS), CARD.width), np.float32)
    writer = IndexWriter(KEYS)
    writer.add(CARD.name, "readout", Z, CARD.weights)
    writer.save(index_path(), {})
    found = find_look_up(CARD, "readout")
    assert found is not None
    np.testing.assert_array_equal(found.find(KEYS[:1])[0], Z[:1])
    LookUp.of(KEYS, 2 * Z, {"source_weights": dict(CARD.weights)}).save(look_up_path(CARD.name, "readout"))
    own = find_look_up(CARD, "readout")
    assert own is not None
    np.testing.assert_array_equal(own.find(KEYS[:1])[0], 2 * Z[:1])
    look_up_path(CARD.name, "readout").unlink()
    index_path().write_bytes(index_path().read_bytes()[:100])
    with pytest.warns(StoredFileWarning, match="cannot be read as a corpus index: .*; the bridge is used alone"):
        assert find_look_up(CARD, "readout") is None


# --- fetching --------------------------------------------------------------------------------------------------------


@pytest.fixture
def served(tmp_path: Path) -> Iterator[str]:
    """Address of a server of the files of a folder."""
    folder = tmp_path / "served"
    write_index(folder / "index", readout=spread())
    (folder / "other").write_text("no index")

    class Quiet(http.server.SimpleHTTPRequestHandler):
        def log_message(self, *_: Any) -> None:
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Quiet, directory=str(folder)))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()


def test_the_index_is_fetched_once_from_an_address_or_a_path_and_checked(
    home: Path, served: str, tmp_path: Path, capfd: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    content = (tmp_path / "served" / "index").read_bytes()
    digest = hashlib.sha256(content).hexdigest()
    assert fetch_index(f"{served}/index", sha256=digest) == index_path()
    assert index_path().read_bytes() == content
    assert capfd.readouterr() == ("", "")
    assert fetch_index("http://127.0.0.1:9/nowhere", sha256=digest) == index_path()  # it is there already
    for address in (str(tmp_path / "served" / "index"), (tmp_path / "served" / "index").as_uri()):
        path = tmp_path / "again"
        assert fetch_index(address, sha256=digest, path=path).read_bytes() == content
        path.unlink()
    monkeypatch.setenv("SCOTL_MATGL_INDEX", f"{served}/index")
    assert fetch_index(sha256=digest, path=tmp_path / "by variable").read_bytes() == content


def test_what_cannot_be_fetched_is_a_sentence_and_leaves_the_old_file(
    home: Path, served: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("SCOTL_MATGL_INDEX", raising=False)
    target = tmp_path / "target"
    target.write_text("old")
    other = hashlib.sha256(b"no index").hexdigest()
    for address, sha256, message in (
        (None, other, "no address of the corpus index is known: give a URL or a path, or set SCOTL_MATGL_INDEX"),
        ("http://127.0.0.1:9/index", other, "cannot be read: .* `scotl-matgl bridge build --all"),
        (f"{served}/absent", other, "cannot be read: .*404"),
        (str(tmp_path / "absent"), other, "cannot be read: .*No such file"),
        (f"{served}/index", other, f"has the sha256 .*, not {other[:12]}... as the bridges of this version expect"),
    ):
        with pytest.raises(FetchError, match=message):
            fetch_index(address, sha256=sha256, path=target)
        assert target.read_text() == "old"
    with pytest.raises(FetchError, match="is no corpus index"):
        fetch_index(f"{served}/other", sha256=other, path=tmp_path / "new")
    assert not (tmp_path / "new").exists()


class Served:
    """A server of one file that knows ranges, and can end an answer early, answer slowly, or more than it should."""

    def __init__(self, content: bytes, *, ends_at: int | None = None, ranges: bool = True) -> None:
        self.asked: list[str] = []
        outer = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def log_message(self, *_: Any) -> None:
                pass

            def do_GET(self) -> None:
                asked = self.headers.get("Range", "")
                outer.asked.append(asked)
                start = int(asked.removeprefix("bytes=").removesuffix("-")) if asked and ranges else 0
                if start >= len(content):
                    self.send_error(416)
                    return
                self.send_response(206 if asked and ranges else 200)
                self.send_header("Content-Length", str(len(content) - start))
                self.end_headers()
                stop = len(content) if ends_at is None or outer.asked[1:] else ends_at
                self.wfile.write(content[start:stop])

        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    def __enter__(self) -> Served:
        return self

    def __exit__(self, *_: object) -> None:
        self.server.shutdown()
        self.server.server_close()

    @property
    def address(self) -> str:
        return f"http://127.0.0.1:{self.server.server_port}/index"


@pytest.mark.parametrize("ranges", [True, False], ids=["ranges", "no ranges"])
def test_a_fetch_that_was_cut_goes_on_where_it_stopped(home: Path, tmp_path: Path, ranges: bool) -> None:
    write_index(tmp_path / "index", readout=spread())
    content = (tmp_path / "index").read_bytes()
    digest = hashlib.sha256(content).hexdigest()
    with Served(content, ends_at=1000, ranges=ranges) as server:
        with pytest.raises(FetchError, match=r"ended after 0\.0 MB .*run `scotl-matgl data fetch` again"):
            fetch_index(server.address, sha256=digest)
        assert [path.stat().st_size for path in home.iterdir()] == [1000]
        fetch_index(server.address, sha256=digest)
        assert server.asked == ["", "bytes=1000-"]
    assert index_path().read_bytes() == content
    assert list(home.iterdir()) == [index_path()]


def test_a_fetch_that_was_killed_at_its_end_is_only_checked(home: Path, tmp_path: Path) -> None:
    write_index(tmp_path / "index", readout=spread())
    content = (tmp_path / "index").read_bytes()
    digest = hashlib.sha256(content).hexdigest()
    home.mkdir()
    (home / f".{index_path().name[:40]}.{digest[:16]}.part").write_bytes(content)
    with Served(content) as server:
        fetch_index(server.address, sha256=digest)
        assert server.asked == [f"bytes={len(content)}-"]
    assert index_path().read_bytes() == content


def test_a_fetch_is_bounded_in_size_and_time(home: Path) -> None:
    with Served(bytes(10**6)) as server:
        with pytest.raises(FetchError, match="has more than the 1000 bytes"):
            fetch_index(server.address, sha256="0" * 64, max_bytes=1000)
        assert list(home.iterdir()) == []
        with pytest.raises(FetchError, match=r"takes too long: .* again, which goes on from there"):
            fetch_index(server.address, sha256="0" * 64, seconds=0.0)
    with pytest.raises(FetchError, match="neither a path nor an address of http, https or file"):
        fetch_index("ftp://example.org/index", sha256="0" * 64)


def test_the_manifest_of_the_shipped_bridges_names_the_index() -> None:
    digest, size = expected_index()
    assert len(digest) == 64
    assert 1e6 < size < 1e8


# --- building all ----------------------------------------------------------------------------------------------------

OTHER = SourceCard.from_dict(CARD.to_dict() | {"name": "Toy-2", "layers": {"readout": 3, "final": 1}})
RECIPE = {"readout": RidgeBridge(held_out=0.3), "final": RidgeBridge(held_out=0.3)}


class Counted(Encoder):
    """Counts the crystals that it encodes."""

    seen = 0

    def encode_layers(self, structures: Any, **options: Any) -> Any:
        type(self).seen += len(structures)
        return super().encode_layers(structures, **options)


def test_all_are_built_once_one_failure_costs_one_source_and_the_manifest_says_so(home: Path, tmp_path: Path) -> None:
    corpus = Corpus([*BINARIES, binary(79, 8)])
    broken = SourceCard.from_dict(OTHER.to_dict() | {"name": "Broken"})
    reads_formulas = SourceCard.from_dict(OTHER.to_dict() | {"name": "Formulas", "modality": "composition"})

    def load(card: SourceCard) -> Any:
        if card is broken:
            raise RuntimeError("the weights are gone")
        return Counted(card)

    lines: list[str] = []

    def build() -> dict[str, Any]:
        return build_all(
            [broken, OTHER, reads_formulas],
            corpus,
            get_descriptor("magpie"),
            recipe=RECIPE,
            index=tmp_path / "index",
            load=load,
            report=lines.append,
            settings=BuildSettings(folder=tmp_path / "bridges"),
        )

    Counted.seen = 0
    manifest = build()
    assert Counted.seen == len(corpus)  # both layers in one pass
    assert manifest["failed"] == {"Broken": "the weights are gone"}
    assert [(row["source"], row["layer"]) for row in manifest["bridges"]] == [("Toy-2", "readout"), ("Toy-2", "final")]
    assert [row["n_refused"] for row in manifest["bridges"]] == [1, 1]
    assert json.loads((tmp_path / "bridges" / MANIFEST).read_text()) == json.loads(json.dumps(manifest))
    for row in manifest["bridges"]:
        path = tmp_path / "bridges" / row["file"]
        assert hashlib.sha256(path.read_bytes()).hexdigest() == row["sha256"]
        assert path.stat().st_size == row["bytes"]
        fitted = find_bridge(OTHER, row["layer"], get_descriptor("magpie"), [tmp_path / "bridges"])
        assert fitted.path == path
        assert round(fitted.load().quality_.median_r2, 4) == row["median_r2"]
    assert hashlib.sha256((tmp_path / "index").read_bytes()).hexdigest() == manifest["index"]["sha256"]
    look_up = look_up_in_index(tmp_path / "index", "Toy-2", "readout", OTHER.weights)
    assert look_up is not None
    exact = Encoder(OTHER).encode(corpus)
    found, known = look_up.find(corpus.compositions.keys())
    np.testing.assert_array_equal(known, np.isfinite(exact).all(axis=1))
    np.testing.assert_allclose(found[known], exact[known], rtol=1e-3)
    assert lines[0] == "Broken failed: the weights are gone"
    assert "Toy-2, readout: held-out R²" in lines[1]

    times = {path: path.stat().st_mtime_ns for path in (tmp_path / "bridges").glob("*.safetensors")}
    assert build() == manifest  # nothing is encoded or fitted again
    assert Counted.seen == len(corpus)
    assert {path: path.stat().st_mtime_ns for path in (tmp_path / "bridges").glob("*.safetensors")} == times
    RECIPE_2 = RECIPE | {"final": RidgeBridge(held_out=0.2)}
    settings = BuildSettings(folder=tmp_path / "bridges")
    build_all([OTHER], corpus, get_descriptor("magpie"), recipe=RECIPE_2, load=Counted, settings=settings)
    changed = {path for path, at in times.items() if path.stat().st_mtime_ns != at}
    assert {path.name.split("--")[1] for path in changed} == {"final"}


def test_without_an_index_only_what_is_missing_is_loaded_and_encoded(home: Path, tmp_path: Path) -> None:
    names = [f"made-{i}" if i % 4 else f"drawn-{i}" for i in range(len(BINARIES))]
    corpus = Corpus(
        dataclasses.replace(crystal, identifier=name) for crystal, name in zip(BINARIES, names, strict=True)
    )
    left_out = sum(name.startswith("drawn") for name in names)
    new = SourceCard.from_dict(OTHER.to_dict() | {"name": "Toy-3"})
    loaded: list[str] = []

    def load(card: SourceCard) -> Any:
        loaded.append(card.name)
        return Counted(card)

    def build(cards: list[SourceCard], index: Path | None) -> dict[str, Any]:
        return build_all(
            cards,
            corpus,
            get_descriptor("magpie"),
            recipe=RECIPE,
            index=index,
            load=load,
            settings=BuildSettings(folder=tmp_path / "bridges", leave_out=["drawn-*"]),
        )

    first = build([OTHER], tmp_path / "index")
    Counted.seen = 0
    second = build([OTHER, new], None)
    assert loaded == ["Toy-2", "Toy-3"]
    assert Counted.seen == len(corpus) - left_out
    assert second["index"] == first["index"]
    assert second["bridges"][:2] == first["bridges"]
    assert [row["n_left_out"] for row in second["bridges"]] == [left_out] * 4
    # What is left out is not fitted on, encoded or not.
    assert [row["median_r2"] for row in second["bridges"][2:]] == [row["median_r2"] for row in first["bridges"]]
