"""What training a whole source on gains, for bulk moduli and refractive indices of crystals.

    python benchmarks/full_training.py bulk_modulus_vrh_GPa --rows 120 --draws 5

Mean absolute errors of log10 of the property on 200 other crystals of at most twelve atoms. Needs SCOTL_MATGL_ASSETS,
matgl on DGL and torch; a minute for a draw of 120 crystals on one core.
"""

from __future__ import annotations

import argparse
import os
from pathlib import Path

import numpy as np
from sklearn.ensemble import ExtraTreesRegressor

from scotl_matgl import FullTransferRegressor, TransferRegressor
from scotl_matgl.chemistry.crystal_files import read_crystals
from scotl_matgl.chemistry.crystals import Crystal
from scotl_matgl.encoders.base import graph_or_reason
from scotl_matgl.sources.cards import all_cards, select

SOURCE = "MEGNet-MP-2018.6.1-Eform"
METHODS = {
    "frozen, ridge": {"epochs": 0},
    "last layers": {"freeze": 3},
    "full, new head": {},
    "full, own head": {"reinitialise_head": False},
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("property")
    parser.add_argument("--rows", type=int, default=120)
    parser.add_argument("--draws", type=int, default=5)
    options = parser.parse_args()
    encoder = select(all_cards(), SOURCE)[0].load()
    found = [
        crystal
        for crystal in read_crystals(Path(os.environ["SCOTL_MATGL_ASSETS"]) / "structures" / "crystals.json.gz")
        if isinstance(crystal, Crystal)
        and crystal.properties.get(options.property, 0) > 0
        and len(crystal) <= 12
        and not isinstance(graph_or_reason(crystal, encoder.elements, encoder.cutoff), str)
    ]
    n = options.rows
    for draw in range(options.draws):
        order = np.random.default_rng(draw).permutation(len(found))[: n + 200]
        crystals = [found[row] for row in order]
        formulas = [crystal.to_structure().composition.reduced_formula for crystal in crystals]
        y = np.log10([crystal.properties[options.property] for crystal in crystals])
        Z = encoder.encode(crystals).astype(np.float64)
        predicted = {
            "mean": np.full(200, y[:n].mean()),
            "descriptors": TransferRegressor(()).fit(formulas[:n], y[:n]).predict(formulas[n:]),
            "formulas": TransferRegressor(SOURCE).fit(formulas[:n], y[:n]).predict(formulas[n:]),
            "crystals": TransferRegressor(SOURCE, method="full").fit(crystals[:n], y[:n]).predict(crystals[n:]),
            "frozen, trees": ExtraTreesRegressor(300, random_state=0).fit(Z[:n], y[:n]).predict(Z[n:]),
        }
        for name, parameters in METHODS.items():
            predicted[name] = FullTransferRegressor(SOURCE, **parameters).fit(crystals[:n], y[:n]).predict(crystals[n:])
        errors = ", ".join(f"{name} {np.abs(values - y[n:]).mean():.4f}" for name, values in predicted.items())
        print(f"draw {draw}: {errors}", flush=True)


if __name__ == "__main__":
    main()
