"""What is told of a fitted model: what was chosen, what it gains, how sure that is."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

from scotl_matgl import views
from scotl_matgl.ranking.layers import chooses
from scotl_matgl.vocabulary import counted, listing

_VERDICTS = {"yes": "Transfer helps", "likely": "Transfer is likely to help", "no": "Transfer is not likely to help"}

# Heads that a table shows.
_HEADS = 8


@dataclass(frozen=True)
class Summary:
    """What is told of a fitted model.

    Attributes
    ----------
    sentences : tuple of str
        What was chosen, what it gains, and how sure.
    errors : mapping of str to float
        Out-of-fold errors: of the best single head and of the blend without transfer, and of the model.
    heads : mapping of str to float
        Heads of the blend and their weights, the heaviest first.
    measure, unit : str
        Of the errors.
    verdict : {"yes", "likely", "no"}
        Of the ranking inside.
    """

    sentences: tuple[str, ...]
    errors: dict[str, float]
    heads: dict[str, float]
    measure: str
    unit: str
    verdict: str

    @property
    def heading(self) -> str:
        """Of the column of errors."""
        return f"{self.measure}, {self.unit}" if self.unit else self.measure

    def gain(self, error: float) -> float:
        """How far an error is below that of the blend without transfer, in percent."""
        base = self.errors.get("blend without transfer", math.nan)
        return 100.0 * (1.0 - error / base) if base > 0 else math.nan

    def __str__(self) -> str:
        lines = [*self.sentences, "", f"{self.heading}, out of fold:"]
        width = max(len(name) for name in (*self.errors, *self.heads))
        for name, error in self.errors.items():
            lines.append(f"  {name:<{width}}  {error:.4g}")
        lines += ["", "weights of the heads:"]
        shown = list(self.heads.items())[:_HEADS]
        lines += [f"  {name:<{width}}  {weight:.2f}" for name, weight in shown]
        if len(self.heads) > len(shown):
            lines.append(f"  and {len(self.heads) - len(shown)} more in members_")
        return "\n".join(lines)

    def _repr_html_(self) -> str:
        return "".join(map(views.paragraph, self.sentences)) + self.tables()

    def tables(self) -> str:
        """Errors and heads as HTML tables."""
        gains = [self.gain(error) for error in self.errors.values()]
        known = [gain for gain in gains if math.isfinite(gain)]
        span = (min(known, default=0.0), max(known, default=0.0))
        errors = [
            views.Column("model", list(self.errors)),
            views.Column(self.heading, [f"{error:.4g}" for error in self.errors.values()], list(self.errors.values())),
            views.Column(
                "gain %",
                ["" if math.isnan(gain) else f"{gain:+.1f}" for gain in gains],
                gains,
                [views.bar(gain, gain, gain, span, self.verdict if gain > 0 else "no") for gain in gains],
            ),
        ]
        shown = list(self.heads.items())[:_HEADS]
        heads = [
            views.Column("head", [name for name, _ in shown]),
            views.Column("weight", [f"{weight:.2f}" for _, weight in shown], [weight for _, weight in shown]),
        ]
        more = f", the first {len(shown)} of {len(self.heads)}" if len(self.heads) > len(shown) else ""
        return views.table(errors, caption="out-of-fold errors", header="model") + (
            views.table(heads, caption=f"weights of the heads{more}", header="head")
        )


def summarise(model: Any) -> Summary:
    """Tell of a fitted :class:`~scotl_matgl.transfer.model.TransferModel`."""
    classes = len(getattr(model, "classes_", ()))
    measure = "error rate" if classes else "mean absolute error"
    unit = "" if classes else model.target_unit
    errors = {
        "best single head without transfer": model.control_error_,
        "blend without transfer": model.no_transfer_error_,
        "this model": model.error_,
    }
    heads = {name: weight for name, weight in model.members_.items() if weight > 0}
    return Summary(
        sentences=tuple(_sentences(model, measure, unit)),
        errors={name: error for name, error in errors.items() if math.isfinite(error)},
        heads=dict(sorted(heads.items(), key=lambda item: -item[1])),
        measure=measure,
        unit=unit,
        verdict=model.ranking_.verdict if model.ranking_ is not None else "no",
    )


def _sentences(model: Any, measure: str, unit: str) -> list[str]:
    shown = f" {unit}" if unit else ""
    ranking = model.ranking_
    if model.transfers_:
        among = chooses(model.layer)
        names = listing([f"{one.name} (layer {one.layer})" if among else one.name for one in model.sources_])
        chosen = f"It transfers from {names}; the heads that see a source count for {model.share_:.0%}."
    elif ranking is not None:
        chosen = "No source is used: heads on descriptors alone were as good."
    else:
        chosen = "No source was asked for: the heads see descriptors alone."
    error = f"Out-of-fold {measure} {model.error_:.3g}{shown}"
    base = model.no_transfer_error_
    if math.isfinite(base) and base > 0:
        change = 100.0 * (1.0 - model.error_ / base)
        error += f", {abs(change):.1f} % {'less' if change >= 0 else 'more'} than {base:.3g}{shown} without transfer"
    told = [chosen, f"{error}; it is a little too small, because sources and weights were chosen on the same rows."]
    if ranking is not None:
        n_sources = counted(len(ranking.results) + len(ranking.screened), "source")
        told.append(
            f"{_VERDICTS[ranking.verdict]}: probability {ranking.probability:.2f} ({n_sources} ranked on "
            f"{counted(ranking.n_rows, 'formula')})."
        )
    if model.held_out_ is not None:
        import numpy as np

        held = model.held_out_
        told.append(
            f"Median standard deviation of a prediction {float(np.nanmedian(held.deviation)):.3g}{shown}; "
            f"{held.coverage():.0%} of {len(held.measured)} held-out rows lie within ± 1.645 of them."
        )
    if model.skipped_:
        told.append(f"{counted(len(model.skipped_), 'row')} could not be used; skipped_ says why.")
    return told
