"""Which formulas the project's own sources were trained on: small hashes of them, for counting those of a table."""

from __future__ import annotations

import functools
import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib import resources
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from scotl_matgl.exceptions import StoredFileError
from scotl_matgl.sources.cards import SourceCard
from scotl_matgl.storage import TensorKind, read_tensors, write_tensors

SEEN_FILE = TensorKind("list of training formulas", 1, {"sets": [str]}, "reinstall scotl-matgl")

_HASH_BYTES = 4


def hash_formulas(keys: Sequence[str]) -> NDArray[np.uint32]:
    """32-bit hashes of composition keys: a new formula is taken for one of 70,000 known ones once in 60,000 times."""
    digests = b"".join(hashlib.blake2b(key.encode(), digest_size=_HASH_BYTES).digest() for key in keys)
    return np.frombuffer(digests, dtype="<u4").astype(np.uint32)


@dataclass(frozen=True, eq=False)
class TrainingFormulas:
    """Formulas of some sets, each set being what one property is known of and was learned from.

    Attributes
    ----------
    sets : tuple of str
        Names of the k sets, which cards name in ``training_sets``.
    hashes : ndarray of shape (m,), uint32
        Sorted hashes of the formulas.
    patterns : ndarray of shape (p, k), bool
        Which sets a formula may be in, each combination once.
    pattern : ndarray of shape (m,), uint16
        Row of `patterns` of each formula.

    Examples
    --------
    >>> known = TrainingFormulas.of({"gaps": ["Cl5000Na5000"], "moduli": ["Mg5000O5000"]})
    >>> known.members(["Mg5000O5000", "Cl5000Na5000", "Si10000"]).tolist()
    [[False, True], [True, False], [False, False]]
    """

    sets: tuple[str, ...]
    hashes: NDArray[np.uint32]
    patterns: NDArray[np.bool_]
    pattern: NDArray[np.uint16]

    @classmethod
    def of(cls, keys: Mapping[str, Sequence[str]]) -> TrainingFormulas:
        """From the composition keys of each set."""
        hashed = {name: np.unique(hash_formulas(list(members))) for name, members in keys.items()}
        hashes = np.unique(np.concatenate([*hashed.values(), np.empty(0, np.uint32)]))
        inside = np.column_stack([np.isin(hashes, members) for members in hashed.values()])
        patterns, pattern = np.unique(inside, axis=0, return_inverse=True)
        return cls(tuple(hashed), hashes, patterns, pattern.reshape(-1).astype(np.uint16))

    def members(self, keys: Sequence[str]) -> NDArray[np.bool_]:
        """Which of n formulas, by their composition keys, are in which of the k sets, shape (n, k)."""
        found = np.zeros((len(keys), len(self.sets)), dtype=bool)
        if len(self.hashes) and len(keys):
            wanted = hash_formulas(keys)
            at = np.minimum(np.searchsorted(self.hashes, wanted), len(self.hashes) - 1)
            known = self.hashes[at] == wanted
            found[known] = self.patterns[self.pattern[at[known]]]
        return found

    def save(self, path: Path) -> None:
        """Write one safetensors file, whole or not at all."""
        tensors = {
            "hashes": self.hashes,
            "patterns": np.packbits(self.patterns, axis=1),
            "pattern": self.pattern,
        }
        write_tensors(path, tensors, SEEN_FILE, {"sets": list(self.sets)})

    @classmethod
    def load(cls, path: Path) -> TrainingFormulas:
        """Read what :meth:`save` wrote.

        Raises
        ------
        StoredFileError
            If the file is no such list, or damaged.
        """
        header, tensors = read_tensors(path, SEEN_FILE, ("hashes", "patterns", "pattern"))
        sets, hashes, packed, pattern = (
            tuple(header["sets"]),
            *(tensors[key] for key in ("hashes", "patterns", "pattern")),
        )
        fits = (
            packed.ndim == 2
            and packed.shape[1] == -(-len(sets) // 8)
            and hashes.shape == pattern.shape
            and (not len(pattern) or pattern.max() < len(packed))
            and (hashes[1:] > hashes[:-1]).all()
        )
        if not fits:
            raise StoredFileError(f"{path} holds tensors that do not fit together; {SEEN_FILE.remedy}")
        return cls(sets, hashes, np.unpackbits(packed, axis=1, count=len(sets)).astype(bool), pattern)


@functools.cache
def training_formulas() -> TrainingFormulas:
    """Those that come with the package."""
    return TrainingFormulas.load(Path(str(resources.files("scotl_matgl") / "data" / "sources" / "seen.safetensors")))


def count_seen(card: SourceCard, members: NDArray[np.bool_]) -> int | None:
    """How many formulas of a table the source of a card was trained on; None where that is not known.

    Parameters
    ----------
    card : SourceCard
    members : ndarray of shape (n, k)
        Of :func:`training_formulas`, for the formulas of the table.
    """
    columns = [training_formulas().sets.index(name) for name in card.training_sets]
    return int(members[:, columns].any(axis=1).sum()) if columns else None
