"""What lies in the package's own folder: listed, held against its hashes, and cut down to a size."""

from __future__ import annotations

import contextlib
import os
from dataclasses import dataclass
from pathlib import Path

from scotl_matgl import storage
from scotl_matgl.bridges.base import BRIDGE_FILE
from scotl_matgl.bridges.index import INDEX_FILE, expected_index, index_path
from scotl_matgl.bridges.lookup import LOOK_UP_FILE
from scotl_matgl.encoders.composition import NETWORKS_FILE
from scotl_matgl.encoders.store import EMBEDDINGS_FILE
from scotl_matgl.exceptions import StoredFileError
from scotl_matgl.sources.cards import all_cards
from scotl_matgl.storage import TensorKind, file_sha256, home, read_header, sweep

# Folder below home to the name and kind of its files.
_FOLDERS: dict[str, TensorKind] = {
    "embeddings": EMBEDDINGS_FILE,
    "lookup": LOOK_UP_FILE,
    "bridges": BRIDGE_FILE,
    "sources": NETWORKS_FILE,
}

# What the next run makes again by itself, or by the command that made it.
_DISPOSABLE = ("embeddings", "lookup")


@dataclass(frozen=True)
class CachedFile:
    """A file in the package's own folder.

    Attributes
    ----------
    path : path
    kind : str
        ``"embeddings"``, ``"lookup"``, ``"bridges"``, ``"sources"``, ``"index"`` or ``"unfinished"``.
    size : int
        Bytes.
    used : float
        When it was last read or written, in seconds since 1970.
    """

    path: Path
    kind: str
    size: int
    used: float


def list_cache() -> list[CachedFile]:
    """All files in the package's own folder, those that are not ours left out."""
    found: list[CachedFile] = []

    def add(path: Path, kind: str) -> None:
        with contextlib.suppress(OSError):  # another run may have deleted it just now
            status = path.lstat()
            found.append(CachedFile(path, kind, status.st_size, max(status.st_atime, status.st_mtime)))

    for folder, _, names in os.walk(home()):
        where = Path(folder)
        parts = where.relative_to(home()).parts
        for name in sorted(names):
            if name.endswith(".partial"):
                add(where / name, "unfinished")
            elif where / name == index_path():
                add(where / name, "index")
            elif parts and parts[0] in _FOLDERS and name.endswith(".safetensors"):
                add(where / name, parts[0])
    return sorted(found, key=lambda file: file.kind)


def damage_of(file: CachedFile) -> str:
    """Why a file cannot be used; empty if it can, or has been deleted since it was listed."""
    if file.kind == "unfinished":
        return ""
    try:
        if file.kind == "index":
            read_header(file.path, INDEX_FILE, sha256=expected_index()[0])
        elif file.kind == "sources" and not storage.is_sealed(file.path):
            read_header(file.path, NETWORKS_FILE, sha256=_hash_in_cards(file) or file_sha256(file.path))
        else:
            read_header(file.path, _FOLDERS[file.kind])
    except StoredFileError as error:
        return "" if storage.is_missing(error) else str(error)
    except FileNotFoundError:
        return ""
    except OSError as error:
        return f"{file.path} cannot be read: {error.strerror or error}"
    return ""


def is_unknown(file: CachedFile) -> bool:
    """Whether nothing says what a file must be: networks written before files carried a hash, whose card is not listed.

    They can be used: their card, wherever it is kept, has their sha256, which is compared then.
    """
    return file.kind == "sources" and not storage.is_sealed(file.path) and not _hash_in_cards(file)


def _hash_in_cards(file: CachedFile) -> str:
    """The sha256 that a listed card has of a file of that name; empty if there is none."""
    known = (card.weights.get(file.path.name, "") for card in all_cards(lambda *_: None))
    return next(filter(None, known), "")


def prune(limit: int) -> list[CachedFile]:
    """Delete what killed runs left, and embeddings and look-ups, the least recently used first.

    Parameters
    ----------
    limit : int
        Bytes of embeddings and look-ups that may stay.

    Returns
    -------
    list of CachedFile
        What was deleted.
    """
    found = list_cache()
    gone = {path for folder in {file.path.parent for file in found} for path in sweep(folder)}
    deleted = [file for file in found if file.path in gone]
    disposable = sorted((file for file in found if file.kind in _DISPOSABLE), key=lambda file: file.used)
    size = sum(file.size for file in disposable)
    for file in disposable:
        if size <= limit:
            break
        file.path.unlink(missing_ok=True)
        deleted.append(file)
        size -= file.size
    return deleted
