"""Interatomic potentials as source encoders: what a potential knows of each atom, pooled over the crystal."""

from __future__ import annotations

import importlib.util
from abc import abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from scotl_matgl.encoders.base import GraphEncoder
from scotl_matgl.encoders.graphs import CrystalGraph
from scotl_matgl.encoders.probes import IncompatibleWeightsError
from scotl_matgl.sources.cards import SourceCard
from scotl_matgl.storage import file_sha256

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True, eq=False)
class AtomValues:
    """What a potential gives for the atoms of a batch, crystal after crystal.

    Attributes
    ----------
    features : ndarray of shape (n_atoms, d)
        The last features of each atom before its energy is read from them.
    energies : ndarray of shape (n_crystals,)
        Energy per atom, in the unit of the card.
    quantities : mapping of str to ndarray of shape (n_atoms,)
        Whatever else it predicts for each atom, by the name of the layer that summarises it.
    """

    features: NDArray[np.floating]
    energies: NDArray[np.floating]
    quantities: Mapping[str, NDArray[np.floating]] = field(default_factory=dict)


class PotentialEncoder(GraphEncoder):
    """An interatomic potential; a subclass says what it gives for the atoms of a batch.

    Layers are ``"readout"``, the mean of the atoms' features over the crystal (d); ``"deviation"``, their standard
    deviation (d); one of width 2 for each further quantity, its mean and its largest value; and ``"final"``, the energy
    per atom. None depends on the size of the cell or on the order of its sites. Parameters are those of
    :class:`~scotl_matgl.encoders.base.GraphEncoder`.

    Examples
    --------
    A pair potential, with the inverse distances of an atom as its one feature:

    >>> from scotl_matgl.encoders.probes import reference_crystals
    >>> class Pairs(PotentialEncoder):
    ...     def _atoms(self, graphs, device):
    ...         sums = [np.bincount(graph.source, 1 / graph.distance) for graph in graphs]
    ...         return AtomValues(np.concatenate(sums)[:, None], np.array([-one.mean() for one in sums]))
    ...
    ...     def _pick_device(self, device):  # this potential does without torch
    ...         return device
    >>> card = SourceCard(
    ...     name="my-pairs", zoo="my_zoo", modality="structure", property="energy", unit="1/A", dataset="none",
    ...     architecture="pairs", layers={"readout": 1, "deviation": 1, "final": 1}, loader="my_zoo:load",
    ...     licence="MIT", citation="me",
    ... )
    >>> encoder = Pairs(card, cutoff=3.0, batch_edges=10000)
    >>> print(encoder.encode([reference_crystals()["NaCl"]]).round(3))
    [[2.109]]
    """

    @abstractmethod
    def _atoms(self, graphs: Sequence[CrystalGraph], device: torch.device) -> AtomValues:
        """Run the potential over the graphs of one batch.

        Parameters
        ----------
        graphs : sequence of CrystalGraph
        device : torch.device

        Returns
        -------
        AtomValues
            A crystal for which it raises or gives NaN is refused, and no other is.
        """

    def _forward(
        self, graphs: Sequence[CrystalGraph], layers: Sequence[str], device: torch.device
    ) -> dict[str, NDArray[np.float32]]:
        """Run the potential over the graphs of one batch, and pool."""
        values = self._atoms(graphs, device)
        n_atoms = np.array([graph.n_atoms for graph in graphs])
        mean, deviation = mean_and_deviation(values.features, n_atoms)
        pooled = {"readout": mean, "deviation": deviation, "final": np.asarray(values.energies)[:, None]}
        first = np.cumsum(n_atoms) - n_atoms
        for name, quantity in values.quantities.items():
            largest = np.maximum.reduceat(quantity, first)
            pooled[name] = np.column_stack([np.add.reduceat(quantity, first) / n_atoms, largest])
        return {layer: pooled[layer].astype(np.float32) for layer in layers}


def mean_and_deviation(
    features: NDArray[np.floating], n_atoms: NDArray[np.integer]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Mean and standard deviation (n, d) over the atoms of each of n crystals.

    Parameters
    ----------
    features : ndarray of shape (n_atoms, d)
        Of all atoms, crystal after crystal.
    n_atoms : ndarray of shape (n,)
        Of each crystal, at least 1.
    """
    wide = np.asarray(features, dtype=np.float64)
    first = np.cumsum(n_atoms) - n_atoms
    mean = np.add.reduceat(wide, first) / n_atoms[:, None]
    offsets = wide - np.repeat(mean, n_atoms, axis=0)
    return mean, np.sqrt(np.add.reduceat(offsets**2, first) / n_atoms[:, None])


def packaged_weights(card: SourceCard, package: str, *, check: bool = True) -> Path:
    """File of a card's weights that comes inside an installed package, which is not imported.

    Parameters
    ----------
    card : SourceCard
        With one file among its weights, named by its path below the package.
    package : str
        Name by which the package is imported.
    check : bool, default True
        Compare the file with the sha256 of the card.

    Raises
    ------
    ModuleNotFoundError
        If the package is not installed.
    FileNotFoundError
        If the installed version has no such file.
    IncompatibleWeightsError
        If the file is another one.
    """
    found = importlib.util.find_spec(package)
    if found is None or not found.submodule_search_locations:
        raise ModuleNotFoundError(
            f"{card.name} needs the package {package}, which its weights come with: pip install {package}", name=package
        )
    ((name, expected),) = card.weights.items()
    path = Path(next(iter(found.submodule_search_locations))) / name
    if not path.is_file():
        raise FileNotFoundError(
            f"the installed version of {package} has no file {name}, which {card.name} needs; its notes name the one"
        )
    if check and (sha256 := file_sha256(path)) != expected:
        raise IncompatibleWeightsError(
            f"{path} is not the file of the card {card.name}: its sha256 is {sha256}, not {expected}. Install the "
            f"version of {package} that the card names, or load with check=False to look at this one."
        )
    return path
