"""Crystals per second of our encoders beside MatGL's own `predict_structure` loop, in one process, on one thread.

    OMP_NUM_THREADS=1 python benchmarks/encoding.py [--crystals 512] [--loop 96] [--sources 'MEGNet*' ...]

Both run over the same `--loop` crystals, in turn, three times; a ratio is of CPU time, which other programs disturb
less than the clock, and the median of the three is shown. The throughput is over all `--crystals`. The sample is
seeded.
"""

from __future__ import annotations

import argparse
import gzip
import json
import os
import statistics
import time
import warnings
from collections.abc import Callable
from pathlib import Path

import numpy as np

from scotl_matgl.encoders.matgl import MatGLEncoder
from scotl_matgl.encoders.weights import find_model
from scotl_matgl.sources import zoo
from scotl_matgl.sources.cards import SourceCard, select

REQUIRED = {"MEGNet": 7.0, "M3GNet": 1.8, "TensorNet": 1.0}


def sample(n_crystals: int) -> list[object]:
    from pymatgen.core import Structure

    path = Path(os.environ["SCOTL_MATGL_ASSETS"]) / "structures" / "crystals.json.gz"
    with gzip.open(path, "rt") as file:
        records = json.load(file)
    rows = np.random.default_rng(0).choice(len(records), n_crystals, replace=False)
    return [Structure.from_str(records[row]["structure"], fmt="poscar") for row in rows]


def matgl_loop(card: SourceCard) -> Callable[[list[object]], None]:
    import matgl
    import torch

    model = matgl.load_model(find_model(card))
    options = {}
    if "state" in card.options:
        options["state_attr"] = torch.tensor([card.options["state"]])
    if card.architecture == "QET":
        options["total_charge"] = torch.zeros(1)
    predict = model.predict_structure if hasattr(model, "predict_structure") else model.model.predict_structure

    def loop(structures: list[object]) -> None:
        for structure in structures:
            predict(structure, **options)

    return loop


def cpu_seconds(call: Callable[[], object]) -> float:
    start = time.process_time()
    call()
    return time.process_time() - start


def measure(card: SourceCard, structures: list[object], n_loop: int) -> str:
    encoder: MatGLEncoder = card.load()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of MatGL's loop; ours must be quiet by itself
        loop = matgl_loop(card)
        loop(structures[:4])
        encoder.encode(structures[:4])
        few = structures[:n_loop]
        pairs = [(cpu_seconds(lambda: loop(few)), cpu_seconds(lambda: encoder.encode(few))) for _ in range(3)]
    started = time.perf_counter()
    seconds = cpu_seconds(lambda: encoder.encode(structures))
    wall = time.perf_counter() - started
    refused = len(encoder.encode_layers(structures, layers=("final",)).refused)
    ratio = statistics.median(theirs / ours for theirs, ours in pairs)
    theirs, ours = (1e3 * statistics.median(times) / n_loop for times in zip(*pairs, strict=True))
    required = REQUIRED.get(card.architecture)
    return (
        f"| {card.name} | {theirs:.2f} | {ours:.2f} | {ratio:.2f} | {required or '-'} "
        f"| {len(structures) / seconds:.0f} | {len(structures) / wall:.0f} | {refused} |"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--crystals", type=int, default=512)
    parser.add_argument("--loop", type=int, default=96)
    parser.add_argument("--sources", nargs="*", default=["*"])
    arguments = parser.parse_args()
    structures = sample(arguments.crystals)
    cards = select(zoo.matgl(), arguments.sources)
    cards[0].load()  # chooses MatGL's backend before anything imports it

    import torch

    torch.set_num_threads(1)
    atoms = np.mean([len(structure) for structure in structures])  # type: ignore[arg-type]
    print(f"{len(structures)} crystals of {atoms:.1f} atoms on average; loop over {arguments.loop}")
    print()
    print(
        "| source | MatGL's loop, ms | ours, ms | ratio | required | crystals per CPU second | crystals per second "
        "| refused |"
    )
    print("| --- | --- | --- | --- | --- | --- | --- | --- |")
    for card in cards:
        print(measure(card, structures, arguments.loop), flush=True)


if __name__ == "__main__":
    main()
