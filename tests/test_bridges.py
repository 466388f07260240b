"""Bridges against scikit-learn and torch, their files, which one is found, and one built on real crystals."""

from __future__ import annotations

import dataclasses
import importlib.util
import inspect
import itertools
import json
import os
import struct
import subprocess
import sys
import warnings
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from sklearn.base import clone
from sklearn.exceptions import NotFittedError
from sklearn.linear_model import Ridge
from sklearn.metrics import r2_score
from sklearn.preprocessing import StandardScaler
from sklearn.utils.estimator_checks import parametrize_with_checks

from scotl_matgl import registry
from scotl_matgl.bridges import store
from scotl_matgl.bridges.base import (
    BRIDGE_FILE,
    Bridge,
    BridgeError,
    BridgeQuality,
    load_bridge,
    read_header,
    split_by_group,
)
from scotl_matgl.bridges.build import BuildSettings, BuiltBridge, build_bridge
from scotl_matgl.bridges.lookup import LookUp
from scotl_matgl.bridges.mlp import MLPBridge
from scotl_matgl.bridges.ridge import RidgeBridge
from scotl_matgl.bridges.store import bridge_name, find_bridge, find_look_up, list_bridges, look_up_path
from scotl_matgl.chemistry.compositions import parse_compositions
from scotl_matgl.chemistry.corpus import Corpus
from scotl_matgl.chemistry.crystal_files import read_crystals
from scotl_matgl.chemistry.crystals import Crystal
from scotl_matgl.descriptors.base import CompositionDescriptor
from scotl_matgl.descriptors.composite import get_descriptor
from scotl_matgl.encoders.contracts import Encoded
from scotl_matgl.encoders.store import EmbeddingStore
from scotl_matgl.exceptions import StoredFileWarning
from scotl_matgl.sources import zoo
from scotl_matgl.sources.cards import SourceCard
from scotl_matgl.storage import TensorKind, installed_versions, write_tensors

SMALL = MLPBridge(hidden=(16, 8), epochs=12, batch_size=32)

CARD = SourceCard(
    name="Toy",
    zoo="toys",
    modality="structure",
    property="p",
    unit="1",
    dataset="d",
    architecture="A",
    layers={"readout": 3, "gc_1": 2},
    loader="toys:load",
    licence="MIT",
    citation="c",
    weights={"model.pt": "0" * 64},
)


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    """Threads that wait for each other cost more than they save on networks of a few units."""
    try:
        import torch
    except ModuleNotFoundError:
        yield
        return
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture
def toy() -> tuple[NDArray[np.float64], NDArray[np.float32], NDArray[np.str_]]:
    """Descriptors (120, 6), embeddings (120, 4) that follow from them but for noise, groups of 1 to 7 rows."""
    rng = np.random.default_rng(1)
    X = rng.normal(size=(120, 6)) * [1, 10, 0.1, 1, 1, 3] + [0, 100, 0, 5, 0, 0]
    Z = X @ (rng.normal(size=(6, 4)) / X.std(axis=0)[:, None]) + 0.5 * rng.normal(size=(120, 4)) + [0, 50, 1, 0]
    return X, Z.astype(np.float32), np.array([f"system {index}" for index in rng.integers(0, 30, size=120)])


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("SCOTL_MATGL_HOME", str(tmp_path / "home"))
    return tmp_path / "home"


class MeanBridge(Bridge):
    """Estimates the mean embedding: its quality is known in closed form."""

    kind = "mean"

    def __init__(self, *, held_out: float = 0.1, random_state: int = 0) -> None:
        self.held_out = held_out
        self.random_state = random_state

    def _fit_standardised(self, X: NDArray[np.float32], Z: NDArray[np.float32]) -> dict[str, NDArray[np.float32]]:
        self.standardised_ = X
        return {"zero": np.zeros(Z.shape[1], dtype=np.float32)}

    def _predict_standardised(self, X: NDArray[np.float32]) -> NDArray[np.float32]:
        return np.tile(self.weights_["zero"], (len(X), 1))


def gcv_alpha(X: NDArray[np.float64], Z: NDArray[np.float64]) -> float:
    """Penalty of the smallest generalised cross-validation error, from the hat matrix itself."""
    n, p = X.shape
    centred = X - X.mean(axis=0)

    def error(alpha: float) -> float:
        hat = 1 / n + centred @ np.linalg.solve(centred.T @ centred + alpha * np.eye(p), centred.T)
        return float(np.sum((Z - hat @ Z) ** 2) / n / (1 - np.trace(hat) / n) ** 2)

    return float(min(n * np.logspace(-6, 1, 29), key=error))


def ridge_oracle(X: NDArray[np.float64], Z: NDArray[np.float64], new: NDArray[np.float64]) -> NDArray[np.float64]:
    """Ridge regression between standardised columns with scikit-learn; estimates for new rows."""
    inputs, outputs = StandardScaler().fit(X), StandardScaler().fit(Z)
    model = Ridge(alpha=gcv_alpha(inputs.transform(X), outputs.transform(Z)))
    model.fit(inputs.transform(X), outputs.transform(Z))
    return np.asarray(outputs.inverse_transform(model.predict(inputs.transform(new))))


# --- conventions -----------------------------------------------------------------------------------------------------

_NOT_APPLICABLE = {
    "check_fit_score_takes_y": "the second argument of fit is the embedding, which the field calls Z",
    "check_n_features_in_after_fitting": "fits 15 rows; fewer than 20 are refused",
    "check_fit2d_1sample": "fewer than 20 rows are refused, with a sentence of our own",
    "check_fit2d_1feature": "fits 10 rows; fewer than 20 are refused",
    "check_transformer_data_not_an_array": "gives a target of one dimension, whatever the tags say",
    "check_transformer_general": "gives a target of one dimension, whatever the tags say",
    "check_transformer_preserve_dtypes": "gives a target of one dimension, whatever the tags say",
    "check_requires_y_none": "wants scikit-learn's own words",
}


@pytest.mark.slow
@parametrize_with_checks(  # type: ignore[untyped-decorator]
    [RidgeBridge(), clone(SMALL).set_params(epochs=2)], expected_failed_checks=lambda _: _NOT_APPLICABLE
)
def test_bridges_follow_scikit_learn(estimator: Bridge, check: Any) -> None:
    if check.func.__name__ in ("check_methods_sample_order_invariance", "check_methods_subset_invariance"):
        pytest.skip("asks for 1e-7, a digit of float32: see test_a_row_alone_is_that_among_others")
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", category=UserWarning, module="sklearn")
        check(estimator)


