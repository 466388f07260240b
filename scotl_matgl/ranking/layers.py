"""Which layers of a source are tried: one that is named, the best of several, or the best of all."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, TypeAlias

from scotl_matgl.exceptions import InputError
from scotl_matgl.sources.cards import SourceCard
from scotl_matgl.vocabulary import listing

#: A layer, several of which each source takes its best, or ``"auto"`` for all that there are.
LayerChoice: TypeAlias = str | Sequence[str]

AUTO = "auto"


def chooses(layer: LayerChoice) -> bool:
    """Whether there is a choice of layers to make."""
    return layer == AUTO or not isinstance(layer, str)


def check_layer(layer: Any, cards: Iterable[SourceCard] = ()) -> None:
    """Raise unless this is a layer, ``"auto"``, or several layers.

    Parameters
    ----------
    layer : object
    cards : iterable of SourceCard, optional
        Of the sources, of which one at least must have each layer.

    Raises
    ------
    InputError
        If it is something else.
    """
    if layer == AUTO:
        return
    names = [layer] if isinstance(layer, str) else list(layer) if isinstance(layer, Sequence) else []
    if not names or not all(isinstance(name, str) and name for name in names) or AUTO in names:
        raise InputError(f"layer is {layer!r}; give the name of a layer, a list of names, or 'auto' alone")
    known = list(dict.fromkeys(name for card in cards for name in card.layers))
    for name in names:
        if known and name not in known:
            raise InputError(f"layer names {name!r}, which none of the sources has; they have {listing(known, 12)}")


def layers_of(card: SourceCard, layer: LayerChoice) -> tuple[str, ...]:
    """Layers of a source that are tried, in the order of its card; one that is named alone is tried in any case.

    Raises
    ------
    ValueError
        If the source has none of several.
    """
    if isinstance(layer, str) and layer != AUTO:
        return (layer,)
    found = tuple(name for name in card.layers if layer == AUTO or name in layer)
    if not found:
        raise ValueError(f"it has none of the layers {', '.join(layer)}; it has {', '.join(card.layers)}")
    return found
