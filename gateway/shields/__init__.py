"""``/v1/shields``."""
