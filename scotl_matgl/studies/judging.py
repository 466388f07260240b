"""How good rankings are: what they say, against what transfer gave on rows that they have not seen."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike

from scotl_matgl.ranking.judge import verdict_of
from scotl_matgl.studies.measuring import KEY, MEASURED
from scotl_matgl.vocabulary import NO_TRANSFER, Floats

if TYPE_CHECKING:
    import pandas as pd

#: Order of a ranking, among the scores that :func:`orders` compares.
PLACE = "ranking"

# Pairs of sources that a table must have to count in the share that is ordered rightly.
_MIN_PAIRS = 10

# Standard errors to either side that hold 90 % of a normal distribution.
_NINETY = 1.645


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


# -- rankings ---------------------------------------------------------------------------------------------------------


def _units(frame: pd.DataFrame) -> Iterator[tuple[str, str, pd.DataFrame]]:
    """Table, size and rows of each ranking; the folds of a whole table belong together."""
    for (table, size), part in frame.groupby(["table", "size"], sort=False):
        if size == "whole":
            yield str(table), str(size), part
        else:
            for _, draw in part.groupby("draw", sort=False):
                yield str(table), str(size), draw


def _realised(unit: pd.DataFrame) -> pd.DataFrame:
    """Means (sources, groups of rows) of the realised losses, those of all folds side by side, by source."""
    import pandas as pd

    folds = []
    for _, part in unit.groupby("draw", sort=False):
        blocks = np.array([text.split() for text in part["blocks"]], dtype=np.float64)
        folds.append(pd.DataFrame(blocks, index=part["source"]))
    return pd.concat(folds, axis=1).dropna()


def errors_without_transfer(frame: pd.DataFrame) -> dict[str, float]:
    """Mean realised error without transfer, in the unit of the property, by number of rows learned from.

    Parameters
    ----------
    frame : DataFrame
        What :func:`~scotl_matgl.studies.measuring.evaluate` returns, of one table.
    """
    control = frame[frame["source"] == NO_TRANSFER]
    return {str(size): float(part["error"].mean()) for size, part in control.groupby("size", sort=False)}


def judge_rankings(frame: pd.DataFrame) -> pd.DataFrame:
    """Judge what rankings said.

    Parameters
    ----------
    frame : DataFrame
        What :func:`~scotl_matgl.studies.measuring.evaluate` returns, of one table or several.

    Returns
    -------
    DataFrame
        One row for each ranking, and one for all folds of a whole table, of which each alone is too small to judge by:
        the means of what they said, and the errors over all of its rows. ``stated`` and ``realised`` gain of the answer
        (the first source, or the first together where they are stated to gain more) as shares of the error without
        transfer, ``realised error``: standard error of the realised gain over the rows that judge, ``covered``: whether
        the 90 % interval holds the realised gain, ``agrees``: whether it does with the error of the realised gain
        added to its width in quadrature, ``probability``, ``verdict``, ``certain``: whether the realised gain is more
        than two standard errors from 0, and the stated and realised gain of the first source alone.
    """
    import pandas as pd

    rows = []
    for table, size, unit in _units(frame):
        folds = [said for _, fold in unit.groupby("draw", sort=False) if (said := _said(fold)) is not None]
        if not folds:
            continue
        difference = np.concatenate([fold.pop("blocks") for fold in folds])
        draw, answer = folds[0]["draw"], " / ".join(dict.fromkeys(fold["answer"] for fold in folds))
        means = pd.DataFrame(folds).drop(columns=["draw", "answer"]).mean()
        realised = 1.0 - means.pop("error") / means["control"]
        error = float(difference.std(ddof=1) / math.sqrt(len(difference)))
        low, high = means["gain_low"], means["gain_high"]
        # Few rows judge a small table: what they show is itself known to 90 % within so much.
        within = _NINETY * error / means["control"]
        rows.append(
            {
                "table": table,
                "size": size,
                "draw": draw,
                "n_train": means["n_train"],
                "answer": answer,
                "stated": means["gain"],
                "realised": realised,
                "realised error": error / means["control"],
                "covered": bool(low <= realised <= high),
                "agrees": bool(abs(realised - (low + high) / 2) <= math.hypot((high - low) / 2, within)),
                "probability": means["p_helps"],
                "verdict": verdict_of(means["p_helps"]),
                "certain": bool(abs(difference.mean()) > 2 * error),
                "first stated": means["first"],
                "first realised": 1.0 - means["error of first"] / means["control"],
            }
        )
    return pd.DataFrame(rows)


def _said(unit: pd.DataFrame) -> dict[str, Any] | None:
    """What a ranking said of its answer and of the first source, and their realised errors; None if it said nothing."""
    control = unit.set_index("source").loc[NO_TRANSFER]
    first = unit.loc[unit["place"] == 1].iloc[0] if (unit["place"] == 1).any() else None
    if first is None or control["error"] == 0:
        return None
    together = unit[unit["place"].isna() & (unit["source"] != NO_TRANSFER)]
    answer = together.iloc[0] if len(together) and together.iloc[0]["gain"] > first["gain"] else first
    return {
        "draw": answer["draw"],
        "answer": answer["source"],
        **{name: answer[name] for name in ("n_train", "gain", "gain_low", "gain_high", "p_helps", "error")},
        "control": control["error"],
        "first": first["gain"],
        "error of first": first["error"],
        "blocks": _blocks(control) - _blocks(answer),
    }


def _blocks(row: Any) -> Floats:
    return np.array(row["blocks"].split(), dtype=np.float64)


def summarise(judged: pd.DataFrame) -> pd.DataFrame:
    """Figures of merit of rankings, by size.

    Parameters
    ----------
    judged : DataFrame
        What :func:`judge_rankings` returns.

    Returns
    -------
    DataFrame
        One row for each size: ``tables``, ``rankings``; ``stated`` and ``realised`` gain and ``bias`` in percent of the
        error without transfer; ``slope`` of realised on stated gains; ``cover``: share of the 90 % intervals that hold
        the realised gain; ``agree``: the same with the error of the realised gain allowed for; ``ece``: calibration
        error of the probability that transfer helps; ``right``: share of the certain cases in which the direction of
        the verdict is right ("likely" counts as yes), of ``n_certain``; ``yes`` and ``yes_wrong``: rankings that say
        yes, and share of them that are wrong for certain.
    """
    import pandas as pd

    rows = {}
    for size, part in judged.groupby("size", sort=False):
        rows[size] = _figures(part)
    rows["all"] = _figures(judged)
    return pd.DataFrame(rows).T.rename_axis("size")


def _figures(part: pd.DataFrame) -> dict[str, float]:
    stated, realised = part["stated"].to_numpy(), part["realised"].to_numpy()
    helped = realised > 0
    certain = part["certain"].to_numpy(dtype=bool)
    said = (part["verdict"] != "no").to_numpy()
    yes = (part["verdict"] == "yes").to_numpy()
    varied = len(part) > 1 and np.ptp(stated) > 0
    return {
        "tables": part["table"].nunique(),
        "rankings": len(part),
        "stated": 100 * stated.mean(),
        "realised": 100 * realised.mean(),
        "bias": 100 * (stated - realised).mean(),
        "slope": float(np.polyfit(stated, realised, 1)[0]) if varied else math.nan,
        "cover": part["covered"].mean(),
        "agree": part["agrees"].mean(),
        "ece": calibration_error(part["probability"].to_numpy(), helped),
        "n_certain": int(certain.sum()),
        "right": float((said == helped)[certain].mean()) if certain.any() else math.nan,
        "yes": int(yes.sum()),
        "yes_wrong": float((certain & ~helped)[yes].mean()) if yes.any() else math.nan,
    }


def calibration_error(probability: ArrayLike, happened: ArrayLike, bins: int = 10) -> float:
    """Expected calibration error: mean difference of stated probability and observed share, by bins of equal width.

    Source: Naeini, Cooper and Hauskrecht, AAAI 2015.

    Examples
    --------
    >>> calibration_error([0.9, 0.9, 0.9, 0.9], [True, True, True, False])
    0.15
    """
    p, y = np.asarray(probability, dtype=np.float64), np.asarray(happened, dtype=np.float64)
    at = np.minimum((p * bins).astype(int), bins - 1)
    counts = np.bincount(at, minlength=bins)
    gaps = np.bincount(at, weights=p - y, minlength=bins)
    return float(round(np.abs(gaps).sum() / max(counts.sum(), 1), 12))


def reliability(judged: pd.DataFrame, edges: Sequence[float] = (0.0, 0.5, 0.7, 0.8, 0.9, 0.95, 1.0)) -> pd.DataFrame:
    """What was promised and what came of it: the reliability diagram as a table.

    Parameters
    ----------
    judged : DataFrame
        What :func:`judge_rankings` returns.
    edges : sequence of float
        Edges of the bins of the probability that transfer helps.

    Returns
    -------
    DataFrame
        One row for each bin that holds a ranking: ``rankings``, their mean ``probability``, and the share in which
        transfer ``helped``.
    """
    import pandas as pd

    bins = np.minimum(np.searchsorted(edges, judged["probability"], side="right"), len(edges) - 1) - 1
    rows = {}
    for i in np.unique(bins):
        part = judged[bins == i]
        helped = float((part["realised"] > 0).mean())
        row = {"rankings": len(part), "probability": part["probability"].mean(), "helped": helped}
        rows[f"{edges[i]:g} to {edges[i + 1]:g}"] = row
    return pd.DataFrame(rows).T


# -- orders -----------------------------------------------------------------------------------------------------------


def orders(
    frame: pd.DataFrame, *, static: Callable[[str], Mapping[str, float]] | None = None, seed: int = 0
) -> pd.DataFrame:
    """Compare ways to order sources: the ranking, each score, and what needs no measurement.

    Parameters
    ----------
    frame : DataFrame
        What :func:`~scotl_matgl.studies.measuring.evaluate` returns.
    static : callable, optional
        From a table to the score of each source in a fixed list (:func:`static_lists`).
    seed : int, default=0
        Of the order by chance.

    Returns
    -------
    DataFrame
        One row for each size and way: ``pairs``, the share of the certain pairs of sources that it orders rightly, mean
        over tables of at least ten such pairs; ``regret``, the error of its first source over that of the best of all;
        ``gain`` of its first source, in percent.
    """
    import pandas as pd

    rng = np.random.default_rng(seed)
    # The leave-one-out error is the score ``loo`` once more, and smaller is better.
    ignored = {*KEY, *MEASURED, "loo_rmse", "layer"} - {"width", "parameters"}
    names = [name for name in frame.columns if name not in ignored]
    rows = []
    for table, size, unit in _units(frame):
        means = _realised(unit)
        sources = unit[unit["place"].notna()]
        scores = sources.groupby("source")[["place", *names]].mean(numeric_only=True)
        scores = scores.loc[[name for name in scores.index if name in means.index]]
        blocks = means.loc[scores.index].to_numpy()
        errors, width = blocks.mean(axis=1), paired_standard_errors(blocks)
        known = {PLACE: -scores["place"].to_numpy(), "chance": rng.random(len(scores))}
        known |= {name: scores[name].to_numpy() for name in names}
        if static is not None:
            fixed = static(table)
            known["static list"] = np.array([fixed.get(name, math.nan) for name in scores.index])
        control = means.loc[NO_TRANSFER].mean()
        for name, score in known.items():
            right, total = ordered_pairs(score, errors, width)
            lost = regret(score, errors)
            gain = 100 * (1 - lost * errors.min() / control)
            row = {"size": size, "way": name, "table": table, "right": right, "total": total}
            rows.append({**row, "regret": lost, "gain": gain})
    grouped = pd.DataFrame(rows).groupby(["size", "way", "table"], sort=False)
    tables = grouped[["right", "total"]].sum().join(grouped[["regret", "gain"]].mean())
    tables["pairs"] = (tables["right"] / tables["total"]).where(tables["total"] >= _MIN_PAIRS)
    means = tables.groupby(level=["size", "way"], sort=False)[["pairs", "regret", "gain"]].mean()
    return pd.DataFrame(means.reset_index())


def static_lists(frame: pd.DataFrame, families: Mapping[str, str]) -> Callable[[str], Mapping[str, float]]:
    """Fixed lists of sources: the mean gain of each on the tables of other families.

    Parameters
    ----------
    frame : DataFrame
        What :func:`~scotl_matgl.studies.measuring.evaluate` returns, of several tables.
    families : mapping of str to str
        Family of each table; a table without one is its own.
    """
    key = ["table", "size", "draw"]
    control = frame.loc[frame["source"] == NO_TRANSFER, [*key, "error"]].rename(columns={"error": "control_error"})
    sources = frame[frame["place"].notna()].merge(control, on=key)
    sources["loss"] = np.log(sources["error"] / sources["control_error"])
    by_table = sources.groupby(["table", "source"])["loss"].mean().unstack()

    def score(table: str) -> Mapping[str, float]:
        family = families.get(table, table)
        others = [name for name in by_table.index if families.get(name, name) != family]
        return {str(name): float(-value) for name, value in by_table.loc[others].mean().items()}

    return score
