"""XenonPy's model directories, made here: equal to torch, and nothing is unpickled."""

from __future__ import annotations

import json
import pickle
from collections import OrderedDict
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from scotl_matgl_shotgun import Library, LibraryWriter, XenonPyError, read_xenonpy

FACTS = {"property": "band gap", "unit": "eV", "descriptor": "magpie", "dataset": "MP"}
WIDTHS = (12, 11, 9, 8, 8, 7, 6, 6, 5, 5, 4, 3, 1)  # eleven hidden layers: layer_10 comes after layer_2


class Block(nn.Module):
    """A layer with the names of XenonPy 0.4 and later, or of its older versions."""

    def __init__(self, a: int, b: int, eps: float | None, names: tuple[str, str], *, bias: bool = True) -> None:
        super().__init__()
        self.names = names
        setattr(self, names[0], nn.Linear(a, b, bias=bias))
        setattr(self, names[1], None if eps is None else nn.BatchNorm1d(b, eps))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = getattr(self, self.names[0])(x)
        norm = getattr(self, self.names[1])
        return x if norm is None else norm(x)


def make(kind: str, eps: float | None, *, bias: bool = True) -> nn.Module:
    torch.manual_seed(0)
    names = ("linear", "normalizer") if kind == "new" else ("layer", "batch_nor")
    prefix = "layer_{}" if kind == "new" else "{}"
    model = nn.Sequential()
    pairs = list(pairwise(WIDTHS))
    for i, (a, b) in enumerate(pairs[:-1]):
        model.add_module(prefix.format(i), Block(a, b, eps, names, bias=bias))
        model.add_module(f"activation {i}", nn.ReLU())
    model.add_module(
        *(("output", nn.Linear(*pairs[-1])) if kind == "new" else (str(len(pairs) - 1), Block(*pairs[-1], None, names)))
    )
    for _ in range(20):  # running statistics that are not those of the start
        model(torch.randn(64, WIDTHS[0]) * 3 + 1)
    return model.eval()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    path = tmp_path / "M00001"
    path.mkdir()
    return path


class Bomb:
    def __reduce__(self) -> tuple:
        return (Path.touch, (Path(self.path),))

    def __init__(self, path: Path) -> None:
        self.path = str(path)


@pytest.mark.parametrize(("kind", "eps"), [("new", 0.1), ("new", None), ("old", 1e-5), ("old", None)])
def test_network_is_that_of_torch(kind: str, eps: float | None, folder: Path) -> None:
    model = make(kind, eps)
    torch.save(model.state_dict(), folder / "final_state.pth.s")
    torch.save(make(kind, eps).state_dict(), folder / "init_state.pth.s")
    record, network = read_xenonpy(folder, **FACTS)
    assert (record.name, record.activation, record.widths) == ("M00001", "relu", WIDTHS)
    X = np.random.default_rng(0).normal(size=(9, 12))
    layers = network.forward(X)
    with torch.no_grad():
        expected = model(torch.from_numpy(X).float()).numpy()
        readout = model[:-1](torch.from_numpy(X).float()).numpy()
    assert np.ptp(expected) > 0
    np.testing.assert_allclose(layers["final"], expected, atol=1e-5 * np.abs(expected).max())
    np.testing.assert_allclose(layers["readout"], readout, atol=1e-5 * np.abs(readout).max())


def test_epsilon_and_activation_can_be_given(folder: Path) -> None:
    model = make("new", 0.02, bias=False)
    torch.save(model.state_dict(), folder / "final_state.pth.s")
    X = np.random.default_rng(0).normal(size=(9, 12))
    with torch.no_grad():
        expected = model(torch.from_numpy(X).float()).numpy()
    _, network = read_xenonpy(folder, batch_norm_eps=0.02, **FACTS)
    np.testing.assert_allclose(network.forward(X)["final"], expected, atol=1e-5 * np.abs(expected).max())
    _, other = read_xenonpy(folder, **FACTS)
    assert np.abs(other.forward(X)["final"] - expected).max() > 1e-3 * np.abs(expected).max()
    _, linear = read_xenonpy(folder, activation="identity", **FACTS)
    assert linear.activation == "identity"


