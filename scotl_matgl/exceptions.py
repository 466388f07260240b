"""Warnings for the user, under one base class so that they can be filtered together, and wrong input."""

from __future__ import annotations


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
