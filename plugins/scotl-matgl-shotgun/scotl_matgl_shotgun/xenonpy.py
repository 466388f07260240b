"""Reader for the model directories of XenonPy: torch state dicts only, nothing is unpickled."""

from __future__ import annotations

import json
import pickle
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from scotl_matgl.plugin import Network
from scotl_matgl_shotgun.errors import XenonPyError
from scotl_matgl_shotgun.records import Record

Floats = NDArray[np.float64]

#: File beside the state dicts with what pickled descriptions say of the model, in JSON: the fields of :class:`Record`.
SIDE_FILE = "scotl_matgl.json"

# What hidden layers are called, with the default epsilon of their batch normalisation. SequentialLinear of XenonPy 0.4
# and later hands the momentum that its users give, 0.1 by default, to torch in the place of epsilon.
_NAMES = {
    "SequentialLinear": (re.compile(r"layer_(\d+)\.(linear|normalizer)\.(\w+)"), 0.1),
    "Layer1d": (re.compile(r"(\d+)\.(layer|batch_nor)\.(\w+)"), 1e-5),
}
_OUTPUT = re.compile(r"output\.(weight|bias)")
_PARTS = {
    "linear": {"weight", "bias"},
    "norm": {"weight", "bias", "running_mean", "running_var", "num_batches_tracked"},
}


def read_xenonpy(
    folder: str | Path,
    *,
    state: str | None = None,
    batch_norm_eps: float | None = None,
    **facts: Any,
) -> tuple[Record, Network]:
    """Read a network from a model directory of XenonPy.

    **This reader could only be tested on files made by ourselves**, with torch modules that have the layer names of
    XenonPy's ``SequentialLinear`` (0.4 and later: ``layer_0.linear.weight``, ``output.weight``) and of its older
    ``Layer1d`` (``0.layer.weight``), not on files of XenonPy.MDL, which could not be obtained. Compare a prediction
    with XenonPy's before you rely on it.

    Only files of tensors are read (``torch.load`` with ``weights_only=True``). Everything else of such a directory
    (``describe.pkl.z``, ``model_structure.pkl.z``, ``model.pth.m``, ``trained_model.@1.pkl.z``) is pickled, and
    unpickling can execute anything; it is never opened. What it says (property, descriptor, activation) is therefore
    given as keyword arguments, or in a file ``scotl_matgl.json`` in the directory.

    Parameters
    ----------
    folder : path-like
        The model directory.
    state : str, optional
        File name of the state dict. By default ``final_state.pth.s``, or the only ``.pth.s`` or ``.pth`` file beside
        ``init_state.pth.s``, which holds weights before training and is read only if it is named here.
    batch_norm_eps : float, optional
        Epsilon of batch normalisation, which a state dict does not hold. By default 0.1 for ``SequentialLinear``
        (which hands its ``h_normalizers`` to torch in the place of epsilon) and 1e-5 for ``Layer1d``.
    **facts
        Fields of :class:`Record`, over those of the side file: ``property``, ``unit``, ``descriptor`` and ``dataset``
        are needed; ``name`` is the directory's by default and ``activation`` ``"relu"``, XenonPy's default.

    Returns
    -------
    record : Record
    network : Network
        With batch normalisation, which is a fixed affine map after training, multiplied into the layers before it.
        Dropout does nothing then. Both can be handed to :meth:`LibraryWriter.add`.

    Raises
    ------
    XenonPyError
        If there is no state dict that can be read safely, if its tensors are not those of fully connected layers, or
        if a fact is missing.

    Examples
    --------
    >>> record, network = read_xenonpy(  # doctest: +SKIP
    ...     "QC-Bandgap/M00001", property="band gap", unit="eV", descriptor="xenonpy", dataset="Materials Project"
    ... )
    """
    folder = Path(folder).expanduser()
    if not folder.is_dir():
        raise XenonPyError(f"{folder} is no folder; give the directory of one model")
    known = {"name": folder.name, "activation": "relu", **_side_file(folder), **facts}
    missing = [key for key in ("property", "unit", "descriptor", "dataset") if key not in known]
    if missing:
        raise XenonPyError(
            f"{folder}: {', '.join(missing)} must be given, as arguments or in {SIDE_FILE}: what XenonPy says of them "
            "is pickled and not read"
        )
    file = _state_file(folder, state)
    state_dict = _read_state(file)
    try:
        weights, biases = _layers(state_dict, file, batch_norm_eps)
        n_inputs = weights[0].shape[-1]
        network = Network(
            tuple(weight.astype(np.float32) for weight in weights),
            tuple(bias.astype(np.float32) for bias in biases),
            known["activation"],
            np.zeros(n_inputs),
            np.ones(n_inputs),
        )
        record = Record(**known, widths=network.widths)
    except XenonPyError:
        raise
    except (TypeError, ValueError) as error:  # shapes that do not fit together, facts that a record does not know
        raise XenonPyError(f"{file}: {error}") from error
    return record, network


