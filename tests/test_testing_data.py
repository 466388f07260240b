"""Without its data a test is skipped, and in CI it fails."""

from __future__ import annotations

from pathlib import Path

import pytest

from scotl_matgl.testing import assets_with


def test_a_test_without_its_data_is_skipped_and_fails_in_ci(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "models").mkdir()
    monkeypatch.delenv("CI", raising=False)
    monkeypatch.setenv("SCOTL_MATGL_ASSETS", str(tmp_path))
    assert assets_with() == assets_with("models") == tmp_path.resolve()
    with pytest.raises(pytest.skip.Exception, match="not a folder with models and models/mine"):
        assets_with("models", "models/mine")
    monkeypatch.setenv("CI", "true")
    with pytest.raises(pytest.fail.Exception, match="the test data is not there"):
        assets_with("models", "models/mine")
    monkeypatch.delenv("SCOTL_MATGL_ASSETS")
    with pytest.raises(pytest.fail.Exception, match="SCOTL_MATGL_ASSETS is None"):
        assets_with()
