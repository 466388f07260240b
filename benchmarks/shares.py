"""What it changes to read brackets of alloys as shares: errors without transfer on three tables, on the same folds.

    OMP_NUM_THREADS=1 python benchmarks/shares.py SHARED/targets

prints a line for each table; the former reading multiplies what is in a bracket, as pymatgen does.
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pandas as pd
from pymatgen.core import Composition
from sklearn.ensemble import ExtraTreesRegressor
from sklearn.model_selection import RepeatedKFold

from scotl_matgl.chemistry.compositions import parse_compositions
from scotl_matgl.descriptors.composite import StandardDescriptor

TABLES = ("bmg_bulk_modulus", "bmg_liquidus_temperature", "hea_single_phase")


def main(folder: Path) -> None:
    for name in TABLES:
        table = pd.read_csv(folder / f"{name}.csv", keep_default_na=False)
        y = table["target"].to_numpy(dtype=float)
        readings = (
            parse_compositions([Composition(text).get_el_amt_dict() for text in table["composition"]]),
            parse_compositions(table["composition"]),
        )
        changed = np.array(readings[0].keys()) != np.array(readings[1].keys())
        columns = [StandardDescriptor().fit(reading).transform(reading) for reading in readings]
        errors = np.zeros((3, 2, len(y)))
        for fold, (train, test) in enumerate(RepeatedKFold(n_splits=5, n_repeats=3, random_state=0).split(y)):
            for which, X in enumerate(columns):
                forest = ExtraTreesRegressor(100, random_state=fold, n_jobs=1).fit(X[train], y[train])
                errors[fold // 5, which, test] = np.abs(forest.predict(X[test]) - y[test])
        mean = errors.mean(axis=0)
        gain = mean[1] - mean[0]
        deviation = gain.std(ddof=1) / np.sqrt(len(y))
        print(
            f"{name}: {changed.sum()} of {len(y)} rows read as shares; multiplied {mean[0].mean():.4f}, "
            f"shares {mean[1].mean():.4f}, difference {gain.mean():+.4f} +- {deviation:.4f}; "
            f"those rows {mean[0][changed].mean():.4f}, {mean[1][changed].mean():.4f}",
            flush=True,
        )


if __name__ == "__main__":
    main(Path(sys.argv[1]))
