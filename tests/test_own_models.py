"""Models that someone has trained with MatGL itself become sources, on either backend, as MatGL saves them."""

from __future__ import annotations

import dataclasses
import importlib.metadata
import importlib.util
import itertools
import json
import logging
import shutil
import sys
import warnings
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from scotl_matgl import Corpus, SourceCard, TransferabilityRanker, all_cards, load_example
from scotl_matgl.bridges.build import build_bridge
from scotl_matgl.bridges.store import list_bridges
from scotl_matgl.chemistry.crystals import Crystal, as_crystal
from scotl_matgl.cli.main import main
from scotl_matgl.descriptors.composite import get_descriptor
from scotl_matgl.encoders.checkpoints import CheckpointError
from scotl_matgl.encoders.composition import network_card, write_networks
from scotl_matgl.encoders.network import Network
from scotl_matgl.encoders.weights import MODEL_FILES
from scotl_matgl.exceptions import InputError, PluginWarning
from scotl_matgl.sources.cards import CardError, select
from scotl_matgl.sources.installed import install

MATGL = importlib.metadata.version("matgl") if importlib.util.find_spec("matgl") else ""
PYG = MATGL >= "4"
needs_matgl = [
    pytest.mark.torch,
    pytest.mark.slow,
    pytest.mark.skipif(not MATGL, reason="matgl is not installed"),
]
ELEMENTS = ("Na", "Cl", "Mg", "O", "K", "Br", "Li", "F")
ARCHITECTURES = ["MEGNet", "M3GNet", "TensorNet", "SO3Net", "CHGNet", "QET"]


@pytest.fixture(autouse=True)
def at_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SCOTL_MATGL_HOME", str(tmp_path / "home"))


def structures() -> list[Any]:
    """Sixteen crystals, with atoms a little off their places so that no symmetry hides a fault."""
    from pymatgen.core import Lattice, Structure

    pairs = [("Na", "Cl"), ("Mg", "O"), ("K", "Br"), ("Li", "F")]
    found = []
    rng = np.random.default_rng(0)
    for i in range(16):
        group, length = (("Pm-3m", 3.6 + 0.02 * i), ("Fm-3m", 5.2 + 0.02 * i))[i % 3 == 0]
        cell = Structure.from_spacegroup(group, Lattice.cubic(length), pairs[i % 4], [[0, 0, 0], [0.5, 0.5, 0.5]])
        cell = cell.get_primitive_structure()
        found.append(Structure(cell.lattice, cell.species, cell.frac_coords + 0.02 * rng.random((len(cell), 3))))
    return found


def network_of(architecture: str) -> Any:
    from scotl_matgl.encoders.weights import pick_backend

    pick_backend().import_matgl()
    import torch

    torch.manual_seed(0)
    backend = pick_backend()
    make = getattr(importlib.import_module(backend.MODELS[architecture]), architecture)
    if architecture == "MEGNet":
        from matgl.layers._bond import BondExpansion

        # As MatGL's own notebook on training builds it: the expansion is an object.
        expansion = BondExpansion(rbf_type="Gaussian", initial=0.0, final=5.0, num_centers=20, width=0.5)
        return make(
            element_types=ELEMENTS, dim_node_embedding=8, dim_edge_embedding=20, nblocks=2, cutoff=4.0,
            hidden_layer_sizes_input=(16, 8), hidden_layer_sizes_conv=(16, 16, 8), hidden_layer_sizes_output=(8, 4),
            nlayers_set2set=1, niters_set2set=2, bond_expansion=expansion,
        )  # fmt: skip
    small: dict[str, dict[str, Any]] = {
        "M3GNet": {"is_intensive": True, "readout_type": "set2set", "dim_node_embedding": 8, "dim_edge_embedding": 8},
        "TensorNet": {"is_intensive": True, "readout_type": "weighted_atom"},
        "SO3Net": {"target_property": "graph", "readout_type": "set2set", "dim_node_embedding": 8, "lmax": 2},
        "CHGNet": {"dim_atom_embedding": 8, "dim_bond_embedding": 8, "dim_angle_embedding": 8, "num_blocks": 2},
        "QET": {"is_intensive": False},
    }
    units = {} if architecture == "CHGNet" else {"units": 8}
    return make(element_types=ELEMENTS, **units, **small[architecture])


