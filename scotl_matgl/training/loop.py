"""The torch and Lightning side of source training: the joint network, its loss, batches, and a fit that resumes."""

from __future__ import annotations

import contextlib
import importlib
import logging
import math
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from scotl_matgl.bridges.alignment import alignment_loss
from scotl_matgl.chemistry.elements import SYMBOLS
from scotl_matgl.encoders import dgl_backend
from scotl_matgl.encoders.graphs import CrystalGraph, GraphBatch
from scotl_matgl.exceptions import InputError
from scotl_matgl.training.settings import ARCHITECTURES, Schedule, TrainingSettings

Floats32 = NDArray[np.float32]

#: Crystals whose equal atoms and bonds are sought together. In larger groups distances that differ by chance would
#: run into each other (:data:`scotl_matgl.encoders.graphs.MERGE_TOLERANCE`).
_GROUP = 32

#: The last layers of each architecture. Without them its output is its read-out.
_LAST = {"MEGNet": "output_proj", "M3GNet": "final_layer", "TensorNet": "final_layer"}


@dataclass(frozen=True, eq=False)
class Rows:
    """What the joint network sees of n crystals, and how they are divided.

    Attributes
    ----------
    graphs : GraphBatch
        n crystals.
    X, y : ndarray of float32, shapes (n, p) and (n,)
        Standardised descriptors and property.
    train, validation : ndarray of int64
        Positions.
    """

    graphs: GraphBatch
    X: Floats32
    y: Floats32
    train: NDArray[np.int64]
    validation: NDArray[np.int64]


def build_network(architecture: str, options: Mapping[str, Any], elements: Sequence[str]) -> Any:
    """Network of MatGL without its last layers, on the faster layers that encoding uses too.

    Raises
    ------
    InputError
        If the architecture is none of :data:`ARCHITECTURES`, or does not take the options.
    """
    if architecture not in ARCHITECTURES:
        raise InputError(f"the architecture {architecture!r} is not one of {', '.join(ARCHITECTURES)}")
    from torch import nn

    dgl_backend.import_matgl()
    network_class = getattr(importlib.import_module(dgl_backend.MODELS[architecture]), architecture)
    try:
        network = network_class(**{**ARCHITECTURES[architecture], **options, "element_types": tuple(elements)})
    except TypeError as error:
        raise InputError(f"{architecture} cannot be built with {dict(options)}: {error}") from error
    network.readout_width = getattr(network, _LAST[architecture]).in_features
    setattr(network, _LAST[architecture], nn.Identity())
    dgl_backend.adapt(network, convention=2)
    return network


def collect(network: Any, graphs: Sequence[CrystalGraph]) -> GraphBatch:
    """All crystals as one batch, from which those of a step are taken."""
    groups = (graphs[begin : begin + _GROUP] for begin in range(0, len(graphs), _GROUP))
    return GraphBatch.join([dgl_backend.collect(network, group) for group in groups])


def build_joint(settings: TrainingSettings, elements: Sequence[str], n_descriptors: int) -> Any:
    """Joint network: graph branch, composition branch, and the layer that predicts the property from either.

    Both branches end in rows of length one. The initial weights depend on the seed alone.
    """
    import torch
    from torch import nn
    from torch.nn import functional

    class Joint(nn.Module):  # type: ignore[misc]  # torch is not typed
        def __init__(self) -> None:
            super().__init__()
            self.network = build_network(settings.architecture, settings.network, elements)
            self.projection = nn.Linear(self.network.readout_width, settings.width)
            layers: list[Any] = []
            for size_in, size_out in pairwise([n_descriptors, *settings.hidden]):
                layers += [nn.Linear(size_in, size_out), nn.LeakyReLU()]
            self.composition = nn.Sequential(*layers, nn.Linear([n_descriptors, *settings.hidden][-1], settings.width))
            self.head = nn.Linear(settings.width, 1)

        def embed_crystals(self, graph: Any, inputs: Mapping[str, Any]) -> Any:
            if type(self.network).__name__ == "MEGNet":
                inputs = {**inputs, "state_attr": self.projection.weight.new_zeros(graph.batch_size, 2)}
            # On a copy that shares the tensors: networks leave their features in the graph.
            readout = self.network(g=graph.local_var(), **inputs).reshape(graph.batch_size, -1)
            return functional.normalize(self.projection(readout))

        def embed_compositions(self, X: Any) -> Any:
            return functional.normalize(self.composition(X))

    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(settings.random_state)
        return Joint()


