"""Encoders against MatGL itself, its published values, and the laws that an embedding of a crystal obeys.

They run with MatGL on DGL (``make test``) and with MatGL on PyG (``make test-pyg``), with the same expectations.
"""

from __future__ import annotations

import dataclasses
import email.message
import gzip
import importlib.metadata
import importlib.util
import io
import itertools
import json
import os
import pickle
import re
import shutil
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from scotl_matgl.chemistry.crystals import Crystal
from scotl_matgl.encoders import probes
from scotl_matgl.encoders.base import GraphEncoder, encode_crystals
from scotl_matgl.encoders.checkpoints import CheckpointError
from scotl_matgl.encoders.contracts import SourceEncoder
from scotl_matgl.encoders.graphs import CrystalGraph
from scotl_matgl.encoders.matgl import BATCH_EDGES, MatGLEncoder, load
from scotl_matgl.encoders.probes import IncompatibleWeightsError, reference_crystals
from scotl_matgl.encoders.weights import find_model
from scotl_matgl.sources import zoo
from scotl_matgl.sources.cards import SourceCard

CARDS = {card.name: card for card in zoo.matgl()}
ONE_EACH = [
    "MEGNet-MP-2019.4.1-BandGap-mfi-PBE",
    "M3GNet-MP-2018.6.1-Eform",
    "M3GNet-MatPES-PBE-v2025.1-PES",
    "TensorNetDGL-MatPES-PBE-v2025.1-PES",
    "QET-MatQ-PES",
]

# MatGL 2.1.2 with DGL 1.1.3: predict_structure, for potentials the energy of its ASE calculator per atom. Cubic cells
# of CsCl 4.14, NaCl 5.69, MgO 4.25 and Si 5.47 Å.
PUBLISHED = {
    "MEGNet-MP-2018.6.1-Eform": (-2.273, -2.114, -3.078, 0.026),
    "MEGNet-MP-2019.4.1-BandGap-mfi-PBE": (4.798, 5.031, 0.313, -0.007),
    "MEGNet-MP-2019.4.1-BandGap-mfi-GLLB-SC": (8.290, 9.258, 3.369, 0.935),
    "MEGNet-MP-2019.4.1-BandGap-mfi-HSE": (6.297, 6.207, 0.250, 0.278),
    "MEGNet-MP-2019.4.1-BandGap-mfi-SCAN": (5.960, 5.773, 5.295, 1.376),
    "M3GNet-MP-2018.6.1-Eform": (-2.219, -2.101, -3.049, 0.011),
    "M3GNet-MP-2021.2.8-PES": (-3.271, -3.368, -5.956, -5.419),
    "M3GNet-MatPES-PBE-v2025.1-PES": (-3.222, -3.369, -5.909, -4.877),
    "M3GNet-MatPES-r2SCAN-v2025.1-PES": (-17.760, -6.873, -8.017, -8.089),
    "TensorNetDGL-MatPES-PBE-v2025.1-PES": (-3.250, -3.397, -5.917, -5.432),
    "TensorNetDGL-MatPES-r2SCAN-v2025.1-PES": (-17.755, -6.873, -8.024, -8.725),
    "QET-MatQ-PES": (-3.262, -3.370, -5.939, -5.412),
}

needs_dgl = pytest.mark.skipif(
    importlib.util.find_spec("dgl") is None, reason="it asks MatGL on DGL, which is not installed here"
)

#: Components of every layer as MatGL 2.1.2 on DGL gives them; written by tools/compare_backends.py.
RECORDED = Path(__file__).parent / "data" / "matgl_embeddings.json"


def largest_deviation(found: np.ndarray, expected: np.ndarray) -> float:
    """Relative to the largest value, NaN if a row is missing."""
    return float(np.abs(found - expected).max() / np.abs(expected).max())


@pytest.fixture(scope="session")
def models(assets: Path) -> Path:
    if importlib.util.find_spec("matgl") is None:
        reason = "matgl is not installed: pip install 'scotl-matgl[dgl]' (Python 3.11) or 'scotl-matgl[pyg]'"
        if os.environ.get("CI"):
            pytest.fail(reason)
        pytest.skip(reason)
    return assets / "models" / "matgl"


@pytest.fixture(scope="session")
def encoder_of(models: Path) -> Any:
    import torch

    torch.set_num_threads(1)
    loaded: dict[str, MatGLEncoder] = {}

    def get(name: str) -> MatGLEncoder:
        if name not in loaded:
            card = CARDS[name]
            loaded[name] = load(card, models / str(card.options["directory"]))
        return loaded[name]

    return get


