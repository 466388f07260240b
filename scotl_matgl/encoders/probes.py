"""Reference crystals, and the check that a model still gives on them what its card says."""

from __future__ import annotations

import importlib.metadata
import math
from typing import TYPE_CHECKING

import numpy as np

from scotl_matgl.chemistry.crystals import Crystal

if TYPE_CHECKING:
    from scotl_matgl.encoders.contracts import SourceEncoder

#: Largest deviation that is accepted, in the unit of the model. Right weights deviate by less than 1e-4; those of
#: another version of MatGL by 0.1 and more.
TOLERANCE = 2e-3

#: What to install where weights are not reproduced.
WORKING_VERSIONS = (
    "matgl 2.0.4 to 2.1.2 with dgl 1.1.3 (Python 3.11: pip install 'scotl-matgl[dgl]'), "
    "matgl 4.1.2 with torch-geometric (newer Pythons: pip install 'scotl-matgl[pyg]')"
)

_PACKAGES = ("matgl", "dgl", "torch-geometric", "torch")


class IncompatibleWeightsError(RuntimeError):
    """Weights and installed versions do not fit: the model would give numbers, but wrong ones."""


def reference_crystals() -> dict[str, Crystal]:
    """Crystals of the probes, primitive cells: CsCl, NaCl, MgO, Si (cubic lattice constants 4.14, 5.69, 4.25, 5.47 Å).

    Examples
    --------
    >>> reference_crystals()["NaCl"].numbers.tolist()
    [11, 17]
    """
    simple = np.eye(3)
    centred = 0.5 * np.array([[0.0, 1.0, 1.0], [1.0, 0.0, 1.0], [1.0, 1.0, 0.0]])
    cells = {
        "CsCl": (4.14 * simple, 0.5, (55, 17)),
        "NaCl": (5.69 * centred, 0.5, (11, 17)),
        "MgO": (4.25 * centred, 0.5, (12, 8)),
        "Si": (5.47 * centred, 0.25, (14, 14)),
    }
    return {
        name: Crystal(
            lattice=lattice,
            frac_coords=np.array([[0.0, 0.0, 0.0], [second, second, second]]),
            numbers=np.array(numbers, dtype=np.int16),
            identifier=name,
        )
        for name, (lattice, second, numbers) in cells.items()
    }


def versions() -> dict[str, str]:
    """Installed versions of matgl, its backends and torch; ``"absent"`` where there is none."""
    found = {}
    for package in _PACKAGES:
        try:
            found[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            found[package] = "absent"
    return found


def probe(encoder: SourceEncoder, *, device: str = "auto") -> dict[str, float]:
    """Prediction of the model (its layer ``final``) on every reference crystal; NaN where it refuses one."""
    crystals = reference_crystals()
    encoded = encoder.encode_layers(list(crystals.values()), layers=("final",), device=device)
    return dict(zip(crystals, encoded.embeddings["final"][:, 0].tolist(), strict=True))


def check_probes(encoder: SourceEncoder, *, device: str = "auto", advice: str | None = None) -> None:
    """Compare the model with the probes of its card.

    Parameters
    ----------
    encoder : SourceEncoder
    device : str, default "auto"
    advice : str, optional
        End of the message, after the values: what may be wrong, and what to do. By default it lists the versions, found
        and working, as MatGL's models need it.

    Raises
    ------
    IncompatibleWeightsError
        If a probe deviates by more than 2e-3.
    """
    card, found = encoder.card, probe(encoder, device=device)
    wrong = [
        f"{crystal} {found.get(crystal, math.nan):.4f} instead of {value:.4f}"
        for crystal, value in card.probes.items()
        # A NaN must count as wrong, hence the negation.
        if not abs(found.get(crystal, math.nan) - value) <= TOLERANCE
    ]
    if wrong:
        if advice is None:
            installed = ", ".join(f"{package} {version}" for package, version in versions().items())
            advice = (
                "Either the weights were changed or the installed versions read them differently. "
                f"Found: {installed}. Known to work: {WORKING_VERSIONS}."
            )
        raise IncompatibleWeightsError(
            f"{card.name} does not give the values of its card ({card.unit}): {'; '.join(wrong)}. {advice}"
        )
