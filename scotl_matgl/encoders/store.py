"""Content-addressed store of source embeddings: long encodings resume, and nothing half-written is ever read."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from scotl_matgl.exceptions import StoredFileError, StoredFileWarning, warn
from scotl_matgl.sources.cards import SourceCard
from scotl_matgl.storage import TensorKind, home, is_missing, read_header, read_tensors, sweep, touch, write_tensors

if TYPE_CHECKING:
    from scotl_matgl.chemistry.crystals import Crystal
    from scotl_matgl.encoders.contracts import SourceEncoder


EMBEDDINGS_FILE = TensorKind(
    "chunk of embeddings",
    2,  # 1 carried no hash
    {"crystals": [str], "refused": {str: str}},
    "what it held is encoded again; delete the file if this warning comes again",
)

#: Raised when a change of the encoders changes embeddings, so that what was stored before is not used again.
ENCODING_VERSION = 1


def source_key(card: SourceCard) -> str:
    """Hash of all that decides a source's embeddings: weights, loader, its options and the encoding version."""
    content = [dict(card.weights), card.loader, dict(card.options), ENCODING_VERSION]
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


@dataclass(frozen=True)
class StoredEmbeddings:
    """Embeddings of crystals by one source, in the order asked for.

    Attributes
    ----------
    embeddings : dict of str to ndarray of shape (n, d), float32
        By layer; NaN rows for refused crystals.
    refused : dict of int to str
        Position to reason.
    n_encoded : int
        Different crystals that were not in the store before.
    """

    embeddings: dict[str, NDArray[np.float32]]
    refused: dict[int, str]
    n_encoded: int = 0


class EmbeddingStore:
    """Embeddings on disk, by source and content of the crystal.

    One folder per source, in it one safetensors file for each chunk of crystals; a file appears whole (written beside,
    then renamed) or not at all, so that a killed run loses one chunk at most.

    Parameters
    ----------
    root : path, optional
        Default: ``embeddings`` below :func:`home`.
    """

    def __init__(self, root: str | Path | None = None) -> None:
        self.root = Path(root) if root is not None else home() / "embeddings"

    def folder(self, card: SourceCard) -> Path:
        """Where the embeddings of a source lie."""
        return self.root / f"{card.name}-{source_key(card)[:16]}"

    def _headers(self, card: SourceCard) -> Iterator[tuple[Path, dict[str, Any]]]:
        """Files of a source that can be read, with their headers; what killed runs left is removed."""
        sweep(self.folder(card))
        for path in sorted(self.folder(card).glob("*.safetensors")):
            try:
                yield path, read_header(path, EMBEDDINGS_FILE)
            except StoredFileError as error:
                if not is_missing(error):  # deleted since the folder was listed, e.g. by `scotl-matgl cache prune`
                    warn(str(error), StoredFileWarning)

    def _write(
        self, card: SourceCard, hashes: list[str], embeddings: dict[str, NDArray[np.float32]], refused: dict[int, str]
    ) -> bool:
        """Store a chunk; False, with a warning, if that is not possible: the run goes on without."""
        header = {"crystals": hashes, "refused": {hashes[index]: reason for index, reason in refused.items()}}
        layers = ",".join(sorted(embeddings))
        name = hashlib.sha256("".join([layers, *hashes]).encode()).hexdigest()[:24]
        try:
            write_tensors(self.folder(card) / f"{name}.safetensors", embeddings, EMBEDDINGS_FILE, header)
        except (OSError, StoredFileError) as error:
            warn(
                f"the embeddings of {card.name} cannot be stored below {self.root} ({error}); the run goes on, and "
                "what it encodes from here on will be encoded again by the next one",
                StoredFileWarning,
            )
            return False
        return True

    def encode(
        self,
        encoder: SourceEncoder,
        crystals: Sequence[Crystal],
        *,
        layers: Sequence[str] = ("readout",),
        chunk: int = 2048,
        device: str = "auto",
        progress: Callable[[int, int], None] | None = None,
    ) -> StoredEmbeddings:
        """Embeddings of all crystals: what is stored is read, the rest is encoded and stored chunk by chunk.

        Parameters
        ----------
        encoder : SourceEncoder
            Its card decides the folder.
        crystals : sequence of Crystal
            Crystals of equal content are encoded once.
        layers : sequence of str
            Layers to return.
        chunk : int, default=2048
            Crystals encoded between two writes.
        device : str, default="auto"
            Passed to the encoder.
        progress : callable, optional
            Called with (done, total) crystals, stored ones counted as done.

        Raises
        ------
        ValueError
            If the card has no such layer, or `chunk` is not positive.

        Warns
        -----
        StoredFileWarning
            If a stored file is damaged; its crystals are encoded again. If nothing can be stored, e.g. because the disk
            is full; the run goes on without.
        """
        card = encoder.card
        for layer in layers:
            card.check_layer(layer)
        if chunk < 1:
            raise ValueError(f"chunk is {chunk}; it must be positive")
        wanted = _Wanted(card, crystals, layers)
        for path, header in self._headers(card):
            if wanted.row_of.keys().isdisjoint(header["crystals"]):
                continue
            try:
                _, stored = read_tensors(path, EMBEDDINGS_FILE)
                _check_rows(path, header, stored)
            except StoredFileError as error:
                if not is_missing(error):  # deleted since the folder was listed, e.g. by `scotl-matgl cache prune`
                    warn(str(error), StoredFileWarning)
                continue
            wanted.take(header["crystals"], stored, header["refused"])
            touch(path)

        missing = wanted.missing()
        total, storing = len(wanted.row_of), True
        if progress is not None:
            progress(total - len(missing), total)
        for start in range(0, len(missing), chunk):
            part = missing[start : start + chunk]

            def report(done: int, _: int, before: int = total - len(missing) + start) -> None:
                if progress is not None:
                    progress(before + done, total)

            encoded = encoder.encode_layers(
                [wanted.crystals[digest] for digest in part], layers=tuple(layers), device=device, progress=report
            )
            refused = dict(encoded.refused)
            for values in encoded.embeddings.values():
                for index in np.flatnonzero(~np.isfinite(values).all(axis=1)).tolist():
                    refused.setdefault(index, "its embedding is not finite")
            wanted.take(part, encoded.embeddings, {part[index]: reason for index, reason in refused.items()})
            storing = storing and self._write(card, part, encoded.embeddings, refused)
        return replace(wanted.in_order(), n_encoded=len(missing))