@pytest.mark.parametrize("bridge", [RidgeBridge(), SMALL], ids=["ridge", "mlp"])
def test_a_row_alone_is_that_among_others(toy: Any, bridge: Bridge) -> None:
    X, Z, _ = toy
    fitted = clone(bridge).fit(X, Z)
    together, scale = fitted.transform(X), Z.std(axis=0)
    alone = np.vstack([fitted.transform(row[None]) for row in X])
    np.testing.assert_allclose(alone / scale, together / scale, rtol=1e-6, atol=1e-6)
    np.testing.assert_allclose(fitted.transform(X[::-1])[::-1] / scale, together / scale, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("bridge", [RidgeBridge(), SMALL], ids=["ridge", "mlp"])
def test_transform_before_fit_is_not_fitted(bridge: Bridge) -> None:
    with pytest.raises(NotFittedError):
        clone(bridge).transform(np.zeros((1, 6)))


# --- held-out quality ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("fraction", [0.01, 0.1, 0.5, 0.99])
@pytest.mark.parametrize("seed", [0, 1, 2])
def test_groups_are_never_split_and_the_share_is_reached_by_no_group_too_many(
    toy: Any, fraction: float, seed: int
) -> None:
    groups = toy[2]
    mask = split_by_group(groups, fraction, seed)
    held, kept = set(groups[mask]), set(groups[~mask])
    assert not held & kept
    assert held
    assert kept
    # Only the last group may overshoot, and all but one group may be too few for the share.
    sizes = [int(np.sum(groups == name)) for name in held]
    assert mask.sum() >= fraction * len(groups) or len(kept) == 1
    assert mask.sum() - max(sizes) < fraction * len(groups)
    np.testing.assert_array_equal(mask, split_by_group(groups, fraction, seed))


def test_rows_without_groups_are_held_out_one_by_one(toy: Any) -> None:
    X, Z, _ = toy
    quality = MeanBridge(held_out=0.25).fit(X, Z).quality_
    assert (quality.n_fit, quality.n_held_out) == (90, 30)


def test_quality_of_the_mean_follows_from_its_definition(toy: Any) -> None:
    X, Z, groups = toy
    bridge = MeanBridge(held_out=0.3, random_state=4).fit(X, Z, groups)
    mask = split_by_group(groups, 0.3, 4)
    held, mean = Z[mask].astype(float), Z[~mask].astype(float).mean(axis=0)
    # Against the mean of the held-out rows themselves, that of the others explains less than nothing.
    r2 = 1 - np.mean((held - mean) ** 2, axis=0) / held.var(axis=0)
    quality = bridge.quality_
    assert quality.r2 == pytest.approx(r2, abs=1e-5)
    assert max(quality.r2) < 0
    assert quality.median_r2 == pytest.approx(np.median(r2), abs=1e-5)
    assert quality.mean_r2 == pytest.approx(r2.mean(), abs=1e-5)
    cosines = held @ mean / np.linalg.norm(held, axis=1) / np.linalg.norm(mean)
    assert quality.cosine == pytest.approx(cosines.mean(), abs=1e-6)
    assert quality.cosine_centred == pytest.approx(0.0, abs=1e-6)
    assert (quality.n_fit, quality.n_held_out) == ((~mask).sum(), mask.sum())
    # The final fit is on all rows.
    np.testing.assert_allclose(bridge.transform(X[:1])[0], Z.astype(float).mean(axis=0), rtol=1e-6)


def test_quality_of_a_ridge_bridge_is_what_scikit_learn_gives_on_the_held_out_groups(toy: Any) -> None:
    X, Z, groups = toy
    quality = RidgeBridge(held_out=0.3, random_state=2).fit(X, Z, groups).quality_
    mask = split_by_group(groups, 0.3, 2)
    estimated = ridge_oracle(X[~mask], Z[~mask].astype(float), X[mask])
    assert quality.r2 == pytest.approx(r2_score(Z[mask], estimated, multioutput="raw_values"), abs=1e-4)
    assert 0.5 < quality.median_r2 < 0.99
    centred = Z[mask] - Z[~mask].mean(axis=0), estimated - Z[~mask].mean(axis=0)
    cosine = np.mean([a @ b / np.linalg.norm(a) / np.linalg.norm(b) for a, b in zip(*centred, strict=True)])
    assert quality.cosine_centred == pytest.approx(cosine, abs=1e-5)


def test_quality_of_perfect_and_constant_dimensions() -> None:
    true = np.array([[0.0, 5.0], [1.0, 5.0], [2.0, 5.0]], dtype=np.float32)
    quality = BridgeQuality.of(true, true, centre=np.zeros(2, np.float32), n_fit=7)
    assert quality.r2[0] == 1.0
    assert np.isnan(quality.r2[1])
    assert (quality.median_r2, quality.mean_r2, quality.n_fit, quality.n_held_out) == (1.0, 1.0, 7, 3)
    assert quality.cosine == pytest.approx(1.0)


# --- fitting ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("n", [120, 20])
def test_ridge_bridge_equals_scikit_learn_at_the_penalty_of_generalised_cross_validation(toy: Any, n: int) -> None:
    X, Z, _ = toy
    X = np.hstack([X, X[:, :1] + X[:, 1:2]])  # a singular Gram matrix
    bridge = RidgeBridge().fit(X[:n], Z[:n])
    standard = [StandardScaler().fit_transform(values[:n]) for values in (X, Z.astype(float))]
    assert bridge.alpha_ == pytest.approx(gcv_alpha(*standard))
    expected = ridge_oracle(X[:n], Z[:n].astype(float), X)
    np.testing.assert_allclose(bridge.transform(X), expected, atol=2e-5 * np.abs(Z).max())
    assert bridge.transform(X).dtype == np.float32


def test_the_intercept_counts_as_a_degree_of_freedom() -> None:
    # With few rows and columns without meaning, the penalty chosen depends on it.
    found, expected = [], []
    for seed in range(30):
        rng = np.random.default_rng(seed)
        X, Z = rng.normal(size=(20, 12)), rng.normal(size=(20, 2))
        Z[:, 0] += X[:, 0]
        found.append(RidgeBridge().fit(X, Z).alpha_)
        expected.append(gcv_alpha(StandardScaler().fit_transform(X), StandardScaler().fit_transform(Z)))
    assert found == pytest.approx(expected)


def test_network_bridge_equals_the_forward_pass_of_torch(toy: Any) -> None:
    import torch
    from torch import nn

    X, Z, _ = toy
    bridge = clone(SMALL).fit(X, Z)
    widths = [6, 16, 8, 4]
    network = nn.Sequential()
    for index in range(3):
        layer = nn.Linear(widths[index], widths[index + 1])
        layer.weight.data = torch.from_numpy(bridge.weights_[f"weight_{index}"].T.copy())
        layer.bias.data = torch.from_numpy(bridge.weights_[f"bias_{index}"])
        network.append(layer)
        if index < 2:
            network.append(nn.SiLU())
    inputs = StandardScaler().fit(X).transform(X).astype(np.float32)
    with torch.no_grad():
        forward = network(torch.from_numpy(inputs)).numpy()
    scale = StandardScaler().fit(Z.astype(float))
    np.testing.assert_allclose(
        (bridge.transform(X) - scale.mean_) / scale.scale_, forward, atol=1e-5 + 2e-7 * np.abs(Z).max()
    )


def test_network_bridge_learns_what_no_line_can() -> None:
    rng = np.random.default_rng(0)
    X = rng.uniform(-2, 2, size=(600, 2))
    Z = np.stack([X[:, 0] ** 2, np.sin(2 * X[:, 1])], axis=1)
    network = MLPBridge(hidden=(32, 32), epochs=60, batch_size=32, weight_decay=0.0).fit(X, Z).quality_
    assert network.median_r2 > 0.95
    assert RidgeBridge().fit(X, Z).quality_.r2[0] < 0.2


def test_network_bridge_is_its_seed_and_leaves_the_state_of_torch_and_numpy(toy: Any) -> None:
    import torch

    X, Z, _ = toy
    torch.manual_seed(3)
    np.random.seed(3)  # noqa: NPY002 - the legacy state is what must not change
    expected = torch.get_rng_state(), np.random.RandomState(3).random()
    one = clone(SMALL).fit(X, Z)
    torch.testing.assert_close(torch.get_rng_state(), expected[0], rtol=0, atol=0)
    assert np.random.random() == expected[1]  # noqa: NPY002
    torch.manual_seed(4)
    two, other = clone(SMALL).fit(X, Z), clone(SMALL).set_params(random_state=1).fit(X, Z)
    np.testing.assert_array_equal(one.transform(X), two.transform(X))
    assert one.quality_ == two.quality_
    assert np.abs(one.transform(X) - other.transform(X)).max() > 0.01


def test_network_bridge_does_not_follow_the_default_type_of_torch(toy: Any) -> None:
    import torch

    X, Z, _ = toy
    expected = clone(SMALL).fit(X, Z).transform(X)
    torch.set_default_dtype(torch.float64)
    try:
        found = clone(SMALL).fit(X, Z).transform(X)
    finally:
        torch.set_default_dtype(torch.float32)
    np.testing.assert_array_equal(found, expected)


@pytest.mark.parametrize("epochs", [1, 2, 5, 10, 11, 20])
def test_network_bridge_takes_any_number_of_steps(toy: Any, epochs: int) -> None:
    # One batch an epoch. A schedule that rises for one step of ten makes torch divide by zero.
    X, Z, _ = toy
    bridge = MLPBridge(hidden=(8,), epochs=epochs, batch_size=1000).fit(X, Z)
    untrained = MLPBridge(hidden=(8,), epochs=epochs, batch_size=1000, learning_rate=1e-12).fit(X, Z)
    assert np.abs(bridge.weights_["weight_0"] - untrained.weights_["weight_0"]).max() > 1e-5


def test_a_network_without_torch_is_a_sentence(toy: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "torch", None)
    with pytest.raises(BridgeError, match="fitting a network bridge needs torch, which is missing: pip install torch"):
        clone(SMALL)._fit_standardised(toy[0].astype(np.float32), toy[1])


@pytest.mark.parametrize("bridge", [RidgeBridge(), SMALL], ids=["ridge", "mlp"])
def test_rows_of_refused_crystals_are_left_out_and_counted(toy: Any, bridge: Bridge) -> None:
    X, Z, groups = toy
    expected = clone(bridge).fit(X, Z, groups)
    assert expected.n_refused_ == 0
    places = [0, 50, 60]
    with_refused = clone(bridge).fit(
        np.insert(X, places, 1e6, axis=0), np.insert(Z, places, np.nan, axis=0), np.insert(groups, places, "refused")
    )
    assert with_refused.n_refused_ == 3
    np.testing.assert_array_equal(with_refused.transform(X), expected.transform(X))
    assert with_refused.quality_ == expected.quality_
    partly = Z.copy()
    partly[7, 2] = np.nan
    assert clone(bridge).fit(X, partly).n_refused_ == 1


@pytest.mark.parametrize("bridge", [RidgeBridge(), SMALL], ids=["ridge", "mlp"])
def test_missing_descriptors_count_as_the_mean_and_far_ones_are_held_at_eight_deviations(
    toy: Any, bridge: Bridge
) -> None:
    X, Z, _ = toy
    X = X.copy()
    X[::7, 3] = np.nan
    fitted = clone(bridge).fit(X, Z)
    mean, deviation = np.nanmean(X[:, 3]), np.nanstd(X[:, 3])
    row = np.nan_to_num(X[:1], nan=0.0)

    def at(value: float) -> Any:
        new = row.copy()
        new[0, 3] = value
        return fitted.transform(new)

    np.testing.assert_allclose(at(np.nan), at(mean), rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(at(mean + 1e6 * deviation), at(mean + 8 * deviation), rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(at(mean - 1e6 * deviation), at(mean - 8 * deviation), rtol=1e-5, atol=1e-5)
    for nearer in (0, 7.9):
        assert np.abs(at(mean + 8 * deviation) - at(mean + nearer * deviation)).max() > 1e-3


def test_what_is_constant_stays_constant(toy: Any) -> None:
    X, Z, _ = toy
    X, Z = X.copy(), Z.copy()
    X[:, 2] = 0.1
    Z[:, 1] = 7.3
    bridge = RidgeBridge().fit(X, Z)
    np.testing.assert_allclose(bridge.transform(X)[:, 1], np.float32(7.3), rtol=1e-6)
    np.testing.assert_array_equal(np.isnan(bridge.quality_.r2), [False, True, False, False])
    assert bridge.weights_["input_scale"][2] == 1.0
    assert bridge.weights_["output_scale"][1] == 1.0


def test_rounding_is_no_deviation() -> None:
    # Summed in float32, 42,000 equal values have a mean that is not theirs.
    Z = np.full((42_000, 2), 7.3, dtype=np.float32)
    Z[:, 1] = np.linspace(7.2999, 7.3001, len(Z))
    weights = MeanBridge().fit(np.zeros((len(Z), 1)), Z).weights_
    assert weights["output_mean"][0] == Z[0, 0]
    assert weights["output_scale"][0] == 1.0
    assert weights["output_scale"][1] == pytest.approx(1e-4 / np.sqrt(3), rel=1e-2)


def test_a_column_known_on_the_held_out_side_only_is_constant_in_the_first_fit(toy: Any) -> None:
    X, Z, groups = toy
    mask = split_by_group(groups, 0.1, 0)
    X = X.copy()
    X[~mask, 4] = np.nan
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        bridge = RidgeBridge().fit(X, Z, groups)
    assert np.isfinite(bridge.quality_.r2).all()
    assert bridge.weights_["input_mean"][4] == pytest.approx(X[mask, 4].mean(), rel=1e-5)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"held_out": 0.0}, "held_out is 0.0; it must lie between 0 and 1"),
        ({"held_out": 1.0}, "held_out is 1.0; it must lie between 0 and 1"),
        ({"Z": np.zeros((119, 4))}, "X has 120 rows and Z has 119; they must be the same crystals"),
        ({"groups": ["a"] * 119}, "there are 119 groups for 120 rows; one for each row is needed"),
        ({"groups": ["a"] * 120}, "all rows with an embedding are of one group, so that none can be held out"),
        ({"lost": 101}, "only 19 of 120 rows have an embedding; at least 20 are needed"),
        ({"empty": [1, 5]}, r"the descriptor columns \[1, 5\] have no value in any row; leave them out"),
    ],
)
def test_what_cannot_be_fitted_is_a_sentence(toy: Any, changes: dict[str, Any], message: str) -> None:
    X, Z, groups = (values.copy() for values in toy)
    X[:, changes.get("empty", [])] = np.nan
    Z[: changes.get("lost", 0)] = np.nan
    with pytest.raises(BridgeError, match=message):
        RidgeBridge(held_out=changes.get("held_out", 0.1)).fit(X, changes.get("Z", Z), changes.get("groups", groups))


