"""MatGL's models (MEGNet, M3GNet, TensorNet, SO3Net, CHGNet, QET) as source encoders, on either of its backends."""

from __future__ import annotations

import importlib.metadata
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from scotl_matgl.chemistry.elements import SYMBOLS
from scotl_matgl.encoders.base import GraphEncoder
from scotl_matgl.encoders.checkpoints import CheckpointError, read_model
from scotl_matgl.encoders.graphs import CrystalGraph
from scotl_matgl.encoders.probes import IncompatibleWeightsError
from scotl_matgl.encoders.taps import tapped, taps_of
from scotl_matgl.encoders.weights import (
    INSTALL_HINT,
    Backend,
    check_files,
    find_model,
    pick_backend,
    pick_device,
)
from scotl_matgl.sources.cards import SourceCard

if TYPE_CHECKING:
    import torch


#: Bonds per batch at which each architecture is fastest on a CPU (of MEGNet two thirds are then merged).
BATCH_EDGES = {"MEGNet": 16000, "M3GNet": 4000, "TensorNet": 1500, "QET": 1500, "SO3Net": 1500, "CHGNet": 1500}


def load(
    card: SourceCard, path: str | Path | None = None, *, download: bool = False, check: bool = True
) -> MatGLEncoder:
    """Load a MatGL model; nothing in the checkpoint is executed.

    Parameters
    ----------
    card : SourceCard
        Its ``options`` may name the ``directory`` of the model (default: the card's name) and the ``state`` of a
        multi-fidelity model (0, 1, ...). ``convention`` is the major version of MatGL for whose message passing the
        weights were made: 2 (the default, and that of all built-in cards), or 3 for those of its hub since MatGL 3.
    path : path-like, optional
        Directory with ``model.json``, ``model.pt`` and ``state.pt``. By default the model is looked for in
        ``$SCOTL_MATGL_ASSETS/models/matgl`` and in MatGL's cache.
    download : bool, default False
        Let MatGL download what is not found.
    check : bool, default True
        Compare files with the card's sha256 and, at the first use, predictions with its probes. Switch off for
        debugging only.

    Raises
    ------
    FileNotFoundError
        At once, if the model is at none of these places.
    CheckpointError
        If the checkpoint holds other classes than the allowed ones, or weights that do not fit.
    IncompatibleWeightsError
        If the files are not those of the card, if the card has neither a sha256 nor probes to judge them by, or if they
        were made for the message passing of MatGL 3 and MatGL 2 is installed.
    RuntimeError
        If matgl is already imported with another backend, or is of a version that reads these weights wrongly.

    Examples
    --------
    >>> from scotl_matgl.sources.cards import all_cards, select
    >>> card = select(all_cards(), "MEGNet-MP-2018.6.1-Eform")[0]
    >>> encoder = card.load()  # doctest: +SKIP
    >>> encoder.encode(structures).shape  # doctest: +SKIP
    (1000, 160)
    """
    directory = find_model(card, path, download=download)
    if check:
        check_files(card, directory)
    backend = pick_backend()
    backend.import_matgl()
    convention = int(card.options.get("convention", 2))
    if convention not in backend.CONVENTIONS:
        raise IncompatibleWeightsError(
            f"The weights of {card.name} were made for the message passing of MatGL {convention}; the installed matgl "
            f"{importlib.metadata.version('matgl')} has another. What fits which weights: {INSTALL_HINT}."
        )
    return MatGLEncoder(card, read_model(directory, backend, convention), backend, check=check)


