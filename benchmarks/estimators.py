"""Cost of the shared spectrum against scores computed one by one, as their public formulas are usually coded.

Both sides run alternately in one process on one thread, so that the ratio does not depend on the machine being busy.
Run ``python benchmarks/estimators.py`` (one to two minutes); it prints a markdown table.
"""

from __future__ import annotations

import argparse
import time
import warnings
from collections.abc import Callable

import numpy as np
from sklearn.covariance import ledoit_wolf
from threadpoolctl import threadpool_limits

from scotl_matgl.estimators import SCOTL, HScore, LogME, LOORidge, TransRate
from scotl_matgl.estimators.base import quantile_bins
from scotl_matgl.estimators.spectrum import Spectra
from scotl_matgl.exceptions import DegenerateScoreWarning

CLASSES = 5
TARGETS = {(5000, 1024): 5.0, (5000, 160): 2.0, (500, 1024): 20.0}


# The usual way: each score from the embedding anew. Written from the papers' formulas.


def usual_logme(F: np.ndarray, y: np.ndarray) -> float:
    n, d = F.shape
    if n > d:
        _, squares, Vt = np.linalg.svd(F.T @ F)
        s = np.sqrt(squares)
        U = (F @ Vt.T) / s
    else:
        U, s, _ = np.linalg.svd(F, full_matrices=False)
    squares, z = s**2, U.T @ y
    outside = y @ y - z @ z
    alpha = beta = 1.0
    for _ in range(200):
        previous = alpha / beta
        gamma = np.sum(beta * squares / (alpha + beta * squares))
        m2 = np.sum(beta**2 * squares * z**2 / (alpha + beta * squares) ** 2)
        residual = np.sum(z**2 / (1 + beta / alpha * squares) ** 2) + outside
        alpha, beta = gamma / m2, (n - gamma) / residual
        if abs(alpha / beta - previous) <= 1e-8 * previous:
            break
    # The determinant over min(n, d) values: right for n < d too, where the published line is not.
    return float(
        0.5
        * (
            n * np.log(beta)
            - np.sum(np.log1p(beta / alpha * squares))
            - beta * residual
            - alpha * m2
            - n * np.log(2 * np.pi)
        )
        / n
    )


def class_means(F: np.ndarray, labels: np.ndarray) -> np.ndarray:
    means = np.zeros_like(F)
    for c in np.unique(labels):
        means[labels == c] = F[labels == c].mean(axis=0)
    return means


def usual_hscore(F: np.ndarray, labels: np.ndarray) -> float:
    covariance = np.cov(F, rowvar=False)
    between = np.cov(class_means(F, labels), rowvar=False)
    return float(np.trace(np.linalg.pinv(covariance, rcond=1e-15) @ between))


def usual_regularised_hscore(F: np.ndarray, labels: np.ndarray) -> float:
    F = F - F.mean(axis=0)
    covariance, shrinkage = ledoit_wolf(F)  # in blocks of 1000 columns
    between = np.cov(np.sqrt(1 - shrinkage) * class_means(F, labels), rowvar=False)
    return float(np.trace(np.linalg.pinv(covariance, rcond=1e-15) @ between))


def usual_transrate(F: np.ndarray, labels: np.ndarray) -> float:
    def rate(A: np.ndarray) -> float:
        n, d = A.shape
        return 0.5 * float(np.linalg.slogdet(np.eye(d) + A.T @ A / (n * 1e-4))[1])

    F = F - F.mean(axis=0)
    classes = np.unique(labels)
    return rate(F) - sum(rate(F[labels == c]) for c in classes) / classes.size


def usual(F: np.ndarray, y: np.ndarray, labels: np.ndarray) -> list[float]:
    return [
        usual_logme(F, y),
        usual_hscore(F, labels),
        usual_regularised_hscore(F, labels),
        usual_transrate(F, labels),
    ]


def ours(F: np.ndarray, y: np.ndarray, labels: np.ndarray) -> list[float]:
    shared = Spectra(F)
    members = ((LogME(), y), (HScore(regularized=False), labels), (HScore(), labels), (TransRate(), labels))
    return [estimator.fit(shared, target).score_ for estimator, target in members]


def embedding(n: int, d: int, seed: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    # Spectra of read-out layers fall off: a power law over two decades. Their means are 0, as the usual LogME assumes.
    F = rng.normal(size=(n, d)) * np.geomspace(1.0, 0.1, d)
    F -= F.mean(axis=0)
    y = F @ rng.normal(size=d) / np.sqrt(d) + 0.3 * rng.normal(size=n)
    return F, y - y.mean(), quantile_bins(y, CLASSES)


def seconds(function: Callable[[], object]) -> float:
    start = time.perf_counter()
    function()
    return time.perf_counter() - start


def compare(n: int, d: int, repeats: int) -> tuple[float, float, float]:
    data = embedding(n, d, seed=0)
    usual_scores, our_scores = usual(*data), ours(*data)
    # Where n ≤ d the plain H-score is a constant (ours is NaN) and the usual LogME has no maximum on centred data.
    same = [2, 3] if n <= d else [0, 1, 2, 3]
    np.testing.assert_allclose(np.take(our_scores, same), np.take(usual_scores, same), rtol=1e-5)
    pairs = [(seconds(lambda: usual(*data)), seconds(lambda: ours(*data))) for _ in range(repeats)]
    slow, fast = np.median(pairs, axis=0)
    return float(slow), float(fast), float(np.median([a / b for a, b in pairs]))


def ranking(n: int = 5000, d: int = 160, sources: int = 40) -> float:
    """Seconds spent in the default estimators for a ranking."""
    spent = 0.0
    for seed in range(sources):
        F, y, _ = embedding(n, d, seed)
        F = F.astype(np.float32)  # as encoders give it
        start = time.perf_counter()
        shared = Spectra(F)
        for estimator in (LOORidge(), LogME(), SCOTL()):
            estimator.fit(shared, y)
        spent += time.perf_counter() - start
    return spent


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repeats", type=int, default=5)
    repeats = parser.parse_args().repeats
    with threadpool_limits(1), warnings.catch_warnings():
        warnings.simplefilter("ignore", DegenerateScoreWarning)
        print("LogME, H-score, regularised H-score and TransRate of one embedding; one thread, median of pairs\n")
        print("| n × d | usual, s | shared spectrum, s | ratio | asked for |")
        print("| --- | --- | --- | --- | --- |")
        for (n, d), target in TARGETS.items():
            slow, fast, ratio = compare(n, d, repeats)
            print(f"| {n} × {d} | {slow:.3f} | {fast:.4f} | {ratio:.1f} | ≥ {target:g} |", flush=True)
        print(f"\nLOO, LogME and SCOTL for 40 sources, 5000 × 160: {ranking():.2f} s (asked for: < 3 s)")


if __name__ == "__main__":
    main()
