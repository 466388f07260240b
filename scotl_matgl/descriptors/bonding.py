"""Between metal, covalent and ionic: formulas by their electronegativities, beside the crystals of the data bases."""

from __future__ import annotations

import functools
from dataclasses import dataclass
from importlib import resources
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from scotl_matgl.chemistry.compositions import Compositions
from scotl_matgl.descriptors.element_tables import load_element_tables
from scotl_matgl.storage import TensorKind, read_tensors
from scotl_matgl.vocabulary import Floats

#: The file with the calculated crystals; ``tools/count_bonding.py`` writes it.
BONDING_FILE = TensorKind("count of crystals", 1, {"crystals": int, "step": float}, "reinstall scotl-matgl")

# Width of a square in units of electronegativity. They begin at zero; no element is above fluorine with 3.98.
STEP, _SQUARES = 0.08, 50


@dataclass(frozen=True, eq=False)
class Bonding:
    """Formulas in the plane of van Arkel and Ketelaar.

    Attributes
    ----------
    mean : ndarray of float64, shape (n,)
        Electronegativity (Pauling) of a formula, each atom counted once; NaN where an element has none.
    difference : ndarray of float64, shape (n,)
        Between its most and its least electronegative element; zero for elements.

    Notes
    -----
    A. E. van Arkel, Molecules and Crystals in Inorganic Chemistry (1949); L. C. Allen, J. Am. Chem. Soc. 114, 1510
    (1992). Metals lie at small means and differences, covalent compounds at large means, salts at large differences.

    Examples
    --------
    >>> from scotl_matgl import parse_compositions
    >>> salt = Bonding.of(parse_compositions(["NaCl"]))
    >>> round(float(salt.mean[0]), 3), round(float(salt.difference[0]), 2)
    (2.045, 2.23)
    """

    mean: Floats
    difference: Floats

    @classmethod
    def of(cls, compositions: Compositions) -> Bonding:
        """Mean and difference of each formula; a millisecond for a thousand."""
        magpie = load_element_tables().presets["magpie"]
        values = magpie.raw[:, magpie.properties.index("Electronegativity")]
        each, starts = values[compositions.numbers - 1], compositions.offsets[:-1]
        if not len(starts):
            return cls(np.empty(0), np.empty(0))
        mean = np.add.reduceat(each * compositions.amounts, starts) / np.add.reduceat(compositions.amounts, starts)
        return cls(mean, np.maximum.reduceat(each, starts) - np.minimum.reduceat(each, starts))

    def counts(self) -> NDArray[np.int64]:
        """Formulas in squares of :data:`STEP`, shape (50, 50): by mean and by difference."""
        squares = self._squares()
        found = np.zeros((_SQUARES, _SQUARES), np.int64)
        np.add.at(found, (squares[:, 0], squares[:, 1]), 1)
        return found

    def is_near(self, counts: NDArray[np.integer]) -> NDArray[np.bool_]:
        """Whether a formula's square or one beside it holds anything (n,); not where an element has no value."""
        padded = np.pad(counts > 0, 1)
        around: NDArray[np.bool_] = np.any(np.lib.stride_tricks.sliding_window_view(padded, (3, 3)), axis=(2, 3))
        near = np.zeros(len(self.mean), bool)
        squares = self._squares()
        near[np.isfinite(self.mean)] = around[squares[:, 0], squares[:, 1]]
        return near

    def _squares(self) -> NDArray[np.intp]:
        known = np.isfinite(self.mean)
        places = np.column_stack([self.mean, self.difference])[known]
        # A little above the border: sums of decimals must not decide on which side of it a formula lies.
        squares: NDArray[np.intp] = np.minimum((places / STEP + 1e-9).astype(np.intp), _SQUARES - 1)
        return squares


@functools.cache
def calculated_crystals() -> NDArray[np.integer]:
    """How many of the calculated crystals that bridges were fitted on lie in each square, as :meth:`Bonding.counts`."""
    with resources.as_file(resources.files("scotl_matgl") / "data" / "bonding.safetensors") as path:
        _, tensors = read_tensors(Path(path), BONDING_FILE, ["counts"])
    return tensors["counts"]
