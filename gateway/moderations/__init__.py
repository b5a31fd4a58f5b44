"""``/v1/moderations``."""
