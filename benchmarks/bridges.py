"""Held-out R² of kinds of bridges for one source, all on the same crystals and the same held-out chemical systems.

    OMP_NUM_THREADS=1 python benchmarks/bridges.py [--crystals 10000] [--source MEGNet-MP-2018.6.1-Eform] [--only mlp]

Embeddings come from the user's store, where `scotl-matgl encode` puts them; those that are missing are encoded.
Prints a line of a table as soon as it is known; times are of CPU.
"""

from __future__ import annotations

import argparse
import os
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from scotl_matgl.bridges.adversarial import AdversarialBridge
from scotl_matgl.bridges.alignment import AlignmentBridge
from scotl_matgl.bridges.base import Bridge, BridgeQuality, split_by_group
from scotl_matgl.bridges.mlp import MLPBridge
from scotl_matgl.bridges.ridge import RidgeBridge
from scotl_matgl.chemistry.corpus import Corpus
from scotl_matgl.descriptors.composite import CompositeDescriptor, get_descriptor
from scotl_matgl.encoders.store import EmbeddingStore
from scotl_matgl.sources.cards import all_cards, select

Floats = NDArray[np.float32]
Predict = Callable[[NDArray[np.float64], Floats, NDArray[np.float64]], Floats]

WIDE = ("standard", "megnet_el", "matscholar_el", "deml")


def plain(bridge: Bridge) -> Predict:
    def predict(X: NDArray[np.float64], Z: Floats, X_new: NDArray[np.float64]) -> Floats:
        # `fit` would fit a second time, on the held-out rows too, which is not needed here.
        bridge.n_features_in_ = X.shape[1]
        bridge._fit_rows(X, Z)
        return bridge.transform(X_new)

    return predict


def low_rank(bridge: Bridge, rank: int) -> Predict:
    """Estimate the first principal components of the standardised embedding only."""

    def predict(X: NDArray[np.float64], Z: Floats, X_new: NDArray[np.float64]) -> Floats:
        mean, scale = Z.mean(axis=0), np.maximum(Z.std(axis=0), 1e-6)
        axes = np.linalg.svd((Z - mean) / scale, full_matrices=False)[2][:rank]
        return plain(bridge)(X, (Z - mean) / scale @ axes.T, X_new) @ axes * scale + mean

    return predict


def ensemble(bridges: list[Bridge]) -> Predict:
    return lambda X, Z, X_new: np.mean([plain(bridge)(X, Z, X_new) for bridge in bridges], axis=0)


VARIANTS: dict[str, tuple[tuple[str, ...], Callable[[], Predict]]] = {
    "ridge": (("standard",), lambda: plain(RidgeBridge())),
    "mlp 256 × 3 (default)": (("standard",), lambda: plain(MLPBridge())),
    "mlp 512 × 2": (("standard",), lambda: plain(MLPBridge(hidden=(512, 512)))),
    "mlp, two seeds averaged": (("standard",), lambda: ensemble([MLPBridge(), MLPBridge(random_state=1)])),
    "mlp, four seeds averaged": (
        ("standard",),
        lambda: ensemble([MLPBridge(random_state=seed) for seed in range(4)]),
    ),
    "mlp, 60 principal components": (("standard",), lambda: low_rank(MLPBridge(), 60)),
    "mlp, 20 principal components": (("standard",), lambda: low_rank(MLPBridge(), 20)),
    "mlp, four descriptors side by side": (WIDE, lambda: plain(MLPBridge())),
    "mlp, four descriptors, two seeds averaged": (WIDE, lambda: ensemble([MLPBridge(), MLPBridge(random_state=1)])),
    "alignment, threshold 0": (("standard",), lambda: plain(AlignmentBridge())),
    "alignment, threshold 0.01 (SCOTL's)": (("standard",), lambda: plain(AlignmentBridge(threshold=0.01))),
    "adversarial, critic of the embedding alone (CroMEL's)": (
        ("standard",),
        lambda: plain(AdversarialBridge(critic="marginal")),
    ),
    "adversarial, critic of descriptor and embedding": (("standard",), lambda: plain(AdversarialBridge())),
    "adversarial, critic of both, learning rate 1e-3": (
        ("standard",),
        lambda: plain(AdversarialBridge(learning_rate=1e-3)),
    ),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--crystals", type=int, default=10_000)
    parser.add_argument("--source", default="MEGNet-MP-2018.6.1-Eform")
    parser.add_argument("--only", default="", help="variants whose name contains one of these, separated by |")
    arguments = parser.parse_args()

    corpus = Corpus.read(Path(os.environ["SCOTL_MATGL_ASSETS"]) / "structures" / "crystals.json.gz").one_per_formula()
    (card,) = select(all_cards(), arguments.source)
    embedding = EmbeddingStore().encode(card.load(), corpus, layers=("readout",)).embeddings["readout"]
    rows = np.flatnonzero(np.isfinite(embedding).all(axis=1))
    if arguments.crystals < len(rows):
        rows = np.sort(np.random.default_rng(0).choice(rows, arguments.crystals, replace=False))
    crystals, Z = Corpus(corpus[int(row)] for row in rows), embedding[rows]
    held_out = split_by_group([crystal.chemical_system for crystal in crystals], 0.1, 0)
    print(f"{card.name}: {np.sum(~held_out)} crystals to fit, {np.sum(held_out)} held out\n")
    print("| bridge | held-out R², median | mean | centred cosine | CPU, s |\n| --- | ---: | ---: | ---: | ---: |")
    described: dict[tuple[str, ...], NDArray[np.float64]] = {}
    for name, (parts, variant) in VARIANTS.items():
        if not any(part in name for part in arguments.only.split("|")):
            continue
        if parts not in described:
            descriptor = get_descriptor(parts[0]) if len(parts) == 1 else CompositeDescriptor(list(parts))
            described[parts] = np.asarray(descriptor.fit(crystals.compositions).transform(crystals.compositions))
        X = described[parts]
        started = time.process_time()
        estimated = variant()(X[~held_out], Z[~held_out], X[held_out])
        seconds = time.process_time() - started
        quality = BridgeQuality.of(Z[held_out], estimated, Z[~held_out].mean(axis=0), int(np.sum(~held_out)))
        print(
            f"| {name} | {quality.median_r2:.3f} | {quality.mean_r2:.3f} | {quality.cosine_centred:.3f} | "
            f"{seconds:.0f} |",
            flush=True,
        )


if __name__ == "__main__":
    main()
