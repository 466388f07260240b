"""Count the crystals of the Materials Project by mean and difference of electronegativity, for the map in reports.

``python tools/count_bonding.py`` reads ``structures/crystals.json.gz`` of ``SCOTL_MATGL_ASSETS`` and writes
``scotl_matgl/data/bonding.safetensors``: fifty by fifty numbers. A formula counts once, whatever its polymorphs; those
that the shipped bridges were not fitted on, hypothetical perovskites, do not count.
"""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np

from scotl_matgl.chemistry.corpus import Corpus
from scotl_matgl.descriptors.bonding import BONDING_FILE, STEP, Bonding
from scotl_matgl.storage import write_tensors

LEFT_OUT = ("kaistperov-", "perov5-")
OUTPUT = Path(__file__).resolve().parents[1] / "scotl_matgl" / "data" / "bonding.safetensors"


def counted(crystals: Path) -> np.ndarray:
    """Counts of the different formulas of a file of crystals."""
    corpus = Corpus.read(crystals)
    kept = [not crystal.identifier.startswith(LEFT_OUT) for crystal in corpus]
    compositions = corpus.compositions.take(np.array(kept))
    first = np.unique(compositions.keys(), return_index=True)[1]
    return Bonding.of(compositions.take(first)).counts().astype(np.uint16)


def main() -> None:
    """Count and write."""
    counts = counted(Path(os.environ["SCOTL_MATGL_ASSETS"]) / "structures" / "crystals.json.gz")
    write_tensors(OUTPUT, {"counts": counts}, BONDING_FILE, {"crystals": int(counts.sum()), "step": STEP})
    print(f"{counts.sum()} formulas in {(counts > 0).sum()} squares, {OUTPUT.stat().st_size} bytes")


if __name__ == "__main__":
    main()
