"""Train a source model as SCOTL does: a network on crystals jointly with one on formulas, which becomes a source."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from scotl_matgl.bridges.base import split_by_group
from scotl_matgl.chemistry.corpus import Corpus
from scotl_matgl.chemistry.elements import SYMBOLS
from scotl_matgl.descriptors.composite import get_descriptor
from scotl_matgl.encoders import composition
from scotl_matgl.encoders.base import encode_crystals
from scotl_matgl.encoders.contracts import Encoded
from scotl_matgl.encoders.graphs import CrystalGraph, build_graph, check_crystal, check_graph
from scotl_matgl.encoders.matgl import BATCH_EDGES
from scotl_matgl.encoders.network import Network
from scotl_matgl.exceptions import InputError
from scotl_matgl.progress import Told, tells
from scotl_matgl.sources.cards import SourceCard, is_file_name, read_cards
from scotl_matgl.sources.installed import install
from scotl_matgl.storage import TensorKind, installed_versions, read_record, read_tensors, write_tensors, write_whole
from scotl_matgl.training import loop as training_loop
from scotl_matgl.training.settings import TrainingSettings
from scotl_matgl.vocabulary import Progress

Floats32 = NDArray[np.float32]

#: Files of a training, in its folder.
_SETTINGS, _REPORT, _CARD = "settings.json", "report.json", "card.json"
_STRUCTURE, _CHECKPOINTS = "structure.safetensors", "checkpoints"

_GRAPH_FILE = TensorKind(
    "trained graph branch",
    1,
    {"elements": [str], "y_mean": float, "y_scale": float, "settings": {str: object}},
    "train the source again",
)


@dataclass(frozen=True)
class TrainedSource:
    """A trained source.

    Attributes
    ----------
    card : SourceCard
        Composition modality; ``card.load(path=folder)`` is its encoder, which needs numpy alone.
    folder : path
    report : dict
        Errors of both branches and alignment on held-out crystals, history, settings, hashes and versions, as written
        to ``report.json``.
    """

    card: SourceCard
    folder: Path
    report: dict[str, Any]

    def install(self) -> SourceCard:
        """Keep the card and the composition branch with the user's own sources; it is listed and ranked by its name."""
        (name,) = self.card.weights
        file = self.folder / name
        if file.is_symlink() or not file.is_file():
            raise InputError(f"{file} is no file of its own; a link is not followed, copy the file there")
        content = file.read_bytes()
        if (found := hashlib.sha256(content).hexdigest()) != self.card.weights[name]:
            raise InputError(f"{file} is not the file of the card: its sha256 is {found}; train the source again")
        return install(self.card, {name: content}, replace=True)

    def encode_crystals(self, structures: Iterable[Any], *, progress: Progress | None = None) -> Encoded:
        """Embeddings of crystals by the graph branch, on the CPU.

        Parameters
        ----------
        structures : iterable
            Crystals, or what :func:`~scotl_matgl.chemistry.crystals.as_crystal` understands.
        progress : callable, optional
            Called with (crystals done, crystals in all).

        Returns
        -------
        Encoded
            Layers ``readout``, which the composition branch was aligned with, and ``final``, in the unit of the
            property.
        """
        import torch

        header, tensors = read_tensors(self.folder / _STRUCTURE, _GRAPH_FILE)
        state = {name: torch.from_numpy(tensor) for name, tensor in tensors.items()}
        settings = TrainingSettings.from_dict(header["settings"])
        joint = training_loop.build_joint(settings, header["elements"], state["composition.0.weight"].shape[1])
        joint.load_state_dict(state)
        types = training_loop.element_types(header["elements"])

        def forward(graphs: Sequence[CrystalGraph]) -> dict[str, Floats32]:
            embedding, scaled = training_loop.run_graph_branch(
                joint, training_loop.collect(joint.network, graphs), types
            )
            return {"readout": embedding, "final": scaled * header["y_scale"] + header["y_mean"]}

        return encode_crystals(
            structures,
            forward,
            widths={"readout": settings.width, "final": 1},
            cutoff=settings.cutoff(),
            batch_edges=BATCH_EDGES[settings.architecture],
            elements=header["elements"],
            progress=progress,
        )


