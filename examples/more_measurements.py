"""What would more measurements buy, with and without transfer, and when does source data pay more than target data?"""

from __future__ import annotations

import numpy as np

from scotl_matgl import StudySettings, TradeLaw, learning_curves, load_example


def main() -> None:
    table = load_example().sample(400, random_state=0)
    # One fast head, so that the example takes seconds; leave it out to blend several.
    settings = StudySettings(unit="eV/atom")
    curves = learning_curves(table["formula"], table["target"], "kernel ridge", settings=settings)
    print(curves.text(error=0.07))

    # A table of one's own: errors with so many measurements and so many calculations. Here they follow a known law.
    n_target, n_source = (grid.ravel() for grid in np.meshgrid([50, 200, 800], [1e3, 1e4, 1e5]))
    errors = TradeLaw(1.0, 0.45, 0.8, 0.25, 0.02).predict(n_target, n_source)
    law = TradeLaw.fit(n_target, n_source, errors)
    mix = law.cheapest(0.15, price_target=200.0, price_source=1.0, have=(100, 1e4))
    print(f"\nerror = {law}")
    print(f"cheapest way from 100 and 10,000 rows to 0.15: {mix.n_target} measurements, {mix.n_source} calculations")


if __name__ == "__main__":
    main()
