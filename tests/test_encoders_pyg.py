"""MatGL on PyG: what differs from DGL (tests/test_encoders.py runs there, too); run by ``make test-pyg``."""

from __future__ import annotations

import dataclasses
import importlib.metadata
import importlib.util
import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from scotl_matgl.chemistry.crystals import Crystal
from scotl_matgl.encoders import pyg_backend
from scotl_matgl.encoders.matgl import load
from scotl_matgl.encoders.probes import IncompatibleWeightsError, reference_crystals
from scotl_matgl.sources import zoo
from scotl_matgl.sources.cards import SourceCard

CARDS = {card.name: card for card in zoo.matgl()}
ONE_EACH = [
    "MEGNet-MP-2018.6.1-Eform",
    "MEGNet-MP-2019.4.1-BandGap-mfi-HSE",
    "M3GNet-MP-2018.6.1-Eform",
    "M3GNet-MatPES-PBE-v2025.1-PES",
    "TensorNetDGL-MatPES-PBE-v2025.1-PES",
    "QET-MatQ-PES",
]

pytestmark = pytest.mark.skipif(
    importlib.util.find_spec("matgl") is None or importlib.metadata.version("matgl") < "4",
    reason="matgl 4 (PyG) is not installed here; `make test-pyg` runs these tests",
)


@pytest.fixture(scope="module")
def models(assets: Path) -> Path:
    import torch

    torch.set_num_threads(1)
    return assets / "models" / "matgl"


def triclinic() -> Crystal:
    """Four elements and no symmetry; no bond is near a cut-off."""
    record = json.loads((Path(__file__).parent / "data" / "matgl_embeddings.json").read_text(encoding="utf-8"))
    return Crystal(**record["crystals"][4])


@pytest.mark.parametrize("name", ONE_EACH)
def test_weights_that_are_not_converted_are_refused(name: str, models: Path) -> None:
    card = CARDS[name]
    as_it_is = dataclasses.replace(card, options={**card.options, "convention": 3})
    encoder = load(as_it_is, models / str(card.options["directory"]))
    with pytest.raises(IncompatibleWeightsError, match=rf"{name} does not give .*matgl 4\..*dgl absent"):
        encoder.encode([triclinic()])


def test_what_matgl_4_makes_of_megnet_without_a_conversion(models: Path) -> None:
    name = "MEGNet-MP-2018.6.1-Eform"
    card = dataclasses.replace(CARDS[name], options={**CARDS[name].options, "convention": 3})
    found = load(card, models / name, check=False).encode([reference_crystals()["CsCl"]], layer="final")
    # Measured with predict_structure of MatGL 4.1.2; right are -2.273 eV/atom.
    assert found.item() == pytest.approx(-1.922, abs=1e-3)


@pytest.mark.parametrize("name", ONE_EACH)
def test_graphs_and_pairs_of_bonds_are_those_of_matgl(name: str, models: Path) -> None:
    """The converted network gives through MatGL's own graphs and line graphs what it gives through ours."""
    import torch
    from matgl.ext.pymatgen import Structure2Graph
    from pymatgen.core import Structure

    card = CARDS[name]
    encoder = load(card, models / str(card.options["directory"]))
    crystal = triclinic()
    structure = Structure(crystal.lattice, crystal.numbers.tolist(), crystal.frac_coords)
    final = encoder.encode([crystal], layer="final").item()
    wrapper: Any = encoder._wrapper
    network: Any = wrapper.model
    if hasattr(wrapper, "transformer"):
        state = torch.tensor([card.options["state"]]) if "state" in card.options else torch.zeros(1, 2)
        assert wrapper.predict_structure(structure, state).item() == pytest.approx(final, abs=2e-5)
        return
    graph, lattice, _ = Structure2Graph(network.element_types, network.cutoff).get_graph(structure)
    energy = wrapper(graph, lattice)[0].item()
    assert energy / len(structure) == pytest.approx(final, abs=2e-5)


def of_matgl_4(name: str) -> SourceCard:
    """Card of weights that MatGL 4 wrote: nothing to convert, nothing known of the files."""
    card = CARDS[name]
    return dataclasses.replace(card, options={**card.options, "convention": 3}, weights={})


