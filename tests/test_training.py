"""Training of source models: the objective, its gradient, resuming, seeds, and what comes out."""

from __future__ import annotations

import gzip
import importlib.util
import itertools
import json
import pickle
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from typer.testing import CliRunner

torch = pytest.importorskip("torch")
for needed in ("dgl", "lightning"):
    if importlib.util.find_spec(needed) is None:  # looked for and not imported, which takes seconds
        pytest.skip(f"{needed} is not installed", allow_module_level=True)

from scotl_matgl import TransferabilityRanker, load_example  # noqa: E402
from scotl_matgl.bridges.alignment import alignment_loss  # noqa: E402
from scotl_matgl.chemistry.corpus import Corpus  # noqa: E402
from scotl_matgl.chemistry.crystal_files import read_crystals  # noqa: E402
from scotl_matgl.chemistry.crystals import Crystal  # noqa: E402
from scotl_matgl.cli.main import app  # noqa: E402
from scotl_matgl.encoders import dgl_backend  # noqa: E402
from scotl_matgl.encoders.graphs import batch_graphs, build_graph  # noqa: E402
from scotl_matgl.exceptions import InputError  # noqa: E402
from scotl_matgl.sources import zoo  # noqa: E402
from scotl_matgl.testing.encoders import check_encoder  # noqa: E402
from scotl_matgl.testing.zoos import check_card  # noqa: E402
from scotl_matgl.training import loop as training_loop  # noqa: E402
from scotl_matgl.training.settings import ARCHITECTURES, TrainingSettings  # noqa: E402
from scotl_matgl.training.source import TrainedSource, load_trained, train_source  # noqa: E402

EFORM = "formation_energy_eV_atom"

#: Sizes at which an epoch of sixty crystals takes a tenth of a second.
TINY: dict[str, dict[str, Any]] = {
    "MEGNet": {
        "dim_edge_embedding": 12,
        "hidden_layer_sizes_input": (12,),
        "hidden_layer_sizes_conv": (12,),
        "gauss_width": 0.5,
    },
    "M3GNet": {"units": 8, "dim_node_embedding": 8, "dim_edge_embedding": 8, "nblocks": 1},
    "TensorNet": {"units": 8, "nblocks": 1, "num_rbf": 8},
}


def settings(**changes: Any) -> TrainingSettings:
    values = {"property": EFORM, "unit": "eV/atom", "network": TINY["MEGNet"], "hidden": (32,), "width": 16}
    return TrainingSettings(**{**values, "epochs": 6, "batch_size": 12, "held_out": 0.2, "validation": 0.1, **changes})