def joint_loss(
    joint: Any, graph: Any, inputs: Mapping[str, Any], X: Any, y: Any, settings: TrainingSettings
) -> tuple[Any, dict[str, float]]:
    """Loss of a batch, and its parts.

    error(graph branch) + composition_weight · error(composition branch) + alignment_weight · alignment
    """
    from torch.nn import functional

    error = functional.mse_loss if settings.loss == "mse" else functional.l1_loss
    crystals, compositions = joint.embed_crystals(graph, inputs), joint.embed_compositions(X)
    parts = {
        "graph": error(joint.head(crystals)[:, 0], y),
        "composition": error(joint.head(compositions)[:, 0], y),
        "alignment": alignment_loss(crystals, compositions, settings.threshold),
    }
    loss = parts["graph"] + settings.alignment_weight * parts["alignment"]
    if settings.composition_weight:
        loss = loss + settings.composition_weight * parts["composition"]
    return loss, {name: float(part.detach()) for name, part in parts.items()}


class Batches:
    """Batches of an epoch, all of about the same number of bonds; drawn anew in each epoch, from seed and epoch alone.

    Crystals are sorted by their number of bonds and dealt out, so that each batch gets one of every size.

    Parameters
    ----------
    rows : ndarray of int64
        Crystals to deal out.
    n_bonds : ndarray of int64
        Of all crystals.
    batch_size : int
        Crystals of a batch.
    random_state : int or None
        None leaves the crystals where they are, for validation.
    """

    def __init__(
        self, rows: NDArray[np.int64], n_bonds: NDArray[np.int64], batch_size: int, random_state: int | None
    ) -> None:
        self.rows = rows[np.argsort(n_bonds[rows], kind="stable")]
        self.n_batches = max(1, math.ceil(len(rows) / batch_size))
        self.random_state = random_state
        self.epoch = 0

    def set_epoch(self, epoch: int) -> None:
        """Say which epoch comes next."""
        self.epoch = epoch

    def __len__(self) -> int:
        return self.n_batches

    def __iter__(self) -> Iterator[list[int]]:
        deal = np.arange(len(self.rows)) % self.n_batches
        if self.random_state is not None:
            rng = np.random.default_rng([self.random_state, self.epoch])
            for begin in range(0, len(deal), self.n_batches):
                rng.shuffle(deal[begin : begin + self.n_batches])
        order = np.argsort(deal, kind="stable")
        for batch in np.split(self.rows[order], np.cumsum(np.bincount(deal))[:-1]):
            yield batch.tolist()


@dataclass(frozen=True)
class Fitted:
    """What a fit gives.

    Attributes
    ----------
    history : list of dict
        Parts of the loss of every epoch, on the training and the validation crystals.
    best_epoch : int
    """

    history: list[dict[str, float]]
    best_epoch: int


def fit_joint(
    joint: Any,
    rows: Rows,
    settings: TrainingSettings,
    folder: Path,
    *,
    types: NDArray[np.int32],
    device: str,
    progress: Callable[[int, int], None] | None,
) -> Fitted:
    """Train the joint network; see :func:`fit_network`.

    Parameters
    ----------
    types : ndarray of int32
        Position of each atomic number among the elements of the network.
    """
    import torch

    descriptors, target = torch.from_numpy(rows.X), torch.from_numpy(rows.y)

    def loss_of(chosen: NDArray[np.int64], place: Any) -> tuple[Any, dict[str, float]]:
        graph, inputs = dgl_backend.prepare_batch(joint.network, rows.graphs.take(chosen), types, place)
        X, y = descriptors[chosen].to(place), target[chosen].to(place)
        return joint_loss(joint, graph, inputs, X, y, settings)

    return fit_network(
        joint,
        loss_of,
        Batches(rows.train, rows.graphs.n_bonds, settings.batch_size, settings.random_state),
        Batches(rows.validation, rows.graphs.n_bonds, settings.batch_size, None),
        settings,
        folder,
        device=device,
        progress=progress,
    )


