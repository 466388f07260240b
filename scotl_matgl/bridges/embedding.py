"""Embeddings of formulas by a source: estimated by its bridge, looked up, or computed by a source of compositions."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any, Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray

from scotl_matgl.bridges.base import Bridge, BridgeError
from scotl_matgl.bridges.store import ShippedBridge, find_bridge, find_look_up
from scotl_matgl.chemistry.compositions import Compositions
from scotl_matgl.chemistry.elements import SYMBOLS
from scotl_matgl.descriptors.described import Described
from scotl_matgl.encoders.contracts import DescribedEncoder
from scotl_matgl.encoders.store import EmbeddingStore
from scotl_matgl.exceptions import InputError
from scotl_matgl.sources.cards import CardError, SourceCard, all_cards, select
from scotl_matgl.vocabulary import Floats

#: How the reason begins why a source did not encode crystals, where its weights or its package are missing.
NOT_HERE = "its weights or its package are not here"

LookUpChoice = bool | Literal["auto"]


@dataclass(frozen=True, eq=False)
class Embedded:
    """Source embeddings of the formulas of a table.

    Attributes
    ----------
    values : ndarray of shape (n, d), float64
        Without NaN: rows that the source refuses hold the mean of the others.
    looked_up, refused, encoded : ndarray of shape (n,), bool
        Rows that hold the embedding of a crystal of the corpus with their formula; rows that were refused; rows that
        are crystals and were encoded by the source itself.
    """

    values: Floats
    looked_up: NDArray[np.bool_]
    refused: NDArray[np.bool_]
    encoded: NDArray[np.bool_]

    @classmethod
    def of(
        cls,
        values: NDArray[np.floating[Any]],
        looked_up: NDArray[np.bool_] | None = None,
        encoded: NDArray[np.bool_] | None = None,
    ) -> Embedded:
        """Replace rows that are not finite by the mean of the others."""
        filled = np.array(values, dtype=np.float64)
        refused = ~np.logical_and.reduce(np.isfinite(filled), axis=1)
        if refused.all():
            raise ValueError("the source refuses every formula of the table")
        filled[refused] = filled[~refused].mean(axis=0)
        none = np.zeros(len(filled), dtype=bool)
        return cls(filled, none if looked_up is None else looked_up, refused, none if encoded is None else encoded)


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
    bridge : Bridge, ShippedBridge or None
        From descriptors to the embedding; None for a source of composition modality, which is loaded when needed.
    card : SourceCard or None
        Of a source of composition modality; without it the registered card of that name is used.
    look_up : bool
        Whether formulas that are crystals of the corpus take the embedding of their crystal.
    mean : ndarray of shape (d,)
        What rows hold that the source refuses: the mean of the rows that it was fitted on.
    encodes : bool, default=False
        Whether rows that are crystals are encoded by the source itself; the bridge is for all others.
    fallback : str, default=""
        Why a source that reads crystals did not encode those of the table.
    """

    name: str
    layer: str
    weights: dict[str, str] = field(repr=False)
    elements: tuple[str, ...] = field(repr=False)
    bridge: Bridge | ShippedBridge | None = field(repr=False)
    card: SourceCard | None = field(repr=False)
    look_up: bool
    mean: Floats = field(repr=False)
    encodes: bool = False
    fallback: str = field(default="", repr=False)

    @classmethod
    def of(cls, card: SourceCard, layer: str, bridge: Bridge | None) -> SourceEmbedding:
        """Embedding that has not seen formulas yet; without a bridge the source reads formulas, or is only named."""
        return cls(
            card.name, layer, dict(card.weights), tuple(card.elements), bridge, card, look_up=False, mean=np.zeros(0)
        )

    def embed(self, described: Described) -> Floats:
        """Embedding (n, d), float64, of n formulas; rows that the source refuses hold the mean."""
        if not len(described):
            return np.empty((0, len(self.mean)))
        values, _, _ = self.embed_raw(described)
        filled = np.array(values, dtype=np.float64)
        filled[~np.logical_and.reduce(np.isfinite(filled), axis=1)] = self.mean
        return filled

    def embed_raw(self, described: Described) -> tuple[NDArray[np.floating[Any]], NDArray[np.bool_], NDArray[np.bool_]]:
        """Embedding (n, d), NaN in rows that are refused; rows (n,) that are looked up, and that are encoded."""
        values, known = self._of_formulas(described)
        encoded = np.zeros(len(described), dtype=bool)
        crystals = np.flatnonzero(described.has_crystal)
        if self.encodes and len(crystals):
            chosen = described.crystals[crystals].tolist()
            found = EmbeddingStore().encode(self._encoder, chosen, layers=(self.layer,)).embeddings[self.layer]
            finite = np.isfinite(found).all(axis=1)
            encoded[crystals[finite]] = True
            values = np.array(values)
            values[encoded] = found[finite]
        return values, known & ~encoded, encoded

    def _of_formulas(self, described: Described) -> tuple[NDArray[np.floating[Any]], NDArray[np.bool_]]:
        """Embedding of the formulas, NaN where there is none, and which rows (n,) are looked up."""
        none = np.zeros(len(described), dtype=bool)
        if self.bridge is None and self.encodes:
            return np.full((len(described), self._registered_card().layers[self.layer]), np.nan, np.float32), none
        if self.bridge is None:
            (values,) = own_embeddings(self._registered_card(), self._encoder, described, (self.layer,)).values()
            return values, none
        bridge = self._read_bridge
        if described.X.shape[1:] == (bridge.n_features_in_,):
            inputs = described.shared(bridge.input_scaling, lambda: bridge.standardised(described.X))
            values = bridge.estimated(inputs)
        else:
            values = bridge.transform(described.X)  # which says what is wrong
        # Only a card says which look-up belongs to it: it is read from the registry when it is used.
        table = find_look_up(self._registered_card(), self.layer) if self.look_up else None
        if table is None:
            return values, none
        found, known = table.find(described.compositions.keys())
        return np.where(known[:, None], found, values), known

    @property
    def needs_crystals(self) -> bool:
        """Whether rows that are formulas alone hold the mean, because the layer has no bridge."""
        return self.encodes and self.bridge is None

    @cached_property
    def _encoder(self) -> Any:
        """Encoder of the source, read once."""
        return _load(self._registered_card())

    def sharing(self, encoder: Any) -> SourceEmbedding:
        """The same, with an encoder of its card that is loaded already; None leaves it to be loaded."""
        if encoder is not None:
            self.__dict__["_encoder"] = encoder
        return self

    def __getstate__(self) -> dict[str, Any]:
        """All but the encoder, which its card reads again, and a bridge that is only named."""
        return {name: value for name, value in self.__dict__.items() if name not in ("_encoder", "_read_bridge")}

    @cached_property
    def _read_bridge(self) -> Bridge:
        """The bridge, read from its file if only that is named."""
        return self.bridge.load() if isinstance(self.bridge, ShippedBridge) else self.bridge  # type: ignore[return-value]

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
        return self._read_bridge.n_clipped(X)


