"""Sources of composition modality that let the elements of a formula attend to each other, in numpy."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from scotl_matgl.chemistry.compositions import Compositions, parse_compositions
from scotl_matgl.chemistry.elements import SYMBOLS
from scotl_matgl.encoders.composition import NETWORKS_FILE, of_unknown_elements, weights_file, whole_weights
from scotl_matgl.encoders.network import ACTIVATIONS, Floats32
from scotl_matgl.exceptions import InputError, StoredFileError
from scotl_matgl.sources.cards import SourceCard
from scotl_matgl.storage import check_form, file_sha256, read_tensors

# What the card of such a network says of it, under "options".
_OPTIONS = {"prefix": str, "n_layers": int, "n_heads": int, "eight_bits?": bool}

# A network of more layers is none that a card of ours names.
_MAX_LAYERS = 24

# Pairs of tokens that are held at a time: few enough for the cache.
_PAIRS = 8192

# Smallest fractions that a token and the attention to it tell apart.
_LEAST_TOKEN, _LEAST_SHARE = 1e-4, 1e-9

_silu = ACTIVATIONS["silu"]


@dataclass(frozen=True, eq=False)
class ElementAttention:
    """A network whose tokens are the elements of a formula, weighted by their fractions.

    Attention and pooling weigh a token by its fraction times the exponential of its score, after Roost. So an element
    of vanishing fraction changes nothing, and doped compounds and alloys lie between their parents.

    Attributes
    ----------
    tensors : mapping of str to ndarray of float32
        ``elements`` (118, d); ``fraction`` (d, 3); for each layer i ``{i}.norm_attention``, ``{i}.query_key_value``
        (3 d, d), ``{i}.attention`` (d, d), ``{i}.norm_hidden``, ``{i}.up`` (2 d, d), ``{i}.down`` (d, 2 d); ``norm``,
        ``gate`` (h, d), ``pool`` (d, d), ``hidden`` (d, 2 d), ``readout`` (r, d), ``final`` (k, r). Matrices are named
        ``.weight`` and have a ``.bias``; norms too.
    n_layers, n_heads : int

    Notes
    -----
    Source: R. E. A. Goodall, A. A. Lee, Nat. Commun. 11, 6280 (2020), for the weighted soft attention; A. Vaswani et
    al., NeurIPS 2017, for layers of attention between tokens. Cost O(n m (d² n_layers + m d)) for n formulas of m
    elements.
    """

    tensors: Mapping[str, Floats32]
    n_layers: int
    n_heads: int

    @staticmethod
    def shapes(d: int, n_layers: int, n_heads: int, n_readout: int, n_final: int) -> dict[str, tuple[int, ...]]:
        """Shape of every tensor by its name."""
        matrices: dict[str, tuple[int, int]] = {"fraction": (d, 3)}
        norms = ["norm"]
        for i in range(n_layers):
            matrices[f"{i}.query_key_value"] = (3 * d, d)
            matrices[f"{i}.attention"] = (d, d)
            matrices[f"{i}.up"], matrices[f"{i}.down"] = (2 * d, d), (d, 2 * d)
            norms += [f"{i}.norm_attention", f"{i}.norm_hidden"]
        matrices |= {"gate": (n_heads, d), "pool": (d, d), "hidden": (d, 2 * d)}
        matrices |= {"readout": (n_readout, d), "final": (n_final, n_readout)}
        shapes: dict[str, tuple[int, ...]] = {"elements": (len(SYMBOLS), d)}
        for name, shape in matrices.items():
            shapes |= {f"{name}.weight": shape, f"{name}.bias": shape[:1]}
        for name in norms:
            shapes |= {f"{name}.weight": (d,), f"{name}.bias": (d,)}
        return shapes

    def forward(self, compositions: Compositions) -> dict[str, Floats32]:
        """Layers ``readout`` (n, r + k), the last hidden layer and the outputs side by side, and ``final`` (n, k)."""
        counts = np.diff(compositions.offsets)
        n_readout, n_final = (len(self.tensors[f"{name}.bias"]) for name in ("readout", "final"))
        found = np.empty((len(compositions), n_readout + n_final), dtype=np.float32)
        fractions = compositions.fractions.astype(np.float32)
        for count in np.unique(counts):  # formulas of as many elements need no padding
            alike = np.flatnonzero(counts == count)
            n_rows = max(1, _PAIRS // int(count) ** 2)
            for rows in (alike[start : start + n_rows] for start in range(0, len(alike), n_rows)):
                places = compositions.offsets[rows][:, None] + np.arange(count)
                found[rows] = self._forward(compositions.numbers[places], fractions[places])
        return {"readout": found, "final": found[:, n_readout:].copy()}

    def _forward(self, numbers: NDArray[np.integer], fractions: Floats32) -> Floats32:
        """Read-out and outputs (n, r + k) of formulas of m elements each (n, m)."""
        logarithm = np.log(np.maximum(fractions, np.float32(_LEAST_SHARE)))
        of_fraction = [fractions, np.sqrt(fractions), np.maximum(logarithm, np.float32(np.log(_LEAST_TOKEN))) / 9]
        tokens = self.tensors["elements"][numbers - 1] + self._linear("fraction", np.stack(of_fraction, axis=-1))
        for i in range(self.n_layers):
            tokens = tokens + self._attend(i, self._norm(f"{i}.norm_attention", tokens), logarithm)
            hidden = _silu(self._linear(f"{i}.up", self._norm(f"{i}.norm_hidden", tokens)))
            tokens = tokens + self._linear(f"{i}.down", hidden)
        tokens = self._norm("norm", tokens)
        share = _softmax(self._linear("gate", tokens) + logarithm[..., None], axis=1)
        values = self._linear("pool", tokens)
        n, m, d = values.shape
        chosen = (share[..., None] * values.reshape(n, m, self.n_heads, -1)).sum(axis=1).reshape(n, d)
        mean = (fractions[..., None] * values).sum(axis=1)
        readout = _silu(self._linear("readout", _silu(self._linear("hidden", np.hstack([chosen, mean])))))
        return np.hstack([readout, self._linear("final", readout)])

    def _attend(self, i: int, tokens: Floats32, logarithm: Floats32) -> Floats32:
        n, m, d = tokens.shape
        parts = self._linear(f"{i}.query_key_value", tokens).reshape(n, m, 3, self.n_heads, d // self.n_heads)
        query, key, value = parts.transpose(2, 0, 3, 1, 4)
        scores = query @ key.swapaxes(-1, -2) / np.float32(np.sqrt(d // self.n_heads))
        share = _softmax(scores + logarithm[:, None, None, :], axis=-1)
        return self._linear(f"{i}.attention", (share @ value).swapaxes(1, 2).reshape(n, m, d))

    def _linear(self, name: str, values: Floats32) -> Floats32:
        weight, bias = self.tensors[f"{name}.weight"], self.tensors[f"{name}.bias"]
        # As one product of two matrices: of three dimensions numpy makes one small product for each formula.
        found: Floats32 = values.reshape(-1, values.shape[-1]) @ weight.T
        found += bias
        return found.reshape(*values.shape[:-1], -1)

    def _norm(self, name: str, values: Floats32) -> Floats32:
        centred = values - values.mean(axis=-1, keepdims=True)
        centred /= np.sqrt((centred**2).mean(axis=-1, keepdims=True) + np.float32(1e-5))
        found: Floats32 = centred * self.tensors[f"{name}.weight"] + self.tensors[f"{name}.bias"]
        return found


def _softmax(scores: Floats32, axis: int) -> Floats32:
    powers = np.exp(scores - scores.max(axis=axis, keepdims=True))
    found: Floats32 = powers / powers.sum(axis=axis, keepdims=True)
    return found


class AttentionEncoder:
    """Embeddings of formulas by a network of element attention.

    Parameters
    ----------
    card : SourceCard
        Rows with an element that is not among its elements are NaN.
    network : ElementAttention

    Attributes
    ----------
    layers : tuple of str
        ``"readout"`` first; ``"final"`` is in the units of the card.
    """

    def __init__(self, card: SourceCard, network: ElementAttention) -> None:
        self.card = card
        self.layers = tuple(card.layers)
        self.network = network
        # The formulas that were embedded last, with the layers that nobody has asked for: a ranking takes two of them.
        self._last: tuple[Compositions, dict[str, Floats32]] | None = None

    def encode(self, formulas: Iterable[Any], *, layer: str = "readout") -> Floats32:
        """Embeddings of formulas.

        Parameters
        ----------
        formulas : iterable
            All that :func:`~scotl_matgl.parse_compositions` reads.
        layer : str, default="readout"
            One of :attr:`layers`.

        Returns
        -------
        ndarray of float32, shape (n_formulas, width)
            Rows of elements that the network does not know are NaN throughout.

        Raises
        ------
        InputError
            If the network has no such layer.
        """
        self.card.check_layer(layer)
        compositions = parse_compositions(formulas)
        last = self._last
        found = last[1].pop(layer, None) if last is not None and last[0] is compositions else None
        if found is None:
            embedded = self._embed(compositions)
            found = embedded.pop(layer)
            self._last = compositions, embedded
        return found

    def __getstate__(self) -> dict[str, Any]:
        """All but the formulas that were embedded last."""
        return self.__dict__ | {"_last": None}

    def _embed(self, compositions: Compositions) -> dict[str, Floats32]:
        found = self.network.forward(compositions)
        unknown = of_unknown_elements(self.card, compositions)
        for values in found.values():
            values[~np.isfinite(values).all(axis=1) | unknown] = np.nan
        return found


def load(card: SourceCard, *, path: str | Path | None = None) -> AttentionEncoder:
    """Load the network of a card.

    Parameters
    ----------
    card : SourceCard
        Its options name the ``prefix`` of the network in the file that its weights name, ``n_layers`` and ``n_heads``.
    path : path-like, optional
        Folder of the file; by default the first of :func:`~scotl_matgl.encoders.composition.source_folders` with it.

    Raises
    ------
    InputError
        If the file is nowhere, is not the one of the card, or does not hold the network.
    """
    file = weights_file(card, path)
    options = dict(card.options)
    try:
        check_form(options, _OPTIONS, "the options of its card")
        prefix, n_layers, n_heads = options["prefix"], options["n_layers"], options["n_heads"]
        if not 1 <= n_layers <= _MAX_LAYERS or n_heads < 1:
            raise StoredFileError(f"the options of its card: {n_layers} layers and {n_heads} heads make no network")
        _, everything = read_tensors(file, NETWORKS_FILE, sha256=file_sha256(file))
        own = {
            name.removeprefix(f"{prefix}."): part for name, part in everything.items() if name.startswith(f"{prefix}.")
        }
        width, n_readout, n_final = (len(own[f"{part}.bias"]) for part in ("norm", "readout", "final"))
        shapes = ElementAttention.shapes(width, n_layers, n_heads, n_readout, n_final)
        if any(not name.endswith("step") and name not in shapes for name in own):
            raise StoredFileError(f"the file has tensors that {n_layers} layers leave over")
        matrices = [name for name, shape in shapes.items() if len(shape) == 2]
        stored = whole_weights(own, list(shapes), matrices if options.get("eight_bits", False) else ())
        tensors = {name: stored[name].astype(np.float32) for name in shapes}
        for name, shape in shapes.items():
            if tensors[name].shape != shape or not np.isfinite(tensors[name]).all():
                raise StoredFileError(f"the tensor {name} is not {shape} finite numbers")
        if width % n_heads:
            raise StoredFileError(f"{n_heads} heads cannot share a width of {width}")
    except (InputError, TypeError, KeyError) as error:
        raise InputError(
            f"{file} does not hold the network of {card.name} as its card says: {error}; restore the file"
        ) from error
    widths = {"readout": n_readout + n_final, "final": n_final}
    if not dict(card.layers).items() <= widths.items():
        raise InputError(
            f"{file}: the layers of {card.name} are {widths}, its card says {dict(card.layers)}; correct the card"
        )
    return AttentionEncoder(card, ElementAttention(tensors, n_layers, n_heads))
