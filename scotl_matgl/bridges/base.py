"""The Bridge contract: standardising, held-out quality, files; each kind of bridge adds fitting and predicting."""

from __future__ import annotations

import json
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, ClassVar, Self

import numpy as np
from numpy.typing import ArrayLike, NDArray
from sklearn.base import BaseEstimator, TransformerMixin
from sklearn.utils.validation import check_array, check_is_fitted, validate_data

from scotl_matgl import registry
from scotl_matgl.exceptions import StoredFileError
from scotl_matgl.storage import TensorKind, read_tensors, write_tensors
from scotl_matgl.storage import read_header as read_stored

Array = NDArray[np.float32]

#: In a folder of bridges that were built together: what was done, and what came of it.
MANIFEST = "manifest.json"

_QUALITY = {
    "r2": [float],
    **dict.fromkeys(("median_r2", "mean_r2", "cosine", "cosine_centred"), float),
    **dict.fromkeys(("n_fit", "n_held_out"), int),
}

_PROVENANCE = {
    **dict.fromkeys(("source?", "layer?", "descriptor?", "descriptor_fingerprint?", "corpus_hash?"), str),
    **dict.fromkeys(("n_crystals?", "n_refused?", "n_left_out?"), int),
    "source_weights?": {str: str},
    "left_out?": [str],
    "versions?": {str: str},
}

BRIDGE_FILE = TensorKind(
    "bridge",
    3,  # 1 and 2 carried no hash; those that come with the package are held against their manifest
    {
        "kind": str,
        "dtype?": str,
        "parameters": {str: object},
        "quality": _QUALITY,
        "provenance": _PROVENANCE,
    },
    "build it again with `scotl-matgl bridge build`, or install the package again if it came with it",
)

_EXACT = ("input_mean", "input_scale", "output_mean", "output_scale")

# An eight-bit matrix has beside it, under its name with this ending, the step of each of its columns.
_STEP = ":step"

# A descriptor value this many standard deviations from the corpus mean says "unlike anything the bridge has seen";
# beyond it a network extrapolates without bound, so values are held there.
_CLIP = 8.0


class BridgeError(ValueError):
    """A bridge cannot be fitted, read or used; the message says which, why and what to do."""


@dataclass(frozen=True)
class BridgeQuality:
    """How well a bridge reproduces source embeddings of crystals that it was not fitted on.

    Attributes
    ----------
    r2 : tuple of float
        Coefficient of determination of each embedding dimension; NaN where the dimension is constant.
    median_r2 : float
        Median over the dimensions that are not constant.
    mean_r2 : float
        Explained share of the variance summed over standardised dimensions.
    cosine : float
        Mean cosine between true and estimated embedding, as SCOTL reports it.
    cosine_centred : float
        The same after subtracting the mean embedding of the fitting set, which every crystal shares.
    n_fit, n_held_out : int
        Number of crystals on either side.
    """

    r2: tuple[float, ...]
    median_r2: float
    mean_r2: float
    cosine: float
    cosine_centred: float
    n_fit: int
    n_held_out: int

    @classmethod
    def of(cls, true: Array, estimated: Array, centre: Array, n_fit: int) -> BridgeQuality:
        """Compare two (n, d) embeddings; `centre` (d,) is the mean embedding of the fitting set."""
        true64, estimated64 = true.astype(np.float64), estimated.astype(np.float64)
        residual = np.mean((true64 - estimated64) ** 2, axis=0)
        variance = np.var(true64, axis=0)
        alive = variance > 1e-12 * max(float(variance.max()), 1e-300)
        r2 = np.full(len(variance), np.nan)
        r2[alive] = 1.0 - residual[alive] / variance[alive]

        def cosine(a: NDArray[np.float64], b: NDArray[np.float64]) -> float:
            norms = np.linalg.norm(a, axis=1) * np.linalg.norm(b, axis=1)
            return float(np.mean(np.sum(a * b, axis=1) / np.maximum(norms, 1e-300)))

        return cls(
            r2=tuple(float(value) for value in r2),
            median_r2=float(np.median(r2[alive])) if alive.any() else float("nan"),
            mean_r2=float(np.mean(r2[alive])) if alive.any() else float("nan"),
            cosine=cosine(true64, estimated64),
            cosine_centred=cosine(true64 - centre, estimated64 - centre),
            n_fit=n_fit,
            n_held_out=len(true),
        )


