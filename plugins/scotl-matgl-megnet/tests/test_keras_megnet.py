"""Keras MEGNet sources against published values, a plain numpy forward pass, and the laws of embeddings."""

from __future__ import annotations

import dataclasses
import gzip
import json
import os
import pickle
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Callable
from importlib.metadata import EntryPoint
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import scotl_matgl_megnet
from scotl_matgl import testing
from scotl_matgl.encoders import probes
from scotl_matgl.plugin import (
    SYMBOLS,
    Crystal,
    IncompatibleWeightsError,
    SourceCard,
    SourceEncoder,
    as_crystal,
    build_graph,
    reference_crystals,
)
from scotl_matgl_megnet.encoder import FOLDER_VARIABLE, KerasMEGNetEncoder, load
from scotl_matgl_megnet.errors import CheckpointError

CARDS = {card.name: card for card in scotl_matgl_megnet.cards()}

# data/reference/README.md: CsCl, NaCl, MgO, Si.
PUBLISHED = {
    "MEGNet-Keras-MP-2018.6.1-Eform": (-2.220, -2.094, -3.057, 0.013),
    "MEGNet-Keras-MP-2018.6.1-BandGap": (5.138, 4.880, 4.488, 0.753),
    "MEGNet-Keras-MP-2018.6.1-NonMetal": (0.900, 0.993, 0.859, 0.531),
    "MEGNet-Keras-MP-2018.6.1-log10K": (1.154, 1.374, 2.177, 1.918),
    "MEGNet-Keras-MP-2018.6.1-log10G": (0.833, 1.194, 2.113, 1.747),
    "MEGNet-Keras-MP-2019.4.1-Eform": (-2.179, -2.103, -3.065, -0.015),
    "MEGNet-Keras-MP-2019.4.1-EFermi": (-0.366, -0.903, 3.893, 5.919),
    "MEGNet-Keras-MP-2019.4.1-log10K": (1.126, 1.378, 2.189, 1.910),
    "MEGNet-Keras-MP-2019.4.1-log10G": (0.873, 1.162, 1.986, 1.770),
}
FIDELITIES = {
    f"MEGNet-Keras-MF-2020-BandGap-{name}": state for state, name in enumerate(["PBE", "GLLB-SC", "HSE", "Exp"])
}

# One of each kind: no scaler and 3 Set2Set steps, sigmoid, 1 step, scaler and 5 Å, states.
ONE_EACH = [
    "MEGNet-Keras-MP-2018.6.1-Eform",
    "MEGNet-Keras-MP-2018.6.1-NonMetal",
    "MEGNet-Keras-MP-2018.6.1-log10K",
    "MEGNet-Keras-MP-2019.4.1-EFermi",
    "MEGNet-Keras-MF-2020-BandGap-Exp",
]


@pytest.fixture(scope="session")
def assets() -> Path:
    return testing.assets_with("models/megnet")


@pytest.fixture(scope="session")
def folder(assets: Path) -> Path:
    return assets / "models" / "megnet"


@pytest.fixture(scope="session")
def encoder_of(folder: Path) -> Callable[[str], KerasMEGNetEncoder]:
    import torch

    torch.set_num_threads(1)
    loaded: dict[str, KerasMEGNetEncoder] = {}

    def get(name: str) -> KerasMEGNetEncoder:
        if name not in loaded:
            loaded[name] = load(CARDS[name], folder)
        return loaded[name]

    return get


@pytest.fixture(scope="session")
def records(assets: Path) -> list[dict[str, Any]]:
    with gzip.open(assets / "structures" / "crystals.json.gz", "rt") as file:
        return [record for record in json.load(file) if record["natoms"] <= 30]


def crystal_of(record: dict[str, Any]) -> Crystal:
    from pymatgen.core import Structure

    return as_crystal(Structure.from_str(record["structure"], fmt="poscar"))


@pytest.fixture(scope="session")
def crystals(records: list[dict[str, Any]]) -> list[Crystal]:
    """Twelve crystals of the corpus, and one atom per cell."""
    rows = np.random.default_rng(3).choice(len(records), 12, replace=False)
    copper = 3.61 / 2 * np.array([[0.0, 1, 1], [1, 0, 1], [1, 1, 0]])
    return [*(crystal_of(records[row]) for row in rows), Crystal(copper, np.zeros((1, 3)), np.array([29], np.int16))]


