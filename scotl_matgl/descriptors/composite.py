"""Descriptors side by side, the default one, and the way from a name to a descriptor."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Any, Self, cast

import numpy as np
from sklearn.base import clone

from scotl_matgl import registry
from scotl_matgl.chemistry.compositions import Compositions
from scotl_matgl.descriptors.base import CompositionDescriptor, UsedTable
from scotl_matgl.descriptors.element_properties import ElementPropertyDescriptor, ValenceOrbitalDescriptor
from scotl_matgl.descriptors.fractions import ElementFractionDescriptor, StoichiometryDescriptor
from scotl_matgl.descriptors.ions import IonPropertyDescriptor
from scotl_matgl.vocabulary import Floats


class CompositeDescriptor(CompositionDescriptor):
    """Several descriptors side by side.

    Parameters
    ----------
    descriptors : sequence of str or CompositionDescriptor
        Registered names or objects, in the order of their columns.

    Attributes
    ----------
    descriptors_ : list of CompositionDescriptor
        The fitted copies.

    Examples
    --------
    >>> both = CompositeDescriptor([StoichiometryDescriptor(), ElementFractionDescriptor()])
    >>> both.transform(["Fe2O3"]).shape
    (1, 124)
    """

    def __init__(self, descriptors: Sequence[Any]) -> None:
        self.descriptors = descriptors

    def _build(self) -> list[CompositionDescriptor]:
        """Return new, unfitted descriptors."""
        if isinstance(self.descriptors, str) or len(self.descriptors) == 0:
            raise ValueError(f"descriptors={self.descriptors!r} must be a list of at least one name or descriptor")
        return [get_descriptor(descriptor) for descriptor in self.descriptors]

    def fit(self, formulas: Any, y: Any = None) -> Self:
        """Fit a copy of every descriptor.

        Parameters
        ----------
        formulas : Compositions, iterable, pandas Series or table of one column
            Read where one of the descriptors needs them.
        y : ignored

        Returns
        -------
        self

        Raises
        ------
        ValueError
            If two descriptors give a feature of the same name.
        """
        self.descriptors_ = [descriptor.fit(formulas, y) for descriptor in self._build()]
        self._feature_names()
        return self

    def _parts(self) -> list[CompositionDescriptor]:
        return getattr(self, "descriptors_", None) or self._build()

    def _feature_names(self) -> list[str]:
        names = [name for part in self._parts() for name in part.get_feature_names_out().tolist()]
        twice = [name for name, count in Counter(names).items() if count > 1]
        if twice:
            raise ValueError(
                f"Two of the descriptors give the feature {twice[0]!r} ({len(twice)} such features in all): leave one "
                "of the descriptors out"
            )
        return names

    def _describe(self, compositions: Compositions) -> Floats:
        return np.hstack([np.asarray(part.transform(compositions)) for part in self._parts()])

    def _tables(self) -> list[UsedTable]:
        return [used for part in self._parts() for used in part._tables()]

    def _fingerprint_parts(self) -> Iterator[bytes]:
        for part in self._parts():
            yield part.fingerprint().encode()

    def citations(self) -> list[str]:
        """Return the references of all descriptors, each once."""
        return list(dict.fromkeys(reference for part in self._parts() for reference in part.citations()))

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.requires_fit = True
        return tags


class StandardDescriptor(CompositeDescriptor):
    """The default: magpie, stoichiometry, valence orbitals, ion property and element fractions; 267 features.

    Parameters
    ----------
    impute_nan : bool
        Fill values that the element tables do not have, see `ElementPropertyDescriptor`.

    Notes
    -----
    With extra trees on Matbench's five folds the mean absolute error falls from magpie's 0.4145 to 0.3396 eV (band
    gap), and from 93.2 to 85.3 MPa (yield strength of steels). Cost: about 12 µs per formula, parsing included.

    Examples
    --------
    >>> StandardDescriptor().transform(["Fe2O3", "NaCl"]).shape
    (2, 267)
    """

    def __init__(self, *, impute_nan: bool = True) -> None:
        self.impute_nan = impute_nan

    def _build(self) -> list[CompositionDescriptor]:
        return [
            ElementPropertyDescriptor("magpie", impute_nan=self.impute_nan),
            StoichiometryDescriptor(),
            ValenceOrbitalDescriptor(impute_nan=self.impute_nan),
            IonPropertyDescriptor(impute_nan=self.impute_nan),
            ElementFractionDescriptor(),
        ]

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.requires_fit = False
        return tags


def get_descriptor(descriptor: Any) -> CompositionDescriptor:
    """Turn what a user names as descriptor into a new, unfitted one.

    Parameters
    ----------
    descriptor : str, descriptor, class or sequence of these
        A registered name (entry-point group ``scotl_matgl.descriptors``), an object with `fit`, `transform` and
        `get_feature_names_out`, the class of such objects, or several of these to be put side by side.

    Returns
    -------
    CompositionDescriptor
        A copy where an object was given.

    Raises
    ------
    scotl_matgl.registry.PluginError
        If no descriptor of that name is registered.
    TypeError
        If `descriptor` is none of these.

    Examples
    --------
    >>> get_descriptor("standard").get_feature_names_out()[0]
    'MagpieData minimum Number'
    >>> get_descriptor(["magpie", "fractions"]).transform(["NaCl"]).shape
    (1, 250)
    """
    if isinstance(descriptor, str):
        return cast("CompositionDescriptor", registry.load("descriptors", descriptor)())
    if isinstance(descriptor, Sequence):
        return CompositeDescriptor(list(descriptor))
    if isinstance(descriptor, type):
        descriptor = descriptor()
    if not all(hasattr(descriptor, name) for name in ("fit", "transform", "get_feature_names_out", "get_params")):
        raise TypeError(
            f"{descriptor!r} is not a descriptor: give a registered name ({', '.join(registry.names('descriptors'))}), "
            "a CompositionDescriptor, or a list of these"
        )
    return cast("CompositionDescriptor", clone(descriptor))
