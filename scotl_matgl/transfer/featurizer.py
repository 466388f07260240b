"""Formulas to descriptors beside embeddings of sources, for pipelines."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal, Self

import numpy as np
from numpy.typing import ArrayLike, NDArray
from sklearn.base import TransformerMixin
from sklearn.utils.validation import check_is_fitted

from scotl_matgl.bridges.embedding import embed_source
from scotl_matgl.descriptors.composite import get_descriptor
from scotl_matgl.descriptors.described import Described
from scotl_matgl.descriptors.structural import structural_means
from scotl_matgl.exceptions import InputError
from scotl_matgl.learners.members import DESCRIPTORS
from scotl_matgl.ranking.layers import LayerChoice, chooses
from scotl_matgl.sources.cards import SourceCard
from scotl_matgl.tables.rows import Rows, is_numeric, read_rows
from scotl_matgl.transfer.features import FormulaEstimator
from scotl_matgl.vocabulary import Floats


class TransferFeaturizer(TransformerMixin, FormulaEstimator):  # type: ignore[misc]  # scikit-learn is not typed
    """Turn formulas into descriptors beside the embeddings of sources, or into the embeddings alone.

    For a column of formulas in a pipeline or a ``ColumnTransformer``, with any estimator behind it.

    Parameters
    ----------
    sources : "all", str, SourceCard, list of these, or fitted TransferabilityRanker, default="all"
        Which sources; if they are more than `n_sources`, ``fit`` ranks them and needs the target.
    n_sources : int, default=1
        How many of the best to use.
    descriptor : str or CompositionDescriptor, default="standard"
        Describes the formulas.
    combine : {"concat", "embedding"}, default="concat"
        Descriptors beside embeddings, or embeddings alone.
    layer, look_up, max_rows, random_state
        As for :class:`TransferRegressor`.
    task : {"auto", "regression", "classification"}, default="auto"
        Kind of target, for the ranking; see :class:`~scotl_matgl.TransferabilityRanker`.
    on_error : {"warn", "raise", "skip"}, default="warn"
        What a bad row does: its features are NaN, with a warning or without, or it is an error. In ``fit`` such rows
        are listed in ``skipped_``.

    Attributes
    ----------
    sources_ : tuple of SourceEmbedding
        The sources used, best first.
    ranking_ : Ranking or None
        Of all sources; None if there was nothing to choose.
    skipped_ : tuple of SkippedRow
    errors_ : dict of str to str
        Sources that could not be used, and why.

    Examples
    --------
    >>> from scotl_matgl import TransferFeaturizer
    >>> featurizer = TransferFeaturizer("MEGNet-MP-2018.6.1-Eform", combine="embedding").fit(["NaCl", "MgO"])
    >>> featurizer.transform(["Fe2O3"]).shape
    (1, 160)
    """

    formula = None

    def __init__(
        self,
        sources: Any = "all",
        *,
        n_sources: int = 1,
        descriptor: Any = "standard",
        combine: Literal["concat", "embedding"] = "concat",
        layer: LayerChoice = "readout",
        look_up: bool | Literal["auto"] = "auto",
        task: Literal["auto", "regression", "classification"] = "auto",
        max_rows: int = 1000,
        on_error: Literal["warn", "raise", "skip"] = "warn",
        random_state: int = 0,
    ) -> None:
        self.sources = sources
        self.n_sources = n_sources
        self.descriptor = descriptor
        self.combine = combine
        self.layer = layer
        self.look_up = look_up
        self.task = task
        self.max_rows = max_rows
        self.on_error = on_error
        self.random_state = random_state

    def fit(self, X: Any, y: ArrayLike | None = None) -> Self:
        """Choose the sources.

        Parameters
        ----------
        X : sequence of formulas, or table of one column
            n formulas.
        y : array-like of shape (n,), optional
            Target; only needed where there is a choice.
        """
        self._check_common()
        if self.combine not in ("concat", "embedding"):
            raise InputError(f"combine is {self.combine!r}; it must be 'concat' or 'embedding'")
        rows = self._formulas(X)
        self.skipped_, self.errors_ = rows.skipped, {}
        self.sources_, self.ranking_ = (), None
        self._descriptor = get_descriptor(self.descriptor).fit(rows.formulas)
        self._elements = tuple(np.unique(rows.formulas.numbers).tolist())
        self._structural = structural_means(rows.crystals.tolist())
        ranker = self._given_ranker()
        cards = self._cards() if ranker is None else []
        if not cards and ranker is None and self.combine == "embedding":
            raise InputError("combine='embedding' without sources leaves no features; name a source")
        if ranker is not None:
            self.ranking_, self.sources_ = ranker.ranking_, ranker.embeddings_[: self.n_sources]
        elif len(cards) > self.n_sources or (cards and chooses(self.layer)):
            self._rank(cards, rows, y)
        elif cards:
            self._take_all(cards, Described.of(rows.formulas, self._descriptor, rows.crystals))
        self._warn(self.skipped_, "skipped")
        return self

    def _take_all(self, cards: Sequence[SourceCard], described: Described) -> None:
        """Use all sources that can be used: there is no choice to make."""
        for card in cards:
            try:
                # Without a target there is no telling which way is better: the bridge serves alone, unless asked.
                layer = str(self.layer)
                options = embed_source(card, described, layers=(layer,), look_up=self.look_up is True)[layer]
            except (Exception, SystemExit) as error:  # one source must not end the run, whatever it raises
                self.errors_[card.name] = str(error) or type(error).__name__
            else:
                self.sources_ += (options[-1][0],)
        if not self.sources_:
            name, reason = next(iter(self.errors_.items()))
            raise InputError(f"no source can be used ({len(cards)} tried); {name}: {reason}")
        self._warn_left_out(self.errors_)

    def _formulas(self, X: Any) -> Rows:
        if is_numeric(X):
            raise InputError("X holds numbers or several columns; give one column of formulas")
        rows = read_rows(X, strict=self.on_error == "raise", estimator=self)
        if not len(rows):
            raise InputError(f"none of the {rows.n_input} rows holds a formula that can be read")
        return rows

    def _rank(self, cards: Sequence[SourceCard], rows: Rows, y: ArrayLike | None) -> None:
        if y is None:
            what = f"{self.n_sources} of {len(cards)} sources" if len(cards) > self.n_sources else "a layer"
            them = "them" if len(cards) > self.n_sources else "one"
            raise InputError(f"to choose {what} takes a target: pass y, or name {them}")
        rows = rows.with_target(y, task=self.task, strict=self.on_error == "raise")
        self.skipped_ = rows.skipped
        described = Described.of(rows.formulas, self._descriptor, rows.crystals)
        found, _ = self._search(cards, rows, described, self._features(rows, described))
        self.sources_ = tuple(item.embedding for item in found.measured[: self.n_sources])
        self.ranking_ = found.ranking
        self.errors_ |= found.ranking.errors
        self._warn_left_out(self.errors_)

    def transform(self, X: Any) -> Floats:
        """Features (m, p) of m formulas; rows that cannot be read are NaN."""
        check_is_fitted(self, "sources_")
        rows = read_rows(X, strict=self.on_error == "raise", estimator=self, reset=False)
        self._warn(rows.skipped, "without features")
        features = np.full((rows.n_input, len(self.get_feature_names_out())), np.nan)
        if len(rows):
            described = Described.of(rows.formulas, self._descriptor, rows.crystals)
            embedded = self._with_sources(self._features(rows, described), described)
            names = [source.name for source in self.sources_]
            features[rows.kept] = embedded.stacked([DESCRIPTORS, *names] if self.combine == "concat" else names)
        return features

    def get_feature_names_out(self, input_features: Any = None) -> NDArray[np.object_]:  # noqa: ARG002  (scikit-learn's signature)
        """Names (p,): those of the descriptors, and ``SOURCE[layer]_0`` and so on for the embeddings."""
        check_is_fitted(self, "sources_")
        names = list(self._descriptor.get_feature_names_out()) if self.combine == "concat" else []
        for source in self.sources_:
            names += [f"{source.name}[{source.layer}]_{i}" for i in range(len(source.mean))]
        return np.array(names, dtype=object)

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.target_tags.required = False
        return tags
