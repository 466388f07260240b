"""Export matminer's and pymatgen's element tables to scotl_matgl/data/element_tables.npz, which descriptors read.

Importing matminer takes about five seconds, reading this file a few milliseconds. Run it again when the test
``tests/test_descriptors.py::test_shipped_tables_are_those_of_the_installed_matminer`` says that a table changed::

    python tools/export_element_tables.py

The file is a zip of plain arrays (no pickles). Per preset: ``<preset>/values`` (118, p) as matminer gives them with
``impute_nan=False``, NaN where it has none; ``<preset>/imputed_index`` and ``<preset>/imputed_values``, the flat
positions and values that differ with ``impute_nan=True``; ``<preset>/undefined`` (118,), True where matminer raises
instead of returning NaN. ``oxidation_states`` and ``oxidation_offsets`` are pymatgen's common oxidation states, element
Z at ``[offsets[Z - 1]:offsets[Z]]``. ``meta`` is UTF-8 JSON: names, statistics, versions, licences.
"""

from __future__ import annotations

import json
import warnings
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np

PRESETS = ("magpie", "deml", "matscholar_el", "megnet_el", "matminer")
OUTPUT = Path(__file__).resolve().parents[1] / "scotl_matgl" / "data" / "element_tables.npz"


def preset_arrays(preset: str) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    """Names and arrays of one ElementProperty preset, read element by element through matminer's own look-up."""
    from matminer.featurizers.composition import ElementProperty
    from pymatgen.core import Element

    tables = {}
    undefined = np.zeros(118, dtype=bool)
    for impute_nan in (False, True):
        featurizer = ElementProperty.from_preset(preset, impute_nan=impute_nan)
        table = np.full((118, len(featurizer.features)), np.nan)
        for row in range(118):
            for column, name in enumerate(featurizer.features):
                try:
                    table[row, column] = featurizer.data_source.get_elemental_property(Element.from_Z(row + 1), name)
                except KeyError:
                    if impute_nan:
                        raise
                    undefined[row] = True
        tables[impute_nan] = table
    raw, imputed = tables[False], tables[True]
    if np.isnan(imputed).any():
        raise ValueError(
            f"matminer's preset {preset!r} leaves NaN in its imputed table: the file format has no place for it"
        )
    index = np.flatnonzero(raw != imputed)  # NaN differs from everything, as it should here
    described = {
        "source": type(featurizer.data_source).__name__,
        "properties": list(featurizer.features),
        "statistics": list(featurizer.stats),
    }
    arrays = {
        f"{preset}/values": raw,
        f"{preset}/imputed_index": index.astype(np.int32),
        f"{preset}/imputed_values": imputed.ravel()[index],
        f"{preset}/undefined": undefined,
    }
    return described, arrays


def build() -> dict[str, np.ndarray]:
    """Every array of the file, from the installed matminer and pymatgen."""
    from pymatgen.core import Element

    presets, arrays = {}, {}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # pymatgen says for each element what it has no value for
        for preset in PRESETS:
            presets[preset], found = preset_arrays(preset)
            arrays |= found
    states = [Element.from_Z(z).common_oxidation_states for z in range(1, 119)]
    arrays["oxidation_states"] = np.array([charge for element in states for charge in element], dtype=np.int8)
    arrays["oxidation_offsets"] = np.cumsum([0, *map(len, states)]).astype(np.int32)
    meta = {
        "format": 1,
        "presets": presets,
        "versions": {name: version(name) for name in ("matminer", "pymatgen")},
        "licences": "matminer: modified BSD, The Regents of the University of California; pymatgen: MIT",
    }
    arrays["meta"] = np.frombuffer(json.dumps(meta, sort_keys=True).encode(), dtype=np.uint8)
    return arrays


if __name__ == "__main__":
    np.savez_compressed(OUTPUT, **build())
    print(f"{OUTPUT}: {OUTPUT.stat().st_size / 1000:.0f} kB")