@pytest.fixture(scope="session")
def structures(assets: Path) -> list[Any]:
    """Twelve crystals of the corpus, of up to 40 atoms, as pymatgen structures."""
    from pymatgen.core import Structure

    with gzip.open(assets / "structures" / "crystals.json.gz", "rt") as file:
        records = json.load(file)
    rows = np.random.default_rng(7).choice(len(records), 40, replace=False)
    chosen = [records[row]["structure"] for row in rows if records[row]["natoms"] <= 40][:12]
    return [Structure.from_str(text, fmt="poscar") for text in chosen]


@pytest.fixture(scope="session")
def crystals(structures: list[Any]) -> list[Any]:
    """The same and two at the edge: one atom per cell; no pair of bonds within the three-body cut-off of 4 Å."""
    copper = 3.61 / 2 * np.array([[0.0, 1, 1], [1, 0, 1], [1, 1, 0]])
    return [
        *structures,
        Crystal(copper, [[0, 0, 0]], [29], "Cu"),
        Crystal(4.5 * np.eye(3), [[0, 0, 0]], [54], "Xe"),
    ]


def test_every_published_model_has_a_card() -> None:
    assert set(CARDS) == set(PUBLISHED)
    # Of the others that MatGL trains nothing is published; they join as someone's own.
    assert set(BATCH_EDGES) == {card.architecture for card in CARDS.values()} | {"SO3Net", "CHGNet"}


@pytest.mark.parametrize("name", PUBLISHED)
def test_published_values_are_reproduced(name: str, encoder_of: Any) -> None:
    encoder = encoder_of(name)
    found = probes.probe(encoder)
    assert list(found.values()) == pytest.approx(PUBLISHED[name], abs=2e-3)
    assert found == pytest.approx(dict(encoder.card.probes), abs=1e-4)
    assert isinstance(encoder, SourceEncoder)
    assert encoder.elements == tuple(encoder.card.elements)


def hooked_layers(name: str, network: Any, graph: Any, state: Any) -> tuple[dict[str, Any], Any]:
    """Layers of one crystal by MatGL's own forward pass, and its output."""
    import torch
    from matgl.utils.maths import decompose_tensor, tensor_norm

    captured: dict[str, Any] = {}

    def tap(module: Any, take: Any) -> None:
        module.register_forward_hook(lambda _, inputs, output: captured.update(take(inputs, output)))

    def norms(tensor: Any) -> Any:
        return torch.cat([tensor_norm(part) for part in decompose_tensor(tensor)], dim=-1).mean(0)

    if name.startswith("MEGNet"):
        tap(network.output_proj, lambda inputs, _: {"readout": inputs[0]})
        tap(network.output_proj.layers[-1], lambda inputs, _: {"penultimate": inputs[0]})
        for i, block in enumerate(network.blocks, 1):
            tap(
                block,
                lambda _, out, i=i: {
                    f"block_{i}_edge": out[0].mean(0),
                    f"block_{i}_node": out[1].mean(0),
                    f"block_{i}_state": out[2],
                },
            )
        output = network(g=graph, state_attr=state)
    elif name.startswith("M3GNet"):
        for i, layer in enumerate(network.graph_layers, 1):
            tap(layer, lambda _, out, i=i: {f"gc_{i}": out[1].mean(0), "readout": out[1].mean(0)})
        if network.is_intensive:
            tap(network.final_layer, lambda inputs, _: {"readout": inputs[0]})
            tap(network.final_layer.layers[-1], lambda inputs, _: {"penultimate": inputs[0]})
        output = network(g=graph)
    else:
        tap(network.linear, lambda _, out: {"readout": out.mean(0)})
        tap(network.tensor_embedding, lambda _, out: {"embedding": norms(out[0])})
        for i, layer in enumerate(network.layers, 1):
            tap(layer, lambda _, out, i=i: {f"gc_{i}": norms(out)})
        output = network(g=graph, total_charge=torch.zeros(1))
    return {layer: value.detach().numpy().ravel() for layer, value in captured.items()}, output.detach()


