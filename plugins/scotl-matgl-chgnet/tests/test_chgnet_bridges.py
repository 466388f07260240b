"""CHGNet sources and their bridges, where neither the package chgnet nor torch is installed."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

import scotl_matgl_chgnet
from scotl_matgl import TransferabilityRanker, load_example, registry
from scotl_matgl.bridges.base import Bridge
from scotl_matgl.bridges.embedding import embed_source
from scotl_matgl.bridges.store import list_bridges
from scotl_matgl.descriptors.described import Described
from scotl_matgl.plugin import SourceCard, get_descriptor, parse_compositions
from scotl_matgl.testing.shipped import check_bridges
from scotl_matgl.testing.zoos import check_zoo

FOLDER = Path(scotl_matgl_chgnet.__file__).with_name("bridges")
BRIDGED = [card for card in scotl_matgl_chgnet.cards() if list(FOLDER.glob(f"{card.name}--*"))]


@pytest.fixture(autouse=True)
def _installed_without_chgnet(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The metadata of the plugin on a folder of sys.path, a home of its own, and no model to be imported."""
    info = tmp_path / "site" / "scotl_matgl_chgnet-0.1.0.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: scotl-matgl-chgnet\nVersion: 0.1.0\n")
    (info / "entry_points.txt").write_text("[scotl_matgl.zoos]\nchgnet = scotl_matgl_chgnet:cards\n")
    monkeypatch.syspath_prepend(str(info.parent))
    monkeypatch.setenv("SCOTL_MATGL_HOME", str(tmp_path / "home"))
    for package in ("chgnet", "torch"):
        monkeypatch.setitem(sys.modules, package, None)
    registry.refresh()
    yield
    registry.refresh()


def test_the_zoo_conforms() -> None:
    check_zoo(scotl_matgl_chgnet.cards)


def test_a_table_of_formulas_is_ranked_by_the_bridges_of_the_plugin() -> None:
    table = load_example()[::20]
    names = [card.name for card in BRIDGED]
    ranker = TransferabilityRanker(sources=[*names, "Elements-CHGNet"]).fit(table["formula"], table["target"])
    assert not ranker.errors_
    found = {result.source: result for result in ranker.ranking_.results}
    assert found.keys() == {*names, "Elements-CHGNet"}
    assert {found[name].bridged for name in names} == {len(table)}


@pytest.mark.parametrize("card", BRIDGED, ids=lambda card: card.name)
def test_energies_by_formula_are_near_those_of_the_reference_crystals(card: SourceCard) -> None:
    compositions = parse_compositions(list(card.probes))
    described = Described.of(compositions, get_descriptor("standard").fit(compositions))
    ((source, embedded),) = embed_source(card, described, layers=("final",))["final"]
    bridge = source.bridge
    assert isinstance(bridge, Bridge)
    # The held-out error of the bridge, in eV/atom: of a corpus whose energies spread by 1.9 (r2SCAN: 9.7).
    error = bridge.weights_["output_scale"][0] * np.sqrt(1 - bridge.quality_.mean_r2)
    assert error < 0.3
    assert np.abs(embedded.values[:, 0] - list(card.probes.values())).mean() < 3 * error


def test_the_bridges_conform() -> None:
    check_bridges(scotl_matgl_chgnet.cards(), FOLDER)
    assert sum(path.stat().st_size for path in FOLDER.iterdir()) <= 2e6
    for file in list_bridges([FOLDER]):
        assert file.load().quality_.median_r2 > 0.9
