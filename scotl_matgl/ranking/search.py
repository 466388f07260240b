"""The engine: which sources are worth transferring from, found in four stages: embed, screen, measure, judge."""

from __future__ import annotations

import heapq
import itertools
import os
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import lru_cache, partial
from typing import Any, Literal, TypeAlias

import numpy as np

from scotl_matgl.bridges.embedding import LookUpChoice, SourceEmbedding
from scotl_matgl.descriptors.described import Described
from scotl_matgl.estimators import Forest, TransferabilityEstimator
from scotl_matgl.exceptions import DegenerateScoreWarning
from scotl_matgl.learners.members import Features
from scotl_matgl.ranking.control import Control
from scotl_matgl.ranking.judge import Judgement
from scotl_matgl.ranking.layers import LayerChoice
from scotl_matgl.ranking.result import Ranking, SourceResult
from scotl_matgl.ranking.stages import Measured, Memory, Screened, Source, Stages
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
    held_out : mapping of str to ndarray of shape (n, k)
        Out-of-fold predictions of the heads without a source, by name, where they were compared on all rows.
    """

    ranking: Ranking
    control: Control
    measured: tuple[Screened, ...]
    outputs: tuple[tuple[SourceEmbedding, Floats], ...]
    held_out: Mapping[str, Floats]


@dataclass(frozen=True, kw_only=True)
class Search:
    """Settings of a search; :class:`~scotl_matgl.TransferabilityRanker` says what they mean.

    `screen` is what the first sources are chosen by: the criterion of the order, by kernel ridge on at most
    `screen_rows` rows, or ``"ridge"``, the exact leave-one-out error of ridge regression on the embedding, for very
    many small networks. Of several layers each source takes the best by the same criterion.
    """

    estimators: Mapping[str, TransferabilityEstimator] = field(default_factory=dict)
    head: Any = "auto"
    screen: Literal["kernel", "ridge"] = "kernel"
    layer: LayerChoice = "readout"
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

        Sources are spread over threads, or over what ``joblib.parallel_config`` says: processes, a cluster of dask.
        Nothing depends on which, nor on the order in which they come back.
        """
        from joblib import Parallel, parallel_config
        from threadpoolctl import threadpool_limits

        count = _Count(progress, 1 + len(sources) + min(len(sources), self.max_measured))
        parallel = Parallel(n_jobs=self.n_jobs, prefer="threads", return_as="generator")
        # One thread to algebra and boosting: small matrices gain nothing from more, and threads that wait for each
        # other on a busy machine have taken a hundred times longer. n_jobs spreads sources and trees instead.
        # All else that calls joblib, as forests do, stays here: from elsewhere trees come, and are added, in any order.
        with warnings.catch_warnings(), threadpool_limits(1), parallel_config("threading"):
            # A degenerate score shows as NaN in the table; a warning for each source would say no more. Here and not
            # in the threads, which restore each other's filters: those of scikit-learn's checks are undone here too.
            warnings.simplefilter("ignore", DegenerateScoreWarning)
            stages = Stages(self, rows, described, features, outputs)
            stages.control_losses.mean()
            count.step()
            spread = partial(self._spread, parallel)
            screen = self._screen(sources, stages, count, memory, spread)
            measured, failed = self._measure(screen.first, stages, count, spread)
            judgement = stages.judge([[found for _, found in by_layer] for by_layer in measured])
        kept = [measured[i][judgement.taken[i]] for i in judgement.order]
        ranking = self._ranking(stages, judgement, kept, screen, screen.failed | failed)
        measured_sources = tuple(item for item, _ in kept)
        return Found(ranking, stages.control, measured_sources, screen.outputs, stages.held_out)

    def _ranking(
        self,
        stages: Stages,
        judgement: Judgement,
        kept: Sequence[tuple[Screened, Measured]],
        screen: _Screen,
        failed: dict[str, str],
    ) -> Ranking:
        rows, described, control = stages.rows, stages.described, stages.control
        losses = np.array([found.losses for _, found in kept])
        return Ranking(
            results=tuple(item.result for item, _ in kept),
            losses=losses.reshape(len(kept), len(stages.control_losses)),
            control=stages.control_losses,
            judgement=judgement,
            screened=screen.behind,
            head=control.head.name,
            control_name=control.member.name,
            control_errors=control.errors,
            errors=failed,
            unscored=screen.unscored,
            skipped=rows.skipped,
            remarks=rows.remarks,
            n_rows=len(rows),
            n_merged=rows.n_merged,
            columns=rows.names,
            classification=rows.classification,
            combine=self.combine,
            random_state=self.random_state,
            imputed=described.descriptor.imputed_elements(described.compositions),
            settings={
                "descriptor": repr(described.descriptor),
                "descriptor_fingerprint": described.fingerprint(),
                "layer": self.layer if isinstance(self.layer, str) else list(self.layer),
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

    def _screen(
        self, sources: Sequence[Source], stages: Stages, count: _Count, memory: Memory | None, spread: _Spread
    ) -> _Screen:
        """Embed and screen every source that is not remembered; keep the embeddings of the first."""
        first: list[_Candidate] = []
        behind: list[_Candidate] = []
        failed: dict[str, str] = {}
        unscored: dict[str, str] = {}
        outputs: list[tuple[SourceEmbedding, Floats]] = []
        most = self._n_measured(stages)
        remembered, new = _remembered(sources, memory)
        screened = zip(new, spread(stages.to_screen().screen, (sources[place] for place in new)), strict=True)
        for place, found in itertools.chain(remembered, screened):
            count.step()
            if isinstance(found, str):
                failed[sources[place].name] = found
                continue
            if isinstance(found, Screened):
                for name, why in found.unscored.items():
                    unscored.setdefault(name, f"{found.result.source}: {why}")
                outputs += [found.output] if found.output is not None else []
                if memory is not None:
                    memory.keep(found.result, found.criterion)
            candidate = _Candidate.of(place, found)
            heapq.heappush(first, candidate)
            if most is not None and len(first) > most:
                behind.append(replace(heapq.heappop(first), screened=None))
        whole = []
        for candidate in sorted(first, reverse=True):
            again = candidate.screened or stages.screen(sources[candidate.place])
            if isinstance(again, str):
                failed[candidate.result.source] = again
            else:
                whole.append(again)
        others = tuple(candidate.result for candidate in sorted(behind, reverse=True))
        return _Screen(whole, others, tuple(outputs), failed, unscored)

    def _measure(
        self, first: Sequence[Screened], stages: Stages, count: _Count, spread: _Spread
    ) -> tuple[list[list[tuple[Screened, Measured]]], dict[str, str]]:
        """Measure the first sources with the head, each by its layers; and why those failed that did by all of them."""
        found: list[list[tuple[Screened, Measured]]] = [[] for _ in first]
        failed: dict[str, str] = {}
        layers = [(replace(item, others=()), *item.others) for item in first]
        places = [place for place, of_source in enumerate(layers) for _ in of_source]
        items = itertools.chain.from_iterable(layers)
        # scikit-learn's forests start threads of their own and handle warnings in them as no other thread may at that
        # time: they come one after the other.
        measure = (spread if stages.measures_by_kernel else map)(stages.to_measure().measure, items)
        waiting = [len(of_source) for of_source in layers]
        for place, (item, measured) in zip(places, measure, strict=True):
            if isinstance(measured, str):
                failed.setdefault(item.result.source, measured)
            else:
                found[place].append((item, measured))
            waiting[place] -= 1
            if not waiting[place]:
                count.step()
        lost = [item.result.source for item, of_source in zip(first, found, strict=True) if not of_source]
        return [of_source for of_source in found if of_source], {name: failed[name] for name in lost}

    def _spread(self, parallel: Any, function: Callable[[Any], Any], items: Iterable[Any]) -> Iterator[Any]:
        """Results in the order of the items, by threads or other workers where there may be any."""
        from joblib import delayed

        if any(isinstance(estimator, Forest) for estimator in self.estimators.values()):
            return map(function, items)
        return iter(parallel(delayed(_in_worker)(function, os.getpid(), item) for item in items))


#: From a function and items to its results, in order.
_Spread: TypeAlias = Callable[[Callable[[Any], Any], Iterable[Any]], Iterator[Any]]


def _in_worker(function: Callable[[Any], Any], caller: int, item: Any) -> Any:
    """Result of a function in whatever process this is."""
    if os.getpid() != caller:
        _settle(os.getpid())
    return function(item)


@lru_cache(maxsize=1)
def _settle(process: int) -> None:  # noqa: ARG001 - a process that was forked settles for itself
    """Make a process of workers compute as the one that called it; it stays so, since threads may share it."""
    from threadpoolctl import threadpool_limits

    threadpool_limits(1)
    warnings.simplefilter("ignore", DegenerateScoreWarning)


def _remembered(
    sources: Sequence[Source], memory: Memory | None
) -> tuple[list[tuple[int, tuple[SourceResult, float]]], list[int]]:
    """Places of the sources that were screened before, with what was found, and of the others."""
    if memory is None:
        return [], list(range(len(sources)))
    known = [memory.recall(source.name) for source in sources]
    old = [(place, found) for place, found in enumerate(known) if found is not None]
    return old, [place for place, found in enumerate(known) if found is None]


@dataclass(frozen=True, eq=False)
class _Candidate:
    """A source by its criterion; of one that is dropped or only remembered, no more is known than its scores."""

    result: SourceResult
    criterion: float
    place: int
    screened: Screened | None

    @classmethod
    def of(cls, place: int, found: Screened | tuple[SourceResult, float]) -> _Candidate:
        """Candidate at a place among the sources."""
        if isinstance(found, Screened):
            return cls(found.result, found.criterion, place, found)
        return cls(*found, place, None)

    def __lt__(self, other: _Candidate) -> bool:
        """Whether it is behind another one, so that a heap has the last of them on top."""
        return (self.criterion, self.result.source) > (other.criterion, other.result.source)


@dataclass(frozen=True, eq=False)
class _Screen:
    """Sources that are measured, scores of those behind them, outputs of all, and sources and scores that failed."""

    first: list[Screened]
    behind: tuple[SourceResult, ...]
    outputs: tuple[tuple[SourceEmbedding, Floats], ...]
    failed: dict[str, str]
    unscored: dict[str, str]


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
