"""Curves, laws, validation and evaluation."""
