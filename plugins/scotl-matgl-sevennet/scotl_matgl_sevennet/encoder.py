"""SevenNet potentials as source encoders; torch and sevenn are imported when a model is loaded."""

from __future__ import annotations

import pickle
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from scotl_matgl.plugin import (
    AtomValues,
    CrystalGraph,
    IncompatibleWeightsError,
    PotentialEncoder,
    SourceCard,
    batch_graphs,
    packaged_weights,
)

if TYPE_CHECKING:
    import torch

#: Bonds of the 5 Å graphs per batch.
BATCH_EDGES = 1500

#: From whose input the features of the atoms are taken, and the last part that is run: sums and forces follow.
_FEATURES, _LAST = "reduce_input_to_hidden", "rescale_atomic_energy"


def load(card: SourceCard, *, check: bool = True) -> SevenNetEncoder:
    """Load a SevenNet model from the installed package sevenn; nothing in the checkpoint is executed.

    Parameters
    ----------
    card : SourceCard
        Its ``options`` hold the ``modality`` of a model of several functionals.
    check : bool, default True
        Compare the file with the card's sha256 and, at the first use, predictions with its probes. Switch off for
        debugging only.

    Raises
    ------
    ModuleNotFoundError
        If sevenn or torch is missing.
    FileNotFoundError, IncompatibleWeightsError
        If the installed sevenn has no such file, or another one.

    Examples
    --------
    >>> from scotl_matgl_sevennet import cards
    >>> encoder = load(cards()[0])  # doctest: +SKIP
    >>> encoder.encode(structures).shape  # doctest: +SKIP
    (1000, 128)
    """
    path = packaged_weights(card, "sevenn", check=check)
    from sevenn.checkpoint import _config_cp_routine
    from sevenn.model_build import build_E3_equivariant_model
    from sevenn.scripts.backward_compatibility import patch_state_dict_if_old

    checkpoint = _read(path)
    settings = _config_cp_routine(checkpoint["config"])
    model = build_E3_equivariant_model(settings)
    model.load_state_dict(patch_state_dict_if_old(checkpoint["model_state_dict"], settings, model))
    return SevenNetEncoder(card, model.requires_grad_(False).eval(), check=check)


def _read(path: Path) -> Mapping[str, Any]:
    """Read a checkpoint, which holds numbers, settings and numpy arrays; sevenn itself would run what it says."""
    import torch

    # How numpy rebuilds an array; the function has moved since, so it is asked of an array.
    rebuild = np.zeros(1).__reduce__()[0]
    types = [type(np.dtype(name)) for name in ("float32", "float64")]
    allowed: list[Any] = [(rebuild, "numpy.core.multiarray._reconstruct"), np.ndarray, np.dtype, *types]
    try:
        with torch.serialization.safe_globals(allowed):
            checkpoint: Mapping[str, Any] = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise IncompatibleWeightsError(
            f"{path} holds more than weights and settings, or is damaged; it was not executed: {error}"
        ) from error
    return checkpoint


class SevenNetEncoder(PotentialEncoder):
    """A SevenNet potential that turns crystals into embeddings; made by :func:`load`.

    Attributes
    ----------
    card : SourceCard
    layers : tuple of str
        ``"readout"`` and ``"deviation"``, mean and standard deviation of the 128 scalars of an atom behind the last
        gate; ``"final"``, the energy, eV/atom.
    """

    _advice = (
        "Either the file was changed or the installed sevenn and torch compute it differently; with sevenn 0.13.0 and "
        "the sha256 of the card, please report it."
    )

    def __init__(self, card: SourceCard, model: Any, *, check: bool = True) -> None:
        super().__init__(card, cutoff=model.cutoff, batch_edges=BATCH_EDGES, model=model, check=check)
        self._sevennet = model
        modality = card.options.get("modality")
        self._modality = None if modality is None else model.modal_map[modality]

    def _atoms(self, graphs: Sequence[CrystalGraph], device: torch.device) -> AtomValues:
        """Run the model over the graphs of one batch, up to the energies of the atoms."""
        import torch
        from sevenn import _keys as key

        batch = batch_graphs(graphs)
        crystal = np.repeat(np.arange(len(batch)), batch.n_atoms)
        numbers = torch.from_numpy(batch.numbers.astype(np.int64))
        data: dict[str, torch.Tensor] = {
            key.NODE_FEATURE: self._sevennet.z_to_onehot_tensor[numbers],
            key.ATOMIC_NUMBERS: numbers,
            key.EDGE_IDX: torch.from_numpy(np.stack([batch.source, batch.destination]).astype(np.int64)),
            key.EDGE_VEC: torch.from_numpy(batch.vector.astype(np.float32)),
            key.BATCH: torch.from_numpy(crystal),
            key.NUM_ATOMS: torch.from_numpy(batch.n_atoms),
        }
        if self._modality is not None:
            data[key.MODAL_TYPE] = torch.full((len(batch),), self._modality, dtype=torch.int64)
        data = {name: values.to(device) for name, values in data.items()}
        with torch.no_grad():
            for name, part in self._sevennet.named_children():
                if name == _FEATURES:
                    features = data[key.NODE_FEATURE].cpu().numpy()
                data = part(data)
                if name == _LAST:
                    break
        energies = data[key.ATOMIC_ENERGY][:, 0].double().cpu().numpy()
        first = np.cumsum(batch.n_atoms) - batch.n_atoms
        return AtomValues(features, np.add.reduceat(energies, first) / batch.n_atoms)
