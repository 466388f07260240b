"""Read the hdf5 and json files of a Keras MEGNet model: numbers and settings only, nothing in them is executed.

Imports torch and h5py, so it is itself imported when a model is loaded.
"""

from __future__ import annotations

import io
import json
from collections.abc import Mapping
from typing import Any

import h5py
import numpy as np
import torch
from numpy.typing import NDArray

from scotl_matgl_megnet.errors import CheckpointError
from scotl_matgl_megnet.network import KerasMEGNet, Settings

_PARTS = {"node": "v", "edge": "e", "state": "u"}

#: The layers that this network has, and what it assumes of each. Another one, say a Lambda, would change the result.
_ASSUMED: Mapping[str, Mapping[str, Any]] = {
    "InputLayer": {},
    "Embedding": {},
    "Add": {},
    "Concatenate": {},
    "Dense": {"use_bias": True},
    "MEGNetLayer": {"activation": "softplus2", "pool_method": "mean", "use_bias": True},
    "Set2Set": {"activation_lstm": "tanh", "recurrent_activation": "hard_sigmoid", "use_bias": True},
}


def read_model(weights: bytes, settings: bytes) -> tuple[KerasMEGNet, float]:
    """Build the network that two files describe.

    Parameters
    ----------
    weights, settings : bytes
        Contents of ``<name>.hdf5`` and ``<name>.hdf5.json``.

    Returns
    -------
    network : KerasMEGNet
        In inference mode.
    cutoff : float
        Of its graphs, Å.

    Raises
    ------
    CheckpointError
        If the files are not those of a MEGNet that this network computes.
    """
    try:
        with h5py.File(io.BytesIO(weights), "r") as file:
            layers = json.loads(file.attrs["model_config"])["config"]["layers"]
            arrays = _arrays(file["model_weights"])
        converter = json.loads(settings)
    except (OSError, KeyError, TypeError, ValueError) as error:
        raise CheckpointError(
            f"The files are not those of a Keras MEGNet model (hdf5 with model_config and model_weights, and json): "
            f"{type(error).__name__}: {error}"
        ) from error
    try:
        model, parameters = _translate(layers, arrays, converter)
        network = KerasMEGNet(model)
        network.load_state_dict(parameters)
        cutoff = float(converter["graph_converter"]["cutoff"])
    except CheckpointError:
        raise
    except (KeyError, IndexError, TypeError, ValueError, RuntimeError) as error:
        raise CheckpointError(
            f"The files do not hold the layers of a MEGNet model: {type(error).__name__}: {error}"
        ) from error
    return network.requires_grad_(False).eval(), cutoff


def _arrays(group: h5py.Group) -> dict[str, NDArray[np.float32]]:
    """Weights by layer and own name, e.g. ``"dense_1/kernel"``."""
    arrays: dict[str, NDArray[np.float32]] = {}

    def collect(path: str, item: Any) -> None:
        if isinstance(item, h5py.Dataset):
            arrays[f"{path.split('/')[0]}/{path.rsplit('/', 1)[1].removesuffix(':0')}"] = item[()].astype(np.float32)

    group.visititems(collect)
    return arrays


def _translate(
    layers: list[dict[str, Any]], arrays: Mapping[str, NDArray[np.float32]], converter: Mapping[str, Any]
) -> tuple[Settings, dict[str, torch.Tensor]]:
    """Settings and weights of the network, from the layers and weights of Keras."""
    by_class = _sorted_layers(layers)
    dense, convolutions = by_class["Dense"], by_class["MEGNetLayer"]
    n_blocks, n_head = len(convolutions), len(dense) - 6 * len(convolutions)
    activations = [layer["activation"] for layer in dense]
    steps = {layer["T"] for layer in by_class["Set2Set"]}
    if set(activations[:-1]) != {"softplus2"} or activations[-1] not in ("linear", "sigmoid") or len(steps) != 1:
        raise CheckpointError(
            f"The dense layers have the activations {activations} and Set2Set {sorted(steps)} steps; understood are "
            "softplus2, at last linear or sigmoid, and one number of steps"
        )

    weights = _Weights(arrays, dense)
    # Keras numbers the dense layers of a block two by two: atoms, bonds, state.
    dense_widths = [
        {
            part: weights.put_dense(f"blocks.{block}.{part}", range(6 * block + 2 * place, 6 * block + 2 * place + 2))
            for place, part in enumerate(_PARTS)
        }
        for block in range(n_blocks)
    ]
    widths = [weights.put_convolution(f"blocks.{block}", layer) for block, layer in enumerate(convolutions)]
    set2set = {
        part: weights.put_set2set(f"{part}_readout", layer["name"])
        for part, layer in zip(("node", "edge"), by_class["Set2Set"], strict=True)
    }
    head = weights.put_dense("head", range(6 * n_blocks, 6 * n_blocks + n_head))
    tables = [arrays[f"{layer['name']}/embeddings"] for layer in by_class["Embedding"]]
    for target, table in zip(("elements", "states"), tables, strict=False):
        weights.translated[f"{target}.weight"] = torch.from_numpy(table)
    mean, std = _scaler(converter)
    gaussians = converter["graph_converter"]["bond_converter"]
    model = Settings(
        centres=tuple(gaussians["centers"]["data"]),
        gaussian_width=float(gaussians["width"]),
        n_elements=tables[0].shape[0],
        element_width=tables[0].shape[1],
        n_states=tables[1].shape[0] if len(tables) > 1 else 0,
        state_width=dense_widths[0]["state"][0],
        dense_widths=tuple(dense_widths),
        widths=tuple(widths),
        set2set=set2set,
        steps=steps.pop(),
        head=head,
        sigmoid=activations[-1] == "sigmoid",
        mean=mean,
        std=std,
    )
    return model, weights.translated


