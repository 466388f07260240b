"""What a saved model may hold, checked before anything of it is made: sizes, kinds of nodes, classes, trees.

skops makes objects from a tree of nodes that the file spells out. Its own check is of names: a file that is allowed to
name a class may still set an attribute in the place of a method, refer to a node of another kind by its number, or
announce more bytes than there is memory. Here the same tree is walked first, without making or importing anything that
is not on the list.
"""

from __future__ import annotations

import importlib
import inspect
import io
import json
import sys
import zipfile
from collections.abc import Collection, Mapping
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from scotl_matgl.exceptions import InputError
from scotl_matgl.storage import MAX_BYTES_VARIABLE, max_bytes

# What the file says of its objects (its schema) may take this share of the bytes that a file may take.
_SCHEMA_SHARE = 16

#: Objects inside each other, objects, and files in the archive.
MAX_DEPTH = 100
MAX_NODES = 5_000_000
MAX_ENTRIES = 500_000

# Nodes that hold values, or objects of classes that are checked by name.
_PLAIN = {
    "DictNode": {"builtins.dict", "collections.OrderedDict"},
    "ListNode": {"builtins.list"},
    "SetNode": {"builtins.set"},
    "TupleNode": {"builtins.tuple"},
    "SliceNode": {"builtins.slice"},
    "BytesNode": {"builtins.bytes"},
    "MaskedArrayNode": {"numpy.ma.MaskedArray", "numpy.ma.core.MaskedArray"},
    "DTypeNode": {"numpy.dtype"},
    "RandomStateNode": {"numpy.random.mtrand.RandomState"},
    "RandomGeneratorNode": {"numpy.random._generator.Generator"},
    "TreeNode": {"sklearn.tree._tree.Tree"},
}
_SCALARS = frozenset(
    f"numpy.{kind.__name__}" for kind in set(np.sctypeDict.values()) if not issubclass(kind, np.object_ | np.void)
)
_KEYS = frozenset(f"builtins.{name}" for name in ("bool", "float", "int", "str")) | _SCALARS
_NAMED_TYPES = _KEYS | {f"builtins.{name}" for name in ("dict", "list", "set", "tuple")}
_LOSSES = frozenset(
    f"sklearn._loss._loss.Cy{name}"
    for name in (
        "AbsoluteError",
        "ExponentialLoss",
        "HalfBinomialLoss",
        "HalfGammaLoss",
        "HalfMultinomialLoss",
        "HalfPoissonLoss",
        "HalfSquaredError",
        "HuberLoss",
        "PinballLoss",
    )
)
_BIT_GENERATORS = ("MT19937", "PCG64", "PCG64DXSM", "Philox", "SFC64")

# These make what the file says by calling something: a function, a class with arguments. A user may name one.
_CALLING = ("FunctionNode", "ConstructorFromReduceNode")

# Attributes that name a folder, from which or to which a later fit would read or write.
_FOLDERS = frozenset({"memory", "checkpoints"})

_TREE_PREDICTOR = "sklearn.ensemble._hist_gradient_boosting.predictor.TreePredictor"


