"""The zoo of published CHGNet potentials: their cards, found by scotl_matgl through an entry point."""

from __future__ import annotations

from importlib import resources
from pathlib import Path

from scotl_matgl.plugin import SourceCard, read_cards


def cards() -> list[SourceCard]:
    """Cards of the three models that come with chgnet 0.4.2.

    Returns
    -------
    list of SourceCard
        Of the zoo ``"chgnet"``. Weights are looked for only when one is loaded.

    Examples
    --------
    >>> [card.name for card in cards()]
    ['CHGNet-MPtrj-0.3.0-PES', 'CHGNet-MPtrj-0.2.0-PES', 'CHGNet-r2SCAN-PES']
    """
    return read_cards(Path(str(resources.files(__name__) / "cards.json")), loaders=[f"{__name__}.encoder:load"])
