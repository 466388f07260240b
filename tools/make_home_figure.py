"""Draw the figure of the site's home page: the ranking of the bundled table, as `make demo` prints it."""

from __future__ import annotations

from pathlib import Path

import matplotlib as mpl

from scotl_matgl import TransferabilityRanker, load_example


def main() -> None:
    """Write docs/images/gains.svg."""
    mpl.use("Agg")
    table = load_example()
    ranking = TransferabilityRanker(target_unit="eV/atom").fit(table["formula"], table["target"]).ranking_
    path = Path(__file__).parents[1] / "docs" / "images" / "gains.svg"
    with mpl.rc_context({"svg.hashsalt": "gains"}):
        ranking.plot().figure.savefig(path, metadata={"Date": None, "Creator": None}, facecolor="white")


if __name__ == "__main__":
    main()