def trained(architecture: str, folder: Path, *, data_mean: float = 0.0, data_std: float = 1.0) -> Any:
    """A module of MatGL's Lightning after one epoch, as MatGL's notebooks train."""
    network = network_of(architecture)
    import lightning
    from matgl.ext.pymatgen import Structure2Graph
    from matgl.graph.data import MGLDataLoader, MGLDataset, collate_fn_graph, collate_fn_pes
    from matgl.utils.training import ModelLightningModule, PotentialLightningModule

    potential, line = architecture in ("CHGNet", "QET"), architecture in ("M3GNet", "CHGNet") and not PYG
    crystals = structures()
    labels: dict[str, list[Any]] = {"p": [len(crystal) + crystal.volume / 100 for crystal in crystals]}
    collate: Any = collate_fn_graph if PYG else partial(collate_fn_graph, include_line_graph=line)
    if potential:
        labels = {"energies": labels["p"], "forces": [np.zeros((len(crystal), 3)).tolist() for crystal in crystals]}
        labels["stresses"] = [np.zeros((3, 3)).tolist() for _ in crystals]
        charges = {"include_charge": True} if architecture == "QET" else {}
        collate = partial(collate_fn_pes, include_line_graph=line, include_stress=True, **charges)
        if charges:
            labels["charges"] = [np.zeros(len(crystal)).tolist() for crystal in crystals]
    own = (
        {"root": str(folder / "data")}
        if PYG
        else {
            "threebody_cutoff": 3.0 if architecture == "CHGNet" else 4.0,
            "include_line_graph": line,
            "directed_line_graph": architecture == "CHGNet",
        }
    )
    data = MGLDataset(
        structures=crystals,
        labels=labels,
        converter=Structure2Graph(element_types=ELEMENTS, cutoff=network.cutoff),
        include_ref_charge=architecture == "QET",
        save_cache=False,
        **own,
    )
    loaders = MGLDataLoader(train_data=data, val_data=data, collate_fn=collate, batch_size=4, num_workers=0)
    if potential:
        weight = 0.1 if architecture == "QET" else 0.0
        module = PotentialLightningModule(
            model=network, include_line_graph=line, charge_weight=weight, element_refs=np.arange(len(ELEMENTS)) / 8
        )
    else:
        module = ModelLightningModule(
            model=network, include_line_graph=line, data_mean=data_mean, data_std=data_std, lr=1e-2
        )
    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
    trainer = lightning.Trainer(
        max_epochs=1, accelerator="cpu", logger=False, enable_checkpointing=False, enable_progress_bar=False,
        enable_model_summary=False, inference_mode=False,
    )  # fmt: skip
    trainer.fit(module, *loaders)
    trainer.save_checkpoint(folder / "last.ckpt")
    return module


def matgl_says(model: Any, crystals: list[Any]) -> np.ndarray:
    """What MatGL itself predicts: its own graphs, one crystal at a time, per atom for a potential."""
    if type(model).__name__ != "Potential":
        return np.array([float(model.predict_structure(crystal)) for crystal in crystals])
    import torch

    charge = {"total_charge": torch.zeros(1)} if type(model.model).__name__ == "QET" else {}
    types = {symbol: place for place, symbol in enumerate(ELEMENTS)}
    energies = []
    for crystal in crystals:
        raw = float(model.model.predict_structure(crystal, **charge))
        references = sum(types[site.specie.symbol] / 8 for site in crystal)
        energies.append((raw * float(model.data_std) + float(model.data_mean) + references) / len(crystal))
    return np.array(energies)


