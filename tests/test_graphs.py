"""Crystal graphs against brute force, laws and numbers that follow from the geometry."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest

from scotl_matgl.chemistry.crystals import Crystal
from scotl_matgl.encoders.graphs import (
    CrystalGraph,
    batch_graphs,
    build_graph,
    check_crystal,
    check_graph,
    merge_equal,
    plan_batches,
    three_body,
)
from scotl_matgl.encoders.probes import reference_crystals


def random_crystal(seed: int, n_atoms: int = 5) -> Crystal:
    rng = np.random.default_rng(seed)
    lattice = 4.5 * np.eye(3) + rng.uniform(-1, 1, (3, 3))
    return Crystal(lattice, rng.uniform(-1, 2, (n_atoms, 3)), rng.choice([3, 8, 26], n_atoms))


def supercell(crystal: Crystal, times: tuple[int, int, int]) -> Crystal:
    cells = np.array(list(itertools.product(*(range(n) for n in times))), dtype=float)
    frac = (crystal.frac_coords[None] + cells[:, None]).reshape(-1, 3) / np.array(times)
    return Crystal(crystal.lattice * np.array(times)[:, None], frac, np.tile(crystal.numbers, len(cells)))


def brute_force(crystal: Crystal, cutoff: float) -> set[tuple[int, ...]]:
    """Every bond (source, destination, image) within the cut-off, from all images up to four cells away."""
    found = set()
    positions = crystal.frac_coords @ crystal.lattice
    for image in itertools.product(range(-4, 5), repeat=3):
        for i, j in itertools.product(range(len(crystal)), repeat=2):
            length = np.linalg.norm(positions[j] + np.array(image) @ crystal.lattice - positions[i])
            if length <= cutoff and (i != j or any(image)):
                found.add((i, j, *image))
    return found


@pytest.mark.parametrize("seed", range(3))
def test_neighbours_are_those_of_a_search_by_hand(seed: int) -> None:
    crystal = random_crystal(seed)
    graph = build_graph(crystal, 4.0)
    bonds = {
        (int(i), int(j), *map(int, image))
        for i, j, image in zip(graph.source, graph.destination, graph.image, strict=True)
    }
    assert len(bonds) == graph.n_bonds
    assert bonds == brute_force(crystal, 4.0)
    np.testing.assert_allclose(np.linalg.norm(graph.vector, axis=1), graph.distance, atol=1e-12)
    assert (np.diff(graph.source) >= 0).all()
    assert graph.source.dtype == graph.destination.dtype == graph.image.dtype == np.int32


def test_caesium_chloride_has_eight_and_six_neighbours() -> None:
    graph = build_graph(reference_crystals()["CsCl"], 5.0)
    lengths, counts = np.unique(np.round(graph.distance, 9), return_counts=True)
    np.testing.assert_allclose(lengths, [4.14 * math.sqrt(3) / 2, 4.14])
    assert counts.tolist() == [2 * 8, 2 * 6]


@pytest.mark.parametrize(
    "crystal",
    [
        *(random_crystal(seed) for seed in range(3)),
        # Neighbours at the shorter cut-off to the last bit, and one bit off.
        Crystal(4.0 * np.eye(3), [[0, 0, 0], [0.5, 0.5, 0.5]], [55, 17]),
        Crystal(np.nextafter(4.0, 5.0) * np.eye(3), [[0.1, 0.7, 0.3]], [29]),
    ],
)
def test_a_cut_graph_is_the_graph_of_the_shorter_cutoff(crystal: Crystal) -> None:
    cut, built = build_graph(crystal, 5.0).cut(4.0), build_graph(crystal, 4.0)
    assert cut.n_bonds == built.n_bonds > 0

    def order(graph: CrystalGraph) -> np.ndarray:
        return np.lexsort((*graph.image.T, graph.destination, graph.source))

    for name in ("source", "destination", "image", "distance"):
        np.testing.assert_array_equal(getattr(cut, name)[order(cut)], getattr(built, name)[order(built)])
    assert cut.cutoff == 4.0


def test_a_graph_cannot_be_cut_longer() -> None:
    with pytest.raises(ValueError, match=r"4\.0 Å cannot be cut at 5\.0 Å"):
        build_graph(random_crystal(0), 4.0).cut(5.0)


def test_a_crystal_is_refused_with_its_reason() -> None:
    good = reference_crystals()["NaCl"]
    assert check_crystal(good, ("Na", "Cl")) is None
    assert check_crystal(good) is None
    assert check_crystal(good, ("Na", "F")) == "the model does not know Cl (it knows 2 elements)"
    assert "str is no crystal" in str(check_crystal("NaCl"))
    tiny = Crystal(good.lattice / 20, good.frac_coords, good.numbers)
    assert "too small for its atoms" in str(check_crystal(tiny))
    flat = Crystal(np.diag([40.0, 40.0, 0.3]), [[0, 0, 0]], [11])
    assert "shortest lattice vector 0.3 Å" in str(check_crystal(flat))


def test_a_graph_is_refused_with_its_reason() -> None:
    cell = 5.5 * np.eye(3)
    overlapping = Crystal(cell, [[0, 0, 0], [0.5, 0.5, 0.5], [0.5, 0.5, 0.54]], [11, 17, 8])
    assert check_graph(build_graph(overlapping, 4.0)) == (
        "its atoms overlap: Cl (site 1) and O (site 2) are 0.22 Å apart"
    )
    assert check_graph(build_graph(overlapping, 5.0), min_distance=0.2) is None
    coincident = Crystal(cell, [[0, 0, 0], [1.0, 0, 0]], [11, 17])
    assert "are 0 Å apart" in str(check_graph(build_graph(coincident, 4.0)))
    alone = Crystal(20 * np.eye(3), [[0, 0, 0], [0.1, 0, 0], [0.5, 0.5, 0.5]], [11, 17, 54])
    assert check_graph(build_graph(alone, 5.0)) == "Xe (site 2) has no neighbour within 5 Å"
    single = Crystal(20 * np.eye(3), [[0, 0, 0]], [54])
    assert check_graph(build_graph(single, 5.0)) == "Xe (site 0) has no neighbour within 5 Å"
    assert check_graph(build_graph(reference_crystals()["NaCl"], 4.0)) is None


def test_a_batch_is_the_concatenation() -> None:
    graphs = [build_graph(random_crystal(seed, seed + 1), 4.0) for seed in range(3)]
    batch = batch_graphs(graphs)
    assert len(batch) == 3
    assert batch.n_atoms.tolist() == [1, 2, 3]
    second = slice(graphs[0].n_bonds, graphs[0].n_bonds + graphs[1].n_bonds)
    np.testing.assert_array_equal(batch.source[second], graphs[1].source + 1)
    np.testing.assert_array_equal(batch.destination[second], graphs[1].destination + 1)
    np.testing.assert_array_equal(batch.vector[second], graphs[1].vector)
    assert batch.source.dtype == np.int32


def test_batches_are_sorted_by_size_and_hold_the_budget() -> None:
    assert [list(batch) for batch in plan_batches([50, 10, 400, 30, 20], 100)] == [[1, 4, 3], [0], [2]]
    assert [list(batch) for batch in plan_batches([10, 10, 10], 20)] == [[0, 1], [2]]
    assert list(plan_batches([], 100)) == []
    with pytest.raises(ValueError, match="batch_edges is 0"):
        list(plan_batches([1], 0))


def test_three_body_pairs_are_all_pairs_of_short_bonds_of_an_atom() -> None:
    batch = batch_graphs([build_graph(random_crystal(seed), 5.0) for seed in range(2)])
    order = np.random.default_rng(0).permutation(len(batch.source))  # no order of bonds may matter
    source, distance = batch.source[order], batch.distance[order]
    pairs = three_body(source, distance, 3.0)
    found = list(zip(pairs.bonds[pairs.first].tolist(), pairs.bonds[pairs.second].tolist(), strict=True))
    short = np.flatnonzero(distance < 3.0).tolist()
    expected = {(i, j) for i in short for j in short if i != j and source[i] == source[j]}
    assert len(expected) > 100
    assert len(found) == len(expected)
    assert set(found) == expected
    np.testing.assert_array_equal(np.bincount(pairs.first), pairs.partners)
    assert (np.diff(pairs.first) >= 0).all()


def test_an_atom_with_one_short_bond_has_no_pair() -> None:
    pairs = three_body(np.array([0, 0, 1, 1, 1], np.int32), np.array([1.0, 9.0, 1.0, 9.0, 2.0]), 4.0)
    assert pairs.bonds.tolist() == [2, 4]
    assert pairs.partners.tolist() == [1, 1]
    assert len(three_body(np.zeros(0, np.int32), np.zeros(0), 4.0).bonds) == 0


def test_a_supercell_is_merged_into_its_primitive_cell() -> None:
    rock_salt = reference_crystals()["NaCl"]
    batch = batch_graphs([build_graph(supercell(rock_salt, (2, 3, 1)), 5.0), build_graph(random_crystal(1), 5.0)])
    merged = merge_equal(batch, rounds=3)
    assert merged.n_atoms.tolist() == [2, 5]  # nothing is equal in a crystal without symmetry
    assert merged.atom_count.tolist() == [6, 6, 1, 1, 1, 1, 1]
    assert sorted(merged.numbers[:2].tolist()) == [11, 17]
    # Of Na and of Cl: 6 unlike neighbours at a/2, 12 like ones at a/√2, 8 unlike ones at a√3/2, each shell as one bond.
    assert merged.n_bonds[0] == 6
    assert sorted(merged.bond_count[:6].tolist()) == [6 * 6, 6 * 6, 6 * 8, 6 * 8, 6 * 12, 6 * 12]


def test_merging_keeps_what_message_passing_over_distances_sees() -> None:
    rng = np.random.default_rng(3)
    crystals = [
        *reference_crystals().values(),
        supercell(reference_crystals()["Si"], (2, 2, 1)),
        supercell(random_crystal(4, 3), (1, 2, 2)),
        random_crystal(5, 7),
    ]
    batch = batch_graphs([build_graph(crystal, 5.0) for crystal in crystals])
    merged = merge_equal(batch, rounds=3)
    assert len(merged.source) < len(batch.source) / 2
    assert merged.n_atoms[5] == 3  # the cell without symmetry, four times

    element = rng.normal(size=(119, 4))
    mixing = rng.normal(size=(3, 4, 4))

    def pooled(graph: object) -> np.ndarray:
        values = element[graph.numbers]  # type: ignore[attr-defined]
        crystal = np.repeat(np.arange(len(graph)), graph.n_atoms)  # type: ignore[arg-type, attr-defined]
        weight = graph.bond_count / graph.atom_count[graph.destination]  # type: ignore[attr-defined]
        for matrix in mixing:
            message = np.tanh(values[graph.source] @ matrix + graph.distance[:, None])  # type: ignore[attr-defined]
            total = np.zeros_like(values)
            np.add.at(total, graph.destination, message * weight[:, None])  # type: ignore[attr-defined]
            values = np.tanh(values + total)
        result = np.zeros((len(graph), 4))  # type: ignore[arg-type]
        np.add.at(result, crystal, values * graph.atom_count[:, None])  # type: ignore[attr-defined]
        return result

    np.testing.assert_allclose(pooled(merged), pooled(batch), atol=1e-5)
