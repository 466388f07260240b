"""The transferred model: scikit-learn estimators that learn a property from formulas and pretrained sources."""

from __future__ import annotations

import warnings
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Self

import numpy as np
from numpy.typing import ArrayLike, NDArray
from sklearn.base import BaseEstimator, ClassifierMixin, RegressorMixin, TransformerMixin, clone
from sklearn.frozen import FrozenEstimator
from sklearn.utils.multiclass import check_classification_targets
from sklearn.utils.validation import check_is_fitted, column_or_1d

from scotl_matgl.blend import Blend, gaps, spread, weighted, without_gaps
from scotl_matgl.cards import SourceCard
from scotl_matgl.composition import SYMBOLS, SkippedRow
from scotl_matgl.descriptors import CompositionDescriptor, get_descriptor
from scotl_matgl.domain import TrainingDomain
from scotl_matgl.exceptions import InputError, ScotlMatglWarning, counted
from scotl_matgl.fine_tuning import FineTunedBridge
from scotl_matgl.full_training import FullTransferRegressor, reason_against, refusals
from scotl_matgl.heads import Floats, HeldRidge, sample_rows
from scotl_matgl.members import Features, Member, Task, check_head
from scotl_matgl.model_files import load_model, save_model
from scotl_matgl.ranking import NO_TRANSFER, Ranking
from scotl_matgl.rows import Rows, is_numeric, read_rows
from scotl_matgl.source_choice import Choice, cards_for, choose_sources, no_sources
from scotl_matgl.source_embedding import SourceEmbedding, elements_outside, embeddings
from scotl_matgl.table import Table
from scotl_matgl.uncertainty import Uncertainty

if TYPE_CHECKING:
    import pandas as pd

# Fewest rows with a source: below, five folds leave next to nothing to choose it by.
_MIN_ROWS = 10

# A further column counts as much as this share of all descriptors in the distances of kernel ridge.
_COLUMN_SHARE = 0.25

# Descriptors that a bridge may hold back of a row that still counts as inside its domain.
_CLIPPED = 3

# Blocks of columns with what all sources predict, and with the atomic fractions of the elements of the training rows.
_PREDICTIONS = "source predictions"
_FRACTIONS = "fractions"

# Block of one column with the crystals themselves.
_CRYSTALS = "crystals"


class _FromFormulas(BaseEstimator):  # type: ignore[misc]  # scikit-learn is not typed
    """What all estimators of this module share: reading rows, describing them, embedding them."""

    formula: Hashable | None
    on_error: str
    descriptor: Any
    sources: Any

    def _check_common(self) -> None:
        if self.on_error not in ("warn", "raise", "skip"):
            raise InputError(f"on_error is {self.on_error!r}; it must be 'warn', 'raise' or 'skip'")
        for name, least in (("n_sources", 1), ("max_rows", _MIN_ROWS), ("random_state", 0)):
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, int | np.integer) or value < least:
                raise InputError(f"{name} is {value!r}; it must be a whole number of at least {least}")

    def _warn(self, skipped: Sequence[Any], consequence: str, *, stacklevel: int = 4) -> None:
        if skipped and self.on_error == "warn":
            shown = "; ".join(f"row {row.row} ({row.value}): {row.reason}" for row in skipped[:3])
            more = f"; and {len(skipped) - 3} more" if len(skipped) > 3 else ""
            message = f"{counted(len(skipped), 'row')} {consequence}: {shown}{more}"
            warnings.warn(message, ScotlMatglWarning, stacklevel=stacklevel)

    def _warn_left_out(self, errors: Mapping[str, str], *, stacklevel: int) -> None:
        """Warn about sources that were asked for and cannot be used."""
        if errors and self.sources not in ("auto", "all") and self.on_error == "warn":
            shown = "; ".join(f"{name}: {reason}" for name, reason in list(errors.items())[:2])
            message = f"{counted(len(errors), 'source')} left out: {shown}"
            warnings.warn(message, ScotlMatglWarning, stacklevel=stacklevel)

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
            columns[source.name] = source.embed(rows.compositions, columns["descriptors"], self._descriptor)
        return Features(columns, features.weights)

    _descriptor: CompositionDescriptor
    sources_: tuple[SourceEmbedding, ...]

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        # Without sources and formulas they are estimators of numbers, and tested as such.
        tags.input_tags.string = tags.input_tags.one_d_array = not no_sources(self.sources)
        tags.target_tags.required = True
        return tags


