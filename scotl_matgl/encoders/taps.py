"""Where the layers of each architecture of MatGL are read, and how they are averaged over a crystal."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from scotl_matgl.encoders.checkpoints import CheckpointError

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True)
class Tap:
    """Where a layer is read: a module, what of its input or output, and how that is averaged."""

    module: str
    pick: Callable[[tuple[Any, ...], Any], torch.Tensor]
    width: int
    pool: str | None = None


def taps_of(network: Any) -> dict[str, Tap]:
    """Layers of a network, ``readout`` first."""
    return _OF[type(network).__name__](network)


def _megnet_taps(network: Any) -> dict[str, Tap]:
    last = network.output_proj.last_linear
    taps = {
        "readout": Tap("output_proj", _first_input, network.output_proj.in_features),
        "penultimate": Tap(_name_of(network, last), _first_input, last.in_features),
    }
    for index, block in enumerate(network.blocks):
        for position, part, pool in ((1, "node", "atoms"), (0, "edge", "bonds"), (2, "state", None)):
            width = getattr(block.conv, f"{part}_func").out_features
            taps[f"block_{index + 1}_{part}"] = Tap(f"blocks.{index}", _output(position), width, pool)
    return taps


def _m3gnet_taps(network: Any) -> dict[str, Tap]:
    convolutions = {
        f"gc_{index + 1}": Tap(f"graph_layers.{index}", _output(1), layer.conv.node_weight_func.out_features, "atoms")
        for index, layer in enumerate(network.graph_layers)
    }
    reads_bonds = network.is_intensive and getattr(network.readout, "field", "") == "edge_feat"
    if network.include_state or reads_bonds or network.basis_expansion.use_phi:
        raise CheckpointError(
            "This M3GNet has states, a read-out of bonds or dihedral angles, for which the corrected three-body terms "
            "are not made; none of the published models has"
        )
    if not network.is_intensive:
        return {"readout": convolutions[f"gc_{len(convolutions)}"], **convolutions}
    last = network.final_layer.last_linear
    return {
        "readout": Tap("final_layer", _first_input, network.final_layer.in_features),
        "penultimate": Tap(_name_of(network, last), _first_input, last.in_features),
        **convolutions,
    }


def _tensornet_taps(network: Any) -> dict[str, Tap]:
    width = 3 * network.units
    atoms = Tap("linear", lambda _, output: output, network.linear.out_features, "atoms")
    crystal = _gathered(network) if getattr(network, "is_intensive", False) else {}  # QET has none
    return {
        **(crystal or {"readout": atoms}),
        **({"atoms": atoms} if crystal else {}),
        "embedding": Tap("tensor_embedding", lambda _, output: _invariants(output[0]), width, "atoms"),
        **{
            f"gc_{index + 1}": Tap(f"layers.{index}", lambda _, output: _invariants(output), width, "atoms")
            for index in range(len(network.layers))
        },
    }


def _gathered(network: Any) -> dict[str, Tap]:
    """What a read-out made of the atoms of a crystal, before the last layers and within them."""
    last = network.final_layer.last_linear
    return {
        "readout": Tap("final_layer", _first_input, network.final_layer.in_features),
        "penultimate": Tap(_name_of(network, last), _first_input, last.in_features),
    }


def _so3net_taps(network: Any) -> dict[str, Tap]:
    per_crystal = network.target_property == "graph" and network.is_intensive
    energy = network.target_property == "atomwise" and not network.is_intensive
    if not (per_crystal or energy) or network.include_state:
        raise CheckpointError(
            f"This SO3Net predicts {network.target_property!r} (is_intensive={network.is_intensive}, "
            f"include_state={network.include_state}); understood are 'graph' with is_intensive=True and 'atomwise' "
            "with False, without states: one value for each crystal"
        )
    atoms = Tap("readout" if per_crystal else "final_layer", _atoms_of, network.dim_node_embedding, "atoms")
    return {**_gathered(network), "atoms": atoms} if per_crystal else {"readout": atoms}


def _chgnet_taps(network: Any) -> dict[str, Tap]:
    if network.readout_field != "atom_feat" or network.include_states:
        raise CheckpointError(
            f"This CHGNet reads out {network.readout_field!r} (include_states={network.include_states}); understood is "
            "'atom_feat', without states"
        )
    width = network.atom_embedding.embedding_dim
    convolutions = {
        f"gc_{index + 1}": Tap(f"atom_graph_layers.{index}", _output(0), width, "atoms")
        for index in range(len(network.atom_graph_layers))
    }
    return {"readout": convolutions[f"gc_{len(convolutions)}"], **convolutions}


#: Taps of each architecture that is understood.
_OF: Mapping[str, Callable[[Any], dict[str, Tap]]] = {
    "MEGNet": _megnet_taps,
    "M3GNet": _m3gnet_taps,
    "TensorNet": _tensornet_taps,
    "QET": _tensornet_taps,
    "SO3Net": _so3net_taps,
    "CHGNet": _chgnet_taps,
}


def _atoms_of(inputs: tuple[Any, ...], _: Any) -> torch.Tensor:
    """Features of the atoms that a read-out is given: as they are, or on the graph of DGL."""
    value: torch.Tensor = inputs[0].ndata["node_feat"] if hasattr(inputs[0], "ndata") else inputs[0]
    return value


def _first_input(inputs: tuple[Any, ...], _: Any) -> torch.Tensor:
    value: torch.Tensor = inputs[0]
    return value


def _output(position: int) -> Callable[[tuple[Any, ...], Any], torch.Tensor]:
    def pick(_: tuple[Any, ...], output: Any) -> torch.Tensor:
        value: torch.Tensor = output[position]
        return value

    return pick


def _invariants(tensor: torch.Tensor) -> torch.Tensor:
    """Squared norms of the scalar, antisymmetric and symmetric traceless parts of (n, units, 3, 3): (n, 3 · units)."""
    import torch
    from matgl.utils.maths import decompose_tensor, tensor_norm

    return torch.cat([tensor_norm(part) for part in decompose_tensor(tensor)], dim=-1)


def _name_of(network: Any, wanted: Any) -> str:
    return next(str(name) for name, module in network.named_modules() if module is wanted)


@contextmanager
def tapped(network: Any, taps: Mapping[str, Tap]) -> Iterator[dict[str, torch.Tensor]]:
    """Record layers while the network runs; the hooks and what they recorded are gone afterwards."""
    captured: dict[str, torch.Tensor] = {}

    def hook(layer: str, tap: Tap) -> Callable[..., None]:
        def record(_: Any, inputs: tuple[Any, ...], output: Any) -> None:
            captured[layer] = tap.pick(inputs, output)

        return record

    handles = [network.get_submodule(tap.module).register_forward_hook(hook(layer, tap)) for layer, tap in taps.items()]
    try:
        yield captured
    finally:
        for handle in handles:
            handle.remove()
        captured.clear()
