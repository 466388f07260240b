"""The transferred model: heads on descriptors and sources, blended; the target is left to its estimators."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal, Self

import numpy as np
from numpy.typing import ArrayLike, NDArray
from sklearn.base import clone
from sklearn.frozen import FrozenEstimator
from sklearn.utils.validation import check_is_fitted

from scotl_matgl.bridges.embedding import SourceEmbedding, elements_outside, with_cards
from scotl_matgl.chemistry.compositions import Compositions, parse_compositions
from scotl_matgl.chemistry.elements import SYMBOLS
from scotl_matgl.chemistry.formulas import SkippedRow
from scotl_matgl.descriptors.composite import get_descriptor
from scotl_matgl.descriptors.described import Described
from scotl_matgl.descriptors.structural import structural_means
from scotl_matgl.exceptions import InputError, ScotlMatglWarning, warn
from scotl_matgl.learners.blend import Blend, gaps
from scotl_matgl.learners.domain import TrainingDomain
from scotl_matgl.learners.heads import HeldRidge
from scotl_matgl.learners.members import (
    DESCRIPTORS,
    FRACTIONS,
    BlendMember,
    Features,
    LearningTask,
    check_head,
    members_without_transfer,
    with_medians,
)
from scotl_matgl.progress import Told, part, telling
from scotl_matgl.ranking.control import without_fractions
from scotl_matgl.ranking.layers import LayerChoice, chooses
from scotl_matgl.ranking.ranker import TransferabilityRanker
from scotl_matgl.ranking.report import fallen_back
from scotl_matgl.sources.cards import GROUPS, SourceCard
from scotl_matgl.storage import write_whole
from scotl_matgl.tables.rows import MIN_ROWS, Polymorphs, Rows, read_rows
from scotl_matgl.training.bridge import FineTunedBridge
from scotl_matgl.training.full import FullTransferRegressor, reason_against, refusals
from scotl_matgl.transfer.features import FormulaEstimator
from scotl_matgl.transfer.files import load_model, save_model
from scotl_matgl.vocabulary import NO_TRANSFER, TOGETHER, Floats, Progress, counted, listing

if TYPE_CHECKING:
    import pandas as pd

    from scotl_matgl.learners.held_out import HeldOut
    from scotl_matgl.transfer.summary import Summary


# Descriptors that a bridge may hold back of a row that still counts as inside its domain.
_CLIPPED = 3


# Block of columns with what all sources predict.
_PREDICTIONS = "source predictions"


# Block of one column with the crystals themselves.
CRYSTALS_BLOCK = "crystals"


# Rows that are predicted at a time: their distances to a thousand training rows take 16 MB.
_BLOCK = 2048


# Columns that say how near a row is, and their kinds.
_DOMAIN: dict[str, Any] = {"unseen": object, "unknown": object, "distance": float, "clipped": float, "inside": bool}


@dataclass(frozen=True, eq=False)
class Seen:
    """Rows to be predicted, as the model sees them.

    Attributes
    ----------
    rows : Rows
    described : Described or None
        None for numbers alone.
    features : Features
        Without those of sources.
    distance : ndarray of shape (n,)
        To the nearest training row.
    """

    rows: Rows
    described: Described | None
    features: Features
    distance: Floats


class TransferModel(FormulaEstimator):
    """Blend of heads on descriptors and on descriptors beside embeddings; the target is left to the subclass."""

    def __init__(
        self,
        sources: Any = "all",
        *,
        method: Literal["frozen", "fine-tune", "full"] | FullTransferRegressor = "frozen",
        head: Any = "auto",
        combine: Literal["concat", "residual", "embedding"] = "concat",
        guard: bool = True,
        n_sources: int = TOGETHER,
        predictions: bool = True,
        descriptor: Any = "standard",
        layer: LayerChoice = "readout",
        look_up: bool | Literal["auto"] = "auto",
        formula: Hashable | None = None,
        reinitialise: int = 1,
        max_rows: int = 1000,
        target_unit: str = "",
        on_error: Literal["warn", "raise", "skip"] = "warn",
        n_jobs: int | None = None,
        random_state: int = 0,
        polymorphs: Polymorphs = "together",
        verbose: bool = False,
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
        self.target_unit = target_unit
        self.on_error = on_error
        self.n_jobs = n_jobs
        self.random_state = random_state
        self.polymorphs = polymorphs
        self.verbose = verbose

    # -- fitting --------------------------------------------------------------------------------------------------

    _target_kind: Literal["regression", "classification"]
    classes_: NDArray[Any]
    predictors_: tuple[SourceEmbedding, ...]
    held_out_: HeldOut | None = None

    def fit(self, X: Any, y: ArrayLike, *, progress: Told = None) -> Self:
        """Choose sources and fit.

        Parameters
        ----------
        X : sequence of formulas, or table
            n formulas: all that :func:`~scotl_matgl.parse_compositions` reads, also as a table of one
            column; with `formula` a table with that column and numeric ones; without sources also numbers alone. In
            the place of formulas, crystals: all that :func:`~scotl_matgl.chemistry.materials.read_material` reads.
        y : array-like of shape (n,)
            Measured property, or class labels.
        progress : callable or True, optional
            A callable is called with (done, total) steps; True draws a bar, in a notebook below the cell.

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
        with telling(progress, "fitting", verbose=self.verbose) as step:
            return self._fit(X, y, step)

    def _fit(self, X: Any, y: ArrayLike, step: Progress) -> Self:
        """:meth:`fit`, told to a callable."""
        self._check_common()
        heads = self._check_parameters()
        rows = self._read_training(X, y)
        self.skipped_, self.errors_ = rows.skipped, {}
        self.remarks_ = rows.remarks
        self.sources_, self.predictors_, self.ranking_ = (), (), None
        self._descriptor = get_descriptor(self.descriptor)
        self._elements = ()
        if rows.compositions is not None:
            self._descriptor.fit(rows.compositions)
            self._elements = tuple(np.unique(rows.compositions.numbers).tolist())
        # A network that is trained on sees the crystals itself.
        self._structural = None if self._trains_networks else structural_means(rows.crystals.tolist())
        described = self._describe(rows)
        features = self._features(rows, described)
        self._control = without_fractions(features)
        sample = rows.sample(self.max_rows, self.random_state)
        folds = rows.take(sample).folds(random_state=self.random_state)
        task = LearningTask(rows.y[sample], len(rows.classes), folds, self.random_state, self.n_jobs)
        features, known = self._choose(rows, described, features, part(step, 0, 40))
        task = replace(task, known=known)
        if self._trains_networks:
            crystals: dict[str, Any] = {CRYSTALS_BLOCK: rows.crystals[:, None]}
            features = Features({**features.columns, **crystals}, features.weights)
        sampled = features.take(sample)
        self._domain = TrainingDomain.of(sampled.stacked(self._control), features.stacked_weights(self._control))
        if self._trains_networks and self.on_error == "raise":
            self._refuse_refused(rows)
        if len(rows) > len(sample) and self.combine == "residual":
            # Residuals are left by out-of-fold predictions of all rows, of which the sample is a part.
            folds = rows.folds(random_state=self.random_state)
        whole = replace(task, y=rows.y, folds=folds, known={})
        members = self._members(heads, features)
        self._blend, predictions = Blend.build(
            members, sampled, task, features, whole, guard=self.guard, progress=part(step, 40, 100)
        )
        text = () if rows.compositions is None else _in_atoms(rows.compositions.take(sample))
        self._describe_blend(predictions, task, text)
        self._warn(self.skipped_, "skipped")
        self._note_refused(rows)
        return self

    def _describe_blend(self, predictions: Sequence[Floats], task: LearningTask, text: tuple[str, ...]) -> None:
        """Set what the user may read of the blend, and learn how sure its predictions are."""
        blend = self._blend
        self.errors_ |= blend.failed
        if blend.failed and self.on_error == "warn":
            source, reason = next(iter(blend.failed.items()))
            message = f"{counted(len(blend.failed), 'source')} left out: {source}: {reason}"
            warn(message, ScotlMatglWarning)
        self.sources_ = tuple(source for source in self.sources_ if source.name not in blend.failed)
        self.share_ = blend.share
        self.transfers_ = blend.share > 0.0
        counts = blend.sources or tuple(source.name for source in self.sources_)
        self.source_ = counts[0] if self.transfers_ else NO_TRANSFER
        self.members_, self.member_errors_ = blend.names, blend.errors
        self.error_, self.no_transfer_error_ = blend.error, blend.no_transfer_error
        alone = [blend.errors[member.name] for member in blend.members if not member.transfers]
        self.control_error_ = min(alone, default=float("nan"))
        self._calibrate(predictions, task, text)

    def _calibrate(self, predictions: Sequence[Floats], task: LearningTask, text: tuple[str, ...]) -> None:
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
                self._warn(self.refused_, self._without("learned", i))

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
        if self.method != "frozen" and chooses(self.layer):
            raise InputError(f"layer={self.layer!r} is for method='frozen'; {self.method!r} takes one layer")
        try:
            return check_head(self.head)
        except ValueError as error:
            raise InputError(str(error)) from None

    def _read_training(self, X: Any, y: ArrayLike) -> Rows:
        """Rows that have a target."""
        if y is None:
            raise ValueError(f"{type(self).__name__} requires y to be passed, but the target y is None")
        strict = self.on_error == "raise"
        rows = read_rows(X, formula=self.formula, strict=strict, crystals=self._trains_networks, estimator=self)
        if self._trains_networks and not len(rows):
            first = f"; row {rows.skipped[0].row}: {rows.skipped[0].reason}" if rows.skipped else ""
            raise InputError(f"method='full' trains on crystals, and none of the {rows.n_input} rows holds one{first}")
        rows = rows.with_target(y, task=self._target_kind, strict=strict).splitting(self.polymorphs)
        if rows.compositions is None and rows.skipped:
            raise InputError("Input y contains NaN or infinity; leave these rows out")
        if len(rows) < 2:
            first = "".join(f"; row {row.row} ({row.value}): {row.reason}" for row in rows.skipped[:1])
            raise InputError(f"n_samples={len(rows)} rows can be used of {rows.n_input}; at least 2 are needed{first}")
        return rows

    def _choose(
        self, rows: Rows, described: Described | None, features: Features, progress: Progress
    ) -> tuple[Features, dict[str, Floats]]:
        """Choose sources; return the columns with theirs beside them, and out-of-fold predictions of the search."""
        ranker = self._given_ranker()
        cards = self._usable_cards() if ranker is None else []
        if not cards and ranker is None:
            return features, {}
        if described is None:
            raise InputError("X holds numbers, of which no source knows anything; give formulas, or sources=()")
        if len(rows) < MIN_ROWS:
            raise InputError(f"{len(rows)} rows can be used; to choose a source takes at least {MIN_ROWS}")
        if ranker is not None:
            return self._with_ranked(ranker, described, features), {}
        if len(set(described.compositions.keys())) == 1:
            return self._with_the_only_one(cards, described, features), {}
        found, place = self._search(
            cards,
            rows,
            described,
            features,
            head=self.head,
            n_jobs=self.n_jobs,
            outputs=self.predictions and self.method == "frozen",
            progress=progress,
        )
        self.errors_ |= found.ranking.errors
        self._warn_left_out(self.errors_)
        # Training a network on takes six times as long as once: the best alone.
        chosen = found.measured[: 1 if self._trains_networks else self.n_sources]
        self.ranking_ = replace(found.ranking, target_unit=self.target_unit)
        self.remarks_ += tuple(fallen_back(self.ranking_.fallbacks))
        self.sources_ = tuple(item.embedding for item in chosen)
        bridgeless = [f"{source.name} (layer {source.layer})" for source in self.sources_ if source.needs_crystals]
        if bridgeless:
            self.remarks_ += (f"without a bridge, so that rows must be crystals: {listing(bridgeless)}",)
        self.predictors_ = tuple(source for source, _ in found.outputs)
        columns = {item.embedding.name: item.values[place] for item in chosen}
        if found.outputs:
            columns[_PREDICTIONS] = np.hstack([values[place] for _, values in found.outputs])
        # Where no rows were merged, the heads without a source are compared in the same folds again.
        known = {name: values[place] for name, values in found.held_out.items() if len(values) == len(rows)}
        return Features({**features.columns, **columns}, features.weights), known

    def _with_ranked(self, ranker: TransferabilityRanker, described: Described, features: Features) -> Features:
        """Take the sources of a ranking that was made before."""
        if self.method != "frozen":
            raise InputError(f"a fitted ranker as sources is for method='frozen', not {self.method!r}")
        self.ranking_ = ranker.ranking_
        self.sources_ = ranker.embeddings_[: self.n_sources]
        if not self.sources_:
            raise InputError("the ranker given as sources has ranked none; its errors_ say why")
        return self._with_sources(features, described)

    def _with_the_only_one(self, cards: Sequence[SourceCard], described: Described, features: Features) -> Features:
        """Take the one source that was named where all rows are polymorphs of one formula."""
        if len(cards) > 1 or not self._trains_networks:
            raise InputError(
                f"all rows have the composition {described.compositions.text[0]}, which tells no source from another; "
                "with crystals and method='full' name the one source"
            )
        self._warn_left_out(self.errors_)
        self.sources_ = (SourceEmbedding.of(cards[0], next(iter(cards[0].layers)), None),)  # it is trained whole
        return features

    def _usable_cards(self) -> list[SourceCard]:
        """Cards of the sources that the method can use."""
        cards = self._cards()
        if self._trains_networks:
            return self._without_reasons(cards, {card.name: reason_against(card) for card in cards})
        if self.method == "fine-tune":
            reason = "it reads formulas, so there is no bridge to train on"
            reasons = {card.name: "" if card.modality == "structure" else reason for card in cards}
            return self._without_reasons(cards, reasons)
        return cards

    @property
    def _trains_networks(self) -> bool:
        return not isinstance(self.method, str) or self.method == "full"

    def _without_reasons(self, cards: Sequence[SourceCard], reasons: Mapping[str, str]) -> list[SourceCard]:
        """Sources without a reason against them; of the others those that were named are noted, or refused."""
        if self.sources not in GROUPS:
            self.errors_.update({name: reason for name, reason in reasons.items() if reason})
        found = [card for card in cards if not reasons[card.name]]
        if cards and not found:
            # That weights are missing helps more than that a network is of another kind.
            name, reason = max(reasons.items(), key=lambda item: "weights" in item[1])
            raise InputError(f"no source can be trained on ({len(cards)} tried); {name}: {reason}")
        return found

    def _members(self, heads: Sequence[Any], features: Features) -> list[BlendMember]:
        """Heads on descriptors, first, and on what `combine` puts in their place."""
        control = self._control
        beside = tuple(block for block in control if block != DESCRIPTORS)
        everything = isinstance(self.head, str) and self.head == "auto"
        known = Features(
            {name: features.columns[name] for name in (*control, FRACTIONS) if name in features.columns}, {}
        )
        alone = members_without_transfer(known, head=self.head, classification=self._n_classes > 0)
        names = tuple(source.name for source in self.sources_)
        if not names:
            return alone
        blocks = (*control, *names) if self.combine == "concat" else (*names, *beside)
        residual = self.combine == "residual"
        if self.method != "frozen":
            transferred = self._trained_on(control)
            return [*alone, *transferred] if self.guard else transferred
        transferred = [BlendMember(head, blocks, transfers=True, residual=residual) for head in heads]
        if _PREDICTIONS in features.columns:
            among = (*control, _PREDICTIONS) if self.combine == "concat" else (_PREDICTIONS, *beside)
            transferred += [BlendMember(head, among, transfers=True, residual=residual) for head in heads]
        if everything and not self._n_classes:
            transferred = with_medians(transferred)
            # What a source has learned is often linear in its embedding; in descriptors next to nothing is.
            transferred.append(BlendMember(HeldRidge(), (*names, *beside), transfers=True, residual=residual))
        return [*alone, *transferred] if self.guard or residual else transferred

    def _trained_on(self, control: tuple[str, ...]) -> list[BlendMember]:
        """Heads that hold a source of their own, which is trained on."""
        if not self._trains_networks:
            return [
                BlendMember(
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
            BlendMember(
                network.set_params(source=best.card), (CRYSTALS_BLOCK,), transfers=True, source=best.name, clipped=True
            )
        ]

    # -- what is told of it ---------------------------------------------------------------------------------------

    def summary(self) -> Summary:
        """Say what was chosen, what it gains and how sure that is, in words and a table.

        Returns
        -------
        Summary
            Printed as text, shown as a table in a notebook.
        """
        from scotl_matgl.transfer.summary import summarise

        check_is_fitted(self, "members_")
        return summarise(self)

    def report(self, path: str | Path | None = None, *, origin: Mapping[str, str] | None = None) -> str | None:
        """Write a page of one file for a colleague, or return it as text if no path is given.

        Parameters
        ----------
        path : path, optional
            Of an ``.html`` file.
        origin : mapping of str to str, optional
            How the model came about, such as ``{"table": "gaps.csv", "command": "..."}``; shown as it is.
        """
        from scotl_matgl.transfer.pages import report

        check_is_fitted(self, "members_")
        text = report(self, origin=origin)
        if path is None:
            return text
        write_whole(Path(path), text.encode())
        return None

    def card(self) -> str:
        """Model card in Markdown with a YAML head, in the form of Hugging Face and skops.

        Returns
        -------
        str
            To be saved as ``README.md`` beside the model: what it is for, its limits, data, errors with and without
            transfer, parameters, how to use it, and what to cite.
        """
        from scotl_matgl.transfer.card import model_card

        check_is_fitted(self, "members_")
        return model_card(self)

    # -- files ----------------------------------------------------------------------------------------------------

    def save(self, path: str | Path, *, bridges: bool = False) -> None:
        """Write the fitted model to a file without pickle, see :func:`skops.io.dump`.

        To predict takes no weights of a source. Bridges that come with the package are named, with their hashes, and
        so are sources of composition modality and look-ups; other bridges are in the file. Forests are stored in few
        bytes and predict the same.

        Parameters
        ----------
        path : path
        bridges : bool, default=False
            Whether all bridges are in the file: some MB more, and it can be used where another version of the package
            has others.
        """
        save_model(self, path, bridges=bridges)

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
            bring about; no formula alone where a source in use has no bridge, which shows it nothing of the row. Rows
            that cannot be read are not inside, and have NaN elsewhere. Where some rows are crystals,
            ``embedded by`` says "crystal" of those whose embedding a source in use computes itself, and "formula" of
            those that its bridge estimates.
        """
        return self._tabulated(self._read(X), self._domain_of, _DOMAIN)

    def predict_table(self, table: Any) -> pd.DataFrame:
        """Predict, and say how far each row is from what the model has seen, in one go.

        Parameters
        ----------
        table : as in `fit`
            m rows.

        Returns
        -------
        DataFrame of m rows
            With the index of the table. ``predicted`` and ``deviation`` (its standard deviation), or for class labels
            ``predicted`` and ``probability``; then the columns of :meth:`domain`. Rows that cannot be read are NaN;
            ``attrs["skipped"]`` says why.

        Notes
        -----
        Each formula is predicted once, in blocks of rows, so that memory is bounded. It is what partitions of a Dask
        data frame are mapped by::

            table.map_partitions(model.predict_table, meta=model.predict_table(table._meta))

        where `table` has the one column of formulas, or with ``formula=`` the columns of the fit.
        """
        if hasattr(table, "iloc") and not len(table):
            return _typed_like(self._kinds | _DOMAIN, table.index)
        rows = self._read(table)
        return self._tabulated(rows, lambda part: self._values(part) | self._domain_of(part), self._kinds | _DOMAIN)

    def _tabulated(
        self, rows: Rows, columns: Callable[[Seen], dict[str, NDArray[Any]]], kinds: Mapping[str, Any]
    ) -> pd.DataFrame:
        """Columns of what was read as a table of all rows that were given."""
        import pandas as pd

        blocks = self._by_blocks(rows, columns) if len(rows) else {}
        names = list(kinds)
        if blocks.pop("is crystal", np.zeros(1, dtype=bool)).any():
            names.insert(names.index("inside"), "embedded by")
        found = pd.DataFrame(blocks, index=rows.kept, columns=names)
        found = found.reindex(range(rows.n_input))
        found["inside"] = found["inside"].eq(True)
        found.index = pd.Index(rows.labels)
        found.attrs["skipped"] = rows.skipped
        return found

    def _domain_of(self, seen: Seen) -> dict[str, NDArray[Any]]:
        """Columns of :meth:`domain` for rows."""
        n = len(seen.rows)
        unseen = unknown = [""] * n
        clipped = np.zeros(n, dtype=np.int64)
        crystals = own = formulas_alone = np.zeros(n, dtype=bool)
        if seen.described is not None:
            used = self.sources_ if self.transfers_ else ()
            compositions, X = seen.described.compositions, seen.described.X
            known = tuple(SYMBOLS[z - 1] for z in self._elements)
            unseen = [" ".join(row) for row in elements_outside(compositions, known)]
            by_source = [elements_outside(compositions, source.elements or SYMBOLS) for source in used]
            if by_source:
                unknown = [
                    " ".join(dict.fromkeys(symbol for row in of_row for symbol in row))
                    for of_row in zip(*by_source, strict=True)
                ]
            crystals = seen.described.has_crystal
            own = crystals & any(source.encodes for source in used)
            for source in () if self._trains_networks else used:
                clipped = np.maximum(clipped, np.where(crystals & source.encodes, 0, source.clipped(X)))
            formulas_alone = ~crystals & any(source.needs_crystals for source in used)
        here = np.array([not one and not other for one, other in zip(unseen, unknown, strict=True)], dtype=bool)
        return {
            "unseen": np.array(unseen, dtype=object),
            "unknown": np.array(unknown, dtype=object),
            "distance": seen.distance,
            "clipped": clipped,
            "is crystal": crystals,
            "embedded by": np.where(own, "crystal", "formula").astype(object),
            "inside": here & ~formulas_alone & (seen.distance <= 1) & (clipped <= _CLIPPED),
        }

    # -- predicting -----------------------------------------------------------------------------------------------

    def _read(self, X: Any) -> Rows:
        check_is_fitted(self, "members_")
        rows = read_rows(
            X,
            formula=self.formula,
            strict=self.on_error == "raise",
            crystals=self._trains_networks,
            numbers_alone=not self._elements,
            estimator=self,
            reset=False,
        )
        self._warn(rows.skipped, "not predicted")
        return rows

    def _tell_refused(self, refused: Sequence[SkippedRow], consequence: str) -> None:
        """Warn about crystals that a network refuses, or raise, as `on_error` says."""
        if refused and self.on_error == "raise":
            raise InputError(f"row {refused[0].row} ({refused[0].value}) is {consequence}: {refused[0].reason}")
        self._warn(refused, consequence)

    @property
    def _n_classes(self) -> int:
        return len(getattr(self, "classes_", ()))

    # Columns of what is predicted, and their kinds.
    _kinds: ClassVar[dict[str, Any]]

    def _values(self, seen: Seen) -> dict[str, NDArray[Any]]:
        """What is predicted for rows, as columns of a table."""
        raise NotImplementedError

    def _by_blocks(self, rows: Rows, function: Callable[[Seen], dict[str, NDArray[Any]]]) -> dict[str, NDArray[Any]]:
        """Result of a function of rows, found for each formula once, so many at a time."""
        chosen, place = np.arange(len(rows)), np.arange(len(rows))
        step = max(len(rows), 1) if self._trains_networks else _BLOCK
        if rows.compositions is not None and not rows.names and not len(rows.crystals):
            _, chosen, place = np.unique(np.array(rows.compositions.text), return_index=True, return_inverse=True)
        found = []
        for start in range(0, len(chosen), step):
            part = rows.take(chosen[start : start + step])
            described = self._describe(part)
            features = self._features(part, described)
            distance = self._domain.distance(features.stacked(self._control))
            found.append(function(Seen(part, described, features, distance)))
        return {name: np.concatenate([part[name] for part in found])[place] for name in found[0]}

    def _blended(self, seen: Seen) -> tuple[list[Floats], Floats]:
        """Predictions (n, m) of the members that count, NaN where a head refuses, and their weights."""
        rows, described, features = seen.rows, seen.described, seen.features
        columns: dict[str, Any] = dict(features.columns)
        if self._trains_networks:
            columns[CRYSTALS_BLOCK] = rows.crystals[:, None]
        elif described is not None and self.transfers_ and self.method == "frozen":
            self.sources_, self.predictors_ = with_cards(self.sources_), with_cards(self.predictors_)
            columns |= {source.name: source.embed(described) for source in self.sources_}
            if self._blend.uses(_PREDICTIONS):
                columns[_PREDICTIONS] = np.hstack([source.embed(described) for source in self.predictors_])
        features = Features(columns, features.weights)
        members, weights = self._blend.predict(features, self._n_classes)
        refused = np.flatnonzero(gaps(members))
        for i, fitted in self._blend.fitted.items():
            if len(refused) and isinstance(fitted.head, FullTransferRegressor):
                found = fitted.head.refusals(rows.crystals[refused])
                reasons = {int(row): found.get(k, "its prediction is not finite") for k, row in enumerate(refused)}
                self._tell_refused(_refused(rows, reasons), self._without("predicted", i))
        return members, weights


def _typed_like(kinds: Mapping[str, Any], index: Any) -> pd.DataFrame:
    """Table of no rows whose columns have the kinds of these."""
    import pandas as pd

    return pd.DataFrame({name: pd.Series([], dtype=kind) for name, kind in kinds.items()}, index=index[:0])


def _in_atoms(compositions: Compositions) -> tuple[str, ...]:
    """Formulas as they were given, where their amounts count atoms; in atoms where they were read otherwise."""
    again = parse_compositions(compositions.text, on_error="skip")
    meant = dict(zip(again.rows.tolist(), again.keys(), strict=True))
    texts = []
    for row, (text, key) in enumerate(zip(compositions.text, compositions.keys(), strict=True)):
        if meant.get(row) == key:
            texts.append(text)
            continue
        numbers, amounts = compositions[row]
        shares = zip(numbers.tolist(), (amounts / amounts.sum()).tolist(), strict=True)
        texts.append("".join(f"{SYMBOLS[z - 1]}{share:.6f}" for z, share in shares if share >= 5e-7))
    return tuple(texts)


def _refused(rows: Rows, reasons: Mapping[int, str]) -> tuple[SkippedRow, ...]:
    """Rows, by their position among those that could be read, with the reason why a network refuses them."""
    text = () if rows.compositions is None else rows.compositions.text
    return tuple(
        SkippedRow(int(rows.kept[i]), rows.labels[rows.kept[i]], text[i], reason) for i, reason in reasons.items()
    )
