"""What a ranking says: its sentence, its table as text, and its figure."""

from __future__ import annotations

import math
import shutil
import textwrap
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from scotl_matgl.bridges.embedding import NOT_HERE
from scotl_matgl.vocabulary import NO_TRANSFER, counted, listing

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes

    from scotl_matgl.ranking.result import Ranking

# Narrowest printed form: a long name, its error, and its gain.
_NARROWEST = 80

# Sources that a table shows.
_SHOWN = 12

_NEXT = "`scotl-matgl fit` weighs it against the descriptors by evidence"


def summary(ranking: Ranking) -> str:
    """Answer in a sentence or two: which source, how much better, how sure, what next, or none."""
    unit = "" if ranking.classification or not ranking.target_unit else f" {ranking.target_unit}"
    without = f"{ranking.error_of_control:.3g}{unit} without transfer ({ranking.control_name})"
    if not ranking.results:
        return f"No source could be ranked; {ranking.measure} {without}."
    if ranking.error_of_control == 0:
        return f"Do not transfer: there is no error to reduce; {ranking.measure} {without}."
    first, gain = ranking.sources[0], ranking.relative_gain
    low, high = (100 * end for end in ranking.relative_interval)
    error = f"{ranking.measure} {ranking.error_of_control * (1 - gain):.3g}{unit}"
    told = f"{error}, {_change(gain)} (90 % interval {_bare(low)} to {_bare(high)} %) than {without}"
    sure = f"probability that transfer helps {ranking.probability:.2f}"
    tied = f" Not told apart from it: {listing(ranking.ties)}." if ranking.ties else ""
    if ranking.verdict == "yes":
        return f"Transfer from {first}: {told}; {sure}.{_together(ranking)}{tied}"
    if ranking.verdict == "likely":
        return f"Transfer from {first} is likely to help: {told}; {sure}; {_NEXT}.{_together(ranking)}{tied}"
    n_sources = len(ranking.results) + len(ranking.screened)
    return f"Do not transfer: the best of {counted(n_sources, 'source')}, {first}, promises {told}; {sure}."


def _change(gain: float) -> str:
    return f"{100 * gain:.1f} % less" if gain >= 0 else f"{-100 * gain:.1f} % more"


def _bare(percent: float) -> str:
    return f"{percent:.1f}".replace("-", "−")


def _together(ranking: Ranking) -> str:
    """What the first sources give together, where that is more."""
    together = ranking.judgement.together
    if not ranking.n_together or together.gain <= ranking.judgement.gains[0].gain:
        return ""
    low, high = (100 * end for end in together.interval)
    return f" The {ranking.together}: {_change(together.gain)} (90 % interval {_bare(low)} to {_bare(high)} %)."


