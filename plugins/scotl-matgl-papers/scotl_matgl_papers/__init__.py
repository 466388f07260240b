"""The source models released with two papers, SCOTL and CroMEL, as zoos of :mod:`scotl_matgl`."""

from __future__ import annotations

from importlib import resources
from pathlib import Path

from scotl_matgl.plugin import SourceCard, read_cards

__all__ = ["cromel", "random_control", "scotl"]


def scotl() -> list[SourceCard]:
    """Cards of the 24 source models released with SCOTL."""
    return _read("scotl")


def cromel() -> list[SourceCard]:
    """Cards of the 4 source models released with CroMEL."""
    return _read("cromel")


def random_control(seed: int = 0) -> SourceCard:
    """Card of a source that was never trained: SCOTL's composition branch with random weights.

    A source that is no better than this one transfers nothing but its descriptors and its width. It is no member of
    the zoo, so that it never wins a ranking unasked.

    Parameters
    ----------
    seed : int, default=0
        Of the weights.

    Examples
    --------
    >>> random_control(3).name
    'SCOTL-random-3'
    """
    return SourceCard(
        name=f"SCOTL-random-{seed}",
        zoo="scotl",
        modality="composition",
        property="none (control)",
        unit="1",
        dataset="none (random weights)",
        architecture="SCOTL composition branch",
        layers={"readout": 128, "hidden": 128},
        loader="scotl_matgl_papers.scotl_models:load_random",
        options={"seed": seed},
        parameters=60 * 128 + 128 + 128 * 128 + 128,
        licence="BSD-3-Clause (nothing is downloaded)",
        citation="scotl-matgl-papers; the architecture is SCOTL's",
        notes="Control: never trained.",
    )


def _read(zoo: str) -> list[SourceCard]:
    file = Path(str(resources.files(__name__) / "data" / f"{zoo}.json"))
    return read_cards(file, loaders=[f"{__name__}.{zoo}_models:load"])
