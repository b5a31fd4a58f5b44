"""``/v1/prompts``."""
