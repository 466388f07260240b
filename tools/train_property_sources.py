"""Train composition sources of calculated properties that the other sources lack, and write those that are shipped.

    OMP_NUM_THREADS=1 python tools/train_property_sources.py [--work FOLDER]

reads the tables of calculated properties and the crystals of SCOTL_MATGL_ASSETS, cleans them, trains one network a
property and one a family of kindred properties (twenty minutes of one core; a network that is finished is not trained
again), and writes ``scotl_matgl/data/sources/properties.safetensors``, its manifest and the cards. Needs torch and the
plugin scotl-matgl-shotgun.
"""

from __future__ import annotations

import argparse
import csv
import gzip
import hashlib
import json
import os
import sys
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / "plugins" / "scotl-matgl-shotgun")]

from scotl_matgl_shotgun import train_network  # noqa: E402

from scotl_matgl.bridges.base import split_by_group  # noqa: E402 - found on the path set above
from scotl_matgl.chemistry.compositions import Compositions, parse_compositions  # noqa: E402
from scotl_matgl.chemistry.corpus import Corpus  # noqa: E402
from scotl_matgl.chemistry.elements import SYMBOLS  # noqa: E402
from scotl_matgl.descriptors.composite import get_descriptor  # noqa: E402
from scotl_matgl.encoders.composition import NETWORKS_FILE, network_card, write_networks  # noqa: E402
from scotl_matgl.encoders.composition import load as load_network  # noqa: E402
from scotl_matgl.encoders.network import Network  # noqa: E402
from scotl_matgl.sources.cards import SourceCard  # noqa: E402
from scotl_matgl.storage import home, installed_versions, read_tensors, write_whole  # noqa: E402

Floats = NDArray[np.float64]

DATA = ROOT / "scotl_matgl" / "data"
FILE = "properties.safetensors"
DESCRIPTOR = "standard"
HELD_OUT, SPLIT_SEED, SEED = 0.2, 0, 0

#: Of the weights that are shipped.
DTYPE = "int8"

#: Hidden layers of a network of one property, and of a family.
SINGLE, KINDRED = (96, 64, 32), (160, 96, 48)
ACTIVATION = "silu"
#: Passes over n rows, so that the small tables are seen often enough; at least and at most.
STEPS, FEWEST_PASSES, MOST_PASSES = 4000, 20, 80

#: Values further from the median than so many quartile ranges are errors.
FAR = 6.0

#: Short name for the card, and what to cite.
ORIGINS = {
    "JARVIS-DFT": (
        "K. Choudhary et al., npj Comput. Mater. 6, 173 (2020), doi:10.1038/s41524-020-00440-1",
        "V. Gupta et al., Nat. Commun. 12, 6595 (2021), doi:10.1038/s41467-021-26921-5",
    ),
    "AFLOW": (
        "S. Curtarolo et al., Comput. Mater. Sci. 58, 218 (2012), doi:10.1016/j.commatsci.2012.02.005",
        "C. L. Clement, S. K. Kauwe, T. D. Sparks, Integr. Mater. Manuf. Innov. 9, 153 (2020)",
    ),
    "Materials Project": ("A. Jain et al., APL Mater. 1, 011002 (2013), doi:10.1063/1.4812323",),
    "dielectric constants of the Materials Project": (
        "I. Petousis et al., Sci. Data 4, 160134 (2017), doi:10.1038/sdata.2016.134",
    ),
    "piezoelectric tensors of the Materials Project": (
        "M. de Jong et al., Sci. Data 2, 150053 (2015), doi:10.1038/sdata.2015.53",
    ),
    "phonons of Alexandria's binaries (data of MatCalc's benchmark)": (
        "J. Schmidt et al., Mater. Today Phys. 48, 101560 (2024)",
    ),
}
JARVIS, AFLOW, MP, PETOUSIS, DE_JONG, ALEXANDRIA = ORIGINS
LICENCE = (
    "BSD-3-Clause (this project's own weights); trained on calculated values that their authors released, see dataset"
)
#: Sets of hypothetical perovskites: their structures say nothing of compounds that were made.
HYPOTHETICAL = ("kaistperov-", "perov5-")


def _log10(values: Floats) -> Floats:
    return np.log10(values)


def _log1p(values: Floats) -> Floats:
    return np.log10(1 + values)


def _root(values: Floats) -> Floats:
    return np.sqrt(values)


