"""Fit bridges on crystals and their compositions, and measure them on chemistries that they have not seen."""

from __future__ import annotations

import fnmatch
import json
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from sklearn.base import clone

from scotl_matgl import registry
from scotl_matgl.bridges.base import MANIFEST, Bridge, BridgeError, read_header
from scotl_matgl.bridges.index import IndexWriter
from scotl_matgl.bridges.lookup import LookUp
from scotl_matgl.bridges.mlp import MLPBridge
from scotl_matgl.bridges.store import bridge_name, look_up_path
from scotl_matgl.chemistry.corpus import Corpus
from scotl_matgl.descriptors.base import CompositionDescriptor
from scotl_matgl.encoders.contracts import SourceEncoder
from scotl_matgl.encoders.store import EmbeddingStore, StoredEmbeddings
from scotl_matgl.sources.cards import SourceCard
from scotl_matgl.storage import file_sha256, home, installed_versions, read_record, write_whole


@dataclass(frozen=True, kw_only=True)
class BuildSettings:
    """How bridges are built and where they are kept, whichever source and layer they are of.

    Attributes
    ----------
    folder : path
        Where bridges are written. Default: ``bridges`` below the package's own folder.
    dtype : str, optional
        Precision of the files, see :meth:`~scotl_matgl.bridges.base.Bridge.save`. Default: ``"float16"`` for a single
        bridge, ``"int8"`` for those of many sources.
    leave_out : sequence of str
        Patterns (``*`` matches anything) of identifiers of crystals that no bridge is fitted on. They stay in the
        look-up.
    store : EmbeddingStore
        Where embeddings are kept between runs. Default: below the package's own folder.
    device : str, default="auto"
        Device of the encoders.
    progress : callable, optional
        Called with (done, total) crystals while encoding.
    """

    folder: str | Path = field(default_factory=lambda: home() / "bridges")
    dtype: str | None = None
    leave_out: Sequence[str] = ()
    store: EmbeddingStore = field(default_factory=EmbeddingStore)
    device: str = "auto"
    progress: Callable[[int, int], None] | None = None


@dataclass(frozen=True)
class BuiltBridge:
    """What one build produced."""

    card: SourceCard
    bridge: Bridge
    path: Path
    n_crystals: int
    refused: dict[str, str]
    seconds_encoding: float
    seconds_fitting: float


def build_bridge(
    card: SourceCard,
    corpus: Corpus,
    descriptor: CompositionDescriptor,
    *,
    encoder: SourceEncoder | None = None,
    layer: str = "readout",
    bridge: Bridge | str = "mlp",
    look_up: bool = True,
    settings: BuildSettings | None = None,
) -> BuiltBridge:
    """Encode one crystal per formula, fit the bridge, and save it with the look-up.

    Parameters
    ----------
    card : SourceCard
        A source of structure modality.
    corpus : Corpus
        Crystals; for each formula the one of lowest formation energy is used.
    descriptor : CompositionDescriptor
        Unfitted or fitted; a copy of it is fitted.
    encoder : SourceEncoder, optional
        The loaded source. Default: ``card.load()``.
    layer : str, default="readout"
        Layer of the source whose embedding is estimated.
    bridge : Bridge or str, default="mlp"
        A bridge, of which a copy is fitted, or the name of a registered kind.
    look_up : bool, default=True
        Whether the embeddings of the crystals are kept as look-up.
    settings : BuildSettings, optional
        Folder, precision, crystals to leave out, store, device and progress.

    Returns
    -------
    BuiltBridge

    Raises
    ------
    BridgeError
        If the source reads formulas itself, the encoder is that of another card, the corpus is empty, or too few
        crystals have an embedding.

    Notes
    -----
    Held-out crystals are chosen by chemical system, so that the quality is for chemistries the bridge has not seen.
    """
    if card.modality != "structure":
        raise BridgeError(f"{card.name} embeds formulas itself; it needs no bridge")
    if encoder is not None and encoder.card != card:
        raise BridgeError(f"the encoder is that of {encoder.card.name}, or of another card of {card.name}, not of this")
    crystals = corpus.one_per_formula()
    if not len(crystals):
        raise BridgeError(f"there is no crystal to fit a bridge on; {len(corpus.refused)} records were refused")
    settings = BuildSettings() if settings is None else settings
    started = time.perf_counter()
    encoder = card.load() if encoder is None else encoder
    left_out = _matching(crystals, settings.leave_out)
    # Nothing is asked of what is left out, unless it is looked up.
    encoded = _encode(encoder, crystals, ~left_out | look_up, (layer,), settings)
    embedding = encoded.embeddings[layer]
    encoded_at = time.perf_counter()

    compositions = crystals.compositions
    descriptor = clone(descriptor)
    X = descriptor.fit(compositions).transform(compositions)
    # A copy, so that builds of several sources from one object do not share their weights.
    fitted: Bridge = registry.load("bridges", bridge)() if isinstance(bridge, str) else clone(bridge)
    targets = np.where(left_out[:, None], np.float32(np.nan), embedding)  # rows without embedding are not fitted on
    fitted.fit(X, targets, groups=[crystal.chemical_system for crystal in crystals])
    provenance = {
        **_provenance(card, crystals, descriptor),
        "layer": layer,
        "n_refused": len(encoded.refused),
        "left_out": list(settings.leave_out),
        "n_left_out": int(left_out.sum()),
    }
    path = Path(settings.folder) / bridge_name(card.name, layer, descriptor.fingerprint())
    fitted.save(path, provenance, dtype=settings.dtype or "float16")
    if look_up:
        LookUp.of(compositions.keys(), embedding, provenance).save(look_up_path(card.name, layer))
    return BuiltBridge(
        card=card,
        bridge=fitted,
        path=path,
        n_crystals=len(crystals),
        refused=_by_name(crystals, encoded.refused),
        seconds_encoding=encoded_at - started,
        seconds_fitting=time.perf_counter() - encoded_at,
    )


