"""The card of a fitted model: Markdown with a YAML head, as Hugging Face and skops have it."""

from __future__ import annotations

import json
import math
from typing import Any

from scotl_matgl.ranking.cited import cited
from scotl_matgl.transfer.summary import summarise
from scotl_matgl.vocabulary import visible

_LIMITS = """\
* It reads formulas: polymorphs of one formula get one prediction.
* Predictions far from the training rows are guesses: `model.domain(formulas)` says which rows are inside, and why not.
* The deviation is calibrated on rows like those of the training table. For rows of another kind it is too small.
"""


def model_card(model: Any) -> str:
    """Card of a fitted :class:`~scotl_matgl.transfer.model.TransferModel`; see its method `card`."""
    told = summarise(model)
    kind = type(model).__name__
    task = "tabular-classification" if hasattr(model, "classes_") else "tabular-regression"
    head = [
        "---",
        "library_name: sklearn",
        "tags:",
        *(f"- {tag}" for tag in ("sklearn", "skops", "scotl-matgl", "materials-science", task)),
        "model_format: skops",
        "model_file: model.skops",
        f"pipeline_tag: {task}",
        "---",
    ]
    errors = [["model", told.heading], *([name, f"{error:.4g}"] for name, error in told.errors.items())]
    heads = [["head", "weight"], *([name, f"{weight:.3f}"] for name, weight in told.heads.items())]
    settings = [
        ["parameter", "value"],
        *([name, _value(value)] for name, value in model.get_params(deep=False).items()),
    ]
    parts = [
        "\n".join(head),
        f"# {kind}",
        "\n\n".join(visible(sentence) for sentence in told.sentences),
        "## Intended uses and limitations\n\n" + _LIMITS,
        "## Training data\n\n" + _data(model),
        "## Evaluation\n\nOut of fold: rows of one composition are on one side of every fold.\n\n" + _table(errors),
        "## Heads of the blend\n\n" + _table(heads),
        "## Hyperparameters\n\n" + _table(settings),
        f"## How to use\n\n```python\nfrom scotl_matgl import {kind}\n\n"
        f'model = {kind}.load("model.skops")\nmodel.predict(["Fe2O3"])\n```',
        "## Citation\n\n```bibtex\n" + cited(model.ranking_, model._descriptor, _sources(model)) + "\n```",
    ]
    return "\n\n".join(parts) + "\n"


def _sources(model: Any) -> tuple[str, ...]:
    return tuple(dict.fromkeys(source.name for source in (*model.sources_, *model.predictors_)))


def _data(model: Any) -> str:
    held = model.held_out_
    lines = [f"{len(model.skipped_)} rows of the table could not be used."]
    if model.ranking_ is not None:
        lines.insert(0, f"{model.ranking_.n_rows} formulas of different composition.")
    if held is not None and len(held.measured):
        unit = f" {model.target_unit}" if model.target_unit else ""
        lines.append(f"Targets from {held.measured.min():.4g} to {held.measured.max():.4g}{unit}.")
    return visible(" ".join(lines))


def _table(rows: list[list[str]]) -> str:
    """Table in Markdown; what would end a cell is escaped."""
    cells = [[visible(cell).replace("|", "\\|").replace("\n", " ") for cell in row] for row in rows]
    lines = ["| " + " | ".join(row) + " |" for row in cells]
    return "\n".join([lines[0], "| " + " | ".join("---" for _ in rows[0]) + " |", *lines[1:]])


def _value(value: Any) -> str:
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)
    try:
        text = json.dumps(value, ensure_ascii=False)
    except TypeError:
        text = type(value).__name__ if hasattr(value, "get_params") else repr(value)
    return text if len(text) <= 200 else f"{text[:199]}…"
