"""Does it pay to train a bridge on from its weights, instead of taking its embedding as it is? (Needs torch.)"""

from __future__ import annotations

import numpy as np

from scotl_matgl import TransferRegressor, load_example


def main() -> None:
    table = load_example().sample(300, random_state=0)
    known, new = table[:100], table[100:]
    for name, parameters in (
        ("frozen", {"method": "frozen"}),
        ("fine-tuned", {"method": "fine-tune", "reinitialise": 0}),
        ("fine-tuned, last layer new", {"method": "fine-tune", "reinitialise": 1}),
    ):
        model = TransferRegressor("MEGNet-MP-2018.6.1-Eform", **parameters).fit(known["formula"], known["target"])
        error = np.abs(model.predict(new["formula"]) - new["target"]).mean()
        print(f"{name}: mean absolute error {error:.3f} eV/atom")


if __name__ == "__main__":
    main()
