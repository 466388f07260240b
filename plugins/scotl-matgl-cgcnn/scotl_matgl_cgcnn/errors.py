"""What can be wrong with files of weights."""

from __future__ import annotations


class CheckpointError(ValueError):
    """Files are not those of a CGCNN model that this plugin understands, or hold more than numbers and settings."""
