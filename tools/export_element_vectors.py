"""Export principal components of the element vectors of elementembeddings, which the zoo ``elements`` is made of.

``python tools/export_element_vectors.py`` with elementembeddings 0.8.0 installed writes
``scotl_matgl/data/sources/elements.safetensors`` and the cards. Run it again when the test
``tests/test_sources.py::test_element_vectors_are_those_of_the_installed_package`` says that a vector changed.
"""

from __future__ import annotations

import csv
import importlib.util
import json
import sys
from importlib.metadata import version
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from scotl_matgl.chemistry.elements import SYMBOLS  # noqa: E402
from scotl_matgl.encoders.elements import write_vectors  # noqa: E402
from scotl_matgl.sources.cards import SourceCard  # noqa: E402

FILE = "elements.safetensors"
DATA = ROOT / "scotl_matgl" / "data"

#: Principal components that are kept.
N_COMPONENTS = 24

#: File of the package, name of the source, the model, what it was trained on, licence of the model, citation.
SETS = {
    "chgnet": (
        "CHGNet 0.3.0",
        "features of the last atom convolution",
        "MPtrj (Materials Project)",
        "BSD-3-Clause",
        "B. Deng et al., Nat. Mach. Intell. 5, 1031-1041 (2023), doi:10.1038/s42256-023-00716-3",
    ),
    "orb_v2": (
        "ORB v2",
        "features before the energy head",
        "MPtrj and Alexandria",
        "Apache-2.0",
        "M. Neumann et al., Orb: A Fast, Scalable Neural Network Potential (2024), arXiv:2410.22570",
    ),
    "chemeleon": (
        "Chemeleon-DNG",
        "features after message passing, without noise",
        "crystals of the Materials Project (MP-20, MP-40)",
        "MIT",
        "H. Park, A. Onwuli, A. Walsh, Nat. Commun. 16, 4379 (2025), doi:10.1038/s41467-025-59636-y",
    ),
    "mace_mp0": (
        "MACE-MP-0 (medium)",
        "invariant features of the last interaction",
        "MPtrj (Materials Project)",
        "MIT",
        "I. Batatia et al., A foundation model for atomistic materials chemistry (2023), arXiv:2401.00096",
    ),
    "sevennet": (
        "SevenNet-0",
        "scalars behind the last gate",
        "MPtrj (Materials Project)",
        "MIT",
        "Y. Park et al., J. Chem. Theory Comput. 20, 4857 (2024), doi:10.1021/acs.jctc.4c00190",
    ),
}
NAMES = {
    "chgnet": "Elements-CHGNet",
    "orb_v2": "Elements-ORB-v2",
    "chemeleon": "Elements-Chemeleon",
    "mace_mp0": "Elements-MACE-MP-0",
    "sevennet": "Elements-SevenNet-0",
}


def components(name: str) -> tuple[NDArray[np.int16], NDArray[np.float64]]:
    """Atomic numbers, and the first principal components of the vectors of one file of the package."""
    found = importlib.util.find_spec("elementembeddings")
    if found is None or not found.submodule_search_locations:
        raise SystemExit("elementembeddings is missing: pip install elementembeddings==0.8.0")
    folder = Path(next(iter(found.submodule_search_locations))) / "data" / "element_representations"
    with (folder / f"{name}.csv").open(newline="") as file:
        header, *rows = list(csv.reader(file))
    if header[0] != "element":
        raise SystemExit(f"{name}.csv begins with the column {header[0]!r}, not with 'element'")
    numbers = np.array([SYMBOLS.index(row[0]) + 1 for row in rows], dtype=np.int16)
    vectors = np.array([[float(cell) for cell in row[1:]] for row in rows])
    centred = vectors - vectors.mean(axis=0)
    left, sizes, _ = np.linalg.svd(centred, full_matrices=False)
    scores = (left * sizes)[:, :N_COMPONENTS]
    # The sign of a component is free: the largest entry is positive.
    signs = np.sign(scores[np.abs(scores).argmax(axis=0), np.arange(scores.shape[1])])
    return numbers, scores * signs


def main() -> None:
    """Write vectors and cards."""
    vectors = {name: components(name) for name in SETS}
    path = DATA / "sources" / FILE
    sha256 = write_vectors(path, vectors)
    cards = []
    for name, (model, features, data, licence, citation) in SETS.items():
        numbers, values = vectors[name]
        card = SourceCard(
            name=NAMES[name],
            zoo="elements",
            modality="composition",
            property="features of the elements in an interatomic potential"
            if name != "chemeleon"
            else "features of the elements in a generative model",
            unit="1",
            dataset=f"{data}; vectors averaged over the crystals of MP-20",
            architecture=f"element vectors of {model}",
            layers={"readout": 2 * values.shape[1]},
            loader="scotl_matgl.encoders.elements:load",
            licence=f"MIT (elementembeddings, which the vectors come from); model: {licence}",
            citation=f"{citation}; A. Onwuli et al., Digital Discovery 2, 1558-1564 (2023), doi:10.1039/D3DD00121K",
            options={"vectors": name},
            weights={FILE: sha256},
            parameters=int(values.size),
            elements=[SYMBOLS[z - 1] for z in numbers.tolist()],
            notes=(
                f"From elementembeddings {version('elementembeddings')}. {values.shape[1]} principal components "
                f"of the {features} of {model}, averaged over the atoms of each element; "
                "the layer is their mean and standard deviation over the formula"
            ),
        )
        cards.append(card.to_dict())
    text = json.dumps(cards, indent=1, ensure_ascii=False) + "\n"
    (DATA / "cards" / "own" / "elements.json").write_text(text, encoding="utf-8")
    print(f"{path}: {path.stat().st_size / 1000:.0f} kB")


if __name__ == "__main__":
    main()
