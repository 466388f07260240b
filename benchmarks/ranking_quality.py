"""How good rankings are: all tables of targets, all sources, what rankings say and what unseen rows then show.

Run ``python benchmarks/ranking_quality.py --output FILE.csv`` with SCOTL_MATGL_ASSETS set. 50, 100, 200 and 400 rows
(draws; judged by at most 1,000 others) and whole tables (at most 1,000 rows, five folds), by kernel ridge, with nothing
screened out. What the results file holds already is not measured again; two processes may share it (``--part 0/2`` and
``--part 1/2``). The sources are all that are installed: with another zoo every ranking is measured anew. ``--summary``
prints the figures of docs/ranking_quality.md from the shipped results (five digits, compressed): those of the half of
the tables that constants were chosen on, and of the other, families kept together.
"""

from __future__ import annotations

import argparse
import itertools
import os
import sys
from pathlib import Path

import numpy as np
import pandas as pd

from scotl_matgl.studies.judging import judge_rankings, orders, reliability, static_lists, summarise
from scotl_matgl.studies.measuring import EvaluationSettings, evaluate
from scotl_matgl.tables.files import read_table

RESULTS = Path(__file__).parent / "results" / "ranking_quality.csv.xz"

LOGARITHMS = {"dielectric_const_expt", "estm_kappa_300K"}
CLASSES = {"expt_is_metal", "metallic_glass", "hea_single_phase"}

FAMILIES: dict[str, tuple[str, ...]] = {
    "gaps": ("expt_gap", "expt_gap_nonmetals", "expt_is_metal"),
    "thermoelectrics": (
        "estm_seebeck_300K", "estm_kappa_300K", "estm_log_sigma_300K", "estm_zt_300K", "estm_zt_700K",
    ),
    "lithium": ("li_ionic_conductivity_obelix", "li_ionic_conductivity_liion"),
    "alloys": ("mpea_hardness", "mpea_yield_25C", "hea_single_phase", "steels_yield", "fecni_thermal_expansion"),
    "glasses": ("metallic_glass", "bmg_bulk_modulus", "bmg_liquidus_temperature"),
    "phosphors": ("phosphor_emission", "phosphor_quantum_efficiency", "cr3_emission_width"),
    "crc": ("crc_density", "crc_entropy"),
}  # fmt: skip

#: Families, and tables that are one alone, on which the constants of ranking/judge.py were chosen.
CHOSEN_ON = (
    "gaps",
    "alloys",
    "lithium",
    "crc",
    "dielectric_const_expt",
    "oer_overpotential",
    "mineral_thermal_expansion",
)

ESTIMATORS = ("cka", "gcv", "knn", "linmse", "logme", "loo", "scotl", "transrate")


def family_of(table: str) -> str:
    return next((family for family, tables in FAMILIES.items() if table in tables), table)


def measure(names: list[str], sizes: list[int | None], repeats: int, path: Path) -> None:
    """One draw of all tables after the other, whole tables last: a run that is stopped leaves every table with some."""
    folder = Path(os.environ["SCOTL_MATGL_ASSETS"]) / "targets"
    drawn = [size for size in sizes if size is not None]
    rounds = [(repeat, drawn) for repeat in range(1, repeats + 1) if drawn]
    rounds += [(repeats, [None])] if None in sizes else []
    for (repeat, some), name in itertools.product(rounds, names):
        rows = read_table(folder / f"{name}.csv", formula="composition", target="target")
        y = np.log10(rows["target"].astype(float)) if name in LOGARITHMS else rows["target"]
        task = "classification" if name in CLASSES else "regression"
        settings = EvaluationSettings(
            head="kernel ridge",
            task=task,
            estimators=ESTIMATORS if task == "regression" else None,
            sizes=some,
            repeats=repeat,
        )
        evaluate(
            rows["composition"],
            y,
            table=name,
            path=path,
            settings=settings,
            progress=lambda line: print(line, file=sys.stderr, flush=True),
        )


def show(path: Path) -> None:
    frame = pd.read_csv(path, dtype={"size": str, "blocks": str, "fingerprint": str})
    pd.set_option("display.width", 180, "display.max_columns", 30, "display.max_rows", 200, "display.precision", 3)
    chosen = frame["table"].map(family_of).isin(CHOSEN_ON)
    families = {name: family_of(name) for name in frame["table"].unique()}
    static = static_lists(frame, families)
    for title, part in (("chosen on", frame[chosen]), ("reported on", frame[~chosen]), ("all tables", frame)):
        print(f"\n{title}: {part['table'].nunique()} tables")
        judged = judge_rankings(part)
        print(summarise(judged))
        print(reliability(judged))
        ways = orders(part, static=static)
        print(ways.pivot(index="way", columns="size", values="pairs").sort_values("100"))
        print(ways.pivot(index="way", columns="size", values="regret").sort_values("100"))


def main() -> None:
    folder = Path(os.environ["SCOTL_MATGL_ASSETS"]) / "targets"
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("tables", nargs="*", default=sorted(path.stem for path in folder.glob("*.csv")))
    parser.add_argument("--sizes", nargs="*", default=["50", "100", "200", "400", "whole"])
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--part", default="0/1", help="which of how many shares of the tables")
    parser.add_argument("--output", type=Path, default=RESULTS)
    parser.add_argument("--summary", action="store_true")
    options = parser.parse_args()
    if not options.summary:
        if options.output.suffix != ".csv":
            parser.error("measuring needs --output FILE.csv; the shipped results are for --summary")
        part, parts = map(int, options.part.split("/"))
        sizes = [None if size == "whole" else int(size) for size in options.sizes]
        measure(options.tables[part::parts], sizes, options.repeats, options.output)
    show(options.output)


if __name__ == "__main__":
    main()
