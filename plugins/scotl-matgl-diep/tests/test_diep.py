"""The DIEP source: its card everywhere; energies, the package's own layers and the laws of embeddings where it is."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import scotl_matgl_diep
from scotl_matgl.encoders import probes
from scotl_matgl.plugin import Crystal, IncompatibleWeightsError, reference_crystals
from scotl_matgl.testing.encoders import check_encoder
from scotl_matgl.testing.shipped import check_bridges
from scotl_matgl.testing.zoos import check_zoo

(CARD,) = scotl_matgl_diep.cards()


def test_the_zoo_conforms() -> None:
    check_zoo(scotl_matgl_diep.cards)


def test_the_bridges_conform() -> None:
    folder = Path(scotl_matgl_diep.__file__).with_name("bridges")
    check_bridges([CARD], folder)
    assert sum(path.stat().st_size for path in folder.iterdir()) <= 1e6


@pytest.fixture(scope="session")
def encoder() -> Any:
    pytest.importorskip("diep", reason="diep 2.0.0, which the weights come with, is not installed")
    import torch

    torch.set_num_threads(1)
    return CARD.load()


@pytest.fixture(scope="session")
def crystals() -> list[Crystal]:
    """Metals, salts and semiconductors, with one to four atoms."""
    iron = Crystal(1.415 * np.array([[-1.0, 1, 1], [1, -1, 1], [1, 1, -1]]), [[0, 0, 0]], np.array([26], np.int16))
    corners = [[0, 0, 0], [0.5, 0.5, 0], [0.5, 0, 0.5], [0, 0.5, 0.5]]
    alloy = Crystal(3.75 * np.eye(3), corners, np.array([79, 29, 29, 29], np.int16))
    return [*reference_crystals().values(), iron, alloy]


def test_the_encoder_conforms_and_published_energies_are_reproduced(encoder: Any) -> None:
    check_encoder(encoder)
    # eV/atom of CsCl, NaCl, MgO and Si by the package itself, one crystal at a time.
    assert list(probes.probe(encoder).values()) == pytest.approx([-17.7583, -6.8872, -8.0448, -8.7618], abs=1e-4)


def test_layers_are_those_of_the_package_crystal_by_crystal(encoder: Any, crystals: list[Crystal]) -> None:
    from diep.graph.converters import Structure2Graph
    from diep.pretrained import load_potential
    from pymatgen.core import Structure

    found = encoder.encode_layers(crystals, layers=encoder.layers)
    assert not found.refused
    potential = load_potential(stress=False)
    converter = Structure2Graph(potential.model.element_types, potential.model.cutoff)
    for row, crystal in enumerate(crystals):
        structure = Structure(crystal.lattice, crystal.numbers.tolist(), crystal.frac_coords)
        graph, lattice, _ = converter.get_graph(structure)
        energy = float(potential(graph, lattice)[0].detach()) / len(crystal)
        assert found.embeddings["final"][row, 0] == pytest.approx(energy, abs=5e-5)
        atoms = graph.node_feat.detach().numpy()
        np.testing.assert_allclose(found.embeddings["readout"][row], atoms.mean(axis=0), atol=2e-4)
        np.testing.assert_allclose(found.embeddings["deviation"][row], atoms.std(axis=0), atol=2e-4)


def test_an_embedding_depends_neither_on_its_batch_nor_on_cell_and_order_of_sites(
    encoder: Any, crystals: list[Crystal]
) -> None:
    doubled = [
        Crystal(
            np.diag([2.0, 1.0, 1.0]) @ crystal.lattice,
            np.concatenate([crystal.frac_coords * [0.5, 1, 1] + [0.5 * i, 0, 0] for i in (1, 0)])[::-1],
            np.concatenate([crystal.numbers, crystal.numbers])[::-1].copy(),
        )
        for crystal in crystals
    ]
    together = encoder.encode_layers(crystals, layers=encoder.layers).embeddings
    of_doubled = encoder.encode_layers(doubled, layers=encoder.layers).embeddings
    for row, crystal in enumerate(crystals):
        alone = encoder.encode_layers([crystal], layers=encoder.layers).embeddings
        for layer in encoder.layers:
            np.testing.assert_allclose(together[layer][row], alone[layer][0], atol=1e-4, rtol=1e-4)
            np.testing.assert_allclose(of_doubled[layer][row], alone[layer][0], atol=1e-3, rtol=1e-3)


@pytest.mark.usefixtures("encoder")
def test_another_file_is_refused() -> None:
    (file,) = CARD.weights
    with pytest.raises(IncompatibleWeightsError, match="Install the version of diep"):
        dataclasses.replace(CARD, weights={file: "0" * 64}).load()
    with pytest.raises(FileNotFoundError, match="has no file pretrained_models/nowhere"):
        dataclasses.replace(CARD, weights={"pretrained_models/nowhere.pt": "0" * 64}).load()
