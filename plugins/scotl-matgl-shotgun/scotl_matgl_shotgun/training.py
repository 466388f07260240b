"""Train a library: pyramid networks of random depth and width on bootstrap samples of a corpus."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from scotl_matgl.plugin import Corpus, Network, get_descriptor
from scotl_matgl_shotgun.errors import LibraryError
from scotl_matgl_shotgun.library import Library
from scotl_matgl_shotgun.records import Record
from scotl_matgl_shotgun.writer import LibraryWriter

Floats = NDArray[np.float64]

CITATION = (
    "scotl-matgl-shotgun; the procedure is that of H. Yamada, C. Liu, S. Wu, Y. Koyama, S. Ju, J. Shiomi, J. Morikawa, "
    "R. Yoshida, Predicting Materials Properties with Little Data Using Shotgun Transfer Learning, ACS Cent. Sci. 5, "
    "1717-1730 (2019), doi:10.1021/acscentsci.9b00804"
)


def train_library(
    path: str | Path,
    corpus: Corpus,
    properties: Mapping[str, str],
    n_networks: int,
    random_state: int = 0,
    *,
    dataset: str,
    licence: str,
    descriptor: str = "standard",
    n_samples: int | None = None,
    n_epochs: int = 60,
    batch_size: int = 128,
    learning_rate: float = 2e-3,
    weight_decay: float = 0.0,
    activation: str = "leaky_relu",
    depth: tuple[int, int] = (3, 6),
    width: tuple[int, int] = (16, 256),
    shard_size: int = 256,
    citation: str = CITATION,
    progress: Callable[[int, Record], None] | None = None,
) -> Library:
    """Train networks and write them as a library; called again with the same arguments, go on where it stopped.

    Each network has its own random choices, which depend on `random_state` and its number alone: number of hidden
    layers, width of the first and last of them (those between fall in equal ratios: a pyramid), and a bootstrap sample
    of the materials. Its error is the mean absolute one on the materials that are not in its sample.

    Parameters
    ----------
    path : path-like
        The folder.
    corpus : Corpus
        One crystal per composition is used, see ``Corpus.one_per_formula``.
    properties : mapping of str to str
        Properties of the crystals to train on, with their units; networks take them in turn.
    n_networks : int
        In all. A larger number than before adds networks to the library.
    random_state : int, default=0
    dataset, licence : str
        What the corpus is, and the licence of networks trained on it, for the cards.
    descriptor : str, default="standard"
        Registered name.
    n_samples : int, optional
        Most rows of a bootstrap sample; as many as there are materials by default.
    n_epochs, batch_size : int
    learning_rate, weight_decay : float
    activation : {"leaky_relu", "relu", "silu", "identity"}
        See :func:`train_network`.
    depth : tuple of int, default=(3, 6)
        Least and largest number of hidden layers.
    width : tuple of int, default=(16, 256)
        Least width of the last and largest of the first hidden layer.
    shard_size : int
        Networks a shard; an interrupted run loses one shard at most.
    citation : str
        For the cards.
    progress : callable, optional
        Called with the number of networks done and the last one's record.

    Returns
    -------
    Library

    Raises
    ------
    LibraryError
        If a property is known for too few materials, or the folder holds a library of other settings.

    Notes
    -----
    Needs torch. One thread trains a network on 1,900 rows in about 1 s.
    """
    if not 1 <= depth[0] <= depth[1] or not 1 <= width[0] <= width[1]:
        raise LibraryError(f"depth {depth} and width {width} must each be a least and a largest number, at least 1")
    if isinstance(random_state, bool) or not isinstance(random_state, int) or random_state < 0:
        raise LibraryError(f"random_state is {random_state!r}; it must be an integer of at least 0, to be resumable")
    names = list(properties)
    if not names or n_networks < 1:
        raise LibraryError(f"{n_networks} networks for {len(names)} properties: at least one of each is needed")
    learning: dict[str, Any] = {
        "activation": activation,
        "n_epochs": n_epochs,
        "batch_size": batch_size,
        "learning_rate": learning_rate,
        "weight_decay": weight_decay,
    }
    described = get_descriptor(descriptor).fit(corpus.compositions)
    shared = {"descriptor": descriptor, "fingerprint": described.fingerprint(), "dataset": dataset}
    made_by = {
        "corpus": corpus.hash,
        "properties": dict(properties),
        "random_state": random_state,
        "n_samples": n_samples,
        "depth": list(depth),
        "width": list(width),
        **shared,
        **learning,
    }
    chosen = corpus.one_per_formula()
    targets = _targets(chosen, names)
    with LibraryWriter(path, licence=licence, citation=citation, made_by=made_by, shard_size=shard_size) as writer:
        if len(writer) < n_networks:
            X = np.asarray(described.transform(chosen.compositions), dtype=np.float64)
        for number in range(len(writer), n_networks):
            name = names[number % len(names)]
            seeds = np.random.SeedSequence([random_state, number])
            rng = np.random.default_rng(seeds)
            seed = int(seeds.generate_state(1)[0])
            sample, held_out = _bootstrap(np.flatnonzero(np.isfinite(targets[name])), n_samples, rng)
            hidden = pyramid(depth, width, rng)
            network = train_network(X[sample], targets[name][sample, None], hidden, seed=seed, **learning)
            predicted = network.forward(X[held_out])["final"][:, 0]
            record = Record(
                name=f"shotgun-{name}-{random_state}-{number:06d}",
                property=name,
                unit=properties[name],
                widths=network.widths,
                activation=activation,
                error=float(np.abs(predicted - targets[name][held_out]).mean()),
                seed=seed,
                n_train=len(sample),
                **shared,
            )
            writer.add(record, network)
            if progress is not None:
                progress(number + 1, record)
    return Library(path)


def _targets(corpus: Corpus, names: Sequence[str]) -> dict[str, Floats]:
    """Values of each property; raise if one is known for too few materials to learn from."""
    targets = {name: corpus.values(name) for name in names}
    for name, values in targets.items():
        known = np.isfinite(values).sum()
        if known < 10:
            raise LibraryError(f"{name!r} is known for {known} materials of the corpus; at least 10 are needed")
    return targets


def _bootstrap(
    rows: NDArray[np.intp], n_samples: int | None, rng: np.random.Generator
) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """Rows drawn with replacement, and the rows that were not drawn (at least one: it is drawn again until so)."""
    while True:
        sample = rng.choice(rows, size=min(n_samples or len(rows), len(rows)))
        held_out = np.setdiff1d(rows, sample)
        if len(held_out):
            return sample, held_out


def pyramid(depth: tuple[int, int], width: tuple[int, int], rng: np.random.Generator) -> list[int]:
    """Widths of the hidden layers, falling in equal ratios; `depth` and `width` as in :func:`train_library`."""
    n = int(rng.integers(depth[0], depth[1], endpoint=True))
    middle = (width[0] * width[1]) ** 0.5
    first = rng.uniform(middle, width[1])
    last = rng.uniform(width[0], middle)
    return [round(value) for value in np.geomspace(first, last, n)] if n > 1 else [round(last)]


def train_network(
    X: Floats,
    Y: Floats,
    hidden: Sequence[int],
    *,
    activation: str = "leaky_relu",
    seed: int = 0,
    n_epochs: int = 60,
    batch_size: int = 128,
    learning_rate: float = 2e-3,
    weight_decay: float = 0.0,
) -> Network:
    """Train one network on one or several properties.

    Parameters
    ----------
    X : ndarray of float64, shape (n, p)
        Descriptors.
    Y : ndarray of float64, shape (n, t)
        Properties, NaN where one is not known. Each is standardised; of several, one that is known for fewer rows than
        another counts more a row, by the root of the ratio, so that the rare are not drowned by the frequent.
    hidden : sequence of int
        Widths of the hidden layers.
    activation : {"leaky_relu", "relu", "silu", "identity"}
    seed : int
    n_epochs, batch_size : int
    learning_rate, weight_decay : float
        Of Adam with decoupled weight decay, the rate falling to zero as a cosine; squared error.

    Returns
    -------
    Network
        Its output (t) is in the units of the properties.

    Raises
    ------
    LibraryError
        If the activation is not known, or a property has no value.
    """
    import torch
    from torch import nn

    functions: dict[str, Callable[[], nn.Module]] = {
        "leaky_relu": nn.LeakyReLU,
        "relu": nn.ReLU,
        "silu": nn.SiLU,
        "identity": nn.Identity,
    }
    if activation not in functions:
        raise LibraryError(f"activation is {activation!r}; it must be one of {', '.join(functions)}")
    known = np.isfinite(Y)
    counts = known.sum(axis=0)
    if not counts.all():
        raise LibraryError(f"property number {int(np.argmin(counts))} is known for no row; leave it out")
    mean, scale = X.mean(axis=0), X.std(axis=0)
    scale[scale < 1e-8 * (1 + np.abs(mean))] = 1.0  # constant in this sample
    centre, spread = np.nanmean(Y, axis=0), np.nanstd(Y, axis=0)
    spread[spread == 0] = 1.0
    with torch.random.fork_rng(devices=[]):  # the caller's random numbers stay as they are
        torch.manual_seed(seed)
        widths = [X.shape[1], *hidden, Y.shape[1]]
        layers = [nn.Linear(a, b) for a, b in pairwise(widths)]
        modules: list[nn.Module] = []
        for layer in layers[:-1]:
            modules += [layer, functions[activation]()]
        model = nn.Sequential(*modules, layers[-1])
        inputs = torch.from_numpy(((X - mean) / scale).astype(np.float32))
        wanted = torch.from_numpy(np.where(known, (Y - centre) / spread, 0.0).astype(np.float32))
        weight = torch.from_numpy((known * np.sqrt(counts.max() / counts)).astype(np.float32))
        optimizer = torch.optim.AdamW(model.parameters(), lr=learning_rate, weight_decay=weight_decay, fused=True)
        schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, n_epochs)
        for _ in range(n_epochs):
            for batch in torch.split(torch.randperm(len(inputs)), batch_size):
                optimizer.zero_grad()
                loss = (weight[batch] * (model(inputs[batch]) - wanted[batch]) ** 2).mean()
                loss.backward()  # type: ignore[no-untyped-call, unused-ignore]  # typed from torch 2.13 on
                optimizer.step()
            schedule.step()
    weights: list[Any] = [layer.weight.detach().numpy().copy() for layer in layers]
    biases: list[Any] = [layer.bias.detach().numpy().copy() for layer in layers]
    # The output is in the units of the properties, without a step of its own.
    weights[-1] = (weights[-1] * spread[:, None]).astype(np.float32)
    biases[-1] = (biases[-1] * spread + centre).astype(np.float32)
    return Network(tuple(weights), tuple(biases), activation, mean, scale)
