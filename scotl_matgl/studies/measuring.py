"""Measure what transfer from each source really gives, beside the scores that promise it."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray
from sklearn.base import clone

from scotl_matgl.bridges.embedding import Embedded, embed_source
from scotl_matgl.descriptors.composite import get_descriptor
from scotl_matgl.descriptors.described import Described
from scotl_matgl.estimators import LogME, LOORidge, TransferabilityEstimator, embedding_estimators, named_estimators
from scotl_matgl.estimators.spectrum import Spectra
from scotl_matgl.exceptions import DegenerateScoreWarning, ScotlMatglWarning
from scotl_matgl.learners.heads import FOREST, HEADS, make_head, out_of_fold_loss
from scotl_matgl.learners.kernel import manhattan
from scotl_matgl.sources.cards import SourceCard, all_cards, select
from scotl_matgl.studies.records import ResultsFile, number, truth
from scotl_matgl.tables.folds import Folds, make_folds
from scotl_matgl.tables.rows import Rows
from scotl_matgl.vocabulary import NO_TRANSFER, Floats

if TYPE_CHECKING:
    import pandas as pd


#: E: random forest on the embedding alone; D: the ranking's head on descriptors beside the embedding.
PROTOCOLS: tuple[Literal["E", "D"], ...] = ("E", "D")


#: Source whose embedding is noise: what a score makes of it shows whether the score can be fooled.
RANDOM = "random embedding"


# Held-out rows are averaged in so many groups: enough for standard errors known to 15 %, few enough to store.
_BLOCKS = 24


# Fewest rows on which a realised error is measured.
_MIN_TEST = 40


KEY = ["table", "n", "repeat", "protocol", "source"]


MEASURED = ["full", "head", "n_test", "error", "se", "blocks", "checksum", "seconds"]


_KINDS: Mapping[str, Callable[[str], Any]] = {
    **dict.fromkeys(("table", "protocol", "source", "head", "blocks"), str),
    **dict.fromkeys(("n", "repeat", "n_test"), int),
    "full": truth,
}


Progress = Callable[[str], None]


Labels = NDArray[Any]


@dataclass(frozen=True, eq=False)
class _Split:
    """One unit of work: the rows that the scores see, and how the realised error is measured."""

    n: int
    full: bool
    repeat: int
    rows: NDArray[np.intp]
    folds: Folds  # of row numbers of the table; each training part lies within `rows`


def _splits(
    y: Labels, *, sizes: Sequence[int | None], repeats: int, fold_repeats: int, max_rows: int, seed: int, classes: bool
) -> Iterator[_Split]:
    n_table = len(y)
    for size in sizes:
        if size is None:
            rng = np.random.default_rng(seed)
            rows = np.sort(rng.permutation(n_table)[:max_rows])
            folds = [
                (rows[train], rows[test])
                for repeat in range(fold_repeats)
                # Other folds than the ranking's, which are those of small seeds.
                for train, test in make_folds(y[rows], classification=classes, random_state=10_007 + seed + repeat)
            ]
            yield _Split(len(rows), True, 0, rows, folds)
        elif size + _MIN_TEST <= n_table:
            for repeat in range(repeats):
                order = np.random.default_rng([seed, size, repeat]).permutation(n_table)
                rows, rest = np.sort(order[:size]), np.sort(order[size : size + max_rows])
                yield _Split(size, False, repeat, rows, [(rows, rest)])


@dataclass(frozen=True, eq=False)
class _Problem:
    """A table with its descriptors and the embeddings of its formulas by all sources."""

    name: str
    X: Floats
    y: Labels
    classification: bool
    embeddings: Mapping[str, list[Embedded]]
    static: Mapping[str, Mapping[str, float]]


def _chosen(candidates: Sequence[Embedded], rows: NDArray[np.intp], y: Labels) -> Floats:
    """Of the bridge's estimate and the look-up the one with the smaller leave-one-out error on `rows`, as ranked."""
    if len(candidates) == 1:
        return candidates[0].values
    target = y[rows].astype(np.float64)
    return max(candidates, key=lambda item: LOORidge().fit(item.values[rows], target).score_).values


