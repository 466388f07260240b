"""What the shipped sources add on measured tables: kernel ridge on descriptors beside each embedding, out of fold.

``python benchmarks/own_sources.py TABLE ...``, tables being names in ``$SCOTL_MATGL_ASSETS/targets``; prints lines of
docs/measurements.md. At most 500 rows a table, rows of equal composition merged, no look-up; about 5 s a table.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

import numpy as np
import pandas as pd

from scotl_matgl.bridges.embedding import embed_source
from scotl_matgl.chemistry.compositions import parse_compositions
from scotl_matgl.descriptors.composite import StandardDescriptor
from scotl_matgl.descriptors.described import Described
from scotl_matgl.learners.kernel import kernel_out_of_fold, manhattan
from scotl_matgl.sources.cards import all_cards
from scotl_matgl.tables.files import read_table
from scotl_matgl.tables.folds import make_folds

MAX_ROWS = 500


def measure(path: Path) -> str:
    table = read_table(path, formula="composition", target="target")
    compositions = parse_compositions(table["composition"], on_error="skip")
    target = pd.to_numeric(table["target"], errors="coerce").to_numpy(dtype=np.float64)[compositions.rows]
    medians = pd.Series(target, index=compositions.keys()).dropna().groupby(level=0, sort=False).median()
    keys = list(compositions.keys())
    compositions = compositions.take([keys.index(key) for key in medians.index])
    rows = np.sort(np.random.default_rng(0).choice(len(medians), min(MAX_ROWS, len(medians)), replace=False))
    compositions, y = compositions.take(rows), medians.to_numpy()[rows]
    described = Described.of(compositions, StandardDescriptor())
    distances = manhattan(described.X)
    folds = make_folds(y, classification=False)

    def error(total: np.ndarray) -> float:
        return float(np.abs(kernel_out_of_fold(total, y[:, None], folds)[0][:, 0] - y).mean())

    control = error(distances)
    gains: dict[str, float] = {}
    for card in all_cards():
        try:
            ((_, embedded),) = embed_source(card, described, look_up=False)["readout"]
        except ValueError as reason:  # no bridge, or every formula refused
            print(f"{path.stem}: {card.name}: {reason}", file=sys.stderr)
            continue
        gains[card.name] = 100 * (1 - error(distances + manhattan(embedded.values)) / control)
    order = sorted(gains, key=lambda name: -gains[name])
    own = next(name for name in order if name.startswith("Shotgun-"))
    other = next(name for name in order if not name.startswith("Shotgun-"))
    return (
        f"| {path.stem} | {len(y)} | {control:.4g} | {other} {gains[other]:.1f} % | "
        f"{own.removeprefix('Shotgun-')} {gains[own]:.1f} % | {order.index(own) + 1} of {len(order)} |"
    )


if __name__ == "__main__":
    for name in sys.argv[1:]:
        print(measure(Path(os.environ["SCOTL_MATGL_ASSETS"]) / "targets" / f"{name}.csv"), flush=True)
