"""Runs that are interrupted say what is kept, leave no worker behind, and go on where they stopped."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pandas as pd
import pytest

from scotl_matgl import load_example

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")

ENVIRONMENT = {**os.environ, "OMP_NUM_THREADS": "1"}
N_UNITS = 2 * 3 * 2  # methods, repeats, sizes


@pytest.fixture
def command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    monkeypatch.setitem(ENVIRONMENT, "SCOTL_MATGL_HOME", str(tmp_path / "home"))
    table = tmp_path / "table.csv"
    load_example().iloc[::20].to_csv(table, index=False)
    options = ["--sizes", "20,40", "--repeats", "3", "--head", "kernel ridge", "--jobs", "2"]
    return [sys.executable, "-m", "scotl_matgl", "curve", str(table), *options, "--output", str(tmp_path / "out.csv")]


def start(command: list[str]) -> subprocess.Popen[str]:
    return subprocess.Popen(  # noqa: S603 - our own code
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=ENVIRONMENT, start_new_session=True
    )


def wait_until(holds: Callable[[], bool], seconds: float) -> bool:
    end = time.monotonic() + seconds
    while not holds():
        if time.monotonic() > end:
            return False
        time.sleep(0.05)
    return True


def n_rows(path: Path) -> int:
    return len(pd.read_csv(path)) if path.is_file() and path.stat().st_size else 0


def in_session(session: int) -> list[str]:
    """Commands of the living processes of a session."""
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            state, *fields = (folder / "stat").read_text().rpartition(")")[2].split()
            if state != "Z" and int(fields[2]) == session:
                found.append((folder / "cmdline").read_text().replace("\0", " "))
        except (OSError, ValueError):
            continue
    return found


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL], ids=lambda number: number.name)
def test_an_interrupted_curve_says_what_is_kept_and_goes_on(
    command: list[str], tmp_path: Path, number: signal.Signals
) -> None:
    output = tmp_path / "out.csv"
    run = start(command)
    assert wait_until(lambda: n_rows(output) >= 1 or run.poll() is not None, 120)
    if number is signal.SIGINT:
        os.killpg(run.pid, number)  # as from the keyboard
    else:
        run.send_signal(number)
    _, errors = run.communicate(timeout=60)
    assert run.returncode == (-number if number is signal.SIGKILL else 128 + number)
    if number is not signal.SIGKILL:
        assert f"interrupted ({number.name}): every finished fit is in the file of --output" in errors
        assert "Traceback" not in errors
    assert wait_until(lambda: not in_session(run.pid), 20), in_session(run.pid)
    kept = n_rows(output)
    assert 1 <= kept < N_UNITS
    if number is not signal.SIGKILL:  # the file is the same kind of thing after all of them
        return
    again = start(command)
    out, errors = again.communicate(timeout=120)
    assert again.returncode == 0, errors
    assert "kernel ridge" in out or "transfer" in out
    assert n_rows(output) == N_UNITS


def test_an_interrupted_command_that_keeps_nothing_says_so(command: list[str]) -> None:
    code = (
        "import os, signal; from scotl_matgl.cli import main; main.app = lambda: os.kill(os.getpid(), signal.SIGTERM)"
    )
    done = subprocess.run(  # noqa: S603
        [sys.executable, "-c", f"{code}\nmain.main()", "rank", "table.csv"], capture_output=True, text=True, check=False
    )
    assert done.returncode == 128 + signal.SIGTERM
    assert done.stderr == "\ninterrupted (SIGTERM): it has written nothing; run it again\n"


ORPHAN = """
import multiprocessing, time
from types import SimpleNamespace
from scotl_matgl.studies.workers import end_with_parent

multiprocessing.current_process().name = "LokyProcess-1"
multiprocessing.parent_process = lambda: SimpleNamespace(pid=PID)
end_with_parent()
time.sleep(3)
print("still here")
"""


@pytest.mark.parametrize("alive", [True, False])
def test_a_worker_whose_parent_died_before_its_first_task_ends(alive: bool) -> None:
    code = ORPHAN.replace("PID", str(os.getpid() if alive else 2**22 + 1))  # above the largest pid
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)  # noqa: S603
    assert (run.stdout == "still here\n") is alive
    assert run.returncode == (0 if alive else 1)