@pytest.mark.parametrize("architecture", [pytest.param(name, marks=needs_matgl) for name in ARCHITECTURES])
def test_a_model_trained_and_saved_by_matgl_is_a_source(architecture: str, tmp_path: Path) -> None:
    """For the published models, test_encoders compares layers; here, what any training leaves."""
    module = trained(architecture, tmp_path)
    module.model.save(tmp_path / "saved")
    module.eval()
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # nothing that torch or MatGL say reaches the user
        card = SourceCard.from_matgl(tmp_path / "saved", name="Mine", property="size", unit="1")
        assert card.architecture == architecture
        assert set(card.elements) == set(ELEMENTS)
        assert card.parameters == sum(weight.numel() for weight in module.model.parameters())
        assert set(card.weights) == set(MODEL_FILES)
        assert card in all_cards()
        shutil.rmtree(tmp_path / "saved")  # it has its own copy
        (found,) = select(all_cards(), "mine")
        encoder = found.load()
        crystals = structures()
        values = encoder.encode(crystals, layer="final")[:, 0]
        refused = encoder.encode_layers([Crystal(4 * np.eye(3), [[0, 0, 0]], [79])], layers=("readout",)).refused
    # CHGNet of matgl 2 fails on crystals in which no atom has two neighbours nearby, and so it does here.
    told = np.isfinite(values)
    assert told.sum() >= 8
    theirs = matgl_says(module.model, [crystal for crystal, known in zip(crystals, told, strict=True) if known])
    np.testing.assert_allclose(values[told], theirs, atol=2e-4)
    assert refused == {0: "the model does not know Au (it knows 8 elements)"}
    for layer, width in card.layers.items():
        assert encoder.encode(crystals, layer=layer).shape == (16, width)
    # Ranked by its name, for formulas by the bridge that its crystals give.
    cell = as_crystal(crystals[1])
    pairs = itertools.combinations([3, 8, 9, 11, 12, 17, 19, 35], 2)
    spread = [dataclasses.replace(cell, numbers=np.array(pair), identifier=str(pair)) for pair in pairs]
    built = build_bridge(card, Corpus(spread), get_descriptor("standard"), encoder=encoder, bridge="ridge")
    assert built.bridge.n_features_out_ == card.width
    table = [f"{a}{b}" for a in ("Li", "Na", "K", "Mg") for b in ("F", "Cl", "Br", "O")]
    ranker = TransferabilityRanker("Mine", estimators=["loo"], on_error="raise").fit(table, np.arange(16.0) % 7)
    assert [result.source for result in ranker.ranking_.results] == ["Mine"]