def split_by_group(groups: ArrayLike, fraction: float, random_state: int) -> NDArray[np.bool_]:
    """Mask (n,) of the rows held out: whole groups, in random order, until `fraction` of the rows is reached.

    One group at least stays on the other side.

    Raises
    ------
    BridgeError
        If there is only one group.
    """
    _, codes, counts = np.unique(np.asarray(groups), return_inverse=True, return_counts=True)
    if len(counts) < 2:
        raise BridgeError(
            "all rows with an embedding are of one group, so that none can be held out to measure the quality; "
            "add rows of other groups, or leave groups out"
        )
    order = np.random.default_rng(random_state).permutation(len(counts))
    n_groups = int(np.searchsorted(np.cumsum(counts[order]), fraction * len(codes))) + 1
    n_groups = min(n_groups, len(counts) - 1)
    mask: NDArray[np.bool_] = np.isin(codes, order[:n_groups])
    return mask


class Bridge(TransformerMixin, BaseEstimator, ABC):  # type: ignore[misc]  # scikit-learn is not typed
    """Map composition descriptors X (n, p) to an estimated source embedding Ẑ (n, d).

    Subclasses store their hyperparameters in ``__init__`` (among them `held_out` and `random_state`), and give
    `_fit_standardised`, `_predict_standardised` and the tensors that these need, as ``weights_``.

    Attributes
    ----------
    quality_ : BridgeQuality
        Measured on `held_out` of the rows, whole groups at a time, before the final fit on all rows.
    weights_ : dict of str to ndarray of float32
        What is saved.
    provenance_ : dict
        What the builder recorded (source, layer, hashes, versions); empty until :meth:`save` or :meth:`load`.
    n_features_in_, n_features_out_ : int
        p and d.
    """

    #: Name under which the kind is registered in the group ``scotl_matgl.bridges``.
    kind: ClassVar[str]

    held_out: float
    random_state: int

    def fit(self, X: ArrayLike, Z: ArrayLike, groups: ArrayLike | None = None) -> Self:
        """Measure the quality on held-out groups, then fit on all rows.

        Parameters
        ----------
        X : array-like of shape (n, p)
            Descriptors; NaN is replaced by the column's mean.
        Z : array-like of shape (n, d)
            Source embeddings; rows with NaN (refused crystals) are left out and counted in ``n_refused_``.
        groups : array-like of shape (n,), optional
            Rows of one group are held out together, e.g. the chemical system. Default: each row by itself.

        Returns
        -------
        self

        Raises
        ------
        BridgeError
            If fewer than 20 rows remain, all of them are of one group, or a column of X has no value at all.
        """
        if not 0.0 < self.held_out < 1.0:
            raise BridgeError(f"held_out is {self.held_out!r}; it must lie between 0 and 1")
        inputs: NDArray[np.float64] = validate_data(self, X, dtype=np.float64, ensure_all_finite="allow-nan")
        outputs: Array = check_array(Z, dtype=np.float32, ensure_all_finite="allow-nan", input_name="Z")
        if len(inputs) != len(outputs):
            raise BridgeError(f"X has {len(inputs)} rows and Z has {len(outputs)}; they must be the same crystals")
        rows: NDArray[np.bool_] = np.logical_and.reduce(np.isfinite(outputs), axis=1)
        self.n_refused_ = int(np.sum(~rows))
        if rows.sum() < 20:
            raise BridgeError(f"only {rows.sum()} of {len(rows)} rows have an embedding; at least 20 are needed")
        inputs, outputs = inputs[rows], outputs[rows]
        self.n_features_out_ = outputs.shape[1]
        empty = np.flatnonzero(np.isnan(inputs).all(axis=0))
        if len(empty):
            raise BridgeError(f"the descriptor columns {empty[:5].tolist()} have no value in any row; leave them out")

        labels = np.arange(len(rows)) if groups is None else np.asarray(groups)
        if len(labels) != len(rows):
            raise BridgeError(f"there are {len(labels)} groups for {len(rows)} rows; one for each row is needed")
        mask = split_by_group(labels[rows], self.held_out, self.random_state)
        self._fit_rows(inputs[~mask], outputs[~mask])
        self.quality_ = BridgeQuality.of(
            outputs[mask], self.transform(inputs[mask]), self.weights_["output_mean"], n_fit=int(np.sum(~mask))
        )
        self._fit_rows(inputs, outputs)
        self.provenance_: dict[str, Any] = {}
        return self

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.input_tags.allow_nan = True
        tags.target_tags.required = True
        tags.target_tags.multi_output = True
        tags.target_tags.single_output = False
        return tags

    def transform(self, X: ArrayLike) -> Array:
        """Estimated embedding Ẑ (n, d), float32; numpy only."""
        check_is_fitted(self, "weights_")
        inputs: NDArray[np.float64] = validate_data(
            self, X, dtype=np.float64, ensure_all_finite="allow-nan", reset=False
        )
        return self.estimated(self.standardised(inputs))

    def estimated(self, standardised: Array) -> Array:
        """Estimated embedding Ẑ (n, d) from what :meth:`standardised` returns (n, p).

        Bridges that were fitted on the same crystals standardise alike, so that many of them can share that step; see
        :attr:`input_scaling`.
        """
        found = self._predict_standardised(standardised)
        return np.asarray(found * self.weights_["output_scale"] + self.weights_["output_mean"], dtype=np.float32)

    @property
    def input_scaling(self) -> bytes:
        """What :meth:`standardised` depends on beside the descriptors: mean and deviation of each, as one key."""
        check_is_fitted(self, "weights_")
        return self.weights_["input_mean"].tobytes() + self.weights_["input_scale"].tobytes()

    def _fit_rows(self, X: NDArray[np.float64], Z: Array) -> None:
        # A column may have values on the held-out side only: it is constant then.
        empty = np.isnan(X).all(axis=0)
        known = np.where(empty, 0.0, X)
        mean, scale = np.nanmean(known, axis=0), np.nanstd(known, axis=0)
        # In float32 a constant dimension would get a deviation from rounding, and the fit that noise as its target.
        output_mean, output_scale = Z.mean(axis=0, dtype=np.float64), Z.std(axis=0, dtype=np.float64)
        self.weights_: dict[str, Array] = {
            "input_mean": mean.astype(np.float32),
            # Constant columns (elements that the corpus lacks) carry nothing; a scale of one keeps them near zero.
            "input_scale": np.where(scale > 1e-9 * np.maximum(np.abs(mean), 1e-9), scale, 1.0).astype(np.float32),
            "output_mean": output_mean.astype(np.float32),
            # What varies in the last digit of float32 only is constant.
            "output_scale": np.where(output_scale > 2e-7 * np.abs(output_mean), output_scale, 1.0).astype(np.float32),
        }
        Zs = (Z - self.weights_["output_mean"]) / self.weights_["output_scale"]
        self.weights_ |= self._fit_standardised(self.standardised(X), Zs)

    def n_clipped(self, X: NDArray[np.float64]) -> NDArray[np.intp]:
        """Number (n,) of the descriptors of each row that are unlike the crystals fitted on, and held back."""
        check_is_fitted(self, "weights_")
        return np.asarray((np.abs(self._standard(X)) > _CLIP).sum(axis=1), dtype=np.intp)

    def standardised(self, X: NDArray[np.float64]) -> Array:
        """Descriptors (n, p) as the bridge reads them: standardised, held within eight deviations, float32."""
        return np.clip(self._standard(X), -_CLIP, _CLIP).astype(np.float32)

    def _standard(self, X: NDArray[np.float64]) -> NDArray[np.float64]:
        standard: NDArray[np.float64] = X - self.weights_["input_mean"]
        standard /= self.weights_["input_scale"]
        return np.nan_to_num(standard, copy=False, nan=0.0)

    @abstractmethod
    def _fit_standardised(self, X: Array, Z: Array) -> dict[str, Array]:
        """Fit on standardised rows; return the tensors that prediction needs."""

    @abstractmethod
    def _predict_standardised(self, X: Array) -> Array:
        """Standardised estimate (n, d) from standardised X and ``weights_``; numpy only."""

    def citations(self) -> list[str]:
        """What to cite when the bridge is used."""
        return []

    # -- files ----------------------------------------------------------------------------------------------------

    def save(self, path: str | Path, provenance: Mapping[str, Any] | None = None, *, dtype: str = "float16") -> None:
        """Write one safetensors file, whose header carries kind, parameters, quality and provenance as JSON.

        Parameters
        ----------
        path : path
            Written whole or not at all.
        provenance : mapping, optional
            JSON values: source, layer, source and corpus hash, descriptor and its fingerprint, versions. Default:
            what ``provenance_`` holds.
        dtype : {"float16", "float32", "int8"}
            Precision of the weight matrices; means, scales and biases stay float32 (biases float16 with ``"float16"``).
            ``"int8"`` divides each column by 1/127 of its largest weight and rounds; it changes a network bridge's
            estimates by about 1 % of a standard deviation (docs/measurements.md) at half the size of float16.

        Raises
        ------
        BridgeError
            If `dtype` is another one, or a weight is too large for float16.
        """
        check_is_fitted(self, "weights_")
        if dtype not in ("float16", "float32", "int8"):
            raise BridgeError(f"dtype is {dtype!r}; it must be 'float16', 'float32' or 'int8'")
        if provenance is not None:
            self.provenance_ = dict(provenance)
        header = {
            "kind": self.kind,
            "dtype": dtype,
            "parameters": self.get_params(deep=False),
            "quality": asdict(self.quality_),
            "provenance": self.provenance_,
        }
        largest = max((float(np.abs(v).max(initial=0)) for k, v in self.weights_.items() if k not in _EXACT), default=0)
        if dtype == "float16" and largest > float(np.finfo(np.float16).max):
            raise BridgeError(f"a weight of {largest:g} is too large for float16; save with dtype='float32'")
        tensors: dict[str, NDArray[Any]] = {}
        for name, value in self.weights_.items():
            if dtype == "int8" and name not in _EXACT and value.ndim == 2:
                tensors[name], tensors[name + _STEP] = _in_eight_bits(value)
            else:
                exact = name in _EXACT or dtype == "int8"
                tensors[name] = value if exact else value.astype(dtype)
        try:
            write_tensors(Path(path), tensors, BRIDGE_FILE, header)
        except StoredFileError as error:
            raise BridgeError(str(error)) from error


