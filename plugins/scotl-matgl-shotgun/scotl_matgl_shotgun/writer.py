"""Write networks into a library, shard by shard, so that an interrupted run loses one shard at most."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from scotl_matgl.plugin import Network
from scotl_matgl_shotgun.errors import LibraryError
from scotl_matgl_shotgun.library import HEADER, INDEX, SCHEMA, Library
from scotl_matgl_shotgun.records import Record


class LibraryWriter:
    """Make a library, or add to one; a context manager.

    Parameters
    ----------
    path : path-like
        The folder; made if it is not there.
    licence, citation : str
        Of the networks; they stand on every card.
    made_by : mapping, optional
        How the networks are made, in JSON values. Adding to a library that was made otherwise is refused.
    shard_size : int, default=256
        Networks a shard.

    Raises
    ------
    LibraryError
        If the folder holds a library with another licence, citation or `made_by`.

    Examples
    --------
    >>> with LibraryWriter("my-library", licence="CC BY 4.0", citation="me") as writer:  # doctest: +SKIP
    ...     writer.add(record, network)
    """

    def __init__(
        self,
        path: str | Path,
        *,
        licence: str,
        citation: str,
        made_by: dict[str, Any] | None = None,
        shard_size: int = 256,
    ) -> None:
        if shard_size < 1:
            raise LibraryError(f"shard_size is {shard_size}; it must be at least 1")
        self.path = Path(path).expanduser().resolve()
        self.shard_size = shard_size
        header = {"schema": SCHEMA, "licence": licence, "citation": citation, "made_by": made_by or {}}
        self.path.mkdir(parents=True, exist_ok=True)
        if (self.path / HEADER).is_file():
            found = Library(self.path).header
            other = sorted(key for key in header | found if header.get(key) != found.get(key))
            if other:
                raise LibraryError(
                    f"{self.path} holds a library made with another {other[0]}: {found.get(other[0])!r}, now "
                    f"{header.get(other[0])!r}; use another folder, or the same settings"
                )
        else:
            _replace(self.path / HEADER, json.dumps(header, indent=1, allow_nan=False).encode())
        self._drop_partial_line()
        self._names = {record.name for record in Library(self.path)}
        self._pending: list[tuple[Record, Network]] = []

    def _drop_partial_line(self) -> None:
        """Cut the end of an index whose writing was interrupted; that network counts as never made."""
        index = self.path / INDEX
        index.touch()
        with index.open("rb+") as file:
            content = file.read()
            file.truncate(content.rfind(b"\n") + 1)

    def __len__(self) -> int:
        """Networks in the library, those that are not yet on disk included."""
        return len(self._names)

    def add(self, record: Record, network: Network) -> None:
        """Add a network; the writer fills in its shard, hash and prefix.

        Raises
        ------
        LibraryError
            If the name is there already, or record and network differ in their widths or activation.
        """
        if record.name in self._names:
            raise LibraryError(f"the library {self.path} has a network {record.name!r} already; give it another name")
        if (record.widths, record.activation) != (network.widths, network.activation):
            raise LibraryError(
                f"network {record.name!r}: the record says {record.widths}, {record.activation}; the network is "
                f"{network.widths}, {network.activation}"
            )
        self._names.add(record.name)
        self._pending.append((record, network))
        if len(self._pending) >= self.shard_size:
            self.flush()

    def flush(self) -> None:
        """Write what is pending: the shard first, so that the index never names what is not there."""
        if not self._pending:
            return
        from safetensors.numpy import save

        first = len(self._names) - len(self._pending)
        shard = f"networks-{first:07d}.safetensors"
        tensors = {}
        records = []
        for i, (record, network) in enumerate(self._pending):
            prefix = f"{first + i}"
            tensors.update(network.tensors(prefix))
            records.append(dataclasses.replace(record, shard=shard, prefix=prefix))
        content: bytes = save(tensors)
        _replace(self.path / shard, content)
        digest = hashlib.sha256(content).hexdigest()
        with (self.path / INDEX).open("a", encoding="utf-8") as file:
            file.writelines(dataclasses.replace(record, sha256=digest).to_json() + "\n" for record in records)
        self._pending.clear()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.flush()  # what is done is kept, also after an error


def _replace(path: Path, content: bytes) -> None:
    """Write a file whole or not at all."""
    temporary = path.with_name(path.name + ".part")
    temporary.write_bytes(content)
    os.replace(temporary, path)