def test_facts_stand_in_a_side_file(folder: Path) -> None:
    torch.save(make("new", 0.1).state_dict(), folder / "final_state.pth.s")
    with pytest.raises(XenonPyError, match="property, unit, descriptor, dataset must be given"):
        read_xenonpy(folder)
    (folder / "scotl_matgl.json").write_text(json.dumps({**FACTS, "error": 0.4, "activation": "leaky_relu"}))
    record, _ = read_xenonpy(folder, property="gap")
    assert (record.property, record.error, record.activation) == ("gap", 0.4, "leaky_relu")
    with pytest.raises(XenonPyError, match="colour"):
        read_xenonpy(folder, colour="red")


def test_models_become_a_library(folder: Path, tmp_path: Path) -> None:
    torch.save(make("old", 1e-5).state_dict(), folder / "final_state.pth.s")
    record, network = read_xenonpy(folder, **FACTS)
    with LibraryWriter(tmp_path / "library", licence="unknown", citation="XenonPy.MDL") as writer:
        writer.add(record, network)
    library = Library(tmp_path / "library")
    (found,) = library
    X = np.ones((2, 12))
    np.testing.assert_array_equal(library.network(found).forward(X)["final"], network.forward(X)["final"])


def test_pickles_are_neither_read_nor_executed(folder: Path, tmp_path: Path) -> None:
    exploded = tmp_path / "exploded"
    for name in ("describe.pkl.z", "model_structure.pkl.z", "model.pth.m", "trained_model.@1.pkl.z"):
        (folder / name).write_bytes(pickle.dumps(Bomb(exploded), protocol=2))
    with pytest.raises(XenonPyError, match=r"no state dict.*describe\.pkl\.z.*torch\.save\(model\.state_dict\(\)"):
        read_xenonpy(folder, **FACTS)
    (folder / "final_state.pth.s").write_bytes(pickle.dumps(Bomb(exploded), protocol=2))
    with pytest.raises(XenonPyError, match="not a file of tensors"):
        read_xenonpy(folder, **FACTS)
    torch.save(Bomb(exploded), folder / "final_state.pth.s")
    with pytest.raises(XenonPyError, match="not a file of tensors"):
        read_xenonpy(folder, **FACTS)
    with pytest.raises(XenonPyError, match="not a file of tensors"):
        read_xenonpy(folder, state="model.pth.m", **FACTS)
    assert not exploded.exists()
    pickle.loads(pickle.dumps(Bomb(exploded), protocol=2))  # noqa: S301 - the bomb is live, or this test would prove nothing
    assert exploded.exists()


def test_weights_before_training_are_not_taken_unasked(folder: Path) -> None:
    torch.save(make("new", 0.1).state_dict(), folder / "init_state.pth.s")
    with pytest.raises(XenonPyError, match="no state dict of the trained model"):
        read_xenonpy(folder, **FACTS)
    read_xenonpy(folder, state="init_state.pth.s", **FACTS)


def test_several_states_must_be_chosen_from(folder: Path) -> None:
    model = make("new", 0.1)
    torch.save(model.state_dict(), folder / "a.pth")
    read_xenonpy(folder, **FACTS)
    torch.save(model.state_dict(), folder / "b.pth.s")
    with pytest.raises(XenonPyError, match=r"a\.pth, b\.pth\.s; say which"):
        read_xenonpy(folder, **FACTS)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda state: state.pop("layer_3.linear.weight"), "layer 3 of 12 has no weight"),
        (lambda state: state.pop("output.weight"), "layer 11 of 12 has no weight"),
        (lambda state: [state.pop(k) for k in list(state) if k.startswith("layer_4.")], "without gaps"),
        (lambda state: state.update({"conv.weight": torch.ones(2)}), "'conv.weight' belongs to no"),
        (lambda state: state.update({"layer_0.linear.weight": torch.ones(3, 3)}), r"final_state\.pth\.s: operands"),
        (lambda state: state.pop("layer_0.normalizer.running_var"), "no running mean and variance"),
        (lambda state: state.clear(), "must be those of fully connected layers"),
        (lambda state: state.update({"epoch": 3}), "holds no state dict"),
    ],
)
def test_other_networks_are_refused(change: object, message: str, folder: Path) -> None:
    state = OrderedDict(make("new", 0.1).state_dict())
    change(state)
    torch.save(state, folder / "final_state.pth.s")
    with pytest.raises(XenonPyError, match=message):
        read_xenonpy(folder, **FACTS)