# --- files -----------------------------------------------------------------------------------------------------------


def raw_header(path: Path) -> dict[str, Any]:
    """Header of a safetensors file by its specification: eight bytes of length, then JSON."""
    content = path.read_bytes()
    header: dict[str, Any] = json.loads(content[8 : 8 + struct.unpack("<Q", content[:8])[0]])
    return header


@pytest.mark.parametrize("bridge", [RidgeBridge(random_state=3), SMALL], ids=["ridge", "mlp"])
@pytest.mark.parametrize(("dtype", "code", "tolerance"), [("float32", "F32", 0.0), ("float16", "F16", 5e-3)])
def test_a_saved_bridge_is_the_same_one(
    toy: Any, tmp_path: Path, bridge: Bridge, dtype: str, code: str, tolerance: float
) -> None:
    X, Z, groups = toy
    fitted = clone(bridge).fit(X, Z, groups)
    assert fitted.provenance_ == {}
    path = tmp_path / "new" / "bridge.safetensors"
    fitted.save(path, {"source": "Toy", "n": 3}, dtype=dtype)
    again = load_bridge(path)
    assert type(again) is type(fitted)
    assert again.get_params() == fitted.get_params()
    assert again.quality_ == fitted.quality_
    assert again.provenance_ == {"source": "Toy", "n": 3}
    assert (again.n_features_in_, again.n_features_out_) == (6, 4)
    deviation = np.abs(again.transform(X) - fitted.transform(X)) / Z.std(axis=0)
    assert deviation.max() <= tolerance
    assert [item.name for item in path.parent.iterdir()] == ["bridge.safetensors"]

    raw = raw_header(path)
    written = json.loads(raw.pop("__metadata__")["scotl_matgl"])
    assert written["header"] == read_header(path)
    assert written["schema"] == ["bridge", 3]
    exact = {"input_mean", "input_scale", "output_mean", "output_scale"}
    assert {name for name, tensor in raw.items() if tensor["dtype"] == "F32"} >= exact
    assert {tensor["dtype"] for name, tensor in raw.items() if name not in exact} == {code}
    with pytest.raises(ValueError, match=r"X has 5 features, but .* is expecting 6 features"):
        again.transform(X[:, :5])


