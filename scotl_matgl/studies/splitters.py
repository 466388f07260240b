"""Splitters that hold out clusters, elements or chemical systems."""

from __future__ import annotations

import warnings
from abc import abstractmethod
from collections.abc import Iterator, Sequence
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from sklearn.base import BaseEstimator

from scotl_matgl.chemistry.compositions import Compositions, parse_compositions
from scotl_matgl.chemistry.elements import SYMBOLS
from scotl_matgl.descriptors.composite import get_descriptor
from scotl_matgl.exceptions import InputError
from scotl_matgl.studies.fitting import RowNumbers
from scotl_matgl.vocabulary import check_whole

Scheme = Literal["random", "cluster", "element", "chemical system"]


SCHEMES: tuple[Scheme, ...] = ("random", "cluster", "element", "chemical system")


class FormulaSplitter(BaseEstimator):  # type: ignore[misc]  # scikit-learn is not typed
    """Base of the splitters: scikit-learn cross-validators whose X holds formulas.

    X may be anything that :func:`~scotl_matgl.parse_compositions` reads, and for a data frame of several
    columns `column` names the one of formulas. Rows of equal composition are on the same side of every split.
    """

    column: str | None

    def split(self, X: Any, y: Any = None, groups: Any = None) -> Iterator[tuple[RowNumbers, RowNumbers]]:  # noqa: ARG002
        """Yield row numbers (train, test) of each fold.

        Raises
        ------
        CompositionError
            If a formula cannot be read; the message names the row.
        InputError
            If the formulas do not allow the folds asked for.
        """
        for _, test in self.folds(X):
            yield np.flatnonzero(~test), np.flatnonzero(test)

    def get_n_splits(self, X: Any = None, y: Any = None, groups: Any = None) -> int:  # noqa: ARG002
        """Count the folds, for which the formulas may be needed."""
        if X is None:
            raise InputError(f"{type(self).__name__} needs the formulas X to say how many folds there are")
        return len(self.folds(X))

    def folds(self, X: Any) -> list[tuple[str, NDArray[np.bool_]]]:
        """Name of what is held out in each fold, and whether each row (n,) is among it."""
        if self.column is not None:
            X = X[self.column]
        compositions = parse_compositions(X)
        if len(compositions) < 2:
            raise InputError(f"there are {len(compositions)} formulas; at least two are needed to split")
        return self._folds(compositions)

    @abstractmethod
    def _folds(self, compositions: Compositions) -> list[tuple[str, NDArray[np.bool_]]]: ...


class _Parts(FormulaSplitter):
    """Folds that take each row once, so that their number is known beforehand."""

    n_splits: int
    _rows_are: str

    def get_n_splits(self, X: Any = None, y: Any = None, groups: Any = None) -> int:  # noqa: ARG002
        """Count the folds."""
        return self.n_splits

    def _folds(self, compositions: Compositions) -> list[tuple[str, NDArray[np.bool_]]]:
        check_whole("n_splits", self.n_splits, 2)
        names, group = np.unique(np.array(self._groups(compositions)), return_inverse=True)
        if len(names) < self.n_splits:
            raise InputError(
                f"{self.n_splits} folds need as many {self._rows_are}, and there are {len(names)}; ask for fewer folds"
            )
        part = self._part(compositions, group)
        return [(f"part {number}", part == number) for number in range(self.n_splits)]

    @abstractmethod
    def _groups(self, compositions: Compositions) -> Sequence[str]: ...

    @abstractmethod
    def _part(self, compositions: Compositions, group: RowNumbers) -> RowNumbers: ...


def _balanced(group: RowNumbers, n_splits: int, random_state: int | None) -> RowNumbers:
    """Part (n,) of each row: groups in random order, each to the part with fewest rows so far."""
    counts = np.bincount(group)
    order = np.random.default_rng(random_state).permutation(len(counts))
    # Large groups first, or the last of them could not be evened out.
    order = order[np.argsort(-counts[order], kind="stable")]
    filled, part = np.zeros(n_splits, dtype=np.intp), np.empty(len(counts), dtype=np.intp)
    for index in order:
        part[index] = np.argmin(filled)
        filled[part[index]] += counts[index]
    return part[group]


