"""Matbench's four composition tables with Matbench's own folds: no transfer, and the transferred model.

Run ``python benchmarks/matbench.py`` with SCOTL_MATGL_ASSETS set. Everything that looks at the target, the choice of
the source included, happens inside `fit` on the training fold. Folds that ``benchmarks/results/matbench.csv`` holds
already are not measured again; ``--summary`` only prints the table.
"""

from __future__ import annotations

import argparse
import os
import time
import warnings
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from sklearn.ensemble import ExtraTreesRegressor
from sklearn.metrics import balanced_accuracy_score, mean_absolute_error, roc_auc_score
from sklearn.model_selection import KFold, StratifiedKFold

from scotl_matgl import SourceCard, TransferClassifier, TransferRegressor, all_cards, get_descriptor
from scotl_matgl.exceptions import ScotlMatglWarning
from scotl_matgl.tables.files import read_table

RESULTS = Path(__file__).parent / "results" / "matbench.csv"

#: Seed of Matbench's folds (A. Dunn et al., npj Comput. Mater. 2020, 6, 138, doi:10.1038/s41524-020-00406-3).
SEED = 18012019


@dataclass(frozen=True)
class Task:
    """A table of Matbench, the measure of its board, and figures of that board (2026)."""

    file: str
    name: str
    measure: str
    classification: bool
    board: str = ""


TASKS = (
    Task("steels_yield", "matbench_steels", "MAE (MPa)", False, "TPOT-Mat 79.95, AutoML-Mat 82.30, MODNet 87.8"),
    Task("expt_gap", "matbench_expt_gap", "MAE (eV)", False, "Darwin 0.2865, SAASBO-CrabNet 0.331, MODNet 0.333"),
    Task("expt_is_metal", "matbench_expt_is_metal", "ROC-AUC", True, "Darwin 0.960, AMMExpress 0.921"),
    Task("glass", "matbench_glass", "ROC-AUC", True, "MODNet 0.960, AMMExpress 0.861"),
)

#: What the board calls ROC-AUC is computed from labels, and is the balanced accuracy. Labels are those of
#: probabilities above the share of positive rows in the training fold, which is the threshold for it.
BALANCED = "balanced accuracy"


#: Plain extra trees on the standard descriptors, for tables of numbers: what the reading of the trees alone makes.
TREES = ("extra trees, mean", "extra trees, median")

METHODS = ("no transfer", "transfer", *TREES)


def predicted_by_trees(method: str, known: Any, y: Any, new: Any) -> Any:
    """Mean or median over the trees of a forest on descriptors."""
    descriptor = get_descriptor("standard").fit(known)
    X, X_new = (np.nan_to_num(descriptor.transform(part)) for part in (known, new))
    forest = ExtraTreesRegressor(100, max_features=1 / 3, random_state=0).fit(X, y)
    read = np.mean if method == TREES[0] else np.median
    return read([tree.predict(X_new) for tree in forest.estimators_], axis=0)


def fair_sources() -> list[SourceCard]:
    """All sources but those that were trained on measured values themselves, as the four-fidelity MEGNet on gaps."""
    return [card for card in all_cards() if "measured" not in card.dataset]


def folds(y: np.ndarray[Any, Any], *, classification: bool) -> list[tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]]:
    """Matbench's five folds, over the original order of the rows."""
    splitter: Callable[..., Any] = StratifiedKFold if classification else KFold
    return list(splitter(5, shuffle=True, random_state=SEED).split(y, y))


def measure(tasks: list[Task], methods: list[str], path: Path) -> None:
    """Measure what is not in the file yet, fold by fold."""
    folder = Path(os.environ["SCOTL_MATGL_ASSETS"]) / "matbench"
    for task in tasks:
        table = read_table(folder / f"{task.file}.csv", formula="formula", target="target")
        formulas = table["formula"].to_numpy()
        y = table["target"].to_numpy(dtype=int if task.classification else float)
        for fold, (train, test) in enumerate(folds(y, classification=task.classification)):
            for method in methods:
                keys = ["task", "method", "fold", "measure"]
                done = pd.read_csv(path) if path.is_file() else pd.DataFrame(columns=keys)
                last = BALANCED if task.classification else task.measure
                if (done[keys] == [task.name, method, fold, last]).all(axis=1).any():
                    continue
                if method in TREES and task.classification:
                    continue
                started = time.perf_counter()
                if method in TREES:
                    predicted = predicted_by_trees(method, formulas[train], y[train], formulas[test])
                    value, source = mean_absolute_error(y[test], predicted), ""
                    record(path, task, method, fold, value, source, time.perf_counter() - started)
                    continue
                kind = TransferClassifier if task.classification else TransferRegressor
                sources = fair_sources() if method == "transfer" else ()
                model = kind(sources, on_error="skip").fit(formulas[train], y[train])
                seconds = time.perf_counter() - started
                if not task.classification:
                    value = mean_absolute_error(y[test], model.predict(formulas[test]))
                    record(path, task, method, fold, float(value), model.source_, seconds)
                    continue
                positive = model.predict_proba(formulas[test])[:, 1]
                value = balanced_accuracy_score(y[test], positive > y[train].mean())
                record(path, task, method, fold, roc_auc_score(y[test], positive), model.source_, seconds)
                record(path, replace(task, measure=BALANCED), method, fold, value, model.source_, seconds)


def record(path: Path, task: Task, method: str, fold: int, value: float, source: str, seconds: float) -> None:
    """Add a line to the results."""
    row = {
        "task": task.name,
        "method": method,
        "fold": fold,
        "measure": task.measure,
        "value": round(float(value), 6),
        "source": source,
        "seconds": round(seconds, 1),
    }
    print(row, flush=True)
    pd.DataFrame([row]).to_csv(path, mode="a", header=not path.is_file(), index=False)


def show(path: Path) -> None:
    """Print mean and standard deviation over the folds, beside the board."""
    frame = pd.read_csv(path, keep_default_na=False)
    table = frame.groupby(["task", "measure", "method"])["value"].agg(["mean", "std", "count"]).round(4)
    print(table.to_string())
    for task in TASKS:
        if task.board:
            print(f"{task.name}, board, {BALANCED if task.classification else task.measure}: {task.board}")
    print(frame.groupby(["task", "method"])["source"].agg(lambda names: ", ".join(sorted(set(names)))).to_string())


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--tasks", nargs="*", default=[task.file for task in TASKS])
    parser.add_argument("--methods", nargs="*", default=METHODS)
    parser.add_argument("--path", type=Path, default=RESULTS)
    parser.add_argument("--summary", action="store_true")
    arguments = parser.parse_args()
    if not arguments.summary:
        warnings.simplefilter("ignore", ScotlMatglWarning)
        measure([task for task in TASKS if task.file in arguments.tasks], arguments.methods, arguments.path)
    show(arguments.path)


if __name__ == "__main__":
    main()
