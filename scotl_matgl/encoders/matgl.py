"""MatGL's pretrained models (MEGNet, M3GNet, TensorNet, QET; DGL backend) as source encoders."""

from __future__ import annotations

import difflib
import hashlib
import importlib
import json
import os
import pickle
import sys
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from scotl_matgl.cards import SourceCard
from scotl_matgl.composition import SYMBOLS
from scotl_matgl.encoders.base import Encoded, Progress, encode_crystals
from scotl_matgl.encoders.fast import crystal_means, speed_up
from scotl_matgl.encoders.graphs import CrystalGraph, GraphBatch, batch_graphs, merge_equal, three_body
from scotl_matgl.encoders.probes import IncompatibleWeightsError, check_probes

if TYPE_CHECKING:
    import torch

_FILES = ("model.json", "model.pt", "state.pt")

#: The classes that a checkpoint may name, and where they are taken from, whatever module it names itself.
_MODELS = {
    "MEGNet": "matgl.models._megnet",
    "M3GNet": "matgl.models._m3gnet",
    "TensorNet": "matgl.models._tensornet_dgl",
    "QET": "matgl.models._qet_dgl",
}
_WRAPPERS = {"TransformedTargetModel": "matgl.models._wrappers", "Potential": "matgl.apps._pes_dgl"}

#: Cut-offs that older checkpoints leave out of their weights; the network sets them itself from its settings.
_CONSTANTS = {"model.bond_expansion.rbf.cutoff", "model.basis_expansion.sbf.cutoff"}

#: Bonds per batch at which each architecture is fastest on a CPU (of MEGNet two thirds are then merged).
BATCH_EDGES = {"MEGNet": 16000, "M3GNet": 4000, "TensorNet": 1500, "QET": 1500}


class CheckpointError(ValueError):
    """A checkpoint cannot be read safely, or is not one that this encoder understands."""


def load(
    card: SourceCard, path: str | Path | None = None, *, download: bool = False, check: bool = True
) -> MatGLEncoder:
    """Load a MatGL model; nothing in the checkpoint is executed.

    Parameters
    ----------
    card : SourceCard
        Its ``options`` may name the ``directory`` of the model (default: the card's name) and the ``state`` of a
        multi-fidelity model (0, 1, ...).
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
        If the files are not those of the card.
    RuntimeError
        If matgl is already imported with another backend.

    Examples
    --------
    >>> from scotl_matgl.cards import all_cards, select
    >>> card = select(all_cards(), "MEGNet-MP-2018.6.1-Eform")[0]
    >>> encoder = card.load()  # doctest: +SKIP
    >>> encoder.encode(structures).shape  # doctest: +SKIP
    (1000, 160)
    """
    directory = find_model(card, path, download=download)
    if check:
        _check_files(card, directory)
    return MatGLEncoder(card, _read_model(directory), check=check)


def find_model(card: SourceCard, path: str | Path | None = None, *, download: bool = False) -> Path:
    """Directory of a model; see :func:`load` for the places and the errors."""
    name = str(card.options.get("directory", card.name))
    if path is not None:
        places = [Path(path)]
    else:
        assets = os.environ.get("SCOTL_MATGL_ASSETS")
        cache = Path.home() / ".cache" / "matgl"
        places = [Path(assets) / "models" / "matgl" / name] if assets else []
        places.append(cache / name)
        # Where huggingface_hub, which MatGL downloads with since 2.1, puts its files below the same cache.
        places.extend(sorted((cache / f"models--Materialyze--{name}" / "snapshots").glob("*")))
    for place in places:
        if all((place / file).is_file() for file in _FILES):
            return place
    if download and path is None:
        _import_matgl()
        from matgl.utils.io import _get_file_paths

        return Path(_get_file_paths(Path(name), str_path=name)["state.pt"]).parent
    looked = ", ".join(str(place) for place in places)
    unset = "" if path is not None or os.environ.get("SCOTL_MATGL_ASSETS") else " (SCOTL_MATGL_ASSETS is not set)"
    raise FileNotFoundError(
        f"The model {name!r} is not on this machine: {', '.join(_FILES)} were looked for in {looked}{unset}. Give the "
        "directory with path=..., or let MatGL download it with download=True."
    )