def _realised(problem: _Problem, split: _Split, source: str, protocol: str, head: str, seed: int) -> Floats:
    """Loss of each held-out row, averaged over the repeats of the folds.

    All that looks at the target (choice of the embedding, penalties, trees) sees the training part alone.
    """
    total = np.zeros(len(problem.y))
    count = np.zeros(len(problem.y))
    for fold, (train, test) in enumerate(split.folds):
        parts = [] if source != NO_TRANSFER and protocol == "E" else [problem.X]
        if source != NO_TRANSFER:
            parts.append(_chosen(problem.embeddings[source], train, problem.y))
        features = np.hstack(parts)
        learner = FOREST if protocol == "E" else head
        model = make_head(learner, classification=problem.classification, random_state=seed + fold)
        predicted = model.fit(features[train], problem.y[train]).predict(features[test])
        loss = predicted != problem.y[test] if problem.classification else np.abs(predicted - problem.y[test])
        total[test] += loss
        count[test] += 1
    measured = count > 0
    return np.asarray(total[measured] / count[measured])


@dataclass(frozen=True, eq=False)
class _Scorer:
    """Computes all scores of a source on the rows of a split; the control is computed first."""

    X: Floats
    y: Labels
    classification: bool
    estimators: Mapping[str, TransferabilityEstimator]
    folds: Folds
    distances: Floats
    controls: Mapping[str, Floats]
    head: str
    seed: int

    @classmethod
    def of(
        cls, problem: _Problem, split: _Split, estimators: Mapping[str, TransferabilityEstimator], seed: int
    ) -> _Scorer:
        X, y, classification = problem.X[split.rows], problem.y[split.rows], problem.classification
        folds, distances = make_folds(y, classification=classification, random_state=seed), manhattan(X)
        controls = {
            str(name): out_of_fold_loss(
                name, X, y, folds, distances=distances, classification=classification, random_state=seed
            )
            for name in HEADS
        }
        head = min(controls, key=lambda name: float(controls[name].mean()))
        return cls(X, y, classification, estimators, folds, distances, controls, head, seed)

    def scores(self, Z: Floats | None) -> dict[str, float]:
        """Scores by name, higher is better; of the descriptors themselves if there is no embedding.

        A name that ends in +X is of descriptors beside the embedding.
        """
        F = self.X if Z is None else Z
        both = self.X if Z is None else np.hstack([self.X, Z])
        spectra = Spectra(F)
        found: dict[str, float] = {}
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DegenerateScoreWarning)
            for name, estimator in self.estimators.items():
                found[name] = clone(estimator).fit(spectra, self.y).score_
        beside = Spectra(both)
        if not self.classification:
            found["loo+X"] = -LOORidge().fit(beside, self.y).mae_
        found["logme+X"] = LogME(normalize="standard").fit(beside, self.y).score_
        found["forest+X"] = clone(self.estimators["forest"]).fit(beside, self.y).score_

        own = self.distances if Z is None else manhattan(Z)
        total = own if Z is None else self.distances + own
        found["kernel"] = -float(self._loss("kernel ridge", F, own).mean())
        kernel = self._loss("kernel ridge", both, total)
        head = kernel if self.head == "kernel ridge" else self._loss(self.head, both, total)
        for name, loss, control in (
            ("kernel+X", kernel, self.controls["kernel ridge"]),
            ("head+X", head, self.controls[self.head]),
        ):
            found[name] = -float(loss.mean())
            found[f"{name} se"] = float((control - loss).std(ddof=1) / math.sqrt(len(loss)))
        return found

    def _loss(self, head: str, F: Floats, distances: Floats) -> Floats:
        return out_of_fold_loss(
            head,
            F,
            self.y,
            self.folds,
            distances=distances,
            classification=self.classification,
            random_state=self.seed,
        )


