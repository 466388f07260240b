"""Choice of sources inside the transferred model: of many, only the first by a few rows are measured on all."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from scotl_matgl import TransferRegressor, load_example
from scotl_matgl.bridges.store import find_bridge
from scotl_matgl.chemistry.compositions import parse_compositions
from scotl_matgl.descriptors.composite import get_descriptor
from scotl_matgl.learners.kernel import kernel_out_of_fold, manhattan
from scotl_matgl.sources.cards import all_cards, select

SOURCES = "MEGNet-MP-*"


@pytest.fixture(autouse=True)
def only_what_is_shipped(tmp_path: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SCOTL_MATGL_HOME", str(tmp_path))


def fitted() -> Any:
    table = load_example().iloc[::10]
    return TransferRegressor(SOURCES, head="kernel ridge", n_sources=2).fit(table["formula"], table["target"])


def test_sources_behind_on_a_few_rows_are_not_measured_on_all_and_the_others_do_not_change(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    full = fitted()
    monkeypatch.setattr("scotl_matgl.transfer.choice._MAX_MEASURED", 3)
    monkeypatch.setattr("scotl_matgl.transfer.choice._SCREEN_ROWS", 80)
    part = fitted()
    assert (len(full.ranking_.results), full.ranking_.screened) == (5, ())
    assert (len(part.ranking_.results), len(part.ranking_.screened)) == (3, 2)
    behind = {result.source for result in part.ranking_.screened}
    assert {*part.ranking_.sources, *behind} == {*full.ranking_.sources}
    for name, losses in zip(part.ranking_.sources, part.ranking_.losses, strict=True):
        np.testing.assert_array_equal(losses, full.ranking_.losses[full.ranking_.sources.index(name)])

    # The screen by hand: kernel ridge on the 80 rows, in what the folds of all rows leave of them.
    table = load_example().iloc[::10]
    y = table["target"].to_numpy()
    compositions = parse_compositions(table["formula"])
    X = np.nan_to_num(get_descriptor("standard").fit_transform(compositions))
    few = np.sort(np.random.default_rng(0).permutation(len(y))[:80])
    place = {row: i for i, row in enumerate(few)}
    read = part._read_training(table["formula"], table["target"])[0]
    folds = [
        tuple(np.array([place[row] for row in rows if row in place]) for rows in fold)
        for fold in read.folds(y, classification=False, random_state=0)
    ]
    errors = {}
    for card in select(all_cards(), SOURCES):
        Z = find_bridge(card, "readout", get_descriptor("standard")).load().transform(X[few]).astype(float)
        distances = manhattan(X)[np.ix_(few, few)] + manhattan(Z)
        errors[card.name] = np.abs(kernel_out_of_fold(distances, y[few][:, None], folds)[:, 0] - y[few]).mean()
    assert behind == {*sorted(errors, key=errors.__getitem__)[3:]}