@dataclass(frozen=True)
class Property:
    """A calculated property, and the scale on which it is learned.

    Attributes
    ----------
    name : str
        Of its source, and of its column.
    key : str
        File of ``properties/`` without its end, property of the crystals, or one of :data:`FACTS`.
    meaning, unit : str
        For the card, with the scale.
    origin : str
        One of :data:`ORIGINS`.
    scale : callable, optional
        From values to what is learned.
    limits : pair of float
        Values outside (in the unit of the file) are dropped.
    note : str
        What a user should know.
    alone : bool
        Whether it has a network of its own: what is known of few materials, or does not follow from the formula, is
        learned in families only (the networks alone had R2 below 0.1 on held-out chemical systems).
    """

    name: str
    key: str
    meaning: str
    unit: str
    origin: str
    scale: Callable[[Floats], Floats] | None = None
    limits: tuple[float, float] = (-np.inf, np.inf)
    note: str = ""
    alone: bool = True


_SAME = (
    "the files released for electrons and holes are the same one, so that it is not known which carriers the values "
    "are of"
)
_SWAPPED = (
    "the two files of dielectric constants from perturbation theory have each other's names: what is called the total "
    "one falls below 1 and follows the ionic part of known crystals, what is called the ionic one is the electronic "
    "constant"
)
PROPERTIES: tuple[Property, ...] = (
    Property(
        "JARVIS-MagneticMoment",
        "jarvis_magnetic_moment",
        "magnetic moment of the cell (log10 of 1 + m)",
        "log10(1 + m / muB)",
        JARVIS,
        _log1p,
        (0, 60),
        "per cell of the calculation, whose number of formula units is not known; no value above 10 muB was released",
    ),
    Property(
        "JARVIS-Exfoliation",
        "jarvis_exfoliation_energy",
        "exfoliation energy (log10)",
        "log10(meV/atom)",
        JARVIS,
        _log10,
        (1, 1000),
        alone=False,
    ),
    Property(
        "JARVIS-DielectricOptB88",
        "jarvis_dielectric_optb88",
        "static electronic dielectric function, OptB88vdW (log10)",
        "log10(1)",
        JARVIS,
        _log10,
        (1, 100),
    ),
    Property(
        "JARVIS-DielectricMBJ",
        "jarvis_dielectric_mbj",
        "static electronic dielectric function, TB-mBJ (log10)",
        "log10(1)",
        JARVIS,
        _log10,
        (1, 100),
    ),
    Property(
        "JARVIS-Spillage",
        "jarvis_spillage",
        "spin-orbit spillage (square root)",
        "1",
        JARVIS,
        _root,
        (0, 4),
        alone=False,
    ),
    Property("JARVIS-SLME", "jarvis_slme", "limited efficiency of solar absorption", "%", JARVIS, None, (0, 40)),
    Property(
        "JARVIS-MaxPhonon",
        "jarvis_max_phonon_mode",
        "highest phonon mode at Gamma (log10)",
        "log10(1/cm)",
        JARVIS,
        _log10,
        (30, 5000),
    ),
    Property(
        "JARVIS-MaxIR", "jarvis_max_ir_mode", "highest infrared mode (log10)", "log10(1/cm)", JARVIS, _log10, (30, 5000)
    ),
    Property(
        "JARVIS-MinIR", "jarvis_min_ir_mode", "lowest infrared mode (log10)", "log10(1/cm)", JARVIS, _log10, (3, 2000)
    ),
    Property("JARVIS-BandGap-MBJ", "jarvis_gap_mbj", "band gap, TB-mBJ", "eV", JARVIS, None, (0, 20)),
    Property("JARVIS-BandGap-OptB88", "jarvis_gap_optb88", "band gap, OptB88vdW", "eV", JARVIS, None, (0, 20)),
    Property(
        "JARVIS-HullDistance",
        "jarvis_energy_above_hull",
        "energy above the convex hull (square root)",
        "(eV/atom)^(1/2)",
        JARVIS,
        _root,
        (0, 1),
        "no value above 1 eV/atom was released",
    ),
    Property(
        "JARVIS-FormationEnergy",
        "jarvis_formation_energy",
        "formation energy, OptB88vdW",
        "eV/atom",
        JARVIS,
        None,
        (-5, 5),
    ),
    Property(
        "JARVIS-Seebeck-n", "jarvis_seebeck_n", "Seebeck coefficient, n-type, 600 K", "uV/K", JARVIS, None, (-600, 10)
    ),
    Property(
        "JARVIS-Seebeck-p", "jarvis_seebeck_p", "Seebeck coefficient, p-type, 600 K", "uV/K", JARVIS, None, (-10, 600)
    ),
    Property(
        "JARVIS-PowerFactor-n",
        "jarvis_power_factor_n",
        "power factor, n-type, 600 K (log10)",
        "log10, as released",
        JARVIS,
        _log10,
        (1, 1e4),
        alone=False,
    ),
    Property(
        "JARVIS-PowerFactor-p",
        "jarvis_power_factor_p",
        "power factor, p-type, 600 K (log10)",
        "log10, as released",
        JARVIS,
        _log10,
        (1, 1e4),
        alone=False,
    ),
    Property(
        "JARVIS-EffectiveMass",
        "jarvis_effective_mass_n",
        "effective mass of carriers, 300 K (log10)",
        "log10(electron masses)",
        JARVIS,
        _log10,
        (1e-4, 10),
        _SAME,
        alone=False,
    ),
    Property(
        "JARVIS-BulkModulus",
        "jarvis_bulk_modulus",
        "bulk modulus, Voigt (log10)",
        "log10(GPa)",
        JARVIS,
        _log10,
        (1, 1000),
        "no value above 250 GPa was released",
    ),
    Property(
        "JARVIS-ShearModulus",
        "jarvis_shear_modulus",
        "shear modulus, Voigt (log10)",
        "log10(GPa)",
        JARVIS,
        _log10,
        (0.5, 1000),
        "no value above 250 GPa was released",
    ),
    Property(
        "JARVIS-C11", "jarvis_c11", "elastic constant C11 (log10)", "log10(GPa)", JARVIS, _log10, (1, 2000), alone=False
    ),
    Property(
        "JARVIS-C12",
        "jarvis_c12",
        "elastic constant C12 (log10)",
        "log10(GPa)",
        JARVIS,
        _log10,
        (0.5, 2000),
        alone=False,
    ),
    Property("JARVIS-C44", "jarvis_c44", "elastic constant C44 (log10)", "log10(GPa)", JARVIS, _log10, (0.5, 2000)),
    Property(
        "JARVIS-Piezo-d",
        "jarvis_piezo_dij",
        "largest piezoelectric strain coefficient (log10)",
        "log10, as released",
        JARVIS,
        _log10,
        (0.05, 3000),
        alone=False,
    ),
    Property(
        "JARVIS-Piezo-e",
        "jarvis_piezo_eij",
        "largest piezoelectric stress coefficient (log10)",
        "log10(C/m2)",
        JARVIS,
        _log10,
        (0.005, 20),
        alone=False,
    ),
    Property(
        "JARVIS-DielectricIonic",
        "jarvis_dielectric_dfpt",
        "ionic dielectric constant, largest (log10)",
        "log10(1)",
        JARVIS,
        _log10,
        (0.05, 100),
        _SWAPPED,
    ),
    Property(
        "JARVIS-DielectricDFPT",
        "jarvis_dielectric_ionic",
        "electronic dielectric constant, largest (log10)",
        "log10(1)",
        JARVIS,
        _log10,
        (1, 100),
        _SWAPPED,
    ),
    Property("AFLOW-DebyeTemperature", "aflow_log10_debye_temperature", "Debye temperature (log10)", "log10(K)", AFLOW),
    Property(
        "AFLOW-ThermalConductivity",
        "aflow_log10_thermal_conductivity",
        "thermal conductivity of the lattice, 300 K (log10)",
        "log10(W/(m K))",
        AFLOW,
    ),
    Property(
        "AFLOW-ThermalExpansion",
        "aflow_log10_thermal_expansion",
        "thermal expansion, 300 K (log10)",
        "log10(1/K)",
        AFLOW,
    ),
    Property(
        "AFLOW-BulkModulus", "aflow_bulk_modulus", "bulk modulus, VRH (log10)", "log10(GPa)", AFLOW, _log10, (1, 1000)
    ),
    Property(
        "AFLOW-ShearModulus",
        "aflow_shear_modulus",
        "shear modulus, VRH (log10)",
        "log10(GPa)",
        AFLOW,
        _log10,
        (0.5, 1000),
    ),
    Property("AFLOW-BandGap", "aflow_gap", "band gap, PBE", "eV", AFLOW, None, (0, 15)),
    Property(
        "AFLOW-Energy",
        "aflow_energy",
        "total energy",
        "eV/atom",
        AFLOW,
        None,
        (-15, 0.5),
        "of the pseudopotentials' atoms, with errors of the table above 0.5 and below -15 eV/atom left out",
    ),
    Property("Crystal-Volume", "volume", "volume (log10)", "log10(A3/atom)", MP, _log10, alone=True),
    Property("Crystal-Density", "density", "density (log10)", "log10(g/cm3)", MP, _log10),
    Property("Crystal-Bond", "nearest", "mean distance of an atom to its nearest neighbour", "A", MP),
    Property("Crystal-Contacts", "contacts", "mean number of neighbours within 1.2 nearest distances", "1", MP),
    Property("Crystal-Symmetry", "symmetry", "number of the space group", "1", MP, None, (1, 230)),
    Property("Crystal-Inversion", "inversion", "1 with an inversion centre, else 0", "1", MP),
    Property("Crystal-Atoms", "atoms", "atoms in the primitive cell (log10)", "log10(1)", MP, _log10),
    Property(
        "MP-FormationEnergy",
        "formation_energy_eV_atom",
        "formation energy, PBE",
        "eV/atom",
        MP,
        None,
        (-5, 5),
        alone=False,
    ),
    Property("MP-BandGap-PBE", "pbe_gap_eV", "band gap, PBE", "eV", MP, alone=False),
    Property("MP-BandGap-HSE", "hse_gap_eV", "band gap, HSE", "eV", MP, alone=False),
    Property("MP-BandGap-GLLBSC", "gllbsc_gap_eV", "band gap, GLLB-SC", "eV", MP, alone=False),
    Property(
        "MP-BulkModulus",
        "bulk_modulus_vrh_GPa",
        "bulk modulus, VRH (log10)",
        "log10(GPa)",
        MP,
        _log10,
        (1, 1000),
        alone=False,
    ),
    Property(
        "MP-ShearModulus",
        "shear_modulus_vrh_GPa",
        "shear modulus, VRH (log10)",
        "log10(GPa)",
        MP,
        _log10,
        (0.5, 1000),
        alone=False,
    ),
    Property(
        "MP-HeatCapacity",
        "heat_capacity_300K_J_molK",
        "heat capacity at 300 K per mole of atoms",
        "J/(mol K)",
        ALEXANDRIA,
        None,
        (1, 40),
        "the table holds values per primitive cell, which were divided by its number of atoms",
        alone=False,
    ),
    Property("MP-RefractiveIndex", "n", "refractive index (log10)", "log10(1)", PETOUSIS, _log10, (1, 20), alone=False),
    Property(
        "MP-DielectricTotal",
        "poly_total",
        "dielectric constant, electronic and ionic (log10)",
        "log10(1)",
        PETOUSIS,
        _log10,
        (1, 300),
        alone=False,
    ),
    Property(
        "MP-Piezo-e",
        "eij_max_C_m2",
        "largest piezoelectric stress coefficient (log10)",
        "log10(C/m2)",
        DE_JONG,
        _log10,
        (0.005, 20),
        alone=False,
    ),
)
BY_NAME: Mapping[str, Property] = {item.name: item for item in PROPERTIES}

