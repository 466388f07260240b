"""What does a generator that is shared between folds add to CroMEL's cross-validated accuracy?

The published cross-validation passes one generator object through all folds and trains it in each: from the second fold
on it has been trained on the rows that it is tested on. Beside it: a fresh copy for each fold.
Needs SCOTL_MATGL_ASSETS and openpyxl. Epochs per fold are the first argument (default 60, half a minute; published
1,000).
"""

from __future__ import annotations

import sys

import numpy as np
from sklearn.metrics import r2_score

from scotl_matgl.plugin import select
from scotl_matgl_papers import cromel
from scotl_matgl_papers.cromel_evaluation import out_of_fold
from scotl_matgl_papers.published import read_table


def main(epochs: int = 60) -> dict[str, list[float]]:
    table = read_table("efe")
    encoder = select(cromel(), "CroMEL-CGCNN-MP-Eform")[0].load()
    print(f"{encoder.card.name}, {len(table.y)} formation enthalpies, {epochs} epochs per fold; R² of the five folds:")
    found = {}
    for label, share in (("shared generator, as published", True), ("fresh copy per fold", False)):
        predicted = out_of_fold(
            encoder, table.formulas, table.y, table.folds, share_generator=share, epochs=epochs, random_state=0
        )
        scores = [float(r2_score(table.y[test], predicted[test])) for _, test in table.folds]
        print(f"{label:32}{'  '.join(f'{score:.3f}' for score in scores)}   mean {np.mean(scores):.3f}")
        found[label] = scores
    return found


if __name__ == "__main__":
    main(*map(int, sys.argv[1:2]))