#: By layer: what embeds other formulas in the same way, and the embeddings of these.
Embeddings: TypeAlias = Mapping[str, list[tuple[SourceEmbedding, Embedded]]]


def elements_outside(compositions: Compositions, known: Iterable[str]) -> list[tuple[str, ...]]:
    """Elements of each formula that are not among the known ones."""
    outside = np.ones(len(SYMBOLS), dtype=bool)
    outside[[SYMBOLS.index(symbol) for symbol in known]] = False
    found: list[tuple[str, ...]] = [()] * len(compositions)
    entries = np.flatnonzero(outside[compositions.numbers - 1])
    for row in np.unique(np.searchsorted(compositions.offsets, entries, side="right") - 1).tolist():
        found[row] = tuple(SYMBOLS[z - 1] for z in compositions[row][0].tolist() if outside[z - 1])
    return found


def with_cards(sources: Sequence[SourceEmbedding]) -> tuple[SourceEmbedding, ...]:
    """The same sources with the registered cards that they need to embed, for which the registry is read once."""
    needed = {source.name for source in sources if source.card is None and (source.bridge is None or source.look_up)}
    known = {card.name: card for card in all_cards(lambda *_: None)} if needed else {}
    return tuple(
        replace(source, card=known[source.name]) if source.name in needed & known.keys() else source
        for source in sources
    )


def embed_source(
    card: SourceCard,
    described: Described,
    *,
    layers: Sequence[str] = ("readout",),
    look_up: LookUpChoice = "auto",
    folders: Sequence[Path] | None = None,
) -> Embeddings:
    """Embed formulas by layers of a source: by its bridges, and with known crystals looked up where there are any.

    Parameters
    ----------
    card : SourceCard
        Of either modality.
    described : Described
        n formulas.
    layers : sequence of str, default=("readout",)
        Layers of the source. A source of composition modality is run once for all of them.
    look_up : bool or "auto", default="auto"
        ``"auto"`` returns both embeddings if some formulas are known crystals; True the one with look-up, where there
        is one.
    folders : sequence of path, optional
        Where bridges are looked for.

    Returns
    -------
    dict of str to list of (SourceEmbedding, Embedded)
        By layer: what embeds other formulas in the same way, and the embeddings of these. For a source of composition
        modality its own embedding. Of several layers those without a bridge are missing where bridges are needed.

    Raises
    ------
    ValueError
        If the source has no bridge to any of the layers, or refuses every formula.
    """
    if card.modality == "composition":
        return embed_by_encoder(card, _load(card), described, layers)
    found: dict[str, list[tuple[SourceEmbedding, Embedded]]] = {}
    missing: list[BridgeError] = []
    encoder, fallback = _encoder_of_crystals(card, described, layers)
    encodes = encoder is not None
    for layer in layers:
        try:
            bridge = _bridge(card, layer, described, folders, encodes)
        except BridgeError as error:
            missing.append(error)
            continue
        bridged = replace(SourceEmbedding.of(card, layer, bridge), encodes=encodes, fallback=fallback).sharing(encoder)
        options = [_fitted(bridged, *bridged.embed_raw(described))]
        if look_up and bridged.bridge is not None:
            looking = replace(bridged, look_up=True).sharing(encoder)
            raw = looking.embed_raw(described)
            if raw[1].any():
                options.append(_fitted(looking, *raw))
        found[layer] = options[-1:] if look_up is True else options
    if not found:
        raise missing[0]
    return found


