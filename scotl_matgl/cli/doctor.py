"""The command that says what is installed, what can be done with it, and what to install for the rest."""

from __future__ import annotations

import importlib.util
import os
import sys
from typing import TYPE_CHECKING

from scotl_matgl.cli.app import app
from scotl_matgl.cli.console import say

if TYPE_CHECKING:
    from collections.abc import Callable

    from scotl_matgl.sources.cards import SourceCard

# What an extra brings, and what it is for.
_EXTRAS = {
    "matplotlib": ("plot", "figures, also those in reports"),
    "torch": ("matgl", "running, training and fine-tuning networks"),
    "matgl": ("matgl", "encoding crystals and building bridges"),
    "openpyxl": ("excel", "Excel workbooks"),
    "pyarrow": ("parquet", "Parquet tables"),
    "dask": ("dask", "rankings on a cluster"),
}


@app.command()
def doctor() -> None:
    """Say what is installed, which sources can be encoded, where files are kept, and what to install for the rest."""
    from scotl_matgl import __version__
    from scotl_matgl.encoders.weights import find_model
    from scotl_matgl.sources.cards import all_cards
    from scotl_matgl.storage import home, installed_versions

    failed: dict[str, str] = {}
    cards = all_cards(failed.__setitem__)
    say(f"scotl-matgl {__version__}, Python {sys.version.split()[0]}\n")
    for name, version in installed_versions().items():
        if name not in ("python", "scotl-matgl"):
            say(f"{name:>14}  {version}")
    say("")
    for module, (extra, purpose) in _EXTRAS.items():
        state = "installed" if _is_there(module) else f"missing: pip install 'scotl-matgl[{extra}]'"
        say(f"{module:>14}  {state} ({purpose})")
    say(f"\nfiles are kept in {home()} (SCOTL_MATGL_HOME)")
    assets = os.environ.get("SCOTL_MATGL_ASSETS")
    say(f"weights are looked for in {assets or 'the caches of MatGL and of this package'} (SCOTL_MATGL_ASSETS)\n")
    lacking: dict[str, list[str]] = {}
    for card in cards:
        lacking.setdefault(_what_lacks(card, find_model), []).append(card.name)
    usable = lacking.pop("", [])
    say(f"{len(cards)} sources; all with a bridge can be ranked as they are; {len(usable)} can be encoded here")
    for reason, names in lacking.items():
        shown = ", ".join(names[:2]) + (f" and {len(names) - 2} more" if len(names) > 2 else "")
        say(f"  {len(names)} cannot: {reason} ({shown})")
    if any("weights" in reason for reason in lacking):
        say("  SCOTL_MATGL_ASSETS names the folder that holds models/matgl/NAME/model.pt and the other files")
    for name, reason in failed.items():
        say(f"zoo {name} cannot be read: {reason}")


def _is_there(module: str) -> bool:
    return importlib.util.find_spec(module) is not None


def _what_lacks(card: SourceCard, find_model: Callable[[SourceCard], object]) -> str:
    """What keeps a source from being encoded on this machine; empty if nothing does."""
    module = card.loader.partition(":")[0]
    package = module.partition(".")[0]
    if not _is_there(package):
        return f"the plugin {package.replace('_', '-')} is not installed"
    if card.modality == "composition":
        return ""
    for needed in ("torch", "matgl") if module == "scotl_matgl.encoders.matgl" else ("torch",):
        if not _is_there(needed):
            return f"{needed} is missing; pip install 'scotl-matgl[matgl]'"
    if module == "scotl_matgl.encoders.matgl":
        try:
            find_model(card)
        except FileNotFoundError:
            return "its weights are not on this machine"
    return ""
