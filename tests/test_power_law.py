"""The power law: laws are recovered, intervals hold the truth as often as they say, and sentences are honest."""

from __future__ import annotations

import math

import numpy as np
import pytest

from scotl_matgl.exceptions import InputError
from scotl_matgl.studies.power_law import PowerLaw

SIZES = np.array([20, 35, 61, 106, 184, 320])


def measured(rng, law, *, repeats, own, shared, sizes=SIZES):
    """Errors of a law with relative noise of each fit's own and noise that the sizes of a repeat share."""
    noise = rng.normal(0, shared, (repeats, 1)) + rng.normal(0, own, (repeats, len(sizes)))
    return np.tile(sizes, repeats), (law(sizes) * np.exp(noise)).ravel(), np.repeat(np.arange(repeats), len(sizes))


@pytest.mark.parametrize("exponent", [0.15, 0.5, 1.0])
@pytest.mark.parametrize("floor", [0.0, 0.05])
def test_exact_law_is_recovered(exponent, floor) -> None:
    n = np.array([10, 20, 50, 100, 300, 1000])
    law = PowerLaw.fit(n, 2.0 * n**-exponent + floor)
    assert law.a == pytest.approx(2.0, rel=1e-3)
    assert law.b == pytest.approx(exponent, rel=1e-3)
    assert law.c == pytest.approx(floor, abs=1e-4)
    np.testing.assert_allclose(law.predict([5, 4000]), 2.0 * np.array([5, 4000.0]) ** -exponent + floor, rtol=1e-3)
    assert law.needed(2.0 * 700**-exponent + floor).value == pytest.approx(700, rel=0.01)


def test_slope_without_floor_is_that_of_weighted_regression_of_logarithms() -> None:
    # One repeat, so equal weights: numpy's polynomial fit is the oracle.
    n = np.array([20, 40, 80, 160, 320, 640])
    errors = 3.0 * n**-0.4 * np.exp(np.array([0.02, -0.03, 0.01, 0.02, 0.0, -0.04]))
    law = PowerLaw.fit(n, errors)
    slope, start = np.polyfit(np.log(n), np.log(errors), 1)
    assert law.c == 0.0
    assert law.b == pytest.approx(-slope, rel=1e-9)
    assert law.a == pytest.approx(np.exp(start), rel=1e-9)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("b", "c", "repeats", "own", "shared"),
    [(0.5, 0.0, 5, 0.05, 0.1), (0.3, 0.0, 10, 0.1, 0.05), (0.5, 0.03, 5, 0.05, 0.0), (1.0, 0.1, 5, 0.05, 0.1)],
)
def test_intervals_hold_the_truth_as_often_as_they_say(b, c, repeats, own, shared) -> None:
    scale = 0.1 * 320**b

    def truth(n):
        return scale * np.asarray(n, dtype=float) ** -b + c

    rng = np.random.default_rng(0)
    at = np.array([100.0, 400.0, 800.0])
    trials = 150
    hits = np.zeros(5)
    for _ in range(trials):
        law = PowerLaw.fit(*measured(rng, truth, repeats=repeats, own=own, shared=shared))
        low, high = law.band(at)
        needed, exponent = law.needed(float(truth(800.0))), law.exponent
        hits += [
            *((low <= truth(at)) & (truth(at) <= high)),
            needed.low <= 800 <= needed.high,
            exponent.low <= b <= exponent.high,
        ]
    # Nominal 90 %, to be within 85 to 95 %; three standard errors of 150 trials are another 5 to 7 %.
    assert np.all(hits / trials > 0.80)
    assert np.mean(hits / trials) < 0.97
    assert np.mean(hits / trials) > 0.85


@pytest.mark.slow
def test_floor_is_kept_where_seen_and_only_there() -> None:
    rng = np.random.default_rng(1)

    def share_with_floor(b, c):
        laws = [PowerLaw.fit(*measured(rng, lambda n: n**-b + c, repeats=5, own=0.03, shared=0.1)) for _ in range(100)]
        return np.mean([law.c > 0 for law in laws])

    # One-sided at 5 %: a floor that is not there appears that often.
    assert share_with_floor(0.5, 0.0) < 0.13
    assert share_with_floor(1.0, 0.05) == 1.0


def test_what_the_sizes_of_a_repeat_share_moves_the_level_and_not_the_exponent() -> None:
    rng = np.random.default_rng(2)
    n, errors, repeats = measured(rng, lambda n: 2 * n**-0.4, repeats=5, own=0.01, shared=0.3)
    paired = PowerLaw.fit(n, errors, repeats)
    # The same numbers without knowing which belong together.
    mixed = np.concatenate([rng.permutation(repeats[n == size]) for size in SIZES])
    order = np.argsort(n, kind="stable")
    unpaired = PowerLaw.fit(n[order], errors[order], mixed)
    assert unpaired.exponent.high - unpaired.exponent.low > 4 * (paired.exponent.high - paired.exponent.low)
    assert paired.at(320).high / paired.at(320).low > 1.4


def test_repeats_that_use_rows_again_do_not_narrow_the_intervals() -> None:
    rng = np.random.default_rng(3)
    n, errors, repeats = measured(rng, lambda n: 2 * n**-0.4, repeats=20, own=0.03, shared=0.1)
    free, capped = PowerLaw.fit(n, errors, repeats), PowerLaw.fit(n, errors, repeats, independent=5)

    def width(law):
        return np.log(law.at(320).high / law.at(320).low)

    assert width(capped) / width(free) == pytest.approx(2.0, rel=0.1)  # (20 / 5)^½
    assert capped.b == pytest.approx(free.b, rel=1e-6)


