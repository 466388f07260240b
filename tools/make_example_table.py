"""Write the bundled example table from the measured formation energies that pymatgen carries.

Run it as ``python tools/make_example_table.py``; it overwrites ``scotl_matgl/data/tables/formation_enthalpy.csv``.
Kept are compounds with a known uncertainty of at most 0.05 eV/atom; the values, eV per formula unit in the file of
pymatgen, are divided by the number of atoms.
"""

from __future__ import annotations

import csv
import gzip
import json
import math
from importlib import resources
from pathlib import Path

from scotl_matgl.chemistry.compositions import parse_compositions

TARGET = Path(__file__).parent.parent / "scotl_matgl" / "data" / "tables" / "formation_enthalpy.csv"
LARGEST_UNCERTAINTY = 0.05


def main() -> None:
    """Write the table."""
    source = resources.files("pymatgen.analysis.compatibility") / "exp_compounds.json.gz"
    records = json.loads(gzip.decompress(source.read_bytes()))
    compositions = parse_compositions([record["formula"] for record in records])
    rows = {}
    for index, (key, record) in enumerate(zip(compositions.keys(), records, strict=True)):
        n_atoms = compositions[index][1].sum()
        uncertainty = record["uncertainty"] / n_atoms if record["uncertainty"] is not None else math.nan
        if uncertainty <= LARGEST_UNCERTAINTY:
            rows.setdefault(key, (record["formula"], f"{record['exp energy'] / n_atoms:.4f}", f"{uncertainty:.4f}"))
    with TARGET.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(["formula", "target", "uncertainty"])
        writer.writerows(sorted(rows.values()))


if __name__ == "__main__":
    main()
