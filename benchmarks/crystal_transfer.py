"""Transfer between functionals and properties on crystals, by rows of the target and of the source.

    OMP_NUM_THREADS=1 python benchmarks/crystal_transfer.py --output crystal_transfer.csv
    python benchmarks/crystal_transfer.py --output crystal_transfer.csv --summary [--figure FILE.svg]

The study of Hoffmann et al. (Digital Discovery 2, 1368, 2023, doi:10.1039/D3DD00030C) on the crystals that are here: a
MEGNet trained on PBE gaps or on formation energies is carried over to HSE gaps, GLLB-SC gaps and refractive indices,
with its head alone or as a whole, beside the same network trained on the target from nothing and beside descriptors.
Sources never see a formula of any test set. What is measured is appended to the file at once, and a run goes on where
it was. Needs SCOTL_MATGL_ASSETS, matgl on DGL and torch; hours on one core.
"""

from __future__ import annotations

import argparse
import os
import time
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from scotl_matgl import FullTransferRegressor, SourceCard, TransferRegressor
from scotl_matgl.chemistry.compositions import composition_key
from scotl_matgl.chemistry.corpus import Corpus
from scotl_matgl.chemistry.crystals import Crystal
from scotl_matgl.encoders.base import graph_or_reason
from scotl_matgl.exceptions import ScotlMatglWarning
from scotl_matgl.sources.cards import all_cards
from scotl_matgl.studies.records import ResultsFile

KEY = ("draw", "target", "method", "n_target", "n_source")
SOURCES = {"PBE gap": "pbe_gap_eV", "formation energy": "formation_energy_eV_atom"}
TARGETS = {"HSE gap": "hse_gap_eV", "GLLB-SC gap": "gllbsc_gap_eV", "log10 of the refractive index": "n"}
N_TARGET, N_SOURCE, AT_ONE_SIZE, N_TEST, MOST_ATOMS = (100, 300, 1000, 3000), (1000, 3000, 10000), 1000, 200, 12
NETWORK = {"dim_edge_embedding": 40, "cutoff": 4.0, "gauss_width": 0.25, "nblocks": 2, "niters_set2set": 2}


@dataclass(frozen=True, eq=False)
class Split:
    """Rows of one property for one draw."""

    train: list[Crystal]
    test: list[Crystal]
    y_train: np.ndarray
    y_test: np.ndarray


class FromNothing(FullTransferRegressor):
    """Training of random weights: a head fitted to what they give would be fitted to next to nothing."""

    def _start(self, network: Any, *_: Any) -> None:
        import torch

        with torch.no_grad():
            network.head.weight.fill_(1.0)
            network.head.bias.zero_()


def formula_of(crystal: Crystal) -> str:
    return composition_key(crystal.numbers, np.ones(len(crystal)))


def split(crystals: list[Crystal], name: str, draw: int, left_out: set[str]) -> Split:
    """Rows of a property in a random order: without some formulas, and tested on formulas of their own."""
    rows = [
        row for row in crystals if np.isfinite(row.properties.get(name, np.nan)) and formula_of(row) not in left_out
    ]
    rows = [rows[i] for i in np.random.default_rng(draw).permutation(len(rows))]
    test_formulas = {formula_of(row) for row in rows[:N_TEST]}
    test = [row for row in rows if formula_of(row) in test_formulas]
    train = [row for row in rows if formula_of(row) not in test_formulas]
    values = [np.array([row.properties[name] for row in part]) for part in (train, test)]
    if name == "n":  # a few indices of ten and more would count for all others
        values = [np.log10(part) for part in values]
    return Split(train, test, *values)


def untrained(elements: tuple[str, ...], seed: int) -> SourceCard:
    """A MEGNet with random weights, as a source."""
    import torch
    from matgl.models import MEGNet

    torch.manual_seed(seed)
    network = MEGNet(element_types=elements, **NETWORK)
    return SourceCard.from_matgl(network, name=f"Untrained-{seed}", property="none", unit="1", replace=True)


