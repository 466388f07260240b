"""Source cards: every rule of the schema, the JSON form, the search, plugins' zoos, and MatGL's published models."""

from __future__ import annotations

import copy
import dataclasses
import hashlib
import json
import math
import pickle
from collections.abc import Callable
from importlib import metadata
from pathlib import Path
from typing import Any

import pytest

from scotl_matgl import registry
from scotl_matgl.exceptions import PluginWarning
from scotl_matgl.sources import zoo
from scotl_matgl.sources.cards import CardError, SourceCard, all_cards, find, read_cards, select

DIGEST = "0123456789abcdef" * 4

REQUIRED = {"name", "zoo", "modality", "property", "unit", "dataset", "architecture", "layers", "loader", "licence"}
REQUIRED |= {"citation"}
DEFAULTS = {
    "schema": 1,
    "options": {},
    "weights": {},
    "probes": {},
    "parameters": None,
    "n_train": None,
    "error": None,
    "error_unit": "",
    "elements": [],
    "notes": "",
    "trained_on_experiment": False,
    "training_sets": [],
}

# Reference values of the design's table: matgl 2.1.2, DGL, cubic cells CsCl 4.14, NaCl 5.69, MgO 4.25, Si 5.47 Å.
PROBES = {
    "MEGNet-MP-2018.6.1-Eform": (-2.273, -2.114, -3.078, 0.026),
    "MEGNet-MP-2019.4.1-BandGap-mfi-PBE": (4.798, 5.031, 0.313, -0.007),
    "MEGNet-MP-2019.4.1-BandGap-mfi-GLLB-SC": (8.290, 9.258, 3.369, 0.935),
    "MEGNet-MP-2019.4.1-BandGap-mfi-HSE": (6.297, 6.207, 0.250, 0.278),
    "MEGNet-MP-2019.4.1-BandGap-mfi-SCAN": (5.960, 5.773, 5.295, 1.376),
    "M3GNet-MP-2018.6.1-Eform": (-2.219, -2.101, -3.049, 0.011),
    "M3GNet-MP-2021.2.8-PES": (-3.271, -3.368, -5.956, -5.419),
    "M3GNet-MatPES-PBE-v2025.1-PES": (-3.222, -3.369, -5.909, -4.877),
    "M3GNet-MatPES-r2SCAN-v2025.1-PES": (-17.760, -6.873, -8.017, -8.089),
    "TensorNetDGL-MatPES-PBE-v2025.1-PES": (-3.250, -3.397, -5.917, -5.432),
    "TensorNetDGL-MatPES-r2SCAN-v2025.1-PES": (-17.755, -6.873, -8.024, -8.725),
    "QET-MatQ-PES": (-3.262, -3.370, -5.939, -5.412),
}


def fields(**changes: Any) -> dict[str, Any]:
    """Fields of a card in which everything is set."""
    return {
        "name": "Toy-1",
        "zoo": "toys",
        "modality": "structure",
        "property": "band gap",
        "unit": "eV",
        "dataset": "Toy set",
        "architecture": "CGCNN",
        "layers": {"readout": 4, "gc_1": 8},
        "loader": "json:loads",
        "licence": "MIT",
        "citation": "Nobody 2026",
        "options": {"state": 0, "list": [1, 2]},
        "weights": {"model.pt": DIGEST},
        "probes": {"Si": 0.5},
        "parameters": 10,
        "n_train": 20,
        "error": 0.3,
        "error_unit": "eV",
        "elements": ("Si", "O"),
        "notes": "a note",
        "trained_on_experiment": True,
        "training_sets": ("gaps",),
    } | changes


def card(**changes: Any) -> SourceCard:
    return SourceCard(**fields(**changes))


NO_TEXTS: list[tuple[str, Any]] = [
    ("zoo", ""),
    ("property", "  "),
    ("unit", None),
    ("dataset", 3),
    ("architecture", ""),
    ("loader", ""),
    ("licence", "\n"),
    ("citation", []),
]


