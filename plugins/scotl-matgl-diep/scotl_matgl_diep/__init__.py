"""The zoo of the published DIEP potential: its card, found by scotl_matgl through an entry point."""

from __future__ import annotations

from importlib import resources
from pathlib import Path

from scotl_matgl.plugin import SourceCard, read_cards


def cards() -> list[SourceCard]:
    """Card of the model that comes with diep 2.0.0.

    Returns
    -------
    list of SourceCard
        Of the zoo ``"diep"``. Weights are looked for only when it is loaded.

    Examples
    --------
    >>> [card.name for card in cards()]
    ['DIEP-MatPES-r2SCAN-PES']
    """
    return read_cards(Path(str(resources.files(__name__) / "cards.json")), loaders=[f"{__name__}.encoder:load"])
