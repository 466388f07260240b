"""Network bridge: a multilayer perceptron from descriptor to embedding, trained with torch, applied with numpy."""

from __future__ import annotations

import itertools
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

import numpy as np

from scotl_matgl.bridges.base import Array, Bridge, BridgeError
from scotl_matgl.encoders.network import ACTIVATIONS

if TYPE_CHECKING:
    import torch


class MLPBridge(Bridge):
    """Multilayer perceptron from standardised descriptors to standardised embeddings.

    Layers of ``x ↦ SiLU(Wx + b)`` and a linear output, trained with AdamW on the mean squared error of the standardised
    embedding, one-cycle learning rate, fixed number of epochs. Nothing is stopped early, so no data is spent on
    deciding when, and the held-out crystals are seen once.

    Parameters
    ----------
    hidden : tuple of int, default=(256, 256, 256)
        Widths of the hidden layers.
    epochs : int, default=30
        Passes over the crystals.
    batch_size : int, default=256
        Crystals in a step.
    learning_rate : float, default=4e-3
        Peak of the one-cycle schedule.
    weight_decay : float, default=0.3
        Decoupled weight decay of AdamW.
    held_out : float, default=0.1
        Share of the rows on which ``quality_`` is measured.
    random_state : int, default=0
        Seed of split, initial weights and batches.

    Notes
    -----
    Needs torch for :meth:`fit`; :meth:`transform` does not. Fitting takes about 20 s on one core for 42,000 crystals,
    267 descriptors and 160 dimensions, twice that with the fit that measures the quality. The defaults are the smallest
    network within 0.015 of the best held-out R² of those compared in ``docs/measurements.md``.
    """

    kind = "mlp"

    def __init__(
        self,
        *,
        hidden: tuple[int, ...] = (256, 256, 256),
        epochs: int = 30,
        batch_size: int = 256,
        learning_rate: float = 4e-3,
        weight_decay: float = 0.3,
        held_out: float = 0.1,
        random_state: int = 0,
    ) -> None:
        self.hidden = hidden
        self.epochs = epochs
        self.batch_size = batch_size
        self.learning_rate = learning_rate
        self.weight_decay = weight_decay
        self.held_out = held_out
        self.random_state = random_state

    def _n_outputs(self, width: int) -> int:
        """Outputs of the network for an embedding of some width."""
        return width

    def _loss(self, outputs: torch.Tensor, Z: torch.Tensor) -> torch.Tensor:
        """Loss of a batch, from the outputs of the network and the standardised embedding."""
        return ((outputs - Z) ** 2).mean()

    def _fit_standardised(self, X: Array, Z: Array) -> dict[str, Array]:
        try:
            import torch
            from torch import nn
        except ModuleNotFoundError as error:
            raise BridgeError(
                f"fitting a network bridge needs {error.name}, which is missing: pip install torch, or use kind 'ridge'"
            ) from error

        # The user's torch state stays as it was: the generator of the CPU is put back, and no other is touched
        # (torch.manual_seed would seed those of the GPUs too). The user's default type and device are not followed.
        exact = {"dtype": torch.float32, "device": "cpu"}
        with torch.random.fork_rng(devices=[]):
            torch.default_generator.manual_seed(self.random_state)
            widths = [X.shape[1], *self.hidden]
            layers: list[nn.Module] = []
            for width_in, width_out in itertools.pairwise(widths):
                layers += [nn.Linear(width_in, width_out, **exact), nn.SiLU()]
            network = nn.Sequential(*layers, nn.Linear(widths[-1], self._n_outputs(Z.shape[1]), **exact))
            inputs, outputs = torch.from_numpy(X), torch.from_numpy(np.ascontiguousarray(Z))
            # Equal batches: a last one of a few rows would take as large a step as the others.
            n_batches = max(1, round(len(X) / self.batch_size))
            optimiser = torch.optim.AdamW(network.parameters(), lr=self.learning_rate, weight_decay=self.weight_decay)
            # A rise or a fall of a single step would make torch divide by zero.
            n_steps = max(3, self.epochs * n_batches)
            schedule = torch.optim.lr_scheduler.OneCycleLR(
                optimiser, max_lr=self.learning_rate, total_steps=n_steps, pct_start=max(0.1, 2 / n_steps)
            )
            network.train()
            for _ in range(self.epochs):
                for batch in torch.tensor_split(torch.randperm(len(X), device="cpu"), n_batches):
                    optimiser.zero_grad(set_to_none=True)
                    self._loss(network(inputs[batch]), outputs[batch]).backward()
                    optimiser.step()
                    schedule.step()
        return linear_weights(network)

    def _predict_standardised(self, X: Array) -> Array:
        """Outputs of the network: as it is, the standardised estimate."""
        last = len(self.hidden)
        hidden: Array = X
        for index in range(last):
            hidden = hidden @ self.weights_[f"weight_{index}"]
            hidden += self.weights_[f"bias_{index}"]
            hidden = ACTIVATIONS["silu"](hidden)
        return hidden @ self.weights_[f"weight_{last}"] + self.weights_[f"bias_{last}"]


def linear_weights(network: Iterable[Any]) -> dict[str, Array]:
    """Tensors ``weight_i`` (in, out) and ``bias_i`` of the affine layers of a torch network, in order."""
    weights: dict[str, Array] = {}
    for index, layer in enumerate(layer for layer in network if hasattr(layer, "weight")):
        weights[f"weight_{index}"] = layer.weight.detach().numpy().T.copy()
        weights[f"bias_{index}"] = layer.bias.detach().numpy().copy()
    return weights
