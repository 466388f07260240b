"""Processes that share one home are killed at any moment; benchmarks/kills.py does it a thousand times."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[2] / "benchmarks" / "kills.py"


@pytest.mark.slow
@pytest.mark.skipif(not SCRIPT.is_file(), reason="benchmarks are not part of the source distribution")
def test_kills_leave_nothing_wrong_half_lost_or_unfinished() -> None:
    command = [sys.executable, str(SCRIPT), "--kills", "40"]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=300)  # noqa: S603 - our own code
    assert done.returncode == 0, done.stdout + done.stderr[-3000:]
    counts = {name: int(count) for count, name in (line.split(maxsplit=1) for line in done.stdout.splitlines())}
    assert counts["kills"] == 40
    assert counts["rows"] > 40
