"""A network of a library as a source: formulas in, one layer out."""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from scotl_matgl.cards import SourceCard
from scotl_matgl.composition import parse_compositions
from scotl_matgl.descriptors import CompositionDescriptor
from scotl_matgl_shotgun.library import Library
from scotl_matgl_shotgun.network import Network
from scotl_matgl_shotgun.records import Record


class NetworkEncoder:
    """A fully connected network on a composition descriptor.

    Attributes
    ----------
    card : SourceCard
    layers : tuple of str
        ``"readout"``, the last hidden layer, first.
    """

    def __init__(self, card: SourceCard, network: Network, descriptor: CompositionDescriptor) -> None:
        self.card = card
        self.layers = tuple(card.layers)
        self.network = network
        self.descriptor = descriptor

    def encode(self, formulas: Iterable[Any], *, layer: str = "readout") -> NDArray[np.float32]:
        """Embeddings of formulas.

        Parameters
        ----------
        formulas : iterable
            All that :func:`~scotl_matgl.composition.parse_compositions` reads.
        layer : str, default="readout"
            One of :attr:`layers`.

        Returns
        -------
        ndarray of float32, shape (n_formulas, width)
            Rows that are not finite are NaN throughout.

        Raises
        ------
        ValueError
            If the network has no such layer.
        """
        if layer not in self.layers:
            close = difflib.get_close_matches(layer, self.layers, n=1)
            hint = f"did you mean {close[0]!r}? " if close else ""
            raise ValueError(f"{self.card.name} has no layer {layer!r}; {hint}it has {', '.join(self.layers)}")
        compositions = parse_compositions(formulas)
        if not len(compositions):
            return np.empty((0, self.card.layers[layer]), dtype=np.float32)
        values = self.network.forward(np.asarray(self.descriptor.transform(compositions), dtype=np.float64))[layer]
        values[~np.isfinite(values).all(axis=1)] = np.nan
        return values


def load(card: SourceCard, *, path: str | None = None) -> NetworkEncoder:
    """Load the network of a card.

    Parameters
    ----------
    card : SourceCard
        Of :meth:`~scotl_matgl_shotgun.Library.card`.
    path : str, optional
        The library, if it is not where the card says.
    """
    library = Library(path or card.options["library"])
    record = Record(**card.options["record"])
    return NetworkEncoder(card, library.network(record), library.descriptor(record))
