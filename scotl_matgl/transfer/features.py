"""What the transferred models and the featurizer share: reading rows, describing them, choosing sources, embedding."""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.base import BaseEstimator
from sklearn.utils.validation import check_is_fitted

from scotl_matgl.bridges.embedding import SourceEmbedding
from scotl_matgl.descriptors.base import CompositionDescriptor
from scotl_matgl.descriptors.described import Described
from scotl_matgl.exceptions import InputError, ScotlMatglWarning, warn
from scotl_matgl.learners.members import Features
from scotl_matgl.ranking.control import control_features
from scotl_matgl.ranking.layers import LayerChoice, check_layer
from scotl_matgl.ranking.ranker import TransferabilityRanker
from scotl_matgl.ranking.result import Ranking
from scotl_matgl.ranking.search import Found, Search
from scotl_matgl.ranking.stages import CardSource
from scotl_matgl.sources.cards import GROUPS, SourceCard, all_cards, no_sources, select
from scotl_matgl.tables.rows import MIN_ROWS, Rows
from scotl_matgl.views import Documented
from scotl_matgl.vocabulary import Floats, check_whole, counted


class FormulaEstimator(Documented, BaseEstimator):  # type: ignore[misc]  # scikit-learn is not typed
    """What all estimators of this module share: reading rows, describing them, choosing sources, embedding."""

    formula: Hashable | None
    on_error: str
    descriptor: Any
    sources: Any
    layer: LayerChoice
    look_up: Any
    max_rows: int
    random_state: int

    errors_: dict[str, str]
    sources_: tuple[SourceEmbedding, ...]
    ranking_: Ranking | None
    _descriptor: CompositionDescriptor
    _elements: tuple[int, ...]
    _structural: Floats | None = None

    def _check_common(self) -> None:
        if self.on_error not in ("warn", "raise", "skip"):
            raise InputError(f"on_error is {self.on_error!r}; it must be 'warn', 'raise' or 'skip'")
        for name, least in (("n_sources", 1), ("max_rows", MIN_ROWS), ("random_state", 0)):
            check_whole(name, getattr(self, name), least)

    def _warn(self, skipped: Sequence[Any], consequence: str) -> None:
        if skipped and self.on_error == "warn":
            shown = "; ".join(f"row {row.row} ({row.value}): {row.reason}" for row in skipped[:3])
            more = f"; and {len(skipped) - 3} more" if len(skipped) > 3 else ""
            message = f"{counted(len(skipped), 'row')} {consequence}: {shown}{more}"
            warn(message, ScotlMatglWarning)

    def _warn_left_out(self, errors: Mapping[str, str]) -> None:
        """Warn about sources that were asked for and cannot be used."""
        if errors and self.sources not in GROUPS and self.on_error == "warn":
            shown = "; ".join(f"{name}: {reason}" for name, reason in list(errors.items())[:2])
            message = f"{counted(len(errors), 'source')} left out: {shown}"
            warn(message, ScotlMatglWarning)

    # -- what is known without a source ---------------------------------------------------------------------------

    def _describe(self, rows: Rows) -> Described | None:
        """Descriptors of the formulas; None for numbers alone."""
        if rows.compositions is None:
            return None
        return Described.of(rows.compositions, self._descriptor, rows.crystals)

    def _features(self, rows: Rows, described: Described | None) -> Features:
        """Blocks that the control sees: descriptors, further columns and element fractions, or the numbers alone."""
        if described is None:
            return Features({"numbers": rows.numbers}, {"numbers": np.ones(rows.numbers.shape[1])})
        elements = np.array(self._elements, dtype=np.intp)
        return control_features(described, rows.numbers, rows.names, elements, self._structural)

    # -- sources --------------------------------------------------------------------------------------------------

    def _cards(self) -> list[SourceCard]:
        """Cards of the sources that may be used; zoos that cannot be read are noted in ``errors_``."""
        if no_sources(self.sources):
            return []
        return select(all_cards(self.errors_.__setitem__), self.sources)

    def _given_ranker(self) -> TransferabilityRanker | None:
        """Ranker that was given in place of sources."""
        if not isinstance(self.sources, TransferabilityRanker):
            return None
        check_is_fitted(self.sources, "ranking_", msg="the ranker given as sources is not fitted; fit it first")
        return self.sources

    def _search(
        self, cards: Sequence[SourceCard], rows: Rows, described: Described, features: Features, **settings: Any
    ) -> tuple[Found, NDArray[np.intp]]:
        """Search sources for a table as a ranking does; also the place (n,) of each row among those that it had.

        Rows of one composition and further columns are merged, as in a ranking; crystals are not.
        """
        check_layer(self.layer, cards)
        outputs, progress = settings.pop("outputs", False), settings.pop("progress", None)
        search = Search(
            layer=self.layer,
            look_up=self.look_up,
            max_rows=self.max_rows,
            random_state=self.random_state,
            **settings,
        )
        sources = [CardSource(card) for card in cards]
        if len(rows.crystals):
            place = np.arange(len(rows))
            found = search.run(sources, rows, described, features, outputs=outputs, progress=progress)
        else:
            merged, place, first = rows.merged_places()
            among = described.take(first), features.take(first)
            found = search.run(sources, merged, *among, outputs=outputs, progress=progress)
        if not found.measured and cards:
            name, reason = next((card.name, found.ranking.errors[card.name]) for card in cards)
            raise InputError(f"no source can be used ({len(cards)} tried); {name}: {reason}")
        return found, place

    def _with_sources(self, features: Features, described: Described) -> Features:
        """Add a block for each source."""
        columns = dict(features.columns)
        for source in self.sources_:
            columns[source.name] = source.embed(described)
        return Features(columns, features.weights)

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        # Without sources and formulas they are estimators of numbers, and tested as such.
        tags.input_tags.string = tags.input_tags.one_d_array = not no_sources(self.sources)
        tags.target_tags.required = True
        return tags
