"""Rank pretrained crystal models by how well they transfer to a table of formulas and one measured property."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

# Public name to its module, imported when first used (PEP 562), so that `import scotl_matgl` costs nothing.
_PUBLIC = {
    "ChemicalSystemKFold": "validation",
    "CompositionDescriptor": "descriptors",
    "CompositionKFold": "validation",
    "Corpus": "structures",
    "EmbeddingStore": "cache",
    "FullTransferRegressor": "full_training",
    "LearningCurves": "curves",
    "LeaveOneClusterOut": "validation",
    "LeaveOneElementOut": "validation",
    "PowerLaw": "power_law",
    "Ranking": "ranking",
    "SourceCard": "cards",
    "TradeLaw": "trade",
    "TransferClassifier": "transfer",
    "TransferFeaturizer": "transfer",
    "TransferRegressor": "transfer",
    "TransferabilityRanker": "ranker",
    "Validation": "validation",
    "all_cards": "cards",
    "get_descriptor": "descriptors",
    "learning_curves": "curves",
    "load_example": "datasets",
    "parse_compositions": "composition",
    "validate": "validation",
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
    from scotl_matgl.cache import EmbeddingStore
    from scotl_matgl.cards import SourceCard, all_cards
    from scotl_matgl.composition import parse_compositions
    from scotl_matgl.curves import LearningCurves, learning_curves
    from scotl_matgl.datasets import load_example
    from scotl_matgl.descriptors import CompositionDescriptor, get_descriptor
    from scotl_matgl.full_training import FullTransferRegressor
    from scotl_matgl.power_law import PowerLaw
    from scotl_matgl.ranker import TransferabilityRanker
    from scotl_matgl.ranking import Ranking
    from scotl_matgl.structures import Corpus
    from scotl_matgl.trade import TradeLaw
    from scotl_matgl.transfer import TransferClassifier, TransferFeaturizer, TransferRegressor
    from scotl_matgl.validation import (
        ChemicalSystemKFold,
        CompositionKFold,
        LeaveOneClusterOut,
        LeaveOneElementOut,
        Validation,
        validate,
    )


def __getattr__(name: str) -> Any:
    """Import a public name when it is first asked for."""
    if name not in _PUBLIC:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_PUBLIC[name]}"), name)


def __dir__() -> list[str]:
    """Public names, imported or not."""
    return sorted(__all__)
