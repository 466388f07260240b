"""Where bridges and look-ups lie, those shipped and those the user built, and which one fits a source."""

from __future__ import annotations

import contextlib
import glob
import importlib.util
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from scotl_matgl import registry
from scotl_matgl.bridges.base import MANIFEST as MANIFEST
from scotl_matgl.bridges.base import Bridge, BridgeError, load_bridge, read_header
from scotl_matgl.bridges.index import index_path, look_up_in_index
from scotl_matgl.bridges.lookup import LookUp
from scotl_matgl.exceptions import StoredFileWarning, warn
from scotl_matgl.sources.cards import SourceCard
from scotl_matgl.storage import file_sha256, home, is_missing


@dataclass(frozen=True)
class BridgeFile:
    """A bridge on disk, known from its header."""

    path: Path
    header: dict[str, Any]

    @property
    def provenance(self) -> dict[str, Any]:
        """Source, layer, hashes, descriptor and versions that the builder recorded."""
        return dict(self.header["provenance"])

    @property
    def shipped(self) -> bool:
        """Whether it came with the package, or with a plugin."""
        return self.path.parent in (shipped_folder(), *plugin_folders())

    def load(self) -> Bridge:
        """Read the bridge."""
        return load_bridge(self.path)


def shipped_folder() -> Path:
    """Folder of the bridges that come with the package."""
    return Path(str(resources.files("scotl_matgl") / "data" / "bridges"))


def plugin_folders() -> list[Path]:
    """Folders ``bridges`` inside the packages of installed zoos, none of which is imported."""
    found = []
    for registration in registry.entries("zoos").values():
        if registration.distribution == registry.OWN_DISTRIBUTION:
            continue
        places: Sequence[str] = ()
        with contextlib.suppress(Exception):  # whatever a broken installation raises is told where cards are listed
            spec = importlib.util.find_spec(registration.entry_point.module.partition(".")[0])
            places = (spec.submodule_search_locations if spec is not None else None) or ()
        found += [folder for place in places if (folder := Path(place) / "bridges").is_dir()]
    return list(dict.fromkeys(found))


def bridge_folders() -> list[Path]:
    """Where bridges are looked for: the user's own first, then those shipped, then those of plugins."""
    return [home() / "bridges", shipped_folder(), *plugin_folders()]


def bridge_name(source: str, layer: str, fingerprint: str) -> str:
    """File name of a bridge; the descriptor stands in it as the beginning of its fingerprint."""
    return f"{source}--{layer}--{fingerprint[:8]}.safetensors"


@dataclass(frozen=True)
class ShippedBridge:
    """A bridge that comes with the package, by the name of its file and the hash of its bytes."""

    file: str
    sha256: str

    @classmethod
    def of(cls, bridge: Bridge) -> ShippedBridge | None:
        """The shipped bridge that a bridge is, or None."""
        told = [bridge.provenance_.get(name, "") for name in ("source", "layer", "descriptor_fingerprint")]
        path = shipped_folder() / bridge_name(*told)
        if not all(told) or not path.is_file():
            return None
        shipped = load_bridge(path)
        same = type(shipped) is type(bridge) and shipped.weights_.keys() == bridge.weights_.keys()
        if not same or not all(np.array_equal(bridge.weights_[key], shipped.weights_[key]) for key in bridge.weights_):
            return None
        return cls(path.name, file_sha256(path))

    @property
    def path(self) -> Path:
        """Its file.

        Raises
        ------
        BridgeError
            If this package has it not, or another one of its name.
        """
        path = shipped_folder() / self.file
        if Path(self.file).name != self.file or not path.is_file() or file_sha256(path) != self.sha256:
            raise BridgeError(
                f"the bridge {self.file} is not the one that came with the package when the model was saved; install "
                "that version, fit the model again, or save it there with bridges=True"
            )
        return path

    def load(self) -> Bridge:
        """Read the bridge."""
        return load_bridge(self.path)


