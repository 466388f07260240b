"""The transferred model: its blend against scikit-learn, honesty in cross-validation, tables, files and refusals."""

from __future__ import annotations

import pickle
import warnings
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from sklearn.base import BaseEstimator, RegressorMixin, clone
from sklearn.compose import ColumnTransformer
from sklearn.ensemble import ExtraTreesRegressor, RandomForestRegressor
from sklearn.frozen import FrozenEstimator
from sklearn.linear_model import LogisticRegression, Ridge, RidgeCV
from sklearn.model_selection import GridSearchCV, KFold, cross_val_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.utils.estimator_checks import parametrize_with_checks

from scotl_matgl import TransferClassifier, TransferFeaturizer, TransferRegressor, load_example
from scotl_matgl.bridges.ridge import RidgeBridge
from scotl_matgl.bridges.store import find_bridge
from scotl_matgl.chemistry.compositions import parse_compositions
from scotl_matgl.chemistry.formulas import CompositionError
from scotl_matgl.descriptors.composite import get_descriptor
from scotl_matgl.exceptions import InputError, ScotlMatglWarning
from scotl_matgl.learners.blend import blend_weights, share_of_transfer, without_gaps
from scotl_matgl.learners.domain import TrainingDomain
from scotl_matgl.learners.heads import HEADS, out_of_fold_loss
from scotl_matgl.learners.members import BlendMember, Features, FittedHead
from scotl_matgl.learners.uncertainty import Uncertainty
from scotl_matgl.sources.cards import CardError, all_cards, select
from scotl_matgl.tables.folds import Folds
from scotl_matgl.tables.rows import Rows, read_rows
from scotl_matgl.training.bridge import FineTunedBridge
from scotl_matgl.vocabulary import NO_TRANSFER

ENTHALPY = "MEGNet-MP-2018.6.1-Eform"

pytestmark = pytest.mark.usefixtures("only_what_is_shipped")


@pytest.fixture(scope="module")
def table() -> pd.DataFrame:
    return load_example().sample(160, random_state=1).reset_index(drop=True)


@pytest.fixture(scope="module")
def known(table) -> pd.DataFrame:
    return table[:80]


@pytest.fixture(scope="module")
def new(table) -> pd.DataFrame:
    return table[80:]


@pytest.fixture(scope="module")
def fitted(known) -> TransferRegressor:
    return TransferRegressor(["MEGNet-MP-2018*", "QET*"], head="kernel ridge").fit(known["formula"], known["target"])


def quick(sources=ENTHALPY, **parameters) -> TransferRegressor:
    return TransferRegressor(sources, **({"head": "kernel ridge", "n_sources": 1, "predictions": False} | parameters))


def described(formulas) -> np.ndarray:
    return get_descriptor("standard").fit_transform(formulas)


def folds_of(formulas, y) -> Folds:
    """The folds of a model: they follow the compositions, and rows stay in their order."""
    return read_rows(formulas, strict=True).with_target(y).folds()


def embedding(formulas, name: str = ENTHALPY) -> np.ndarray:
    (card,) = select(all_cards(), name)
    return (
        find_bridge(card, "readout", get_descriptor("standard"))
        .load()
        .transform(described(formulas))
        .astype(np.float64)
    )


# -- the numeric path follows scikit-learn ----------------------------------------------------------------------------


@pytest.mark.slow
@parametrize_with_checks(
    [TransferRegressor(sources=(), head=Ridge()), TransferClassifier(sources=(), head="kernel ridge")]
)
def test_follows_scikit_learn(estimator, check) -> None:
    check(estimator)


# -- the numbers ------------------------------------------------------------------------------------------------------


def test_without_guard_one_head_is_that_head_on_descriptors_beside_the_embedding(known, new) -> None:
    model = quick(head=Ridge(alpha=30.0), guard=False).fit(known["formula"], known["target"])
    beside = [np.hstack([described(part["formula"]), embedding(part["formula"])]) for part in (known, new)]
    expected = Ridge(alpha=30.0).fit(beside[0], known["target"]).predict(beside[1])
    np.testing.assert_allclose(model.predict(new["formula"]), expected, rtol=1e-9)
    assert model.transfers_
    assert model.source_ == ENTHALPY


def test_embedding_alone_is_that_head_on_the_embedding(known, new) -> None:
    model = quick(head=Ridge(alpha=30.0), guard=False, combine="embedding").fit(known["formula"], known["target"])
    expected = Ridge(alpha=30.0).fit(embedding(known["formula"]), known["target"]).predict(embedding(new["formula"]))
    np.testing.assert_allclose(model.predict(new["formula"]), expected, rtol=1e-6)


