"""The DIEP potential as a source encoder; torch and diep are imported when it is loaded."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from scotl_matgl.plugin import AtomValues, CrystalGraph, PotentialEncoder, SourceCard, batch_graphs, packaged_weights

if TYPE_CHECKING:
    import torch

#: Bonds of the 5 Å graphs per batch; each has about ten triplets of 121 grid points.
BATCH_EDGES = 1500

# What the weights of the network and those of the scale of energies begin with.
_NETWORK, _REFERENCE = "model.", "element_refs.property_offset"


def load(card: SourceCard, *, check: bool = True) -> DIEPEncoder:
    """Load the DIEP potential from the installed package diep; nothing in its files is executed.

    Parameters
    ----------
    card : SourceCard
        Its ``options`` hold the settings of the ``network``; its elements are in the order of the network.
    check : bool, default True
        Compare the file with the card's sha256 and, at the first use, predictions with its probes. Switch off for
        debugging only.

    Raises
    ------
    ModuleNotFoundError
        If diep or torch is missing.
    FileNotFoundError, IncompatibleWeightsError
        If the installed diep has no such file, or another one.

    Examples
    --------
    >>> from scotl_matgl_diep import cards
    >>> encoder = load(cards()[0])  # doctest: +SKIP
    >>> encoder.encode(structures).shape  # doctest: +SKIP
    (1000, 64)
    """
    path = packaged_weights(card, "diep", check=check)
    import torch
    from diep.models import DIEP

    state = torch.load(path, map_location="cpu", weights_only=True)
    network = DIEP(element_types=tuple(card.elements), **card.options["network"])
    own = {name.removeprefix(_NETWORK): values for name, values in state.items() if name.startswith(_NETWORK)}
    network.load_state_dict(own)
    return DIEPEncoder(card, network.requires_grad_(False).eval(), state, check=check)


class DIEPEncoder(PotentialEncoder):
    """A DIEP potential that turns crystals into embeddings; made by :func:`load`.

    Attributes
    ----------
    card : SourceCard
    layers : tuple of str
        ``"readout"`` and ``"deviation"``, mean and standard deviation of the 64 features of an atom after the last
        convolution; ``"final"``, the energy, eV/atom.
    """

    _advice = (
        "Either the file was changed or the installed diep and torch compute it differently; with diep 2.0.0 and the "
        "sha256 of the card, please report it."
    )

    def __init__(self, card: SourceCard, network: Any, state: Any, *, check: bool = True) -> None:
        super().__init__(card, cutoff=network.cutoff, batch_edges=BATCH_EDGES, model=network, check=check)
        self._network = network
        self._scale, self._shift = float(state["data_std"]), float(state["data_mean"])
        self._reference = state[_REFERENCE].double().numpy()
        # Place of each atomic number among the elements of the network.
        self._place = np.full(119, -1)
        self._place[network.atomic_number_table.int().numpy()] = np.arange(len(self._reference))

    def _atoms(self, graphs: Sequence[CrystalGraph], device: torch.device) -> AtomValues:
        """Run the network over the graphs of one batch, without forces."""
        import torch
        from diep.graph.compute import DIEPData

        batch = batch_graphs(graphs)
        kinds = self._place[batch.numbers]
        positions = np.concatenate([graph.positions for graph in graphs])
        shifts = np.concatenate([graph.image @ graph.lattice for graph in graphs])
        data = DIEPData(
            edge_index=torch.from_numpy(np.stack([batch.source, batch.destination]).astype(np.int64)),
            num_nodes=len(kinds),
            node_type=torch.from_numpy(kinds),
            pos=torch.from_numpy(positions.astype(np.float32)),
            pbc_offshift=torch.from_numpy(shifts.astype(np.float32)),
        ).to(device)
        with torch.no_grad():
            self._network(data)
        energies = self._scale * data.atomic_properties[:, 0].cpu().numpy().astype(np.float64) + self._reference[kinds]
        sums = np.add.reduceat(energies, np.cumsum(batch.n_atoms) - batch.n_atoms) + self._shift
        return AtomValues(data.node_feat.cpu().numpy(), sums / batch.n_atoms)
