"""The zoo of published CGCNN models: their cards, found by scotl_matgl through an entry point."""

from __future__ import annotations

from importlib import resources
from pathlib import Path

from scotl_matgl.plugin import SourceCard, read_cards


def cards() -> list[SourceCard]:
    """Cards of the eight published models.

    Returns
    -------
    list of SourceCard
        Of the zoo ``"cgcnn"``. Weights are looked for only when one is loaded.

    Examples
    --------
    >>> len(cards())
    8
    """
    return read_cards(Path(str(resources.files(__name__) / "cards.json")), loaders=[f"{__name__}.encoder:load"])
