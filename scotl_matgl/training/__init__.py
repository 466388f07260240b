"""Sources of one's own, and sources trained on."""