@pytest.mark.parametrize("bridge", [RidgeBridge(random_state=3), SMALL], ids=["ridge", "mlp"])
def test_in_eight_bits_no_weight_moves_by_more_than_half_a_step(toy: Any, tmp_path: Path, bridge: Bridge) -> None:
    X, Z, groups = toy
    fitted = clone(bridge).fit(X, Z, groups)
    fitted.save(tmp_path / "bridge", dtype="int8")
    again = load_bridge(tmp_path / "bridge")
    assert again.weights_.keys() == fitted.weights_.keys()
    for name, exact in fitted.weights_.items():
        if exact.ndim == 1:
            np.testing.assert_array_equal(again.weights_[name], exact)
            continue
        step = np.abs(exact).max(axis=0) / 127
        assert (np.abs(again.weights_[name] - exact) <= 0.5001 * step).all()
        largest = np.abs(exact).argmax(axis=0), np.arange(exact.shape[1])
        np.testing.assert_allclose(again.weights_[name][largest], exact[largest], rtol=1e-6)
    raw = raw_header(tmp_path / "bridge")
    matrices = {name for name, value in fitted.weights_.items() if value.ndim == 2}
    assert {name for name, tensor in raw.items() if tensor.get("dtype") == "I8"} == matrices
    deviation = (again.transform(X) - fitted.transform(X)) / Z.std(axis=0)
    assert 0 < np.sqrt(np.mean(deviation**2)) < 0.02


def test_the_header_says_all_that_is_known(toy: Any, tmp_path: Path) -> None:
    path = tmp_path / "bridge.safetensors"
    fitted = RidgeBridge(held_out=0.2).fit(toy[0], toy[1])
    fitted.save(path, {"source": "Toy"})
    assert read_header(path) == {
        "kind": "ridge",
        "dtype": "float16",
        "parameters": {"held_out": 0.2, "random_state": 0},
        "quality": dataclasses.asdict(fitted.quality_) | {"r2": list(fitted.quality_.r2)},
        "provenance": {"source": "Toy"},
    }


def test_saving_a_loaded_bridge_keeps_what_is_known_of_it(toy: Any, tmp_path: Path) -> None:
    fitted = RidgeBridge(held_out=np.float64(0.2), random_state=np.int64(3)).fit(toy[0], toy[1])  # type: ignore[arg-type]
    fitted.save(tmp_path / "one", {"source": "Toy"}, dtype="float32")
    load_bridge(tmp_path / "one").save(tmp_path / "two", dtype="float32")
    assert (tmp_path / "two").read_bytes() == (tmp_path / "one").read_bytes()
    assert read_header(tmp_path / "two")["provenance"] == {"source": "Toy"}


def test_what_cannot_be_saved_is_a_sentence_and_leaves_the_old_file(toy: Any, tmp_path: Path) -> None:
    path = tmp_path / "bridge"
    fitted = RidgeBridge().fit(toy[0], toy[1])
    with pytest.raises(NotFittedError):
        RidgeBridge().save(path)
    fitted.save(path)
    before = path.read_bytes()
    with pytest.raises(BridgeError, match="dtype is 'int4'; it must be 'float16', 'float32' or 'int8'"):
        fitted.save(path, dtype="int4")
    fitted.weights_["weight"][0, 0] = 70000.0  # float16 ends at 65504
    with pytest.raises(BridgeError, match="a weight of 70000 is too large for float16; save with dtype='float32'"):
        fitted.save(path)
    with pytest.raises(BridgeError, match=r"cannot be written: .*Path.* is no JSON value in the header of a bridge"):
        fitted.save(path, {"path": Path("x")}, dtype="float32")
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]


def write_header(path: Path, header: Any, **tensors: NDArray[np.float32]) -> None:
    """Write a file with the seal of a bridge, whatever its header is."""
    anything = TensorKind(BRIDGE_FILE.name, BRIDGE_FILE.version, object, "")
    write_tensors(path, tensors or {"weight": np.zeros(1, np.float32)}, anything, header)


HEADER: dict[str, Any] = {
    "kind": "ridge",
    "parameters": {},
    "quality": dataclasses.asdict(BridgeQuality((1.0,), 1.0, 1.0, 1.0, 1.0, 2, 2)),
    "provenance": {},
}
QUALITY: dict[str, Any] = HEADER["quality"]


