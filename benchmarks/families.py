"""What each family of sources adds beside the others: leave one family out of the zoo, on all tables.

``python benchmarks/families.py --output FOLDER [TABLE ...]`` with SCOTL_MATGL_ASSETS set; resumable, about 4 s of CPU a
table, then ``--summary`` prints the lines of docs/measurements.md. At most 400 rows a table, four draws of 100 of them;
sources are ordered as a ranking orders them, by out-of-fold errors of kernel ridge on the 100, and the first five
together predict the others. No look-up. Sources that saw measured values are left out.
"""

from __future__ import annotations

import argparse
import os
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from ranking_quality import CHOSEN_ON, family_of
from scipy.spatial.distance import pdist, squareform
from threadpoolctl import threadpool_limits
from transfer_gain import read

from scotl_matgl.bridges.embedding import embed_source
from scotl_matgl.descriptors.composite import get_descriptor
from scotl_matgl.descriptors.described import Described
from scotl_matgl.learners.kernel import kernel_out_of_folds
from scotl_matgl.learners.scaling import ColumnScale
from scotl_matgl.sources.cards import all_cards, select
from scotl_matgl.sources.seen import training_formulas
from scotl_matgl.tables.folds import make_folds
from scotl_matgl.tables.rows import Rows

DRAWS, ROWS, TRAIN = 4, 400, 100
TOGETHER, ALONE = 5, 2.0

#: Zoo, or what a name begins with.
FAMILIES: dict[str, Callable[[str, str], bool]] = {
    "MatGL": lambda zoo, _: zoo == "matgl",
    "Keras MEGNet": lambda zoo, _: zoo == "megnet",
    "CGCNN": lambda zoo, _: zoo == "cgcnn",
    "SCOTL": lambda _, name: name.startswith("SCOTL"),
    "Shotgun": lambda zoo, _: zoo == "shotgun",
    "calculated properties, alone": lambda zoo, name: zoo == "properties" and name.startswith(("JARVIS", "AFLOW")),
    "facts of crystals": lambda _, name: name.startswith("Crystal") or name == "Kindred-Crystal",
    "kindred properties": lambda zoo, name: zoo == "properties" and name.startswith("Kindred"),
    "attention between elements": lambda _, name: name.startswith("Attention"),
    "all of calculated properties": lambda zoo, _: zoo == "properties",
    "element vectors": lambda zoo, _: zoo == "elements",
    # With their plugins installed.
    "CHGNet": lambda zoo, _: zoo == "chgnet",
    "SevenNet": lambda zoo, _: zoo == "sevennet",
    "DIEP": lambda zoo, _: zoo == "diep",
    "potentials of plugins": lambda zoo, _: zoo in ("chgnet", "sevennet", "diep"),
}
NEW = ("properties", "elements")


def distances(X: Any, train: Any) -> Any:
    """Pairwise distances of columns scaled as those of the training rows."""
    scaled = ColumnScale.of(X[train]).apply(X)
    return squareform(pdist(scaled, "cityblock")) if scaled.shape[1] else None


def predict(D: Any, train: Any, test: Any, Y: Any, sets: Any) -> tuple[Any, Any]:
    """Predictions for the test rows, and out of fold for the training rows."""
    inner = D[np.ix_(train, train)]
    folds, alpha = kernel_out_of_folds(inner, Y[train], sets)
    length = np.median(inner[np.triu_indices(len(inner), 1)]) or 1.0  # 0 where a source refuses most formulas
    kernel = np.exp(-inner / length) + alpha * np.eye(len(inner))
    solved = np.linalg.solve(kernel, np.column_stack([Y[train], np.ones(len(inner))]))
    intercept = solved[:, :-1].sum(axis=0) / solved[:, -1].sum()
    coefficients = solved[:, :-1] - np.outer(solved[:, -1], intercept)
    return np.exp(-D[np.ix_(test, train)] / length) @ coefficients + intercept, folds


def losses(predicted: Any, true: Any, classification: bool) -> Any:
    return ((predicted - true) ** 2).sum(axis=-1) if classification else np.abs(predicted - true).mean(axis=-1)


