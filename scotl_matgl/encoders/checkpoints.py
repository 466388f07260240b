"""What a checkpoint of MatGL may hold, and the model that is built of it; nothing in a checkpoint is executed."""

from __future__ import annotations

import importlib
import json
import pickle
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from scotl_matgl.encoders.weights import Backend
from scotl_matgl.storage import max_bytes

if TYPE_CHECKING:
    import torch

#: Classes of MatGL that may stand in ``model.pt``, and why. None of them is made by the file: each is read as a
#: :class:`_Settings` and built anew from the settings named here.
REBUILT: Mapping[str, tuple[str, Mapping[str, type | tuple[type, ...]]]] = {
    "matgl.data.transformer.Normalizer": (
        "mean and standard deviation of the target, in every TransformedTargetModel",
        {"mean": float, "std": float},
    ),
    "matgl.data.transformer.LogTransformer": ("the logarithm of the target, in a TransformedTargetModel", {}),
    "matgl.layers._bond.BondExpansion": (
        "an argument of MEGNet, as MatGL's own notebook on training builds it",
        {
            "max_l": int,
            "max_n": int,
            "cutoff": float,
            "rbf_type": str,
            "smooth": bool,
            "initial": float,
            "final": float,
            "num_centers": int,
            "width": float,
        },
    ),
}

#: Classes of MatGL that stand inside of these; what they hold is left unread.
INSIDE = (
    "matgl.layers._basis.GaussianExpansion",
    "matgl.layers._basis.SphericalBesselFunction",
    "matgl.layers._basis.ExpNormalFunction",
)

#: Cut-offs that older checkpoints leave out of their weights; the network sets them itself from its settings.
_CONSTANTS = {"model.bond_expansion.rbf.cutoff", "model.basis_expansion.sbf.cutoff"}


class CheckpointError(ValueError):
    """A checkpoint cannot be read safely, or is not one that this encoder understands."""


class _Settings:
    """Stands for an object of a checkpoint: its attributes, and none of its code."""

    path = ""


def read_pickled(path: Path) -> Any:
    """Numbers, tensors and settings of a file that ``torch.save`` wrote; anything else in it is refused unread.

    Allowed are, beside what torch's own reader of weights takes, the classes of :data:`REBUILT` and :data:`INSIDE`, as
    stand-ins, and arrays of numbers of numpy, because the element references of a ``Potential`` are one.

    Raises
    ------
    CheckpointError
        If the file holds something else, is too large, or is no such file.
    """
    import torch

    size, most = path.stat().st_size, max_bytes()
    if size > most:
        raise CheckpointError(f"{path} has {size} bytes; a checkpoint may have {most} (SCOTL_MATGL_MAX_FILE_BYTES)")
    try:
        with torch.serialization.safe_globals([*_numpy_arrays(), *_stand_ins()]):
            return torch.load(path, map_location="cpu", weights_only=True)
    except (pickle.UnpicklingError, RuntimeError, EOFError, AttributeError, ValueError, TypeError, KeyError) as error:
        # torch advises to switch its protection off; a user of ours must not read that.
        what = _foreign(path)
        if what or isinstance(error, pickle.UnpicklingError):
            raise CheckpointError(
                f"The checkpoint in {path.parent} holds more than weights and settings; it was not executed: "
                f"{path.name} holds {what or 'what is no part of a checkpoint'}. Save the model anew with MatGL's own "
                "`model.save(folder)`, with arguments that are numbers, texts or a BondExpansion"
            ) from None
        raise CheckpointError(f"{path} is no file of torch, or is damaged; save the model again") from None


def _stand_ins() -> list[Any]:
    """The classes that are read as settings, for ``safe_globals``."""
    return [(type("Settings", (_Settings,), {"path": path}), path) for path in (*REBUILT, *INSIDE)]


def _numpy_arrays() -> list[Any]:
    """What pickled arrays of numbers name; arrays of objects are not among them."""
    import numpy as np
    from numpy._core.multiarray import _reconstruct

    kinds = [np.dtypes.Float32DType, np.dtypes.Float64DType, np.dtypes.Int32DType, np.dtypes.Int64DType]
    # numpy 1 names the function by another path.
    return [np.ndarray, np.dtype, _reconstruct, (_reconstruct, "numpy.core.multiarray._reconstruct"), *kinds]


def _foreign(path: Path) -> str:
    """Names of the classes and functions in a file that are not allowed, without reading it."""
    import torch

    try:
        found = torch.serialization.get_unsafe_globals_in_checkpoint(path)
    except Exception:  # a file that is none of torch's, or a pickle of the old form
        return ""
    with_numpy = {"numpy.dtype", "numpy.ndarray", "numpy._core.multiarray._reconstruct"}
    return ", ".join(sorted(set(found) - with_numpy - {*REBUILT, *INSIDE}))


def _built(value: Any, path: Path) -> Any:
    """A value of ``model.pt`` with MatGL's objects in place of the settings that stand for them."""
    if isinstance(value, Mapping):
        return {key: _built(item, path) for key, item in value.items()}
    if not isinstance(value, _Settings):
        return value
    if type(value).path not in REBUILT:
        raise CheckpointError(f"{path} holds a {type(value).path}, which is no argument of a model")
    given = vars(value)
    arguments = {}
    for name, kind in REBUILT[type(value).path][1].items():
        found: Any = given.get(name)
        if hasattr(found, "item") and getattr(found, "numel", lambda: 2)() == 1:  # MatGL keeps some numbers as tensors
            found = found.item()
        if kind is float and isinstance(found, int) and not isinstance(found, bool):
            found = float(found)
        if not isinstance(found, kind):
            raise CheckpointError(f"{path}: {name} of its {type(value).path} is {found!r}; it must be of type {kind}")
        arguments[name] = found
    module, _, name = type(value).path.rpartition(".")
    return getattr(importlib.import_module(module), name)(**arguments)


