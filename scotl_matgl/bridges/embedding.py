"""Embeddings of formulas by a source: estimated by its bridge, looked up, or computed by a source of compositions."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from scotl_matgl.bridges.base import Bridge
from scotl_matgl.bridges.store import find_bridge, find_look_up
from scotl_matgl.chemistry.compositions import Compositions
from scotl_matgl.chemistry.elements import SYMBOLS
from scotl_matgl.descriptors.base import CompositionDescriptor
from scotl_matgl.encoders.contracts import DescribedEncoder
from scotl_matgl.sources.cards import CardError, SourceCard, all_cards, select
from scotl_matgl.vocabulary import Floats

LookUp = bool | Literal["auto"]


@dataclass(frozen=True, eq=False)
class Embedded:
    """Source embeddings of the formulas of a table.

    Attributes
    ----------
    values : ndarray of shape (n, d), float64
        Without NaN: rows that the source refuses hold the mean of the others.
    looked_up, refused : ndarray of shape (n,), bool
        Rows that hold the embedding of their crystal; rows that were refused.
    """

    values: Floats
    looked_up: NDArray[np.bool_]
    refused: NDArray[np.bool_]

    @classmethod
    def of(cls, values: NDArray[np.floating[Any]], looked_up: NDArray[np.bool_] | None = None) -> Embedded:
        """Replace rows that are not finite by the mean of the others."""
        filled = np.array(values, dtype=np.float64)
        refused = ~np.logical_and.reduce(np.isfinite(filled), axis=1)
        if refused.all():
            raise ValueError("the source refuses every formula of the table")
        filled[refused] = filled[~refused].mean(axis=0)
        return cls(filled, np.zeros(len(filled), dtype=bool) if looked_up is None else looked_up, refused)


@dataclass(frozen=True, eq=False)
class SourceEmbedding:
    """Embedding of formulas by one layer of one source.

    Unlike a ranking, which may fill the rows that a source refuses with the mean of the others, it gives a row the same
    values whatever other rows come with it.

    Attributes
    ----------
    name, layer : str
        Source and layer.
    weights : mapping of str to str
        File name to sha256 of the source's weights, as its card says.
    elements : tuple of str
        Elements that the source knows; empty if it takes all.
    bridge : Bridge or None
        From descriptors to the embedding; None for a source of composition modality, which is loaded when needed.
    card : SourceCard or None
        Of a source of composition modality; without it the registered card of that name is used.
    look_up : bool
        Whether formulas that are crystals of the corpus take the embedding of their crystal.
    mean : ndarray of shape (d,)
        What rows hold that the source refuses: the mean of the rows that it was fitted on.
    """

    name: str
    layer: str
    weights: dict[str, str] = field(repr=False)
    elements: tuple[str, ...] = field(repr=False)
    bridge: Bridge | None = field(repr=False)
    card: SourceCard | None = field(repr=False)
    look_up: bool
    mean: Floats = field(repr=False)

    @classmethod
    def without_bridge(cls, card: SourceCard, layer: str) -> SourceEmbedding:
        """Source that is only named: its own network is trained on, so that formulas need no embedding."""
        return cls(
            card.name, layer, dict(card.weights), tuple(card.elements), None, card, look_up=False, mean=np.zeros(0)
        )

    def embed(self, compositions: Compositions, X: Floats, descriptor: CompositionDescriptor) -> Floats:
        """Embedding (n, d), float64; rows that the source refuses hold the mean.

        Parameters
        ----------
        compositions : Compositions
            n formulas.
        X : ndarray of shape (n, p)
            Their descriptors.
        descriptor : CompositionDescriptor
            What X comes from.
        """
        if not len(compositions):
            return np.empty((0, len(self.mean)))
        values, _ = self._raw(compositions, X, descriptor)
        filled = np.array(values, dtype=np.float64)
        filled[~np.logical_and.reduce(np.isfinite(filled), axis=1)] = self.mean
        return filled

    def _raw(
        self, compositions: Compositions, X: Floats, descriptor: CompositionDescriptor
    ) -> tuple[NDArray[np.floating[Any]], NDArray[np.bool_]]:
        """Embedding, NaN in rows that are refused, and which rows are looked up."""
        none = np.zeros(len(compositions), dtype=bool)
        if self.bridge is None:
            return own_embedding(self._registered_card(), compositions, X, descriptor, self.layer), none
        values = self.bridge.transform(X)
        # Only a card says which look-up belongs to it: it is read from the registry when it is used.
        table = find_look_up(self._registered_card(), self.layer) if self.look_up else None
        if table is None:
            return values, none
        found, known = table.find(compositions.keys())
        return np.where(known[:, None], found, values), known

    def _registered_card(self) -> SourceCard:
        card = self.card or select(all_cards(lambda *_: None), self.name)[0]
        if dict(card.weights) != self.weights:
            raise CardError(
                f"the weights of {self.name} are no longer those that this model was fitted with; fit it again"
            )
        return card

    def clipped(self, X: Floats) -> NDArray[np.intp]:
        """Number (n,) of descriptors that lie so far from the corpus of the bridge that it holds them back."""
        if self.bridge is None:
            return np.zeros(len(X), dtype=np.intp)
        return self.bridge.n_clipped(X)


def elements_outside(compositions: Compositions, known: Iterable[str]) -> list[tuple[str, ...]]:
    """Elements of each formula that are not among the known ones."""
    numbers = {SYMBOLS.index(symbol) + 1 for symbol in known}
    return [
        tuple(SYMBOLS[z - 1] for z in compositions[row][0].tolist() if z not in numbers)
        for row in range(len(compositions))
    ]


def embeddings(
    card: SourceCard,
    compositions: Compositions,
    X: Floats,
    descriptor: CompositionDescriptor,
    *,
    layer: str = "readout",
    look_up: LookUp = "auto",
    folders: Sequence[Path] | None = None,
) -> list[tuple[SourceEmbedding, Embedded]]:
    """Ways to embed formulas by a source: by its bridge, and with known crystals looked up where there are any.

    Parameters
    ----------
    card : SourceCard
        Of either modality.
    compositions : Compositions
        n formulas.
    X : ndarray of shape (n, p)
        Their descriptors.
    descriptor : CompositionDescriptor
        What X comes from.
    layer : str, default="readout"
        Layer of the source.
    look_up : bool or "auto", default="auto"
        ``"auto"`` returns both ways if some formulas are known; True the one with look-up, where there is one.
    folders : sequence of path, optional
        Where bridges are looked for.

    Returns
    -------
    list of (SourceEmbedding, Embedded)
        What embeds other formulas in the same way, and the embeddings of these. For a source of composition modality
        its own embedding.

    Raises
    ------
    ValueError
        If the source has no bridge, or refuses every formula.
    """
    bridge = None if card.modality == "composition" else find_bridge(card, layer, descriptor, folders).load()
    without = SourceEmbedding(
        card.name, layer, dict(card.weights), tuple(card.elements), bridge, card, look_up=False, mean=np.zeros(0)
    )
    ways = [replace(without, look_up=True)] if look_up and bridge is not None else []
    found = []
    for way in (without, *ways):
        values, known = way._raw(compositions, X, descriptor)
        if way.look_up and not known.any():
            continue
        embedded = Embedded.of(values, known)
        mean = embedded.values[~embedded.refused].mean(axis=0)
        found.append((replace(way, mean=mean), embedded))
    return found[-1:] if look_up is True else found


def varying(ways: Sequence[tuple[SourceEmbedding, Embedded]]) -> list[tuple[SourceEmbedding, Embedded]]:
    """Ways that do not give the same values for all formulas, from which nothing could be learned.

    Raises
    ------
    ValueError
        If there is none.
    """
    found = [way for way in ways if np.ptp(way[1].values, axis=0).max() > 0]
    if not found:
        raise ValueError("the source gives the same embedding for every formula of the table")
    return found


def own_embedding(
    card: SourceCard, compositions: Compositions, X: Floats, descriptor: CompositionDescriptor, layer: str
) -> NDArray[np.floating[Any]]:
    """Embedding (n, d) by a source of composition modality, which may be anyone's, so that its form is checked.

    Parameters
    ----------
    card : SourceCard
        Of composition modality.
    compositions : Compositions
        n formulas.
    X : ndarray of shape (n, p)
        Their descriptors, which sources that read this very descriptor take instead of computing them anew.
    descriptor : CompositionDescriptor
        What X comes from.
    layer : str
        One of the layers of the card.

    Returns
    -------
    ndarray of shape (n, d)
        Rows of formulas that the source refuses are NaN.

    Raises
    ------
    ValueError
        If the loader or the encoder fails, or returns something else.
    """
    if layer not in card.layers:
        raise ValueError(f"it has no layer {layer!r}; it has {', '.join(card.layers)}")
    try:
        encoder = card.load()
        if isinstance(encoder, DescribedEncoder) and encoder.fingerprint == descriptor.fingerprint():
            values = np.asarray(encoder.encode_described(compositions, X, layer=layer))
        else:
            values = np.asarray(encoder.encode(compositions, layer=layer))
    except CardError:
        raise
    except (Exception, SystemExit) as error:  # a plugin may raise anything
        raise ValueError(f"its loader or encoder raises {type(error).__name__}: {error}") from error
    expected = (len(compositions), card.layers[layer])
    if values.shape != expected or values.dtype.kind != "f":
        raise ValueError(
            f"its encoder returns {values.dtype} of the shape {values.shape}; floating-point numbers of the shape "
            f"{expected} are needed, as its card says"
        )
    lost = np.isnan(values)
    partly = np.flatnonzero((lost.any(axis=1) & ~lost.all(axis=1)) | np.isinf(values).any(axis=1))
    if len(partly):
        raise ValueError(
            f"its encoder returns NaN or infinite values in {len(partly)} rows, the first for "
            f"{compositions.text[partly[0]]}; only the whole row of a formula that it refuses may be NaN"
        )
    return values
