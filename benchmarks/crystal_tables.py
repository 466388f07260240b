"""Tables of crystals, ranked and predicted by the crystals' own embeddings beside their formulas alone.

Three tables of 200 crystals of data/structures (bulk modulus, refractive index, HSE gap; one crystal for each formula)
and one of polymorphs (PBE gap; at least two crystals for each formula, whose gaps differ by more than 0.1 eV), all of
at most 20 atoms. The sources are MatGL's; those that were trained on the kind of property are left out.

Ranking: `evaluate` on 100 rows, judged by the other 100, kernel ridge, three draws. `regret`: error of the source that
is ranked first over that of the best, less one; `regret by bridges`: the same where the bridges choose the source and
the crystals are then encoded by it. `gain`: of the first source over no transfer on the same kind of rows. Model: the
default `TransferRegressor` on half of the formulas, tested on the other half; `transfer, ...` are its mean absolute
errors, and `no source, ...` those of the same heads without one. Each line is written when it is done; run again, it
goes on. Needs SCOTL_MATGL_ASSETS, matgl 2.1 on DGL and torch; about 25 minutes of CPU for three draws. LAYER is that of
the sources, by default their read-out; with auto each takes its best.

Usage: python benchmarks/crystal_tables.py RESULTS.csv [DRAWS [LAYER]]
"""

from __future__ import annotations

import os
import sys
import time
import warnings
from collections import defaultdict
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from scotl_matgl import TransferRegressor
from scotl_matgl.chemistry.crystal_files import read_crystals
from scotl_matgl.chemistry.crystals import Crystal
from scotl_matgl.exceptions import ScotlMatglWarning
from scotl_matgl.sources.cards import all_cards
from scotl_matgl.studies.measuring import EvaluationSettings, evaluate
from scotl_matgl.vocabulary import NO_TRANSFER

#: Key of the property, whether polymorphs are wanted, and words in the names of sources that are left out.
TABLES = {
    "bulk modulus": ("bulk_modulus_vrh_GPa", False, ("log10",)),
    "refractive index": ("n", False, ()),
    "HSE gap": ("hse_gap_eV", False, ("BandGap",)),
    "polymorphs": ("pbe_gap_eV", True, ("BandGap",)),
}
ROWS, MOST_ATOMS = 200, 20


def sources(without: tuple[str, ...]) -> list[str]:
    """MatGL's sources, but for those of some words."""
    names = [card.name for card in all_cards() if card.loader.startswith("scotl_matgl.encoders.matgl")]
    return [name for name in names if not any(word in name for word in without)]


def table(crystals: list[Crystal], name: str, draw: int) -> tuple[list[Crystal], np.ndarray]:
    """Crystals and values of a draw of a table."""
    key, several, _ = TABLES[name]
    found: dict[str, list[Crystal]] = defaultdict(list)
    for crystal in crystals:
        value = crystal.properties.get(key)
        if value is not None and np.isfinite(value) and len(crystal) <= MOST_ATOMS:
            found[crystal.key].append(crystal)
    if several:  # polymorphs of the same value tell nothing
        found = {k: v for k, v in found.items() if len(v) > 1 and np.ptp([c.properties[key] for c in v]) > 0.1}
    rng = np.random.default_rng([draw, 7])
    chosen: list[Crystal] = []
    for formula in rng.permutation(sorted(found)):
        chosen += found[formula] if several else [found[formula][int(rng.integers(len(found[formula])))]]
        if len(chosen) >= ROWS:
            break
    return chosen[:ROWS], np.array([float(crystal.properties[key]) for crystal in chosen[:ROWS]])


def rankings(
    crystals: list[Crystal], formulas: list[str], y: np.ndarray, names: list[str], *, seed: int, layer: str
) -> dict[str, Any]:
    """Regret and gain of the rankings of crystals and of formulas: the splits are the same, one crystal a formula."""
    firsts, errors, found = {}, {}, {}
    settings = EvaluationSettings(
        head="kernel ridge", layer=layer, sizes=[ROWS // 2], estimators=["loo"], random_state=seed
    )
    for kind, given in (("formulas", formulas), ("crystals", crystals)):
        measured = evaluate(given, y, names, settings=settings)
        errors[kind] = measured.pivot(index="draw", columns="source", values="error")
        firsts[kind] = measured[measured["place"] == 1].set_index("draw")["source"]
    for kind, chosen_by, label in (
        ("formulas", "formulas", "regret, formulas"),
        ("crystals", "crystals", "regret, crystals"),
        ("crystals", "formulas", "regret by bridges"),
    ):
        own = errors[kind][[name for name in errors[kind] if name in names]]
        first = [own.loc[draw, name] for draw, name in firsts[chosen_by].items()]
        found[label] = float(np.mean(first / own.min(axis=1).to_numpy()) - 1)
        if label != "regret by bridges":
            found[f"gain, {kind}"] = float(np.mean(1 - first / errors[kind][NO_TRANSFER].to_numpy()))
    found["sources"] = len(errors["crystals"].columns.intersection(names))
    return found


def models(
    crystals: list[Crystal], formulas: list[str], y: Any, names: list[str], *, draw: int, layer: str
) -> dict[str, Any]:
    """Errors of transferred models on the formulas that are held out."""
    group = np.unique([crystal.key for crystal in crystals], return_inverse=True)[1]
    test = np.isin(group, np.random.default_rng([draw, 8]).permutation(group.max() + 1)[::2])
    found: dict[str, Any] = {"rows": len(y), "formulas": int(group.max() + 1)}
    found["median"] = float(np.mean(np.abs(np.median(y[~test]) - y[test])))
    for kind, given in (("formulas", formulas), ("crystals", crystals)):
        train, held = ([given[i] for i in np.flatnonzero(part)] for part in (~test, test))
        for label, chosen in (("no source", ()), ("transfer", names)):
            model = TransferRegressor(chosen, layer=layer, on_error="skip", predictions=False).fit(train, y[~test])
            found[f"{label}, {kind}"] = float(np.mean(np.abs(model.predict(held) - y[test])))
    return found


def main(path: Path, draws: int, layer: str) -> None:
    done = pd.read_csv(path) if path.is_file() else pd.DataFrame({"table": [], "draw": []})
    file = Path(os.environ["SCOTL_MATGL_ASSETS"]) / "structures" / "crystals.json.gz"
    crystals = [crystal for crystal in read_crystals(file) if isinstance(crystal, Crystal)]
    for draw in range(draws):
        for name, (_, several, without) in TABLES.items():
            if ((done["table"] == name) & (done["draw"] == draw)).any():
                continue
            started = time.process_time()
            chosen, y = table(crystals, name, draw)
            formulas = [crystal.to_structure().composition.formula.replace(" ", "") for crystal in chosen]
            names = sources(without)
            line = models(chosen, formulas, y, names, draw=draw, layer=layer)
            line |= {} if several else rankings(chosen, formulas, y, names, seed=draw, layer=layer)
            line |= {"table": name, "draw": draw, "cpu seconds": round(time.process_time() - started)}
            done = pd.concat([done, pd.DataFrame([line])])
            done.to_csv(path, index=False)
            print(done.iloc[-1].to_string(), flush=True)
    print(done.groupby("table").mean(numeric_only=True).round(4).T.to_string())


if __name__ == "__main__":
    warnings.simplefilter("ignore")  # of torch and DGL; what this package says is shown
    warnings.simplefilter("default", ScotlMatglWarning)
    main(Path(sys.argv[1]), int(sys.argv[2]) if len(sys.argv) > 2 else 3, [*sys.argv[3:], "readout"][0])
