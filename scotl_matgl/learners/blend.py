"""A blend of heads: weighed by their out-of-fold losses, guarded, fitted on all rows, and read."""

from __future__ import annotations

import contextlib
import itertools
import math
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from scotl_matgl.exceptions import InputError, ScotlMatglWarning
from scotl_matgl.learners.members import BlendMember, Features, FittedHead, LearningTask, Work, out_of_fold
from scotl_matgl.vocabulary import Floats, Progress

# A member that counts less than this is not worth its time.
_LEAST_WEIGHT = 1e-3

# A head whose loss is one standard error above the smallest counts 1/e as much as the best.
_SHARPNESS = 1.0

# Losses of so many times the largest one of the best head tell nothing more about the spread of losses.
_WILD = 10.0

# Standard errors at which a gain counts in full.
_PROVEN = 3.0


@dataclass(eq=False)
class Blend:
    """Heads and what each counts.

    Attributes
    ----------
    members : tuple of BlendMember
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
        BlendMember that residuals are learned from.
    """

    members: tuple[BlendMember, ...]
    weights: Floats
    errors: dict[str, float]
    error: float
    no_transfer_error: float
    failed: dict[str, str]
    fitted: dict[int, FittedHead] = field(default_factory=dict)
    base: int = 0

    @classmethod
    def build(
        cls,
        members: Sequence[BlendMember],
        sampled: Features,
        task: LearningTask,
        features: Features,
        whole: LearningTask,
        *,
        guard: bool,
        progress: Progress | None = None,
    ) -> tuple[Blend, list[Floats]]:
        """Weigh members by their out-of-fold losses, let the guard decide what transfer counts, and fit on all rows.

        A member that holds the network of a source and fails costs itself only: the others are weighed without it.

        Parameters
        ----------
        members : sequence of BlendMember
            Those without transfer first.
        sampled : Features
            Of the rows of the task.
        task : LearningTask
            Rows by which members are weighed.
        features : Features
            Of all rows.
        whole : LearningTask
            All rows; their folds are for residuals alone.
        guard : bool
            Whether the blend with transfer only gets its share by the evidence; the members without transfer have the
            rest. If not, they do not count.
        progress : callable, optional
            Called with (done, total) heads: each out of fold, and then all that count on all rows.

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
        failed: dict[str, str] = {}
        kept, predictions, base = _out_of_fold(members, sampled, task, failed, progress)
        heads: dict[str, FittedHead] = {}
        while kept:
            blend = cls._weighed(kept, predictions, task, base, failed, guard=guard)
            broken = blend._fit(features, whole, heads)
            if not broken:
                if progress is not None:
                    progress(1, 1)
                return blend, predictions
            left = [i for i, member in enumerate(kept) if member.source != broken]
            kept, predictions = [kept[i] for i in left], [predictions[i] for i in left]
        source, reason = next(iter(failed.items()))
        raise InputError(f"{source}: {reason}")

    @classmethod
    def _weighed(
        cls,
        members: Sequence[BlendMember],
        predictions: Sequence[Floats],
        task: LearningTask,
        base: int,
        failed: dict[str, str],
        *,
        guard: bool,
    ) -> Blend:
        filled = without_gaps(predictions, np.ones(len(predictions)))
        if not task.n_classes:  # rows that all heads refuse tell nothing about any of them
            filled = [np.where(np.isnan(item), task.y.mean(), item) for item in filled]
        weights, apart = _weights(members, filled, task, guard=guard)
        return cls(
            members=tuple(members),
            weights=weights,
            errors={member.name: task.error(item) for member, item in zip(members, filled, strict=True)},
            error=task.error(weighted(filled, weights)),
            no_transfer_error=task.error(weighted(filled, apart)) if apart.any() else float("nan"),
            failed=failed,
            base=base,
        )

    @property
    def share(self) -> float:
        """What the members that see a source count together, 0 to 1."""
        return float(self.weights[[member.transfers for member in self.members]].sum())

    @property
    def sources(self) -> tuple[str, ...]:
        """Sources whose own networks count."""
        counted = zip(self.members, self.weights, strict=True)
        return tuple(member.source for member, weight in counted if weight > 0 and member.source)

    @property
    def names(self) -> dict[str, float]:
        """Members that count, by name, and their weights."""
        return {
            member.name: float(weight) for member, weight in zip(self.members, self.weights, strict=True) if weight > 0
        }

    def uses(self, block: str) -> bool:
        """Whether a fitted head looks at a block of columns."""
        return any(block in self.members[i].blocks for i in self.fitted)

    def _fit(self, features: Features, task: LearningTask, heads: dict[str, FittedHead]) -> str:
        """Fit the members that count and are not among the `heads` yet; return the source whose network fails."""
        needed = {i for i in range(len(self.weights)) if self.weights[i] > 0}
        left = task
        if any(self.members[i].residual for i in needed):
            needed.add(self.base)
            left = task.residual(out_of_fold([self.members[self.base]], features, task)[0])
        for i in sorted(needed):
            member = self.members[i]
            if member.fit_name not in heads:
                try:
                    with _surroundings(member):
                        heads[member.fit_name] = member.fit(features, left.y if member.residual else task.y, task)
                except Exception as error:  # a network may fail in many ways
                    if not member.source:
                        raise
                    self.failed[member.source] = _reason(error)
                    return member.source
            self.fitted[i] = heads[member.fit_name]
        return ""

    def predict(self, features: Features, n_classes: int) -> tuple[list[Floats], Floats]:
        """Predictions (n, m) of the members that count, NaN in rows that a head refuses, and their weights."""
        found, work = {}, Work(features)
        for i, head in self.fitted.items():
            with quiet_networks() if self.members[i].clipped else contextlib.nullcontext():
                found[i] = self.members[i].outputs(head, features, n_classes, work)
        counted = [i for i in found if self.weights[i] > 0]
        return (
            [found[i] + (found[self.base] if self.members[i].residual else 0.0) for i in counted],
            self.weights[counted],
        )


def _out_of_fold(
    members: Sequence[BlendMember],
    features: Features,
    task: LearningTask,
    failed: dict[str, str],
    progress: Progress | None,
) -> tuple[list[BlendMember], list[Floats], int]:
    """Members that do not fail, their out-of-fold predictions, and the one that residuals are learned from."""
    kept: list[BlendMember] = []
    predictions: list[Floats] = []
    base = 0
    groups = [list(readings) for _, readings in itertools.groupby(members, key=lambda member: member.fit_name)]
    for done, same in enumerate(groups):
        if progress is not None:  # to fit them all again costs about a third as much
            progress(3 * done, 4 * len(groups))
        try:
            with _surroundings(same[0]):
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
            failed[same[0].source] = _reason(error)
            continue
        kept += same
        predictions += found
    return kept, predictions, base


def _surroundings(member: BlendMember) -> Any:
    """What holds while a head is fitted: one thread for algebra and boosting; networks set their own, and are quiet.

    Small matrices gain nothing from more, and where another process takes a core, threads that wait for each other have
    taken eighty times longer. Forests have threads of another kind.
    """
    from threadpoolctl import threadpool_limits

    return quiet_networks() if member.clipped else threadpool_limits(1)


def _reason(error: Exception) -> str:
    return f"training it on failed: {str(error) or type(error).__name__}"


def _weights(
    members: Sequence[BlendMember], predictions: Sequence[Floats], task: LearningTask, *, guard: bool
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


def blend_weights(losses: Floats) -> Floats:
    """Weights (k,) of heads from their out-of-fold losses (k, n): exp(−t), t the distance from the best.

    t is the difference of the mean loss from the smallest, in standard errors of that paired difference. So heads that
    the rows cannot tell apart are averaged nearly evenly, which is better than either, and a head that is certainly
    worse counts next to nothing: between a plain mean and a choice, by evidence.
    """
    means = losses.mean(axis=1)
    best = int(means.argmin())
    # A head that fails wildly on one row must not be excused by the standard error which that row makes.
    differences = np.minimum(losses, _WILD * losses[best].max()) - losses[best]
    errors = differences.std(axis=1) / math.sqrt(losses.shape[1])
    distance = (means - means[best]) / np.maximum(errors, 1e-300)
    distance[means == means[best]] = 0.0
    weights = np.exp(-_SHARPNESS * distance)
    return np.asarray(weights / weights.sum())


def share_of_transfer(gains: Floats) -> float:
    """Share, 0 to 1, that a blend with transfer gets, from the loss that it saves in each row (n,).

    Nothing if the mean gain is not above 0, a third at one standard error, all at three: sources that were picked on
    the same rows gain a little by chance, and an average with the control loses less than a hard choice that is wrong.
    """
    mean = float(gains.mean())
    error = float(gains.std()) / math.sqrt(len(gains))
    if mean <= 0.0:
        return 0.0
    return min(1.0, mean / (_PROVEN * error)) if error > 0.0 else 1.0


def without_gaps(predictions: Sequence[Floats], weights: Floats) -> list[Floats]:
    """Predictions (n, 1) of heads, the mean of the others where a head refuses a row; NaN where all do."""
    gaps = [np.isnan(item) for item in predictions]
    if not any(gap.any() for gap in gaps):
        return list(predictions)
    total = sum(weight * ~gap for weight, gap in zip(weights, gaps, strict=True))
    known = sum(weight * np.where(gap, 0.0, item) for weight, gap, item in zip(weights, gaps, predictions, strict=True))
    mean = np.divide(known, total, out=np.full_like(predictions[0], np.nan), where=np.asarray(total) > 0)
    return [np.where(gap, mean, item) for gap, item in zip(gaps, predictions, strict=True)]


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