@pytest.mark.parametrize("max_rows", [1000, 60])
def test_residuals_are_out_of_fold_and_added_to_the_control(max_rows, known, new) -> None:
    head = Ridge(alpha=30.0)
    model = quick(head=head, guard=False, combine="residual", max_rows=max_rows)
    model.fit(known["formula"], known["target"])
    X, y = described(known["formula"]), known["target"].to_numpy()
    left = y.copy()
    for train, test in folds_of(known["formula"], y):
        left[test] -= clone(head).fit(X[train], y[train]).predict(X[test])
    control = clone(head).fit(X, y).predict(described(new["formula"]))
    further = clone(head).fit(embedding(known["formula"]), left).predict(embedding(new["formula"]))
    np.testing.assert_allclose(model.predict(new["formula"]), control + further, rtol=1e-6)


def test_guarded_prediction_is_the_weighted_mean_of_its_members(known, new) -> None:
    head = Ridge(alpha=30.0)
    model = quick(head=head).fit(known["formula"], known["target"])
    beside = [np.hstack([described(part["formula"]), embedding(part["formula"])]) for part in (known, new)]
    alone, transferred = (
        clone(head).fit(columns[0], known["target"]).predict(columns[1])
        for columns in ([described(known["formula"]), described(new["formula"])], beside)
    )
    weights = list(model.members_.values())
    assert sum(weights) == pytest.approx(1.0)
    np.testing.assert_allclose(model.predict(new["formula"]), weights[0] * alone + weights[1] * transferred, rtol=1e-9)
    # With one head on descriptors the blend without transfer is that head, and its share is what the others leave.
    assert model.no_transfer_error_ == pytest.approx(model.control_error_)
    assert model.share_ == pytest.approx(weights[1])
    without = quick(sources=(), head=head).fit(known["formula"], known["target"])
    assert without.error_ == without.no_transfer_error_ == pytest.approx(model.no_transfer_error_)
    assert (without.share_, without.transfers_) == (0.0, False)


@pytest.mark.slow
def test_forests_are_read_by_their_mean_and_their_median(known, new) -> None:
    model = TransferRegressor(()).fit(known["formula"], known["target"])
    X, y = described(known["formula"]), known["target"].to_numpy()
    trees = ExtraTreesRegressor(100, max_features=1 / 3, random_state=0)
    mean, median = np.empty_like(y), np.empty_like(y)
    folds = folds_of(known["formula"], y)
    for fold, (train, test) in enumerate(folds):
        forest = clone(trees).set_params(n_estimators=40, random_state=fold).fit(X[train], y[train])
        of_trees = [tree.predict(X[test]) for tree in forest.estimators_]
        mean[test], median[test] = np.mean(of_trees, axis=0), np.median(of_trees, axis=0)
    for name, expected in (("extra trees", mean), ("median of extra trees", median)):
        assert model.member_errors_[f"{name} on descriptors"] == pytest.approx(np.abs(expected - y).mean(), rel=1e-9)
    # All heads that a control is chosen from belong to the blend.
    for head in set(HEADS) - {"extra trees"}:
        expected = out_of_fold_loss(head, X, y, folds).mean()
        assert model.member_errors_[f"{head} on descriptors"] == pytest.approx(expected, rel=1e-9)
    only_median = BlendMember("extra trees", ("numbers",), median=True)
    features = Features({"numbers": X}, {"numbers": np.ones(X.shape[1])})
    forest = FittedHead(clone(trees).fit(X, y))
    np.testing.assert_array_equal(
        only_median.outputs(forest, features, 0)[:, 0],
        np.median([tree.predict(X) for tree in forest.head.estimators_], axis=0),
    )


@pytest.mark.slow
def test_what_the_search_has_compared_is_not_fitted_again(known, monkeypatch) -> None:
    """Where no rows are merged, heads without a source are compared once for the ranking and for the blend."""
    fits = []
    fit = BlendMember.fit
    monkeypatch.setattr(BlendMember, "fit", lambda self, *given, **more: fits.append(self) or fit(self, *given, **more))
    shuffled = known.sample(frac=1.0, random_state=3)
    model = TransferRegressor(ENTHALPY).fit(shuffled["formula"], shuffled["target"])
    boosting = [member for member in fits if member.head == "gradient boosting"]
    assert len(boosting) == 5 + ("gradient boosting on descriptors" in model.members_)
    # The search has its rows in another order: each row has its own prediction. Trees split ties by rounding.
    alone = TransferRegressor(()).fit(shuffled["formula"], shuffled["target"])
    for name, error in alone.member_errors_.items():
        assert model.member_errors_[name] == pytest.approx(error, rel=1e-8 if "kernel" in name else 0.05)


@pytest.mark.slow
def test_threads_change_no_number(known, new) -> None:
    one, two = (
        TransferRegressor(ENTHALPY, n_jobs=n_jobs).fit(known["formula"], known["target"]) for n_jobs in (None, 2)
    )
    assert one.member_errors_ == two.member_errors_
    np.testing.assert_array_equal(one.predict(new["formula"]), two.predict(new["formula"]))


