"""The engine: its control, losses and screen against direct computations, its laws, and what it isolates."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd
import pytest
from sklearn.ensemble import ExtraTreesRegressor, HistGradientBoostingRegressor
from sklearn.linear_model import Ridge

from scotl_matgl import TransferabilityRanker, TransferFeaturizer, TransferRegressor, load_example
from scotl_matgl.bridges.store import find_bridge
from scotl_matgl.descriptors.composite import get_descriptor
from scotl_matgl.descriptors.described import Described
from scotl_matgl.learners.heads import out_of_fold_loss
from scotl_matgl.learners.kernel import kernel_out_of_fold, manhattan
from scotl_matgl.ranking.control import control_features
from scotl_matgl.ranking.judge import criterion
from scotl_matgl.ranking.search import Found, Search
from scotl_matgl.ranking.stages import CardSource
from scotl_matgl.sources.cards import SourceCard, all_cards, select
from scotl_matgl.tables.rows import Rows

ENTHALPY = "MEGNet-MP-2018.6.1-Eform"
GAP = "MEGNet-MP-2019.4.1-BandGap-mfi-PBE"

pytestmark = pytest.mark.usefixtures("only_what_is_shipped")


@pytest.fixture(scope="module")
def table() -> pd.DataFrame:
    return load_example().sample(70, random_state=0).reset_index(drop=True)


@pytest.fixture(scope="module")
def rows(table) -> Rows:
    return Rows.read(table["formula"], table["target"])


@pytest.fixture(scope="module")
def described(rows) -> Described:
    return Described.of(rows.formulas, get_descriptor("standard").fit(rows.formulas))


def search(rows: Rows, described: Described, sources: Any = "MEGNet-MP-*", **settings: Any) -> Found:
    outputs = settings.pop("outputs", False)
    elements = np.unique(described.compositions.numbers)
    features = control_features(described, rows.numbers, rows.names, elements)
    cards = [CardSource(card) for card in select(all_cards(), sources)]
    return Search(**settings).run(cards, rows, described, features, outputs=outputs)


@pytest.fixture(scope="module")
def found(rows, described) -> Found:
    return search(rows, described, [ENTHALPY, GAP])


def embedding(name: str, described: Described) -> np.ndarray:
    (card,) = select(all_cards(), name)
    return find_bridge(card, "readout", described).load().transform(described.X).astype(np.float64)


# -- the control ------------------------------------------------------------------------------------------------------


def loss_by_scikit_learn(head: str, X: np.ndarray, rows: Rows) -> np.ndarray:
    """Out-of-fold loss of a head by its name in ``control_errors``."""
    y, folds = rows.y, rows.folds()
    if head.startswith("kernel ridge"):  # compared with a fit of each fold in test_heads
        sets = [rows.folds(random_state=repeat) for repeat in range(3)]
        return np.mean([out_of_fold_loss("kernel ridge", X, y, folds) for folds in sets], axis=0)
    share = 1.0 if head.endswith("fractions") else 1 / 3
    predicted = np.empty(len(y))
    for fold, (train, test) in enumerate(folds):
        if head.startswith("gradient boosting"):
            boosting = HistGradientBoostingRegressor(max_bins=63, random_state=0)
            predicted[test] = boosting.fit(X[train], y[train]).predict(X[test])
            continue
        # Each fold has a seed of its own.
        trees = ExtraTreesRegressor(40, max_features=share, random_state=fold).fit(X[train], y[train]).estimators_
        read = np.median if head.startswith("median") else np.mean
        predicted[test] = read([tree.predict(X[test]) for tree in trees], axis=0)
    return np.abs(predicted - y)


def test_rows_are_sorted_by_composition(rows) -> None:
    keys = list(rows.formulas.keys())
    assert keys == sorted(set(keys))


@pytest.mark.slow
def test_control_is_the_best_of_all_heads_without_a_source(found, rows, described) -> None:
    fractions = rows.formulas.dense_fractions()
    fractions = fractions[:, fractions.any(axis=0)]
    names = {
        "kernel ridge on descriptors": described.filled,
        "extra trees on descriptors": described.filled,
        "median of extra trees on descriptors": described.filled,
        "gradient boosting on descriptors": described.filled,
        "extra trees on fractions": fractions,
        "median of extra trees on fractions": fractions,
    }
    losses = {name: loss_by_scikit_learn(name, X, rows) for name, X in names.items()}
    expected = {name: loss.mean() for name, loss in losses.items()}
    # Heads are compared in one set of folds.
    expected["kernel ridge on descriptors"] = out_of_fold_loss(
        "kernel ridge", described.filled, rows.y, rows.folds()
    ).mean()
    ranking = found.ranking
    assert dict(ranking.control_errors) == pytest.approx(expected, rel=1e-9)
    assert ranking.control_name == min(expected, key=expected.get)
    np.testing.assert_allclose(ranking.control, losses[ranking.control_name], rtol=1e-9)
    # Sources stand beside descriptors: they are measured with the best head on these.
    assert ranking.head == min((name for name in expected if name.endswith("descriptors")), key=expected.get)


@pytest.mark.slow
def test_labels_have_no_median(rows, described) -> None:
    labelled = replace(rows, y=(rows.y > np.median(rows.y)).astype(np.intp), classes=np.array(["a", "b"]))
    ranking = search(labelled, described, ENTHALPY).ranking
    assert set(ranking.control_errors) == {
        "kernel ridge on descriptors", "extra trees on descriptors", "gradient boosting on descriptors",
        "extra trees on fractions",
    }  # fmt: skip
    assert ranking.measure == "Brier score"
    assert ((ranking.losses >= 0) & (ranking.losses <= 2)).all()
    # Half of the rows have either label: who knows nothing has the score of a half.
    assert ranking.error_of_control < 0.5


# -- measuring --------------------------------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize("head", ["auto", "kernel ridge"])
def test_losses_of_a_source_are_those_of_the_head_on_descriptors_beside_its_embedding(
    found, rows, described, head
) -> None:
    ranking = (found if head == "auto" else search(rows, described, [ENTHALPY, GAP], head=head)).ranking
    assert ranking.head.endswith(" on descriptors")
    for name, losses in zip(ranking.sources, ranking.losses, strict=True):
        X = np.hstack([described.filled, embedding(name, described)])
        np.testing.assert_allclose(losses, loss_by_scikit_learn(ranking.head, X, rows), rtol=1e-6, atol=1e-9)


@pytest.fixture(scope="module")
def few(rows, described) -> Found:
    return search(rows, described, head="kernel ridge", screen_rows=40, max_measured=3)


def errors_of_kernel(distances: np.ndarray, part: Rows, alpha: float | None = None) -> tuple[float, float]:
    """Mean error of kernel ridge over three sets of folds, and its penalty."""
    y, errors = part.y[:, None], []
    for repeat in range(3):
        predicted, alpha = kernel_out_of_fold(distances, y, part.folds(random_state=repeat), alpha=alpha)
        errors.append(np.abs(predicted - y).mean())
    return float(np.mean(errors)), alpha


def by_hand(name: str, rows: Rows, described: Described) -> tuple[float, tuple[float, float]]:
    """Criterion of a source on 40 rows, and the penalties there: with the descriptors, and of its embedding alone."""
    index = rows.sample(40, 0)
    part, own = rows.take(index), manhattan(embedding(name, described)[index])
    distances = manhattan(described.filled[index]) + own
    alphas = (
        kernel_out_of_fold(distances, part.y[:, None], part.folds())[1],
        kernel_out_of_fold(own, part.y[:, None], part.folds())[1],
    )
    both, alone = errors_of_kernel(distances, part, alphas[0])[0], errors_of_kernel(own, part, alphas[1])[0]
    return float(criterion(np.array(both), np.array(alone), 40)), alphas


def test_losses_alone_are_those_of_kernel_ridge_with_the_penalty_of_the_screen(few, rows, described) -> None:
    """They are in the criterion only: ln e(beside descriptors) + 2 / sqrt(m) ln e(alone)."""
    ranking = few.ranking
    for item, losses, found in zip(
        few.measured, ranking.losses, ranking.judgement.criterion[ranking.judgement.order], strict=True
    ):
        name = item.result.source
        assert item.penalties == by_hand(name, rows, described)[1]
        Z = embedding(name, described)
        both, _ = errors_of_kernel(manhattan(described.filled) + manhattan(Z), rows, item.penalties[0])
        assert losses.mean() == pytest.approx(both, rel=1e-6)
        alone, _ = errors_of_kernel(manhattan(Z), rows, item.penalties[1])
        scale = ranking.error_of_control
        assert found == pytest.approx(criterion(np.array(both / scale), np.array(alone / scale), len(rows)), abs=1e-6)
        np.testing.assert_allclose(item.values, Z, atol=1e-5 * np.abs(Z).max())
    assert np.all(np.diff(ranking.judgement.criterion[ranking.judgement.order]) >= 0)


# -- the screen -------------------------------------------------------------------------------------------------------


def test_those_of_the_smallest_criterion_on_some_rows_are_measured(few, rows, described) -> None:
    criteria = {card.name: by_hand(card.name, rows, described)[0] for card in select(all_cards(), "MEGNet-MP-*")}
    order = sorted(criteria, key=criteria.get)
    assert len(order) == 5
    assert set(few.ranking.sources) == set(order[:3])
    assert [result.source for result in few.ranking.screened] == order[3:]
    for item in few.measured:
        assert item.criterion == pytest.approx(criteria[item.result.source], rel=1e-6)


def test_sources_that_are_not_measured_change_nothing_of_the_others(few, rows, described) -> None:
    names = [item.result.source for item in few.measured]
    alone = search(rows, described, names, head="kernel ridge", screen_rows=40, max_measured=5)
    assert alone.ranking.sources == few.ranking.sources
    np.testing.assert_array_equal(alone.ranking.losses, few.ranking.losses)
    assert alone.ranking.judgement.gains == few.ranking.judgement.gains
    assert alone.ranking.screened == ()


def test_sources_in_another_order_give_the_same(few, rows, described) -> None:
    names = [card.name for card in select(all_cards(), "MEGNet-MP-*")][::-1]
    other = search(rows, described, names, head="kernel ridge", screen_rows=40, max_measured=3).ranking
    assert other.sources == few.ranking.sources
    assert [item.source for item in other.screened] == [item.source for item in few.ranking.screened]
    np.testing.assert_array_equal(other.losses, few.ranking.losses)


def test_progress_counts_the_control_the_screen_and_what_is_measured(rows, described) -> None:
    seen: list[tuple[int, int]] = []
    features = control_features(described, rows.numbers, rows.names, np.unique(described.compositions.numbers))
    sources = [CardSource(card) for card in select(all_cards(), "MEGNet-MP-*")]
    Search(head="kernel ridge", screen_rows=40, max_measured=2).run(
        sources, rows, described, features, progress=lambda *step: seen.append(step)
    )
    assert seen == [(step, 8) for step in range(1, 9)]


# -- laws -------------------------------------------------------------------------------------------------------------


def rank(formulas: Any, y: Any, sources: Any = "MEGNet-MP-*", **settings: Any) -> TransferabilityRanker:
    return TransferabilityRanker(sources, **({"head": "kernel ridge", "estimators": ["loo"]} | settings)).fit(
        formulas, y
    )


def assert_same(first: Any, second: Any) -> None:
    """Two rankings are the same bit for bit."""
    assert first.sources == second.sources
    np.testing.assert_array_equal(first.losses, second.losses)
    np.testing.assert_array_equal(first.control, second.control)
    assert (first.judgement.gains, first.judgement.together) == (second.judgement.gains, second.judgement.together)
    frames = [item.to_frame().drop(columns="seconds") for item in (first, second)]
    pd.testing.assert_frame_equal(*frames, check_exact=True)


@pytest.fixture(scope="module")
def reference(table) -> TransferabilityRanker:
    return rank(table["formula"], table["target"])


@pytest.mark.slow
def test_the_order_of_rows_changes_nothing(table, reference) -> None:
    for seed in (1, 2):
        shuffled = table.sample(frac=1, random_state=seed)
        assert_same(rank(shuffled["formula"], shuffled["target"]).ranking_, reference.ranking_)
    shuffled = table.sample(frac=1, random_state=3)
    trees = [rank(part["formula"], part["target"], ENTHALPY, head="auto").ranking_ for part in (table, shuffled)]
    assert_same(*trees)


def test_the_order_of_labelled_rows_changes_nothing(table) -> None:
    labels = pd.Series(np.where(table["target"] < -1, "stable", "loose"))
    order = np.random.default_rng(0).permutation(len(table))
    assert_same(
        rank(table["formula"], labels, ENTHALPY).ranking_,
        rank(table["formula"][order], labels[order], ENTHALPY).ranking_,
    )


def test_threads_change_nothing(table, reference) -> None:
    assert_same(rank(table["formula"], table["target"], n_jobs=2).ranking_, reference.ranking_)


SCRIPT = """
import hashlib, json
from scotl_matgl import TransferabilityRanker, load_example
table = load_example().sample(30, random_state=0)
ranker = TransferabilityRanker("MEGNet-MP-*", head="kernel ridge", estimators=["loo"])
ranking = ranker.fit(table["formula"], table["target"]).ranking_
said = ranking.to_dict()
for row in said["ranking"]:
    row.pop("seconds")
