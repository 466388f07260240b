"""Entry points: what is found, which of two wins, and what a user reads when a plugin is broken."""

from __future__ import annotations

import itertools
import subprocess
import sys
import warnings
from collections.abc import Callable, Iterator
from importlib import metadata
from pathlib import Path

import pytest

from scotl_matgl import registry
from scotl_matgl.bridges.base import Bridge
from scotl_matgl.exceptions import PluginWarning
from scotl_matgl.registry import GROUPS, PluginError, Registration, collect

Install = Callable[..., None]


@pytest.fixture
def install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Install]:
    """Install a distribution for the length of a test: metadata, entry points and modules on a folder of sys.path."""
    before = set(sys.modules)

    def add(distribution: str, entry_points: dict[str, dict[str, str]], named: bool = True, **modules: str) -> None:
        site = tmp_path / distribution
        info = site / f"{distribution}-2.5.dist-info"
        info.mkdir(parents=True)
        if named:
            (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {distribution}\nVersion: 2.5\n")
        lines = []
        for kind, targets in entry_points.items():
            lines += [f"[{GROUPS[kind]}]", *(f"{name} = {target}" for name, target in targets.items())]
        (info / "entry_points.txt").write_text("\n".join(lines))
        for module, source in modules.items():
            (site / f"{module}.py").write_text(source)
        monkeypatch.syspath_prepend(str(site))
        registry.refresh()

    registry.refresh()
    yield add
    registry.refresh()
    for module in set(sys.modules) - before:
        if str(tmp_path) in str(getattr(sys.modules[module], "__file__", "")):
            del sys.modules[module]


def by_hand(value: str, name: str = "broken", kind: str = "estimators") -> Registration:
    """The registration of an entry point that belongs to no distribution."""
    return collect(kind, [metadata.EntryPoint(name, value, GROUPS[kind])])[name]


# --- loading ----------------------------------------------------------------------------------------------------------


def test_a_missing_module_is_told_with_the_package_to_install() -> None:
    with pytest.raises(PluginError) as caught:
        by_hand("pkg_that_is_absent.mod:obj").load()
    assert str(caught.value) == (
        "estimator 'broken' of unknown unknown (pkg_that_is_absent.mod:obj) cannot be imported: ModuleNotFoundError: "
        "No module named 'pkg_that_is_absent'; install the missing package 'pkg_that_is_absent', or remove the "
        "distribution unknown"
    )
    assert isinstance(caught.value.__cause__, ModuleNotFoundError)


@pytest.mark.parametrize(
    ("source", "target", "reason"),
    [
        ("raise ValueError('bad table')", "obj", "ValueError: bad table; reinstall or remove the distribution acme"),
        ("import absent_dep", "obj", "install the missing package 'absent_dep', or remove the distribution acme"),
        ("other = 1", "obj", "AttributeError: module 'acme_mod' has no attribute 'obj'; reinstall or remove"),
        ("import sys; sys.exit('no licence')", "obj", "SystemExit: no licence; reinstall or remove"),
        ("def broken(:", "obj", "SyntaxError: "),
        ("class Odd(BaseException): pass\nraise Odd('odd')", "obj", "Odd: odd; reinstall or remove"),
    ],
)
def test_whatever_an_import_raises_is_one_sentence(install: Install, source: str, target: str, reason: str) -> None:
    install("acme", {"bridges": {"odd": f"acme_mod:{target}"}}, acme_mod=source)
    with pytest.raises(PluginError) as caught:
        registry.load("bridges", "odd")
    message = str(caught.value)
    assert message.startswith(f"bridge 'odd' of acme 2.5 (acme_mod:{target}) cannot be imported: ")
    assert reason in message


def test_an_entry_point_that_is_no_module_and_object_is_a_sentence() -> None:
    with pytest.raises(PluginError, match=r"estimator 'broken' of unknown unknown \(no module at all\)"):
        by_hand("no module at all").load()


def test_ctrl_c_during_an_import_is_not_taken_for_a_broken_plugin(monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(_: metadata.EntryPoint) -> None:
        raise KeyboardInterrupt

    # Where the package importlib_metadata is imported (dask does), entry points are of its own class.
    monkeypatch.setattr(type(registry.entries("bridges")["ridge"].entry_point), "load", interrupted)
    with pytest.raises(KeyboardInterrupt):
        registry.load("bridges", "ridge")


# --- which one -------------------------------------------------------------------------------------------------------


def test_of_two_claims_the_first_distribution_wins_in_every_order(install: Install) -> None:
    for name in ("zeta", "alpha", "midway"):
        install(name, {"descriptors": {"twice": f"{name}_mod:obj"}}, **{f"{name}_mod": f"obj = {name!r}"})
    found = [point for point in metadata.entry_points(group=GROUPS["descriptors"]) if point.name == "twice"]
    assert len(found) == 3
    for order in itertools.permutations(found):
        with pytest.warns(PluginWarning) as caught:
            chosen = collect("descriptors", order)
        assert chosen["twice"].load() == "alpha"
        assert [str(w.message) for w in caught] == [
            "descriptor 'twice' is registered more than once: alpha 2.5 (alpha_mod:obj) is used, "
            "midway 2.5 (midway_mod:obj), zeta 2.5 (zeta_mod:obj) is ignored"
        ]


def test_a_plugin_cannot_take_the_place_of_a_built_in(install: Install) -> None:
    install("aaa", {"bridges": {"ridge": "aaa_mod:obj"}}, aaa_mod="obj = 'hijacked'")
    with pytest.warns(PluginWarning, match=r"bridge 'ridge' .*: scotl-matgl .* is used, aaa 2\.5 .* is ignored"):
        entry = registry.entries("bridges")["ridge"]
    assert entry.distribution == "scotl-matgl"
    assert entry.load().__module__ == "scotl_matgl.bridges.ridge"


def test_the_same_entry_point_listed_twice_is_no_clash() -> None:
    point = metadata.EntryPoint("again", "json:loads", GROUPS["zoos"])
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        chosen = collect("zoos", [point, metadata.EntryPoint("again", "json:loads", GROUPS["zoos"])])
    assert list(chosen) == ["again"]


@pytest.mark.parametrize("backport", [False, True])
def test_a_distribution_without_metadata_is_unknown_and_still_sorts(install: Install, backport: bool) -> None:
    if backport:  # takes the place of the standard library's finder of distributions
        pytest.importorskip("importlib_metadata")
    install("remnant", {"zoos": {"clash": "json:loads"}}, named=False)
    install("whole", {"zoos": {"clash": "json:dumps"}})
    with pytest.warns(PluginWarning, match="unknown unknown"):
        entry = registry.entries("zoos")["clash"]
    assert entry.origin == "unknown unknown (json:loads)"


# --- listing ---------------------------------------------------------------------------------------------------------


def test_listing_imports_nothing(install: Install) -> None:
    install("acme", {"zoos": {"lazy": "acme_lazy:zoo"}}, acme_lazy="zoo = 1")
    assert "lazy" in registry.names("zoos")
    assert registry.entries("zoos")["lazy"].origin == "acme 2.5 (acme_lazy:zoo)"
    assert "acme_lazy" not in sys.modules
    assert registry.load("zoos", "lazy") == 1
    assert "acme_lazy" in sys.modules


def test_listing_every_kind_in_a_new_process_leaves_heavy_packages_out() -> None:
    heavy = "torch dgl matgl matminer pymatgen sklearn scipy pandas"
    code = (
        "import sys; from scotl_matgl import registry; [registry.names(kind) for kind in registry.GROUPS]; "
        f"print([name for name in {heavy.split()!r} if name in sys.modules], "
        "[name for name in sys.modules if name.startswith('scotl_matgl.')])"
    )
    output = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)  # noqa: S603 - our own code
    assert output.stdout.strip() == "[] ['scotl_matgl.exceptions', 'scotl_matgl.registry']"
    assert output.stderr == ""


def test_what_is_installed_later_is_seen_after_refresh(install: Install, tmp_path: Path) -> None:
    before = registry.entries("estimators")
    assert registry.entries("estimators") is before  # kept for the process
    install("later", {"estimators": {"newcomer": "json:loads"}})
    assert "newcomer" not in before
    assert set(registry.names("estimators")) == set(before) | {"newcomer"}


def test_the_mapping_cannot_be_written_to_and_is_sorted() -> None:
    found = registry.entries("estimators")
    assert list(found) == sorted(found)
    assert registry.names("estimators") == tuple(found)
    with pytest.raises(TypeError, match="does not support item assignment"):
        found["loo"] = found["logme"]  # type: ignore[index]
    with pytest.raises(TypeError, match="does not support item assignment"):
        GROUPS["zoos"] = "other"  # type: ignore[index]


# --- what is asked for wrongly ---------------------------------------------------------------------------------------


def test_an_unknown_name_is_answered_with_the_likely_one_and_all_that_there_are() -> None:
    with pytest.raises(PluginError) as caught:
        registry.load("bridges", "rigde")
    names = ", ".join(registry.names("bridges"))
    assert str(caught.value) == f"Unknown bridge 'rigde'; did you mean 'ridge'? Registered are: {names}"
    with pytest.raises(PluginError, match=r"^Unknown zoo 'qqqqq'; Registered are: .*matgl"):
        registry.load("zoos", "qqqqq")


def test_an_unknown_kind_is_a_value_error() -> None:
    expected = "Unknown kind='zoo'; choose one of zoos, descriptors, bridges, estimators"
    with pytest.raises(ValueError, match=expected):
        registry.entries("zoo")


# --- what comes with the package -------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", [*GROUPS])
def test_every_entry_point_of_our_own_can_be_imported(kind: str) -> None:
    ours = [item for item in registry.entries(kind).values() if item.distribution == registry.OWN_DISTRIBUTION]
    assert ours
    for item in ours:
        assert callable(item.load()), item


def test_bridges_are_registered_under_their_kind() -> None:
    for name in ("mlp", "ridge"):
        bridge = registry.load("bridges", name)
        assert issubclass(bridge, Bridge)
        assert bridge.kind == name
