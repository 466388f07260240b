"""MatGL's pretrained models (MEGNet, M3GNet, TensorNet, QET) as source encoders, on either of its backends."""

from __future__ import annotations

import importlib.metadata
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from scotl_matgl.chemistry.elements import SYMBOLS
from scotl_matgl.encoders.base import GraphEncoder
from scotl_matgl.encoders.graphs import CrystalGraph
from scotl_matgl.encoders.probes import IncompatibleWeightsError
from scotl_matgl.encoders.weights import (
    INSTALL_HINT,
    Backend,
    CheckpointError,
    check_files,
    find_model,
    pick_backend,
    pick_device,
    read_model,
)
from scotl_matgl.sources.cards import SourceCard

if TYPE_CHECKING:
    import torch


#: Bonds per batch at which each architecture is fastest on a CPU (of MEGNet two thirds are then merged).
BATCH_EDGES = {"MEGNet": 16000, "M3GNet": 4000, "TensorNet": 1500, "QET": 1500}


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

    def __init__(self, card: SourceCard, model: torch.nn.Module, backend: Backend, *, check: bool = True) -> None:
        self._backend = backend
        self._wrapper = model
        self._network: Any = model.model
        self._architecture = type(self._network).__name__
        self._taps = _taps(self._network)
        widths = {**{name: tap.width for name, tap in self._taps.items()}, "final": 1}
        for layer, width in card.layers.items():
            if widths.get(layer) != width:
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
        with _tapped(self._network, taps) as captured, warnings.catch_warnings():
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
            transformed: torch.Tensor = self._wrapper.transformer.inverse_transform(output)
            return transformed
        energy = self._wrapper.data_std * output + self._wrapper.data_mean
        if self._wrapper.element_refs is not None:
            energy = energy + self._wrapper.element_refs(graph).reshape(-1, 1)
        return energy / n_atoms


@dataclass(frozen=True)
class _Tap:
    """Where a layer is read: a module, what of its input or output, and how that is averaged."""

    module: str
    pick: Callable[[tuple[Any, ...], Any], torch.Tensor]
    width: int
    pool: str | None = None


def _taps(network: Any) -> dict[str, _Tap]:
    """Layers of a network, ``readout`` first."""
    architecture = type(network).__name__
    if architecture == "MEGNet":
        return _megnet_taps(network)
    if architecture == "M3GNet":
        return _m3gnet_taps(network)
    return _tensornet_taps(network)


def _megnet_taps(network: Any) -> dict[str, _Tap]:
    last = network.output_proj.last_linear
    taps = {
        "readout": _Tap("output_proj", _first_input, network.output_proj.in_features),
        "penultimate": _Tap(_name_of(network, last), _first_input, last.in_features),
    }
    for index, block in enumerate(network.blocks):
        for position, part, pool in ((1, "node", "atoms"), (0, "edge", "bonds"), (2, "state", None)):
            width = getattr(block.conv, f"{part}_func").out_features
            taps[f"block_{index + 1}_{part}"] = _Tap(f"blocks.{index}", _output(position), width, pool)
    return taps


def _m3gnet_taps(network: Any) -> dict[str, _Tap]:
    convolutions = {
        f"gc_{index + 1}": _Tap(f"graph_layers.{index}", _output(1), layer.conv.node_weight_func.out_features, "atoms")
        for index, layer in enumerate(network.graph_layers)
    }
    reads_bonds = network.is_intensive and getattr(network.readout, "field", "") == "edge_feat"
    if network.include_state or reads_bonds or network.basis_expansion.use_phi:
        raise CheckpointError(
            "This M3GNet has states, a read-out of bonds or dihedral angles, for which the corrected three-body terms "
            "are not made; none of the published models has"
        )
    if not network.is_intensive:
        return {"readout": convolutions[f"gc_{len(convolutions)}"], **convolutions}
    last = network.final_layer.last_linear
    return {
        "readout": _Tap("final_layer", _first_input, network.final_layer.in_features),
        "penultimate": _Tap(_name_of(network, last), _first_input, last.in_features),
        **convolutions,
    }


def _tensornet_taps(network: Any) -> dict[str, _Tap]:
    width = 3 * network.units
    return {
        "readout": _Tap("linear", lambda _, output: output, network.linear.out_features, "atoms"),
        "embedding": _Tap("tensor_embedding", lambda _, output: _invariants(output[0]), width, "atoms"),
        **{
            f"gc_{index + 1}": _Tap(f"layers.{index}", lambda _, output: _invariants(output), width, "atoms")
            for index in range(len(network.layers))
        },
    }


def _first_input(inputs: tuple[Any, ...], _: Any) -> torch.Tensor:
    value: torch.Tensor = inputs[0]
    return value


def _output(position: int) -> Callable[[tuple[Any, ...], Any], torch.Tensor]:
    def pick(_: tuple[Any, ...], output: Any) -> torch.Tensor:
        value: torch.Tensor = output[position]
        return value

    return pick


def _invariants(tensor: torch.Tensor) -> torch.Tensor:
    """Squared norms of the scalar, antisymmetric and symmetric traceless parts of (n, units, 3, 3): (n, 3 · units)."""
    import torch
    from matgl.utils.maths import decompose_tensor, tensor_norm

    return torch.cat([tensor_norm(part) for part in decompose_tensor(tensor)], dim=-1)


def _name_of(network: Any, wanted: Any) -> str:
    return next(str(name) for name, module in network.named_modules() if module is wanted)


@contextmanager
def _tapped(network: Any, taps: Mapping[str, _Tap]) -> Iterator[dict[str, torch.Tensor]]:
    """Record layers while the network runs; the hooks and what they recorded are gone afterwards."""
    captured: dict[str, torch.Tensor] = {}

    def hook(layer: str, tap: _Tap) -> Callable[..., None]:
        def record(_: Any, inputs: tuple[Any, ...], output: Any) -> None:
            captured[layer] = tap.pick(inputs, output)

        return record

    handles = [network.get_submodule(tap.module).register_forward_hook(hook(layer, tap)) for layer, tap in taps.items()]
    try:
        yield captured
    finally:
        for handle in handles:
            handle.remove()
        captured.clear()
