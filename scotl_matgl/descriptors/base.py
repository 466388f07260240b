"""What a composition descriptor is, and what all of them share."""

from __future__ import annotations

import hashlib
from abc import abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Self, cast

import numpy as np
from numpy.typing import NDArray
from sklearn.base import BaseEstimator, TransformerMixin

from scotl_matgl.chemistry.compositions import Compositions, parse_compositions
from scotl_matgl.chemistry.elements import SYMBOLS
from scotl_matgl.descriptors.element_tables import ElementTable
from scotl_matgl.vocabulary import Floats

# Array entries that one vectorised step may hold (16 MB): wide tables are worked through in slices of the rows.
MAX_ENTRIES = 2_000_000


MATMINER_CITATION = (
    "L. Ward, A. Dunn, A. Faghaninia et al., Matminer: An open source toolkit for materials data mining, "
    "Comput. Mater. Sci. 152, 60-69 (2018), doi:10.1016/j.commatsci.2018.05.018"
)


MAGPIE_CITATION = (
    "L. Ward, A. Agrawal, A. Choudhary, C. Wolverton, A general-purpose machine learning framework for predicting "
    "properties of inorganic materials, npj Comput. Mater. 2, 16028 (2016), doi:10.1038/npjcompumats.2016.28"
)


PYMATGEN_CITATION = (
    "S. P. Ong, W. D. Richards, A. Jain et al., Python Materials Genomics (pymatgen): A robust, open-source python "
    "library for materials analysis, Comput. Mater. Sci. 68, 314-319 (2013), doi:10.1016/j.commatsci.2012.10.028"
)


@dataclass(frozen=True, eq=False)
class UsedTable:
    """Part of an element table that a descriptor looks up with or without imputation."""

    table: ElementTable
    impute_nan: bool

    @property
    def values(self) -> Floats:
        """Table (118, p) as it is looked up."""
        return self.table.values(self.impute_nan)


