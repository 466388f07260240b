"""How much does transfer from published crystal models lower the error for a hundred measured formation enthalpies?"""

from __future__ import annotations

import numpy as np

from scotl_matgl import TransferRegressor, load_example


def main() -> None:
    table = load_example().sample(300, random_state=0)
    known, new = table[:100], table[100:]
    for name, sources in (("descriptors alone", ()), ("best sources", "all")):
        model = TransferRegressor(sources).fit(known["formula"], known["target"])
        predicted, deviation = model.predict(new["formula"], return_std=True)
        size = np.abs(predicted - new["target"])
        print(
            f"{name}: mean absolute error {size.mean():.3f} eV/atom, {np.mean(size <= 1.645 * deviation):.0%} within "
            f"the 90 % interval; source: {model.source_}"
        )
    print(model.domain(new["formula"].reset_index(drop=True)).head())


if __name__ == "__main__":
    main()
