"""Rank sources for a table of formulas and one measured property, without retraining any of them."""

from __future__ import annotations

import time
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any, Literal, Self

import numpy as np
from numpy.typing import ArrayLike, NDArray
from sklearn.base import BaseEstimator, clone
from sklearn.utils.validation import check_is_fitted

from scotl_matgl.bridges.embedding import embeddings, varying
from scotl_matgl.chemistry.compositions import parse_compositions
from scotl_matgl.descriptors.base import CompositionDescriptor
from scotl_matgl.descriptors.composite import get_descriptor
from scotl_matgl.estimators import (
    Forest,
    LOORidge,
    TransferabilityEstimator,
    left_out,
    named_estimators,
    rank_average,
)
from scotl_matgl.estimators.spectrum import Spectra
from scotl_matgl.exceptions import DegenerateScoreWarning, InputError, ScotlMatglWarning
from scotl_matgl.learners.heads import FOREST, HEADS, out_of_bag_loss, out_of_fold_loss
from scotl_matgl.learners.kernel import manhattan
from scotl_matgl.ranking.result import MEAN_RANK, Ranking, SourceResult
from scotl_matgl.sources.cards import SourceCard, all_cards, select
from scotl_matgl.storage import installed_versions
from scotl_matgl.tables.folds import Folds, make_folds
from scotl_matgl.tables.table import MIN_ROWS, Table
from scotl_matgl.vocabulary import Floats

#: Scores whose mean rank orders sources for those who train on the embedding alone: of all that were measured on
#: fourteen tables (docs/ranking_quality.md) it does so best. "kernel" is minus the out-of-fold error of kernel ridge.
EMBEDDING_SCORES = ("forest", "kernel", "loo", "logme")

# Rows on which the kinds of head are compared, and on which sources are before the first of them are measured.
_HEAD_ROWS = 400
_SCREEN_ROWS = 300

Progress = Callable[[int, int], None]


