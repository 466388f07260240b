"""The CGCNN network in torch; imports torch, so it is itself imported when a model is loaded.

T. Xie, J. C. Grossman, Phys. Rev. Lett. 120, 145301 (2018), eq. 5, with the batch normalisation and the softplus
activations that the published weights were trained with. Modules are named as in the published checkpoints.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping

import torch
from torch import Tensor, nn
from torch.nn.functional import linear, softplus

#: Of the graphs, Å.
CUTOFF = 8.0

#: Neighbours per atom.
N_NEIGHBOURS = 12

#: Distance of a neighbour that is missing, Å.
PADDING = 9.0

#: Step between the centres of the Gaussians in which distances are expanded, and their width, Å.
STEP = 0.2


class Convolution(nn.Module):
    """Gated sum over the neighbours of each atom, eq. 5."""

    def __init__(self, width: int, bond_width: int) -> None:
        super().__init__()
        self.fc_full = nn.Linear(2 * width + bond_width, 2 * width)
        self.bn1 = nn.BatchNorm1d(2 * width)
        self.bn2 = nn.BatchNorm1d(width)

    def forward(self, atoms: Tensor, neighbours: Tensor, bonds: Tensor) -> Tensor:
        """Updated atoms (n_atoms, width), from neighbours (n_atoms, m) and bonds (n_atoms, m, bond_width)."""
        width = atoms.shape[1]
        of_centre, of_neighbour, of_bond = torch.split(self.fc_full.weight, [width, width, bonds.shape[2]], dim=1)
        # The layer on [centre, neighbour, bond] is split, so that atoms are multiplied once and not per bond.
        hidden = linear(bonds, of_bond)
        hidden += linear(atoms, of_centre, self.fc_full.bias).unsqueeze(1)
        hidden += linear(atoms, of_neighbour)[neighbours]
        gate, core = self.bn1(hidden.flatten(0, 1)).view_as(hidden).chunk(2, dim=2)
        change: Tensor = self.bn2((torch.sigmoid(gate) * softplus(core)).sum(dim=1))
        return softplus(atoms + change)


class CGCNN(nn.Module):
    """Crystal graph convolutional neural network.

    Parameters
    ----------
    elements : Tensor of float32, shape (n_elements, element_width)
        Vector of each element; row 0 is hydrogen.
    width, bond_width, hidden : int
        Widths of atoms, of expanded distances and of the crystal's hidden layer.
    n_convolutions : int
        How many.
    n_outputs : int
        1, or 2 for the logits of two classes, of which the probability of the second is the prediction.
    mean, std : float
        Of the target, undone in the prediction.
    """

    elements: Tensor
    centres: Tensor

    def __init__(
        self,
        elements: Tensor,
        *,
        width: int,
        bond_width: int,
        hidden: int,
        n_convolutions: int,
        n_outputs: int,
        mean: float,
        std: float,
    ) -> None:
        super().__init__()
        self.register_buffer("elements", elements, persistent=False)
        self.register_buffer("centres", STEP * torch.arange(bond_width, dtype=torch.float64), persistent=False)
        self.embedding = nn.Linear(elements.shape[1], width)
        self.convs = nn.ModuleList(Convolution(width, bond_width) for _ in range(n_convolutions))
        self.conv_to_fc = nn.Linear(width, hidden)
        self.fc_out = nn.Linear(hidden, n_outputs)
        self.mean = mean
        self.std = std

    @property
    def layer_widths(self) -> Mapping[str, int]:
        """Layers that :meth:`forward` gives, ``readout`` first, with their widths."""
        convolutions = {f"conv_{index}": self.embedding.out_features for index in range(1, len(self.convs) + 1)}
        return {"readout": self.fc_out.in_features, **convolutions, "final": 1}

    def forward(
        self, numbers: Tensor, neighbours: Tensor, distance: Tensor, crystal: Tensor, layers: Collection[str]
    ) -> dict[str, Tensor]:
        """Values of the layers, one row per crystal; atoms are averaged over it.

        Parameters
        ----------
        numbers : Tensor of int64, shape (n_atoms,)
            Atomic numbers.
        neighbours : Tensor of int64, shape (n_atoms, m)
            Atoms of the batch.
        distance : Tensor of float64, shape (n_atoms, m)
            Å.
        crystal : Tensor of int64, shape (n_atoms,)
            To which crystal each atom belongs; ascending from 0.
        layers : collection of str
            Of :attr:`layer_widths`.
        """
        bonds = torch.exp(-(((distance.unsqueeze(2) - self.centres) / STEP) ** 2)).to(self.elements.dtype)
        atoms = self.embedding(self.elements[numbers - 1])
        n_atoms = torch.bincount(crystal).unsqueeze(1)
        values: dict[str, Tensor] = {}
        for index, convolution in enumerate(self.convs, start=1):
            atoms = convolution(atoms, neighbours, bonds)
            if f"conv_{index}" in layers or index == len(self.convs):
                sums = atoms.new_zeros(len(n_atoms), atoms.shape[1]).index_add_(0, crystal, atoms)
                values[f"conv_{index}"] = sums / n_atoms
        pooled = values[f"conv_{len(self.convs)}"]
        values["readout"] = softplus(self.conv_to_fc(softplus(pooled)))
        output = self.fc_out(values["readout"])
        if output.shape[1] == 2:
            values["final"] = torch.softmax(output, dim=1)[:, 1:]
        else:
            values["final"] = output * self.std + self.mean
        return {layer: values[layer] for layer in layers}
