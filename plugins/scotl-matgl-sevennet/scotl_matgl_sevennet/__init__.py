"""The zoo of published SevenNet potentials: their cards, found by scotl_matgl through an entry point."""

from __future__ import annotations

from importlib import resources
from pathlib import Path

from scotl_matgl.plugin import SourceCard, read_cards


def cards() -> list[SourceCard]:
    """Cards of the four models that come with sevenn 0.13.0; that of two functionals is two sources.

    Returns
    -------
    list of SourceCard
        Of the zoo ``"sevennet"``. Weights are looked for only when one is loaded.

    Examples
    --------
    >>> for card in cards():
    ...     print(card.name)
    SevenNet-0-MPtrj-2024.7-PES
    SevenNet-0-MPF-2024.5-PES
    SevenNet-l3i5-MPtrj-PES
    SevenNet-MF-0-PBE-PES
    SevenNet-MF-0-r2SCAN-PES
    """
    return read_cards(Path(str(resources.files(__name__) / "cards.json")), loaders=[f"{__name__}.encoder:load"])
