"""Estimated embeddings of formulas by a source, from what the estimator itself holds: the bridge travels with it."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from scotl_matgl.bridges.base import Bridge
from scotl_matgl.bridges.store import find_bridge, find_look_up
from scotl_matgl.cards import CardError, SourceCard, all_cards, select
from scotl_matgl.composition import SYMBOLS, Compositions
from scotl_matgl.descriptors import CompositionDescriptor
from scotl_matgl.heads import Floats
from scotl_matgl.ranker import own_embedding

LookUp = bool | Literal["auto"]


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

    def embed(
        self, compositions: Compositions, X: Floats, descriptor: CompositionDescriptor
    ) -> tuple[Floats, NDArray[np.bool_]]:
        """Embedding (n, d), float64, and the rows (n,) that are refused and hold the mean.

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
            return np.empty((0, len(self.mean))), np.empty(0, dtype=bool)
        values, _ = self._raw(compositions, X, descriptor)
        return self._filled(values)

    def _raw(
        self, compositions: Compositions, X: Floats, descriptor: CompositionDescriptor
    ) -> tuple[NDArray[np.floating[Any]], NDArray[np.bool_]]:
        """Embedding, and which rows are looked up."""
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

    def _filled(self, values: NDArray[np.floating[Any]]) -> tuple[Floats, NDArray[np.bool_]]:
        filled = np.array(values, dtype=np.float64)
        refused = ~np.logical_and.reduce(np.isfinite(filled), axis=1)
        filled[refused] = self.mean
        return filled, refused

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
    layer: str,
    look_up: LookUp,
) -> list[tuple[SourceEmbedding, Floats, int, int]]:
    """Ways to embed formulas by a source: by its bridge, and with known crystals looked up where there are any.

    Returns
    -------
    list of (SourceEmbedding, values, looked_up, refused)
        Values of shape (n, d) and the numbers of rows looked up and refused; two ways if `look_up` is ``"auto"`` and
        some formulas are known, else one.

    Raises
    ------
    ValueError
        If the source has no bridge, refuses every formula, or gives the same values for all.
    """
    bridge = None if card.modality == "composition" else find_bridge(card, layer, descriptor).load()
    without = SourceEmbedding(
        card.name, layer, dict(card.weights), tuple(card.elements), bridge, card, look_up=False, mean=np.zeros(0)
    )
    ways = [replace(without, look_up=True)] if look_up and bridge is not None else []
    found = []
    for way in (without, *ways):
        values, known = way._raw(compositions, X, descriptor)
        if way.look_up and not known.any():
            continue
        finite = np.logical_and.reduce(np.isfinite(values), axis=1)
        if not finite.any():
            raise ValueError("the source refuses every formula of the table")
        fitted = replace(way, mean=values[finite].mean(axis=0, dtype=np.float64))
        filled, refused = fitted._filled(values)
        found.append((fitted, filled, int(known.sum()), int(refused.sum())))
    if all(np.ptp(values, axis=0).max() == 0 for _, values, _, _ in found):
        raise ValueError("the source gives the same embedding for every formula of the table")
    return found[-1:] if look_up is True else found
