"""Corpus index: one file with the embeddings of all corpus formulas by all sources, small enough to be fetched."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from functools import lru_cache
from importlib import resources
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from scotl_matgl.bridges.base import MANIFEST, BridgeError
from scotl_matgl.bridges.lookup import LookUp, check_rows, hash_keys
from scotl_matgl.exceptions import StoredFileError
from scotl_matgl.storage import TensorKind, home, read_header, read_tensors, write_tensors

INDEX_FILE = TensorKind(
    "corpus index",
    2,  # 1 carried no hash; the manifest of the shipped bridges knows that of the index that belongs to them
    {
        "sources": {str: {"weights": {str: str}, "layers": {str: {"width": int, "n": int, "kept": float}}}},
        "provenance?": {str: object},
    },
    "delete it, and fetch it again with `scotl-matgl data fetch`",
)

# Widths up to this are kept as they are.
_NARROW = 4

# Stands in all components of a crystal that the source refuses; values reach from -127 to 127.
_REFUSED = -128


def index_path() -> Path:
    """Where the index is kept: ``corpus_index.safetensors`` in the package's own folder."""
    return home() / "corpus_index.safetensors"


class IndexWriter:
    """Collect embeddings, source by source, and write them as one file.

    Parameters
    ----------
    keys : sequence of str
        Composition keys of the corpus, each once.
    n_components : int, default=32
        Principal components that are kept of a layer wider than four, in eight bits each.
    """

    def __init__(self, keys: Sequence[str], *, n_components: int = 32) -> None:
        if len(set(keys)) != len(keys):
            raise BridgeError("a composition stands twice in the index; take one crystal per formula first")
        hashes = hash_keys(keys)
        self._order = np.argsort(hashes)
        self._tensors: dict[str, NDArray[Any]] = {"hashes": hashes[self._order]}
        self._sources: dict[str, dict[str, Any]] = {}
        self.n_components = n_components

    def add(self, source: str, layer: str, embedding: NDArray[np.float32], weights: Mapping[str, str]) -> float:
        """Add the embedding (m, d) of a source, NaN rows where it refuses; return the share of variance kept."""
        if len(embedding) != len(self._order):
            raise BridgeError(f"{source}: {len(embedding)} embeddings for {len(self._order)} formulas")
        Z = np.asarray(embedding, dtype=np.float64)[self._order]
        known = np.isfinite(Z).all(axis=1)
        if not known.any():
            raise BridgeError(f"{source} has no embedding of any formula of the corpus")
        name = f"{source}--{layer}"
        mean = Z[known].mean(axis=0)
        centred = Z[known] - mean
        total = float((centred**2).sum())
        kept = 1.0
        if Z.shape[1] <= _NARROW:
            largest = float(np.abs(Z[known]).max())
            fits = largest <= float(np.finfo(np.float16).max)
            self._tensors[name] = Z.astype(np.float16 if fits else np.float32)
        else:
            # Principal axes of the d x d covariance: m is far larger than d.
            axes = np.linalg.eigh(centred.T @ centred)[1][:, ::-1][:, : self.n_components]
            scores = centred @ axes
            step = np.maximum(np.abs(scores).max(axis=0), 1e-30) / 127
            packed = np.full((len(Z), axes.shape[1]), _REFUSED, dtype=np.int8)
            packed[known] = np.round(scores / step)
            self._tensors[name] = packed
            self._tensors[f"{name}:mean"] = mean.astype(np.float32)
            self._tensors[f"{name}:axes"] = (axes * step).T.astype(np.float32)
            lost = centred - (packed[known] * step) @ axes.T
            kept = 1.0 - float((lost**2).sum()) / total if total > 0 else 1.0
        self._sources.setdefault(source, {"weights": dict(weights), "layers": {}})["layers"][layer] = {
            "width": Z.shape[1],
            "n": int(known.sum()),
            "kept": kept,
        }
        return kept

    def save(self, path: str | Path, provenance: Mapping[str, Any]) -> None:
        """Write the file, whole or not at all; `provenance` is JSON: corpus hash, versions."""
        header = {"sources": self._sources, "provenance": dict(provenance)}
        write_tensors(Path(path), self._tensors, INDEX_FILE, header)


def read_index_header(path: str | Path, *, sha256: str = "") -> dict[str, Any]:
    """Sources, layers, shares of variance and provenance of an index, whose hash is compared first.

    Parameters
    ----------
    path : path
    sha256 : str, optional
        Hash that an index of the first format, which carries none, must have. Default: that of the index that belongs
        to the shipped bridges.

    Raises
    ------
    BridgeError
        If the file is no index, damaged, or of another version.
    """
    try:
        return read_header(Path(path), INDEX_FILE, sha256=sha256 or expected_index()[0])
    except StoredFileError as error:
        raise BridgeError(str(error)) from error


def look_up_in_index(path: str | Path, source: str, layer: str, weights: Mapping[str, str]) -> LookUp | None:
    """The look-up of one source and layer, or None if the index has none for these weights.

    Raises
    ------
    BridgeError
        As :func:`read_index_header`, and if the tensors do not fit together.
    """
    entry = read_index_header(path)["sources"].get(source)
    if entry is None or layer not in entry["layers"] or entry["weights"] != dict(weights):
        return None
    name, width = f"{source}--{layer}", entry["layers"][layer]["width"]
    packed = width > _NARROW
    names = ["hashes", name, *([f"{name}:mean", f"{name}:axes"] if packed else [])]
    try:
        _, tensors = read_tensors(Path(path), INDEX_FILE, names, sha256=expected_index()[0])
    except StoredFileError as error:
        raise BridgeError(str(error)) from error
    hashes, values = tensors["hashes"], tensors[name]
    check_rows(path, hashes, values)
    mean, axes = (tensors[f"{name}:{part}"] if packed else None for part in ("mean", "axes"))
    shapes = (values.shape[1], width) if mean is None or axes is None else (*axes.shape, *mean.shape)
    if shapes != (values.shape[1], *([width] * (2 if packed else 1))) or (packed and values.dtype != np.int8):
        raise BridgeError(f"{path} holds {name} in shapes {shapes}, which do not fit its width {width}; fetch it again")
    known = values[:, 0] != _REFUSED if packed else np.isfinite(values).all(axis=1)
    return LookUp(hashes[known], values[known], {"source_weights": dict(weights)}, mean=mean, axes=axes)


def expected_index() -> tuple[str, int]:
    """Sha256 and number of bytes of the index that belongs to the shipped bridges, from their manifest."""
    return _expected_index(Path(str(resources.files("scotl_matgl") / "data" / "bridges" / MANIFEST)))


@lru_cache(maxsize=4)
def _expected_index(manifest: Path) -> tuple[str, int]:
    index = json.loads(manifest.read_bytes()).get("index", {})
    return index.get("sha256", ""), index.get("bytes", 0)


def sources_in(path: str | Path) -> Iterable[str]:
    """Names of the sources of an index."""
    return sorted(read_index_header(path)["sources"])
