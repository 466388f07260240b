"""Sample crystals and formulas, and the assertions of the conformance kit."""

from __future__ import annotations

import itertools
import math
import pickle
from collections.abc import Callable, Collection, Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike
from sklearn.base import BaseEstimator, clone

from scotl_matgl.chemistry.crystals import Crystal
from scotl_matgl.chemistry.elements import SYMBOLS

#: Largest deviation between two ways to compute the same embedding, relative to the largest value: one by one against
#: in a batch, beside bad rows against without them, a formula against its multiple.
TOLERANCE = 1e-5


_COMMON = ("Na", "Cl", "Mg", "O", "Si", "Al", "Fe", "Ti", "Ca", "Li", "Zn", "S", "Cu", "F", "K", "N")


BAD_FORMULA = "Qq2O3"


def require(condition: Any, message: str) -> None:
    """Raise AssertionError with `message` unless `condition` holds (the statement ``assert`` vanishes under -O)."""
    if not condition:
        raise AssertionError(message)


def require_error(action: Callable[[], Any], allowed: type[Exception], message: str) -> None:
    """Require that `action` raises `allowed` with a message that is not empty."""
    try:
        action()
    except allowed as error:
        require(str(error).strip(), f"{message}; a {type(error).__name__} without a message was raised")
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


def require_equal(found: ArrayLike, expected: ArrayLike, tolerance: float, message: str) -> None:
    """Require two arrays to agree, by their largest deviation as a share of the largest value."""
    deviation = _deviation(found, expected)
    require(
        deviation <= tolerance,
        f"{message}; they deviate by {deviation:.2g} of the largest value, allowed is {tolerance:g}",
    )


def require_sentence(text: Any, message: str) -> None:
    """Require a text of at least two words."""
    require(isinstance(text, str) and len(text.split()) >= 2, f"{message}; it is {text!r}")


def require_citations(obj: Any, who: str) -> None:
    """Require ``citations()`` to return a list of texts."""
    citations = getattr(obj, "citations", None)
    require(callable(citations), f"{who} has no citations(); it must return what to cite, a list of texts")
    listed = citations()  # type: ignore[misc]  # required to be callable one line above
    require(
        isinstance(listed, list) and all(isinstance(item, str) and item.strip() for item in listed),
        f"citations() of {who} is {listed!r}; it must be a list of texts that are not empty",
    )


def require_parameters(obj: Any, who: str) -> None:
    """scikit-learn's rules for objects that are configured, cloned and sent to other processes."""
    require(
        isinstance(obj, BaseEstimator), f"{who} is no scikit-learn estimator; derive its class from the contract's base"
    )
    try:
        copy = clone(obj)
    except Exception as error:
        raise AssertionError(
            f"{who} cannot be cloned: {error}; __init__ must store its parameters unchanged and do nothing else"
        ) from error
    learned = sorted(name for name in vars(copy) if name.endswith("_") and not name.startswith("_"))
    require(
        not learned,
        f"{who} has the learned attributes {', '.join(learned)} before fit; __init__ stores parameters only",
    )
    require_pickle(copy, who)


def require_pickle(obj: Any, who: str) -> Any:
    """Return the object after a round trip through pickle."""
    try:
        again = pickle.loads(pickle.dumps(obj))  # noqa: S301 - made in the same line
    except Exception as error:
        raise AssertionError(
            f"{who} cannot be pickled: {type(error).__name__}: {error}; it must travel to the workers of joblib"
        ) from error
    require(type(again) is type(obj), f"{who} is a {type(again).__name__} after pickling; it must stay what it is")
    return again


def name_of(obj: Any) -> str:
    """Name of an object's class."""
    return type(obj).__name__


def symbols_of(elements: Collection[str]) -> list[str]:
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
    symbols = itertools.cycle(symbols_of(elements))
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

    symbols = symbols_of(elements)
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


def sample_amounts(elements: Collection[str]) -> list[Amounts]:
    """Compositions of the elements that a model knows."""
    s = (symbols_of(elements) * 8)[:16]
    amounts: list[Amounts] = [[(s[0], 1)], [(s[3], 2)]]
    for i in range(12):
        # An element must not stand twice in one formula where the model knows few.
        counts = dict(zip((s[i], s[i + 1], s[i + 2]), (1 + i % 2, 1 + i % 3, 3 * (i % 2)), strict=True))
        amounts.append([(symbol, count) for symbol, count in counts.items() if count])
    return amounts


def write_formula(amounts: Amounts, factor: float = 1.0, *, backwards: bool = False) -> str:
    """Formula of amounts, all times a factor, also from the last element to the first."""
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
    return [write_formula(amounts) for amounts in sample_amounts(elements)]
