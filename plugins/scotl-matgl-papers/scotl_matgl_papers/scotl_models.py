"""SCOTL's released source models: the composition branch, and the head that it shares with the structure branch."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np

from scotl_matgl.plugin import (
    TOLERANCE,
    Compositions,
    IncompatibleWeightsError,
    ScotlVectorDescriptor,
    SourceCard,
    parse_compositions,
)
from scotl_matgl_papers.encoder import Floats, FormulaEncoder, dense, leaky
from scotl_matgl_papers.weights import Tensors, read_weights

_BRANCH = {
    "fc_fvec1.weight": (128, 60),
    "fc_fvec1.bias": (128,),
    "fc_fvec2.weight": (128, 128),
    "fc_fvec2.bias": (128,),
}
_HEAD = {"fc2.weight": (32, 128), "fc2.bias": (32,), "fc3.weight": (1, 32), "fc3.bias": (1,)}


def load(
    card: SourceCard,
    path: str | Path | None = None,
    *,
    table: str | os.PathLike[str] | None = None,
    check: bool = True,
) -> ScotlEncoder:
    """Load one of SCOTL's source models; nothing in the checkpoint is executed.

    Parameters
    ----------
    card : SourceCard
        One of :func:`scotl_matgl_papers.scotl`.
    path : path-like, optional
        The checkpoint or its folder; by default ``$SCOTL_MATGL_ASSETS/models/scotl``.
    table : path-like, optional
        Element table; see :class:`scotl_matgl.descriptors.element_properties.ScotlVectorDescriptor`.
    check : bool, default=True
        Compare the file with the card's sha256 and, at the first use, predictions with its probes: the latter
        notices another element table too.

    Raises
    ------
    FileNotFoundError, IncompatibleWeightsError, CheckpointError
        See :func:`scotl_matgl_papers.weights.read_weights`.

    Examples
    --------
    >>> from scotl_matgl_papers import scotl
    >>> encoder = scotl()[0].load()  # doctest: +SKIP
    >>> encoder.encode(["Fe2O3", "NaCl"]).shape  # doctest: +SKIP
    (2, 128)
    """
    return ScotlEncoder(card, read_weights(card, _BRANCH | _HEAD, path, check=check), table=table, check=check)


def load_random(card: SourceCard, *, table: str | os.PathLike[str] | None = None) -> ScotlEncoder:
    """Build the control: the composition branch with weights as torch's ``Linear`` draws them before training."""
    random = np.random.default_rng(card.options["seed"])
    inputs = {"fc_fvec1": 60, "fc_fvec2": 128}
    tensors = {
        name: random.uniform(-1, 1, shape) / np.sqrt(inputs[name.partition(".")[0]]) for name, shape in _BRANCH.items()
    }
    return ScotlEncoder(card, tensors, table=table)


class ScotlEncoder(FormulaEncoder):
    """SCOTL's composition branch; made by :func:`load`.

    Layers: ``readout`` (128) is the published embedding, rows of length one; ``hidden`` (128) stands before its last
    affine layer; ``penultimate`` (32) and ``final`` (1, the prediction in the unit of the card) come from the head that
    was trained on the structure branch. 0.03 ms per formula.
    """

    def __init__(
        self,
        card: SourceCard,
        tensors: Tensors,
        *,
        table: str | os.PathLike[str] | None = None,
        check: bool = True,
    ) -> None:
        super().__init__(card)
        self._tensors = dict(tensors)
        self._descriptor = ScotlVectorDescriptor(table)
        self._unchecked = check and bool(card.probes)

    def _describe(self, compositions: Compositions) -> Floats:
        if self._unchecked:
            self._check_probes()
        return self._vectors(compositions)

    def _vectors(self, compositions: Compositions) -> Floats:
        return np.asarray(self._descriptor.transform(compositions), dtype=np.float64)

    def _check_probes(self) -> None:
        vectors = self._vectors(parse_compositions(list(self.card.probes)))
        for (formula, expected), found in zip(self.card.probes.items(), self._forward(vectors)["final"], strict=True):
            # A NaN must count as wrong, hence the negation.
            if not abs(found[0] - expected) <= TOLERANCE:
                raise IncompatibleWeightsError(
                    f"{self.card.name} gives {found[0]:.4f} for {formula} instead of {expected:.4f} {self.card.unit}: "
                    "either the weights or the element table are not the published ones."
                )
        self._unchecked = False

    def _forward(self, vectors: Floats) -> dict[str, Floats]:
        hidden = leaky(dense(vectors, self._tensors, "fc_fvec1"))
        readout = dense(hidden, self._tensors, "fc_fvec2")
        readout = readout / np.maximum(np.linalg.norm(readout, axis=1, keepdims=True), 1e-12)
        layers = {"readout": readout, "hidden": hidden}
        if "final" in self.layers:
            layers["penultimate"] = leaky(dense(readout, self._tensors, "fc2"))
            layers["final"] = dense(layers["penultimate"], self._tensors, "fc3")
        return layers
