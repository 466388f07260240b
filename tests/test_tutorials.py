"""The tutorial that needs torch and MatGL runs, and shows what its notebook has stored; `make docs` runs the others."""

from __future__ import annotations

import ast
import importlib.metadata
import importlib.util
import json
import re
from pathlib import Path
from typing import Any

import pytest

FOLDER = Path(__file__).parents[1] / "docs" / "tutorials"
STORED = FOLDER / "own_model.ipynb"
ON_DGL = importlib.util.find_spec("matgl") is not None and importlib.metadata.version("matgl") < "4"


def cells(path: Path) -> list[dict[str, Any]]:
    found = json.loads(path.read_text(encoding="utf-8"))["cells"]
    return [cell for cell in found if cell["cell_type"] == "code"]


def words(text: str) -> set[str]:
    """What is said apart from numbers, which differ a little between machines."""
    return set(re.findall(r"[^\W\d_]{2,}", text))


def test_outputs_are_stored_where_the_site_does_not_run_the_notebook() -> None:
    ignored = re.findall(r"execute_ignore: \[(.*?)\]", (FOLDER.parents[1] / "mkdocs.yml").read_text(encoding="utf-8"))
    assert ignored == [f'"tutorials/{STORED.name}"']
    assert [cell["execution_count"] for cell in cells(STORED)] == list(range(1, len(cells(STORED)) + 1))
    kinds = {output["output_type"] for cell in cells(STORED) for output in cell["outputs"]}
    assert kinds == {"stream", "execute_result"}, "run tools/run_tutorial.py"
    for path in FOLDER.glob("*.ipynb"):
        if path != STORED:
            assert not any(cell["outputs"] for cell in cells(path)), path


@pytest.mark.torch
@pytest.mark.slow
@pytest.mark.skipif(not ON_DGL, reason="the notebook is for MatGL 2.1 on DGL")
def test_it_shows_what_is_stored(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("SCOTL_MATGL_HOME", str(tmp_path))  # put back at the end, as the notebook sets it
    names: dict[str, Any] = {}
    compared = 0
    for cell in cells(STORED):
        tree = ast.parse("".join(cell["source"]))
        last = tree.body.pop() if isinstance(tree.body[-1], ast.Expr) else None
        exec(compile(tree, str(STORED), "exec"), names)  # noqa: S102 - our own document
        shown = None if last is None else eval(compile(ast.Expression(last.value), str(STORED), "eval"), names)  # noqa: S307
        for output in cell["outputs"]:
            if output["output_type"] == "execute_result":
                form = "text/html" if "text/html" in output["data"] else "text/plain"
                told = shown._repr_html_() if form == "text/html" else repr(shown)
                assert words(told) == words("".join(output["data"][form]))
                compared += 1
    assert compared == 3
    assert names["ranking"].best != "My-MEGNet"
