"""Rank pretrained crystal models by how well they transfer to a table of formulas and one measured property."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

# Public name to its module, imported when first used (PEP 562), so that `import scotl_matgl` costs nothing.
_PUBLIC = {
    "ChemicalSystemKFold": "studies.splitters",
    "CompositionDescriptor": "descriptors.base",
    "CompositionKFold": "studies.splitters",
    "Corpus": "chemistry.corpus",
    "EmbeddingStore": "encoders.store",
    "FullTransferRegressor": "training.full",
    "LearningCurves": "studies.curves",
    "LeaveOneClusterOut": "studies.splitters",
    "LeaveOneElementOut": "studies.splitters",
    "PowerLaw": "studies.power_law",
    "Ranking": "ranking.result",
    "SourceCard": "sources.cards",
    "StudySettings": "studies.settings",
    "TradeLaw": "studies.trade",
    "TransferClassifier": "transfer.estimators",
    "TransferFeaturizer": "transfer.featurizer",
    "TransferRegressor": "transfer.estimators",
    "TransferabilityRanker": "ranking.ranker",
    "Validation": "studies.validation",
    "all_cards": "sources.cards",
    "get_descriptor": "descriptors.composite",
    "learning_curves": "studies.curves",
    "load_example": "tables.files",
    "parse_compositions": "chemistry.compositions",
    "validate": "studies.validation",
}

__all__ = [
    "ChemicalSystemKFold",
    "CompositionDescriptor",
    "CompositionKFold",
    "Corpus",
    "EmbeddingStore",
    "FullTransferRegressor",
    "LearningCurves",
    "LeaveOneClusterOut",
    "LeaveOneElementOut",
    "PowerLaw",
    "Ranking",
    "SourceCard",
    "StudySettings",
    "TradeLaw",
    "TransferClassifier",
    "TransferFeaturizer",
    "TransferRegressor",
    "TransferabilityRanker",
    "Validation",
    "__version__",
    "all_cards",
    "get_descriptor",
    "learning_curves",
    "load_example",
    "parse_compositions",
    "validate",
]

if TYPE_CHECKING:
    from scotl_matgl.chemistry.compositions import parse_compositions
    from scotl_matgl.chemistry.corpus import Corpus
    from scotl_matgl.descriptors.base import CompositionDescriptor
    from scotl_matgl.descriptors.composite import get_descriptor
    from scotl_matgl.encoders.store import EmbeddingStore
    from scotl_matgl.ranking.ranker import TransferabilityRanker
    from scotl_matgl.ranking.result import Ranking
    from scotl_matgl.sources.cards import SourceCard, all_cards
    from scotl_matgl.studies.curves import LearningCurves, learning_curves
    from scotl_matgl.studies.power_law import PowerLaw
    from scotl_matgl.studies.settings import StudySettings
    from scotl_matgl.studies.splitters import (
        ChemicalSystemKFold,
        CompositionKFold,
        LeaveOneClusterOut,
        LeaveOneElementOut,
    )
    from scotl_matgl.studies.trade import TradeLaw
    from scotl_matgl.studies.validation import Validation, validate
    from scotl_matgl.tables.files import load_example
    from scotl_matgl.training.full import FullTransferRegressor
    from scotl_matgl.transfer.estimators import TransferClassifier, TransferRegressor
    from scotl_matgl.transfer.featurizer import TransferFeaturizer


def __getattr__(name: str) -> Any:
    """Import a public name when it is first asked for."""
    if name not in _PUBLIC:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_PUBLIC[name]}"), name)


def __dir__() -> list[str]:
    """Public names, imported or not."""
    return sorted(__all__)
