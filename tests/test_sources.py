"""Sources that read formulas: networks equal to torch's, files that are the cards', descriptors computed once."""

from __future__ import annotations

import dataclasses
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest

from scotl_matgl.cards import SourceCard
from scotl_matgl.composition import parse_compositions
from scotl_matgl.descriptors import StandardDescriptor, get_descriptor
from scotl_matgl.encoders.base import CompositionEncoder, DescribedEncoder
from scotl_matgl.encoders.composition import NetworkEncoder, network_card, write_networks
from scotl_matgl.encoders.network import ACTIVATIONS, Network
from scotl_matgl.exceptions import InputError
from scotl_matgl.ranker import embeddings_of
from scotl_matgl.testing import check_card, check_encoder, sample_formulas

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
def written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[SourceCard]:
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
        ({"weights": {"../mine.safetensors": "0" * 64}}, "must be one file name"),
        ({"weights": {}}, "must be one file name"),
    ],
)
def test_cards_that_do_not_fit_their_file_are_refused(change: dict, message: str, written: list[SourceCard]) -> None:
    card = written[0]
    if "options" in change:
        change = {"options": {**card.options, **change["options"]}}
    with pytest.raises(InputError, match=message):
        dataclasses.replace(card, **change).load()


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
        for layer in card.layers:
            np.testing.assert_array_equal(
                encoder.encode_described(compositions, X, layer=layer), encoder.encode(FORMULAS, layer=layer)
            )
        with pytest.raises(InputError, match="has no layer 'redout'; did you mean 'readout'"):
            encoder.encode_described(compositions, X, layer="redout")
    assert np.isnan(written[1].load().encode(FORMULAS)).all(axis=1).sum() > 3  # elements that it does not know
    assert not np.isnan(written[2].load().encode(FORMULAS)).any()


def test_the_ranker_hands_its_descriptors_to_networks_of_the_same(
    written: list[SourceCard], monkeypatch: pytest.MonkeyPatch
) -> None:
    compositions = parse_compositions(FORMULAS)
    descriptor = StandardDescriptor()
    X = descriptor.transform(compositions)
    expected = [card.load().encode(FORMULAS) for card in written]
    described = []
    original = NetworkEncoder.encode_described
    monkeypatch.setattr(
        NetworkEncoder,
        "encode_described",
        lambda self, compositions, given, **options: (
            described.append(given is X) or original(self, compositions, given, **options)
        ),
    )
    for card, values in zip(written, expected, strict=True):
        (found,) = embeddings_of(card, compositions, X, descriptor)
        known = np.isfinite(values).all(axis=1)
        np.testing.assert_array_equal(found.values[known], values[known])
        np.testing.assert_array_equal(found.refused, ~known)
    assert described == [False, False, True]  # the first two read another descriptor
