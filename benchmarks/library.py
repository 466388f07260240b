"""Rank a library of very many small networks: time, memory, a kill in the middle, and the first against an oracle.

    python benchmarks/library.py make LIBRARY --networks 140000
    python benchmarks/library.py rank LIBRARY --rows 500 --jobs 2
    python benchmarks/library.py kill LIBRARY --rows 500 --jobs 2
    python benchmarks/library.py oracle LIBRARY --rows 500 --networks 2000

The networks are 267-w-10-1 on the descriptor `standard`, with w from 12 to 28 and weights drawn at random: what they
cost is what trained ones cost. Needs the plugin scotl-matgl-shotgun.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import resource
import signal
import subprocess
import sys
import tempfile
import time
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np

from scotl_matgl.descriptors.composite import get_descriptor
from scotl_matgl.descriptors.described import Described
from scotl_matgl.tables.files import load_example
from scotl_matgl.tables.rows import Rows

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "plugins" / "scotl-matgl-shotgun"))

from scotl_matgl_shotgun import Library, LibraryWriter, Network, Record  # noqa: E402


def table(n_rows: int) -> tuple[list[str], np.ndarray]:
    """Rows of the example table, drawn at random."""
    frame = load_example()
    chosen = frame.drop_duplicates("formula").sample(n_rows, random_state=0)
    return list(chosen["formula"]), chosen["target"].to_numpy()


def make(path: Path, n_networks: int) -> None:
    """Write a library of random networks."""
    formulas = list(load_example()["formula"])
    descriptor = get_descriptor("standard").fit(formulas)
    X = np.nan_to_num(descriptor.transform(formulas))
    mean, scale = X.mean(axis=0), np.where(X.std(axis=0) > 0, X.std(axis=0), 1.0)
    fingerprint = descriptor.fingerprint()
    with LibraryWriter(path, licence="CC0", citation="random numbers") as writer:
        for seed in range(len(writer), n_networks):
            rng = np.random.default_rng(seed)
            widths = (X.shape[1], int(rng.integers(12, 29)), 10, 1)
            weights = tuple(
                (rng.standard_normal((b, a), dtype=np.float32) / np.float32(a**0.5)) for a, b in pairwise(widths)
            )
            biases = tuple(rng.standard_normal(b, dtype=np.float32) for b in widths[1:])
            record = Record(
                name=f"random-{seed:06d}",
                property=f"property {seed % 50}",
                unit="1",
                descriptor="standard",
                fingerprint=fingerprint,
                dataset="random numbers",
                widths=widths,
                activation="leaky_relu",
                seed=seed,
                n_train=1000,
                error=1.0,
            )
            writer.add(record, Network(weights, biases, "leaky_relu", mean, scale))


def rank(path: Path, n_rows: int, jobs: int, scores: Path | None, limit: int | None = None) -> dict[str, Any]:
    """Rank the library; what came out, and what it cost."""
    formulas, y = table(n_rows)
    started, steps = time.perf_counter(), []

    def progress(done: int, total: int) -> None:
        seconds = time.perf_counter() - started
        if not steps or seconds - steps[-1] > 10:
            steps.append(seconds)
            print(f"{done} of {total}, {seconds:.0f} s, about {seconds * (total - done) / done:.0f} s left", flush=True)

    library = Library(path)
    ranking = library.rank(formulas, y, library.query(limit=limit), path=scores, n_jobs=jobs, progress=progress)
    return {
        "wall_s": round(time.perf_counter() - started, 1),
        "cpu_s": round(time.process_time(), 1),
        "peak_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024,
        "head": ranking.head,
        "errors": len(ranking.errors),
        "verdict": ranking.verdict,
        "probability": round(ranking.probability, 3),
        "measured": list(ranking.sources),
        "losses": hashlib.sha256(ranking.losses.tobytes()).hexdigest(),
        "screened": [[result.source, result.loo_rmse] for result in ranking.screened],
    }


def told(found: dict[str, Any]) -> str:
    """Cost of a run, and its first networks."""
    told = {key: found[key] for key in ("wall_s", "cpu_s", "peak_mb", "head", "errors", "verdict", "probability")}
    return json.dumps(
        {**told, "networks": len(found["measured"]) + len(found["screened"]), "first": found["measured"][:3]}
    )


def lines(path: Path) -> int:
    return path.read_bytes().count(b"\n") if path.exists() else 0


def kill(path: Path, n_rows: int, jobs: int, share: float) -> None:
    """Kill a run with SIGKILL in the middle, let another one go on, and compare with a whole run."""
    n_networks = sum(1 for _ in Library(path))
    with tempfile.TemporaryDirectory() as folder:
        scores, command = Path(folder) / "scores.jsonl", [sys.executable, __file__, "rank", str(path)]
        command += ["--rows", str(n_rows), "--jobs", str(jobs)]
        with subprocess.Popen([*command, "--scores", str(scores)], stdout=subprocess.DEVNULL) as run:  # noqa: S603
            while lines(scores) < share * n_networks:
                assert run.poll() is None, "it ended before it could be killed"
                time.sleep(0.5)
            os.kill(run.pid, signal.SIGKILL)
        print(f"killed with {lines(scores) - 1} networks in the file")
        found = []
        for options in (["--scores", str(scores)], []):
            result = Path(folder) / "result.json"
            subprocess.run([*command, *options, "--output", str(result)], check=True, stdout=subprocess.DEVNULL)  # noqa: S603
            found.append(json.loads(result.read_text()))
            print("resumed:" if options else "whole:", told(found[-1]))
    same = all(found[0][key] == found[1][key] for key in ("measured", "losses", "screened", "errors"))
    print("the same ranking, bit for bit" if same else "ANOTHER RANKING")


def criterion(Z: np.ndarray, y: np.ndarray) -> float:
    """Leave-one-out mean absolute error of ridge, one fit for each row and penalty."""
    n, d = Z.shape
    spread = Z.std(axis=0)
    F = (Z - Z.mean(axis=0)) / np.where(spread > 1e-12, spread, np.inf)
    alphas = np.geomspace(5e-5, 100.0 * n, 31) * (F**2).sum() / n
    errors = np.empty((n, len(alphas)))
    for i in range(n):
        others = np.arange(n) != i
        means, mean = F[others].mean(axis=0), y[others].mean()
        A, b = F[others] - means, y[others] - mean
        weights = np.linalg.solve(A.T @ A + alphas[:, None, None] * np.eye(d), np.tile(A.T @ b, (31, 1))[:, :, None])
        errors[i] = y[i] - mean - weights[:, :, 0] @ (F[i] - means)
    return float(np.abs(errors[:, (errors**2).sum(axis=0).argmin()]).mean())


def oracle(path: Path, n_rows: int, n_networks: int) -> None:
    """Compare the order of the screen with the criterion computed by refitting ridge for every row."""
    found = rank(path, n_rows, 1, None, n_networks)
    formulas, y = table(n_rows)
    rows = Rows.read(formulas, y)
    described = Described.of(rows.formulas, get_descriptor("standard").fit(rows.formulas))
    library = Library(path)
    expected = {
        record.name: criterion(library.network(record).forward(described.X)["readout"].astype(np.float64), rows.y)
        for record in library.query(limit=n_networks)
    }
    order = sorted(expected, key=lambda name: (expected[name], name))
    k = len(found["measured"])
    print(f"the first {k} of {n_networks} are those of the oracle: {set(order[:k]) == set(found['measured'])}")
    print(f"the order of all others is: {order[k:] == [name for name, _ in found['screened']]}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=("make", "rank", "kill", "oracle"))
    parser.add_argument("library", type=Path)
    parser.add_argument("--networks", type=int, default=1000, help="make, oracle: so many")
    parser.add_argument("--rows", type=int, default=500)
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument("--scores", type=Path, help="rank: file from which it can be resumed")
    parser.add_argument("--output", type=Path, help="rank: file for the result")
    parser.add_argument("--share", type=float, default=0.5, help="kill: when so much is done")
    options = parser.parse_args()
    if options.what == "make":
        make(options.library, options.networks)
    elif options.what == "kill":
        kill(options.library, options.rows, options.jobs, options.share)
    elif options.what == "oracle":
        oracle(options.library, options.rows, options.networks)
    else:
        found = rank(options.library, options.rows, options.jobs, options.scores)
        print(told(found))
        if options.output:
            options.output.write_text(json.dumps(found))


if __name__ == "__main__":
    main()