class MatGLEncoder:
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

    def __init__(self, card: SourceCard, model: torch.nn.Module, *, check: bool = True) -> None:
        self.card = card
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
        self._widths = widths
        self.layers = tuple(card.layers)
        self.elements: tuple[str, ...] = tuple(self._network.element_types)
        self.cutoff = float(self._network.cutoff)
        self._types = np.full(len(SYMBOLS) + 1, -1, dtype=np.int32)
        self._types[[SYMBOLS.index(symbol) + 1 for symbol in self.elements]] = np.arange(len(self.elements))
        self._unchecked = check

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
            Crystals, or what :func:`~scotl_matgl.structures.as_crystal` understands.
        layer : str
            One of :attr:`layers`.
        batch_edges : int, optional
            Bonds per batch (default by architecture, see :data:`BATCH_EDGES`).
        device : str, default "auto"
            ``"auto"`` takes a GPU if torch and DGL can use one, else the CPU.
        progress : callable, optional
            Called with (crystals done, crystals in all).

        Returns
        -------
        ndarray of float32, shape (n_crystals, width)
            Rows of refused crystals are NaN; :meth:`encode_layers` says why.

        Raises
        ------
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
        """Embeddings of several layers in one pass; parameters and errors as in :meth:`encode`."""
        for layer in layers:
            if layer not in self._widths:
                close = difflib.get_close_matches(layer, self._widths, n=1)
                hint = f"did you mean {close[0]!r}? " if close else ""
                raise ValueError(f"{self.card.name} has no layer {layer!r}; {hint}it has {', '.join(self._widths)}")
        if self._unchecked:
            self._unchecked = False
            try:
                check_probes(self, device=device)
            except BaseException:
                self._unchecked = True
                raise
        target = _pick_device(device)
        self._wrapper.to(target)
        return encode_crystals(
            structures,
            lambda graphs: self._forward(graphs, layers, target),
            widths={layer: self._widths[layer] for layer in layers},
            cutoff=self.cutoff,
            batch_edges=BATCH_EDGES[self._architecture] if batch_edges is None else batch_edges,
            elements=self.elements,
            progress=progress,
        )

    def _forward(
        self, graphs: Sequence[CrystalGraph], layers: Sequence[str], device: torch.device
    ) -> dict[str, NDArray[np.float32]]:
        """Run the model over the graphs of one batch."""
        import dgl
        import torch

        n_crystals = len(graphs)
        if sum(graph.n_atoms for graph in graphs) == 1:
            # MatGL squeezes its arrays, so that QET cannot take one atom alone: give it a twin.
            graphs = [*graphs, *graphs]
        batch = batch_graphs(graphs)
        inputs: dict[str, Any] = {}
        if self._architecture == "M3GNet":
            # MatGL numbers the bonds of its line graph after pruning, but looks them up in the unpruned graph. With the
            # bonds that are in a pair in front, in the order of the line graph, both numbers are the same.
            pairs = three_body(batch.source, batch.distance, self._network.threebody_cutoff)
            rest = np.ones(len(batch.source), dtype=bool)
            rest[pairs.bonds] = False
            batch = batch.reordered(np.concatenate([pairs.bonds, np.flatnonzero(rest)]))
            line_graph = dgl.graph(
                (torch.from_numpy(pairs.first), torch.from_numpy(pairs.second)), num_nodes=len(pairs.bonds)
            )
            line_graph.ndata["n_triple_ij"] = torch.from_numpy(pairs.partners)
            inputs["l_g"] = line_graph.to(device)
        elif self._architecture == "MEGNet":
            batch = merge_equal(batch, rounds=len(self._network.blocks))
            inputs["state_attr"] = self._state(len(graphs)).to(device)
        elif self._architecture == "QET":
            inputs["total_charge"] = 0.0

        graph = dgl.graph(
            (torch.from_numpy(batch.source), torch.from_numpy(batch.destination)), num_nodes=len(batch.numbers)
        )
        graph.set_batch_num_nodes(torch.from_numpy(batch.n_atoms.astype(np.int32)))
        graph.set_batch_num_edges(torch.from_numpy(batch.n_bonds.astype(np.int32)))
        graph.ndata["node_type"] = torch.from_numpy(self._types[batch.numbers])
        # MatGL adds up position, image and position in single precision. With all positions at the origin and the whole
        # vector, from double precision, in place of the image, no digits are lost.
        graph.ndata["pos"] = torch.zeros(len(batch.numbers), 3)
        graph.edata["pbc_offshift"] = torch.from_numpy(batch.vector.astype(np.float32))
        graph.edata["pbc_offset"] = torch.from_numpy(batch.image.astype(np.float32))
        _add_multiplicities(graph, batch)
        graph = graph.to(device)

        taps = {layer: self._taps[layer] for layer in layers if layer != "final"}
        with torch.inference_mode(), _tapped(self._network, taps) as captured, warnings.catch_warnings():
            # A crystal may have no pair of bonds, and that is fine.
            warnings.filterwarnings("ignore", message="The input graph for the user-defined edge function")
            output = self._network(g=graph, **inputs).reshape(len(batch), 1)
            values = {}
            for layer in layers:
                if layer == "final":
                    values[layer] = self._prediction(output, graph)
                else:
                    pool = taps[layer].pool
                    rows = captured[layer]
                    values[layer] = rows.reshape(len(batch), -1) if pool is None else crystal_means(graph, rows, pool)
        return {layer: value[:n_crystals].cpu().numpy() for layer, value in values.items()}

    def _state(self, n_crystals: int) -> torch.Tensor:
        import torch

        if self._network.embedding.ntypes_state:
            return torch.full((n_crystals,), int(self.card.options.get("state", 0)), dtype=torch.int32)
        return torch.zeros(n_crystals, self._network.embedding.dim_state_embedding)

    def _prediction(self, output: torch.Tensor, graph: Any) -> torch.Tensor:
        """Output of the network in the unit of the card."""
        if type(self._wrapper).__name__ == "TransformedTargetModel":
            transformed: torch.Tensor = self._wrapper.transformer.inverse_transform(output)
            return transformed
        energy = self._wrapper.data_std * output + self._wrapper.data_mean
        if self._wrapper.element_refs is not None:
            energy = energy + self._wrapper.element_refs(graph).reshape(-1, 1)
        return energy / graph.batch_num_nodes().reshape(-1, 1)


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


