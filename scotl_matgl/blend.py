"""A blend of heads: weighed by their out-of-fold losses, guarded, fitted on all rows, and read."""

from __future__ import annotations

import contextlib
import itertools
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import NDArray

from scotl_matgl.blending import (
    Features,
    FittedHead,
    Member,
    Task,
    blend_weights,
    out_of_fold,
    share_of_transfer,
    without_gaps,
)
from scotl_matgl.exceptions import InputError, ScotlMatglWarning
from scotl_matgl.heads import Floats, Folds

# A member that counts less than this is not worth its time.
_LEAST_WEIGHT = 1e-3


@dataclass(eq=False)
class Blend:
    """Heads and what each counts.

    Attributes
    ----------
    members : tuple of Member
        All that were considered.
    weights : ndarray of shape (k,)
        Of the members; they add up to 1.
    errors : dict of str to float
        Out-of-fold error of each member, by name.
    error, no_transfer_error : float
        Of the blend, and of the blend of the members without transfer (NaN if there are none).
    failed : dict of str to str
        Sources whose own networks failed, and why; their members do not count.
    fitted : dict of int to FittedHead
        Heads fitted on all rows, by the position of their member.
    base : int
        Member that residuals are learned from.
    """

    members: tuple[Member, ...]
    weights: Floats
    errors: dict[str, float]
    error: float
    no_transfer_error: float
    failed: dict[str, str]
    fitted: dict[int, FittedHead] = field(default_factory=dict)
    base: int = 0

    @classmethod
    def weigh(
        cls, members: Sequence[Member], features: Features, task: Task, *, guard: bool
    ) -> tuple[Blend, list[Floats]]:
        """Weigh members by their out-of-fold losses, and let the guard decide what transfer counts.

        Parameters
        ----------
        members : sequence of Member
            Those without transfer first.
        features : Features
            Of the rows of the task.
        task : Task
        guard : bool
            Whether the blend with transfer only gets its share by the evidence; the members without transfer have the
            rest. If not, they do not count.

        Returns
        -------
        Blend
        list of ndarray of shape (n, m)
            Out-of-fold predictions of its members. NaN in rows that a head refuses.

        Raises
        ------
        InputError
            If the networks of all members fail.
        """
        kept: list[Member] = []
        predictions: list[Floats] = []
        failed: dict[str, str] = {}
        base = 0
        for _, readings in itertools.groupby(members, key=lambda member: member.fit_name):
            same = list(readings)
            try:
                if same[0].residual:
                    alone = [i for i, other in enumerate(kept) if not other.transfers]
                    base = min(alone, key=lambda i: float(task.losses(predictions[i]).mean()))
                    left = out_of_fold(same, features, task.residual(predictions[base]))
                    found = [predictions[base] + item for item in left]
                else:
                    found = out_of_fold(same, features, task)
            except Exception as error:  # a network may fail in many ways, none of which must cost the other heads
                if not same[0].source:
                    raise
                failed[same[0].source] = f"training it on failed: {str(error) or type(error).__name__}"
                continue
            kept += same
            predictions += found
        if not kept:
            raise InputError(next(iter(f"{source}: {reason}" for source, reason in failed.items())))
        filled = without_gaps(predictions, np.ones(len(predictions)))
        if not task.n_classes:  # rows that all heads refuse tell nothing about any of them
            filled = [np.where(np.isnan(item), task.y.mean(), item) for item in filled]
        weights, apart = _weights(kept, filled, task, guard=guard)
        blend = cls(
            members=tuple(kept),
            weights=weights,
            errors={member.name: task.error(item) for member, item in zip(kept, filled, strict=True)},
            error=task.error(weighted(filled, weights)),
            no_transfer_error=task.error(weighted(filled, apart)) if apart.any() else float("nan"),
            failed=failed,
            base=base,
        )
        return blend, predictions

    @property
    def share(self) -> float:
        """What the members that see a source count together, 0 to 1."""
        return float(self.weights[[member.transfers for member in self.members]].sum())

    @property
    def names(self) -> dict[str, float]:
        """Members that count, by name, and their weights."""
        return {
            member.name: float(weight) for member, weight in zip(self.members, self.weights, strict=True) if weight > 0
        }

    def uses(self, block: str) -> bool:
        """Whether a fitted head looks at a block of columns."""
        return any(block in self.members[i].blocks for i in self.fitted)

    def fit(self, features: Features, task: Task, folds: Folds) -> None:
        """Fit the members that count on all rows; `folds` of them are for residuals alone.

        A member whose network fails now does not count any more.

        Raises
        ------
        InputError
            If no member is left.
        """
        needed = {i for i in range(len(self.weights)) if self.weights[i] > 0}
        left = task
        if any(self.members[i].residual for i in needed):
            needed.add(self.base)
            every = replace(task, folds=folds)
            left = every.residual(out_of_fold([self.members[self.base]], features, every)[0])
        heads: dict[str, FittedHead] = {}
        for i in sorted(needed):
            member = self.members[i]
            if member.fit_name not in heads:
                try:
                    heads[member.fit_name] = member.fit(features, left.y if member.residual else task.y, task)
                except Exception as error:  # as above
                    if not member.source:
                        raise
                    self.failed[member.source] = f"training it on failed: {str(error) or type(error).__name__}"
                    self.weights[i] = 0.0
                    continue
            self.fitted[i] = heads[member.fit_name]
        if not self.weights.any():
            raise InputError(next(iter(f"{source}: {reason}" for source, reason in self.failed.items())))
        self.weights /= self.weights.sum()

    def predict(self, features: Features, n_classes: int) -> tuple[list[Floats], Floats]:
        """Predictions (n, m) of the members that count, NaN in rows that a head refuses, and their weights."""
        with quiet_networks():
            found = {i: self.members[i].outputs(head, features, n_classes) for i, head in self.fitted.items()}
        counted = [i for i in found if self.weights[i] > 0]
        return (
            [found[i] + (found[self.base] if self.members[i].residual else 0.0) for i in counted],
            self.weights[counted],
        )