def _provenance(card: SourceCard, crystals: Corpus, descriptor: CompositionDescriptor) -> dict[str, Any]:
    """What every bridge says of its source, its crystals and its descriptor."""
    return {
        "source": card.name,
        "source_weights": dict(card.weights),
        "descriptor": repr(descriptor),
        "descriptor_fingerprint": descriptor.fingerprint(),
        "corpus_hash": crystals.hash,
        "n_crystals": len(crystals),
        "versions": installed_versions(),
    }


def _by_name(crystals: Corpus, refused: Mapping[int, str]) -> dict[str, str]:
    """Reasons by identifier; crystals without a name, or with that of another, must not hide each other."""
    named: dict[str, str] = {}
    for index, reason in refused.items():
        identifier = crystals[index].identifier
        named[f"{identifier} (crystal {index})" if not identifier or identifier in named else identifier] = reason
    return named


def _encode(
    encoder: SourceEncoder,
    crystals: Corpus,
    wanted: np.ndarray[Any, np.dtype[np.bool_]],
    layers: Sequence[str],
    settings: BuildSettings,
) -> StoredEmbeddings:
    """Embeddings of some crystals (n,), NaN for the others."""
    rows = np.flatnonzero(wanted)
    some = settings.store.encode(
        encoder,
        [crystals[row] for row in rows.tolist()],
        layers=layers,
        device=settings.device,
        progress=settings.progress,
    )
    embeddings = {}
    for layer, values in some.embeddings.items():
        embeddings[layer] = np.full((len(crystals), values.shape[1]), np.nan, dtype=np.float32)
        embeddings[layer][rows] = values
    return StoredEmbeddings(embeddings, {int(rows[place]): reason for place, reason in some.refused.items()})


def _matching(crystals: Corpus, patterns: Sequence[str]) -> np.ndarray[Any, np.dtype[np.bool_]]:
    """Mask (n,) of the crystals whose identifier matches one of the patterns."""
    return np.array([any(fnmatch.fnmatchcase(item.identifier, name) for name in patterns) for item in crystals], bool)


def default_recipe() -> dict[str, Bridge]:
    """The bridge of each layer that is shipped; the sizes are chosen in ``docs/measurements.md``."""
    return {"readout": MLPBridge(), "final": MLPBridge(hidden=(64, 64))}