def test_the_median_tells_metals_from_others(assets) -> None:
    """Half of the measured gaps are 0: the mean over trees is never 0, the median is."""
    gaps = pd.read_csv(assets / "targets" / "expt_gap.csv").sample(400, random_state=0)
    known, new = gaps[:300], gaps[300:]
    model = TransferRegressor(()).fit(known["composition"], known["target"])
    single = TransferRegressor((), head="extra trees").fit(known["composition"], known["target"])
    errors = model.member_errors_
    assert errors["median of extra trees on descriptors"] < 0.95 * errors["extra trees on descriptors"]
    error, mean_error = (np.abs(item.predict(new["composition"]) - new["target"]).mean() for item in (model, single))
    assert error < 0.95 * mean_error


def test_alloys_are_learned_from_their_element_fractions(assets) -> None:
    steels = pd.read_csv(assets / "targets" / "steels_yield.csv")
    model = TransferRegressor(()).fit(steels["composition"][:250], steels["target"][:250])
    errors = model.member_errors_
    assert min(errors, key=errors.__getitem__) in ("extra trees on fractions", "median of extra trees on fractions")
    compositions = parse_compositions(steels["composition"][:250])
    y = steels["target"].to_numpy()[:250]
    fractions = compositions.dense_fractions()
    fractions = fractions[:, fractions.any(axis=0)]
    expected = np.empty_like(y)
    for fold, (train, test) in enumerate(folds_of(compositions, y)):
        trees = ExtraTreesRegressor(40, max_features=1.0, random_state=fold)
        expected[test] = trees.fit(fractions[train], y[train]).predict(fractions[test])
    assert errors["extra trees on fractions"] == pytest.approx(np.abs(expected - y).mean(), rel=1e-9)
    # Of an element that no training row has, nothing is known; the others count.
    assert np.isfinite(model.predict(["Fe0.9U0.1"])).all()


@pytest.mark.slow
def test_a_class_that_a_fold_lacks_is_never_predicted_there(known) -> None:
    labels = np.array(["usual"] * (len(known) - 1) + ["rare"])
    model = TransferClassifier(()).fit(known["formula"], labels)
    assert model.error_ == pytest.approx(1 / len(known))
    assert (model.predict(known["formula"][:20]) == "usual").all()
    # Nor by a head that cannot learn one class.
    model = TransferClassifier((), head=LogisticRegression(max_iter=5000)).fit(known["formula"], labels)
    assert model.error_ <= 3 / len(known)


@pytest.mark.slow
def test_the_unit_of_the_target_does_not_matter(known, new) -> None:
    """Trees cannot tell values below 1e-8 apart; a power of two changes no digit."""
    factor = 2.0**-40
    model, small = (
        TransferRegressor(ENTHALPY).fit(known["formula"], known["target"] * scale) for scale in (1.0, factor)
    )
    for name, error in model.member_errors_.items():
        assert small.member_errors_[name] / factor == pytest.approx(error, rel=1e-6), name
    np.testing.assert_allclose(small.predict(new["formula"]) / factor, model.predict(new["formula"]), rtol=1e-6)


def test_one_wild_row_is_no_excuse_for_a_head() -> None:
    loss = np.random.default_rng(0).uniform(0.05, 0.1, size=100)
    wild = np.where(np.arange(100) == 7, 1e6, 0.9 * loss)
    assert blend_weights(np.array([loss, wild]))[1] < 1e-6


def test_heads_that_refuse_a_row_leave_it_to_the_others() -> None:
    first, second = np.array([[1.0], [np.nan], [np.nan]]), np.array([[3.0], [4.0], [np.nan]])
    filled = without_gaps([first, second, second + 3.0], np.array([0.5, 0.3, 0.2]))
    np.testing.assert_allclose(filled[0], [[1.0], [(0.3 * 4.0 + 0.2 * 7.0) / 0.5], [np.nan]])
    np.testing.assert_array_equal(filled[1], second)


def test_weights_fall_with_the_certainty_that_a_head_is_worse() -> None:
    rng = np.random.default_rng(0)
    loss = rng.uniform(1, 2, size=400)
    other = loss + rng.normal(0.1, 1.0, size=400)
    difference = other - loss
    t = difference.mean() / (difference.std() / 20)
    found = blend_weights(np.array([loss, other, loss + 1.0]))
    np.testing.assert_allclose(found[1] / found[0], np.exp(-t))
    assert found[2] == 0.0
    np.testing.assert_allclose(blend_weights(np.array([loss, loss])), [0.5, 0.5])


