"""Experimental formation enthalpies, five folds: from scratch, published source models, ours, and no transfer.

    pip install ./plugins/scotl-matgl-papers
    OMP_NUM_THREADS=1 python benchmarks/formation_enthalpy.py [--only NAME]

Needs SCOTL_MATGL_ASSETS. Everything that is chosen, which source or which penalty, is chosen within the training part
of a fold; a model that is trained on starts as a fresh copy in each fold. Out-of-fold predictions are written to
results/formation_enthalpy.csv, in the order of the table, method by method; methods that are there are not computed
again, and the table printed at the end is of that file.
"""

from __future__ import annotations

import argparse
import os
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from scotl_matgl.chemistry.compositions import parse_compositions
from scotl_matgl.chemistry.corpus import Corpus
from scotl_matgl.chemistry.crystal_files import read_crystals
from scotl_matgl.chemistry.crystals import Crystal
from scotl_matgl.descriptors.composite import get_descriptor
from scotl_matgl.learners.heads import make_head
from scotl_matgl.learners.kernel import kernel_out_of_fold, manhattan
from scotl_matgl.sources.cards import SourceCard, all_cards, find, select
from scotl_matgl.tables.folds import Folds, make_folds

Floats = NDArray[np.float64]
RESULT = Path(__file__).parent / "results" / "formation_enthalpy.csv"


class Problem:
    """Table, folds and descriptors."""

    def __init__(self) -> None:
        path = Path(os.environ["SCOTL_MATGL_ASSETS"]) / "targets" / "expt_formation_enthalpy.csv"
        table = pd.read_csv(path, keep_default_na=False)
        self.formulas: list[str] = table.iloc[:, 0].tolist()
        self.y = table.iloc[:, 1].to_numpy(np.float64)
        self.folds: Folds = make_folds(self.y, classification=False)
        self.X: Floats = np.asarray(get_descriptor("standard").fit(self.formulas).transform(self.formulas))
        self._embeddings: dict[str, Floats] = {}

    def embedding(self, card: SourceCard) -> Floats:
        """Embedding by a composition source; formulas of elements that it does not know get the mean."""
        if card.name not in self._embeddings:
            Z = card.load().encode(self.formulas).astype(np.float64)
            self._embeddings[card.name] = np.where(np.isnan(Z), np.nanmean(Z, axis=0), Z)
        return self._embeddings[card.name]

    def out_of_fold(self, X: Floats, head: str) -> Floats:
        """Predictions of a head for the rows that it was not fitted on."""
        predicted = np.full(len(self.y), np.nan)
        for train, test in self.folds:
            predicted[test] = make_head(head).fit(X[train], self.y[train]).predict(X[test])
        return predicted

    def chosen(self, cards: list[SourceCard], *, beside: bool) -> Floats:
        """Kernel ridge on the source whose cross-validated error within the training rows is the smallest."""
        matrices = {card.name: self.matrix(card, beside=beside) for card in cards}
        predicted = np.full(len(self.y), np.nan)
        for train, test in self.folds:
            y = self.y[train]
            inner = make_folds(y, classification=False)

            def error(name: str, train: NDArray[np.int64] = train, y: Floats = y, inner: Folds = inner) -> float:
                X = matrices[name][train]
                scaled = (X - X.mean(axis=0)) / np.maximum(X.std(axis=0), 1e-9)
                return float(np.abs(kernel_out_of_fold(manhattan(scaled), y[:, None], inner)[:, 0] - y).mean())

            best = min(matrices, key=error)
            predicted[test] = make_head("kernel ridge").fit(matrices[best][train], y).predict(matrices[best][test])
        return predicted

    def matrix(self, card: SourceCard, *, beside: bool) -> Floats:
        """Embedding, alone or beside the descriptors."""
        Z = self.embedding(card)
        return np.hstack([self.X, Z]) if beside else Z


def from_scratch(problem: Problem) -> Floats:
    """A network of the size of SCOTL's composition branch and head, which has seen nothing but the training rows."""
    from sklearn.compose import TransformedTargetRegressor
    from sklearn.neural_network import MLPRegressor
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    predicted = np.full(len(problem.y), np.nan)
    for train, test in problem.folds:
        network = MLPRegressor(
            hidden_layer_sizes=(128, 128, 32),
            batch_size=32,
            alpha=1e-3,
            max_iter=300,
            n_iter_no_change=300,
            random_state=0,
        )
        model = TransformedTargetRegressor(make_pipeline(StandardScaler(), network), transformer=StandardScaler())
        predicted[test] = model.fit(problem.X[train], problem.y[train]).predict(problem.X[test])
    return predicted


def scotl() -> list[SourceCard]:
    from scotl_matgl_papers import scotl as cards

    return cards()


def cromel() -> list[SourceCard]:
    from scotl_matgl_papers import cromel as cards

    return cards()


def ours() -> list[SourceCard]:
    return [card for card in select(all_cards(), "SCOTL-*") if card.zoo == "own"]