# --- schema ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        *(({key: value}, f"{key} is {value!r}; it must be a text that is not empty") for key, value in NO_TEXTS),
        ({"modality": "text"}, "modality is 'text'; it must be one of structure, composition"),
        ({"loader": "module.function"}, "loader is 'module.function'; it must read 'module:function'"),
        ({"loader": "a:b:c"}, "loader is 'a:b:c'; it must read 'module:function'"),
        ({"loader": "module:"}, "loader is 'module:'; it must read 'module:function'"),
        ({"loader": ":function"}, "loader is ':function'; it must read 'module:function'"),
        ({"layers": {}}, "layers are []; 'readout' must be the first"),
        ({"layers": {"gc_1": 8, "readout": 4}}, "layers are ['gc_1', 'readout']; 'readout' must be the first"),
        ({"layers": {"readout": 0}}, "layer 'readout' has width 0; it must be a positive integer"),
        ({"layers": {"readout": 4.0}}, "layer 'readout' has width 4.0; it must be a positive integer"),
        ({"layers": {"readout": True}}, "layer 'readout' has width True; it must be a positive integer"),
        ({"layers": ["readout"]}, "layers is ['readout']; it must be a mapping whose keys are texts"),
        ({"options": None}, "options is None; it must be a mapping whose keys are texts"),
        ({"probes": {1: 0.5}}, "probes is {1: 0.5}; it must be a mapping whose keys are texts"),
        ({"weights": "model.pt"}, "weights is 'model.pt'; it must be a mapping whose keys are texts"),
        ({"weights": {"m": "abc"}}, "the sha256 of 'm' is 'abc'; it must be 64 hexadecimal digits"),
        ({"weights": {"m": None}}, "the sha256 of 'm' is None; it must be 64 hexadecimal digits"),
        (
            {"weights": {"m": DIGEST.upper()}},
            f"the sha256 of 'm' is {DIGEST.upper()!r}; it must be 64 hexadecimal digits",
        ),
        ({"probes": {"Si": "0.5"}}, "the probe 'Si' is '0.5'; it must be a finite number"),
        ({"probes": {"Si": math.nan}}, "the probe 'Si' is nan; it must be a finite number"),
        ({"parameters": 0}, "parameters is 0; it must be a positive integer, or left out"),
        ({"n_train": "60000"}, "n_train is '60000'; it must be a positive integer, or left out"),
        ({"error": math.inf}, "error is inf; it must be a finite number, or left out"),
        ({"elements": "SiO"}, "elements are 'SiO'; they must be a list of element symbols"),
        ({"elements": ["Si", "Xx"]}, "elements are ['Si', 'Xx']; they must be a list of element symbols"),
        ({"elements": None}, "elements are None; they must be a list of element symbols"),
        (
            {"options": {"path": Path("x")}},
            f"options are {{'path': {Path('x')!r}}}; JSON cannot hold them: "
            "Object of type PosixPath is not JSON serializable",
        ),
    ],
)
def test_each_violation_is_a_sentence_that_names_the_card(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(CardError) as caught:
        card(**changes)
    assert str(caught.value) == f"source card 'Toy-1': {message}"


@pytest.mark.parametrize("name", ["a/b", "../up", "a--b", "a*", "[ab]", "a  b", ".hidden", "a b ", "a\nb", "-x"])
def test_names_that_would_harm_file_names_are_refused(name: str) -> None:
    with pytest.raises(CardError, match="because files are named after it"):
        card(name=name)
    with pytest.raises(CardError, match=r"a layer is named .* because files are named after it"):
        card(layers={"readout": 1, name: 1})


def test_an_empty_name_is_refused() -> None:
    with pytest.raises(CardError, match=r"^source card '': name is ''; it must be a text that is not empty$"):
        card(name="")


def test_an_untouched_card_has_what_was_given_and_cannot_be_changed() -> None:
    toy = card(elements=["Si", "O"])
    assert toy.width == 4
    assert toy.elements == ("Si", "O")
    assert dict(toy.layers) == {"readout": 4, "gc_1": 8}
    with pytest.raises(TypeError, match="does not support item assignment"):
        toy.weights["other"] = DIGEST  # type: ignore[index]
    with pytest.raises(dataclasses.FrozenInstanceError):
        toy.unit = "meV"  # type: ignore[misc]


def test_a_card_does_not_follow_later_changes_of_the_mappings_it_was_made_of() -> None:
    layers = {"readout": 4}
    toy = card(layers=layers)
    layers["gc_1"] = 8
    assert dict(toy.layers) == {"readout": 4}


# --- copies ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "again",
    [
        lambda toy: SourceCard.from_dict(json.loads(json.dumps(toy.to_dict(), allow_nan=False))),
        lambda toy: pickle.loads(pickle.dumps(toy)),  # noqa: S301 - our own bytes
        copy.deepcopy,
        dataclasses.replace,
    ],
    ids=["json", "pickle", "deepcopy", "replace"],
)
def test_copies_are_equal_in_every_field(again: Callable[[SourceCard], SourceCard]) -> None:
    toy = card()
    other = again(toy)
    assert other is not toy
    assert other == toy
    assert hash(other) == hash(toy)
    assert other.to_dict() == fields(schema=1, elements=["Si", "O"], training_sets=["gaps"])
    assert list(other.layers) == ["readout", "gc_1"]  # the order matters: readout is first


