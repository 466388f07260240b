"""Bridges: composition descriptors to estimated source embeddings."""
