"""CGCNN sources against published values, a plain numpy forward pass, calculated properties, and laws of embeddings."""

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

import scotl_matgl_cgcnn
from scotl_matgl import testing
from scotl_matgl.encoders import probes
from scotl_matgl.plugin import Crystal, IncompatibleWeightsError, SourceCard, as_crystal, batch_graphs, build_graph
from scotl_matgl_cgcnn.encoder import ELEMENTS_FILE, FOLDER_VARIABLE, CGCNNEncoder, load
from scotl_matgl_cgcnn.errors import CheckpointError
from scotl_matgl_cgcnn.neighbours import nearest

CARDS = {card.name: card for card in scotl_matgl_cgcnn.cards()}

# data/reference/README.md: CsCl, NaCl, MgO, Si.
PUBLISHED = {
    "CGCNN-MP-2017-Eform": (-2.258, -2.118, -3.051, 0.086),
    "CGCNN-MP-2017-BandGap": (4.958, 4.792, 4.061, 0.938),
    "CGCNN-MP-2017-log10K": (1.216, 1.398, 2.127, 1.897),
    "CGCNN-MP-2017-log10G": (0.761, 1.018, 2.087, 1.714),
    "CGCNN-MP-2017-EFermi": (-0.489, -0.675, 4.167, 4.658),
}
FERMI = "CGCNN-MP-2017-EFermi"
METAL = "CGCNN-MP-2017-Metal"

PEROVSKITE = np.array([[0, 0, 0], [0.5, 0.5, 0.5], [0.5, 0.5, 0], [0.5, 0, 0.5], [0, 0.5, 0.5]])


def cubic(edge: float, sites: Any, numbers: Any) -> Crystal:
    return Crystal(edge * np.eye(3), np.asarray(sites, dtype=float), np.array(numbers, np.int16))


STRONTIUM_TITANATE = cubic(3.905, PEROVSKITE, [38, 22, 8, 8, 8])
# Two kinds of Mn, at corners and faces, compete for the last places around Mn at a face.
MANGANESE_NITRIDE = cubic(3.865, PEROVSKITE[[0, 2, 3, 4, 1]], [25, 25, 25, 25, 7])
# CO2 molecules so far apart that each atom has two neighbours; carbon is where the published code looks for padding.
SPARSE = cubic(12.0, [[0, 0, 0], [0.1, 0, 0], [0.9, 0, 0]], [6, 8, 8])


@pytest.fixture(scope="session")
def assets() -> Path:
    return testing.assets_with("models/cgcnn")


@pytest.fixture(scope="session")
def folder(assets: Path) -> Path:
    return assets / "models" / "cgcnn"


@pytest.fixture(scope="session")
def encoder_of(folder: Path) -> Callable[[str], CGCNNEncoder]:
    import torch

    torch.set_num_threads(1)
    loaded: dict[str, CGCNNEncoder] = {}

    def get(name: str) -> CGCNNEncoder:
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
    """Twelve crystals of the corpus, one atom per cell, and those whose neighbours are ambiguous."""
    rows = np.random.default_rng(3).choice(len(records), 12, replace=False)
    copper = Crystal(1.805 * (np.ones((3, 3)) - np.eye(3)), np.zeros((1, 3)), np.array([29], np.int16))
    return [*(crystal_of(records[row]) for row in rows), copper, STRONTIUM_TITANATE, MANGANESE_NITRIDE, SPARSE]


def largest_deviation(found: np.ndarray, expected: np.ndarray) -> float:
    """Relative to the largest value, NaN if a row is missing."""
    return float(np.abs(found - expected).max() / np.abs(expected).max())


def permuted(crystal: Crystal, order: Any) -> Crystal:
    order = np.asarray(order)
    return Crystal(crystal.lattice, crystal.frac_coords[order], crystal.numbers[order])


# --- published numbers ------------------------------------------------------------------------------------------------


def test_every_published_model_has_a_card(folder: Path) -> None:
    assert {card.options["file"] for card in CARDS.values()} == {path.name for path in folder.glob("*.pth.tar")}
    assert len(CARDS) == 8


