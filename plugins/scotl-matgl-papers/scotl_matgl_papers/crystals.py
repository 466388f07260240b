"""Structure branches of SCOTL's and CroMEL's models, which give the embeddings that compositions are matched to."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping, Sequence
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray
from scipy.spatial import cKDTree

from scotl_matgl.plugin import SYMBOLS, CrystalGraph, GraphEncoder, SourceCard, load_element_tables
from scotl_matgl_papers.weights import read_weights

if TYPE_CHECKING:
    import torch

Weights = Mapping[str, "torch.Tensor"]

#: Bonds and cluster end here, Å.
CUTOFF = 4.0

#: Elements of the published element table.
ELEMENTS = SYMBOLS[:100]

_CENTRES = np.linspace(1.0, CUTOFF, 64)
#: Bonds of the crystals in a batch; their clusters have two to three times as many.
_BATCH_EDGES = 2000


def structure_card(card: SourceCard) -> SourceCard:
    """Card of the structure branch of a model whose composition branch is `card`.

    Structure branches are not listed among the zoos: the published graph is a finite cluster around the cell, so that
    the embedding depends on the choice of the cell, which no source of a ranking may. They serve to judge how well
    the two branches are matched.

    Parameters
    ----------
    card : SourceCard
        One of :func:`scotl_matgl_papers.scotl` or :func:`scotl_matgl_papers.cromel`.
    """
    file = resources.files("scotl_matgl_papers") / "data" / "structure_probes.json"
    widths = {"readout": 128, "penultimate": 32, "final": 1} if card.zoo == "scotl" else {"readout": 64, "final": 1}
    name = f"{card.name}-structure"
    return dataclasses.replace(
        card,
        name=name,
        modality="structure",
        architecture=card.architecture.partition("(")[2].rstrip(")"),
        layers=widths,
        loader="scotl_matgl_papers.crystals:load",
        probes=json.loads(file.read_text(encoding="utf-8")).get(name, {}),
        elements=ELEMENTS,
        notes="The graph is a finite cluster around the cell as given: the embedding depends on the choice of cell.",
    )


def load(card: SourceCard, path: str | Path | None = None, *, check: bool = True) -> ClusterEncoder:
    """Load a structure branch; nothing in the checkpoint is executed.

    Parameters
    ----------
    card : SourceCard
        What :func:`structure_card` returns.
    path : path-like, optional
        The checkpoint or its folder; by default ``$SCOTL_MATGL_ASSETS/models/<zoo>``.
    check : bool, default=True
        Compare the file with the card's sha256 and, at the first use, predictions with its probes.

    Raises
    ------
    FileNotFoundError, IncompatibleWeightsError, CheckpointError
        See :func:`scotl_matgl_papers.weights.read_weights`.
    """
    import torch

    shapes = _shapes(card)
    tensors = read_weights(card, shapes, path, check=check)
    return ClusterEncoder(
        card, {name: torch.from_numpy(values).float() for name, values in tensors.items()}, check=check
    )


class ClusterEncoder(GraphEncoder):
    """A structure branch; made by :func:`load`.

    Layers: ``readout`` is the embedding that the composition branch is matched to, rows of length one; ``penultimate``
    (SCOTL only) and ``final`` (in the unit of the card) belong to the head. 3 to 13 ms per crystal of 6 atoms, 20 for
    CroMEL's MPNN.

    Attributes
    ----------
    card : SourceCard
    layers : tuple of str
    """

    def __init__(self, card: SourceCard, weights: Weights, *, check: bool = True) -> None:
        super().__init__(card, cutoff=CUTOFF, batch_edges=_BATCH_EDGES, check=check)
        self._weights = dict(weights)

    def _pick_device(self, device: str) -> torch.device:
        # On the CPU these small networks are fast.
        return super()._pick_device("cpu" if device == "auto" else device)

    def _forward(
        self, graphs: Sequence[CrystalGraph], layers: Sequence[str], device: torch.device
    ) -> dict[str, NDArray[np.float32]]:
        import torch

        clusters = [cluster(graph) for graph in graphs]
        sizes = np.array([len(numbers) for numbers, _, _ in clusters])
        shift = np.repeat(np.cumsum(sizes) - sizes, [len(distance) for _, _, distance in clusters])
        numbers = np.concatenate([numbers for numbers, _, _ in clusters])
        distance = np.concatenate([distance for _, _, distance in clusters])
        # Distances enter as exp(−(d − c)²/0.5²).
        bonds = np.exp(-(((distance[:, None] - _CENTRES) / 0.5) ** 2))
        with torch.inference_mode():
            weights = {name: tensor.to(device) for name, tensor in self._weights.items()}
            pairs = torch.from_numpy(np.hstack([pairs for _, pairs, _ in clusters]) + shift).to(device)
            atoms = torch.from_numpy(load_element_tables().presets["matscholar_el"].raw[numbers - 1]).float().to(device)
            nodes = _convolve(weights, atoms, pairs, torch.from_numpy(bonds).float().to(device))
            owner = torch.from_numpy(np.repeat(np.arange(len(sizes)), sizes)).to(device)
            counts = torch.from_numpy(sizes).to(nodes)
            pooled = _add_up(nodes, owner, len(sizes)) / counts[:, None]
            values = _read_out(weights, torch.nn.functional.normalize(pooled))
            return {layer: values[layer].cpu().numpy() for layer in layers}


def cluster(graph: CrystalGraph) -> tuple[NDArray[np.int16], NDArray[np.int64], NDArray[np.float64]]:
    """Graph of the papers: the atoms of the cell and all their neighbours, as a cluster without periodic images.

    Two atoms are bonded if less than 4 Å apart. Atoms at the rim have fewer bonds than in the crystal, and the mean
    over atoms includes them.

    Parameters
    ----------
    graph : CrystalGraph
        With the cut-off of 4 Å.

    Returns
    -------
    numbers : ndarray of shape (n,)
    pairs : ndarray of shape (2, m)
        Bonds, both directions.
    distance : ndarray of shape (m,)
        Å.
    """
    outside = (graph.image != 0).any(axis=1)
    images = np.unique(np.column_stack([graph.destination[outside], graph.image[outside]]), axis=0)
    members = np.concatenate([np.arange(graph.n_atoms), images[:, 0]])
    positions = np.vstack([graph.positions, graph.positions[images[:, 0]] + images[:, 1:] @ graph.lattice])
    near = cKDTree(positions).query_pairs(CUTOFF, output_type="ndarray").astype(np.int64)
    distance = np.linalg.norm(positions[near[:, 0]] - positions[near[:, 1]], axis=1)
    near, distance = near[distance < CUTOFF], distance[distance < CUTOFF]
    return graph.numbers[members], np.hstack([near.T, near[:, ::-1].T]), np.concatenate([distance, distance])


def _shapes(card: SourceCard) -> dict[str, tuple[int, ...]]:
    """Tensors of a structure branch, without those of the composition branch and the critic."""
    convolution = card.architecture
    width = card.width
    shapes: dict[str, tuple[int, ...]] = {"fc1.weight": (width, 200), "fc1.bias": (width,)}
    for layer in ("gc1", "gc2"):
        if convolution == "CGConv":
            for part in ("lin_f", "lin_s"):
                shapes |= {f"{layer}.{part}.weight": (width, 2 * width + 64), f"{layer}.{part}.bias": (width,)}
        elif convolution == "GATv2":
            shapes |= {f"{layer}.att": (1, 1, width), f"{layer}.bias": (width,)}
            for part in ("lin_l", "lin_r"):
                shapes |= {f"{layer}.{part}.weight": (width, width), f"{layer}.{part}.bias": (width,)}
        else:
            shapes |= {f"{layer}.bias": (width,), f"{layer}.lin.weight": (width, width)}
            shapes |= {f"{layer}.nn.0.weight": (width, 64), f"{layer}.nn.0.bias": (width,)}
            shapes |= {f"{layer}.nn.2.weight": (width * width, width), f"{layer}.nn.2.bias": (width * width,)}
    if card.zoo == "scotl":
        head: dict[str, tuple[int, ...]] = {"fc2.weight": (32, width), "fc2.bias": (32,)}
        return shapes | head | {"fc3.weight": (1, 32), "fc3.bias": (1,)}
    shapes |= {"fc2.weight": (width, width), "fc2.bias": (width,)}
    shapes |= {f"act_{layer}.weight": (1,) for layer in ("fc1", "gc1", "gc2")}
    inner: dict[str, tuple[int, ...]] = {f"emb_net.{name}": shape for name, shape in shapes.items()}
    return inner | {"pred_net.0.weight": (1, width), "pred_net.0.bias": (1,)}


def _convolve(weights: Weights, atoms: torch.Tensor, pairs: torch.Tensor, bonds: torch.Tensor) -> torch.Tensor:
    """Atom features after both convolutions."""
    cromel = "pred_net.0.weight" in weights
    prefix = "emb_net." if cromel else ""

    def activate(values: torch.Tensor, layer: str) -> torch.Tensor:
        from torch.nn.functional import leaky_relu

        return leaky_relu(values, float(weights[f"{prefix}act_{layer}.weight"]) if cromel else 0.01)

    nodes = _dense(weights, f"{prefix}fc1", atoms)
    if cromel:  # SCOTL has no activation here
        nodes = activate(nodes, "fc1")
    for layer in ("gc1", "gc2"):
        name = prefix + layer
        if f"{name}.lin_f.weight" in weights:
            nodes = activate(_cgconv(weights, name, nodes, pairs, bonds), layer)
        elif f"{name}.att" in weights:
            nodes = activate(_gatv2(weights, name, nodes, pairs), layer)
        else:
            nodes = activate(_nnconv(weights, name, nodes, pairs, bonds), layer)
    return nodes


def _read_out(weights: Weights, pooled: torch.Tensor) -> dict[str, torch.Tensor]:
    """Layers from the mean over atoms, of length one."""
    from torch.nn.functional import leaky_relu, normalize

    if "pred_net.0.weight" in weights:
        readout = normalize(_dense(weights, "emb_net.fc2", pooled))
        return {"readout": readout, "final": _dense(weights, "pred_net.0", readout)}
    penultimate = leaky_relu(_dense(weights, "fc2", pooled))
    return {"readout": pooled, "penultimate": penultimate, "final": _dense(weights, "fc3", penultimate)}


def _cgconv(weights: Weights, name: str, nodes: torch.Tensor, pairs: torch.Tensor, bonds: torch.Tensor) -> torch.Tensor:
    """Xie & Grossman, Phys. Rev. Lett. 2018, 120, 145301, eq. 5, without batch normalisation."""
    import torch
    from torch.nn.functional import softplus

    joint = torch.cat([nodes[pairs[1]], nodes[pairs[0]], bonds], dim=1)
    messages = _dense(weights, f"{name}.lin_f", joint).sigmoid() * softplus(_dense(weights, f"{name}.lin_s", joint))
    return nodes + _add_up(messages, pairs[1], len(nodes))


def _gatv2(weights: Weights, name: str, nodes: torch.Tensor, pairs: torch.Tensor) -> torch.Tensor:
    """Brody, Alon & Yahav, ICLR 2022, eq. 7, one head; every atom also attends to itself."""
    import torch
    from torch.nn.functional import leaky_relu

    itself = torch.arange(len(nodes), device=nodes.device)
    source, destination = torch.cat([pairs, torch.stack([itself, itself])], dim=1)
    sent, received = _dense(weights, f"{name}.lin_l", nodes), _dense(weights, f"{name}.lin_r", nodes)
    energy = leaky_relu(sent[source] + received[destination], 0.2) @ weights[f"{name}.att"][0, 0]
    largest = torch.full_like(energy[: len(nodes)], -torch.inf).scatter_reduce(0, destination, energy, "amax")
    share = (energy - largest[destination]).exp()
    total = _add_up(share, destination, len(nodes))
    attended = _add_up((share / total[destination])[:, None] * sent[source], destination, len(nodes))
    return attended + weights[f"{name}.bias"]


def _nnconv(weights: Weights, name: str, nodes: torch.Tensor, pairs: torch.Tensor, bonds: torch.Tensor) -> torch.Tensor:
    """Gilmer et al., ICML 2017: the bond gives the matrix that the neighbour is multiplied with."""
    import torch

    width = nodes.shape[1]
    hidden = _dense(weights, f"{name}.nn.0", bonds).relu()
    # The matrix of a bond is linear in `hidden`. Multiplied with the atoms first, of which there are fewer than bonds,
    # it takes a tenth of the work.
    matrices = weights[f"{name}.nn.2.weight"].view(width, width * hidden.shape[1])
    mapped = (nodes @ matrices).view(len(nodes), width, -1)
    constant = nodes @ weights[f"{name}.nn.2.bias"].view(width, width)
    messages = torch.einsum("moh,mh->mo", mapped[pairs[0]], hidden) + constant[pairs[0]]
    return _add_up(messages, pairs[1], len(nodes)) + nodes @ weights[f"{name}.lin.weight"].T + weights[f"{name}.bias"]


def _dense(weights: Weights, name: str, inputs: torch.Tensor) -> torch.Tensor:
    return inputs @ weights[f"{name}.weight"].T + weights[f"{name}.bias"]


def _add_up(rows: torch.Tensor, owner: torch.Tensor, count: int) -> torch.Tensor:
    return rows.new_zeros((count, *rows.shape[1:])).index_add(0, owner, rows)