def remarks(ranking: Ranking) -> list[str]:
    """What else a reader should know, a sentence each."""
    rows = f"{ranking.n_rows} formulas"
    if ranking.columns:
        rows = f"{ranking.n_rows} rows of formula and {listing(ranking.columns)}"
    if len(ranking.control) < ranking.n_rows:
        rows += f"; errors and gains on {len(ranking.control)} of them, drawn at random"
    encoded = [result.encoded for result in (*ranking.results, *ranking.screened) if result.encoded]
    found = [rows, *ranking.remarks]
    if encoded:
        found[0] = found[0].replace(" formulas", " rows", 1)
        least = f"{min(encoded)} to {max(encoded)}" if min(encoded) < max(encoded) else f"{max(encoded)}"
        found.append(
            f"{least} rows are embedded as crystals by {counted(len(encoded), 'source')} whose weights are here; all "
            "others by the formula"
        )
    found += fallen_back(ranking.fallbacks)
    if ranking.results:
        found.append("error: out of fold; gain: on rows that nobody has seen, the choice of the source counted in")
        first = ranking.results[0]
        if first.seen:
            found.append(
                f"{first.source} may have been trained on calculated values of {first.seen} of these formulas; on "
                "others its gain may be smaller (column seen)"
            )
    found += _layers(ranking)
    if ranking.combine == "embedding":
        found.append("for training on the embedding alone: errors are out of bag, of a random forest")
    if ranking.results and not ranking.calibrated:
        found.append(
            "intervals and probabilities were calibrated with kernel ridge on descriptors and embedding together; "
            f"with {ranking.head} they are untested"
        )
    rest = [result.source for result in (*ranking.results[_SHOWN:], *ranking.screened)]
    if rest:
        n = len(ranking.sources[:_SHOWN])
        found.append(f"the first {n} sources; {len(rest)} others are in .to_frame() and .to_csv(): {listing(rest)}")
    if ranking.skipped:
        shown = "; ".join(f"row {row.row} ({row.value}): {row.reason}" for row in ranking.skipped[:3])
        more = f"; and {len(ranking.skipped) - 3} more, all in .skipped" if len(ranking.skipped) > 3 else ""
        found.append(f"rows skipped: {len(ranking.skipped)}: {shown}{more}")
    if ranking.n_merged:
        same = listing(("composition", *ranking.columns))
        found.append(f"rows merged with another of the same {same}: {ranking.n_merged}")
    if ranking.errors:
        failed, reason = next(iter(ranking.errors.items()))
        others = listing(tuple(ranking.errors)[1:])
        also = f"; and, for reasons in .errors, {others}" if others else ""
        found.append(f"sources not ranked: {len(ranking.errors)}: {failed}: {reason}{also}")
    if ranking.unscored:
        scores = "; ".join(f"{name} ({reason})" for name, reason in ranking.unscored.items())
        found.append(f"scores left out: {scores}")
    if ranking.imputed:
        found.append(
            f"elements of which some tabulated property is unknown and was imputed: {listing(tuple(ranking.imputed))}"
        )
    return found


def _layers(ranking: Ranking) -> list[str]:
    """Of how many layers the best were taken; nothing where there was no choice."""
    tried = [result.n_layers for result in (*ranking.results, *ranking.screened) if result.layer]
    if not tried:
        return []
    of = f"{sum(tried)} layers that {counted(len(tried), 'source')} can be had by here"
    return [f"each source by its best layer, of {of}; the choice is counted in as that of the source is"]


def fallen_back(fallbacks: Mapping[str, str]) -> list[str]:
    """Sources that read crystals and were ranked by bridges: with the reason, but counted where weights are missing."""
    failed = {name: reason for name, reason in fallbacks.items() if not reason.startswith(NOT_HERE)}
    found = []
    if len(fallbacks) > len(failed):
        n = counted(len(fallbacks) - len(failed), "source")
        found.append(f"{n} of crystals, whose weights or packages are not here, by bridges (see fallbacks)")
    for reason in dict.fromkeys(failed.values()):
        names = listing(tuple(name for name, why in failed.items() if why == reason))
        found.append(f"by bridges although the rows are crystals: {names}: {reason}")
    return found


def text(ranking: Ranking, width: int | None = None) -> str:
    """Summary, table and remarks as plain text; see :meth:`Ranking.to_text`."""
    width = max(_NARROWEST, shutil.get_terminal_size((120, 24)).columns if width is None else width)
    # Names and commands must stay in one piece, to be copied.
    wrapper = textwrap.TextWrapper(width, break_on_hyphens=False, break_long_words=False)
    lines = [wrapper.fill(summary(ranking)), "", *_text_table(ranking, width), ""]
    wrapper.initial_indent, wrapper.subsequent_indent = "* ", "  "
    return "\n".join([*lines, *(wrapper.fill(remark) for remark in remarks(ranking))])


def plot(ranking: Ranking, ax: Axes | None, *, most: int) -> Axes:
    """Draw the gains of the first together and of the first sources."""
    from scotl_matgl import plotting

    judgement = ranking.judgement
    judged = dict(zip(ranking.sources, judgement.gains, strict=True)) | {ranking.together: judgement.together}
    frame = ranking.to_frame()
    always = (NO_TRANSFER, ranking.together)
    measured = list(frame["source"][frame["error"].notna()])
    names = [name for place, name in enumerate(measured) if place < most or name in always]
    shown = f" ({len(names)} of {len(measured)} rows)" if len(names) < len(measured) else ""
    gains = [judged.get(name) for name in names]
    unit = f" {ranking.target_unit}" if ranking.target_unit and not ranking.classification else ""
    ax = plotting.plot_gains(
        names,
        [0.0 if gain is None else 100 * gain.gain for gain in gains],
        [[0.0, 0.0] if gain is None else [100 * end for end in gain.interval] for gain in gains],
        ["control" if gain is None else gain.verdict for gain in gains],
        ax,
        label=f"gain on unseen rows, % of {ranking.error_of_control:.3g}{unit} without transfer",
        title=f"{ranking.n_rows} formulas, 90 % intervals{shown}",
        most=len(names),
    )
    plotting.note_beside(ax, ["" if gain is None else f"P {gain.probability:.2f}" for gain in gains])
    return ax