@pytest.mark.parametrize("name", PUBLISHED)
def test_published_values_are_reproduced(name: str, encoder_of: Any) -> None:
    assert list(probes.probe(encoder_of(name)).values()) == pytest.approx(PUBLISHED[name], abs=2e-3)


@pytest.mark.parametrize("name", CARDS)
def test_card_says_what_the_checkpoint_holds(name: str, folder: Path, encoder_of: Any) -> None:
    from scotl_matgl_cgcnn.weights import _load

    card, encoder = CARDS[name], encoder_of(name)
    content = _load((folder / card.options["file"]).read_bytes())
    assert probes.probe(encoder) == pytest.approx(dict(card.probes), abs=1e-5)
    assert set(card.weights) == {card.options["file"], ELEMENTS_FILE}
    assert card.n_train == content["args"]["train_size"]
    assert content["args"]["data_options"][0].endswith(f"{card.dataset.split('(')[1][:-1]}")
    assert card.parameters == sum(value.numel() for key, value in content["state_dict"].items() if "running" not in key)
    if name == METAL:
        assert f"{content['best_mae_error']:.3f}" in card.notes
        assert card.error is None
    else:
        assert card.error == pytest.approx(content["best_mae_error"], abs=5e-5)
    assert card.licence.startswith("MIT")
    assert "doi:10.1103/PhysRevLett.120.145301" in card.citation


def test_the_zoo_conforms() -> None:
    testing.check_zoo(list(CARDS.values()))


@pytest.mark.parametrize("name", CARDS)
def test_encoders_conform(name: str, encoder_of: Any) -> None:
    testing.check_encoder(encoder_of(name))


# --- calculated properties --------------------------------------------------------------------------------------------


def sample(records: list[dict[str, Any]], *keys: str) -> tuple[list[Crystal], list[np.ndarray]]:
    """150 crystals of the Materials Project of about 2018 that have these properties, and their values."""
    known = [item for item in records if item["source"] == "mp_crysxpp" and all(k in item["properties"] for k in keys)]
    chosen = [known[row] for row in np.random.default_rng(1).choice(len(known), 150, replace=False)]
    return [crystal_of(item) for item in chosen], [np.array([x["properties"][key] for x in chosen]) for key in keys]


def test_formation_energies_are_as_good_as_published(encoder_of: Any, records: list[dict[str, Any]]) -> None:
    structures, (energy,) = sample(records, "formation_energy_eV_atom")
    name = "CGCNN-MP-2017-Eform"
    found = encoder_of(name).encode(structures, layer="final")[:, 0]
    assert np.isfinite(found).all()
    # Most of these crystals were trained on, but some have changed since 2017, so the median is what is comparable.
    assert np.median(np.abs(found - energy)) < CARDS[name].error


def test_models_of_elasticity_rank_their_own_property_best(encoder_of: Any, records: list[dict[str, Any]]) -> None:
    from scipy.stats import spearmanr

    structures, (bulk, shear) = sample(records, "bulk_modulus_vrh_GPa", "shear_modulus_vrh_GPa")
    # Isotropic elasticity: the Poisson ratio follows from the two moduli.
    expected = {
        "log10K": bulk,
        "log10G": shear,
        "Poisson": (3 * bulk - 2 * shear) / (2 * (3 * bulk + shear)),
    }
    for key, least in {"log10K": 0.9, "log10G": 0.85, "Poisson": 0.5}.items():
        found = encoder_of(f"CGCNN-MP-2017-{key}").encode(structures, layer="final")[:, 0]
        correlations = {other: spearmanr(found, values).statistic for other, values in expected.items()}
        assert max(correlations, key=lambda other: correlations[other]) == key, correlations
        assert correlations[key] > least
        if key != "Poisson":  # mixed-up or natural logarithms would move the median
            assert np.median(found) == pytest.approx(np.median(np.log10(expected[key])), abs=0.05)


