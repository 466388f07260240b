"""What people would use instead, on the same rows: AutoGluon, MODNet and scikit-learn beside the transferred model.

Runs in an environment of its own, as AutoGluon brings a hundred packages:

    python -m venv peers && peers/bin/pip install torch . "autogluon.tabular[lightgbm,catboost,xgboost,fastai]"
    OMP_NUM_THREADS=1 peers/bin/python benchmarks/peers.py

with SCOTL_MATGL_ASSETS set. MODNet 0.4.5 wants TensorFlow below 2.16 and so NumPy 1, which this package does not
support but reads tables with; matminer 0.9 imports a name that SciPy 1.17 lacks. So MODNet has a third environment, and
is not among the default methods (modnet without its dependencies, as it asks for pandas 1.5):

    python3.11 -m venv modnet
    modnet/bin/pip install tensorflow-cpu==2.15.1 numpy==1.26.4 scipy==1.16.3 pandas==2.2.3 scikit-learn==1.9.1 skops
    modnet/bin/pip install pymatgen==2024.11.13 matminer==0.9.3 spglib==2.8.0 safetensors typer platformdirs openpyxl
    modnet/bin/pip install --no-deps modnet==0.4.5
    export OMP_NUM_THREADS=1 TF_NUM_INTRAOP_THREADS=1 TF_NUM_INTEROP_THREADS=1 PYTHONPATH=.
    modnet/bin/python benchmarks/peers.py --sizes 100 --methods "MODNet on matminer"

Ten tables of which none served to choose a constant of the ranking; 100 rows, and the
first of five folds of all (at most 1,000 rows). Error beside the CPU time of fitting and predicting, of child processes
too. Every method gets one thread; AutoGluon gets the descriptors of matminer, `high_quality`, and 240 s. What
``benchmarks/results/peers.csv`` holds already is not measured again; ``--summary`` only prints the table.
"""

from __future__ import annotations

import argparse
import resource
import tempfile
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from transfer_gain import read, splits

from scotl_matgl import TransferRegressor, all_cards, get_descriptor
from scotl_matgl.exceptions import ScotlMatglWarning
from scotl_matgl.tables.rows import Rows

RESULTS = Path(__file__).parent / "results" / "peers.csv"

TABLES = (
    "bmg_bulk_modulus", "bmg_liquidus_temperature", "cr3_emission_width", "estm_seebeck_300K", "estm_zt_300K",
    "expt_formation_enthalpy", "knn_curie_temperature", "melting_temperature_binaries", "phosphor_emission",
    "phosphor_quantum_efficiency",
)  # fmt: skip

Floats = NDArray[np.float64]


def transferred(table: Rows, train: Any, test: Any) -> Floats:
    """The transferred model; sources that were trained on measured values are left out."""
    sources = [card for card in all_cards() if "measured" not in card.dataset]
    return _ours(sources, table, train, test)


def not_transferred(table: Rows, train: Any, test: Any) -> Floats:
    """The same blend without sources."""
    return _ours((), table, train, test)


def _ours(sources: Any, table: Rows, train: Any, test: Any) -> Floats:
    known, new = ([table.compositions.text[row] for row in rows] for rows in (train, test))
    return np.asarray(TransferRegressor(sources, on_error="skip").fit(known, table.y[train]).predict(new))


def _described(name: str, table: Rows, train: Any, test: Any) -> tuple[Floats, Floats]:
    descriptor = get_descriptor(name).fit(table.compositions.take(train))
    X, X_new = (np.nan_to_num(descriptor.transform(table.compositions.take(rows))) for rows in (train, test))
    return X, X_new


def autogluon(table: Rows, train: Any, test: Any) -> Floats:
    """AutoGluon 1.6 on the standard descriptors: stacked and bagged trees, networks and neighbours."""
    from autogluon.tabular import TabularPredictor

    X, X_new = map(pd.DataFrame, _described("standard", table, train, test))
    with tempfile.TemporaryDirectory() as folder:
        predictor = TabularPredictor("y", eval_metric="mean_absolute_error", path=folder, verbosity=0)
        predictor.fit(X.assign(y=table.y[train]), presets="high_quality", time_limit=240, num_cpus=1, num_gpus=0)
        return np.asarray(predictor.predict(X_new))


def forest(table: Rows, train: Any, test: Any) -> Floats:
    """A random forest on magpie, as automatminer and many papers use it."""
    from sklearn.ensemble import RandomForestRegressor

    X, X_new = _described("magpie", table, train, test)
    return np.asarray(RandomForestRegressor(500, random_state=0).fit(X, table.y[train]).predict(X_new))


def support_vectors(table: Rows, train: Any, test: Any) -> Floats:
    """Support vectors on the standard descriptors, settings by five folds."""
    from sklearn.compose import TransformedTargetRegressor
    from sklearn.model_selection import GridSearchCV
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler
    from sklearn.svm import SVR

    X, X_new = _described("standard", table, train, test)
    grid = {"svr__C": [1, 10, 100], "svr__gamma": [0.0003, 0.001, 0.003, 0.01], "svr__epsilon": [0.01, 0.1]}
    search = GridSearchCV(make_pipeline(StandardScaler(), SVR()), grid, scoring="neg_mean_absolute_error", cv=5)
    return np.asarray(
        TransformedTargetRegressor(search, transformer=StandardScaler()).fit(X, table.y[train]).predict(X_new)
    )