class _Wanted:
    """The crystals that are asked for, each content once, and what is known of them so far."""

    def __init__(self, card: SourceCard, crystals: Sequence[Crystal], layers: Sequence[str]) -> None:
        self.card = card
        self.order = [crystal.content_hash for crystal in crystals]
        self.row_of = {digest: row for row, digest in enumerate(dict.fromkeys(self.order))}
        self.crystals = dict(zip(self.order, crystals, strict=True))
        n = len(self.row_of)
        self.found = {layer: np.full((n, card.layers[layer]), np.nan, dtype=np.float32) for layer in layers}
        self.complete = {layer: np.zeros(n, dtype=bool) for layer in layers}
        self.reasons: dict[str, str] = {}

    def take(self, hashes: list[str], embeddings: dict[str, NDArray[np.float32]], refused: dict[str, str]) -> None:
        """Take over what is wanted of a chunk."""
        mine = [index for index, digest in enumerate(hashes) if digest in self.row_of]
        rows = [self.row_of[hashes[index]] for index in mine]
        given = [layer for layer in self.found if layer in embeddings]
        for layer in given:
            width = embeddings[layer].shape[1]
            if width != self.card.layers[layer]:
                raise ValueError(
                    f"the layer {layer!r} of {self.card.name} is {width} wide and not {self.card.layers[layer]}, as "
                    "its card says; correct the card"
                )
            self.found[layer][rows] = embeddings[layer][mine]
            self.complete[layer][rows] = True
        if given:  # a crystal that one layer refuses may have a value in another
            self.reasons.update({digest: reason for digest, reason in refused.items() if digest in self.row_of})

    def missing(self) -> list[str]:
        """What is not known in every layer, by size: crystals of like size share a chunk, and batches are even."""
        done = np.logical_and.reduce(list(self.complete.values()))
        missing = [digest for digest, row in self.row_of.items() if not done[row]]
        return sorted(missing, key=lambda digest: len(self.crystals[digest]))

    def in_order(self) -> StoredEmbeddings:
        """What was found, a row for each crystal that was asked for."""
        order = [self.row_of[digest] for digest in self.order]
        return StoredEmbeddings(
            embeddings={layer: values[order] for layer, values in self.found.items()},
            refused={index: self.reasons[digest] for index, digest in enumerate(self.order) if digest in self.reasons},
        )


def _check_rows(path: Path, header: dict[str, Any], stored: dict[str, NDArray[Any]]) -> None:
    """Raise unless each layer has a row for each crystal, which is finite unless the crystal was refused."""
    crystals = header["crystals"]
    accepted = np.array([digest not in header["refused"] for digest in crystals], dtype=bool)
    for layer, values in stored.items():
        if values.ndim != 2 or len(values) != len(crystals) or values.dtype != np.float32:
            raise StoredFileError(
                f"{path} cannot be read as a {EMBEDDINGS_FILE.name}: the layer {layer!r} is {values.dtype} of shape "
                f"{values.shape} for {len(crystals)} crystals; {EMBEDDINGS_FILE.remedy}"
            )
        if not np.isfinite(values[accepted]).all():
            raise StoredFileError(
                f"{path} cannot be read as a {EMBEDDINGS_FILE.name}: the layer {layer!r} has values that are not "
                f"finite of crystals that were not refused; {EMBEDDINGS_FILE.remedy}"
            )
