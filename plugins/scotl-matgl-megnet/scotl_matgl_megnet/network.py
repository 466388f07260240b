"""The network of the Keras MEGNet models in torch; imports torch, so it is itself imported when a model is loaded.

C. Chen et al., Chem. Mater. 31, 3564 (2019). Where the paper leaves a choice, this is what the published weights were
trained with: the networks of a convolution end without an activation; an atom receives the mean of the bonds that start
at it; Set2Set begins with a dense layer, and its cell state is zero again in every step.

Atoms and bonds may stand for several equal ones (:func:`scotl_matgl.encoders.graphs.merge_equal`), so every mean and
every attention is weighted.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn.functional import linear, softplus

from scotl_matgl.plugin import GraphBatch


@dataclass(frozen=True)
class Group:
    """To which of `size` groups (crystals, or atoms) each row belongs, and its weight among them.

    Attributes
    ----------
    index : Tensor of int64, shape (n_rows,)
    share : Tensor of float32, shape (n_rows, 1)
        Weight in the mean over the group.
    log_count : Tensor of float32, shape (n_rows,)
        Logarithm of how many equal rows this one stands for.
    size : int
    """

    index: Tensor
    share: Tensor
    log_count: Tensor
    size: int

    @classmethod
    def of(cls, index: NDArray[np.integer], count: NDArray[np.int32], size: int, device: torch.device) -> Group:
        """Rows in `index`, of which each counts `count` times."""
        share = count / np.bincount(index, count, minlength=size)[index]
        return cls(
            index=torch.from_numpy(index.astype(np.int64)).to(device),
            share=torch.from_numpy(share.astype(np.float32)).reshape(-1, 1).to(device),
            log_count=torch.from_numpy(np.log(count).astype(np.float32)).to(device),
            size=size,
        )

    def add_up(self, values: Tensor) -> Tensor:
        """Sum over each group: (n_rows, width) to (size, width)."""
        return values.new_zeros(self.size, *values.shape[1:]).index_add_(0, self.index, values)

    def mean(self, values: Tensor) -> Tensor:
        """Mean over each group: (n_rows, width) to (size, width)."""
        return self.add_up(values * self.share)

    def spread(self, values: Tensor) -> Tensor:
        """Hand the value of each group to its rows: (size, width) to (n_rows, width)."""
        return values.index_select(0, self.index)


@dataclass(frozen=True)
class Inputs:
    """A batch of merged crystal graphs as tensors.

    Attributes
    ----------
    numbers : Tensor of int64, shape (n_atoms,)
    distance : Tensor of float32, shape (n_bonds,)
        Å.
    neighbour : Tensor of int64, shape (n_bonds,)
        Atom at the far end of each bond.
    centre : Group
        Bonds by the atom at which they start.
    atoms, bonds : Group
        Atoms and bonds by crystal.
    """

    numbers: Tensor
    distance: Tensor
    neighbour: Tensor
    centre: Group
    atoms: Group
    bonds: Group

    @classmethod
    def of(cls, batch: GraphBatch, device: torch.device) -> Inputs:
        """Take the bonds from their end: merging keeps all bonds that end at an atom, and each has its reverse."""
        crystals = np.arange(len(batch))
        return cls(
            numbers=torch.from_numpy(batch.numbers.astype(np.int64)).to(device),
            distance=torch.from_numpy(batch.distance.astype(np.float32)).to(device),
            neighbour=torch.from_numpy(batch.source.astype(np.int64)).to(device),
            centre=Group.of(batch.destination, batch.bond_count, len(batch.numbers), device),
            atoms=Group.of(np.repeat(crystals, batch.n_atoms), batch.atom_count, len(batch), device),
            bonds=Group.of(np.repeat(crystals, batch.n_bonds), batch.bond_count, len(batch), device),
        )


class SoftPlus2(nn.Module):
    """Softplus that is zero at zero: log(exp(x) + 1) − log 2."""

    def forward(self, values: Tensor) -> Tensor:
        """Apply it to every element."""
        return softplus(values) - math.log(2.0)


def dense(widths: Sequence[int], *, last: bool) -> nn.Sequential:
    """Dense layers with :class:`SoftPlus2` after each, the last one included or not."""
    layers: list[nn.Module] = []
    for inputs, outputs in itertools.pairwise(widths):
        layers += [nn.Linear(inputs, outputs), SoftPlus2()]
    return nn.Sequential(*(layers if last else layers[:-1]))


class Convolution(nn.Module):
    """Update of bonds, atoms and states, eqs. 1 to 3 of the paper."""

    def __init__(self, widths: Mapping[str, Sequence[int]]) -> None:
        super().__init__()
        self.edge, self.node, self.state = (dense(widths[part], last=False) for part in ("edge", "node", "state"))

    def forward(self, atoms: Tensor, bonds: Tensor, states: Tensor, inputs: Inputs) -> tuple[Tensor, Tensor, Tensor]:
        """Updated atoms, bonds and states."""
        first = cast(nn.Linear, self.edge[0])
        width = atoms.shape[1]
        sizes = [width, width, bonds.shape[1], states.shape[1]]
        of_centre, of_neighbour, of_bond, of_state = torch.split(first.weight, sizes, dim=1)
        # The layer on [centre, neighbour, bond, state] is split, so that atoms are multiplied once and not per bond.
        centre = linear(atoms, of_centre, first.bias) + inputs.atoms.spread(linear(states, of_state))
        hidden = linear(bonds, of_bond) + inputs.centre.spread(centre)
        hidden += linear(atoms, of_neighbour).index_select(0, inputs.neighbour)
        bonds = self.edge[1:](hidden)
        atoms = self.node(torch.hstack([inputs.centre.mean(bonds), atoms, inputs.atoms.spread(states)]))
        states = self.state(torch.hstack([inputs.bonds.mean(bonds), inputs.atoms.mean(atoms), states]))
        return atoms, bonds, states


class Block(nn.Module):
    """Dense layers, then a convolution, with a skip connection over both (in the first block over the convolution)."""

    def __init__(
        self, dense_widths: Mapping[str, Sequence[int]], widths: Mapping[str, Sequence[int]], *, first: bool
    ) -> None:
        super().__init__()
        self.first = first
        self.node, self.edge, self.state = (dense(dense_widths[part], last=True) for part in ("node", "edge", "state"))
        self.convolution = Convolution(widths)

    def forward(self, atoms: Tensor, bonds: Tensor, states: Tensor, inputs: Inputs) -> tuple[Tensor, Tensor, Tensor]:
        """Atoms, bonds and states after the block."""
        before = self.node(atoms), self.edge(bonds), self.state(states)
        kept = before if self.first else (atoms, bonds, states)
        change = self.convolution(*before, inputs)
        return kept[0] + change[0], kept[1] + change[1], kept[2] + change[2]


class Set2Set(nn.Module):
    """Attention read-out of a set (O. Vinyals et al., arXiv:1511.06391) with the details that MEGNet's Keras layer has.

    A dense layer first; gates are hard sigmoids; the cell state is not carried from step to step, so that the forget
    gate has no effect.
    """

    def __init__(self, width: int, hidden: int, steps: int) -> None:
        super().__init__()
        self.steps = steps
        self.dense = nn.Linear(width, hidden)
        self.recurrent = nn.Linear(2 * hidden, 4 * hidden)

    def forward(self, values: Tensor, group: Group) -> Tensor:
        """Read-out (n_crystals, 2 · hidden) of the rows of each crystal."""
        values = self.dense(values)
        output = values.new_zeros(group.size, self.recurrent.in_features)
        for _ in range(self.steps):
            gate_in, _, change, gate_out = self.recurrent(output).chunk(4, dim=1)
            query = _hard_sigmoid(gate_out) * torch.tanh(_hard_sigmoid(gate_in) * torch.tanh(change))
            logits = (values * group.spread(query)).sum(dim=1) + group.log_count
            top = logits.new_full((group.size,), -torch.inf).scatter_reduce_(0, group.index, logits, "amax")
            weights = torch.exp(logits - top.index_select(0, group.index)).unsqueeze(1)
            output = torch.cat([query, group.add_up(values * weights) / group.add_up(weights)], dim=1)
        return output


def _hard_sigmoid(values: Tensor) -> Tensor:
    """Keras's; the one of torch has the slope 1/6."""
    return torch.clamp(0.2 * values + 0.5, 0.0, 1.0)


