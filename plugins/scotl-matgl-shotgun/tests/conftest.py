"""Fixtures: the third-party assets, required in CI and optional on a user's machine; a small trained library."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from scotl_matgl import testing
from scotl_matgl.plugin import Corpus, Crystal, read_crystals
from scotl_matgl_shotgun import Library, train_library


@pytest.fixture(scope="session")
def assets() -> Path:
    """Folder of the third-party test data, named by SCOTL_MATGL_ASSETS."""
    return testing.assets_with("structures/crystals.json.gz")


@pytest.fixture(scope="session")
def synthetic() -> Corpus:
    """Rock salts of 20 metals and 10 others; property "easy" is linear in the magpie descriptors, "noise" is not."""
    rng = np.random.default_rng(0)
    metals = [3, 11, 19, 37, 55, 4, 12, 20, 38, 56, 21, 22, 25, 26, 27, 28, 29, 30, 48, 82]
    others = [7, 8, 9, 15, 16, 17, 33, 34, 35, 53]
    # Pauling's electronegativity of the second element alone decides.
    chi = dict(zip(others, [3.04, 3.44, 3.98, 2.19, 2.58, 3.16, 2.18, 2.55, 2.96, 2.66], strict=True))
    return Corpus(
        Crystal(
            5.0 * np.eye(3),
            np.array([[0.0, 0, 0], [0.5, 0.5, 0.5]]),
            np.array([metal, other]),
            properties={"easy": chi[other] + 0.002 * metal, "noise": float(rng.normal())},
        )
        for metal in metals
        for other in others
    )


@pytest.fixture(scope="session")
def settings() -> dict:
    return {
        "dataset": "rock salts",
        "licence": "CC0",
        "descriptor": "magpie",
        "n_epochs": 40,
        "batch_size": 16,
        "depth": (2, 4),
        "width": (6, 24),
        "shard_size": 2,
    }


@pytest.fixture(scope="session")
def library(synthetic: Corpus, settings: dict, tmp_path_factory: pytest.TempPathFactory) -> Library:
    """Six networks in three shards, properties in turn. Nobody may write into it."""
    path = tmp_path_factory.mktemp("library")
    return train_library(path, synthetic, {"easy": "1", "noise": "eV"}, 6, 0, **settings)


@pytest.fixture(scope="session")
def crystals(assets: Path) -> Corpus:
    """A sample of 400 crystals of known formation energy."""
    records = (r for r in read_crystals(assets / "structures" / "crystals.json.gz") if isinstance(r, Crystal))
    sample = []
    for i, crystal in enumerate(records):
        if i % 50 == 0 and "formation_energy_eV_atom" in crystal.properties:
            sample.append(crystal)
        if len(sample) == 400:
            break
    return Corpus(sample)
