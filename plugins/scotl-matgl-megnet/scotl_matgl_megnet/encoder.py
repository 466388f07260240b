"""Keras MEGNet models as source encoders; torch and h5py are imported when a model is loaded."""

from __future__ import annotations

import difflib
import hashlib
import math
import os
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from scotl_matgl.cards import SourceCard
from scotl_matgl.encoders.base import Encoded, Progress, encode_crystals
from scotl_matgl.encoders.graphs import CrystalGraph, batch_graphs, merge_equal
from scotl_matgl.encoders.probes import TOLERANCE, IncompatibleWeightsError, probe
from scotl_matgl_megnet.errors import CheckpointError

if TYPE_CHECKING:
    import torch

    from scotl_matgl_megnet.network import KerasMEGNet

#: Environment variable that names a folder like ``mvl_models`` of the repository materialsvirtuallab/megnet.
FOLDER_VARIABLE = "SCOTL_MATGL_MEGNET"

#: Bonds per batch, of which two thirds are then merged. On a CPU 8,000 to 16,000 are the fastest.
BATCH_EDGES = 8000


def load(card: SourceCard, path: str | Path | None = None, *, check: bool = True) -> KerasMEGNetEncoder:
    """Load a Keras MEGNet model with h5py; TensorFlow is not needed, and nothing in the files is executed.

    Parameters
    ----------
    card : SourceCard
        Its ``options`` hold the ``file`` (``.hdf5``; the settings are beside it in ``.hdf5.json``) relative to the
        folder of all models, the ``cutoff`` (Å), and for a multi-fidelity model the ``state``.
    path : path-like, optional
        That folder. By default ``$SCOTL_MATGL_MEGNET``, then ``$SCOTL_MATGL_ASSETS/models/megnet``.
    check : bool, default True
        Compare files with the card's sha256 and, at the first use, predictions with its probes. Switch off for
        debugging only.

    Raises
    ------
    FileNotFoundError
        If the model is at none of these places.
    IncompatibleWeightsError
        If the files are not those of the card.
    CheckpointError
        If they do not hold a MEGNet model that this plugin understands.
    ModuleNotFoundError
        If torch or h5py is missing.

    Examples
    --------
    >>> from scotl_matgl_megnet import cards
    >>> encoder = load(cards()[0])  # doctest: +SKIP
    >>> encoder.encode(structures).shape  # doctest: +SKIP
    (1000, 96)
    """
    folder, file = _find(card, path)
    contents = {name: (folder / name).read_bytes() for name in (file, f"{file}.json")}
    if check:
        for name, expected in card.weights.items():
            found = hashlib.sha256(contents[name]).hexdigest()
            if found != expected:
                raise IncompatibleWeightsError(
                    f"{folder / name} is not the file of the card {card.name}: its sha256 is {found}, not {expected}. "
                    "Get the published file, or load with check=False to look at this one."
                )
    try:
        from scotl_matgl_megnet.weights import read_model
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError(
            f"Keras MEGNet models need {error.name}, which is missing: pip install scotl-matgl-megnet", name=error.name
        ) from error
    try:
        network, cutoff = read_model(contents[file], contents[f"{file}.json"])
    except CheckpointError as error:
        raise CheckpointError(f"{folder / file}: {error}") from error
    return KerasMEGNetEncoder(card, network, cutoff, check=check)


def _find(card: SourceCard, path: str | Path | None) -> tuple[Path, str]:
    """Folder of all models, and the file of this one in it."""
    file = str(card.options["file"])
    assets = os.environ.get("SCOTL_MATGL_ASSETS")
    own = os.environ.get(FOLDER_VARIABLE)
    if path is not None:
        places = [Path(path)]
    else:
        places = [Path(own)] if own else []
        places += [Path(assets) / "models" / "megnet"] if assets else []
    for place in places:
        if (place / file).is_file() and (place / f"{file}.json").is_file():
            return place, file
    looked = ", ".join(str(place) for place in places) or "no folder, because neither is set"
    raise FileNotFoundError(
        f"The model {card.name!r} is not on this machine: {file} and {file}.json were looked for in {looked}. Get the "
        "folder mvl_models of https://github.com/materialsvirtuallab/megnet and name it with path=... or "
        f"{FOLDER_VARIABLE}, or have it as models/megnet in the folder that SCOTL_MATGL_ASSETS names."
    )


