"""What the sources that let elements attend to each other add to the transferred model, on two tables typed by hand.

``OMP_NUM_THREADS=1 python benchmarks/minerals.py``: three times five folds, five minutes of one core. The tables
(``benchmarks/minerals``) are common values of minerals and salts; they were made after those sources, and served to
choose nothing.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
from sklearn.model_selection import RepeatedKFold
from threadpoolctl import threadpool_limits

from scotl_matgl import TransferRegressor, all_cards


def main() -> None:
    """Print mean absolute errors, and in how many folds the sources help."""
    fair = [card.name for card in all_cards() if not card.trained_on_experiment]
    models = {
        "no transfer": [],
        "without": [name for name in fair if not name.startswith("Attention")],
        "with": fair,
    }
    for path in sorted(Path(__file__).with_name("minerals").glob("*.csv")):
        table = pd.read_csv(path)
        formulas, y = (table[column].to_numpy() for column in table.columns)
        errors: dict[str, list[float]] = {name: [] for name in models}
        for train, test in RepeatedKFold(n_splits=5, n_repeats=3, random_state=0).split(formulas):
            for name, sources in models.items():
                with threadpool_limits(1):
                    model = TransferRegressor(sources, random_state=0, on_error="skip").fit(formulas[train], y[train])
                errors[name].append(float(np.abs(model.predict(formulas[test]) - y[test]).mean()))
        means = ", ".join(f"{name} {np.mean(found):.4f}" for name, found in errors.items())
        print(
            f"{path.stem}: {means}; better with them in {np.less(errors['with'], errors['without']).sum()} of 15 folds"
        )


if __name__ == "__main__":
    main()
