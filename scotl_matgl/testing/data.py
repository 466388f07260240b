"""Third-party data for tests: required in CI, optional on a user's machine."""

from __future__ import annotations

import os
from pathlib import Path


def assets_with(*needed: str) -> Path:
    """Folder that SCOTL_MATGL_ASSETS names; without it the test that asks is skipped, and fails in CI (needs pytest).

    Parameters
    ----------
    *needed : str
        Files or folders that must be in it.

    Returns
    -------
    pathlib.Path

    Examples
    --------
    >>> assets_with("models/matgl", "structures/crystals.json.gz")  # doctest: +SKIP
    PosixPath('/data')
    """
    import pytest

    value = os.environ.get("SCOTL_MATGL_ASSETS")
    path = Path(value).expanduser().resolve() if value else None
    if path is not None and all((path / name).exists() for name in needed):
        return path
    reason = f"the test data is not there: SCOTL_MATGL_ASSETS is {value!r}, not a folder with {' and '.join(needed)}"
    if os.environ.get("CI"):
        pytest.fail(reason)
    raise pytest.skip.Exception(reason)
