"""Learners on descriptors and embeddings, and how sure they are."""
