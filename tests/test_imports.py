"""What an import costs: nothing heavy is loaded before it is needed, and every public name is there."""

from __future__ import annotations

import json
import pkgutil
import subprocess
import sys

import pytest

import scotl_matgl

HEAVY = ("torch", "dgl", "matgl", "matminer", "pymatgen")
MODULES = sorted(
    info.name
    for info in pkgutil.walk_packages(scotl_matgl.__path__, "scotl_matgl.")
    if not info.name.startswith("scotl_matgl.data")
)

LOADED = "import json, sys; print(json.dumps(sorted({name.partition('.')[0] for name in sys.modules})))"


def run(code: str, *flags: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, *flags, "-c", code]
    return subprocess.run(command, capture_output=True, text=True, check=False)  # noqa: S603 - our own code


def loaded_after(code: str) -> set[str]:
    done = run(f"{code}\n{LOADED}")
    assert done.returncode == 0, done.stderr
    return set(json.loads(done.stdout.splitlines()[-1]))


def test_the_package_itself_loads_no_dependency_at_all() -> None:
    assert not loaded_after("import scotl_matgl") & {*HEAVY, "numpy", "pandas", "sklearn", "scipy", "typer", "rich"}


@pytest.mark.slow
def test_no_module_loads_anything_heavy() -> None:
    # One process for all: none may load it, so neither may their union.
    assert "scotl_matgl.ranking.ranker" in MODULES
    assert "scotl_matgl.encoders.matgl" in MODULES
    assert not loaded_after("\n".join(f"import {name}" for name in MODULES)) & set(HEAVY)


def test_help_loads_neither_heavy_modules_nor_numpy() -> None:
    code = "import sys; sys.argv = ['scotl-matgl', '--help']\nfrom scotl_matgl.cli.main import main\ntry:\n    main()\n"
    loaded = loaded_after(code + "except SystemExit as done:\n    assert done.code == 0, done.code")
    assert not loaded & {*HEAVY, "numpy", "pandas", "sklearn", "scipy", "rich"}


@pytest.mark.slow
@pytest.mark.parametrize("command", [("rank",), ("fit", "-o", "model.skops"), ("curve",), ("validate",), ("evaluate",)])
def test_a_wrong_column_is_told_before_scikit_learn_is_loaded(command, tmp_path) -> None:
    (tmp_path / "table.csv").write_text("formula,target\nNaCl,1\n")
    words = ["scotl-matgl", command[0], str(tmp_path / "table.csv"), *command[1:], "--target", "gap"]
    code = f"import sys; sys.argv = {words!r}\nfrom scotl_matgl.cli.main import main\ntry:\n    main()\n"
    loaded = loaded_after(code + "except SystemExit as done:\n    assert done.code == 2, done.code")
    assert not loaded & {*HEAVY, "sklearn", "scipy"}


@pytest.mark.slow
def test_ranking_with_shipped_bridges_loads_neither_torch_nor_matgl(tmp_path, monkeypatch) -> None:
    monkeypatch.setenv("SCOTL_MATGL_HOME", str(tmp_path))
    loaded = loaded_after(
        "from scotl_matgl import TransferabilityRanker, load_example\n"
        "table = load_example().iloc[:40]\n"
        "ranking = TransferabilityRanker(estimators=['loo']).fit(table['formula'], table['target']).ranking_\n"
        "assert len(ranking.results) + len(ranking.screened) >= 45\n"
        "assert ranking.errors == {}"
    )
    assert "sklearn" in loaded
    # matminer's tables come with the package, and pymatgen is only needed for structures.
    assert not loaded & set(HEAVY)


@pytest.mark.slow
def test_no_warning_at_import() -> None:
    names = (
        "ranking.ranker",
        "ranking.result",
        "cli.main",
        "tables.files",
        "learners.heads",
        "sources.zoo",
        "estimators",
    )
    done = run("\n".join(f"import scotl_matgl.{name}" for name in names), "-W", "error")
    assert done.returncode == 0, done.stderr


def test_public_names_resolve_and_are_listed() -> None:
    assert set(scotl_matgl.__all__) == set(dir(scotl_matgl))
    assert set(scotl_matgl.__all__) == {*scotl_matgl._PUBLIC, "__version__"}
    for name in scotl_matgl.__all__:
        found = getattr(scotl_matgl, name)
        assert name == "__version__" or found.__name__ == name
    with pytest.raises(AttributeError, match="no attribute 'Rankr'"):
        _ = scotl_matgl.Rankr


def test_running_the_module_is_the_command_line() -> None:
    done = subprocess.run([sys.executable, "-m", "scotl_matgl", "--help"], capture_output=True, text=True, check=False)
    assert done.returncode == 0
    assert "rank" in done.stdout
    # Importing it is not.
    assert run("import scotl_matgl.__main__").stdout == ""


def test_version_is_that_of_the_distribution() -> None:
    from importlib.metadata import version

    assert scotl_matgl.__version__ == version("scotl-matgl")
