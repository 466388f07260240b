"""Conformance of bridges."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.base import clone
from sklearn.exceptions import NotFittedError

from scotl_matgl import registry
from scotl_matgl.bridges.base import Bridge, BridgeQuality, load_bridge
from scotl_matgl.testing.encoders import require_array
from scotl_matgl.testing.samples import (
    TOLERANCE,
    name_of,
    require,
    require_citations,
    require_equal,
    require_error,
    require_parameters,
    require_pickle,
)


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
    who = name_of(bridge)
    require(isinstance(bridge, Bridge), f"{who} is no Bridge; derive it from scotl_matgl.bridges.base.Bridge")
    require_parameters(bridge, who)
    require_citations(bridge, who)
    rng = np.random.default_rng(0)
    X = rng.normal(size=(160, 6))
    X[:, 5] = 1.0  # an element that the corpus lacks makes a constant column
    Z = (X @ rng.normal(size=(6, 4)) + 0.05 * rng.normal(size=(160, 4)) + 2.0).astype(np.float32)

    require_error(
        lambda: clone(bridge).transform(X), NotFittedError, f"{who}: transform before fit must raise NotFittedError"
    )
    fitted = clone(bridge)
    require(fitted.fit(X, Z) is fitted, f"{who}.fit must return self")
    require(
        getattr(fitted, "n_features_in_", None) == 6 and getattr(fitted, "n_features_out_", None) == 4,
        f"{who}: after fit n_features_in_ must be the width of X and n_features_out_ that of Z",
    )
    expected = fitted.transform(X)
    require_array(expected, 160, 4, f"{who}: transform")
    _check_bridge_quality(fitted, who)
    _check_bridge_rows(fitted, X, expected, who)
    require_equal(
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
    require(
        len(quality.r2) == 4 and quality.n_held_out > 0,
        f"{who}.quality_ has {len(quality.r2)} values of R² from {quality.n_held_out} held-out rows; it must have one "
        "a dimension, from rows that were not fitted on",
    )
    require(
        quality.median_r2 > 0,
        f"{who}: the median held-out R² of a linear relation is {quality.median_r2:.3g}; it must be above 0",
    )


def _check_bridge_rows(fitted: Bridge, X: NDArray[np.float64], expected: NDArray[np.float32], who: str) -> None:
    alone = np.vstack([fitted.transform(row[None]) for row in X[:5]])
    require_equal(alone, expected[:5], TOLERANCE, f"{who}: a row alone is not that among others; rows are independent")
    hard = X[:3].copy()
    hard[0, 0], hard[1, 1], hard[2, 2] = np.nan, 1e6, -1e6
    require(
        np.isfinite(fitted.transform(hard)).all(),
        f"{who}: a missing or extreme descriptor gives values that are not finite; they must be",
    )
    require_error(
        lambda: fitted.transform(X[:, :4]), ValueError, f"{who}: descriptors of another width must be a ValueError"
    )


def _check_refused_rows(
    bridge: Bridge, X: NDArray[np.float64], Z: NDArray[np.float32], expected: NDArray[np.float32], who: str
) -> None:
    lost = np.full((2, Z.shape[1]), np.nan, dtype=np.float32)
    with_refused = clone(bridge).fit(np.vstack([X, X[:2]]), np.vstack([Z, lost]))
    require_equal(
        with_refused.transform(X),
        expected,
        TOLERANCE,
        f"{who}: rows of Z that are NaN (refused crystals) change the fit; they must be left out",
    )
    require(
        getattr(with_refused, "n_refused_", None) == 2,
        f"{who}.n_refused_ is {getattr(with_refused, 'n_refused_', None)}; it must count the rows left out, here 2",
    )


def _check_bridge_files(fitted: Bridge, X: NDArray[np.float64], expected: NDArray[np.float32], who: str) -> None:
    require_equal(
        require_pickle(fitted, who).transform(X), expected, TOLERANCE, f"{who}: it estimates otherwise after pickling"
    )
    kind = getattr(type(fitted), "kind", None)
    try:
        registered = registry.load("bridges", str(kind))
    except registry.PluginError as error:
        raise AssertionError(
            f"{who}.kind is {kind!r}, under which nothing is registered: {error}; it must be the name of its entry "
            f"point in {registry.GROUPS['bridges']}"
        ) from error
    require(
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
            require_equal(estimated, expected, tolerance, f"{who}: it estimates otherwise after saving as {dtype}")
            require(
                again.provenance_ == {"source": "check"} and again.quality_ == fitted.quality_,
                f"{who}: quality or provenance are not the same after saving",
            )
