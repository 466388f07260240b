"""Models of MatGL that someone trained become sources: all that a card says of a network is computed from it."""

from __future__ import annotations

import hashlib
import importlib
import importlib.metadata
import math
import tempfile
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from scotl_matgl.chemistry.crystals import Crystal
from scotl_matgl.encoders.checkpoints import CheckpointError, fill, read_model, read_pickled
from scotl_matgl.encoders.matgl import MatGLEncoder
from scotl_matgl.encoders.probes import TOLERANCE, probe, reference_crystals
from scotl_matgl.encoders.weights import MODEL_FILES, Backend, pick_backend
from scotl_matgl.sources.cards import SourceCard
from scotl_matgl.sources.installed import install

#: What a card says where the user says nothing.
_UNSTATED = "not stated"


def source_of_matgl(
    model: Any,
    *,
    name: str,
    property: str,  # noqa: A002 - the field of the card has this name
    unit: str,
    network: Any = None,
    matgl_version: int | None = None,
    replace: bool = False,
    **facts: Any,
) -> SourceCard:
    """See :meth:`scotl_matgl.SourceCard.from_matgl`."""
    backend = pick_backend()
    backend.import_matgl()
    with tempfile.TemporaryDirectory() as scratch, _without_advice():
        folder = _saved(model, network, Path(scratch), backend)
        convention = _convention(folder, backend, matgl_version)
        encoder = MatGLEncoder(
            _card(name, property, unit, {"readout": 1}, convention=convention, **facts),
            read_model(folder, backend, convention),
            backend,
            check=False,
            widths_of_card=False,
        )
        found = probe(encoder)
        told = encoder.encode_layers(list(reference_crystals().values()), layers=("final",)).refused
        known = {crystal: value for crystal, value in found.items() if math.isfinite(value)}
        failed = [reason for reason in told.values() if reason.startswith("the model")]
        if not known and any("failed" in reason or "not finite" in reason for reason in failed):
            raise CheckpointError(f"{name} gives no value for any reference crystal: {failed[0]}")
        _compare(encoder, folder, known)
        layers = dict(encoder.widths)
        files = {file: (folder / file).read_bytes() for file in MODEL_FILES}
        card = _card(
            name,
            property,
            unit,
            layers,
            convention=convention,
            weights={file: hashlib.sha256(content).hexdigest() for file, content in files.items()},
            probes={crystal: round(value, 6) for crystal, value in known.items()},
            parameters=sum(weight.numel() for weight in encoder.model.parameters()),
            elements=tuple(encoder.elements),
            architecture=encoder.architecture,
            **facts,
        )
        return install(card, files, replace=replace)


def _card(name: str, of: str, unit: str, layers: Mapping[str, int], *, convention: int, **facts: Any) -> SourceCard:
    """Card with what is not stated said to be so."""
    texts = {key: facts.pop(key, "") or _UNSTATED for key in ("dataset", "licence", "citation")}
    return SourceCard(
        name=name,
        zoo="own",
        modality="structure",
        property=of,
        unit=unit,
        layers=layers,
        loader="scotl_matgl.encoders.matgl:load",
        options={"directory": name, "convention": convention, **facts.pop("options", {})},
        **{"architecture": _UNSTATED, **texts, **facts},
    )


# -- from what a training leaves to the three files of MatGL's `save` --------------------------------------------------


def _saved(model: Any, network: Any, scratch: Path, backend: Backend) -> Path:
    """Folder with the three files of a model: the one that was given, or one that is written."""
    if isinstance(model, str | Path):
        path = Path(model).expanduser()
        if path.is_dir():
            missing = [file for file in MODEL_FILES if not (path / file).is_file()]
            if missing:
                raise FileNotFoundError(
                    f"{path} holds no model that MatGL saved: {', '.join(missing)} is missing; save it with "
                    "`model.save(folder)`"
                )
            return path
        if not path.is_file():
            raise FileNotFoundError(f"there is no model at {path}: give the folder that `model.save(folder)` wrote")
        model = _of_checkpoint(path, network, scratch, backend)
    elif network is not None:
        raise CheckpointError("network= belongs to a checkpoint of Lightning; a model in memory has its network")
    target = scratch / "model"
    _bare(model).save(target)
    return target


def _bare(model: Any) -> Any:
    """What can be saved: a model of MatGL, also of a module of Lightning, with its scaling of the target."""
    inner = getattr(model, "model", None)
    if not hasattr(model, "_init_args") and hasattr(inner, "_init_args"):  # a module of Lightning
        return _scaled(inner, float(getattr(model, "data_mean", 0.0)), float(getattr(model, "data_std", 1.0)))
    if not (hasattr(model, "_init_args") and hasattr(model, "save")):
        raise CheckpointError(
            f"a {type(model).__name__} is no model of MatGL; give a model, the module of Lightning that trained it, "
            "the folder that `model.save(folder)` wrote, or a checkpoint with network="
        )
    return model


