"""Embeddings written for people's own code: a table with identifiers, or arrays."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from scotl_matgl.exceptions import InputError
from scotl_matgl.storage import write_whole

#: Endings of files that can be written.
FORMATS = (".parquet", ".csv", ".npz")


def check_ending(path: str | Path) -> None:
    """Raise unless embeddings can be written to a file of this name: before the work, not after it."""
    if Path(path).suffix.lower() not in FORMATS:
        raise InputError(f"{Path(path).name} ends in none of {', '.join(FORMATS)}, the formats of embeddings")


def write_embeddings(
    path: str | Path, identifiers: Sequence[str], embeddings: Mapping[tuple[str, str], NDArray[np.float32]]
) -> None:
    """Write embeddings of crystals, whole or not at all.

    Parameters
    ----------
    path : path
        Ending in ``.parquet`` or ``.csv``, for a table with the column ``identifier`` and one column for each number,
        ``SOURCE[LAYER]_0`` and so on; or in ``.npz``, for the arrays ``identifier`` and ``SOURCE[LAYER]``.
    identifiers : sequence of str
        Of n crystals.
    embeddings : mapping of (source, layer) to ndarray of shape (n, width)
        NaN rows for crystals that a source refuses.

    Raises
    ------
    InputError
        If the ending is another, or Parquet is asked for and pyarrow is missing.

    Examples
    --------
    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     write_embeddings(f"{folder}/mine.npz", ["a", "b"], {("MEGNet", "readout"): np.ones((2, 3), np.float32)})
    ...     read = np.load(f"{folder}/mine.npz")
    ...     print(read["identifier"].tolist(), read["MEGNet[readout]"].shape)
    ['a', 'b'] (2, 3)
    """
    path = Path(path)
    check_ending(path)
    ending = path.suffix.lower()
    content = io.BytesIO()
    if ending == ".npz":
        arrays = {f"{source}[{layer}]": values for (source, layer), values in embeddings.items()}
        np.savez_compressed(content, identifier=np.array(identifiers, dtype=np.str_), **arrays)  # type: ignore[arg-type]
        write_whole(path, content.getvalue())
        return
    import pandas as pd

    tables = [
        pd.DataFrame(values, columns=[f"{source}[{layer}]_{i}" for i in range(values.shape[1])])
        for (source, layer), values in embeddings.items()
    ]
    table = pd.concat([pd.DataFrame({"identifier": list(identifiers)}), *tables], axis=1)
    if ending == ".csv":
        write_whole(path, table.to_csv(index=False).encode())
        return
    try:
        table.to_parquet(content, index=False)
    except ImportError as error:
        raise InputError("Parquet takes pyarrow: pip install 'scotl-matgl[parquet]', or write .csv or .npz") from error
    write_whole(path, content.getvalue())
