"""Full transfer: what it starts from, what it trains, what it leaves fixed, and that nothing is lost on the way."""

from __future__ import annotations

import gzip
import importlib.util
import json
import pickle
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from sklearn.base import clone
from sklearn.linear_model import RidgeCV
from sklearn.model_selection import GridSearchCV, KFold, cross_val_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

torch = pytest.importorskip("torch")
for needed in ("dgl", "lightning"):
    if importlib.util.find_spec(needed) is None:  # looked for and not imported, which takes seconds
        pytest.skip(f"{needed} is not installed", allow_module_level=True)

from scotl_matgl import FullTransferRegressor, TransferClassifier, TransferRegressor  # noqa: E402
from scotl_matgl.chemistry.corpus import Corpus  # noqa: E402
from scotl_matgl.chemistry.crystals import Crystal  # noqa: E402
from scotl_matgl.exceptions import InputError, ScotlMatglWarning  # noqa: E402
from scotl_matgl.sources.cards import all_cards, select  # noqa: E402
from scotl_matgl.tables.rows import read_rows  # noqa: E402
from scotl_matgl.training import full as full_training  # noqa: E402
from scotl_matgl.training.full import reason_against  # noqa: E402

MEGNET = "MEGNet-MP-2018.6.1-Eform"
#: One of each architecture and of each kind of wrapper.
SOURCES = (MEGNET, "M3GNet-MP-2018.6.1-Eform", "TensorNetDGL-MatPES-PBE-v2025.1-PES")
BULK = "bulk_modulus_vrh_GPa"


@pytest.fixture(scope="module")
def crystals(assets: Path, tmp_path_factory: pytest.TempPathFactory) -> Corpus:
    """Thirty crystals of the Materials Project of at most six atoms with a bulk modulus, drawn with a seed."""
    with gzip.open(assets / "structures" / "crystals.json.gz", "rt") as file:
        records = json.load(file)
    small = [record for record in records if record["natoms"] <= 6 and record["properties"].get(BULK, 0) > 30]
    path = tmp_path_factory.mktemp("crystals") / "crystals.json"
    path.write_text(json.dumps([small[row] for row in np.random.default_rng(0).choice(len(small), 30, replace=False)]))
    return Corpus.read(path)


@pytest.fixture(scope="module")
def y(crystals: Corpus) -> np.ndarray:
    return np.log10(crystals.values(BULK))


@pytest.fixture(scope="module")
def fitted(crystals: Corpus, y: np.ndarray) -> FullTransferRegressor:
    return FullTransferRegressor(epochs=3, batch_size=8, validation=0.2, device="cpu").fit(crystals, y)


def encoded(name: str, crystals: Corpus, layer: str) -> np.ndarray:
    return select(all_cards(), name)[0].load().encode(crystals, layer=layer, device="cpu").astype(np.float64)


def changes(model: FullTransferRegressor) -> tuple[set[str], set[str]]:
    """Names of all weights of the source, and of those that differ from the published ones."""
    published = model.card_.load().model.state_dict()
    moved = {name for name, value in published.items() if np.any(model.weights_[f"source.{name}"] != value.numpy())}
    return set(published), moved


# --- the start --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", SOURCES)
def test_without_epochs_it_is_ridge_regression_on_the_frozen_embedding(
    name: str, crystals: Corpus, y: np.ndarray
) -> None:
    X = encoded(name, crystals, "readout")
    oracle = make_pipeline(StandardScaler(), RidgeCV(np.logspace(-2, 4, 13))).fit(X, (y - y.mean()) / y.std())
    model = FullTransferRegressor(name, epochs=0, device="cpu").fit(crystals, y)
    np.testing.assert_allclose(model.predict(crystals), oracle.predict(X) * y.std() + y.mean(), rtol=2e-4)
    assert (model.n_epochs_, model.history_) == (0, [])


