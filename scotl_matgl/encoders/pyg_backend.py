"""MatGL from 4.1 on PyTorch Geometric: graphs, and the conversions under which weights made for MatGL 2 stay right.

MatGL 3 turned the direction in which its networks pass messages (up to 2: to the atom at the end of a bond; since: to
the one at its start). Older weights still load, without a warning, and give other numbers. Here they are rearranged, or
the layer is given the older direction where no rearrangement does it:

* MEGNet: the columns for the two atoms of a bond change places in the first layer of every bond update.
* M3GNet: messages to atoms are added up at the end of a bond again. The columns cannot change places instead, because
  the three-body terms belong to the start of a bond.
* TensorNet and QET: the halves for the two atoms of a bond change places in the embedding of bonds; in the interaction
  layers an atom collects its own tensor, as it did, and not that of its neighbours.
* QET: the electrostatic potential of an atom is that of its own charge, as it was, and not of its neighbours' charges.
"""

from __future__ import annotations

import importlib
import os
import warnings
from collections.abc import Sequence
from types import MethodType, SimpleNamespace
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from scotl_matgl.encoders.graphs import CrystalGraph, batch_graphs, three_body

if TYPE_CHECKING:
    import torch

#: Major versions of MatGL for whose message passing the weights may have been made (4 has that of 3).
CONVENTIONS = (2, 3)

#: The classes that a checkpoint may name, and where they are taken from, whatever module it names itself.
MODELS = {
    "MEGNet": "matgl.models._megnet",
    "M3GNet": "matgl.models._m3gnet",
    "TensorNet": "matgl.models._tensornet",
    "QET": "matgl.models._qet",
    "SO3Net": "matgl.models._so3net",
    "CHGNet": "matgl.models._chgnet",
}
WRAPPERS = {"TransformedTargetModel": "matgl.models._wrappers", "Potential": "matgl.apps.pes"}

#: Servers from which MatGL downloads.
HUBS = (os.environ.get("HF_ENDPOINT", "https://huggingface.co"),)

#: Weights of older checkpoints that nothing reads: a layer whose result DGL's networks throw away, an identity matrix.
UNUSED = ("model.tensor_embedding.emb3.weight", "model.tensor_embedding.emb3.bias", "element_refs.onehot")


def import_matgl() -> None:
    """Import matgl."""
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message="`torch.jit.", category=DeprecationWarning)
            for module in ("matgl", *MODELS.values(), *WRAPPERS.values()):
                importlib.import_module(module)
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError(
            f"MatGL's models need {error.name}, which is missing: pip install 'scotl-matgl[pyg]'", name=error.name
        ) from error


def has_gpu() -> bool:
    """Whether torch can use a GPU."""
    import torch

    return bool(torch.cuda.is_available())


def settings(name: str) -> dict[str, Any]:
    """Arguments of a network that its checkpoint does not give."""
    # MatGL takes layers of other names and signatures if the package of Nvidia's kernels happens to be there.
    return {"use_warp": False} if name in ("TensorNet", "QET") else {}


def convert(name: str, state: dict[str, torch.Tensor], convention: int) -> dict[str, torch.Tensor]:
    """Weights of a network under the names, and for the message passing, of this version of MatGL."""
    import torch

    # One module less around the LSTM.
    state = {key.replace(".readout.set2set.lstm.", ".readout.lstm."): value for key, value in state.items()}
    if convention != 2:
        return state
    for key, weight in state.items():
        if name == "MEGNet" and ".conv.edge_func.layers.0.weight" in key:
            width = weight.shape[1] // 4  # atom, atom, bond, state
            start, end, rest = weight.split([width, width, 2 * width], dim=1)
            state[key] = torch.cat([end, start, rest], dim=1)
        elif name in ("TensorNet", "QET") and key.endswith("tensor_embedding.emb2.weight"):
            state[key] = torch.cat(weight.chunk(2, dim=1)[::-1], dim=1)
    return state


