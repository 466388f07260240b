"""The transferred model: heads on descriptors and sources, blended; the target is left to its estimators."""

from __future__ import annotations

import warnings
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Self

import numpy as np
from numpy.typing import ArrayLike, NDArray
from sklearn.base import clone
from sklearn.frozen import FrozenEstimator
from sklearn.utils.validation import check_is_fitted, column_or_1d

from scotl_matgl.bridges.embedding import SourceEmbedding, elements_outside, embeddings
from scotl_matgl.chemistry.elements import SYMBOLS
from scotl_matgl.chemistry.formulas import SkippedRow
from scotl_matgl.descriptors.composite import get_descriptor
from scotl_matgl.exceptions import InputError, ScotlMatglWarning
from scotl_matgl.learners.blend import Blend, gaps
from scotl_matgl.learners.domain import TrainingDomain
from scotl_matgl.learners.heads import HeldRidge
from scotl_matgl.learners.members import Features, Member, Task, check_head
from scotl_matgl.sources.cards import SourceCard
from scotl_matgl.tables.folds import sample_rows
from scotl_matgl.tables.rows import Rows, read_rows
from scotl_matgl.training.bridge import FineTunedBridge
from scotl_matgl.training.full import FullTransferRegressor, reason_against, refusals
from scotl_matgl.transfer.choice import Choice, cards_for, choose_sources
from scotl_matgl.transfer.features import MIN_ROWS, FormulaEstimator
from scotl_matgl.transfer.files import load_model, save_model
from scotl_matgl.vocabulary import NO_TRANSFER, Floats, counted

if TYPE_CHECKING:
    import pandas as pd


# Descriptors that a bridge may hold back of a row that still counts as inside its domain.
_CLIPPED = 3


# Blocks of columns with what all sources predict, and with the atomic fractions of the elements of the training rows.
_PREDICTIONS = "source predictions"


_FRACTIONS = "fractions"


# Block of one column with the crystals themselves.
CRYSTALS_BLOCK = "crystals"


class TransferModel(FormulaEstimator):
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
            n formulas: all that :func:`~scotl_matgl.parse_compositions` reads, also as a table of one
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
        if len(rows) < MIN_ROWS:
            raise InputError(f"{len(rows)} rows can be used; to choose a source takes at least {MIN_ROWS}")
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
        return [
            Member(network.set_params(source=best.card), (CRYSTALS_BLOCK,), transfers=True, source=best.name, held=True)
        ]

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
            columns[CRYSTALS_BLOCK] = rows.crystals[:, None]
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