def largest_deviation(found: np.ndarray, expected: np.ndarray) -> float:
    """Relative to the largest value, NaN if a row is missing."""
    return float(np.abs(found - expected).max() / np.abs(expected).max())


# --- published numbers ------------------------------------------------------------------------------------------------


def test_every_published_model_and_fidelity_has_a_card(folder: Path) -> None:
    assert set(CARDS) == {*PUBLISHED, *FIDELITIES}
    files = {path.relative_to(folder).as_posix() for path in folder.rglob("*.hdf5")}
    assert {card.options["file"] for card in CARDS.values()} == files
    assert {name: card.options["state"] for name, card in CARDS.items() if "state" in card.options} == FIDELITIES
    settings = folder / CARDS["MEGNet-Keras-MF-2020-BandGap-PBE"].options["file"]
    named = json.loads(settings.with_name(settings.name + ".json").read_text())["metadata"]["fidelities"]
    assert named == ["PBE", "GLLB-SC", "HSE", "Experiment"]


@pytest.mark.parametrize("name", PUBLISHED)
def test_published_values_are_reproduced(name: str, encoder_of: Any) -> None:
    assert list(probes.probe(encoder_of(name)).values()) == pytest.approx(PUBLISHED[name], abs=2e-3)


def test_published_band_gap_of_sapphire_is_reproduced(encoder_of: Any, records: list[dict[str, Any]]) -> None:
    """mvl_models/mf_2020/README.md of materialsvirtuallab/megnet: mp-1143, experiment, model 0."""
    (sapphire,) = (crystal_of(record) for record in records if record["id"] == "mp-1143")
    found = encoder_of("MEGNet-Keras-MF-2020-BandGap-Exp").encode([sapphire], layer="final")
    assert found.item() == pytest.approx(7.7208586, abs=1e-4)


def test_each_fidelity_predicts_its_own_band_gaps_best(encoder_of: Any, records: list[dict[str, Any]]) -> None:
    keys = {"PBE": "pbe_gap_eV", "GLLB-SC": "gllbsc_gap_eV", "HSE": "hse_gap_eV"}
    published = {"PBE": 0.28, "GLLB-SC": 0.48, "HSE": 0.31}
    complete = [record for record in records if all(key in record["properties"] for key in keys.values())]
    chosen = [complete[row] for row in np.random.default_rng(0).choice(len(complete), 120, replace=False)]
    structures = [crystal_of(record) for record in chosen]
    predicted = {
        name: encoder_of(f"MEGNet-Keras-MF-2020-BandGap-{name}").encode(structures, layer="final")[:, 0]
        for name in keys
    }
    for name, key in keys.items():
        measured = np.array([record["properties"][key] for record in chosen])
        errors = {other: np.abs(values - measured).mean() for other, values in predicted.items()}
        assert min(errors, key=lambda other: errors[other]) == name
        # Most of these crystals were trained on, so the published test error is an upper bound.
        assert errors[name] < published[name]


@pytest.mark.parametrize(
    ("name", "key", "function"),
    [
        ("MEGNet-Keras-MP-2018.6.1-Eform", "formation_energy_eV_atom", np.asarray),
        ("MEGNet-Keras-MP-2019.4.1-Eform", "formation_energy_eV_atom", np.asarray),
        ("MEGNet-Keras-MP-2018.6.1-log10K", "bulk_modulus_vrh_GPa", np.log10),
        ("MEGNet-Keras-MP-2019.4.1-log10G", "shear_modulus_vrh_GPa", np.log10),
    ],
)
def test_predictions_are_as_good_as_published(
    name: str, key: str, function: Any, encoder_of: Any, records: list[dict[str, Any]]
) -> None:
    known = [item for item in records if item["source"] == "mp_crysxpp" and key in item["properties"]]
    if function is np.log10:
        known = [item for item in known if item["properties"][key] > 1.0]
    chosen = [known[row] for row in np.random.default_rng(1).choice(len(known), 150, replace=False)]
    found = encoder_of(name).encode([crystal_of(item) for item in chosen], layer="final")[:, 0]
    expected = function(np.array([item["properties"][key] for item in chosen]))
    assert np.isnan(found).mean() < 0.05
    assert np.nanmean(np.abs(found - expected)) < CARDS[name].error


