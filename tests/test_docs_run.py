"""What README and docs show in Python runs, and every command there and in the plugins has the options it is given."""

from __future__ import annotations

import contextlib
import gzip
import itertools
import json
import re
import shlex
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import typer.main
from typer.testing import CliRunner

from scotl_matgl import (
    FullTransferRegressor,
    TransferabilityRanker,
    TransferFeaturizer,
    TransferRegressor,
    learning_curves,
    load_example,
    validate,
)
from scotl_matgl.chemistry.crystals import Crystal
from scotl_matgl.cli.main import app
from scotl_matgl.exceptions import ScotlMatglWarning
from scotl_matgl.sources import zoo
from scotl_matgl.sources.cards import SourceCard

ROOT = Path(__file__).parents[1]
PAGES = [Path("README.md"), *sorted(path.relative_to(ROOT) for path in ROOT.glob("docs/**/*.md"))]
PLUGINS = sorted(path.relative_to(ROOT) for path in ROOT.glob("plugins/**/README.md"))
NEEDS_MODELS = "<!-- needs the models"
BLOCK = re.compile(r"^(<!-- needs the models.*?-->\n)?```python\n(.*?)^```$", re.M | re.S)
FEW = {"MEGNet-MP-2018.6.1-Eform", "M3GNet-MP-2018.6.1-Eform", "Shotgun-BulkModulus-1"}


def blocks(page: Path) -> list[tuple[bool, str]]:
    """Whether a block needs the models, and the block, headed by so many empty lines that errors name its line."""
    text = (ROOT / page).read_text(encoding="utf-8")
    return [(bool(found[1]), "\n" * text[: found.start(2)].count("\n") + found[2]) for found in BLOCK.finditer(text)]


def commands() -> list[str]:
    """Each command of the package that stands in a block, without what follows it.

    Not an option of the whole program: it acts when it is parsed, and `--install-completion` changes the user's shell.
    """
    found = []
    for page in (*PAGES, *PLUGINS):
        text = (ROOT / page).read_text(encoding="utf-8").replace("\\\n", " ")
        lines = re.findall(r"^(?:\$ |    |(?<=```console\n)|(?<=```\n))(scotl-matgl (?!--).*)$", text, re.M)
        found += [re.split(r" {2,}#| #", line)[0].strip() for line in lines]
    return list(dict.fromkeys(found))


