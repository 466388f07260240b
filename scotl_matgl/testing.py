"""Conformance checks for authors of zoos, descriptors, bridges and estimators: one function for each kind of object.

Each check raises an ``AssertionError`` that says what the object did and what the contract asks for, and returns None
where the object conforms, so that a test of a plugin is one line, under pytest or anything else.
"""

from __future__ import annotations

import inspect
import itertools
import json
import math
import pickle
import re
import tempfile
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from sklearn.base import BaseEstimator, clone
from sklearn.exceptions import NotFittedError

from scotl_matgl import registry
from scotl_matgl.bridges.base import Bridge, BridgeQuality, load_bridge
from scotl_matgl.cards import SourceCard
from scotl_matgl.composition import SYMBOLS, parse_compositions
from scotl_matgl.descriptors import CompositionDescriptor, get_descriptor
from scotl_matgl.encoders.probes import IncompatibleWeightsError, check_probes, reference_crystals
from scotl_matgl.spectrum import Spectra
from scotl_matgl.structures import Crystal

__all__ = [
    "bad_crystals",
    "check_bridge",
    "check_card",
    "check_descriptor",
    "check_encoder",
    "check_estimator",
    "check_zoo",
    "sample_crystals",
    "sample_formulas",
]

#: Largest deviation between two ways to compute the same embedding, relative to the largest value: one by one against
#: in a batch, beside bad rows against without them, a formula against its multiple.
TOLERANCE = 1e-5

#: The same between two descriptions of one crystal, whose neighbours differ by rounding.
DESCRIPTION_TOLERANCE = 5e-5

#: The same for descriptors, which work in double precision.
DESCRIPTOR_TOLERANCE = 1e-9

_COMMON = ("Na", "Cl", "Mg", "O", "Si", "Al", "Fe", "Ti", "Ca", "Li", "Zn", "S", "Cu", "F", "K", "N")

_PLACEHOLDERS = {"", "-", "?", "n/a", "na", "none", "null", "tba", "tbd", "todo", "unknown", "xxx"}

_N_BAD_FORMULA = "Qq2O3"


# -- what the checks are made of ---------------------------------------------------------------------------------------


def _require(condition: Any, message: str) -> None:
    """Raise AssertionError with `message` unless `condition` holds (the statement ``assert`` vanishes under -O)."""
    if not condition:
        raise AssertionError(message)


def _require_error(action: Callable[[], Any], allowed: type[Exception], message: str) -> None:
    """Require that `action` raises `allowed` with a message that is not empty."""
    try:
        action()
    except allowed as error:
        _require(str(error).strip(), f"{message}; a {type(error).__name__} without a message was raised")
    except Exception as error:
        raise AssertionError(f"{message}; {type(error).__name__} was raised instead: {error}") from error
    else:
        raise AssertionError(f"{message}; nothing was raised")


def _deviation(found: ArrayLike, expected: ArrayLike) -> float:
    """Largest difference relative to the largest value; infinite where shapes or the places of NaN differ."""
    a, b = np.asarray(found, dtype=np.float64), np.asarray(expected, dtype=np.float64)
    if a.shape != b.shape or not np.array_equal(np.isnan(a), np.isnan(b)):
        return math.inf
    known = ~np.isnan(b)
    if not known.any():
        return 0.0
    largest = float(np.abs(b[known]).max())
    difference = float(np.abs(a[known] - b[known]).max())
    return difference / largest if largest > 0 else difference


def _require_equal(found: ArrayLike, expected: ArrayLike, tolerance: float, message: str) -> None:
    deviation = _deviation(found, expected)
    _require(
        deviation <= tolerance,
        f"{message}; they deviate by {deviation:.2g} of the largest value, allowed is {tolerance:g}",
    )


def _require_sentence(text: Any, message: str) -> None:
    _require(isinstance(text, str) and len(text.split()) >= 2, f"{message}; it is {text!r}")


def _require_citations(obj: Any, who: str) -> None:
    citations = getattr(obj, "citations", None)
    _require(callable(citations), f"{who} has no citations(); it must return what to cite, a list of texts")
    listed = citations()  # type: ignore[misc]  # required to be callable one line above
    _require(
        isinstance(listed, list) and all(isinstance(item, str) and item.strip() for item in listed),
        f"citations() of {who} is {listed!r}; it must be a list of texts that are not empty",
    )


def _require_parameters(obj: Any, who: str) -> None:
    """scikit-learn's rules for objects that are configured, cloned and sent to other processes."""
    _require(
        isinstance(obj, BaseEstimator), f"{who} is no scikit-learn estimator; derive its class from the contract's base"
    )
    try:
        copy = clone(obj)
    except Exception as error:
        raise AssertionError(
            f"{who} cannot be cloned: {error}; __init__ must store its parameters unchanged and do nothing else"
        ) from error
    learned = sorted(name for name in vars(copy) if name.endswith("_") and not name.startswith("_"))
    _require(
        not learned,
        f"{who} has the learned attributes {', '.join(learned)} before fit; __init__ stores parameters only",
    )
    _require_pickle(copy, who)