class _TransferModel(_FromFormulas):
    """Blend of heads on descriptors and on descriptors beside embeddings; the target is left to the subclass."""

    def __init__(
        self,
        sources: Any = "auto",
        *,
        method: Literal["frozen", "fine-tune", "full"] | FullTransferRegressor = "frozen",
        head: Any = "auto",
        combine: Literal["concat", "residual", "embedding"] = "concat",
        guard: bool = True,
        n_sources: int = 3,
        predictions: bool = True,
        descriptor: Any = "standard",
        layer: str = "readout",
        look_up: bool | Literal["auto"] = "auto",
        formula: Hashable | None = None,
        reinitialise: int = 1,
        max_rows: int = 1000,
        on_error: Literal["warn", "raise", "skip"] = "warn",
        n_jobs: int | None = None,
        random_state: int = 0,
    ) -> None:
        self.sources = sources
        self.method = method
        self.head = head
        self.combine = combine
        self.guard = guard
        self.n_sources = n_sources
        self.predictions = predictions
        self.descriptor = descriptor
        self.layer = layer
        self.look_up = look_up
        self.formula = formula
        self.reinitialise = reinitialise
        self.max_rows = max_rows
        self.on_error = on_error
        self.n_jobs = n_jobs
        self.random_state = random_state

    # -- fitting --------------------------------------------------------------------------------------------------

    classes_: NDArray[Any]
    predictors_: tuple[SourceEmbedding, ...]

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
        sample = sample_rows(len(rows), self.max_rows, self.random_state)
        folds = rows.take(sample).folds(target[sample], classification=n_classes > 0, random_state=self.random_state)
        task = Task(target[sample], n_classes, folds, self.random_state, self.n_jobs)

        from threadpoolctl import threadpool_limits

        with threadpool_limits(1):  # small matrices gain nothing from more, and threads that wait for each other lose
            choice = self._choose(rows, features, task, sample)
            self.sources_ = choice.sources if choice else ()
            self.ranking_ = choice.ranking if choice else None
            self.errors_ = dict(choice.errors) if choice else {}
            columns = dict(features.columns) | (dict(choice.values) if choice else {})
            predicted = self._choose_predictors(rows, features)
            if predicted:
                columns[_PREDICTIONS] = np.hstack(predicted)
            self._elements = () if rows.compositions is None else tuple(np.unique(rows.compositions.numbers).tolist())
            features = self._with_formulas(Features(columns, features.weights), rows)
            sampled = features.take(sample)
            self._control = control
            self._domain = TrainingDomain.of(sampled.stacked(control), features.stacked_weights(control))
        if self._trains_networks and self.on_error == "raise":
            self._refuse_refused(rows)
        if len(rows) > len(sample) and self.combine == "residual":
            # Residuals are left by out-of-fold predictions of all rows, of which the sample is a part.
            folds = rows.folds(target, classification=False, random_state=self.random_state)
        whole = replace(task, y=target, folds=folds)
        members = self._members(heads, control)
        self._blend, predictions = Blend.build(members, sampled, task, features, whole, guard=self.guard)
        self._describe_blend(predictions, task)
        self._warn(self.skipped_, "skipped", stacklevel=3)
        self._note_refused(rows)
        return self

    def _describe_blend(self, predictions: Sequence[Floats], task: Task) -> None:
        """Set what the user may read of the blend, and learn how sure its predictions are."""
        blend = self._blend
        self.errors_ |= blend.failed
        if blend.failed and self.on_error == "warn":
            source, reason = next(iter(blend.failed.items()))
            message = f"{counted(len(blend.failed), 'source')} left out: {source}: {reason}"
            warnings.warn(message, ScotlMatglWarning, stacklevel=4)
        self.sources_ = tuple(source for source in self.sources_ if source.name not in blend.failed)
        self.share_ = blend.share
        self.transfers_ = blend.share > 0.0
        counts = blend.sources or tuple(source.name for source in self.sources_)
        self.source_ = counts[0] if self.transfers_ else NO_TRANSFER
        self.members_, self.member_errors_ = blend.names, blend.errors
        self.error_, self.no_transfer_error_ = blend.error, blend.no_transfer_error
        alone = [blend.errors[member.name] for member in blend.members if not member.transfers]
        self.control_error_ = min(alone, default=float("nan"))
        self._calibrate(predictions, task)

    def _calibrate(self, predictions: Sequence[Floats], task: Task) -> None:
        """Learn what is needed to say how sure a prediction is, if anything."""

    def _refuse_refused(self, rows: Rows) -> None:
        """Raise for the first crystal that the network would refuse, before it is trained on."""
        for source in self.sources_:
            assert source.card is not None  # noqa: S101 - sources that were just chosen have theirs
            for row in _refused(rows, refusals(source.card, rows.crystals)):
                raise InputError(f"row {row.row} ({row.value}) cannot be learned by {source.name}: {row.reason}")

    def _note_refused(self, rows: Rows) -> None:
        """List the crystals of `fit` that the network refuses, and warn."""
        self.refused_: tuple[SkippedRow, ...] = ()
        for i, fitted in self._blend.fitted.items():
            if isinstance(fitted.head, FullTransferRegressor):
                self.refused_ = _refused(rows, {row.row: row.reason for row in fitted.head.skipped_})
                self._warn(self.refused_, self._without("learned", i), stacklevel=4)

    def _without(self, done: str, i: int) -> str:
        """What happens to rows that a network refuses."""
        others = len(self._blend.fitted) > 1
        return f"{done} without {self._blend.members[i].source}" if others else f"not {done}"

    def _check_parameters(self) -> tuple[Any, ...]:
        """Raise if a parameter is none of what it may be; return the heads."""
        own = (self.method,) if isinstance(self.method, FullTransferRegressor) else ()
        for name, values in (
            ("method", (*own, "frozen", "fine-tune", "full")),
            ("combine", ("concat", "residual", "embedding")),
            ("look_up", ("auto", True, False)),
        ):
            if getattr(self, name) not in values:
                shown = ", ".join(map(repr, values)) + (", or a FullTransferRegressor" if name == "method" else "")
                raise InputError(f"{name} is {getattr(self, name)!r}; it must be one of {shown}")
        if self.method != "frozen" and self.combine != "concat":
            raise InputError(f"combine={self.combine!r} is for method='frozen'; {self.method!r} trains sources on")
        try:
            return check_head(self.head)
        except ValueError as error:
            raise InputError(str(error)) from None

    def _read_training(self, X: Any, y: ArrayLike) -> tuple[Rows, NDArray[Any]]:
        """Rows that have a target, and their targets: float64, or class codes."""
        if y is None:
            raise ValueError(f"{type(self).__name__} requires y to be passed, but the target y is None")
        strict = self.on_error == "raise"
        rows = read_rows(self, X, formula=self.formula, strict=strict, reset=True, crystals=self._trains_networks)
        if self._trains_networks and not len(rows):
            first = f"; row {rows.skipped[0].row}: {rows.skipped[0].reason}" if rows.skipped else ""
            raise InputError(f"method='full' trains on crystals, and none of the {rows.n_input} rows holds one{first}")
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
        if self._trains_networks:
            cards = self._trainable(cards, errors)
        elif self.method == "fine-tune":
            cards = self._with_bridges(cards, errors)
        if not cards:
            return None
        if rows.compositions is None:
            raise InputError("X holds numbers, of which no source knows anything; give formulas, or sources=()")
        if len(rows) < _MIN_ROWS:
            raise InputError(f"{len(rows)} rows can be used; to choose a source takes at least {_MIN_ROWS}")
        if len(set(rows.compositions.keys())) == 1:
            if len(cards) > 1 or not self._trains_networks:
                raise InputError(
                    f"all rows have the composition {rows.compositions.text[0]}, which tells no source from another; "
                    "with crystals and method='full' name the one source"
                )
            self._warn_left_out(errors, stacklevel=5)
            return Choice((SourceEmbedding.without_bridge(cards[0], self.layer),), {}, None, errors)
        choice = choose_sources(
            cards,
            rows.compositions,
            features,
            task,
            self._descriptor,
            # Training a network on takes six times as long as once: the best alone.
            n_sources=1 if self._trains_networks else self.n_sources,
            layer=self.layer,
            look_up=self.look_up,
            sample=sample,
            skipped=rows.skipped,
            errors=errors,
        )
        self._warn_left_out(choice.errors, stacklevel=5)
        return choice

    @property
    def _trains_networks(self) -> bool:
        return not isinstance(self.method, str) or self.method == "full"

    def _trainable(self, cards: Sequence[SourceCard], errors: dict[str, str]) -> list[SourceCard]:
        """Sources whose networks can be trained on."""
        return self._usable(cards, {card.name: reason_against(card) for card in cards}, errors)

    def _with_bridges(self, cards: Sequence[SourceCard], errors: dict[str, str]) -> list[SourceCard]:
        """Sources whose bridges can be trained on."""
        reasons = {
            card.name: "" if card.modality == "structure" else "it reads formulas, so there is no bridge to train on"
            for card in cards
        }
        return self._usable(cards, reasons, errors)

    def _usable(
        self, cards: Sequence[SourceCard], reasons: Mapping[str, str], errors: dict[str, str]
    ) -> list[SourceCard]:
        """Sources without a reason against them; of the others those that were named are noted, or refused."""
        if self.sources not in ("auto", "all"):
            errors.update({name: reason for name, reason in reasons.items() if reason})
        found = [card for card in cards if not reasons[card.name]]
        if cards and not found:
            # That weights are missing helps more than that a network is of another kind.
            name, reason = max(reasons.items(), key=lambda item: "weights" in item[1])
            raise InputError(f"no source can be trained on ({len(cards)} tried); {name}: {reason}")
        return found

    def _choose_predictors(self, rows: Rows, features: Features) -> list[Floats]:
        """Outputs (n, k) of all sources that have any for these rows; sources that fail are noted in ``errors_``."""
        predictors, outputs = [], []
        if self.predictions and self.sources_ and self.method == "frozen" and rows.compositions is not None:
            for card in cards_for(self.sources, {}):
                if "final" not in card.layers or card.name in self.errors_:
                    continue
                try:
                    (way, embedded), *_ = embeddings(
                        card,
                        rows.compositions,
                        features.columns["descriptors"],
                        self._descriptor,
                        layer="final",
                        look_up=self.look_up is True,
                    )
                except (Exception, SystemExit) as error:  # one source must not end the run, whatever it raises
                    self.errors_[card.name] = f"its own prediction: {str(error) or type(error).__name__}"
                    continue
                predictors.append(way)
                outputs.append(embedded.values)
        self.predictors_ = tuple(predictors)
        return outputs

    def _members(self, heads: Sequence[Any], control: tuple[str, ...]) -> list[Member]:
        """Heads on descriptors, first, and on what `combine` puts in their place."""
        beside = tuple(block for block in control if block != "descriptors")
        everything = isinstance(self.head, str) and self.head == "auto"
        alone = self._read_both_ways([Member(head, control) for head in heads])
        if everything:
            # Beside embeddings it costs much and gives little; on descriptors it is what transfer has to beat.
            alone.append(Member("gradient boosting", control))
        if everything and self._elements:
            # Each element of an alloy has effects of its own, which averages over elements blur.
            on_fractions = Member("extra trees", (_FRACTIONS, *beside), all_columns=True)
            alone += self._read_both_ways([on_fractions])
        names = tuple(source.name for source in self.sources_)
        if not names:
            return alone
        blocks = (*control, *names) if self.combine == "concat" else (*names, *beside)
        residual = self.combine == "residual"
        if self.method != "frozen":
            transferred = self._trained_on(control)
            return [*alone, *transferred] if self.guard else transferred
        transferred = [Member(head, blocks, transfers=True, residual=residual) for head in heads]
        if self.predictors_:
            among = (*control, _PREDICTIONS) if self.combine == "concat" else (_PREDICTIONS, *beside)
            transferred += [Member(head, among, transfers=True, residual=residual) for head in heads]
        transferred = self._read_both_ways(transferred)
        if everything and not self._n_classes:
            # What a source has learned is often linear in its embedding; in descriptors next to nothing is.
            transferred.append(Member(HeldRidge(), (*names, *beside), transfers=True, residual=residual))
        return [*alone, *transferred] if self.guard or residual else transferred

    def _trained_on(self, control: tuple[str, ...]) -> list[Member]:
        """Heads that hold a source of their own, which is trained on."""
        if not self._trains_networks:
            return [
                Member(
                    FineTunedBridge(
                        FrozenEstimator(source.bridge),
                        reinitialise=self.reinitialise,
                        random_state=self.random_state,
                    ),
                    control,
                    transfers=True,
                    source=source.name,
                )
                for source in self.sources_
            ]
        own = not isinstance(self.method, str)
        network = clone(self.method) if own else FullTransferRegressor(random_state=self.random_state)
        (best,) = self.sources_
        return [Member(network.set_params(source=best.card), (_CRYSTALS,), transfers=True, source=best.name, held=True)]

    def _read_both_ways(self, members: list[Member]) -> list[Member]:
        """The same, with the median of the trees of each forest behind their mean."""
        if self._n_classes or self.head != "auto":
            return members
        return [
            reading
            for member in members
            for reading in ((member, replace(member, median=True)) if member.head == "extra trees" else (member,))
        ]

    # -- files ----------------------------------------------------------------------------------------------------

    def save(self, path: str | Path) -> None:
        """Write the fitted model to a file without pickle, see :func:`skops.io.dump`.

        The bridges are in it: to predict takes neither the weights of a source nor a bridge file. Sources of
        composition modality, and look-ups, are found by name and checked by their hashes when they are needed.
        """
        save_model(self, path)

    @classmethod
    def load(cls, path: str | Path, *, trusted: Sequence[str] = ()) -> Self:
        """Read what :meth:`save` wrote.

        Parameters
        ----------
        path : path
        trusted : sequence of str
            Types that you trust beside those of this package, numpy and scikit-learn, such as that of your own head:
            a file may name any type, and only trusted ones are made.

        Raises
        ------
        InputError
            If the file is no such model, or holds types that are not trusted.
        """
        return load_model(path, cls, trusted)

    # -- what the model knows -------------------------------------------------------------------------------------

    def domain(self, X: Any) -> pd.DataFrame:
        """Say for each row how far it is from what the model has seen.

        Parameters
        ----------
        X : as in `fit`
            m rows.

        Returns
        -------
        DataFrame of m rows
            With the index of X where it has one. ``unseen``: elements that no training row has. ``unknown``: elements
            that a source in use does not know. ``distance``: to the nearest training row, in the distance that 95 % of
            the training rows have to their own nearest. ``clipped``: descriptors that lie so far from the crystals of
            a bridge that it holds them back, the largest number of any source in use. ``inside``: no unseen and no
            unknown element, distance at most 1, and at most three descriptors clipped, which a rare element alone may
            bring about. Rows that cannot be read are not inside, and have NaN elsewhere.
        """
        import pandas as pd

        rows = self._read(X)
        features = self._features(rows)
        n = len(rows)
        found = pd.DataFrame(
            {
                "unseen": [""] * n,
                "unknown": [""] * n,
                "distance": self._domain.distance(features.stacked(self._control)) if n else np.empty(0),
                "clipped": np.zeros(n, dtype=np.int64),
            },
            index=rows.kept,
        )
        if rows.compositions is not None and n:
            used = self.sources_ if self.transfers_ else ()
            bridges = () if self._trains_networks else used
            seen = tuple(SYMBOLS[z - 1] for z in self._elements)
            found["unseen"] = [" ".join(row) for row in elements_outside(rows.compositions, seen)]
            unknown = [elements_outside(rows.compositions, source.elements or SYMBOLS) for source in used]
            found["unknown"] = [
                " ".join(dict.fromkeys(symbol for row in of_row for symbol in row))
                for of_row in (zip(*unknown, strict=True) if unknown else [()] * n)
            ]
            X_described = features.columns["descriptors"]
            found["clipped"] = np.max([np.zeros(n), *(source.clipped(X_described) for source in bridges)], axis=0)
        found["inside"] = (
            (found["unseen"] == "")
            & (found["unknown"] == "")
            & (found["distance"] <= 1)
            & (found["clipped"] <= _CLIPPED)
        )
        found = found.reindex(range(rows.n_input))
        found["inside"] = found["inside"].eq(True)
        found.index = pd.Index(rows.labels)
        return found

    # -- predicting -----------------------------------------------------------------------------------------------

    def _read(self, X: Any) -> Rows:
        check_is_fitted(self, "members_")
        rows = read_rows(
            self,
            X,
            formula=self.formula,
            strict=self.on_error == "raise",
            reset=False,
            numbers_alone=not self._elements,
            crystals=self._trains_networks,
        )
        self._warn(rows.skipped, "not predicted")
        return rows

    def _tell_refused(self, refused: Sequence[SkippedRow], consequence: str, *, stacklevel: int) -> None:
        """Warn about crystals that a network refuses, or raise, as `on_error` says."""
        if refused and self.on_error == "raise":
            raise InputError(f"row {refused[0].row} ({refused[0].value}) is {consequence}: {refused[0].reason}")
        self._warn(refused, consequence, stacklevel=stacklevel)

    @property
    def _n_classes(self) -> int:
        return len(getattr(self, "classes_", ()))

    def _blended(self, rows: Rows) -> tuple[list[Floats], Floats, Features]:
        """Predictions (n, m) of the members that count, NaN where a head refuses, their weights, and the columns."""
        features = self._with_formulas(self._features(rows), rows)
        if self.transfers_ and self.method == "frozen":
            features = self._with_sources(features, rows)
            if self._blend.uses(_PREDICTIONS):
                features = self._with_predictions(features, rows)
        members, weights = self._blend.predict(features, self._n_classes)
        refused = np.flatnonzero(gaps(members))
        for i, fitted in self._blend.fitted.items():
            if len(refused) and isinstance(fitted.head, FullTransferRegressor):
                found = fitted.head.refusals(rows.crystals[refused])
                reasons = {int(row): found.get(k, "its prediction is not finite") for k, row in enumerate(refused)}
                self._tell_refused(_refused(rows, reasons), self._without("predicted", i), stacklevel=6)
        return members, weights, features

    def _with_formulas(self, features: Features, rows: Rows) -> Features:
        """Add atomic fractions of the elements that training rows have, and the crystals if there are any."""
        if rows.compositions is None:
            return features
        columns: dict[str, Any] = dict(features.columns)
        columns[_FRACTIONS] = rows.compositions.dense_fractions()[:, np.array(self._elements) - 1]
        if self._trains_networks:
            columns[_CRYSTALS] = rows.crystals[:, None]
        return Features(columns, features.weights)

    def _with_predictions(self, features: Features, rows: Rows) -> Features:
        """Add the block of what all sources predict."""
        assert rows.compositions is not None  # noqa: S101 - there are no sources for numbers alone
        X = features.columns["descriptors"]
        outputs = [source.embed(rows.compositions, X, self._descriptor) for source in self.predictors_]
        return Features({**features.columns, _PREDICTIONS: np.hstack(outputs)}, features.weights)