print(hashlib.sha256((json.dumps(said, default=str) + ranking.losses.tobytes().hex()).encode()).hexdigest())
"""


@pytest.mark.slow
def test_the_seed_of_hashes_changes_nothing() -> None:
    runs = [
        subprocess.Popen(  # noqa: S603 - our own script
            [sys.executable, "-W", "ignore", "-c", SCRIPT],
            env={**os.environ, "PYTHONHASHSEED": str(seed)},
            stdout=subprocess.PIPE,
            text=True,
        )
        for seed in (0, 1, 2)
    ]
    said = {run.communicate(timeout=300)[0].strip() for run in runs}
    assert [run.returncode for run in runs] == [0, 0, 0]
    assert len(said) == 1


def test_names_of_classes_do_not_matter(table) -> None:
    codes = np.digitize(table["target"], [-1.5, -0.5])
    first = rank(table["formula"], codes).ranking_
    for names in (np.array(["c", "a", "b"]), np.array(["b", "c", "a"])):
        other = rank(table["formula"], names[codes]).ranking_
        assert other.sources == first.sources
        np.testing.assert_allclose(other.losses, first.losses, rtol=1e-9, atol=1e-12)
        np.testing.assert_allclose(other.control, first.control, rtol=1e-9, atol=1e-12)
        assert other.verdict == first.verdict
        assert other.relative_gain == pytest.approx(first.relative_gain, rel=1e-9)


def test_another_unit_scales_errors_and_nothing_else(table, reference) -> None:
    first = reference.ranking_
    for factor, tolerance in ((1000.0, 1e-6), (2.0**-40, 1e-9)):
        other = rank(table["formula"], factor * table["target"]).ranking_
        assert (other.sources, other.verdict, other.best) == (first.sources, first.verdict, first.best)
        np.testing.assert_allclose(other.losses, factor * first.losses, rtol=tolerance, atol=factor * tolerance)
        assert other.relative_gain == pytest.approx(first.relative_gain, abs=1e-6)
        assert other.relative_interval == pytest.approx(first.relative_interval, abs=1e-6)


# -- one engine -------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def repeated(table) -> pd.DataFrame:
    again = table[:8].assign(target=lambda part: part["target"] + np.linspace(-0.2, 0.3, len(part)))
    return pd.concat([table, again, table[3:5]], ignore_index=True)


def test_a_transferred_model_has_the_ranking_of_the_ranker(table, repeated) -> None:
    for data in (table, repeated):
        ranking = rank(data["formula"], data["target"]).ranking_
        model = TransferRegressor("MEGNet-MP-*", head="kernel ridge", predictions=False)
        own = model.fit(data["formula"], data["target"]).ranking_
        assert own.sources == ranking.sources
        np.testing.assert_array_equal(own.losses, ranking.losses)
        np.testing.assert_array_equal(own.control, ranking.control)
        assert (own.verdict, own.probability, own.n_rows) == (ranking.verdict, ranking.probability, ranking.n_rows)
        assert own.judgement.gains == ranking.judgement.gains
        assert [source.name for source in model.sources_] == list(ranking.sources[: ranking.n_together])


@pytest.mark.slow
def test_a_transferred_model_with_the_defaults_has_the_ranking_of_the_defaults(table) -> None:
    ranking = TransferabilityRanker([ENTHALPY, GAP]).fit(table["formula"], table["target"]).ranking_
    model = TransferRegressor([ENTHALPY, GAP]).fit(table["formula"], table["target"])
    assert model.ranking_.summary() == ranking.summary()
    np.testing.assert_array_equal(model.ranking_.losses, ranking.losses)
    assert [source.name for source in model.sources_] == list(ranking.sources)


def test_a_fitted_ranker_as_sources_is_not_searched_again(table, reference, monkeypatch) -> None:
    first = TransferRegressor("MEGNet-MP-*", head="kernel ridge", predictions=False)
    first.fit(table["formula"], table["target"])

    def refuse(*_: Any, **__: Any) -> None:
        raise AssertionError("it was searched again")

    monkeypatch.setattr(Search, "run", refuse)
    model = TransferRegressor(reference, head="kernel ridge", predictions=False)
    model.fit(table["formula"], table["target"])
    assert model.ranking_ is reference.ranking_
    assert [source.name for source in model.sources_] == [source.name for source in first.sources_]
    # The search has compared the heads on its sorted rows, the model does so on those of the table: rounding differs.
    np.testing.assert_allclose(model.predict(table["formula"]), first.predict(table["formula"]), rtol=1e-8)
    featurizer = TransferFeaturizer(reference).fit(table["formula"])
    assert [source.name for source in featurizer.sources_] == [reference.ranking_.sources[0]]


def test_transform_embeds_by_what_fit_has_found(table, reference, rows, monkeypatch) -> None:
    def refuse(*_: Any, **__: Any) -> None:
        raise AssertionError("it was looked for again")

    for place in ("find_bridge", "embed_source"):
        monkeypatch.setattr(f"scotl_matgl.bridges.embedding.{place}", refuse)
    ranker = reference
    assert [item.name for item in ranker.embeddings_] == list(ranker.ranking_.sources)
    values = ranker.transform(rows.formulas)
    assert values.shape == (len(rows), 160)
    np.testing.assert_array_equal(values, ranker.transform(rows.formulas))


# -- isolation --------------------------------------------------------------------------------------------------------


def card(name: str, encode: str, **fields: Any) -> SourceCard:
    fixed = {
        "zoo": "test", "modality": "composition", "property": "length", "unit": "1", "dataset": "none",
        "architecture": "none", "layers": {"readout": 2, "final": 1}, "licence": "none", "citation": "none",
    }  # fmt: skip
    return SourceCard(name=name, loader=f"{__name__}:{encode}", **(fixed | fields))


class Lengths:
    """A source of the number of elements and of characters, whose output may fail."""

    def __init__(self, card: SourceCard, output: Callable[[np.ndarray], np.ndarray] = lambda lengths: lengths) -> None:
        self.output = output

    def encode(self, compositions: Any, *, layer: str) -> np.ndarray:
        lengths = [(len(compositions[i][0]), len(compositions.text[i])) for i in range(len(compositions))]
        values = np.array(lengths, dtype=np.float64)
        return self.output(values[:, :1]) if layer == "final" else values


def no_output(card: SourceCard) -> Lengths:
    def fail(_: np.ndarray) -> np.ndarray:
        raise RuntimeError("it has forgotten what it predicts")

    return Lengths(card, fail)


def leaves(card: SourceCard) -> Any:
    raise SystemExit("it leaves")


def test_a_source_without_an_output_is_ranked_without_it(rows, described) -> None:
    sources = [card("whole", "Lengths"), card("no-output", "no_output"), ENTHALPY]
    result = search(rows, described, sources, head="kernel ridge", outputs=True)
    assert set(result.ranking.sources) == {"whole", "no-output", ENTHALPY}
    assert [source.name for source, _ in result.outputs] == ["whole", ENTHALPY]
    assert dict(result.ranking.errors) == {}
    by_name = dict(zip(result.ranking.sources, result.ranking.losses, strict=True))
    np.testing.assert_array_equal(by_name["whole"], by_name["no-output"])


class Picky(Ridge):
    """A head that refuses a number of columns."""

    def fit(self, X: Any, y: Any) -> Any:
        if X.shape[1] == 269:
            raise ValueError("it cannot stand 269 columns")
        return super().fit(X, y)


def test_what_fails_costs_its_own_line(rows, described) -> None:
    sources = [card("leaves", "leaves"), card("whole", "Lengths"), ENTHALPY]
    result = search(rows, described, sources, head=Picky(alpha=10.0))
    alone = search(rows, described, ENTHALPY, head=Picky(alpha=10.0))
    assert_same(result.ranking, alone.ranking)
    assert dict(result.ranking.errors) == {"leaves": "its loader or encoder raises SystemExit: it leaves"} | {
        "whole": "it cannot stand 269 columns"
    }
    nothing = search(rows, described, sources[:2], head=Picky(alpha=10.0))
    assert (nothing.ranking.sources, nothing.ranking.best) == ((), "no transfer")
    np.testing.assert_array_equal(nothing.ranking.control, alone.ranking.control)
