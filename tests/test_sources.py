"""Sources that read formulas: networks equal to torch's, files that are the cards', descriptors computed once."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
import subprocess
import sys
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest

from scotl_matgl.bridges.base import split_by_group
from scotl_matgl.bridges.embedding import embed_source
from scotl_matgl.chemistry.compositions import parse_compositions
from scotl_matgl.chemistry.corpus import Corpus
from scotl_matgl.chemistry.elements import SYMBOLS
from scotl_matgl.descriptors.composite import StandardDescriptor, get_descriptor
from scotl_matgl.descriptors.described import Described
from scotl_matgl.encoders import elements
from scotl_matgl.encoders.composition import NetworkEncoder, network_card, source_folders, write_networks
from scotl_matgl.encoders.contracts import CompositionEncoder, DescribedEncoder
from scotl_matgl.encoders.network import ACTIVATIONS, Network
from scotl_matgl.exceptions import InputError
from scotl_matgl.sources import zoo
from scotl_matgl.sources.cards import SourceCard, find
from scotl_matgl.testing.encoders import check_encoder
from scotl_matgl.testing.samples import sample_formulas
from scotl_matgl.testing.zoos import check_card

FORMULAS = [*sample_formulas(), "Fe2O3", "Ba0.5Sr0.5TiO3", "LaH10"]
FACTS = {"zoo": "mine", "property": "nothing", "unit": "1", "dataset": "random", "licence": "CC0", "citation": "me"}


def random_network(seed: int, widths: tuple[int, ...] = (60, 20, 9, 5, 2), activation: str = "silu") -> Network:
    rng = np.random.default_rng(seed)
    return Network(
        tuple(rng.normal(size=(b, a)).astype(np.float32) / a**0.5 for a, b in pairwise(widths)),
        tuple(rng.normal(size=b).astype(np.float32) for b in widths[1:]),
        activation,
        rng.normal(size=widths[0]),
        rng.uniform(10, 100, size=widths[0]),
    )


@pytest.fixture
def written(assets: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[SourceCard]:
    """Three networks in one file of the user's folder; the second is of SCOTL's form and knows few elements."""
    monkeypatch.setenv("SCOTL_MATGL_HOME", str(tmp_path))
    form = {"activation": "leaky_relu", "readout_activation": "identity", "unit_readout": True}
    networks = {
        "a": random_network(0),
        "b": dataclasses.replace(random_network(1, (60, 16, 8, 1)), **form),
        "c": random_network(2, (267, 12, 6, 1), "relu"),
    }
    sha256 = write_networks(tmp_path / "sources" / "mine.safetensors", networks)
    elements = {"b": ("Na", "Cl", "Mg", "O")}
    return [
        network_card(
            f"Mine-{prefix}",
            network,
            file="mine.safetensors",
            sha256=sha256,
            prefix=prefix,
            descriptor="standard" if network.widths[0] == 267 else "scotl60",
            elements=elements.get(prefix, ()),
            **FACTS,
        )
        for prefix, network in networks.items()
    ]


# -- networks ----------------------------------------------------------------------------------------------------------


@pytest.mark.torch
@pytest.mark.parametrize("unit_readout", [False, True])
@pytest.mark.parametrize("readout", ["", *ACTIVATIONS])
@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_layers_are_those_of_torch(activation: str, readout: str, unit_readout: bool) -> None:
    import torch
    from torch.nn import functional

    functions = {
        "leaky_relu": functional.leaky_relu,
        "relu": functional.relu,
        "silu": functional.silu,
        "identity": lambda x: x,
    }
    network = dataclasses.replace(
        random_network(1, activation=activation), readout_activation=readout, unit_readout=unit_readout
    )
    X = np.random.default_rng(2).normal(scale=100, size=(7, 60))
    x = torch.from_numpy((X - network.mean) / network.scale)
    expected = {}
    names = ("hidden_1", "hidden_2", "readout", "final")
    for name, weight, bias in zip(names, network.weights, network.biases, strict=True):
        x = functional.linear(x, torch.from_numpy(weight).double(), torch.from_numpy(bias).double())
        if name != "final":
            x = functions[(name == "readout" and readout) or activation](x)
        if name == "readout" and unit_readout:
            x = functional.normalize(x)
        expected[name] = x.numpy()
    found = network.forward(X)
    assert list(found) == ["readout", "hidden_1", "hidden_2", "final"]
    for name, values in expected.items():
        assert found[name].dtype == np.float32
        assert np.ptp(values) > 0
        np.testing.assert_allclose(found[name], values, atol=1e-5 * np.abs(values).max())


def test_a_row_of_zeros_keeps_its_length() -> None:
    network = dataclasses.replace(random_network(0), activation="relu", unit_readout=True)
    dead = dataclasses.replace(network, biases=(*network.biases[:2], network.biases[2] - 1e6, network.biases[3]))
    found = dead.forward(np.ones((1, 60)))
    np.testing.assert_array_equal(found["readout"], 0)
    np.testing.assert_array_equal(found["final"][0], network.biases[3])


def test_networks_that_make_no_sense_are_refused() -> None:
    network = random_network(0)
    with pytest.raises(InputError, match="do not fit together"):
        dataclasses.replace(network, weights=(*network.weights[:-1], network.weights[-1][:, :-1]))
    with pytest.raises(InputError, match="no network with a hidden layer"):
        dataclasses.replace(network, weights=network.weights[:1], biases=network.biases[:1])
    with pytest.raises(InputError, match="scaling of the input"):
        dataclasses.replace(network, mean=np.zeros(59))
    with pytest.raises(InputError, match="'tanh' is not one of leaky_relu"):
        dataclasses.replace(network, readout_activation="tanh")
    with pytest.raises(InputError, match="reads 60 descriptors"):
        network.forward(np.zeros((2, 61)))


# -- files and cards ---------------------------------------------------------------------------------------------------


def test_written_networks_conform(written: list[SourceCard]) -> None:
    for card in written:
        check_card(card)
        check_encoder(card.load())
        assert isinstance(card.load(), CompositionEncoder)


def test_what_is_read_is_what_was_written(written: list[SourceCard]) -> None:
    original = random_network(0)
    network = written[0].load().network
    assert network.widths == (60, 20, 9, 5, 2)
    for found, expected in zip(network.weights, original.weights, strict=True):
        np.testing.assert_array_equal(found, expected.astype(np.float16).astype(np.float32))
    for found, expected in zip((*network.biases, network.scale), (*original.biases, original.scale), strict=True):
        np.testing.assert_array_equal(found, expected.astype(np.float32))
    assert written[0].parameters == 60 * 20 + 20 + 20 * 9 + 9 + 9 * 5 + 5 + 5 * 2 + 2
    unit = written[1].load()
    np.testing.assert_allclose(np.linalg.norm(unit.encode(["NaCl", "MgO"]), axis=1), 1, rtol=1e-6)
    assert written[1].options["network"]["readout_activation"] == "identity"


def test_weights_that_float16_cannot_hold_are_refused(tmp_path: Path) -> None:
    network = random_network(0)
    large = dataclasses.replace(network, weights=(*network.weights[:-1], network.weights[-1] * np.float32(1e6)))
    with pytest.raises(InputError, match=r"a\.3\.weight has values that float16 cannot hold"):
        write_networks(tmp_path / "x.safetensors", {"a": large})
    write_networks(tmp_path / "x.safetensors", {"a": large}, dtype="float32")


def test_a_changed_file_is_refused(written: list[SourceCard], tmp_path: Path) -> None:
    file = tmp_path / "sources" / "mine.safetensors"
    content = bytearray(file.read_bytes())
    content[-1] ^= 1  # one bit of one weight
    file.write_bytes(content)
    for card in written:
        with pytest.raises(InputError, match=f"is not the file of the card {card.name}: its sha256 is"):
            card.load()
    file.unlink()
    with pytest.raises(InputError, match=r"mine\.safetensors are in none of"):
        written[0].load()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"options": {"prefix": "z"}}, "does not hold the network of Mine-a"),
        ({"layers": {"readout": 7}}, "its card says {'readout': 7}"),
        ({"weights": {"below/mine.safetensors": "0" * 64}}, "must be one file name"),
        ({"weights": {}}, "must be one file name"),
    ],
)
def test_cards_that_do_not_fit_their_file_are_refused(change: dict, message: str, written: list[SourceCard]) -> None:
    card = written[0]
    if "options" in change:
        change = {"options": {**card.options, **change["options"]}}
    with pytest.raises(InputError, match=message):
        dataclasses.replace(card, **change).load()


def test_eight_bits_that_a_card_does_not_name_are_no_weights(written: list[SourceCard], tmp_path: Path) -> None:
    file = tmp_path / "sources" / "mine.safetensors"
    card = written[0]
    sha256 = write_networks(file, {card.options["prefix"]: card.load().network}, dtype="int8")
    form = dict(card.options["network"])
    for eight_bits in ({}, {"eight_bits": False}):
        options = {**card.options, "network": form | eight_bits}
        with pytest.raises(InputError, match=r"is of int8; its card says otherwise \(eight_bits\)"):
            dataclasses.replace(card, options=options, weights={file.name: sha256}).load()
    options = {**card.options, "network": form | {"eight_bits": True}}
    dataclasses.replace(card, options=options, weights={file.name: sha256}).load()


def test_another_descriptor_is_refused(written: list[SourceCard]) -> None:
    card = written[0]
    other = dataclasses.replace(card, options={**card.options, "fingerprint": "0" * 64})
    with pytest.raises(InputError, match="is not the one that Mine-a was trained on"):
        other.load().encode(["NaCl"])


# -- descriptors are shared --------------------------------------------------------------------------------------------


def test_described_formulas_give_the_same(written: list[SourceCard]) -> None:
    compositions = parse_compositions(FORMULAS)
    for card in written:
        encoder = card.load()
        assert isinstance(encoder, DescribedEncoder)
        X = get_descriptor(card.options["descriptor"]).fit(compositions).transform(compositions)
        found = encoder.encode_described_layers(compositions, X, layers=tuple(card.layers))
        assert list(found) == list(card.layers)
        for layer, values in found.items():
            np.testing.assert_array_equal(values, encoder.encode(FORMULAS, layer=layer))
        with pytest.raises(InputError, match="has no layer 'redout'; did you mean 'readout'"):
            encoder.encode_described_layers(compositions, X, layers=("readout", "redout"))
    assert np.isnan(written[1].load().encode(FORMULAS)).all(axis=1).sum() > 3  # elements that it does not know
    assert not np.isnan(written[2].load().encode(FORMULAS)).any()


def test_networks_of_the_same_descriptor_take_it_and_run_once_for_all_layers(
    written: list[SourceCard], monkeypatch: pytest.MonkeyPatch
) -> None:
    described = Described.of(parse_compositions(FORMULAS), StandardDescriptor())
    layers = ("readout", "final")
    expected = [{layer: card.load().encode(FORMULAS, layer=layer) for layer in layers} for card in written]
    given = []
    original = NetworkEncoder.encode_described_layers
    monkeypatch.setattr(
        NetworkEncoder,
        "encode_described_layers",
        lambda self, compositions, X, **options: (
            given.append((X is described.X, options["layers"])) or original(self, compositions, X, **options)
        ),
    )
    for card, values in zip(written, expected, strict=True):
        found = embed_source(card, described, layers=layers)
        assert list(found) == list(layers)
        for layer in layers:
            ((embedding, embedded),) = found[layer]
            known = np.isfinite(values[layer]).all(axis=1)
            assert (embedding.name, embedding.layer) == (card.name, layer)
            np.testing.assert_array_equal(embedded.values[known], values[layer][known])
            np.testing.assert_array_equal(embedded.refused, ~known)
    # The first two read another descriptor, which their own encoder computes, a layer at a time.
    assert given == [*([(False, (layer,)) for layer in layers] * 2), (True, layers)]


def test_eight_bits_change_a_network_by_less_than_a_hundredth_of_its_spread(
    assets: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SCOTL_MATGL_HOME", str(tmp_path))
    network = random_network(5)
    file = tmp_path / "sources" / "small.safetensors"
    sha256 = write_networks(file, {"a": network}, dtype="int8")
    facts = {"file": file.name, "sha256": sha256, "prefix": "a", "descriptor": "scotl60", **FACTS}
    found = network_card("Small", network, dtype="int8", **facts).load().network
    for weight, exact in zip(found.weights, network.weights, strict=True):
        step = np.abs(exact).max(axis=1, keepdims=True) / 127
        assert (np.abs(weight - exact) <= 0.501 * step).all()
    X = np.random.default_rng(0).normal(size=(200, 60)) * network.scale + network.mean
    exact, rounded = (item.forward(X)["readout"] for item in (network, found))
    assert np.abs(rounded - exact).mean() < 0.01 * exact.std()
    whole = tmp_path / "sources" / "whole.safetensors"
    sixteen = write_networks(whole, {"a": network})
    wrong = network_card("Wrong", network, dtype="int8", **{**facts, "file": whole.name, "sha256": sixteen})
    with pytest.raises(InputError, match="does not hold the network of Wrong"):
        wrong.load()


# -- vectors of the elements -------------------------------------------------------------------------------------------

ELEMENTS = {card.name: card for card in find(zoo.own(), zoo="elements")}


@pytest.mark.parametrize("name", ELEMENTS)
def test_element_vectors_are_pooled_over_the_atoms_of_a_formula(name: str) -> None:
    encoder = ELEMENTS[name].load()
    atoms = encoder.encode(["Na", "Cl", "O", "Fe"]).astype(np.float64)
    width = atoms.shape[1] // 2
    assert (atoms[:, width:] == 0).all()
    sodium, chlorine, oxygen, iron = atoms[:, :width]
    found = encoder.encode(["NaCl", "Fe2O3", "Fe4O6", "O6Fe4", "KrF2", "FeHeO"])
    salt = [(sodium + chlorine) / 2, np.abs(sodium - chlorine) / 2]
    mean = 0.4 * iron + 0.6 * oxygen
    rust = [mean, np.sqrt(0.4 * (iron - mean) ** 2 + 0.6 * (oxygen - mean) ** 2)]
    np.testing.assert_allclose(found[0], np.concatenate(salt), atol=1e-5 * np.abs(atoms).max())
    np.testing.assert_allclose(found[1], np.concatenate(rust), atol=1e-5 * np.abs(atoms).max())
    np.testing.assert_array_equal(found[[2, 3]], found[[1, 1]])
    known = set(ELEMENTS[name].elements)
    assert np.isnan(encoder.encode(["FeRn"])).all() or "Rn" in known
    with pytest.raises(InputError, match="has no layer 'final'; it has readout"):
        encoder.encode(["NaCl"], layer="final")


def test_a_file_of_other_element_vectors_is_refused(tmp_path: Path) -> None:
    card = next(iter(ELEMENTS.values()))
    (tmp_path / "elements.safetensors").write_bytes(b"something else")
    with pytest.raises(InputError, match="is not the file of the card"):
        elements.load(card, path=tmp_path)
    narrow = np.ones((2, 3))
    sha256 = elements.write_vectors(tmp_path / "elements.safetensors", {"chgnet": (np.array([11, 17]), narrow)})
    other = dataclasses.replace(card, weights={"elements.safetensors": sha256})
    with pytest.raises(InputError, match=r"vectors 'chgnet' of shape \(2, 3\) for 2 elements, which do not fit"):
        elements.load(other, path=tmp_path)


def test_element_vectors_are_those_of_the_installed_package() -> None:
    pytest.importorskip("elementembeddings")
    sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "tools"))
    try:
        import export_element_vectors as export
    finally:
        sys.path.pop(0)
    assert {export.NAMES[name] for name in export.SETS} == ELEMENTS.keys()
    for name in export.SETS:
        numbers, vectors = export.components(name)
        found = ELEMENTS[export.NAMES[name]].load().encode([SYMBOLS[z - 1] for z in numbers])
        np.testing.assert_allclose(found[:, : vectors.shape[1]], vectors, atol=1e-6 * np.abs(vectors).max())


# -- sources that come with the package --------------------------------------------------------------------------------

FOLDER = source_folders()[-1]
MANIFEST = json.loads((FOLDER / "shotgun.json").read_text(encoding="utf-8"))
OWN = {card.name: card for card in zoo.own()}
SHOTGUN = {card.name: card for card in find(zoo.own(), zoo="shotgun")}


@pytest.mark.slow
@pytest.mark.parametrize("name", OWN)
def test_shipped_sources_conform(name: str) -> None:
    check_card(OWN[name])
    check_encoder(OWN[name].load())


def test_manifest_file_and_cards_belong_together() -> None:
    file = FOLDER / MANIFEST["file"]["name"]
    digest = hashlib.sha256(file.read_bytes()).hexdigest()
    assert MANIFEST["file"] == {"name": file.name, "sha256": digest, "bytes": file.stat().st_size}
    assert sum(path.stat().st_size for path in FOLDER.iterdir()) <= 8_000_000
    assert MANIFEST["networks"].keys() == SHOTGUN.keys()
    learned = set()
    for name, card in SHOTGUN.items():
        made = MANIFEST["networks"][name]
        assert dict(card.weights) == {file.name: digest}
        assert card.load().network.widths == tuple(made["widths"])
        assert card.n_train == made["n_train"]
        assert f"seed {made['seed']}" in card.notes
        for target, held_out in made["held_out"].items():
            assert held_out["mae"] < held_out["mae_of_the_median"]
            assert f"{held_out['mae']:.3g}, R2 {held_out['r2']:.2f}, n {held_out['n']}" in card.notes
            learned.add(target)
        if len(made["held_out"]) == 1:
            assert card.error == pytest.approx(held_out["mae"], rel=1e-5)
            assert card.error_unit == card.unit == MANIFEST["targets"][target]["unit"]
        else:
            assert card.layers["final"] == len(made["held_out"])
    assert learned == MANIFEST["targets"].keys()
    for library in MANIFEST["libraries"].values():
        assert library["networks"] >= 8
    trained = sum(library["networks"] for name, library in MANIFEST["libraries"].items() if name != "joint")
    assert trained >= 25 * len(learned)


@pytest.mark.parametrize("kind", ["properties", "attention"])
def test_manifest_of_the_property_sources_belongs_to_file_and_cards(kind: str) -> None:
    manifest = json.loads((FOLDER / f"{kind}.json").read_text(encoding="utf-8"))
    file = FOLDER / manifest["file"]["name"]
    digest = hashlib.sha256(file.read_bytes()).hexdigest()
    assert manifest["file"] == {"name": file.name, "sha256": digest, "bytes": file.stat().st_size}
    cards = {card.name: card for card in find(zoo.own(), zoo="properties") if file.name in card.weights}
    assert manifest["networks"].keys() == cards.keys()
    for name, card in cards.items():
        made = manifest["networks"][name]
        assert dict(card.weights) == {file.name: digest}
        network = card.load().network
        if kind == "properties":
            assert network.widths == tuple(made["widths"])
        else:
            assert card.parameters == sum(tensor.size for tensor in network.tensors.values())
        assert card.n_train == made["n_train"]
        assert list(made["held_out"]) == list(card.training_sets)
        found = [held_out["r2"] for held_out in made["held_out"].values()]
        # A constant has none; the median is no rival where most values are 0. Attention learns all at once.
        assert np.mean(found) > 0.65 if kind == "attention" else min(found) > 0.03
        for held_out in made["held_out"].values():
            assert f"{held_out['mae']:.3g}, R2 {held_out['r2']:.2f}, n {held_out['n']}" in card.notes


def test_errors_of_the_cards_are_those_on_the_held_out_formulas(assets: Path) -> None:
    whole = Corpus.read(assets / "structures" / "crystals.json.gz")
    assert whole.hash == MANIFEST["corpus"]["hash"]
    corpus = whole.one_per_formula()
    rule = MANIFEST["held_out"]
    held_out = split_by_group([crystal.chemical_system for crystal in corpus], rule["fraction"], rule["seed"])
    assert held_out.sum() == rule["rows"]
    hidden = Corpus(corpus[row] for row in np.flatnonzero(held_out).tolist())
    truth = {
        "Shotgun-BulkModulus-1": np.log10(hidden.values("bulk_modulus_vrh_GPa")),
        "Shotgun-BandGap-PBE-1": hidden.values("pbe_gap_eV"),
    }
    for name, y in truth.items():
        rows = np.isfinite(y)
        found = SHOTGUN[name].load().encode(hidden.compositions.take(rows), layer="final")[:, 0]
        known = np.isfinite(found)  # a formula may hold an element that the card does not name
        (expected,) = MANIFEST["networks"][name]["held_out"].values()
        assert known.sum() == expected["n"] > 0.99 * rows.sum()
        error = (found - y[rows])[known]
        assert np.abs(error).mean() == pytest.approx(SHOTGUN[name].error, rel=0.01)
        assert 1 - (error**2).mean() / y[rows][known].var() == pytest.approx(expected["r2"], abs=0.01)


@pytest.mark.slow
def test_shipped_sources_are_ranked_without_torch_and_described_once(tmp_path: Path) -> None:
    code = (
        "import sys\n"
        "from scotl_matgl import TransferabilityRanker, load_example\n"
        "from scotl_matgl.descriptors.composite import StandardDescriptor as Standard\n"
        "calls, original = [], Standard.transform\n"
        "Standard.transform = lambda self, X: calls.append(1) or original(self, X)\n"
        "table = load_example().iloc[:40]\n"
        "ranker = TransferabilityRanker('Shotgun-*', estimators=['loo'], max_measured=2)\n"
        "ranking = ranker.fit(table['formula'], table['target']).ranking_\n"
        "print(len(ranking.results + ranking.screened), len(ranking.errors), len(calls))\n"
        "print(sorted({'torch', 'matgl', 'dgl', 'pymatgen', 'matminer'} & {name for name in sys.modules}))\n"
    )
    done = subprocess.run(  # noqa: S603 - our own code
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "SCOTL_MATGL_HOME": str(tmp_path)},
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines() == [f"{len(SHOTGUN)} 0 1", "[]"]