def fit_network(
    network: Any,
    loss_of: Callable[[NDArray[np.int64], Any], tuple[Any, dict[str, float]]],
    train: Batches,
    validation: Batches | None,
    settings: Schedule,
    folder: Path,
    *,
    device: str,
    progress: Callable[[int, int], None] | None = None,
) -> Fitted:
    """Train with Lightning: a checkpoint an epoch, from which the next call goes on.

    Afterwards the network has the weights of the best epoch and lies on the CPU.

    Parameters
    ----------
    network : torch.nn.Module
        Of its weights those that require gradients are trained.
    loss_of : callable
        From the positions of some crystals and a device to their mean loss and, for the history, parts of it.
    train, validation : Batches
        Without validation the last epoch counts as the best.
    settings : Schedule
    folder : path
        Of the checkpoints ``last.ckpt`` and ``best.ckpt``, which hold tensors and plain values only.
    progress : callable, optional
        Called with (steps done, steps in all).
    """
    import torch
    from lightning import pytorch as lightning
    from torch.utils.data import DataLoader

    sizes = {"train": len(train.rows), "validation": 0 if validation is None else len(validation.rows)}
    positions = torch.arange(max(int(part.rows.max()) for part in (train, validation) if part is not None) + 1)
    n_steps = _n_steps(settings, train)
    record = _record(sizes, n_steps, progress)
    checkpoint = lightning.callbacks.ModelCheckpoint(
        dirpath=folder,
        filename="best",
        monitor=None if validation is None else "validation_loss",
        save_top_k=1,
        save_last=True,
        enable_version_counter=False,
        save_on_train_epoch_end=True,
    )
    callbacks = [record, checkpoint]
    if validation is not None:
        callbacks.insert(1, lightning.callbacks.EarlyStopping(monitor="validation_loss", patience=settings.patience))
    with _quietly(), torch.random.fork_rng(devices=[]):
        trainer = lightning.Trainer(
            **_accelerator(device),
            max_epochs=settings.epochs,
            gradient_clip_val=1.0,
            callbacks=callbacks,
            default_root_dir=folder,
            logger=False,
            enable_progress_bar=False,
            enable_model_summary=False,
            num_sanity_val_steps=0,
            use_distributed_sampler=False,
        )
        last = folder / "last.ckpt"
        module = _module(network, loss_of, train, sizes, settings)
        trainer.fit(
            module,
            DataLoader(positions, batch_sampler=train),
            None if validation is None else DataLoader(positions, batch_sampler=validation),
            ckpt_path=last if last.is_file() else None,
            weights_only=True,
        )
    best = torch.load(folder / "best.ckpt", map_location="cpu", weights_only=True)
    module.cpu().load_state_dict(best["state_dict"])
    network.eval()
    return Fitted(record.history, int(best["epoch"]))


def _module(
    network: Any,
    loss_of: Callable[[NDArray[np.int64], Any], tuple[Any, dict[str, float]]],
    train: Batches,
    sizes: Mapping[str, int],
    schedule: Schedule,
) -> Any:
    """What Lightning trains: the network with its loss, the sums of the loss's parts, and the optimiser."""
    import torch
    from lightning import pytorch as lightning

    n_steps = _n_steps(schedule, train)

    class Module(lightning.LightningModule):
        def __init__(self) -> None:
            super().__init__()
            self.network = network
            self.sums: dict[str, float] = {}

        def step(self, batch: Any, stage: str) -> Any:
            chosen = batch.cpu().numpy()
            loss, parts = loss_of(chosen, self.device)
            for name, value in {"loss": float(loss.detach()), **parts}.items():
                key = f"{stage}_{name}"
                self.sums[key] = self.sums.get(key, 0.0) + value * len(chosen)
            return loss

        def on_train_epoch_start(self) -> None:
            # Lightning does so for samplers of single crystals alone.
            train.set_epoch(self.current_epoch)

        def training_step(self, batch: Any, _: int) -> Any:
            return self.step(batch, "train")

        def validation_step(self, batch: Any, _: int) -> None:
            self.step(batch, "validation")

        def on_validation_epoch_end(self) -> None:
            self.log("validation_loss", self.sums["validation_loss"] / sizes["validation"])

        def configure_optimizers(self) -> Any:
            trained = [parameter for parameter in self.parameters() if parameter.requires_grad]
            optimiser = torch.optim.AdamW(trained, lr=schedule.learning_rate, weight_decay=schedule.weight_decay)
            course = torch.optim.lr_scheduler.OneCycleLR(
                optimiser, max_lr=schedule.learning_rate, total_steps=n_steps, pct_start=max(0.1, 2 / n_steps)
            )
            return {"optimizer": optimiser, "lr_scheduler": {"scheduler": course, "interval": "step"}}

    return Module()


