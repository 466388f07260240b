"""No transfer: what is known of a table without a source, and the best head on it."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from scotl_matgl.descriptors.described import Described
from scotl_matgl.descriptors.structural import structural_features
from scotl_matgl.learners.kernel import manhattan
from scotl_matgl.learners.members import (
    COLUMNS,
    DESCRIPTORS,
    FRACTIONS,
    BlendMember,
    Features,
    LearningTask,
    members_without_transfer,
    out_of_fold,
)
from scotl_matgl.vocabulary import Floats

# A further column counts as much as this share of all descriptors in the distances of kernel ridge: one column among
# some hundred that all describe the formula would be lost in them.
_COLUMN_SHARE = 0.25

#: Block of structural descriptors, where rows are crystals; together they count as one further column.
STRUCTURE = "structure"


def control_features(
    described: Described,
    numbers: Floats,
    names: Sequence[str],
    elements: NDArray[np.intp],
    means: Floats | None = None,
) -> Features:
    """Blocks of columns that are known without a source.

    Parameters
    ----------
    described : Described
        n formulas.
    numbers : ndarray of shape (n, q)
        Further columns.
    names : sequence of str
        Their names.
    elements : ndarray of int
        Atomic numbers of the elements whose fractions are columns: those of the training rows.
    means : ndarray, optional
        Where training rows are crystals: their means of the structural descriptors, for rows that have none.
    """
    width = described.X.shape[1]
    columns = {DESCRIPTORS: described.filled}
    weights = {DESCRIPTORS: np.ones(width)}
    if len(names):
        columns[COLUMNS] = numbers
        weights[COLUMNS] = np.full(len(names), _COLUMN_SHARE * width)
    if means is not None:
        structural = np.full((len(described), len(means)), np.nan)
        if len(described.crystals):
            structural = structural_features(described.crystals.tolist())
        columns[STRUCTURE] = np.where(np.isfinite(structural), structural, means)
        weights[STRUCTURE] = np.full(len(means), _COLUMN_SHARE * width / len(means))
    columns[FRACTIONS] = described.compositions.dense_fractions()[:, elements - 1]
    weights[FRACTIONS] = np.ones(len(elements))
    return Features(columns, weights)


def column_distances(features: Features) -> Floats | None:
    """Distances (n, n) by the further columns, for each column of an embedding beside them; None where there are none.

    Beside an embedding alone they count as they do beside the descriptors.
    """
    return _COLUMN_SHARE * manhattan(features.columns[COLUMNS]) if COLUMNS in features.columns else None


def without_fractions(features: Features) -> tuple[str, ...]:
    """Blocks that sources are put beside: element fractions are for trees of their own."""
    return tuple(block for block in features.columns if block != FRACTIONS)


@dataclass(frozen=True, eq=False)
class Control:
    """The best head without a source.

    Attributes
    ----------
    member : BlendMember
        The head, and the columns that it sees.
    head : BlendMember
        The best of the heads on descriptors, which sources are measured with.
    errors : dict of str to float
        Mean out-of-fold loss of each head that was compared.
    predictions : dict of str to ndarray of shape (m, k)
        Their out-of-fold predictions of the rows that they were compared on.
    """

    member: BlendMember
    head: BlendMember
    errors: dict[str, float]
    predictions: dict[str, Floats] = field(default_factory=dict, repr=False)

    @classmethod
    def choose(cls, features: Features, task: LearningTask, *, head: Any = "auto") -> Control:
        """Compare heads by their out-of-fold losses on some rows."""
        members = members_without_transfer(features, head=head, classification=task.n_classes > 0)
        found: dict[str, Floats] = {}
        for _, readings in itertools.groupby(members, key=lambda member: member.fit_name):
            same = list(readings)
            found |= zip((member.name for member in same), out_of_fold(same, features, task), strict=True)
        errors = {name: float(task.losses(predictions).mean()) for name, predictions in found.items()}
        beside = [member for member in members if FRACTIONS not in member.blocks]
        return cls(
            min(members, key=lambda member: errors[member.name]),
            min(beside, key=lambda member: errors[member.name]),
            errors,
            found,
        )
