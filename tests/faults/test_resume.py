"""Commands that are killed (SIGKILL) at a random moment after their first record go on, and end as if never killed."""

from __future__ import annotations

import contextlib
import os
import random
import shlex
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from scotl_matgl import load_example
from scotl_matgl.chemistry.elements import SYMBOLS

pytestmark = [pytest.mark.slow, pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")]

TESTS = Path(__file__).parents[1]

# Two sources of crystals, 32 wide, which take a second for each call; a process of a user has them installed.
TOYS = """
import time
import numpy as np
from scotl_matgl.encoders.contracts import Encoded
from scotl_matgl.sources.cards import SourceCard

FACTS = dict.fromkeys(("zoo", "property", "unit", "dataset", "architecture", "licence", "citation"), "toy")

def cards():
    common = {"modality": "structure", "layers": {"readout": 32}, "loader": "toys:Toy"}
    return [SourceCard(name=f"Toy-{n}", weights={"model": f"{n:064x}"}, **common, **FACTS) for n in (1, 2)]

class Toy:
    def __init__(self, card):
        self.card, self.layers = card, ("readout",)

    def encode_layers(self, structures, **_):
        time.sleep(1)
        rows = [crystal.volume ** (np.arange(32) / 32) + crystal.numbers.mean() for crystal in structures]
        return Encoded({"readout": np.array(rows, dtype=np.float32) * float(self.card.name[-1])})
"""

MANY = """
import sys, time
sys.path.insert(0, sys.argv[2])
import numpy as np
import test_many
from scotl_matgl.tables.files import load_example

class Slow(test_many.Columns):
    def embed(self, *arguments):
        time.sleep(0.15)
        return super().embed(*arguments)

frame = load_example().drop_duplicates("formula").sample(60, random_state=0)
table = list(frame["formula"]), frame["target"].to_numpy()
np.set_printoptions(threshold=10**9)
print(test_many.facts(test_many.rank([Slow(seed) for seed in range(30)], table, path=sys.argv[1])))
"""


def commands_of_session(session: int) -> list[str]:
    """Commands of the living processes of a session."""
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError, ValueError):
            state, *fields = (folder / "stat").read_text().rpartition(")")[2].split()
            if state != "Z" and int(fields[2]) == session:
                found.append((folder / "cmdline").read_text().replace("\0", " "))
    return found


