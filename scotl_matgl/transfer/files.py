"""Fitted models in files without pickle: which types of this package a file may hold, and what is left out of it."""

from __future__ import annotations

import copy
import zipfile
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeVar

from scotl_matgl.bridges.base import Bridge
from scotl_matgl.bridges.embedding import SourceEmbedding
from scotl_matgl.bridges.store import ShippedBridge
from scotl_matgl.chemistry.formulas import SkippedRow
from scotl_matgl.exceptions import InputError, ScotlMatglWarning, warn
from scotl_matgl.learners.compact import compact_heads, expand_heads
from scotl_matgl.sources.cards import SourceCard, all_cards
from scotl_matgl.storage import max_bytes, write_whole
from scotl_matgl.training.full import FullTransferRegressor
from scotl_matgl.transfer.archive import check_archive

Model = TypeVar("Model")

#: Classes that a saved model may name, each by its full name. All of them hold data only; none runs what a file says.
#: Descriptors of other packages, and heads of the user's own, are named by the user.
OWN_CLASSES = frozenset(
    f"scotl_matgl.{name}"
    for name in (
        "bridges.adversarial.AdversarialBridge",
        "bridges.alignment.AlignmentBridge",
        "bridges.base.BridgeQuality",
        "bridges.embedding.SourceEmbedding",
        "bridges.mlp.MLPBridge",
        "bridges.ridge.RidgeBridge",
        "bridges.store.ShippedBridge",
        "chemistry.formulas.SkippedRow",
        "descriptors.composite.CompositeDescriptor",
        "descriptors.composite.StandardDescriptor",
        "descriptors.element_properties.ElementPropertyDescriptor",
        "descriptors.element_properties.ScotlVectorDescriptor",
        "descriptors.element_properties.ValenceOrbitalDescriptor",
        "descriptors.fractions.ElementFractionDescriptor",
        "descriptors.fractions.StoichiometryDescriptor",
        "descriptors.ions.IonPropertyDescriptor",
        "descriptors.matminer.MatminerDescriptor",
        "learners.blend.Blend",
        "learners.compact.CompactForest",
        "learners.compact.CompactKernel",
        "learners.domain.TrainingDomain",
        "learners.heads.HeldRidge",
        "learners.held_out.HeldOut",
        "learners.kernel.LaplacianKernelClassifier",
        "learners.kernel.LaplacianKernelRidge",
        "learners.members.FittedHead",
        "learners.members.BlendMember",
        "learners.scaling.ColumnScale",
        "learners.uncertainty.Uncertainty",
        "ranking.judge.Gain",
        "ranking.judge.Judgement",
        "ranking.result.Ranking",
        "ranking.result.SourceResult",
        "training.bridge.FineTunedBridge",
        "training.full.FullTransferRegressor",
        "transfer.estimators.TransferClassifier",
        "transfer.estimators.TransferRegressor",
        "transfer.featurizer.TransferFeaturizer",
    )
)

# Parts of scikit-learn's heads that some versions of skops do not trust by themselves, although they hold numbers only;
# that trees lead nowhere else is checked.
_PARTS = frozenset(
    {"sklearn.tree._tree.Tree", "sklearn.ensemble._hist_gradient_boosting.predictor.TreePredictor"}
    | {"sklearn.ensemble._hist_gradient_boosting.binning._BinMapper"}
    | {
        f"sklearn._loss.link.{name}"
        for name in ("IdentityLink", "Interval", "LogLink", "LogitLink", "MultinomialLogit")
    }
    | {
        f"sklearn._loss.loss.{name}"
        for name in ("AbsoluteError", "HalfBinomialLoss", "HalfMultinomialLoss", "HalfSquaredError", "PinballLoss")
    }
)


