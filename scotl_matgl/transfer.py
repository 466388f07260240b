"""The transferred model: scikit-learn estimators that learn a property from formulas and pretrained sources."""

from __future__ import annotations

import warnings
from collections.abc import Hashable, Sequence
from typing import TYPE_CHECKING, Any, Literal, Self

import numpy as np
from numpy.typing import ArrayLike, NDArray
from sklearn.base import BaseEstimator, RegressorMixin
from sklearn.utils.validation import check_is_fitted, column_or_1d

from scotl_matgl.blending import Features, Member, Task, blend_weights, check_head, outputs_of
from scotl_matgl.descriptors import CompositionDescriptor, get_descriptor
from scotl_matgl.exceptions import InputError, ScotlMatglWarning
from scotl_matgl.heads import Floats
from scotl_matgl.ranking import NO_TRANSFER
from scotl_matgl.rows import Rows, read_rows
from scotl_matgl.source_choice import Choice, cards_for, choose_sources
from scotl_matgl.source_embedding import SourceEmbedding

if TYPE_CHECKING:
    pass

# Fewest rows with a source: below, five folds leave next to nothing to choose it by.
_MIN_ROWS = 10

# A further column counts as much as this share of all descriptors in the distances of kernel ridge.
_COLUMN_SHARE = 0.25

# A member of a blend that counts less than this is not worth its time.
_LEAST_WEIGHT = 1e-3


class _FromFormulas(BaseEstimator):  # type: ignore[misc]  # scikit-learn is not typed
    """What all estimators of this module share: reading rows, describing them, embedding them."""

    formula: Hashable | None
    on_error: str
    descriptor: Any

    def _check_common(self) -> None:
        if self.on_error not in ("warn", "raise", "skip"):
            raise InputError(f"on_error is {self.on_error!r}; it must be 'warn', 'raise' or 'skip'")
        for name, least in (("n_sources", 1), ("max_rows", _MIN_ROWS), ("random_state", 0)):
            value = getattr(self, name)
            if not isinstance(value, int | np.integer) or value < least:
                raise InputError(f"{name} is {value!r}; it must be a whole number of at least {least}")

    def _warn(self, skipped: Sequence[Any], consequence: str, *, stacklevel: int = 4) -> None:
        if skipped and self.on_error == "warn":
            shown = "; ".join(f"row {row.row} ({row.value}): {row.reason}" for row in skipped[:3])
            more = f"; and {len(skipped) - 3} more" if len(skipped) > 3 else ""
            warnings.warn(f"{len(skipped)} rows {consequence}: {shown}{more}", ScotlMatglWarning, stacklevel=stacklevel)

    def _features(self, rows: Rows) -> Features:
        """Blocks that the control sees: descriptors and further columns, or the numbers alone."""
        if rows.compositions is None:
            return Features({"numbers": rows.numbers}, {"numbers": np.ones(rows.numbers.shape[1])})
        described = np.asarray(self._descriptor.transform(rows.compositions), dtype=np.float64)
        columns = {"descriptors": np.nan_to_num(described)}
        weights = {"descriptors": np.ones(described.shape[1])}
        if rows.names:
            # One column among some hundred that all describe the formula would be lost in their distances.
            columns["columns"] = rows.numbers
            weights["columns"] = np.full(len(rows.names), _COLUMN_SHARE * described.shape[1])
        return Features(columns, weights)

    def _with_sources(self, features: Features, rows: Rows) -> Features:
        """Add a block for each source."""
        columns = dict(features.columns)
        for source in self.sources_:
            assert rows.compositions is not None  # noqa: S101 - there are no sources for numbers alone
            columns[source.name], _ = source.embed(rows.compositions, columns["descriptors"], self._descriptor)
        return Features(columns, features.weights)

    _descriptor: CompositionDescriptor
    sources_: tuple[SourceEmbedding, ...]

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.input_tags.string = True
        tags.input_tags.one_d_array = True
        tags.target_tags.required = True
        return tags


