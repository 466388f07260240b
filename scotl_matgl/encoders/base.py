"""The path from crystals to embeddings that every structure encoder shares."""

from __future__ import annotations

import difflib
from abc import ABC, abstractmethod
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar, TypeAlias

import numpy as np
from numpy.typing import NDArray

from scotl_matgl.chemistry.crystals import as_crystal, as_list
from scotl_matgl.chemistry.refusals import StructureError
from scotl_matgl.encoders.contracts import Encoded
from scotl_matgl.encoders.graphs import (
    MIN_DISTANCE,
    CrystalGraph,
    build_graph,
    check_crystal,
    check_graph,
    plan_batches,
)
from scotl_matgl.encoders.probes import check_probes
from scotl_matgl.sources.cards import SourceCard
from scotl_matgl.vocabulary import Progress

if TYPE_CHECKING:
    import torch


#: From the graphs of a batch to one array (n_graphs, width) per layer.
Forward: TypeAlias = Callable[[Sequence[CrystalGraph]], Mapping[str, NDArray[np.float32]]]


#: Graphs held in memory at a time. Sorting by size within so many wastes almost nothing of a batch.
CHUNK = 2048


class GraphEncoder(ABC):
    """A source model that reads crystal graphs; a subclass says how one batch is run.

    This is a :class:`SourceEncoder` but for ``_forward``. Layers are looked up by name, the probes of the card are
    checked before any embedding is given out, and :func:`encode_crystals` does the rest.

    Parameters
    ----------
    card : SourceCard
    cutoff : float
        Of the graphs, Å.
    batch_edges : int
        Bonds of a batch where a call does not say how many.
    widths : mapping of str to int, optional
        Layers that can be read, with their widths; by default those of the card.
    elements : collection of str, optional
        Symbols that the model knows, empty if it takes all; by default those of the card.
    model : torch.nn.Module, optional
        What is moved to the device of a call.
    check : bool, default True
        Compare predictions with the probes of the card, if it has any, at the first use.

    Attributes
    ----------
    card : SourceCard
    layers : tuple of str
        Those of the card.
    elements : tuple of str
    cutoff : float

    Examples
    --------
    A model that counts neighbours:

    >>> from scotl_matgl.encoders.probes import reference_crystals
    >>> class Coordination(GraphEncoder):
    ...     def _forward(self, graphs, layers, device):
    ...         return {"readout": np.array([[graph.n_bonds / graph.n_atoms] for graph in graphs], np.float32)}
    ...
    ...     def _pick_device(self, device):  # this model does without torch
    ...         return device
    >>> card = SourceCard(
    ...     name="my-model", zoo="my_zoo", modality="structure", property="coordination", unit="1", dataset="none",
    ...     architecture="counting", layers={"readout": 1}, loader="my_zoo:load", licence="MIT", citation="me",
    ... )
    >>> crystals = reference_crystals()
    >>> encoder = Coordination(card, cutoff=3.0, batch_edges=10000)
    >>> encoder.encode([crystals["NaCl"], crystals["Si"]]).tolist()
    [[6.0], [4.0]]
    """

    #: What to do where the probes are not reproduced, as :func:`~scotl_matgl.encoders.probes.check_probes` takes it.
    _advice: ClassVar[str | None] = None

    def __init__(
        self,
        card: SourceCard,
        *,
        cutoff: float,
        batch_edges: int,
        widths: Mapping[str, int] | None = None,
        elements: Collection[str] | None = None,
        model: torch.nn.Module | None = None,
        check: bool = True,
    ) -> None:
        self.card = card
        self.layers = tuple(card.layers)
        self.elements = tuple(card.elements if elements is None else elements)
        self.cutoff = cutoff
        self._widths = dict(card.layers if widths is None else widths)
        self._batch_edges = batch_edges
        self._model = model
        self._unchecked = check and bool(card.probes)

    def encode(
        self,
        structures: Iterable[Any],
        *,
        layer: str = "readout",
        batch_edges: int | None = None,
        device: str = "auto",
        progress: Progress | None = None,
    ) -> NDArray[np.float32]:
        """Embeddings of one layer.

        Parameters
        ----------
        structures : iterable
            Crystals, or what :func:`~scotl_matgl.chemistry.crystals.as_crystal` understands.
        layer : str
            Key of :attr:`widths`.
        batch_edges : int, optional
            Bonds per batch; by default what suits the model.
        device : str, default "auto"
            Name that torch gives to a device; ``"auto"`` lets the encoder choose.
        progress : callable, optional
            Called with (crystals done, crystals in all).

        Returns
        -------
        ndarray of float32, shape (n_crystals, width)
            Rows of refused crystals are NaN; :meth:`encode_layers` says why.

        Raises
        ------
        StructureError
            If `structures` is one crystal, or a path, and no list of crystals.
        ValueError
            If there is no such layer.
        IncompatibleWeightsError
            If the model does not reproduce the probes of its card.
        """
        encoded = self.encode_layers(
            structures, layers=(layer,), batch_edges=batch_edges, device=device, progress=progress
        )
        return encoded.embeddings[layer]

    def encode_layers(
        self,
        structures: Iterable[Any],
        *,
        layers: Sequence[str],
        batch_edges: int | None = None,
        device: str = "auto",
        progress: Progress | None = None,
    ) -> Encoded:
        """Embeddings of several layers in one pass, with the reason of every refusal.

        Parameters and errors are those of :meth:`encode`, but for `layers`, a sequence of such names.
        """
        structures = as_list(structures)
        for layer in layers:
            if layer not in self._widths:
                close = difflib.get_close_matches(layer, self._widths, n=1)
                hint = f"did you mean {close[0]!r}? " if close else ""
                raise ValueError(f"{self.card.name} has no layer {layer!r}; {hint}it has {', '.join(self._widths)}")
        self.check(device)
        target = self._pick_device(device)
        if self._model is not None:
            self._model.to(target)
        return encode_crystals(
            structures,
            lambda graphs: self._forward(graphs, layers, target),
            widths={layer: self._widths[layer] for layer in layers},
            cutoff=self.cutoff,
            batch_edges=self._batch_edges if batch_edges is None else batch_edges,
            elements=self.elements,
            progress=progress,
        )

    @property
    def widths(self) -> Mapping[str, int]:
        """All layers that can be read, also those that the card does not list, with their widths."""
        return self._widths

    def check(self, device: str = "auto") -> None:
        """Compare predictions with the probes of the card, once: a check that failed or was interrupted is repeated.

        Raises
        ------
        IncompatibleWeightsError
            If the model does not reproduce them.
        """
        if self._unchecked:
            # Probes are encoded by this encoder, too.
            self._unchecked = False
            try:
                check_probes(self, device=device, advice=self._advice)
            except BaseException:
                self._unchecked = True
                raise

    @abstractmethod
    def _forward(
        self, graphs: Sequence[CrystalGraph], layers: Sequence[str], device: torch.device
    ) -> Mapping[str, NDArray[np.float32]]:
        """Run the model over the graphs of one batch.

        Parameters
        ----------
        graphs : sequence of CrystalGraph
        layers : sequence of str
            Keys of :attr:`widths`.
        device : torch.device
            What :meth:`_pick_device` returned.

        Returns
        -------
        mapping of str to ndarray of float32, shape (n_graphs, width)
            One array per layer. A crystal for which it raises or gives NaN is refused, and no other is.
        """

    def _pick_device(self, device: str) -> torch.device:
        """Device of a name; ``"auto"`` is a GPU if torch can use one."""
        import torch

        return torch.device(device if device != "auto" else "cuda" if torch.cuda.is_available() else "cpu")


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
        Crystals, or what :func:`~scotl_matgl.chemistry.crystals.as_crystal` understands.
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
    items = as_list(structures)
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
