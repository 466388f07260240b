"""CroMEL's bridge: a generator of embeddings from compositions, trained against a Wasserstein critic."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Literal

import numpy as np

from scotl_matgl.bridges.base import Array, Bridge, BridgeError
from scotl_matgl.bridges.mlp import linear_weights

if TYPE_CHECKING:
    import torch

_SLOPE = 0.01  # of the leaky rectifier, torch's default


class AdversarialBridge(Bridge):
    """Generator hc + ε·softplus(W hc) of embeddings, ε standard normal; its mean hc is the estimate.

    A critic tells generated embeddings from true ones; its Wasserstein loss has a penalty on gradients of a norm other
    than one (I. Gulrajani et al., arXiv:1704.00028). The generator lowers what the critic tells apart.

    Parameters
    ----------
    critic : {"joint", "marginal"}, default="joint"
        What the critic sees: descriptor and embedding together, so that the embeddings *of a composition* are matched;
        or, as published, the embedding alone, which matches the distribution over all compositions and leaves open
        which composition has which embedding.
    hidden : tuple of int, default=(256, 256)
        Hidden layers of generator and critic.
    epochs, batch_size : int
        Passes over the crystals; crystals of a step.
    critic_steps : int, default=5
        Steps of the critic for one of the generator.
    penalty : float, default=10.0
        Weight of the gradient penalty.
    learning_rate : float, default=1e-4
        Of RMSprop, for both.
    held_out : float, default=0.1
        Share of the rows on which ``quality_`` is measured.
    random_state : int, default=0
        Seed of split, initial weights, batches and noise.

    Notes
    -----
    Needs torch for :meth:`fit`; :meth:`transform` does not. In ``docs/measurements.md`` every other bridge is better;
    it is here so that CroMEL can be compared.

    References
    ----------
    G. S. Na, CroMEL, npj Computational Materials (2025), doi:10.1038/s41524-025-01723-1. Published: ``"marginal"``,
    penalty 10, five steps of the critic, RMSprop with 1e-4.
    """

    kind = "adversarial"

    def __init__(
        self,
        *,
        critic: Literal["joint", "marginal"] = "joint",
        hidden: tuple[int, ...] = (256, 256),
        epochs: int = 100,
        batch_size: int = 256,
        critic_steps: int = 5,
        penalty: float = 10.0,
        learning_rate: float = 1e-4,
        held_out: float = 0.1,
        random_state: int = 0,
    ) -> None:
        self.critic = critic
        self.hidden = hidden
        self.epochs = epochs
        self.batch_size = batch_size
        self.critic_steps = critic_steps
        self.penalty = penalty
        self.learning_rate = learning_rate
        self.held_out = held_out
        self.random_state = random_state

    def citations(self) -> list[str]:
        """Where the method comes from."""
        return ["G. S. Na, CroMEL, npj Computational Materials (2025), doi:10.1038/s41524-025-01723-1"]

    def _fit_standardised(self, X: Array, Z: Array) -> dict[str, Array]:
        if self.critic not in ("joint", "marginal"):
            raise BridgeError(f"critic is {self.critic!r}; it must be 'joint' or 'marginal'")
        try:
            import torch
            from torch import nn
        except ModuleNotFoundError as error:
            raise BridgeError(
                f"fitting a network bridge needs {error.name}, which is missing: pip install torch, or use kind 'ridge'"
            ) from error

        def perceptron(width_in: int, width_out: int) -> nn.Sequential:
            layers: list[nn.Module] = []
            for width in self.hidden:
                layers += [nn.Linear(width_in, width, **exact), nn.LeakyReLU(_SLOPE)]
                width_in = width
            return nn.Sequential(*layers, nn.Linear(width_in, width_out, **exact))

        exact = {"dtype": torch.float32, "device": "cpu"}
        joint = self.critic == "joint"
        # The user's torch state stays as it was, see MLPBridge.
        with torch.random.fork_rng(devices=[]):
            torch.default_generator.manual_seed(self.random_state)
            mean, spread = perceptron(X.shape[1], Z.shape[1]), nn.Linear(Z.shape[1], Z.shape[1], **exact)
            critic = perceptron(Z.shape[1] + joint * X.shape[1], 1)
            inputs, outputs = torch.from_numpy(X), torch.from_numpy(np.ascontiguousarray(Z))
            on_generator = torch.optim.RMSprop([*mean.parameters(), *spread.parameters()], lr=self.learning_rate)
            on_critic = torch.optim.RMSprop(critic.parameters(), lr=self.learning_rate)

            def draw(rows: torch.Tensor) -> torch.Tensor:
                centre = mean(rows)
                return centre + torch.randn_like(centre) * nn.functional.softplus(spread(centre))

            def judge(rows: torch.Tensor, embedding: torch.Tensor) -> torch.Tensor:
                seen: torch.Tensor = critic(torch.cat([rows, embedding], dim=1) if joint else embedding)
                return seen[:, 0]

            n_batches = max(1, round(len(X) / self.batch_size))
            step = 0
            for _ in range(self.epochs):
                for batch in torch.tensor_split(torch.randperm(len(X), device="cpu"), n_batches):
                    rows, true = inputs[batch], outputs[batch]
                    step += 1
                    fake = draw(rows).detach()
                    loss = judge(rows, fake).mean() - judge(rows, true).mean()
                    loss = loss + self.penalty * gradient_penalty(partial(judge, rows), true, fake)
                    on_critic.zero_grad(set_to_none=True)
                    loss.backward()
                    on_critic.step()
                    if step % self.critic_steps == 0:
                        on_generator.zero_grad(set_to_none=True)
                        (-judge(rows, draw(rows)).mean()).backward()
                        on_generator.step()
        return linear_weights(mean)

    def _predict_standardised(self, X: Array) -> Array:
        last = len(self.hidden)
        values: Array = X
        for index in range(last):
            values = values @ self.weights_[f"weight_{index}"] + self.weights_[f"bias_{index}"]
            values = np.where(values > 0, values, np.float32(_SLOPE) * values)
        return values @ self.weights_[f"weight_{last}"] + self.weights_[f"bias_{last}"]


def gradient_penalty(
    judge: Callable[[torch.Tensor], torch.Tensor], true: torch.Tensor, fake: torch.Tensor
) -> torch.Tensor:
    """Mean of (‖∇ judge(z)‖ − 1)² at random points z between true and generated embeddings, one per row.

    Parameters
    ----------
    judge : callable
        From (n, d) to (n,).
    true, fake : Tensor of shape (n, d)
    """
    import torch

    share = torch.rand(len(true), 1, dtype=true.dtype, device=true.device)
    between = (share * true + (1.0 - share) * fake).requires_grad_(True)
    (gradient,) = torch.autograd.grad(judge(between).sum(), between, create_graph=True)
    return ((gradient.norm(dim=1) - 1.0) ** 2).mean()
