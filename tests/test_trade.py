"""Two kinds of data: known laws are found again, and the cheapest mix is the cheapest."""

from __future__ import annotations

import json
import math
import re

import numpy as np
import pandas as pd
import pytest
from typer.testing import CliRunner

from scotl_matgl.cli.main import app
from scotl_matgl.exceptions import InputError
from scotl_matgl.studies.trade import TradeLaw

LAWS = [TradeLaw(2.0, 0.4, 1.0, 0.3, 0.02), TradeLaw(0.5, 0.6, 3.0, 0.15, 0.0), TradeLaw(1.0, 0.25, 2.0, 0.5, 0.1)]
TARGET, SOURCE = (grid.ravel() for grid in np.meshgrid(np.geomspace(20, 2000, 5), np.geomspace(1e3, 1e6, 5)))


@pytest.mark.parametrize("law", LAWS)
def test_known_law_is_found_again(law) -> None:
    fitted = TradeLaw.fit(TARGET, SOURCE, law.predict(TARGET, SOURCE), resamples=0)
    for name in ("a", "b", "d", "e"):
        assert getattr(fitted, name) == pytest.approx(getattr(law, name), rel=1e-2)
    assert fitted.c == pytest.approx(law.c, abs=1e-3)
    assert fitted.spread < 1e-5
    assert fitted.measured == ((20.0, pytest.approx(2000.0)), (1000.0, pytest.approx(1e6)))


@pytest.mark.parametrize("law", LAWS)
@pytest.mark.parametrize("have", [(0.0, 0.0), (300.0, 0.0), (50.0, 20_000.0)])
def test_cheapest_mix_is_the_cheapest_along_the_line_of_equal_error(law, have) -> None:
    error = law.c + 0.5 * float(law.predict(50, 3000) - law.c)
    mix = law.cheapest(error, price_target=10.0, price_source=0.1, have=have)
    assert mix.error.value == pytest.approx(error)
    t = np.geomspace(max(have[0], 1e-3), 1e9, 400_001)
    s = np.maximum(law.contour(error, t), have[1])
    lowest = np.min(10.0 * (t - have[0]) + 0.1 * (s - have[1]))
    assert mix.cost.value == pytest.approx(lowest, rel=1e-4)
    assert mix.n_target.value >= have[0]
    assert mix.n_source.value >= have[1]


@pytest.mark.parametrize("law", LAWS)
def test_best_error_for_what_the_cheapest_mix_costs_is_its_error(law) -> None:
    have = (50.0, 3000.0)
    error = law.c + 0.5 * float(law.predict(*have) - law.c)
    mix = law.cheapest(error, price_target=10.0, price_source=0.1, have=have)
    back = law.best(mix.cost.value, price_target=10.0, price_source=0.1, have=have)
    assert back.error.value == pytest.approx(error, rel=1e-9)
    assert back.n_target.value == pytest.approx(mix.n_target.value, rel=1e-6)


def test_equal_exponents_have_a_closed_form() -> None:
    # With b = e the ratio of the two is (d p_t / (a p_s))^(1/(b+1)), whatever the error.
    law, prices = TradeLaw(2.0, 0.5, 3.0, 0.5, 0.01), {"price_target": 7.0, "price_source": 0.3}
    ratio = (3.0 * 7.0 / (2.0 * 0.3)) ** (1 / 1.5)
    for error in (0.5, 0.1, 0.02):
        mix = law.cheapest(error, **prices)
        assert mix.n_source.value / mix.n_target.value == pytest.approx(ratio, rel=1e-9)
        assert mix.n_target.value == pytest.approx(((2.0 + 3.0 * ratio**-0.5) / (error - 0.01)) ** 2, rel=1e-9)


def test_what_is_there_already_may_be_enough() -> None:
    law = LAWS[0]
    mix = law.cheapest(0.9, price_target=1.0, price_source=1.0, have=(1000.0, 1e5))
    assert mix.cost.value == 0.0
    assert (mix.n_target.value, mix.n_source.value) == (1000.0, 1e5)
    assert law.best(0.0, price_target=1.0, price_source=1.0, have=(1000.0, 1e5)).cost.value == 0.0


