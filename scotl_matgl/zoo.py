"""The built-in zoo: the published models of MatGL. It is registered as an entry point, like everyone else's."""

from __future__ import annotations

from importlib import resources
from pathlib import Path

from scotl_matgl.cards import SourceCard, read_cards


def matgl() -> list[SourceCard]:
    """Cards of MatGL's published models; the four fidelities of its band-gap model are four sources."""
    return read_cards(Path(str(resources.files("scotl_matgl") / "data" / "cards" / "matgl.json")))