@pytest.fixture(scope="module")
def file(assets: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Eighty crystals of the Materials Project of at most eight atoms, drawn with a seed; sixty have the property."""
    with gzip.open(assets / "structures" / "crystals.json.gz", "rt") as file:
        records = json.load(file)
    small = [record for record in records if record["natoms"] <= 8]
    known = [record for record in small if EFORM in record["properties"]]
    unknown = [record for record in small if EFORM not in record["properties"]]
    chosen = [known[row] for row in np.random.default_rng(0).choice(len(known), 60, replace=False)] + unknown[:20]
    path = tmp_path_factory.mktemp("crystals") / "crystals.json"
    path.write_text(json.dumps(chosen))
    return path


@pytest.fixture(scope="module")
def crystals(file: Path) -> Corpus:
    return Corpus.read(file)


@pytest.fixture(scope="module")
def trained(crystals: Corpus, tmp_path_factory: pytest.TempPathFactory) -> TrainedSource:
    steps: list[tuple[int, int]] = []
    folder = tmp_path_factory.mktemp("whole")
    done = train_source(crystals, settings(), folder / "run", device="cpu", progress=lambda *at: steps.append(at))
    assert steps == [(step, len(steps)) for step in range(1, len(steps) + 1)]
    return done


# --- the objective ----------------------------------------------------------------------------------------------------


def test_alignment_is_the_mean_of_squared_differences_of_which_small_ones_count_as_zero() -> None:
    rng = np.random.default_rng(0)
    first, second = rng.normal(size=(2, 5, 7))
    squares = (first - second) ** 2
    limit = float(np.median(squares))
    for threshold, expected in ((0.0, squares.mean()), (limit, squares[squares >= limit].sum() / squares.size)):
        found = alignment_loss(torch.from_numpy(first), torch.from_numpy(second), threshold)
        assert float(found) == pytest.approx(expected, rel=1e-12)
    assert float(alignment_loss(torch.from_numpy(first), torch.from_numpy(second), squares.max() * 1.01)) == 0.0


def test_the_loss_is_the_published_formula(crystals: Corpus) -> None:
    chosen = settings(alignment_weight=0.1, threshold=0.01, composition_weight=0.0)
    joint, batch, X, y = a_batch(chosen, crystals)
    with torch.no_grad():
        loss, parts = training_loop.joint_loss(joint, *batch, X, y, chosen)
        g, c = joint.embed_crystals(*batch).numpy(), joint.embed_compositions(X).numpy()
        predicted = joint.head(joint.embed_crystals(*batch)).numpy()[:, 0]
    np.testing.assert_allclose(np.linalg.norm(g, axis=1), 1.0, rtol=1e-12)
    np.testing.assert_allclose(np.linalg.norm(c, axis=1), 1.0, rtol=1e-12)
    squares = (g - c) ** 2
    squares[squares < 0.01] = 0.0
    expected = np.mean((predicted - y.numpy()) ** 2) + 0.1 * squares.mean()
    assert float(loss) == pytest.approx(expected, rel=1e-12)
    assert parts["alignment"] == pytest.approx(squares.mean(), rel=1e-12)


@pytest.mark.usefixtures("in_double_precision")
@pytest.mark.parametrize("architecture", list(ARCHITECTURES))
def test_gradients_are_those_of_finite_differences(architecture: str, crystals: Corpus) -> None:
    chosen = settings(
        architecture=architecture,
        network=TINY[architecture],
        alignment_weight=3.0,
        threshold=1e-3,
        composition_weight=0.5,
    )
    joint, batch, X, y = a_batch(chosen, crystals)
    parameters = [parameter for parameter in joint.parameters() if parameter.requires_grad]

    def loss() -> Any:
        return training_loop.joint_loss(joint, *batch, X, y, chosen)[0]

    gradients = torch.autograd.grad(loss(), parameters, allow_unused=True)
    used = [(p, g) for p, g in zip(parameters, gradients, strict=True) if g is not None]
    assert sum(p.numel() for p, _ in used) > 0.8 * sum(p.numel() for p in parameters)
    generator = torch.Generator().manual_seed(0)
    step = 1e-6
    for _ in range(3):
        directions = [torch.randn(p.shape, generator=generator, dtype=p.dtype) for p, _ in used]
        expected = float(sum((g * d).sum() for (_, g), d in zip(used, directions, strict=True)))
        values = []
        with torch.no_grad():
            for sign in (1, -2, 1):  # there, to the other side, and back
                for (p, _), d in zip(used, directions, strict=True):
                    p.add_(d, alpha=sign * step)
                values.append(float(loss()))
        assert (values[0] - values[1]) / (2 * step) == pytest.approx(expected, rel=1e-4, abs=1e-6)


@pytest.mark.usefixtures("in_double_precision")
def test_merged_bonds_give_the_gradients_of_matgl_itself(crystals: Corpus, monkeypatch: pytest.MonkeyPatch) -> None:
    chosen = settings()
    fast, batch, X, y = a_batch(chosen, crystals)
    monkeypatch.setattr(dgl_backend, "adapt", lambda *_, **__: None)
    monkeypatch.setattr(dgl_backend, "merge_equal", lambda batch, **_: batch)
    slow, whole, _, _ = a_batch(chosen, crystals)
    assert whole[0].num_edges() > 1.5 * batch[0].num_edges()
    found = []
    for joint, inputs in ((fast, batch), (slow, whole)):
        joint.load_state_dict(slow.state_dict())
        loss, _ = training_loop.joint_loss(joint, *inputs, X, y, chosen)
        loss.backward()
        found.append({name: p.grad for name, p in joint.named_parameters() if p.grad is not None})
    assert found[0].keys() == found[1].keys()
    for name, gradient in found[1].items():
        # Distances of merged bonds are equal to 1e-6 Å only.
        torch.testing.assert_close(found[0][name], gradient, rtol=1e-4, atol=1e-5 * float(gradient.abs().max()))


@pytest.fixture
def in_double_precision(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Constants that networks make themselves are in double precision too."""
    dgl_backend.import_matgl()
    import matgl

    monkeypatch.setattr(matgl, "float_th", torch.float64)
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(torch.float32)


def a_batch(chosen: TrainingSettings, crystals: Corpus) -> tuple[Any, tuple[Any, dict[str, Any]], Any, Any]:
    """A joint network in double precision, and six crystals for it."""
    elements = sorted({str(element) for crystal in crystals for element in crystal.chemical_system.split("-")})
    joint = training_loop.build_joint(chosen, elements, 5).double()
    graphs = [build_graph(crystal, chosen.cutoff()) for crystal in crystals[:6]]
    collected = training_loop.collect(joint.network, graphs)
    graph, inputs = dgl_backend.prepare_batch(
        joint.network, collected, training_loop.element_types(elements), torch.device("cpu")
    )
    for data in (graph.ndata, graph.edata):
        for name, values in dict(data).items():
            if values.is_floating_point():
                data[name] = values.double()
    rng = np.random.default_rng(0)
    return joint, (graph, inputs), torch.from_numpy(rng.normal(size=(6, 5))), torch.from_numpy(rng.normal(size=6))


# --- batches ----------------------------------------------------------------------------------------------------------


def test_batches_hold_every_row_once_and_are_of_like_size() -> None:
    n_bonds = np.random.default_rng(0).integers(10, 1000, size=203)
    rows = np.flatnonzero(np.arange(203) % 7)
    batches = training_loop.Batches(rows, n_bonds, 20, random_state=3)
    drawn = []
    for epoch in (0, 1, 0):
        batches.set_epoch(epoch)
        drawn.append(list(batches))
        assert len(drawn[-1]) == len(batches) == 9
        assert sorted(itertools.chain(*drawn[-1])) == rows.tolist()
        sizes = [n_bonds[batch].sum() for batch in drawn[-1]]
        assert max(sizes) < 1.15 * min(sizes)  # drawn without regard to size they differ by a factor of two
    assert drawn[0] == drawn[2] != drawn[1]


def test_a_batch_taken_from_a_corpus_is_that_of_its_graphs(crystals: Corpus) -> None:
    graphs = [build_graph(crystal, 4.0) for crystal in crystals[:9]]
    joined = type(batch_graphs(graphs)).join([batch_graphs(graphs[:4]), batch_graphs(graphs[4:])])
    rows = np.array([7, 0, 5])
    for found, expected in (
        (joined, batch_graphs(graphs)),
        (joined.take(rows), batch_graphs([graphs[row] for row in rows])),
    ):
        for name, values in vars(expected).items():
            np.testing.assert_array_equal(getattr(found, name), values, err_msg=name)


def test_every_epoch_of_a_training_draws_its_own_batches(
    crystals: Corpus, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    drawn: list[list[list[int]]] = []
    iterate = training_loop.Batches.__iter__

    def record(self: training_loop.Batches) -> Iterator[list[int]]:
        batches = list(iterate(self))
        if self.random_state is not None:
            drawn.append(batches)
        return iter(batches)

    monkeypatch.setattr(training_loop.Batches, "__iter__", record)
    train_source(crystals, settings(epochs=3), tmp_path / "run", device="cpu")
    epochs = [batches for i, batches in enumerate(drawn) if batches not in drawn[:i]]
    assert len(epochs) == 3


class KilledError(Exception):
    """Stands for whatever ends a process."""


def kill(crystals: Corpus, folder: Path, epochs: float) -> None:
    """Begin a training and end it after so many of its six epochs."""

    def progress(done: int, total: int) -> None:
        if done >= epochs / 6 * total:
            raise KilledError

    with pytest.raises(KilledError):
        train_source(crystals, settings(), folder, device="cpu", progress=progress)


# --- training ---------------------------------------------------------------------------------------------------------


def test_the_loss_falls(trained: TrainedSource) -> None:
    history = trained.report["history"]
    assert [part["epoch"] for part in history] == list(range(6))
    assert history[-1]["train_loss"] < 0.7 * history[0]["train_loss"]
    best = min(history, key=lambda part: part["validation_loss"])
    assert trained.report["best_epoch"] == best["epoch"]
    assert best["train_loss"] == pytest.approx(
        best["train_graph"]
        + settings().composition_weight * best["train_composition"]
        + settings().alignment_weight * best["train_alignment"],
        rel=1e-5,
    )


def test_resuming_is_bit_for_bit_the_uninterrupted_run(
    trained: TrainedSource, crystals: Corpus, tmp_path: Path
) -> None:
    state = torch.get_rng_state()
    kill(crystals, tmp_path / "run", epochs=2.5)
    with pytest.raises(InputError, match="no finished training"):
        load_trained(tmp_path / "run")
    resumed = train_source(crystals, settings(), tmp_path / "run", device="cpu", resume=True)
    assert torch.equal(torch.get_rng_state(), state)
    assert resumed.report["history"] == trained.report["history"]
    for name in ("structure.safetensors", *trained.card.weights, "card.json"):
        assert (resumed.folder / name).read_bytes() == (trained.folder / name).read_bytes(), name
    again = train_source(crystals, settings(), tmp_path / "run", device="cpu", resume=True)
    assert again == resumed  # read, not trained


def test_another_seed_is_another_model(trained: TrainedSource, crystals: Corpus, tmp_path: Path) -> None:
    other = train_source(crystals, settings(random_state=1, epochs=1), tmp_path / "run", device="cpu")
    assert other.report["held_out"] != trained.report["held_out"]
    assert other.report["history"][0] != trained.report["history"][0]


def test_training_stops_when_the_validation_loss_gets_no_better(crystals: Corpus, tmp_path: Path) -> None:
    done = train_source(
        crystals, settings(learning_rate=0.0, weight_decay=0.0, patience=2), tmp_path / "a", device="cpu"
    )
    assert len(done.report["history"]) == 3  # the first, and two that are no better


def test_what_is_reported_is_what_card_and_folder_give(trained: TrainedSource, crystals: Corpus) -> None:
    by_name = {crystal.identifier: crystal for crystal in crystals}
    held_out = Corpus(by_name[name] for name in trained.report["held_out"])
    assert len(held_out) == trained.report["n_held_out"] >= 12
    true = held_out.values(EFORM)
    encoder = trained.card.load(path=trained.folder)
    formulas = list(held_out.compositions.text)
    Z = encoder.encode(formulas)
    known = np.isfinite(Z).all(axis=1)
    np.testing.assert_allclose(np.linalg.norm(Z[known], axis=1), 1.0, rtol=1e-5)
    encoded = trained.encode_crystals(held_out)
    assert not encoded.refused
    assert np.mean(np.abs(encoded.embeddings["final"][:, 0] - true)) == pytest.approx(
        trained.report["mae_graph"], rel=1e-4
    )
    unseen = [not set(crystal.chemical_system.split("-")) <= set(trained.card.elements) for crystal in held_out]
    np.testing.assert_array_equal(~known, unseen)
    if known.all():
        final = encoder.encode(formulas, layer="final")[:, 0]
        assert np.mean(np.abs(final - true)) == pytest.approx(trained.report["mae_composition"], rel=1e-3)
        assert trained.card.error == trained.report["mae_composition"]
        cosine = np.mean(np.sum(Z * encoded.embeddings["readout"], axis=1))
        assert cosine == pytest.approx(trained.report["cosine"], rel=1e-3)
    assert trained.report["n_without_property"] == 20


def test_held_out_chemical_systems_are_not_trained_on(trained: TrainedSource, crystals: Corpus) -> None:
    held_out = {c.chemical_system for c in crystals if c.identifier in trained.report["held_out"]}
    rest = [c for c in crystals if EFORM in c.properties and c.identifier not in trained.report["held_out"]]
    assert not held_out & {c.chemical_system for c in rest}
    used = trained.report["n_train"] + trained.report["n_validation"] + len(trained.report["refused"])
    assert used == len(Corpus(rest).one_per_formula())


def test_card_and_encoder_conform(trained: TrainedSource) -> None:
    check_card(trained.card)
    check_encoder(trained.card.load(path=trained.folder))
    assert load_trained(trained.folder) == trained


def test_an_installed_source_is_ranked(trained: TrainedSource, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("SCOTL_MATGL_HOME", str(tmp_path))
    with pytest.raises(InputError, match="its weights"):
        trained.card.load()
    known = set(trained.card.elements)
    table = load_example()
    table = table[[set(re.findall("[A-Z][a-z]?", formula)) <= known for formula in table["formula"]]].iloc[:60]
    ranker = TransferabilityRanker([trained.install()], estimators=["loo"]).fit(table["formula"], table["target"])
    assert [result.source for result in ranker.ranking_.results] == [trained.card.name]


def test_the_command_line_trains_resumes_and_refuses(file: Path, tmp_path: Path) -> None:
    arguments = ["train", "--structures", file, "--property", EFORM, "--unit", "eV/atom", "--epochs", 2]
    arguments += ["--output", tmp_path / "run", "--name", "Mine", "--device", "cpu", "--threshold", 0.01]
    first = CliRunner().invoke(app, list(map(str, arguments)))
    assert first.exit_code == 0, first.output
    assert "Mine: " in first.stdout
    assert "20 without the property" in first.stdout
    done = load_trained(tmp_path / "run")
    assert done.report["settings"]["threshold"] == 0.01
    assert f"{done.report['mae_composition']:.4g} eV/atom" in first.stdout
    again = CliRunner().invoke(app, list(map(str, arguments)))
    assert isinstance(again.exception, InputError)
    resumed = CliRunner().invoke(app, [*map(str, arguments), "--resume"])
    assert resumed.stdout == first.stdout


@pytest.mark.parametrize("architecture", ["M3GNet", "TensorNet"])
def test_other_architectures_train(architecture: str, crystals: Corpus, tmp_path: Path) -> None:
    chosen = settings(architecture=architecture, network=TINY[architecture], epochs=10, learning_rate=1e-2)
    done = train_source(crystals, chosen, tmp_path / "run", device="cpu")
    assert done.report["history"][-1]["train_graph"] < 0.8 * done.report["history"][0]["train_graph"]
    assert architecture in done.card.architecture


@pytest.mark.parametrize(
    ("name", "known"),
    [("SCOTL-MEGNet-Eform", EFORM), ("SCOTL-MEGNet-PBEGap", "pbe_gap_eV"), ("SCOTL-MEGNet-HSEGap", "hse_gap_eV")],
)
def test_shipped_sources_conform_and_are_as_good_as_their_cards_say(name: str, known: str, assets: Path) -> None:
    (card,) = (card for card in zoo.own() if card.name == name)
    check_card(card)
    encoder = card.load()
    check_encoder(encoder)
    path = assets / "structures" / "crystals.json.gz"
    corpus = Corpus(item for item in itertools.islice(read_crystals(path), 3000) if isinstance(item, Crystal))
    lowest = Corpus(c for c in corpus if known in c.properties).one_per_formula()
    found = encoder.encode(lowest.compositions, layer="final")[:, 0]
    # Most of these were trained on, so that the error is below that of chemical systems held out, and not far from it.
    assert 0.2 * card.error < np.nanmean(np.abs(found - lowest.values(known))) < 1.1 * card.error
    assert np.isfinite(found).mean() > 0.99


# --- what is refused --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: settings(architecture="CHGNet"), "architecture is 'CHGNet'; it must be one of MEGNet, M3GNet"),
        (lambda: settings(loss="huber"), "loss is 'huber'; it must be one of mse, mae"),
        (lambda: settings(epochs=0), "epochs is 0; it must be at least 1"),
        (lambda: settings(held_out=0.7), "held_out is 0.7; it must lie between 0 and 0.5"),
    ],
)
def test_settings_that_cannot_be_are_a_sentence(call: Callable[[], Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        call()


def test_a_property_that_no_crystal_has_is_a_sentence(crystals: Corpus, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="only 0 of 0 crystals with 'gap' can be used; at least 40"):
        train_source(crystals, settings(property="gap"), tmp_path / "run")


def test_options_that_the_network_does_not_take_are_a_sentence(crystals: Corpus, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="MEGNet cannot be built with"):
        train_source(crystals, settings(network={"nblocks": "two"}), tmp_path / "run")


def test_a_folder_of_another_training_is_not_overwritten(trained: TrainedSource, crystals: Corpus) -> None:
    before = (trained.folder / "card.json").read_bytes()
    with pytest.raises(InputError, match="holds a training already; resume it"):
        train_source(crystals, settings(), trained.folder)
    with pytest.raises(InputError, match="begun with other epochs, corpus_hash; resume it with the same"):
        train_source(crystals[:50], settings(epochs=7), trained.folder, resume=True)
    assert (trained.folder / "card.json").read_bytes() == before


def test_a_checkpoint_that_holds_code_is_not_executed(crystals: Corpus, tmp_path: Path) -> None:
    kill(crystals, tmp_path / "run", epochs=1.5)

    class Evil:
        def __reduce__(self) -> Any:
            return (Path.touch, (tmp_path / "executed",))

    torch.save({"state_dict": Evil()}, tmp_path / "run" / "checkpoints" / "last.ckpt")
    with pytest.raises(pickle.UnpicklingError):
        train_source(crystals, settings(), tmp_path / "run", device="cpu", resume=True)
    assert not (tmp_path / "executed").exists()
