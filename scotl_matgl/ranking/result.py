"""The result of a ranking: a table with its control, what it says, and how sure it is."""

from __future__ import annotations

import html
import json
import math
import shutil
import textwrap
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from scotl_matgl.chemistry.formulas import SkippedRow
from scotl_matgl.vocabulary import NO_TRANSFER, listing

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes


#: Score that orders a ranking for those who train on the embedding alone.
MEAN_RANK = "mean_rank"


# Bootstrap resamples: the standard error of a probability of 0.5 is then 0.01.
_RESAMPLES = 2000


# Narrowest printed form: a long name, its error, and its gain.
_NARROWEST = 80


# Smallest gain, as a share of the error without transfer, that counts. Columns that know nothing of the target may
# shrink the head's predictions and so gain a little: half a percent for 150 shuffled targets.
_LEAST_GAIN = 0.01


# Share of resamples between the ends of an interval.
CONFIDENCE = 0.9


@dataclass(frozen=True)
class SourceResult:
    """What was measured for one source.

    Attributes
    ----------
    source, property, unit : str
        From its card: name, what it was trained to predict, in which unit.
    scores : mapping of str to float
        By estimator, higher is better; NaN where the score is degenerate. Where the order is for training on the
        embedding alone, also the scores it is made of, and their mean rank ``"mean_rank"``: the share of the other
        sources that this one beats.
    loo_rmse : float
        Exact leave-one-out error of ridge regression on the embedding alone, root mean square, in the target's unit.
        NaN for class labels.
    looked_up, bridged, refused : int
        Formulas whose embedding is that of their crystal, is estimated, or is missing (and replaced by the mean).
    seconds : float
        Time spent on this source.
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


@dataclass(frozen=True, eq=False)
class Ranking:
    """Sources in order, with the control "no transfer" among them.

    Made by :class:`~scotl_matgl.TransferabilityRanker`; sorted when it is made.

    Attributes
    ----------
    results : tuple of SourceResult
        One for each source, best first.
    losses : ndarray of shape (n_sources, m)
        Loss of each row with each source, in the order of `results`: out of fold, of the head on descriptors beside the
        embedding, or out of bag, of a random forest on the embedding alone (`combine`). Absolute error in the target's
        unit, or 0 and 1 for right and wrong labels.
    control : ndarray of shape (m,)
        The same for descriptors alone.
    head : str
        The head of all of these: the best of ``control_errors``, or the random forest.
    control_errors : mapping of str to float
        Mean loss on descriptors alone, by head.
    errors : mapping of str to str
        Sources that failed, and why.
    skipped : tuple of SkippedRow
        Rows of the table that could not be used, and why.
    n_rows, n_merged : int
        Formulas ranked; rows merged into them because their composition was there already.
    classification : bool
        Whether the target holds class labels.
    target, target_unit : str
        What was predicted, as far as the user said.
    imputed : mapping of str to tuple of str
        Elements of the table for which descriptors had to invent values, and which.
    settings : mapping
        Parameters, seed and versions.
    unscored : mapping of str to str
        Estimators that were left out, or failed for some source (whose score is NaN), and why.
    screened : tuple of SourceResult
        Sources whose error was not measured, because quick scores put them behind those in `results`; best first.
    """

    results: tuple[SourceResult, ...]
    losses: NDArray[np.float64]
    control: NDArray[np.float64]
    head: str
    control_errors: Mapping[str, float]
    errors: Mapping[str, str]
    skipped: tuple[SkippedRow, ...]
    n_rows: int
    n_merged: int
    classification: bool
    target: str = ""
    target_unit: str = ""
    imputed: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    settings: Mapping[str, Any] = field(default_factory=dict)
    unscored: Mapping[str, str] = field(default_factory=dict)
    screened: tuple[SourceResult, ...] = ()

    # -- what it says ---------------------------------------------------------------------------------------------

    @property
    def sources(self) -> tuple[str, ...]:
        """Names of the sources, best first, without the control."""
        return tuple(result.source for result in self.results)

    @property
    def combine(self) -> str:
        """What is trained on after transfer: "concat", descriptors beside the embedding, or "embedding", it alone."""
        return str(self.settings.get("combine", "concat"))

    @property
    def error_of_control(self) -> float:
        """Mean loss without transfer, on rows not learned from."""
        return float(self.control.mean())

    @cached_property
    def gains(self) -> NDArray[np.float64]:
        """Mean loss of the control minus that of each source (n_sources,): positive where transfer helps."""
        return np.asarray((self.control - self.losses).mean(axis=1), dtype=np.float64)

    @cached_property
    def gain_percents(self) -> NDArray[np.float64]:
        """Gains in percent of the loss of the control (n_sources,); NaN where the control makes no error."""
        control = self.error_of_control
        return 100 * self.gains / control if control > 0 else np.full(len(self.gains), np.nan)

    @cached_property
    def gain_errors(self) -> NDArray[np.float64]:
        """Standard error of each gain (n_sources,), from the paired differences of the rows."""
        difference = self.control - self.losses
        return np.asarray(difference.std(axis=1, ddof=1) / math.sqrt(difference.shape[1]), dtype=np.float64)

    @cached_property
    def _resampled(self) -> NDArray[np.float64]:
        """Mean losses (1 + n_sources, resamples), the control first, under resampling of the rows."""
        losses = np.vstack([self.control, self.losses])
        rng = np.random.default_rng(self.settings.get("random_state", 0))
        m = losses.shape[1]
        weights = rng.multinomial(m, np.full(m, 1.0 / m), size=_RESAMPLES).T / m
        return np.asarray(losses @ weights, dtype=np.float64)

    @cached_property
    def probability_best(self) -> dict[str, float]:
        """Share of the resamples of the rows in which each source, or the control, has the smallest loss."""
        winners = np.bincount(self._resampled.argmin(axis=0), minlength=1 + len(self.results)) / _RESAMPLES
        return dict(zip((NO_TRANSFER, *self.sources), winners.tolist(), strict=True))

    def gain_interval(self, source: str) -> tuple[float, float]:
        """90 % interval of the gain of a source, from resampling the rows.

        It is what other rows like these would give; another choice of training rows or folds is not in it.
        """
        means = self._resampled
        gain = means[0] - means[1 + self._position(source)]
        low, high = np.quantile(gain, [(1 - CONFIDENCE) / 2, (1 + CONFIDENCE) / 2])
        return float(low), float(high)

    def _position(self, source: str) -> int:
        if source not in self.sources:
            raise KeyError(f"{source!r} was not ranked; these were: {', '.join(self.sources)}")
        return self.sources.index(source)

    @cached_property
    def proven_gain(self) -> float:
        """Gain that the first source exceeds with 95 % confidence, though it was picked as the best of all.

        The bound is joint: its distance from the gain is the 95 % quantile of the largest deviation of any source's
        gain when the rows are resampled; with sources that were only screened, at the level that as many independent
        repetitions of it would need (Šidák). NaN if no source was ranked.
        """
        if not self.results:
            return float("nan")
        gains = self._resampled[0] - self._resampled[1:]
        largest = (gains - self.gains[:, None]).max(axis=0)
        # The sources that were screened out were tried too: as many more draws of the largest deviation.
        tried = (len(self.results) + len(self.screened)) / len(self.results)
        return float(self.gains[0] - np.quantile(largest, ((1 + CONFIDENCE) / 2) ** (1 / tried)))

    @property
    def helps(self) -> bool:
        """Whether transfer from the first source helps: its gain is at least 1 % and :attr:`proven_gain` above 0."""
        return self.proven_gain > 0 and float(self.gains[0]) >= _LEAST_GAIN * self.error_of_control

    @property
    def best(self) -> str:
        """Name of the first source if transfer from it helps, else ``"no transfer"``."""
        return self.sources[0] if self.helps else NO_TRANSFER

    @property
    def ties(self) -> tuple[str, ...]:
        """Sources not worse than the first one for certain: the 90 % interval of their loss minus its begins below 0.

        Where the order is that of the losses, that is those whose interval holds 0.
        """
        if not self.results:
            return ()
        means = self._resampled[1:]
        low = np.quantile(means - means[0], (1 - CONFIDENCE) / 2, axis=1)
        return tuple(name for name, end in zip(self.sources[1:], low[1:], strict=True) if end <= 0)

    # -- forms ----------------------------------------------------------------------------------------------------

    def to_frame(self) -> pd.DataFrame:
        """Table with one row a source, best first, and the control where it belongs by its error.

        Columns: ``source``, ``property``, one for each estimator, ``loo_rmse``, ``error``, ``gain``, ``gain_se``,
        ``gain_percent``, ``p_best``, ``looked_up``, ``bridged``, ``refused``, ``seconds``; errors and gains are in the
        target's unit. Sources that were only screened come last, without error and gain.
        """
        import pandas as pd

        errors = self.losses.mean(axis=1)
        rows: list[dict[str, Any]] = []
        for index, result in enumerate((*self.results, *self.screened)):
            measured = index < len(self.results)
            rows.append(
                {"source": result.source, "property": f"{result.property} [{result.unit}]"}
                | dict(result.scores)
                | {
                    "loo_rmse": result.loo_rmse,
                    "error": float(errors[index]) if measured else math.nan,
                    "gain": float(self.gains[index]) if measured else math.nan,
                    "gain_se": float(self.gain_errors[index]) if measured else math.nan,
                    "gain_percent": float(self.gain_percents[index]) if measured else math.nan,
                    "p_best": self.probability_best[result.source] if measured else math.nan,
                    "looked_up": result.looked_up,
                    "bridged": result.bridged,
                    "refused": result.refused,
                    "seconds": result.seconds,
                }
            )
        control = {
            "source": NO_TRANSFER,
            "property": "",
            "error": self.error_of_control,
            "gain": 0.0,
            "gain_se": 0.0,
            "gain_percent": 0.0,
            "p_best": self.probability_best[NO_TRANSFER],
            "looked_up": 0,
            "bridged": 0,
            "refused": 0,
        }
        # A source that is no better stands below the control, which costs nothing.
        at = next((index for index, gain in enumerate(self.gains) if gain <= 0), len(self.results))
        frame = pd.DataFrame([*rows[:at], control, *rows[at:]])
        frame.index = pd.RangeIndex(1, len(frame) + 1, name="rank")
        return frame

    def to_csv(self, path: str | Path | None = None) -> str | None:
        """Write :meth:`to_frame` as CSV, or return the text if no path is given."""
        text: str | None = self.to_frame().to_csv(path)
        return text

    def to_dict(self) -> dict[str, Any]:
        """Everything but the losses, as JSON values; NaN becomes None."""
        frame = self.to_frame()
        return {
            "best": self.best,
            "ties": list(self.ties),
            "helps": self.helps,
            "proven_gain": _json_value(self.proven_gain),
            "combine": self.combine,
            "summary": self.summary(),
            "target": self.target,
            "unit": self.target_unit,
            "task": "classification" if self.classification else "regression",
            "n_rows": self.n_rows,
            "n_merged": self.n_merged,
            "head": self.head,
            "control_errors": dict(self.control_errors),
            "ranking": [
                {key: _json_value(value) for key, value in row.items()}
                for row in frame.reset_index().to_dict(orient="records")
            ],
            "errors": dict(self.errors),
            "unscored": dict(self.unscored),
            "skipped": [{**asdict(row), "label": str(row.label)} for row in self.skipped],
            "imputed": {element: list(what) for element, what in self.imputed.items()},
            "settings": dict(self.settings),
        }

    def to_json(self, path: str | Path | None = None) -> str | None:
        """Write :meth:`to_dict` as JSON, or return the text if no path is given."""
        text = json.dumps(self.to_dict(), indent=1, ensure_ascii=False, allow_nan=False, default=str)
        if path is None:
            return text
        Path(path).write_text(text + "\n", encoding="utf-8")
        return None

    def plot(self, ax: Axes | None = None) -> Axes:
        """Draw the gains with their intervals; see :func:`scotl_matgl.plotting.plot_gains`. Needs matplotlib."""
        from scotl_matgl.plotting import plot_gains

        return plot_gains(self, ax)

    def summary(self) -> str:
        """Answer in a sentence or two: which source, how much better, how sure, or none."""
        unit = "" if self.classification or not self.target_unit else f" {self.target_unit}"
        measure = "error rate" if self.classification else "mean absolute error"
        control = f"{measure} without transfer {self.error_of_control:.3g}{unit} ({self.head} on descriptors)"
        if not self.results:
            return f"No source could be ranked; {control}."
        if self.error_of_control == 0:
            return f"Do not transfer: there is no error to reduce; {control}."
        first = self.sources[0]
        low, high = (100 * end / self.error_of_control for end in self.gain_interval(first))
        gain = float(self.gain_percents[0])
        n_sources = len(self.results) + len(self.screened)
        if not self.helps:
            return (
                f"Do not transfer: the best source, {first}, changes the error by {-gain:+.1f} % "
                f"(90 % interval {-high:+.1f} to {-low:+.1f} %), which for the best of {n_sources} is "
                f"{'too little' if self.proven_gain > 0 else 'no proven gain'}; {control}."
            )
        tied = f" Not told apart from it: {listing(self.ties)}." if self.ties else ""
        error = float(self.losses[0].mean())
        return (
            f"Transfer from {first}: {measure} {error:.3g}{unit}, {gain:.1f} % less (90 % interval {low:.1f} to "
            f"{high:.1f} %); {control}.{tied}"
        )

    def __str__(self) -> str:
        return self.to_text()

    def to_text(self, width: int | None = None) -> str:
        """Summary, table and remarks as plain text.

        Parameters
        ----------
        width : int, optional
            Columns of text, at least 80; table columns that do not fit are left out, the least important first.
            Default: the width of the terminal, or 120 where there is none.
        """
        width = max(_NARROWEST, shutil.get_terminal_size((120, 24)).columns if width is None else width)
        # Names and commands must stay in one piece, to be copied.
        wrapper = textwrap.TextWrapper(width, break_on_hyphens=False, break_long_words=False)
        lines = [wrapper.fill(self.summary()), "", *_text_table(self, width), ""]
        wrapper.initial_indent, wrapper.subsequent_indent = "* ", "  "
        return "\n".join([*lines, *(wrapper.fill(remark) for remark in self._remarks())])

    def _remarks(self) -> list[str]:
        """What else a reader should know, a sentence each."""
        rows = f"{self.n_rows} formulas"
        if len(self.control) < self.n_rows:
            rows += f"; error and gain on {len(self.control)} of them, drawn at random"
        remarks = [rows]
        if self.combine == "embedding":
            remarks.append(
                "for training on the embedding alone: the order is the mean rank of several scores, error and gain are "
                "out of bag, of a random forest"
            )
        if self.screened:
            remarks.append(
                f"error and gain of the {len(self.results)} sources that quick scores put first; {len(self.screened)} "
                f"others have their scores in .to_frame() and .to_csv(): "
                f"{listing([result.source for result in self.screened])}"
            )
        if self.skipped:
            shown = "; ".join(f"row {row.row} ({row.value}): {row.reason}" for row in self.skipped[:3])
            more = f"; and {len(self.skipped) - 3} more, all in .skipped" if len(self.skipped) > 3 else ""
            remarks.append(f"rows skipped: {len(self.skipped)}: {shown}{more}")
        if self.n_merged:
            remarks.append(f"rows merged with another of the same composition: {self.n_merged}")
        if self.errors:
            first, reason = next(iter(self.errors.items()))
            others = f"; and, for reasons in .errors, {listing(tuple(self.errors)[1:])}" if len(self.errors) > 1 else ""
            remarks.append(f"sources not ranked: {len(self.errors)}: {first}: {reason}{others}")
        if self.unscored:
            scores = "; ".join(f"{name} ({reason})" for name, reason in self.unscored.items())
            remarks.append(f"scores left out: {scores}")
        if self.imputed:
            known = listing(tuple(self.imputed))
            remarks.append(f"elements of which some tabulated property is unknown and was imputed: {known}")
        return remarks

    def _repr_html_(self) -> str:
        table = self.to_frame().to_html(float_format=lambda value: f"{value:.4g}")
        remarks = "".join(f"<li>{html.escape(remark)}</li>" for remark in self._remarks())
        return f"<p>{html.escape(self.summary())}</p>{table}<ul>{remarks}</ul>"


def _json_value(value: Any) -> Any:
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value.item() if isinstance(value, np.generic) else value


def _shortened(text: str, most: int = 32) -> str:
    return text if len(text) <= most else f"{text[: most - 1].rstrip()}…"


def _decimals(value: float, digits: int) -> int:
    """Decimal places that show so many significant digits of a value."""
    if not math.isfinite(value) or value == 0:
        return digits - 1
    return max(0, digits - 1 - math.floor(math.log10(abs(value))))


def _text_table(ranking: Ranking, width: int) -> list[str]:
    """Lines of a plain-text table: one a source that was measured, the control where it belongs."""
    frame = ranking.to_frame()
    frame = frame[frame["error"].notna()]
    control = (frame["source"] == NO_TRANSFER).to_numpy()
    places = _decimals(ranking.error_of_control, 4)
    loo_places = _decimals(float(frame["loo_rmse"].min()), 4) if "loo_rmse" in frame else 0
    gain_places = _decimals(float(frame.loc[~control, "gain_se"].min()), 2) if len(frame) > 1 else 0
    trained = [_shortened(text.removesuffix(" [1]")) for text in frame["property"]]

    def column(name: str, form: str) -> list[str]:
        if name not in frame:
            return [""] * len(frame)
        return ["" if math.isnan(value) else format(value, form) for value in frame[name]]

    total = frame["looked_up"] + frame["bridged"] + frame["refused"]
    known = [f"{a / b:.0%}" if b else "" for a, b in zip(frame["looked_up"], total, strict=True)]
    gain = [
        "" if empty else f"{a} ± {b}"
        for empty, a, b in zip(
            control, column("gain", f"+.{gain_places}f"), column("gain_se", f".{gain_places}f"), strict=True
        )
    ]
    percent = ["" if empty else value for empty, value in zip(control, column("gain_percent", "+.1f"), strict=True)]
    columns: dict[str, list[str]] = {
        "": [str(rank) for rank in frame.index],
        "source": list(frame["source"]),
        "trained on": trained,
        "error rate" if ranking.classification else "error": column("error", f".{places}f"),
        "gain ± s.e.": gain,
        "gain %": percent,
        "P(best)": column("p_best", ".2f"),
        "LOO": column("loo_rmse", f".{loo_places}f"),
        "looked up": known,
    }
    if not frame["looked_up"].any():
        del columns["looked up"]
    if not any(columns["LOO"]):
        del columns["LOO"]

    def widths() -> list[int]:
        return [max(len(heading), *map(len, cells)) for heading, cells in columns.items()]

    for spare in ("looked up", "LOO", "trained on", "gain %", "P(best)"):
        if sum(widths()) + 2 * (len(columns) - 1) <= width:
            break
        columns.pop(spare, None)

    def line(cells: Sequence[str]) -> str:
        padded = [
            cell.ljust(size) if heading in ("source", "trained on") else cell.rjust(size)
            for heading, cell, size in zip(columns, cells, widths(), strict=True)
        ]
        return "  ".join(padded).rstrip()

    rule = "-" * (sum(widths()) + 2 * (len(columns) - 1))
    return [line(list(columns)), rule, *(line(cells) for cells in zip(*columns.values(), strict=True))]