class MatGLEncoder(GraphEncoder):
    """A MatGL model that turns crystals into embeddings; made by :func:`load`.

    Features of atoms and bonds are averaged over the crystal, so that an embedding does not depend on the size of the
    cell. Batched and one-by-one embeddings agree to 1e-5 of the largest value, for M3GNet too, whose three-body terms
    mix the crystals of a batch in MatGL itself (up to 4.0.3).

    Attributes
    ----------
    card : SourceCard
    layers : tuple of str
        ``"readout"`` first; ``"final"`` is the prediction of the model, per atom for potentials (eV/atom, with the
        element references).
    """

    def __init__(
        self,
        card: SourceCard,
        model: torch.nn.Module,
        backend: Backend,
        *,
        check: bool = True,
        widths_of_card: bool = True,
    ) -> None:
        self._backend = backend
        self._wrapper = model
        self._network: Any = model.model
        self._architecture = type(self._network).__name__
        self._taps = taps_of(self._network)
        widths = {**{name: tap.width for name, tap in self._taps.items()}, "final": 1}
        for layer, width in card.layers.items():
            if widths_of_card and widths.get(layer) != width:
                raise CheckpointError(
                    f"The card of {card.name} lists the layer {layer!r} with width {width}; the model has "
                    f"{', '.join(f'{name} {size}' for name, size in widths.items())}"
                )
        super().__init__(
            card,
            cutoff=float(self._network.cutoff),
            batch_edges=BATCH_EDGES[self._architecture],
            widths=widths,
            elements=self._network.element_types,
            model=model,
            check=check,
        )
        self._types = np.full(len(SYMBOLS) + 1, -1, dtype=np.int32)
        self._types[[SYMBOLS.index(symbol) + 1 for symbol in self.elements]] = np.arange(len(self.elements))

    @property
    def model(self) -> torch.nn.Module:
        """The network (its ``model``) and what brings its output to the unit of the card."""
        return self._wrapper

    @property
    def architecture(self) -> str:
        """Name of the network's class."""
        return self._architecture

    @property
    def backend(self) -> Backend:
        """The version of MatGL that the model runs on."""
        return self._backend

    @property
    def types(self) -> NDArray[np.int32]:
        """Position of each atomic number among :attr:`elements`; −1 for those that the model does not know."""
        return self._types

    def _pick_device(self, device: str) -> torch.device:
        return pick_device(device, self._backend)

    def _forward(
        self, graphs: Sequence[CrystalGraph], layers: Sequence[str], device: torch.device
    ) -> dict[str, NDArray[np.float32]]:
        """Run the model over the graphs of one batch."""
        import torch

        n_crystals = len(graphs)
        if sum(graph.n_atoms for graph in graphs) == 1:
            # MatGL squeezes its arrays, so that QET cannot take one atom alone: give it a twin.
            graphs = [*graphs, *graphs]
        graph, inputs = self._backend.prepare(self._network, graphs, self._types, device)
        n_atoms = torch.tensor([[crystal.n_atoms] for crystal in graphs], device=device)
        with torch.inference_mode():
            values = self.run(graph, inputs, n_atoms, layers)
        return {layer: value[:n_crystals].cpu().numpy() for layer, value in values.items()}

    def run(
        self, graph: Any, inputs: Mapping[str, Any], n_atoms: torch.Tensor, layers: Sequence[str]
    ) -> dict[str, torch.Tensor]:
        """Layers of a prepared batch as tensors (n_crystals, width), through which gradients flow.

        Parameters
        ----------
        graph, inputs
            What the backend prepares.
        n_atoms : tensor of shape (n_crystals, 1)
            Atoms of each crystal.
        layers : sequence of str
            Keys of :attr:`widths`.
        """
        n_crystals = len(n_atoms)
        if self._architecture == "MEGNet":
            inputs = {**inputs, "state_attr": self._state(n_crystals).to(n_atoms.device)}
        taps = {layer: self._taps[layer] for layer in layers if layer != "final"}
        with tapped(self._network, taps) as captured, warnings.catch_warnings():
            # A crystal may have no pair of bonds, and that is fine.
            warnings.filterwarnings("ignore", message="The input graph for the user-defined edge function")
            output = self._network(g=graph, **inputs).reshape(n_crystals, 1)
            values = {}
            for layer in layers:
                if layer == "final":
                    values[layer] = self._prediction(output, graph, n_atoms)
                elif (pool := taps[layer].pool) is None:
                    values[layer] = captured[layer].reshape(n_crystals, -1)
                else:
                    values[layer] = self._backend.crystal_means(graph, captured[layer], pool)
        return values

    def _state(self, n_crystals: int) -> torch.Tensor:
        import torch

        if self._network.embedding.ntypes_state:
            return torch.full((n_crystals,), int(self.card.options.get("state", 0)), dtype=torch.int32)
        return torch.zeros(n_crystals, self._network.embedding.dim_state_embedding)

    def _prediction(self, output: torch.Tensor, graph: Any, n_atoms: torch.Tensor) -> torch.Tensor:
        """Output of the network in the unit of the card."""
        if type(self._wrapper).__name__ == "TransformedTargetModel":
            value: torch.Tensor = self._wrapper.transformer.inverse_transform(output)
            return value if self._is_mean else value / n_atoms
        energy = self._wrapper.data_std * output + self._wrapper.data_mean
        if self._wrapper.element_refs is not None:
            energy = energy + self._wrapper.element_refs(graph).reshape(-1, 1)
        return energy / n_atoms

    @property
    def _is_mean(self) -> bool:
        """Whether a crystal of twice the cell has the same output."""
        # A MEGNet always has, and does not say so; a CHGNet may take the mean over its atoms, and does not either.
        said = bool(getattr(self._network, "is_intensive", self._architecture == "MEGNet"))
        return said or getattr(self._network, "readout_operation", "") == "mean"