#: Kindred properties that one network learns together: what the card says, and the beginnings of their names.
FAMILIES: dict[str, tuple[str, tuple[str, ...]]] = {
    "Elastic": (
        "bulk and shear moduli and elastic constants",
        (
            "JARVIS-BulkModulus",
            "JARVIS-ShearModulus",
            "JARVIS-C",
            "AFLOW-BulkModulus",
            "AFLOW-ShearModulus",
            "MP-BulkModulus",
            "MP-ShearModulus",
        ),
    ),
    "Thermal": (
        "Debye temperature, thermal conductivity and expansion, heat capacity, highest phonon mode",
        ("AFLOW-DebyeTemperature", "AFLOW-Thermal", "MP-HeatCapacity", "JARVIS-MaxPhonon"),
    ),
    "Vibrational": (
        "phonon and infrared modes, Debye temperature",
        ("JARVIS-MaxPhonon", "JARVIS-MaxIR", "JARVIS-MinIR", "AFLOW-DebyeTemperature"),
    ),
    "Dielectric": (
        "dielectric constants and refractive index",
        ("JARVIS-Dielectric", "MP-RefractiveIndex", "MP-DielectricTotal"),
    ),
    "Magnetic": (
        "magnetic moment, spillage and energy above the hull",
        ("JARVIS-MagneticMoment", "JARVIS-Spillage", "JARVIS-HullDistance"),
    ),
    "Stability": (
        "energy above the hull, formation energies, total energy, exfoliation energy",
        ("JARVIS-HullDistance", "JARVIS-FormationEnergy", "MP-FormationEnergy", "AFLOW-Energy", "JARVIS-Exfoliation"),
    ),
    "Gaps": ("six kinds of band gap", ("JARVIS-BandGap", "AFLOW-BandGap", "MP-BandGap")),
    "Carriers": (
        "Seebeck coefficients, power factors and effective mass",
        ("JARVIS-Seebeck", "JARVIS-PowerFactor", "JARVIS-EffectiveMass"),
    ),
    "Optical": (
        "solar efficiency, spillage, band gaps and electronic dielectric constants",
        (
            "JARVIS-SLME",
            "JARVIS-Spillage",
            "JARVIS-BandGap",
            "JARVIS-DielectricOptB88",
            "JARVIS-DielectricMBJ",
            "JARVIS-DielectricDFPT",
        ),
    ),
    "Piezoelectric": (
        "piezoelectric coefficients, ionic dielectric constant, lowest infrared mode, inversion centre",
        ("JARVIS-Piezo", "MP-Piezo", "JARVIS-DielectricIonic", "JARVIS-MinIR", "Crystal-Inversion"),
    ),
    "Crystal": (
        "volume, density, distances and numbers of neighbours, symmetry",
        ("Crystal-",),
    ),
    "Everything": ("all properties of the other families", ("",)),
}

