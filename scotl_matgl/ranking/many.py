"""Rank very many sources, such as a library of small networks, for a table: resumable, and small in memory."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from scotl_matgl.descriptors.composite import get_descriptor
from scotl_matgl.descriptors.described import Described
from scotl_matgl.exceptions import InputError
from scotl_matgl.learners.members import check_head
from scotl_matgl.progress import Told, tells
from scotl_matgl.ranking.control import control_features
from scotl_matgl.ranking.layers import check_layer
from scotl_matgl.ranking.memory import LastingSource, ScoresFile, fingerprint_of
from scotl_matgl.ranking.result import Ranking
from scotl_matgl.ranking.search import Search
from scotl_matgl.tables.rows import Rows
from scotl_matgl.tables.target import Task
from scotl_matgl.vocabulary import check_whole

# Describes the table without a source: what transfer has to beat.
_DESCRIPTOR = "standard"


@tells("ranking")
def rank_many(
    sources: Sequence[LastingSource],
    formulas: Any,
    y: ArrayLike,
    *,
    path: str | Path | None = None,
    task: Task = "auto",
    progress: Told = None,
    **settings: Any,
) -> Ranking:
    """Rank very many sources for a table.

    A source is screened by the exact leave-one-out error (mean absolute) of ridge regression on its embedding, then
    dropped unless it is among the first, which are measured beside the descriptors and judged, as
    :class:`~scotl_matgl.TransferabilityRanker` does. The judgement counts in that the best of those measured is picked,
    not that they come first of very many.

    Parameters
    ----------
    sources : sequence of LastingSource
        Each name once.
    formulas : sequence of length n
        All that :func:`~scotl_matgl.parse_compositions` reads; equal compositions are merged.
    y : array-like of shape (n,)
        The measured property, or class labels, which are screened by kernel ridge on at most 300 rows.
    path : path-like, optional
        File in which the screen keeps its scores, so that a run that was killed goes on, see
        :class:`~scotl_matgl.ranking.memory.ScoresFile`.
    task : {"auto", "regression", "classification"}, default="auto"
        Kind of target.
    progress : callable or True, optional
        A callable is called with (done, total) steps; True draws a bar, in a notebook below the cell.
    **settings
        Of :class:`~scotl_matgl.ranking.search.Search`: ``max_measured`` (20 by default), ``head``, ``estimators``,
        ``layer``, ``n_jobs``, ``random_state``.

    Returns
    -------
    Ranking

    Raises
    ------
    InputError
        If a name stands twice, `path` is no file of an earlier run on this table, fewer than 10 different compositions
        can be used, or there is nothing to learn.
    """
    search = Search(**{"screen": "ridge", "max_measured": 20, **settings})
    check_layer(search.layer)
    check_whole("max_measured", search.max_measured, 1)
    try:
        check_head(search.head)
    except ValueError as error:
        raise InputError(str(error)) from None
    names = Counter(source.name for source in sources)
    if len(names) < len(sources):
        name, times = names.most_common(1)[0]
        raise InputError(f"{name!r} stands {times} times among the sources; give each name once")
    rows = Rows.read(formulas, y, task=task)
    described = Described.of(rows.formulas, get_descriptor(_DESCRIPTOR).fit(rows.formulas))
    features = control_features(described, rows.numbers, rows.names, np.unique(rows.formulas.numbers).astype(np.intp))
    with ExitStack() as stack:
        memory = None
        if path is not None:
            memory = stack.enter_context(ScoresFile(Path(path), sources, fingerprint_of(rows, described, search)))
        ranking = search.run(
            sources, rows, described, features, memory=memory, progress=progress if callable(progress) else None
        ).ranking
    if not ranking.screened:
        return ranking
    measured, screened = len(ranking.results), len(ranking.results) + len(ranking.screened)
    chosen = (
        f"The {measured} sources that were measured are the first of {screened} on these very rows, which the gains do "
        "not count in: they are too large; test what you choose on rows that took no part."
    )
    return replace(ranking, remarks=(*ranking.remarks, chosen))