def modnet(table: Rows, train: Any, test: Any) -> Floats:
    """MODNet 0.4.5 on its own matminer features of compositions, with its own presets, folds and ensemble.

    Relevance and redundancy rank the features on the training rows. Nine of the presets (three numbers of features,
    three rates of learning, one shape, batches of 64) are fitted in five inner folds with the stopping of `FitGenetic`,
    and the five best of each fold are averaged, as in `EnsembleMODNetModel.fit_preset`. The budget, eight minutes of a
    core, bounds it: the authors take twelve times as many presets, and five networks of each. This is the loop of
    `fit_preset` without its learning curves, to save time; `FitGenetic` does not run in Python 3.11. The target is
    standardized, as the stopping knows no units. Two settings of matminer are cheaper than its own, with which glasses
    take hours: one charge an element in `IonProperty`, clusters of four elements in `AtomicPackingEfficiency`.
    """
    import tensorflow as tf
    from matminer.featurizers.composition import AtomicPackingEfficiency, IonProperty
    from modnet.featurizers.presets import CompositionOnlyMatminer2023Featurizer
    from modnet.matbench.benchmark import matbench_kfold_splits
    from modnet.model_presets import gen_presets
    from modnet.models import EnsembleMODNetModel, MODNetModel
    from modnet.preprocessing import MODData
    from pymatgen.core import Composition, Element

    tf.keras.utils.set_random_seed(0)
    featurizer = CompositionOnlyMatminer2023Featurizer()
    fast = {AtomicPackingEfficiency: AtomicPackingEfficiency(max_types=4), IonProperty: IonProperty(fast=True)}
    featurizer.composition_featurizers = tuple(fast.get(type(one), one) for one in featurizer.composition_featurizers)
    rows = np.concatenate([train, test])
    center, spread = table.y[train].mean(), table.y[train].std()
    formulas = (table.compositions[row] for row in rows)
    materials = [Composition(zip(map(Element.from_Z, z.tolist()), x.tolist(), strict=True)) for z, x in formulas]
    data = MODData(materials, (table.y[rows] - center) / spread, target_names=["y"], featurizer=featurizer)
    data.featurize(n_jobs=1)
    known, new = data.split((np.arange(len(train)), np.arange(len(train), len(rows))))
    known.feature_selection(n=-1, n_jobs=1, random_state=0)
    most = len(known.optimal_features)
    presets = [one for one in gen_presets(max(128, most), len(train)) if one["num_neurons"][0] == [one["n_feat"]]]
    presets = [one for one in presets if one["batch_size"] == 64 and one["xscale"] == "minmax"]
    best = []
    for fold in matbench_kfold_splits(known):
        part, held = known.split(fold)
        models = []
        for preset in presets:
            model = MODNetModel(
                [[["y"]]], {"y": 1}, preset["num_neurons"], n_feat=min(preset["n_feat"], most), act=preset["act"]
            )
            stop = tf.keras.callbacks.EarlyStopping("loss", min_delta=0.001, patience=30)
            model.fit(part, lr=preset["lr"], epochs=800, batch_size=64, loss="mae", xscale="minmax", callbacks=[stop])
            models.append(model)
        best += sorted(models, key=lambda model: float(model.evaluate(held)))[:5]
    return np.asarray(EnsembleMODNetModel(models=best).predict(new)["y"]) * spread + center


METHODS = {
    "transferred model": transferred,
    "without sources": not_transferred,
    "support vectors on matminer": support_vectors,
    "random forest on magpie": forest,
    "AutoGluon on matminer": autogluon,
    "MODNet on matminer": modnet,
}


def cpu() -> float:
    """CPU seconds of this process and of those it has started and that have ended."""
    used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(part.ru_utime + part.ru_stime for part in used)


def measure(names: list[str], sizes: list[str], methods: list[str], path: Path) -> None:
    """Measure what is not in the file yet."""
    keys = ["table", "n", "method"]
    for n in sizes:
        for name in names:
            table = read(name)
            for _, train, test in splits(table, n, range(1)):
                for method in methods:
                    done = pd.read_csv(path, dtype={"n": str}) if path.is_file() else pd.DataFrame(columns=keys)
                    if (done[keys] == [name, n, method]).all(axis=1).any():
                        continue
                    started = cpu()
                    predicted = METHODS[method](table, train, test)
                    error = float(np.mean(np.abs(predicted - table.y[test])))
                    line = dict(zip(keys, (name, n, method), strict=True))
                    line |= {"n_train": len(train), "n_test": len(test), "error": f"{error:.6g}"}
                    line |= {"cpu_s": f"{cpu() - started:.2f}"}
                    pd.DataFrame([line]).to_csv(path, mode="a", header=not path.is_file(), index=False)
                    print(line, flush=True)


def show(path: Path) -> None:
    """Errors relative to the blend without sources, and CPU seconds."""
    frame = pd.read_csv(path, dtype={"n": str})
    errors = frame.pivot(index=["n", "table"], columns="method", values="error")
    ratios = errors.div(errors["without sources"], axis=0)[[method for method in METHODS if method in errors]]
    print(ratios.round(3).to_string())
    print(ratios.groupby("n").mean().round(3).to_string())
    print((ratios.rank(axis=1) == 1).groupby("n").sum().to_string())
    print(frame.groupby(["n", "method"])["cpu_s"].median().unstack()[ratios.columns].to_string())


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tables", nargs="*", default=TABLES)
    parser.add_argument("--sizes", nargs="*", default=["100", "all"])
    parser.add_argument("--methods", nargs="*", default=[method for method in METHODS if "MODNet" not in method])
    parser.add_argument("--path", type=Path, default=RESULTS)
    parser.add_argument("--summary", action="store_true")
    arguments = parser.parse_args()
    if not arguments.summary:
        warnings.simplefilter("ignore")  # of AutoGluon and scikit-learn; what this package says is shown
        warnings.simplefilter("default", ScotlMatglWarning)
        measure(arguments.tables, arguments.sizes, arguments.methods, arguments.path)
    show(arguments.path)


if __name__ == "__main__":
    main()