class _TransferModel(_FromFormulas):
    """Blend of heads on descriptors and on descriptors beside embeddings; the target is left to the subclass."""

    def __init__(
        self,
        sources: Any = "auto",
        *,
        method: Literal["frozen", "fine-tune"] = "frozen",
        head: Any = "auto",
        combine: Literal["concat", "residual", "embedding"] = "concat",
        guard: bool = True,
        n_sources: int = 3,
        descriptor: Any = "standard",
        layer: str = "readout",
        look_up: bool | Literal["auto"] = "auto",
        formula: Hashable | None = None,
        reinitialise: int = 1,
        max_rows: int = 1000,
        on_error: Literal["warn", "raise", "skip"] = "warn",
        random_state: int = 0,
    ) -> None:
        self.sources = sources
        self.method = method
        self.head = head
        self.combine = combine
        self.guard = guard
        self.n_sources = n_sources
        self.descriptor = descriptor
        self.layer = layer
        self.look_up = look_up
        self.formula = formula
        self.reinitialise = reinitialise
        self.max_rows = max_rows
        self.on_error = on_error
        self.random_state = random_state

    # -- fitting --------------------------------------------------------------------------------------------------

    def fit(self, X: Any, y: ArrayLike) -> Self:
        """Choose sources and fit.

        Parameters
        ----------
        X : sequence of formulas, or table
            n formulas: all that :func:`~scotl_matgl.composition.parse_compositions` reads, also as a table of one
            column; with `formula` a table with that column and numeric ones; without sources also numbers alone.
        y : array-like of shape (n,)
            Measured property, or class labels.

        Returns
        -------
        self

        Raises
        ------
        InputError
            If a parameter is wrong, too few rows remain, or no source can be used.
        CompositionError
            With ``on_error="raise"``, for the first formula that cannot be read.
        """
        self._check_common()
        heads = self._check_parameters()
        rows, target = self._read_training(X, y)
        self.skipped_ = rows.skipped
        self._descriptor = get_descriptor(self.descriptor)
        if rows.compositions is not None:
            self._descriptor.fit(rows.compositions)
        features = self._features(rows)
        control = tuple(features.columns)
        n_classes = len(getattr(self, "classes_", ()))
        sample = _sample(len(rows), self.max_rows, self.random_state)
        folds = rows.take(sample).folds(target[sample], classification=n_classes > 0, random_state=self.random_state)
        task = Task(target[sample], n_classes, folds, self.random_state)

        from threadpoolctl import threadpool_limits

        with threadpool_limits(1):  # small matrices gain nothing from more, and threads that wait for each other lose
            choice = self._choose(rows, features, task, sample)
            self.sources_ = choice.sources if choice else ()
            self.ranking_ = choice.ranking if choice else None
            self.errors_ = choice.errors if choice else {}
            columns = dict(features.columns) | (dict(choice.values) if choice else {})
            features = Features(columns, features.weights)
            members = self._members(heads, control)
            self._blend(members, features.take(sample), task)
            self._fit_members(features, target, rows, task)
        self._warn(self.skipped_, "were skipped", stacklevel=3)
        return self

    def _check_parameters(self) -> tuple[Any, ...]:
        """Raise if a parameter is none of what it may be; return the heads."""
        for name, values in (
            ("method", ("frozen", "fine-tune")),
            ("combine", ("concat", "residual", "embedding")),
            ("look_up", ("auto", True, False)),
        ):
            if getattr(self, name) not in values:
                shown = ", ".join(map(repr, values))
                raise InputError(f"{name} is {getattr(self, name)!r}; it must be one of {shown}")
        try:
            return check_head(self.head)
        except ValueError as error:
            raise InputError(str(error)) from None

    def _read_training(self, X: Any, y: ArrayLike) -> tuple[Rows, NDArray[Any]]:
        """Rows that have a target, and their targets: float64, or class codes."""
        if y is None:
            raise ValueError(f"{type(self).__name__} requires y to be passed, but the target y is None")
        strict = self.on_error == "raise"
        rows = read_rows(self, X, formula=self.formula, strict=strict, reset=True)
        target = column_or_1d(y, warn=True)
        if len(target) != rows.n_input:
            raise InputError(f"there are {rows.n_input} rows and {len(target)} targets; give one for each row")
        values, bad = self._read_target(target[rows.kept], numbers_alone=rows.compositions is None)
        rows = rows.without(bad, target[rows.kept], "its target cannot be used; measure it or leave the row out")
        if strict:
            rows.refuse_skipped()
        if len(rows) < 2:
            raise InputError(f"n_samples={len(rows)} rows can be used of {rows.n_input}; at least 2 are needed")
        return rows, self._encode_target(values[~bad])

    def _read_target(self, target: NDArray[Any], *, numbers_alone: bool) -> tuple[NDArray[Any], NDArray[np.bool_]]:
        raise NotImplementedError

    def _encode_target(self, values: NDArray[Any]) -> NDArray[Any]:
        raise NotImplementedError

    def _choose(self, rows: Rows, features: Features, task: Task, sample: NDArray[np.intp]) -> Choice | None:
        errors: dict[str, str] = {}
        cards = cards_for(self.sources, errors)
        if not cards:
            return None
        if rows.compositions is None:
            raise InputError("X holds numbers, of which no source knows anything; give formulas, or sources=()")
        if len(rows) < _MIN_ROWS:
            raise InputError(f"{len(rows)} rows can be used; to choose a source takes at least {_MIN_ROWS}")
        choice = choose_sources(
            cards,
            rows.compositions,
            features,
            task,
            self._descriptor,
            n_sources=self.n_sources,
            layer=self.layer,
            look_up=self.look_up,
            sample=sample,
            skipped=rows.skipped,
            errors=errors,
        )
        if self.sources not in ("auto", "all") and choice.errors and self.on_error == "warn":
            shown = "; ".join(f"{name}: {reason}" for name, reason in list(choice.errors.items())[:2])
            warnings.warn(f"{len(choice.errors)} sources were left out: {shown}", ScotlMatglWarning, stacklevel=4)
        return choice

    def _members(self, heads: Sequence[Any], control: tuple[str, ...]) -> list[Member]:
        """Heads on descriptors, first, and on what `combine` puts in their place."""
        alone = [Member(head, control) for head in heads]
        names = tuple(source.name for source in self.sources_)
        if not names:
            return alone
        beside = tuple(block for block in control if block != "descriptors")
        blocks = (*control, *names) if self.combine == "concat" else (*names, *beside)
        residual = self.combine == "residual"
        transferred = [Member(head, blocks, transfers=True, residual=residual) for head in heads]
        return [*alone, *transferred] if self.guard or residual else transferred

    def _blend(self, members: list[Member], features: Features, task: Task) -> None:
        """Weigh the members by their out-of-fold losses, and let the guard decide."""
        predictions: list[Floats] = []
        base = 0
        for member in members:
            if member.residual:
                alone = [i for i, other in enumerate(members) if not other.transfers]
                base = min(alone, key=lambda i: float(task.losses(predictions[i]).mean()))
                left = task.residual(predictions[base])
                predictions.append(predictions[base] + member.out_of_fold(features, left))
            else:
                predictions.append(member.out_of_fold(features, task))
        losses = np.array([task.losses(item) for item in predictions])
        transfers = np.array([member.transfers for member in members])
        weights = np.zeros(len(members))
        self.transfers_ = bool(transfers.any())
        if self.guard and self.transfers_ and not transfers.all():
            weights[~transfers] = blend_weights(losses[~transfers])
            without = task.losses(_weighted(predictions, weights)).mean()
            together = blend_weights(losses)
            self.transfers_ = bool(task.losses(_weighted(predictions, together)).mean() < without)
            if self.transfers_:
                weights = together
        else:
            counted = transfers if self.transfers_ else ~transfers
            weights[counted] = blend_weights(losses[counted])
        weights[weights < _LEAST_WEIGHT] = 0.0
        weights /= weights.sum()
        blended = _weighted(predictions, weights)
        self.error_ = task.error(blended)
        self.control_error_ = min(
            (task.error(item) for item, member in zip(predictions, members, strict=True) if not member.transfers),
            default=float("nan"),
        )
        self.source_ = self.sources_[0].name if self.transfers_ else NO_TRANSFER
        self._base = base
        self._members_all = tuple(members)
        self.weights_ = weights
        self._calibrate(predictions, features, task)

    def _calibrate(self, predictions: Sequence[Floats], features: Features, task: Task) -> None:
        """Learn what is needed to say how sure a prediction is, if anything."""

    def _fit_members(self, features: Features, target: NDArray[Any], rows: Rows, task: Task) -> None:
        """Fit the members that count on all rows."""
        whole = Task(target, task.n_classes, task.folds, self.random_state)
        needed = {i for i in range(len(self.weights_)) if self.weights_[i] > 0}
        left = whole
        if any(self._members_all[i].residual for i in needed):
            needed.add(self._base)
            folds = task.folds
            if len(rows) > len(task.y):
                folds = rows.folds(target, classification=False, random_state=self.random_state)
            all_folds = Task(target, task.n_classes, folds, self.random_state)
            left = all_folds.residual(self._members_all[self._base].out_of_fold(features, all_folds))
        self._fitted = {}
        for i in sorted(needed):
            member = self._members_all[i]
            y = left.y if member.residual else target
            self._fitted[i] = member.unfitted(features, whole).fit(features.stacked(member.blocks), y)
        self.members_ = {
            member.name: float(weight)
            for member, weight in zip(self._members_all, self.weights_, strict=True)
            if weight > 0
        }

    # -- predicting -----------------------------------------------------------------------------------------------

    def _read(self, X: Any) -> Rows:
        check_is_fitted(self, "weights_")
        rows = read_rows(self, X, formula=self.formula, strict=self.on_error == "raise", reset=False)
        self._warn(rows.skipped, "cannot be predicted")
        return rows

    def _predictions(self, features: Features) -> tuple[Floats, list[Floats], Floats]:
        """Blended predictions (n, m), those of the members that count, and their weights."""
        found = {
            i: outputs_of(head, features.stacked(self._members_all[i].blocks), self._n_classes)
            for i, head in self._fitted.items()
        }
        counted = [i for i in found if self.weights_[i] > 0]
        members = [found[i] + (found[self._base] if self._members_all[i].residual else 0.0) for i in counted]
        weights = self.weights_[counted]
        return _weighted(members, weights), members, weights

    @property
    def _n_classes(self) -> int:
        return len(getattr(self, "classes_", ()))

    def _blended(self, rows: Rows) -> tuple[Floats, list[Floats], Floats, Features]:
        features = self._features(rows)
        if self.transfers_:
            features = self._with_sources(features, rows)
        return *self._predictions(features), features


