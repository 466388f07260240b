"""The zoo of published Keras MEGNet models: their cards, found by scotl_matgl through an entry point."""

from __future__ import annotations

from importlib import resources
from pathlib import Path

from scotl_matgl.plugin import SourceCard, read_cards


def cards() -> list[SourceCard]:
    """Cards of the ten published models; the four fidelities of the band-gap model are four sources.

    Returns
    -------
    list of SourceCard
        Thirteen cards of the zoo ``"megnet"``. Weights are looked for only when one is loaded.

    Examples
    --------
    >>> len(cards())
    13
    """
    return read_cards(Path(str(resources.files(__name__) / "cards.json")), loaders=[f"{__name__}.encoder:load"])