class CompositionDescriptor(TransformerMixin, BaseEstimator):  # type: ignore[misc]  # scikit-learn has no types
    """Base of all descriptors: a scikit-learn transformer from formulas to an array of float64.

    A subclass gives `_feature_names`, `_describe` and `citations`; where it looks values up in element tables also
    `_tables`, from which `coverage`, `imputed_elements` and `fingerprint` follow. Unless it overrides `fit`, it learns
    nothing and `transform` works without `fit`.
    """

    def fit(self, formulas: Any, y: Any = None) -> Self:  # noqa: ARG002  (scikit-learn's signature)
        """Learn nothing: the features depend on the formula alone.

        Parameters
        ----------
        formulas : Compositions, iterable, pandas Series or table of one column
            Not looked at; `transform` reports formulas that cannot be read.
        y : ignored

        Returns
        -------
        self
        """
        return self

    def transform(self, formulas: Any) -> Floats:
        """Compute the features.

        Parameters
        ----------
        formulas : Compositions, iterable, pandas Series or table of one column
            All that `scotl_matgl.parse_compositions` reads. To leave out rows that cannot be read, parse
            them with ``on_error="skip"`` and pass the result.

        Returns
        -------
        ndarray of float64, shape (n, p)
            Or a data frame after ``set_output(transform="pandas")``.

        Raises
        ------
        scotl_matgl.chemistry.formulas.CompositionError
            If a formula cannot be read; the message names the row.
        """
        return self._describe(parse_compositions(formulas))

    def get_feature_names_out(self, input_features: Any = None) -> NDArray[np.object_]:  # noqa: ARG002  (scikit-learn's signature)
        """Names of the features.

        Parameters
        ----------
        input_features : ignored
            The name of the column of formulas has no bearing on them.

        Returns
        -------
        ndarray of object, shape (p,)
        """
        return np.array(self._feature_names(), dtype=object)

    @abstractmethod
    def _feature_names(self) -> list[str]:
        """Return the p names."""

    @abstractmethod
    def _describe(self, compositions: Compositions) -> Floats:
        """Compute the features, shape (n, p)."""

    @abstractmethod
    def citations(self) -> list[str]:
        """Return short references to what the features are and where their values come from."""

    def _tables(self) -> list[UsedTable]:
        """Return the element tables that are looked up."""
        return []

    def _fingerprint_parts(self) -> Iterator[bytes]:
        """Yield everything but the names that the features depend on."""
        for used in self._tables():
            yield "\n".join(used.table.properties).encode()
            yield np.ascontiguousarray(used.values, dtype="<f8").tobytes()

    def fingerprint(self) -> str:
        """Identify the features: equal fingerprints mean the same columns from the same element tables.

        Returns
        -------
        str
            SHA-256 over names and tables, 64 hexadecimal digits, the same in every process and on every machine.
        """
        digest = hashlib.sha256(type(self).__name__.encode())
        for part in ("\n".join(self._feature_names()).encode(), *self._fingerprint_parts()):
            digest.update(len(part).to_bytes(8, "little"))
            digest.update(part)
        return digest.hexdigest()

    def coverage(self, formulas: Any) -> Floats:
        """Share of the element data behind each row that the tables know.

        Parameters
        ----------
        formulas : Compositions, iterable, pandas Series or table of one column
            As for `transform`.

        Returns
        -------
        ndarray of float64, shape (n,)
            Of all (element of the formula, property) entries that are looked up, the share that is not imputed (not
            missing, where the descriptor does not impute); elements count equally, whatever their amounts. 1 where
            nothing is looked up.
        """
        compositions = parse_compositions(formulas)
        known = np.zeros(len(SYMBOLS))
        width = 0
        for used in self._tables():
            known += used.table.known.sum(axis=1)
            width += used.table.known.shape[1]
        if width == 0 or len(compositions) == 0:
            return np.ones(len(compositions))
        found = np.add.reduceat(known[compositions.numbers - 1], compositions.offsets[:-1])
        return cast("Floats", found / (width * np.diff(compositions.offsets)))

    def imputed_elements(self, formulas: Any) -> dict[str, tuple[str, ...]]:
        """List what the tables do not know about the elements of some formulas.

        Parameters
        ----------
        formulas : Compositions, iterable, pandas Series or table of one column
            As for `transform`.

        Returns
        -------
        dict of str to tuple of str
            Symbol of each element with an imputed (missing, where the descriptor does not impute) property, in order
            of atomic number, and those properties as "source property".
        """
        numbers = np.unique(parse_compositions(formulas).numbers)
        listing: dict[str, dict[str, None]] = {}
        for z in numbers.tolist():
            for used in self._tables():
                table = used.table
                for column in np.flatnonzero(~table.known[z - 1]):
                    listing.setdefault(SYMBOLS[z - 1], {})[f"{table.source} {table.properties[column]}"] = None
        return {symbol: tuple(names) for symbol, names in listing.items()}

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.input_tags.string = True
        tags.input_tags.one_d_array = True
        tags.requires_fit = False
        tags.no_validation = True
        tags.transformer_tags.preserves_dtype = []
        return tags


def formulas_of_equal_length(
    compositions: Compositions, width: int
) -> Iterator[tuple[NDArray[np.intp], NDArray[np.intp], Floats]]:
    """Yield (rows (m,), atomic numbers (m, k), amounts (m, k)) of formulas of k elements, m·k·width being bounded."""
    counts = np.diff(compositions.offsets)
    for k in np.unique(counts).tolist():
        rows = np.flatnonzero(counts == k)
        step = max(1, MAX_ENTRIES // (k * width))
        for start in range(0, len(rows), step):
            part = rows[start : start + step]
            entries = compositions.offsets[part][:, None] + np.arange(k)
            yield part, compositions.numbers[entries].astype(np.intp), compositions.amounts[entries]
