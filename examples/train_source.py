"""How is a source model trained on crystals of one's own, and what does it give for a table of formulas?

Needs SCOTL_MATGL_ASSETS, matgl and torch; half a minute of one core for 1,500 crystals and eight epochs, which is far
too little for a good source. The first argument is a folder for the result; a second run of a killed one goes on.
"""

from __future__ import annotations

import os
import sys
import tempfile
from itertools import islice
from pathlib import Path

from scotl_matgl import TransferabilityRanker, load_example
from scotl_matgl.chemistry.corpus import Corpus
from scotl_matgl.chemistry.crystal_files import read_crystals
from scotl_matgl.chemistry.crystals import Crystal
from scotl_matgl.training.settings import TrainingSettings
from scotl_matgl.training.source import train_source


def main(folder: str | Path) -> None:
    path = Path(os.environ["SCOTL_MATGL_ASSETS"]) / "structures" / "crystals.json.gz"
    crystals = Corpus(crystal for crystal in islice(read_crystals(path), 1500) if isinstance(crystal, Crystal))
    settings = TrainingSettings(property="formation_energy_eV_atom", unit="eV/atom", epochs=8)
    trained = train_source(crystals, settings, folder, name="Mine", resume=True)
    print(trained.card.notes)
    table = load_example()
    print(TransferabilityRanker(["MEGNet-MP-2018*", trained.install()]).fit(table["formula"], table["target"]).ranking_)


if __name__ == "__main__":
    if len(sys.argv) > 1:
        main(sys.argv[1])
    else:
        with tempfile.TemporaryDirectory() as temporary:
            main(temporary)