def test_rows_needed_and_error_reached_are_inverse() -> None:
    rng = np.random.default_rng(4)
    law = PowerLaw.fit(*measured(rng, lambda n: 2 * n**-0.4 + 0.02, repeats=5, own=0.02, shared=0.05))
    estimate = law.needed(0.15)
    assert law.predict(estimate.value) == pytest.approx(0.15)
    # The band passes through the error at the ends of the interval.
    assert law.band([estimate.low])[0][0] == pytest.approx(0.15, rel=1e-6)
    assert law.band([estimate.high])[1][0] == pytest.approx(0.15, rel=1e-6)
    low, high = law.band(np.geomspace(5, 1e5, 50))
    assert np.all(np.diff(low) < 0)
    assert np.all(np.diff(high) < 0)
    assert np.all(low < high)


def test_error_below_the_floor_is_never_reached_and_said_so() -> None:
    n = np.array([10, 20, 50, 100, 300, 1000])
    law = PowerLaw.fit(n, 2.0 / n + 0.1)
    estimate = law.needed(0.09)
    assert math.isinf(estimate.value)
    assert "is below the floor of the law, 0.1" in estimate.remarks[-1]
    assert "no limit" in str(estimate)


def test_upper_end_is_open_where_a_floor_cannot_be_excluded() -> None:
    rng = np.random.default_rng(5)
    law = PowerLaw.fit(*measured(rng, lambda n: 2 * n**-0.4, repeats=3, own=0.1, shared=0.1))
    estimate = law.needed(0.02)
    assert math.isfinite(estimate.value)
    assert math.isinf(estimate.high)
    assert any("do not exclude that the error stays above 0.02" in remark for remark in estimate.remarks)


def test_extrapolation_is_said_beyond_four_times_the_data() -> None:
    law = PowerLaw.fit(SIZES, 2.0 * SIZES**-0.5)
    assert law.at(4 * 320).remarks == ()
    assert "4.7 times the 320 that were measured" in law.at(1500).remarks[0]
    assert "has not been tested there" in law.needed(float(law.predict(1500))).remarks[0]


@pytest.mark.slow
def test_lack_of_fit_is_found_and_widens_the_intervals() -> None:
    rng = np.random.default_rng(6)
    bent = {20: 1.0, 35: 1.0, 61: 1.0, 106: 0.5, 184: 0.25, 320: 0.24}
    noise = rng.normal(0, 0.01, (5, 6))
    errors = (np.array(list(bent.values())) * np.exp(noise)).ravel()
    law = PowerLaw.fit(np.tile(SIZES, 5), errors, np.repeat(np.arange(5), 6))
    assert law.misfit < 1e-6
    assert "depart from a power law" in law.at(400).remarks[0]
    assert law.at(400).high / law.at(400).low > 2
    laws = [PowerLaw.fit(*measured(rng, lambda n: 2 * n**-0.4, repeats=5, own=0.01, shared=0.0)) for _ in range(60)]
    # True laws are taken for others in one of a hundred fits.
    assert np.mean([law.misfit <= 0.01 for law in laws]) < 0.08


def test_errors_that_do_not_fall_give_no_exponent_and_no_number_of_rows() -> None:
    errors = np.array([0.50, 0.51, 0.50, 0.52, 0.51, 0.53])
    law = PowerLaw.fit(SIZES, errors)
    assert law.b == 0.0
    assert law.predict(1000) == pytest.approx(np.exp(np.log(errors).mean()))
    assert math.isinf(law.needed(0.4).value)
    assert law.needed(0.6).value == 0.0


def test_missing_errors_are_left_out() -> None:
    rng = np.random.default_rng(7)
    n, errors, repeats = measured(rng, lambda n: 2 * n**-0.4, repeats=5, own=0.001, shared=0.0)
    errors[[0, 13, 22]] = np.nan
    law = PowerLaw.fit(n, errors, repeats)
    assert law.b == pytest.approx(0.4, abs=0.01)
    assert list(law.sizes) == list(SIZES)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (([10, 20, 40], [1, 0.5, 0.2]), "needs errors at 4 or more"),
        (([10, 20] * 2, [1, 0.5, 1.1, 0.4]), "needs errors at 3 or more"),
        (([10, 20, 40, 80], [1, 0.5, -0.2, 0.1]), r"entry 2 has 40 rows and the error -0.2"),
        (([10, 20, 40], [1, 0.5]), "one error for each size"),
        (([10, 20, 40, 80], [np.nan] * 4), "and there are 0"),
    ],
)
def test_wrong_input_is_said_in_a_sentence(arguments, message) -> None:
    with pytest.raises(InputError, match=message):
        PowerLaw.fit(*arguments)
    with pytest.raises(InputError, match="above zero"):
        PowerLaw.fit(SIZES, 1.0 / SIZES).needed(0.0)
    with pytest.raises(InputError, match="between 0 and 1"):
        PowerLaw.fit(SIZES, 1.0 / SIZES, level=90)


@pytest.mark.parametrize("sizes", [[20, 20, 20], [20, 20, 40, 40]])
def test_too_few_sizes_are_said_however_often_they_were_measured(sizes) -> None:
    repeats = [sizes[:index].count(size) for index, size in enumerate(sizes)]
    with pytest.raises(InputError, match=f"3 or more different numbers of rows, and there are {len(set(sizes))}"):
        PowerLaw.fit(sizes, np.linspace(0.2, 0.3, len(sizes)), repeats)
