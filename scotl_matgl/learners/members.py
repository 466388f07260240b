"""Members of a blend: heads on blocks of columns, and what they predict out of fold."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.base import clone
from sklearn.dummy import DummyClassifier
from sklearn.ensemble import ExtraTreesRegressor
from sklearn.utils.validation import check_array

from scotl_matgl.learners.heads import HEADS, HeldRidge, grown_and_read, held_out_of_fold, make_head
from scotl_matgl.learners.kernel import (
    BlockDistances,
    LaplacianKernelClassifier,
    LaplacianKernelRidge,
    indicators_to_probabilities,
    kernel_out_of_fold,
    manhattan,
)
from scotl_matgl.learners.scaling import scaled_for_trees
from scotl_matgl.tables.folds import Folds
from scotl_matgl.vocabulary import Floats

#: Blocks of columns that are known without a source.
DESCRIPTORS, COLUMNS, FRACTIONS = "descriptors", "columns", "fractions"

#: Trees of a forest that is grown for one fold, to learn what the head loses. A forest of the model itself has more
#: than twice as many, and an error that is half a percent smaller, whatever it looks at (docs/measurements.md).
FOLD_TREES = 40


@dataclass(frozen=True, eq=False)
class Features:
    """Blocks of columns for the same rows.

    Attributes
    ----------
    columns : mapping of str to ndarray of shape (n, p)
        By name of the block.
    weights : mapping of str to ndarray of shape (p,)
        Weight of each column in the distances of kernel ridge; blocks without have 1 everywhere.
    """

    columns: Mapping[str, Floats]
    weights: Mapping[str, Floats]

    def take(self, rows: NDArray[np.intp]) -> Features:
        """Some of the rows."""
        return Features({name: values[rows] for name, values in self.columns.items()}, self.weights)

    def stacked(self, blocks: Sequence[str]) -> Floats:
        """Blocks side by side."""
        return np.hstack([self.columns[block] for block in blocks])

    def stacked_weights(self, blocks: Sequence[str]) -> Floats:
        """Weights of the columns of blocks side by side; several embeddings together count as one."""
        n_embeddings = sum(block not in self.weights for block in blocks)
        return np.concatenate(
            [
                self.weights.get(block, np.full(self.columns[block].shape[1], 1.0 / max(n_embeddings, 1)))
                for block in blocks
            ]
        )


@dataclass(frozen=True, eq=False)
class LearningTask:
    """What is learned: the target, its kind, and the folds in which all heads are compared.

    Attributes
    ----------
    y : ndarray of shape (n,)
        Property as float64, or class codes 0 to k − 1.
    n_classes : int
        k; 0 for regression.
    folds : sequence of (train, test) row numbers
        Every row in exactly one test part.
    random_state : int
        Seed of the heads.
    n_jobs : int, optional
        Threads of forests, as in joblib. They change no number.
    known : mapping of str to ndarray of shape (n, m)
        Out-of-fold predictions that were made before, by the name of the member.
    """

    y: NDArray[Any]
    n_classes: int
    folds: Folds
    random_state: int
    n_jobs: int | None = 1
    known: Mapping[str, Floats] = field(default_factory=dict)

    @property
    def outputs(self) -> Floats:
        """Target as (n, m): the property in one column, or one indicator a class."""
        if not self.n_classes:
            return np.asarray(self.y, dtype=np.float64)[:, None]
        return np.asarray(self.y[:, None] == np.arange(self.n_classes), dtype=np.float64)

    def residual(self, predictions: Floats) -> LearningTask:
        """The same for what predictions (n, 1) of the property leave."""
        return replace(self, y=self.y - predictions[:, 0], known={})

    def losses(self, predictions: Floats) -> Floats:
        """Loss (n,) of predictions (n, m): the absolute error, or the squared error of the class probabilities."""
        difference = predictions - self.outputs
        return np.asarray((difference**2).sum(axis=1) if self.n_classes else np.abs(difference[:, 0]))

    def errors(self, predictions: Floats) -> Floats:
        """Error (n,) of predictions as it is told: the absolute error, or 1 for a wrong label and 0 for a right one."""
        if self.n_classes:
            return np.asarray(predictions.argmax(axis=1) != self.y, dtype=np.float64)
        return np.asarray(np.abs(predictions[:, 0] - self.y))

    def error(self, predictions: Floats) -> float:
        """Mean absolute error, or share of wrong labels."""
        return float(np.mean(self.errors(predictions)))


@dataclass(frozen=True, eq=False)
class BlendMember:
    """One head of a blend.

    Attributes
    ----------
    head : str or estimator
        One of :data:`~scotl_matgl.learners.heads.HEADS`, or an unfitted scikit-learn estimator.
    blocks : tuple of str
        Blocks of columns that it sees.
    transfers : bool
        Whether it sees a source.
    residual : bool
        Whether it learns what the control leaves, and is added to that.
    source : str
        The source, where the head itself holds it.
    median : bool
        Whether a head of several trees predicts their median instead of their mean. It has the smaller absolute error
        where values are skewed, or many are the same: with half of the trees at a band gap of 0 it predicts a metal.
    all_columns : bool
        Whether trees try all columns at a split; for few columns of which each says something of its own.
    clipped : bool
        Whether predictions are held to the range of the training target: nothing else bounds a network that is given
        something new.
    """

    head: Any
    blocks: tuple[str, ...]
    transfers: bool = False
    residual: bool = False
    source: str = ""
    median: bool = False
    all_columns: bool = False
    clipped: bool = False

    @property
    def name(self) -> str:
        """Head and blocks in words."""
        head = self.head if isinstance(self.head, str) else type(self.head).__name__
        of = f" of {self.source}" if self.source else ""
        head = f"median of {head}" if self.median else head
        return f"{head}{of} on {'residuals from ' if self.residual else ''}{' + '.join(self.blocks)}"

    @property
    def fit_name(self) -> str:
        """Name of what is fitted: mean and median are two readings of one forest."""
        return replace(self, median=False).name

    def unfitted(self, features: Features, task: LearningTask) -> Any:
        """Estimator to fit on the stacked blocks."""
        if isinstance(self.head, str):
            head = make_head(
                self.head, classification=task.n_classes > 0, random_state=task.random_state, n_jobs=task.n_jobs
            )
            if self.head == "kernel ridge":
                head.set_params(weights=features.stacked_weights(self.blocks))
            if self.all_columns:
                head.set_params(max_features=1.0)
            return head
        head = clone(self.head)
        if head.get_params().get("random_state", 0) is None:
            head.set_params(random_state=task.random_state)
        return head

    def fit(self, features: Features, y: NDArray[Any], task: LearningTask, *, fold: int | None = None) -> FittedHead:
        """Fit the head on rows and their targets (n,); the task says of which kind these are.

        The forest of a fold has :data:`FOLD_TREES` trees, and another seed than that of another fold: else all would
        try the same columns at their roots, and be wrong together.
        """
        factor, bounds = 1.0, None
        if not task.n_classes and self.head == "extra trees":
            y, factor = scaled_for_trees(y)
        if self.clipped:
            bounds = float(np.min(y)), float(np.max(y))
        head = self.unfitted(features, task)
        if fold is not None and self.head == "extra trees":
            head.set_params(n_estimators=FOLD_TREES, random_state=task.random_state + fold)
        if task.n_classes and len(np.unique(y)) == 1:  # of which not every classifier can learn
            head = DummyClassifier()
        head.fit(features.stacked(self.blocks), y)
        if hasattr(head, "n_jobs") and isinstance(self.head, str):
            head.n_jobs = 1  # threads would add the trees up in the order in which they come: never twice the same
        return FittedHead(head, factor, bounds)

    def read(self, trees: Floats) -> Floats:
        """Median or mean (n,) of the predictions (t, n) of trees."""
        return np.asarray(np.median(trees, axis=0) if self.median else trees.sum(axis=0) / len(trees))

    def outputs(self, fitted: FittedHead, features: Features, n_classes: int, work: Work | None = None) -> Floats:
        """Predictions (n, m) of the fitted head: the property in one column, or the probabilities of class codes.

        NaN in rows that the head refuses, as networks do crystals of elements that they do not know. What several
        members need of the same rows is in `work`.
        """
        head, work = fitted.head, work or Work(features)
        kernel = isinstance(head, LaplacianKernelRidge | LaplacianKernelClassifier)
        if not n_classes:
            if kernel:
                values = head.predict_by_blocks(work.distances, self.blocks)
            elif isinstance(head, ExtraTreesRegressor):
                values = self.read(work.trees(head, self.blocks))
            else:
                values = head.predict(features.stacked(self.blocks))
            values = np.asarray(values, dtype=np.float64).reshape(-1, 1) / fitted.factor
            return values if fitted.bounds is None else np.clip(values, *fitted.bounds)
        X = features.stacked(self.blocks)
        outputs = np.zeros((len(X), n_classes))
        if kernel:
            indicators = head.predict_by_blocks(work.distances, self.blocks)
            outputs[:, head.classes_] = indicators_to_probabilities(indicators)
        elif hasattr(head, "predict_proba"):
            outputs[:, head.classes_] = head.predict_proba(X)
        else:
            outputs[np.arange(len(X)), head.predict(X)] = 1.0
        return outputs


class Work:
    """What the members of a blend need of the same rows, computed once.

    Attributes
    ----------
    distances : BlockDistances
        To the training rows.
    """

    def __init__(self, features: Features) -> None:
        self.distances = BlockDistances(features.columns)
        self._features = features
        self._trees: dict[int, Floats] = {}

    def trees(self, forest: ExtraTreesRegressor, blocks: Sequence[str]) -> Floats:
        """Predictions (t, n) of the trees of a forest."""
        if id(forest) not in self._trees:
            X = self._features.stacked(blocks)
            if X.shape[1] != forest.n_features_in_:
                raise ValueError(
                    f"the blocks have {X.shape[1]} columns; the forest was fitted on {forest.n_features_in_}"
                )
            # As the trees' own `predict` does, but checked and converted once and not for each of them.
            rows = check_array(X, dtype=np.float32, order="C")
            self._trees[id(forest)] = np.array([tree.tree_.predict(rows)[:, 0] for tree in forest.estimators_])
        return self._trees[id(forest)]


@dataclass(frozen=True, eq=False)
class FittedHead:
    """A fitted head, and how its predictions are brought back to the target.

    Attributes
    ----------
    head : estimator
    factor : float
        By which the target was multiplied, so that trees can tell its values apart.
    bounds : tuple of two floats, optional
        Range of the training target to which predictions are held.
    """

    head: Any
    factor: float = 1.0
    bounds: tuple[float, float] | None = None


def members_without_transfer(
    features: Features, *, head: Any = "auto", classification: bool = False
) -> list[BlendMember]:
    """Heads on what is known without a source: all that transfer has to beat.

    Parameters
    ----------
    features : Features
        With blocks among `DESCRIPTORS`, `COLUMNS` and `FRACTIONS`, or others that stand alone.
    head : "auto", str or estimator, default="auto"
        ``"auto"``: kernel ridge, extra trees and gradient boosting on the descriptors, and extra trees on the element
        fractions, which each know of effects that averages over elements blur; for a property, trees are read by their
        mean and by their median.
    classification : bool, default=False
        Whether labels are learned, which have no median.
    """
    on_descriptors = tuple(block for block in features.columns if block != FRACTIONS)
    everything = isinstance(head, str) and head == "auto"
    members = [BlendMember(item, on_descriptors) for item in check_head(head)]
    if everything:
        members.append(BlendMember("gradient boosting", on_descriptors))
        if FRACTIONS in features.columns:
            beside = tuple(block for block in on_descriptors if block != DESCRIPTORS)
            members.append(BlendMember("extra trees", (FRACTIONS, *beside), all_columns=True))
    return with_medians(members) if everything and not classification else members


def with_medians(members: Sequence[BlendMember]) -> list[BlendMember]:
    """Members, and behind each forest the same read by the median of its trees."""
    return [
        reading
        for member in members
        for reading in ((member, replace(member, median=True)) if member.head == "extra trees" else (member,))
    ]


def out_of_fold(members: Sequence[BlendMember], features: Features, task: LearningTask) -> list[Floats]:
    """Out-of-fold predictions (n, m) of members that differ only in how they read one fitted head."""
    first = members[0]
    if all(member.name in task.known for member in members):
        return [task.known[member.name] for member in members]
    if isinstance(first.head, HeldRidge) and not task.n_classes:
        return [held_out_of_fold(features.stacked(first.blocks), task.outputs[:, 0], task.folds)[:, None]]
    if first.head == "kernel ridge":
        distances = manhattan(features.stacked(first.blocks), features.stacked_weights(first.blocks))
        predictions, _ = kernel_out_of_fold(distances, task.outputs, task.folds)
        return [indicators_to_probabilities(predictions) if task.n_classes else predictions]
    found = [np.empty_like(task.outputs) for _ in members]
    if first.head == "extra trees" and not task.n_classes:
        X, (y, factor) = features.stacked(first.blocks), scaled_for_trees(task.y)
        for fold, (train, test) in enumerate(task.folds):
            values = grown_and_read(
                X[train],
                y[train],
                X[test],
                n_trees=FOLD_TREES,
                random_state=task.random_state + fold,
                all_columns=first.all_columns,
                n_jobs=task.n_jobs,
            )
            for member, predictions in zip(members, found, strict=True):
                predictions[test, 0] = member.read(values) / factor
        return found
    for fold, (train, test) in enumerate(task.folds):
        fitted = first.fit(features.take(train), task.y[train], task, fold=fold)
        for member, predictions in zip(members, found, strict=True):
            predictions[test] = member.outputs(fitted, features.take(test), task.n_classes)
    return found


def check_head(head: Any) -> tuple[Any, ...]:
    """Heads that a parameter `head` stands for.

    Raises
    ------
    ValueError
        If it is neither ``"auto"``, a name, nor an estimator.
    """
    if isinstance(head, str):
        if head == "auto":
            return ("kernel ridge", "extra trees")
        if head in HEADS:
            return (head,)
    elif hasattr(head, "fit") and hasattr(head, "predict") and hasattr(head, "get_params"):
        return (head,)
    raise ValueError(f"head is {head!r}; it must be 'auto', one of {', '.join(HEADS)}, or a scikit-learn estimator")
