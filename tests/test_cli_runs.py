"""Commands that take models, an index or no argument do what they say."""

from __future__ import annotations

import gzip
import hashlib
import json
from itertools import islice
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from scotl_matgl.bridges import fetch
from scotl_matgl.bridges.index import IndexWriter, index_path
from scotl_matgl.bridges.store import list_bridges
from scotl_matgl.cli.main import app

SOURCE = "MEGNet-MP-2018.6.1-Eform"


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("SCOTL_MATGL_HOME", str(tmp_path / "home"))
    return tmp_path / "home"


def run(*words: object) -> str:
    done = CliRunner().invoke(app, [str(word) for word in words])
    assert done.exit_code == 0, done.output
    return done.stdout


@pytest.mark.slow
def test_demo_ranks_the_bundled_table_by_the_enthalpy_source() -> None:
    told = run("demo")
    assert told.startswith("1736 measured formation enthalpies")
    assert "no transfer" in told
    assert "Eform" in told.split("\n\n")[1]  # the sentence above the table names the first source


def test_an_index_is_fetched_from_a_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    keys = [f"Li1O{n}" for n in range(1, 41)]
    writer = IndexWriter(keys)
    writer.add(SOURCE, "readout", np.random.default_rng(0).normal(size=(40, 8)).astype(np.float32), {"a": "0" * 64})
    writer.save(tmp_path / "index.safetensors", {"corpus_hash": "c"})
    content = (tmp_path / "index.safetensors").read_bytes()
    expected = (hashlib.sha256(content).hexdigest(), len(content))  # in place of the index of this version
    monkeypatch.setattr(fetch, "expected_index", lambda: expected)
    assert "1 sources" in run("data", "fetch", tmp_path / "index.safetensors")
    assert index_path().read_bytes() == content


@pytest.mark.slow
@pytest.mark.torch
def test_crystals_are_encoded_and_a_bridge_is_built_on_them(tmp_path: Path, home: Path, assets: Path) -> None:
    pytest.importorskip("matgl")
    from scotl_matgl.chemistry.crystal_files import read_crystals
    from scotl_matgl.chemistry.crystals import Crystal

    read = read_crystals(assets / "structures" / "crystals.json.gz")
    crystals = [crystal for crystal in islice(read, 400) if isinstance(crystal, Crystal)]
    with gzip.open(tmp_path / "crystals.json.gz", "wt") as file:
        json.dump([crystal.to_structure().as_dict() for crystal in crystals], file)
    given = ("--sources", SOURCE, "--structures", tmp_path / "crystals.json.gz")
    assert f"| {SOURCE} | {len(crystals)} |" in run("encode", *given)
    stored = sorted((home / "embeddings").rglob("*.safetensors"))
    run("bridge", "build", *given, "--kind", "ridge")
    assert sorted((home / "embeddings").rglob("*.safetensors")) == stored  # nothing is encoded again
    built = [found for found in list_bridges([home / "bridges"]) if found.provenance["source"] == SOURCE]
    assert len(built) == 1
    assert built[0].provenance["n_crystals"] <= len(crystals)
