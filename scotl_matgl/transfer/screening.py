"""Predict for very many formulas: part by part of a table, going on where a run was killed, and the best of them."""

from __future__ import annotations

import io
import json
import os
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from scotl_matgl.exceptions import InputError
from scotl_matgl.storage import file_sha256, read_record, write_whole
from scotl_matgl.tables.chunks import read_in_chunks
from scotl_matgl.tables.crystal_cells import crystals_of
from scotl_matgl.transfer.estimators import TransferClassifier, load_transferred
from scotl_matgl.vocabulary import Progress, for_spreadsheets

if TYPE_CHECKING:
    import pandas as pd


@dataclass(frozen=True, kw_only=True)
class Screening:
    """A table to be predicted by a saved model, into a file.

    What is finished lies in a folder beside the output, ``OUTPUT.parts``, until all is: a run with the same model,
    table and settings goes on from there.

    Parameters
    ----------
    model : Path
        That `TransferRegressor.save` wrote.
    table : Path
        See :func:`~scotl_matgl.tables.chunks.read_in_chunks`.
    output : Path
        CSV, or Parquet if it ends so.
    formula : str, optional
        Column of formulas.
    structures : Path, optional
        Folder with the crystals that the column of formulas names.
    top : int, default=0
        Write so many rows alone, the best first; 0 writes all in their order.
    maximise : bool, default=True
        Whether the largest predictions are the best, or the smallest.
    rows : int, default=20,000
        Rows of a part.
    n_jobs : int, default=1
        Processes, as in joblib. They change no number.

    Notes
    -----
    Memory: the model, and some 100 MB, for each process; with `top` 0 the output once more at the end. Cost: 0.3 to
    0.7 ms of CPU a formula for a model of 1,000 rows, and a third more for reading and writing.
    """

    model: Path
    table: Path
    output: Path
    formula: str | None = None
    structures: Path | None = None
    top: int = 0
    maximise: bool = True
    rows: int = 20_000
    n_jobs: int = 1

    def run(self, progress: Progress | None = None) -> tuple[int, tuple[tuple[int, str], ...], int]:
        """Predict what is not predicted yet, and write the output.

        Parameters
        ----------
        progress : callable, optional
            Called with (done, total) rows.

        Returns
        -------
        int
            Number of rows.
        tuple of (int, str)
            Numbers of some rows that cannot be read, and why; those that an earlier run found are not told again.
        int
            Number of rows without a prediction.
        """
        from joblib import Parallel, delayed

        model = load_transferred(self.model)
        if self.top and isinstance(model, TransferClassifier):
            raise InputError("the best are told by a predicted property; this model predicts classes")
        names = [] if model.formula is None else [str(name) for name in model.feature_names_in_]
        further = [name for name in names if name != model.formula]
        total, chunks = read_in_chunks(self.table, self.formula, further, rows=self.rows)
        self._start()
        jobs = self.n_jobs if total > self.rows else 1
        parallel = Parallel(n_jobs=jobs, return_as="generator", pre_dispatch="2*n_jobs")
        tasks = (
            delayed(_predict)(self, names, chunk, part) for chunk, part in zip(chunks, self._parts(), strict=False)
        )
        told: list[tuple[int, str]] = []
        n = lost = 0
        for rows, missing, reasons in parallel(tasks):
            n, lost = n + rows, lost + missing
            told += reasons
            if progress is not None:
                progress(n, max(total, n))
        self._finish(n)
        return n, tuple(told), lost

    @property
    def _folder(self) -> Path:
        return self.output.with_name(f"{self.output.name}.parts")

    def _parts(self) -> Iterator[Path]:
        number = 0
        while True:
            yield self._folder / f"{number:06}.csv"
            number += 1

    @property
    def parquet(self) -> bool:
        """Whether the output is Parquet."""
        return self.output.suffix.lower() == ".parquet"

    def _start(self) -> None:
        """Leave parts of the same work where they are, and delete those of another."""
        plan = {
            "model": file_sha256(self.model),
            "table": file_sha256(self.table),
            "formula": self.formula,
            **({} if self.structures is None else {"structures": str(self.structures.resolve())}),
            "rows": self.rows,
            "for spreadsheets": not self.parquet,
        }
        kept = self._folder / "plan.json"
        known = read_record(kept, f"delete {self._folder} to begin anew") if kept.is_file() else None
        if known != plan:
            if self._folder.exists() and known is None and any(self._folder.iterdir()):
                raise InputError(f"{self._folder} holds something else; move it, or name another output")
            shutil.rmtree(self._folder, ignore_errors=True)
            write_whole(kept, json.dumps(plan).encode())

    def _finish(self, n: int) -> None:
        """Write the output from the parts, and delete these."""
        parts = [part for part, _ in zip(self._parts(), range(0, max(n, 1), self.rows), strict=False) if part.is_file()]
        if self.top or self.parquet:
            write_whole(self.output, self._selected(parts))
        else:
            content = [part.read_bytes() for part in parts]
            write_whole(self.output, b"".join(content[:1] + [text.partition(b"\n")[2] for text in content[1:]]))
        shutil.rmtree(self._folder)

    def _selected(self, parts: list[Path]) -> bytes:
        import pandas as pd

        found: pd.DataFrame | None = None
        frames = []
        for part in parts:
            frame = pd.read_csv(part, keep_default_na=False, na_values={name: [""] for name in _NUMBERS})
            if not self.top:
                frames.append(frame)
                continue
            both = frame if found is None else pd.concat([found, frame])
            # Equal predictions stay in the order of the table.
            found = both.dropna(subset="predicted").sort_values(
                "predicted", ascending=not self.maximise, kind="stable", ignore_index=True
            )[: self.top]
        table = pd.concat(frames, ignore_index=True) if found is None else found
        if not self.parquet:
            return table.to_csv(index=False).encode()
        buffer = io.BytesIO()
        try:
            table.to_parquet(buffer, index=False)
        except ImportError as error:
            raise InputError(
                f"to write {self.output} takes pyarrow: pip install 'scotl-matgl[parquet]', or write CSV"
            ) from error
        return buffer.getvalue()


