"""Which estimators can be fitted to an embedding and a kind of target, and why the others cannot."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from sklearn.base import clone

from scotl_matgl import registry
from scotl_matgl.estimators.base import TransferabilityEstimator


def embedding_estimators() -> list[str]:
    """Names of all registered estimators that are fitted on embeddings, not on the source's own output."""
    return [name for name in registry.names("estimators") if registry.load("estimators", name).takes == "embedding"]


def named_estimators(
    estimators: Sequence[Any], *, classification: bool, random_state: int = 0
) -> dict[str, TransferabilityEstimator]:
    """Unfitted estimators by name, without those that cannot be fitted (see :func:`left_out`).

    Parameters
    ----------
    estimators : sequence of str or TransferabilityEstimator
        Registered names or objects, which are cloned. Objects are named by their class, numbered where a name would
        come twice.
    classification : bool
        Whether the target holds class labels. Estimators given by name that could guess it are told.
    random_state : int, default=0
        Seed of the estimators given by name that have one.

    Raises
    ------
    PluginError
        If a name is not registered, or its import fails.

    Examples
    --------
    >>> from scotl_matgl.estimators import LogME
    >>> list(named_estimators(["loo", "forest", LogME(), LogME(normalize="l2")], classification=True))
    ['forest', 'LogME', 'LogME-2']
    """
    named: dict[str, TransferabilityEstimator] = {}
    for item in estimators:
        estimator = registry.load("estimators", item)() if isinstance(item, str) else clone(item)
        if _refusal(estimator, classification=classification):
            continue
        if isinstance(item, str):
            known = {"task": "classification" if classification else "regression", "random_state": random_state}
            estimator.set_params(**{key: value for key, value in known.items() if key in estimator.get_params()})
        name = item if isinstance(item, str) else type(item).__name__
        same = sum(other.partition("-")[0] == name for other in named)
        named[f"{name}-{same + 1}" if same else name] = estimator
    return named


def left_out(estimators: Sequence[Any], *, classification: bool) -> dict[str, str]:
    """Name of each estimator that cannot be fitted to embeddings and this kind of target, and why.

    Parameters
    ----------
    estimators, classification
        As for :func:`named_estimators`.

    Examples
    --------
    >>> left_out(["loo", "logme"], classification=True)
    {'loo': 'it takes no target for classification'}
    """
    reasons = {}
    for item in estimators:
        estimator = registry.load("estimators", item) if isinstance(item, str) else type(item)
        if reason := _refusal(estimator, classification=classification):
            reasons[item if isinstance(item, str) else estimator.__name__] = reason
    return reasons


def _refusal(estimator: Any, *, classification: bool) -> str:
    if estimator.takes != "embedding":
        return f"it takes the source's own {estimator.takes}, which a bridge does not give"
    wanted = "classification" if classification else "regression"
    return "" if wanted in estimator.tasks else f"it takes no target for {wanted}"
