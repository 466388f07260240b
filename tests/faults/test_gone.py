"""A file that another process deletes, and even writes again, while a folder is read costs no warning and no value."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from scotl_matgl import storage
from scotl_matgl.bridges.base import BridgeError
from scotl_matgl.bridges.cache import CachedFile, damage_of
from scotl_matgl.bridges.ridge import RidgeBridge
from scotl_matgl.bridges.store import find_bridge, list_bridges
from scotl_matgl.chemistry.crystals import Crystal
from scotl_matgl.descriptors.composite import get_descriptor
from scotl_matgl.encoders.contracts import Encoded
from scotl_matgl.encoders.store import EmbeddingStore
from scotl_matgl.sources.cards import SourceCard

CARD = SourceCard(
    name="Toy",
    modality="structure",
    layers={"readout": 2},
    loader="toy:load",
    zoo="toy",
    property="toys",
    unit="eV",
    dataset="toys",
    architecture="none",
    licence="MIT",
    citation="none",
)
CRYSTAL = Crystal(lattice=np.eye(3) * 4, numbers=np.array([29]), frac_coords=np.zeros((1, 3)))

pytestmark = pytest.mark.filterwarnings("error")


class Toy:
    card, layers = CARD, ("readout",)

    def encode_layers(self, structures: Any, **_: Any) -> Encoded:
        return Encoded({"readout": np.full((len(structures), 2), 7, dtype=np.float32)})


@pytest.fixture(autouse=True)
def gone_for_a_moment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each file is away while it is read, and back when somebody looks whether it exists."""
    monkeypatch.setenv("SCOTL_MATGL_HOME", str(tmp_path))
    real = storage._checked_header

    def checked(path: Path, *arguments: Any) -> Any:
        content = path.read_bytes()
        path.unlink()
        try:
            return real(path, *arguments)
        finally:
            path.write_bytes(content)

    monkeypatch.setattr(storage, "_checked_header", checked)


def bridge_of(source: str) -> Path:
    rng = np.random.default_rng(0)
    bridge = RidgeBridge().fit(rng.normal(size=(60, 4)), rng.normal(size=(60, 2)))
    path = storage.home() / "bridges" / f"{source}--readout--abc.safetensors"
    bridge.save(path)
    return path


def test_embeddings_are_encoded_again() -> None:
    store = EmbeddingStore()
    for _ in range(2):
        found = store.encode(Toy(), [CRYSTAL])  # type: ignore[arg-type]
        assert found.embeddings["readout"].tolist() == [[7.0, 7.0]]
        assert found.n_encoded == 1
    assert len(list(store.folder(CARD).iterdir())) == 1


def test_a_bridge_is_not_listed_and_not_found() -> None:
    path = bridge_of("Toy")
    assert list(list_bridges([path.parent])) == []
    with pytest.raises(BridgeError, match="there is no bridge"):
        find_bridge(CARD, "readout", get_descriptor("magpie"), [path.parent])


def test_the_cache_calls_nothing_damaged() -> None:
    path = bridge_of("Toy")
    assert damage_of(CachedFile(path, "bridges", 1, 0.0)) == ""
