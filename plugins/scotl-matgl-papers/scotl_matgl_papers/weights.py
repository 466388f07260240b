"""Find a published checkpoint, see that it is the one of its card, and read its tensors without unpickling."""

from __future__ import annotations

import hashlib
import os
import pickle
from collections.abc import Mapping
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from scotl_matgl.plugin import IncompatibleWeightsError, SourceCard

ASSETS_VARIABLE = "SCOTL_MATGL_ASSETS"

Tensors = Mapping[str, NDArray[np.float64]]


class CheckpointError(ValueError):
    """A checkpoint cannot be read safely, or does not hold the tensors of its model."""


def find_weights(card: SourceCard, path: str | Path | None = None) -> Path:
    """Checkpoint of a card.

    Parameters
    ----------
    card : SourceCard
        Names one file in its ``weights``.
    path : path-like, optional
        The file, or the folder that holds it. By default ``$SCOTL_MATGL_ASSETS/models/<zoo>``.

    Raises
    ------
    FileNotFoundError
        If it is not there; the message says where it was looked for.
    """
    (name,) = card.weights
    assets = os.environ.get(ASSETS_VARIABLE)
    if path is not None:
        place = Path(path).expanduser()
    elif assets:
        place = Path(assets).expanduser() / "models" / card.zoo
    else:
        raise FileNotFoundError(
            f"The weights of {card.name} are not part of this package: give the path of {name} (path=...), or set "
            f"{ASSETS_VARIABLE} to the folder that holds models/{card.zoo}/{name}"
        )
    file = place if place.suffix == ".pt" else place / name
    if not file.is_file():
        raise FileNotFoundError(
            f"The weights of {card.name} are not at {file}: give the path of {name} (path=...), or set "
            f"{ASSETS_VARIABLE} to the folder that holds models/{card.zoo}/{name}"
        )
    return file


def read_weights(
    card: SourceCard, shapes: Mapping[str, tuple[int, ...]], path: str | Path | None = None, *, check: bool = True
) -> dict[str, NDArray[np.float64]]:
    """Tensors of a checkpoint in double precision; nothing in it is executed.

    Parameters
    ----------
    card : SourceCard
        Whose checkpoint.
    shapes : mapping of str to tuple of int
        The tensors that are wanted, with their shapes; others are left out.
    path : path-like, optional
        See :func:`find_weights`.
    check : bool, default=True
        Compare the file with the card's sha256.

    Raises
    ------
    IncompatibleWeightsError
        If the file is not the one of the card.
    CheckpointError
        If it holds anything but tensors, or lacks one of those wanted.
    """
    import torch

    file = find_weights(card, path)
    if check:
        digest = hashlib.sha256(file.read_bytes()).hexdigest()
        (expected,) = card.weights.values()
        if digest != expected:
            raise IncompatibleWeightsError(
                f"{file} is not the file of {card.name}: its sha256 is {digest}, the card says {expected}. Fetch it "
                "again, or give check=False if you mean to use other weights."
            )
    try:
        # The checkpoints were written on a GPU.
        state = torch.load(file, map_location="cpu", weights_only=True)
    except (pickle.UnpicklingError, RuntimeError, EOFError) as error:
        raise CheckpointError(
            f"{file} cannot be read as a file of tensors, and is not read in any other way, which could execute code: "
            f"{error}"
        ) from error
    for name, shape in shapes.items():
        tensor = state.get(name) if isinstance(state, Mapping) else None
        if not isinstance(tensor, torch.Tensor) or tuple(tensor.shape) != shape:
            found = tuple(tensor.shape) if isinstance(tensor, torch.Tensor) else "nothing"
            raise CheckpointError(
                f"{file} does not fit {card.name}: {name!r} must have the shape {shape}, found {found}"
            )
    return {name: state[name].double().numpy() for name in shapes}
