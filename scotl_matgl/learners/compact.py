"""Fitted heads in few bytes: what predictions need of them, without loss, and back to what they were."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.ensemble import ExtraTreesClassifier, ExtraTreesRegressor

from scotl_matgl.learners.kernel import LaplacianKernelClassifier, LaplacianKernelRidge
from scotl_matgl.vocabulary import Floats

_KINDS = {"regressor": ExtraTreesRegressor, "classifier": ExtraTreesClassifier}

# Bytes of a node as scikit-learn holds it.
_NODE_BYTES = 72


@dataclass(frozen=True, eq=False)
class CompactForest:
    """Trees of a fitted forest of extra trees, one after the other, without what only their growth needed.

    Attributes
    ----------
    kind : {"regressor", "classifier"}
    parameters : dict
        Of the forest.
    classes : ndarray
        Class codes; empty for a property.
    n_features, max_features : int
        Columns, and how many of them were tried at a split.
    sizes : ndarray of int32, shape (t,)
        Number of nodes of each tree.
    feature : ndarray of int16, shape (n,)
        Column that a node splits, -1 for a leaf.
    threshold : ndarray of float32, shape (number of splits,)
        Rows whose value is at most this go left. Values are float32 in these trees, so that the largest one at most as
        large as the threshold, which scikit-learn holds as float64, decides the same.
    right : ndarray of uint16 or uint32, shape (number of splits,)
        Right branch, by its place in the tree; the left one is the next node.
    leaf : ndarray of uint16 or uint32, shape (number of leaves,)
        What a leaf predicts, by its place in `values`.
    values : ndarray of shape (k, m)
        Different predictions.
    """

    kind: str
    parameters: dict[str, Any]
    classes: NDArray[Any]
    n_features: int
    max_features: int
    sizes: NDArray[np.int32]
    feature: NDArray[np.int16]
    threshold: NDArray[np.float32]
    right: NDArray[np.unsignedinteger[Any]]
    leaf: NDArray[np.unsignedinteger[Any]]
    values: Floats

    @classmethod
    def of(cls, forest: Any) -> CompactForest | None:
        """Compact form of a forest, or None if it is of another kind."""
        kind = next((name for name, known in _KINDS.items() if type(forest) is known), None)
        if kind is None or forest.n_outputs_ != 1 or forest.n_features_in_ > np.iinfo(np.int16).max:
            return None
        trees = [tree.tree_ for tree in forest.estimators_]
        sizes = np.array([tree.node_count for tree in trees], dtype=np.int32)
        states = [tree.__getstate__() for tree in trees]
        nodes = np.concatenate([state["nodes"] for state in states])
        values = np.concatenate([state["values"][:, 0, :] for state in states])
        inner = nodes["left_child"] != -1
        place = _places(sizes)
        if (nodes["left_child"][inner] != place[inner] + 1).any():
            return None
        threshold = nodes["threshold"][inner].astype(np.float32)
        above = threshold > nodes["threshold"][inner]
        threshold[above] = np.nextafter(threshold[above], np.float32(-np.inf))
        different, leaf = np.unique(values[~inner], axis=0, return_inverse=True)
        given = forest.get_params(deep=False)
        parameters = {name: value for name, value in given.items() if isinstance(value, bool | int | float | str)}
        return cls(
            kind,
            parameters,
            np.asarray(getattr(forest, "classes_", np.empty(0))),
            int(forest.n_features_in_),
            int(forest.estimators_[0].max_features_),
            sizes,
            np.where(inner, nodes["feature"], -1).astype(np.int16),
            threshold,
            _small(nodes["right_child"][inner]),
            _small(leaf.ravel()),
            different,
        )

    def expand(self, max_bytes: int) -> Any:
        """The forest itself.

        Raises
        ------
        ValueError
            If branches lead out of their trees, or back, or the whole takes more than so many bytes.
        """
        inner = self.feature >= 0
        self._check(inner, max_bytes)
        forest = _KINDS[self.kind](**self.parameters)
        forest.n_features_in_, forest.n_outputs_ = self.n_features, 1
        if self.kind == "classifier":
            forest.classes_, forest.n_classes_ = self.classes, len(self.classes)
        forest.estimator_ = forest.estimator
        forest.estimators_ = [self._tree(forest, tree) for tree in self._trees(inner)]
        forest._n_samples = forest._n_samples_bootstrap = 0
        return forest

    def _check(self, inner: NDArray[np.bool_], max_bytes: int) -> None:
        n, splits = len(self.feature), int(inner.sum())
        width = max(len(self.classes), 1)
        if n * (_NODE_BYTES + 8 * width) > max_bytes:
            raise ValueError(f"its forests take more than {max_bytes} bytes")
        sound = self.kind in _KINDS and len(self.sizes) > 0 and bool((self.sizes > 0).all())
        sound = sound and int(self.sizes.sum(dtype=np.int64)) == n and self.values.shape[1:] == (width,)
        sound = sound and len(self.threshold) == len(self.right) == splits and len(self.leaf) == n - splits
        sound = sound and bool((self.feature < self.n_features).all()) and bool((self.leaf < len(self.values)).all())
        if sound:
            place, size = _places(self.sizes)[inner], np.repeat(self.sizes, self.sizes)[inner]
            right = self.right.astype(np.int64)
            sound = bool(((place + 1 < size) & (right > place) & (right < size)).all())
        if not sound:
            raise ValueError("a decision tree in it leads out of its arrays")

    def _trees(self, inner: NDArray[np.bool_]) -> Iterator[tuple[Any, Floats]]:
        """Nodes and values of the trees as scikit-learn has them."""
        from sklearn.tree._tree import NODE_DTYPE

        nodes = np.zeros(len(self.feature), dtype=NODE_DTYPE)
        nodes["left_child"] = np.where(inner, _places(self.sizes) + 1, -1)
        nodes["right_child"] = nodes["feature"] = -1
        nodes["feature"] = np.where(inner, self.feature, -2)
        nodes["right_child"][inner] = self.right
        nodes["threshold"] = -2.0
        nodes["threshold"][inner] = self.threshold
        values = np.zeros((len(nodes), 1, self.values.shape[1]))
        values[~inner, 0] = self.values[self.leaf]
        ends = np.cumsum(self.sizes)
        for start, end in zip(ends - self.sizes, ends, strict=True):
            yield nodes[start:end].copy(), values[start:end].copy()

    def _tree(self, forest: Any, parts: tuple[Any, Floats]) -> Any:
        from sklearn.base import clone
        from sklearn.tree._tree import Tree

        nodes, values = parts
        grown = clone(forest.estimator)
        n_classes = np.array([max(len(self.classes), 1)], dtype=np.intp)
        grown.tree_ = Tree(self.n_features, n_classes, 1)
        # The depth serves no prediction; the number of nodes bounds it.
        grown.tree_.__setstate__({"max_depth": len(nodes), "node_count": len(nodes), "nodes": nodes, "values": values})
        grown.n_features_in_, grown.n_outputs_, grown.max_features_ = self.n_features, 1, self.max_features
        if self.kind == "classifier":
            grown.classes_, grown.n_classes_ = np.arange(len(self.classes)), np.int64(len(self.classes))
        return grown


def _places(sizes: NDArray[Any]) -> NDArray[np.int64]:
    """Place of each node in its tree."""
    sizes = sizes.astype(np.int64)
    starts = np.cumsum(sizes) - sizes
    places: NDArray[np.int64] = np.arange(sizes.sum(), dtype=np.int64) - np.repeat(starts, sizes)
    return places


def _small(numbers: NDArray[Any]) -> NDArray[np.unsignedinteger[Any]]:
    return numbers.astype(np.uint16 if numbers.max(initial=0) <= np.iinfo(np.uint16).max else np.uint32)


@dataclass(frozen=True, eq=False)
class CompactKernel:
    """A fitted kernel head whose training rows are among columns that several kernels share.

    Attributes
    ----------
    kernel : LaplacianKernelRidge or LaplacianKernelClassifier
        Without its ``X_fit_``.
    columns : ndarray of int32, shape (p,)
        Which of the columns it has.
    pool : ndarray of shape (n, k)
        All different columns.
    """

    kernel: Any
    columns: NDArray[np.int32]
    pool: NDArray[np.floating[Any]]

    def expand(self) -> Any:
        """The head itself.

        Raises
        ------
        ValueError
            If it has columns that are not there.
        """
        if not ((self.columns >= 0) & (self.columns < self.pool.shape[1])).all():
            raise ValueError("a kernel in it has columns that are not there")
        kernel = copy.copy(self.kernel)
        kernel.X_fit_ = np.ascontiguousarray(self.pool[:, self.columns])
        return kernel


def compact_heads(heads: Sequence[Any]) -> list[Any]:
    """Heads in few bytes; of the same one several times the same object, and others as they are."""
    kernels = {id(head): head for head in heads if isinstance(head, LaplacianKernelRidge | LaplacianKernelClassifier)}
    place: dict[bytes, int] = {}
    columns: list[NDArray[Any]] = []
    indices: dict[int, NDArray[np.int32]] = {}
    for key, head in kernels.items():
        found = []
        for column in head.X_fit_.T:
            at = place.setdefault(column.tobytes(), len(columns))
            if at == len(columns):
                columns.append(column)
            found.append(at)
        indices[key] = np.array(found, dtype=np.int32)
    pool = np.ascontiguousarray(np.array(columns).T)
    known: dict[int, Any] = {}
    for head in heads:
        if id(head) in known:
            continue
        if id(head) in kernels and len(head.X_fit_) == len(pool):
            slim = copy.copy(head)
            del slim.X_fit_
            known[id(head)] = CompactKernel(slim, indices[id(head)], pool)
        else:
            known[id(head)] = CompactForest.of(head) or head
    return [known[id(head)] for head in heads]


def expand_heads(heads: Sequence[Any], max_bytes: int) -> list[Any]:
    """Heads as they were before :func:`compact_heads`.

    Raises
    ------
    ValueError
        If one of them is not sound.
    """
    known: dict[int, Any] = {}
    for head in heads:
        if id(head) not in known:
            whole = head
            if isinstance(head, CompactForest):
                whole = head.expand(max_bytes)
            elif isinstance(head, CompactKernel):
                whole = head.expand()
            known[id(head)] = whole
    return [known[id(head)] for head in heads]
