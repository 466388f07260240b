"""CroMEL's released source models: the generator, which turns compositions into embeddings of crystals."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from scotl_matgl.plugin import Compositions, SourceCard, load_element_tables
from scotl_matgl_papers.encoder import Floats, FormulaEncoder, dense, leaky
from scotl_matgl_papers.weights import Tensors, read_weights

_WIDTH = 64
_GENERATOR = {
    "generator.emb_net_cv.0.weight": (_WIDTH, 600),
    "generator.emb_net_cv.0.bias": (_WIDTH,),
    "generator.emb_net_cv.1.weight": (1,),
    "generator.emb_net_cv.2.weight": (_WIDTH, _WIDTH),
    "generator.emb_net_cv.2.bias": (_WIDTH,),
    "generator.emb_net_cv.3.weight": (1,),
    "generator.fc_std.0.weight": (_WIDTH, _WIDTH),
    "generator.fc_std.0.bias": (_WIDTH,),
}


def load(card: SourceCard, path: str | Path | None = None, *, check: bool = True) -> CromelEncoder:
    """Load one of CroMEL's source models; nothing in the checkpoint is executed.

    Parameters
    ----------
    card : SourceCard
        One of :func:`scotl_matgl_papers.cromel`.
    path : path-like, optional
        The checkpoint or its folder; by default ``$SCOTL_MATGL_ASSETS/models/cromel``.
    check : bool, default=True
        Compare the file with the card's sha256.

    Raises
    ------
    FileNotFoundError, IncompatibleWeightsError, CheckpointError
        See :func:`scotl_matgl_papers.weights.read_weights`.

    Examples
    --------
    >>> from scotl_matgl_papers import cromel
    >>> encoder = cromel()[0].load()  # doctest: +SKIP
    >>> encoder.encode(["Fe2O3", "NaCl"]).shape  # doctest: +SKIP
    (2, 64)
    """
    return CromelEncoder(card, read_weights(card, _GENERATOR, path, check=check))


class CromelEncoder(FormulaEncoder):
    """CroMEL's generator; made by :func:`load`.

    The generator draws hc + ε·softplus(W hc) with ε standard normal. ``readout`` (64) is its mean hc, which makes the
    embedding reproducible; ``spread`` (64) is softplus(W hc), ``hidden`` (64) the layer below hc.
    """

    def __init__(self, card: SourceCard, tensors: Tensors) -> None:
        super().__init__(card)
        self.tensors = dict(tensors)

    def _describe(self, compositions: Compositions) -> Floats:
        return composition_vectors(compositions)

    def _forward(self, vectors: Floats) -> dict[str, Floats]:
        slopes = [float(self.tensors[f"generator.emb_net_cv.{index}.weight"][0]) for index in (1, 3)]
        hidden = leaky(dense(vectors, self.tensors, "generator.emb_net_cv.0"), slopes[0])
        mean = leaky(dense(hidden, self.tensors, "generator.emb_net_cv.2"), slopes[1])
        return {
            "readout": mean,
            "spread": np.logaddexp(0.0, dense(mean, self.tensors, "generator.fc_std.0")),
            "hidden": hidden,
        }


def composition_vectors(compositions: Compositions) -> Floats:
    """CroMEL's composition vectors, shape (n, 600).

    Weighted mean, minimum and maximum over the elements of a formula of the 200 dimensions of Matscholar's element
    embedding (Weston et al., J. Chem. Inf. Model. 2019, 59, 3692), from the table that :mod:`scotl_matgl` carries; its
    values for H, He, Li and Be were compared with those of the file that CroMEL reads. NaN beyond Lr.

    Examples
    --------
    >>> from scotl_matgl.chemistry.compositions import parse_compositions
    >>> composition_vectors(parse_compositions(["NaCl"])).shape
    (1, 600)
    """
    if not len(compositions):
        return np.empty((0, 600))
    values = load_element_tables().presets["matscholar_el"].raw[compositions.numbers - 1]
    start = compositions.offsets[:-1]
    return np.hstack(
        [
            np.add.reduceat(values * compositions.fractions[:, None], start),
            np.minimum.reduceat(values, start),
            np.maximum.reduceat(values, start),
        ]
    )
