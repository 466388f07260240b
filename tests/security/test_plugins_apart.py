"""Plugins that end the process cost one run at most; what they close or print does not touch our output."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from scotl_matgl import all_cards
from scotl_matgl.sources.apart import ended_a_process

pytestmark = pytest.mark.slow  # starts processes

LIST = (
    "from scotl_matgl import all_cards; found = []; "
    "n = len(all_cards(lambda *said: found.append(said))); print(n, found)"
)

# What a plugin does when it is imported, and how a run ends that imports it.
ENDS = {
    "exits": ("import os; os._exit(3)", 3),
    "segfaults": ("import ctypes; ctypes.string_at(0)", -11),
    "exits in its list": ("def cards():\n    import os; os._exit(5)", 5),
}
SOUND = {
    "closes": "import os; os.close(1); os.close(2)",
    "closes stdout": "import sys; sys.stdout.close()",
    "prints": "print('noise')",
    "writes": "import os; os.write(1, b'noise')",
}


@pytest.fixture
def install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Module of a plugin that runs see."""
    monkeypatch.setenv("SCOTL_MATGL_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("PYTHONPATH", f"{tmp_path}{os.pathsep}{Path(__file__).parents[2]}")
    monkeypatch.delenv("SCOTL_MATGL_ISOLATE", raising=False)
    version(tmp_path, "1.0")
    return tmp_path / "odd_zoo.py"


def version(folder: Path, number: str) -> None:
    info = folder / "odd_zoo.dist-info"
    info.mkdir(exist_ok=True)
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: odd-zoo\nVersion: {number}\n")
    (info / "entry_points.txt").write_text("[scotl_matgl.zoos]\nodd = odd_zoo:cards\n")


def listed() -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-c", LIST], capture_output=True, text=True, check=False, timeout=60)  # noqa: S603


def n_of(done: subprocess.CompletedProcess[str]) -> tuple[int, str]:
    assert done.returncode == 0, done.stderr
    count, _, said = done.stdout.strip().partition(" ")
    return int(count), said


@pytest.mark.parametrize("isolate", ["", "1"], ids=["by itself", "asked for"])
@pytest.mark.parametrize("kind", ENDS)
def test_a_plugin_that_ends_its_process_costs_one_run_at_most(
    install: Path, monkeypatch: pytest.MonkeyPatch, kind: str, isolate: str
) -> None:
    source, code = ENDS[kind]
    install.write_text(f"def cards(): return []\n{source}\n")
    if isolate:
        monkeypatch.setenv("SCOTL_MATGL_ISOLATE", isolate)
    else:
        assert listed().returncode == code
        assert [path.read_text() for path in ended_a_process()] == ["odd-zoo 1.0 (odd_zoo:cards)"]
    for _ in range(2):
        count, said = n_of(listed())
        assert count == len(all_cards())
        assert f"odd-zoo 1.0 (odd_zoo:cards) cannot list its cards: its process ended with {code}" in said


def test_another_version_gets_another_chance_and_a_sound_one_leaves_no_note(install: Path) -> None:
    install.write_text("import os; os._exit(3)\n")
    assert listed().returncode == 3
    version(install.parent, "1.1")
    install.write_text("import os\nprint(os.getpid(), os.getppid())\ndef cards(): return []\n")
    done = listed()
    assert n_of(done) == (len(all_cards()), "[]")
    assert done.stderr.split()[1] == str(os.getpid())  # it was imported by the run itself
    assert [path.read_text() for path in ended_a_process()] == ["odd-zoo 1.0 (odd_zoo:cards)"]
    version(install.parent, "1.0")  # mended, and still listed apart, whose words nobody sees
    done = listed()
    assert (n_of(done), done.stderr) == ((len(all_cards()), "[]"), "")


def test_runs_beside_one_that_is_listing_are_not_taken_for_runs_after_a_crash(install: Path) -> None:
    gate = install.with_name("gate")
    install.write_text(
        f"import pathlib, time\nwhile not pathlib.Path({str(gate)!r}).exists(): time.sleep(0.01)\n"
        "import os\nprint(os.getppid())\ndef cards(): return []\n"
    )
    runs = [subprocess.Popen([sys.executable, "-c", LIST], stderr=subprocess.PIPE, text=True) for _ in range(2)]  # noqa: S603
    while not list((install.parent / "home" / "plugins").glob("*.loading")):
        assert all(run.poll() is None for run in runs)
    assert ended_a_process() == []
    gate.touch()
    assert [run.communicate(timeout=60)[1].split() for run in runs] == [[str(os.getpid())]] * 2
    assert list((install.parent / "home" / "plugins").iterdir()) == []


@pytest.mark.parametrize("isolate", ["", "1"], ids=["here", "apart"])
@pytest.mark.parametrize("kind", SOUND)
def test_our_output_stays_ours(install: Path, monkeypatch: pytest.MonkeyPatch, kind: str, isolate: str) -> None:
    monkeypatch.setenv("SCOTL_MATGL_ISOLATE", isolate)
    install.write_text(f"{SOUND[kind]}\ndef cards(): return []\n")
    done = listed()
    assert done.stdout == f"{len(all_cards())} []\n"
    assert done.stderr.strip() == ("noise" if kind in ("prints", "writes") and not isolate else "")
    assert ended_a_process() == []


def test_a_home_that_cannot_be_written_costs_the_note_alone(install: Path, tmp_path: Path) -> None:
    (tmp_path / "home").write_text("no folder")
    install.write_text("def cards(): return []\n")
    assert n_of(listed()) == (len(all_cards()), "[]")
