"""Build a bridge from the corpus up: encode the crystals, describe their formulas, fit, measure, save."""

from __future__ import annotations

import platform
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any

from sklearn.base import clone

from scotl_matgl import registry
from scotl_matgl.bridges.base import Bridge, BridgeError
from scotl_matgl.bridges.lookup import LookUp
from scotl_matgl.bridges.store import bridge_name, look_up_path
from scotl_matgl.cache import EmbeddingStore, home
from scotl_matgl.cards import SourceCard
from scotl_matgl.descriptors import CompositionDescriptor
from scotl_matgl.encoders.base import SourceEncoder
from scotl_matgl.structures import Corpus

#: Packages whose version can change a number in a bridge.
_RECORDED = ("scotl-matgl", "numpy", "scikit-learn", "torch", "matgl", "dgl", "pymatgen", "matminer")


def installed_versions(names: Sequence[str] = _RECORDED) -> dict[str, str]:
    """Versions of the named distributions that are installed, and of Python."""
    versions = {"python": platform.python_version()}
    for name in names:
        try:
            versions[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return versions


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
    folder: str | Path | None = None,
    store: EmbeddingStore | None = None,
    device: str = "auto",
    progress: Callable[[int, int], None] | None = None,
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
    folder : path, optional
        Where the bridge is written. Default: ``bridges`` below the package's own folder.
    store : EmbeddingStore, optional
        Where embeddings are kept between runs.
    device : str, default="auto"
        Device of the encoder.
    progress : callable, optional
        Called with (done, total) crystals while encoding.

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
    store = EmbeddingStore() if store is None else store
    started = time.perf_counter()
    encoder = card.load() if encoder is None else encoder
    encoded = store.encode(encoder, crystals, layers=(layer,), device=device, progress=progress)
    embedding = encoded.embeddings[layer]
    encoded_at = time.perf_counter()

    compositions = crystals.compositions
    descriptor = clone(descriptor)
    X = descriptor.fit(compositions).transform(compositions)
    # A copy, so that builds of several sources from one object do not share their weights.
    fitted: Bridge = registry.load("bridges", bridge)() if isinstance(bridge, str) else clone(bridge)
    fitted.fit(X, embedding, groups=[crystal.chemical_system for crystal in crystals])
    provenance: dict[str, Any] = {
        "source": card.name,
        "source_weights": dict(card.weights),
        "layer": layer,
        "descriptor": repr(descriptor),
        "descriptor_fingerprint": descriptor.fingerprint(),
        "corpus_hash": crystals.hash,
        "n_crystals": len(crystals),
        "n_refused": len(encoded.refused),
        "versions": installed_versions(),
    }
    folder = home() / "bridges" if folder is None else Path(folder)
    path = folder / bridge_name(card.name, layer, descriptor.fingerprint())
    fitted.save(path, provenance)
    LookUp.of(compositions.keys(), embedding, provenance).save(look_up_path(card.name, layer))
    refused: dict[str, str] = {}
    for index, reason in encoded.refused.items():
        identifier = crystals[index].identifier
        # Crystals without a name, or with that of another, must not hide each other.
        refused[f"{identifier} (crystal {index})" if not identifier or identifier in refused else identifier] = reason
    return BuiltBridge(
        card=card,
        bridge=fitted,
        path=path,
        n_crystals=len(crystals),
        refused=refused,
        seconds_encoding=encoded_at - started,
        seconds_fitting=time.perf_counter() - encoded_at,
    )