def _require_pickle(obj: Any, who: str) -> Any:
    """Return the object after a round trip through pickle."""
    try:
        again = pickle.loads(pickle.dumps(obj))  # noqa: S301 - made in the same line
    except Exception as error:
        raise AssertionError(
            f"{who} cannot be pickled: {type(error).__name__}: {error}; it must travel to the workers of joblib"
        ) from error
    _require(type(again) is type(obj), f"{who} is a {type(again).__name__} after pickling; it must stay what it is")
    return again


def _name(obj: Any) -> str:
    return type(obj).__name__


# -- samples -----------------------------------------------------------------------------------------------------------


def _symbols(elements: Collection[str]) -> list[str]:
    """Up to 16 elements that the model knows, common ones if it knows any of them."""
    if not elements:
        return list(_COMMON)
    known = [symbol for symbol in _COMMON if symbol in elements]
    return known if len(known) >= 3 else sorted(elements)[:16]


def sample_crystals(elements: Collection[str] = ()) -> list[Crystal]:
    """Six small crystals without any symmetry, so that no two distances are equal by chance.

    Parameters
    ----------
    elements : collection of str
        Symbols to choose from; empty for common ones.

    Returns
    -------
    list of Crystal
        One to eight atoms a cell, nearest neighbours about 2 to 3 Å apart.

    Examples
    --------
    >>> [len(crystal) for crystal in sample_crystals()]
    [2, 5, 1, 8, 2, 5]
    """
    fcc = np.array([[0.0, 0.5, 0.5], [0.5, 0.0, 0.5], [0.5, 0.5, 0.0]])
    corner, centre = np.zeros(3), np.full(3, 0.5)
    rocksalt = np.vstack([corner, fcc, centre, centre + fcc])
    prototypes = (
        (3.6 * np.eye(3), np.vstack([corner, centre]), (0, 1)),
        (4.1 * np.eye(3), np.vstack([corner, centre, fcc]), (0, 1, 2, 2, 2)),
        (4.0 * fcc, corner[None], (0,)),
        (5.2 * np.eye(3), rocksalt, (0, 0, 0, 0, 1, 1, 1, 1)),
    )
    rng = np.random.default_rng(0)
    symbols = itertools.cycle(_symbols(elements))
    crystals: list[Crystal] = []
    for lattice, sites, slots in itertools.islice(itertools.cycle(prototypes), 6):
        chosen = [SYMBOLS.index(next(symbols)) + 1 for _ in range(max(slots) + 1)]
        crystals.append(
            Crystal(
                lattice @ (np.eye(3) + rng.uniform(-0.05, 0.05, size=(3, 3))),
                sites + rng.uniform(-0.02, 0.02, size=sites.shape),
                np.array([chosen[slot] for slot in slots]),
                f"sample {len(crystals)}",
            )
        )
    return crystals


def bad_crystals(elements: Collection[str] = ()) -> dict[str, Any]:
    """What no structure encoder may take: models give numbers for most of these, and they are wrong.

    Parameters
    ----------
    elements : collection of str
        Symbols that the model knows; empty if it takes all.

    Returns
    -------
    dict of str to object
        What is wrong with it, and the object; mostly pymatgen's.
    """
    from pymatgen.core.lattice import Lattice
    from pymatgen.core.periodic_table import DummySpecies
    from pymatgen.core.structure import Molecule, Structure

    symbols = _symbols(elements)
    a, b = symbols[0], symbols[min(1, len(symbols) - 1)]
    two: list[Any] = [[0, 0, 0], [0.5, 0.5, 0.5]]
    cell = Lattice.cubic(3.6)
    bad: dict[str, Any] = {
        "a crystal with NaN among its coordinates": Structure(cell, [a, b], [two[0], [0.5, np.nan, 0.5]]),
        "a crystal with overlapping atoms": Structure(cell, [a, b, b], [*two, [0.5, 0.5, 0.53]]),
        "a crystal with a disordered site": Structure(cell, [{a: 0.5}, b], two),
        "a crystal with a dummy species": Structure(cell, [DummySpecies("X"), b], two),
        "a lone atom without neighbours": Structure(Lattice.cubic(60), [a], [two[0]]),
        "a crystal of which one atom has no neighbours": Structure(Lattice.cubic(60), [a, b, a], [[0.04, 0, 0], *two]),
        "a molecule": Molecule([a, b], [[0, 0, 0], [0, 0, 2]]),
        "a text": a + b,
    }
    unknown = next((symbol for symbol in SYMBOLS if symbol not in elements), None) if elements else None
    if unknown is not None:
        bad["a crystal with an element that is not among the card's elements"] = Structure(cell, [unknown, b], two)
    return bad


Amounts = Sequence[tuple[str, float]]


