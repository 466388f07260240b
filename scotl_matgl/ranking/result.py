"""The result of a ranking: sources in order, the control among them, and what was judged of them."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import NDArray

from scotl_matgl.chemistry.formulas import SkippedRow
from scotl_matgl.ranking.judge import Gain, Judgement, Verdict
from scotl_matgl.storage import write_whole
from scotl_matgl.vocabulary import NO_TRANSFER, TOGETHER, Floats, for_spreadsheets, visible

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes


# Share of the resamples from which a source counts as not told apart from the first one.
_TIED = 0.05


@dataclass(frozen=True)
class SourceResult:
    """What was measured for one source.

    Attributes
    ----------
    source, property, unit : str
        From its card: name, what it was trained to predict, in which unit.
    scores : mapping of str to float
        By estimator, higher is better; NaN where the score is degenerate.
    loo_rmse : float
        Exact leave-one-out error of ridge regression on the embedding alone, root mean square, in the target's unit.
        NaN for class labels.
    looked_up, bridged, refused : int
        Formulas whose embedding is that of their crystal, is estimated, or is missing (and replaced by the mean).
    seconds : float
        Time spent on this source.
    seen : int, optional
        Formulas that the source was trained on (with calculated values); None where that is not known.
    encoded : int
        Crystals whose embedding the source itself has computed.
    fallback : str
        Why a source that reads crystals computed none of those of the table; empty where it did, or there are none.
    layer : str
        Layer that was taken, where there was a choice of layers.
    n_layers : int
        Of how many it is the best.
    """

    source: str
    property: str
    unit: str
    scores: Mapping[str, float]
    loo_rmse: float
    looked_up: int
    bridged: int
    refused: int
    seconds: float
    seen: int | None = None
    encoded: int = 0
    fallback: str = ""
    layer: str = ""
    n_layers: int = 1


@dataclass(frozen=True, eq=False)
class Ranking:
    """Sources in order, with the control "no transfer" among them.

    Made by :class:`~scotl_matgl.ranking.search.Search`.

    Attributes
    ----------
    results : tuple of SourceResult
        One for each source that was measured, best first.
    losses : ndarray of shape (n_sources, m)
        Out-of-fold loss of each row with each source, in the order of `results`, of the head on descriptors and
        embedding together, or of a random forest on the embedding alone (`combine`). Absolute error in the target's
        unit; for class labels the squared error of the probabilities, summed over the classes (Brier score).
    control : ndarray of shape (m,)
        The same without transfer.
    judgement : Judgement
        Gains on rows that nobody has seen, with the choice of the source counted in, and the verdict.
    head : str
        What sources were measured with: the best head on descriptors, or the random forest.
    control_name : str
        The head of the control: the best of ``control_errors``.
    control_errors : mapping of str to float
        Mean loss without transfer, by head.
    errors : mapping of str to str
        Sources that failed, and why.
    skipped : tuple of SkippedRow
        Rows of the table that could not be used, and why.
    n_rows, n_merged : int
        Formulas ranked; rows merged into them because their composition was there already.
    classification : bool
        Whether the target holds class labels.
    combine : {"concat", "embedding"}
        What is trained on after transfer: descriptors and embedding together, or the embedding alone.
    random_state : int
        Seed of folds, heads and resamples.
    target, target_unit : str
        What was predicted, as far as the user said.
    imputed : mapping of str to tuple of str
        Elements of the table for which descriptors had to invent values, and which.
    settings : mapping
        Parameters and versions.
    unscored : mapping of str to str
        Estimators that were left out, or failed for some source (whose score is NaN), and why.
    screened : tuple of SourceResult
        Sources whose error was not measured, because the screen put them behind those in `results`; best first.
    remarks : tuple of str
        What the reader of the table has to say: how formulas and target were understood.
    columns : tuple of str
        Further columns that the control and each source saw.
    """

    results: tuple[SourceResult, ...]
    losses: NDArray[np.float64]
    control: NDArray[np.float64]
    judgement: Judgement
    head: str
    control_name: str
    control_errors: Mapping[str, float]
    errors: Mapping[str, str]
    skipped: tuple[SkippedRow, ...]
    n_rows: int
    n_merged: int
    classification: bool
    combine: Literal["concat", "embedding"] = "concat"
    random_state: int = 0
    target: str = ""
    target_unit: str = ""
    imputed: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    settings: Mapping[str, Any] = field(default_factory=dict)
    unscored: Mapping[str, str] = field(default_factory=dict)
    screened: tuple[SourceResult, ...] = ()
    remarks: tuple[str, ...] = ()
    columns: tuple[str, ...] = ()

    @property
    def fallbacks(self) -> dict[str, str]:
        """Sources that read crystals and yet were ranked by their bridges, for a table of crystals; and why."""
        return {result.source: result.fallback for result in (*self.results, *self.screened) if result.fallback}

    # -- the answer -----------------------------------------------------------------------------------------------

    @property
    def sources(self) -> tuple[str, ...]:
        """Names of the sources, best first, without the control."""
        return tuple(result.source for result in self.results)

    @property
    def verdict(self) -> Verdict:
        """Whether to transfer: "yes" (proven), "likely" (more likely than not to help), or "no".

        It is about the first sources together, or the first alone where more is to gain by it.
        """
        return self.judgement.answer.verdict if self.results else "no"

    @property
    def probability(self) -> float:
        """Probability that transfer helps on rows that nobody has seen; 0 if no source was measured."""
        return self.judgement.answer.probability if self.results else 0.0

    @property
    def best(self) -> str:
        """Name of the first source where the verdict is "yes" or "likely", else ``"no transfer"``."""
        return self.sources[0] if self.verdict != "no" else NO_TRANSFER

    @property
    def helps(self) -> bool:
        """Whether the verdict is "yes" or "likely"."""
        return self.verdict != "no"

    @property
    def n_together(self) -> int:
        """How many sources stand together in a row of the ranking; 0 if there is no such row."""
        return min(TOGETHER, len(self.results)) if len(self.results) > 1 else 0

    @property
    def together(self) -> str:
        """Name of the row of the first sources together; empty if there is none."""
        names = {2: "two", 3: "three", 4: "four", 5: "five"}
        return f"first {names[self.n_together]} together" if self.n_together else ""

    @property
    def measure(self) -> str:
        """What the mean loss is called."""
        return "Brier score" if self.classification else "mean absolute error"

    @property
    def calibrated(self) -> bool:
        """Whether intervals and probabilities were calibrated with this head: kernel ridge, beside the descriptors."""
        return self.combine == "concat" and self.head.startswith("kernel ridge")

    @property
    def error_of_control(self) -> float:
        """Mean loss without transfer, on rows not learned from."""
        return float(self.control.mean())

    @property
    def relative_gain(self) -> float:
        """Gain of the first source as a share of the error without transfer; NaN if there is neither."""
        return self.judgement.gains[0].gain if self.results and self.error_of_control > 0 else math.nan

    @property
    def relative_interval(self) -> tuple[float, float]:
        """90 % interval of :attr:`relative_gain`."""
        known = self.results and self.error_of_control > 0
        return self.judgement.gains[0].interval if known else (math.nan, math.nan)

    @cached_property
    def gains(self) -> Floats:
        """Gain of each source (n_sources,): how far the error falls below that without transfer, on unseen rows."""
        return self.error_of_control * np.array([gain.gain for gain in self.judgement.gains])

    def gain_interval(self, source: str) -> tuple[float, float]:
        """90 % interval of the gain of a source, of the first together, or of no transfer, which is 0 for certain."""
        if source == NO_TRANSFER:
            return 0.0, 0.0
        if source == self.together:
            low, high = self.judgement.together.interval
        elif source in self.sources:
            low, high = self.judgement.gains[self.sources.index(source)].interval
        else:
            raise KeyError(f"{source!r} was not ranked; these were: {', '.join(self.sources)}")
        return low * self.error_of_control, high * self.error_of_control

    @property
    def probability_best(self) -> dict[str, float]:
        """Share of the resamples of the rows in which each source comes first."""
        ordered = self.judgement.probability_first[self.judgement.order]
        return dict(zip(self.sources, ordered.tolist(), strict=True))

    @property
    def ties(self) -> tuple[str, ...]:
        """Sources that come first in at least one of twenty resamples, but for the first one itself."""
        return tuple(name for name in self.sources[1:] if self.probability_best[name] >= _TIED)

    # -- forms ----------------------------------------------------------------------------------------------------

    def to_frame(self) -> pd.DataFrame:
        """Table with one row per source, best first.

        The control stands above the first source that gains nothing, the row of the first sources together above the
        first that gains less; sources themselves stand by the criterion, so that gains need not fall from row to row.

        Columns: ``source``, ``property``, one for each estimator, ``loo_rmse``, ``error`` (out of fold), ``gain``,
        ``gain_low``, ``gain_high``, ``gain_percent`` (on rows that nobody has seen), ``p_helps``, ``p_best``,
        ``looked_up``, ``bridged``, ``refused``, ``seconds``, ``seen``; errors and gains are in the target's unit. With
        crystals also ``encoded``, with a choice of layers ``layer``.
        Sources that were screened only come last, without error and gain.
        """
        import pandas as pd

        errors = self.losses.mean(axis=1)
        rows: list[dict[str, Any]] = []
        # Whatever became of the crystals: that none was encoded, for want of weights, is no reason to lose the column.
        of_crystals = bool(self.fallbacks) or any(result.encoded for result in (*self.results, *self.screened))
        for index, result in enumerate((*self.results, *self.screened)):
            layer = {"layer": result.layer} if result.layer else {}  # tables without a choice have no such column
            named = {"source": result.source, **layer, "property": f"{result.property} [{result.unit}]"}
            scores = {**named, **result.scores}
            measured = index < len(self.results)
            judged = self._judged(index, float(errors[index])) if measured else {}
            encoded = {"encoded": result.encoded} if of_crystals else {}
            rows.append({**scores, "loo_rmse": result.loo_rmse, **judged, **encoded, **_coverage(result)})
        control = {"source": NO_TRANSFER, "property": "", "loo_rmse": math.nan, "error": self.error_of_control}
        control |= {"gain": 0.0, "gain_low": 0.0, "gain_high": 0.0, "gain_percent": 0.0}
        control |= {"p_helps": math.nan, "p_best": math.nan, **({"encoded": 0} if of_crystals else {})}
        control |= {"looked_up": 0, "bridged": 0, "refused": 0}
        columns = list(dict.fromkeys(name for row in (*rows, control) for name in row))
        gains = [gain.gain for gain in self.judgement.gains]
        # A source that is no better stands below the control, which costs nothing.
        at = next((index for index, gain in enumerate(gains) if gain <= 0), len(gains))
        rows.insert(at, control)
        gains.insert(at, 0.0)
        if self.n_together:
            # Not above a source alone that gains more, if that is first.
            first = next((index for index, gain in enumerate(gains) if gain < self.judgement.together.gain), len(gains))
            rows.insert(first, self._together_row())
        frame = pd.DataFrame(rows, columns=columns)
        if "layer" in frame:
            frame["layer"] = frame["layer"].fillna("")
        frame.index = pd.RangeIndex(1, len(frame) + 1, name="rank")
        return frame

    def _judged(self, index: int, error: float) -> dict[str, float]:
        gain, name = self.judgement.gains[index], self.sources[index]
        return {"error": error, **self._told(name, gain), "p_best": self.probability_best[name]}

    def _together_row(self) -> dict[str, Any]:
        told = self._told(self.together, self.judgement.together)
        return {"source": self.together, "property": "", "error": self.judgement.together_error, **told}

    def _told(self, name: str, gain: Gain) -> dict[str, float]:
        low, high = self.gain_interval(name)
        return {
            "gain": gain.gain * self.error_of_control,
            "gain_low": low,
            "gain_high": high,
            "gain_percent": 100 * gain.gain if self.error_of_control > 0 else math.nan,
            "p_helps": gain.probability,
        }

    def to_csv(self, path: str | Path | None = None) -> str | None:
        """Write :meth:`to_frame` as CSV, or return the text if no path is given."""
        text = str(for_spreadsheets(self.to_frame()).to_csv())
        if path is None:
            return text
        write_whole(Path(path), text.encode())
        return None

    def to_dict(self) -> dict[str, Any]:
        """Everything but the losses, as JSON values; NaN becomes None."""
        frame = self.to_frame()
        return {
            "verdict": self.verdict,
            "probability": self.probability,
            "best": self.best,
            "relative_gain": _json_value(self.relative_gain),
            "relative_interval": [_json_value(end) for end in self.relative_interval],
            "ties": list(self.ties),
            "helps": self.helps,
            "calibrated": self.calibrated,
            "combine": self.combine,
            "summary": self.summary(),
            "target": self.target,
            "unit": self.target_unit,
            "task": "classification" if self.classification else "regression",
            "n_rows": self.n_rows,
            "n_merged": self.n_merged,
            "columns": list(self.columns),
            "head": self.head,
            "control": self.control_name,
            "control_errors": dict(self.control_errors),
            "ranking": [
                {key: _json_value(value) for key, value in row.items()}
                for row in frame.reset_index().to_dict(orient="records")
            ],
            "errors": dict(self.errors),
            **({"fallbacks": self.fallbacks} if self.fallbacks else {}),
            "unscored": dict(self.unscored),
            "skipped": [{**asdict(row), "label": str(row.label)} for row in self.skipped],
            "remarks": list(self.remarks),
            "imputed": {element: list(what) for element, what in self.imputed.items()},
            "settings": {**self.settings, "random_state": self.random_state},
        }

    def to_json(self, path: str | Path | None = None) -> str | None:
        """Write :meth:`to_dict` as JSON, or return the text if no path is given."""
        text = json.dumps(self.to_dict(), indent=1, ensure_ascii=False, allow_nan=False, default=str)
        if path is None:
            return text
        write_whole(Path(path), f"{text}\n".encode())
        return None

    def report(
        self, path: str | Path | None = None, *, formulas: Any = None, origin: Mapping[str, str] | None = None
    ) -> str | None:
        """Write a page of one file for a colleague, or return it as text if no path is given.

        Parameters
        ----------
        path : path, optional
            Of an ``.html`` file.
        formulas : sequence of formulas, optional
            Those of the table, for the periodic table of its elements.
        origin : mapping of str to str, optional
            How the ranking came about, such as ``{"table": "gaps.csv", "command": "..."}``; shown as it is.

        Notes
        -----
        The page asks nothing of the network. Figures need matplotlib; without it the page says so.
        """
        from scotl_matgl.ranking.pages import report

        text = report(self, formulas=formulas, origin=origin)
        if path is None:
            return text
        write_whole(Path(path), text.encode())
        return None

    def plot(self, ax: Axes | None = None, *, most: int = 20) -> Axes:
        """Draw the gains with their intervals; see :func:`scotl_matgl.plotting.plot_gains`. Needs matplotlib."""
        from scotl_matgl.ranking.report import plot

        return plot(self, ax, most=most)

    def summary(self) -> str:
        """Answer in a sentence or two: which source, how much better, how sure, or none."""
        from scotl_matgl.ranking.report import summary

        return summary(self)

    def to_text(self, width: int | None = None) -> str:
        """Summary, table and remarks as plain text.

        Parameters
        ----------
        width : int, optional
            Columns of text, at least 80; table columns that do not fit are left out, the least important first.
            Default: the width of the terminal, or 120 where there is none.
        """
        from scotl_matgl.ranking.report import text

        return visible(text(self, width))

    def __str__(self) -> str:
        return self.to_text()

    def _repr_html_(self) -> str:
        from scotl_matgl.ranking.pages import notebook

        return notebook(self)


def _coverage(result: SourceResult) -> dict[str, float]:
    return {
        "looked_up": result.looked_up,
        "bridged": result.bridged,
        "refused": result.refused,
        "seconds": result.seconds,
        "seen": math.nan if result.seen is None else result.seen,
    }


def _json_value(value: Any) -> Any:
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value.item() if isinstance(value, np.generic) else value