class Place:
    """A folder with a home, a table, crystals, and a plugin that is installed in it."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.home = folder, folder / "home"
        self.home.mkdir(parents=True)
        load_example().iloc[::18].to_csv(folder / "table.csv", index=False)
        site = folder / "site"
        info = site / "toys-1.0.dist-info"
        info.mkdir(parents=True)
        (site / "toys.py").write_text(TOYS)
        (info / "METADATA").write_text("Metadata-Version: 2.1\nName: toys\nVersion: 1.0\n")
        (info / "entry_points.txt").write_text("[scotl_matgl.zoos]\ntoys = toys:cards\n")
        (folder / "many.py").write_text(MANY)
        rng = np.random.default_rng(0)
        with (folder / "crystals.extxyz").open("w") as file:
            for first, edge in zip(rng.integers(1, 90, 4500), rng.uniform(3, 6, 4500), strict=True):
                pair = [int(first), 1 + int(first) % 7]
                symbols = [SYMBOLS[number - 1] for number in pair]
                lattice = f'Lattice="{edge} 0 0 0 {edge} 0 0 0 {edge}" volume={edge**3}'
                file.write(f'2\n{lattice} Properties=species:S:1:pos:R:3 pbc="T T T"\n')
                file.write(f"{symbols[0]} 0 0 0\n{symbols[1]} {edge / 2} {edge / 2} {edge / 2}\n")

    def start(self, command: str) -> subprocess.Popen[str]:
        words = [sys.executable, *shlex.split(command)]
        environment = os.environ | {
            "SCOTL_MATGL_HOME": str(self.home),
            "PYTHONPATH": os.pathsep.join([str(self.folder / "site"), str(TESTS.parent)]),
            "OMP_NUM_THREADS": "1",
        }
        return subprocess.Popen(  # noqa: S603 - our own code
            words, cwd=self.folder, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
            start_new_session=True,
        )  # fmt: skip

    def run(self, command: str) -> str:
        """Output of a run to its end."""
        run = self.start(command)
        out, errors = run.communicate(timeout=300)
        assert run.returncode == 0, errors
        return out

    def kill(self, command: str, begun: Callable[[], bool], longest: float) -> None:
        """Start, and kill within so many seconds after the first record is on disk; nobody lives on.

        A machine may be so fast that the run has ended by then: it starts anew from the same files, killed sooner.
        """
        before = self.folder.with_name("before")
        shutil.copytree(self.folder, before)
        while not self.is_killed(command, begun, longest):
            assert longest > 0.01, "it was too fast to be killed"
            longest /= 4
            shutil.rmtree(self.folder)
            shutil.copytree(before, self.folder)
        shutil.rmtree(before)

    def is_killed(self, command: str, begun: Callable[[], bool], longest: float) -> bool:
        """Start and kill; False where the run came to its end first."""
        run = self.start(command)
        end = time.monotonic() + 120
        while not begun() and run.poll() is None:
            assert time.monotonic() < end
            time.sleep(0.01)
        time.sleep(random.uniform(0, longest))  # noqa: S311 - not for secrets
        early = run.poll() is not None
        run.send_signal(signal.SIGKILL)  # which does nothing to a run that has ended
        told = run.communicate(timeout=60)
        if early:
            assert run.returncode == 0, told
            return False
        while commands_of_session(run.pid):
            assert time.monotonic() < end, commands_of_session(run.pid)
            time.sleep(0.05)
        return run.returncode == -signal.SIGKILL

    def unfinished(self) -> list[Path]:
        return [path for path in self.folder.rglob(".*.partial") if path.is_file()]


@pytest.fixture
def place(tmp_path: Path) -> Place:
    return Place(tmp_path / "killed")


@pytest.fixture
def whole(tmp_path: Path) -> Place:
    """Where the same command is run without being killed."""
    return Place(tmp_path / "whole")


def has_lines(path: Path, count: int) -> bool:
    return path.is_file() and path.read_bytes().count(b"\n") >= count


@pytest.mark.parametrize(
    ("command", "key", "varies"),
    [
        (
            "curve table.csv --sizes 20,40 --repeats 3 --jobs 1 --head 'kernel ridge'",
            ["fingerprint", "method", "repeat", "n"],
            ["seconds"],
        ),
        (
            "validate table.csv --scheme cluster --folds 4 --jobs 1 --head 'kernel ridge'",
            ["fingerprint", "method", "scheme", "fold"],
            ["seconds"],
        ),
        ("evaluate table.csv --sources MEGNet*Eform --repeats 4", ["table", "size", "draw", "source"], []),
    ],
    ids=lambda value: value.split()[0] if isinstance(value, str) else "",
)
def test_results_files(place: Place, whole: Place, command: str, key: list[str], varies: list[str]) -> None:
    command = f"-m scotl_matgl {command} --output out.csv"
    place.kill(command, lambda: has_lines(place.folder / "out.csv", 2), 1.0)
    kept = (place.folder / "out.csv").read_text().splitlines()[1:-1]  # the last one may be a half
    told = place.run(command)
    lines = (place.folder / "out.csv").read_text().splitlines()
    assert told == whole.run(command)
    found, expected = (
        pd.read_csv(at.folder / "out.csv", keep_default_na=False)
        .drop(columns=varies)
        .sort_values(key, ignore_index=True)
        for at in (place, whole)
    )
    pd.testing.assert_frame_equal(found, expected, check_exact=True)
    if "random" not in found:  # which is filled in at the end
        assert set(kept) <= set(lines)  # measured once
    assert not place.unfinished()


def test_encode(place: Place, whole: Place) -> None:
    command = "-m scotl_matgl encode --structures crystals.extxyz --sources Toy*"
    place.kill(command, lambda: any(place.home.rglob("*.safetensors")), 0.3)
    kept = {path: path.stat().st_mtime_ns for path in place.home.rglob("*.safetensors")}
    place.run(command)
    whole.run(command)
    found, expected = (
        {path.relative_to(at.home): path.read_bytes() for path in at.home.rglob("*.safetensors")}
        for at in (place, whole)
    )
    assert found == expected
    assert len(found) == 6  # three chunks of each
    assert kept == {path: path.stat().st_mtime_ns for path in kept}
    assert not place.unfinished()


def test_bridge_build(place: Place, whole: Place) -> None:
    command = "-m scotl_matgl bridge build --structures crystals.extxyz --sources Toy* --kind ridge"
    place.kill(command, lambda: any(place.home.rglob("*.safetensors")), 0.3)
    place.run(command)
    whole.run(command)
    found, expected = (
        {path.relative_to(at.home): path.read_bytes() for path in at.home.rglob("*.safetensors")}
        for at in (place, whole)
    )
    assert found.keys() == expected.keys()
    assert [name for name in found if found[name] != expected[name]] == []
    assert not place.unfinished()


def test_rank(place: Place, whole: Place) -> None:
    """It keeps nothing on the way and takes seconds; what it writes is whole or not there."""
    command = "-m scotl_matgl rank table.csv --format json --output ranking.json"
    whole.run(command)
    expected = (whole.folder / "ranking.json").read_bytes()
    place.kill(command, lambda: True, 1.0)
    written = place.folder / "ranking.json"
    assert not written.exists() or without_times(written.read_bytes()) == without_times(expected)
    place.run(command)
    assert without_times((place.folder / "ranking.json").read_bytes()) == without_times(expected)
    assert not place.unfinished()


def without_times(content: bytes) -> list[bytes]:
    return [line for line in content.splitlines() if b"seconds" not in line]


def test_rank_many(place: Place, whole: Place) -> None:
    command = f"many.py scores.jsonl {TESTS}"
    place.kill(command, lambda: has_lines(place.folder / "scores.jsonl", 2), 1.5)
    before = (place.folder / "scores.jsonl").read_bytes()
    assert place.run(command) == whole.run(command)
    after = (place.folder / "scores.jsonl").read_bytes()
    assert after.startswith(before[: before.rfind(b"\n") + 1])
    assert after.count(b"\n") == 31


@pytest.mark.torch
def test_train(place: Place, whole: Place) -> None:
    pytest.importorskip("dgl")
    command = (
        "-m scotl_matgl train --structures crystals.extxyz --limit 300 --property volume --unit A3 --epochs 6 "
        "--device cpu --output run"
    )
    place.kill(command, (place.folder / "run" / "checkpoints" / "last.ckpt").exists, 2.0)
    place.run(f"{command} --resume")
    whole.run(command)
    for name in ("structure.safetensors", "card.json"):
        assert (place.folder / "run" / name).read_bytes() == (whole.folder / "run" / name).read_bytes()
    assert not place.unfinished()