def test_a_blend_with_transfer_counts_by_the_evidence_for_it() -> None:
    gains = np.random.default_rng(0).normal(size=100)
    gains = (gains - gains.mean()) / gains.std()  # standard error 0.1
    for mean, share in ((-0.3, 0.0), (0.0, 0.0), (0.03, 0.1), (0.15, 0.5), (0.3, 1.0), (0.5, 1.0)):
        assert share_of_transfer(gains + mean) == pytest.approx(share, abs=1e-9)
    assert share_of_transfer(np.full(5, 0.1)) == 1.0
    assert share_of_transfer(np.zeros(5)) == 0.0


def test_what_all_sources_predict_stands_beside_the_descriptors(known, new) -> None:
    names = [ENTHALPY, "MEGNet-MP-2019.4.1-BandGap-mfi-PBE", "Shotgun-BulkModulus-1"]
    head = Ridge(alpha=30.0)
    parameters = {"head": head, "n_sources": 1, "guard": False}
    model = TransferRegressor(names, **parameters).fit(known["formula"], known["target"])
    assert [source.name for source in model.predictors_] == names
    assert {source.layer for source in model.predictors_} == {"final"}

    def predictions(formulas: pd.Series) -> np.ndarray:
        X = described(formulas)
        found = []
        for card in select(all_cards(), names):
            if card.modality == "composition":
                found.append(card.load().encode(formulas, layer="final"))
            else:
                found.append(find_bridge(card, "final", get_descriptor("standard")).load().transform(X))
        return np.hstack(found).astype(float)

    train, test = (predictions(part["formula"]) for part in (known, new))
    mean = np.nanmean(train, axis=0)
    train, test = (np.where(np.isnan(part), mean, part) for part in (train, test))
    fitted = clone(head).fit(np.hstack([described(known["formula"]), train]), known["target"])
    beside = fitted.predict(np.hstack([described(new["formula"]), test]))
    first = TransferRegressor(names, predictions=False, **parameters).fit(known["formula"], known["target"])
    weights = list(model.members_.values())
    assert len(weights) == 2
    np.testing.assert_allclose(
        model.predict(new["formula"]), weights[0] * first.predict(new["formula"]) + weights[1] * beside, rtol=1e-6
    )


@pytest.mark.slow
def test_transfer_helps_where_the_source_knows_the_property(known, new) -> None:
    model = TransferRegressor("MEGNet-MP-2018*", n_sources=1).fit(known["formula"], known["target"])
    alone = TransferRegressor(sources=()).fit(known["formula"], known["target"])
    error, without = (float(np.mean(np.abs(item.predict(new["formula"]) - new["target"]))) for item in (model, alone))
    assert model.transfers_
    assert model.error_ < model.control_error_
    assert error < 0.8 * without


@pytest.mark.slow
def test_guard_falls_back_on_descriptors_where_the_target_is_noise(known) -> None:
    transferred = []
    for seed in range(8):
        noise = np.random.default_rng(seed).normal(size=len(known))
        model = quick().fit(known["formula"], noise)
        alone = quick(sources=()).fit(known["formula"], noise)
        transferred.append(model.transfers_)
        if not model.transfers_:
            assert model.source_ == NO_TRANSFER
            assert all(ENTHALPY not in name for name in model.members_)
            np.testing.assert_array_equal(model.predict(known["formula"]), alone.predict(known["formula"]))
    assert not all(transferred)


def test_sources_are_ranked_and_the_first_are_used(fitted, known) -> None:
    ranking = fitted.ranking_
    criterion = ranking.judgement.criterion[ranking.judgement.order]
    assert list(ranking.sources[: len(fitted.sources_)]) == [source.name for source in fitted.sources_]
    assert (np.diff(criterion) >= 0).all()
    rows = Rows.read(known["formula"], known["target"])  # sorted as a ranking has them
    for name, loss in zip(ranking.sources, ranking.losses, strict=True):
        X = np.hstack([described(rows.compositions), embedding(rows.compositions, name)])
        sets = [rows.folds(random_state=seed) for seed in range(3)]
        expected = np.mean([out_of_fold_loss("kernel ridge", X, rows.y, folds) for folds in sets], axis=0)
        np.testing.assert_allclose(loss, expected, rtol=1e-6)


def test_the_choice_of_a_source_does_not_see_the_test_fold(table) -> None:
    # If fit looked at anything but its rows, the targets of the others would change its prediction.
    train, test = table[:60], table[60:]
    first = TransferRegressor("MEGNet-MP-*", head="kernel ridge").fit(train["formula"], train["target"])
    scores = cross_val_score(
        TransferRegressor("MEGNet-MP-*", head="kernel ridge"),
        table["formula"],
        table["target"],
        cv=[(np.arange(60), np.arange(60, len(table)))],
        scoring="neg_mean_absolute_error",
    )
    assert -scores[0] == pytest.approx(float(np.mean(np.abs(first.predict(test["formula"]) - test["target"]))))