def test_metals_are_told_from_semiconductors(encoder_of: Any, records: list[dict[str, Any]]) -> None:
    from sklearn.metrics import roc_auc_score

    structures, (gap,) = sample(records, "pbe_gap_eV")
    probability = encoder_of(METAL).encode(structures, layer="final")[:, 0]
    assert probability.min() >= 0
    assert probability.max() <= 1
    assert roc_auc_score(gap == 0, probability) > 0.9
    # The model of band gaps was trained on semiconductors only.
    found = encoder_of("CGCNN-MP-2017-BandGap").encode(structures, layer="final")[:, 0]
    opened = gap > 0.1
    assert np.median(np.abs(found - gap)[opened]) < CARDS["CGCNN-MP-2017-BandGap"].error


def test_total_energies_of_the_elements(encoder_of: Any, records: list[dict[str, Any]]) -> None:
    known = [item for item in records if "energy_per_atom_eV" in item["properties"]]
    chosen = [known[row] for row in np.random.default_rng(1).choice(len(known), 80, replace=False)]
    encoder = encoder_of("CGCNN-MP-2017-Energy")
    found = encoder.encode([crystal_of(item) for item in chosen], layer="final")[:, 0]
    energy = np.array([item["properties"]["energy_per_atom_eV"] for item in chosen])
    # Elements range over 10 eV/atom; a wrong unit or reference state would cost several.
    assert np.nanmedian(np.abs(found - energy)) < 0.2


# --- layers against a plain forward pass ------------------------------------------------------------------------------


def plain_forward(card: SourceCard, folder: Path, crystal: Crystal) -> dict[str, np.ndarray]:
    """All layers of one crystal in double precision, atom by atom, neighbours sorted by (distance, Z, index)."""
    import torch

    from scotl_matgl_cgcnn.weights import _load

    content = _load((folder / card.options["file"]).read_bytes())
    weights = {key: value.to(torch.float64).numpy() for key, value in content["state_dict"].items()}
    table = json.loads((folder / ELEMENTS_FILE).read_text())

    def softplus(x: np.ndarray) -> np.ndarray:
        return np.logaddexp(0, x)

    def dense(x: np.ndarray, name: str) -> np.ndarray:
        return weights[f"{name}.weight"] @ x + weights[f"{name}.bias"]

    def normalise(x: np.ndarray, name: str) -> np.ndarray:
        shift, scale = weights[f"{name}.running_mean"], np.sqrt(weights[f"{name}.running_var"] + 1e-5)
        return weights[f"{name}.weight"] * (x - shift) / scale + weights[f"{name}.bias"]

    graph = build_graph(crystal, 8.0)
    centres = np.linspace(0, 8, 41)
    atoms = [dense(np.array(table[str(z)], dtype=float), "embedding") for z in crystal.numbers.tolist()]
    neighbours = []
    for atom in range(len(atoms)):
        bonds = np.flatnonzero(graph.source == atom).tolist()
        bonds.sort(key=lambda b: (round(graph.distance[b], 5), crystal.numbers[graph.destination[b]], b))
        found = [(int(graph.destination[b]), float(graph.distance[b])) for b in bonds[:12]]
        neighbours.append(found + [(0, 9.0)] * (12 - len(found)))
    values: dict[str, np.ndarray] = {}
    for layer in range(4):
        updated = []
        for atom, found in zip(atoms, neighbours, strict=True):
            total = np.zeros(64)
            for other, distance in found:
                bond = np.exp(-((distance - centres) ** 2) / 0.04)
                hidden = dense(np.concatenate([atom, atoms[other], bond]), f"convs.{layer}.fc_full")
                gate, core = np.split(normalise(hidden, f"convs.{layer}.bn1"), 2)
                total += softplus(core) / (1 + np.exp(-gate))
            updated.append(softplus(atom + normalise(total, f"convs.{layer}.bn2")))
        atoms = updated
        values[f"conv_{layer + 1}"] = np.mean(atoms, axis=0)
    values["readout"] = softplus(dense(softplus(values["conv_4"]), "conv_to_fc"))
    output = dense(values["readout"], "fc_out")
    if card.name == METAL:
        values["final"] = np.exp(output[1:]) / np.exp(output).sum()
    else:
        values["final"] = output * content["normalizer"]["std"] + content["normalizer"]["mean"]
    return values


