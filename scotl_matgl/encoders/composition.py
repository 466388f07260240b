"""Sources of composition modality: fully connected networks on a descriptor, many of them in one safetensors file."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from importlib import resources
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from scotl_matgl.chemistry.compositions import Compositions, parse_compositions
from scotl_matgl.chemistry.elements import SYMBOLS
from scotl_matgl.descriptors.base import CompositionDescriptor
from scotl_matgl.descriptors.composite import get_descriptor
from scotl_matgl.encoders.network import Network, layer_widths
from scotl_matgl.exceptions import InputError, StoredFileError
from scotl_matgl.sources.cards import SourceCard
from scotl_matgl.storage import TensorKind, check_form, file_sha256, home, read_tensors, write_tensors
from scotl_matgl.vocabulary import Floats

NETWORKS_FILE = TensorKind("file of networks", 1, {}, "restore it, or train the source again")

# What the card of a network says of it, under "options".
_OPTIONS = {
    "prefix": str,
    "network": {
        "n_layers": int,
        "activation": str,
        "readout_activation?": str,
        "unit_readout?": bool,
        "eight_bits?": bool,
    },
    "descriptor": str,
    "fingerprint?": str,
}

# A network of more layers is none that a card of ours names.
_MAX_LAYERS = 100

# Some descriptors find out in fit which features they have, from any formulas.
_ANY = ["NaCl", "Fe2O3"]


def source_folders() -> list[Path]:
    """Where files of networks are looked for: the user's own first, then those that come with the package."""
    return [home() / "sources", Path(str(resources.files("scotl_matgl") / "data" / "sources"))]


class NetworkEncoder:
    """A fully connected network on a composition descriptor.

    Parameters
    ----------
    card : SourceCard
        Rows with an element that is not among its elements are NaN.
    network : Network
    descriptor : str or CompositionDescriptor
        What the network reads; a registered name is loaded when formulas are to be described.
    fingerprint : str, default=""
        Of the descriptor at the time of training; without it, the descriptor is taken as it is.

    Attributes
    ----------
    layers : tuple of str
        ``"readout"``, the last hidden layer, first; ``"final"`` is in the unit of the card.

    Notes
    -----
    :meth:`encode_described_layers` is what an encoder may have beyond ``CompositionEncoder``: many sources of
    one table then share one matrix of descriptors.
    """

    def __init__(
        self, card: SourceCard, network: Network, descriptor: str | CompositionDescriptor, fingerprint: str = ""
    ) -> None:
        self.card = card
        self.layers = tuple(card.layers)
        self.network = network
        self.descriptor = descriptor
        self.fingerprint = fingerprint

    def encode(self, formulas: Iterable[Any], *, layer: str = "readout") -> NDArray[np.float32]:
        """Embeddings of formulas.

        Parameters
        ----------
        formulas : iterable
            All that :func:`~scotl_matgl.parse_compositions` reads.
        layer : str, default="readout"
            One of :attr:`layers`.

        Returns
        -------
        ndarray of float32, shape (n_formulas, width)
            Rows of elements that the network does not know, and rows that are not finite, are NaN throughout.

        Raises
        ------
        InputError
            If the network has no such layer, or the descriptor is not the one of its training.
        """
        self.card.check_layer(layer)
        compositions = parse_compositions(formulas)
        if not len(compositions):
            return np.empty((0, self.card.layers[layer]), dtype=np.float32)
        X = np.asarray(self._descriptor().transform(compositions), dtype=np.float64)
        return self.encode_described_layers(compositions, X, layers=(layer,))[layer]

    def encode_described_layers(
        self, compositions: Compositions, X: Floats, *, layers: Sequence[str]
    ) -> dict[str, NDArray[np.float32]]:
        """Embeddings of formulas that are described already, by several layers in one pass.

        Parameters
        ----------
        compositions : Compositions
            n formulas.
        X : ndarray of float64, shape (n, p)
            Their descriptors, by one of the same :attr:`fingerprint`.
        layers : sequence of str
            Some of :attr:`layers`.

        Returns
        -------
        dict of str to ndarray of float32, shape (n, width)
            By layer, as :meth:`encode` gives them.
        """
        for layer in layers:
            self.card.check_layer(layer)
        computed = self.network.forward(X)
        unknown = of_unknown_elements(self.card, compositions)
        found = {layer: computed[layer] for layer in layers}
        for values in found.values():
            values[~np.isfinite(values).all(axis=1) | unknown] = np.nan
        return found

    def _descriptor(self) -> CompositionDescriptor:
        if not isinstance(self.descriptor, str):
            return self.descriptor
        descriptor = get_descriptor(self.descriptor).fit(_ANY)
        if self.fingerprint and (found := descriptor.fingerprint()) != self.fingerprint:
            raise InputError(
                f"the descriptor {self.descriptor!r} is not the one that {self.card.name} was trained on: its "
                f"fingerprint is {found}, recorded is {self.fingerprint}; use the version of that time, or train again"
            )
        self.descriptor = descriptor
        return descriptor