@pytest.mark.parametrize("source", [ENTHALPY, "Shotgun-FormationEnergy-1"])
def test_a_row_is_predicted_the_same_whatever_comes_with_it(source, known, new) -> None:
    model = quick(source, guard=False).fit(known["formula"], known["target"])
    formulas = [*new["formula"][:5], "NeO"]  # the source of composition modality refuses neon
    together = model.predict(formulas)
    # Bridges count in float32, whose sums depend on the shape of the matrices.
    np.testing.assert_allclose([model.predict([formula])[0] for formula in formulas], together, rtol=1e-5)
    assert np.isfinite(together).all()


@pytest.mark.slow
def test_the_same_seed_gives_the_same_model(known, new) -> None:
    first, second = (
        TransferRegressor(ENTHALPY, n_sources=1, random_state=3).fit(known["formula"], known["target"])
        for _ in range(2)
    )
    np.testing.assert_array_equal(first.predict(new["formula"]), second.predict(new["formula"]))


# -- uncertainty and domain -------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_nine_in_ten_new_rows_lie_within_the_interval(known, new) -> None:
    inside = []
    for seed in range(4):
        shuffled = pd.concat([known, new]).sample(frac=1, random_state=seed)
        model = TransferRegressor("MEGNet-MP-*", head="kernel ridge").fit(
            shuffled["formula"][:80], shuffled["target"][:80]
        )
        predicted, deviation = model.predict(shuffled["formula"][80:], return_std=True)
        inside.append(np.mean(np.abs(predicted - shuffled["target"][80:]) <= 1.645 * deviation))
        assert (deviation > 0).all()
    assert 0.82 <= np.mean(inside) <= 0.97


def test_deviations_are_in_the_unit_of_the_target(fitted, known, new) -> None:
    scaled = clone(fitted).fit(known["formula"], 1000 * known["target"])
    _, deviation = fitted.predict(new["formula"], return_std=True)
    predicted, larger = scaled.predict(new["formula"], return_std=True)
    np.testing.assert_allclose(larger, 1000 * deviation, rtol=1e-6)
    np.testing.assert_allclose(predicted, 1000 * fitted.predict(new["formula"]), rtol=1e-6)


def test_uncertainty_recovers_how_errors_grow_with_distance() -> None:
    rng = np.random.default_rng(0)
    distance, spread = rng.uniform(0, 2, size=20_000), rng.uniform(0, 1, size=20_000)
    true = 0.2 + 0.5 * distance + 0.8 * spread
    learned = Uncertainty.of(true * rng.normal(size=20_000), distance, spread)
    np.testing.assert_allclose(learned.deviation(distance, spread), true, rtol=0.1)


def test_domain_names_what_is_new_in_each_row(fitted, known) -> None:
    rows = pd.Series([known["formula"].iloc[0], "PoO", "not a formula", "Pu2U"], index=list("abcd"))
    with pytest.warns(ScotlMatglWarning, match="not a formula"):
        domain = fitted.domain(rows)
    assert list(domain.index) == list("abcd")
    assert domain.loc["a", "distance"] == pytest.approx(0.0, abs=1e-9)
    assert domain.loc["b", "distance"] > 1
    assert "Po" in domain.loc["b", "unseen"].split()
    assert domain.loc["b", "unknown"] == "Po"
    assert domain["inside"].tolist() == [True, False, False, False]
    assert np.isnan(domain.loc["c", "distance"])


def test_the_unit_of_distance_is_what_training_rows_have_among_themselves() -> None:
    X = np.arange(21.0)[:, None]
    domain = TrainingDomain.of(X, np.ones(1))
    np.testing.assert_allclose(domain.distance(np.array([[0.5], [20.0], [23.0]])), [0.5, 0.0, 3.0])


# -- tables, bad rows, parameters -------------------------------------------------------------------------------------


@pytest.mark.slow
def test_further_columns_stand_beside_the_formula(known, new) -> None:
    def with_column(part, seed):
        temperature = np.random.default_rng(seed).normal(size=len(part))
        return part[["formula"]].assign(temperature=temperature), part["target"] + temperature

    (X, y), (X_new, y_new) = with_column(known, 0), with_column(new, 1)
    model = quick(head="auto", formula="formula").fit(X, y)
    error = np.mean(np.abs(model.predict(X_new) - y_new))
    assert error < 0.6 * np.mean(np.abs(quick().fit(X["formula"], y).predict(X_new["formula"]) - y_new))
    assert model.n_features_in_ == 2
    with pytest.raises(ValueError, match="feature names"):
        model.predict(X_new[["temperature", "formula"]])
    by_number = quick(head="auto", formula=0).fit(X.to_numpy(dtype=object), y)
    np.testing.assert_allclose(by_number.predict(X_new.to_numpy(dtype=object)), model.predict(X_new), rtol=1e-9)


