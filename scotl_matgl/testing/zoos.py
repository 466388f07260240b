"""Conformance of zoos and their cards."""

from __future__ import annotations

import inspect
import json
from collections import Counter
from collections.abc import Callable, Iterable

from scotl_matgl.encoders.probes import reference_crystals
from scotl_matgl.sources.cards import SourceCard
from scotl_matgl.testing.samples import require, require_pickle

_PLACEHOLDERS = {"", "-", "?", "n/a", "na", "none", "null", "tba", "tbd", "todo", "unknown", "xxx"}


def check_zoo(cards: Iterable[SourceCard] | Callable[[], Iterable[SourceCard]]) -> None:
    """Check the cards of a zoo: each by itself with :func:`check_card`, and their names against each other.

    Parameters
    ----------
    cards : iterable of SourceCard, or callable that returns one
        The callable is what the entry point in ``scotl_matgl.zoos`` names.

    Raises
    ------
    AssertionError
        At the first rule that is broken.

    Examples
    --------
    >>> from scotl_matgl.sources.zoo import matgl
    >>> check_zoo(matgl)
    """
    if callable(cards):
        try:
            cards = list(cards())
        except Exception as error:
            raise AssertionError(f"the zoo cannot list its cards: {type(error).__name__}: {error}") from error
    listed = list(cards)
    require(listed, "the zoo lists no card; it must list at least one")
    for card in listed:
        check_card(card)
    # Names become names of files, some of which lie on disks that ignore capitals.
    names = Counter(card.name.lower() for card in listed)
    twice = [card.name for card in listed if names[card.name.lower()] > 1]
    require(
        not twice, f"the names {', '.join(twice)} are the same but for capitals at most; every source needs its own"
    )


def check_card(card: SourceCard) -> None:
    """Check one card: schema and JSON form, names, licence, citation, weights, probes, elements, loader.

    Parameters
    ----------
    card : SourceCard
        The model itself is not loaded; ``check_encoder(card.load())`` does that.

    Raises
    ------
    AssertionError
        At the first rule that is broken.
    """
    require(isinstance(card, SourceCard), f"{card!r} is no SourceCard; a zoo lists SourceCards")
    who = f"card {card.name!r}"
    _check_schema(card, who)
    for key in ("property", "unit", "dataset", "architecture", "licence", "citation"):
        value = getattr(card, key)
        require(
            value.strip().lower().rstrip(".!?:") not in _PLACEHOLDERS,
            f"{who}: {key} is {value!r}; it must say what is known (for a licence also that none is stated, and where)",
        )
    _check_weights(card, who)
    _check_facts(card, who)
    _check_loader(card, who)


def _check_schema(card: SourceCard, who: str) -> None:
    try:
        # Reading the JSON form validates every field again: names, widths, hashes, elements, numbers.
        again = SourceCard.from_dict(json.loads(json.dumps(card.to_dict(), allow_nan=False)))
    except (TypeError, ValueError) as error:
        raise AssertionError(f"{who} has no JSON form that follows the schema: {error}") from error
    require(again == card, f"{who} is another after writing it as JSON; use texts as keys, and lists, not tuples")
    require(require_pickle(card, who) == card, f"{who} is another after pickling; it must be the same")


def _check_weights(card: SourceCard, who: str) -> None:
    require(
        card.weights or card.modality == "composition",
        f"{who}: no sha256 of its weights; a structure source must name them, as its bridges fit these weights only",
    )


def _check_facts(card: SourceCard, who: str) -> None:
    require(len(set(card.elements)) == len(card.elements), f"{who}: an element stands twice among its elements")
    if card.probes:
        strange = sorted(set(card.probes) - set(reference_crystals()))
        require(
            not strange,
            f"{who}: there are no reference crystals {strange}; probes are given on {', '.join(reference_crystals())}",
        )
        require("final" in card.layers, f"{who}: probes are values of the layer 'final', which it does not have")
    if card.error is not None:
        require(
            card.error >= 0 and card.error_unit.strip(),
            f"{who}: error is {card.error!r} with the unit {card.error_unit!r}; it must be ≥ 0 and have its error_unit",
        )


def _check_loader(card: SourceCard, who: str) -> None:
    try:
        loader = card.loader_function()
    except Exception as error:
        raise AssertionError(f"{who}: its loader {card.loader!r} cannot be imported: {error}") from error
    require(callable(loader), f"{who}: its loader {card.loader!r} is {loader!r}; it must be a function of the card")
    try:
        inspect.signature(loader).bind(card)
    except TypeError as error:
        raise AssertionError(
            f"{who}: its loader {card.loader!r} cannot be called with the card alone: {error}; other arguments need "
            "default values"
        ) from error