@pytest.mark.parametrize(
    ("header", "message"),
    [
        ({"source": "Toy"}, "cannot be read as a bridge: its header lacks 'kind'; build it again"),
        ({"kind": "ridge"}, "its header lacks 'parameters'; build it again"),
        (HEADER | {"kind": ["ridge"]}, "its header: kind is a list, not a text"),
        (HEADER | {"parameters": {"dropout": 0.1}}, "was written by another version .*'dropout'.*; build the bridge"),
        (
            HEADER | {"parameters": {"random_state": {}}},
            "random_state = {}, where the bridge 'ridge' has values like 0",
        ),
        (HEADER | {"parameters": {"held_out": True}}, "has held_out = True, where the bridge 'ridge' has"),
        (
            HEADER | {"kind": "mlp", "parameters": {"hidden": {"0": 16}}},
            "has hidden = {'0': 16}, where the bridge 'mlp' has values like",
        ),
        (HEADER | {"kind": "mlp", "parameters": {"hidden": [16, "8"]}}, r"has hidden = \[16, '8'\], where"),
        (HEADER | {"quality": {"r2": []}}, "its header: quality lacks 'median_r2'"),
        (HEADER | {"quality": QUALITY | {"r2": {}}}, "its header: quality: r2 is a dict, not a list"),
        (HEADER | {"quality": QUALITY | {"n_fit": 1.5}}, "quality: n_fit is 1.5, not a whole number"),
        (HEADER | {"provenance": {"source_weights": {"a": 1}}}, "source_weights: a is 1, not a text"),
        (HEADER | {"provenance": []}, "its header: provenance is a list, not a JSON object"),
        (HEADER, "lacks the tensors input_mean, input_scale, output_mean, output_scale; build the bridge again"),
    ],
)
def test_a_wrong_file_is_a_sentence_that_names_it(tmp_path: Path, header: Any, message: str) -> None:
    path = tmp_path / "wrong.safetensors"
    write_header(path, header)
    with pytest.raises(BridgeError, match=message) as caught:
        load_bridge(path)
    assert str(caught.value).startswith(str(path))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"weight": np.zeros((5, 4), np.float32)}, "has tensors that do not fit together"),
        ({"weight": np.zeros((6, 3), np.float32)}, "has tensors that do not fit together"),
        ({"output_scale": np.ones(3, np.float32)}, "which do not fit together"),
        ({"input_mean": np.full(6, np.nan, np.float32)}, "has values that are not finite in input_mean"),
    ],
)
def test_tensors_that_do_not_fit_are_a_sentence(
    toy: Any, tmp_path: Path, change: dict[str, NDArray[np.float32]], message: str
) -> None:
    fitted = RidgeBridge().fit(toy[0], toy[1])
    fitted.weights_ |= change
    fitted.save(tmp_path / "odd", dtype="float32")
    with pytest.raises(BridgeError, match=message):
        load_bridge(tmp_path / "odd")


def test_other_files_are_a_sentence_too(toy: Any, tmp_path: Path) -> None:
    from safetensors.numpy import save_file

    fitted = RidgeBridge().fit(toy[0], toy[1])
    fitted.save(tmp_path / "cut")
    (tmp_path / "cut").write_bytes((tmp_path / "cut").read_bytes()[:-3])
    (tmp_path / "text").write_text("no safetensors")
    save_file({"weight": np.zeros(1, np.float32)}, tmp_path / "bare")
    LookUp.of(["a"], np.zeros((1, 2), np.float32), {"source": "Toy"}).save(tmp_path / "look-up")
    (tmp_path / "folder").mkdir()
    os.mkfifo(tmp_path / "pipe")
    for name, message in {
        "cut": "cannot be read as a bridge: its sha256 is .*; build it again",
        "text": "cannot be read as a bridge: its header would have",
        "absent": "cannot be read as a bridge: No such file",
        "bare": "it carries no hash of itself",
        "look-up": "cannot be read as a bridge: it is a look-up of format 2, not a bridge of format 3",
        "folder": "it is no regular file",
        "pipe": "it is no regular file",
    }.items():
        with pytest.raises(BridgeError, match=message):
            load_bridge(tmp_path / name)


def test_a_kind_that_is_not_installed_is_named(tmp_path: Path) -> None:
    write_header(tmp_path / "mean", HEADER | {"kind": "mean"})
    with pytest.raises(registry.PluginError, match="Unknown bridge 'mean'"):
        load_bridge(tmp_path / "mean")


# --- look-up ---------------------------------------------------------------------------------------------------------


def test_look_up_finds_a_formula_in_every_spelling_and_knows_what_it_does_not_know() -> None:
    keys = parse_compositions(["NaCl", "Fe2O3", "MgO", "SiO2"]).keys()
    embeddings = np.array([[1, 2], [3, 4], [np.nan, np.nan], [5, 6]], dtype=np.float32)
    look_up = LookUp.of(keys, embeddings, {})
    assert len(look_up.hashes) == 3  # the refused one is left out
    assert (np.diff(look_up.hashes.astype(object)) > 0).all()
    found, known = look_up.find(parse_compositions(["Si2O4", "MgO", "O3Fe2", "ClNa", "SiO", "NaCl"]).keys())
    np.testing.assert_array_equal(known, [True, False, True, True, False, True])
    nan = [np.nan, np.nan]
    np.testing.assert_array_equal(found, [[5, 6], nan, [3, 4], [1, 2], nan, [1, 2]])
    assert found.dtype == np.float32
    assert look_up.find([])[0].shape == (0, 2)


def test_look_up_without_crystals_knows_nothing() -> None:
    look_up = LookUp.of([], np.zeros((0, 3), np.float32), {})
    found, known = look_up.find(["a", "b"])
    assert np.isnan(found).all()
    assert found.shape == (2, 3)
    assert not known.any()


def test_look_up_refuses_what_is_not_one_embedding_a_formula() -> None:
    with pytest.raises(BridgeError, match="a composition stands twice in the look-up; take one crystal per formula"):
        LookUp.of(["a", "b", "a"], np.zeros((3, 2), np.float32), {})
    with pytest.raises(BridgeError, match="there are 1 compositions and 2 embeddings; one for each is needed"):
        LookUp.of(["a"], np.zeros((2, 2), np.float32), {})


@pytest.mark.parametrize(("largest", "dtype"), [(65504.0, np.float16), (-70000.0, np.float32)])
def test_look_up_is_the_same_after_saving_in_float16_where_that_fits(
    tmp_path: Path, largest: float, dtype: type
) -> None:
    rng = np.random.default_rng(0)
    keys = [str(index) for index in range(500)]
    values = rng.normal(size=(500, 8)).astype(np.float32)
    values[7, 3] = largest
    path = tmp_path / "new" / "look-up.safetensors"
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        LookUp.of(keys, values, {"source": "Toy"}).save(path)
    again = LookUp.load(path)
    assert again.embeddings.dtype == dtype
    assert again.provenance == {"source": "Toy"}
    found, known = again.find(keys)
    assert known.all()
    np.testing.assert_array_equal(found, values.astype(dtype).astype(np.float32))
    assert [item.name for item in path.parent.iterdir()] == [path.name]