@pytest.mark.parametrize("name", SOURCES)
def test_without_epochs_and_with_its_head_the_source_predicts_itself(name: str, crystals: Corpus) -> None:
    own = encoded(name, crystals, "final")[:, 0]
    model = FullTransferRegressor(name, epochs=0, reinitialise_head=False, device="cpu").fit(crystals, 3.0 * own - 7.0)
    np.testing.assert_allclose(model.predict(crystals), 3.0 * own - 7.0, atol=2e-4 * own.std())


# --- training ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("keep", [False, True])
@pytest.mark.parametrize("name", SOURCES)
def test_training_reaches_every_architecture_and_the_loss_falls(
    name: str, keep: bool, crystals: Corpus, y: np.ndarray
) -> None:
    settings: dict[str, Any] = {"epochs": 4, "batch_size": 30, "validation": 0, "learning_rate": 3e-4, "device": "cpu"}
    model = FullTransferRegressor(name, reinitialise_head=not keep, **settings).fit(crystals, y)
    losses = [epoch["train_loss"] for epoch in model.history_]
    assert len(losses) == model.n_epochs_ == 4
    if keep:  # a new head of 160 columns already fits thirty crystals when training begins
        assert losses == sorted(losses, reverse=True)
        assert losses[-1] < 0.995 * losses[0]
    # The network itself has moved: neither is the head the only thing that was trained, nor the blocks.
    published, moved = changes(model)
    for part in ("embedding", "blocks.0", "graph_layers.0", "three_body_interactions.0", "layers.0"):
        inside = [name for name in published if f"model.{part}." in f"{name}." or f"tensor_{part}." in name]
        assert not inside or moved & set(inside), part
    assert not {name for name in moved if "expansion" in name}


def test_validation_decides_and_the_start_is_kept_if_nothing_helps(crystals: Corpus, y: np.ndarray) -> None:
    settings: dict[str, Any] = {"epochs": 3, "batch_size": 8, "validation": 0.2, "device": "cpu"}
    wild = FullTransferRegressor(learning_rate=10.0, **settings).fit(crystals, y)
    start = FullTransferRegressor(learning_rate=1e-12, **settings).fit(crystals, y)
    assert not any(epoch["validation_loss"] < wild.start_loss_ for epoch in wild.history_)
    assert wild.start_loss_ == pytest.approx(start.start_loss_)
    assert wild.n_epochs_ == 0
    np.testing.assert_allclose(wild.predict(crystals), start.predict(crystals), rtol=1e-5)


def test_a_training_that_diverges_is_an_error_where_nothing_else_can_be_kept(crystals: Corpus, y: np.ndarray) -> None:
    with pytest.raises(InputError, match=r"the training diverged; learning_rate is 10000\.0"):
        FullTransferRegressor(epochs=3, batch_size=8, validation=0, learning_rate=1e4, device="cpu").fit(crystals, y)


def test_the_epoch_of_the_smallest_validation_loss_is_taken(fitted: FullTransferRegressor) -> None:
    losses = [fitted.start_loss_, *(epoch["validation_loss"] for epoch in fitted.history_)]
    assert fitted.n_epochs_ == int(np.argmin(losses)) > 0


def test_the_same_seed_gives_the_same_numbers(fitted: FullTransferRegressor, crystals: Corpus, y: np.ndarray) -> None:
    state = torch.get_rng_state()
    again = clone(fitted).fit(crystals, y)
    other = clone(fitted).set_params(random_state=1).fit(crystals, y)
    assert torch.equal(torch.get_rng_state(), state)
    assert again.history_ == fitted.history_
    np.testing.assert_array_equal(again.predict(crystals), fitted.predict(crystals))
    assert other.history_ != fitted.history_


def test_frozen_blocks_do_not_change_and_the_others_do(crystals: Corpus, y: np.ndarray) -> None:
    model = FullTransferRegressor(freeze=2, epochs=1, batch_size=8, validation=0, device="cpu").fit(crystals, y)
    _, changed = changes(model)
    fixed = ("bond_expansion", "embedding", "edge_encoder", "node_encoder", "state_encoder", "blocks.0", "blocks.1")
    assert not {name for name in changed if name.removeprefix("model.").startswith(fixed)}
    assert {name.split(".")[1] for name in changed} == {"blocks", "edge_s2s", "node_s2s"}


