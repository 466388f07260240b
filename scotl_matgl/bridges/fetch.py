"""Fetch the corpus index, which is too large for the package, and hold it against the hash that the package knows."""

from __future__ import annotations

import contextlib
import hashlib
import os
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from scotl_matgl.bridges.base import BridgeError
from scotl_matgl.bridges.index import expected_index, index_path, read_index_header
from scotl_matgl.exceptions import InputError
from scotl_matgl.storage import file_sha256, lock_file

#: Environment variable that names the address to fetch from: a URL, or the path of a file.
ADDRESS_VARIABLE = "SCOTL_MATGL_INDEX"

#: Bytes of an index of which the manifest does not tell the size.
MAX_BYTES = 2 * 10**9

# Seconds to wait for a server that says nothing.
_PATIENCE = 30.0

_BLOCK = 2**18


class FetchError(InputError):
    """The corpus index cannot be fetched, or is not the right one; the message says why and what to do."""


def fetch_index(
    address: str | None = None,
    *,
    sha256: str | None = None,
    path: str | Path | None = None,
    max_bytes: int | None = None,
    seconds: float = 3600.0,
) -> Path:
    """Fetch the corpus index from a URL or a file, check it, and put it where the ranking finds it.

    Parameters
    ----------
    address : str, optional
        ``http(s)://`` or ``file://`` URL, or a path. Default: what the environment variable SCOTL_MATGL_INDEX says.
    sha256 : str, optional
        Hash that the file must have. Default: that in the manifest of the shipped bridges.
    path : path, optional
        Where it is put. Default: :func:`~scotl_matgl.bridges.index.index_path`.
    max_bytes : int, optional
        A file of more is not fetched. Default: the size in the manifest; with a `sha256`, :data:`MAX_BYTES`.
    seconds : float, default=3600
        Time that the fetch may take.

    Returns
    -------
    pathlib.Path
        Where it lies. A file of this hash that lies there already is not fetched again.

    Raises
    ------
    FetchError
        If no address is known, it cannot be reached, takes too long, is too large, or the file is another one; what
        was there before stays.

    Notes
    -----
    What was fetched before an interruption is kept beside `path`, and the next fetch of the same hash goes on there.
    """
    target = index_path() if path is None else Path(path)
    known, size = expected_index()
    wanted = known if sha256 is None else sha256
    limit = max_bytes if max_bytes is not None else size if wanted == known else MAX_BYTES
    if target.is_file() and file_sha256(target) == wanted:
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
        target.parent.mkdir(parents=True, exist_ok=True)
        with _part_of(target, wanted) as (part, file):
            _fetch(address, file, limit, time.monotonic() + seconds)
            _finish(address, part, file, target, wanted, remedy)
    except FetchError:
        raise
    except Exception as error:  # servers and file systems have each their own
        raise FetchError(f"{address} cannot be read: {error or type(error).__name__}. {remedy}") from error
    return target


@contextlib.contextmanager
def _part_of(target: Path, wanted: str) -> Iterator[tuple[Path, Any]]:
    """The file beside the target that grows while it is fetched, locked against another fetch of the same."""
    part = target.with_name(f".{target.name[:40]}.{wanted[:16]}.part")
    descriptor = os.open(part, os.O_RDWR | os.O_CREAT | getattr(os, "O_NOFOLLOW", 0), 0o666)
    with os.fdopen(descriptor, "r+b") as file:
        if not lock_file(file, wait=False):
            raise FetchError(f"another process is fetching {target}; wait for it")
        try:
            yield part, file
        finally:
            if os.fstat(file.fileno()).st_size == 0:
                part.unlink(missing_ok=True)


def _fetch(address: str, file: Any, limit: int, deadline: float) -> None:
    """Append what an address has beyond what the file has already."""
    start = file.seek(0, os.SEEK_END)
    if start > limit:
        start = file.truncate(0)
    with _open(address, start) as (source, resumes):
        if not resumes:
            file.truncate(0)
            start = 0
        file.seek(start)
        total = start
        while block := source.read(_BLOCK):
            total += len(block)
            if total > limit:
                file.truncate(0)
                raise FetchError(f"{address} has more than the {limit} bytes that the corpus index has; it is not used")
            if time.monotonic() > deadline:
                raise FetchError(
                    f"{address} takes too long: {total / 1e6:.1f} MB so far; run `scotl-matgl data fetch` again, which "
                    "goes on from there, or give it more time"
                )
            file.write(block)
        file.flush()
        announced = source.headers.get("Content-Length") if hasattr(source, "headers") else None
        if announced is not None and total - start < int(announced):
            raise FetchError(
                f"{address} ended after {total / 1e6:.1f} MB of {(start + int(announced)) / 1e6:.1f}; run "
                "`scotl-matgl data fetch` again, which goes on from there"
            )


@contextlib.contextmanager
def _open(address: str, start: int) -> Iterator[tuple[Any, bool]]:
    """What an address holds from byte `start` on, and whether it begins there; otherwise it begins at 0."""
    if "://" not in address or address.startswith("file://"):
        from urllib.request import url2pathname

        path = Path(url2pathname(address.removeprefix("file://")) if "://" in address else address).expanduser()
        with path.open("rb") as source:
            yield source, False
        return
    if not address.startswith(("http://", "https://")):
        raise FetchError(f"{address} is neither a path nor an address of http, https or file")
    headers = {"Range": f"bytes={start}-"} if start else {}
    request = urllib.request.Request(address, headers=headers)  # noqa: S310 - the protocol is checked above
    try:
        answer = urllib.request.urlopen(request, timeout=_PATIENCE)  # noqa: S310
    except urllib.error.HTTPError as error:
        if not (start and error.code == 416):  # the file is there in full: its hash tells
            raise
        error.close()
        yield _Nothing(), True
        return
    with answer:
        yield answer, answer.status == 206


class _Nothing:
    """A source that has been read to its end."""

    def read(self, _size: int) -> bytes:
        return b""


def _finish(address: str, part: Path, file: Any, target: Path, wanted: str, remedy: str) -> None:
    """Put the fetched file in its place if it is the right one; else delete it."""
    file.seek(0)
    found = hashlib.file_digest(file, "sha256").hexdigest()
    if found != wanted:
        part.unlink()
        raise FetchError(
            f"{address} has the sha256 {found[:12]}..., not {wanted[:12]}... as the bridges of this version expect; "
            f"it is not used. {remedy}"
        )
    try:
        read_index_header(part, sha256=wanted)
    except BridgeError as error:
        part.unlink()
        raise FetchError(f"{address} is no corpus index: {error}") from error
    part.replace(target)