#: What is computed from the crystals themselves.
FACTS = ("volume", "density", "nearest", "contacts", "symmetry", "inversion", "atoms")


def members(family: str) -> tuple[Property, ...]:
    """Properties of a family, in the order of its outputs."""
    return tuple(item for item in PROPERTIES if item.name.startswith(FAMILIES[family][1]))


# -- data --------------------------------------------------------------------------------------------------------------


def _neighbours(crystal: Any) -> tuple[float, float]:
    """Mean distance of an atom to its nearest neighbour, and mean number of neighbours within 1.2 of its distance."""
    lattice = crystal.lattice
    # Images up to the nearest distance that volume allows, and a bit.
    reach = 2.5 * (crystal.volume / len(crystal)) ** (1 / 3) + 1.0
    heights = crystal.volume / np.linalg.norm(
        np.cross(np.roll(lattice, -1, axis=0), np.roll(lattice, -2, axis=0)), axis=1
    )
    spans = [np.arange(-n, n + 1) for n in np.ceil(reach / heights).astype(int)]
    images = np.stack(np.meshgrid(*spans, indexing="ij"), axis=-1).reshape(-1, 3) @ lattice
    coordinates = (crystal.frac_coords % 1.0) @ lattice
    shifts = coordinates[None, :, :] - coordinates[:, None, :]
    distances = np.sqrt(((shifts[:, :, None, :] + images) ** 2).sum(axis=-1)).reshape(len(crystal), -1)
    distances[distances < 0.1] = np.inf
    nearest = distances.min(axis=1)
    return float(nearest.mean()), float((distances < 1.2 * nearest[:, None]).sum(axis=1).mean())


