"""Rank sources for a table of formulas and one measured property, without retraining any of them."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import replace
from typing import Any, Literal, Self

import numpy as np
from numpy.typing import ArrayLike
from sklearn.base import BaseEstimator
from sklearn.utils.validation import check_is_fitted

from scotl_matgl.descriptors.composite import get_descriptor
from scotl_matgl.descriptors.described import Described
from scotl_matgl.descriptors.structural import structural_means
from scotl_matgl.estimators import left_out, named_estimators
from scotl_matgl.exceptions import InputError, ScotlMatglWarning, warn
from scotl_matgl.learners.members import check_head
from scotl_matgl.progress import Told, telling
from scotl_matgl.ranking.control import control_features
from scotl_matgl.ranking.layers import LayerChoice, check_layer
from scotl_matgl.ranking.search import Search
from scotl_matgl.ranking.stages import CardSource
from scotl_matgl.sources.cards import GROUPS, all_cards, select
from scotl_matgl.tables.rows import MIN_ROWS, Polymorphs, Rows, read_rows
from scotl_matgl.views import Documented
from scotl_matgl.vocabulary import Floats, check_whole


class TransferabilityRanker(Documented, BaseEstimator):  # type: ignore[misc]  # scikit-learn is not typed
    """Rank pretrained models by how well they transfer to a table of formulas and one measured property.

    For each source the formulas' embeddings are estimated by its bridge (or looked up, or computed, see
    :func:`~scotl_matgl.bridges.embedding.embed_source`), scored by the transferability estimators, and put beside the
    descriptors to measure how far the error falls below that of the control "no transfer": the best head on what is
    known without a source.

    Parameters
    ----------
    sources : "all", "calculated", str, SourceCard or list of these, default="all"
        Which sources; names may hold ``*``. ``"calculated"`` leaves out those that were trained on measured values.
    descriptor : str or CompositionDescriptor, default="standard"
        Describes the formulas, for the bridges and for the control.
    estimators : sequence of str or TransferabilityEstimator, default=("loo", "logme", "scotl")
        Registered names or unfitted objects. Those that do not take the kind of target, or need the source's own
        output, are left out and listed in ``ranking_.unscored``.
    layer : str or sequence of str, default="readout"
        Layer of the sources. Of several, or of all with ``"auto"``, each source takes the best by the criterion of the
        order, and the choice is counted in as that of the source is. Crystals that are encoded have all layers,
        formulas those to which there is a bridge. All layers of a source are measured where the screen measures all
        sources (`max_measured`), else the first three.
    look_up : "auto", True or False, default="auto"
        Whether formulas that are crystals of the corpus take the embedding of their crystal; ``"auto"`` chooses for
        each source by the leave-one-out error of ridge regression.
    head : "auto", str or estimator, default="auto"
        The learner on top: one of :data:`~scotl_matgl.learners.heads.HEADS`, or any scikit-learn estimator. ``"auto"``
        takes the best on the descriptors of kernel ridge, extra trees (read by their mean or their median) and gradient
        boosting; ``"kernel ridge"`` is the fastest.
    formula : hashable, optional
        Column of formulas of a table whose other columns are numbers, such as a temperature or a load. The control and
        each source see them; the estimators, which look at embeddings alone, do not.
    combine : {"concat", "embedding"}, default="concat"
        What will be trained on after transfer: descriptors and embedding together, or the embedding alone. It decides
        the order and what errors are of; see Notes.
    task : {"auto", "regression", "classification"}, default="auto"
        Kind of target. ``"auto"``: text, booleans and at most 20 different whole numbers are class labels; where most
        values are numbers, text among them is a missing measurement.
    max_rows : int, default=1000
        Error and gain are measured on at most so many formulas, drawn at random, which bounds the time; the estimators
        see all.
    max_measured : int, default=12
        Errors and gains are measured for at most so many sources, with heads other than kernel ridge for two thirds of
        them: those that the screen puts first, by the criterion of the order with kernel ridge on at most 300 rows. The
        others are listed behind them with their scores (``ranking_.screened``). With kernel ridge on at most 300 rows
        all are measured.
    n_jobs : int, optional
        Threads over sources, or over the trees of a forest, as in joblib. ``joblib.parallel_config`` spreads sources
        over processes or a cluster instead, with the same result.
    on_error : {"warn", "raise", "skip"}, default="warn"
        What a bad row or source does: one warning that counts and names them, an error, or nothing but its line in the
        result.
    target_unit : str, default=""
        Unit of the target, for the result.
    random_state : int, default=0
        Seed of folds, heads, bootstrap, and of estimators given by name.
    polymorphs : {"together", "apart"}, default="together"
        Whether crystals of one formula share a fold, as new formulas ask for, or are split like all others, as new
        polymorphs of known formulas do.
    verbose : bool, default=False
        Whether to print to stderr what is logged: what is done, how far it has come, and how long it will take.

    Attributes
    ----------
    ranking_ : Ranking
        The result.
    best_source_ : str
        Name of the first source if transfer helps, or is likely to, else ``"no transfer"``.
    embeddings_ : tuple of SourceEmbedding
        What embeds formulas by the sources that were measured, best first.
    compositions_ : Compositions
        Of the rows that were ranked, merged and sorted.
    errors_ : dict of str to str
        Sources that failed and why; with ``sources="all"`` also zoos that could not be read.

    Notes
    -----
    Sources are ordered by ln e(descriptors and embedding) + 2 / sqrt(m) ln e(embedding alone), with out-of-fold errors
    e on m rows, of the head and of kernel ridge (:func:`~scotl_matgl.ranking.judge.criterion`); the same folds serve
    all, so that differences are paired. With ``combine="embedding"`` it is the sum of the logarithms of the errors of a
    random forest, out of bag, and of kernel ridge, both on the embedding alone; the control is the same forest on the
    descriptors alone. The loss of class labels is the squared error of their probabilities (Brier score).

    What is told of gains holds for rows that nobody has seen: that the source was picked by these very errors is
    counted in (:func:`~scotl_matgl.ranking.judge.judge`).

    Rows of equal composition and further columns are merged (median of the property, most frequent label), as a row
    must not be predicted from its double. Rows of one composition share a fold and are drawn together in the judgement:
    a table of ten alloys at fifty temperatures holds ten witnesses, not five hundred. Rows are sorted by composition,
    so that their order in the table changes nothing.

    Examples
    --------
    >>> from scotl_matgl import TransferabilityRanker
    >>> from scotl_matgl.tables.files import load_example
    >>> table = load_example()
    >>> ranker = TransferabilityRanker(sources="MEGNet*").fit(table["formula"], table["target"])
    >>> ranker.best_source_
    'MEGNet-MP-2018.6.1-Eform'
    """

    def __init__(
        self,
        sources: Any = "all",
        *,
        descriptor: Any = "standard",
        estimators: Sequence[Any] = ("loo", "logme", "scotl"),
        layer: LayerChoice = "readout",
        look_up: bool | Literal["auto"] = "auto",
        head: Any = "auto",
        formula: Hashable | None = None,
        combine: Literal["concat", "embedding"] = "concat",
        task: Literal["auto", "regression", "classification"] = "auto",
        max_rows: int = 1000,
        max_measured: int = 12,
        n_jobs: int | None = None,
        on_error: Literal["warn", "raise", "skip"] = "warn",
        target_unit: str = "",
        random_state: int = 0,
        polymorphs: Polymorphs = "together",
        verbose: bool = False,
    ) -> None:
        self.sources = sources
        self.descriptor = descriptor
        self.estimators = estimators
        self.layer = layer
        self.look_up = look_up
        self.head = head
        self.formula = formula
        self.combine = combine
        self.task = task
        self.max_rows = max_rows
        self.max_measured = max_measured
        self.n_jobs = n_jobs
        self.on_error = on_error
        self.target_unit = target_unit
        self.random_state = random_state
        self.polymorphs = polymorphs
        self.verbose = verbose

    def fit(self, formulas: Any, y: ArrayLike, *, progress: Told = None) -> Self:
        """Rank the sources for a table.

        Parameters
        ----------
        formulas : sequence, or table
            Formulas: all that :func:`~scotl_matgl.parse_compositions` reads; with `formula` a table with that column
            and numeric ones. In the place of formulas, crystals: all that
            :func:`~scotl_matgl.chemistry.materials.read_material` reads; sources whose weights are here encode them.
        y : array-like of shape (n,)
            Measured property, or class labels.
        progress : callable or True, optional
            A callable is called with (done, total) steps; True draws a bar, in a notebook below the cell.

        Returns
        -------
        self

        Raises
        ------
        CompositionError
            With ``on_error="raise"``, for the first bad row.
        InputError
            If fewer than 10 different compositions remain, the target is constant, or a parameter is wrong.
        RuntimeError
            With ``on_error="raise"``, if a source failed; ``ranking_`` holds the others.
        """
        self._check_parameters()
        strict = self.on_error == "raise"
        rows = Rows.read(formulas, y, formula=self.formula, task=self.task, strict=strict, estimator=self)
        rows = rows.splitting(self.polymorphs)
        # Zoos that fail belong to the result if all sources were asked for; otherwise they are worth a warning.
        lost_zoos: dict[str, str] = {}
        everything = isinstance(self.sources, str) and self.sources in GROUPS
        cards = select(all_cards(lost_zoos.__setitem__ if everything else None), self.sources)
        check_layer(self.layer, cards)
        descriptor = get_descriptor(self.descriptor).fit(rows.formulas)
        described = Described.of(rows.formulas, descriptor, rows.crystals)
        elements = np.unique(described.compositions.numbers).astype(np.intp)
        wanted = [self.estimators] if isinstance(self.estimators, str) else list(self.estimators)
        classification = rows.classification
        search = Search(
            estimators=named_estimators(wanted, classification=classification, random_state=self.random_state),
            head=self.head,
            layer=self.layer,
            look_up=self.look_up,
            combine=self.combine,
            max_rows=self.max_rows,
            max_measured=self.max_measured,
            n_jobs=self.n_jobs,
            random_state=self.random_state,
        )
        features = control_features(
            described, rows.numbers, rows.names, elements, structural_means(rows.crystals.tolist())
        )
        with telling(progress, "ranking", verbose=self.verbose) as step:
            found = search.run([CardSource(card) for card in cards], rows, described, features, progress=step)
        self.errors_ = dict(found.ranking.errors) | lost_zoos
        self.ranking_ = replace(
            found.ranking,
            errors=self.errors_,
            unscored=left_out(wanted, classification=classification) | dict(found.ranking.unscored),
            target=str(getattr(y, "name", None) or ""),
            target_unit=self.target_unit,
        )
        self.best_source_ = self.ranking_.best
        self._descriptor = descriptor
        self.compositions_ = rows.formulas
        self.embeddings_ = tuple(item.embedding for item in found.measured)
        self._report()
        return self

    def _check_parameters(self) -> None:
        """Raise if a parameter is none of what it may be."""
        if self.on_error not in ("warn", "raise", "skip"):
            raise InputError(f"on_error is {self.on_error!r}; it must be 'warn', 'raise' or 'skip'")
        if self.look_up not in ("auto", True, False):
            raise InputError(f"look_up is {self.look_up!r}; it must be 'auto', True or False")
        if self.combine not in ("concat", "embedding"):
            raise InputError(f"combine is {self.combine!r}; it must be 'concat' or 'embedding'")
        if self.task not in ("auto", "regression", "classification"):
            raise InputError(f"task is {self.task!r}; it must be 'auto', 'regression' or 'classification'")
        try:
            check_head(self.head)
        except ValueError as error:
            raise InputError(str(error)) from None
        for name, least in (("max_rows", MIN_ROWS), ("max_measured", 1), ("random_state", 0)):
            check_whole(name, getattr(self, name), least)

    def _report(self) -> None:
        """Raise or warn about what went wrong, as `on_error` says."""
        if self.on_error == "raise" and self.errors_:
            source, reason = next(iter(self.errors_.items()))
            more = f" (and {len(self.errors_) - 1} more sources)" if len(self.errors_) > 1 else ""
            raise RuntimeError(f"{source} cannot be ranked: {reason}{more}")
        if self.on_error == "warn":
            parts = []
            if self.ranking_.skipped:
                first = self.ranking_.skipped[0]
                parts.append(
                    f"{len(self.ranking_.skipped)} rows were skipped, the first is row {first.row} ({first.value}): "
                    f"{first.reason}"
                )
            if self.errors_:
                source, reason = next(iter(self.errors_.items()))
                parts.append(f"{len(self.errors_)} sources were not ranked, the first is {source}: {reason}")
            if parts:
                warn("; ".join(parts) + " (all are listed in ranking_)", ScotlMatglWarning)

    def transform(self, formulas: Any) -> Floats:
        """Embedding Ẑ (n, d) of formulas by the first source of the ranking, whether or not transfer helps."""
        check_is_fitted(self, "ranking_")
        if not self.embeddings_:
            raise ValueError("no source could be ranked, so there is no embedding; errors_ says why")
        rows = read_rows(formulas, formula=self.formula, strict=True, estimator=self, reset=False)
        return self.embeddings_[0].embed(Described.of(rows.formulas, self._descriptor, rows.crystals))