def _refused(rows: Rows, reasons: Mapping[int, str]) -> tuple[SkippedRow, ...]:
    """Rows, by their position among those that could be read, with the reason why a network refuses them."""
    text = () if rows.compositions is None else rows.compositions.text
    return tuple(
        SkippedRow(int(rows.kept[i]), rows.labels[rows.kept[i]], text[i], reason) for i, reason in reasons.items()
    )


class TransferRegressor(RegressorMixin, _TransferModel):  # type: ignore[misc]  # scikit-learn is not typed
    """Predict a property of formulas from descriptors and pretrained sources.

    Sources are ranked inside ``fit``, so that cross-validation of this estimator is honest. The prediction is a blend:
    heads on the descriptors and heads on descriptors beside the embeddings of the best sources, averaged with weights
    from their out-of-fold losses (:func:`~scotl_matgl.blend.blend_weights`).

    Parameters
    ----------
    sources : "auto", str, SourceCard or list of these, default="auto"
        Which sources may be transferred from: ``"auto"`` are all that can be used, names may hold ``*``, an empty
        list is none.
    method : {"frozen", "fine-tune", "full"} or FullTransferRegressor, default="frozen"
        ``"frozen"``: heads on the embeddings as they are. ``"fine-tune"``: the bridge network with a linear head,
        trained on from its weights (:class:`~scotl_matgl.fine_tuning.FineTunedBridge`); needs torch. ``"full"``: the
        network of the best source itself, trained on; X then holds crystals, and the source is one of MatGL's whose
        weights are on this machine. A :class:`~scotl_matgl.full_training.FullTransferRegressor` is the same with
        settings and seed of its own; its source is replaced by the best. Predictions of the network are held to the
        range of the training target.
    head : "auto", str or estimator, default="auto"
        One of :data:`~scotl_matgl.heads.HEADS`, or any scikit-learn estimator. ``"auto"`` blends kernel ridge, extra
        trees (mean and median of the trees), gradient boosting on descriptors, extra trees on element fractions, and
        ridge regression on the embeddings alone.
    combine : {"concat", "residual", "embedding"}, default="concat"
        What a head sees that transfers: descriptors beside embeddings; embeddings, to learn the out-of-fold residuals
        of the best head on descriptors; embeddings only.
    guard : bool, default=True
        Whether heads on descriptors alone belong to the blend, stand alone where the blend with transfer has no smaller
        out-of-fold loss, and are averaged with it where the difference is below three standard errors
        (:func:`~scotl_matgl.blend.share_of_transfer`).
    n_sources : int, default=3
        How many of the best sources are used together; in full training the best is used alone.
    predictions : bool, default=True
        Whether heads on descriptors beside what *all* sources predict (the layer ``"final"``) belong to the blend.
    descriptor : str or CompositionDescriptor, default="standard"
        Describes the formulas, for the bridges and for the heads.
    layer : str, default="readout"
        Layer of the sources.
    look_up : "auto", True or False, default="auto"
        Whether formulas that are crystals of the corpus take the embedding of their crystal, if a look-up is there;
        ``"auto"`` chooses for each source by out-of-fold loss.
    formula : str or int, optional
        Column of X that holds the formulas; the others are numeric (temperature, load) and used as they are. Default:
        X is one column of formulas, or numbers alone (which only works without sources).
    reinitialise : int, default=1
        How many of the last layers of the bridge network start from random weights in fine-tuning.
    max_rows : int, default=1000
        Sources are ranked and blends weighed on at most so many rows, drawn at random; the heads are fitted on all.
    on_error : {"warn", "raise", "skip"}, default="warn"
        What a bad row does: a warning, an error, or nothing but its line in ``skipped_``. In ``predict`` its
        prediction is NaN. The same for crystals that a network refuses, which the other heads predict.
    n_jobs : int, optional
        Threads of forests, as in joblib: None is one, -1 all. They change no number.
    random_state : int, default=0
        Seed of folds, heads and networks.

    Attributes
    ----------
    transfers_ : bool
        Whether a source is used. A little of it is used wherever it seems to help, which it does by chance too: it is
        ``ranking_.best`` that says whether a gain is proven.
    share_ : float
        What the heads that see a source count together in the blend, 0 to 1.
    source_ : str
        The best source if one is used, else ``"no transfer"``.
    sources_ : tuple of SourceEmbedding
        The sources chosen, best first.
    predictors_ : tuple of SourceEmbedding
        The sources whose predictions are used.
    ranking_ : Ranking or None
        Of all sources by kernel ridge on descriptors beside the embedding; None without sources.
    members_ : dict of str to float
        Heads of the blend and their weights.
    member_errors_ : dict of str to float
        Out-of-fold error of each head that was considered.
    error_, no_transfer_error_, control_error_ : float
        Out-of-fold mean absolute error of the blend; of the blend of heads without transfer; and of the best single one
        of these (both NaN if there are none, as without guard). What transfer gains is the difference of the first
        two; blending alone gains that of the last two. The first is a little too small, because sources and weights
        were chosen on the same rows.
    refused_ : tuple of SkippedRow
        With ``method="full"``: crystals of ``fit`` that the network refuses, so that the other heads alone have learned
        from them, and why.
    skipped_ : tuple of SkippedRow
        Rows that could not be used in ``fit``, and why.
    errors_ : dict of str to str
        Sources that could not be used, and why.

    Notes
    -----
    Everything is chosen by the absolute error, so that the prediction leans to the median where values are skewed or
    many are the same. Rows of one composition, which may differ in other columns, are always on the same side of a
    fold. Cost with all sources of the package on one core: about 4 s for 100 rows, half a minute for 1,000 or more;
    ``method="full"`` trains a network six times. With ``combine="residual"`` the errors are a little too small: the
    predictions that residuals are taken from come from fits that have seen the other folds. Another unit of the target
    moves single predictions a little, unless it differs by a power of two: rounding decides between equal splits.

    See Also
    --------
    TransferabilityRanker : says more about the sources, and how sure it is.

    Examples
    --------
    >>> from scotl_matgl import TransferRegressor, load_example
    >>> table = load_example().sample(120, random_state=0)
    >>> known, new = table[:100], table[100:]
    >>> model = TransferRegressor("MEGNet-MP-2018*").fit(known["formula"], known["target"])
    >>> model.source_
    'MEGNet-MP-2018.6.1-Eform'
    >>> values, deviation = model.predict(new["formula"], return_std=True)
    """

    def _read_target(self, target: NDArray[Any], *, numbers_alone: bool) -> tuple[NDArray[Any], NDArray[np.bool_]]:
        import pandas as pd

        if target.dtype.kind in "mMc":
            raise InputError(f"the target holds values of type {target.dtype}; give real numbers")
        if numbers_alone:
            values = target.astype(np.float64)
            if not np.isfinite(values).all():
                raise InputError("Input y contains NaN or infinity; leave these rows out")
        else:
            values = np.asarray(pd.to_numeric(pd.Series(target), errors="coerce"), dtype=np.float64)
        return values, ~np.isfinite(values)

    def _encode_target(self, values: NDArray[Any]) -> NDArray[Any]:
        return values

    def _calibrate(self, predictions: Sequence[Floats], task: Task) -> None:
        distance = self._domain.out_of_fold_distance(task.folds)
        weights = self._blend.weights.copy()
        refused = gaps([item for item, weight in zip(predictions, weights, strict=True) if weight > 0])
        self._uncertainty = _uncertainty(predictions, weights, distance, task.y, ~refused)
        # Rows that a network refuses are predicted by the other heads, which are less sure.
        weights[[_CRYSTALS in member.blocks for member in self._blend.members]] = 0.0
        self._uncertainty_without = self._uncertainty
        if weights.any() and (weights < self._blend.weights).any():
            every = np.ones(len(task.y), dtype=bool)
            self._uncertainty_without = _uncertainty(predictions, weights / weights.sum(), distance, task.y, every)

    def predict(self, X: Any, return_std: bool = False) -> Floats | tuple[Floats, Floats]:
        """Predict the property.

        Parameters
        ----------
        X : as in `fit`
            m rows.
        return_std : bool, default=False
            Whether to return the standard deviation too.

        Returns
        -------
        ndarray of shape (m,)
            In the unit of the target; NaN for rows that cannot be read.
        ndarray of shape (m,)
            Only with `return_std`: standard deviation of the error, from out-of-fold residuals, the distance to the
            training rows and the spread of the heads; see :class:`~scotl_matgl.uncertainty.Uncertainty`.
        """
        rows = self._read(X)
        predicted, deviation = np.full(rows.n_input, np.nan), np.full(rows.n_input, np.nan)
        if len(rows):
            members, weights, features = self._blended(rows)
            filled = without_gaps(members, weights)
            predicted[rows.kept] = weighted(filled, weights)[:, 0]
            if return_std:
                distance = self._domain.distance(features.stacked(self._control))
                found = self._uncertainty.deviation(distance, spread(filled, weights))
                refused = gaps(members)
                if refused.any():
                    others = [item for item in members if not np.isnan(item[refused]).any()]
                    kept = np.array([not np.isnan(item[refused]).any() for item in members])
                    found[refused] = np.nan
                    if others:
                        apart = spread(others, weights[kept] / weights[kept].sum())
                        found[refused] = self._uncertainty_without.deviation(distance, apart)[refused]
                deviation[rows.kept] = found
        return (predicted, deviation) if return_std else predicted


