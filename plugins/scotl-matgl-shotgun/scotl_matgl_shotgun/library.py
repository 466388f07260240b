"""A library of very many networks on disk: searched by its index alone, tensors read network by network.

A library is a folder with ``library.json`` (schema, licence, citation, and how it was made), ``index.jsonl`` (one
:class:`Record` a line) and shards, safetensors files of many networks each. Whatever its size, one record, one network
and one descriptor matrix are in memory at a time.
"""

from __future__ import annotations

import fnmatch
import json
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from safetensors import SafetensorError

from scotl_matgl import Ranking
from scotl_matgl.plugin import (
    CompositionDescriptor,
    Compositions,
    Described,
    InputError,
    Network,
    SourceCard,
    file_sha256,
    get_descriptor,
    layer_widths,
    parse_compositions,
    rank_many,
)
from scotl_matgl_shotgun.errors import LibraryError
from scotl_matgl_shotgun.records import Record
from scotl_matgl_shotgun.sources import LibrarySource, ShardReader, TableReader

INDEX, HEADER, SCHEMA = "index.jsonl", "library.json", 1

# Some descriptors find out in fit which features they have, from any formulas.
_ANY = ["NaCl", "Fe2O3"]

#: Called with the record of a network that cannot be used, and the reason.
Failed = Callable[[Record, str], None]


