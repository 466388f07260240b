"""Conformance kit for plugin authors: one check for each kind of object that may be registered."""

from __future__ import annotations

from scotl_matgl.testing.bridges import check_bridge
from scotl_matgl.testing.data import assets_with
from scotl_matgl.testing.descriptors import check_descriptor
from scotl_matgl.testing.encoders import check_encoder
from scotl_matgl.testing.estimators import check_estimator
from scotl_matgl.testing.samples import bad_crystals, sample_crystals, sample_formulas
from scotl_matgl.testing.shipped import check_bridges
from scotl_matgl.testing.zoos import check_card, check_zoo

__all__ = [
    "assets_with",
    "bad_crystals",
    "check_bridge",
    "check_bridges",
    "check_card",
    "check_descriptor",
    "check_encoder",
    "check_estimator",
    "check_zoo",
    "sample_crystals",
    "sample_formulas",
]
