"""Full transfer for tables that have crystals: a network of MatGL and its head, trained on from published weights."""

from __future__ import annotations

import hashlib
import json
import math
import tempfile
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import numpy as np
from numpy.typing import ArrayLike, NDArray
from sklearn.base import BaseEstimator, RegressorMixin
from sklearn.linear_model import LinearRegression, RidgeCV
from sklearn.utils.validation import check_is_fitted, column_or_1d

from scotl_matgl.bridges.base import split_by_group
from scotl_matgl.chemistry.compositions import column_of, composition_key
from scotl_matgl.chemistry.formulas import SkippedRow
from scotl_matgl.encoders import dgl_backend
from scotl_matgl.encoders.base import encode_crystals, graph_or_reason
from scotl_matgl.encoders.graphs import CrystalGraph, GraphBatch
from scotl_matgl.encoders.matgl import BATCH_EDGES, MatGLEncoder
from scotl_matgl.encoders.weights import find_model, pick_device
from scotl_matgl.exceptions import InputError, ScotlMatglWarning, warn
from scotl_matgl.sources.cards import SourceCard, all_cards, select
from scotl_matgl.storage import TensorKind, installed_versions, read_tensors, write_tensors
from scotl_matgl.training import loop as training_loop
from scotl_matgl.views import Documented
from scotl_matgl.vocabulary import counted

if TYPE_CHECKING:
    import torch

Floats = NDArray[np.float64]

#: What stands before the blocks of each architecture, and the lists of modules that make up the blocks.
_PARTS: dict[str, tuple[tuple[str, ...], tuple[str, ...]]] = {
    "MEGNet": (("embedding", "edge_encoder", "node_encoder", "state_encoder"), ("blocks",)),
    "M3GNet": (("embedding",), ("three_body_interactions", "graph_layers")),
    "TensorNet": (("tensor_embedding",), ("layers",)),
}

#: Centres of basis functions: parameters by their type, constants by MatGL's intention.
_CONSTANTS = ("bond_expansion", "basis_expansion")

#: Module whose sources can be trained on.
_LOADER = "scotl_matgl.encoders.matgl:"

#: Fewest crystals to train on.
_MIN_ROWS = 5

#: Version of saved files.
_MODEL_FILE = TensorKind(
    "model saved by FullTransferRegressor",
    2,  # 1 carried no hash
    {
        "parameters": {"source": str, "epochs": int, "checkpoints": (str, type(None))},
        "fitted": {
            "n_epochs_": int,
            "history_": object,
            "start_loss_": float,
            "target_mean_": float,
            "target_scale_": float,
        },
        "skipped": [{"row": int, "label": object, "value": str, "reason": str}],
        "versions": {str: str},
    },
    "train it again",
)


@dataclass(frozen=True)
class _Schedule:
    """Settings of the training loop."""

    epochs: int
    patience: int
    learning_rate: float
    weight_decay: float


@dataclass(frozen=True, eq=False)
class _Table:
    """Crystals that can be used, as one batch, and their standardised target."""

    graphs: GraphBatch
    n_atoms: NDArray[np.int64]
    y: NDArray[np.float32]