@pytest.fixture
def few_sources(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Three sources and the fastest head, so that what takes minutes takes seconds; and an empty home."""

    def some(cards: list[SourceCard]) -> list[SourceCard]:
        return [card for card in cards if card.name in FEW]

    for name in ("matgl", "own", "published"):
        listed = getattr(zoo, name)
        monkeypatch.setattr(zoo, name, lambda listed=listed: some(listed()))
    for kind in (TransferabilityRanker, TransferRegressor, TransferFeaturizer, FullTransferRegressor):
        defaults = kind.__init__.__kwdefaults__
        for key, value in {"head": "kernel ridge", "epochs": 1}.items():
            if key in defaults:
                monkeypatch.setitem(defaults, key, value)
    # A fit is what both repeat: as few as their answers allow.
    monkeypatch.setattr(learning_curves, "__defaults__", ("kernel ridge",))
    monkeypatch.setitem(learning_curves.__kwdefaults__, "repeats", 2)
    monkeypatch.setitem(validate.__kwdefaults__, "n_splits", 2)
    monkeypatch.setitem(validate.__kwdefaults__, "max_folds", 1)
    monkeypatch.setenv("SCOTL_MATGL_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("MPLBACKEND", "Agg")
    monkeypatch.chdir(tmp_path)


def rock_salts() -> list[Crystal]:
    """As many crystals as the table has rows."""
    metals = (3, 11, 12, 19, 20, 22, 23, 25, 28, 37, 38)
    sites = np.array([[0.0, 0, 0], [0.5, 0.5, 0.5]])
    lattice = 2.5 * (np.ones((3, 3)) - np.eye(3))
    pairs = [(metal, other) for metal in metals for other in (7, 9, 15, 16, 17, 34, 35, 53)]
    return [Crystal(lattice, sites, np.array(pair, np.int16)) for pair in pairs][: len(load_example().iloc[::20])]


def volumes(structures: list[Any]) -> np.ndarray:
    """What stands for a network of one's own."""
    return np.array([[structure.volume / len(structure)] for structure in structures])


def write_files_of_the_guide(folder: Path) -> None:
    """Crystals as CIFs, and their embeddings as `scotl-matgl encode` writes them."""
    (folder / "folder_of_cifs").mkdir()
    for number, crystal in enumerate(rock_salts()):
        crystal.to_structure().to(str(folder / "folder_of_cifs" / f"{number:03}.cif"), fmt="cif")
    columns = {"identifier": ["a", "b"], "MEGNet-MP-2018.6.1-Eform[readout]_0": [0.5, np.nan]}
    with contextlib.suppress(ImportError):
        pd.DataFrame(columns).to_parquet(folder / "embeddings.parquet")


@pytest.fixture
def known(few_sources: None, tmp_path: Path) -> dict[str, Any]:
    """What the text around the blocks speaks of: a table, arrays of a network, errors of a study."""
    write_files_of_the_guide(tmp_path)
    table = load_example().iloc[::20]
    rng = np.random.default_rng(0)
    n_target, n_source = (grid.ravel() for grid in np.meshgrid([50, 100, 200, 400], [1e3, 1e4, 1e5]))
    return {
        "formulas": table["formula"].to_numpy(),
        "y": table["target"].to_numpy(),
        "new_formulas": ["Fe2O3", "MgAl2O4"],
        "new_crystal": rock_salts()[0],
        "my_graphs": list,
        "my_network": volumes,
        "frame": pd.DataFrame({"composition": table["formula"].to_numpy(), "temperature": 300.0}),
        "weights": (rng.normal(size=(8, 267)), rng.normal(size=(1, 8))),
        "biases": (np.zeros(8), np.zeros(1)),
        "mean": np.zeros(267),
        "scale": np.ones(267),
        "n_target": n_target,
        "n_source": n_source,
        "errors": 2 * n_target**-0.4 + 3 * n_source**-0.3 + 0.05,
    }


@pytest.mark.slow
@pytest.mark.parametrize("page", [page for page in PAGES if blocks(page)], ids=str)
def test_blocks_of_python_run(page: Path, known: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    if any("read_parquet" in code for _, code in blocks(page)):
        pytest.importorskip("pyarrow")
    monkeypatch.delenv("SCOTL_MATGL_ASSETS", raising=False)  # bridges alone, which need no torch
    names = dict(known)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ScotlMatglWarning)  # of the formulas that a block spells wrongly to show it
        for needs_models, code in blocks(page):
            # Names of the blocks before are known to the next, as to a reader.
            if not needs_models:
                exec(compile(code, str(page), "exec"), names)  # noqa: S102 - our own documents
    assert len(names) > len(known)


def write_what_the_models_read(file: Path, chosen: int = 60) -> None:
    """The first small crystals of the Materials Project, and a source that was trained on them for an epoch."""
    from scotl_matgl import Corpus
    from scotl_matgl.training.settings import TrainingSettings
    from scotl_matgl.training.source import train_source

    with gzip.open(file, "rt", encoding="utf-8") as opened:
        records = json.load(opened)
    unit = {"property": "formation_energy_eV_atom", "unit": "eV/atom"}
    small = [record for record in records if record["natoms"] <= 8 and unit["property"] in record["properties"]]
    with gzip.open("crystals.json.gz", "wt", encoding="utf-8") as opened:
        json.dump(small[:chosen], opened)
    settings = TrainingSettings(**unit, epochs=1, hidden=(8,), width=8, held_out=0.2, validation=0.1)
    train_source(Corpus.read("crystals.json.gz"), settings, "eform", device="cpu", name="My-Eform")


def small_megnet() -> Any:
    """What the reader has trained: an untrained MEGNet."""
    from scotl_matgl.encoders.weights import pick_backend

    pick_backend().import_matgl()
    from matgl.ext.pymatgen import get_element_list
    from matgl.models import MEGNet

    elements = get_element_list([crystal.to_structure() for crystal in rock_salts()])
    return MEGNet(element_types=elements, cutoff=4.0, dim_edge_embedding=40)


@pytest.mark.slow
@pytest.mark.torch
def test_blocks_of_python_that_need_the_models_run(
    assets: Path, known: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("dgl")
    pytest.importorskip("lightning")
    monkeypatch.setattr(f"{__name__}.FEW", FEW | {"My-MEGNet", "My-Eform"})
    write_what_the_models_read(assets / "structures" / "crystals.json.gz")
    crystals = rock_salts()
    names = {**known, "crystals": crystals, "new_crystals": crystals[:3], "module": small_megnet()}
    codes = [(page, code) for page in PAGES for needs_models, code in blocks(page) if needs_models]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ScotlMatglWarning)
        for page, code in codes:
            exec(compile(code.replace("epochs=50", "epochs=1"), str(page), "exec"), names)  # noqa: S102 - our own
    assert len(codes) == 6
    ranked = [{result.source for result in names[name].ranking_.results} for name in ("ranker", "trained_ranker")]
    assert ["My-MEGNet" in ranked[0], "My-Eform" in ranked[1]] == [True, True]
    assert names["encoded"].embeddings["readout"].shape == (60, 128)
    assert np.isfinite(names["model"].predict(names["new_crystals"])).all()


def parse(command: str) -> None:
    current: Any = typer.main.get_command(app)
    arguments = [word for word in shlex.split(command)[1:] if not word.startswith(">")]
    while arguments and arguments[0] in getattr(current, "commands", ()):  # Typer has a click of its own
        current = current.commands[arguments.pop(0)]
    assert not hasattr(current, "commands"), f"there is no command {' '.join(arguments)}"
    current.make_context(current.name, arguments, resilient_parsing=False)


@pytest.mark.parametrize("command", commands())
def test_commands_have_the_options_they_are_given(command: str) -> None:
    parse(command)


@pytest.mark.parametrize("page", [*PAGES, *PLUGINS], ids=str)
def test_commands_inside_sentences_have_them_too(page: Path) -> None:
    text = " ".join((ROOT / page).read_text(encoding="utf-8").split())
    for command in re.findall(r"`(scotl-matgl [a-z][^`.…]*)`", text):
        try:
            parse(command)
        except Exception as error:  # of the click inside Typer
            if type(error).__name__ != "MissingParameter":  # a sentence need not name the table
                raise


def write_crystals(folder: Path) -> pd.DataFrame:
    """CIFs of halides with the structure of CsCl, and a table that names them in two ways."""
    folder.mkdir()
    rows = []
    for number, (metal, halogen) in enumerate(itertools.product(("Li", "Na", "K", "Rb", "Cs"), ("F", "Cl", "Br", "I"))):
        edge = 3.0 + 0.07 * number
        cell = [f"_cell_length_{axis} {edge}" for axis in "abc"]
        cell += [f"_cell_angle_{angle} 90" for angle in ("alpha", "beta", "gamma")]
        columns = [f"_atom_site_{name}" for name in ("label", "fract_x", "fract_y", "fract_z")]
        sites = [f"{metal}1 0 0 0", f"{halogen}1 0.5 0.5 0.5"]
        lines = ["data_a", *cell, "_space_group_IT_number 1", "loop_", *columns, *sites, ""]
        (folder / f"mp-{number}.cif").write_text("\n".join(lines))
        rows.append({"id": f"mp-{number}", "file": f"{folder.name}/mp-{number}.cif", "target": edge + (number % 3) / 7})
    return pd.DataFrame(rows)


@pytest.mark.slow
def test_commands_run_in_the_order_of_the_guide(few_sources: None, tmp_path: Path) -> None:
    table = load_example().iloc[::20][["formula", "target"]]
    table.set_axis(["composition", "band_gap"], axis=1).to_csv("table.csv", index=False)
    table.set_axis(["composition", "gap"], axis=1).to_csv("measurements.csv", index=False)
    candidates = pd.DataFrame({"formula": ["NaCl", "MgO", "Fe2O3"]})
    candidates.to_csv("candidates.csv", index=False)
    pytest.importorskip("pyarrow")
    candidates.to_parquet("candidates.parquet")
    write_crystals(Path("folder_of_cifs")).to_csv("measured.csv", index=False)
    told: dict[str, str] = {}
    for command in commands():
        words = shlex.split(command)[1:]
        if "My-MEGNet" in words:
            continue  # must be trained first: tests/test_own_models.py
        if words[0] in ("rank", "fit", "predict") or words[:2] == ["bridge", "show"]:
            done = CliRunner().invoke(app, words)
            assert done.exit_code == 0, (command, done.output)
            told[words[0]] = told.get(words[0], "") + done.output
    assert set(told) == {"rank", "fit", "predict", "bridge"}
    assert "NaCl" in told["predict"]
    assert "CGCNN-MP-2017-Eform" in told["bridge"]
