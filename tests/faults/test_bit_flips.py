"""One flipped bit anywhere in a stored file is noticed, whatever the kind of the file; 400 places of each are tried."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from scotl_matgl.bridges.base import BridgeError, load_bridge
from scotl_matgl.bridges.index import IndexWriter, look_up_in_index
from scotl_matgl.bridges.lookup import LookUp
from scotl_matgl.bridges.ridge import RidgeBridge
from scotl_matgl.bridges.store import MANIFEST, shipped_folder
from scotl_matgl.encoders.composition import NetworkEncoder, load, network_card, write_networks
from scotl_matgl.encoders.network import Network
from scotl_matgl.encoders.store import EMBEDDINGS_FILE, _check_rows
from scotl_matgl.exceptions import InputError, StoredFileError
from scotl_matgl.storage import read_tensors, write_tensors

N_FLIPS = 400
WEIGHTS = {"state.pt": "a" * 64}
KEYS = [f"formula {index}" for index in range(40)]
Reader = Callable[[Path], Any]


def shard(path: Path) -> Reader:
    Z = np.random.default_rng(0).normal(size=(40, 8)).astype(np.float32)
    header = {"crystals": KEYS, "refused": {KEYS[3]: "hydrogen"}}
    Z[3] = np.nan
    write_tensors(path, {"readout": Z}, EMBEDDINGS_FILE, header)

    def read(path: Path) -> Any:
        found = read_tensors(path, EMBEDDINGS_FILE)
        _check_rows(path, *found)
        return found

    return read


def bridge(path: Path) -> Reader:
    rng = np.random.default_rng(0)
    RidgeBridge().fit(rng.normal(size=(60, 12)), rng.normal(size=(60, 6))).save(path, {"source": "é"}, dtype="int8")
    return load_bridge


def look_up(path: Path) -> Reader:
    LookUp.of(KEYS, np.random.default_rng(0).normal(size=(40, 8)).astype(np.float32), {"source": "Toy"}).save(path)
    return LookUp.load


def index(path: Path) -> Reader:
    writer = IndexWriter(KEYS, n_components=4)
    writer.add("Toy", "readout", np.random.default_rng(0).normal(size=(40, 8)).astype(np.float32), WEIGHTS)
    writer.save(path, {"corpus_hash": "b" * 64})
    return lambda path: look_up_in_index(path, "Toy", "readout", WEIGHTS)


def networks(path: Path) -> Reader:
    rng = np.random.default_rng(0)
    network = Network(
        tuple(rng.normal(size=shape).astype(np.float32) for shape in ((8, 58), (4, 8), (1, 4))),
        tuple(rng.normal(size=width).astype(np.float32) for width in (8, 4, 1)),
        "relu",
        np.zeros(58),
        np.ones(58),
    )
    sha256 = write_networks(path, {"a": network})
    facts = dict.fromkeys(("zoo", "property", "unit", "dataset", "licence", "citation"), "x")
    card = network_card("Toy", network, file=path.name, sha256=sha256, prefix="a", descriptor="fractions", **facts)

    def read(path: Path) -> NetworkEncoder:
        return load(card, path=path.parent)

    return read


def shipped(path: Path) -> Reader:
    """A file that was written before files carried their hash; the manifest beside it has it."""
    original = min(shipped_folder().glob("*.safetensors"), key=lambda file: file.stat().st_size)
    path = path.with_name(original.name)
    path.write_bytes(original.read_bytes())
    path.with_name(MANIFEST).write_bytes((shipped_folder() / MANIFEST).read_bytes())
    return load_bridge


@pytest.mark.slow
@pytest.mark.parametrize("make", [shard, bridge, look_up, index, networks, shipped], ids=lambda make: make.__name__)
def test_no_flipped_bit_goes_unnoticed(make: Callable[[Path], Reader], tmp_path: Path) -> None:
    read = make(tmp_path / "file.safetensors")
    (path,) = tmp_path.glob("*.safetensors")
    whole = path.read_bytes()
    read(path)
    rng = np.random.default_rng(1)
    # Half of the flips in the header, where they might change a word and nothing else.
    header = 8 + int.from_bytes(whole[:8], "little")
    places = np.concatenate([rng.integers(0, header, N_FLIPS // 2), rng.integers(0, len(whole), N_FLIPS // 2)])
    unnoticed = []
    for place, bit in zip(places.tolist(), rng.integers(0, 8, N_FLIPS).tolist(), strict=True):
        content = bytearray(whole)
        content[place] ^= 1 << bit
        # A name of its own for each, as another file would have: what is remembered of a file is its time and size.
        folder = tmp_path / f"{place}-{bit}"
        folder.mkdir(exist_ok=True)
        for other in tmp_path.iterdir():
            if other.is_file() and other != path:
                (folder / other.name).write_bytes(other.read_bytes())
        (folder / path.name).write_bytes(content)
        try:
            read(folder / path.name)
            unnoticed.append((place, bit))
        except (BridgeError, StoredFileError, InputError) as error:
            if path.name not in str(error):
                unnoticed.append((place, bit))
    assert unnoticed == []