class FullTransferRegressor(Documented, RegressorMixin, BaseEstimator):  # type: ignore[misc]  # scikit-learn is not typed
    """Predict a property of crystals by a source whose whole network is trained on.

    A new head is first fitted alone, by ridge regression on the frozen embedding; then network and head are trained
    together at a small rate. That order keeps a random head from spoiling the pretrained layers [1]_. If no epoch has
    a smaller validation loss than that start, the start is kept.

    Parameters
    ----------
    source : str or SourceCard, default="MEGNet-MP-2018.6.1-Eform"
        One of MatGL's published MEGNet, M3GNet or TensorNet models; its weights must be on this machine
        (:func:`scotl_matgl.encoders.matgl.load` says where).
    epochs : int, default=30
        Passes over the crystals at most. 0 leaves the source as it is and fits the head alone.
    learning_rate : float, default=1e-3
        Peak of a one-cycle schedule of AdamW.
    weight_decay : float, default=1e-2
        Decoupled weight decay.
    freeze : int, default=0
        Number of first blocks kept fixed, with all that stands before them; 0 trains everything.
    reinitialise_head : bool, default=True
        Whether a new linear head on the read-out takes the place of the source's last layers. If not, these are kept,
        and what they predict is brought to the scale of the target by least squares.
    batch_size : int, default=16
        Crystals of a step.
    validation : float, default=0.1
        Share of the crystals, whole formulas at a time, that decides when to stop; 0 trains on all, for all epochs.
    patience : int, default=10
        Epochs without a smaller validation loss after which training stops.
    checkpoints : path-like, optional
        Folder for a checkpoint an epoch, from which an interrupted ``fit`` of the same parameters and data goes on.
        What belongs to a finished one is removed; :meth:`save` keeps the result.
    device : str, default="auto"
        ``"cpu"``, ``"cuda"``, ``"cuda:1"``; ``"auto"`` takes a GPU if torch and DGL can both use one.
    random_state : int, default=0
        Seed of the validation share and of the batches.

    Attributes
    ----------
    weights_ : dict of str to ndarray
        Of the source and the head.
    n_epochs_ : int
        Epochs after which the weights were taken; 0 if no training helped.
    history_ : list of dict
        ``epoch``, ``train_loss`` and ``validation_loss`` (smooth L1 of the standardised target), epoch by epoch.
    start_loss_ : float
        Validation loss before the training; NaN without validation or epochs.
    target_mean_, target_scale_ : float
        By which the target was standardised.
    skipped_ : tuple of SkippedRow
        Crystals and targets that could not be used in ``fit``, and why.
    card_ : SourceCard or None
        The source; None where it is read from a file, and found by name.

    Notes
    -----
    Needs matgl 2.1 on DGL, torch and lightning. Graphs are made once. On the CPU the same seed gives the same numbers.
    Cost on one core with MEGNet: about 0.2 s for 100 crystals of ten atoms and one epoch.

    References
    ----------
    .. [1] A. Kumar et al., "Fine-Tuning can Distort Pretrained Features and Underperform Out-of-Distribution",
       ICLR (2022).

    Examples
    --------
    >>> from scotl_matgl import Corpus, FullTransferRegressor
    >>> crystals = Corpus.read("crystals.json.gz")  # doctest: +SKIP
    >>> model = FullTransferRegressor().fit(crystals, crystals.values("bulk_modulus_vrh_GPa"))  # doctest: +SKIP
    >>> model.predict(crystals[:10]).shape  # doctest: +SKIP
    (10,)
    """

    card_: SourceCard | None

    def __init__(
        self,
        source: Any = "MEGNet-MP-2018.6.1-Eform",
        *,
        epochs: int = 30,
        learning_rate: float = 1e-3,
        weight_decay: float = 1e-2,
        freeze: int = 0,
        reinitialise_head: bool = True,
        batch_size: int = 16,
        validation: float = 0.1,
        patience: int = 10,
        checkpoints: str | Path | None = None,
        device: str = "auto",
        random_state: int = 0,
    ) -> None:
        self.source = source
        self.epochs = epochs
        self.learning_rate = learning_rate
        self.weight_decay = weight_decay
        self.freeze = freeze
        self.reinitialise_head = reinitialise_head
        self.batch_size = batch_size
        self.validation = validation
        self.patience = patience
        self.checkpoints = checkpoints
        self.device = device
        self.random_state = random_state

    def fit(self, X: Iterable[Any], y: ArrayLike) -> Self:
        """Train the source on.

        Parameters
        ----------
        X : iterable of n crystals, or table of one column
            What :func:`~scotl_matgl.chemistry.crystals.as_crystal` reads: pymatgen structures, ASE atoms, our own.
        y : array-like of shape (n,)
            The property. Rows without a finite value are skipped.

        Returns
        -------
        self

        Raises
        ------
        InputError
            If a parameter is wrong, the source is none of MatGL's that can be trained, or fewer than five crystals can
            be used.
        FileNotFoundError
            If the weights of the source are not on this machine.
        """
        self._check_parameters()
        card = _card_of(self.source)
        encoder = _load(card)
        table, groups, self.skipped_ = self._read(encoder, column_of(X)[0], y)
        _warn(self.skipped_, "skipped")
        self.card_, self._network = card, None
        train = np.arange(len(groups))
        held = np.empty(0, dtype=np.int64)
        if self.epochs and self.validation:
            mask = split_by_group(groups, self.validation, self.random_state)
            train, held = np.flatnonzero(~mask), np.flatnonzero(mask)
        network = _network(encoder, self._layer)
        self._start(network, encoder, table, train)
        self._freeze(encoder)
        self._train(network, encoder, table, train, held)
        self.weights_ = {name: value.numpy().copy() for name, value in network.cpu().state_dict().items()}
        self._network = network.eval()
        return self

    def _start(self, network: Any, encoder: MatGLEncoder, table: _Table, train: NDArray[np.int64]) -> None:
        """Give the new head its first weights."""
        _fit_head(network, encoder, table, train, self.batch_size)

    @property
    def _layer(self) -> str:
        return "readout" if self.reinitialise_head else "final"

    def _check_parameters(self) -> None:
        for name, least in (("epochs", 0), ("freeze", 0), ("batch_size", 1), ("patience", 1), ("random_state", 0)):
            value = getattr(self, name)
            if not isinstance(value, int | np.integer) or isinstance(value, bool) or value < least:
                raise InputError(f"{name} is {value!r}; it must be a whole number of at least {least}")
        if not 0.0 <= self.validation < 0.5:
            raise InputError(f"validation is {self.validation!r}; it must be at least 0 and below 0.5")
        if not self.learning_rate > 0:
            raise InputError(f"learning_rate is {self.learning_rate!r}; it must be positive")

    def _read(
        self, encoder: MatGLEncoder, structures: Sequence[Any], y: ArrayLike
    ) -> tuple[_Table, list[str], tuple[SkippedRow, ...]]:
        """Crystals that can be used, their formulas, and what was skipped; sets the scale of the target."""
        target = np.asarray(column_or_1d(y, warn=True), dtype=np.float64)
        if len(target) != len(structures):
            raise InputError(f"there are {len(structures)} crystals and {len(target)} targets; give one for each")
        graphs: list[CrystalGraph] = []
        kept, skipped = [], []
        for row, structure in enumerate(structures):
            graph: CrystalGraph | str = f"its target is {target[row]}; measure it or leave the row out"
            if np.isfinite(target[row]):
                graph = graph_or_reason(structure, encoder.elements, encoder.cutoff)
            if isinstance(graph, str):
                skipped.append(_skipped(row, structure, graph))
            else:
                graphs.append(graph)
                kept.append(row)
        if len(kept) < _MIN_ROWS:
            first = f"; the first that cannot: row {skipped[0].row}, {skipped[0].reason}" if skipped else ""
            raise InputError(
                f"{len(kept)} of {len(structures)} crystals can be used; at least {_MIN_ROWS} are needed{first}"
            )
        y_kept = target[kept]
        self.target_mean_, self.target_scale_ = float(y_kept.mean()), float(y_kept.std()) or 1.0
        table = _Table(
            training_loop.collect(encoder.model.model, graphs),
            np.array([graph.n_atoms for graph in graphs]),
            ((y_kept - self.target_mean_) / self.target_scale_).astype(np.float32),
        )
        formulas = [_formula(graph) for graph in graphs]
        # Of crystals that all have one formula, single ones are held out.
        groups = formulas if len(set(formulas)) > 1 else [str(row) for row in kept]
        return table, groups, tuple(skipped)

    def _freeze(self, encoder: MatGLEncoder) -> None:
        """Say which weights of the source are trained."""
        network: Any = encoder.model.model
        before, blocks = _PARTS[type(network).__name__]
        n_blocks = len(getattr(network, blocks[0]))
        if self.freeze > n_blocks:
            raise InputError(f"freeze is {self.freeze}; {encoder.card.name} has {n_blocks} blocks, so give no more")
        network.requires_grad_(True)
        fixed = [getattr(network, name) for name in _CONSTANTS if hasattr(network, name)]
        if self.freeze:
            fixed += [getattr(network, name) for name in before]
            fixed += [block for name in blocks for block in getattr(network, name)[: self.freeze]]
        for module in fixed:
            module.requires_grad_(False)

    def _train(
        self,
        network: Any,
        encoder: MatGLEncoder,
        table: _Table,
        train: NDArray[np.int64],
        held: NDArray[np.int64],
    ) -> None:
        """Train head and source; the network has the best weights afterwards."""
        import torch
        from torch.nn.functional import smooth_l1_loss

        self.history_: list[dict[str, float]] = []
        self.n_epochs_, self.start_loss_ = 0, math.nan
        if not self.epochs:
            return
        target = torch.from_numpy(table.y)

        def loss_of(rows: NDArray[np.int64], place: torch.device) -> tuple[Any, dict[str, float]]:
            output = network(*_prepared(encoder, table, rows, place))[:, 0]
            return smooth_l1_loss(output, target[rows].to(place)), {}

        n_bonds = table.graphs.n_bonds
        batches = training_loop.Batches(train, n_bonds, self.batch_size, self.random_state)
        check = training_loop.Batches(held, n_bonds, self.batch_size, None) if len(held) else None
        if check is not None:
            network.eval()
            with torch.no_grad():
                losses = [float(loss_of(np.array(rows), torch.device("cpu"))[0]) * len(rows) for rows in check]
            self.start_loss_ = sum(losses) / len(held)
        start = {name: value.clone() for name, value in network.state_dict().items()}
        schedule = _Schedule(self.epochs, self.patience, self.learning_rate, self.weight_decay)
        with tempfile.TemporaryDirectory() as temporary:
            folder = Path(temporary) if self.checkpoints is None else self._folder(table, start)
            fitted = training_loop.fit_network(network, loss_of, batches, check, schedule, folder, device=self.device)
        if self.checkpoints is not None:
            for name in ("last.ckpt", "best.ckpt"):
                (folder / name).unlink(missing_ok=True)
            folder.rmdir()
        self.history_ = fitted.history
        self.n_epochs_ = fitted.best_epoch + 1
        if check is not None and not fitted.history[fitted.best_epoch]["validation_loss"] < self.start_loss_:
            network.load_state_dict(start)
            self.n_epochs_ = 0
        elif not all(bool(torch.isfinite(value).all()) for value in network.state_dict().values()):
            raise InputError(f"the training diverged; learning_rate is {self.learning_rate!r}, so give a smaller one")

    def _folder(self, table: _Table, start: Mapping[str, torch.Tensor]) -> Path:
        """Folder of the checkpoints of this fit alone, named by all that decides it."""
        assert self.checkpoints is not None  # noqa: S101 - asked before
        decisive = {**self.get_params(), "source": _card_of(self.source).name, "checkpoints": "", "device": ""}
        digest = hashlib.sha256(json.dumps(decisive, sort_keys=True, default=str).encode())
        for array in (table.y, table.n_atoms, *(value.numpy() for value in start.values())):
            digest.update(np.ascontiguousarray(array).tobytes())
        for name, values in vars(table.graphs).items():
            digest.update(name.encode() + np.ascontiguousarray(values).tobytes())
        return Path(self.checkpoints) / digest.hexdigest()[:16]

    def predict(self, X: Iterable[Any]) -> Floats:
        """Predict the property.

        Parameters
        ----------
        X : as in `fit`
            m crystals.

        Returns
        -------
        ndarray of shape (m,)
            In the unit of the target; NaN, with a warning, for crystals that the model must not be given.
        """
        import torch

        check_is_fitted(self, "weights_")
        network = self._rebuilt()
        encoder: MatGLEncoder = network.encoder
        place = pick_device(self.device, dgl_backend)
        network.to(place)

        def forward(graphs: Sequence[CrystalGraph]) -> dict[str, NDArray[np.float32]]:
            batch = dgl_backend.collect(encoder.model.model, graphs)
            table = _Table(batch, np.array([graph.n_atoms for graph in graphs]), np.empty(0, np.float32))
            with torch.inference_mode():
                output = network(*_prepared(encoder, table, np.arange(len(graphs)), place))
            return {"final": output.cpu().numpy()}

        structures = column_of(X)[0]
        encoded = encode_crystals(
            structures,
            forward,
            widths={"final": 1},
            cutoff=encoder.cutoff,
            batch_edges=BATCH_EDGES[type(encoder.model.model).__name__],
            elements=encoder.elements,
        )
        _warn([_skipped(row, structures[row], reason) for row, reason in encoded.refused.items()], "not predicted")
        return np.asarray(encoded.embeddings["final"][:, 0] * self.target_scale_ + self.target_mean_, dtype=np.float64)

    def refusals(self, X: Iterable[Any]) -> dict[int, str]:
        """Say which crystals would not be predicted, by position, and why."""
        check_is_fitted(self, "weights_")
        return _refusals(self._rebuilt().encoder, X)

    def _rebuilt(self) -> Any:
        """Network with the fitted weights; made anew after a copy or a load."""
        if self._network is None:
            import torch

            network = _network(_load(self.card_ or _card_of(self.source)), self._layer)
            network.load_state_dict({name: torch.from_numpy(value) for name, value in self.weights_.items()})
            self._network = network.eval()
        return self._network

    def __getstate__(self) -> dict[str, Any]:
        """State without the network, which is made anew from its weights."""
        state = dict(super().__getstate__())
        if "_network" in state:
            state["_network"] = None
        return state

    def save(self, path: str | Path) -> None:
        """Write the fitted model: weights as safetensors, all else as JSON in their header.

        The source is named, not copied: :meth:`load` needs its files for the architecture.
        """
        check_is_fitted(self, "weights_")
        folder = None if self.checkpoints is None else str(self.checkpoints)
        fitted = ("n_epochs_", "history_", "start_loss_", "target_mean_", "target_scale_")
        header = {
            "parameters": {**self.get_params(), "source": _card_of(self.source).name, "checkpoints": folder},
            "fitted": {name: getattr(self, name) for name in fitted},
            "skipped": [asdict(row) for row in self.skipped_],
            "versions": installed_versions(("scotl-matgl", "torch", "lightning", "matgl", "dgl", "numpy")),
        }
        write_tensors(Path(path), self.weights_, _MODEL_FILE, json.loads(json.dumps(header, default=_plain)))

    @classmethod
    def load(cls, path: str | Path, *, source: SourceCard | None = None) -> Self:
        """Read what :meth:`save` wrote; nothing in the file is executed.

        Parameters
        ----------
        path : path-like
        source : SourceCard, optional
            The source, if it is none of the registered ones.

        Raises
        ------
        InputError
            If the file is no saved model, or that of another source.
        """
        header, weights = read_tensors(Path(path), _MODEL_FILE)
        parameters = header["parameters"]
        unknown = set(parameters) - set(cls._get_param_names())
        if unknown:
            raise InputError(f"{path} has parameters that this version does not know: {', '.join(sorted(unknown))}")
        if source is not None and source.name != parameters["source"]:
            raise InputError(f"{path} was trained from {parameters['source']}, not from {source.name}")
        model = cls(**{**parameters, **({} if source is None else {"source": source})})
        model.card_, model.weights_, model._network = _card_of(model.source), weights, None
        model.skipped_ = tuple(SkippedRow(**row) for row in header["skipped"])
        for name in _MODEL_FILE.form["fitted"]:
            setattr(model, name, header["fitted"][name])
        return model

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.input_tags.two_d_array = False
        tags.input_tags.one_d_array = True
        return tags


