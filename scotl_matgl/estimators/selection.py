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


def named_estimators(estimators: Sequence[Any], *, classification: bool) -> dict[str, TransferabilityEstimator]:
    """Unfitted estimators by name, without those that cannot be fitted (see :func:`left_out`).

    Parameters
    ----------
    estimators : sequence of str or TransferabilityEstimator
        Registered names or objects, which are cloned. Objects are named by their class, numbered where a name would
        come twice.
    classification : bool
        Whether the target holds class labels.

    Raises
    ------
    PluginError
        If a name is not registered, or its import fails.

    Examples
    --------
    >>> from scotl_matgl.estimators import LogME
    >>> list(named_estimators(["loo", LogME(), LogME(normalize="l2")], classification=True))
    ['LogME', 'LogME-2']
    """
    named: dict[str, TransferabilityEstimator] = {}
    for item in estimators:
        estimator = registry.load("estimators", item)() if isinstance(item, str) else clone(item)
        if _refusal(estimator, classification=classification):
            continue
        name = item if isinstance(item, str) else type(item).__name__
        same = sum(known.partition("-")[0] == name for known in named)
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
