"""SevenNet sources: their cards everywhere; energies, the package's own and the laws of embeddings where it is."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import scotl_matgl_sevennet
from scotl_matgl.encoders import probes
from scotl_matgl.plugin import Crystal, IncompatibleWeightsError, reference_crystals
from scotl_matgl.testing.encoders import check_encoder
from scotl_matgl.testing.shipped import check_bridges
from scotl_matgl.testing.zoos import check_zoo

CARDS = {card.name: card for card in scotl_matgl_sevennet.cards()}

# eV/atom of CsCl, NaCl, MgO and Si by the package itself, and what it calls the model.
ENERGIES = {
    "SevenNet-0-MPtrj-2024.7-PES": (-3.2516, -3.3840, -5.9774, -5.4029),
    "SevenNet-0-MPF-2024.5-PES": (-3.2594, -3.3811, -5.9761, -5.4127),
    "SevenNet-l3i5-MPtrj-PES": (-3.2560, -3.3868, -5.9795, -5.4243),
    "SevenNet-MF-0-PBE-PES": (-3.2504, -3.3872, -5.9691, -5.3774),
    "SevenNet-MF-0-r2SCAN-PES": (-17.7944, -6.8859, -8.0408, -8.7173),
}
CALCULATORS = {
    "SevenNet-0-MPtrj-2024.7-PES": {"model": "7net-0_11Jul2024"},
    "SevenNet-0-MPF-2024.5-PES": {"model": "7net-0_22May2024"},
    "SevenNet-l3i5-MPtrj-PES": {"model": "7net-l3i5"},
    "SevenNet-MF-0-PBE-PES": {"model": "7net-mf-0", "modal": "PBE"},
    "SevenNet-MF-0-r2SCAN-PES": {"model": "7net-mf-0", "modal": "R2SCAN"},
}


def test_the_zoo_conforms() -> None:
    check_zoo(scotl_matgl_sevennet.cards)
    assert set(CARDS) == set(ENERGIES)


def test_the_bridges_conform() -> None:
    folder = Path(scotl_matgl_sevennet.__file__).with_name("bridges")
    check_bridges(list(CARDS.values()), folder)
    assert {path.name.partition("--")[0] for path in folder.glob("*.safetensors")} == {"SevenNet-0-MPtrj-2024.7-PES"}
    assert sum(path.stat().st_size for path in folder.iterdir()) <= 1e6


@pytest.fixture(scope="session")
def encoder_of() -> Callable[[str], Any]:
    pytest.importorskip("sevenn", reason="sevenn 0.13.0, which the weights come with, is not installed")
    import torch

    torch.set_num_threads(1)
    loaded: dict[str, Any] = {}

    def get(name: str) -> Any:
        if name not in loaded:
            loaded[name] = CARDS[name].load()
        return loaded[name]

    return get


@pytest.fixture(scope="session")
def crystals() -> list[Crystal]:
    """Metals, salts and semiconductors, with one to four atoms."""
    iron = Crystal(1.415 * np.array([[-1.0, 1, 1], [1, -1, 1], [1, 1, -1]]), [[0, 0, 0]], np.array([26], np.int16))
    corners = [[0, 0, 0], [0.5, 0.5, 0], [0.5, 0, 0.5], [0, 0.5, 0.5]]
    alloy = Crystal(3.75 * np.eye(3), corners, np.array([79, 29, 29, 29], np.int16))
    return [*reference_crystals().values(), iron, alloy]


@pytest.mark.parametrize("name", CARDS)
def test_encoders_conform_and_published_energies_are_reproduced(name: str, encoder_of: Any) -> None:
    check_encoder(encoder_of(name))
    assert list(probes.probe(encoder_of(name)).values()) == pytest.approx(ENERGIES[name], abs=1e-4)


@pytest.mark.parametrize("name", CARDS)
def test_energies_are_those_of_the_package_crystal_by_crystal(
    name: str, encoder_of: Any, crystals: list[Crystal]
) -> None:
    found = encoder_of(name).encode_layers(crystals, layers=("final",))
    assert not found.refused

    from pymatgen.core import Structure
    from sevenn.calculator import SevenNetCalculator

    calculator = SevenNetCalculator(device="cpu", **CALCULATORS[name])
    for row, crystal in enumerate(crystals):
        atoms = Structure(crystal.lattice, crystal.numbers.tolist(), crystal.frac_coords).to_ase_atoms()
        atoms.calc = calculator
        assert found.embeddings["final"][row, 0] == pytest.approx(atoms.get_potential_energy() / len(atoms), abs=2e-5)


@pytest.mark.parametrize("name", ["SevenNet-0-MPtrj-2024.7-PES", "SevenNet-MF-0-r2SCAN-PES"])
def test_energies_follow_from_the_features_of_the_atoms_by_the_last_layers(
    name: str, encoder_of: Any, crystals: list[Crystal]
) -> None:
    encoder = encoder_of(name)
    single = [crystal for crystal in crystals if len(set(crystal.numbers.tolist())) == 1]  # all atoms have one scale
    found = encoder.encode_layers(single, layers=("readout", "final")).embeddings
    parts = dict(encoder._sevennet.named_children())
    # The last layers are linear, so that the mean of the features gives the mean of the energies.
    import torch

    for row, crystal in enumerate(single):
        place = encoder._sevennet.z_to_onehot_tensor[torch.tensor(crystal.numbers[:1].astype(np.int64))]
        data = {"x": torch.from_numpy(found["readout"][row : row + 1]), "atom_type": place}
        if encoder._modality is not None:
            one_hot = torch.eye(len(encoder._sevennet.modal_map))[encoder._modality]
            data |= {"modal_attr": one_hot[None], "modal_type": torch.tensor([encoder._modality])}
        data |= {"batch": torch.zeros(1, dtype=torch.int64)}
        for part in ("reduce_input_to_hidden", "reduce_hidden_to_energy", "rescale_atomic_energy"):
            data = parts[part](data)
        assert float(data["atomic_energy"]) == pytest.approx(float(found["final"][row, 0]), abs=1e-4)


@pytest.mark.usefixtures("encoder_of")
def test_another_file_is_refused_and_code_in_a_checkpoint_is_not_run(tmp_path: Path) -> None:
    import torch

    from scotl_matgl_sevennet.encoder import _read

    card = CARDS["SevenNet-0-MPtrj-2024.7-PES"]
    (file,) = card.weights
    with pytest.raises(IncompatibleWeightsError, match="Install the version of sevenn"):
        dataclasses.replace(card, weights={file: "0" * 64}).load()
    with pytest.raises(FileNotFoundError, match="has no file pretrained_potentials/nowhere"):
        dataclasses.replace(card, weights={"pretrained_potentials/nowhere.pth": "0" * 64}).load()

    class Odd:
        def __reduce__(self) -> Any:
            return (Path.touch, (tmp_path / "run",))

    torch.save({"config": Odd()}, tmp_path / "odd.pth")
    with pytest.raises(IncompatibleWeightsError, match="it was not executed"):
        _read(tmp_path / "odd.pth")
    assert not (tmp_path / "run").exists()
