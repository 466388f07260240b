"""The plugin guide does what it says: its files are built, installed in a new environment, found and ranked."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import sysconfig
from pathlib import Path

import pytest

pytestmark = pytest.mark.slow  # starts processes

GUIDE = Path(__file__).parents[1] / "plugins" / "README.md"


def blocks(language: str) -> list[str]:
    """Code blocks of the guide, in order."""
    return re.findall(rf"^```{language}\n(.*?)^```$", GUIDE.read_text(encoding="utf-8"), re.M | re.S)


def run(*command: str | Path, cwd: Path) -> str:
    """Run a command as a user would, and return what it prints; what it complains about is shown if it fails."""
    env = {key: value for key, value in os.environ.items() if key not in ("PYTHONPATH", "PYTHONHOME", "VIRTUAL_ENV")}
    done = subprocess.run([str(part) for part in command], cwd=cwd, env=env, capture_output=True, text=True)  # noqa: S603
    assert done.returncode == 0, f"{command} failed:\n{done.stdout}\n{done.stderr}"
    return done.stdout


@pytest.fixture(scope="module")
def files() -> dict[str, str]:
    """What the guide tells to write, the ranking and the test that it shows."""
    (project,) = blocks("toml")
    module, ranking, check, _ = blocks("python")
    return {"pyproject.toml": project, "my_zoo.py": module, "ranking.py": ranking, "test_my_zoo.py": check}


@pytest.fixture(scope="module")
def python(files: dict[str, str], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The interpreter of a new environment into which the wheel of the guide's plugin was installed."""
    folder = tmp_path_factory.mktemp("my-zoo")
    for name in ("pyproject.toml", "my_zoo.py"):
        (folder / name).write_text(files[name], encoding="utf-8")
    run(sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", folder / "dist", cwd=folder)
    (wheel,) = (folder / "dist").glob("my_zoo-1.0-*.whl")

    venv = tmp_path_factory.mktemp("environment") / "venv"
    run(sys.executable, "-m", "venv", "--without-pip", venv, cwd=folder)
    interpreter = venv / "bin" / "python"
    # --system-site-packages would give the packages of the interpreter below ours, if ours is itself an environment.
    ours = sysconfig.get_path("purelib")
    theirs = Path(run(interpreter, "-c", "import sysconfig; print(sysconfig.get_path('purelib'))", cwd=folder).strip())
    (theirs / "ours.pth").write_text(f"import site; site.addsitedir({ours!r})\n", encoding="utf-8")
    pip = (sys.executable, "-m", "pip", "--python", interpreter, "install", "--quiet", "--no-deps", "--no-index")
    run(*pip, wheel, cwd=folder)
    return interpreter


def test_the_guide_needs_no_more_lines_than_it_promises(files: dict[str, str]) -> None:
    lines = [line for name in ("pyproject.toml", "my_zoo.py") for line in files[name].splitlines() if line.strip()]
    assert len(lines) <= 30


def test_the_plugin_is_found_by_its_entry_point(python: Path, tmp_path: Path) -> None:
    code = (
        "from scotl_matgl import all_cards, registry\n"
        "found = registry.entries('zoos')['my_zoo']\n"
        "print(found.distribution, found.version, found.entry_point.value)\n"
        "print([card.zoo for card in all_cards() if card.name == 'my-model'])\n"
        "import my_zoo; print(my_zoo.__file__)\n"
    )
    found, zoos, file = run(python, "-c", code, cwd=tmp_path).splitlines()
    assert found == "my-zoo 1.0 my_zoo:cards"
    assert zoos == "['my_zoo']"
    assert Path(file).is_relative_to(python.parents[1])


def test_the_model_of_the_guide_is_ranked(files: dict[str, str], python: Path, tmp_path: Path) -> None:
    code = (
        "import warnings\n"
        "from scotl_matgl.exceptions import ScotlMatglWarning\n"
        "warnings.simplefilter('error', ScotlMatglWarning)\n"
        f"{files['ranking.py']}\n"
        "print(ranker.errors_, [result.source for result in ranker.ranking_.results])\n"
    )
    *ranking, result = run(python, "-c", code, cwd=tmp_path).splitlines()
    assert result == "{} ['my-model']"
    assert any("my-model" in line for line in ranking)
    assert any("no transfer" in line for line in ranking)


def test_the_test_of_the_guide_passes(files: dict[str, str], python: Path, tmp_path: Path) -> None:
    assert run(python, "-c", files["test_my_zoo.py"] + "\nprint(len(cards()))\n", cwd=tmp_path) == "1\n"


def test_the_test_of_the_guide_finds_a_fault(files: dict[str, str], python: Path, tmp_path: Path) -> None:
    broken = "import my_zoo\nmy_zoo.Encoder.encode = lambda self, formulas, layer='readout': None\n"
    with pytest.raises(AssertionError, match=r"my-model: encode\(layer='readout'\) is a NoneType; it must be a numpy"):
        run(python, "-c", broken + files["test_my_zoo.py"], cwd=tmp_path)


def test_the_function_of_the_guide_is_ranked(capsys: pytest.CaptureFixture[str]) -> None:
    exec(compile(blocks("python")[3], str(GUIDE), "exec"), {})  # noqa: S102 - our own guide
    assert "Letters" in capsys.readouterr().out
