"""How far do errors rise when a kind of compound, or an element, was never learned from, with and without transfer?"""

from __future__ import annotations

from sklearn.model_selection import cross_val_score

from scotl_matgl import LeaveOneElementOut, StudySettings, TransferRegressor, load_example, validate


def main() -> None:
    table = load_example().sample(400, random_state=0)
    # One fast head, so that the example takes seconds; leave it out to blend several.
    settings = StudySettings(unit="eV/atom")
    print(validate("kernel ridge", table["formula"], table["target"], max_folds=10, settings=settings))

    # The splitters are scikit-learn's: they go wherever `cv` goes.
    elements = LeaveOneElementOut(min_formulas=50)
    scores = cross_val_score(
        TransferRegressor(head="kernel ridge"),
        table["formula"].to_numpy(),
        table["target"],
        cv=elements,
        scoring="neg_mean_absolute_error",
    )
    print()
    for (element, _), score in zip(elements.folds(table["formula"]), scores, strict=True):
        print(f"mean absolute error without {element} in training: {-score:.3f} eV/atom")


if __name__ == "__main__":
    main()