def test_an_interrupted_fit_goes_on_to_the_same_result(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fitted: FullTransferRegressor, crystals: Corpus, y: np.ndarray
) -> None:
    run, calls, limit = full_training._prepared, 0, 14

    def interrupt(*arguments: Any) -> Any:
        nonlocal calls
        calls += 1
        if calls == limit:
            raise ConnectionError
        return run(*arguments)

    monkeypatch.setattr(full_training, "_prepared", interrupt)
    model = clone(fitted).set_params(checkpoints=tmp_path)
    with pytest.raises(ConnectionError):
        model.fit(crystals, y)
    assert len(list(tmp_path.rglob("last.ckpt"))) == 1
    calls = 0
    model.fit(crystals, y)
    assert calls < limit - 3  # head, start and one epoch instead of three
    assert model.history_ == fitted.history_
    np.testing.assert_array_equal(model.predict(crystals), fitted.predict(crystals))
    assert not list(tmp_path.iterdir())


# --- rows that cannot be used -----------------------------------------------------------------------------------------


def test_refused_crystals_are_listed_and_predicted_as_nan(crystals: Corpus, y: np.ndarray) -> None:
    far = Crystal(30.0 * np.eye(3), np.zeros((1, 3)), np.array([11]), "far")
    rows = [*crystals[:8], far, "no crystal", crystals[8].to_structure()]
    target = np.append(y[:10], y[8])
    target[2] = np.nan
    with pytest.warns(ScotlMatglWarning, match=r"3 crystals skipped: row 2 .*its target is nan"):
        model = FullTransferRegressor(epochs=0, device="cpu").fit(rows, target)
    assert [row.row for row in model.skipped_] == [2, 8, 9]
    assert "no neighbour within 4" in model.skipped_[1].reason
    assert model.skipped_[1].value == "far"
    with pytest.warns(ScotlMatglWarning, match="2 crystals not predicted: row 8"):
        predicted = model.predict(rows)
    assert np.flatnonzero(np.isnan(predicted)).tolist() == [8, 9]
    # Crystals of pymatgen are read as our own.
    assert predicted[10] == pytest.approx(model.predict([crystals[8]])[0], abs=1e-5)


@pytest.mark.parametrize(
    ("parameters", "message"),
    [
        ({"freeze": 4}, "freeze is 4; MEGNet-MP-2018.6.1-Eform has 3 blocks"),
        ({"epochs": -1}, "epochs is -1"),
        ({"validation": 0.5}, "validation is 0.5"),
        ({"learning_rate": 0.0}, "learning_rate is 0.0"),
        ({"source": "MEGNet-MP*"}, r"names \d+ sources"),
        ({"source": "Shotgun-BulkModulus-1"}, "reads formulas"),
    ],
)
def test_what_cannot_be_done_is_said(parameters: dict[str, Any], message: str, crystals: Corpus, y: np.ndarray) -> None:
    with pytest.raises(InputError, match=message):
        FullTransferRegressor(**{"epochs": 0, "device": "cpu", **parameters}).fit(crystals, y)


def test_too_few_crystals_and_wrong_lengths(crystals: Corpus, y: np.ndarray) -> None:
    with pytest.raises(InputError, match="4 of 4 crystals can be used; at least 5"):
        FullTransferRegressor(epochs=0).fit(crystals[:4], y[:4])
    with pytest.raises(InputError, match="30 crystals and 29 targets"):
        FullTransferRegressor(epochs=0).fit(crystals, y[1:])


# --- as an estimator --------------------------------------------------------------------------------------------------


def test_saved_loaded_and_pickled_models_predict_the_same(
    tmp_path: Path, fitted: FullTransferRegressor, crystals: Corpus
) -> None:
    fitted.save(tmp_path / "model.safetensors")
    loaded = FullTransferRegressor.load(tmp_path / "model.safetensors")
    expected = fitted.predict(crystals)
    np.testing.assert_array_equal(loaded.predict(crystals), expected)
    np.testing.assert_array_equal(pickle.loads(pickle.dumps(fitted)).predict(crystals), expected)  # noqa: S301
    assert loaded.get_params() == fitted.get_params()
    assert (loaded.history_, loaded.n_epochs_, loaded.card_) == (fitted.history_, fitted.n_epochs_, fitted.card_)
    again = clone(loaded)
    assert again.get_params() == fitted.get_params()
    assert not hasattr(again, "weights_")