@pytest.mark.parametrize("name", CARDS)
def test_card_says_what_the_files_hold(name: str, folder: Path, encoder_of: Any) -> None:
    import h5py

    card, encoder = CARDS[name], encoder_of(name)
    assert probes.probe(encoder) == pytest.approx(dict(card.probes), abs=1e-4)
    assert set(card.weights) == {card.options["file"], f"{card.options['file']}.json"}
    assert card.licence.startswith("BSD-3-Clause")
    assert "doi:10.1021/acs.chemmater.9b01294" in card.citation
    with h5py.File(folder / card.options["file"]) as file:
        sizes: list[int] = []
        file["model_weights"].visititems(lambda _, item: sizes.append(item.size) if hasattr(item, "size") else None)
        table = file["model_weights/embedding_1/embedding_1/embeddings:0"][()]
    assert card.parameters == sum(sizes)
    # Keras draws embeddings from ±0.05, and those of elements that it never meets stay there.
    assert card.elements == tuple(SYMBOLS[z - 1] for z in range(1, len(table)) if np.abs(table[z]).max() > 0.05)
    assert isinstance(encoder, SourceEncoder)
    assert encoder.layers[0] == "readout"
    assert card.layers["readout"] == 32 + 32 + 32


# --- layers against a plain forward pass ------------------------------------------------------------------------------


class Plain:
    """The layers of one model in double precision, as Keras has them."""

    def __init__(self, file: Path) -> None:
        import h5py

        self.weights: dict[str, np.ndarray] = {}

        def keep(path: str, item: Any) -> None:
            if isinstance(item, h5py.Dataset):
                self.weights[f"{path.split('/')[0]}/{path.split('/')[-1][:-2]}"] = item[()].astype(np.float64)

        with h5py.File(file) as opened:
            layers = json.loads(opened.attrs["model_config"])["config"]["layers"]
            opened["model_weights"].visititems(keep)
        self.steps = next(layer["config"]["T"] for layer in layers if layer["class_name"] == "Set2Set")

    @staticmethod
    def activate(x: np.ndarray) -> np.ndarray:
        return np.logaddexp(0, x) - np.log(2)

    def linear(self, x: np.ndarray, kernel: str, bias: str) -> np.ndarray:
        return x @ self.weights[kernel] + self.weights[bias]

    def dense(self, x: np.ndarray, number: int) -> np.ndarray:
        return self.activate(self.linear(x, f"dense_{number}/kernel", f"dense_{number}/bias"))

    def network(self, x: np.ndarray, block: int, letter: str) -> np.ndarray:
        layer = f"meg_net_layer_{block}"
        for index in range(3):
            x = self.activate(x) if index else x
            x = self.linear(x, f"{layer}/weight_{letter}_{index}", f"{layer}/bias_{letter}_{index}")
        return x

    def set2set(self, x: np.ndarray, number: int) -> np.ndarray:
        layer = f"set2_set_{number}"
        memory = self.linear(x, f"{layer}/x_to_m_weight", f"{layer}/x_to_m_bias")
        star = np.zeros(32)
        for _ in range(self.steps):
            z = self.linear(star, f"{layer}/recurrent_kernel", f"{layer}/recurrent_bias")
            i, _, c, o = np.split(z, 4)
            gate_in, gate_out = np.clip(0.2 * i + 0.5, 0, 1), np.clip(0.2 * o + 0.5, 0, 1)
            query = gate_out * np.tanh(gate_in * np.tanh(c))
            attention = np.exp(memory @ query - (memory @ query).max())
            star = np.concatenate([query, attention @ memory / attention.sum()])
        return star


