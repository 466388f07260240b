"""What can be wrong with files of weights."""

from __future__ import annotations


class CheckpointError(ValueError):
    """Files are not those of a MEGNet model that this plugin understands."""
