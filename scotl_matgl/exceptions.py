"""Warnings for the user, under one base class so that they can be filtered together, wrong input, and their words."""

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


def counted(number: int, noun: str) -> str:
    """Number and noun, as a message has them: ``1 row``, ``3 rows``."""
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"
