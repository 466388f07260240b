"""The judgement of measured sources: laws, bootstrap bias correction against truth, the posterior against integrals."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from scipy import stats
from scipy.integrate import cumulative_trapezoid, trapezoid

from scotl_matgl.ranking import judge as module
from scotl_matgl.ranking.judge import Judgement, criterion, judge
from scotl_matgl.vocabulary import TOGETHER

# What is known of the gain of a first source before a table is seen.
PRIOR = (module._LITTLE_ONE, module._ANYTHING)


class Table:
    """A property, the predictions of a control and of sources, beside the descriptors and alone, all made up."""

    def __init__(self, seed: int, spreads: Any, *, m: int = 120, control: float = 1.0, alone: Any = None) -> None:
        rng = np.random.default_rng(seed)
        spreads = np.asarray(spreads, dtype=np.float64)
        self.y = 3.0 * rng.normal(size=m)
        self.of_control = self.y + control * rng.normal(size=m)
        self.predictions = (self.y + spreads[:, None] * rng.normal(size=(len(spreads), m)))[:, :, None]
        alone = np.ones(len(spreads)) if alone is None else np.asarray(alone)
        self.alone = np.abs(alone[:, None] * rng.normal(size=(len(spreads), m)))

    def loss(self, predictions: np.ndarray) -> np.ndarray:
        return np.abs(predictions[:, 0] - self.y)

    @property
    def control(self) -> np.ndarray:
        return np.abs(self.of_control - self.y)

    @property
    def concat(self) -> np.ndarray:
        return np.array([self.loss(found) for found in self.predictions]).reshape(len(self.predictions), len(self.y))

    def judge(self, sources: Any = slice(None), **options: Any) -> Judgement:
        constant = np.abs(self.y - np.median(self.y))
        return judge(
            self.control, self.concat[sources], self.alone[sources], self.predictions[sources], self.loss, constant,
            **options,
        )  # fmt: skip


# -- laws -------------------------------------------------------------------------------------------------------------


def test_sources_in_another_order_are_judged_the_same() -> None:
    table = Table(0, np.linspace(0.7, 1.2, 9))
    first, order = table.judge(), np.random.default_rng(1).permutation(9)
    other = table.judge(order)
    np.testing.assert_array_equal(order[other.order], first.order)
    np.testing.assert_array_equal(other.criterion, first.criterion[order])
    np.testing.assert_array_equal(other.probability_first, first.probability_first[order])
    assert other.gains == first.gains
    assert other.together.gain == pytest.approx(first.together.gain, rel=1e-9)
    assert other.together_error == pytest.approx(first.together_error, rel=1e-12)


@pytest.mark.parametrize("factor", [2.0**-40, 2.0**30])
def test_another_unit_scales_errors_and_nothing_else(factor) -> None:
    table = Table(2, np.linspace(0.7, 1.2, 7))
    first = table.judge()
    constant = factor * np.abs(table.y - np.median(table.y))
    scaled = judge(
        factor * table.control, factor * table.concat, factor * table.alone, factor * table.predictions,
        lambda predictions: factor * table.loss(predictions / factor), constant,
    )  # fmt: skip
    np.testing.assert_array_equal(scaled.order, first.order)
    assert (scaled.gains, scaled.together) == (first.gains, first.together)
    assert scaled.together_error == factor * first.together_error


def test_the_same_seed_gives_the_same_and_another_seed_nearly() -> None:
    table = Table(3, np.linspace(0.7, 1.2, 7))
    first, second, other = (table.judge(random_state=seed) for seed in (0, 0, 1))
    assert first.gains == second.gains
    assert first.gains != other.gains
    np.testing.assert_array_equal(first.order, other.order)  # which needs no resamples
    assert other.gains[0].measured == pytest.approx(first.gains[0].measured, abs=0.02)


def test_order_is_that_of_both_errors_and_equal_sources_keep_theirs() -> None:
    table = Table(4, [0.8, 0.9, 1.0, 1.1], alone=[2.0, 0.1, 1.0, 3.0])
    scale = table.control.mean()
    for given, weight in ((None, 2 / np.sqrt(len(table.y))), (0.0, 0.0), (1.0, 1.0)):
        found = table.judge(alone_weight=given)
        expected = np.log(table.concat.mean(axis=1) / scale) + weight * np.log(table.alone.mean(axis=1) / scale)
        np.testing.assert_allclose(found.criterion, expected, rtol=1e-12)
        np.testing.assert_array_equal(found.order, np.argsort(expected))
    # Rounding decides nothing: two that are the same but for the last digits stay in the order given.
    twins = Table(4, [1.0, 1.0])
    twins.predictions[1] = twins.predictions[0] * (1 - 1e-15)
    twins.alone[1] = twins.alone[0]
    for sources in ([0, 1], [1, 0]):
        np.testing.assert_array_equal(twins.judge(sources).order, [0, 1])
        np.testing.assert_array_equal(twins.judge(sources).probability_first, [1.0, 0.0])


def test_probability_of_coming_first_is_a_share_of_the_resamples() -> None:
    found = Table(5, [0.8, 0.82, 0.84, 3.0]).judge()
    assert found.probability_first.sum() == pytest.approx(1.0)
    assert found.probability_first[3] == 0.0
    assert 0.0 < found.probability_first[1] < 1.0
    assert Table(5, [0.2, 3.0]).judge().probability_first.tolist() == [1.0, 0.0]


# -- edges ------------------------------------------------------------------------------------------------------------


def test_no_sources_no_error_or_next_to_no_rows_say_no() -> None:
    nothing = Table(6, [])
    perfect = Table(6, [0.5, 0.6], control=0.0)
    short = Table(6, [0.1], m=2)
    for table in (nothing, perfect, short):
        found = table.judge()
        assert len(found.order) == len(found.gains) == len(found.criterion) == len(table.predictions)
        for gain in (*found.gains, found.together, found.answer):
            assert (gain.gain, gain.interval, gain.probability, gain.verdict) == (0.0, (0.0, 0.0), 0.0, "no")


def test_of_one_source_there_is_no_choice_to_correct_for() -> None:
    table = Table(7, [0.8])
    found = table.judge()
    # Every row is left out of some of the resamples, so each counts once.
    assert found.gains[0].measured == pytest.approx(1 - table.concat.mean() / table.control.mean(), rel=1e-12)
    ratio = (1 - found.gains[0].measured) * table.control - table.concat[0]
    assert found.gains[0].error == pytest.approx(stats.sem(ratio) / table.control.mean(), rel=1e-9)
    assert found.together.measured == pytest.approx(found.gains[0].measured, rel=1e-12)
    assert found.together_error == pytest.approx(table.concat.mean(), rel=1e-12)
    assert (found.order.tolist(), found.probability_first.tolist()) == ([0], [1.0])


# -- the first five together ------------------------------------------------------------------------------------------


def test_together_means_that_predictions_are_averaged() -> None:
    table = Table(8, np.full(TOGETHER, 0.9))
    found = table.judge()
    loss = table.loss(table.predictions.mean(axis=0))
    # All five belong to every team, so that there is no choice in it.
    assert found.together.measured == pytest.approx(1 - loss.mean() / table.control.mean(), rel=1e-9)
    assert found.together_error == pytest.approx(loss.mean(), rel=1e-12)
    # Independent errors cancel out: the five have much less than the best of them.
    assert found.answer is found.together
    assert found.together.gain > found.gains[0].gain


def test_of_many_the_first_five_are_averaged() -> None:
    table = Table(9, np.linspace(0.6, 1.4, 12))
    found = table.judge()
    first = table.predictions[found.order[:TOGETHER]].mean(axis=0)
    assert found.together_error == pytest.approx(table.loss(first).mean(), rel=1e-12)


def test_one_good_source_is_better_alone_than_with_four_poor_ones() -> None:
    found = Table(10, [0.1, *[2.0] * 4]).judge()
    assert found.together.gain < found.gains[0].gain
    assert found.answer is found.gains[0]


def test_probabilities_of_classes_are_averaged_before_the_label_is_read() -> None:
    rng = np.random.default_rng(0)
    y = rng.integers(0, 2, size=90)
    sides = np.clip(np.where(y, 0.65, 0.35) + 0.3 * rng.normal(size=(5, 90)), 0, 1)
    predictions = np.stack([1 - sides, sides], axis=2)

    def loss(found: np.ndarray) -> np.ndarray:
        return (found.argmax(axis=1) != y).astype(float)

    concat = np.array([loss(found) for found in predictions])
    control = (rng.uniform(size=90) < 0.4).astype(float)
    found = judge(control, concat, concat, predictions, loss, np.full(90, 0.5))
    assert found.together_error == loss(np.stack([1 - sides.mean(axis=0), sides.mean(axis=0)], axis=1)).mean()
    assert found.together_error < concat.mean(axis=1).min()


# -- gains without selection bias -------------------------------------------------------------------------------------


@pytest.mark.slow
def test_gains_are_read_on_the_rows_that_the_choice_has_not_seen() -> None:
    table = Table(11, np.linspace(0.85, 1.05, 8), m=60)
    found = table.judge()
    rng, scale = np.random.default_rng(99), table.control.mean()
    first, together, seen = np.zeros(60), np.zeros(60), np.zeros(60)
    for _ in range(4000):
        rows = rng.choice(60, size=60)
        out = np.setdiff1d(np.arange(60), rows)
        drawn = table.concat[:, rows].mean(axis=1), table.alone[:, rows].mean(axis=1)
        order = np.argsort(criterion(*drawn, len(rows)))
        first[out] += table.concat[order[0], out]
        together[out] += table.loss(table.predictions[order[:TOGETHER]].mean(axis=0))[out]
        seen[out] += 1
    # Resamples of its own: the two differ by the noise that their number leaves.
    assert found.gains[0].measured == pytest.approx(1 - (first / seen).mean() / scale, abs=0.01)
    assert found.together.measured == pytest.approx(1 - (together / seen).mean() / scale, abs=0.01)


@pytest.mark.slow
def test_the_best_of_many_that_know_nothing_gains_nothing() -> None:
    naive, stated, sure, likely = [], [], 0, 0
    for seed in range(60):
        rng = np.random.default_rng(seed)
        y, control = 3 * rng.normal(size=100), rng.gamma(2.0, 0.5, 100)
        losses = control + rng.normal(0, 0.4, (16, 100))  # none is better: what differs is chance
        predictions = (y + losses)[:, :, None]
        found = judge(
            control, losses, np.ones((16, 100)), predictions, lambda p, y=y: p[:, 0] - y, np.abs(y - np.median(y))
        )
        naive.append(1 - losses.mean(axis=1).min() / control.mean())
        stated.append(found.gains[0].measured)
        sure += found.gains[0].verdict == "yes"
        likely += found.gains[0].verdict == "likely"
    assert np.mean(naive) > 0.05
    assert abs(np.mean(stated)) < 3 * stats.sem(stated) < 0.02
    assert sure <= 3


@pytest.mark.slow
def test_what_is_stated_of_a_choice_among_good_ones_is_what_it_realises() -> None:
    """Losses on new rows are known here: those of the source picked are what its gain is judged by."""
    naive, stated, realised = [], [], []
    for seed in range(60):
        rng = np.random.default_rng(1000 + seed)
        true = rng.normal(0.1, 0.05, size=16)  # gains of the sources, as shares of the control
        y, control = 3 * rng.normal(size=100), rng.gamma(2.0, 0.5, 100)
        losses = control * (1 - true[:, None]) + rng.normal(0, 0.4, (16, 100))
        predictions = (y + losses)[:, :, None]
        found = judge(
            control, losses, np.ones((16, 100)), predictions, lambda p, y=y: p[:, 0] - y, np.abs(y - np.median(y))
        )
        naive.append(1 - losses.mean(axis=1).min() / control.mean())
        stated.append(found.gains[0].measured)
        realised.append(true[found.order[0]])
    too_much = np.mean(naive) - np.mean(realised)
    assert too_much > 0.02
    assert abs(np.mean(stated) - np.mean(realised)) < 0.4 * too_much


# -- the verdict ------------------------------------------------------------------------------------------------------


def one_source(rng: np.random.Generator, gain: float, m: int = 150) -> Judgement:
    """Judge a source whose errors are those of the control, less the gain, with noise of their own."""
    y, control = 3 * rng.normal(size=m), rng.gamma(2.0, 0.5, m)
    losses = control * (1 - gain) * rng.lognormal(-0.08, 0.4, m)
    constant = np.abs(y - np.median(y))
    return judge(control, losses[None], losses[None], (y + losses)[None, :, None], lambda p: p[:, 0] - y, constant)


def test_a_clear_gain_is_a_yes_and_its_interval_covers_it() -> None:
    covered = 0
    for seed in range(40):
        gain = one_source(np.random.default_rng(seed), 0.25).gains[0]
        assert gain.verdict == "yes"
        assert gain.interval[0] < gain.gain < gain.interval[1]
        covered += gain.interval[0] < 0.25 < gain.interval[1]
    assert covered >= 34


def test_the_standard_error_over_rows_is_inflated_to_that_of_folds_whose_training_sets_overlap() -> None:
    # Nadeau and Bengio's variance from the five fold means themselves, against that from the rows.
    rows = np.random.default_rng(0).normal(size=(4000, 100))
    between = rows.reshape(4000, 5, 20).mean(axis=2).var(axis=1, ddof=1)
    corrected = (1 / 5 + 20 / 80) * between
    of_rows = rows.var(axis=1, ddof=1) / 100
    assert corrected.mean() / of_rows.mean() == pytest.approx(module._INFLATION**2, rel=0.03)


@pytest.mark.slow
def test_intervals_cover_gains_that_are_drawn_as_the_prior_says() -> None:
    rng = np.random.default_rng(0)
    covered = []
    for _ in range(150):
        _, centre, spread = PRIOR[rng.choice(len(PRIOR), p=[part[0] for part in PRIOR])]
        true = rng.normal(centre, spread)
        low, high = one_source(rng, true).gains[0].interval
        covered.append(low < true < high)
    # No table is drawn anew here, which the interval allows for: it may cover more than 90 %, but not less.
    assert np.mean(covered) >= 0.86


def test_sources_that_are_worse_are_a_no() -> None:
    for seed in range(10):
        found = Table(seed, [2.0, 2.5, 3.0, 6.0, 6.0]).judge()
        assert {gain.verdict for gain in found.gains} == {"no"}
        assert all(gain.interval[1] < 0.2 for gain in found.gains)


def test_what_is_no_better_than_a_constant_does_not_help_even_if_the_control_is_worse() -> None:
    rng = np.random.default_rng(0)
    y = rng.normal(size=100)
    constant = np.abs(y - np.median(y))
    control = constant + rng.uniform(0.5, 1.0, size=100)

    def verdict(losses: np.ndarray) -> tuple[float, str]:
        found = judge(control, losses[None], losses[None], losses[None, :, None], lambda p: p[:, 0], constant)
        return found.gains[0].probability, found.gains[0].verdict

    assert verdict(constant + 0.2 * rng.normal(size=100) ** 2)[1] == "no"
    assert verdict(0.5 * constant)[1] == "yes"


def test_verdict_follows_the_probability_and_the_probability_the_evidence() -> None:
    probabilities = []
    for factor in (1.3, 1.1, 1.0, 0.97, 0.9, 0.8, 0.5):
        table = Table(12, [1.0])
        table.predictions[0, :, 0] = table.y + factor * (table.of_control - table.y)
        gain = table.judge().gains[0]
        assert gain.measured == pytest.approx(1 - factor, abs=1e-9)
        probabilities.append(gain.probability)
        assert gain.verdict == ("yes" if gain.probability >= 0.95 else "likely" if gain.probability >= 0.5 else "no")
    assert np.all(np.diff(probabilities) >= 0)
    assert probabilities[0] < 0.5 < 0.95 < probabilities[-1]


# -- the posterior ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("measured", [-0.3, -0.02, 0.0, 0.04, 0.12, 0.6])
@pytest.mark.parametrize("deviation", [0.005, 0.04, 0.2])
def test_posterior_is_that_of_bayes_by_integration(measured, deviation) -> None:
    grid = np.linspace(-2.0, 2.0, 400_001)
    density = stats.norm.pdf(measured, grid, deviation) * sum(
        share * stats.norm.pdf(grid, centre, spread) for share, centre, spread in PRIOR
    )
    density /= trapezoid(density, grid)
    below = cumulative_trapezoid(density, grid, initial=0.0)
    above, mean, (low, high) = module._posterior(measured, deviation, PRIOR)
    assert above == pytest.approx(1 - np.interp(0.0, grid, below), abs=1e-6)
    assert mean == pytest.approx(trapezoid(grid * density, grid), abs=1e-6)
    assert (np.interp(low, grid, below), np.interp(high, grid, below)) == pytest.approx((0.05, 0.95), abs=1e-5)


def test_prior_is_a_distribution_and_counts_less_the_more_is_measured() -> None:
    assert sum(share for share, _, _ in PRIOR) == pytest.approx(1.0)
    for measured in (-0.1, 0.3):
        away = [
            abs(module._posterior(measured, deviation, PRIOR)[1] - measured) for deviation in (1e-4, 0.01, 0.1, 1.0)
        ]
        assert away[0] < 1e-3
        assert np.all(np.diff(away) > 0)
