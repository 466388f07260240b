"""Conformance of the bridges that a zoo brings with it."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import numpy as np

from scotl_matgl.bridges.base import MANIFEST, BridgeError, read_header
from scotl_matgl.bridges.store import BridgeFile, find_bridge
from scotl_matgl.chemistry.compositions import parse_compositions
from scotl_matgl.descriptors.composite import get_descriptor
from scotl_matgl.sources.cards import SourceCard
from scotl_matgl.storage import read_record
from scotl_matgl.testing.samples import require, sample_formulas


def check_bridges(cards: Iterable[SourceCard], folder: str | Path) -> None:
    """Check the bridges in the folder ``bridges`` of a zoo's package.

    Each must be whole, by its hash in the manifest; of a source, its weights and a layer of the cards; start from the
    descriptor ``standard``; and estimate finite values of the layer's width. Each bridged source must have one for its
    ``readout``, by which it is ranked.

    Parameters
    ----------
    cards : iterable of SourceCard
        Of the zoo; those without bridges are left alone.
    folder : path
        As ``scotl-matgl bridge build --all --no-index --output`` writes it.

    Raises
    ------
    AssertionError
        At the first rule that is broken.

    Examples
    --------
    >>> from scotl_matgl.bridges.store import shipped_folder
    >>> from scotl_matgl.sources.zoo import matgl, published
    >>> check_bridges([*matgl(), *published()], shipped_folder())
    """
    folder = Path(folder)
    known = {card.name: card for card in cards}
    files = {path.name: path for path in sorted(folder.glob("*.safetensors"))}
    require(files, f"{folder} holds no bridge; `scotl-matgl bridge build --all --no-index` writes them there")
    try:
        listed = {row["file"] for row in read_record(folder / MANIFEST, "build the bridges again")["bridges"]}
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise AssertionError(f"{folder / MANIFEST} does not list the bridges: {error}; build them again") from error
    require(
        listed == files.keys(),
        f"{folder / MANIFEST} and the folder differ in {sorted(listed ^ files.keys())}; build the bridges again",
    )
    bridged = {_check_file(path, known) for path in files.values()}
    without = sorted({name for name, _ in bridged} - {name for name, layer in bridged if layer == "readout"})
    require(not without, f"{', '.join(without)}: there is a bridge, but none to the readout, by which it is ranked")


def _check_file(path: Path, known: dict[str, SourceCard]) -> tuple[str, str]:
    """Source and layer of a bridge that is as it must be."""
    compositions = parse_compositions(sample_formulas())
    descriptor = get_descriptor("standard").fit(compositions)
    try:
        file = BridgeFile(path, read_header(path))
        name, layer = str(file.provenance.get("source")), str(file.provenance.get("layer"))
        require(name in known, f"{path} is of {name!r}, of which there is no card; delete it or add the card")
        card = known[name]
        require(layer in card.layers, f"{path} is of the layer {layer!r}; {name} has {', '.join(card.layers)}")
        require(
            find_bridge(card, layer, descriptor, [path.parent]).path == path,
            f"{path} is not the bridge that is found for {name}, layer {layer!r}; build it again",
        )
        estimated = file.load().transform(descriptor.transform(compositions))
    except BridgeError as error:
        raise AssertionError(f"{path} cannot be used: {error}") from error
    require(
        estimated.shape == (len(compositions), card.layers[layer]),
        f"{path} estimates {estimated.shape[1]} values; the layer {layer!r} of {name} has {card.layers[layer]}",
    )
    require(bool(np.isfinite(estimated).all()), f"{path} estimates values that are not finite; build it again")
    return name, layer