def reason_against(card: SourceCard) -> str:
    """Why the network of a source cannot be trained on this machine; empty if it can, as far as its card tells.

    Parameters
    ----------
    card : SourceCard
        Its weights are looked for, and not read.
    """
    if card.modality != "structure" or card.architecture not in _PARTS or not card.loader.startswith(_LOADER):
        return "its network is none that can be trained on"
    try:
        find_model(card)
    except FileNotFoundError:
        return (
            "its weights are not on this machine: let SCOTL_MATGL_ASSETS name the folder that holds "
            f"models/matgl/{card.name}, or download them once by scotl_matgl.encoders.matgl.load(card, download=True)"
        )
    return ""


def refusals(card: SourceCard, X: Iterable[Any]) -> dict[int, str]:
    """Say which crystals the network of a source would refuse, by position, and why."""
    return _refusals(_load(card), X)


def _refusals(encoder: MatGLEncoder, X: Iterable[Any]) -> dict[int, str]:
    graphs = [graph_or_reason(item, encoder.elements, encoder.cutoff) for item in column_of(X)[0]]
    return {row: graph for row, graph in enumerate(graphs) if isinstance(graph, str)}


def _card_of(source: Any) -> SourceCard:
    """Card of one source."""
    if isinstance(source, SourceCard):
        return source
    cards = select(all_cards(), source)
    if len(cards) != 1:
        names = ", ".join(card.name for card in cards[:4])
        raise InputError(f"source is {source!r}, which names {len(cards)} sources ({names} ...); name one")
    return cards[0]


