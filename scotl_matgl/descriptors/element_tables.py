"""Element tables that descriptors look values up in: matminer's, exported once, and SCOTL's, read from its file."""

from __future__ import annotations

import functools
import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np
from numpy.typing import NDArray

#: Number of elements, and of rows of every table: element Z stands in row Z - 1.
N_ELEMENTS = 118

#: Environment variable that names the folder of third-party data.
ASSETS_VARIABLE = "SCOTL_MATGL_ASSETS"

_SCOTL_TABLE = Path("reference", "scotl_element_table.json")


@dataclass(frozen=True, eq=False)
class ElementTable:
    """Properties of the elements, with and without the values that stand in for missing ones.

    Attributes
    ----------
    source : str
        Prefix of the feature names, for matminer's tables the name of its data class.
    properties : tuple of str
        The p column names.
    statistics : tuple of str
        Statistics over the elements of a formula that are taken by default, as matminer names them.
    raw : ndarray of float64, shape (118, p)
        NaN where the source has no value.
    imputed : ndarray of float64, shape (118, p)
        The same with missing values filled, mostly by the mean over all elements.
    known : ndarray of bool, shape (118, p)
        True where `imputed` holds the source's own value.
    undefined : ndarray of bool, shape (118,)
        Elements for which the source, not imputing, refuses the whole formula.
    """

    source: str
    properties: tuple[str, ...]
    statistics: tuple[str, ...]
    raw: NDArray[np.float64]
    imputed: NDArray[np.float64]
    known: NDArray[np.bool_]
    undefined: NDArray[np.bool_]

    def values(self, impute_nan: bool) -> NDArray[np.float64]:
        """Return `imputed` or `raw`, shape (118, p)."""
        return self.imputed if impute_nan else self.raw

    def select(self, properties: tuple[str, ...]) -> ElementTable:
        """Return a table of some of the columns, in the order given; ``KeyError`` where one is not there."""
        missing = [name for name in properties if name not in self.properties]
        if missing:
            raise KeyError(f"The table {self.source} has no column {missing[0]!r}; it has {', '.join(self.properties)}")
        columns = [self.properties.index(name) for name in properties]
        return ElementTable(
            self.source,
            properties,
            self.statistics,
            _frozen(self.raw[:, columns]),
            _frozen(self.imputed[:, columns]),
            _frozen(self.known[:, columns]),
            self.undefined,
        )


@dataclass(frozen=True, eq=False)
class ElementTables:
    """Content of the exported file.

    Attributes
    ----------
    presets : mapping of str to ElementTable
        matminer's ``ElementProperty`` presets: ``magpie``, ``deml``, ``matscholar_el``, ``megnet_el``, ``matminer``.
    oxidation_states : tuple of ndarray of float64
        pymatgen's common oxidation states of the element Z at ``[Z - 1]``; empty for most noble gases and from Db on.
    versions : mapping of str to str
        Versions of matminer and pymatgen that the values come from.
    """

    presets: Mapping[str, ElementTable]
    oxidation_states: tuple[NDArray[np.float64], ...]
    versions: Mapping[str, str]