class TransferabilityRanker(BaseEstimator):  # type: ignore[misc]  # scikit-learn is not typed
    """Rank pretrained models by how well they transfer to a table of formulas and one measured property.

    For each source the formulas' embeddings are estimated by its bridge (or looked up, or computed, see
    :func:`~scotl_matgl.bridges.embedding.embeddings`), scored by the transferability estimators, and put beside the
    descriptors to measure how far the out-of-fold error falls below that of the descriptors alone: the control "no
    transfer".

    Parameters
    ----------
    sources : "all", str, SourceCard or list of these, default="all"
        Which sources; names may hold ``*``.
    descriptor : str or CompositionDescriptor, default="standard"
        Describes the formulas, for the bridges and for the control.
    estimators : sequence of str or TransferabilityEstimator, default=("loo", "logme", "scotl")
        Registered names or unfitted objects. Those that do not take the kind of target, or need the source's own
        output, are left out and listed in ``ranking_.unscored``.
    layer : str, default="readout"
        Layer of the sources.
    look_up : "auto", True or False, default="auto"
        Whether formulas that are crystals of the corpus take the embedding of their crystal; ``"auto"`` chooses for
        each source by the leave-one-out error of ridge regression.
    combine : {"concat", "embedding"}, default="concat"
        What will be trained on after transfer: descriptors beside the embedding, or the embedding alone. It decides
        the order and what errors are of; see Notes.
    task : {"auto", "regression", "classification"}, default="auto"
        Kind of target. ``"auto"``: text, booleans and at most 20 different whole numbers are class labels; where most
        values are numbers, text among them is a missing measurement.
    max_rows : int, default=1000
        Error and gain are measured on at most so many formulas, drawn at random, which bounds the time; the estimators
        see all.
    max_measured : int, default=8
        Error and gain are measured for at most so many sources. Of more, those come in whose mean rank by two quick
        scores is best: out-of-fold error of kernel ridge on at most 300 rows, and leave-one-out error of ridge
        regression on the embedding. The others are listed behind them with their scores (``ranking_.screened``).
    n_jobs : int, optional
        Threads over sources, or over the trees of a forest, as in joblib.
    on_error : {"warn", "raise", "skip"}, default="warn"
        What a bad row or source does: one warning that counts and names them, an error, or nothing but its line in the
        result.
    target_unit : str, default=""
        Unit of the target, for the result.
    random_state : int, default=0
        Seed of folds, heads, bootstrap, and of estimators given by name.

    Attributes
    ----------
    ranking_ : Ranking
        The result.
    best_source_ : str
        Name of the first source if transfer helps, else ``"no transfer"``.
    errors_ : dict of str to str
        Sources that failed and why; with ``sources="all"`` also zoos that could not be read.

    Notes
    -----
    With ``combine="concat"`` sources are ordered by the out-of-fold error of the head on descriptors beside the
    embedding, the head being the best of extra trees, gradient boosting and kernel ridge on the descriptors alone; the
    same folds serve all, so that differences are paired.

    With ``combine="embedding"`` they are ordered by the mean rank of four scores of the embedding, `EMBEDDING_SCORES`
    (three for class labels). Errors are out of bag, of a random forest on the embedding alone; the control is the same
    forest on the descriptors alone. All forests draw the same rows, so that differences are paired here too. As the
    order is not that of these errors, the gain need not fall from source to source.

    Rows of equal composition are merged (median of the property, most frequent label), as a
    row must not be predicted from its double.

    Examples
    --------
    >>> from scotl_matgl import TransferabilityRanker
    >>> from scotl_matgl.tables.files import load_example
    >>> table = load_example()
    >>> ranker = TransferabilityRanker(sources="MEGNet*").fit(table["formula"], table["target"])
    >>> ranker.best_source_
    'MEGNet-MP-2018.6.1-Eform'
    """

    def __init__(
        self,
        sources: Any = "all",
        *,
        descriptor: Any = "standard",
        estimators: Sequence[Any] = ("loo", "logme", "scotl"),
        layer: str = "readout",
        look_up: bool | Literal["auto"] = "auto",
        combine: Literal["concat", "embedding"] = "concat",
        task: Literal["auto", "regression", "classification"] = "auto",
        max_rows: int = 1000,
        max_measured: int = 8,
        n_jobs: int | None = None,
        on_error: Literal["warn", "raise", "skip"] = "warn",
        target_unit: str = "",
        random_state: int = 0,
    ) -> None:
        self.sources = sources
        self.descriptor = descriptor
        self.estimators = estimators
        self.layer = layer
        self.look_up = look_up
        self.combine = combine
        self.task = task
        self.max_rows = max_rows
        self.max_measured = max_measured
        self.n_jobs = n_jobs
        self.on_error = on_error
        self.target_unit = target_unit
        self.random_state = random_state

    def fit(self, formulas: Any, y: ArrayLike, *, progress: Progress | None = None) -> Self:
        """Rank the sources for a table.

        Parameters
        ----------
        formulas : sequence
            Formulas: all that :func:`~scotl_matgl.parse_compositions` reads.
        y : array-like of shape (n,)
            Measured property, or class labels.
        progress : callable, optional
            Called with (done, total) steps.

        Returns
        -------
        self

        Raises
        ------
        CompositionError
            With ``on_error="raise"``, for the first bad row.
        InputError
            If fewer than 10 different compositions remain, the target is constant, or a parameter is wrong.
        RuntimeError
            With ``on_error="raise"``, if a source failed; ``ranking_`` holds the others.
        """
        self._check_parameters()
        table = Table.read(formulas, y, task=self.task, strict=self.on_error == "raise")
        # Zoos that fail belong to the result if all sources were asked for; otherwise they are worth a warning.
        lost_zoos: dict[str, str] = {}
        everything = isinstance(self.sources, str) and self.sources == "all"
        cards = select(all_cards(lost_zoos.__setitem__ if everything else None), self.sources)
        descriptor = get_descriptor(self.descriptor)
        X = np.asarray(descriptor.fit(table.compositions).transform(table.compositions), dtype=np.float64)
        wanted = [self.estimators] if isinstance(self.estimators, str) else list(self.estimators)
        estimators = named_estimators(wanted, classification=table.classification, random_state=self.random_state)
        unscored = left_out(wanted, classification=table.classification)

        from joblib import Parallel, delayed
        from threadpoolctl import threadpool_limits

        rows = table.sample(self.max_rows, self.random_state)
        job = _Job(self, table, descriptor, X, estimators, rows)
        heads = HEADS if self.combine == "concat" else (FOREST,)
        steps = len(heads) + len(cards) + min(len(cards), self.max_measured)
        done = 0

        def count(values: Any) -> list[Any]:
            nonlocal done
            collected = []
            for value in values:
                collected.append(value)
                done += 1
                if progress is not None:
                    progress(done, steps)
            return collected

        def spread(work: Callable[..., Any], items: Sequence[Any], *more: Any, forests: bool) -> list[Any]:
            # scikit-learn's forests start threads of their own and handle warnings in them as no other thread may at
            # that time: they come one after the other.
            if forests:
                return count(work(item, *more) for item in items)
            return count(parallel(delayed(work)(item, *more) for item in items))

        parallel = Parallel(n_jobs=self.n_jobs, prefer="threads", return_as="generator")
        has_forest = any(isinstance(estimator, Forest) for estimator in estimators.values())
        # One thread to algebra and boosting: small matrices gain nothing from more, and threads that wait for each
        # other on a busy machine have taken a hundred times longer. n_jobs spreads sources and trees instead.
        with warnings.catch_warnings(), threadpool_limits(1):
            # A degenerate score shows as NaN in the table; a warning for each source would say no more. Here and not
            # in the threads, which restore each other's filters: those of scikit-learn's checks are undone here too.
            warnings.simplefilter("ignore", DegenerateScoreWarning)
            errors = dict(zip(heads, spread(job.head_error, heads, forests=True), strict=True))
            head = min(errors, key=errors.__getitem__)
            control = job.control(head)
            prepared = spread(job.prepare, cards, forests=has_forest)
            failed = {card.name: item for card, item in zip(cards, prepared, strict=True) if isinstance(item, str)}
            screened = _screen([item for item in prepared if isinstance(item, _Prepared)])
            chosen = screened[: self.max_measured]
            outcomes = spread(job.measure, chosen, head, forests=head != "kernel ridge")

        failed |= {item.result.source: loss for item, (_, loss) in zip(chosen, outcomes, strict=True) if _is_text(loss)}
        ranked = [(result, loss) for result, loss in outcomes if not _is_text(loss)]
        ranked = _by_error(ranked) if self.combine == "concat" else _by_mean_rank(ranked)
        self.errors_ = failed | lost_zoos
        self.ranking_ = Ranking(
            results=tuple(result for result, _ in ranked),
            losses=np.array([loss for _, loss in ranked]).reshape(len(ranked), len(rows)),
            screened=tuple(item.result for item in screened[self.max_measured :]),
            control=control,
            head=head,
            control_errors=errors,
            errors=self.errors_,
            unscored=unscored | job.failed_scores,
            skipped=table.skipped,
            n_rows=len(table.compositions),
            n_merged=table.n_merged,
            classification=table.classification,
            target=str(getattr(y, "name", None) or ""),
            target_unit=self.target_unit,
            imputed=descriptor.imputed_elements(table.compositions),
            settings={
                "descriptor": repr(descriptor),
                "descriptor_fingerprint": descriptor.fingerprint(),
                "layer": self.layer,
                "look_up": self.look_up,
                "combine": self.combine,
                "random_state": self.random_state,
                "versions": installed_versions(),
            },
        )
        self.best_source_ = self.ranking_.best
        self._report()
        return self

    def _check_parameters(self) -> None:
        """Raise if a parameter is none of what it may be."""
        if self.on_error not in ("warn", "raise", "skip"):
            raise InputError(f"on_error is {self.on_error!r}; it must be 'warn', 'raise' or 'skip'")
        if self.look_up not in ("auto", True, False):
            raise InputError(f"look_up is {self.look_up!r}; it must be 'auto', True or False")
        if self.combine not in ("concat", "embedding"):
            raise InputError(f"combine is {self.combine!r}; it must be 'concat' or 'embedding'")
        if self.task not in ("auto", "regression", "classification"):
            raise InputError(f"task is {self.task!r}; it must be 'auto', 'regression' or 'classification'")
        for name, least in (("max_rows", MIN_ROWS), ("max_measured", 1), ("random_state", 0)):
            value = getattr(self, name)
            if not isinstance(value, int | np.integer) or value < least:
                raise InputError(f"{name} is {value!r}; it must be a whole number of at least {least}")

    def _report(self) -> None:
        """Raise or warn about what went wrong, as `on_error` says."""
        if self.on_error == "raise" and self.errors_:
            source, reason = next(iter(self.errors_.items()))
            more = f" (and {len(self.errors_) - 1} more sources)" if len(self.errors_) > 1 else ""
            raise RuntimeError(f"{source} cannot be ranked: {reason}{more}")
        if self.on_error == "warn":
            parts = []
            if self.ranking_.skipped:
                first = self.ranking_.skipped[0]
                parts.append(
                    f"{len(self.ranking_.skipped)} rows were skipped, the first is row {first.row} ({first.value}): "
                    f"{first.reason}"
                )
            if self.errors_:
                source, reason = next(iter(self.errors_.items()))
                parts.append(f"{len(self.errors_)} sources were not ranked, the first is {source}: {reason}")
            if parts:
                warnings.warn("; ".join(parts) + " (all are listed in ranking_)", ScotlMatglWarning, stacklevel=3)

    def transform(self, formulas: Any) -> Floats:
        """Embedding Ẑ (n, d) of formulas by the first source of the ranking, whether or not transfer helps."""
        check_is_fitted(self, "ranking_")
        if not self.ranking_.results:
            raise ValueError("no source could be ranked, so there is no embedding; errors_ says why")
        compositions = parse_compositions(formulas)
        descriptor = get_descriptor(self.descriptor)
        X = np.asarray(descriptor.fit(compositions).transform(compositions), dtype=np.float64)
        first = self.ranking_.results[0]
        card = select(all_cards(lambda *_: None), self.sources)  # fit has said what failed
        chosen = next(item for item in card if item.name == first.source)
        *_, (_, embedded) = embeddings(
            chosen, compositions, X, descriptor, layer=self.layer, look_up=first.looked_up > 0
        )
        return embedded.values