def test_rows_of_one_composition_are_in_one_fold() -> None:
    formulas = np.repeat(load_example()["formula"].to_numpy()[:20], 3)
    rows = read_rows(formulas, strict=True).with_target(np.arange(60.0))
    for train, test in rows.folds():
        assert not set(formulas[train]) & set(formulas[test])
        assert len(train) + len(test) == 60


def test_bad_rows_are_skipped_listed_and_predicted_as_nan(known) -> None:
    formulas = ["not a formula", *known["formula"]]
    target = [1.0, *known["target"][:-1], "missing"]
    with pytest.warns(ScotlMatglWarning, match="2 rows skipped: row 0"):
        model = quick().fit(formulas, target)
    assert [row.row for row in model.skipped_] == [0, 80]
    assert model.skipped_[1].value == "'missing'"
    with pytest.warns(ScotlMatglWarning, match="row 1 "):
        predicted, deviation = model.predict(["NaCl", "FE2O3"], return_std=True)
    np.testing.assert_array_equal(np.isnan(predicted), [False, True])
    np.testing.assert_array_equal(np.isnan(deviation), [False, True])
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert np.isnan(clone(model).set_params(on_error="skip").fit(formulas, target).predict(["FE2O3"])).all()
    with pytest.raises(CompositionError, match="row 0"):
        clone(model).set_params(on_error="raise").fit(formulas, target)
    with pytest.raises(InputError, match="row 79"):
        clone(model).set_params(on_error="raise").fit(formulas[1:], target[1:])


@pytest.mark.parametrize(
    ("parameters", "message"),
    [
        ({"method": "thawed"}, "method is 'thawed'"),
        ({"head": "oracle"}, "head is 'oracle'"),
        ({"combine": "sum"}, "combine is 'sum'"),
        ({"on_error": "ignore"}, "on_error is 'ignore'"),
        ({"n_sources": 0}, "n_sources is 0"),
        ({"max_rows": 3}, "max_rows is 3"),
        ({"look_up": "maybe"}, "look_up is 'maybe'"),
        ({"random_state": -1}, "random_state is -1"),
        ({"formula": "composition"}, "no column 'composition'"),
        ({"layer": "attic"}, "layer names 'attic', which none of the sources has"),
    ],
)
def test_a_wrong_parameter_is_named(parameters, message, known) -> None:
    with pytest.raises(InputError, match=message):
        quick(**parameters).fit(known[["formula"]], known["target"])


def test_what_cannot_be_fitted_is_refused_in_a_sentence(known) -> None:
    with pytest.raises(InputError, match=r"80 formulas and the target has shape \(79,\)"):
        quick().fit(known["formula"], known["target"][1:])
    with pytest.raises(InputError, match="at least 10"):
        quick().fit(known["formula"][:9], known["target"][:9])
    with pytest.raises(InputError, match="sources=\\(\\)"):
        quick().fit(np.ones((30, 4)), np.arange(30.0))
    with pytest.raises(CardError, match="MEGNot"):
        quick("MEGNot").fit(known["formula"], known["target"])
    with pytest.raises(InputError, match="one class only"):
        TransferClassifier(sources=()).fit(known["formula"], ["a"] * 80)
    for parameters in ({"combine": "residual"}, {"method": "fine-tune"}):
        with pytest.raises(InputError, match="for regression"):
            TransferClassifier(ENTHALPY, **parameters).fit(known["formula"], known["target"] < -0.5)


# -- classification ---------------------------------------------------------------------------------------------------


def test_classes_of_any_type_come_back_and_are_mostly_right(known, new) -> None:
    for labels in (np.array(["low", "high"]), np.array([7, 3])):
        y, y_new = (np.where(part["target"] < -0.5, *labels) for part in (known, new))
        model = TransferClassifier(ENTHALPY, head="kernel ridge").fit(known["formula"], y)
        assert set(model.predict(new["formula"])) <= set(labels)
        assert model.score(new["formula"], y_new) > 0.8
        probabilities = model.predict_proba(new["formula"])
        np.testing.assert_allclose(probabilities.sum(axis=1), 1.0)
        np.testing.assert_array_equal(model.classes_[probabilities.argmax(axis=1)], model.predict(new["formula"]))
    with pytest.warns(ScotlMatglWarning):
        assert model.predict(["FE2O3", "NaCl"]).tolist()[0] is None


# -- fine-tuning ------------------------------------------------------------------------------------------------------