def _facts(path: Path, work: Path) -> dict[str, dict[str, float]]:
    """Facts of the crystals by their identifier, kept in a file, because they take minutes."""
    kept = work / "facts.json"
    if kept.is_file():
        found: dict[str, dict[str, float]] = json.loads(kept.read_text())
        return found
    from pymatgen.symmetry.groups import SpaceGroup

    centred = {
        number: any(
            (np.asarray(op.rotation_matrix) == -np.eye(3)).all()
            for op in SpaceGroup.from_int_number(number).symmetry_ops
        )
        for number in range(1, 231)
    }
    groups = {record["id"]: record["spacegroup"] for record in json.loads(gzip.decompress(path.read_bytes()))}
    from pymatgen.core import Element

    masses = np.array([float(Element(symbol).atomic_mass) for symbol in SYMBOLS])
    found = {}
    for crystal in Corpus.read(path):
        if crystal.identifier.startswith(HYPOTHETICAL) or not groups.get(crystal.identifier):
            continue
        nearest, contacts = _neighbours(crystal)
        group = groups[crystal.identifier]
        found[crystal.identifier] = {
            "volume": crystal.volume / len(crystal),
            "density": 1.66053907 * float(masses[crystal.numbers - 1].sum()) / crystal.volume,
            "nearest": nearest,
            "contacts": contacts,
            "symmetry": group,
            "inversion": float(centred[group]),
            "atoms": len(crystal),
        }
    write_whole(kept, json.dumps(found).encode())
    return found


