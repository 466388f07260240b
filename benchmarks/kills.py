"""Kill processes that share one home, at any moment, and count what is wrong, half or lost afterwards.

Eight processes encode, save a bridge, add rows to one results file and delete chunks at random, all in one folder;
again and again one of them is killed (SIGKILL) and another takes its place. What a process reads is compared with what
must stand there; a row counts as lost if the file lacks it although the process went on after adding it. At last one
more process starts, which must find everything, and leave no unfinished file.

    python benchmarks/kills.py --kills 1000
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import random
import signal
import sys
import tempfile
import time
import warnings
from pathlib import Path
from typing import Any

import numpy as np

from scotl_matgl.bridges.base import Bridge, load_bridge
from scotl_matgl.bridges.cache import damage_of, list_cache
from scotl_matgl.bridges.ridge import RidgeBridge
from scotl_matgl.chemistry.crystals import Crystal
from scotl_matgl.encoders.contracts import Encoded
from scotl_matgl.encoders.store import EmbeddingStore
from scotl_matgl.exceptions import StoredFileWarning
from scotl_matgl.sources.cards import SourceCard
from scotl_matgl.storage import home
from scotl_matgl.studies.records import ResultsFile

N_SOURCES, CHUNK = 12, 4
COLUMNS = ("worker", "turn", "value")
CRYSTALS = [
    Crystal((3 + index / 10) * np.eye(3), np.zeros((1, 3)), np.array([index % 90 + 1], dtype=np.int16), f"c{index}")
    for index in range(16)
]


def card_of(number: int) -> SourceCard:
    facts = dict.fromkeys(("zoo", "property", "unit", "dataset", "architecture", "licence", "citation"), "x")
    weights = {"model": f"{number:064x}"}
    return SourceCard(
        name=f"Toy-{number}", modality="structure", layers={"readout": 64}, loader="toy:load", weights=weights, **facts
    )


def expected(number: int) -> Any:
    return np.stack([crystal.volume * np.arange(64) + number for crystal in CRYSTALS]).astype(np.float32)


class Toy:
    """An encoder whose embeddings are known."""

    def __init__(self, number: int) -> None:
        self.number, self.card, self.layers = number, card_of(number), ("readout",)

    def encode_layers(self, structures: Any, **_: Any) -> Encoded:
        """Embeddings that tell crystals and sources apart."""
        values = [crystal.volume * np.arange(64) + self.number for crystal in structures]
        return Encoded({"readout": np.stack(values).astype(np.float32)})


def results_file() -> ResultsFile:
    return ResultsFile(home() / "results.csv", key=COLUMNS[:2], columns=COLUMNS)


def check(number: int) -> None:
    found = EmbeddingStore().encode(Toy(number), CRYSTALS, chunk=CHUNK)  # type: ignore[arg-type]
    np.testing.assert_array_equal(found.embeddings["readout"], expected(number))


def work(worker: int, bridge: Bridge, acknowledged: Path) -> None:
    """Go on until killed; a wrong value, or a warning of a damaged file, ends the process with 1."""
    warnings.simplefilter("error", StoredFileWarning)
    luck = random.Random(worker)  # noqa: S311 - not for secrets
    results = results_file()
    note = os.open(acknowledged, os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    for turn in range(10**6):
        number = luck.randrange(N_SOURCES)
        for path in EmbeddingStore().folder(card_of(number)).glob("*.safetensors"):
            if luck.random() < 0.3:
                path.unlink(missing_ok=True)
        check(number)
        results.add([{"worker": worker, "turn": turn, "value": worker / (turn + 1)}])
        os.write(note, f"{worker},{turn}\n".encode())
        path = home() / "bridges" / "Toy.safetensors"
        bridge.save(path)
        np.testing.assert_array_equal(load_bridge(path).weights_["output_mean"], bridge.weights_["output_mean"])


def run(n_kills: int, n_processes: int) -> dict[str, int]:
    """Kill, start again, and count."""
    context = multiprocessing.get_context("fork")
    rng = np.random.default_rng(0)
    bridge = RidgeBridge().fit(rng.normal(size=(60, 12)), rng.normal(size=(60, 6)))
    acknowledged = home() / "acknowledged.txt"
    luck = random.Random(0)  # noqa: S311
    wrong, started = 0, 0
    running: list[Any] = []
    for _ in range(n_kills):
        while len(running) < n_processes:
            running.append(context.Process(target=work, args=(started, bridge, acknowledged)))
            running[-1].start()
            started += 1
        time.sleep(luck.uniform(0.0, 0.05))
        victim = running.pop(luck.randrange(len(running)))
        victim.kill()
        victim.join()
        wrong += victim.exitcode != -signal.SIGKILL
    for process in running:
        process.kill()
        process.join()
        wrong += process.exitcode != -signal.SIGKILL

    orphans_before = sum(file.kind == "unfinished" for file in list_cache())
    half = sum(bool(damage_of(file)) for file in list_cache())
    last = context.Process(target=finish, args=(bridge,))  # the next start
    last.start()
    last.join()
    rows = results_file().rows
    noted = [tuple(line.split(",")) for line in acknowledged.read_text().splitlines()]
    values = [float(row["value"]) == int(row["worker"]) / (int(row["turn"]) + 1) for row in rows.values()]
    return {
        "kills": n_kills,
        "rows": len(noted),
        "unfinished files before the next start": orphans_before,
        "wrong": wrong + (last.exitcode != 0) + values.count(False),
        "half": half + sum(bool(damage_of(file)) for file in list_cache()),
        "lost": sum(key not in rows for key in noted),
        "orphans": sum(file.kind == "unfinished" for file in list_cache()),
    }


def finish(bridge: Bridge) -> None:
    """What the next start does: all of it, once."""
    warnings.simplefilter("error", StoredFileWarning)
    for number in range(N_SOURCES):
        check(number)
    results_file().add([{"worker": -1, "turn": 0, "value": -1.0}])
    bridge.save(home() / "bridges" / "Toy.safetensors")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=1000)
    parser.add_argument("--processes", type=int, default=8)
    arguments = parser.parse_args()
    started = time.perf_counter()
    with tempfile.TemporaryDirectory() as folder:
        os.environ["SCOTL_MATGL_HOME"] = folder
        counts = run(arguments.kills, arguments.processes)
    for name, count in counts.items():
        print(f"{count:8d}  {name}")
    print(f"{time.perf_counter() - started:8.0f}  seconds")
    sys.exit(1 if any(counts[name] for name in ("wrong", "half", "lost", "orphans")) else 0)


if __name__ == "__main__":
    main()
