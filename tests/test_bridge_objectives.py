"""The bridges of SCOTL's alignment and CroMEL's critic: losses against their formulas, and what can be learned."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from scotl_matgl.bridges.adversarial import AdversarialBridge, gradient_penalty  # noqa: E402
from scotl_matgl.bridges.alignment import AlignmentBridge, alignment_loss  # noqa: E402
from scotl_matgl.bridges.base import BridgeError, load_bridge  # noqa: E402
from scotl_matgl.bridges.ridge import RidgeBridge  # noqa: E402

SMALL_ALIGNMENT = {"hidden": (32,), "epochs": 60, "batch_size": 64, "weight_decay": 0.0}
SMALL_CRITIC = {"hidden": (48,), "epochs": 100, "batch_size": 50, "learning_rate": 2e-3}


@pytest.fixture(scope="module")
def curved() -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]:
    """Embeddings on a circle, which no line through the descriptor follows."""
    rng = np.random.default_rng(0)
    X = rng.uniform(-1, 1, size=(600, 2))
    angle = np.pi * X[:, :1]
    Z = np.hstack([np.cos(angle), np.sin(angle), X[:, 1:]]) + 0.02 * rng.normal(size=(600, 3)) + [3.0, 0.0, -1.0]
    return X, Z.astype(np.float32)


# --- alignment --------------------------------------------------------------------------------------------------------


def test_the_loss_is_that_of_unit_rows_and_of_the_reach_along_the_estimate() -> None:
    rng = np.random.default_rng(0)
    outputs, Z = rng.normal(size=(6, 5)), rng.normal(size=(6, 4))
    direction = outputs[:, :4] / np.linalg.norm(outputs[:, :4], axis=1, keepdims=True)
    unit = Z / np.linalg.norm(Z, axis=1, keepdims=True)
    reach = np.sum(direction * Z, axis=1) / 2.0  # the root of the width
    for threshold in (0.0, 0.05):
        squares = (direction - unit) ** 2
        squares[squares < threshold] = 0.0
        expected = 4 * squares.mean() + np.mean((outputs[:, 4] - reach) ** 2)
        found = AlignmentBridge(threshold=threshold)._loss(torch.from_numpy(outputs), torch.from_numpy(Z))
        assert float(found) == pytest.approx(expected, rel=1e-12)


def test_below_the_threshold_nothing_is_pulled() -> None:
    near = torch.tensor([[0.60, 0.80]], requires_grad=True)
    far = torch.tensor([[0.20, 0.80]], requires_grad=True)
    target = torch.tensor([[0.65, 0.75]])
    for first, pulled in ((near, False), (far, True)):
        (gradient,) = torch.autograd.grad(alignment_loss(first, target, 0.01), first)
        assert bool(gradient.abs().sum() > 0) is pulled
        assert gradient[0, 1] == 0  # an element that agrees is left alone, whatever the other does


@pytest.mark.slow
def test_alignment_follows_a_circle_that_no_line_does(curved: Any) -> None:
    linear = RidgeBridge().fit(*curved).quality_
    aligned = AlignmentBridge(**SMALL_ALIGNMENT).fit(*curved).quality_
    assert linear.r2[0] < 0.1  # the cosine is even
    assert min(aligned.r2) > 0.9
    assert aligned.cosine > 0.99


@pytest.mark.slow
def test_a_large_threshold_stops_the_alignment_early(curved: Any) -> None:
    X, Z = curved
    quality = [AlignmentBridge(threshold=limit, **SMALL_ALIGNMENT).fit(X, Z).quality_ for limit in (0.0, 0.1)]
    assert quality[1].mean_r2 < quality[0].mean_r2 - 0.005


@pytest.mark.slow
def test_the_estimate_has_the_length_that_serves_it_best() -> None:
    # A descriptor that says nothing of the embedding: the best estimate is its mean, not a row of full length.
    rng = np.random.default_rng(0)
    X, Z = rng.normal(size=(500, 2)), rng.normal(size=(500, 6))
    bridge = AlignmentBridge(hidden=(16,), epochs=20, weight_decay=0.0).fit(X, Z)
    assert bridge.quality_.mean_r2 > -0.1  # rows of full length in random directions would have −1
    assert np.linalg.norm(bridge.transform(X), axis=1).mean() < 0.5 * np.linalg.norm(Z, axis=1).mean()


# --- critic -----------------------------------------------------------------------------------------------------------


def test_the_penalty_is_that_of_a_critic_whose_gradient_is_known() -> None:
    rng = np.random.default_rng(0)
    true, fake = (torch.from_numpy(rng.normal(size=(50, 3))) for _ in range(2))
    slope = torch.tensor([2.0, -1.0, 2.0], dtype=torch.float64)  # of norm 3
    assert float(gradient_penalty(lambda z: z @ slope + 5.0, true, fake)) == pytest.approx(4.0, rel=1e-12)
    assert float(gradient_penalty(lambda z: z @ slope / 3.0, true, fake)) == pytest.approx(0.0, abs=1e-20)
    # |z|²/2 has the gradient z, at points between a row of one and the same row of the other.
    found = float(gradient_penalty(lambda z: (z**2).sum(dim=1) / 2, true, true).detach())
    assert found == pytest.approx(float(((true.norm(dim=1) - 1) ** 2).mean()), rel=1e-12)


def test_the_penalty_has_a_gradient_for_the_critic() -> None:
    weight = torch.tensor([0.5, 0.5], dtype=torch.float64, requires_grad=True)
    rows = torch.ones(4, 2, dtype=torch.float64)
    gradient_penalty(lambda z: z @ weight, rows, 2 * rows).backward()
    norm = 0.5**0.5  # d/dw (‖w‖ − 1)² = 2 (‖w‖ − 1) w / ‖w‖
    np.testing.assert_allclose(weight.grad.numpy(), 2 * (norm - 1) * 0.5 / norm, rtol=1e-12)


@pytest.mark.slow
def test_a_critic_of_the_embedding_alone_matches_its_distribution_only() -> None:
    # Two descriptors with the same distribution, of which only the first matters: matching the embedding's distribution
    # cannot tell them apart, seeing them together can.
    rng = np.random.default_rng(1)
    X = rng.choice([-1.0, 1.0], size=(400, 2))
    Z = (X[:, :1] * [1.0, -1.0] + 0.1 * rng.normal(size=(400, 2))).astype(np.float32)
    joint = AdversarialBridge(critic="joint", **SMALL_CRITIC).fit(X, Z)
    marginal = AdversarialBridge(critic="marginal", **SMALL_CRITIC).fit(X, Z)
    assert joint.quality_.median_r2 > 0.8
    assert marginal.quality_.median_r2 < joint.quality_.median_r2 - 0.3
    spread = marginal.transform(X).std(axis=0) / Z.std(axis=0)
    assert (spread > 0.3).all()  # the distribution is not that of a constant


def test_the_estimate_is_the_mean_and_no_draw(curved: Any, tmp_path: Path) -> None:
    X, Z = curved
    bridge = AdversarialBridge(hidden=(8,), epochs=2, batch_size=100).fit(X, Z)
    first = bridge.transform(X[:20])
    np.testing.assert_array_equal(bridge.transform(X[:20]), first)
    # By hand, from what is saved: two layers, the leaky slope of torch, and the scale of the embedding.
    bridge.save(tmp_path / "bridge.safetensors", {"source": "test"}, dtype="float32")
    again = load_bridge(tmp_path / "bridge.safetensors")
    w = again.weights_
    hidden = (X[:20] - w["input_mean"]) / w["input_scale"] @ w["weight_0"] + w["bias_0"]
    hidden = np.maximum(hidden, 0.01 * hidden)
    expected = (hidden @ w["weight_1"] + w["bias_1"]) * w["output_scale"] + w["output_mean"]
    np.testing.assert_allclose(first, expected, rtol=1e-4, atol=1e-5)


def test_the_state_of_torch_is_left_as_it_was(curved: Any) -> None:
    state = torch.get_rng_state()
    AdversarialBridge(hidden=(8,), epochs=1).fit(*curved)
    AlignmentBridge(hidden=(8,), epochs=1).fit(*curved)
    assert torch.equal(torch.get_rng_state(), state)


def test_a_critic_that_is_not_known_is_a_sentence(curved: Any) -> None:
    with pytest.raises(BridgeError, match="critic is 'both'; it must be 'joint' or 'marginal'"):
        AdversarialBridge(critic="both").fit(*curved)  # type: ignore[arg-type]