@dataclass(frozen=True, eq=False)
class _Data:
    """The crystals that can be trained on, described, and how they are divided."""

    graphs: list[CrystalGraph]
    X: Floats32
    y: Floats32
    train: NDArray[np.int64]
    validation: NDArray[np.int64]
    held_out: NDArray[np.int64]
    elements: tuple[str, ...]
    mean: NDArray[np.float64]
    scale: NDArray[np.float64]
    y_mean: float
    y_scale: float
    refused: dict[str, str]
    held_out_names: list[str]
    corpus_hash: str


@tells("training")
def train_source(
    corpus: Corpus,
    settings: TrainingSettings,
    folder: str | Path,
    *,
    name: str = "",
    dataset: str = "",
    resume: bool = False,
    device: str = "auto",
    progress: Told = None,
) -> TrainedSource:
    """Train a source model with SCOTL's objective.

    A network of MatGL embeds crystals, a small one embeds their formulas; both embeddings have length one, and one
    linear layer predicts the property from either. The loss is the error of the property plus the distance of the two
    embeddings, so that afterwards formulas alone are enough.

    Parameters
    ----------
    corpus : Corpus
        Crystals; those without the property are left out and counted.
    settings : TrainingSettings
    folder : path
        For checkpoints and results.
    name : str
        Of the source; by default made from architecture and property.
    dataset : str
        What the crystals are, for the card.
    resume : bool, default=False
        Go on from the last checkpoint of the folder; the result is that of a run that was never interrupted. A finished
        training is read.
    device : str, default="auto"
        ``"cpu"``, ``"cuda"``, ``"cuda:1"``.
    progress : callable or True, optional
        A callable is called with (steps done, steps in all); True draws a bar, in a notebook below the cell.

    Returns
    -------
    TrainedSource

    Raises
    ------
    InputError
        If the folder holds another training, or too few crystals can be used.

    References
    ----------
    SCOTL, "One-Shot Heterogeneous Transfer Learning from Calculated Crystal Structures to Experimentally Observed
    Materials"; written anew from its description.

    Examples
    --------
    >>> corpus = Corpus.read("crystals.json.gz")  # doctest: +SKIP
    >>> settings = TrainingSettings(property="formation_energy_eV_atom", unit="eV/atom")  # doctest: +SKIP
    >>> trained = train_source(corpus, settings, "eform")  # doctest: +SKIP
    >>> trained.card.load(path="eform").encode(["NaCl"]).shape  # doctest: +SKIP
    (1, 128)
    """
    folder = Path(folder)
    known = corpus.values(settings.property)
    chosen = Corpus(crystal for crystal, value in zip(corpus, known, strict=True) if np.isfinite(value))
    if settings.lowest:
        chosen = chosen.one_per_formula()
    plan = json.loads(json.dumps({**settings.to_dict(), "corpus_hash": chosen.hash}))
    if (finished := _claim(folder, plan, resume)) is not None:
        return finished
    data = _prepare(chosen, settings)
    joint = training_loop.build_joint(settings, data.elements, data.X.shape[1])
    graphs = training_loop.collect(joint.network, data.graphs)
    rows = training_loop.Rows(graphs, data.X, data.y, data.train, data.validation)
    types = training_loop.element_types(data.elements)
    fitted = training_loop.fit_joint(
        joint,
        rows,
        settings,
        folder / _CHECKPOINTS,
        types=types,
        device=device,
        progress=progress if callable(progress) else None,
    )
    crystals, compositions = training_loop.embed(joint, rows, data.held_out, types, settings.batch_size)
    report = {
        **_quality(joint, crystals, compositions, data),
        "n_train": len(data.train),
        "n_validation": len(data.validation),
        "n_held_out": len(data.held_out),
        "held_out": data.held_out_names,
        "n_without_property": int(np.sum(~np.isfinite(known))),
        "refused": data.refused,
        "best_epoch": fitted.best_epoch,
        "history": fitted.history,
        "settings": plan,
        "versions": installed_versions(("scotl-matgl", "torch", "lightning", "matgl", "dgl", "numpy", "pymatgen")),
    }
    return _write(folder, name, dataset, joint, data, settings, report)


