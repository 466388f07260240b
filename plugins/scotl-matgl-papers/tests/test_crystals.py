"""Structure branches: written out by hand, against the corpus' calculated values, and matched to the compositions."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from scotl_matgl.plugin import (
    Crystal,
    SourceCard,
    SourceEncoder,
    build_graph,
    load_element_tables,
    read_crystals,
    reference_crystals,
    select,
)
from scotl_matgl.testing.samples import bad_crystals, sample_crystals
from scotl_matgl_papers import cromel, scotl
from scotl_matgl_papers.crystals import CUTOFF, cluster, structure_card
from scotl_matgl_papers.weights import find_weights


def branch(name: str) -> SourceCard:
    (card,) = select([*scotl(), *cromel()], name)
    return structure_card(card)


@pytest.fixture(scope="module")
def crystals(assets: Path) -> list[Crystal]:
    """Every eighth small crystal of the corpus that has a formation energy and both moduli."""
    wanted = ("formation_energy_eV_atom", "bulk_modulus_vrh_GPa", "shear_modulus_vrh_GPa")
    found = [
        crystal
        for crystal in read_crystals(assets / "structures" / "crystals.json.gz")
        if isinstance(crystal, Crystal)
        and len(crystal) <= 8
        and all(crystal.properties.get(name) is not None and crystal.properties[name] != 0 for name in wanted)
        and min(crystal.properties[name] for name in wanted[1:]) > 1
    ]
    return found[::8]


def neighbours(crystal: Crystal) -> tuple[list[int], list[np.ndarray]]:
    """Cluster of the papers by pymatgen's neighbours and loops."""
    structure = crystal.to_structure()
    numbers, positions = list(structure.atomic_numbers), list(structure.cart_coords)
    for of_atom in structure.get_all_neighbors(CUTOFF):
        for site in of_atom:
            if min(np.linalg.norm(site.coords - position) for position in positions) > 1e-3:
                numbers.append(site.specie.Z)
                positions.append(site.coords)
    return numbers, positions


@pytest.mark.parametrize("name", ["CsCl", "NaCl", "MgO", "Si"])
def test_cluster_is_that_of_the_papers(name: str) -> None:
    crystal = reference_crystals()[name]
    numbers, pairs, distance = cluster(build_graph(crystal, CUTOFF))
    by_hand, positions = neighbours(crystal)
    assert sorted(numbers) == sorted(by_hand)
    table = np.linalg.norm(np.array(positions)[:, None] - np.array(positions), axis=2)
    expected = table[(table < CUTOFF) & ~np.eye(len(table), dtype=bool)]
    np.testing.assert_allclose(np.sort(distance), np.sort(expected), atol=1e-6)
    assert {tuple(pair) for pair in pairs.T} == {tuple(pair) for pair in pairs[::-1].T}


def softplus(values: np.ndarray) -> np.ndarray:
    return np.log1p(np.exp(values))


def leaky(values: np.ndarray, slope: float) -> np.ndarray:
    return np.where(values > 0, values, slope * values)


def convolve(weights: dict, layer: str, nodes: np.ndarray, table: np.ndarray) -> np.ndarray:
    """One convolution, atom by atom and bond by bond."""

    def dense(name: str, values: np.ndarray) -> np.ndarray:
        return weights[f"{layer}.{name}.weight"] @ values + weights[f"{layer}.{name}.bias"]

    result = []
    for i, centre in enumerate(nodes):
        near = [j for j in range(len(nodes)) if j != i and table[i, j] < CUTOFF]
        bonds = [np.exp(-((table[i, j] - np.linspace(1, 4, 64)) ** 2) / 0.25) for j in near]
        if f"{layer}.lin_f.weight" in weights:
            value = centre.copy()
            for j, bond in zip(near, bonds, strict=True):
                joint = np.concatenate([centre, nodes[j], bond])
                value += softplus(dense("lin_s", joint)) / (1 + np.exp(-dense("lin_f", joint)))
        elif f"{layer}.att" in weights:
            sent = [dense("lin_l", nodes[j]) for j in [*near, i]]
            energy = [weights[f"{layer}.att"][0, 0] @ leaky(part + dense("lin_r", centre), 0.2) for part in sent]
            share = np.exp(energy) / np.exp(energy).sum()
            value = share @ np.array(sent) + weights[f"{layer}.bias"]
        else:
            value = weights[f"{layer}.lin.weight"] @ centre + weights[f"{layer}.bias"]
            for j, bond in zip(near, bonds, strict=True):
                value += nodes[j] @ dense("nn.2", np.maximum(dense("nn.0", bond), 0)).reshape(64, 64)
        result.append(value)
    return np.array(result)