@dataclass(frozen=True)
class Data:
    """All formulas, their descriptors and properties on the scale of the training, and which no network has seen."""

    compositions: Compositions
    X: Floats
    values: dict[str, Floats]
    report: dict[str, dict[str, int]]
    held_out: NDArray[np.bool_]
    digest: str

    @classmethod
    def read(cls, assets: Path, work: Path) -> Data:
        """Read and clean; chemical systems are held out whole."""
        tables, report = {}, {}
        texts: dict[str, str] = {}
        for item, rows in _raw(assets, work, texts):
            tables[item.name], report[item.name] = _clean(item, rows)
        keys = sorted(set().union(*tables.values()))
        compositions = parse_compositions(texts[key] for key in keys)
        if compositions.keys() != tuple(keys):
            raise SystemExit("a formula changes when it is read again: the keys of compositions have changed")
        systems = ["-".join(sorted(SYMBOLS[z - 1] for z in compositions[i][0])) for i in range(len(keys))]
        values = {name: np.array([table.get(key, np.nan) for key in keys]) for name, table in tables.items()}
        X = np.asarray(get_descriptor(DESCRIPTOR).fit(compositions).transform(compositions), dtype=np.float64)
        digest = hashlib.sha256("".join(keys).encode())
        for name in values:
            digest.update(values[name].tobytes())
        return cls(compositions, X, values, report, split_by_group(systems, HELD_OUT, SPLIT_SEED), digest.hexdigest())

    def known(self, properties: Iterable[Property]) -> NDArray[np.bool_]:
        """Rows (n,) of which one of the properties is known."""
        return np.isfinite(np.column_stack([self.values[item.name] for item in properties])).any(axis=1)

    def training(self, properties: Iterable[Property]) -> NDArray[np.bool_]:
        """Rows (n,) that a network of these properties learns from."""
        return self.known(properties) & ~self.held_out

    def elements(self, rows: NDArray[np.bool_]) -> list[str]:
        """Symbols of the elements in some rows."""
        return [SYMBOLS[z - 1] for z in np.unique(self.compositions.take(rows).numbers)]

    def made_of(self, symbols: Iterable[str]) -> NDArray[np.bool_]:
        """Rows (n,) that hold none but some elements."""
        known = np.isin(SYMBOLS, list(symbols))
        return np.logical_and.reduceat(known[self.compositions.numbers - 1], self.compositions.offsets[:-1])


def _raw(assets: Path, work: Path, texts: dict[str, str]) -> Iterable[tuple[Property, list[tuple[str, float]]]]:
    """Every property with its rows of composition key and value, as released; the formula of each key is noted."""
    crystals = assets / "structures" / "crystals.json.gz"
    facts = _facts(crystals, work)
    corpus = Corpus.read(crystals).one_per_formula()
    keys = corpus.compositions.keys()
    texts.update(zip(keys, corpus.compositions.text, strict=True))
    for item in PROPERTIES:
        path = assets / "properties" / f"{item.key}.csv"
        if path.is_file():
            with path.open(newline="") as file:
                rows = [(row["formula"], float(row["value"])) for row in csv.DictReader(file)]
            read = parse_compositions([formula for formula, _ in rows], on_error="skip")
            texts.update(zip(read.keys(), read.text, strict=True))
            yield item, [(key, rows[row][1]) for key, row in zip(read.keys(), read.rows.tolist(), strict=True)]
        elif item.key in FACTS:
            yield (
                item,
                [
                    (key, facts[crystal.identifier][item.key])
                    for key, crystal in zip(keys, corpus, strict=True)
                    if crystal.identifier in facts
                ],
            )
        else:
            values = corpus.values(item.key)
            if item.key == "heat_capacity_300K_J_molK":
                values /= np.array([len(crystal) for crystal in corpus])
            yield item, [(key, value) for key, value in zip(keys, values.tolist(), strict=True) if np.isfinite(value)]


