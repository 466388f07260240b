"""Files of published models, which no package carries: found in the user's folders and compared with their card."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Mapping, Sequence
from pathlib import Path

from scotl_matgl.encoders.probes import IncompatibleWeightsError
from scotl_matgl.sources.cards import SourceCard


def read_published(
    card: SourceCard,
    names: Sequence[str],
    path: str | Path | None = None,
    *,
    variable: str,
    folder: str,
    origin: str,
    check: bool = True,
) -> tuple[Path, dict[str, bytes]]:
    """Read the files of a model, which all lie in one folder; nothing in them is executed.

    Parameters
    ----------
    card : SourceCard
        Whose files; its ``weights`` hold their sha256.
    names : sequence of str
        The files, relative to the folder.
    path : path-like, optional
        The folder. By default ``$variable``, then ``$SCOTL_MATGL_ASSETS/models/folder``.
    variable : str
        Environment variable that names the folder.
    folder : str
        Name of the folder below ``models`` of the folder that ``SCOTL_MATGL_ASSETS`` names.
    origin : str
        For the error: what to get from where, as the object of a sentence that begins with "Get".
    check : bool, default True
        Compare the files with the sha256 of the card.

    Returns
    -------
    pathlib.Path
        The folder in which the files are.
    dict of str to bytes
        What they hold, by name.

    Raises
    ------
    FileNotFoundError
        If no folder has all of them; the message says where they were looked for, and `origin`.
    IncompatibleWeightsError
        If a file is not the one of the card.

    Examples
    --------
    >>> read_published(card, ["model.hdf5"], variable="MY_MODELS", folder="mine", origin="it")  # doctest: +SKIP
    (PosixPath('/data/mine'), {'model.hdf5': b'...'})
    """
    names = list(dict.fromkeys([*names, *(card.weights if check else ())]))
    place = _find(card, names, path, variable=variable, folder=folder, origin=origin)
    contents = {name: (place / name).read_bytes() for name in names}
    if check:
        check_contents(card, place, contents)
    return place, contents


def check_contents(card: SourceCard, folder: Path, contents: Mapping[str, bytes]) -> None:
    """Raise unless all files that the card lists are there as it lists them, by their sha256."""
    for name, expected in card.weights.items():
        found = hashlib.sha256(contents[name]).hexdigest()
        if found != expected:
            raise IncompatibleWeightsError(
                f"{folder / name} is not the file of the card {card.name}: its sha256 is {found}, not {expected}. "
                "Get the published file, or load with check=False to look at this one."
            )


def _find(
    card: SourceCard, names: Sequence[str], path: str | Path | None, *, variable: str, folder: str, origin: str
) -> Path:
    """First folder that holds all files."""
    own, assets = os.environ.get(variable), os.environ.get("SCOTL_MATGL_ASSETS")
    if path is not None:
        places = [Path(path)]
    else:
        places = [Path(own)] if own else []
        places += [Path(assets) / "models" / folder] if assets else []
    for place in places:
        if all((place / name).is_file() for name in names):
            return place
    looked = ", ".join(str(place) for place in places) or "no folder, because neither variable is set"
    raise FileNotFoundError(
        f"The model {card.name!r} is not on this machine: {' and '.join(names)} were looked for in {looked}. Get "
        f"{origin} and name the folder with path=... or {variable}, or have it as models/{folder} in the folder that "
        "SCOTL_MATGL_ASSETS names."
    )