@needs_dgl
@pytest.mark.filterwarnings("ignore:Incompatible model version detected:UserWarning")
@pytest.mark.parametrize("name", ONE_EACH)
def test_every_layer_is_that_of_matgl(name: str, encoder_of: Any, models: Path, structures: list[Any]) -> None:
    import dgl
    import torch

    encoder = encoder_of(name)  # the import of matgl comes after: loading chooses its backend
    import matgl
    from matgl.ext.pymatgen import Structure2Graph

    wrapper = matgl.load_model(models / str(encoder.card.options["directory"]))
    network = wrapper.model
    converter = Structure2Graph(network.element_types, network.cutoff)
    expected: dict[str, list[np.ndarray]] = {layer: [] for layer in encoder.layers}
    for structure in structures:
        graph, _, _ = converter.get_graph(structure)
        # Bonds in double precision and atoms at the origin: single-precision positions alone cost 1e-5.
        source, destination = graph.edges()
        steps = structure.frac_coords[destination] - structure.frac_coords[source] + graph.edata["pbc_offset"].numpy()
        vector = torch.tensor(steps @ structure.lattice.matrix, dtype=torch.float32)
        graph.ndata["pos"] = torch.zeros(len(structure), 3)
        graph.edata["pbc_offshift"] = vector
        if name.startswith("M3GNet"):
            # MatGL numbers the bonds of the line graph after pruning: right in its own graph only if the short bonds
            # are in front.
            order = torch.argsort((vector.norm(dim=1) > network.threebody_cutoff).int(), stable=True)
            sorted_graph = dgl.graph((source[order], destination[order]), num_nodes=graph.num_nodes())
            sorted_graph.ndata.update(graph.ndata)
            sorted_graph.edata.update({key: value[order] for key, value in graph.edata.items()})
            graph = sorted_graph
        state = torch.tensor([0]) if "mfi" in name else torch.zeros(2)
        layers, output = hooked_layers(name, network, graph, state)
        if hasattr(wrapper, "transformer"):
            layers["final"] = np.ravel(wrapper.transformer.inverse_transform(output))
        else:
            energy = wrapper.data_std * output + wrapper.data_mean + wrapper.element_refs(graph)
            layers["final"] = np.ravel(energy) / len(structure)
        for layer in encoder.layers:
            expected[layer].append(layers[layer])

    found = encoder.encode_layers(structures, layers=encoder.layers)
    assert not found.refused
    for layer, width in encoder.card.layers.items():
        values = found.embeddings[layer]
        assert values.shape == (len(structures), width)
        assert values.dtype == np.float32
        assert largest_deviation(values, np.array(expected[layer])) < 1.5e-5, layer


@needs_dgl
@pytest.mark.filterwarnings("ignore:Incompatible model version detected:UserWarning")
@pytest.mark.filterwarnings("ignore:For a single graph")
@pytest.mark.parametrize("name", ["MEGNet-MP-2018.6.1-Eform", "M3GNet-MatPES-r2SCAN-v2025.1-PES"])
def test_predictions_are_those_of_predict_structure(
    name: str, encoder_of: Any, models: Path, structures: list[Any]
) -> None:
    encoder = encoder_of(name)
    import matgl

    wrapper = matgl.load_model(models / str(encoder.card.options["directory"]))
    final = encoder.encode(structures, layer="final")[:, 0]
    if name.startswith("MEGNet"):
        expected = [float(wrapper.predict_structure(structure)) for structure in structures]
        np.testing.assert_allclose(final, expected, atol=1e-5)
        return
    offsets = dict(zip(encoder.elements, wrapper.element_refs.property_offset.tolist(), strict=True))
    energies = [
        float(wrapper.data_std * wrapper.model.predict_structure(structure) + wrapper.data_mean)
        + sum(offsets[site.specie.symbol] for site in structure)
        for structure in structures
    ]
    # The misnumbered line graph of MatGL's own graphs costs up to 1e-3 eV/atom.
    np.testing.assert_allclose(final, np.array(energies) / [len(s) for s in structures], atol=1e-3)


@pytest.mark.parametrize("name", PUBLISHED)
def test_embeddings_are_those_on_record(name: str, encoder_of: Any) -> None:
    record = json.loads(RECORDED.read_text(encoding="utf-8"))
    assert set(record["sources"]) == set(PUBLISHED)
    encoder = encoder_of(name)
    found = encoder.encode_layers([Crystal(**cell) for cell in record["crystals"]], layers=encoder.layers)
    assert not found.refused
    layers = record["sources"][name]
    assert set(layers) == set(encoder.layers)
    for layer, expected in layers.items():
        values = found.embeddings[layer][:, expected["columns"]]
        limit = 1e-4 * expected["largest"]
        np.testing.assert_allclose(values, expected["values"], rtol=0, atol=limit, err_msg=layer)