def test_files_of_other_kinds_are_refused(tmp_path: Path, fitted: FullTransferRegressor) -> None:
    (tmp_path / "wrong").write_bytes(b"no such file")
    with pytest.raises(InputError, match="cannot be read as a model saved by FullTransferRegressor"):
        FullTransferRegressor.load(tmp_path / "wrong")
    fitted.save(tmp_path / "right")
    with pytest.raises(InputError, match=r"was trained from MEGNet-MP-2018\.6\.1-Eform, not from M3GNet"):
        FullTransferRegressor.load(tmp_path / "right", source=select(all_cards(), "M3GNet-MP-2018*")[0])


def test_cross_validation_takes_lists_arrays_and_corpora(crystals: Corpus, y: np.ndarray) -> None:
    model = FullTransferRegressor(epochs=0, device="cpu")
    array = np.empty(len(crystals), dtype=object)
    array[:] = list(crystals)
    folds = KFold(3, shuffle=True, random_state=0)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        scores = [cross_val_score(model, X, y, cv=folds) for X in (crystals, list(crystals), array)]
    for found in scores[1:]:
        np.testing.assert_array_equal(found, scores[0])
    train, test = next(folds.split(y))
    model.fit([crystals[row] for row in train], y[train])
    residual = y[test] - model.predict([crystals[row] for row in test])
    assert scores[0][0] == pytest.approx(1 - np.mean(residual**2) / y[test].var())


# --- as the method of the transferred model ---------------------------------------------------------------------------


def short(**settings: Any) -> FullTransferRegressor:
    return FullTransferRegressor(**{"epochs": 2, "batch_size": 8, "validation": 0, "device": "cpu", **settings})


def test_without_guard_the_transferred_model_is_the_trained_network(crystals: Corpus, y: np.ndarray) -> None:
    model = TransferRegressor(MEGNET, method=short(), guard=False).fit(crystals, y)
    alone = short(source=MEGNET).fit(crystals, y)
    np.testing.assert_array_equal(model.predict(crystals), np.clip(alone.predict(crystals), y.min(), y.max()))
    assert model.members_ == {f"FullTransferRegressor of {MEGNET} on crystals": 1.0}
    rows = read_rows(crystals, strict=True, crystals=True).with_target(y)
    predicted = np.empty(len(y))
    for train, test in rows.folds():
        found = clone(alone).fit(rows.crystals[train], y[train]).predict(rows.crystals[test])
        predicted[test] = np.clip(found, y[train].min(), y[train].max())
    assert model.error_ == pytest.approx(np.abs(predicted - y).mean(), rel=1e-6)


def test_the_network_counts_where_it_knows_more_than_descriptors(crystals: Corpus) -> None:
    own = encoded(MEGNET, crystals, "final")[:, 0]
    settings = short(epochs=0, reinitialise_head=False)
    model = TransferRegressor(MEGNET, method=settings).fit(crystals, own)
    assert model.source_ == MEGNET
    assert model.members_[f"FullTransferRegressor of {MEGNET} on crystals"] > 0.9
    assert model.error_ < 0.2 * model.control_error_  # the largest and smallest values are held to those of a fold