def test_a_subclass_is_pickled_as_what_it_is() -> None:
    assert type(pickle.loads(pickle.dumps(Special(**fields())))) is Special  # noqa: S301 - our own bytes


class Special(SourceCard):
    """A card of a plugin with methods of its own."""


def test_cards_of_equal_names_and_other_content_differ_and_share_a_hash() -> None:
    assert card(unit="meV") != card()
    assert len({card(), card(), card(unit="meV"), card(name="Toy-2")}) == 3
    assert hash(card(unit="meV")) == hash(card())


def test_defaults_are_left_out_of_what_is_needed() -> None:
    required = [key for key in fields() if key in REQUIRED]
    given = {key: fields()[key] for key in required}
    assert SourceCard.from_dict(given).to_dict() == given | DEFAULTS
    for key in required:
        with pytest.raises(CardError, match=f": the fields {key} are missing$"):
            SourceCard.from_dict({name: fields()[name] for name in required if name != key})


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (fields(licens="MIT"), "source card 'Toy-1': unknown field 'licens'; did you mean 'licence'?"),
        (fields(qqq=1), "source card 'Toy-1': unknown field 'qqq'"),
        (fields(schema=2), "source card 'Toy-1': schema 2 is not 1; install a version that understands it"),
        ({}, "source card '?': the fields name, zoo, modality, property, unit, dataset, architecture, layers, loader, "
             "licence, citation are missing"),
        ("Toy-1", "a source card is a mapping of fields to values, not 'Toy-1'"),
    ],
)  # fmt: skip
def test_a_wrong_json_form_is_a_sentence(data: Any, message: str) -> None:
    with pytest.raises(CardError) as caught:
        SourceCard.from_dict(data)
    assert str(caught.value) == message


def test_read_cards_takes_one_or_a_list_and_names_the_file_of_an_error(tmp_path: Path) -> None:
    path = tmp_path / "cards.json"
    path.write_text(json.dumps(card().to_dict()))
    ours = [card().loader]
    assert read_cards(path, loaders=ours) == [card()]
    path.write_text(json.dumps([card().to_dict(), card(name="Toy-2").to_dict()]))
    assert read_cards(str(path), loaders=ours) == [card(), card(name="Toy-2")]
    for text, message in [
        ("{", f"{path} is not valid JSON: "),
        (json.dumps([fields(unit="")]), f"{path}: source card 'Toy-1': unit is ''; it must be a text"),
        ('["Toy-1"]', f"{path}: a source card is a mapping of fields to values, not 'Toy-1'"),
    ]:
        path.write_text(text)
        with pytest.raises(CardError) as caught:
            read_cards(path, loaders=ours)
        assert str(caught.value).startswith(message)
    path.write_bytes(b"\xff\xfe{")
    with pytest.raises(CardError, match="is not valid JSON"):
        read_cards(path)


# --- loading ---------------------------------------------------------------------------------------------------------


def echo(toy: SourceCard, **options: Any) -> tuple[SourceCard, dict[str, Any]]:
    return toy, options


def test_load_calls_the_loader_with_the_card_and_the_options() -> None:
    toy = card(loader=f"{__name__}:echo")
    assert toy.load(check=False) == (toy, {"check": False})


