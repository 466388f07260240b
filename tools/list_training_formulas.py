"""Write which formulas the sources of ``data/cards/own`` were trained on, and name the sets in their cards.

``python tools/list_training_formulas.py`` writes ``scotl_matgl/data/sources/seen.safetensors``; run it after
``tools/train_sources.py``, ``tools/train_scotl_sources.py`` or ``tools/train_property_sources.py`` has shipped sources.
A set holds the formulas of one property that were not held out. Of these a network of one property may have drawn a
part, and a SCOTL source has a tenth held out by itself: a count is of formulas that may have been seen.
"""

from __future__ import annotations

import argparse
import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import train_property_sources as properties
import train_scotl_sources as scotl
import train_sources as shotgun
from numpy.typing import NDArray

from scotl_matgl.sources.seen import TrainingFormulas
from scotl_matgl.storage import home

CARDS = shotgun.DATA / "cards" / "own"


def keys_of(keys: tuple[str, ...], rows: NDArray[np.bool_]) -> list[str]:
    """Keys of the rows of a mask."""
    return [keys[row] for row in np.flatnonzero(rows).tolist()]


def main() -> None:
    """Collect the sets, write them, and name them in the cards."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--work", type=Path, default=home() / "properties", help="as for train_property_sources.py")
    work = parser.parse_args().work
    assets = Path(os.environ["SCOTL_MATGL_ASSETS"])
    crystals = shotgun.Data.read(assets / "structures" / "crystals.json.gz")
    calculated = properties.Data.read(assets, work)
    sets: dict[str, list[str]] = {}
    keys = crystals.corpus.compositions.keys()
    for target in shotgun.TARGETS:
        sets[f"Shotgun-{target.name}"] = keys_of(keys, crystals.training_rows([target]))
    for name, task in scotl.SOURCES.items():
        sets[name] = keys_of(keys, np.isfinite(crystals.corpus.values(task["property"])))
    keys = calculated.compositions.keys()
    for item in properties.PROPERTIES:
        sets[item.name] = keys_of(keys, calculated.training([item]))
    of_source = {name: [name] for name in scotl.SOURCES}
    for name in shotgun.JOINTS:
        for number in range(1, len(shotgun.JOINT_SHAPES) + 1):
            of_source[f"Shotgun-{name}-{number}"] = [f"Shotgun-{item.name}" for item in shotgun.members(name)]
    for target in shotgun.TARGETS:
        for number in range(1, shotgun.N_SHIPPED + 1):
            of_source[f"Shotgun-{target.name}-{number}"] = [f"Shotgun-{target.name}"]
    of_source |= {plan.name: [item.name for item in plan.properties] for plan in properties.plans()}
    path = shotgun.DATA / "sources" / "seen.safetensors"
    TrainingFormulas.of(sets).save(path)
    print(f"{path}: {path.stat().st_size / 1000:.0f} kB, {len(set().union(*sets.values()))} formulas")
    for file in sorted(CARDS.glob("*.json")):
        cards: list[dict[str, Any]] = json.loads(file.read_text(encoding="utf-8"))
        for card in cards:
            if card["name"] in of_source:
                card["training_sets"] = of_source[card["name"]]
        file.write_text(json.dumps(cards, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