def _block_means(loss: Floats, seed: int) -> Floats:
    """Means of the losses in groups of rows drawn at random, the same for all sources."""
    order = np.random.default_rng(seed).permutation(len(loss))
    return np.array([loss[part].mean() for part in np.array_split(order, min(_BLOCKS, len(loss) // 2))])


def _problem(
    name: str,
    formulas: Any,
    y: ArrayLike,
    cards: Sequence[SourceCard],
    *,
    descriptor: Any,
    layer: str,
    look_up: bool,
    task: Literal["auto", "regression", "classification"],
    seed: int,
) -> tuple[_Problem, dict[str, str]]:
    """Read the table and estimate all embeddings once; sources that cannot be used, and why."""
    table = Rows.read(formulas, y, task=task)
    columns = get_descriptor(descriptor)
    described = Described.of(table.formulas, columns.fit(table.formulas))
    X = described.filled
    embedded: dict[str, list[Embedded]] = {}
    static: dict[str, dict[str, float]] = {}
    failed: dict[str, str] = {}
    for card in cards:
        try:
            options = embed_source(card, described, layers=(layer,), look_up="auto" if look_up else False)[layer]
        except Exception as error:  # one source must not end the run, whatever it raises
            failed[card.name] = str(error)
            continue
        embedded[card.name] = [item for _, item in options]
        static[card.name] = {
            "width": float(card.layers[layer]),
            "parameters": float("nan") if card.parameters is None else float(card.parameters),
            "own error": float("nan") if card.error is None else -float(card.error),
        }
    if embedded:
        width = max(found[0].values.shape[1] for found in embedded.values())
        noise = np.random.default_rng([seed, width]).normal(size=(len(X), width))
        embedded[RANDOM] = [Embedded.of(noise)]
        static[RANDOM] = {"width": float(width)}
    return _Problem(name, X, table.y, table.classification, embedded, static), failed


def evaluate(
    formulas: Any,
    y: ArrayLike,
    sources: Any = "all",
    *,
    table: str = "table",
    path: str | Path | None = None,
    descriptor: Any = "standard",
    layer: str = "readout",
    look_up: bool = True,
    task: Literal["auto", "regression", "classification"] = "auto",
    estimators: Sequence[Any] | None = None,
    protocols: Sequence[str] = PROTOCOLS,
    sizes: Sequence[int | None] = (50, 100, 200, None),
    repeats: int = 5,
    fold_repeats: int = 2,
    max_rows: int = 1000,
    random_state: int = 0,
    progress: Progress | None = None,
) -> pd.DataFrame:
    """Score the sources for a table, and measure what transfer from each of them really gives.

    At a size n, the scores see n rows drawn at random, and the realised error is that of the same n rows as training
    set on the rest of the table, which no score has seen. At full size (``None``) the scores see the whole table and
    the realised error is by repeated 5-fold cross-validation, in other folds than those of the scores; it is then
    measured on rows whose target the scores know.

    Parameters
    ----------
    formulas : sequence
        Formulas: all that :func:`~scotl_matgl.parse_compositions` reads; bad rows are left out.
    y : array-like of shape (n,)
        Measured property, or class labels.
    sources : "all", str, SourceCard or list of these, default="all"
        Which sources; those without a bridge are left out with a warning.
    table : str
        Name of the table in the result.
    path : path, optional
        CSV file: what it holds already is not measured again, and every finished source is added to it at once. A row
        counts as done only if the embedding of its source is still the same.
    descriptor, layer, look_up, task
        As for :class:`~scotl_matgl.TransferabilityRanker`.
    estimators : sequence of str or TransferabilityEstimator, optional
        Default: all registered ones that are fitted on embeddings. ``"forest"`` is always among them.
    protocols : sequence of {"E", "D"}
        See `PROTOCOLS`.
    sizes : sequence of int or None
        Numbers of rows; those that leave too few rows to test on are left out.
    repeats : int, default=5
        Random subsets of each size.
    fold_repeats : int, default=2
        Cross-validations at full size.
    max_rows : int, default=1000
        Larger tables are cut to so many random rows at full size, and no more are tested on at the other sizes.
    random_state : int, default=0
        Seed of everything.
    progress : callable, optional
        Called with one line of text for each unit of work.

    Returns
    -------
    pandas.DataFrame
        One row for each (table, n, repeat, protocol, source), the control ``"no transfer"`` and a random embedding
        among the sources: ``error``, its standard error ``se``, ``blocks`` (mean losses of groups of held-out rows,
        from which paired standard errors come), one column a score, and the static baselines. With `path` all that the
        file holds for the table.

    Notes
    -----
    Cost: two fits and about fifteen scores for each source and subset; a dozen sources on 400 rows take about two
    minutes on one core.
    """
    import pandas as pd

    cards = select(all_cards(), sources)
    problem, failed = _problem(
        table,
        formulas,
        y,
        cards,
        descriptor=descriptor,
        layer=layer,
        look_up=look_up,
        task=task,
        seed=random_state,
    )
    if failed:
        first = next(iter(failed))
        warnings.warn(
            f"{len(failed)} of {len(cards)} sources are not evaluated, the first is {first}: {failed[first]}",
            ScotlMatglWarning,
            stacklevel=2,
        )
    if not problem.embeddings:
        raise ValueError(f"no source can be evaluated; {first}: {failed[first]}")
    names = embedding_estimators() if estimators is None else list(estimators)
    # The forest is also scored on descriptors beside the embedding, and a member of ensembles.
    names += [] if "forest" in names else ["forest"]
    named = named_estimators(names, classification=problem.classification, random_state=random_state)
    results = ResultsFile(
        None if path is None else Path(path), key=[*KEY, "full"], columns=[*KEY, *MEASURED], grows=True
    )
    for split in _splits(
        problem.y,
        sizes=sizes,
        repeats=repeats,
        fold_repeats=fold_repeats,
        max_rows=max_rows,
        seed=random_state,
        classes=problem.classification,
    ):
        results.refresh()  # another run may share the file
        missing = [
            (source, checksum)
            for source, checksum in _checksums(problem)
            if not _is_measured(results, table, split, source, checksum, protocols)
        ]
        if not missing:
            continue
        if progress is not None:
            progress(f"{table}, n = {split.n}, repeat {split.repeat}: {len(missing)} sources")
        scorer = _Scorer.of(problem, split, named, random_state)
        for source, checksum in missing:
            results.add(_records(problem, split, scorer, source, checksum, protocols))
    results.refresh()
    found = pd.DataFrame(results.records(_KINDS), columns=results.columns)
    return pd.DataFrame(found[found["table"] == table]).reset_index(drop=True)


def _checksums(problem: _Problem) -> list[tuple[str, float]]:
    sums = [(NO_TRANSFER, float(np.abs(problem.X).mean()))]
    for source, candidates in problem.embeddings.items():
        sums.append((source, float(np.mean([np.abs(item.values).mean() for item in candidates]))))
    return sums


def _records(
    problem: _Problem, split: _Split, scorer: _Scorer, source: str, checksum: float, protocols: Sequence[str]
) -> list[dict[str, Any]]:
    """Rows of the result for one source."""
    import time

    Z = None
    if source != NO_TRANSFER:
        Z = _chosen(problem.embeddings[source], split.rows, problem.y)[split.rows]
    scores = scorer.scores(Z)
    records = []
    for protocol in protocols:
        started = time.perf_counter()
        loss = _realised(problem, split, source, protocol, scorer.head, scorer.seed)
        records.append(
            {
                "table": problem.name,
                "n": split.n,
                "repeat": split.repeat,
                "protocol": protocol,
                "source": source,
                "full": split.full,
                "head": FOREST if protocol == "E" else scorer.head,
                "n_test": len(loss),
                "error": float(loss.mean()),
                "se": float(loss.std(ddof=1) / math.sqrt(len(loss))),
                "blocks": " ".join(f"{value:.6g}" for value in _block_means(loss, scorer.seed)),
                "checksum": checksum,
                "seconds": time.perf_counter() - started,
            }
            | scores
            | dict(problem.static.get(source, {}))
        )
    return records


def _is_measured(
    results: ResultsFile, table: str, split: _Split, source: str, checksum: float, protocols: Sequence[str]
) -> bool:
    """Whether a file has all that is wanted of a source, measured on the same embedding."""
    for protocol in protocols:
        row = results.get(table, split.n, split.repeat, protocol, source, split.full)
        if row is None or not np.isclose(number(row["checksum"]), checksum, rtol=1e-4):
            return False
    return True