def _load(card: SourceCard) -> MatGLEncoder:
    """Encoder of a source that can be trained, with weights of its own."""
    advice = "choose a MEGNet, M3GNet or TensorNet of MatGL (`scotl-matgl zoo list`)"
    if card.modality != "structure":
        raise InputError(f"{card.name} reads formulas, not crystals; {advice}")
    import torch

    with torch.random.fork_rng(devices=[]):  # networks are made with random weights before they get theirs
        encoder = card.load()
    if not isinstance(encoder, MatGLEncoder) or type(encoder.model.model).__name__ not in _PARTS:
        raise InputError(f"{card.name} is no network that can be trained on; {advice}")
    if encoder.backend is not dgl_backend:
        raise InputError("training a source needs matgl 2.1 on DGL: pip install 'scotl-matgl[dgl]' on Python 3.11")
    encoder.check("cpu")
    return encoder


def _network(encoder: MatGLEncoder, layer: str) -> Any:
    """Source and a linear head on one of its layers, as one module; the head is filled in later."""
    import torch
    from torch import nn

    width = encoder.widths[layer]

    class FullNetwork(nn.Module):  # type: ignore[misc]  # torch is not typed
        def __init__(self) -> None:
            super().__init__()
            self.source = encoder.model
            self.encoder = encoder
            self.head = nn.Linear(width, 1)
            self.register_buffer("mean", torch.zeros(width, dtype=torch.float64))
            self.register_buffer("scale", torch.ones(width, dtype=torch.float64))

        def features(self, graph: Any, inputs: Mapping[str, Any], n_atoms: torch.Tensor) -> torch.Tensor:
            return encoder.run(graph, inputs, n_atoms, [layer])[layer]

        def forward(self, graph: Any, inputs: Mapping[str, Any], n_atoms: torch.Tensor) -> Any:
            # In double precision, because energies differ by little of what they are.
            scaled = (self.features(graph, inputs, n_atoms) - self.mean) / self.scale
            return self.head(scaled.to(self.head.weight.dtype))

    with torch.random.fork_rng(devices=[]):
        return FullNetwork()