def test_a_look_up_for_other_weights_is_not_used_and_a_damaged_one_costs_a_warning(home: Path) -> None:
    path = look_up_path("Toy", "readout")
    assert path.is_relative_to(home)
    assert find_look_up(CARD, "readout") is None
    LookUp.of(["a"], np.ones((1, 3), np.float32), {"source_weights": dict(CARD.weights)}).save(path)
    look_up = find_look_up(CARD, "readout")
    assert look_up is not None
    np.testing.assert_array_equal(look_up.find(["a"])[0], [[1, 1, 1]])
    assert find_look_up(CARD, "gc_1") is None
    assert find_look_up(dataclasses.replace(CARD, weights={"model.pt": "1" * 64}), "readout") is None

    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(BridgeError, match=r"cannot be read as a look-up: .*; build its bridge again"):
        LookUp.load(path)
    with pytest.warns(StoredFileWarning, match="Toy--readout.safetensors cannot be read .*; the bridge is used alone"):
        assert find_look_up(CARD, "readout") is None
    RidgeBridge().fit(np.eye(20), np.eye(20)).save(path)
    with pytest.raises(BridgeError, match="cannot be read as a look-up"):
        LookUp.load(path)


# --- which one -------------------------------------------------------------------------------------------------------


@pytest.fixture
def shipped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "shipped"
    folder.mkdir()
    monkeypatch.setattr(store, "shipped_folder", lambda: folder)
    return folder


@pytest.fixture
def descriptor() -> CompositionDescriptor:
    return get_descriptor("fractions")


def put(folder: Path, descriptor: CompositionDescriptor, named: str = "Toy", **changes: Any) -> Path:
    """Save a bridge of the toy source in a folder; its provenance with the changes."""
    provenance = {
        "source": named,
        "source_weights": dict(CARD.weights),
        "layer": "readout",
        "descriptor": repr(descriptor),
        "descriptor_fingerprint": descriptor.fingerprint(),
    }
    path = folder / bridge_name(named, "readout", descriptor.fingerprint())
    RidgeBridge().fit(np.eye(20), np.eye(20)).save(path, provenance | changes)
    return path


def test_the_bridge_of_the_user_comes_before_the_shipped_one(
    home: Path, shipped: Path, descriptor: CompositionDescriptor
) -> None:
    ours = put(shipped, descriptor)
    found = find_bridge(CARD, "readout", descriptor)
    assert (found.path, found.shipped) == (ours, True)
    users = put(home / "bridges", descriptor)
    found = find_bridge(CARD, "readout", descriptor)
    assert (found.path, found.shipped) == (users, False)
    assert found.provenance["source"] == "Toy"
    assert isinstance(found.load(), RidgeBridge)
    assert find_bridge(CARD, "readout", descriptor, folders=[shipped]).path == ours


