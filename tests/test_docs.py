"""The documents point at what is there, and every block of Python in them is Python."""

from __future__ import annotations

import ast
import re
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PAGES = sorted(
    path.relative_to(ROOT)
    for pattern in ("*.md", "docs/**/*.md", "plugins/*.md", "plugins/*/*.md", "benchmarks/*.md")
    for path in ROOT.glob(pattern)
)
IDS = [str(page) for page in PAGES]


@pytest.mark.parametrize("page", PAGES, ids=IDS)
def test_links_lead_to_files_that_are_there(page: Path) -> None:
    text = (ROOT / page).read_text(encoding="utf-8")
    links = [link.partition("#")[0] for link in re.findall(r"\]\(([^)\s]+)\)", text) if "://" not in link]
    assert [link for link in links if link and not (ROOT / page.parent / link).exists()] == []


@pytest.mark.parametrize("page", PAGES, ids=IDS)
def test_blocks_of_python_can_be_parsed(page: Path) -> None:
    text = (ROOT / page).read_text(encoding="utf-8")
    for code in re.findall(r"^```python\n(.*?)^```$", text, re.M | re.S):
        ast.parse(code)


def test_the_architecture_names_every_room_and_files_that_are_there() -> None:
    package = ROOT / "scotl_matgl"
    text = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")
    rooms = {path.stem for path in package.iterdir() if (path / "__init__.py").exists() or path.suffix == ".py"}
    assert {room for room in rooms if not room.startswith("__") and f"`{room}`" not in text} == set()
    named = re.findall(r"`([a-z_]+/(?:[a-z_]+\.py)?)`", text)
    assert [name for name in named if not (package / name).exists() and not (ROOT / name).exists()] == []


def test_extras_that_are_named_can_be_installed() -> None:
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    texts = [*(ROOT / page for page in PAGES), ROOT / "Makefile", *(ROOT / "scotl_matgl").rglob("*.py")]
    named = {
        name for file in texts for name in re.findall(r"scotl[-_]matgl\[(\w+)\]|'\.\[([\w,]+)\]'", file.read_text())
    }
    wanted = {extra for pair in named for part in pair for extra in part.split(",") if extra}
    assert {"dgl", "pyg", "test"} <= wanted <= set(extras)


def test_the_recipe_for_conda_has_the_dependencies_of_the_package() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    recipe = (ROOT / "tools" / "conda" / "meta.yaml").read_text(encoding="utf-8")
    run = recipe.partition("  run:")[2].partition("test:")[0]
    listed = {line.strip("- ").replace(" ", "") for line in run.splitlines() if line.strip()}
    assert listed - {"python>={{python_min}}"} == set(project["dependencies"])
    assert f'version = "{project["version"]}"' in recipe


def test_every_question_of_a_first_time_reader_names_the_page_that_answers_it() -> None:
    text = (ROOT / "docs" / "questions.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| (\d+) \| [^|]+\? \| \[[^\]]+\]\([^)]+\) \|$", text, re.M)
    assert rows == [str(number) for number in range(1, 16)]


def test_the_reference_has_every_public_name() -> None:
    import scotl_matgl

    text = (ROOT / "docs" / "reference.md").read_text(encoding="utf-8")
    assert set(re.findall(r"^::: scotl_matgl\.(\w+)$", text, re.M)) == set(scotl_matgl.__all__) - {"__version__"}
