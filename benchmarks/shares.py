"""What it changes to read brackets of alloys as shares: errors without transfer and first sources, on three tables.

    OMP_NUM_THREADS=1 python benchmarks/shares.py SHARED/targets

prints a line for each table and reading; the former reading multiplies what is in a bracket, as pymatgen does.
"""

from __future__ import annotations

import sys
import warnings
from pathlib import Path

import pandas as pd
from pymatgen.core import Composition

from scotl_matgl import TransferabilityRanker
from scotl_matgl.chemistry.compositions import parse_compositions

TABLES = ("bmg_bulk_modulus", "bmg_liquidus_temperature", "hea_single_phase")
SOURCES = ("Shotgun-BulkModulus-1", "Shotgun-FormationEnergy-1", "Shotgun-Mechanical-1", "Shotgun-All-1")


def main(folder: Path) -> None:
    warnings.filterwarnings("ignore")
    for name in TABLES:
        table = pd.read_csv(folder / f"{name}.csv", keep_default_na=False)
        shares = sum(note.count for note in parse_compositions(table["composition"], on_error="skip").notes)
        multiplied = [Composition(text).get_el_amt_dict() for text in table["composition"]]
        for reading, column in (("multiplied", multiplied), ("shares", table["composition"])):
            ranker = TransferabilityRanker(list(SOURCES), estimators=["loo"], on_error="skip", n_jobs=1)
            ranking = ranker.fit(column, table["target"]).ranking_
            first = ranking.results[0]
            print(f"{name} ({shares} shares), {reading}: {ranking.control.mean():.4f}, {first.source}", flush=True)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