def _in_eight_bits(matrix: Array) -> tuple[NDArray[np.int8], Array]:
    """Whole numbers from -127 to 127 (p, q) and the step of each column (q,): their product is near the matrix."""
    step = np.abs(matrix).max(axis=0, initial=0) / np.float32(127)
    step[step == 0] = 1.0
    return np.round(matrix / step).astype(np.int8), step.astype(np.float32)


def _as_float32(tensors: Mapping[str, NDArray[Any]]) -> dict[str, Array]:
    """What was saved in fewer bits as the float32 that it stands for."""
    return {
        name: value.astype(np.float32) * tensors[name + _STEP] if name + _STEP in tensors else value.astype(np.float32)
        for name, value in tensors.items()
        if not name.endswith(_STEP)
    }


def read_header(path: str | Path) -> dict[str, Any]:
    """Kind, parameters, quality and provenance of a bridge file, whose hash is compared first.

    Raises
    ------
    BridgeError
        If the file is no bridge, damaged, or of another format.
    """
    try:
        return read_stored(Path(path), BRIDGE_FILE, sha256=_recorded_sha256(Path(path)))
    except StoredFileError as error:
        raise BridgeError(str(error)) from error


def load_bridge(path: str | Path) -> Bridge:
    """Read a bridge that :meth:`Bridge.save` wrote; its kind is looked up among the registered bridges.

    Raises
    ------
    BridgeError
        If the file is no bridge, damaged, one of another version, or its parts do not fit together.
    PluginError
        If its kind is not registered.
    """
    path = Path(path)
    try:
        header, tensors = read_tensors(path, BRIDGE_FILE, sha256=_recorded_sha256(path))
    except StoredFileError as error:
        raise BridgeError(str(error)) from error
    kind: type[Bridge] = registry.load("bridges", header["kind"])
    bridge = kind(**_parameters(path, kind, header["parameters"]))
    bridge.weights_ = _as_float32(tensors)
    bridge.quality_ = BridgeQuality(
        **{**{key: header["quality"][key] for key in _QUALITY}, "r2": tuple(header["quality"]["r2"])}
    )
    bridge.provenance_ = header["provenance"]
    _check_shapes(path, bridge)
    return bridge


