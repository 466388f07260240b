"""Corpus index: one file with the embeddings of all corpus formulas by all sources, small enough to be fetched."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from scotl_matgl.bridges.base import BridgeError
from scotl_matgl.bridges.lookup import LookUp, hash_keys
from scotl_matgl.storage import home, write_whole

#: Version of the file format.
FORMAT = 1

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
        from safetensors.numpy import save

        header = {"format": FORMAT, "sources": self._sources, "provenance": dict(provenance)}
        tensors = {name: np.ascontiguousarray(value) for name, value in self._tensors.items()}
        write_whole(Path(path), save(tensors, metadata={"scotl_matgl": json.dumps(header, sort_keys=True)}))


def read_index_header(path: str | Path) -> dict[str, Any]:
    """Sources, layers, shares of variance and provenance of an index, without its tensors.

    Raises
    ------
    BridgeError
        If the file is no index, damaged, or of another version.
    """
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(str(path), framework="numpy") as file:
            header: dict[str, Any] = json.loads((file.metadata() or {})["scotl_matgl"])
            found, _ = header["format"], header["sources"]
    except (SafetensorError, OSError, KeyError, TypeError, ValueError) as error:
        raise BridgeError(
            f"{path} cannot be read as a corpus index ({type(error).__name__}: {error}); "
            "delete it, and fetch it again with `scotl-matgl data fetch`"
        ) from error
    if found != FORMAT:
        raise BridgeError(f"{path} has format {found}, this version reads {FORMAT}; fetch it again")
    return header


def look_up_in_index(path: str | Path, source: str, layer: str, weights: Mapping[str, str]) -> LookUp | None:
    """The look-up of one source and layer, or None if the index has none for these weights.

    Raises
    ------
    BridgeError
        As :func:`read_index_header`.
    """
    entry = read_index_header(path)["sources"].get(source)
    if entry is None or layer not in entry["layers"] or entry["weights"] != dict(weights):
        return None
    from safetensors import SafetensorError, safe_open

    name = f"{source}--{layer}"
    try:
        with safe_open(str(path), framework="numpy") as file:
            hashes, values = file.get_tensor("hashes"), file.get_tensor(name)
            packed = values.dtype == np.int8
            mean, axes = (file.get_tensor(f"{name}:{part}") if packed else None for part in ("mean", "axes"))
    except (SafetensorError, OSError) as error:
        raise BridgeError(f"{path} is damaged ({error}); delete it and fetch it again") from error
    known = values[:, 0] != _REFUSED if packed else np.isfinite(values).all(axis=1)
    return LookUp(hashes[known], values[known], {"source_weights": dict(weights)}, mean=mean, axes=axes)


def sources_in(path: str | Path) -> Iterable[str]:
    """Names of the sources of an index."""
    return sorted(read_index_header(path)["sources"])
