"""Errors of the package."""

from __future__ import annotations


class LibraryError(ValueError):
    """A library, or a network in it, cannot be used as it is; the message says where and what to do."""


class XenonPyError(ValueError):
    """A model directory of XenonPy cannot be read safely, or holds no network of fully connected layers."""