def build_all(
    cards: Sequence[SourceCard],
    corpus: Corpus,
    descriptor: CompositionDescriptor,
    *,
    recipe: Mapping[str, Bridge] | None = None,
    index: str | Path | None = None,
    load: Callable[[SourceCard], SourceEncoder] | None = None,
    report: Callable[[str], None] | None = None,
    settings: BuildSettings | None = None,
) -> dict[str, Any]:
    """Build the bridges of many sources and layers, the corpus index, and the manifest that says what was done.

    Run again, it goes on where it stopped: stored embeddings are read, and a bridge of the same source, corpus,
    descriptor and parameters is kept.

    Parameters
    ----------
    cards : sequence of SourceCard
        Those of structure modality are built; one that fails costs its own entry in ``failed``.
    corpus, descriptor, settings
        As for :func:`build_bridge`.
    recipe : mapping of str to Bridge, optional
        Layer to the unfitted bridge. Default: :func:`default_recipe`.
    index : path, optional
        Where the corpus index is written; by default none is. Without it crystals that are left out are not encoded, a
        source whose bridges are all built is not loaded, and what an earlier manifest says of its index is kept.
    load : callable, optional
        From a card to its encoder. Default: ``card.load()``.
    report : callable, optional
        Called with a line for each bridge.

    Returns
    -------
    dict
        The manifest, which is also written to ``manifest.json`` in the folder: settings, corpus, versions, a record of
        each bridge with its quality, sha256 and size, sources that failed and why, and the index.
    """
    recipe = default_recipe() if recipe is None else dict(recipe)
    settings = BuildSettings() if settings is None else settings
    settings = replace(settings, dtype=settings.dtype or "int8")
    folder = Path(settings.folder)
    crystals = corpus.one_per_formula()
    writer = IndexWriter(crystals.compositions.keys()) if index is not None else None
    records: list[dict[str, Any]] = []
    failed: dict[str, str] = {}
    tell = report if report is not None else lambda _line: None
    fingerprint = clone(descriptor).fit(crystals.compositions).fingerprint()
    build = partial(build_bridge, look_up=False, settings=replace(settings, progress=None))
    left_out = [*settings.leave_out]
    encoded_rows = ~_matching(crystals, settings.leave_out) | (writer is not None)
    # Before the work: a damaged manifest is no reason to do it twice.
    earlier = _earlier_index(folder / MANIFEST, crystals.hash) if writer is None else {}
    for card in (card for card in cards if card.modality == "structure"):
        try:
            layers = tuple(layer for layer in recipe if layer in card.layers)
            wanted = {"source_weights": dict(card.weights), "corpus_hash": crystals.hash, "left_out": left_out}
            paths = {layer: folder / bridge_name(card.name, layer, fingerprint) for layer in layers}
            missing = [layer for layer in layers if not _is_built(paths[layer], recipe[layer], wanted, settings.dtype)]
            if missing or writer is not None:
                encoder = card.load() if load is None else load(card)
                # All layers in one pass: each alone would cost a pass of its own.
                encoded = _encode(encoder, crystals, encoded_rows, layers, settings)
            for layer in layers:
                if layer in missing:
                    build(card, crystals, descriptor, encoder=encoder, layer=layer, bridge=recipe[layer])
                records.append(_record(paths[layer]))
                kept = "" if writer is None else _add(writer, card, layer, encoded.embeddings[layer])
                tell(f"{card.name}, {layer}: held-out R² {records[-1]['median_r2']:.3f}{kept}")
        except Exception as error:  # an encoder may raise anything, and one source must not end the run
            failed[card.name] = str(error) or type(error).__name__
            tell(f"{card.name} failed: {failed[card.name]}")
    made_by = {"descriptor": repr(descriptor), "descriptor_fingerprint": fingerprint, "recipe": _as_json(recipe)}
    made_by |= {"dtype": settings.dtype, "left_out": left_out}
    manifest: dict[str, Any] = {**made_by, "bridges": records, "failed": failed, **earlier}
    return _finish(folder, manifest, crystals, None if index is None else Path(index), writer)


def _as_json(recipe: Mapping[str, Bridge]) -> dict[str, Any]:
    return {layer: {"kind": bridge.kind, **bridge.get_params(deep=False)} for layer, bridge in recipe.items()}


def _finish(
    folder: Path, manifest: dict[str, Any], crystals: Corpus, index: Path | None, writer: IndexWriter | None
) -> dict[str, Any]:
    """Write the index, if there is one, and the manifest with what is known of the whole."""
    made_from = {"corpus_hash": crystals.hash, "versions": installed_versions()}
    records = manifest["bridges"]
    manifest = {
        **manifest,
        **made_from,
        "n_crystals": len(crystals),
        "bytes": sum(record["bytes"] for record in records),
    }
    if writer is not None and index is not None and records:
        writer.save(index, made_from)
        manifest["index"] = {"bytes": index.stat().st_size, "sha256": file_sha256(index)}
    write_whole(folder / MANIFEST, (json.dumps(manifest, indent=1, sort_keys=True) + "\n").encode())
    return manifest


def _earlier_index(manifest: Path, corpus_hash: str) -> dict[str, Any]:
    """What an earlier manifest of the same crystals says of its index."""
    earlier = read_record(manifest, "delete it to have it made anew") if manifest.is_file() else {}
    same = earlier.get("corpus_hash") == corpus_hash
    return {"index": earlier["index"]} if same and "index" in earlier else {}


def _is_built(path: Path, bridge: Bridge, wanted: Mapping[str, Any], dtype: str | None) -> bool:
    """Whether the file holds a bridge of these parameters and precision, fitted for what is wanted."""
    if not path.is_file():
        return False
    try:
        header = read_header(path)
    except BridgeError:
        return False
    parameters = json.loads(json.dumps(bridge.get_params(deep=False)))
    same = (header["kind"], header["parameters"], header.get("dtype")) == (bridge.kind, parameters, dtype)
    return same and all(header["provenance"].get(key) == value for key, value in wanted.items())


def _add(writer: IndexWriter, card: SourceCard, layer: str, embedding: np.ndarray[Any, Any]) -> str:
    kept = writer.add(card.name, layer, embedding, card.weights)
    return f"; {100 * kept:.1f} % of the variance in the index"


def _record(path: Path) -> dict[str, Any]:
    header = read_header(path)
    quality, provenance = header["quality"], header["provenance"]
    return {
        "file": path.name,
        "sha256": file_sha256(path),
        "bytes": path.stat().st_size,
        **{key: provenance[key] for key in ("source", "layer", "n_crystals", "n_refused", "n_left_out")},
        **{key: round(quality[key], 4) for key in ("median_r2", "mean_r2", "cosine", "cosine_centred")},
        "n_held_out": quality["n_held_out"],
    }
