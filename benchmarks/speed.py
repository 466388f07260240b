"""Measure import, help, ranking, fit, predict and encoding, at one commit or at two of them by turns.

    python benchmarks/speed.py                       # records of this tree as JSON
    python benchmarks/speed.py --compare HEAD~20 HEAD    # paired ratios of CPU time

CPU times of one thread, each in a process of its own, so that a busy machine changes little. A comparison checks both
commits out into a temporary folder and runs them by turns: a ratio is of two runs that followed each other.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np

ROOT = Path(__file__).parents[1]

_TABLE = """
from scotl_matgl import TransferabilityRanker, TransferRegressor, load_example
table = load_example().sample({rows}, random_state=0)
formulas, y = table["formula"].to_numpy(), table["target"].to_numpy()
"""
_MODEL = _TABLE.format(rows=100) + 'model = TransferRegressor("MEGNet*", random_state=0)\n'
_CRYSTALS = """
import os
from itertools import islice
from scotl_matgl.chemistry.crystal_files import read_crystals
from scotl_matgl.sources.cards import all_cards, select
encoder = select(all_cards(), "MEGNet-MP-2018.6.1-Eform")[0].load()
crystals = list(islice(read_crystals(os.environ["SCOTL_MATGL_ASSETS"] + "/structures/crystals.json.gz"), 300))
encoder.encode(crystals[:10])
"""

# Name to (what is prepared, what is timed).
CASES = {
    "import": ("", "import scotl_matgl; scotl_matgl.TransferabilityRanker"),
    "help": (
        "import sys; sys.argv[1:] = ['--help']",
        "try:\n    from scotl_matgl.cli.main import main; main()\nexcept SystemExit:\n    pass",
    ),
    "rank 100 rows": (_TABLE.format(rows=100), "TransferabilityRanker(random_state=0).fit(formulas, y)"),
    "rank 1,135 rows": (_TABLE.format(rows=1135), "TransferabilityRanker(random_state=0).fit(formulas, y)"),
    "fit": (_MODEL, "model.fit(formulas, y)"),
    "fit 300 rows, all sources": (_TABLE.format(rows=300), "TransferRegressor(random_state=0).fit(formulas, y)"),
    "fit 1,000 rows, all sources": (_TABLE.format(rows=1000), "TransferRegressor(random_state=0).fit(formulas, y)"),
    "wrong column": (
        "import sys, tempfile\nfile = tempfile.NamedTemporaryFile('w', suffix='.csv')\n"
        "file.write('formula,target\\nNaCl,1\\n'); file.flush()\nsys.argv[1:] = ['rank', file.name, '--target', 'gap']",
        "try:\n    from scotl_matgl.cli.main import main; main()\nexcept SystemExit:\n    pass",
    ),
    "predict": (_MODEL + "model.fit(formulas, y)", "model.predict(load_example()['formula'])"),
    "encode": (_CRYSTALS, "encoder.encode(crystals)"),
}
NEED_MODELS = {"encode"}


def measure(tree: Path, case: str) -> float:
    """CPU seconds of one case with the package of a tree, in a process of its own."""
    prepared, timed = CASES[case]
    code = (
        f"import time, warnings\nwarnings.simplefilter('ignore')\n{prepared}\nstarted = time.process_time()\n{timed}\n"
    )
    code += "import sys; print(time.process_time() - started, file=sys.stderr)"
    environment = os.environ | {
        "PYTHONPATH": str(tree),
        "OMP_NUM_THREADS": "1",
        "MATGL_BACKEND": "DGL",
    }
    done = subprocess.run([sys.executable, "-c", code], cwd=tree, env=environment, capture_output=True, text=True)  # noqa: S603
    if done.returncode:
        raise RuntimeError(f"{case} with {tree} failed: {done.stderr.strip()}")
    return float(done.stderr.split()[-1])


def record(cases: list[str], repeats: int) -> dict[str, object]:
    """CPU seconds of each case, all repeats, with what they were measured on."""
    return {
        "commit": _git("rev-parse", "--short", "HEAD"),
        "python": platform.python_version(),
        "machine": platform.processor() or platform.machine(),
        "cpu_seconds": {case: [round(measure(ROOT, case), 4) for _ in range(repeats)] for case in cases},
    }


def compare(before: str, after: str, cases: list[str], repeats: int) -> None:
    """Print the median of the paired ratios, after to before, and the least and the largest of them."""
    with tempfile.TemporaryDirectory() as folder:
        trees = [Path(folder) / name for name in ("before", "after")]
        try:
            for tree, commit in zip(trees, (before, after), strict=True):
                _git("worktree", "add", "--detach", str(tree), commit)
            print(
                f"| case | {before}, s | {after}, s | ratio | least to largest |\n| --- | ---: | ---: | ---: | ---: |"
            )
            for case in cases:
                times = np.array([[measure(tree, case) for tree in trees] for _ in range(repeats)])
                ratios, (one, two) = times[:, 1] / times[:, 0], np.median(times, axis=0)
                median, least, most = np.median(ratios), min(ratios), max(ratios)
                print(f"| {case} | {one:.2f} | {two:.2f} | {median:.2f} | {least:.2f} to {most:.2f} |")
        finally:
            for tree in trees:
                if tree.exists():
                    _git("worktree", "remove", "--force", str(tree))


def _git(*arguments: str) -> str:
    done = subprocess.run(["git", "-C", str(ROOT), *arguments], check=True, capture_output=True, text=True)  # noqa: S603, S607
    return done.stdout.strip()


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--compare", nargs=2, metavar=("BEFORE", "AFTER"), help="two commits")
    parser.add_argument("--cases", nargs="+", choices=CASES, metavar="CASE", help=f"of {', '.join(CASES)}")
    parser.add_argument("--repeats", type=int, default=5)
    given = parser.parse_args()
    usable = [case for case in CASES if case not in NEED_MODELS or os.environ.get("SCOTL_MATGL_ASSETS")]
    if given.compare:
        compare(*given.compare, given.cases or usable, given.repeats)
    else:
        print(json.dumps(record(given.cases or usable, given.repeats), indent=1))
