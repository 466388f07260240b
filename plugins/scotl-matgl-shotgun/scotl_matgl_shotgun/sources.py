"""Networks of a library as sources of the ranking engine: many on one table, read shard by shard."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any, Self

from safetensors import safe_open

from scotl_matgl.plugin import Compositions, Described, Embeddings, NetworkEncoder, SourceCard, embed_by_encoder
from scotl_matgl_shotgun.errors import LibraryError
from scotl_matgl_shotgun.records import Record

if TYPE_CHECKING:
    from scotl_matgl_shotgun.library import Library


class ShardReader:
    """The shard that was read last, kept open: the list of tensors in a shard takes longer to read than a network.

    A context manager; for one thread.
    """

    def __init__(self, library: Library) -> None:
        self.library = library
        self._stack = ExitStack()
        self._key: tuple[str, str] | None = None
        self._tensors: Any = None

    def open(self, record: Record) -> Any:
        """Handle of the shard of a network."""
        key = (record.shard, record.sha256)
        if key != self._key:
            self.close()
            shard = self.library.check_shard(record)
            self._tensors = self._stack.enter_context(safe_open(str(shard), framework="numpy"))
            self._key = key
        return self._tensors

    def close(self) -> None:
        """Close the shard that is open."""
        self._stack.close()
        self._key, self._tensors = None, None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()


class TableReader:
    """What the networks of a library share on one table: an open shard a thread, and descriptors of each kind once.

    Parameters
    ----------
    library : Library
    """

    def __init__(self, library: Library) -> None:
        self.library = library
        self._of_thread = threading.local()
        self._lock = threading.Lock()
        self._described: dict[tuple[str, str], Described | LibraryError] = {}

    def __getstate__(self) -> dict[str, Any]:
        return {"library": self.library}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__init__(state["library"])  # type: ignore[misc]

    @property
    def shards(self) -> ShardReader:
        """Reader of shards of this thread: handles of safetensors files are not for several threads."""
        if not hasattr(self._of_thread, "shards"):
            self._of_thread.shards = ShardReader(self.library)
        shards: ShardReader = self._of_thread.shards
        return shards

    def card(self, record: Record) -> SourceCard:
        """Card of a network, kept until this thread asks for another one's."""
        kept: tuple[Record, SourceCard] | None = getattr(self._of_thread, "card", None)
        if kept is None or kept[0] is not record:
            self._of_thread.card = kept = record, self.library.card(record)
        return kept[1]

    def described(self, record: Record, compositions: Compositions, known: Described | None = None) -> Described:
        """Formulas as a network reads them, computed for the first one that does.

        Parameters
        ----------
        record : Record
        compositions : Compositions
            The same for all networks.
        known : Described, optional
            The same formulas by some descriptor, which is taken if it is the one of the network.

        Raises
        ------
        LibraryError
            If the descriptor is not there, is not the one of the training, or fails.
        """
        if known is not None and record.fingerprint and record.fingerprint == known.fingerprint():
            return known
        key = (record.descriptor, record.fingerprint)
        with self._lock:
            if key not in self._described:
                try:
                    self._described[key] = self.library.describe(record, compositions)
                except LibraryError as error:
                    self._described[key] = error
        found = self._described[key]
        if isinstance(found, LibraryError):
            raise found
        return found


class LibrarySource:
    """A network of a library, as the engine searches it.

    Parameters
    ----------
    reader : TableReader
        Shared by all networks that are searched together.
    record : Record
    """

    def __init__(self, reader: TableReader, record: Record) -> None:
        self.reader = reader
        self.record = record

    @property
    def name(self) -> str:
        """Name of the network."""
        return self.record.name

    @property
    def identity(self) -> str:
        """The hash of its shard, its place in it, and what it reads."""
        record = self.record
        return f"{record.sha256[:16]} {record.prefix} {record.descriptor} {record.fingerprint[:16]}"

    @property
    def card(self) -> SourceCard:
        """Its card, made when it is asked for: of very many, most are screened and forgotten."""
        return self.reader.card(self.record)

    def embed(self, described: Described, layers: Sequence[str], look_up: object) -> Embeddings:  # noqa: ARG002
        """Embed by the network; it reads formulas, so that there is nothing to look up."""
        network = self.reader.library.network(self.record, self.reader.shards)
        own = self.reader.described(self.record, described.compositions, described)
        encoder = NetworkEncoder(self.card, network, own.descriptor, own.fingerprint())
        return embed_by_encoder(self.card, encoder, own, layers)
