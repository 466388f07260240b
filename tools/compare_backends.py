"""Do MatGL on DGL and MatGL on PyG give the same embeddings? Store those of one environment, compare in the other.

    .venv/bin/python tools/compare_backends.py store /tmp/dgl.npz          # 40 crystals of the corpus, all layers
    .venv-pyg/bin/python tools/compare_backends.py compare /tmp/dgl.npz
    .venv/bin/python tools/compare_backends.py record tests/data/matgl_embeddings.json   # what the tests hold both to

SCOTL_MATGL_ASSETS names the folder of the weights and of the corpus. Both take a minute on one core.
"""

from __future__ import annotations

import argparse
import gzip
import json
import os
from pathlib import Path

import numpy as np

from scotl_matgl.chemistry.crystals import Crystal
from scotl_matgl.encoders.matgl import load
from scotl_matgl.encoders.probes import reference_crystals, versions
from scotl_matgl.sources import zoo

ASSETS = Path(os.environ.get("SCOTL_MATGL_ASSETS", "../shared/data"))
LIMIT = 1e-4


def corpus_crystals(count: int) -> list[object]:
    """Crystals of up to 40 atoms, drawn from the corpus with a fixed seed, as pymatgen structures."""
    from pymatgen.core import Structure

    with gzip.open(ASSETS / "structures" / "crystals.json.gz", "rt") as file:
        records = json.load(file)
    rows = np.random.default_rng(2026).permutation(len(records))
    chosen = [records[row]["structure"] for row in rows if records[row]["natoms"] <= 40][:count]
    return [Structure.from_str(text, fmt="poscar") for text in chosen]


def recorded_crystals() -> list[Crystal]:
    """The reference crystals, and two without any symmetry: in the others, what is antisymmetric vanishes."""
    triclinic = Crystal(
        lattice=[[4.1, 0.2, -0.3], [0.5, 5.3, 0.4], [-0.2, 0.9, 6.1]],
        frac_coords=[[0.02, 0.01, 0.03], [0.48, 0.55, 0.27], [0.21, 0.52, 0.71], [0.77, 0.08, 0.55]],
        numbers=[22, 8, 38, 16],
        identifier="triclinic",
    )
    chain = Crystal(
        lattice=[[3.0, 0.0, 0.1], [1.1, 3.9, 0.0], [0.3, 0.7, 4.6]],
        frac_coords=[[0.0, 0.0, 0.0], [0.52, 0.47, 0.41], [0.13, 0.61, 0.79]],
        numbers=[26, 15, 3],
        identifier="oblique",
    )
    return [*reference_crystals().values(), triclinic, chain]


def record(path: Path) -> None:
    """Write crystals, and of every layer of every source some components on them and the largest value."""
    crystals, sources = recorded_crystals(), {}
    for card in zoo.matgl():
        encoder = load(card, ASSETS / "models" / "matgl" / str(card.options["directory"]))
        sources[card.name] = layers = {}
        for layer, values in encoder.encode_layers(crystals, layers=encoder.layers).embeddings.items():
            columns = sorted({round(column) for column in np.linspace(0, values.shape[1] - 1, 7)})
            layers[layer] = {
                "largest": float(f"{np.abs(values).max():.6g}"),
                "columns": columns,
                "values": [[float(f"{value:.7g}") for value in row[columns]] for row in values],
            }
    cells = [
        {"lattice": c.lattice.tolist(), "frac_coords": c.frac_coords.tolist(), "numbers": c.numbers.tolist()}
        for c in crystals
    ]
    lines = ",\n".join(f"{json.dumps(name)}: {json.dumps(layers)}" for name, layers in sources.items())
    head = f'"versions": {json.dumps(versions())},\n"crystals": {json.dumps(cells)}'
    path.parent.mkdir(exist_ok=True)
    path.write_text(f'{{{head},\n"sources": {{\n{lines}\n}}}}\n', encoding="utf-8")


def store(path: Path) -> None:
    """Write all layers of all sources on crystals of the corpus."""
    crystals = corpus_crystals(40)
    arrays = {}
    for card in zoo.matgl():
        encoder = load(card, ASSETS / "models" / "matgl" / str(card.options["directory"]))
        for layer, values in encoder.encode_layers(crystals, layers=encoder.layers).embeddings.items():
            arrays[f"{card.name}/{layer}"] = values
    np.savez(path, **arrays)


def compare(path: Path) -> None:
    """Print the largest difference of every layer relative to its largest value; fail above 1e-4."""
    print(", ".join(f"{package} {version}" for package, version in versions().items()))
    crystals, worst = corpus_crystals(40), 0.0
    with np.load(path) as stored:
        for card in zoo.matgl():
            encoder = load(card, ASSETS / "models" / "matgl" / str(card.options["directory"]))
            found = encoder.encode_layers(crystals, layers=encoder.layers)
            differences = {}
            for layer, values in found.embeddings.items():
                expected = stored[f"{card.name}/{layer}"]
                np.testing.assert_array_equal(np.isnan(values), np.isnan(expected))
                differences[layer] = float(np.nanmax(np.abs(values - expected)) / np.nanmax(np.abs(expected)))
            worst = max(worst, *differences.values())
            cells = " ".join(f"{layer} {difference:.1e}" for layer, difference in differences.items())
            print(f"{card.name:42s} {len(crystals) - len(found.refused)} crystals: {cells}")
    if not worst < LIMIT:
        raise SystemExit(f"the largest difference is {worst:.1e}, above {LIMIT:g}")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("task", choices=["store", "compare", "record"])
    parser.add_argument("path", type=Path)
    arguments = parser.parse_args()
    {"store": store, "compare": compare, "record": record}[arguments.task](arguments.path)
