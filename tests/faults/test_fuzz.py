"""Mutated files of every kind but formulas and crystals are read or refused by a sentence; `make fuzz` takes longer.

What carries a hash is sealed again after it was changed, so that the checks behind the hash are reached.
"""

from __future__ import annotations

import hashlib
import io
import json
import os
import random
import re
import resource
import signal
import warnings
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NoReturn

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sklearn.ensemble import ExtraTreesRegressor

from scotl_matgl import TransferRegressor, all_cards, load_example
from scotl_matgl.bridges.base import load_bridge
from scotl_matgl.bridges.index import IndexWriter, look_up_in_index
from scotl_matgl.bridges.lookup import LookUp
from scotl_matgl.bridges.ridge import RidgeBridge
from scotl_matgl.encoders.composition import load as load_network
from scotl_matgl.encoders.composition import network_card, write_networks
from scotl_matgl.encoders.network import Network
from scotl_matgl.encoders.store import EMBEDDINGS_FILE, _check_rows
from scotl_matgl.ranking.memory import ScoresFile
from scotl_matgl.registry import PluginError
from scotl_matgl.sources.cards import FILE_LOADERS, read_cards
from scotl_matgl.storage import read_tensors, write_tensors
from scotl_matgl.studies.records import ResultsFile
from scotl_matgl.tables.files import read_table
from scotl_matgl.transfer.estimators import load_transferred

LONG = "SCOTL_MATGL_FUZZ" in os.environ
EXAMPLES = int(os.environ.get("SCOTL_MATGL_FUZZ", "40"))
SECONDS = 60

KEYS = [f"formula {index}" for index in range(24)]
Z = np.random.default_rng(0).normal(size=(24, 8)).astype(np.float32)
FACTS = dict.fromkeys(("zoo", "property", "unit", "dataset", "licence", "citation"), "x")
COLUMNS = ("method", "n", "error", "failure")

# What breaks readers: numbers at the ends of what a type holds, words of JSON, marks of formats, steering characters.
TOKENS = """0 -1 1e999 -1e999 NaN null true {} [] [[ {"a": " \\ \\u0000 \\ud800 9999999999999999999999 1_000
0x10 ' ; \\t =1+1
../ /dev/zero F32 F64 I64 BOOL shape dtype data_offsets""".split()  # noqa: SIM905 - a list in one line
TOKENS += [
    "\u202e",
    "\u200b",
    "\0",
    "\n",
    "\r",
    "\x1b[2J",
    "\ufeff",
    "é",
    "9" * 5000,
    "9" * 400,
    "[" * 2000,
    "a" * 70000,
    ",",
    ".",
]


# -- kinds of files: (what makes one, what reads one) ------------------------------------------------------------------


def make_csv(path: Path) -> None:
    table = load_example().head(30).assign(note='a, "b"')
    table.to_csv(path, index=False, sep=";" if "semi" in path.name else ",")


def make_json_table(path: Path) -> None:
    load_example().head(20).to_json(path, orient="records")


def make_workbook(path: Path) -> None:
    load_example().head(20).to_excel(path, index=False)


def make_cards(path: Path) -> None:
    path.write_text(json.dumps([card.to_dict() for card in all_cards() if card.loader in FILE_LOADERS][:3]))


def make_bridge(path: Path) -> None:
    rng = np.random.default_rng(0)
    RidgeBridge().fit(rng.normal(size=(60, 12)), rng.normal(size=(60, 6))).save(path, {"source": "é"}, dtype="int8")


def make_shard(path: Path) -> None:
    write_tensors(path, {"readout": Z}, EMBEDDINGS_FILE, {"crystals": KEYS, "refused": {}})


def read_shard(path: Path) -> None:
    _check_rows(path, *read_tensors(path, EMBEDDINGS_FILE))


def make_look_up(path: Path) -> None:
    LookUp.of(KEYS, Z, {"source": "Toy"}).save(path)


def make_index(path: Path) -> None:
    writer = IndexWriter(KEYS, n_components=4)
    writer.add("Toy", "readout", Z, {"state.pt": "a" * 64})
    writer.save(path, {"corpus_hash": "b" * 64})


def read_index(path: Path) -> None:
    found = look_up_in_index(path, "Toy", "readout", {"state.pt": "a" * 64})
    if found is not None:
        assert np.isfinite(np.asarray(found.embeddings, dtype=float)).all()