@pytest.mark.parametrize("name", PUBLISHED)
def test_a_batch_gives_what_crystals_give_alone(name: str, encoder_of: Any, crystals: list[Any]) -> None:
    encoder = encoder_of(name)
    together = encoder.encode_layers(crystals, layers=encoder.layers)
    alone = encoder.encode_layers(crystals, layers=encoder.layers, batch_edges=1)
    for layer in encoder.layers:
        keep = [i for i in range(len(crystals)) if i not in together.refused]
        assert largest_deviation(together.embeddings[layer][keep], alone.embeddings[layer][keep]) < 1e-5, layer
    # Only MEGNet's 4 Å leave the xenon, with neighbours at 4.5 Å, alone.
    assert together.refused == alone.refused
    assert list(together.refused) == ([13] if encoder.cutoff == 4.0 else [])


@pytest.mark.parametrize("name", ["MEGNet-MP-2018.6.1-Eform", *ONE_EACH])
def test_embeddings_do_not_depend_on_the_description_of_the_crystal(
    name: str, encoder_of: Any, structures: list[Any]
) -> None:
    encoder = encoder_of(name)
    rng = np.random.default_rng(11)
    rotation = np.linalg.qr(rng.normal(size=(3, 3)))[0]
    rotation *= np.sign(np.linalg.det(rotation))
    originals, permuted, doubled, rotated, shifted = [], [], [], [], []
    for structure in structures[:6]:
        lattice, frac = np.array(structure.lattice.matrix), np.array(structure.frac_coords)
        numbers = np.array(structure.atomic_numbers)
        order = rng.permutation(len(numbers))
        originals.append(Crystal(lattice, frac, numbers))
        permuted.append(Crystal(lattice, frac[order], numbers[order]))
        rotated.append(Crystal(lattice @ rotation.T, frac, numbers))
        shifted.append(Crystal(lattice, frac + rng.integers(-20, 20, frac.shape) + [0.3, 0.6, 0.9], numbers))
        twice = np.vstack([frac, frac + np.array([0, 1, 0])]) / [1, 2, 1]
        doubled.append(Crystal(lattice * [[1], [2], [1]], twice, np.tile(numbers, 2)))
    expected = encoder.encode_layers(originals, layers=encoder.layers).embeddings
    for variant in (permuted, doubled, rotated, shifted):
        found = encoder.encode_layers(variant, layers=encoder.layers).embeddings
        for layer in encoder.layers:
            assert largest_deviation(found[layer], expected[layer]) < 5e-5, layer


def bad_crystals() -> list[tuple[Any, str]]:
    """What no model should be given, and how the reason reads."""
    from pymatgen.core import DummySpecies, Lattice, Molecule, Structure

    cell = Lattice.cubic(5.5)
    two = [[0, 0, 0], [0.5, 0.5, 0.5]]
    not_finite = Structure(cell, ["Na", "Cl"], [[0, 0, 0], [0.5, np.nan, 0.5]])
    return [
        (Structure(cell, ["Po", "O"], two), r"the model does not know Po"),
        (Structure(cell, [{"Na": 0.5, "K": 0.5}, "Cl"], two), r"site 0 .* disordered"),
        (Structure(cell, [DummySpecies("X"), "Cl"], two), r"dummy species"),
        (Structure(cell, ["Na", "Cl", "Cl"], [*two, [0.5, 0.5, 0.52]]), r"overlap: Cl \(site 1\) and Cl \(site 2\)"),
        (not_finite, r"atom 1 are NaN"),
        (Molecule(["O", "H"], [[0, 0, 0], [0, 0, 1]]), r"molecule"),
        (Structure(Lattice.cubic(30), ["Na"], [[0, 0, 0]]), r"Na \(site 0\) has no neighbour"),
        (Structure(Lattice.cubic(30), ["Na", "Cl", "K"], [[0, 0, 0], [0.1, 0, 0], two[1]]), r"K \(site 2\) has no"),
        ("NaCl", r"a str is no crystal"),
    ]


