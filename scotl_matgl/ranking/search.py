"""The engine: which sources are worth transferring from, found in four stages: embed, screen, measure, judge."""

from __future__ import annotations

import heapq
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any, Literal

import numpy as np

from scotl_matgl.bridges.embedding import LookUpChoice, SourceEmbedding
from scotl_matgl.descriptors.described import Described
from scotl_matgl.estimators import Forest, TransferabilityEstimator
from scotl_matgl.exceptions import DegenerateScoreWarning
from scotl_matgl.learners.members import Features
from scotl_matgl.ranking.control import Control
from scotl_matgl.ranking.judge import Judgement
from scotl_matgl.ranking.result import Ranking, SourceResult
from scotl_matgl.ranking.stages import OUTPUT_LAYER, Measured, Memory, Screened, Source, Stages
from scotl_matgl.storage import installed_versions
from scotl_matgl.tables.rows import Rows
from scotl_matgl.vocabulary import Floats, Progress


@dataclass(frozen=True, eq=False)
class Found:
    """What a search has found.

    Attributes
    ----------
    ranking : Ranking
    control : Control
        The heads without a source.
    measured : tuple of Screened
        Sources in the order of the ranking, with their embeddings.
    outputs : tuple of (SourceEmbedding, ndarray of shape (n, k))
        What all sources predict, if it was asked for.
    """

    ranking: Ranking
    control: Control
    measured: tuple[Screened, ...]
    outputs: tuple[tuple[SourceEmbedding, Floats], ...]