class _RandomParts(_Parts):
    """Parts of about equal size, drawn at random."""

    def __init__(self, n_splits: int = 5, *, column: str | None = None, random_state: int = 0) -> None:
        self.n_splits = n_splits
        self.column = column
        self.random_state = random_state

    def _part(self, compositions: Compositions, group: RowNumbers) -> RowNumbers:  # noqa: ARG002
        return _balanced(group, self.n_splits, self.random_state)


class CompositionKFold(_RandomParts):
    """Random folds in which rows of equal composition stay together.

    Parameters
    ----------
    n_splits : int, default=5
        Number of folds.
    column : str, optional
        Column of formulas where X has several.
    random_state : int, default=0
        Seed.

    Examples
    --------
    >>> formulas = ["NaCl", "Na2Cl2", "KCl", "LiF"]
    >>> folds = CompositionKFold(n_splits=2).split(formulas)
    >>> all(({0, 1} <= set(test.tolist())) != ({0, 1} <= set(train.tolist())) for train, test in folds)
    True
    """

    _rows_are = "different compositions"

    def _groups(self, compositions: Compositions) -> Sequence[str]:
        return compositions.keys()


class ChemicalSystemKFold(_RandomParts):
    """Folds in which all formulas of the same elements stay together.

    Parameters
    ----------
    n_splits : int, default=5
        Number of folds, filled evenly.
    column : str, optional
        Column of formulas where X has several.
    random_state : int, default=0
        Seed.

    Examples
    --------
    >>> formulas = ["FeO", "Fe2O3", "Fe3O4", "NaCl"]
    >>> sorted(test.tolist() for _, test in ChemicalSystemKFold(n_splits=2).split(formulas))
    [[0, 1, 2], [3]]
    """

    _rows_are = "different chemical systems"

    def _groups(self, compositions: Compositions) -> Sequence[str]:
        return chemical_systems(compositions)


class LeaveOneClusterOut(_Parts):
    """Each fold holds out one cluster of similar formulas: a test of extrapolation.

    Parameters
    ----------
    n_splits : int, default=5
        Number of clusters, hence of folds.
    descriptor : str or CompositionDescriptor, default="standard"
        Clusters are those of k-means on its standardised columns, over the different compositions.
    column : str, optional
        Column of formulas where X has several.
    random_state : int, default=0
        Seed of k-means.

    Notes
    -----
    Clusters are of unequal size. They depend on the whole table, whose targets they do not look at.

    References
    ----------
    B. Meredig et al., Can machine learning identify the next high-temperature superconductor? Examining extrapolation
    performance for materials discovery, Mol. Syst. Des. Eng. 3, 819-825 (2018), doi:10.1039/C8ME00012C.

    Examples
    --------
    >>> oxides, chlorides = ["MgO", "CaO", "SrO", "BaO"], ["LiCl", "NaCl", "KCl", "RbCl"]
    >>> folds = LeaveOneClusterOut(n_splits=2, descriptor="fractions").split(oxides + chlorides)
    >>> sorted(len(test) for _, test in folds)
    [4, 4]
    """

    _rows_are = "different compositions"

    def __init__(
        self, n_splits: int = 5, *, descriptor: Any = "standard", column: str | None = None, random_state: int = 0
    ) -> None:
        self.n_splits = n_splits
        self.descriptor = descriptor
        self.column = column
        self.random_state = random_state

    def _groups(self, compositions: Compositions) -> Sequence[str]:
        return compositions.keys()

    def _part(self, compositions: Compositions, group: RowNumbers) -> RowNumbers:
        from sklearn.cluster import KMeans
        from sklearn.exceptions import ConvergenceWarning
        from sklearn.preprocessing import StandardScaler

        first = np.unique(group, return_index=True)[1]
        described = get_descriptor(self.descriptor).fit(compositions).transform(compositions.take(first))
        columns = StandardScaler().fit_transform(np.nan_to_num(np.asarray(described, dtype=np.float64)))
        means = KMeans(self.n_splits, n_init=10, random_state=self.random_state)
        with warnings.catch_warnings():
            # Fewer clusters than asked for are an error below.
            warnings.simplefilter("ignore", ConvergenceWarning)
            labels = means.fit_predict(columns)
        found = len(np.unique(labels))
        if found < self.n_splits:
            raise InputError(
                f"the formulas fall into {found} clusters, not {self.n_splits}: by the descriptor {self.descriptor!r} "
                "too many of them are the same; ask for fewer clusters"
            )
        return np.asarray(labels[group], dtype=np.intp)