def _weights(
    members: Sequence[Member], predictions: Sequence[Floats], task: Task, *, guard: bool
) -> tuple[Floats, Floats]:
    """Weights of all members, and of those without transfer in a blend of their own (0 if there are none)."""
    losses = np.array([task.losses(item) for item in predictions])
    transfers = np.array([member.transfers for member in members])
    apart = np.zeros(len(members))
    if not transfers.all():
        apart[~transfers] = blend_weights(losses[~transfers])
    if not transfers.any():
        weights = apart.copy()
    elif guard and apart.any():
        everything = blend_weights(losses)
        without, beside = (task.losses(weighted(predictions, item)) for item in (apart, everything))
        share = share_of_transfer(without - beside)
        weights = share * everything + (1.0 - share) * apart
    else:
        weights = np.zeros(len(members))
        weights[transfers] = blend_weights(losses[transfers])
    weights[weights < _LEAST_WEIGHT] = 0.0
    return weights / weights.sum(), apart


@contextlib.contextmanager
def quiet_networks() -> Iterator[None]:
    """Leave out what networks say of crystals that they refuse, in each of six fits: the model says it once."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ScotlMatglWarning)
        yield


def weighted(predictions: Sequence[Floats], weights: Floats) -> Floats:
    """Weighted sum of predictions (n, m)."""
    return np.asarray(sum(weight * item for weight, item in zip(weights, predictions, strict=True)))


def spread(predictions: Sequence[Floats], weights: Floats) -> Floats:
    """Weighted standard deviation (n,) of the predictions (n, 1) of several heads."""
    mean = weighted(predictions, weights)
    return np.asarray(np.sqrt(weighted([(item - mean) ** 2 for item in predictions], weights))[:, 0])


def gaps(predictions: Sequence[Floats]) -> NDArray[np.bool_]:
    """Which rows (n,) some head refuses."""
    return np.asarray(np.logical_or.reduce([np.isnan(item).any(axis=1) for item in predictions]))
