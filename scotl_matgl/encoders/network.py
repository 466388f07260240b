"""A fully connected network on composition descriptors: its tensors, and its layers computed with numpy alone."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from types import MappingProxyType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from scotl_matgl.exceptions import InputError

Floats32 = NDArray[np.float32]

# Rows that are standardised at a time: what stays in the cache takes half of the time.
_ROWS = 128


def _leaky(values: Floats32) -> Floats32:
    activated: Floats32 = np.maximum(values, np.float32(0.01) * values)  # torch's default slope
    return activated


def _rectified(values: Floats32) -> Floats32:
    return np.maximum(values, np.float32(0))


def _silu(values: Floats32) -> Floats32:
    # tanh, because exp overflows where the sigmoid is 0; in place, which is half of the time
    half = np.float32(0.5)
    gate: Floats32 = half * values
    np.tanh(gate, out=gate)
    gate *= half
    gate += half
    gate *= values
    return gate


def _identity(values: Floats32) -> Floats32:
    return values


#: What may follow a hidden layer, elementwise on float32.
ACTIVATIONS: Mapping[str, Callable[[Floats32], Floats32]] = MappingProxyType(
    {"leaky_relu": _leaky, "relu": _rectified, "silu": _silu, "identity": _identity}
)


def layer_widths(widths: Sequence[int]) -> dict[str, int]:
    """Layers that can be tapped, ``"readout"`` (the last hidden one) first.

    Parameters
    ----------
    widths : sequence of int
        Of the input, of every hidden layer and of the output.

    Examples
    --------
    >>> layer_widths([132, 60, 30, 10, 1])
    {'readout': 10, 'hidden_1': 60, 'hidden_2': 30, 'final': 1}
    """
    hidden = widths[1:-1]
    named = {f"hidden_{i}": width for i, width in enumerate(hidden[:-1], start=1)}
    return {"readout": hidden[-1], **named, "final": widths[-1]}


@dataclass(frozen=True, eq=False)
class Network:
    """A fully connected network with one activation after every hidden layer.

    Attributes
    ----------
    weights : tuple of ndarray of float32, shape (out, in)
        Of the hidden layers and of the output, torch's orientation.
    biases : tuple of ndarray of float32, shape (out,)
    activation : {"leaky_relu", "relu", "silu", "identity"}
        The slope of the leaky one is 0.01.
    mean, scale : ndarray of float64, shape (in,)
        The descriptors are shifted and divided by these first.
    readout_activation : str, default=""
        Activation of the last hidden layer, if it is another than `activation`.
    unit_readout : bool, default=False
        Whether the rows of the last hidden layer are divided by their Euclidean norm (rows of zeros stay), as those of
        SCOTL's composition branch are; the output is computed from what results.

    Raises
    ------
    InputError
        If the shapes do not fit together, there is no hidden layer, or an activation is not known.

    Examples
    --------
    >>> ones = np.ones((1, 2), np.float32)
    >>> network = Network((ones.T @ ones, ones), (ones[0], ones[0, :1]), "relu", np.zeros(2), np.ones(2))
    >>> network.forward(np.array([[1.0, 2.0]]))["final"]
    array([[9.]], dtype=float32)
    """

    weights: tuple[Floats32, ...]
    biases: tuple[Floats32, ...]
    activation: str
    mean: NDArray[np.float64]
    scale: NDArray[np.float64]
    readout_activation: str = ""
    unit_readout: bool = False

    def __post_init__(self) -> None:
        for activation in {self.activation, self.readout_activation or self.activation}:
            if activation not in ACTIVATIONS:
                raise InputError(f"The activation {activation!r} is not one of {', '.join(ACTIVATIONS)}")
        if len(self.weights) < 2 or len(self.biases) != len(self.weights):
            raise InputError(
                f"{len(self.weights)} weights and {len(self.biases)} biases make no network with a hidden layer"
            )
        widths = self.widths
        expected = [(b, a) for a, b in pairwise(widths)]
        found = [weight.shape for weight in self.weights]
        if found != expected or [bias.shape for bias in self.biases] != [(width,) for width in widths[1:]]:
            raise InputError(f"The shapes of the layers, {found}, do not fit together; they must be {expected}")
        parts: tuple[NDArray[Any], ...] = (*self.weights, *self.biases, self.mean, self.scale)
        if not all(np.isfinite(part).all() for part in parts):
            raise InputError("The network has weights, or a scaling of its input, that are not finite")
        if not (self.scale != 0).all():
            raise InputError("The scaling of the input has zeros to divide by")
        if self.mean.shape != (widths[0],) or self.scale.shape != (widths[0],):
            raise InputError(f"The scaling of the input has shape {self.mean.shape}; it must be ({widths[0]},)")

    @property
    def widths(self) -> tuple[int, ...]:
        """Widths of the input, of every hidden layer and of the output."""
        return (self.weights[0].shape[-1], *(weight.shape[0] for weight in self.weights))

    @property
    def n_parameters(self) -> int:
        """Weights and biases; the scaling of the input is not counted."""
        return sum(tensor.size for tensor in (*self.weights, *self.biases))

    def forward(self, X: NDArray[np.float64]) -> dict[str, Floats32]:
        """All layers.

        Parameters
        ----------
        X : ndarray of float64, shape (n, in)
            Descriptors.

        Returns
        -------
        dict of str to ndarray of float32, shape (n, width)
            See :func:`layer_widths`; hidden layers after their activation.

        Raises
        ------
        InputError
            If X has another width.
        """
        if X.ndim != 2 or X.shape[1] != self.widths[0]:
            raise InputError(f"The network reads {self.widths[0]} descriptors, not an array of shape {X.shape}")
        values = np.empty(X.shape, dtype=np.float32)
        for rows in (slice(start, start + _ROWS) for start in range(0, len(X), _ROWS)):
            part = X[rows] - self.mean
            part /= self.scale
            values[rows] = part
        hidden: list[Floats32] = []
        functions = [self.activation] * (len(self.weights) - 2) + [self.readout_activation or self.activation]
        for weight, bias, function in zip(self.weights[:-1], self.biases[:-1], functions, strict=True):
            values = values @ weight.T
            values += bias
            values = ACTIVATIONS[function](values)
            hidden.append(values)
        if self.unit_readout:
            norm = np.linalg.norm(hidden[-1], axis=1, keepdims=True)
            norm[norm == 0] = 1
            hidden[-1] = (hidden[-1] / norm).astype(np.float32, copy=False)
        named = {f"hidden_{i}": values for i, values in enumerate(hidden[:-1], start=1)}
        return {"readout": hidden[-1], **named, "final": hidden[-1] @ self.weights[-1].T + self.biases[-1]}

    def tensors(self, prefix: str) -> dict[str, NDArray[Any]]:
        """Tensors by the names that they have in a file of many networks."""
        named: dict[str, NDArray[Any]] = {
            f"{prefix}.mean": self.mean,
            f"{prefix}.scale": self.scale,
        }
        for i, (weight, bias) in enumerate(zip(self.weights, self.biases, strict=True)):
            named[f"{prefix}.{i}.weight"], named[f"{prefix}.{i}.bias"] = weight, bias
        return named

    @staticmethod
    def tensor_names(prefix: str, n_layers: int) -> list[str]:
        """Names of the tensors of a network in a file of many."""
        layers = [f"{prefix}.{i}.{part}" for i in range(n_layers) for part in ("weight", "bias")]
        return [f"{prefix}.mean", f"{prefix}.scale", *layers]

    @classmethod
    def from_tensors(
        cls,
        get: Callable[[str], NDArray[np.floating[Any]]],
        prefix: str,
        n_layers: int,
        activation: str,
        *,
        readout_activation: str = "",
        unit_readout: bool = False,
    ) -> Network:
        """Read a network tensor by tensor.

        Parameters
        ----------
        get : callable
            From the name of a tensor to the tensor.
        prefix : str
            Of the network's tensors.
        n_layers : int
            Hidden layers and the output.
        activation, readout_activation, unit_readout
            As the attributes, which tensors do not tell.
        """
        return cls(
            tuple(get(f"{prefix}.{i}.weight").astype(np.float32) for i in range(n_layers)),
            tuple(get(f"{prefix}.{i}.bias").astype(np.float32) for i in range(n_layers)),
            activation,
            get(f"{prefix}.mean").astype(np.float64),
            get(f"{prefix}.scale").astype(np.float64),
            readout_activation,
            unit_readout,
        )