def _record(sizes: Mapping[str, int], n_steps: int, progress: Callable[[int, int], None] | None) -> Any:
    """What notes the history, and calls `progress`."""
    from lightning import pytorch as lightning

    class Record(lightning.Callback):
        """Notes the parts of the loss epoch by epoch; what it noted is part of the checkpoint."""

        def __init__(self) -> None:
            self.history: list[dict[str, float]] = []

        def on_train_batch_end(self, trainer: Any, *_: Any) -> None:
            if progress is not None:
                progress(trainer.global_step, n_steps)

        def on_train_epoch_end(self, trainer: Any, module: Any) -> None:
            self.history.append(
                {"epoch": trainer.current_epoch, **{k: v / sizes[k.split("_")[0]] for k, v in module.sums.items()}}
            )
            module.sums.clear()

        def state_dict(self) -> dict[str, Any]:
            return {"history": self.history}

        def load_state_dict(self, state: dict[str, Any]) -> None:
            self.history = list(state["history"])

    return Record()


def _n_steps(schedule: Schedule, train: Batches) -> int:
    """Batches of all epochs; three at least, as the course of the learning rate needs them."""
    return max(3, schedule.epochs * len(train))


def embed(
    joint: Any, rows: Rows, chosen: NDArray[np.int64], types: NDArray[np.int32], batch_size: int
) -> tuple[Floats32, Floats32]:
    """Embeddings (n, width) of some of the crystals by the graph branch and by the composition branch."""
    import torch

    batches = np.array_split(chosen, max(1, math.ceil(len(chosen) / batch_size)))
    crystals = [run_graph_branch(joint, rows.graphs.take(batch), types)[0] for batch in batches]
    with torch.inference_mode():
        compositions = joint.embed_compositions(torch.from_numpy(rows.X[chosen])).numpy()
    return np.concatenate(crystals), compositions


def run_graph_branch(joint: Any, batch: GraphBatch, types: NDArray[np.int32]) -> tuple[Floats32, Floats32]:
    """Embedding (n, width) and standardised property (n, 1) of the crystals of a batch, on the CPU."""
    import torch

    with torch.inference_mode():
        embedding = joint.embed_crystals(*dgl_backend.prepare_batch(joint.network, batch, types, torch.device("cpu")))
        return embedding.numpy(), joint.head(embedding).numpy()


def element_types(elements: Sequence[str]) -> NDArray[np.int32]:
    """Position of each atomic number among some elements; −1 for the others."""
    types = np.full(len(SYMBOLS) + 1, -1, dtype=np.int32)
    types[[SYMBOLS.index(symbol) + 1 for symbol in elements]] = np.arange(len(elements))
    return types


def _accelerator(device: str) -> dict[str, Any]:
    """Arguments of Lightning's trainer for one device."""
    if device == "auto":
        device = "cuda" if dgl_backend.has_gpu() else "cpu"
    kind, _, number = device.partition(":")
    if kind == "cpu":
        return {"accelerator": "cpu", "devices": 1}
    return {"accelerator": kind, "devices": [int(number or 0)]}


@contextlib.contextmanager
def _quietly() -> Iterator[None]:
    """Silence what Lightning says of hardware, workers and folders; the user's own settings come back."""
    loggers = [logging.getLogger(name) for name in ("lightning.pytorch", "lightning.fabric")]
    levels = [logger.level for logger in loggers]
    try:
        for logger in loggers:
            logger.setLevel(logging.ERROR)
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", module="lightning")
            yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)