def _side_file(folder: Path) -> dict[str, Any]:
    file = folder / SIDE_FILE
    if not file.is_file():
        return {}
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
    except ValueError as error:
        raise XenonPyError(f"{file} is not JSON: {error}") from error
    if not isinstance(content, dict):
        raise XenonPyError(f"{file} holds {content!r}; it must be a mapping of fields to values")
    return content


def _state_file(folder: Path, state: str | None) -> Path:
    if state is not None:
        if not (folder / state).is_file():
            raise XenonPyError(f"{folder} has no file {state!r}; it has {', '.join(_files(folder)) or 'none'}")
        return folder / state
    if (folder / "final_state.pth.s").is_file():
        return folder / "final_state.pth.s"
    states = [name for name in _files(folder) if name.endswith((".pth.s", ".pth")) and name != "init_state.pth.s"]
    if len(states) == 1:
        return folder / states[0]
    if states:
        raise XenonPyError(f"{folder} has the state dicts {', '.join(states)}; say which one: state=...")
    raise XenonPyError(
        f"{folder} has no state dict of the trained model (final_state.pth.s), only "
        f"{', '.join(_files(folder)) or 'nothing'}; {_REMEDY}"
    )


_REMEDY = (
    "pickled models are not read, because unpickling can execute anything: where you trust the file, load it in "
    "XenonPy's own environment and write torch.save(model.state_dict(), 'final_state.pth.s') into the directory"
)


def _files(folder: Path) -> list[str]:
    return sorted(file.name for file in folder.iterdir() if file.is_file())


def _read_state(file: Path) -> dict[str, Floats]:
    import torch

    try:
        content = torch.load(file, map_location="cpu", weights_only=True)
    except (pickle.UnpicklingError, RuntimeError, EOFError, ValueError, KeyError) as error:
        raise XenonPyError(f"{file} is not a file of tensors; {_REMEDY}") from error
    if not isinstance(content, Mapping) or not all(isinstance(value, torch.Tensor) for value in content.values()):
        raise XenonPyError(f"{file} holds no state dict, that is tensors by name; {_REMEDY}")
    return {str(name): tensor.numpy().astype(np.float64) for name, tensor in content.items()}


def _layers(state: Mapping[str, Floats], file: Path, eps: float | None) -> tuple[list[Floats], list[Floats]]:
    """Weights and biases in order, batch normalisation multiplied in."""
    found: dict[int, dict[str, dict[str, Floats]]] = {}
    output: dict[str, Floats] = {}
    kinds = {kind for kind, (pattern, _) in _NAMES.items() if any(pattern.fullmatch(name) for name in state)}
    if len(kinds) != 1:
        raise XenonPyError(
            f"{file}: its tensors are {', '.join(list(state)[:5])}...; they must be those of fully connected layers as "
            "XenonPy names them: layer_0.linear.weight ... output.weight, or 0.layer.weight ..."
        )
    (kind,) = kinds
    pattern, default_eps = _NAMES[kind]
    for name, tensor in state.items():
        match, last = pattern.fullmatch(name), _OUTPUT.fullmatch(name)
        if match is not None:
            part = "linear" if match[2] in ("linear", "layer") else "norm"
            if match[3] in _PARTS[part]:
                found.setdefault(int(match[1]), {"linear": {}, "norm": {}})[part][match[3]] = tensor
                continue
        elif last is not None and kind == "SequentialLinear":
            output[last[1]] = tensor
            continue
        raise XenonPyError(f"{file}: the tensor {name!r} belongs to no fully connected layer of XenonPy")
    if sorted(found) != list(range(len(found))):
        raise XenonPyError(f"{file}: it has the layers {sorted(found)}; they must be numbered from 0 without gaps")
    ordered = [found[i] for i in range(len(found))]
    if kind == "SequentialLinear":
        ordered.append({"linear": output, "norm": {}})
    weights, biases = [], []
    for i, layer in enumerate(ordered):
        if "weight" not in layer["linear"]:
            raise XenonPyError(f"{file}: layer {i} of {len(ordered)} has no weight; the file is not whole")
        weight = layer["linear"]["weight"]
        bias = layer["linear"].get("bias", np.zeros(len(weight)))
        norm = layer["norm"]
        if norm:
            if not {"running_mean", "running_var"} <= set(norm):
                raise XenonPyError(f"{file}: the batch normalisation of layer {i} has no running mean and variance")
            factor = norm.get("weight", 1.0) / np.sqrt(norm["running_var"] + (default_eps if eps is None else eps))
            weight = weight * factor[:, None]
            bias = (bias - norm["running_mean"]) * factor + norm.get("bias", 0.0)
        weights.append(weight)
        biases.append(bias)
    return weights, biases