def _uncertainty(
    predictions: Sequence[Floats], weights: Floats, distance: Floats, y: Floats, rows: NDArray[np.bool_]
) -> Uncertainty:
    """Learn the uncertainty of a blend from out-of-fold predictions of its members on some rows."""
    items = [item[rows] for item, weight in zip(predictions, weights, strict=True) if weight > 0]
    counted = weights[weights > 0]
    residuals = y[rows] - weighted(items, counted)[:, 0]
    return Uncertainty.of(residuals, distance[rows], spread(items, counted))


class TransferClassifier(ClassifierMixin, _TransferModel):  # type: ignore[misc]  # scikit-learn is not typed
    """Predict the class of formulas from descriptors and pretrained sources.

    Parameters and attributes are those of :class:`TransferRegressor`, except that ``combine="residual"`` and
    the methods other than ``"frozen"`` are for regression, and that the errors are shares of wrong labels. Blends are
    weighed by the squared error of the class probabilities (Brier score), which says more than right or wrong.

    Attributes
    ----------
    classes_ : ndarray of shape (k,)
        Labels, sorted.

    Examples
    --------
    >>> from scotl_matgl import TransferClassifier, load_example
    >>> table = load_example().sample(120, random_state=0)
    >>> stable = table["target"] < -0.5
    >>> model = TransferClassifier("MEGNet-MP-2018*").fit(table["formula"][:100], stable[:100])
    >>> model.predict(["MgO"])
    array([ True])
    """

    def _check_parameters(self) -> tuple[Any, ...]:
        heads = super()._check_parameters()
        if self.combine == "residual":
            raise InputError("combine='residual' is for regression: labels leave no residuals")
        if self.method != "frozen":
            raise InputError(f"method={self.method!r} is for regression; use method='frozen' for labels")
        return heads

    def _read_target(self, target: NDArray[Any], *, numbers_alone: bool) -> tuple[NDArray[Any], NDArray[np.bool_]]:
        import pandas as pd

        if numbers_alone:
            check_classification_targets(target)
        return target, np.asarray(pd.isna(target), dtype=bool)

    def _encode_target(self, values: NDArray[Any]) -> NDArray[Any]:
        check_classification_targets(values)
        self.classes_, codes = np.unique(values, return_inverse=True)
        if len(self.classes_) < 2:
            raise InputError(
                f"the target has one class only, {self.classes_[:1].tolist()[0]!r}; there is nothing to learn"
            )
        return np.asarray(codes)

    def predict_proba(self, X: Any) -> Floats:
        """Probabilities (m, k) of the classes, in the order of ``classes_``; NaN for rows that cannot be read."""
        rows = self._read(X)
        probabilities = np.full((rows.n_input, len(self.classes_)), np.nan)
        if len(rows):
            members, weights, _ = self._blended(rows)
            probabilities[rows.kept] = weighted(members, weights)
        return probabilities

    def predict(self, X: Any) -> NDArray[Any]:
        """Predict the labels (m,); rows that cannot be read are None, in an array of objects."""
        probabilities = self.predict_proba(X)
        bad = np.isnan(probabilities[:, 0])
        labels = self.classes_[np.where(bad[:, None], 0.0, probabilities).argmax(axis=1)]
        if bad.any():
            labels = labels.astype(object)
            labels[bad] = None
        return np.asarray(labels)


