"""Transferability estimators: how much an embedding says about a target, before anything is retrained."""

from __future__ import annotations

from scotl_matgl.estimators.base import TransferabilityEstimator
from scotl_matgl.estimators.classes import GBC, HScore, TransRate
from scotl_matgl.estimators.ensemble import Ensemble, rank_average
from scotl_matgl.estimators.forest import Forest
from scotl_matgl.estimators.labels import LEEP, NCE, NLEEP
from scotl_matgl.estimators.linear import GCV, SCOTL, LabMSE, LinMSE, LogME, LOORidge
from scotl_matgl.estimators.selection import embedding_estimators, left_out, named_estimators
from scotl_matgl.estimators.similarity import CKA, KNN, GPEvidence

__all__ = [
    "CKA",
    "GBC",
    "GCV",
    "KNN",
    "LEEP",
    "NCE",
    "NLEEP",
    "SCOTL",
    "Ensemble",
    "Forest",
    "GPEvidence",
    "HScore",
    "LOORidge",
    "LabMSE",
    "LinMSE",
    "LogME",
    "TransRate",
    "TransferabilityEstimator",
    "embedding_estimators",
    "left_out",
    "named_estimators",
    "rank_average",
]
