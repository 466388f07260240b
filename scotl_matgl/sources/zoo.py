"""The zoos that come with the package. They are registered as entry points, like everyone else's."""

from __future__ import annotations

from importlib import resources
from pathlib import Path

from scotl_matgl import registry
from scotl_matgl.sources.cards import CardError, SourceCard, read_cards
from scotl_matgl.sources.installed import installed

#: Zoos whose encoders are distributions of their own (``plugins/``): with the bridges shipped here they are rankable
#: without these, so their cards are listed here too.
PLUGIN_ZOOS = ("cgcnn", "megnet")

# Their loaders, which no other card of a file may name.
_PLUGIN_LOADERS = tuple(f"scotl_matgl_{zoo}.encoder:load" for zoo in PLUGIN_ZOOS)


def card_folder() -> Path:
    """Folder of the cards that come with the package."""
    return Path(str(resources.files("scotl_matgl") / "data" / "cards"))


def matgl() -> list[SourceCard]:
    """Cards of MatGL's published models; the four fidelities of its band-gap model are four sources."""
    return read_cards(card_folder() / "matgl.json")


def published() -> list[SourceCard]:
    """Cards of the zoos :data:`PLUGIN_ZOOS`, but of those that an installed distribution lists itself.

    Their bridges are shipped. To encode crystals by them, or to fit other bridges, install their distributions
    (``scotl-matgl-megnet``, ``scotl-matgl-cgcnn``).
    """
    listed = registry.names("zoos")
    return [
        card
        for zoo in PLUGIN_ZOOS
        if zoo not in listed
        for card in read_cards(card_folder() / f"{zoo}.json", loaders=_PLUGIN_LOADERS)
    ]


def own() -> list[SourceCard | CardError]:
    """Cards of the source models that this project trained, every file of ``data/cards/own``, and of the user's own."""
    ours = [card for path in sorted((card_folder() / "own").glob("*.json")) for card in read_cards(path)]
    return [*ours, *installed()]
