"""Does SCOTL's score rank its 24 source models as the error of a head on their frozen embeddings does?

Formation enthalpies, the five published folds: the score sees the training part of a fold, the error is that of its
test part. Random networks of the same shape show what an untrained source reaches.
Needs SCOTL_MATGL_ASSETS and openpyxl; 20 s on one core.
"""

from __future__ import annotations

import numpy as np
from scipy.stats import spearmanr
from sklearn.linear_model import RidgeCV

from scotl_matgl.estimators import SCOTL
from scotl_matgl.learners.kernel import kernel_out_of_fold, manhattan
from scotl_matgl_papers import random_control, scotl
from scotl_matgl_papers.published import read_table

PENALTIES = np.logspace(-6, 2, 17)


def main() -> dict[str, float]:
    table = read_table("efe")
    trained = scotl()
    cards = [*trained, *(random_control(seed) for seed in range(3))]
    rows = []
    for card in cards:
        Z = card.load().encode(table.formulas, dtype=np.float64)
        score = np.mean([SCOTL().fit(Z[train], table.y[train]).score_ for train, _ in table.folds])
        linear = np.empty_like(table.y)
        for train, test in table.folds:
            linear[test] = RidgeCV(PENALTIES).fit(Z[train], table.y[train]).predict(Z[test])
        kernel = kernel_out_of_fold(manhattan(Z), table.y[:, None], table.folds)[:, 0]
        rows.append((score, *(np.abs(predicted - table.y).mean() for predicted in (linear, kernel))))
    measured = np.array(rows)

    print(f"{'source':32}{'score':>7}{'error, ridge':>14}{'error, kernel':>15}   (eV/atom)")
    for index in np.argsort(-measured[:, 0]):
        print(f"{cards[index].name:32}{measured[index, 0]:7.3f}{measured[index, 1]:14.4f}{measured[index, 2]:15.4f}")

    models, controls = measured[: len(trained)], measured[len(trained) :]
    correlations = {
        head: float(spearmanr(models[:, 0], models[:, column]).statistic)
        for column, head in ((1, "ridge, tuned penalty"), (2, "kernel ridge"))
    }
    for head, correlation in correlations.items():
        print(f"Spearman of score and error, 24 models, {head}: {correlation:.3f}")
    worse = int((models[:, 2] > controls[:, 2].mean()).sum())
    print(f"models that are no better than the mean of the random networks (kernel ridge): {worse} of {len(models)}")
    return correlations


if __name__ == "__main__":
    main()