@dataclass(frozen=True)
class Settings:
    """What the shapes of a network follow from.

    Attributes
    ----------
    centres : tuple of float
        Of the Gaussians in which distances are expanded, Å.
    gaussian_width : float
        Å.
    n_elements, element_width : int
        Shape of the table of element embeddings; its row is the atomic number.
    n_states, state_width : int
        Shape of the table of states; no table and zeros of this width if `n_states` is 0.
    dense_widths, widths : tuple of dict
        Per block and part (``"node"``, ``"edge"``, ``"state"``) the widths of the dense layers and of the convolution,
        from the input to the output.
    set2set : dict
        Hidden width by part (``"node"``, ``"edge"``).
    steps : int
        Of Set2Set.
    head : tuple of int
        Widths of the dense layers after the read-out.
    sigmoid : bool
        Whether the output is a probability.
    mean, std : float
        Of the target, undone in the output.
    """

    centres: tuple[float, ...]
    gaussian_width: float
    n_elements: int
    element_width: int
    n_states: int
    state_width: int
    dense_widths: tuple[Mapping[str, tuple[int, ...]], ...]
    widths: tuple[Mapping[str, tuple[int, ...]], ...]
    set2set: Mapping[str, int]
    steps: int
    head: tuple[int, ...]
    sigmoid: bool
    mean: float
    std: float