class LeaveOneElementOut(FormulaSplitter):
    """Each fold tests on the formulas that contain an element, and learns from those that do not.

    Parameters
    ----------
    min_formulas : int, default=10
        Elements of fewer different compositions make no fold, and those that leave fewer to learn from neither.
    column : str, optional
        Column of formulas where X has several.

    Notes
    -----
    A formula is tested once for each of its elements that makes a fold. ``folds(X)`` names the elements, in the order
    of their atomic numbers.

    Examples
    --------
    >>> formulas = ["NaCl", "NaF", "KCl", "KF"]
    >>> [(name, test.tolist()) for name, test in LeaveOneElementOut(min_formulas=2).folds(formulas)][0]
    ('F', [False, True, False, True])
    """

    def __init__(self, min_formulas: int = 10, *, column: str | None = None) -> None:
        self.min_formulas = min_formulas
        self.column = column

    def _folds(self, compositions: Compositions) -> list[tuple[str, NDArray[np.bool_]]]:
        check_whole("min_formulas", self.min_formulas, 1)
        present = compositions.dense_fractions() > 0
        first = np.unique(np.array(compositions.keys()), return_index=True)[1]
        counts = present[first].sum(axis=0)
        usable = np.flatnonzero((counts >= self.min_formulas) & (len(first) - counts >= self.min_formulas))
        if not len(usable):
            raise InputError(
                f"no element is in at least {self.min_formulas} of the {len(first)} different compositions and absent "
                f"from as many; lower min_formulas"
            )
        return [(SYMBOLS[index], present[:, index]) for index in usable]


def chemical_systems(compositions: Compositions) -> list[str]:
    """Elements of each formula, such as ``Fe-O``, in order of atomic number."""
    present = compositions.dense_fractions() > 0
    return ["-".join(SYMBOLS[index] for index in np.flatnonzero(row)) for row in present]


def make_splitter(
    scheme: str, *, n_splits: int = 5, min_formulas: int = 10, column: str | None = None, random_state: int = 0
) -> FormulaSplitter:
    """Splitter of a scheme by name.

    Parameters
    ----------
    scheme : {"random", "cluster", "element", "chemical system"}
        See :class:`CompositionKFold`, :class:`LeaveOneClusterOut`, :class:`LeaveOneElementOut` and
        :class:`ChemicalSystemKFold`.
    n_splits : int, default=5
        Number of folds or clusters; of no meaning to "element".
    min_formulas : int, default=10
        For "element".
    column : str, optional
        Column of formulas where X has several.
    random_state : int, default=0
        Seed.

    Raises
    ------
    InputError
        For an unknown name.
    """
    if scheme == "element":
        return LeaveOneElementOut(min_formulas, column=column)
    kinds: dict[str, Any] = {
        "random": CompositionKFold,
        "cluster": LeaveOneClusterOut,
        "chemical system": ChemicalSystemKFold,
    }
    if scheme not in kinds:
        raise InputError(f"there is no scheme {scheme!r}; choose among {', '.join(SCHEMES)}")
    splitter: FormulaSplitter = kinds[scheme](n_splits, column=column, random_state=random_state)
    return splitter