def _clean(item: Property, rows: Sequence[tuple[str, float]]) -> tuple[dict[str, float], dict[str, int]]:
    """Median by composition on the scale of the training, and what was dropped."""
    inside = [(key, value) for key, value in rows if item.limits[0] <= value <= item.limits[1]]
    by_key: dict[str, list[float]] = {}
    for key, value in inside:
        by_key.setdefault(key, []).append(value)
    medians = np.array([float(np.median(values)) for values in by_key.values()])
    scaled = medians if item.scale is None else item.scale(medians)
    low, middle, high = np.quantile(scaled, [0.25, 0.5, 0.75])
    near = np.abs(scaled - middle) <= FAR * (high - low) if high > low else np.ones(len(scaled), dtype=bool)
    if (
        item.scale is None or not near.mean() > 0.98
    ):  # a heavy tail is no error, and where there is no scale values may be 0
        near = np.ones(len(scaled), dtype=bool)
    table = {key: value for key, value, kept in zip(by_key, scaled.tolist(), near, strict=True) if kept}
    counts = {"rows": len(rows), "outside": len(rows) - len(inside), "far": int((~near).sum()), "formulas": len(table)}
    return table, counts


# -- networks ----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Plan:
    """A network that is trained."""

    name: str
    meaning: str
    properties: tuple[Property, ...]
    hidden: tuple[int, ...]
    seed: int

    @cached_property
    def settings(self) -> dict[str, Any]:
        """All that decides what it learns, but the data."""
        return {
            "properties": [item.name for item in self.properties],
            "hidden": list(self.hidden),
            "activation": ACTIVATION,
            "seed": self.seed,
            "learning_rate": 2e-3,
            "weight_decay": 0.2,
            "steps": [STEPS, FEWEST_PASSES, MOST_PASSES],
        }

    def train(self, data: Data) -> Network:
        """Train it."""
        rows = data.training(self.properties)
        Y = np.column_stack([data.values[item.name] for item in self.properties])[rows]
        batch = 64 if rows.sum() < 3000 else 256
        passes = int(np.clip(STEPS * batch / rows.sum(), FEWEST_PASSES, MOST_PASSES))
        return train_network(
            data.X[rows],
            Y,
            self.hidden,
            activation=ACTIVATION,
            seed=self.seed,
            n_epochs=passes,
            batch_size=batch,
            learning_rate=2e-3,
            weight_decay=0.2,
        )


def plans() -> list[Plan]:
    """All networks."""
    alone = [Plan(item.name, item.meaning, (item,), SINGLE, SEED) for item in PROPERTIES if item.alone]
    return alone + [
        Plan(f"Kindred-{name}", meaning, members(name), KINDRED, SEED) for name, (meaning, _) in FAMILIES.items()
    ]


def trained(plan: Plan, data: Data, work: Path) -> Network:
    """The network of a plan, read if it is finished."""
    about = json.dumps([plan.settings, data.digest]).encode()
    path = work / f"{plan.name}-{hashlib.sha256(about).hexdigest()[:12]}.safetensors"
    n_layers = len(plan.hidden) + 1
    if not path.is_file():
        started = time.process_time()
        write_networks(path, {plan.name: plan.train(data)}, dtype="float32")
        print(f"{plan.name}: {time.process_time() - started:.0f} s", flush=True)
    _, tensors = read_tensors(path, NETWORKS_FILE, Network.tensor_names(plan.name, n_layers))
    return Network.from_tensors(tensors.__getitem__, plan.name, n_layers, ACTIVATION)


# -- what is shipped ---------------------------------------------------------------------------------------------------


def held_out(plan: Plan, predict: Callable[[NDArray[np.bool_]], NDArray[Any]], data: Data) -> list[dict[str, float]]:
    """Errors of a network, which predicts for a mask of rows, on rows that it has not seen, of elements that it has."""
    allowed = data.held_out & data.made_of(data.elements(data.training(plan.properties)))
    found = []
    for column, item in enumerate(plan.properties):
        y = data.values[item.name]
        rows = allowed & np.isfinite(y)
        y = y[rows]
        error = predict(rows)[:, column] - y
        found.append(
            {
                "n": len(y),
                "mae": float(np.abs(error).mean()),
                "r2": float(1 - (error**2).mean() / y.var()),
                "mae_of_the_median": float(np.abs(y - np.median(y)).mean()),
                "deviation": float(y.std()),
            }
        )
    return found


