"""Choice of sources for rows at hand: their embeddings, and a ranking by the out-of-fold error of kernel ridge."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from scotl_matgl.bridges.embedding import LookUp, SourceEmbedding, embeddings, varying
from scotl_matgl.chemistry.compositions import Compositions
from scotl_matgl.chemistry.formulas import SkippedRow
from scotl_matgl.descriptors.base import CompositionDescriptor
from scotl_matgl.exceptions import InputError
from scotl_matgl.learners.kernel import indicators_to_probabilities, kernel_out_of_fold, manhattan
from scotl_matgl.learners.members import Features, Task
from scotl_matgl.ranking.result import Ranking, SourceResult
from scotl_matgl.sources.cards import SourceCard, all_cards, select
from scotl_matgl.storage import installed_versions
from scotl_matgl.vocabulary import Floats


def no_sources(sources: Any) -> bool:
    """Whether a parameter `sources` names none: None, or an empty list."""
    return sources is None or (not isinstance(sources, str | SourceCard) and len(sources) == 0)


# Of more sources, those come in whose error on a few rows is smallest: 1,000 rows take thirty times longer.
_MAX_MEASURED = 12
_SCREEN_ROWS = 300


def cards_for(sources: Any, failed: dict[str, str]) -> list[SourceCard]:
    """Cards that a parameter `sources` names; zoos that cannot be read are noted in `failed`.

    ``"auto"`` and ``"all"`` are every registered source, None and an empty list none.
    """
    if no_sources(sources):
        return []
    return select(all_cards(failed.__setitem__), "all" if sources in ("auto", "all") else sources)


@dataclass(frozen=True, eq=False)
class Choice:
    """Sources chosen for a table.

    Attributes
    ----------
    sources : tuple of SourceEmbedding
        The first ones of the ranking.
    values : mapping of str to ndarray of shape (n, d)
        Their embeddings of the rows, by source.
    ranking : Ranking or None
        Of all sources; None if there was nothing to choose by.
    errors : dict of str to str
        Sources and zoos that failed, and why.
    """

    sources: tuple[SourceEmbedding, ...]
    values: Mapping[str, Floats]
    ranking: Ranking | None
    errors: dict[str, str]


def choose_sources(
    cards: list[SourceCard],
    compositions: Compositions,
    features: Features,
    task: Task,
    descriptor: CompositionDescriptor,
    *,
    n_sources: int,
    layer: str,
    look_up: LookUp,
    sample: NDArray[np.intp],
    skipped: tuple[SkippedRow, ...] = (),
    errors: Mapping[str, str] | None = None,
) -> Choice:
    """Embed the rows by each source, rank, and keep the first.

    All sources share one matrix of distances between the descriptors, and all folds one decomposition, so a source
    costs O(m² d + m³) for m sampled rows: 10 ms for 100 rows, 0.3 s for 1,000. Of more than twelve sources, twelve are
    measured on more than 300 rows: those of the smallest error on 300.

    Parameters
    ----------
    cards : list of SourceCard
        Those that fail are noted.
    compositions : Compositions
        n formulas.
    features : Features
        With the block ``"descriptors"`` (n, p), and others that stand beside it in the control.
    task : Task
        Of the sampled rows.
    descriptor : CompositionDescriptor
        What the descriptors come from.
    n_sources : int
        How many to keep.
    layer : str
        Layer of the sources.
    look_up : bool or "auto"
        Whether formulas are looked up; ``"auto"`` takes the way with the smaller loss.
    sample : ndarray of shape (m,)
        Rows on which the losses are measured.
    skipped, errors
        For the ranking.

    Raises
    ------
    InputError
        If no source can be used.
    """
    X = features.columns["descriptors"]
    blocks = tuple(features.columns)
    columns, weights = features.stacked(blocks)[sample], features.stacked_weights(blocks)
    beside = manhattan(columns, weights)
    control = _predictions(beside, task)
    failed = dict(errors or {})
    screened: list[SourceResult] = []
    if len(cards) > _MAX_MEASURED and len(sample) > _SCREEN_ROWS:
        few = np.sort(np.random.default_rng(task.random_state).permutation(len(sample))[:_SCREEN_ROWS])
        place = np.full(len(sample), -1)
        place[few] = np.arange(len(few))
        parts = [[place[rows][place[rows] >= 0] for rows in fold] for fold in task.folds]
        first = Task(task.y[few], task.n_classes, [(a, b) for a, b in parts if len(b)], task.random_state)
        quick = _measure(
            cards,
            compositions.take(sample[few]),
            X[sample[few]],
            descriptor,
            beside[np.ix_(few, few)],
            np.arange(len(few)),
            first,
            layer=layer,
            look_up=look_up,
            failed=failed,
        )
        names = [item.result.source for item in quick[:_MAX_MEASURED]]
        cards = [card for card in cards if card.name in names]
        screened = [item.result for item in quick[_MAX_MEASURED:]]
    measured = _measure(
        cards, compositions, X, descriptor, beside, sample, task, layer=layer, look_up=look_up, failed=failed
    )
    if not measured and cards:
        name, reason = next((card.name, failed[card.name]) for card in cards)
        raise InputError(f"no source can be used ({len(cards)} tried); {name}: {reason}")
    ranking = Ranking(
        results=tuple(item.result for item in measured),
        losses=np.array([item.losses for item in measured]).reshape(len(measured), len(sample)),
        screened=tuple(screened),
        control=_shown(control, task),
        head="kernel ridge",
        control_errors={"kernel ridge": float(_shown(control, task).mean())},
        errors=failed,
        skipped=skipped,
        n_rows=len(compositions),
        n_merged=0,
        classification=task.n_classes > 0,
        imputed=descriptor.imputed_elements(compositions),
        settings={
            "descriptor": repr(descriptor),
            "descriptor_fingerprint": descriptor.fingerprint(),
            "layer": layer,
            "look_up": look_up,
            "random_state": task.random_state,
            "versions": installed_versions(),
        },
    )
    chosen = measured[:n_sources]
    return Choice(
        sources=tuple(item.way for item in chosen),
        values={item.result.source: item.values for item in chosen},
        ranking=ranking,
        errors=failed,
    )


@dataclass(frozen=True, eq=False)
class _Measured:
    """A source with its losses on the sampled rows, and its embeddings of all rows."""

    order: tuple[float, float]
    result: SourceResult
    losses: Floats
    way: SourceEmbedding
    values: Floats


def _measure(
    cards: list[SourceCard],
    compositions: Compositions,
    X: Floats,
    descriptor: CompositionDescriptor,
    beside: Floats,
    sample: NDArray[np.intp],
    task: Task,
    *,
    layer: str,
    look_up: LookUp,
    failed: dict[str, str],
) -> list[_Measured]:
    """Sources by their losses on the sampled rows, best first; those that fail are noted in `failed`."""
    measured = []
    for card in cards:
        started = time.perf_counter()
        try:
            ways = varying(embeddings(card, compositions, X, descriptor, layer=layer, look_up=look_up))
        except (Exception, SystemExit) as error:  # one source must not end the run, whatever it raises
            failed[card.name] = str(error) or type(error).__name__
            continue
        predictions = [_predictions(beside + manhattan(item.values[sample]), task) for _, item in ways]
        order, at = min((_order(prediction, task), index) for index, prediction in enumerate(predictions))
        way, embedded = ways[at]
        result = SourceResult(
            source=card.name,
            property=card.property,
            unit=card.unit,
            scores={},
            loo_rmse=float("nan"),
            looked_up=int(embedded.looked_up.sum()),
            bridged=int((~embedded.looked_up & ~embedded.refused).sum()),
            refused=int(embedded.refused.sum()),
            seconds=time.perf_counter() - started,
        )
        measured.append(_Measured(order, result, _shown(predictions[at], task), way, embedded.values))
    return sorted(measured, key=lambda item: item.order)


def _predictions(distances: Floats, task: Task) -> Floats:
    """Out-of-fold predictions (m, k) of kernel ridge."""
    predictions = kernel_out_of_fold(distances, task.outputs, task.folds)
    return indicators_to_probabilities(predictions) if task.n_classes else predictions


def _shown(predictions: Floats, task: Task) -> Floats:
    """Loss of each row as a ranking shows it: the absolute error, or 1 for a wrong label."""
    if task.n_classes:
        return np.asarray(predictions.argmax(axis=1) != task.y, dtype=np.float64)
    return task.losses(predictions)


def _order(predictions: Floats, task: Task) -> tuple[float, float]:
    """Mean loss; sources with equally many wrong labels are ordered by their probabilities."""
    return float(_shown(predictions, task).mean()), float(task.losses(predictions).mean())
