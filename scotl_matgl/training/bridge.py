"""Fine-tuning: a bridge network and a linear head, trained on together from the weights of the bridge."""

from __future__ import annotations

import math
from typing import Any, Self

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.special import expit
from sklearn.base import BaseEstimator, RegressorMixin
from sklearn.frozen import FrozenEstimator
from sklearn.linear_model import RidgeCV
from sklearn.utils.validation import check_is_fitted, validate_data

from scotl_matgl.bridges.mlp import MLPBridge
from scotl_matgl.exceptions import InputError
from scotl_matgl.vocabulary import Floats

Network = list[tuple[NDArray[np.float32], NDArray[np.float32]]]


class FineTunedBridge(RegressorMixin, BaseEstimator):  # type: ignore[misc]  # scikit-learn is not typed
    """Network bridge with a linear head, both trained on a property.

    The head is first fitted alone by ridge regression on the frozen embedding, then network and head are trained on
    together with a small learning rate; that order keeps a random head from spoiling the pretrained layers (Kumar et
    al., ICLR 2022). A share of the rows decides when to stop. Several networks with other splits are averaged.

    Parameters
    ----------
    bridge : MLPBridge or FrozenEstimator
        Fitted; it reads the first columns of X. In a ``FrozenEstimator`` it stays fitted when this estimator is cloned.
    reinitialise : int, default=0
        How many of the last layers of the bridge start from random weights.
    learning_rate : float, default=3e-4
        Of AdamW; re-initialised layers and the head take ten times as much.
    weight_decay : float, default=1e-2
        Decoupled weight decay.
    batch_size : int, default=32
        Rows in a step.
    max_epochs : int, default=200
        Passes over the rows at most.
    patience : int, default=20
        Passes without a smaller held-out loss after which training stops; the best weights are kept.
    held_out : float, default=0.15
        Share of the rows that decides when to stop.
    n_networks : int, default=3
        Networks that are averaged.
    random_state : int, default=0
        Seed of splits, batches and new weights.

    Attributes
    ----------
    networks_ : list
        Weights and biases of each network, the head last.
    n_epochs_ : list of int
        Pass with the best held-out loss, for each network; 0 where no training helped.

    Notes
    -----
    Needs torch for :meth:`fit`; :meth:`predict` does not. The state of torch, generators and threads, stays as it was.
    """

    def __init__(
        self,
        bridge: Any = None,
        *,
        reinitialise: int = 0,
        learning_rate: float = 3e-4,
        weight_decay: float = 1e-2,
        batch_size: int = 32,
        max_epochs: int = 200,
        patience: int = 20,
        held_out: float = 0.15,
        n_networks: int = 3,
        random_state: int = 0,
    ) -> None:
        self.bridge = bridge
        self.reinitialise = reinitialise
        self.learning_rate = learning_rate
        self.weight_decay = weight_decay
        self.batch_size = batch_size
        self.max_epochs = max_epochs
        self.patience = patience
        self.held_out = held_out
        self.n_networks = n_networks
        self.random_state = random_state

    def fit(self, X: ArrayLike, y: ArrayLike) -> Self:
        """Train on X (n, p + q), descriptors of the bridge first, and y (n,)."""
        rows, target = validate_data(self, X, y, dtype=np.float64, y_numeric=True, ensure_min_samples=4)
        layers = bridge_layers(self._bridge)
        if not 0 <= self.reinitialise <= len(layers):
            raise InputError(
                f"reinitialise is {self.reinitialise!r}; the bridge has {len(layers)} layers, so it must be between 0 "
                f"and {len(layers)}"
            )
        try:
            import torch
        except ModuleNotFoundError as error:
            raise InputError(f"fine-tuning needs {error.name}, which is missing: pip install torch") from error

        columns, further = self._columns(rows)
        self._mean, self._deviation = further.mean(axis=0), np.maximum(further.std(axis=0), 1e-12)
        further = ((further - self._mean) / self._deviation).astype(np.float32)
        self._centre, self._scale = float(target.mean()), float(target.std()) or 1.0
        standard = ((target - self._centre) / self._scale).astype(np.float32)
        self.networks_: list[Network] = []
        self.n_epochs_: list[int] = []
        # All that is random comes from numpy, so that torch's generators are not touched. One thread: batches of some
        # rows gain nothing from more, and threads that wait for each other on a busy machine lose a hundredfold.
        threads = torch.get_num_threads()
        torch.set_num_threads(1)
        try:
            for number in range(self.n_networks):
                rng = np.random.default_rng([self.random_state, number])
                network, epoch = self._train(columns, further, standard, layers, rng)
                self.networks_.append(network)
                self.n_epochs_.append(epoch)
        finally:
            torch.set_num_threads(threads)
        return self

    @property
    def _bridge(self) -> Any:
        return self.bridge.estimator if isinstance(self.bridge, FrozenEstimator) else self.bridge

    def _columns(self, rows: Floats) -> tuple[NDArray[np.float32], Floats]:
        """Standardised descriptors for the bridge, and the further columns."""
        p = self._bridge.n_features_in_
        if rows.shape[1] < p:
            raise InputError(f"X has {rows.shape[1]} columns and the bridge reads {p}")
        return self._bridge.standardised(rows[:, :p]), rows[:, p:]

    def _train(
        self,
        columns: NDArray[np.float32],
        further: NDArray[np.float32],
        y: NDArray[np.float32],
        layers: Network,
        rng: np.random.Generator,
    ) -> tuple[Network, int]:
        """One network, and the number of its best pass."""
        import torch
        from torch import nn

        order = rng.permutation(len(y))
        n_held = max(1, round(self.held_out * len(y)))
        held, kept = order[:n_held], order[n_held:]
        first_new = len(layers) - self.reinitialise
        start = [layer if i < first_new else _fresh(layer, rng) for i, layer in enumerate(layers)]
        embedded = np.hstack([_forward(start, columns), further])
        head = RidgeCV(np.logspace(-2, 4, 13)).fit(embedded[kept], y[kept])
        start.append((head.coef_[:, None].astype(np.float32), np.array([head.intercept_], dtype=np.float32)))

        exact = {"dtype": torch.float32, "device": "cpu"}
        parameters = [tuple(nn.Parameter(torch.tensor(part, **exact)) for part in layer) for layer in start]
        old = [part for layer in parameters[:first_new] for part in layer]
        new = [part for layer in parameters[first_new:] for part in layer]
        groups = [{"params": new, "lr": 10 * self.learning_rate}]
        groups += [{"params": old, "lr": self.learning_rate}] if old else []
        optimiser = torch.optim.AdamW(groups, weight_decay=self.weight_decay)
        inputs, beside, targets = (torch.from_numpy(np.ascontiguousarray(part)) for part in (columns, further, y))

        def loss_of(rows: Any) -> Any:
            hidden = inputs[rows]
            for i, (weight, bias) in enumerate(parameters[:-1]):
                hidden = hidden @ weight + bias
                hidden = nn.functional.silu(hidden) if i < len(layers) - 1 else hidden
            weight, bias = parameters[-1]
            predicted = (torch.cat([hidden, beside[rows]], dim=1) @ weight + bias)[:, 0]
            return nn.functional.smooth_l1_loss(predicted, targets[rows])

        def held_out_loss() -> float:
            with torch.no_grad():
                return float(loss_of(torch.from_numpy(held)))

        def weights() -> Network:
            return [(w.detach().numpy().copy(), b.detach().numpy().copy()) for w, b in parameters]

        best, best_loss, best_epoch = weights(), held_out_loss(), 0
        n_batches = max(1, math.ceil(len(kept) / self.batch_size))
        for epoch in range(1, self.max_epochs + 1):
            for batch in np.array_split(rng.permutation(kept), n_batches):
                optimiser.zero_grad(set_to_none=True)
                loss_of(torch.from_numpy(batch)).backward()
                optimiser.step()
            loss = held_out_loss()
            if loss < best_loss:
                best, best_loss, best_epoch = weights(), loss, epoch
            elif epoch - best_epoch >= self.patience:
                break
        return best, best_epoch

    def predict(self, X: ArrayLike) -> Floats:
        """Predict (m,) from X (m, p + q): the mean of the networks."""
        check_is_fitted(self, "networks_")
        columns, further = self._columns(validate_data(self, X, dtype=np.float64, reset=False))
        beside = ((further - self._mean) / self._deviation).astype(np.float32)
        outputs = [
            np.hstack([_forward(network[:-1], columns), beside]) @ network[-1][0] + network[-1][1]
            for network in self.networks_
        ]
        return np.asarray(np.mean(outputs, axis=0)[:, 0] * self._scale + self._centre, dtype=np.float64)