@pytest.mark.parametrize("name", ONE_EACH)
def test_bad_crystals_are_refused_and_leave_the_others_alone(name: str, encoder_of: Any, structures: list[Any]) -> None:
    encoder = encoder_of(name)
    bad = bad_crystals()
    good = structures[: len(bad)]
    mixed = list(
        itertools.chain.from_iterable((bad_one, good_one) for (bad_one, _), good_one in zip(bad, good, strict=True))
    )
    found = encoder.encode_layers(mixed, layers=("readout", "final"))
    expected = encoder.encode_layers(good, layers=("readout", "final"))
    assert list(found.refused) == list(range(0, 2 * len(bad), 2))
    for (_, pattern), reason in zip(bad, found.refused.values(), strict=True):
        assert re.search(pattern, reason), reason
    for layer, values in found.embeddings.items():
        assert np.isnan(values[::2]).all()
        assert largest_deviation(values[1::2], expected.embeddings[layer]) < 1e-5


# --- what every encoder shares, without any model ---------------------------------------------------------------------


def volumes(graphs: Sequence[CrystalGraph]) -> dict[str, np.ndarray]:
    return {"readout": np.array([[abs(np.linalg.det(graph.lattice))] for graph in graphs], np.float32)}


def cubes(edges: Sequence[float]) -> list[Crystal]:
    return [Crystal(edge * np.eye(3), [[0, 0, 0]], [29]) for edge in edges]


def test_a_failure_inside_a_batch_costs_the_culprit_only() -> None:
    sizes: list[int] = []

    def fails_on_three(graphs: Sequence[CrystalGraph]) -> dict[str, np.ndarray]:
        sizes.append(len(graphs))
        if any(graph.lattice[0, 0] == 3.0 for graph in graphs):
            raise IndexError("three is too much")
        return volumes(graphs)

    steps: list[tuple[int, int]] = []
    found = encode_crystals(
        cubes([2.0, 3.0, 2.5, 4.0]),
        fails_on_three,
        widths={"readout": 1},
        cutoff=5.0,
        batch_edges=10**6,
        progress=lambda done, total: steps.append((done, total)),
    )
    np.testing.assert_allclose(found.embeddings["readout"].ravel(), [8.0, np.nan, 15.625, 64.0])
    assert found.refused == {1: "the model failed on it: IndexError: three is too much"}
    assert sizes == [4, 1, 1, 1, 1]
    assert steps == [(4, 4)]


def test_values_that_are_not_finite_are_refused() -> None:
    def overflows(graphs: Sequence[CrystalGraph]) -> dict[str, np.ndarray]:
        values = volumes(graphs)["readout"]
        return {"readout": values, "final": np.where(values > 20, np.inf, values)}

    found = encode_crystals(
        cubes([2.0, 3.0, 2.5]), overflows, widths={"readout": 1, "final": 1}, cutoff=5.0, batch_edges=1
    )
    assert found.refused == {1: "the model gives values for it that are not finite"}
    for values in found.embeddings.values():
        np.testing.assert_allclose(values.ravel(), [8.0, np.nan, 15.625], rtol=1e-6)


def test_an_interrupt_is_not_swallowed() -> None:
    def interrupted(_: Sequence[CrystalGraph]) -> dict[str, np.ndarray]:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        encode_crystals(cubes([2.0]), interrupted, widths={"readout": 1}, cutoff=5.0, batch_edges=1)


class Coordination(GraphEncoder):
    """Counts neighbours; raises `interrupt` instead, once, if there is one."""

    _advice = "Count again."
    interrupt: BaseException | None = None

    def _forward(self, graphs: Sequence[CrystalGraph], layers: Sequence[str], device: Any) -> dict[str, np.ndarray]:
        if self.interrupt is not None:
            interrupt, self.interrupt = self.interrupt, None
            raise interrupt
        counts = np.array([[graph.n_bonds / graph.n_atoms] for graph in graphs], dtype=np.float32)
        return dict.fromkeys(layers, counts)


def coordination(probes: dict[str, float], **options: Any) -> Coordination:
    layers = {"readout": 1, "final": 1} if probes else {"readout": 1}
    card = dataclasses.replace(MEGNET, name="counts", layers=layers, elements=("Na", "Cl", "Mg", "O"), probes=probes)
    return Coordination(card, cutoff=3.0, batch_edges=100, **options)


@pytest.mark.torch
def test_a_graph_encoder_needs_no_more_than_how_a_batch_is_run() -> None:
    encoder = coordination({})
    assert (encoder.layers, dict(encoder.widths), encoder.cutoff) == (("readout",), {"readout": 1}, 3.0)
    crystals = reference_crystals()
    found = encoder.encode_layers([crystals["NaCl"], crystals["Si"], crystals["MgO"]], layers=("readout",))
    np.testing.assert_array_equal(found.embeddings["readout"].ravel(), [6.0, np.nan, 6.0])
    assert list(found.refused) == [1]
    every = coordination({}, elements=(), widths={"readout": 1, "second": 1})
    np.testing.assert_array_equal(every.encode([crystals["NaCl"], crystals["Si"]], layer="second").ravel(), [6.0, 4.0])
    with pytest.raises(
        ValueError, match=r"counts has no layer 'secnd'; did you mean 'second'\? it has readout, second"
    ):
        every.encode([crystals["NaCl"]], layer="secnd")