def test_weights_of_matgl_4_are_taken_if_the_probes_confirm_them(models: Path, tmp_path: Path) -> None:
    name = "MEGNet-MP-2018.6.1-Eform"
    published = load(CARDS[name], models / name)
    wrapper: Any = published._wrapper
    wrapper.save(tmp_path)
    crystals = [triclinic(), *reference_crystals().values()]
    found = load(of_matgl_4(name), tmp_path).encode(crystals)
    np.testing.assert_array_equal(found, published.encode(crystals))
    # The same, taken for weights of MatGL 2, would be converted a second time.
    with pytest.raises(IncompatibleWeightsError, match="does not give"):
        load(dataclasses.replace(CARDS[name], weights={}), tmp_path).encode(crystals)


@pytest.mark.parametrize("name", [name for name in ONE_EACH if name.endswith("PES")])
def test_checkpoints_of_matgl_4_are_read_as_matgl_reads_them(name: str, models: Path, tmp_path: Path) -> None:
    """Networks of MatGL 4 with random weights, saved by it."""
    import torch
    from matgl import load_model
    from matgl.apps.pes import Potential
    from matgl.ext.pymatgen import Structure2Graph
    from pymatgen.core import Structure

    torch.manual_seed(5)
    published: Any = load(CARDS[name], models / name)._wrapper.model
    fresh = type(published)(**published._init_args)
    Potential(fresh, data_std=2.0, element_refs=np.arange(len(fresh.element_types)) / 10).save(tmp_path)
    crystal = triclinic()
    found = load(of_matgl_4(name), tmp_path, check=False).encode([crystal], layer="final").item()
    structure = Structure(crystal.lattice, crystal.numbers.tolist(), crystal.frac_coords)
    graph, lattice, _ = Structure2Graph(fresh.element_types, fresh.cutoff).get_graph(structure)
    expected = load_model(tmp_path)(graph, lattice)[0].item() / len(structure)
    assert found == pytest.approx(expected, abs=2e-5)


def test_a_network_is_changed_by_itself_and_not_by_its_class(models: Path) -> None:
    """Another model of the process, loaded by MatGL, must not notice."""
    name = "M3GNet-MP-2018.6.1-Eform"
    network: Any = load(CARDS[name], models / name)._wrapper.model
    convolution = network.graph_layers[0].conv
    assert convolution.node_update_.__func__ is pyg_backend._add_up_at_end
    assert type(convolution).node_update_ is not pyg_backend._add_up_at_end
    assert type(network)(**network._init_args).graph_layers[0].conv.node_update_.__func__ is (
        type(convolution).node_update_
    )


def test_conversions_exchange_the_two_atoms_of_a_bond() -> None:
    import torch

    megnet = "model.blocks.0.conv.edge_func.layers.0.weight"
    state = {megnet: torch.arange(8.0).reshape(1, 8), "model.other": torch.ones(1, 8)}
    found = pyg_backend.convert("MEGNet", state, 2)
    assert found[megnet].tolist() == [[2, 3, 0, 1, 4, 5, 6, 7]]
    assert found["model.other"] is state["model.other"]
    assert state[megnet].tolist() == [[0, 1, 2, 3, 4, 5, 6, 7]]
    assert pyg_backend.convert("MEGNet", state, 3)[megnet] is state[megnet]
    tensornet = "model.tensor_embedding.emb2.weight"
    halves = pyg_backend.convert("QET", {tensornet: torch.arange(4.0).reshape(1, 4)}, 2)
    assert halves[tensornet].tolist() == [[2, 3, 0, 1]]
    names = pyg_backend.convert("M3GNet", {"model.readout.set2set.lstm.bias_hh_l0": torch.zeros(1)}, 3)
    assert list(names) == ["model.readout.lstm.bias_hh_l0"]


def test_crystal_means_are_those_of_numpy() -> None:
    import torch

    rng = np.random.default_rng(3)
    crystal, source = np.array([0, 0, 1, 2, 2, 2]), np.array([0, 1, 1, 2, 3, 4, 5, 5], dtype=np.int32)
    graph = SimpleNamespace(
        batch=torch.from_numpy(crystal), edge_index=torch.from_numpy(np.stack([source, source])), num_graphs=3
    )
    for of, index in (("atoms", crystal), ("bonds", crystal[source])):
        values = rng.normal(size=(len(index), 5)).astype(np.float32)
        found = pyg_backend.crystal_means(graph, torch.from_numpy(values), of).numpy()
        np.testing.assert_allclose(found, [values[index == i].mean(axis=0) for i in range(3)], rtol=1e-6)
