"""Fixtures: the third-party assets, required in CI and optional on a user's machine."""

from __future__ import annotations

from pathlib import Path

import pytest

from scotl_matgl import testing


@pytest.fixture(scope="session")
def assets() -> Path:
    """Folder of the third-party test data, named by SCOTL_MATGL_ASSETS."""
    return testing.assets_with("models/scotl")
