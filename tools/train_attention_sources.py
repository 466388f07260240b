"""Train the composition sources whose tokens are elements that attend to each other, and write them into the package.

    OMP_NUM_THREADS=1 python tools/train_attention_sources.py [--work FOLDER]

learns all calculated properties of ``tools/train_property_sources.py`` at once, from the same rows, once for each seed
(five minutes of one core each; a network that is finished is not trained again). Writes
``scotl_matgl/data/sources/attention.safetensors``, its manifest and the cards. Needs torch and SCOTL_MATGL_ASSETS.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn
from torch.nn.functional import silu, smooth_l1_loss
from train_property_sources import DATA, PROPERTIES, Data, Plan, facts, held_out, members, write_about

from scotl_matgl.chemistry.compositions import Compositions
from scotl_matgl.chemistry.elements import SYMBOLS
from scotl_matgl.encoders.attention import ElementAttention, load
from scotl_matgl.encoders.composition import NETWORKS_FILE, write_weights
from scotl_matgl.sources.cards import SourceCard, read_cards
from scotl_matgl.storage import home, installed_versions, read_tensors

FILE = "attention.safetensors"
SEEDS = (0, 1)

# Values further from the mean than so many standard deviations are learned as so many.
_FAR = 6.0
# Loss of a batch: quadratic below so many standard deviations, linear above.
_BEND = 0.5
# Batches are cut from so many at a time, sorted by the number of elements, so that few tokens are empty.
_SORTED = 16


@dataclass(frozen=True)
class Settings:
    """All that decides what a network learns, but the data and the seed."""

    width: int = 96
    n_layers: int = 3
    n_heads: int = 4
    n_readout: int = 96
    dropout: float = 0.25
    n_epochs: int = 40
    batch_size: int = 256
    learning_rate: float = 1.5e-3
    weight_decay: float = 0.2


class Layer(nn.Module):
    """Attention between the elements, and a hidden layer for each of them."""

    def __init__(self, d: int, n_heads: int) -> None:
        super().__init__()
        self.n_heads = n_heads
        self.norm_attention, self.norm_hidden = nn.LayerNorm(d), nn.LayerNorm(d)
        self.query_key_value, self.attention = nn.Linear(d, 3 * d), nn.Linear(d, d)
        self.up, self.down = nn.Linear(d, 2 * d), nn.Linear(2 * d, d)

    def forward(self, tokens: torch.Tensor, logarithm: torch.Tensor) -> torch.Tensor:
        """Tokens (n, m, d) after the layer, by the logarithms of their fractions (n, m)."""
        n, m, d = tokens.shape
        parts = self.query_key_value(self.norm_attention(tokens)).view(n, m, 3, self.n_heads, d // self.n_heads)
        query, key, value = parts.permute(2, 0, 3, 1, 4)
        scores = query @ key.transpose(-1, -2) / (d // self.n_heads) ** 0.5 + logarithm[:, None, None, :]
        tokens = tokens + self.attention((scores.softmax(-1) @ value).transpose(1, 2).reshape(n, m, d))
        return tokens + self.down(silu(self.up(self.norm_hidden(tokens))))


class Attention(nn.Module):
    """:class:`~scotl_matgl.encoders.attention.ElementAttention` while it learns."""

    def __init__(self, settings: Settings, vectors: NDArray[np.float32], n_final: int) -> None:
        super().__init__()
        d = settings.width
        self.n_heads = settings.n_heads
        self.register_buffer("vectors", torch.from_numpy(vectors))
        self.own = nn.Embedding(len(vectors), d)
        nn.init.normal_(self.own.weight, std=0.1)
        self.of_vectors, self.fraction = nn.Linear(vectors.shape[1], d), nn.Linear(3, d)
        self.layers = nn.ModuleList(Layer(d, settings.n_heads) for _ in range(settings.n_layers))
        self.norm, self.gate, self.pool = nn.LayerNorm(d), nn.Linear(d, settings.n_heads), nn.Linear(d, d)
        self.hidden, self.readout = nn.Linear(2 * d, d), nn.Linear(d, settings.n_readout)
        self.final = nn.Linear(settings.n_readout, n_final)
        self.dropout = nn.Dropout(settings.dropout)

    def forward(self, numbers: torch.Tensor, fractions: torch.Tensor) -> torch.Tensor:
        """Outputs (n, k), by atomic numbers and fractions (n, m); a fraction of 0 is no element."""
        logarithm = torch.where(fractions > 0, fractions.clamp_min(1e-9).log(), torch.full_like(fractions, -1e9))
        of_fraction = torch.stack([fractions, fractions.sqrt(), torch.log(fractions.clamp_min(1e-4)) / 9], -1)
        tokens = self.of_vectors(self.vectors[numbers]) + self.own(numbers) + self.fraction(of_fraction)
        tokens = self.dropout(tokens)
        for layer in self.layers:
            tokens = layer(tokens, logarithm)
        tokens = self.norm(tokens)
        share = (self.gate(tokens) + logarithm[..., None]).softmax(1)
        values = self.pool(tokens)
        n, m, d = values.shape
        chosen = (share[..., None] * values.view(n, m, self.n_heads, -1)).sum(1).reshape(n, d)
        mean = (fractions[..., None] * values).sum(1)
        hidden = self.dropout(silu(self.hidden(torch.cat([chosen, mean], -1))))
        return self.final(silu(self.readout(hidden)))

    def tensors(self, mean: NDArray[np.float64], scale: NDArray[np.float64]) -> dict[str, NDArray[np.float32]]:
        """Tensors of the network that is used: elements looked up in one table, outputs in the units of the data."""
        state = {name: tensor.detach().numpy().astype(np.float64) for name, tensor in self.state_dict().items()}
        of_vectors = state.pop("vectors") @ state.pop("of_vectors.weight").T + state.pop("of_vectors.bias")
        found = {"elements": (of_vectors + state.pop("own.weight"))[1:]}
        found |= {name.removeprefix("layers."): tensor for name, tensor in state.items()}
        found["final.weight"] = found["final.weight"] * scale[:, None]
        found["final.bias"] = found["final.bias"] * scale + mean
        return {name: tensor.astype(np.float32) for name, tensor in found.items()}


def element_vectors() -> NDArray[np.float32]:
    """What the shipped element vectors say of each atomic number (119, p); zeros where they have none."""
    found = []
    for card in read_cards(DATA / "cards" / "own" / "elements.json"):
        encoder = card.load()
        known = [number for number in range(1, len(SYMBOLS) + 1) if SYMBOLS[number - 1] in card.elements]
        rows = encoder.encode([SYMBOLS[number - 1] for number in known])[:, : card.width // 2].astype(np.float64)
        table = np.zeros((len(SYMBOLS) + 1, rows.shape[1]))
        table[known] = (rows - rows.mean(axis=0)) / rows.std()
        found.append(table)
    return np.hstack(found).astype(np.float32)


def tokens_of(compositions: Compositions) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
    """Atomic numbers and fractions (n, m) of formulas, with zeros behind those of fewer than m elements."""
    counts = np.diff(compositions.offsets)
    rows = np.repeat(np.arange(len(counts)), counts)
    places = np.arange(len(rows)) - compositions.offsets[rows]
    numbers = np.zeros((len(counts), counts.max()), dtype=np.int64)
    fractions = np.zeros(numbers.shape, dtype=np.float32)
    numbers[rows, places], fractions[rows, places] = compositions.numbers, compositions.fractions
    return numbers, fractions


def train(data: Data, seed: int, settings: Settings) -> dict[str, NDArray[np.float32]]:
    """Train a network on all rows that are not held out."""
    torch.manual_seed(seed)
    rng = np.random.default_rng(seed)
    Y = np.column_stack([data.values[item.name] for item in PROPERTIES])
    rows = data.training(PROPERTIES)
    mean, scale = np.nanmean(Y[rows], axis=0), np.nanstd(Y[rows], axis=0)
    known = np.isfinite(Y)
    target = torch.from_numpy(np.clip(np.where(known, (Y - mean) / scale, 0.0), -_FAR, _FAR).astype(np.float32))
    counts = known[rows].sum(axis=0)
    # A property counts by the root of its number of rows: else the large tables alone would be learned.
    weight = torch.from_numpy((known * np.sqrt(counts.max() / counts)).astype(np.float32))
    numbers, fractions = map(torch.from_numpy, tokens_of(data.compositions))
    lengths = np.diff(data.compositions.offsets)
    network = Attention(settings, element_vectors(), len(PROPERTIES))
    size, index = settings.batch_size, np.flatnonzero(rows)
    optimiser = torch.optim.AdamW(network.parameters(), settings.learning_rate, weight_decay=settings.weight_decay)
    n_steps = settings.n_epochs * (len(index) // size + 1)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, settings.learning_rate, n_steps, pct_start=0.1)
    started = time.process_time()
    for epoch in range(settings.n_epochs):
        order = rng.permutation(index)
        parts = [order[start : start + _SORTED * size] for start in range(0, len(order), _SORTED * size)]
        parts = [part[np.argsort(lengths[part], kind="stable")] for part in parts]
        batches = [part[start : start + size] for part in parts for start in range(0, len(part), size)]
        total = 0.0
        for number in rng.permutation(len(batches)):
            batch = batches[number]
            most = lengths[batch].max()
            predicted = network(numbers[batch, :most], fractions[batch, :most])
            losses = smooth_l1_loss(predicted, target[batch], reduction="none", beta=_BEND)
            loss = (losses * weight[batch]).sum() / weight[batch].sum()
            optimiser.zero_grad()
            loss.backward()
            nn.utils.clip_grad_norm_(network.parameters(), 1.0)
            optimiser.step()
            if schedule.last_epoch < n_steps:
                schedule.step()
            total += loss.item()
        print(
            f"seed {seed}, epoch {epoch + 1}: {total / len(batches):.4f}, {time.process_time() - started:.0f} s",
            flush=True,
        )
    return network.tensors(mean, scale)


def trained(name: str, data: Data, seed: int, settings: Settings, work: Path) -> dict[str, NDArray[np.float32]]:
    """The tensors of a network, read if it is finished."""
    about = json.dumps([asdict(settings), seed, data.digest]).encode()
    path = work / f"{name}-{hashlib.sha256(about).hexdigest()[:12]}.safetensors"
    if not path.is_file():
        write_weights(path, train(data, seed, settings), dtype="float32")
    _, tensors = read_tensors(path, NETWORKS_FILE)
    return tensors


def main() -> None:
    """Train what is not trained yet, and ship all."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work", type=Path, default=home() / "properties", help="folder for what is finished")
    work = parser.parse_args().work
    work.mkdir(parents=True, exist_ok=True)
    torch.set_num_threads(1)
    settings = Settings()
    data = Data.read(Path(os.environ["SCOTL_MATGL_ASSETS"]), work)
    everything = members("Everything")
    plans = {f"Attention-Everything-{seed + 1}": seed for seed in SEEDS}
    stored: dict[str, Any] = {}
    for name, seed in plans.items():
        tensors = trained(name, data, seed, settings, work)
        stored |= {f"{name}.{part}": tensor for part, tensor in tensors.items()}
    path = DATA / "sources" / FILE
    sha256 = write_weights(path, stored, dtype="int8")
    cards, about = [], {}
    for name, seed in plans.items():
        plan = Plan(name, "calculated properties of all kinds", everything, (), seed)

        def card(errors: list[dict[str, float]], plan: Plan = plan) -> SourceCard:
            return SourceCard(
                name=plan.name,
                modality="composition",
                layers={"readout": settings.n_readout + len(everything), "final": len(everything)},
                loader="scotl_matgl.encoders.attention:load",
                weights={FILE: sha256},
                parameters=sum(tensor.size for part, tensor in stored.items() if part.startswith(f"{plan.name}.")),
                options={
                    "prefix": plan.name,
                    "n_layers": settings.n_layers,
                    "n_heads": settings.n_heads,
                    "eight_bits": True,
                },
                training_sets=[item.name for item in everything],
                **facts(plan, data, errors) | {"architecture": "attention between the elements of a formula"},
            )

        network = load(card([]), path=path.parent).network  # as it is stored

        def predict(rows: NDArray[np.bool_], network: ElementAttention = network) -> NDArray[np.float32]:
            return network.forward(data.compositions.take(rows))["final"]

        errors = held_out(plan, predict, data)
        cards.append(card(errors).to_dict())
        about[name] = {
            "n_train": int(data.training(everything).sum()),
            "held_out": dict(zip([item.name for item in everything], errors, strict=True)),
        }
        print(name, f"mean R2 {np.mean([item['r2'] for item in errors]):.3f}")
    manifest = {
        "made_by": "python tools/train_attention_sources.py",
        "data": {"sha256": data.digest, "formulas": len(data.compositions)},
        "settings": asdict(settings),
        "versions": installed_versions(),
        "file": {"name": FILE, "sha256": sha256, "bytes": path.stat().st_size},
        "networks": about,
    }
    write_about("attention", manifest, cards)


if __name__ == "__main__":
    main()