def test_crystals_that_the_network_refuses_are_predicted_by_the_other_heads(crystals: Corpus) -> None:
    own = encoded(MEGNET, crystals, "final")[:, 0]
    far = Crystal(30.0 * np.eye(3), np.zeros((1, 3)), np.array([11]), "far")
    model = TransferRegressor(MEGNET, method=short(epochs=0, reinitialise_head=False))
    with pytest.warns(ScotlMatglWarning, match=r"1 row learned without MEGNet.*: row 3 \(Na\): .*no neighbour"):
        model.fit([*crystals[:3], far, *crystals[3:]], np.insert(own, 3, 0.0))
    with pytest.warns(ScotlMatglWarning, match=r"1 row predicted without MEGNet.*: row 1 \(Na\): .*no neighbour"):
        predicted, deviation = model.predict([crystals[0], far], return_std=True)
    assert predicted[0] == pytest.approx(own[0], abs=0.1 * own.std())
    assert own.min() < predicted[1] < own.max()
    # The other heads are less sure than the network.
    assert model.no_transfer_error_ > 5 * model.error_
    assert deviation[1] > 0.5 * model.no_transfer_error_ > deviation[0]
    assert [(row.row, row.value) for row in model.refused_] == [(3, "Na")]
    strict = clone(model).set_params(on_error="raise")
    with pytest.raises(InputError, match=r"row 3 \(Na\) cannot be learned by MEGNet.*no neighbour"):
        strict.fit([*crystals[:3], far, *crystals[3:]], np.insert(own, 3, 0.0))
    alone = clone(model).set_params(guard=False)
    with pytest.warns(ScotlMatglWarning, match="1 row not learned: row 30"):
        alone.fit([*crystals, far], np.append(own, 0.0))
    with pytest.warns(ScotlMatglWarning, match="1 row not predicted: row 1"):
        assert np.isnan(alone.predict([crystals[0], far])).tolist() == [False, True]


def test_a_network_that_fails_costs_its_own_head_only(crystals: Corpus, y: np.ndarray, monkeypatch) -> None:
    def fail(*_: Any) -> None:
        raise RuntimeError("CUDA out of memory")

    # Beside a network that sees the crystals itself, the other heads learn from the formulas alone.
    monkeypatch.setattr("scotl_matgl.transfer.model.structural_means", lambda _: None)
    alone = TransferRegressor(()).fit(crystals, y)
    fit = FullTransferRegressor.fit

    def fail_on_all(model: FullTransferRegressor, X: Any, target: Any) -> Any:
        return fit(model, X, target) if len(target) < len(y) else fail()

    # Out of fold, or only when it is fitted on all rows: by a target that the source itself knows it counts by then.
    own = encoded(MEGNET, crystals, "final")[:, 0]
    monkeypatch.setattr(FullTransferRegressor, "fit", fail_on_all)
    late = TransferRegressor(MEGNET, method=short(epochs=0, reinitialise_head=False), on_error="skip")
    late.fit(crystals, own)
    without = TransferRegressor(()).fit(crystals, own)
    assert late.members_ == without.members_
    assert (late.error_, late.share_, late.source_) == (without.error_, 0.0, "no transfer")
    np.testing.assert_allclose(late.predict(crystals), without.predict(crystals), rtol=1e-9)
    monkeypatch.setattr(FullTransferRegressor, "fit", fail)
    with pytest.warns(
        ScotlMatglWarning, match=f"1 source left out: {MEGNET}: training it on failed: CUDA out of memory"
    ):
        model = TransferRegressor(MEGNET, method="full").fit(crystals, y)
    np.testing.assert_allclose(model.predict(crystals), alone.predict(crystals), rtol=1e-9)
    assert (model.source_, model.share_) == ("no transfer", 0.0)
    assert "CUDA out of memory" in model.errors_[MEGNET]
    assert model.sources_ == ()
    assert not model.ranking_.errors
    with pytest.raises(InputError, match=f"{MEGNET}: training it on failed: CUDA out of memory"):
        TransferRegressor(MEGNET, method="full", guard=False).fit(crystals, y)


def test_polymorphs_are_learned_and_own_settings_kept(crystals: Corpus, tmp_path: Path) -> None:
    cells = [Crystal(a * np.eye(3), [[0, 0, 0], [0.5, 0.5, 0.5]], [55, 17]) for a in np.linspace(3.8, 4.6, 12)]
    y = np.linspace(0.0, 1.0, 12)
    (card,) = select(all_cards(), MEGNET)
    settings = short(source=card, epochs=1, random_state=7, checkpoints=tmp_path / "checkpoints")
    model = TransferRegressor(MEGNET, method=settings).fit(cells, y)
    assert model.share_ > 0.5  # descriptors of the formula are all the same
    assert settings.get_params()["source"] is card
    trained = [item.head for item in model._blend.fitted.values() if isinstance(item.head, FullTransferRegressor)]
    assert [network.random_state for network in trained] == [7]
    model.save(tmp_path / "model.skops")
    loaded = TransferRegressor.load(tmp_path / "model.skops")
    np.testing.assert_array_equal(loaded.predict(cells), model.predict(cells))