def save_model(model: Any, path: str | Path, *, bridges: bool = False) -> None:
    """Write a fitted model; `bridges` says whether those that come with the package are in it, or named.

    Raises
    ------
    InputError
        If skops is missing.
    """
    _warn_of_unregistered([source.name for source in (*model.sources_, *model.predictors_) if source.bridge is None])
    slim = copy.copy(model)
    for name in ("sources_", "predictors_"):
        sources = tuple(replace(source, card=None) for source in getattr(model, name))
        setattr(slim, name, sources if bridges else tuple(map(_without_shipped, sources)))
    slim.sources = _names(model.sources)
    slim.method = _without_card(model.method)
    slim.skipped_, slim.refused_ = _plain(model.skipped_), _plain(model.refused_)
    if model.ranking_ is not None:
        slim.ranking_ = replace(model.ranking_, skipped=_plain(model.ranking_.skipped))
    heads = compact_heads([item.head for item in model._blend.fitted.values()])
    slim._blend = replace(
        model._blend,
        members=tuple(replace(member, head=_without_card(member.head)) for member in model._blend.members),
        fitted={
            i: replace(item, head=_without_card(head))
            for (i, item), head in zip(model._blend.fitted.items(), heads, strict=True)
        },
    )
    write_whole(Path(path), _skops().dumps(slim, compression=zipfile.ZIP_DEFLATED))


def _plain(rows: Sequence[SkippedRow]) -> tuple[SkippedRow, ...]:
    """Rows whose labels a file may hold: a date, say, is kept as text."""
    return tuple(
        row if isinstance(row.label, bool | int | float | str | tuple) else replace(row, label=str(row.label))
        for row in rows
    )


def _warn_of_unregistered(names: Sequence[str]) -> None:
    """Warn of sources that a loaded model would not find: they read formulas themselves, and are no registered ones."""
    lost = sorted(set(names) - {card.name for card in all_cards(lambda *_: None)}) if names else []
    if lost:
        message = (
            f"the file can only be used where the sources {', '.join(lost)} are registered, which they are not here"
        )
        warn(message, ScotlMatglWarning)


def _without_shipped(source: SourceEmbedding) -> SourceEmbedding:
    """A source whose bridge comes with the package, with the name of that in its place."""
    if not isinstance(source.bridge, Bridge):
        return source
    return replace(source, bridge=ShippedBridge.of(source.bridge) or source.bridge)


def _names(sources: Any) -> Any:
    """Sources by name: a card names a loader, which a file must not."""
    if isinstance(sources, SourceCard):
        return sources.name
    if sources is None or isinstance(sources, str):
        return sources
    return [_names(source) for source in sources]


def _without_card(head: Any) -> Any:
    """A head with its source by name and without a folder: a file must name neither loaders nor paths."""
    if not isinstance(head, FullTransferRegressor):
        return head
    slim = copy.copy(head)
    slim.source = _names(head.source)
    slim.checkpoints = None
    if hasattr(head, "card_"):
        slim.card_ = None
    return slim


def load_model(path: str | Path, kind: type[Model], trusted: Sequence[str]) -> Model:
    """Read a fitted model of a kind; see :meth:`scotl_matgl.TransferRegressor.load`."""
    io = _skops()
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"there is no file {path}")
    known = OWN_CLASSES | _PARTS
    unknown = check_archive(path, known, trusted)
    if not unknown:
        try:
            model = io.load(path, trusted=[*known, *trusted])
        except io.exceptions.UntrustedTypesFoundException:
            unknown = {*io.get_untrusted_types(file=path)} - known - {*trusted}
        except (MemoryError, Exception) as error:  # whatever a file that is no model makes skops and classes raise
            raise InputError(f"{path} is no saved model: {error}") from error
    if unknown:
        raise InputError(
            f"{path} holds types that are not trusted: {', '.join(sorted(unknown))}; if you know where the file comes "
            "from, load it with trusted=[...]"
        )
    if not isinstance(model, kind):
        raise InputError(f"{path} holds a {type(model).__name__}, not a {kind.__name__}")
    _make_whole(model, path)
    return model


def _make_whole(model: Any, path: Path) -> None:
    """Bring heads back to what they were, and see that the bridges that are named are there."""
    try:
        fitted = model._blend.fitted
        heads = expand_heads([item.head for item in fitted.values()], max_bytes())
        model._blend.fitted = {i: replace(fitted[i], head=head) for i, head in zip(fitted, heads, strict=True)}
        named = [source.bridge for source in (*model.sources_, *model.predictors_)]
    except Exception as error:  # whatever a file that is no model makes of arrays and attributes
        raise InputError(f"{path} is refused: {error}") from error
    for bridge in named:
        if isinstance(bridge, ShippedBridge):
            bridge.path  # noqa: B018 - raises if it is not there


def _skops() -> Any:
    try:
        import skops.io
        import skops.io.exceptions
    except ModuleNotFoundError as error:
        raise InputError("saving and loading needs skops: pip install skops") from error
    return skops.io