@functools.cache
def load_element_tables() -> ElementTables:
    """Read the tables that are installed with the package; a few milliseconds once per process.

    Returns
    -------
    ElementTables
        Its arrays are read-only: all callers share them.

    Notes
    -----
    Source: L. Ward et al., Comput. Mater. Sci. 152, 60 (2018); S. P. Ong et al., Comput. Mater. Sci. 68, 314 (2013).
    ``tools/export_element_tables.py`` writes the file.

    Examples
    --------
    >>> tables = load_element_tables()
    >>> magpie = tables.presets["magpie"]
    >>> float(magpie.raw[25, magpie.properties.index("MeltingT")])
    1811.0
    """
    file = resources.files("scotl_matgl") / "data" / "element_tables.npz"
    with resources.as_file(file) as path, np.load(path, allow_pickle=False) as arrays:
        meta: dict[str, Any] = json.loads(arrays["meta"].tobytes().decode())
        presets = {}
        for name, described in meta["presets"].items():
            raw = arrays[f"{name}/values"]
            index = arrays[f"{name}/imputed_index"]
            imputed = raw.copy()
            imputed.flat[index] = arrays[f"{name}/imputed_values"]
            known = np.ones(raw.shape, dtype=bool)
            known.flat[index] = False
            presets[name] = ElementTable(
                described["source"],
                tuple(described["properties"]),
                tuple(described["statistics"]),
                _frozen(raw),
                _frozen(imputed),
                _frozen(known),
                _frozen(arrays[f"{name}/undefined"]),
            )
        states = np.split(arrays["oxidation_states"].astype(np.float64), arrays["oxidation_offsets"][1:-1])
    return ElementTables(MappingProxyType(presets), tuple(map(_frozen, states)), MappingProxyType(meta["versions"]))


def load_scotl_table(path: str | os.PathLike[str] | None = None) -> ElementTable:
    """Read the 118 × 20 scaled element attributes behind SCOTL's composition vector.

    Parameters
    ----------
    path : path-like, optional
        A JSON file with ``columns``, ``scaled_f64`` (118 × 20) and ``raw_nan_as_none`` (118 × 20, null where the
        attribute is unknown and 0 was scaled instead). By default ``reference/scotl_element_table.json`` in the folder
        that the environment variable ``SCOTL_MATGL_ASSETS`` names.

    Returns
    -------
    ElementTable
        `raw` equals `imputed`: SCOTL knows no missing values. A column name that repeats gets a number.

    Raises
    ------
    FileNotFoundError
        If there is no such file, or neither `path` nor the environment variable is given.
    ValueError
        If the file is not such a table.
    """
    if path is None:
        assets = os.environ.get(ASSETS_VARIABLE)
        if not assets:
            raise FileNotFoundError(
                "SCOTL's element table is not part of this package: give its path (table=...), or set the environment "
                f"variable {ASSETS_VARIABLE} to the folder that holds {_SCOTL_TABLE.as_posix()}"
            )
        path = Path(assets).expanduser() / _SCOTL_TABLE
    file = Path(path)
    if not file.is_file():
        raise FileNotFoundError(
            f"SCOTL's element table is not at {file}: give the path of scotl_element_table.json (table=...), or set "
            f"the environment variable {ASSETS_VARIABLE} to the folder that holds {_SCOTL_TABLE.as_posix()}"
        )
    return _read_scotl_table(file, file.stat().st_mtime_ns)


@functools.lru_cache(maxsize=4)
def _read_scotl_table(file: Path, _modified: int) -> ElementTable:
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
        columns = content["columns"]
        scaled = np.array(content["scaled_f64"], dtype=np.float64)
        known = np.array([[value is not None for value in row] for row in content["raw_nan_as_none"]])
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(
            f"{file} is not SCOTL's element table ({type(error).__name__}: {error}); it needs the entries 'columns', "
            "'scaled_f64' and 'raw_nan_as_none'"
        ) from error
    if scaled.shape != (N_ELEMENTS, len(columns)) or known.shape != scaled.shape or not np.isfinite(scaled).all():
        raise ValueError(
            f"{file} is not SCOTL's element table: 'scaled_f64' must be {N_ELEMENTS} rows of {len(columns)} finite "
            f"numbers, it has the shape {scaled.shape}"
        )
    names = [name if columns.index(name) == i else f"{name} ({i})" for i, name in enumerate(columns)]
    undefined = np.zeros(N_ELEMENTS, dtype=bool)
    table = _frozen(scaled)
    return ElementTable(
        "SCOTL", tuple(names), ("mean", "minimum", "maximum"), table, table, _frozen(known), _frozen(undefined)
    )


def _frozen(array: NDArray[Any]) -> NDArray[Any]:
    array.flags.writeable = False
    return array