def plain_forward(card: SourceCard, folder: Path, crystal: Crystal) -> dict[str, np.ndarray]:
    """All layers of one crystal in double precision: every atom and bond, one after the other as in Keras."""
    plain = Plain(folder / card.options["file"])
    settings = json.loads((folder / f"{card.options['file']}.json").read_text())
    converter = settings["graph_converter"]
    graph = build_graph(crystal, converter["cutoff"])
    centres, width = np.array(converter["bond_converter"]["centers"]["data"]), converter["bond_converter"]["width"]
    node = plain.weights["embedding_1/embeddings"][crystal.numbers]
    edge = np.exp(-((graph.distance[:, None] - centres) ** 2) / width**2)
    state = np.zeros((1, 2))
    if "embedding_2/embeddings" in plain.weights:
        state = plain.weights["embedding_2/embeddings"][[card.options["state"]]]
    values: dict[str, np.ndarray] = {}
    for block in (1, 2, 3):
        first = 6 * block - 5
        v, e, u = (
            plain.dense(plain.dense(x, first + 2 * k), first + 2 * k + 1) for k, x in enumerate((node, edge, state))
        )
        if block == 1:
            node, edge, state = v, e, u
        spread = np.repeat(u, len(e), 0)
        new_e = plain.network(np.hstack([v[graph.source], v[graph.destination], e, spread]), block, "e")
        received = np.array([new_e[graph.source == atom].mean(0) for atom in range(len(v))])
        new_v = plain.network(np.hstack([received, v, np.repeat(u, len(v), 0)]), block, "v")
        new_u = plain.network(np.hstack([new_e.mean(0), new_v.mean(0), u[0]])[None], block, "u")
        node, edge, state = node + new_v, edge + new_e, state + new_u
        for part, value in (("node", node), ("edge", edge), ("state", state)):
            values[f"block_{block}_{part}"] = value.mean(0)
    values["readout"] = np.concatenate([plain.set2set(node, 1), plain.set2set(edge, 2), state[0]])
    values["penultimate"] = plain.dense(plain.dense(values["readout"], 19), 20)
    output = plain.linear(values["penultimate"], "dense_21/kernel", "dense_21/bias")
    if "NonMetal" in card.name:
        output = 1 / (1 + np.exp(-output))
    scaler = settings.get("target_scaler", {})
    values["final"] = output * scaler.get("std", 1.0) + scaler.get("mean", 0.0)
    return values


@pytest.mark.parametrize("name", ONE_EACH)
def test_layers_are_those_of_a_plain_forward_pass(
    name: str, folder: Path, encoder_of: Any, crystals: list[Crystal]
) -> None:
    encoder = encoder_of(name)
    found = encoder.encode_layers(crystals, layers=encoder.layers)
    assert not found.refused
    expected = [plain_forward(CARDS[name], folder, crystal) for crystal in crystals]
    for layer in encoder.layers:
        rows = np.array([values[layer] for values in expected])
        assert found.embeddings[layer].dtype == np.float32
        assert largest_deviation(found.embeddings[layer], rows) < 1e-5, layer


# --- laws of embeddings -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ONE_EACH)
def test_embeddings_do_not_depend_on_the_batch(name: str, encoder_of: Any, crystals: list[Crystal]) -> None:
    encoder = encoder_of(name)
    together = encoder.encode_layers(crystals, layers=encoder.layers)
    alone = encoder.encode_layers(crystals[::-1], layers=encoder.layers, batch_edges=1)
    for layer in encoder.layers:
        assert largest_deviation(together.embeddings[layer], alone.embeddings[layer][::-1]) < 1e-5, layer
    again = encoder.encode_layers(crystals, layers=encoder.layers)
    for layer in encoder.layers:
        np.testing.assert_array_equal(again.embeddings[layer], together.embeddings[layer])


@pytest.mark.parametrize("name", ["MEGNet-Keras-MP-2018.6.1-Eform", "MEGNet-Keras-MF-2020-BandGap-HSE"])
def test_embeddings_do_not_depend_on_how_a_crystal_is_described(
    name: str, encoder_of: Any, crystals: list[Crystal]
) -> None:
    from scipy.spatial.transform import Rotation

    rng = np.random.default_rng(11)
    permuted, rotated, doubled = [], [], []
    for crystal in crystals:
        order = rng.permutation(len(crystal))
        permuted.append(Crystal(crystal.lattice, crystal.frac_coords[order], crystal.numbers[order]))
        turn = Rotation.random(rng=rng).as_matrix()
        shift = rng.random(3)
        rotated.append(Crystal(crystal.lattice @ turn.T, (crystal.frac_coords + shift) % 1.0, crystal.numbers))
        halves = crystal.frac_coords / [1, 1, 2]
        doubled.append(
            Crystal(
                crystal.lattice * [[1], [1], [2]],
                np.vstack([halves, halves + np.array([0, 0, 0.5])]),
                np.tile(crystal.numbers, 2),
            )
        )
    encoder = encoder_of(name)
    original = encoder.encode_layers(crystals, layers=encoder.layers)
    for variant in (permuted, rotated, doubled):
        found = encoder.encode_layers(variant, layers=encoder.layers)
        for layer in encoder.layers:
            assert largest_deviation(found.embeddings[layer], original.embeddings[layer]) < 1e-5, layer