def beside(model: Any, rows: pd.DataFrame, found: pd.DataFrame) -> pd.DataFrame:
    """Rows and what a model predicts of them side by side, with the unit of the property."""
    import pandas as pd

    result = pd.concat([rows.reset_index(drop=True), found.reset_index(drop=True)], axis=1)
    unit = str(model.target_unit)
    if unit and "deviation" in found:
        result.insert(len(rows.columns) + 2, "unit", unit)
    return result


_NUMBERS = ("predicted", "deviation", "probability", "distance", "clipped")


@lru_cache(maxsize=1)
def _loaded(path: Path, sha256: str, process: int) -> Any:  # noqa: ARG001 - what it is known by
    model = load_transferred(path)
    model.on_error = "skip"
    return model


def _predict(
    screening: Screening, names: list[str], chunk: pd.DataFrame, part: Path
) -> tuple[int, int, list[tuple[int, str]]]:
    """Predict a part, unless that is done; number of rows, of rows without a prediction, and reasons of some."""
    import pandas as pd
    from threadpoolctl import threadpool_limits

    if part.is_file():
        predicted = pd.read_csv(part, usecols=["predicted"], keep_default_na=False, dtype=str)["predicted"]
        return len(predicted), int((predicted == "").sum()), []
    model = _loaded(screening.model, file_sha256(screening.model), os.getpid())
    formula = str(chunk.columns[0])
    given = chunk.rename(columns={formula: model.formula})[names] if names else chunk
    with threadpool_limits(1):
        materials = crystals_of(chunk[formula], screening.table, screening.structures)
        found = model.predict_table(given.assign(**{model.formula if names else formula: materials}))
    result = beside(model, given, found)
    text = (result if screening.parquet else for_spreadsheets(result)).to_csv(index=False)
    write_whole(part, text.encode())
    reasons = [(row.row + int(chunk.index[0]), f"({row.value}): {row.reason}") for row in found.attrs["skipped"][:5]]
    return len(found), int(found["predicted"].isna().sum()), reasons