def _sample_amounts(elements: Collection[str]) -> list[Amounts]:
    s = (_symbols(elements) * 8)[:16]
    amounts: list[Amounts] = [[(s[0], 1)], [(s[3], 2)]]
    for i in range(12):
        # An element must not stand twice in one formula where the model knows few.
        counts = dict(zip((s[i], s[i + 1], s[i + 2]), (1 + i % 2, 1 + i % 3, 3 * (i % 2)), strict=True))
        amounts.append([(symbol, count) for symbol, count in counts.items() if count])
    return amounts


def _write(amounts: Amounts, factor: float = 1.0, *, backwards: bool = False) -> str:
    ordered = reversed(amounts) if backwards else amounts
    return "".join(f"{symbol}{amount * factor:g}" for symbol, amount in ordered)


def sample_formulas(elements: Collection[str] = ()) -> list[str]:
    """Fourteen formulas of one to three elements.

    Parameters
    ----------
    elements : collection of str
        Symbols to choose from; empty for common ones.

    Examples
    --------
    >>> sample_formulas()[:4]
    ['Na1', 'O2', 'Na1Cl1', 'Cl2Mg2O3']
    """
    return [_write(amounts) for amounts in _sample_amounts(elements)]


# -- encoders ----------------------------------------------------------------------------------------------------------


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
    >>> from scotl_matgl.cards import SourceCard
    >>> from scotl_matgl.composition import parse_compositions
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
        raise AssertionError(f"{_name(encoder)}.card is {card!r}; it must be the SourceCard it was loaded from")
    _require(
        getattr(encoder, "layers", None) == tuple(card.layers),
        f"{card.name}: layers are {getattr(encoder, 'layers', None)!r}; they must be those of the card, "
        f"{tuple(card.layers)!r}",
    )
    if card.modality == "structure":
        _check_structure_encoder(encoder, card, device)
    else:
        _check_composition_encoder(encoder, card)


Embeddings = Mapping[str, NDArray[np.float32]]


def _require_array(values: Any, n: int, width: int, what: str) -> None:
    _require(isinstance(values, np.ndarray), f"{what} is a {_name(values)}; it must be a numpy array")
    _require(values.dtype == np.float32, f"{what} has the type {values.dtype}; it must be float32")
    _require(
        values.shape == (n, width),
        f"{what} has the shape {values.shape}; it must be {(n, width)}: rows of the input, width of the card",
    )
    _require(not np.isinf(values).any(), f"{what} holds infinite values; a row that cannot be computed must be NaN")


def _require_informative(embedding: NDArray[np.float32], who: str) -> None:
    spread = float(np.abs(embedding - embedding[0]).max())
    _require(spread > 0, f"{who}: the readout is the same for all samples; an embedding must tell materials apart")


