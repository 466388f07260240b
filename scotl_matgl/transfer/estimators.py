"""The transferred model for a property and for class labels, as scikit-learn estimators."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
from numpy.typing import ArrayLike, NDArray
from sklearn.base import ClassifierMixin, RegressorMixin
from sklearn.utils.multiclass import check_classification_targets

from scotl_matgl.exceptions import InputError
from scotl_matgl.learners.blend import gaps, spread, weighted, without_gaps
from scotl_matgl.learners.held_out import HeldOut
from scotl_matgl.learners.members import LearningTask
from scotl_matgl.learners.uncertainty import Uncertainty
from scotl_matgl.tables.rows import Rows
from scotl_matgl.transfer.files import load_model
from scotl_matgl.transfer.model import CRYSTALS_BLOCK, Seen, TransferModel
from scotl_matgl.vocabulary import Floats

if TYPE_CHECKING:
    pass


class TransferRegressor(RegressorMixin, TransferModel):  # type: ignore[misc]  # scikit-learn is not typed
    """Predict a property of formulas from descriptors and pretrained sources.

    Sources are ranked inside ``fit``, so that cross-validation of this estimator is honest. The prediction is a blend:
    heads on the descriptors and heads on descriptors beside the embeddings of the best sources, averaged with weights
    from their out-of-fold losses (:func:`~scotl_matgl.learners.blend.blend_weights`).

    Parameters
    ----------
    sources : "all", str, SourceCard, list of these, or fitted TransferabilityRanker, default="all"
        Which sources may be transferred from: names may hold ``*``, an empty list is none. A fitted ranker hands on its
        ranking, so that nothing is ranked twice; it has seen the rows, so that cross-validation of this model is then
        not honest.
    method : {"frozen", "fine-tune", "full"} or FullTransferRegressor, default="frozen"
        ``"frozen"``: heads on the embeddings as they are. ``"fine-tune"``: the bridge network with a linear head,
        trained on from its weights (:class:`~scotl_matgl.training.bridge.FineTunedBridge`); needs torch. ``"full"``:
        the network of the best source itself, trained on; X then holds crystals, and the source is one of MatGL's
        whose weights are on this machine. A :class:`~scotl_matgl.FullTransferRegressor` is the same with settings and
        seed of its own; its source is replaced by the best. Predictions of the network are held to the range of the
        training target.
    head : "auto", str or estimator, default="auto"
        One of :data:`~scotl_matgl.learners.heads.HEADS`, or any scikit-learn estimator. ``"auto"`` blends kernel
        ridge, extra trees (mean and median of the trees), gradient boosting on descriptors, extra trees on element
        fractions, and ridge regression on the embeddings alone.
    combine : {"concat", "residual", "embedding"}, default="concat"
        What a head sees that transfers: descriptors beside embeddings; embeddings, to learn the out-of-fold residuals
        of the best head on descriptors; embeddings only.
    guard : bool, default=True
        Whether heads on descriptors alone belong to the blend, stand alone where the blend with transfer has no smaller
        out-of-fold loss, and are averaged with it where the difference is below three standard errors
        (:func:`~scotl_matgl.learners.blend.share_of_transfer`).
    n_sources : int, default=5
        How many of the best sources are used together, by default those that the ranking judges together; in full
        training the best is used alone.
    predictions : bool, default=True
        Whether heads on descriptors beside what *all* sources predict (the layer ``"final"``) belong to the blend.
    descriptor : str or CompositionDescriptor, default="standard"
        Describes the formulas, for the bridges and for the heads.
    layer : str or sequence of str, default="readout"
        Layer of the sources; of several, or of all with ``"auto"``, each source takes the best, see
        :class:`~scotl_matgl.TransferabilityRanker`. Formulas are embedded by a layer that has a bridge only.
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
    target_unit : str, default=""
        Unit of the target, for what is told of the model.
    on_error : {"warn", "raise", "skip"}, default="warn"
        What a bad row does: a warning, an error, or nothing but its line in ``skipped_``. In ``predict`` its
        prediction is NaN. The same for crystals that a network refuses, which the other heads predict.
    n_jobs : int, optional
        Threads of forests, as in joblib: None is one, -1 all. They change no number.
    random_state : int, default=0
        Seed of folds, heads and networks.
    polymorphs : {"together", "apart"}, default="together"
        Whether crystals of one formula share a fold, as new formulas ask for, or are split like all others, as new
        polymorphs of known formulas do.
    verbose : bool, default=False
        Whether to print to stderr what is logged: what is done, how far it has come, and how long it will take.

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
    held_out_ : HeldOut
        Out-of-fold predictions of the rows that the blend was weighed on, with their deviations.
    refused_ : tuple of SkippedRow
        With ``method="full"``: crystals of ``fit`` that the network refuses, so that the other heads alone have learned
        from them, and why.
    remarks_ : tuple of str
        How formulas were understood, such as brackets read as shares, a sentence each.
    skipped_ : tuple of SkippedRow
        Rows that could not be used in ``fit``, and why.
    errors_ : dict of str to str
        Sources that could not be used, and why.

    Notes
    -----
    Everything is chosen by the absolute error, so that the prediction leans to the median where values are skewed or
    many are the same. Rows of one composition, which may differ in other columns, are always on the same side of a
    fold. Cost with all sources of the package on one core: 3 s for 100 rows, a quarter of a minute for 1,000 or more;
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

    _target_kind = "regression"

    def _calibrate(self, predictions: Sequence[Floats], task: LearningTask, text: tuple[str, ...]) -> None:
        distance = self._domain.out_of_fold_distance(task.folds)
        weights = self._blend.weights.copy()
        refused = gaps([item for item, weight in zip(predictions, weights, strict=True) if weight > 0])
        self._uncertainty = _uncertainty(predictions, weights, distance, task.y, ~refused)
        # Rows that a network refuses are predicted by the other heads, which are less sure.
        weights[[CRYSTALS_BLOCK in member.blocks for member in self._blend.members]] = 0.0
        self._uncertainty_without = self._uncertainty
        if weights.any() and (weights < self._blend.weights).any():
            every = np.ones(len(task.y), dtype=bool)
            self._uncertainty_without = _uncertainty(predictions, weights / weights.sum(), distance, task.y, every)
        used = self._blend.weights > 0
        counted = self._blend.weights[used]
        filled = without_gaps([item for item, use in zip(predictions, used, strict=True) if use], counted)
        deviation = self._uncertainty.deviation(distance, spread(filled, counted))
        self.held_out_ = HeldOut(text, task.y, weighted(filled, counted)[:, 0], deviation)

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
            training rows and the spread of the heads; see :class:`~scotl_matgl.learners.uncertainty.Uncertainty`.
        """
        rows = self._read(X)
        found = self._by_blocks(rows, self._values) if len(rows) else {}
        predicted, deviation = np.full(rows.n_input, np.nan), np.full(rows.n_input, np.nan)
        if len(rows):
            predicted[rows.kept], deviation[rows.kept] = found["predicted"], found["deviation"]
        return (predicted, deviation) if return_std else predicted

    _kinds: ClassVar[dict[str, Any]] = {"predicted": float, "deviation": float}

    def _values(self, seen: Seen) -> dict[str, NDArray[Any]]:
        members, weights = self._blended(seen)
        filled = without_gaps(members, weights)
        deviation = self._uncertainty.deviation(seen.distance, spread(filled, weights))
        refused = gaps(members)
        if refused.any():
            others = [item for item in members if not np.isnan(item[refused]).any()]
            kept = np.array([not np.isnan(item[refused]).any() for item in members])
            deviation[refused] = np.nan
            if others:
                apart = spread(others, weights[kept] / weights[kept].sum())
                deviation[refused] = self._uncertainty_without.deviation(seen.distance, apart)[refused]
        return {"predicted": weighted(filled, weights)[:, 0], "deviation": deviation}


def _uncertainty(
    predictions: Sequence[Floats], weights: Floats, distance: Floats, y: Floats, rows: NDArray[np.bool_]
) -> Uncertainty:
    """Learn the uncertainty of a blend from out-of-fold predictions of its members on some rows."""
    items = [item[rows] for item, weight in zip(predictions, weights, strict=True) if weight > 0]
    counted = weights[weights > 0]
    residuals = y[rows] - weighted(items, counted)[:, 0]
    return Uncertainty.of(residuals, distance[rows], spread(items, counted))


class TransferClassifier(ClassifierMixin, TransferModel):  # type: ignore[misc]  # scikit-learn is not typed
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

    _target_kind = "classification"

    def _read_training(self, X: Any, y: ArrayLike) -> Rows:
        rows = super()._read_training(X, y)
        check_classification_targets(rows.classes)
        self.classes_ = rows.classes
        if len(self.classes_) < 2:
            raise InputError(
                f"the target has one class only, {self.classes_[:1].tolist()[0]!r}; there is nothing to learn"
            )
        return rows

    def predict_proba(self, X: Any) -> Floats:
        """Probabilities (m, k) of the classes, in the order of ``classes_``; NaN for rows that cannot be read."""
        rows = self._read(X)
        probabilities = np.full((rows.n_input, len(self.classes_)), np.nan)
        if len(rows):
            probabilities[rows.kept] = self._by_blocks(rows, self._probabilities)["probabilities"]
        return probabilities

    _kinds: ClassVar[dict[str, Any]] = {"predicted": object, "probability": float}

    def _probabilities(self, seen: Seen) -> dict[str, NDArray[Any]]:
        return {"probabilities": weighted(*self._blended(seen))}

    def _values(self, seen: Seen) -> dict[str, NDArray[Any]]:
        probabilities = weighted(*self._blended(seen))
        return {
            "predicted": self.classes_[probabilities.argmax(axis=1)].astype(object),
            "probability": probabilities.max(axis=1),
        }

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
    return load_model(path, TransferModel, trusted)
