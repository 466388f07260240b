"""Formulas and crystals, read strictly."""
