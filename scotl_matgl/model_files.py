"""Fitted models in files without pickle: which types of this package a file may hold, and what is left out of it."""

from __future__ import annotations

import copy
import zipfile
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeVar

from scotl_matgl.cards import SourceCard
from scotl_matgl.exceptions import InputError

Model = TypeVar("Model")

# Types of this package that a file may name. All of them hold data only; none runs what a file says.
_OURS = frozenset(
    f"scotl_matgl.{name}"
    for name in (
        "blending.Member",
        "bridges.adversarial.AdversarialBridge",
        "bridges.alignment.AlignmentBridge",
        "bridges.base.BridgeQuality",
        "bridges.mlp.MLPBridge",
        "bridges.ridge.RidgeBridge",
        "composition.SkippedRow",
        "domain.TrainingDomain",
        "fine_tuning.FineTunedBridge",
        "full_training.FullTransferRegressor",
        "heads.HeldRidge",
        "heads.LaplacianKernelClassifier",
        "heads.LaplacianKernelRidge",
        "heads._Scale",
        "ranking.Ranking",
        "ranking.SourceResult",
        "source_embedding.SourceEmbedding",
        "transfer.TransferClassifier",
        "transfer.TransferRegressor",
        "uncertainty.Uncertainty",
    )
)

# What skops does not trust by itself although it holds numbers only: a forged tree can crash the process, not more.
_TREES = frozenset({"sklearn.tree._tree.Tree", "sklearn.ensemble._hist_gradient_boosting.predictor.TreePredictor"})

# Descriptors, and what they are made of; those of other packages are named by the user.
_DESCRIPTORS = "scotl_matgl.descriptors."


def save_model(model: Any, path: str | Path) -> None:
    """Write a fitted model.

    Raises
    ------
    InputError
        If skops is missing.
    """
    slim = copy.copy(model)
    for name in ("sources_", "predictors_"):
        setattr(slim, name, tuple(replace(source, card=None) for source in getattr(model, name)))
    slim.sources = _names(model.sources)
    slim._members_all = tuple(replace(member, head=_without_card(member.head)) for member in model._members_all)
    slim._fitted = {i: _without_card(head) for i, head in model._fitted.items()}
    _skops().dump(slim, path, compression=zipfile.ZIP_DEFLATED)


def _names(sources: Any) -> Any:
    """Sources by name: a card names a loader, which a file must not."""
    if isinstance(sources, SourceCard):
        return sources.name
    if sources is None or isinstance(sources, str):
        return sources
    return [_names(source) for source in sources]


def _without_card(head: Any) -> Any:
    """A head with its source by name, if it has one."""
    if isinstance(getattr(head, "source", None), SourceCard):
        head = copy.copy(head)
        head.source = head.source.name
        if hasattr(head, "card_"):
            head.card_ = None
    return head


def load_model(path: str | Path, kind: type[Model], trusted: Sequence[str]) -> Model:
    """Read a fitted model of a kind; see :meth:`scotl_matgl.TransferRegressor.load`."""
    io = _skops()
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"there is no file {path}")
    try:
        named = io.get_untrusted_types(file=path)
    except Exception as error:  # whatever a file that is no model makes skops raise
        raise InputError(f"{path} is no saved model: {error}") from error
    ours = [name for name in named if name in _OURS | _TREES | set(trusted) or name.startswith(_DESCRIPTORS)]
    refused = sorted(set(named) - set(ours))
    if refused:
        raise InputError(
            f"{path} holds types that are not trusted: {', '.join(refused)}; if you know where the file comes from, "
            "load it with trusted=[...]"
        )
    model = io.load(path, trusted=ours)
    if not isinstance(model, kind):
        raise InputError(f"{path} holds a {type(model).__name__}, not a {kind.__name__}")
    return model


def _skops() -> Any:
    try:
        import skops.io
    except ModuleNotFoundError as error:
        raise InputError("saving and loading needs skops: pip install skops") from error
    return skops.io