def test_dearer_source_data_shift_the_mix_to_the_target() -> None:
    law = LAWS[0]
    mixes = [law.cheapest(0.2, price_target=1.0, price_source=price) for price in (0.001, 0.01, 0.1, 1.0)]
    assert np.all(np.diff([mix.n_target.value for mix in mixes]) > 0)
    assert np.all(np.diff([mix.n_source.value for mix in mixes]) < 0)


def test_data_that_do_not_help_are_not_bought() -> None:
    law = TradeLaw(2.0, 0.5, 0.0, 0.5, 0.0)
    mix = law.cheapest(0.1, price_target=1.0, price_source=1.0)
    assert mix.n_target.value == pytest.approx(400.0)
    assert mix.n_source.value == 0.0


def test_contour_has_the_error_everywhere() -> None:
    law = LAWS[0]
    t = np.geomspace(1, 1e5, 50)
    s = law.contour(0.2, t)
    reached = np.isfinite(s)
    assert 0 < reached.sum() < 50
    np.testing.assert_allclose(law.predict(t[reached], s[reached]), 0.2, rtol=1e-9)
    assert np.all(law.a * t[~reached] ** -law.b + law.c >= 0.2)


def test_noise_gives_intervals_and_far_mixes_are_said() -> None:
    law, rng = LAWS[0], np.random.default_rng(0)
    errors = law.predict(TARGET, SOURCE) * np.exp(rng.normal(0, 0.02, len(TARGET)))
    fitted = TradeLaw.fit(TARGET, SOURCE, errors, resamples=40)
    assert fitted.spread == pytest.approx(0.02, rel=0.4)
    prices = {"price_target": 10.0, "price_source": 0.1}
    near = fitted.cheapest(0.3, **prices)
    assert near.cost.low < near.cost.value < near.cost.high
    assert near.cost.high / near.cost.low < 1.3
    assert near.remarks == ()
    far = fitted.cheapest(fitted.c + 0.02, **prices)
    assert "far from the 20 to 2e+03 that the law was fitted to" in far.remarks[0]
    assert far.cost.high / far.cost.low > near.cost.high / near.cost.low


def test_resampled_laws_with_a_higher_floor_leave_the_cost_open() -> None:
    law = TradeLaw(2.0, 0.5, 1.0, 0.4, 0.1, resamples=tuple(TradeLaw(2.0, 0.5, 1.0, 0.4, c) for c in (0.09, 0.2)))
    mix = law.cheapest(0.15, price_target=1.0, price_source=1.0)
    assert math.isinf(mix.cost.high)
    assert "By 50% of the resampled laws" in mix.remarks[-1]


def test_wrong_input_is_said_in_a_sentence() -> None:
    law, prices = LAWS[0], {"price_target": 1.0, "price_source": 1.0}
    with pytest.raises(InputError, match=r"an error of 0\.02 is not above 0\.02"):
        law.cheapest(0.02, **prices)
    with pytest.raises(InputError, match=r"price_source is 0\.0"):
        law.cheapest(0.1, price_target=1.0, price_source=0.0)
    with pytest.raises(InputError, match="the budget is -1"):
        law.best(-1, **prices)
    with pytest.raises(InputError, match="have is"):
        law.best(10.0, **prices, have=(-1.0, 0.0))
    with pytest.raises(InputError, match="row 3 has 10 target rows, 0 source rows"):
        TradeLaw.fit([10] * 6, [1, 2, 3, 0, 4, 5], [1.0] * 6)
    with pytest.raises(InputError, match="of 2 different numbers of target rows"):
        TradeLaw.fit([10, 20] * 3, [1, 2, 3, 4, 5, 6], [1.0] * 6)
    with pytest.raises(InputError, match="b of the law is -1"):
        TradeLaw(1.0, -1.0, 1.0, 1.0)


