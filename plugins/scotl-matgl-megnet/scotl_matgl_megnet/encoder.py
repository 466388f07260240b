"""Keras MEGNet models as source encoders; torch and h5py are imported when a model is loaded."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from scotl_matgl.plugin import (
    CrystalGraph,
    GraphEncoder,
    SourceCard,
    batch_graphs,
    merge_equal,
    read_published,
)
from scotl_matgl_megnet.errors import CheckpointError

if TYPE_CHECKING:
    import torch

    from scotl_matgl_megnet.network import KerasMEGNet

#: Environment variable that names a folder like ``mvl_models`` of the repository materialsvirtuallab/megnet.
FOLDER_VARIABLE = "SCOTL_MATGL_MEGNET"

#: Where the files are published.
ORIGIN = "the folder mvl_models of https://github.com/materialsvirtuallab/megnet"

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
    file = str(card.options["file"])
    folder, contents = read_published(
        card, (file, f"{file}.json"), path, variable=FOLDER_VARIABLE, folder="megnet", origin=ORIGIN, check=check
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


class KerasMEGNetEncoder(GraphEncoder):
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

    _advice = (
        "Its files have the sha256 of the card, so the installed torch computes them differently; please report it."
    )

    def __init__(self, card: SourceCard, network: KerasMEGNet, cutoff: float, *, check: bool = True) -> None:
        widths = network.layer_widths
        if dict(card.layers) != widths:
            raise CheckpointError(
                f"The card of {card.name} lists the layers {dict(card.layers)}; the model has {widths}"
            )
        if card.options.get("cutoff", cutoff) != cutoff:
            raise CheckpointError(
                f"The card of {card.name} says that the cut-off is {card.options['cutoff']} Å; the model has {cutoff} Å"
            )
        super().__init__(card, cutoff=cutoff, batch_edges=BATCH_EDGES, widths=widths, model=network, check=check)
        self._network = network
        self._state = int(card.options.get("state", 0))
        if not 0 <= self._state < max(1, network.settings.n_states):
            raise CheckpointError(
                f"The card of {card.name} asks for state {self._state}; the model has {network.settings.n_states}"
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
