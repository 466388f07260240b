"""Libraries of very many small composition networks, in the manner of XenonPy.MDL, as a zoo of :mod:`scotl_matgl`."""

from __future__ import annotations

import os
from collections.abc import Iterator

from scotl_matgl.plugin import Network, SourceCard
from scotl_matgl_shotgun.errors import LibraryError, XenonPyError
from scotl_matgl_shotgun.library import Library
from scotl_matgl_shotgun.records import Record
from scotl_matgl_shotgun.training import train_library, train_network
from scotl_matgl_shotgun.writer import LibraryWriter
from scotl_matgl_shotgun.xenonpy import read_xenonpy

__all__ = [
    "Library",
    "LibraryError",
    "LibraryWriter",
    "Network",
    "Record",
    "XenonPyError",
    "cards",
    "read_xenonpy",
    "train_library",
    "train_network",
]

#: Folders of libraries, separated as those of PATH are.
VARIABLE = "SCOTL_MATGL_SHOTGUN"


def cards() -> Iterator[SourceCard]:
    """Cards of all networks of the libraries that SCOTL_MATGL_SHOTGUN names; none if it is not set.

    Raises
    ------
    LibraryError
        If one of the folders is no library.
    """
    for folder in os.environ.get(VARIABLE, "").split(os.pathsep):
        if folder:
            library = Library(folder)
            for record in library:
                yield library.card(record)