def adapt(network: Any, convention: int) -> None:
    """Give layers the message passing that the weights were made for."""
    if convention != 2:
        return
    architecture = type(network).__name__
    if architecture == "M3GNet":
        for layer in network.graph_layers:
            layer.conv.node_update_ = MethodType(_add_up_at_end, layer.conv)
    elif architecture in ("TensorNet", "QET"):
        for layer in network.layers:
            layer.message = MethodType(_own_tensor, layer)
    if architecture == "QET":
        network.elec_pot.forward = MethodType(_own_potential, network.elec_pot)


def _add_up_at_end(
    self: Any,
    edge_index: torch.Tensor,
    bonds: torch.Tensor,
    atoms: torch.Tensor,
    radial: torch.Tensor,
    _: None,
    n_atoms: int,
) -> torch.Tensor:
    """Eq. 5 of C. Chen, S. P. Ong, Nature Computational Science 2, 718 (2022), without states."""
    import torch

    start, end = edge_index
    inputs = torch.hstack([atoms.index_select(0, start), atoms.index_select(0, end), bonds])
    messages = self.node_update_func(inputs) * self.node_weight_func(radial)
    return atoms.new_zeros(n_atoms, messages.shape[1]).index_add_(0, end, messages)


def _own_tensor(self: Any, edge_index: torch.Tensor, *tensors: torch.Tensor) -> Any:
    """Messages of the atom that receives them."""
    return type(self).message(self, edge_index.flip(0), *tensors)


def _own_potential(self: Any, graph: Any, charge: torch.Tensor, sigma: torch.Tensor) -> Any:
    """Potential of an atom if all its neighbours had its own charge."""
    import torch

    return charge * type(self).forward(self, graph, charge=torch.ones_like(charge), sigma=sigma)


def prepare(
    network: Any, graphs: Sequence[CrystalGraph], types: NDArray[np.int32], device: torch.device
) -> tuple[Any, dict[str, Any]]:
    """One graph of several crystals, with the attributes that MatGL reads, and what else the network needs."""
    import torch

    batch = batch_graphs(graphs)
    vector = torch.from_numpy(batch.vector.astype(np.float32)).to(device)
    graph = SimpleNamespace(
        node_type=torch.from_numpy(types[batch.numbers]).to(device),
        edge_index=torch.from_numpy(np.stack([batch.source, batch.destination])).to(device),
        # As on DGL: the whole vector of a bond from double precision, so that no digits are lost.
        pos=torch.zeros(len(batch.numbers), 3, device=device),
        pbc_offshift=vector,
        pbc_offset=torch.from_numpy(batch.image.astype(np.float32)).to(device),  # for the angles of CHGNet
        batch=torch.from_numpy(np.repeat(np.arange(len(batch)), batch.n_atoms)).to(device),
        num_graphs=len(batch),
    )
    if type(network).__name__ != "M3GNet":
        return graph, {}
    # MatGL's own list of pairs is made in Python loops, and with distances in single precision.
    pairs = three_body(batch.source, batch.distance, network.threebody_cutoff)
    both = np.stack([pairs.bonds[pairs.first], pairs.bonds[pairs.second]])
    line_graph = {
        "line_edge_index": torch.from_numpy(both).to(device),
        # MatGL compares both with its own before it takes the pairs; it does not use them otherwise.
        "n_triple_ij": torch.zeros(len(batch.source), dtype=torch.int32, device=device),
        "kept_edge_ids": torch.nonzero(torch.norm(vector, dim=1) <= network.threebody_cutoff).squeeze(1),
    }
    return graph, {"l_g": line_graph}


def crystal_means(graph: Any, values: torch.Tensor, of: str) -> torch.Tensor:
    """Mean over the ``"atoms"`` or ``"bonds"`` of each crystal: (n_crystals, width)."""
    crystal = graph.batch if of == "atoms" else graph.batch.index_select(0, graph.edge_index[0])
    sums = values.new_zeros(graph.num_graphs, values.shape[1]).index_add_(0, crystal, values)
    return sums / crystal.bincount(minlength=graph.num_graphs).reshape(-1, 1)