@pytest.mark.parametrize(
    ("loader", "reason"),
    [
        ("absent_module_of_a_zoo:load", "ModuleNotFoundError: No module named 'absent_module_of_a_zoo'"),
        ("json:absent", "AttributeError: module 'json' has no attribute 'absent'"),
    ],
)
def test_a_loader_that_cannot_be_imported_is_a_sentence(loader: str, reason: str) -> None:
    with pytest.raises(CardError) as caught:
        card(loader=loader).load()
    expected = f"source card 'Toy-1': its loader {loader!r} cannot be imported: {reason}; "
    assert str(caught.value).startswith(expected)
    assert len(str(caught.value)) > len(expected)  # followed by a remedy


# --- searching -------------------------------------------------------------------------------------------------------

NAMES = ["MEGNet-Eform", "MEGNet-Gap", "M3GNet-Eform"]
THREE = [card(name=name, architecture=name.split("-")[0], property=name.split("-")[1]) for name in NAMES]


@pytest.mark.parametrize(
    ("sources", "expected"),
    [
        ("all", [0, 1, 2]),
        (["all"], [0, 1, 2]),
        ("MEGNet-Gap", [1]),
        ("megnet-gap", [1]),
        ("*-eform", [0, 2]),
        ("MEGNet-*", [0, 1]),
        (["M3GNet-Eform", "MEGNet-*"], [2, 0, 1]),
        (["*-Eform", "MEGNet-*"], [0, 2, 1]),
        (THREE[1], [1]),
        ([THREE[2], "MEGNet-Gap"], [2, 1]),
        (iter(["MEGNet-Gap"]), [1]),
        ([], []),
    ],
)
def test_select_gives_each_card_once_in_the_order_asked_for(sources: Any, expected: list[int]) -> None:
    assert select(THREE, sources) == [THREE[index] for index in expected]


def test_select_takes_a_card_that_no_zoo_lists() -> None:
    own = card(name="Own")
    assert select(THREE, [own, "MEGNet-Gap"]) == [own, THREE[1]]


@pytest.mark.parametrize(
    ("wanted", "message"),
    [
        ("MEGNet-Gab", "There is no source 'MEGNet-Gab'; did you mean MEGNet-Gap"),
        ("megnet-eforn", "There is no source 'megnet-eforn'; did you mean MEGNet-Eform"),
        ("Gap", "There is no source 'Gap'; did you mean MEGNet-Gap? `scotl-matgl zoo list` shows all 3"),
        ("zzzz", "There is no source 'zzzz'; `scotl-matgl zoo list` shows all 3"),
        (7, "a source is asked for by its name or its card, not by 7"),
    ],
)
def test_a_source_that_is_not_there_is_answered_with_what_is(wanted: Any, message: str) -> None:
    with pytest.raises(CardError) as caught:
        select(THREE, [wanted])
    assert str(caught.value).startswith(message)


@pytest.mark.parametrize(
    ("filters", "expected"),
    [
        ({}, [0, 1, 2]),
        ({"architecture": "megnet"}, [0, 1]),
        ({"architecture": "NET"}, [0, 1, 2]),
        ({"property": "eform"}, [0, 2]),
        ({"property": "eform", "architecture": "MEGNet"}, [0]),
        ({"zoo": "toy", "dataset": "SET", "modality": "structure"}, [0, 1, 2]),
        ({"modality": "composition"}, []),
    ],
)
def test_find_wants_every_text(filters: dict[str, str], expected: list[int]) -> None:
    assert find(THREE, **filters) == [THREE[index] for index in expected]


# --- zoos of plugins -------------------------------------------------------------------------------------------------


def zoo_that_raises() -> list[SourceCard]:
    raise RuntimeError("no network")


def zoo_that_breaks_off() -> Any:
    yield card(name="Half")
    raise OSError("disk")


def zoo_that_exits() -> list[SourceCard]:
    raise SystemExit("licence expired")


def zoo_of_a_non_card() -> list[Any]:
    return [{"name": "dictionary"}, card(name="Beside-a-dictionary")]


def zoo_of_nothing() -> None:
    return None


