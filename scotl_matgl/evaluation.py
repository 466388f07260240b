"""How good is a ranking: scores beside what transfer really gives, and the figures that compare them."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import stats
from sklearn.base import clone

from scotl_matgl.cards import SourceCard, all_cards, select
from scotl_matgl.descriptors import get_descriptor
from scotl_matgl.estimators import (
    LogME,
    LOORidge,
    TransferabilityEstimator,
    embedding_estimators,
    named_estimators,
    rank_average,
)
from scotl_matgl.exceptions import DegenerateScoreWarning, ScotlMatglWarning
from scotl_matgl.heads import FOREST, HEADS, Floats, Folds, make_folds, make_head, manhattan, out_of_fold_loss
from scotl_matgl.ranker import EMBEDDING_SCORES
from scotl_matgl.ranking import NO_TRANSFER
from scotl_matgl.source_embedding import Embedded, embeddings
from scotl_matgl.spectrum import Spectra
from scotl_matgl.table import Table

if TYPE_CHECKING:
    import pandas as pd

#: E: random forest on the embedding alone; D: the ranking's head on descriptors beside the embedding.
PROTOCOLS: tuple[Literal["E", "D"], ...] = ("E", "D")

#: Source whose embedding is noise: what a score makes of it shows whether the score can be fooled.
RANDOM = "random embedding"

#: Scores that are the mean of the ranks of others.
ENSEMBLES: Mapping[str, tuple[str, ...]] = {
    "loo, logme, gp": ("loo", "logme", "gp"),
    "forest, kernel, logme": ("forest", "kernel", "logme"),
    ", ".join(EMBEDDING_SCORES): EMBEDDING_SCORES,
    "head+X, gp": ("head+X", "gp"),
    "head+X, kernel, logme": ("head+X", "kernel", "logme"),
    "head+X, kernel, gp, logme": ("head+X", "kernel", "gp", "logme"),
}

#: The score that speaks for or against transfer, whatever score picks the source: the out-of-fold error of the head.
GAIN = "head+X"

#: The source that is best on the other tables.
FIXED = "fixed source"

# Held-out rows are averaged in so many groups: enough for standard errors known to 15 %, few enough to store.
_BLOCKS = 24

# Fewest rows on which a realised error is measured.
_MIN_TEST = 40

# Half the width of a 90 % interval, in standard errors.
_REACH = float(stats.norm.ppf(0.95))

_KEY = ["table", "n", "repeat", "protocol", "source"]
_MEASURED = ["full", "head", "n_test", "error", "se", "blocks", "checksum", "seconds"]

Progress = Callable[[str], None]
Labels = NDArray[Any]


# -- measuring --------------------------------------------------------------------------------------------------------


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
    table = Table.read(formulas, y, task=task)
    columns = get_descriptor(descriptor)
    described = columns.fit(table.compositions).transform(table.compositions)
    X = np.nan_to_num(described)
    embedded: dict[str, list[Embedded]] = {}
    static: dict[str, dict[str, float]] = {}
    failed: dict[str, str] = {}
    for card in cards:
        try:
            ways = embeddings(
                card, table.compositions, described, columns, layer=layer, look_up="auto" if look_up else False
            )
        except Exception as error:  # one source must not end the run, whatever it raises
            failed[card.name] = str(error)
            continue
        embedded[card.name] = [item for _, item in ways]
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
        Formulas: all that :func:`~scotl_matgl.composition.parse_compositions` reads; bad rows are left out.
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
        As for :class:`~scotl_matgl.ranker.TransferabilityRanker`.
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
    stored = _Results(None if path is None else Path(path))
    for split in _splits(
        problem.y,
        sizes=sizes,
        repeats=repeats,
        fold_repeats=fold_repeats,
        max_rows=max_rows,
        seed=random_state,
        classes=problem.classification,
    ):
        missing = [
            (source, checksum)
            for source, checksum in _checksums(problem)
            if not stored.has(table, split, source, checksum, protocols)
        ]
        if not missing:
            continue
        if progress is not None:
            progress(f"{table}, n = {split.n}, repeat {split.repeat}: {len(missing)} sources")
        scorer = _Scorer.of(problem, split, named, random_state)
        for source, checksum in missing:
            stored.add(_records(problem, split, scorer, source, checksum, protocols))
    found = stored.frame
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


class _Results:
    """Rows measured so far, in memory and in a file that is always whole."""

    def __init__(self, path: Path | None) -> None:
        import pandas as pd

        self.path = path
        if path is not None and path.is_file():
            self.frame = pd.read_csv(path)
        else:
            self.frame = pd.DataFrame(columns=[*_KEY, *_MEASURED])

    def has(self, table: str, split: _Split, source: str, checksum: float, protocols: Sequence[str]) -> bool:
        frame = self.frame
        rows = frame[
            (frame["table"] == table)
            & (frame["n"] == split.n)
            & (frame["repeat"] == split.repeat)
            & (frame["full"] == split.full)
            & (frame["source"] == source)
        ]
        same = np.isclose(rows["checksum"].to_numpy(dtype=np.float64), checksum, rtol=1e-4)
        return set(protocols) <= set(rows["protocol"][same])

    def add(self, records: Sequence[Mapping[str, Any]]) -> None:
        import pandas as pd

        new = pd.DataFrame(records)
        frame = new if self.frame.empty else pd.concat([self.frame, new], ignore_index=True)
        self.frame = frame.drop_duplicates([*_KEY, "full"], keep="last").reset_index(drop=True)
        if self.path is not None:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            partial = self.path.with_name(f".{self.path.name}.partial")
            self.frame.to_csv(partial, index=False, float_format="%.7g")
            partial.replace(self.path)


# -- judging ----------------------------------------------------------------------------------------------------------


def paired_standard_errors(blocks: ArrayLike) -> Floats:
    """Standard errors of the differences of mean losses.

    Parameters
    ----------
    blocks : array-like of shape (m, b)
        Mean losses of m sources on the same b groups of held-out rows.

    Returns
    -------
    ndarray of shape (m, m)
        Of source i minus source j, from the b paired differences.
    """
    means = np.asarray(blocks, dtype=np.float64)
    difference = means[:, None, :] - means[None, :, :]
    return np.asarray(difference.std(axis=2, ddof=1) / math.sqrt(means.shape[1]))


def ordered_pairs(scores: ArrayLike, errors: ArrayLike, standard_errors: ArrayLike) -> tuple[float, int]:
    """Count the pairs of sources that differ for certain, and those of them that a score orders rightly.

    Parameters
    ----------
    scores : array-like of shape (m,)
        Higher is better; a tie, or a score that is NaN, counts half.
    errors : array-like of shape (m,)
        Realised errors.
    standard_errors : array-like of shape (m, m)
        Of their differences.

    Returns
    -------
    right : float
        Pairs ordered rightly.
    total : int
        Pairs whose errors differ by more than two standard errors.

    Examples
    --------
    >>> ordered_pairs([3.0, 2.0, 1.0], [1.0, 3.0, 2.0], [[0.1] * 3] * 3)
    (2.0, 3)
    """
    score, error, width = (np.asarray(value, dtype=np.float64) for value in (scores, errors, standard_errors))
    first, second = np.triu_indices(len(error), 1)
    return _agreeing(score[first] - score[second], error[first] - error[second], width[first, second])


def _agreeing(gaps: Floats, differences: Floats, standard_errors: Floats) -> tuple[float, int]:
    """Of pairs with these gaps of the score and differences of the error: those ordered rightly, those certain."""
    certain = np.abs(differences) > 2.0 * standard_errors
    agrees = np.sign(np.nan_to_num(gaps[certain])) * np.sign(-differences[certain])
    return float(np.sum((agrees + 1.0) / 2.0)), int(certain.sum())


def regret(scores: ArrayLike, errors: ArrayLike) -> float:
    """Error of the source with the highest score over the smallest error; the mean over those tied for the highest.

    NaN counts as the lowest score.

    Examples
    --------
    >>> regret([1.0, 2.0, 0.0], [1.0, 1.5, 3.0])
    1.5
    """
    score, error = np.asarray(scores, dtype=np.float64), np.asarray(errors, dtype=np.float64)
    score = np.where(np.isnan(score), -np.inf, score)
    return float(error[score == score.max()].mean() / error.min())


def held_out_regret(scores: ArrayLike, blocks: ArrayLike) -> float:
    """Regret against the best source that half of the held-out rows would name, measured on the other half.

    The smallest of many measured errors is small by chance too, so that plain regret is above one even for a perfect
    score. Here the even groups name the best source and the odd ones measure it and the pick, and the other way round;
    the mean of the two may be below one.

    Parameters
    ----------
    scores : array-like of shape (m,)
        Higher is better.
    blocks : array-like of shape (m, b)
        Mean losses on groups of held-out rows.
    """
    score = np.asarray(scores, dtype=np.float64)
    score = np.where(np.isnan(score), -np.inf, score)
    means = np.asarray(blocks, dtype=np.float64)
    halves = means[:, ::2].mean(axis=1), means[:, 1::2].mean(axis=1)
    picked = score == score.max()
    ratios = [other[picked].mean() / other[one.argmin()] for one, other in (halves, halves[::-1])]
    return float(np.mean(ratios))


def rank_correlations(scores: ArrayLike, errors: ArrayLike) -> dict[str, float]:
    """Spearman, Kendall (τ_b) and weighted Kendall of a score with minus the realised error; 0 for a constant score.

    The values are those of ``scipy.stats``, whose calls cost a hundred times more for a dozen sources than the sums.

    Examples
    --------
    >>> rank_correlations([3.0, 2.0, 1.0], [0.1, 0.2, 0.3])
    {'spearman': 1.0, 'kendall': 1.0, 'weighted_kendall': 1.0}
    """
    score, goodness = np.asarray(scores, dtype=np.float64), -np.asarray(errors, dtype=np.float64)
    known = np.isfinite(score)
    score, goodness = score[known], goodness[known]
    if len(score) < 3 or np.ptp(score) == 0 or np.ptp(goodness) == 0:
        return dict.fromkeys(("spearman", "kendall", "weighted_kendall"), 0.0)
    S, G = (np.sign(values[:, None] - values) for values in (score, goodness))

    def tau(weights: Floats | float) -> float:
        return float((weights * S * G).sum() / math.sqrt((weights * S * S).sum() * (weights * G * G).sum()))

    def weights(first: Floats, second: Floats) -> Floats:
        """Of pairs: the sum of 1/rank, the rank being by `first`, then by `second`, the largest first."""
        importance = np.empty(len(first))
        importance[np.lexsort((second, first))[::-1]] = 1.0 / np.arange(1, len(first) + 1)
        return np.asarray(importance[:, None] + importance)

    # The sum of the signs of a row is twice its rank, but for a constant.
    s, g = S.sum(axis=1), G.sum(axis=1)
    return {
        "spearman": float(s @ g / math.sqrt((s @ s) * (g @ g))),
        "kendall": tau(1.0),
        "weighted_kendall": (tau(weights(score, goodness)) + tau(weights(goodness, score))) / 2,
    }


def judge(frame: pd.DataFrame, *, caution: float = 0.0, pooled: bool = True) -> pd.DataFrame:
    """Compare every score with the realised errors, unit by unit.

    Parameters
    ----------
    frame : pandas.DataFrame
        What :func:`evaluate` returns, of one or more tables; rank ensembles (`ENSEMBLES`), chance and the fixed source
        are added.
    caution : float, default=0
        Standard errors by which the out-of-fold gain of the source that a score picks must exceed 0 before transfer is
        called for.
    pooled : bool, default=True
        Whether the realised error of a source at n is its mean over the random subsets, or that of the very subset
        that the score saw, luck of rows and seeds included.

    Returns
    -------
    pandas.DataFrame
        One row for each (table, n, repeat, protocol, score): rank correlations, ``right`` of ``pairs`` certain pairs,
        ``regret`` and ``held_out_regret``, ``right_random`` of ``pairs_random`` certain pairs of a source and the
        random embedding. Under D a ranking picks the source of the highest score and then calls for transfer if the
        head's out-of-fold error, `GAIN`, is smaller with it than without: ``transfers`` says whether it does,
        ``called`` is 1 if that was right, 0 if wrong, NaN if the realised errors of pick and control do not differ for
        certain, and ``helps`` is 1 where the pick is better for certain, 0 where the control is. ``covered`` is the
        share of sources whose realised gain lies within the 90 % interval of the gain that the score expects.
    """
    import pandas as pd

    frame = frame.assign(**{FIXED: _fixed(frame)})
    judged = []
    for key, group in frame.groupby(["table", "n", "full", "protocol"]):
        frames = {repeat: unit.set_index("source") for repeat, unit in group.groupby("repeat")}
        # A run that was interrupted, or that had fewer sources, leaves repeats in which some are missing.
        sources = sorted(set.union(*(set(unit.index) for unit in frames.values())))
        units = {repeat: _Unit.of(unit.loc[sources]) for repeat, unit in frames.items() if len(unit) == len(sources)}
        if not units:
            raise ValueError(
                f"{key[0]}, n = {key[1]}, protocol {key[3]}: no repeat holds all {len(sources)} sources of the others; "
                "let the evaluation run to its end"
            )
        together = _Truth.of(list(units.values()))
        known = dict(zip(("table", "n", "full", "protocol"), key, strict=True))
        for repeat, unit in units.items():
            truth = together if pooled else _Truth.of([unit])
            for name, score in unit.scores.items():
                figures = _judge_score(unit, truth, name, score, decides=key[3] == "D", caution=caution)
                judged.append(known | {"repeat": repeat, "score": name} | figures)
    return pd.DataFrame(judged)


@dataclass(frozen=True, eq=False)
class _Unit:
    """Measurements of m sources on one subset, as arrays: pandas would take a hundred times longer to judge them."""

    real: NDArray[np.intp]  # places of the sources that are neither the control nor noise
    control: int | None
    noise: int | None
    error: Floats
    blocks: Floats
    scores: Mapping[str, Floats]
    spreads: Mapping[str, Floats]  # standard errors of the gains that some scores expect

    @classmethod
    def of(cls, unit: pd.DataFrame) -> _Unit:
        """From the rows of one unit, whose index is the source."""
        sources = list(unit.index)
        real = np.array([i for i, source in enumerate(sources) if source not in (NO_TRANSFER, RANDOM)], dtype=np.intp)
        control = sources.index(NO_TRANSFER) if NO_TRANSFER in sources else None
        noise = sources.index(RANDOM) if RANDOM in sources else None
        names = [str(name) for name in unit.columns if name not in {*_KEY, *_MEASURED}]
        columns = dict(zip(names, unit[names].to_numpy(dtype=np.float64).T, strict=True))
        spreads = {name.removesuffix(" se"): columns.pop(name) for name in names if name.endswith(" se")}
        return cls(
            real=real,
            control=control,
            noise=noise,
            error=unit["error"].to_numpy(dtype=np.float64),
            blocks=np.array([np.fromstring(text, sep=" ") for text in unit["blocks"]]),
            scores=_with_ensembles(columns, real, control, noise),
            spreads=spreads,
        )


def _with_ensembles(
    columns: Mapping[str, Floats], real: NDArray[np.intp], control: int | None, noise: int | None
) -> dict[str, Floats]:
    """Scores of one unit by name, with chance and the rank ensembles, but those that are NaN for every source."""
    m = len(real) + (control is not None) + (noise is not None)
    chance = np.zeros(m)
    if control is not None:
        chance[control] = np.nan
    scores = dict(columns) | {"chance": chance}
    ranked = np.array([i for i in range(m) if i != noise])
    for name, members in ENSEMBLES.items():
        if all(member in scores for member in members):
            table = np.column_stack([scores[member][ranked] for member in members])
            if not np.isnan(table).all(axis=0).any():
                scores[name] = np.full(m, np.nan)
                scores[name][ranked] = rank_average(table)
    return {name: score for name, score in scores.items() if not np.isnan(score[real]).all()}


@dataclass(frozen=True, eq=False)
class _Truth:
    """Realised errors (m,) of sources, standard errors (m, m) of their differences, and mean losses of groups."""

    error: Floats
    width: Floats
    blocks: Floats

    @classmethod
    def of(cls, units: Sequence[_Unit]) -> _Truth:
        """Mean over random subsets; its standard error is that of the test rows or of the subsets, the larger one."""
        errors = np.array([unit.error for unit in units])
        within = np.array([paired_standard_errors(unit.blocks) for unit in units])
        width = np.sqrt(np.sum(within**2, axis=0)) / len(units)
        if len(units) > 1:
            width = np.maximum(width, paired_standard_errors(errors.T))
        return cls(errors.mean(axis=0), width, np.hstack([unit.blocks for unit in units]))


def _fixed(frame: pd.DataFrame) -> Floats:
    """Minus the mean, over the other tables, of the log error of a source relative to the mean of all sources."""
    import pandas as pd

    unit = ["table", "n", "full", "repeat", "protocol"]
    real = ~frame["source"].isin([NO_TRANSFER, RANDOM])
    logarithm = np.log(np.maximum(frame["error"].to_numpy(dtype=np.float64), 1e-300))
    relative = frame[unit].assign(source=frame["source"], value=logarithm)[real]
    relative["value"] -= relative.groupby(unit)["value"].transform("mean")
    # Full size is one size, whatever the number of rows.
    relative["size"] = relative["n"].where(~relative["full"].astype(bool), -1)
    by_table = relative.groupby(["protocol", "size", "source", "table"])["value"].mean()
    total, count = (by_table.groupby(level=[0, 1, 2]).agg(what) for what in ("sum", "count"))
    others = (total - by_table) / (count - 1).where(count > 1)
    keys = relative[["protocol", "size", "source", "table"]]
    values = np.full(len(frame), np.nan)
    values[real.to_numpy()] = -others.reindex(pd.MultiIndex.from_frame(keys)).to_numpy()
    return values


def _judge_score(
    unit: _Unit, truth: _Truth, name: str, score: Floats, *, decides: bool, caution: float
) -> dict[str, float]:
    """Figures for one score in one unit; `decides` says whether it is asked for a call (protocol D)."""
    real, control, noise = unit.real, unit.control, unit.noise
    error, width = truth.error, truth.width
    candidates, decided = real, score[real]
    figures: dict[str, float] = {}
    if decides and control is not None:
        best = real[np.nanargmax(score[real])]
        expected = unit.scores[GAIN][best] - unit.scores[GAIN][control]
        transfers = bool(expected > caution * unit.spreads[GAIN][best])
        candidates = np.append(real, control)
        decided = np.append(decided, -np.inf if transfers else np.inf)
        gain = error[control] - error[best]
        certain = abs(gain) > 2.0 * width[control, best]
        figures["transfers"] = float(transfers)
        figures["called"] = float((gain > 0) == transfers) if certain else math.nan
        figures["helps"] = float(gain > 0) if certain else math.nan
        if name in unit.spreads:
            spread = np.hypot(unit.spreads[name][real], width[real, control])
            deviation = np.abs((score[real] - score[control]) - (error[control] - error[real]))
            figures["covered"] = float(np.mean(deviation <= _REACH * spread))
    figures["right"], figures["pairs"] = ordered_pairs(score[real], error[real], width[np.ix_(real, real)])
    figures["regret"] = regret(decided, error[candidates])
    figures["held_out_regret"] = held_out_regret(decided, truth.blocks[candidates])
    if noise is not None and not math.isnan(score[noise]):
        figures["right_random"], figures["pairs_random"] = _agreeing(
            score[real] - score[noise], error[real] - error[noise], width[real, noise]
        )
    return figures | rank_correlations(score[real], error[real])


def summarise(frame: pd.DataFrame, *, caution: float = 0.0, pooled: bool = True, by_size: bool = False) -> pd.DataFrame:
    """Mean over tables of what :func:`judge` finds, best score first.

    Parameters
    ----------
    frame : pandas.DataFrame
        What :func:`evaluate` returns, of one or more tables.
    caution, pooled
        See :func:`judge`.
    by_size : bool, default=False
        Whether sizes are kept apart (full size is -1).

    Returns
    -------
    pandas.DataFrame
        One row for each protocol (and size) and score. ``pairs_right`` is the share of certain pairs ordered rightly,
        ``call_right`` that of certain decisions, ``random_right`` that of certain pairs with the random embedding; each
        is computed for every table and then averaged over those that have any. ``pairs``, ``calls`` count them.
        ``regret``, ``held_out_regret`` and the correlations are means over the units of a table, then over tables.
    """
    judged = judge(frame, caution=caution, pooled=pooled)
    judged["size"] = judged["n"].where(~judged["full"].astype(bool), -1)
    keys = ["protocol", *(["size"] if by_size else []), "score"]
    judged["calls"] = judged.get("called", np.nan) * 0 + 1
    means = ["regret", "held_out_regret", "spearman", "kendall", "weighted_kendall", "transfers", "helps", "covered"]
    for name in ("called", "transfers", "helps", "covered", "right_random", "pairs_random"):
        if name not in judged:
            judged[name] = np.nan
    table = judged.groupby([*keys, "table"]).agg(
        **{name: (name, "mean") for name in means},
        **{name: (name, "sum") for name in ("right", "pairs", "right_random", "pairs_random", "called", "calls")},
    )
    for share, part, whole in (
        ("pairs_right", "right", "pairs"),
        ("random_right", "right_random", "pairs_random"),
        ("call_right", "called", "calls"),
    ):
        table[share] = table[part] / table[whole].where(table[whole] > 0)
    grouped = table.groupby(level=keys)
    shares = ["pairs_right", "random_right", "call_right"]
    result = grouped[[*shares, *means]].mean().join(grouped[["pairs", "calls"]].sum())
    result["tables"] = grouped.size()
    order = [*keys[:-1], "pairs_right"]
    result = result.sort_values(order, ascending=[True] * (len(keys) - 1) + [False])
    return result[["pairs_right", "pairs", "call_right", "calls", *means, "random_right", "tables"]]
