"""What transfer gains over descriptors alone: the transferred model beside the same without sources, and a single head.

Run ``python benchmarks/transfer_gain.py`` with SCOTL_MATGL_ASSETS set; it takes whatever sources can be used. For each
table, 50 and 100 rows (repeats; tested on the rest, at most 1,000 rows), all rows (five folds; at most 1,000 rows), and
the whole of tables that have more (``--sizes whole``; minutes a fold).
All models of a line see the same rows. What ``benchmarks/results/transfer_gain.csv`` holds already is not measured
again; ``--summary`` only prints the figures.
"""

from __future__ import annotations

import argparse
import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from threadpoolctl import threadpool_limits

from scotl_matgl import TransferClassifier, TransferRegressor, get_descriptor
from scotl_matgl.learners.heads import HEADS, make_head
from scotl_matgl.sources.cards import all_cards
from scotl_matgl.tables.files import read_table
from scotl_matgl.tables.folds import make_folds
from scotl_matgl.tables.rows import Rows

RESULTS = Path(__file__).parent / "results" / "transfer_gain.csv"

LOGARITHMS = {"dielectric_const_expt", "estm_kappa_300K"}
CLASSES = {"expt_is_metal", "metallic_glass", "hea_single_phase"}

MOST_ROWS = 1000
FEWEST_TEST_ROWS = 40


def read(name: str) -> Rows:
    path = Path(os.environ["SCOTL_MATGL_ASSETS"]) / "targets" / f"{name}.csv"
    rows = read_table(path, formula="composition", target="target")
    y = np.log10(rows["target"]) if name in LOGARITHMS else rows["target"]
    return Rows.read(rows["composition"], y, task="classification" if name in CLASSES else "regression")


def splits(table: Rows, n: str, repeats: range) -> Iterator[tuple[int, Any, Any]]:
    """Number, training rows and test rows of each split."""
    m = len(table.y)
    if n == "all" or (n == "whole" and m > MOST_ROWS):
        rows = table.sample(MOST_ROWS if n == "all" else m, 0)
        folds = make_folds(table.y[rows], classification=table.classification, random_state=20_011)
        for number, (train, test) in enumerate(folds):
            if number in repeats:
                yield number, rows[train], rows[test]
    elif n != "whole" and m - int(n) >= FEWEST_TEST_ROWS:
        for repeat in repeats:
            order = np.random.default_rng([7, int(n), repeat]).permutation(m)
            yield repeat, np.sort(order[: int(n)]), np.sort(order[int(n) : int(n) + MOST_ROWS])


def control(table: Rows, X: Any, train: Any, test: Any, known: dict[str, float]) -> tuple[str, float]:
    """Best head on descriptors alone, by its out-of-fold error on the training rows, and its test error."""
    errors = {head: known[f"{head} on descriptors"] for head in HEADS}
    head = min(errors, key=errors.__getitem__)
    predicted = make_head(head, classification=table.classification).fit(X[train], table.y[train]).predict(X[test])
    return head, error(table, predicted, test)


def error(table: Rows, predicted: Any, test: Any) -> float:
    wrong = predicted != table.y[test] if table.classification else np.abs(predicted - table.y[test])
    return float(np.mean(wrong))


def measure(table: Rows, X: Any, train: Any, test: Any, sources: Any) -> dict[str, Any]:
    kind = TransferClassifier if table.classification else TransferRegressor
    known, new = ([table.compositions.text[row] for row in rows] for rows in (train, test))
    started = time.perf_counter()
    model = kind(sources, on_error="skip").fit(known, table.y[train])
    seconds = time.perf_counter() - started
    head, without = control(table, X, train, test, model.member_errors_)
    alone = kind(()).fit(known, table.y[train])
    line = {
        "n_train": len(train),
        "n_test": len(test),
        "control_head": head,
        "control": without,
        "no_transfer": error(table, alone.predict(new), test),
        "transfer": error(table, model.predict(new), test),
        "transfers": model.transfers_,
        "source": model.sources_[0].name,
        "n_sources": len(model.ranking_.results) + len(model.ranking_.screened),
        "within_90": float("nan"),
        "seconds": seconds,
    }
    if not table.classification:
        predicted, deviation = model.predict(new, return_std=True)
        line["within_90"] = float(np.mean(np.abs(predicted - table.y[test]) <= 1.645 * deviation))
    return line


