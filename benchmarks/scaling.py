"""How cost grows: CPU time at four sizes of one thing at a time, and the power of that size that it grows with.

    OMP_NUM_THREADS=1 python benchmarks/scaling.py [--cases "rows, ranking" ...]

The power is the slope between the two largest sizes on logarithmic axes, so that what does not grow (reading cards,
first imports) counts little. One thread. Crystals need SCOTL_MATGL_ASSETS and MatGL. docs/scaling.md reads the figures.
"""

from __future__ import annotations

import argparse
import os
import time
import warnings
from collections.abc import Callable, Iterator
from functools import partial
from itertools import islice, pairwise
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from scotl_matgl import TransferabilityRanker, TransferRegressor, load_example
from scotl_matgl.encoders.network import Network
from scotl_matgl.estimators import LOORidge
from scotl_matgl.sources.cards import all_cards, select

# A size, and what is timed there.
Step = tuple[int, Callable[[], Any]]

METALS = "Li Na K Mg Ca Sr Al Ga Si Sn Ti Zr V Cr Mn Fe Co Ni Cu Zn Y La".split()  # noqa: SIM905 - a list to read
ANIONS = "O S Se F Cl N".split()  # noqa: SIM905 - a list to read


def table(rows: int) -> tuple[list[str], NDArray[np.float64]]:
    """Rows of the example table with different formulas, drawn at random."""
    frame = load_example().drop_duplicates("formula").sample(rows, random_state=0)
    return list(frame["formula"]), frame["target"].to_numpy()


def rows_of_ranking() -> Iterator[Step]:
    """Rank 18 sources for a table; above `max_rows` (1,000) a sample is measured."""
    for rows in (125, 250, 500, 1000):
        yield rows, partial(TransferabilityRanker("MEGNet*", head="kernel ridge").fit, *table(rows))


def rows_of_model() -> Iterator[Step]:
    """Fit a model on a table, with 18 sources to choose from."""
    for rows in (125, 250, 500, 1000):
        yield rows, partial(TransferRegressor("MEGNet*").fit, *table(rows))


def sources() -> Iterator[Step]:
    """Rank for a table of 200 rows."""
    names, known = [card.name for card in all_cards()], table(200)
    for number in (14, 28, 56, 112):
        ranker = TransferabilityRanker(names[:number], head="kernel ridge", on_error="skip")
        yield number, partial(ranker.fit, *known)


def formulas() -> Iterator[Step]:
    """Predict new formulas by a model of 300 rows."""
    model = TransferRegressor("MEGNet*").fit(*table(300))
    found: set[str] = set()
    rng = np.random.default_rng(0)
    while len(found) < 8000:
        first, second = rng.choice(METALS, 2, replace=False)
        found.add(f"{first}{rng.integers(1, 90)}{second}{rng.integers(1, 9)}{rng.choice(ANIONS)}{rng.integers(1, 10)}")
    new = sorted(found)
    for number in (1000, 2000, 4000, 8000):
        yield number, partial(model.predict, new[:number])


def rows_of_library() -> Iterator[Step]:
    """Screen one network of a library (267-20-10-1): its embedding, and the error of ridge without each row."""
    rng = np.random.default_rng(0)
    widths = (267, 20, 10, 1)
    weights = tuple(rng.standard_normal((b, a)).astype(np.float32) for a, b in pairwise(widths))
    biases = tuple(np.zeros(width, np.float32) for width in widths[1:])
    network = Network(weights, biases, "leaky_relu", np.zeros(267), np.ones(267))
    for rows in (12_500, 25_000, 50_000, 100_000):
        yield rows, partial(_screen, network, rng.standard_normal((rows, 267)), rng.standard_normal(rows))


def _screen(network: Network, X: NDArray[np.float64], y: NDArray[np.float64]) -> float:
    return float(LOORidge().fit(network.forward(X)["readout"].astype(np.float64), y).score_)


def crystals() -> Iterator[Step]:
    """Encode crystals by MEGNet."""
    from scotl_matgl.chemistry.crystal_files import read_crystals

    encoder = select(all_cards(), "MEGNet-MP-2018.6.1-Eform")[0].load()
    path = Path(os.environ["SCOTL_MATGL_ASSETS"]) / "structures" / "crystals.json.gz"
    known = list(islice(read_crystals(path), 25_600))[::4]
    order = np.random.default_rng(0).permutation(len(known))  # they are sorted by size
    encoder.encode(known[:20])
    for number in (800, 1600, 3200, 6400):
        yield number, partial(encoder.encode, [known[at] for at in order[:number]])


def atoms() -> Iterator[Step]:
    """Encode one cell of rock salt by MEGNet; its edges grow with its atoms."""
    from pymatgen.core import Lattice, Structure

    encoder = select(all_cards(), "MEGNet-MP-2018.6.1-Eform")[0].load()
    salt = Structure.from_spacegroup("Fm-3m", Lattice.cubic(5.64), ["Na", "Cl"], [[0, 0, 0], [0.5, 0.5, 0.5]])
    encoder.encode([salt])
    for times in ((4, 4, 4), (8, 4, 4), (8, 8, 4), (8, 8, 8)):
        cell = salt.copy()
        cell.make_supercell(times)
        cell.perturb(0.05)  # equal atoms would be computed once
        yield len(cell), partial(encoder.encode, [cell])


CASES: dict[str, Callable[[], Iterator[Step]]] = {
    "rows, ranking": rows_of_ranking,
    "rows, fitting": rows_of_model,
    "sources, ranking": sources,
    "formulas, predicting": formulas,
    "rows, one network of a library": rows_of_library,
    "crystals, encoding": crystals,
    "atoms of a cell, encoding": atoms,
}


def main() -> None:
    """Measure, and print one line for each case."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cases", nargs="+", choices=CASES, default=list(CASES), metavar="CASE")
    warnings.simplefilter("ignore")  # of rows and sources that are skipped
    print("| what | sizes | CPU, s | power |\n| --- | --- | --- | ---: |")
    for name in parser.parse_args().cases:
        sizes: list[int] = []
        seconds: list[float] = []
        for size, work in CASES[name]():
            if not sizes:
                work()  # imports, and what is read once
            started = time.process_time()
            work()
            sizes.append(size)
            seconds.append(time.process_time() - started)
        power = np.log(seconds[-1] / seconds[-2]) / np.log(sizes[-1] / sizes[-2])
        shown = ", ".join(f"{item:.2g}" for item in seconds)
        print(f"| {name} | {', '.join(map(str, sizes))} | {shown} | {power:.2f} |", flush=True)


if __name__ == "__main__":
    main()
