"""The transferred model."""