def test_fidelities_differ(encoder_of: Any, crystals: list[Crystal]) -> None:
    readouts = np.array([encoder_of(name).encode(crystals) for name in FIDELITIES])
    for first in range(4):
        for second in range(first):
            assert np.abs(readouts[first] - readouts[second]).max(axis=1).min() > 0.1


def test_refused_crystals_cost_their_own_rows_only(encoder_of: Any, crystals: list[Crystal]) -> None:
    encoder = encoder_of("MEGNet-Keras-MP-2018.6.1-Eform")
    single = np.zeros((1, 3))
    bad = {
        1: (Crystal(3.4 * np.eye(3), single, np.array([84], np.int16)), "the model does not know Po"),
        2: (Crystal(9.0 * np.eye(3), single, np.array([29], np.int16)), "no neighbour within 4 Å"),
        4: (Crystal(4.0 * np.eye(3), [[0, 0, 0], [0.02, 0, 0]], np.array([11, 17], np.int16)), "atoms overlap"),
        5: ("NaCl", "a str is no crystal"),
        # Never trained in this model, but in the others.
        6: (Crystal(3.0 * np.eye(3), single, np.array([10], np.int16)), "the model does not know Ne"),
    }
    good = [row for row in range(8) if row not in bad]
    mixed = [bad[row][0] if row in bad else crystals[good.index(row)] for row in range(8)]
    done: list[tuple[int, int]] = []
    encoded = encoder.encode_layers(
        mixed, layers=("readout", "final"), progress=lambda count, total: done.append((count, total))
    )
    assert list(encoded.refused) == list(bad)
    for row, (_, reason) in bad.items():
        assert reason in encoded.refused[row]
        assert np.isnan(encoded.embeddings["readout"][row]).all()
    assert done[-1] == (8, 8)
    assert largest_deviation(encoded.embeddings["readout"][good], encoder.encode(crystals[: len(good)])) < 1e-5
    neon = encoder_of("MEGNet-Keras-MP-2019.4.1-Eform").encode([bad[6][0]])
    assert np.isfinite(neon).all()


@pytest.mark.parametrize("name", CARDS)
def test_encoders_conform(name: str, encoder_of: Any) -> None:
    testing.check_encoder(encoder_of(name))


def test_the_zoo_conforms() -> None:
    testing.check_zoo(list(CARDS.values()))


def test_no_crystals_give_no_rows(encoder_of: Any) -> None:
    assert encoder_of("MEGNet-Keras-MP-2018.6.1-Eform").encode([]).shape == (0, 96)


def test_pickled_encoders_give_the_same(encoder_of: Any, crystals: list[Crystal]) -> None:
    encoder = encoder_of("MEGNet-Keras-MF-2020-BandGap-GLLB-SC")
    copy = pickle.loads(pickle.dumps(encoder))  # noqa: S301 - what this test has just written
    np.testing.assert_array_equal(copy.encode(crystals), encoder.encode(crystals))


def test_an_unknown_layer_is_named(encoder_of: Any) -> None:
    with pytest.raises(ValueError, match="no layer 'readuot'; did you mean 'readout'"):
        encoder_of("MEGNet-Keras-MP-2018.6.1-Eform").encode([], layer="readuot")


# --- files ------------------------------------------------------------------------------------------------------------


@pytest.fixture
def copied(folder: Path, tmp_path: Path) -> tuple[SourceCard, Path]:
    """A card and a writable copy of its files."""
    card = CARDS["MEGNet-Keras-MP-2019.4.1-EFermi"]
    for name in card.weights:
        target = tmp_path / name
        target.parent.mkdir(exist_ok=True)
        shutil.copyfile(folder / name, target)
    return card, tmp_path


@pytest.mark.parametrize("suffix", ["", ".json"])
def test_changed_files_are_refused(suffix: str, copied: tuple[SourceCard, Path]) -> None:
    card, folder = copied
    path = folder / f"{card.options['file']}{suffix}"
    content = bytearray(path.read_bytes())
    content[-2] ^= 1
    path.write_bytes(content)
    with pytest.raises(IncompatibleWeightsError, match=r"is not the file of the card .* sha256"):
        load(card, folder)