def _add_multiplicities(graph: Any, batch: GraphBatch) -> None:
    """Note at every atom and bond its crystal and its share in the mean over it (and over the atom at its end)."""
    import torch

    for data, count, sizes in (
        (graph.ndata, batch.atom_count, batch.n_atoms),
        (graph.edata, batch.bond_count, batch.n_bonds),
    ):
        crystal = np.repeat(np.arange(len(batch)), sizes)
        data["crystal"] = torch.from_numpy(crystal)
        data["share"] = _column(count / np.bincount(crystal, count)[crystal])
        data["log_count"] = torch.from_numpy(np.log(count).astype(np.float32))
    ends = batch.destination
    graph.edata["share_of_atom"] = _column(batch.bond_count / np.bincount(ends, batch.bond_count)[ends])


def _column(values: NDArray[np.float64]) -> torch.Tensor:
    import torch

    return torch.from_numpy(values.astype(np.float32)).reshape(-1, 1)


def _pick_device(device: str) -> torch.device:
    import dgl
    import torch

    if device != "auto":
        return torch.device(device)
    if torch.cuda.is_available():
        try:
            dgl.graph(([], [])).to("cuda")
        except dgl.DGLError:  # the DGL of PyPI is built without CUDA
            return torch.device("cpu")
        return torch.device("cuda")
    return torch.device("cpu")


