"""Sources whose tokens are elements: the network against a slow one, its laws, and files that do not fit."""

from __future__ import annotations

import pickle
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from scipy.special import softmax

from scotl_matgl import SourceCard
from scotl_matgl.chemistry.compositions import parse_compositions
from scotl_matgl.encoders.attention import ElementAttention, load
from scotl_matgl.encoders.composition import NETWORKS_FILE, write_weights
from scotl_matgl.exceptions import InputError
from scotl_matgl.storage import file_sha256, write_tensors

WIDTH, LAYERS, HEADS, READOUT, FINAL = 8, 2, 2, 5, 3
FORMULAS = ["NaCl", "Fe2O3", "Si", "CaTiO3", "La0.7Sr0.3MnO3", "Co0.2Cr0.2Fe0.2Mn0.2Ni0.2", "O3Fe2"]


def tensors(seed: int = 0) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(seed)
    shapes = ElementAttention.shapes(WIDTH, LAYERS, HEADS, READOUT, FINAL)
    return {name: rng.normal(scale=0.5, size=shape).astype(np.float32) for name, shape in shapes.items()}


def silu(x: np.ndarray) -> np.ndarray:
    return x / (1 + np.exp(-x))


def slowly(t: dict[str, np.ndarray], numbers: np.ndarray, fractions: np.ndarray) -> np.ndarray:
    """One formula, in float64, head by head and pair by pair."""
    t = {name: value.astype(np.float64) for name, value in t.items()}

    def linear(name: str, x: np.ndarray) -> np.ndarray:
        return np.array([t[f"{name}.weight"] @ row + t[f"{name}.bias"] for row in x])

    def norm(name: str, x: np.ndarray) -> np.ndarray:
        centred = x - x.mean(axis=1, keepdims=True)
        return centred / np.sqrt(x.var(axis=1, keepdims=True) + 1e-5) * t[f"{name}.weight"] + t[f"{name}.bias"]

    size = WIDTH // HEADS
    features = np.array([[f, np.sqrt(f), np.log(f) / 9] for f in fractions])
    x = t["elements"][numbers - 1] + linear("fraction", features)
    for i in range(LAYERS):
        parts = linear(f"{i}.query_key_value", norm(f"{i}.norm_attention", x))
        query, key, value = (parts[:, part * WIDTH : (part + 1) * WIDTH] for part in range(3))
        attended = np.zeros_like(x)
        for head in range(HEADS):
            own = slice(head * size, (head + 1) * size)
            for a in range(len(x)):
                share = np.array(
                    [f * np.exp(query[a, own] @ key[b, own] / np.sqrt(size)) for b, f in enumerate(fractions)]
                )
                attended[a, own] = share / share.sum() @ value[:, own]
        x = x + linear(f"{i}.attention", attended)
        x = x + linear(f"{i}.down", silu(linear(f"{i}.up", norm(f"{i}.norm_hidden", x))))
    x = norm("norm", x)
    values, gates = linear("pool", x), linear("gate", x)
    chosen = np.empty(WIDTH)
    for head in range(HEADS):
        own = slice(head * size, (head + 1) * size)
        chosen[own] = softmax(gates[:, head] + np.log(fractions)) @ values[:, own]
    both = np.concatenate([chosen, fractions @ values])[None]
    readout = silu(linear("readout", silu(linear("hidden", both))))
    return np.hstack([readout, linear("final", readout)])[0]


def test_the_network_is_the_slow_one() -> None:
    network, compositions = ElementAttention(tensors(), LAYERS, HEADS), parse_compositions(FORMULAS)
    found = network.forward(compositions)
    for row in range(len(compositions)):
        numbers, amounts = compositions[row]
        expected = slowly(tensors(), numbers, amounts / amounts.sum())
        assert found["readout"][row] == pytest.approx(expected, rel=2e-5, abs=2e-5)
    assert np.array_equal(found["final"], found["readout"][:, READOUT:])


def test_neither_order_nor_size_of_a_formula_matters_and_a_trace_changes_nothing() -> None:
    network = ElementAttention(tensors(), LAYERS, HEADS)

    def embedded(*formulas: str) -> np.ndarray:
        return network.forward(parse_compositions(formulas))["readout"]

    same = embedded("Fe2O3", "O3Fe2", "Fe4O6")
    assert same[1:] == pytest.approx(np.tile(same[0], (2, 1)), rel=1e-5, abs=1e-5)
    pure, traced, doped = embedded("Fe2O3", "Fe2O3Cr0.0001", "Fe2O3Cr0.5")
    assert traced == pytest.approx(pure, abs=2e-3)
    assert np.abs(doped - pure).max() > 0.05
    alone = np.vstack([embedded(formula) for formula in FORMULAS])
    assert embedded(*FORMULAS) == pytest.approx(alone, rel=1e-5, abs=1e-5)
    assert network.forward(parse_compositions([]))["final"].shape == (0, FINAL)