def _encoder_of_crystals(card: SourceCard, described: Described, layers: Sequence[str]) -> tuple[Any, str]:
    """Encode the crystals of a table into the store, all layers in one pass.

    Returns
    -------
    encoder : Encoder or None
        None if there is no crystal, or the source cannot encode them here.
    str
        Why it cannot, or that it refuses all.
    """
    crystals = described.crystals[described.has_crystal].tolist() if len(described.crystals) else []
    if not crystals:
        return None, ""
    try:
        encoder = _load(card)
        found = EmbeddingStore().encode(encoder, crystals, layers=tuple(layers))
    except (Exception, SystemExit) as error:  # weights or packages that are missing, or whatever an encoder raises
        missing = isinstance(error.__cause__ or error, FileNotFoundError | ImportError)
        return None, f"{NOT_HERE}: {error}" if missing else str(error) or type(error).__name__
    if len(found.refused) < len(crystals):
        return encoder, ""
    return encoder, f"it refuses all {len(crystals)} crystals, the first: {next(iter(found.refused.values()))}"


def _bridge(
    card: SourceCard, layer: str, described: Described, folders: Sequence[Path] | None, encodes: bool
) -> Bridge | None:
    """Bridge to a layer; a source that encodes crystals may do without."""
    try:
        return find_bridge(card, layer, described, folders).load()
    except BridgeError:
        if not encodes:
            raise
        return None


def embed_by_encoder(card: SourceCard, encoder: Any, described: Described, layers: Sequence[str]) -> Embeddings:
    """:func:`embed_source` for a source of composition modality whose encoder is at hand."""
    own = own_embeddings(card, encoder, described, layers)
    return {layer: [_fitted(SourceEmbedding.of(card, layer, None), values)] for layer, values in own.items()}


def _fitted(
    source: SourceEmbedding,
    values: NDArray[np.floating[Any]],
    known: NDArray[np.bool_] | None = None,
    encoded: NDArray[np.bool_] | None = None,
) -> tuple[SourceEmbedding, Embedded]:
    """What embeds other formulas, with the mean of these for those that it refuses, and the embeddings of these."""
    embedded = Embedded.of(values, known, encoded)
    return replace(source, mean=embedded.values[~embedded.refused].mean(axis=0)), embedded


def varying(options: Sequence[tuple[SourceEmbedding, Embedded]]) -> list[tuple[SourceEmbedding, Embedded]]:
    """Embeddings that differ from formula to formula: from the others nothing could be learned.

    Raises
    ------
    ValueError
        If there is none.
    """
    found = [option for option in options if np.ptp(option[1].values, axis=0).max() > 0]
    if not found:
        raise ValueError("the source gives the same embedding for every formula of the table")
    return found


def _load(card: SourceCard) -> Any:
    """Encoder of a card, which may be anyone's."""
    try:
        return card.load()
    except (CardError, InputError):
        raise
    except (Exception, SystemExit) as error:  # a plugin may raise anything
        raise ValueError(f"its loader or encoder raises {type(error).__name__}: {error}") from error


def own_embeddings(
    card: SourceCard, encoder: Any, described: Described, layers: Sequence[str]
) -> dict[str, NDArray[np.floating[Any]]]:
    """Embeddings (n, d) by layers of a source of composition modality, which may be anyone's, so that they are checked.

    Parameters
    ----------
    card : SourceCard
        Of composition modality.
    encoder : CompositionEncoder
        What its loader gave.
    described : Described
        n formulas. Sources that read this very descriptor take it instead of computing it anew.
    layers : sequence of str
        Layers of the card.

    Returns
    -------
    dict of str to ndarray of shape (n, d)
        Rows of formulas that the source refuses are NaN.

    Raises
    ------
    ValueError
        If the encoder fails, or returns something else.
    """
    for layer in layers:
        if layer not in card.layers:
            raise ValueError(f"it has no layer {layer!r}; it has {', '.join(card.layers)}")
    compositions = described.compositions
    try:
        if isinstance(encoder, DescribedEncoder) and encoder.fingerprint == described.fingerprint():
            found = dict(encoder.encode_described_layers(compositions, described.X, layers=layers))
        else:
            found = {layer: encoder.encode(compositions, layer=layer) for layer in layers}
    except (CardError, InputError):
        raise
    except (Exception, SystemExit) as error:  # a plugin may raise anything
        raise ValueError(f"its loader or encoder raises {type(error).__name__}: {error}") from error
    return {layer: _checked(np.asarray(found[layer]), card.layers[layer], compositions) for layer in layers}


def _checked(values: NDArray[Any], width: int, compositions: Compositions) -> NDArray[np.floating[Any]]:
    """Raise unless values are embeddings of formulas, of which only whole rows may be NaN."""
    expected = (len(compositions), width)
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
