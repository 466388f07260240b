"""How good are the rankings: every score beside what transfer really gives, on fourteen tables of measurements.

Run ``python benchmarks/ranking_quality.py`` with SCOTL_MATGL_ASSETS set; it takes whatever sources have a bridge. What
``benchmarks/results/ranking_quality.csv`` holds already is not measured again. ``--summary`` only prints the figures.
"""

from __future__ import annotations

import argparse
import os
import time
import warnings
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import sklearn
from threadpoolctl import threadpool_limits

from scotl_matgl.exceptions import ScotlMatglWarning
from scotl_matgl.studies.judging import judge, summarise
from scotl_matgl.studies.measuring import evaluate
from scotl_matgl.tables.files import read_table

# A table with fewer certain pairs says too little about the order to be shown as a point.
FEWEST_PAIRS = 10

RESULTS = Path(__file__).parent / "results" / "ranking_quality.csv"


@dataclass(frozen=True)
class Table:
    """A table of `targets`, and the half it belongs to: scores are selected on one and reported on the other.

    Tables of one family (the same measurements, or the same formulas) are in the same half.
    """

    name: str
    half: str
    logarithm: bool = False
    classification: bool = False


TABLES = (
    Table("mpea_hardness", "select"),
    Table("expt_formation_enthalpy", "report"),
    Table("melting_temperature_binaries", "select"),
    Table("li_ionic_conductivity_obelix", "report"),
    Table("dielectric_const_expt", "select", logarithm=True),
    Table("steels_yield", "report"),
    Table("mpea_yield_25C", "select"),
    Table("estm_seebeck_300K", "report"),
    Table("estm_log_sigma_300K", "report"),
    Table("estm_kappa_300K", "report", logarithm=True),
    Table("estm_zt_300K", "report"),
    Table("expt_gap_nonmetals", "select"),
    Table("metallic_glass", "report", classification=True),
    Table("expt_gap", "select"),
)


def measure(tables: list[Table], sources: list[str], path: Path, repeats: int, fold_repeats: int) -> None:
    """Evaluate the tables one after the other."""
    folder = Path(os.environ["SCOTL_MATGL_ASSETS"]) / "targets"
    started = time.monotonic()
    for table in tables:
        rows = read_table(folder / f"{table.name}.csv", formula="composition", target="target")
        y = np.log10(rows["target"]) if table.logarithm else rows["target"]
        with warnings.catch_warnings():
            # The sources without a bridge are the same for all tables.
            warnings.simplefilter("ignore" if table is not tables[0] else "default", ScotlMatglWarning)
            evaluate(
                rows["composition"],
                y,
                sources or "all",
                table=table.name,
                path=path,
                task="classification" if table.classification else "regression",
                repeats=repeats,
                fold_repeats=fold_repeats,
                progress=lambda line: print(f"{time.monotonic() - started:7.0f} s  {line}", flush=True),
            )


def show(path: Path, caution: float) -> None:
    """Print the figures for both halves and for all tables."""
    frame = pd.read_csv(path)
    pd.set_option("display.width", 220, "display.max_columns", 30, "display.max_rows", 200, "display.precision", 3)
    halves = {table.name: table.half for table in TABLES}
    for half in ("select", "report", "all"):
        part = frame[(frame["table"].map(halves) == half) | (half == "all")]
        if len(part):
            print(f"\n{half}: {', '.join(part['table'].unique())}")
            print(summarise(part, caution=caution))


def draw(path: Path, figure_path: Path) -> None:
    """Share of certain pairs ordered rightly by each score, one point a table and the mean as a bar, by protocol."""
    import matplotlib as mpl

    mpl.use("svg")
    import matplotlib.pyplot as plt

    judged = judge(pd.read_csv(path))
    counts = judged.groupby(["protocol", "score", "table"])[["right", "pairs"]].sum()
    counts = counts[counts["pairs"] >= FEWEST_PAIRS]
    share = counts["right"] / counts["pairs"]
    titles = {"E": "E: embedding alone, random forest", "D": "D: descriptors beside embedding, same head"}
    figure, axes = plt.subplots(1, 2, figsize=(11, 6.5), layout="constrained")
    for axis, (protocol, title) in zip(axes, titles.items(), strict=True):
        by_table = share[protocol].unstack("table")
        means = by_table.mean(axis=1).sort_values()
        axis.barh(means.index, means, color="0.85")
        for place, score in enumerate(means.index):
            axis.plot(by_table.loc[score], np.full(by_table.shape[1], place), "k.", markersize=4, alpha=0.6)
        axis.axvline(0.5, color="0.5", linewidth=0.8)
        axis.set(title=title, xlim=(0, 1.02), xlabel="pairs of sources ordered rightly")
        axis.tick_params(axis="y", labelsize=8)
    figure.savefig(figure_path)


def main() -> None:
    """Parse the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--sources", nargs="*", default=[], help="names, with * as wildcard; default: all")
    parser.add_argument("--tables", nargs="*", default=[], help="default: all")
    parser.add_argument("--repeats", type=int, default=3, help="random subsets of each size")
    parser.add_argument("--fold-repeats", type=int, default=1, help="cross-validations at full size")
    parser.add_argument("--caution", type=float, default=0.0)
    parser.add_argument("--output", type=Path, default=RESULTS)
    parser.add_argument("--summary", action="store_true", help="measure nothing, print the figures")
    parser.add_argument("--figure", type=Path, help="where to draw the share of pairs ordered rightly (SVG)")
    arguments = parser.parse_args()
    if not arguments.summary:
        tables = [table for table in TABLES if not arguments.tables or table.name in arguments.tables]
        with threadpool_limits(1), sklearn.config_context(assume_finite=True, skip_parameter_validation=True):
            measure(tables, arguments.sources, arguments.output, arguments.repeats, arguments.fold_repeats)
    show(arguments.output, arguments.caution)
    if arguments.figure is not None:
        draw(arguments.output, arguments.figure)


if __name__ == "__main__":
    main()
