"""Tables in random spellings: a value is read as what was written, or is listed, and never as another number.

Each case takes rows of a real table, writes every value in one spelling of a column (decimal commas, groups of
thousands, units, uncertainties, exponents) with some cells that are no value, and the table in one container
(separator, quotes, encoding, line ends, title, comments, further columns). What was written is the oracle; pandas is a
second one where the table is plain. `make fuzz` takes 10,000 cases, and the tables of SCOTL_MATGL_ASSETS too.
"""

from __future__ import annotations

import csv
import io
import os
import random
from pathlib import Path

import pandas as pd
import pytest

from scotl_matgl import load_example
from scotl_matgl.tables.files import read_table
from scotl_matgl.tables.target import read_target

CASES = int(os.environ.get("SCOTL_MATGL_FUZZ_TABLES", "150"))

NO_VALUES = ("", "n.a.", "—", "<5", "> 12", "15-25", "metal", "?", "≤ 3", "not measured", "ca. ?", "2 or 3")


def grouped(value: float, mark: str, point: str) -> str:
    whole, _, rest = f"{abs(value) * 1000:,.2f}".partition(".")
    return ("-" if value < 0 else "") + whole.replace(",", mark) + point + rest


def says(text: str, value: str, scale: str = "") -> tuple[str, float]:
    return text, float(f"{value}{scale}")


def spelt(spelling: str, v: float, r: random.Random) -> tuple[str, float]:
    """A cell in a spelling, and the value that it says."""
    three, two, large = f"{v:.3f}", f"{v:.2f}", f"{v * 1000:.2f}"
    return {
        "plain": lambda: (repr(v), v),
        "fixed": lambda: says(three, three),
        "minus": lambda: says(three.replace("-", "−"), three),
        "exponent": lambda: says(f"{v:.4E}", f"{v:.4E}"),
        "power": lambda: says(f"{three}×10^3", three, "e3"),
        "unit": lambda: says(f"{three} eV", three),
        "error": lambda: says(f"{three} ± 0.0{r.randint(1, 9)}", three),
        "last": lambda: says(f"{three}({r.randint(1, 99)})", three),
        "note": lambda: says(three + r.choice(["", "*", " [12]", " (calc.)"]), three),
        "comma": lambda: says(two.replace(".", ","), two),
        "german": lambda: says(grouped(v, ".", ","), large),
        "english": lambda: says(grouped(v, ",", "."), large),
        "swiss": lambda: says(grouped(v, "'", "."), large),
        "french": lambda: says(grouped(v, "\u202f", ","), large),
    }[spelling]()


SPELLINGS = tuple(
    "plain fixed minus exponent power unit error last note comma german english swiss french".split()  # noqa: SIM905
)
PLAIN = ("plain", "fixed", "exponent")


def written(records: list[list[str]], r: random.Random) -> bytes:
    """Bytes of a table of text."""
    separator = r.choice([",", ";", "\t", "|"])
    stream = io.StringIO()
    quoting = r.choice([csv.QUOTE_MINIMAL, csv.QUOTE_ALL]) if separator != "|" else csv.QUOTE_NONE
    csv.writer(stream, delimiter=separator, quoting=quoting, lineterminator=r.choice(["\n", "\r\n"])).writerows(records)
    head = r.choice(["", "", "# made by hand\n", "Table S1. Values of many materials\n\n"])
    encoding = r.choice(["utf-8", "utf-8-sig", "utf-16"])
    return (head + stream.getvalue()).encode(encoding)


def case(seed: int, table: pd.DataFrame, path: Path) -> tuple[str, list[str], list[float | None]]:
    """Write a table; return the spelling, the formulas, and the values, None where a cell says none."""
    r = random.Random(seed)  # noqa: S311 - no cipher
    spelling = r.choice(SPELLINGS)
    some = table.sample(n=r.randint(24, 40), random_state=seed)
    share = r.choice([0.0, 0.1, 0.3])
    cells, truth = [], []
    for value in some["target"]:
        text, meant = spelt(spelling, float(value), r)
        if r.random() < share:
            text, meant = r.choice(NO_VALUES), None
        cells.append(text)
        truth.append(meant)
    columns = [("formula", list(some["formula"])), ("target", cells)]
    if r.random() < 0.3:
        columns.append(("method", [r.choice(["DSC", "drop, 2 runs"]) for _ in cells]))
    r.shuffle(columns)
    names = [name.upper() if r.random() < 0.2 else name for name, _ in columns]
    records = [names, *map(list, zip(*(column for _, column in columns), strict=True))]
    if seed % 25 == 0:
        pd.DataFrame(records).to_excel(path, header=False, index=False, engine="openpyxl")
    else:
        path.write_bytes(written(records, r))
    return spelling, list(some["formula"]), truth


def tables() -> list[pd.DataFrame]:
    found = [load_example()]
    assets = os.environ.get("SCOTL_MATGL_ASSETS")
    if assets:
        for path in sorted(Path(assets, "targets").glob("*.csv")):
            table = pd.read_csv(path, keep_default_na=False).rename(columns={"composition": "formula"})
            if table["target"].dtype.kind in "if" and len(table) > 50 and table["target"].nunique() > 40:
                found.append(table)
    return found


@pytest.mark.slow
def test_no_value_is_read_as_another(tmp_path: Path) -> None:
    sources, read, lost = tables(), 0, 0
    for seed in range(CASES):
        path = tmp_path / "table.xlsx"
        spelling, formulas, truth = case(seed, sources[seed % len(sources)], path)
        table = read_table(path, formula="formula", target="target")
        where = (seed, spelling)
        # None of the rows is lost before it can be listed.
        assert [str(formula).strip() for formula in table["formula"]] == formulas, where
        single = _values(table)
        for position, (value, said) in enumerate(zip(single, truth, strict=True)):
            if value is None:
                lost += said is not None
                continue
            assert said is not None, (*where, position, table["target"].iloc[position])
            assert value == pytest.approx(said, rel=1e-12), (*where, position, table["target"].iloc[position])
            read += 1
        if spelling in PLAIN and seed % 25:
            assert [value is None for value in single] == [said is None for said in truth], where
    assert read > 15 * CASES
    assert lost < 0.02 * read


def _values(table: pd.DataFrame) -> list[float | None]:
    """Value of each cell as a regression takes it; None where it is skipped."""
    target = read_target(table["target"].to_numpy(), "regression")
    return [float(value) if ok else None for value, ok in zip(target.values, target.usable, strict=True)]


def test_pandas_agrees_where_a_table_is_plain(tmp_path: Path) -> None:
    for seed, table in enumerate(tables()):
        path = tmp_path / "table.csv"
        table.to_csv(path, index=False)
        ours = read_table(path, formula="formula", target="target")["target"]
        expected = pd.read_csv(path, keep_default_na=False, float_precision="round_trip")["target"]
        assert ours.tolist() == expected.tolist(), seed
