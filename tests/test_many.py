"""Very many sources: the exact first of the screen, and a memory that outlives the run."""

from __future__ import annotations

import dataclasses
import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from scotl_matgl import Ranking, SourceCard
from scotl_matgl.estimators import LOORidge
from scotl_matgl.exceptions import InputError
from scotl_matgl.plugin import Described, Embeddings, embed_by_encoder, rank_many
from scotl_matgl.tables.files import load_example

N = 30


@dataclass
class Columns:
    """A source whose embedding is some columns of the descriptors, and what was asked of it."""

    seed: int
    identity: str = "1"
    asked: list[str] = field(default_factory=list)

    @property
    def name(self) -> str:
        return f"columns-{self.seed:02d}"

    @property
    def card(self) -> SourceCard:
        self.asked.append("card")
        facts = dict.fromkeys(("zoo", "property", "unit", "dataset", "architecture", "licence", "citation"), "x")
        return SourceCard(name=self.name, modality="composition", layers={"readout": 5}, loader="no:where", **facts)

    def values(self, X: np.ndarray) -> np.ndarray:
        return np.nan_to_num(X[:, np.random.default_rng(self.seed).choice(X.shape[1], 5, replace=False)])

    def embed(self, described: Described, layers: Any, look_up: Any) -> Embeddings:
        self.asked.append("embedding")
        return embed_by_encoder(self.card, _Encoder(self, described.X), described, layers)


class _Encoder:
    def __init__(self, source: Columns, X: np.ndarray) -> None:
        self.source, self.X = source, X

    def encode(self, _formulas: Any, *, layer: str) -> np.ndarray:
        return self.source.values(self.X)


@pytest.fixture(scope="module")
def table() -> tuple[list[str], np.ndarray]:
    frame = load_example().drop_duplicates("formula").sample(60, random_state=0)
    return list(frame["formula"]), frame["target"].to_numpy()


@pytest.fixture
def sources() -> list[Columns]:
    return [Columns(seed) for seed in range(N)]


def rank(sources: list[Columns], table: tuple[list[str], np.ndarray], **options: Any) -> Ranking:
    return rank_many(sources, *table, **{"max_measured": 4, "head": "kernel ridge", **options})


def facts(ranking: Ranking) -> list[Any]:
    """All but the time."""
    listed = (*ranking.results, *ranking.screened)
    return [ranking.losses.tolist(), *(dataclasses.replace(result, seconds=0) for result in listed)]


@pytest.mark.parametrize("most", [1, 4, N])
def test_the_first_are_those_of_the_exact_errors(
    sources: list[Columns], table: tuple[list[str], np.ndarray], most: int
) -> None:
    from scotl_matgl.descriptors.composite import get_descriptor

    formulas, y = table
    X = get_descriptor("standard").fit(formulas).transform(formulas)
    errors = {source.name: LOORidge().fit(source.values(X), y).mae_ for source in sources}
    order = sorted(errors, key=lambda name: (errors[name], name))
    ranking = rank(sources, table, max_measured=most)
    assert set(ranking.sources) == set(order[:most])
    assert [result.source for result in ranking.screened] == order[most:]
    told = [remark for remark in ranking.remarks if f"the first of {N} on these very rows" in remark]
    assert len(told) == (most < N)


class Interrupt(BaseException):
    pass


def test_an_interrupted_run_goes_on_with_the_same_result(
    sources: list[Columns], table: tuple[list[str], np.ndarray], tmp_path: Path
) -> None:
    whole = rank(sources, table)
    file = tmp_path / "new folder" / "scores.jsonl"

    def interrupt(done: int, _total: int) -> None:
        if done == 20:
            raise Interrupt

    with pytest.raises(Interrupt):
        rank(sources, table, path=file, progress=interrupt)
    known = [json.loads(line)[2] for line in file.read_text().splitlines()[1:]]
    assert known == [source.name for source in sources[:18]]
    for source in sources:
        source.asked.clear()
    assert facts(rank(sources, table, path=file)) == facts(whole)
    asked = {source.name for source in sources if source.asked}
    first = {*whole.sources}
    assert asked == {source.name for source in sources[18:]} | first  # of the known ones no card is made

    other = [dataclasses.replace(source, identity="2") if source.seed < 3 else source for source in sources]
    for source in other:
        source.asked.clear()
    assert facts(rank(other, table, path=file)) == facts(whole)
    assert {source.name for source in other if source.asked} == {source.name for source in other[:3]} | first
    for source in other:
        source.asked.clear()
    rank(other, table, path=file)  # the last line of a source counts
    assert {source.name for source in other if source.asked} == first


def test_scores_of_estimators_are_kept_and_belong_to_the_settings(
    sources: list[Columns], table: tuple[list[str], np.ndarray], tmp_path: Path
) -> None:
    file = tmp_path / "scores.jsonl"
    options = {"estimators": {"loo": LOORidge()}, "path": file}
    first = rank(sources, table, **options)
    assert facts(rank(sources, table, **options)) == facts(first)
    assert all(result.scores == {"loo": -result.loo_rmse} for result in first.screened)
    for change in ({"estimators": {"loo": LOORidge(alphas=1.0)}}, {"estimators": {}}, {"random_state": 1}):
        with pytest.raises(InputError, match="other settings"):
            rank(sources, table, **{**options, **change})


@pytest.fixture
def labels(table: tuple[list[str], np.ndarray]) -> tuple[list[str], np.ndarray]:
    formulas, y = table
    return formulas, np.where(y > np.median(y), "high", "low")


def test_class_labels_are_screened_and_remembered_too(
    sources: list[Columns], labels: tuple[list[str], np.ndarray], tmp_path: Path
) -> None:
    file = tmp_path / "scores.jsonl"
    first = rank(sources[:8], labels, path=file)
    assert first.classification
    assert len(first.results) + len(first.screened) == 8
    again = rank(sources[:8], labels, path=file)
    assert again.sources == first.sources
    assert [r.source for r in again.screened] == [r.source for r in first.screened]
    assert all(np.isnan(result.loo_rmse) for result in again.results)