def read_model(directory: Path, backend: Backend, convention: int, *, faster: bool = True) -> torch.nn.Module:
    """Build the model that a directory describes, from allowed classes only, and fill in its weights.

    Parameters
    ----------
    directory : path
        With what MatGL's ``save`` writes: ``model.json``, ``model.pt`` and ``state.pt``.
    backend : Backend
    convention : int
        Major version of MatGL for whose message passing the weights were made.
    faster : bool, default=True
        Whether to bind the faster layers of the backend.

    Returns
    -------
    torch.nn.Module
        A ``Potential`` or a ``TransformedTargetModel``; a bare network, as a training leaves it, becomes one of the
        latter, which changes no output.

    Raises
    ------
    CheckpointError
    """
    wrapper_name, inner_name, settings, arguments, state = _parts(directory, backend, convention)
    pickled = directory / "model.pt"
    try:
        network = _class(backend.MODELS, inner_name)(**{**_built(settings, pickled), **backend.settings(inner_name)})
        model: torch.nn.Module = _class(backend.WRAPPERS, wrapper_name)(model=network, **_built(arguments, pickled))
    except CheckpointError:
        raise
    except Exception as error:  # whatever MatGL's constructors raise
        raise CheckpointError(
            f"The installed matgl makes no {inner_name} of the settings in {directory}: {type(error).__name__}: {error}"
        ) from error
    unread = set(backend.UNUSED)
    fill(model, backend.convert(inner_name, state, convention), f"The weights in {directory}", unread)
    model.requires_grad_(False)
    model.eval()
    if faster:
        backend.adapt(network, convention)
    return model


def _parts(
    directory: Path, backend: Backend, convention: int
) -> tuple[str, str, Mapping[str, Any], dict[str, Any], dict[str, Any]]:
    """Names of wrapper and network, their arguments, and the weights; of classes that are known."""
    try:
        described = json.loads((directory / "model.json").read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        raise CheckpointError(f"{directory / 'model.json'} is not valid JSON: {error}") from error
    wrapper_name = described.get("@class") if isinstance(described, dict) else None
    arguments = read_pickled(directory / "model.pt")
    state = read_pickled(directory / "state.pt")
    if not isinstance(arguments, dict) or not isinstance(state, dict):
        raise CheckpointError(f"The checkpoint in {directory} holds no settings and weights by name")
    if wrapper_name in backend.MODELS:
        inner_name, module = str(wrapper_name), described.get("@module")
        wrapper_name, settings = "TransformedTargetModel", arguments
        state = {f"model.{key}": value for key, value in state.items()}
        arguments = {"target_transformer": _unchanged()}
    else:
        inner = arguments.pop("model", None)
        inner = inner if isinstance(inner, dict) else {}
        inner_name, module, settings = str(inner.get("@class")), inner.get("@module"), inner.get("init_args", {})
    # Of convention 2 there are TensorNets for PyG, too, in which atoms collect other tensors than in those for DGL.
    other = convention == 2 and "pyg" in str(module)
    if wrapper_name not in backend.WRAPPERS or inner_name not in backend.MODELS or other:
        raise CheckpointError(
            f"The checkpoint in {directory} is a {wrapper_name} of {inner_name} (module {module}); understood are "
            f"{', '.join(backend.WRAPPERS)} of {', '.join(backend.MODELS)}, in the variants for DGL"
        )
    return str(wrapper_name), inner_name, settings, arguments, state


def fill(model: torch.nn.Module, state: Mapping[str, Any], weights: str, unread: Collection[str] = ()) -> None:
    """Fill weights into a model.

    Parameters
    ----------
    model : torch.nn.Module
    state : mapping of str to tensor
    weights : str
        What they are, for the message of an error.
    unread : collection of str
        Names that may be left over.

    Raises
    ------
    CheckpointError
        If names or shapes are not those of the model; the message has the first of them.
    """
    try:
        missing, unexpected = model.load_state_dict(state, strict=False)
    except (RuntimeError, TypeError) as error:
        told = " ".join(str(error).split())
        raise CheckpointError(f"{weights} do not fit the settings: {told[:500]}") from None
    parts = []
    for what, names in (("missing", set(missing) - _CONSTANTS), ("unexpected", set(unexpected) - set(unread))):
        more = f" and {len(names) - 3} more" if len(names) > 3 else ""
        parts.append(f"{what} {sorted(names)[:3]}{more}" if names else f"{what} []")
    if any(not part.endswith("[]") for part in parts):
        raise CheckpointError(f"{weights} do not fit: {', '.join(parts)}")


def _unchanged() -> Any:
    """Transformer of a target that was not transformed."""
    from matgl.data.transformer import Normalizer

    return Normalizer(0.0, 1.0)


def _class(table: Mapping[str, str], name: str) -> Any:
    return getattr(importlib.import_module(table[name]), name)