def list_bridges(folders: Sequence[Path] | None = None) -> Iterator[BridgeFile]:
    """All bridges of which a source is recorded, in the order in which they are preferred.

    Warns
    -----
    StoredFileWarning
        For each file that is left out, with the reason.
    """
    for folder in bridge_folders() if folders is None else folders:
        for path in sorted(folder.glob("*.safetensors")):
            try:
                found = BridgeFile(path, read_header(path))
                if not {"source", "layer", "descriptor"} <= found.provenance.keys():
                    raise BridgeError(f"{path} was saved without source, layer and descriptor")
            except BridgeError as error:
                if not is_missing(error):
                    warn(f"{error}; it is left out", StoredFileWarning)
                continue
            yield found


class Fingerprinted(Protocol):
    """A descriptor, or formulas that one has described."""

    def fingerprint(self) -> str:
        """What the columns and their element tables are known by."""


def find_bridge(
    card: SourceCard, layer: str, descriptor: Fingerprinted, folders: Sequence[Path] | None = None
) -> BridgeFile:
    """The bridge of a source and layer from a descriptor.

    A file counts only if it was fitted for the same source and layer, the same weights of it and the same columns and
    element tables of the descriptor.

    Raises
    ------
    BridgeError
        If there is none; the message says what was found instead and how to build one. If the file that has its name
        is damaged: one of the user's own never gives way to a shipped one without a word.
    """
    fingerprint = descriptor.fingerprint()
    own_name = bridge_name(card.name, layer, fingerprint)
    near = []
    for folder in bridge_folders() if folders is None else folders:
        for path in sorted(folder.glob(f"{glob.escape(f'{card.name}--{layer}--')}*.safetensors")):
            try:
                found = BridgeFile(path, read_header(path))
            except BridgeError as error:
                if is_missing(error):
                    continue
                if path.name == own_name:
                    raise
                near.append(str(error))
                continue
            provenance = found.provenance
            if (provenance.get("source"), provenance.get("layer")) != (card.name, layer):
                near.append(f"{path} says that it is of {provenance.get('source')}, layer {provenance.get('layer')}")
            elif provenance.get("source_weights") != dict(card.weights):
                near.append(f"{path} was fitted for other weights of it")
            elif provenance.get("descriptor_fingerprint") != fingerprint:
                near.append(f"{path} was fitted for {provenance.get('descriptor')} with other columns or tables")
            else:
                return found
    of = getattr(descriptor, "descriptor", descriptor)
    remark = f" ({'; '.join(near)})" if near else ""
    raise BridgeError(
        f"there is no bridge from {of!r} to the layer {layer!r} of {card.name}{remark}; "
        f"build it with `scotl-matgl bridge build --sources {card.name} --layer {layer} --structures FILE`"
    )


def find_look_up(card: SourceCard, layer: str) -> LookUp | None:
    """The look-up of a source and layer that the user's own build left, else that of the corpus index, or None.

    A file that cannot be read costs a :class:`StoredFileWarning`: the bridge serves without it.
    """
    try:
        path = look_up_path(card.name, layer)
        if path.is_file():
            look_up = LookUp.load(path)
            if look_up.provenance.get("source_weights") == dict(card.weights):
                return look_up
        if index_path().is_file():
            return look_up_in_index(index_path(), card.name, layer, card.weights)
    except BridgeError as error:
        warn(f"{error}; the bridge is used alone", StoredFileWarning)
    return None


def look_up_path(source: str, layer: str) -> Path:
    """Where the look-up of a source and layer is kept."""
    return home() / "lookup" / f"{source}--{layer}.safetensors"


def remove_bridges(card: SourceCard) -> list[Path]:
    """Delete the user's own bridges and look-ups of a source; which files they were."""
    found = [
        path
        for folder in (home() / "bridges", home() / "lookup")
        for path in sorted(folder.glob(f"{glob.escape(card.name)}--*.safetensors"))
    ]
    for path in found:
        path.unlink(missing_ok=True)
    return found