def _scaled(network: Any, mean: float, deviation: float) -> Any:
    """A network whose output is in the unit of the property; a potential scales itself."""
    if type(network).__name__ == "Potential" or (mean, deviation) == (0.0, 1.0):
        return network
    from matgl.data.transformer import Normalizer
    from matgl.models._wrappers import TransformedTargetModel

    return TransformedTargetModel(network, Normalizer(mean, deviation))


def _of_checkpoint(path: Path, network: Any, scratch: Path, backend: Backend) -> Any:
    """Model of a checkpoint of Lightning, which holds weights and scaling, and of its network, which it does not."""
    content = read_pickled(path)
    state = content.get("state_dict") if isinstance(content, dict) else None
    if not isinstance(state, dict):
        raise CheckpointError(f"{path} is no checkpoint of Lightning: it has no state_dict")
    if network is None:
        raise CheckpointError(
            f"{path} holds weights, but not which network they are of: give that, too, as network=, the model before "
            "training or a folder that its `save` wrote (`--network FOLDER`)"
        )
    if isinstance(network, str | Path):
        network = _unwrapped(read_model(_saved(network, None, scratch, backend), backend, 3, faster=False))
    network = _unwrapped(network)
    scaling = content.get("hyper_parameters")
    scaling = scaling if isinstance(scaling, dict) else {}
    model, prefix = network, "model."
    if any(key.startswith("model.model.") for key in state):
        potential = importlib.import_module(backend.WRAPPERS["Potential"]).Potential
        model = potential(model=network, element_refs=scaling.get("element_refs"))
    weights = {key.removeprefix(prefix): value for key, value in state.items() if key.startswith(prefix)}
    fill(model, weights, f"The weights in {path}")
    return _scaled(model, float(scaling.get("data_mean", 0.0)), float(scaling.get("data_std", 1.0)))


def _unwrapped(model: Any) -> Any:
    """The network itself, without what stands around it."""
    while not hasattr(model, "element_types") and hasattr(model, "model"):
        model = model.model
    return model


def _convention(folder: Path, backend: Backend, matgl_version: int | None) -> int:
    """Major version of MatGL for whose message passing weights were made: as said, else that which is installed."""
    if matgl_version is not None:
        return 2 if matgl_version <= 2 else 3
    if "_dgl" in (folder / "model.json").read_text(encoding="utf-8", errors="replace"):
        return 2  # only MatGL 2 had modules of such names
    return max(backend.CONVENTIONS)


# -- what MatGL itself says --------------------------------------------------------------------------------------------


def _compare(encoder: MatGLEncoder, folder: Path, known: Mapping[str, float]) -> None:
    """Raise unless the network gives on the reference crystals what MatGL's own graphs and layers give."""
    import torch

    convention = int(encoder.card.options["convention"])
    if convention != max(encoder.backend.CONVENTIONS) or "state" in encoder.card.options:
        return  # MatGL itself would read the weights wrongly, or needs to be told the state
    plain = _unwrapped(read_model(folder, encoder.backend, convention, faster=False))
    further = {"total_charge": torch.zeros(1)} if encoder.architecture == "QET" else {}
    for name in known:
        crystal = reference_crystals()[name]
        try:
            theirs = float(plain.predict_structure(crystal.to_structure(), **further))
        except Exception:  # noqa: S112 - there is nothing to compare where MatGL itself fails, whatever it raises
            continue
        ours = _raw(encoder, crystal)
        if not abs(ours - theirs) <= TOLERANCE * max(1.0, abs(theirs)):
            raise CheckpointError(
                f"{encoder.card.name} is read wrongly here: for {name} its network gives {ours:.6g}, by MatGL itself "
                f"{theirs:.6g} (matgl {importlib.metadata.version('matgl')}); please report it with the settings in "
                "its model.json"
            )


def _raw(encoder: MatGLEncoder, crystal: Crystal) -> float:
    """Output of the network itself for a crystal."""
    seen: list[float] = []
    network = encoder.model.model
    handle = network.register_forward_hook(lambda _, __, output: seen.append(float(output.reshape(-1)[0])))
    try:
        encoder.encode([crystal], layer="final")
    finally:
        handle.remove()
    return seen[-1]


@contextmanager
def _without_advice() -> Iterator[None]:
    """Keep what torch, DGL and MatGL warn about from users, who can do nothing about it."""
    with warnings.catch_warnings():
        for module in ("torch", "dgl", "matgl", "lightning", "torch_geometric"):
            warnings.filterwarnings("ignore", module=rf"{module}(\.|$)")
        yield
