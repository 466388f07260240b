"""Files of this package: where they are kept, how they are written whole, and what identifies them."""

from __future__ import annotations

import hashlib
import os
import platform
import uuid
from collections.abc import Sequence
from functools import lru_cache
from importlib import metadata
from pathlib import Path


def home() -> Path:
    """Folder for everything this package keeps: ``SCOTL_MATGL_HOME``, else the platform's cache folder."""
    value = os.environ.get("SCOTL_MATGL_HOME")
    if value:
        return Path(value).expanduser()
    from platformdirs import user_cache_path

    return user_cache_path("scotl_matgl")


def write_whole(path: Path, content: bytes) -> None:
    """Write a file that appears whole or not at all, also when several processes or threads write it at once.

    Parameters
    ----------
    path : path
        Folders above it are made.
    content : bytes
        If writers differ, the last one to finish wins.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    # A name of its own for each writer: with a shared one, the first to finish would publish the other's half.
    partial = path.with_name(f".{path.name}.{uuid.uuid4().hex}.partial")
    try:
        partial.write_bytes(content)
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)


def file_sha256(path: Path) -> str:
    """SHA-256 (hexadecimal) of a file, computed the first time that the process asks for it and when it has changed."""
    status = path.stat()
    return _file_sha256(path, status.st_size, status.st_mtime_ns)


@lru_cache(maxsize=4096)
def _file_sha256(path: Path, size: int, modified: int) -> str:  # noqa: ARG001 - a file that changed is hashed again
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


#: Packages whose version can change a number in a bridge.
_RECORDED = ("scotl-matgl", "numpy", "scikit-learn", "torch", "matgl", "dgl", "pymatgen", "matminer")


def installed_versions(names: Sequence[str] = _RECORDED) -> dict[str, str]:
    """Versions of the named distributions that are installed, and of Python."""
    versions = {"python": platform.python_version()}
    for name in names:
        try:
            versions[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return versions
