"""How does the estimated embedding of a source serve inside a scikit-learn pipeline, compared with descriptors?"""

from __future__ import annotations

from sklearn.frozen import FrozenEstimator
from sklearn.model_selection import KFold, cross_val_score
from sklearn.pipeline import make_pipeline

from scotl_matgl import get_descriptor, load_example
from scotl_matgl.bridges.store import find_bridge
from scotl_matgl.learners.kernel import LaplacianKernelRidge
from scotl_matgl.sources.cards import all_cards, select


def main() -> None:
    table = load_example().sample(400, random_state=0)
    card = select(all_cards(), "MEGNet-MP-2018.6.1-Eform")[0]
    descriptor = get_descriptor("standard")
    # The bridge is fitted already: frozen, so that cross-validation does not fit it to the target.
    bridge = FrozenEstimator(find_bridge(card, "readout", descriptor).load())
    folds = KFold(5, shuffle=True, random_state=0)
    for name, steps in (("descriptors", (descriptor,)), (f"embedding of {card.name}", (descriptor, bridge))):
        scores = cross_val_score(
            make_pipeline(*steps, LaplacianKernelRidge()),
            table["formula"].to_numpy(),
            table["target"],
            cv=folds,
            scoring="neg_mean_absolute_error",
        )
        print(f"{name}: mean absolute error {-scores.mean():.3f} eV/atom")


if __name__ == "__main__":
    main()
