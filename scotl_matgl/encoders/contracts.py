"""What an encoder is, of either modality, and what it returns."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from scotl_matgl.chemistry.compositions import Compositions
from scotl_matgl.sources.cards import SourceCard
from scotl_matgl.vocabulary import Progress


@dataclass
class Encoded:
    """Embeddings of crystals.

    Attributes
    ----------
    embeddings : dict of str to ndarray of float32, shape (n_crystals, width)
        One array per layer; the rows of refused crystals are NaN.
    refused : dict of int to str
        Position of each refused crystal in the input, and the reason.
    """

    embeddings: dict[str, NDArray[np.float32]]
    refused: dict[int, str] = field(default_factory=dict)


@runtime_checkable
class SourceEncoder(Protocol):
    """A source model that reads crystals."""

    card: SourceCard
    layers: tuple[str, ...]

    def encode(
        self,
        structures: Iterable[Any],
        *,
        layer: str = "readout",
        batch_edges: int | None = None,
        device: str = "auto",
        progress: Progress | None = None,
    ) -> NDArray[np.float32]:
        """Embeddings (n_crystals, width) of one layer; NaN rows for refused crystals."""

    def encode_layers(
        self,
        structures: Iterable[Any],
        *,
        layers: Sequence[str],
        batch_edges: int | None = None,
        device: str = "auto",
        progress: Progress | None = None,
    ) -> Encoded:
        """Embeddings of several layers in one pass, with the reason of every refusal."""


@runtime_checkable
class CompositionEncoder(Protocol):
    """A source model that reads formulas, so that it needs no bridge.

    An encoder that works on a composition descriptor may also be a :class:`DescribedEncoder`.
    """

    card: SourceCard
    layers: tuple[str, ...]

    def encode(self, formulas: Iterable[Any], *, layer: str = "readout") -> NDArray[np.float32]:
        """Embeddings (n_formulas, width) of one layer."""


@runtime_checkable
class DescribedEncoder(CompositionEncoder, Protocol):
    """A composition encoder that takes descriptors which were computed before: for many sources on one table.

    Attributes
    ----------
    fingerprint : str
        ``fingerprint()`` of the descriptor that it reads; other descriptors are never handed to it.
    """

    fingerprint: str

    def encode_described_layers(
        self, compositions: Compositions, X: NDArray[np.float64], *, layers: Sequence[str]
    ) -> Mapping[str, NDArray[np.float32]]:
        """What ``encode`` gives for each of some layers, in one pass, from descriptors X (n_formulas, p)."""