class Library:
    """Networks of a folder, read when they are needed.

    Parameters
    ----------
    path : path-like
        The folder.
    descriptors : mapping of str to descriptor, optional
        Descriptors that records name and that are not registered in ``scotl_matgl.descriptors``.

    Raises
    ------
    LibraryError
        If the folder is no library.

    Examples
    --------
    >>> library = Library("my-library")  # doctest: +SKIP
    >>> ranking = library.rank(formulas, y, library.query("pbe_gap*", max_error=0.6))  # doctest: +SKIP
    """

    def __init__(self, path: str | Path, descriptors: Mapping[str, Any] | None = None) -> None:
        self.path = Path(path).expanduser().resolve()
        self.descriptors = dict(descriptors or {})
        try:
            self.header: dict[str, Any] = json.loads((self.path / HEADER).read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            raise LibraryError(
                f"{self.path} is no library of networks: its {HEADER} cannot be read: {error}; train_library and "
                "LibraryWriter make one"
            ) from error
        if self.header.get("schema") != SCHEMA:
            raise LibraryError(
                f"{self.path / HEADER}: schema {self.header.get('schema')!r} is not {SCHEMA}; install a version of "
                "scotl-matgl-shotgun that understands it"
            )

    # -- index ---------------------------------------------------------------------------------------------------------

    def __iter__(self) -> Iterator[Record]:
        """Records in the order of the index; no weights are read."""
        index = self.path / INDEX
        if not index.is_file():
            raise LibraryError(f"{self.path} has no {INDEX}; a library has one")
        with index.open(encoding="utf-8") as file:
            for number, line in enumerate(file, start=1):
                try:
                    yield Record.from_json(line)
                except LibraryError as error:
                    raise LibraryError(f"{index}, line {number}: {error}; write the library again") from error

    def query(
        self,
        property: str | None = None,  # noqa: A002 - the field of the record has this name
        descriptor: str | None = None,
        dataset: str | None = None,
        max_error: float | None = None,
        limit: int | None = None,
    ) -> Iterator[Record]:
        """Records that match all that is given.

        Parameters
        ----------
        property, descriptor, dataset : str, optional
            Whole text, whatever its capitals; ``*`` stands for anything.
        max_error : float, optional
            Highest held-out error, in the record's own unit; networks of unknown error do not match.
        limit : int, optional
            At most so many.

        Yields
        ------
        Record
        """
        if limit is not None and limit < 0:
            raise LibraryError(f"limit is {limit}; it must be at least 0")
        wanted = {"property": property, "descriptor": descriptor, "dataset": dataset}
        patterns = {key: text.lower() for key, text in wanted.items() if text is not None}
        found = 0
        if limit == 0:
            return
        for record in self:
            if max_error is not None and (record.error is None or record.error > max_error):
                continue
            if all(fnmatch.fnmatchcase(getattr(record, key).lower(), text) for key, text in patterns.items()):
                yield record
                found += 1
                if found == limit:
                    return

    def card(self, record: Record) -> SourceCard:
        """Source card of a network; its loader finds this library where it now lies."""
        return SourceCard(
            name=record.name,
            zoo="shotgun",
            modality="composition",
            property=record.property,
            unit=record.unit,
            dataset=record.dataset,
            architecture=f"fully connected pyramid on {record.descriptor}",
            layers=layer_widths(record.widths),
            loader="scotl_matgl_shotgun.encoder:load",
            options={"library": str(self.path), "record": record.to_dict()},
            weights={record.shard: record.sha256},
            parameters=record.n_parameters,
            n_train=record.n_train,
            licence=self.header.get("licence", "not stated in library.json"),
            citation=self.header.get("citation", "not stated in library.json"),
            notes="One of many: chosen by cross-validated error after the fact, the best looks better than it is.",
            error=record.error,
            error_unit="" if record.error is None else record.unit,
        )

    # -- weights -------------------------------------------------------------------------------------------------------

    def network(self, record: Record, reader: ShardReader | None = None) -> Network:
        """Tensors of one network.

        Parameters
        ----------
        record : Record
        reader : ShardReader, optional
            Where many networks are read, in the order of the index: it keeps their shard open.

        Raises
        ------
        LibraryError
            If the shard is missing, is not the one of the index, or does not hold the network.
        """
        if reader is None:
            with ShardReader(self) as own:
                return self.network(record, own)
        try:
            tensors = reader.open(record)
            network = Network.from_tensors(tensors.get_tensor, record.prefix, len(record.widths) - 1, record.activation)
        except (SafetensorError, InputError) as error:
            raise LibraryError(
                f"network {record.name!r} is not in {self.path / record.shard} as its record says: {error}"
            ) from error
        if network.widths != record.widths:
            raise LibraryError(
                f"network {record.name!r}: its record says widths {record.widths}, its tensors {network.widths}; write "
                "the library again"
            )
        return network

    def check_shard(self, record: Record) -> Path:
        """Path of the shard, hashed the first time that this process reads it."""
        if Path(record.shard).name != record.shard or not record.shard:
            raise LibraryError(f"network {record.name!r}: the shard {record.shard!r} is no file name in the library")
        shard = self.path / record.shard
        try:
            found = file_sha256(shard)
        except OSError as error:
            raise LibraryError(f"network {record.name!r}: its shard cannot be read: {error}") from error
        if found != record.sha256:
            raise LibraryError(
                f"{shard} is not the file that network {record.name!r} was recorded with: its sha256 is {found}, "
                f"recorded is {record.sha256}; restore the file, or write the library again"
            )
        return shard

    # -- use -----------------------------------------------------------------------------------------------------------

    def embed(
        self,
        records: Iterable[Record],
        formulas: Any,
        *,
        layer: str = "readout",
        failed: Failed | None = None,
    ) -> Iterator[tuple[Record, NDArray[np.float32]]]:
        """Embeddings of formulas by one network after the other; descriptors are computed once.

        Parameters
        ----------
        records : iterable of Record
        formulas : iterable
            All that :func:`~scotl_matgl.parse_compositions` reads.
        layer : str, default="readout"
            See :func:`~scotl_matgl.encoders.network.layer_widths`.
        failed : callable, optional
            Called for each network that cannot be used, which is then left out; without it, the error is raised.

        Yields
        ------
        record : Record
        embedding : ndarray of float32, shape (n_formulas, width)
        """
        compositions = parse_compositions(formulas)
        table = TableReader(self)
        with ShardReader(self) as reader:
            for record in records:
                try:
                    network = self.network(record, reader)
                    layers = layer_widths(record.widths)
                    if layer not in layers:
                        raise LibraryError(f"network {record.name!r} has no layer {layer!r}, only {', '.join(layers)}")
                    embedding = network.forward(table.described(record, compositions).X)[layer]
                except InputError as error:
                    if failed is None:
                        raise
                    failed(record, str(error))
                    continue
                yield record, embedding

    def describe(self, record: Record, compositions: Compositions) -> Described:
        """Formulas by the descriptor of a network, which many others read too.

        Raises
        ------
        LibraryError
            If the descriptor is not there, is not the one of the training, or fails.
        """
        descriptor = self.descriptor(record)
        try:
            return Described.of(compositions, descriptor)
        except Exception as error:  # whatever a descriptor raises must not end the run over other networks
            raise LibraryError(
                f"network {record.name!r}: its descriptor {record.descriptor!r} fails: {type(error).__name__}: {error}"
            ) from error

    def descriptor(self, record: Record) -> CompositionDescriptor:
        """Descriptor that a network reads, fitted, once it is known to be the one of its training.

        Raises
        ------
        LibraryError
            If it is not known here, or gives other features than at the time of training.
        """
        try:
            descriptor = get_descriptor(self.descriptors.get(record.descriptor, record.descriptor)).fit(_ANY)
        except Exception as error:  # whatever a registered descriptor raises when it is made
            raise LibraryError(
                f"network {record.name!r} reads the descriptor {record.descriptor!r}, which is not there: {error}; "
                "register it, or give it to Library(descriptors=...)"
            ) from error
        if record.fingerprint:
            found = descriptor.fingerprint()
            if found != record.fingerprint:
                raise LibraryError(
                    f"the descriptor {record.descriptor!r} is not the one that network {record.name!r} was trained on: "
                    f"its fingerprint is {found}, recorded is {record.fingerprint}; use the version of that time, or "
                    "train the library again"
                )
        return descriptor

    def rank(
        self,
        formulas: Any,
        y: ArrayLike,
        records: Iterable[Record] | None = None,
        *,
        path: str | Path | None = None,
        max_measured: int = 20,
        progress: Callable[[int, int], None] | None = None,
        **settings: Any,
    ) -> Ranking:
        """Rank networks for a table, by the engine that ranks all sources.

        Every network is screened by the exact leave-one-out error (mean absolute) of ridge regression on its last
        hidden layer; the first are measured beside the descriptors and judged, as
        :class:`~scotl_matgl.TransferabilityRanker` does. The judgement counts in that the best of those measured is
        picked, not that they come first of very many: test what was chosen on rows that took no part.

        Parameters
        ----------
        formulas : sequence of length n
            Materials, all that :func:`~scotl_matgl.parse_compositions` reads; equal compositions are merged.
        y : array-like of shape (n,)
            The measured property, or class labels.
        records : iterable of Record, optional
            Networks to rank, each name once; all of the library by default.
        path : path-like, optional
            File in which the screen keeps its scores, a network a line, so that a run that was killed goes on. A file
            of another table or other settings is refused.
        max_measured : int, default=20
            Networks that are measured, two thirds of them where the best head is not kernel ridge. The others stand
            behind them, in the order of the screen (``ranking.screened``).
        progress : callable, optional
            Called with (done, total) steps; the last network is done long before the measured ones.
        **settings
            Further ones of :func:`~scotl_matgl.plugin.rank_many`: ``task``, ``head``, ``estimators``, ``layer``,
            ``n_jobs``, ``random_state``.

        Returns
        -------
        Ranking
            Sources are called by the names of the networks; ``errors`` says which failed, and why.

        Raises
        ------
        InputError
            If a name stands twice, `path` is no file of an earlier run on this table, fewer than 10 different
            compositions can be used, or there is nothing to learn.

        Notes
        -----
        About 1.6 ms of one core a network, for 500 rows. Libraries of very many networks are those of H. Yamada et al.,
        ACS Cent. Sci. 5, 1717 (2019), who measured each by a random forest, at 1 s a network.
        """
        reader = TableReader(self)
        sources = [LibrarySource(reader, record) for record in (self if records is None else records)]
        return rank_many(sources, formulas, y, path=path, max_measured=max_measured, progress=progress, **settings)