@pytest.mark.parametrize("name", [FERMI, METAL])
def test_layers_are_those_of_a_plain_forward_pass(
    name: str, folder: Path, encoder_of: Any, crystals: list[Crystal]
) -> None:
    encoder = encoder_of(name)
    # In manganese nitride the index of the site decides here, and the surroundings in the encoder.
    chosen = [crystal for crystal in crystals if crystal is not MANGANESE_NITRIDE]
    found = encoder.encode_layers(chosen, layers=encoder.layers)
    assert not found.refused
    expected = [plain_forward(CARDS[name], folder, crystal) for crystal in chosen]
    for layer in encoder.layers:
        rows = np.array([values[layer] for values in expected])
        assert found.embeddings[layer].dtype == np.float32
        assert largest_deviation(found.embeddings[layer], rows) < 1e-5, layer


# --- neighbours -------------------------------------------------------------------------------------------------------


def test_neighbours_are_sorted_by_distance_and_then_by_atomic_number() -> None:
    found = nearest(batch_graphs([build_graph(STRONTIUM_TITANATE, 8.0)]), 12, 9.0)
    numbers = STRONTIUM_TITANATE.numbers
    edge = 3.905
    # Of Sr: 12 O. Of Ti: 6 O, then 6 of 8 Sr. Of O: 2 Ti, then all 8 O and 2 of 4 Sr, at one distance.
    assert [numbers[row].tolist() for row in found.index] == [
        [8] * 12,
        [8] * 6 + [38] * 6,
        *[[22] * 2 + [8] * 8 + [38] * 2] * 3,
    ]
    half, diagonal, body = edge / 2, edge / np.sqrt(2), edge * np.sqrt(3) / 2
    np.testing.assert_allclose(found.distance[1], [half] * 6 + [body] * 6)
    np.testing.assert_allclose(found.distance[2], [half] * 2 + [diagonal] * 10)
    assert found.tied.tolist() == [True]
    assert found.padded.tolist() == [False]


def test_missing_neighbours_are_padded() -> None:
    found = nearest(batch_graphs([build_graph(permuted(SPARSE, [1, 2, 0]), 8.0)]), 12, 9.0)
    assert (found.distance[:, 2:] == 9.0).all()
    assert (found.distance[:, :2] < 3.0).all()
    assert (found.index[:, 2:] == 2).all()  # carbon, wherever it stands
    assert found.padded.tolist() == [True]
    assert found.tied.tolist() == [False]


def test_another_crystal_of_the_batch_does_not_make_distances_equal() -> None:
    """Its distances must not fill the gap between two that are different."""

    def chain(gap: float, numbers: list[int]) -> Crystal:
        return Crystal(
            np.diag([30.0, 30.0, 30.0]), np.array([[0.5, 0.5, z / 30] for z in (10, 12, 14 + gap)]), np.array(numbers)
        )

    heavy_first = chain(-1.5e-4, [38, 22, 8][::-1])
    between = chain(-0.75e-4, [8, 22, 38])
    alone = nearest(batch_graphs([build_graph(heavy_first, 8.0)]), 1, 9.0)
    both = nearest(batch_graphs([build_graph(heavy_first, 8.0), build_graph(between, 8.0)]), 1, 9.0)
    assert alone.index[1, 0] == 2  # the nearer one, though the heavier
    np.testing.assert_array_equal(both.index[:3], alone.index)
    assert both.index[4, 0] == 3  # equal within the tolerance: the lighter one
    assert both.tied.tolist() == [False, True]


