"""Measure what a ranking says on some rows beside what transfer really gives on the others."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from scotl_matgl.descriptors.composite import get_descriptor
from scotl_matgl.descriptors.described import Described
from scotl_matgl.descriptors.structural import structural_means
from scotl_matgl.estimators import embedding_estimators, named_estimators
from scotl_matgl.exceptions import ScotlMatglWarning, warn
from scotl_matgl.learners.members import BlendMember, Features, LearningTask
from scotl_matgl.ranking.control import control_features
from scotl_matgl.ranking.layers import LayerChoice, check_layer
from scotl_matgl.ranking.search import Found, Search
from scotl_matgl.ranking.stages import CardSource
from scotl_matgl.sources.cards import SourceCard, all_cards, select
from scotl_matgl.studies.fitting import how_read
from scotl_matgl.studies.records import ResultsFile
from scotl_matgl.tables.folds import Folds
from scotl_matgl.tables.rows import Rows
from scotl_matgl.tables.target import Task
from scotl_matgl.vocabulary import NO_TRANSFER, TOGETHER, Floats

if TYPE_CHECKING:
    import pandas as pd

#: Columns that name a row: a table, a number of rows learned from (or "whole"), a draw of them, and a source.
KEY = ("table", "size", "draw", "source")

#: Columns that every row has beside the scores of the estimators; see :func:`evaluate`.
MEASURED = (
    "fingerprint", "n_train", "n_test", "head", "control", "place", "verdict", "probability", "out_of_fold", "gain",
    "gain_low", "gain_high", "p_helps", "error", "se", "blocks", "width", "parameters",
)  # fmt: skip

_TEXT = ("table", "size", "draw", "source", "fingerprint", "head", "control", "verdict", "blocks", "layer")

# Held-out rows are averaged in so many groups: enough for standard errors known to 15 %, few enough to store.
_BLOCKS = 24

# Fewest rows on which a realised error is measured.
_MIN_TEST = 40


@dataclass(frozen=True, eq=False)
class _Unit:
    """Rows that the ranking sees, and rows that judge it."""

    size: str
    draw: int
    train: NDArray[np.intp]
    test: NDArray[np.intp]


@dataclass(frozen=True, eq=False)
class _Table:
    """A table with its descriptors, and how it is searched."""

    name: str
    rows: Rows
    described: Described
    features: Features
    search: Search
    cards: Sequence[SourceCard]

    @property
    def fingerprint(self) -> str:
        """What the results depend on beside the rows of the unit."""
        search = self.search
        content = [
            [(card.name, dict(card.weights)) for card in self.cards],
            [self.described.fingerprint(), search.layer, search.look_up, str(search.head), search.max_rows],
            [self.rows.identities, self.rows.y.tolist(), sorted(search.estimators), search.random_state],
        ]
        return hashlib.sha256(json.dumps(content).encode()).hexdigest()[:16]


@dataclass(frozen=True, kw_only=True)
class EvaluationSettings:
    """How rankings are made and how often, when :func:`evaluate` measures how good they are.

    Attributes
    ----------
    descriptor, head, layer, task
        As for :class:`~scotl_matgl.TransferabilityRanker`; ``head="kernel ridge"`` is the fastest.
    estimators : sequence of str or TransferabilityEstimator, optional
        Default: all registered ones that are fitted on embeddings.
    sizes : sequence of int or None
        Numbers of rows that the ranking sees, drawn at random; those that leave fewer than 40 rows to judge by are left
        out. None is the whole table (at most `max_rows`), in five folds of which each is judge once.
    repeats : int, default=3
        Draws of each size.
    max_rows : int, default=1000
        Rows at most that a ranking sees, and that judge it.
    n_jobs : int, optional
        Threads over which sources are spread, as in joblib; nothing measured depends on it.
    random_state : int, default=0
        Seed of everything.
    """

    descriptor: Any = "standard"
    head: Any = "auto"
    layer: LayerChoice = "readout"
    task: Task = "auto"
    estimators: Sequence[Any] | None = None
    sizes: Sequence[int | None] = (50, 100, 200, 400, None)
    repeats: int = 3
    max_rows: int = 1000
    n_jobs: int | None = None
    random_state: int = 0


def evaluate(
    formulas: Any,
    y: ArrayLike,
    sources: Any = "all",
    *,
    table: str = "table",
    path: str | Path | None = None,
    settings: EvaluationSettings | None = None,
    progress: Callable[[str], None] | None = None,
) -> pd.DataFrame:
    """Rank all sources on some rows of a table, and measure on the others what transfer from each really gives.

    Parameters
    ----------
    formulas : sequence
        Formulas: all that :func:`~scotl_matgl.parse_compositions` reads; bad rows are left out. In their place,
        crystals: all that :func:`~scotl_matgl.chemistry.materials.read_material` reads.
    y : array-like of shape (n,)
        Measured property, or class labels.
    sources : "all", str, SourceCard or list of these, default="all"
        Which sources; those that fail are left out with a warning.
    table : str
        Name of the table in the result.
    path : path, optional
        CSV file to which each finished ranking is added at once; what it holds already is not measured again.
    settings : EvaluationSettings, optional
        How rankings are made, on how many rows, and how often.
    progress : callable, optional
        Called with one line of text for each ranking.

    Returns
    -------
    pandas.DataFrame
        One row for each (table, size, draw, source), the control ``"no transfer"`` and the row of the first sources
        together among the sources. ``place``: in the ranking, from 1. ``out_of_fold``: error that the ranking measured.
        ``gain``, ``gain_low``, ``gain_high``, ``p_helps``: what it states, gains as shares of the error without
        transfer. ``verdict`` and ``probability`` are the same in all rows of a ranking. ``error``, ``se``, ``blocks``:
        realised error on the rows that judge, its standard error, and its means in groups of rows, from which paired
        standard errors come. One column for each estimator, and ``layer`` where there is a choice of layers.
        ``attrs["read"]``: sentences on how the table was read.

    Notes
    -----
    Everything is measured with all sources: none is screened out. Cost with kernel ridge: 64 sources on 100 rows take a
    second, on 400 rows ten.
    """
    import pandas as pd
    from threadpoolctl import threadpool_limits

    cards = select(all_cards(), sources)
    settings = EvaluationSettings() if settings is None else settings
    check_layer(settings.layer, cards)
    read = Rows.read(formulas, y, task=settings.task)
    names = embedding_estimators() if settings.estimators is None else list(settings.estimators)
    seed = settings.random_state
    search = Search(
        estimators=named_estimators(names, classification=read.classification, random_state=seed),
        head=settings.head,
        layer=settings.layer,
        max_rows=settings.max_rows,
        max_measured=max(len(cards), 1),
        n_jobs=settings.n_jobs,
        random_state=seed,
    )
    measured = _described(table, read, settings.descriptor, search, cards)
    key = measured.fingerprint
    results = ResultsFile(None if path is None else Path(path), key=KEY, columns=[*KEY, *MEASURED], grows=True)
    for unit in _units(read, settings):
        results.refresh()  # another run may share the file
        done = results.get(table, unit.size, unit.draw, NO_TRANSFER)
        if done is not None and done["fingerprint"] == key:
            continue
        if progress is not None:
            progress(f"{table}, {len(unit.train)} rows, draw {unit.draw}: {len(cards)} sources")
        with threadpool_limits(1):  # small matrices gain nothing from more, and threads that wait for each other lose
            results.add([record | {"fingerprint": key} for record in _measure(measured, unit)])
    results.refresh()
    found = pd.DataFrame(results.records(dict.fromkeys(_TEXT, str)), columns=results.columns)
    found = pd.DataFrame(found[found["table"] == table]).reset_index(drop=True)
    found.attrs["read"] = how_read(read.n_merged, read.skipped, read.remarks)
    return found


def _described(name: str, rows: Rows, descriptor: Any, search: Search, cards: Sequence[SourceCard]) -> _Table:
    described = Described.of(rows.formulas, get_descriptor(descriptor).fit(rows.formulas), rows.crystals)
    elements = np.unique(rows.formulas.numbers).astype(np.intp)
    features = control_features(described, rows.numbers, rows.names, elements, structural_means(rows.crystals.tolist()))
    return _Table(name, rows, described, features, search, cards)


def _units(rows: Rows, settings: EvaluationSettings) -> Iterator[_Unit]:
    """Splits of a table. Folds and draws differ from those inside a ranking, which are of the same seed."""
    n, formula = len(rows), rows.composition
    max_rows, random_state = settings.max_rows, settings.random_state
    for size in settings.sizes:
        if size is None:
            kept = rows.sample(max_rows, random_state)
            folds: Folds = rows.take(kept).folds(random_state=10_007 + random_state)
            for draw, (train, test) in enumerate(folds):
                yield _Unit("whole", draw, kept[train], kept[test])
        elif size + _MIN_TEST <= n:
            for draw in range(settings.repeats):
                order = np.random.default_rng([random_state, size, draw]).permutation(n)
                train, test = np.sort(order[:size]), np.sort(order[size : size + max_rows])
                test = test[~np.isin(formula[test], formula[train])]  # no polymorph of what is learned from
                if len(test) >= _MIN_TEST:
                    yield _Unit(str(size), draw, train, test)


def _measure(table: _Table, unit: _Unit) -> Iterator[dict[str, Any]]:
    """Rows of the result of one ranking."""
    rows, described = table.rows.take(unit.train), table.described.take(unit.train)
    found = table.search.run(
        [CardSource(card) for card in table.cards], rows, described, table.features.take(unit.train)
    )
    failed = found.ranking.errors
    for name, reason in list(failed.items())[:1]:
        warn(
            f"{len(failed)} of {len(table.cards)} sources are not evaluated, the first is {name}: {reason}",
            ScotlMatglWarning,
        )
    judges = LearningTask(table.rows.y[unit.test], len(table.rows.classes), (), table.search.random_state)
    realised = _realised(table, unit, found, judges)
    ranking = found.ranking
    common = {
        "table": table.name,
        "size": unit.size,
        "draw": unit.draw,
        "n_train": len(unit.train),
        "n_test": len(unit.test),
        "head": ranking.head,
        "control": ranking.control_name,
        "verdict": ranking.verdict,
        "probability": ranking.probability,
    }
    stated = ranking.to_frame().set_index("source")
    parameters = {card.name: card.parameters for card in table.cards}
    for name, losses in realised.items():
        row = stated.loc[name]
        scale = ranking.error_of_control or math.nan
        place = ranking.sources.index(name) + 1 if name in ranking.sources else math.nan
        width = found.measured[place - 1].values.shape[1] if isinstance(place, int) else math.nan
        scores = {score: row[score] for score in (*table.search.estimators, "loo_rmse", "layer") if score in row}
        yield {
            **common,
            "source": name,
            "place": place,
            "out_of_fold": row["error"],
            "gain": row["gain"] / scale,
            "gain_low": row["gain_low"] / scale,
            "gain_high": row["gain_high"] / scale,
            "p_helps": row.get("p_helps", math.nan),
            "error": float(losses.mean()),
            "se": float(losses.std(ddof=1) / math.sqrt(len(losses))),
            "blocks": " ".join(f"{value:.6g}" for value in _block_means(losses, table.search.random_state)),
            "width": width,
            "parameters": parameters.get(name),
            **scores,
        }


def _realised(table: _Table, unit: _Unit, found: Found, judges: LearningTask) -> Mapping[str, Floats]:
    """Loss of each row that judges: of the control, of each source, and of the first together."""
    rows = table.rows.take(unit.train)
    task = LearningTask(rows.y, len(rows.classes), (), table.search.random_state)
    train, test = table.features.take(unit.train), table.features.take(unit.test)
    described = table.described.take(unit.test)

    def predict(member: BlendMember, train: Features, test: Features) -> Floats:
        return member.outputs(member.fit(train, task.y, task), test, task.n_classes)

    losses = {NO_TRANSFER: judges.losses(predict(found.control.member, train, test))}
    predictions = []
    head = found.control.head
    for item in found.measured:
        name = item.result.source
        beside = replace(head, blocks=(*head.blocks, name), transfers=True)
        learned = Features({**train.columns, name: item.values}, train.weights)
        predicted = predict(
            beside, learned, Features({**test.columns, name: item.embedding.embed(described)}, test.weights)
        )
        losses[name] = judges.losses(predicted)
        predictions.append(predicted)
    if found.ranking.n_together:
        losses[found.ranking.together] = judges.losses(np.mean(predictions[:TOGETHER], axis=0))
    return losses


def _block_means(losses: Floats, seed: int) -> Floats:
    """Means of the losses in groups of rows drawn at random, the same for all sources."""
    order = np.random.default_rng(seed).permutation(len(losses))
    return np.array([losses[part].mean() for part in np.array_split(order, min(_BLOCKS, len(losses) // 2))])