@dataclass(frozen=True, eq=False)
class _Prepared:
    """A source whose embeddings and scores are known, and whose error may be measured.

    Attributes
    ----------
    result : SourceResult
    Z : ndarray of shape (m, d)
        Embeddings of the rows on which errors are measured.
    spectra : Spectra
        Of the embeddings of all rows.
    quick : tuple of float
        Scores that decide whether its error is measured, higher is better.
    """

    result: SourceResult
    Z: Floats
    spectra: Spectra
    quick: tuple[float, float]


def _screen(prepared: list[_Prepared]) -> list[_Prepared]:
    """Sources by the mean rank of their quick scores, best first."""
    if not prepared:
        return []
    ranks = rank_average([item.quick for item in prepared])
    return [prepared[i] for i in np.argsort(-np.nan_to_num(ranks, nan=-1.0), kind="stable")]


def _is_text(value: Any) -> bool:
    return isinstance(value, str)


def _by_error(ranked: list[tuple[SourceResult, Floats]]) -> list[tuple[SourceResult, Floats]]:
    """Results and losses, the smallest mean loss first."""
    return sorted(ranked, key=lambda item: float(item[1].mean()))


def _by_mean_rank(ranked: list[tuple[SourceResult, Floats]]) -> list[tuple[SourceResult, Floats]]:
    """Results, with their mean rank by `EMBEDDING_SCORES` among the scores, and losses, the best rank first.

    The smaller loss decides between equal ranks; a source of which no score is known comes last.
    """
    if not ranked:
        return []
    table = [[result.scores.get(name, np.nan) for name in EMBEDDING_SCORES] for result, _ in ranked]
    ranks = rank_average(table)
    order = sorted(range(len(ranked)), key=lambda i: (-np.nan_to_num(ranks[i], nan=-1.0), float(ranked[i][1].mean())))
    scored = [
        (replace(result, scores={MEAN_RANK: float(r), **result.scores}), loss)
        for (result, loss), r in zip(ranked, ranks, strict=True)
    ]
    return [scored[i] for i in order]


