"""What the parts of the training objective do for a source: errors, alignment, and transfer to formation enthalpies.

    OMP_NUM_THREADS=1 python benchmarks/source_training.py [--crystals 4500] [--epochs 10]

Each line is one training of a small MEGNet on the same crystals with calculated formation energies, on one core. The
last two columns are the out-of-fold error of kernel ridge for measured formation enthalpies on the embedding of the
formulas, alone and beside the descriptors. Needs SCOTL_MATGL_ASSETS.
"""

from __future__ import annotations

import argparse
import os
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from scotl_matgl.chemistry.corpus import Corpus
from scotl_matgl.descriptors.composite import get_descriptor
from scotl_matgl.learners.heads import make_head
from scotl_matgl.tables.folds import make_folds
from scotl_matgl.training.settings import TrainingSettings
from scotl_matgl.training.source import train_source

PROPERTY = "formation_energy_eV_atom"
SMALL = {"hidden_layer_sizes_conv": (32,), "niters_set2set": 1}

VARIANTS: dict[str, dict[str, Any]] = {
    "default": {},
    "SCOTL's: alignment 0.1, threshold 0.01, no error from the formula": {
        "alignment_weight": 0.1,
        "threshold": 0.01,
        "composition_weight": 0.0,
    },
    "the same without threshold": {"alignment_weight": 0.1, "composition_weight": 0.0},
    "alignment 10, no error from the formula": {"alignment_weight": 10.0, "composition_weight": 0.0},
    "no alignment": {"alignment_weight": 0.0, "composition_weight": 1.0},
    "alignment 10": {"alignment_weight": 10.0, "composition_weight": 1.0},
    "alignment 100": {"alignment_weight": 100.0, "composition_weight": 1.0},
    "mean absolute error": {"loss": "mae"},
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--crystals", type=int, default=4500)
    parser.add_argument("--epochs", type=int, default=10)
    arguments = parser.parse_args()

    assets = Path(os.environ["SCOTL_MATGL_ASSETS"])
    corpus = Corpus.read(assets / "structures" / "crystals.json.gz")
    known = np.flatnonzero(np.isfinite(corpus.values(PROPERTY)))
    rows = np.random.default_rng(0).choice(known, min(arguments.crystals, len(known)), replace=False)
    crystals = Corpus(corpus[int(row)] for row in rows)
    table = pd.read_csv(assets / "targets" / "expt_formation_enthalpy.csv", keep_default_na=False)
    formulas, y = table.iloc[:, 0].tolist(), table.iloc[:, 1].to_numpy(np.float64)
    described = np.asarray(get_descriptor("standard").fit(formulas).transform(formulas))
    folds = make_folds(y, classification=False)

    print("| objective | MAE, crystal | MAE, formula | cosine | centred | transfer, alone | beside descriptors |")
    print("| --- | ---: | ---: | ---: | ---: | ---: | ---: |")
    for name, changes in VARIANTS.items():
        settings = TrainingSettings(
            property=PROPERTY, unit="eV/atom", network=SMALL, epochs=arguments.epochs, **changes
        )
        with tempfile.TemporaryDirectory() as folder:
            trained = train_source(crystals, settings, folder, device="cpu")
            Z = trained.card.load(path=folder).encode(formulas).astype(np.float64)
        Z = np.where(np.isnan(Z), np.nanmean(Z, axis=0), Z)  # elements that the few crystals lack
        errors = []
        for X in (Z, np.hstack([described, Z])):
            predicted = np.empty(len(y))
            for train, test in folds:
                predicted[test] = make_head("kernel ridge").fit(X[train], y[train]).predict(X[test])
            errors.append(np.abs(predicted - y).mean())
        report = trained.report
        print(
            f"| {name} | {report['mae_graph']:.3f} | {report['mae_composition']:.3f} | {report['cosine']:.3f} | "
            f"{report['cosine_centred']:.3f} | {errors[0]:.4f} | {errors[1]:.4f} |",
            flush=True,
        )


if __name__ == "__main__":
    main()
