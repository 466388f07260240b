"""Which published crystal model is worth transferring from to a table of formation enthalpies?"""

from __future__ import annotations

from scotl_matgl import TransferabilityRanker, load_example


def main() -> None:
    table = load_example()
    ranker = TransferabilityRanker(target_unit="eV/atom").fit(table["formula"], table["target"])
    print(ranker.ranking_)
    print(f"\nbest source: {ranker.best_source_}")


if __name__ == "__main__":
    main()
