"""The loader of a library's cards: a network of the library as a source."""

from __future__ import annotations

from scotl_matgl.plugin import NetworkEncoder, SourceCard
from scotl_matgl_shotgun.library import Library
from scotl_matgl_shotgun.records import Record


def load(card: SourceCard, *, path: str | None = None) -> NetworkEncoder:
    """Load the network of a card.

    Parameters
    ----------
    card : SourceCard
        Of :meth:`~scotl_matgl_shotgun.Library.card`.
    path : str, optional
        The library, if it is not where the card says.
    """
    library = Library(path or card.options["library"])
    record = Record(**card.options["record"])
    return NetworkEncoder(card, library.network(record), library.descriptor(record), record.fingerprint)
