"""The engine: which sources are worth transferring from, found in four stages: embed, screen, measure, judge."""

from __future__ import annotations

import heapq
import time
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any, Literal, Protocol

import numpy as np
from numpy.typing import NDArray
from sklearn.base import clone

from scotl_matgl.bridges.embedding import Embedded, LookUpChoice, SourceEmbedding, embed_source, varying
from scotl_matgl.descriptors.described import Described
from scotl_matgl.estimators import Forest, LOORidge, TransferabilityEstimator
from scotl_matgl.estimators.spectrum import Spectra
from scotl_matgl.exceptions import DegenerateScoreWarning
from scotl_matgl.learners.heads import FOREST, out_of_bag_loss
from scotl_matgl.learners.kernel import indicators_to_probabilities, kernel_out_of_fold, manhattan
from scotl_matgl.learners.members import BlendMember, Features, LearningTask, out_of_fold
from scotl_matgl.ranking.control import Control, without_fractions
from scotl_matgl.ranking.judge import Judgement, criterion, judge
from scotl_matgl.ranking.result import Ranking, SourceResult
from scotl_matgl.sources.cards import SourceCard
from scotl_matgl.storage import installed_versions
from scotl_matgl.tables.rows import Rows
from scotl_matgl.vocabulary import Floats, Progress

# Rows on which the heads of the control are compared: trees and boosting take most of the time of a ranking.
_HEAD_ROWS = 400

#: Layer with a source's own prediction.
OUTPUT_LAYER = "final"


class Source(Protocol):
    """What can be searched: a card, or a network of a library that has none."""

    @property
    def card(self) -> SourceCard:
        """What is known of it."""

    def embed(
        self, described: Described, layers: Sequence[str], look_up: LookUpChoice
    ) -> Mapping[str, list[tuple[SourceEmbedding, Embedded]]]:
        """Embeddings by layer, as :func:`~scotl_matgl.bridges.embedding.embed_source` gives them."""


@dataclass(frozen=True)
class CardSource:
    """A source known by its card."""

    card: SourceCard

    def embed(
        self, described: Described, layers: Sequence[str], look_up: LookUpChoice
    ) -> Mapping[str, list[tuple[SourceEmbedding, Embedded]]]:
        """Embed by the bridges of the card, or by its own encoder."""
        return embed_source(self.card, described, layers=layers, look_up=look_up)


