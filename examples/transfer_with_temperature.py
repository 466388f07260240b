"""How is a property learned that depends on the formula and on the temperature, inside a scikit-learn pipeline?"""

from __future__ import annotations

import numpy as np
from sklearn.compose import ColumnTransformer
from sklearn.ensemble import ExtraTreesRegressor
from sklearn.model_selection import GroupKFold, cross_val_score
from sklearn.pipeline import make_pipeline

from scotl_matgl import TransferFeaturizer, TransferRegressor, load_example


def main() -> None:
    # Gibbs energies as a stand-in: the measured enthalpy, and an entropy term that grows with temperature.
    table = load_example().sample(60, random_state=0)
    table = table.loc[table.index.repeat(3)].reset_index(drop=True)
    table["temperature"] = np.tile([300.0, 600.0, 900.0], 60)
    y = table["target"] + 2e-4 * table["temperature"]
    X = table[["formula", "temperature"]]

    source = "MEGNet-MP-2018.6.1-Eform"
    columns = ColumnTransformer([("formula", TransferFeaturizer(source), ["formula"])], remainder="passthrough")
    forest = make_pipeline(columns, ExtraTreesRegressor(100, max_features=1 / 3, random_state=0))
    models = {"featurizer and forest": forest, "transferred model": TransferRegressor(source, formula="formula")}
    for name, model in models.items():
        # Rows of one formula belong together: a formula must not be predicted from itself at another temperature.
        scores = cross_val_score(model, X, y, groups=X["formula"], cv=GroupKFold(3), scoring="neg_mean_absolute_error")
        print(f"{name}: mean absolute error {-scores.mean():.3f} eV/atom")


if __name__ == "__main__":
    main()