def test_the_published_order_of_sites_matters_only_where_crystals_are_flagged(
    folder: Path, encoder_of: Any, crystals: list[Crystal]
) -> None:
    encoder = encoder_of(FERMI)
    flagged = encoder.ambiguous([*crystals, "no crystal"])
    unlike = [crystals.index(STRONTIUM_TITANATE), crystals.index(MANGANESE_NITRIDE), crystals.index(SPARSE)]
    assert set(unlike) <= set(flagged)
    assert "compete for the last of 12 places" in flagged[unlike[0]]
    assert "fewer than 12 neighbours within 8 Å" in flagged[unlike[2]]
    rng = np.random.default_rng(2)
    spread = []
    for crystal in crystals:
        if len(crystal) > 12:
            spread.append(np.nan)
            continue
        orders = [rng.permutation(len(crystal)) for _ in range(6)]
        values = [by_site_order(folder, permuted(crystal, order)) for order in orders]
        spread.append(max(values) - min(values))
    for row, value in enumerate(spread):
        if not np.isnan(value):
            assert (value > 1e-4) == (row in flagged), row


def by_site_order(folder: Path, crystal: Crystal) -> float:
    """Fermi energy where ties are broken, and missing neighbours padded, by the order of sites as in the original."""
    import torch

    from scotl_matgl_cgcnn.weights import read_model

    files = [(folder / name).read_bytes() for name in (CARDS[FERMI].options["file"], ELEMENTS_FILE)]
    graph = build_graph(crystal, 8.0)
    index, distance = np.zeros((len(crystal), 12), np.int64), np.full((len(crystal), 12), 9.0)
    for atom in range(len(crystal)):
        bonds = np.flatnonzero(graph.source == atom)
        order = np.lexsort((graph.destination[bonds], graph.distance[bonds].round(4)))[:12]
        index[atom, : len(order)] = graph.destination[bonds[order]]
        distance[atom, : len(order)] = graph.distance[bonds[order]]
    numbers = torch.from_numpy(crystal.numbers.astype(np.int64))
    inputs = (numbers, torch.from_numpy(index), torch.from_numpy(distance), torch.zeros_like(numbers))
    return read_model(*files)(*inputs, ("final",))["final"].item()


# --- laws of embeddings -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", CARDS)
def test_embeddings_do_not_depend_on_the_batch(name: str, encoder_of: Any, crystals: list[Crystal]) -> None:
    encoder = encoder_of(name)
    together = encoder.encode_layers(crystals, layers=encoder.layers)
    alone = encoder.encode_layers(crystals[::-1], layers=encoder.layers, batch_edges=1)
    again = encoder.encode_layers(crystals, layers=encoder.layers)
    for layer in encoder.layers:
        assert largest_deviation(together.embeddings[layer], alone.embeddings[layer][::-1]) < 1e-5, layer
        np.testing.assert_array_equal(again.embeddings[layer], together.embeddings[layer])


@pytest.mark.parametrize("name", [FERMI, METAL])
def test_embeddings_do_not_depend_on_how_a_crystal_is_described(
    name: str, encoder_of: Any, crystals: list[Crystal]
) -> None:
    from scipy.spatial.transform import Rotation

    rng = np.random.default_rng(11)
    variants: dict[str, list[Crystal]] = {"order": [], "rotation and origin": [], "supercell": []}
    for crystal in crystals:
        variants["order"].append(permuted(crystal, rng.permutation(len(crystal))))
        turn = Rotation.random(rng=rng).as_matrix()
        moved = Crystal(crystal.lattice @ turn.T, (crystal.frac_coords + rng.random(3)) % 1.0, crystal.numbers)
        variants["rotation and origin"].append(moved)
        halves = crystal.frac_coords / [1, 1, 2]
        doubled = Crystal(
            crystal.lattice * [[1], [1], [2]],
            np.vstack([halves, halves + np.array([0, 0, 0.5])]),
            np.tile(crystal.numbers, 2),
        )
        variants["supercell"].append(permuted(doubled, rng.permutation(len(doubled))))
    encoder = encoder_of(name)
    original = encoder.encode_layers(crystals, layers=encoder.layers)
    for what, variant in variants.items():
        found = encoder.encode_layers(variant, layers=encoder.layers)
        for layer in encoder.layers:
            assert largest_deviation(found.embeddings[layer], original.embeddings[layer]) < 1e-5, (what, layer)