@dataclass(frozen=True, kw_only=True)
class Search:
    """Settings of a search; :class:`~scotl_matgl.TransferabilityRanker` says what they mean.

    `screen` is what the first sources are chosen by: the criterion of the order, by kernel ridge on at most
    `screen_rows` rows, or ``"ridge"``, the exact leave-one-out error of ridge regression on the embedding, for very
    many small networks.
    """

    estimators: Mapping[str, TransferabilityEstimator] = field(default_factory=dict)
    head: Any = "auto"
    screen: Literal["kernel", "ridge"] = "kernel"
    layer: str = "readout"
    look_up: LookUpChoice = "auto"
    combine: Literal["concat", "embedding"] = "concat"
    max_rows: int = 1000
    screen_rows: int = 300
    max_measured: int = 12
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
        Cost for n rows, at most 1,000 of them sampled: a source takes O(n d²) for its scores, two decompositions of at
        most 300 rows for the screen, and if it is measured two factorisations of all sampled rows.
        """
        from threadpoolctl import threadpool_limits

        layers = (self.layer, OUTPUT_LAYER) if outputs and self.layer != OUTPUT_LAYER else (self.layer,)
        count = _Count(progress, 1 + len(sources) + min(len(sources), self.max_measured))
        # One thread to algebra and boosting: small matrices gain nothing from more, and threads that wait for each
        # other on a busy machine have taken a hundred times longer. n_jobs spreads sources and trees instead.
        with warnings.catch_warnings(), threadpool_limits(1):
            # A degenerate score shows as NaN in the table; a warning for each source would say no more. Here and not
            # in the threads, which restore each other's filters: those of scikit-learn's checks are undone here too.
            warnings.simplefilter("ignore", DegenerateScoreWarning)
            stages = Stages(self, rows, described, features, layers)
            stages.control_losses.mean()
            count.step()
            screen = self._screen(sources, stages, count, memory)
            measured = self._measure(screen.first, stages, count)
            failed = screen.failed | {item.result.source: why for item, why in measured if isinstance(why, str)}
            kept = [(item, found) for item, found in measured if not isinstance(found, str)]
            judgement = stages.judge([found for _, found in kept])
        kept = [kept[i] for i in judgement.order]
        ranking = self._ranking(stages, judgement, kept, screen.behind, failed)
        return Found(ranking, stages.control, tuple(item for item, _ in kept), screen.outputs)

    def _ranking(
        self,
        stages: Stages,
        judgement: Judgement,
        kept: Sequence[tuple[Screened, Measured]],
        behind: tuple[SourceResult, ...],
        failed: dict[str, str],
    ) -> Ranking:
        rows, described, control = stages.rows, stages.described, stages.control
        losses = np.array([found.losses for _, found in kept])
        return Ranking(
            results=tuple(item.result for item, _ in kept),
            losses=losses.reshape(len(kept), len(stages.control_losses)),
            control=stages.control_losses,
            judgement=judgement,
            screened=behind,
            head=control.head.name,
            control_name=control.member.name,
            control_errors=control.errors,
            errors=failed,
            unscored=stages.failed_scores,
            skipped=rows.skipped,
            remarks=rows.remarks,
            n_rows=len(rows),
            n_merged=rows.n_merged,
            classification=rows.classification,
            combine=self.combine,
            random_state=self.random_state,
            imputed=described.descriptor.imputed_elements(described.compositions),
            settings={
                "descriptor": repr(described.descriptor),
                "descriptor_fingerprint": described.fingerprint(),
                "layer": self.layer,
                "look_up": self.look_up,
                "max_rows": self.max_rows,
                "max_measured": self.max_measured,
                "versions": installed_versions(),
            },
        )

    def _n_measured(self, stages: Stages) -> int | None:
        """How many sources are measured; None for all, where the screen has measured them already."""
        if stages.measures_by_kernel:
            return None if stages.all_in_screen and self.screen == "kernel" else self.max_measured
        return max(1, 2 * self.max_measured // 3)  # trees take longer

    def _screen(self, sources: Sequence[Source], stages: Stages, count: _Count, memory: Memory | None) -> _Screen:
        """Embed and screen every source; keep the embeddings of the first."""
        first: list[_Candidate] = []
        behind: list[_Candidate] = []
        failed: dict[str, str] = {}
        outputs: list[tuple[SourceEmbedding, Floats]] = []
        most = self._n_measured(stages)
        for name, found in self._spread(partial(_recall_or_screen, stages, memory), sources):
            count.step()
            if isinstance(found, str):
                failed[name] = found
                continue
            if found.screened is not None:
                outputs += [found.screened.output] if found.screened.output is not None else []
                if memory is not None:
                    memory.keep(found.result, found.criterion)
            heapq.heappush(first, found)
            if most is not None and len(first) > most:
                behind.append(replace(heapq.heappop(first), screened=None))
        by_name = {source.card.name: source for source in sources} if memory is not None else {}
        whole = []
        for candidate in sorted(first, reverse=True):
            name = candidate.result.source
            again = candidate.screened or stages.screen(by_name[name])
            if isinstance(again, str):
                failed[name] = again
            else:
                whole.append(again)
        others = tuple(candidate.result for candidate in sorted(behind, reverse=True))
        return _Screen(whole, others, tuple(outputs), failed)

    def _measure(
        self, first: Sequence[Screened], stages: Stages, count: _Count
    ) -> list[tuple[Screened, Measured | str]]:
        """Measure the first sources with the head."""
        found = []
        # scikit-learn's forests start threads of their own and handle warnings in them as no other thread may at that
        # time: they come one after the other.
        by_threads = stages.measures_by_kernel
        for item in self._spread(stages.measure, first) if by_threads else map(stages.measure, first):
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
class _Candidate:
    """A source by its criterion; of one that is dropped or only remembered, no more is known than its scores."""

    result: SourceResult
    criterion: float
    screened: Screened | None

    def __lt__(self, other: _Candidate) -> bool:
        """Whether it is behind another one, so that a heap has the last of them on top."""
        return (self.criterion, self.result.source) > (other.criterion, other.result.source)


def _recall_or_screen(stages: Stages, memory: Memory | None, source: Source) -> tuple[str, _Candidate | str]:
    """Name of a source, and what is known of it, or the reason why it cannot be embedded."""
    known = memory.recall(source.card.name) if memory is not None else None
    if known is not None:
        return source.card.name, _Candidate(*known, None)
    found = stages.screen(source)
    if isinstance(found, str):
        return source.card.name, found
    return source.card.name, _Candidate(found.result, found.criterion, found)


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

    def step(self) -> None:
        self.done += 1
        if self.progress is not None:
            self.progress(min(self.done, self.total), self.total)
