"""A ranking spread over other processes: the same bit for bit, also when one of them is killed."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from typing import Any

import joblib
import numpy as np
import pandas as pd
import pytest

from scotl_matgl import Ranking, TransferabilityRanker
from scotl_matgl.tables.files import load_example

# What the time of a source is, nothing else may depend on where it was computed.
SECONDS = "seconds"


@pytest.fixture(scope="module")
def table() -> pd.DataFrame:
    return load_example().drop_duplicates("formula").sample(350, random_state=0)


def rank(table: pd.DataFrame, **options: Any) -> Ranking:
    """Rank some sources; more rows than the screen sees, and trees among the heads of the control."""
    ranker = TransferabilityRanker(
        ["Shotgun-*", "MEGNet*"], max_measured=4, estimators=("loo", "knn"), on_error="raise"
    )
    ranking: Ranking = ranker.fit(table["formula"], table["target"], **options).ranking_
    return ranking


@pytest.fixture(scope="module")
def by_threads(table: pd.DataFrame) -> Ranking:
    return rank(table)


@pytest.fixture(scope="module")
def cluster() -> Iterator[Any]:
    distributed = pytest.importorskip("distributed")
    options = {"n_workers": 2, "threads_per_worker": 1, "processes": True, "dashboard_address": None}
    with distributed.LocalCluster(**options) as cluster, distributed.Client(cluster) as client:
        yield client


def assert_same(found: Ranking, expected: Ranking) -> None:
    assert found.sources == expected.sources
    np.testing.assert_array_equal(found.losses, expected.losses)
    np.testing.assert_array_equal(found.control, expected.control)
    np.testing.assert_array_equal(found.judgement.criterion, expected.judgement.criterion)
    assert (found.judgement.gains, found.judgement.together) == (expected.judgement.gains, expected.judgement.together)
    assert dict(found.control_errors) == dict(expected.control_errors)
    assert (dict(found.errors), dict(found.unscored)) == (dict(expected.errors), dict(expected.unscored))
    assert len(found.screened) > 20
    pd.testing.assert_frame_equal(
        found.to_frame().drop(columns=SECONDS), expected.to_frame().drop(columns=SECONDS), check_exact=True
    )


@pytest.mark.slow
def test_processes_of_a_cluster_give_the_same_ranking(table: pd.DataFrame, by_threads: Ranking, cluster: Any) -> None:
    from distributed import get_task_stream

    with get_task_stream(cluster) as stream, joblib.parallel_config("dask"):
        found = rank(table)
    tasks = [str(task["key"]) for task in stream.data]
    assert len(tasks) > 10
    assert all("_in_worker_" in task for task in tasks)  # sources alone: trees would be added in any order
    assert_same(found, by_threads)


@pytest.mark.slow
def test_the_loss_of_a_worker_does_not_end_the_run(table: pd.DataFrame, by_threads: Ranking, cluster: Any) -> None:
    before = cluster.run(os.getpid)
    calls: list[int] = []

    def progress(done: int, _total: int) -> None:
        if done == 8:  # of about forty
            os.kill(next(iter(before.values())), signal.SIGKILL)
        calls.append(done)

    with joblib.parallel_config("dask"):
        found = rank(table, progress=progress)
    assert_same(found, by_threads)
    assert calls == sorted(calls)
    cluster.wait_for_workers(2, timeout=60)
    assert set(cluster.run(os.getpid).values()) != set(before.values())


@pytest.mark.slow
def test_processes_of_joblib_give_the_same_ranking(table: pd.DataFrame) -> None:
    few = table[:40]
    options = {"sources": "Shotgun-*", "max_measured": 3, "head": "kernel ridge", "estimators": ("loo",)}
    expected = TransferabilityRanker(**options).fit(few["formula"], few["target"]).ranking_
    with joblib.parallel_config("loky", n_jobs=2):
        found = TransferabilityRanker(**options).fit(few["formula"], few["target"]).ranking_
    assert found.sources == expected.sources
    np.testing.assert_array_equal(found.losses, expected.losses)
    assert dict(found.errors) == dict(expected.errors) == {}


def test_why_scores_failed_comes_back_from_other_processes(table: pd.DataFrame) -> None:
    from scotl_matgl.estimators import KNN

    few = table[:40]
    options = {"sources": "MEGNet*", "head": "kernel ridge", "estimators": (KNN(k=0),)}
    with joblib.parallel_config("loky", n_jobs=2):
        found = TransferabilityRanker(**options).fit(few["formula"], few["target"]).ranking_
    ((name, why),) = found.unscored.items()
    assert "k is 0" in why
    assert why.startswith("MEGNet-MP-2018.6.1-Eform: ")
    assert all(np.isnan(result.scores[name]) for result in found.results)