@pytest.mark.torch
def test_fine_tuning_starts_from_the_bridge_and_leaves_torch_as_it_was(known, new) -> None:
    import torch

    (card,) = select(all_cards(), ENTHALPY)
    bridge = find_bridge(card, "readout", get_descriptor("standard")).load()
    X, y = described(known["formula"]), known["target"].to_numpy()
    state, threads = torch.get_rng_state(), torch.get_num_threads()
    frozen = FineTunedBridge(FrozenEstimator(bridge), max_epochs=0, n_networks=1).fit(X, y)
    kept = np.random.default_rng([0, 0]).permutation(80)[12:]
    Z = (bridge.transform(X) - bridge.weights_["output_mean"]) / bridge.weights_["output_scale"]
    scaled = (y - y.mean()) / y.std()
    oracle = RidgeCV(np.logspace(-2, 4, 13)).fit(Z[kept], scaled[kept])
    np.testing.assert_allclose(frozen.predict(X), oracle.predict(Z) * y.std() + y.mean(), atol=2e-4)

    tuned = clone(frozen).set_params(max_epochs=30).fit(X, y)
    again = clone(tuned).fit(X, y)
    np.testing.assert_array_equal(tuned.predict(X), again.predict(X))
    assert tuned.n_epochs_[0] > 0
    assert not np.array_equal(tuned.networks_[0][0][0], bridge.weights_["weight_0"])
    assert torch.equal(torch.get_rng_state(), state)
    assert torch.get_num_threads() == threads

    fresh = clone(frozen).set_params(reinitialise=1).fit(X, y)
    np.testing.assert_array_equal(fresh.networks_[0][0][0], bridge.weights_["weight_0"])
    assert not np.array_equal(fresh.networks_[0][3][0], bridge.weights_["weight_3"])


@pytest.mark.torch
def test_fine_tuned_model_predicts_better_than_descriptors(known, new) -> None:
    parameters = {"head": "kernel ridge", "n_sources": 1}
    model = TransferRegressor(ENTHALPY, method="fine-tune", **parameters).fit(known["formula"], known["target"])
    alone = TransferRegressor((), **parameters).fit(known["formula"], known["target"])
    error, without = (np.mean(np.abs(item.predict(new["formula"]) - new["target"])) for item in (model, alone))
    assert error < 0.8 * without
    assert any("FineTunedBridge of MEGNet" in name for name in model.members_)


@pytest.mark.parametrize(("bridge", "message"), [(None, "'none'"), (RidgeBridge(), "'ridge'")])
def test_only_a_network_can_be_fine_tuned(bridge, message) -> None:
    with pytest.raises(InputError, match=message):
        FineTunedBridge(bridge).fit(np.ones((20, 3)), np.arange(20.0))


# -- inside scikit-learn, and files -----------------------------------------------------------------------------------


@pytest.mark.slow
def test_grid_search_clone_and_pickle(fitted, known, new) -> None:
    search = GridSearchCV(quick(), {"combine": ["concat", "embedding"], "head": ["kernel ridge", Ridge()]}, cv=KFold(2))
    search.fit(known["formula"].to_numpy(), known["target"])
    assert np.isfinite(search.cv_results_["mean_test_score"]).all()
    copy = pickle.loads(pickle.dumps(fitted))  # noqa: S301 - our own
    np.testing.assert_array_equal(copy.predict(new["formula"]), fitted.predict(new["formula"]))
    assert clone(fitted).get_params() == fitted.get_params()
    assert not hasattr(clone(fitted), "members_")


@pytest.mark.slow
def test_featurizer_reads_a_generator_once_and_leaves_out_sources_that_fail(known) -> None:
    formulas = list(known["formula"])
    of_list = TransferFeaturizer("MEGNet-MP-*").fit(formulas, known["target"])
    of_generator = TransferFeaturizer("MEGNet-MP-*").fit((item for item in formulas), known["target"])
    np.testing.assert_array_equal(of_list.transform(formulas), of_generator.transform(formulas))
    (card,) = select(all_cards(), ENTHALPY)
    lost = replace(card, name="Lost", weights={"model.pt": "0" * 64})
    with pytest.warns(ScotlMatglWarning, match="1 source left out: Lost: "):
        both = TransferFeaturizer([ENTHALPY, lost], n_sources=2).fit(formulas)
    assert [source.name for source in both.sources_] == [ENTHALPY]
    with pytest.raises(InputError, match=r"no source can be used \(1 tried\); Lost: "):
        TransferFeaturizer(lost).fit(formulas)


def test_fine_tuning_takes_a_bridge(known) -> None:
    with pytest.raises(InputError, match="reads formulas, so there is no bridge to train on"):
        TransferRegressor("Shotgun-BulkModulus-1", method="fine-tune").fit(known["formula"], known["target"])
    with pytest.raises(InputError, match="combine='residual' is for method='frozen'"):
        TransferRegressor(ENTHALPY, method="fine-tune", combine="residual").fit(known["formula"], known["target"])