def _prepared(
    encoder: MatGLEncoder, table: _Table, rows: NDArray[np.int64], place: torch.device
) -> tuple[Any, dict[str, Any], torch.Tensor]:
    """What the network takes, of some crystals."""
    import torch

    batch = table.graphs.take(rows)
    graph, inputs = dgl_backend.prepare_batch(encoder.model.model, batch, encoder.types, place)
    # On a copy that shares the tensors: networks leave their features in the graph.
    return graph.local_var(), inputs, torch.from_numpy(table.n_atoms[rows, None]).to(place)


def _fit_head(network: Any, encoder: MatGLEncoder, table: _Table, train: NDArray[np.int64], batch_size: int) -> None:
    """Fit the head on the layer as the source gives it: ridge regression, or least squares on its own prediction."""
    import torch

    network.eval()
    parts = np.array_split(train, math.ceil(len(train) / batch_size))
    with torch.inference_mode():
        features = [network.features(*_prepared(encoder, table, rows, torch.device("cpu"))).numpy() for rows in parts]
    X = np.concatenate(features).astype(np.float64)
    mean, deviation = X.mean(axis=0), X.std(axis=0)
    scale = np.where(deviation > 1e-6 * np.maximum(np.abs(mean), 1e-6), deviation, 1.0)
    head = LinearRegression() if X.shape[1] == 1 else RidgeCV(np.logspace(-2, 4, 13))
    head.fit((X - mean) / scale, table.y[train].astype(np.float64))
    with torch.no_grad():
        network.mean.copy_(torch.from_numpy(mean))
        network.scale.copy_(torch.from_numpy(scale))
        network.head.weight.copy_(torch.from_numpy(head.coef_.reshape(1, -1)))
        network.head.bias.fill_(float(head.intercept_))


def _formula(graph: CrystalGraph) -> str:
    """Canonical key of the composition."""
    return composition_key(graph.numbers, np.ones(graph.n_atoms))


def _skipped(row: int, structure: Any, reason: str) -> SkippedRow:
    value = getattr(structure, "identifier", "") or getattr(structure, "formula", "") or type(structure).__name__
    return SkippedRow(row, row, str(value), reason)


def _warn(skipped: Sequence[SkippedRow], consequence: str) -> None:
    if skipped:
        shown = "; ".join(f"row {row.row} ({row.value}): {row.reason}" for row in skipped[:3])
        more = f"; and {len(skipped) - 3} more" if len(skipped) > 3 else ""
        message = f"{counted(len(skipped), 'crystal')} {consequence}: {shown}{more}"
        warn(message, ScotlMatglWarning)


def _plain(value: Any) -> Any:
    """Numbers of numpy as JSON takes them."""
    return value.item() if isinstance(value, np.generic) else str(value)
