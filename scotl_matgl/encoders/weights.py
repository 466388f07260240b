"""MatGL's weight files: found, checked by their hashes, and read without executing anything."""

from __future__ import annotations

import importlib.metadata
import itertools
import os
import urllib.request
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
from numpy.typing import NDArray

from scotl_matgl.encoders import dgl_backend, pyg_backend
from scotl_matgl.encoders.graphs import CrystalGraph
from scotl_matgl.encoders.probes import IncompatibleWeightsError
from scotl_matgl.encoders.published import check_contents
from scotl_matgl.sources.cards import SourceCard
from scotl_matgl.storage import home

if TYPE_CHECKING:
    import torch


#: What MatGL's ``save`` writes of a model.
MODEL_FILES = ("model.json", "model.pt", "state.pt")


#: Names under which MatGL's hub may hold the same model since MatGL 3; the sha256 of the files tells whether it does.
_HUB_NAMES = {
    "MEGNet-MP-2018.6.1-Eform": "MEGNet-Eform-MP-2018.6.1",
    "MEGNet-MP-2019.4.1-BandGap-mfi": "MEGNet-BandGap-mfi-MP-2019.4.1",
    "M3GNet-MP-2018.6.1-Eform": "M3GNet-Eform-MP-2018.6.1",
    "QET-MatQ-PES": "QET-PES-MatQ",
}


#: Seconds to wait for a hub's first answer. MatGL itself tries for half a minute before it says anything.
_PATIENCE = 5.0


INSTALL_HINT = "pip install 'scotl-matgl[dgl]' on Python 3.11, 'scotl-matgl[pyg]' on newer ones"


def find_model(card: SourceCard, path: str | Path | None = None, *, download: bool = False) -> Path:
    """Directory of a model; see :func:`load` for the places and the errors."""
    name = str(card.options.get("directory", card.name))
    names = [name, *([_HUB_NAMES[name]] if name in _HUB_NAMES else [])]
    if path is not None:
        places = [Path(path)]
    else:
        assets = os.environ.get("SCOTL_MATGL_ASSETS")
        cache = Path.home() / ".cache" / "matgl"
        places = [home() / "sources" / name]  # a model of the user's own
        places += [Path(assets) / "models" / "matgl" / name] if assets else []
        places.append(cache / name)
        # Where huggingface_hub, which MatGL downloads with since 2.1, puts its files below the same cache.
        for owner, known in itertools.product(("Materialyze", "materialyze"), names):
            places.extend(sorted((cache / f"models--{owner}--{known}" / "snapshots").glob("*")))
    for place in places:
        if all((place / file).is_file() for file in MODEL_FILES):
            return place
    advice = "Give the directory with path=..., or let MatGL download it with download=True."
    if download and path is None:
        found = _download(names)
        if isinstance(found, Path):
            return found
        advice = f"It could not be downloaded either: {found}."
    looked = ", ".join(str(place) for place in places)
    unset = "" if path is not None or os.environ.get("SCOTL_MATGL_ASSETS") else " (SCOTL_MATGL_ASSETS is not set)"
    raise FileNotFoundError(
        f"The model {name!r} is not on this machine: {', '.join(MODEL_FILES)} were looked for in {looked}{unset}. "
        f"{advice}"
    )


def _download(names: Sequence[str]) -> Path | str:
    """Let MatGL download a model; directory, or why not."""
    backend = pick_backend()
    silent = [reason for hub in backend.HUBS if (reason := _silence(hub))]
    if len(silent) == len(backend.HUBS):
        return "; ".join(silent)
    backend.import_matgl()
    from matgl.utils.io import _get_file_paths

    reasons = []
    for name in names:
        try:
            return Path(_get_file_paths(Path(name), str_path=name)["state.pt"]).parent
        except (ValueError, OSError) as error:
            reasons.append(f"{name}: {error}")
    return "; ".join(reasons)


def _silence(url: str) -> str:
    """Why a server does not answer; empty if it does, be it with an error."""
    try:
        urllib.request.urlopen(url, timeout=_PATIENCE).close()  # noqa: S310 - addresses of our own, https
    except urllib.error.HTTPError:
        return ""
    except OSError as error:
        return f"{url} does not answer ({error})"
    return ""


class Backend(Protocol):
    """What a version of MatGL must be known by: :mod:`.dgl_backend` and :mod:`.pyg_backend`."""

    @property
    def CONVENTIONS(self) -> tuple[int, ...]:  # noqa: N802 - constants of a module
        """Major versions of MatGL for whose message passing weights may have been made."""

    @property
    def HUBS(self) -> tuple[str, ...]:  # noqa: N802
        """Servers from which MatGL downloads."""

    @property
    def MODELS(self) -> dict[str, str]:  # noqa: N802
        """Networks that a checkpoint may name, and the modules they are taken from, whatever it names itself."""

    @property
    def WRAPPERS(self) -> dict[str, str]:  # noqa: N802
        """The same of what may stand around a network."""

    @property
    def UNUSED(self) -> tuple[str, ...]:  # noqa: N802
        """Weights of older checkpoints that nothing reads."""

    def import_matgl(self) -> None:
        """Import MatGL as it must be imported, without noise."""

    def has_gpu(self) -> bool:
        """Whether all that is involved can use a GPU."""

    def settings(self, name: str, /) -> dict[str, Any]:
        """Arguments of a network that its checkpoint does not give."""

    def convert(self, name: str, state: dict[str, torch.Tensor], convention: int, /) -> dict[str, torch.Tensor]:
        """Weights as this version of MatGL understands them."""

    def adapt(self, network: Any, convention: int, /) -> None:
        """Change layers of a network, on the instance."""

    def prepare(
        self, network: Any, graphs: Sequence[CrystalGraph], types: NDArray[np.int32], device: torch.device, /
    ) -> tuple[Any, dict[str, Any]]:
        """Graph of a batch, and further arguments of the network."""

    def crystal_means(self, graph: Any, values: torch.Tensor, of: str, /) -> torch.Tensor:
        """Mean over the ``"atoms"`` or ``"bonds"`` of each crystal."""


def pick_device(device: str, backend: Backend) -> torch.device:
    """Device of a name; ``"auto"`` is a GPU if torch and MatGL's backend can use one."""
    import torch

    return torch.device(device if device != "auto" else "cuda" if backend.has_gpu() else "cpu")


def pick_backend() -> Backend:
    """Module that knows the installed version of matgl; nothing is imported yet."""
    try:
        version = importlib.metadata.version("matgl")
    except importlib.metadata.PackageNotFoundError as error:
        raise ModuleNotFoundError(
            f"MatGL's models need matgl, which is missing: {INSTALL_HINT}", name="matgl"
        ) from error
    release = tuple(int(part) for part in version.split(".")[:2])
    if (2, 0) <= release < (2, 2):
        return dgl_backend
    if (4, 1) <= release < (5, 0):
        return pyg_backend
    raise RuntimeError(
        f"matgl {version} is installed, which reads the published weights wrongly in a way that is not known here: "
        f"{INSTALL_HINT}"
    )


def check_files(card: SourceCard, directory: Path) -> None:
    """Raise unless the weight files are those of the card, by their hashes."""
    if "state.pt" not in card.weights and not card.probes:
        raise IncompatibleWeightsError(
            f"The card {card.name} has neither the sha256 of state.pt nor probes, so that nothing tells whether the "
            f"weights in {directory} are read rightly. Add probes measured with the version of MatGL that the weights "
            "were made with, or load with check=False to look at them."
        )
    check_contents(card, directory, {file: (directory / file).read_bytes() for file in card.weights})