@pytest.mark.parametrize("architecture", [pytest.param("MEGNet", marks=needs_matgl)])
def test_every_form_in_which_a_training_leaves_a_model_is_the_same_source(architecture: str, tmp_path: Path) -> None:
    module = trained(architecture, tmp_path, data_mean=3.0, data_std=0.5)
    module.eval()
    crystals = structures()[:4]
    raw = matgl_says(module.model, crystals)
    from matgl.data.transformer import Normalizer
    from matgl.models._wrappers import TransformedTargetModel

    module.model.save(tmp_path / "bare")
    TransformedTargetModel(module.model, Normalizer(3.0, 0.5)).save(tmp_path / "wrapped")
    forms: dict[str, tuple[Any, dict[str, Any], np.ndarray]] = {
        "bare folder": (tmp_path / "bare", {}, raw),
        "folder with transformed target": (str(tmp_path / "wrapped"), {}, 0.5 * raw + 3.0),
        "network": (module.model, {}, raw),
        "module of Lightning": (module, {}, 0.5 * raw + 3.0),
        "checkpoint": (tmp_path / "last.ckpt", {"network": tmp_path / "bare"}, 0.5 * raw + 3.0),
        "checkpoint of a network in memory": (tmp_path / "last.ckpt", {"network": network_of("MEGNet")}, 0.5 * raw + 3),
    }
    embeddings = []
    for number, (form, (model, further, expected)) in enumerate(forms.items()):
        card = SourceCard.from_matgl(model, name=f"Form {number}", property="p", unit="1", **further)
        encoder = card.load()
        np.testing.assert_allclose(encoder.encode(crystals, layer="final")[:, 0], expected, atol=2e-4, err_msg=form)
        embeddings.append(encoder.encode(crystals))
    np.testing.assert_allclose(embeddings, np.broadcast_to(embeddings[0], (6, 4, 40)), atol=1e-6)
    with pytest.raises(CheckpointError, match="not which network they are of: give that, too, as network="):
        SourceCard.from_matgl(tmp_path / "last.ckpt", name="X", property="p", unit="1")
    with pytest.raises(CheckpointError, match="a dict is no model of MatGL"):
        SourceCard.from_matgl({}, name="X", property="p", unit="1")
    # A name is taken once; the same model again is no fault, as when a notebook is run twice.
    assert SourceCard.from_matgl(module.model, name="Form 0", property="p", unit="1").name == "Form 0"
    with pytest.raises(CardError, match="there is a source 'Form 0' already, with other weights or facts; "):
        SourceCard.from_matgl(module, name="Form 0", property="p", unit="1")
    assert SourceCard.from_matgl(module, name="Form 0", property="q", unit="1", replace=True).property == "q"
    with pytest.raises(CardError, match=r"'MEGNet-MP-2018\.6\.1-Eform' in the zoo 'matgl' already"):
        SourceCard.from_matgl(module, name="MEGNet-MP-2018.6.1-Eform", property="q", unit="1")


class Intruder:
    """Writes a file when it is unpickled."""

    def __init__(self, target: Path) -> None:
        self.target = target

    def __reduce__(self) -> tuple[Any, ...]:
        return (Path.touch, (self.target,))


@pytest.mark.parametrize("file", [pytest.param(name, marks=needs_matgl) for name in ("model.pt", "state.pt")])
def test_nothing_in_a_model_is_executed_and_no_advice_of_torch_is_passed_on(file: str, tmp_path: Path) -> None:
    import torch

    network_of("MEGNet").save(tmp_path / "saved")
    target = tmp_path / "executed"
    content = torch.load(tmp_path / "saved" / file, weights_only=False)
    torch.save({**content, "further": Intruder(target)}, tmp_path / "saved" / file)
    with pytest.raises(CheckpointError, match=rf"not executed: {file} holds .*pathlib\.Path.*save\(folder\)") as caught:
        SourceCard.from_matgl(tmp_path / "saved", name="Mine", property="p", unit="1")
    assert not target.exists()
    for word in ("weights_only", "safe_globals", "torch.load", "trust"):
        assert word not in str(caught.value)
    assert caught.value.__suppress_context__
    assert all_cards() == [card for card in all_cards() if card.name != "Mine"]
    assert not (tmp_path / "home" / "sources").exists()


@pytest.mark.parametrize("given", [pytest.param("Gaussian" * 3, marks=needs_matgl)])
def test_settings_of_a_bond_expansion_are_checked(given: str, tmp_path: Path) -> None:
    import torch

    network = network_of("MEGNet")
    network._init_args["bond_expansion"].width = given
    network.save(tmp_path / "saved")
    with pytest.raises(CheckpointError, match=r"width of its matgl\.layers\._bond\.BondExpansion is 'Gauss"):
        SourceCard.from_matgl(tmp_path / "saved", name="Mine", property="p", unit="1")
    torch.save([1], tmp_path / "saved" / "state.pt")
    with pytest.raises(CheckpointError, match="holds no settings and weights by name"):
        SourceCard.from_matgl(tmp_path / "saved", name="Mine", property="p", unit="1")
    (tmp_path / "saved" / "state.pt").write_bytes(b"nothing")
    with pytest.raises(CheckpointError, match=r"state.pt"):
        SourceCard.from_matgl(tmp_path / "saved", name="Mine", property="p", unit="1")
    (tmp_path / "saved" / "state.pt").unlink()
    with pytest.raises(FileNotFoundError, match=r"state\.pt is missing; save it with"):
        SourceCard.from_matgl(tmp_path / "saved", name="Mine", property="p", unit="1")