def network(make: Callable[[tuple[int, ...]], Any]) -> Network:
    weights = tuple(make(shape).astype(np.float32) for shape in ((8, 58), (4, 8), (1, 4)))
    biases = tuple(make((width,)).astype(np.float32) for width in (8, 4, 1))
    return Network(weights, biases, "relu", np.zeros(58), np.ones(58))


def make_network(path: Path) -> None:
    write_networks(path, {"a": network(np.ones)})


def read_network(path: Path) -> None:
    sha256 = hashlib.sha256(path.read_bytes()).hexdigest()
    named = {"file": path.name, "sha256": sha256, "prefix": "a", "descriptor": "fractions"}
    load_network(network_card("Toy", network(np.zeros), **named, **FACTS), path=path.parent)


def make_model(path: Path) -> None:
    table = load_example().head(30)
    head = ExtraTreesRegressor(2, random_state=0)
    TransferRegressor((), head=head, descriptor="fractions").fit(table["formula"], table["target"]).save(path)


def make_results(path: Path) -> None:
    file = ResultsFile(path, key=COLUMNS[:2], columns=COLUMNS)
    file.add({"method": f"m{n}", "n": n, "error": n / 7, "failure": 'a, "b"\nc'} for n in range(8))


def read_results(path: Path) -> None:
    file = ResultsFile(path, key=COLUMNS[:2], columns=COLUMNS)
    file.records({"method": str, "failure": str})
    file.add([{"method": "new", "n": 1, "error": 0.5, "failure": ""}])
    again = ResultsFile(path, key=COLUMNS[:2], columns=COLUMNS)
    assert again.rows == file.rows


def make_scores(path: Path) -> None:
    line = ["1", 0.5, "Toy", "gap", "eV", {"loo": 0.1}, 0.1, 3, 4, 0, 0.1]
    lines = [{"kind": "scotl-matgl scores 1", "fingerprint": "f"}, line, line]
    path.write_text("".join(f"{json.dumps(content)}\n" for content in lines))


def read_scores(path: Path) -> None:
    with ScoresFile(path, [], "f"):
        pass


Kind = tuple[str, Callable[[Path], None], Callable[[Path], Any]]
KINDS: dict[str, Kind] = {
    "CSV": ("table.csv", make_csv, read_table),
    "CSV with semicolons": ("semi.csv", make_csv, read_table),
    "JSON table": ("table.json", make_json_table, read_table),
    "workbook": ("table.xlsx", make_workbook, read_table),
    "cards": ("cards.json", make_cards, read_cards),
    "bridge": ("bridge.safetensors", make_bridge, load_bridge),
    "shard": ("shard.safetensors", make_shard, read_shard),
    "look-up": ("lookup.safetensors", make_look_up, LookUp.load),
    "index": ("index.safetensors", make_index, read_index),
    "networks": ("networks.safetensors", make_network, read_network),
    "model": ("model.skops", make_model, load_transferred),
    "results": ("results.csv", make_results, read_results),
    "scores": ("scores.jsonl", make_scores, read_scores),
}


# -- mutations ---------------------------------------------------------------------------------------------------------


def mutated(content: bytes, luck: random.Random) -> bytes:
    """Content with one to four places changed: bits, bytes, tokens, parts cut out, doubled or put elsewhere."""
    found = bytearray(content)
    for _ in range(luck.randint(1, 4)):
        at = luck.randrange(len(found) + 1)
        end = min(len(found), at + luck.choice((1, 1, 2, 8, 64, 4096)))
        how = luck.randrange(6)
        if how == 0 and at < len(found):
            found[at] ^= 1 << luck.randrange(8)
        elif how == 1:
            found[at:end] = luck.choice(TOKENS).encode("utf-8", "surrogatepass")
        elif how == 2:
            del found[at:end]
        elif how == 3:
            found[at:at] = found[at:end] * luck.choice((1, 2, 50))
        elif how == 4:
            found[at:at] = luck.choice(TOKENS).encode("utf-8", "surrogatepass")
        else:  # a number or a word of a file becomes another
            words = list(re.finditer(rb"-?[0-9.]+|[a-z_]{3,}", bytes(found[:20000])))
            if words:
                word = luck.choice(words)
                found[word.start() : word.end()] = luck.choice(TOKENS).encode("utf-8", "surrogatepass")
    return bytes(found)