def trained(start: SourceCard, name: str, rows: Split, n: int, draw: int) -> SourceCard:
    """A source trained on the first n rows, kept below SCOTL_MATGL_HOME and found there by the next run."""
    full = f"{name.replace(' ', '-')}-{n}-{draw}"
    for card in all_cards():
        if card.name == full:
            return card
    settings = {"batch_size": 64, "learning_rate": 3e-3, "validation": 0.05, "patience": 60}
    model = FromNothing(start, epochs=60, reinitialise_head=False, **settings)
    model.fit(rows.train[:n], rows.y_train[:n])
    error = float(np.abs(model.predict(rows.test) - rows.y_test).mean())
    print(f"{full}: mean absolute error {error:.4f}, {model.n_epochs_} epochs", flush=True)
    network = model._rebuilt().encoder.model.model  # the network whose head is left behind
    unit = "eV" if "gap" in name else "eV/atom"
    return SourceCard.from_matgl(network, name=full, property=name, unit=unit, n_train=n, error=error, error_unit=unit)


def epochs_for(n: int) -> int:
    """About as many steps for few rows as for many."""
    return int(np.clip(24000 // n, 30, 150))


def from_nothing(card: SourceCard, n: int) -> FromNothing:
    """The same network, whose weights are random."""
    return FromNothing(card, epochs=epochs_for(n), patience=40, reinitialise_head=False)


def on(card: SourceCard, n: int) -> FullTransferRegressor:
    """Training of the whole network."""
    return FullTransferRegressor(card, epochs=epochs_for(n), patience=20)


def plan(
    start: SourceCard, sources: dict[str, Split], of: dict[str, Split], draw: int
) -> Iterator[tuple[Any, Callable]]:
    """Key of each fit, and what makes its estimator; the tables of the paper first, the sizes of the source last."""

    def source(name: str, n: int) -> SourceCard:
        return trained(start, name, sources[name], n, draw)

    largest = max(N_SOURCE)
    for target, rows in of.items():
        for n in (n for n in N_TARGET if n <= len(rows.train)):
            yield (draw, target, "descriptors", n, 0), lambda: TransferRegressor((), head="extra trees")
            yield (draw, target, "no transfer", n, 0), lambda n=n: from_nothing(start, n)
            for name in sources:
                yield (
                    (draw, target, f"head, {name}", n, largest),
                    lambda name=name: FullTransferRegressor(source(name, largest), epochs=0),
                )
                yield (draw, target, f"full, {name}", n, largest), lambda name=name, n=n: on(source(name, largest), n)
    for name in sources:
        for size in N_SOURCE[:-1]:
            for target, rows in of.items():
                n = min(AT_ONE_SIZE, max(n for n in N_TARGET if n <= len(rows.train)))
                yield (
                    (draw, target, f"full, {name}", n, size),
                    lambda name=name, n=n, size=size: on(source(name, size), n),
                )


def measure(results: ResultsFile, draws: int) -> None:
    from matgl.ext.pymatgen import get_element_list

    corpus = Corpus.read(Path(os.environ["SCOTL_MATGL_ASSETS"]) / "structures" / "crystals.json.gz")
    known = set(SOURCES.values()) | set(TARGETS.values())
    crystals = [
        crystal
        for crystal in corpus
        if len(crystal) <= MOST_ATOMS
        and known & crystal.properties.keys()
        and not isinstance(graph_or_reason(crystal, None, NETWORK["cutoff"]), str)  # of those every method can predict
    ]
    elements = tuple(get_element_list([crystal.to_structure() for crystal in crystals]))
    for draw in range(draws):
        of = {name: split(crystals, column, draw, set()) for name, column in TARGETS.items()}
        tested = {formula_of(row) for rows in of.values() for row in rows.test}
        sources = {name: split(crystals, column, draw, tested) for name, column in SOURCES.items()}
        for key, make in plan(untrained(elements, draw), sources, of, draw):
            if results.get(*key) is not None:
                continue
            rows, n = of[key[1]], key[3]
            model = make()
            started = time.process_time()
            error = float(np.abs(model.fit(rows.train[:n], rows.y_train[:n]).predict(rows.test) - rows.y_test).mean())
            spent = round(time.process_time() - started, 1)
            results.add(
                [dict(zip(KEY, key, strict=True)) | {"error": error, "seconds": spent, "n_test": len(rows.test)}]
            )
            print(*key, f"{error:.4f}", f"{spent:.0f} s", flush=True)


def summary(path: Path) -> pd.DataFrame:
    """Mean errors: a row for each target and method, a column for each number of rows of the target."""
    frame = pd.read_csv(path)
    largest = frame["n_source"].isin((0, max(N_SOURCE)))
    return frame[largest].pivot_table(index=["target", "method"], columns="n_target", values="error", sort=False)


def slopes(path: Path) -> pd.DataFrame:
    """Slopes of log error on log rows: of the target with the largest source, of the source at one target size."""
    frame = pd.read_csv(path)
    found = []
    for (target, method), rows in frame.groupby(["target", "method"], sort=False):
        by_target = rows[rows["n_source"].isin((0, max(N_SOURCE)))].groupby("n_target")["error"].mean()
        sizes = rows[rows["n_source"] < max(N_SOURCE)]["n_target"]
        by_source = rows[rows["n_target"] == sizes.max()].groupby("n_source")["error"].mean()
        slope = [
            np.polyfit(np.log(line.index), np.log(line), 1)[0] if len(line) > 2 else np.nan
            for line in (by_target, by_source)
        ]
        found.append({"target": target, "method": method, "of the target": slope[0], "of the source": slope[1]})
    return pd.DataFrame(found).set_index(["target", "method"])


def draw_figure(path: Path, file: Path) -> None:
    """Errors by rows of the target: a panel for each target."""
    import matplotlib as mpl

    mpl.use("Agg")
    import matplotlib.pyplot as plt

    from scotl_matgl.plotting.style import SERIES

    table = summary(path)
    targets = list(dict.fromkeys(table.index.get_level_values("target")))
    figure, axes = plt.subplots(1, len(targets), figsize=(4.0 * len(targets), 3.6), layout="constrained")
    for ax, target in zip(np.atleast_1d(axes), targets, strict=True):
        for i, (method, row) in enumerate(table.loc[target].iterrows()):
            colour, marker = SERIES[i % len(SERIES)]
            line = row.dropna()
            ax.loglog(line.index, line, "--" if i >= len(SERIES) else "-", color=colour, marker=marker, label=method)
        for axis in (ax.xaxis, ax.yaxis):
            axis.set_major_formatter("{x:g}")
            axis.set_minor_formatter("{x:.2g}" if axis is ax.yaxis else "")
        ax.set_xticks(table.loc[target].dropna(axis="columns").columns)
        ax.set_title(target, loc="left", fontsize="medium")
        ax.set_xlabel("crystals of the target")
        ax.set_ylabel("mean absolute error" + (" (eV)" if "gap" in target else ""))
    figure.legend(
        *np.atleast_1d(axes)[0].get_legend_handles_labels(), loc="outside lower center", ncols=3, frameon=False
    )
    figure.savefig(file)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--output", type=Path, default=Path("crystal_transfer.csv"))
    parser.add_argument("--draws", type=int, default=1)
    parser.add_argument("--summary", action="store_true")
    parser.add_argument("--figure", type=Path)
    options = parser.parse_args()
    if options.summary or options.figure:
        print(summary(options.output).round(4).to_string(), slopes(options.output).round(2).to_string(), sep="\n\n")
        if options.figure:
            draw_figure(options.output, options.figure)
        return
    warnings.simplefilter("ignore", ScotlMatglWarning)  # of unused crystals; one not predicted makes its error NaN
    measure(ResultsFile(options.output, key=KEY, columns=[*KEY, "error", "seconds", "n_test"]), options.draws)


if __name__ == "__main__":
    main()
