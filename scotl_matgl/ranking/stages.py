"""The stages of a search on one table: embed, screen, measure, judge."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from copy import copy
from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING, Protocol

import numpy as np
from numpy.typing import NDArray
from sklearn.base import clone

from scotl_matgl.bridges.embedding import (
    Embedded,
    Embeddings,
    LookUpChoice,
    SourceEmbedding,
    embed_source,
    varying,
)
from scotl_matgl.descriptors.described import Described
from scotl_matgl.estimators import LOORidge
from scotl_matgl.estimators.spectrum import Spectra
from scotl_matgl.learners.heads import FOREST, out_of_bag
from scotl_matgl.learners.kernel import indicators_to_probabilities, kernel_out_of_folds, manhattan
from scotl_matgl.learners.members import COLUMNS, BlendMember, Features, LearningTask, out_of_fold
from scotl_matgl.ranking.control import Control, column_distances, without_fractions
from scotl_matgl.ranking.judge import Judgement, criterion, judge
from scotl_matgl.ranking.layers import chooses, layers_of
from scotl_matgl.ranking.result import SourceResult
from scotl_matgl.sources.cards import SourceCard
from scotl_matgl.sources.seen import count_seen, training_formulas
from scotl_matgl.tables.folds import Folds
from scotl_matgl.tables.rows import Rows
from scotl_matgl.vocabulary import Floats

if TYPE_CHECKING:
    from scotl_matgl.ranking.search import Search

# Rows on which the heads of the control are compared: trees and boosting take most of the time of a ranking.
_HEAD_ROWS = 400

# Sets of folds over which the losses of kernel ridge are averaged: they share a decomposition.
_FOLD_SETS = 3

# Layers of a source that are measured where there is a choice and the screen has not measured all: its first ones.
_LAYERS = 3

#: Layer with a source's own prediction.
OUTPUT_LAYER = "final"


class Source(Protocol):
    """What can be searched: a model known by its card, or a network of a library."""

    @property
    def name(self) -> str:
        """Name of the card, which may be known before there is a card."""

    @property
    def card(self) -> SourceCard:
        """What is known of it."""

    def embed(self, described: Described, layers: Sequence[str], look_up: LookUpChoice) -> Embeddings:
        """Embeddings by layer, as :func:`~scotl_matgl.bridges.embedding.embed_source` gives them."""


@dataclass(frozen=True)
class CardSource:
    """A source known by its card."""

    card: SourceCard

    @property
    def name(self) -> str:
        """Name of the card."""
        return self.card.name

    def embed(self, described: Described, layers: Sequence[str], look_up: LookUpChoice) -> Embeddings:
        """Embed by the bridges of the card, or by its own encoder."""
        return embed_source(self.card, described, layers=layers, look_up=look_up)


class Memory(Protocol):
    """Where the screen keeps what it found, so that a search of very many sources can go on where it was killed."""

    def recall(self, source: str) -> tuple[SourceResult, float] | None:
        """Scores and criterion of a source that was screened before, or None."""

    def keep(self, result: SourceResult, criterion: float) -> None:
        """Keep scores and criterion of a source."""


@dataclass(frozen=True, eq=False)
class Measured:
    """Out-of-fold losses of a source on the sampled rows.

    Attributes
    ----------
    losses : ndarray of shape (m,)
        Of the head on descriptors and embedding together.
    alone : ndarray of shape (m,)
        Of kernel ridge on the embedding alone.
    predictions : ndarray of shape (r, m, k)
        Of the head in each set of folds: the property, or the probabilities of the classes.
    """

    losses: Floats
    alone: Floats
    predictions: Floats


@dataclass(frozen=True, eq=False)
class Screened:
    """A source that was embedded and screened.

    Attributes
    ----------
    result : SourceResult
        Its scores.
    criterion : float
        Of the order, on the rows of the screen; lower is better.
    embedding : SourceEmbedding
        What embeds other formulas in the same way.
    values : ndarray of shape (n, d)
        Embeddings of all rows.
    penalties : tuple of two floats, or None
        Of kernel ridge on descriptors and embedding together, and on the embedding alone, chosen by the screen.
    output : tuple of SourceEmbedding and ndarray of shape (n, k), or None
        Its own prediction, if it was asked for.
    measured : Measured or None
        Where the screen has measured it already.
    unscored : mapping of str to str
        Estimators that failed, and why.
    others : tuple of Screened
        The same source by the layers behind this one that may still be taken, where there is a choice.
    """

    result: SourceResult
    criterion: float
    embedding: SourceEmbedding
    values: Floats
    penalties: tuple[float, float] | None
    output: tuple[SourceEmbedding, Floats] | None
    measured: Measured | None
    unscored: Mapping[str, str]
    others: tuple[Screened, ...] = ()


@dataclass(frozen=True, eq=False)
class _Part:
    """Some of the rows, with what learning on them takes."""

    rows: NDArray[np.intp]
    features: Features
    task: LearningTask
    fold_sets: Sequence[Folds]
    distances: Floats  # between the rows, by the columns that are known without a source
    of_columns: Floats | None  # and by the further columns alone, for each column of an embedding
    composition: NDArray[np.intp]  # of each row, numbered from 0

    @property
    def n_compositions(self) -> int:
        """Different compositions."""
        return int(self.composition.max()) + 1

    def alone(self, Z: Floats, own: Floats) -> Floats:
        """Distances by an embedding and the further columns, from those by the embedding itself."""
        return own if self.of_columns is None else own + Z.shape[1] * self.of_columns

    def by_composition(self, losses: Floats) -> Floats:
        """Losses (..., g) of the compositions from those of the rows (..., m), with the same mean.

        Rows of one composition share a fold and most of what makes them hard: they are no independent witnesses.
        """
        counts = np.bincount(self.composition)
        if len(counts) == len(self.rows):
            return losses
        order = np.argsort(self.composition, kind="stable")
        sums = np.add.reduceat(losses[..., order], np.cumsum(counts) - counts, axis=-1)
        return np.asarray(sums * (len(counts) / len(self.rows)))

    def kernel(self, distances: Floats, alpha: float | None = None) -> tuple[Floats, float]:
        """Out-of-fold predictions (r, m, k) of kernel ridge, and its penalty."""
        predictions, alpha = kernel_out_of_folds(distances, self.task.outputs, self.fold_sets, alpha=alpha)
        if self.task.n_classes:
            predictions = np.array([indicators_to_probabilities(found) for found in predictions])
        return predictions, alpha

    def losses(self, predictions: Floats) -> Floats:
        """Loss (m,) of predictions (r, m, k), the mean over the sets of folds."""
        return np.asarray(np.mean([self.task.losses(found) for found in predictions], axis=0))


@dataclass(frozen=True, eq=False)
class _Quick:
    """What the screen knows of an embedding."""

    criterion: float
    penalties: tuple[float, float] | None
    loo_rmse: float
    spectra: Spectra
    measured: Measured | None


@dataclass(eq=False)
class Stages:
    """The stages, and what they share: the table, its parts, and the control."""

    search: Search
    rows: Rows
    described: Described
    features: Features
    outputs: bool = False

    def __post_init__(self) -> None:
        self.sampled = self.rows.sample(self.search.max_rows, self.search.random_state)
        self.whole = self._part(self.search.max_rows)
        self.few = self.whole if self.all_in_screen else self._part(self.search.screen_rows)
        self._numeric = self.rows.y.astype(np.float64)
        self._training_sets = training_formulas().members(self.described.compositions.keys())

    @property
    def all_in_screen(self) -> bool:
        """Whether the screen sees all sampled rows."""
        return len(self.sampled) <= self.search.screen_rows

    # -- what workers are sent ------------------------------------------------------------------------------------

    def to_screen(self) -> Stages:
        """The same without what only the control and measuring take: it goes to other processes with every task."""
        found = copy(self)
        found.features = self.few.features
        found.whole = self.few
        return found

    def to_measure(self) -> Stages:
        """The same without what only the control and the screen take."""
        found = copy(self)
        found.described = self.described.take([])
        found.features = self.features.take(np.arange(0))
        found.few = self.whole
        if self.measures_by_kernel:  # by distances alone
            found.whole = replace(self.whole, features=found.features)
        return found

    def _part(self, limit: int, *, n_folds: int = 5) -> _Part:
        """At most so many of the sampled rows."""
        seed = self.search.random_state
        index = self.sampled[self.rows.take(self.sampled).sample(limit, seed)]
        chosen = self.rows.take(index)
        fold_sets = [chosen.folds(n_folds=n_folds, random_state=seed + repeat) for repeat in range(_FOLD_SETS)]
        task = LearningTask(chosen.y, len(chosen.classes), fold_sets[0], seed, self.search.n_jobs)
        features = self.features.take(index)
        blocks = without_fractions(features)
        distances = manhattan(features.stacked(blocks), features.stacked_weights(blocks))
        return _Part(index, features, task, fold_sets, distances, column_distances(features), chosen.witnesses)

    # -- the control ----------------------------------------------------------------------------------------------

    @cached_property
    def control(self) -> Control:
        """The best head without a source, chosen on some of the rows."""
        if self.search.combine == "embedding":
            forest = BlendMember(FOREST, without_fractions(self.features))
            return Control(forest, forest, {forest.name: float(self.control_losses.mean())})
        part = self._part(_HEAD_ROWS, n_folds=3) if len(self.sampled) > _HEAD_ROWS else self.whole
        return Control.choose(part.features, part.task, head=self.search.head)

    @property
    def held_out(self) -> Mapping[str, Floats]:
        """Out-of-fold predictions (n, k) of the heads that were compared, by name; none if on some rows only."""
        everything = len(self.rows) == len(self.sampled) <= _HEAD_ROWS
        return self.control.predictions if everything else {}

    @cached_property
    def control_losses(self) -> Floats:
        """Out-of-fold loss (m,) of the control on all sampled rows."""
        part = self.whole
        if self.search.combine == "embedding":
            return part.losses(self._forest(part.features.stacked(without_fractions(self.features))))
        if self.control.member.head == "kernel ridge":
            alpha = None if self.all_in_screen else self.few.kernel(self.few.distances)[1]
            return part.losses(part.kernel(part.distances, alpha)[0])
        known = {} if len(self.sampled) > _HEAD_ROWS else self.control.predictions
        found = known.get(self.control.member.name)
        if found is None:
            (found,) = out_of_fold([self.control.member], part.features, part.task)
        return part.losses(found[None])

    def _forest(self, X: Floats) -> Floats:
        """Predictions (1, m, k) out of bag."""
        task = self.whole.task
        return out_of_bag(X, task.y, n_classes=task.n_classes, random_state=task.random_state)[None]

    @property
    def measures_by_kernel(self) -> bool:
        """Whether sources are measured by kernel ridge."""
        return self.search.combine == "concat" and self.control.head.head == "kernel ridge"

    # -- embed and screen -----------------------------------------------------------------------------------------

    def screen(self, source: Source) -> Screened | str:
        """What the screen finds of a source, or the reason why it cannot be embedded."""
        started = time.perf_counter()
        try:
            return self._screen(source, started)
        except (Exception, SystemExit) as error:  # one source must not end the run, whatever it raises
            return str(error) or type(error).__name__

    def _embed(self, source: Source, layers: Sequence[str]) -> Embeddings:
        """Embed by these layers, and the output where it is wanted; layers that cannot be had are left out."""
        also = self.outputs and OUTPUT_LAYER in source.card.layers and OUTPUT_LAYER not in layers
        wanted = (*layers, OUTPUT_LAYER) if also else tuple(layers)
        try:
            found = source.embed(self.described, wanted, self.search.look_up)
        except (Exception, SystemExit):
            if len(wanted) == 1:
                raise
            found = {}
            for layer in wanted:
                with suppress(Exception, SystemExit):
                    found |= source.embed(self.described, (layer,), self.search.look_up)
        if any(layer in found for layer in layers):
            return found
        return source.embed(self.described, layers[:1], self.search.look_up)  # says why it cannot

    def _screen(self, source: Source, started: float) -> Screened:
        layers = layers_of(source.card, self.search.layer)
        found = self._embed(source, layers)
        candidates = []
        reasons = []
        for layer in layers:
            try:
                options = varying(found[layer]) if layer in found else []
            except ValueError as error:
                reasons.append(error)
                continue
            quick = [self._quick(embedded.values) for _, embedded in options]
            candidates += [min(zip(quick, options, strict=True), key=lambda item: item[0].criterion)] if quick else []
        if not candidates:
            raise reasons[0]
        n_layers = len(candidates)
        candidates.sort(key=lambda item: item[0].criterion)
        if candidates[0][0].measured is None:
            del candidates[_LAYERS:]
        first, *others = (self._screened(source.card, *item, n_layers, started) for item in candidates)
        outputs = found.get(OUTPUT_LAYER, []) if self.outputs else []
        output = (outputs[0][0], outputs[0][1].values) if outputs else None
        return replace(first, output=output, others=tuple(others))

    def _screened(
        self, card: SourceCard, quick: _Quick, option: tuple[SourceEmbedding, Embedded], n_layers: int, started: float
    ) -> Screened:
        """A source by one of its layers."""
        embedding, embedded = option
        scores, unscored = self._scores(quick.spectra)
        result = SourceResult(
            source=card.name,
            property=card.property,
            unit=card.unit,
            scores=scores,
            loo_rmse=quick.loo_rmse,
            looked_up=int(embedded.looked_up.sum()),
            bridged=int((~embedded.looked_up & ~embedded.encoded & ~embedded.refused).sum()),
            refused=int(embedded.refused.sum()),
            seconds=time.perf_counter() - started,
            seen=count_seen(card, self._training_sets),
            encoded=int(embedded.encoded.sum()),
            fallback=embedding.fallback,
            layer=embedding.layer if chooses(self.search.layer) else "",
            n_layers=n_layers,
        )
        values, penalties, measured = embedded.values, quick.penalties, quick.measured
        return Screened(result, quick.criterion, embedding, values, penalties, None, measured, unscored)

    def _quick(self, values: Floats) -> _Quick:
        """Screen embeddings (n, d) of all rows."""
        spectra = Spectra(values)
        ridge = None if self.rows.classification else LOORidge().fit(spectra, self._numeric)
        loo_rmse = float("nan") if ridge is None else -float(ridge.score_)
        if self.search.screen == "ridge" and ridge is not None:
            return _Quick(float(ridge.mae_), None, loo_rmse, spectra, None)
        part = self.few
        own = manhattan(values[part.rows])
        predicted_alone, alpha_alone = part.kernel(part.alone(values, own))
        alone = part.losses(predicted_alone)
        if self.search.combine == "embedding":
            return _Quick(float(alone.mean()), (alpha_alone, alpha_alone), loo_rmse, spectra, None)
        predictions, alpha = part.kernel(part.distances + own)
        losses = part.losses(predictions)
        quick = float(criterion(np.array(losses.mean()), np.array(alone.mean()), part.n_compositions))
        whole = self.all_in_screen and self.measures_by_kernel
        measured = Measured(losses, alone, predictions) if whole else None
        return _Quick(quick, (alpha, alpha_alone), loo_rmse, spectra, measured)

    def _scores(self, spectra: Spectra) -> tuple[dict[str, float], dict[str, str]]:
        """Scores of the estimators that were asked for, NaN where one fails, and why those that failed did."""
        scores: dict[str, float] = {}
        unscored: dict[str, str] = {}
        for name, estimator in self.search.estimators.items():
            try:
                scores[name] = float(clone(estimator).fit(spectra, self.rows.y).score_)
            except Exception as error:  # one estimator must not cost the source, whatever it raises
                scores[name] = float("nan")
                unscored[name] = str(error) or type(error).__name__
        return scores, unscored

    # -- measure --------------------------------------------------------------------------------------------------

    def measure(self, item: Screened) -> tuple[Screened, Measured | str]:
        """A source with its losses, or the reason why there are none."""
        if item.measured is not None:
            return item, item.measured
        started = time.perf_counter()
        try:
            measured = self._measure(item)
        except (Exception, SystemExit) as error:  # one source must not end the run, whatever it raises
            return item, str(error) or type(error).__name__
        seconds = item.result.seconds + time.perf_counter() - started
        return replace(item, result=replace(item.result, seconds=seconds)), measured

    def _measure(self, item: Screened) -> Measured:
        part = self.whole
        Z = item.values[part.rows]
        own = manhattan(Z)
        both, single = item.penalties or (None, None)
        alone = part.losses(part.kernel(part.alone(Z, own), single)[0])
        if self.search.combine == "embedding":
            further = [part.features.columns[COLUMNS]] if COLUMNS in part.features.columns else []
            predictions = self._forest(np.hstack([*further, Z]))
        elif self.measures_by_kernel:
            predictions, _ = part.kernel(part.distances + own, both)
        else:
            head, name = self.control.head, item.result.source
            beside = replace(head, blocks=(*head.blocks, name), transfers=True)
            columns = Features({**part.features.columns, name: Z}, part.features.weights)
            predictions = np.array(out_of_fold([beside], columns, part.task))
        return Measured(part.losses(predictions), alone, predictions)

    # -- judge ----------------------------------------------------------------------------------------------------

    def judge(self, measured: Sequence[Sequence[Measured]]) -> Judgement:
        """Judge the sources that were measured, each by one layer or more; rows of one composition go together."""
        part, task = self.whole, self.whole.task
        (m, k), r = task.outputs.shape, len(measured[0][0].predictions) if measured else 1
        middle = task.outputs.mean(axis=0) if task.n_classes else np.median(task.outputs, axis=0)
        most = max(map(len, measured), default=1)
        # Sources that have fewer layers repeat their last one, which the judgement allows for.
        layers = [[*of_source, *[of_source[-1]] * (most - len(of_source))] for of_source in measured]
        shape = (len(measured), m) if most == 1 else (len(measured), most, m)
        everything = [found for of_source in layers for found in of_source]
        return judge(
            part.by_composition(self.control_losses),
            part.by_composition(np.array([found.losses for found in everything]).reshape(shape)),
            part.by_composition(np.array([found.alone for found in everything]).reshape(shape)),
            np.array([found.predictions for found in everything]).reshape(*shape[:-1], r, m, k),
            lambda predictions: part.by_composition(part.losses(predictions)),
            part.by_composition(part.losses(np.tile(middle, (1, m, 1)))),
            alone_weight=1.0 if self.search.combine == "embedding" else None,
            random_state=task.random_state,
        )
