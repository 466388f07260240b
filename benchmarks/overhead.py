"""CPU time of what users do most, in this checkout beside another one: what checks of files and bounds cost.

Each task runs in a process of its own, in turns in both checkouts, without plugins; the ratio is of the medians of CPU
time, and its range that of the ratios of neighbouring runs.

    python benchmarks/overhead.py --before ../other-checkout --crystals crystals.json.gz
"""

from __future__ import annotations

import argparse
import gzip
import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

HERE = Path(__file__).resolve().parents[1]

FIT = """
from scotl_matgl import TransferRegressor, load_example
table = load_example().iloc[:100]
TransferRegressor("MEGNet*", head="kernel ridge").fit(table["formula"], table["target"]).save("model.skops")
"""

TASKS = {
    "import, nothing else": "import scotl_matgl, numpy, pandas, sklearn",
    "rank 100 rows by 64 sources": """
import warnings; warnings.simplefilter("ignore")
from scotl_matgl import TransferabilityRanker, load_example
from scotl_matgl.sources.cards import all_cards
table = load_example().iloc[:100]
zoos = ("cgcnn", "matgl", "megnet", "own", "shotgun")  # those that both checkouts have
sources = [card.name for card in all_cards() if card.zoo in zoos]
assert len(sources) == 64
TransferabilityRanker(sources, on_error="skip", n_jobs=1).fit(table["formula"], table["target"])
""",
    "load all shipped bridges": """
from scotl_matgl.bridges.store import list_bridges
assert len([file.load() for file in list_bridges()]) > 60
""",
    "read 5,000 crystals": """
from scotl_matgl.chemistry.corpus import Corpus
assert len(Corpus.read("crystals.json")) > 4000
""",
    "load a model, predict 1,000 rows": """
import pandas as pd
from scotl_matgl import TransferRegressor, load_example
TransferRegressor.load("model.skops").predict(load_example()["formula"].iloc[:1000])
""",
}


def cpu_seconds(code: str, checkout: Path, folder: Path) -> float:
    """User and system time of a process that runs some code of a checkout."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    environment = os.environ | {
        "PYTHONPATH": str(checkout), "SCOTL_MATGL_HOME": str(folder / "home"), "OMP_NUM_THREADS": "1",
    }  # fmt: skip
    subprocess.run([sys.executable, "-c", code], cwd=folder, env=environment, check=True)  # noqa: S603
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--before", type=Path, required=True)
    parser.add_argument("--crystals", type=Path, help="JSON of crystals, gzipped")
    parser.add_argument("--pairs", type=int, default=9)
    arguments = parser.parse_args()
    checkouts = {"before": arguments.before.resolve(), "now": HERE}
    with tempfile.TemporaryDirectory() as temporary:
        folders = {name: Path(temporary) / name for name in checkouts}
        for name, folder in folders.items():
            folder.mkdir()
            if arguments.crystals is not None:
                with gzip.open(arguments.crystals, "rt") as file:
                    (folder / "crystals.json").write_text(json.dumps(json.load(file)[:5000]))
            cpu_seconds(FIT, checkouts[name], folder)
        print("| task | before, s | now, s | ratio | of neighbours |\n| --- | ---: | ---: | ---: | --- |")
        for task, code in TASKS.items():
            if "crystals" in task and arguments.crystals is None:
                continue
            times: dict[str, list[float]] = {name: [] for name in checkouts}
            for turn in range(arguments.pairs + 1):
                for name in sorted(checkouts, reverse=bool(turn % 2)):
                    seconds = cpu_seconds(code, checkouts[name], folders[name])
                    if turn:  # the first one fills the page cache
                        times[name].append(seconds)
            ratios = sorted(now / before for before, now in zip(times["before"], times["now"], strict=True))
            before, now = (statistics.median(values) for values in times.values())
            print(
                f"| {task} | {before:.2f} | {now:.2f} | {now / before:.3f} | "
                f"{ratios[len(ratios) // 4]:.2f} to {ratios[-1 - len(ratios) // 4]:.2f} |",
                flush=True,
            )


if __name__ == "__main__":
    main()