def test_bridges_inside_the_package_of_a_zoo_come_with_it_and_nothing_of_it_is_imported(
    home: Path, shipped: Path, descriptor: CompositionDescriptor, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    info, package = tmp_path / "site" / "toys-1.0.dist-info", tmp_path / "site" / "bridged_toys"
    info.mkdir(parents=True)
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: toys\nVersion: 1.0\n")
    zoos = "toys = bridged_toys.zoo:cards\nagain = bridged_toys:cards\nlost = no_such_package:cards\n"
    (info / "entry_points.txt").write_text(f"[scotl_matgl.zoos]\n{zoos}")
    theirs = put(package / "bridges", descriptor)
    (package / "__init__.py").write_text("raise SystemExit('imported')")
    with pytest.raises(BridgeError, match="there is no bridge"):
        find_bridge(CARD, "readout", descriptor)

    monkeypatch.syspath_prepend(str(info.parent))
    registry.refresh()
    try:
        found = find_bridge(CARD, "readout", descriptor)
        assert (found.path, found.shipped) == (theirs, True)
        assert [file.path for file in list_bridges()] == [theirs]
        # Neither what was built here nor what is shipped gives way to a plugin.
        for folder, own in ((shipped, True), (home / "bridges", False)):
            ours = put(folder, descriptor)
            found = find_bridge(CARD, "readout", descriptor)
            assert (found.path, found.shipped) == (ours, own)
    finally:
        registry.refresh()


@pytest.mark.parametrize(
    ("changes", "remark"),
    [
        ({"source_weights": {"model.pt": "1" * 64}}, "was fitted for other weights of it"),
        ({"descriptor_fingerprint": "0" * 64}, "was fitted for {descriptor} with other columns or tables"),
        ({"source": "Other"}, "says that it is of Other, layer readout"),
        ({"layer": "gc_1"}, "says that it is of Toy, layer gc_1"),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else "",
)
def test_a_bridge_of_something_else_does_not_count_and_is_told(
    home: Path, shipped: Path, descriptor: CompositionDescriptor, changes: dict[str, Any], remark: str
) -> None:
    users = put(home / "bridges", descriptor, **changes)
    with pytest.raises(BridgeError) as caught:
        find_bridge(CARD, "readout", descriptor)
    assert str(caught.value) == (
        f"there is no bridge from {descriptor!r} to the layer 'readout' of Toy "
        f"({users} {remark.format(descriptor=repr(descriptor))}); "
        "build it with `scotl-matgl bridge build --sources Toy --layer readout --structures FILE`"
    )
    assert find_bridge(CARD, "readout", descriptor, folders=[home / "bridges", put(shipped, descriptor).parent]).shipped


def test_a_damaged_file_of_the_user_is_an_error_and_never_silently_the_shipped_one(
    home: Path, shipped: Path, descriptor: CompositionDescriptor
) -> None:
    users = put(home / "bridges", descriptor)
    put(shipped, descriptor)
    content = bytearray(users.read_bytes())
    # Another hash of the source's weights: read without a look at the seal, it is a bridge of other weights.
    at = content.index(b"source_weights") + content[content.index(b"source_weights") :].index(b"0" * 64)
    content[at] ^= 1
    users.write_bytes(content)
    with pytest.raises(BridgeError, match=f"{users.name} cannot be read as a bridge: its sha256 is"):
        find_bridge(CARD, "readout", descriptor)
    users.unlink()
    assert find_bridge(CARD, "readout", descriptor).shipped


def test_a_damaged_file_for_another_descriptor_hides_nothing(
    home: Path, shipped: Path, descriptor: CompositionDescriptor
) -> None:
    put(home / "bridges", get_descriptor("stoichiometry")).write_bytes(bytes(1))
    put(shipped, descriptor)
    assert find_bridge(CARD, "readout", descriptor).shipped


def test_bridges_of_sources_with_like_names_are_not_mixed_up(
    home: Path, shipped: Path, descriptor: CompositionDescriptor
) -> None:
    put(home / "bridges", descriptor, named="Toy-2")
    put(home / "bridges", get_descriptor("stoichiometry"))
    with pytest.raises(BridgeError) as caught:
        find_bridge(CARD, "readout", descriptor)
    assert "Toy-2" not in str(caught.value)
    assert "was fitted for StoichiometryDescriptor() with other columns or tables" in str(caught.value)
    with pytest.raises(BridgeError, match=r"to the layer 'gc_1' of Toy; build it"):
        find_bridge(CARD, "gc_1", descriptor)


def test_listing_leaves_out_what_it_cannot_use_and_says_so(
    home: Path, shipped: Path, descriptor: CompositionDescriptor
) -> None:
    users = put(home / "bridges", descriptor)
    ours = put(shipped, descriptor)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert [found.path for found in list_bridges()] == [users, ours]
    (home / "bridges" / "broken.safetensors").write_bytes(b"\0")
    RidgeBridge().fit(np.eye(20), np.eye(20)).save(home / "bridges" / "nameless.safetensors")
    with pytest.warns(StoredFileWarning) as caught:
        assert [found.path for found in list_bridges()] == [users, ours]
    told = sorted(str(warning.message) for warning in caught)
    assert [Path(text.split()[0]).name for text in told] == ["broken.safetensors", "nameless.safetensors"]
    assert told[1].endswith("was saved without source, layer and descriptor; it is left out")


def test_every_shipped_bridge_fits_its_card_and_the_standard_descriptor(home: Path) -> None:
    descriptor = get_descriptor("standard")
    cards = {card.name: card for card in (*zoo.matgl(), *zoo.published())}
    found = list(list_bridges([store.shipped_folder()]))
    assert len(found) == 2 * len(cards)
    formulas = ["NaCl", "Fe2O3", "Ba0.5Sr0.5TiO3"]
    for file in found:
        card = cards[file.provenance["source"]]
        layer = file.provenance["layer"]
        assert find_bridge(card, layer, descriptor).path == file.path
        bridge = file.load()
        estimated = bridge.transform(descriptor.fit(formulas).transform(formulas))
        assert estimated.shape == (3, card.layers[layer])
        assert np.isfinite(estimated).all()
        assert bridge.quality_.median_r2 > 0.5


@pytest.mark.slow
def test_applying_a_shipped_network_needs_neither_torch_nor_pymatgen(home: Path) -> None:
    code = (
        "import sys, numpy as np; from scotl_matgl.bridges.store import list_bridges; "
        "name = 'MEGNet-MP-2018.6.1-Eform--readout'; "
        "file = next(file for file in list_bridges() if file.path.name.startswith(name)); "
        "bridge = file.load(); "
        "print(type(bridge).__name__, bridge.transform(np.zeros((2, bridge.n_features_in_))).shape, "
        "[name for name in ('torch', 'dgl', 'matgl', 'matminer', 'pymatgen') if name in sys.modules])"
    )
    run = subprocess.run(  # noqa: S603 - our own code
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, env=dict(os.environ)
    )
    assert run.stdout.strip() == "MLPBridge (2, 160) []"
    assert run.stderr == ""


# --- building --------------------------------------------------------------------------------------------------------


class Encoder:
    """Embeds a crystal as simple functions of its composition; refuses gold."""

    def __init__(self, card: SourceCard = CARD) -> None:
        self.card = card
        self.layers = tuple(card.layers)

    def encode(self, structures: Any, *, layer: str = "readout", **_: Any) -> NDArray[np.float32]:
        return self.encode_layers(structures, layers=(layer,)).embeddings[layer]

    def encode_layers(self, structures: Any, *, layers: Any, **_: Any) -> Encoded:
        result = Encoded({layer: np.zeros((len(structures), self.card.layers[layer]), np.float32) for layer in layers})
        for row, crystal in enumerate(structures):
            for layer, values in result.embeddings.items():
                powers = np.arange(1, self.card.layers[layer] + 1)
                values[row] = np.mean((crystal.numbers[:, None] / 50) ** powers, axis=0)
            if 79 in crystal.numbers:
                result.refused[row] = "gold"
                for values in result.embeddings.values():
                    values[row] = np.nan
        return result


def binary(a: int, b: int, size: float = 4.0, identifier: str = "", energy: float | None = None) -> Crystal:
    properties = {} if energy is None else {"formation_energy_eV_atom": energy}
    sites = np.array([[0.0, 0.0, 0.0], [0.5, 0.5, 0.5]])
    return Crystal(size * np.eye(3), sites, np.array([a, b], dtype=np.int16), identifier, properties)


BINARIES = [
    binary(a, b, 4.0 + 0.01 * a, f"{a}-{b}") for a, b in itertools.product(range(3, 14), (8, 16, 34, 52)) if a != b
]


@pytest.mark.parametrize("bridge", ["ridge", RidgeBridge(held_out=0.2)], ids=["by name", "object"])
def test_what_was_built_is_found_with_its_provenance(
    home: Path, shipped: Path, descriptor: CompositionDescriptor, bridge: Any
) -> None:
    # A second crystal of the first formula, of lower energy: it stands for the formula.
    better = binary(3, 8, 5.5, "better", energy=-1.0)
    corpus = Corpus([*BINARIES, better, binary(79, 8), binary(79, 16), binary(79, 34, 4.0, "3-16")])
    built = build_bridge(CARD, corpus, descriptor, encoder=Encoder(), bridge=bridge, layer="gc_1")
    kept = corpus.one_per_formula()
    n = len(BINARIES) + 3
    assert len(kept) == built.n_crystals == n
    assert built.refused == {
        f" (crystal {n - 3})": "gold",
        f" (crystal {n - 2})": "gold",
        "3-16": "gold",
    }
    assert built.bridge.n_refused_ == 3
    assert built.path == home / "bridges" / f"Toy--gc_1--{descriptor.fingerprint()[:8]}.safetensors"
    found = find_bridge(CARD, "gc_1", descriptor)
    assert found.path == built.path
    assert found.provenance == built.bridge.provenance_
    assert found.provenance == {
        "source": "Toy",
        "source_weights": dict(CARD.weights),
        "layer": "gc_1",
        "descriptor": repr(descriptor),
        "descriptor_fingerprint": descriptor.fingerprint(),
        "corpus_hash": kept.hash,
        "n_crystals": n,
        "n_refused": 3,
        "left_out": [],
        "n_left_out": 0,
        "versions": installed_versions(),
    }
    # The groups are the chemical systems.
    systems = [crystal.chemical_system for crystal in kept if 79 not in crystal.numbers]
    mask = split_by_group(systems, built.bridge.held_out, 0)
    assert built.bridge.quality_.n_held_out == mask.sum()

    look_up = find_look_up(CARD, "gc_1")
    assert look_up is not None
    assert look_up.provenance == found.provenance
    rows, known = look_up.find(parse_compositions(["O2Li2", "AuO", "LiS", "Cs"]).keys())
    np.testing.assert_array_equal(known, [True, False, True, False])
    expected = Encoder().encode([binary(3, 8), binary(3, 16)], layer="gc_1")
    np.testing.assert_array_equal(rows[[0, 2]], expected.astype(np.float16))


def test_crystals_that_are_left_out_are_not_fitted_on_and_stay_in_the_look_up(home: Path) -> None:
    corpus = Corpus(BINARIES)
    pattern = "1[0-3]-*"  # neon to aluminium
    left = [item.identifier.split("-")[0] in ("10", "11", "12", "13") for item in corpus.one_per_formula()]
    built = build_bridge(
        CARD,
        corpus,
        get_descriptor("fractions"),
        encoder=Encoder(),
        bridge=RidgeBridge(held_out=0.2),
        settings=BuildSettings(leave_out=[pattern]),
    )
    assert 0 < sum(left) < len(left)
    assert (built.bridge.provenance_["left_out"], built.bridge.provenance_["n_left_out"]) == ([pattern], sum(left))
    kept = Corpus(item for item, out in zip(corpus.one_per_formula(), left, strict=True) if not out)
    X = get_descriptor("fractions").fit(kept.compositions).transform(kept.compositions)
    groups = [item.chemical_system for item in kept]
    expected = RidgeBridge(held_out=0.2).fit(X, Encoder().encode(kept), groups)
    np.testing.assert_array_equal(built.bridge.transform(X), expected.transform(X))
    found = find_look_up(CARD, "readout")
    assert found is not None
    assert found.find(corpus.one_per_formula().compositions.keys())[1].all()


def test_builds_from_one_object_do_not_share_weights_and_leave_it_unfitted(home: Path) -> None:
    bridge, descriptor = RidgeBridge(), get_descriptor("fractions")
    second = dataclasses.replace(CARD, name="Toy-2", options={"shift": 1})

    class Shifted(Encoder):
        def encode_layers(self, structures: Any, *, layers: Any, **options: Any) -> Encoded:
            result = super().encode_layers(structures, layers=layers, **options)
            return Encoded({layer: values + 10 for layer, values in result.embeddings.items()}, result.refused)

    corpus = Corpus(BINARIES)
    one = build_bridge(CARD, corpus, descriptor, encoder=Encoder(), bridge=bridge)
    two = build_bridge(second, corpus, descriptor, encoder=Shifted(second), bridge=bridge)
    np.testing.assert_allclose(two.bridge.weights_["output_mean"] - one.bridge.weights_["output_mean"], 10, rtol=1e-5)
    assert (one.bridge.provenance_["source"], two.bridge.provenance_["source"]) == ("Toy", "Toy-2")
    assert not hasattr(bridge, "weights_")
    assert vars(descriptor) == vars(get_descriptor("fractions"))


def test_what_cannot_be_built_is_a_sentence_before_anything_is_encoded(home: Path) -> None:
    corpus, descriptor = Corpus(BINARIES), get_descriptor("fractions")
    formulas = dataclasses.replace(CARD, modality="composition")
    with pytest.raises(BridgeError, match="Toy embeds formulas itself; it needs no bridge"):
        build_bridge(formulas, corpus, descriptor)
    other = dataclasses.replace(CARD, name="Toy-2")
    with pytest.raises(BridgeError, match="the encoder is that of Toy-2, or of another card of Toy, not of this"):
        build_bridge(CARD, corpus, descriptor, encoder=Encoder(other))
    with pytest.raises(ValueError, match=r"Toy has no layer 'gc_7'; did you mean 'gc_1'\? it has readout, gc_1"):
        build_bridge(CARD, corpus, descriptor, encoder=Encoder(), layer="gc_7")
    with pytest.raises(BridgeError, match="there is no crystal to fit a bridge on; 0 records were refused"):
        build_bridge(CARD, Corpus([]), descriptor, encoder=Encoder())
    assert not home.exists()


def test_installed_versions_leaves_out_what_is_absent() -> None:
    found = installed_versions(["numpy", "no-such-distribution-at-all"])
    assert found == {"python": ".".join(map(str, sys.version_info[:3])), "numpy": metadata.version("numpy")}


# --- real crystals ---------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def real(assets: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[BuiltBridge, Corpus, SourceCard]]:
    """A bridge to MEGNet's formation-energy model on the first 330 crystals of the corpus, in a home of its own."""
    if importlib.util.find_spec("matgl") is None or importlib.util.find_spec("dgl") is None:
        (pytest.fail if os.environ.get("CI") else pytest.skip)("matgl and dgl are not installed: pip install '.[dgl]'")
    crystals = itertools.islice(read_crystals(assets / "structures" / "crystals.json.gz"), 330)
    corpus = Corpus(crystal for crystal in crystals if isinstance(crystal, Crystal))
    card = next(card for card in zoo.matgl() if card.name == "MEGNet-MP-2018.6.1-Eform")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SCOTL_MATGL_HOME", str(tmp_path_factory.mktemp("home")))
        yield build_bridge(card, corpus, get_descriptor("standard"), bridge="ridge"), corpus, card


def test_a_bridge_on_real_crystals_beats_the_mean_on_chemical_systems_it_has_not_seen(real: Any) -> None:
    built, corpus, card = real
    quality = built.bridge.quality_
    assert built.n_crystals == len(corpus.one_per_formula()) > 250
    assert len(quality.r2) == card.width
    assert quality.n_held_out >= 0.1 * quality.n_fit
    assert quality.median_r2 > 0.1
    assert quality.mean_r2 > 0
    assert quality.cosine_centred > 0.4  # the mean embedding has 0
    found = find_bridge(card, "readout", get_descriptor("standard"))
    assert found.path == built.path
    assert found.provenance["corpus_hash"] == corpus.one_per_formula().hash
    assert found.provenance["source_weights"] == dict(card.weights)
    assert found.provenance["versions"]["matgl"] == metadata.version("matgl")


def test_the_look_up_gives_the_embedding_of_the_model_itself(real: Any) -> None:
    built, corpus, card = real
    kept = corpus.one_per_formula()
    some = kept[3:200:40]
    direct = card.load().encode(list(some))
    look_up = find_look_up(card, "readout")
    assert look_up is not None
    found, known = look_up.find(some.compositions.keys())
    assert known.all()
    scale = np.abs(direct).max()
    np.testing.assert_allclose(found, direct, atol=1e-3 * scale)  # float16 has three digits
    # The bridge only estimates: it is further away than that.
    descriptor = get_descriptor("standard").fit(some.compositions)
    estimated = built.bridge.transform(descriptor.transform(some.compositions))
    assert np.abs(estimated - direct).max() > 1e-2 * scale


def test_a_second_build_encodes_nothing_and_gives_the_same_file(real: Any) -> None:
    built, corpus, card = real
    before = built.path.read_bytes()

    class Silent(Encoder):
        def encode_layers(self, *_: Any, **__: Any) -> Encoded:
            raise AssertionError("everything is stored")

    settings = BuildSettings(store=EmbeddingStore())
    again = build_bridge(
        card, corpus, get_descriptor("standard"), encoder=Silent(card), bridge="ridge", settings=settings
    )
    assert again.path.read_bytes() == before


def test_every_parameter_of_a_bridge_is_documented() -> None:
    for kind in (RidgeBridge, MLPBridge):
        for name in inspect.signature(kind).parameters:
            assert f"\n{name} : " in str(inspect.getdoc(kind))