@pytest.mark.torch
def test_probes_are_checked_again_after_an_interrupt() -> None:
    crystal = reference_crystals()["NaCl"]
    assert coordination({"NaCl": 6.0}).encode([crystal]).item() == 6.0
    assert coordination({"NaCl": 5.0}, check=False).encode([crystal]).item() == 6.0
    encoder = coordination({"NaCl": 5.0, "MgO": 6.0})
    encoder.interrupt = KeyboardInterrupt()
    with pytest.raises(KeyboardInterrupt):
        encoder.encode([crystal])
    with pytest.raises(
        IncompatibleWeightsError, match=r"\(eV/atom\): NaCl 6\.0000 instead of 5\.0000\. Count again\.$"
    ):
        encoder.encode([crystal])


def test_no_crystal_gives_no_row() -> None:
    found = encode_crystals([], volumes, widths={"readout": 1}, cutoff=5.0, batch_edges=1)
    assert found.embeddings["readout"].shape == (0, 1)


# --- loading ----------------------------------------------------------------------------------------------------------

MEGNET = CARDS["MEGNet-MP-2018.6.1-Eform"]


def copy_of(models: Path, tmp_path: Path, card: SourceCard = MEGNET) -> Path:
    directory = tmp_path / str(card.options["directory"])
    directory.mkdir()
    for file in ("model.json", "model.pt", "state.pt"):
        shutil.copyfile(models / directory.name / file, directory / file)
    return directory


def without_sums(card: SourceCard) -> SourceCard:
    return dataclasses.replace(card, weights={})


def test_tampered_weights_are_refused(models: Path, tmp_path: Path) -> None:
    import torch

    directory = copy_of(models, tmp_path)
    state = torch.load(directory / "state.pt", weights_only=True)
    state["model.output_proj.layers.0.weight"] *= 1.01
    torch.save(state, directory / "state.pt")
    with pytest.raises(IncompatibleWeightsError, match=r"state\.pt is not the file of the card"):
        load(MEGNET, directory)
    # The probes find it by themselves, too, every time and before anything is given out.
    encoder = load(without_sums(MEGNET), directory)
    for _ in range(2):
        with pytest.raises(
            IncompatibleWeightsError, match=r"CsCl -\d.*instead of -2\.2732.*torch .*2\.0\.4 to 2\.1\.2"
        ):
            encoder.encode(list(reference_crystals().values()))
    assert np.isfinite(load(MEGNET, directory, check=False).encode(list(reference_crystals().values()))).all()


def test_weights_that_nothing_confirms_are_refused(models: Path) -> None:
    card = dataclasses.replace(MEGNET, weights={}, probes={})
    with pytest.raises(IncompatibleWeightsError, match=r"neither the sha256 of state\.pt nor probes"):
        load(card, models / MEGNET.name)
    assert load(dataclasses.replace(MEGNET, weights={}), models / MEGNET.name).encode(cubes([3.6])).shape == (1, 160)


@needs_dgl
def test_weights_for_another_message_passing_are_refused(models: Path) -> None:
    card = dataclasses.replace(MEGNET, options={**MEGNET.options, "convention": 3})
    with pytest.raises(IncompatibleWeightsError, match=r"for the message passing of MatGL 3; the installed matgl 2\."):
        load(card, models / MEGNET.name)