def zoo_of_a_name_twice() -> list[SourceCard]:
    return [card(name="Twice", unit="eV"), card(name="Twice", unit="meV")]


def zoo_that_claims_a_name_of_ours() -> list[SourceCard]:
    return [card(name="MEGNet-MP-2018.6.1-Eform", zoo="impostor"), card(name="Beside-a-claim")]


not_callable = 3


def test_a_bad_zoo_costs_one_warning_and_only_what_it_listed_wrongly(monkeypatch: pytest.MonkeyPatch) -> None:
    group = registry.GROUPS["zoos"]
    ours = [point for point in metadata.entry_points(group=group) if point.value == "scotl_matgl.sources.zoo:matgl"]
    bad = {
        # 'a...' sorts before 'matgl': a plugin must not win a name of ours by the name of its zoo.
        "a_claim": "zoo_that_claims_a_name_of_ours",
        "exits": "zoo_that_exits",
        "half": "zoo_that_breaks_off",
        "non_card": "zoo_of_a_non_card",
        "nothing": "zoo_of_nothing",
        "number": "not_callable",
        "raises": "zoo_that_raises",
        "twice": "zoo_of_a_name_twice",
    }
    points = [metadata.EntryPoint(name, f"{__name__}:{target}", group) for name, target in bad.items()]
    points.append(metadata.EntryPoint("absent", "absent_zoo_module:zoo", group))
    registered = registry.collect("zoos", [*points, *ours])
    monkeypatch.setattr(registry, "entries", lambda _: registered)

    with pytest.warns(PluginWarning) as caught:
        cards = all_cards()
    assert [item.name for item in cards if item.zoo != "matgl"] == ["Beside-a-claim", "Beside-a-dictionary", "Twice"]
    assert [item for item in cards if item.zoo == "matgl"] == sorted(zoo.matgl(), key=lambda item: item.name)
    assert next(item for item in cards if item.name == "Twice").unit == "eV"

    told = sorted(str(warning.message) for warning in caught)
    assert len(told) == 9
    for name, reason in {
        "absent": "No module named 'absent_zoo_module'",
        "a_claim": "'matgl'",
        "exits": "SystemExit: licence expired",
        "half": "OSError: disk",
        "non_card": "lists a dict, which is no SourceCard",
        "nothing": "TypeError: 'NoneType' object is not iterable",
        "number": "TypeError: 'int' object is not callable",
        "raises": "RuntimeError: no network",
        "twice": "'toys'",
    }.items():
        assert sum(name in text and reason in text for text in told) == 1, name


# --- MatGL's published models ----------------------------------------------------------------------------------------


def test_the_built_in_zoo_lists_twelve_sources_with_the_published_probes() -> None:
    cards = {item.name: item for item in zoo.matgl()}
    assert cards.keys() == PROBES.keys()
    for name, expected in PROBES.items():
        assert [*cards[name].probes] == ["CsCl", "NaCl", "MgO", "Si"]
        # The table gives three digits; rounding half a digit up or down is within 0.0005.
        assert [*cards[name].probes.values()] == pytest.approx(expected, abs=5.1e-4)
        assert cards[name].zoo == "matgl"
        assert cards[name].modality == "structure"


def test_the_four_fidelities_share_their_weights_and_differ_in_the_state() -> None:
    fidelities = find(zoo.matgl(), property="band gap")
    assert [(item.name.rsplit("mfi-")[1], item.options["state"]) for item in fidelities] == [
        ("PBE", 0),
        ("GLLB-SC", 1),
        ("HSE", 2),
        ("SCAN", 3),
    ]
    assert len({tuple(item.weights.items()) for item in fidelities}) == 1


def test_sha256_of_the_weights_is_that_of_the_published_files(assets: Path) -> None:
    seen: dict[Path, str] = {}
    for item in zoo.matgl():
        assert item.weights.keys() == {"model.json", "model.pt", "state.pt"}
        for file, digest in item.weights.items():
            path = assets / "models" / "matgl" / item.options["directory"] / file
            if path not in seen:
                seen[path] = hashlib.sha256(path.read_bytes()).hexdigest()
            assert digest == seen[path], path
    assert len(seen) == 9 * 3
