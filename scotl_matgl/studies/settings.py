"""What learning curves and validations have in common: target, metric, where results are kept, and how fits are run."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from scotl_matgl.progress import Told
from scotl_matgl.studies.fitting import Metric
from scotl_matgl.tables.rows import Polymorphs
from scotl_matgl.tables.target import Task


@dataclass(frozen=True, kw_only=True)
class StudySettings:
    """How a learning curve or a validation is measured, run and kept.

    Attributes
    ----------
    metric : {"auto", "rmse"} or callable, default="auto"
        ``"auto"``: mean absolute error, or for class labels the share that is wrong. A callable takes true and
        predicted values and returns an error.
    task : {"auto", "regression", "classification"}, default="auto"
        Kind of target, as for :class:`~scotl_matgl.TransferabilityRanker`.
    unit : str, default=""
        Unit of the target, for the result.
    path : path, optional
        CSV file to which every finished fit is added at once. What it holds of the same table, settings and method is
        not measured again; fits that failed are.
    n_jobs : int, optional
        Processes, as in joblib.
    random_state : int, default=0
        Seed of how rows are drawn and split. Methods keep the seeds they were given.
    sources, layer : default="all", "readout"
        As for :class:`~scotl_matgl.TransferRegressor`; for the methods that are not given as estimators.
    polymorphs : {"together", "apart"}, default="together"
        Whether crystals of one formula share a fold, as new formulas ask for, or are split like all others, as new
        polymorphs of known formulas do.
    progress : callable or True, optional
        A callable is called with (done, total) fits; True draws a bar, in a notebook below the cell.

    Examples
    --------
    >>> StudySettings(unit="eV/atom", path="curve.csv").metric
    'auto'
    """

    metric: Metric = "auto"
    task: Task = "auto"
    unit: str = ""
    path: str | Path | None = None
    n_jobs: int | None = None
    random_state: int = 0
    sources: Any = "all"
    layer: str | Sequence[str] = "readout"
    polymorphs: Polymorphs = "together"
    progress: Told = None