def _recorded_sha256(path: Path) -> str:
    """Hash of a bridge by the manifest in its folder; bridges of the first formats carry none themselves."""
    try:
        file = path.parent / MANIFEST
        status = file.stat()
        return _manifest_hashes(file, status.st_size, status.st_mtime_ns).get(path.name, "")
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        return ""


@lru_cache(maxsize=16)
def _manifest_hashes(file: Path, size: int, modified: int) -> dict[str, str]:  # noqa: ARG001 - read again if changed
    return {record["file"]: record["sha256"] for record in json.loads(file.read_bytes())["bridges"]}


def _parameters(path: Path, kind: type[Bridge], given: Mapping[str, Any]) -> dict[str, Any]:
    """Parameters of a bridge from its header: known ones alone, each like its default."""
    defaults = kind().get_params(deep=False)
    found: dict[str, Any] = {}
    for name, value in given.items():
        if name not in defaults:
            raise BridgeError(f"{path} was written by another version (parameter {name!r}); build the bridge again")
        # JSON knows no tuples; parameters are written as in the defaults, which hold no lists.
        found[name] = tuple(value) if isinstance(value, list) else value
        if not _is_like(found[name], defaults[name]):
            raise BridgeError(
                f"{path} has {name} = {value!r:.60}, where the bridge {kind.kind!r} has values like "
                f"{defaults[name]!r}; build the bridge again"
            )
    return found