# --- without torch ----------------------------------------------------------------------------------------------------


def own_network(folder: Path, name: str = "Mine") -> SourceCard:
    """A small network on formulas with its card beside it."""
    rng = np.random.default_rng(0)
    network = Network(
        (rng.normal(size=(5, 118)).astype(np.float32), np.ones((1, 5), np.float32)),
        (np.zeros(5, np.float32), np.zeros(1, np.float32)),
        "relu",
        np.zeros(118),
        np.ones(118),
    )
    folder.mkdir(exist_ok=True)
    sha256 = write_networks(folder / f"{name}.safetensors", {name: network})
    card = network_card(
        name, network, file=f"{name}.safetensors", sha256=sha256, prefix=name, descriptor="fractions", zoo="own",
        property="p", unit="1", dataset="none", licence="MIT", citation="me",
    )  # fmt: skip
    (folder / "card.json").write_text(json.dumps(card.to_dict()))
    return card


@pytest.fixture
def command(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Any:
    def run(*arguments: str | Path) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["scotl-matgl", *map(str, arguments)])
        with pytest.raises(SystemExit) as done:
            main()
        captured = capsys.readouterr()
        return int(done.value.code or 0), captured.out, captured.err

    return run


@pytest.fixture
def table(tmp_path: Path) -> Path:
    load_example()[::40].to_csv(tmp_path / "table.csv", index=False)
    return tmp_path / "table.csv"


@pytest.mark.slow
def test_a_folder_of_train_is_added_listed_ranked_and_removed(tmp_path: Path, table: Path, command: Any) -> None:
    own_network(tmp_path / "run")
    (tmp_path / "run" / "report.json").write_text("{}")
    code, out, _ = command("zoo", "add", tmp_path / "run")
    assert (code, out.splitlines()[0]) == (
        0,
        "Mine: fully connected network on the descriptor fractions, 601 parameters, 0 elements",
    )
    code, out, _ = command("zoo", "list", "--zoo", "own", "--format", "csv")
    assert "\nMine,p,1," in out
    code, out, err = command("rank", table, "-s", "Mine", "--head", "kernel ridge", "--format", "csv")
    assert (code, out.splitlines()[1].split(",")[1]) == (0, "Mine"), err
    assert command("zoo", "show", "mine")[0] == 0
    code, out, _ = command("zoo", "remove", "Mine")
    assert (code, out) == (0, "removed Mine and 0 files of its bridges\n")
    assert [path for path in (tmp_path / "home").rglob("*") if path.is_file()] == []
    code, _, err = command("zoo", "remove", "Mine")
    assert (code, err) == (2, "error: no source 'Mine' was added, so none can be removed; added are: none\n")


@pytest.mark.slow
def test_a_card_of_a_file_is_a_source_with_the_weights_beside_it(tmp_path: Path, table: Path, command: Any) -> None:
    own_network(tmp_path / "run")
    for option in ("--sources", "-s"):
        arguments = ("rank", table, option, tmp_path / "run" / "card.json", "--estimators", "loo", "--format", "csv")
        code, out, err = command(*arguments)
        assert (code, out.splitlines()[1].split(",")[1]) == (0, "Mine"), err
    assert command("rank", table, "-s", tmp_path / "no.json")[::2] == (
        2,
        f"error: there is no file {tmp_path / 'no.json'} with a card\n",
    )
    assert not [card for card in all_cards() if card.name == "Mine"]


def test_what_is_not_stated_is_asked_for(tmp_path: Path, command: Any) -> None:
    code, _, err = command("zoo", "add", tmp_path, "--name", "X")
    assert (code, "give --name, --property, --unit" in err) == (2, True)


