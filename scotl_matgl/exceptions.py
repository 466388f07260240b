"""Warnings for the user, under one base class so that they can be filtered together, and wrong input."""

from __future__ import annotations

import sys
import warnings
from types import FrameType


class ScotlMatglWarning(UserWarning):
    """Base class of every warning that this package raises itself."""


class DegenerateScoreWarning(ScotlMatglWarning):
    """A transferability score is a constant by construction for this shape of data, and is returned as NaN."""


class StoredFileWarning(ScotlMatglWarning):
    """A stored file could not be read; the run goes on without it."""


class PluginWarning(ScotlMatglWarning):
    """A registered plugin could not be used; the run goes on without it."""


class InputError(ValueError):
    """What the user gave cannot be used; the message says what, where and what to do."""


class StoredFileError(InputError):
    """A stored file is damaged, of another kind, or odd; the message names it and says what to do."""


# Between the user's line and ours: our own frames, and those of what calls us on the user's behalf.
_PASSED_OVER = frozenset({"scotl_matgl", "sklearn", "joblib", "contextlib", "functools", "threading", "concurrent"})


def warn(message: str, category: type[Warning]) -> None:
    """Warn at the line of the user's that led here: frames of this package and of what wraps its calls are skipped."""
    frame = outermost = sys._getframe(1)
    while frame.f_back is not None and _package_of(frame) in _PASSED_OVER:
        frame = frame.f_back
    if _package_of(frame) in _PASSED_OVER:  # a thread of workers, which no line of the user's called
        frame = outermost
    module, seen = frame.f_globals.get("__name__", ""), frame.f_globals.setdefault("__warningregistry__", {})
    warnings.warn_explicit(message, category, frame.f_code.co_filename, frame.f_lineno, module, seen)


def _package_of(frame: FrameType) -> str:
    name: str = frame.f_globals.get("__name__", "")
    return name.partition(".")[0]
