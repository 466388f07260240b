"""What an encoder is, and the path from crystals to embeddings that every structure encoder shares."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol, TypeAlias, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from scotl_matgl.cards import SourceCard
from scotl_matgl.composition import Compositions
from scotl_matgl.encoders.graphs import (
    MIN_DISTANCE,
    CrystalGraph,
    build_graph,
    check_crystal,
    check_graph,
    plan_batches,
)
from scotl_matgl.structures import StructureError, as_crystal

#: Called with (crystals done, crystals in all).
Progress: TypeAlias = Callable[[int, int], None]

#: From the graphs of a batch to one array (n_graphs, width) per layer.
Forward: TypeAlias = Callable[[Sequence[CrystalGraph]], Mapping[str, NDArray[np.float32]]]

#: Graphs held in memory at a time. Sorting by size within so many wastes almost nothing of a batch.
CHUNK = 2048


@dataclass
class Encoded:
    """Embeddings of crystals.

    Attributes
    ----------
    embeddings : dict of str to ndarray of float32, shape (n_crystals, width)
        One array per layer; the rows of refused crystals are NaN.
    refused : dict of int to str
        Position of each refused crystal in the input, and the reason.
    """

    embeddings: dict[str, NDArray[np.float32]]
    refused: dict[int, str] = field(default_factory=dict)


@runtime_checkable
class SourceEncoder(Protocol):
    """A source model that reads crystals."""

    card: SourceCard
    layers: tuple[str, ...]

    def encode(
        self,
        structures: Iterable[Any],
        *,
        layer: str = "readout",
        batch_edges: int | None = None,
        device: str = "auto",
        progress: Progress | None = None,
    ) -> NDArray[np.float32]:
        """Embeddings (n_crystals, width) of one layer; NaN rows for refused crystals."""

    def encode_layers(
        self,
        structures: Iterable[Any],
        *,
        layers: Sequence[str],
        batch_edges: int | None = None,
        device: str = "auto",
        progress: Progress | None = None,
    ) -> Encoded:
        """Embeddings of several layers in one pass, with the reason of every refusal."""


@runtime_checkable
class CompositionEncoder(Protocol):
    """A source model that reads formulas, so that it needs no bridge.

    An encoder that works on a composition descriptor may also be a :class:`DescribedEncoder`.
    """

    card: SourceCard
    layers: tuple[str, ...]

    def encode(self, formulas: Iterable[Any], *, layer: str = "readout") -> NDArray[np.float32]:
        """Embeddings (n_formulas, width) of one layer."""


@runtime_checkable
class DescribedEncoder(CompositionEncoder, Protocol):
    """A composition encoder that takes descriptors which were computed before: for many sources on one table.

    Attributes
    ----------
    fingerprint : str
        ``fingerprint()`` of the descriptor that it reads; other descriptors are never handed to it.
    """

    fingerprint: str

    def encode_described(
        self, compositions: Compositions, X: NDArray[np.float64], *, layer: str = "readout"
    ) -> NDArray[np.float32]:
        """What ``encode(compositions, layer=layer)`` gives, from descriptors X (n_formulas, p) of these formulas."""


def encode_crystals(
    structures: Iterable[Any],
    forward: Forward,
    *,
    widths: Mapping[str, int],
    cutoff: float,
    batch_edges: int,
    elements: Collection[str] = (),
    min_distance: float = MIN_DISTANCE,
    progress: Progress | None = None,
) -> Encoded:
    """Check crystals, build their graphs, cut these into batches and run a model over them.

    A crystal that is refused, or whose batch fails because of it, costs its own row and nothing else: when a batch
    raises, its crystals are tried again one by one.

    Parameters
    ----------
    structures : iterable
        Crystals, or what :func:`~scotl_matgl.structures.as_crystal` understands.
    forward : callable
        The model; see :data:`Forward`.
    widths : mapping of str to int
        Layers that `forward` gives, with their widths.
    cutoff : float
        Of the graphs, Å.
    batch_edges : int
        Bonds of a batch.
    elements : collection of str
        Symbols that the model knows; empty if it takes all.
    min_distance : float
        Atoms that are nearer are refused, Å.
    progress : callable, optional
        See :data:`Progress`.
    """
    items = list(structures)
    result = Encoded({layer: np.full((len(items), width), np.nan, np.float32) for layer, width in widths.items()})
    known = frozenset(elements)
    done = 0

    def advance(count: int) -> None:
        nonlocal done
        done += count
        if progress is not None:
            progress(done, len(items))

    for begin in range(0, len(items), CHUNK):
        rows: list[int] = []
        graphs: list[CrystalGraph] = []
        for row in range(begin, min(begin + CHUNK, len(items))):
            graph = graph_or_reason(items[row], known, cutoff, min_distance)
            if isinstance(graph, str):
                result.refused[row] = graph
                advance(1)
            else:
                rows.append(row)
                graphs.append(graph)
        for batch in plan_batches([graph.n_bonds for graph in graphs], batch_edges):
            _run(forward, [graphs[i] for i in batch], [rows[i] for i in batch], result)
            advance(len(batch))
    result.refused = dict(sorted(result.refused.items()))
    return result


def graph_or_reason(
    structure: Any, elements: Collection[str], cutoff: float, min_distance: float = MIN_DISTANCE
) -> CrystalGraph | str:
    """Graph of a crystal, or why a model that knows some elements must not be given it."""
    try:
        crystal = as_crystal(structure)
    except StructureError as error:
        return str(error)
    reason = check_crystal(crystal, elements, min_distance)
    if reason is not None:
        return reason
    graph = build_graph(crystal, cutoff)
    reason = check_graph(graph, min_distance)
    return graph if reason is None else reason


def _run(forward: Forward, graphs: list[CrystalGraph], rows: list[int], result: Encoded) -> None:
    """Run one batch and write its rows; fall back on single crystals if it fails."""
    try:
        output = forward(graphs)
    except Exception as error:  # whatever a model may raise must not end the run
        if len(graphs) == 1:
            result.refused[rows[0]] = f"the model failed on it: {type(error).__name__}: {error}"
            return
        for graph, row in zip(graphs, rows, strict=True):
            _run(forward, [graph], [row], result)
        return
    finite = np.ones(len(rows), dtype=bool)
    for values in output.values():
        finite &= np.isfinite(values).all(axis=1)
    for layer, values in output.items():
        result.embeddings[layer][np.asarray(rows)[finite]] = values[finite]
    for row in np.asarray(rows)[~finite].tolist():
        result.refused[row] = "the model gives values for it that are not finite"
