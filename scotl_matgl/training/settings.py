"""All that decides a training of a source model, but for the crystals."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol

from scotl_matgl.exceptions import InputError

#: What each architecture is built with where the user says nothing: sizes at which two cores train in minutes.
ARCHITECTURES: dict[str, dict[str, Any]] = {
    "MEGNet": {
        "dim_node_embedding": 16,
        "dim_edge_embedding": 40,
        "dim_state_embedding": 2,
        "nblocks": 2,
        "hidden_layer_sizes_input": (32,),
        "hidden_layer_sizes_conv": (64, 32),
        "niters_set2set": 2,
        "cutoff": 4.0,
        "gauss_width": 0.25,
    },
    "M3GNet": {"units": 32, "dim_node_embedding": 32, "dim_edge_embedding": 32, "nblocks": 2, "cutoff": 5.0},
    "TensorNet": {"units": 32, "nblocks": 2, "num_rbf": 32, "cutoff": 5.0},
}


class Schedule(Protocol):
    """What the training of any network takes of its settings; as in :class:`TrainingSettings`."""

    @property
    def epochs(self) -> int:
        """Passes over the crystals."""

    @property
    def patience(self) -> int:
        """Epochs without a better validation loss after which training stops."""

    @property
    def learning_rate(self) -> float:
        """Peak of a one-cycle schedule."""

    @property
    def weight_decay(self) -> float:
        """Of AdamW."""


@dataclass(frozen=True, kw_only=True)
class TrainingSettings:
    """All that decides a training, but for the crystals.

    Attributes
    ----------
    property : str
        Name in the crystals' properties, e.g. ``"formation_energy_eV_atom"``.
    unit : str
        Of the property.
    architecture : {"MEGNet", "M3GNet", "TensorNet"}
        Network of MatGL for the crystals.
    network : mapping
        Arguments of that network which are to differ from :data:`ARCHITECTURES`.
    descriptor : str
        What the composition branch reads, by its registered name. Published: ``"scotl60"``.
    hidden : tuple of int
        Hidden layers of the composition branch. Published: (128,).
    width : int
        Of both embeddings.
    alignment_weight, threshold : float
        Weight of the alignment, and the squared difference below which it stops
        (:func:`~scotl_matgl.bridges.alignment.alignment_loss`). Published: 0.1 and 0.01.
    composition_weight : float
        Weight of the error of the property as the composition branch predicts it. Published: 0.
    loss : {"mse", "mae"}
        Error of the standardised property. Published: "mse".
    lowest : bool
        Whether each formula is represented by its crystal of lowest formation energy alone.
    epochs, batch_size : int
        Passes over the crystals; crystals of a step.
    patience : int
        Epochs without a better validation loss after which training stops.
    learning_rate, weight_decay : float
        Of AdamW; the rate is the peak of a one-cycle schedule.
    held_out, validation : float
        Shares of the crystals for the reported errors and for choosing the epoch, whole chemical systems at a time.
    random_state : int
        Seed of splits, weights and batches.
    """

    property: str
    unit: str
    architecture: str = "MEGNet"
    network: Mapping[str, Any] = field(default_factory=dict)
    descriptor: str = "standard"
    hidden: tuple[int, ...] = (128,)
    width: int = 128
    alignment_weight: float = 1.0
    threshold: float = 0.0
    composition_weight: float = 1.0
    loss: Literal["mse", "mae"] = "mse"
    lowest: bool = True
    epochs: int = 60
    batch_size: int = 64
    patience: int = 20
    learning_rate: float = 3e-3
    weight_decay: float = 1e-2
    held_out: float = 0.1
    validation: float = 0.05
    random_state: int = 0

    def __post_init__(self) -> None:
        """Refuse what no training can go with."""
        for name, allowed in (("loss", ("mse", "mae")), ("architecture", tuple(ARCHITECTURES))):
            if getattr(self, name) not in allowed:
                raise InputError(f"{name} is {getattr(self, name)!r}; it must be one of {', '.join(allowed)}")
        for name in ("epochs", "batch_size", "patience", "width"):
            if getattr(self, name) < 1:
                raise InputError(f"{name} is {getattr(self, name)!r}; it must be at least 1")
        for name in ("held_out", "validation"):
            if not 0.0 < getattr(self, name) < 0.5:
                raise InputError(f"{name} is {getattr(self, name)!r}; it must lie between 0 and 0.5")

    def cutoff(self) -> float:
        """Cut-off of the graphs, Å."""
        return float({**ARCHITECTURES[self.architecture], **self.network}["cutoff"])

    def to_dict(self) -> dict[str, Any]:
        """JSON form."""
        return {**dataclasses.asdict(self), "network": dict(self.network), "hidden": list(self.hidden)}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> TrainingSettings:
        """Read the JSON form; what is no setting is left out."""
        known = {item.name: values[item.name] for item in dataclasses.fields(cls) if item.name in values}
        return cls(**{**known, "hidden": tuple(known["hidden"])})
