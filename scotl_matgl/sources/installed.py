"""Sources of the user's own: their cards below the home folder, installed with their weights, listed and removed."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Mapping
from pathlib import Path

from scotl_matgl.sources.cards import CardError, SourceCard, all_cards, read_cards
from scotl_matgl.storage import home, is_missing, write_whole


def installed() -> list[SourceCard | CardError]:
    """Cards that were installed, by name; in place of a card that cannot be read, the reason."""
    found: list[SourceCard | CardError] = []
    for path in sorted((home() / "cards").glob("*.json")):
        try:
            found += read_cards(path)
        except (CardError, OSError) as error:
            if is_missing(error):
                continue
            found.append(CardError(f"{error}; correct or delete {path}"))
    return found


def weights_folder(card: SourceCard) -> Path:
    """Where files of weights are kept: together for networks of one file, in a folder of the source for more."""
    return home() / "sources" if len(card.weights) == 1 else home() / "sources" / card.name


def install(card: SourceCard, files: Mapping[str, bytes], *, replace: bool = False) -> SourceCard:
    """Keep a source: its weights first and its card last, so that what is listed is whole.

    Parameters
    ----------
    card : SourceCard
    files : mapping of str to bytes
        Content of each file of its weights.
    replace : bool, default=False
        Whether another source of this name, that was installed before, may be written over.

    Raises
    ------
    CardError
        If another source has the name, or a file is not that of the card.
    """
    for name, content in files.items():
        if (found := hashlib.sha256(content).hexdigest()) != card.weights.get(name):
            raise CardError(f"the sha256 of {name!r} is {found}, not {card.weights.get(name)} as in its card")
    path = home() / "cards" / f"{card.name}.json"
    for other in all_cards(lambda *_: None):
        if other.name.lower() != card.name.lower() or other == card:
            continue
        if other.name != card.name or not path.is_file():
            raise CardError(f"there is a source {other.name!r} in the zoo {other.zoo!r} already; give another name")
        if not replace:
            raise CardError(
                f"there is a source {card.name!r} already, with other weights or facts; give another name, replace it "
                f"(replace=True, or --replace), or remove it: `scotl-matgl zoo remove '{card.name}'`"
            )
    for name, content in files.items():
        write_whole(weights_folder(card) / name, content)
    write_whole(path, (json.dumps(card.to_dict(), indent=1, ensure_ascii=False) + "\n").encode())
    return card


def remove(name: str) -> SourceCard:
    """Delete the card and the weights of a source that was installed; what it was.

    Raises
    ------
    CardError
        If no source of this name was installed.
    """
    found = {card.name: card for card in installed() if isinstance(card, SourceCard)}
    if name not in found:
        names = ", ".join(sorted(found)) or "none"
        raise CardError(f"no source {name!r} was added, so none can be removed; added are: {names}")
    card = found[name]
    (home() / "cards" / f"{name}.json").unlink(missing_ok=True)  # first, so that nothing without weights is listed
    folder = weights_folder(card)
    if len(card.weights) == 1:
        for file in card.weights:
            (folder / file).unlink(missing_ok=True)
    elif folder.is_dir():
        shutil.rmtree(folder)
    return card