@pytest.mark.parametrize(
    "name", ["SCOTL-CGCNN-MPS-Eform", "SCOTL-GAT-MPS-Eform", "CroMEL-CGCNN-MP-Eform", "CroMEL-MPNN-MP-Eform"]
)
def test_branch_by_hand(name: str, assets: Path) -> None:
    crystal, card = reference_crystals()["MgO"], branch(name)
    state = torch.load(find_weights(card), map_location="cpu", weights_only=True)
    weights = {key.removeprefix("emb_net."): values.double().numpy() for key, values in state.items()}
    numbers, positions = neighbours(crystal)
    table = np.linalg.norm(np.array(positions)[:, None] - np.array(positions), axis=2)
    slopes = {part: float(weights.get(f"act_{part}.weight", [0.01])[0]) for part in ("fc1", "gc1", "gc2")}
    atoms = load_element_tables().presets["matscholar_el"].raw[np.array(numbers) - 1]
    nodes = atoms @ weights["fc1.weight"].T + weights["fc1.bias"]
    if card.zoo == "cromel":
        nodes = leaky(nodes, slopes["fc1"])
    for layer in ("gc1", "gc2"):
        nodes = leaky(convolve(weights, layer, nodes, table), slopes[layer])
    readout = nodes.mean(axis=0) / np.linalg.norm(nodes.mean(axis=0))
    if card.zoo == "cromel":
        readout = weights["fc2.weight"] @ readout + weights["fc2.bias"]
        readout /= np.linalg.norm(readout)
    np.testing.assert_allclose(card.load().encode([crystal])[0], readout, atol=2e-5)


@pytest.mark.parametrize(
    "name",
    ["SCOTL-CGCNN-MPL-Eform", "SCOTL-GAT-MPL-Eform", "SCOTL-MEGNet-MPL-Eform", "CroMEL-*-MP-Eform"],
)
def test_formation_energies_of_the_materials_project(name: str, crystals: list[Crystal]) -> None:
    assert len(crystals) > 50
    target = np.array([crystal.properties["formation_energy_eV_atom"] for crystal in crystals])
    for card in select([*scotl(), *cromel()], name):
        predicted = structure_card(card).load().encode(crystals, layer="final")[:, 0]
        known = np.isfinite(predicted)
        assert known.mean() > 0.9
        assert np.abs(predicted - target)[known].mean() < 0.15


@pytest.mark.parametrize("architecture", ["CGCNN", "GAT", "MEGNet"])
@pytest.mark.parametrize(("kind", "other"), [("bulk", "shear"), ("shear", "bulk")])
def test_moduli_are_named_by_what_is_predicted(
    architecture: str, kind: str, other: str, crystals: list[Crystal]
) -> None:
    predicted = branch(f"SCOTL-{architecture}-MPS-{kind.capitalize()}Modulus").load().encode(crystals, layer="final")
    own, wrong = (
        np.nanmean(
            [
                abs(value - np.log(crystal.properties[f"{name}_modulus_vrh_GPa"]))
                for value, crystal in zip(predicted[:, 0], crystals, strict=True)
            ]
        )
        for name in (kind, other)
    )
    assert own < 0.5 * wrong


def cosines(name: str, crystals: list[Crystal]) -> tuple[float, float]:
    """Mean cosine of the branches for the same crystal, and for different ones."""
    (card,) = select([*scotl(), *cromel()], name)
    structure = structure_card(card).load().encode(crystals)
    composition = card.load().encode([crystal.to_structure().composition for crystal in crystals])
    composition /= np.linalg.norm(composition, axis=1, keepdims=True)
    known = np.isfinite(structure).all(axis=1)
    table = structure[known] @ composition[known].T
    return float(np.diag(table).mean()), float(table[~np.eye(len(table), dtype=bool)].mean())


@pytest.mark.parametrize("name", ["SCOTL-CGCNN-MPS-Eform", "SCOTL-GAT-MPS-Eform", "SCOTL-MEGNet-MPL-BandGap"])
def test_scotl_matches_crystal_by_crystal(name: str, crystals: list[Crystal]) -> None:
    same, different = cosines(name, crystals)
    assert 0.81 <= same <= 0.95
    assert 0.37 <= different <= 0.72


@pytest.mark.parametrize("name", ["CroMEL-CGCNN-MP-Eform", "CroMEL-CGCNN-MP-BandGap"])
def test_cromel_matches_the_distribution_only(name: str, crystals: list[Crystal]) -> None:
    same, different = cosines(name, crystals)
    assert same - different < 0.05


@pytest.mark.parametrize("name", ["SCOTL-CGCNN-MPS-Eform", "SCOTL-GAT-MPS-Eform", "CroMEL-MPNN-MP-Eform"])
def test_encoder(name: str, assets: Path) -> None:
    encoder = branch(name).load()
    assert isinstance(encoder, SourceEncoder)
    samples = sample_crystals(encoder.card.elements)
    encoded = encoder.encode_layers(samples, layers=encoder.layers)
    assert not encoded.refused
    Z = encoded.embeddings["readout"]
    np.testing.assert_allclose(np.vstack([encoder.encode([sample]) for sample in samples]), Z, atol=1e-5)
    order = np.arange(len(samples[1]))[::-1]
    turned = np.linalg.qr(np.random.default_rng(0).normal(size=(3, 3)))[0]
    shuffled = Crystal(samples[1].lattice @ turned, samples[1].frac_coords[order], samples[1].numbers[order])
    np.testing.assert_allclose(encoder.encode([shuffled])[0], Z[1], atol=1e-5)
    bad = bad_crystals(encoder.card.elements)
    refused = encoder.encode_layers([*bad.values(), samples[0]], layers=("readout",))
    assert set(refused.refused) == set(range(len(bad)))
    np.testing.assert_allclose(refused.embeddings["readout"][-1], Z[0], atol=1e-5)
    with pytest.raises(ValueError, match="did you mean 'readout'"):
        encoder.encode(samples, layer="readot")
