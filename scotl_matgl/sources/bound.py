"""Cards that hold, for this process only, what their loader is to be given: a folder of weights, or a function."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from scotl_matgl.sources.cards import CardError, SourceCard, read_cards


@dataclass(frozen=True, kw_only=True, eq=False)
class BoundCard(SourceCard):
    """A card whose loader is given further arguments, which no file holds."""

    arguments: Mapping[str, Any] = field(default_factory=dict, repr=False)

    def load(self, **options: Any) -> Any:
        """Load the encoder, see :meth:`SourceCard.load`."""
        return super().load(**{**self.arguments, **options})

    def __reduce__(self) -> tuple[Any, ...]:
        return (bound, (self.to_dict(), dict(self.arguments)))


def bound(fields: Mapping[str, Any], arguments: Mapping[str, Any]) -> BoundCard:
    """Card of fields as :meth:`SourceCard.to_dict` gives them, with arguments of its loader."""
    plain = SourceCard.from_dict(fields)
    values = {name: getattr(plain, name) for name in SourceCard.__dataclass_fields__}
    return BoundCard(**values, arguments=arguments)


def card_of_file(path: str | Path) -> SourceCard:
    """The card of a file, bound to the weights that lie beside it if they do.

    Raises
    ------
    CardError
        If the file holds no card, or several.
    """
    path = Path(path)
    if not path.is_file():
        raise CardError(f"there is no file {path} with a card")
    cards = read_cards(path)
    if len(cards) != 1:
        raise CardError(f"{path} holds {len(cards)} cards; one is needed")
    (card,) = cards
    beside = bool(card.weights) and all((path.parent / name).is_file() for name in card.weights)
    return bound(card.to_dict(), {"path": path.parent}) if beside else card
