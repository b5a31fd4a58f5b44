"""``/v1/uploads``."""
