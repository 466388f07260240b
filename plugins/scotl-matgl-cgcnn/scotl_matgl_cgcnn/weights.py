"""Read a published CGCNN checkpoint and the table of element vectors; nothing in them is executed.

Imports torch, so it is itself imported when a model is loaded.
"""

from __future__ import annotations

import io
import json
import math
import pickle
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch

from scotl_matgl_cgcnn.errors import CheckpointError
from scotl_matgl_cgcnn.network import CGCNN, CUTOFF, STEP


def read_model(checkpoint: bytes, elements: bytes) -> CGCNN:
    """Build the network that two files describe.

    Parameters
    ----------
    checkpoint, elements : bytes
        Contents of ``<name>.pth.tar`` and of ``atom_init.json``.

    Returns
    -------
    CGCNN
        In inference mode.

    Raises
    ------
    CheckpointError
        If the files are not those of a CGCNN that this network computes, or hold other classes than the allowed ones.
    """
    content = _load(checkpoint)
    try:
        table = _element_vectors(json.loads(elements))
        state: Mapping[str, torch.Tensor] = content["state_dict"]
        network = _network(state, table, content["args"], content["normalizer"])
        network.load_state_dict(state)
    except CheckpointError:
        raise
    except (KeyError, IndexError, TypeError, ValueError, AttributeError, RuntimeError) as error:
        raise CheckpointError(
            f"The files do not hold the weights of a CGCNN model: {type(error).__name__}: {error}"
        ) from error
    return network.requires_grad_(False).eval()


def _load(checkpoint: bytes) -> Any:
    """Unpickle numbers and settings only; the classifier's checkpoint holds its validation score as a numpy number."""
    # How numpy rebuilds a number of its own; the function has moved since, so it is asked of a number.
    rebuild = np.float64(0).__reduce__()[0]
    allowed: list[Any] = [(rebuild, "numpy.core.multiarray.scalar"), np.dtype, type(np.dtype(np.float64))]
    try:
        with torch.serialization.safe_globals(allowed):
            return torch.load(io.BytesIO(checkpoint), map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise CheckpointError(
            f"The checkpoint holds more than weights and settings, or is damaged; it was not executed: {error}"
        ) from error
    except (RuntimeError, EOFError, ValueError, KeyError, IndexError, AttributeError, TypeError) as error:
        raise CheckpointError(f"The file is not a checkpoint of torch: {type(error).__name__}: {error}") from error


def _element_vectors(table: Mapping[str, list[float]]) -> torch.Tensor:
    """Vectors by atomic number, in rows; hydrogen is row 0."""
    numbers = sorted(map(int, table))
    if numbers != list(range(1, len(numbers) + 1)):
        raise CheckpointError(f"The table of element vectors has the atomic numbers {numbers}; they must begin at 1")
    return torch.tensor([table[str(number)] for number in numbers], dtype=torch.float32)


def _network(
    state: Mapping[str, torch.Tensor], table: torch.Tensor, args: Mapping[str, Any], normalizer: Mapping[str, Any]
) -> CGCNN:
    """Network of the right shape, without its weights."""
    n_convolutions = 1 + max(int(name.split(".")[1]) for name in state if name.startswith("convs."))
    width, element_width = state["embedding.weight"].shape
    bond_width = state["convs.0.fc_full.weight"].shape[1] - 2 * width
    n_outputs, hidden = state["fc_out.weight"].shape
    task = args["task"]
    if element_width != table.shape[1]:
        raise CheckpointError(
            f"The checkpoint takes element vectors of length {element_width}; the table has {table.shape[1]}"
        )
    if bond_width != round(CUTOFF / STEP) + 1 or n_outputs != {"regression": 1, "classification": 2}.get(task):
        raise CheckpointError(
            f"The checkpoint expands distances in {bond_width} Gaussians and gives {n_outputs} values for the task "
            f"{task!r}; understood are {round(CUTOFF / STEP) + 1}, and 1 for regression or 2 for classification"
        )
    mean, std = float(normalizer["mean"]), float(normalizer["std"])
    if not (math.isfinite(mean) and math.isfinite(std)):
        raise CheckpointError(f"The mean and the deviation of the target are {mean} and {std}; they must be finite")
    return CGCNN(
        table,
        width=width,
        bond_width=bond_width,
        hidden=hidden,
        n_convolutions=n_convolutions,
        n_outputs=n_outputs,
        mean=mean,
        std=std,
    )