def card(sha256: str, **changes: object) -> SourceCard:
    made = SourceCard(
        name="mine",
        zoo="own",
        modality="composition",
        property="three things",
        unit="1",
        dataset="none",
        architecture="attention",
        layers={"readout": READOUT + FINAL, "final": FINAL},
        loader="scotl_matgl.encoders.attention:load",
        licence="MIT",
        citation="me",
        weights={"mine.safetensors": sha256},
        options={"prefix": "mine", "n_layers": LAYERS, "n_heads": HEADS},
        elements=["Na", "Cl", "Fe", "O"],
    )
    return replace(made, **changes)


@pytest.mark.parametrize("dtype", ["float32", "int8"])
def test_a_stored_network_embeds_what_it_knows(dtype: str, tmp_path: Path) -> None:
    sha256 = write_weights(tmp_path / "mine.safetensors", {f"mine.{k}": v for k, v in tensors().items()}, dtype=dtype)
    options = {"prefix": "mine", "n_layers": LAYERS, "n_heads": HEADS} | (
        {"eight_bits": True} if dtype == "int8" else {}
    )
    encoder = load(card(sha256, options=options), path=tmp_path)
    found = encoder.encode(["NaCl", "KCl", "Fe2O3"], layer="final")
    assert np.isnan(found[1]).all()
    expected = ElementAttention(tensors(), LAYERS, HEADS).forward(parse_compositions(["NaCl", "Fe2O3"]))["final"]
    # In eight bits a weight is off by at most 1/254 of the largest of its row.
    assert found[[0, 2]] == pytest.approx(
        expected, rel=1e-6 if dtype == "float32" else 0.1, abs=0.1 * (dtype == "int8")
    )
    with pytest.raises(InputError, match=r"mine has no layer 'finale'; did you mean 'final'\? it has readout, final"):
        encoder.encode(["NaCl"], layer="finale")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"weights": {"mine.safetensors": "0" * 64}}, "is not the file of the card"),
        ({"options": {"prefix": "other", "n_layers": LAYERS, "n_heads": HEADS}}, "does not hold the network"),
        ({"options": {"prefix": "mine", "n_layers": LAYERS + 1, "n_heads": HEADS}}, "does not hold the network"),
        ({"options": {"prefix": "mine", "n_layers": LAYERS - 1, "n_heads": HEADS}}, "leave over"),
        ({"options": {"prefix": "mine", "n_layers": 10**9, "n_heads": HEADS}}, "make no network"),
        ({"options": {"prefix": "mine", "n_layers": LAYERS, "n_heads": 0}}, "make no network"),
        ({"options": {"prefix": "mine", "n_layers": LAYERS, "n_heads": 3}}, "the tensor gate"),
        ({"options": {"prefix": "mine", "n_layers": LAYERS, "n_heads": HEADS, "eight_bits": True}}, "eight_bits"),
        ({"layers": {"readout": READOUT, "final": FINAL}}, "its card says"),
        ({"layers": {"readout": READOUT + FINAL, "hidden": WIDTH}}, "its card says"),
    ],
)
def test_a_card_that_does_not_fit_its_file_is_told(changes: dict[str, object], message: str, tmp_path: Path) -> None:
    sha256 = write_weights(
        tmp_path / "mine.safetensors", {f"mine.{k}": v for k, v in tensors().items()}, dtype="float32"
    )
    with pytest.raises(InputError, match=message):
        load(card(sha256, **changes), path=tmp_path)


def test_eight_bits_are_not_read_as_weights(tmp_path: Path) -> None:
    sha256 = write_weights(tmp_path / "mine.safetensors", {f"mine.{k}": v for k, v in tensors().items()}, dtype="int8")
    for eight_bits in ({}, {"eight_bits": False}):
        options = {"prefix": "mine", "n_layers": LAYERS, "n_heads": HEADS} | eight_bits
        with pytest.raises(InputError, match="eight_bits"):
            load(card(sha256, options=options), path=tmp_path)


def test_what_was_embedded_last_is_neither_pickled_nor_changed(tmp_path: Path) -> None:
    sha256 = write_weights(
        tmp_path / "mine.safetensors", {f"mine.{k}": v for k, v in tensors().items()}, dtype="float32"
    )
    encoder, compositions = load(card(sha256), path=tmp_path), parse_compositions(["NaCl", "Fe2O3"] * 200)
    before = len(pickle.dumps(encoder))
    first = encoder.encode(compositions)
    expected = first[:, READOUT:].copy()
    first[:] = 0
    assert np.array_equal(encoder.encode(compositions, layer="final"), expected)
    assert np.array_equal(encoder.encode(compositions)[:, READOUT:], expected)
    assert len(pickle.dumps(encoder)) == before


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_weights_that_are_not_finite_are_told(bad: float, tmp_path: Path) -> None:
    stored = {f"mine.{name}": tensor.copy() for name, tensor in tensors().items()}
    stored["mine.norm.bias"][0] = bad
    write_tensors(tmp_path / "mine.safetensors", stored, NETWORKS_FILE, {})
    with pytest.raises(InputError, match="finite"):
        load(card(file_sha256(tmp_path / "mine.safetensors")), path=tmp_path)