def _import_matgl() -> None:
    """Import matgl with its DGL backend, which must be chosen before the import."""
    if "matgl" not in sys.modules:
        # Without DGLBACKEND, DGL prints advice and writes a file into the home folder.
        wanted = {"MATGL_BACKEND": "DGL", "DGLBACKEND": "pytorch"}
        before = {key: os.environ.get(key) for key in wanted}
        os.environ.update(wanted)
        try:
            with warnings.catch_warnings():
                warnings.filterwarnings(
                    "ignore", message="`torch.jit.script` is deprecated", category=DeprecationWarning
                )
                for module in ("matgl", "dgl", "matgl.utils.maths"):  # the last is the one that is deprecated
                    importlib.import_module(module)
        except ModuleNotFoundError as error:
            raise ModuleNotFoundError(
                f"MatGL's models need {error.name}, which is missing: pip install 'scotl-matgl[dgl]' (Python 3.11)",
                name=error.name,
            ) from error
        finally:
            for key, value in before.items():
                if value is None:
                    del os.environ[key]
                else:
                    os.environ[key] = value
    backend = importlib.import_module("matgl.config").BACKEND
    if backend != "DGL":
        raise RuntimeError(
            f"matgl is already imported with its {backend} backend, under which these weights give wrong numbers. "
            "Start Python anew and load a model of scotl_matgl first, or set MATGL_BACKEND=DGL before importing matgl."
        )


def _check_files(card: SourceCard, directory: Path) -> None:
    for file, expected in card.weights.items():
        found = hashlib.sha256((directory / file).read_bytes()).hexdigest()
        if found != expected:
            raise IncompatibleWeightsError(
                f"{directory / file} is not the file of the card {card.name}: its sha256 is {found}, not {expected}. "
                "Get the published file, or load with check=False to look at this one."
            )


def _read_model(directory: Path) -> torch.nn.Module:
    """Build the model that a directory describes, from allowed classes only, and fill in its weights."""
    _import_matgl()
    import torch
    from matgl.data.transformer import Normalizer

    wrapper_name = json.loads((directory / "model.json").read_text(encoding="utf-8")).get("@class")
    try:
        with torch.serialization.safe_globals([Normalizer]):
            arguments = torch.load(directory / "model.pt", map_location="cpu", weights_only=True)
        state = torch.load(directory / "state.pt", map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise CheckpointError(
            f"The checkpoint in {directory} holds more than weights and settings; it was not executed: {error}"
        ) from error
    inner = arguments.pop("model", None) if isinstance(arguments, dict) else None
    settings: dict[str, Any] = inner if isinstance(inner, dict) else {}
    inner_name, module = settings.get("@class"), settings.get("@module")
    if wrapper_name not in _WRAPPERS or inner_name not in _MODELS or "pyg" in str(module):
        raise CheckpointError(
            f"The checkpoint in {directory} is a {wrapper_name} of {inner_name} (module {module}); understood are "
            f"{', '.join(_WRAPPERS)} of {', '.join(_MODELS)}, in the variants for DGL"
        )
    network = _class(_MODELS, inner_name)(**settings["init_args"])
    model = _class(_WRAPPERS, wrapper_name)(model=network, **arguments)
    missing, unexpected = model.load_state_dict(state, strict=False)
    missing = sorted(set(missing) - _CONSTANTS)
    if missing or unexpected:
        raise CheckpointError(f"The weights in {directory} do not fit: missing {missing}, unexpected {unexpected}")
    model.requires_grad_(False)
    model.eval()
    speed_up(network)
    return model


def _class(table: Mapping[str, str], name: str) -> Any:
    return getattr(importlib.import_module(table[name]), name)
