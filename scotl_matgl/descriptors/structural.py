"""What a crystal says beyond its formula, cheaply: density, packing, distances, coordination and symmetry."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from typing import Any

import numpy as np

from scotl_matgl.chemistry.crystals import Crystal, primitive
from scotl_matgl.vocabulary import Floats

#: Columns of :func:`structural_features`, with their units.
NAMES = (
    "volume per atom (Å³)",
    "atoms per volume and mean atomic number (Å⁻³)",
    "atoms in the primitive cell",
    "space group",
    "operations of symmetry per atom",
    "nearest distance, mean (Å)",
    "nearest distance, deviation (Å)",
    "neighbours within 1.1 nearest distances, mean",
    "neighbours within 1.1 nearest distances, deviation",
)

# A neighbour is in the first shell up to this multiple of the nearest distance, and looked for within so many Å.
_SHELL, _CUTOFF = 1.1, 6.0


def structural_features(crystals: Sequence[Crystal | None]) -> Floats:
    """Structural descriptors (n, 9), see :data:`NAMES`; NaN where there is no crystal, or a number cannot be told.

    Notes
    -----
    About 2 ms per crystal of ten atoms. Symmetry is spglib's.

    Examples
    --------
    >>> from scotl_matgl.encoders.probes import reference_crystals
    >>> structural_features([reference_crystals()["CsCl"]])[0, [3, 7]].tolist()
    [221.0, 8.0]
    """
    found = np.full((len(crystals), len(NAMES)), np.nan)
    for row, crystal in enumerate(crystals):
        if crystal is not None:
            found[row] = _describe(crystal)
    return found


def structural_means(crystals: Sequence[Crystal | None]) -> Floats | None:
    """What stands for a number that a row does not have: the means (9,) of the others; None if no row is a crystal."""
    found = structural_features([crystal for crystal in crystals if crystal is not None])
    if not len(found):
        return None
    known = np.isfinite(found)
    means: Floats = np.where(known, found, 0.0).sum(axis=0) / np.maximum(known.sum(axis=0), 1)
    return means


def _describe(crystal: Crystal) -> list[float]:
    per_atom = crystal.volume / len(crystal)
    return [per_atom, float(crystal.numbers.mean()) / per_atom, *_symmetry(crystal), *_coordination(crystal)]


def _symmetry(crystal: Crystal) -> list[float]:
    """Atoms of the primitive cell, space group, and operations per atom of that cell: the same for every cell."""
    import spglib

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            small = primitive(crystal)
            cell: Any = (small.lattice, small.frac_coords, small.numbers.astype(np.intc))
            found = spglib.get_symmetry_dataset(cell, symprec=0.01)
    except Exception:  # spglib's errors are several: overlapping atoms have no symmetry
        return [np.nan, np.nan, np.nan]
    if found is None:
        return [float(len(small)), np.nan, np.nan]
    return [float(len(small)), float(found.number), len(found.rotations) / len(small)]


def _coordination(crystal: Crystal) -> list[float]:
    """Mean and deviation over the atoms of the nearest distance, and of the neighbours in the first shell."""
    positions = crystal.frac_coords - np.floor(crystal.frac_coords)
    # Heights of the cell: how many images lie within the cut-off.
    heights = crystal.volume / np.linalg.norm(
        [np.cross(crystal.lattice[(i + 1) % 3], crystal.lattice[(i + 2) % 3]) for i in range(3)], axis=1
    )
    reach = np.ceil(_CUTOFF / heights).astype(int)
    if np.prod(2 * reach + 1) * len(crystal) ** 2 > 2_000_000:
        return [np.nan] * 4
    images = np.stack(np.meshgrid(*(np.arange(-n, n + 1) for n in reach), indexing="ij"), axis=-1).reshape(-1, 3)
    difference = positions[None, :, None] + images[None, None] - positions[:, None, None]
    distance = np.linalg.norm(difference @ crystal.lattice, axis=-1).reshape(len(crystal), -1)
    distance[distance < 1e-8] = np.inf
    nearest = distance.min(axis=1)
    shell = (distance <= _SHELL * nearest[:, None]).sum(axis=1)
    return [float(nearest.mean()), float(nearest.std()), float(shell.mean()), float(shell.std())]