class _Weights:
    """Weights of Keras, put one layer after the other under the names of the network; each says its widths."""

    def __init__(self, arrays: Mapping[str, NDArray[np.float32]], dense: list[dict[str, Any]]) -> None:
        self.arrays, self.dense = arrays, dense
        self.translated: dict[str, torch.Tensor] = {}

    def put(self, target: str, kernel: str, bias: str) -> tuple[int, int]:
        """A linear map; its input and output width."""
        self.translated[f"{target}.weight"] = torch.from_numpy(self.arrays[kernel].T.copy())
        self.translated[f"{target}.bias"] = torch.from_numpy(self.arrays[bias])
        return self.arrays[kernel].shape[0], self.arrays[kernel].shape[1]

    def put_dense(self, target: str, numbers: range) -> tuple[int, ...]:
        """Dense layers by their numbers, with an activation between two of them."""
        names = [self.dense[number]["name"] for number in numbers]
        shapes = [self.put(f"{target}.{2 * i}", f"{name}/kernel", f"{name}/bias") for i, name in enumerate(names)]
        return (shapes[0][0], *(shape[1] for shape in shapes))

    def put_convolution(self, target: str, layer: dict[str, Any]) -> dict[str, tuple[int, ...]]:
        """The three networks of a block."""
        widths = {}
        for part, letter in _PARTS.items():
            shapes = [
                self.put(
                    f"{target}.convolution.{part}.{2 * place}",
                    f"{layer['name']}/weight_{letter}_{place}",
                    f"{layer['name']}/bias_{letter}_{place}",
                )
                for place in range(len(layer[f"units_{letter}"]))
            ]
            widths[part] = (shapes[0][0], *(shape[1] for shape in shapes))
        return widths

    def put_set2set(self, target: str, name: str) -> int:
        """A read-out; its width."""
        self.put(f"{target}.recurrent", f"{name}/recurrent_kernel", f"{name}/recurrent_bias")
        return self.put(f"{target}.dense", f"{name}/x_to_m_weight", f"{name}/x_to_m_bias")[1]


def _sorted_layers(layers: list[dict[str, Any]]) -> dict[str, list[dict[str, Any]]]:
    """Settings of the layers by class, in the order in which they were made, which their names number."""
    by_class: dict[str, list[dict[str, Any]]] = {name: [] for name in _ASSUMED}
    for layer in layers:
        name, config = layer["class_name"], layer["config"]
        if name not in _ASSUMED:
            raise CheckpointError(
                f"The model has a layer {name}, which is not understood; only {', '.join(_ASSUMED)} are"
            )
        for key, value in _ASSUMED[name].items():
            if config[key] != value:
                raise CheckpointError(
                    f"The layer {config['name']} has {key} {config[key]!r}; only {value!r} is understood"
                )
        by_class[name].append(config)
    return {
        name: sorted(configs, key=lambda config: int(config["name"].rsplit("_", 1)[1]))
        for name, configs in by_class.items()
    }


def _scaler(converter: Mapping[str, Any]) -> tuple[float, float]:
    """Mean and standard deviation of the target; 0 and 1 where it was not scaled."""
    scaler = converter.get("target_scaler", {"@class": "DummyScaler"})
    if scaler["@class"] == "DummyScaler":
        return 0.0, 1.0
    if scaler["@class"] != "StandardScaler" or not scaler["is_intensive"]:
        raise CheckpointError(
            f"The target was scaled by {scaler}; understood is a StandardScaler of an intensive property"
        )
    return float(scaler["mean"]), float(scaler["std"])
