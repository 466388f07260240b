"""SCOTL's models against its published embeddings and scores."""

from __future__ import annotations

import json
import pickle
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from scipy.stats import spearmanr
from sklearn.linear_model import RidgeCV

from scotl_matgl.estimators import SCOTL
from scotl_matgl.plugin import CompositionEncoder, IncompatibleWeightsError, SourceCard
from scotl_matgl_papers import random_control, scotl
from scotl_matgl_papers.published import PublishedTable, read_table
from scotl_matgl_papers.weights import CheckpointError


@pytest.fixture(scope="module")
def tables(assets: Path) -> dict[str, PublishedTable]:
    return {"efe": read_table("efe"), "steels": read_table("steels")}


@pytest.fixture(scope="module")
def published(assets: Path) -> dict[str, dict]:
    return json.loads((assets / "reference" / "scotl_transferability.json").read_text())["targets"]


def stem(card: SourceCard) -> str:
    (file,) = card.weights
    return file.removesuffix(".pt")


@pytest.mark.parametrize("card", scotl(), ids=stem)
def test_published_embeddings(card: SourceCard, assets: Path) -> None:
    expected = json.loads((assets / "reference" / "scotl_embeddings.json").read_text())[stem(card)]
    found = card.load().encode(expected["formula"], dtype=np.float64)
    np.testing.assert_allclose(found, expected["emb_f64"], rtol=0, atol=1e-7)


@pytest.mark.parametrize("target", ["efe", "steels"])
@pytest.mark.parametrize("card", scotl(), ids=stem)
def test_published_scores(
    card: SourceCard, target: str, tables: dict[str, PublishedTable], published: dict[str, dict]
) -> None:
    table, expected = tables[target], published[target]["models"][stem(card)]
    assert len(table.y) == {"efe": 1196, "steels": 312}[target]
    Z = card.load().encode(table.formulas, dtype=np.float64)
    assert SCOTL().fit(Z, table.y).score_ == pytest.approx(expected["all"], rel=1e-6)
    folds = [SCOTL().fit(Z[train], table.y[train]).score_ for train, _ in table.folds]
    assert folds == pytest.approx(expected["folds"], rel=1e-6)


def test_score_ranks_as_the_error_of_a_frozen_head_does(tables: dict[str, PublishedTable]) -> None:
    table = tables["efe"]
    scores, errors = [], []
    for card in scotl():
        Z = card.load().encode(table.formulas)
        scores.append(np.mean([SCOTL().fit(Z[train], table.y[train]).score_ for train, _ in table.folds]))
        predicted = np.empty_like(table.y)
        for train, test in table.folds:
            predicted[test] = RidgeCV(np.logspace(-6, 2, 17)).fit(Z[train], table.y[train]).predict(Z[test])
        errors.append(np.abs(predicted - table.y).mean())
    assert spearmanr(scores, errors).statistic <= -0.85


def test_encoder(assets: Path) -> None:
    encoder = scotl()[0].load()
    assert isinstance(encoder, CompositionEncoder)
    formulas = ["NaCl", "Fe2O3", "Na0.5Cl0.5", "Fe4O6"]
    Z = encoder.encode(formulas)
    assert Z.dtype == np.float32
    np.testing.assert_allclose(np.linalg.norm(Z, axis=1), 1, atol=1e-6)
    np.testing.assert_allclose(Z[:2], Z[2:], atol=1e-6)  # amounts count as fractions
    np.testing.assert_array_equal(encoder.encode(formulas[1:2]), Z[1:2])  # a batch is its rows
    np.testing.assert_array_equal(pickle.loads(pickle.dumps(encoder)).encode(formulas), Z)  # noqa: S301 - own bytes
    assert encoder.encode([]).shape == (0, 128)
    with pytest.raises(ValueError, match=r"no layer 'readuot'; did you mean 'readout'\?"):
        encoder.encode(formulas, layer="readuot")


def test_control_is_random_and_reproducible(assets: Path) -> None:
    formulas = ["NaCl", "Fe2O3", "MgO"]
    first, again, other = (random_control(seed).load().encode(formulas) for seed in (1, 1, 2))
    np.testing.assert_array_equal(first, again)
    assert np.abs(first - other).max() > 0.1
    np.testing.assert_allclose(np.linalg.norm(first, axis=1), 1, atol=1e-6)


def test_changed_file_is_refused(tmp_path: Path, assets: Path) -> None:
    first, second = scotl()[:2]
    shutil.copy(assets / "models" / "scotl" / f"{stem(second)}.pt", tmp_path / f"{stem(first)}.pt")
    with pytest.raises(IncompatibleWeightsError, match="sha256"):
        first.load(path=tmp_path)
    np.testing.assert_array_equal(
        first.load(path=tmp_path, check=False).encode(["NaCl"]), second.load().encode(["NaCl"])
    )


def test_changed_element_table_is_noticed(tmp_path: Path, assets: Path) -> None:
    content = json.loads((assets / "reference" / "scotl_element_table.json").read_text())
    content["scaled_f64"][10][0] += 0.5  # sodium
    table = tmp_path / "table.json"
    table.write_text(json.dumps(content))
    with pytest.raises(IncompatibleWeightsError, match=r"for NaCl instead of .* eV/atom"):
        scotl()[0].load(table=table).encode(["Fe2O3"])


def test_checkpoint_is_never_executed(tmp_path: Path) -> None:
    class Bomb:
        def __reduce__(self) -> tuple:
            return (Path.touch, (tmp_path / "executed",))

    file = tmp_path / "bomb.pt"
    torch.save(Bomb(), file)
    with pytest.raises(CheckpointError, match="cannot be read as a file of tensors"):
        scotl()[0].load(path=file, check=False)
    assert not (tmp_path / "executed").exists()


@pytest.mark.parametrize("content", [{}, [1.0], {"fc_fvec1.weight": torch.zeros(2, 2)}])
def test_other_contents_are_refused(content: object, tmp_path: Path) -> None:
    file = tmp_path / "other.pt"
    torch.save(content, file)
    with pytest.raises(CheckpointError, match=r"'fc_fvec1.weight' must have the shape \(128, 60\)"):
        scotl()[0].load(path=file, check=False)


def test_missing_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SCOTL_MATGL_ASSETS", str(tmp_path))
    with pytest.raises(FileNotFoundError, match=r"are not at .*/models/scotl/cgcnn_mps_form_eng\.pt: give the path"):
        scotl()[0].load()
    monkeypatch.delenv("SCOTL_MATGL_ASSETS")
    with pytest.raises(FileNotFoundError, match="set SCOTL_MATGL_ASSETS"):
        scotl()[0].load()