def _is_like(value: Any, default: Any) -> bool:
    """Whether a parameter has the type of its default; of a tuple, whether the items have that of its first."""
    if default is None:
        return True
    if isinstance(default, tuple):
        return isinstance(value, tuple) and all(_is_like(item, default[0]) for item in value if default)
    if isinstance(default, float):
        return isinstance(value, int | float) and not isinstance(value, bool)
    return type(value) is type(default)


def _check_shapes(path: Path, bridge: Bridge) -> None:
    """Raise unless the tensors are finite, and map descriptors of the recorded width to an embedding of that width."""
    weights = bridge.weights_
    missing = [name for name in _EXACT if name not in weights]
    if missing:
        raise BridgeError(f"{path} lacks the tensors {', '.join(missing)}; build the bridge again")
    odd = [name for name in weights if not np.isfinite(weights[name]).all()]
    if odd:
        raise BridgeError(f"{path} has values that are not finite in {', '.join(odd)}; build the bridge again")
    bridge.n_features_in_, bridge.n_features_out_ = (weights[name].size for name in ("input_mean", "output_mean"))
    expected = [(bridge.n_features_in_,)] * 2 + [(bridge.n_features_out_,)] * 2
    found = [weights[name].shape for name in _EXACT]
    if found != expected or len(bridge.quality_.r2) != bridge.n_features_out_:
        raise BridgeError(f"{path} has tensors of shapes {found}, which do not fit together; build the bridge again")
    try:
        shape = bridge._predict_standardised(np.zeros((1, bridge.n_features_in_), np.float32)).shape
    except Exception as error:  # whatever tensors that do not fit make a bridge raise
        raise BridgeError(f"{path} has tensors that do not fit together ({error}); build the bridge again") from error
    if shape != (1, bridge.n_features_out_):
        raise BridgeError(
            f"{path} estimates {shape[-1]} values where its embedding has {bridge.n_features_out_}; build it again"
        )