def test_featurizer_in_a_column_transformer_with_a_numeric_column(known, new) -> None:
    X, X_new = (part[["formula"]].assign(load=np.linspace(0, 1, len(part))) for part in (known, new))
    columns = ColumnTransformer(
        [
            ("formula", TransferFeaturizer(ENTHALPY, combine="embedding"), ["formula"]),
            ("load", StandardScaler(), ["load"]),
        ]
    )
    model = make_pipeline(columns, Ridge()).fit(X, known["target"])
    assert model.score(X_new, new["target"]) > 0.5
    names = columns.fit(X, known["target"]).get_feature_names_out()
    assert names[0] == f"formula__{ENTHALPY}[readout]_0"
    assert len(names) == 161


@pytest.mark.slow
def test_featurizer_gives_descriptors_beside_the_embedding_of_the_best_source(known, fitted) -> None:
    featurizer = TransferFeaturizer(["MEGNet-MP-2018*", "QET*"]).set_output(transform="pandas")
    features = featurizer.fit_transform(known[["formula"]], known["target"])
    best = fitted.sources_[0].name
    assert [source.name for source in featurizer.sources_] == [best]
    np.testing.assert_allclose(
        features.to_numpy(), np.hstack([described(known["formula"]), embedding(known["formula"], best)]), rtol=1e-6
    )
    assert list(features.columns) == list(featurizer.get_feature_names_out())
    with pytest.warns(ScotlMatglWarning, match="without features"):
        assert featurizer.transform(["FE2O3"]).isna().all(axis=None)


def test_featurizer_says_what_it_needs(known) -> None:
    with pytest.raises(InputError, match="takes a target"):
        TransferFeaturizer("MEGNet-MP-*").fit(known["formula"])
    with pytest.raises(InputError, match="leaves no features"):
        TransferFeaturizer((), combine="embedding").fit(known["formula"])
    with pytest.raises(InputError, match="one column of formulas"):
        TransferFeaturizer(ENTHALPY).fit(np.ones((5, 2)))
    assert TransferFeaturizer(()).fit_transform(known["formula"]).shape == (80, 267)


@pytest.mark.slow
@pytest.mark.parametrize("head", ["auto", "gradient boosting", RandomForestRegressor(10, random_state=0)])
def test_a_saved_model_predicts_the_same_without_pickle(head, known, new, tmp_path, monkeypatch) -> None:
    model = quick(head=head).fit(known["formula"], known["target"])
    model.save(tmp_path / "model.skops", bridges=True)
    monkeypatch.setattr("scotl_matgl.bridges.store.shipped_folder", lambda: tmp_path)  # the bridge is in the file
    loaded = TransferRegressor.load(tmp_path / "model.skops")
    for first, second in zip(*(item.predict(new["formula"], return_std=True) for item in (model, loaded)), strict=True):
        np.testing.assert_array_equal(first, second)
    assert loaded.ranking_.summary() == model.ranking_.summary()
    pd.testing.assert_frame_equal(loaded.domain(new["formula"]), model.domain(new["formula"]))


def test_skipped_rows_of_a_table_with_dates_are_saved(known, tmp_path) -> None:
    days = pd.date_range("2026-01-01", periods=len(known))
    formulas = pd.Series(["FE2O3", *known["formula"][1:]], index=days)
    model = quick().set_params(on_error="skip").fit(formulas, known["target"])
    model.save(tmp_path / "model.skops")
    loaded = TransferRegressor.load(tmp_path / "model.skops")
    assert [row.label for row in loaded.skipped_] == ["2026-01-01 00:00:00"]
    assert model.skipped_[0].label == days[0]


def test_a_file_of_other_types_is_refused(known, tmp_path) -> None:
    quick(head=_Mean()).fit(known["formula"], known["target"]).save(tmp_path / "own.skops")
    with pytest.raises(InputError, match=r"not trusted: .*_Mean"):
        TransferRegressor.load(tmp_path / "own.skops")
    trusted = f"{_Mean.__module__}._Mean"
    assert TransferRegressor.load(tmp_path / "own.skops", trusted=[trusted]).predict(["NaCl"]).shape == (1,)
    (tmp_path / "text.skops").write_text("nothing")
    with pytest.raises(InputError, match="no saved model"):
        TransferRegressor.load(tmp_path / "text.skops")
    with pytest.raises(InputError, match="not a TransferClassifier"):
        TransferClassifier.load(tmp_path / "own.skops", trusted=[trusted])
    with pytest.raises(FileNotFoundError):
        TransferRegressor.load(tmp_path / "nowhere.skops")


class _Mean(RegressorMixin, BaseEstimator):
    """A head of the user's own."""

    def fit(self, X, y):
        self.mean_ = float(np.mean(y))
        return self

    def predict(self, X):
        return np.full(len(X), self.mean_)
