"""CroMEL's generator against torch, and the leak of its published cross-validation."""

from __future__ import annotations

import pickle
from pathlib import Path

import numpy as np
import pytest
import torch

from scotl_matgl.plugin import CompositionEncoder, SourceCard, load_element_tables, parse_compositions
from scotl_matgl_papers import cromel
from scotl_matgl_papers.cromel_evaluation import out_of_fold
from scotl_matgl_papers.cromel_models import CromelEncoder, composition_vectors
from scotl_matgl_papers.published import read_table
from scotl_matgl_papers.weights import find_weights

FORMULAS = ["Fe2O3", "NaCl", "Pr0.33Si0.66", "LiFePO4"]


def test_composition_vector_by_hand() -> None:
    table = load_element_tables().presets["matscholar_el"].raw
    iron, oxygen = table[25], table[7]
    expected = np.concatenate([0.4 * iron + 0.6 * oxygen, np.minimum(iron, oxygen), np.maximum(iron, oxygen)])
    np.testing.assert_allclose(composition_vectors(parse_compositions(["Fe2O3"]))[0], expected, rtol=1e-14)


@pytest.mark.parametrize("card", cromel(), ids=lambda card: card.name)
def test_mean_and_spread_are_those_of_the_published_generator(card: SourceCard, assets: Path) -> None:
    state = torch.load(find_weights(card), map_location="cpu", weights_only=True)
    weights = {name: tensor.double() for name, tensor in state.items()}
    inputs = torch.from_numpy(composition_vectors(parse_compositions(FORMULAS)))
    linear, prelu = torch.nn.functional.linear, torch.nn.functional.prelu
    prefix = "generator.emb_net_cv"
    hidden = prelu(
        linear(inputs, weights[f"{prefix}.0.weight"], weights[f"{prefix}.0.bias"]), weights[f"{prefix}.1.weight"]
    )
    mean = prelu(
        linear(hidden, weights[f"{prefix}.2.weight"], weights[f"{prefix}.2.bias"]), weights[f"{prefix}.3.weight"]
    )
    spread = torch.nn.functional.softplus(
        linear(mean, weights["generator.fc_std.0.weight"], weights["generator.fc_std.0.bias"])
    )
    encoder = card.load()
    for layer, expected in (("hidden", hidden), ("readout", mean), ("spread", spread)):
        found = encoder.encode(FORMULAS, layer=layer, dtype=np.float64)
        # torch's softplus leaves out the logarithm beyond 20.
        np.testing.assert_allclose(found, expected.numpy(), rtol=1e-8, atol=1e-12)


def test_encoder(assets: Path) -> None:
    encoder = cromel()[0].load()
    assert isinstance(encoder, CompositionEncoder)
    Z = encoder.encode([*FORMULAS, "NaMd"])
    assert Z.dtype == np.float32
    assert np.isnan(Z[4]).all()  # Md is not among the 100 elements of the published table
    assert np.isfinite(Z[:4]).all()
    np.testing.assert_array_equal(encoder.encode(["Fe2O3"]), Z[:1])
    np.testing.assert_array_equal(pickle.loads(pickle.dumps(encoder)).encode(FORMULAS), Z[:4])  # noqa: S301 - own bytes
    assert encoder.encode([]).shape == (0, 64)
    assert np.isnan(encoder.encode(["Md"])).all()


@pytest.fixture(scope="module")
def small(assets: Path) -> tuple[CromelEncoder, list[str], list[tuple[np.ndarray, np.ndarray]]]:
    table = read_table("efe")
    formulas = list(dict.fromkeys(table.formulas))[::4]
    rows = np.arange(len(formulas))
    folds = [(np.setdiff1d(rows, rows[k::3]), rows[k::3]) for k in range(3)]
    return cromel()[0].load(), formulas, folds


def test_fresh_copies_do_not_depend_on_the_order_of_folds(small: tuple) -> None:
    encoder, formulas, folds = small
    before = {name: values.copy() for name, values in encoder.tensors.items()}
    y = np.random.default_rng(0).normal(size=len(formulas))
    state = torch.random.get_rng_state()
    there, back = (out_of_fold(encoder, formulas, y, order, epochs=2) for order in (folds, folds[::-1]))
    np.testing.assert_array_equal(there, back)
    assert torch.equal(state, torch.random.get_rng_state())
    for name, values in before.items():
        np.testing.assert_array_equal(encoder.tensors[name], values)

    shared = out_of_fold(encoder, formulas, y, folds, epochs=2, share_generator=True)
    np.testing.assert_array_equal(shared[folds[0][1]], there[folds[0][1]])  # nothing has leaked into the first
    assert np.abs(shared[folds[1][1]] - there[folds[1][1]]).max() > 1e-4


def test_shared_generator_predicts_noise(small: tuple) -> None:
    # Nothing can predict noise from formulas; whoever does has seen the answers.
    encoder, formulas, folds = small
    y = np.random.default_rng(1).normal(size=len(formulas))
    shared, fresh = (
        out_of_fold(encoder, formulas, y, folds, epochs=150, share_generator=share) for share in (True, False)
    )
    last = folds[-1][1]
    assert np.corrcoef(y[last], shared[last])[0, 1] > 0.5
    assert abs(np.corrcoef(y, fresh)[0, 1]) < 0.15
