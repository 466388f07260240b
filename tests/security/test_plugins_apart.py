"""Plugins that end the process: with SCOTL_MATGL_ISOLATE=1 they cost themselves alone."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from scotl_matgl import all_cards

_ENDS = {
    "exit": "import os; os._exit(3)",
    "segfault": "import ctypes; ctypes.string_at(0)",
    "closed": "import os; os.close(1); os.close(2)\nimport os; os._exit(4)",
    "prints": "print('noise')",
}


@pytest.mark.parametrize("kind", _ENDS)
def test_a_plugin_that_ends_its_process_costs_itself_alone(tmp_path: Path, kind: str) -> None:
    (tmp_path / "odd_zoo.py").write_text(f"{_ENDS[kind]}\ndef cards(): return []\n")
    info = tmp_path / "odd_zoo-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: odd-zoo\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text("[scotl_matgl.zoos]\nodd = odd_zoo:cards\n")
    code = (
        "from scotl_matgl import all_cards; found = []; "
        "n = len(all_cards(lambda *said: found.append(said))); print(n, found)"
    )
    done = subprocess.run(  # noqa: S603 - our own interpreter
        [sys.executable, "-c", code], capture_output=True, text=True, check=False, timeout=60,
        env=os.environ | {"PYTHONPATH": str(tmp_path), "SCOTL_MATGL_ISOLATE": "1"},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    count, _, said = done.stdout.strip().partition(" ")
    assert int(count) == len(all_cards())
    assert ("its process ended with" in said) is (kind != "prints")