def _check_structure_encoder(encoder: Any, card: SourceCard, device: str) -> None:
    who = card.name
    for method in ("encode", "encode_layers"):
        _require(callable(getattr(encoder, method, None)), f"{who}: it has no method {method}")
    crystals = sample_crystals(card.elements)
    run = partial(_run_layers, encoder, device=device)

    expected, refused = run(crystals)
    _require(not refused, f"{who}: it refuses good crystals: {refused}; only bad ones may be refused")
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
        raise AssertionError(f"{card.name}: encode_layers returns {_name(encoded)}; it must be an Encoded")
    _require(
        set(embeddings) == set(card.layers),
        f"{card.name}: encode_layers returns the layers {sorted(embeddings)}; {sorted(card.layers)} were asked for",
    )
    for layer, width in card.layers.items():
        _require_array(embeddings[layer], len(items), width, f"{card.name}: layer {layer!r}")
    for row, reason in refused.items():
        _require(
            isinstance(row, int) and 0 <= row < len(items),
            f"{card.name}: `refused` names the row {row!r} of {len(items)}; it must be a position in the input",
        )
        _require_sentence(reason, f"{card.name}: a refusal must give its reason in words")
    for layer, values in embeddings.items():
        lost = set(np.flatnonzero(np.isnan(values).any(axis=1)).tolist())
        whole = set(np.flatnonzero(np.isnan(values).all(axis=1)).tolist())
        _require(
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
        _require_equal(found[layer][rows], values, tolerance, message.format(f"layer {layer!r}"))


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
        _require_array(values, len(crystals), encoder.card.layers[layer], f"{who}: encode(layer={layer!r})")
        _require_equal(
            values,
            expected[layer],
            TOLERANCE,
            f"{who}: encode and encode_layers differ in layer {layer!r}; encode must be thin over encode_layers and "
            "take any iterable",
        )
    calls: list[tuple[int, int]] = []
    run(crystals, progress=lambda done, total: calls.append((done, total)))
    n = len(crystals)
    _require(
        calls and calls[-1] == (n, n) and calls == sorted(calls),
        f"{who}: progress was called with {calls}; it must be called with (done, {n}), rising up to ({n}, {n})",
    )
    _require_error(
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
        _require(not refused, f"{who}: it refuses a crystal after a change of {what}: {refused}")
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
        _require(1 in refused, f"{card.name}: it takes {what}; it must refuse it, with a reason")
        _require(set(refused) == {1}, f"{card.name}: beside {what} it refuses good crystals too: {refused}")
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
    _require(not refused, f"{who}: it refuses pymatgen structures with oxidation states: {refused}; it must take them")
    _require_layers(found, expected, f"{who}: oxidation states change the embedding, {{}}; they must be dropped")


def _check_probes(encoder: Any, device: str) -> None:
    card: SourceCard = encoder.card
    if not card.probes:
        return
    _require("final" in card.layers, f"{card.name}: the card has probes and no layer 'final', which they are values of")
    try:
        check_probes(encoder, device=device)
    except IncompatibleWeightsError as error:
        raise AssertionError(f"{error} The probes of the card must be reproduced.") from error


def _check_composition_encoder(encoder: Any, card: SourceCard) -> None:
    who = card.name
    _require(callable(getattr(encoder, "encode", None)), f"{who}: it has no method encode")
    amounts = _sample_amounts(card.elements)
    formulas = [_write(item) for item in amounts]
    for layer, width in card.layers.items():
        encode = partial(_run_formulas, encoder, layer, width)
        expected = encode(formulas)
        where = f"of layer {layer!r}"
        _require(not np.isnan(expected).any(), f"{who}: NaN {where} for formulas of elements that the card names")
        if layer == "readout":
            _require_informative(expected, who)
        same = {
            "two runs": encode(formulas),
            "formulas as texts and as parsed Compositions": encode(parse_compositions(formulas)),
            "formulas in a batch and one by one": np.concatenate([encode([formula]) for formula in formulas]),
            "rows and the same rows in another order": encode(formulas[::-1])[::-1],
            "a formula and the same with its elements in another order": encode(
                [_write(item, backwards=True) for item in amounts]
            ),
            "a formula and its multiples": encode([_write(item, 2.0) for item in amounts]),
        }
        for what, found in same.items():
            _require_equal(found, expected, TOLERANCE, f"{who}: {what} give different rows {where}; they must not")
        encode([])  # no formula gives no row
    _check_unknown_elements(encoder, card, formulas)
    _require_error(
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
    _require_array(values, len(formulas), width, who)
    lost = np.isnan(values)
    _require(
        np.array_equal(lost.any(axis=1), lost.all(axis=1)),
        f"{who} has rows with some NaN; a row that cannot be computed must be NaN throughout",
    )
    return values


def _check_unknown_elements(encoder: Any, card: SourceCard, formulas: list[str]) -> None:
    unknown = next((symbol for symbol in SYMBOLS if symbol not in card.elements), None) if card.elements else None
    if unknown is None:
        return
    encode = partial(_run_formulas, encoder, "readout", card.width)
    found = encode([formulas[0], f"{unknown}2{_symbols(card.elements)[0]}", formulas[1]])
    _require(
        np.isnan(found[1]).all(),
        f"{card.name}: it embeds {unknown}, which is not among the card's elements; the row must be NaN",
    )
    _require_equal(
        found[::2], encode(formulas[:2]), TOLERANCE, f"{card.name}: an unknown element changes the rows beside it"
    )


# -- descriptors -------------------------------------------------------------------------------------------------------


def check_descriptor(descriptor: Any) -> None:
    """Check a descriptor against the contract of :class:`~scotl_matgl.descriptors.CompositionDescriptor`.

    It must follow scikit-learn's conventions (``fit`` returns self, parameters only in ``__init__``, clone, pickle,
    ``set_output``); give float64 of one column a name, without infinite values, for every element; be deterministic,
    treat rows by themselves, and depend neither on the order of the elements nor on the multiple in which a formula is
    written (to 1e-9 of the largest value); refuse what is no formula; say what to cite; and have a fingerprint that
    stays.

    Parameters
    ----------
    descriptor : CompositionDescriptor
        Unfitted.

    Raises
    ------
    AssertionError
        At the first rule that is broken.

    Examples
    --------
    >>> from scotl_matgl.descriptors import StoichiometryDescriptor
    >>> check_descriptor(StoichiometryDescriptor())
    """
    who = _name(descriptor)
    _require(
        isinstance(descriptor, CompositionDescriptor),
        f"{who} is no CompositionDescriptor; derive it from that class, or register what returns one",
    )
    _require_parameters(descriptor, who)
    descriptor = get_descriptor(descriptor)
    _require(descriptor.fit(sample_formulas()) is descriptor, f"{who}.fit must return self")
    _check_columns(descriptor, who)
    _check_rows(descriptor, who)
    _check_frames(descriptor, who)
    _check_fingerprint(descriptor, who)
    _require_citations(descriptor, who)
    _require(descriptor.citations(), f"citations() of {who} is empty; features and element data must be cited")
    _require_error(
        lambda: descriptor.transform(["NaCl", _N_BAD_FORMULA]),
        ValueError,
        f"{who}: {_N_BAD_FORMULA!r} must be a ValueError that names the row (parse_compositions raises it)",
    )


def _check_columns(descriptor: CompositionDescriptor, who: str) -> None:
    values = descriptor.transform(sample_formulas())
    _require(
        isinstance(values, np.ndarray) and values.dtype == np.float64 and values.ndim == 2,
        f"{who}.transform returns {_name(values)} of {getattr(values, 'dtype', 'no type')}, shape "
        f"{getattr(values, 'shape', 'unknown')}; it must be a two-dimensional numpy array of float64",
    )
    names = list(descriptor.get_feature_names_out())
    _require(
        values.shape == (len(sample_formulas()), len(names)) and names,
        f"{who}.transform gives the shape {values.shape} for {len(sample_formulas())} formulas and {len(names)} names; "
        "it must be one row a formula and one column a name, at least one",
    )
    _require(
        all(isinstance(name, str) and name for name in names) and len(set(names)) == len(names),
        f"{who}: the names of its features must be texts, each once",
    )
    every = descriptor.transform(list(SYMBOLS))
    _require(
        every.shape == (len(SYMBOLS), len(names)) and not np.isinf(every).any(),
        f"{who}: over all elements the features must be a row each, finite or NaN; shape {every.shape}, "
        f"{int(np.isinf(every).sum())} infinite",
    )
    _require(
        descriptor.transform([]).shape == (0, len(names)), f"{who}: no formula must give the shape (0, {len(names)})"
    )


def _check_rows(descriptor: CompositionDescriptor, who: str) -> None:
    import pandas as pd

    amounts = _sample_amounts(())
    formulas = [_write(item) for item in amounts]
    expected = descriptor.transform(formulas)
    again = clone(descriptor).fit(formulas[:2])
    same = {
        "two runs": descriptor.transform(formulas),
        "an object and its clone fitted on other formulas": again.transform(formulas),
        "an object and the same after pickling": _require_pickle(descriptor, who).transform(formulas),
        "formulas as texts and as parsed Compositions": descriptor.transform(parse_compositions(formulas)),
        "formulas as a list and as a pandas Series": descriptor.transform(pd.Series(formulas)),
        "formulas in a batch and one by one": np.vstack([descriptor.transform([formula]) for formula in formulas]),
        "rows and the same rows in another order": descriptor.transform(formulas[::-1])[::-1],
        "a formula and the same with its elements in another order": descriptor.transform(
            [_write(item, backwards=True) for item in amounts]
        ),
        "a formula and its multiples": descriptor.transform([_write(item, 2.0) for item in amounts]),
    }
    for what, found in same.items():
        _require_equal(found, expected, DESCRIPTOR_TOLERANCE, f"{who}: {what} give different features; they must not")


def _check_frames(descriptor: CompositionDescriptor, who: str) -> None:
    formulas = sample_formulas()
    frame: Any = clone(descriptor).set_output(transform="pandas").fit(formulas).transform(formulas)
    _require(
        list(getattr(frame, "columns", ())) == list(descriptor.get_feature_names_out()),
        f"{who}: after set_output(transform='pandas') transform must return a data frame with the names as columns",
    )


def _check_fingerprint(descriptor: CompositionDescriptor, who: str) -> None:
    found = descriptor.fingerprint()
    _require(
        isinstance(found, str) and re.fullmatch(r"[0-9a-f]{64}", found),
        f"{who}.fingerprint() is {found!r}; it must be 64 hexadecimal digits (bridges record it)",
    )
    _require(
        clone(descriptor).fit(sample_formulas()[:3]).fingerprint() == found,
        f"{who}.fingerprint() changes from one object to its clone; it must depend on columns and tables alone",
    )


# -- bridges -----------------------------------------------------------------------------------------------------------


def check_bridge(bridge: Any) -> None:
    """Check a bridge against the contract of :class:`~scotl_matgl.bridges.base.Bridge`.

    It must follow scikit-learn's conventions; be registered under its ``kind``; learn a linear relation better than the
    mean does, and say how well; give finite float32 row by row, the same every time, also where descriptors are missing
    or far outside; leave out crystals without an embedding; refuse descriptors of another width; and be the same after
    saving and pickling.

    Parameters
    ----------
    bridge : Bridge
        Unfitted.

    Raises
    ------
    AssertionError
        At the first rule that is broken.

    Notes
    -----
    Fits it four times on 160 rows.

    Examples
    --------
    >>> from scotl_matgl.bridges.ridge import RidgeBridge
    >>> check_bridge(RidgeBridge())
    """
    who = _name(bridge)
    _require(isinstance(bridge, Bridge), f"{who} is no Bridge; derive it from scotl_matgl.bridges.base.Bridge")
    _require_parameters(bridge, who)
    _require_citations(bridge, who)
    rng = np.random.default_rng(0)
    X = rng.normal(size=(160, 6))
    X[:, 5] = 1.0  # an element that the corpus lacks makes a constant column
    Z = (X @ rng.normal(size=(6, 4)) + 0.05 * rng.normal(size=(160, 4)) + 2.0).astype(np.float32)

    _require_error(
        lambda: clone(bridge).transform(X), NotFittedError, f"{who}: transform before fit must raise NotFittedError"
    )
    fitted = clone(bridge)
    _require(fitted.fit(X, Z) is fitted, f"{who}.fit must return self")
    _require(
        getattr(fitted, "n_features_in_", None) == 6 and getattr(fitted, "n_features_out_", None) == 4,
        f"{who}: after fit n_features_in_ must be the width of X and n_features_out_ that of Z",
    )
    expected = fitted.transform(X)
    _require_array(expected, 160, 4, f"{who}: transform")
    _check_bridge_quality(fitted, who)
    _check_bridge_rows(fitted, X, expected, who)
    _require_equal(
        clone(bridge).fit(X, Z).transform(X),
        expected,
        TOLERANCE,
        f"{who}: two fits on the same rows differ; random_state must decide all that is random",
    )
    _check_refused_rows(bridge, X, Z, expected, who)
    _check_bridge_files(fitted, X, expected, who)


def _check_bridge_quality(fitted: Bridge, who: str) -> None:
    quality = getattr(fitted, "quality_", None)
    if not isinstance(quality, BridgeQuality):
        raise AssertionError(f"{who}.quality_ is {quality!r} after fit; it must be a BridgeQuality")
    _require(
        len(quality.r2) == 4 and quality.n_held_out > 0,
        f"{who}.quality_ has {len(quality.r2)} values of R² from {quality.n_held_out} held-out rows; it must have one "
        "a dimension, from rows that were not fitted on",
    )
    _require(
        quality.median_r2 > 0,
        f"{who}: the median held-out R² of a linear relation is {quality.median_r2:.3g}; it must be above 0",
    )


def _check_bridge_rows(fitted: Bridge, X: NDArray[np.float64], expected: NDArray[np.float32], who: str) -> None:
    alone = np.vstack([fitted.transform(row[None]) for row in X[:5]])
    _require_equal(alone, expected[:5], TOLERANCE, f"{who}: a row alone is not that among others; rows are independent")
    hard = X[:3].copy()
    hard[0, 0], hard[1, 1], hard[2, 2] = np.nan, 1e6, -1e6
    _require(
        np.isfinite(fitted.transform(hard)).all(),
        f"{who}: a missing or extreme descriptor gives values that are not finite; they must be",
    )
    _require_error(
        lambda: fitted.transform(X[:, :4]), ValueError, f"{who}: descriptors of another width must be a ValueError"
    )


def _check_refused_rows(
    bridge: Bridge, X: NDArray[np.float64], Z: NDArray[np.float32], expected: NDArray[np.float32], who: str
) -> None:
    lost = np.full((2, Z.shape[1]), np.nan, dtype=np.float32)
    with_refused = clone(bridge).fit(np.vstack([X, X[:2]]), np.vstack([Z, lost]))
    _require_equal(
        with_refused.transform(X),
        expected,
        TOLERANCE,
        f"{who}: rows of Z that are NaN (refused crystals) change the fit; they must be left out",
    )
    _require(
        getattr(with_refused, "n_refused_", None) == 2,
        f"{who}.n_refused_ is {getattr(with_refused, 'n_refused_', None)}; it must count the rows left out, here 2",
    )


def _check_bridge_files(fitted: Bridge, X: NDArray[np.float64], expected: NDArray[np.float32], who: str) -> None:
    _require_equal(
        _require_pickle(fitted, who).transform(X), expected, TOLERANCE, f"{who}: it estimates otherwise after pickling"
    )
    kind = getattr(type(fitted), "kind", None)
    try:
        registered = registry.load("bridges", str(kind))
    except registry.PluginError as error:
        raise AssertionError(
            f"{who}.kind is {kind!r}, under which nothing is registered: {error}; it must be the name of its entry "
            f"point in {registry.GROUPS['bridges']}"
        ) from error
    _require(
        registered is type(fitted),
        f"{who}.kind is {kind!r}, under which {registered!r} is registered; it must be the name of its own entry point",
    )
    with tempfile.TemporaryDirectory() as folder:
        for dtype, tolerance in (("float32", TOLERANCE), ("float16", 1e-2)):
            path = Path(folder) / f"{dtype}.safetensors"
            try:
                fitted.save(path, {"source": "check"}, dtype=dtype)
                again = load_bridge(path)
                estimated = again.transform(X)
            except Exception as error:
                raise AssertionError(
                    f"{who} cannot be saved and loaded: {type(error).__name__}: {error}; weights_ must hold all "
                    "tensors and the parameters be JSON values"
                ) from error
            _require_equal(estimated, expected, tolerance, f"{who}: it estimates otherwise after saving as {dtype}")
            _require(
                again.provenance_ == {"source": "check"} and again.quality_ == fitted.quality_,
                f"{who}: quality or provenance are not the same after saving",
            )


# -- estimators --------------------------------------------------------------------------------------------------------


def check_estimator(estimator: Any) -> None:
    """Check a transferability estimator against the contract of ``scotl_matgl.estimators``.

    It must follow scikit-learn's conventions; give a finite score that is higher for an embedding that tells of the
    target than for the same in another order of rows; be deterministic, the same for an array and a shared
    decomposition, and for labels of other names; leave its input alone; and refuse NaN, infinite values, lengths that
    do not match and constant targets with a ValueError.

    Parameters
    ----------
    estimator : TransferabilityEstimator
        Unfitted.

    Raises
    ------
    AssertionError
        At the first rule that is broken.

    Examples
    --------
    >>> from scotl_matgl.estimators import LogME
    >>> check_estimator(LogME())
    """
    who = _name(estimator)
    _require_parameters(estimator, who)
    tasks = getattr(estimator, "tasks", None)
    _require(
        isinstance(tasks, tuple) and tasks and set(tasks) <= {"regression", "classification"},
        f"{who}.tasks is {tasks!r}; it must be a tuple of 'regression' and 'classification', one or both",
    )
    takes = getattr(estimator, "takes", None)
    _require(takes in ("embedding", "output"), f"{who}.takes is {takes!r}; it must be 'embedding' or 'output'")
    _require_citations(estimator, who)
    for task in tasks or ():
        Z, y = _target_and_embedding(takes == "output", task == "classification")
        _check_scores(estimator, Z, y, f"{who} ({task})")
        _check_bad_input(estimator, Z, y, f"{who} ({task})")
    if "classification" in (tasks or ()):
        Z, y = _target_and_embedding(takes == "output", True)
        names = np.array(["metal", "insulator", "semiconductor"])[y]
        _require_equal(
            _score(estimator, Z, names, who),
            _score(estimator, Z, y, who),
            1e-9,
            f"{who}: names of labels change the score; they must not",
        )


def _target_and_embedding(output: bool, classification: bool) -> tuple[NDArray[np.float64], NDArray[Any]]:
    """An embedding (or output) that tells of its target, 90 rows."""
    rng = np.random.default_rng(0)
    # Directions of different variance, as embeddings have: what shrinks covariances would find nothing in equal ones.
    Z = rng.normal(size=(90, 6)) * [4.0, 2.0, 1.0, 1.0, 0.5, 0.5] @ np.linalg.qr(rng.normal(size=(6, 6)))[0]
    y = Z @ np.array([2.0, -1.0, 0.5, 0.0, 0.0, 0.0]) + 0.2 * rng.normal(size=90)
    if classification:
        labels = np.digitize(y, np.quantile(y, [1 / 3, 2 / 3]))
        if not output:
            return Z, labels
        logits = 3.0 * np.eye(3)[labels] + rng.normal(size=(90, 3))
        probabilities = np.exp(logits)
        return probabilities / probabilities.sum(axis=1, keepdims=True), labels
    return ((y + 0.3 * rng.normal(size=90))[:, None], y) if output else (Z, y)


def _score(estimator: Any, Z: Any, y: Any, who: str) -> float:
    fitted = clone(estimator)
    try:
        returned = fitted.fit(Z, y)
    except Exception as error:
        raise AssertionError(f"{who}.fit raises {type(error).__name__}: {error}; the data are good") from error
    _require(returned is fitted, f"{who}.fit must return self")
    score = getattr(fitted, "score_", None)
    if not isinstance(score, float):
        raise AssertionError(f"{who}.score_ is {score!r} after fit; it must be a float")
    return score


def _check_scores(estimator: Any, Z: NDArray[np.float64], y: NDArray[Any], who: str) -> None:
    before = Z.copy(), y.copy()
    score = _score(estimator, Z, y, who)
    _require(np.array_equal(Z, before[0]) and np.array_equal(y, before[1]), f"{who}.fit changes its input; it must not")
    _require(math.isfinite(score), f"{who}.score_ is {score} for 90 rows; it must be finite where it is defined")
    shuffled = _score(estimator, np.random.default_rng(1).permutation(Z), y, who)
    _require(
        score > shuffled,
        f"{who}.score_ is {score:.6g}, and {shuffled:.6g} with the rows in random order; higher must be better",
    )
    _require_equal(_score(estimator, Z, y, who), score, 1e-12, f"{who}: two fits give two scores; it is deterministic")
    shared = _score(estimator, Spectra(Z), y, who)
    _require_equal(shared, score, 1e-9, f"{who}: an array and its Spectra give two scores; they must not")
    again = _require_pickle(clone(estimator).fit(Z, y), who)
    _require(again.score_ == score, f"{who}: its score is another after pickling")


def _check_bad_input(estimator: Any, Z: NDArray[np.float64], y: NDArray[Any], who: str) -> None:
    bad = {}
    for value in (np.nan, np.inf):
        spoiled = Z.copy()
        spoiled[3, 0] = value
        bad[f"{value} in the embedding"] = (spoiled, y)
    bad["a target of another length"] = (Z, y[:-1])
    bad["a constant target"] = (Z, np.zeros_like(y))
    for what, (embedding, target) in bad.items():
        _require_error(
            partial(clone(estimator).fit, embedding, target),
            ValueError,
            f"{who}: {what} must be a ValueError that says so",
        )


# -- zoos --------------------------------------------------------------------------------------------------------------


def check_zoo(cards: Iterable[SourceCard] | Callable[[], Iterable[SourceCard]]) -> None:
    """Check the cards of a zoo: each by itself with :func:`check_card`, and their names against each other.

    Parameters
    ----------
    cards : iterable of SourceCard, or callable that returns one
        The callable is what the entry point in ``scotl_matgl.zoos`` names.

    Raises
    ------
    AssertionError
        At the first rule that is broken.

    Examples
    --------
    >>> from scotl_matgl.zoo import matgl
    >>> check_zoo(matgl)
    """
    if callable(cards):
        try:
            cards = list(cards())
        except Exception as error:
            raise AssertionError(f"the zoo cannot list its cards: {type(error).__name__}: {error}") from error
    listed = list(cards)
    _require(listed, "the zoo lists no card; it must list at least one")
    for card in listed:
        check_card(card)
    # Names become names of files, some of which lie on disks that ignore capitals.
    names = Counter(card.name.lower() for card in listed)
    twice = [card.name for card in listed if names[card.name.lower()] > 1]
    _require(
        not twice, f"the names {', '.join(twice)} are the same but for capitals at most; every source needs its own"
    )


def check_card(card: SourceCard) -> None:
    """Check one card: schema and JSON form, names, licence, citation, weights, probes, elements, loader.

    Parameters
    ----------
    card : SourceCard
        The model itself is not loaded; ``check_encoder(card.load())`` does that.

    Raises
    ------
    AssertionError
        At the first rule that is broken.
    """
    _require(isinstance(card, SourceCard), f"{card!r} is no SourceCard; a zoo lists SourceCards")
    who = f"card {card.name!r}"
    _check_schema(card, who)
    for key in ("property", "unit", "dataset", "architecture", "licence", "citation"):
        value = getattr(card, key)
        _require(
            value.strip().lower().rstrip(".!?:") not in _PLACEHOLDERS,
            f"{who}: {key} is {value!r}; it must say what is known (for a licence also that none is stated, and where)",
        )
    _check_weights(card, who)
    _check_facts(card, who)
    _check_loader(card, who)


def _check_schema(card: SourceCard, who: str) -> None:
    try:
        # Reading the JSON form validates every field again: names, widths, hashes, elements, numbers.
        again = SourceCard.from_dict(json.loads(json.dumps(card.to_dict(), allow_nan=False)))
    except (TypeError, ValueError) as error:
        raise AssertionError(f"{who} has no JSON form that follows the schema: {error}") from error
    _require(again == card, f"{who} is another after writing it as JSON; use texts as keys, and lists, not tuples")
    _require(_require_pickle(card, who) == card, f"{who} is another after pickling; it must be the same")


def _check_weights(card: SourceCard, who: str) -> None:
    _require(
        card.weights or card.modality == "composition",
        f"{who}: no sha256 of its weights; a structure source must name them, as its bridges fit these weights only",
    )
    for file in card.weights:
        path = Path(file)
        _require(
            not path.is_absolute() and ".." not in path.parts,
            f"{who}: the weights file {file!r} must be named relative to the model's folder",
        )


def _check_facts(card: SourceCard, who: str) -> None:
    _require(len(set(card.elements)) == len(card.elements), f"{who}: an element stands twice among its elements")
    if card.probes:
        strange = sorted(set(card.probes) - set(reference_crystals()))
        _require(
            not strange,
            f"{who}: there are no reference crystals {strange}; probes are given on {', '.join(reference_crystals())}",
        )
        _require("final" in card.layers, f"{who}: probes are values of the layer 'final', which it does not have")
    if card.error is not None:
        _require(
            card.error >= 0 and card.error_unit.strip(),
            f"{who}: error is {card.error!r} with the unit {card.error_unit!r}; it must be ≥ 0 and have its error_unit",
        )


def _check_loader(card: SourceCard, who: str) -> None:
    try:
        loader = card.loader_function()
    except Exception as error:
        raise AssertionError(f"{who}: its loader {card.loader!r} cannot be imported: {error}") from error
    _require(callable(loader), f"{who}: its loader {card.loader!r} is {loader!r}; it must be a function of the card")
    try:
        inspect.signature(loader).bind(card)
    except TypeError as error:
        raise AssertionError(
            f"{who}: its loader {card.loader!r} cannot be called with the card alone: {error}; other arguments need "
            "default values"
        ) from error
