"""Train the project's own composition sources on the DFT properties of the corpus, and write those that are shipped.

``python tools/train_sources.py train`` trains a library of single-property networks (25 a property) and a few networks
of many properties into a folder, and goes on where it stopped; ``... ship`` chooses from it and writes
``scotl_matgl/data/sources/shotgun.safetensors``, its manifest and the cards. Needs torch, the plugin
scotl-matgl-shotgun and the crystals of SCOTL_MATGL_ASSETS.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import os
import sys
from collections.abc import Callable, Collection, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / "plugins" / "scotl-matgl-shotgun")]

from scotl_matgl_shotgun import Library, LibraryWriter, Record, train_library, train_network  # noqa: E402

from scotl_matgl.bridges.base import split_by_group  # noqa: E402 - found on the path set above
from scotl_matgl.chemistry.corpus import Corpus  # noqa: E402
from scotl_matgl.chemistry.elements import SYMBOLS  # noqa: E402
from scotl_matgl.descriptors.composite import get_descriptor  # noqa: E402
from scotl_matgl.encoders.composition import network_card, write_networks  # noqa: E402
from scotl_matgl.encoders.network import Network  # noqa: E402
from scotl_matgl.sources.cards import SourceCard  # noqa: E402
from scotl_matgl.storage import home, installed_versions  # noqa: E402

Floats = NDArray[np.float64]

DATA = ROOT / "scotl_matgl" / "data"
FILE = "shotgun.safetensors"
DESCRIPTOR = "standard"
HELD_OUT, SPLIT_SEED, SEED = 0.2, 0, 0
#: Networks a property that are trained, and that are shipped (of different depth).
N_NETWORKS, N_SHIPPED = 25, 1

COMMON: dict[str, Any] = {"descriptor": DESCRIPTOR, "learning_rate": 4e-3, "weight_decay": 0.1, "width": (16, 128)}
#: More and smaller steps where there are fewer rows.
FREQUENT: dict[str, Any] = {**COMMON, "n_samples": 8000, "n_epochs": 8, "batch_size": 256}
RARE: dict[str, Any] = {**COMMON, "n_epochs": 25, "batch_size": 128}
TINY: dict[str, Any] = {**COMMON, "n_epochs": 40, "batch_size": 32}
LIBRARIES = {"tiny": TINY, "rare": RARE, "frequent": FREQUENT}
JOINT: dict[str, Any] = {"learning_rate": 2e-3, "weight_decay": 0.1, "n_epochs": 15, "batch_size": 256}
JOINT_SHAPES = ((256, 128, 64), (320, 200, 125, 80, 50))

LICENCE = "BSD-3-Clause (this project's own weights); the training data are CC BY 4.0"
MP = "Materials Project crystals (Jain et al., APL Mater. 1, 011002 (2013), doi:10.1063/1.4812323)"
RICCI = "F. Ricci et al., Sci. Data 4, 170085 (2017), doi:10.1038/sdata.2017.85"
SHOTGUN = (
    "training procedure: H. Yamada et al., ACS Cent. Sci. 5, 1717-1730 (2019), doi:10.1021/acscentsci.9b00804; "
    "descriptors: those of `standard`"
)


@dataclass(frozen=True)
class Target:
    """A property of the corpus and the scale on which it is learned."""

    key: str
    name: str
    property: str
    unit: str
    source: str
    transform: Callable[[Floats, Floats], Floats] | None = None
    clip: tuple[float, float] | None = None
    note: str = ""
    library: str = "frequent"

    def values(self, corpus: Corpus) -> Floats:
        """Values (n,) on the scale of the training, NaN where unknown."""
        values = corpus.values(self.key)
        if self.transform is not None:
            n_atoms = np.array([len(crystal) for crystal in corpus], dtype=np.float64)
            known = np.isfinite(values)
            values[known] = self.transform(values[known], n_atoms[known])
        return values if self.clip is None else np.clip(values, *self.clip)


def _log10(values: Floats, _: Floats) -> Floats:
    return np.log10(values)


def _per_atom(values: Floats, n_atoms: Floats) -> Floats:
    return values / n_atoms


def _transport(
    quantity: str, name: str, meaning: str, unit: str, clip: tuple[float, float], *, log: bool
) -> Iterable[Target]:
    scale = ", log10" if log else ""
    for kind in ("n", "p"):
        yield Target(
            key=f"ricci_{quantity}_{kind}",
            name=f"{name}-{kind}",
            property=f"{meaning} ({kind}-type{scale})",
            unit=f"log10({unit})" if log else unit,
            source=RICCI,
            transform=_log10 if log else None,
            clip=clip,
            note=(
                "BoltzTraP on Materials Project band structures, mean of the tensor's eigenvalues, constant relaxation "
                "time. The table states no conditions; its values follow from 1e19 carriers per cm3 (m = n e2 tau / "
                "sigma), 300 K (Wiedemann-Franz law of its metals) and, where tau enters, 1e-14 s"
            ),
        )


TARGETS: tuple[Target, ...] = (
    Target(
        "formation_energy_eV_atom",
        "FormationEnergy",
        "formation energy",
        "eV/atom",
        MP,
        clip=(-5.0, 3.0),
        note="four values below -5 eV/atom, which are errors of the table, count as -5",
    ),
    Target("pbe_gap_eV", "BandGap-PBE", "band gap (PBE)", "eV", MP),
    Target("hse_gap_eV", "BandGap-HSE", "band gap (HSE)", "eV", MP, library="rare"),
    Target("gllbsc_gap_eV", "BandGap-GLLBSC", "band gap (GLLB-SC)", "eV", MP, library="rare"),
    Target("scan_gap_eV", "BandGap-SCAN", "band gap (SCAN)", "eV", MP, library="tiny"),
    Target("bulk_modulus_vrh_GPa", "BulkModulus", "bulk modulus (log10)", "log10(GPa)", MP, _log10, library="rare"),
    Target("shear_modulus_vrh_GPa", "ShearModulus", "shear modulus (log10)", "log10(GPa)", MP, _log10, library="rare"),
    Target(
        "heat_capacity_300K_J_molK",
        "HeatCapacity",
        "heat capacity at 300 K per mole of atoms",
        "J/(mol K)",
        "Alexandria binaries, phonons with PBE (data of MatCalc's benchmark)",
        _per_atom,
        note="the table holds values per primitive cell, which were divided by its number of atoms",
        library="tiny",
    ),
    Target(
        "n",
        "RefractiveIndex",
        "refractive index (log10)",
        "log10(1)",
        "I. Petousis et al., Sci. Data 4, 160134 (2017), doi:10.1038/sdata.2016.134",
        _log10,
        library="tiny",
    ),
    Target(
        "poly_total",
        "DielectricConstant",
        "dielectric constant, electronic and ionic (log10)",
        "log10(1)",
        "I. Petousis et al., Sci. Data 4, 160134 (2017), doi:10.1038/sdata.2016.134",
        _log10,
        library="tiny",
    ),
    *_transport("S", "Seebeck", "Seebeck coefficient", "uV/K", (-1000.0, 1000.0), log=False),
    *_transport("sigma", "Conductivity", "electrical conductivity", "S/cm", (-1.5, 7.0), log=True),
    *_transport(
        "kappa", "ThermalConductivity", "electronic thermal conductivity", "1e-4 W/(m K)", (-1.5, 8.0), log=True
    ),
    *_transport("PF", "PowerFactor", "power factor", "uW/(cm K2)", (-2.0, 3.0), log=True),
    *_transport("m", "EffectiveMass", "effective mass", "electron masses", (-5.2, 3.5), log=True),
)

#: Networks of many properties: name, what the card says, and which targets.
JOINTS: dict[str, tuple[str, tuple[str, ...]]] = {
    "All": ("twenty DFT properties: energy, gaps, moduli, dielectric, heat, transport", ("",)),
    "Electronic": ("four kinds of band gap, refractive index, dielectric constant", ("Band", "Refr", "Diel")),
    "Transport": (
        "transport coefficients: Seebeck, conductivities, power factor, effective mass (n and p)",
        ("Seeb", "Cond", "Ther", "Power", "Effec"),
    ),
    "Mechanical": ("formation energy, bulk and shear modulus, heat capacity", ("Form", "Bulk", "Shear", "Heat")),
}


@dataclass(frozen=True)
class Data:
    """Corpus with one crystal per formula, its descriptors, all targets, and which rows no network has seen."""

    corpus: Corpus
    corpus_hash: str
    X: Floats
    values: dict[str, Floats]
    held_out: NDArray[np.bool_]

    @classmethod
    def read(cls, path: Path) -> Data:
        """Read the corpus; chemical systems are held out whole."""
        whole = Corpus.read(path)
        corpus = whole.one_per_formula()
        held_out = split_by_group([crystal.chemical_system for crystal in corpus], HELD_OUT, SPLIT_SEED)
        X = np.asarray(get_descriptor(DESCRIPTOR).fit(corpus.compositions).transform(corpus.compositions))
        return cls(corpus, whole.hash, X, {item.name: item.values(corpus) for item in TARGETS}, held_out)

    def training_corpus(self) -> Corpus:
        """Crystals of the training rows, their properties being the targets."""
        return Corpus(
            dataclasses.replace(
                self.corpus[row],
                properties={name: float(y[row]) for name, y in self.values.items() if np.isfinite(y[row])},
            )
            for row in np.flatnonzero(~self.held_out).tolist()
        )

    def training_rows(self, targets: Iterable[Target]) -> NDArray[np.bool_]:
        """Rows (n,) of which one of the targets is known, and which are not held out."""
        known = np.isfinite(np.column_stack([self.values[item.name] for item in targets])).any(axis=1)
        return known & ~self.held_out

    def elements(self, rows: NDArray[np.bool_]) -> list[str]:
        """Symbols of the elements in some rows."""
        return [SYMBOLS[z - 1] for z in np.unique(self.corpus.compositions.take(rows).numbers)]

    def made_of(self, symbols: Iterable[str]) -> NDArray[np.bool_]:
        """Rows (n,) that hold none but some elements."""
        known = np.isin(SYMBOLS, list(symbols))
        compositions = self.corpus.compositions
        return np.logical_and.reduceat(known[compositions.numbers - 1], compositions.offsets[:-1])


def train(data: Data, folder: Path, only: Collection[str]) -> None:
    """Train what is not in the folder yet, of some libraries or of all."""
    corpus = data.training_corpus()
    about: dict[str, Any] = {
        "dataset": "crystals of the assets, 80 % of the chemical systems",
        "licence": LICENCE,
        "citation": SHOTGUN,
    }
    if not only or "joint" in only:
        joint_library(data, folder / "joint", about)
    for name, settings in LIBRARIES.items():
        if only and name not in only:
            continue
        chosen = {item.name: item.unit for item in TARGETS if item.library == name}
        train_library(
            folder / name,
            corpus,
            chosen,
            N_NETWORKS * len(chosen),
            SEED,
            shard_size=len(chosen),
            progress=lambda done, record: print(f"{done} {record.name} {record.error:.4g}", flush=True),
            **about,
            **settings,
        )


def joint_library(data: Data, folder: Path, about: dict[str, str]) -> None:
    """Train the networks of many properties."""
    descriptor = get_descriptor(DESCRIPTOR).fit(["NaCl"])
    made_by = {**JOINT, "shapes": [list(shape) for shape in JOINT_SHAPES], "corpus": data.corpus_hash}
    with LibraryWriter(
        folder, licence=about["licence"], citation=about["citation"], made_by=made_by, shard_size=1
    ) as writer:
        plan = [(name, shape) for name in JOINTS for shape in JOINT_SHAPES]
        for number, (name, shape) in list(enumerate(plan))[len(writer) :]:
            Y = np.column_stack([data.values[item.name] for item in members(name)])
            rows = data.training_rows(members(name))
            seed = SEED + number
            network = train_network(data.X[rows], Y[rows], shape, seed=seed, **JOINT)
            record = Record(
                name=f"{name}-{JOINT_SHAPES.index(shape) + 1}",
                property=name,
                unit="see notes",
                descriptor=DESCRIPTOR,
                fingerprint=descriptor.fingerprint(),
                dataset=about["dataset"],
                widths=network.widths,
                activation=network.activation,
                seed=seed,
                n_train=int(rows.sum()),
            )
            writer.add(record, network)
            print(f"joint {number + 1}/{len(plan)} {record.name}", flush=True)


def members(joint: str) -> list[Target]:
    """Targets of a network of many properties, in the order of its output."""
    return [item for item in TARGETS if item.name.startswith(JOINTS[joint][1])]


# -- what is shipped ---------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Choice:
    """A network that is shipped."""

    name: str
    targets: tuple[Target, ...]
    record: Record
    network: Network
    property: str

    def held_out(self, data: Data) -> list[dict[str, float]]:
        """Errors of the network, as it is stored, on rows that no network has seen, of elements that it has seen."""
        stored = dataclasses.replace(
            self.network,
            weights=tuple(weight.astype(np.float16).astype(np.float32) for weight in self.network.weights),
        )
        found = []
        allowed = data.held_out & data.made_of(data.elements(data.training_rows(self.targets)))
        for column, target in enumerate(self.targets):
            y = data.values[target.name]
            rows = allowed & np.isfinite(y)
            y = y[rows]
            error = stored.forward(data.X[rows])["final"][:, column] - y
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

    def card(self, data: Data, sha256: str, held_out: list[dict[str, float]]) -> SourceCard:
        """Card, with what a user should know."""
        several = len(self.targets) > 1
        rows = data.training_rows(self.targets)
        training = (
            f"Trained on {self.record.n_train} formulas"
            if several
            else f"Trained on {self.record.n_train} formulas drawn with replacement from {rows.sum()}"
        )
        results = "; ".join(
            f"{item.property} [{item.unit}] {errors['mae']:.3g}, R2 {errors['r2']:.2f}, n {errors['n']}"
            for item, errors in zip(self.targets, held_out, strict=True)
        )
        remarks = dict.fromkeys(
            f"{item.property if not several else item.name}: {item.note}" for item in self.targets if item.note
        )
        columns = ", ".join(item.name for item in self.targets)
        clipped = [f"{item.name} to {item.clip[0]:g}..{item.clip[1]:g}" for item in self.targets if item.clip]
        return network_card(
            f"Shotgun-{self.name}",
            self.network,
            file=FILE,
            sha256=sha256,
            prefix=self.name,
            descriptor=DESCRIPTOR,
            zoo="shotgun",
            property=self.property,
            unit="one a column, see notes" if several else self.targets[0].unit,
            dataset="; ".join(dict.fromkeys(item.source for item in self.targets)),
            architecture=f"fully connected pyramid on {DESCRIPTOR}",
            licence=LICENCE,
            citation=SHOTGUN,
            n_train=self.record.n_train,
            error=float(f"{np.mean([e['mae'] / (e['deviation'] if several else 1) for e in held_out]):.6g}"),
            error_unit="standard deviations, mean over the properties" if several else self.targets[0].unit,
            elements=data.elements(rows),
            notes=". ".join(
                [
                    f"{training}, one crystal (lowest energy) a formula, seed {self.record.seed}",
                    f"Mean absolute error on held-out chemical systems: {results}",
                    *([f"Columns of the final layer: {columns}"] if several else []),
                    *([f"Clipped: {', '.join(clipped)}"] if clipped else []),
                    *remarks,
                ]
            ),
        )


def choose(folder: Path) -> list[Choice]:
    """Networks of many properties, and of each property those with the least error on rows outside their sample."""
    joint = Library(folder / "joint")
    chosen = [
        Choice(record.name, tuple(members(record.property)), record, joint.network(record), JOINTS[record.property][0])
        for record in joint
    ]
    libraries = {name: Library(folder / name) for name in LIBRARIES}
    for target in TARGETS:
        library = libraries[target.library]
        depths: set[int] = set()
        for record in sorted(library.query(target.name), key=lambda item: item.error or 0.0):
            if len(record.widths) not in depths and len(depths) < N_SHIPPED:
                depths.add(len(record.widths))
                name = f"{target.name}-{len(depths)}"
                chosen.append(Choice(name, (target,), record, library.network(record), target.property))
    return chosen


def ship(data: Data, folder: Path) -> None:
    """Write networks, manifest and cards into the package."""
    chosen = choose(folder)
    sha256 = write_networks(DATA / "sources" / FILE, {choice.name: choice.network for choice in chosen})
    cards = []
    networks = {}
    for choice in chosen:
        held_out = choice.held_out(data)
        cards.append(choice.card(data, sha256, held_out))
        networks[f"Shotgun-{choice.name}"] = {
            "record": choice.record.name,
            "seed": choice.record.seed,
            "widths": list(choice.network.widths),
            "n_train": choice.record.n_train,
            "out_of_bag_mae": choice.record.error,
            "held_out": dict(zip([item.name for item in choice.targets], held_out, strict=True)),
        }
        print(f"{choice.name}: {[{k: round(v, 4) for k, v in item.items()} for item in held_out]}")
    libraries = {}
    for name in ("joint", *LIBRARIES):
        library = Library(folder / name)
        libraries[name] = {"networks": sum(1 for _ in library), "made_by": library.header["made_by"]}
    manifest = {
        "made_by": "python tools/train_sources.py train; python tools/train_sources.py ship",
        "corpus": {"file": "structures/crystals.json.gz", "hash": data.corpus_hash, "formulas": len(data.corpus)},
        "held_out": {
            "fraction": HELD_OUT,
            "seed": SPLIT_SEED,
            "by": "chemical system",
            "rows": int(data.held_out.sum()),
        },
        "versions": installed_versions(),
        "targets": {
            item.name: {
                "key": item.key,
                "unit": item.unit,
                "clip": item.clip,
                "n": int(np.isfinite(data.values[item.name]).sum()),
            }
            for item in TARGETS
        },
        "libraries": libraries,
        "file": {"name": FILE, "sha256": sha256, "bytes": (DATA / "sources" / FILE).stat().st_size},
        "networks": networks,
    }
    _write_json(DATA / "sources" / "shotgun.json", manifest)
    _write_json(DATA / "cards" / "own" / "shotgun.json", [card.to_dict() for card in cards])


def _write_json(path: Path, content: Any) -> None:
    path.write_text(json.dumps(content, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("what", choices=["train", "ship"])
    parser.add_argument("--folder", type=Path, default=home() / "shotgun")
    parser.add_argument("--only", nargs="*", choices=["joint", *LIBRARIES], default=[], help="train these only")
    arguments = parser.parse_args()
    data = Data.read(Path(os.environ["SCOTL_MATGL_ASSETS"]) / "structures" / "crystals.json.gz")
    if arguments.what == "train":
        import torch

        torch.set_num_threads(1)  # small networks gain nothing from more
        train(data, arguments.folder, arguments.only)
    else:
        ship(data, arguments.folder)
