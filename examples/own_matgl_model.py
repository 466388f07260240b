"""How is a model that MatGL's own trainer has just made ranked beside the published ones?

Needs SCOTL_MATGL_ASSETS and matgl; under two minutes of two cores. It trains a small MEGNet on 500 crystals, which is
far too little for a good source, and ranks it for a table of formulas and for one of crystals with bulk moduli. The
lines between the two rules are all that scotl_matgl asks for. The first argument is where sources are kept; without it,
a folder that is deleted at the end.
"""

from __future__ import annotations

import os
import sys
import tempfile
from itertools import islice
from pathlib import Path
from typing import Any

from scotl_matgl import Corpus, SourceCard, TransferabilityRanker, get_descriptor, load_example
from scotl_matgl.bridges.build import build_bridge
from scotl_matgl.chemistry.crystal_files import read_crystals
from scotl_matgl.chemistry.crystals import Crystal
from scotl_matgl.encoders.weights import pick_backend


def train(crystals: Corpus, values: list[float]) -> Any:
    """Train as MatGL's tutorials do; the module of Lightning knows the scaling of the target."""
    pick_backend().import_matgl()  # before matgl 4, its backend must be chosen before it is imported
    import lightning
    from matgl.ext.pymatgen import Structure2Graph, get_element_list
    from matgl.graph.data import MGLDataLoader, MGLDataset, collate_fn_graph
    from matgl.models import MEGNet
    from matgl.utils.training import ModelLightningModule

    structures = [crystal.to_structure() for crystal in crystals]
    elements = get_element_list(structures)
    lightning.seed_everything(0, verbose=False)
    data = MGLDataset(
        structures=structures,
        labels={"formation energy": values},
        converter=Structure2Graph(element_types=elements, cutoff=4.0),
        save_cache=False,
    )
    loaders = MGLDataLoader(train_data=data, val_data=data, collate_fn=collate_fn_graph, batch_size=32, num_workers=0)
    network = MEGNet(element_types=elements, cutoff=4.0, dim_edge_embedding=40)
    mean = sum(values) / len(values)
    module = ModelLightningModule(model=network, data_mean=mean, data_std=1.0, lr=2e-3)
    trainer = lightning.Trainer(
        max_epochs=10, accelerator="cpu", logger=False, enable_checkpointing=False, enable_progress_bar=False,
        enable_model_summary=False, limit_val_batches=0,
    )  # fmt: skip
    trainer.fit(module, *loaders)
    return module


def main(home: str | Path) -> None:
    os.environ["SCOTL_MATGL_HOME"] = str(home)
    path = Path(os.environ["SCOTL_MATGL_ASSETS"]) / "structures" / "crystals.json.gz"
    read = (crystal for crystal in islice(read_crystals(path), 1500) if isinstance(crystal, Crystal))
    crystals = Corpus(islice((crystal for crystal in read if len(crystal) <= 12), 500)).one_per_formula()
    module = train(crystals, crystals.values("formation_energy_eV_atom").tolist())
    table = load_example()
    measured = [crystal for crystal in crystals if "bulk_modulus_vrh_GPa" in crystal.properties]
    moduli = [crystal.properties["bulk_modulus_vrh_GPa"] for crystal in measured]
    # ------------------------------------------------------------------------------------------------------------------
    card = SourceCard.from_matgl(module, name="My-MEGNet", property="formation energy", unit="eV/atom", replace=True)
    build_bridge(card, crystals, get_descriptor("standard"), bridge="ridge")
    ranker = TransferabilityRanker(["My-MEGNet", "MEGNet*"]).fit(table["formula"], table["target"])
    of_crystals = TransferabilityRanker(["My-MEGNet", "MEGNet-MP*"]).fit(measured, moduli)
    # ------------------------------------------------------------------------------------------------------------------
    print(ranker.ranking_)
    print(of_crystals.ranking_)


if __name__ == "__main__":
    if len(sys.argv) > 1:
        main(sys.argv[1])
    else:
        with tempfile.TemporaryDirectory() as temporary:
            main(temporary)
