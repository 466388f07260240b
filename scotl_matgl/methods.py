"""The methods that learning curves and validation measure: those given, or descriptors with and without transfer."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from scotl_matgl.exceptions import InputError
from scotl_matgl.ranking import NO_TRANSFER


def named_methods(methods: Any, *, classification: bool) -> dict[str, Any]:
    """Estimators by name.

    Parameters
    ----------
    methods : None, str, estimator, or mapping of str to estimator
        None: heads on descriptors alone, and the same with transfer from the sources that are ranked best inside
        ``fit`` (:class:`~scotl_matgl.transfer.TransferRegressor` or ``TransferClassifier``). A text: these two with the
        head of that name, of which ``"kernel ridge"`` is the fastest. A single estimator is named by its class.
    classification : bool
        Whether the target is of class labels.

    Raises
    ------
    InputError
        If there is none, or one has no ``fit`` and ``predict``.
    """
    if methods is None or isinstance(methods, str):
        from scotl_matgl.transfer import TransferClassifier, TransferRegressor

        kind = TransferClassifier if classification else TransferRegressor
        # A source without a bridge is no news in each of many fits.
        common: dict[str, Any] = {"head": methods or "auto", "on_error": "skip"}
        return {NO_TRANSFER: kind(sources=[], **common), "transfer": kind(**common)}
    chosen = dict(methods) if isinstance(methods, Mapping) else {type(methods).__name__: methods}
    if not chosen:
        raise InputError("there is no method to measure; give at least one estimator")
    for name, method in chosen.items():
        if isinstance(method, type) or not (hasattr(method, "fit") and hasattr(method, "predict")):
            raise InputError(f"{name} is {method!r}; give an unfitted estimator with fit and predict")
    return chosen