def run(names: list[str], sizes: list[str], repeats: int, sources: Any, path: Path) -> None:
    done = set()
    if path.exists():
        done = set(pd.read_csv(path, dtype={"n": str})[["table", "n", "repeat"]].itertuples(index=False, name=None))
    path.parent.mkdir(exist_ok=True)
    tables = {name: read(name) for name in names}
    for repeat in range(repeats):
        for n in sizes:
            for name, table in tables.items():
                X = None
                for number, train, test in splits(table, n, range(repeat, repeat + 1)):
                    if (name, n, number) in done:
                        continue
                    X = get_descriptor("standard").fit_transform(table.compositions) if X is None else X
                    with threadpool_limits(1):
                        line = {"table": name, "n": n, "repeat": number} | measure(table, X, train, test, sources)
                    pd.DataFrame([line]).to_csv(path, mode="a", header=not path.exists(), index=False)
                    print(f"{name} {n} {number}: {line['transfer'] / max(line['control'], 1e-12):.3f}", flush=True)


def show(path: Path) -> None:
    """Ratio to the control: by table, the errors of its splits summed; by size, the mean over tables."""
    frame = pd.read_csv(path, dtype={"n": str})
    sums = frame.groupby(["table", "n"])[["control", "no_transfer", "transfer"]].mean()
    ratios = sums.div(sums["control"], axis=0).drop(columns="control")
    ratios.insert(0, "control", sums["control"])
    ratios["by transfer"] = ratios["transfer"] / ratios["no_transfer"]
    ratios["transfers"] = frame.groupby(["table", "n"])["transfers"].mean()
    ratios["within 90 %"] = frame.groupby(["table", "n"])["within_90"].mean()
    # Standard error of the ratio over splits, whose test rows overlap.
    paired = frame.assign(difference=frame["transfer"] - frame["control"]).groupby(["table", "n"])["difference"]
    ratios["s.e."] = paired.std() / np.sqrt(paired.count()) / sums["control"]
    ratios["splits"] = paired.count()
    pd.set_option("display.width", 200, "display.max_rows", 100, "display.max_columns", 20, "display.precision", 3)
    print(ratios)
    overall = ratios.groupby("n")[["no_transfer", "transfer", "by transfer", "transfers", "within 90 %"]].mean()
    overall["worst"] = ratios.groupby("n")["transfer"].max()
    overall["above 1.01"] = (ratios["transfer"] > 1.01).groupby("n").sum()
    overall["tables"] = ratios.groupby("n").size()
    print(overall)


def main() -> None:
    folder = Path(os.environ["SCOTL_MATGL_ASSETS"]) / "targets"
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("tables", nargs="*", default=sorted(path.stem for path in folder.glob("*.csv")))
    parser.add_argument("--sizes", nargs="*", default=["50", "100", "all"])
    parser.add_argument("--repeats", type=int, default=5)
    # Not those that were trained on measured values themselves, as the four-fidelity MEGNet on gaps.
    fair = [card.name for card in all_cards() if not card.trained_on_experiment]
    parser.add_argument("--sources", nargs="*", default=fair)
    parser.add_argument("--output", type=Path, default=RESULTS)
    parser.add_argument("--summary", action="store_true")
    options = parser.parse_args()
    if not options.summary:
        run(options.tables, options.sizes, options.repeats, options.sources, options.output)
    show(options.output)


if __name__ == "__main__":
    main()
