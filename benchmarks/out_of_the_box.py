"""Ranking with what the package ships: how long it takes, and whether look-up of real embeddings changes the order.

``python benchmarks/out_of_the_box.py TABLE [--python BASE/bin/python] [--index FILE]``: TABLE is a CSV with the columns
composition and target; BASE an environment with the base installation alone, by default this one. Times depend on
what else the machine does: the smallest of several runs is shown.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from scipy.stats import spearmanr


def rank(python: str, table: Path, home: str, *options: str) -> tuple[dict[str, Any], float]:
    """Run the command line once; the result and its wall time with start-up."""
    command = [python, "-m", "scotl_matgl", "rank", str(table), "--formula", "composition", "--target", "target"]
    started = time.perf_counter()
    run = subprocess.run(  # noqa: S603 - our own command
        [*command, *options, "--format", "json"],
        env=os.environ | {"SCOTL_MATGL_HOME": home},
        capture_output=True,
        text=True,
        check=True,
    )
    return json.loads(run.stdout), time.perf_counter() - started


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("tables", type=Path, nargs="+")
    parser.add_argument("--python", default=sys.executable)
    parser.add_argument("--index", type=Path, help="corpus index, to compare the order with look-up")
    parser.add_argument("--runs", type=int, default=3)
    arguments = parser.parse_args()
    for table in arguments.tables:
        with tempfile.TemporaryDirectory() as home:
            runs = [rank(arguments.python, table, home) for _ in range(arguments.runs)]
            bare = runs[0][0]
            scores = {row["source"]: row["loo"] for row in bare["ranking"] if row.get("loo") is not None}
            seconds = min(seconds for _, seconds in runs)
            print(f"{table.stem}: {bare['n_rows']} rows, {len(scores)} sources, {seconds:.1f} s; {bare['best']}")
            if arguments.index is not None:
                (Path(home) / "corpus_index.safetensors").symlink_to(arguments.index.resolve())
                looked_up, _ = rank(arguments.python, table, home, "--look-up", "on")
                other = {row["source"]: row["loo"] for row in looked_up["ranking"] if row["source"] in scores}
                found = max(row["looked_up"] for row in looked_up["ranking"])
                rho = spearmanr([scores[name] for name in scores], [other[name] for name in scores]).statistic
                print(f"  with look-up (at most {found} formulas): Spearman {rho:.3f}; {looked_up['best']}", flush=True)


if __name__ == "__main__":
    main()