def test_a_damaged_card_costs_itself_alone(tmp_path: Path) -> None:
    card = own_network(tmp_path / "run")
    install(card, {f"{card.name}.safetensors": (tmp_path / "run" / "Mine.safetensors").read_bytes()})
    (tmp_path / "home" / "cards" / "Bad.json").write_text("{")
    with pytest.warns(PluginWarning, match=r"a card of zoo own: .*Bad\.json is not valid JSON.*correct or delete"):
        listed = all_cards()
    assert "Mine" in {card.name for card in listed}
    with pytest.raises(CardError, match=r"the sha256 of 'Mine\.safetensors' is .* as in its card"):
        install(card, {"Mine.safetensors": b"others"})


@pytest.mark.slow
def test_a_function_of_formulas_is_ranked_and_one_of_crystals_bridged(tmp_path: Path) -> None:
    def counts(formulas: list[str]) -> np.ndarray:
        if any("Xe" in formula for formula in formulas):
            raise ValueError("no noble gases")
        return np.array([[len(formula), formula.count("O"), ord(formula[0])] for formula in formulas], float)

    card = SourceCard.from_callable(counts, name="Letters", property="p", unit="1", reads="formulas")
    assert (dict(card.layers), card.modality) == ({"readout": 3}, "composition")
    encoder = card.load()
    found = encoder.encode(["MgO", "XeF2", "NaCl"])
    assert found.tolist()[::2] == [[3.0, 1.0, 77.0], [4.0, 0.0, 78.0]]
    assert np.isnan(found[1]).all()
    table = load_example()[::20]
    ranker = TransferabilityRanker([card, "SCOTL-MEGNet-Eform"], n_jobs=2).fit(table["formula"], table["target"])
    assert {result.source for result in ranker.ranking_.results} == {"Letters", "SCOTL-MEGNet-Eform"}

    def volumes(crystals: list[Any]) -> np.ndarray:
        return np.array([[len(crystal), crystal.volume] for crystal in crystals])

    card = SourceCard.from_callable(volumes, name="Volumes", property="p", unit="1")
    crystals = [Crystal((3 + 0.01 * z) * np.eye(3), [[0, 0, 0], [0.5] * 3], [z, 8]) for z in (3, *range(11, 60))]
    encoded = card.load().encode_layers([*crystals[:2], "no crystal"], layers=("readout",))
    assert encoded.embeddings["readout"][0].tolist() == pytest.approx([2, 3.03**3])
    assert encoded.refused[2].startswith("a str is no crystal")
    build_bridge(card, Corpus(crystals), get_descriptor("standard"), bridge="ridge")
    assert next(file.provenance["source"] for file in list_bridges()) == "Volumes"
    TransferabilityRanker(card, estimators=["loo"], on_error="raise").fit(table["formula"], table["target"])
    # Another function of this name does not find the bridge of this one.
    other = SourceCard.from_callable(lambda items: 2 * volumes(items), name="Volumes", property="p", unit="1")
    with pytest.raises(RuntimeError, match="was fitted for other weights of it"):
        TransferabilityRanker(other, estimators=["loo"], on_error="raise").fit(table["formula"], table["target"])
    with pytest.raises(CardError, match="is a function, which is no part of its card"):
        SourceCard.from_dict(card.to_dict()).load()


def test_a_function_that_gives_something_else_is_refused() -> None:
    for wrong, message in (
        (lambda items: np.ones(len(items)), r"it returns float64 of the shape \(4,\); numbers of the shape \(4, width"),
        (lambda items: np.array([["a"]] * len(items)), "it returns <U1"),
        (lambda items: [1 / 0 for _ in items], "Mine fails on CsCl, NaCl, MgO, Si: ZeroDivisionError"),
    ):
        with pytest.raises(InputError, match=message):
            SourceCard.from_callable(wrong, name="Mine", property="p", unit="1", reads="formulas")