def facts(plan: Plan, data: Data, errors: list[dict[str, float]]) -> dict[str, Any]:
    """Fields of the card that say what was learned from what, and how well."""
    several = len(plan.properties) > 1
    rows = data.training(plan.properties)
    results = "; ".join(
        f"{item.name if several else item.meaning} [{item.unit}] {found['mae']:.3g}, R2 {found['r2']:.2f}, "
        f"n {found['n']}"
        for item, found in zip(plan.properties, errors, strict=False)
    )
    dropped = "; ".join(
        f"{item.name} {counts['outside'] + counts['far']} of {counts['rows']}"
        for item in plan.properties
        if (counts := data.report[item.name])["outside"] + counts["far"]
    )
    notes = dict.fromkeys(f"{item.name}: {item.note}" for item in plan.properties if item.note)
    return {
        "zoo": "properties",
        "property": plan.meaning,
        "unit": "one per column, see notes" if several else plan.properties[0].unit,
        "dataset": "; ".join(dict.fromkeys(item.origin for item in plan.properties)),
        "licence": LICENCE,
        "citation": "; ".join(dict.fromkeys(text for item in plan.properties for text in ORIGINS[item.origin])),
        "n_train": int(rows.sum()),
        "error": float(f"{np.mean([e['mae'] / (e['deviation'] if several else 1) for e in errors]):.6g}")
        if errors
        else None,
        "error_unit": "standard deviations, mean over the properties" if several else plan.properties[0].unit,
        "elements": data.elements(rows),
        "notes": ". ".join(
            [
                f"Trained on {rows.sum()} formulas, of several values of one the median, seed {plan.seed}",
                f"Mean absolute error on held-out chemical systems: {results}",
                *(
                    ["Columns of the final layer: " + ", ".join(item.name for item in plan.properties)]
                    if several
                    else []
                ),
                *([f"Values left out as errors: {dropped}"] if dropped else []),
                *notes,
            ]
        ),
    }


def card(plan: Plan, network: Network, data: Data, sha256: str, errors: list[dict[str, float]]) -> SourceCard:
    """Card, with what a user should know."""
    return network_card(
        plan.name,
        network,
        file=FILE,
        sha256=sha256,
        prefix=plan.name,
        descriptor=DESCRIPTOR,
        dtype=DTYPE,
        architecture=f"fully connected network on {DESCRIPTOR}",
        **facts(plan, data, errors),
    )


def ship(chosen: Sequence[Plan], networks: Mapping[str, Network], data: Data) -> None:
    """Write networks, manifest and cards into the package."""
    path = DATA / "sources" / FILE
    sha256 = write_networks(path, {plan.name: networks[plan.name] for plan in chosen}, dtype=DTYPE)
    cards, about = [], {}
    for plan in chosen:
        # As it is stored.
        network = load_network(card(plan, networks[plan.name], data, sha256, []), path=path.parent).network
        errors = held_out(plan, lambda rows, network=network: network.forward(data.X[rows])["final"], data)
        cards.append(card(plan, network, data, sha256, errors).to_dict())
        about[plan.name] = {
            "widths": list(network.widths),
            "n_train": int(data.training(plan.properties).sum()),
            "held_out": dict(zip([item.name for item in plan.properties], errors, strict=True)),
        }
        print(plan.name, *(f"{item.name} {e['r2']:.2f}" for item, e in zip(plan.properties, errors, strict=True)))
    manifest = {
        "made_by": "python tools/train_property_sources.py",
        "data": {"sha256": data.digest, "formulas": len(data.compositions)},
        "held_out": {
            "fraction": HELD_OUT,
            "seed": SPLIT_SEED,
            "by": "chemical system",
            "rows": int(data.held_out.sum()),
        },
        "versions": installed_versions(),
        "properties": {
            item.name: {"key": item.key, "unit": item.unit, **data.report[item.name]} for item in PROPERTIES
        },
        "file": {"name": FILE, "sha256": sha256, "bytes": path.stat().st_size},
        "networks": about,
    }
    write_about("properties", manifest, cards)


def write_about(kind: str, manifest: Mapping[str, Any], cards: Sequence[Mapping[str, Any]]) -> None:
    """Write manifest and cards of sources that are shipped in one file."""
    for path, content in (("sources", manifest), ("cards/own", cards)):
        text = json.dumps(content, indent=1, ensure_ascii=False) + "\n"
        (DATA / path / f"{kind}.json").write_text(text, encoding="utf-8")


def main() -> None:
    """Train what is not trained yet, and ship all."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--work", type=Path, default=home() / "properties", help="folder for what is finished")
    work = parser.parse_args().work
    work.mkdir(parents=True, exist_ok=True)
    import torch

    torch.set_num_threads(1)  # small networks gain nothing from more
    data = Data.read(Path(os.environ["SCOTL_MATGL_ASSETS"]), work)
    chosen = plans()
    networks = {plan.name: trained(plan, data, work) for plan in chosen}
    ship(chosen, networks, data)


if __name__ == "__main__":
    main()