@pytest.mark.parametrize("crystal", [STRONTIUM_TITANATE, MANGANESE_NITRIDE])
def test_digits_of_a_file_do_not_choose_neighbours(crystal: Crystal, encoder_of: Any) -> None:
    rng = np.random.default_rng(4)
    noisy = [
        Crystal(crystal.lattice, crystal.frac_coords + rng.normal(scale=2e-6, size=crystal.frac_coords.shape), numbers)
        for numbers in [crystal.numbers] * 10
    ]
    values = encoder_of(FERMI).encode([crystal, *noisy], layer="final")[:, 0]
    assert np.ptp(values) < 1e-3


def test_refused_crystals_cost_their_own_rows_only(encoder_of: Any, crystals: list[Crystal]) -> None:
    encoder = encoder_of("CGCNN-MP-2017-Eform")
    bad = {
        1: (cubic(3.4, [[0, 0, 0]], [84]), "the model does not know Po"),
        2: (cubic(9.0, [[0, 0, 0]], [29]), "no neighbour within 8 Å"),
        4: (cubic(4.0, [[0, 0, 0], [0.02, 0, 0]], [11, 17]), "atoms overlap"),
        5: ("NaCl", "a str is no crystal"),
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
    assert not set(encoder.ambiguous(mixed)) & set(bad)


def test_no_crystals_give_no_rows(encoder_of: Any) -> None:
    assert encoder_of(FERMI).encode([]).shape == (0, 32)


def test_pickled_encoders_give_the_same(encoder_of: Any, crystals: list[Crystal]) -> None:
    encoder = encoder_of(METAL)
    copy = pickle.loads(pickle.dumps(encoder))  # noqa: S301 - what this test has just written
    np.testing.assert_array_equal(copy.encode(crystals), encoder.encode(crystals))


def test_an_unknown_layer_is_named(encoder_of: Any) -> None:
    with pytest.raises(ValueError, match="no layer 'readuot'; did you mean 'readout'"):
        encoder_of(FERMI).encode([], layer="readuot")


# --- files ------------------------------------------------------------------------------------------------------------


@pytest.fixture
def copied(folder: Path, tmp_path: Path) -> tuple[SourceCard, Path]:
    """A card and a writable copy of its files."""
    card = CARDS[FERMI]
    for name in card.weights:
        shutil.copyfile(folder / name, tmp_path / name)
    return card, tmp_path


def test_a_changed_file_is_refused(copied: tuple[SourceCard, Path]) -> None:
    card, place = copied
    table = json.loads((place / ELEMENTS_FILE).read_text())
    table["8"][0] = 1 - table["8"][0]
    (place / ELEMENTS_FILE).write_text(json.dumps(table))
    with pytest.raises(IncompatibleWeightsError, match=r"atom_init.json is not the file of the card .* sha256"):
        load(card, place)
    assert load(card, place, check=False).encode([STRONTIUM_TITANATE]).shape == (1, 32)
    unhashed = dataclasses.replace(card, weights={})
    with pytest.raises(IncompatibleWeightsError, match=r"MgO [\d.-]+ instead of 4.1668"):
        load(unhashed, place).encode([STRONTIUM_TITANATE])


def test_a_checkpoint_that_would_run_code_is_refused_and_not_run(copied: tuple[SourceCard, Path]) -> None:
    import torch

    card, place = copied
    trap = place / "trap"

    class Evil:
        def __reduce__(self) -> tuple[Any, ...]:
            return (os.mkdir, (str(trap),))

    torch.save({"state_dict": {}, "args": Evil()}, place / card.options["file"])
    with pytest.raises(CheckpointError, match="more than weights and settings"):
        load(card, place, check=False)
    assert not trap.exists()


@pytest.mark.parametrize("content", [b"", b"no checkpoint", b"\x80\x02}q\x00."])
def test_a_file_that_is_no_checkpoint_is_refused(content: bytes, copied: tuple[SourceCard, Path]) -> None:
    card, place = copied
    (place / card.options["file"]).write_bytes(content)
    with pytest.raises(CheckpointError, match=r"efermi\.pth\.tar"):
        load(card, place, check=False)


def test_checkpoints_of_other_networks_are_refused(copied: tuple[SourceCard, Path]) -> None:
    import torch

    from scotl_matgl_cgcnn.weights import _load

    card, place = copied
    file = place / card.options["file"]
    published = file.read_bytes()

    def saved(change: Callable[[dict[str, Any]], Any]) -> None:
        content = _load(published)
        change(content)
        torch.save(content, file)

    saved(lambda content: content["args"].update(task="classification"))
    with pytest.raises(CheckpointError, match="gives 1 values for the task 'classification'"):
        load(card, place, check=False)
    saved(lambda content: content["normalizer"].update(std=float("nan")))
    with pytest.raises(CheckpointError, match="must be finite"):
        load(card, place, check=False)
    # A second hidden layer, which main.py of txie-93/cgcnn can train but none of the published models has.
    saved(lambda content: content["state_dict"].update({"fcs.0.weight": torch.zeros(32, 32)}))
    with pytest.raises(CheckpointError, match=r"fcs\.0\.weight"):
        load(card, place, check=False)
    saved(lambda content: content["state_dict"].pop("convs.2.bn1.running_var"))
    with pytest.raises(CheckpointError, match=r"convs\.2\.bn1\.running_var"):
        load(card, place, check=False)
    file.write_bytes(published)
    (place / ELEMENTS_FILE).write_text(json.dumps({"1": [0.0] * 91}))
    with pytest.raises(CheckpointError, match="element vectors of length 92; the table has 91"):
        load(card, place, check=False)
    (place / ELEMENTS_FILE).write_text(json.dumps({"1": [0.0] * 92, "3": [0.0] * 92}))
    with pytest.raises(CheckpointError, match=r"atomic numbers \[1, 3\]"):
        load(card, place, check=False)


def test_a_card_of_another_network_is_refused(folder: Path) -> None:
    card = dataclasses.replace(CARDS[FERMI], layers={"readout": 128, "final": 1})
    with pytest.raises(CheckpointError, match="the model has"):
        load(card, folder)


def test_missing_files_are_reported_with_the_places(
    tmp_path: Path, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    card = CARDS[FERMI]
    monkeypatch.delenv("SCOTL_MATGL_ASSETS", raising=False)
    monkeypatch.delenv(FOLDER_VARIABLE, raising=False)
    with pytest.raises(FileNotFoundError, match=r"efermi\.pth\.tar and atom_init\.json were looked for in no folder"):
        load(card)
    monkeypatch.setenv(FOLDER_VARIABLE, str(tmp_path))
    with pytest.raises(FileNotFoundError, match=f"looked for in {tmp_path}"):
        load(card)
    monkeypatch.setenv(FOLDER_VARIABLE, str(folder))
    assert card.load().card is card


# --- distribution -----------------------------------------------------------------------------------------------------


def test_the_entry_point_lists_the_cards() -> None:
    project = tomllib.loads((Path(__file__).parents[1] / "pyproject.toml").read_text())["project"]
    ((name, value),) = project["entry-points"]["scotl_matgl.zoos"].items()
    listed = EntryPoint(name, value, "scotl_matgl.zoos").load()()
    assert listed == list(CARDS.values())
    assert {card.zoo for card in listed} == {name}


def test_listing_the_cards_imports_no_torch() -> None:
    code = (
        "import sys, scotl_matgl_cgcnn, scotl_matgl_cgcnn.encoder as e\n"
        "assert len(scotl_matgl_cgcnn.cards()) == 8\n"
        "print([name for name in ('torch', 'pymatgen', 'matgl', 'dgl') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)  # noqa: S603
    assert done.stdout.strip() == "[]"
