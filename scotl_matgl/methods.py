"""The methods that learning curves and validation measure: those given, or with and without transfer."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from scotl_matgl.control import NoTransferClassifier, NoTransferRegressor
from scotl_matgl.exceptions import InputError
from scotl_matgl.ranking import NO_TRANSFER


def named_methods(methods: Any, *, classification: bool) -> dict[str, Any]:
    """Estimators by name.

    Parameters
    ----------
    methods : None, estimator, or mapping of str to estimator
        None: descriptors and the best head, without transfer. A single estimator is named by its class.
    classification : bool
        Whether the target is of class labels.

    Raises
    ------
    InputError
        If there is none, or one has no ``fit`` and ``predict``.
    """
    if methods is None:
        return {NO_TRANSFER: NoTransferClassifier() if classification else NoTransferRegressor()}
    chosen = dict(methods) if isinstance(methods, Mapping) else {type(methods).__name__: methods}
    if not chosen:
        raise InputError("there is no method to measure; give at least one estimator")
    for name, method in chosen.items():
        if isinstance(method, type) or not (hasattr(method, "fit") and hasattr(method, "predict")):
            raise InputError(f"{name} is {method!r}; give an unfitted estimator with fit and predict")
    return chosen