def load_trained(folder: str | Path) -> TrainedSource:
    """Read the result of a training.

    Raises
    ------
    InputError
        If the folder holds none that is finished.
    """
    folder = Path(folder)
    if not (folder / _CARD).is_file():
        raise InputError(f"there is no finished training in {folder}; train_source(..., resume=True) finishes one")
    cards = read_cards(folder / _CARD)
    if (
        len(cards) != 1
        or cards[0].modality != "composition"
        or len(cards[0].weights) != 1
        or not all(map(is_file_name, cards[0].weights))
    ):
        raise InputError(
            f"{folder / _CARD} is no card of a trained source, which has one file of weights in its own folder"
        )
    return TrainedSource(cards[0], folder, _report(folder))


def _report(folder: Path) -> dict[str, Any]:
    file = folder / _REPORT
    if not file.is_file():
        raise InputError(f"{folder} lacks {_REPORT}; copy the whole folder, or train again")
    return read_record(file, "copy the folder again, or train again")


def _claim(folder: Path, plan: dict[str, Any], resume: bool) -> TrainedSource | None:
    """Take a folder for a training; the result, if it is finished already."""
    file = folder / _SETTINGS
    if file.is_file():
        if not resume:
            raise InputError(f"{folder} holds a training already; resume it, or give another folder")
        found = read_record(file, "delete the folder to train anew")
        other = [key for key in plan if found.get(key) != plan[key]]
        if other:
            raise InputError(
                f"the training in {folder} was begun with other {', '.join(other)}; resume it with the same, or give "
                "another folder"
            )
        if (folder / _CARD).is_file():
            return load_trained(folder)
    write_whole(file, json.dumps(plan, indent=1).encode())
    return None


def _prepare(crystals: Corpus, settings: TrainingSettings) -> _Data:
    """Graphs, descriptors and splits of the crystals that can be used."""
    cutoff = settings.cutoff()
    graphs: list[CrystalGraph] = []
    kept = []
    refused: dict[str, str] = {}
    for index, crystal in enumerate(crystals):
        graph: CrystalGraph | None = None
        reason = check_crystal(crystal)
        if reason is None:
            graph = build_graph(crystal, cutoff)
            reason = check_graph(graph)
        if graph is None or reason is not None:
            refused[f"{crystal.identifier} (crystal {index})"] = str(reason)
        else:
            graphs.append(graph)
            kept.append(crystal)
    if len(kept) < 40:
        raise InputError(
            f"only {len(kept)} of {len(crystals)} crystals with {settings.property!r} can be used; at least 40 are "
            "needed"
        )
    usable = Corpus(kept)
    y = usable.values(settings.property)
    X = np.asarray(get_descriptor(settings.descriptor).fit(usable.compositions).transform(usable.compositions))
    systems = np.array([crystal.chemical_system for crystal in usable])
    held_out = split_by_group(systems, settings.held_out, settings.random_state)
    rest = np.flatnonzero(~held_out)
    validation = np.zeros(len(y), dtype=bool)
    share = settings.validation / (1.0 - settings.held_out)
    validation[rest[split_by_group(systems[rest], share, settings.random_state + 1)]] = True
    train = np.flatnonzero(~held_out & ~validation)

    mean, deviation = X[train].mean(axis=0), X[train].std(axis=0)
    scale = np.where(deviation > 1e-9 * np.maximum(np.abs(mean), 1e-9), deviation, 1.0)
    y_mean, y_scale = float(y[train].mean()), float(y[train].std())
    if not y_scale > 0:
        raise InputError(f"{settings.property!r} has the same value in all {len(train)} crystals to train on")
    numbers = np.unique(np.concatenate([crystal.numbers for crystal in usable]))
    elements = tuple(SYMBOLS[number - 1] for number in numbers.tolist())
    return _Data(
        graphs=graphs,
        X=((X - mean) / scale).astype(np.float32),
        y=((y - y_mean) / y_scale).astype(np.float32),
        train=train,
        validation=np.flatnonzero(validation),
        held_out=np.flatnonzero(held_out),
        elements=elements,
        mean=mean,
        scale=scale,
        y_mean=y_mean,
        y_scale=y_scale,
        refused=refused,
        held_out_names=[usable[row].identifier for row in np.flatnonzero(held_out).tolist()],
        corpus_hash=crystals.hash,
    )