class KerasMEGNetEncoder:
    """A Keras MEGNet model that turns crystals into embeddings; made by :func:`load`.

    Features of atoms and bonds are averaged over the crystal, so that an embedding does not depend on the size of the
    cell.

    Attributes
    ----------
    card : SourceCard
    layers : tuple of str
        ``"readout"`` first (both Set2Set vectors and the state); ``"final"`` is the prediction in the unit of the card.
    elements : tuple of str
        Those whose embedding was trained, from the card.
    cutoff : float
        Of the graphs, Å.
    """

    def __init__(self, card: SourceCard, network: KerasMEGNet, cutoff: float, *, check: bool = True) -> None:
        self.card = card
        self.cutoff = cutoff
        self.layers = tuple(card.layers)
        self.elements = tuple(card.elements)
        self._network = network
        self._widths = network.layer_widths
        if dict(card.layers) != self._widths:
            raise CheckpointError(
                f"The card of {card.name} lists the layers {dict(card.layers)}; the model has {self._widths}"
            )
        if card.options.get("cutoff", cutoff) != cutoff:
            raise CheckpointError(
                f"The card of {card.name} says that the cut-off is {card.options['cutoff']} Å; the model has {cutoff} Å"
            )
        self._state = int(card.options.get("state", 0))
        if not 0 <= self._state < max(1, network.settings.n_states):
            raise CheckpointError(
                f"The card of {card.name} asks for state {self._state}; the model has {network.settings.n_states}"
            )
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
            Bonds per batch (default :data:`BATCH_EDGES`).
        device : str, default "auto"
            ``"auto"`` takes a GPU if torch can use one, else the CPU.
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
        import torch

        for layer in layers:
            if layer not in self._widths:
                close = difflib.get_close_matches(layer, self._widths, n=1)
                hint = f"did you mean {close[0]!r}? " if close else ""
                raise ValueError(f"{self.card.name} has no layer {layer!r}; {hint}it has {', '.join(self._widths)}")
        if self._unchecked:
            self._unchecked = False
            try:
                self._check_probes(device)
            except BaseException:
                self._unchecked = True
                raise
        if device == "auto":
            device = "cuda" if torch.cuda.is_available() else "cpu"
        target = torch.device(device)
        self._network.to(target)
        return encode_crystals(
            structures,
            lambda graphs: self._forward(graphs, layers, target),
            widths={layer: self._widths[layer] for layer in layers},
            cutoff=self.cutoff,
            batch_edges=BATCH_EDGES if batch_edges is None else batch_edges,
            elements=self.elements,
            progress=progress,
        )

    def _forward(
        self, graphs: Sequence[CrystalGraph], layers: Sequence[str], device: torch.device
    ) -> dict[str, NDArray[np.float32]]:
        """Run the model over the graphs of one batch."""
        import torch

        from scotl_matgl_megnet.network import Inputs

        batch = merge_equal(batch_graphs(graphs), rounds=len(self._network.blocks))
        with torch.inference_mode():
            values = self._network(Inputs.of(batch, device), layers, self._state)
        return {layer: value.cpu().numpy() for layer, value in values.items()}

    def _check_probes(self, device: str) -> None:
        found = probe(self, device=device)
        wrong = [
            f"{crystal} {found.get(crystal, math.nan):.4f} instead of {value:.4f}"
            for crystal, value in self.card.probes.items()
            # A NaN must count as wrong, hence the negation.
            if not abs(found.get(crystal, math.nan) - value) <= TOLERANCE
        ]
        if wrong:
            raise IncompatibleWeightsError(
                f"{self.card.name} does not give the values of its card ({self.card.unit}): {'; '.join(wrong)}. Its "
                "files have the sha256 of the card, so the installed torch computes them differently; please report it."
            )