def bridge_layers(bridge: Any) -> Network:
    """Weights (in, out) and biases of the layers of a network bridge.

    Raises
    ------
    InputError
        If the bridge is no fitted network.
    """
    if not isinstance(bridge, MLPBridge) or not hasattr(bridge, "weights_"):
        kind = "none" if bridge is None else getattr(bridge, "kind", type(bridge).__name__)
        raise InputError(f"fine-tuning takes a fitted bridge of the kind 'mlp'; this one is {kind!r}")
    return [
        (bridge.weights_[f"weight_{i}"], bridge.weights_[f"bias_{i}"].ravel()) for i in range(len(bridge.hidden) + 1)
    ]


def _fresh(layer: tuple[NDArray[np.float32], NDArray[np.float32]], rng: np.random.Generator) -> Any:
    """New weights for a layer, uniform within ± 1/√(fan-in) as torch starts a linear layer, and zero biases."""
    weight, bias = layer
    bound = 1 / math.sqrt(len(weight))
    return rng.uniform(-bound, bound, size=weight.shape).astype(np.float32), np.zeros_like(bias)


def _forward(layers: Network, X: NDArray[np.float32]) -> NDArray[np.float32]:
    """Output (n, d) of a network with SiLU between its layers."""
    for i, (weight, bias) in enumerate(layers):
        X = X @ weight + bias
        if i < len(layers) - 1:
            X = X * expit(X)
    return X
