"""Every script of examples/ runs, as a user would run it."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
NEED_MODELS = {"own_matgl_model.py", "train_source.py", "transfer_full.py"}  # torch, MatGL and the third-party data
NEED_TORCH = {"transfer_fine_tuned.py"}
SCRIPTS = [
    pytest.param(
        path,
        id=path.name,
        marks=[
            *([pytest.mark.torch] if path.name in NEED_MODELS | NEED_TORCH else []),
            *([pytest.mark.slow] if path.name != "embedding_in_pipeline.py" else []),
        ],
    )
    for path in sorted((ROOT / "examples").glob("*.py"))
]


@pytest.mark.slow
@pytest.mark.parametrize("script", SCRIPTS)
def test_the_example_runs(script: Path, tmp_path: Path, request: pytest.FixtureRequest) -> None:
    environment = os.environ | {"SCOTL_MATGL_HOME": str(tmp_path), "MPLBACKEND": "Agg"}
    if script.name in NEED_MODELS:
        environment["SCOTL_MATGL_ASSETS"] = str(request.getfixturevalue("assets"))
        pytest.importorskip("matgl")
    if script.name in NEED_TORCH:
        pytest.importorskip("torch")
    done = subprocess.run([sys.executable, script], cwd=tmp_path, env=environment, capture_output=True, text=True)  # noqa: S603
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip(), "the example prints nothing"
