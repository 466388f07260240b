"""Files of models from strangers: nothing of them is run, followed out of its bounds, or unpacked without end."""

from __future__ import annotations

import copy
import importlib
import io
import json
import pickle
import pkgutil
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import joblib
import numpy as np
import pytest
import skops.io
from sklearn.compose import make_column_transformer
from sklearn.ensemble import RandomForestRegressor
from sklearn.linear_model import Ridge
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer

import scotl_matgl
from scotl_matgl import TransferClassifier, TransferFeaturizer, TransferRegressor, load_example, registry
from scotl_matgl.bridges.base import Bridge
from scotl_matgl.descriptors.base import CompositionDescriptor
from scotl_matgl.exceptions import InputError
from scotl_matgl.sources.cards import CardError, all_cards
from scotl_matgl.transfer.files import OWN_CLASSES

SOURCE = "MEGNet-MP-2018.6.1-Eform"
NUMBERS = iter(range(1, 1_000_000))


def number() -> int:
    return -next(NUMBERS)


def text(value: Any) -> dict[str, Any]:
    return {"__class__": "str", "__module__": "builtins", "__loader__": "JsonNode", "content": json.dumps(value),
            "is_json": True, "__id__": number()}  # fmt: skip


def node(loader: str, name: str, **fields: Any) -> dict[str, Any]:
    module, _, kind = name.rpartition(".")
    return {"__class__": kind, "__module__": module, "__loader__": loader, "__id__": number(), **fields}


def items(*nodes: Any, loader: str = "ListNode") -> dict[str, Any]:
    return node(loader, "builtins.list" if loader == "ListNode" else "builtins.tuple", content=list(nodes))


def mapping(keys: Any = None, **content: Any) -> dict[str, Any]:
    kinds = items(*(node("TypeNode", "builtins.str") for _ in content)) if keys is None else keys
    return node("DictNode", "builtins.dict", content=content, key_types=kinds)


@pytest.fixture(scope="module")
def table() -> Any:
    return load_example().sample(40, random_state=0)


