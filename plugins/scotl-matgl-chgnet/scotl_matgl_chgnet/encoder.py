"""CHGNet potentials as source encoders; torch and chgnet are imported when a model is loaded."""

from __future__ import annotations

import contextlib
import io
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from scotl_matgl.plugin import AtomValues, CrystalGraph, PotentialEncoder, SourceCard, packaged_weights

if TYPE_CHECKING:
    import torch

#: Bonds of the 6 Å graphs per batch.
BATCH_EDGES = 20000


def load(card: SourceCard, *, check: bool = True) -> CHGNetEncoder:
    """Load a CHGNet model from the installed package chgnet; nothing in the checkpoint is executed.

    Parameters
    ----------
    card : SourceCard
        Its ``options`` hold the ``version`` of the model.
    check : bool, default True
        Compare the file with the card's sha256 and, at the first use, predictions with its probes. Switch off for
        debugging only.

    Raises
    ------
    ModuleNotFoundError
        If chgnet or torch is missing.
    FileNotFoundError, IncompatibleWeightsError
        If the installed chgnet has no such file, or another one.

    Examples
    --------
    >>> from scotl_matgl_chgnet import cards
    >>> encoder = load(cards()[0])  # doctest: +SKIP
    >>> encoder.encode(structures).shape  # doctest: +SKIP
    (1000, 64)
    """
    path = packaged_weights(card, "chgnet", check=check)
    import torch
    from chgnet.model import CHGNet

    state = torch.load(path, map_location="cpu", weights_only=True)["model"]
    version = str(card.options["version"])
    with contextlib.redirect_stdout(io.StringIO()):  # it says how many parameters it has
        # The bias is that of the first release, as the package's own loader has it.
        model = CHGNet.from_dict(state, mlp_out_bias=version == "0.2.0", version=version)
    return CHGNetEncoder(card, model.requires_grad_(False).eval(), check=check)


class CHGNetEncoder(PotentialEncoder):
    """A CHGNet potential that turns crystals into embeddings; made by :func:`load`.

    Attributes
    ----------
    card : SourceCard
    layers : tuple of str
        ``"readout"`` and ``"deviation"``, mean and standard deviation of the 64 features of an atom after the last
        convolution; ``"moments"``, mean and largest magnetic moment of an atom, muB; ``"final"``, the energy, eV/atom.
    """

    _advice = (
        "Either the file was changed or the installed chgnet and torch compute it differently; with chgnet 0.4.2 and "
        "the sha256 of the card, please report it."
    )

    def __init__(self, card: SourceCard, model: Any, *, check: bool = True) -> None:
        cutoff = model.graph_converter.atom_graph_cutoff
        super().__init__(card, cutoff=cutoff, batch_edges=BATCH_EDGES, model=model, check=check)
        self._chgnet = model

    def _atoms(self, graphs: Sequence[CrystalGraph], device: torch.device) -> AtomValues:
        """Run the model over the graphs of one batch, without forces."""
        found: dict[int, AtomValues] = {}
        # In a batch, 0.2.0 treats a crystal without bonds of the bond graph (CsCl) as it would not treat it alone.
        made = [self._graph(graph).to(device) for graph in graphs]
        for bonded in (True, False):
            places = [place for place, graph in enumerate(made) if (len(graph.bond_graph) > 0) is bonded]
            if places:
                found.update(zip(places, self._run([made[place] for place in places]), strict=True))
        ordered = [found[place] for place in range(len(graphs))]
        return AtomValues(
            np.concatenate([values.features for values in ordered]),
            np.concatenate([values.energies for values in ordered]),
            {"moments": np.concatenate([values.quantities["moments"] for values in ordered])},
        )

    def _run(self, graphs: Sequence[Any]) -> list[AtomValues]:
        """Values of each of some graphs of the model, which all have a bond graph, or all have none."""
        import torch

        features: list[torch.Tensor] = []
        hook = self._chgnet.mlp.register_forward_pre_hook(lambda _, inputs: features.append(inputs[0]))
        try:
            with torch.no_grad():
                found = self._chgnet(graphs, task="em")
        finally:
            hook.remove()
        of_crystals = torch.split(features[0], found["atoms_per_graph"].tolist())
        return [
            AtomValues(atoms.cpu().numpy(), energy[None].cpu().numpy(), {"moments": moments.cpu().numpy()})
            for atoms, energy, moments in zip(of_crystals, found["e"], found["m"], strict=True)
        ]

    def _graph(self, graph: CrystalGraph) -> Any:
        """A graph as the model reads it, from neighbours that are known already."""
        import torch
        from chgnet.graph.crystalgraph import CrystalGraph as Graph

        converter = self._chgnet.graph_converter
        index = [values.astype(np.int64) for values in (graph.source, graph.destination, graph.image)]
        made = converter.create_graph(graph.n_atoms, *index, graph.distance)
        atoms, undirected = made.adjacency_list()
        bonds, directed = made.line_graph_adjacency_list(cutoff=converter.bond_graph_cutoff)
        return Graph(
            atomic_number=torch.from_numpy(graph.numbers.astype(np.int32)),
            atom_frac_coord=torch.from_numpy((graph.positions @ np.linalg.inv(graph.lattice)).astype(np.float32)),
            atom_graph=torch.tensor(atoms, dtype=torch.int32),
            neighbor_image=torch.from_numpy(graph.image.astype(np.float32)),
            directed2undirected=torch.tensor(undirected, dtype=torch.int32),
            undirected2directed=torch.tensor(directed, dtype=torch.int32),
            bond_graph=torch.tensor(bonds, dtype=torch.int32),
            lattice=torch.from_numpy(graph.lattice.astype(np.float32)),
            atom_graph_cutoff=converter.atom_graph_cutoff,
            bond_graph_cutoff=converter.bond_graph_cutoff,
        )
