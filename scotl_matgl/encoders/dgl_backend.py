"""MatGL up to 2.1 on DGL, for which the published weights were made: import, graphs, and means over crystals."""

from __future__ import annotations

import importlib
import os
import sys
import warnings
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from scotl_matgl.encoders.fast import crystal_means as crystal_means
from scotl_matgl.encoders.fast import speed_up
from scotl_matgl.encoders.graphs import CrystalGraph, GraphBatch, batch_graphs, merge_equal, three_body

if TYPE_CHECKING:
    import torch

#: Major versions of MatGL for whose message passing the weights may have been made.
CONVENTIONS = (2,)

#: The classes that a checkpoint may name, and where they are taken from, whatever module it names itself.
MODELS = {
    "MEGNet": "matgl.models._megnet",
    "M3GNet": "matgl.models._m3gnet",
    "TensorNet": "matgl.models._tensornet_dgl",
    "QET": "matgl.models._qet_dgl",
    "SO3Net": "matgl.models._so3net",
    "CHGNet": "matgl.models._chgnet",
}
WRAPPERS = {"TransformedTargetModel": "matgl.models._wrappers", "Potential": "matgl.apps._pes_dgl"}

#: Servers from which MatGL downloads.
HUBS = (os.environ.get("HF_ENDPOINT", "https://huggingface.co"), "https://raw.githubusercontent.com")

#: Weights of older checkpoints that nothing reads.
UNUSED: tuple[str, ...] = ()


def import_matgl() -> None:
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


def has_gpu() -> bool:
    """Whether torch and DGL can both use a GPU; the DGL of PyPI is built without."""
    import dgl
    import torch

    if not torch.cuda.is_available():
        return False
    try:
        dgl.graph(([], [])).to("cuda")
    except dgl.DGLError:
        return False
    return True


def settings(_: str) -> dict[str, Any]:
    """Arguments of a network that its checkpoint does not give."""
    return {}


def convert(_: str, state: dict[str, torch.Tensor], convention: int) -> dict[str, torch.Tensor]:  # noqa: ARG001 - as in PyG
    """Weights as they are: this is the version that they were made for."""
    return state


def adapt(network: Any, convention: int) -> None:  # noqa: ARG001 - as in PyG
    """Bind the faster layers."""
    speed_up(network)


def prepare(
    network: Any, graphs: Sequence[CrystalGraph], types: NDArray[np.int32], device: torch.device
) -> tuple[Any, dict[str, Any]]:
    """One DGL graph of several crystals, and what else the network needs."""
    return prepare_batch(network, collect(network, graphs), types, device)


def collect(network: Any, graphs: Sequence[CrystalGraph]) -> GraphBatch:
    """Crystals as one batch, reduced to what the network can tell apart."""
    batch = batch_graphs(graphs)
    return merge_equal(batch, rounds=len(network.blocks)) if type(network).__name__ == "MEGNet" else batch


def prepare_batch(
    network: Any, batch: GraphBatch, types: NDArray[np.int32], device: torch.device
) -> tuple[Any, dict[str, Any]]:
    """DGL graph of a batch that :func:`collect` made, and what else the network needs."""
    import dgl
    import torch

    architecture = type(network).__name__
    inputs: dict[str, Any] = {}
    if architecture == "M3GNet":
        # MatGL numbers the bonds of its line graph after pruning, but looks them up in the unpruned graph. With the
        # bonds that are in a pair in front, in the order of the line graph, both numbers are the same.
        pairs = three_body(batch.source, batch.distance, network.threebody_cutoff)
        rest = np.ones(len(batch.source), dtype=bool)
        rest[pairs.bonds] = False
        batch = batch.reordered(np.concatenate([pairs.bonds, np.flatnonzero(rest)]))
        line_graph = dgl.graph(
            (torch.from_numpy(pairs.first), torch.from_numpy(pairs.second)), num_nodes=len(pairs.bonds)
        )
        line_graph.ndata["n_triple_ij"] = torch.from_numpy(pairs.partners)
        inputs["l_g"] = line_graph.to(device)
    elif architecture == "QET":
        inputs["total_charge"] = 0.0

    graph = dgl.graph(
        (torch.from_numpy(batch.source), torch.from_numpy(batch.destination)), num_nodes=len(batch.numbers)
    )
    graph.set_batch_num_nodes(torch.from_numpy(batch.n_atoms.astype(np.int32)))
    graph.set_batch_num_edges(torch.from_numpy(batch.n_bonds.astype(np.int32)))
    graph.ndata["node_type"] = torch.from_numpy(types[batch.numbers])
    # MatGL adds up position, image and position in single precision. With all positions at the origin and the whole
    # vector, from double precision, in place of the image, no digits are lost.
    graph.ndata["pos"] = torch.zeros(len(batch.numbers), 3)
    graph.edata["pbc_offshift"] = torch.from_numpy(batch.vector.astype(np.float32))
    graph.edata["pbc_offset"] = torch.from_numpy(batch.image.astype(np.float32))
    _add_multiplicities(graph, batch)
    return graph.to(device), inputs


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
