"""Fixtures shared by all tests; the third-party assets are required in CI and optional on a user's machine."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from scotl_matgl import testing


def pytest_configure() -> None:
    """Tests change the folder they run in: weights named from where pytest began must be found from everywhere."""
    if assets := os.environ.get("SCOTL_MATGL_ASSETS"):
        os.environ["SCOTL_MATGL_ASSETS"] = os.path.abspath(os.path.expanduser(assets))


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark what uses the third-party data, or torch to fit a network bridge: `make quick` leaves these out."""
    for item in items:
        if item.path.name == "test_bridges.py" and re.search(r"network_bridge|\bmlp\b|MLPBridge", item.name):
            item.add_marker(pytest.mark.torch)
        if "assets" in getattr(item, "fixturenames", ()):
            item.add_marker(pytest.mark.assets)


@pytest.fixture(scope="session")
def assets() -> Path:
    """Folder of the third-party test data, named by SCOTL_MATGL_ASSETS."""
    return testing.assets_with("models")


@pytest.fixture(scope="module")
def only_what_is_shipped(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """An empty home for a module, so that neither bridges nor look-ups of the user count."""
    with pytest.MonkeyPatch.context() as patch:
        home = tmp_path_factory.mktemp("home")
        patch.setenv("SCOTL_MATGL_HOME", str(home))
        yield home