@pytest.fixture(scope="module")
def saved(table: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model of trees, which fits in a second."""
    path = tmp_path_factory.mktemp("saved") / "model.skops"
    head = RandomForestRegressor(3, random_state=0)
    TransferRegressor((), head=head, descriptor="fractions").fit(table["formula"], table["target"]).save(path)
    return path


@pytest.fixture
def forge(saved: Path, tmp_path: Path) -> Callable[..., Path]:
    """Write the file with another schema, and with other content of its entries."""

    def write(change: Callable[[dict[str, Any]], None], entries: dict[str, bytes] | None = None) -> Path:
        path = tmp_path / "forged.skops"
        with zipfile.ZipFile(saved) as old, zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as new:
            schema = json.loads(old.read("schema.json"))
            change(schema)
            for name in old.namelist():
                if name != "schema.json":
                    new.writestr(name, (entries or {}).get(name, old.read(name)))
            new.writestr("schema.json", json.dumps(schema))
        return path

    return write


def attributes(schema: dict[str, Any]) -> dict[str, Any]:
    return schema["content"]["content"]


def put(schema: dict[str, Any], key: str, value: Any) -> None:
    attributes(schema)[key] = value
    schema["content"]["key_types"]["content"].append(node("TypeNode", "builtins.str"))


def found(schema: Any, loader: str, kind: str) -> list[dict[str, Any]]:
    """All nodes of a kind, as they stand in the file."""
    if isinstance(schema, list):
        return [hit for item in schema for hit in found(item, loader, kind)]
    if not isinstance(schema, dict):
        return []
    here = [schema] if (schema.get("__loader__"), schema.get("__class__")) == (loader, kind) else []
    return here + [hit for item in schema.values() for hit in found(item, loader, kind)]


# --- what a file must not run ----------------------------------------------------------------------------------------

# Modules of this package that hold `os`: names that begin like those of our classes.
_OS = [
    f"{module.name}.os"
    for module in pkgutil.walk_packages(scotl_matgl.__path__, "scotl_matgl.")
    if module.name.startswith(("scotl_matgl.descriptors.", "scotl_matgl.storage", "scotl_matgl.registry"))
    and hasattr(importlib.import_module(module.name), "os")
]


def _system(of: str) -> dict[str, Any]:
    return node("MethodNode", of, content={"func": "system", "obj": node("TypeNode", of)})


@pytest.mark.parametrize("of", [*_OS, "scotl_matgl.descriptors.os", "os", "posix"])
def test_a_method_as_the_type_of_a_key_does_not_run(forge: Any, table: Any, tmp_path: Path, of: str) -> None:
    marker = tmp_path / "marker"

    def change(schema: dict[str, Any]) -> None:
        put(schema, "extra_", mapping(items(_system(of)), **{f"touch {marker}": text(1)}))

    _is_refused_and_runs_nothing(forge(change), marker)


@pytest.mark.parametrize("of", [*_OS, "scotl_matgl.descriptors.os"])
@pytest.mark.parametrize("attribute", ["predict", "_read", "_features", "__class__", "fit"])
def test_a_method_of_a_module_as_an_attribute_does_not_run(
    forge: Any, table: Any, tmp_path: Path, of: str, attribute: str
) -> None:
    _is_refused_and_runs_nothing(forge(lambda schema: put(schema, attribute, _system(of))), tmp_path / "marker")


def _is_refused_and_runs_nothing(path: Path, marker: Path) -> None:
    with pytest.raises(InputError) as caught:
        TransferRegressor.load(path).predict(f"touch {marker}")
    assert str(path) in str(caught.value)
    assert not marker.exists()


_CALLS = {
    "partial": lambda cmd: node(
        "PartialNode", "functools.partial",
        content={"func": node("FunctionNode", "os.system"), "args": items(text(cmd), loader="TupleNode"),
                 "kwds": mapping(), "namespace": mapping()},
    ),
    "operator": lambda cmd: {**node("OperatorFuncNode", "operator.methodcaller"),
                             "attrs": items(text("system"), text(cmd), loader="TupleNode")},
    "function": lambda _: node("FunctionNode", "numpy.exp"),
    "reduce": lambda _: node(
        "ConstructorFromReduceNode", "scotl_matgl.descriptors.matminer.version", content=items(text("numpy"))
    ),
    "reduce of a known class": lambda _: node(
        "ConstructorFromReduceNode", "scotl_matgl.descriptors.fractions.StoichiometryDescriptor", content=items()
    ),
    "type": lambda _: node("TypeNode", "subprocess.Popen"),
    "own function as a type": lambda _: node("TypeNode", "scotl_matgl.storage.write_whole"),
    "card": lambda _: node(
        "ObjectNode", "scotl_matgl.sources.cards.SourceCard", content=mapping(loader=text("os:system"))
    ),
    "object of a module": lambda _: node(
        "ObjectNode", "scotl_matgl.descriptors.matminer.SkippedRow", content=mapping()
    ),
    "cached": lambda _: node("CachedNode", "builtins.dict"),
    "sparse": lambda _: node("SparseMatrixNode", "scipy.sparse._csr.csr_matrix", type="scipy", file="schema.json"),
    "void": lambda _: node("NdArrayNode", "numpy.void", type="numpy", file="schema.json"),
    "generator": lambda _: node(
        "RandomGeneratorNode", "numpy.random._generator.Generator",
        content={"bit_generator": mapping(bit_generator=text("seed")), "seed_seq": mapping(pool_size=text(4))},
    ),
    "list of a class": lambda _: node("ListNode", "scotl_matgl.learners.members.Member", content=[]),
    "folder": lambda _: node("ObjectNode", "sklearn.pipeline.Pipeline", content=mapping(memory=text("x"))),
    "state of a list": lambda _: node("ObjectNode", "sklearn.linear_model._ridge.Ridge", content=items()),
}  # fmt: skip


@pytest.mark.parametrize("kind", _CALLS)
def test_nodes_that_call_something_or_name_a_stranger_are_refused(forge: Any, tmp_path: Path, kind: str) -> None:
    marker = tmp_path / "marker"
    path = forge(lambda schema: put(schema, "extra_", _CALLS[kind](f"touch {marker}")))
    _is_refused_and_runs_nothing(path, marker)


@pytest.mark.parametrize("attribute", ["predict", "transfers_", "score", "save", "__dict__", "set_params"])
def test_data_in_the_place_of_a_method_are_refused(forge: Any, attribute: str) -> None:
    path = forge(lambda schema: put(schema, attribute, text(1)))
    if attribute == "transfers_" and not hasattr(TransferRegressor, "transfers_"):
        TransferRegressor.load(path)
        return
    with pytest.raises(InputError, match="in the place of its method"):
        TransferRegressor.load(path)


def test_a_node_that_only_refers_to_another_is_checked_as_what_it_refers_to(forge: Any, tmp_path: Path) -> None:
    def other_keys(schema: dict[str, Any]) -> None:
        kinds = items(node("TypeNode", "builtins.list"))
        put(schema, "a_", kinds)
        put(schema, "b_", mapping(items(node("TypeNode", "builtins.str")) | {"__id__": kinds["__id__"]}, x=text(1)))

    with pytest.raises(InputError, match="keys of a mapping"):
        TransferRegressor.load(forge(other_keys))

    def other_value(schema: dict[str, Any]) -> None:
        folder = text("x")
        put(schema, "a_", folder)
        pipeline = node("ObjectNode", "sklearn.pipeline.Pipeline")
        put(schema, "b_", pipeline | {"content": mapping(memory=text(None) | {"__id__": folder["__id__"]})})

    with pytest.raises(InputError, match="same number"):
        TransferRegressor.load(forge(other_value))

    def circle(schema: dict[str, Any]) -> None:
        outer = items()
        outer["content"] = [items() | {"__id__": outer["__id__"]}]
        put(schema, "a_", outer)

    with pytest.raises(InputError, match="holds itself"):
        TransferRegressor.load(forge(circle))


def test_what_the_user_trusts_is_exact(forge: Any, table: Any) -> None:
    path = forge(lambda schema: put(schema, "extra_", node("FunctionNode", "numpy.exp")))
    for close in ("numpy", "numpy.", "numpy.ex", "numpy.exp2"):
        with pytest.raises(InputError, match=r"numpy\.exp"):
            TransferRegressor.load(path, trusted=[close])
    assert TransferRegressor.load(path, trusted=["numpy.exp"]).extra_ is np.exp


# --- bounds ----------------------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_a_file_is_not_unpacked_without_end(
    forge: Any, saved: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bomb = tmp_path / "bomb.skops"
    with zipfile.ZipFile(bomb, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("schema.json", b"[" * 300_000_000)
    assert bomb.stat().st_size < 400_000
    with pytest.raises(InputError, match="its schema takes 300000000 bytes"):
        TransferRegressor.load(bomb)

    def nested(schema: dict[str, Any]) -> None:
        inner = items()
        for _ in range(150):
            inner = items(inner)
        put(schema, "a_", inner)

    with pytest.raises(InputError, match="more than 100 deep"):
        TransferRegressor.load(forge(nested))
    array = found(json.loads(zipfile.ZipFile(saved).read("schema.json")), "NdArrayNode", "ndarray")[0]

    def repeated(schema: dict[str, Any]) -> None:
        put(schema, "a_", items(*(copy.deepcopy(array) | {"__id__": number()} for _ in range(2_000))))

    path = forge(repeated)
    TransferRegressor.load(path)
    unpacked = sum(entry.file_size for entry in zipfile.ZipFile(path).infolist())
    monkeypatch.setenv("SCOTL_MATGL_MAX_FILE_BYTES", str(16 * unpacked // 10))
    with pytest.raises(InputError, match="SCOTL_MATGL_MAX_FILE_BYTES"):
        TransferRegressor.load(path)
    monkeypatch.setenv("SCOTL_MATGL_MAX_FILE_BYTES", str(unpacked - 1))
    with pytest.raises(InputError, match=f"takes {unpacked} bytes unpacked"):
        TransferRegressor.load(path)


@pytest.mark.parametrize(
    "content", [b"", b"{", b"[]", b"null", b"[" * 100_000, b'{"protocol": 1}', b"\xff\xfe", b"1e999"]
)
def test_a_schema_that_is_none_is_a_sentence(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "odd.skops"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("schema.json", content)
    with pytest.raises(InputError, match=r"is (no saved model|refused)"):
        TransferRegressor.load(path)


# --- trees -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("field", "value"), [("left_child", 0), ("left_child", 10_000), ("right_child", -7),
                                               ("feature", 10**6), ("feature", -5)])  # fmt: skip
def test_a_forged_tree_is_refused(forge: Any, saved: Path, field: str, value: int) -> None:
    with zipfile.ZipFile(saved) as archive:
        tree = found(json.loads(archive.read("schema.json")), "TreeNode", "Tree")[0]
        name = tree["content"]["content"]["nodes"]["file"]
        nodes = np.load(io.BytesIO(archive.read(name)))
    nodes[field][0] = value
    buffer = io.BytesIO()
    np.save(buffer, nodes)
    with pytest.raises(InputError, match="leads out of its arrays"):
        TransferRegressor.load(forge(lambda _schema: None, {name: buffer.getvalue()}))


def test_a_tree_of_more_features_than_its_forest_is_refused(forge: Any) -> None:
    def narrow(schema: dict[str, Any]) -> None:
        for forest in found(schema, "ObjectNode", "RandomForestRegressor"):
            forest["content"]["content"]["n_features_in_"] = text(2)

    with pytest.raises(InputError, match="leads out of its arrays"):
        TransferRegressor.load(forge(narrow))


# --- what is allowed works -------------------------------------------------------------------------------------------


def _subclasses(kind: type) -> set[str]:
    for module in pkgutil.walk_packages(scotl_matgl.__path__, "scotl_matgl."):
        if module.name.startswith(("scotl_matgl.bridges", "scotl_matgl.descriptors")):
            importlib.import_module(module.name)
    names, left = set(), [kind]
    while left:
        for child in left.pop().__subclasses__():
            left.append(child)
            if child.__module__.startswith("scotl_matgl."):
                names.add(f"{child.__module__}.{child.__qualname__}")
    return names


def test_every_class_on_the_list_exists_and_every_descriptor_and_bridge_is_on_it() -> None:
    for name in OWN_CLASSES:
        module, _, kind = name.rpartition(".")
        assert getattr(importlib.import_module(module), kind).__module__ == module
    assert _subclasses(CompositionDescriptor) <= OWN_CLASSES
    assert {name for name in _subclasses(Bridge) if not name.rpartition(".")[2].startswith("_")} <= OWN_CLASSES


@pytest.mark.slow
@pytest.mark.parametrize("descriptor", sorted(set(registry.names("descriptors")) - {"scotl60"}))
def test_models_of_every_descriptor_are_saved(table: Any, tmp_path: Path, descriptor: str) -> None:
    model = TransferRegressor((), head="kernel ridge", descriptor=descriptor)
    _round_trip(model.fit(table["formula"], table["target"]), table, tmp_path)


@pytest.mark.parametrize(
    "options",
    [
        pytest.param({"head": "auto"}, marks=pytest.mark.slow),
        pytest.param({"head": "gradient boosting"}, marks=pytest.mark.slow),
        {"head": "kernel ridge", "combine": "residual"},
        {"head": "kernel ridge", "combine": "embedding", "guard": False, "predictions": False},
        {"head": make_pipeline(FunctionTransformer(), Ridge()), "layer": "final"},
    ],
    ids=str,
)
def test_models_of_every_option_are_saved(table: Any, tmp_path: Path, options: dict[str, Any]) -> None:
    model = TransferRegressor([SOURCE, "Shotgun-BulkModulus-1"], n_sources=2, **options)
    _round_trip(model.fit(table["formula"], table["target"]), table, tmp_path)


@pytest.mark.slow
def test_classifiers_are_saved(table: Any, tmp_path: Path) -> None:
    model = TransferClassifier(SOURCE).fit(table["formula"], table["target"] < -1)
    _round_trip(model, table, tmp_path)


def _round_trip(model: Any, table: Any, folder: Path) -> None:
    """Save and load; dump by skops, pickle and joblib: all predict the same."""
    expected = model.predict(table["formula"])
    model.save(folder / "model.skops")
    joblib.dump(model, folder / "model.joblib")
    data = skops.io.dumps(model)
    for again in (
        type(model).load(folder / "model.skops"),
        skops.io.loads(data, trusted=skops.io.get_untrusted_types(data=data)),
        pickle.loads(pickle.dumps(model)),  # noqa: S301 - our own bytes
        joblib.load(folder / "model.joblib"),
    ):
        np.testing.assert_array_equal(again.predict(table["formula"]), expected)


def test_pipelines_of_scikit_learn_that_hold_our_estimators_are_dumped(table: Any) -> None:
    columns = make_column_transformer((TransferFeaturizer(SOURCE, combine="embedding"), "formula"))
    model = make_pipeline(columns, Ridge()).fit(table[["formula"]], table["target"])
    data = skops.io.dumps(model)
    again = skops.io.loads(data, trusted=skops.io.get_untrusted_types(data=data))
    np.testing.assert_array_equal(again.predict(table[["formula"]]), model.predict(table[["formula"]]))


@pytest.mark.slow
def test_cards_are_dumped_and_a_forged_one_names_no_loader_of_its_own() -> None:
    for card in all_cards():
        data = skops.io.dumps(card)
        assert skops.io.loads(data, trusted=[f"{type(card).__module__}.SourceCard"]) == card
    raw = io.BytesIO(data)
    with zipfile.ZipFile(raw) as archive:
        schema = json.loads(archive.read("schema.json"))
    for value in found(schema, "JsonNode", "str"):
        if value["content"] == json.dumps(card.loader):
            value["content"] = json.dumps("os:system")
    forged = io.BytesIO()
    with zipfile.ZipFile(forged, "w") as archive:
        archive.writestr("schema.json", json.dumps(schema))
    with pytest.raises(CardError, match="its loader is 'os:system'"):
        skops.io.loads(forged.getvalue(), trusted=[f"{type(card).__module__}.SourceCard"])