class KerasMEGNet(nn.Module):
    """MEGNet as its authors' Keras code computes it."""

    centres: Tensor

    def __init__(self, settings: Settings) -> None:
        super().__init__()
        self.settings = settings
        self.register_buffer("centres", torch.tensor(settings.centres, dtype=torch.float32), persistent=False)
        self.elements = nn.Embedding(settings.n_elements, settings.element_width)
        self.states = nn.Embedding(settings.n_states, settings.state_width) if settings.n_states else None
        self.blocks = nn.ModuleList(
            Block(before, widths, first=index == 0)
            for index, (before, widths) in enumerate(zip(settings.dense_widths, settings.widths, strict=True))
        )
        last = settings.widths[-1]
        self.node_readout, self.edge_readout = (
            Set2Set(last[part][-1], settings.set2set[part], settings.steps) for part in ("node", "edge")
        )
        self.head = dense(settings.head, last=False)

    @property
    def layer_widths(self) -> dict[str, int]:
        """Layers that :meth:`forward` gives, ``readout`` first, with their widths."""
        blocks = {
            f"block_{index}_{part}": widths[part][-1]
            for index, widths in enumerate(self.settings.widths, start=1)
            for part in ("node", "edge", "state")
        }
        return {"readout": self.settings.head[0], "penultimate": self.settings.head[-2], **blocks, "final": 1}

    def forward(self, inputs: Inputs, layers: Collection[str], state: int = 0) -> dict[str, Tensor]:
        """Values of the layers, one row per crystal; atoms and bonds are averaged over it.

        Parameters
        ----------
        inputs : Inputs
            Crystals.
        layers : collection of str
            Of :attr:`layer_widths`.
        state : int
            Row of the table of states, e.g. the fidelity.
        """
        atoms = self.elements(inputs.numbers)
        offsets = (inputs.distance.unsqueeze(1) - self.centres) / self.settings.gaussian_width
        bonds = torch.exp(-(offsets**2))
        if self.states is None:
            states = bonds.new_zeros(inputs.atoms.size, self.settings.state_width)
        else:
            states = self.states.weight[state].expand(inputs.atoms.size, -1)
        values: dict[str, Tensor] = {}
        for index, block in enumerate(self.blocks, start=1):
            atoms, bonds, states = block(atoms, bonds, states, inputs)
            if f"block_{index}_node" in layers:
                values[f"block_{index}_node"] = inputs.atoms.mean(atoms)
            if f"block_{index}_edge" in layers:
                values[f"block_{index}_edge"] = inputs.bonds.mean(bonds)
            values[f"block_{index}_state"] = states
        values["readout"] = torch.hstack(
            [self.node_readout(atoms, inputs.atoms), self.edge_readout(bonds, inputs.bonds), states]
        )
        values["penultimate"] = self.head[:-1](values["readout"])
        output = self.head[-1](values["penultimate"])
        if self.settings.sigmoid:
            output = torch.sigmoid(output)
        values["final"] = output * self.settings.std + self.settings.mean
        return {layer: values[layer] for layer in layers}