def load_transferred(path: str | Path, *, trusted: Sequence[str] = ()) -> TransferRegressor | TransferClassifier:
    """Read a saved model of either kind; see :meth:`TransferRegressor.load`."""
    return load_model(path, _TransferModel, trusted)


class TransferFeaturizer(TransformerMixin, _FromFormulas):  # type: ignore[misc]  # scikit-learn is not typed
    """Turn formulas into descriptors beside the embeddings of sources, or into the embeddings alone.

    For a column of formulas in a pipeline or a ``ColumnTransformer``, with any estimator behind it.

    Parameters
    ----------
    sources : "auto", str, SourceCard or list of these, default="auto"
        Which sources; if they are more than `n_sources`, ``fit`` ranks them and needs the target.
    n_sources : int, default=1
        How many of the best to use.
    descriptor : str or CompositionDescriptor, default="standard"
        Describes the formulas.
    combine : {"concat", "embedding"}, default="concat"
        Descriptors beside embeddings, or embeddings alone.
    layer, look_up, max_rows, random_state
        As for :class:`TransferRegressor`.
    task : {"auto", "regression", "classification"}, default="auto"
        Kind of target, for the ranking; see :class:`~scotl_matgl.ranker.TransferabilityRanker`.
    on_error : {"warn", "raise", "skip"}, default="warn"
        What a bad row does: its features are NaN, with a warning or without, or it is an error. In ``fit`` such rows
        are listed in ``skipped_``.

    Attributes
    ----------
    sources_ : tuple of SourceEmbedding
        The sources used, best first.
    ranking_ : Ranking or None
        Of all sources; None if there was nothing to choose.
    skipped_ : tuple of SkippedRow
    errors_ : dict of str to str
        Sources that could not be used, and why.

    Examples
    --------
    >>> from scotl_matgl import TransferFeaturizer
    >>> featurizer = TransferFeaturizer("MEGNet-MP-2018.6.1-Eform", combine="embedding").fit(["NaCl", "MgO"])
    >>> featurizer.transform(["Fe2O3"]).shape
    (1, 160)
    """

    formula = None

    def __init__(
        self,
        sources: Any = "auto",
        *,
        n_sources: int = 1,
        descriptor: Any = "standard",
        combine: Literal["concat", "embedding"] = "concat",
        layer: str = "readout",
        look_up: bool | Literal["auto"] = "auto",
        task: Literal["auto", "regression", "classification"] = "auto",
        max_rows: int = 1000,
        on_error: Literal["warn", "raise", "skip"] = "warn",
        random_state: int = 0,
    ) -> None:
        self.sources = sources
        self.n_sources = n_sources
        self.descriptor = descriptor
        self.combine = combine
        self.layer = layer
        self.look_up = look_up
        self.task = task
        self.max_rows = max_rows
        self.on_error = on_error
        self.random_state = random_state

    def fit(self, X: Any, y: ArrayLike | None = None) -> Self:
        """Choose the sources.

        Parameters
        ----------
        X : sequence of formulas, or table of one column
            n formulas.
        y : array-like of shape (n,), optional
            Target; only needed where there is a choice.
        """
        self._check_common()
        if self.combine not in ("concat", "embedding"):
            raise InputError(f"combine is {self.combine!r}; it must be 'concat' or 'embedding'")
        # What can be read only once is read here.
        X = X if hasattr(X, "__len__") else list(X)
        rows = self._formulas(X)
        self.skipped_ = rows.skipped
        self._descriptor = get_descriptor(self.descriptor).fit(rows.compositions)
        errors: dict[str, str] = {}
        cards = cards_for(self.sources, errors)
        if not cards and self.combine == "embedding":
            raise InputError("combine='embedding' without sources leaves no features; name a source")
        self.errors_ = errors
        self.ranking_: Ranking | None = None
        self.sources_ = ()
        if len(cards) > self.n_sources:
            self._rank(cards, X, y, errors)
        else:
            described = self._features(rows).columns["descriptors"]
            assert rows.compositions is not None  # noqa: S101 - _formulas has made sure
            # Without a target there is no telling which way is better: the bridge serves alone, unless asked.
            look_up = self.look_up is True
            for card in cards:
                try:
                    ways = embeddings(
                        card, rows.compositions, described, self._descriptor, layer=self.layer, look_up=look_up
                    )
                except (Exception, SystemExit) as error:  # one source must not end the run, whatever it raises
                    errors[card.name] = str(error) or type(error).__name__
                else:
                    self.sources_ += (ways[-1][0],)
            if cards and not self.sources_:
                name, reason = next(iter(errors.items()))
                raise InputError(f"no source can be used ({len(cards)} tried); {name}: {reason}")
            self._warn_left_out(errors, stacklevel=3)
        self._warn(self.skipped_, "skipped", stacklevel=3)
        return self

    def _formulas(self, X: Any) -> Rows:
        if is_numeric(X):
            raise InputError("X holds numbers or several columns; give one column of formulas")
        rows = read_rows(self, X, formula=None, strict=self.on_error == "raise", reset=True)
        if not len(rows):
            raise InputError(f"none of the {rows.n_input} rows holds a formula that can be read")
        return rows

    def _rank(self, cards: Sequence[Any], X: Any, y: ArrayLike | None, errors: dict[str, str]) -> None:
        if y is None:
            raise InputError(f"to choose {self.n_sources} of {len(cards)} sources takes a target: pass y, or name them")
        # As in a ranking: rows of one composition are merged, and the kind of target is found out.
        table = Table.read(X, y, task=self.task, strict=self.on_error == "raise")
        self.skipped_ = table.skipped
        codes = np.unique(table.y, return_inverse=True)[1] if table.classification else table.y
        n_classes = int(codes.max()) + 1 if table.classification else 0
        n = len(table.compositions)
        rows = Rows(table.compositions, np.empty((n, 0)), (), np.arange(n), list(range(n)), table.skipped)
        sample = table.sample(self.max_rows, self.random_state)
        folds = rows.take(sample).folds(
            codes[sample], classification=table.classification, random_state=self.random_state
        )
        choice = choose_sources(
            list(cards),
            table.compositions,
            self._features(rows),
            Task(codes[sample], n_classes, folds, self.random_state),
            self._descriptor,
            n_sources=self.n_sources,
            layer=self.layer,
            look_up=self.look_up,
            sample=sample,
            skipped=table.skipped,
            errors=errors,
        )
        self.sources_, self.ranking_, self.errors_ = choice.sources, choice.ranking, dict(choice.errors)
        self._warn_left_out(self.errors_, stacklevel=4)

    def transform(self, X: Any) -> Floats:
        """Features (m, p) of m formulas; rows that cannot be read are NaN."""
        check_is_fitted(self, "sources_")
        rows = read_rows(self, X, formula=None, strict=self.on_error == "raise", reset=False)
        self._warn(rows.skipped, "without features", stacklevel=3)
        features = np.full((rows.n_input, len(self.get_feature_names_out())), np.nan)
        if len(rows):
            embedded = self._with_sources(self._features(rows), rows)
            names = [source.name for source in self.sources_]
            features[rows.kept] = embedded.stacked(["descriptors", *names] if self.combine == "concat" else names)
        return features

    def get_feature_names_out(self, input_features: Any = None) -> NDArray[np.object_]:  # noqa: ARG002  (scikit-learn's signature)
        """Names (p,): those of the descriptors, and ``SOURCE[layer]_0`` and so on for the embeddings."""
        check_is_fitted(self, "sources_")
        names = list(self._descriptor.get_feature_names_out()) if self.combine == "concat" else []
        for source in self.sources_:
            names += [f"{source.name}[{source.layer}]_{i}" for i in range(len(source.mean))]
        return np.array(names, dtype=object)

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.target_tags.required = False
        return tags