def of_unknown_elements(card: SourceCard, compositions: Compositions) -> NDArray[np.bool_]:
    """Rows (n,) with an element that is not the card's; a card without elements takes all."""
    if not card.elements or not len(compositions):
        return np.zeros(len(compositions), dtype=bool)
    unknown = np.ones(len(SYMBOLS), dtype=bool)
    unknown[[SYMBOLS.index(symbol) for symbol in card.elements]] = False
    return np.logical_or.reduceat(unknown[compositions.numbers - 1], compositions.offsets[:-1])


def load(card: SourceCard, *, path: str | Path | None = None) -> NetworkEncoder:
    """Load the network of a card that :func:`network_card` made.

    Parameters
    ----------
    card : SourceCard
        Its options name file, prefix, form and descriptor of the network; its weights the sha256 of the file.
    path : path-like, optional
        Folder of the file; by default the first of :func:`source_folders` that has it.

    Raises
    ------
    InputError
        If the file is nowhere, is not the one of the card, or does not hold the network.

    Notes
    -----
    Reads the tensors of this network alone (about 1 ms); the file is hashed the first time that a process reads it.
    """
    file = weights_file(card, path)
    options = dict(card.options)
    try:
        check_form(options, _OPTIONS, "the options of its card")
        prefix, form = options["prefix"], dict(options["network"])
        n_layers, eight_bits = form["n_layers"], form.pop("eight_bits", False)
        if not 2 <= n_layers <= _MAX_LAYERS:
            raise StoredFileError(f"the options of its card: n_layers is {n_layers}, not from 2 to {_MAX_LAYERS}")
        names = Network.tensor_names(prefix, n_layers)
        matrices = [f"{prefix}.{i}.weight" for i in range(n_layers)] if eight_bits else []
        stored = [*names, *map(_step_of, matrices)]
        _, tensors = read_tensors(file, NETWORKS_FILE, stored, sha256=file_sha256(file))
        tensors = whole_weights(tensors, names, matrices)
        network = Network.from_tensors(tensors.__getitem__, prefix, **form)
    except (InputError, TypeError) as error:
        raise InputError(
            f"{file} does not hold the network of {card.name} as its card says: {error}; restore the file, or train "
            "the source again"
        ) from error
    widths = layer_widths(network.widths)
    if not dict(card.layers).items() <= widths.items():
        raise InputError(
            f"{file}: the layers of {card.name} are {widths}, its card says {dict(card.layers)}; correct the card"
        )
    return NetworkEncoder(card, network, options["descriptor"], options.get("fingerprint", ""))


def whole_weights(
    tensors: Mapping[str, NDArray[Any]], names: Sequence[str], eight_bits: Collection[str] = ()
) -> dict[str, NDArray[Any]]:
    """Tensors of these names; those in eight bits are multiplied by their steps.

    Raises
    ------
    StoredFileError
        If one is missing, is in eight bits where it should not be, or is not where it should.
    """
    found = {}
    for name in names:
        if name not in tensors:
            raise StoredFileError(f"there is no tensor {name}")
        found[name] = tensors[name]
        step = tensors.get(_step_of(name)) if name in eight_bits else None
        if (tensors[name].dtype == np.int8) != (name in eight_bits):
            raise StoredFileError(
                f"the tensor {name} is of {tensors[name].dtype}; its card says otherwise (eight_bits)"
            )
        if name in eight_bits:
            if step is None or step.shape != tensors[name].shape[:1]:
                raise StoredFileError(f"the tensor {name} is no matrix in eight bits with a step a row")
            found[name] = tensors[name].astype(np.float32) * step.astype(np.float32)[:, None]
    return found


def _step_of(name: str) -> str:
    """Name of the tensor with the steps of a weight matrix in eight bits."""
    return name.removesuffix("weight") + "step"


