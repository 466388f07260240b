"""Does it pay to train a whole source on, where the table has crystals and not formulas alone?

Bulk moduli (log10 of GPa) of 120 crystals, errors on 200 others. Needs SCOTL_MATGL_ASSETS, matgl on DGL and torch; half
a minute of one core.
"""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np

from scotl_matgl import FullTransferRegressor
from scotl_matgl.chemistry.corpus import Corpus
from scotl_matgl.chemistry.crystal_files import read_crystals
from scotl_matgl.chemistry.crystals import Crystal
from scotl_matgl.encoders.base import graph_or_reason
from scotl_matgl.sources.cards import all_cards, select

PROPERTY = "bulk_modulus_vrh_GPa"


def main() -> None:
    path = Path(os.environ["SCOTL_MATGL_ASSETS"]) / "structures" / "crystals.json.gz"
    encoder = select(all_cards(), "MEGNet-MP-2018.6.1-Eform")[0].load()
    found = [
        crystal
        for crystal in read_crystals(path)
        if isinstance(crystal, Crystal)
        and crystal.properties.get(PROPERTY, 0) > 0
        and len(crystal) <= 12
        # In some, atoms have no neighbour within the cut-off; the model would skip them with a warning.
        and not isinstance(graph_or_reason(crystal, encoder.elements, encoder.cutoff), str)
    ]
    drawn = np.random.default_rng(0).permutation(len(found))[:320]
    crystals = Corpus(found[row] for row in drawn)
    y = np.log10(crystals.values(PROPERTY))
    print(f"mean of the known ones: mean absolute error {np.abs(y[120:] - y[:120].mean()).mean():.3f}")
    for name, parameters in (
        ("frozen embedding and ridge regression", {"epochs": 0}),
        ("last layers alone trained on", {"freeze": 3}),
        ("all trained on, new head", {}),
        ("all trained on, head of the source", {"reinitialise_head": False}),
    ):
        model = FullTransferRegressor(**parameters).fit(crystals[:120], y[:120])
        error = np.abs(model.predict(crystals[120:]) - y[120:]).mean()
        print(f"{name}: mean absolute error {error:.3f}, weights of epoch {model.n_epochs_}")


if __name__ == "__main__":
    main()
