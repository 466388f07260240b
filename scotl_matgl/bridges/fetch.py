"""Fetch the corpus index, which is too large for the package, and hold it against the hash that the package knows."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

from scotl_matgl.bridges.base import BridgeError
from scotl_matgl.bridges.index import expected_index, index_path, read_index_header
from scotl_matgl.exceptions import InputError
from scotl_matgl.storage import write_whole

#: Environment variable that names the address to fetch from: a URL, or the path of a file.
ADDRESS_VARIABLE = "SCOTL_MATGL_INDEX"


class FetchError(InputError):
    """The corpus index cannot be fetched, or is not the right one; the message says why and what to do."""


def fetch_index(address: str | None = None, *, sha256: str | None = None, path: str | Path | None = None) -> Path:
    """Fetch the corpus index from a URL or a file, check it, and put it where the ranking finds it.

    Parameters
    ----------
    address : str, optional
        ``http(s)://`` or ``file://`` URL, or a path. Default: what the environment variable SCOTL_MATGL_INDEX says.
    sha256 : str, optional
        Hash that the file must have. Default: that in the manifest of the shipped bridges.
    path : path, optional
        Where it is put. Default: :func:`~scotl_matgl.bridges.index.index_path`.

    Returns
    -------
    pathlib.Path
        Where it lies. A file of this hash that lies there already is not fetched again.

    Raises
    ------
    FetchError
        If no address is known, it cannot be reached, or the file is another one; what was there before stays.
    """
    target = index_path() if path is None else Path(path)
    wanted = expected_index()[0] if sha256 is None else sha256
    if target.is_file() and _hash(target.read_bytes()) == wanted:
        return target
    address = address or os.environ.get(ADDRESS_VARIABLE, "")
    remedy = (
        "With the corpus at hand, `scotl-matgl bridge build --all --structures FILE` makes it; the ranking works "
        "without it, from bridges alone"
    )
    if not address:
        raise FetchError(
            f"no address of the corpus index is known: give a URL or a path, or set {ADDRESS_VARIABLE}. {remedy}"
        )
    try:
        content = _read(address)
    except Exception as error:  # pooch, requests and the file system have each their own
        raise FetchError(f"{address} cannot be read: {error or type(error).__name__}. {remedy}") from error
    found = _hash(content)
    if found != wanted:
        raise FetchError(
            f"{address} has the sha256 {found[:12]}..., not {wanted[:12]}... as the bridges of this version expect; "
            f"it is not used. {remedy}"
        )
    write_whole(target, content)
    try:
        read_index_header(target, sha256=wanted)
    except BridgeError as error:
        target.unlink()
        raise FetchError(f"{address} is no corpus index: {error}") from error
    return target


def _read(address: str) -> bytes:
    if "://" not in address:
        return Path(address).expanduser().read_bytes()
    if address.startswith("file://"):
        from urllib.request import url2pathname

        return Path(url2pathname(address.removeprefix("file://"))).read_bytes()
    import logging
    import tempfile

    import pooch

    logger = pooch.get_logger()
    level = logger.level
    logger.setLevel(logging.WARNING)  # it would announce every download on stderr
    try:
        with tempfile.TemporaryDirectory() as folder:
            return Path(pooch.retrieve(address, known_hash=None, path=folder, progressbar=False)).read_bytes()
    finally:
        logger.setLevel(level)


def _hash(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()