def _quality(joint: Any, crystals: Floats32, compositions: Floats32, data: _Data) -> dict[str, float]:
    """Errors of both branches, in the unit of the property, and the alignment, on held-out crystals."""
    weight = joint.head.weight.detach().numpy()[0].astype(np.float64)
    bias = float(joint.head.bias.detach()[0])
    true = data.y[data.held_out].astype(np.float64)
    quality: dict[str, float] = {}
    for branch, embedding in (("graph", crystals), ("composition", compositions)):
        residual = embedding @ weight + bias - true
        quality[f"mae_{branch}"] = float(np.mean(np.abs(residual)) * data.y_scale)
        quality[f"r2_{branch}"] = float(1.0 - np.mean(residual**2) / np.var(true))
    centre = crystals.mean(axis=0)
    unit = [part / np.linalg.norm(part, axis=1, keepdims=True) for part in (crystals - centre, compositions - centre)]
    quality["cosine"] = float(np.mean(np.sum(crystals * compositions, axis=1)))
    quality["cosine_centred"] = float(np.mean(np.sum(unit[0] * unit[1], axis=1)))
    quality["r2_alignment"] = float(1.0 - np.mean((crystals - compositions) ** 2) / np.mean((crystals - centre) ** 2))
    return quality


def _write(
    folder: Path, name: str, dataset: str, joint: Any, data: _Data, settings: TrainingSettings, report: dict[str, Any]
) -> TrainedSource:
    """Write weights, report and, last of all, the card, whose presence says that the training is finished."""
    layers = [layer for layer in joint.composition if hasattr(layer, "weight")]
    weights = [layer.weight.detach().numpy().copy() for layer in layers]
    biases = [layer.bias.detach().numpy().copy() for layer in layers]
    scale = np.float32(data.y_scale)
    network = Network(
        weights=(*weights, joint.head.weight.detach().numpy() * scale),
        biases=(*biases, joint.head.bias.detach().numpy() * scale + np.float32(data.y_mean)),
        activation="leaky_relu",
        mean=data.mean,
        scale=data.scale,
        readout_activation="identity",
        unit_readout=True,
    )
    name = name or f"SCOTL-{settings.architecture}-{settings.property}"
    file = f"{name}.safetensors"
    sha256 = composition.write_networks(folder / file, {name: network})
    state = {key: value.numpy() for key, value in joint.state_dict().items()}
    header = {"elements": data.elements, "y_mean": data.y_mean, "y_scale": data.y_scale, "settings": report["settings"]}
    write_tensors(folder / _STRUCTURE, state, _GRAPH_FILE, header)
    trained = {number for row in data.train.tolist() for number in data.graphs[row].numbers.tolist()}
    card = composition.network_card(
        name,
        network,
        file=file,
        sha256=sha256,
        prefix=name,
        descriptor=settings.descriptor,
        zoo="own",
        property=settings.property,
        unit=settings.unit,
        dataset=dataset or f"crystals with content hash {data.corpus_hash[:16]}",
        architecture=f"SCOTL composition branch on {settings.descriptor}, aligned with {settings.architecture}",
        licence="as that of the crystals it was trained on",
        citation="scotl-matgl; the objective is SCOTL's",
        n_train=report["n_train"],
        error=report["mae_composition"],
        error_unit=settings.unit,
        elements=tuple(SYMBOLS[number - 1] for number in sorted(trained)),
        notes=(
            f"{report['n_held_out']} crystals of chemical systems held out: R² {report['r2_composition']:.3f} from the "
            f"formula, {report['r2_graph']:.3f} from the crystal; cosine of the two embeddings {report['cosine']:.3f} "
            f"(centred {report['cosine_centred']:.3f}). Seed {settings.random_state}."
        ),
    )
    write_whole(folder / _REPORT, json.dumps(report, indent=1).encode())
    write_whole(folder / _CARD, json.dumps(card.to_dict(), indent=1, ensure_ascii=False).encode())
    return TrainedSource(card, folder, report)
