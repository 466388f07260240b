"""Judge measured sources: order, gains without selection bias, intervals, probabilities, and one verdict."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from scipy.special import ndtr

from scotl_matgl.vocabulary import TOGETHER, Floats

Verdict = Literal["yes", "likely", "no"]

#: Share, centre and spread of a part of a prior.
Normal = tuple[float, float, float]

# Weight of the error on the embedding alone in the criterion, times the root of the number of rows: it says what a
# source knows where the descriptors hide it, and is needed the less the better the error beside the descriptors is
# known (0.2 at 100 rows; 0.3 at all sizes orders 0.03 fewer of the certain pairs from 400 rows on).
_ALONE = 2.0

# Resamples of the rows: the noise that their number adds to a gain is below a tenth of its standard error.
_RESAMPLES = 400

# The variance of a mean over k folds with S2 between them is S2 (1 / k + n_test / n_train), since their training sets
# overlap (Nadeau & Bengio, Mach. Learn. 52, 239, 2003). With S2 = k se2 and n_test / n_train = 1 / (k - 1) the squared
# standard error over the rows is to be multiplied by 1 + k / (k - 1): 1.5 squared for five folds.
_FOLDS = 5
_INFLATION = float(np.sqrt(1.0 + _FOLDS / (_FOLDS - 1)))

# What else parts a realised gain from a measured one, among it that folds learn from fewer rows than there are:
# 0.4 / sqrt(rows) beside it (4 % of the control's error at 100 rows), measured on the choosing half of the tables.
_TRAINING = 0.4

# What is known of a gain before a table is seen, from the tables of the choosing half: one in two has little to gain,
# 3 +- 4 % of the control's error with one source and 4 +- 4 % with five together, the others anything (15 +- 20 %).
_LITTLE_ONE, _LITTLE_TOGETHER = (0.5, 0.03, 0.04), (0.5, 0.04, 0.04)
_ANYTHING = (0.5, 0.15, 0.20)
_FLAT = ((1.0, 0.0, 1e3),)

_SURE = 0.95
_LIKELY = 0.5
_LEVELS = 0.05, 0.95

# Smallest mean loss that is told from 0, as a share of the control's.
_LEAST = 1e-12

# Criteria that differ by less are equal: rounding must not decide, or the order of classes would.
_DIGITS = 9


@dataclass(frozen=True)
class Gain:
    """What transfer changes, as a share of the control's error; positive where it helps.

    Attributes
    ----------
    measured : float
        Bootstrap bias-corrected gain.
    error : float
        Its standard error over the rows, not inflated.
    gain : float
        Mean of the posterior: the number to state.
    interval : tuple of float
        Its 90 % interval.
    probability : float
        That transfer helps: the gain is above 0, and the model is better than a constant.
    verdict : {"yes", "likely", "no"}
    """

    measured: float
    error: float
    gain: float
    interval: tuple[float, float]
    probability: float
    verdict: Verdict


@dataclass(frozen=True, eq=False)
class Judgement:
    """What is said of sources measured on the same rows.

    Attributes
    ----------
    order : ndarray of shape (s,)
        Sources, best first.
    criterion : ndarray of shape (s,)
        ln e(beside descriptors) + 2 / sqrt(m) ln e(alone), with mean losses e as shares of the control's, by source.
    gains : tuple of Gain
        By place in the order: the first is what the source that comes first gains, whichever that is. The prior is of
        first sources; later places have none.
    together : Gain
        Of the mean prediction of the first five.
    together_error : float
        Out-of-fold error of that prediction, which the choice of the five makes too small.
    probability_first : ndarray of shape (s,)
        Share of the resamples in which each source comes first, by source.
    taken : ndarray of shape (s,)
        Alternative that each source takes, by source; 0 where it has one.
    """

    order: NDArray[np.intp]
    criterion: Floats
    gains: tuple[Gain, ...]
    together: Gain
    together_error: float
    probability_first: Floats
    taken: NDArray[np.intp]

    @property
    def answer(self) -> Gain:
        """What the verdict is about: the first sources together, or the first alone where more is to gain by it.

        Of few sources the first may know the property and the others nothing. Taking the better one states 0.2 points
        more than is realised on top of what the first together do (docs/ranking_quality.md).
        """
        first = self.gains[:1]
        return max((self.together, *first), key=lambda gain: gain.gain)


def judge(
    control: Floats,
    concat: Floats,
    alone: Floats,
    predictions: Floats,
    loss: Callable[[Floats], Floats],
    constant: Floats,
    *,
    alone_weight: float | None = None,
    random_state: int = 0,
) -> Judgement:
    """Order sources and say what they gain.

    Rows are drawn with replacement, the sources ordered on them by the criterion, and the gains of the first source, of
    each later place and of the first five together are read on the rows not drawn: no row has a say in the choice
    that it judges (bootstrap bias-corrected cross-validation). The posterior of a gain comes from a prior of other
    tables and an error that counts the draw of the training set.

    Parameters
    ----------
    control : ndarray of shape (m,)
        Loss of each row out of fold without transfer, mean over the repeated folds.
    concat, alone : ndarray of shape (s, m) or (s, l, m)
        The same with each source, beside the descriptors and alone; or with each of l alternatives of each source, such
        as its layers, of which it takes the best by the criterion: in each resample anew, so that no row has a say in
        that choice either. A source that has fewer repeats one, which changes nothing.
    predictions : ndarray of shape (s, ...) or (s, l, ...)
        Out-of-fold predictions with each source beside the descriptors, of any shape that `loss` takes.
    loss : callable
        From predictions (...) to the loss of each row (m,), mean over the repeated folds.
    constant : ndarray of shape (m,)
        Loss of the best constant: the median, or the shares of the classes.
    alone_weight : float, optional
        Weight of the error on the embedding alone, see :func:`criterion`.
    random_state : int, default=0
        Seed of the resamples.

    Returns
    -------
    Judgement

    Notes
    -----
    Cost O(b s l m) for b = 400 resamples. Source: Tsamardinos, Greasidou & Borboudakis, Mach. Learn. 107, 1895 (2018).
    """
    s, m, scale = len(concat), concat.shape[-1], float(control.mean())
    if not s or scale <= 0 or m < 3:
        nothing = Gain(0.0, 0.0, 0.0, (0.0, 0.0), 0.0, "no")
        none = np.zeros(s, dtype=np.intp)
        return Judgement(np.arange(s), np.zeros(s), (nothing,) * s, nothing, scale, np.zeros(s), none)
    if concat.ndim == 3:
        predictions = predictions.reshape(-1, *predictions.shape[2:])
    concat, alone = concat.reshape(-1, m), alone.reshape(-1, m)  # alternatives of all sources, one after the other
    drawn = np.random.default_rng(random_state).multinomial(m, np.full(m, 1.0 / m), size=_RESAMPLES)
    orders, _ = _order(criterion(drawn @ concat.T / (m * scale), drawn @ alone.T / (m * scale), m, alone_weight), s)
    unseen = drawn == 0
    n_unseen = np.maximum(unseen.sum(axis=0), 1)

    by_place = np.zeros((s, m))
    for order, out in zip(orders, unseen, strict=True):
        by_place += concat[order] * out
    by_place = np.where(unseen.any(axis=0), by_place / n_unseen, control)

    together = np.zeros(m)
    teams, which = np.unique(np.sort(orders[:, :TOGETHER], axis=1), axis=0, return_inverse=True)
    for index, team in enumerate(teams):
        together += unseen[which.ravel() == index].sum(axis=0) * loss(predictions[team].mean(axis=0))
    together = np.where(unseen.any(axis=0), together / n_unseen, control)

    criteria = criterion(concat.mean(axis=1) / scale, alone.mean(axis=1) / scale, m, alone_weight)
    (order,), (best,) = _order(criteria[None], s)
    each = len(concat) // s
    return Judgement(
        order=order // each,
        criterion=criteria[best],
        gains=tuple(
            _gain(control, losses, constant, _FLAT if place else (_LITTLE_ONE, _ANYTHING))
            for place, losses in enumerate(by_place)
        ),
        together=_gain(control, together, constant, (_LITTLE_TOGETHER, _ANYTHING)),
        together_error=float(loss(predictions[order[:TOGETHER]].mean(axis=0)).mean()),
        probability_first=np.bincount(orders[:, 0] // each, minlength=s) / _RESAMPLES,
        taken=best % each,
    )


def criterion(losses: Floats, alone: Floats, m: int, alone_weight: float | None = None) -> Floats:
    """Criterion by which sources are ordered; smaller is better.

    ln e(beside descriptors) + w ln e(alone), with mean losses e on m rows and w = 2 / sqrt(m) unless it is given.

    Parameters
    ----------
    losses, alone : ndarray
        Mean losses, in any one unit, of any one shape.
    m : int
        Rows that they are means of.
    alone_weight : float, optional
        w.
    """
    weight = _ALONE / np.sqrt(m) if alone_weight is None else alone_weight
    found: Floats = np.log(np.maximum(losses, _LEAST)) + weight * np.log(np.maximum(alone, _LEAST))
    return found


def _order(criteria: Floats, s: int) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """The best alternative (b, s) of each of s sources by criterion (b, s * l): sources best first, and as given.

    Equal ones stay in the order given.
    """
    rounded = np.round(criteria, _DIGITS).reshape(len(criteria), s, -1)
    taken = rounded.argmin(axis=2)
    order = np.argsort(np.take_along_axis(rounded, taken[:, :, None], axis=2)[:, :, 0], axis=1, kind="stable")
    best = taken + np.arange(s) * rounded.shape[2]
    return np.take_along_axis(best, order, axis=1), best


def _gain(control: Floats, losses: Floats, constant: Floats, prior: tuple[Normal, ...]) -> Gain:
    """Gain from the losses of each row without and with transfer."""
    m, scale = len(control), float(control.mean())
    measured = 1.0 - float(losses.mean()) / scale
    # Of a ratio of means, to first order.
    error = float(((1.0 - measured) * control - losses).std(ddof=1)) / (scale * np.sqrt(m))
    deviation = float(np.hypot(_INFLATION * error, _TRAINING / np.sqrt(m)))
    above, mean, interval = _posterior(measured, deviation, prior)
    skill = constant - losses
    skill_error = _INFLATION * float(skill.std(ddof=1)) / np.sqrt(m)
    learned = min(1.0, 2.0 * float(ndtr(skill.mean() / skill_error))) if skill_error > 0 else float(skill.mean() > 0)
    probability = above * learned
    return Gain(measured, error, mean, interval, probability, verdict_of(probability))


def verdict_of(probability: float) -> Verdict:
    """The one verdict: "yes" from a probability of 0.95 that transfer helps, "likely" from a half, else "no"."""
    return "yes" if probability >= _SURE else "likely" if probability >= _LIKELY else "no"


def _posterior(
    measured: float, deviation: float, prior: tuple[Normal, ...]
) -> tuple[float, float, tuple[float, float]]:
    """Probability of a gain above 0, mean and 90 % interval, from a prior of normal distributions."""
    share, centre, spread = np.array(prior).T
    total = np.hypot(spread, deviation)
    log_weight = np.log(share / total) - 0.5 * ((measured - centre) / total) ** 2
    weight = np.exp(log_weight - log_weight.max())
    weight /= weight.sum()
    pull = (spread / total) ** 2
    mean = pull * measured + (1.0 - pull) * centre
    sd = spread * deviation / total
    ends = []
    for level in _LEVELS:  # the quantile lies between those of the parts
        low, high = float((mean - 4 * sd).min()), float((mean + 4 * sd).max())
        for _ in range(50):
            middle = (low + high) / 2
            below = float(weight @ ndtr((middle - mean) / sd))
            low, high = (middle, high) if below < level else (low, middle)
        ends.append((low + high) / 2)
    return float(weight @ ndtr(mean / sd)), float(weight @ mean), (ends[0], ends[1])
