"""Interatomic potentials: atoms pooled over crystals, and weights that come inside an installed package."""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from scotl_matgl.plugin import (
    AtomValues,
    Crystal,
    CrystalGraph,
    IncompatibleWeightsError,
    PotentialEncoder,
    SourceCard,
    packaged_weights,
    reference_crystals,
)
from scotl_matgl.testing.encoders import check_encoder

CARD = SourceCard(
    name="Pairs",
    zoo="toys",
    modality="structure",
    property="energy",
    unit="1/A",
    dataset="none",
    architecture="pairs",
    layers={"readout": 2, "deviation": 2, "nearest": 2, "final": 1},
    loader="json:loads",
    licence="MIT",
    citation="me",
)


class Pairs(PotentialEncoder):
    """Two sums over the neighbours of an atom, and the distance of the nearest."""

    def _atoms(self, graphs: Sequence[CrystalGraph], device: Any) -> AtomValues:
        features, energies, nearest = [], [], []
        for graph in graphs:
            pairs = graph.numbers[graph.destination] / graph.distance
            sums = np.column_stack([np.bincount(graph.source, weights) for weights in (pairs, pairs**2)])
            features.append(sums)
            energies.append(-sums[:, 0].mean())
            nearest.append([graph.distance[graph.source == atom].min() for atom in range(graph.n_atoms)])
        return AtomValues(np.concatenate(features), np.array(energies), {"nearest": np.concatenate(nearest)})

    def _pick_device(self, device: str) -> Any:
        return device


def crystal(seed: int, n_atoms: int) -> Crystal:
    rng = np.random.default_rng(seed)
    grid = np.array(np.unravel_index(rng.choice(27, n_atoms, replace=False), (3, 3, 3))).T / 3
    return Crystal(
        9.0 * np.eye(3), grid + rng.uniform(0, 0.1, grid.shape), rng.integers(1, 90, n_atoms).astype(np.int16)
    )


def test_the_base_conforms_and_pools_atoms_of_each_crystal_by_themselves() -> None:
    encoder = Pairs(CARD, cutoff=5.0, batch_edges=200)
    check_encoder(encoder)
    crystals = [crystal(seed, n) for seed, n in enumerate((3, 7, 5, 12))]
    together = encoder.encode_layers(crystals, layers=encoder.layers).embeddings
    for row, item in enumerate(crystals):
        values = encoder._atoms([graph_of(item)], None)
        expected = {
            "readout": values.features.mean(axis=0),
            "deviation": values.features.std(axis=0),
            "nearest": [values.quantities["nearest"].mean(), values.quantities["nearest"].max()],
            "final": values.energies,
        }
        for layer, wanted in expected.items():
            np.testing.assert_allclose(together[layer][row], wanted, rtol=1e-6)
    assert (encoder.encode([reference_crystals()["Si"]], layer="deviation") < 1e-6).all()  # its atoms are equal


def graph_of(item: Crystal) -> CrystalGraph:
    from scotl_matgl.plugin import build_graph

    return build_graph(item, 5.0)


def test_weights_are_found_inside_a_package_that_is_not_imported(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    package = tmp_path / "with_weights_inside"
    (package / "models").mkdir(parents=True)
    (package / "__init__.py").write_text("raise RuntimeError('imported')")
    (package / "models" / "a.pt").write_bytes(b"weights")
    monkeypatch.syspath_prepend(tmp_path)
    digest = hashlib.sha256(b"weights").hexdigest()
    card = dataclasses.replace(CARD, weights={"models/a.pt": digest})
    assert packaged_weights(card, "with_weights_inside") == package / "models" / "a.pt"
    other = dataclasses.replace(CARD, weights={"models/a.pt": "0" * 64})
    with pytest.raises(IncompatibleWeightsError, match="is not the file of the card Pairs"):
        packaged_weights(other, "with_weights_inside")
    assert packaged_weights(other, "with_weights_inside", check=False).name == "a.pt"
    with pytest.raises(FileNotFoundError, match=r"has no file models/b\.pt, which Pairs needs"):
        packaged_weights(dataclasses.replace(CARD, weights={"models/b.pt": digest}), "with_weights_inside")
    with pytest.raises(ModuleNotFoundError, match="pip install not_there_at_all"):
        packaged_weights(card, "not_there_at_all")