@pytest.mark.parametrize("version", ["1.3.0", "2.2.1", "3.0.4", "4.0.3", "5.0.0"])
def test_versions_that_read_the_weights_wrongly_are_refused(
    version: str, models: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(importlib.metadata, "version", lambda _: version)
    with pytest.raises(RuntimeError, match=rf"matgl {version} is installed.*scotl-matgl\[dgl\].*scotl-matgl\[pyg\]"):
        load(MEGNET, models / MEGNET.name)


def test_an_absent_matgl_is_an_error_that_says_what_to_install(models: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def absent(name: str) -> str:
        raise importlib.metadata.PackageNotFoundError(name)

    monkeypatch.setattr(importlib.metadata, "version", absent)
    with pytest.raises(ModuleNotFoundError, match=r"need matgl, which is missing: pip install 'scotl-matgl\[dgl\]'"):
        load(MEGNET, models / MEGNET.name)


class Intruder:
    def __init__(self, target: Path) -> None:
        self.target = target

    def __reduce__(self) -> tuple[Any, ...]:
        return (Path.touch, (self.target,))


@pytest.mark.parametrize("file", ["model.pt", "state.pt"])
def test_nothing_in_a_checkpoint_is_executed(file: str, models: Path, tmp_path: Path) -> None:
    import torch

    directory = copy_of(models, tmp_path)
    target = tmp_path / "executed"
    torch.save({"model": Intruder(target)}, directory / file)
    with pytest.raises(CheckpointError, match="it was not executed"):
        load(without_sums(MEGNET), directory)
    assert not target.exists()
    with (directory / file).open("wb") as stream:  # the old format of torch.save is a plain pickle
        pickle.dump(Intruder(target), stream, protocol=2)
    with pytest.raises(CheckpointError, match="it was not executed"):
        load(without_sums(MEGNET), directory)
    assert not target.exists()


def test_other_classes_and_other_weights_are_refused(models: Path, tmp_path: Path) -> None:
    import torch

    with pytest.raises(CheckpointError, match=r"Potential of TensorNet \(module matgl\.models\._tensornet_pyg\)"):
        load(without_sums(MEGNET), models / "TensorNet-MatPES-PBE-v2025.1-PES")
    directory = copy_of(models, tmp_path)
    (directory / "model.json").write_text(json.dumps({"@class": "Popen", "@module": "subprocess"}))
    with pytest.raises(CheckpointError, match="is a Popen of MEGNet"):
        load(without_sums(MEGNET), directory)
    shutil.copyfile(models / directory.name / "model.json", directory / "model.json")
    state = torch.load(directory / "state.pt", weights_only=True)
    state["model.output_proj.layers.9.weight"] = state.pop("model.output_proj.layers.0.weight")
    torch.save(state, directory / "state.pt")
    with pytest.raises(CheckpointError, match=r"missing \['model\.output_proj\.layers\.0\.weight'\], unexpected"):
        load(without_sums(MEGNET), directory)


def test_a_card_with_a_wrong_layer_is_refused(models: Path) -> None:
    card = dataclasses.replace(MEGNET, layers={"readout": 128})
    with pytest.raises(CheckpointError, match="lists the layer 'readout' with width 128; the model has readout 160"):
        load(card, models / "MEGNet-MP-2018.6.1-Eform")


def test_a_missing_model_is_named_with_the_places_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("SCOTL_MATGL_ASSETS", str(tmp_path / "assets"))
    name = "MEGNet-MP-2018.6.1-Eform"
    with pytest.raises(FileNotFoundError) as error:
        load(MEGNET)
    assert str(tmp_path / "assets" / "models" / "matgl" / name) in str(error.value)
    assert str(tmp_path / ".cache" / "matgl" / name) in str(error.value)
    assert "download=True" in str(error.value)
    monkeypatch.delenv("SCOTL_MATGL_ASSETS")
    with pytest.raises(FileNotFoundError, match="SCOTL_MATGL_ASSETS is not set"):
        load(MEGNET)
    with pytest.raises(FileNotFoundError, match="looked for in /nowhere"):
        load(MEGNET, "/nowhere")


def test_models_are_found_in_the_caches_of_matgl(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv("SCOTL_MATGL_ASSETS", raising=False)
    cache = tmp_path / ".cache" / "matgl"
    for place in (
        cache / "models--materialyze--MEGNet-Eform-MP-2018.6.1" / "snapshots" / "abc",
        cache / "models--Materialyze--MEGNet-MP-2018.6.1-Eform" / "snapshots" / "abc",
        cache / MEGNET.name,
    ):
        place.mkdir(parents=True)
        for file in ("model.json", "model.pt", "state.pt"):
            (place / file).touch()
        assert find_model(MEGNET) == place


def test_a_download_is_left_to_matgl(models: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    load(MEGNET, models / MEGNET.name)
    import matgl.utils.io

    asked = []

    def downloads(path: Path, str_path: str) -> dict[str, Path]:
        asked.append((path, str_path))
        return {file: models / str_path / file for file in ("model.json", "model.pt", "state.pt")}

    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv("SCOTL_MATGL_ASSETS", raising=False)
    monkeypatch.setattr(matgl.utils.io, "_get_file_paths", downloads)
    monkeypatch.setattr(urllib.request, "urlopen", lambda *_, **__: io.BytesIO())
    assert find_model(MEGNET, download=True) == models / MEGNET.name
    assert asked == [(Path(MEGNET.name), MEGNET.name)]


def test_the_hub_is_asked_for_both_names_and_its_answer_is_passed_on(
    models: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    load(MEGNET, models / MEGNET.name)
    import matgl.utils.io

    def knows_nothing(path: Path, str_path: str) -> dict[str, Path]:
        raise ValueError(f"No valid model found for {str_path!r}")

    def not_found(*_: Any, **__: Any) -> None:  # a server that answers, though with an error
        raise urllib.error.HTTPError("https://huggingface.co", 404, "Not Found", email.message.Message(), None)

    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv("SCOTL_MATGL_ASSETS", raising=False)
    monkeypatch.setattr(matgl.utils.io, "_get_file_paths", knows_nothing)
    monkeypatch.setattr(urllib.request, "urlopen", not_found)
    with pytest.raises(FileNotFoundError, match=r"for 'MEGNet-MP-2018\.6\.1-Eform'; .*'MEGNet-Eform-MP-2018\.6\.1'"):
        find_model(MEGNET, download=True)


def test_without_a_network_a_download_fails_before_matgl_tries(
    models: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    load(MEGNET, models / MEGNET.name)
    import matgl.utils.io

    def unreachable(*_: Any, timeout: float) -> None:
        assert timeout <= 5
        raise urllib.error.URLError("Name or service not known")

    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv("SCOTL_MATGL_ASSETS", raising=False)
    monkeypatch.setattr(matgl.utils.io, "_get_file_paths", lambda *_, **__: pytest.fail("MatGL retries for long"))
    monkeypatch.setattr(urllib.request, "urlopen", unreachable)
    with pytest.raises(FileNotFoundError, match=r"huggingface\.co does not answer .*Name or service not known"):
        find_model(MEGNET, download=True)


@needs_dgl
def test_another_backend_is_an_error_that_says_what_to_do(
    encoder_of: Any, models: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    encoder_of(MEGNET.name)
    import matgl.config

    monkeypatch.setattr(matgl.config, "BACKEND", "PYG")
    with pytest.raises(RuntimeError, match=r"imported with its PYG backend.*MATGL_BACKEND=DGL"):
        load(MEGNET, models / MEGNET.name)


def test_an_unknown_layer_is_an_error_that_helps(encoder_of: Any) -> None:
    with pytest.raises(ValueError, match=r"no layer 'read_out'; did you mean 'readout'\? it has readout, penultimate"):
        encoder_of(MEGNET.name).encode([], layer="read_out")


@pytest.mark.parametrize("name", ONE_EACH)
def test_no_hook_stays_behind(name: str, encoder_of: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    encoder = encoder_of(name)
    network = encoder._network

    def fails(*_: Any, **__: Any) -> None:
        raise IndexError("on purpose")

    with monkeypatch.context() as patch:
        patch.setattr(network, "forward", fails)
        found = encoder.encode_layers(cubes([3.6]), layers=encoder.layers)
        assert found.refused == {0: "the model failed on it: IndexError: on purpose"}
    assert np.isfinite(encoder.encode(cubes([3.6]))).all()
    assert not [module for module in network.modules() if module._forward_hooks]


def test_a_run_says_nothing_and_imports_late(models: Path) -> None:
    program = """
import os, sys
from scotl_matgl.sources import zoo
from scotl_matgl.encoders import base, dgl_backend, fast, graphs, matgl, probes, pyg_backend
heavy = {"torch", "dgl", "torch_geometric", "matgl", "matminer", "pymatgen"} & set(sys.modules)
assert not heavy, heavy
before = dict(os.environ)
card = zoo.matgl()[0]
encoder = matgl.load(card, os.path.join(sys.argv[1], card.options["directory"]))
assert encoder.encode(list(probes.reference_crystals().values())).shape == (4, card.width)
assert {key: os.environ.get(key) for key in before} == before and "MATGL_BACKEND" not in os.environ
"""
    environment = {key: value for key, value in os.environ.items() if key not in ("MATGL_BACKEND", "DGLBACKEND")}
    run = subprocess.run(  # noqa: S603 - the program is the text above
        [sys.executable, "-c", program, str(models)], capture_output=True, text=True, env=environment, check=False
    )
    assert (run.returncode, run.stdout, run.stderr) == (0, "", "")