def _shortened(words: str, most: int = 32) -> str:
    return words if len(words) <= most else f"{words[: most - 1].rstrip()}…"


def _decimals(value: float, digits: int) -> int:
    """Decimal places that show so many significant digits of a value."""
    if not math.isfinite(value) or value == 0:
        return digits - 1
    return max(0, digits - 1 - math.floor(math.log10(abs(value))))


def columns(ranking: Ranking) -> dict[str, list[str]]:
    """Cells by heading: one row per source that was measured, the control where it belongs."""
    frame = ranking.to_frame()
    frame = frame[frame["error"].notna() & ~frame["source"].isin(ranking.sources[_SHOWN:])]
    control = (frame["source"] == NO_TRANSFER).to_numpy()
    places = _decimals(ranking.error_of_control, 4)
    percent = 100.0 / ranking.error_of_control if ranking.error_of_control > 0 else math.nan
    intervals = [
        "" if empty or math.isnan(percent) else f"{low * percent:+.1f} to {high * percent:+.1f}"
        for empty, low, high in zip(control, frame["gain_low"], frame["gain_high"], strict=True)
    ]
    found = {
        "": [str(rank) for rank in frame.index],
        "source": list(frame["source"]),
        "layer": list(frame["layer"]) if "layer" in frame else [],
        "trained on": [_shortened(words.removesuffix(" [1]")) for words in frame["property"]],
        ranking.measure if ranking.classification else "error": _cells(frame, "error", f".{places}f"),
        "gain %": [
            "" if empty else cell for empty, cell in zip(control, _cells(frame, "gain_percent", "+.1f"), strict=True)
        ],
        "90 % interval": intervals,
        "P(helps)": _cells(frame, "p_helps", ".2f"),
        "P(best)": _cells(frame, "p_best", ".2f"),
        "LOO": _cells(frame, "loo_rmse", f".{_decimals(float(frame['loo_rmse'].min()), 4)}f"),
        "looked up": _known(frame),
    }
    optional = ("looked up", "LOO", "layer")
    return {name: cells for name, cells in found.items() if name not in optional or any(cells)}


def _cells(frame: pd.DataFrame, name: str, form: str) -> list[str]:
    return ["" if math.isnan(value) else format(value, form) for value in frame[name]]


def _known(frame: pd.DataFrame) -> list[str]:
    """Shares of formulas that were looked up; nothing if there are none."""
    if not frame["looked_up"].any():
        return [""] * len(frame)
    total = frame["looked_up"] + frame["bridged"] + frame["refused"]
    return [f"{a / b:.0%}" if b > 0 else "" for a, b in zip(frame["looked_up"], total, strict=True)]


def _text_table(ranking: Ranking, width: int) -> list[str]:
    """Lines of a plain-text table; columns that do not fit are left out, the least important first."""
    shown = columns(ranking)

    def widths() -> list[int]:
        return [max(len(heading), *map(len, cells)) for heading, cells in shown.items()]

    for spare in ("looked up", "LOO", "trained on", "P(best)", "90 % interval", "P(helps)", "layer"):
        if sum(widths()) + 2 * (len(shown) - 1) <= width:
            break
        shown.pop(spare, None)

    def line(cells: Sequence[str]) -> str:
        padded = [
            cell.ljust(size) if heading in ("source", "layer", "trained on") else cell.rjust(size)
            for heading, cell, size in zip(shown, cells, widths(), strict=True)
        ]
        return "  ".join(padded).rstrip()

    rule = "-" * (sum(widths()) + 2 * (len(shown) - 1))
    return [line(list(shown)), rule, *(line(cells) for cells in zip(*shown.values(), strict=True))]
