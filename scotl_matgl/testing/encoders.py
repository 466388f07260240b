"""Conformance of encoders."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Mapping
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from scotl_matgl.chemistry.compositions import parse_compositions
from scotl_matgl.chemistry.crystals import Crystal
from scotl_matgl.chemistry.elements import SYMBOLS
from scotl_matgl.encoders.probes import IncompatibleWeightsError, check_probes
from scotl_matgl.sources.cards import SourceCard
from scotl_matgl.testing.samples import (
    TOLERANCE,
    bad_crystals,
    name_of,
    require,
    require_equal,
    require_error,
    require_sentence,
    sample_amounts,
    sample_crystals,
    symbols_of,
    write_formula,
)

#: The same between two descriptions of one crystal, whose neighbours differ by rounding.
DESCRIPTION_TOLERANCE = 5e-5


def check_encoder(encoder: Any, *, device: str = "auto") -> None:
    """Check a loaded source of either modality against the contract of ``scotl_matgl.encoders.base``.

    A structure encoder must be deterministic; give a crystal the same embedding alone and in any batch, to 1e-5 of the
    largest value, and whatever order of atoms, supercell, rotation or origin describes it, to 5e-5; return float32 of
    the card's widths; refuse bad crystals (see :func:`bad_crystals`) with a reason and a row of NaN, leaving the other
    rows as they are; and reproduce the probes of its card.

    A composition encoder must be deterministic, treat every row by itself, not depend on the order of the elements in a
    formula nor on the multiple in which it is written, and give a row of NaN for elements that are not the card's.

    Parameters
    ----------
    encoder : SourceEncoder or CompositionEncoder
        What ``card.load()`` returns; ``encoder.card.modality`` decides which contract.
    device : str, default="auto"
        Passed to a structure encoder.

    Raises
    ------
    AssertionError
        At the first rule that is broken.

    Notes
    -----
    Costs about twenty forward passes over six crystals of at most eight atoms, or over fourteen formulas.

    Examples
    --------
    >>> import numpy as np
    >>> from scotl_matgl.sources.cards import SourceCard
    >>> from scotl_matgl.chemistry.compositions import parse_compositions
    >>> class Fractions:
    ...     layers = ("readout",)
    ...     card = SourceCard(
    ...         name="fractions", zoo="mine", modality="composition", property="none", unit="1", dataset="none",
    ...         architecture="identity", layers={"readout": 118}, loader="mine:load", licence="MIT", citation="me",
    ...     )
    ...     def encode(self, formulas, *, layer="readout"):
    ...         if layer != "readout":
    ...             raise ValueError(f"there is no layer {layer!r}, only 'readout'")
    ...         return parse_compositions(formulas).dense_fractions().astype(np.float32)
    >>> check_encoder(Fractions())
    """
    card = getattr(encoder, "card", None)
    if not isinstance(card, SourceCard):
        raise AssertionError(f"{name_of(encoder)}.card is {card!r}; it must be the SourceCard it was loaded from")
    require(
        getattr(encoder, "layers", None) == tuple(card.layers),
        f"{card.name}: layers are {getattr(encoder, 'layers', None)!r}; they must be those of the card, "
        f"{tuple(card.layers)!r}",
    )
    if card.modality == "structure":
        _check_structure_encoder(encoder, card, device)
    else:
        _check_composition_encoder(encoder, card)


Embeddings = Mapping[str, NDArray[np.float32]]


def require_array(values: Any, n: int, width: int, what: str) -> None:
    """Require float32 numbers of the shape (n, width)."""
    require(isinstance(values, np.ndarray), f"{what} is a {name_of(values)}; it must be a numpy array")
    require(values.dtype == np.float32, f"{what} has the type {values.dtype}; it must be float32")
    require(
        values.shape == (n, width),
        f"{what} has the shape {values.shape}; it must be {(n, width)}: rows of the input, width of the card",
    )
    require(not np.isinf(values).any(), f"{what} holds infinite values; a row that cannot be computed must be NaN")


def _require_informative(embedding: NDArray[np.float32], who: str) -> None:
    spread = float(np.abs(embedding - embedding[0]).max())
    require(spread > 0, f"{who}: the readout is the same for all samples; an embedding must tell materials apart")


def _check_structure_encoder(encoder: Any, card: SourceCard, device: str) -> None:
    who = card.name
    for method in ("encode", "encode_layers"):
        require(callable(getattr(encoder, method, None)), f"{who}: it has no method {method}")
    crystals = sample_crystals(card.elements)
    run = partial(_run_layers, encoder, device=device)

    expected, refused = run(crystals)
    require(not refused, f"{who}: it refuses good crystals: {refused}; only bad ones may be refused")
    _require_informative(expected["readout"], who)
    _require_layers(run(crystals)[0], expected, f"{who}: two runs differ, {{}}; an encoder must be deterministic")
    _check_batches(encoder, run, crystals, expected)
    _check_calls(encoder, run, crystals, expected, device)
    _check_descriptions(run, crystals, expected, who)
    _check_refusals(run, crystals, expected, card)
    _check_oxidation_states(run, crystals, expected, who)
    _check_probes(encoder, device)


def _run_layers(encoder: Any, crystals: Iterable[Any], **options: Any) -> tuple[Embeddings, dict[int, str]]:
    """All layers of all crystals, and the refusals, once their form is as the contract says."""
    items = list(crystals)
    card: SourceCard = encoder.card
    try:
        encoded = encoder.encode_layers(items, layers=tuple(card.layers), **options)
    except Exception as error:
        raise AssertionError(
            f"{card.name}: encode_layers raises {type(error).__name__}: {error}; what a crystal does wrong belongs "
            "in `refused`"
        ) from error
    embeddings, refused = getattr(encoded, "embeddings", None), getattr(encoded, "refused", None)
    if not isinstance(embeddings, dict) or not isinstance(refused, dict):
        raise AssertionError(f"{card.name}: encode_layers returns {name_of(encoded)}; it must be an Encoded")
    require(
        set(embeddings) == set(card.layers),
        f"{card.name}: encode_layers returns the layers {sorted(embeddings)}; {sorted(card.layers)} were asked for",
    )
    for layer, width in card.layers.items():
        require_array(embeddings[layer], len(items), width, f"{card.name}: layer {layer!r}")
    for row, reason in refused.items():
        require(
            isinstance(row, int) and 0 <= row < len(items),
            f"{card.name}: `refused` names the row {row!r} of {len(items)}; it must be a position in the input",
        )
        require_sentence(reason, f"{card.name}: a refusal must give its reason in words")
    for layer, values in embeddings.items():
        lost = set(np.flatnonzero(np.isnan(values).any(axis=1)).tolist())
        whole = set(np.flatnonzero(np.isnan(values).all(axis=1)).tolist())
        require(
            lost == whole == set(refused),
            f"{card.name}: layer {layer!r} has NaN in the rows {sorted(lost)}, refused are {sorted(refused)}; the rows "
            "of refused crystals, and no others, must be NaN throughout",
        )
    return embeddings, refused


def _require_layers(
    found: Embeddings, expected: Embeddings, message: str, tolerance: float = TOLERANCE, rows: Any = slice(None)
) -> None:
    """Compare layer by layer; the braces in `message` stand for the layer."""
    for layer, values in expected.items():
        require_equal(found[layer][rows], values, tolerance, message.format(f"layer {layer!r}"))


Run = Callable[..., tuple[Embeddings, dict[int, str]]]


def _check_batches(encoder: Any, run: Run, crystals: list[Crystal], expected: Embeddings) -> None:
    who = encoder.card.name
    alone = [run([crystal])[0] for crystal in crystals]
    together = {layer: np.concatenate([one[layer] for one in alone]) for layer in expected}
    message = f"{who}: a crystal's embedding alone is not that in a batch, {{}}; batches must not mix crystals"
    _require_layers(together, expected, message)
    _require_layers(run(crystals, batch_edges=1)[0], expected, message + " (batch_edges=1)")
    run([])  # no crystal gives no row


def _check_calls(encoder: Any, run: Run, crystals: list[Crystal], expected: Embeddings, device: str) -> None:
    who = encoder.card.name
    for layer in encoder.layers:
        values = encoder.encode(iter(crystals), layer=layer, device=device)
        require_array(values, len(crystals), encoder.card.layers[layer], f"{who}: encode(layer={layer!r})")
        require_equal(
            values,
            expected[layer],
            TOLERANCE,
            f"{who}: encode and encode_layers differ in layer {layer!r}; encode must be thin over encode_layers and "
            "take any iterable",
        )
    calls: list[tuple[int, int]] = []
    run(crystals, progress=lambda done, total: calls.append((done, total)))
    n = len(crystals)
    require(
        calls and calls[-1] == (n, n) and calls == sorted(calls),
        f"{who}: progress was called with {calls}; it must be called with (done, {n}), rising up to ({n}, {n})",
    )
    require_error(
        lambda: encoder.encode_layers(crystals, layers=("no such layer",), device=device),
        Exception,
        f"{who}: a layer that the card does not have must be an error that names it",
    )


def _descriptions(crystal: Crystal, rng: np.random.Generator) -> dict[str, Crystal]:
    """Other descriptions of the same crystal."""
    lattice, sites, numbers = crystal.lattice, crystal.frac_coords, crystal.numbers
    order = rng.permutation(len(numbers))
    rotation = np.linalg.qr(rng.normal(size=(3, 3)))[0]
    rotation *= np.sign(np.linalg.det(rotation))
    doubled = np.vstack([sites, sites + np.array([0, 1, 0])]) / [1, 2, 1]
    return {
        "the order of its atoms": Crystal(lattice, sites[order], numbers[order]),
        "the supercell it is written in": Crystal(lattice * [[1], [2], [1]], doubled, np.tile(numbers, 2)),
        "its orientation": Crystal(lattice @ rotation.T, sites, numbers),
        "its origin": Crystal(lattice, sites + rng.integers(-3, 3, sites.shape) + [0.3, 0.6, 0.9], numbers),
    }


def _check_descriptions(run: Run, crystals: list[Crystal], expected: Embeddings, who: str) -> None:
    rng = np.random.default_rng(1)
    described = [_descriptions(crystal, rng) for crystal in crystals]
    for what in described[0]:
        found, refused = run([description[what] for description in described])
        require(not refused, f"{who}: it refuses a crystal after a change of {what}: {refused}")
        _require_layers(
            found,
            expected,
            f"{who}: the embedding of a crystal depends on {what}, {{}}; it must not",
            DESCRIPTION_TOLERANCE,
        )


def _check_refusals(run: Run, crystals: list[Crystal], expected: Embeddings, card: SourceCard) -> None:
    """Each bad crystal between good ones: alone in the batch first, so that the culprit is named, then all at once."""
    bad = bad_crystals(card.elements)
    for what, crystal in bad.items():
        _, refused = run([crystals[0], crystal, crystals[1]])
        require(1 in refused, f"{card.name}: it takes {what}; it must refuse it, with a reason")
        require(set(refused) == {1}, f"{card.name}: beside {what} it refuses good crystals too: {refused}")
    mixed = [*itertools.chain.from_iterable(zip(bad.values(), itertools.cycle(crystals), strict=False))]
    found, _ = run(mixed)
    rows = np.arange(1, len(mixed), 2)
    same = {layer: values[np.arange(len(rows)) % len(crystals)] for layer, values in expected.items()}
    _require_layers(
        found, same, f"{card.name}: bad crystals change the embeddings of good ones, {{}}; they must not", rows=rows
    )


def _check_oxidation_states(run: Run, crystals: list[Crystal], expected: Embeddings, who: str) -> None:
    structures = [crystal.to_structure() for crystal in crystals]
    for structure in structures:
        structure.add_oxidation_state_by_element(dict.fromkeys(structure.composition.get_el_amt_dict(), 1))
    found, refused = run(structures)
    require(not refused, f"{who}: it refuses pymatgen structures with oxidation states: {refused}; it must take them")
    _require_layers(found, expected, f"{who}: oxidation states change the embedding, {{}}; they must be dropped")


def _check_probes(encoder: Any, device: str) -> None:
    card: SourceCard = encoder.card
    if not card.probes:
        return
    require("final" in card.layers, f"{card.name}: the card has probes and no layer 'final', which they are values of")
    try:
        check_probes(encoder, device=device)
    except IncompatibleWeightsError as error:
        raise AssertionError(f"{error} The probes of the card must be reproduced.") from error


def _check_composition_encoder(encoder: Any, card: SourceCard) -> None:
    who = card.name
    require(callable(getattr(encoder, "encode", None)), f"{who}: it has no method encode")
    amounts = sample_amounts(card.elements)
    formulas = [write_formula(item) for item in amounts]
    for layer, width in card.layers.items():
        encode = partial(_run_formulas, encoder, layer, width)
        expected = encode(formulas)
        where = f"of layer {layer!r}"
        require(not np.isnan(expected).any(), f"{who}: NaN {where} for formulas of elements that the card names")
        if layer == "readout":
            _require_informative(expected, who)
        same = {
            "two runs": encode(formulas),
            "formulas as texts and as parsed Compositions": encode(parse_compositions(formulas)),
            "formulas in a batch and one by one": np.concatenate([encode([formula]) for formula in formulas]),
            "rows and the same rows in another order": encode(formulas[::-1])[::-1],
            "a formula and the same with its elements in another order": encode(
                [write_formula(item, backwards=True) for item in amounts]
            ),
            "a formula and its multiples": encode([write_formula(item, 2.0) for item in amounts]),
        }
        for what, found in same.items():
            require_equal(found, expected, TOLERANCE, f"{who}: {what} give different rows {where}; they must not")
        encode([])  # no formula gives no row
    _check_unknown_elements(encoder, card, formulas)
    require_error(
        lambda: encoder.encode(formulas, layer="no such layer"),
        Exception,
        f"{who}: a layer that the card does not have must be an error that names it",
    )


def _run_formulas(encoder: Any, layer: str, width: int, formulas: Any) -> NDArray[np.float32]:
    who = f"{encoder.card.name}: encode(layer={layer!r})"
    try:
        values: NDArray[np.float32] = encoder.encode(formulas, layer=layer)
    except Exception as error:
        raise AssertionError(
            f"{who} raises {type(error).__name__} for {len(formulas)} formulas: {error}; it must return an array"
        ) from error
    require_array(values, len(formulas), width, who)
    lost = np.isnan(values)
    require(
        np.array_equal(lost.any(axis=1), lost.all(axis=1)),
        f"{who} has rows with some NaN; a row that cannot be computed must be NaN throughout",
    )
    return values


def _check_unknown_elements(encoder: Any, card: SourceCard, formulas: list[str]) -> None:
    unknown = next((symbol for symbol in SYMBOLS if symbol not in card.elements), None) if card.elements else None
    if unknown is None:
        return
    encode = partial(_run_formulas, encoder, "readout", card.width)
    found = encode([formulas[0], f"{unknown}2{symbols_of(card.elements)[0]}", formulas[1]])
    require(
        np.isnan(found[1]).all(),
        f"{card.name}: it embeds {unknown}, which is not among the card's elements; the row must be NaN",
    )
    require_equal(
        found[::2], encode(formulas[:2]), TOLERANCE, f"{card.name}: an unknown element changes the rows beside it"
    )
