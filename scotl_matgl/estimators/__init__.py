"""Transferability estimators: how much an embedding says about a target, before anything is retrained."""

from __future__ import annotations

from scotl_matgl.estimators.base import TransferabilityEstimator
from scotl_matgl.estimators.linear import GCV, SCOTL, LabMSE, LinMSE, LogME, LOORidge

__all__ = ["GCV", "SCOTL", "LOORidge", "LabMSE", "LinMSE", "LogME", "TransferabilityEstimator"]