class Memory(Protocol):
    """Where the screen keeps what it found, so that a search of very many sources can go on where it was killed."""

    def recall(self, source: str) -> tuple[SourceResult, float] | None:
        """Scores and criterion of a source that was screened before, or None."""

    def keep(self, result: SourceResult, criterion: float) -> None:
        """Keep scores and criterion of a source."""


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
    alpha : float or None
        Penalty of kernel ridge on the embedding alone, chosen on the rows of the screen.
    output : tuple of SourceEmbedding and ndarray of shape (n, k), or None
        Its own prediction, if it was asked for.
    """

    result: SourceResult
    criterion: float
    embedding: SourceEmbedding
    values: Floats
    alpha: float | None
    output: tuple[SourceEmbedding, Floats] | None


@dataclass(frozen=True, eq=False)
class _Candidate:
    """A source by its criterion; of one that is dropped or only remembered, no more is known than its scores."""

    result: SourceResult
    criterion: float
    screened: Screened | None

    def __lt__(self, other: _Candidate) -> bool:
        """Whether it is behind another one, so that a heap has the last of them on top."""
        return (self.criterion, self.result.source) > (other.criterion, other.result.source)


@dataclass(frozen=True, eq=False)
class Found:
    """What a search has found.

    Attributes
    ----------
    ranking : Ranking
    control : Control
    measured : tuple of Screened
        In the order of the ranking, with embeddings.
    outputs : tuple of (SourceEmbedding, ndarray of shape (n, k))
        What all sources predict, if it was asked for.
    """

    ranking: Ranking
    control: Control
    measured: tuple[Screened, ...]
    outputs: tuple[tuple[SourceEmbedding, Floats], ...]


@dataclass(frozen=True, kw_only=True)
class Search:
    """Settings of a search; :class:`~scotl_matgl.TransferabilityRanker` says what they mean."""

    estimators: Mapping[str, TransferabilityEstimator] = field(default_factory=dict)
    head: Any = "auto"
    screen: Literal["kernel", "ridge"] = "kernel"
    layer: str = "readout"
    look_up: LookUpChoice = "auto"
    combine: Literal["concat", "embedding"] = "concat"
    max_rows: int = 1000
    screen_rows: int = 300
    max_measured: int = 8
    n_jobs: int | None = None
    random_state: int = 0

    def run(
        self,
        sources: Sequence[Source],
        rows: Rows,
        described: Described,
        features: Features,
        *,
        outputs: bool = False,
        memory: Memory | None = None,
        progress: Progress | None = None,
    ) -> Found:
        """Search.

        Parameters
        ----------
        sources : sequence of Source
            A source is embedded, screened, and dropped unless it is among the first, so that very many can be searched.
        rows : Rows
            n rows with their target, sorted by composition, so that the order of a table changes nothing.
        described : Described
            Their formulas.
        features : Features
            What is known of them without a source (:func:`~scotl_matgl.ranking.control.control_features`).
        outputs : bool, default=False
            Whether to keep what the sources themselves predict (the layer ``"final"``).
        memory : Memory, optional
            Where the screen keeps what it found.
        progress : callable, optional
            Called with (done, total) steps.

        Returns
        -------
        Found

        Notes
        -----
        Cost for n rows, at most 1,000 of them sampled: a source takes O(n d²) for its scores, two decompositions of 300
        rows for the screen, and if it is measured one of all sampled rows.
        """
        from threadpoolctl import threadpool_limits

        count = _Count(progress, 1 + len(sources) + min(len(sources), self.max_measured))
        layers = (self.layer, OUTPUT_LAYER) if outputs and self.layer != OUTPUT_LAYER else (self.layer,)
        # One thread to algebra and boosting: small matrices gain nothing from more, and threads that wait for each
        # other on a busy machine have taken a hundred times longer. n_jobs spreads sources and trees instead.
        with warnings.catch_warnings(), threadpool_limits(1):
            # A degenerate score shows as NaN in the table; a warning for each source would say no more. Here and not
            # in the threads, which restore each other's filters: those of scikit-learn's checks are undone here too.
            warnings.simplefilter("ignore", DegenerateScoreWarning)
            work = _Work(self, rows, described, features, layers)
            control, control_losses = work.choose_control()
            count.step()
            screen = self._screen(sources, work, count, memory)
            measured = self._measure(screen.first, control.head, work, count)
            failed = screen.failed | {item.result.source: why for item, why in measured if isinstance(why, str)}
            kept = [(item, found) for item, found in measured if not isinstance(found, str)]
            judgement = work.judge(control_losses, [found for _, found in kept])
        kept = [kept[i] for i in judgement.order]
        ranking = Ranking(
            results=tuple(item.result for item, _ in kept),
            losses=np.array([found.losses for _, found in kept]).reshape(len(kept), len(control_losses)),
            control=control_losses,
            judgement=judgement,
            screened=screen.behind,
            head=control.head.name,
            control_name=control.member.name,
            control_errors=control.errors,
            errors=failed,
            unscored=work.failed_scores,
            skipped=rows.skipped,
            remarks=rows.remarks,
            n_rows=len(rows),
            n_merged=rows.n_merged,
            classification=rows.classification,
            combine=self.combine,
            random_state=self.random_state,
            imputed=described.descriptor.imputed_elements(described.compositions),
            settings=self._recorded(described),
        )
        return Found(ranking, control, tuple(item for item, _ in kept), screen.outputs)

    def _recorded(self, described: Described) -> dict[str, Any]:
        return {
            "descriptor": repr(described.descriptor),
            "descriptor_fingerprint": described.fingerprint(),
            "layer": self.layer,
            "look_up": self.look_up,
            "max_rows": self.max_rows,
            "max_measured": self.max_measured,
            "versions": installed_versions(),
        }

    def _screen(self, sources: Sequence[Source], work: _Work, count: _Count, memory: Memory | None) -> _Screen:
        """Embed and screen every source; keep the embeddings of the first."""
        first: list[_Candidate] = []
        behind: list[_Candidate] = []
        failed: dict[str, str] = {}
        outputs: list[tuple[SourceEmbedding, Floats]] = []
        for name, found in self._spread(partial(work.recall_or_screen, memory), sources):
            count.step()
            if isinstance(found, str):
                failed[name] = found
                continue
            if found.screened is not None:
                outputs += [found.screened.output] if found.screened.output is not None else []
                if memory is not None:
                    memory.keep(found.result, found.criterion)
            if len(first) < self.max_measured:
                heapq.heappush(first, found)
            else:
                behind.append(replace(heapq.heappushpop(first, found), screened=None))
        whole = []
        for candidate in sorted(first, reverse=True):
            again = candidate.screened or work.screen_again(candidate.result.source, sources)
            if isinstance(again, str):
                failed[candidate.result.source] = again
            else:
                whole.append(again)
        return _Screen(
            whole,
            tuple(candidate.result for candidate in sorted(behind, reverse=True)),
            tuple(outputs),
            failed,
        )

    def _measure(
        self, first: Sequence[Screened], head: BlendMember, work: _Work, count: _Count
    ) -> list[tuple[Screened, Measured | str]]:
        """Measure the first sources with the head."""
        measure = partial(work.measure, head)
        # scikit-learn's forests start threads of their own and handle warnings in them as no other thread may at that
        # time: they come one after the other.
        one_by_one = self.combine == "embedding" or head.head != "kernel ridge"
        found = []
        for item in map(measure, first) if one_by_one else self._spread(measure, first):
            found.append(item)
            count.step()
        return found

    def _spread(self, function: Callable[[Any], Any], items: Sequence[Any]) -> Iterator[Any]:
        """Results in the order of the items, by threads where there may be any."""
        from joblib import Parallel, delayed

        if any(isinstance(estimator, Forest) for estimator in self.estimators.values()):
            return map(function, items)
        parallel = Parallel(n_jobs=self.n_jobs, prefer="threads", return_as="generator")
        return iter(parallel(delayed(function)(item) for item in items))


@dataclass(frozen=True, eq=False)
class _Screen:
    """Sources that are measured, scores of those behind them, outputs of all, and those that failed."""

    first: list[Screened]
    behind: tuple[SourceResult, ...]
    outputs: tuple[tuple[SourceEmbedding, Floats], ...]
    failed: dict[str, str]


@dataclass
class _Count:
    """Steps done, told to whoever asked."""

    progress: Progress | None
    total: int
    done: int = 0

    def step(self, steps: int = 1) -> None:
        self.done += steps
        if self.progress is not None:
            self.progress(self.done, self.total)


@dataclass(frozen=True, eq=False)
class Measured:
    """Out-of-fold losses of a source on the sampled rows.

    Attributes
    ----------
    losses : ndarray of shape (m,)
        Of the head: absolute error, or 1 for a wrong label.
    alone : ndarray of shape (m,)
        The same of kernel ridge on the embedding alone.
    predictions : ndarray of shape (m, k)
        Of the head: the property, or the probabilities of the classes.
    """

    losses: Floats
    alone: Floats
    predictions: Floats


@dataclass(frozen=True, eq=False)
class _Part:
    """Some of the rows, with what learning on them takes."""

    rows: NDArray[np.intp]
    features: Features
    task: LearningTask
    distances: Floats  # between the rows, by the columns that are known without a source

    def kernel(self, distances: Floats, alpha: float | None = None) -> tuple[Floats, float]:
        """Out-of-fold predictions (m, k) of kernel ridge, and its penalty."""
        predictions, alpha = kernel_out_of_fold(distances, self.task.outputs, self.task.folds, alpha=alpha)
        return (indicators_to_probabilities(predictions) if self.task.n_classes else predictions), alpha


@dataclass(frozen=True, eq=False)
class _Quick:
    """What the screen knows of embeddings: their criterion, the penalty of kernel ridge, and their spectra."""

    criterion: float
    alpha: float | None
    loo_rmse: float
    spectra: Spectra


@dataclass(eq=False)
class _Work:
    """The stages, and what they share: the table, its parts, and the control."""

    search: Search
    rows: Rows
    described: Described
    features: Features
    layers: tuple[str, ...]
    failed_scores: dict[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.sampled = self.rows.sample(self.search.max_rows, self.search.random_state)
        self.whole = self._part(self.search.max_rows)
        self.few = self._part(self.search.screen_rows)
        self._numeric = self.rows.y.astype(np.float64)

    def _part(self, limit: int, *, n_folds: int = 5) -> _Part:
        """At most so many of the sampled rows."""
        within = self.rows.take(self.sampled).sample(limit, self.search.random_state)
        index = self.sampled[within]
        chosen = self.rows.take(index)
        folds = chosen.folds(n_folds=n_folds, random_state=self.search.random_state)
        task = LearningTask(chosen.y, len(chosen.classes), folds, self.search.random_state, self.search.n_jobs)
        features = self.features.take(index)
        blocks = without_fractions(features)
        return _Part(index, features, task, manhattan(features.stacked(blocks), features.stacked_weights(blocks)))

    # -- the control ----------------------------------------------------------------------------------------------

    def choose_control(self) -> tuple[Control, Floats]:
        """The best head without a source, chosen on some rows, and its losses (m,) on all that are sampled."""
        if self.search.combine == "embedding":
            X = self.whole.features.stacked(without_fractions(self.features))
            losses = self._forest_losses(X)
            forest = BlendMember(FOREST, without_fractions(self.features))
            return Control(forest, forest, {forest.name: float(losses.mean())}), losses
        enough = len(self.sampled) > _HEAD_ROWS
        part = self._part(_HEAD_ROWS, n_folds=3) if enough else self.whole
        control = Control.choose(part.features, part.task, head=self.search.head)
        (predictions,) = out_of_fold([control.member], self.whole.features, self.whole.task)
        return control, self.whole.task.errors(predictions)

    def _forest_losses(self, X: Floats) -> Floats:
        task = self.whole.task
        return out_of_bag_loss(X, task.y, classification=task.n_classes > 0, random_state=task.random_state)

    # -- embed and screen -----------------------------------------------------------------------------------------

    def recall_or_screen(self, memory: Memory | None, source: Source) -> tuple[str, _Candidate | str]:
        """Name of a source, and what is known of it, or the reason why it cannot be embedded."""
        known = memory.recall(source.card.name) if memory is not None else None
        if known is not None:
            return source.card.name, _Candidate(*known, None)
        found = self.embed_and_screen(source)
        if isinstance(found, str):
            return source.card.name, found
        return source.card.name, _Candidate(found.result, found.criterion, found)

    def screen_again(self, name: str, sources: Sequence[Source]) -> Screened | str:
        """Embed a source that was only remembered."""
        return self.embed_and_screen(next(source for source in sources if source.card.name == name))

    def embed_and_screen(self, source: Source) -> Screened | str:
        """What the screen finds of a source, or the reason why it cannot be embedded."""
        started = time.perf_counter()
        try:
            return self._embed_and_screen(source, started)
        except (Exception, SystemExit) as error:  # one source must not end the run, whatever it raises
            return str(error) or type(error).__name__

    def _embed(self, source: Source) -> Mapping[str, list[tuple[SourceEmbedding, Embedded]]]:
        """Embed by all layers that are wanted; one without an output is ranked without it."""
        layers = tuple(layer for layer in self.layers if layer in source.card.layers or layer == self.search.layer)
        try:
            return source.embed(self.described, layers, self.search.look_up)
        except (Exception, SystemExit):
            if len(layers) == 1:
                raise
            return source.embed(self.described, (self.search.layer,), self.search.look_up)

    def _embed_and_screen(self, source: Source, started: float) -> Screened:
        found = self._embed(source)
        options = varying(found[self.search.layer])
        screened = [self._quick(embedded.values) for _, embedded in options]
        best = min(range(len(options)), key=lambda i: screened[i].criterion)
        (embedding, embedded), quick = options[best], screened[best]
        card = source.card
        result = SourceResult(
            source=card.name,
            property=card.property,
            unit=card.unit,
            scores=self._scores(card.name, quick.spectra),
            loo_rmse=quick.loo_rmse,
            looked_up=int(embedded.looked_up.sum()),
            bridged=int((~embedded.looked_up & ~embedded.refused).sum()),
            refused=int(embedded.refused.sum()),
            seconds=time.perf_counter() - started,
        )
        output = found[OUTPUT_LAYER][0] if OUTPUT_LAYER in found and OUTPUT_LAYER in self.layers else None
        kept = None if output is None else (output[0], output[1].values)
        return Screened(result, quick.criterion, embedding, embedded.values, quick.alpha, kept)

    def _quick(self, values: Floats) -> _Quick:
        """Scores by which embeddings (n, d) of all rows are compared."""
        spectra = Spectra(values)
        ridge = None if self.rows.classification else LOORidge().fit(spectra, self._numeric)
        loo_rmse = float("nan") if ridge is None else -float(ridge.score_)
        if self.search.screen == "ridge" and ridge is not None:
            return _Quick(float(ridge.mae_), None, loo_rmse, spectra)
        part = self.few
        own = manhattan(values[part.rows])
        alone, alpha = part.kernel(own)
        quick = part.task.error(alone)
        if self.search.combine == "concat":
            both, _ = part.kernel(part.distances + own)
            quick = float(criterion(np.array(part.task.error(both)), np.array(quick), len(part.rows)))
        return _Quick(quick, alpha, loo_rmse, spectra)

    def _scores(self, source: str, spectra: Spectra) -> dict[str, float]:
        """Scores of the estimators that were asked for; NaN where one fails."""
        scores: dict[str, float] = {}
        for name, estimator in self.search.estimators.items():
            try:
                scores[name] = float(clone(estimator).fit(spectra, self.rows.y).score_)
            except Exception as error:  # one estimator must not cost the source, whatever it raises
                scores[name] = float("nan")
                self.failed_scores.setdefault(name, f"{source}: {error or type(error).__name__}")
        return scores

    # -- measure --------------------------------------------------------------------------------------------------

    def measure(self, head: BlendMember, item: Screened) -> tuple[Screened, Measured | str]:
        """A source with its losses, or the reason why there are none."""
        started = time.perf_counter()
        try:
            measured = self._measure(head, item)
        except (Exception, SystemExit) as error:  # one source must not end the run, whatever it raises
            return item, str(error) or type(error).__name__
        seconds = item.result.seconds + time.perf_counter() - started
        return replace(item, result=replace(item.result, seconds=seconds)), measured

    def _measure(self, head: BlendMember, item: Screened) -> Measured:
        part, task = self.whole, self.whole.task
        Z = item.values[part.rows]
        own = manhattan(Z)
        alone, _ = part.kernel(own, alpha=item.alpha)
        if self.search.combine == "embedding":
            losses = self._forest_losses(Z)
            return Measured(losses, task.errors(alone), alone)
        if head.head == "kernel ridge":
            predictions, _ = part.kernel(part.distances + own)
        else:
            columns = {**part.features.columns, item.result.source: Z}
            beside = replace(head, blocks=(*head.blocks, item.result.source), transfers=True)
            (predictions,) = out_of_fold([beside], Features(columns, part.features.weights), task)
        return Measured(task.errors(predictions), task.errors(alone), predictions)

    # -- judge ----------------------------------------------------------------------------------------------------

    def judge(self, control: Floats, measured: Sequence[Measured]) -> Judgement:
        """Judge the sources that were measured."""
        task = self.whole.task
        m, k = task.outputs.shape
        middle = task.outputs.mean(axis=0) if task.n_classes else np.median(task.outputs, axis=0)
        return judge(
            control,
            np.array([found.losses for found in measured]).reshape(len(measured), m),
            np.array([found.alone for found in measured]).reshape(len(measured), m),
            np.array([found.predictions for found in measured]).reshape(len(measured), m, k),
            task.errors,
            task.errors(np.tile(middle, (m, 1))),
            alone_weight=1.0 if self.search.combine == "embedding" else None,
            random_state=task.random_state,
        )
