"""How good scores are: order, regret and correlation against what transfer really gave."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import stats

from scotl_matgl.estimators import rank_average
from scotl_matgl.studies.measuring import KEY, MEASURED, RANDOM
from scotl_matgl.vocabulary import NO_TRANSFER, Floats

if TYPE_CHECKING:
    import pandas as pd


#: Scores that are the mean of the ranks of others.
ENSEMBLES: Mapping[str, tuple[str, ...]] = {
    "loo, logme, gp": ("loo", "logme", "gp"),
    "forest, kernel, logme": ("forest", "kernel", "logme"),
    "forest, kernel, loo, logme": ("forest", "kernel", "loo", "logme"),
    "head+X, gp": ("head+X", "gp"),
    "head+X, kernel, logme": ("head+X", "kernel", "logme"),
    "head+X, kernel, gp, logme": ("head+X", "kernel", "gp", "logme"),
}


#: The score that speaks for or against transfer, whatever score picks the source: the out-of-fold error of the head.
GAIN = "head+X"


#: The source that is best on the other tables.
FIXED = "fixed source"


# Half the width of a 90 % interval, in standard errors.
_REACH = float(stats.norm.ppf(0.95))


def paired_standard_errors(blocks: ArrayLike) -> Floats:
    """Standard errors of the differences of mean losses.

    Parameters
    ----------
    blocks : array-like of shape (m, b)
        Mean losses of m sources on the same b groups of held-out rows.

    Returns
    -------
    ndarray of shape (m, m)
        Of source i minus source j, from the b paired differences.
    """
    means = np.asarray(blocks, dtype=np.float64)
    difference = means[:, None, :] - means[None, :, :]
    return np.asarray(difference.std(axis=2, ddof=1) / math.sqrt(means.shape[1]))


def ordered_pairs(scores: ArrayLike, errors: ArrayLike, standard_errors: ArrayLike) -> tuple[float, int]:
    """Count the pairs of sources that differ for certain, and those of them that a score orders rightly.

    Parameters
    ----------
    scores : array-like of shape (m,)
        Higher is better; a tie, or a score that is NaN, counts half.
    errors : array-like of shape (m,)
        Realised errors.
    standard_errors : array-like of shape (m, m)
        Of their differences.

    Returns
    -------
    right : float
        Pairs ordered rightly.
    total : int
        Pairs whose errors differ by more than two standard errors.

    Examples
    --------
    >>> ordered_pairs([3.0, 2.0, 1.0], [1.0, 3.0, 2.0], [[0.1] * 3] * 3)
    (2.0, 3)
    """
    score, error, width = (np.asarray(value, dtype=np.float64) for value in (scores, errors, standard_errors))
    first, second = np.triu_indices(len(error), 1)
    return _agreeing(score[first] - score[second], error[first] - error[second], width[first, second])


def _agreeing(gaps: Floats, differences: Floats, standard_errors: Floats) -> tuple[float, int]:
    """Of pairs with these gaps of the score and differences of the error: those ordered rightly, those certain."""
    certain = np.abs(differences) > 2.0 * standard_errors
    agrees = np.sign(np.nan_to_num(gaps[certain])) * np.sign(-differences[certain])
    return float(np.sum((agrees + 1.0) / 2.0)), int(certain.sum())


def regret(scores: ArrayLike, errors: ArrayLike) -> float:
    """Error of the source with the highest score over the smallest error; the mean over those tied for the highest.

    NaN counts as the lowest score.

    Examples
    --------
    >>> regret([1.0, 2.0, 0.0], [1.0, 1.5, 3.0])
    1.5
    """
    score, error = np.asarray(scores, dtype=np.float64), np.asarray(errors, dtype=np.float64)
    score = np.where(np.isnan(score), -np.inf, score)
    return float(error[score == score.max()].mean() / error.min())


def held_out_regret(scores: ArrayLike, blocks: ArrayLike) -> float:
    """Regret against the best source that half of the held-out rows would name, measured on the other half.

    The smallest of many measured errors is small by chance too, so that plain regret is above one even for a perfect
    score. Here the even groups name the best source and the odd ones measure it and the pick, and the other way round;
    the mean of the two may be below one.

    Parameters
    ----------
    scores : array-like of shape (m,)
        Higher is better.
    blocks : array-like of shape (m, b)
        Mean losses on groups of held-out rows.
    """
    score = np.asarray(scores, dtype=np.float64)
    score = np.where(np.isnan(score), -np.inf, score)
    means = np.asarray(blocks, dtype=np.float64)
    halves = means[:, ::2].mean(axis=1), means[:, 1::2].mean(axis=1)
    picked = score == score.max()
    ratios = [other[picked].mean() / other[one.argmin()] for one, other in (halves, halves[::-1])]
    return float(np.mean(ratios))


def rank_correlations(scores: ArrayLike, errors: ArrayLike) -> dict[str, float]:
    """Spearman, Kendall (τ_b) and weighted Kendall of a score with minus the realised error; 0 for a constant score.

    The values are those of ``scipy.stats``, whose calls cost a hundred times more for a dozen sources than the sums.

    Examples
    --------
    >>> rank_correlations([3.0, 2.0, 1.0], [0.1, 0.2, 0.3])
    {'spearman': 1.0, 'kendall': 1.0, 'weighted_kendall': 1.0}
    """
    score, goodness = np.asarray(scores, dtype=np.float64), -np.asarray(errors, dtype=np.float64)
    known = np.isfinite(score)
    score, goodness = score[known], goodness[known]
    if len(score) < 3 or np.ptp(score) == 0 or np.ptp(goodness) == 0:
        return dict.fromkeys(("spearman", "kendall", "weighted_kendall"), 0.0)
    S, G = (np.sign(values[:, None] - values) for values in (score, goodness))

    def tau(weights: Floats | float) -> float:
        return float((weights * S * G).sum() / math.sqrt((weights * S * S).sum() * (weights * G * G).sum()))

    def weights(first: Floats, second: Floats) -> Floats:
        """Of pairs: the sum of 1/rank, the rank being by `first`, then by `second`, the largest first."""
        importance = np.empty(len(first))
        importance[np.lexsort((second, first))[::-1]] = 1.0 / np.arange(1, len(first) + 1)
        return np.asarray(importance[:, None] + importance)

    # The sum of the signs of a row is twice its rank, but for a constant.
    s, g = S.sum(axis=1), G.sum(axis=1)
    return {
        "spearman": float(s @ g / math.sqrt((s @ s) * (g @ g))),
        "kendall": tau(1.0),
        "weighted_kendall": (tau(weights(score, goodness)) + tau(weights(goodness, score))) / 2,
    }


def judge(frame: pd.DataFrame, *, caution: float = 0.0, pooled: bool = True) -> pd.DataFrame:
    """Compare every score with the realised errors, unit by unit.

    Parameters
    ----------
    frame : pandas.DataFrame
        What :func:`evaluate` returns, of one or more tables; rank ensembles (`ENSEMBLES`), chance and the fixed source
        are added.
    caution : float, default=0
        Standard errors by which the out-of-fold gain of the source that a score picks must exceed 0 before transfer is
        called for.
    pooled : bool, default=True
        Whether the realised error of a source at n is its mean over the random subsets, or that of the very subset
        that the score saw, luck of rows and seeds included.

    Returns
    -------
    pandas.DataFrame
        One row for each (table, n, repeat, protocol, score): rank correlations, ``right`` of ``pairs`` certain pairs,
        ``regret`` and ``held_out_regret``, ``right_random`` of ``pairs_random`` certain pairs of a source and the
        random embedding. Under D a ranking picks the source of the highest score and then calls for transfer if the
        head's out-of-fold error, `GAIN`, is smaller with it than without: ``transfers`` says whether it does,
        ``called`` is 1 if that was right, 0 if wrong, NaN if the realised errors of pick and control do not differ for
        certain, and ``helps`` is 1 where the pick is better for certain, 0 where the control is. ``covered`` is the
        share of sources whose realised gain lies within the 90 % interval of the gain that the score expects.
    """
    import pandas as pd

    frame = frame.assign(**{FIXED: _fixed(frame)})
    judged = []
    for key, group in frame.groupby(["table", "n", "full", "protocol"]):
        frames = {repeat: unit.set_index("source") for repeat, unit in group.groupby("repeat")}
        # A run that was interrupted, or that had fewer sources, leaves repeats in which some are missing.
        sources = sorted(set.union(*(set(unit.index) for unit in frames.values())))
        units = {repeat: _Unit.of(unit.loc[sources]) for repeat, unit in frames.items() if len(unit) == len(sources)}
        if not units:
            raise ValueError(
                f"{key[0]}, n = {key[1]}, protocol {key[3]}: no repeat holds all {len(sources)} sources of the others; "
                "let the evaluation run to its end"
            )
        together = _Truth.of(list(units.values()))
        known = dict(zip(("table", "n", "full", "protocol"), key, strict=True))
        for repeat, unit in units.items():
            truth = together if pooled else _Truth.of([unit])
            for name, score in unit.scores.items():
                figures = _judge_score(unit, truth, name, score, decides=key[3] == "D", caution=caution)
                judged.append(known | {"repeat": repeat, "score": name} | figures)
    return pd.DataFrame(judged)


@dataclass(frozen=True, eq=False)
class _Unit:
    """Measurements of m sources on one subset, as arrays: pandas would take a hundred times longer to judge them."""

    real: NDArray[np.intp]  # places of the sources that are neither the control nor noise
    control: int | None
    noise: int | None
    error: Floats
    blocks: Floats
    scores: Mapping[str, Floats]
    spreads: Mapping[str, Floats]  # standard errors of the gains that some scores expect

    @classmethod
    def of(cls, unit: pd.DataFrame) -> _Unit:
        """From the rows of one unit, whose index is the source."""
        sources = list(unit.index)
        real = np.array([i for i, source in enumerate(sources) if source not in (NO_TRANSFER, RANDOM)], dtype=np.intp)
        control = sources.index(NO_TRANSFER) if NO_TRANSFER in sources else None
        noise = sources.index(RANDOM) if RANDOM in sources else None
        names = [str(name) for name in unit.columns if name not in {*KEY, *MEASURED}]
        columns = dict(zip(names, unit[names].to_numpy(dtype=np.float64).T, strict=True))
        spreads = {name.removesuffix(" se"): columns.pop(name) for name in names if name.endswith(" se")}
        return cls(
            real=real,
            control=control,
            noise=noise,
            error=unit["error"].to_numpy(dtype=np.float64),
            blocks=np.array([np.fromstring(text, sep=" ") for text in unit["blocks"]]),
            scores=_with_ensembles(columns, real, control, noise),
            spreads=spreads,
        )


def _with_ensembles(
    columns: Mapping[str, Floats], real: NDArray[np.intp], control: int | None, noise: int | None
) -> dict[str, Floats]:
    """Scores of one unit by name, with chance and the rank ensembles, but those that are NaN for every source."""
    m = len(real) + (control is not None) + (noise is not None)
    chance = np.zeros(m)
    if control is not None:
        chance[control] = np.nan
    scores = dict(columns) | {"chance": chance}
    ranked = np.array([i for i in range(m) if i != noise])
    for name, members in ENSEMBLES.items():
        if all(member in scores for member in members):
            table = np.column_stack([scores[member][ranked] for member in members])
            if not np.isnan(table).all(axis=0).any():
                scores[name] = np.full(m, np.nan)
                scores[name][ranked] = rank_average(table)
    return {name: score for name, score in scores.items() if not np.isnan(score[real]).all()}


@dataclass(frozen=True, eq=False)
class _Truth:
    """Realised errors (m,) of sources, standard errors (m, m) of their differences, and mean losses of groups."""

    error: Floats
    width: Floats
    blocks: Floats

    @classmethod
    def of(cls, units: Sequence[_Unit]) -> _Truth:
        """Mean over random subsets; its standard error is that of the test rows or of the subsets, the larger one."""
        errors = np.array([unit.error for unit in units])
        within = np.array([paired_standard_errors(unit.blocks) for unit in units])
        width = np.sqrt(np.sum(within**2, axis=0)) / len(units)
        if len(units) > 1:
            width = np.maximum(width, paired_standard_errors(errors.T))
        return cls(errors.mean(axis=0), width, np.hstack([unit.blocks for unit in units]))


def _fixed(frame: pd.DataFrame) -> Floats:
    """Minus the mean, over the other tables, of the log error of a source relative to the mean of all sources."""
    import pandas as pd

    unit = ["table", "n", "full", "repeat", "protocol"]
    real = ~frame["source"].isin([NO_TRANSFER, RANDOM])
    logarithm = np.log(np.maximum(frame["error"].to_numpy(dtype=np.float64), 1e-300))
    relative = frame[unit].assign(source=frame["source"], value=logarithm)[real]
    relative["value"] -= relative.groupby(unit)["value"].transform("mean")
    # Full size is one size, whatever the number of rows.
    relative["size"] = relative["n"].where(~relative["full"].astype(bool), -1)
    by_table = relative.groupby(["protocol", "size", "source", "table"])["value"].mean()
    total, count = (by_table.groupby(level=[0, 1, 2]).agg(what) for what in ("sum", "count"))
    others = (total - by_table) / (count - 1).where(count > 1)
    keys = relative[["protocol", "size", "source", "table"]]
    values = np.full(len(frame), np.nan)
    values[real.to_numpy()] = -others.reindex(pd.MultiIndex.from_frame(keys)).to_numpy()
    return values


def _judge_score(
    unit: _Unit, truth: _Truth, name: str, score: Floats, *, decides: bool, caution: float
) -> dict[str, float]:
    """Figures for one score in one unit; `decides` says whether it is asked for a call (protocol D)."""
    real, control, noise = unit.real, unit.control, unit.noise
    error, width = truth.error, truth.width
    candidates, decided = real, score[real]
    figures: dict[str, float] = {}
    if decides and control is not None:
        best = real[np.nanargmax(score[real])]
        expected = unit.scores[GAIN][best] - unit.scores[GAIN][control]
        transfers = bool(expected > caution * unit.spreads[GAIN][best])
        candidates = np.append(real, control)
        decided = np.append(decided, -np.inf if transfers else np.inf)
        gain = error[control] - error[best]
        certain = abs(gain) > 2.0 * width[control, best]
        figures["transfers"] = float(transfers)
        figures["called"] = float((gain > 0) == transfers) if certain else math.nan
        figures["helps"] = float(gain > 0) if certain else math.nan
        if name in unit.spreads:
            spread = np.hypot(unit.spreads[name][real], width[real, control])
            deviation = np.abs((score[real] - score[control]) - (error[control] - error[real]))
            figures["covered"] = float(np.mean(deviation <= _REACH * spread))
    figures["right"], figures["pairs"] = ordered_pairs(score[real], error[real], width[np.ix_(real, real)])
    figures["regret"] = regret(decided, error[candidates])
    figures["held_out_regret"] = held_out_regret(decided, truth.blocks[candidates])
    if noise is not None and not math.isnan(score[noise]):
        figures["right_random"], figures["pairs_random"] = _agreeing(
            score[real] - score[noise], error[real] - error[noise], width[real, noise]
        )
    return figures | rank_correlations(score[real], error[real])


def summarise(frame: pd.DataFrame, *, caution: float = 0.0, pooled: bool = True, by_size: bool = False) -> pd.DataFrame:
    """Mean over tables of what :func:`judge` finds, best score first.

    Parameters
    ----------
    frame : pandas.DataFrame
        What :func:`evaluate` returns, of one or more tables.
    caution, pooled
        See :func:`judge`.
    by_size : bool, default=False
        Whether sizes are kept apart (full size is -1).

    Returns
    -------
    pandas.DataFrame
        One row for each protocol (and size) and score. ``pairs_right`` is the share of certain pairs ordered rightly,
        ``call_right`` that of certain decisions, ``random_right`` that of certain pairs with the random embedding; each
        is computed for every table and then averaged over those that have any. ``pairs``, ``calls`` count them.
        ``regret``, ``held_out_regret`` and the correlations are means over the units of a table, then over tables.
    """
    judged = judge(frame, caution=caution, pooled=pooled)
    judged["size"] = judged["n"].where(~judged["full"].astype(bool), -1)
    keys = ["protocol", *(["size"] if by_size else []), "score"]
    judged["calls"] = judged.get("called", np.nan) * 0 + 1
    means = ["regret", "held_out_regret", "spearman", "kendall", "weighted_kendall", "transfers", "helps", "covered"]
    for name in ("called", "transfers", "helps", "covered", "right_random", "pairs_random"):
        if name not in judged:
            judged[name] = np.nan
    table = judged.groupby([*keys, "table"]).agg(
        **{name: (name, "mean") for name in means},
        **{name: (name, "sum") for name in ("right", "pairs", "right_random", "pairs_random", "called", "calls")},
    )
    for share, part, whole in (
        ("pairs_right", "right", "pairs"),
        ("random_right", "right_random", "pairs_random"),
        ("call_right", "called", "calls"),
    ):
        table[share] = table[part] / table[whole].where(table[whole] > 0)
    grouped = table.groupby(level=keys)
    shares = ["pairs_right", "random_right", "call_right"]
    result = grouped[[*shares, *means]].mean().join(grouped[["pairs", "calls"]].sum())
    result["tables"] = grouped.size()
    order = [*keys[:-1], "pairs_right"]
    result = result.sort_values(order, ascending=[True] * (len(keys) - 1) + [False])
    return result[["pairs_right", "pairs", "call_right", "calls", *means, "random_right", "tables"]]
