"""What the transferred models and the featurizer share: reading rows, describing them, embedding them."""

from __future__ import annotations

import warnings
from collections.abc import Hashable, Mapping, Sequence
from typing import Any

import numpy as np
from sklearn.base import BaseEstimator

from scotl_matgl.bridges.embedding import SourceEmbedding
from scotl_matgl.descriptors.base import CompositionDescriptor
from scotl_matgl.exceptions import InputError, ScotlMatglWarning
from scotl_matgl.learners.members import Features
from scotl_matgl.tables.rows import Rows
from scotl_matgl.transfer.choice import no_sources
from scotl_matgl.vocabulary import counted

# Fewest rows with a source: below, five folds leave next to nothing to choose it by.
MIN_ROWS = 10


# A further column counts as much as this share of all descriptors in the distances of kernel ridge.
_COLUMN_SHARE = 0.25


class FormulaEstimator(BaseEstimator):  # type: ignore[misc]  # scikit-learn is not typed
    """What all estimators of this module share: reading rows, describing them, embedding them."""

    formula: Hashable | None
    on_error: str
    descriptor: Any
    sources: Any

    def _check_common(self) -> None:
        if self.on_error not in ("warn", "raise", "skip"):
            raise InputError(f"on_error is {self.on_error!r}; it must be 'warn', 'raise' or 'skip'")
        for name, least in (("n_sources", 1), ("max_rows", MIN_ROWS), ("random_state", 0)):
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, int | np.integer) or value < least:
                raise InputError(f"{name} is {value!r}; it must be a whole number of at least {least}")

    def _warn(self, skipped: Sequence[Any], consequence: str, *, stacklevel: int = 4) -> None:
        if skipped and self.on_error == "warn":
            shown = "; ".join(f"row {row.row} ({row.value}): {row.reason}" for row in skipped[:3])
            more = f"; and {len(skipped) - 3} more" if len(skipped) > 3 else ""
            message = f"{counted(len(skipped), 'row')} {consequence}: {shown}{more}"
            warnings.warn(message, ScotlMatglWarning, stacklevel=stacklevel)

    def _warn_left_out(self, errors: Mapping[str, str], *, stacklevel: int) -> None:
        """Warn about sources that were asked for and cannot be used."""
        if errors and self.sources not in ("auto", "all") and self.on_error == "warn":
            shown = "; ".join(f"{name}: {reason}" for name, reason in list(errors.items())[:2])
            message = f"{counted(len(errors), 'source')} left out: {shown}"
            warnings.warn(message, ScotlMatglWarning, stacklevel=stacklevel)

    def _features(self, rows: Rows) -> Features:
        """Blocks that the control sees: descriptors and further columns, or the numbers alone."""
        if rows.compositions is None:
            return Features({"numbers": rows.numbers}, {"numbers": np.ones(rows.numbers.shape[1])})
        described = np.asarray(self._descriptor.transform(rows.compositions), dtype=np.float64)
        columns = {"descriptors": np.nan_to_num(described)}
        weights = {"descriptors": np.ones(described.shape[1])}
        if rows.names:
            # One column among some hundred that all describe the formula would be lost in their distances.
            columns["columns"] = rows.numbers
            weights["columns"] = np.full(len(rows.names), _COLUMN_SHARE * described.shape[1])
        return Features(columns, weights)

    def _with_sources(self, features: Features, rows: Rows) -> Features:
        """Add a block for each source."""
        columns = dict(features.columns)
        for source in self.sources_:
            assert rows.compositions is not None  # noqa: S101 - there are no sources for numbers alone
            columns[source.name] = source.embed(rows.compositions, columns["descriptors"], self._descriptor)
        return Features(columns, features.weights)

    _descriptor: CompositionDescriptor
    sources_: tuple[SourceEmbedding, ...]

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        # Without sources and formulas they are estimators of numbers, and tested as such.
        tags.input_tags.string = tags.input_tags.one_d_array = not no_sources(self.sources)
        tags.target_tags.required = True
        return tags
