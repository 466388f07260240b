"""Errors of the package."""

from __future__ import annotations

from scotl_matgl.plugin import InputError


class LibraryError(InputError):
    """A library, or a network in it, cannot be used as it is; the message says where and what to do."""


class XenonPyError(InputError):
    """A model directory of XenonPy cannot be read safely, or holds no network of fully connected layers."""