def test_a_model_that_misses_its_probes_is_refused(copied: tuple[SourceCard, Path]) -> None:
    card, folder = copied
    path = folder / f"{card.options['file']}.json"
    settings = json.loads(path.read_text())
    settings["target_scaler"]["mean"] += 0.01
    path.write_text(json.dumps(settings))
    encoder = load(dataclasses.replace(card, weights={}), folder)
    for _ in range(2):
        with pytest.raises(IncompatibleWeightsError, match=r"CsCl -0\.3556 instead of -0\.3656"):
            encoder.encode(list(reference_crystals().values()))
    unchecked = load(card, folder, check=False)
    found = unchecked.encode(list(reference_crystals().values()), layer="final")[:, 0]
    np.testing.assert_allclose(found - 0.01, list(card.probes.values()), atol=1e-4)


def rewrite_layers(path: Path, change: Callable[[list[dict[str, Any]]], Any]) -> None:
    import h5py

    with h5py.File(path, "r+") as file:
        model = json.loads(file.attrs["model_config"])
        change(model["config"]["layers"])
        file.attrs["model_config"] = json.dumps(model)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            lambda layers: layers.append({"class_name": "Lambda", "config": {}}),
            "a layer Lambda, which is not understood",
        ),
        (lambda layers: layers[-1]["config"].update(activation="relu"), "softplus2, at last linear or sigmoid"),
        (
            lambda layers: next(
                layer["config"].update(pool_method="sum") for layer in layers if layer["class_name"] == "MEGNetLayer"
            ),
            "has pool_method 'sum'; only 'mean' is understood",
        ),
        (lambda layers: layers.pop(1), "do not hold the layers of a MEGNet model"),
    ],
)
def test_other_networks_are_refused(change: Any, message: str, copied: tuple[SourceCard, Path]) -> None:
    card, folder = copied
    rewrite_layers(folder / card.options["file"], change)
    with pytest.raises(CheckpointError, match=message):
        load(card, folder, check=False)


def test_other_files_are_refused(copied: tuple[SourceCard, Path]) -> None:
    card, folder = copied
    (folder / card.options["file"]).write_bytes(pickle.dumps({"weights": 1}))
    with pytest.raises(CheckpointError, match="not those of a Keras MEGNet model"):
        load(card, folder, check=False)


def test_cards_that_do_not_fit_are_refused(copied: tuple[SourceCard, Path]) -> None:
    card, folder = copied
    wrong = [
        ({"layers": {**card.layers, "readout": 160}}, "lists the layers"),
        ({"options": {**card.options, "cutoff": 4.0}}, "cut-off is 4.0 Å; the model has 5.0 Å"),
        ({"options": {**card.options, "state": 3}}, "asks for state 3; the model has 0"),
    ]
    for change, message in wrong:
        with pytest.raises(CheckpointError, match=message):
            load(dataclasses.replace(card, **change), folder)


def test_weights_are_looked_for_where_the_readme_says(folder: Path, monkeypatch: Any, tmp_path: Path) -> None:
    card = CARDS["MEGNet-Keras-MP-2018.6.1-log10G"]
    monkeypatch.delenv("SCOTL_MATGL_ASSETS", raising=False)
    monkeypatch.setenv(FOLDER_VARIABLE, str(folder))
    assert isinstance(card.load(), KerasMEGNetEncoder)
    monkeypatch.delenv(FOLDER_VARIABLE)
    with pytest.raises(FileNotFoundError, match=f"no folder.*{FOLDER_VARIABLE}"):
        card.load()
    with pytest.raises(FileNotFoundError, match=f"looked for in {tmp_path}"):
        card.load(path=tmp_path)


# --- the plugin -------------------------------------------------------------------------------------------------------


def test_the_entry_point_lists_the_cards() -> None:
    settings = tomllib.loads((Path(__file__).parents[1] / "pyproject.toml").read_text())
    ((name, value),) = settings["project"]["entry-points"]["scotl_matgl.zoos"].items()
    listed = EntryPoint(name, value, "scotl_matgl.zoos").load()()
    assert {card.zoo for card in listed} == {name}
    assert [card.to_dict() for card in listed] == [card.to_dict() for card in CARDS.values()]


def test_listing_cards_imports_neither_torch_nor_h5py() -> None:
    code = (
        "import sys, scotl_matgl_megnet, scotl_matgl_megnet.encoder\n"
        "assert len(scotl_matgl_megnet.cards()) == 13\n"
        "print(sorted({'torch', 'h5py', 'dgl', 'matgl', 'tensorflow', 'pymatgen'} & set(sys.modules)))"
    )
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    result = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True)  # noqa: S603
    assert result.stdout.strip() == "[]"