@pytest.mark.slow
def test_command_line(tmp_path) -> None:
    table, figure = tmp_path / "errors.csv", tmp_path / "lines.png"
    errors = LAWS[0].predict(TARGET, SOURCE)
    pd.DataFrame({"n_target": TARGET, "n_source": SOURCE, "error": errors}).to_csv(table, index=False)
    prices = ["--price-target", "10", "--price-source", "0.1"]
    done = CliRunner().invoke(app, ["trade", str(table), *prices, "--error", "0.2", "--plot", str(figure)])
    assert done.exit_code == 0, done.output
    expected = LAWS[0].cheapest(0.2, price_target=10.0, price_source=0.1)
    shown = dict(line.strip().rsplit("  ", 1) for line in done.stdout.splitlines() if line.startswith("  "))
    assert float(shown["cost"].split()[0]) == pytest.approx(expected.cost.value, rel=1e-3)
    forms = ["--error", "0.2", "--unit", "eV/atom", "--format"]
    text = CliRunner().invoke(app, ["trade", str(table), *prices, *forms, "table"]).stdout
    assert f"error  {expected.error} eV/atom" in text
    rows = json.loads(CliRunner().invoke(app, ["trade", str(table), *prices, *forms, "json"]).stdout)
    assert [row["quantity"] for row in rows] == ["target rows", "source rows", "cost", "error"]
    assert rows[2]["value"] == pytest.approx(expected.cost.value, rel=1e-3)
    assert [row["unit"] for row in rows] == ["", "", "", "eV/atom"]
    output = tmp_path / "mix.csv"
    assert CliRunner().invoke(app, ["trade", str(table), *prices, *forms, "csv", "-o", str(output)]).stdout == ""
    assert pd.read_csv(output)["low"].tolist() == pytest.approx([row["low"] for row in rows])
    assert figure.read_bytes()[:4] == b"\x89PNG"
    assert CliRunner().invoke(app, ["trade", str(table), *prices]).exit_code == 2
    assert CliRunner().invoke(app, ["trade", str(table), *prices, "--budget", "1", "--error", "1"]).exit_code == 2
    lacking = CliRunner().invoke(app, ["trade", str(table), *prices, "--error", "0.2", "--n-source", "dft"])
    assert "no column 'dft'" in str(lacking.exception)


PRICES = ["--price-target=10", "--price-source=0.1", "--error=0.2"]


@pytest.mark.slow
def test_the_command_reads_any_kind_of_table_and_lists_odd_rows(tmp_path) -> None:
    errors = LAWS[0].predict(TARGET, SOURCE)
    table = pd.DataFrame({"N_target ": TARGET, "n_source": SOURCE, "error": errors})
    table.to_csv(tmp_path / "plain.csv", index=False)
    plain = CliRunner().invoke(app, ["trade", str(tmp_path / "plain.csv"), *PRICES])
    assert plain.exit_code == 0, plain.output
    assert not plain.stderr
    table.to_csv(tmp_path / "commas.csv", index=False, sep=";", decimal=",")
    text = (tmp_path / "plain.csv").read_text()
    (tmp_path / "odd.csv").write_bytes((text + "10,20,about half\n10,20,0.1,0.2,x\n,,\n10,\xb5,1\n").encode("cp1252"))
    table.to_excel(tmp_path / "book.xlsx", index=False)
    table.to_json(tmp_path / "records.json", orient="records")
    for name in ("commas.csv", "odd.csv", "book.xlsx", "records.json"):
        done = CliRunner().invoke(app, ["trade", str(tmp_path / name), *PRICES])
        assert (done.exit_code, done.stdout) == (0, plain.stdout), (name, done.output, done.exception)
    odd = CliRunner().invoke(app, ["trade", str(tmp_path / "odd.csv"), *PRICES]).stderr
    first = len(TARGET)
    assert f"row {first} (error: about half): is no finite number" in odd
    assert f"row {first + 1} " in odd
    assert "stands in a row of 5 fields where the header has 3" in odd
    assert f"row {first + 3} (n_source: µ): is no finite number" in odd
    assert odd.count("left out: ") == 3  # and not the empty one


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (None, "there is no file"),
        (b"", "has no rows"),
        (b"version https://git-lfs.github.com/spec/v1\noid x\n", "pointer of Git LFS"),
        (bytes(100), "no column 'n_target'"),
        (b"a,b\n1,2\n", "no column 'n_target'"),
        (b"n_target,n_source,error\n1,2,about\n", "there are 0 errors"),
        (b"[" * 100_000, "nested too deep|cannot be read as a table"),
    ],
)
def test_what_is_no_table_of_errors_is_refused_by_a_sentence(content, reason, tmp_path) -> None:
    if content is not None:
        (tmp_path / "t.csv").write_bytes(content)
    done = CliRunner().invoke(app, ["trade", str(tmp_path / "t.csv"), *PRICES])
    assert isinstance(done.exception, InputError), done.exception
    assert re.search(reason, str(done.exception)), done.exception
