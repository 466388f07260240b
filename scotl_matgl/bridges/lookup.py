"""Look-up: the real embedding of a formula that is a crystal of the corpus, in place of the bridge's estimate."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from scotl_matgl.bridges.base import BridgeError
from scotl_matgl.exceptions import StoredFileError
from scotl_matgl.storage import TensorKind, read_tensors, write_tensors

LOOK_UP_FILE = TensorKind(
    "look-up",
    2,  # 1 carried no hash
    {"source?": str, "layer?": str, "source_weights?": {str: str}},
    "build its bridge again with `scotl-matgl bridge build`",
)


def hash_keys(keys: Sequence[str]) -> NDArray[np.uint64]:
    """64-bit hashes of composition keys: among a million formulas two agree by chance once in 40 million times."""
    digests = b"".join(hashlib.blake2b(key.encode(), digest_size=8).digest() for key in keys)
    return np.frombuffer(digests, dtype="<u8").astype(np.uint64)


@dataclass(frozen=True, eq=False)
class LookUp:
    """Source embeddings of the corpus by composition.

    Attributes
    ----------
    hashes : ndarray of shape (m,), uint64
        Sorted hashes of the composition keys.
    embeddings : ndarray of shape (m, d), float16 or float32
        Embedding of the crystal that stands for each composition; with `axes`, its coordinates (m, k) along these.
    provenance : dict
        As in a bridge: source, layer, source hash, corpus hash.
    mean, axes : ndarray of shape (d,) and (k, d), optional
        Where embeddings are kept compressed (:mod:`~scotl_matgl.bridges.index`): what coordinates are of.
    """

    hashes: NDArray[np.uint64]
    embeddings: NDArray[Any]
    provenance: dict[str, Any] = field(default_factory=dict)
    mean: NDArray[np.float32] | None = None
    axes: NDArray[np.float32] | None = None

    @classmethod
    def of(cls, keys: Sequence[str], embeddings: NDArray[np.float32], provenance: dict[str, Any]) -> LookUp:
        """From one composition key a crystal, each once; crystals with NaN (refused) are left out."""
        if len(set(keys)) != len(keys):
            raise BridgeError("a composition stands twice in the look-up; take one crystal per formula first")
        if len(keys) != len(embeddings):
            raise BridgeError(
                f"there are {len(keys)} compositions and {len(embeddings)} embeddings; one for each is needed"
            )
        hashes = hash_keys(keys)
        rows = np.flatnonzero(np.isfinite(embeddings).all(axis=1))
        rows = rows[np.argsort(hashes[rows])]
        return cls(hashes[rows], embeddings[rows], provenance)

    def find(self, keys: Sequence[str]) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
        """Embeddings (n, d), NaN where the composition is unknown, and the mask (n,) of the known ones."""
        wanted = hash_keys(keys)
        known = np.zeros(len(keys), dtype=bool)
        width = self.embeddings.shape[1] if self.axes is None else self.axes.shape[1]
        found = np.full((len(keys), width), np.nan, dtype=np.float32)
        if len(self.hashes):
            at = np.minimum(np.searchsorted(self.hashes, wanted), len(self.hashes) - 1)
            known = self.hashes[at] == wanted
            rows = self.embeddings[at[known]]
            if self.axes is not None:
                rows = rows.astype(np.float32) @ self.axes + (0 if self.mean is None else self.mean)
            found[known] = rows
        return found, known

    def save(self, path: str | Path) -> None:
        """Write one safetensors file (float16 where the values fit), whole or not at all."""
        fits = float(np.abs(self.embeddings).max(initial=0)) <= float(np.finfo(np.float16).max)
        embeddings = self.embeddings.astype(np.float16 if fits else np.float32)
        write_tensors(Path(path), {"hashes": self.hashes, "embeddings": embeddings}, LOOK_UP_FILE, self.provenance)

    @classmethod
    def load(cls, path: str | Path) -> LookUp:
        """Read what :meth:`save` wrote.

        Raises
        ------
        BridgeError
            If the file is no look-up, or damaged.
        """
        try:
            provenance, tensors = read_tensors(Path(path), LOOK_UP_FILE, ("hashes", "embeddings"))
        except StoredFileError as error:
            raise BridgeError(str(error)) from error
        hashes, embeddings = tensors["hashes"], tensors["embeddings"]
        check_rows(path, hashes, embeddings)
        if not np.isfinite(embeddings).all():
            raise BridgeError(f"{path} has embeddings that are not finite; build its bridge again")
        return cls(hashes, embeddings, provenance)


def check_rows(path: str | Path, hashes: NDArray[Any], embeddings: NDArray[Any]) -> None:
    """Raise unless there is one row of an embedding for each of the hashes, which are sorted."""
    sizes = hashes.shape[:1], embeddings.shape[:1]
    if hashes.dtype != np.uint64 or hashes.ndim != 1 or embeddings.ndim != 2 or sizes[0] != sizes[1]:
        raise BridgeError(
            f"{path} has {embeddings.shape} embeddings for {hashes.shape} hashes of formulas; build it again"
        )
    if (hashes[1:] < hashes[:-1]).any():
        raise BridgeError(f"{path} has hashes of formulas that are not in order; build it again")