def weights_file(card: SourceCard, path: str | Path | None) -> Path:
    """File of a card's weights, in a folder or the first of :func:`source_folders`, once it is known to be that file.

    Raises
    ------
    InputError
        If the card names more or less than one file, it is nowhere, or it has another sha256 than that of the card.
    """
    name = next(iter(card.weights), "")
    if len(card.weights) != 1 or Path(name).name != name:
        raise InputError(f"the card {card.name} names the weights {list(card.weights)}; it must be one file name")
    folders = source_folders() if path is None else [Path(path)]
    files = [folder / name for folder in folders if (folder / name).is_file()]
    if not files:
        raise InputError(f"{card.name}: its weights {name} are in none of {', '.join(map(str, folders))}")
    found = file_sha256(files[0])
    if found != card.weights[name]:
        raise InputError(
            f"{files[0]} is not the file of the card {card.name}: its sha256 is {found}, not {card.weights[name]}; "
            "restore the file, or train the source again"
        )
    return files[0]


def write_networks(path: str | Path, networks: Mapping[str, Network], *, dtype: str = "float16") -> str:
    """Write networks into one safetensors file, whole or not at all.

    Parameters
    ----------
    path : path-like
        The file.
    networks : mapping of str to Network
        By the prefix of their tensors, which :func:`network_card` names.
    dtype : {"float16", "float32", "int8"}
        Of the weight matrices on disk; ``"int8"`` rounds each row to 1/127 of its largest weight. Biases and the
        scaling of the input are float32.

    Returns
    -------
    str
        The sha256 of the file, for the cards.

    Raises
    ------
    InputError
        If a weight is too large for float16.
    """
    tensors: dict[str, NDArray[Any]] = {}
    for prefix, network in networks.items():
        tensors |= network.tensors(prefix)
    return write_weights(path, tensors, dtype=dtype)


def write_weights(path: str | Path, tensors: Mapping[str, NDArray[Any]], *, dtype: str = "float16") -> str:
    """:func:`write_networks` for the tensors of networks of any kind; all with two dimensions are matrices."""
    stored: dict[str, NDArray[Any]] = {}
    for name, tensor in tensors.items():
        if tensor.ndim == 2 and dtype == "int8":
            step = np.maximum(np.abs(tensor).max(axis=1), np.finfo(np.float32).tiny) / 127
            stored[_step_of(name)] = step.astype(np.float32)
            stored[name] = np.round(tensor / step[:, None]).astype(np.int8)
            continue
        kind = np.dtype(dtype if tensor.ndim == 2 else "float32")
        if np.abs(tensor).max(initial=0.0) > np.finfo(kind).max:
            raise InputError(f"the tensor {name} has values that {kind} cannot hold; write float32")
        stored[name] = tensor.astype(kind)
    path = Path(path)
    write_tensors(path, stored, NETWORKS_FILE, {})
    return file_sha256(path)


def network_card(
    name: str, network: Network, *, file: str, sha256: str, prefix: str, descriptor: str, dtype: str = "", **facts: Any
) -> SourceCard:
    """Card of a network that :func:`write_networks` wrote.

    Parameters
    ----------
    name : str
        Of the source.
    network : Network
    file, sha256, prefix : str
        Name of the file without its folder, its hash, and the network's prefix in it.
    descriptor : str
        Registered name of what the network reads.
    dtype : str, optional
        As for :func:`write_networks`; only ``"int8"`` must be said.
    **facts
        The other fields of :class:`~scotl_matgl.SourceCard`: ``zoo``, ``property``, ``unit``, ``dataset``,
        ``licence``, ``citation`` are needed.
    """
    form: dict[str, Any] = {"n_layers": len(network.weights), "activation": network.activation}
    if network.readout_activation:
        form["readout_activation"] = network.readout_activation
    if network.unit_readout:
        form["unit_readout"] = True
    if dtype == "int8":
        form["eight_bits"] = True
    return SourceCard(
        name=name,
        modality="composition",
        layers=layer_widths(network.widths),
        loader=f"{__name__}:load",
        weights={file: sha256},
        parameters=network.n_parameters,
        options={
            "prefix": prefix,
            "network": form,
            "descriptor": descriptor,
            "fingerprint": get_descriptor(descriptor).fit(_ANY).fingerprint(),
        },
        **{"architecture": f"fully connected network on the descriptor {descriptor}", **facts},
    )
