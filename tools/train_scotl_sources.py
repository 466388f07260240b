"""Train the SCOTL source models that come with the package, and put weights and cards into its folders.

    OMP_NUM_THREADS=1 python tools/train_scotl_sources.py --structures crystals.json.gz --work FOLDER [--only NAME]

Resumable: a finished training is read, a killed one goes on. About two and a half minutes of CPU a source.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import time
from pathlib import Path
from typing import Any

from scotl_matgl.chemistry.corpus import Corpus
from scotl_matgl.encoders.composition import source_folders
from scotl_matgl.sources.zoo import card_folder
from scotl_matgl.storage import write_whole
from scotl_matgl.training.settings import TrainingSettings
from scotl_matgl.training.source import train_source

#: Small enough for minutes of one core.
COMMON = {
    "network": {"hidden_layer_sizes_conv": (32,), "niters_set2set": 1},
    "hidden": (256,),
    "alignment_weight": 10.0,
    "composition_weight": 1.0,
    "epochs": 16,
}
SOURCES: dict[str, dict[str, Any]] = {
    "SCOTL-MEGNet-Eform": {"property": "formation_energy_eV_atom", "unit": "eV/atom"},
    "SCOTL-MEGNet-PBEGap": {"property": "pbe_gap_eV", "unit": "eV"},
    "SCOTL-MEGNet-HSEGap": {"property": "hse_gap_eV", "unit": "eV", "epochs": 60},
}
#: How the cards name the properties.
LABELS = {
    "formation_energy_eV_atom": "formation energy",
    "pbe_gap_eV": "band gap (PBE)",
    "hse_gap_eV": "band gap (HSE)",
}
DATASET = (
    "Materials Project crystals collected for this project (data/structures of its assets), lowest energy a formula"
)


LICENCE = "BSD-3-Clause; trained on data of the Materials Project (CC BY 4.0)"


def main() -> None:
    """Train what is not trained yet, and ship it."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--structures", type=Path, required=True)
    parser.add_argument("--work", type=Path, required=True, help="folder for checkpoints and results")
    parser.add_argument("--only", default="", help="sources whose name contains this")
    arguments = parser.parse_args()
    corpus = Corpus.read(arguments.structures)
    shipped = card_folder() / "own" / "scotl.json"
    cards = {card["name"]: card for card in (json.loads(shipped.read_text()) if shipped.is_file() else [])}
    for name, task in SOURCES.items():
        if arguments.only not in name:
            continue
        started = time.process_time()
        settings = TrainingSettings(**{**COMMON, **task})
        trained = train_source(corpus, settings, arguments.work / name, name=name, resume=True)
        (file,) = trained.card.weights
        write_whole(source_folders()[-1] / file, (trained.folder / file).read_bytes())
        card = dataclasses.replace(trained.card, property=LABELS[settings.property], dataset=DATASET, licence=LICENCE)
        before = cards.get(name, {})
        # Its training formulas stay those that tools/list_training_formulas.py wrote.
        cards[name] = card.to_dict() | {key: before[key] for key in ("training_sets",) if key in before}
        text = json.dumps([cards[known] for known in SOURCES if known in cards], indent=1, ensure_ascii=False)
        write_whole(shipped, (text + "\n").encode())
        print(f"{name}: {trained.card.notes} {time.process_time() - started:.0f} s of CPU", flush=True)


if __name__ == "__main__":
    main()
