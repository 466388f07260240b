"""What it costs to rank MatGL's sources for 500 crystals, beside fine-tuning the same sources on them.

CPU seconds of one process on one thread. The ranking is timed with an empty store of embeddings (cold), then again
(warm). Two sources are fine-tuned for five epochs; the ratio of that to the encoding of the same crystals stands for
the others, MEGNet's for its fidelities and M3GNet's for the rest. Needs SCOTL_MATGL_ASSETS, matgl 2.1 on DGL and torch;
about ten minutes.

Usage: python benchmarks/crystal_ranking.py [CRYSTALS]
"""

from __future__ import annotations

import os
import sys
import tempfile
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from scotl_matgl import FullTransferRegressor, TransferabilityRanker
from scotl_matgl.chemistry.crystal_files import read_crystals
from scotl_matgl.chemistry.crystals import Crystal
from scotl_matgl.encoders.store import EmbeddingStore
from scotl_matgl.exceptions import ScotlMatglWarning
from scotl_matgl.sources.cards import all_cards

EPOCHS, TUNED = 5, ("MEGNet-MP-2018.6.1-Eform", "M3GNet-MP-2018.6.1-Eform")


def seconds(work: Callable[..., Any], *given: Any, **options: Any) -> float:
    """CPU time of some work."""
    started = time.process_time()
    work(*given, **options)
    return time.process_time() - started


def main(n: int) -> None:
    import torch

    torch.set_num_threads(1)
    path = Path(os.environ["SCOTL_MATGL_ASSETS"]) / "structures" / "crystals.json.gz"
    found = [
        one for one in read_crystals(path) if isinstance(one, Crystal) and "bulk_modulus_vrh_GPa" in one.properties
    ]
    crystals = [found[row] for row in np.random.default_rng(0).permutation(len(found))[:n]]
    y = [float(crystal.properties["bulk_modulus_vrh_GPa"]) for crystal in crystals]
    cards = {card.name: card for card in all_cards() if card.loader.startswith("scotl_matgl.encoders.matgl")}
    print(f"{n} crystals of {np.mean([len(crystal) for crystal in crystals]):.1f} atoms, {len(cards)} sources")
    for head in ("kernel ridge", "auto"):
        with tempfile.TemporaryDirectory() as home:
            os.environ["SCOTL_MATGL_HOME"] = home
            ranker = TransferabilityRanker(list(cards), head=head, on_error="raise")
            cold = seconds(ranker.fit, crystals, y)
            warm = seconds(ranker.fit, crystals, y)
        print(f"ranking, {head}: cold {cold:.1f} s, warm {warm:.1f} s", flush=True)
    encoding = {}
    for name, card in cards.items():
        with tempfile.TemporaryDirectory() as home:
            os.environ["SCOTL_MATGL_HOME"] = home
            encoder = card.load()
            encoding[name] = seconds(EmbeddingStore().encode, encoder, crystals, layers=("readout",))
    ratio = {}
    for name in TUNED:
        model = FullTransferRegressor(name, epochs=EPOCHS, patience=EPOCHS, device="cpu")
        tuned = seconds(model.fit, crystals, y)
        ratio[name.split("-")[0]] = tuned / encoding[name]
        print(f"{name}: encoding {encoding[name]:.2f} s, {EPOCHS} epochs of fine-tuning {tuned:.1f} s", flush=True)
    total = sum(spent * ratio.get(name.split("-")[0], ratio["M3GNet"]) for name, spent in encoding.items())
    print(f"all {len(cards)}: encoding {sum(encoding.values()):.1f} s; {EPOCHS} epochs, extrapolated: {total:.0f} s")


if __name__ == "__main__":
    warnings.simplefilter("ignore")  # of torch and DGL; what this package says is shown
    warnings.simplefilter("default", ScotlMatglWarning)
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 500)
