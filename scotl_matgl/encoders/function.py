"""Sources that are a function of this process: from crystals, or from formulas, to an array."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Sequence
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from scotl_matgl.chemistry.compositions import Compositions, parse_compositions
from scotl_matgl.chemistry.crystals import Crystal, as_crystal, as_list
from scotl_matgl.chemistry.formulas import format_formula
from scotl_matgl.chemistry.refusals import StructureError
from scotl_matgl.encoders.contracts import Encoded
from scotl_matgl.encoders.graphs import check_crystal
from scotl_matgl.encoders.probes import reference_crystals
from scotl_matgl.exceptions import InputError
from scotl_matgl.sources.bound import bound
from scotl_matgl.sources.cards import CardError, SourceCard
from scotl_matgl.vocabulary import Progress

Function = Callable[[list[Any]], Any]

#: Crystals or formulas that a function is given at a time.
BATCH = 256


class CallableEncoder:
    """A function as encoder: of crystals for a card of structure modality, else of formulas.

    Parameters
    ----------
    card : SourceCard
    function : callable
        From a list of pymatgen structures, or of formulas, to an array (n, width). A batch for which it raises is given
        to it again one by one, so that it costs the rows at fault alone.

    Attributes
    ----------
    card : SourceCard
    layers : tuple of str
        ``("readout",)``.
    """

    def __init__(self, card: SourceCard, function: Function) -> None:
        self.card = card
        self.layers = tuple(card.layers)
        self._function = function

    def encode(
        self,
        structures: Iterable[Any],
        *,
        layer: str = "readout",
        batch_edges: int | None = None,
        device: str = "auto",
        progress: Progress | None = None,
    ) -> NDArray[np.float32]:
        """Embeddings (n, width); NaN rows for what is refused."""
        encoded = self.encode_layers(
            structures, layers=(layer,), batch_edges=batch_edges, device=device, progress=progress
        )
        return encoded.embeddings[layer]

    def encode_layers(
        self,
        structures: Iterable[Any],
        *,
        layers: Sequence[str] = ("readout",),
        batch_edges: int | None = None,  # noqa: ARG002 - the contract of encoders
        device: str = "auto",  # noqa: ARG002
        progress: Progress | None = None,
    ) -> Encoded:
        """Embeddings, with the reason of every refusal."""
        for layer in layers:
            self.card.check_layer(layer)
        given, refused = self._given(structures)
        values = np.full((len(given), self.card.width), np.nan, np.float32)
        rows = [row for row in range(len(given)) if row not in refused]
        for start in range(0, len(rows), BATCH):
            part = rows[start : start + BATCH]
            values[part] = self._run([given[row] for row in part], part, refused)
            if progress is not None:
                progress(min(start + BATCH, len(rows)) + len(given) - len(rows), len(given))
        return Encoded(dict.fromkeys(layers, values), dict(sorted(refused.items())))

    def _given(self, materials: Iterable[Any]) -> tuple[list[Any], dict[int, str]]:
        """What the function takes of each row, and why it takes others not."""
        refused: dict[int, str] = {}
        if self.card.modality == "composition":
            read = parse_compositions(materials)
            return [_formula(read, row) for row in range(len(read))], refused
        given: list[Any] = []
        for row, item in enumerate(as_list(materials)):
            try:
                crystal = as_crystal(item)
            except StructureError as error:
                refused[row] = str(error)
            else:
                if (reason := check_crystal(crystal, self.card.elements)) is not None:
                    refused[row] = reason
            given.append(None if row in refused else crystal.to_structure())
        return given, refused

    def _run(self, items: list[Any], rows: Sequence[int], refused: dict[int, str]) -> NDArray[np.float32]:
        """Values of a batch; of single rows where the batch fails."""
        try:
            values = _array(self._function(items), len(items), self.card.width)
        except Exception as error:  # anyone's function
            if len(items) > 1:
                return np.vstack([self._run([item], [row], refused) for item, row in zip(items, rows, strict=True)])
            refused[rows[0]] = f"the function failed on it: {type(error).__name__}: {error}"
            return np.full((1, self.card.width), np.nan, np.float32)
        for at in np.flatnonzero(~np.isfinite(values).all(axis=1)).tolist():
            refused[rows[at]] = "the function gives values for it that are not finite"
            values[at] = np.nan
        return values


def _formula(read: Compositions, row: int) -> str:
    numbers, amounts = read[row]
    return format_formula(numbers.tolist(), amounts.tolist())


def _array(values: Any, n: int, width: int | None) -> NDArray[np.float32]:
    """What a function returned, as an array (n, width)."""
    found = np.asarray(values.detach().cpu() if hasattr(values, "detach") else values)
    if found.ndim != 2 or len(found) != n or found.dtype.kind not in "fiu" or width not in (None, found.shape[1]):
        wanted = f"({n}, {'width' if width is None else width})"
        raise InputError(
            f"it returns {found.dtype} of the shape {found.shape}; numbers of the shape {wanted} are needed"
        )
    return found.astype(np.float32)


def load(card: SourceCard, function: Function | None = None) -> CallableEncoder:
    """Encoder of a card that :meth:`SourceCard.from_callable` made.

    Raises
    ------
    CardError
        If the card comes from a file or another process: the function is not in it.
    """
    if function is None:
        raise CardError(
            f"the source {card.name!r} is a function, which is no part of its card: make it anew by "
            "SourceCard.from_callable, or as a plugin (plugins/README.md)"
        )
    return CallableEncoder(card, function)


def source_of_callable(
    function: Function,
    *,
    name: str,
    property: str,  # noqa: A002 - the field of the card has this name
    unit: str,
    reads: Literal["crystals", "formulas"] = "crystals",
    **facts: Any,
) -> SourceCard:
    """See :meth:`scotl_matgl.SourceCard.from_callable`."""
    if reads not in ("crystals", "formulas"):
        raise InputError(f"reads is {reads!r}; it must be 'crystals' or 'formulas'")
    crystals: dict[str, Crystal] = reference_crystals()
    examples: list[Any] = [item.to_structure() for item in crystals.values()] if reads == "crystals" else list(crystals)
    try:
        values = _array(function(examples), len(examples), None)
    except InputError as error:
        raise InputError(f"{name} on {', '.join(crystals)}: {error}") from None
    except Exception as error:
        raise InputError(f"{name} fails on {', '.join(crystals)}: {type(error).__name__}: {error}") from error
    # Embeddings and bridges of another function of this name must not be taken for those of this one.
    outputs = hashlib.sha256(np.round(values, 5).astype("<f4").tobytes()).hexdigest()
    texts = {key: facts.pop(key, "") or "not stated" for key in ("dataset", "licence", "citation")}
    card = SourceCard(
        name=name,
        zoo="own",
        modality="structure" if reads == "crystals" else "composition",
        property=property,
        unit=unit,
        layers={"readout": values.shape[1]},
        loader=f"{__name__}:load",
        weights={"outputs": outputs},
        **{"architecture": f"function of {reads}", **texts, **facts},
    )
    return bound(card.to_dict(), {"function": function})
