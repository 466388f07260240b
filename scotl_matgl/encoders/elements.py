"""Sources of composition modality that are vectors of the elements: their mean and deviation over a formula."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from scotl_matgl.chemistry.compositions import Compositions, parse_compositions
from scotl_matgl.chemistry.elements import SYMBOLS
from scotl_matgl.encoders.composition import weights_file
from scotl_matgl.exceptions import InputError, StoredFileError
from scotl_matgl.sources.cards import SourceCard
from scotl_matgl.storage import TensorKind, file_sha256, read_tensors, write_tensors

VECTORS_FILE = TensorKind("file of element vectors", 1, {}, "restore it, or export the vectors again")

# Wider vectors than any model's.
_MAX_WIDTH = 10_000


class ElementVectorEncoder:
    """Vectors of the elements, averaged over a formula.

    Parameters
    ----------
    card : SourceCard
        Its ``readout`` is twice as wide as a vector.
    numbers : ndarray of int, shape (m,)
        Atomic numbers of the elements that have a vector.
    vectors : ndarray of shape (m, k)
        One row an element.

    Attributes
    ----------
    layers : tuple of str
        ``"readout"`` alone: mean over the atoms (k), then standard deviation (k).

    Examples
    --------
    >>> card = SourceCard(
    ...     name="my-elements", zoo="my_zoo", modality="composition", property="-", unit="1", dataset="none",
    ...     architecture="element vectors", layers={"readout": 2}, loader="my_zoo:load", licence="MIT", citation="me",
    ... )
    >>> ElementVectorEncoder(card, np.array([11, 17]), np.array([[1.0], [3.0]])).encode(["NaCl", "Na", "KCl"])
    array([[ 2.,  1.],
           [ 1.,  0.],
           [nan, nan]], dtype=float32)
    """

    def __init__(self, card: SourceCard, numbers: NDArray[np.integer], vectors: NDArray[np.floating]) -> None:
        self.card = card
        self.layers = tuple(card.layers)
        self._vectors = np.full((len(SYMBOLS), vectors.shape[1]), np.nan)
        self._vectors[np.asarray(numbers) - 1] = vectors

    def encode(self, formulas: Iterable[Any], *, layer: str = "readout") -> NDArray[np.float32]:
        """Embeddings of formulas.

        Parameters
        ----------
        formulas : iterable
            All that :func:`~scotl_matgl.parse_compositions` reads.
        layer : str, default="readout"
            The only one.

        Returns
        -------
        ndarray of float32, shape (n_formulas, 2 k)
            Rows of formulas with an element that has no vector are NaN throughout.

        Raises
        ------
        InputError
            If there is no such layer.
        """
        self.card.check_layer(layer)
        compositions = parse_compositions(formulas)
        if not len(compositions):
            return np.empty((0, self.card.layers[layer]), dtype=np.float32)
        return self._pool(compositions)

    def _pool(self, compositions: Compositions) -> NDArray[np.float32]:
        rows = self._vectors[compositions.numbers - 1]
        share = compositions.fractions[:, None]
        begin = compositions.offsets[:-1]
        mean = np.add.reduceat(rows * share, begin)
        offsets = rows - np.repeat(mean, np.diff(compositions.offsets), axis=0)
        deviation = np.sqrt(np.add.reduceat(offsets**2 * share, begin))
        return np.hstack([mean, deviation]).astype(np.float32)


def load(card: SourceCard, *, path: str | Path | None = None) -> ElementVectorEncoder:
    """Load the vectors of a card.

    Parameters
    ----------
    card : SourceCard
        Its options name the ``vectors`` in the file that its weights name.
    path : path-like, optional
        Folder of the file; by default the first of :func:`~scotl_matgl.encoders.composition.source_folders` with it.

    Raises
    ------
    InputError
        If the file is nowhere, is not the one of the card, or does not hold the vectors.
    """
    file = weights_file(card, path)
    name = str(card.options.get("vectors", ""))
    try:
        _, tensors = read_tensors(file, VECTORS_FILE, (f"{name}.numbers", f"{name}.vectors"))
    except StoredFileError as error:
        raise InputError(f"{file} does not hold the vectors of {card.name}: {error}") from error
    numbers, vectors = tensors[f"{name}.numbers"], tensors[f"{name}.vectors"]
    if not (
        vectors.shape == (len(numbers), card.width // 2)
        and vectors.shape[1] <= _MAX_WIDTH
        and len(numbers)
        and numbers.min() >= 1
        and numbers.max() <= len(SYMBOLS)
    ):
        raise InputError(
            f"{file} holds vectors {name!r} of shape {vectors.shape} for {len(numbers)} elements, which do not "
            f"fit the card {card.name} of width {card.width}; restore it"
        )
    return ElementVectorEncoder(card, numbers, vectors)


def write_vectors(path: str | Path, vectors: Mapping[str, tuple[NDArray[np.integer], NDArray[np.floating]]]) -> str:
    """Write vectors of elements by name, each the atomic numbers (m,) and the vectors (m, k); return the sha256."""
    stored: dict[str, NDArray[Any]] = {}
    for name, (numbers, values) in vectors.items():
        stored[f"{name}.numbers"], stored[f"{name}.vectors"] = numbers.astype(np.int16), values.astype(np.float32)
    path = Path(path)
    write_tensors(path, stored, VECTORS_FILE, {})
    return file_sha256(path)