def _sample(n: int, max_rows: int, random_state: int) -> NDArray[np.intp]:
    """Sorted numbers of all rows, or of `max_rows` drawn at random."""
    if n <= max_rows:
        return np.arange(n)
    return np.sort(np.random.default_rng(random_state).choice(n, size=max_rows, replace=False))


def _weighted(predictions: Sequence[Floats], weights: Floats) -> Floats:
    """Weighted sum of predictions (n, m)."""
    return np.asarray(sum(weight * item for weight, item in zip(weights, predictions, strict=True)))


class TransferRegressor(RegressorMixin, _TransferModel):  # type: ignore[misc]  # scikit-learn is not typed
    """Predict a property of a formula from descriptors and pretrained sources.

    Sources are ranked inside ``fit``, so that cross-validation of this estimator is honest.
    """

    def _read_target(self, target: NDArray[Any], *, numbers_alone: bool) -> tuple[NDArray[Any], NDArray[np.bool_]]:
        import pandas as pd

        if target.dtype.kind in "mMc":
            raise InputError(f"the target holds values of type {target.dtype}; give real numbers")
        if numbers_alone:
            values = target.astype(np.float64)
            if not np.isfinite(values).all():
                raise ValueError("Input y contains NaN or infinity")
        else:
            values = np.asarray(pd.to_numeric(pd.Series(target), errors="coerce"), dtype=np.float64)
        return values, ~np.isfinite(values)

    def _encode_target(self, values: NDArray[Any]) -> NDArray[Any]:
        return values

    def predict(self, X: Any) -> Floats:
        """Predict (n,) in the unit of the target; rows that cannot be read are NaN."""
        rows = self._read(X)
        predicted = np.full(rows.n_input, np.nan)
        if len(rows):
            predicted[rows.kept] = self._blended(rows)[0][:, 0]
        return predicted