def measure(table: Rows, cards: Sequence[Any]) -> dict[str, Any]:
    rows = table.sample(ROWS, 0)
    compositions, y = table.compositions.take(rows), table.y[rows]
    classes = table.classification
    Y = np.eye(len(table.classes))[y.astype(int)] if classes else y[:, None].astype(float)
    described = Described.of(compositions, get_descriptor("standard").fit(compositions))
    orders = [np.random.default_rng([7, TRAIN, draw]).permutation(len(rows)) for draw in range(DRAWS)]
    splits = [(np.sort(order[:TRAIN]), np.sort(order[TRAIN:])) for order in orders]
    sets = [[make_folds(y[train], classification=classes, random_state=r) for r in range(3)] for train, _ in splits]
    own = [distances(described.filled, train) for train, _ in splits]
    control = [predict(D, *split, Y, folds)[0] for D, split, folds in zip(own, splits, sets, strict=True)]
    found: dict[str, list[Any]] = {"names": [], "zoos": [], "criterion": [], "predictions": []}
    for card in cards:
        try:
            ((_, embedded),) = embed_source(card, described, look_up=False)["readout"]
        except ValueError:  # it refuses every formula
            continue
        between = [distances(embedded.values, train) for train, _ in splits]
        if any(D is None for D in between):
            continue
        criterion, predictions = [], []
        for base, D, (train, test), folds in zip(own, between, splits, sets, strict=True):
            predicted, beside = predict(base + D, train, test, Y, folds)
            _, alone = predict(D, train, test, Y, folds)
            errors = [np.mean([losses(p, Y[train], classes).mean() for p in part]) for part in (beside, alone)]
            criterion.append(np.log(errors[0]) + ALONE / np.sqrt(TRAIN) * np.log(errors[1]))
            predictions.append(predicted)
        for key, value in zip(found, (card.name, card.zoo, criterion, predictions), strict=True):
            found[key].append(value)
    seen = training_formulas().members(compositions.keys()).any(axis=1)
    return {
        **{key: np.array(value) for key, value in found.items()},
        "control": np.array(control),
        "test": np.array([Y[test] for _, test in splits]),
        "seen": np.array([seen[test] for _, test in splits]),
        "classification": np.array(classes),
    }


def ratio(result: Any, keep: Callable[[str, str], bool], rows: Any = None) -> float:
    """Error of the first five of some sources together, as a share of the control's; NaN without rows."""
    chosen = np.array([keep(zoo, name) for zoo, name in zip(result["zoos"], result["names"], strict=True)])
    criterion, predictions = result["criterion"][chosen], result["predictions"][chosen]
    known = np.ones(result["test"].shape[:2], dtype=bool) if rows is None else rows
    above = below = 0.0
    for draw in range(DRAWS):
        first = np.argsort(criterion[:, draw])[:TOGETHER]
        together = predictions[first, draw].mean(axis=0)
        true, classes = result["test"][draw], bool(result["classification"])
        above += losses(together, true, classes)[known[draw]].sum()
        below += losses(result["control"][draw], true, classes)[known[draw]].sum()
    return above / below if known.sum() >= 40 else float("nan")


def show(folder: Path) -> None:
    results = {path.stem: dict(np.load(path)) for path in sorted(folder.glob("*.npz"))}
    chosen = np.array([family_of(name) in CHOSEN_ON for name in results])

    def line(label: str, keep: Callable[[str, str], bool]) -> None:
        ratios = np.array([ratio(result, keep) for result in results.values()])
        halves = " | ".join(f"{ratios[half].mean():.4f}" for half in (chosen, ~chosen))
        print(f"| {label} | {halves} | {ratios.max():.3f} |")

    print("| zoo | choosing half | reporting half | worst table |\n| --- | ---: | ---: | ---: |")
    line("all", lambda *_: True)
    line("all but the new ones", lambda zoo, _: zoo not in NEW)
    for name, inside in FAMILIES.items():
        line(f"all but {name}", lambda zoo, source, inside=inside: not inside(zoo, source))
    print(
        "\n| table | all | without the new ones | all, unseen formulas | without, unseen |\n"
        "| --- | ---: | ---: | ---: | ---: |"
    )
    rows = []
    for table, result in results.items():
        old = lambda zoo, _: zoo not in NEW  # noqa: E731 - the two predicates of a line
        unseen = ~result["seen"]
        rows.append([ratio(result, keep, part) for part in (None, unseen) for keep in (lambda *_: True, old)])
        print(f"| {table} | " + " | ".join(f"{value:.3f}" for value in rows[-1]) + " |")
    print("| mean | " + " | ".join(f"{value:.4f}" for value in np.nanmean(rows, axis=0)) + " |")


def main() -> None:
    tables = sorted(path.stem for path in (Path(os.environ["SCOTL_MATGL_ASSETS"]) / "targets").glob("*.csv"))
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("tables", nargs="*", default=tables)
    parser.add_argument("--output", type=Path, required=True)
    parser.add_argument("--summary", action="store_true")
    options = parser.parse_args()
    options.output.mkdir(parents=True, exist_ok=True)
    cards = select(all_cards(), "calculated")
    for name in [] if options.summary else options.tables:
        path = options.output / f"{name}.npz"
        table = read(name)
        if path.exists() or len(table.y) < TRAIN + 40:
            continue
        started = time.process_time()
        with threadpool_limits(1):
            np.savez_compressed(path, **measure(table, cards))
        print(f"{name}: {time.process_time() - started:.1f} s", flush=True)
    show(options.output)


if __name__ == "__main__":
    main()
