"""Conformance of descriptors."""

from __future__ import annotations

import re
from typing import Any

import numpy as np
from sklearn.base import clone

from scotl_matgl.chemistry.compositions import parse_compositions
from scotl_matgl.chemistry.elements import SYMBOLS
from scotl_matgl.descriptors.base import CompositionDescriptor
from scotl_matgl.descriptors.composite import get_descriptor
from scotl_matgl.testing.samples import (
    BAD_FORMULA,
    name_of,
    require,
    require_citations,
    require_equal,
    require_error,
    require_parameters,
    require_pickle,
    sample_amounts,
    sample_formulas,
    write_formula,
)

#: The same for descriptors, which work in double precision.
DESCRIPTOR_TOLERANCE = 1e-9


def check_descriptor(descriptor: Any) -> None:
    """Check a descriptor against the contract of :class:`~scotl_matgl.CompositionDescriptor`.

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
    >>> from scotl_matgl.descriptors.fractions import StoichiometryDescriptor
    >>> check_descriptor(StoichiometryDescriptor())
    """
    who = name_of(descriptor)
    require(
        isinstance(descriptor, CompositionDescriptor),
        f"{who} is no CompositionDescriptor; derive it from that class, or register what returns one",
    )
    require_parameters(descriptor, who)
    descriptor = get_descriptor(descriptor)
    require(descriptor.fit(sample_formulas()) is descriptor, f"{who}.fit must return self")
    _check_columns(descriptor, who)
    _check_rows(descriptor, who)
    _check_frames(descriptor, who)
    _check_fingerprint(descriptor, who)
    require_citations(descriptor, who)
    require(descriptor.citations(), f"citations() of {who} is empty; features and element data must be cited")
    require_error(
        lambda: descriptor.transform(["NaCl", BAD_FORMULA]),
        ValueError,
        f"{who}: {BAD_FORMULA!r} must be a ValueError that names the row (parse_compositions raises it)",
    )


def _check_columns(descriptor: CompositionDescriptor, who: str) -> None:
    values = descriptor.transform(sample_formulas())
    require(
        isinstance(values, np.ndarray) and values.dtype == np.float64 and values.ndim == 2,
        f"{who}.transform returns {name_of(values)} of {getattr(values, 'dtype', 'no type')}, shape "
        f"{getattr(values, 'shape', 'unknown')}; it must be a two-dimensional numpy array of float64",
    )
    names = list(descriptor.get_feature_names_out())
    require(
        values.shape == (len(sample_formulas()), len(names)) and names,
        f"{who}.transform gives the shape {values.shape} for {len(sample_formulas())} formulas and {len(names)} names; "
        "it must be one row a formula and one column a name, at least one",
    )
    require(
        all(isinstance(name, str) and name for name in names) and len(set(names)) == len(names),
        f"{who}: the names of its features must be texts, each once",
    )
    every = descriptor.transform(list(SYMBOLS))
    require(
        every.shape == (len(SYMBOLS), len(names)) and not np.isinf(every).any(),
        f"{who}: over all elements the features must be a row each, finite or NaN; shape {every.shape}, "
        f"{int(np.isinf(every).sum())} infinite",
    )
    require(
        descriptor.transform([]).shape == (0, len(names)), f"{who}: no formula must give the shape (0, {len(names)})"
    )


def _check_rows(descriptor: CompositionDescriptor, who: str) -> None:
    import pandas as pd

    amounts = sample_amounts(())
    formulas = [write_formula(item) for item in amounts]
    expected = descriptor.transform(formulas)
    again = clone(descriptor).fit(formulas[:2])
    same = {
        "two runs": descriptor.transform(formulas),
        "an object and its clone fitted on other formulas": again.transform(formulas),
        "an object and the same after pickling": require_pickle(descriptor, who).transform(formulas),
        "formulas as texts and as parsed Compositions": descriptor.transform(parse_compositions(formulas)),
        "formulas as a list and as a pandas Series": descriptor.transform(pd.Series(formulas)),
        "formulas in a batch and one by one": np.vstack([descriptor.transform([formula]) for formula in formulas]),
        "rows and the same rows in another order": descriptor.transform(formulas[::-1])[::-1],
        "a formula and the same with its elements in another order": descriptor.transform(
            [write_formula(item, backwards=True) for item in amounts]
        ),
        "a formula and its multiples": descriptor.transform([write_formula(item, 2.0) for item in amounts]),
    }
    for what, found in same.items():
        require_equal(found, expected, DESCRIPTOR_TOLERANCE, f"{who}: {what} give different features; they must not")


def _check_frames(descriptor: CompositionDescriptor, who: str) -> None:
    formulas = sample_formulas()
    frame: Any = clone(descriptor).set_output(transform="pandas").fit(formulas).transform(formulas)
    require(
        list(getattr(frame, "columns", ())) == list(descriptor.get_feature_names_out()),
        f"{who}: after set_output(transform='pandas') transform must return a data frame with the names as columns",
    )


def _check_fingerprint(descriptor: CompositionDescriptor, who: str) -> None:
    found = descriptor.fingerprint()
    require(
        isinstance(found, str) and re.fullmatch(r"[0-9a-f]{64}", found),
        f"{who}.fingerprint() is {found!r}; it must be 64 hexadecimal digits (bridges record it)",
    )
    require(
        clone(descriptor).fit(sample_formulas()[:3]).fingerprint() == found,
        f"{who}.fingerprint() changes from one object to its clone; it must depend on columns and tables alone",
    )