def test_rows_without_a_crystal_are_skipped(crystals: Corpus, y: np.ndarray) -> None:
    model = TransferRegressor(MEGNET, method=short(epochs=0))
    with pytest.warns(ScotlMatglWarning, match="1 row skipped: row 0 .*NaCl"):
        model.fit(["NaCl", *crystals], np.insert(y, 0, 1.0))
    with pytest.warns(ScotlMatglWarning, match="1 row not predicted: row 1"):
        predicted = model.predict([crystals[0], "NaCl"])
    assert np.isnan(predicted).tolist() == [False, True]
    with pytest.raises(InputError, match="trains on crystals, and none of the 10 rows holds one; row 0"):
        model.fit(["NaCl"] * 10, np.arange(10.0))
    with pytest.raises(InputError, match=r"row 0 .*NaCl"):
        clone(model).set_params(on_error="raise").fit(["NaCl", *crystals], np.insert(y, 0, 1.0))


def test_only_networks_that_can_be_trained_on_are_ranked(
    crystals: Corpus, y: np.ndarray, monkeypatch: pytest.MonkeyPatch
) -> None:
    named = TransferRegressor([MEGNET, "Shotgun-BulkModulus-1"], method=short(epochs=0), on_error="skip")
    named.fit(crystals, y)
    assert named.ranking_.sources == (MEGNET,)
    assert "can be trained on" in named.errors_["Shotgun-BulkModulus-1"]
    with pytest.raises(InputError, match=r"no source can be trained on \(1 tried\); Shotgun"):
        TransferRegressor("Shotgun-BulkModulus-1", method="full").fit(crystals, y)
    with pytest.raises(InputError, match="is for regression"):
        TransferClassifier(MEGNET, method="full").fit(crystals, y > y.mean())
    trainable = {card.name for card in all_cards() if not reason_against(card)}
    assert trainable == {card.name for card in all_cards() if card.zoo == "matgl" and card.architecture != "QET"}
    assert set(SOURCES) < trainable
    monkeypatch.delenv("SCOTL_MATGL_ASSETS")
    monkeypatch.setenv("HOME", "/nowhere")
    for sources in ("all", ["Shotgun-BulkModulus-1", MEGNET]):
        with pytest.raises(InputError, match="weights are not on this machine: let SCOTL_MATGL_ASSETS"):
            TransferRegressor(sources, method="full").fit(crystals, y)


def test_crystals_beside_columns_settings_in_a_search_and_files(
    crystals: Corpus, y: np.ndarray, tmp_path: Path
) -> None:
    column = np.empty(len(crystals), dtype=object)
    column[:] = list(crystals)
    table = pd.DataFrame({"crystal": column, "load": np.linspace(0.0, 1.0, len(y))})
    model = TransferRegressor(MEGNET, method=short(epochs=0, reinitialise_head=False), formula="crystal")
    own = encoded(MEGNET, crystals, "final")[:, 0]
    search = GridSearchCV(model, {"method__reinitialise_head": [True, False]}, cv=2, scoring="neg_mean_absolute_error")
    search.fit(table, own)
    assert search.best_params_ == {"method__reinitialise_head": False}
    best = search.best_estimator_
    expected = best.predict(table)
    best.save(tmp_path / "model.skops")
    loaded = TransferRegressor.load(tmp_path / "model.skops")
    np.testing.assert_array_equal(loaded.predict(table), expected)
    np.testing.assert_array_equal(pickle.loads(pickle.dumps(best)).predict(table), expected)  # noqa: S301
    assert best.domain(table)["inside"].all()
