"""Crystals in a fixed order, with a hash of their content and the records that were refused."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from functools import cached_property
from itertools import pairwise
from pathlib import Path
from typing import Any, overload

import numpy as np
from numpy.typing import NDArray

from scotl_matgl.chemistry.compositions import Compositions
from scotl_matgl.chemistry.crystal_files import read_crystals, sample_crystals
from scotl_matgl.chemistry.crystals import Crystal, Refused, as_crystal, as_list
from scotl_matgl.chemistry.formulas import format_formula
from scotl_matgl.chemistry.reading import ReadingLimits


class Corpus(Sequence[Crystal]):
    """Crystals in a fixed order, with a hash of their content and the records that were refused.

    Parameters
    ----------
    crystals : iterable
        Whatever `as_crystal` takes.
    refused : iterable of Refused
        Records of the source that are not among them.

    Attributes
    ----------
    refused : tuple of Refused
        As given.

    Examples
    --------
    >>> import numpy as np
    >>> corpus = Corpus([Crystal(4.14 * np.eye(3), [[0, 0, 0], [0.5, 0.5, 0.5]], [55, 17])])
    >>> len(corpus), corpus.compositions.text
    (1, ('ClCs',))
    """

    def __init__(self, crystals: Iterable[Any], refused: Iterable[Refused] = ()) -> None:
        self._crystals = tuple(as_crystal(crystal) for crystal in as_list(crystals))
        self.refused = tuple(refused)

    @classmethod
    def read(
        cls,
        path: str | Path,
        *,
        limits: ReadingLimits | None = None,
        sample: int | None = None,
        random_state: int = 0,
    ) -> Corpus:
        """Read all crystals of a file or folder, or a sample of them.

        Parameters
        ----------
        path : str or pathlib.Path
            See `read_crystals`.
        limits : ReadingLimits, optional
            What a file may hold; by default what the environment says.
        sample : int, optional
            Only so many crystals, drawn at random; no others are made of their records.
        random_state : int, default=0
            Seed of the draw.

        Returns
        -------
        Corpus
            What could not be read is listed in ``refused``, and what to know of the rest in ``warnings``.
        """
        crystals: list[Crystal] = []
        refused: list[Refused] = []
        if sample is None:
            records = read_crystals(path, limits=limits)
        else:
            records = iter(sample_crystals(path, sample, random_state=random_state, limits=limits))
        for record in records:
            if isinstance(record, Crystal):
                crystals.append(record)
            else:
                refused.append(record)
        return cls(crystals, refused)

    def __len__(self) -> int:
        return len(self._crystals)

    @overload
    def __getitem__(self, index: int) -> Crystal: ...
    @overload
    def __getitem__(self, index: slice) -> Corpus: ...
    def __getitem__(self, index: int | slice) -> Crystal | Corpus:
        """Crystal at a position, or the corpus of a slice (without the list of refused records)."""
        return Corpus(self._crystals[index]) if isinstance(index, slice) else self._crystals[index]

    def __repr__(self) -> str:
        return f"Corpus({len(self)} crystals, {len(self.refused)} refused)"

    @property
    def warnings(self) -> tuple[tuple[str, str], ...]:
        """What the reader noted of crystals that it read: identifier and message of each."""
        return tuple(
            (crystal.identifier, str(message))
            for crystal in self._crystals
            for message in crystal.properties.get("reader_warnings", ())
        )

    @cached_property
    def hash(self) -> str:
        """SHA-256 (hexadecimal) over the content hashes in their order."""
        digest = hashlib.sha256(b"scotl_matgl corpus 1\0")
        for crystal in self._crystals:
            digest.update(bytes.fromhex(crystal.content_hash))
        return digest.hexdigest()

    @cached_property
    def compositions(self) -> Compositions:
        """Composition of each crystal, amounts being atoms per cell and elements in order of atomic number."""
        lengths = np.array([len(crystal) for crystal in self._crystals], dtype=np.int64)
        numbers = np.concatenate([crystal.numbers for crystal in self._crystals] or [np.empty(0, np.int16)])
        owner = np.repeat(np.arange(len(self)), lengths)
        code, amounts = np.unique(owner * 128 + numbers, return_counts=True)
        elements = (code % 128).astype(np.int16)
        offsets = np.searchsorted(code, np.arange(len(self) + 1) * 128)
        return Compositions(
            text=tuple(format_formula(elements[a:b], amounts[a:b]) for a, b in pairwise(offsets)),
            numbers=elements,
            amounts=amounts.astype(np.float64),
            offsets=offsets.astype(np.int64),
            rows=np.arange(len(self), dtype=np.int64),
            skipped=(),
            n_input=len(self),
        )

    def values(self, name: str) -> NDArray[np.float64]:
        """Property `name` of each crystal.

        Parameters
        ----------
        name : str
            Name in the crystals' properties.

        Returns
        -------
        ndarray of float64, shape (n,)
            In the property's own unit; NaN where it is not known or is no number.
        """
        found = (crystal.properties.get(name) for crystal in self._crystals)
        return np.array(
            [float(v) if isinstance(v, int | float | np.number) else np.nan for v in found], dtype=np.float64
        )

    def one_per_formula(self) -> Corpus:
        """Keep one crystal per composition: the lowest ``formation_energy_eV_atom`` where known, else the first.

        Returns
        -------
        Corpus
            In the order of this corpus, with the same list of refused records.
        """
        energies = self.values("formation_energy_eV_atom")
        energies[~np.isfinite(energies)] = np.inf
        chosen: dict[str, int] = {}
        for i, key in enumerate(self.compositions.keys()):
            if energies[i] < energies[chosen.setdefault(key, i)]:
                chosen[key] = i
        return Corpus((self._crystals[i] for i in sorted(chosen.values())), self.refused)