def changed(content: bytes, luck: random.Random) -> bytes:
    """A mutated file whose frame (zip, hash) is whole in two of three cases, so that what is inside is looked at."""
    if luck.random() < 1 / 3:
        return mutated(content, luck)
    if content.startswith(b"PK"):
        return zipped_again(content, luck)
    if b'"__metadata__"' in content[:4000]:
        return sealed_again(content, luck)
    return mutated(content, luck)


def zipped_again(content: bytes, luck: random.Random) -> bytes:
    with zipfile.ZipFile(io.BytesIO(content)) as old:
        entries = {name: old.read(name) for name in old.namelist()}
    name = luck.choice([*entries, *[name for name in entries if name.endswith("json")] * len(entries)])
    entries[name] = mutated(entries[name], luck)
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as new:
        for name, part in entries.items():
            new.writestr(name, part)
    return buffer.getvalue()


def sealed_again(content: bytes, luck: random.Random) -> bytes:
    length = int.from_bytes(content[:8], "little")
    head, tensors = json.loads(content[8 : 8 + length]), content[8 + length :]
    if luck.random() < 0.5:  # our header, which is JSON within JSON
        text = head["__metadata__"]["scotl_matgl"]
        start = text.index('"schema"')
        head["__metadata__"]["scotl_matgl"] = text[:start] + mutated(text[start:].encode(), luck).decode(
            "utf-8", "replace"
        )
    elif luck.random() < 0.5:
        name = luck.choice([name for name in head if name != "__metadata__"])
        with_other = mutated(json.dumps(head[name]).encode(), luck).decode("utf-8", "replace")
        raw = json.dumps(head).replace(json.dumps(head[name]), with_other).encode()
        return reseal(raw, tensors)
    else:
        tensors = mutated(tensors, luck)
    return reseal(json.dumps(head).encode(), tensors)


def reseal(head: bytes, tensors: bytes) -> bytes:
    data = bytearray(len(head).to_bytes(8, "little") + head + tensors)
    seal = re.search(rb'\{\\"sha256\\": \\"([0-9a-f]{64})\\"', data)
    if seal:
        data[seal.start(1) : seal.end(1)] = b"0" * 64
        data[seal.start(1) : seal.end(1)] = hashlib.sha256(data).hexdigest().encode()
    return bytes(data)


@pytest.fixture
def whole(kind: str, tmp_path: Path) -> bytes:
    """A sound file of the kind, which its reader reads."""
    name, make, read = KINDS[kind]
    make(tmp_path / name)
    content = (tmp_path / name).read_bytes()
    read(tmp_path / name)
    return content


@pytest.fixture
def no_hang() -> Iterator[None]:
    """End what takes a minute."""

    def late(*_: Any) -> NoReturn:
        raise TimeoutError

    before = signal.signal(signal.SIGALRM, late)
    yield
    signal.alarm(0)
    signal.signal(signal.SIGALRM, before)


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.usefixtures("no_hang")
def test_mutated_files_are_read_or_refused_by_a_sentence(
    kind: str, whole: bytes, tmp_path_factory: pytest.TempPathFactory
) -> None:
    name, _, read = KINDS[kind]
    folder = tmp_path_factory.mktemp("mutated")
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6
    counts = {"read": 0, "refused": 0, "silent": 0}

    @settings(
        max_examples=EXAMPLES,
        deadline=None,
        database=None,
        derandomize=not LONG,
        suppress_health_check=list(HealthCheck),
    )
    @given(seed=st.integers(0, 2**63))
    def check(seed: int) -> None:
        luck = random.Random(seed)  # noqa: S311 - for tests
        # A name of its own for each, as another file would have: what is known of a file is known by its name.
        path = folder / f"{seed}-{name}"
        path.write_bytes(changed(whole, luck))
        signal.alarm(SECONDS)
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                read(path)
            counts["read"] += 1
        except (ValueError, PluginError) as error:  # a plugin, whose bridge it is, may be missing
            if not type(error).__module__.startswith("scotl_matgl"):
                raise
            counts["refused" if str(error) else "silent"] += 1
        finally:
            signal.alarm(0)
            path.unlink()

    check()
    # Nearly every change of a text is another text, whose odd rows are listed; of the others some must be refused.
    assert counts["refused"] or (kind.startswith("CSV") and counts["read"] and not LONG)
    assert not counts["silent"]
    if LONG:
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6
        print(f"\n{kind}: {counts['read']} read, {counts['refused']} refused, peak {peak:.2f} GB so far")
        assert peak < 1.0 or before >= 1.0
