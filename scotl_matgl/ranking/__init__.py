"""Which source is worth transferring from."""
