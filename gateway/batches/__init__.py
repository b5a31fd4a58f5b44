"""``/v1/batches``."""