@dataclass(frozen=True, eq=False)
class _Part:
    """Rows, of those on which errors are measured, their targets and folds."""

    rows: NDArray[np.intp]
    y: NDArray[Any]
    folds: Folds


@dataclass(frozen=True, eq=False)
class _Job:
    """What is shared by the work on all sources of one table."""

    ranker: TransferabilityRanker
    table: Table
    descriptor: CompositionDescriptor
    X: Floats
    estimators: Mapping[str, TransferabilityEstimator]
    rows: NDArray[np.intp]

    failed_scores: dict[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        described = np.nan_to_num(self.X[self.rows])
        object.__setattr__(self, "_described", described)
        object.__setattr__(self, "_distances", manhattan(described))
        order = np.random.default_rng(self.ranker.random_state).permutation(len(self.rows))
        few, fewest = np.sort(order[:_HEAD_ROWS]), np.sort(order[:_SCREEN_ROWS])
        # Heads are compared in three folds where rows are plenty: trees take most of the time of a ranking.
        head_folds = 5 if len(few) < _HEAD_ROWS else 3
        for name, rows, n_folds in (
            ("_all", np.arange(len(self.rows)), 5),
            ("_few", few, head_folds),
            ("_fewest", fewest, 5),
        ):
            y = self.table.y[self.rows[rows]]
            folds = make_folds(
                y,
                classification=self.table.classification,
                n_folds=n_folds,
                random_state=self.ranker.random_state,
            )
            object.__setattr__(self, name, _Part(rows, y, folds))

    _described: Any = None
    _distances: Any = None
    _all: Any = None
    _few: Any = None
    _fewest: Any = None

    def head_error(self, head: str) -> float:
        """Mean loss of a head on descriptors alone, on as many rows as it takes to choose one."""
        return float(self._loss(head, self._described, self._distances, self._few).mean())

    def control(self, head: str) -> Floats:
        """Loss (m,) of a head on descriptors alone."""
        return self._loss(head, self._described, self._distances, self._all)

    def _loss(self, head: str, X: Floats, distances: Floats | None, part: _Part) -> Floats:
        """Loss on rows not seen: out of bag for the forest, out of fold for other heads."""
        classification, seed = self.table.classification, self.ranker.random_state
        if head == FOREST:
            return out_of_bag_loss(X[part.rows], part.y, classification=classification, random_state=seed)
        near = None if distances is None else distances[np.ix_(part.rows, part.rows)]
        return out_of_fold_loss(
            head,
            X[part.rows],
            part.y,
            part.folds,
            distances=near,
            classification=classification,
            random_state=seed,
            n_jobs=self.ranker.n_jobs,
        )

    def _score(self, estimator: TransferabilityEstimator, spectra: Spectra) -> float:
        return float(clone(estimator).fit(spectra, self.table.y).score_)

    def _kernel_score(self, Z: Floats) -> float:
        return -float(self._loss("kernel ridge", Z, None, self._all).mean())

    def prepare(self, card: SourceCard) -> _Prepared | str:
        """Embeddings and scores of a source, or the reason why there are none."""
        started = time.perf_counter()
        try:
            return self._prepare(card, started)
        except (Exception, SystemExit) as error:  # one source must not end the run, whatever it raises
            return str(error) or type(error).__name__

    def _prepare(self, card: SourceCard, started: float) -> _Prepared:
        ways = embeddings(
            card,
            self.table.compositions,
            self.X,
            self.descriptor,
            layer=self.ranker.layer,
            look_up=self.ranker.look_up,
        )
        candidates = [embedded for _, embedded in varying(ways)]
        numeric = self.table.y.astype(np.float64)
        spectra = [Spectra(candidate.values) for candidate in candidates]
        ridge = [LOORidge().fit(item, numeric).score_ for item in spectra]
        best = int(np.argmax(ridge))
        embedded = candidates[best]
        Z = embedded.values[self.rows]
        scores = self._scores(
            card.name, {name: partial(self._score, item, spectra[best]) for name, item in self.estimators.items()}
        )
        result = SourceResult(
            source=card.name,
            property=card.property,
            unit=card.unit,
            scores=scores,
            loo_rmse=float("nan") if self.table.classification else -ridge[best],
            looked_up=int(embedded.looked_up.sum()),
            bridged=int((~embedded.looked_up & ~embedded.refused).sum()),
            refused=int(embedded.refused.sum()),
            seconds=time.perf_counter() - started,
        )
        return _Prepared(result, Z, spectra[best], (self._quick_score(Z), ridge[best]))

    def _quick_score(self, Z: Floats) -> float:
        """Minus the loss of kernel ridge on a few rows, on what the user will train on."""
        rows = self._fewest.rows
        distances = manhattan(Z[rows])
        if self.ranker.combine == "concat":
            distances += self._distances[np.ix_(rows, rows)]
        loss = out_of_fold_loss(
            "kernel ridge",
            Z[rows],
            self._fewest.y,
            self._fewest.folds,
            distances=distances,
            classification=self.table.classification,
        )
        return -float(loss.mean())

    def _scores(self, source: str, compute: Mapping[str, Callable[[], float]]) -> dict[str, float]:
        scores: dict[str, float] = {}
        for name, score in compute.items():
            try:
                scores[name] = score()
            except Exception as error:  # one estimator must not cost the source, whatever it raises
                scores[name] = float("nan")
                self.failed_scores.setdefault(name, f"{source}: {error or type(error).__name__}")
        return scores

    def measure(self, item: _Prepared, head: str) -> tuple[SourceResult, Floats | str]:
        """Result and loss (m,) of a source, or the reason why there is no loss."""
        started = time.perf_counter()
        try:
            result, loss = self._measure(item, head)
        except (Exception, SystemExit) as error:  # one source must not end the run, whatever it raises
            return item.result, str(error) or type(error).__name__
        return replace(result, seconds=result.seconds + time.perf_counter() - started), loss

    def _measure(self, item: _Prepared, head: str) -> tuple[SourceResult, Floats]:
        if self.ranker.combine == "concat":
            distances = self._distances + manhattan(item.Z) if head == "kernel ridge" else None
            return item.result, self._loss(head, np.hstack([self._described, item.Z]), distances, self._all)
        # What the order needs is computed whether or not it was asked for.
        missing = [name for name in EMBEDDING_SCORES if name != "kernel" and name not in self.estimators]
        members = named_estimators(
            missing, classification=self.table.classification, random_state=self.ranker.random_state
        )
        compute = {name: partial(self._score, estimator, item.spectra) for name, estimator in members.items()}
        compute["kernel"] = partial(self._kernel_score, item.Z)
        scores = {**item.result.scores, **self._scores(item.result.source, compute)}
        return replace(item.result, scores=scores), self._loss(head, item.Z, None, self._all)
