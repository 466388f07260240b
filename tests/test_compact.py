"""Fitted heads in few bytes: they predict the same, and what is not sound is refused."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from sklearn.ensemble import ExtraTreesClassifier, ExtraTreesRegressor, RandomForestRegressor

from scotl_matgl import TransferRegressor, load_example
from scotl_matgl.bridges.base import BridgeError
from scotl_matgl.bridges.store import ShippedBridge
from scotl_matgl.exceptions import InputError
from scotl_matgl.learners.compact import CompactForest, CompactKernel, compact_heads, expand_heads
from scotl_matgl.learners.kernel import LaplacianKernelRidge

SOURCE = "MEGNet-MP-2018.6.1-Eform"


@pytest.fixture(scope="module")
def rows() -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    X = rng.normal(size=(300, 20))
    X[:, 3] = rng.integers(0, 3, 300)
    return X, X[:, 0] + X[:, 3] + 0.1 * rng.normal(size=300)


@pytest.mark.parametrize("classes", [False, True])
def test_a_forest_predicts_the_same_also_at_its_thresholds(classes, rows) -> None:
    X, y = rows
    kind = ExtraTreesClassifier if classes else ExtraTreesRegressor
    forest = kind(15, max_features=1 / 3, random_state=0).fit(X, np.digitize(y, [0.5, 2.0]) if classes else y)
    compact = CompactForest.of(forest)
    again = compact.expand(10**8)
    new = np.repeat(X[:1].astype(np.float32), len(compact.threshold), axis=0)
    # One row at each threshold, and one on either side of it.
    at = np.arange(len(new)), compact.feature[compact.feature >= 0]
    for place in (compact.threshold, *(np.nextafter(compact.threshold, np.float32(end)) for end in (-np.inf, np.inf))):
        new[at] = place
        np.testing.assert_array_equal(again.predict(new), forest.predict(new))
        if classes:
            np.testing.assert_array_equal(again.predict_proba(new), forest.predict_proba(new))
    stored = sum(getattr(compact, name).nbytes for name in ("sizes", "feature", "threshold", "right", "leaf", "values"))
    held = sum(tree.tree_.__getstate__()["nodes"].nbytes for tree in forest.estimators_)
    assert stored < 0.2 * held


def test_other_heads_stay_and_the_same_stay_the_same(rows) -> None:
    X, y = rows
    other = RandomForestRegressor(3).fit(X, y)
    forest = ExtraTreesRegressor(3).fit(X, y)
    narrow, wide = (LaplacianKernelRidge().fit(columns, y) for columns in (X[:, :5], X))
    narrow_rows, wide_rows = narrow.X_fit_, wide.X_fit_
    compact = compact_heads([other, forest, forest, narrow, wide])
    assert compact[0] is other
    assert compact[1] is compact[2]
    assert isinstance(compact[3], CompactKernel)
    # The columns that both have are stored once.
    assert compact[3].pool is compact[4].pool
    assert compact[3].pool.shape == (300, 20)
    found = expand_heads(compact, 10**8)
    assert found[1] is found[2]
    for head, X_fit in zip(found[3:], (narrow_rows, wide_rows), strict=True):
        np.testing.assert_array_equal(head.X_fit_, X_fit)
    np.testing.assert_array_equal(narrow.X_fit_, narrow_rows)


@pytest.mark.parametrize(
    "damage",
    [
        {"sizes": lambda forest: forest.sizes[:-1]},
        {"sizes": lambda forest: -forest.sizes},
        {"feature": lambda forest: np.where(forest.feature >= 0, np.int16(20), forest.feature)},
        {"feature": lambda forest: np.where(forest.feature >= 0, np.int16(-1), forest.feature)},
        {"right": lambda forest: forest.right * 0},
        {"right": lambda forest: forest.right + np.uint16(1000)},
        {"right": lambda forest: forest.right[:-1]},
        {"leaf": lambda forest: forest.leaf + np.uint16(5000)},
        {"threshold": lambda forest: forest.threshold[:-1]},
        {"values": lambda forest: forest.values[:, [0, 0]]},
        {"n_features": lambda _: 2},
        {"kind": lambda _: "os.system"},
    ],
)
def test_trees_that_lead_elsewhere_are_refused(damage, rows) -> None:
    X, y = rows
    forest = CompactForest.of(ExtraTreesRegressor(4, random_state=0).fit(X, y))
    with pytest.raises(ValueError, match="leads out of its arrays"):
        replace(forest, **{name: change(forest) for name, change in damage.items()}).expand(10**8)


def test_sizes_are_bounded_before_memory_is_taken(rows) -> None:
    forest = CompactForest.of(ExtraTreesRegressor(4, random_state=0).fit(*rows))
    with pytest.raises(ValueError, match="more than 1000 bytes"):
        forest.expand(1000)
    kernel = LaplacianKernelRidge().fit(*rows)
    (compact,) = compact_heads([kernel])
    with pytest.raises(ValueError, match="columns that are not there"):
        replace(compact, columns=compact.columns + 7).expand()


def test_bridges_of_the_package_are_named_by_their_hash(tmp_path, monkeypatch) -> None:
    table = load_example().sample(60, random_state=0)
    model = TransferRegressor(SOURCE, head="kernel ridge").fit(table["formula"], table["target"])
    model.save(tmp_path / "named.skops")
    model.save(tmp_path / "whole.skops", bridges=True)
    named, whole = (TransferRegressor.load(tmp_path / name) for name in ("named.skops", "whole.skops"))
    assert isinstance(named.sources_[0].bridge, ShippedBridge)
    assert (tmp_path / "named.skops").stat().st_size < 0.5 * (tmp_path / "whole.skops").stat().st_size
    for loaded in (named, whole):
        np.testing.assert_array_equal(loaded.predict(["NaCl", "MgO"]), model.predict(["NaCl", "MgO"]))
    # A loaded model can be saved again.
    named.save(tmp_path / "again.skops")
    assert isinstance(TransferRegressor.load(tmp_path / "again.skops").sources_[0].bridge, ShippedBridge)
    monkeypatch.setattr("scotl_matgl.bridges.store.shipped_folder", lambda: tmp_path)
    with pytest.raises(BridgeError, match="is not the one that came with the package when the model was saved"):
        TransferRegressor.load(tmp_path / "named.skops")
    assert TransferRegressor.load(tmp_path / "whole.skops").predict(["NaCl"]) == model.predict(["NaCl"])


def test_a_file_with_unsound_trees_is_refused(tmp_path) -> None:
    table = load_example().sample(60, random_state=0)
    model = TransferRegressor((), head="extra trees").fit(table["formula"], table["target"])

    def unsound(forest):
        return replace(CompactForest.of(forest), right=CompactForest.of(forest).right * 0)

    model._blend.fitted = {i: replace(item, head=unsound(item.head)) for i, item in model._blend.fitted.items()}
    model.save(tmp_path / "bad.skops")
    with pytest.raises(InputError, match=r"bad.skops is refused: a decision tree in it leads out of its arrays"):
        TransferRegressor.load(tmp_path / "bad.skops")
