"""Folds and samples follow the composition: order and repeats of the rows change nothing."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from scotl_matgl import load_example
from scotl_matgl.tables.folds import key_hashes, make_folds
from scotl_matgl.tables.rows import Rows, read_rows

EXAMPLE = load_example().iloc[::15]
FORMULAS = EXAMPLE["formula"].to_numpy()
Y = EXAMPLE["target"].to_numpy()


def test_hashes_are_those_of_sha256() -> None:
    """The first eight bytes of sha256('0:a'), by `printf 0:a | sha256sum`."""
    assert [hex(value) for value in key_hashes(["a"], 0).tolist()] == ["0x9df3c5fab8ef8fe7"]


def named_folds(rows: Rows, **settings: int) -> list[frozenset[str]]:
    return [frozenset(rows.formulas.text[i] for i in test) for _, test in rows.folds(**settings)]


@pytest.mark.parametrize("seed", [0, 1, 20_011])
@pytest.mark.parametrize("labels", [False, True])
def test_a_permuted_table_has_the_same_folds_and_samples(seed: int, labels: bool) -> None:
    y = np.where(Y > -1, "loose", "stable") if labels else Y
    order = np.random.default_rng(seed).permutation(len(y))
    first = read_rows(FORMULAS).with_target(y)
    second = read_rows(FORMULAS[order]).with_target(y[order])
    assert named_folds(first, random_state=seed) == named_folds(second, random_state=seed)
    chosen = [{rows.formulas.text[i] for i in rows.sample(40, seed)} for rows in (first, second)]
    assert chosen[0] == chosen[1]
    assert len(chosen[0]) == 40


def test_another_row_moves_no_side_of_a_sample_but_its_own() -> None:
    rows, more = read_rows(FORMULAS), read_rows([*FORMULAS, "Fe5Sn3Si2"])
    before, after = ({table.formulas.text[i] for i in table.sample(40, 0)} for table in (rows, more))
    assert len(before - after) <= 1


def test_seeds_give_different_folds_and_samples() -> None:
    rows = read_rows(FORMULAS).with_target(Y)
    assert named_folds(rows, random_state=0) != named_folds(rows, random_state=1)
    assert rows.sample(40, 0).tolist() != rows.sample(40, 1).tolist()


@settings(deadline=None, max_examples=60)
@given(
    labels=st.lists(st.integers(0, 3), min_size=2, max_size=60),
    n_folds=st.integers(2, 7),
    seed=st.integers(0, 9),
)
def test_folds_are_balanced_stratified_and_disjoint(labels: list[int], n_folds: int, seed: int) -> None:
    y = np.array(labels)
    folds = make_folds(y, classification=True, n_folds=n_folds, random_state=seed)
    np.testing.assert_array_equal(np.sort(np.concatenate([test for _, test in folds])), np.arange(len(y)))
    for train, test in folds:
        np.testing.assert_array_equal(np.sort(np.concatenate([train, test])), np.arange(len(y)))
    of_classes = [[int((y[test] == label).sum()) for _, test in folds] for label in range(4)]
    for counts in [[len(test) for _, test in folds], *of_classes]:
        assert max(counts) - min(counts) <= 1


def test_rows_of_one_composition_are_on_one_side_however_written() -> None:
    formulas = ["NaCl", "Na2Cl2", "ClNa", *FORMULAS, "NaCl"]
    rows = read_rows(formulas).with_target(np.arange(float(len(formulas))))
    keys = np.array(rows.formulas.keys())
    for train, test in rows.folds():
        assert not set(keys[train]) & set(keys[test])
        assert len(train) + len(test) == len(rows)


def test_a_merged_table_is_the_same_in_any_order() -> None:
    formulas, y = np.array([*FORMULAS, "ClNa", "NaCl"]), np.append(Y, [1.0, 3.0])
    order = np.random.default_rng(3).permutation(len(y))
    one, other = Rows.read(formulas, y), Rows.read(formulas[order], y[order])
    assert one.formulas.text == other.formulas.text
    np.testing.assert_array_equal(one.y, other.y)
    np.testing.assert_array_equal(one.formulas.amounts, other.formulas.amounts)


def test_folds_of_numbers_alone_follow_the_numbers() -> None:
    from scotl_matgl import TransferRegressor

    X = np.random.default_rng(0).normal(size=(30, 2))
    order = np.random.default_rng(1).permutation(30)
    one, other = (read_rows(part, estimator=TransferRegressor()) for part in (X, X[order]))
    for (_, test), (_, permuted) in zip(one.folds(), other.folds(), strict=True):
        assert set(test) == set(order[permuted])