def check_archive(path: Path, known: Collection[str], trusted: Collection[str]) -> set[str]:
    """Check all that a file of skops says, before anything is made of it.

    Parameters
    ----------
    path : path
        The file.
    known : collection of str
        Full names of classes whose objects hold data only.
    trusted : collection of str
        Full names of what the user trusts besides: classes, and functions that are stored as such.

    Returns
    -------
    set of str
        Names in the file that neither are `known` or `trusted` nor belong to Python, numpy or scikit-learn.

    Raises
    ------
    InputError
        If the file is no such archive, larger unpacked than :func:`~scotl_matgl.storage.max_bytes`, deeper than
        :data:`MAX_DEPTH`, or holds what a model needs not: methods, functions, calls, attributes in the place of
        methods, names of folders, trees whose branches lead out of their arrays.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            sizes = _sizes(archive, path)
            walk = _Walk(archive, sizes, frozenset(known), frozenset(trusted))
            walk.node(json.loads(archive.read("schema.json")))
    except _Refused as error:
        raise InputError(f"{path} is refused: {error}") from None
    except InputError:
        raise
    except (MemoryError, Exception) as error:  # whatever a file that is no model makes the readers raise
        raise InputError(f"{path} is no saved model: {str(error) or type(error).__name__}") from error
    return walk.unknown


class _Refused(Exception):  # noqa: N818 - no error of the program
    """Something in the file is not allowed; says what."""


def _sizes(archive: zipfile.ZipFile, path: Path) -> dict[str, int]:
    """Unpacked size of each file in the archive: zipfile reads no more than an entry announces."""
    entries = archive.infolist()
    sizes = {entry.filename: entry.file_size for entry in entries}
    if "schema.json" not in sizes:
        raise InputError(f"{path} is no saved model: it has no schema.json")
    if len(entries) > MAX_ENTRIES or len(sizes) < len(entries):
        raise _Refused(f"it has {len(entries)} entries, {len(sizes)} of different names; allowed are {MAX_ENTRIES}")
    limit = max_bytes()
    if (total := sum(sizes.values())) > limit:
        raise _Refused(f"it takes {total} bytes unpacked, {MAX_BYTES_VARIABLE} allows {limit}")
    if sizes["schema.json"] > limit // _SCHEMA_SHARE:
        raise _Refused(
            f"its schema takes {sizes['schema.json']} bytes unpacked, a {_SCHEMA_SHARE}th of {MAX_BYTES_VARIABLE} is "
            f"{limit // _SCHEMA_SHARE}"
        )
    return sizes


class _Walk:
    """One pass over the nodes of a file; nothing is made of them, and no module imported that is not on the list."""

    def __init__(
        self, archive: zipfile.ZipFile, sizes: Mapping[str, int], known: frozenset[str], trusted: frozenset[str]
    ) -> None:
        self.archive = archive
        self.sizes = sizes
        self.trusted = trusted
        self.classes = known | trusted
        self.types = _NAMED_TYPES | trusted
        self.unknown: set[str] = set()
        self.bytes_left = max_bytes()
        # skops takes the first node of a number for all others of that number, whatever these say.
        self.first: dict[int, dict[str, Any]] = {}
        self.checked: set[tuple[int, tuple[int, ...]]] = set()
        self.open: set[int] = set()
        self.steps = 0

    def node(self, state: Any, widths: tuple[int, ...] = (), depth: int = 0) -> None:
        """Check a node and all below it; `widths` are the numbers of features that the forests around it announce."""
        number = state.get("__id__") or 0
        if not isinstance(number, int):
            raise _Refused("the number of an object is no number")
        if number in self.open:
            raise _Refused("an object holds itself")
        first = self.first.get(number, state)
        if _kind(first) != _kind(state):
            raise _Refused("two different objects have the same number")
        if (number, widths) in self.checked:
            return
        self.steps += 1
        if depth > MAX_DEPTH or self.steps > MAX_NODES:
            raise _Refused(f"its objects are nested more than {MAX_DEPTH} deep, or more than {MAX_NODES}")
        if number:
            self.first[number] = first
            self.checked.add((number, widths))
            self.open.add(number)
        state = first
        self._allow(state)
        if "file" in state:
            self.bytes_left -= self.sizes[state["file"]]
            if self.bytes_left < 0:
                raise _Refused(f"its arrays take more bytes than {MAX_BYTES_VARIABLE} allows")
        below = self._object(state, widths) if state["__loader__"] == "ObjectNode" else widths
        for child in _children(state):
            self.node(child, below, depth + 1)
        self._settle(state, below)
        self.open.discard(number)

    def _is(self, state: dict[str, Any]) -> dict[str, Any]:
        """Return the node that skops takes for a node."""
        return self.first.get(state.get("__id__") or 0, state)

    def _settle(self, state: dict[str, Any], widths: tuple[int, ...]) -> None:
        """Check what depends on the nodes below, once it is known which ones they are."""
        loader, name = state["__loader__"], f"{state['__module__']}.{state['__class__']}"
        if loader == "DictNode":
            types = self._is(state["key_types"])
            if types["__loader__"] != "ListNode" or any(
                kind["__loader__"] != "TypeNode" or f"{kind['__module__']}.{kind['__class__']}" not in _KEYS
                for kind in types["content"]
            ):
                raise _Refused("the keys of a mapping are not made by plain types")
        elif loader == "RandomGeneratorNode":
            bits, seed = (self._is(state["content"][key])["content"] for key in ("bit_generator", "seed_seq"))
            if _value(bits["bit_generator"]) not in _BIT_GENERATORS or _value(seed["pool_size"]) != 4:
                raise _Refused("it holds a random generator of an unknown kind")
        elif loader == "TreeNode":
            self._tree(state, widths)
        elif loader == "ObjectNode" and name == _TREE_PREDICTOR and name not in self.trusted:
            self._predictor(self._is(state["content"])["content"], widths)

    def _allow(self, state: Mapping[str, Any]) -> None:
        """Refuse kinds of nodes that make more than values, and note classes that are not known."""
        loader, name = state["__loader__"], f"{state['__module__']}.{state['__class__']}"
        if loader == "ObjectNode":
            if name not in self.classes and _loaded(name) is None:
                self.unknown.add(name)
        elif loader == "NdArrayNode":
            allowed = name == "numpy.ndarray" or name in _SCALARS
            if not allowed:
                raise _Refused(f"it holds an array of the type {name}")
        elif loader == "TypeNode":
            if name not in self.types:
                self.unknown.add(name)
        elif loader == "JsonNode":
            if not isinstance(state["content"], str):
                raise _Refused("a value in it is no JSON")
        elif loader in _CALLING:
            if name not in self.trusted:
                raise _Refused(f"it calls or holds {name}; if you know where it comes from, trusted=[{name!r}] lets it")
        elif loader == "LossNode":
            if name not in _LOSSES:
                raise _Refused(f"it holds a loss of the type {name}")
        elif name not in _PLAIN.get(loader, ()) and not (loader == "TupleNode" and name in self.trusted):
            raise _Refused(f"it holds a {loader} of {name}, which a model needs not")

    def _object(self, state: dict[str, Any], widths: tuple[int, ...]) -> tuple[int, ...]:
        """Check the attributes of an object; the widths for what is below it."""
        name, content = f"{state['__module__']}.{state['__class__']}", self._is(state.get("content") or {})
        empty = not content or (content["__loader__"] == "JsonNode" and content["content"] == "null")
        if empty or name in self.unknown:
            return widths
        if content["__loader__"] != "DictNode":
            if name in self.trusted:
                return widths
            raise _Refused(f"the state of {name} is no mapping of attributes")
        attributes = content["content"]
        kind = _loaded(name) or getattr(importlib.import_module(state["__module__"]), state["__class__"])
        for key in attributes:
            found = inspect.getattr_static(kind, key, None)
            takes_place = callable(found) or (
                hasattr(type(found), "__get__") and not isinstance(found, cached_property)
            )
            if takes_place or (key.startswith("__") and key.endswith("__")):
                raise _Refused(f"an attribute of {name} stands in the place of its method {key!r}")
            if key in _FOLDERS and attributes[key] != attributes[key] | {"__loader__": "JsonNode", "content": "null"}:
                raise _Refused(f"{key} of {name} names a folder, to which a fit would write; save it without")
        module = str(state["__module__"])
        forest = module.startswith(("sklearn.ensemble.", "sklearn.tree.")) and "n_features_in_" in attributes
        # These draw features for each of their estimators, which have their own widths.
        if forest and module not in ("sklearn.ensemble._bagging", "sklearn.ensemble._iforest"):
            return (*widths, int(_value(attributes["n_features_in_"])))
        return widths

    def _tree(self, state: dict[str, Any], widths: tuple[int, ...]) -> None:
        """Check that a decision tree leads neither out of its array, nor out of a row of features, nor in circles."""
        content = self._is(state["content"])["content"]
        nodes = self._array(content["nodes"])
        n_features = int(_value(self._is(state["__reduce__"]["args"])["content"][0]))
        inner = nodes["left_child"] != -1
        sound = _in_order(nodes["left_child"], nodes["right_child"], inner)
        sound &= bool(((nodes["feature"] >= 0) & (nodes["feature"] < n_features))[inner].all())
        if not sound or _value(content["node_count"]) != len(nodes) or not widths or {*widths} != {n_features}:
            raise _Refused("a decision tree in it leads out of its arrays")

    def _predictor(self, attributes: Mapping[str, Any], widths: tuple[int, ...]) -> None:
        """The same check for a tree of gradient boosting by histograms."""
        nodes = self._array(attributes["nodes"])
        inner = nodes["is_leaf"] == 0
        sound = _in_order(nodes["left"].astype(np.int64), nodes["right"].astype(np.int64), inner)
        sound &= bool((nodes["feature_idx"] < min(widths, default=0))[inner].all())
        if not sound or (nodes["feature_idx"][inner] < 0).any() or (nodes["is_categorical"] != 0).any():
            raise _Refused(f"a tree of gradient boosting in it leads out of its arrays; trusted=[{_TREE_PREDICTOR!r}]")

    def _array(self, state: dict[str, Any]) -> Any:
        """Array of a node."""
        return np.load(io.BytesIO(self.archive.read(self._is(state)["file"])), allow_pickle=False)


def _loaded(name: str) -> type | None:
    """Class of scikit-learn by its full name, if its module is loaded: skops has loaded all that it trusts."""
    module, _, kind = name.rpartition(".")
    found = getattr(sys.modules.get(module), kind, None) if module.startswith("sklearn.") else None
    return found if isinstance(found, type) else None


def _children(state: Mapping[str, Any]) -> list[Any]:
    """Nodes directly below a node."""
    loader, content = state["__loader__"], state.get("content")
    if loader == "DictNode":
        return [state["key_types"], *state["content"].values()]
    if loader in ("ListNode", "SetNode", "TupleNode"):
        return list(state["content"])
    if loader == "NdArrayNode":
        return [] if state["type"] == "numpy" else [*state["content"], state["shape"]]
    if loader in ("TreeNode", "LossNode"):
        return [state["content"], state["__reduce__"]["args"]]
    if loader in ("RandomGeneratorNode", "MaskedArrayNode"):
        return list(state["content"].values())
    if loader in ("ObjectNode", "RandomStateNode", "DTypeNode", "ConstructorFromReduceNode") and content is not None:
        return [content]
    return []


def _kind(state: Mapping[str, Any]) -> tuple[Any, ...]:
    """What two nodes of one number must have in common."""
    plain = state["content"] if state["__loader__"] == "JsonNode" else None
    return state["__loader__"], state["__module__"], state["__class__"], plain


def _value(state: Mapping[str, Any]) -> Any:
    """Plain value of a node."""
    if state["__loader__"] != "JsonNode":
        raise _Refused("a number in it is none")
    return json.loads(state["content"])


def _in_order(left: Any, right: Any, inner: Any) -> bool:
    """Whether the branches of all inner nodes lead to later nodes of the same array."""
    rows = np.arange(len(inner))
    return all(bool(((side > rows) & (side < len(rows)))[inner].all()) for side in (left, right))
