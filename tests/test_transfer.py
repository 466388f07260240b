"""The transferred model: its blend against scikit-learn, honesty in cross-validation, tables, files and refusals."""

from __future__ import annotations

import pickle
import warnings
from collections.abc import Iterator

import numpy as np
import pandas as pd
import pytest
from sklearn.base import clone
from sklearn.compose import ColumnTransformer
from sklearn.ensemble import ExtraTreesRegressor, RandomForestRegressor
from sklearn.linear_model import Ridge
from sklearn.model_selection import GridSearchCV, KFold, cross_val_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.utils.estimator_checks import parametrize_with_checks

from scotl_matgl import TransferClassifier, TransferFeaturizer, TransferRegressor, load_example
from scotl_matgl.bridges.store import find_bridge
from scotl_matgl.cards import CardError, all_cards, select
from scotl_matgl.composition import CompositionError, parse_compositions
from scotl_matgl.descriptors import get_descriptor
from scotl_matgl.exceptions import InputError, ScotlMatglWarning
from scotl_matgl.heads import make_folds
from scotl_matgl.ranking import NO_TRANSFER

ENTHALPY = "MEGNet-MP-2018.6.1-Eform"


@pytest.fixture(scope="module", autouse=True)
def only_what_is_shipped(tmp_path_factory) -> Iterator[None]:
    """Neither bridges nor look-ups of the user."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SCOTL_MATGL_HOME", str(tmp_path_factory.mktemp("home")))
        yield


@pytest.fixture(scope="module")
def table() -> pd.DataFrame:
    return load_example().sample(160, random_state=1).reset_index(drop=True)


@pytest.fixture(scope="module")
def known(table) -> pd.DataFrame:
    return table[:80]


@pytest.fixture(scope="module")
def new(table) -> pd.DataFrame:
    return table[80:]


@pytest.fixture(scope="module")
def fitted(known) -> TransferRegressor:
    return TransferRegressor(["MEGNet-MP-2018*", "QET*"], head="kernel ridge").fit(known["formula"], known["target"])


def quick(sources=ENTHALPY, **parameters) -> TransferRegressor:
    return TransferRegressor(sources, **({"head": "kernel ridge", "n_sources": 1} | parameters))


def described(formulas) -> np.ndarray:
    return get_descriptor("standard").fit_transform(formulas)


def embedding(formulas, name: str = ENTHALPY) -> np.ndarray:
    (card,) = select(all_cards(), name)
    return find_bridge(card, "readout", get_descriptor("standard")).load().transform(described(formulas))


# -- the numeric path follows scikit-learn ----------------------------------------------------------------------------


@parametrize_with_checks(
    [TransferRegressor(sources=(), head=Ridge()), TransferClassifier(sources=(), head="kernel ridge")]
)
def test_follows_scikit_learn(estimator, check) -> None:
    check(estimator)
