"""Composition descriptors: formulas to a table of numbers."""
