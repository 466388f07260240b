"""CGCNN models as source encoders; torch is imported when a model is loaded."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from scotl_matgl.plugin import (
    CrystalGraph,
    GraphEncoder,
    SourceCard,
    batch_graphs,
    encode_crystals,
    read_published,
)
from scotl_matgl_cgcnn.errors import CheckpointError
from scotl_matgl_cgcnn.neighbours import nearest

if TYPE_CHECKING:
    import torch

    from scotl_matgl_cgcnn.network import CGCNN

#: Environment variable that names a folder with the checkpoints and ``atom_init.json``.
FOLDER_VARIABLE = "SCOTL_MATGL_CGCNN"

#: Where the files are published.
ORIGIN = "the folder pre-trained and the file data/sample-regression/atom_init.json of https://github.com/txie-93/cgcnn"

#: Vectors of the elements, beside the checkpoints.
ELEMENTS_FILE = "atom_init.json"

#: Bonds of the 8 Å graphs per batch, of which about a tenth is among the 12 nearest.
BATCH_EDGES = 60000


def load(card: SourceCard, path: str | Path | None = None, *, check: bool = True) -> CGCNNEncoder:
    """Load a CGCNN model; nothing in the checkpoint is executed.

    Parameters
    ----------
    card : SourceCard
        Its ``options`` hold the ``file`` of the checkpoint.
    path : path-like, optional
        Folder with that file and ``atom_init.json``. By default ``$SCOTL_MATGL_CGCNN``, then
        ``$SCOTL_MATGL_ASSETS/models/cgcnn``.
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
        If they hold no CGCNN model that this plugin understands, or other classes than the allowed ones.
    ModuleNotFoundError
        If torch is missing.

    Examples
    --------
    >>> from scotl_matgl_cgcnn import cards
    >>> encoder = load(cards()[0])  # doctest: +SKIP
    >>> encoder.encode(structures).shape  # doctest: +SKIP
    (1000, 32)
    """
    file = str(card.options["file"])
    folder, contents = read_published(
        card, (file, ELEMENTS_FILE), path, variable=FOLDER_VARIABLE, folder="cgcnn", origin=ORIGIN, check=check
    )
    try:
        from scotl_matgl_cgcnn.weights import read_model
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError(
            f"CGCNN models need {error.name}, which is missing: pip install scotl-matgl-cgcnn", name=error.name
        ) from error
    try:
        network = read_model(contents[file], contents[ELEMENTS_FILE])
    except CheckpointError as error:
        raise CheckpointError(f"{folder / file}: {error}") from error
    return CGCNNEncoder(card, network, check=check)


class CGCNNEncoder(GraphEncoder):
    """A CGCNN model that turns crystals into embeddings; made by :func:`load`.

    Atoms are averaged over the crystal, and neighbours at equal distance are chosen by what they are and not by where
    they stand in a file (:func:`scotl_matgl_cgcnn.neighbours.nearest`), so that an embedding depends neither on the
    size of the cell nor on the order of its sites. :meth:`ambiguous` says for which crystals the published code has no
    such answer.

    Attributes
    ----------
    card : SourceCard
    layers : tuple of str
        ``"readout"`` first, the input of the last dense layer; ``"conv_1"`` and so on, the atoms after each
        convolution, averaged over the crystal; ``"final"``, the prediction in the unit of the card.
    elements : tuple of str
        From the card.
    cutoff : float
        Of the graphs, Å.
    """

    _advice = (
        "Either its files were changed or the installed torch computes them differently; if they have the "
        "sha256 of the card, please report it."
    )

    def __init__(self, card: SourceCard, network: CGCNN, *, check: bool = True) -> None:
        from scotl_matgl_cgcnn.network import CUTOFF

        widths = dict(network.layer_widths)
        if dict(card.layers) != widths:
            raise CheckpointError(
                f"The card of {card.name} lists the layers {dict(card.layers)}; the model has {widths}"
            )
        super().__init__(card, cutoff=CUTOFF, batch_edges=BATCH_EDGES, widths=widths, model=network, check=check)
        self._network = network

    def ambiguous(self, structures: Iterable[Any]) -> dict[int, str]:
        """Say for which crystals the published code gives different values for different orders of the sites.

        Their embeddings here are reproducible, but are one choice of several. In cubic SrTiO3, say, 2 Ti are nearest to
        O, and 4 Sr and 8 O at one distance compete for the other 10 places.

        Parameters
        ----------
        structures : iterable
            As in :meth:`encode`; crystals that are refused there are passed over.

        Returns
        -------
        dict of int to str
            Position in the input, and what decides.

        Notes
        -----
        Costs about as much as the graphs, 0.5 ms per crystal of 10 atoms.
        """
        from scotl_matgl_cgcnn.network import N_NEIGHBOURS, PADDING

        def forward(graphs: Sequence[CrystalGraph]) -> dict[str, NDArray[np.float32]]:
            found = nearest(batch_graphs(graphs), N_NEIGHBOURS, PADDING)
            return {"flags": np.column_stack([found.tied, found.padded]).astype(np.float32)}

        encoded = encode_crystals(
            structures,
            forward,
            widths={"flags": 2},
            cutoff=self.cutoff,
            batch_edges=BATCH_EDGES,
            elements=self.elements,
        )
        reasons = {}
        for row, (tied, padded) in enumerate(encoded.embeddings["flags"].tolist()):
            parts = []
            if tied == 1:
                parts.append(f"unlike neighbours at equal distance compete for the last of {N_NEIGHBOURS} places")
            if padded == 1:
                parts.append(f"an atom has fewer than {N_NEIGHBOURS} neighbours within {self.cutoff:g} Å")
            if parts:
                reasons[row] = " and ".join(parts)
        return reasons

    def _forward(
        self, graphs: Sequence[CrystalGraph], layers: Sequence[str], device: torch.device
    ) -> dict[str, NDArray[np.float32]]:
        """Run the model over the graphs of one batch."""
        import torch

        from scotl_matgl_cgcnn.network import N_NEIGHBOURS, PADDING

        batch = batch_graphs(graphs)
        neighbours = nearest(batch, N_NEIGHBOURS, PADDING)
        with torch.inference_mode():
            values = self._network(
                torch.from_numpy(batch.numbers.astype(np.int64)).to(device),
                torch.from_numpy(neighbours.index).to(device),
                torch.from_numpy(neighbours.distance).to(device),
                torch.from_numpy(np.repeat(np.arange(len(batch)), batch.n_atoms)).to(device),
                layers,
            )
        return {layer: value.cpu().numpy() for layer, value in values.items()}