def cromel_fine_tuned(problem: Problem, *, epochs: int, share_generator: bool = False) -> Floats:
    from scotl_matgl_papers.cromel_evaluation import out_of_fold

    encoder = select(cromel(), "CroMEL-CGCNN-MP-Eform")[0].load()
    return out_of_fold(
        encoder, problem.formulas, problem.y, problem.folds, epochs=epochs, share_generator=share_generator
    )


def transfer_regressor(problem: Problem, *, transfer: bool = True) -> Floats:
    """The sources of energies that come with the package, or none; ranked, chosen and blended within fit."""
    from scotl_matgl.transfer.estimators import TransferRegressor

    sources = [card for card in find(all_cards(), property="energy") if transfer and "papers" not in card.loader]
    predicted = np.full(len(problem.y), np.nan)
    for train, test in problem.folds:
        model = TransferRegressor(sources, on_error="skip")
        model.fit([problem.formulas[row] for row in train], problem.y[train])
        print(f"    {', '.join(f'{name} {weight:.2f}' for name, weight in model.members_.items())}", flush=True)
        predicted[test] = model.predict([problem.formulas[row] for row in test])
    return predicted


METHODS: dict[str, Callable[[Problem], Floats]] = {
    "no transfer: extra trees": lambda problem: problem.out_of_fold(problem.X, "extra trees"),
    "no transfer: kernel ridge": lambda problem: problem.out_of_fold(problem.X, "kernel ridge"),
    "no transfer: TransferRegressor": lambda problem: transfer_regressor(problem, transfer=False),
    "from scratch: network, 300 epochs": from_scratch,
    "SCOTL published, 24 models, embedding": lambda problem: problem.chosen(scotl(), beside=False),
    "SCOTL published, 24 models, descriptors ⊕ embedding": lambda problem: problem.chosen(scotl(), beside=True),
    "CroMEL published, 4 models, embedding": lambda problem: problem.chosen(cromel(), beside=False),
    "CroMEL published, 4 models, descriptors ⊕ embedding": lambda problem: problem.chosen(cromel(), beside=True),
    "CroMEL published, fine-tuned 300 epochs, fresh copy a fold": lambda problem: cromel_fine_tuned(
        problem, epochs=300
    ),
    "CroMEL published, fine-tuned 1,000 epochs, fresh copy a fold": lambda problem: cromel_fine_tuned(
        problem, epochs=1000
    ),
    "CroMEL published, fine-tuned 1,000 epochs, one generator through all folds": lambda problem: cromel_fine_tuned(
        problem, epochs=1000, share_generator=True
    ),
    "ours, SCOTL sources, embedding": lambda problem: problem.chosen(ours(), beside=False),
    "ours, SCOTL sources, descriptors ⊕ embedding": lambda problem: problem.chosen(ours(), beside=True),
    "ours, TransferRegressor over the sources of energies": transfer_regressor,
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only", default="", help="methods whose name contains this, computed anew")
    arguments = parser.parse_args()
    problem = Problem()
    if RESULT.is_file():
        table = pd.read_csv(RESULT, keep_default_na=False)
        # Those of the file, so that a method that is added is measured on the folds of the others.
        held_out = [table["fold"].to_numpy() == fold for fold in range(5)]
        problem.folds = [(np.flatnonzero(~rows), np.flatnonzero(rows)) for rows in held_out]
    else:
        table = pd.DataFrame({"fold": np.full(len(problem.y), -1)})
        for fold, (_, test) in enumerate(problem.folds):
            table.loc[test, "fold"] = fold
    for name, method in METHODS.items():
        if (arguments.only and arguments.only not in name) or (not arguments.only and name in table):
            continue
        started = time.process_time()
        table[name] = np.round(method(problem), 5)
        table.to_csv(RESULT, index=False)
        print(f"{name}: {time.process_time() - started:.0f} s of CPU", flush=True)

    y, known = problem.y, calculated(problem.formulas)
    print(f"\n{known.sum()} of {len(known)} formulas have a calculated formation energy in the corpus\n")
    print("| method | MAE, eV/atom | of formulas in the corpus | of others | R² | R² of the folds |")
    print("| --- | ---: | ---: | ---: | ---: | --- |")
    for name in table.columns[1:]:
        error = table[name].to_numpy() - y
        folds = [
            1 - np.mean(error[rows] ** 2) / np.var(y[rows]) for rows in (table["fold"] == fold for fold in range(5))
        ]
        print(
            f"| {name} | {np.abs(error).mean():.4f} | {np.abs(error[known]).mean():.4f} | "
            f"{np.abs(error[~known]).mean():.4f} | {1 - np.mean(error**2) / np.var(y):.3f} | "
            f"{' '.join(f'{value:.3f}' for value in folds)} |"
        )


def calculated(formulas: list[str]) -> NDArray[np.bool_]:
    """Whether the corpus has a calculated formation energy of a formula."""
    path = Path(os.environ["SCOTL_MATGL_ASSETS"]) / "structures" / "crystals.json.gz"
    corpus = Corpus(
        c for c in read_crystals(path) if isinstance(c, Crystal) and "formation_energy_eV_atom" in c.properties
    )
    return np.isin(parse_compositions(formulas).keys(), corpus.compositions.keys())


if __name__ == "__main__":
    main()
